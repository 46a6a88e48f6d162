//! How many threads there are, in all and of each user (RLIMIT_NPROC, kernel/ucount.c). The first thread of a process
//! counts until somebody has waited for the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The counts.
#[derive(Default)]
pub struct TaskCounts {
    all: AtomicUsize,
    of_user: Mutex<HashMap<u32, usize>>,
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

    /// Counts a thread of `uid`.
    pub fn count(self: &Arc<TaskCounts>, uid: u32) -> Counted {
        self.all.fetch_add(1, Ordering::Relaxed);
        *self.of_user.lock().entry(uid).or_default() += 1;
        Counted { counts: self.clone(), uid }
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
        self.counts.leave(self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_threads_and_users() {
        let counts = Arc::new(TaskCounts::default());
        let (mut a, b) = (counts.count(5), counts.count(5));
        assert_eq!((counts.all(), counts.of_user(5)), (2, 2));
        assert_eq!(a.change_user(7), 1);
        assert_eq!((counts.of_user(5), counts.of_user(7)), (1, 1));
        drop(b);
        drop(a);
        assert_eq!((counts.all(), counts.of_user(5), counts.of_user(7)), (0, 0, 0));
        assert!(counts.of_user.lock().is_empty());
    }
}
