//! Options of SOL_IP and SOL_IPV6 (ip(7), ipv6(7), net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c).
//!
//! Those that only shape packets on a wire are remembered and told; those that a receiver can notice are carried out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU32};

use abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use abi::inet::{self as i, IpMreq, IpMreqn, Ipv6Mreq};
use abi::socket::{AF_INET6, SOCK_STREAM, SOL_IP, SOL_IPV6};
use abi::{Errno, Result};
use parking_lot::Mutex;
use zerocopy::FromBytes;

use crate::net::options::Common;
use crate::net::socket::{OptionValue, int_value};
use crate::net::{NetNamespace, device};
use crate::parameters::{BINDV6ONLY, IP_DEFAULT_TTL};
use crate::task::Task;

/// The MTU that sockets see on the loopback device: IPv4 has only 16 bits for the length.
const PATH_MTU: [i32; 2] = [65535, 65536];

/// The most groups a socket may join (`net.ipv4.igmp_max_memberships`).
const MEMBERSHIPS_MAX: usize = 20;

bitflags::bitflags! {
    /// What a socket wants to know of what it receives, and other options that are on or off.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Wants: u32 {
        const PKTINFO = 1;
        const TTL = 2;
        const TOS = 4;
        const ERRORS = 8;
        const ORIGINAL_DESTINATION = 0x10;
        const PKTINFO6 = 0x20;
        const HOP_LIMIT = 0x40;
        const TRAFFIC_CLASS = 0x80;
        const ERRORS6 = 0x100;
        const FREEBIND = 0x200;
        const V6_ONLY = 0x400;
        /// IP_MULTICAST_ALL.
        const ALL_GROUPS = 0x800;
        /// IPV6_MULTICAST_ALL.
        const ALL_GROUPS6 = 0x1000;
    }
}

/// Options that are switches: level, name, which.
const SWITCHES: &[(i32, i32, Wants)] = &[
    (SOL_IP, i::IP_PKTINFO, Wants::PKTINFO),
    (SOL_IP, i::IP_RECVTTL, Wants::TTL),
    (SOL_IP, i::IP_RECVTOS, Wants::TOS),
    (SOL_IP, i::IP_RECVERR, Wants::ERRORS),
    (SOL_IP, i::IP_RECVORIGDSTADDR, Wants::ORIGINAL_DESTINATION),
    (SOL_IP, i::IP_FREEBIND, Wants::FREEBIND),
    (SOL_IP, i::IP_MULTICAST_ALL, Wants::ALL_GROUPS),
    (SOL_IPV6, i::IPV6_RECVPKTINFO, Wants::PKTINFO6),
    (SOL_IPV6, i::IPV6_RECVHOPLIMIT, Wants::HOP_LIMIT),
    (SOL_IPV6, i::IPV6_RECVTCLASS, Wants::TRAFFIC_CLASS),
    (SOL_IPV6, i::IPV6_RECVERR, Wants::ERRORS6),
    (SOL_IPV6, i::IPV6_FREEBIND, Wants::FREEBIND),
    (SOL_IPV6, i::IPV6_V6ONLY, Wants::V6_ONLY),
    (SOL_IPV6, i::IPV6_MULTICAST_ALL, Wants::ALL_GROUPS6),
];

