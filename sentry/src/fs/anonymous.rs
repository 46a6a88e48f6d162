//! The internal mounts of files that have no name in any directory: pipes, sockets, and the rest (anon_inodefs).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::fcntl::OpenFlags;
use abi::stat::{FileType, S_IFIFO, S_IFSOCK};
use abi::time::Timespec;
use abi::{Errno, Result};

use crate::vfs::{
    Attributes, Dentry, File, FileOps, FileSystem, FsStatus, Inode, Io, Mount, MountFlags, Path,
    SetAttributes, SuperBlock,
};

/// What stat(2) says of a nameless file.
struct Node {
    ino: u64,
    mode: u32,
    owner: parking_lot::RwLock<(u32, u32, u32)>,
    created: Timespec,
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        // Anonymous inodes of Linux have no type in their mode.
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }

    fn attributes(&self) -> Result<Attributes> {
        let (uid, gid, permissions) = *self.owner.read();
        Ok(Attributes {
            ino: self.ino,
            mode: self.mode & abi::stat::S_IFMT | permissions,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: self.created,
            mtime: self.created,
            ctime: self.created,
            btime: self.created,
        })
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        let mut owner = self.owner.write();
        *owner = (set.uid.unwrap_or(owner.0), set.gid.unwrap_or(owner.1), set.mode.unwrap_or(owner.2));
        Ok(())
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

struct Internal {
    name: &'static str,
    magic: u64,
    root: Arc<Node>,
}

impl FileSystem for Internal {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: self.magic, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

fn internal(name: &'static str, magic: u64) -> Arc<Mount> {
    let root = Arc::new(Node {
        ino: 1,
        mode: abi::stat::S_IFDIR,
        owner: parking_lot::RwLock::new((0, 0, 0o555)),
        created: crate::time::now(),
    });
    let dentry = SuperBlock::make(Arc::new(Internal { name, magic, root }));
    Mount::new(dentry, MountFlags::empty(), name.as_bytes())
}

/// The internal mounts.
pub struct AnonymousFs {
    pipes: Arc<Mount>,
    sockets: Arc<Mount>,
    others: Arc<Mount>,
    next: AtomicU64,
}

impl AnonymousFs {
    /// Makes them.
    #[allow(clippy::new_without_default, reason = "it makes mounts")]
    pub fn new() -> AnonymousFs {
        AnonymousFs {
            pipes: internal("pipefs", 0x5049_5045),
            sockets: internal("sockfs", 0x534f_434b),
            others: internal("anon_inodefs", 0x0904_1934),
            next: AtomicU64::new(1000),
        }
    }

    fn path(&self, mount: &Arc<Mount>, mode: u32, permissions: u32, owner: (u32, u32)) -> Path {
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        let owner = parking_lot::RwLock::new((owner.0, owner.1, permissions));
        let node = Arc::new(Node { ino, mode, owner, created: crate::time::now() });
        Path::new(mount.clone(), Dentry::anonymous(mount.superblock(), node, b""))
    }

    /// A new pipe's place.
    pub fn pipe(&self, owner: (u32, u32)) -> Path {
        self.path(&self.pipes, S_IFIFO, 0o600, owner)
    }

    /// A new socket's place.
    pub fn socket(&self, owner: (u32, u32)) -> Path {
        self.path(&self.sockets, S_IFSOCK, 0o777, owner)
    }

    /// An open file of another kind: eventfd, epoll, timerfd and so on.
    pub fn file(&self, ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<File> {
        File::new(ops, self.path(&self.others, 0, 0o600, (0, 0)), flags)
    }
}

/// The inode number of a pipe, a socket or another nameless file, for names such as `pipe:[17]`.
pub fn ino(file: &File) -> u64 {
    file.path().inode().ino()
}
