//! Directories of processes and threads (fs/proc/base.c).

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::root::parse_number;
use super::subject::{Subject, Who};
use super::{accounting, descriptors, identity, links, memory, mounts, net, status};
use crate::fs::synthetic::{
    Checked, Children, Content, Entry, Fixed, Kind, Node, Read, ReadWrite, Receive, Refused, Request,
    child_ino,
};
use crate::task::Pid;
use crate::vfs::{Inode, Io};

/// What needs the right to look into the process.
const fn checked(read: crate::fs::synthetic::ReadFn<Subject>) -> Checked<Subject> {
    Checked(Subject::check, read)
}

/// What needs the right to trace the process; that is checked when it is read.
struct Traced(crate::fs::synthetic::ReadFn<Subject>);

impl Content<Subject> for Traced {
    fn read(&self, subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
        subject.check_attach(io)?;
        (self.0)(subject, io)
    }
}

const fn jump(
    name: &'static str,
    text: fn(&Subject, &Io<'_>) -> Result<Vec<u8>>,
    target: fn(&Subject, &Io<'_>) -> Result<crate::vfs::LinkTarget>,
) -> Entry<Subject> {
    Entry { name, mode: 0o777, kind: Kind::Jump(text, target) }
}

const fn opened(
    name: &'static str,
    mode: u32,
    open: fn(&Subject, &Io<'_>, abi::fcntl::OpenFlags) -> Result<Arc<dyn crate::vfs::FileOps>>,
) -> Entry<Subject> {
    Entry { name, mode, kind: Kind::Opened(open) }
}

const ATTR: Kind<Subject> = Kind::Directory(
    // No security module is there that would have labels.
    &[
        Entry::file("current", 0o666, &Refused(Errno::EINVAL)),
        Entry::file("exec", 0o666, &Refused(Errno::EINVAL)),
        Entry::file("fscreate", 0o666, &Refused(Errno::EINVAL)),
        Entry::file("keycreate", 0o666, &Refused(Errno::EINVAL)),
        Entry::file("prev", 0o444, &Refused(Errno::EINVAL)),
        Entry::file("sockcreate", 0o666, &Refused(Errno::EINVAL)),
    ],
    None,
);

/// A directory with what processes and threads have in common, after `$more`.
macro_rules! with_common {
    ($($more:expr,)*) => {
        Kind::Directory(
            &[
                $($more,)*
                Entry { name: "attr", mode: 0o555, kind: ATTR },
                Entry::file("auxv", 0o400, &checked(memory::auxv)),
                Entry::text("cgroup", &Read(cgroup)),
                Entry::file("clear_refs", 0o200, &ReadWrite(|_, _| Err(Errno::EINVAL), memory::clear_refs)),
                Entry::text("cmdline", &Read(memory::cmdline)),
                Entry::file("comm", 0o644, &ReadWrite(comm, set_comm)),
                Entry::text("cpuset", &Fixed("/\n")),
                jump("cwd", links::cwd, links::to_cwd),
                Entry::file("environ", 0o400, &checked(memory::environ)),
                jump("exe", links::exe, links::to_exe),
                Entry { name: "fd", mode: 0o500, kind: descriptors::FD },
                Entry { name: "fdinfo", mode: 0o555, kind: descriptors::FDINFO },
                Entry::file("gid_map", 0o644, &identity::Map(false)),
                Entry::file("io", 0o400, &checked(accounting::io)),
                Entry::text("limits", &Read(accounting::limits)),
                Entry::file("loginuid", 0o644, &ReadWrite(identity::login_uid, identity::set_login_uid)),
                Entry::text("maps", &checked(memory::maps)),
                opened("mem", 0o600, memory::open),
                opened("mountinfo", 0o444, mounts::open_mountinfo),
                opened("mounts", 0o444, mounts::open_mounts),
                Entry { name: "net", mode: 0o555, kind: net::NET },
                Entry { name: "ns", mode: 0o511, kind: links::NS },
                Entry::file("oom_adj", 0o644, &ReadWrite(accounting::oom_adj, accounting::set_oom_adj)),
                Entry::text("oom_score", &Read(accounting::oom_score)),
                Entry::file(
                    "oom_score_adj",
                    0o644,
                    &ReadWrite(accounting::oom_score_adj, accounting::set_oom_score_adj),
                ),
                Entry::file("personality", 0o400, &Traced(accounting::personality)),
                Entry::file("projid_map", 0o644, &Read(identity::projid_map)),
                jump("root", links::root, links::to_root),
                Entry::file("sched", 0o644, &accounting::Sched),
                Entry::text("schedstat", &accounting::SchedStat),
                Entry::text("sessionid", &Fixed("4294967295")),
                Entry::file("setgroups", 0o644, &identity::SetGroups),
                Entry::text("smaps", &checked(memory::smaps)),
                Entry::text("smaps_rollup", &checked(memory::smaps_rollup)),
                Entry::file("stack", 0o400, &Traced(|_, _| Ok(Vec::new()))),
                Entry::text("stat", &status::Stat),
                Entry::text("statm", &Read(status::statm)),
                Entry::text("status", &Read(status::status)),
                Entry::file("syscall", 0o400, &Traced(accounting::syscall)),
                Entry::file("uid_map", 0o644, &identity::Map(true)),
                Entry::text("wchan", &Fixed("0")),
            ],
            None,
        )
    };
}

const COREDUMP_FILTER: &ReadWrite<Subject> = &ReadWrite(|_, _| Ok(b"00000033\n".to_vec()), ignore);

const TIME_OFFSETS: &Fixed = &Fixed("monotonic           0         0\nboottime            0         0\n");

/// A process.
pub(super) static PROCESS: Entry<Subject> = Entry {
    name: "",
    mode: 0o555,
    kind: with_common![
        Entry { name: "task", mode: 0o555, kind: Kind::Directory(&[], Some(THREADS)) },
        Entry::file("coredump_filter", 0o644, COREDUMP_FILTER),
        Entry { name: "map_files", mode: 0o500, kind: descriptors::MAP_FILES },
        opened("mountstats", 0o400, mounts::open_mountstats),
        Entry::file("timens_offsets", 0o644, TIME_OFFSETS),
        Entry::file("timerslack_ns", 0o666, &ReadWrite(accounting::timer_slack, accounting::set_timer_slack)),
    ],
};

/// A thread.
static THREAD: Entry<Subject> =
    Entry { name: "", mode: 0o555, kind: with_common![Entry::text("children", &Read(children)),] };

/// `task/`.
const THREADS: Children<Subject> = Children { find: find_thread, list: list_threads };

fn find_thread(subject: &Subject, parent: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    let number = parse_number(name).ok_or(Errno::ENOENT)?;
    let found = subject.find().map_err(|_| Errno::ENOENT)?;
    let pid = subject.instance.pid_ns.find(number).ok_or(Errno::ENOENT)?;
    let (thread, start) = if Arc::ptr_eq(&pid, &found.group.pid) {
        (Subject::process(&subject.instance, &found.group, true), found.group.start_time)
    } else {
        let task = pid.task().filter(|t| Arc::ptr_eq(&t.group, &found.group)).ok_or(Errno::ENOENT)?;
        (Subject::task(&subject.instance, &task, true), task.start_time)
    };
    thread.find().map_err(|_| Errno::ENOENT)?;
    Ok(Node::new(thread, &THREAD, child_ino(parent, name, start)))
}

fn list_threads(
    subject: &Subject,
    parent: u64,
    _io: &Io<'_>,
    from: u64,
    receive: &mut Receive<'_>,
) -> Result<()> {
    let found = subject.find().map_err(|_| Errno::ENOENT)?;
    let group = &found.group;
    let mut threads: Vec<(u32, u64)> = group
        .threads()
        .iter()
        .filter(|t| !Arc::ptr_eq(&t.pid(), &group.pid))
        .map(|t| (subject.number(&t.pid()), t.start_time))
        .collect();
    // The leader stays listed when it has ended.
    threads.push((subject.number(&group.pid), group.start_time));
    threads.sort_unstable();
    for (number, start) in threads {
        if u64::from(number) < from || number == 0 {
            continue;
        }
        let name = number.to_string();
        let ino = child_ino(parent, name.as_bytes(), start);
        if !receive(number.into(), name.as_bytes(), ino, FileType::Directory) {
            break;
        }
    }
    Ok(())
}

fn comm(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut name = subject.find()?.comm();
    name.push(b'\n');
    Ok(name)
}

/// Only threads of the process itself may name it.
fn set_comm(subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let found = subject.find()?;
    let Who::Alive(task) = &found.who else { return Err(Errno::ESRCH) };
    if io.task.is_some_and(|writer| !Arc::ptr_eq(&writer.group, &found.group)) {
        return Err(Errno::EINVAL);
    }
    let name = request.data;
    task.set_comm(name.split(|&b| b == 0).next().unwrap_or_default());
    Ok(())
}

/// What can be set, and means nothing here.
fn ignore(subject: &Subject, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    subject.find()?;
    request.number().map(drop)
}

fn cgroup(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let group = subject.find()?.group;
    let path = crate::fs::cgroup::path_of(subject.kernel(), &group);
    Ok([b"0::", &path[..], b"\n"].concat())
}

fn children(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let found = subject.find()?;
    // Children belong to the process, which Linux shows as its leader.
    if !Arc::ptr_eq(&found.pid(), &found.group.pid) {
        return Ok(Vec::new());
    }
    let number = |pid: &Arc<Pid>| subject.number(pid);
    let numbers = found.group.family.lock().children.iter().map(|c| number(&c.pid)).collect::<Vec<_>>();
    let shown = numbers.iter().filter(|&&n| n != 0).map(|n| format!("{n} "));
    Ok(shown.collect::<String>().into_bytes())
}
