//! `stat`, `statm` and `status` (fs/proc/array.c, fs/proc/task_mmu.c).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Result;
use abi::resource::{RLIMIT_RSS, RLIMIT_SIGPENDING};
use abi::sched::{SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RR};
use abi::signal::SignalSet;
use platform::PAGE_SIZE;

use super::subject::{Found, Subject, Who, may, user_ns_of};
use crate::fs::synthetic::Content;
use crate::task::wait::NANOS_PER_TICK;
use crate::task::{AccessMode, CurrentTask, ThreadGroup};
use crate::vfs::Io;

// Flags of a task (PF_*), as far as they show.
const PF_FORKNOEXEC: u32 = 0x40;
const PF_SUPERPRIV: u32 = 0x100;
const PF_SIGNALED: u32 = 0x400;
const PF_EXITING: u32 = 0x4;
const PF_RANDOMIZE: u32 = 0x40_0000;

/// `stat`.
pub(super) struct Stat;

impl Content<Subject> for Stat {
    fn opened(&self, subject: &Subject, task: &CurrentTask) {
        subject.refresh_cpu_time(task);
    }

    fn read(&self, subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
        stat(subject, io)
    }
}

/// The `prio` and `nice` columns: real-time tasks count down from -2.
fn priority(found: &Found) -> (i32, i32) {
    let scheduling = found.scheduling();
    match scheduling.policy {
        SCHED_FIFO | SCHED_RR => (-1 - scheduling.priority as i32, scheduling.nice),
        SCHED_DEADLINE => (-101, 0),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE => (20 + scheduling.nice, scheduling.nice),
        _ => (20, 0),
    }
}

/// The signals that are ignored and caught; nothing once the process is dead.
fn actions(group: &ThreadGroup) -> (SignalSet, SignalSet) {
    if group.is_dead() {
        return (SignalSet::EMPTY, SignalSet::EMPTY);
    }
    group.actions.read().lock().sets()
}

fn exit_status(group: &ThreadGroup) -> u32 {
    let zombie = group.family.lock().zombie;
    zombie.or_else(|| group.signals.lock().exit.map(|e| e.status)).unwrap_or(0)
}

/// The device number of the controlling terminal, and the number of its foreground group.
fn terminal(subject: &Subject, group: &ThreadGroup) -> (u64, i64) {
    match group.terminal() {
        Some(terminal) => {
            let foreground = terminal.foreground();
            (terminal.rdev(), foreground.map_or(0, |group| subject.number(&group)).into())
        }
        None => (0, -1),
    }
}

