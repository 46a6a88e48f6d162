//! Clocks, sleeping and timers (kernel/time/).

use abi::fcntl::OpenFlags;
use abi::signal::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID, Sigevent, Signal};
use abi::time as t;
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval, Timex, Timezone, Tms};
use abi::{Errno, Result};
use sentry::fs::timerfd::{self, TimerFd};
use sentry::loader::vdso::Times;
use sentry::task::CurrentTask;
use sentry::task::wait::NANOS_PER_TICK;
use sentry::time::{Base, Notify, Setting};

use crate::arguments::UserPtr;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    CLOCK_GETTIME => clock_gettime;
    CLOCK_GETRES => clock_getres;
    CLOCK_SETTIME => clock_settime, Partial, "the sandbox cannot set the host's clock: EPERM";
    CLOCK_ADJTIME => clock_adjtime, Partial, "reads only";
    ADJTIMEX => adjtimex, Partial, "reads only";
    CLOCK_NANOSLEEP => clock_nanosleep;
    NANOSLEEP => nanosleep;
    GETTIMEOFDAY => gettimeofday;
    SETTIMEOFDAY => settimeofday, Partial, "the sandbox cannot set the host's clock: EPERM";
    TIME => time;
    TIMES => times;
    ALARM => alarm;
    GETITIMER => getitimer;
    SETITIMER => setitimer;
    TIMER_CREATE => timer_create;
    TIMER_SETTIME => timer_settime;
    TIMER_GETTIME => timer_gettime;
    TIMER_GETOVERRUN => timer_getoverrun;
    TIMER_DELETE => timer_delete;
    TIMERFD_CREATE => timerfd_create;
    TIMERFD_SETTIME => timerfd_settime;
    TIMERFD_GETTIME => timerfd_gettime;
};

/// The clock of a process or thread that a negative number means (CPUCLOCK_*): its time in nanoseconds.
fn cpu_clock(task: &CurrentTask, clock: i32) -> Result<u64> {
    let (pid, per_thread, which) = (!(clock >> 3), clock & 4 != 0, clock & 3);
    if which > 2 {
        return Err(Errno::EINVAL);
    }
    task.update_cpu_time();
    let time = if per_thread {
        let thread = process::thread(task, pid).map_err(|_| Errno::EINVAL)?;
        if !std::sync::Arc::ptr_eq(&thread.group, &task.group) {
            return Err(Errno::EINVAL);
        }
        thread.cpu_time()
    } else {
        let process = process::process(task, pid).map_err(|_| Errno::EINVAL)?;
        // A running thread brings its time up to date soon; what is read now may be from the last time.
        for thread in process.threads().iter().filter(|t| !std::sync::Arc::ptr_eq(t, task)) {
            thread.refresh_cpu_time();
        }
        process.cpu_time()
    };
    Ok(if which == 1 { time.user } else { time.total() })
}

/// The time as the vdso tells it, so that the two agree; the host's if the vdso has none.
fn now(task: &CurrentTask) -> Times {
    let kernel = task.kernel();
    kernel.vdso.as_ref().and_then(|vdso| vdso.times()).unwrap_or_else(|| Times {
        monotonic: kernel.clock.monotonic(),
        realtime: kernel.clock.realtime_nanos(),
        boottime: kernel.clock.boottime(),
    })
}

/// A clock's time in nanoseconds. EINVAL.
fn clock_nanos(task: &CurrentTask, clock: i32) -> Result<u64> {
    match clock {
        t::CLOCK_REALTIME | t::CLOCK_REALTIME_COARSE | t::CLOCK_REALTIME_ALARM | t::CLOCK_TAI => {
            Ok(now(task).realtime)
        }
        t::CLOCK_MONOTONIC | t::CLOCK_MONOTONIC_RAW | t::CLOCK_MONOTONIC_COARSE => Ok(now(task).monotonic),
        t::CLOCK_BOOTTIME | t::CLOCK_BOOTTIME_ALARM => Ok(now(task).boottime),
        t::CLOCK_PROCESS_CPUTIME_ID => {
            task.update_cpu_time();
            Ok(task.group.cpu_time().total())
        }
        t::CLOCK_THREAD_CPUTIME_ID => {
            task.update_cpu_time();
            Ok(task.cpu_time().total())
        }
        c if c < 0 => cpu_clock(task, c),
        _ => Err(Errno::EINVAL),
    }
}

