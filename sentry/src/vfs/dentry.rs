//! The dentry cache: names of directories, and what they were found to be.
//!
//! A directory's `children` lock is its lock in Linux's sense (i_rwsem): it is held over every lookup that asks the
//! filesystem and over every change. The map holds weak references; what keeps unused dentries alive is that each one
//! recently used refers to itself, until the superblock's budget runs out or its name is removed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::inode::{FileSystem, Inode, ObjectId};
use super::locks::LockTable;
use super::notify::WatchTable;
use super::special::SpecialTable;

/// How many dentries a superblock keeps that nobody uses.
const KEPT: usize = 16 * 1024;

/// How many absent names a directory remembers.
const ABSENT: usize = 256;

/// A mounted filesystem's instance, and the tables that belong to its inodes.
pub struct SuperBlock {
    dev: u64,
    fs: Arc<dyn FileSystem>,
    recent: Mutex<VecDeque<Weak<Dentry>>>,
    /// Inodes open for writing (positive) or being executed (negative), by number (i_writecount).
    busy: Mutex<HashMap<u64, i64>>,
    /// How many mounts there are of it.
    mounts: AtomicUsize,
    /// File locks, by inode number.
    pub locks: LockTable,
    /// Inotify watches, by inode number.
    pub watches: WatchTable,
    /// Pipes behind fifos and sockets behind socket names, by inode number.
    pub special: SpecialTable,
}

impl SuperBlock {
    /// Makes the superblock of `fs`, with a device number of its own, and returns its root.
    pub fn make(fs: Arc<dyn FileSystem>) -> Arc<Dentry> {
        // Major 0 is for filesystems without a device. Minors above 20 bits are not needed.
        static NEXT: AtomicU32 = AtomicU32::new(32);
        let dev = abi::stat::makedev(0, NEXT.fetch_add(1, Ordering::Relaxed));
        let root = fs.root();
        let superblock = Arc::new(SuperBlock {
            dev,
            fs,
            recent: Mutex::default(),
            busy: Mutex::default(),
            mounts: AtomicUsize::new(0),
            locks: LockTable::default(),
            watches: WatchTable::default(),
            special: SpecialTable::default(),
        });
        Dentry::new(superblock, root, None, b"")
    }

    /// The device number, as in `st_dev`.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// The filesystem.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// An inode is opened for writing. ETXTBSY while it is executed.
    pub(super) fn begin_write(&self, ino: u64) -> Result<()> {
        let mut busy = self.busy.lock();
        let count = busy.entry(ino).or_insert(0);
        if *count < 0 {
            return Err(Errno::ETXTBSY);
        }
        *count += 1;
        Ok(())
    }

    /// An inode is executed. ETXTBSY while it is open for writing.
    pub(super) fn begin_execution(&self, ino: u64) -> Result<()> {
        let mut busy = self.busy.lock();
        let count = busy.entry(ino).or_insert(0);
        if *count > 0 {
            return Err(Errno::ETXTBSY);
        }
        *count -= 1;
        Ok(())
    }

    /// ETXTBSY if an inode is being executed.
    pub(super) fn check_not_executed(&self, ino: u64) -> Result<()> {
        if self.busy.lock().get(&ino).is_some_and(|&count| count < 0) { Err(Errno::ETXTBSY) } else { Ok(()) }
    }

    /// One of those is over: `change` is -1 after writing, 1 after execution.
    pub(super) fn end_use(&self, ino: u64, change: i64) {
        let mut busy = self.busy.lock();
        if let Some(count) = busy.get_mut(&ino) {
            *count += change;
            if *count == 0 {
                busy.remove(&ino);
            }
        }
    }

    pub(super) fn mounted(&self) {
        self.mounts.fetch_add(1, Ordering::Relaxed);
    }

    /// A mount is gone. With the last one the cached dentries go, which keep themselves and the filesystem.
    pub(super) fn unmounted(&self) {
        if self.mounts.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shrink();
        }
    }

    /// Forgets all cached dentries: at the last unmount, and under memory pressure.
    pub fn shrink(&self) {
        let recent = std::mem::take(&mut *self.recent.lock());
        for dentry in recent.iter().filter_map(Weak::upgrade) {
            dentry.let_go();
        }
    }

    fn remember(&self, dentry: &Arc<Dentry>) {
        *dentry.kept.lock() = Some(dentry.clone());
        if dentry.is_unlinked() {
            // Removed just now: whoever did that may have been there before.
            dentry.let_go();
            return;
        }
        let mut dropped = Vec::new();
        let mut recent = self.recent.lock();
        recent.push_back(Arc::downgrade(dentry));
        let mut turns = recent.len();
        while recent.len() > KEPT && turns > 0 {
            turns -= 1;
            let Some(old) = recent.pop_front() else { break };
            let Some(dentry) = old.upgrade() else { continue };
            if dentry.used.swap(false, Ordering::Relaxed) {
                recent.push_back(old)
            } else {
                dropped.push(dentry)
            }
        }
        drop(recent);
        for dentry in dropped {
            dentry.let_go();
        }
    }
}

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
}

