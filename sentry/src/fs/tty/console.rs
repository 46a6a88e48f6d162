//! Consoles: terminals whose other end is a terminal of the host.
//!
//! The host's terminal is in raw mode and only carries bytes; line discipline, job control and size are those of a
//! terminal of the container's devpts. One thread waits for what comes from the host, and for room there; a write of
//! the guest goes to the host at once if the descriptor does not block.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::fcntl::OpenFlags;
use abi::tty::Winsize;
use abi::{Errno, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Mutex, RwLock};

use super::devpts::{self, Devpts};
use super::line::News;
use super::{Terminal, TerminalFile};
use crate::Kernel;
use crate::vfs::{File, Path};

/// How much is carried at once, in bytes. A terminal that says that it can be written takes as much without blocking.
const CHUNK: usize = 4096;

struct Fds {
    input: OwnedFd,
    output: OwnedFd,
}

/// The host's end of a console.
pub(super) struct HostWire {
    /// Gone once the terminal is disconnected.
    fds: RwLock<Option<Fds>>,
    /// Writes do not block.
    immediate: bool,
    /// Whoever writes to the host takes bytes and passes them on under this lock, so that they stay in order.
    writing: Mutex<()>,
    /// The thread waits for room in the terminal.
    full: AtomicBool,
    /// Nobody holds the console any more: it ends when nobody has the terminal open.
    released: AtomicBool,
    wake: EventFd,
}

