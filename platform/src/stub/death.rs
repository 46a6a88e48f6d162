//! Who is alive: one thread a template watches the stub processes, marks them dead, wakes who waits for them.
//!
//! A stub process is reaped only after its last [`super::StubProcess`] handle is dropped, so that its pid cannot come to
//! mean another process while anyone may still use it.
//!
//! A captured service thread can fork processes that nobody knows of. They are in the process group of the one that was
//! captured (their filter lets them out of it as little as into another), and are killed and reaped with it.
//!
//! Lock order: `Watcher::table`, then `State::reaped`, then `State::watches`.

use super::processor::Processors;
use crate::{Death, Errno, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

const ALIVE: u8 = 0;

/// The life of one stub process.
pub struct State {
    pid: i32,
    pidfd: OwnedFd,
    death: AtomicU8,
    /// The number is no longer its own.
    reaped: Mutex<bool>,
    watches: Mutex<Watches>,
    kept: Mutex<Vec<Arc<dyn Send + Sync>>>,
}

type Watch = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Watches {
    next: u64,
    list: Vec<(u64, Watch)>,
}

/// Keeps a watch set by [`State::on_death`].
pub struct DeathWatch {
    state: Weak<State>,
    id: u64,
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.watches.lock().list.retain(|(id, _)| *id != self.id);
        }
    }
}

impl State {
    pub(super) fn new(pid: i32, pidfd: OwnedFd) -> Arc<State> {
        Arc::new(State {
            pid,
            pidfd,
            death: AtomicU8::new(ALIVE),
            reaped: Mutex::new(false),
            watches: Mutex::new(Watches::default()),
            kept: Mutex::default(),
        })
    }

    /// The host's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Why the process is dead, or `None` while it lives.
    pub fn death(&self) -> Option<Death> {
        match self.death.load(Ordering::Acquire) {
            ALIVE => None,
            1 => Some(Death::Killed),
            2 => Some(Death::Host),
            _ => Some(Death::Misbehaved),
        }
    }

