//! Open files and directories of tmpfs.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::fcntl::{FallocFlags, OpenFlags, SEEK_DATA, SEEK_END, SEEK_HOLE, Seals};
use abi::{Errno, Result};

use super::TmpInode;
use super::data::{Data, Mapping};
use crate::fs::access_time::AccessTime;
use crate::vfs::{Dentry, DirSink, FileOps, Inode, Io, Mappable, Path, Sink, Source};

/// An open regular file.
pub struct TmpFile {
    inode: Arc<TmpInode>,
    data: Arc<Data>,
    access: AccessTime,
    dentry: Arc<Dentry>,
}

impl TmpFile {
    pub(super) fn new(inode: Arc<TmpInode>, data: Arc<Data>, path: &Path, flags: OpenFlags) -> TmpFile {
        TmpFile { inode, data, access: AccessTime::new(path, flags), dentry: path.dentry().clone() }
    }

    /// F_GET_SEALS.
    pub fn seals(&self) -> Seals {
        self.data.seals()
    }

    /// F_ADD_SEALS, on a descriptor that is open for writing. EPERM, EBUSY.
    pub fn add_seals(&self, seals: Seals) -> Result<()> {
        self.data.add_seals(seals, self.inode.is_executable())
    }
}

impl FileOps for TmpFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        let read = self.data.read(dst, offset)?;
        self.inode.accessed(&self.access);
        Ok(read)
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        let written = self.data.write(src, io.append, offset)?;
        if written > 0 {
            self.inode.modified();
        }
        Ok(written)
    }

    fn seek(&self, whence: u32, offset: i64) -> Result<u64> {
        match whence {
            SEEK_END => {
                let size = i64::try_from(self.data.size()).map_err(|_| Errno::EINVAL)?;
                let end = size.checked_add(offset).ok_or(Errno::EINVAL)?;
                u64::try_from(end).map_err(|_| Errno::EINVAL)
            }
            SEEK_DATA | SEEK_HOLE => self.data.seek(whence, u64::try_from(offset).map_err(|_| Errno::ENXIO)?),
            _ => Err(Errno::EINVAL),
        }
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        Ok(Mapping::new(self.data.clone(), self.dentry.object()))
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.inode.resize(size)
    }

    fn allocate(&self, io: &Io<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        self.data.allocate(mode, offset, len, &|| io.task.is_some_and(|task| task.is_killed()))?;
        self.inode.modified();
        Ok(())
    }

    fn flags_changed(&self, flags: OpenFlags) {
        self.access.flags_changed(flags);
    }

    fn anonymous_name(&self) -> String {
        format!("/{} (deleted)", String::from_utf8_lossy(&self.dentry.name()))
    }
}

/// An open directory.
pub struct TmpDirectory {
    inode: Arc<TmpInode>,
    dentry: Arc<Dentry>,
    access: AccessTime,
    /// Entries from this offset on came after the listing had begun, and are left out: a program that renames what it
    /// lists would never come to an end.
    end: AtomicU64,
}

impl TmpDirectory {
    pub(super) fn new(inode: Arc<TmpInode>, path: &Path, flags: OpenFlags) -> TmpDirectory {
        let (dentry, access) = (path.dentry().clone(), AccessTime::new(path, flags));
        TmpDirectory { inode, dentry, access, end: 0.into() }
    }
}

impl FileOps for TmpDirectory {
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
        let own = self.inode.ino();
        let parent = self.dentry.parent().map_or(own, |parent| parent.inode().ino());
        let mut at = match sink.dots(offset, own, parent) {
            Ok(at) => at,
            Err(full) => return Ok(full),
        };
        let entries = self.inode.entries()?;
        if offset == 0 || self.end.load(Ordering::Relaxed) == 0 {
            self.end.store(entries.end(), Ordering::Relaxed);
        }
        let end = self.end.load(Ordering::Relaxed);
        while let Some((offset, name, inode)) = entries.from(at).filter(|&(offset, ..)| offset < end) {
            if !sink.entry(offset + 1, inode.ino(), inode.file_type(), name) {
                break;
            }
            at = offset + 1;
        }
        drop(entries);
        self.inode.accessed(&self.access);
        Ok(at)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn flags_changed(&self, flags: OpenFlags) {
        self.access.flags_changed(flags);
    }
}
