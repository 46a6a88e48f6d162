//! The command's side of the control API. Every call here waits for its answer: the rest of the command knows nothing
//! of futures.

use std::future::Future;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::task;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Response, Status, Streaming};

use super::proto::{self, control_client::ControlClient, exec_event::Event};
use super::{MAX_MESSAGE, ProcessInfo, SOCKET, Target, descriptors};
use crate::boot::guest::{Guest, Process};
use crate::boot::limits::Limits;
use crate::console::Signals;
use crate::record::ExitStatus;
use crate::state;

/// How long a sentry may take to answer what it can answer at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Where a container's sentry is asked, and about whom.
#[derive(Clone, Debug)]
pub struct Address {
    /// The state directory of the sandbox's first container.
    pub sandbox: PathBuf,
    /// The container's id.
    pub container: String,
}

/// A connection to a sentry, about one container.
pub struct Client {
    runtime: Runtime,
    rpc: ControlClient<Connection>,
    address: Address,
}

/// A process that this client has started, and that ends with it.
pub struct Exec {
    /// In the container's pid namespace.
    pub pid: i32,
    events: Streaming<proto::ExecEvent>,
}

impl Client {
    /// Connects to the container's sentry.
    pub fn connect(address: &Address) -> Result<Client> {
        let socket = state::connect(&address.sandbox, SOCKET, state::Kind::Stream)
            .context("connecting to the sandbox")?;
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let connection = runtime.block_on(async {
            let io = TokioIo::new(tokio::net::UnixStream::from_std(socket)?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            anyhow::Ok(Connection(sender))
        })?;
        let rpc = ControlClient::with_origin(connection, http::Uri::from_static("http://sandbox"))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Client { runtime, rpc, address: address.clone() })
    }

    fn container(&self) -> String {
        self.address.container.clone()
    }

    /// Waits for an answer, however long it takes.
    fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        self.runtime.block_on(call).map(Response::into_inner).map_err(|status| super::error(&status))
    }

    /// Waits for an answer that takes no time.
    fn prompt_answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        self.answer(async {
            tokio::time::timeout(ANSWER_LIMIT, call)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")))
        })
    }

    /// Makes a container in this sandbox. `fds` are its standard files, the gofer's connection, the record, what leads to
    /// the process that stands for it, `preserved` files that its first process has besides, and the entrances of its cgroup, which its guests must enter or may stay out of.
    pub fn create(
        &self,
        guest: &Guest,
        pids_of: Option<String>,
        fds: &[BorrowedFd<'_>],
        preserved: usize,
        view: bool,
        must_enter: bool,
    ) -> Result<()> {
        let sent = descriptors::send(&self.address.sandbox, fds).context("passing file descriptors")?;
        let request = proto::CreateRequest {
            guest: serde_json::to_vec(guest)?,
            pid_namespace_of: pids_of,
            descriptors: sent.token.to_vec(),
            must_enter,
            preserved: u32::try_from(preserved)?,
            view,
        };
        self.answer(self.rpc.clone().create(request)).map(drop)
    }

    /// Ends the container for good; it is not the sandbox's first. True if its gofer is needed by others.
    pub fn destroy(&self) -> Result<bool> {
        let request = proto::DestroyRequest { container: self.container() };
        Ok(self.prompt_answer(self.rpc.clone().destroy(request))?.keeps_gofer)
    }

    /// Lets the container's first process run.
    pub fn start(&self) -> Result<()> {
        let request = proto::StartRequest { container: self.container() };
        self.answer(self.rpc.clone().start(request)).map(drop)
    }

    /// Starts another process with these standard files.
    pub fn exec(&self, process: Process, stdio: &[BorrowedFd<'_>]) -> Result<Exec> {
        let sent = descriptors::send(&self.address.sandbox, stdio).context("passing the standard files")?;
        let request = proto::ExecRequest {
            container: self.container(),
            process: Some(process.into()),
            descriptors: sent.token.to_vec(),
        };
        let mut events = self.answer(self.rpc.clone().exec(request))?;
        match self.runtime.block_on(next(&mut events))? {
            Event::Started(pid) => Ok(Exec { pid, events }),
            Event::Ended(_) => bail!("unexpected answer"),
        }
    }

    /// Waits until a process has ended that this client has started; meanwhile passes signals on to `target`.
    pub fn stand_for(&self, exec: &mut Exec, signals: &Signals, target: Target) -> Result<ExitStatus> {
        self.runtime.block_on(async {
            let watched = signals.watch()?;
            loop {
                tokio::select! {
                    event = next(&mut exec.events) => match event? {
                        Event::Ended(status) => return ExitStatus::try_from(Some(status)),
                        Event::Started(_) => bail!("unexpected answer"),
                    },
                    ready = watched.readable() => {
                        let mut ready = ready?;
                        while let Some(signo) = signals.next() {
                            let request = self.signal_request(target, signo);
                            let mut rpc = self.rpc.clone();
                            // One that comes too late has nobody to go to.
                            tokio::spawn(async move {
                                if let Err(status) = rpc.signal(request).await {
                                    tracing::debug!("signal {signo}: {}", status.message());
                                }
                            });
                        }
                        ready.clear_ready();
                    }
                }
            }
        })
    }

    /// Waits until a process has ended.
    pub fn wait(&self, pid: i32) -> Result<ExitStatus> {
        let request = proto::WaitRequest { container: self.container(), pid };
        self.answer(self.rpc.clone().wait(request))?.status.try_into()
    }

    fn signal_request(&self, target: Target, signo: i32) -> proto::SignalRequest {
        proto::SignalRequest { container: self.container(), signal: signo, target: Some(target.into()) }
    }

    /// Sends a signal.
    pub fn signal(&self, target: Target, signo: i32) -> Result<()> {
        self.prompt_answer(self.rpc.clone().signal(self.signal_request(target, signo))).map(drop)
    }

    /// Holds the container's processes.
    pub fn pause(&self) -> Result<()> {
        let request = proto::PauseRequest { container: self.container() };
        self.prompt_answer(self.rpc.clone().pause(request)).map(drop)
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<()> {
        let request = proto::ResumeRequest { container: self.container() };
        self.prompt_answer(self.rpc.clone().resume(request)).map(drop)
    }

    /// Changes the limits that the sentry holds or shows.
    pub fn limit(&self, limits: Limits) -> Result<()> {
        let Limits { pids, shown, cpus, memory } = limits;
        let request = proto::LimitRequest {
            container: self.container(),
            pids,
            shown: shown.into_iter().collect(),
            cpus,
            memory,
        };
        self.prompt_answer(self.rpc.clone().limit(request)).map(drop)
    }

    /// What the container uses.
    pub fn usage(&self) -> Result<proto::UsageResponse> {
        let request = proto::UsageRequest { container: self.container() };
        self.prompt_answer(self.rpc.clone().usage(request))
    }

    /// The container's processes.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let request = proto::ProcessesRequest { container: self.container() };
        Ok(self.prompt_answer(self.rpc.clone().processes(request))?.processes)
    }
}

async fn next(events: &mut Streaming<proto::ExecEvent>) -> Result<Event> {
    let event = events.message().await.map_err(|status| super::error(&status))?;
    event.and_then(|event| event.event).ok_or_else(|| anyhow!("the sandbox is gone"))
}

/// What carries requests: one HTTP/2 connection.
#[derive(Clone)]
struct Connection(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
