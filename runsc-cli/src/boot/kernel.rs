//! Where the boot process meets the sentry.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Result, bail};
use platform::Platform;

use super::config::BootConfig;
use super::control::Control;
use crate::report;

/// The names that `--platform` takes beside auto, the preferred one first.
pub const PLATFORMS: &[&str] = &["systrap", "ptrace"];

/// Number, name, support and note of each system call.
pub fn syscall_table() -> Vec<[String; 4]> {
    Vec::new()
}

/// Makes a platform by its name; `auto` is the first that works. Must be called while the process has one thread, in
/// its final namespaces, before its filters.
pub fn platform(name: &str) -> Result<Arc<dyn Platform>> {
    match name {
        "auto" => {
            let mut failures = Vec::new();
            for name in PLATFORMS {
                match platform(name) {
                    Ok(platform) => return Ok(platform),
                    Err(error) => failures.push(report::line(&error)),
                }
            }
            bail!("none works here: {}", failures.join("; "))
        }
        "systrap" => Ok(Arc::new(platform_systrap::SystrapPlatform::new()?)),
        "ptrace" => Ok(Arc::new(platform_ptrace::Ptrace::new()?)),
        _ => bail!("there is no such platform"),
    }
}

/// Makes the kernel of the sandbox, mounts its files and loads its first process, which waits for its start.
pub fn start(
    _config: BootConfig,
    _platform: Arc<dyn Platform>,
    gofer: OwnedFd,
    _stdio: [OwnedFd; 3],
) -> Result<Arc<dyn Control>> {
    let client = gofer::Client::new(gofer);
    let root = client.attach(0)?;
    tracing::info!("root {root:?}");
    bail!("there is no sentry in this build")
}
