//! Open files and directories of the gofer filesystem.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::fcntl::{OpenFlags, SEEK_DATA, SEEK_END, SEEK_HOLE};
use abi::{Errno, Result};
use gofer::client::DirBatch;
use gofer::protocol::SyncScope;
use nix::fcntl::FallocateFlags;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::Whence;
use parking_lot::Mutex;
use platform::Prot;

use super::inode::{GoferInode, Purpose};
use crate::fs::access_time::AccessTime;
use crate::vfs::io::CHUNK;
use crate::vfs::{Dentry, DirSink, FileOps, Inode, Io, Mappable, ObjectId, Path, Sink, Source};

/// An open regular file.
pub struct GoferFile {
    inode: Arc<GoferInode>,
    access: AccessTime,
    object: ObjectId,
    /// What `open` was given; keeps the descriptor from being opened again.
    fd: Arc<OwnedFd>,
    /// O_DSYNC.
    synchronous: AtomicBool,
}

fn signed(offset: u64, error: Errno) -> Result<i64> {
    i64::try_from(offset).map_err(|_| error)
}

impl GoferFile {
    pub(super) fn new(inode: Arc<GoferInode>, path: &Path, flags: OpenFlags) -> Result<GoferFile> {
        let fd = if flags.writable() { inode.file(Purpose::Write)? } else { inode.readable()? };
        Ok(GoferFile {
            inode,
            access: AccessTime::new(path, flags),
            object: path.dentry().object(),
            fd,
            synchronous: flags.contains(OpenFlags::O_DSYNC).into(),
        })
    }

    /// One piece of a write; `at` becomes the place.
    fn write_piece(&self, data: &[u8], append: bool, at: &mut u64) -> Result<usize> {
        if !append {
            return Ok(pwrite(&self.fd, data, signed(*at, Errno::EFBIG)?)?);
        }
        // On Linux, pwrite to a description with O_APPEND appends.
        let fd = self.inode.file(Purpose::Append)?;
        let _turn = self.inode.writing.lock();
        let n = pwrite(&fd, data, 0)?;
        let end = u64::try_from(nix::sys::stat::fstat(&fd)?.st_size).unwrap_or(0);
        *at = end.saturating_sub(n as u64);
        Ok(n)
    }
}

