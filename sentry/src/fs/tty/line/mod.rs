//! The line discipline N_TTY (termios(3), drivers/tty/n_tty.c) as a state machine: bytes from the wire go in, bytes for
//! the wire and for readers come out. It knows no tasks, waits for nothing and takes no locks; what its owner has to do
//! is collected in [`Line::news`] and [`Line::signals`].
//!
//! The wire is what is at the other end: the master of a pseudo-terminal, or a terminal of the host.

mod echo;
mod input;
mod output;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use abi::signal::Signal;
use abi::tty as t;
use abi::tty::Termios2;

pub use input::Reading;

/// Bytes of the input buffer, and of the echo buffer (N_TTY_BUF_SIZE).
const BUFFER: usize = 4096;

/// Bytes that wait for room in the input buffer.
const PENDING_MAX: usize = 8192;

bitflags::bitflags! {
    /// What became possible.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct News: u8 {
        /// Readers of the terminal may go on.
        const INPUT = 1;
        /// Writers to the terminal may go on.
        const ROOM = 2;
        /// There is something for the wire: bytes, or a status of packet mode.
        const OUTPUT = 4;
        /// Whoever feeds the wire may go on.
        const WIRE_ROOM = 8;
    }
}

/// A character of the input buffer.
#[derive(Clone, Copy)]
struct Char {
    byte: u8,
    /// A line ends here. If the byte is 0 it stands for VEOF, and readers do not see it.
    ends: bool,
}

/// A terminal's line.
pub struct Line {
    termios: Termios2,
    /// Bytes that input treats specially (char_map).
    special: [bool; 256],
    /// No byte is treated specially, nor echoed.
    raw: bool,

    /// Came from the wire and did not fit yet.
    pending: VecDeque<u8>,
    /// How many of these were searched for flow control characters.
    looked_ahead: usize,
    input: VecDeque<Char>,
    /// How many characters belong to complete lines (canon_head).
    canon: usize,
    /// The next byte is taken as it is (VLNEXT).
    literal: bool,
    /// Between the backslash and the slash of ECHOPRT.
    erasing: bool,

    /// Bytes for the wire.
    output: VecDeque<u8>,
    /// The most that may wait there.
    output_max: usize,
    /// How many of the first bytes the wire has taken already, so that they cannot be flushed any more.
    output_taken: usize,
    /// How many bytes were there when the input that is being processed came.
    output_before: usize,
    /// Somebody found no room.
    starved: bool,
    /// Somebody waits for all output to be gone.
    draining: bool,
    column: u32,
    /// The column where the line that is being edited began.
    canon_column: u32,
    echo: echo::Echo,
    /// Output is stopped, by VSTOP or TCOOFF.
    stopped: bool,
    /// It was TCOOFF.
    stopped_by_ioctl: bool,

    /// Packet mode (TIOCPKT).
    packet: bool,
    packet_status: u8,

    /// Signals for the foreground, in order; the owner takes them.
    pub signals: Vec<Signal>,
    /// What became possible since the owner looked last.
    pub news: News,
}

impl Line {
    /// A line with these settings. Up to `output_max` bytes may wait for the wire, of which the first `output_taken`
    /// count as delivered: flushing output leaves them.
    pub fn new(termios: Termios2, output_max: usize, output_taken: usize) -> Line {
        let mut line = Line {
            termios,
            special: [false; 256],
            raw: false,
            pending: VecDeque::new(),
            looked_ahead: 0,
            input: VecDeque::new(),
            canon: 0,
            literal: false,
            erasing: false,
            output: VecDeque::new(),
            output_max,
            output_taken,
            output_before: 0,
            starved: false,
            draining: false,
            column: 0,
            canon_column: 0,
            echo: echo::Echo::default(),
            stopped: false,
            stopped_by_ioctl: false,
            packet: false,
            packet_status: 0,
            signals: Vec::new(),
            news: News::empty(),
        };
        line.update_special();
        line
    }

    /// The settings.
    pub fn termios(&self) -> &Termios2 {
        &self.termios
    }

