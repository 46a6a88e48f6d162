//! A network that is not the sandbox's own: sockets of AF_INET and AF_INET6, and what NETLINK_ROUTE says, come from
//! elsewhere. Unix sockets and the rest stay.

use std::sync::Arc;

use abi::Result;

use super::{NetNamespace, Socket};

/// Makes sockets on such a network.
pub trait Stack: Send + Sync {
    /// A socket of AF_INET, AF_INET6 (TCP, UDP, ICMP echo) or AF_NETLINK (NETLINK_ROUTE). The protocol is never 0 but for
    /// NETLINK_ROUTE, whose number that is.
    fn socket(
        &self,
        net: Arc<NetNamespace>,
        domain: u16,
        kind: u32,
        protocol: u32,
    ) -> Result<Arc<dyn Socket>>;
}
