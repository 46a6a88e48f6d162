//! Interval timers (setitimer(2)) and POSIX timers (timer_create(2)) of a process.
//!
//! Timers on processor time look at the clock of the process every so often while they are armed; nothing is polled
//! otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::resource::{RLIM_INFINITY, RLIMIT_CPU};
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::queue::{Expire, TimerKey};
use crate::Kernel;
use crate::task::{Task, ThreadGroup};

/// How often a timer on processor time is looked at, in nanoseconds.
const CPU_TICK: u64 = 10_000_000;

const NANOS: u64 = 1_000_000_000;

/// The most POSIX timers of a process; Linux counts them against RLIMIT_SIGPENDING.
const POSIX_TIMERS_MAX: usize = 4096;

/// What a timer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Real time: absolute times are converted when it is armed.
    Real,
    /// User time of the process.
    User,
    /// User and system time of the process.
    Cpu,
}

/// Time left and interval, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until it expires; 0 is disarmed.
    pub value: u64,
    /// From then on.
    pub interval: u64,
}

#[derive(Default)]
struct Armed {
    /// When it expires, on its base.
    at: Option<u64>,
    interval: u64,
    key: Option<TimerKey>,
    /// Expirations since the signal was queued.
    missed: i32,
    /// What the signal taken last stood for, beside its own.
    overrun: i32,
}

/// What an expiry does.
#[derive(Clone)]
pub enum Notify {
    /// Nothing.
    Nothing,
    /// Sends a signal to the process.
    Process(Signal),
    /// Sends a signal to a thread.
    Thread(Signal, Weak<Task>),
}

/// One timer.
pub struct PosixTimer {
    /// Its number; -1 for an interval timer.
    pub id: i32,
    /// The clock, as given.
    pub clock: i32,
    base: Base,
    notify: Notify,
    value: u64,
    group: Weak<ThreadGroup>,
    armed: Mutex<Armed>,
}

impl PosixTimer {
    fn now(&self, group: &ThreadGroup) -> u64 {
        match self.base {
            Base::Real => group.kernel.clock.monotonic(),
            Base::User => group.cpu_time().user,
            Base::Cpu => group.cpu_time().total(),
        }
    }

    fn send(&self, group: &Arc<ThreadGroup>) {
        let (signal, to) = match &self.notify {
            Notify::Nothing => return,
            Notify::Process(signal) => (*signal, None),
            Notify::Thread(signal, task) => match task.upgrade() {
                Some(task) => (*signal, Some(task)),
                // A thread that has ended takes none, and nobody does for it.
                None => return,
            },
        };
        let info = if self.id < 0 {
            SigInfo::kernel(signal)
        } else {
            SigInfo::timer(signal, self.id, 0, self.value)
        };
        // A signal that waits already counts an overrun instead.
        if self.id >= 0 {
            let mut pending = group.signals.lock();
            let queued = pending.pending.timer_entry(self.id).is_some()
                || to.as_ref().is_some_and(|t| t.signals.lock().pending.timer_entry(self.id).is_some());
            if queued {
                let mut armed = self.armed.lock();
                armed.missed = armed.missed.saturating_add(1);
                return;
            }
            drop(pending);
        }
        // Only a queue that is full can fail, and then the expiry is lost, as on Linux.
        let _ = match to {
            Some(task) => task.send_signal(info),
            None => group.send_signal(info),
        };
    }

    /// The present setting.
    pub fn get(&self) -> Setting {
        let Some(group) = self.group.upgrade() else { return Setting::default() };
        let now = self.now(&group);
        let armed = self.armed.lock();
        Setting { value: armed.at.map_or(0, |at| at.saturating_sub(now).max(1)), interval: armed.interval }
    }

    /// A signal of the timer is being taken: how many expirations it stands for beside its own.
    fn delivered(&self) -> i32 {
        let mut armed = self.armed.lock();
        armed.overrun = std::mem::take(&mut armed.missed);
        armed.overrun
    }

    /// timer_getoverrun(2).
    pub fn overrun(&self) -> i32 {
        self.armed.lock().overrun
    }

