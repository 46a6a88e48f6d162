//! Contexts of asynchronous I/O (fs/aio.c): where the results of requests wait to be fetched.
//!
//! Requests are carried out when they are submitted, which is what Linux does for all but direct I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use abi::aio::IoEvent;
use abi::poll::PollEvents;
use parking_lot::Mutex;

use crate::wait::WaitQueue;

#[derive(Default)]
struct State {
    done: VecDeque<IoEvent>,
    /// Requests under way, and results that were not fetched.
    used: usize,
    destroyed: bool,
}

/// A context.
pub struct Context {
    capacity: usize,
    state: Mutex<State>,
    /// Woken when a result is there, and when the context is destroyed.
    pub queue: WaitQueue,
}

impl Context {
    /// A context for `capacity` requests at a time.
    pub fn new(capacity: usize) -> Arc<Context> {
        Arc::new(Context { capacity, state: Mutex::default(), queue: WaitQueue::new() })
    }

    /// How many requests there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes a place for a request. False if there is none.
    pub fn reserve(&self) -> bool {
        let mut state = self.state.lock();
        let free = !state.destroyed && state.used < self.capacity;
        state.used += usize::from(free);
        free
    }

    /// Gives back the place of a request that could not be started.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(1);
    }

    /// A request that has a place is done.
    pub fn complete(&self, event: IoEvent) {
        self.state.lock().done.push_back(event);
        self.queue.notify(PollEvents::POLLIN);
    }

    /// Takes at most `max` results out.
    pub fn fetch(&self, max: usize) -> Vec<IoEvent> {
        let mut state = self.state.lock();
        let len = state.done.len().min(max);
        state.used = state.used.saturating_sub(len);
        state.done.drain(..len).collect()
    }

    /// True if there are results, or there will be none any more.
    pub fn is_ready(&self) -> bool {
        let state = self.state.lock();
        state.destroyed || !state.done.is_empty()
    }

    /// True once the context was destroyed.
    pub fn is_destroyed(&self) -> bool {
        self.state.lock().destroyed
    }

    fn destroy(&self) {
        self.state.lock().destroyed = true;
        self.queue.notify(PollEvents::POLLIN | PollEvents::POLLHUP);
    }
}

/// The contexts of an address space, by the address that stands for each.
#[derive(Default)]
pub struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

impl Contexts {
    /// The context of an address.
    pub fn find(&self, id: u64) -> Option<Arc<Context>> {
        self.0.lock().get(&id).cloned()
    }

    /// Adds one.
    pub fn add(&self, id: u64, context: Arc<Context>) {
        self.0.lock().insert(id, context);
    }

    /// Destroys one. `None` if there is none.
    pub fn remove(&self, id: u64) -> Option<Arc<Context>> {
        let removed = self.0.lock().remove(&id)?;
        removed.destroy();
        Some(removed)
    }

    /// The sum of their capacities.
    pub fn capacity(&self) -> usize {
        self.0.lock().values().map(|context| context.capacity).sum()
    }
}
