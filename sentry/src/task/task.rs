//! A thread, as others see it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use platform::Interrupter;

use super::counts::Counted;
use super::credentials::Credentials;
use super::group::{CpuTime, ThreadGroup, Usage};
use super::namespaces::Namespaces;
use super::pid::{Pid, PidNamespace};
use super::signal::TaskSignals;
use crate::Kernel;
use crate::mm::MemoryManager;
use crate::vfs::{FdTable, FsContext};
use crate::wait::{Parker, WaitQueue};

/// What `/proc/PID/stat` shows as the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// R: running.
    Running = b'R',
    /// S: in an interruptible wait.
    Sleeping = b'S',
    /// D: in a wait that signals do not end.
    Uninterruptible = b'D',
    /// T: stopped.
    Stopped = b'T',
    /// t: stopped by a tracer.
    Traced = b't',
    /// Z: dead, not waited for.
    Zombie = b'Z',
    /// X: gone.
    Dead = b'X',
}

/// sched_setattr(2)'s data. Recorded and shown; the host schedules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// Static priority of the real-time policies.
    pub priority: u32,
    /// -20..=19.
    pub nice: i32,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
    /// ioprio_set(2): class and level; 0 if it was not set.
    pub io_priority: u16,
}

impl Scheduling {
    /// What orders queues of waiters (MAX_RT_PRIO): 0 for the policies without real-time priority.
    pub fn realtime_priority(&self) -> u32 {
        match self.policy {
            abi::sched::SCHED_FIFO | abi::sched::SCHED_RR => self.priority,
            abi::sched::SCHED_DEADLINE => u32::MAX,
            _ => 0,
        }
    }
}

/// A thread.
pub struct Task {
    /// The process it belongs to.
    pub group: Arc<ThreadGroup>,
    pid: RwLock<Arc<Pid>>,
    comm: Mutex<Vec<u8>>,
    credentials: RwLock<Arc<Credentials>>,
    memory: RwLock<Option<Arc<MemoryManager>>>,
    files: RwLock<Option<Arc<FdTable>>>,
    fs: RwLock<Arc<FsContext>>,
    namespaces: RwLock<Arc<Namespaces>>,
    /// Pending signals of the thread, its mask and its alternate stack.
    pub signals: Mutex<TaskSignals>,
    /// Something has to be looked at before the guest goes on (TIF_SIGPENDING and its sisters).
    pub work: AtomicBool,
    /// What the calls of [`platform::ANSWERS`] return may have changed.
    pub(super) identity_changed: AtomicBool,
    state: AtomicU8,
    parker: OnceLock<Arc<Parker>>,
    interrupter: Mutex<Option<Arc<dyn Interrupter>>>,
    /// CLONE_CHILD_CLEARTID, set_tid_address(2): 0 or where to write 0 at the end.
    pub clear_child_tid: AtomicU64,
    /// set_robust_list(2).
    pub robust_list: AtomicU64,
    /// The thread has given up its futexes: it owns no locks any more, whatever their words say.
    pub futexes_left: AtomicBool,
    /// PR_SET_PDEATHSIG.
    pub parent_death_signal: AtomicI32,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: AtomicBool,
    /// PR_SET_TIMERSLACK in nanoseconds.
    pub timer_slack: AtomicU64,
    /// What PR_SET_TIMERSLACK goes back to: that of the thread that made this one.
    pub default_timer_slack: AtomicU64,
    /// Scheduling parameters.
    pub scheduling: Mutex<Scheduling>,
    /// What sched_setaffinity(2) has set, as bits.
    pub affinity: Mutex<Option<Vec<u64>>>,
    /// Guest processor time in nanoseconds, as of the last look.
    pub user_time: AtomicU64,
    /// How often `user_time` was brought up to date.
    pub cpu_notes: AtomicU32,
    /// The guest has run since.
    pub cpu_stale: AtomicBool,
    /// Time spent in the sentry on behalf of the guest, in nanoseconds: all of it, once the thread has ended.
    system_time: AtomicU64,
    /// The host thread that serves it; 0 when there is none.
    pub(super) host_thread: AtomicI32,
    /// What that had used before, for other tasks.
    pub(super) host_time_before: AtomicU64,
    /// Voluntary waits.
    pub waits: AtomicU64,
    /// It has a tracer.
    pub(super) traced: AtomicBool,
    /// By PTRACE_SEIZE.
    pub(super) seized: AtomicBool,
    /// Stops that are wanted of it: bits of `ptrace::TRAP_*`.
    pub(super) traps: AtomicU8,
    /// What it and its tracer know of each other.
    pub(super) tracing: Mutex<super::ptrace::Tracing>,
    /// Whom it traces.
    pub(super) tracer_of: super::ptrace::Tracer,
    /// Keyrings of its own.
    pub keyrings: crate::keys::TaskKeyrings,
    /// set_mempolicy(2).
    pub memory_policy: Mutex<crate::mm::policy::Policy>,
    /// What its calls go through.
    pub seccomp: crate::seccomp::Seccomp,
    /// A vfork parent waits for this: set when memory was given up.
    pub vfork_done: OnceLock<Arc<VforkDone>>,
    /// The number of the system call being carried out, or -1, for `/proc/PID/syscall`.
    pub syscall: AtomicI32,
    /// PR_SET_SECUREBITS' and dumpable's sister: PR_SET_IO_FLUSHER and other bits that are only remembered.
    pub prctl_bits: AtomicU32,
    /// It is counted against RLIMIT_NPROC of its user.
    counted: Mutex<Option<Counted>>,
    /// It became the thread of a user who has too many: execve(2) is EAGAIN while that is so (PF_NPROC_EXCEEDED).
    pub too_many: AtomicBool,
    /// Start in monotonic nanoseconds.
    pub start_time: u64,
}

