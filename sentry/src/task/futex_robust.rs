//! What the end of a thread, or execve, does to the futexes it holds (futex_exit_release(), kernel/futex/core.c).

use std::sync::atomic::Ordering;

use abi::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT, RobustListHead};
use abi::{Errno, Result};

use super::current::CurrentTask;
use crate::mm::MemoryManager;

impl CurrentTask {
    /// Marks the robust futexes that the thread holds, and hands over its locks with priority inheritance.
    pub(super) fn leave_futexes(&self, mm: &MemoryManager) {
        let head = self.robust_list.swap(0, Ordering::AcqRel);
        if head != 0 {
            // A list that cannot be read ends where it cannot.
            let _ = self.walk_robust_list(mm, head);
        }
        self.hand_over_locks();
    }

    fn walk_robust_list(&self, mm: &MemoryManager, head_at: u64) -> Result<()> {
        let head: RobustListHead = mm.read_object(head_at)?;
        // Bit 0 of a pointer marks a futex with priority inheritance.
        let (pending, pending_pi) = (head.list_op_pending & !1, head.list_op_pending & 1 != 0);
        let (mut entry, mut pi) = (head.list & !1, head.list & 1 != 0);
        for _ in 0..ROBUST_LIST_LIMIT {
            if entry == head_at {
                break;
            }
            let next = mm.read_object::<u64>(entry);
            if entry != pending {
                self.owner_died(mm, entry.wrapping_add_signed(head.futex_offset), pi, false)?;
            }
            let next = next?;
            (entry, pi) = (next & !1, next & 1 != 0);
        }
        if pending != 0 {
            self.owner_died(mm, pending.wrapping_add_signed(head.futex_offset), pending_pi, true)?;
        }
        Ok(())
    }

    /// handle_futex_death(): marks one futex, if the thread holds it, and wakes a waiter. `pending`: the thread was
    /// about to lock or unlock it.
    fn owner_died(&self, mm: &MemoryManager, addr: u64, pi: bool, pending: bool) -> Result<()> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        loop {
            let word = mm.load_u32(addr)?;
            if pending && !pi && word == 0 {
                // It had unlocked and not yet woken anyone.
                self.kernel().futexes.wake_address(mm, addr);
                return Ok(());
            }
            if word & FUTEX_TID_MASK != self.tid() {
                return Ok(());
            }
            let new = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
            let found = self.with_thread(|thread| mm.compare_exchange(thread, addr, word, new))?;
            if found == word {
                if !pi && word & FUTEX_WAITERS != 0 {
                    self.kernel().futexes.wake_address(mm, addr);
                }
                return Ok(());
            }
        }
    }
}