fn timespec(nanos: u64) -> Timespec {
    Timespec::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

fn clock_gettime(task: &CurrentTask, clock: i32, time: UserPtr<Timespec>) -> Result<()> {
    time.write(task, &timespec(clock_nanos(task, clock)?))
}

fn clock_getres(task: &CurrentTask, clock: i32, resolution: UserPtr<Timespec>) -> Result<()> {
    clock_nanos(task, clock)?;
    let coarse = matches!(clock, t::CLOCK_REALTIME_COARSE | t::CLOCK_MONOTONIC_COARSE);
    resolution.write_if_some(task, &timespec(if coarse { 4_000_000 } else { 1 }))
}

fn clock_settime(task: &CurrentTask, clock: i32, time: UserPtr<Timespec>) -> Result<()> {
    if clock != t::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    time.read(task)?.to_duration()?;
    Err(Errno::EPERM)
}

fn adjtimex(task: &CurrentTask, timex: UserPtr<Timex>) -> Result<u32> {
    clock_adjtime(task, t::CLOCK_REALTIME, timex)
}

/// What adjtimex(2) may change (ntp_validate_timex()): nothing, since the clock is the host's. EINVAL, EPERM.
fn check_adjustment(modes: u32) -> Result<()> {
    const ADJ_ADJTIME: u32 = 0x8000;
    const ADJ_OFFSET_SINGLESHOT: u32 = 1;
    const ADJ_OFFSET_READONLY: u32 = 0x2000;
    if modes & ADJ_ADJTIME != 0 && modes & ADJ_OFFSET_SINGLESHOT == 0 {
        return Err(Errno::EINVAL);
    }
    let reads = modes == 0 || modes & ADJ_ADJTIME != 0 && modes & ADJ_OFFSET_READONLY != 0;
    if reads { Ok(()) } else { Err(Errno::EPERM) }
}

fn clock_adjtime(task: &CurrentTask, clock: i32, timex: UserPtr<Timex>) -> Result<u32> {
    const TIME_ERROR: u32 = 5;
    let mut read = timex.read(task)?;
    if clock != t::CLOCK_REALTIME {
        return Err(if clock_nanos(task, clock).is_ok() { Errno::EOPNOTSUPP } else { Errno::EINVAL });
    }
    check_adjustment(read.modes)?;
    let now = task.kernel().clock.realtime_nanos();
    read.time = Timeval::from_nanos(now as i64);
    read.status = 0x40;
    read.tick = 10_000;
    read.precision = 1;
    read.maxerror = 16_000_000;
    read.esterror = 16_000_000;
    timex.write(task, &read)?;
    Ok(TIME_ERROR)
}

fn nanosleep(task: &CurrentTask, request: UserPtr<Timespec>, rest: UserPtr<Timespec>) -> Result<()> {
    clock_nanosleep(task, t::CLOCK_MONOTONIC, 0, request, rest)
}

fn clock_nanosleep(
    task: &CurrentTask,
    clock: i32,
    flags: u32,
    request: UserPtr<Timespec>,
    rest: UserPtr<Timespec>,
) -> Result<()> {
    match clock {
        t::CLOCK_THREAD_CPUTIME_ID
        | t::CLOCK_MONOTONIC_RAW
        | t::CLOCK_REALTIME_COARSE
        | t::CLOCK_MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => {}
    }
    let now = clock_nanos(task, clock)?;
    let time = u64::try_from(request.read(task)?.to_duration()?.as_nanos()).unwrap_or(u64::MAX);
    let absolute = flags & t::TIMER_ABSTIME != 0;
    let monotonic = task.kernel().clock.monotonic();
    if clock == t::CLOCK_PROCESS_CPUTIME_ID || clock < 0 {
        return sleep_on_cpu_clock(task, clock, if absolute { time } else { now.saturating_add(time) });
    }
    let deadline = match task.take_restart() {
        Some(restart) => restart.deadline,
        None if absolute => monotonic.saturating_add(time.saturating_sub(now)),
        None => monotonic.saturating_add(time),
    };
    match task.sleep::<()>(Some(deadline), true, || None) {
        Ok(()) | Err(Errno::ETIMEDOUT) => Ok(()),
        Err(Errno::ERESTARTSYS) if absolute => Err(Errno::ERESTARTNOHAND),
        Err(Errno::ERESTARTSYS) => {
            let left = deadline.saturating_sub(task.kernel().clock.monotonic());
            rest.write_if_some(task, &timespec(left))?;
            Err(task.restart_with(deadline))
        }
        Err(e) => Err(e),
    }
}

/// Sleeps until a clock of processor time has come to `until`: looks at it again and again.
fn sleep_on_cpu_clock(task: &CurrentTask, clock: i32, until: u64) -> Result<()> {
    loop {
        let now = clock_nanos(task, clock)?;
        if now >= until {
            return Ok(());
        }
        let deadline = task.kernel().clock.monotonic().saturating_add((until - now).max(1_000_000));
        for thread in task.group.threads() {
            if !std::sync::Arc::ptr_eq(&thread, task) {
                thread.refresh_cpu_time();
            }
        }
        match task.sleep::<()>(Some(deadline), true, || None) {
            Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
            _ => continue,
        }
    }
}

fn gettimeofday(task: &CurrentTask, time: UserPtr<Timeval>, zone: UserPtr<Timezone>) -> Result<()> {
    time.write_if_some(task, &Timeval::from_nanos(now(task).realtime as i64))?;
    zone.write_if_some(task, &Timezone::default())
}

fn settimeofday(task: &CurrentTask, time: UserPtr<Timeval>, zone: UserPtr<Timezone>) -> Result<()> {
    if let Some(time) = time.non_null()
        && !time.read(task)?.is_valid()
    {
        return Err(Errno::EINVAL);
    }
    if let Some(zone) = zone.non_null() {
        zone.read(task)?;
    }
    Err(Errno::EPERM)
}

fn time(task: &CurrentTask, time: UserPtr<i64>) -> Result<i64> {
    let now = (now(task).realtime / 1_000_000_000) as i64;
    time.write_if_some(task, &now)?;
    Ok(now)
}

fn times(task: &CurrentTask, buf: UserPtr<Tms>) -> Result<u64> {
    task.update_cpu_time();
    let ticks = |nanos: u64| (nanos / NANOS_PER_TICK) as i64;
    let own = task.group.cpu_time();
    let children = task.group.children_usage.lock().time;
    buf.write_if_some(
        task,
        &Tms {
            tms_utime: ticks(own.user),
            tms_stime: ticks(own.system),
            tms_cutime: ticks(children.user),
            tms_cstime: ticks(children.system),
        },
    )?;
    Ok(task.kernel().clock.boottime() / NANOS_PER_TICK)
}

fn alarm(task: &CurrentTask, seconds: u32) -> Result<u64> {
    let timer = task.group.timers.interval(0, &task.group)?;
    let old = timer.set(Setting { value: u64::from(seconds) * 1_000_000_000, interval: 0 });
    // Rounded to the nearest second, but what is armed never reads 0.
    Ok(match old.value {
        0 => 0,
        value => (value.saturating_add(500_000_000) / 1_000_000_000).max(1),
    })
}

fn itimerval(setting: Setting) -> Itimerval {
    let time = |nanos: u64| Timeval::from_nanos(nanos.div_ceil(1000).saturating_mul(1000) as i64);
    Itimerval { it_interval: time(setting.interval), it_value: time(setting.value) }
}

fn getitimer(task: &CurrentTask, which: u32, value: UserPtr<Itimerval>) -> Result<()> {
    let timer = task.group.timers.interval(which as usize, &task.group)?;
    value.write(task, &itimerval(timer.get()))
}

fn setitimer(task: &CurrentTask, which: u32, new: UserPtr<Itimerval>, old: UserPtr<Itimerval>) -> Result<()> {
    let timer = task.group.timers.interval(which as usize, &task.group)?;
    let new = match new.non_null() {
        Some(pointer) => pointer.read(task)?,
        None => Itimerval::default(),
    };
    let nanos = |time: Timeval| u64::try_from(time.to_duration()?.as_nanos()).map_err(|_| Errno::EINVAL);
    let setting = Setting { value: nanos(new.it_value)?, interval: nanos(new.it_interval)? };
    task.update_cpu_time();
    old.write_if_some(task, &itimerval(timer.set(setting)))
}

fn timer_create(task: &CurrentTask, clock: i32, event: UserPtr<Sigevent>, id: UserPtr<i32>) -> Result<()> {
    let base = match clock {
        t::CLOCK_PROCESS_CPUTIME_ID | t::CLOCK_THREAD_CPUTIME_ID => Base::Cpu,
        c if c < 0 => {
            cpu_clock(task, c)?;
            Base::Cpu
        }
        t::CLOCK_REALTIME | t::CLOCK_MONOTONIC | t::CLOCK_BOOTTIME | t::CLOCK_TAI => Base::Real,
        // There is no clock that could wake the machine (alarmtimer_get_rtcdev()).
        t::CLOCK_REALTIME_ALARM | t::CLOCK_BOOTTIME_ALARM => return Err(Errno::EOPNOTSUPP),
        t::CLOCK_MONOTONIC_RAW | t::CLOCK_REALTIME_COARSE | t::CLOCK_MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::EINVAL),
    };
    let (notify, value) = match event.non_null() {
        None => (Notify::Process(Signal::SIGALRM), None),
        Some(pointer) => {
            let event = pointer.read(task)?;
            let signal = || Signal::from_i32(event.sigev_signo).ok_or(Errno::EINVAL);
            let notify = match event.sigev_notify {
                SIGEV_NONE => Notify::Nothing,
                SIGEV_SIGNAL | SIGEV_THREAD => Notify::Process(signal()?),
                SIGEV_THREAD_ID => {
                    let thread =
                        process::thread(task, event.sigev_notify_thread_id).map_err(|_| Errno::EINVAL)?;
                    if !std::sync::Arc::ptr_eq(&thread.group, &task.group) {
                        return Err(Errno::EINVAL);
                    }
                    Notify::Thread(signal()?, std::sync::Arc::downgrade(&thread))
                }
                _ => return Err(Errno::EINVAL),
            };
            (notify, Some(event.sigev_value))
        }
    };
    let new = task.group.timers.create(&task.group, clock, base, notify, value)?;
    id.write(task, &new).inspect_err(|_| {
        let _ = task.group.timers.delete(new, task.kernel(), &task.group);
    })
}