/// What a vfork parent waits on.
#[derive(Default)]
pub struct VforkDone {
    done: AtomicBool,
    /// Woken when done.
    pub queue: WaitQueue,
}

impl VforkDone {
    /// The child has called execve, or is dead.
    pub fn set(&self) {
        self.done.store(true, Ordering::Release);
        self.queue.notify(abi::poll::PollEvents::POLLIN);
    }

    /// Is it?
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// What a task is made of.
pub struct TaskParts {
    /// Its process.
    pub group: Arc<ThreadGroup>,
    /// Its number.
    pub pid: Arc<Pid>,
    /// Its name.
    pub comm: Vec<u8>,
    /// Credentials.
    pub credentials: Arc<Credentials>,
    /// Memory.
    pub memory: Arc<MemoryManager>,
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// Root and working directory.
    pub fs: Arc<FsContext>,
    /// Namespaces.
    pub namespaces: Arc<Namespaces>,
}

impl Task {
    /// A task that does not run yet and is not in its group's list.
    pub fn new(parts: TaskParts) -> Arc<Task> {
        let start_time = parts.group.kernel.clock.monotonic();
        parts.group.kernel.statistics.task_made();
        let task = Arc::new(Task {
            group: parts.group,
            pid: RwLock::new(parts.pid.clone()),
            comm: Mutex::new(parts.comm),
            credentials: RwLock::new(parts.credentials),
            memory: RwLock::new(Some(parts.memory)),
            files: RwLock::new(Some(parts.files)),
            fs: RwLock::new(parts.fs),
            namespaces: RwLock::new(parts.namespaces),
            signals: Mutex::default(),
            // It looks before it begins: there may be signals from before it could be woken.
            work: AtomicBool::new(true),
            identity_changed: AtomicBool::new(true),
            state: AtomicU8::new(RunState::Running as u8),
            parker: OnceLock::new(),
            interrupter: Mutex::new(None),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            futexes_left: AtomicBool::new(false),
            parent_death_signal: AtomicI32::new(0),
            no_new_privs: AtomicBool::new(false),
            timer_slack: AtomicU64::new(50_000),
            default_timer_slack: AtomicU64::new(50_000),
            scheduling: Mutex::default(),
            affinity: Mutex::new(None),
            user_time: AtomicU64::new(0),
            cpu_notes: AtomicU32::new(0),
            cpu_stale: AtomicBool::new(false),
            system_time: AtomicU64::new(0),
            host_thread: AtomicI32::new(0),
            host_time_before: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            seized: AtomicBool::new(false),
            traps: AtomicU8::new(0),
            tracing: Mutex::default(),
            tracer_of: Default::default(),
            keyrings: Default::default(),
            memory_policy: Mutex::default(),
            seccomp: Default::default(),
            vfork_done: OnceLock::new(),
            syscall: AtomicI32::new(-1),
            prctl_bits: AtomicU32::new(0),
            counted: Mutex::new(None),
            too_many: AtomicBool::new(false),
            start_time,
        });
        parts.pid.set_task(Arc::downgrade(&task));
        task
    }

    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.group.kernel
    }

