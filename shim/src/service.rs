//! containerd's Task API.
//!
//! Locks: a process's turn before the list of containers before a process's state. Only turns are held while something is
//! awaited.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskPaused, TaskResumed,
    TaskStart,
};
use containerd_shim_protos::protobuf::EnumOrUnknown;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::asynchronous::TtrpcContext;
use containerd_shim_protos::ttrpc::{self, Code, get_status};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::cgroup::Cgroup;
use crate::config::Config;
use crate::events::{Events, pack};
use crate::io::Paths;
use crate::metrics;
use crate::oom;
use crate::process::{Connection, Exit, Phase, Process};
use crate::reaper::Reaper;
use crate::rootfs;
use crate::runsc::{Launch, Runsc};

/// In a bundle: where the root filesystem is mounted.
pub const ROOTFS: &str = "rootfs";
/// In a bundle: the pid of the container.
pub const PID_FILE: &str = "init.pid";
/// How long the end of a container waits for the ends of its execs to be told first.
const EXECS_LIMIT: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, ttrpc::Error>;

/// A container.
struct Container {
    id: String,
    bundle: PathBuf,
    runsc: Runsc,
    init: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    cgroup: Option<Cgroup>,
    oom_watch: Option<JoinHandle<()>>,
}

/// The service.
pub struct Service {
    namespace: String,
    reaper: Reaper,
    events: Events,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    done: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status(code: Code, message: impl std::fmt::Display) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message.to_string()))
}

/// An error in the words of the runtime, with all causes. containerd tells kinds apart by the code.
fn failed(error: anyhow::Error) -> ttrpc::Error {
    let text = format!("{error:#}");
    let gone = ["container not running", "does not exist", "no such process", "No such process"];
    match gone.iter().any(|words| text.contains(words)) {
        true => status(Code::NOT_FOUND, text),
        false => status(Code::UNKNOWN, text),
    }
}

impl Container {
    /// The first process, or that of an exec.
    fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = lock(&self.execs).get(exec_id).cloned();
        found.ok_or_else(|| {
            status(Code::NOT_FOUND, format!("there is no exec {exec_id:?} in container {:?}", self.id))
        })
    }

    fn exec_file(&self, exec_id: &str, what: &str) -> PathBuf {
        self.bundle.join(format!("exec-{exec_id}.{what}"))
    }
}

impl Service {
    /// For containers of one of containerd's namespaces.
    pub fn new(namespace: &str, reaper: Reaper, events: Events) -> Service {
        Service {
            namespace: namespace.to_owned(),
            reaper,
            events,
            containers: Mutex::default(),
            done: Notify::new(),
        }
    }

