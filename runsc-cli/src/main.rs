//! `runsc`: an OCI runtime whose containers run on an application kernel of their own.
//!
//! This binary is three programs: the command that a user or a container manager calls; the gofer, which serves a
//! container's files (`gofer`); and the sentry, the kernel of a sandbox (`boot`). The command starts the other two by
//! executing itself again.
// The kernel's types are deeply nested, and all are to be seen to be `Send`.
#![recursion_limit = "256"]

mod boot;
mod capability;
mod cgroup;
mod cli;
mod clock;
mod cmd;
mod confine;
mod console;
mod container;
mod control;
mod gofer_process;
mod hooks;
mod host_namespaces;
mod message;
mod pod;
mod process;
mod record;
mod report;
mod sandbox;
mod seccomp;
mod spec;
mod state;
mod users;
mod view;

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use clap::Parser;

use cli::{Cli, FileAccess, Global, HostUds, Network, Platform, Verb};
use container::Runtime;
use sandbox::Options;

/// The exit code of the runtime's own failures, as gVisor has it: those of containers stay below, but for signals.
pub const EXIT_FAILURE: i32 = 128;

fn main() {
    let command_line = cli::normalise(std::env::args_os());
    let cli = Cli::parse_from(command_line.args);
    match &cli.verb {
        Verb::Boot(_) => boot::main(),
        Verb::Gofer(_) => gofer_process::main(),
        _ => {}
    }
    let preserved = match &cli.verb {
        Verb::Run(args) => args.flags.preserve_fds,
        Verb::Create(args) => args.flags.preserve_fds,
        Verb::Exec(args) => args.preserve_fds,
        _ => 0,
    };
    // Before anything gets one of these numbers.
    let preserved = console::preserve(preserved);
    if let Some(path) = &cli.global.log {
        report::set_log(path.clone(), cli.global.log_format);
    }
    if !command_line.ignored.is_empty() {
        report::note(&format!("accepted, and without effect here: --{}", command_line.ignored.join(", --")));
    }
    let code = preserved.and_then(|preserved| run(cli, preserved)).unwrap_or_else(|error| {
        report::error(&report::line(&error));
        EXIT_FAILURE
    });
    std::process::exit(code);
}

fn run(cli: Cli, preserved: Vec<OwnedFd>) -> Result<i32> {
    let runtime = runtime(&cli.global)?;
    match cli.verb {
        Verb::Do(args) => cmd::run_do(runtime, &args).context("running the command"),
        Verb::Run(args) => {
            cmd::run(&runtime, &args, preserved).with_context(|| format!("running container {:?}", args.id))
        }
        Verb::Create(args) => cmd::create(&runtime, &args, preserved)
            .with_context(|| format!("creating container {:?}", args.id)),
        Verb::Start(args) => {
            cmd::start(&runtime, &args.id).with_context(|| format!("starting container {:?}", args.id))
        }
        Verb::Spec(args) => cmd::write_spec(&args),
        Verb::List(args) => cmd::list(&runtime, &args),
        Verb::State(args) => cmd::state(&runtime, &args.id),
        Verb::Kill(args) => cmd::kill(&runtime, &args),
        Verb::Delete(args) => cmd::delete(&runtime, &args),
        Verb::Exec(args) => cmd::exec(&runtime, &args, &preserved)
            .with_context(|| format!("executing in container {:?}", args.id)),
        Verb::Ps(args) => cmd::ps(&runtime, &args),
        Verb::Wait(args) => cmd::wait(&runtime, &args),
        Verb::Events(args) => cmd::events(&runtime, &args),
        Verb::Update(args) => {
            cmd::update(&runtime, &args).with_context(|| format!("updating container {:?}", args.id))
        }
        Verb::Pause(args) => {
            cmd::pause(&runtime, &args.id).with_context(|| format!("pausing container {:?}", args.id))
        }
        Verb::Resume(args) => {
            cmd::resume(&runtime, &args.id).with_context(|| format!("resuming container {:?}", args.id))
        }
        Verb::Features => cmd::features(),
        Verb::Install(args) => cmd::install(&args),
        Verb::Uninstall(args) => cmd::uninstall(&args),
        Verb::Checkpoint(_) | Verb::Restore(_) => {
            bail!("checkpoint and restore are not there yet: the state of a sandbox cannot be saved")
        }
        Verb::Syscalls(args) => cmd::syscalls(&args),
        Verb::Platforms => cmd::platforms(),
        Verb::Boot(_) | Verb::Gofer(_) => bail!("not to be called by hand"),
    }
}

fn runtime(global: &Global) -> Result<Runtime> {
    match global.network {
        Network::None | Network::Host => {}
        Network::Sandbox => bail!("--network=sandbox is not there yet, use --network=none or --network=host"),
    }
    let host_sockets = match global.host_uds {
        HostUds::None => false,
        HostUds::Open => true,
        HostUds::Create | HostUds::All => {
            bail!(
                "sockets of containers are not made on the host yet, use --host-uds=none or --host-uds=open"
            )
        }
    };
    if let Some(pattern) = &global.debug_log {
        let file = report::open_debug_log(pattern, "command", "command")?;
        report::start_tracing(Some(file.into()), global.debug);
    }
    let rootless = match global.rootless {
        Some(cli::Rootless::True) => true,
        Some(cli::Rootless::False) => false,
        Some(cli::Rootless::Auto) | None => !nix::unistd::geteuid().is_root(),
    };
    Ok(Runtime {
        root: state::Root::new(global.root.clone().unwrap_or_else(state::default_root)),
        options: Options {
            patching: !global.systrap_disable_syscall_patching,
            platform: match global.platform {
                Platform::Ptrace => "ptrace",
                Platform::Systrap => "systrap",
                Platform::Auto => "auto",
            }
            .to_owned(),
            overlay: global.overlay2,
            shared_root: global.file_access == FileAccess::Shared,
            shared_mounts: global.file_access_mounts == FileAccess::Shared,
            host_sockets,
            host_network: global.network == Network::Host,
            strace: global.strace || !global.strace_syscalls.is_empty(),
            strace_calls: global.strace_syscalls.clone(),
            debug: global.debug,
            debug_log: global.debug_log.clone(),
            panic_log: global.panic_log.clone(),
            rootless,
            cgroups: cgroup::Policy {
                ignore: global.ignore_cgroups,
                systemd: global.systemd_cgroup,
                rootless: rootless || process::in_user_namespace(),
            },
            #[cfg(feature = "misbehave")]
            misbehave: global.misbehave.clone(),
            #[cfg(not(feature = "misbehave"))]
            misbehave: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused() {
        for flag in ["--network=sandbox", "--host-uds=create", "--host-uds=all"] {
            let cli = Cli::parse_from(["runsc", flag, "list"]);
            assert!(runtime(&cli.global).is_err(), "{flag}");
        }
    }
}
