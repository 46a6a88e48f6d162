//! Process descriptors (pidfd_open(2)).

use std::any::Any;
use std::sync::Arc;

use abi::Result;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;

use crate::Kernel;
use crate::task::Pid;
use crate::vfs::{File, FileOps, Io};
use crate::wait::WaitQueue;

/// A reference to a process, or with PIDFD_THREAD to a thread.
pub struct PidFd {
    /// Its number.
    pub pid: Arc<Pid>,
    /// PIDFD_THREAD.
    pub thread: bool,
}

/// What a signal can be sent to by way of a file: that of a process descriptor, and whether it means a thread; or the process
/// of a directory of proc (tgid_pidfd_to_pid). EBADF, ESRCH for a directory of what is gone.
pub fn target(file: &File) -> Result<(Arc<Pid>, bool)> {
    if let Some(pidfd) = file.ops::<PidFd>() {
        return Ok((pidfd.pid.clone(), pidfd.thread));
    }
    super::proc::process_of(file.path().inode()).map(|pid| (pid, false))
}

/// Opens a descriptor of `pid`.
pub fn open(kernel: &Arc<Kernel>, pid: &Arc<Pid>, thread: bool) -> Arc<File> {
    kernel.anonymous.file(Arc::new(PidFd { pid: pid.clone(), thread }), OpenFlags::O_RDWR)
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let alive = if self.thread {
            self.pid.task().is_some_and(|t| t.files().is_some())
        } else {
            self.pid.group().is_some_and(|g| !g.is_dead())
        };
        if alive { PollEvents::empty() } else { PollEvents::POLLIN | PollEvents::POLLRDNORM }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pid.exited)
    }

    fn fdinfo(&self) -> String {
        let numbers: Vec<String> = self.pid.numbers().map(|(_, n)| n.to_string()).collect();
        let innermost = numbers.iter().rev().cloned().collect::<Vec<_>>().join("\t");
        format!("Pid:\t{}\nNSpid:\t{innermost}\n", numbers.last().cloned().unwrap_or_default())
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[pidfd]".to_string()
    }
}
