//! Futexes (futex(2), kernel/futex/).
//!
//! The table's lock is held while the guest's word is compared and the waiter is entered, so that a wake between the
//! two cannot be lost. Waiters of one key are woken in the order in which they came, those of the real-time policies
//! before the others. Futexes with priority inheritance are in [`super::futex_pi`], what the end of a thread does to its
//! futexes in [`super::futex_robust`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use abi::futex::FUTEX_BITSET_MATCH_ANY;
use abi::{Errno, Result};
use parking_lot::{Mutex, MutexGuard};

use super::current::CurrentTask;
use super::futex_pi::{PiState, PiWait};
use super::task::Task;
use crate::mm::{FutexKey, MemoryManager};
use crate::wait::Parker;

/// How a wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Progress {
    /// Not woken.
    Waiting,
    /// Woken.
    Woken,
    /// It was given the lock, and the word says so.
    Owner,
    /// The lock fell to it by the end of its owner; it has to write the word itself.
    Heir,
}

/// Somebody who waits.
pub(super) struct Waiter {
    pub(super) key: Mutex<FutexKey>,
    bitset: u32,
    progress: AtomicU8,
    parker: Arc<Parker>,
    /// What orders the queue: 0 but for real-time policies.
    pub(super) priority: u32,
    /// Set if it waits for a lock with priority inheritance, or to be moved to one.
    pub(super) pi: Option<PiWait>,
}

impl Waiter {
    pub(super) fn new(task: &CurrentTask, key: FutexKey, bitset: u32, pi: Option<PiWait>) -> Arc<Waiter> {
        Arc::new(Waiter {
            key: Mutex::new(key),
            bitset,
            progress: AtomicU8::new(Progress::Waiting as u8),
            parker: task.waker(),
            priority: task.scheduling.lock().realtime_priority(),
            pi,
        })
    }

    /// How it stands.
    pub(super) fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            0 => Progress::Waiting,
            1 => Progress::Woken,
            2 => Progress::Owner,
            _ => Progress::Heir,
        }
    }

    pub(super) fn wake(&self, progress: Progress) {
        self.progress.store(progress as u8, Ordering::Release);
        self.parker.unpark();
    }
}

/// Adds a waiter behind those of the same priority.
pub(super) fn enqueue(queue: &mut VecDeque<Arc<Waiter>>, waiter: Arc<Waiter>) {
    let at = queue.iter().rposition(|w| w.priority >= waiter.priority).map_or(0, |i| i + 1);
    queue.insert(at, waiter);
}

/// What the lock of a [`FutexTable`] guards.
#[derive(Default)]
pub(super) struct Waiters {
    /// Those who wait to be woken or moved.
    pub(super) plain: HashMap<FutexKey, VecDeque<Arc<Waiter>>>,
    /// Locks with priority inheritance that somebody waits for.
    pub(super) pi: HashMap<FutexKey, PiState>,
}

/// All futexes somebody waits on.
#[derive(Default)]
pub struct FutexTable(Mutex<Waiters>);

/// One futex of futex_waitv(2).
#[derive(Clone, Copy, Debug)]
pub struct WaitFor {
    /// The word.
    pub addr: u64,
    /// What it must hold.
    pub expected: u32,
    /// Not FUTEX_PRIVATE_FLAG.
    pub shared: bool,
}

impl FutexTable {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock()
    }

    /// FUTEX_WAKE_BITSET: wakes up to `count` waiters, but at least one: Linux counts after it has woken. Returns how
    /// many. EINVAL if one of them waits for a lock with priority inheritance.
    pub fn wake(&self, key: FutexKey, count: u32, bitset: u32) -> Result<u32> {
        self.lock().wake(key, count.max(1), bitset)
    }

    /// Wakes a waiter of a word of `mm`, by its shared key: what the kernel does of its own accord.
    pub(super) fn wake_address(&self, mm: &MemoryManager, addr: u64) {
        if let Ok(key) = mm.futex_key(addr, true) {
            // EINVAL: there is nobody to tell of the mistake.
            let _ = self.wake(key, 1, FUTEX_BITSET_MATCH_ANY);
        }
    }

    /// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE: wakes up to `wake` waiters of `from`, moves up to `requeue` others to
    /// `to`. Returns (woken, moved). EAGAIN unless `expected` is what the word holds, EINVAL for waiters that only
    /// FUTEX_CMP_REQUEUE_PI may move.
    pub fn requeue(
        &self,
        mm: &MemoryManager,
        from: (u64, FutexKey),
        to: FutexKey,
        wake: u32,
        requeue: u32,
        expected: Option<u32>,
    ) -> Result<(u32, u32)> {
        let mut table = self.lock();
        if let Some(expected) = expected
            && mm.load_u32(from.0)? != expected
        {
            return Err(Errno::EAGAIN);
        }
        if table.pi.contains_key(&from.1) {
            return Err(Errno::EINVAL);
        }
        let woken = if wake == 0 { 0 } else { table.wake(from.1, wake, FUTEX_BITSET_MATCH_ANY)? };
        let Some(queue) = table.plain.get_mut(&from.1) else { return Ok((woken, 0)) };
        let count = queue.len().min(requeue as usize);
        if queue.iter().take(count).any(|w| w.pi.is_some()) {
            return Err(Errno::EINVAL);
        }
        if from.1 == to {
            return Ok((woken, count as u32));
        }
        let moved: Vec<Arc<Waiter>> = queue.drain(..count).collect();
        if queue.is_empty() {
            table.plain.remove(&from.1);
        }
        if !moved.is_empty() {
            let queue = table.plain.entry(to).or_default();
            for waiter in moved {
                *waiter.key.lock() = to;
                enqueue(queue, waiter);
            }
        }
        Ok((woken, count as u32))
    }
}

