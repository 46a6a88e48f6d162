//! The methods of the control API: each turns a request into a call of the [`Sandbox`], and nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::Interest;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::boot::container::Container;
use crate::boot::guest::{Guest, Process};
use crate::boot::kernel::{Donations, Sandbox};
use crate::boot::launcher::Launcher;
use crate::boot::limits::Limits;
use crate::control::descriptors::Waiting;
use crate::control::proto::control_server::Control;
use crate::control::proto::exec_event::Event;
use crate::control::proto::{
    CreateRequest, CreateResponse, DestroyRequest, DestroyResponse, ExecEvent, ExecRequest, LimitRequest,
    LimitResponse, PauseRequest, PauseResponse, ProcessesRequest, ProcessesResponse, ResumeRequest,
    ResumeResponse, SignalRequest, SignalResponse, StartRequest, StartResponse, UsageRequest, UsageResponse,
    WaitRequest, WaitResponse,
};
use crate::control::{self, Target, status};
use crate::record::ExitStatus;

type Answer<T> = Result<Response<T>, Status>;

/// What requests are answered from.
#[derive(Clone)]
pub struct Service {
    pub sandbox: Arc<Sandbox>,
    pub launcher: Arc<Launcher>,
    pub descriptors: Waiting,
    /// Changes whenever a process has ended.
    pub changes: watch::Receiver<()>,
    /// Makes it change.
    pub notify: watch::Sender<()>,
}

/// How long the processes of a container may take to end.
const END_LIMIT: Duration = Duration::from_secs(8);
/// How often it is looked whether they have.
const END_STEP: Duration = Duration::from_millis(1);

/// A container does not outlive its gofer, without which it has no files, nor the process that stands for it.
pub fn guard(container: &Arc<Container>, notify: &watch::Sender<()>) -> Result<()> {
    let watched = [Some(container.gofer.channel()?), container.stand_in().map(OwnedFd::from)];
    for end in watched.into_iter().flatten() {
        let end = control::watch(end, Interest::PRIORITY)?;
        let (container, notify) = (Arc::downgrade(container), notify.clone());
        tokio::spawn(async move {
            let _ = end.ready(Interest::PRIORITY).await;
            if let Some(container) = container.upgrade() {
                container.kill_all();
                notify.send_replace(());
            }
        });
    }
    Ok(())
}

/// Does something that must not stop halfway when its caller goes away.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await?
}

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status(&error))
}

impl Service {
    /// Waits until a process has ended.
    async fn ended(&self, container: &str, pid: i32) -> Result<ExitStatus> {
        let mut changes = self.changes.clone();
        let container = self.sandbox.container(container)?;
        loop {
            changes.mark_unchanged();
            if let Some(status) = container.ended(pid)? {
                return Ok(status);
            }
            changes.changed().await.context("the sandbox ends")?;
        }
    }

    /// Makes another container, and ends it with the processes of the host that belong to it.
    async fn make(self, request: CreateRequest) -> Result<()> {
        let guest: Guest = serde_json::from_slice(&request.guest).context("reading the configuration")?;
        let fds = self.descriptors.take(&request.descriptors)?;
        let mut fds = fds.into_iter();
        let mut next = || fds.next().context("create wants six file descriptors and more");
        let mut stdio = vec![next()?, next()?, next()?];
        let [gofer, record, stand_in] = [next()?, next()?, next()?];
        for _ in 0..request.preserved {
            stdio.push(next()?);
        }
        let view = if request.view { Some(next()?) } else { None };
        let donations = Donations {
            stdio,
            gofer,
            record,
            stand_in,
            entrances: fds.collect(),
            must_enter: request.must_enter,
        };
        let sandbox = self.sandbox.clone();
        let create = move || sandbox.create(&guest, request.pid_namespace_of.as_deref(), donations);
        let container = self.launcher.run(create).await?;
        if let Some(device) = view {
            self.launcher.show(Sandbox::view_of(&container), device);
        }
        guard(&container, &self.notify)
    }

    /// A container's first process has ended.
    pub async fn say_goodbye(self, container: Arc<Container>) {
        let finish = move || {
            container.finish();
            Ok(())
        };
        if let Err(error) = self.launcher.run(finish).await {
            tracing::error!("{}", crate::report::line(&error));
        }
        self.notify.send_replace(());
    }

