//! Where a guest program runs: natively, or in the sandbox on a platform.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::guest::target_dir;

/// A place to run a program.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// On the host's Linux, with the cases' scratch folders below this one.
    Native(PathBuf),
    /// By `runsc do` on a platform.
    Sandbox {
        /// The `runsc` binary.
        runsc: PathBuf,
        /// A value of `--platform`.
        platform: String,
        /// More flags before the verb.
        flags: Vec<String>,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Native(folder) => write!(f, "native {}", folder.display()),
            Target::Sandbox { platform, .. } => f.write_str(platform),
        }
    }
}

impl Target {
    /// The command that runs `program` here; arguments may be added.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Target::Native(folder) => {
                let mut command = Command::new(program);
                command.env("COMPAT_TMP", folder);
                command
            }
            Target::Sandbox { runsc, platform, flags } => {
                let mut command = Command::new(runsc);
                command.arg(format!("--platform={platform}")).args(flags).args(["do", "--"]).arg(program);
                command.env_remove("COMPAT_TMP");
                command
            }
        }
    }

    /// Runs /bin/true here: an error says why the target cannot be used at all.
    pub fn probe(&self) -> Result<()> {
        let output = self.command(Path::new("/bin/true")).output()?;
        if !output.status.success() {
            bail!("/bin/true: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// The `runsc` to test: `$RUNSC`, else the newest one in the target folder.
pub fn runsc() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RUNSC") {
        return Some(PathBuf::from(path));
    }
    let target = target_dir();
    ["x86_64-unknown-linux-gnu/release", "x86_64-unknown-linux-gnu/debug", "release", "debug"]
        .iter()
        .map(|dir| target.join(dir).join("runsc"))
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
}

/// The platforms to test: `$RUNSC_PLATFORMS` (with commas between), else the two that every Linux host has.
pub fn platforms() -> Vec<String> {
    let list = std::env::var("RUNSC_PLATFORMS").unwrap_or_else(|_| "ptrace,systrap".into());
    list.split(',').filter(|name| !name.is_empty()).map(str::to_string).collect()
}
