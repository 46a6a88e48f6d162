//! The control API of a sandbox (`proto/control.proto`): what both sides share.
//!
//! gRPC on the Unix socket [`SOCKET`]; file descriptors travel beside it over [`FDS_SOCKET`] (see [`descriptors`]).

pub mod client;
pub mod descriptors;

pub use client::{Address, Client};

use std::os::fd::OwnedFd;

use anyhow::{Context, Error, Result, anyhow};
use prost::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tonic::{Code, Status};

use crate::boot::guest;
use crate::record::ExitStatus;
use crate::report::{self, Chain};
use crate::seccomp::Filter;

/// What `build.rs` makes of the definition.
#[allow(missing_docs, clippy::all, reason = "generated; the definition is documented")]
pub mod proto {
    tonic::include_proto!("runsc.control.v1");
}

pub use proto::ProcessInfo;

/// Name of the socket of the API in the directory of the sandbox's first container.
pub const SOCKET: &str = "control";
/// Name of the socket for file descriptors.
pub const FDS_SOCKET: &str = "fds";
/// The largest message, in bytes: arguments and environments can be long.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Stands for a container's first process where a pid is asked for.
pub const FIRST: i32 = 0;

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One process, by its pid in the container, or [`FIRST`].
    Process(i32),
    /// Every process of the container.
    All,
    /// The foreground process group of the terminal of this process's session, or the process if it has none.
    Foreground(i32),
}

impl From<Target> for proto::signal_request::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Process(pid) => Self::Process(pid),
            Target::All => Self::All(true),
            Target::Foreground(pid) => Self::Foreground(pid),
        }
    }
}

impl TryFrom<Option<proto::signal_request::Target>> for Target {
    type Error = Error;

    fn try_from(target: Option<proto::signal_request::Target>) -> Result<Target> {
        use proto::signal_request::Target as Wire;
        match target {
            Some(Wire::Process(pid)) => Ok(Target::Process(pid)),
            Some(Wire::All(true)) => Ok(Target::All),
            Some(Wire::Foreground(pid)) => Ok(Target::Foreground(pid)),
            Some(Wire::All(false)) | None => Err(anyhow!("a signal for nobody")),
        }
    }
}

impl From<ExitStatus> for proto::ExitStatus {
    fn from(status: ExitStatus) -> Self {
        use proto::exit_status::How;
        let how = match status {
            ExitStatus::Exited(code) => How::Exited(code.into()),
            ExitStatus::Killed(signo) => How::Killed(signo.into()),
        };
        proto::ExitStatus { how: Some(how) }
    }
}

impl TryFrom<Option<proto::ExitStatus>> for ExitStatus {
    type Error = Error;

    fn try_from(status: Option<proto::ExitStatus>) -> Result<ExitStatus> {
        use proto::exit_status::How;
        match status.and_then(|status| status.how) {
            Some(How::Exited(code)) => Ok(ExitStatus::Exited(u8::try_from(code)?)),
            Some(How::Killed(signo)) => Ok(ExitStatus::Killed(u8::try_from(signo)?)),
            None => Err(anyhow!("an exit status that says nothing")),
        }
    }
}

impl From<guest::Process> for proto::Process {
    fn from(process: guest::Process) -> Self {
        let sets = process.capabilities;
        let (rows, columns) = process.console_size.unwrap_or_default();
        proto::Process {
            args: process.args,
            env: process.env,
            cwd: process.cwd,
            uid: process.uid,
            gid: process.gid,
            groups: process.groups,
            umask: process.umask,
            capabilities: Some(proto::Capabilities {
                bounding: sets.bounding,
                effective: sets.effective,
                inheritable: sets.inheritable,
                permitted: sets.permitted,
                ambient: sets.ambient,
            }),
            rlimits: process
                .rlimits
                .iter()
                .map(|limit| proto::Rlimit { resource: limit.resource, soft: limit.soft, hard: limit.hard })
                .collect(),
            terminal: process.terminal,
            rows: rows.into(),
            columns: columns.into(),
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            seccomp: process.seccomp.map(proto::SeccompFilter::from),
            directories: process.directories,
        }
    }
}

impl From<Filter> for proto::SeccompFilter {
    fn from(filter: Filter) -> Self {
        let mut program = Vec::new();
        for (code, jt, jf, k) in filter.instructions {
            program.extend(code.to_ne_bytes());
            program.extend([jt, jf]);
            program.extend(k.to_ne_bytes());
        }
        proto::SeccompFilter { program, log: filter.log }
    }
}

