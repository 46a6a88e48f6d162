//! `containerd-shim-runsc-v1`: the process between containerd and `runsc`.
//!
//! containerd calls it three times for a container. `start` finds or starts the shim of the container's pod and prints
//! its address. That shim serves containerd's Task API on a socket until its last container is deleted; it drives the
//! `runsc` binary with the verbs of any OCI runtime. `delete` cleans up behind a shim that died.
//!
//! A shim keeps nothing alive: the sandbox's processes do not end with it, and what `delete` needs lies in the bundle.
#![forbid(unsafe_code)]

mod args;
mod cgroup;
mod config;
mod console;
mod delete;
mod events;
mod io;
mod metrics;
mod oom;
mod process;
mod reaper;
mod rootfs;
mod runsc;
mod serve;
mod service;
mod start;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use args::{Action, Args};

/// The name that containerd's configuration uses.
const RUNTIME: &str = "io.containerd.runsc.v1";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows this to its user.
            eprintln!("containerd-shim-runsc-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.action {
        Action::Version => {
            println!("{RUNTIME} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Info => print(&info().write_to_bytes()?),
        Action::Start => print(&start::start(&args).context("starting a shim")?),
        Action::Delete => print(&delete::delete(&args).context("cleaning up")?.write_to_bytes()?),
        Action::Serve => serve::serve(&args),
    }
}

fn info() -> RuntimeInfo {
    RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() })
            .into(),
        ..Default::default()
    }
}

fn print(answer: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(answer).and_then(|()| stdout.flush()).context("answering containerd")
}