    /// Takes over new settings (n_tty_set_termios(), pty_set_termios()).
    pub fn set_termios(&mut self, new: Termios2) {
        let old = std::mem::replace(&mut self.termios, new);
        // A pseudo-terminal has neither parity nor other sizes of characters.
        self.termios.c_cflag = new.c_cflag & !(t::CSIZE | t::PARENB) | t::CS8 | t::CREAD;
        if self.packet {
            self.report_settings(&old);
        }
        if (old.c_lflag ^ new.c_lflag) & (t::ICANON | t::EXTPROC) != 0 {
            for c in &mut self.input {
                c.ends = false;
            }
            self.canon = 0;
            if self.canonical() {
                // What was typed before can be read, and counts as a line.
                if let Some(last) = self.input.back_mut() {
                    last.ends = true;
                }
                self.canon = self.input.len();
            }
            self.erasing = false;
            self.literal = false;
        }
        self.update_special();
        if !self.iflag(t::IXON) && old.c_iflag & t::IXON != 0 && !self.stopped_by_ioctl {
            self.start();
            self.process_echoes();
        }
        self.news |= News::INPUT | News::ROOM;
    }

    /// Back to the settings of a new terminal, empty (a hangup).
    pub fn reset(&mut self, termios: Termios2) {
        let (output_max, output_taken) = (self.output_max, self.output_taken);
        let delivered = std::mem::take(&mut self.output);
        let (packet, signals, news) = (self.packet, std::mem::take(&mut self.signals), self.news);
        *self = Line::new(termios, output_max, output_taken);
        self.output = delivered;
        self.output.truncate(output_taken);
        self.packet = packet;
        self.signals = signals;
        self.news = news | News::INPUT | News::ROOM | News::WIRE_ROOM;
    }

    fn report_settings(&mut self, old: &Termios2) {
        let flow =
            |s: &Termios2| s.c_iflag & t::IXON != 0 && s.c_cc[t::VSTOP] == 0o23 && s.c_cc[t::VSTART] == 0o21;
        let (before, after) = (flow(old), flow(&self.termios));
        if before != after {
            self.packet_status &= !(t::TIOCPKT_DOSTOP | t::TIOCPKT_NOSTOP);
            self.set_packet_status(if after { t::TIOCPKT_DOSTOP } else { t::TIOCPKT_NOSTOP });
        }
        if (old.c_lflag | self.termios.c_lflag) & t::EXTPROC != 0 {
            self.set_packet_status(t::TIOCPKT_IOCTL);
        }
    }

    fn update_special(&mut self) {
        let s = self.termios;
        self.special = [false; 256];
        let crlf = t::IGNCR | t::ICRNL | t::INLCR;
        self.raw = s.c_iflag & (t::ISTRIP | t::IUCLC | crlf | t::IXON | t::PARMRK) == 0
            && s.c_lflag & (t::ICANON | t::ISIG | t::ECHO) == 0;
        let mut mark = |condition: bool, bytes: &[u8]| {
            if condition {
                for &byte in bytes {
                    self.special[usize::from(byte)] = true;
                }
            }
        };
        let cc = |index: usize| s.c_cc[index];
        let local = |flags: u32| s.c_lflag & flags == flags;
        mark(s.c_iflag & (t::IGNCR | t::ICRNL) != 0, b"\r");
        mark(s.c_iflag & t::INLCR != 0, b"\n");
        mark(local(t::ICANON), &[cc(t::VERASE), cc(t::VKILL), cc(t::VEOF), b'\n', cc(t::VEOL)]);
        mark(local(t::ICANON | t::IEXTEN), &[cc(t::VWERASE), cc(t::VLNEXT), cc(t::VEOL2)]);
        mark(local(t::ICANON | t::IEXTEN | t::ECHO), &[cc(t::VREPRINT)]);
        mark(s.c_iflag & t::IXON != 0, &[cc(t::VSTART), cc(t::VSTOP)]);
        mark(local(t::ISIG), &[cc(t::VINTR), cc(t::VQUIT), cc(t::VSUSP)]);
        self.special[usize::from(t::__DISABLED_CHAR)] = false;
    }

    fn iflag(&self, flag: u32) -> bool {
        self.termios.c_iflag & flag != 0
    }

    fn oflag(&self, flag: u32) -> bool {
        self.termios.c_oflag & flag != 0
    }

