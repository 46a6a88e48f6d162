//! Inodes of tmpfs.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::fcntl::{OpenFlags, RenameFlags, Seals};
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use parking_lot::{Mutex, MutexGuard};

use super::Shared;
use super::data::Data;
use super::directory::Entries;
use super::file::{TmpDirectory, TmpFile};
use super::pages::PAGE;
use crate::fs::access_time::AccessTime;
use crate::vfs::{
    Attributes, Entry, FileOps, Inode, Io, NewInode, NewKind, Path, SetAttributes, Target, TimeUpdate,
};

/// What each directory entry adds to the directory's size (BOGO_DIRENT_SIZE).
const ENTRY_SIZE: u64 = 20;

/// Targets of symbolic links from this length on take a page (SHORT_SYMLINK_LEN).
const SHORT_TARGET: usize = 128;

/// Bytes of extended attributes that an inode can have when the filesystem has no limit.
const XATTRS_MAX: usize = 1 << 20;

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
    btime: Timespec,
    xattrs: Option<Box<Xattrs>>,
}

impl Meta {
    fn changed(&mut self, now: Timespec) {
        self.ctime = now;
    }

    fn modified(&mut self, now: Timespec) {
        self.mtime = now;
        self.ctime = now;
    }
}

enum Body {
    Regular(Arc<Data>),
    Directory(Mutex<Entries>),
    Symlink(Box<[u8]>),
    /// A device with its number, a fifo, a socket.
    Special(u64),
}

/// An inode of a tmpfs.
pub struct TmpInode {
    me: Weak<TmpInode>,
    shared: Arc<Shared>,
    ino: u64,
    file_type: FileType,
    meta: Mutex<Meta>,
    body: Body,
}

impl TmpInode {
    /// An inode that was paid for, with one link (a directory: two).
    pub(super) fn new(shared: &Arc<Shared>, new: &NewInode) -> Arc<TmpInode> {
        // Whoever is no memfd cannot be sealed.
        TmpInode::make(shared, new, Seals::F_SEAL_SEAL, 1)
    }

    /// A regular file without links, that was paid for.
    pub(super) fn unnamed(shared: &Arc<Shared>, new: &NewInode, seals: Seals) -> Arc<TmpInode> {
        TmpInode::make(shared, new, seals, 0)
    }

    fn make(shared: &Arc<Shared>, new: &NewInode, seals: Seals, links: u32) -> Arc<TmpInode> {
        let (file_type, body) = match &new.kind {
            NewKind::Regular => {
                (FileType::Regular, Body::Regular(Arc::new(Data::new(shared.limits.clone(), seals))))
            }
            NewKind::Directory => (FileType::Directory, Body::Directory(Mutex::default())),
            NewKind::Symlink(target) => (FileType::Symlink, Body::Symlink(target.as_slice().into())),
            NewKind::Fifo => (FileType::Fifo, Body::Special(0)),
            NewKind::Socket => (FileType::Socket, Body::Special(0)),
            NewKind::CharDevice(rdev) => (FileType::CharDevice, Body::Special(*rdev)),
            NewKind::BlockDevice(rdev) => (FileType::BlockDevice, Body::Special(*rdev)),
        };
        let now = crate::time::now();
        let meta = Meta {
            mode: new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            nlink: if file_type == FileType::Directory { links + 1 } else { links },
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            xattrs: None,
        };
        let ino = shared.last_ino.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = shared.clone();
        Arc::new_cyclic(|me| TmpInode {
            me: me.clone(),
            shared,
            ino,
            file_type,
            meta: Mutex::new(meta),
            body,
        })
    }

    /// As [`TmpInode::new`], but pays. ENOSPC.
    fn allocate(shared: &Arc<Shared>, new: &NewInode, links: u32) -> Result<Arc<TmpInode>> {
        shared.limits.add_inode()?;
        if let NewKind::Symlink(target) = &new.kind
            && target.len() >= SHORT_TARGET
            && let Err(e) = shared.limits.charge(1)
        {
            shared.limits.drop_inode();
            return Err(e);
        }
        Ok(TmpInode::make(shared, new, Seals::F_SEAL_SEAL, links))
    }