/// Options that are remembered: level, name, least and greatest value (0 and 1: any value, as a boolean), default.
const REMEMBERED: &[(i32, i32, i32, i32, i32)] = &[
    (SOL_IP, i::IP_RECVOPTS, 0, 1, 0),
    (SOL_IP, i::IP_RETOPTS, 0, 1, 0),
    (SOL_IP, i::IP_MTU_DISCOVER, 0, 5, 1),
    (SOL_IP, IP_PASSSEC, 0, 1, 0),
    (SOL_IP, i::IP_TRANSPARENT, 0, 1, 0),
    (SOL_IP, i::IP_MINTTL, 0, 255, 0),
    (SOL_IP, i::IP_NODEFRAG, 0, 1, 0),
    (SOL_IP, i::IP_CHECKSUM, 0, 1, 0),
    (SOL_IP, i::IP_BIND_ADDRESS_NO_PORT, 0, 1, 0),
    (SOL_IP, i::IP_RECVFRAGSIZE, 0, 1, 0),
    (SOL_IP, i::IP_RECVERR_RFC4884, 0, 1, 0),
    (SOL_IP, i::IP_MULTICAST_TTL, -1, 255, 1),
    (SOL_IP, i::IP_MULTICAST_LOOP, 0, 1, 1),
    (SOL_IP, i::IP_LOCAL_PORT_RANGE, i32::MIN, i32::MAX, 0),
    (SOL_IPV6, i::IPV6_2292PKTINFO, 0, 1, 0),
    (SOL_IPV6, IPV6_2292HOPOPTS, 0, 1, 0),
    (SOL_IPV6, IPV6_2292DSTOPTS, 0, 1, 0),
    (SOL_IPV6, IPV6_2292RTHDR, 0, 1, 0),
    (SOL_IPV6, i::IPV6_2292HOPLIMIT, 0, 1, 0),
    (SOL_IPV6, i::IPV6_FLOWINFO, 0, 1, 0),
    (SOL_IPV6, i::IPV6_MULTICAST_HOPS, -1, 255, 1),
    (SOL_IPV6, i::IPV6_MULTICAST_LOOP, 0, 1, 1),
    (SOL_IPV6, i::IPV6_MTU_DISCOVER, 0, 5, 1),
    (SOL_IPV6, IPV6_ROUTER_ALERT_ISOLATE, 0, 1, 0),
    (SOL_IPV6, IPV6_RECVERR_RFC4884, 0, 1, 0),
    (SOL_IPV6, i::IPV6_FLOWINFO_SEND, 0, 1, 0),
    (SOL_IPV6, i::IPV6_RECVHOPOPTS, 0, 1, 0),
    (SOL_IPV6, i::IPV6_RECVRTHDR, 0, 1, 0),
    (SOL_IPV6, i::IPV6_RECVDSTOPTS, 0, 1, 0),
    (SOL_IPV6, i::IPV6_RECVPATHMTU, 0, 1, 0),
    (SOL_IPV6, i::IPV6_DONTFRAG, 0, 1, 0),
    (SOL_IPV6, i::IPV6_AUTOFLOWLABEL, 0, 1, 1),
    (SOL_IPV6, i::IPV6_ADDR_PREFERENCES, i32::MIN, i32::MAX, 0x500),
    (SOL_IPV6, i::IPV6_MINHOPCOUNT, 0, 255, 0),
    (SOL_IPV6, i::IPV6_ORIGDSTADDR, 0, 1, 0),
    (SOL_IPV6, i::IPV6_TRANSPARENT, 0, 1, 0),
    (SOL_IPV6, i::IPV6_RECVFRAGSIZE, 0, 1, 0),
    (SOL_IP, i::IP_UNICAST_IF, i32::MIN, i32::MAX, 0),
    (SOL_IPV6, i::IPV6_MULTICAST_IF, 0, i32::MAX, 0),
    (SOL_IPV6, i::IPV6_UNICAST_IF, i32::MIN, i32::MAX, 0),
];

const IP_PASSSEC: i32 = 18;
const IPV6_2292HOPOPTS: i32 = 3;
const IPV6_2292DSTOPTS: i32 = 4;
const IPV6_2292RTHDR: i32 = 5;
const IPV6_ROUTER_ALERT_ISOLATE: i32 = 30;
const IPV6_RECVERR_RFC4884: i32 = 31;

/// The state of a socket's network layer.
pub(crate) struct Ip {
    wants: AtomicU32,
    /// IP_TOS, IP_TTL, IPV6_TCLASS, IPV6_UNICAST_HOPS as they are put on datagrams; -1 for the default.
    pub tos: AtomicI32,
    pub ttl: AtomicI32,
    pub traffic_class: AtomicI32,
    pub hops: AtomicI32,
    /// Multicast groups.
    groups: Mutex<Vec<IpAddr>>,
}

impl Ip {
    /// Of a new socket.
    pub fn new(net: &NetNamespace, domain: u16) -> Ip {
        let mut wants = if domain == AF_INET6 { Wants::ALL_GROUPS6 } else { Wants::ALL_GROUPS };
        wants.set(Wants::V6_ONLY, BINDV6ONLY.get(&net.parameters) != 0);
        Ip {
            wants: AtomicU32::new(wants.bits()),
            tos: AtomicI32::new(0),
            ttl: AtomicI32::new(-1),
            traffic_class: AtomicI32::new(-1),
            hops: AtomicI32::new(-1),
            groups: Mutex::default(),
        }
    }
}

/// The least that an option's value can be: an `int`, or for most of SOL_IP also a byte.
fn int_or_byte(value: &[u8]) -> Result<i32> {
    match value {
        [] => Err(Errno::EINVAL),
        [byte, ..] if value.len() < 4 => Ok(i32::from(*byte)),
        _ => int_value(value),
    }
}

