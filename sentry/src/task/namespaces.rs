//! The namespaces of a task (nsproxy).

use std::sync::Arc;

use parking_lot::RwLock;

use super::credentials::UserNamespace;
use super::pid::PidNamespace;
use crate::ipc::IpcNamespace;
use crate::net::NetNamespace;
use crate::vfs::MountNamespace;

/// Host and domain name (uts_namespaces(7)).
pub struct UtsNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    names: RwLock<(Vec<u8>, Vec<u8>)>,
}

impl UtsNamespace {
    /// With these names.
    pub fn new(hostname: &[u8], domainname: &[u8], user_ns: Arc<UserNamespace>) -> Arc<UtsNamespace> {
        let names = RwLock::new((hostname.to_vec(), domainname.to_vec()));
        Arc::new(UtsNamespace { ino: super::next_namespace_ino(), user_ns, names })
    }

    /// The host name.
    pub fn hostname(&self) -> Vec<u8> {
        self.names.read().0.clone()
    }

    /// The domain name.
    pub fn domainname(&self) -> Vec<u8> {
        self.names.read().1.clone()
    }

    /// sethostname(2); at most 64 bytes, checked by the caller.
    pub fn set_hostname(&self, name: &[u8]) {
        self.names.write().0 = name.to_vec();
    }

    /// setdomainname(2).
    pub fn set_domainname(&self, name: &[u8]) {
        self.names.write().1 = name.to_vec();
    }
}

/// A namespace that only has an identity here: cgroup and time namespaces.
pub struct PlainNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
}

impl PlainNamespace {
    /// A new one.
    pub fn new(user_ns: Arc<UserNamespace>) -> Arc<PlainNamespace> {
        Arc::new(PlainNamespace { ino: super::next_namespace_ino(), user_ns })
    }
}

/// All but the user namespace (which belongs to the credentials) and the own pid namespace (which belongs to the pid).
#[derive(Clone)]
pub struct Namespaces {
    /// Host name.
    pub uts: Arc<UtsNamespace>,
    /// System V IPC and message queues.
    pub ipc: Arc<IpcNamespace>,
    /// Mounts.
    pub mount: Arc<MountNamespace>,
    /// Network.
    pub net: Arc<NetNamespace>,
    /// The pid namespace of children.
    pub pid_for_children: Arc<PidNamespace>,
    /// Cgroup root.
    pub cgroup: Arc<PlainNamespace>,
    /// Clock offsets.
    pub time: Arc<PlainNamespace>,
}
