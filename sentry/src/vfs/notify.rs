//! Inotify (fs/notify): watches on inodes, and the functions by which operations report events.
//!
//! An operation calls the function of its name after it has succeeded; without any watch in the superblock that costs
//! one atomic load. Events about a name go to watches of the directory, with the name; events about an object go to
//! watches of the directory that it was opened or found in, with the name, and then to watches of the object itself.
//!
//! Lock order: a table's lock is released before a listener is told; a listener's own lock is a leaf.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::inotify::InotifyMask as Mask;
use abi::{Errno, Result};
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::dentry::{Dentry, SuperBlock};
use super::file::File;
use super::inode::{Inode, ObjectId};
use super::walk::Path;

/// The flags that belong to a watch besides the events it asks for.
const OPTIONS: Mask = Mask::IN_EXCL_UNLINK.union(Mask::IN_ONESHOT);

/// Whoever is told of events: an inotify instance.
pub trait Listener: Send + Sync {
    /// Something happened. `name` is empty for events about the watched object itself. Must not block, nor call back.
    fn event(&self, wd: i32, mask: Mask, cookie: u32, name: &[u8]);

    /// The watch is gone, because its object is, or because it was for one event only.
    fn ignored(&self, wd: i32);
}

/// A watch on an inode. It keeps the inode alive, so that its number stays its own.
pub struct Watch {
    /// The watch descriptor.
    pub wd: i32,
    listener: Weak<dyn Listener>,
    mask: AtomicU32,
    object: ObjectId,
    /// Only kept alive.
    _inode: Arc<dyn Inode>,
    superblock: Weak<SuperBlock>,
}

impl Watch {
    /// The events asked for, and IN_EXCL_UNLINK and IN_ONESHOT.
    pub fn mask(&self) -> Mask {
        Mask::from_bits_retain(self.mask.load(Ordering::Relaxed))
    }

    /// The identity of what is watched.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Replaces the mask, or adds to it.
    pub fn set_mask(&self, mask: Mask, add: bool) {
        let kept = mask & (Mask::IN_ALL_EVENTS | OPTIONS);
        let old = if add { self.mask() } else { Mask::empty() };
        self.mask.store((old | kept).bits(), Ordering::Relaxed);
    }

    /// Takes the watch out of its superblock's table.
    pub fn remove(&self) {
        if let Some(superblock) = self.superblock.upgrade() {
            superblock.watches.take(self.object.ino, |w| std::ptr::eq(&raw const *w, self));
        }
    }
}

/// The watches on the inodes of a superblock.
#[derive(Default)]
pub struct WatchTable {
    count: AtomicUsize,
    by_ino: RwLock<HashMap<u64, Vec<Arc<Watch>>>>,
}

impl WatchTable {
    /// Adds a watch on the inode of `dentry`.
    pub fn add(dentry: &Dentry, wd: i32, mask: Mask, listener: Weak<dyn Listener>) -> Arc<Watch> {
        let superblock = dentry.superblock();
        let watch = Watch {
            wd,
            listener,
            mask: 0.into(),
            object: dentry.object(),
            _inode: dentry.inode().clone(),
            superblock: Arc::downgrade(superblock),
        };
        watch.set_mask(mask, false);
        let watch = Arc::new(watch);
        let mut by_ino = superblock.watches.by_ino.write();
        by_ino.entry(watch.object.ino).or_default().push(watch.clone());
        superblock.watches.count.fetch_add(1, Ordering::SeqCst);
        watch
    }

