//! System V IPC and POSIX message queues (sysvipc(7), mq_overview(7), ipc/).
//!
//! Lock order: a table's lock → one object's lock → its wait queue.

pub mod ids;
pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

use std::sync::Arc;

use crate::Kernel;
use crate::parameters::Parameters;
use crate::task::UserNamespace;
use crate::vfs::Mount;
use ids::Table;

/// An IPC namespace (ipc_namespaces(7)).
pub struct IpcNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    /// Kernel parameters that were set.
    pub parameters: Parameters,
    /// Shared memory segments.
    pub shm: Table<shm::Segment>,
    /// Semaphore sets.
    pub sem: Table<sem::Set>,
    /// Message queues.
    pub msg: Table<msg::Queue>,
    /// POSIX message queues.
    pub queues: Arc<Mount>,
}

impl IpcNamespace {
    /// An empty one.
    pub fn new(kernel: &Kernel, user_ns: Arc<UserNamespace>) -> Arc<IpcNamespace> {
        Arc::new_cyclic(|me| IpcNamespace {
            ino: crate::task::next_namespace_ino(),
            user_ns,
            parameters: Parameters::default(),
            shm: Table::new(abi::ipc::SHMMNI as usize),
            sem: Table::new(abi::ipc::SEMMNI as usize),
            msg: Table::new(abi::ipc::MSGMNI as usize),
            queues: crate::fs::mqueue::mount(me.clone(), kernel.queue_bytes.clone()),
        })
    }
}
