//! The sentry's side of the control API, on the process's first thread.
//!
//! tokio runs on this thread alone, and never a guest task; what loads programs or mounts files is done by the
//! launcher's threads. Nothing wakes this thread but callers, the end of processes and the size of a terminal's window.

mod service;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use nix::sys::signalfd::SignalFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::kernel::Sandbox;
use super::launcher::Launcher;
use crate::control::descriptors::Waiting;
use crate::control::proto::control_server::ControlServer;
use crate::control::{FIRST, MAX_MESSAGE, Target, watch};
use crate::record::ExitStatus;
use service::Service;

/// Connections beyond this are turned away.
const MAX_CONNECTIONS: usize = 1024;
/// Requests at a time on one connection.
const MAX_REQUESTS: u32 = 64;
/// How long callers may take to fetch their answers when the sandbox ends.
const GOODBYE_LIMIT: Duration = Duration::from_millis(200);

/// The listening sockets.
pub struct Sockets {
    /// The API's.
    pub control: OwnedFd,
    /// That of descriptors beside it.
    pub fds: OwnedFd,
}

/// Serves callers until the sandbox's first process has ended, and returns how it did. `terminal` tells of changes to
/// the window of that process's terminal.
pub fn serve(
    sandbox: &Arc<Sandbox>,
    launcher: Launcher,
    sockets: Sockets,
    terminal: Option<SignalFd>,
) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (notify, mut changes) = watch::channel(());
    let on_end = notify.clone();
    sandbox.on_end(Box::new(move || {
        on_end.send_replace(());
    }));
    let descriptors = Waiting::default();
    let service = Service {
        sandbox: sandbox.clone(),
        launcher: Arc::new(launcher),
        descriptors: descriptors.clone(),
        changes: changes.clone(),
        notify,
    };
    runtime.block_on(async {
        let (closing, closed) = watch::channel(());
        let listening = tokio::net::UnixListener::from_std(UnixListener::from(sockets.control))?;
        let mut connections = JoinSet::new();
        service::guard(sandbox.first(), &service.notify)?;
        if let Some(terminal) = terminal {
            let fd = terminal.as_fd().try_clone_to_owned()?;
            let watched = watch(fd, Interest::READABLE)?;
            tokio::spawn(follow_window(watched, terminal, sandbox.clone()));
        }
        let descriptors = tokio::spawn(descriptors.serve(sockets.fds));
        let ended = async {
            loop {
                for container in sandbox.containers() {
                    if container.takes_leave() {
                        tokio::spawn(service.clone().say_goodbye(container));
                    }
                }
                if let Some(status) = sandbox.first().ended(FIRST)? {
                    return anyhow::Ok(status);
                }
                changes.changed().await.context("the kernel is gone")?;
            }
        };
        tokio::pin!(ended);
        let status = loop {
            tokio::select! {
                status = &mut ended => break status?,
                accepted = listening.accept() => match accepted {
                    Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                        connections.spawn(converse(stream, service.clone(), closed.clone()));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!("accept: {error}");
                        // Out of descriptors, perhaps: others must close theirs first.
                        tokio::time::sleep(GOODBYE_LIMIT).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        };
        descriptors.abort();
        // With its pid namespace, all others end.
        let mut others = JoinSet::new();
        for container in sandbox.containers() {
            if !Arc::ptr_eq(&container, sandbox.first()) {
                others.spawn(service.clone().say_goodbye(container));
            }
        }
        let _ =
            tokio::time::timeout(GOODBYE_LIMIT, async { while others.join_next().await.is_some() {} }).await;
        let _ = closing.send(());
        let _ =
            tokio::time::timeout(GOODBYE_LIMIT, async { while connections.join_next().await.is_some() {} })
                .await;
        Ok(status)
    })
}

/// Serves one connection until its other side, or the sandbox, ends.
async fn converse(stream: UnixStream, service: Service, mut closed: watch::Receiver<()>) {
    let service = ControlServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = closed.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a control connection: {error}");
    }
}

/// Passes on the size of the window of the first process's terminal.
async fn follow_window(watched: AsyncFd<OwnedFd>, signals: SignalFd, sandbox: Arc<Sandbox>) {
    while let Ok(mut ready) = watched.readable().await {
        while let Ok(Some(info)) = signals.read_signal() {
            // All else is the host's driver's opinion of bytes that are for the guest's.
            if info.ssi_signo as i32 == libc::SIGWINCH {
                let _ = sandbox.first().signal(Target::Foreground(FIRST), libc::SIGWINCH);
            }
        }
        ready.clear_ready();
    }
}
