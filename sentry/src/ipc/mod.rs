//! System V IPC and POSIX message queues.

use std::sync::Arc;

use crate::parameters::Parameters;
use crate::task::UserNamespace;

/// An IPC namespace (ipc_namespaces(7)).
pub struct IpcNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    /// Kernel parameters that were set.
    pub parameters: Parameters,
}

impl IpcNamespace {
    /// An empty one.
    pub fn new(user_ns: Arc<UserNamespace>) -> Arc<IpcNamespace> {
        Arc::new(IpcNamespace {
            ino: crate::task::next_namespace_ino(),
            user_ns,
            parameters: Parameters::default(),
        })
    }
}
