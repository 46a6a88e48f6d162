//! What programs say of mappings beyond their pages: on which nodes memory should lie (mbind(2)), and that a mapping is
//! final (mseal(2)).

use super::vma::{Vma, VmaFlags};
use super::{MemoryManager, State, clamp, is_page_aligned, page_up};
use crate::{Errno, Result};

/// A NUMA memory policy. There is one node, so that it is only remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `MPOL_*` with `MPOL_F_*` mode flags.
    pub mode: u16,
    /// The nodes it names, as bits.
    pub nodes: u64,
}

impl MemoryManager {
    /// mbind(2), after the checks of the policy. EFAULT for holes, unless they do not matter.
    pub fn set_policy(&self, start: u64, end: u64, policy: Policy, holes: bool) -> Result<()> {
        let mut state = self.state.write();
        let covered = clamp(start, end) == Some((start, end)) && state.vmas.covers(start, end);
        if start < end && !covered && !holes {
            return Err(Errno::EFAULT);
        }
        if start < end {
            state.update(start, end, |vma| vma.policy = policy);
        }
        Ok(())
    }

    /// The policy of the mapping at an address; the default one (mode 0) if it has none of its own. EFAULT.
    pub fn policy_at(&self, addr: u64) -> Result<Policy> {
        self.state.read().vmas.get(addr).map(|(_, _, vma)| vma.policy).ok_or(Errno::EFAULT)
    }

    /// mseal(2): from now on the mappings of a range stay as they are. EINVAL, ENOMEM for holes.
    pub fn seal(&self, start: u64, len: u64) -> Result<()> {
        let end = page_up(len).and_then(|len| start.checked_add(len));
        let end = end.filter(|_| is_page_aligned(start)).ok_or(Errno::EINVAL)?;
        if end == start {
            return Ok(());
        }
        let mut state = self.state.write();
        if clamp(start, end) != Some((start, end)) || !state.vmas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        state.update(start, end, |vma| vma.flags |= VmaFlags::SEALED);
        Ok(())
    }
}

impl State {
    /// EPERM if something in the range is sealed (can_modify_mm()).
    pub(super) fn may_modify(&self, start: u64, end: u64) -> Result<()> {
        let sealed = |vma: &Vma| vma.flags.contains(VmaFlags::SEALED);
        if self.vmas.overlapping(start, end).any(|(_, _, vma)| sealed(vma)) {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }
}
