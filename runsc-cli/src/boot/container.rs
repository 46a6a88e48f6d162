//! One container of a sandbox: its first process, those that were started beside it, and what they need.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use abi::Errno;
use abi::capability::CapSet;
use abi::resource::Rlimit;
use abi::seccomp::SockFilter;
use abi::siginfo::SigInfo;
use abi::signal::{DefaultAction, SI_USER, Signal};
use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use sentry::Kernel;
use sentry::fs::tty::HostConsole;
use sentry::kernel::ProcessRequest;
use sentry::seccomp::{Filters, Program};
use sentry::task::limits::Limits as ResourceLimits;
use sentry::task::{Credentials, Namespaces, ThreadGroup};
use sentry::vfs::{FdFlags, FdTable};

use super::guest::Process;
use super::host_file::HostFiles;
use super::limits::Limits;
use super::program;
use super::start_hooks::{self, Hook};
use super::stdio::{self, Stdio};
use super::volumes::Gofer;
use crate::control::proto::UsageResponse;
use crate::control::{FIRST, ProcessInfo, Target};
use crate::record::{self, ExitStatus};

/// How many processes that were started by exec are remembered after their end, for those who wait late.
const REMEMBERED: usize = 1024;

/// How long a container that is done waits for the host to take what was written to its terminals.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What a container is made of.
pub struct Parts {
    /// What the kernel knows of it.
    pub container: Arc<sentry::container::Container>,
    /// What its processes see.
    pub namespaces: Namespaces,
    /// It is not alone in its pid namespace, so that nobody ends with its first process unless told to.
    pub shares_pids: bool,
    /// The first process dies of signals that it has no handler for, as any other: it is no init.
    pub mortal_init: bool,
    /// What runs inside just before its first process.
    pub start_hooks: Vec<Hook>,
    /// Its first process.
    pub process: Process,
    /// That process's standard files.
    pub stdio: Stdio,
    /// Where its files come from.
    pub gofer: Arc<Gofer>,
    /// Where its end is written.
    pub record: record::Writer,
    /// The process of the host that stands for it, if that is not the sentry.
    pub stand_in: Option<UnixStream>,
}

/// A container.
pub struct Container {
    /// Its id.
    pub id: Arc<str>,
    /// What its processes see.
    pub namespaces: Namespaces,
    /// Where its files come from.
    pub gofer: Arc<Gofer>,
    /// What the kernel knows of it.
    container: Arc<sentry::container::Container>,
    kernel: Arc<Kernel>,
    shares_pids: bool,
    mortal_init: bool,
    record: record::Writer,
    start_hooks: Vec<Hook>,
    /// The first process until it is started.
    waiting: Mutex<Option<(Process, Stdio)>>,
    processes: Mutex<Processes>,
    /// Ends when this closes.
    stand_in: Mutex<Option<UnixStream>>,
    /// How it ended.
    over: OnceLock<ExitStatus>,
}

/// Processes that were started from outside.
#[derive(Default)]
struct Processes {
    /// The first one, once it was started.
    first: Option<i32>,
    /// By pid.
    started: BTreeMap<i32, Started>,
    /// No more are started.
    closed: bool,
    /// [`Container::finish`] is at work, or was.
    left: bool,
    /// What the first one was killed by before it was started.
    killed_by: Option<Signal>,
}

/// A process that was started from outside.
struct Started {
    group: Arc<ThreadGroup>,
    /// Its terminal; that of the first process as long as the container, others as long as the process.
    console: Option<HostConsole>,
}

impl Container {
    /// A container whose first process waits for its start.
    pub fn new(kernel: &Arc<Kernel>, parts: Parts) -> Result<Container> {
        if let Some(console) = &parts.stdio.console {
            stdio::bind_console(kernel, &parts.namespaces.mount, console).context("making /dev/console")?;
        }
        let credentials = credentials(kernel, &parts.process)?;
        program::check(&parts.namespaces.mount, &credentials, &parts.process)
            .map_err(|errno| why_not_started(&parts.process, errno))?;
        Ok(Container {
            id: parts.container.id.clone(),
            container: parts.container,
            namespaces: parts.namespaces,
            gofer: parts.gofer,
            kernel: kernel.clone(),
            shares_pids: parts.shares_pids,
            mortal_init: parts.mortal_init,
            record: parts.record,
            start_hooks: parts.start_hooks,
            waiting: Mutex::new(Some((parts.process, parts.stdio))),
            processes: Mutex::default(),
            stand_in: Mutex::new(parts.stand_in),
            over: OnceLock::new(),
        })
    }

