//! Wait queues: how kernel objects tell those who sleep on them that something happened.
//!
//! A queue holds registrations, each with a mask of events and a [`Wake`]. Registering allocates one `Arc`-free slot;
//! dropping the [`Registration`] takes it out. Lock order: a queue's lock is a leaf, except that [`Wake::wake`] is
//! called under it, so an implementation may take only its own leaf lock (epoll's ready list, a thread's parker).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use abi::poll::PollEvents;
use parking_lot::Mutex;

/// Something that can be told of events.
pub trait Wake: Send + Sync {
    /// Called with the events that occurred. Must not block, and must not touch the queue that calls.
    fn wake(&self, events: PollEvents);

    /// As [`Wake::wake`], of one waiter among many of which one is enough. False if another is to be woken as well.
    fn wake_exclusively(&self, events: PollEvents) -> bool {
        self.wake(events);
        true
    }
}

struct Entry {
    key: u64,
    mask: PollEvents,
    /// Of all of these, an event wakes one (WQ_FLAG_EXCLUSIVE).
    exclusive: bool,
    wake: Arc<dyn Wake>,
}

#[derive(Default)]
struct Entries {
    next_key: u64,
    list: Vec<Entry>,
}

#[derive(Default)]
struct Inner {
    /// The length of the list, so that notifying a queue nobody waits on costs one load.
    len: AtomicUsize,
    entries: Mutex<Entries>,
    /// Called after each registration.
    on_wait: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// A queue of waiters. Clones are handles to the same queue.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Inner>);

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> WaitQueue {
        WaitQueue::default()
    }

    /// Has `call` made after each registration from now on, without locks held: whoever tells this queue of events need
    /// not listen for them as long as nobody waits. Only the first call of this counts.
    pub fn on_wait(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.on_wait.set(Box::new(call));
    }

    /// Adds a waiter for the events of `mask` (POLLERR and POLLHUP are always included) until the result is dropped.
    #[must_use]
    pub fn register(&self, mask: PollEvents, wake: Arc<dyn Wake>) -> Registration {
        self.add(mask, wake, false)
    }

    /// As [`WaitQueue::register`], but of all waiters that say so, an event that is no POLLERR or POLLHUP wakes one.
    #[must_use]
    pub fn register_exclusive(&self, mask: PollEvents, wake: Arc<dyn Wake>) -> Registration {
        self.add(mask, wake, true)
    }

    fn add(&self, mask: PollEvents, wake: Arc<dyn Wake>, exclusive: bool) -> Registration {
        let mut entries = self.0.entries.lock();
        entries.next_key += 1;
        let key = entries.next_key;
        let mask = mask | PollEvents::POLLERR | PollEvents::POLLHUP;
        entries.list.push(Entry { key, mask, exclusive, wake });
        self.0.len.store(entries.list.len(), Ordering::SeqCst);
        drop(entries);
        if let Some(call) = self.0.on_wait.get() {
            call();
        }
        Registration { queue: self.clone(), key }
    }

    /// Wakes every waiter whose mask meets `events`.
    pub fn notify(&self, events: PollEvents) {
        if self.0.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let for_all = events.intersects(PollEvents::POLLERR | PollEvents::POLLHUP);
        let mut served = false;
        for entry in &self.0.entries.lock().list {
            if !entry.mask.intersects(events) {
                continue;
            }
            if !entry.exclusive || for_all {
                entry.wake.wake(events);
            } else if !served {
                served = entry.wake.wake_exclusively(events);
            }
        }
    }

    /// Wakes the first `count` waiters whose mask meets `events`, in the order of registration; returns how many.
    pub fn notify_some(&self, events: PollEvents, count: usize) -> usize {
        if self.0.len.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        let entries = self.0.entries.lock();
        let hit = entries.list.iter().filter(|e| e.mask.intersects(events)).take(count);
        hit.map(|e| e.wake.wake(events)).count()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) == 0
    }
}

/// A place in a queue, given up on drop.
pub struct Registration {
    queue: WaitQueue,
    key: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.queue.0.entries.lock();
        let removed = entries.list.iter().position(|e| e.key == self.key).map(|i| entries.list.remove(i));
        self.queue.0.len.store(entries.list.len(), Ordering::SeqCst);
        drop(entries);
        // Only now: with the waiter may go what has a queue of its own.
        drop(removed);
    }
}

/// What a sentry thread sleeps on: a wake that is remembered until the next sleep.
pub struct Parker {
    woken: AtomicBool,
    thread: Thread,
}

impl Parker {
    /// A parker of the calling thread; only that thread may call [`Parker::park`].
    pub fn new() -> Arc<Parker> {
        Arc::new(Parker { woken: AtomicBool::new(false), thread: std::thread::current() })
    }

    /// Ends the current or next [`Parker::park`].
    pub fn unpark(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Forgets earlier wakes. To be called before the condition is checked.
    pub fn reset(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Sleeps until woken, or until `timeout`. Returns false on timeout.
    pub fn park(&self, timeout: Option<std::time::Duration>) -> bool {
        let end = timeout.and_then(|t| std::time::Instant::now().checked_add(t));
        while !self.woken.load(Ordering::SeqCst) {
            match end {
                None => std::thread::park(),
                Some(end) => {
                    let Some(left) =
                        end.checked_duration_since(std::time::Instant::now()).filter(|d| !d.is_zero())
                    else {
                        return false;
                    };
                    std::thread::park_timeout(left);
                }
            }
        }
        true
    }
}

impl Wake for Parker {
    fn wake(&self, _events: PollEvents) {
        self.unpark();
    }
}
