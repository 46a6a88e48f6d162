//! A container's life: create, start, wait, delete.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::wait::waitpid;
use oci_spec::runtime::Spec;

use crate::boot::control::INIT;
use crate::cgroup::Cgroup;
use crate::console::{Signals, Stdio, TerminalGuard};
use crate::control::{Client, Reply, Request, Target};
use crate::hooks::{self, Point};
use crate::process::{ProcessId, wait_readable};
use crate::record::{self, ExitStatus};
use crate::sandbox::{self, Options, RECORD, Sandbox};
use crate::spec;
use crate::state::{Container, Root, State, Status};

/// The file in a container's directory that says where its cgroup is.
const CGROUP: &str = "cgroup.json";
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a sentry may take to answer what it can answer at once.
const ANSWER_LIMIT_MS: i64 = 10_000;

/// What a create is given besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct CreateArgs {
    /// Takes the master side of the container's terminal.
    pub console_socket: Option<PathBuf>,
    /// Gets the sentry's pid.
    pub pid_file: Option<PathBuf>,
    /// The command does not stay.
    pub detach: bool,
    /// The container ends with the command.
    pub die_with_command: bool,
    /// It gets no cgroup of its own.
    pub no_cgroup: bool,
}

/// The runtime: a state directory, and how its sandboxes are made.
pub struct Runtime {
    /// The state directory.
    pub root: Root,
    /// For new sandboxes.
    pub options: Options,
}

impl Runtime {
    /// Makes a container whose first process waits for [`Runtime::start`]. On a failure nothing is left.
    pub fn create(
        &self,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        args: &CreateArgs,
    ) -> Result<(Container, State, Sandbox)> {
        hooks::check(spec).context("config.json")?;
        spec::warn_of_ignored(spec);
        let plan = spec::plan(id, bundle, spec, self.options.overlay)?;
        let process = &plan.guest.process;
        let stdio = Stdio::choose(
            process.terminal,
            args.console_socket.as_deref(),
            process.console_size,
            args.detach,
        )?;
        let container = self.root.create(id)?;
        container.write("config.json", &serde_json::to_vec(spec)?)?;
        let mut state = State {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            annotations: spec
                .annotations()
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
            created: crate::clock::now(),
            owner: nix::unistd::geteuid().as_raw(),
            status: Status::Creating,
            sentry: None,
            gofer: None,
        };
        let started = self.make_cgroup(&container, spec, args).and_then(|cgroup| {
            sandbox::start(
                &self.options,
                &container,
                plan,
                &stdio,
                (cgroup.as_ref(), spec),
                args.die_with_command,
            )
        });
        let sandbox = match started {
            Ok(sandbox) => sandbox,
            Err(error) => {
                let _ = remove_cgroup(&container);
                let _ = container.remove();
                return Err(error);
            }
        };
        drop(stdio);
        match self.finish_create(&container, &mut state, &sandbox, spec, args) {
            Ok(()) => Ok((container, state, sandbox)),
            Err(error) => {
                sandbox.kill();
                let _ = remove_cgroup(&container);
                let _ = container.remove();
                run_poststop(spec, &state);
                Err(error)
            }
        }
    }

    /// Makes the container's cgroup, after it was written down where it will be.
    fn make_cgroup(&self, container: &Container, spec: &Spec, args: &CreateArgs) -> Result<Option<Cgroup>> {
        if args.no_cgroup {
            return Ok(None);
        }
        let Some(mut cgroup) = Cgroup::plan(&container.id, spec, self.options.cgroups)? else {
            return Ok(None);
        };
        container.write(CGROUP, &serde_json::to_vec(&cgroup)?)?;
        cgroup.create(spec, self.options.cgroups)?;
        container.write(CGROUP, &serde_json::to_vec(&cgroup)?)?;
        Ok(Some(cgroup))
    }

