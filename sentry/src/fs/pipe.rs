//! Pipes and fifos (pipe(7), fifo(7), fs/pipe.c).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::task::CurrentTask;
use crate::vfs::{File, FileOps, Io, Path, Sink, Source};
use crate::wait::WaitQueue;

/// The capacity of a new pipe in bytes.
const DEFAULT_CAPACITY: usize = 64 * 1024;

/// Writes of up to this many bytes are atomic.
const PIPE_BUF: usize = 4096;

struct Buffer {
    data: VecDeque<u8>,
    capacity: usize,
    /// Lengths of packets, in O_DIRECT mode.
    packets: VecDeque<usize>,
    readers: usize,
    writers: usize,
    /// How often an end was opened: who opens a fifo waits for this to change.
    readers_seen: u64,
    writers_seen: u64,
}

/// A pipe. The ends are [`PipeEnd`]s.
pub struct Pipe {
    buffer: Mutex<Buffer>,
    queue: WaitQueue,
    fifo: bool,
}

impl Pipe {
    fn new(fifo: bool) -> Arc<Pipe> {
        let buffer = Buffer {
            data: VecDeque::new(),
            capacity: DEFAULT_CAPACITY,
            packets: VecDeque::new(),
            readers: 0,
            writers: 0,
            readers_seen: 0,
            writers_seen: 0,
        };
        Arc::new(Pipe { buffer: Mutex::new(buffer), queue: WaitQueue::new(), fifo })
    }

    /// F_GETPIPE_SZ.
    pub fn capacity(&self) -> usize {
        self.buffer.lock().capacity
    }

    /// F_SETPIPE_SZ: rounded up to a power of two of pages. EBUSY if the contents do not fit.
    pub fn set_capacity(&self, wanted: usize) -> Result<usize> {
        let capacity = wanted.max(PIPE_BUF).checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        let mut buffer = self.buffer.lock();
        if buffer.data.len() > capacity {
            return Err(Errno::EBUSY);
        }
        buffer.capacity = capacity;
        drop(buffer);
        self.queue.notify(PollEvents::WRITABLE);
        Ok(capacity)
    }
}

/// One open of a pipe.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    fn open(pipe: Arc<Pipe>, reads: bool, writes: bool) -> Arc<PipeEnd> {
        let mut buffer = pipe.buffer.lock();
        if reads {
            buffer.readers += 1;
            buffer.readers_seen += 1;
        }
        if writes {
            buffer.writers += 1;
            buffer.writers_seen += 1;
        }
        drop(buffer);
        pipe.queue.notify(PollEvents::all());
        Arc::new(PipeEnd { pipe, reads, writes })
    }

    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Where its events are announced.
    pub fn queue(&self) -> &WaitQueue {
        &self.pipe.queue
    }

    /// tee(2): copies up to `len` bytes to another pipe without consuming them. EAGAIN if nothing can be copied now.
    pub fn tee(&self, to: &PipeEnd, len: usize) -> Result<usize> {
        if Arc::ptr_eq(&self.pipe, &to.pipe) {
            return Err(Errno::EINVAL);
        }
        let first = Arc::as_ptr(&self.pipe) < Arc::as_ptr(&to.pipe);
        let (source, mut target) = if first {
            let source = self.pipe.buffer.lock();
            (source, to.pipe.buffer.lock())
        } else {
            let target = to.pipe.buffer.lock();
            (self.pipe.buffer.lock(), target)
        };
        if target.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = target.capacity - target.data.len().min(target.capacity);
        let count = len.min(source.data.len()).min(room);
        if count == 0 {
            let ended = source.data.is_empty() && source.writers == 0;
            return if ended || len == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        target.data.extend(source.data.iter().take(count));
        drop((source, target));
        to.pipe.queue.notify(PollEvents::READABLE);
        Ok(count)
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut buffer = self.pipe.buffer.lock();
        buffer.readers -= usize::from(self.reads);
        buffer.writers -= usize::from(self.writes);
        if buffer.readers == 0 && buffer.writers == 0 {
            // A fifo forgets what nobody read.
            buffer.data = VecDeque::new();
            buffer.packets.clear();
        }
        drop(buffer);
        self.pipe.queue.notify(PollEvents::all());
    }
}

/// pipe2(2): the read end and the write end.
pub fn pipe(task: &CurrentTask, flags: OpenFlags) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new(false);
    let creds = task.credentials();
    let path = task.kernel().anonymous.pipe((creds.fsuid, creds.fsgid));
    let flags = flags & (OpenFlags::O_NONBLOCK | OpenFlags::O_DIRECT);
    let reader = File::new(PipeEnd::open(pipe.clone(), true, false), path.clone(), flags);
    let writer = File::new(PipeEnd::open(pipe, false, true), path, flags | OpenFlags::O_WRONLY);
    (reader, writer)
}

