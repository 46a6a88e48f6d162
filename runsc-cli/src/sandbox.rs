//! Starting the two processes of a sandbox: the gofer and the sentry.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::{Deserialize, Serialize};

use crate::boot::config::{BootConfig, Donated, Outcome};
use crate::cgroup;
use crate::console::Stdio;
use crate::container::CreateArgs;
use crate::control;
use crate::host_namespaces::Network;
use crate::message;
use crate::process::{self, Child, Entered, FIRST_FD, Identity, Place, ProcessId, Spawn};
use crate::record;
use crate::report::{self, Chain};
use crate::spec::{OverlayPolicy, Plan, Served};
use crate::state::{self, Container};

/// The record's name in the container's directory.
pub const RECORD: &str = "record";

/// How long a sentry may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The namespaces that a sentry has of its own, unless it is put into one.
const ALL_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWCGROUP)
    .union(CloneFlags::CLONE_NEWUTS);

/// What the command line says about sandboxes.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ptrace`, `systrap` or `auto`.
    pub platform: String,
    /// systrap may rewrite call sites of guests.
    pub patching: bool,
    /// Where writes go.
    pub overlay: OverlayPolicy,
    /// `--file-access=shared`.
    pub shared_root: bool,
    /// `--file-access-mounts=shared`.
    pub shared_mounts: bool,
    /// `--host-uds`: sockets in served directories may be connected to.
    pub host_sockets: bool,
    /// `--network=host`: internet sockets are the host's.
    pub host_network: bool,
    /// `--strace`.
    pub strace: bool,
    /// `--strace-syscalls`.
    pub strace_calls: Vec<String>,
    /// `--debug`.
    pub debug: bool,
    /// `--debug-log`.
    pub debug_log: Option<String>,
    /// `--panic-log`.
    pub panic_log: Option<String>,
    /// In a user namespace that knows only the caller.
    pub rootless: bool,
    /// `--ignore-cgroups` and `--systemd-cgroup`.
    pub cgroups: cgroup::Policy,
    /// What a test makes the sentry try.
    pub misbehave: Option<String>,
}

/// What the command hands to the gofer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GoferConfig {
    /// Number of the channel.
    pub channel: RawFd,
    /// Number of each directory or file to serve, and whether it is read-only.
    pub served: Vec<(RawFd, bool)>,
    /// Sockets may be connected to.
    pub host_sockets: bool,
    /// The process has a mount namespace of its own.
    pub own_mounts: bool,
    /// Where trace events go.
    pub log: Option<RawFd>,
    /// Log more.
    pub debug: bool,
}

/// A sandbox that is starting.
#[derive(Debug)]
pub struct Sandbox {
    /// The sentry.
    pub sentry: Child,
    /// The gofer.
    pub gofer: Child,
    outcome: OwnedFd,
}

/// Collects the descriptors that a child gets, and says which number each will have.
struct Donations<'a> {
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Donations<'a> {
    /// The first is the configuration.
    fn add(&mut self, fd: BorrowedFd<'a>) -> RawFd {
        self.fds.push(fd);
        FIRST_FD + self.fds.len() as RawFd
    }

    fn with_config(self, config: &'a OwnedFd) -> Vec<BorrowedFd<'a>> {
        std::iter::once(config.as_fd()).chain(self.fds).collect()
    }
}

/// Where processes of the host are put before they execute anything.
pub struct Home<'a> {
    /// What they enter by themselves.
    pub place: Place,
    /// What the caller does for the rest.
    pub prepare: &'a dyn Fn(Pid, &Entered) -> Result<()>,
}

