//! A process of a container: its first, or one of an exec.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use containerd_shim_protos::api::Status;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::console::ConsoleSocket;
use crate::io::{Io, Paths};
use crate::runsc::ChildStdio;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 and the number of the signal that killed it.
    pub code: u32,
    /// When.
    pub at: SystemTime,
}

impl Exit {
    /// The time in containerd's form.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from(self.at)
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for start; an exec's does not exist yet.
    Created,
    /// It runs.
    Running,
    /// Its container is paused.
    Paused,
    /// It has ended, or could not be started.
    Stopped,
}

impl Phase {
    /// containerd's word for it.
    pub fn status(self) -> Status {
        match self {
            Phase::Created => Status::CREATED,
            Phase::Running => Status::RUNNING,
            Phase::Paused => Status::PAUSED,
            Phase::Stopped => Status::STOPPED,
        }
    }
}

/// What changes in a process's life.
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// A process of the host that ends as it does; 0 before there is one.
    pub pid: u32,
    /// Its own pid, in its container.
    pub inner_pid: u32,
    /// This shim's part of its standard files.
    pub io: Option<Io>,
}

/// A process.
pub struct Process {
    /// Empty for a container's first.
    pub exec_id: String,
    /// Its standard files.
    pub paths: Paths,
    /// An exec's process.json.
    pub spec: Option<Value>,
    /// Held by who starts or deletes it, or tells of its end: those are done in turn.
    pub turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// One that has not been started.
    pub fn new(exec_id: &str, paths: Paths, spec: Option<Value>) -> Process {
        let state = State { phase: Phase::Created, pid: 0, inner_pid: 0, io: None };
        Process {
            exec_id: exec_id.to_owned(),
            paths,
            spec,
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            exit: watch::Sender::new(None),
        }
    }

    /// Its state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut receiver = self.exit.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit { code: 255, at: SystemTime::now() }),
            // The sender lives as long as this process.
            Err(_) => Exit { code: 255, at: SystemTime::now() },
        }
    }

    /// It has ended.
    pub fn stop(&self, exit: Exit) {
        self.state().phase = Phase::Stopped;
        self.exit.send_replace(Some(exit));
    }
}

/// The standard files of a process that is about to start.
pub struct Connection {
    io: Io,
    console: Option<ConsoleSocket>,
}

impl Connection {
    /// Opens them: what stays here, and what the process gets.
    pub fn open(paths: &Paths) -> Result<(Connection, ChildStdio)> {
        if paths.terminal {
            let connection = Connection { io: Io::default(), console: Some(ConsoleSocket::new()?) };
            return Ok((connection, ChildStdio::null()));
        }
        let (io, child) = Io::open(paths)?;
        Ok((Connection { io, console: None }, child))
    }

    /// Where its terminal is to be sent.
    pub fn console_socket(&self) -> Option<std::path::PathBuf> {
        self.console.as_ref().map(ConsoleSocket::path)
    }

    /// When it has been made: takes its terminal.
    pub fn establish(self, paths: &Paths) -> Result<Io> {
        let Some(console) = self.console else { return Ok(self.io) };
        let master: File = console.receive()?;
        Io::attach(master, paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_told_to_those_before_and_after() {
        let process = Process::new("", Paths::default(), None);
        assert_eq!(process.exit(), None);
        let exit = Exit { code: 3, at: SystemTime::now() };
        let (told, ()) = tokio::join!(process.wait(), async { process.stop(exit) });
        assert_eq!((told, process.wait().await, process.exit()), (exit, exit, Some(exit)));
        assert_eq!(process.state().phase.status(), Status::STOPPED);
    }
}
