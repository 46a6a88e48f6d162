//! Where the boot process meets the sentry.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Result, bail};
use platform::Platform;

use super::config::BootConfig;
use super::control::Control;

/// The names that `--platform` takes, beside auto.
pub const PLATFORMS: &[&str] = &["ptrace", "systrap"];

/// What `--platform=auto` means.
pub const DEFAULT_PLATFORM: &str = "systrap";

/// Number, name, support and note of each system call.
pub fn syscall_table() -> Vec<[String; 4]> {
    Vec::new()
}

/// Makes a platform by its name.
pub fn platform(name: &str) -> Result<Arc<dyn Platform>> {
    match name {
        "systrap" => Ok(Arc::new(platform_systrap::SystrapPlatform::new()?)),
        _ => bail!("there is no platform {name:?} in this build"),
    }
}

/// Makes the kernel of the sandbox, mounts its files and loads its first process, which waits for its start.
pub fn start(
    _config: BootConfig,
    _platform: Arc<dyn Platform>,
    _gofer: OwnedFd,
    _stdio: [OwnedFd; 3],
) -> Result<Arc<dyn Control>> {
    bail!("there is no sentry in this build")
}