    /// The contents of a regular file.
    pub fn data(&self) -> Option<&Arc<Data>> {
        match &self.body {
            Body::Regular(data) => Some(data),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> Result<MutexGuard<'_, Entries>> {
        match &self.body {
            Body::Directory(entries) => Ok(entries.lock()),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The entries, if anything can still be added to them.
    fn live_entries(&self) -> Result<MutexGuard<'_, Entries>> {
        let entries = self.entries()?;
        if self.meta.lock().nlink == 0 { Err(Errno::ENOENT) } else { Ok(entries) }
    }

    fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// One name more or less.
    fn add_links(&self, change: i32, now: Timespec) {
        let mut meta = self.meta.lock();
        meta.nlink = meta.nlink.saturating_add_signed(change);
        meta.changed(now);
    }

    /// The last name of a directory, or one of another inode, is gone.
    fn unlinked(&self, now: Timespec) {
        let mut meta = self.meta.lock();
        if self.is_dir() {
            meta.nlink = 0;
        } else {
            meta.nlink = meta.nlink.saturating_sub(1);
            if meta.nlink > 0 {
                // The name was paid for on its own.
                self.shared.limits.drop_inode();
            }
        }
        meta.changed(now);
    }

    /// What has been done to a directory's entries: its times, and its links if subdirectories came or went.
    fn touched(&self, subdirectories: i32, now: Timespec) {
        let mut meta = self.meta.lock();
        meta.modified(now);
        meta.nlink = meta.nlink.saturating_add_signed(subdirectories);
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<&TmpInode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    /// Takes out the entry of `target`.
    fn remove(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<Arc<TmpInode>> {
        let target = TmpInode::of(target)?;
        let mut entries = self.entries()?;
        match entries.get(name) {
            Some(found) if found.ino == target.ino => {}
            _ => return Err(Errno::ENOENT),
        }
        if target.is_dir() && !target.entries()?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let removed = entries.remove(name).ok_or(Errno::ENOENT)?;
        let now = crate::time::now();
        removed.unlinked(now);
        self.touched(-i32::from(removed.is_dir()), now);
        Ok(removed)
    }

    /// Notes an access, if that is due.
    pub(super) fn accessed(&self, access: &AccessTime) {
        let now = crate::time::now();
        let mut meta = self.meta.lock();
        if access.is_due(meta.atime, meta.mtime, meta.ctime, now) {
            meta.atime = now;
        }
    }

    /// Notes that contents were written.
    pub(super) fn modified(&self) {
        self.meta.lock().modified(crate::time::now());
    }

    /// Whether anybody may execute it.
    pub(super) fn is_executable(&self) -> bool {
        self.meta.lock().mode & 0o111 != 0
    }

    /// Sets size and, if it changed, times. EPERM for seals.
    pub(super) fn resize(&self, size: u64) -> Result<()> {
        let changed = self.data().ok_or(Errno::EINVAL)?.resize(size)?;
        if changed {
            self.modified();
        }
        Ok(())
    }
}

impl Inode for TmpInode {
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
        let (size, blocks, rdev) = match &self.body {
            Body::Regular(data) => (data.size(), data.blocks(), 0),
            Body::Directory(entries) => ((entries.lock().len() as u64 + 2) * ENTRY_SIZE, 0, 0),
            Body::Symlink(target) if target.len() >= SHORT_TARGET => (target.len() as u64, 8, 0),
            Body::Symlink(target) => (target.len() as u64, 0, 0),
            Body::Special(rdev) => (0, 0, *rdev),
        };
        let meta = self.meta.lock();
        Ok(Attributes {
            ino: self.ino,
            mode: self.file_type.mode() | meta.mode,
            nlink: meta.nlink.into(),
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size,
            blocks,
            blksize: PAGE as u32,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: meta.btime,
        })
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        if let (Some(mode), Some(data)) = (set.mode, self.data())
            && data.seals().contains(Seals::F_SEAL_EXEC)
            && (mode ^ self.meta.lock().mode) & 0o111 != 0
        {
            return Err(Errno::EPERM);
        }
        if let Some(size) = set.size {
            self.resize(size)?;
        }
        let now = crate::time::now();
        let time = |update| match update {
            TimeUpdate::Now => now,
            TimeUpdate::At(time) => time,
        };
        let mut meta = self.meta.lock();
        if let Some(mode) = set.mode {
            meta.mode = mode & 0o7777;
        }
        meta.uid = set.uid.unwrap_or(meta.uid);
        meta.gid = set.gid.unwrap_or(meta.gid);
        meta.atime = set.atime.map_or(meta.atime, time);
        meta.mtime = set.mtime.map_or(meta.mtime, time);
        meta.changed(now);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        match self.entries()?.get(name) {
            Some(inode) => Ok(inode.clone()),
            None => Err(Errno::ENOENT),
        }
    }

    fn lookups_cacheable(&self) -> bool {
        !self.shared.layer.load(Ordering::Relaxed)
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        let mut entries = self.live_entries()?;
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let inode = TmpInode::allocate(&self.shared, new, 1)?;
        entries.insert(name, inode.clone());
        self.touched(i32::from(inode.is_dir()), crate::time::now());
        Ok(inode)
    }

    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        if self.meta.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(TmpInode::allocate(&self.shared, new, 0)?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let mut entries = self.live_entries()?;
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let any: Arc<dyn Any + Send + Sync> = target.clone();
        let target: Arc<TmpInode> = any.downcast().map_err(|_| Errno::EXDEV)?;
        // An unnamed file has paid already for its first name.
        if target.meta.lock().nlink > 0 {
            self.shared.limits.add_inode()?;
        }
        let now = crate::time::now();
        target.add_links(1, now);
        entries.insert(name, target);
        self.touched(0, now);
        Ok(())
    }

    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        // What is removed is dropped after the locks.
        self.remove(name, target).map(drop)
    }

    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, target).map(drop)
    }

