//! Inodes of an overlay.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::fcntl::{OpenFlags, RenameFlags};
use abi::stat::FileType;
use abi::{Errno, Result};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::directory::OverlayDirectory;
use super::file::OverlayFile;
use super::{ESCAPED, PRIVATE, Shared, directory, is_opaque, is_whiteout, set_opaque, whiteout};
use crate::task::Credentials;
use crate::vfs::{
    Attributes, Entry, FileOps, Inode, Io, LinkTarget, NewInode, NewKind, Path, SetAttributes, Target,
};

/// An inode of a lower layer.
#[derive(Clone)]
pub(super) struct Lower {
    /// Its place among the layers.
    pub layer: usize,
    pub inode: Arc<dyn Inode>,
}

/// Where something is, until it is in the upper layer.
pub(super) struct Place {
    pub parent: Arc<OverlayInode>,
    pub name: Box<[u8]>,
}

/// A directory of the upper layer, and what it has under a name.
type InDirectory<'a> = (&'a Arc<dyn Inode>, Option<Arc<dyn Inode>>);

/// What the layers have under a name.
pub struct OverlayInode {
    me: Weak<OverlayInode>,
    pub(super) shared: Arc<Shared>,
    /// What locks and watches know it by.
    ino: u64,
    /// It is one of several links in a lower layer: stat(2) tells the number of what counts.
    pub(super) linked: bool,
    file_type: FileType,
    pub(super) upper: OnceLock<Arc<dyn Inode>>,
    /// A directory: all that are merged, from the topmost down. Anything else: at most one.
    lowers: SmallVec<[Lower; 1]>,
    /// Held while it is copied up. `None` if it is in the upper layer, or has no name any more.
    pub(super) place: Mutex<Option<Place>>,
    unlinked: AtomicBool,
    /// No lower layer has anything under its only name: known of what was made where nothing was hidden.
    uncovered: AtomicBool,
}

impl OverlayInode {
    fn make(
        shared: &Arc<Shared>,
        upper: Option<Arc<dyn Inode>>,
        lowers: SmallVec<[Lower; 1]>,
        place: Option<Place>,
    ) -> Result<Arc<OverlayInode>> {
        let lower = lowers.first();
        let file_type = match (&upper, lower) {
            (Some(upper), _) => upper.file_type(),
            (None, Some(lower)) => lower.inode.file_type(),
            (None, None) => return Err(Errno::ENOENT),
        };
        // One of several links: a file of its own as soon as it is copied up.
        let linked = match lower {
            Some(lower) if file_type != FileType::Directory => lower.inode.attributes()?.nlink > 1,
            _ => false,
        };
        // The number must be the same before and after a copy-up.
        let ino = match (&upper, lower) {
            _ if linked => shared.own_ino(),
            (_, Some(lower)) => shared.ino(lower.layer, lower.inode.ino()),
            (Some(upper), None) => shared.upper_ino(upper.ino()),
            (None, None) => return Err(Errno::ENOENT),
        };
        let place = if upper.is_some() { None } else { place };
        Ok(Arc::new_cyclic(|me| OverlayInode {
            me: me.clone(),
            shared: shared.clone(),
            ino,
            linked,
            file_type,
            upper: upper.map(OnceLock::from).unwrap_or_default(),
            lowers,
            place: Mutex::new(place),
            unlinked: AtomicBool::new(false),
            uncovered: AtomicBool::new(false),
        }))
    }

    pub(super) fn root(shared: &Arc<Shared>) -> Result<Arc<OverlayInode>> {
        let upper = shared.upper.as_ref().map(|u| u.layer.root.clone());
        let lowers = shared.lowers.iter().enumerate();
        let lowers: SmallVec<[Lower; 1]> =
            lowers.map(|(layer, l)| Lower { layer, inode: l.root.clone() }).collect();
        let is_file = lowers.iter().any(|lower| lower.inode.file_type() != FileType::Directory);
        OverlayInode::make(shared, if is_file { None } else { upper }, lowers, None)
    }

    fn of_upper(&self, upper: Arc<dyn Inode>, uncovered: bool) -> Result<Arc<dyn Inode>> {
        let inode = OverlayInode::make(&self.shared, Some(upper), SmallVec::new(), None)?;
        inode.uncovered.store(uncovered, Ordering::Release);
        Ok(inode)
    }

