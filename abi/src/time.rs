//! Clocks, times and timers (`time.h`, `timex.h`, `timerfd.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use std::time::Duration;

use bitflags::bitflags;

use crate::errno::{Errno, Result};

layout! {
    /// `struct timespec`.
    struct Timespec[16] { tv_sec: i64, tv_nsec: i64 }

    /// `struct timeval`.
    struct Timeval[16] { tv_sec: i64, tv_usec: i64 }

    /// `struct itimerspec`.
    struct Itimerspec[32] { it_interval: Timespec, it_value: Timespec }

    /// `struct itimerval`.
    struct Itimerval[32] { it_interval: Timeval, it_value: Timeval }

    /// `struct timezone`.
    struct Timezone[8] { tz_minuteswest: i32, tz_dsttime: i32 }

    /// `struct tms` of times(2), in clock ticks.
    struct Tms[32] { tms_utime: i64, tms_stime: i64, tms_cutime: i64, tms_cstime: i64 }

    /// `struct timex` of adjtimex(2).
    struct Timex[208] {
        modes: u32, _pad0: u32, offset: i64, freq: i64, maxerror: i64, esterror: i64, status: i32, _pad1: u32,
        constant: i64, precision: i64, tolerance: i64, time: Timeval, tick: i64, ppsfreq: i64, jitter: i64,
        shift: i32, _pad2: u32, stabil: i64, jitcnt: i64, calcnt: i64, errcnt: i64, stbcnt: i64, tai: i32,
        _pad3: [u32; 11],
    }
}

impl Timespec {
    /// True if both parts are in range for a timeout: no negative part, less than a second of nanoseconds.
    pub const fn is_valid(&self) -> bool {
        self.tv_sec >= 0 && self.tv_nsec >= 0 && self.tv_nsec < 1_000_000_000
    }

    /// As a duration; EINVAL if not [`Timespec::is_valid`].
    pub fn to_duration(self) -> Result<Duration> {
        if !self.is_valid() {
            return Err(Errno::EINVAL);
        }
        Ok(Duration::new(self.tv_sec as u64, self.tv_nsec as u32))
    }

    /// From nanoseconds, which may be negative: `tv_nsec` is never negative.
    pub const fn from_nanos(nanos: i64) -> Timespec {
        Timespec { tv_sec: nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) }
    }

    /// In nanoseconds, at most `i64::MAX` (292 years) as in Linux's `ktime_t`.
    pub const fn to_nanos_saturating(self) -> i64 {
        self.tv_sec.saturating_mul(1_000_000_000).saturating_add(self.tv_nsec)
    }
}

impl From<Duration> for Timespec {
    fn from(d: Duration) -> Timespec {
        Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(d.subsec_nanos()),
        }
    }
}

impl Timeval {
    /// True if both parts are in range for a timeout.
    pub const fn is_valid(&self) -> bool {
        self.tv_sec >= 0 && self.tv_usec >= 0 && self.tv_usec < 1_000_000
    }

    /// As a duration; EINVAL if not [`Timeval::is_valid`].
    pub fn to_duration(self) -> Result<Duration> {
        if !self.is_valid() {
            return Err(Errno::EINVAL);
        }
        Ok(Duration::new(self.tv_sec as u64, self.tv_usec as u32 * 1000))
    }

    /// From nanoseconds, rounded down.
    pub const fn from_nanos(nanos: i64) -> Timeval {
        Timeval { tv_sec: nanos.div_euclid(1_000_000_000), tv_usec: nanos.rem_euclid(1_000_000_000) / 1000 }
    }
}

impl From<Duration> for Timeval {
    fn from(d: Duration) -> Timeval {
        Timeval {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_usec: i64::from(d.subsec_micros()),
        }
    }
}

/// Ticks a second of times(2), sysconf(_SC_CLK_TCK) and /proc (`USER_HZ`).
pub const USER_HZ: u64 = 100;

