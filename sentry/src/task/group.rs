//! Processes (thread groups), process groups and sessions.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::signal::{Signal, SignalSet};
use parking_lot::{Mutex, RwLock};

use super::counts::Counted;
use super::credentials::Credentials;
use super::limits::Limits;
use super::pid::Pid;
use super::signal::{Actions, GroupSignals};
use super::task::{Scheduling, Task};
use crate::Kernel;
use crate::container::Container;
use crate::fs::cgroup::Cgroup;
use crate::fs::tty::Terminal;
use crate::wait::WaitQueue;

/// A session (setsid(2)).
pub struct Session {
    /// Its number, which is its leader's.
    pub pid: Arc<Pid>,
    /// Who was in the foreground of its terminal when that hung up.
    pub lost_foreground: Mutex<Option<Arc<Pid>>>,
}

/// A process group (setpgid(2)).
pub struct ProcessGroup {
    /// Its number.
    pub pid: Arc<Pid>,
    /// The session it belongs to.
    pub session: Arc<Session>,
    members: Mutex<Vec<Weak<ThreadGroup>>>,
}

impl ProcessGroup {
    /// A group with `pid`'s number in `session`.
    pub fn new(pid: Arc<Pid>, session: Arc<Session>) -> Arc<ProcessGroup> {
        let group = Arc::new(ProcessGroup { pid: pid.clone(), session, members: Mutex::default() });
        pid.set_process_group(&group);
        group
    }

