//! madvise(2), mlock(2) and its relatives, msync(2), mincore(2).

use std::sync::Arc;

use abi::mman::{
    MADV_COLD, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED, MADV_DONTNEED_LOCKED,
    MADV_FREE, MADV_HUGEPAGE, MADV_HWPOISON, MADV_KEEPONFORK, MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_NORMAL,
    MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL,
    MADV_SOFT_OFFLINE, MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK, MlockallFlags, MsyncFlags,
};
use platform::{Change, Prot};

use super::range_map::Segment;
use super::vma::{Backing, Mapping, Vma, VmaFlags};
use super::{
    By, Limits, LockFuture, MAP_COUNT_MAX, MemoryManager, State, again, clamp, is_page_aligned, page_up,
};
use crate::vfs::File;
use crate::{Errno, Result};

/// What a piece of advice does to a mapping.
struct Advice {
    set: VmaFlags,
    clear: VmaFlags,
    /// The host is told.
    pass_on: bool,
}

impl Advice {
    const fn flags(set: VmaFlags, clear: VmaFlags, pass_on: bool) -> Advice {
        Advice { set, clear, pass_on }
    }
}

/// `None` for advice that Linux, built without the rarer options, does not know.
fn decode(advice: u32) -> Option<Advice> {
    let none = VmaFlags::empty();
    let order = VmaFlags::SEQUENTIAL.union(VmaFlags::RANDOM);
    Some(match advice {
        MADV_NORMAL => Advice::flags(none, order, false),
        MADV_RANDOM => Advice::flags(VmaFlags::RANDOM, order, false),
        MADV_SEQUENTIAL => Advice::flags(VmaFlags::SEQUENTIAL, order, false),
        MADV_DONTFORK => Advice::flags(VmaFlags::DONT_FORK, none, true),
        MADV_DOFORK => Advice::flags(none, VmaFlags::DONT_FORK, true),
        MADV_WIPEONFORK => Advice::flags(VmaFlags::WIPE_ON_FORK, none, true),
        MADV_KEEPONFORK => Advice::flags(none, VmaFlags::WIPE_ON_FORK, true),
        MADV_DONTDUMP => Advice::flags(VmaFlags::DONT_DUMP, none, false),
        MADV_DODUMP => Advice::flags(none, VmaFlags::DONT_DUMP, false),
        MADV_HUGEPAGE => Advice::flags(VmaFlags::HUGE_PAGE, VmaFlags::NO_HUGE_PAGE, true),
        MADV_NOHUGEPAGE => Advice::flags(VmaFlags::NO_HUGE_PAGE, VmaFlags::HUGE_PAGE, true),
        MADV_MERGEABLE => Advice::flags(VmaFlags::MERGEABLE, none, false),
        MADV_UNMERGEABLE => Advice::flags(none, VmaFlags::MERGEABLE, false),
        MADV_WILLNEED | MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE | MADV_REMOVE | MADV_COLD
        | MADV_PAGEOUT | MADV_POPULATE_READ | MADV_POPULATE_WRITE => Advice::flags(none, none, true),
        _ => return None,
    })
}

