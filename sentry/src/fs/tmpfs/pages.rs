//! The contents of a file in plain memory, with holes.
//!
//! The file is divided into chunks of 64 KiB. Where writing begins at the start of a chunk and goes on (nearly always),
//! the chunk is one vector that grows with it, so that a small file takes its own size and a read is one copy; else it
//! is a table of single pages.
//!
//! Bytes beyond the end of the file are always zero, or not there.

use std::collections::BTreeMap;

use abi::{Errno, Result};

use super::{Limits, heap};
use crate::vfs::Source;

/// The unit of accounting, of holes and of allocation.
pub const PAGE: usize = 4096;

const CHUNK: usize = 64 * 1024;
const PAGES: usize = CHUNK / PAGE;

type Page = Box<[u8; PAGE]>;

enum Chunk {
    /// The pages from the first on, without a gap. What is missing of the last page is zero.
    Run(Vec<u8>),
    /// Any pages.
    Table(Box<[Option<Page>; PAGES]>),
}

fn zero_page() -> Page {
    Box::new([0; PAGE])
}

impl Chunk {
    fn has(&self, page: usize) -> bool {
        match self {
            Chunk::Run(bytes) => page * PAGE < bytes.len(),
            Chunk::Table(pages) => pages.get(page).is_some_and(Option::is_some),
        }
    }

    fn count(&self) -> usize {
        match self {
            Chunk::Run(bytes) => bytes.len().div_ceil(PAGE),
            Chunk::Table(pages) => pages.iter().flatten().count(),
        }
    }

    /// What is at `at`, and how far (at most to the end of the chunk). `None` is a hole.
    fn at(&self, at: usize) -> (Option<&[u8]>, usize) {
        match self {
            Chunk::Run(bytes) => match bytes.get(at..) {
                Some(rest) if !rest.is_empty() => (Some(rest), rest.len()),
                _ => (None, CHUNK - at),
            },
            Chunk::Table(pages) => {
                let left = PAGE - at % PAGE;
                let page = pages.get(at / PAGE).and_then(Option::as_deref);
                (page.and_then(|page| page.get(at % PAGE..)), left)
            }
        }
    }

    fn make_table(&mut self) -> &mut [Option<Page>; PAGES] {
        if let Chunk::Run(bytes) = self {
            let mut table: Box<[Option<Page>; PAGES]> = Box::default();
            for (slot, piece) in table.iter_mut().zip(bytes.chunks(PAGE)) {
                let page = slot.insert(zero_page());
                page[..piece.len()].copy_from_slice(piece);
            }
            *self = Chunk::Table(table);
        }
        match self {
            Chunk::Table(table) => table,
            Chunk::Run(_) => unreachable!("it was just made a table"),
        }
    }

    /// A full table becomes one piece again.
    fn compact(&mut self) {
        if let Chunk::Table(pages) = self
            && pages.iter().all(Option::is_some)
        {
            let mut bytes = Vec::with_capacity(CHUNK);
            for page in pages.iter().flatten() {
                bytes.extend_from_slice(&page[..]);
            }
            *self = Chunk::Run(bytes);
        }
    }

