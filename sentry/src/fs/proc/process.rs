//! Directories of processes and threads.

use abi::Result;

use super::subject::Subject;
use crate::fs::synthetic::{Entry, Kind, Read, ReadWrite};
use crate::vfs::Io;

pub(super) static PROCESS: Entry<Subject> = Entry {
    name: "",
    mode: 0o555,
    kind: Kind::Directory(
        &[Entry::file("comm", 0o644, &ReadWrite(comm, set_comm)), Entry::text("cmdline", &Read(cmdline))],
        None,
    ),
};

fn comm(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut name = subject.living()?.comm();
    name.push(b'\n');
    Ok(name)
}

fn set_comm(subject: &Subject, _io: &Io<'_>, data: &[u8]) -> Result<()> {
    subject.living()?.set_comm(data);
    Ok(())
}

fn cmdline(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let Some(mm) = subject.living()?.memory() else { return Ok(Vec::new()) };
    let layout = mm.layout();
    let mut text = vec![0; layout.arg_end.saturating_sub(layout.arg_start).min(1 << 20) as usize];
    let n = mm.read_upto(layout.arg_start, &mut text).unwrap_or(0);
    text.truncate(n);
    Ok(text)
}
