//! proc: processes and the system as files (proc(5), fs/proc).
//!
//! | file | subject |
//! |---|---|
//! | `options` | mount options |
//! | `subject` | the process or thread that a directory is about |
//! | `root` | the root directory |
//! | `system`, `locks`, `sysvipc`, `arch` | files about the whole system |
//! | `process` | directories of processes and threads |
//! | `status`, `memory`, `descriptors`, `links`, `mounts`, `net`, `accounting`, `identity` | what is in them |
//! | [`sysctl`] | kernel parameters |

mod accounting;
pub(super) mod arch;
mod descriptors;
mod identity;
mod links;
mod locks;
mod memory;
mod mounts;
mod net;
mod options;
mod process;
mod root;
mod status;
mod subject;
pub mod sysctl;
mod system;
mod sysvipc;

use std::sync::Arc;

use abi::stat::PROC_SUPER_MAGIC;
use abi::{Errno, Result};

pub use options::ProcOptions;
pub(super) use status::bitmap;

use super::synthetic::{Context, Node};
use crate::Kernel;
use crate::container::Container;
use crate::task::{Pid, PidNamespace};
use crate::vfs::{FileSystem, FsStatus, Inode};

/// The inode number of the root (PROC_ROOT_INO).
const ROOT_INO: u64 = 1;

/// What a mount of proc shows.
struct Instance {
    kernel: Arc<Kernel>,
    /// Whose machine it is.
    container: Arc<Container>,
    pid_ns: Arc<PidNamespace>,
    options: parking_lot::RwLock<ProcOptions>,
}

/// The files about the whole system.
#[derive(Clone)]
struct System(Arc<Instance>);

impl Context for System {}

impl System {
    fn kernel(&self) -> &Arc<Kernel> {
        &self.0.kernel
    }

    fn container(&self) -> &Arc<Container> {
        &self.0.container
    }
}

/// The process that a directory of a proc filesystem's root is about. EBADF if it is no such directory, ESRCH if the
/// process is gone.
pub fn process_of(inode: &Arc<dyn Inode>) -> Result<Arc<Pid>> {
    match inode.as_any().downcast_ref::<Node<subject::Subject>>() {
        Some(node) if std::ptr::eq(node.entry(), &raw const process::PROCESS) => {
            node.context().pid().ok_or(Errno::ESRCH)
        }
        _ => Err(Errno::EBADF),
    }
}

/// A proc filesystem.
pub struct ProcFs {
    instance: Arc<Instance>,
    root: Arc<Node<System>>,
}

/// A proc filesystem that shows the processes of `pid_ns`, and the machine of a container.
pub fn new(
    kernel: &Arc<Kernel>,
    container: &Arc<Container>,
    pid_ns: Arc<PidNamespace>,
    options: ProcOptions,
) -> Arc<ProcFs> {
    let only_pids = options.only_pids;
    let options = parking_lot::RwLock::new(options);
    let instance =
        Arc::new(Instance { kernel: kernel.clone(), container: container.clone(), pid_ns, options });
    let entry = if only_pids { &root::ONLY_PIDS } else { &root::ROOT };
    let root = Node::new(System(instance.clone()), entry, ROOT_INO);
    Arc::new(ProcFs { instance, root })
}

impl FileSystem for ProcFs {
    fn reconfigure(&self, data: &[u8]) -> Result<()> {
        let mut options = self.instance.options.write();
        *options = options.change(data)?;
        Ok(())
    }

    fn name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: PROC_SUPER_MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }

    fn options(&self) -> String {
        self.instance.options.read().to_string()
    }
}
