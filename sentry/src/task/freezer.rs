//! Holding the threads of a container (`runsc pause`): none of them goes on with guest code until they are let go.
//!
//! A thread is held where it would return to its guest. One that sleeps in a system call sleeps on, as it does not run, and
//! is held when its call has ended: so nothing in the guest can tell that it was paused but by the clock. Signals wait, but
//! for the end of the process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::current::CurrentTask;
use super::task::RunState;
use super::{Task, ThreadGroup};
use crate::Kernel;

/// How long the threads of a container may take to come to a halt.
const LIMIT: Duration = Duration::from_secs(5);

/// Which containers are held.
#[derive(Default)]
pub struct Freezer {
    any: AtomicBool,
    held: Mutex<BTreeSet<Arc<str>>>,
}

impl Freezer {
    /// Whether any container is held.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether this one is.
    pub fn holds(&self, container: &str) -> bool {
        self.any() && self.held.lock().contains(container)
    }
}

impl Kernel {
    /// Holds the threads of a container, and returns when none of them runs. False, with all of them let go again, if one
    /// cannot be brought to a halt.
    pub fn freeze(&self, container: &Arc<str>) -> bool {
        let mut held = self.freezer.held.lock();
        held.insert(container.clone());
        self.freezer.any.store(true, Ordering::SeqCst);
        drop(held);
        let tasks = || self.tasks_of(container);
        // Whoever has not seen the mark is made to look once more.
        tasks().iter().for_each(|task| task.interrupt());
        let start = Instant::now();
        while tasks().iter().any(|task| task.state() == RunState::Running as u8 as char) {
            if start.elapsed() > LIMIT {
                self.thaw(container);
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Lets the threads of a container go on.
    pub fn thaw(&self, container: &Arc<str>) {
        let mut held = self.freezer.held.lock();
        held.remove(container);
        self.freezer.any.store(!held.is_empty(), Ordering::SeqCst);
        drop(held);
        self.tasks_of(container).iter().for_each(|task| task.interrupt());
    }

    /// The threads of a container.
    fn tasks_of(&self, container: &Arc<str>) -> Vec<Arc<Task>> {
        let of_container = |group: &Arc<ThreadGroup>| group.container.id == *container;
        self.processes().into_iter().filter(of_container).flat_map(|group| group.threads()).collect()
    }
}

impl CurrentTask {
    /// Waits here while the container is held and the thread is not to leave.
    pub(super) fn stay_frozen(&self) {
        let held = || self.kernel().freezer.holds(&self.group.container.id);
        if self.is_killed() || !held() {
            return;
        }
        self.set_state(RunState::Uninterruptible);
        loop {
            self.parker().reset();
            if self.is_killed() || !held() {
                break;
            }
            self.parker().park(None);
        }
        self.set_state(RunState::Running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_held_by_name() {
        let freezer = Freezer::default();
        assert!(!freezer.any() && !freezer.holds("a"));
        freezer.held.lock().insert("a".into());
        freezer.any.store(true, Ordering::Relaxed);
        assert!(freezer.holds("a") && !freezer.holds("b"));
    }
}
