//! The process or thread that a directory is about.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::signal::SignalSet;
use abi::{Errno, Result};

use super::Instance;
use super::options::HidePid;
use crate::Kernel;
use crate::fs::synthetic::{Access, Context, Entry, Kind, Node};
use crate::mm::MemoryManager;
use crate::task::access::may_access;
use crate::task::group::{CpuTime, Remains};
use crate::task::namespaces::Namespaces;
use crate::task::task::Scheduling;
use crate::task::{AccessMode, Credentials, CurrentTask, Pid, Task, ThreadGroup, UserNamespace};
use crate::vfs::permission::EXEC;
use crate::vfs::{Inode, Io, permission};

/// How long a reader waits for threads to say how much processor time they have used.
const CPU_TIME_WAIT: Duration = Duration::from_millis(2);

/// A process or thread. Holds neither: what is gone by the time that somebody looks is ENOENT or ESRCH.
#[derive(Clone)]
pub(super) struct Subject {
    pub instance: Arc<Instance>,
    group: Weak<ThreadGroup>,
    /// A thread other than the leader.
    task: Option<Weak<Task>>,
    /// A directory below `task/`, which shows what is the thread's alone.
    pub thread: bool,
}

/// A [`Subject`] that is there.
pub(super) struct Found {
    pub group: Arc<ThreadGroup>,
    pub who: Who,
}

/// A thread, or what is left of it.
pub(super) enum Who {
    Alive(Arc<Task>),
    /// A leader that has ended, and waits for other threads or its parent.
    Dead(Remains),
}

impl Subject {
    /// A process, by its leader.
    pub fn process(instance: &Arc<Instance>, group: &Arc<ThreadGroup>, thread: bool) -> Subject {
        Subject { instance: instance.clone(), group: Arc::downgrade(group), task: None, thread }
    }

    /// A thread.
    pub fn task(instance: &Arc<Instance>, task: &Arc<Task>, thread: bool) -> Subject {
        let is_leader = Arc::ptr_eq(&task.pid(), &task.group.pid);
        Subject {
            instance: instance.clone(),
            group: Arc::downgrade(&task.group),
            task: (!is_leader).then(|| Arc::downgrade(task)),
            thread,
        }
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.instance.kernel
    }

    /// The process's pid, while there is something left of it.
    pub fn pid(&self) -> Option<Arc<Pid>> {
        self.group.upgrade().map(|group| group.pid.clone())
    }

    /// ESRCH if it is gone.
    pub fn find(&self) -> Result<Found> {
        let group = self.group.upgrade().ok_or(Errno::ESRCH)?;
        if group.family.lock().reaped {
            return Err(Errno::ESRCH);
        }
        let who = match &self.task {
            None => {
                let alive = group.tasks.lock().iter().find(|t| Arc::ptr_eq(&t.pid(), &group.pid)).cloned();
                match alive {
                    Some(task) => Who::Alive(task),
                    None => Who::Dead(group.remains.lock().clone().ok_or(Errno::ESRCH)?),
                }
            }
            Some(task) => {
                let task = task.upgrade().ok_or(Errno::ESRCH)?;
                if !group.tasks.lock().iter().any(|t| Arc::ptr_eq(t, &task)) {
                    return Err(Errno::ESRCH);
                }
                Who::Alive(task)
            }
        };
        Ok(Found { group, who })
    }

    /// The thread itself. ESRCH if it has ended.
    pub fn living(&self) -> Result<Arc<Task>> {
        match self.find()?.who {
            Who::Alive(task) => Ok(task),
            Who::Dead(_) => Err(Errno::ESRCH),
        }
    }

    /// The thread, if the reader may look into it. EACCES, or ESRCH if it has ended.
    pub fn accessible(&self, io: &Io<'_>) -> Result<Arc<Task>> {
        let task = self.living()?;
        if may(io, &task, AccessMode::Read) { Ok(task) } else { Err(Errno::EACCES) }
    }

