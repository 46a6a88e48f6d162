//! The files of a group.

use std::fmt::Write;
use std::sync::Arc;

use abi::signal::Signal;
use abi::{Errno, Result};

use super::Group;
use crate::fs::synthetic::{Content, Entry, Fixed, Read, ReadWrite, Request};
use crate::task::ThreadGroup;
use crate::task::group::CpuTime;
use crate::vfs::Io;

/// The controllers that there are.
const CONTROLLERS: [&str; 4] = ["cpuset", "cpu", "memory", "pids"];

/// The period of `cpu.max`, in microseconds.
const PERIOD: u64 = 100_000;

/// The files, in the order of their names.
pub(super) const FILES: &[Entry<Group>] = &[
    Entry::text("cgroup.controllers", &Read(controllers)),
    Entry::text("cgroup.events", &Read(events)),
    Entry::file("cgroup.freeze", 0o644, &Kept("cgroup.freeze", "0", only_zero)),
    Entry::file("cgroup.kill", 0o200, &ReadWrite(|_, _| Err(Errno::EINVAL), kill)),
    Entry::file("cgroup.max.depth", 0o644, &Kept("cgroup.max.depth", "max", number_or_max)),
    Entry::file("cgroup.max.descendants", 0o644, &Kept("cgroup.max.descendants", "max", number_or_max)),
    Entry::file("cgroup.procs", 0o644, &ReadWrite(processes, enter)),
    Entry::text("cgroup.stat", &Read(stat)),
    Entry::file("cgroup.subtree_control", 0o644, &ReadWrite(subtree_control, set_subtree_control)),
    Entry::file("cgroup.threads", 0o644, &ReadWrite(threads, |_, _, _| Err(Errno::EOPNOTSUPP))),
    Entry::file(
        "cgroup.type",
        0o644,
        &ReadWrite(|_, _| Ok(b"domain\n".to_vec()), |_, _, _| Err(Errno::EOPNOTSUPP)),
    ),
    Entry::file("cpu.idle", 0o644, &Kept("cpu.idle", "0", number)),
    Entry::file("cpu.max", 0o644, &CpuMax),
    Entry::file("cpu.max.burst", 0o644, &Kept("cpu.max.burst", "0", number)),
    Entry::text("cpu.stat", &Read(cpu_stat)),
    Entry::file("cpu.weight", 0o644, &Kept("cpu.weight", "100", weight)),
    Entry::file("cpu.weight.nice", 0o644, &Kept("cpu.weight.nice", "0", nice)),
    Entry::file("cpuset.cpus", 0o644, &Kept("cpuset.cpus", "", list)),
    Entry::text("cpuset.cpus.effective", &Read(cpus)),
    Entry::file("cpuset.mems", 0o644, &Kept("cpuset.mems", "", list)),
    Entry::text("cpuset.mems.effective", &Fixed("0\n")),
    Entry::text("memory.current", &Read(memory_current)),
    Entry::text("memory.events", &Fixed("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n")),
    Entry::file("memory.high", 0o644, &Kept("memory.high", "max", size_or_max)),
    Entry::file("memory.low", 0o644, &Kept("memory.low", "0", size_or_max)),
    Entry::file("memory.max", 0o644, &MemoryMax),
    Entry::file("memory.min", 0o644, &Kept("memory.min", "0", size_or_max)),
    Entry::file("memory.oom.group", 0o644, &Kept("memory.oom.group", "0", number)),
    Entry::text("memory.peak", &Read(memory_current)),
    Entry::text("memory.stat", &Read(memory_stat)),
    Entry::text("memory.swap.current", &Fixed("0\n")),
    Entry::text("memory.swap.events", &Fixed("high 0\nmax 0\nfail 0\n")),
    Entry::file("memory.swap.high", 0o644, &Kept("memory.swap.high", "max", size_or_max)),
    Entry::file("memory.swap.max", 0o644, &Kept("memory.swap.max", "0", size_or_max)),
    Entry::text("pids.current", &Read(pids_current)),
    Entry::text("pids.events", &Read(pids_events)),
    Entry::file("pids.max", 0o644, &PidsMax),
    Entry::text("pids.peak", &Read(pids_current)),
];

