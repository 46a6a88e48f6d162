//! Where the boot process meets the sentry: makes the kernel of a sandbox, and answers the control thread by it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::capability::CapSet;
use abi::poll::PollEvents;
use abi::resource::Rlimit;
use abi::seccomp::SockFilter;
use abi::siginfo::SigInfo;
use abi::signal::{SI_USER, Signal};
use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use platform::Platform;
use sentry::Kernel;
use sentry::fs::tty::HostConsole;
use sentry::ipc::IpcNamespace;
use sentry::kernel::{KernelOptions, ProcessRequest};
use sentry::loader::Vdso;
use sentry::seccomp::{Filters, Program};
use sentry::task::limits::Limits;
use sentry::task::{Credentials, Namespaces, ThreadGroup};
use sentry::vfs::{FdFlags, FdTable};
use sentry::wait::{Registration, Wake};

use super::config::BootConfig;
use super::control::{Control, INIT};
use super::guest::{Guest, Process};
use super::host_file::HostFiles;
use super::mounts;
use super::program;
use super::stdio::{self, Stdio};
use crate::control::{ProcessInfo, Target};
use crate::record::ExitStatus;
use crate::report;

/// The names that `--platform` takes beside auto, the preferred one first.
pub const PLATFORMS: &[&str] = &["systrap", "ptrace"];

/// How many processes that were started by exec are remembered after their end, for those who wait late.
const REMEMBERED: usize = 1024;

/// How long a sandbox that is done waits for the host to take what was written to its terminals.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Number, name, support and note of each system call that Linux has.
pub fn syscall_table() -> Vec<[String; 4]> {
    (0..=abi::sysno::MAX)
        .filter_map(|number| {
            let name = abi::sysno::name(number)?;
            let (support, note) = match syscalls::TABLE.row(number) {
                None => ("missing", ""),
                Some(row) => match row.support {
                    syscalls::Support::Full => ("full", row.note),
                    syscalls::Support::Partial => ("partial", row.note),
                    syscalls::Support::Missing => ("missing", row.note),
                },
            };
            Some([number.to_string(), name.to_owned(), support.to_owned(), note.to_owned()])
        })
        .collect()
}

/// Makes a platform by its name; `auto` is the first that works. Must be called while the process has one thread, in
/// its final namespaces, before its filters. `patching`: systrap may rewrite call sites of guests.
pub fn platform(name: &str, patching: bool) -> Result<Arc<dyn Platform>> {
    match name {
        "auto" => {
            let mut failures = Vec::new();
            for name in PLATFORMS {
                match platform(name, patching) {
                    Ok(platform) => return Ok(platform),
                    Err(error) => failures.push(report::line(&error)),
                }
            }
            bail!("none works here: {}", failures.join("; "))
        }
        "systrap" => Ok(Arc::new(platform_systrap::SystrapPlatform::new(patching)?)),
        "ptrace" => Ok(Arc::new(platform_ptrace::Ptrace::new()?)),
        _ => bail!("there is no such platform"),
    }
}

/// Makes the kernel of the sandbox, mounts its files and prepares its first process, which waits for its start.
pub fn start(
    config: BootConfig,
    platform: Arc<dyn Platform>,
    gofer: OwnedFd,
    stdio: [OwnedFd; 3],
    vdso: Option<Vdso>,
) -> Result<Arc<dyn Control>> {
    let guest = config.guest;
    let kernel = Kernel::new(KernelOptions {
        vdso,
        platform,
        syscalls: &syscalls::TABLE,
        cpus: u32::try_from(guest.cpus).unwrap_or(u32::MAX),
        memory: guest.memory,
        strace: config.strace,
        strace_only: config.strace_calls,
    })
    .context("making the kernel")?;
    guest.limits.apply(&kernel, &guest.id.as_str().into());
    let ipc = IpcNamespace::new(&kernel, kernel.user_ns.clone());
    let mounts = mounts::build(&kernel, &ipc, &guest, gofer, (config.shared_root, config.shared_mounts))?;
    let namespaces = kernel
        .container_namespaces(mounts, ipc, guest.hostname.as_bytes())
        .context("making the namespaces")?;
    if !guest.domainname.is_empty() {
        namespaces.uts.set_domainname(guest.domainname.as_bytes());
    }
    for (name, value) in &guest.sysctl {
        // What is not there cannot be tuned, and containers are better off running.
        if let Err(error) = sentry::fs::proc::sysctl::set(&kernel, &namespaces, name, value) {
            tracing::warn!("sysctl {name}={value}: {error}");
        }
    }
    let host_files = HostFiles::new()?;
    let stdio = stdio::open(&kernel, &namespaces.mount, &host_files, &guest.process, stdio)?;
    if let Some(console) = &stdio.console {
        stdio::bind_console(&kernel, &namespaces.mount, console).context("making /dev/console")?;
    }
    let credentials = credentials(&kernel, &guest.process);
    program::check(&namespaces.mount, &credentials, &guest.process)
        .map_err(|errno| why_not_started(&guest.process, errno))?;
    Ok(Arc::new(Sandbox {
        kernel,
        namespaces,
        host_files,
        waiting: Mutex::new(Some((guest.process.clone(), stdio))),
        guest,
        started: Mutex::default(),
        notify: Mutex::default(),
        mortal_init: config.die_with_command,
    }))
}

