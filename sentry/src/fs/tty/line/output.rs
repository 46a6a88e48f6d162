//! Output processing: what programs write, on its way to the wire (OPOST and its like).

use abi::tty as t;

use super::ctype::{is_control, to_upper};
use super::{Line, News};

impl Line {
    /// How many bytes the wire has room for (tty_write_room()).
    pub fn write_room(&self) -> usize {
        if self.stopped { 0 } else { self.output_max.saturating_sub(self.output.len()) }
    }

    /// True if a write would get something done. Otherwise [`News::ROOM`] tells when.
    pub fn writable(&mut self) -> bool {
        let room = self.write_room() > 0;
        self.starved |= !room;
        room
    }

    /// [`News::ROOM`] is to tell when no output is left, too.
    pub fn tell_when_empty(&mut self) {
        self.draining = !self.output.is_empty();
    }

    /// Writes as much of `data` as there is room for, and returns how much that is (n_tty_write()).
    pub fn write(&mut self, data: &[u8]) -> usize {
        // What is still to be echoed comes first.
        self.process_echoes();
        let mut done = 0;
        if self.oflag(t::OPOST) {
            while done < data.len() && self.put_processed(data[done]) {
                done += 1;
            }
        } else {
            done = data.len().min(self.write_room());
            self.output.extend(&data[..done]);
        }
        if done > 0 {
            self.news |= News::OUTPUT;
        }
        self.starved |= done < data.len();
        done
    }

    /// Puts bytes on the wire past all processing, also when output is stopped (tty_send_xchar()).
    pub fn write_unprocessed(&mut self, byte: u8) {
        if self.output.len() < self.output_max {
            self.output.push_back(byte);
            self.news |= News::OUTPUT;
        }
    }

    /// How many bytes wait for the wire.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Takes up to `max` bytes for the wire.
    pub fn take_output(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.output.len());
        let taken: Vec<u8> = self.output.drain(..count).collect();
        self.output_drained();
        taken
    }

    /// The bytes that wait for the wire, in two pieces; [`Line::drop_output`] takes them off.
    pub fn peek_output(&self) -> (&[u8], &[u8]) {
        self.output.as_slices()
    }

    /// The wire has taken so many of the first bytes.
    pub fn drop_output(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
        self.output_drained();
    }

    /// Discards everything that waits for the wire.
    pub fn clear_output(&mut self) {
        self.output.clear();
        self.output_drained();
    }

    fn output_drained(&mut self) {
        if self.output.is_empty() {
            self.output = std::collections::VecDeque::new();
            if std::mem::take(&mut self.draining) {
                self.news |= News::ROOM;
            }
        }
        // Not for every byte that is read: writers go on when half is free.
        if self.starved && self.write_room() >= self.output_max / 2 {
            self.starved = false;
            self.news |= News::ROOM;
        }
    }

    /// One byte with output processing (do_output_char()). False if there is no room for what becomes of it.
    pub(super) fn put_processed(&mut self, byte: u8) -> bool {
        let room = self.write_room();
        if room == 0 {
            return false;
        }
        let mut c = byte;
        match c {
            b'\n' => {
                if self.oflag(t::ONLRET) {
                    self.column = 0;
                }
                if self.oflag(t::ONLCR) {
                    if room < 2 {
                        return false;
                    }
                    self.canon_column = 0;
                    self.column = 0;
                    self.output.extend(b"\r\n");
                    return true;
                }
                self.canon_column = self.column;
            }
            b'\r' => {
                if self.oflag(t::ONOCR) && self.column == 0 {
                    return true;
                }
                if self.oflag(t::OCRNL) {
                    c = b'\n';
                    if self.oflag(t::ONLRET) {
                        self.canon_column = 0;
                        self.column = 0;
                    }
                } else {
                    self.canon_column = 0;
                    self.column = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                if self.termios.c_oflag & t::TABDLY == t::XTABS {
                    if room < spaces as usize {
                        return false;
                    }
                    self.column = self.column.wrapping_add(spaces);
                    self.output.extend(std::iter::repeat_n(b' ', spaces as usize));
                    return true;
                }
                self.column = self.column.wrapping_add(spaces);
            }
            b'\x08' => self.column = self.column.saturating_sub(1),
            _ if !is_control(c) => {
                if self.oflag(t::OLCUC) {
                    c = to_upper(c);
                }
                if !self.is_continuation(c) {
                    self.column = self.column.wrapping_add(1);
                }
            }
            _ => {}
        }
        self.output.push_back(c);
        true
    }

    /// A byte within a UTF-8 character, if the terminal knows UTF-8.
    pub(super) fn is_continuation(&self, c: u8) -> bool {
        self.iflag(t::IUTF8) && c & 0xc0 == 0x80
    }
}