    /// Ends a container and forgets it. True if its gofer is needed by others.
    async fn end(self, id: String) -> Result<bool> {
        let Ok(container) = self.sandbox.container(&id) else { return Ok(false) };
        if Arc::ptr_eq(&container, self.sandbox.first()) {
            bail!("the sandbox ends with its first container");
        }
        let limit = Instant::now() + END_LIMIT;
        // What forks while it is looked for is found the next time.
        loop {
            container.kill_all();
            if !container.lives() {
                break;
            }
            if Instant::now() > limit {
                bail!("processes do not end");
            }
            tokio::time::sleep(END_STEP).await;
        }
        let sandbox = self.sandbox.clone();
        let finish = move || {
            container.finish();
            Ok(sandbox.remove(container))
        };
        let result = self.launcher.run(finish).await;
        self.notify.send_replace(());
        result
    }

    /// Starts a process, and tells of it until it has ended. It does not outlive its audience.
    async fn run(self, request: ExecRequest, events: mpsc::Sender<Result<ExecEvent, Status>>) -> Result<()> {
        let ExecRequest { container, process, descriptors } = request;
        let process = Process::try_from(process.context("a request without a process")?)?;
        let stdio = self.descriptors.take(&descriptors)?;
        let (sandbox, id) = (self.sandbox.clone(), container.clone());
        let pid = self.launcher.run(move || sandbox.exec(&id, &process, stdio)).await?;
        let send = async |event| events.send(Ok(ExecEvent { event: Some(event) })).await;
        let _ = send(Event::Started(pid)).await;
        tokio::select! {
            ended = self.ended(&container, pid) => {
                let _ = send(Event::Ended(ended?.into())).await;
            }
            () = events.closed() => {}
        }
        let container = self.sandbox.container(&container)?;
        if container.ended(pid).is_ok_and(|ended| ended.is_none()) {
            container.signal(Target::Process(pid), libc::SIGKILL)?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Control for Service {
    type ExecStream = ReceiverStream<Result<ExecEvent, Status>>;

    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let made = to_the_end(self.clone().make(request.into_inner())).await;
        answer(made.map(|()| CreateResponse {}))
    }

    async fn destroy(&self, request: Request<DestroyRequest>) -> Answer<DestroyResponse> {
        let kept = to_the_end(self.clone().end(request.into_inner().container)).await;
        answer(kept.map(|keeps_gofer| DestroyResponse { keeps_gofer }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answer<StartResponse> {
        let container = request.into_inner().container;
        let sandbox = self.sandbox.clone();
        let start = move || sandbox.start(&container);
        answer(self.launcher.run(start).await.map(|()| StartResponse {}))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<Self::ExecStream> {
        let (events, audience) = mpsc::channel(2);
        let (service, request) = (self.clone(), request.into_inner());
        // A task of its own: a request that is cancelled would leave a process that nobody knows.
        tokio::spawn(async move {
            if let Err(error) = service.run(request, events.clone()).await {
                let _ = events.send(Err(status(&error))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(audience)))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<WaitResponse> {
        let WaitRequest { container, pid } = request.into_inner();
        let status = self.ended(&container, pid).await;
        answer(status.map(|status| WaitResponse { status: Some(status.into()) }))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Answer<SignalResponse> {
        let SignalRequest { container, signal, target } = request.into_inner();
        let result = Target::try_from(target);
        let result = result.and_then(|target| self.sandbox.container(&container)?.signal(target, signal));
        // Of a process that was not started, nobody else tells that it has ended.
        self.notify.send_replace(());
        answer(result.map(|()| SignalResponse {}))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answer<PauseResponse> {
        let container = request.into_inner().container;
        let sandbox = self.sandbox.clone();
        // It takes as long as a thread of the guest may stay in the sentry.
        let pause = move || sandbox.container(&container)?.pause();
        answer(self.launcher.run(pause).await.map(|()| PauseResponse {}))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Answer<ResumeResponse> {
        let container = self.sandbox.container(&request.into_inner().container);
        answer(container.map(|container| {
            container.resume();
            ResumeResponse {}
        }))
    }

    async fn limit(&self, request: Request<LimitRequest>) -> Answer<LimitResponse> {
        let LimitRequest { container, pids, shown, cpus, memory } = request.into_inner();
        let limits = Limits { pids, shown: shown.into_iter().collect(), cpus, memory };
        answer(self.sandbox.container(&container).map(|container| {
            container.limit(&limits);
            LimitResponse {}
        }))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let container = self.sandbox.container(&request.into_inner().container);
        answer(container.map(|container| container.usage()))
    }

    async fn processes(&self, request: Request<ProcessesRequest>) -> Answer<ProcessesResponse> {
        let container = self.sandbox.container(&request.into_inner().container);
        answer(container.map(|container| ProcessesResponse { processes: container.processes() }))
    }
}
