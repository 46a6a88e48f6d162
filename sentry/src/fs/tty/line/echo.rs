//! Echo: what input leaves on the wire. It goes through a buffer of its own, because output may have no room, and since
//! how many columns an erased tab took is known only when all before it is on the wire.

use std::collections::VecDeque;

use abi::tty as t;

use super::ctype::is_control;
use super::{BUFFER, Line, News};

/// Committed echoes are put out once they are this many bytes.
const WATERMARK: usize = 256;
/// Beyond this, what cannot be put out is lost.
const DISCARD: usize = BUFFER - (WATERMARK + 32);

/// Introduces an operation.
const START: u8 = 0xff;
/// The column goes back by one.
const MOVE_BACK: u8 = 0x80;
/// The line that is edited starts in this column.
const SET_CANON_COLUMN: u8 = 0x81;
/// A tab is erased; a byte about its width follows.
const ERASE_TAB: u8 = 0x82;

/// The echo buffer.
#[derive(Default)]
pub(super) struct Echo {
    bytes: VecDeque<u8>,
    /// How many may be put out.
    committed: usize,
    /// How many belong to complete characters.
    mark: usize,
}

impl Echo {
    pub(super) fn clear(&mut self) {
        *self = Echo::default();
    }

    fn add(&mut self, byte: u8) {
        // Committing keeps the buffer below its size; this is for the case that nobody commits.
        if self.bytes.len() < BUFFER {
            self.bytes.push_back(byte);
        }
    }

    fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        self.committed = self.committed.saturating_sub(count);
        self.mark = self.mark.saturating_sub(count);
    }
}

impl Line {
    /// A byte as it is.
    pub(super) fn echo_raw(&mut self, c: u8) {
        if c == START {
            self.echo.add(START);
        }
        self.echo.add(c);
    }

    /// A byte of the input; control characters as `^X` if the terminal is set so.
    pub(super) fn echo_char(&mut self, c: u8) {
        if c == START || self.lflag(t::ECHOCTL) && is_control(c) && c != b'\t' {
            self.echo.add(START);
        }
        self.echo.add(c);
    }

    pub(super) fn echo_move_back(&mut self) {
        self.echo.add(START);
        self.echo.add(MOVE_BACK);
    }

    /// The first character of a line is about to be echoed.
    pub(super) fn echo_canon_column(&mut self) {
        if self.canon == self.input.len() {
            self.echo.add(START);
            self.echo.add(SET_CANON_COLUMN);
        }
    }

    /// Erases a tab that has `columns` before it, since the start of the line or since the tab before.
    pub(super) fn echo_erase_tab(&mut self, columns: u32, after_tab: bool) {
        self.echo.add(START);
        self.echo.add(ERASE_TAB);
        self.echo.add((columns & 7) as u8 | if after_tab { 0x80 } else { 0 });
    }

    /// What was added so far may be put out; it is, if it is much.
    pub(super) fn commit_echoes(&mut self) {
        let total = self.echo.bytes.len();
        self.echo.mark = total;
        let before = self.echo.committed;
        if total < WATERMARK || total % WATERMARK > before % WATERMARK {
            return;
        }
        self.echo.committed = total;
        self.put_echoes();
    }

    /// Puts out what was committed.
    pub(super) fn process_echoes(&mut self) {
        if self.echo.mark > 0 {
            self.echo.committed = self.echo.mark;
            self.put_echoes();
        }
    }

    /// Puts out everything, at the end of a piece of input.
    pub(super) fn flush_echoes(&mut self) {
        if self.lflag(t::ECHO | t::ECHONL) && self.echo.committed != self.echo.bytes.len() {
            self.echo.committed = self.echo.bytes.len();
            self.put_echoes();
        }
    }

    fn put_echoes(&mut self) {
        let before = self.output.len();
        let mut at = 0;
        while at < self.echo.committed {
            match self.put_echo(at) {
                Some(size) => at += size,
                None => break,
            }
        }
        while self.echo.committed.saturating_sub(at) >= DISCARD {
            at += match (self.echo.bytes.get(at), self.echo.bytes.get(at + 1)) {
                (Some(&START), Some(&ERASE_TAB)) => 3,
                (Some(&START), _) => 2,
                _ => 1,
            };
        }
        self.echo.consume(at);
        if self.output.len() != before {
            self.news |= News::OUTPUT;
        }
    }

    /// Puts out the operation or byte at `at`, and returns its size in the buffer; `None` if there is no room for it.
    fn put_echo(&mut self, at: usize) -> Option<usize> {
        let c = *self.echo.bytes.get(at)?;
        if c != START {
            if self.oflag(t::OPOST) {
                return self.put_processed(c).then_some(1);
            }
            return self.put_plain(&[c]).then_some(1);
        }
        match *self.echo.bytes.get(at + 1)? {
            ERASE_TAB => {
                let about = u32::from(*self.echo.bytes.get(at + 2)?);
                let columns = if about & 0x80 == 0 { about.wrapping_add(self.canon_column) } else { about };
                let back = 8 - (columns & 7);
                if !self.put_plain(&[b'\x08'; 8][..back as usize]) {
                    return None;
                }
                self.column = self.column.saturating_sub(back);
                Some(3)
            }
            SET_CANON_COLUMN => {
                self.canon_column = self.column;
                Some(2)
            }
            MOVE_BACK => {
                self.column = self.column.saturating_sub(1);
                Some(2)
            }
            START => {
                if !self.put_plain(&[START]) {
                    return None;
                }
                self.column = self.column.wrapping_add(1);
                Some(2)
            }
            control => {
                if !self.put_plain(&[b'^', control ^ 0o100]) {
                    return None;
                }
                self.column = self.column.wrapping_add(2);
                Some(2)
            }
        }
    }

    /// Bytes without output processing. False if there is no room for all of them.
    fn put_plain(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.write_room() {
            return false;
        }
        self.output.extend(bytes);
        true
    }
}
