//! What there is once per sandbox, and how processes are started from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::Platform;

use crate::container::Container;
use crate::fs::anonymous::AnonymousFs;
use crate::fs::cgroup::Hierarchy;
use crate::fs::memfd::Memfds;
use crate::fs::nsfs::NsFs;
use crate::ipc::IpcNamespace;
use crate::ipc::mqueue::QueueBytes;
use crate::keys::Keys;
use crate::log::KernelLog;
use crate::net::NetNamespace;
use crate::parameters::Parameters;
use crate::seccomp::{Filters, Mode};
use crate::statistics::Statistics;
use crate::task::counts::TaskCounts;
use crate::task::credentials::IdMap;
use crate::task::exec::{self, ExecRequest};
use crate::task::freezer::Freezer;
use crate::task::futex::FutexTable;
use crate::task::group::{GroupParts, ProcessGroup, ThreadGroup};
use crate::task::limits::Limits;
use crate::task::namespaces::{Namespaces, PlainNamespace, UtsNamespace};
use crate::task::signal::Actions;
use crate::task::task::{Task, TaskParts};
use crate::task::user_counts::UserCounts;
use crate::task::{Credentials, Pid, PidNamespace, SyscallTable, UserNamespace, clone};
use crate::time::{Clock, TimerQueue};
use crate::vfs::special::Drivers;
use crate::vfs::{FdTable, FsContext, MountNamespace, WalkFlags, operations};

/// What a sandbox is started with.
pub struct KernelOptions {
    /// What programs tell the time by. It has to be made before the sentry is confined.
    pub vdso: Option<crate::loader::Vdso>,
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// The system calls.
    pub syscalls: &'static dyn SyscallTable,
    /// The id of the first container.
    pub container: Arc<str>,
    /// How many processors it sees.
    pub cpus: u32,
    /// How much memory it sees, in bytes.
    pub memory: u64,
    /// Which user and group ids of the host it has.
    pub ids: (IdMap, IdMap),
    /// Log decoded system calls.
    pub strace: bool,
    /// Only these, if any are named.
    pub strace_only: Vec<String>,
}

/// The kernel of a sandbox.
pub struct Kernel {
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// The system calls.
    pub syscalls: &'static dyn SyscallTable,
    /// The source of time.
    pub clock: Clock,
    /// The shared object that programs call for the time; `None` if it could not be made.
    pub vdso: Option<crate::loader::Vdso>,
    /// The timers.
    pub timers: TimerQueue,
    /// The container that the sandbox was made for.
    pub first: Arc<Container>,
    /// Decoded system calls are logged.
    pub strace: bool,
    /// Only these, if any are named.
    pub strace_only: Vec<String>,
    /// Serialises changes of who is whose child, and of process groups and sessions.
    pub tasklist: Mutex<()>,
    /// Futexes.
    pub futexes: FutexTable,
    /// Character devices.
    pub drivers: Drivers,
    /// Where pipes, sockets and other nameless files live.
    pub anonymous: AnonymousFs,
    /// Where files of memfd_create(2) live.
    pub memfds: Memfds,
    /// Groups of processes.
    pub cgroups: Hierarchy,
    /// Where namespaces live as files.
    pub nsfs: NsFs,
    /// The initial user namespace.
    pub user_ns: Arc<UserNamespace>,
    /// The initial pid namespace.
    pub pid_ns: Arc<PidNamespace>,
    /// What the message queues of each user may come to hold.
    pub queue_bytes: Arc<QueueBytes>,
    /// How many threads there are.
    pub counts: Arc<TaskCounts>,
    /// Inotify files of each user, and their watches.
    pub inotify: (Arc<UserCounts>, Arc<UserCounts>),
    /// Files that the epoll instances of each user watch.
    pub epoll_watches: Arc<UserCounts>,
    /// The most threads there may be.
    pub threads_max: usize,
    /// Monotonic nanoseconds at the start of the sandbox.
    pub boot_time: u64,
    /// System calls that are not there, and how often they were made.
    pub unimplemented: Mutex<BTreeMap<String, u64>>,
    /// How many pseudo-terminals there are (`kernel.pty.nr`).
    pub ptys: AtomicU32,
    /// Sums over all that has happened.
    pub statistics: Statistics,
    /// Keys.
    pub keys: Keys,
    /// What syslog(2) reads.
    pub log: KernelLog,
    /// Kernel parameters that were set.
    pub parameters: Parameters,
    /// `kernel.random.boot_id`.
    pub boot_id: [u8; 16],
    /// Woken when a process without a parent inside has ended.
    pub ended: crate::wait::WaitQueue,
    /// Containers that are paused.
    pub freezer: Freezer,
}

