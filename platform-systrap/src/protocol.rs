//! The words by which a stub thread, its sentry thread and those who interrupt it agree: the state of a patched call
//! ([`crate::arch::request`]) and who may signal the stub thread ([`crate::link`]).
//!
//! Only the transitions are here, generic over the atomic, so that `tests/model.rs` can try these very ones in every order.
//! (The stub's side of the state is assembler, of which the model has a copy.)

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// An atomic number. Each of these but `load` is a full barrier.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u32;
    /// Replaces it by `value`. Returns what it was; so do the next two.
    fn swap(&self, value: u32) -> u32;
    /// Sets bits.
    fn set(&self, bits: u32) -> u32;
    /// Clears bits.
    fn clear(&self, bits: u32) -> u32;
    /// Replaces it if it is `old`; may fail without a reason. The error is what it is.
    fn replace(&self, old: u32, new: u32) -> Result<u32, u32>;
}

impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }

    fn swap(&self, value: u32) -> u32 {
        self.swap(value, SeqCst)
    }

    fn set(&self, bits: u32) -> u32 {
        self.fetch_or(bits, SeqCst)
    }

    fn clear(&self, bits: u32) -> u32 {
        self.fetch_and(!bits, SeqCst)
    }

    fn replace(&self, old: u32, new: u32) -> Result<u32, u32> {
        self.compare_exchange_weak(old, new, SeqCst, SeqCst)
    }
}

/// State: a call is posted.
pub const CALL_REQUEST: u32 = 1;
/// State: operations are done.
pub const CALL_DONE: u32 = 5;
/// Added to a stub's state when it rings.
pub const ASLEEP: u32 = 0x100;
/// State: the result is there.
pub const REPLY: u32 = 3;
/// State: operations are there.
pub const COMMAND: u32 = 4;
/// State: registers are to be saved.
pub const SAVE: u32 = 6;
/// State: a frame with all registers is there, and how the call ended.
pub const LOAD: u32 = 7;
/// Whether the sentry looks: it sleeps in the listener.
pub const RESTING: u32 = 0;
/// Whether the sentry looks: it does.
pub const LOOKING: u32 = 1;

/// What a stub thread says by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing new.
    Nothing,
    /// A call.
    Call {
        /// The doorbell rings.
        asleep: bool,
    },
    /// Operations are done, or registers saved.
    Done {
        /// The doorbell rings.
        asleep: bool,
    },
}

/// What the stub says.
pub fn said(state: &impl Word) -> Said {
    match state.load() {
        CALL_REQUEST => Said::Call { asleep: false },
        state if state == CALL_REQUEST + ASLEEP => Said::Call { asleep: true },
        CALL_DONE => Said::Done { asleep: false },
        state if state == CALL_DONE + ASLEEP => Said::Done { asleep: true },
        _ => Said::Nothing,
    }
}

/// Whether the answer is there.
pub fn is_replied(state: &impl Word) -> bool {
    state.load() == REPLY
}

/// Changes the state to the sentry's `new`. False: the stub rings, or is about to.
pub fn hand_over(state: &impl Word, new: u32) -> bool {
    state.swap(new) & ASLEEP == 0
}

/// Withdraws the posted call: the thread goes on elsewhere.
pub fn withdraw(state: &impl Word) {
    state.swap(REPLY);
}

/// Says whether the sentry looks at the state.
pub fn set_looking(awake: &impl Word, looking: bool) {
    awake.swap(if looking { LOOKING } else { RESTING });
}

/// The sentry thread has given the thread back to the guest and waits for it.
pub const GUEST: u32 = 1;
/// The sentry thread waits for the handler although it has not given the thread back.
pub const WAITING: u32 = 2;
/// Somebody called interrupt() and has not been served yet.
pub const WANTED: u32 = 4;
/// A signal was or is being sent, and its doorbell has not rung yet.
pub const KICKED: u32 = 8;
/// ... by another thread, right now.
pub const SENDING: u32 = 16;
/// No signals any more.
pub const OVER: u32 = 32;

/// What the owner does after [`enter_guest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Sends a signal.
    Signal,
    /// Has the signal that is on its way looked after.
    Watch,
}

/// Owner: an interrupt that was asked for, and is served by this.
pub fn take_wanted(word: &impl Word) -> bool {
    word.load() & WANTED != 0 && word.clear(WANTED) & WANTED != 0
}

/// Owner: the thread is the guest's. (The reply has been accepted.)
pub fn enter_guest(word: &impl Word) -> Then {
    let before = word.set(GUEST);
    if before & (WANTED | KICKED) == WANTED {
        // Others signal only if they find GUEST; if one did since, it has set KICKED.
        if word.set(KICKED) & KICKED == 0 { Then::Signal } else { Then::Nothing }
    } else if before & KICKED != 0 {
        Then::Watch
    } else {
        Then::Nothing
    }
}

/// Owner: the thread is the sentry's again. Says whether a signal is on its way.
pub fn leave_guest(word: &impl Word) -> bool {
    word.clear(GUEST) & KICKED != 0
}

/// Owner, in the middle of a guest's call: it needs the handler. Says whether it has to send the signal.
pub fn kick(word: &impl Word) -> bool {
    word.set(KICKED) & KICKED == 0
}

/// Owner: the doorbell of a kick has rung. Says whether one was sent.
pub fn kick_arrived(word: &impl Word) -> bool {
    word.clear(KICKED) & KICKED != 0
}

/// Anybody: asks for an interrupt. True: the caller is to send a signal, and then to call [`sent`].
pub fn interrupt(word: &impl Word) -> bool {
    let mut now = word.load();
    loop {
        if now & (OVER | WANTED) != 0 {
            return false;
        }
        let signal = now & (GUEST | KICKED) == GUEST;
        let new = now | WANTED | if signal { KICKED | SENDING } else { 0 };
        match word.replace(now, new) {
            Ok(_) => return signal,
            Err(other) => now = other,
        }
    }
}

/// Whoever was to send a signal has done so.
pub fn sent(word: &impl Word) {
    word.clear(SENDING);
}