    /// Waits until containerd has asked for it.
    pub async fn shut_down(&self) {
        self.done.notified().await;
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| status(Code::NOT_FOUND, format!("there is no container {id:?}")))
    }

    fn find(&self, id: &str, exec_id: &str) -> Result<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    async fn create_container(&self, request: &CreateTaskRequest) -> anyhow::Result<u32> {
        let bundle = PathBuf::from(&request.bundle);
        let config = Config::from_options(request.options.as_ref(), &self.namespace)?;
        for key in &config.unknown {
            tracing::warn!("the configuration's {key:?} means nothing here");
        }
        // From here on a `delete` knows what to do.
        config.save(&bundle)?;
        let root = bundle.join(ROOTFS);
        rootfs::mount_all(&request.rootfs, &root)?;
        let result = self.create_on_root(request, &bundle, config).await;
        if result.is_err() {
            rootfs::unmount_all(&root);
        }
        result
    }

    async fn create_on_root(
        &self,
        request: &CreateTaskRequest,
        bundle: &Path,
        config: Config,
    ) -> anyhow::Result<u32> {
        let runsc = Runsc::new(config, &request.id, bundle, self.reaper.clone());
        let paths = Paths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let (connection, stdio) = Connection::open(&paths)?;
        let console_socket = connection.console_socket();
        let expecting = self.reaper.expect();
        let launch = Launch {
            stdio,
            console_socket: console_socket.as_deref(),
            pid_file: &bundle.join(PID_FILE),
            log: &bundle.join("create-log.json"),
        };
        let pid = runsc.create(launch).await?;
        let io = match connection.establish(&paths) {
            Ok(io) => io,
            Err(error) => {
                let _ = runsc.verb(&["delete", "--force"], &[]).await;
                return Err(error);
            }
        };
        let init = Arc::new(Process::new("", paths, None));
        {
            let mut state = init.state();
            (state.pid, state.io) = (pid, Some(io));
        }
        let cgroup = Cgroup::of_container(pid);
        let oom_watch = cgroup
            .clone()
            .map(|cgroup| tokio::spawn(oom::watch(request.id.clone(), cgroup, self.events.clone())));
        let container = Arc::new(Container {
            id: request.id.clone(),
            bundle: bundle.to_owned(),
            runsc,
            init: init.clone(),
            execs: Mutex::default(),
            cgroup,
            oom_watch,
        });
        lock(&self.containers).insert(request.id.clone(), container.clone());
        self.events.publish(&TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..Default::default()
            })
            .into(),
            pid,
            ..Default::default()
        });
        self.watch(&container, &init, expecting.end_of(pid));
        Ok(pid)
    }

    /// Tells of a process's end when it comes.
    fn watch(&self, container: &Arc<Container>, process: &Arc<Process>, end: oneshot::Receiver<i32>) {
        let (container, process, events) = (container.clone(), process.clone(), self.events.clone());
        tokio::spawn(async move {
            let Ok(code) = end.await else { return };
            let exit = Exit { code: code.unsigned_abs(), at: SystemTime::now() };
            if process.exec_id.is_empty() {
                let execs: Vec<_> = lock(&container.execs).values().cloned().collect();
                for exec in execs.iter().filter(|exec| exec.state().phase != Phase::Created) {
                    let _ = tokio::time::timeout(EXECS_LIMIT, exec.wait()).await;
                }
            }
            // After what told of its start.
            let _turn = process.turn.lock().await;
            process.stop(exit);
            let id = match process.exec_id.as_str() {
                "" => container.id.clone(),
                exec_id => exec_id.to_owned(),
            };
            events.publish(&TaskExit {
                container_id: container.id.clone(),
                id,
                pid: process.state().pid,
                exit_status: exit.code,
                exited_at: Some(exit.timestamp()).into(),
                ..Default::default()
            });
        });
    }

    async fn start_init(&self, container: &Container) -> anyhow::Result<u32> {
        let process = &container.init;
        let _turn = process.turn.lock().await;
        container.runsc.verb(&["start"], &[]).await?;
        let pid = {
            let mut state = process.state();
            state.phase = Phase::Running;
            state.pid
        };
        self.events.publish(&TaskStart { container_id: container.id.clone(), pid, ..Default::default() });
        Ok(pid)
    }

    async fn start_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> anyhow::Result<u32> {
        let _turn = process.turn.lock().await;
        if process.state().phase != Phase::Created {
            return Err(anyhow!("exec {:?} has been started", process.exec_id));
        }
        let result = self.launch_exec(container, process).await;
        match result {
            Ok(pid) => {
                self.events.publish(&TaskExecStarted {
                    container_id: container.id.clone(),
                    exec_id: process.exec_id.clone(),
                    pid,
                    ..Default::default()
                });
                Ok(pid)
            }
            Err(error) => {
                // It can only be deleted.
                process.stop(Exit { code: 255, at: SystemTime::now() });
                Err(error)
            }
        }
    }

    async fn launch_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> anyhow::Result<u32> {
        let file = |what: &str| container.exec_file(&process.exec_id, what);
        let (description, pid_file, inner_pid_file, log) =
            (file("process.json"), file("pid"), file("inner-pid"), file("log.json"));
        std::fs::write(&description, serde_json::to_vec(&process.spec)?)
            .with_context(|| format!("writing {description:?}"))?;
        let (connection, stdio) = Connection::open(&process.paths)?;
        let console_socket = connection.console_socket();
        let expecting = self.reaper.expect();
        let launch =
            Launch { stdio, console_socket: console_socket.as_deref(), pid_file: &pid_file, log: &log };
        let result = container.runsc.exec(&description, &inner_pid_file, launch).await;
        for path in [&description, &pid_file, &inner_pid_file] {
            let _ = std::fs::remove_file(path);
        }
        let (pid, inner_pid) = result?;
        let end = expecting.end_of(pid);
        {
            let mut state = process.state();
            (state.phase, state.pid, state.inner_pid) = (Phase::Running, pid, inner_pid);
        }
        match connection.establish(&process.paths) {
            Ok(io) => process.state().io = Some(io),
            Err(error) => {
                let _ = container.runsc.verb(&["kill", "--pid", &inner_pid.to_string()], &["KILL"]).await;
                return Err(error);
            }
        }
        self.watch(container, process, end);
        Ok(pid)
    }

    async fn delete_process(&self, container: &Container, process: &Process) -> Result<DeleteResponse> {
        let _turn = process.turn.lock().await;
        let (phase, pid) = {
            let state = process.state();
            (state.phase, state.pid)
        };
        let is_init = process.exec_id.is_empty();
        if matches!(phase, Phase::Running | Phase::Paused) {
            return Err(status(Code::FAILED_PRECONDITION, "the process is running"));
        }
        if is_init {
            // Whatever state it is in: what it has been told to delete must go.
            container.runsc.verb(&["delete", "--force"], &[]).await.map_err(failed)?;
            rootfs::unmount_all(&container.bundle.join(ROOTFS));
            if let Some(watch) = &container.oom_watch {
                watch.abort();
            }
        }
        let io = process.state().io.take();
        if let Some(io) = io {
            io.finish().await;
        }
        let exit = process.exit();
        let mut response = DeleteResponse { pid, ..Default::default() };
        if let Some(exit) = exit {
            (response.exit_status, response.exited_at) = (exit.code, Some(exit.timestamp()).into());
        }
        if is_init {
            lock(&self.containers).remove(&container.id);
            self.events.publish(&TaskDelete {
                container_id: container.id.clone(),
                pid,
                exit_status: response.exit_status,
                exited_at: response.exited_at.clone(),
                ..Default::default()
            });
        } else {
            lock(&container.execs).remove(&process.exec_id);
        }
        Ok(response)
    }

    async fn pause_or_resume(&self, id: &str, pause: bool) -> Result<Empty> {
        let container = self.container(id)?;
        let _turn = container.init.turn.lock().await;
        let (verb, from, to) = match pause {
            true => ("pause", Phase::Running, Phase::Paused),
            false => ("resume", Phase::Paused, Phase::Running),
        };
        let phase = container.init.state().phase;
        if phase != from {
            return Err(status(
                Code::FAILED_PRECONDITION,
                format!("cannot {verb} a container that is {phase:?}"),
            ));
        }
        container.runsc.verb(&[verb], &[]).await.map_err(failed)?;
        container.init.state().phase = to;
        let container_id = container.id.clone();
        match pause {
            true => self.events.publish(&TaskPaused { container_id, ..Default::default() }),
            false => self.events.publish(&TaskResumed { container_id, ..Default::default() }),
        }
        Ok(Empty::new())
    }
}

