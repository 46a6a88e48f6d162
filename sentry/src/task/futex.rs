//! Futexes (futex(2), kernel/futex/).
//!
//! The table's lock is held while the guest's word is compared and the waiter is entered, so that a wake between the
//! two cannot be lost. Waiters of one key are woken in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT,
    RobustListHead,
};
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::current::CurrentTask;
use crate::mm::{FutexKey, MemoryManager};
use crate::wait::Parker;

struct Waiter {
    key: Mutex<FutexKey>,
    bitset: u32,
    woken: AtomicBool,
    parker: Arc<Parker>,
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.parker.unpark();
    }
}

type Waiters = HashMap<FutexKey, VecDeque<Arc<Waiter>>>;

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
    /// FUTEX_WAKE_BITSET: wakes up to `count` waiters, but at least one: Linux counts after it has woken. Returns how
    /// many.
    pub fn wake(&self, key: FutexKey, count: u32, bitset: u32) -> u32 {
        wake_in(&mut self.0.lock(), key, count.max(1), bitset)
    }

    /// Wakes waiters of a word of `mm`, whether they wait by private or shared key.
    pub fn wake_address(&self, mm: &MemoryManager, addr: u64, count: u32) {
        for shared in [false, true] {
            if let Ok(key) = mm.futex_key(addr, shared) {
                self.wake(key, count, FUTEX_BITSET_MATCH_ANY);
            }
        }
    }

    /// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE: wakes up to `wake` waiters of `from`, moves up to `requeue` others to
    /// `to`. Returns (woken, moved). EAGAIN unless `expected` is what the word holds.
    pub fn requeue(
        &self,
        mm: &MemoryManager,
        from: (u64, FutexKey),
        to: FutexKey,
        wake: u32,
        requeue: u32,
        expected: Option<u32>,
    ) -> Result<(u32, u32)> {
        let mut table = self.0.lock();
        if let Some(expected) = expected
            && mm.read_object::<u32>(from.0)? != expected
        {
            return Err(Errno::EAGAIN);
        }
        let woken = wake_in(&mut table, from.1, wake, FUTEX_BITSET_MATCH_ANY);
        if from.1 == to {
            return Ok((woken, table.get(&to).map_or(0, |q| q.len() as u32).min(requeue)));
        }
        let Some(queue) = table.get_mut(&from.1) else { return Ok((woken, 0)) };
        let count = queue.len().min(requeue as usize);
        let moved: Vec<Arc<Waiter>> = queue.drain(..count).collect();
        if queue.is_empty() {
            table.remove(&from.1);
        }
        for waiter in &moved {
            *waiter.key.lock() = to;
        }
        table.entry(to).or_default().extend(moved);
        Ok((woken, count as u32))
    }

    fn remove(&self, waiter: &Arc<Waiter>) {
        let mut table = self.0.lock();
        let key = *waiter.key.lock();
        if let Some(queue) = table.get_mut(&key) {
            queue.retain(|w| !Arc::ptr_eq(w, waiter));
            if queue.is_empty() {
                table.remove(&key);
            }
        }
    }
}

fn wake_in(table: &mut Waiters, key: FutexKey, count: u32, bitset: u32) -> u32 {
    let Some(queue) = table.get_mut(&key) else { return 0 };
    let mut woken = 0;
    queue.retain(|waiter| {
        if woken >= count || waiter.bitset & bitset == 0 {
            return true;
        }
        waiter.wake();
        woken += 1;
        false
    });
    if queue.is_empty() {
        table.remove(&key);
    }
    woken
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
            let mut locked = table.0.lock();
            for wait in waits {
                let entered = mm.futex_key(wait.addr, wait.shared).and_then(|key| {
                    if mm.read_object::<u32>(wait.addr)? != wait.expected {
                        return Err(Errno::EAGAIN);
                    }
                    let waiter = Arc::new(Waiter {
                        key: Mutex::new(key),
                        bitset,
                        woken: AtomicBool::new(false),
                        parker: self.waker(),
                    });
                    locked.entry(key).or_default().push_back(waiter.clone());
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
        let woken = || waiters.iter().position(|w| w.woken.load(Ordering::Acquire));
        let result = match failure {
            Some(e) => Err(e),
            None => self.sleep(deadline, true, woken),
        };
        for waiter in &waiters {
            if !waiter.woken.load(Ordering::Acquire) {
                table.remove(waiter);
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
            let old = mm.read_object::<u32>(addr)?;
            let found = self.with_thread(|thread| mm.compare_exchange(thread, addr, old, change(old)))?;
            if found == old {
                return Ok(old);
            }
        }
    }
}

/// Walks the list of robust futexes of a thread that ends, marks those it holds, and wakes a waiter of each.
pub(super) fn exit_robust_list(task: &CurrentTask, mm: &MemoryManager) {
    let head_at = task.robust_list.swap(0, Ordering::AcqRel);
    if head_at == 0 {
        return;
    }
    let Ok(head) = mm.read_object::<RobustListHead>(head_at) else { return };
    let tid = task.tid();
    // Bit 0 of a pointer marks a PI futex.
    let (pending, mut entry) = (head.list_op_pending & !1, head.list & !1);
    for _ in 0..ROBUST_LIST_LIMIT {
        if entry == head_at || entry == 0 {
            break;
        }
        let Ok(next) = mm.read_object::<u64>(entry) else { return };
        if entry != pending {
            handle_dead_owner(task, mm, entry.wrapping_add_signed(head.futex_offset), tid, false);
        }
        entry = next & !1;
    }
    if pending != 0 {
        handle_dead_owner(task, mm, pending.wrapping_add_signed(head.futex_offset), tid, true);
    }
}

fn handle_dead_owner(task: &CurrentTask, mm: &MemoryManager, addr: u64, tid: u32, pending: bool) {
    if !addr.is_multiple_of(4) {
        return;
    }
    loop {
        let Ok(word) = mm.read_object::<u32>(addr) else { return };
        if pending && word == 0 {
            // It had unlocked and not yet woken anyone.
            task.kernel().futexes.wake_address(mm, addr, 1);
            return;
        }
        if word & FUTEX_TID_MASK != tid {
            return;
        }
        let new = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        match task.with_thread(|thread| mm.compare_exchange(thread, addr, word, new)) {
            Ok(found) if found == word => {
                if word & FUTEX_WAITERS != 0 {
                    task.kernel().futexes.wake_address(mm, addr, 1);
                }
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
