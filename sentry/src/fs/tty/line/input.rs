//! Input: what comes from the wire, the editing of lines, and reading.

use abi::signal::Signal;
use abi::tty as t;

use super::ctype::{is_alphanumeric, is_control, to_lower};
use super::{BUFFER, Char, Line, News, PENDING_MAX};

/// The most that one round of a read copies (the buffer of iterate_tty_read()); what VMIN asks for beyond it does not
/// count.
const ROUND: usize = 64;

/// A read in progress.
#[derive(Debug)]
pub struct Reading {
    /// What was read so far.
    pub data: Vec<u8>,
    /// How much the reader has room for.
    room: usize,
    /// How many bytes end the read.
    minimum: usize,
    /// VTIME between two bytes, in tenths of a second; 0 for none.
    between: u8,
    /// VTIME for the whole read, if VMIN is 0.
    whole: Option<u8>,
    /// Bytes have come since the timeout was asked for.
    fresh: bool,
}

impl Reading {
    /// For how long the reader may wait for more from now on, in tenths of a second. `None`: what was said before is
    /// still in force.
    pub fn timeout(&mut self) -> Option<u8> {
        if let Some(time) = self.whole.take() {
            return Some(time);
        }
        std::mem::take(&mut self.fresh).then_some(self.between).filter(|&time| time > 0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Char,
    Word,
    Line,
}

impl Line {
    /// How many bytes [`Line::receive`] takes.
    pub fn receive_room(&self) -> usize {
        PENDING_MAX.saturating_sub(self.pending.len())
    }

    /// Bytes from the wire. Returns how many there was room for.
    pub fn receive(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.receive_room());
        self.pending.extend(&data[..count]);
        self.pump();
        count
    }

    /// A byte as if it had come from the wire just now (TIOCSTI).
    pub fn insert(&mut self, byte: u8) {
        if self.input_room() > 0 {
            self.receive_now(&[byte], 0);
        }
    }

    /// Moves what waits into the input buffer, as far as there is room.
    pub(super) fn pump(&mut self) {
        while !self.pending.is_empty() {
            let count = self.input_room().min(self.pending.len());
            if count == 0 {
                self.look_ahead();
                break;
            }
            let piece: Vec<u8> = self.pending.drain(..count).collect();
            let seen = self.looked_ahead.min(count);
            self.looked_ahead -= seen;
            self.receive_now(&piece, seen);
            self.news |= News::WIRE_ROOM;
        }
        if self.pending.is_empty() && self.pending.capacity() > 1024 {
            self.pending = Default::default();
        }
    }

    /// How many bytes may be processed now (n_tty_receive_buf_common()). A line that is being edited never stops the
    /// wire, so that it can be erased: what does not fit replaces its last character.
    fn input_room(&mut self) -> usize {
        let mut room = BUFFER.saturating_sub(self.input.len());
        if self.iflag(t::PARMRK) {
            room = room.div_ceil(3);
        }
        if room > 1 {
            return room - 1;
        }
        let overflow = self.canonical() && self.canon == 0;
        if overflow && room == 0 {
            self.input.truncate(BUFFER - 1);
        }
        usize::from(overflow)
    }

    /// Flow control characters act even if the input buffer is full (n_tty_lookahead_flow_ctrl()).
    fn look_ahead(&mut self) {
        if self.iflag(t::IXON) {
            for at in self.looked_ahead..self.pending.len() {
                if let Some(&c) = self.pending.get(at) {
                    self.flow_control(c, false);
                }
            }
        }
        self.looked_ahead = self.pending.len();
    }

    /// VSTART and VSTOP. True if `c` is one; it acts unless it did so already.
    fn flow_control(&mut self, c: u8, done: bool) -> bool {
        let (start, stop) = (self.cc(t::VSTART), self.cc(t::VSTOP));
        if c != start && c != stop {
            return false;
        }
        if done {
        } else if c == start {
            self.start();
            self.process_echoes();
        } else {
            self.stop();
        }
        true
    }

    /// Processes bytes, the first `seen` of which were looked at for flow control (__receive_buf()).
    fn receive_now(&mut self, data: &[u8], seen: usize) {
        self.output_before = self.output.len();
        let strips = self.iflag(t::ISTRIP) || self.iflag(t::IUCLC) && self.lflag(t::IEXTEN);
        if self.raw || self.lflag(t::EXTPROC) && !strips {
            for &byte in data {
                self.put(byte);
            }
        } else {
            for (at, &byte) in data.iter().enumerate() {
                self.receive_byte(byte, at < seen);
            }
            self.flush_echoes();
        }
        if !self.by_line() && !self.input.is_empty() {
            self.news |= News::INPUT;
        }
    }

    fn receive_byte(&mut self, byte: u8, seen: bool) {
        let mut c = byte;
        if self.iflag(t::ISTRIP) {
            c &= 0x7f;
        }
        if self.iflag(t::IUCLC) && self.lflag(t::IEXTEN) {
            c = to_lower(c);
        }
        if std::mem::take(&mut self.literal) {
            self.receive_plain(c);
        } else if self.lflag(t::EXTPROC) {
            self.put(c);
        } else if self.special[usize::from(c)] {
            self.receive_special(c, seen);
        } else {
            self.receive_plain(c);
        }
    }

    fn put(&mut self, byte: u8) {
        // Parity marks may take more than the room that was counted.
        if self.input.len() < BUFFER {
            self.input.push_back(Char { byte, ends: false });
        }
    }

    /// A byte of data; 0xff is doubled where it would introduce a parity mark.
    fn put_data(&mut self, c: u8) {
        if c == 0xff && self.iflag(t::PARMRK) {
            self.put(c);
        }
        self.put(c);
    }

    /// Any character starts output again, with IXANY.
    fn start_by_any(&mut self) {
        if self.stopped && !self.stopped_by_ioctl && self.iflag(t::IXON) && self.iflag(t::IXANY) {
            self.start();
            self.process_echoes();
        }
    }

    fn receive_plain(&mut self, c: u8) {
        self.start_by_any();
        if self.lflag(t::ECHO) {
            self.finish_erasing();
            self.echo_canon_column();
            self.echo_char(c);
            self.commit_echoes();
        }
        self.put_data(c);
    }

    fn receive_special(&mut self, byte: u8, seen: bool) {
        let mut c = byte;
        if self.iflag(t::IXON) && self.flow_control(c, seen) {
            return;
        }
        if self.lflag(t::ISIG) {
            let signals =
                [(t::VINTR, Signal::SIGINT), (t::VQUIT, Signal::SIGQUIT), (t::VSUSP, Signal::SIGTSTP)];
            if let Some(&(_, signal)) = signals.iter().find(|(index, _)| self.cc(*index) == c) {
                self.receive_signal(signal, c);
                return;
            }
        }
        self.start_by_any();
        if c == b'\r' {
            if self.iflag(t::IGNCR) {
                return;
            }
            if self.iflag(t::ICRNL) {
                c = b'\n';
            }
        } else if c == b'\n' && self.iflag(t::INLCR) {
            c = b'\r';
        }
        if self.canonical() && self.edit(c) {
            return;
        }
        if self.lflag(t::ECHO) {
            self.finish_erasing();
            if c == b'\n' {
                self.echo_raw(b'\n');
            } else {
                self.echo_canon_column();
                self.echo_char(c);
            }
            self.commit_echoes();
        }
        self.put_data(c);
    }

    fn receive_signal(&mut self, signal: Signal, c: u8) {
        self.signals.push(signal);
        if !self.lflag(t::NOFLSH) {
            self.echo.clear();
            // What this very piece of input has echoed is not on the wire yet.
            self.truncate_output(self.output_before);
            self.forget_input();
            self.set_packet_status(t::TIOCPKT_FLUSHREAD);
        }
        if self.iflag(t::IXON) {
            self.start();
        }
        if self.lflag(t::ECHO) {
            self.echo_char(c);
            self.commit_echoes();
        } else {
            self.process_echoes();
        }
    }

    /// The characters that edit and end lines. False if `c` is none of them.
    fn edit(&mut self, c: u8) -> bool {
        let extended = self.lflag(t::IEXTEN);
        if c == self.cc(t::VERASE) || c == self.cc(t::VKILL) || c == self.cc(t::VWERASE) && extended {
            self.erase(c);
            self.commit_echoes();
            return true;
        }
        if c == self.cc(t::VLNEXT) && extended {
            self.literal = true;
            if self.lflag(t::ECHO) {
                self.finish_erasing();
                if self.lflag(t::ECHOCTL) {
                    self.echo_raw(b'^');
                    self.echo_raw(b'\x08');
                    self.commit_echoes();
                }
            }
            return true;
        }
        if c == self.cc(t::VREPRINT) && self.lflag(t::ECHO) && extended {
            self.finish_erasing();
            self.echo_char(c);
            self.echo_raw(b'\n');
            for at in self.canon..self.input.len() {
                self.echo_char(self.input[at].byte);
            }
            self.commit_echoes();
            return true;
        }
        if c == b'\n' {
            if self.lflag(t::ECHO | t::ECHONL) {
                self.echo_raw(b'\n');
                self.commit_echoes();
            }
            self.end_line(c);
            return true;
        }
        if c == self.cc(t::VEOF) {
            self.end_line(t::__DISABLED_CHAR);
            return true;
        }
        if c == self.cc(t::VEOL) || c == self.cc(t::VEOL2) && extended {
            if self.lflag(t::ECHO) {
                self.echo_canon_column();
                self.echo_char(c);
                self.commit_echoes();
            }
            if c == 0xff && self.iflag(t::PARMRK) {
                self.put(c);
            }
            self.end_line(c);
            return true;
        }
        false
    }

    fn end_line(&mut self, c: u8) {
        self.put(c);
        if let Some(last) = self.input.back_mut() {
            last.ends = true;
        }
        self.canon = self.input.len();
        self.news |= News::INPUT;
    }

    fn finish_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.echo_raw(b'/');
        }
    }

    /// VERASE, VWERASE and VKILL (eraser()).
    fn erase(&mut self, c: u8) {
        if self.input.len() == self.canon {
            return;
        }
        let kind = if c == self.cc(t::VERASE) {
            Erase::Char
        } else if c == self.cc(t::VWERASE) {
            Erase::Word
        } else {
            let visibly = [t::ECHOK, t::ECHOKE, t::ECHOE].iter().all(|&flag| self.lflag(flag));
            if !self.lflag(t::ECHO) || !visibly {
                self.input.truncate(self.canon);
                if self.lflag(t::ECHO) {
                    self.finish_erasing();
                    self.echo_char(self.cc(t::VKILL));
                    if self.lflag(t::ECHOK) {
                        self.echo_raw(b'\n');
                    }
                }
                return;
            }
            Erase::Line
        };
        let mut in_word = false;
        while self.input.len() > self.canon {
            // One character, which may be several bytes.
            let mut head = self.input.len() - 1;
            while self.is_continuation(self.input[head].byte) && head > self.canon {
                head -= 1;
            }
            let c = self.input[head].byte;
            if self.is_continuation(c) {
                break;
            }
            if kind == Erase::Word {
                if is_alphanumeric(c) || c == b'_' {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            let rest: smallvec::SmallVec<[u8; 4]> = self.input.range(head + 1..).map(|c| c.byte).collect();
            self.input.truncate(head);
            if self.lflag(t::ECHO) {
                self.echo_erased(c, &rest, kind);
            }
            if kind == Erase::Char {
                break;
            }
        }
        if self.input.len() == self.canon && self.lflag(t::ECHO) {
            self.finish_erasing();
        }
    }

    /// Shows that a character, with its continuation bytes, is gone.
    fn echo_erased(&mut self, c: u8, rest: &[u8], kind: Erase) {
        if self.lflag(t::ECHOPRT) {
            if !self.erasing {
                self.echo_raw(b'\\');
                self.erasing = true;
            }
            self.echo_char(c);
            for &byte in rest {
                self.echo_raw(byte);
                self.echo_move_back();
            }
        } else if kind == Erase::Char && !self.lflag(t::ECHOE) {
            self.echo_char(self.cc(t::VERASE));
        } else if c == b'\t' {
            // Columns since the start of the line, or since the tab before.
            let mut columns = 0u32;
            let mut after_tab = false;
            for at in (self.canon..self.input.len()).rev() {
                let c = self.input[at].byte;
                if c == b'\t' {
                    after_tab = true;
                    break;
                }
                if is_control(c) {
                    if self.lflag(t::ECHOCTL) {
                        columns += 2;
                    }
                } else if !self.is_continuation(c) {
                    columns += 1;
                }
            }
            self.echo_erase_tab(columns, after_tab);
        } else {
            let shown = match (is_control(c), self.lflag(t::ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            for _ in 0..shown {
                for c in *b"\x08 \x08" {
                    self.echo_raw(c);
                }
            }
        }
    }

    /// True if a read gets something; for poll(2), with `poll`, VMIN bytes (input_available_p()).
    pub fn readable(&self, poll: bool) -> bool {
        if self.by_line() {
            return self.canon > 0;
        }
        let minimum = usize::from(self.cc(t::VMIN));
        let wanted = if poll && self.cc(t::VTIME) == 0 && minimum > 0 { minimum } else { 1 };
        self.input.len() >= wanted
    }

    /// How many bytes can be read (TIOCINQ).
    pub fn input_len(&self) -> usize {
        if !self.by_line() {
            return self.input.len();
        }
        self.input.range(..self.canon).filter(|c| !(c.ends && c.byte == t::__DISABLED_CHAR)).count()
    }

    /// Begins a read into a buffer with `room` bytes.
    pub fn begin_read(&self, room: usize) -> Reading {
        let (minimum, time) = (self.cc(t::VMIN), self.cc(t::VTIME));
        let (minimum, between, whole) = match (self.canonical(), minimum) {
            (true, _) => (0, 0, None),
            (false, 0) => (1, 0, Some(time)),
            (false, minimum) => (usize::from(minimum), time, None),
        };
        Reading { data: Vec::new(), room, minimum, between, whole, fresh: false }
    }

    /// Goes on with a read. True when it is complete; else the reader may wait for more, and end it as it is at a
    /// timeout or a signal. [`Line::end_read`] must follow.
    pub fn read(&mut self, reading: &mut Reading) -> bool {
        let round = reading.room.min(ROUND);
        loop {
            let left = round.saturating_sub(reading.data.len());
            if left == 0 {
                return true;
            }
            if !self.readable(false) {
                return false;
            }
            let more = self.copy(&mut reading.data, left);
            reading.fresh = true;
            let enough = reading.data.len() >= reading.minimum;
            if more && (enough || self.by_line()) {
                // The line, or what else there is, as far as it fits.
                loop {
                    let left = reading.room.saturating_sub(reading.data.len());
                    if left == 0 {
                        if self.by_line() {
                            self.skip_end_of_file();
                        }
                        return true;
                    }
                    if !self.copy(&mut reading.data, left) {
                        return true;
                    }
                }
            }
            if enough {
                return true;
            }
        }
    }

    /// A read is over: there may be room again.
    pub fn end_read(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 512 {
            self.input = Default::default();
        }
        self.pump();
    }

    /// Copies up to `count` bytes; true if there are more for the same read.
    fn copy(&mut self, out: &mut Vec<u8>, count: usize) -> bool {
        if !self.by_line() {
            let count = count.min(self.input.len());
            let end_of_file = self.canonical()
                && self.input.len() == 1
                && count == 1
                && self.input.front().is_some_and(|c| c.byte == self.cc(t::VEOF));
            let taken = self.input.drain(..count).map(|c| c.byte);
            if end_of_file {
                // EXTPROC: the other end tells of the end of the file by this.
                drop(taken);
                return false;
            }
            out.extend(taken);
            return !self.input.is_empty();
        }
        let limit = count.min(self.canon);
        let end = self.input.range(..limit).position(|c| c.ends);
        let count = end.map_or(limit, |at| at + 1);
        let taken = self.input.drain(..count);
        out.extend(taken.filter(|c| !(c.ends && c.byte == t::__DISABLED_CHAR)).map(|c| c.byte));
        self.canon -= count;
        end.is_none() && self.canon > 0
    }

    /// A read that ends just before VEOF takes it along: the next one does not see an end of file.
    fn skip_end_of_file(&mut self) {
        let first = self.input.front().filter(|_| self.canon > 0);
        if first.is_some_and(|c| c.ends && c.byte == t::__DISABLED_CHAR) {
            self.input.pop_front();
            self.canon -= 1;
        }
    }
}
