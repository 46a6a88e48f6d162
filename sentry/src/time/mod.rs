//! Clocks and timers. All time of the sandbox comes from [`Clock`].

mod process_timers;
mod queue;

use std::sync::atomic::{AtomicBool, Ordering};

use abi::time::Timespec;
use nix::time::{ClockId, clock_gettime};

pub use process_timers::{Base, Notify, PosixTimer, ProcessTimers, Setting};
pub use queue::{Expire, TimerKey, TimerQueue};

/// The source of time.
#[derive(Default)]
pub struct Clock {
    counting: AtomicBool,
}

fn read(id: ClockId) -> Timespec {
    // The clocks asked for here exist on every Linux.
    clock_gettime(id)
        .map_or_else(|_| Timespec::default(), |t| Timespec { tv_sec: t.tv_sec(), tv_nsec: t.tv_nsec() })
}

fn nanos(t: Timespec) -> u64 {
    u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// The wall clock, for time stamps.
pub fn now() -> Timespec {
    read(ClockId::CLOCK_REALTIME)
}

impl Clock {
    /// CLOCK_REALTIME.
    pub fn realtime(&self) -> Timespec {
        now()
    }

    /// CLOCK_REALTIME in nanoseconds.
    pub fn realtime_nanos(&self) -> u64 {
        nanos(now())
    }

    /// CLOCK_MONOTONIC in nanoseconds.
    pub fn monotonic(&self) -> u64 {
        nanos(read(ClockId::CLOCK_MONOTONIC))
    }

    /// CLOCK_BOOTTIME in nanoseconds.
    pub fn boottime(&self) -> u64 {
        nanos(read(ClockId::CLOCK_BOOTTIME))
    }

    /// The monotonic time if somebody wants to know how long the sentry takes, else `None`: two readings of the clock
    /// would be a tenth of a short system call.
    pub fn monotonic_if_counting(&self) -> Option<u64> {
        self.counting.load(Ordering::Relaxed).then(|| self.monotonic())
    }

    /// Turns the accounting of system time on: somebody has asked for it.
    pub fn count_system_time(&self) {
        self.counting.store(true, Ordering::Relaxed);
    }
}
