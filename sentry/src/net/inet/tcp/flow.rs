//! One direction of a connection: a bounded queue of bytes between a writer and a reader.
//!
//! What is written is copied once, into a block of its own or, if it is short, to the end of the last one, and taken
//! from there by the reader. The queue's lock is never held while guest memory is touched.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::poll::PollEvents;
use abi::time::Timespec;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::vfs::{Sink, Source};
use crate::wait::WaitQueue;

/// Writes are cut into pieces of this size.
const BLOCK: usize = 64 * 1024;

/// Writes of up to this size are gathered in blocks.
const SMALL: usize = 2048;

/// The size of a block in which writes are gathered when the reader does not keep up.
const GATHER: usize = 16 * 1024;

/// A flow of up to this size is not counted for all.
const FREE: usize = 64 * 1024;

/// Bytes that all flows together hold beyond [`FREE`] each.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// When they are more than this, a flow gets no more than [`FREE`] (`net.ipv4.tcp_mem`).
const TOTAL_MAX: usize = 256 << 20;

/// A byte of urgent data (MSG_OOB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Urgent {
    /// Its place in the stream.
    at: u64,
    byte: u8,
    /// It was received.
    taken: bool,
}

#[derive(Default)]
struct Queue {
    blocks: VecDeque<Arc<Vec<u8>>>,
    /// Bytes of the first block that have been read.
    start: usize,
    /// Bytes to be read.
    len: usize,
    /// Memory taken by the blocks.
    held: usize,
    /// Bytes that were ever read.
    read: u64,
    /// Nothing more will be written.
    finished: bool,
    /// Nobody reads any more.
    abandoned: bool,
    /// A writer found no room, and is to be told when there is.
    starved: bool,
    urgent: Option<Urgent>,
    arrival: Option<Timespec>,
}

