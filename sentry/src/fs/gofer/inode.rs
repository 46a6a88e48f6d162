//! Inodes of the gofer filesystem.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::{OpenFlags, RenameFlags};
use abi::stat::FileType;
use abi::{Errno, Result};
use gofer::client::{self, DirBatch, DirEntry, NewAttributes, SetTime, SocketKind};
use gofer::protocol::{self, FileKind, NodeId, SyncScope, Timestamp};
use parking_lot::Mutex;

use super::file::{BATCH, GoferDirectory, GoferFile};
use super::names::Names;
use super::{Access, Shared, attributes, file_type, file_type_of};
use crate::task::Credentials;
use crate::task::credentials::OVERFLOW_ID;
use crate::vfs::{
    Attributes, Entry, FileOps, Inode, Io, NewInode, NewKind, Path, SetAttributes, Target, TimeUpdate,
    permission,
};

/// Where file capabilities are; exec and chown look for them again and again.
const CAPABILITY: &[u8] = b"security.capability";

/// What a descriptor is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reading, and mappings that cannot be written to.
    Read,
    /// Everything.
    Write,
    /// Writing at the end.
    Append,
}

struct Cached {
    attributes: Attributes,
    /// The host knows better: something was done that changes them.
    stale: bool,
    /// How often that was so. What the host told before the last change is stale when it arrives.
    changes: u64,
}

/// A file, directory or whatever else of the host.
pub struct GoferInode {
    me: Weak<GoferInode>,
    shared: Arc<Shared>,
    node: NodeId,
    is_root: bool,
    key: super::Key,
    ino: u64,
    file_type: FileType,
    cached: Mutex<Cached>,
    /// By [`Purpose`].
    files: Mutex<[Weak<OwnedFd>; 3]>,
    /// Somebody may store through a mapping: nothing is known for sure any more.
    mapped: AtomicBool,
    /// There are no file capabilities.
    incapable: AtomicBool,
    target: Option<Box<[u8]>>,
    /// A directory's, in exclusive mode.
    names: Names,
    /// Writers that append, or that change the size, take turns.
    pub(super) writing: Mutex<()>,
}

impl GoferInode {
    fn make(
        shared: &Arc<Shared>,
        node: NodeId,
        is_root: bool,
        of: &protocol::Attributes,
        target: Option<Box<[u8]>>,
    ) -> Arc<GoferInode> {
        let key = super::key(of);
        let ino = shared.ino(key);
        Arc::new_cyclic(|me| GoferInode {
            me: me.clone(),
            shared: shared.clone(),
            node,
            is_root,
            key,
            ino,
            // The client has checked that there is such a type.
            file_type: file_type(of).unwrap_or(FileType::Regular),
            cached: Mutex::new(Cached { attributes: attributes(ino, of), stale: false, changes: 0 }),
            files: Mutex::default(),
            mapped: AtomicBool::new(false),
            incapable: AtomicBool::new(false),
            target,
            names: Names::default(),
            writing: Mutex::new(()),
        })
    }

    pub(super) fn new(
        shared: &Arc<Shared>,
        node: NodeId,
        of: &protocol::Attributes,
        target: Option<Box<[u8]>>,
    ) -> Arc<GoferInode> {
        GoferInode::make(shared, node, false, of, target)
    }

    pub(super) fn root(shared: &Arc<Shared>, node: NodeId, of: &protocol::Attributes) -> Arc<GoferInode> {
        GoferInode::make(shared, node, true, of, None)
    }

