//! Namespaces as files (`/proc/PID/ns/*`), for setns(2) and to keep them alive (fs/nsfs.c, ioctl_nsfs(2)).

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::ioctl::{NS_GET_NSTYPE, NS_GET_OWNER_UID, NS_GET_PARENT, NS_GET_USERNS};
use abi::sched::CloneFlags;
use abi::stat::{FileType, NSFS_MAGIC, S_IFREG};
use abi::{Errno, Result};

use crate::Kernel;
use crate::ipc::IpcNamespace;
use crate::net::NetNamespace;
use crate::task::namespaces::{PlainNamespace, UtsNamespace};
use crate::task::{CurrentTask, Namespaces, PidNamespace, UserNamespace};
use crate::vfs::{
    Attributes, Dentry, File, FileOps, FileSystem, FsStatus, Inode, Io, Mount, MountFlags, MountNamespace,
    Path, SetAttributes, Sink, SuperBlock,
};

/// A reference to a namespace.
#[derive(Clone)]
#[allow(missing_docs, reason = "the names are those of clone(2)'s flags")]
pub enum Namespace {
    Cgroup(Arc<PlainNamespace>),
    Ipc(Arc<IpcNamespace>),
    Mount(Arc<MountNamespace>),
    Net(Arc<NetNamespace>),
    Pid(Arc<PidNamespace>),
    Time(Arc<PlainNamespace>),
    User(Arc<UserNamespace>),
    Uts(Arc<UtsNamespace>),
}

impl Namespace {
    /// Its inode number.
    pub fn ino(&self) -> u64 {
        match self {
            Namespace::Cgroup(ns) | Namespace::Time(ns) => ns.ino,
            Namespace::Ipc(ns) => ns.ino,
            Namespace::Mount(ns) => ns.ino,
            Namespace::Net(ns) => ns.ino,
            Namespace::Pid(ns) => ns.ino,
            Namespace::User(ns) => ns.ino,
            Namespace::Uts(ns) => ns.ino,
        }
    }

    /// Which kind, as the flag that makes one.
    pub fn kind(&self) -> CloneFlags {
        match self {
            Namespace::Cgroup(_) => CloneFlags::CLONE_NEWCGROUP,
            Namespace::Ipc(_) => CloneFlags::CLONE_NEWIPC,
            Namespace::Mount(_) => CloneFlags::CLONE_NEWNS,
            Namespace::Net(_) => CloneFlags::CLONE_NEWNET,
            Namespace::Pid(_) => CloneFlags::CLONE_NEWPID,
            Namespace::Time(_) => CloneFlags::CLONE_NEWTIME,
            Namespace::User(_) => CloneFlags::CLONE_NEWUSER,
            Namespace::Uts(_) => CloneFlags::CLONE_NEWUTS,
        }
    }

    /// What links show: `uts:[4026531838]`.
    pub fn name(&self) -> String {
        let kind = match self {
            Namespace::Cgroup(_) => "cgroup",
            Namespace::Ipc(_) => "ipc",
            Namespace::Mount(_) => "mnt",
            Namespace::Net(_) => "net",
            Namespace::Pid(_) => "pid",
            Namespace::Time(_) => "time",
            Namespace::User(_) => "user",
            Namespace::Uts(_) => "uts",
        };
        format!("{kind}:[{}]", self.ino())
    }

    /// The user namespace that owns it.
    fn owner(&self) -> Option<Arc<UserNamespace>> {
        match self {
            Namespace::Cgroup(ns) | Namespace::Time(ns) => Some(ns.user_ns.clone()),
            Namespace::Ipc(ns) => Some(ns.user_ns.clone()),
            Namespace::Mount(ns) => Some(ns.user_ns.clone()),
            Namespace::Net(ns) => Some(ns.user_ns.clone()),
            Namespace::Pid(ns) => Some(ns.user_ns.clone()),
            Namespace::User(ns) => ns.parent.clone(),
            Namespace::Uts(ns) => Some(ns.user_ns.clone()),
        }
    }

    /// Its place in the internal mount, which is the same for all references to one namespace.
    pub fn path(&self, kernel: &Kernel) -> Path {
        let inode = Arc::new(Node { namespace: Some(self.clone()), made: crate::time::now() });
        let mount = &kernel.nsfs.0;
        Path::new(mount.clone(), Dentry::anonymous(mount.superblock(), inode, self.name().as_bytes()))
    }

