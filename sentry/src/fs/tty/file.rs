//! An open terminal.

use std::any::Any;
use std::sync::Arc;

use abi::capability::CAP_SYS_ADMIN;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, Result, tty as t};

use super::Terminal;
use super::ioctl::{self, End};
use super::terminal::State;
use crate::task::{CurrentTask, Task};
use crate::vfs::{File, FileOps, Io, Sink, Source};
use crate::wait::WaitQueue;

/// How much of a write is processed at once, in bytes.
const CHUNK: usize = 4096;

/// Nanoseconds in the unit of VTIME.
const TENTH: u64 = 100_000_000;

/// An open terminal.
pub struct TerminalFile {
    terminal: Arc<Terminal>,
    /// How often the terminal had been hung up when it was opened.
    hangups: u32,
    /// It may become the controlling terminal of who opens it.
    offered: bool,
}

impl TerminalFile {
    /// open(2) by a task.
    pub(super) fn open(terminal: &Arc<Terminal>, task: &Task, flags: OpenFlags) -> Result<Arc<TerminalFile>> {
        let privileged = task.capable(CAP_SYS_ADMIN);
        // Write access alone does not make a terminal one's own.
        let offered = !flags.contains(OpenFlags::O_NOCTTY) && flags.readable();
        TerminalFile::new(terminal, privileged, offered)
    }

    /// Opens it without anybody's asking.
    pub(super) fn new(
        terminal: &Arc<Terminal>,
        privileged: bool,
        offered: bool,
    ) -> Result<Arc<TerminalFile>> {
        let hangups = terminal.hangups();
        terminal.open(privileged)?;
        Ok(Arc::new(TerminalFile { terminal: terminal.clone(), hangups, offered }))
    }

    /// The terminal.
    pub fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }

    fn hung_up(&self) -> bool {
        self.terminal.hangups() != self.hangups
    }

    /// A read, which waits if there is a task to wait (n_tty_read()).
    fn read_or_wait(&self, io: &Io<'_>, dst: &mut dyn Sink, waits: Option<&CurrentTask>) -> Result<usize> {
        let terminal = &self.terminal;
        if self.hung_up() {
            return Ok(0);
        }
        if let Some(task) = io.task {
            terminal.check_change(task, Signal::SIGTTIN)?;
        }
        let mut reading = terminal.state.lock().line.begin_read(dst.remaining());
        let mut deadline = None;
        let mut failure = None;
        while !terminal.update(|state| state.line.read(&mut reading)) {
            if !terminal.state.lock().connected {
                failure = Some(Errno::EIO);
                break;
            }
            let timeout = reading.timeout();
            if self.hung_up() || timeout == Some(0) {
                break;
            }
            let Some(task) = waits.filter(|_| !io.nonblocking) else {
                failure = Some(Errno::EAGAIN);
                break;
            };
            if let Some(tenths) = timeout {
                let now = task.kernel().clock.monotonic();
                deadline = Some(now.saturating_add(u64::from(tenths) * TENTH));
            }
            let readable = |state: &State| state.line.readable(false) || !state.connected;
            let ready = || (self.hung_up() || readable(&terminal.state.lock())).then_some(());
            match task.wait_until(&[(&terminal.queue, PollEvents::READABLE)], deadline, ready) {
                Ok(()) => {}
                Err(Errno::ETIMEDOUT) => break,
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        terminal.update(|state| state.line.end_read());
        match failure {
            Some(e) if reading.data.is_empty() => Err(e),
            _ if reading.data.is_empty() => Ok(0),
            _ => {
                terminal.times.accessed();
                dst.put(&reading.data)
            }
        }
    }
}

impl Drop for TerminalFile {
    fn drop(&mut self) {
        self.terminal.close();
    }
}

impl FileOps for TerminalFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn signals(&self) -> bool {
        true
    }

    fn opened(&self, task: &CurrentTask) {
        if self.offered {
            self.terminal.offer(task);
        }
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        self.read_or_wait(io, dst, None)
    }

    fn read_by(&self, task: &CurrentTask, io: &Io<'_>, dst: &mut dyn Sink) -> Option<Result<usize>> {
        Some(self.read_or_wait(io, dst, Some(task)))
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        let terminal = &self.terminal;
        if self.hung_up() {
            return Err(Errno::EIO);
        }
        let stops = terminal.state.lock().line.termios().c_lflag & t::TOSTOP != 0;
        if let Some(task) = io.task
            && stops
        {
            terminal.check_change(task, Signal::SIGTTOU)?;
        }
        let mut done = 0;
        while src.remaining() > 0 {
            if !terminal.state.lock().connected {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
            let mut buf = [0; CHUNK];
            let count = src.remaining().min(CHUNK);
            let taken = match src.take(&mut buf[..count]) {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let written = terminal.update(|state| state.line.write(&buf[..taken]));
            src.untake(taken - written);
            done += written;
            if written < taken {
                break;
            }
        }
        if done == 0 && src.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        terminal.times.modified();
        Ok(done)
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        if self.hung_up() {
            return PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::POLLERR | PollEvents::POLLHUP;
        }
        let mut state = self.terminal.state.lock();
        let mut events = PollEvents::empty();
        if state.line.readable(true) {
            events |= PollEvents::READABLE;
        }
        if state.line.writable() {
            events |= PollEvents::WRITABLE;
        }
        if !state.connected {
            events |= PollEvents::POLLHUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.queue)
    }

    fn ioctl(&self, task: &CurrentTask, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        if self.hung_up() {
            return Err(if request == t::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        ioctl::ioctl(&self.terminal, End::Terminal, task, file, request, arg)
    }

    fn anonymous_name(&self) -> String {
        self.terminal.name()
    }
}
