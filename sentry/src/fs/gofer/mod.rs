//! Files of the host, by way of the gofer: the filesystem over [`gofer::Client`].
//!
//! The sentry names things by requests, and reads, writes and maps the descriptors that come back. In *exclusive* mode
//! nobody else changes the files: names and attributes are remembered. In *shared* mode every lookup and every
//! question for attributes goes to the host.
//!
//! An inode is what the host says it is: there is one object for each (device, inode) pair, however it was reached, so
//! that locks, watches and futexes of two names meet. The node that the server holds for it keeps the host's inode,
//! and thus its number, from being used again.
//!
//! Descriptors are opened when something is opened or read, and are shared by all who have the same inode open. A
//! limited number of the last ones is kept: programs open the same files again and again.
//!
//! Host calls made here, besides the client's: pread, pwrite, fstat, lseek, ftruncate, fallocate, fsync, fdatasync.
//!
//! Lock order: `inodes`; an inode's `attributes`; its `files`; its `names`; `kept`. All are leaves, and none is held during a request
//! or a host call, except that writers of one file take turns by its `writing`.

mod file;
mod inode;
mod names;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::Result;
use abi::stat::FileType;
use gofer::Client;
use gofer::client::Root;
use gofer::protocol::{self, FileKind, NodeId, SyncScope, Timestamp};
use parking_lot::Mutex;

pub use inode::GoferInode;

use crate::vfs::{Attributes, FileSystem, FsStatus, Inode};

/// How many descriptors are kept open that nobody uses.
const KEPT: usize = 128;

/// Device and inode number on the host.
type Key = (u64, u64);

/// Who else uses the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Exclusive,
    /// The host, or other sandboxes.
    Shared,
}

/// What all inodes of a filesystem share.
struct Shared {
    client: Arc<Client>,
    access: Access,
    /// See [`FileSystem::become_layer`].
    layer: AtomicBool,
    /// The device that the root is on. Numbers of inodes on others are made up.
    dev: u64,
    inodes: Mutex<HashMap<Key, Weak<GoferInode>>>,
    kept: Mutex<VecDeque<Arc<OwnedFd>>>,
    hashing: names::Hashing,
}

impl Shared {
    /// The number that the guest sees. Inodes of the root's device keep theirs; others (there are some when something
    /// is mounted below the root) get one that is theirs with all likelihood.
    fn ino(&self, (dev, ino): Key) -> u64 {
        if dev == self.dev {
            return ino;
        }
        let mixed = (dev ^ self.dev).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ ino;
        mixed | 1 << 63
    }

    /// The inode that an entry of a reply is about; takes over the node.
    fn inode(
        self: &Arc<Shared>,
        node: NodeId,
        attributes: &protocol::Attributes,
        target: Option<Box<[u8]>>,
    ) -> Arc<GoferInode> {
        let key = key(attributes);
        let mut inodes = self.inodes.lock();
        let known = inodes.get(&key).and_then(Weak::upgrade);
        if let Some(known) = &known
            // A hostile server may change its mind about a type.
            && Some(known.file_type()) == file_type(attributes)
        {
            drop(inodes);
            self.client.forget(node);
            known.found(attributes);
            return known.clone();
        }
        let new = GoferInode::new(self, node, attributes, target);
        inodes.insert(key, Arc::downgrade(&new));
        // Before `known`, whose end would need the lock.
        drop(inodes);
        new
    }

    /// Keeps a descriptor open for some time.
    fn keep(&self, fd: &Arc<OwnedFd>) {
        let mut kept = self.kept.lock();
        kept.push_back(fd.clone());
        let oldest = if kept.len() > KEPT { kept.pop_front() } else { None };
        drop(kept);
        drop(oldest);
    }
}

fn key(attributes: &protocol::Attributes) -> Key {
    (u64::from(attributes.dev_major) << 32 | u64::from(attributes.dev_minor), attributes.inode)
}

fn file_type(attributes: &protocol::Attributes) -> Option<FileType> {
    attributes.kind().map(file_type_of)
}

fn file_type_of(kind: FileKind) -> FileType {
    match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Character => FileType::CharDevice,
        FileKind::Directory => FileType::Directory,
        FileKind::Block => FileType::BlockDevice,
        FileKind::Regular => FileType::Regular,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Socket => FileType::Socket,
    }
}

fn time(time: Timestamp) -> abi::time::Timespec {
    abi::time::Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds as i64 }
}

fn attributes(ino: u64, from: &protocol::Attributes) -> Attributes {
    Attributes {
        ino,
        mode: from.mode,
        nlink: from.links.into(),
        uid: from.uid,
        gid: from.gid,
        rdev: abi::stat::makedev(from.rdev_major, from.rdev_minor),
        size: from.size,
        blocks: from.blocks,
        blksize: from.block_size,
        atime: time(from.accessed),
        mtime: time(from.modified),
        ctime: time(from.changed),
        btime: time(from.born),
    }
}

/// A mount of a gofer's.
pub struct GoferFs {
    shared: Arc<Shared>,
    root: Arc<GoferInode>,
    id: Key,
    subtree: Box<[u8]>,
}

impl GoferFs {
    /// Attaches the mount with this index. `subtree` is its place on the host, as mountinfo is to show it, or empty.
    pub fn new(client: Arc<Client>, mount: u32, access: Access, subtree: &[u8]) -> Result<Arc<GoferFs>> {
        let Root { node, attributes, .. } = client.attach(mount)?;
        let dev = key(&attributes).0;
        let shared = Arc::new(Shared {
            client,
            access,
            layer: false.into(),
            dev,
            inodes: Mutex::default(),
            kept: Mutex::default(),
            hashing: names::Hashing::default(),
        });
        let root = GoferInode::root(&shared, node, &attributes);
        shared.inodes.lock().insert(key(&attributes), Arc::downgrade(&root));
        Ok(Arc::new(GoferFs { shared, root, id: key(&attributes), subtree: subtree.into() }))
    }
}

impl GoferFs {
    /// Device and inode number of the root on the host.
    pub fn host_id(&self) -> (u64, u64) {
        self.id
    }
}

impl FileSystem for GoferFs {
    fn name(&self) -> &'static str {
        "9p"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        let status = self.shared.client.statfs(self.root.node())?;
        Ok(FsStatus {
            magic: status.kind,
            block_size: status.block_size,
            blocks: status.blocks,
            blocks_free: status.blocks_free,
            blocks_available: status.blocks_available,
            files: status.files,
            files_free: status.files_free,
            name_max: status.name_max,
        })
    }

    fn sync(&self) -> Result<()> {
        self.shared.client.sync(self.root.node(), SyncScope::Filesystem)
    }

    fn become_layer(&self) {
        self.shared.layer.store(true, Ordering::Relaxed);
    }

    fn subtree(&self) -> &[u8] {
        &self.subtree
    }

    fn options(&self) -> String {
        match self.shared.access {
            Access::Exclusive => "cache=loose".to_string(),
            Access::Shared => "cache=none".to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