impl Group {
    fn members(&self) -> Vec<Arc<ThreadGroup>> {
        self.kernel.cgroups.all_processes(&self.kernel, &self.group)
    }

    fn is_root(&self) -> bool {
        self.group.parent().is_none()
    }
}

fn line(text: impl std::fmt::Display) -> Result<Vec<u8>> {
    Ok(format!("{text}\n").into_bytes())
}

/// A file that shows what was written to it, or a default. The value is checked, and brought into the form that is
/// shown, by a function.
struct Kept(&'static str, &'static str, fn(&str) -> Result<String>);

impl Content<Group> for Kept {
    fn read(&self, group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
        line(group.group.value(self.0).unwrap_or_else(|| self.1.to_string()))
    }

    fn write(&self, group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        group.group.set_value(self.0, self.2(request.text()?)?);
        Ok(())
    }
}

fn number(text: &str) -> Result<String> {
    Ok(text.parse::<u32>().map_err(|_| Errno::EINVAL)?.to_string())
}

fn number_or_max(text: &str) -> Result<String> {
    if text == "max" { Ok(text.to_string()) } else { number(text) }
}

/// Freezing would have to stop processes: groups can only be thawed.
fn only_zero(text: &str) -> Result<String> {
    if text == "0" { Ok(text.to_string()) } else { Err(Errno::EINVAL) }
}

fn weight(text: &str) -> Result<String> {
    match text.parse::<u32>() {
        Ok(weight @ 1..=10_000) => Ok(weight.to_string()),
        Ok(_) => Err(Errno::ERANGE),
        Err(_) => Err(Errno::EINVAL),
    }
}

fn nice(text: &str) -> Result<String> {
    match text.parse::<i32>() {
        Ok(nice @ -20..=19) => Ok(nice.to_string()),
        Ok(_) => Err(Errno::ERANGE),
        Err(_) => Err(Errno::EINVAL),
    }
}

/// A list of ranges of numbers.
fn list(text: &str) -> Result<String> {
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |digits: &str| digits.parse::<u32>().map_err(|_| Errno::EINVAL);
        if parse(first)? > parse(last)? {
            return Err(Errno::EINVAL);
        }
    }
    Ok(text.to_string())
}

/// Bytes, with a suffix K, M or G, rounded down to pages; or "max".
fn size_or_max(text: &str) -> Result<String> {
    if text == "max" {
        return Ok(text.to_string());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(Errno::EINVAL),
    };
    let bytes: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let bytes = bytes.checked_mul(1 << shift).ok_or(Errno::EINVAL)?;
    Ok((bytes & !(platform::PAGE_SIZE - 1)).to_string())
}

/// What a group can hand down is what the one above hands down to it.
fn available(group: &Group) -> Vec<&'static str> {
    match group.group.parent() {
        None => CONTROLLERS.to_vec(),
        Some(parent) => {
            let enabled = parent.value("cgroup.subtree_control").unwrap_or_default();
            CONTROLLERS.into_iter().filter(|c| enabled.split(' ').any(|e| e == *c)).collect()
        }
    }
}

fn controllers(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    line(available(group).join(" "))
}

fn subtree_control(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    line(group.group.value("cgroup.subtree_control").unwrap_or_default())
}

