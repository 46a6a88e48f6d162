//! What a guest thread and those who interrupt it share.
//!
//! The word says who may signal the stub thread:
//!
//! ```text
//! GUEST    the sentry thread has given the thread back to the guest and waits for it
//! WAITING  the sentry thread waits for the handler although it has not given the thread back
//! WANTED   somebody called interrupt() and has not been served yet
//! KICKED   a signal was or is being sent, and its doorbell has not rung yet
//! SENDING  ... by another thread, right now
//! OVER     no signals any more
//! ```
//!
//! A signal must never meet a reply to a guest's call: the kernel drops a reply that it has accepted if the waiting
//! thread was signalled before it looked, and restarts the call, which the guest would then have made twice. So
//! - others signal only in GUEST, which the owner enters after its reply was accepted;
//! - the owner replies to a guest's call only when no signal is on its way: if it takes a notification with KICKED set, it
//!   waits for the doorbell that must follow, and puts the result into the frame.
//!
//! Doorbells are made with all signals blocked, and replies to them need no such care.

use crate::monitor::Monitor;
use crate::protocol::{self, GUEST, KICKED, OVER, SENDING, Then, WAITING};
use platform::Interrupter;
use platform::stub::State;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// The signal of a kick.
pub const KICK: i32 = libc::SIGUSR1;

/// See the module.
pub struct Link {
    word: AtomicU32,
    pid: i32,
    /// The stub thread.
    pub tid: i32,
    /// The sentry thread.
    pub owner: i32,
    /// The stub process. (Not a handle: interrupters must not keep the process.)
    pub state: Arc<State>,
    monitor: Arc<Monitor>,
    /// On the monitor's list.
    pub watched: AtomicBool,
    /// Counts the signals sent.
    pub kicks: AtomicU32,
    /// Threads of the process that may run.
    pub siblings: Arc<AtomicU32>,
}

impl Link {
    /// The link of the stub thread `tid`, made on its sentry thread.
    pub fn new(state: Arc<State>, tid: i32, siblings: Arc<AtomicU32>, monitor: Arc<Monitor>) -> Arc<Self> {
        siblings.fetch_add(1, SeqCst);
        Arc::new(Self {
            word: AtomicU32::new(0),
            pid: state.pid(),
            tid,
            owner: nix::unistd::gettid().as_raw(),
            state,
            monitor,
            watched: AtomicBool::new(false),
            kicks: AtomicU32::new(0),
            siblings,
        })
    }

    fn signal(self: &Arc<Self>) {
        self.kicks.fetch_add(1, SeqCst);
        // SAFETY: a plain system call. The process is not reaped before OVER, so the numbers are its own.
        unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, KICK) };
        self.monitor.watch(self);
    }

    /// Owner: an interrupt that was asked for, and is served by this.
    pub fn take_wanted(&self) -> bool {
        protocol::take_wanted(&self.word)
    }

    /// Owner: the thread is the guest's. (The reply has been accepted.)
    pub fn enter_guest(self: &Arc<Self>) {
        match protocol::enter_guest(&self.word) {
            Then::Nothing => {}
            Then::Signal => self.signal(),
            Then::Watch => self.monitor.watch(self),
        }
    }

    /// Owner: the thread is the sentry's again. Says whether a signal is on its way.
    pub fn leave_guest(&self) -> bool {
        protocol::leave_guest(&self.word)
    }

    /// Owner, in the middle of a guest's call: makes the stub enter its handler.
    pub fn kick(self: &Arc<Self>) {
        if protocol::kick(&self.word) {
            self.signal();
        } else {
            self.monitor.watch(self);
        }
    }

    /// Owner: begins to wait for a doorbell that must come.
    pub fn begin_waiting(&self) {
        self.word.fetch_or(WAITING, SeqCst);
    }

    /// Owner: that doorbell has come, or the thread is dead.
    pub fn end_waiting(&self) {
        self.word.fetch_and(!WAITING, SeqCst);
    }

    /// Owner: the doorbell of a kick has rung. Says whether one was sent.
    pub fn kick_arrived(&self) -> bool {
        protocol::kick_arrived(&self.word)
    }

    /// Owner: forbids further signals, and waits for one that is being sent.
    pub fn end(&self) {
        self.word.fetch_or(OVER, SeqCst);
        while self.word.load(SeqCst) & SENDING != 0 {
            std::thread::yield_now();
        }
    }

    /// A kick is unanswered, and somebody waits for the answer.
    pub fn is_overdue(&self) -> bool {
        let word = self.word.load(SeqCst);
        word & OVER == 0 && word & KICKED != 0 && word & (GUEST | WAITING) != 0
    }

    /// The owner waits for the handler of a thread that is in a guest's call.
    pub fn is_waiting(&self) -> bool {
        self.word.load(SeqCst) & WAITING != 0
    }

    /// The owner waits in the listener.
    pub fn is_awaited(&self) -> bool {
        let word = self.word.load(SeqCst);
        word & OVER == 0 && word & (GUEST | WAITING) != 0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.siblings.fetch_sub(1, SeqCst);
    }
}

/// The handle given to the sentry.
pub struct Kicker(pub Arc<Link>);

impl Interrupter for Kicker {
    fn interrupt(&self) {
        let link = &self.0;
        if protocol::interrupt(&link.word) {
            link.signal();
            protocol::sent(&link.word);
        }
    }
}
