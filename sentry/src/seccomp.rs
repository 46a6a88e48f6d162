//! Filters that guests install (seccomp(2)).

use std::sync::Arc;

/// The filters of a task, the newest first.
pub struct Filters {
    /// The filter installed before.
    pub previous: Option<Arc<Filters>>,
}
