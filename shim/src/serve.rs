//! The server: one process for the containers of a pod.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::ttrpc::asynchronous::Server;
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
use rustix::fs::OFlags;
use rustix::process::{getpid, set_child_subreaper};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;
use crate::events::Events;
use crate::reaper::Reaper;
use crate::service::Service;
use crate::start::{LOG_PATH, TTRPC_ADDRESS};

/// The service under its name before containerd 2, which all of them speak.
const TASK_V2: &str = "containerd.task.v2.Task";
/// A fifo in the bundle whose lines containerd adds to its own log.
const LOG_FIFO: &str = "log";

/// Serves until the last container is deleted.
pub fn serve(args: &Args) -> Result<()> {
    let bundle = args.bundle()?;
    start_log(&bundle, args.debug);
    // What runs here waits for others: one thread does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let result = runtime.block_on(run(args));
    if let Err(error) = &result {
        tracing::error!("{error:#}");
    }
    result
}

async fn run(args: &Args) -> Result<()> {
    set_child_subreaper(Some(getpid())).context("becoming a subreaper")?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("the socket on standard input")?;
    let listener = UnixListener::from(socket);
    let address = listener.local_addr().context("standard input is no socket")?;
    let reaper = Reaper::start().context("SIGCHLD")?;
    // A shim ends when its containers are deleted; a shutdown of the machine asks containerd for that.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut ignored = signal(kind).context("signals")?;
        tokio::spawn(async move { while ignored.recv().await.is_some() {} });
    }
    let ttrpc = std::env::var(TTRPC_ADDRESS).context(TTRPC_ADDRESS)?;
    let events = Events::start(ttrpc, &args.namespace);
    let service = Arc::new(Service::new(&args.namespace, reaper, events.clone()));
    let task = || create_task(service.clone() as Arc<dyn Task + Send + Sync>);
    let earlier = task().into_values().map(|methods| (TASK_V2.to_owned(), methods)).collect();
    let mut server = Server::new()
        .add_listener(Listener::try_from(listener).context("the socket")?)
        .register_service(task())
        .register_service(earlier);
    server.start().await.context("the server")?;
    tracing::info!("serving containers of {:?}", args.id);

    service.shut_down().await;
    // Before anything else: nobody is to find a server that goes.
    if let Some(path) = address.as_pathname() {
        let _ = std::fs::remove_file(path);
    }
    events.flush().await;
    let _ = server.shutdown().await;
    tracing::info!("done");
    Ok(())
}

/// Logs to the configured file, or to containerd. What cannot be written is dropped.
fn start_log(bundle: &Path, debug: bool) {
    let file = match std::env::var_os(LOG_PATH) {
        Some(path) => {
            if let Some(directory) = Path::new(&path).parent() {
                let _ = std::fs::create_dir_all(directory);
            }
            OpenOptions::new().append(true).create(true).open(&path)
        }
        None => OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(bundle.join(LOG_FIFO)),
    };
    let Ok(file) = file else { return };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(if debug { LevelFilter::DEBUG } else { LevelFilter::INFO })
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}
