//! Tasks: threads, processes, process groups, sessions, their credentials, namespaces and signals.
//!
//! [`Task`] is what others may see of a thread; [`CurrentTask`] is the running thread's own view, which system call
//! handlers get.
//!
//! Lock order: `Kernel::tasklist` → [`group::ThreadGroup`]'s family → its `signals` → a task's `signals` → a
//! namespace's numbers → wait queues. Credentials, files, memory and file system context are leaf locks, held only to
//! clone the `Arc`.

pub mod access;
pub mod clone;
pub mod counts;
pub mod credentials;
pub mod current;
pub mod exec;
pub mod exit;
pub mod freezer;
pub mod futex;
pub mod futex_pi;
pub mod futex_robust;
pub mod group;
mod host_threads;
pub mod limits;
pub mod namespaces;
pub mod pid;
pub mod ptrace;
pub mod signal;
pub mod signal_frame;
#[allow(clippy::module_inception, reason = "Linux's noun")]
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod user_counts;
pub mod wait;

use std::sync::atomic::{AtomicU64, Ordering};

pub use access::AccessMode;
pub use credentials::{Credentials, UserNamespace};
pub use current::{CurrentTask, Outcome, SyscallTable};
pub(crate) use exit::is_orphaned;
pub use group::{ProcessGroup, Session, ThreadGroup};
pub use namespaces::Namespaces;
pub use pid::{Pid, PidNamespace};
pub use task::Task;

/// The inode number of a new namespace, as `/proc/PID/ns/*` shows it.
pub fn next_namespace_ino() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(4_026_531_834);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