fn set_subtree_control(group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let old = group.group.value("cgroup.subtree_control").unwrap_or_default();
    let mut enabled: Vec<&str> = old.split(' ').filter(|e| !e.is_empty()).collect();
    let available = available(group);
    for word in request.text()?.split_ascii_whitespace() {
        let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(Errno::EINVAL),
        };
        let known = CONTROLLERS.into_iter().find(|c| *c == name).ok_or(Errno::EINVAL)?;
        if on && !available.contains(&known) {
            return Err(Errno::ENOENT);
        }
        enabled.retain(|e| *e != known);
        if on {
            enabled.push(known);
        }
    }
    // A group other than the root has processes or hands its controllers down, not both.
    let populated = !group.kernel.cgroups.processes(&group.kernel, &group.group).is_empty();
    if !group.is_root() && !enabled.is_empty() && populated {
        return Err(Errno::EBUSY);
    }
    let ordered: Vec<&str> = CONTROLLERS.into_iter().filter(|c| enabled.contains(c)).collect();
    group.group.set_value("cgroup.subtree_control", ordered.join(" "));
    Ok(())
}

fn events(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    line(format_args!("populated {}\nfrozen 0", u8::from(!group.members().is_empty())))
}

fn stat(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    line(format_args!("nr_descendants {}\nnr_dying_descendants 0", group.group.descendants()))
}

fn processes(group: &Group, io: &Io<'_>) -> Result<Vec<u8>> {
    let ns = io.task.map_or_else(|| group.kernel.pid_ns.clone(), |task| task.pid_ns());
    let mut text = String::new();
    for process in group.kernel.cgroups.processes(&group.kernel, &group.group) {
        let _ = writeln!(text, "{}", process.pid.number_in(&ns));
    }
    Ok(text.into_bytes())
}

fn threads(group: &Group, io: &Io<'_>) -> Result<Vec<u8>> {
    let ns = io.task.map_or_else(|| group.kernel.pid_ns.clone(), |task| task.pid_ns());
    let mut text = String::new();
    for process in group.kernel.cgroups.processes(&group.kernel, &group.group) {
        for thread in process.threads() {
            let _ = writeln!(text, "{}", thread.pid().number_in(&ns));
        }
    }
    Ok(text.into_bytes())
}

/// Moves the process with the number written; 0 is the writer. ESRCH.
fn enter(group: &Group, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let number: u32 = request.text()?.parse().map_err(|_| Errno::EINVAL)?;
    let writer = io.task.ok_or(Errno::EINVAL)?;
    let process = match number {
        0 => writer.group.clone(),
        number => {
            let pid = writer.pid_ns().find(number).ok_or(Errno::ESRCH)?;
            pid.task().map(|task| task.group.clone()).ok_or(Errno::ESRCH)?
        }
    };
    group.kernel.cgroups.enter(&group.group, &process)
}

fn kill(group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    if request.text()? != "1" {
        return Err(Errno::ERANGE);
    }
    // Nobody joins it by being made meanwhile.
    let members = group.members();
    let kernel = members.first().map(|process| process.kernel.clone());
    let _tasklist = kernel.as_ref().map(|kernel| kernel.tasklist.lock());
    for process in group.members() {
        process.send_kernel_signal(Signal::SIGKILL);
    }
    Ok(())
}

/// Of the root, what the container may use; of others, what was written.
struct CpuMax;

impl Content<Group> for CpuMax {
    fn read(&self, group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
        let of_container = || match group.is_root() {
            true => format!("{} {PERIOD}", u64::from(group.container.cpus()) * PERIOD),
            false => format!("max {PERIOD}"),
        };
        line(group.group.value("cpu.max").unwrap_or_else(of_container))
    }

    fn write(&self, group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        let mut words = request.text()?.split_ascii_whitespace();
        let quota = number_or_max(words.next().ok_or(Errno::EINVAL)?)?;
        let period = match words.next() {
            None => PERIOD,
            Some(period) => period.parse().map_err(|_| Errno::EINVAL)?,
        };
        let too_small = quota.parse::<u64>().is_ok_and(|quota| quota < 1000);
        if words.next().is_some() || !(1000..=1_000_000).contains(&period) || too_small {
            return Err(Errno::EINVAL);
        }
        group.group.set_value("cpu.max", format!("{quota} {period}"));
        Ok(())
    }
}

struct MemoryMax;

impl Content<Group> for MemoryMax {
    fn read(&self, group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
        let of_container =
            || if group.is_root() { group.container.memory().to_string() } else { "max".to_string() };
        line(group.group.value("memory.max").unwrap_or_else(of_container))
    }

