//! New threads and processes (clone(2), kernel/fork.c).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use abi::ptrace::PtraceOptions;
use abi::resource::RLIMIT_NPROC;
use abi::sched::CloneFlags;
use abi::signal::{Signal, StackT};
use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::Context;

use super::counts::Counted;
use super::credentials::Credentials;
use super::current::CurrentTask;
use super::group::{GroupParts, ThreadGroup};
use super::host_threads;
use super::namespaces::{Namespaces, PlainNamespace, UtsNamespace};
use super::pid::{Pid, PidNamespace};
use super::task::{Task, TaskParts, VforkDone};
use crate::ipc::IpcNamespace;
use crate::net::NetNamespace;
use crate::vfs::{FsContext, Path};

/// The arguments of clone3(2), decoded.
#[derive(Clone, Debug, Default)]
pub struct CloneRequest {
    /// `CLONE_*` without the exit signal.
    pub flags: CloneFlags,
    /// Where to install a pidfd's number.
    pub pidfd: u64,
    /// CLONE_CHILD_SETTID and CLEARTID.
    pub child_tid: u64,
    /// CLONE_PARENT_SETTID.
    pub parent_tid: u64,
    /// What the parent gets when the child ends.
    pub exit_signal: Option<Signal>,
    /// The new stack pointer; 0 keeps the parent's.
    pub stack: u64,
    /// The new fs base, with CLONE_SETTLS.
    pub tls: u64,
    /// The numbers wanted, innermost namespace first.
    pub set_tid: Vec<u32>,
    /// The cgroup to begin in (CLONE_INTO_CGROUP), if not the caller's.
    pub cgroup: Option<Arc<crate::fs::cgroup::Cgroup>>,
}

/// The flags that make namespaces.
pub const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUSER)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

impl CurrentTask {
    /// Makes a thread or process. Returns its number as the caller sees it.
    pub fn clone_task(&self, request: &CloneRequest) -> Result<u32> {
        use CloneFlags as F;
        let flags = request.flags;
        check_flags(self, flags)?;
        let thread = flags.contains(F::CLONE_THREAD);
        let counted = self.count_one_more()?;
        let creds = self.credentials();
        let user_ns = if flags.contains(F::CLONE_NEWUSER) {
            Some(creds.user_ns.child((creds.euid, creds.egid))?)
        } else {
            None
        };
        let new_creds = match &user_ns {
            Some(ns) => Arc::new(in_new_user_namespace(&creds, ns.clone())),
            None => creds,
        };
        let (namespaces, fs) = self.new_namespaces(flags, &new_creds)?;
        let fs = match fs {
            Some(fs) => fs,
            None if flags.contains(F::CLONE_FS) => self.fs(),
            None => Arc::new(self.fs().fork()),
        };
        let pid = Pid::allocate(&namespaces.pid_for_children, &request.set_tid)?;
        let files = match self.files() {
            Some(files) if flags.contains(F::CLONE_FILES) => files,
            Some(files) => Arc::new(files.fork()),
            None => return Err(Errno::ESRCH),
        };
        let mm = self.mm();
        let memory =
            if flags.contains(F::CLONE_VM) { mm } else { self.with_thread(|thread| mm.fork(thread))? };
        let mut context = self.with_context(|context| context.clone())?;
        start_context(&mut context, request);
        let group = if thread { self.group.clone() } else { self.new_group(request, &pid, &namespaces)? };
        let task = Task::new(TaskParts {
            group: group.clone(),
            pid: pid.clone(),
            comm: self.comm(),
            credentials: new_creds,
            memory: memory.clone(),
            files,
            fs,
            namespaces,
        });
        self.inherit(&task, request);
        let number = pid.number_in(&self.pid_ns());
        if flags.contains(F::CLONE_PARENT_SETTID) {
            // As Linux: a fault here is not an error.
            let _ = self.mm().write_bytes(request.parent_tid, &number.to_le_bytes());
        }
        if flags.contains(F::CLONE_CHILD_SETTID) {
            let own = pid.number();
            let _ = memory.write_bytes(request.child_tid, &own.to_le_bytes());
        }
        let pidfd = if flags.contains(F::CLONE_PIDFD) {
            let file = crate::fs::pidfd::open(self.kernel(), &pid, thread);
            let fd = self.install(file, true)?;
            self.mm().write_bytes(request.pidfd, &fd.to_le_bytes()).inspect_err(|_| {
                let _ = self.fds().remove(fd);
            })?;
            Some(fd)
        } else {
            None
        };
        let vfork = flags.contains(F::CLONE_VFORK).then(|| {
            let done = Arc::new(VforkDone::default());
            let _ = task.vfork_done.set(done.clone());
            done
        });
        let event = self.clone_event(flags, group_exit_signal(request, thread));
        let started = self.attach(&task, flags, counted).and_then(|()| {
            if event.is_some() || flags.contains(F::CLONE_PTRACE) && self.is_traced() {
                self.pass_trace_on(&task);
            }
            start(&task, context)
        });
        if let Err(e) = started {
            detach(self, &task, thread);
            if let Some(fd) = pidfd {
                let _ = self.fds().remove(fd);
            }
            return Err(e);
        }
        if let Some(event) = event {
            self.tell_clone(event, &pid);
        }
        if let Some(done) = vfork {
            // A signal does not end this wait, only the end of the process does.
            let _ = self.wait_killable(&done.queue, || done.is_done().then_some(()));
            let option = PtraceOptions::PTRACE_O_TRACEVFORKDONE;
            let number = self.number_for_tracer(&pid);
            self.event_stop(option, abi::ptrace::PTRACE_EVENT_VFORK_DONE, number.into());
        }
        Ok(number)
    }

