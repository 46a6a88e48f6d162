//! Who may look into whom (__ptrace_may_access(), ptrace(2) "Ptrace access mode checking").

use std::sync::Arc;

use abi::capability::CAP_SYS_PTRACE;
use abi::{Errno, Result};

use super::credentials::Credentials;
use super::task::Task;

/// What a task wants of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Reads that change nothing, by path (PTRACE_MODE_READ_FSCREDS).
    Read,
    /// Control, by path (PTRACE_MODE_ATTACH_FSCREDS).
    Attach,
    /// Reads that change nothing, by a system call (PTRACE_MODE_READ_REALCREDS).
    ReadReal,
    /// Control, by a system call (PTRACE_MODE_ATTACH_REALCREDS).
    AttachReal,
}

impl AccessMode {
    fn by_path(self) -> bool {
        matches!(self, AccessMode::Read | AccessMode::Attach)
    }
}

impl Task {
    /// May the task look into `target`? EPERM. Threads of one process always may.
    pub fn may_access(&self, target: &Task, mode: AccessMode) -> Result<()> {
        if Arc::ptr_eq(&self.group, &target.group) {
            return Ok(());
        }
        may_access(&self.credentials(), target, mode)
    }
}

/// May a task of another process with credentials `own` look into `target`? EPERM.
pub fn may_access(own: &Credentials, target: &Task, mode: AccessMode) -> Result<()> {
    let other = target.credentials();
    let (uid, gid) = if mode.by_path() { (own.fsuid, own.fsgid) } else { (own.uid, own.gid) };
    let capable = own.capable_in(&other.user_ns, CAP_SYS_PTRACE);
    let same = [other.euid, other.suid, other.uid].iter().all(|&id| id == uid)
        && [other.egid, other.sgid, other.gid].iter().all(|&id| id == gid);
    let dumpable = target.memory().is_none_or(|mm| mm.dumpable() == 1);
    let held = if mode.by_path() { own.effective } else { own.permitted };
    let subset = Arc::ptr_eq(&own.user_ns, &other.user_ns) && other.permitted.is_subset(held);
    if capable || (same && dumpable && subset) { Ok(()) } else { Err(Errno::EPERM) }
}
