//! Turns of guest threads that do little but call, when there are too few processors for all of them to be looked for.
//!
//! Each call by doorbell is two switches between processes, some twenty times what it costs if the sentry thread looks. So
//! two pairs that look one after the other, each with two processors for itself, get more done than two that ring all the
//! time. Whoever waits for a turn has its guest in a call, and needs no processor. A turn ends early when its guest does
//! something else; when there are no processors to give, all who wait go on by doorbell.
//!
//! Lock order: `Turns::state` is the last.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a turn lasts if somebody waits for it. As long as the scheduler's.
pub(crate) const TURN: Duration = Duration::from_millis(4);
/// Whoever has waited longer than the turns before it can last, and this, goes on without: somebody is in a long call.
const GRACE: Duration = Duration::from_millis(20);

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const REFUSED: u8 = 2;

struct Waiter {
    thread: Thread,
    answer: AtomicU8,
}

impl Waiter {
    fn answer(&self, answer: u8) {
        self.answer.store(answer, SeqCst);
        self.thread.unpark();
    }
}

#[derive(Default)]
struct State {
    /// Turns being taken.
    holders: u32,
    queue: VecDeque<Arc<Waiter>>,
}

impl State {
    /// Gives what there is to give; if nobody can have a turn, says so to all.
    fn grant(&mut self, places: u32) {
        while self.holders < places
            && let Some(waiter) = self.queue.pop_front()
        {
            self.holders += 1;
            waiter.answer(GRANTED);
        }
        if self.holders == 0 {
            for waiter in self.queue.drain(..) {
                waiter.answer(REFUSED);
            }
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    holders: AtomicU32,
    waiters: AtomicU32,
}

impl Turns {
    /// Waits for a turn, of which there may be `places()` at a time. False: there is none to wait for.
    pub fn wait(&self, places: impl Fn() -> u32) -> bool {
        let waiter = Arc::new(Waiter { thread: std::thread::current(), answer: AtomicU8::new(WAITING) });
        let before = {
            let mut state = self.state.lock();
            state.queue.push_back(waiter.clone());
            let before = state.queue.len() as u32;
            self.settle(&mut state, places());
            before
        };
        let deadline = Instant::now() + TURN * 2 * before + GRACE;
        loop {
            match waiter.answer.load(SeqCst) {
                GRANTED => return true,
                REFUSED => return false,
                _ => {}
            }
            let now = Instant::now();
            if now < deadline {
                std::thread::park_timeout(deadline - now);
                continue;
            }
            let mut state = self.state.lock();
            if waiter.answer.load(SeqCst) == WAITING {
                state.queue.retain(|other| !Arc::ptr_eq(other, &waiter));
                waiter.answer.store(REFUSED, SeqCst);
                self.settle(&mut state, places());
            }
        }
    }

    /// A turn that was granted ends.
    pub fn pass(&self, places: u32) {
        let mut state = self.state.lock();
        state.holders = state.holders.saturating_sub(1);
        self.settle(&mut state, places);
    }

    fn settle(&self, state: &mut State, places: u32) {
        state.grant(places);
        self.holders.store(state.holders, Relaxed);
        self.waiters.store(state.queue.len() as u32, Relaxed);
    }

    /// Turns being taken.
    pub fn holders(&self) -> u32 {
        self.holders.load(Relaxed)
    }

    /// Somebody waits.
    pub fn is_awaited(&self) -> bool {
        self.waiters.load(Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn turns_are_taken_in_order() {
        let turns = Arc::new(Turns::default());
        assert!(turns.wait(|| 1));
        let (said, heard) = channel();
        let mut threads = Vec::new();
        for number in 0..3 {
            let (ours, said) = (turns.clone(), said.clone());
            threads.push(std::thread::spawn(move || {
                let granted = ours.wait(|| 1);
                let _ = said.send((number, granted));
            }));
            // (Or until one has waited too long, on a machine that stood still.)
            while turns.waiters.load(SeqCst) < number + 1
                && !threads.iter().any(std::thread::JoinHandle::is_finished)
            {
                std::thread::yield_now();
            }
        }
        let mut answers = Vec::new();
        for _ in 0..3 {
            turns.pass(1);
            answers.push(heard.recv().expect("an answer"));
        }
        if answers.iter().all(|(_, granted)| *granted) {
            assert_eq!(answers, [(0, true), (1, true), (2, true)]);
        } else {
            println!("skipped: somebody has waited too long: {answers:?}");
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
        assert!(!turns.is_awaited());
    }

    #[test]
    fn without_places_nobody_waits() {
        let turns = Arc::new(Turns::default());
        assert!(!turns.wait(|| 0));
        assert!(turns.wait(|| 1));
        let ours = turns.clone();
        let thread = std::thread::spawn(move || ours.wait(|| 1));
        while !turns.is_awaited() && !thread.is_finished() {
            std::thread::yield_now();
        }
        // The last one goes, and processors are needed otherwise.
        turns.pass(0);
        assert!(!thread.join().expect("a thread"));
        assert_eq!((turns.holders(), turns.is_awaited()), (0, false));
    }

    #[test]
    fn waiting_has_an_end() {
        let turns = Turns::default();
        assert!(turns.wait(|| 1));
        assert!(!turns.wait(|| 1), "the one who has it does not pass it on");
        turns.pass(1);
        assert_eq!((turns.holders(), turns.is_awaited()), (0, false));
        assert!(turns.wait(|| 1));
    }
}