    /// The thread's number.
    pub fn pid(&self) -> Arc<Pid> {
        self.pid.read().clone()
    }

    pub(super) fn set_pid(self: &Arc<Task>, pid: Arc<Pid>) {
        pid.set_task(Arc::downgrade(self));
        *self.pid.write() = pid;
    }

    /// gettid(2).
    pub fn tid(&self) -> u32 {
        self.pid.read().number()
    }

    /// getpid(2).
    pub fn tgid(&self) -> u32 {
        self.group.pid.number()
    }

    /// The pid namespace that the task itself lives in.
    pub fn pid_ns(&self) -> Arc<PidNamespace> {
        self.group.pid.namespace().clone()
    }

    /// The name (PR_SET_NAME), at most 15 bytes.
    pub fn comm(&self) -> Vec<u8> {
        self.comm.lock().clone()
    }

    /// Sets the name, cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        *self.comm.lock() = name[..name.len().min(15)].to_vec();
    }

    /// The credentials.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().clone()
    }

    /// Replaces the credentials. For the task itself, and for boot.
    pub fn set_credentials(&self, new: Credentials) {
        let uid = new.uid;
        let old = std::mem::replace(&mut *self.credentials.write(), Arc::new(new));
        self.identity_changed();
        if old.uid != uid
            && let Some(counted) = &mut *self.counted.lock()
        {
            let limit = self.group.limits.current(abi::resource::RLIMIT_NPROC);
            let too_many = counted.change_user(uid) as u64 > limit && uid != 0;
            self.too_many.store(too_many, Ordering::Relaxed);
        }
    }

    /// capable(): has the task the capability in the initial user namespace?
    pub fn capable(&self, capability: u32) -> bool {
        self.credentials().capable_in(&self.kernel().user_ns, capability)
    }

    /// It counts from now on.
    pub(crate) fn enter_counts(&self, counted: Counted) {
        *self.counted.lock() = Some(counted);
    }

    /// It counts as long as the result lives.
    pub(crate) fn leave_counts(&self) -> Option<Counted> {
        self.counted.lock().take()
    }

    /// The memory; `None` once it is dead.
    pub fn memory(&self) -> Option<Arc<MemoryManager>> {
        self.memory.read().clone()
    }

    pub(super) fn set_memory(&self, new: Option<Arc<MemoryManager>>) -> Option<Arc<MemoryManager>> {
        std::mem::replace(&mut *self.memory.write(), new)
    }

    /// Replaces the memory of a task that does not run yet.
    pub(crate) fn replace_memory_before_start(&self, new: Arc<MemoryManager>) -> Option<Arc<MemoryManager>> {
        self.set_memory(Some(new))
    }

    /// The descriptors; `None` once it is dead.
    pub fn files(&self) -> Option<Arc<FdTable>> {
        self.files.read().clone()
    }

    /// Replaces the descriptor table (unshare, exec, exit).
    pub fn set_files(&self, new: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        std::mem::replace(&mut *self.files.write(), new)
    }

    /// Root and working directory.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.read().clone()
    }

    /// Replaces root and working directory (unshare, setns).
    pub fn set_fs(&self, new: Arc<FsContext>) {
        *self.fs.write() = new;
    }

    /// The namespaces.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.read().clone()
    }

    /// Replaces the namespaces (unshare, setns).
    pub fn set_namespaces(&self, new: Namespaces) {
        *self.namespaces.write() = Arc::new(new);
    }

    /// The state that proc shows.
    pub fn state(&self) -> char {
        self.state.load(Ordering::Relaxed) as char
    }

    pub(crate) fn set_state(&self, state: RunState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// What the calls of [`platform::ANSWERS`] return has changed, or whether the thread may make them.
    pub(crate) fn identity_changed(&self) {
        self.identity_changed.store(true, Ordering::SeqCst);
    }

    /// Makes the thread look at its `work` soon, wherever it is: running its guest, asleep, or about to be either.
    pub fn interrupt(&self) {
        self.work.store(true, Ordering::SeqCst);
        if let Some(parker) = self.parker.get() {
            parker.unpark();
        }
        if let Some(interrupter) = &*self.interrupter.lock() {
            interrupter.interrupt();
        }
    }

    pub(super) fn set_interrupter(&self, interrupter: Option<Arc<dyn Interrupter>>) {
        *self.interrupter.lock() = interrupter;
    }

    /// The parker of the task's thread, made by that thread on first use.
    pub(super) fn parker(&self) -> &Arc<Parker> {
        self.parker.get_or_init(Parker::new)
    }

    /// The limits that memory management asks for.
    pub fn memory_limits(&self) -> crate::mm::Limits {
        use abi::resource as r;
        let limits = &self.group.limits;
        crate::mm::Limits {
            address_space: limits.current(r::RLIMIT_AS),
            data: limits.current(r::RLIMIT_DATA),
            stack: limits.current(r::RLIMIT_STACK),
            memlock: limits.current(r::RLIMIT_MEMLOCK),
            can_lock: self.capable(abi::capability::CAP_IPC_LOCK),
            memory: match crate::parameters::OVERCOMMIT_MEMORY.get(&self.kernel().parameters) {
                1 => u64::MAX,
                _ => self.group.container.memory(),
            },
        }
    }

    /// The processors that it may use, as bits: those that were set as far as they are there, or all
    /// (relax_compatible_cpus_allowed_ptr(), cpuset_cpus_allowed()).
    pub fn affinity(&self) -> Vec<u64> {
        let mut all = all_cpus(self.group.container.cpus());
        if let Some(set) = &*self.affinity.lock() {
            let both: Vec<u64> = all.iter().zip(set).map(|(all, set)| all & set).collect();
            if both.iter().any(|word| *word != 0) {
                all.iter_mut()
                    .zip(both.into_iter().chain(std::iter::repeat(0)))
                    .for_each(|(all, both)| *all = both);
            }
        }
        all
    }

    /// Processor time used; in user mode as of the last look.
    pub fn cpu_time(&self) -> CpuTime {
        CpuTime { user: self.user_time.load(Ordering::Relaxed), system: self.system_time() }
    }

    /// Time spent in the sentry: what the host thread that serves the task has used.
    fn system_time(&self) -> u64 {
        match self.host_thread.load(Ordering::Relaxed) {
            0 => self.system_time.load(Ordering::Relaxed),
            thread => {
                let time = crate::time::thread_time(thread).unwrap_or_default();
                time.saturating_sub(self.host_time_before.load(Ordering::Relaxed))
            }
        }
    }

    /// The calling host thread serves the task from now on.
    pub(super) fn take_host_thread(&self) {
        let thread = nix::unistd::gettid().as_raw();
        let before = crate::time::thread_time(thread).unwrap_or_default();
        self.host_time_before.store(before, Ordering::Relaxed);
        self.host_thread.store(thread, Ordering::Relaxed);
    }

    /// The host thread is about to leave it.
    pub(super) fn keep_system_time(&self) {
        self.system_time.store(self.system_time(), Ordering::Relaxed);
        self.host_thread.store(0, Ordering::Relaxed);
    }

    /// Asks the thread to bring its processor time up to date: it does so at once if it runs its guest or sleeps.
    pub fn refresh_cpu_time(&self) {
        if self.cpu_stale.load(Ordering::Relaxed) {
            self.interrupt();
        }
    }

    /// What getrusage(RUSAGE_THREAD) tells.
    pub fn usage(&self) -> Usage {
        Usage {
            time: self.cpu_time(),
            max_rss: self.memory().map_or(0, |mm| mm.usage().total / 1024),
            voluntary: self.waits.load(Ordering::Relaxed),
            involuntary: 0,
        }
    }
}

/// An affinity mask with the first `cpus` set.
pub fn all_cpus(cpus: u32) -> Vec<u64> {
    let mut mask = vec![0u64; (cpus as usize).div_ceil(64).max(1)];
    for cpu in 0..cpus as usize {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    mask
}
