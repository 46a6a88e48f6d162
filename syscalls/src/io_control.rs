//! Locks and ownership of open files: the parts of fcntl(2) that need them, flock(2).

use std::sync::Arc;

use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::vfs::File;

/// The commands of fcntl(2) that are not about descriptors or pipes.
pub(crate) fn fcntl(_task: &CurrentTask, _file: &Arc<File>, _command: u32, _arg: u64) -> Result<u64> {
    Err(Errno::EINVAL)
}

/// flock(2).
pub(crate) fn flock(_task: &CurrentTask, _file: &Arc<File>, _operation: u32) -> Result<()> {
    Err(Errno::ENOLCK)
}