/// A process to be started from outside: a container's first, or one by `exec`.
pub struct ProcessRequest {
    /// The container.
    pub container: Arc<Container>,
    /// Arguments; the first names the program.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Credentials.
    pub credentials: Credentials,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Resource limits.
    pub limits: Limits,
    /// umask(2).
    pub umask: u32,
    /// Open files.
    pub files: FdTable,
    /// Namespaces; the process becomes init if it is the first of the pid namespace.
    pub namespaces: Namespaces,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// Seccomp filters.
    pub seccomp: Option<Arc<Filters>>,
    /// The terminal that becomes the controlling one of the new session.
    pub terminal: Option<Arc<crate::fs::tty::Terminal>>,
}

impl Kernel {
    /// A kernel without processes.
    pub fn new(options: KernelOptions) -> Result<Arc<Kernel>> {
        let user_ns = UserNamespace::initial(options.ids);
        let clock = Clock::default();
        let boot_time = clock.monotonic();
        let cgroups = Hierarchy::default();
        let first = Container::new(
            options.container,
            options.platform.clone(),
            cgroups.root().clone(),
            options.cpus,
            options.memory,
        );
        let kernel = Arc::new(Kernel {
            first,
            platform: options.platform,
            syscalls: options.syscalls,
            clock,
            vdso: options.vdso,
            timers: TimerQueue::default(),
            strace: options.strace,
            strace_only: options.strace_only,
            tasklist: Mutex::new(()),
            futexes: FutexTable::default(),
            drivers: Drivers::default(),
            anonymous: AnonymousFs::new(),
            memfds: Memfds::new(options.memory),
            cgroups,
            nsfs: NsFs::default(),
            pid_ns: PidNamespace::new(None, user_ns.clone())?,
            user_ns,
            queue_bytes: Arc::default(),
            counts: Arc::default(),
            inotify: Default::default(),
            epoll_watches: Arc::default(),
            threads_max: threads_max(options.memory),
            boot_time,
            unimplemented: Mutex::default(),
            ptys: AtomicU32::new(0),
            statistics: Statistics::default(),
            keys: Keys::default(),
            log: KernelLog::default(),
            parameters: Parameters::default(),
            boot_id: random_uuid(),
            ended: crate::wait::WaitQueue::new(),
            freezer: Freezer::default(),
        });
        let (cpus, memory) = (kernel.first.cpus(), kernel.first.memory() / 1024);
        kernel.log.add(5, 0, &format!("Linux version {RELEASE} (runsc) {VERSION}"));
        kernel.log.add(6, 0, &format!("Memory: {memory}K available, {cpus} processors"));
        crate::fs::register_drivers(&kernel);
        Ok(kernel)
    }

    /// Namespaces for a container: all its own, with `mounts` and `ipc`.
    pub fn container_namespaces(
        &self,
        mounts: Arc<MountNamespace>,
        ipc: Arc<IpcNamespace>,
        hostname: &[u8],
    ) -> Result<Namespaces> {
        let user_ns = &self.user_ns;
        Ok(Namespaces {
            uts: UtsNamespace::new(hostname, b"(none)", user_ns.clone()),
            ipc,
            mount: mounts,
            net: NetNamespace::new(user_ns.clone()),
            pid_for_children: self.pid_ns.clone(),
            cgroup: PlainNamespace::new(user_ns.clone()),
            time: PlainNamespace::new(user_ns.clone()),
        })
    }

    /// Random bytes of the host's generator.
    pub fn fill_random(&self, buf: &mut [u8]) {
        platform::random::fill(buf);
    }

