//! `delete`: what containerd calls when a container's shim is gone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use serde_json::Value;

use crate::args::Args;
use crate::config::Config;
use crate::rootfs;
use crate::runsc::{command, failure};
use crate::service::{PID_FILE, ROOTFS};
use crate::start;

/// What a container ends with that is killed.
const KILLED: u32 = 128 + 9;

/// Kills the container, removes it, and says how it ended.
pub fn delete(args: &Args) -> Result<DeleteResponse> {
    let bundle = args.bundle()?;
    // Without this file the container was never created.
    let config = match Config::load(&bundle) {
        Ok(config) => config,
        Err(_) => Config::from_options(None, &args.namespace)?,
    };
    let exit = ended_by_itself(&config, &args.id);
    let output = run(&config, &["delete", "--force", &args.id])?;
    rootfs::unmount_all(&bundle.join(ROOTFS));
    start::remove_dead_socket(&bundle);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(failure(output.status.code().unwrap_or(-1), &said));
    }
    Ok(DeleteResponse {
        pid: read_pid(&bundle),
        exit_status: exit.unwrap_or(KILLED),
        exited_at: Some(Timestamp::from(SystemTime::now())).into(),
        ..Default::default()
    })
}

/// The exit code of a container that has ended already, which the runtime keeps.
fn ended_by_itself(config: &Config, id: &str) -> Option<u32> {
    let json = |verb: &str| -> Option<Value> {
        let output = run(config, &[verb, id]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    };
    if json("state")?["status"] != "stopped" {
        return None;
    }
    u32::try_from(json("wait")?["exitStatus"].as_i64()?).ok()
}

fn run(config: &Config, args: &[&str]) -> Result<std::process::Output> {
    let mut command: Command = command(config);
    command.args(args).current_dir("/").stdin(Stdio::null());
    command.output().with_context(|| format!("running {:?}", config.binary))
}

fn read_pid(bundle: &Path) -> u32 {
    std::fs::read_to_string(bundle.join(PID_FILE)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
