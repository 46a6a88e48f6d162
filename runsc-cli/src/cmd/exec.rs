//! `runsc exec`: another process in a container.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime as oci;

use crate::boot::guest::Process;
use crate::capability;
use crate::cli::Exec;
use crate::console::{Signals, Stdio, TerminalGuard};
use crate::container::{self, Runtime, write_pid_file};
use crate::control::{Address, Client, Target};
use crate::process;
use crate::report;
use crate::spec;
use crate::state::Status;
use crate::users;

/// Runs it and returns its exit code, or 0 at once if detached.
pub fn exec(runtime: &Runtime, args: &Exec, preserved: &[OwnedFd]) -> Result<i32> {
    let state = runtime.root.read(&args.id)?;
    match state.status() {
        Status::Running | Status::Created => {}
        status => bail!("cannot exec in a {} container", status.as_str()),
    }
    let directory = runtime.root.directory(&args.id);
    let mut process = describe(&directory, &state.bundle, args)?;
    let terminal = TerminalGuard::new();
    let mut stdio =
        Stdio::choose(process.terminal, args.console_socket.as_deref(), process.console_size, args.detach)?
            .with(preserved)?;
    if !preserved.is_empty() {
        let cgroup = container::read_cgroup(&directory)?;
        process.directories =
            container::serve_directories(&runtime.options, &args.id, &mut stdio, cgroup.as_ref(), None)?;
    }
    let foreground = process.terminal;
    if foreground && args.console_socket.is_none() {
        terminal.hand_over()?;
    }
    let address = runtime.root.address(&state);
    if args.detach {
        return detach(&address, process, stdio, args);
    }
    let client = Client::connect(&address)?;
    let mut started = client.exec(process, &stdio.all())?;
    drop(stdio);
    write_pid_files(args, started.pid, std::process::id() as i32)?;
    let signals = Signals::take_over()?;
    let target = target(foreground, started.pid);
    let status = client.stand_for(&mut started, &signals, target)?;
    drop(terminal);
    Ok(status.code())
}

fn target(foreground: bool, pid: i32) -> Target {
    if foreground { Target::Foreground(pid) } else { Target::Process(pid) }
}

fn write_pid_files(args: &Exec, inside: i32, outside: i32) -> Result<()> {
    if let Some(path) = &args.internal_pid_file {
        write_pid_file(path, inside)?;
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, outside)?;
    }
    Ok(())
}

/// Leaves a process behind that ends as the guest's does, and passes signals on to it: that is what callers that
/// expect a process of the host see of it.
fn detach(address: &Address, process: Process, stdio: Stdio, args: &Exec) -> Result<i32> {
    let signals = Signals::take_over()?;
    let (mut here, mut there) = UnixStream::pair()?;
    let Some(child) = process::fork()? else {
        drop(here);
        let code = stand_in(address, process, stdio, &signals, &mut there);
        std::process::exit(code.unwrap_or(crate::EXIT_FAILURE));
    };
    drop(there);
    let mut told = [0; 4];
    let result = match here.read_exact(&mut told) {
        Err(error) => Err(error).context("waiting for the process that stands for it"),
        Ok(()) => match i32::from_ne_bytes(told) {
            0 => {
                let mut text = String::new();
                here.read_to_string(&mut text).context("reading why it failed")?;
                Err(report::Chain(serde_json::from_str(&text)?).into())
            }
            pid => write_pid_files(args, pid, child.pid.as_raw()),
        },
    };
    // The child goes on only if it is told to.
    match result.and_then(|()| Ok(here.write_all(&[1])?)) {
        Ok(()) => Ok(0),
        Err(error) => {
            process::kill_and_reap(&child);
            Err(error)
        }
    }
}

fn stand_in(
    address: &Address,
    process: Process,
    stdio: Stdio,
    signals: &Signals,
    caller: &mut UnixStream,
) -> Result<i32> {
    let _ = nix::unistd::setsid();
    let foreground = process.terminal;
    let started = Client::connect(address).and_then(|client| {
        let started = client.exec(process, &stdio.all())?;
        Ok((client, started))
    });
    let (client, mut started) = match started {
        Ok(started) => started,
        Err(error) => {
            caller.write_all(&0i32.to_ne_bytes())?;
            caller.write_all(&serde_json::to_vec(&report::chain(&error))?)?;
            return Err(error);
        }
    };
    caller.write_all(&started.pid.to_ne_bytes())?;
    // Without it, the process has been nobody's, and ends with this one.
    caller.read_exact(&mut [0])?;
    if stdio.new_terminal {
        // Whose driver then sends its signals here.
        process::take_terminal(&stdio.fds[0]);
    } else {
        drop(stdio);
    }
    process::leave_stdio();
    let target = target(foreground, started.pid);
    Ok(client.stand_for(&mut started, signals, target)?.code())
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
