//! The kernel's log (kernel/printk): a ring of lines that syslog(2) reads.
//!
//! It is the sandbox's own. What the sentry tells the host's administrator goes elsewhere.

use std::collections::VecDeque;

use abi::poll::PollEvents;
use parking_lot::Mutex;

use crate::wait::WaitQueue;

/// How many bytes of lines are kept; what is older is forgotten. As large as SYSLOG_ACTION_SIZE_BUFFER says.
pub const CAPACITY: usize = 1 << 16;

#[derive(Default)]
struct Lines {
    /// Each as syslog(2) gives it: `<5>[    0.000000] text\n`.
    list: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The number of the first line of `list`.
    first: u64,
    /// The number of the line that SYSLOG_ACTION_READ goes on with, and how much of it has been read.
    next: (u64, usize),
    /// SYSLOG_ACTION_READ_ALL starts here.
    cleared: u64,
}

impl Lines {
    fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = &Vec<u8>> {
        self.list.iter().skip(usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX))
    }
}

/// The log.
#[derive(Default)]
pub struct KernelLog {
    lines: Mutex<Lines>,
    /// Woken when a line is added.
    pub queue: WaitQueue,
}

impl KernelLog {
    /// Adds a line of importance `level` (0 to 7) at `time` nanoseconds after the start.
    pub fn add(&self, level: u8, time: u64, text: &str) {
        let micros = time / 1000;
        let line = format!("<{level}>[{:5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000);
        let mut lines = self.lines.lock();
        lines.bytes += line.len();
        lines.list.push_back(line.into_bytes());
        while lines.bytes > CAPACITY
            && let Some(old) = lines.list.pop_front()
        {
            lines.bytes -= old.len();
            lines.first += 1;
        }
        drop(lines);
        self.queue.notify(PollEvents::POLLIN);
    }

    /// SYSLOG_ACTION_READ: takes at most `max` bytes that nobody has read. `None` if there are none.
    pub fn read(&self, max: usize) -> Option<Vec<u8>> {
        let mut lines = self.lines.lock();
        let mut taken = Vec::new();
        if lines.next.0 < lines.first {
            lines.next = (lines.first, 0);
        }
        while taken.len() < max {
            let (number, offset) = lines.next;
            let Some(line) = lines.from(number).next() else { break };
            let part = &line[offset.min(line.len())..];
            let len = part.len().min(max - taken.len());
            taken.extend_from_slice(&part[..len]);
            lines.next = if len == part.len() { (number + 1, 0) } else { (number, offset + len) };
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// SYSLOG_ACTION_READ_ALL: the last lines that fit in `max` bytes; with `clear`, later calls do not give them again.
    pub fn read_all(&self, max: usize, clear: bool) -> Vec<u8> {
        let mut lines = self.lines.lock();
        let mut room = max;
        let mut fit = 0;
        for line in lines.from(lines.cleared).rev() {
            match room.checked_sub(line.len()) {
                Some(left) => room = left,
                None => break,
            }
            fit += 1;
        }
        let all = lines.list.len();
        let text = lines.list.iter().skip(all - fit).flatten().copied().collect();
        if clear {
            lines.cleared = lines.first + all as u64;
        }
        text
    }

    /// SYSLOG_ACTION_CLEAR.
    pub fn clear(&self) {
        let mut lines = self.lines.lock();
        lines.cleared = lines.first + lines.list.len() as u64;
    }

    /// SYSLOG_ACTION_SIZE_UNREAD: how many bytes SYSLOG_ACTION_READ has not given yet.
    pub fn unread(&self) -> usize {
        let lines = self.lines.lock();
        let (number, offset) = lines.next;
        let all: usize = lines.from(number).map(Vec::len).sum();
        all - if number >= lines.first { offset } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_once_and_in_pieces() {
        let log = KernelLog::default();
        log.add(5, 0, "one");
        log.add(6, 1_500_000_000, "two");
        let all = b"<5>[    0.000000] one\n<6>[    1.500000] two\n";
        assert_eq!(log.unread(), all.len());
        assert_eq!(log.read_all(4096, false), all);
        assert_eq!(log.read_all(30, true), b"<6>[    1.500000] two\n");
        assert_eq!(log.read_all(4096, false), b"");
        let mut read = log.read(7).unwrap();
        assert_eq!(log.unread(), all.len() - 7);
        read.extend(log.read(4096).unwrap());
        assert_eq!(read, all);
        assert_eq!(log.read(4096), None);
        log.add(5, 0, "three");
        assert_eq!(log.read_all(4096, false), b"<5>[    0.000000] three\n");
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let log = KernelLog::default();
        for i in 0..5000 {
            log.add(5, 0, &format!("line {i} {}", "x".repeat(40)));
        }
        assert!(log.unread() <= CAPACITY);
        assert!(log.read_all(usize::MAX, false).len() <= CAPACITY);
        assert!(log.read(usize::MAX).unwrap().len() <= CAPACITY);
    }
}