/// The errors of each kind of advice for one mapping.
fn check(advice: u32, vma: &Vma) -> Result<()> {
    let locked = vma.flags.contains(VmaFlags::LOCKED);
    match advice {
        MADV_DONTNEED | MADV_FREE | MADV_COLD | MADV_PAGEOUT if locked => Err(Errno::EINVAL),
        MADV_FREE | MADV_WIPEONFORK if !vma.is_private_anonymous() => Err(Errno::EINVAL),
        MADV_KEEPONFORK | MADV_DOFORK => Ok(()),
        MADV_REMOVE if locked || vma.is_private_anonymous() => Err(Errno::EINVAL),
        MADV_REMOVE if !vma.is_shared() || !vma.max_prot.contains(Prot::WRITE) => Err(Errno::EACCES),
        MADV_POPULATE_READ if !vma.prot.contains(Prot::READ) => Err(Errno::EINVAL),
        MADV_POPULATE_WRITE if !vma.prot.contains(Prot::WRITE) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// Advice that loses what is in the pages (is_madv_discard()).
fn discards(advice: u32) -> bool {
    matches!(
        advice,
        MADV_FREE | MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_REMOVE | MADV_DONTFORK | MADV_WIPEONFORK
    )
}

impl MemoryManager {
    /// madvise(2). EINVAL for unknown advice; ENOMEM for holes, after the rest of the range has been advised.
    /// `can_admin` is CAP_SYS_ADMIN, without which MADV_HWPOISON is EPERM.
    pub fn advise(&self, mut by: By<'_>, addr: u64, len: u64, advice: u32, can_admin: bool) -> Result<()> {
        if matches!(advice, MADV_HWPOISON | MADV_SOFT_OFFLINE) {
            return Err(if can_admin { Errno::EINVAL } else { Errno::EPERM });
        }
        let Advice { set, clear, pass_on } = decode(advice).ok_or(Errno::EINVAL)?;
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).ok_or(Errno::EINVAL)?;
        if end == addr {
            return if len == 0 { Ok(()) } else { Err(Errno::EINVAL) };
        }
        // Discarding pages of a copied file mapping brings back the file's contents.
        let mut refill: Vec<(u64, u64, Prot, Arc<Mapping>, u64)> = Vec::new();
        let mut state = self.state.write();
        let Some((from, to)) = clamp(addr, end) else { return Err(Errno::ENOMEM) };
        let stops_at_holes = matches!(advice, MADV_POPULATE_READ | MADV_POPULATE_WRITE);
        let mut holes = from > addr || to < end;
        let mut at = from;
        let mut outcome = Ok(());
        let pieces: Vec<(u64, u64, Vma)> = state
            .vmas
            .overlapping(from, to)
            .map(|(s, e, vma)| (s.max(from), e.min(to), vma.advanced(from.saturating_sub(s))))
            .collect();
        for (s, e, vma) in pieces {
            holes |= s > at;
            if holes && stops_at_holes {
                break;
            }
            at = e;
            outcome = check(advice, &vma);
            if outcome.is_ok() && discards(advice) && vma.is_sealed_constant() {
                outcome = Err(Errno::EPERM);
            }
            if outcome.is_ok() && set | clear != VmaFlags::empty() {
                outcome = state.may_split(s, e);
            }
            if outcome.is_ok() && pass_on {
                outcome = self.pass_on(again(&mut by), advice, s, e, &vma);
            }
            if outcome.is_err() {
                break;
            }
            if set | clear != VmaFlags::empty() {
                state.update(s, e, |vma| vma.flags = (vma.flags - clear) | set);
            }
            if matches!(advice, MADV_DONTNEED | MADV_DONTNEED_LOCKED)
                && vma.flags.contains(VmaFlags::COPIED)
                && let Backing::File { mapping, offset } = &vma.backing
            {
                refill.push((s, e - s, vma.prot, mapping.clone(), *offset));
            }
        }
        holes |= at < to;
        drop(state);
        for (addr, len, prot, mapping, offset) in refill {
            self.copy_in(again(&mut by), addr, len, prot, &mapping, offset)?;
        }
        outcome?;
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    fn pass_on(&self, by: By<'_>, advice: u32, start: u64, end: u64, vma: &Vma) -> Result<()> {
        let advice = if advice == MADV_DONTNEED_LOCKED { MADV_DONTNEED } else { advice };
        let change = Change::Advise { addr: start, len: end - start, advice: advice as i32 };
        if advice == MADV_DONTNEED && vma.flags.contains(VmaFlags::COPIED) {
            // Zeroed and writable, to be filled again.
            let prot = vma.prot | Prot::WRITE | Prot::READ;
            return self.apply(by, &[Change::MapAnonymous { addr: start, len: end - start, prot }]);
        }
        match self.apply(by, &[change]) {
            // Huge pages may be switched off on the host, and what is only a hint need not be heard.
            Err(Errno::EINVAL)
                if matches!(advice, MADV_HUGEPAGE | MADV_NOHUGEPAGE | MADV_COLD | MADV_PAGEOUT) =>
            {
                Ok(())
            }
            Err(Errno::EBADF) if advice == MADV_WILLNEED => Ok(()),
            other => other,
        }
    }

    /// mlock(2) and mlock2(2): the sandbox's memory is not locked on the host, but it is counted and faulted in.
    /// ENOMEM beyond RLIMIT_MEMLOCK or for holes, EPERM if that is 0.
    pub fn lock(&self, by: By<'_>, addr: u64, len: u64, on_fault: bool, limits: &Limits) -> Result<()> {
        if !limits.can_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let (start, end) = lock_range(addr, len)?;
        let mut state = self.state.write();
        let already: u64 = state
            .vmas
            .overlapping(start, end)
            .filter(|(_, _, vma)| vma.flags.contains(VmaFlags::LOCKED))
            .map(|(s, e, _)| e.min(end).saturating_sub(s.max(start)))
            .sum();
        if end > start && state.may_lock((end - start).saturating_sub(already), limits).is_err() {
            return Err(Errno::ENOMEM);
        }
        let set = if on_fault { VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT } else { VmaFlags::LOCKED };
        state.set_lock(start, end, set)?;
        drop(state);
        if on_fault {
            return Ok(());
        }
        self.populate_range(by, start, end, true).map_err(|errno| match errno {
            // As POSIX has it (__mlock_posix_error_return).
            Errno::ENOMEM => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })
    }

    /// munlock(2). ENOMEM for holes.
    pub fn unlock(&self, addr: u64, len: u64) -> Result<()> {
        let (start, end) = lock_range(addr, len)?;
        self.state.write().set_lock(start, end, VmaFlags::empty())
    }

    /// mlockall(2). EINVAL for no flags or MCL_ONFAULT alone, EPERM without the right, ENOMEM beyond the limit.
    pub fn lock_all(&self, by: By<'_>, flags: MlockallFlags, limits: &Limits) -> Result<()> {
        if flags.is_empty() || flags == MlockallFlags::MCL_ONFAULT {
            return Err(Errno::EINVAL);
        }
        if !limits.can_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let on_fault = flags.contains(MlockallFlags::MCL_ONFAULT);
        let mut state = self.state.write();
        if flags.contains(MlockallFlags::MCL_CURRENT)
            && !limits.can_lock
            && state.totals.total > limits.memlock
        {
            return Err(Errno::ENOMEM);
        }
        state.lock_future = match flags.contains(MlockallFlags::MCL_FUTURE) {
            false => LockFuture::No,
            true if on_fault => LockFuture::OnFault,
            true => LockFuture::Populate,
        };
        if !flags.contains(MlockallFlags::MCL_CURRENT) {
            return Ok(());
        }
        let set = if on_fault { VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT } else { VmaFlags::LOCKED };
        state.set_lock_everywhere(set);
        drop(state);
        if !on_fault {
            let _ = self.populate_range(by, platform::USER_MIN, platform::USER_MAX, false);
        }
        Ok(())
    }

    /// munlockall(2).
    pub fn unlock_all(&self) {
        let mut state = self.state.write();
        state.lock_future = LockFuture::No;
        state.set_lock_everywhere(VmaFlags::empty());
    }

    /// Faults in whatever is mapped in a range, up to the first error or as far as it goes.
    fn populate_range(&self, mut by: By<'_>, start: u64, end: u64, stop: bool) -> Result<()> {
        let pieces: Vec<(u64, u64, Prot)> = {
            let state = self.state.read();
            state
                .vmas
                .overlapping(start, end)
                .map(|(s, e, vma)| (s.max(start), e.min(end), vma.prot))
                .collect()
        };
        for (s, e, prot) in pieces {
            let populated = self.populate(again(&mut by), s, e - s, prot);
            if stop {
                populated?;
            }
        }
        Ok(())
    }

    /// msync(2). EBUSY for MS_INVALIDATE of locked memory, ENOMEM for holes, and what syncing the files gives.
    pub fn sync(&self, addr: u64, len: u64, flags: u32) -> Result<()> {
        let flags = MsyncFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        if !is_page_aligned(addr) || flags.contains(MsyncFlags::MS_ASYNC | MsyncFlags::MS_SYNC) {
            return Err(Errno::EINVAL);
        }
        // A length that overflows when it is rounded up is none, in Linux.
        let end = addr.checked_add(page_up(len).unwrap_or(0)).ok_or(Errno::ENOMEM)?;
        if end == addr {
            return Ok(());
        }
        let mut files: Vec<Arc<File>> = Vec::new();
        let covered = {
            let state = self.state.read();
            for (_, _, vma) in state.vmas.overlapping(addr, end) {
                if flags.contains(MsyncFlags::MS_INVALIDATE) && vma.flags.contains(VmaFlags::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                if flags.contains(MsyncFlags::MS_SYNC)
                    && vma.is_shared()
                    && let Some(file) = vma.file()
                    && !files.iter().any(|f| Arc::ptr_eq(f, file))
                {
                    files.push(file.clone());
                }
            }
            state.vmas.covers(addr, end)
        };
        for file in files {
            match file.operations().sync(true) {
                // A file in memory.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// mincore(2) for a part of the range, at most `buf.len()` pages from `addr`, which is a multiple of the page size.
    /// ENOMEM for holes.
    pub fn resident(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        let len = (buf.len() as u64).checked_mul(platform::PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        let state = self.state.read();
        if !state.vmas.covers(addr, end) {
            return Err(Errno::ENOMEM);
        }
        self.space.resident(addr, buf)
    }
}

/// The range of mlock(2): to page boundaries on both sides.
fn lock_range(addr: u64, len: u64) -> Result<(u64, u64)> {
    let start = addr & !(platform::PAGE_SIZE - 1);
    // A length that overflows when it is rounded up is none, in Linux.
    let len = page_up(len.wrapping_add(addr - start)).unwrap_or(0);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok((start, end))
}

impl State {
    /// ENOMEM if changing a part of a mapping would make too many.
    fn may_split(&self, start: u64, end: u64) -> Result<()> {
        let whole = self.vmas.get(start).is_some_and(|(s, e, _)| s == start && e == end);
        if !whole && self.vmas.len() + 1 >= MAP_COUNT_MAX { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Locks (or unlocks) a range up to the first hole, which is ENOMEM.
    fn set_lock(&mut self, start: u64, end: u64, set: VmaFlags) -> Result<()> {
        let mut until = start;
        for (s, e, _) in self.vmas.overlapping(start, end) {
            if s > until {
                break;
            }
            until = e.min(end);
        }
        if until > start {
            self.may_split(start, until)?;
        }
        let both = VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
        self.update(start, until, |vma| vma.flags = (vma.flags - both) | set);
        if until < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    fn set_lock_everywhere(&mut self, set: VmaFlags) {
        let both = VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
        self.update(0, u64::MAX, |vma| vma.flags = (vma.flags - both) | set);
    }
}
