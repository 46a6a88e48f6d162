//! One thread that sleeps until the next timer of the sandbox is due. It is started by the first timer, and sleeps
//! without a timeout while there is none.

use std::collections::{BTreeMap, HashMap};
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
    /// The address of the timer.
    timer: usize,
}

fn address(timer: &Weak<dyn Expire>) -> usize {
    timer.as_ptr().cast::<()>() as usize
}

#[derive(Default)]
struct State {
    timers: BTreeMap<TimerKey, Weak<dyn Expire>>,
    /// Where in `timers` a timer is: each is there once, however often it was set. The weak reference keeps the address
    /// from being another's.
    places: HashMap<usize, TimerKey>,
    next_id: u64,
    running: bool,
    stopped: bool,
}

impl State {
    fn insert(&mut self, deadline: u64, timer: Weak<dyn Expire>) -> TimerKey {
        self.next_id += 1;
        let key = TimerKey { deadline, id: self.next_id, timer: address(&timer) };
        if let Some(old) = self.places.insert(key.timer, key) {
            self.timers.remove(&old);
        }
        self.timers.insert(key, timer);
        key
    }
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
    /// Calls `timer` at `deadline` (monotonic nanoseconds), unless it is dropped, cancelled or scheduled again before.
    pub fn schedule(&self, deadline: u64, timer: &Arc<dyn Expire>) -> TimerKey {
        let mut state = self.0.state.lock();
        let key = state.insert(deadline, Arc::downgrade(timer));
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

    /// Takes a timer out, also if it was set again since by what its expiry returned. It may be expiring at this moment.
    pub fn cancel(&self, key: TimerKey) {
        let mut state = self.0.state.lock();
        if let Some(place) = state.places.remove(&key.timer) {
            state.timers.remove(&place);
        }
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
        state.places.remove(&first.timer);
        drop(state);
        let alive = timer.upgrade();
        let again = alive.as_ref().and_then(|timer| timer.expire(now));
        state = queue.state.lock();
        // Whoever has set it in the meantime knows better.
        if let Some(deadline) = again
            && !state.places.contains_key(&first.timer)
        {
            state.insert(deadline, timer);
        }
    }
    state.running = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;

    impl Expire for Never {
        fn expire(&self, _now: u64) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_timer_is_in_the_queue_once() {
        let queue = TimerQueue::default();
        let timer: Arc<dyn Expire> = Arc::new(Never);
        let old = queue.schedule(u64::MAX - 1, &timer);
        queue.schedule(u64::MAX, &timer);
        assert_eq!(queue.0.state.lock().timers.len(), 1);
        queue.cancel(old);
        let state = queue.0.state.lock();
        assert!(state.timers.is_empty() && state.places.is_empty());
        drop(state);
        queue.stop();
    }
}