fn itimerspec(setting: Setting) -> Itimerspec {
    Itimerspec { it_interval: timespec(setting.interval), it_value: timespec(setting.value) }
}

fn setting(spec: &Itimerspec) -> Result<Setting> {
    let nanos =
        |time: Timespec| Ok::<u64, Errno>(u64::try_from(time.to_duration()?.as_nanos()).unwrap_or(u64::MAX));
    Ok(Setting { value: nanos(spec.it_value)?, interval: nanos(spec.it_interval)? })
}

fn timer_settime(
    task: &CurrentTask,
    id: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> Result<()> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let mut wanted = setting(&new.read(task)?)?;
    let timer = task.group.timers.get(id)?;
    task.update_cpu_time();
    if flags & t::TIMER_ABSTIME != 0 && wanted.value > 0 {
        // A time that has passed expires at once.
        wanted.value = wanted.value.saturating_sub(clock_nanos(task, timer.clock)?).max(1);
    }
    old.write_if_some(task, &itimerspec(timer.set(wanted)))
}

fn timer_gettime(task: &CurrentTask, id: i32, value: UserPtr<Itimerspec>) -> Result<()> {
    let timer = task.group.timers.get(id)?;
    value.write(task, &itimerspec(timer.get()))
}

fn timer_getoverrun(task: &CurrentTask, id: i32) -> Result<i32> {
    Ok(task.group.timers.get(id)?.overrun())
}

