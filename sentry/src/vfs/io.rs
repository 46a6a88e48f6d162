//! Data on its way between a file and whoever reads or writes it.

use abi::{Errno, Result};

use crate::task::Task;

/// Circumstances of an operation on a file.
#[derive(Clone, Copy, Default)]
pub struct Io<'a> {
    /// The task on whose behalf it is done; `None` for the kernel's own.
    pub task: Option<&'a Task>,
    /// O_NONBLOCK (or MSG_DONTWAIT, RWF_NOWAIT).
    pub nonblocking: bool,
    /// O_APPEND: a write goes to the end, whatever its offset.
    pub append: bool,
    /// O_DIRECT.
    pub direct: bool,
}

impl<'a> Io<'a> {
    /// On behalf of a task.
    pub fn of(task: &'a Task) -> Io<'a> {
        Io { task: Some(task), ..Io::default() }
    }
}

/// Where the bytes of a read go: guest memory or a buffer of the sentry's.
pub trait Sink {
    /// How many bytes it still takes.
    fn remaining(&self) -> usize;

    /// Takes all of `data`, which is not longer than [`Sink::remaining`]; or fewer bytes, if guest memory faults
    /// after some; EFAULT if it faults at once.
    fn put(&mut self, data: &[u8]) -> Result<usize>;
}

/// Where the bytes of a write come from.
pub trait Source {
    /// How many bytes are left.
    fn remaining(&self) -> usize;

    /// Fills `buf`, which is not longer than [`Source::remaining`]; or less of it, if guest memory faults after some
    /// bytes; EFAULT if it faults at once.
    fn take(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// Gives back the last `count` bytes taken, which the file had no room for.
    fn untake(&mut self, count: usize);
}

/// A sink in the sentry's memory that takes up to a limit.
pub struct VecSink {
    /// What was put so far.
    pub data: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// Takes up to `limit` bytes, and allocates as they come.
    pub fn new(limit: usize) -> VecSink {
        VecSink { data: Vec::new(), limit }
    }
}

impl Sink for VecSink {
    fn remaining(&self) -> usize {
        self.limit.saturating_sub(self.data.len())
    }

    fn put(&mut self, data: &[u8]) -> Result<usize> {
        let n = data.len().min(self.remaining());
        self.data.extend_from_slice(&data[..n]);
        Ok(n)
    }
}

/// A source of bytes in the sentry's memory.
pub struct SliceSource<'a> {
    data: &'a [u8],
    taken: usize,
}

impl<'a> SliceSource<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> SliceSource<'a> {
        SliceSource { data, taken: 0 }
    }
}

impl Source for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.data.len() - self.taken
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = buf.len().min(self.remaining());
        buf[..n].copy_from_slice(&self.data[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }

    fn untake(&mut self, count: usize) {
        self.taken = self.taken.saturating_sub(count);
    }
}

/// The largest piece that is carried through a buffer of the sentry's at once.
pub const CHUNK: usize = 64 * 1024;

/// Serves a read at `offset` of content that is at hand as a slice.
pub fn put_slice(dst: &mut dyn Sink, content: &[u8], offset: u64) -> Result<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let rest = &content[start..];
    let n = rest.len().min(dst.remaining());
    if n == 0 { Ok(0) } else { dst.put(&rest[..n]) }
}

/// Takes everything a source has, up to `limit`; EINVAL beyond it. For small writes to control files.
pub fn take_all(src: &mut dyn Source, limit: usize) -> Result<Vec<u8>> {
    let len = src.remaining();
    if len > limit {
        return Err(Errno::EINVAL);
    }
    let mut data = vec![0; len];
    let n = src.take(&mut data)?;
    data.truncate(n);
    Ok(data)
}
