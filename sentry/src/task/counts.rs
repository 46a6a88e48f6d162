//! How many threads there are, in all, of each user (RLIMIT_NPROC, kernel/ucount.c) and of each container
//! (kernel/cgroup/pids.c). The first thread of a process counts until somebody has waited for the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The counts.
#[derive(Default)]
pub struct TaskCounts {
    all: AtomicUsize,
    of_user: Mutex<HashMap<u32, usize>>,
    of_container: Mutex<HashMap<Arc<str>, Pids>>,
}

/// A container's threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: usize,
    /// The most there may be. Those that are started from outside are not held back by it.
    pub max: Option<usize>,
    /// The most there were.
    pub peak: usize,
    /// How often there would have been more.
    pub refused: u64,
}

impl TaskCounts {
    /// How many there are.
    pub fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// How many have this real uid (a kernel id).
    pub fn of_user(&self, uid: u32) -> usize {
        self.of_user.lock().get(&uid).copied().unwrap_or(0)
    }

    /// Those of a container.
    pub fn of_container(&self, container: &str) -> Pids {
        self.of_container.lock().get(container).copied().unwrap_or_default()
    }

    /// Sets the most threads that a container may have.
    pub fn limit(&self, container: &Arc<str>, max: Option<usize>) {
        self.of_container.lock().entry(container.clone()).or_default().max = max;
    }

    /// Counts a thread of `uid` in a container. `None` (which is counted) if the container may not have one more.
    pub fn count_within(self: &Arc<TaskCounts>, uid: u32, container: &Arc<str>) -> Option<Counted> {
        let mut all = self.of_container.lock();
        let pids = all.entry(container.clone()).or_default();
        if pids.max.is_some_and(|max| pids.current >= max) {
            pids.refused += 1;
            return None;
        }
        Some(self.add(uid, container, pids))
    }

    /// Counts a thread of `uid` in a container, however many there are.
    pub fn count(self: &Arc<TaskCounts>, uid: u32, container: &Arc<str>) -> Counted {
        let mut all = self.of_container.lock();
        self.add(uid, container, all.entry(container.clone()).or_default())
    }

    fn add(self: &Arc<TaskCounts>, uid: u32, container: &Arc<str>, pids: &mut Pids) -> Counted {
        pids.current += 1;
        pids.peak = pids.peak.max(pids.current);
        self.all.fetch_add(1, Ordering::Relaxed);
        *self.of_user.lock().entry(uid).or_default() += 1;
        Counted { counts: self.clone(), uid, container: container.clone() }
    }

    fn leave(&self, uid: u32) {
        let mut of_user = self.of_user.lock();
        if let Some(count) = of_user.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                of_user.remove(&uid);
            }
        }
    }
}

/// A thread that is counted, until this is dropped.
pub struct Counted {
    counts: Arc<TaskCounts>,
    uid: u32,
    container: Arc<str>,
}

impl Counted {
    /// The thread belongs to another user now. Returns how many this one has.
    pub fn change_user(&mut self, uid: u32) -> usize {
        self.counts.leave(self.uid);
        self.uid = uid;
        let mut of_user = self.counts.of_user.lock();
        let count = of_user.entry(uid).or_default();
        *count += 1;
        *count
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(pids) = self.counts.of_container.lock().get_mut(&self.container) {
            pids.current = pids.current.saturating_sub(1);
        }
        self.counts.leave(self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_threads_and_users() {
        let counts = Arc::new(TaskCounts::default());
        let container: Arc<str> = "c".into();
        counts.limit(&container, Some(3));
        let (mut a, b) = (counts.count(5, &container), counts.count(5, &container));
        let c = counts.count_within(6, &container).unwrap();
        assert!(counts.count_within(6, &container).is_none());
        drop(c);
        assert_eq!(counts.of_container("c"), Pids { current: 2, max: Some(3), peak: 3, refused: 1 });
        assert_eq!((counts.all(), counts.of_user(5)), (2, 2));
        assert_eq!(a.change_user(7), 1);
        assert_eq!((counts.of_user(5), counts.of_user(7)), (1, 1));
        drop(b);
        drop(a);
        assert_eq!((counts.all(), counts.of_user(5), counts.of_user(7)), (0, 0, 0));
        assert!(counts.of_user.lock().is_empty());
    }
}
