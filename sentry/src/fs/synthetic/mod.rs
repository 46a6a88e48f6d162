//! Filesystems whose contents are computed when somebody looks: proc, sys and their like.
//!
//! A tree is described by static tables of [`Entry`]s. What a table's entries show depends on a [`Context`]: the
//! system, a process, a processor. A [`Node`] is the inode of an entry for one context; it is made by a lookup and
//! holds nothing but the two. Names that tables cannot list (numbers of processes) come from [`Children`].
//!
//! Nothing here takes a lock while contents are computed, except that of the open file they are kept in.

mod directory;
mod file;

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};

use crate::task::Credentials;
use crate::vfs::{Attributes, FileOps, Inode, Io, LinkTarget, NewInode, Path, SetAttributes};

pub use file::{
    Checked, Content, Fixed, Read, ReadFn, ReadWrite, Refused, Request, TextFile, WriteFn, parse_number,
};

/// Permission bits and owner (kernel ids) of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a subtree is about.
pub trait Context: Clone + Send + Sync + 'static {
    /// What stat(2) says of the size of regular files, in bytes.
    const FILE_SIZE: u64 = 0;

    /// `st_blksize`.
    const BLOCK_SIZE: u32 = 1024;

    /// Mode and owner of an entry's node. ENOENT once what the subtree is about is gone.
    fn access(&self, entry: &Entry<Self>) -> Result<Access> {
        Ok(Access { mode: entry.mode, uid: 0, gid: 0 })
    }

    /// Changes mode and owner, of which at least one is given.
    fn set_access(&self, entry: &Entry<Self>, set: &SetAttributes) -> Result<()> {
        let _ = (entry, set);
        Err(Errno::EPERM)
    }

    /// Makes something in a directory, whose inode number is `parent`. A directory of proc looks the new name up, and says
    /// what it always says of unknown names.
    fn create(&self, parent: u64, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        let _ = (parent, name, new);
        Err(Errno::ENOENT)
    }

    /// Removes a directory from a directory.
    fn remove_directory(&self, name: &[u8]) -> Result<()> {
        let _ = name;
        Err(Errno::EPERM)
    }

    /// What stat(2) says of the size of a directory.
    fn directory_size(&self, entry: &Entry<Self>) -> u64 {
        let _ = entry;
        0
    }

    /// Whether names, once looked up, stay what they are.
    fn lasts(&self) -> bool {
        true
    }

    /// May `creds` do `mask` to `node`? The default goes by mode and owner.
    fn permission(&self, node: &Node<Self>, creds: &Credentials, mask: u32) -> Result<()> {
        crate::vfs::permission::generic(creds, &node.attributes()?, mask)
    }
}

/// One name of a table.
pub struct Entry<C: Context> {
    /// The name.
    pub name: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: Kind<C>,
}