impl From<proto::SeccompFilter> for Filter {
    fn from(filter: proto::SeccompFilter) -> Self {
        let (instructions, _) = filter.program.as_chunks::<8>();
        let instruction = |&[c, d, jt, jf, w, x, y, z]: &[u8; 8]| {
            (u16::from_ne_bytes([c, d]), jt, jf, u32::from_ne_bytes([w, x, y, z]))
        };
        Filter { instructions: instructions.iter().map(instruction).collect(), log: filter.log }
    }
}

impl TryFrom<proto::Process> for guest::Process {
    type Error = Error;

    fn try_from(process: proto::Process) -> Result<Self> {
        let sets = process.capabilities.unwrap_or_default();
        let size = (
            u16::try_from(process.rows).context("rows of the window")?,
            u16::try_from(process.columns).context("columns of the window")?,
        );
        Ok(guest::Process {
            args: process.args,
            env: process.env,
            cwd: process.cwd,
            uid: process.uid,
            gid: process.gid,
            groups: process.groups,
            umask: process.umask,
            capabilities: guest::Capabilities {
                bounding: sets.bounding,
                effective: sets.effective,
                inheritable: sets.inheritable,
                permitted: sets.permitted,
                ambient: sets.ambient,
            },
            rlimits: process
                .rlimits
                .iter()
                .map(|limit| guest::Rlimit { resource: limit.resource, soft: limit.soft, hard: limit.hard })
                .collect(),
            terminal: process.terminal,
            console_size: Some(size).filter(|size| size.0 != 0),
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            seccomp: process.seccomp.map(Filter::from),
            directories: process.directories,
        })
    }
}

/// Tells when something can be done with a descriptor, inside of a runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, and stays the same, as long as its owner, which the result keeps.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A failure as it travels.
pub fn status(error: &Error) -> Status {
    let causes = report::chain(error);
    let message = causes.join(": ");
    Status::with_details(Code::Unknown, message, proto::Failure { causes }.encode_to_vec().into())
}

/// A failure that has arrived.
pub fn error(status: &Status) -> Error {
    let causes = proto::Failure::decode(status.details()).map(|failure| failure.causes).unwrap_or_default();
    match (causes.is_empty(), status.code()) {
        (false, _) => Error::new(Chain(causes)),
        (true, Code::Unimplemented) => anyhow!("the sandbox is of another version of runsc"),
        (true, _) => Error::new(Gone(status.message().to_owned())),
    }
}

/// The sandbox did not answer: its connection broke.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox is gone: {0}")]
pub struct Gone(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_arrive_with_all_causes() {
        let cause = Error::new(nix::errno::Errno::EACCES).context("open \"/data\"").context("mounting");
        let arrived = error(&status(&cause));
        assert_eq!(report::chain(&arrived), ["mounting", "open \"/data\"", "permission denied"]);
        assert!(report::line(&error(&Status::unavailable("closed"))).starts_with("the sandbox is gone"));
    }

    #[test]
    fn processes_arrive_as_they_were() {
        let process = guest::Process {
            args: vec!["a".into(), String::new()],
            env: vec!["A=B".into()],
            cwd: "/".into(),
            uid: 1,
            gid: u32::MAX,
            groups: vec![3, 4],
            umask: 0o22,
            capabilities: guest::Capabilities { bounding: 1 << 40, ambient: 7, ..Default::default() },
            rlimits: vec![guest::Rlimit { resource: 7, soft: 1, hard: u64::MAX }],
            terminal: true,
            console_size: Some((24, 80)),
            no_new_privileges: true,
            oom_score_adj: -5,
            seccomp: Some(Filter { instructions: vec![(0x15, 1, 2, u32::MAX), (6, 0, 0, 7)], log: true }),
            directories: vec![4, 6],
        };
        let wire = proto::Process::decode(&*proto::Process::from(process.clone()).encode_to_vec()).unwrap();
        assert_eq!(guest::Process::try_from(wire).unwrap(), process);
        let wire = proto::Process { rows: 1 << 16, ..Default::default() };
        assert!(guest::Process::try_from(wire).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Target::try_from(None).is_err());
        let how = Some(proto::exit_status::How::Exited(256));
        assert!(ExitStatus::try_from(Some(proto::ExitStatus { how })).is_err());
    }
}
