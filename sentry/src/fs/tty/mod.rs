//! Terminals: pseudo-terminals (pty(7), drivers/tty/pty.c), their filesystem, and consoles whose other end is a terminal
//! of the host.
//!
//! - [`line`] is the line discipline; [`Terminal`] adds who may use it: opens, sessions, the foreground, hangups.
//! - [`TerminalFile`] is an open terminal, [`MasterFile`] the other end of a pseudo-terminal.
//! - [`Devpts`] gives terminals their numbers and names.
//! - [`HostConsole`] connects a terminal with the host.
//!
//! Lock order: the kernel's tasklist → [`Terminal`]'s control (session and foreground) → a process's own terminal.
//! A terminal's state is a leaf, but for wait queues; signals are sent without it.

mod console;
mod devpts;
mod file;
mod ioctl;
mod job_control;
pub mod line;
mod master;
mod settings;
mod terminal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::minor;
use abi::{Errno, Result};

pub use console::HostConsole;
pub use devpts::{Devpts, DevptsOptions};
pub use file::TerminalFile;
pub use job_control::disassociate;
pub use master::MasterFile;
pub use terminal::Terminal;

use crate::Kernel;
use crate::vfs::special::Driver;
use crate::vfs::{FileOps, Io, Path};

/// The major number of `/dev/tty`, `/dev/console` and `/dev/ptmx`.
const AUXILIARY: u32 = 5;

/// The first and last major numbers of the terminals of pseudo-terminals.
const SLAVES: (u32, u32) = (136, 143);

/// Registers the drivers.
pub(super) fn register_drivers(kernel: &Kernel) {
    kernel.drivers.register(AUXILIARY, Arc::new(Auxiliary));
    for major in SLAVES.0..=SLAVES.1 {
        kernel.drivers.register(major, Arc::new(Slaves));
    }
}

/// The driver of major number 5.
struct Auxiliary;

impl Driver for Auxiliary {
    fn open(&self, io: &Io<'_>, path: &Path, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let task = io.task.ok_or(Errno::ENXIO)?;
        match minor(rdev) {
            // The controlling terminal of whoever asks.
            0 => {
                let terminal = task.group.terminal().ok_or(Errno::ENXIO)?;
                Ok(TerminalFile::open(&terminal, task, flags)?)
            }
            // The machine has no console. Containers have a terminal there.
            1 => Err(Errno::ENODEV),
            2 => Ok(MasterFile::open(task, path)?),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// The driver of terminals: they are known by their inode, since numbers mean nothing outside their filesystem.
struct Slaves;

impl Driver for Slaves {
    fn open(&self, io: &Io<'_>, path: &Path, _rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let task = io.task.ok_or(Errno::ENXIO)?;
        let terminal = devpts::terminal_at(path).ok_or(Errno::EIO)?;
        Ok(TerminalFile::open(&terminal, task, flags)?)
    }
}
