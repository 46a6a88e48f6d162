//! The listener of one stub thread: seccomp_unotify(2).

use nix::errno::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// `struct seccomp_notif` with its `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Notification {
    /// Unique among the listener's notifications.
    pub id: u64,
    /// The thread.
    pub pid: u32,
    flags: u32,
    /// The call's number.
    pub number: i32,
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// The address after the instruction.
    pub ip: u64,
    /// The arguments.
    pub args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Notification>() == 80 && size_of::<Response>() == 24);

const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (6.6): both wakes tell the scheduler that the waker is about to sleep, so that it
/// keeps the pair on one core.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// The sentry's end.
pub struct Listener {
    fd: OwnedFd,
    /// The kernel has synchronous wakes.
    pub is_synchronous: bool,
}

impl Listener {
    /// Takes the fd of a new filter, and asks for synchronous wakes.
    pub fn new(fd: OwnedFd) -> Self {
        // SAFETY: the argument is a plain number.
        let is_synchronous = unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) } == 0;
        Self { fd, is_synchronous }
    }

    /// Asks for synchronous wakes or for ordinary ones, if the kernel knows the difference.
    pub fn set_synchronous(&self, synchronous: bool) {
        if self.is_synchronous {
            let flags = if synchronous { SYNC_WAKE_UP } else { 0 };
            // SAFETY: the argument is a plain number.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), SET_FLAGS as _, flags) };
        }
    }

    /// Waits for a notification. ENOENT: the call was interrupted, or (6.11) no thread has the filter any more; EINTR:
    /// this thread got a signal.
    pub fn receive(&self) -> Result<Notification, Errno> {
        // The kernel demands zeroes.
        let mut notification = Notification::default();
        // SAFETY: the kernel writes one structure of this size, which is part of the request's number.
        Errno::result(unsafe { libc::ioctl(self.fd.as_raw_fd(), RECV as _, &mut notification) })?;
        Ok(notification)
    }

    /// Ends the call with `value` in the result register. ENOENT: it was interrupted and will be restarted.
    pub fn send(&self, id: u64, value: u64) -> Result<(), Errno> {
        // The kernel stores `error ?: value`, so all 64 bits arrive with no error.
        let response = Response { id, value: value as i64, error: 0, flags: 0 };
        // SAFETY: the kernel reads one structure of this size.
        Errno::result(unsafe { libc::ioctl(self.fd.as_raw_fd(), SEND as _, &response) })?;
        Ok(())
    }

    /// Waits until there is a notification, or the thread is gone, or what was given is no listener. False: time is over.
    pub fn wait(&self, limit: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure.
        unsafe { libc::poll(&mut poll, 1, limit) != 0 }
    }

    /// Whether there is a notification, or the thread is gone.
    pub fn has_something(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Whether the thread is gone (5.8).
    pub fn is_orphan(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one structure, no waiting.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLHUP != 0 }
    }
}
