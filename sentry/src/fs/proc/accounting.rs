//! Limits, usage, scheduling and what the out-of-memory killer goes by (fs/proc/base.c, kernel/sched/debug.c).

use std::fmt::Write;
use std::sync::atomic::Ordering;

use abi::capability::{CAP_SYS_NICE, CAP_SYS_RESOURCE};
use abi::resource as r;
use abi::sched::{SCHED_FIFO, SCHED_RR};
use abi::{Errno, Result};

use super::subject::{Subject, Who};
use crate::fs::synthetic::{Content, Request};
use crate::task::CurrentTask;
use crate::vfs::Io;

/// Name and unit of each limit, in the order of the file.
const LIMITS: [(u32, &str, &str); 16] = [
    (r::RLIMIT_CPU, "Max cpu time", "seconds"),
    (r::RLIMIT_FSIZE, "Max file size", "bytes"),
    (r::RLIMIT_DATA, "Max data size", "bytes"),
    (r::RLIMIT_STACK, "Max stack size", "bytes"),
    (r::RLIMIT_CORE, "Max core file size", "bytes"),
    (r::RLIMIT_RSS, "Max resident set", "bytes"),
    (r::RLIMIT_NPROC, "Max processes", "processes"),
    (r::RLIMIT_NOFILE, "Max open files", "files"),
    (r::RLIMIT_MEMLOCK, "Max locked memory", "bytes"),
    (r::RLIMIT_AS, "Max address space", "bytes"),
    (r::RLIMIT_LOCKS, "Max file locks", "locks"),
    (r::RLIMIT_SIGPENDING, "Max pending signals", "signals"),
    (r::RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"),
    (r::RLIMIT_NICE, "Max nice priority", ""),
    (r::RLIMIT_RTPRIO, "Max realtime priority", ""),
    (r::RLIMIT_RTTIME, "Max realtime timeout", "us"),
];

pub(super) fn limits(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let group = subject.find()?.group;
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let value = |v: u64| if v == r::RLIM_INFINITY { "unlimited".to_string() } else { v.to_string() };
    for (which, name, unit) in LIMITS {
        let limit = group.limits.get(which);
        let _ = write!(text, "{name:<25} {:<20} {:<20} ", value(limit.rlim_cur), value(limit.rlim_max));
        let _ = if unit.is_empty() { writeln!(text) } else { writeln!(text, "{unit:<10}") };
    }
    Ok(text.into_bytes())
}

pub(super) fn io(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let group = subject.find()?.group;
    let read = group.io_bytes.0.load(Ordering::Relaxed);
    let written = group.io_bytes.1.load(Ordering::Relaxed);
    let text = format!(
        "rchar: {read}\nwchar: {written}\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\n\
         cancelled_write_bytes: 0\n"
    );
    Ok(text.into_bytes())
}

/// `sched`.
pub(super) struct Sched;

impl Content<Subject> for Sched {
    fn opened(&self, subject: &Subject, task: &CurrentTask) {
        subject.refresh_cpu_time(task);
    }

    fn read(&self, subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
        let found = subject.find()?;
        let scheduling = found.scheduling();
        let mut text = String::from_utf8_lossy(&found.comm()).into_owned();
        let threads = found.group.tasks.lock().len();
        let _ = writeln!(text, " ({}, #threads: {threads})", subject.number(&found.pid()));
        let _ = writeln!(text, "{:-<67}", "");
        let milliseconds = |nanos: u64| format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
        let priority = match scheduling.policy {
            SCHED_FIFO | SCHED_RR => 99 - scheduling.priority as i32,
            _ => 120 + scheduling.nice,
        };
        let lines = [
            ("se.exec_start", milliseconds(subject.kernel().clock.monotonic())),
            ("se.vruntime", milliseconds(found.cpu_time().total())),
            ("se.sum_exec_runtime", milliseconds(found.cpu_time().total())),
            ("se.nr_migrations", "0".to_string()),
            ("nr_switches", found.waits().to_string()),
            ("nr_voluntary_switches", found.waits().to_string()),
            ("nr_involuntary_switches", "0".to_string()),
            ("policy", scheduling.policy.to_string()),
            ("prio", priority.to_string()),
        ];
        for (name, value) in lines {
            let _ = writeln!(text, "{name:<45}:{value:>21}");
        }
        Ok(text.into_bytes())
    }

    fn write(&self, subject: &Subject, _io: &Io<'_>, _request: &Request<'_>) -> Result<()> {
        // Clears the counters, of which none is worth clearing.
        subject.find().map(drop)
    }
}

/// `schedstat`.
pub(super) struct SchedStat;

impl Content<Subject> for SchedStat {
    fn opened(&self, subject: &Subject, task: &CurrentTask) {
        subject.refresh_cpu_time(task);
    }

    fn read(&self, subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
        let found = subject.find()?;
        Ok(format!("{} 0 {}\n", found.cpu_time().total(), found.waits()).into_bytes())
    }
}

/// The points of a process: the part of all memory that it has, in thousandths, moved by its adjustment.
pub(super) fn oom_score(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let found = subject.find()?;
    let adjustment = i64::from(found.group.oom_score_adj.load(Ordering::Relaxed));
    let Some(mm) = subject.memory()?.filter(|_| adjustment != -1000) else { return Ok(b"0\n".to_vec()) };
    let total = (found.group.container.memory() / 1000).max(1);
    let points = (mm.resident_bytes() / total) as i64 + adjustment;
    // proc_oom_score(): 0 to 2000 is scaled to 0 to 1333 around 666.
    let score = ((1000 + points) * 2 / 3).clamp(0, 1333);
    Ok(format!("{score}\n").into_bytes())
}

pub(super) fn oom_score_adj(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let group = subject.find()?.group;
    Ok(format!("{}\n", group.oom_score_adj.load(Ordering::Relaxed)).into_bytes())
}

fn adjust(subject: &Subject, io: &Io<'_>, new: i32) -> Result<()> {
    let group = subject.find()?.group;
    let old = group.oom_score_adj.load(Ordering::Relaxed);
    let user_ns = &subject.kernel().user_ns;
    let may =
        |io: &Io<'_>| io.task.is_none_or(|task| task.credentials().capable_in(user_ns, CAP_SYS_RESOURCE));
    if new < old && !may(io) {
        return Err(Errno::EACCES);
    }
    group.oom_score_adj.store(new, Ordering::Relaxed);
    Ok(())
}

pub(super) fn set_oom_score_adj(subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let new = request.number()?;
    if !(-1000..=1000).contains(&new) {
        return Err(Errno::EINVAL);
    }
    adjust(subject, io, new as i32)
}

/// `oom_adj`, the older scale from -17 to 15.
pub(super) fn oom_adj(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let adjustment = subject.find()?.group.oom_score_adj.load(Ordering::Relaxed);
    let old = if adjustment == 1000 { 15 } else { (adjustment * 17 / 1000).min(15) };
    Ok(format!("{old}\n").into_bytes())
}

pub(super) fn set_oom_adj(subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let old = request.number()?;
    if !(-17..=15).contains(&old) {
        return Err(Errno::EINVAL);
    }
    adjust(subject, io, if old == 15 { 1000 } else { (old * 1000 / 17) as i32 })
}

pub(super) fn timer_slack(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    check_nice(subject, io)?;
    let task = subject.living()?;
    Ok(format!("{}\n", task.timer_slack.load(Ordering::Relaxed)).into_bytes())
}

pub(super) fn set_timer_slack(subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let new = u64::try_from(request.number()?).map_err(|_| Errno::EINVAL)?;
    check_nice(subject, io)?;
    let slack = if new == 0 { 50_000 } else { new };
    subject.living()?.timer_slack.store(slack, Ordering::Relaxed);
    Ok(())
}

/// Of another process: EPERM without CAP_SYS_NICE.
fn check_nice(subject: &Subject, io: &Io<'_>) -> Result<()> {
    let target = subject.living()?;
    let Some(reader) = io.task else { return Ok(()) };
    let own = std::ptr::eq(reader, std::sync::Arc::as_ptr(&target));
    if own || reader.credentials().capable_in(&target.credentials().user_ns, CAP_SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// What the thread does in the kernel: number and arguments of its call, or "running".
pub(super) fn syscall(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let found = subject.find()?;
    let Who::Alive(task) = &found.who else { return Ok(b"-1 0x0 0x0\n".to_vec()) };
    Ok(match (task.state(), task.syscall.load(Ordering::Relaxed)) {
        ('R', _) => b"running\n".to_vec(),
        (_, -1) => b"-1 0x0 0x0\n".to_vec(),
        // Its registers are its own: a look at them would mean stopping it.
        (_, number) => format!("{number} 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n").into_bytes(),
    })
}

pub(super) fn personality(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let group = subject.find()?.group;
    Ok(format!("{:08x}\n", group.personality.load(Ordering::Relaxed)).into_bytes())
}
