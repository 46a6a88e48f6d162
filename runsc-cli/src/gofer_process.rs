//! The gofer process: serves a container's files to its sentry.

use std::os::fd::{OwnedFd, RawFd};

use anyhow::{Context, Result};
use nix::sys::prctl;

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
    std::process::exit(code);
}

fn run() -> Result<()> {
    prctl::set_name(c"runsc-gofer")?;
    // SAFETY: the command donated it, and this is the first to look.
    let text = message::read_memfd(unsafe { adopt(FIRST_FD)? })?;
    let config: GoferConfig = serde_json::from_slice(&text).context("reading the gofer's configuration")?;
    // SAFETY: the configuration numbers what the command donated, each number once.
    let take = |number: RawFd| unsafe { adopt(number) };
    report::start_tracing(config.log.map(take).transpose()?, config.debug);
    let channel = take(config.channel)?;
    let served = config
        .served
        .iter()
        .map(|(number, readonly)| Ok((take(*number)?, *readonly)))
        .collect::<Result<Vec<_>>>()?;
    serve(channel, served, config.host_sockets)
}

fn serve(_channel: OwnedFd, _served: Vec<(OwnedFd, bool)>, _host_sockets: bool) -> Result<()> {
    anyhow::bail!("there is no gofer in this build")
}