    /// Arms or disarms it; `value` is from now on. Returns the old setting.
    pub fn set(self: &Arc<PosixTimer>, new: Setting) -> Setting {
        let old = self.get();
        let Some(group) = self.group.upgrade() else { return old };
        let now = self.now(&group);
        let mut armed = self.armed.lock();
        if let Some(key) = armed.key.take() {
            group.kernel.timers.cancel(key);
        }
        armed.missed = 0;
        armed.interval = new.interval;
        armed.at = (new.value > 0).then(|| now.saturating_add(new.value));
        if let Some(at) = armed.at {
            let timer: Arc<dyn Expire> = self.clone();
            let deadline = match self.base {
                Base::Real => at,
                _ => group.kernel.clock.monotonic().saturating_add(new.value.min(CPU_TICK)),
            };
            armed.key = Some(group.kernel.timers.schedule(deadline, &timer));
        }
        old
    }

    fn cancel(&self, kernel: &Kernel) {
        let mut armed = self.armed.lock();
        armed.at = None;
        if let Some(key) = armed.key.take() {
            kernel.timers.cancel(key);
        }
    }
}

impl Expire for PosixTimer {
    fn expire(&self, monotonic: u64) -> Option<u64> {
        let group = self.group.upgrade()?;
        if self.base != Base::Real {
            for task in group.threads() {
                task.refresh_cpu_time();
            }
        }
        let now = self.now(&group);
        let mut armed = self.armed.lock();
        let at = armed.at?;
        if now < at {
            let again = match self.base {
                Base::Real => at,
                _ => monotonic + CPU_TICK,
            };
            return Some(again);
        }
        let mut missed = 0;
        armed.at = match armed.interval {
            0 => None,
            interval => {
                missed = (now - at) / interval;
                at.checked_add((missed + 1).saturating_mul(interval))
            }
        };
        armed.missed = armed.missed.saturating_add(i32::try_from(missed).unwrap_or(i32::MAX));
        let next = armed.at;
        drop(armed);
        self.send(&group);
        match self.base {
            Base::Real => next,
            _ => next.map(|_| monotonic + CPU_TICK),
        }
    }
}

/// RLIMIT_CPU of a process.
struct CpuLimit {
    group: Weak<ThreadGroup>,
}

impl CpuLimit {
    /// When the limit can be reached at the earliest, if all processors work for it.
    fn next(group: &ThreadGroup, now: u64) -> Option<u64> {
        let limit = group.limits.get(RLIMIT_CPU);
        let end = limit.rlim_cur.min(limit.rlim_max);
        if end == RLIM_INFINITY {
            return None;
        }
        let left = end.saturating_mul(NANOS).saturating_sub(group.cpu_time().total());
        Some(now.saturating_add((left / u64::from(group.container.cpus())).max(CPU_TICK)))
    }
}

impl Expire for CpuLimit {
    /// SIGXCPU at the soft limit and each second from then on, SIGKILL at the hard one (check_process_timers()).
    fn expire(&self, now: u64) -> Option<u64> {
        let group = self.group.upgrade()?;
        for task in group.threads() {
            task.refresh_cpu_time();
        }
        let seconds = group.cpu_time().total() / NANOS;
        let mut limit = group.limits.get(RLIMIT_CPU);
        if seconds >= limit.rlim_max {
            group.send_kernel_signal(Signal::SIGKILL);
            return None;
        }
        if seconds >= limit.rlim_cur {
            limit.rlim_cur = limit.rlim_cur.saturating_add(1);
            group.limits.set(RLIMIT_CPU, limit);
            group.send_kernel_signal(Signal::SIGXCPU);
        }
        CpuLimit::next(&group, now)
    }
}

#[derive(Default)]
struct Timers {
    cpu_limit: Option<(Arc<CpuLimit>, TimerKey)>,
    interval: [Option<Arc<PosixTimer>>; 3],
    posix: BTreeMap<i32, Arc<PosixTimer>>,
    next_id: i32,
}

/// The timers of a process.
#[derive(Default)]
pub struct ProcessTimers(Mutex<Timers>);

