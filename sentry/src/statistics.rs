//! Sums over all that has happened in the sandbox, for `/proc/stat`, loadavg and sysinfo(2).

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::task::group::CpuTime;

/// The counters. Each stands alone.
#[derive(Default)]
pub struct Statistics {
    tasks: AtomicU64,
    user: AtomicU64,
    system: AtomicU64,
    load: Mutex<Load>,
}

#[derive(Clone, Copy, Default)]
struct Load {
    /// Monotonic nanoseconds of the last look.
    at: u64,
    averages: [f64; 3],
}

impl Statistics {
    /// A thread was made.
    pub fn task_made(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    /// Threads made so far.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// A thread ended that had used this much.
    pub fn task_ended(&self, time: CpuTime) {
        self.user.fetch_add(time.user, Ordering::Relaxed);
        self.system.fetch_add(time.system, Ordering::Relaxed);
    }

    /// What all threads have used that have ended.
    pub fn ended_time(&self) -> CpuTime {
        CpuTime { user: self.user.load(Ordering::Relaxed), system: self.system.load(Ordering::Relaxed) }
    }

    /// The load averages over 1, 5 and 15 minutes, with `running` threads at `now`. Nobody samples while nobody looks:
    /// what is running now is taken to have run since the last look.
    pub fn load(&self, now: u64, running: usize) -> [f64; 3] {
        let mut load = self.load.lock();
        let elapsed = now.saturating_sub(load.at) as f64 / 1e9;
        // Looks in close succession would count the one who looks again and again.
        if load.at == 0 || elapsed >= 1.0 {
            // At the first look, the averages begin at 0.
            let elapsed = if load.at == 0 { 0.0 } else { elapsed };
            for (average, span) in load.averages.iter_mut().zip([60.0, 300.0, 900.0]) {
                let keep = f64::exp(-elapsed / span);
                *average = *average * keep + running as f64 * (1.0 - keep);
            }
            load.at = now.max(1);
        }
        load.averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_approaches_what_runs() {
        let statistics = Statistics::default();
        let minute = 60_000_000_000;
        assert_eq!(statistics.load(minute, 2), [0.0; 3]);
        let [one, five, fifteen] = statistics.load(2 * minute, 2);
        assert!((one - 2.0 * (1.0 - f64::exp(-1.0))).abs() < 1e-9);
        assert!(one > five && five > fifteen && fifteen > 0.0);
        // Another look at once changes nothing.
        assert_eq!(statistics.load(2 * minute + 1, 50), [one, five, fifteen]);
        assert!(statistics.load(100 * minute, 2)[0] > 1.99);
    }
}