/// What an entry is.
pub enum Kind<C: Context> {
    /// A directory with these names, and what [`Children`] add.
    Directory(&'static [Entry<C>], Option<Children<C>>),
    /// A file of text.
    File(&'static dyn Content<C>),
    /// A file with operations of its own.
    Opened(fn(&C, &Io<'_>, OpenFlags) -> Result<Arc<dyn FileOps>>),
    /// A symbolic link.
    Link(fn(&C, &Io<'_>) -> Result<Vec<u8>>),
    /// A symbolic link that leads where its text does not: what it shows, and where it leads.
    Jump(fn(&C, &Io<'_>) -> Result<Vec<u8>>, fn(&C, &Io<'_>) -> Result<LinkTarget>),
    /// A directory about something else, made with this inode number.
    Tree(fn(&C, u64) -> Arc<dyn Inode>),
}

/// Receives a name: its position (which grows), the name, inode number and type. Answers whether more are wanted.
pub type Receive<'a> = dyn FnMut(u64, &[u8], u64, FileType) -> bool + 'a;

/// Finds a name in the directory with this inode number.
pub type FindFn<C> = fn(&C, u64, &[u8]) -> Result<Arc<dyn Inode>>;

/// Lists the names of the directory with this inode number from a position on.
pub type ListFn<C> = fn(&C, u64, &Io<'_>, u64, &mut Receive<'_>) -> Result<()>;

/// The names of a directory that are not in its table.
pub struct Children<C: Context> {
    /// Finds a name. The directory's inode number is given, for [`child_ino`]. ENOENT.
    pub find: FindFn<C>,
    /// Lists the names from a position on.
    pub list: ListFn<C>,
}

impl<C: Context> Entry<C> {
    /// A directory, for all to read.
    pub const fn dir(name: &'static str, entries: &'static [Entry<C>]) -> Entry<C> {
        Entry { name, mode: 0o555, kind: Kind::Directory(entries, None) }
    }

    /// A file of text, for all to read.
    pub const fn text(name: &'static str, content: &'static dyn Content<C>) -> Entry<C> {
        Entry { name, mode: 0o444, kind: Kind::File(content) }
    }

    /// A file of text with these permission bits.
    pub const fn file(name: &'static str, mode: u32, content: &'static dyn Content<C>) -> Entry<C> {
        Entry { name, mode, kind: Kind::File(content) }
    }

    /// A directory about something else.
    pub const fn tree(name: &'static str, mode: u32, make: fn(&C, u64) -> Arc<dyn Inode>) -> Entry<C> {
        Entry { name, mode, kind: Kind::Tree(make) }
    }

    /// A symbolic link.
    pub const fn link(name: &'static str, text: fn(&C, &Io<'_>) -> Result<Vec<u8>>) -> Entry<C> {
        Entry { name, mode: 0o777, kind: Kind::Link(text) }
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            Kind::Directory(..) | Kind::Tree(_) => FileType::Directory,
            Kind::File(_) | Kind::Opened(_) => FileType::Regular,
            Kind::Link(_) | Kind::Jump(..) => FileType::Symlink,
        }
    }
}

/// The inode of an entry.
pub struct Node<C: Context> {
    context: C,
    entry: &'static Entry<C>,
    ino: u64,
    made: Timespec,
}

impl<C: Context> Node<C> {
    /// The inode number is `ino`.
    pub fn new(context: C, entry: &'static Entry<C>, ino: u64) -> Arc<Node<C>> {
        Arc::new(Node { context, entry, ino, made: crate::time::now() })
    }

    /// What it is about.
    pub fn context(&self) -> &C {
        &self.context
    }

    /// Its entry.
    pub fn entry(&self) -> &'static Entry<C> {
        self.entry
    }

    fn stat(&self, access: Access) -> Attributes {
        let (nlink, size) = match &self.entry.kind {
            Kind::Directory(entries, _) => {
                let subdirectories = entries.iter().filter(|e| e.file_type() == FileType::Directory).count();
                (2 + subdirectories as u64, self.context.directory_size(self.entry))
            }
            Kind::Tree(_) => (2, 0),
            Kind::File(_) | Kind::Opened(_) => (1, C::FILE_SIZE),
            Kind::Link(_) => (1, 0),
            Kind::Jump(..) => (1, 64),
        };
        Attributes {
            ino: self.ino,
            mode: self.entry.file_type().mode() | access.mode,
            nlink,
            uid: access.uid,
            gid: access.gid,
            rdev: 0,
            size,
            blocks: 0,
            blksize: C::BLOCK_SIZE,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            btime: self.made,
        }
    }
}

/// The inode number of a name in a directory: the same whenever it is looked up. `identity` tells apart what bears the
/// same name one after the other.
pub fn child_ino(parent: u64, name: &[u8], identity: u64) -> u64 {
    // FNV-1a. What two names of a filesystem have in common by chance is at worst taken for a hard link.
    let bytes = parent.to_le_bytes().into_iter().chain(identity.to_le_bytes()).chain(name.iter().copied());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 44) & ((1 << 44) - 1) | 1 << 44
}

impl<C: Context> Inode for Node<C> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        self.entry.file_type()
    }

    fn attributes(&self) -> Result<Attributes> {
        // Only an open file or a working directory can be of something that is gone.
        Ok(self.stat(self.context.access(self.entry).unwrap_or_default()))
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        // Times and lengths mean nothing here, but setting them is no error (O_TRUNC).
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            self.context.set_access(self.entry, set)
        } else {
            Ok(())
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Kind::Directory(entries, children) = &self.entry.kind else { return Err(Errno::ENOTDIR) };
        self.context.access(self.entry)?;
        match (entries.iter().find(|e| e.name.as_bytes() == name), children) {
            (Some(entry), _) => {
                let ino = child_ino(self.ino, name, 0);
                match entry.kind {
                    Kind::Tree(make) => Ok(make(&self.context, ino)),
                    _ => Ok(Node::new(self.context.clone(), entry, ino)),
                }
            }
            (None, Some(children)) => (children.find)(&self.context, self.ino, name),
            (None, None) => Err(Errno::ENOENT),
        }
    }

    fn lookups_cacheable(&self) -> bool {
        let fixed = matches!(self.entry.kind, Kind::Directory(_, None));
        fixed && self.context.lasts()
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        self.context.create(self.ino, name, new)
    }

    fn rmdir(&self, name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        self.context.remove_directory(name)
    }

    fn readlink(&self, io: &Io<'_>) -> Result<Vec<u8>> {
        match self.entry.kind {
            Kind::Link(text) | Kind::Jump(text, _) => text(&self.context, io),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self, io: &Io<'_>) -> Result<LinkTarget> {
        match self.entry.kind {
            Kind::Link(text) => text(&self.context, io).map(LinkTarget::Text),
            Kind::Jump(_, target) => target(&self.context, io),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, io: &Io<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match self.entry.kind {
            Kind::Directory(..) => Ok(Arc::new(directory::Directory::<C>::new(path))),
            Kind::File(content) => Ok(Arc::new(TextFile::open(self.context.clone(), content, io, flags)?)),
            Kind::Opened(open) => open(&self.context, io, flags),
            Kind::Link(_) | Kind::Jump(..) | Kind::Tree(_) => Err(Errno::ELOOP),
        }
    }

    fn permission(&self, creds: &Credentials, mask: u32) -> Result<()> {
        self.context.permission(self, creds, mask)
    }
}