    /// Checks that the reader may look into the thread; one that has ended has nothing to hide. EACCES.
    pub fn check(&self, io: &Io<'_>) -> Result<()> {
        match self.accessible(io) {
            Err(Errno::ESRCH) => self.find().map(drop),
            other => other.map(drop),
        }
    }

    /// As [`Subject::check`], for what tells more than reading would: EPERM unless the reader could trace the thread.
    pub fn check_attach(&self, io: &Io<'_>) -> Result<()> {
        match self.find()?.who {
            Who::Alive(task) if !may(io, &task, AccessMode::Attach) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// The memory; `None` once it is given up. ESRCH if the subject is gone.
    pub fn memory(&self) -> Result<Option<Arc<MemoryManager>>> {
        Ok(match self.find()?.who {
            Who::Alive(task) => task.memory(),
            Who::Dead(_) => None,
        })
    }

    /// The owner of a file of the process whose table says `mode`. ENOENT once it is gone.
    pub fn owner(&self, mode: u32) -> Result<Access> {
        let found = self.find().map_err(|_| Errno::ENOENT)?;
        let creds = found.credentials();
        let dumpable = match &found.who {
            Who::Alive(task) => task.memory().is_none_or(|mm| mm.dumpable() == 1),
            Who::Dead(_) => true,
        };
        // What is for all to see belongs to the user in any case (task_dump_owner()).
        if dumpable || mode == 0o555 {
            return Ok(Access { mode, uid: creds.euid, gid: creds.egid });
        }
        let ns = &creds.user_ns;
        Ok(Access { mode, uid: ns.kernel_uid(0).unwrap_or(0), gid: ns.kernel_gid(0).unwrap_or(0) })
    }

    /// The number of `pid` as this proc shows it.
    pub fn number(&self, pid: &Pid) -> u32 {
        pid.number_in(&self.instance.pid_ns)
    }

    /// Asks all threads whose processor time is shown for it, but `reader`, and waits a moment for their answers.
    pub fn refresh_cpu_time(&self, reader: &CurrentTask) {
        reader.update_cpu_time();
        let Ok(found) = self.find() else { return };
        let tasks = match &found.who {
            Who::Alive(task) if self.thread => vec![task.clone()],
            _ => found.group.threads(),
        };
        refresh_cpu_time(&tasks, reader);
    }
}

/// Asks `tasks` for their processor time, and waits a moment for their answers.
pub(super) fn refresh_cpu_time(tasks: &[Arc<Task>], reader: &Arc<Task>) {
    let stale = |task: &&Arc<Task>| !Arc::ptr_eq(task, reader) && task.cpu_stale.load(Ordering::Relaxed);
    let asked: Vec<_> =
        tasks.iter().filter(stale).map(|task| (task, task.cpu_notes.load(Ordering::Relaxed))).collect();
    for (task, _) in &asked {
        task.refresh_cpu_time();
    }
    let end = Instant::now() + CPU_TIME_WAIT;
    while asked.iter().any(|(task, notes)| task.cpu_notes.load(Ordering::Relaxed) == *notes)
        && Instant::now() < end
    {
        std::thread::sleep(Duration::from_micros(50));
    }
}

impl Found {
    pub fn credentials(&self) -> Arc<Credentials> {
        match &self.who {
            Who::Alive(task) => task.credentials(),
            Who::Dead(remains) => remains.credentials.clone(),
        }
    }

    pub fn comm(&self) -> Vec<u8> {
        match &self.who {
            Who::Alive(task) => task.comm(),
            Who::Dead(remains) => remains.comm.clone(),
        }
    }

    pub fn pid(&self) -> Arc<Pid> {
        match &self.who {
            Who::Alive(task) => task.pid(),
            Who::Dead(_) => self.group.pid.clone(),
        }
    }

    pub fn state(&self) -> char {
        match &self.who {
            Who::Alive(task) => task.state(),
            Who::Dead(_) => 'Z',
        }
    }

    pub fn scheduling(&self) -> Scheduling {
        match &self.who {
            Who::Alive(task) => *task.scheduling.lock(),
            Who::Dead(remains) => remains.scheduling,
        }
    }

    pub fn affinity(&self) -> Vec<u64> {
        match &self.who {
            Who::Alive(task) => task.affinity(),
            Who::Dead(remains) => remains.affinity.clone(),
        }
    }

    /// Of the thread alone.
    pub fn cpu_time(&self) -> CpuTime {
        match &self.who {
            Who::Alive(task) => task.cpu_time(),
            Who::Dead(remains) => remains.time,
        }
    }

    /// Voluntary context switches of the thread.
    pub fn waits(&self) -> u64 {
        match &self.who {
            Who::Alive(task) => task.waits.load(Ordering::Relaxed),
            Who::Dead(remains) => remains.waits,
        }
    }

    pub fn start_time(&self) -> u64 {
        match &self.who {
            Who::Alive(task) => task.start_time,
            Who::Dead(remains) => remains.start_time,
        }
    }

    pub fn blocked(&self) -> SignalSet {
        match &self.who {
            Who::Alive(task) => task.blocked(),
            Who::Dead(remains) => remains.blocked,
        }
    }

    /// The namespaces; ESRCH once they are given up.
    pub fn namespaces(&self) -> Result<Arc<Namespaces>> {
        match &self.who {
            Who::Alive(task) => Ok(task.namespaces()),
            Who::Dead(_) => Err(Errno::ESRCH),
        }
    }
}

/// May whoever reads look into `task`? The kernel itself may.
pub(super) fn may(io: &Io<'_>, task: &Task, mode: AccessMode) -> bool {
    io.task.is_none_or(|reader| reader.may_access(task, mode).is_ok())
}

/// The user namespace in whose terms ids are shown.
pub(super) fn user_ns_of(io: &Io<'_>, kernel: &Kernel) -> Arc<UserNamespace> {
    io.task.map_or_else(|| kernel.user_ns.clone(), |task| task.credentials().user_ns.clone())
}

impl Instance {
    /// Whether `hidepid` leaves a process of `task` to those with credentials `creds` (has_pid_permissions()). `least` is
    /// the setting from which on it matters.
    pub(super) fn shows(&self, creds: &Credentials, task: &Task, least: HidePid) -> bool {
        let options = *self.options.read();
        let hidden = match options.hide_pid {
            HidePid::NotPtraceable => true,
            set => set >= least && !creds.in_group(options.gid),
        };
        !hidden || may_access(creds, task, AccessMode::Read).is_ok()
    }
}

impl Context for Subject {
    fn access(&self, entry: &Entry<Subject>) -> Result<Access> {
        self.owner(entry.mode)
    }

    fn directory_size(&self, entry: &Entry<Subject>) -> u64 {
        // Of `fd`, the number of descriptors.
        match self.living().ok().and_then(|task| task.files()) {
            Some(files) if entry.name == "fd" => files.list().len() as u64,
            _ => 0,
        }
    }

    fn lasts(&self) -> bool {
        false
    }

    fn permission(&self, node: &Node<Subject>, creds: &Credentials, mask: u32) -> Result<()> {
        let is_dir = matches!(node.entry().kind, Kind::Directory(..));
        if is_dir && self.find().is_err() {
            return Err(Errno::ESRCH);
        }
        if let (true, Ok(task)) = (is_dir, self.living()) {
            // Credentials are shared between a process and those forked from it, and nobody else.
            let own = std::ptr::eq(creds, Arc::as_ptr(&task.credentials()));
            if own {
                return Ok(());
            }
            if mask & EXEC != 0 && !self.instance.shows(creds, &task, HidePid::NoAccess) {
                let invisible = self.instance.options.read().hide_pid >= HidePid::Invisible;
                return Err(if invisible { Errno::ENOENT } else { Errno::EPERM });
            }
        }
        permission::generic(creds, &node.attributes()?, mask)
    }
}
