//! tmpfs: files in memory (mm/shmem.c, tmpfs(5)).
//!
//! Lock order: a directory's entries (two directories: by inode number; then a directory that is removed) → an inode's
//! metadata. [`data::Data`] is locked alone.

pub mod data;
mod directory;
mod file;
mod heap;
mod inode;
mod options;
pub mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::fcntl::Seals;
use abi::stat::TMPFS_MAGIC;
use abi::{Errno, Result};

pub use file::TmpFile;
pub use inode::TmpInode;
pub use options::TmpfsOptions;

use crate::vfs::{FileSystem, FsStatus, Inode, NewInode, NewKind};
use pages::PAGE;

/// What one inode's worth of extended attributes may take in bytes (BOGO_INODE_SIZE).
const INODE_SPACE: u64 = 1024;

/// How much a filesystem may use. All zero limits mean none.
#[derive(Debug, Default)]
pub struct Limits {
    pages_max: AtomicU64,
    pages: AtomicU64,
    inodes_max: AtomicU64,
    inodes: AtomicU64,
    /// Bytes of extended attributes; they take from what the inodes may take.
    xattrs: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64, max: u64) -> Result<()> {
    let fits = |used: u64| used.checked_add(count).filter(|&used| max == 0 || used <= max);
    counter.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).map_err(|_| Errno::ENOSPC)?;
    Ok(())
}

fn subtract(counter: &AtomicU64, count: u64) {
    let _ =
        counter.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| Some(used.saturating_sub(count)));
}

impl Limits {
    /// Uses `pages` more. ENOSPC.
    pub fn charge(&self, pages: u64) -> Result<()> {
        add(&self.pages, pages, self.pages_max.load(Ordering::Relaxed))
    }

    /// Uses `pages` less.
    pub fn refund(&self, pages: u64) {
        subtract(&self.pages, pages);
    }

    /// ENOSPC if `pages` more are not to be had.
    pub fn check(&self, pages: u64) -> Result<()> {
        let max = self.pages_max.load(Ordering::Relaxed);
        let used = self.pages.load(Ordering::Relaxed);
        if max != 0 && used.saturating_add(pages) > max { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// What was `before` pages turned out to be `after`, whether there is room or not.
    pub fn correct(&self, before: u64, after: u64) {
        if after > before {
            self.pages.fetch_add(after - before, Ordering::AcqRel);
        } else {
            subtract(&self.pages, before - after);
        }
    }

    fn inodes_free(&self) -> u64 {
        let max = self.inodes_max.load(Ordering::Relaxed);
        let used = self.inodes.load(Ordering::Relaxed) + self.xattrs.load(Ordering::Relaxed) / INODE_SPACE;
        max.saturating_sub(used)
    }

    /// Uses one inode more; ENOSPC. A further name of a file counts as one too, because it takes a dentry.
    fn add_inode(&self) -> Result<()> {
        if self.inodes_max.load(Ordering::Relaxed) != 0 && self.inodes_free() == 0 {
            return Err(Errno::ENOSPC);
        }
        add(&self.inodes, 1, self.inodes_max.load(Ordering::Relaxed))
    }

    fn drop_inode(&self) {
        subtract(&self.inodes, 1);
    }

    /// The extended attributes of an inode take `after` bytes instead of `before`. ENOSPC.
    fn charge_xattrs(&self, before: u64, after: u64) -> Result<()> {
        if after <= before {
            subtract(&self.xattrs, before - after);
            return Ok(());
        }
        let max = self.inodes_max.load(Ordering::Relaxed);
        let inodes = self.inodes.load(Ordering::Relaxed).saturating_mul(INODE_SPACE);
        // Full with inodes is not the same as without a limit.
        let room = if max == 0 { 0 } else { max.saturating_mul(INODE_SPACE).saturating_sub(inodes).max(1) };
        add(&self.xattrs, after - before, room)
    }
}

/// What all inodes of a filesystem share.
struct Shared {
    limits: Arc<Limits>,
    last_ino: AtomicU64,
    /// See [`FileSystem::become_layer`].
    layer: AtomicBool,
}

/// A tmpfs.
pub struct Tmpfs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
    options: parking_lot::Mutex<TmpfsOptions>,
}

impl Tmpfs {
    /// An empty filesystem.
    pub fn new(options: &TmpfsOptions) -> Arc<Tmpfs> {
        let limits = Limits::default();
        limits.pages_max.store(options.pages(), Ordering::Relaxed);
        limits.inodes_max.store(options.inodes, Ordering::Relaxed);
        let shared = Arc::new(Shared { limits: Arc::new(limits), last_ino: 0.into(), layer: false.into() });
        // The root is there however few inodes are allowed.
        let _ = shared.limits.add_inode();
        let (mode, uid, gid) = (options.mode, options.uid, options.gid);
        let new = NewInode { kind: NewKind::Directory, mode, uid, gid };
        let root = TmpInode::new(&shared, &new);
        Arc::new(Tmpfs { shared, root, options: parking_lot::Mutex::new(options.clone()) })
    }

    /// The root, as what it is.
    pub fn root_inode(&self) -> &Arc<TmpInode> {
        &self.root
    }

    /// A regular file without a name, with seals: memfd_create(2).
    pub fn sealed_file(&self, mode: u32, uid: u32, gid: u32, seals: Seals) -> Result<Arc<TmpInode>> {
        self.shared.limits.add_inode()?;
        Ok(TmpInode::unnamed(&self.shared, &NewInode { kind: NewKind::Regular, mode, uid, gid }, seals))
    }
}

impl FileSystem for Tmpfs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        let limits = &self.shared.limits;
        let blocks = limits.pages_max.load(Ordering::Relaxed);
        let free = blocks.saturating_sub(limits.pages.load(Ordering::Relaxed));
        Ok(FsStatus {
            magic: TMPFS_MAGIC,
            block_size: PAGE as u64,
            blocks,
            blocks_free: free,
            blocks_available: free,
            files: limits.inodes_max.load(Ordering::Relaxed),
            files_free: limits.inodes_free(),
            name_max: crate::vfs::walk::NAME_MAX as u64,
        })
    }

    fn become_layer(&self) {
        self.shared.layer.store(true, Ordering::Relaxed);
    }

    /// New limits; mode and owner of the root stay. EINVAL if more than that is used, or if a limit is to be set where
    /// there was none.
    fn reconfigure(&self, data: &[u8]) -> Result<()> {
        let limits = &self.shared.limits;
        let mut options = self.options.lock();
        let new = options.clone().parse(data, options.memory())?;
        let fits = |old: u64, new: u64, used: u64| old == new || new == 0 || (old != 0 && used <= new);
        let pages = limits.pages.load(Ordering::Relaxed);
        let inodes = limits.inodes.load(Ordering::Relaxed);
        if !fits(options.pages(), new.pages(), pages) || !fits(options.inodes, new.inodes, inodes) {
            return Err(Errno::EINVAL);
        }
        limits.pages_max.store(new.pages(), Ordering::Relaxed);
        limits.inodes_max.store(new.inodes, Ordering::Relaxed);
        (options.size, options.inodes) = (new.size, new.inodes);
        Ok(())
    }

    fn options(&self) -> String {
        self.options.lock().to_string()
    }
}

#[cfg(test)]
mod tests;
