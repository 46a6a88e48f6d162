//! Threads that start guest processes and mount files.
//!
//! They have the filters of task threads, so that the threads they make for guest tasks have them, too: that costs
//! nothing, while to install them on each would. Each job has a thread of its own: one that waits for a slow disk keeps
//! nobody waiting.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl;
use sentry::view::View;
use tokio::sync::oneshot;

use crate::confine::filter;
use crate::confine::policy::Role;

type Job = Box<dyn FnOnce() + Send>;

/// A handle of the thread that makes them.
pub struct Launcher {
    jobs: Sender<Job>,
}

impl Launcher {
    /// Makes the thread. When this returns, its filters are in place.
    pub fn start(platform: &str, host_network: bool) -> Result<Launcher> {
        let (jobs, queue) = channel::<Job>();
        let (ready, installed) = channel();
        let platform = platform.to_owned();
        std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                let result = filter::narrow(Role::Task, &platform, host_network);
                let failed = result.is_err();
                let _ = ready.send(result);
                if failed {
                    return;
                }
                while let Ok(job) = queue.recv() {
                    // Whoever waits for a job that has no thread finds it dropped.
                    let _ = std::thread::Builder::new().name("launch".into()).spawn(job);
                }
            })
            .context("starting the launcher thread")?;
        installed.recv().context("the launcher thread ended")??;
        Ok(Launcher { jobs })
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(work());
            }))
            .map_err(|_| anyhow!("the launcher thread is gone"))?;
        Ok(result)
    }

    /// Lets the host see a container by way of a FUSE device, on a thread of its own.
    pub fn show(&self, view: View, device: OwnedFd) {
        let serve = move || {
            prctl::set_name(c"view")?;
            view.serve(device).inspect_err(|error| tracing::error!("showing the container: {error}"))?;
            Ok(())
        };
        if let Err(error) = self.begin(serve) {
            tracing::error!("{}", crate::report::line(&error));
        }
    }

    /// Runs `work` on a thread of its own.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.begin(work)?.await.context("there is no thread for it")?
    }

    /// Runs `work` on a thread of its own, and waits for its result.
    pub fn run_and_wait<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.begin(work)?.blocking_recv().context("there is no thread for it")?
    }
}
