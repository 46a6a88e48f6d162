//! Commands in a root file system whose writes are thrown away: natively (namespaces and a chroot), or as a container.
//!
//! A folder of the host's is seen in it at `/programs`.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::guest::crate_dir;
use crate::target::Target;
use crate::{scratch, tree};

/// What the containers' processes may do: all that is a matter of their own namespaces, and nothing that is the machine's.
pub const CAPABILITIES: [&str; 27] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// What a command did.
#[derive(Clone, Debug)]
pub struct Run {
    /// Standard output.
    pub stdout: String,
    /// Standard error, for the reader.
    pub stderr: String,
    /// The exit code, or what became of it instead.
    pub ended: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command in a copy of the root, at most `limit` long.
pub fn run(
    root: &Path,
    programs: &Path,
    command: &[String],
    target: &Target,
    limit: Duration,
) -> Result<Run> {
    match target {
        Target::Native(_) => {
            let mut native = Command::new(crate_dir().join("programs/native"));
            native.arg(root).arg(programs).args(command);
            collect(native, limit)
        }
        Target::Sandbox { runsc, platform, flags } => {
            let dir = scratch::dir()?;
            let bundle = dir.path().join("bundle");
            fs::create_dir(&bundle)?;
            fs::write(bundle.join("config.json"), config(root, programs, command).to_string())?;
            let base = || {
                let mut base = Command::new(runsc);
                base.arg(format!("--platform={platform}")).arg("--root").arg(dir.path().join("state"));
                base.arg("--network=none").args(flags);
                base
            };
            // Of its own, since it names the container's cgroups too.
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let id = format!("program-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let mut sandbox = base();
            sandbox.arg("run").arg("--bundle").arg(&bundle).arg(&id);
            let run = collect(sandbox, limit);
            // After a normal end there is nothing to delete, and this says so; that is fine.
            let _ = base().args(["delete", "--force", &id]).output();
            run
        }
    }
}

fn config(root: &Path, programs: &Path, command: &[String]) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "hostname": "programs",
        "root": { "path": root, "readonly": false },
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/root",
            "args": command,
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
                "LC_ALL=C.UTF-8",
                "TERM=xterm",
            ],
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
                "inheritable": [],
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000 }],
            "noNewPrivileges": false,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] },
            { "destination": "/programs", "type": "bind", "source": programs, "options": ["rbind", "ro"] },
        ],
        "linux": {
            "namespaces": namespaces,
        },
    })
}

/// Runs a command to its end, or kills it with all its descendants after `limit`.
fn collect(mut command: Command, limit: Duration) -> Result<Run> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = reader(child.stderr.take().map(|stream| Box::new(stream) as _));
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            late = true;
            tree::kill_tree(child.id());
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = start.elapsed();
    let output = Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    let ended = match output.status.code() {
        _ if late => format!("killed after {} s", limit.as_secs()),
        Some(code) => format!("exit code {code}"),
        None => output.status.to_string(),
    };
    Ok(Run {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        ended,
        took,
    })
}