/// The value of an `int` option, as one byte for those who have room for no more.
fn int_answer(value: i32, room: usize) -> OptionValue {
    match u8::try_from(value) {
        Ok(byte) if (1..4).contains(&room) => OptionValue::bytes(&[byte]),
        _ => OptionValue::int(value),
    }
}

fn loopback_index(net: &NetNamespace, ip: IpAddr, index: i32) -> Result<i32> {
    if index != 0 {
        return net.device.name_of(index).map(|_| index).ok_or(Errno::ENODEV);
    }
    // Without a word on the device, a route decides, and there is none for groups.
    if !ip.is_unspecified() && net.device.is_local(ip) { Ok(device::INDEX) } else { Err(Errno::ENODEV) }
}

impl Ip {
    /// For a connection that a listener makes.
    pub fn inherit(&self) -> Ip {
        let copy = |value: &AtomicI32| AtomicI32::new(value.load(Relaxed));
        Ip {
            wants: AtomicU32::new(self.wants.load(Relaxed)),
            tos: copy(&self.tos),
            ttl: copy(&self.ttl),
            traffic_class: copy(&self.traffic_class),
            hops: copy(&self.hops),
            groups: Mutex::default(),
        }
    }

    /// Is it on?
    pub fn wants(&self, what: Wants) -> bool {
        self.wants.load(Relaxed) & what.bits() == what.bits()
    }

    /// Is any of these on?
    pub fn wants_any(&self, what: Wants) -> bool {
        self.wants.load(Relaxed) & what.bits() != 0
    }

    fn set_wants(&self, what: Wants, on: bool) {
        if on {
            self.wants.fetch_or(what.bits(), Relaxed);
        } else {
            self.wants.fetch_and(!what.bits(), Relaxed);
        }
    }

    /// Has it joined the group?
    pub fn is_member(&self, group: IpAddr) -> bool {
        self.groups.lock().contains(&group)
    }

