//! The gofer process: serves a container's files to its sentry.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use gofer::{MountFlags, MountRoot};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::{Mode, fstat};

use crate::message;
use crate::process::{FIRST_FD, adopt};
use crate::report;
use crate::sandbox::GoferConfig;

/// `runsc gofer`. Ends when the sentry closes its end of the channel.
pub fn main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(error) => {
            let line = report::line(&error);
            tracing::error!("{line}");
            eprintln!("runsc gofer: {line}");
            crate::EXIT_FAILURE
        }
    };
    // SAFETY: ends the process at once; nothing is left to be dropped.
    unsafe { libc::_exit(code) }
}

fn run() -> Result<()> {
    prctl::set_name(c"runsc-gofer")?;
    // SAFETY: the command donated it, and this is the first to look.
    let text = message::read_memfd(unsafe { adopt(FIRST_FD)? })?;
    let config: GoferConfig = serde_json::from_slice(&text).context("reading the gofer's configuration")?;
    // SAFETY: the configuration numbers what the command donated, each number once.
    let take = |number: RawFd| unsafe { adopt(number) };
    report::start_tracing(config.log.map(take).transpose()?, config.debug);
    let channels = vec![take(config.channel)?];
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::HOST_UDS, config.host_sockets);
    let mounts = config
        .served
        .iter()
        .map(|(number, readonly)| {
            let fd = take(*number)?;
            let mut flags = flags;
            flags.set(MountFlags::READ_ONLY, *readonly);
            Ok(MountRoot { fd: if config.own_mounts { reopen(fd)? } else { fd }, flags })
        })
        .collect::<Result<Vec<_>>>()?;
    let keep: Vec<BorrowedFd<'_>> = config
        .log
        .iter()
        // SAFETY: the subscriber owns it and is never dropped.
        .map(|number| unsafe { BorrowedFd::borrow_raw(*number) })
        .collect();
    let confined = gofer::confine::confine(&channels, mounts, &keep)?;
    for skipped in &confined.skipped {
        tracing::warn!("not possible here: {skipped}");
    }
    gofer::server::serve_channels(channels, confined.server).context("serving files")
}

/// The same directory or file by way of this process's own mount namespace, where it may be isolated; as it was, if
/// its name leads to something else by now.
fn reopen(fd: OwnedFd) -> Result<OwnedFd> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).context("/proc/self/fd")?;
    let Ok(again) = open(&name, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()) else {
        return Ok(fd);
    };
    let (old, new) = (fstat(&fd)?, fstat(&again)?);
    Ok(if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) { again } else { fd })
}
