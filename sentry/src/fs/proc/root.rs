//! The root directory.

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::subject::Subject;
use super::{System, process, system};
use crate::fs::synthetic::{Children, Entry, Kind, Node, Read, Receive, child_ino};
use crate::task::{Pid, Task};
use crate::vfs::{Inode, Io};

pub(super) static ROOT: Entry<System> = Entry {
    name: "",
    mode: 0o555,
    kind: Kind::Directory(
        &[
            Entry::text("cpuinfo", &Read(system::cpuinfo)),
            Entry::text("filesystems", &Read(system::filesystems)),
            Entry::text("loadavg", &Read(system::loadavg)),
            Entry::text("meminfo", &Read(system::meminfo)),
            Entry::link("mounts", |_, _| Ok(b"self/mounts".to_vec())),
            Entry::link("self", own_process),
            Entry::text("stat", &Read(system::stat)),
            Entry::link("thread-self", own_thread),
            Entry::text("uptime", &Read(system::uptime)),
            Entry::text("version", &Read(system::version)),
        ],
        Some(Children { find, list }),
    ),
};

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

fn list(system: &System, ino: u64, _io: &Io<'_>, from: u64, receive: &mut Receive<'_>) -> Result<()> {
    let mut from = u32::try_from(from).unwrap_or(u32::MAX);
    while let Some((number, pid)) = system.0.pid_ns.next(from) {
        if let Some(group) = pid.group().filter(|g| !g.family.lock().reaped) {
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
