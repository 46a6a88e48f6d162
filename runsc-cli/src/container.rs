//! A container's life: create, start, wait, delete.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxResources, Spec};

use crate::cgroup::{self, Cgroup};
use crate::console::{Signals, Stdio, TerminalGuard};
use crate::control::{Address, Client, FIRST, Gone, Target};
use crate::hooks::{self, Point};
use crate::pod;
use crate::process::{self, Child, Entered, Place, ProcessId, wait_readable};
use crate::record::{self, ExitStatus, Record};
use crate::sandbox::{self, Options, RECORD};
use crate::spec::{self, Plan};
use crate::state::{Container, Root, State, Status};

/// The file in a container's directory that says where its cgroup is.
const CGROUP: &str = "cgroup.json";
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What a create is given besides the configuration.
#[derive(Debug, Default)]
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
    /// It is not deleted when it has ended.
    pub keep: bool,
    /// What the first process has besides its standard files: file descriptors 3 and up.
    pub preserved: Vec<OwnedFd>,
    /// Gets messages for the user, if the container is the first of its sandbox.
    pub user_log: Option<PathBuf>,
}

/// What a container is made of.
pub struct Parts<'a> {
    /// For the sentry and the gofer.
    pub plan: &'a Plan,
    /// The first process's standard files.
    pub stdio: &'a Stdio,
    cgroup: Option<Cgroup>,
    limits: Option<LinuxResources>,
    spec: &'a Spec,
    args: &'a CreateArgs,
}

impl Parts<'_> {
    /// Where the container's limits hold.
    pub fn place(&self) -> Place {
        self.cgroup.as_ref().map(Cgroup::place).unwrap_or_default()
    }

    /// Puts a process of the host there that has not entered all of it.
    pub fn prepare(&self, options: &Options, pid: Pid, entered: &Entered) -> Result<()> {
        self.cgroup
            .as_ref()
            .map_or(Ok(()), |cgroup| cgroup.join(pid, entered, self.limits.as_ref(), options.cgroups))
    }

    /// The files through which the sentry puts processes there that run guests.
    pub fn entrances(&self, options: &Options) -> Result<Vec<File>> {
        self.cgroup.as_ref().map_or(Ok(Vec::new()), |cgroup| cgroup.entrances(options.cgroups))
    }

    /// Raises the oom_score_adj of those processes, which is the sandbox's, to the container's own. What they run
    /// inherits it. Not lower: they are to be taken before the sentry.
    pub fn raise_oom_scores(&self) {
        let wanted = self.plan.guest.process.oom_score_adj;
        for pid in self.cgroup.iter().flat_map(Cgroup::processes) {
            let path = format!("/proc/{pid}/oom_score_adj");
            let score = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i32>().ok());
            if score.is_some_and(|score| score < wanted)
                && let Err(error) = std::fs::write(&path, wanted.to_string())
            {
                tracing::debug!("{path}: {error}");
            }
        }
    }
}

/// The processes of the host that a container has.
pub struct Processes {
    /// The one that ends with the container: its sentry, or what stands for it.
    pub main: Child,
    /// Its gofer.
    pub gofer: Child,
}

impl Processes {
    fn kill(&self) {
        process::kill_and_reap(&self.main);
        process::kill_and_reap(&self.gofer);
    }
}

fn run_create_hooks(spec: &Spec, state: &State) -> Result<()> {
    for point in [Point::Prestart, Point::CreateRuntime, Point::CreateContainer] {
        hooks::run(point, spec, state, Status::Creating)?;
    }
    Ok(())
}

