//! What a fault of a guest thread means.

use abi::signal::{SEGV_ACCERR, SEGV_MAPERR, Signal};
use platform::{Fault, PAGE_SIZE, Prot, USER_MAX, USER_MIN};

use super::vma::{STACK_GUARD, VmaFlags};
use super::{By, Limits, MemoryManager, State};

/// Bits of the processor's page fault error code.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// A stack grows by at least this, because each growth costs a fault that reaches the sentry.
const STACK_STEP: u64 = 128 << 10;

/// What becomes of the faulting thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// It tries again.
    Resume,
    /// It gets a signal.
    Signal {
        /// The signal's number.
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        addr: u64,
    },
}

/// How an attempt to grow a stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// The address is mapped now.
    Grown,
    /// It was mapped already.
    Mapped,
    /// It is not a place into which a stack could grow.
    No,
}

impl MemoryManager {
    /// Decides about a fault that the platform reported.
    pub fn handle_fault(&self, by: By<'_>, fault: &Fault, limits: &Limits) -> FaultOutcome {
        let signal = |code| FaultOutcome::Signal { signal: fault.signal, code, addr: fault.addr };
        // Others are errors of arithmetic, code or files, and mean what the host says.
        if Signal::from_i32(fault.signal) != Some(Signal::SIGSEGV)
            || !matches!(fault.code, SEGV_MAPERR | SEGV_ACCERR)
        {
            return signal(fault.code);
        }
        if fault.addr >= USER_MAX {
            return signal(SEGV_MAPERR);
        }
        let mut state = self.state.write();
        state.limits = *limits;
        match self.grow_stack_locked(by, &mut state, fault.addr) {
            Growth::Grown => return FaultOutcome::Resume,
            Growth::No => return signal(SEGV_MAPERR),
            Growth::Mapped => {}
        }
        let Some((_, _, vma)) = state.vmas.get(fault.addr) else { return signal(SEGV_MAPERR) };
        let allowed = if fault.error & WRITE != 0 {
            vma.prot.contains(Prot::WRITE)
        } else if fault.error & FETCH != 0 {
            vma.prot.contains(Prot::EXEC)
        } else {
            !vma.prot.is_empty()
        };
        if !allowed {
            return signal(SEGV_ACCERR);
        }
        // The access is fine by the map: another thread has mapped it since, unless that was said before and nothing
        // changed.
        let now = (fault.addr, state.generation);
        if state.excused == Some(now) {
            return signal(fault.code);
        }
        state.excused = Some(now);
        FaultOutcome::Resume
    }

    /// Grows a stack down to `addr` for an access of the sentry's own, within the limits last seen.
    pub(super) fn grow_stack(&self, addr: u64) -> Growth {
        if !(USER_MIN..USER_MAX).contains(&addr) {
            return Growth::No;
        }
        // Most bad addresses are bad: find that out without excluding anybody.
        let state = self.state.read();
        match state.vmas.at_or_above(addr) {
            Some((start, _, _)) if start <= addr => return Growth::Mapped,
            Some((_, _, vma)) if vma.flags.contains(VmaFlags::GROWS_DOWN) => {}
            _ => return Growth::No,
        }
        drop(state);
        self.grow_stack_locked(None, &mut self.state.write(), addr)
    }

    fn grow_stack_locked(&self, by: By<'_>, state: &mut State, addr: u64) -> Growth {
        let page = addr & !(PAGE_SIZE - 1);
        let (start, end, vma) = match state.vmas.at_or_above(addr) {
            Some((start, end, vma)) => (start, end, vma.clone()),
            None => return Growth::No,
        };
        if start <= addr {
            return Growth::Mapped;
        }
        let limits = state.limits;
        if !vma.flags.contains(VmaFlags::GROWS_DOWN) || page < USER_MIN || end - page > limits.stack {
            return Growth::No;
        }
        // What is below keeps its distance, unless nothing can be done with it.
        let floor = match state.vmas.below(start) {
            Some((_, below, v)) if v.prot.is_empty() || v.flags.contains(VmaFlags::GROWS_DOWN) => below,
            Some((_, below, _)) => below.saturating_add(STACK_GUARD),
            None => USER_MIN,
        };
        if page < floor {
            return Growth::No;
        }
        let may = |state: &State, to: u64| {
            let locked = vma.flags.contains(VmaFlags::LOCKED);
            state.may_expand(&vma, start - to, &limits).is_ok()
                && (!locked || state.may_lock(start - to, &limits).is_ok())
        };
        let lowest = (end.saturating_sub(limits.stack) + PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        // Only the stack itself gets more than it asked for: elsewhere it would be seen.
        let at = state.layout.start_stack;
        let step = if (start..end).contains(&at) { STACK_STEP.max(end - start) } else { 0 };
        let mut to = start.saturating_sub(step).max(lowest).max(floor).max(USER_MIN).min(page);
        if !may(state, to) {
            to = page;
            if !may(state, to) {
                return Growth::No;
            }
        }
        match self.place(by, state, to, start - to, vma) {
            Ok((_, replaced)) => debug_assert!(replaced.is_empty()),
            Err(_) => return Growth::No,
        }
        Growth::Grown
    }
}