    fn rename(
        &self,
        source: Entry<'_>,
        to: &Arc<dyn Inode>,
        target: Target<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let to = TmpInode::of(to)?;
        let (name, to_name) = (source.name, target.name);
        let same = self.ino == to.ino;
        let (mut from_entries, mut to_entries) = match self.ino.cmp(&to.ino) {
            std::cmp::Ordering::Equal => (self.entries()?, None),
            std::cmp::Ordering::Less => {
                let first = self.entries()?;
                (first, Some(to.entries()?))
            }
            std::cmp::Ordering::Greater => {
                let second = to.entries()?;
                (self.entries()?, Some(second))
            }
        };
        let source = from_entries.get(name).cloned().ok_or(Errno::ENOENT)?;
        let target = to_entries.as_ref().unwrap_or(&from_entries).get(to_name).cloned();
        let now = crate::time::now();
        let is_dir = i32::from(source.is_dir());

        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            let target = target.ok_or(Errno::ENOENT)?;
            let gained = is_dir - i32::from(target.is_dir());
            to_entries.as_mut().unwrap_or(&mut from_entries).insert(to_name, source.clone());
            from_entries.insert(name, target.clone());
            self.touched(if same { 0 } else { -gained }, now);
            if !same {
                to.touched(gained, now);
            }
            source.add_links(0, now);
            target.add_links(0, now);
            return Ok(());
        }

