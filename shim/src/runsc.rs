//! Calls the `runsc` binary, as containerd's own library calls an OCI runtime.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use crate::config::Config;
use crate::reaper::Reaper;

/// The runtime, for one container.
#[derive(Clone)]
pub struct Runsc {
    config: Config,
    id: String,
    bundle: PathBuf,
    reaper: Reaper,
}

/// Standard files for a new process.
pub struct ChildStdio {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl ChildStdio {
    /// `/dev/null` three times.
    pub fn null() -> ChildStdio {
        ChildStdio { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// How a new process is connected, and the files that tell of it.
pub struct Launch<'a> {
    /// Its standard files.
    pub stdio: ChildStdio,
    /// Where its terminal is sent, if it has one.
    pub console_socket: Option<&'a Path>,
    /// Gets its pid.
    pub pid_file: &'a Path,
    /// Gets what went wrong.
    pub log: &'a Path,
}

impl Runsc {
    /// The runtime as configured.
    pub fn new(config: Config, id: &str, bundle: &Path, reaper: Reaper) -> Runsc {
        Runsc { config, id: id.to_owned(), bundle: bundle.to_owned(), reaper }
    }

    /// `create`: the pid.
    pub async fn create(&self, launch: Launch<'_>) -> Result<u32> {
        let mut args: Vec<&OsStr> = vec!["create".as_ref(), "--bundle".as_ref(), self.bundle.as_ref()];
        args.extend(["--pid-file".as_ref(), launch.pid_file.as_os_str()]);
        if let Some(socket) = launch.console_socket {
            args.extend(["--console-socket".as_ref(), socket.as_os_str()]);
        }
        args.push(self.id.as_ref());
        self.launch(launch.stdio, launch.log, &args).await?;
        read_pid(launch.pid_file)
    }

    /// `exec` of the process that a file describes: the pid on the host, and that inside.
    pub async fn exec(
        &self,
        process: &Path,
        internal_pid_file: &Path,
        launch: Launch<'_>,
    ) -> Result<(u32, u32)> {
        let mut args: Vec<&OsStr> =
            vec!["exec".as_ref(), "--detach".as_ref(), "--process".as_ref(), process.as_ref()];
        args.extend(["--pid-file".as_ref(), launch.pid_file.as_os_str()]);
        args.extend(["--internal-pid-file".as_ref(), internal_pid_file.as_os_str()]);
        if let Some(socket) = launch.console_socket {
            args.extend(["--console-socket".as_ref(), socket.as_os_str()]);
        }
        args.push(self.id.as_ref());
        self.launch(launch.stdio, launch.log, &args).await?;
        Ok((read_pid(launch.pid_file)?, read_pid(internal_pid_file)?))
    }

    /// A verb that answers on standard output.
    pub async fn call(&self, args: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>> {
        let output = scratch("stdout")?;
        let errors = scratch("stderr")?;
        let mut command = command(&self.config);
        command.args(args).current_dir(&self.bundle);
        command.stdin(match input {
            Some(input) => {
                let mut file = scratch("stdin")?;
                file.write_all(input)?;
                file.rewind()?;
                file.into()
            }
            None => Stdio::null(),
        });
        command.stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let code = self.run(command).await?;
        match code {
            0 => contents(output),
            code => Err(failure(code, &String::from_utf8_lossy(&contents(errors)?))),
        }
    }

    /// The same, for this container: VERB [FLAG…] ID [ARG…].
    pub async fn verb(&self, verb: &[&str], after: &[&str]) -> Result<Vec<u8>> {
        let args: Vec<&str> =
            verb.iter().copied().chain([self.id.as_str()]).chain(after.iter().copied()).collect();
        self.call(&args, None).await
    }

    /// Calls it with the container's own standard files: errors are told in a log.
    async fn launch(&self, stdio: ChildStdio, log: &Path, args: &[&OsStr]) -> Result<()> {
        let _ = std::fs::remove_file(log);
        let mut command = command(&self.config);
        command.arg("--log").arg(log).args(["--log-format", "json"]).args(args).current_dir(&self.bundle);
        command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
        let code = self.run(command).await?;
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        match code {
            0 => Ok(()),
            code => Err(failure(code, &last_error(&text).unwrap_or_default())),
        }
    }

    async fn run(&self, mut command: Command) -> Result<i32> {
        let end =
            self.reaper.spawn(&mut command).with_context(|| format!("running {:?}", self.config.binary))?;
        // The standard files that it was given are its own now.
        drop(command);
        end.await.map_err(|_| anyhow!("the shim is going down"))
    }
}

/// The binary with its flags.
pub fn command(config: &Config) -> Command {
    let mut command = Command::new(&config.binary);
    command.arg("--root").arg(&config.root).args(&config.flags);
    command
}

/// A failure of the runtime in its own words.
pub fn failure(code: i32, said: &str) -> anyhow::Error {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    // Its own line comes last, after warnings; of a command line that it does not understand, the first line tells.
    let line = lines().rev().find_map(|line| line.strip_prefix("runsc: ")).or_else(|| lines().next());
    match line {
        Some(line) => anyhow!("{}", line.to_owned()),
        None => anyhow!("runsc ended with code {code} and said nothing"),
    }
}

/// The message of the last entry of a log.
fn last_error(log: &str) -> Option<String> {
    let entries = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["level"] == "error")
        .find_map(|entry| Some(entry["msg"].as_str()?.to_owned()))
}

fn read_pid(path: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path:?}"))?;
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => bail!("{path:?} holds {text:?} instead of a pid"),
    }
}

/// A file in memory. Unlike a pipe it cannot fill up, and nobody who keeps it open delays its end.
fn scratch(name: &str) -> Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC).context("memfd_create")?.into())
}

fn contents(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_runtimes_words() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"creating \\\"c\\\": x\"}\n{\"level\":\"info\",\"msg\":\"i\"}\nnoise\n";
        assert_eq!(last_error(log).as_deref(), Some("creating \"c\": x"));
        assert_eq!(last_error(""), None);
        assert_eq!(failure(128, "warning\nrunsc: a: b\n\n").to_string(), "a: b");
        assert_eq!(failure(2, "error: no such verb\n\nUsage: x\n").to_string(), "error: no such verb");
        assert!(failure(128, "").to_string().contains("128"));
    }

    #[test]
    fn pids_are_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert!(read_pid(&path).is_err());
        for (text, pid) in [("12", Some(12)), ("12\n", Some(12)), ("0", None), ("-1", None), ("x", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_pid(&path).ok(), pid, "{text:?}");
        }
    }
}