impl ProcessTimers {
    /// The interval timer ITIMER_REAL (0), ITIMER_VIRTUAL (1) or ITIMER_PROF (2). EINVAL for others.
    pub fn interval(&self, which: usize, group: &Arc<ThreadGroup>) -> Result<Arc<PosixTimer>> {
        let (base, signal) = match which {
            0 => (Base::Real, Signal::SIGALRM),
            1 => (Base::User, Signal::SIGVTALRM),
            2 => (Base::Cpu, Signal::SIGPROF),
            _ => return Err(Errno::EINVAL),
        };
        let mut timers = self.0.lock();
        let slot = &mut timers.interval[which];
        let timer = slot.get_or_insert_with(|| {
            Arc::new(PosixTimer {
                id: -1,
                clock: 0,
                base,
                notify: Notify::Process(signal),
                value: 0,
                group: Arc::downgrade(group),
                armed: Mutex::default(),
            })
        });
        Ok(timer.clone())
    }

    /// RLIMIT_CPU was set or inherited.
    pub fn watch_cpu_limit(&self, group: &Arc<ThreadGroup>) {
        let kernel = &group.kernel;
        let Some(at) = CpuLimit::next(group, kernel.clock.monotonic()) else {
            // A limit that was taken away is noticed when its time comes.
            return;
        };
        let mut timers = self.0.lock();
        let limit = match timers.cpu_limit.take() {
            Some((limit, key)) => {
                kernel.timers.cancel(key);
                limit
            }
            None => Arc::new(CpuLimit { group: Arc::downgrade(group) }),
        };
        let expires: Arc<dyn Expire> = limit.clone();
        let key = kernel.timers.schedule(at, &expires);
        timers.cpu_limit = Some((limit, key));
    }

    /// timer_create(2). EAGAIN when there are too many. `value` is what the signal carries; `None` is the number.
    pub fn create(
        &self,
        group: &Arc<ThreadGroup>,
        clock: i32,
        base: Base,
        notify: Notify,
        value: Option<u64>,
    ) -> Result<i32> {
        let mut timers = self.0.lock();
        if timers.posix.len() >= POSIX_TIMERS_MAX {
            return Err(Errno::EAGAIN);
        }
        let id = timers.next_id;
        timers.next_id = timers.next_id.checked_add(1).ok_or(Errno::EAGAIN)?;
        let timer = PosixTimer {
            id,
            clock,
            base,
            notify,
            value: value.unwrap_or(id as u64),
            group: Arc::downgrade(group),
            armed: Mutex::default(),
        };
        timers.posix.insert(id, Arc::new(timer));
        Ok(id)
    }

    /// A POSIX timer. EINVAL.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.0.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// A signal was taken from a queue: if it is a timer's, it is told how many expirations it stands for.
    pub fn note_delivery(&self, info: &mut SigInfo) {
        if info.si_code == abi::signal::SI_TIMER
            && let Some(timer) = self.0.lock().posix.get(&info.timer_id())
        {
            info.set_overrun(timer.delivered());
        }
    }

    /// timer_delete(2). EINVAL.
    pub fn delete(&self, id: i32, kernel: &Kernel, group: &ThreadGroup) -> Result<()> {
        let timer = self.0.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.cancel(kernel);
        group.signals.lock().pending.discard_timer(id);
        for task in group.threads() {
            task.signals.lock().pending.discard_timer(id);
        }
        Ok(())
    }

    /// exec deletes POSIX timers and keeps interval timers.
    pub fn clear_posix(&self, kernel: &Kernel, group: &ThreadGroup) {
        let ids: Vec<i32> = self.0.lock().posix.keys().copied().collect();
        for id in ids {
            // It may be gone already, which is what is wanted.
            let _ = self.delete(id, kernel, group);
        }
    }

    /// The end of the process.
    pub fn clear(&self, kernel: &Kernel) {
        let timers = std::mem::take(&mut *self.0.lock());
        if let Some((_, key)) = timers.cpu_limit {
            kernel.timers.cancel(key);
        }
        for timer in timers.interval.iter().flatten().chain(timers.posix.values()) {
            timer.cancel(kernel);
        }
    }
}
