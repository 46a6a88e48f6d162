//! Call sites that the platform rewrites to make their calls cheaper.

use platform::{Change, PATCH_AREA, Prot, Thread};

use super::policy::Policy;
use super::vma::{Backing, Vma, VmaFlags};
use super::{MemoryManager, clamp};

/// Bytes from the end of a call instruction that a platform may rewrite.
const REACH: u64 = 16;

impl MemoryManager {
    /// Puts back what the platform has rewritten, for good: somebody will look at each instruction.
    pub fn stop_patching(&self) {
        let _state = self.state.write();
        self.space.stop_patching();
    }

    /// Has the platform rewrite the site of the call that ended at `ip` and is `thread`'s present one, if the pages are such
    /// that nobody can see it: private, executable, not writable. That it cannot be done is no error.
    pub fn patch(&self, thread: &mut dyn Thread, ip: u64) {
        let mut state = self.state.write();
        let fits = state.vmas.get(ip).is_some_and(|(start, end, vma)| {
            start + REACH <= ip
                && ip + REACH <= end
                && vma.prot.contains(Prot::EXEC)
                && !vma.prot.contains(Prot::WRITE)
                && !vma.is_shared()
                && !vma.flags.contains(VmaFlags::PLATFORM)
        });
        if !fits {
            return;
        }
        let space = &self.space;
        let prot = Prot::READ | Prot::EXEC;
        let mut place = |addr: u64| {
            let end = addr.saturating_add(PATCH_AREA);
            if clamp(addr, end) != Some((addr, end))
                || state.is_used(addr, PATCH_AREA)
                || !state.is_free(addr, PATCH_AREA)
                || space.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_err()
            {
                return false;
            }
            let flags = VmaFlags::PLATFORM | VmaFlags::DONT_EXPAND;
            let vma =
                Vma { prot, max_prot: prot, flags, backing: Backing::Anonymous, policy: Policy::default() };
            let replaced = state.insert(addr, end, vma);
            debug_assert!(replaced.is_empty());
            true
        };
        if let Err(error) = space.patch(thread, ip, &mut place) {
            tracing::trace!(ip, ?error, "call site stays as it is");
        }
    }
}
