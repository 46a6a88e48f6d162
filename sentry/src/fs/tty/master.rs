//! The master of a pseudo-terminal.

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, Result, tty as t};

use super::devpts::{self, Devpts};
use super::ioctl::{self, End};
use super::{Terminal, TerminalFile};
use crate::task::{CurrentTask, Task};
use crate::vfs::{File, FileOps, Io, Path, Sink, Source, notify};
use crate::wait::WaitQueue;

/// How much is carried at once, in bytes.
const CHUNK: usize = 4096;

/// An open master. There is one to a terminal.
pub struct MasterFile {
    terminal: Arc<Terminal>,
    /// Where the terminal has its name.
    peer: Path,
}

impl MasterFile {
    /// Opens a `ptmx`: makes a new terminal in the devpts that it belongs to (ptmx_open()). ENOSPC.
    pub(super) fn open(task: &Task, ptmx: &Path) -> Result<Arc<MasterFile>> {
        let root = devpts::of_ptmx(task, ptmx)?;
        let creds = task.credentials();
        let number = Devpts::at(&root)?.allocate()?;
        let terminal = Terminal::new(number, None);
        let peer = devpts::publish(&root, &terminal, (creds.fsuid, creds.fsgid))?;
        Ok(Arc::new(MasterFile { terminal, peer }))
    }

    /// The terminal.
    pub fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }

    /// TIOCGPTPEER: opens the terminal wherever its name may be mounted now, or not at all.
    fn open_peer(&self, task: &CurrentTask, flags: u64) -> Result<u64> {
        let flags = OpenFlags::from_bits_retain(flags as u32);
        let ops = TerminalFile::open(&self.terminal, task, flags)?;
        let file = File::opened(ops, self.peer.clone(), flags)?;
        let fd = task.install(file.clone(), flags.contains(OpenFlags::O_CLOEXEC))?;
        file.operations().opened(task);
        notify::opened(file.path());
        Ok(fd as u64)
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        self.terminal.disconnect();
    }
}

impl FileOps for MasterFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn signals(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        let room = dst.remaining();
        if room == 0 {
            return Ok(0);
        }
        let data = self.terminal.update(|state| {
            let packet = state.line.packet_mode();
            let status = state.line.take_packet_status();
            if status != 0 {
                return Ok(vec![status]);
            }
            if state.line.output_len() == 0 {
                return Err(if state.closed { Errno::EIO } else { Errno::EAGAIN });
            }
            if !packet {
                return Ok(state.line.take_output(room));
            }
            let mut data = vec![t::TIOCPKT_DATA];
            data.append(&mut state.line.take_output(room - 1));
            Ok(data)
        })?;
        dst.put(&data)
    }

    fn write(&self, _io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        let mut done = 0;
        while src.remaining() > 0 {
            let mut buf = [0; CHUNK];
            let count = src.remaining().min(CHUNK);
            let taken = match src.take(&mut buf[..count]) {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let written = self
                .terminal
                .update(|state| if state.master_stopped { 0 } else { state.line.receive(&buf[..taken]) });
            src.untake(taken - written);
            done += written;
            if written < taken {
                break;
            }
        }
        if done == 0 && src.remaining() > 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let state = self.terminal.state.lock();
        let mut events = PollEvents::empty();
        if state.line.output_len() > 0 {
            events |= PollEvents::READABLE;
        }
        if state.line.packet_status() != 0 {
            events |= PollEvents::READABLE | PollEvents::POLLPRI;
        }
        if state.closed {
            events |= PollEvents::POLLHUP;
        }
        if !state.master_stopped && state.line.receive_room() > 0 {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.terminal.wire)
    }

    fn ioctl(&self, task: &CurrentTask, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        let mm = task.mm();
        let read = || mm.read_object::<i32>(arg);
        let write = |value: i32| mm.write_object(arg, &value).map(|()| 0);
        match request {
            t::TIOCSPTLCK => {
                let locked = read()? != 0;
                self.terminal.update(|state| state.locked = locked);
                Ok(0)
            }
            t::TIOCGPTLCK => write(i32::from(self.terminal.state.lock().locked)),
            t::TIOCPKT => {
                let on = read()? != 0;
                self.terminal.update(|state| state.line.set_packet_mode(on));
                Ok(0)
            }
            t::TIOCGPKT => write(i32::from(self.terminal.state.lock().line.packet_mode())),
            t::TIOCGPTN => write(self.terminal.index() as i32),
            t::TIOCGPTPEER => self.open_peer(task, arg),
            t::TIOCSIG => {
                let signal = Signal::from_i32(arg as i32)
                    .filter(|s| [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP].contains(s));
                self.terminal.signal_foreground(signal.ok_or(Errno::EINVAL)?);
                Ok(0)
            }
            _ => ioctl::ioctl(&self.terminal, End::Master, task, file, request, arg),
        }
    }
}