    /// A group that leads a new session.
    pub fn new_session(pid: Arc<Pid>) -> Arc<ProcessGroup> {
        let session = Arc::new(Session { pid: pid.clone(), lost_foreground: Mutex::default() });
        pid.set_session(&session);
        ProcessGroup::new(pid, session)
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<Arc<ThreadGroup>> {
        self.members.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn join(&self, process: &Arc<ThreadGroup>) {
        let mut members = self.members.lock();
        members.retain(|m| m.strong_count() > 0);
        members.push(Arc::downgrade(process));
    }

    pub(super) fn leave(&self, process: &ThreadGroup) {
        self.members.lock().retain(|m| m.strong_count() > 0 && !std::ptr::eq(m.as_ptr(), process));
    }
}

/// Who is whose child. Changed only under [`Kernel::tasklist`].
pub struct Family {
    /// The parent; `None` for the first process and for those whose parent is outside.
    pub parent: Weak<ThreadGroup>,
    /// The thread that made it, for __WNOTHREAD.
    pub made_by: Weak<Task>,
    /// The children, also the dead ones that were not waited for.
    pub children: Vec<Arc<ThreadGroup>>,
    /// The process group.
    pub process_group: Arc<ProcessGroup>,
    /// What the parent gets when this process ends; `None` for nothing.
    pub exit_signal: Option<Signal>,
    /// The wait status once it is dead, until it is reaped.
    pub zombie: Option<u32>,
    /// The parent does not know of that yet: a tracer is to know it first.
    pub held: bool,
    /// It was reaped (or needs no reaping).
    pub reaped: bool,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// It has called execve since it was forked (setpgid(2)'s EACCES).
    pub did_exec: bool,
}

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

impl CpuTime {
    /// The sum of both clocks.
    pub fn plus(self, other: CpuTime) -> CpuTime {
        CpuTime { user: self.user + other.user, system: self.system + other.system }
    }

    /// User and system time together.
    pub fn total(self) -> u64 {
        self.user + self.system
    }
}

/// What is summed up of dead threads and children (getrusage(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time.
    pub time: CpuTime,
    /// Largest resident set in KiB.
    pub max_rss: u64,
    /// Voluntary context switches.
    pub voluntary: u64,
    /// Involuntary context switches.
    pub involuntary: u64,
}

impl Usage {
    /// Adds `other`.
    pub fn add(&mut self, other: &Usage) {
        self.time = self.time.plus(other.time);
        self.max_rss = self.max_rss.max(other.max_rss);
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// A process: threads that share signals, limits and timers.
pub struct ThreadGroup {
    /// The kernel it lives in.
    pub kernel: Arc<Kernel>,
    /// The process number.
    pub pid: Arc<Pid>,
    /// The living threads; the leader is first while it lives.
    pub tasks: Mutex<Vec<Arc<Task>>>,
    /// Relations to other processes.
    pub family: Mutex<Family>,
    /// Pending signals of the process, stop and exit state.
    pub signals: Mutex<GroupSignals>,
    /// Signal actions; shared by CLONE_SIGHAND, a new one by exec.
    pub actions: RwLock<Arc<Mutex<Actions>>>,
    /// Resource limits.
    pub limits: Limits,
    /// The controlling terminal, which children inherit.
    terminal: Mutex<Option<Arc<Terminal>>>,
    /// Woken when a child changes state.
    pub child_events: WaitQueue,
    /// Woken when any signal arrives, blocked or not: sigtimedwait, signalfd.
    pub signal_events: WaitQueue,
    /// Woken when a thread is gone: exec waits for its siblings.
    pub thread_events: WaitQueue,
    /// What dead threads used.
    pub dead_usage: Mutex<Usage>,
    /// What reaped children used.
    pub children_usage: Mutex<Usage>,
    /// Interval timers and POSIX timers.
    pub timers: crate::time::ProcessTimers,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// personality(2).
    pub personality: AtomicU32,
    /// Start in monotonic nanoseconds.
    pub start_time: u64,
    /// CLONE_PARENT is refused and default actions do not kill: an init of a pid namespace.
    pub is_init: bool,
    /// The container whose process this is.
    pub container: Arc<Container>,
    /// KEY_SPEC_PROCESS_KEYRING.
    pub keyring: Mutex<Option<Arc<crate::keys::Key>>>,
    /// Registered for membarrier's private expedited commands.
    pub membarrier: AtomicU32,
    /// Bytes read and written, for `/proc/PID/io`.
    pub io_bytes: (AtomicU64, AtomicU64),
    /// All threads are gone.
    pub dead: AtomicBool,
    /// A thread of it is or was a tracer.
    pub(super) has_traced: AtomicBool,
    /// Who traced the first thread when that ended.
    pub(super) leader_tracer: Mutex<Weak<Task>>,
    /// The first thread has ended, and counts until the process is waited for.
    pub(super) counted: Mutex<Option<Counted>>,
    /// The real uid of the thread that ended last (a kernel id).
    pub last_uid: Mutex<u32>,
    /// What proc shows of the leader once it has ended.
    pub remains: Mutex<Option<Remains>>,
    /// The cgroup; `None` is that of the container.
    pub cgroup: RwLock<Option<Arc<Cgroup>>>,
    /// `/proc/PID/loginuid` (a kernel id); `u32::MAX` as long as it was not set.
    pub login_uid: AtomicU32,
    /// The end, for those who wait outside the sandbox.
    pub exited: ExitStatus,
}

/// What is known of a thread that has ended.
#[derive(Clone)]
pub struct Remains {
    /// Its name.
    pub comm: Vec<u8>,
    /// Its credentials.
    pub credentials: Arc<Credentials>,
    /// The signals it blocked.
    pub blocked: SignalSet,
    /// Processor time.
    pub time: CpuTime,
    /// Voluntary context switches.
    pub waits: u64,
    /// Scheduling parameters.
    pub scheduling: Scheduling,
    /// The processors it could run on.
    pub affinity: Vec<u64>,
    /// Start in monotonic nanoseconds.
    pub start_time: u64,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
}

impl Remains {
    /// Of a thread that is about to end.
    pub(super) fn of(task: &Task) -> Remains {
        Remains {
            comm: task.comm(),
            credentials: task.credentials(),
            blocked: task.blocked(),
            time: task.cpu_time(),
            waits: task.waits.load(Ordering::Relaxed),
            scheduling: *task.scheduling.lock(),
            affinity: task.affinity(),
            start_time: task.start_time,
            no_new_privs: task.no_new_privs.load(Ordering::Relaxed),
        }
    }
}

/// The wait status of a process, once it has ended.
#[derive(Default)]
pub struct ExitStatus {
    status: Mutex<Option<u32>>,
    changed: parking_lot::Condvar,
}

impl ExitStatus {
    /// The status, if the process has ended.
    pub fn get(&self) -> Option<u32> {
        *self.status.lock()
    }

    /// Waits for the end. For host threads that run no guest.
    pub fn wait(&self) -> u32 {
        let mut status = self.status.lock();
        loop {
            match *status {
                Some(status) => return status,
                None => self.changed.wait(&mut status),
            }
        }
    }

    pub(super) fn set(&self, new: u32) {
        *self.status.lock() = Some(new);
        self.changed.notify_all();
    }
}

/// What a new process is made of.
pub struct GroupParts {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Its number.
    pub pid: Arc<Pid>,
    /// Parent, if any.
    pub parent: Weak<ThreadGroup>,
    /// The thread that makes it.
    pub made_by: Weak<Task>,
    /// Process group.
    pub process_group: Arc<ProcessGroup>,
    /// What the parent gets at the end.
    pub exit_signal: Option<Signal>,
    /// Signal actions.
    pub actions: Arc<Mutex<Actions>>,
    /// Resource limits.
    pub limits: Limits,
    /// The container it belongs to.
    pub container: Arc<Container>,
    /// It is the first process of its pid namespace.
    pub is_init: bool,
}

impl ThreadGroup {
    /// A process without threads, in its process group but not yet in its parent's list, and not yet anybody's init.
    pub fn new(parts: GroupParts) -> Arc<ThreadGroup> {
        let start_time = parts.kernel.clock.monotonic();
        let group = Arc::new(ThreadGroup {
            kernel: parts.kernel,
            pid: parts.pid,
            tasks: Mutex::default(),
            family: Mutex::new(Family {
                parent: parts.parent,
                made_by: parts.made_by,
                children: Vec::new(),
                process_group: parts.process_group.clone(),
                exit_signal: parts.exit_signal,
                zombie: None,
                held: false,
                reaped: false,
                subreaper: false,
                did_exec: false,
            }),
            signals: Mutex::default(),
            actions: RwLock::new(parts.actions),
            limits: parts.limits,
            terminal: Mutex::default(),
            child_events: WaitQueue::new(),
            signal_events: WaitQueue::new(),
            thread_events: WaitQueue::new(),
            dead_usage: Mutex::default(),
            children_usage: Mutex::default(),
            timers: crate::time::ProcessTimers::default(),
            oom_score_adj: AtomicI32::new(0),
            personality: AtomicU32::new(0),
            start_time,
            is_init: parts.is_init,
            container: parts.container,
            keyring: Mutex::default(),
            membarrier: AtomicU32::new(0),
            io_bytes: Default::default(),
            dead: AtomicBool::new(false),
            has_traced: AtomicBool::new(false),
            leader_tracer: Mutex::default(),
            counted: Mutex::default(),
            last_uid: Mutex::new(0),
            remains: Mutex::default(),
            cgroup: RwLock::default(),
            login_uid: AtomicU32::new(u32::MAX),
            exited: ExitStatus::default(),
        });
        group.pid.set_group(Arc::downgrade(&group));
        parts.process_group.join(&group);
        group
    }

    /// The first living thread: the leader, unless it ended before the others.
    pub fn any_task(&self) -> Option<Arc<Task>> {
        self.tasks.lock().first().cloned()
    }

    /// The living threads.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.tasks.lock().clone()
    }

    /// The process group.
    pub fn process_group(&self) -> Arc<ProcessGroup> {
        self.family.lock().process_group.clone()
    }

    /// The session.
    pub fn session(&self) -> Arc<Session> {
        self.process_group().session.clone()
    }

    /// True for the leader of its session.
    pub fn is_session_leader(&self) -> bool {
        Arc::ptr_eq(&self.session().pid, &self.pid)
    }

    /// The parent.
    pub fn parent(&self) -> Option<Arc<ThreadGroup>> {
        self.family.lock().parent.upgrade()
    }

    /// The controlling terminal.
    pub fn terminal(&self) -> Option<Arc<Terminal>> {
        self.terminal.lock().clone()
    }

    /// Gives the process a controlling terminal, or takes it away.
    pub(crate) fn set_terminal(&self, terminal: Option<Arc<Terminal>>) {
        let old = std::mem::replace(&mut *self.terminal.lock(), terminal);
        drop(old);
    }

    /// True once the last thread is gone.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Processor time of all threads, living and dead.
    pub fn cpu_time(&self) -> CpuTime {
        let dead = self.dead_usage.lock().time;
        self.tasks.lock().iter().fold(dead, |sum, task| sum.plus(task.cpu_time()))
    }

    /// What all threads used.
    pub fn usage(&self) -> Usage {
        let mut usage = *self.dead_usage.lock();
        for task in self.tasks.lock().iter() {
            usage.add(&task.usage());
        }
        usage
    }

    /// Moves the process to another group.
    pub fn join_group(self: &Arc<ThreadGroup>, group: &Arc<ProcessGroup>) {
        let old = std::mem::replace(&mut self.family.lock().process_group, group.clone());
        old.leave(self);
        group.join(self);
    }

    /// setsid(2): begins a session, without a terminal. The tasklist lock is held.
    pub fn begin_session(self: &Arc<ThreadGroup>) {
        self.join_group(&ProcessGroup::new_session(self.pid.clone()));
        self.set_terminal(None);
    }
}
