//! What a filesystem implements for each of its objects.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::fcntl::{OpenFlags, RenameFlags};
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use platform::Prot;

use super::walk::Path;
use super::{File, FileOps, Io};
use crate::task::Credentials;

/// Identity of a filesystem object: what file locks, inotify watches, shared futexes and bound sockets are keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Device number of the superblock.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// What stat(2) tells, but for the device number, which is the superblock's. Ids are kernel ids (those of the initial
/// user namespace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are stat(2)'s")]
pub struct Attributes {
    pub ino: u64,
    /// File type and permission bits.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub btime: Timespec,
}

impl Attributes {
    /// The file type in the mode.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
}

/// A new time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUpdate {
    /// The current time.
    Now,
    /// This time.
    At(Timespec),
}

/// A change of attributes (notify_change); `None` leaves a field alone. Permission has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits (07777); the type stays.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes: truncate or extend.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<TimeUpdate>,
    /// Modification time.
    pub mtime: Option<TimeUpdate>,
}

/// An inode to be made by [`Inode::create`].
#[derive(Clone, Debug)]
pub struct NewInode {
    /// What.
    pub kind: NewKind,
    /// Permission bits (07777), umask already applied. Setgid inheritance has been applied too.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What kind of inode is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(u64),
    /// A block device.
    BlockDevice(u64),
}

/// Where a symbolic link leads.
pub enum LinkTarget {
    /// A path, to be walked.
    Text(Vec<u8>),
    /// The object itself (the magic links of proc).
    Jump(Path),
    /// An open file without a path of its own (`/proc/self/fd/N` of a pipe or socket): opening it opens `File` anew.
    File(Arc<File>),
}

/// Receives directory entries.
pub trait DirSink {
    /// Takes one entry; `next` is the offset from which the listing goes on after it. Returns false when full, and
    /// then the entry was not taken.
    fn entry(&mut self, next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool;

    /// Takes `.` and `..`, whose offsets are 0 and 1, as far as the reader is not behind them. Returns the offset from
    /// which the listing goes on; as an error if the sink is full.
    fn dots(&mut self, offset: u64, own: u64, parent: u64) -> std::result::Result<u64, u64> {
        let mut at = offset;
        for (position, name, ino) in [(0, &b"."[..], own), (1, b"..", parent)] {
            if at == position {
                if !self.entry(position + 1, ino, FileType::Directory, name) {
                    return Err(at);
                }
                at = position + 1;
            }
        }
        Ok(at)
    }
}

/// A thing whose pages can be mapped: a host file, a memfd.
pub trait Mappable: Send + Sync {
    /// The identity that shared futexes and `/proc/PID/maps` show.
    fn object(&self) -> ObjectId;

    /// A host fd that permits just the access asked for, to be mapped at the file offset plus the number returned.
    /// `shared` with `Prot::WRITE` needs a writable one; anything else gets a read-only one.
    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)>;

    /// How many bytes it has, if that is known without asking anybody.
    fn known_size(&self) -> Option<u64> {
        None
    }

    /// True if it reads as zeroes, and a private mapping of it is just memory of the process (`/dev/zero`).
    fn is_zero(&self) -> bool {
        false
    }

    /// True if the handles to it are counted, one for each mapping: a copy of an address space takes new ones.
    fn counts_mappings(&self) -> bool {
        false
    }
}

/// A name in a directory and what it stands for.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode.
    pub inode: &'a Arc<dyn Inode>,
}

/// The name that something is renamed to, and what it stands for by now, if anything.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode that is replaced or exchanged.
    pub inode: Option<&'a Arc<dyn Inode>>,
}

/// A filesystem object. All methods may be called from any thread; the VFS holds the directory's lock during `lookup`
/// and every method that changes the directory, has checked permission, name length and read-only mounts, and keeps
/// `.` and `..` away.
#[allow(unused_variables, reason = "the defaults refuse")]
pub trait Inode: Send + Sync + Any {
    /// For downcasts within a filesystem.
    fn as_any(&self) -> &dyn Any;

