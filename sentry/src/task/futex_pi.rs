//! Locks with priority inheritance (FUTEX_LOCK_PI and its like, kernel/futex/pi.c, kernel/futex/requeue.c).
//!
//! The word holds the owner's thread id. As soon as somebody waits, the kernel knows the owner too, and an unlocking
//! owner hands the lock to the first waiter. When an owner ends, its heir writes the word, since only the heir is
//! sure to have it in its memory. The host schedules: an owner inherits nothing here but the order of the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::futex::{FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use abi::{Errno, Result};

use super::current::CurrentTask;
use super::futex::{Progress, WaitFor, Waiter, Waiters, enqueue};
use super::task::Task;
use crate::mm::{FutexKey, MemoryManager};

/// How often a word may change under our hands before the table is given to others for a moment.
const ATTEMPTS: u32 = 32;

/// How long a chain of locks and owners may be (`kernel.max_lock_depth`).
const CHAIN_MAX: u32 = 1024;

/// What a waiter for a lock is, beside what all waiters are.
pub(super) struct PiWait {
    /// Who waits.
    pub(super) task: Arc<Task>,
    /// The lock it waits for, or is to be moved to.
    pub(super) lock: FutexKey,
}

/// A lock that somebody waits for.
pub(super) struct PiState {
    owner: Arc<Task>,
    /// The owner is an heir that has not yet written the word.
    unsettled: bool,
    waiters: VecDeque<Arc<Waiter>>,
}

/// What came of an attempt to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Taken,
    Held,
    /// The word kept changing.
    Raced,
}

impl Waiters {
    /// Takes out one who waits for the lock `key`.
    pub(super) fn remove_pi(&mut self, key: FutexKey, waiter: &Arc<Waiter>) {
        if let Some(state) = self.pi.get_mut(&key) {
            state.waiters.retain(|w| !Arc::ptr_eq(w, waiter));
            self.forget_idle(key);
        }
    }

    /// Forgets a lock that nobody waits for.
    fn forget_idle(&mut self, key: FutexKey) {
        if self.pi.get(&key).is_some_and(|s| s.waiters.is_empty() && !s.unsettled) {
            self.pi.remove(&key);
        }
    }

    /// EDEADLK if the owner of `key` waits, over however many locks, for `task`.
    fn check_deadlock(&self, key: FutexKey, task: &Arc<Task>) -> Result<()> {
        let mut at = self.pi.get(&key);
        for _ in 0..CHAIN_MAX {
            let Some(state) = at else { return Ok(()) };
            if Arc::ptr_eq(&state.owner, task) {
                return Err(Errno::EDEADLK);
            }
            let waits = |w: &Arc<Waiter>| w.pi.as_ref().is_some_and(|pi| Arc::ptr_eq(&pi.task, &state.owner));
            at = self.pi.values().find(|other| other.waiters.iter().any(waits));
        }
        Err(Errno::EDEADLK)
    }

    fn wait_for_lock(&mut self, key: FutexKey, waiter: Arc<Waiter>) {
        if let Some(state) = self.pi.get_mut(&key) {
            *waiter.key.lock() = key;
            enqueue(&mut state.waiters, waiter);
        }
    }
}

impl CurrentTask {
    fn exchange(&self, mm: &MemoryManager, addr: u64, old: u32, new: u32) -> Result<u32> {
        self.with_thread(|thread| mm.compare_exchange(thread, addr, old, new))
    }

    /// futex_lock_pi_atomic(): takes the lock for `task` if nobody holds it; else makes sure that its owner will not
    /// unlock it without us, and that the kernel knows the owner. `mark`: others will wait for it at once.
    fn attempt_lock(
        &self,
        table: &mut Waiters,
        mm: &MemoryManager,
        addr: u64,
        key: FutexKey,
        task: &Arc<Task>,
        mark: bool,
    ) -> Result<Attempt> {
        for _ in 0..ATTEMPTS {
            let word = mm.load_u32(addr)?;
            let (holder, tid) = (word & FUTEX_TID_MASK, task.tid());
            if holder == tid {
                return Err(Errno::EDEADLK);
            }
            if table.plain.contains_key(&key) {
                return Err(Errno::EINVAL);
            }
            if let Some(state) = table.pi.get(&key) {
                // A robust futex whose owner is just ending has no holder.
                let left = word & FUTEX_OWNER_DIED != 0 && holder == 0;
                if state.unsettled || left || holder == state.owner.tid() {
                    return Ok(Attempt::Held);
                }
                return Err(Errno::EINVAL);
            }
            if holder == 0 {
                let new = word & FUTEX_OWNER_DIED | tid | if mark { FUTEX_WAITERS } else { 0 };
                if self.exchange(mm, addr, word, new)? != word {
                    continue;
                }
                if mark {
                    let state = PiState { owner: task.clone(), unsettled: false, waiters: VecDeque::new() };
                    table.pi.insert(key, state);
                }
                return Ok(Attempt::Taken);
            }
            let marked = word | FUTEX_WAITERS;
            if marked != word && self.exchange(mm, addr, word, marked)? != word {
                continue;
            }
            let owner = self.pid_ns().find(holder).and_then(|pid| pid.task());
            match owner.filter(|owner| !owner.has_left_futexes()) {
                Some(owner) => {
                    table.pi.insert(key, PiState { owner, unsettled: false, waiters: VecDeque::new() });
                    return Ok(Attempt::Held);
                }
                // It may have ended in the meantime, and have said so in the word.
                None if mm.load_u32(addr)? == marked => return Err(Errno::ESRCH),
                None => {}
            }
        }
        Ok(Attempt::Raced)
    }

