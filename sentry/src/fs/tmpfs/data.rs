//! The contents of a regular file in memory: plain memory until somebody maps it, a host file from then on.
//!
//! The host file is a [`MemoryFile`]; mappings go straight to it, and everything else is a host call: pread, pwrite,
//! ftruncate, fallocate, lseek and fstat. Stores through mappings allocate pages that only the host sees; they are
//! charged to the filesystem when it next looks, so that a size limit can be exceeded by mapped stores.
//!
//! Lock order: `contents` is a leaf, held while guest memory is read or written. Guest memory never is memory of
//! [`Pages`], so that cannot come back here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::fcntl::{FallocFlags, SEEK_DATA, Seals};
use abi::{Errno, Result};
use nix::unistd::Whence;
use parking_lot::{Mutex, RwLock};
use platform::Prot;

use super::Limits;
use super::pages::{PAGE, Pages};
use crate::mm::MemoryFile;
use crate::vfs::io::CHUNK;
use crate::vfs::{Mappable, ObjectId, Sink, Source};

/// The largest size of a file (MAX_LFS_FILESIZE).
pub const SIZE_MAX: u64 = i64::MAX as u64;

static ZEROES: [u8; CHUNK] = [0; CHUNK];

enum Contents {
    Memory(Pages),
    Host(MemoryFile),
}

/// The contents of a file.
pub struct Data {
    contents: RwLock<Contents>,
    /// Written with `contents` locked for writing.
    size: AtomicU64,
    /// Pages charged to the limits. Written with `contents` locked.
    pages: AtomicU64,
    limits: Arc<Limits>,
    seals: Mutex<Seals>,
    /// How many [`Mapping`]s have been given a writable descriptor.
    writable: AtomicU32,
}

impl Data {
    /// An empty file whose pages are charged to `limits`. Files without seals have `F_SEAL_SEAL`.
    pub fn new(limits: Arc<Limits>, seals: Seals) -> Data {
        Data {
            contents: RwLock::new(Contents::Memory(Pages::default())),
            size: 0.into(),
            pages: 0.into(),
            limits,
            seals: Mutex::new(seals),
            writable: 0.into(),
        }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Space in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        if let Some(contents) = self.contents.try_read()
            && let Contents::Host(file) = &*contents
        {
            self.settle(file);
        }
        self.pages.load(Ordering::Relaxed) * (PAGE as u64 / 512)
    }

    /// Charges what the host file takes by now.
    fn settle(&self, file: &MemoryFile) {
        let Ok(blocks) = file.blocks() else { return };
        let pages = blocks * 512 / PAGE as u64;
        let before = self.pages.swap(pages, Ordering::Relaxed);
        self.limits.correct(before, pages);
    }

