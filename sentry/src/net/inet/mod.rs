//! TCP, UDP and ICMP echo over IPv4 and IPv6, between the addresses of the loopback device.
//!
//! A connection is a pair of buffers, a datagram goes straight into its receiver's queue: there are no packets.
//! [`Endpoint`]s hold IPv4 addresses as such also where a socket of AF_INET6 knows them as v4-mapped.

pub mod address;
mod options;
mod ping;
pub mod ports;
pub mod tcp;
pub mod udp;

use std::sync::Arc;

use abi::inet::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_MAX, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE};
use abi::socket::{AF_INET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use abi::{Errno, Result};

pub use address::Endpoint;
pub(crate) use options::Ip;

use super::options::Common;
use super::{NetNamespace, Socket};
use crate::task::Task;

/// socket(2) of AF_INET or AF_INET6.
pub(super) fn create(
    task: &Task,
    net: Arc<NetNamespace>,
    domain: u16,
    kind: u32,
    protocol: i32,
) -> Result<Arc<dyn Socket>> {
    let protocol = u32::try_from(protocol).ok().filter(|&p| p < IPPROTO_MAX).ok_or(Errno::EINVAL)?;
    let echo = if domain == AF_INET { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
    if let Some(stack) = net.stack().cloned() {
        let protocol = match (kind, protocol) {
            (SOCK_STREAM, 0) => IPPROTO_TCP,
            (SOCK_DGRAM, 0) => IPPROTO_UDP,
            _ => protocol,
        };
        match (kind, protocol) {
            (SOCK_STREAM, IPPROTO_TCP) | (SOCK_DGRAM, IPPROTO_UDP) => {
                return stack.socket(net, domain, kind, protocol);
            }
            (SOCK_DGRAM, p) if p == echo => return stack.socket(net, domain, kind, protocol),
            (SOCK_DGRAM, IPPROTO_UDPLITE) => return Err(Errno::EPROTONOSUPPORT),
            _ => {}
        }
    }
    match (kind, protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP) => {
            Ok(tcp::TcpSocket::create(Common::new(net, domain, kind, IPPROTO_TCP)))
        }
        (SOCK_DGRAM, 0 | IPPROTO_UDP) => {
            Ok(udp::UdpSocket::create(Common::new(net, domain, kind, IPPROTO_UDP)))
        }
        (SOCK_DGRAM, IPPROTO_UDPLITE) => {
            Ok(udp::UdpSocket::create(Common::new(net, domain, kind, IPPROTO_UDPLITE)))
        }
        (SOCK_DGRAM, p) if p == echo => {
            ping::check(task, &net)?;
            Ok(udp::UdpSocket::create(Common::new(net, domain, kind, protocol)))
        }
        (SOCK_STREAM | SOCK_DGRAM, _) | (SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        // There are no packets to see: nobody has CAP_NET_RAW here, whatever the credentials say.
        (SOCK_RAW, _) => Err(Errno::EPERM),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