    /// Starts a process from outside. The error of a program that cannot be run is execve's.
    pub fn start_process(self: &Arc<Kernel>, request: ProcessRequest) -> Result<Arc<ThreadGroup>> {
        let pid = Pid::allocate(&request.namespaces.pid_for_children, &[])?;
        let process_group = ProcessGroup::new_session(pid.clone());
        let is_init = request.namespaces.pid_for_children.init().is_none();
        let group = ThreadGroup::new(GroupParts {
            kernel: self.clone(),
            pid: pid.clone(),
            parent: std::sync::Weak::new(),
            made_by: std::sync::Weak::new(),
            process_group: process_group.clone(),
            exit_signal: None,
            actions: Arc::new(Mutex::new(Actions::default())),
            limits: request.limits,
            container: request.container.clone(),
            is_init,
        });
        group.oom_score_adj.store(request.oom_score_adj, Ordering::Relaxed);
        let root = request.namespaces.mount.root();
        let task = Task::new(TaskParts {
            group: group.clone(),
            pid,
            comm: b"runsc".to_vec(),
            credentials: Arc::new(request.credentials),
            memory: crate::mm::MemoryManager::new(&*request.container.platform)?,
            files: Arc::new(request.files),
            fs: Arc::new(FsContext::new(root.clone(), root, request.umask)),
            namespaces: Arc::new(request.namespaces),
        });
        task.no_new_privs.store(request.no_new_privs, Ordering::Relaxed);
        if let Some(filters) = request.seccomp {
            task.seccomp.set(Mode::Filter(filters));
        }
        let cwd = operations::resolve(&task, None, &request.cwd, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
        task.fs().set_cwd(cwd);
        let (path, name) = find_program(&task, &request.argv, &request.envp)?;
        let file = exec::open_executable(&task, &path)?;
        let exec =
            ExecRequest { file, filename: name, unreachable: false, argv: request.argv, envp: request.envp };
        let program = exec::load(&task, exec)?;
        drop(task.replace_memory_before_start(program.mm));
        task.set_credentials(program.credentials);
        task.set_comm(&program.comm);
        if let Some(terminal) = request.terminal {
            let _tasklist = self.tasklist.lock();
            terminal.take_control(&group);
        }
        task.enter_counts(self.counts.count(task.credentials().uid, &group.container.id));
        group.tasks.lock().push(task.clone());
        if is_init {
            group.pid.namespace().set_init(&group);
        }
        if let Err(e) = clone::start(&task, program.context) {
            group.tasks.lock().clear();
            task.leave_counts();
            return Err(e);
        }
        Ok(group)
    }

    /// How much of a container's memory is free, in bytes. What processes hold is asked for a few times a second at most.
    pub fn memory_free(&self, container: &Arc<Container>) -> u64 {
        let resident = |p: &Arc<ThreadGroup>| {
            p.any_task().and_then(|t| t.memory()).map_or(0, |mm| mm.resident_set().anonymous)
        };
        let of_container = |p: &&Arc<ThreadGroup>| Arc::ptr_eq(&p.container, container);
        let used = || self.processes().iter().filter(of_container).map(resident).sum();
        container.memory().saturating_sub(container.memory_used(self.clock.monotonic(), used))
    }

    /// The load averages over 1, 5 and 15 minutes.
    pub fn load_averages(&self) -> [f64; 3] {
        self.statistics.load(self.clock.monotonic(), self.count_running())
    }

    /// How many threads run.
    pub fn count_running(&self) -> usize {
        let running = |p: &Arc<ThreadGroup>| p.tasks.lock().iter().filter(|t| t.state() == 'R').count();
        self.processes().iter().map(running).sum()
    }

    /// All processes, also the dead ones that were not waited for.
    pub fn processes(&self) -> Vec<Arc<ThreadGroup>> {
        self.pid_ns.pids().into_iter().filter_map(|(_, pid)| pid.group()).collect()
    }

    /// A call that is not there was made.
    pub fn count_unimplemented(&self, name: &str) {
        let mut counts = self.unimplemented.lock();
        if let Some(count) = counts.get_mut(name) {
            *count += 1;
        } else if counts.len() < 1024 {
            counts.insert(name.to_string(), 1);
        }
    }

    pub(crate) fn process_ended(&self, process: &Arc<ThreadGroup>, status: u32) {
        tracing::debug!(pid = process.pid.number(), status, "process ended");
        if process.parent().is_none() {
            self.ended.notify(abi::poll::PollEvents::POLLIN);
        }
    }
}

/// The most threads in a sandbox with `memory` bytes (fork.c's set_max_threads(): an eighth of the memory for stacks of
/// 16 KiB; each guest thread costs the host about as much again). The host's own limits are near the upper bound.
fn threads_max(memory: u64) -> usize {
    (memory / (8 * 16384)).clamp(20, 30_000) as usize
}

/// The release that programs are told (uname(2), `/proc/version`): what they decide by it is there.
pub const RELEASE: &str = "6.12.0";

/// The version that programs are told.
pub const VERSION: &str = "#1 SMP runsc";

/// A random UUID (version 4).
pub fn random_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    platform::random::fill(&mut uuid);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// The program of a container's process: a name with a slash as it is, else the first hit in the PATH of its own
/// environment, as execvp(3) and runc do.
fn find_program(task: &Task, argv: &[Vec<u8>], envp: &[Vec<u8>]) -> Result<(crate::vfs::Path, Vec<u8>)> {
    let name = argv.first().filter(|name| !name.is_empty()).ok_or(Errno::ENOENT)?;
    let find = |path: &[u8]| operations::resolve(task, None, path, WalkFlags::FOLLOW);
    if name.contains(&b'/') {
        return Ok((find(name)?, name.clone()));
    }
    let path = envp.iter().find_map(|e| e.strip_prefix(b"PATH=".as_slice()));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut error = Errno::ENOENT;
    for dir in path.split(|&c| c == b':') {
        let mut full = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        full.push(b'/');
        full.extend_from_slice(name);
        match find(&full) {
            Ok(found) => match exec::open_executable(task, &found) {
                Ok(_) => return Ok((found, full)),
                Err(e) => error = e,
            },
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => error = e,
        }
    }
    Err(error)
}
