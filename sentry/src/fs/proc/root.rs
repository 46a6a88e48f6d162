//! The root directory.

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::options::HidePid;
use super::subject::Subject;
use super::{System, locks, process, sysctl, system, sysvipc};
use crate::fs::synthetic::{Children, Content, Entry, Fixed, Kind, Node, Read, Receive, child_ino};
use crate::task::{Pid, Task, ThreadGroup};
use crate::vfs::{Inode, Io};

pub(super) static ROOT: Entry<System> = Entry {
    name: "",
    mode: 0o555,
    kind: Kind::Directory(
        &[
            Entry::dir("bus", &[]),
            Entry::text("buddyinfo", &Fixed("")),
            Entry::text("cgroups", &Read(cgroups)),
            Entry::text("cmdline", &Fixed("BOOT_IMAGE=/vmlinuz quiet\n")),
            Entry::text("consoles", &Fixed("")),
            Entry::text("cpuinfo", &Read(system::cpuinfo)),
            Entry::text("crypto", &Fixed("")),
            Entry::text("devices", &Read(system::devices)),
            Entry::text("diskstats", &Fixed("")),
            Entry::dir("driver", &[]),
            Entry::text("execdomains", &Fixed("0-0\tLinux           \t[kernel]\n")),
            Entry::text("filesystems", &Read(system::filesystems)),
            Entry::dir("fs", &[]),
            Entry::text("interrupts", &Read(system::interrupts)),
            Entry::text("iomem", &Fixed("")),
            Entry::text("ioports", &Fixed("")),
            Entry::dir("irq", &[]),
            Entry::text("kallsyms", &Fixed("")),
            Entry::text("key-users", &Fixed("")),
            Entry::text("keys", &Fixed("")),
            Entry::file("kmsg", 0o400, &NoLog),
            Entry::text("loadavg", &Read(system::loadavg)),
            Entry::text("locks", &Read(locks::all)),
            Entry::text("meminfo", &Read(system::meminfo)),
            Entry::text("misc", &Fixed("")),
            Entry::text("modules", &Fixed("")),
            Entry::link("mounts", |_, _| Ok(b"self/mounts".to_vec())),
            Entry::link("net", |_, _| Ok(b"self/net".to_vec())),
            Entry::text("partitions", &Fixed("major minor  #blocks  name\n\n")),
            Entry::link("self", own_process),
            Entry::text("softirqs", &Read(system::softirqs)),
            Entry::text("stat", &system::Stat),
            Entry::text("swaps", &Fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
            Entry::tree("sys", 0o555, |system, ino| sysctl::root(&system.0, ino)),
            Entry::dir(
                "sysvipc",
                &[
                    Entry::text("msg", &Read(sysvipc::msg)),
                    Entry::text("sem", &Read(sysvipc::sem)),
                    Entry::text("shm", &Read(sysvipc::shm)),
                ],
            ),
            Entry::link("thread-self", own_thread),
            Entry::dir("tty", &[Entry::dir("driver", &[]), Entry::dir("ldisc", &[])]),
            Entry::text("uptime", &Read(system::uptime)),
            Entry::text("version", &Read(system::version)),
            Entry::text("vmstat", &Read(system::vmstat)),
            Entry::text("zoneinfo", &Fixed("")),
        ],
        Some(Children { find, list }),
    ),
};

/// The root with `subset=pid`.
pub(super) static ONLY_PIDS: Entry<System> = Entry {
    name: "",
    mode: 0o555,
    kind: Kind::Directory(
        &[Entry::link("self", own_process), Entry::link("thread-self", own_thread)],
        Some(Children { find, list }),
    ),
};

/// `kmsg`: the log is the host's.
struct NoLog;

impl Content<System> for NoLog {
    fn open(&self, _system: &System, _io: &Io<'_>, _flags: OpenFlags) -> Result<()> {
        Err(Errno::EPERM)
    }
}

/// The controllers of version 1 hierarchies, of which there are none.
fn cgroups(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
    let lines = ["cpuset", "cpu", "memory", "pids"].map(|name| format!("{name}\t0\t1\t1\n"));
    Ok([head.to_string(), lines.concat()].concat().into_bytes())
}

/// The caller. ENOENT for the kernel itself.
fn caller<'a>(io: &Io<'a>) -> Result<&'a Task> {
    io.task.ok_or(Errno::ENOENT)
}

fn number_of(system: &System, pid: &Arc<Pid>) -> Result<u32> {
    match pid.number_in(&system.0.pid_ns) {
        0 => Err(Errno::ENOENT),
        number => Ok(number),
    }
}

fn own_process(system: &System, io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(number_of(system, &caller(io)?.group.pid)?.to_string().into_bytes())
}

fn own_thread(system: &System, io: &Io<'_>) -> Result<Vec<u8>> {
    let task = caller(io)?;
    let (process, thread) = (number_of(system, &task.group.pid)?, number_of(system, &task.pid())?);
    Ok(format!("{process}/task/{thread}").into_bytes())
}

/// A number as the names of directories have it: no sign, no leading zero.
pub(super) fn parse_number(name: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(name).ok()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || (digits.starts_with('0') && digits.len() > 1) {
        return None;
    }
    digits.parse().ok()
}

fn find(system: &System, ino: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    let number = parse_number(name).ok_or(Errno::ENOENT)?;
    let pid = system.0.pid_ns.find(number).ok_or(Errno::ENOENT)?;
    let (subject, start) = match (pid.group(), pid.task()) {
        (Some(group), _) => (Subject::process(&system.0, &group, false), group.start_time),
        // Threads are not listed, but can be found.
        (None, Some(task)) => (Subject::task(&system.0, &task, false), task.start_time),
        (None, None) => return Err(Errno::ENOENT),
    };
    subject.find().map_err(|_| Errno::ENOENT)?;
    Ok(Node::new(subject, &process::PROCESS, child_ino(ino, name, start)))
}

fn list(system: &System, ino: u64, io: &Io<'_>, from: u64, receive: &mut Receive<'_>) -> Result<()> {
    let creds = io.task.map(Task::credentials);
    let visible = |group: &Arc<ThreadGroup>| match (&creds, group.any_task()) {
        (Some(creds), Some(task)) => {
            io.task.is_some_and(|reader| Arc::ptr_eq(&reader.group, group))
                || system.0.shows(creds, &task, HidePid::Invisible)
        }
        _ => true,
    };
    let mut from = u32::try_from(from).unwrap_or(u32::MAX);
    while let Some((number, pid)) = system.0.pid_ns.next(from) {
        if let Some(group) = pid.group().filter(|g| !g.family.lock().reaped && visible(g)) {
            let name = number.to_string();
            let ino = child_ino(ino, name.as_bytes(), group.start_time);
            if !receive(u64::from(number), name.as_bytes(), ino, FileType::Directory) {
                break;
            }
        }
        from = number.saturating_add(1);
    }
    Ok(())
}
