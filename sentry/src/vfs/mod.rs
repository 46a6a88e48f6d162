//! The virtual file system: what Linux's `fs/` does above any one filesystem.
//!
//! - [`Inode`] is what a filesystem implements for each object; [`FileOps`] what it implements for each open.
//! - [`Dentry`] caches names, [`Mount`] joins trees, [`walk`] resolves paths, [`operations`] are the calls on paths.
//! - [`File`] is an open file description, [`FdTable`] the numbers that refer to them.
//!
//! Lock order: `operations::RENAME` → directory locks (`Dentry::children`, parent before child, else by address) →
//! a filesystem's own locks → [`crate::wait::WaitQueue`]. The mount table's lock is taken alone.

pub mod dentry;
pub mod fasync;
pub mod fd_table;
pub mod file;
pub mod inode;
pub mod io;
pub mod locks;
pub mod mount;
pub mod notify;
pub mod operations;
pub mod permission;
pub mod special;
pub mod walk;

pub use dentry::{Dentry, SuperBlock};
pub use fd_table::{Fd, FdFlags, FdTable};
pub use file::{File, FileOps};
pub use inode::{
    Attributes, DirSink, Entry, FileSystem, FsStatus, Inode, LinkTarget, Mappable, NewInode, NewKind,
    ObjectId, SetAttributes, Target, TimeUpdate,
};
pub use io::{Io, Sink, Source, VecSink};
pub use mount::{Mount, MountFlags, MountNamespace};
pub use walk::{FsContext, Path, WalkFlags};
