//! Addresses of AF_INET and AF_INET6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use abi::inet::{SockaddrIn, SockaddrIn6};
use abi::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use abi::{Errno, Result};
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use crate::net::NetNamespace;
use crate::net::socket::{RawAddress, address_family};
use crate::parameters::IP_NONLOCAL_BIND;

/// The shortest `struct sockaddr_in6` that is accepted, without a scope (RFC 2133).
const SIN6_LEN_MIN: usize = 24;

/// Address and port. Never a v4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// Nothing: 0.0.0.0 or ::, port 0.
    pub fn unspecified(domain: u16) -> Endpoint {
        Endpoint { ip: any(domain), port: 0 }
    }

    /// From an address of IPv4 (bind(2), where AF_UNSPEC with 0.0.0.0 is allowed too). EINVAL, EAFNOSUPPORT.
    fn parse_v4(addr: &[u8], binding: bool) -> Result<Endpoint> {
        let (addr, _) = SockaddrIn::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
        let port = u16::from_be_bytes(addr.sin_port);
        let ip = Ipv4Addr::from(addr.sin_addr);
        match addr.sin_family {
            AF_INET => {}
            AF_UNSPEC if !binding || ip.is_unspecified() => {}
            _ => return Err(Errno::EAFNOSUPPORT),
        }
        Ok(Endpoint { ip: ip.into(), port })
    }

    /// From an address of IPv6, with its scope. EINVAL, EAFNOSUPPORT.
    fn parse_v6(addr: &[u8]) -> Result<(Endpoint, bool)> {
        if addr.len() < SIN6_LEN_MIN {
            return Err(Errno::EINVAL);
        }
        let mut full = [0; size_of::<SockaddrIn6>()];
        let len = addr.len().min(full.len());
        full[..len].copy_from_slice(&addr[..len]);
        let addr = SockaddrIn6::read_from_bytes(&full).map_err(|_| Errno::EINVAL)?;
        if addr.sin6_family != AF_INET6 {
            return Err(Errno::EAFNOSUPPORT);
        }
        let ip = Ipv6Addr::from(addr.sin6_addr);
        let port = u16::from_be_bytes(addr.sin6_port);
        let mapped = ip.to_ipv4_mapped();
        Ok((Endpoint { ip: mapped.map_or(IpAddr::V6(ip), IpAddr::V4), port }, mapped.is_some()))
    }

    /// From an address for bind(2) of a socket of `domain`; also whether it was given as v4-mapped.
    pub fn parse_bind(domain: u16, addr: &[u8]) -> Result<(Endpoint, bool)> {
        if domain == AF_INET6 {
            Endpoint::parse_v6(addr)
        } else {
            Ok((Endpoint::parse_v4(addr, true)?, false))
        }
    }

    /// From a destination of a stream: connect(2).
    pub fn parse_connect(domain: u16, addr: &[u8]) -> Result<Endpoint> {
        if domain == AF_INET6 {
            return Ok(Endpoint::parse_v6(addr)?.0);
        }
        if addr.len() < size_of::<SockaddrIn>() {
            return Err(Errno::EINVAL);
        }
        if address_family(addr)? != AF_INET {
            return Err(Errno::EAFNOSUPPORT);
        }
        Endpoint::parse_v4(addr, false)
    }

    /// From a destination of a datagram: sendto(2), connect(2). A socket of AF_INET6 takes addresses of AF_INET too,
    /// and AF_UNSPEC stands for AF_INET.
    pub fn parse_send(domain: u16, addr: &[u8]) -> Result<Endpoint> {
        match address_family(addr)? {
            AF_INET6 if domain == AF_INET6 => Ok(Endpoint::parse_v6(addr)?.0),
            AF_INET | AF_UNSPEC => Endpoint::parse_v4(addr, false),
            _ if domain == AF_INET6 => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// As `struct sockaddr_in`, or `sockaddr_in6` for a socket of AF_INET6.
    pub fn raw(&self, domain: u16) -> RawAddress {
        match (domain, self.ip) {
            (AF_INET6, ip) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                SmallVec::from_slice(SockaddrIn6::from(SocketAddrV6::new(ip, self.port, 0, 0)).as_bytes())
            }
            (_, IpAddr::V4(ip)) => {
                SmallVec::from_slice(SockaddrIn::from(SocketAddrV4::new(ip, self.port)).as_bytes())
            }
            (_, IpAddr::V6(_)) => {
                let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.port);
                SmallVec::from_slice(SockaddrIn::from(none).as_bytes())
            }
        }
    }

    /// A destination of nowhere means this host.
    pub fn or_loopback(self) -> Endpoint {
        let ip = match self.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Endpoint { ip, port: self.port }
    }
}

/// The wildcard address of a family.
pub fn any(domain: u16) -> IpAddr {
    if domain == AF_INET6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// 255.255.255.255, or the last address of 127.0.0.0/8.
pub fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip == Ipv4Addr::new(127, 255, 255, 255))
}

/// May a socket be bound to the address? EADDRNOTAVAIL.
pub fn check_bindable(net: &NetNamespace, ip: IpAddr, free: bool, stream: bool) -> Result<()> {
    let valid = free
        || IP_NONLOCAL_BIND.get(&net.parameters) != 0
        || ip.is_unspecified()
        || net.device.is_local(ip)
        || ip.is_ipv4() && (ip.is_multicast() || is_broadcast(ip))
        || ip.is_multicast() && !stream;
    if valid { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(domain: u16, ip: &str, port: u16) -> RawAddress {
        Endpoint { ip: ip.parse().unwrap(), port }.raw(domain)
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let mapped = raw(AF_INET6, "127.0.0.1", 80);
        assert_eq!(mapped.len(), 28);
        let (endpoint, was_mapped) = Endpoint::parse_bind(AF_INET6, &mapped).unwrap();
        assert_eq!((endpoint, was_mapped), (Endpoint { ip: "127.0.0.1".parse().unwrap(), port: 80 }, true));
        assert_eq!(Endpoint::parse_connect(AF_INET6, &mapped), Ok(endpoint));
        assert_eq!(Endpoint::parse_send(AF_INET6, &raw(AF_INET, "127.0.0.1", 80)), Ok(endpoint));
    }

    #[test]
    fn wrong_addresses_have_linuxs_errors() {
        let v4 = raw(AF_INET, "127.0.0.1", 80);
        assert_eq!(Endpoint::parse_connect(AF_INET, &v4[..15]), Err(Errno::EINVAL));
        assert_eq!(Endpoint::parse_connect(AF_INET6, &v4), Err(Errno::EINVAL));
        let mut unspec = v4.clone();
        unspec[0] = 0;
        assert_eq!(Endpoint::parse_connect(AF_INET, &unspec), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Endpoint::parse_bind(AF_INET, &unspec), Err(Errno::EAFNOSUPPORT));
        unspec[4..8].fill(0);
        assert!(Endpoint::parse_bind(AF_INET, &unspec).is_ok());
        let v6 = raw(AF_INET6, "::1", 80);
        assert!(Endpoint::parse_connect(AF_INET6, &v6[..24]).is_ok());
        assert_eq!(Endpoint::parse_connect(AF_INET6, &v6[..23]), Err(Errno::EINVAL));
        assert_eq!(Endpoint::parse_send(AF_INET, &v6), Err(Errno::EAFNOSUPPORT));
    }
}
