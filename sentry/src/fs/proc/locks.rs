//! `/proc/locks`, and the lock lines of `fdinfo` (fs/locks.c).

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use abi::Result;
use abi::stat::{major, minor};

use super::System;
use crate::task::PidNamespace;
use crate::vfs::locks::{Kind, Owner, Range, RecordLock};
use crate::vfs::{FdTable, File, Io, ObjectId, SuperBlock};

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "READ",
        Kind::Write => "WRITE",
    }
}

/// A line without its number. `pid` is -1 for locks of open files.
fn line(class: &str, kind: Kind, pid: i64, object: ObjectId, range: Option<&Range>) -> String {
    let ObjectId { dev, ino } = object;
    let kind = kind_name(kind);
    let mut text = format!("{class:<6} ADVISORY  {kind} {pid} {:02x}:{:02x}:{ino} ", major(dev), minor(dev));
    let _ = match range {
        Some(range) if range.end != Range::MAX => writeln!(text, "{} {}", range.start, range.end),
        Some(range) => writeln!(text, "{} EOF", range.start),
        None => writeln!(text, "0 EOF"),
    };
    text
}

/// A record lock as seen from `ns`; `None` if its process is not visible there.
fn record_line(lock: &RecordLock, object: ObjectId, ns: &Arc<PidNamespace>) -> Option<String> {
    let (class, pid) = match &lock.pid {
        None => ("OFDLCK", -1),
        Some(pid) => ("POSIX", pid.number_in(ns).into()),
    };
    (pid != 0).then(|| line(class, lock.kind, pid, object, Some(&lock.range)))
}

pub(super) fn all(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    // Whoever has a lock has the file open.
    let mut superblocks: HashMap<u64, Arc<SuperBlock>> = HashMap::new();
    let mut holders: HashMap<u64, i64> = HashMap::new();
    let ns = &system.0.pid_ns;
    for task in system.kernel().processes().iter().filter_map(|process| process.any_task()) {
        let Some(files) = task.files() else { continue };
        for (_, file, _) in files.list() {
            let superblock = file.path().dentry().superblock();
            superblocks.entry(superblock.dev()).or_insert_with(|| superblock.clone());
            holders.entry(file.id()).or_insert_with(|| task.group.pid.number_in(ns).into());
        }
    }
    let mut lines = Vec::new();
    for (dev, superblock) in superblocks {
        for (ino, records, flocks) in superblock.locks.list() {
            let object = ObjectId { dev, ino };
            lines.extend(records.iter().filter_map(|lock| record_line(lock, object, ns)));
            for (file, kind) in flocks {
                if let Some(&pid) = holders.get(&file).filter(|&&pid| pid != 0) {
                    lines.push(line("FLOCK", kind, pid, object, None));
                }
            }
        }
    }
    lines.sort();
    let numbered = lines.iter().enumerate().map(|(i, line)| format!("{}: {line}", i + 1));
    Ok(numbered.collect::<String>().into_bytes())
}

/// The locks that a descriptor of a table holds.
pub(super) fn of_file(file: &File, files: &FdTable, ns: &Arc<PidNamespace>, pid: i64) -> String {
    let object = file.path().dentry().object();
    let own = [Owner::process(files), Owner::description(file)];
    let mut lines = Vec::new();
    let all = file.path().dentry().superblock().locks.list();
    for (_, records, flocks) in all.into_iter().filter(|(ino, ..)| *ino == object.ino) {
        let own_records = records.iter().filter(|lock| own.contains(&lock.owner));
        lines.extend(own_records.filter_map(|lock| record_line(lock, object, ns)));
        let own_flocks = flocks.iter().filter(|(id, _)| *id == file.id());
        lines.extend(own_flocks.map(|&(_, kind)| line("FLOCK", kind, pid, object, None)));
    }
    lines.iter().enumerate().map(|(i, line)| format!("lock:\t{}: {line}", i + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_linux_s() {
        let object = ObjectId { dev: abi::stat::makedev(0xfe, 0), ino: 42 };
        let range = Range { start: 10, end: 19 };
        assert_eq!(
            line("POSIX", Kind::Write, 7, object, Some(&range)),
            "POSIX  ADVISORY  WRITE 7 fe:00:42 10 19\n"
        );
        assert_eq!(line("FLOCK", Kind::Read, 7, object, None), "FLOCK  ADVISORY  READ 7 fe:00:42 0 EOF\n");
        let open = Range { start: 5, end: Range::MAX };
        assert_eq!(
            line("OFDLCK", Kind::Read, -1, object, Some(&open)),
            "OFDLCK ADVISORY  READ -1 fe:00:42 5 EOF\n"
        );
    }
}