    fn write(&self, group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        group.group.set_value("memory.max", size_or_max(request.text()?)?);
        Ok(())
    }
}

struct PidsMax;

impl Content<Group> for PidsMax {
    fn read(&self, group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
        let max = group.kernel.counts.of_container(&group.container.id).max;
        let of_container = || match (group.is_root(), max) {
            (true, Some(max)) => max.to_string(),
            (true, None) => group.kernel.threads_max.to_string(),
            (false, _) => "max".to_string(),
        };
        line(group.group.value("pids.max").unwrap_or_else(of_container))
    }

    fn write(&self, group: &Group, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        group.group.set_value("pids.max", number_or_max(request.text()?)?);
        Ok(())
    }
}

fn cpu_stat(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    let ended = if group.is_root() { group.container.ended_time() } else { CpuTime::default() };
    let time = match group.is_root() {
        // What ended in a group that is no more counts for the root alone.
        true => group.members().iter().flat_map(|p| p.threads()).fold(ended, |sum, t| sum.plus(t.cpu_time())),
        false => group.members().iter().fold(ended, |sum, p| sum.plus(p.cpu_time())),
    };
    line(format_args!(
        "usage_usec {}\nuser_usec {}\nsystem_usec {}\nnice_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n\
         nr_bursts 0\nburst_usec 0",
        time.total() / 1000,
        time.user / 1000,
        time.system / 1000,
    ))
}

fn cpus(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    match group.container.cpus() {
        1 => line("0"),
        cpus => line(format_args!("0-{}", cpus - 1)),
    }
}

/// Private memory and memory in files, in bytes.
fn memory(group: &Group) -> (u64, u64) {
    let resident = |process: &Arc<ThreadGroup>| process.any_task()?.memory().map(|mm| mm.resident_set());
    let all = group.members();
    let sets = all.iter().filter_map(resident);
    sets.fold((0, 0), |(private, shared), set| (private + set.anonymous, shared + set.shared))
}

fn memory_current(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    let (private, shared) = memory(group);
    line(private + shared)
}

fn memory_stat(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    let (private, shared) = memory(group);
    let lines = [
        ("anon", private),
        ("file", shared),
        ("kernel", 0),
        ("kernel_stack", 0),
        ("pagetables", 0),
        ("sock", 0),
        ("shmem", shared),
        ("file_mapped", shared),
        ("file_dirty", 0),
        ("file_writeback", 0),
        ("swapcached", 0),
        ("inactive_anon", 0),
        ("active_anon", private),
        ("inactive_file", 0),
        ("active_file", 0),
        ("unevictable", 0),
        ("slab_reclaimable", 0),
        ("slab_unreclaimable", 0),
        ("slab", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name} {value}\n")).collect::<String>().into_bytes())
}

/// How often a limit was in the way; the only ones that hold are those of containers.
fn pids_events(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    let refused = match group.is_root() {
        true => group.kernel.counts.of_container(&group.container.id).refused,
        false => 0,
    };
    line(format_args!("max {refused}"))
}

fn pids_current(group: &Group, _io: &Io<'_>) -> Result<Vec<u8>> {
    line(group.members().iter().map(|process| process.threads().len()).sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert_eq!(size_or_max("10M"), Ok((10 << 20).to_string()));
        assert_eq!(size_or_max("5000"), Ok("4096".to_string()));
        assert_eq!(size_or_max("max"), Ok("max".to_string()));
        for bad in ["", "x", "-1", "1X", "99999999999999G"] {
            assert_eq!(size_or_max(bad), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(list("0-3,5"), Ok("0-3,5".to_string()));
        assert_eq!(list("3-1"), Err(Errno::EINVAL));
        assert_eq!(weight("0"), Err(Errno::ERANGE));
        assert_eq!(number_or_max("12"), Ok("12".to_string()));
    }

    #[test]
    fn files_are_in_order() {
        assert!(FILES.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