    fn lflag(&self, flag: u32) -> bool {
        self.termios.c_lflag & flag != 0
    }

    fn cc(&self, index: usize) -> u8 {
        self.termios.c_cc[index]
    }

    /// Input is edited, and read by lines.
    fn canonical(&self) -> bool {
        self.lflag(t::ICANON)
    }

    /// Readers get lines: canonical, and the other end does not edit (EXTPROC).
    fn by_line(&self) -> bool {
        self.canonical() && !self.lflag(t::EXTPROC)
    }

    /// Discards the input buffer (n_tty_flush_buffer()).
    pub fn flush_input(&mut self) {
        self.forget_input();
        self.set_packet_status(t::TIOCPKT_FLUSHREAD);
        self.pump();
    }

    /// Discards what came from the wire and is not in the input buffer yet.
    pub fn flush_pending(&mut self) {
        self.pending.clear();
        self.looked_ahead = 0;
        self.news |= News::WIRE_ROOM;
    }

    fn forget_input(&mut self) {
        self.input.clear();
        self.canon = 0;
        self.erasing = false;
        self.looked_ahead = 0;
    }

    /// Discards output that the wire has not taken yet (pty_flush_buffer()).
    pub fn flush_output(&mut self) {
        self.truncate_output(self.output.len());
    }

    /// Flushes output; of the first `count` bytes the wire has what it can take.
    fn truncate_output(&mut self, count: usize) {
        self.output.truncate(count.min(self.output_taken));
        self.set_packet_status(t::TIOCPKT_FLUSHWRITE);
        self.news |= News::ROOM;
    }

    /// Stops output (VSTOP).
    fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.packet_status &= !t::TIOCPKT_START;
            self.set_packet_status(t::TIOCPKT_STOP);
        }
    }

    /// Lets output go on (VSTART), unless TCOOFF has stopped it.
    fn start(&mut self) {
        if self.stopped && !self.stopped_by_ioctl {
            self.stopped = false;
            self.packet_status &= !t::TIOCPKT_STOP;
            self.set_packet_status(t::TIOCPKT_START);
            self.news |= News::ROOM;
        }
    }

    /// TCOOFF and TCOON.
    pub fn set_stopped(&mut self, stopped: bool) {
        if stopped {
            if !self.stopped_by_ioctl {
                self.stopped_by_ioctl = true;
                self.stop();
            }
        } else if self.stopped_by_ioctl {
            self.stopped_by_ioctl = false;
            self.start();
        }
    }

    /// TIOCPKT.
    pub fn set_packet_mode(&mut self, on: bool) {
        if on && !self.packet {
            self.packet_status = 0;
        }
        self.packet = on;
    }

    /// TIOCGPKT.
    pub fn packet_mode(&self) -> bool {
        self.packet
    }

    /// The status that packet mode has to tell, 0 for none.
    pub fn packet_status(&self) -> u8 {
        if self.packet { self.packet_status } else { 0 }
    }

    /// As [`Line::packet_status`]; it has been told now.
    pub fn take_packet_status(&mut self) -> u8 {
        let status = self.packet_status();
        if status != 0 {
            self.packet_status = 0;
        }
        status
    }

    fn set_packet_status(&mut self, bits: u8) {
        if self.packet {
            self.packet_status |= bits;
            self.news |= News::OUTPUT;
        }
    }
}

/// Characters as the kernel's ctype.h sees them: Latin-1.
mod ctype {
    pub fn is_control(c: u8) -> bool {
        c < 32 || c == 127
    }

    pub fn is_upper(c: u8) -> bool {
        c.is_ascii_uppercase() || (0xc0..=0xde).contains(&c) && c != 0xd7
    }

    pub fn is_lower(c: u8) -> bool {
        c.is_ascii_lowercase() || c >= 0xdf && c != 0xf7
    }

    pub fn is_alphanumeric(c: u8) -> bool {
        c.is_ascii_digit() || is_upper(c) || is_lower(c)
    }

    pub fn to_lower(c: u8) -> u8 {
        if is_upper(c) { c + 32 } else { c }
    }

    pub fn to_upper(c: u8) -> u8 {
        if is_lower(c) { c - 32 } else { c }
    }
}