    /// The inode number, by which locks, watches and futexes know it. As [`Attributes::ino`], except where Linux
    /// changes that in an inode's life (overlays).
    fn ino(&self) -> u64;

    /// The file type. Never changes.
    fn file_type(&self) -> FileType;

    /// stat(2).
    fn attributes(&self) -> Result<Attributes>;

    /// chmod, chown, truncate, utimens in one.
    fn set_attributes(&self, set: &SetAttributes) -> Result<()>;

    /// Finds a name in a directory. ENOENT if there is none.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Whether the VFS may remember what `lookup` answered, also "no", until it changes the directory itself.
    fn lookups_cacheable(&self) -> bool {
        true
    }

    /// Makes a new entry. EEXIST if the name is taken behind the VFS's back.
    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Makes an unnamed regular file (O_TMPFILE).
    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a hard link to `target`, an inode of the same superblock.
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes the entry of something that is no directory.
    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes an empty directory; ENOTEMPTY.
    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Renames `source`, the entry `name`, to a name of a directory of the same superblock. A target that exists is
    /// replaced (types have been checked; ENOTEMPTY is for the filesystem to say); RENAME_EXCHANGE swaps;
    /// RENAME_NOREPLACE has been checked already; RENAME_WHITEOUT is EINVAL unless the filesystem knows it.
    fn rename(
        &self,
        source: Entry<'_>,
        to: &Arc<dyn Inode>,
        target: Target<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// The target of a symbolic link, as readlink(2) shows it.
    fn readlink(&self, io: &Io<'_>) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where a symbolic link leads when it is followed.
    fn follow(&self, io: &Io<'_>) -> Result<LinkTarget> {
        self.readlink(io).map(LinkTarget::Text)
    }

    /// Opens a regular file or a directory (or what the filesystem alone knows how to open, with `flags` as given).
    /// Fifos, sockets and devices are opened by the VFS. O_TRUNC has been carried out.
    fn open(&self, io: &Io<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;

    /// True if fifos, sockets and devices of this inode are opened by [`Inode::open`] instead of by number.
    fn opens_special(&self) -> bool {
        false
    }

    /// May `creds` do this (a mask of 4 read, 2 write, 1 execute)? The default is Linux's generic_permission.
    fn permission(&self, creds: &Credentials, mask: u32) -> Result<()> {
        super::permission::generic(creds, &self.attributes()?, mask)
    }

    /// getxattr(2); ENODATA if there is none.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// setxattr(2); `create`/`replace` are XATTR_CREATE and XATTR_REPLACE.
    fn set_xattr(&self, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// listxattr(2).
    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// removexattr(2).
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// FS_IOC_GETFLAGS-like inode flags that the VFS enforces (immutable, append-only); none by default.
    fn inode_flags(&self) -> u32 {
        0
    }
}

/// statfs(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are statfs(2)'s")]
pub struct FsStatus {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

/// What a filesystem implements once for each superblock.
pub trait FileSystem: Send + Sync + Any {
    /// The type's name, as in `/proc/filesystems`.
    fn name(&self) -> &'static str;

    /// The root directory (or file, for a bind mount of a file).
    fn root(&self) -> Arc<dyn Inode>;

    /// statfs(2).
    fn status(&self) -> Result<FsStatus>;

    /// syncfs(2).
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// From now on, directories change behind the VFS's back too: the filesystem becomes a layer of an overlay. Its
    /// inodes must no longer say that lookups can be remembered.
    fn become_layer(&self) {}

    /// mount(2) with MS_REMOUNT: takes new options. EINVAL. The default has none.
    fn reconfigure(&self, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The options that `/proc/mounts` shows after `rw`/`ro` and the mount's own.
    fn options(&self) -> String {
        String::new()
    }

    /// Where the root is in a filesystem of which nothing else is to be seen: an absolute path, or nothing for its top.
    fn subtree(&self) -> &[u8] {
        b""
    }

    /// The source that `/proc/mounts` shows unless the mount says otherwise.
    fn source(&self) -> String {
        self.name().to_string()
    }
}
