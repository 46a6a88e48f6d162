//! Reaps every child of this process, and tells those who wait for one how it ended.
//!
//! As a subreaper the shim becomes the parent of what `runsc` leaves behind: a container's sentry, and the process that
//! stands for an exec. Their pids are known only when `runsc` has returned, and they may have ended by then: while
//! somebody is about to learn of a child, the ends of unknown ones are kept.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long the ends of unknown children are remembered counts by these.
#[derive(Default)]
struct State {
    waiting: HashMap<u32, oneshot::Sender<i32>>,
    early: HashMap<u32, i32>,
    expecting: usize,
}

/// A handle to the one reaper.
#[derive(Clone, Default)]
pub struct Reaper(Arc<Mutex<State>>);

/// While it lives, the end of no child is forgotten.
pub struct Expecting(Reaper);

impl Reaper {
    /// Begins to reap, in a task of its own.
    pub fn start() -> io::Result<Reaper> {
        let reaper = Reaper::default();
        let mut children = signal(SignalKind::child())?;
        let handle = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                handle.reap();
            }
        });
        Ok(reaper)
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            let pid = pid.as_raw_pid().unsigned_abs();
            let mut state = self.lock();
            match state.waiting.remove(&pid) {
                // One who has given up is not waiting.
                Some(waiter) => drop(waiter.send(code)),
                None if state.expecting > 0 => drop(state.early.insert(pid, code)),
                None => {}
            }
        }
    }

    /// From now on the end of any child can be asked for.
    pub fn expect(&self) -> Expecting {
        self.lock().expecting += 1;
        Expecting(self.clone())
    }

    /// Starts a command; its end is awaited with what comes back.
    pub fn spawn(&self, command: &mut Command) -> io::Result<oneshot::Receiver<i32>> {
        let expecting = self.expect();
        let child = command.spawn()?;
        Ok(expecting.end_of(child.id()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expecting {
    /// Gets the exit code of a child: 128 and the signal's number if a signal killed it.
    pub fn end_of(&self, pid: u32) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        match state.early.remove(&pid) {
            Some(code) => drop(sender.send(code)),
            None => drop(state.waiting.insert(pid, sender)),
        }
        receiver
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.expecting -= 1;
        if state.expecting == 0 {
            state.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test for all: there can be only one reaper in a process.
    #[tokio::test]
    async fn ends_are_told_also_to_those_who_ask_late() {
        let reaper = Reaper::start().unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let [first, second] =
            ["exit 7", "kill -9 $$"].map(|script| reaper.spawn(&mut shell(script)).unwrap());
        assert_eq!(second.await, Ok(128 + 9));
        assert_eq!(first.await, Ok(7));

        let expecting = reaper.expect();
        let pid = shell("exit 3").spawn().unwrap().id();
        while !reaper.lock().early.contains_key(&pid) {
            tokio::task::yield_now().await;
        }
        assert_eq!(expecting.end_of(pid).await, Ok(3));
        drop(expecting);
        assert!(reaper.lock().early.is_empty() && reaper.lock().waiting.is_empty());
    }
}
