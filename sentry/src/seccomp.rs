//! Filters that guests install (seccomp(2)).
//!
//! Nothing makes one yet: seccomp(2) is ENOSYS and PR_SET_SECCOMP is EINVAL, as in a kernel without them. The place is
//! here because tasks inherit filters and proc shows them.

use std::sync::Arc;

/// The filters of a task, the newest first.
pub struct Filters {
    /// The filter installed before.
    pub previous: Option<Arc<Filters>>,
}
