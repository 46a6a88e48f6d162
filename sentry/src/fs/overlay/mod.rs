//! OverlayFS: a writable layer over read-only ones (Documentation/filesystems/overlayfs.rst).
//!
//! The layers are filesystems of any kind. What the guest changes is copied to the upper layer first, with the
//! directories above it; what it removes is hidden by a *whiteout*, a character device 0:0; a directory in the upper
//! layer that hides one below is *opaque*. The formats on the upper layer are Linux's, so that a directory written by
//! one can be read by the other. Not done, as in Linux's default: renaming directories that have a lower part (EXDEV),
//! and keeping hard links of a lower layer together when one of their names is written to.
//!
//! Everything that takes more than one step is prepared in a work directory of the upper layer, and put in its place by
//! one rename.
//!
//! An inode keeps its number when it is copied up, and as long as the filesystem is mounted. Only what has several hard
//! links in a lower layer gets a new one, as in Linux: it is another file from then on.
//!
//! Lock order: the VFS's directory locks → `OverlayInode::place` (a child's before its parent's) → the layers' own locks
//! and `origins`. A copy-up works in directories that the VFS has not locked: layers must cope with that.

mod copy_up;
mod directory;
mod file;
mod inode;
mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::fcntl::RenameFlags;
use abi::stat::{FileType, OVERLAYFS_SUPER_MAGIC};
use abi::{Errno, Result};
use parking_lot::Mutex;

pub use inode::OverlayInode;

use crate::vfs::{
    Dentry, Entry, FileSystem, FsStatus, Inode, Mount, MountFlags, NewInode, NewKind, Path, SetAttributes,
    SuperBlock, Target, TimeUpdate,
};

/// Marks a directory of the upper layer that hides those below.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// The names of the overlay's own attributes begin so.
const PRIVATE: &[u8] = b"trusted.overlay.";
/// What the guest calls [`PRIVATE`], for an overlay within the overlay, is kept under this name.
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";

/// Inode numbers of a layer have this many bits; the nine above tell the layer.
const INO_BITS: u32 = 54;

/// The most lower layers. The last number of a layer stands for none.
const LOWERS_MAX: usize = 500;

/// A directory of some filesystem.
#[derive(Clone)]
pub struct Layer {
    /// The filesystem.
    pub fs: Arc<dyn FileSystem>,
    /// The directory.
    pub root: Arc<dyn Inode>,
}

impl Layer {
    /// All of a filesystem.
    pub fn whole(fs: Arc<dyn FileSystem>) -> Layer {
        let root = fs.root();
        Layer { fs, root }
    }
}

/// The writable layer.
#[derive(Clone)]
pub struct Upper {
    /// What was changed.
    pub layer: Layer,
    /// An empty directory of the same filesystem, where changes are prepared.
    pub work: Arc<dyn Inode>,
}

impl Upper {
    /// Makes or finds directories `upper` and `work` in the root of a filesystem. A new upper directory gets the owner,
    /// mode and times of the lower one.
    pub fn on(fs: Arc<dyn FileSystem>, lower: &Layer) -> Result<Upper> {
        let root = fs.root();
        let like = lower.root.attributes()?;
        let make = |name: &[u8], mode| match root.lookup(name) {
            Err(Errno::ENOENT) => {
                let new = NewInode { kind: NewKind::Directory, mode, uid: like.uid, gid: like.gid };
                root.create(name, &new).map(|inode| (inode, true))
            }
            found => found.map(|inode| (inode, false)),
        };
        let (upper, new) = make(b"upper", like.mode & 0o7777)?;
        if new {
            upper.set_attributes(&SetAttributes {
                atime: Some(TimeUpdate::At(like.atime)),
                mtime: Some(TimeUpdate::At(like.mtime)),
                ..SetAttributes::default()
            })?;
        }
        let (work, _) = make(b"work", 0)?;
        Ok(Upper { layer: Layer { fs, root: upper }, work })
    }
}

/// What all inodes of an overlay share.
struct Shared {
    upper: Option<Upper>,
    /// From the topmost down.
    lowers: Vec<Layer>,
    /// Numbers of files that were copied up, by their number in the upper layer.
    origins: Mutex<HashMap<u64, u64>>,
    /// Names in the work directory.
    next_name: AtomicU64,
    next_ino: AtomicU64,
    /// Where layers' inodes are opened for the overlay's own purposes. Access times stay what they are.
    own: Arc<Mount>,
    cacheable: bool,
}

/// An overlay.
pub struct Overlay {
    shared: Arc<Shared>,
    root: Arc<OverlayInode>,
}

impl Overlay {
    /// Puts layers together, the lower ones from the topmost down (at most 500). Without an upper one nothing can be
    /// changed: EROFS. EINVAL without lower layers. A single lower layer can also be a file (a bind mount of one).
    pub fn new(upper: Option<Upper>, lowers: Vec<Layer>) -> Result<Arc<Overlay>> {
        let first = lowers.first().filter(|_| lowers.len() <= LOWERS_MAX).ok_or(Errno::EINVAL)?;
        let own = Mount::new(SuperBlock::make(first.fs.clone()), MountFlags::NOATIME, b"overlay");
        let roots = lowers.iter().chain(upper.as_ref().map(|u| &u.layer));
        // What is only changed by the overlay itself may be remembered.
        let cacheable = lowers.iter().all(|layer| layer.root.lookups_cacheable());
        let file = lowers.len() == 1 && first.root.file_type() == FileType::Regular;
        if !file && roots.clone().any(|layer| layer.root.file_type() != FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        let shared = Arc::new(Shared {
            upper,
            lowers,
            origins: Mutex::default(),
            next_name: AtomicU64::new(1),
            next_ino: AtomicU64::new(1),
            own,
            cacheable,
        });
        let root = OverlayInode::root(&shared)?;
        Ok(Arc::new(Overlay { shared, root }))
    }
}

impl Shared {
    /// EROFS without an upper layer.
    fn upper(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Errno::EROFS)
    }