    /// The last mount of the superblock is gone: IN_UNMOUNT for every watch.
    pub fn unmounted(&self) {
        let all = std::mem::take(&mut *self.by_ino.write());
        self.count.store(0, Ordering::SeqCst);
        for watch in all.into_values().flatten() {
            if let Some(listener) = watch.listener.upgrade() {
                listener.event(watch.wd, Mask::IN_UNMOUNT, 0, b"");
                listener.ignored(watch.wd);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// True if somebody watches this inode.
    fn watched(&self, ino: u64) -> bool {
        self.by_ino.read().contains_key(&ino)
    }

    fn take(&self, ino: u64, which: impl Fn(&Watch) -> bool) -> Vec<Arc<Watch>> {
        let mut by_ino = self.by_ino.write();
        let Some(list) = by_ino.get_mut(&ino) else { return Vec::new() };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(list).into_iter().partition(|w| which(w));
        if kept.is_empty() {
            by_ino.remove(&ino);
        } else {
            *list = kept;
        }
        self.count.fetch_sub(gone.len(), Ordering::SeqCst);
        gone
    }

    /// Tells the watches of an inode. `mask` is one event, with IN_ISDIR where it belongs.
    fn deliver(&self, ino: u64, mask: Mask, cookie: u32, name: &[u8], unlinked: bool) {
        let hit: SmallVec<[Arc<Watch>; 4]> = match self.by_ino.read().get(&ino) {
            Some(list) => {
                let wants = |w: &&Arc<Watch>| {
                    let wanted = w.mask();
                    wanted.intersects(mask & Mask::IN_ALL_EVENTS)
                        && !(unlinked && wanted.contains(Mask::IN_EXCL_UNLINK))
                };
                list.iter().filter(wants).cloned().collect()
            }
            None => return,
        };
        for watch in hit {
            let once = watch.mask().contains(Mask::IN_ONESHOT);
            // Of two events at a time, a one-shot watch reports one.
            if once && self.take(ino, |w| std::ptr::eq(w, &raw const *watch)).is_empty() {
                continue;
            }
            let Some(listener) = watch.listener.upgrade() else { continue };
            listener.event(watch.wd, mask, cookie, name);
            if once {
                listener.ignored(watch.wd);
            }
        }
    }
}

fn kind(dentry: &Dentry) -> Mask {
    if dentry.is_dir() { Mask::IN_ISDIR } else { Mask::empty() }
}

/// An event in a directory (fsnotify_dirent).
fn in_directory(dir: &Dentry, mask: Mask, cookie: u32, name: &[u8]) {
    dir.superblock().watches.deliver(dir.inode().ino(), mask, cookie, name, false);
}

/// An event of an object, reported to its directory as well if `of_file` (fsnotify_parent), else not (fsnotify_inode).
fn of_object(dentry: &Dentry, mask: Mask, with_parent: bool) {
    let watches = &dentry.superblock().watches;
    let mask = mask | kind(dentry);
    let unlinked = with_parent && dentry.is_unlinked();
    if with_parent
        && let Some(parent) = dentry.parent()
        && watches.watched(parent.inode().ino())
    {
        watches.deliver(parent.inode().ino(), mask, 0, &dentry.name(), unlinked);
    }
    watches.deliver(dentry.inode().ino(), mask, 0, b"", unlinked);
}

fn quiet(dentry: &Dentry) -> bool {
    dentry.superblock().watches.is_empty()
}

/// A new name that is no hard link: create, mkdir, mknod, symlink.
pub fn created(dir: &Dentry, name: &[u8], child: &Dentry) {
    if !quiet(dir) {
        in_directory(dir, Mask::IN_CREATE | kind(child), 0, name);
    }
}

/// A new hard link to `child`.
pub fn linked(dir: &Dentry, name: &[u8], child: &Dentry) {
    if !quiet(dir) {
        of_object(child, Mask::IN_ATTRIB, false);
        in_directory(dir, Mask::IN_CREATE, 0, name);
    }
}

/// `child` has lost its name: to be called after [`Dentry::removed`].
pub fn deleted(dir: &Dentry, name: &[u8], child: &Arc<Dentry>) {
    if quiet(dir) {
        return;
    }
    if !child.is_dir() {
        of_object(child, Mask::IN_ATTRIB, false);
    }
    // Nobody but the caller uses it any more: the object goes before its name is reported gone, as in d_delete().
    if Arc::strong_count(child) == 1 {
        dropped(child);
    }
    in_directory(dir, Mask::IN_DELETE | kind(child), 0, name);
}

/// `child` has moved, and may have replaced something (which [`Dentry::removed`] was told before). An exchange is
/// reported as two moves without replacement.
pub fn moved(
    from: &Dentry,
    from_name: &[u8],
    to: &Dentry,
    to_name: &[u8],
    child: &Dentry,
    replaced: Option<&Dentry>,
) {
    static COOKIE: AtomicU32 = AtomicU32::new(0);
    if quiet(from) {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    in_directory(from, Mask::IN_MOVED_FROM | kind(child), cookie, from_name);
    in_directory(to, Mask::IN_MOVED_TO | kind(child), cookie, to_name);
    if let Some(replaced) = replaced {
        of_object(replaced, Mask::IN_ATTRIB, false);
    }
    of_object(child, Mask::IN_MOVE_SELF, false);
}

/// Contents have changed: write, truncate, fallocate.
pub fn modified(path: &Path) {
    let dentry = path.dentry();
    if !quiet(dentry) {
        of_object(dentry, Mask::IN_MODIFY, true);
    }
}

/// Contents were read, a directory was listed, a program executed.
pub fn accessed(path: &Path) {
    let dentry = path.dentry();
    if !quiet(dentry) {
        of_object(dentry, Mask::IN_ACCESS, true);
    }
}

/// Something was opened (but not with O_PATH).
pub fn opened(path: &Path) {
    let dentry = path.dentry();
    if !quiet(dentry) {
        of_object(dentry, Mask::IN_OPEN, true);
    }
}

/// Mode, owner, times or extended attributes have changed.
pub fn attrib(path: &Path) {
    let dentry = path.dentry();
    if !quiet(dentry) {
        of_object(dentry, Mask::IN_ATTRIB, true);
    }
}

/// Reports IN_CLOSE_WRITE or IN_CLOSE_NOWRITE.
pub(super) fn file_closed(file: &File) {
    let (dentry, flags) = (file.path().dentry(), file.flags());
    if !quiet(dentry) && !flags.contains(OpenFlags::O_PATH) {
        let mask = if flags.writable() { Mask::IN_CLOSE_WRITE } else { Mask::IN_CLOSE_NOWRITE };
        of_object(dentry, mask, true);
    }
}

/// A dentry without a name is no longer used: IN_DELETE_SELF if it was the last link (fsnotify_inoderemove).
pub(super) fn dropped(dentry: &Dentry) {
    let watches = &dentry.superblock().watches;
    let ino = dentry.inode().ino();
    if watches.is_empty() || !watches.watched(ino) || dentry.inode().attributes().is_ok_and(|a| a.nlink > 0) {
        return;
    }
    watches.deliver(ino, Mask::IN_DELETE_SELF, 0, b"", false);
    for watch in watches.take(ino, |_| true) {
        if let Some(listener) = watch.listener.upgrade() {
            listener.ignored(watch.wd);
        }
    }
}

/// Checks the mask of inotify_add_watch(2). EINVAL if nothing is asked for, or both ways of changing a watch.
pub fn check_mask(raw: u32) -> Result<Mask> {
    let mask = Mask::from_bits_truncate(raw);
    let both = Mask::IN_MASK_ADD | Mask::IN_MASK_CREATE;
    if mask.is_empty() || mask.contains(both) { Err(Errno::EINVAL) } else { Ok(mask) }
}
