//! Sockets: AF_UNIX, AF_INET and AF_INET6 on loopback, AF_NETLINK.
//!
//! A [`Socket`] is what a family implements; a [`SocketFile`] is an open file of one. No operation blocks: what would
//! is EAGAIN, and everything that can change the answer is announced on the socket's own wait queue, also what happens
//! to other sockets (room in the queue of a receiver, in the backlog of a listener). Waiting, with SO_RCVTIMEO and its
//! sisters, is the business of the system calls.
//!
//! | module | subject |
//! |---|---|
//! | [`socket`] | the trait, open files of sockets, messages on their way in and out |
//! | [`options`] | what every socket has: SOL_SOCKET |
//! | [`rights`] | files in flight (SCM_RIGHTS), and the collector of unreachable ones |
//! | [`unix`] | AF_UNIX |
//! | [`inet`] | TCP, UDP and ICMP echo between the addresses of the loopback device |
//! | [`host`] | a network from elsewhere in place of those of [`inet`] |
//! | [`netlink`] | NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT |
//! | [`device`] | the loopback device, its addresses, and the ioctls on them |
//! | [`proc`] | the text of `/proc/net` |
//!
//! Lock order: a socket's reader or writer lock (held while data is copied) → its state (never two, except two Unix
//! sockets by address) → tables of the namespace → registry of files in flight → queues of messages → wait queues.
//! Files are dropped without any of these held: closing one may close a socket.

pub mod device;
pub mod host;
pub mod inet;
pub mod netlink;
pub mod options;
pub mod proc;
pub mod rights;
pub mod socket;
pub mod unix;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::capability::CAP_NET_RAW;
use abi::socket as s;
use abi::{Errno, Result};

use crate::parameters::{self, Parameters};
use crate::task::{Task, UserNamespace};

pub use options::Common;
pub use socket::{ControlMessage, Incoming, OptionValue, Outgoing, RawAddress, Received, Socket, SocketFile};

/// A network namespace (network_namespaces(7)).
pub struct NetNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    /// Kernel parameters that were set.
    pub parameters: Parameters,
    /// The loopback device.
    pub device: device::Loopback,
    /// Unix sockets and abstract names.
    pub(crate) unix: unix::Names,
    /// TCP ports and connections.
    pub(crate) tcp: inet::tcp::Table,
    /// UDP ports.
    pub(crate) udp: inet::udp::Table,
    /// UDP-Lite ports.
    pub(crate) udplite: inet::udp::Table,
    /// Identifiers of ICMP echo sockets.
    pub(crate) ping: inet::udp::Table,
    /// Netlink ports and groups.
    pub(crate) netlink: netlink::Table,
    cookies: AtomicU64,
    stack: OnceLock<Arc<dyn host::Stack>>,
}

impl NetNamespace {
    /// With nothing but a loopback device, which is up.
    pub fn new(user_ns: Arc<UserNamespace>) -> Arc<NetNamespace> {
        let net = NetNamespace::unshared(user_ns);
        net.device.set_up(true);
        net
    }

    /// As clone(2) and unshare(2) make one: the loopback device is down.
    pub fn unshared(user_ns: Arc<UserNamespace>) -> Arc<NetNamespace> {
        Arc::new(NetNamespace {
            ino: crate::task::next_namespace_ino(),
            user_ns,
            parameters: Parameters::default(),
            device: device::Loopback::new(),
            unix: unix::Names::default(),
            tcp: inet::tcp::Table::default(),
            udp: inet::udp::Table::default(),
            udplite: inet::udp::Table::default(),
            ping: inet::udp::Table::default(),
            netlink: netlink::Table::default(),
            cookies: AtomicU64::new(0),
            stack: OnceLock::new(),
        })
    }

    /// From here on sockets are made by `stack`. Only the first call counts.
    pub fn set_stack(&self, stack: Arc<dyn host::Stack>) {
        let _ = self.stack.set(stack);
    }

    /// Who makes sockets instead of the sandbox.
    pub(crate) fn stack(&self) -> Option<&Arc<dyn host::Stack>> {
        self.stack.get()
    }

    /// The next SO_COOKIE.
    fn next_cookie(&self) -> u64 {
        self.cookies.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Does binding the port need CAP_NET_BIND_SERVICE?
    fn is_privileged(&self, port: u16) -> bool {
        i64::from(port) < parameters::IP_UNPRIVILEGED_PORT_START.get(&self.parameters)
    }

    /// May the task use this capability on the namespace's network?
    pub fn capable(&self, task: &Task, capability: u32) -> bool {
        task.credentials().capable_in(&self.user_ns, capability)
    }
}

/// socket(2). EAFNOSUPPORT, EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM, in Linux's order. `kind` is the type
/// without flags.
pub fn create(task: &Task, domain: i32, kind: i32, protocol: i32) -> Result<Arc<dyn Socket>> {
    let (domain, kind) = check(domain, kind)?;
    let net = task.namespaces().net.clone();
    match domain {
        s::AF_UNIX => Ok(unix::UnixSocket::create(net, kind, protocol)?),
        s::AF_INET | s::AF_INET6 => inet::create(task, net, domain, kind, protocol),
        s::AF_NETLINK => netlink::create(task, net, kind, protocol),
        // As a kernel without CONFIG_PACKET, after the check that comes first with it.
        s::AF_PACKET if !net.capable(task, CAP_NET_RAW) => Err(Errno::EPERM),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// socketpair(2): as [`create`], and EOPNOTSUPP for families that have no pairs.
pub fn create_pair(
    task: &Task,
    domain: i32,
    kind: i32,
    protocol: i32,
) -> Result<(Arc<dyn Socket>, Arc<dyn Socket>)> {
    if check(domain, kind)?.0 != s::AF_UNIX {
        create(task, domain, kind, protocol)?;
        return Err(Errno::EOPNOTSUPP);
    }
    let net = task.namespaces().net.clone();
    let (a, b) = unix::UnixSocket::pair(task, net, kind as u32, protocol)?;
    Ok((a, b))
}

fn check(domain: i32, kind: i32) -> Result<(u16, u32)> {
    let domain = u16::try_from(domain).ok().filter(|&d| d < s::AF_MAX).ok_or(Errno::EAFNOSUPPORT)?;
    let kind = u32::try_from(kind).ok().filter(|&k| k < s::SOCK_MAX).ok_or(Errno::EINVAL)?;
    // Linux 1.2's way to say AF_PACKET.
    if domain == s::AF_INET && kind == s::SOCK_PACKET {
        return Ok((s::AF_PACKET, kind));
    }
    Ok((domain, kind))
}