enum Child {
    Present(Weak<Dentry>),
    Absent,
}

/// The known entries of a directory. Holding its lock is holding the directory's.
#[derive(Default)]
pub struct Children {
    map: HashMap<Box<[u8]>, Child>,
    absent: usize,
}

/// A name in a directory and the inode it stands for.
pub struct Dentry {
    superblock: Arc<SuperBlock>,
    inode: Arc<dyn Inode>,
    place: RwLock<Place>,
    children: Mutex<Children>,
    /// How many mounts sit on this dentry, in all namespaces.
    mounts: AtomicU64,
    unlinked: AtomicBool,
    used: AtomicBool,
    /// Itself, while it is on the list of recently used ones.
    kept: Mutex<Option<Arc<Dentry>>>,
}

impl Dentry {
    fn new(
        superblock: Arc<SuperBlock>,
        inode: Arc<dyn Inode>,
        parent: Option<Arc<Dentry>>,
        name: &[u8],
    ) -> Arc<Dentry> {
        Arc::new(Dentry {
            superblock,
            inode,
            place: RwLock::new(Place { parent, name: name.into() }),
            children: Mutex::default(),
            mounts: AtomicU64::new(0),
            unlinked: AtomicBool::new(false),
            used: AtomicBool::new(false),
            kept: Mutex::new(None),
        })
    }

    /// Keeps a dentry that [`Dentry::insert`] has made for some time, as one that was looked up. To be called without
    /// its directory's lock.
    pub fn keep(self: &Arc<Dentry>) {
        if self.parent().is_some_and(|dir| dir.inode.lookups_cacheable()) {
            self.superblock.remember(self);
        }
    }

    /// Is no longer kept for its own sake.
    fn let_go(&self) {
        let itself = self.kept.lock().take();
        drop(itself);
    }

    /// A dentry without a name in any directory: pipes, sockets, unnamed temporary files.
    pub fn anonymous(superblock: &Arc<SuperBlock>, inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        Dentry::new(superblock.clone(), inode, None, name)
    }

    /// The superblock.
    pub fn superblock(&self) -> &Arc<SuperBlock> {
        &self.superblock
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The inode, if it is a `T`.
    pub fn inode_as<T: Inode>(&self) -> Option<&T> {
        self.inode.as_any().downcast_ref()
    }

    /// Identity of the inode.
    pub fn object(&self) -> ObjectId {
        ObjectId { dev: self.superblock.dev, ino: self.inode.ino() }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.inode.file_type() == abi::stat::FileType::Directory
    }

    /// The parent directory; `None` for a root or an anonymous dentry.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.read().parent.clone()
    }

    /// The last component.
    pub fn name(&self) -> Vec<u8> {
        self.place.read().name.to_vec()
    }