fn stat(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let found = subject.find()?;
    let group = &found.group;
    let task = match &found.who {
        Who::Alive(task) => Some(task.clone()),
        Who::Dead(_) => None,
    };
    let permitted = task.as_ref().is_none_or(|task| may(io, task, AccessMode::Read));
    let memory = task.as_ref().and_then(|task| task.memory());
    let usage = memory.as_ref().map(|mm| mm.usage()).unwrap_or_default();
    let resident = memory.as_ref().map_or(0, |mm| mm.resident_bytes());
    let layout = memory.as_ref().map(|mm| mm.layout()).unwrap_or_default();
    let secret = |value: u64| if permitted { value } else { 0 };
    let shown = |value: u64| if memory.is_some() && permitted { value } else { u64::from(memory.is_some()) };
    let time = if subject.thread { found.cpu_time() } else { group.cpu_time() };
    let children = if subject.thread { Default::default() } else { group.children_usage.lock().time };
    let ticks = |nanos: u64| nanos / NANOS_PER_TICK;
    let (priority, nice) = priority(&found);
    let process_group = group.process_group();
    let (tty, foreground) = terminal(subject, group);
    let parent = group.parent().map_or(0, |parent| subject.number(&parent.pid));
    let mut flags = 0;
    if group.personality.load(Ordering::Relaxed) & abi::personality::ADDR_NO_RANDOMIZE == 0 {
        flags |= PF_RANDOMIZE;
    }
    {
        let family = group.family.lock();
        if !family.did_exec {
            flags |= PF_FORKNOEXEC;
        }
        if task.is_none() {
            flags |= PF_EXITING;
        }
        if family.zombie.is_some_and(|status| status & 0x7f != 0) {
            flags |= PF_SIGNALED;
        }
    }
    if !found.credentials().effective.is_empty() {
        flags |= PF_SUPERPRIV;
    }
    let (ignored, caught) = actions(group);
    let pending = task.as_ref().map_or(SignalSet::EMPTY, |task| task.signals.lock().pending.set());
    let state = found.state();
    let exit_signal = {
        let leader = Arc::ptr_eq(&found.pid(), &group.pid);
        if leader { group.family.lock().exit_signal.map_or(0, |s| s.number() as i32) } else { -1 }
    };
    // In terms of CLOCK_BOOTTIME.
    let clock = &subject.kernel().clock;
    let start = found.start_time() + clock.boottime().saturating_sub(clock.monotonic());
    let scheduling = found.scheduling();
    let real_time = matches!(scheduling.policy, SCHED_FIFO | SCHED_RR);
    let signals = |set: SignalSet| set.0 & 0x7fff_ffff;
    let mut text = format!("{} (", subject.number(&found.pid())).into_bytes();
    text.extend_from_slice(&found.comm());
    let mut rest = String::new();
    let _ = write!(
        rest,
        ") {state} {parent} {} {} {tty} {foreground} {flags} 0 0 0 0",
        subject.number(&process_group.pid),
        subject.number(&process_group.session.pid),
    );
    let _ = write!(
        rest,
        " {} {} {} {} {priority} {nice} {} 0 {} {} {} {}",
        ticks(time.user),
        ticks(time.system),
        ticks(children.user),
        ticks(children.system),
        group.tasks.lock().len().max(usize::from(group.is_dead())),
        ticks(start),
        usage.total,
        resident / PAGE_SIZE,
        group.limits.current(RLIMIT_RSS),
    );
    let _ = write!(
        rest,
        " {} {} {} 0 0 {} {} {} {} {} 0 0 {exit_signal} 0 {} {} 0 0 0",
        shown(layout.start_code),
        shown(layout.end_code),
        secret(layout.start_stack),
        signals(pending),
        signals(found.blocked()),
        signals(ignored),
        signals(caught),
        u8::from(permitted && state != 'R'),
        if real_time { scheduling.priority } else { 0 },
        scheduling.policy,
    );
    let _ = write!(
        rest,
        " {} {} {} {} {} {} {} {}",
        secret(layout.start_data),
        secret(layout.end_data),
        secret(layout.start_brk),
        secret(layout.arg_start),
        secret(layout.arg_end),
        secret(layout.env_start),
        secret(layout.env_end),
        if permitted { exit_status(group) } else { 0 },
    );
    rest.push('\n');
    text.extend_from_slice(rest.as_bytes());
    Ok(text)
}

pub(super) fn statm(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let Some(mm) = subject.memory()? else { return Ok(b"0 0 0 0 0 0 0\n".to_vec()) };
    let (usage, resident, layout) = (mm.usage(), mm.resident_set(), mm.layout());
    let pages = |bytes: u64| bytes / PAGE_SIZE;
    let program =
        layout.end_code.next_multiple_of(PAGE_SIZE).saturating_sub(layout.start_code & !(PAGE_SIZE - 1));
    let text = format!(
        "{} {} {} {} 0 {} 0\n",
        pages(usage.total),
        pages(resident.total()),
        pages(resident.file + resident.shared),
        pages(program),
        pages(usage.data + usage.stack),
    );
    Ok(text.into_bytes())
}

fn state_name(state: char) -> &'static str {
    match state {
        'R' => "R (running)",
        'S' => "S (sleeping)",
        'D' => "D (disk sleep)",
        'T' => "T (stopped)",
        't' => "t (tracing stop)",
        'X' => "X (dead)",
        _ => "Z (zombie)",
    }
}