    /// ESRCH if the process is dead.
    pub fn alive(&self) -> Result<()> {
        if self.death.load(Ordering::Relaxed) == ALIVE { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// Kills the process, if that has not happened yet, and makes every use of it fail. The first cause stays.
    pub fn kill(&self, why: Death) {
        let code = match why {
            Death::Killed => 1,
            Death::Host => 2,
            Death::Misbehaved => 3,
        };
        if self.death.compare_exchange(ALIVE, code, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        if !self.kill_group(&self.reaped.lock()) {
            // SAFETY: a plain system call on an fd that we own.
            unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    self.pidfd.as_raw_fd(),
                    libc::SIGKILL,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                );
            }
        }
        let list = std::mem::take(&mut self.watches.lock().list);
        for (_, watch) in list {
            watch();
        }
    }

    /// Kills the process because it broke the protocol, and logs why.
    pub fn misbehaved(&self, reason: &str) {
        if self.death().is_none() {
            tracing::warn!(pid = self.pid, reason, "stub process misbehaved, killing it");
        }
        self.kill(Death::Misbehaved);
    }

    /// Calls `watch` once when the process dies (at once if it is dead), from whatever thread notices.
    pub fn on_death(self: &Arc<State>, watch: Watch) -> DeathWatch {
        let mut watches = self.watches.lock();
        let id = watches.next;
        watches.next += 1;
        // A death between this check and the push takes the list only after the lock is free.
        if self.death().is_some() {
            drop(watches);
            watch();
        } else {
            watches.list.push((id, watch));
            drop(watches);
        }
        DeathWatch { state: Arc::downgrade(self), id }
    }

    /// Kills the process and what it has forked without being told: all of its group, which has its number. False: there is no
    /// such group.
    fn kill_group(&self, reaped: &bool) -> bool {
        !reaped
            && nix::sys::signal::killpg(Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL).is_ok()
    }

    /// Keeps something until no process can use it any more that has this one's memory.
    pub fn keep(&self, thing: Arc<dyn Send + Sync>) {
        self.kept.lock().push(thing);
    }

    /// Reaps the process if it has exited. True also if somebody else did.
    fn reap(&self) -> bool {
        let exited = WaitPidFlag::WEXITED | WaitPidFlag::__WALL;
        let looking = exited | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if matches!(waitid(Id::PIDFd(self.pidfd.as_fd()), looking), Ok(WaitStatus::StillAlive)) {
            return false;
        }
        let mut reaped = self.reaped.lock();
        self.kill_group(&reaped);
        // Out of its group, which is then waited for; the number stays its own until it is reaped itself.
        if nix::unistd::setpgid(Pid::from_raw(self.pid), nix::unistd::getpgrp()).is_ok() {
            while matches!(
                waitid(Id::PGid(Pid::from_raw(self.pid)), exited),
                Ok(_) | Err(nix::errno::Errno::EINTR)
            ) {}
        }
        self.wait();
        *reaped = true;
        drop(reaped);
        let kept = std::mem::take(&mut *self.kept.lock());
        drop(kept);
        true
    }

    /// Reaps the process, which must have been killed.
    pub(super) fn wait(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::__WALL;
        while waitid(Id::PIDFd(self.pidfd.as_fd()), flags) == Err(nix::errno::Errno::EINTR) {}
    }

    /// A copy of its descriptor `number` (pidfd_getfd(2)), whatever that is.
    pub(super) fn descriptor(&self, number: RawFd) -> Result<OwnedFd> {
        // SAFETY: a plain system call that returns a new descriptor.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), number, 0) as RawFd;
            nix::errno::Errno::result(fd)?;
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

struct Entry {
    state: Arc<State>,
    exited: bool,
    released: bool,
}

/// The set of stub processes of a template.
pub(super) struct Watcher {
    epoll: Epoll,
    stop: EventFd,
    table: Mutex<HashMap<i32, Entry>>,
    thread: OnceLock<()>,
    stopping: AtomicBool,
    pub(super) processors: Processors,
}

const STOP: u64 = u64::MAX;
/// Marks an event as the command socket's; else it is the pidfd's.
const SOCKET: u64 = 1 << 32;

impl Watcher {
    pub(super) fn new() -> Result<Arc<Watcher>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Arc::new(Watcher {
            epoll,
            stop,
            table: Mutex::default(),
            thread: OnceLock::new(),
            stopping: AtomicBool::new(false),
            processors: Processors::new(),
        }))
    }

    /// Takes charge of a new process. EEXIST if that pid is already there (a stub lied about its child).
    pub(super) fn register(self: &Arc<Watcher>, state: &Arc<State>, socket: BorrowedFd<'_>) -> Result<()> {
        let mut table = self.table.lock();
        if table.contains_key(&state.pid) {
            return Err(Errno::EEXIST);
        }
        let oneshot = EpollFlags::EPOLLONESHOT;
        self.epoll.add(&state.pidfd, EpollEvent::new(EpollFlags::EPOLLIN | oneshot, state.pid as u64))?;
        self.epoll
            .add(socket, EpollEvent::new(EpollFlags::EPOLLRDHUP | oneshot, state.pid as u64 | SOCKET))?;
        table.insert(state.pid, Entry { state: state.clone(), exited: false, released: false });
        Ok(())
    }

    /// Starts the thread, once. Not done for the template itself: a sentry forks its template while it is
    /// single-threaded.
    pub(super) fn start(self: &Arc<Watcher>) -> Result<()> {
        if self.thread.get().is_some() {
            return Ok(());
        }
        let table = self.table.lock();
        if self.thread.get().is_none() {
            let watcher = self.clone();
            std::thread::Builder::new().name("stub-watcher".into()).spawn(move || watcher.watch())?;
            let _ = self.thread.set(());
        }
        drop(table);
        Ok(())
    }

    /// Ends the thread once all processes are released and reaped.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if self.thread.get().is_some() {
            let _ = self.stop.write(1);
            return;
        }
        // Only the template was ever here.
        for (_, entry) in self.table.lock().drain() {
            entry.state.wait();
        }
    }

    /// The last handle of a process is gone: kills and reaps it.
    pub(super) fn release(&self, pid: i32) {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(&pid) else { return };
        entry.released = true;
        let state = entry.state.clone();
        if entry.exited && state.reap() {
            table.remove(&pid);
        }
        drop(table);
        state.kill(Death::Killed);
    }

    fn watch(&self) {
        // Its own signals: none, so that the sentry's handlers run elsewhere.
        let _ = nix::sys::signal::SigSet::all().thread_block();
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let n = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => {
                    tracing::error!(error = %e, "watching stub processes");
                    return;
                }
            };
            for event in events.iter().take(n) {
                if event.data() == STOP {
                    let _ = self.stop.read();
                    continue;
                }
                let pid = event.data() as u32 as i32;
                let mut table = self.table.lock();
                let Some(entry) = table.get_mut(&pid) else { continue };
                let state = entry.state.clone();
                // A closed socket without an exit is either the beginning of one, or a stub that closed it.
                if event.data() & SOCKET == 0 {
                    entry.exited = true;
                    if entry.released && state.reap() {
                        table.remove(&pid);
                    }
                }
                drop(table);
                state.kill(Death::Host);
            }
            if self.stopping.load(Ordering::Acquire) && self.table.lock().is_empty() {
                return;
            }
        }
    }
}