/// The JSON in a message of containerd's.
fn json(any: Option<&Any>, what: &str) -> Result<Value> {
    let value = any.map(|any| any.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(value).map_err(|error| status(Code::INVALID_ARGUMENT, format!("{what}: {error}")))
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(status(Code::UNIMPLEMENTED, "restoring from a checkpoint is not supported"));
        }
        if lock(&self.containers).contains_key(&request.id) {
            return Err(status(Code::ALREADY_EXISTS, format!("container {:?} already exists", request.id)));
        }
        let pid = self.create_container(&request).await.map_err(failed)?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let (container, process) = self.find(&request.id, &request.exec_id)?;
        let pid = match request.exec_id.is_empty() {
            true => self.start_init(&container).await,
            false => self.start_exec(&container, &process).await,
        };
        Ok(StartResponse { pid: pid.map_err(failed)?, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let (container, process) = self.find(&request.id, &request.exec_id)?;
        self.delete_process(&container, &process).await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() || request.exec_id.contains('/') {
            return Err(status(Code::INVALID_ARGUMENT, format!("{:?} is no id", request.exec_id)));
        }
        let mut spec = json(request.spec.as_ref(), "the process")?;
        spec["terminal"] = request.terminal.into();
        let paths = Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let process = Arc::new(Process::new(&request.exec_id, paths, Some(spec)));
        {
            let mut execs = lock(&container.execs);
            if execs.contains_key(&request.exec_id) {
                return Err(status(
                    Code::ALREADY_EXISTS,
                    format!("exec {:?} already exists", request.exec_id),
                ));
            }
            execs.insert(request.exec_id.clone(), process);
        }
        self.events.publish(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..Default::default()
        });
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let (_, process) = self.find(&request.id, &request.exec_id)?;
        let side = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        if let Some(io) = &process.state().io {
            io.resize(side(request.height), side(request.width)).map_err(failed)?;
        }
        Ok(Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        let (container, process) = self.find(&request.id, &request.exec_id)?;
        let exit = process.exit();
        let state = process.state();
        Ok(StateResponse {
            id: request.id,
            exec_id: request.exec_id,
            bundle: container.bundle.display().to_string(),
            pid: state.pid,
            status: EnumOrUnknown::new(state.phase.status()),
            stdin: process.paths.stdin.clone(),
            stdout: process.paths.stdout.clone(),
            stderr: process.paths.stderr.clone(),
            terminal: process.paths.terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map(|exit| exit.timestamp()).into(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let container = self.container(&request.id)?;
        let output = container.runsc.verb(&["ps", "--format", "json"], &[]).await.map_err(failed)?;
        let pids: Vec<u32> = serde_json::from_slice(&output)
            .map_err(|error| failed(anyhow!("the list of processes: {error}")))?;
        let execs: Vec<_> = lock(&container.execs).values().cloned().collect();
        let describe = |pid: u32| -> Option<Any> {
            let exec = execs.iter().find(|exec| exec.state().inner_pid == pid)?;
            pack(&ProcessDetails { exec_id: exec.exec_id.clone(), ..Default::default() }).ok()
        };
        let processes =
            pids.into_iter().map(|pid| ProcessInfo { pid, info: describe(pid).into(), ..Default::default() });
        Ok(PidsResponse { processes: processes.collect(), ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        self.pause_or_resume(&request.id, true).await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        self.pause_or_resume(&request.id, false).await
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        let (container, process) = self.find(&request.id, &request.exec_id)?;
        let (phase, inner_pid) = {
            let state = process.state();
            (state.phase, state.inner_pid)
        };
        let signal = request.signal.to_string();
        let is_init = request.exec_id.is_empty();
        match phase {
            // runc: there may be processes left of a container that has stopped; here there are none.
            Phase::Stopped if request.all => return Ok(Empty::new()),
            Phase::Stopped => return Err(status(Code::NOT_FOUND, "process already finished")),
            Phase::Created if !is_init => {
                return Err(status(Code::FAILED_PRECONDITION, "the exec has not been started"));
            }
            _ => {}
        }
        let inner_pid = inner_pid.to_string();
        let verb: &[&str] = match (is_init, request.all) {
            (true, true) => &["kill", "--all"],
            (true, false) => &["kill"],
            (false, _) => &["kill", "--pid", &inner_pid],
        };
        container.runsc.verb(verb, &[&signal]).await.map_err(failed)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let (_, process) = self.find(&request.id, &request.exec_id)?;
        if request.stdin
            && let Some(io) = &mut process.state().io
        {
            io.close_input();
        }
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Result<Empty> {
        self.container(&request.id)?;
        Err(status(Code::UNIMPLEMENTED, "checkpoints are not supported"))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let resources = json(request.resources.as_ref(), "the resources")?;
        let args = ["update", "--resources", "-", &container.id];
        let input = resources.to_string();
        container.runsc.call(&args, Some(input.as_bytes())).await.map_err(failed)?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let (_, process) = self.find(&request.id, &request.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.code,
            exited_at: Some(exit.timestamp()).into(),
            ..Default::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let container = self.container(&request.id)?;
        if container.init.state().phase == Phase::Stopped {
            return Err(status(Code::NOT_FOUND, "the container has stopped"));
        }
        let stats = container.runsc.verb(&["events", "--stats"], &[]).await;
        if let Err(error) = &stats {
            tracing::debug!("container {}: {error:#}", container.id);
        }
        let stats = metrics::message(stats.ok().as_deref(), container.cgroup.as_ref()).map_err(failed)?;
        Ok(StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        let task_pid = match self.container(&request.id) {
            Ok(container) => container.init.state().pid,
            Err(_) => 0,
        };
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Result<Empty> {
        // Others of the pod may be served yet.
        if request.now || lock(&self.containers).is_empty() {
            self.done.notify_one();
        }
        Ok(Empty::new())
    }
}