/// The name, with line feeds and backslashes escaped.
fn escaped(comm: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(comm.len());
    for &byte in comm {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\\' => text.extend_from_slice(b"\\\\"),
            _ => text.push(byte),
        }
    }
    text
}

/// Bits as groups of 32, the highest first, as `%*pb` prints `count` of them.
pub(in crate::fs) fn bitmap(bits: &[u64], count: u32) -> String {
    let word = |i: u32| bits.get(i as usize / 2).map_or(0, |w| (w >> (i % 2 * 32)) as u32);
    let words = count.div_ceil(32).max(1);
    let mut text = String::new();
    for i in (0..words).rev() {
        let width =
            if i == words - 1 && !count.is_multiple_of(32) { (count % 32).div_ceil(4) as usize } else { 8 };
        let _ = write!(text, "{:0width$x}", word(i));
        if i > 0 {
            text.push(',');
        }
    }
    text
}

/// Bits as a list of ranges: `0-3,5`.
pub(super) fn bit_list(bits: &[u64]) -> String {
    let set = |i: usize| bits.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 == 1);
    let mut parts = Vec::new();
    let mut i = 0;
    while i < bits.len() * 64 {
        if set(i) {
            let start = i;
            while set(i + 1) {
                i += 1;
            }
            parts.push(if start == i { start.to_string() } else { format!("{start}-{i}") });
        }
        i += 1;
    }
    parts.join(",")
}

