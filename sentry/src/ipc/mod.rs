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
use crate::parameters::{MSG_NEXT_ID, MSGMNI, Parameters, SEM, SEM_NEXT_ID, SHM_NEXT_ID, SHMMNI};
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
            shm: Table::new(|of| SHMMNI.get(of), &SHM_NEXT_ID),
            sem: Table::new(|of| SEM.values(of).get(3).copied().unwrap_or(0), &SEM_NEXT_ID),
            msg: Table::new(|of| MSGMNI.get(of), &MSG_NEXT_ID),
            queues: crate::fs::mqueue::mount(me.clone(), kernel.queue_bytes.clone()),
        })
    }
}
