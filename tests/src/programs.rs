//! Real programs in a Debian root: each script of `programs/scripts` runs natively in a chroot and in a container on each
//! platform, and must print the same and end with the same code.
//!
//! The first lines of a script may say, as comments, what it needs (`# root: full`; otherwise `minimal`) and that it
//! is to run once for each of several arguments (`# each: a b c`).

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::guest::crate_dir;
use crate::target::Target;
use crate::tree;

/// A script with its argument.
#[derive(Clone, Debug)]
pub struct Program {
    /// The script's name without extension, and `:ARGUMENT` if it has one.
    pub name: String,
    /// The variant of the root file system (`minimal` or `full`).
    pub root: String,
    /// The file below `programs/scripts`.
    script: String,
    argument: Option<String>,
}

/// What a program did.
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

fn scripts() -> PathBuf {
    crate_dir().join("programs/scripts")
}

/// All programs, in the order of their names.
pub fn list() -> Result<Vec<Program>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(scripts())?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".sh") else { continue };
        let text = fs::read_to_string(entry.path())?;
        let header = |key: &str| {
            text.lines().take_while(|line| line.starts_with('#')).find_map(|line| line.strip_prefix(key))
        };
        let root = header("# root:").unwrap_or("minimal").trim().to_string();
        let program = |argument: Option<&str>| Program {
            name: argument.map_or(stem.to_string(), |argument| format!("{stem}:{argument}")),
            root: root.clone(),
            script: file.clone(),
            argument: argument.map(str::to_string),
        };
        match header("# each:") {
            Some(arguments) => list.extend(arguments.split_whitespace().map(|name| program(Some(name)))),
            None => list.push(program(None)),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Makes (or finds) a root file system; `None`, with the reason printed, if this machine cannot.
pub fn root(variant: &str) -> Result<Option<PathBuf>> {
    let output =
        Command::new(crate_dir().join("rootfs/make")).arg(variant).output().context("rootfs/make")?;
    match output.status.code() {
        Some(0) => Ok(Some(PathBuf::from(String::from_utf8(output.stdout)?.trim()))),
        Some(77) => {
            println!("programs: no {variant} root: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(None)
        }
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

impl Program {
    fn guest_command(&self) -> Vec<String> {
        let script = format!("/programs/{}", self.script);
        ["bash", &script].into_iter().map(str::to_string).chain(self.argument.clone()).collect()
    }

    /// Runs it in a copy of the root (writes are thrown away), at most `limit` long.
    pub fn run(&self, root: &Path, target: &Target, limit: Duration) -> Result<Run> {
        match target {
            Target::Native(_) => {
                let mut command = Command::new(crate_dir().join("programs/native"));
                command.arg(root).arg(scripts()).args(self.guest_command());
                collect(command, limit)
            }
            Target::Sandbox { runsc, platform, flags } => {
                let dir = tempfile::tempdir()?;
                let bundle = dir.path().join("bundle");
                fs::create_dir(&bundle)?;
                fs::write(bundle.join("config.json"), self.config(root).to_string())?;
                let base = || {
                    let mut command = Command::new(runsc);
                    command.arg(format!("--platform={platform}")).arg("--root").arg(dir.path().join("state"));
                    command.arg("--network=none").args(flags);
                    command
                };
                let mut command = base();
                command.arg("run").arg("--bundle").arg(&bundle).arg("program");
                let run = collect(command, limit);
                // After a normal end there is nothing to delete, and this says so; that is fine.
                let _ = base().args(["delete", "--force", "program"]).output();
                run
            }
        }
    }

    fn config(&self, root: &Path) -> Value {
        let capabilities = [
            "CAP_AUDIT_WRITE",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_DAC_READ_SEARCH",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
            "CAP_NET_ADMIN",
            "CAP_NET_BIND_SERVICE",
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
        ];
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        json!({
            "ociVersion": "1.0.2",
            "hostname": "programs",
            "root": { "path": root, "readonly": false },
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "cwd": "/root",
                "args": self.guest_command(),
                "env": [
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME=/root",
                    "LC_ALL=C.UTF-8",
                    "TERM=xterm",
                ],
                "capabilities": {
                    "bounding": capabilities,
                    "effective": capabilities,
                    "permitted": capabilities,
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
                { "destination": "/programs", "type": "bind", "source": scripts(), "options": ["rbind", "ro"] },
            ],
            "linux": {
                "namespaces": namespaces,
            },
        })
    }
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

/// The lines by which two runs differ, as `-native` and `+sandbox`.
///
/// Where lines are unique (a table of outcomes) they are compared as a set, so that one missing line is one difference.
pub fn differences(native: &Run, other: &Run) -> Vec<String> {
    let mut list = Vec::new();
    let (left, right): (Vec<&str>, Vec<&str>) =
        (native.stdout.lines().collect(), other.stdout.lines().collect());
    if left != right {
        let (a, b): (BTreeSet<&str>, BTreeSet<&str>) =
            (left.iter().copied().collect(), right.iter().copied().collect());
        list.extend(a.difference(&b).map(|line| format!("-{line}")));
        list.extend(b.difference(&a).map(|line| format!("+{line}")));
        if list.is_empty() {
            list.push("+(the same lines in another order or number)".to_string());
        }
    }
    if native.ended != other.ended {
        list.push(format!("-{}", native.ended));
        list.push(format!("+{}", other.ended));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stdout: &str, code: i32) -> Run {
        Run {
            stdout: stdout.to_string(),
            stderr: String::new(),
            ended: format!("exit code {code}"),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn differences_name_lines_and_codes() {
        assert!(differences(&run("a\nb\n", 0), &run("a\nb\n", 0)).is_empty());
        assert_eq!(differences(&run("a\nb\n", 0), &run("a\nc\n", 0)), ["-b", "+c"]);
        assert_eq!(differences(&run("a\nb\n", 0), &run("b\na\n", 0)).len(), 1);
        assert_eq!(differences(&run("", 0), &run("", 1)), ["-exit code 0", "+exit code 1"]);
    }

    #[test]
    fn every_script_is_listed() {
        let list = list().unwrap();
        assert!(list.iter().any(|program| program.name == "shell" && program.root == "minimal"));
        assert!(list.iter().any(|program| program.name == "python-tests:test_os" && program.root == "full"));
    }
}