pub(super) fn status(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let found = subject.find()?;
    let group = &found.group;
    let kernel = subject.kernel();
    let ns = user_ns_of(io, kernel);
    let creds = found.credentials();
    let pid = found.pid();
    let task = match &found.who {
        Who::Alive(task) => Some(task.clone()),
        Who::Dead(_) => None,
    };
    let mut text = b"Name:\t".to_vec();
    text.extend(escaped(&found.comm()));
    let mut out = String::new();
    if let Some(task) = &task {
        let _ = write!(out, "\nUmask:\t{:04o}", task.fs().umask());
    }
    let parent = group.parent().map_or(0, |parent| subject.number(&parent.pid));
    let _ = writeln!(out, "\nState:\t{}", state_name(found.state()));
    let _ = writeln!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}", subject.number(&group.pid), subject.number(&pid));
    let tracer = task.as_ref().and_then(|task| task.tracer());
    let tracer = tracer.map_or(0, |tracer| subject.number(&tracer.pid()));
    let _ = writeln!(out, "PPid:\t{parent}\nTracerPid:\t{tracer}");
    let uids = [creds.uid, creds.euid, creds.suid, creds.fsuid].map(|id| ns.uid(id).to_string());
    let gids = [creds.gid, creds.egid, creds.sgid, creds.fsgid].map(|id| ns.gid(id).to_string());
    let _ = writeln!(out, "Uid:\t{}\nGid:\t{}", uids.join("\t"), gids.join("\t"));
    let slots = task.as_ref().and_then(|task| task.files()).map_or(0, |files| files.capacity());
    let _ = write!(out, "FDSize:\t{slots}\nGroups:\t");
    for &id in creds.groups.iter() {
        let _ = write!(out, "{} ", ns.gid(id));
    }
    if creds.groups.is_empty() {
        out.push(' ');
    }
    let process_group = group.process_group();
    let inner = |pid: &crate::task::Pid| -> String {
        // From the mount's own namespace inwards.
        let own = &subject.instance.pid_ns;
        let mut numbers: Vec<_> =
            pid.numbers().filter(|(ns, _)| ns.level >= own.level).map(|(_, n)| n).collect();
        numbers.reverse();
        numbers.iter().map(|n| format!("\t{n}")).collect()
    };
    let _ = writeln!(out, "\nNStgid:{}\nNSpid:{}", inner(&group.pid), inner(&pid));
    let _ =
        writeln!(out, "NSpgid:{}\nNSsid:{}", inner(&process_group.pid), inner(&process_group.session.pid));
    let _ = writeln!(out, "Kthread:\t0");
    if let Some(mm) = task.as_ref().and_then(|task| task.memory()) {
        let (usage, resident, layout) = (mm.usage(), mm.resident_set(), mm.layout());
        let program =
            layout.end_code.next_multiple_of(PAGE_SIZE).saturating_sub(layout.start_code & !(PAGE_SIZE - 1));
        let lines = [
            ("VmPeak", usage.peak),
            ("VmSize", usage.total),
            ("VmLck", usage.locked),
            ("VmPin", 0),
            ("VmHWM", mm.max_rss_kib() * 1024),
            ("VmRSS", resident.total()),
            ("RssAnon", resident.anonymous),
            ("RssFile", resident.file),
            ("RssShmem", resident.shared),
            ("VmData", usage.data),
            ("VmStk", usage.stack),
            ("VmExe", program.min(usage.exec)),
            ("VmLib", usage.exec.saturating_sub(program)),
            ("VmPTE", resident.total() / 512 + 32 * 1024),
            ("VmSwap", 0),
            ("HugetlbPages", 0),
        ];
        for (name, bytes) in lines {
            let _ = writeln!(out, "{name}:\t{:>8} kB", bytes / 1024);
        }
        let _ = writeln!(out, "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff");
    }
    let threads = group.tasks.lock().len().max(usize::from(group.is_dead()));
    let (ignored, caught) = actions(group);
    let (pending, queued) = task.as_ref().map_or((SignalSet::EMPTY, 0), |task| {
        let own = task.signals.lock();
        (own.pending.set(), own.pending.len())
    });
    let (shared, shared_queued) = {
        let signals = group.signals.lock();
        (signals.pending.set(), signals.pending.len())
    };
    let _ = writeln!(
        out,
        "Threads:\t{threads}\nSigQ:\t{}/{}",
        queued + shared_queued,
        group.limits.current(RLIMIT_SIGPENDING)
    );
    let sets = [
        ("SigPnd", pending),
        ("ShdPnd", shared),
        ("SigBlk", found.blocked()),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ];
    for (name, set) in sets {
        let _ = writeln!(out, "{name}:\t{:016x}", set.0);
    }
    let caps = [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ];
    for (name, set) in caps {
        let _ = writeln!(out, "{name}:\t{:016x}", set.bits());
    }
    let no_new_privs = match &found.who {
        Who::Alive(task) => task.no_new_privs.load(Ordering::Relaxed),
        Who::Dead(remains) => remains.no_new_privs,
    };
    let seccomp = task.as_deref().map(|task| task.seccomp.mode()).unwrap_or_default();
    let (mode, filters) = (seccomp.number(), seccomp.filters());
    let _ = writeln!(
        out,
        "NoNewPrivs:\t{}\nSeccomp:\t{mode}\nSeccomp_filters:\t{filters}",
        u8::from(no_new_privs)
    );
    let _ = writeln!(out, "Speculation_Store_Bypass:\tthread vulnerable");
    let _ = writeln!(out, "SpeculationIndirectBranch:\tconditional enabled");
    let affinity = found.affinity();
    let _ = writeln!(out, "Cpus_allowed:\t{}", bitmap(&affinity, found.group.container.cpus()));
    let _ = writeln!(out, "Cpus_allowed_list:\t{}", bit_list(&affinity));
    let _ = writeln!(out, "Mems_allowed:\t{}\nMems_allowed_list:\t0", bitmap(&[1], 1024));
    let _ = writeln!(out, "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t0", found.waits());
    text.extend_from_slice(out.as_bytes());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_shown_as_linux_does() {
        assert_eq!(bitmap(&[3], 2), "3");
        assert_eq!(bitmap(&[0xff], 12), "0ff");
        assert_eq!(bitmap(&[0x1_0000_0002], 64), "00000001,00000002");
        assert_eq!(bitmap(&[1, 1], 65), "1,00000000,00000001");
        assert_eq!(bit_list(&[0b1011]), "0-1,3");
        assert_eq!(bit_list(&[u64::MAX, 1]), "0-64");
        assert_eq!(bit_list(&[0]), "");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped(b"a\\b\nc d"), b"a\\\\b\\nc d");
    }
}