    /// Whether its first process was started.
    pub fn is_started(&self) -> bool {
        self.processes.lock().first.is_some()
    }

    /// Lets the first process run.
    pub fn start(&self, host_files: &HostFiles) -> Result<()> {
        let Some((process, mut stdio)) = self.waiting.lock().take() else {
            bail!("it was started before");
        };
        // Callers set the size of the window as soon as they have the terminal.
        if let Some(console) = &stdio.console {
            stdio::update_size(console);
        }
        let hooks =
            start_hooks::run(&self.kernel, &self.container, &self.namespaces, host_files, &self.start_hooks);
        match hooks.and_then(|()| self.start_process(&process, &mut stdio, true)) {
            Ok(_) => {
                self.record.set_started();
                Ok(())
            }
            Err(error) => {
                *self.waiting.lock() = Some((process, stdio));
                Err(error)
            }
        }
    }

    /// Starts another process. It is nobody's child; its status is kept for [`Container::ended`].
    pub fn exec(&self, host_files: &HostFiles, process: &Process, fds: Vec<OwnedFd>) -> Result<i32> {
        if !self.is_started() {
            bail!("the container was not started yet");
        }
        if self.kernel.freezer.holds(&self.id) {
            bail!("cannot exec in a paused container");
        }
        let mut stdio = stdio::open(&self.kernel, &self.namespaces.mount, host_files, process, fds)?;
        self.start_process(process, &mut stdio, false)
    }

    fn start_process(&self, process: &Process, stdio: &mut Stdio, first: bool) -> Result<i32> {
        let terminal = stdio.console.as_ref().map(|console| console.terminal().clone());
        let files = FdTable::new();
        for (number, file) in stdio.files.iter().cloned().enumerate() {
            files.install(file, FdFlags::empty(), number as i32, u64::MAX).context("standard files")?;
        }
        let limits = ResourceLimits::initial();
        for limit in &process.rlimits {
            limits.set(limit.resource, Rlimit { rlim_cur: limit.soft, rlim_max: limit.hard });
        }
        let bytes = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
        let request = ProcessRequest {
            container: self.container.clone(),
            argv: bytes(&process.args),
            envp: bytes(&process.env),
            cwd: process.cwd.clone().into_bytes(),
            credentials: credentials(&self.kernel, process)?,
            no_new_privs: process.no_new_privileges,
            limits,
            umask: process.umask,
            files,
            namespaces: self.namespaces.clone(),
            oom_score_adj: process.oom_score_adj,
            seccomp: process.seccomp.as_ref().map(filters).transpose()?,
            terminal,
        };
        let group = self.kernel.start_process(request).map_err(|errno| why_not_started(process, errno))?;
        let pid = group.pid.number() as i32;
        let mut processes = self.processes.lock();
        if processes.closed {
            kill(&group);
            bail!("the container ends");
        }
        let forgotten = processes.forget_old();
        if first {
            processes.first = Some(pid);
        }
        processes.started.insert(pid, Started { group, console: stdio.console.take() });
        drop(processes);
        drop(forgotten);
        Ok(pid)
    }

    /// Holds its processes; when this returns, none of them runs.
    pub fn pause(&self) -> Result<()> {
        if !self.kernel.freeze(&self.id) {
            bail!("a thread cannot be brought to a halt");
        }
        Ok(())
    }

    /// Lets its processes go on.
    pub fn resume(&self) {
        self.kernel.thaw(&self.id);
    }

    /// Sets its limits, and what it sees of them.
    pub fn limit(&self, limits: &Limits) {
        limits.apply(&self.kernel, &self.container);
    }

    /// What it uses.
    pub fn usage(&self) -> UsageResponse {
        let pids = self.kernel.counts.of_container(&self.id);
        let mut usage = UsageResponse {
            pids: pids.current as u64,
            pids_limit: pids.max.map(|max| max as u64),
            ..UsageResponse::default()
        };
        for group in self.living() {
            let time = group.cpu_time();
            usage.cpu_user += time.user;
            usage.cpu_system += time.system;
            let memory = group.any_task().and_then(|task| task.memory());
            usage.memory += memory.map_or(0, |memory| memory.resident_set().anonymous);
        }
        usage
    }

