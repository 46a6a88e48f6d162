//! Clocks and timers. All time of the sandbox comes from [`Clock`].

mod process_timers;
mod queue;

use abi::time::Timespec;
use nix::time::{ClockId, clock_gettime};

pub use process_timers::{Base, Notify, PosixTimer, ProcessTimers, Setting};
pub use queue::{Expire, TimerKey, TimerQueue};

/// The source of time.
#[derive(Default)]
pub struct Clock(());

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
}

/// Processor time in nanoseconds that a thread of the sentry has used, by its host thread id; `None` once it has ended.
pub fn thread_time(thread: i32) -> Option<u64> {
    // The clock of a thread (MAKE_THREAD_CPUCLOCK of posix-timers.h): its number, per thread, on scheduler time.
    const PER_THREAD_SCHED: i32 = 4 | 2;
    let clock = ClockId::from_raw(!thread << 3 | PER_THREAD_SCHED);
    let time = clock_gettime(clock).ok()?;
    Some(nanos(Timespec { tv_sec: time.tv_sec(), tv_nsec: time.tv_nsec() }))
}
