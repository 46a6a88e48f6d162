//! timerfd_create(2) (fs/timerfd.c).

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, Itimerspec, Timespec,
};
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::Kernel;
use crate::time::{Expire, TimerKey};
use crate::vfs::{File, FileOps, Io, Sink};
use crate::wait::WaitQueue;

#[derive(Default)]
struct State {
    /// Expirations that were not read.
    ticks: u64,
    /// When it expires next, in monotonic nanoseconds.
    next: Option<u64>,
    interval: u64,
    key: Option<TimerKey>,
    /// The flags it was armed with.
    armed_with: u32,
}

struct Timer {
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Expire for Timer {
    fn expire(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let due = state.next.filter(|&next| next <= now)?;
        let (ticks, next) = match state.interval {
            0 => (1, None),
            interval => {
                let missed = (now - due) / interval;
                (missed + 1, due.checked_add((missed + 1).saturating_mul(interval)))
            }
        };
        state.ticks = state.ticks.saturating_add(ticks);
        state.next = next;
        drop(state);
        self.queue.notify(PollEvents::POLLIN);
        next
    }
}

/// A timer as a file.
pub struct TimerFd {
    kernel: Weak<Kernel>,
    clock: i32,
    timer: Arc<Timer>,
}

/// Makes a timerfd on a clock that the caller has checked.
pub fn open(kernel: &Arc<Kernel>, clock: i32, flags: OpenFlags) -> Arc<File> {
    let timer = Arc::new(Timer { state: Mutex::default(), queue: WaitQueue::new() });
    let ops = TimerFd { kernel: Arc::downgrade(kernel), clock, timer };
    kernel.anonymous.file(Arc::new(ops), flags | OpenFlags::O_RDWR)
}

impl TimerFd {
    /// The clock's time in nanoseconds.
    fn clock_now(&self, kernel: &Kernel) -> u64 {
        match self.clock {
            CLOCK_REALTIME | CLOCK_REALTIME_ALARM => kernel.clock.realtime_nanos(),
            CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => kernel.clock.boottime(),
            _ => kernel.clock.monotonic(),
        }
    }

    fn setting(state: &State, now: u64) -> Itimerspec {
        let time = |nanos: u64| Timespec::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        // A timer that is due shows the least time that is not "disarmed".
        let left = state.next.map_or(0, |next| next.saturating_sub(now).max(1));
        Itimerspec { it_interval: time(state.interval), it_value: time(left) }
    }

    /// timerfd_gettime(2).
    pub fn get(&self) -> Result<Itimerspec> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EINVAL)?;
        Ok(TimerFd::setting(&self.timer.state.lock(), kernel.clock.monotonic()))
    }

    /// timerfd_settime(2): value and interval in nanoseconds. Returns the old setting.
    pub fn set(&self, value: u64, interval: u64, absolute: bool, flags: u32) -> Result<Itimerspec> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EINVAL)?;
        let now = kernel.clock.monotonic();
        let mut state = self.timer.state.lock();
        let old = TimerFd::setting(&state, now);
        if let Some(key) = state.key.take() {
            kernel.timers.cancel(key);
        }
        state.ticks = 0;
        state.interval = interval;
        state.armed_with = flags;
        state.next = match (value, absolute) {
            (0, _) => None,
            (value, true) => {
                let clock = self.clock_now(&kernel);
                // A time that is past counts the expirations since then.
                Some(if value > clock {
                    now.saturating_add(value - clock)
                } else {
                    now.saturating_sub(clock - value)
                })
            }
            (value, false) => Some(now.saturating_add(value)),
        };
        if let Some(next) = state.next {
            let timer: Arc<dyn Expire> = self.timer.clone();
            state.key = Some(kernel.timers.schedule(next, &timer));
        }
        Ok(old)
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let ticks = std::mem::take(&mut self.timer.state.lock().ticks);
        if ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        dst.put(&ticks.to_ne_bytes())
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        if self.timer.state.lock().ticks > 0 { PollEvents::POLLIN } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.timer.queue)
    }

    fn fdinfo(&self) -> String {
        let state = self.timer.state.lock();
        let now = self.kernel.upgrade().map_or(0, |k| k.clock.monotonic());
        let s = TimerFd::setting(&state, now);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            self.clock,
            state.ticks,
            state.armed_with,
            s.it_value.tv_sec,
            s.it_value.tv_nsec,
            s.it_interval.tv_sec,
            s.it_interval.tv_nsec
        )
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[timerfd]".to_string()
    }
}