    /// Sends a signal.
    pub fn signal(&self, target: Target, signo: i32) -> Result<()> {
        let signal = match signo {
            0 => None,
            signo => Some(Signal::from_i32(signo).ok_or_else(|| anyhow!("there is no signal {signo}"))?),
        };
        let Some(first) = self.processes.lock().first else { return self.signal_unstarted(target, signal) };
        let named = |pid| if pid == FIRST { first } else { pid };
        if let (Target::Foreground(pid), libc::SIGWINCH) = (target, signo)
            && let Some(console) =
                self.processes.lock().started.get(&named(pid)).and_then(|started| started.console.as_ref())
        {
            // Who is in its foreground is told if there is something to tell.
            stdio::update_size(console);
            return Ok(());
        }
        let targets = match target {
            Target::Process(pid) => vec![self.process(named(pid))?],
            Target::All => self.living(),
            Target::Foreground(pid) => {
                let group = self.process(named(pid))?;
                let foreground = group.terminal().and_then(|terminal| terminal.foreground());
                let foreground = foreground.and_then(|pid| pid.process_group());
                foreground.map_or_else(|| vec![group], |foreground| foreground.members())
            }
        };
        for group in &targets {
            if let Some(signal) = signal {
                self.send(group, signal)?;
            }
        }
        Ok(())
    }

    /// A first process that waits for its start has no handlers: it is killed, or there is no effect.
    fn signal_unstarted(&self, target: Target, signal: Option<Signal>) -> Result<()> {
        if let Target::Process(pid) | Target::Foreground(pid) = target
            && pid != FIRST
        {
            bail!("no such process: {pid}");
        }
        let fatal =
            |signal: &Signal| matches!(signal.default_action(), DefaultAction::Term | DefaultAction::Core);
        if let Some(signal) = signal.filter(fatal) {
            let mut processes = self.processes.lock();
            processes.closed = true;
            processes.killed_by.get_or_insert(signal);
        }
        Ok(())
    }

    fn send(&self, group: &Arc<ThreadGroup>, signal: Signal) -> Result<()> {
        if signal == Signal::SIGKILL {
            kill(group);
            return Ok(());
        }
        let info = match self.mortal_init {
            true => SigInfo::kernel(signal),
            // From nobody that it knows, as from another pid namespace.
            false => SigInfo::kill(signal, SI_USER, 0, 0),
        };
        group.send_signal_from_outside(info).context("sending the signal")
    }

    /// Its process with this pid.
    fn process(&self, pid: i32) -> Result<Arc<ThreadGroup>> {
        u32::try_from(pid)
            .ok()
            .and_then(|pid| self.namespaces.pid_for_children.find(pid))
            .and_then(|pid| pid.group())
            .filter(|group| !group.is_dead() && self.owns(group))
            .ok_or_else(|| anyhow!("no such process: {pid}"))
    }

    fn owns(&self, group: &ThreadGroup) -> bool {
        group.container.id == self.id
    }

    /// Its processes that are not dead.
    fn living(&self) -> Vec<Arc<ThreadGroup>> {
        let all = self.kernel.processes().into_iter();
        all.filter(|group| !group.is_dead() && self.owns(group)).collect()
    }

    /// Whether any of its processes lives.
    pub fn lives(&self) -> bool {
        !self.living().is_empty()
    }

