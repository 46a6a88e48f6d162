//! What the tests of the command share: a state directory, bundles, and a sandbox that leaves nothing behind.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod cgroups;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// A state directory of its own; everything in it is deleted at the end.
pub struct Runsc {
    /// Holds the state directory and the bundles.
    pub dir: tempfile::TempDir,
    flags: Vec<String>,
}

impl Runsc {
    pub fn new() -> Runsc {
        Runsc::with_flags(&[])
    }

    /// Without cgroups, whose names are the containers' ids: those of tests that run at the same time are the same.
    pub fn without_cgroups() -> Runsc {
        Runsc::with_flags(&["--ignore-cgroups"])
    }

    /// With flags before the verb.
    pub fn with_flags(flags: &[&str]) -> Runsc {
        let mut flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        if let Ok(platform) = std::env::var("RUNSC_PLATFORM") {
            flags.push(format!("--platform={platform}"));
        }
        Runsc { dir: runsc_tests::scratch::dir().unwrap(), flags }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A command of it, ready to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsc"));
        command.arg("--root").arg(self.root()).args(&self.flags).args(args).stdin(Stdio::null());
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", describe(&output));
        text(&output.stdout)
    }

    /// Standard error of a command that must fail with the runtime's own code.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(128), "{args:?}: {}", describe(&output));
        text(&output.stderr)
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// A bundle with a small root filesystem that runs `args`, changed by `change`.
    pub fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.dir.path().join(name);
        make_root(&bundle.join("rootfs"));
        let caps = ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"];
        let mut config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "hostname": "box",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin", "A=B"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}
            }
        });
        change(&mut config);
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    /// Waits until `state` says this.
    pub fn wait_for(&self, id: &str, status: &str) {
        wait_until(&format!("{id} is {status}"), || self.state(id)["status"] == status);
    }
}

/// Waits until that is so, patiently: the limit only ends a test that would hang.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("not so after five minutes: {what}");
}

impl Drop for Runsc {
    fn drop(&mut self) {
        let ids = text(&self.output(&["list", "--quiet"]).stdout);
        for id in ids.lines() {
            self.output(&["delete", "--force", id]);
        }
    }
}

/// Waits until no process of the host has this word on its command line.
pub fn wait_for_no_process(word: &str) {
    let left = || -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.map(|line| text(&line)).filter(|line| line.split('\0').any(|arg| arg == word)).collect()
    };
    wait_until(&format!("no process has {word:?} on its command line"), || left().is_empty());
}

/// What a command does for an ordinary user: the binary is copied to where such a user can get it.
pub fn without_root(args: &[&str]) -> Output {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let permit =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    permit(dir.path(), 0o777);
    let binary = dir.path().join("runsc");
    // By a process of its own: a file that another thread's child has open for writing cannot be executed.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_runsc")).arg(&binary).status().unwrap().success());
    permit(&binary, 0o755);
    Command::new(&binary)
        .arg("--root")
        .arg(dir.path().join("state"))
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(1000)
        .gid(1000)
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn describe(output: &Output) -> String {
    format!("{}, stdout {:?}, stderr {:?}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A root filesystem of busybox.
fn make_root(root: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "data"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "true", "false", "cat", "echo", "id", "ls", "sleep", "hostname", "env", "pwd", "kill", "stat",
        "tty", "stty", "mount", "touch", "ps", "head", "wc", "grep", "dd", "mkdir", "rm",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/tmp:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:bob\n").unwrap();
}

fn busybox() -> Option<PathBuf> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    path.into_iter().find(|path| path.exists())
}

/// Whether containers can be run here. If not, says why, for the test to be skipped.
pub fn can_run(test: &str) -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| {
        if busybox().is_none() {
            return Some("there is no busybox (Debian's busybox-static)".into());
        }
        let runsc = Runsc::new();
        let output = runsc.output(&["do", "true"]);
        // Any other failure is for the test to show.
        text(&output.stderr).contains("in this build").then(|| describe(&output))
    });
    if let Some(why) = why_not {
        eprintln!("skipped: {test}: {why}");
    }
    why_not.is_none()
}

/// Ends a test with a message unless containers can be run.
#[macro_export]
macro_rules! need_sandbox {
    () => {
        if !$crate::common::can_run(module_path!()) {
            return;
        }
    };
}