    /// True once the name was removed.
    pub fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }

    /// Marks a dentry that never had a name as one that will not get one (O_TMPFILE with O_EXCL).
    pub(super) fn refuse_name(&self) {
        self.unlinked.store(true, Ordering::Release);
    }

    /// True if `self` is `other` or lies below it in the same superblock.
    pub fn is_below(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(self.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, other) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    /// How many mounts sit here.
    pub fn mounts(&self) -> u64 {
        self.mounts.load(Ordering::Acquire)
    }

    pub(super) fn add_mounts(&self, change: i64) {
        self.mounts.fetch_add(change as u64, Ordering::AcqRel);
    }

    /// Locks the directory.
    pub fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock()
    }

    /// Locks two directories, or one if they are the same, in a safe order.
    pub fn lock_both<'a>(
        a: &'a Arc<Dentry>,
        b: &'a Arc<Dentry>,
    ) -> (MutexGuard<'a, Children>, Option<MutexGuard<'a, Children>>) {
        if Arc::ptr_eq(a, b) {
            (a.children.lock(), None)
        } else if b.is_below(a) || (!a.is_below(b) && Arc::as_ptr(a) < Arc::as_ptr(b)) {
            let first = a.children.lock();
            (first, Some(b.children.lock()))
        } else {
            let second = b.children.lock();
            (a.children.lock(), Some(second))
        }
    }

    /// Finds a child. ENOENT if there is none.
    pub fn lookup(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        let mut children = self.children.lock();
        let (dentry, fresh) = self.lookup_locked(&mut children, name)?;
        drop(children);
        if fresh {
            self.superblock.remember(&dentry);
        }
        Ok(dentry)
    }

    /// As [`Dentry::lookup`], with the directory locked by the caller. The flag says whether it is new to the cache.
    pub fn lookup_locked(
        self: &Arc<Dentry>,
        children: &mut Children,
        name: &[u8],
    ) -> Result<(Arc<Dentry>, bool)> {
        let cacheable = self.inode.lookups_cacheable();
        let known = match children.map.get(name) {
            Some(Child::Present(weak)) => weak.upgrade(),
            Some(Child::Absent) if cacheable => return Err(Errno::ENOENT),
            _ => None,
        };
        if let Some(dentry) = &known
            && cacheable
        {
            dentry.used.store(true, Ordering::Relaxed);
            return Ok((dentry.clone(), false));
        }
        if self.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        match self.inode.lookup(name) {
            Ok(inode) => {
                // The same object under the same name keeps its dentry: mounts and working directories hang on it.
                if let Some(dentry) = known
                    && (Arc::ptr_eq(&dentry.inode, &inode)
                        || (dentry.inode.ino() == inode.ino()
                            && dentry.inode.file_type() == inode.file_type()))
                {
                    return Ok((dentry, false));
                }
                Ok((self.insert(children, name, inode), cacheable))
            }
            Err(Errno::ENOENT) => {
                if let Some(dentry) = known {
                    dentry.unlinked.store(true, Ordering::Release);
                    dentry.let_go();
                    children.map.remove(name);
                }
                if cacheable {
                    children.note_absent(name);
                }
                Err(Errno::ENOENT)
            }
            Err(e) => Err(e),
        }
    }

    /// Enters a new child under a name that was not taken.
    pub fn insert(
        self: &Arc<Dentry>,
        children: &mut Children,
        name: &[u8],
        inode: Arc<dyn Inode>,
    ) -> Arc<Dentry> {
        let dentry = Dentry::new(self.superblock.clone(), inode, Some(self.clone()), name);
        children.set(name, &dentry);
        dentry
    }

    /// The name of `child` is gone.
    pub fn removed(&self, children: &mut Children, child: &Dentry) {
        let name = child.name();
        children.map.remove(&name[..]);
        if self.inode.lookups_cacheable() {
            children.note_absent(&name);
        }
        child.unlinked.store(true, Ordering::Release);
        child.let_go();
    }

    /// `child` moved from this directory to `name` of `to`. The locks are those of [`Dentry::lock_both`].
    pub fn moved(
        self: &Arc<Dentry>,
        children: &mut Children,
        child: &Arc<Dentry>,
        to: &Arc<Dentry>,
        to_children: Option<&mut Children>,
        name: &[u8],
    ) {
        let old = child.name();
        children.map.remove(&old[..]);
        *child.place.write() = Place { parent: Some(to.clone()), name: name.into() };
        to_children.unwrap_or(children).set(name, child);
    }

    /// Two children change places (RENAME_EXCHANGE).
    pub fn exchanged(
        a_dir: &Arc<Dentry>,
        a_children: &mut Children,
        a: &Arc<Dentry>,
        b_dir: &Arc<Dentry>,
        b_children: Option<&mut Children>,
        b: &Arc<Dentry>,
    ) {
        let (a_name, b_name) = (a.name(), b.name());
        *a.place.write() = Place { parent: Some(b_dir.clone()), name: b_name.clone().into() };
        *b.place.write() = Place { parent: Some(a_dir.clone()), name: a_name.clone().into() };
        a_children.set(&a_name, b);
        b_children.unwrap_or(a_children).set(&b_name, a);
    }
}

impl Children {
    fn set(&mut self, name: &[u8], dentry: &Arc<Dentry>) {
        let new = Child::Present(Arc::downgrade(dentry));
        if let Some(Child::Absent) = self.map.insert(name.into(), new) {
            self.absent -= 1;
        }
    }

    fn note_absent(&mut self, name: &[u8]) {
        if self.absent >= ABSENT {
            self.map.retain(|_, child| match child {
                Child::Present(weak) => weak.strong_count() > 0,
                Child::Absent => false,
            });
            self.absent = 0;
        }
        match self.map.insert(name.into(), Child::Absent) {
            Some(Child::Absent) => {}
            _ => self.absent += 1,
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        if *self.unlinked.get_mut() {
            super::notify::dropped(self);
        }
        // One after the other: a chain of directories may be deeper than the stack.
        let mut place = Place { parent: None, name: Box::default() };
        std::mem::swap(&mut place, self.place.get_mut());
        while let Some(parent) = place.parent.take() {
            // Whoever drops the last reference may hold the parent's lock; then the dead entry is found later.
            if let Some(mut children) = parent.children.try_lock()
                && let Some(Child::Present(weak)) = children.map.get(&place.name)
                && weak.strong_count() == 0
            {
                children.map.remove(&place.name);
            }
            let Some(mut parent) = Arc::into_inner(parent) else { break };
            if *parent.unlinked.get_mut() {
                super::notify::dropped(&parent);
                *parent.unlinked.get_mut() = false;
            }
            std::mem::swap(&mut place, parent.place.get_mut());
        }
    }
}
