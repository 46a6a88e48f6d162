//! Namespaces as files (`/proc/PID/ns/*`), for setns(2).

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::sched::CloneFlags;
use abi::{Errno, Result};

use crate::task::{CurrentTask, Namespaces, UserNamespace};
use crate::vfs::{File, FileOps, Io, Sink};

/// A reference to a namespace.
pub struct NamespaceFile {
    /// Which kind, as the flag that makes one.
    pub kind: CloneFlags,
    /// The namespaces among which it is.
    pub namespaces: Arc<Namespaces>,
    /// The user namespace, if it is one.
    pub user: Option<Arc<UserNamespace>>,
}

impl NamespaceFile {
    /// An open file.
    pub fn open(self, kernel: &Arc<crate::Kernel>) -> Arc<File> {
        kernel.anonymous.file(Arc::new(self), OpenFlags::empty())
    }

    /// The kind, the namespaces it is taken from, and the user namespace if it is that.
    pub fn target(&self, _task: &CurrentTask) -> (CloneFlags, Arc<Namespaces>, Option<Arc<UserNamespace>>) {
        (self.kind, self.namespaces.clone(), self.user.clone())
    }

    /// The inode number, and the name of the kind.
    pub fn identity(&self) -> (u64, &'static str) {
        let ns = &self.namespaces;
        match self.kind {
            CloneFlags::CLONE_NEWUTS => (ns.uts.ino, "uts"),
            CloneFlags::CLONE_NEWIPC => (ns.ipc.ino, "ipc"),
            CloneFlags::CLONE_NEWNET => (ns.net.ino, "net"),
            CloneFlags::CLONE_NEWNS => (ns.mount.ino, "mnt"),
            CloneFlags::CLONE_NEWPID => (ns.pid_for_children.ino, "pid"),
            CloneFlags::CLONE_NEWCGROUP => (ns.cgroup.ino, "cgroup"),
            CloneFlags::CLONE_NEWTIME => (ns.time.ino, "time"),
            _ => (self.user.as_ref().map_or(0, |u| u.ino), "user"),
        }
    }
}

impl FileOps for NamespaceFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn anonymous_name(&self) -> String {
        let (ino, name) = self.identity();
        format!("{name}:[{ino}]")
    }
}
