//! `runsc exec`: another process in a container.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime as oci;

use crate::boot::guest::Process;
use crate::capability;
use crate::cli::Exec;
use crate::console::{Signals, Stdio, TerminalGuard};
use crate::container::{self, Runtime, forward, write_pid_file};
use crate::control::{Client, Reply, Request, Target};
use crate::message;
use crate::process;
use crate::record::ExitStatus;
use crate::spec;
use crate::state::Status;
use crate::users;

/// Runs it and returns its exit code, or 0 at once if detached.
pub fn exec(runtime: &Runtime, args: &Exec) -> Result<i32> {
    let state = runtime.root.read(&args.id)?;
    match state.status() {
        Status::Running | Status::Created => {}
        status => bail!("cannot exec in a {} container", status.as_str()),
    }
    let directory = runtime.root.directory(&args.id);
    let process = describe(&directory, &state.bundle, args)?;
    let terminal = TerminalGuard::new();
    let stdio =
        Stdio::choose(process.terminal, args.console_socket.as_deref(), process.console_size, args.detach)?;
    let foreground = process.terminal;
    if foreground && args.console_socket.is_none() {
        terminal.hand_over()?;
    }
    let client = Client::connect(&directory)?;
    let request = Request::Exec { process: Box::new(process), attached: true };
    let pid = match client.call(&request, &message::borrow(&stdio.fds))? {
        Reply::Started { pid } => pid,
        _ => bail!("unexpected answer"),
    };
    if let Some(path) = &args.internal_pid_file {
        write_pid_file(path, pid)?;
    }
    let target = if foreground { Target::Foreground(pid) } else { Target::Process(pid) };
    if args.detach {
        return detach(&directory, client, pid, target, stdio, args.pid_file.as_deref());
    }
    drop(stdio);
    if let Some(path) = &args.pid_file {
        write_pid_file(path, std::process::id() as i32)?;
    }
    let signals = Signals::take_over()?;
    let status = stand_for(&directory, &client, &signals, pid, target)?;
    drop(terminal);
    Ok(status.code())
}

/// Leaves a process behind that ends as the guest's does, and passes signals on to it: that is what callers that
/// expect a process of the host see of it.
fn detach(
    directory: &Path,
    client: Client,
    pid: i32,
    target: Target,
    stdio: Stdio,
    pid_file: Option<&Path>,
) -> Result<i32> {
    let signals = Signals::take_over()?;
    if let Some(child) = process::fork()? {
        if let Some(path) = pid_file
            && let Err(error) = write_pid_file(path, child.pid.as_raw())
        {
            process::kill_and_reap(&child);
            return Err(error);
        }
        return Ok(0);
    }
    let _ = nix::unistd::setsid();
    if stdio.new_terminal {
        // Whose driver then sends its signals here.
        process::take_terminal(&stdio.fds[0]);
    } else {
        drop(stdio);
    }
    leave_stdio();
    let status = stand_for(directory, &client, &signals, pid, target);
    std::process::exit(status.map_or(crate::EXIT_FAILURE, ExitStatus::code));
}

/// Lets go of the caller's standard files: it waits for their end.
fn leave_stdio() {
    use std::io::{stderr, stdin, stdout};
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    let _ = nix::unistd::dup2_stdin(&null);
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
    let _ = (stdin(), stdout(), stderr());
}

fn stand_for(
    directory: &Path,
    client: &Client,
    signals: &Signals,
    pid: i32,
    target: Target,
) -> Result<ExitStatus> {
    client.send(&Request::Wait { pid }, &[])?;
    signals.forward_until(client.as_fd(), |signo| forward(directory, target, signo))?;
    match client.receive()? {
        Reply::Ended(status) => Ok(status),
        _ => bail!("unexpected answer"),
    }
}

/// The process that the command line asks for, on the basis of the container's own.
fn describe(directory: &Path, bundle: &Path, args: &Exec) -> Result<Process> {
    let spec = container::read_spec(directory)?;
    let root_path = spec
        .root()
        .as_ref()
        .map(|root| bundle.join(root.path()))
        .ok_or_else(|| anyhow!("config.json has no root"))?;
    let root =
        std::fs::File::open(&root_path).with_context(|| format!("root filesystem {root_path:?}"))?.into();
    let mut process: Process = match &args.process {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("opening {path:?}"))?;
            let process: oci::Process =
                serde_json::from_slice(&text).with_context(|| format!("reading {path:?}"))?;
            spec::convert_process(&process, &root).with_context(|| format!("{path:?}"))?
        }
        None => {
            let mut process = spec.process().clone().ok_or_else(|| anyhow!("config.json has no process"))?;
            if args.command.is_empty() {
                bail!("there is no program to run");
            }
            process.set_args(Some(args.command.clone()));
            process.set_terminal(Some(false));
            spec::convert_process(&process, &root)?
        }
    };
    if let Some(cwd) = &args.cwd {
        if !cwd.starts_with('/') {
            bail!("--cwd {cwd:?} is not an absolute path");
        }
        process.cwd.clone_from(cwd);
    }
    for variable in &args.env {
        let name = variable.split('=').next().unwrap_or(variable);
        process.env.retain(|other| other.split('=').next() != Some(name));
        process.env.push(variable.clone());
    }
    if let Some(user) = &args.user {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user.as_str(), None),
        };
        let ids = users::look_up(&root, user)?;
        process.uid = ids.uid;
        process.gid = group.map_or(Ok(ids.gid), |group| users::group(&root, group))?;
        process.groups = ids.groups;
        if process.uid != 0 {
            // As execve does for a user other than root.
            process.capabilities.effective = process.capabilities.ambient;
            process.capabilities.permitted = process.capabilities.ambient;
        }
    }
    process.groups.extend(&args.additional_gids);
    for name in &args.cap {
        let number = capability::number(name).ok_or_else(|| anyhow!("--cap {name:?}: no such capability"))?;
        let sets = &mut process.capabilities;
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            *set |= 1 << number;
        }
    }
    if let Some(terminal) = args.tty {
        process.terminal = terminal;
    }
    process.no_new_privileges |= args.no_new_privs;
    process.seccomp = spec::convert_seccomp(&spec)?;
    Ok(process)
}