    /// Reads at `offset`.
    pub fn read(&self, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        let contents = self.contents.read();
        let mut left = self.size().saturating_sub(offset).min(dst.remaining() as u64) as usize;
        let mut total = 0;
        let mut buf = Vec::new();
        while left > 0 {
            let at = offset + total as u64;
            let piece = match &*contents {
                Contents::Memory(pages) => match pages.at(at, left) {
                    (Some(bytes), _) => bytes,
                    (None, hole) => &ZEROES[..hole.min(CHUNK)],
                },
                Contents::Host(file) => {
                    buf.resize(left.min(CHUNK), 0);
                    let n = file.read_at(&mut buf, at)?;
                    buf.get(..n).unwrap_or(&[])
                }
            };
            match dst.put(piece) {
                Ok(n) => {
                    total += n;
                    left -= n;
                    if n < piece.len() || n == 0 {
                        break;
                    }
                }
                Err(e) if total == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Writes at `offset`, or at the end, which `offset` then becomes. ENOSPC, EFBIG, EPERM for seals.
    pub fn write(&self, src: &mut dyn Source, append: bool, offset: &mut u64) -> Result<usize> {
        let mut contents = self.contents.write();
        let size = self.size();
        if append {
            *offset = size;
        }
        if src.remaining() == 0 {
            return Ok(0);
        }
        let mut room = SIZE_MAX.checked_sub(*offset).filter(|&room| room > 0).ok_or(Errno::EFBIG)?;
        let seals = *self.seals.lock();
        if seals.intersects(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if seals.contains(Seals::F_SEAL_GROW) {
            // Page by page: the page that would reach beyond the end is refused as a whole.
            let end = offset.saturating_add(src.remaining() as u64);
            if end > size {
                let kept = size / PAGE as u64 * PAGE as u64;
                room = room.min(kept.checked_sub(*offset).filter(|&r| r > 0).ok_or(Errno::EPERM)?);
            }
        }
        let mut left = (src.remaining() as u64).min(room) as usize;
        let mut total = 0;
        let mut buf = Vec::new();
        let result = loop {
            if left == 0 {
                break Ok(());
            }
            let at = *offset + total as u64;
            let wanted = left.min(CHUNK - (at % CHUNK as u64) as usize);
            let written = match &mut *contents {
                Contents::Memory(pages) => pages.write(at, wanted, &self.limits, src),
                Contents::Host(file) => self.write_host(file, src, &mut buf, wanted, at, size),
            };
            match written {
                Ok(n) => {
                    total += n;
                    left -= n;
                    // Less than asked for: the reason is found by the next turn, if it lasts.
                    if n == 0 {
                        break Ok(());
                    }
                }
                Err(e) => break Err(e),
            }
        };
        match &*contents {
            Contents::Memory(pages) => self.pages.store(pages.count(), Ordering::Relaxed),
            Contents::Host(file) => self.settle(file),
        }
        self.size.fetch_max(*offset + total as u64, Ordering::AcqRel);
        if total > 0 { Ok(total) } else { result.map(|()| 0) }
    }

    fn write_host(
        &self,
        file: &MemoryFile,
        src: &mut dyn Source,
        buf: &mut Vec<u8>,
        wanted: usize,
        at: u64,
        size: u64,
    ) -> Result<usize> {
        // A guess on the safe side: inside the file there may be holes, and at the end the last page is there already.
        if at + wanted as u64 > size {
            self.limits.check(wanted.div_ceil(PAGE) as u64)?;
        }
        buf.resize(wanted, 0);
        let taken = src.take(buf)?;
        let mut done = 0;
        while done < taken {
            match file.write_at(&buf[done..taken], at + done as u64) {
                Ok(n) if n > 0 => done += n,
                Ok(_) => break,
                Err(e) if done == 0 => {
                    src.untake(taken);
                    return Err(e);
                }
                Err(_) => break,
            }
        }
        src.untake(taken - done);
        Ok(done)
    }

    /// ftruncate(2). EPERM for seals, EFBIG. Returns whether the size is another one now.
    pub fn resize(&self, size: u64) -> Result<bool> {
        if size > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let mut contents = self.contents.write();
        let before = self.size();
        let seals = *self.seals.lock();
        if (size < before && seals.contains(Seals::F_SEAL_SHRINK))
            || (size > before && seals.contains(Seals::F_SEAL_GROW))
        {
            return Err(Errno::EPERM);
        }
        match &mut *contents {
            Contents::Memory(pages) => {
                // Longer: what lies beyond the end is zero already. Else pages allocated beyond it go too.
                if size <= before {
                    pages.punch(size, u64::MAX, &self.limits);
                    self.pages.store(pages.count(), Ordering::Relaxed);
                }
            }
            Contents::Host(file) => {
                file.set_len(size)?;
                self.settle(file);
            }
        }
        self.size.store(size, Ordering::Release);
        Ok(size != before)
    }

    /// fallocate(2). EOPNOTSUPP but for plain allocation, KEEP_SIZE, and PUNCH_HOLE with KEEP_SIZE, as in tmpfs. `stops`
    /// is asked now and then: EINTR, and what is there stays.
    pub fn allocate(&self, mode: FallocFlags, offset: u64, len: u64, stops: &dyn Fn() -> bool) -> Result<()> {
        let punch = FallocFlags::FALLOC_FL_PUNCH_HOLE | FallocFlags::FALLOC_FL_KEEP_SIZE;
        if mode != punch && !(FallocFlags::FALLOC_FL_KEEP_SIZE.contains(mode)) {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let mut contents = self.contents.write();
        let size = self.size();
        let seals = *self.seals.lock();
        if mode == punch {
            if seals.intersects(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE) {
                return Err(Errno::EPERM);
            }
            match &mut *contents {
                Contents::Memory(pages) => {
                    pages.punch(offset, end, &self.limits);
                    self.pages.store(pages.count(), Ordering::Relaxed);
                }
                Contents::Host(file) => {
                    file.allocate(mode.bits() as i32, offset, len)?;
                    self.settle(file);
                }
            }
            return Ok(());
        }
        let grows = mode.is_empty() && end > size;
        if grows && seals.contains(Seals::F_SEAL_GROW) {
            return Err(Errno::EPERM);
        }
        // Before anything is allocated: what cannot be had at all is not had in part.
        let span = (end.div_ceil(PAGE as u64) - offset / PAGE as u64)
            .saturating_sub(self.pages.load(Ordering::Relaxed));
        self.limits.check(span)?;
        match &mut *contents {
            Contents::Memory(pages) => {
                let page = PAGE as u64;
                let result =
                    pages.allocate(offset / page * page, end.next_multiple_of(page), &self.limits, stops);
                self.pages.store(pages.count(), Ordering::Relaxed);
                result?;
            }
            Contents::Host(file) => {
                let result = allocate_host(file, mode, offset..end, stops);
                self.settle(file);
                result?;
            }
        }
        if grows {
            self.size.store(end, Ordering::Release);
        }
        Ok(())
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE. ENXIO beyond the end, or without data behind `offset`.
    pub fn seek(&self, whence: u32, offset: u64) -> Result<u64> {
        let contents = self.contents.read();
        let size = self.size();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let data = whence == SEEK_DATA;
        match &*contents {
            Contents::Memory(pages) => pages.seek(offset, size, data).ok_or(Errno::ENXIO),
            Contents::Host(file) => {
                let whence = if data { Whence::SeekData } else { Whence::SeekHole };
                let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                let found = nix::unistd::lseek(file.fd(), offset, whence)?;
                u64::try_from(found).map_err(|_| Errno::ENXIO)
            }
        }
    }

    /// The seals.
    pub fn seals(&self) -> Seals {
        *self.seals.lock()
    }

    /// F_ADD_SEALS, on a file open for writing. EPERM once sealed against sealing, EBUSY for F_SEAL_WRITE while the
    /// file is mapped shared and writable.
    pub fn add_seals(&self, mut new: Seals, executable: bool) -> Result<()> {
        // Keeps out writers in the middle of a write.
        let _contents = self.contents.write();
        let mut seals = self.seals.lock();
        if seals.contains(Seals::F_SEAL_SEAL) {
            return Err(Errno::EPERM);
        }
        if new.contains(Seals::F_SEAL_WRITE)
            && !seals.contains(Seals::F_SEAL_WRITE)
            && self.writable.load(Ordering::Acquire) > 0
        {
            return Err(Errno::EBUSY);
        }
        if new.contains(Seals::F_SEAL_EXEC) && executable {
            new |=
                Seals::F_SEAL_SHRINK | Seals::F_SEAL_GROW | Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE;
        }
        *seals |= new;
        Ok(())
    }

    /// Moves the contents to a host file, if they are not there yet.
    fn make_host(&self) -> Result<()> {
        let mut contents = self.contents.write();
        let Contents::Memory(pages) = &*contents else { return Ok(()) };
        let file = MemoryFile::new()?;
        let size = self.size();
        file.set_len(size)?;
        let mut at = 0;
        while let Some(start) = pages.seek(at, size, true) {
            let end = pages.seek(start, size, false).unwrap_or(size);
            at = start;
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(CHUNK);
                let (Some(bytes), run) = pages.at(at, len) else {
                    // The zeroes behind the last byte of a page that is there.
                    at += pages.at(at, len).1 as u64;
                    continue;
                };
                let mut done = 0;
                while done < run {
                    match file.write_at(&bytes[done..], at + done as u64)? {
                        0 => return Err(Errno::EIO),
                        n => done += n,
                    }
                }
                at += run as u64;
            }
        }
        self.settle(&file);
        *contents = Contents::Host(file);
        Ok(())
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        self.make_host()?;
        match &*self.contents.read() {
            Contents::Host(file) => file.host_fd(prot, shared),
            Contents::Memory(_) => Err(Errno::EIO),
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.limits.refund(*self.pages.get_mut());
    }
}

/// A file's contents as something to map. It counts as one writable mapping from when it has given out a writable
/// descriptor until it is dropped, which is when its last mapping goes.
pub struct Mapping {
    data: Arc<Data>,
    object: ObjectId,
    /// Counted in [`Data::writable`].
    writable: Mutex<bool>,
}

impl Mapping {
    /// Of the file `object`.
    pub fn new(data: Arc<Data>, object: ObjectId) -> Arc<Mapping> {
        Arc::new(Mapping { data, object, writable: Mutex::new(false) })
    }
}

impl Mappable for Mapping {
    fn object(&self) -> ObjectId {
        self.object
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        if shared && prot.contains(Prot::WRITE) {
            let mut writable = self.writable.lock();
            // With the lock that F_ADD_SEALS takes, so that either sees the other.
            let seals = self.data.seals.lock();
            if seals.intersects(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE) {
                return Err(Errno::EPERM);
            }
            if !std::mem::replace(&mut *writable, true) {
                self.data.writable.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.data.host_fd(prot, shared)
    }

    fn known_size(&self) -> Option<u64> {
        Some(self.data.size())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if *self.writable.get_mut() {
            self.data.writable.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Allocates memory of a host's file piece by piece.
fn allocate_host(
    file: &MemoryFile,
    mode: FallocFlags,
    range: std::ops::Range<u64>,
    stops: &dyn Fn() -> bool,
) -> Result<()> {
    const PIECE: u64 = 16 << 20;
    let mut at = range.start;
    while range.end - at > PIECE {
        file.allocate(FallocFlags::FALLOC_FL_KEEP_SIZE.bits() as i32, at, PIECE)?;
        at += PIECE;
        if stops() {
            return Err(Errno::EINTR);
        }
    }
    file.allocate(mode.bits() as i32, at, range.end - at)
}
