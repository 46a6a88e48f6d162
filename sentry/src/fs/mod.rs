//! The filesystems and file types.

pub mod access_time;
pub mod anonymous;
pub mod cgroup;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod inotify;
pub mod memfd;
pub mod mount_context;
pub mod mqueue;
pub mod nsfs;
pub mod overlay;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod signalfd;
pub mod synthetic;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;

use std::sync::Arc;

use crate::Kernel;
use crate::container::Container;
use crate::ipc::IpcNamespace;
use crate::task::Credentials;
use crate::vfs::{Dentry, FileSystem, SuperBlock};

/// Registers the character device drivers.
pub(crate) fn register_drivers(kernel: &Arc<Kernel>) {
    kernel.drivers.register(dev::MAJOR, Arc::new(dev::MemoryDevices));
    tty::register_drivers(kernel);
}

/// True for the types that [`make`] makes.
pub fn is_known(kind: &str) -> bool {
    matches!(kind, "tmpfs" | "ramfs" | "devpts" | "proc" | "sysfs" | "cgroup2" | "devtmpfs" | "mqueue")
}

/// Who mounts a filesystem.
pub struct Mounter<'a> {
    /// The kernel.
    pub kernel: &'a Arc<Kernel>,
    /// Whose machine and cgroups are shown.
    pub container: &'a Arc<Container>,
    /// Whose processes are shown.
    pub pid_ns: &'a Arc<crate::task::PidNamespace>,
    /// Whose message queues are shown.
    pub ipc: &'a IpcNamespace,
    /// To whom a new root belongs, and whose ids the options name.
    pub creds: &'a Credentials,
}

/// The root of a filesystem for mount(2). ENODEV for a type that is not there.
pub fn make(from: &Mounter<'_>, kind: &str, data: &[u8]) -> crate::Result<Arc<Dentry>> {
    let Mounter { kernel, container, pid_ns, ipc, creds } = *from;
    if kind == "mqueue" {
        // All mounts of a namespace's queues are of one filesystem.
        return Ok(ipc.queues.root().clone());
    }
    let fs: Arc<dyn FileSystem> = match kind {
        "tmpfs" | "ramfs" => {
            let memory = container.memory();
            tmpfs::Tmpfs::new(&tmpfs::TmpfsOptions::new(memory).owned(creds).parse(data, memory)?)
        }
        "devpts" => tty::Devpts::new(kernel, tty::DevptsOptions::parse(data)?.mapped(&creds.user_ns)?),
        "proc" => proc::new(kernel, container, pid_ns.clone(), proc::ProcOptions::parse(data)?),
        "sysfs" => sys::new(kernel, container),
        "cgroup2" => cgroup::new(kernel, container),
        "devtmpfs" => dev::new(container.memory())?,
        _ => return Err(crate::Errno::ENODEV),
    };
    Ok(SuperBlock::make(fs))
}
