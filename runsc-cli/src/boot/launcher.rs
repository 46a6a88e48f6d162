//! The thread that starts guest processes.
//!
//! It has the filters of task threads, so that the threads it makes for guest tasks have them, too: that costs nothing,
//! while to install them on each would.

use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};

use crate::confine::filter;
use crate::confine::policy::Role;

type Job = Box<dyn FnOnce() + Send>;

/// A handle of the thread.
pub struct Launcher {
    jobs: Sender<Job>,
}

impl Launcher {
    /// Makes the thread. When this returns, its filters are in place.
    pub fn start(platform: &str) -> Result<Launcher> {
        let (jobs, queue) = channel::<Job>();
        let (ready, installed) = channel();
        let platform = platform.to_owned();
        std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                let result = filter::narrow(Role::Task, &platform);
                let failed = result.is_err();
                let _ = ready.send(result);
                if failed {
                    return;
                }
                while let Ok(job) = queue.recv() {
                    job();
                }
            })
            .context("starting the launcher thread")?;
        installed.recv().context("the launcher thread ended")??;
        Ok(Launcher { jobs })
    }

    /// Runs `work` on the thread and waits for its result.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (done, result) = channel();
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(work());
            }))
            .map_err(|_| anyhow!("the launcher thread is gone"))?;
        result.recv().context("the launcher thread panicked")?
    }
}
