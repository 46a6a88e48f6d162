//! Guest buffers as the ends of reads and writes of files.

use smallvec::SmallVec;

use super::MemoryManager;
use crate::vfs::{Sink, Source};
use crate::{Errno, Result};

/// A list of guest buffers with a place in it.
struct Cursor {
    segments: SmallVec<[(u64, u64); 8]>,
    /// The segment in hand.
    index: usize,
    /// Bytes of it that are done.
    within: u64,
    remaining: usize,
}

impl Cursor {
    fn new(segments: impl IntoIterator<Item = (u64, u64)>) -> Result<Cursor> {
        let segments: SmallVec<[(u64, u64); 8]> = segments.into_iter().collect();
        let mut total: u64 = 0;
        for &(addr, len) in &segments {
            MemoryManager::check_range(addr, len)?;
            total = total.checked_add(len).ok_or(Errno::EINVAL)?;
        }
        let remaining = usize::try_from(total).map_err(|_| Errno::EINVAL)?;
        Ok(Cursor { segments, index: 0, within: 0, remaining })
    }

    /// The next `len` bytes as pieces of memory: address and length.
    fn pieces(&self, len: usize) -> SmallVec<[(u64, usize); 8]> {
        let mut pieces = SmallVec::new();
        let mut left = len.min(self.remaining) as u64;
        let mut within = self.within;
        for &(addr, size) in self.segments.iter().skip(self.index) {
            if left == 0 {
                break;
            }
            let n = left.min(size - within);
            if n > 0 {
                pieces.push((addr + within, n as usize));
            }
            left -= n;
            within = 0;
        }
        pieces
    }

    fn advance(&mut self, count: usize) {
        self.remaining -= count;
        self.within += count as u64;
        while let Some(&(_, size)) = self.segments.get(self.index) {
            if self.within < size {
                break;
            }
            self.within -= size;
            self.index += 1;
        }
    }

    fn retreat(&mut self, count: usize) {
        let mut left = count as u64;
        loop {
            let back = left.min(self.within);
            self.within -= back;
            left -= back;
            self.remaining += back as usize;
            if left == 0 || self.index == 0 {
                break;
            }
            self.index -= 1;
            self.within = self.segments.get(self.index).map_or(0, |&(_, size)| size);
        }
    }
}

/// Guest buffers to be filled (read(2), readv(2), recvmsg(2)) as a result of the calling thread's call.
pub struct UserSink<'a> {
    mm: &'a MemoryManager,
    cursor: Cursor,
}

impl<'a> UserSink<'a> {
    /// Buffers in order, each an address and a length. EFAULT if one is not in user space.
    pub fn new(
        mm: &'a MemoryManager,
        segments: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<UserSink<'a>> {
        Ok(UserSink { mm, cursor: Cursor::new(segments)? })
    }

    /// One buffer.
    pub fn buffer(mm: &'a MemoryManager, addr: u64, len: u64) -> Result<UserSink<'a>> {
        UserSink::new(mm, [(addr, len)])
    }

    /// Takes no more than `limit` bytes in all (MAX_RW_COUNT).
    pub fn limit(&mut self, limit: usize) {
        self.cursor.remaining = self.cursor.remaining.min(limit);
    }
}

impl Sink for UserSink<'_> {
    fn remaining(&self) -> usize {
        self.cursor.remaining
    }

    fn put(&mut self, data: &[u8]) -> Result<usize> {
        let mut rest = data;
        let mut batch: SmallVec<[(u64, &[u8]); 8]> = SmallVec::new();
        for (addr, len) in self.cursor.pieces(data.len()) {
            let Some((piece, after)) = rest.split_at_checked(len) else { break };
            batch.push((addr, piece));
            rest = after;
        }
        let done = match batch.as_slice() {
            [] => return Ok(0),
            &[(addr, piece)] => self.mm.write_result_upto(addr, piece)?,
            many => self.mm.write_batch_upto(many),
        };
        if done == 0 {
            return Err(Errno::EFAULT);
        }
        self.cursor.advance(done);
        Ok(done)
    }
}

/// Guest buffers to be written out (write(2), writev(2), sendmsg(2)).
pub struct UserSource<'a> {
    mm: &'a MemoryManager,
    cursor: Cursor,
}

impl<'a> UserSource<'a> {
    /// Buffers in order, each an address and a length. EFAULT if one is not in user space.
    pub fn new(
        mm: &'a MemoryManager,
        segments: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<UserSource<'a>> {
        Ok(UserSource { mm, cursor: Cursor::new(segments)? })
    }

    /// One buffer.
    pub fn buffer(mm: &'a MemoryManager, addr: u64, len: u64) -> Result<UserSource<'a>> {
        UserSource::new(mm, [(addr, len)])
    }

    /// Gives no more than `limit` bytes in all (MAX_RW_COUNT).
    pub fn limit(&mut self, limit: usize) {
        self.cursor.remaining = self.cursor.remaining.min(limit);
    }
}

impl Source for UserSource<'_> {
    fn remaining(&self) -> usize {
        self.cursor.remaining
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut rest = buf;
        let mut batch: SmallVec<[(u64, &mut [u8]); 8]> = SmallVec::new();
        for (addr, len) in self.cursor.pieces(rest.len()) {
            let Some((piece, after)) = rest.split_at_mut_checked(len) else { break };
            batch.push((addr, piece));
            rest = after;
        }
        let done = match batch.as_mut_slice() {
            [] => return Ok(0),
            [(addr, piece)] => self.mm.read_upto(*addr, piece)?,
            many => self.mm.read_batch_upto(many),
        };
        if done == 0 {
            return Err(Errno::EFAULT);
        }
        self.cursor.advance(done);
        Ok(done)
    }

    fn untake(&mut self, count: usize) {
        self.cursor.retreat(count);
    }
}