/// Starts gofer and sentry. Both end by themselves if the caller dies before the sentry has booted. Before the sentry
/// executes anything, `announce` is told of the two.
pub fn start(
    options: &Options,
    container: &Container,
    plan: &Plan,
    stdio: &Stdio,
    home: &Home<'_>,
    announce: &dyn Fn(ProcessId, ProcessId) -> Result<()>,
    args: &CreateArgs,
) -> Result<Sandbox> {
    let id = &container.id;
    let record = record::create(&container.path.join(RECORD))?;
    let listening = state::listen(&container.path, control::SOCKET, state::Kind::Stream)?;
    let listening_fds = state::listen(&container.path, control::FDS_SOCKET, state::Kind::Packets)?;
    let (outcome_read, outcome_write) = pipe2(OFlag::O_CLOEXEC)?;
    let boot_log = open_log(options, "boot", id)?;
    let (gofer, client) = start_gofer(options, id, &plan.served, home)?;
    let null = null()?;
    let error_output = error_output(options, id)?;
    let user_log = args.user_log.as_deref().map(report::open_log).transpose()?;
    let network = match &plan.network {
        // Who is not the host's root cannot enter it with a user namespace of its own.
        Network::Of(_) if options.rootless => None,
        Network::Of(file) => Some(file.as_fd()),
        Network::New | Network::Callers => None,
    };
    let become_nobody = !options.rootless && process::knows_nobody();
    let mut donations = Donations { fds: Vec::new() };
    let donated = Donated {
        outcome: donations.add(outcome_write.as_fd()),
        control: donations.add(listening.as_fd()),
        fds: donations.add(listening_fds.as_fd()),
        record: donations.add(record.as_fd()),
        gofer: donations.add(client.as_fd()),
        stdio: [
            donations.add(stdio.fds[0].as_fd()),
            donations.add(stdio.fds[1].as_fd()),
            donations.add(stdio.fds[2].as_fd()),
        ],
        preserved: stdio.preserved.iter().map(|fd| donations.add(fd.as_fd())).collect(),
        user_log: user_log.as_ref().map(|log| donations.add(log.as_fd())),
        log: boot_log.as_ref().map(|log| donations.add(log.as_fd())),
        view: plan
            .view
            .as_ref()
            .map(|view| [donations.add(view.device.as_fd()), donations.add(view.mount.as_fd())]),
    };
    let config = BootConfig {
        guest: plan.guest.clone(),
        platform: options.platform.clone(),
        patching: options.patching,
        become_nobody,
        die_with_command: args.die_with_command,
        controlling_terminal: stdio.new_terminal,
        shared_root: options.shared_root,
        shared_mounts: options.shared_mounts,
        host_sockets: options.host_sockets,
        host_network: options.host_network,
        own_network: options.host_network && matches!(plan.network, Network::New),
        strace: options.strace,
        strace_calls: options.strace_calls.clone(),
        debug: options.debug,
        donated,
        misbehave: options.misbehave.clone(),
    };
    let config = message::sealed_memfd(c"boot", &serde_json::to_vec(&config)?)?;
    let standard_input = match stdio.new_terminal {
        true => stdio.fds[0].as_fd(),
        false => null.as_fd(),
    };
    let callers = options.host_network && matches!(plan.network, Network::Callers);
    let namespaces = match network.is_some() || callers {
        true => ALL_NAMESPACES.difference(CloneFlags::CLONE_NEWNET),
        false => ALL_NAMESPACES,
    };
    let gofer_id = ProcessId::of(gofer.child()?.pid)?;
    let prepare = |pid, entered: &Entered| {
        (home.prepare)(pid, entered)?;
        announce(ProcessId::of(pid)?, gofer_id.clone())
    };
    let sentry = Spawn {
        args: vec!["runsc-sandbox".into(), "boot".into(), id.clone()],
        namespaces,
        identity: match become_nobody {
            true => Identity::RootAndNobody,
            false => Identity::Single,
        },
        stdio: [standard_input, null.as_fd(), error_output.as_fd()],
        fds: donations.with_config(&config),
        controlling_terminal: stdio.new_terminal,
        network,
        place: &home.place,
        prepare: &prepare,
    }
    .start()
    .context("starting the sentry")?;
    Ok(Sandbox { sentry, gofer: gofer.release()?, outcome: outcome_read })
}

/// Starts a gofer for these directories and files. Returns it with the sentry's end of its channel; it ends when all
/// who have that end have closed it.
pub fn start_gofer(
    options: &Options,
    id: &str,
    served: &[Served],
    home: &Home<'_>,
) -> Result<(Guard, OwnedFd)> {
    let (client, server) = gofer::channel_pair().context("making the gofer's channel")?;
    let gofer_log = match options.debug {
        true => open_log(options, "gofer", id)?,
        false => None,
    };
    let null = null()?;
    let error_output = error_output(options, id)?;
    let mut donations = Donations { fds: Vec::new() };
    let config = GoferConfig {
        channel: donations.add(server.as_fd()),
        served: served.iter().map(|served| (donations.add(served.fd.as_fd()), served.readonly)).collect(),
        host_sockets: options.host_sockets,
        own_mounts: options.rootless,
        log: gofer_log.as_ref().map(|log| donations.add(log.as_fd())),
        debug: options.debug,
    };
    let config = message::sealed_memfd(c"gofer", &serde_json::to_vec(&config)?)?;
    let mut namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if options.host_sockets {
        // It has sockets to connect to, and leaves the network namespace itself.
        namespaces.remove(CloneFlags::CLONE_NEWNET);
    }
    if options.rootless {
        // Only the owner of a mount namespace may copy its mounts, and the caller owns none.
        namespaces.insert(CloneFlags::CLONE_NEWNS);
    }
    let gofer = Spawn {
        args: vec!["runsc-gofer".into(), "gofer".into(), id.to_owned()],
        namespaces,
        identity: if options.rootless { Identity::Single } else { Identity::Inherited },
        stdio: [null.as_fd(), null.as_fd(), error_output.as_fd()],
        fds: donations.with_config(&config),
        controlling_terminal: false,
        network: None,
        place: &home.place,
        prepare: home.prepare,
    }
    .start()
    .context("starting the gofer")?;
    Ok((Guard::new(gofer), client))
}

