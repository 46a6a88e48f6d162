//! A terminal: a line discipline, and what it has to do with tasks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::stat::makedev;
use abi::tty::{PTS_TERMIOS, Termios2, Winsize};
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::console::HostWire;
use super::devpts::{Number, Times};
use super::job_control::Control;
use super::line::{Line, News};
use super::{SLAVES, job_control};
use crate::wait::WaitQueue;

/// Bytes that may wait to be read by a master: its input buffer, and the buffer before that.
const MASTER_OUTPUT: usize = MASTER_INPUT + 8192;
/// The input buffer of a master: what is in it was delivered.
const MASTER_INPUT: usize = 4095;
/// Bytes that may wait to be written to the host.
const HOST_OUTPUT: usize = 8192;

/// What changes of a terminal.
pub(super) struct State {
    pub line: Line,
    pub winsize: Winsize,
    /// Settings that may not be changed (TIOCSLCKTRMIOS), one bit each.
    pub fixed: Termios2,
    /// How many open files there are.
    pub opens: u32,
    /// It was open, and is no more.
    pub closed: bool,
    /// It cannot be opened until unlockpt(3).
    pub locked: bool,
    /// Only privileged tasks may open it again (TIOCEXCL).
    pub exclusive: bool,
    /// The other end is there.
    pub connected: bool,
    /// The master's side of flow control, and its TIOCEXCL.
    pub master_stopped: bool,
    pub master_exclusive: bool,
}

/// A terminal.
pub struct Terminal {
    pub(super) number: Number,
    pub(super) times: Arc<Times>,
    pub(super) state: Mutex<State>,
    pub(super) control: Mutex<Control>,
    /// Readers and writers of the terminal.
    pub(super) queue: WaitQueue,
    /// Whoever is at the other end.
    pub(super) wire: WaitQueue,
    /// How often it was hung up: files that were open then are dead.
    hangups: AtomicU32,
    /// The other end, if it is the host.
    host: OnceLock<Arc<HostWire>>,
}

impl Terminal {
    /// A terminal with a new number, whose other end is a master (which has locked it) or the host.
    pub(super) fn new(number: Number, host: Option<Arc<HostWire>>) -> Arc<Terminal> {
        let (output_max, taken) = match host {
            None => (MASTER_OUTPUT, MASTER_INPUT),
            Some(_) => (HOST_OUTPUT, 0),
        };
        let state = State {
            line: Line::new(PTS_TERMIOS, output_max, taken),
            winsize: Winsize::default(),
            fixed: Termios2::default(),
            opens: 0,
            closed: false,
            locked: host.is_none(),
            exclusive: false,
            connected: true,
            master_stopped: false,
            master_exclusive: false,
        };
        Arc::new(Terminal {
            number,
            times: Arc::default(),
            state: Mutex::new(state),
            control: Mutex::default(),
            queue: WaitQueue::new(),
            wire: WaitQueue::new(),
            hangups: AtomicU32::new(0),
            host: host.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// Its number among the terminals of its filesystem.
    pub fn index(&self) -> u32 {
        self.number.index()
    }

    /// Its device number.
    pub fn rdev(&self) -> u64 {
        makedev(SLAVES.0, self.index())
    }

    /// Its name below `/dev`.
    pub fn name(&self) -> String {
        format!("pts/{}", self.index())
    }

    /// The console that the host is connected to.
    pub(super) fn host(&self) -> Option<&Arc<HostWire>> {
        self.host.get()
    }

    /// Changes the state, and does what follows from it.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let signals = std::mem::take(&mut state.line.signals);
        let news = std::mem::take(&mut state.line.news);
        drop(state);
        for signal in signals {
            self.signal_foreground(signal);
        }
        if !news.is_empty() {
            self.announce(news);
        }
        result
    }

    fn announce(&self, news: News) {
        if news.contains(News::INPUT) {
            self.queue.notify(PollEvents::READABLE);
        }
        if news.contains(News::ROOM) {
            self.queue.notify(PollEvents::WRITABLE);
        }
        if news.contains(News::OUTPUT) {
            self.wire.notify(PollEvents::READABLE | PollEvents::POLLPRI);
        }
        if news.contains(News::WIRE_ROOM) {
            self.wire.notify(PollEvents::WRITABLE);
        }
        if let Some(host) = self.host.get() {
            host.announce(self, news);
        }
    }

    /// How often it was hung up so far.
    pub(super) fn hangups(&self) -> u32 {
        self.hangups.load(Ordering::Acquire)
    }

    /// Sends a signal of the kernel's to the foreground process group.
    pub fn signal_foreground(&self, signal: Signal) {
        if let Some(group) = self.foreground() {
            job_control::signal(&group, signal);
        }
    }

    /// Sets the window's size, and tells the foreground if that is a change (pty_resize()).
    pub fn resize(&self, winsize: Winsize) {
        let changed = self.update(|state| std::mem::replace(&mut state.winsize, winsize) != winsize);
        if changed {
            self.signal_foreground(Signal::SIGWINCH);
        }
    }

    /// Somebody opens it. EIO if it is locked or the other end is gone, EBUSY if it is exclusive.
    pub(super) fn open(&self, privileged: bool) -> Result<()> {
        self.update(|state| {
            if !state.connected {
                return Err(Errno::EIO);
            }
            if state.exclusive && !privileged {
                return Err(Errno::EBUSY);
            }
            if state.locked {
                return Err(Errno::EIO);
            }
            state.opens += 1;
            state.closed = false;
            Ok(())
        })
    }

    /// An open file is gone.
    pub(super) fn close(&self) {
        let (last, connected) = self.update(|state| {
            state.opens -= 1;
            state.closed = state.opens == 0;
            (state.closed, state.connected)
        });
        if !last {
            return;
        }
        if connected {
            self.wire.notify(PollEvents::all());
            if let Some(host) = self.host() {
                host.wake();
            }
        } else {
            self.number.release();
        }
    }

    /// The other end is gone: whoever has the terminal open has nothing any more.
    pub(super) fn disconnect(&self) {
        let unused = self.update(|state| {
            state.connected = false;
            state.opens == 0
        });
        self.number.unlink();
        self.hang_up();
        if unused {
            self.number.release();
        }
    }

    /// vhangup(2) (__tty_hangup()): open files are dead, the session is without a terminal, and its leader is told.
    pub fn hang_up(&self) {
        self.hangups.fetch_add(1, Ordering::AcqRel);
        self.leave_session();
        self.update(|state| {
            state.line.reset(PTS_TERMIOS);
        });
        self.queue.notify(PollEvents::all());
    }
}
