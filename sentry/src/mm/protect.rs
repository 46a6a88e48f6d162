//! mprotect(2).

use platform::{Change, PAGE_SIZE, Prot};

use super::vma::{Backing, Vma, VmaFlags};
use super::{By, Limits, MAP_COUNT_MAX, MemoryManager, State, again, host_prot, is_page_aligned, page_up};
use crate::{Errno, Result};

/// What is copied at once when a mapping becomes a copy.
const COPY_CHUNK: u64 = 256 * 1024;

impl MemoryManager {
    /// mprotect(2). With `grows_down` (PROT_GROWSDOWN) the range begins where its mapping does. As in Linux, what
    /// comes before the place of an error has been changed.
    pub fn protect(
        &self,
        mut by: By<'_>,
        addr: u64,
        len: u64,
        prot: Prot,
        grows_down: bool,
        limits: &Limits,
    ) -> Result<()> {
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).ok_or(Errno::ENOMEM)?;
        let mut state = self.state.write();
        let mut start = addr;
        let (first, _, vma) = state.vmas.at_or_above(addr).ok_or(Errno::ENOMEM)?;
        if grows_down {
            if first >= end {
                return Err(Errno::ENOMEM);
            }
            if !vma.flags.contains(VmaFlags::GROWS_DOWN) {
                return Err(Errno::EINVAL);
            }
            start = first;
        }

        state.may_modify(start, end)?;
        let mut until = start;
        let mut outcome = Ok(());
        let mut host_differs = false;
        for (s, e, vma) in state.vmas.overlapping(start, end) {
            if s > until {
                break;
            }
            let (from, to) = (s.max(start), e.min(end));
            if vma.prot != prot {
                outcome = state.may_protect(from, to, vma, prot, limits);
                if outcome.is_ok() && state.vmas.len() >= MAP_COUNT_MAX && (s < from || to < e) {
                    outcome = Err(Errno::ENOMEM);
                }
                if outcome.is_err() {
                    break;
                }
                host_differs = true;
            }
            until = to;
        }
        if until < end && outcome.is_ok() {
            outcome = Err(Errno::ENOMEM);
        }
        if host_differs {
            let change = Change::Protect { addr: start, len: until - start, prot: host_prot(prot) };
            match self.apply(again(&mut by), &[change]) {
                Ok(()) => {}
                // Code on a noexec mount of the host's.
                Err(Errno::EACCES) if prot.contains(Prot::EXEC) => {
                    self.copy_out(by, &mut state, start, until, prot)?;
                }
                Err(errno) => return Err(errno),
            }
            state.update(start, until, |vma| vma.prot = prot);
        }
        outcome
    }

    /// Replaces the private file mappings of a range by copies in anonymous memory, as they are now.
    fn copy_out(&self, mut by: By<'_>, state: &mut State, start: u64, end: u64, prot: Prot) -> Result<()> {
        let pieces: Vec<(u64, u64, bool)> = state
            .vmas
            .overlapping(start, end)
            .map(|(s, e, vma)| {
                let copied =
                    vma.flags.contains(VmaFlags::COPIED) || matches!(vma.backing, Backing::Anonymous);
                (s.max(start), e.min(end), !copied && !vma.is_shared())
            })
            .collect();
        let mut buf = Vec::new();
        for (s, e, copy) in pieces {
            let mut at = if copy { s } else { e };
            if copy {
                let readable = Change::Protect { addr: s, len: e - s, prot: Prot::READ };
                self.apply(again(&mut by), &[readable])?;
            }
            while at < e {
                let len = COPY_CHUNK.min(e - at);
                buf.clear();
                buf.resize(len as usize, 0);
                // Pages beyond the end of the file cannot be read, and become zero.
                self.space.read(at, &mut buf)?;
                let writable = Change::MapAnonymous { addr: at, len, prot: Prot::READ | Prot::WRITE };
                self.apply(again(&mut by), &[writable])?;
                self.space.write(at, &buf)?;
                state.update(at, at + len, |vma| vma.flags |= VmaFlags::COPIED);
                at += len;
            }
            self.apply(again(&mut by), &[Change::Protect { addr: s, len: e - s, prot: host_prot(prot) }])?;
        }
        Ok(())
    }
}

impl State {
    /// The checks that mprotect(2) makes of each mapping.
    fn may_protect(&self, start: u64, end: u64, vma: &Vma, prot: Prot, limits: &Limits) -> Result<()> {
        if !vma.max_prot.contains(prot) {
            return Err(Errno::EACCES);
        }
        let len = end - start;
        let new = Vma { prot, backing: Backing::Anonymous, ..*vma };
        if prot.contains(Prot::WRITE)
            && self.may_expand(&new, len, limits).is_err()
            && self.may_expand(vma, len, limits).is_ok()
        {
            return Err(Errno::ENOMEM);
        }
        let charged = new.is_data() && !vma.is_data() && !vma.flags.contains(VmaFlags::NO_RESERVE);
        if charged && len > limits.memory.max(PAGE_SIZE) {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}
