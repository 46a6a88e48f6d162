//! Hooks of the point startContainer: programs of the container's, which run inside of it just before its first process.
//!
//! They have a pid namespace of their own, since nobody but that process may be process 1 of the container's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use sentry::Kernel;
use sentry::container::Container;
use sentry::kernel::ProcessRequest;
use sentry::task::limits::Limits;
use sentry::task::{Credentials, Namespaces, PidNamespace};
use sentry::vfs::{FdFlags, FdTable};
use serde::{Deserialize, Serialize};

use super::host_file::HostFiles;

/// How much of what a hook says is told when it fails.
const SAID_MAX: u64 = 4096;

/// A hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, by its path inside.
    pub path: String,
    /// Its arguments after the first.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Seconds that it may take.
    pub timeout: Option<u64>,
    /// The container's state, for standard input.
    pub state: String,
}

/// Runs them in order, and stops at the first that fails.
pub fn run(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    namespaces: &Namespaces,
    files: &HostFiles,
    hooks: &[Hook],
) -> Result<()> {
    for hook in hooks {
        run_one(kernel, container, namespaces, files, hook)
            .with_context(|| format!("startContainer hook {:?}", hook.path))?;
    }
    Ok(())
}

fn run_one(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    namespaces: &Namespaces,
    files: &HostFiles,
    hook: &Hook,
) -> Result<()> {
    let (state_read, state_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // A pipe holds more than any sensible state; the rest is lost, as for a hook that does not read.
    let _ = File::from(state_write).write(hook.state.as_bytes());
    let (said_read, said_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let standard: Vec<OwnedFd> = vec![state_read, said_write.try_clone()?, said_write];
    let table = FdTable::new();
    for (number, file) in files.open(standard)?.into_iter().enumerate() {
        table.install(file, FdFlags::empty(), number as i32, 3).context("standard files")?;
    }
    let bytes = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect::<Vec<_>>();
    let request = ProcessRequest {
        container: container.clone(),
        argv: std::iter::once(hook.path.clone().into_bytes()).chain(bytes(&hook.args)).collect(),
        envp: bytes(&hook.env),
        cwd: b"/".to_vec(),
        credentials: Credentials::root(kernel.user_ns.clone()),
        no_new_privs: false,
        limits: Limits::initial(),
        umask: 0o022,
        files: table,
        namespaces: Namespaces {
            pid_for_children: PidNamespace::new(None, kernel.user_ns.clone())?,
            ..namespaces.clone()
        },
        oom_score_adj: 0,
        seccomp: None,
        terminal: None,
    };
    let group = kernel.start_process(request)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = group.exited.get() {
            break status;
        }
        if let Some(limit) = hook.timeout
            && start.elapsed() > Duration::from_secs(limit)
        {
            group.begin_exit(libc::SIGKILL as u32);
            bail!("still running after {limit} s");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if status == 0 {
        return Ok(());
    }
    let mut said = Vec::new();
    // Whatever has come: the pipe says EAGAIN after it.
    let _ = File::from(said_read).take(SAID_MAX).read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said).trim().replace('\n', " ");
    let how = match status & 0x7f {
        0 => format!("exit status: {}", status >> 8),
        signal => format!("signal: {signal}"),
    };
    if said.is_empty() { bail!("{how}") } else { bail!("{how}: {said}") }
}