    /// What the guest sees as the number of an inode of a layer. The first lower layer's stay as they are.
    fn ino(&self, layer: usize, ino: u64) -> u64 {
        let layer = layer as u64;
        if ino >> INO_BITS == 0 {
            return layer << INO_BITS | ino;
        }
        // As good as unique; the top bit keeps it apart from those above.
        (ino ^ layer << INO_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63
    }

    /// A number that no inode of a layer has.
    fn own_ino(&self) -> u64 {
        0x1ff << INO_BITS | self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// The upper layer's place among the layers.
    fn upper_index(&self) -> usize {
        self.lowers.len()
    }

    /// The number of an inode of the upper layer that is no directory with a lower part.
    fn upper_ino(&self, ino: u64) -> u64 {
        let origin = self.origins.lock().get(&ino).copied();
        origin.unwrap_or_else(|| self.ino(self.upper_index(), ino))
    }

    /// A place at which to open a layer's inode.
    fn own_path(&self, inode: &Arc<dyn Inode>) -> Path {
        Path::new(self.own.clone(), Dentry::anonymous(self.own.superblock(), inode.clone(), b""))
    }

    /// Makes something under a new name in the work directory.
    fn in_work<T>(&self, make: impl Fn(&Arc<dyn Inode>, &[u8]) -> Result<T>) -> Result<(Vec<u8>, T)> {
        let work = &self.upper()?.work;
        loop {
            let name = format!("#{}", self.next_name.fetch_add(1, Ordering::Relaxed)).into_bytes();
            match make(work, &name) {
                // Left by somebody who did not come to an end.
                Err(Errno::EEXIST) => {}
                result => return result.map(|made| (name, made)),
            }
        }
    }

    /// Makes something in the work directory, hands it to `fill`, and puts it in its place: a name that is free, or
    /// that `replaced` has (a whiteout, or what is to become one). What was replaced is gone afterwards.
    fn put(
        &self,
        new: &NewInode,
        fill: impl FnOnce(&Arc<dyn Inode>) -> Result<()>,
        dir: &Arc<dyn Inode>,
        name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        let work = &self.upper()?.work;
        let (work_name, made) = self.in_work(|work, name| work.create(name, new))?;
        let is_dir = made.file_type() == FileType::Directory;
        // A directory is not replaced by something else, or the other way round: they change places.
        let exchange = replaced.is_some_and(|r| is_dir || r.file_type() == FileType::Directory);
        let flags = if exchange { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::empty() };
        let source = Entry { name: &work_name, inode: &made };
        let placed =
            fill(&made).and_then(|()| work.rename(source, dir, Target { name, inode: replaced }, flags));
        let left = match (&placed, replaced) {
            (Err(_), _) => Some(&made),
            (Ok(()), Some(replaced)) if exchange => Some(replaced),
            _ => None,
        };
        if let Some(left) = left
            && let Err(error) = self.discard(work, &work_name, left)
        {
            tracing::warn!(%error, "overlay: something stays in the work directory");
        }
        placed.map(|()| made)
    }

    /// Removes something that only whiteouts are in, if it is a directory.
    fn discard(&self, dir: &Arc<dyn Inode>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
        if inode.file_type() != FileType::Directory {
            return dir.unlink(name, inode);
        }
        self.clear(inode)?;
        dir.rmdir(name, inode)
    }

    /// Removes all whiteouts of a directory of the upper layer. Nothing else is in it.
    fn clear(&self, dir: &Arc<dyn Inode>) -> Result<()> {
        for (_, _, name) in directory::entries(self, dir)? {
            let inode = dir.lookup(&name)?;
            dir.unlink(&name, &inode)?;
        }
        Ok(())
    }
}

fn whiteout() -> NewInode {
    NewInode { kind: NewKind::CharDevice(0), mode: 0, uid: 0, gid: 0 }
}

fn is_whiteout(inode: &Arc<dyn Inode>) -> Result<bool> {
    Ok(inode.file_type() == FileType::CharDevice && inode.attributes()?.rdev == 0)
}

fn is_opaque(dir: &Arc<dyn Inode>) -> Result<bool> {
    match dir.xattr(OPAQUE) {
        Ok(value) => Ok(value == b"y"),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

fn set_opaque(dir: &Arc<dyn Inode>) -> Result<()> {
    dir.set_xattr(OPAQUE, b"y", false, false)
}

impl FileSystem for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        let layers = self.shared.upper.iter().map(|u| &u.layer).chain(&self.shared.lowers);
        let top = layers.map(|layer| layer.fs.status()).next().unwrap_or_else(|| Ok(FsStatus::default()))?;
        Ok(FsStatus { magic: OVERLAYFS_SUPER_MAGIC, ..top })
    }

    fn sync(&self) -> Result<()> {
        match &self.shared.upper {
            Some(upper) => upper.layer.fs.sync(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
