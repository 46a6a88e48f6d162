//! Directories for tests. Their names tell whose they are, so that what a killed test has left goes with the next one's
//! start: the containers whose state is in `state` below, and the directory.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

use crate::target::runsc;

const PREFIX: &str = "runsc-test-";

/// A new directory, which is deleted with the value.
pub fn dir() -> io::Result<TempDir> {
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| sweep(&std::env::temp_dir()));
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()
}

/// Removes what processes that are gone have left. What cannot be removed belongs to somebody else.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            delete_containers(&entry.path().join("state"));
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn delete_containers(state: &Path) {
    let Some(runsc) = runsc().filter(|_| state.exists()) else { return };
    let verb = |args: &[&str]| {
        Command::new(&runsc)
            .arg("--root")
            .arg(state)
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
    };
    let Ok(listed) = verb(&["list", "--quiet"]) else { return };
    for id in String::from_utf8_lossy(&listed.stdout).lines() {
        let _ = verb(&["delete", "--force", id]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_have_left_goes() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        // Larger than any process id.
        let dead = make("runsc-test-99999999-abc");
        let kept =
            [make(&format!("runsc-test-{}-abc", std::process::id())), make("runsc-test-x"), make("other")];
        sweep(parent.path());
        assert!(!dead.exists() && kept.iter().all(|path| path.exists()));
    }
}
