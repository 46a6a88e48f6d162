//! The boot process: becomes the sentry of one sandbox.
//!
//! In this order, because each step takes away what the one before needed: namespaces and an empty root, the
//! platform with its first stub process, filters on every thread, the kernel. Nothing of the guest's is touched
//! before the filters are in place.

pub mod config;
mod container;
pub mod control;
pub mod guest;
mod host_file;
mod host_network;
mod kernel;
mod launcher;
pub mod limits;
mod mounts;
mod oom;
mod program;
pub mod start_hooks;
mod stdio;
mod volumes;

pub use kernel::{PLATFORMS, platform, syscall_table};

use std::fs::File;
use std::io::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::confine::{filter, namespaces};
use crate::message;
use crate::process::{FIRST_FD, adopt};
use crate::record::{self, ExitStatus};
use crate::report;
use crate::view::View;
use config::{BootConfig, Outcome};
use launcher::Launcher;
use oom::OomScore;

/// `runsc boot`. Does not return: the process ends as the container's first process did.
pub fn main() -> ! {
    let status = match run() {
        Ok(status) => status.code(),
        // The command has been told, or the record has.
        Err(_) => crate::EXIT_FAILURE,
    };
    // SAFETY: ends the process at once; nothing is left to be dropped.
    unsafe { libc::_exit(status) }
}

fn run() -> Result<ExitStatus> {
    // SAFETY: the command donated it, and this is the first to look.
    let text = message::read_memfd(unsafe { adopt(FIRST_FD)? })?;
    let config: BootConfig = serde_json::from_slice(&text).context("reading the boot configuration")?;
    // SAFETY: the configuration numbers what the command donated, each number once.
    let mut outcome = File::from(unsafe { adopt(config.donated.outcome)? });
    let started = start(config);
    let message = match &started {
        Ok(_) => Outcome::Ready,
        Err(error) => Outcome::Failed(report::chain(error)),
    };
    // If nobody listens any more, the command is gone, and nobody would ever start this container.
    outcome.write_all(&serde_json::to_vec(&message)?).context("telling the outcome")?;
    drop(outcome);
    let Sentry { sandbox, launcher, sockets, terminal_signals, debug, user_log, view } = started?;
    if let Some(device) = view {
        launcher.show(kernel::Sandbox::view_of(sandbox.first()), device);
    }
    let status = control::serve(&sandbox, launcher, sockets, terminal_signals);
    if let Err(error) = &status {
        record::set_last_words(&report::line(error));
    }
    if debug {
        for (call, count) in sandbox.unimplemented() {
            tracing::info!("unimplemented: {call} ({count} times)");
        }
    }
    if let Some(mut log) = user_log {
        for (call, count) in sandbox.unimplemented() {
            // Who does not want to hear it, does not.
            let _ = writeln!(log, "{}: unsupported system call {call} ({count} times)", sandbox.first().id);
        }
    }
    status
}

struct Sentry {
    sandbox: Arc<kernel::Sandbox>,
    launcher: Launcher,
    sockets: control::Sockets,
    terminal_signals: Option<SignalFd>,
    debug: bool,
    user_log: Option<File>,
    view: Option<OwnedFd>,
}

fn start(config: BootConfig) -> Result<Sentry> {
    prctl::set_name(c"runsc-sandbox")?;
    let donated = &config.donated;
    // SAFETY: see `run`.
    let take = |number: RawFd| unsafe { adopt(number) };
    record::open(take(donated.record)?.into())?;
    tell_panics();
    keep_to_one_arena();
    report::start_tracing(donated.log.map(take).transpose()?, config.debug || config.strace);
    let sockets = control::Sockets { control: take(donated.control)?, fds: take(donated.fds)? };
    let channel = take(donated.gofer)?;
    let stdio = donated.stdio.iter().chain(&donated.preserved).map(|number| take(*number));
    let stdio = stdio.collect::<Result<Vec<_>>>()?;
    let user_log = donated.user_log.map(take).transpose()?.map(File::from);
    let view = match donated.view {
        Some([device, mount]) => Some(View { device: take(device)?, mount: take(mount)? }),
        None => None,
    };
    let oom = OomScore::open(config.guest.process.oom_score_adj);
    // It looks into /proc and /sys.
    let vdso =
        sentry::loader::Vdso::new().inspect_err(|error| tracing::warn!("programs get no vdso: {error}")).ok();
    if config.own_network {
        host_network::prepare(config.guest.sysctl.iter());
    }
    namespaces::enter_empty_root()?;
    let view = view.and_then(View::cover_root);
    let memory = namespaces::memory_directory().context("making a filesystem in memory")?;
    sentry::mm::shared::set_directory(memory);
    namespaces::drop_privileges(config.become_nobody)?;
    if config.die_with_command {
        // After the change of user, which would clear it.
        prctl::set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    }
    let terminal_signals = config.controlling_terminal.then(terminal_signals).transpose()?;
    let make_platform = || kernel::platform(&config.platform, config.patching);
    let platform = match oom {
        Some(oom) => oom.as_stub(make_platform),
        None => make_platform(),
    }
    .with_context(|| format!("platform {}", config.platform))?;
    filter::report_denied_calls()?;
    #[cfg(feature = "misbehave")]
    if let Some(what) = config.misbehave.as_deref().and_then(|w| w.strip_prefix("unfiltered-")) {
        return Err(crate::confine::misbehave::attempt(what));
    }
    filter::install(platform.name(), config.host_network)?;
    let launcher = Launcher::start(platform.name(), config.host_network)?;
    #[cfg(feature = "misbehave")]
    if let Some(what) = config.misbehave.clone() {
        return Err(crate::confine::misbehave::attempt(&what));
    }
    let debug = config.debug;
    let sandbox = launcher.run_and_wait(move || kernel::start(config, platform, channel, stdio, vdso))?;
    Ok(Sentry { sandbox, launcher, sockets, terminal_signals, debug, user_log, view })
}

/// What the host's terminal driver sends to the leader of its session, which this process is. Blocked before any
/// thread is made, so that all wait here.
fn terminal_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGHUP, Signal::SIGCONT, Signal::SIGWINCH]
    {
        set.add(signal);
    }
    set.thread_block().context("sigprocmask")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")
}

/// Keeps the C library's allocator to its main arena. For the others it opens host files, which the filters do not
/// allow: one of sysfs to see how many there may be, one of proc when it gives memory back.
fn keep_to_one_arena() {
    const ARENAS: libc::c_int = 1;
    // SAFETY: the call takes plain numbers; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Makes a panic end the sandbox, after its words were put where they outlive it: with one of its threads gone and
/// its locks left as they were, a sentry would hang instead. Without a backtrace: that would open files.
fn tell_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let text = format!("panic in thread {:?}: {info}", thread.name().unwrap_or("unnamed"));
        record::set_last_words(&text);
        tracing::error!("{text}");
        let _ = writeln!(std::io::stderr(), "{text}");
        // SAFETY: ends the process at once, and with it, process 1 of its pid namespace, all stubs.
        unsafe { libc::_exit(crate::EXIT_FAILURE) }
    }));
}