/// Says that a container was created.
fn created(container: &Container, state: &mut State, args: &CreateArgs) -> Result<()> {
    if let (Some(path), Some(process)) = (&args.pid_file, state.process()) {
        write_pid_file(path, process.pid)?;
    }
    state.status = Status::Created;
    container.save(state)
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
    ) -> Result<(Container, State, Processes)> {
        spec::warn_of_ignored(spec);
        let pod = pod::sandbox_of(id, spec).context("config.json")?;
        let pod = pod.map(|sandbox| pod::Sandbox::find(&self.root, sandbox)).transpose()?;
        let volumes = pod::Volumes::of(pod.as_ref().map_or(spec, |pod| &pod.spec));
        let mut plan = {
            let sandbox = pod.as_ref().map(|pod| &pod.spec);
            spec::plan(id, bundle, spec, sandbox, self.options.overlay, &volumes)?
        };
        if self.options.rootless {
            // The host has given the caller a single id, and the gofer sees no other.
            plan.guest.ids = None;
        }
        let process = &plan.guest.process;
        let mut stdio = Stdio::choose(
            process.terminal,
            args.console_socket.as_deref(),
            process.console_size,
            args.detach,
        )?
        .with(&args.preserved)?;
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
            sandbox: None,
            stand_in: None,
            record: Record::default(),
        };
        let limits = cgroup::limits_within(spec, pod.as_ref().map(|pod| &pod.spec));
        let made = self.make_cgroup(&container, spec, limits.as_ref(), args).and_then(|cgroup| {
            let directories =
                serve_directories(&self.options, id, &mut stdio, cgroup.as_ref(), limits.as_ref())?;
            plan.guest.process.directories = directories;
            let parts = Parts { plan: &plan, stdio: &stdio, cgroup, limits, spec, args };
            match &pod {
                None => self.make_sandbox(&container, &mut state, &parts),
                Some(pod) => self.join_sandbox(pod, &container, &mut state, &parts),
            }
        });
        match made {
            Ok(processes) => Ok((container, state, processes)),
            Err(error) => {
                let _ = remove_cgroup(&container);
                let _ = container.remove();
                if state.sentry.is_some() {
                    run_to_the_end(Point::Poststop, spec, &state, Status::Stopped);
                }
                Err(error)
            }
        }
    }

    /// Makes the container's cgroup, after it was written down where it will be.
    fn make_cgroup(
        &self,
        container: &Container,
        spec: &Spec,
        limits: Option<&LinuxResources>,
        args: &CreateArgs,
    ) -> Result<Option<Cgroup>> {
        if args.no_cgroup {
            return Ok(None);
        }
        let Some(mut cgroup) = Cgroup::plan(&container.id, spec, self.options.cgroups)? else {
            return Ok(None);
        };
        container.write(CGROUP, &serde_json::to_vec(&cgroup)?)?;
        let planned = cgroup.clone();
        let made = cgroup.create(limits, self.options.cgroups);
        if cgroup != planned {
            container.write(CGROUP, &serde_json::to_vec(&cgroup)?)?;
        }
        made.map(|()| Some(cgroup))
    }

    /// Makes the container the first one of a sandbox.
    fn make_sandbox(&self, container: &Container, state: &mut State, parts: &Parts<'_>) -> Result<Processes> {
        let prepare = |pid: Pid, entered: &Entered| parts.prepare(&self.options, pid, entered);
        let state = RefCell::new(state);
        let announce = |sentry, gofer| {
            let mut state = state.borrow_mut();
            (state.sentry, state.gofer) = (Some(sentry), Some(gofer));
            // From here on a delete finds the processes, whatever happens to this one.
            container.save(&state)
        };
        let home = sandbox::Home { place: parts.place(), prepare: &prepare };
        let sandbox =
            sandbox::start(&self.options, container, parts.plan, parts.stdio, &home, &announce, parts.args)?;
        let state = state.into_inner();
        let mut finish = || {
            let hooks = run_create_hooks(parts.spec, state);
            // Without a process there is nothing to work on for a hook: then that is the cause to be told.
            if hooks.is_ok() || sandbox.has_told() {
                sandbox.wait_booted(container)?;
            }
            hooks?;
            created(container, state, parts.args)
        };
        match finish() {
            Ok(()) => Ok(Processes { main: sandbox.sentry, gofer: sandbox.gofer }),
            Err(error) => {
                sandbox.kill();
                Err(error)
            }
        }
    }

    /// Makes the container another one of a sandbox.
    fn join_sandbox(
        &self,
        pod: &pod::Sandbox,
        container: &Container,
        state: &mut State,
        parts: &Parts<'_>,
    ) -> Result<Processes> {
        state.sandbox = Some(pod.state.id.clone());
        let address = self.root.address(state);
        let joining = pod::Joining::start(&self.options, &address, container, parts)?;
        state.sentry.clone_from(&pod.state.sentry);
        let (stand_in, gofer) = joining.ids()?;
        (state.stand_in, state.gofer) = (Some(stand_in), Some(gofer));
        container.save(state)?;
        self.weigh(&pod.state.id);
        run_create_hooks(parts.spec, state)?;
        let pids_of = pod::pid_namespace(&self.root, &pod.state, parts.spec)?;
        let made = joining
            .create(&self.options, &address, parts, pids_of)
            .and_then(|()| created(container, state, parts.args));
        if let Err(error) = made {
            let _ = pod::destroy(&address);
            return Err(error);
        }
        let (main, gofer) = joining.release()?;
        Ok(Processes { main, gofer })
    }

    /// Lets a created container's first process run.
    pub fn start(&self, container: &Container, state: &mut State) -> Result<()> {
        match state.status() {
            Status::Created => {}
            status => bail!("cannot start container {:?} in the {} state", container.id, status.as_str()),
        }
        // That it was started is for the sentry to say, in the record.
        Client::connect(&self.root.address(state))?.start()?;
        state.record = record::read(&container.path.join(RECORD));
        // The specification: a failure is told, and the container's life goes on.
        run_to_the_end(Point::Poststart, &saved_spec(container)?, state, Status::Running);
        Ok(())
    }

    /// Create, start, and, unless detached, wait and delete. Returns the exit code.
    pub fn run(&self, id: &str, bundle: &Path, spec: &Spec, args: &CreateArgs) -> Result<i32> {
        // Before the container can take the terminal over.
        let terminal = TerminalGuard::new();
        let (container, mut state, processes) = self.create(id, bundle, spec, args)?;
        let signals = (!args.detach).then(Signals::take_over).transpose()?;
        let foreground = spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
        let handed_over = match foreground && args.console_socket.is_none() {
            true => terminal.hand_over(),
            false => Ok(()),
        };
        if let Err(error) = handed_over.and_then(|()| self.start(&container, &mut state)) {
            processes.kill();
            let _ = self.delete_locked(container, Some(state), true);
            return Err(error);
        }
        let Some(signals) = signals else {
            return Ok(0);
        };
        let directory = container.path.clone();
        let address = self.root.address(&state);
        // Others may look at the container, signal it, and delete it.
        drop(container);
        signals.forward_until(processes.main.pidfd.as_fd(), |signo| {
            let target = match foreground {
                true => Target::Foreground(FIRST),
                false => Target::Process(FIRST),
            };
            forward(&address, target, signo);
        })?;
        let _ = waitpid(processes.main.pid, None);
        drop(terminal);
        let record = record::read(&directory.join(RECORD));
        // Somebody may have deleted it meanwhile.
        if !args.keep
            && let Ok(container) = self.root.open(id)
        {
            let now = container.state()?;
            self.delete_locked(container, now, true)?;
        }
        if state.sandbox.is_none() {
            // Another's may serve others yet.
            let _ = waitpid(processes.gofer.pid, None);
        }
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
        let result =
            Client::connect(&self.root.address(&state)).and_then(|client| client.signal(target, signo));
        match (result, &state.sentry) {
            (Ok(()), _) => Ok(()),
            // A sentry that does not answer dies with all that it runs.
            (Err(_), Some(sentry))
                if state.sandbox.is_none()
                    && signo == libc::SIGKILL
                    && matches!(target, Target::All | Target::Process(FIRST)) =>
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
            Err(_) if force && !self.root.directory(id).exists() => {
                self.root.sweep();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let state = container.state()?;
        self.delete_locked(container, state, force)
    }

    fn delete_locked(&self, container: Container, state: Option<State>, force: bool) -> Result<()> {
        if let Some(state) = &state {
            let status = state.status();
            if matches!(status, Status::Running | Status::Paused) && !force {
                bail!("cannot delete container {:?} that is not stopped: {}", container.id, status.as_str());
            }
            match &state.sandbox {
                None => {
                    // The sentry first: the gofer then ends by itself.
                    for process in [&state.sentry, &state.gofer].into_iter().flatten() {
                        process.kill(KILL_LIMIT)?;
                    }
                }
                Some(_) => self.leave_sandbox(state, force)?,
            }
        }
        let spec = saved_spec(&container);
        remove_cgroup(&container)?;
        container.remove()?;
        if let Some(sandbox) = state.as_ref().and_then(|state| state.sandbox.as_ref()) {
            self.weigh(sandbox);
        }
        if let (Some(state), Ok(spec)) = (&state, spec) {
            run_to_the_end(Point::Poststop, &spec, state, Status::Stopped);
        }
        Ok(())
    }

    /// The containers that have joined a sandbox and live.
    pub fn members(&self, sandbox: &str) -> Vec<State> {
        let states =
            self.root.ids().unwrap_or_default().into_iter().filter_map(|id| self.root.read(&id).ok());
        let joined = states.filter(|state| state.sandbox.as_deref() == Some(sandbox));
        joined.filter(|state| state.status() != Status::Stopped).collect()
    }

    /// The sentry works for all containers of its sandbox, in the group of the first, which managers often give next to
    /// nothing: it gets no smaller part of busy processors than all the others together, lest they wait for it.
    pub fn weigh(&self, sandbox: &str) {
        let directory = self.root.directory(sandbox);
        let (Ok(Some(cgroup)), Ok(spec)) = (read_cgroup(&directory), read_spec(&directory)) else { return };
        let members = self.members(sandbox).into_iter();
        let specs = members.filter_map(|member| read_spec(&self.root.directory(&member.id)).ok());
        let all: u64 = specs.map(|spec| cgroup::shares(&spec)).sum();
        if let Err(error) = cgroup.weigh(all.max(cgroup::shares(&spec)), self.options.cgroups) {
            crate::report::warn(&crate::report::line(&error));
        }
    }

    /// Ends a container that has joined a sandbox, and its processes of the host.
    fn leave_sandbox(&self, state: &State, force: bool) -> Result<()> {
        let mut shared_gofer = false;
        if let Some(sentry) = state.sentry.as_ref().filter(|sentry| sentry.alive()) {
            match pod::destroy(&self.root.address(state)) {
                Ok(keeps) => shared_gofer = keeps,
                Err(_) if !sentry.alive() => {}
                // A sentry that does not answer dies with all that it runs.
                Err(_) if force => sentry.kill(KILL_LIMIT)?,
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(gofer), Some(sandbox)) = (shared_gofer, &state.gofer, &state.sandbox) {
            // It outlives the container's cgroup, in that of the sandbox.
            let directory = self.root.directory(sandbox);
            if let Some(cgroup) = read_cgroup(&directory)? {
                let limits = cgroup::limits(&read_spec(&directory)?);
                let pid = Pid::from_raw(gofer.pid);
                cgroup.join(pid, &Entered::new(), limits.as_ref(), self.options.cgroups)?;
            }
        }
        let gofer = state.gofer.as_ref().filter(|_| !shared_gofer);
        for process in [state.stand_in.as_ref(), gofer].into_iter().flatten() {
            // It is about to end by itself, and others read its status.
            wait_gone(Some(process), Duration::from_secs(1))?;
            process.kill(KILL_LIMIT)?;
        }
        Ok(())
    }

    /// Waits until a process has ended. [`FIRST`] is the container's first, whose end is known also afterwards.
    pub fn wait(&self, id: &str, pid: i32) -> Result<ExitStatus> {
        let state = self.root.read(id)?;
        let directory = self.root.directory(id);
        if state.status() != Status::Stopped
            && let Ok(client) = Client::connect(&self.root.address(&state))
        {
            match client.wait(pid) {
                Ok(status) => return Ok(status),
                Err(error) if pid != FIRST || !error.is::<Gone>() => return Err(error),
                // It may have ended before it could answer.
                Err(_) => wait_gone(state.sentry.as_ref(), KILL_LIMIT)?,
            }
        }
        if pid != FIRST {
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

fn wait_gone(process: Option<&ProcessId>, limit: Duration) -> Result<()> {
    if let Some(pidfd) = process.and_then(ProcessId::open) {
        wait_readable(pidfd.as_fd(), Some(limit))?;
    }
    Ok(())
}

/// See [`sandbox::serve_directories`]: the gofers are put into the container's cgroup.
pub fn serve_directories(
    options: &Options,
    id: &str,
    stdio: &mut Stdio,
    cgroup: Option<&Cgroup>,
    limits: Option<&LinuxResources>,
) -> Result<Vec<u32>> {
    let prepare = |pid: Pid, entered: &Entered| {
        cgroup.map_or(Ok(()), |cgroup| cgroup.join(pid, entered, limits, options.cgroups))
    };
    let place = if stdio.preserved.is_empty() { None } else { cgroup.map(Cgroup::place) };
    let home = sandbox::Home { place: place.unwrap_or_default(), prepare: &prepare };
    sandbox::serve_directories(options, id, stdio, &home)
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

/// Runs the hooks of a point whose failures are no more than warnings: each of them, whatever the others do.
fn run_to_the_end(point: Point, spec: &Spec, state: &State, status: Status) {
    for error in hooks::run_all(point, spec, state, status) {
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
pub fn forward(address: &Address, target: Target, signo: i32) {
    let result = Client::connect(address).and_then(|client| client.signal(target, signo));
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