        if let Some(target) = &target
            && target.is_dir()
            && !target.entries()?.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        let whiteout = if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            let meta = source.meta.lock();
            let new = NewInode { kind: NewKind::CharDevice(0), mode: 0, uid: meta.uid, gid: meta.gid };
            drop(meta);
            Some(TmpInode::allocate(&self.shared, &new, 1)?)
        } else {
            None
        };
        match whiteout {
            Some(whiteout) => from_entries.insert(name, whiteout),
            None => from_entries.remove(name),
        };
        let replaced = to_entries.as_mut().unwrap_or(&mut from_entries).insert(to_name, source.clone());
        let lost = replaced.as_ref().map_or(0, |r| i32::from(r.is_dir()));
        if let Some(replaced) = &replaced {
            replaced.unlinked(now);
        }
        if same {
            self.touched(-lost, now);
        } else {
            self.touched(-is_dir, now);
            to.touched(is_dir - lost, now);
        }
        source.add_links(0, now);
        drop((from_entries, to_entries));
        drop((replaced, target));
        Ok(())
    }

    fn readlink(&self, _io: &Io<'_>) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, _io: &Io<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        // Whoever calls this has the inode.
        let inode = self.me.upgrade().ok_or(Errno::EIO)?;
        match &self.body {
            Body::Regular(data) => Ok(Arc::new(TmpFile::new(inode, data.clone(), path, flags))),
            Body::Directory(_) => Ok(Arc::new(TmpDirectory::new(inode, path, flags))),
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        check_xattr(name)?;
        let meta = self.meta.lock();
        let value = meta.xattrs.as_ref().and_then(|x| x.get(name)).ok_or(Errno::ENODATA)?;
        Ok(value.to_vec())
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        check_xattr(name)?;
        let mut meta = self.meta.lock();
        let old = meta.xattrs.as_ref().and_then(|x| x.get(name));
        match old {
            Some(_) if create => return Err(Errno::EEXIST),
            None if replace => return Err(Errno::ENODATA),
            _ => {}
        }
        let before = old.map_or(0, |old| xattr_space(name, old));
        let after = xattr_space(name, value);
        let total: u64 = meta.xattrs.iter().flat_map(|x| x.iter()).map(|(n, v)| xattr_space(n, v)).sum();
        if total - before + after > XATTRS_MAX as u64 {
            return Err(Errno::ENOSPC);
        }
        self.shared.limits.charge_xattrs(before, after)?;
        meta.xattrs.get_or_insert_default().insert(name.into(), value.into());
        meta.changed(crate::time::now());
        Ok(())
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        let meta = self.meta.lock();
        Ok(meta.xattrs.iter().flat_map(|x| x.keys()).map(|name| name.to_vec()).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        check_xattr(name)?;
        let mut meta = self.meta.lock();
        let old = meta.xattrs.as_mut().and_then(|x| x.remove(name)).ok_or(Errno::ENODATA)?;
        let _ = self.shared.limits.charge_xattrs(xattr_space(name, &old), 0);
        meta.changed(crate::time::now());
        Ok(())
    }
}

/// EOPNOTSUPP for names outside the namespaces that tmpfs has.
fn check_xattr(name: &[u8]) -> Result<()> {
    let known = [&b"user."[..], b"trusted.", b"security."];
    if known.iter().any(|p| name.len() > p.len() && name.starts_with(p)) {
        Ok(())
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

fn xattr_space(name: &[u8], value: &[u8]) -> u64 {
    // With what the tree takes for each.
    (name.len() + value.len() + 48) as u64
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        let limits = &self.shared.limits;
        limits.drop_inode();
        if let Body::Symlink(target) = &self.body
            && target.len() >= SHORT_TARGET
        {
            limits.refund(1);
        }
        if let Some(xattrs) = &self.meta.get_mut().xattrs {
            let total = xattrs.iter().map(|(n, v)| xattr_space(n, v)).sum();
            let _ = limits.charge_xattrs(total, 0);
        }
        // A tree is taken apart in a loop: it may be deeper than the stack.
        let Body::Directory(entries) = &mut self.body else { return };
        let mut rest = entries.get_mut().take();
        while let Some(inode) = rest.pop() {
            if let Some(mut inode) = Arc::into_inner(inode)
                && let Body::Directory(entries) = &mut inode.body
            {
                rest.extend(entries.get_mut().take());
            }
        }
    }
}