fn timer_delete(task: &CurrentTask, id: i32) -> Result<()> {
    task.group.timers.delete(id, task.kernel(), &task.group)
}

fn timerfd_create(task: &CurrentTask, clock: i32, flags: u32) -> Result<i32> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::O_CLOEXEC - OpenFlags::O_NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    match clock {
        t::CLOCK_REALTIME | t::CLOCK_MONOTONIC | t::CLOCK_BOOTTIME => {}
        t::CLOCK_REALTIME_ALARM | t::CLOCK_BOOTTIME_ALARM => {
            if !task.capable(abi::capability::CAP_WAKE_ALARM) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    let file = timerfd::open(task.kernel(), clock, flags & OpenFlags::O_NONBLOCK);
    task.install(file, flags.contains(OpenFlags::O_CLOEXEC))
}

fn timerfd_settime(
    task: &CurrentTask,
    fd: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> Result<()> {
    const TFD_TIMER_ABSTIME: u32 = 1;
    let spec = new.read(task)?;
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    let wanted = setting(&spec)?;
    let file = task.file(fd)?;
    let timer = file.ops::<TimerFd>().ok_or(Errno::EINVAL)?;
    let previous = timer.set(wanted.value, wanted.interval, flags & TFD_TIMER_ABSTIME != 0, flags)?;
    old.write_if_some(task, &previous)
}

fn timerfd_gettime(task: &CurrentTask, fd: i32, value: UserPtr<Itimerspec>) -> Result<()> {
    let file = task.file(fd)?;
    let timer = file.ops::<TimerFd>().ok_or(Errno::EINVAL)?;
    value.write(task, &timer.get()?)
}