    /// Counts a thread that is about to be made: before it is compared with RLIMIT_NPROC, the limit of the sandbox and
    /// that of the container, so that many at once cannot go beyond. Threads count as processes do. EAGAIN.
    fn count_one_more(&self) -> Result<Counted> {
        let kernel = self.kernel();
        let uid = self.credentials().uid;
        let limit = self.group.limits.current(RLIMIT_NPROC);
        let counted = kernel.counts.count_within(uid, &self.group.container.id).ok_or(Errno::EAGAIN)?;
        let privileged = || uid == 0 || self.capable(CAP_SYS_RESOURCE) || self.capable(CAP_SYS_ADMIN);
        if kernel.counts.of_user(uid) as u64 > limit && !privileged() {
            return Err(Errno::EAGAIN);
        }
        self.too_many.store(false, Ordering::Relaxed);
        if kernel.counts.all() > kernel.threads_max {
            return Err(Errno::EAGAIN);
        }
        Ok(counted)
    }

    fn new_group(&self, request: &CloneRequest, pid: &Arc<Pid>, ns: &Namespaces) -> Result<Arc<ThreadGroup>> {
        let flags = request.flags;
        let actions = self.group.actions.read().clone();
        let actions = if flags.contains(CloneFlags::CLONE_SIGHAND) {
            actions
        } else {
            let mut copy = actions.lock().clone();
            if flags.contains(CloneFlags::CLONE_CLEAR_SIGHAND) {
                copy.reset_handlers();
            }
            Arc::new(Mutex::new(copy))
        };
        let sibling = flags.contains(CloneFlags::CLONE_PARENT);
        let (parent, exit_signal) = if sibling {
            let family = self.group.family.lock();
            (family.parent.clone(), family.exit_signal)
        } else {
            (Arc::downgrade(&self.group), request.exit_signal)
        };
        let is_init = ns.pid_for_children.init().is_none() && pid.number() == 1;
        let group = ThreadGroup::new(GroupParts {
            kernel: self.kernel().clone(),
            pid: pid.clone(),
            parent,
            made_by: Arc::downgrade(self),
            process_group: self.group.process_group(),
            exit_signal,
            actions,
            limits: self.group.limits.fork(),
            container: self.group.container.clone(),
            is_init,
        });
        group.set_terminal(self.group.terminal());
        group.oom_score_adj.store(self.group.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        match &request.cgroup {
            None => group.cgroup.write().clone_from(&self.group.cgroup.read()),
            Some(cgroup) => self.kernel().cgroups.enter(cgroup, &group)?,
        }
        group.login_uid.store(self.group.login_uid.load(Ordering::Relaxed), Ordering::Relaxed);
        group.personality.store(self.group.personality.load(Ordering::Relaxed), Ordering::Relaxed);
        group.timers.watch_cpu_limit(&group);
        Ok(group)
    }

    /// What a child takes over from its parent beyond the shared objects (copy_process()).
    fn inherit(&self, task: &Arc<Task>, request: &CloneRequest) {
        let flags = request.flags;
        {
            let own = self.signals.lock();
            let mut new = task.signals.lock();
            new.blocked = own.blocked;
            // A thread that shares memory would share the alternate stack too, unless it is a vfork child.
            let shares = flags.contains(CloneFlags::CLONE_VM) && !flags.contains(CloneFlags::CLONE_VFORK);
            new.stack = if shares { disabled_stack() } else { own.stack };
        }
        if flags.contains(CloneFlags::CLONE_CHILD_CLEARTID) {
            task.clear_child_tid.store(request.child_tid, Ordering::Relaxed);
        }
        let scheduling = *self.scheduling.lock();
        *task.scheduling.lock() = if scheduling.reset_on_fork {
            super::task::Scheduling { nice: scheduling.nice.max(0), ..Default::default() }
        } else {
            scheduling
        };
        *task.keyrings.session.lock() = self.keyrings.session.lock().clone();
        *task.memory_policy.lock() = *self.memory_policy.lock();
        *task.affinity.lock() = self.affinity.lock().clone();
        let timer_slack = self.timer_slack.load(Ordering::Relaxed);
        task.timer_slack.store(timer_slack, Ordering::Relaxed);
        task.default_timer_slack.store(timer_slack, Ordering::Relaxed);
    }

    /// Makes the task known. ERESTARTNOINTR if the caller is being killed: who kills a whole group holds the tasklist lock
    /// meanwhile, so that either the child is in the group by then, or there will be none.
    fn attach(&self, task: &Arc<Task>, flags: CloneFlags, counted: Counted) -> Result<()> {
        let kernel = self.kernel();
        let thread = flags.contains(CloneFlags::CLONE_THREAD);
        let _tasklist = kernel.tasklist.lock();
        if self.is_killed() {
            return Err(Errno::ERESTARTNOINTR);
        }
        // Now, and not before: another thread may have changed it for all (copy_seccomp()).
        task.seccomp.set(self.seccomp.mode());
        task.no_new_privs.store(self.no_new_privs.load(Ordering::Relaxed), Ordering::Relaxed);
        if flags.contains(CloneFlags::CLONE_PARENT) && !thread {
            // Who was our parent when the clone began may have died since, and left us to another.
            let own = self.group.family.lock();
            let (parent, exit_signal) = (own.parent.clone(), own.exit_signal);
            drop(own);
            let mut family = task.group.family.lock();
            (family.parent, family.exit_signal) = (parent, exit_signal);
        }
        if !thread && let Some(parent) = task.group.parent() {
            parent.family.lock().children.push(task.group.clone());
        }
        if !thread && task.group.is_init {
            task.group.pid.namespace().set_init(&task.group);
        }
        task.enter_counts(counted);
        task.group.tasks.lock().push(task.clone());
        Ok(())
    }

    /// The namespaces that `flags` ask for (copy_namespaces()), and root and working directory in a new mount
    /// namespace. EPERM without CAP_SYS_ADMIN over the user namespace.
    pub fn new_namespaces(
        &self,
        flags: CloneFlags,
        creds: &Credentials,
    ) -> Result<(Arc<Namespaces>, Option<Arc<FsContext>>)> {
        use CloneFlags as F;
        let old = self.namespaces();
        let plain = NAMESPACES.difference(F::CLONE_NEWUSER).union(F::CLONE_NEWTIME);
        if !flags.intersects(plain) {
            return Ok((old, None));
        }
        if !creds.capable(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let user_ns = &creds.user_ns;
        let mut new = (*old).clone();
        let mut fs = None;
        if flags.contains(F::CLONE_NEWUTS) {
            new.uts = UtsNamespace::new(&old.uts.hostname(), &old.uts.domainname(), user_ns.clone());
        }
        if flags.contains(F::CLONE_NEWIPC) {
            new.ipc = IpcNamespace::new(self.kernel(), user_ns.clone());
        }
        if flags.contains(F::CLONE_NEWPID) {
            new.pid_for_children = PidNamespace::new(Some(old.pid_for_children.clone()), user_ns.clone())?;
        }
        if flags.contains(F::CLONE_NEWNET) {
            new.net = NetNamespace::unshared(user_ns.clone());
        }
        if flags.contains(F::CLONE_NEWCGROUP) {
            new.cgroup = PlainNamespace::new(user_ns.clone());
        }
        if flags.contains(F::CLONE_NEWTIME) {
            new.time = PlainNamespace::new(user_ns.clone());
        }
        if flags.contains(F::CLONE_NEWNS) {
            let (mounts, copies) = old.mount.clone_for(user_ns.clone());
            new.mount = mounts;
            let current = self.fs();
            let moved = |path: Path| match copies.get(&path.mount().id()) {
                Some(copy) => Path::new(copy.clone(), path.dentry().clone()),
                None => path,
            };
            fs = Some(Arc::new(FsContext::new(moved(current.root()), moved(current.cwd()), current.umask())));
        }
        Ok((Arc::new(new), fs))
    }
}

/// What a tracer tells forks from other clones by.
fn group_exit_signal(request: &CloneRequest, thread: bool) -> Option<Signal> {
    if thread { None } else { request.exit_signal }
}

fn disabled_stack() -> StackT {
    StackT { ss_flags: abi::signal::SS_DISABLE, ..StackT::default() }
}

fn check_flags(task: &CurrentTask, flags: CloneFlags) -> Result<()> {
    use CloneFlags as F;
    let both = |a: F, b: F| flags.contains(a) && flags.contains(b);
    let needs = |a: F, b: F| flags.contains(a) && !flags.contains(b);
    if both(F::CLONE_NEWNS, F::CLONE_FS)
        || both(F::CLONE_NEWUSER, F::CLONE_FS)
        || needs(F::CLONE_THREAD, F::CLONE_SIGHAND)
        || needs(F::CLONE_SIGHAND, F::CLONE_VM)
        || both(F::CLONE_PARENT, F::CLONE_NEWPID) && task.group.is_init
        || both(F::CLONE_SIGHAND, F::CLONE_CLEAR_SIGHAND)
        || both(F::CLONE_PIDFD, F::CLONE_DETACHED)
        || flags.contains(F::CLONE_PARENT) && task.group.is_init
        || flags.contains(F::CLONE_THREAD) && flags.intersects(F::CLONE_NEWUSER | F::CLONE_NEWPID)
    {
        return Err(Errno::EINVAL);
    }
    let own = task.group.pid.namespace();
    if flags.contains(F::CLONE_THREAD) && !Arc::ptr_eq(own, &task.namespaces().pid_for_children) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The credentials of the first process of a user namespace: every capability, in it.
pub fn in_new_user_namespace(old: &Credentials, ns: Arc<super::UserNamespace>) -> Credentials {
    Credentials {
        permitted: abi::capability::CapSet::FULL,
        effective: abi::capability::CapSet::FULL,
        inheritable: abi::capability::CapSet::EMPTY,
        bounding: abi::capability::CapSet::FULL,
        ambient: abi::capability::CapSet::EMPTY,
        securebits: 0,
        user_ns: ns,
        ..old.clone()
    }
}

fn start_context(context: &mut Context, request: &CloneRequest) {
    context.regs.rax = 0;
    context.single_step = false;
    if request.stack != 0 {
        context.regs.rsp = request.stack;
    }
    if request.flags.contains(CloneFlags::CLONE_SETTLS) {
        context.regs.fs_base = request.tls;
    }
}

/// Starts the host thread of a task. EAGAIN if the host has none left.
pub(crate) fn start(task: &Arc<Task>, context: Context) -> Result<()> {
    let task = task.clone();
    host_threads::run(move || match CurrentTask::new(task.clone(), &context) {
        Ok(current) => current.run(),
        Err(e) => {
            tracing::error!(pid = task.tgid(), "cannot start a guest thread: {e}");
            task.group.begin_exit(abi::wait::signaled(Signal::SIGKILL, false));
            CurrentTask::never_started(task);
        }
    })
}

fn detach(parent: &CurrentTask, task: &Arc<Task>, thread: bool) {
    let _tasklist = parent.kernel().tasklist.lock();
    task.group.tasks.lock().retain(|t| !Arc::ptr_eq(t, task));
    drop(task.leave_counts());
    if !thread {
        if let Some(parent) = task.group.parent() {
            parent.family.lock().children.retain(|c| !Arc::ptr_eq(c, &task.group));
        }
        let process_group = task.group.process_group();
        process_group.leave(&task.group);
        task.group.dead.store(true, Ordering::Release);
    }
}