    /// FUTEX_LOCK_PI and FUTEX_TRYLOCK_PI. EDEADLK, ESRCH for an owner that does not exist, EINVAL for a word that
    /// contradicts what the kernel knows, EAGAIN for a lock that is held and only tried, ETIMEDOUT.
    pub fn futex_lock_pi(
        &self,
        addr: u64,
        shared: bool,
        deadline: Option<u64>,
        only_try: bool,
    ) -> Result<()> {
        let mm = self.mm();
        let key = mm.futex_key(addr, shared)?;
        let waiter = loop {
            let mut table = self.kernel().futexes.lock();
            match self.attempt_lock(&mut table, &mm, addr, key, self, false)? {
                Attempt::Taken => return Ok(()),
                Attempt::Raced if self.is_killed() => return Err(Errno::ERESTARTNOINTR),
                Attempt::Raced => continue,
                Attempt::Held => {}
            }
            let refused = if only_try { Err(Errno::EAGAIN) } else { table.check_deadlock(key, self) };
            if let Err(e) = refused {
                table.forget_idle(key);
                return Err(e);
            }
            let pi = PiWait { task: Arc::clone(self), lock: key };
            let waiter = Waiter::new(self, key, FUTEX_BITSET_MATCH_ANY, Some(pi));
            table.wait_for_lock(key, waiter.clone());
            break waiter;
        };
        self.wait_to_own(&mm, addr, &waiter, deadline).map_err(|e| match e {
            Errno::ERESTARTSYS => Errno::ERESTARTNOINTR,
            e => e,
        })
    }

    /// Sleeps until the lock was handed over.
    fn wait_to_own(
        &self,
        mm: &MemoryManager,
        addr: u64,
        waiter: &Arc<Waiter>,
        deadline: Option<u64>,
    ) -> Result<()> {
        let slept = self.sleep(deadline, true, || (waiter.progress() != Progress::Waiting).then_some(()));
        let mut table = self.kernel().futexes.lock();
        match waiter.progress() {
            Progress::Owner | Progress::Woken => Ok(()),
            Progress::Waiting => {
                table.remove(waiter);
                slept
            }
            Progress::Heir => {
                let written = self.settle(mm, addr);
                let key = *waiter.key.lock();
                if let Some(state) = table.pi.get_mut(&key) {
                    state.unsettled = false;
                }
                table.forget_idle(key);
                written
            }
        }
    }

    /// fixup_pi_state_owner(): the heir writes itself into the word.
    fn settle(&self, mm: &MemoryManager, addr: u64) -> Result<()> {
        let new = self.tid() | FUTEX_WAITERS | FUTEX_OWNER_DIED;
        loop {
            let word = mm.load_u32(addr)?;
            if self.exchange(mm, addr, word, new)? == word {
                return Ok(());
            }
            if self.is_killed() {
                return Err(Errno::ERESTARTNOINTR);
            }
        }
    }

    /// FUTEX_UNLOCK_PI. EPERM unless the word names the caller; EINVAL if the kernel knows better.
    pub fn futex_unlock_pi(&self, addr: u64, shared: bool) -> Result<()> {
        let mm = self.mm();
        loop {
            let word = mm.load_u32(addr)?;
            if word & FUTEX_TID_MASK != self.tid() {
                return Err(Errno::EPERM);
            }
            let key = mm.futex_key(addr, shared)?;
            let mut table = self.kernel().futexes.lock();
            if table.plain.contains_key(&key) {
                return Err(Errno::EINVAL);
            }
            let Some(state) = table.pi.get_mut(&key) else {
                if self.exchange(&mm, addr, word, 0)? == word {
                    return Ok(());
                }
                continue;
            };
            if !Arc::ptr_eq(&state.owner, self) {
                return Err(Errno::EINVAL);
            }
            let next = state.waiters.front().and_then(|w| Some((w.clone(), w.pi.as_ref()?.task.clone())));
            let Some((waiter, heir)) = next else {
                // Only an heir that is still settling has no waiters.
                return Err(Errno::EINVAL);
            };
            let found = self.exchange(&mm, addr, word, FUTEX_WAITERS | heir.tid())?;
            if found == word {
                state.waiters.pop_front();
                state.owner = heir;
                waiter.wake(Progress::Owner);
                table.forget_idle(key);
                return Ok(());
            }
            if found & FUTEX_TID_MASK != word {
                return Err(Errno::EINVAL);
            }
        }
    }

