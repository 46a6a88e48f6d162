//! Sockets: AF_UNIX, AF_INET and AF_INET6 on loopback, AF_NETLINK.

use std::sync::Arc;

use crate::parameters::Parameters;
use crate::task::UserNamespace;

/// A network namespace (network_namespaces(7)).
pub struct NetNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    /// Kernel parameters that were set.
    pub parameters: Parameters,
}

impl NetNamespace {
    /// With nothing but a loopback device.
    pub fn new(user_ns: Arc<UserNamespace>) -> Arc<NetNamespace> {
        Arc::new(NetNamespace {
            ino: crate::task::next_namespace_ino(),
            user_ns,
            parameters: Parameters::default(),
        })
    }
}