    /// Its processes, for `ps`.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let realtime = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = self.kernel.clock.monotonic();
        let namespace = &self.namespaces.pid_for_children;
        let info = |group: Arc<ThreadGroup>| {
            let task = group.any_task()?;
            Some(ProcessInfo {
                pid: group.pid.number_in(namespace) as i32,
                ppid: group.parent().map_or(0, |parent| parent.pid.number_in(namespace) as i32),
                uid: task.credentials().euid,
                threads: group.threads().len() as u32,
                started: realtime.saturating_sub(now.saturating_sub(group.start_time) / 1_000_000_000),
                cpu_ms: group.cpu_time().total() / 1_000_000,
                tty: group.terminal().map_or_else(|| "?".into(), |terminal| terminal.name()),
                command: String::from_utf8_lossy(&task.comm()).into_owned(),
            })
        };
        let all = self.kernel.processes().into_iter();
        all.filter(|group| self.owns(group)).filter_map(info).collect()
    }

    /// How a process ended: the first one, or one that was started by exec. None while it lives. The first one has
    /// ended when all that it wrote has arrived.
    pub fn ended(&self, pid: i32) -> Result<Option<ExitStatus>> {
        let mut processes = self.processes.lock();
        let is_first = pid == FIRST || processes.first == Some(pid);
        if is_first {
            return Ok(self.over.get().copied());
        }
        let started = processes.started.get_mut(&pid).ok_or_else(|| anyhow!("no such process: {pid}"))?;
        let Some(status) = started.group.exited.get() else { return Ok(None) };
        let console = started.console.take();
        drop(processes);
        drop(console);
        Ok(Some(exit_status(status)))
    }

    /// Whether the first process has ended and [`Container::finish`] is to be called: true only once.
    pub fn takes_leave(&self) -> bool {
        let mut processes = self.processes.lock();
        let over = match processes.first.and_then(|first| processes.started.get(&first)) {
            Some(first) => first.group.exited.get().is_some(),
            None => processes.closed,
        };
        let leaves = over && !processes.left;
        processes.left |= leaves;
        processes.closed |= leaves;
        leaves
    }

    /// The first process has ended, or never will be: nothing more happens, what is on its way to the host gets a last
    /// chance, and everybody is told.
    pub fn finish(&self) {
        let mut processes = self.processes.lock();
        (processes.closed, processes.left) = (true, true);
        let first = processes.first.and_then(|first| processes.started.get_mut(&first));
        let status = first.as_ref().and_then(|first| first.group.exited.get()).map(exit_status);
        let console = first.and_then(|first| first.console.take());
        let killed_by = processes.killed_by.unwrap_or(Signal::SIGKILL);
        drop(processes);
        if self.shares_pids {
            self.kill_all();
        }
        if let Some(console) = console {
            console.drain(DRAIN_LIMIT);
        }
        let status =
            *self.over.get_or_init(|| status.unwrap_or(ExitStatus::Killed(killed_by.number() as u8)));
        self.record.set_exit(status);
        drop(self.waiting.lock().take());
        // So that nothing of it is left in its cgroup.
        self.container.platform.close();
        if let Some(stand_in) = self.stand_in.lock().take() {
            // There is another descriptor, of who watches it.
            let _ = stand_in.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Kills all of its processes. No more are started.
    pub fn kill_all(&self) {
        self.processes.lock().closed = true;
        for group in self.living() {
            kill(&group);
        }
    }

    /// A handle of what closes when the process of the host that stands for it has ended.
    pub fn stand_in(&self) -> Option<UnixStream> {
        self.stand_in.lock().as_ref().and_then(|stream| stream.try_clone().ok())
    }
}

impl Processes {
    /// Those that nobody needs to know any more.
    fn forget_old(&mut self) -> Vec<Started> {
        let mut forgotten = Vec::new();
        while self.started.len() > REMEMBERED {
            let ended = |(pid, started): &(&i32, &Started)| {
                Some(**pid) != self.first && started.group.exited.get().is_some()
            };
            let Some(pid) = self.started.iter().find(ended).map(|(pid, _)| *pid) else { break };
            forgotten.extend(self.started.remove(&pid));
        }
        forgotten
    }
}

/// From outside, even the first process of a pid namespace can be killed.
fn kill(group: &Arc<ThreadGroup>) {
    group.begin_exit(Signal::SIGKILL.number());
}

fn exit_status(status: u32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Exited((status >> 8) as u8),
        signal => ExitStatus::Killed(signal as u8),
    }
}

fn credentials(kernel: &Kernel, process: &Process) -> Result<Credentials> {
    let user_ns = &kernel.user_ns;
    let absent = |what, id| {
        move || {
            format!("{what} id {id} is not in linux.{}Mappings", if what == "user" { "uid" } else { "gid" })
        }
    };
    let group = |gid| user_ns.kernel_gid(gid).with_context(absent("group", gid));
    let uid = user_ns.kernel_uid(process.uid).with_context(absent("user", process.uid))?;
    let gid = group(process.gid)?;
    let groups = process.groups.iter().map(|gid| group(*gid)).collect::<Result<Vec<_>>>()?;
    let sets = &process.capabilities;
    Ok(Credentials {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups: groups.into(),
        permitted: CapSet::from_bits_truncate(sets.permitted),
        effective: CapSet::from_bits_truncate(sets.effective),
        inheritable: CapSet::from_bits_truncate(sets.inheritable),
        bounding: CapSet::from_bits_truncate(sets.bounding),
        ambient: CapSet::from_bits_truncate(sets.ambient),
        ..Credentials::root(user_ns.clone())
    })
}

/// A process's seccomp filter, checked as one that a guest installs.
fn filters(filter: &crate::seccomp::Filter) -> Result<Arc<Filters>> {
    let code: Vec<SockFilter> =
        filter.instructions.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
    let program = Program::check(&code).context("linux.seccomp")?;
    Filters::new(None, program, filter.log).context("linux.seccomp")
}

/// execvp's error as callers of runtimes know it.
fn why_not_started(process: &Process, errno: Errno) -> anyhow::Error {
    let program = process.args.first().map(String::as_str).unwrap_or_default();
    match errno {
        Errno::ENOENT if !program.contains('/') => {
            anyhow!("exec: {program:?}: executable file not found in $PATH")
        }
        errno => anyhow::Error::new(errno).context(format!("exec: {program:?}")),
    }
}