impl FileOps for GoferFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        // No larger a buffer than the file needs, if that is known.
        let most = self.inode.known().map_or(u64::MAX, |known| known.size.saturating_sub(offset));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(dst.remaining());
        let mut buf = vec![0; most.min(CHUNK)];
        let mut total = 0;
        while total < most {
            let piece = buf.len().min(most - total);
            let n = match pread(&self.fd, &mut buf[..piece], signed(offset + total as u64, Errno::EINVAL)?) {
                Ok(n) => n,
                Err(e) if total == 0 => return Err(e.into()),
                Err(_) => break,
            };
            if n == 0 {
                break;
            }
            match dst.put(&buf[..n]) {
                Ok(put) => {
                    total += put;
                    if put < n || n < piece {
                        break;
                    }
                }
                Err(e) if total == 0 => return Err(e),
                Err(_) => break,
            }
        }
        let now = crate::time::now();
        self.inode.accessed(|a| self.access.is_due(a.atime, a.mtime, a.ctime, now));
        Ok(total)
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        let mut buf = vec![0; src.remaining().min(CHUNK)];
        let mut total = 0;
        let mut start = *offset;
        let result = loop {
            let wanted = src.remaining().min(CHUNK);
            if wanted == 0 {
                break Ok(());
            }
            let taken = match src.take(&mut buf[..wanted]) {
                Ok(taken) => taken,
                Err(e) => break Err(e),
            };
            let mut at = start.saturating_add(total as u64);
            match self.write_piece(&buf[..taken], io.append, &mut at) {
                Ok(n) => {
                    if total == 0 {
                        start = at;
                    }
                    total += n;
                    src.untake(taken - n);
                    if n < taken || taken < wanted {
                        break Ok(());
                    }
                }
                Err(e) => {
                    src.untake(taken);
                    break Err(e);
                }
            }
        };
        *offset = start;
        self.inode.changed();
        if total == 0 {
            return result.map(|()| 0);
        }
        if self.synchronous.load(Ordering::Relaxed) {
            nix::unistd::fdatasync(&self.fd)?;
        }
        Ok(total)
    }

    fn seek(&self, whence: u32, offset: i64) -> Result<u64> {
        match whence {
            SEEK_END => {
                let size = signed(self.inode.attributes()?.size, Errno::EINVAL)?;
                u64::try_from(size.checked_add(offset).ok_or(Errno::EINVAL)?).map_err(|_| Errno::EINVAL)
            }
            // The description's own offset is of no interest to anybody.
            SEEK_DATA | SEEK_HOLE => {
                let whence = if whence == SEEK_DATA { Whence::SeekData } else { Whence::SeekHole };
                let found = nix::unistd::lseek(&self.fd, offset, whence)?;
                u64::try_from(found).map_err(|_| Errno::ENXIO)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        Ok(Arc::new(Mapping { inode: self.inode.clone(), object: self.object }))
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        if data_only {
            nix::unistd::fdatasync(&self.fd)?;
        } else {
            nix::unistd::fsync(&self.fd)?;
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let size = signed(size, Errno::EFBIG)?;
        let _turn = self.inode.writing.lock();
        nix::unistd::ftruncate(&self.fd, size)?;
        self.inode.changed();
        Ok(())
    }

    fn allocate(&self, _io: &Io<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = i32::try_from(mode).map_err(|_| Errno::EOPNOTSUPP)?;
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let (offset, len) = (signed(offset, Errno::EFBIG)?, signed(len, Errno::EFBIG)?);
        nix::fcntl::fallocate(&self.fd, flags, offset, len)?;
        self.inode.changed();
        Ok(())
    }

    fn flags_changed(&self, flags: OpenFlags) {
        self.access.flags_changed(flags);
    }
}

/// A file's contents as something to map.
struct Mapping {
    inode: Arc<GoferInode>,
    object: ObjectId,
}

impl Mappable for Mapping {
    fn object(&self) -> ObjectId {
        self.object
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        if shared && prot.contains(Prot::WRITE) {
            self.inode.mapped();
            return Ok((self.inode.file(Purpose::Write)?, 0));
        }
        Ok((self.inode.file(Purpose::Read)?, 0))
    }

    fn known_size(&self) -> Option<u64> {
        self.inode.known().map(|attributes| attributes.size)
    }
}

/// Offsets of a listing: 0 is `.`, 1 is `..`, and from here on it is a cookie of the host's, moved by as much. Cookies
/// too large for that are those behind the last entry.
const FIRST: u64 = 2;

/// Bytes of entries asked for at once.
pub(super) const BATCH: u32 = 32 * 1024;

/// An open directory.
pub struct GoferDirectory {
    inode: Arc<GoferInode>,
    dentry: Arc<Dentry>,
    access: AccessTime,
    /// The last batch and the cookie it was asked for with: what did not fit the last time is wanted next.
    batch: Mutex<Option<(u64, DirBatch)>>,
}

impl GoferDirectory {
    pub(super) fn new(inode: Arc<GoferInode>, path: &Path, flags: OpenFlags) -> GoferDirectory {
        let (dentry, access) = (path.dentry().clone(), AccessTime::new(path, flags));
        GoferDirectory { inode, dentry, access, batch: Mutex::new(None) }
    }
}

fn to_offset(cookie: u64) -> u64 {
    cookie.saturating_add(FIRST).min(i64::MAX as u64)
}

fn to_cookie(offset: u64) -> u64 {
    if offset == i64::MAX as u64 { offset } else { offset - FIRST }
}

impl FileOps for GoferDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn read_dir(&self, _io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        if offset == 0 {
            // From the start: with what is there now.
            *self.batch.lock() = None;
        }
        let own = self.inode.ino();
        let parent = self.dentry.parent().map_or(own, |parent| parent.inode().ino());
        let mut at = match sink.dots(offset, own, parent) {
            Ok(at) => at,
            Err(full) => return Ok(full),
        };
        let mut full = false;
        while !full {
            let cookie = to_cookie(at);
            let kept = self
                .batch
                .lock()
                .take()
                .filter(|(_, kept)| cookie != 0 && kept.iter().any(|entry| entry.cookie == cookie));
            let (asked, batch) = match kept {
                Some(kept) => kept,
                None => (cookie, self.inode.read_dir(cookie, BATCH)?),
            };
            let mut entries = batch.iter();
            if asked != cookie {
                // Behind what was taken before.
                entries.by_ref().find(|entry| entry.cookie == cookie);
            }
            let mut any = false;
            for entry in entries {
                any = true;
                let (ino, file_type) = self.inode.describe(&entry)?;
                let next = to_offset(entry.cookie);
                if !sink.entry(next, ino, file_type, entry.name) {
                    full = true;
                    break;
                }
                at = next;
            }
            let end = batch.end;
            if full {
                *self.batch.lock() = Some((asked, batch));
            } else if end || (!any && asked == cookie) {
                break;
            }
        }
        let now = crate::time::now();
        self.inode.accessed(|a| self.access.is_due(a.atime, a.mtime, a.ctime, now));
        Ok(at)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.inode.sync(if data_only { SyncScope::Data } else { SyncScope::Node })
    }

    fn flags_changed(&self, flags: OpenFlags) {
        self.access.flags_changed(flags);
    }
}
