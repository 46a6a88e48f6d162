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

/// Registers the character device drivers.
pub(crate) fn register_drivers(kernel: &Arc<Kernel>) {
    kernel.drivers.register(dev::MAJOR, Arc::new(dev::MemoryDevices));
    tty::register_drivers(kernel);
}

/// Makes a filesystem for mount(2), by a process of `pid_ns`. ENODEV for a type that is not there.
pub fn make(
    kernel: &Arc<Kernel>,
    pid_ns: &Arc<crate::task::PidNamespace>,
    kind: &str,
    _source: &[u8],
    data: &[u8],
) -> crate::Result<Arc<dyn crate::vfs::FileSystem>> {
    match kind {
        "tmpfs" | "ramfs" => {
            let memory = kernel.memory;
            Ok(tmpfs::Tmpfs::new(&tmpfs::TmpfsOptions::new(memory).parse(data, memory)?))
        }
        "devpts" => Ok(tty::Devpts::new(kernel, tty::DevptsOptions::parse(data)?)),
        "proc" => Ok(proc::new(kernel, pid_ns.clone(), proc::ProcOptions::parse(data)?)),
        "sysfs" => Ok(sys::new(kernel)),
        "cgroup2" => Ok(cgroup::new(kernel)),
        "devtmpfs" => dev::new(kernel),
        _ => Err(crate::Errno::ENODEV),
    }
}