impl HostWire {
    /// Makes the thread look again.
    pub(super) fn wake(&self) {
        // It cannot fail but when the count is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }

    /// What became possible for the host's end.
    pub(super) fn announce(&self, terminal: &Terminal, news: News) {
        if news.contains(News::OUTPUT) && (!self.immediate || !self.write_out(terminal)) {
            self.wake();
        }
        if news.contains(News::WIRE_ROOM) && self.full.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Passes output on to the host. False if the host has no room for all of it.
    fn write_out(&self, terminal: &Terminal) -> bool {
        let _writing = self.writing.lock();
        let fds = self.fds.read_recursive();
        loop {
            let chunk: Vec<u8> = {
                let state = terminal.state.lock();
                let (front, back) = state.line.peek_output();
                front.iter().chain(back).take(CHUNK).copied().collect()
            };
            if chunk.is_empty() {
                return true;
            }
            let written = match &*fds {
                Some(fds) => nix::unistd::write(&fds.output, &chunk),
                // Nobody is there to see it.
                None => Ok(chunk.len()),
            };
            match written {
                Ok(count) => terminal.update(|state| state.line.drop_output(count)),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return false,
                // The reader sees the end of the terminal, too.
                Err(_) => terminal.update(|state| state.line.clear_output()),
            }
            if !self.immediate {
                // Not without asking whether there is room.
                return terminal.state.lock().line.output_len() == 0;
            }
        }
    }

    /// Waits until something can be done, and does it. False when the console is at its end.
    fn turn(&self, terminal: &Terminal) -> bool {
        let (room, pending, unused) = {
            let state = terminal.state.lock();
            let room = state.line.receive_room();
            self.full.store(room == 0, Ordering::Release);
            (room, state.line.output_len() > 0, state.opens == 0)
        };
        if self.released.load(Ordering::Acquire) && unused && !pending {
            return false;
        }
        let guard = self.fds.read();
        let Some(fds) = &*guard else { return false };
        let wanted = |flag: PollFlags, wanted: bool| if wanted { flag } else { PollFlags::empty() };
        let mut entries = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(fds.input.as_fd(), wanted(PollFlags::POLLIN, room > 0)),
            PollFd::new(fds.output.as_fd(), wanted(PollFlags::POLLOUT, pending)),
        ];
        match poll(&mut entries, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => {
                tracing::error!("waiting for the console: {e}");
                return false;
            }
        }
        let ready = entries.map(|entry| entry.revents().unwrap_or(PollFlags::empty()));
        if !ready[0].is_empty() {
            let _ = self.wake.read();
        }
        if ready[2].contains(PollFlags::POLLOUT) {
            self.write_out(terminal);
        }
        if ready[1].is_empty() {
            return !ready[2].intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        }
        // What has no more room than nothing has been hung up.
        let mut buf = [0; CHUNK];
        match nix::unistd::read(&fds.input, &mut buf[..room.clamp(1, CHUNK)]) {
            Ok(0) => false,
            Ok(count) => {
                drop(guard);
                terminal.update(|state| state.line.receive(&buf[..count]));
                true
            }
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => true,
            Err(_) => false,
        }
    }
}

fn serve(wire: &HostWire, terminal: &Weak<Terminal>) {
    // The terminal ends with this thread, or with the process.
    while let Some(terminal) = terminal.upgrade() {
        if !wire.turn(&terminal) {
            *wire.fds.write() = None;
            terminal.disconnect();
            break;
        }
    }
}

/// A terminal that the host is connected to. When this is dropped, the connection lasts only as long as somebody has
/// the terminal open.
pub struct HostConsole {
    terminal: Arc<Terminal>,
    wire: Arc<HostWire>,
    place: Path,
}

impl HostConsole {
    /// Makes a terminal in the devpts whose root is `devpts` (or in one of its own), owned by `owner`, from and to
    /// descriptors of a terminal of the host that is in raw mode.
    pub fn new(
        kernel: &Arc<Kernel>,
        devpts: Option<Path>,
        owner: (u32, u32),
        (input, output): (OwnedFd, OwnedFd),
        winsize: Winsize,
    ) -> Result<HostConsole> {
        let root = devpts.unwrap_or_else(|| Devpts::detached(kernel));
        let number = Devpts::at(&root)?.allocate()?;
        let flags = OFlag::from_bits_retain(fcntl(&output, FcntlArg::F_GETFL)?);
        let wire = Arc::new(HostWire {
            fds: RwLock::new(Some(Fds { input, output })),
            immediate: flags.contains(OFlag::O_NONBLOCK),
            writing: Mutex::new(()),
            full: AtomicBool::new(false),
            released: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let terminal = Terminal::new(number, Some(wire.clone()));
        terminal.resize(winsize);
        let place = devpts::publish(&root, &terminal, owner)?;
        let (of_thread, weak) = (wire.clone(), Arc::downgrade(&terminal));
        std::thread::Builder::new()
            .name("console".into())
            .stack_size(256 * 1024)
            .spawn(move || serve(&of_thread, &weak))
            .map_err(|_| Errno::EAGAIN)?;
        Ok(HostConsole { terminal, wire, place })
    }

    /// Opens the terminal for reading and writing.
    pub fn open(&self) -> Result<Arc<File>> {
        let ops = TerminalFile::new(&self.terminal, true, false)?;
        File::opened(ops, self.place.clone(), OpenFlags::O_RDWR)
    }

    /// Where it has its name.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The terminal.
    pub fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }

    /// The size of the host's window is now this.
    pub fn resize(&self, winsize: Winsize) {
        self.terminal.resize(winsize);
    }

    /// Calls `f` with a descriptor of the host's terminal, if it is still there.
    pub fn with_host<R>(&self, f: impl FnOnce(&OwnedFd) -> R) -> Option<R> {
        self.wire.fds.read().as_ref().map(|fds| f(&fds.output))
    }

    /// Waits until the host has taken all output, but not longer than `limit`.
    pub fn drain(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.terminal.state.lock().line.output_len() > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(timeout) = PollTimeout::try_from(left) else { return };
            let ready = self.with_host(|fd| {
                let mut entries = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
                poll(&mut entries, timeout) == Ok(1)
            });
            if ready != Some(true) {
                return;
            }
            self.wire.write_out(&self.terminal);
        }
    }
}

impl Drop for HostConsole {
    fn drop(&mut self) {
        self.wire.released.store(true, Ordering::Release);
        self.wire.wake();
    }
}