    /// What the server calls it.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    fn client(&self) -> &client::Client {
        &self.shared.client
    }

    fn is_exclusive(&self) -> bool {
        self.shared.access == Access::Exclusive
    }

    /// A stamp to be taken before the host is asked for attributes.
    fn stamp(&self) -> u64 {
        self.cached.lock().changes
    }

    /// The host has told its attributes.
    fn remember(&self, of: &protocol::Attributes, stamp: u64) {
        // Another inode under the same number, or another type, is a server's lie.
        if super::key(of) == self.key && file_type(of) == Some(self.file_type) {
            let mut cached = self.cached.lock();
            cached.attributes = attributes(self.ino, of);
            cached.stale = cached.changes != stamp;
        }
    }

    /// A lookup has led here again.
    pub(super) fn found(&self, of: &protocol::Attributes) {
        if !self.is_exclusive() {
            self.remember(of, self.stamp());
        }
    }

    /// Something was done that changes the attributes.
    pub(super) fn changed(&self) {
        let mut cached = self.cached.lock();
        cached.stale = true;
        cached.changes += 1;
    }

    /// A mapping was made that can be stored to.
    pub(super) fn mapped(&self) {
        self.mapped.store(true, Ordering::Relaxed);
    }

    /// What is known of the attributes without asking.
    pub(super) fn known(&self) -> Option<Attributes> {
        if !self.is_exclusive() || self.mapped.load(Ordering::Relaxed) {
            return None;
        }
        let cached = self.cached.lock();
        (!cached.stale).then_some(cached.attributes)
    }

    /// Notes an access that the host has noted too.
    pub(super) fn accessed(&self, due: impl FnOnce(&Attributes) -> bool) {
        let mut cached = self.cached.lock();
        if due(&cached.attributes) {
            cached.attributes.atime = crate::time::now();
        }
    }

    fn open_file(&self, purpose: Purpose) -> Option<Arc<OwnedFd>> {
        self.files.lock()[purpose as usize].upgrade()
    }

    fn note_file(&self, purpose: Purpose, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        self.files.lock()[purpose as usize] = Arc::downgrade(&fd);
        self.shared.keep(&fd);
        fd
    }

    /// A descriptor for just this purpose.
    pub(super) fn file(&self, purpose: Purpose) -> Result<Arc<OwnedFd>> {
        use gofer::protocol::OpenFlags as O;
        if let Some(fd) = self.open_file(purpose) {
            return Ok(fd);
        }
        let flags = match purpose {
            Purpose::Read => O::empty(),
            Purpose::Write => O::READ_WRITE,
            Purpose::Append => O::WRITE_ONLY | O::APPEND,
        };
        let stamp = self.stamp();
        let (attributes, fd) = self.client().open(self.node, flags)?;
        self.remember(&attributes, stamp);
        Ok(self.note_file(purpose, fd))
    }

    /// A descriptor to read from.
    pub(super) fn readable(&self) -> Result<Arc<OwnedFd>> {
        match self.open_file(Purpose::Write) {
            Some(fd) => Ok(fd),
            None => self.file(Purpose::Read),
        }
    }

    /// Asks the host: by fstat where there is a descriptor, else by a request.
    fn refresh(&self) -> Result<Attributes> {
        let stamp = self.stamp();
        let open =
            [Purpose::Write, Purpose::Read, Purpose::Append].into_iter().find_map(|p| self.open_file(p));
        let ask = || {
            self.remember(&self.client().attributes(self.node)?, stamp);
            Ok(self.cached.lock().attributes)
        };
        let Some(fd) = open else { return ask() };
        let stat = nix::sys::stat::fstat(&*fd)?;
        // The sentry's user namespace on the host knows few ids: all others look like this to it.
        let unknown = stat.st_uid == OVERFLOW_ID || stat.st_gid == OVERFLOW_ID;
        if unknown && !self.is_exclusive() {
            return ask();
        }
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        let time = |tv_sec, tv_nsec| abi::time::Timespec { tv_sec, tv_nsec };
        let mut cached = self.cached.lock();
        cached.attributes = Attributes {
            mode: self.file_type.mode() | stat.st_mode & 0o7777,
            nlink: stat.st_nlink,
            // Otherwise nobody else has changed them.
            uid: if unknown { cached.attributes.uid } else { stat.st_uid },
            gid: if unknown { cached.attributes.gid } else { stat.st_gid },
            size: unsigned(stat.st_size),
            blocks: unsigned(stat.st_blocks),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            ..cached.attributes
        };
        cached.stale = cached.changes != stamp;
        Ok(cached.attributes)
    }

    /// Entries after a cookie.
    pub(super) fn read_dir(&self, cookie: u64, limit: u32) -> Result<DirBatch> {
        self.client().read_dir(self.node, cookie, limit, false)
    }

    /// Number and type of an entry. Directories are taken to be on the device of their parent, as readdir(3) does.
    pub(super) fn describe(&self, entry: &DirEntry<'_>) -> Result<(u64, FileType)> {
        let ino = self.shared.ino((self.key.0, entry.inode));
        if let Some(kind) = entry.kind {
            return Ok((ino, file_type_of(kind)));
        }
        // The host's filesystem does not tell types.
        match self.lookup(entry.name) {
            Ok(inode) => Ok((ino, inode.file_type())),
            Err(Errno::ENOENT) => Ok((ino, FileType::Regular)),
            Err(e) => Err(e),
        }
    }

    /// fsync(2) of something without a descriptor.
    pub(super) fn sync(&self, scope: SyncScope) -> Result<()> {
        self.client().sync(self.node, scope)
    }

    /// Connects to a socket of the host, if the mount allows that; the socket does not block. ECONNREFUSED.
    pub fn connect(&self, kind: SocketKind) -> Result<OwnedFd> {
        self.client().connect(self.node, kind)
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<&GoferInode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    /// A name was made in this directory.
    fn gained(&self, name: &[u8]) {
        self.names.add(&self.shared.hashing, name);
        self.changed();
    }

    /// A look-up has failed: maybe it is worth to know all names.
    fn missed(&self) -> Result<()> {
        let Some(mut listing) = self.names.missed() else { return Ok(()) };
        let mut cookie = 0;
        loop {
            let batch = self.read_dir(cookie, BATCH)?;
            for entry in batch.iter() {
                if !listing.add(&self.shared.hashing, entry.name) {
                    return Ok(());
                }
                cookie = entry.cookie;
            }
            if batch.end || batch.is_empty() {
                break;
            }
        }
        self.names.listed(&self.shared.hashing, listing);
        Ok(())
    }

    fn entry(&self, name: &[u8], entry: protocol::Entry, target: Option<Box<[u8]>>) -> Arc<dyn Inode> {
        self.gained(name);
        self.shared.inode(entry.node, &entry.attributes, target)
    }

    fn remove(&self, name: &[u8], target: &Arc<dyn Inode>, directory: bool) -> Result<()> {
        let target = GoferInode::of(target)?;
        self.client().unlink(self.node, name, directory)?;
        self.changed();
        target.lost_name();
        Ok(())
    }

    /// One of its names is gone.
    fn lost_name(&self) {
        let mut cached = self.cached.lock();
        let links = &mut cached.attributes.nlink;
        *links = if self.file_type == FileType::Directory { 0 } else { links.saturating_sub(1) };
        // With the last name, nothing but the number of links is of interest; else the host knows the time.
        cached.stale = cached.attributes.nlink > 0;
        cached.changes += 1;
    }
}