    fn open(self, kernel: &Kernel) -> Arc<File> {
        let path = self.path(kernel);
        File::new(Arc::new(NamespaceFile { namespace: self }), path, OpenFlags::empty())
    }
}

/// An open file of a namespace.
pub struct NamespaceFile {
    /// The namespace.
    pub namespace: Namespace,
}

impl NamespaceFile {
    /// The kind, namespaces among which it is (the others are the caller's), and the user namespace if it is that.
    pub fn target(&self, task: &CurrentTask) -> (CloneFlags, Arc<Namespaces>, Option<Arc<UserNamespace>>) {
        let mut all = (*task.namespaces()).clone();
        let mut user = None;
        match self.namespace.clone() {
            Namespace::Cgroup(ns) => all.cgroup = ns,
            Namespace::Ipc(ns) => all.ipc = ns,
            Namespace::Mount(ns) => all.mount = ns,
            Namespace::Net(ns) => all.net = ns,
            Namespace::Pid(ns) => all.pid_for_children = ns,
            Namespace::Time(ns) => all.time = ns,
            Namespace::User(ns) => user = Some(ns),
            Namespace::Uts(ns) => all.uts = ns,
        }
        (self.namespace.kind(), Arc::new(all), user)
    }
}

impl FileOps for NamespaceFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn ioctl(&self, task: &CurrentTask, _file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        let own = task.credentials().user_ns.clone();
        let found = match request {
            NS_GET_USERNS => {
                // Not those above the caller's own.
                let owner = self.namespace.owner().filter(|owner| owner.is_below(&own));
                Namespace::User(owner.ok_or(Errno::EPERM)?)
            }
            NS_GET_PARENT => match &self.namespace {
                Namespace::User(ns) => {
                    let parent = ns.parent.clone().filter(|parent| parent.is_below(&own));
                    Namespace::User(parent.ok_or(Errno::EPERM)?)
                }
                Namespace::Pid(ns) => {
                    let mut at = ns.parent.clone();
                    let parent = at.clone().ok_or(Errno::EPERM)?;
                    while at.as_ref().is_some_and(|ns| !Arc::ptr_eq(ns, &task.pid_ns())) {
                        at = at.and_then(|ns| ns.parent.clone());
                    }
                    at.ok_or(Errno::EPERM)?;
                    Namespace::Pid(parent)
                }
                _ => return Err(Errno::EINVAL),
            },
            NS_GET_NSTYPE => return Ok(self.namespace.kind().bits()),
            NS_GET_OWNER_UID => {
                let Namespace::User(ns) = &self.namespace else { return Err(Errno::EINVAL) };
                task.mm().write_object(arg, &own.uid(ns.owner.0))?;
                return Ok(0);
            }
            _ => return Err(Errno::ENOTTY),
        };
        Ok(task.install(found.open(task.kernel()), true)? as u64)
    }

    fn anonymous_name(&self) -> String {
        self.namespace.name()
    }
}

/// The inode of a namespace, or the root that nobody sees.
struct Node {
    namespace: Option<Namespace>,
    made: abi::time::Timespec,
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.namespace.as_ref().map_or(1, Namespace::ino)
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attributes(&self) -> Result<Attributes> {
        Ok(Attributes {
            ino: self.ino(),
            mode: S_IFREG | 0o444,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            btime: self.made,
        })
    }

    fn set_attributes(&self, _set: &SetAttributes) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        if flags.writable() {
            return Err(Errno::EPERM);
        }
        let namespace = self.namespace.clone().ok_or(Errno::ENXIO)?;
        Ok(Arc::new(NamespaceFile { namespace }))
    }
}

struct Internal(Arc<Node>);

impl FileSystem for Internal {
    fn name(&self) -> &'static str {
        "nsfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.0.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: NSFS_MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

/// The internal mount of namespaces.
pub struct NsFs(Arc<Mount>);

impl Default for NsFs {
    fn default() -> NsFs {
        let root = Arc::new(Node { namespace: None, made: crate::time::now() });
        NsFs(Mount::new(SuperBlock::make(Arc::new(Internal(root))), MountFlags::empty(), b"nsfs"))
    }
}