    /// Makes the pages of `from..to` be there, and calls `f` with their bytes in one or several pieces until it takes
    /// less than a piece. Returns how many bytes it took.
    fn with_bytes(
        &mut self,
        from: usize,
        to: usize,
        f: &mut dyn FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<usize> {
        if let Chunk::Run(bytes) = self
            && from <= bytes.len().next_multiple_of(PAGE)
        {
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            return f(&mut bytes[from..to]);
        }
        let pages = self.make_table();
        let (mut at, mut total) = (from, 0);
        while at < to {
            let Some(slot) = pages.get_mut(at / PAGE) else { break };
            let end = to.min((at / PAGE + 1) * PAGE);
            let page = slot.get_or_insert_with(zero_page);
            let start = at % PAGE;
            let taken = match f(&mut page[start..start + (end - at)]) {
                Err(e) if total == 0 => return Err(e),
                Err(_) => break,
                Ok(taken) => taken,
            };
            total += taken;
            if taken < end - at {
                break;
            }
            at = end;
        }
        self.compact();
        Ok(total)
    }

    /// Makes `from..to` read as zero, and drops the pages that lie within. Nothing may be left.
    fn punch(&mut self, from: usize, to: usize) {
        if let Chunk::Run(bytes) = self {
            if bytes.len().next_multiple_of(PAGE) <= to {
                // What is left of the page that `from` is in stays allocated.
                if bytes.len() > from {
                    let kept = from.next_multiple_of(PAGE).min(bytes.len());
                    bytes.truncate(kept);
                    bytes[from..].fill(0);
                    bytes.shrink_to_fit();
                }
                return;
            }
            if from.next_multiple_of(PAGE) + PAGE > to {
                // No page lies within.
                let end = to.min(bytes.len());
                bytes[from.min(end)..end].fill(0);
                return;
            }
        }
        for (i, slot) in self.make_table().iter_mut().enumerate() {
            let (start, end) = (from.max(i * PAGE), to.min((i + 1) * PAGE));
            if end.saturating_sub(start) == PAGE {
                *slot = None;
            } else if start < end
                && let Some(page) = slot
            {
                page[start % PAGE..=(end - 1) % PAGE].fill(0);
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Chunk::Run(bytes) => bytes.is_empty(),
            Chunk::Table(pages) => pages.iter().all(Option::is_none),
        }
    }
}

/// The pages of a file that are there.
#[derive(Default)]
pub struct Pages {
    chunks: BTreeMap<u64, Chunk>,
    count: u64,
}

fn split(offset: u64) -> (u64, usize) {
    (offset / CHUNK as u64, (offset % CHUNK as u64) as usize)
}

impl Pages {
    /// How many pages are there.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is at `offset`: bytes, or `None` for a hole; and how far that goes at least (not beyond `len`).
    pub fn at(&self, offset: u64, len: usize) -> (Option<&[u8]>, usize) {
        let (index, at) = split(offset);
        let (bytes, run) = match self.chunks.get(&index) {
            Some(chunk) => chunk.at(at),
            None => (None, CHUNK - at),
        };
        let run = run.min(len);
        (bytes.and_then(|b| b.get(..run)), run)
    }

    /// Pays for the missing pages of `from..to` of a chunk, up to the first that cannot be paid for. Returns how far it
    /// came.
    fn pay(&mut self, index: u64, from: usize, to: usize, limits: &Limits) -> Result<usize> {
        let chunk = self.chunks.get(&index);
        for page in from / PAGE..to.div_ceil(PAGE) {
            if !chunk.is_some_and(|c| c.has(page)) {
                match limits.charge(1) {
                    Ok(()) => self.count += 1,
                    Err(e) if page == from / PAGE => return Err(e),
                    Err(_) => return Ok(page * PAGE),
                }
            }
        }
        Ok(to)
    }

    fn fill(
        &mut self,
        offset: u64,
        len: usize,
        limits: &Limits,
        f: &mut dyn FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<usize> {
        let (index, from) = split(offset);
        let (had, counted) = (self.chunks.get(&index).map_or(0, Chunk::count), self.count);
        let to = self.pay(index, from, CHUNK.min(from.saturating_add(len)), limits)?;
        let chunk = self.chunks.entry(index).or_insert_with(|| Chunk::Run(Vec::new()));
        let result = chunk.with_bytes(from, to, f);
        // After a fault, pages were paid for that did not get used.
        let surplus = (had as u64 + self.count - counted).saturating_sub(chunk.count() as u64);
        if chunk.is_empty() {
            self.chunks.remove(&index);
        }
        self.count -= surplus;
        limits.refund(surplus);
        result
    }

    /// Copies up to `len` bytes of `src` to `offset`, but not beyond the chunk. Returns how many; ENOSPC.
    pub fn write(&mut self, offset: u64, len: usize, limits: &Limits, src: &mut dyn Source) -> Result<usize> {
        self.fill(offset, len, limits, &mut |buf| {
            let taken = src.take(buf)?;
            // Whatever a fault has left behind the bytes taken.
            buf[taken..].fill(0);
            Ok(taken)
        })
    }

    /// Makes the pages of `start..end` be there. ENOSPC, and EINTR if it `stops`; then those that were made stay.
    pub fn allocate(
        &mut self,
        start: u64,
        end: u64,
        limits: &Limits,
        stops: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let done = self.fill(at, len, limits, &mut |buf| Ok(buf.len()))?;
            at += done as u64;
            if at < end && stops() {
                return Err(Errno::EINTR);
            }
        }
        Ok(())
    }

    /// Makes `start..end` read as zero, and drops the pages that lie within.
    pub fn punch(&mut self, start: u64, end: u64, limits: &Limits) {
        let (first, last) = (split(start).0, split(end.saturating_sub(1)).0);
        if start >= end {
            return;
        }
        let mut emptied = Vec::new();
        let mut dropped = 0;
        for (&index, chunk) in self.chunks.range_mut(first..=last) {
            let from = if index == first { split(start).1 } else { 0 };
            let to = if index == last { split(end - 1).1 + 1 } else { CHUNK };
            let before = chunk.count();
            if from == 0 && to == CHUNK {
                *chunk = Chunk::Run(Vec::new());
            } else {
                chunk.punch(from, to);
            }
            dropped += before - chunk.count();
            if chunk.is_empty() {
                emptied.push(index);
            }
        }
        for index in emptied {
            self.chunks.remove(&index);
        }
        self.count = self.count.saturating_sub(dropped as u64);
        limits.refund(dropped as u64);
        heap::freed((dropped * PAGE) as u64);
    }

    /// The first offset from `offset` on that is in a page, or in a hole if not `data`. `None`: none before `size`.
    pub fn seek(&self, offset: u64, size: u64, data: bool) -> Option<u64> {
        let mut at = offset;
        while at < size {
            let (index, inside) = split(at);
            let Some(chunk) = self.chunks.get(&index) else {
                if !data {
                    return Some(at);
                }
                // The next chunk that is there.
                at = self.chunks.range(index..).next()?.0 * CHUNK as u64;
                continue;
            };
            let start = index * CHUNK as u64;
            if let Some(page) = (inside / PAGE..PAGES).find(|&page| chunk.has(page) == data) {
                let found = at.max(start + (page * PAGE) as u64);
                return if found < size { Some(found) } else { (!data).then_some(size) };
            }
            at = start + CHUNK as u64;
        }
        (!data && offset < size).then_some(size)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Before the chunks are, but the host is told later anyway.
        heap::freed(self.count * PAGE as u64);
    }
}