impl Queue {
    fn hold(&mut self, change: impl FnOnce(&mut Queue)) {
        let before = self.held.saturating_sub(FREE);
        change(self);
        let after = self.held.saturating_sub(FREE);
        if after > before {
            TOTAL.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            TOTAL.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn push(&mut self, block: Vec<u8>) {
        self.hold(|queue| {
            queue.len += block.len();
            queue.held += block.capacity();
            queue.blocks.push_back(Arc::new(block));
        });
    }

    fn clear(&mut self) {
        self.hold(|queue| {
            queue.blocks.clear();
            queue.start = 0;
            queue.len = 0;
            queue.held = 0;
        });
    }

    /// The place in the stream of the next byte to be read.
    fn written(&self) -> u64 {
        self.read + self.len as u64
    }

    /// How many bytes are before the urgent one, if it is still to be passed.
    fn before_urgent(&self) -> Option<usize> {
        let urgent = self.urgent?;
        usize::try_from(urgent.at.checked_sub(self.read)?).ok().filter(|&n| n < self.len)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One direction of a connection.
pub struct Flow {
    queue: Mutex<Queue>,
    /// Held for the time of a write, so that two do not mix.
    writing: Mutex<()>,
    /// Held for the time of a read.
    reading: Mutex<()>,
    /// What the receiver has room for (SO_RCVBUF).
    window: AtomicUsize,
    reader: WaitQueue,
    writer: WaitQueue,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it.
    All,
    /// There is no room for the rest.
    Full,
    /// Nobody reads any more.
    Abandoned,
}

/// What is there to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readable {
    /// Bytes.
    pub len: usize,
    /// Nothing more will come.
    pub finished: bool,
    /// Urgent data that was not received.
    pub urgent: bool,
    /// The next byte is the urgent one.
    pub at_mark: bool,
}

impl Flow {
    /// An empty one. The wait queues are those of the sockets at its ends.
    pub fn new(reader: WaitQueue, writer: WaitQueue, window: usize) -> Arc<Flow> {
        Arc::new(Flow {
            queue: Mutex::default(),
            writing: Mutex::new(()),
            reading: Mutex::new(()),
            window: AtomicUsize::new(window),
            reader,
            writer,
        })
    }

    /// SO_RCVBUF of the reader changed.
    pub fn set_window(&self, window: usize) {
        self.window.store(window, Ordering::Relaxed);
    }

    fn limit(&self, send_buffer: usize) -> usize {
        let limit = send_buffer.saturating_add(self.window.load(Ordering::Relaxed));
        if TOTAL.load(Ordering::Relaxed) > TOTAL_MAX { limit.min(FREE) } else { limit }
    }

    /// Writes as much as there is room for; `sent` grows with it. `send_buffer` is SO_SNDBUF of the writer.
    pub fn write(
        &self,
        src: &mut dyn Source,
        send_buffer: usize,
        sent: &mut usize,
        arrival: impl Fn() -> Option<Timespec>,
    ) -> Result<Written> {
        let _writing = self.writing.lock();
        let limit = self.limit(send_buffer);
        while src.remaining() > 0 {
            let behind = {
                let mut queue = self.queue.lock();
                if queue.abandoned {
                    return Ok(Written::Abandoned);
                }
                if queue.held >= limit {
                    queue.starved = true;
                    return Ok(Written::Full);
                }
                queue.len > 0
            };
            let len = src.remaining().min(BLOCK);
            let done = if len <= SMALL {
                let mut small = [0; SMALL];
                let done = src.take(&mut small[..len])?;
                self.append(&small[..done], behind, arrival());
                done
            } else {
                let mut block = vec![0; len];
                let done = src.take(&mut block)?;
                block.truncate(done);
                let mut queue = self.queue.lock();
                if !queue.abandoned {
                    queue.arrival = arrival();
                    queue.push(block);
                }
                done
            };
            *sent += done;
            self.reader.notify(PollEvents::READABLE);
            if done < len {
                return Err(Errno::EFAULT);
            }
        }
        Ok(Written::All)
    }

    fn append(&self, data: &[u8], behind: bool, arrival: Option<Timespec>) {
        let mut queue = self.queue.lock();
        if queue.abandoned {
            return;
        }
        queue.arrival = arrival;
        let len = data.len();
        if let Some(last) = queue.blocks.back_mut()
            && let Some(last) = Arc::get_mut(last)
            && last.capacity() - last.len() >= len
        {
            last.extend_from_slice(data);
            queue.len += len;
            return;
        }
        let mut block = Vec::with_capacity(if behind { GATHER } else { len.max(256) });
        block.extend_from_slice(data);
        queue.push(block);
    }

    /// Writes one byte of urgent data.
    pub fn write_urgent(&self, byte: u8, arrival: Option<Timespec>) -> Written {
        let _writing = self.writing.lock();
        self.append(&[byte], false, arrival);
        let mut queue = self.queue.lock();
        if queue.abandoned {
            return Written::Abandoned;
        }
        queue.urgent = Some(Urgent { at: queue.written() - 1, byte, taken: false });
        drop(queue);
        self.reader.notify(PollEvents::READABLE | PollEvents::POLLPRI | PollEvents::POLLRDBAND);
        Written::All
    }

    /// Nothing more will be written. True for the first who says so.
    pub fn finish(&self) -> bool {
        let first = !std::mem::replace(&mut self.queue.lock().finished, true);
        if first {
            self.reader.notify(PollEvents::READABLE | PollEvents::POLLRDHUP | PollEvents::POLLHUP);
        }
        first
    }

    /// Has the writer finished?
    pub fn is_finished(&self) -> bool {
        self.queue.lock().finished
    }

    /// Nobody will read any more. True if something is lost by that.
    pub fn abandon(&self) -> bool {
        let mut queue = self.queue.lock();
        let unread = queue.len > 0;
        queue.abandoned = true;
        queue.clear();
        drop(queue);
        self.writer.notify(PollEvents::all());
        unread
    }

    /// Nothing can be written any more, but what is there can be read: the connection was reset.
    pub fn cut(&self) {
        self.queue.lock().abandoned = true;
    }

    /// What is there to read.
    pub fn readable(&self, inline: bool) -> Readable {
        let queue = self.queue.lock();
        let before = queue.before_urgent();
        Readable {
            // The urgent byte does not count where it is not read with the others.
            len: if before.is_some() && !inline { queue.len - 1 } else { queue.len },
            finished: queue.finished,
            urgent: queue.urgent.is_some_and(|u| !u.taken) && !inline,
            at_mark: before == Some(0),
        }
    }

    /// Bytes that were written and not read.
    pub fn pending(&self) -> usize {
        self.queue.lock().len
    }

    /// Bytes that were ever written, and ever read.
    pub fn totals(&self) -> (u64, u64) {
        let queue = self.queue.lock();
        (queue.written(), queue.read)
    }

    /// When the last bytes came.
    pub fn arrival(&self) -> Option<Timespec> {
        self.queue.lock().arrival
    }

    /// Is a third of the sender's buffer free? If not, the writer's queue is told when it is.
    pub fn is_writable(&self, send_buffer: usize) -> bool {
        let limit = self.limit(send_buffer);
        let mut queue = self.queue.lock();
        let writable = queue.abandoned || queue.held <= limit - send_buffer.min(limit) / 3;
        if !writable {
            queue.starved = true;
        }
        writable
    }

    /// Reads up to `max` bytes, and no further than to urgent data. The urgent byte itself is passed over unless it is
    /// `inline`. 0 if there is nothing.
    pub fn read(&self, dst: &mut Reader<'_>, max: usize, inline: bool, send_buffer: usize) -> Result<usize> {
        let _reading = self.reading.lock();
        let mut total = 0;
        let peeks = matches!(dst, Reader::Peek(..));
        // Where to read, from the front of the queue on.
        let mut at = if let Reader::Peek(_, skip) = dst { *skip } else { 0 };
        while total < max {
            let (block, start, len) = {
                let mut queue = self.queue.lock();
                let mut end = queue.len;
                match queue.before_urgent() {
                    Some(mark) if at < mark => end = mark,
                    Some(mark) if at == mark && total > 0 => break,
                    Some(mark) if at == mark && !inline && peeks => at += 1,
                    Some(mark) if at == mark && !inline => {
                        drop(advance(&mut queue, 1));
                        end = queue.len;
                    }
                    _ => {}
                }
                if at >= end {
                    break;
                }
                let mut within = queue.start + at;
                let found = queue.blocks.iter().find(|block| {
                    let here = within < block.len();
                    if !here {
                        within -= block.len();
                    }
                    here
                });
                let Some(block) = found else { break };
                (block.clone(), within, (block.len() - within).min(end - at).min(max - total))
            };
            let piece = block.get(start..start + len).unwrap_or_default();
            let done = match dst {
                Reader::Read(sink) | Reader::Peek(sink, _) => match sink.put(piece) {
                    Ok(done) => done,
                    Err(_) if total > 0 => break,
                    Err(e) => return Err(e),
                },
                Reader::Discard => len,
            };
            total += done;
            drop(block);
            if peeks {
                at += done;
            } else {
                self.consume(done, send_buffer);
            }
            if done < len {
                break;
            }
        }
        Ok(total)
    }

    fn consume(&self, count: usize, send_buffer: usize) {
        let limit = self.limit(send_buffer);
        let mut queue = self.queue.lock();
        let freed = advance(&mut queue, count);
        let room = queue.held <= limit - send_buffer.min(limit) / 3;
        let tell = room && std::mem::take(&mut queue.starved);
        drop(queue);
        drop(freed);
        if tell {
            self.writer.notify(PollEvents::WRITABLE);
        }
    }

    /// Receives the urgent byte (MSG_OOB). EINVAL if there is none, or it was received or passed.
    pub fn read_urgent(&self, peek: bool) -> Result<u8> {
        let mut queue = self.queue.lock();
        let urgent = queue.urgent.as_mut().filter(|u| !u.taken).ok_or(Errno::EINVAL)?;
        urgent.taken = !peek;
        Ok(urgent.byte)
    }
}

/// Takes bytes off the front; returns the blocks that are done with.
fn advance(queue: &mut Queue, count: usize) -> smallvec::SmallVec<[Arc<Vec<u8>>; 2]> {
    let mut freed = smallvec::SmallVec::new();
    queue.hold(|queue| {
        queue.len -= count;
        queue.read += count as u64;
        queue.start += count;
        // Once it is passed, there is no urgent data.
        queue.urgent = queue.urgent.filter(|u| u.at >= queue.read);
        while let Some(first) = queue.blocks.front() {
            if queue.start < first.len() {
                break;
            }
            queue.start -= first.len();
            queue.held -= first.capacity();
            freed.extend(queue.blocks.pop_front());
        }
    });
    freed
}

/// Where the bytes of a read go.
pub enum Reader<'a> {
    /// To the guest, and out of the queue.
    Read(&'a mut dyn Sink),
    /// To the guest, after so many bytes, and they stay.
    Peek(&'a mut dyn Sink, usize),
    /// Nowhere (MSG_TRUNC).
    Discard,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::VecSink;
    use crate::vfs::io::SliceSource;

    const SEND_BUFFER: usize = 100_000;

    fn flow() -> Arc<Flow> {
        Flow::new(WaitQueue::new(), WaitQueue::new(), 50_000)
    }

    fn write(flow: &Flow, data: &[u8]) -> (Written, usize) {
        let mut sent = 0;
        let result = flow.write(&mut SliceSource::new(data), SEND_BUFFER, &mut sent, || None).unwrap();
        (result, sent)
    }

    fn read(flow: &Flow, max: usize) -> Vec<u8> {
        let mut sink = VecSink::new(max);
        let n = flow.read(&mut Reader::Read(&mut sink), max, false, SEND_BUFFER).unwrap();
        assert_eq!(n, sink.data.len());
        sink.data
    }

    #[test]
    fn bytes_come_out_in_order_whatever_the_pieces() {
        let flow = flow();
        let data: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut written = 0;
        let mut got = Vec::new();
        let mut size = 1;
        while got.len() < data.len() {
            let end = (written + size).min(data.len());
            written += write(&flow, &data[written..end]).1;
            got.extend(read(&flow, size * 2 / 3 + 1));
            size = size * 5 % 9001 + 1;
        }
        assert_eq!(got, data);
        assert_eq!(flow.pending(), 0);
        assert_eq!(flow.queue.lock().held, 0);
        assert_eq!(flow.totals(), (100_000, 100_000));
    }

    #[test]
    fn a_writer_stops_when_it_is_full_and_is_told_of_room() {
        let flow = flow();
        let (result, sent) = write(&flow, &vec![1; 1 << 20]);
        assert_eq!(result, Written::Full);
        assert!((150_000..220_000).contains(&sent), "{sent}");
        assert!(!flow.is_writable(SEND_BUFFER) && flow.queue.lock().starved);
        while !flow.is_writable(SEND_BUFFER) {
            assert!(!read(&flow, 10_000).is_empty());
        }
        assert!(!flow.queue.lock().starved || flow.pending() > 0);
        flow.abandon();
        assert_eq!(write(&flow, b"x").0, Written::Abandoned);
    }

    #[test]
    fn small_writes_share_blocks() {
        let flow = flow();
        for _ in 0..10_000 {
            assert_eq!(write(&flow, b"x"), (Written::All, 1));
        }
        assert!(flow.queue.lock().blocks.len() < 5);
        assert_eq!(read(&flow, 20_000).len(), 10_000);
    }

    #[test]
    fn peeking_leaves_everything_there() {
        let flow = flow();
        write(&flow, b"hello");
        write(&flow, &[b'x'; 3000]);
        for skip in [0, 3, 5, 3004, 3005] {
            let mut sink = VecSink::new(4000);
            let n = flow.read(&mut Reader::Peek(&mut sink, skip), 4000, false, SEND_BUFFER).unwrap();
            assert_eq!(n, 3005 - skip);
        }
        assert_eq!(&read(&flow, 6), b"hellox");
    }

    #[test]
    fn urgent_data_is_out_of_band() {
        let flow = flow();
        write(&flow, b"abc");
        assert_eq!(flow.read_urgent(false), Err(Errno::EINVAL));
        flow.write_urgent(b'!', None);
        write(&flow, b"def");
        assert!(flow.readable(false).urgent);
        assert_eq!(flow.readable(false).len, 6);
        assert_eq!(read(&flow, 10), b"abc");
        assert!(flow.readable(false).at_mark);
        assert_eq!(flow.read_urgent(true), Ok(b'!'));
        assert_eq!(flow.read_urgent(false), Ok(b'!'));
        assert_eq!(flow.read_urgent(false), Err(Errno::EINVAL));
        assert_eq!(read(&flow, 10), b"def");
        flow.write_urgent(b'?', None);
        let mut sink = VecSink::new(10);
        assert_eq!(flow.read(&mut Reader::Read(&mut sink), 10, true, SEND_BUFFER), Ok(1));
    }
}