impl Waiters {
    fn wake(&mut self, key: FutexKey, count: u32, bitset: u32) -> Result<u32> {
        if self.pi.contains_key(&key) {
            return Err(Errno::EINVAL);
        }
        let Some(queue) = self.plain.get_mut(&key) else { return Ok(0) };
        let (mut woken, mut wrong) = (0, false);
        queue.retain(|waiter| {
            if woken >= count || wrong || waiter.bitset & bitset == 0 {
                return true;
            }
            if waiter.pi.is_some() {
                wrong = true;
                return true;
            }
            waiter.wake(Progress::Woken);
            woken += 1;
            false
        });
        if queue.is_empty() {
            self.plain.remove(&key);
        }
        if wrong { Err(Errno::EINVAL) } else { Ok(woken) }
    }

    /// Takes out a waiter that was not woken, wherever it has been moved.
    pub(super) fn remove(&mut self, waiter: &Arc<Waiter>) {
        let key = *waiter.key.lock();
        if let Some(queue) = self.plain.get_mut(&key) {
            queue.retain(|w| !Arc::ptr_eq(w, waiter));
            if queue.is_empty() {
                self.plain.remove(&key);
            }
        }
        self.remove_pi(key, waiter);
    }
}

impl Task {
    /// True if nobody can be told any more that the thread's locks are to be given up: it has done so.
    pub(super) fn has_left_futexes(&self) -> bool {
        self.futexes_left.load(Ordering::Acquire)
    }
}

impl CurrentTask {
    /// FUTEX_WAIT_BITSET: sleeps until woken. EAGAIN unless the word holds `expected`; ETIMEDOUT; ERESTARTSYS.
    pub fn futex_wait(&self, wait: WaitFor, bitset: u32, deadline: Option<u64>) -> Result<()> {
        if bitset == 0 {
            return Err(Errno::EINVAL);
        }
        self.futex_wait_on(&[wait], bitset, deadline).map(drop)
    }

    /// futex_waitv(2): sleeps until one of several is woken; returns its index.
    pub fn futex_wait_on(&self, waits: &[WaitFor], bitset: u32, deadline: Option<u64>) -> Result<usize> {
        let mm = self.mm();
        let table = &self.kernel().futexes;
        let mut waiters: smallvec::SmallVec<[Arc<Waiter>; 1]> = smallvec::SmallVec::new();
        let mut failure = None;
        {
            let mut locked = table.lock();
            for wait in waits {
                let entered = mm.futex_key(wait.addr, wait.shared).and_then(|key| {
                    if mm.load_u32(wait.addr)? != wait.expected {
                        return Err(Errno::EAGAIN);
                    }
                    let waiter = Waiter::new(self, key, bitset, None);
                    enqueue(locked.plain.entry(key).or_default(), waiter.clone());
                    Ok(waiter)
                });
                match entered {
                    Ok(waiter) => waiters.push(waiter),
                    Err(e) => {
                        failure = Some(e);
                        break;
                    }
                }
            }
        }
        let woken = || waiters.iter().position(|w| w.progress() != Progress::Waiting);
        let result = match failure {
            Some(e) => Err(e),
            None => self.sleep(deadline, true, woken),
        };
        for waiter in &waiters {
            if waiter.progress() == Progress::Waiting {
                table.lock().remove(waiter);
            }
        }
        // Woken while it gave up: the wake counts.
        match woken() {
            Some(index) => Ok(index),
            None => result,
        }
    }

    /// FUTEX_WAKE_OP's change of the second word: returns what it held.
    pub fn futex_modify(&self, addr: u64, change: impl Fn(u32) -> u32) -> Result<u32> {
        let mm = self.mm();
        loop {
            let old = mm.load_u32(addr)?;
            let found = self.with_thread(|thread| mm.compare_exchange(thread, addr, old, change(old)))?;
            if found == old {
                return Ok(old);
            }
        }
    }
}
