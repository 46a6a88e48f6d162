//! cgroup2: groups of processes as directories (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
//!
//! Groups can be made, entered, listed, killed and removed; what they use is shown. Limits that are written to a group's
//! files are kept and shown, but not enforced: the limits of the container, which the root shows, are those of the host's
//! cgroup.

mod files;
mod hierarchy;

use std::sync::Arc;

use abi::stat::CGROUP2_SUPER_MAGIC;
use abi::stat::FileType;
use abi::{Errno, Result};

pub use hierarchy::{Cgroup, Hierarchy};

use super::synthetic::{Access, Children, Context, Entry, Kind, Node, Receive, child_ino};
use crate::Kernel;
use crate::container::Container;
use crate::task::{Task, ThreadGroup};
use crate::vfs::permission::WRITE;
use crate::vfs::{File, FileSystem, FsStatus, Inode, Io, NewInode, NewKind, SetAttributes};

/// A group, as a directory.
#[derive(Clone)]
struct Group {
    kernel: Arc<Kernel>,
    /// Whose hierarchy it is.
    container: Arc<Container>,
    group: Arc<Cgroup>,
}

impl Context for Group {
    const BLOCK_SIZE: u32 = 4096;

    fn access(&self, entry: &Entry<Group>) -> Result<Access> {
        Ok(self.group.access(entry.name).unwrap_or(Access { mode: entry.mode, uid: 0, gid: 0 }))
    }

    fn set_access(&self, entry: &Entry<Group>, set: &SetAttributes) -> Result<()> {
        let old = self.access(entry)?;
        let new = Access {
            mode: set.mode.unwrap_or(old.mode) & 0o7777,
            uid: set.uid.unwrap_or(old.uid),
            gid: set.gid.unwrap_or(old.gid),
        };
        self.group.set_access(entry.name, new);
        Ok(())
    }

    fn create(&self, parent: u64, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        match new.kind {
            NewKind::Directory => {
                let access = Access { mode: new.mode, uid: new.uid, gid: new.gid };
                let group = self.kernel.cgroups.make(&self.group, name, access)?;
                Ok(self.below(parent, name, group))
            }
            NewKind::Regular => Err(Errno::EACCES),
            _ => Err(Errno::EPERM),
        }
    }

    fn remove_directory(&self, name: &[u8]) -> Result<()> {
        self.kernel.cgroups.remove(&self.kernel, &self.group, name)
    }
}

impl Group {
    fn below(&self, parent: u64, name: &[u8], group: Arc<Cgroup>) -> Arc<dyn Inode> {
        let ino = child_ino(parent, name, group.id);
        let context = Group { kernel: self.kernel.clone(), container: self.container.clone(), group };
        Node::new(context, &GROUP, ino)
    }
}

const GROUPS: Children<Group> = Children { find, list };

/// The root, which is that of the container's own cgroup namespace: it has the files of any other group.
static GROUP: Entry<Group> =
    Entry { name: "", mode: 0o755, kind: Kind::Directory(files::FILES, Some(GROUPS)) };

fn find(group: &Group, parent: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    let child = group.group.child(name)?;
    Ok(group.below(parent, name, child))
}

fn list(group: &Group, parent: u64, _io: &Io<'_>, from: u64, receive: &mut Receive<'_>) -> Result<()> {
    let mut children = group.group.children();
    // Numbers as positions: they stay when others come and go.
    children.sort_by_key(|(_, child)| child.id);
    for (name, child) in children.iter().filter(|(_, child)| child.id >= from) {
        if !receive(child.id, name, child_ino(parent, name, child.id), FileType::Directory) {
            break;
        }
    }
    Ok(())
}

/// A cgroup2 filesystem.
pub struct CgroupFs {
    root: Arc<Node<Group>>,
}

/// The hierarchy of a container.
pub fn new(kernel: &Arc<Kernel>, container: &Arc<Container>) -> Arc<CgroupFs> {
    let (container, group) = (container.clone(), container.cgroup.clone());
    let root = Group { kernel: kernel.clone(), container, group };
    Arc::new(CgroupFs { root: Node::new(root, &GROUP, 1) })
}

impl FileSystem for CgroupFs {
    fn name(&self) -> &'static str {
        "cgroup2"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: CGROUP2_SUPER_MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

/// The group whose directory is open, for a process to be made in it (CLONE_INTO_CGROUP). EBADF if it is no such
/// directory, EACCES for who may not write its `cgroup.procs`.
pub fn to_enter(task: &Task, directory: &File) -> Result<Arc<Cgroup>> {
    let inode = directory.path().inode();
    let node = inode.as_any().downcast_ref::<Node<Group>>().ok_or(Errno::EBADF)?;
    if !std::ptr::eq(node.entry(), &raw const GROUP) {
        return Err(Errno::EBADF);
    }
    inode.lookup(b"cgroup.procs")?.permission(&task.credentials(), WRITE)?;
    Ok(node.context().group.clone())
}

/// The cgroup of a process as `/proc/PID/cgroup` shows it.
pub fn path_of(kernel: &Kernel, process: &ThreadGroup) -> Vec<u8> {
    kernel.cgroups.of(process).path()
}
