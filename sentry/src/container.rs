//! Containers, as the kernel knows them: what runs their programs, and what of the machine they see.
//!
//! A process belongs to the container of the process that made it, for ever. Mounts of proc, sysfs and cgroup2 show the
//! machine of the container that mounted them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use platform::Platform;

use crate::fs::cgroup::Cgroup;
use crate::task::group::CpuTime;

/// How long the memory that processes hold is taken to be the same, in nanoseconds.
const MEMORY_AGE: u64 = 300_000_000;

/// A container.
pub struct Container {
    /// Its id.
    pub id: Arc<str>,
    /// Runs its programs: memory for them is made here.
    pub platform: Arc<dyn Platform>,
    /// Its cgroup, which is the root of what it sees.
    pub cgroup: Arc<Cgroup>,
    cpus: AtomicU32,
    memory: AtomicU64,
    /// Monotonic nanoseconds of the last look, and the bytes that its processes held then.
    used: Mutex<(u64, u64)>,
    /// Processor time of threads that have ended, in user mode and in the kernel.
    ended: (AtomicU64, AtomicU64),
}

impl Container {
    /// A container without processes that sees `cpus` processors and `memory` bytes.
    pub fn new(
        id: Arc<str>,
        platform: Arc<dyn Platform>,
        cgroup: Arc<Cgroup>,
        cpus: u32,
        memory: u64,
    ) -> Arc<Container> {
        Arc::new(Container {
            id,
            platform,
            cgroup,
            cpus: AtomicU32::new(cpus.max(1)),
            memory: AtomicU64::new(memory),
            used: Mutex::default(),
            ended: Default::default(),
        })
    }

    /// How many processors its programs see, at least one.
    pub fn cpus(&self) -> u32 {
        self.cpus.load(Ordering::Relaxed)
    }

    /// How much memory its programs see, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Changes what its programs see.
    pub fn resize(&self, cpus: u32, memory: u64) {
        self.cpus.store(cpus.max(1), Ordering::Relaxed);
        self.memory.store(memory, Ordering::Relaxed);
    }

    /// The memory that its processes hold in bytes, by `ask` unless that was asked just before `now`.
    pub(crate) fn memory_used(&self, now: u64, ask: impl FnOnce() -> u64) -> u64 {
        let mut used = self.used.lock();
        if used.0 == 0 || now.saturating_sub(used.0) > MEMORY_AGE {
            *used = (now.max(1), ask());
        }
        used.1
    }

    /// A thread ended that had used this much.
    pub(crate) fn task_ended(&self, time: CpuTime) {
        self.ended.0.fetch_add(time.user, Ordering::Relaxed);
        self.ended.1.fetch_add(time.system, Ordering::Relaxed);
    }

    /// What all threads have used that have ended.
    pub(crate) fn ended_time(&self) -> CpuTime {
        CpuTime { user: self.ended.0.load(Ordering::Relaxed), system: self.ended.1.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::cgroup::Hierarchy;
    use crate::mm::mock::MockPlatform;

    #[test]
    fn memory_is_asked_for_once_in_a_while() {
        let cgroup = Hierarchy::default().root().clone();
        let container = Container::new("c".into(), Arc::new(MockPlatform::default()), cgroup, 0, 1 << 20);
        assert_eq!(container.cpus(), 1);
        assert_eq!(container.memory_used(1, || 10), 10);
        assert_eq!(container.memory_used(2, || 20), 10);
        assert_eq!(container.memory_used(MEMORY_AGE + 2, || 20), 20);
        container.resize(3, 1 << 21);
        assert_eq!((container.cpus(), container.memory()), (3, 1 << 21));
    }
}