/// Opens a fifo: waits for the other end unless O_NONBLOCK or O_RDWR. ENXIO for a non-blocking writer without a
/// reader.
pub fn open_fifo(task: &CurrentTask, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let table = &path.dentry().superblock().special;
    let pipe = table.get_or_insert(path.inode().ino(), || Pipe::new(true));
    open_pipe(task, pipe, flags).map(|end| end as Arc<dyn FileOps>)
}

/// Opens a pipe anew, as a fifo or by way of `/proc/PID/fd`. Only a fifo waits for the other end.
pub(crate) fn open_pipe(task: &CurrentTask, pipe: Arc<Pipe>, flags: OpenFlags) -> Result<Arc<PipeEnd>> {
    let (reads, writes) = (flags.readable(), flags.writable());
    if !pipe.fifo {
        return Ok(PipeEnd::open(pipe, reads, writes));
    }
    if writes && !reads && flags.contains(OpenFlags::O_NONBLOCK) && pipe.buffer.lock().readers == 0 {
        return Err(Errno::ENXIO);
    }
    let (readers_seen, writers_seen) = {
        let buffer = pipe.buffer.lock();
        (buffer.readers_seen, buffer.writers_seen)
    };
    let end = PipeEnd::open(pipe.clone(), reads, writes);
    if reads != writes && !flags.contains(OpenFlags::O_NONBLOCK) {
        task.wait_until(&[(&pipe.queue, PollEvents::all())], None, || {
            let buffer = pipe.buffer.lock();
            // An end that came and went has been there.
            let met = if reads {
                buffer.writers > 0 || buffer.writers_seen != writers_seen
            } else {
                buffer.readers > 0 || buffer.readers_seen != readers_seen
            };
            met.then_some(())
        })?;
    }
    Ok(end)
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn signals(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        let mut buffer = self.pipe.buffer.lock();
        if dst.remaining() == 0 {
            return Ok(0);
        }
        if buffer.data.is_empty() {
            return if buffer.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let packet = buffer.packets.front().copied();
        let count = dst.remaining().min(packet.unwrap_or(buffer.data.len()));
        let (front, back) = buffer.data.as_slices();
        let from_front = count.min(front.len());
        let mut done = dst.put(&front[..from_front])?;
        if done == from_front && count > from_front {
            done += dst.put(&back[..count - from_front])?;
        }
        let consumed = match packet {
            // What does not fit of a packet is lost.
            Some(len) => {
                buffer.packets.pop_front();
                len
            }
            None => done,
        };
        buffer.data.drain(..consumed);
        if buffer.data.is_empty() && buffer.data.capacity() > DEFAULT_CAPACITY {
            buffer.data = VecDeque::new();
        }
        drop(buffer);
        let _ = io;
        self.pipe.queue.notify(PollEvents::WRITABLE);
        Ok(done)
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        let mut buffer = self.pipe.buffer.lock();
        if buffer.readers == 0 {
            drop(buffer);
            if let Some(task) = io.task {
                task.group.send_kernel_signal_to_task(task, Signal::SIGPIPE);
            }
            return Err(Errno::EPIPE);
        }
        let len = src.remaining();
        if len == 0 {
            return Ok(0);
        }
        let room = buffer.capacity.saturating_sub(buffer.data.len());
        if room == 0 || (len <= PIPE_BUF && room < len) {
            return Err(Errno::EAGAIN);
        }
        let mut count = len.min(room);
        if io.direct {
            count = count.min(PIPE_BUF);
        }
        let mut data = vec![0; count];
        let taken = src.take(&mut data)?;
        buffer.data.extend(&data[..taken]);
        if io.direct {
            buffer.packets.push_back(taken);
        }
        drop(buffer);
        self.pipe.queue.notify(PollEvents::READABLE);
        Ok(taken)
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let buffer = self.pipe.buffer.lock();
        let mut events = PollEvents::empty();
        if self.reads {
            if !buffer.data.is_empty() {
                events |= PollEvents::READABLE;
            }
            if buffer.writers == 0 && (!self.pipe.fifo || buffer.writers_seen > 0) {
                events |= PollEvents::POLLHUP;
            }
        }
        if self.writes {
            if buffer.capacity.saturating_sub(buffer.data.len()) >= PIPE_BUF {
                events |= PollEvents::WRITABLE;
            }
            if buffer.readers == 0 {
                events |= PollEvents::POLLERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, task: &CurrentTask, _file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        if request == abi::ioctl::FIONREAD {
            let len = self.pipe.buffer.lock().data.len() as u32;
            task.mm().write_object(arg, &len)?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }

    fn anonymous_name(&self) -> String {
        "pipe:".to_string()
    }
}