    /// setsockopt(2). `bound`: the socket has a port. `peer_v4`: it is connected by IPv4.
    pub fn set(
        &self,
        task: &Task,
        common: &Common,
        bound: bool,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<()> {
        match level {
            SOL_IP => self.set_v4(task, common, name, value),
            SOL_IPV6 if common.domain == AF_INET6 => self.set_v6(task, common, bound, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_v4(&self, task: &Task, common: &Common, name: i32, value: &[u8]) -> Result<()> {
        let stream = common.kind == SOCK_STREAM;
        match name {
            // No options but those that do nothing: there are no packets.
            i::IP_OPTIONS if value.len() <= 40 && value.iter().all(|&option| option <= 1) => return Ok(()),
            i::IP_OPTIONS => return Err(Errno::EINVAL),
            i::IP_ADD_MEMBERSHIP | i::IP_DROP_MEMBERSHIP => {
                if stream {
                    return Err(Errno::EPROTO);
                }
                let (group, near, index) = parse_membership(value)?;
                let index = loopback_index(&common.net, near, index);
                return self.membership(name == i::IP_ADD_MEMBERSHIP, group, index);
            }
            i::IP_MULTICAST_IF => {
                if stream {
                    return Err(Errno::EINVAL);
                }
                let index = parse_interface(common, value)?;
                common.remember(SOL_IP, name, index);
                return Ok(());
            }
            37..=48 | i::IP_ROUTER_ALERT | 17 => return Err(Errno::EINVAL),
            _ => {}
        }
        let int = int_or_byte(value)?;
        match name {
            i::IP_TOS => {
                // The two bits of ECN are TCP's own.
                let old = self.tos.load(Relaxed);
                let tos = if stream { int & !3 | old & 3 } else { int } & 0xff;
                self.tos.store(tos, Relaxed);
                return Ok(());
            }
            i::IP_TTL => {
                if int != -1 && !(1..=255).contains(&int) {
                    return Err(Errno::EINVAL);
                }
                self.ttl.store(int, Relaxed);
                return Ok(());
            }
            i::IP_MULTICAST_TTL if stream => return Err(Errno::EINVAL),
            i::IP_MULTICAST_ALL | i::IP_RECVERR_RFC4884 if !(0..=1).contains(&int) => {
                return Err(Errno::EINVAL);
            }
            i::IP_RECVFRAGSIZE if stream => return Err(Errno::EINVAL),
            i::IP_NODEFRAG => return Err(Errno::ENOPROTOOPT),
            i::IP_UNICAST_IF if !is_interface(common, i32::from_be(int)) => return Err(Errno::EADDRNOTAVAIL),
            i::IP_TRANSPARENT if int != 0 => check_transparent(task, common)?,
            _ => {}
        }
        self.set_plain(common, SOL_IP, name, int)
    }

    fn set_v6(&self, task: &Task, common: &Common, bound: bool, name: i32, value: &[u8]) -> Result<()> {
        match name {
            i::IPV6_ADD_MEMBERSHIP | i::IPV6_DROP_MEMBERSHIP => {
                let (mreq, _) = Ipv6Mreq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
                if common.kind == SOCK_STREAM {
                    return Err(Errno::EPROTO);
                }
                let group = IpAddr::from(mreq.ipv6mr_multiaddr);
                if !group.is_multicast() {
                    return Err(Errno::EINVAL);
                }
                let net = &common.net;
                let index = loopback_index(net, Ipv6Addr::UNSPECIFIED.into(), mreq.ipv6mr_ifindex);
                return self.membership(name == i::IPV6_ADD_MEMBERSHIP, group, index);
            }
            i::IPV6_ADDRFORM
            | i::IPV6_MTU
            | i::IPV6_JOIN_ANYCAST
            | i::IPV6_LEAVE_ANYCAST
            | i::IPV6_FLOWLABEL_MGR
            | i::IPV6_PKTINFO
            | i::IPV6_HOPOPTS
            | i::IPV6_RTHDRDSTOPTS
            | i::IPV6_RTHDR
            | i::IPV6_DSTOPTS => return Err(Errno::EINVAL),
            _ => {}
        }
        let int = int_value(value)?;
        match name {
            i::IPV6_V6ONLY if bound => return Err(Errno::EINVAL),
            i::IPV6_TCLASS => {
                if !(-1..=255).contains(&int) {
                    return Err(Errno::EINVAL);
                }
                self.traffic_class.store(int, Relaxed);
                return Ok(());
            }
            i::IPV6_UNICAST_HOPS => {
                if !(-1..=255).contains(&int) {
                    return Err(Errno::EINVAL);
                }
                self.hops.store(int, Relaxed);
                return Ok(());
            }
            i::IPV6_MULTICAST_IF | i::IPV6_MULTICAST_HOPS if common.kind == SOCK_STREAM => {
                return Err(Errno::ENOPROTOOPT);
            }
            i::IPV6_MULTICAST_IF if !is_interface(common, int) => return Err(Errno::ENODEV),
            i::IPV6_MULTICAST_ALL if !(0..=1).contains(&int) => return Err(Errno::EINVAL),
            i::IPV6_UNICAST_IF if !is_interface(common, i32::from_be(int)) => {
                return Err(Errno::EADDRNOTAVAIL);
            }
            i::IPV6_TRANSPARENT if int != 0 => check_transparent(task, common)?,
            _ => {}
        }
        self.set_plain(common, SOL_IPV6, name, int)
    }

    fn set_plain(&self, common: &Common, level: i32, name: i32, int: i32) -> Result<()> {
        if let Some((.., switch)) = SWITCHES.iter().find(|(l, n, _)| (*l, *n) == (level, name)) {
            self.set_wants(*switch, int != 0);
            return Ok(());
        }
        let known = REMEMBERED.iter().find(|(l, n, ..)| (*l, *n) == (level, name));
        let &(_, _, min, max, _) = known.ok_or(Errno::ENOPROTOOPT)?;
        let int = match (min, max) {
            (0, 1) => i32::from(int != 0),
            _ if (min..=max).contains(&int) => int,
            _ => return Err(Errno::EINVAL),
        };
        common.remember(level, name, int);
        Ok(())
    }

    fn membership(&self, join: bool, group: IpAddr, index: Result<i32>) -> Result<()> {
        let mut groups = self.groups.lock();
        let at = groups.iter().position(|g| *g == group);
        match (join, at) {
            (true, _) => {
                index?;
                if at.is_some() {
                    return Err(Errno::EADDRINUSE);
                }
                if groups.len() >= MEMBERSHIPS_MAX {
                    return Err(Errno::ENOBUFS);
                }
                groups.push(group);
            }
            (false, Some(at)) => {
                groups.remove(at);
            }
            (false, None) => return Err(index.err().unwrap_or(Errno::EADDRNOTAVAIL)),
        }
        Ok(())
    }

    /// getsockopt(2). `connected` is the address family of the peer.
    pub fn get(
        &self,
        common: &Common,
        connected: Option<IpAddr>,
        level: i32,
        name: i32,
        room: usize,
    ) -> Result<OptionValue> {
        match level {
            SOL_IP => {}
            SOL_IPV6 if common.domain == AF_INET6 => {}
            SOL_IPV6 => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        let mtu = |ip: Option<IpAddr>| {
            let ip = ip.ok_or(Errno::ENOTCONN)?;
            Ok(OptionValue::int(PATH_MTU[usize::from(ip.is_ipv6())]))
        };
        let or_default = |value: &AtomicI32, default: i32| match value.load(Relaxed) {
            -1 => default,
            value => value,
        };
        let int = match (level, name) {
            (SOL_IP, i::IP_OPTIONS) => return Ok(OptionValue::bytes(&[])),
            (SOL_IP, i::IP_PKTOPTIONS) if common.kind == SOCK_STREAM => return Ok(OptionValue::bytes(&[])),
            (SOL_IP, i::IP_MTU) => return mtu(connected.filter(IpAddr::is_ipv4)),
            (SOL_IPV6, i::IPV6_MTU) => return mtu(connected),
            (SOL_IP, i::IP_TOS) => self.tos.load(Relaxed),
            (SOL_IP, i::IP_TTL) => or_default(&self.ttl, IP_DEFAULT_TTL.get(&common.net.parameters) as i32),
            (SOL_IP, i::IP_HDRINCL | i::IP_ROUTER_ALERT) | (SOL_IPV6, i::IPV6_ROUTER_ALERT) => 0,
            (SOL_IP, i::IP_PROTOCOL) => 0,
            (SOL_IP, i::IP_MULTICAST_IF) => {
                let index = common.remembered(level, name).unwrap_or(0);
                let ip = if index == 0 { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
                return Ok(OptionValue::bytes(&ip.octets()));
            }
            (SOL_IPV6, i::IPV6_TCLASS) => or_default(&self.traffic_class, 0),
            (SOL_IPV6, i::IPV6_UNICAST_HOPS) => or_default(&self.hops, 64),
            (SOL_IPV6, i::IPV6_ADDRFORM) => {
                return Err(if connected.is_some() { Errno::EINVAL } else { Errno::ENOTCONN });
            }
            _ => {
                if let Some((.., switch)) = SWITCHES.iter().find(|(l, n, _)| (*l, *n) == (level, name)) {
                    i32::from(self.wants(*switch))
                } else {
                    let known = REMEMBERED.iter().find(|(l, n, ..)| (*l, *n) == (level, name));
                    let (.., default) = known.ok_or(Errno::ENOPROTOOPT)?;
                    common.remembered(level, name).unwrap_or(*default)
                }
            }
        };
        Ok(if level == SOL_IP { int_answer(int, room) } else { OptionValue::int(int) })
    }
}

/// Whether an index is that of an interface, or 0 for any.
fn is_interface(common: &Common, index: i32) -> bool {
    index == 0 || common.net.device.name_of(index).is_some()
}

fn check_transparent(task: &Task, common: &Common) -> Result<()> {
    let net = &common.net;
    if net.capable(task, CAP_NET_RAW) || net.capable(task, CAP_NET_ADMIN) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// `struct ip_mreq` or `ip_mreqn`: group, address of the device, its index.
fn parse_membership(value: &[u8]) -> Result<(IpAddr, IpAddr, i32)> {
    let (group, near, index) = if let Ok((mreq, _)) = IpMreqn::read_from_prefix(value) {
        (mreq.imr_multiaddr, mreq.imr_address, mreq.imr_ifindex)
    } else {
        let (mreq, _) = IpMreq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        (mreq.imr_multiaddr, mreq.imr_interface, 0)
    };
    let group = IpAddr::from(group);
    if group.is_multicast() { Ok((group, near.into(), index)) } else { Err(Errno::EINVAL) }
}

/// The device of IP_MULTICAST_IF: an address, or `struct ip_mreq` or `ip_mreqn`. EADDRNOTAVAIL.
fn parse_interface(common: &Common, value: &[u8]) -> Result<i32> {
    let (near, index) = if let Ok((mreq, _)) = IpMreqn::read_from_prefix(value) {
        (mreq.imr_address, mreq.imr_ifindex)
    } else if let Ok((mreq, _)) = IpMreq::read_from_prefix(value) {
        (mreq.imr_interface, 0)
    } else {
        (*value.first_chunk().ok_or(Errno::EINVAL)?, 0)
    };
    if index == 0 && near == [0; 4] {
        return Ok(0);
    }
    loopback_index(&common.net, near.into(), index).map_err(|_| Errno::EADDRNOTAVAIL)
}
