//! Which processors stub threads run on.
//!
//! The host wakes a service thread where it ran last, if that processor is idle, and puts a new thread or process on an idle
//! one. For who waits for a service thread's reply, both are wrong: to wake another processor takes tens of microseconds in a
//! virtual machine, to switch to another process on this one takes two. So a service thread is bound to the processor of
//! who commands it. What it forks inherits that, which is right for the copy's service thread, but guest threads are freed
//! before they run.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bound to none.
const NONE: usize = usize::MAX;

/// The processors of the sentry.
pub(super) struct Processors {
    /// `None`: there is only one, or binding does not work here.
    allowed: Option<CpuSet>,
}

impl Processors {
    /// Those that the calling thread may use.
    pub fn new() -> Self {
        let count = |set: &CpuSet| (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).count();
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok().filter(|set| count(set) > 1);
        Self { allowed }
    }

    /// Lets a guest thread run everywhere.
    pub fn free(&self, tid: i32) {
        if let Some(allowed) = &self.allowed {
            // Not if the sentry has been given other processors meanwhile; then it may have any of those.
            let _ = sched_setaffinity(Pid::from_raw(tid), allowed).or_else(|_| {
                let mut all = CpuSet::new();
                (0..CpuSet::count()).try_for_each(|cpu| all.set(cpu))?;
                sched_setaffinity(Pid::from_raw(tid), &all)
            });
        }
    }
}

/// Where a service thread is bound.
pub(super) struct Binding(AtomicUsize);

impl Binding {
    /// Of a process that was not forked from another stub process.
    pub fn none() -> Self {
        Self(AtomicUsize::new(NONE))
    }

    /// What a copy of the process has.
    pub fn inherited(&self) -> Self {
        Self(AtomicUsize::new(self.0.load(Relaxed)))
    }

    /// Binds the service thread `tid` to the processor of the calling thread, which is about to command it.
    pub fn follow(&self, processors: &Processors, tid: i32) {
        if processors.allowed.is_none() {
            return;
        }
        let Ok(cpu) = sched_getcpu() else { return };
        if self.0.swap(cpu, Relaxed) != cpu {
            let mut set = CpuSet::new();
            // Without, it is only slower.
            let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(tid), &set));
        }
    }
}