    /// FUTEX_WAIT_REQUEUE_PI: waits on one word to be moved to the lock `lock_addr`, which is held at the end. EAGAIN
    /// if the word does not hold what is expected, or a signal came after the move; ETIMEDOUT.
    pub fn futex_wait_requeue_pi(&self, wait: WaitFor, lock_addr: u64, deadline: Option<u64>) -> Result<()> {
        if wait.addr == lock_addr {
            return Err(Errno::EINVAL);
        }
        let mm = self.mm();
        let lock = mm.futex_key(lock_addr, wait.shared)?;
        let key = mm.futex_key(wait.addr, wait.shared)?;
        let waiter = {
            let mut table = self.kernel().futexes.lock();
            if mm.load_u32(wait.addr)? != wait.expected {
                return Err(Errno::EAGAIN);
            }
            if key == lock {
                return Err(Errno::EINVAL);
            }
            let pi = PiWait { task: Arc::clone(self), lock };
            let waiter = Waiter::new(self, key, FUTEX_BITSET_MATCH_ANY, Some(pi));
            enqueue(table.plain.entry(key).or_default(), waiter.clone());
            waiter
        };
        let waited = self.wait_to_own(&mm, lock_addr, &waiter, deadline);
        match waited {
            // Moved already: a repetition would find another value in the word.
            Err(Errno::ERESTARTSYS) if *waiter.key.lock() == lock => Err(Errno::EAGAIN),
            Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOINTR),
            other => other,
        }
    }

    /// FUTEX_CMP_REQUEUE_PI: gives the lock `to` to the first waiter of `from` if it is free, and moves up to
    /// `requeue` others to it. Returns how many were woken or moved. EAGAIN unless `from` holds `expected`; EINVAL for
    /// waiters of another kind or for another lock; EDEADLK.
    pub fn futex_cmp_requeue_pi(
        &self,
        from: u64,
        to: u64,
        shared: bool,
        requeue: u32,
        expected: u32,
    ) -> Result<u32> {
        if from == to {
            return Err(Errno::EINVAL);
        }
        let mm = self.mm();
        let (key, lock) = (mm.futex_key(from, shared)?, mm.futex_key(to, shared)?);
        if key == lock {
            return Err(Errno::EINVAL);
        }
        loop {
            let mut table = self.kernel().futexes.lock();
            if mm.load_u32(from)? != expected {
                return Err(Errno::EAGAIN);
            }
            let Some((first, task)) = first_for(&table, key, lock)? else { return Ok(0) };
            match self.attempt_lock(&mut table, &mm, to, lock, &task, requeue > 0)? {
                Attempt::Raced if self.is_killed() => return Err(Errno::ERESTARTNOINTR),
                Attempt::Raced => continue,
                Attempt::Held => {
                    let moved = move_waiters(&mut table, key, lock, requeue.saturating_add(1));
                    table.forget_idle(lock);
                    return moved;
                }
                Attempt::Taken => {
                    table.remove(&first);
                    *first.key.lock() = lock;
                    first.wake(Progress::Owner);
                    let moved = move_waiters(&mut table, key, lock, requeue);
                    table.forget_idle(lock);
                    return moved.map(|n| n + 1);
                }
            }
        }
    }

    /// exit_pi_state_list(): the locks that the thread holds and others wait for fall to the first of these.
    pub(super) fn hand_over_locks(&self) {
        let mut table = self.kernel().futexes.lock();
        self.futexes_left.store(true, Ordering::Release);
        for state in table.pi.values_mut().filter(|state| Arc::ptr_eq(&state.owner, self)) {
            let next = state.waiters.pop_front();
            if let Some(waiter) = next
                && let Some(pi) = &waiter.pi
            {
                state.owner = pi.task.clone();
                state.unsettled = true;
                waiter.wake(Progress::Heir);
            } else {
                state.unsettled = false;
            }
        }
        table.pi.retain(|_, state| state.unsettled || !state.waiters.is_empty());
    }
}

/// The first waiter of `key`, if it waits to be moved to `lock`. EINVAL if it waits for something else.
fn first_for(table: &Waiters, key: FutexKey, lock: FutexKey) -> Result<Option<(Arc<Waiter>, Arc<Task>)>> {
    if table.pi.contains_key(&key) {
        return Err(Errno::EINVAL);
    }
    let Some(first) = table.plain.get(&key).and_then(VecDeque::front) else { return Ok(None) };
    match &first.pi {
        Some(pi) if pi.lock == lock => Ok(Some((first.clone(), pi.task.clone()))),
        _ => Err(Errno::EINVAL),
    }
}

fn move_waiters(table: &mut Waiters, key: FutexKey, lock: FutexKey, count: u32) -> Result<u32> {
    let mut moved = 0;
    while moved < count {
        let Some((waiter, task)) = first_for(table, key, lock)? else { break };
        table.check_deadlock(lock, &task)?;
        table.remove(&waiter);
        table.wait_for_lock(lock, waiter);
        moved += 1;
    }
    Ok(moved)
}