struct Sandbox {
    kernel: Arc<Kernel>,
    guest: Guest,
    namespaces: Namespaces,
    host_files: HostFiles,
    /// The first process until it is started.
    waiting: Mutex<Option<(Process, Stdio)>>,
    /// Processes that were started from outside, by pid.
    started: Mutex<BTreeMap<i32, Started>>,
    notify: Mutex<Option<Registration>>,
    /// The first process dies of signals that it has no handler for, as any other: it is no init.
    mortal_init: bool,
}

/// A process that was started from outside.
struct Started {
    group: Arc<ThreadGroup>,
    /// Its terminal; that of the first process as long as the sandbox, others as long as the process.
    console: Option<HostConsole>,
}

struct Notify(Box<dyn Fn() + Send + Sync>);

impl Wake for Notify {
    fn wake(&self, _events: PollEvents) {
        (self.0)();
    }
}

impl Sandbox {
    fn start_process(&self, process: &Process, stdio: &mut Stdio) -> Result<i32> {
        let terminal = stdio.console.as_ref().map(|console| console.terminal().clone());
        let files = FdTable::new();
        for (number, file) in stdio.files.iter().cloned().enumerate() {
            files.install(file, FdFlags::empty(), number as i32, 3).context("standard files")?;
        }
        let limits = Limits::initial();
        for limit in &process.rlimits {
            limits.set(limit.resource, Rlimit { rlim_cur: limit.soft, rlim_max: limit.hard });
        }
        let bytes = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
        let request = ProcessRequest {
            container: self.guest.id.as_str().into(),
            argv: bytes(&process.args),
            envp: bytes(&process.env),
            cwd: process.cwd.clone().into_bytes(),
            credentials: credentials(&self.kernel, process),
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
        let mut started = self.started.lock();
        while started.len() > REMEMBERED {
            let Some(ended) =
                started.iter().find(|(pid, started)| **pid != INIT && started.group.exited.get().is_some())
            else {
                break;
            };
            let pid = *ended.0;
            started.remove(&pid);
        }
        started.insert(pid, Started { group, console: stdio.console.take() });
        Ok(pid)
    }

    fn process(&self, pid: i32) -> Result<Arc<ThreadGroup>> {
        u32::try_from(pid)
            .ok()
            .and_then(|pid| self.kernel.pid_ns.find(pid))
            .and_then(|pid| pid.group())
            .filter(|group| !group.is_dead())
            .ok_or_else(|| anyhow!("no such process: {pid}"))
    }

    fn send(&self, group: &Arc<ThreadGroup>, signal: Signal) -> Result<()> {
        if signal == Signal::SIGKILL {
            // From outside, even the first process of a pid namespace can be killed.
            group.begin_exit(signal.number());
            return Ok(());
        }
        let info = match self.mortal_init {
            true => SigInfo::kernel(signal),
            // From nobody that it knows, as from another pid namespace.
            false => SigInfo::kill(signal, SI_USER, 0, 0),
        };
        group.send_signal_from_outside(info).context("sending the signal")
    }
}

/// A process's seccomp filter, checked as one that a guest installs.
fn filters(filter: &crate::seccomp::Filter) -> Result<Arc<Filters>> {
    let code: Vec<SockFilter> =
        filter.instructions.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
    let program = Program::check(&code).context("linux.seccomp")?;
    Filters::new(None, program, filter.log).context("linux.seccomp")
}

fn credentials(kernel: &Kernel, process: &Process) -> Credentials {
    let sets = &process.capabilities;
    Credentials {
        uid: process.uid,
        euid: process.uid,
        suid: process.uid,
        fsuid: process.uid,
        gid: process.gid,
        egid: process.gid,
        sgid: process.gid,
        fsgid: process.gid,
        groups: process.groups.as_slice().into(),
        permitted: CapSet::from_bits_truncate(sets.permitted),
        effective: CapSet::from_bits_truncate(sets.effective),
        inheritable: CapSet::from_bits_truncate(sets.inheritable),
        bounding: CapSet::from_bits_truncate(sets.bounding),
        ambient: CapSet::from_bits_truncate(sets.ambient),
        ..Credentials::root(kernel.user_ns.clone())
    }
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

impl Control for Sandbox {
    fn start(&self) -> Result<()> {
        let Some((process, mut stdio)) = self.waiting.lock().take() else {
            bail!("it was started before");
        };
        // Callers set the size of the window as soon as they have the terminal.
        if let Some(console) = &stdio.console {
            stdio::update_size(console);
        }
        match self.start_process(&process, &mut stdio) {
            Ok(pid) if pid == INIT => Ok(()),
            Ok(pid) => bail!("the first process has pid {pid}"),
            Err(error) => {
                *self.waiting.lock() = Some((process, stdio));
                Err(error)
            }
        }
    }

    fn exec(&self, process: Process, stdio: [OwnedFd; 3]) -> Result<i32> {
        if self.waiting.lock().is_some() {
            bail!("the container was not started yet");
        }
        let namespace = &self.namespaces.mount;
        let mut stdio = stdio::open(&self.kernel, namespace, &self.host_files, &process, stdio)?;
        self.start_process(&process, &mut stdio)
    }

    fn signal(&self, target: Target, signo: i32) -> Result<()> {
        if self.waiting.lock().is_some() {
            bail!("the container was not started yet");
        }
        let signal = match signo {
            0 => None,
            signo => Some(Signal::from_i32(signo).ok_or_else(|| anyhow!("there is no signal {signo}"))?),
        };
        if let (Target::Foreground(pid), libc::SIGWINCH) = (target, signo)
            && let Some(console) = self.started.lock().get(&pid).and_then(|started| started.console.as_ref())
        {
            // Who is in its foreground is told if there is something to tell.
            stdio::update_size(console);
            return Ok(());
        }
        let targets = match target {
            Target::Process(pid) => vec![self.process(pid)?],
            Target::All => self.kernel.processes().into_iter().filter(|group| !group.is_dead()).collect(),
            Target::Foreground(pid) => {
                let group = self.process(pid)?;
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

    fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let realtime = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = self.kernel.clock.monotonic();
        let info = |group: Arc<ThreadGroup>| {
            let task = group.any_task()?;
            Some(ProcessInfo {
                pid: group.pid.number() as i32,
                ppid: group.parent().map_or(0, |parent| parent.pid.number() as i32),
                uid: task.credentials().euid,
                threads: group.threads().len(),
                started: realtime.saturating_sub(now.saturating_sub(group.start_time) / 1_000_000_000),
                cpu_ms: group.cpu_time().total() / 1_000_000,
                tty: group.terminal().map_or_else(|| "?".into(), |terminal| terminal.name()),
                command: String::from_utf8_lossy(&task.comm()).into_owned(),
            })
        };
        Ok(self.kernel.processes().into_iter().filter_map(info).collect())
    }

    fn ended(&self, pid: i32) -> Result<Option<ExitStatus>> {
        if pid == INIT && self.waiting.lock().is_some() {
            return Ok(None);
        }
        let mut started = self.started.lock();
        for (pid, process) in started.iter_mut() {
            if *pid != INIT && process.group.exited.get().is_some() {
                process.console = None;
            }
        }
        let started = started.get(&pid).ok_or_else(|| anyhow!("no such process: {pid}"))?;
        Ok(started.group.exited.get().map(|status| match status & 0x7f {
            0 => ExitStatus::Exited((status >> 8) as u8),
            signal => ExitStatus::Killed(signal as u8),
        }))
    }

    fn on_end(&self, notify: Box<dyn Fn() + Send + Sync>) {
        let registration = self.kernel.ended.register(PollEvents::POLLIN, Arc::new(Notify(notify)));
        *self.notify.lock() = Some(registration);
    }

    fn finish(&self) {
        for process in self.started.lock().values() {
            if let Some(console) = &process.console {
                console.drain(DRAIN_LIMIT);
            }
        }
    }

    fn unimplemented(&self) -> Vec<(String, u64)> {
        self.kernel.unimplemented.lock().iter().map(|(call, count)| (call.clone(), *count)).collect()
    }
}