    fn finish_create(
        &self,
        container: &Container,
        state: &mut State,
        sandbox: &Sandbox,
        spec: &Spec,
        args: &CreateArgs,
    ) -> Result<()> {
        let (sentry, gofer) = sandbox.ids()?;
        (state.sentry, state.gofer) = (Some(sentry), Some(gofer));
        // From here on a delete finds the processes, whatever happens to this one.
        container.save(state)?;
        for point in [Point::Prestart, Point::CreateRuntime, Point::CreateContainer] {
            hooks::run(point, spec, state, Status::Creating)?;
        }
        sandbox.wait_booted(container)?;
        if let Some(path) = &args.pid_file {
            write_pid_file(path, sandbox.sentry.pid.as_raw())?;
        }
        state.status = Status::Created;
        container.save(state)
    }

    /// Lets a created container's first process run.
    pub fn start(&self, container: &Container, state: &mut State) -> Result<()> {
        match state.status() {
            Status::Created => {}
            status => bail!("cannot start container {:?} in the {} state", container.id, status.as_str()),
        }
        let client = Client::connect(&container.path)?;
        // Written before it is true: a command that dies in between must not leave a running container that looks as
        // if it could be started.
        state.status = Status::Running;
        container.save(state)?;
        if let Err(error) = client.call(&Request::Start, &[]) {
            state.status = Status::Created;
            container.save(state)?;
            return Err(error);
        }
        // The specification: a failure is told, and the container's life goes on.
        if let Err(error) = hooks::run(Point::Poststart, &saved_spec(container)?, state, Status::Running) {
            crate::report::warn(&crate::report::line(&error));
        }
        Ok(())
    }

    /// Create, start, and, unless detached, wait and delete. Returns the exit code.
    pub fn run(&self, id: &str, bundle: &Path, spec: &Spec, args: &CreateArgs) -> Result<i32> {
        // Before the container can take the terminal over.
        let terminal = TerminalGuard::new();
        let (container, mut state, sandbox) = self.create(id, bundle, spec, args)?;
        let signals = (!args.detach).then(Signals::take_over).transpose()?;
        let foreground = spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
        let handed_over = match foreground && args.console_socket.is_none() {
            true => terminal.hand_over(),
            false => Ok(()),
        };
        if let Err(error) = handed_over.and_then(|()| self.start(&container, &mut state)) {
            sandbox.kill();
            let _ = self.delete_locked(container, Some(state), true);
            return Err(error);
        }
        let Some(signals) = signals else {
            return Ok(0);
        };
        let directory = container.path.clone();
        // Others may look at the container, signal it, and delete it.
        drop(container);
        signals.forward_until(sandbox.sentry.pidfd.as_fd(), |signo| {
            let target = match foreground {
                true => Target::Foreground(INIT),
                false => Target::Process(INIT),
            };
            forward(&directory, target, signo);
        })?;
        let _ = waitpid(sandbox.sentry.pid, None);
        drop(terminal);
        let record = record::read(&directory.join(RECORD));
        // Somebody may have deleted it meanwhile.
        if let Ok(container) = self.root.open(id) {
            let state = container.state()?;
            self.delete_locked(container, state, true)?;
        }
        let _ = waitpid(sandbox.gofer.pid, None);
        match record {
            record::Record { exit: Some(status), .. } => Ok(status.code()),
            record::Record { last_words: Some(words), .. } => bail!("the sandbox broke: {words}"),
            _ => Ok(ExitStatus::Killed(libc::SIGKILL as u8).code()),
        }
    }

    /// Sends a signal to the first process, to `pid`, or to all.
    pub fn kill(&self, id: &str, target: Target, signo: i32) -> Result<()> {
        let state = self.root.read(id)?;
        if state.status() == Status::Stopped {
            bail!("container not running");
        }
        let directory = self.root.directory(id);
        let result = Client::connect(&directory).and_then(|client| {
            client.set_timeout(ANSWER_LIMIT_MS)?;
            client.signal(target, signo)
        });
        match (result, &state.sentry) {
            (Ok(()), _) => Ok(()),
            // A sentry that does not answer dies with all that it runs.
            (Err(_), Some(sentry))
                if signo == libc::SIGKILL && matches!(target, Target::All | Target::Process(INIT)) =>
            {
                sentry.kill(KILL_LIMIT)
            }
            (Err(error), _) => match state.status() {
                Status::Stopped => bail!("container not running"),
                _ => Err(error),
            },
        }
    }

