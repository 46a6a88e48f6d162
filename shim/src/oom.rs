//! Tells containerd when the kernel kills in a container's control group for want of memory.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use containerd_shim_protos::events::task::TaskOOM;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::cgroup::{Cgroup, unified};
use crate::events::Events;

/// Version 1 tells before it kills: how long a kill is waited for after that, in milliseconds.
const WAITS: &[u64] = &[0, 1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Publishes an event for each time, until the group is gone or the task is aborted.
pub async fn watch(id: String, cgroup: Cgroup, events: Events) {
    if let Err(error) = try_watch(&id, &cgroup, &events).await {
        tracing::debug!("container {id}: out-of-memory events: {error:#}");
    }
}

async fn try_watch(id: &str, cgroup: &Cgroup, events: &Events) -> Result<()> {
    let (notifier, _counter) = subscribe(cgroup)?;
    // tokio's end of a pipe reads any descriptor that epoll knows.
    let mut notifier = pipe::Receiver::from_owned_fd_unchecked(notifier)?;
    let mut seen = cgroup.oom_kills().unwrap_or(0);
    loop {
        // How much there is to read, or that there is nothing left, tells nothing.
        let _any = notifier.read(&mut [0; 4096]).await?;
        for wait in if unified() { &WAITS[..1] } else { WAITS } {
            tokio::time::sleep(Duration::from_millis(*wait)).await;
            // The group's removal wakes us, too.
            let Some(now) = cgroup.oom_kills() else { return Ok(()) };
            if now > seen {
                seen = now;
                events.publish(&TaskOOM { container_id: id.to_owned(), ..Default::default() });
                break;
            }
        }
    }
}

/// A descriptor that becomes readable when something may have been killed, and one that has to live as long.
fn subscribe(cgroup: &Cgroup) -> Result<(OwnedFd, Option<File>)> {
    let directory = cgroup.directory("memory").ok_or_else(|| anyhow!("there is no memory controller"))?;
    if unified() {
        let notifier = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let path = directory.join("memory.events");
        inotify::add_watch(&notifier, &path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF)
            .with_context(|| format!("watching {path:?}"))?;
        return Ok((notifier, None));
    }
    let notifier = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let path = directory.join("memory.oom_control");
    let control = File::open(&path).with_context(|| format!("opening {path:?}"))?;
    let line = format!("{} {}", notifier.as_raw_fd(), control.as_raw_fd());
    std::fs::write(directory.join("cgroup.event_control"), line).context("cgroup.event_control")?;
    Ok((notifier, Some(control)))
}
