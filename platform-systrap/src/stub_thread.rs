//! Stub threads without a guest: new ones, and those that wait in the doorbell for the next guest thread of their
//! address space. Making one costs some ten switches between processes, giving one another guest two.

use crate::DOORBELL;
use crate::Host;
use crate::arch::frame::Page;
use crate::arch::stub::{Command, ENTRY, PROLOGUE, START};
use crate::notify::Listener;
use crate::pages::Pages;
use crate::space::{Lease, Space};
use nix::errno::Errno as HostErrno;
use platform::stub::{EXTRA_TEXT, REPLY_TIMEOUT, StubProcess};
use platform::{Context, Errno};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A stub thread that waits in the doorbell.
pub(crate) struct StubThread {
    pub lease: Lease,
    /// `None`: it has not said yet which it is.
    pub listener: Option<Arc<Listener>>,
    pub tid: i32,
    /// Index of the shape of its frames.
    pub shape: usize,
    /// Count of the doorbell, and the notification to answer; `None`: the first has not rung yet.
    pub rung: u64,
    pub doorbell: Option<u64>,
    /// Processor time that is not the next guest's.
    pub used: Duration,
}

/// Puts the frame that a new thread starts from into its pages. Returns the stack pointer, which is where it is.
fn prepare(host: &Host, page: &Page) -> Result<u64, Errno> {
    let shape = host.geometry.shapes.first().ok_or(Errno::EINVAL)?;
    let stack = page.frame_address(shape);
    let mut prologue = Context::default();
    prologue.regs.rip = PROLOGUE;
    prologue.regs.rsp = stack;
    page.prepare();
    page.store(shape, &prologue, u64::MAX, 0);
    Ok(stack)
}

impl StubThread {
    fn new(lease: Lease, tid: i32, listener: Option<OwnedFd>) -> Self {
        let listener = listener.map(|listener| Arc::new(Listener::new(listener)));
        Self { lease, listener, tid, shape: 0, rung: 0, doorbell: None, used: Duration::ZERO }
    }

    /// Makes one.
    pub fn start(space: &Space) -> Result<Self, Errno> {
        let slot = space.process.allocate_slot()?;
        let (page, map) = space.pages.of(slot.index())?;
        let stack = prepare(&space.host, &page)?;
        let memory = [space.pages.memory()?];
        let (tid, listener) = space.process.spawn_thread_with_fd(&map, &memory, stack, ENTRY, 0)?;
        Ok(Self::new(Lease { page, slot: Some(slot) }, tid, Some(listener)))
    }

    /// Makes one in a new process, a copy of `parent`, whose threads' pages are `pages`.
    pub fn fork(
        host: &Host,
        parent: &StubProcess,
        pages: &Arc<Pages>,
    ) -> Result<(Arc<StubProcess>, Self), Errno> {
        // The first slot of any process.
        let (page, map) = pages.of(0)?;
        let stack = prepare(host, &page)?;
        let (process, tid) = parent.fork_with_thread(&map, &[pages.memory()?], stack, ENTRY)?;
        process.state().keep(pages.clone());
        let slot = process.allocate_slot()?;
        Ok((process, Self::new(Lease { page, slot: Some(slot) }, tid, None)))
    }

    /// Waits until it is in the doorbell. `close`: and has closed its descriptor of the listener, which is else done when it
    /// gets a guest.
    pub fn arrive(&mut self, process: &StubProcess, close: bool) -> Result<(), Errno> {
        if self.doorbell.is_some() {
            return Ok(());
        }
        let listener = match &self.listener {
            Some(listener) => listener.clone(),
            None => {
                let listener = Arc::new(Listener::new(process.descriptor(self.tid)?));
                self.listener = Some(listener.clone());
                listener
            }
        };
        let mut id = self.started(process, &listener, 1)?;
        self.rung = 1;
        if close {
            // If the answer does not arrive, it is the end.
            let _ = listener.send(id, Command::Again as u64);
            id = self.started(process, &listener, 2)?;
            self.rung = 2;
        }
        self.doorbell = Some(id);
        Ok(())
    }

    /// Waits for the doorbell number `expected` of a new thread.
    fn started(&self, process: &StubProcess, listener: &Listener, expected: u64) -> Result<u64, Errno> {
        let misbehaved = || {
            process.state().misbehaved("a new thread that does not start");
            Errno::ESRCH
        };
        loop {
            if !listener.wait(REPLY_TIMEOUT) {
                return Err(misbehaved());
            }
            let notification = match listener.receive() {
                Ok(notification) => notification,
                Err(HostErrno::ENOENT | HostErrno::EINTR)
                    if process.state().death().is_none() && !listener.is_orphan() =>
                {
                    continue;
                }
                Err(_) => return Err(misbehaved()),
            };
            let [kind, .., count] = notification.args;
            let is_doorbell = notification.number == DOORBELL as i32 && notification.ip >= EXTRA_TEXT;
            if notification.pid != self.tid as u32 || !is_doorbell || kind != START || count != expected {
                return Err(misbehaved());
            }
            return Ok(notification.id);
        }
    }

    /// Ends it. If that does not arrive, the doorbell finds the listener closed, which means the same.
    pub fn end(self) {
        if let (Some(listener), Some(doorbell)) = (self.listener, self.doorbell) {
            let _ = listener.send(doorbell, Command::Exit as u64);
        }
    }
}