    /// Removes a container, and with `force` whatever of it still runs.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let container = match self.root.open(id) {
            Ok(container) => container,
            Err(_) if force && !self.root.directory(id).exists() => return Ok(()),
            Err(error) => return Err(error),
        };
        let state = container.state()?;
        self.delete_locked(container, state, force)
    }

    fn delete_locked(&self, container: Container, state: Option<State>, force: bool) -> Result<()> {
        if let Some(state) = &state {
            let status = state.status();
            if status == Status::Running && !force {
                bail!("cannot delete container {:?} that is not stopped: {}", container.id, status.as_str());
            }
            // The sentry first: the gofer then ends by itself.
            for process in [&state.sentry, &state.gofer].into_iter().flatten() {
                process.kill(KILL_LIMIT)?;
            }
        }
        let spec = saved_spec(&container);
        remove_cgroup(&container)?;
        container.remove()?;
        if let (Some(state), Ok(spec)) = (&state, spec) {
            run_poststop(&spec, state);
        }
        Ok(())
    }

    /// Waits until a process has ended. Process 1 is the container's first, whose end is known also afterwards.
    pub fn wait(&self, id: &str, pid: i32) -> Result<ExitStatus> {
        let state = self.root.read(id)?;
        let directory = self.root.directory(id);
        if state.status() != Status::Stopped
            && let Ok(client) = Client::connect(&directory)
        {
            match client.call(&Request::Wait { pid }, &[]) {
                Ok(Reply::Ended(status)) => return Ok(status),
                Ok(_) => bail!("unexpected answer"),
                Err(error) if pid != INIT => return Err(error),
                // It may have ended before it could answer.
                Err(_) => wait_gone(state.sentry.as_ref())?,
            }
        }
        if pid != INIT {
            bail!("container not running");
        }
        let record = record::read(&directory.join(RECORD));
        match (record.exit, record.last_words) {
            (Some(status), _) => Ok(status),
            (None, Some(words)) => bail!("the sandbox broke: {words}"),
            (None, None) if state.sentry.is_some() => Ok(ExitStatus::Killed(libc::SIGKILL as u8)),
            (None, None) => Err(anyhow!("container {id:?} was never started")),
        }
    }
}

fn wait_gone(process: Option<&ProcessId>) -> Result<()> {
    if let Some(pidfd) = process.and_then(ProcessId::open) {
        wait_readable(pidfd.as_fd(), Some(KILL_LIMIT))?;
    }
    Ok(())
}

/// Where the container's cgroup is; None if it has none.
pub fn read_cgroup(directory: &Path) -> Result<Option<Cgroup>> {
    let path = directory.join(CGROUP);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {path:?}")).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {path:?}")),
    }
}

/// Each of them, whatever the others do.
fn run_poststop(spec: &Spec, state: &State) {
    for error in hooks::run_all(Point::Poststop, spec, state, Status::Stopped) {
        crate::report::warn(&crate::report::line(&error));
    }
}

fn remove_cgroup(container: &Container) -> Result<()> {
    read_cgroup(&container.path)?.map_or(Ok(()), |cgroup| cgroup.remove())
}

/// The configuration that a container was created with.
pub fn saved_spec(container: &Container) -> Result<Spec> {
    read_spec(&container.path)
}

/// The same, by the container's directory.
pub fn read_spec(directory: &Path) -> Result<Spec> {
    let path = directory.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {path:?}"))?;
    spec::parse(&text).with_context(|| format!("reading {path:?}"))
}

/// Passes a signal on; one that comes too late has nobody to go to.
pub fn forward(directory: &Path, target: Target, signo: i32) {
    let result = Client::connect(directory).and_then(|client| {
        client.set_timeout(ANSWER_LIMIT_MS)?;
        client.signal(target, signo)
    });
    if let Err(error) = result {
        tracing::debug!("signal {signo}: {}", crate::report::line(&error));
    }
}

/// Writes a pid as runc does: without a newline, and in one step.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| anyhow!("{path:?} is no file name"))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing the pid file {path:?}"))
}
