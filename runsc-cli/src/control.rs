//! The control socket of a sandbox: its messages, and the command's side of them.
//!
//! A connection carries one request at a time. `wait` is answered when the process has ended.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

use crate::boot::guest::Process;
use crate::message;
use crate::record::ExitStatus;
use crate::report::Chain;
use crate::state;

/// The socket's name in the container's directory.
pub const SOCKET: &str = "control";

/// What a command asks of a sentry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Let the container's first process run.
    Start,
    /// Start another process; its standard input, output and error lie beside the message.
    Exec {
        /// What to run.
        process: Box<Process>,
        /// Kill it when this connection ends.
        attached: bool,
    },
    /// Answer when the process has ended; process 1 is the container's first.
    Wait {
        /// In the container's pid namespace.
        pid: i32,
    },
    /// Send a signal.
    Signal {
        /// To whom.
        target: Target,
        /// Which; 0 only asks whether it could be sent.
        signo: i32,
    },
    /// List the processes.
    Processes,
    /// Where the container is in its life.
    Status,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// One process, by its pid in the container.
    Process(i32),
    /// Every process of the container.
    All,
    /// The foreground process group of the terminal of this process's session, or the process if it has none.
    Foreground(i32),
}

/// What a sentry answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Done.
    Done,
    /// The process was started.
    Started {
        /// In the container's pid namespace.
        pid: i32,
    },
    /// The process has ended.
    Ended(ExitStatus),
    /// The processes.
    Processes(Vec<ProcessInfo>),
    /// Whether the first process was started.
    Status {
        /// It was.
        started: bool,
    },
    /// It could not be done: causes, outermost first.
    Failed(Vec<String>),
}

/// A line of `runsc ps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Number of threads.
    pub threads: usize,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Processor time that it used, in milliseconds.
    pub cpu_ms: u64,
    /// Its controlling terminal (`pts/0`), or `?`.
    pub tty: String,
    /// Its name.
    pub command: String,
}

/// A connection to a sentry.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the sentry of the container whose state directory this is.
    pub fn connect(directory: &Path) -> Result<Client> {
        let socket = state::connect(directory, SOCKET).context("connecting to the sandbox")?;
        Ok(Client { socket })
    }

    /// Gives up on answers after so many milliseconds.
    pub fn set_timeout(&self, ms: i64) -> Result<()> {
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ms))?;
        Ok(())
    }

    /// Asks, and waits for the answer. A failure that the sentry tells of is an error.
    pub fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.send(request, fds)?;
        self.receive()
    }

    /// Asks without waiting.
    pub fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        message::send(self.socket.as_fd(), request, fds).context("asking the sandbox")
    }

    /// Waits for the answer to what was sent.
    pub fn receive(&self) -> Result<Reply> {
        match message::receive(self.socket.as_fd()).context("waiting for the sandbox")? {
            None => bail!("the sandbox is gone"),
            Some((Reply::Failed(causes), _)) => Err(Error::new(Chain(causes))),
            Some((reply, _)) => Ok(reply),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, target: Target, signo: i32) -> Result<()> {
        self.call(&Request::Signal { target, signo }, &[]).map(drop)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}
