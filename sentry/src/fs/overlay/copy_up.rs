//! Copying to the upper layer what is about to be changed.

use std::sync::Arc;

use abi::fcntl::{OpenFlags, SEEK_DATA, SEEK_HOLE};
use abi::stat::FileType;
use abi::{Errno, Result};

use super::inode::OverlayInode;
use super::{ESCAPED, PRIVATE, Shared};
use crate::vfs::io::{CHUNK, SliceSource};
use crate::vfs::{
    Attributes, FileOps, Inode, Io, NewInode, NewKind, SetAttributes, Sink, Source, TimeUpdate,
};

impl OverlayInode {
    /// The inode of the upper layer, made now if there is none: a copy, of a file up to `size` only, together with the
    /// directories above it. EROFS without an upper layer, and what writing to it can say.
    pub(super) fn copy_up(&self, size: Option<u64>) -> Result<&Arc<dyn Inode>> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        self.shared.upper()?;
        // The directories above, from the top down; in a loop, because they may be more than the stack is deep.
        let above = |inode: &OverlayInode| inode.place.lock().as_ref().map(|place| place.parent.clone());
        let mut missing = Vec::new();
        let mut next = above(self);
        while let Some(dir) = next.filter(|dir| dir.upper.get().is_none()) {
            next = above(&dir);
            missing.push(dir);
        }
        while let Some(dir) = missing.pop() {
            dir.copy_one(None)?;
        }
        self.copy_one(size)
    }

    /// As [`OverlayInode::copy_up`], of something whose parent is in the upper layer.
    fn copy_one(&self, size: Option<u64>) -> Result<&Arc<dyn Inode>> {
        let mut place = self.place.lock();
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let shared = &self.shared;
        let lower = &self.lowers().first().ok_or(Errno::EIO)?.inode;
        let attributes = lower.attributes()?;
        let new = NewInode {
            kind: kind(lower, &attributes)?,
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
        };
        let fill = |made: &Arc<dyn Inode>| shared.fill(lower, &attributes, made, size);
        let made = match &*place {
            Some(at) => {
                let dir = at.parent.upper.get().ok_or(Errno::EIO)?;
                let before = dir.attributes()?;
                let made = shared.put(&new, fill, dir, &at.name, None)?;
                // To the guest, nothing has happened in the directory.
                keep_times(dir, &before)?;
                made
            }
            // It has lost its name and is only open by now, or is a file that is mounted by itself.
            None if self.file_type() != FileType::Regular => return Err(Errno::ENOENT),
            None => {
                let made = shared.upper()?.work.create_unnamed(&new)?;
                fill(&made)?;
                made
            }
        };
        if !self.linked && self.file_type() != FileType::Directory {
            shared.origins.lock().insert(made.ino(), self.ino());
        }
        let old_place = place.take();
        let upper = self.upper.get_or_init(|| made);
        drop(place);
        drop(old_place);
        Ok(upper)
    }
}

fn kind(inode: &Arc<dyn Inode>, attributes: &Attributes) -> Result<NewKind> {
    Ok(match inode.file_type() {
        FileType::Regular => NewKind::Regular,
        FileType::Directory => NewKind::Directory,
        FileType::Symlink => NewKind::Symlink(inode.readlink(&Io::default())?),
        FileType::Fifo => NewKind::Fifo,
        FileType::Socket => NewKind::Socket,
        FileType::CharDevice => NewKind::CharDevice(attributes.rdev),
        FileType::BlockDevice => NewKind::BlockDevice(attributes.rdev),
    })
}

fn keep_times(inode: &Arc<dyn Inode>, times: &Attributes) -> Result<()> {
    inode.set_attributes(&SetAttributes {
        atime: Some(TimeUpdate::At(times.atime)),
        mtime: Some(TimeUpdate::At(times.mtime)),
        ..SetAttributes::default()
    })
}

impl Shared {
    /// Makes `made` a copy of `lower`, but for what it was created with.
    fn fill(
        &self,
        lower: &Arc<dyn Inode>,
        attributes: &Attributes,
        made: &Arc<dyn Inode>,
        size: Option<u64>,
    ) -> Result<()> {
        for name in lower.xattr_names()? {
            if name.starts_with(PRIVATE) && !name.starts_with(ESCAPED) {
                continue;
            }
            match made.set_xattr(&name, &lower.xattr(&name)?, false, false) {
                // An attribute that the upper layer has no room for by its nature.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        if lower.file_type() == FileType::Regular {
            let size = size.unwrap_or(u64::MAX).min(attributes.size);
            if size > 0 {
                self.copy_data(lower, made, size)?;
            }
        }
        // A host takes set-id bits away when contents are written.
        let set_id = (attributes.mode & 0o6000 != 0).then_some(attributes.mode & 0o7777);
        if set_id.is_some() {
            made.set_attributes(&SetAttributes { mode: set_id, ..SetAttributes::default() })?;
        }
        keep_times(made, attributes)
    }

    /// Copies the first `size` bytes, but no holes.
    fn copy_data(&self, lower: &Arc<dyn Inode>, made: &Arc<dyn Inode>, size: u64) -> Result<()> {
        let io = Io::default();
        let from = lower.open(&io, &self.own_path(lower), OpenFlags::empty())?;
        let to = made.open(&io, &self.own_path(made), OpenFlags::O_WRONLY)?;
        let seek = |whence, at| match i64::try_from(at).map(|at| from.seek(whence, at)) {
            Ok(Ok(found)) => Some(found.min(size)),
            // Nothing but a hole behind.
            Ok(Err(Errno::ENXIO)) => None,
            // It knows nothing of holes.
            _ => Some(if whence == SEEK_DATA { at } else { size }),
        };
        let mut at = 0;
        while let Some(start) = seek(SEEK_DATA, at).filter(|&start| start < size) {
            let end = seek(SEEK_HOLE, start).unwrap_or(size);
            let mut copy = Copy { to: &*to, at: start, end, error: None };
            while copy.at < end {
                let before = copy.at;
                let result = from.read(&io, &mut copy, before);
                if let Some(error) = copy.error {
                    return Err(error);
                }
                if result? == 0 {
                    break;
                }
            }
            if copy.at <= at {
                break;
            }
            at = copy.at;
        }
        if at < size {
            made.set_attributes(&SetAttributes { size: Some(size), ..SetAttributes::default() })?;
        }
        Ok(())
    }
}

/// Takes what is read from one file and writes it to another.
struct Copy<'a> {
    to: &'a dyn FileOps,
    at: u64,
    end: u64,
    /// Why nothing more could be written.
    error: Option<Errno>,
}

impl Sink for Copy<'_> {
    fn remaining(&self) -> usize {
        usize::try_from(self.end - self.at).unwrap_or(CHUNK).min(CHUNK)
    }

    fn put(&mut self, data: &[u8]) -> Result<usize> {
        let mut source = SliceSource::new(data);
        while source.remaining() > 0 {
            let mut at = self.at;
            match self.to.write(&Io::default(), &mut source, &mut at) {
                Ok(n) if n > 0 => self.at += n as u64,
                Ok(_) => self.error = Some(Errno::EIO),
                Err(e) => self.error = Some(e),
            }
            if let Some(error) = self.error {
                return Err(error);
            }
        }
        Ok(data.len())
    }
}
