//! Containers for these tests, which leave nothing behind.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runsc_tests::guest::{self, Linkage};
use runsc_tests::{scratch, target, tree};
use serde_json::{Value, json};

/// Runs `test` on each platform. Says so if there is nothing to run it with.
pub fn on_each_platform(name: &str, test: impl Fn(&Runsc)) {
    let Some(binary) = target::runsc() else {
        println!("{name}: skipped: no runsc binary (build it, or set RUNSC)");
        return;
    };
    if !guest::have_compiler() {
        println!("{name}: skipped: no gcc to build the programs with");
        return;
    }
    for platform in target::platforms() {
        println!("{name}: {platform}");
        test(&Runsc::new(&binary, &platform));
    }
}

/// A static program of this folder.
pub fn program(name: &str) -> PathBuf {
    // Once, not by all tests at the same time.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let source = guest::crate_dir().join("robustness").join(name).with_extension("c");
    guest::build(&source, Linkage::Static).unwrap()
}

/// A state directory and its containers. At the end all are deleted.
pub struct Runsc {
    binary: PathBuf,
    pub platform: String,
    pub dir: tempfile::TempDir,
}

impl Runsc {
    pub fn new(binary: &Path, platform: &str) -> Runsc {
        Runsc { binary: binary.into(), platform: platform.into(), dir: scratch::dir().unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What the names of its containers' cgroups begin with.
    pub fn cgroup(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A command, ready to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).arg(format!("--platform={}", self.platform));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What a command says and how it ends. By way of files: a container that it leaves behind keeps what it was given.
    pub fn output(&self, args: &[&str]) -> Output {
        let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let (out, err) = (stdout.try_clone().unwrap(), stderr.try_clone().unwrap());
        let status = self.command(args).stdout(out).stderr(err).status().unwrap();
        let read = |file: &mut fs::File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
            bytes
        };
        Output { status, stdout: read(&mut stdout), stderr: read(&mut stderr) }
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?} on {}: {}", self.platform, describe(&output));
        text(&output.stdout)
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// A bundle whose root has `stress` and little else, and which runs it with `args`; `change` has the last word.
    pub fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> String {
        let bundle = self.dir.path().join(name);
        for dir in ["tmp", "proc", "sys", "dev", "etc"] {
            fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap();
        }
        fs::copy(program("stress"), bundle.join("rootfs/stress")).unwrap();
        let all: Vec<String> =
            ["KILL", "SETUID", "SETGID", "SYS_ADMIN", "SYS_RESOURCE", "CHOWN", "DAC_OVERRIDE"]
                .map(|name| format!("CAP_{name}"))
                .into();
        let args = [&["/stress"], args].concat();
        // The hierarchies are the host's, where other tests have containers of the same name.
        let cgroup = format!("/{}-{name}", self.cgroup());
        let mut config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "linux": {"cgroupsPath": cgroup},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/"],
                "cwd": "/",
                "capabilities": {"bounding": all, "effective": all, "permitted": all}
            }
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle.to_str().unwrap().into()
    }

    /// Runs a container whose program says "ready" and then waits for a byte.
    pub fn run_until_ready(&self, id: &str, args: &[&str]) -> Running {
        self.run_bundle_until_ready(id, &self.bundle(id, args, |_| {}))
    }

    /// The same with a bundle that there is.
    pub fn run_bundle_until_ready(&self, id: &str, bundle: &str) -> Running {
        let mut child = self
            .command(&["run", "--bundle", bundle, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let running = Running { child, lines };
        assert_eq!(line, "ready\n", "{id} on {}", self.platform);
        running
    }

    /// The processes of a container that has state: the sentry and the gofer, all their descendants.
    pub fn processes(&self, id: &str) -> HashSet<i32> {
        let Ok(state) = fs::read(self.root().join(id).join("state.json")) else { return HashSet::new() };
        let state: Value = serde_json::from_slice(&state).unwrap();
        let mut all = HashSet::new();
        for name in ["sentry", "gofer"] {
            if let Some(pid) = find_pid(&state, name) {
                all.extend(tree::family(pid as u32));
            }
        }
        all
    }

    /// The process id of the container's `sentry` or `gofer`.
    pub fn process(&self, id: &str, name: &str) -> i32 {
        let state = fs::read(self.root().join(id).join("state.json")).unwrap();
        find_pid(&serde_json::from_slice(&state).unwrap(), name).unwrap()
    }

    /// Deletes the container whatever it is doing. Nothing of it is left.
    pub fn delete(&self, id: &str) {
        let processes = self.processes(id);
        self.ok(&["delete", "--force", id]);
        wait_until_gone(&processes);
        assert!(!self.root().join(id).exists());
        self.nothing_mounted_or_grouped();
    }

    /// There is no mount below its directory, and no cgroup with its name.
    pub fn nothing_mounted_or_grouped(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(dir), "mounts are left: {mounts}");
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for controller in controllers {
            let groups = fs::read_dir(controller.path()).into_iter().flatten().flatten();
            for group in groups {
                let name = group.file_name();
                assert!(!name.to_string_lossy().starts_with(&self.cgroup()), "{:?} is left", group.path());
            }
        }
    }
}

impl Drop for Runsc {
    fn drop(&mut self) {
        let ids = text(&self.output(&["list", "--quiet"]).stdout);
        for id in ids.lines() {
            self.output(&["delete", "--force", id]);
        }
    }
}

/// Where the state says this process is: `{"sentry": {"pid": 1, …}, …}`, at whatever depth.
fn find_pid(state: &Value, name: &str) -> Option<i32> {
    match state {
        Value::Object(fields) => match fields.get(name) {
            Some(process) => process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()),
            None => fields.values().find_map(|value| find_pid(value, name)),
        },
        _ => None,
    }
}

/// A container in the foreground.
pub struct Running {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The next line that the program says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Lets the program go on, and returns its last line and exit code.
    pub fn finish(mut self) -> (String, Option<i32>) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut last = String::new();
        self.lines.read_line(&mut last).unwrap();
        (last, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ours, or ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A zombie is gone as far as the sandbox is concerned.
fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// Waits until none of these is there. The time is generous: it ends a test that would hang.
pub fn wait_until_gone(processes: &HashSet<i32>) {
    for _ in 0..1200 {
        if !processes.iter().any(|&pid| is_alive(pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let left: Vec<_> = processes.iter().filter(|&&pid| is_alive(pid)).collect();
    panic!("processes are left: {left:?}");
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn describe(output: &Output) -> String {
    format!("{}, stdout {:?}, stderr {:?}", output.status, text(&output.stdout), text(&output.stderr))
}
