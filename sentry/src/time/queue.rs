//! One thread that sleeps until the next timer of the sandbox is due. It is started by the first timer, and sleeps
//! without a timeout while there is none.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Clock;

/// Something that happens at a time.
pub trait Expire: Send + Sync {
    /// Called by the timer thread, without locks held. Returns when to be called again (monotonic nanoseconds).
    fn expire(&self, now: u64) -> Option<u64>;
}

/// A timer in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    deadline: u64,
    id: u64,
}

#[derive(Default)]
struct State {
    timers: BTreeMap<TimerKey, Weak<dyn Expire>>,
    next_id: u64,
    running: bool,
    stopped: bool,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

/// The timers of a sandbox.
#[derive(Clone, Default)]
pub struct TimerQueue(Arc<Inner>);

impl TimerQueue {
    /// Calls `timer` at `deadline` (monotonic nanoseconds), unless it is dropped or cancelled before.
    pub fn schedule(&self, deadline: u64, timer: &Arc<dyn Expire>) -> TimerKey {
        let mut state = self.0.state.lock();
        state.next_id += 1;
        let key = TimerKey { deadline, id: state.next_id };
        state.timers.insert(key, Arc::downgrade(timer));
        let first = state.timers.keys().next() == Some(&key);
        if !state.running {
            state.running = true;
            let queue = self.0.clone();
            let started = std::thread::Builder::new()
                .name("timers".into())
                .stack_size(256 * 1024)
                .spawn(move || run(&queue));
            if let Err(e) = started {
                state.running = false;
                tracing::error!("cannot start the timer thread: {e}");
            }
        } else if first {
            self.0.changed.notify_one();
        }
        key
    }

    /// Takes a timer out. It may be expiring at this moment.
    pub fn cancel(&self, key: TimerKey) {
        self.0.state.lock().timers.remove(&key);
    }

    /// Ends the thread, at the end of the sandbox.
    pub fn stop(&self) {
        self.0.state.lock().stopped = true;
        self.0.changed.notify_one();
    }
}

fn run(queue: &Inner) {
    let clock = Clock::default();
    let mut state = queue.state.lock();
    while !state.stopped {
        let Some(first) = state.timers.keys().next().copied() else {
            queue.changed.wait(&mut state);
            continue;
        };
        let now = clock.monotonic();
        if first.deadline > now {
            queue.changed.wait_for(&mut state, Duration::from_nanos(first.deadline - now));
            continue;
        }
        let Some(timer) = state.timers.remove(&first) else { continue };
        drop(state);
        let alive = timer.upgrade();
        let again = alive.as_ref().and_then(|timer| timer.expire(now));
        state = queue.state.lock();
        if let Some(deadline) = again {
            state.next_id += 1;
            let id = state.next_id;
            state.timers.insert(TimerKey { deadline, id }, timer);
        }
    }
    state.running = false;
}
