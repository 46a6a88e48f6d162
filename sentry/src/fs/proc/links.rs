//! `cwd`, `root`, `exe` and `ns/` (fs/proc/base.c, fs/proc/namespaces.c).

use abi::{Errno, Result};

use super::descriptors::file_name;
use super::subject::{Subject, Who, may};
use crate::fs::nsfs::Namespace;
use crate::fs::synthetic::{Entry, Kind};
use crate::task::AccessMode;
use crate::vfs::{Io, LinkTarget, Path};

fn show(path: &Path, io: &Io<'_>) -> Vec<u8> {
    match io.task {
        Some(task) => path.display(&task.fs().root()),
        None => path.display(path),
    }
}

fn cwd_path(subject: &Subject, io: &Io<'_>) -> Result<Path> {
    Ok(subject.accessible(io).map_err(gone)?.fs().cwd())
}

fn root_path(subject: &Subject, io: &Io<'_>) -> Result<Path> {
    Ok(subject.accessible(io).map_err(gone)?.fs().root())
}

/// What has no such link any more has none.
fn gone(error: Errno) -> Errno {
    if error == Errno::ESRCH { Errno::ENOENT } else { error }
}

pub(super) fn cwd(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(show(&cwd_path(subject, io)?, io))
}

pub(super) fn to_cwd(subject: &Subject, io: &Io<'_>) -> Result<LinkTarget> {
    cwd_path(subject, io).map(LinkTarget::Jump)
}

pub(super) fn root(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(show(&root_path(subject, io)?, io))
}

pub(super) fn to_root(subject: &Subject, io: &Io<'_>) -> Result<LinkTarget> {
    root_path(subject, io).map(LinkTarget::Jump)
}

pub(super) fn exe(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let task = subject.accessible(io).map_err(gone)?;
    let file = task.memory().and_then(|mm| mm.exe()).ok_or(Errno::ENOENT)?;
    let root = io.task.map(|task| task.fs().root());
    Ok(file_name(&file, root.as_ref()))
}

pub(super) fn to_exe(subject: &Subject, io: &Io<'_>) -> Result<LinkTarget> {
    let task = subject.accessible(io).map_err(gone)?;
    let file = task.memory().and_then(|mm| mm.exe()).ok_or(Errno::ENOENT)?;
    Ok(LinkTarget::Jump(file.path().clone()))
}

type Pick = fn(&Subject) -> Result<Namespace>;

fn namespace(subject: &Subject, io: &Io<'_>, pick: Pick) -> Result<Namespace> {
    if let Who::Alive(task) = subject.find().map_err(gone)?.who
        && !may(io, &task, AccessMode::Read)
    {
        return Err(Errno::EACCES);
    }
    pick(subject).map_err(gone)
}

macro_rules! link {
    ($name:literal, $pick:expr) => {
        Entry {
            name: $name,
            mode: 0o777,
            kind: Kind::Jump(
                |subject, io| Ok(namespace(subject, io, $pick)?.name().into_bytes()),
                |subject, io| {
                    let namespace = namespace(subject, io, $pick)?;
                    Ok(LinkTarget::Jump(namespace.path(subject.kernel())))
                },
            ),
        }
    };
}

/// `ns/`.
pub(super) const NS: Kind<Subject> = Kind::Directory(
    &[
        link!("cgroup", |s| Ok(Namespace::Cgroup(s.find()?.namespaces()?.cgroup.clone()))),
        link!("ipc", |s| Ok(Namespace::Ipc(s.find()?.namespaces()?.ipc.clone()))),
        link!("mnt", |s| Ok(Namespace::Mount(s.find()?.namespaces()?.mount.clone()))),
        link!("net", |s| Ok(Namespace::Net(s.find()?.namespaces()?.net.clone()))),
        link!("pid", |s| Ok(Namespace::Pid(s.find()?.group.pid.namespace().clone()))),
        link!("pid_for_children", |s| Ok(Namespace::Pid(s.find()?.namespaces()?.pid_for_children.clone()))),
        link!("time", |s| Ok(Namespace::Time(s.find()?.namespaces()?.time.clone()))),
        link!("time_for_children", |s| Ok(Namespace::Time(s.find()?.namespaces()?.time.clone()))),
        link!("user", |s| Ok(Namespace::User(s.find()?.credentials().user_ns.clone()))),
        link!("uts", |s| Ok(Namespace::Uts(s.find()?.namespaces()?.uts.clone()))),
    ],
    None,
);