/// Starts a gofer for each directory among the descriptors that a process is passed, and puts the connection to it in
/// the directory's place. Returns the numbers of those descriptors. The gofers end when nobody has these connections.
pub fn serve_directories(
    options: &Options,
    id: &str,
    stdio: &mut Stdio,
    home: &Home<'_>,
) -> Result<Vec<u32>> {
    let mut directories = Vec::new();
    for (number, fd) in (FIRST_FD as u32..).zip(&mut stdio.preserved) {
        let file = File::from(fd.try_clone()?);
        if !file.metadata().context("fstat")?.is_dir() {
            continue;
        }
        let served = Served { fd: file.into(), readonly: false };
        let (gofer, channel) = start_gofer(options, id, &[served], home)
            .with_context(|| format!("passing file descriptor {number}"))?;
        gofer.release()?;
        *fd = channel;
        directories.push(number);
    }
    Ok(directories)
}

fn null() -> Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?.into())
}

/// Where processes of a sandbox say why they break: the file that `--panic-log` names, or nowhere.
fn error_output(options: &Options, id: &str) -> Result<OwnedFd> {
    match options.panic_log.as_deref() {
        Some(pattern) => Ok(report::open_debug_log(pattern, "boot", id)?.into()),
        None => null(),
    }
}

/// Where a process of the sandbox logs to: the file that `--debug-log` names, or the command's standard error if
/// something is to be shown and no file is named.
fn open_log(options: &Options, command: &str, id: &str) -> Result<Option<OwnedFd>> {
    match &options.debug_log {
        Some(pattern) => Ok(Some(report::open_debug_log(pattern, command, id)?.into())),
        None if options.debug || options.strace => Ok(Some(std::io::stderr().as_fd().try_clone_to_owned()?)),
        None => Ok(None),
    }
}

/// Ends the process unless it is released.
pub struct Guard(Option<Child>);

impl Guard {
    /// Takes charge of a child.
    pub fn new(child: Child) -> Guard {
        Guard(Some(child))
    }

    /// The child.
    pub fn child(&self) -> Result<&Child> {
        self.0.as_ref().ok_or_else(|| anyhow!("released"))
    }

    /// Lets it live.
    pub fn release(mut self) -> Result<Child> {
        self.0.take().ok_or_else(|| anyhow!("released twice"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            process::kill_and_reap(child);
        }
    }
}

impl Sandbox {
    /// Whether the sentry has said how its boot ended, or is gone.
    pub fn has_told(&self) -> bool {
        process::wait_readable(self.outcome.as_fd(), Some(Duration::ZERO)).unwrap_or(false)
    }

    /// Waits until the sentry has booted, or says why it has not.
    pub fn wait_booted(&self, container: &Container) -> Result<()> {
        if !process::wait_readable(self.outcome.as_fd(), Some(BOOT_LIMIT))? {
            bail!("the sentry has not booted after {} s", BOOT_LIMIT.as_secs());
        }
        let mut text = Vec::new();
        let file = File::from(self.outcome.try_clone()?);
        file.take(1 << 20).read_to_end(&mut text).context("reading the sentry's outcome")?;
        if text.is_empty() {
            return Err(self.how_it_died(container));
        }
        match serde_json::from_slice(&text).context("reading the sentry's outcome")? {
            Outcome::Ready => Ok(()),
            Outcome::Failed(causes) => Err(Error::new(Chain(causes))),
        }
    }

    /// After the sentry closed all that it had without a word.
    fn how_it_died(&self, container: &Container) -> Error {
        let _ = process::wait_readable(self.sentry.pidfd.as_fd(), Some(Duration::from_secs(5)));
        if let Some(words) = record::read(&container.path.join(RECORD)).last_words {
            return anyhow!("{words}");
        }
        let flags = nix::sys::wait::WaitPidFlag::WNOHANG;
        match waitpid(self.sentry.pid, Some(flags)) {
            Ok(WaitStatus::Signaled(_, signal, _)) => anyhow!("the sentry was killed by {signal}"),
            Ok(WaitStatus::Exited(_, code)) => anyhow!("the sentry exited with status {code}"),
            _ => anyhow!("the sentry stopped talking"),
        }
    }

    /// Ends both processes, and their children with them.
    pub fn kill(&self) {
        process::kill_and_reap(&self.sentry);
        process::kill_and_reap(&self.gofer);
    }
}
