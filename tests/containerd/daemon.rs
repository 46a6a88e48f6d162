//! A containerd of our own, with all that it keeps in one directory.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use runsc_tests::clients::NewCgroups;
use runsc_tests::target;

use crate::image;

/// What may take long on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Which shim runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim {
    /// containerd-shim-runsc-v1.
    Ours,
    /// containerd-shim-runc-v2, with `runsc` in place of runc.
    Runc,
}

/// A running containerd.
pub struct Containerd {
    /// Everything of it.
    pub dir: tempfile::TempDir,
    shim: Shim,
    runsc: PathBuf,
    daemon: RefCell<Option<Child>>,
    skipped: Cell<bool>,
    /// For containers of `ctr`, and of the Container Runtime Interface. Dropped when all else has ended.
    _groups: NewCgroups,
}

impl Containerd {
    /// Starts it. An error says why that cannot be.
    pub fn start(shim: Shim) -> Result<Containerd, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("containerd needs root".into());
        }
        for program in ["containerd", "ctr"] {
            on_path(program).ok_or_else(|| format!("there is no {program} (Debian's containerd)"))?;
        }
        if shim == Shim::Runc {
            on_path("containerd-shim-runc-v2")
                .ok_or("there is no containerd-shim-runc-v2 (Debian's containerd)")?;
        }
        let runsc = target::runsc().ok_or("there is no runsc binary (build it, or set RUNSC)")?;
        let debug = runsc_tests::guest::target_dir().join("x86_64-unknown-linux-gnu/debug/runsc");
        let beside = [&runsc, &debug].map(|path| path.with_file_name("containerd-shim-runsc-v1"));
        let ours = match std::env::var_os("RUNSC_SHIM") {
            Some(path) => PathBuf::from(path),
            None => beside.into_iter().find(|path| path.exists()).unwrap_or_default(),
        };
        if shim == Shim::Ours && !ours.exists() {
            return Err("there is no containerd-shim-runsc-v1 (build it, or set RUNSC_SHIM)".into());
        }
        let _groups = NewCgroups::of(&["default", "k8s.io"]);
        // Short: sockets are in it.
        let dir = tempfile::Builder::new().prefix("rsc").tempdir().map_err(|error| error.to_string())?;
        let path = dir.path();
        fs::create_dir(path.join("bin")).map_err(|error| error.to_string())?;
        for (name, to) in [("runsc", &runsc), ("containerd-shim-runsc-v1", &ours)] {
            std::os::unix::fs::symlink(to, path.join("bin").join(name)).map_err(|error| error.to_string())?;
        }
        let shown = path.display();
        fs::write(path.join("runsc.toml"), format!("root = \"{shown}/runsc\"\nlog_level = \"debug\"\n"))
            .map_err(|error| error.to_string())?;
        fs::write(path.join("config.toml"), config(path)).map_err(|error| error.to_string())?;
        let image = image::make(path)?;
        let containerd =
            Containerd { dir, shim, runsc, daemon: RefCell::new(None), skipped: Cell::new(false), _groups };
        containerd.start_daemon();
        let image = image.to_str().unwrap_or_default().to_owned();
        for namespace in ["default", "k8s.io"] {
            containerd.ctr_ok(&["-n", namespace, "image", "import", "--snapshotter", "native", &image]);
        }
        Ok(containerd)
    }

    /// Its main socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// Starts the daemon.
    pub fn start_daemon(&self) {
        let path = self.dir.path();
        let log = fs::OpenOptions::new().append(true).create(true).open(path.join("log")).unwrap();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let search =
            std::env::join_paths([path.join("bin")].into_iter().chain(std::env::split_paths(&search)))
                .unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(path.join("config.toml"))
            .env("PATH", search)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.daemon.borrow_mut() = Some(child);
        eventually("containerd answers", || self.ctr(&["version"]).status.success().then_some(()));
    }

    /// Stops the daemon; containers go on.
    pub fn stop_daemon(&self) {
        if let Some(mut child) = self.daemon.borrow_mut().take() {
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + LIMIT;
            while child.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Both.
    pub fn restart(&self) {
        self.stop_daemon();
        self.start_daemon();
    }

    /// A command of its client.
    pub fn ctr_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(args);
        command
    }

    /// Runs one.
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.ctr_command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Standard output of one that must succeed.
    pub fn ctr_ok(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        assert!(output.status.success(), "ctr {args:?}: {output:?}");
        text(&output.stdout)
    }

    /// `ctr run` of a container.
    pub fn run_command(&self, id: &str, flags: &[&str], command: &[&str]) -> Command {
        let dir = self.dir.path().display();
        let runsc = self.runsc.display().to_string();
        let (settings, root) = (format!("{dir}/runsc.toml"), format!("{dir}/runc"));
        let mut args = vec!["run", "--snapshotter", "native"];
        match self.shim {
            Shim::Ours => {
                args.extend(["--runtime", "io.containerd.runsc.v1", "--runtime-config-path", &settings]);
            }
            Shim::Runc => {
                args.extend([
                    "--runtime",
                    "io.containerd.runc.v2",
                    "--runc-binary",
                    &runsc,
                    "--runc-root",
                    &root,
                ]);
            }
        }
        args.extend(flags);
        args.extend([image::BOX, id]);
        args.extend(command);
        self.ctr_command(&args)
    }

    /// The same, run.
    pub fn run(&self, id: &str, flags: &[&str], command: &[&str]) -> Output {
        self.run_command(id, flags, command).stdin(Stdio::null()).output().unwrap()
    }

    /// One that goes on.
    pub fn run_detached(&self, id: &str, command: &[&str]) {
        // With its own pipes the container would keep them open.
        let output = self.run(id, &["--detach", "--null-io"], command);
        assert!(output.status.success(), "{output:?}\n{}", self.log());
    }

    /// RUNNING, STOPPED, …
    pub fn task_status(&self, id: &str) -> String {
        let table = self.ctr_ok(&["task", "ls"]);
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or("").to_owned()
    }

    /// Ends a container, and removes it.
    pub fn kill_and_remove(&self, id: &str) {
        self.ctr_ok(&["task", "kill", "--signal", "SIGKILL", id]);
        eventually("it has stopped", || (self.task_status(id) == "STOPPED").then_some(()));
        assert_eq!(self.task_rm(id), 137);
        self.ctr_ok(&["container", "rm", id]);
    }

    /// Removes a task that has stopped: its exit code, which ctr tells in a warning.
    pub fn task_rm(&self, id: &str) -> i32 {
        let output = self.ctr(&["task", "rm", id]);
        assert!(output.status.success(), "{output:?}");
        let said = text(&output.stderr);
        let Some((_, rest)) = said.split_once("non-zero exit code ") else { return 0 };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    /// The running case needs what is not there.
    pub fn skip(&self, why: &str) {
        print!("({why}) ");
        self.skipped.set(true);
    }

    /// Whether it was skipped.
    pub fn take_skip(&self) -> bool {
        self.skipped.take()
    }

    /// The last of what it has logged.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Processes of shims.
    pub fn shims(&self) -> Vec<i32> {
        let name = match self.shim {
            Shim::Ours => "containerd-shim-runsc-v1",
            Shim::Runc => "containerd-shim-runc-v2",
        };
        self.processes(|args| args[0].ends_with(name))
    }

    /// Processes of sandboxes.
    pub fn sandboxes(&self) -> Vec<i32> {
        let state = ["runsc", "runc"].map(|name| self.dir.path().join(name));
        let known = |id: &str| {
            state.iter().any(|root| {
                ["default", "k8s.io"].iter().any(|namespace| root.join(namespace).join(id).exists())
            })
        };
        self.processes(|args| {
            args[0].starts_with("runsc-") && args.iter().any(|arg| !arg.is_empty() && known(arg))
        })
    }

    fn processes(&self, which: impl Fn(&[String]) -> bool) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let args: Vec<String> = line.split(|byte| *byte == 0).map(text).collect();
            let socket = self.socket().display().to_string();
            let ours = args[0].starts_with("runsc-") || args.contains(&socket);
            if ours && which(&args) {
                found.push(pid);
            }
        }
        found
    }

    /// After a case, no container is left, no process of one, and no mount.
    pub fn nothing_is_left(&self) {
        for namespace in ["default", "k8s.io"] {
            let tasks = self.ctr_ok(&["-n", namespace, "task", "ls", "--quiet"]);
            let containers = self.ctr_ok(&["-n", namespace, "container", "ls", "--quiet"]);
            assert!(tasks.is_empty() && containers.is_empty(), "left: {tasks} {containers}");
        }
        eventually("the shims have gone", || self.shims().is_empty().then_some(()));
        assert_eq!(self.sandboxes(), [] as [i32; 0]);
        let state = ["runsc", "runc"].map(|name| self.dir.path().join(name));
        for directory in
            state.iter().flat_map(|root| ["default", "k8s.io"].map(|namespace| root.join(namespace)))
        {
            let left: Vec<_> =
                fs::read_dir(&directory).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
            assert!(left.is_empty(), "{directory:?} has {left:?}");
        }
        assert_eq!(self.mounts(), [] as [String; 0]);
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.dir.path().to_str().unwrap_or_default().to_owned();
        let places = table.lines().filter_map(|line| line.split_whitespace().nth(1));
        places.filter(|place| place.starts_with(&own)).map(str::to_owned).collect()
    }

    /// After a case that failed: removes what it left.
    pub fn clean(&self) {
        println!("{}", self.log());
        for pid in self.sandboxes().into_iter().chain(self.shims()) {
            kill(pid);
        }
        for namespace in ["default", "k8s.io"] {
            let ids = text(&self.ctr(&["-n", namespace, "container", "ls", "--quiet"]).stdout);
            for id in ids.lines() {
                self.ctr(&["-n", namespace, "task", "rm", "--force", id]);
                self.ctr(&["-n", namespace, "container", "rm", id]);
            }
        }
        let runtime = |root: &Path, args: &[&str]| {
            Command::new(&self.runsc).arg("--root").arg(root).args(args).stdin(Stdio::null()).output()
        };
        for root in
            ["runsc/default", "runsc/k8s.io", "runc/default", "runc/k8s.io"].map(|p| self.dir.path().join(p))
        {
            let ids =
                runtime(&root, &["list", "--quiet"]).map(|output| text(&output.stdout)).unwrap_or_default();
            for id in ids.lines() {
                let _ = runtime(&root, &["delete", "--force", id]);
            }
        }
    }

    /// Ends it all.
    pub fn stop(self) -> Result<(), String> {
        self.stop_daemon();
        let left = self.mounts();
        for place in left.iter().rev() {
            let _ = nix::mount::umount2(place.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("mounts were left: {left:?}")) }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop_daemon();
    }
}

fn config(dir: &Path) -> String {
    let dir = dir.display();
    let pause = image::PAUSE;
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
temp = "{dir}/temp"
disabled_plugins = ["io.containerd.internal.v1.restart"]
[grpc]
  address = "{dir}/c.sock"
[debug]
  level = "debug"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runsc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
        TypeUrl = "io.containerd.runsc.v1.options"
        ConfigPath = "{dir}/runsc.toml"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
"#
    )
}

fn on_path(program: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH")?;
    std::env::split_paths(&search).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Kills a process that this test is about.
pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Waits until there is something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a shell command prints, as standard input.
pub fn shell(script: &str) -> Stdio {
    let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    std::thread::spawn(move || child.wait());
    output.into()
}

/// Lines as they come.
pub fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Bytes for reading.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