    fn arc(&self) -> Result<Arc<OverlayInode>> {
        // Whoever calls has the inode.
        self.me.upgrade().ok_or(Errno::EIO)
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<&OverlayInode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    /// The inode of the upper layer, if there is one.
    pub(super) fn in_upper(&self) -> Option<&Arc<dyn Inode>> {
        self.upper.get()
    }

    /// The inodes of lower layers.
    pub(super) fn lowers(&self) -> &[Lower] {
        &self.lowers
    }

    /// The inode that counts.
    pub(super) fn real(&self) -> Result<&Arc<dyn Inode>> {
        match (self.upper.get(), self.lowers.first()) {
            (Some(upper), _) => Ok(upper),
            (None, Some(lower)) => Ok(&lower.inode),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// True if a lower layer has something under this name that would appear without a whiteout.
    fn covers(&self, name: &[u8]) -> Result<bool> {
        for lower in &self.lowers {
            match lower.inode.lookup(name) {
                Ok(inode) => return Ok(!is_whiteout(&inode)?),
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    /// As [`OverlayInode::covers`], of the name of `inode`.
    fn covers_under(&self, name: &[u8], inode: &OverlayInode) -> Result<bool> {
        if inode.uncovered.load(Ordering::Acquire) { Ok(false) } else { self.covers(name) }
    }

    /// What the upper layer has under a name of this directory; the directory is copied up.
    fn upper_entry(&self, name: &[u8]) -> Result<InDirectory<'_>> {
        let dir = self.copy_up(None)?;
        match dir.lookup(name) {
            Ok(inode) => Ok((dir, Some(inode))),
            Err(Errno::ENOENT) => Ok((dir, None)),
            Err(e) => Err(e),
        }
    }

    /// As [`OverlayInode::upper_entry`], of a name that the overlay does not have: there may be a whiteout.
    fn free_entry(&self, name: &[u8]) -> Result<InDirectory<'_>> {
        let (dir, found) = self.upper_entry(name)?;
        match found {
            Some(found) if !is_whiteout(&found)? => Err(Errno::EEXIST),
            found => Ok((dir, found)),
        }
    }

    /// The name is gone. To be called with `place` locked, so that no copy-up makes it come back.
    fn lost_name(&self, mut place: MutexGuard<'_, Option<Place>>) {
        // The parent is dropped after the lock.
        let old = place.take();
        self.unlinked.store(true, Ordering::Release);
        drop(place);
        drop(old);
        if let Some(upper) = self.upper.get()
            && !self.is_dir()
            && upper.attributes().is_ok_and(|a| a.nlink == 0)
        {
            self.shared.origins.lock().remove(&upper.ino());
        }
    }

    /// Removes a name, which a whiteout takes if a lower layer has it.
    fn remove(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = OverlayInode::of(target)?;
        let place = target.place.lock();
        if target.is_dir() && !directory::is_empty(target)? {
            return Err(Errno::ENOTEMPTY);
        }
        let (dir, found) = self.upper_entry(name)?;
        if self.covers_under(name, target)? {
            self.shared.put(&whiteout(), |_| Ok(()), dir, name, found.as_ref())?;
        } else {
            self.shared.discard(dir, name, &found.ok_or(Errno::ENOENT)?)?;
        }
        target.lost_name(place);
        Ok(())
    }
}

impl Inode for OverlayInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn attributes(&self) -> Result<Attributes> {
        let mut attributes = self.real()?.attributes()?;
        attributes.ino = match (self.upper.get(), self.lowers.first()) {
            (Some(upper), _) if self.linked => self.shared.upper_ino(upper.ino()),
            (None, Some(lower)) if self.linked => self.shared.ino(lower.layer, lower.inode.ino()),
            _ => self.ino,
        };
        let upper = self.upper.get().is_some();
        if self.is_dir() {
            if self.unlinked.load(Ordering::Acquire) {
                attributes.nlink = 0;
            } else if upper && !self.lowers.is_empty() {
                // Nobody has counted the subdirectories of a merged directory.
                attributes.nlink = 1;
            }
        } else if self.unlinked.load(Ordering::Acquire) {
            if !upper {
                attributes.nlink = attributes.nlink.saturating_sub(1);
            }
        } else if !self.lowers.is_empty() {
            // The copy of a file that is mounted by itself has no name.
            attributes.nlink = attributes.nlink.max(1);
        }
        Ok(attributes)
    }

    fn permission(&self, creds: &Credentials, mask: u32) -> Result<()> {
        self.real()?.permission(creds, mask)
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        self.copy_up(set.size)?.set_attributes(set)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let upper = match self.upper.get().map(|dir| dir.lookup(name)) {
            None | Some(Err(Errno::ENOENT)) => None,
            Some(Err(e)) => return Err(e),
            Some(Ok(inode)) if is_whiteout(&inode)? => return Err(Errno::ENOENT),
            Some(Ok(inode)) => Some(inode),
        };
        if let Some(upper) = &upper
            && (self.lowers.is_empty() || upper.file_type() != FileType::Directory || is_opaque(upper)?)
        {
            return self.of_upper(upper.clone(), self.lowers.is_empty());
        }
        let mut lowers: SmallVec<[Lower; 1]> = SmallVec::new();
        for (i, dir) in self.lowers.iter().enumerate() {
            let inode = match dir.inode.lookup(name) {
                Ok(inode) => inode,
                Err(Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            };
            if is_whiteout(&inode)? {
                break;
            }
            let is_dir = inode.file_type() == FileType::Directory;
            // Below a directory, whatever is none does not show.
            if !is_dir && (upper.is_some() || !lowers.is_empty()) {
                break;
            }
            let last = !is_dir || (i + 1 < self.lowers.len() && is_opaque(&inode)?);
            lowers.push(Lower { layer: dir.layer, inode });
            if last {
                break;
            }
        }
        let place = Place { parent: self.arc()?, name: name.into() };
        let inode = OverlayInode::make(&self.shared, upper, lowers, Some(place))?;
        Ok(inode)
    }

    fn lookups_cacheable(&self) -> bool {
        self.shared.cacheable
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        // Nobody makes whiteouts from above.
        if new.kind == NewKind::CharDevice(0) {
            return Err(Errno::EPERM);
        }
        let (dir, whiteout) = self.free_entry(name)?;
        let made = match &whiteout {
            None => dir.create(name, new)?,
            Some(whiteout) => {
                let opaque = |made: &Arc<dyn Inode>| match new.kind {
                    NewKind::Directory => set_opaque(made),
                    _ => Ok(()),
                };
                self.shared.put(new, opaque, dir, name, Some(whiteout))?
            }
        };
        self.of_upper(made, whiteout.is_none())
    }

    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        let made = self.copy_up(None)?.create_unnamed(new)?;
        self.of_upper(made, false)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let linked = OverlayInode::of(target)?;
        let target = linked.copy_up(None)?;
        linked.uncovered.store(false, Ordering::Release);
        let (dir, whiteout) = self.free_entry(name)?;
        let Some(whiteout) = whiteout else { return dir.link(name, target) };
        // The new name is made beside, so that the whiteout goes only when it is there.
        let work = &self.shared.upper()?.work;
        let (work_name, ()) = self.shared.in_work(|work, name| work.link(name, target))?;
        let source = Entry { name: &work_name, inode: target };
        let onto = Target { name, inode: Some(&whiteout) };
        work.rename(source, dir, onto, RenameFlags::empty()).inspect_err(|_| {
            // The error is what counts; a name left behind is cleared by nobody but hurts nobody.
            let _ = work.unlink(&work_name, target);
        })
    }

    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, target)
    }

    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, target)
    }

    fn rename(
        &self,
        source: Entry<'_>,
        to: &Arc<dyn Inode>,
        target: Target<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let exchange = flags.contains(RenameFlags::RENAME_EXCHANGE);
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let to = OverlayInode::of(to)?;
        let moved = OverlayInode::of(source.inode)?;
        let other = target.inode.map(OverlayInode::of).transpose()?;
        // The lower part of a directory cannot move.
        let fixed = |inode: &OverlayInode| inode.is_dir() && !inode.lowers.is_empty();
        if fixed(moved) || (exchange && other.is_some_and(fixed)) {
            return Err(Errno::EXDEV);
        }
        let upper = moved.copy_up(None)?;
        let from_dir = self.copy_up(None)?;
        if exchange {
            let other = other.ok_or(Errno::ENOENT)?;
            let other_upper = other.copy_up(None)?;
            let to_dir = to.copy_up(None)?;
            if moved.is_dir() && to.covers(target.name)? {
                set_opaque(upper)?;
            }
            if other.is_dir() && self.covers(source.name)? {
                set_opaque(other_upper)?;
            }
            moved.uncovered.store(false, Ordering::Release);
            other.uncovered.store(false, Ordering::Release);
            let from = Entry { name: source.name, inode: upper };
            return from_dir.rename(
                from,
                to_dir,
                Target { name: target.name, inode: Some(other_upper) },
                flags,
            );
        }

        let place = other.map(|other| other.place.lock());
        if let Some(other) = other
            && other.is_dir()
        {
            if !directory::is_empty(other)? {
                return Err(Errno::ENOTEMPTY);
            }
            if let Some(victim) = other.in_upper() {
                self.shared.clear(victim)?;
            }
        }
        let (to_dir, found) = to.upper_entry(target.name)?;
        if moved.is_dir() && to.covers(target.name)? {
            set_opaque(upper)?;
        }
        let leaves_whiteout = self.covers_under(source.name, moved)?;
        moved.uncovered.store(false, Ordering::Release);
        let from = Entry { name: source.name, inode: upper };
        let onto = Target { name: target.name, inode: found.as_ref() };
        match &found {
            // A directory changes places with a whiteout.
            Some(hidden) if moved.is_dir() && hidden.file_type() != FileType::Directory => {
                from_dir.rename(from, to_dir, onto, RenameFlags::RENAME_EXCHANGE)?;
                if !leaves_whiteout && let Err(error) = from_dir.unlink(source.name, hidden) {
                    tracing::warn!(%error, "overlay: a whiteout stays where there is nothing to hide");
                }
            }
            _ => {
                let flags = if leaves_whiteout { RenameFlags::RENAME_WHITEOUT } else { RenameFlags::empty() };
                from_dir.rename(from, to_dir, onto, flags)?;
            }
        }
        if let (Some(other), Some(place)) = (other, place) {
            other.lost_name(place);
        }
        Ok(())
    }

    fn readlink(&self, io: &Io<'_>) -> Result<Vec<u8>> {
        self.real()?.readlink(io)
    }

    fn follow(&self, io: &Io<'_>) -> Result<LinkTarget> {
        self.real()?.follow(io)
    }

    fn open(&self, io: &Io<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        if self.is_dir() {
            return Ok(Arc::new(OverlayDirectory::new(self.arc()?, path, flags)));
        }
        if flags.writable() {
            self.copy_up(None)?;
        }
        match self.upper.get() {
            Some(upper) => upper.open(io, path, flags),
            None => Ok(Arc::new(OverlayFile::new(self.arc()?, io, path, flags)?)),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.real()?.xattr(&escape(name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        self.copy_up(None)?.set_xattr(&escape(name), value, create, replace)
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        let names = self.real()?.xattr_names()?;
        Ok(names.into_iter().filter_map(unescape).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let name = escape(name);
        // Not for the sake of something that is not there.
        self.real()?.xattr(&name)?;
        self.copy_up(None)?.remove_xattr(&name)
    }

    fn inode_flags(&self) -> u32 {
        self.real().map_or(0, |real| real.inode_flags())
    }
}

/// The guest's attributes that are named like the overlay's own have another name in the layers.
fn escape(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(PRIVATE) {
        Some(rest) => [ESCAPED, rest].concat(),
        None => name.to_vec(),
    }
}

/// What the guest sees of an attribute of a layer.
fn unescape(name: Vec<u8>) -> Option<Vec<u8>> {
    match name.strip_prefix(ESCAPED) {
        Some(rest) => Some([PRIVATE, rest].concat()),
        None if name.starts_with(PRIVATE) => None,
        None => Some(name),
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        // A chain of parents may be longer than the stack is deep.
        let mut parent = self.place.get_mut().take().map(|place| place.parent);
        while let Some(inode) = parent {
            parent =
                Arc::into_inner(inode).and_then(|mut inode| inode.place.get_mut().take()).map(|p| p.parent);
        }
    }
}