pub const CLOCK_REALTIME: i32 = 0;
pub const CLOCK_MONOTONIC: i32 = 1;
pub const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
pub const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
pub const CLOCK_MONOTONIC_RAW: i32 = 4;
pub const CLOCK_REALTIME_COARSE: i32 = 5;
pub const CLOCK_MONOTONIC_COARSE: i32 = 6;
pub const CLOCK_BOOTTIME: i32 = 7;
pub const CLOCK_REALTIME_ALARM: i32 = 8;
pub const CLOCK_BOOTTIME_ALARM: i32 = 9;
pub const CLOCK_TAI: i32 = 11;
// The low bits of a negative clock id: which time of a process or thread, or a clock device (`posix-timers_types.h`).
pub const CPUCLOCK_PROF: i32 = 0;
pub const CPUCLOCK_VIRT: i32 = 1;
pub const CPUCLOCK_SCHED: i32 = 2;
pub const CPUCLOCK_CLOCK_MASK: i32 = 3;
pub const CPUCLOCK_PERTHREAD_MASK: i32 = 4;
pub const CLOCKFD: i32 = 3;

pub const ITIMER_REAL: i32 = 0;
pub const ITIMER_VIRTUAL: i32 = 1;
pub const ITIMER_PROF: i32 = 2;

/// Flag of clock_nanosleep(2) and timer_settime(2).
pub const TIMER_ABSTIME: u32 = 1;

bitflags! {
    /// Flags of timerfd_create(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TimerfdFlags: u32 {
        const TFD_CLOEXEC = 0x80000;
        const TFD_NONBLOCK = 0x800;
    }

    /// Flags of timerfd_settime(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TimerfdSettimeFlags: u32 {
        const TFD_TIMER_ABSTIME = 1;
        const TFD_TIMER_CANCEL_ON_SET = 2;
    }

    /// `modes` of [`Timex`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TimexModes: u32 {
        const ADJ_OFFSET = 1;
        const ADJ_FREQUENCY = 2;
        const ADJ_MAXERROR = 4;
        const ADJ_ESTERROR = 8;
        const ADJ_STATUS = 0x10;
        const ADJ_TIMECONST = 0x20;
        const ADJ_TAI = 0x80;
        const ADJ_SETOFFSET = 0x100;
        const ADJ_MICRO = 0x1000;
        const ADJ_NANO = 0x2000;
        const ADJ_TICK = 0x4000;
    }
}

pub const ADJ_OFFSET_SINGLESHOT: u32 = 0x8001;
pub const ADJ_OFFSET_SS_READ: u32 = 0xa001;
// `status` of [`Timex`].
pub const STA_PLL: i32 = 1;
pub const STA_UNSYNC: i32 = 0x40;
pub const STA_NANO: i32 = 0x2000;
// What adjtimex(2) returns.
pub const TIME_OK: i32 = 0;
pub const TIME_ERROR: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_times_are_durations() {
        let ts = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec }.to_duration();
        assert_eq!(ts(1, 999_999_999), Ok(Duration::new(1, 999_999_999)));
        assert_eq!(ts(i64::MAX, 0), Ok(Duration::from_secs(i64::MAX as u64)));
        for (sec, nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000), (0, i64::MAX), (i64::MIN, i64::MIN)] {
            assert_eq!(ts(sec, nsec), Err(Errno::EINVAL));
        }
        let tv = |tv_sec, tv_usec| Timeval { tv_sec, tv_usec }.to_duration();
        assert_eq!(tv(1, 999_999), Ok(Duration::from_micros(1_999_999)));
        assert_eq!((tv(0, 1_000_000), tv(-1, 0)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
    }

    #[test]
    fn conversions_neither_wrap_nor_lose_the_sign() {
        assert_eq!(Timespec::from(Duration::MAX).tv_sec, i64::MAX);
        assert_eq!(Timespec::from_nanos(-1), Timespec { tv_sec: -1, tv_nsec: 999_999_999 });
        assert_eq!(Timespec::from_nanos(-1).to_nanos_saturating(), -1);
        assert_eq!(Timespec { tv_sec: i64::MAX, tv_nsec: 1 }.to_nanos_saturating(), i64::MAX);
        assert_eq!(Timeval::from_nanos(1_999_999_999), Timeval { tv_sec: 1, tv_usec: 999_999 });
    }
}
