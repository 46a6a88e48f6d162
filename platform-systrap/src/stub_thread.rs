//! Stub threads without a guest: new ones, and those that wait in the doorbell for the next guest thread of their
//! address space. Making one costs some ten switches between processes, giving one another guest two.

use crate::DOORBELL;
use crate::arch::stub::{Command, ENTRY, PROLOGUE, START};
use crate::notify::Listener;
use crate::space::{Lease, Space};
use nix::errno::Errno as HostErrno;
use platform::stub::{EXTRA_TEXT, REPLY_TIMEOUT};
use platform::{Context, Errno};
use std::sync::Arc;
use std::time::Duration;

/// A stub thread that waits in the doorbell.
pub(crate) struct StubThread {
    pub lease: Lease,
    pub listener: Arc<Listener>,
    pub tid: i32,
    /// Index of the shape of its frames.
    pub shape: usize,
    /// Count of the doorbell, and the notification to answer.
    pub rung: u64,
    pub doorbell: u64,
    /// Processor time that is not the next guest's.
    pub used: Duration,
}

impl StubThread {
    /// Makes one.
    pub fn start(space: &Space) -> Result<Self, Errno> {
        let (lease, map) = space.lease()?;
        let shape = space.host.geometry.shapes.first().ok_or(Errno::EINVAL)?;
        let stack = lease.page.frame_address(shape);
        let mut prologue = Context::default();
        prologue.regs.rip = PROLOGUE;
        prologue.regs.rsp = stack;
        lease.page.prepare();
        lease.page.store(shape, &prologue, u64::MAX, 0);
        let (tid, fd) = space.process.spawn_thread_with_fd(&map, &[space.memory()], stack, ENTRY, 0)?;
        let listener = Listener::new(fd);
        let misbehaved = || {
            space.process.state().misbehaved("a new thread that does not start");
            Errno::ESRCH
        };
        let ring = |expected: u64| loop {
            if !listener.wait(REPLY_TIMEOUT) {
                return Err(misbehaved());
            }
            let notification = match listener.receive() {
                Ok(notification) => notification,
                Err(HostErrno::ENOENT | HostErrno::EINTR)
                    if space.process.state().death().is_none() && !listener.is_orphan() =>
                {
                    continue;
                }
                Err(_) => return Err(misbehaved()),
            };
            let [kind, .., count] = notification.args;
            let is_doorbell = notification.number == DOORBELL as i32 && notification.ip >= EXTRA_TEXT;
            if notification.pid != tid as u32 || !is_doorbell || kind != START || count != expected {
                return Err(misbehaved());
            }
            return Ok(notification.id);
        };
        // It closes its own descriptor of the listener between the two. (If the answer does not arrive, it is the end.)
        let taken = ring(1)?;
        let _ = listener.send(taken, 0);
        let doorbell = ring(2)?;
        Ok(Self {
            lease,
            listener: Arc::new(listener),
            tid,
            shape: 0,
            rung: 2,
            doorbell,
            used: Duration::ZERO,
        })
    }

    /// Ends it. If that does not arrive, the doorbell finds the listener closed, which means the same.
    pub fn end(self) {
        let _ = self.listener.send(self.doorbell, Command::Exit as u64);
    }
}