fn new_inode(new: &NewInode) -> client::NewInode {
    client::NewInode { mode: new.mode & 0o7777, uid: new.uid, gid: new.gid }
}

impl Inode for GoferInode {
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
        if let Some(known) = self.known() {
            return Ok(known);
        }
        self.refresh()
    }

    fn permission(&self, creds: &Credentials, mask: u32) -> Result<()> {
        // Mode and owner change only by requests, whose replies tell the new ones.
        let attributes = if self.is_exclusive() { self.cached.lock().attributes } else { self.refresh()? };
        permission::generic(creds, &attributes, mask)
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        let time = |update| match update {
            TimeUpdate::Now => SetTime::Now,
            TimeUpdate::At(t) => SetTime::To(Timestamp {
                seconds: t.tv_sec,
                nanoseconds: u64::try_from(t.tv_nsec).unwrap_or(0),
            }),
        };
        let new = NewAttributes {
            uid: set.uid,
            gid: set.gid,
            mode: set.mode.map(|mode| mode & 0o7777),
            size: set.size,
            accessed: set.atime.map(time),
            modified: set.mtime.map(time),
        };
        let _turn = set.size.map(|_| self.writing.lock());
        let stamp = self.stamp();
        self.remember(&self.client().set_attributes(self.node, &new)?, stamp);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let exclusive = self.is_exclusive();
        if exclusive && self.names.lack(&self.shared.hashing, name) {
            return Err(Errno::ENOENT);
        }
        let (entry, target) = match self.client().lookup(self.node, name) {
            Err(Errno::ENOENT) if exclusive => {
                // Whatever keeps the directory from being listed: the name is not there.
                let _ = self.missed();
                return Err(Errno::ENOENT);
            }
            found => found?,
        };
        Ok(self.shared.inode(entry.node, &entry.attributes, target))
    }

    fn lookups_cacheable(&self) -> bool {
        self.is_exclusive() && !self.shared.layer.load(Ordering::Relaxed)
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        use gofer::protocol::OpenFlags as O;
        let owner = new_inode(new);
        let client = self.client();
        let (entry, target) = match &new.kind {
            NewKind::Regular => {
                let made = client.create(self.node, name, O::READ_WRITE, owner)?;
                self.gained(name);
                let inode = self.shared.inode(made.node, &made.attributes, None);
                inode.note_file(Purpose::Write, made.file);
                return Ok(inode);
            }
            NewKind::Directory => (client.mkdir(self.node, name, owner)?, None),
            NewKind::Symlink(target) => {
                let entry = client.symlink(self.node, name, target, owner.uid, owner.gid)?;
                (entry, Some(target.as_slice().into()))
            }
            NewKind::Fifo => (client.mknod(self.node, name, FileKind::Fifo, owner)?, None),
            NewKind::Socket => (client.mknod(self.node, name, FileKind::Socket, owner)?, None),
            // A whiteout. Real devices of the host are out of reach.
            NewKind::CharDevice(0) => (client.mknod(self.node, name, FileKind::Character, owner)?, None),
            NewKind::CharDevice(_) | NewKind::BlockDevice(_) => return Err(Errno::EPERM),
        };
        Ok(self.entry(name, entry, target))
    }

    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        use gofer::protocol::OpenFlags as O;
        let made = self.client().create_unnamed(self.node, O::READ_WRITE, new_inode(new))?;
        let inode = self.shared.inode(made.node, &made.attributes, None);
        inode.note_file(Purpose::Write, made.file);
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = GoferInode::of(target)?;
        let stamp = target.stamp();
        let attributes = self.client().link(target.node, self.node, name)?;
        self.gained(name);
        target.remember(&attributes, stamp);
        Ok(())
    }

    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, target, false)
    }

    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, target, true)
    }

    fn rename(
        &self,
        source: Entry<'_>,
        to: &Arc<dyn Inode>,
        target: Target<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let to = GoferInode::of(to)?;
        let flags = protocol::RenameFlags::from_bits_truncate(flags.bits());
        self.client().rename((self.node, source.name), (to.node, target.name), flags)?;
        self.changed();
        to.gained(target.name);
        GoferInode::of(source.inode)?.changed();
        if let Some(target) = target.inode {
            let target = GoferInode::of(target)?;
            if flags.contains(protocol::RenameFlags::EXCHANGE) {
                target.changed();
            } else {
                target.lost_name();
            }
        }
        Ok(())
    }

    fn readlink(&self, _io: &Io<'_>) -> Result<Vec<u8>> {
        match &self.target {
            Some(target) => Ok(target.to_vec()),
            None => self.client().read_link(self.node).map(Vec::from),
        }
    }

    fn open(&self, _io: &Io<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        // Whoever calls this has the inode.
        let inode = self.me.upgrade().ok_or(Errno::EIO)?;
        match self.file_type {
            FileType::Regular => Ok(Arc::new(GoferFile::new(inode, path, flags)?)),
            FileType::Directory => Ok(Arc::new(GoferDirectory::new(inode, path, flags))),
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let cached = self.is_exclusive() && name == CAPABILITY;
        if cached && self.incapable.load(Ordering::Relaxed) {
            return Err(Errno::ENODATA);
        }
        let result = self.client().get_xattr(self.node, name).map(Vec::from);
        if cached && matches!(result, Err(Errno::ENODATA | Errno::EOPNOTSUPP)) {
            self.incapable.store(true, Ordering::Relaxed);
        }
        result
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        let flags = if create { abi::stat::XATTR_CREATE } else { 0 }
            | if replace { abi::stat::XATTR_REPLACE } else { 0 };
        self.client().set_xattr(self.node, name, value, flags)?;
        self.incapable.store(false, Ordering::Relaxed);
        self.changed();
        Ok(())
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        let names = self.client().list_xattr(self.node)?;
        Ok(names.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.client().remove_xattr(self.node, name)?;
        self.changed();
        Ok(())
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        {
            let mut inodes = self.shared.inodes.lock();
            if inodes.get(&self.key).is_some_and(|weak| weak.strong_count() == 0) {
                inodes.remove(&self.key);
            }
        }
        self.names.let_go(&self.shared.hashing);
        if !self.is_root {
            self.shared.client.forget(self.node);
        }
        if self.cached.get_mut().attributes.nlink == 0 {
            // The server's node is all that keeps the space in use. If the gofer is gone, so is the node.
            let _ = self.shared.client.flush();
        }
    }
}
