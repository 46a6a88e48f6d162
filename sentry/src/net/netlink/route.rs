//! NETLINK_ROUTE: links, addresses, routes and rules (rtnetlink(7), net/core/rtnetlink.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::capability::CAP_NET_ADMIN;
use abi::netdevice::{ARPHRD_LOOPBACK, IF_OPER_DOWN, IF_OPER_UNKNOWN, IfFlags};
use abi::netlink::{self as n, IfaCacheinfo, Ifaddrmsg, Ifinfomsg, MessageWriter, Nlmsghdr, Rtmsg};
use abi::netlink::{RtnlLinkStats, RtnlLinkStats64};
use abi::socket::{AF_BRIDGE, AF_INET, AF_INET6, AF_UNSPEC};
use abi::{Errno, Result};
use zerocopy::FromBytes;

use crate::net::NetNamespace;
use crate::net::device::{Address, INDEX, MTU, NAME, QUEUE_LEN};
use crate::task::Task;

/// Messages of a dump are gathered into datagrams of this size.
const DATAGRAM: usize = 8192;

// Attributes of rules (`fib_rules.h`) and of namespace ids (`net_namespace.h`).
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const NETNSA_NSID: u16 = 1;

/// The largest type of a message.
const RTM_MAX: u16 = 123;

/// A request, taken apart.
pub(super) struct Request<'a> {
    pub task: &'a Task,
    pub net: &'a NetNamespace,
    pub header: Nlmsghdr,
    pub payload: &'a [u8],
    /// The port of who asks.
    pub port: u32,
    /// NETLINK_GET_STRICT_CHK: filters in the header of a dump are meant.
    pub strict: bool,
}

/// Does the request ask for a dump?
pub(super) fn is_dump(header: &Nlmsghdr) -> bool {
    header.nlmsg_type % 4 == 2 && header.nlmsg_flags & n::NLM_F_DUMP != 0
}

/// The replies as datagrams; `None` if there is only success to tell.
pub(super) fn handle(request: &Request<'_>) -> Result<Option<Vec<Vec<u8>>>> {
    let kind = request.header.nlmsg_type;
    if kind > RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    let Some(&family) = request.payload.first() else { return Ok(None) };
    if kind % 4 != 2 && !request.net.capable(request.task, CAP_NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    if is_dump(&request.header) {
        return dump(request, u16::from(family)).map(Some);
    }
    match kind {
        n::RTM_GETLINK => get_link(request).map(Some),
        n::RTM_GETROUTE => get_route(request).map(Some),
        n::RTM_GETNSID => {
            let mut reply = Vec::new();
            let mut message = MessageWriter::new(&mut reply, request.answer(n::RTM_NEWNSID, 0));
            message.payload(&n::Rtgenmsg::default()).value(NETNSA_NSID, &-1i32);
            message.finish();
            Ok(Some(vec![reply]))
        }
        n::RTM_GETNEIGH => Err(Errno::ENOENT),
        n::RTM_NEWLINK | n::RTM_SETLINK => change_link(request).map(|()| None),
        n::RTM_NEWADDR | n::RTM_DELADDR => change_address(request).map(|()| None),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

impl Request<'_> {
    fn answer(&self, kind: u16, flags: u16) -> Nlmsghdr {
        Nlmsghdr {
            nlmsg_type: kind,
            nlmsg_flags: flags,
            nlmsg_seq: self.header.nlmsg_seq,
            nlmsg_pid: self.port,
            ..Nlmsghdr::default()
        }
    }

    /// The family's header and the attributes behind it. EINVAL if it is too short.
    fn split<T: FromBytes>(&self) -> Result<(T, &[u8])> {
        T::read_from_prefix(self.payload).map_err(|_| Errno::EINVAL)
    }
}

fn dump(request: &Request<'_>, family: u16) -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let wants = |f: u16| family == AF_UNSPEC || family == f;
    match request.header.nlmsg_type {
        n::RTM_GETLINK => {
            // Lists of ports of a bridge, or of one kind of device, have no place for this one.
            let attrs = request.split::<Ifinfomsg>().map_or(&[][..], |(_, attrs)| attrs);
            let filtered = n::attributes(attrs).any(|(k, _)| matches!(k, n::IFLA_MASTER | n::IFLA_LINKINFO));
            if family != AF_BRIDGE && !filtered {
                let mut data = Vec::new();
                link(request.net, request.answer(n::RTM_NEWLINK, n::NLM_F_MULTI), attrs, &mut data);
                messages.push(data);
            }
        }
        n::RTM_GETADDR => {
            let index = request.split::<Ifaddrmsg>().map_or(0, |(header, _)| header.ifa_index);
            let other = request.strict && index != 0 && index != INDEX as u32;
            if other {
                return Err(Errno::ENODEV);
            }
            // Linux lists the addresses of one family after those of the other.
            for f in [AF_INET, AF_INET6].into_iter().filter(|&f| wants(f)) {
                for address in request.net.device.addresses().iter().filter(|a| family_of(a.ip) == f) {
                    let mut data = Vec::new();
                    let header = request.answer(n::RTM_NEWADDR, n::NLM_F_MULTI);
                    put_address(address, header, &mut data);
                    messages.push(data);
                }
            }
        }
        n::RTM_GETROUTE => {
            let filter = request.split::<Rtmsg>().map(|(header, _)| header).unwrap_or_default();
            let table = request.split::<Rtmsg>().ok().and_then(|(_, attrs)| {
                n::attributes(attrs).find(|(k, _)| *k == n::RTA_TABLE).and_then(|(_, v)| v.first().copied())
            });
            let table = table.unwrap_or(filter.rtm_table);
            let other = request.strict && table != 0 && table != n::RT_TABLE_LOCAL;
            if filter.rtm_flags & n::RTM_F_CLONED == 0 && !other {
                for route in routes(request.net).iter().filter(|r| wants(family_of(r.to))) {
                    let mut data = Vec::new();
                    route.put(request.answer(n::RTM_NEWROUTE, n::NLM_F_MULTI), &mut data);
                    messages.push(data);
                }
            }
        }
        n::RTM_GETRULE => {
            for f in [AF_INET, AF_INET6].into_iter().filter(|&f| wants(f)) {
                rules(request, f, &mut messages);
            }
        }
        // Nothing of the kind.
        n::RTM_GETNEIGH
        | n::RTM_GETNEIGHTBL
        | n::RTM_GETQDISC
        | n::RTM_GETTCLASS
        | n::RTM_GETTFILTER
        | n::RTM_GETADDRLABEL
        | n::RTM_GETMULTICAST
        | n::RTM_GETANYCAST
        | n::RTM_GETNETCONF
        | n::RTM_GETNSID
        | n::RTM_GETSTATS => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    let mut done = Vec::new();
    let mut message = MessageWriter::new(&mut done, request.answer(n::NLMSG_DONE, n::NLM_F_MULTI));
    message.payload(&0i32);
    message.finish();
    messages.push(done);
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for message in messages {
        match datagrams.last_mut() {
            Some(last) if last.len() + message.len() <= DATAGRAM => last.extend_from_slice(&message),
            _ => datagrams.push(message),
        }
    }
    Ok(datagrams)
}

fn family_of(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The loopback device. `attrs` are the request's.
fn link(net: &NetNamespace, header: Nlmsghdr, attrs: &[u8], out: &mut Vec<u8>) {
    let extended = n::attributes(attrs).find(|(k, _)| *k == n::IFLA_EXT_MASK);
    let mask = extended.and_then(|(_, v)| Some(u32::from_ne_bytes(*v.first_chunk()?))).unwrap_or(0);
    let flags = net.device.flags();
    let up = flags.contains(IfFlags::IFF_UP);
    let mut message = MessageWriter::new(out, header);
    message.payload(&Ifinfomsg {
        ifi_type: ARPHRD_LOOPBACK,
        ifi_index: INDEX,
        ifi_flags: flags.bits(),
        ..Ifinfomsg::default()
    });
    message
        .string(n::IFLA_IFNAME, NAME)
        .value(n::IFLA_TXQLEN, &(QUEUE_LEN as u32))
        .value(n::IFLA_OPERSTATE, &if up { IF_OPER_UNKNOWN } else { IF_OPER_DOWN })
        .value(n::IFLA_LINKMODE, &0u8)
        .value(n::IFLA_MTU, &MTU)
        .value(n::IFLA_MIN_MTU, &0u32)
        .value(n::IFLA_MAX_MTU, &0u32)
        .value(n::IFLA_GROUP, &0u32)
        .value(n::IFLA_PROMISCUITY, &0u32)
        .value(n::IFLA_NUM_TX_QUEUES, &1u32)
        .value(n::IFLA_NUM_RX_QUEUES, &1u32)
        .value(n::IFLA_GSO_MAX_SEGS, &65_535u32)
        .value(n::IFLA_GSO_MAX_SIZE, &65_536u32)
        .value(n::IFLA_CARRIER, &1u8)
        .value(n::IFLA_CARRIER_CHANGES, &0u32)
        .string(n::IFLA_QDISC, b"noqueue")
        .value(n::IFLA_MAP, &[0u64; 4])
        .value(n::IFLA_ADDRESS, &[0u8; 6])
        .value(n::IFLA_BROADCAST, &[0u8; 6]);
    if mask & n::RTEXT_FILTER_SKIP_STATS == 0 {
        message
            .value(n::IFLA_STATS64, &RtnlLinkStats64::default())
            .value(n::IFLA_STATS, &RtnlLinkStats::default());
    }
    message.finish();
}

fn get_link(request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    let (header, attrs) = request.split::<Ifinfomsg>()?;
    let name = n::attributes(attrs).find(|(k, _)| matches!(*k, n::IFLA_IFNAME | n::IFLA_ALT_IFNAME));
    let found = match (header.ifi_index, name) {
        (0, None) => return Err(Errno::EINVAL),
        (0, Some((_, name))) => request.net.device.index_of(name.strip_suffix(b"\0").unwrap_or(name)),
        (index, _) => request.net.device.name_of(index).map(|_| index),
    };
    found.ok_or(Errno::ENODEV)?;
    let mut reply = Vec::new();
    link(request.net, request.answer(n::RTM_NEWLINK, 0), attrs, &mut reply);
    Ok(vec![reply])
}

fn put_address(address: &Address, header: Nlmsghdr, out: &mut Vec<u8>) {
    let mut message = MessageWriter::new(out, header);
    message.payload(&Ifaddrmsg {
        ifa_family: family_of(address.ip) as u8,
        ifa_prefixlen: address.prefix,
        ifa_flags: n::IFA_F_PERMANENT as u8,
        ifa_scope: address.scope,
        ifa_index: INDEX as u32,
    });
    let ip = octets(address.ip);
    message.attribute(n::IFA_ADDRESS, &ip);
    if address.ip.is_ipv4() {
        message.attribute(n::IFA_LOCAL, &ip).string(n::IFA_LABEL, NAME);
    }
    let forever = IfaCacheinfo { ifa_prefered: u32::MAX, ifa_valid: u32::MAX, cstamp: 0, tstamp: 0 };
    message.value(n::IFA_CACHEINFO, &forever).value(n::IFA_FLAGS, &n::IFA_F_PERMANENT);
    message.finish();
}

/// A route of the table `local`.
struct Route {
    to: IpAddr,
    prefix: u8,
    kind: u8,
    scope: u8,
    source: IpAddr,
}

impl Route {
    fn put(&self, header: Nlmsghdr, out: &mut Vec<u8>) {
        let v4 = self.to.is_ipv4();
        let mut message = MessageWriter::new(out, header);
        message.payload(&Rtmsg {
            rtm_family: family_of(self.to) as u8,
            rtm_dst_len: self.prefix,
            rtm_table: n::RT_TABLE_LOCAL,
            rtm_protocol: n::RTPROT_KERNEL,
            rtm_scope: if v4 { self.scope } else { n::RT_SCOPE_UNIVERSE },
            rtm_type: self.kind,
            ..Rtmsg::default()
        });
        message.value(n::RTA_TABLE, &u32::from(n::RT_TABLE_LOCAL)).attribute(n::RTA_DST, &octets(self.to));
        if v4 {
            message.attribute(n::RTA_PREFSRC, &octets(self.source));
        } else {
            message.value(n::RTA_PRIORITY, &0u32);
        }
        message.value(n::RTA_OIF, &INDEX);
        if !v4 {
            message.value(n::RTA_PREF, &0u8);
        }
        message.finish();
    }
}

fn routes(net: &NetNamespace) -> Vec<Route> {
    let mut routes = Vec::new();
    if !net.device.is_up() {
        return routes;
    }
    for address in net.device.addresses() {
        let source = address.ip;
        let local = |to: IpAddr, prefix: u8| Route {
            to,
            prefix,
            kind: n::RTN_LOCAL,
            scope: n::RT_SCOPE_HOST,
            source,
        };
        let IpAddr::V4(ip) = address.ip else {
            routes.push(local(address.ip, 128));
            continue;
        };
        if address.prefix < 32 {
            let mask = u32::MAX.checked_shl(32 - u32::from(address.prefix)).unwrap_or(0);
            let network = Ipv4Addr::from_bits(ip.to_bits() & mask);
            let last = Ipv4Addr::from_bits(ip.to_bits() | !mask);
            routes.push(local(network.into(), address.prefix));
            routes.push(local(ip.into(), 32));
            let broadcast = local(last.into(), 32);
            routes.push(Route { kind: n::RTN_BROADCAST, scope: n::RT_SCOPE_LINK, ..broadcast });
        } else {
            routes.push(local(ip.into(), 32));
        }
    }
    routes
}

fn address(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    Ok(Ipv6Addr::from(v6).into())
}

/// The route to one destination (`ip route get`).
fn get_route(request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    let (_, attrs) = request.split::<Rtmsg>()?;
    let to = n::attributes(attrs).find(|(k, _)| *k == n::RTA_DST).ok_or(Errno::EINVAL)?;
    let to = address(to.1)?;
    let source = request.net.device.route(to)?;
    let mut reply = Vec::new();
    let mut message = MessageWriter::new(&mut reply, request.answer(n::RTM_NEWROUTE, 0));
    message.payload(&Rtmsg {
        rtm_family: family_of(to) as u8,
        rtm_dst_len: if to.is_ipv4() { 32 } else { 128 },
        rtm_table: n::RT_TABLE_LOCAL,
        rtm_protocol: if to.is_ipv4() { n::RTPROT_UNSPEC } else { n::RTPROT_KERNEL },
        rtm_type: n::RTN_LOCAL,
        rtm_flags: n::RTM_F_CLONED,
        ..Rtmsg::default()
    });
    message
        .value(n::RTA_TABLE, &u32::from(n::RT_TABLE_LOCAL))
        .attribute(n::RTA_DST, &octets(to))
        .value(n::RTA_OIF, &INDEX)
        .attribute(n::RTA_PREFSRC, &octets(source))
        .value(n::RTA_UID, &0u32);
    message.finish();
    Ok(vec![reply])
}

fn rules(request: &Request<'_>, family: u16, messages: &mut Vec<Vec<u8>>) {
    let all = [(0u32, n::RT_TABLE_LOCAL), (32_766, n::RT_TABLE_MAIN), (32_767, n::RT_TABLE_DEFAULT)];
    let count = if family == AF_INET { 3 } else { 2 };
    for (priority, table) in all.into_iter().take(count) {
        let mut data = Vec::new();
        let header = request.answer(n::RTM_NEWRULE, n::NLM_F_MULTI);
        let mut message = MessageWriter::new(&mut data, header);
        // `struct fib_rule_hdr` is laid out like this one; the action is where the type is.
        message.payload(&Rtmsg {
            rtm_family: family as u8,
            rtm_table: table,
            rtm_type: FR_ACT_TO_TBL,
            ..Rtmsg::default()
        });
        message
            .value(FRA_TABLE, &u32::from(table))
            .value(FRA_SUPPRESS_PREFIXLEN, &u32::MAX)
            .value(FRA_PROTOCOL, &n::RTPROT_KERNEL);
        if priority != 0 {
            message.value(FRA_PRIORITY, &priority);
        }
        message.finish();
        messages.push(data);
    }
}

/// Bringing the device up or down is all that can be changed.
fn change_link(request: &Request<'_>) -> Result<()> {
    let (header, attrs) = request.split::<Ifinfomsg>()?;
    let name = n::attributes(attrs).find(|(k, _)| *k == n::IFLA_IFNAME);
    let device = &request.net.device;
    let index = match (header.ifi_index, name) {
        (0, Some((_, name))) => device.index_of(name.strip_suffix(b"\0").unwrap_or(name)),
        (index, _) => device.name_of(index).map(|_| index),
    };
    if index.is_none() {
        let creates =
            request.header.nlmsg_type == n::RTM_NEWLINK && request.header.nlmsg_flags & n::NLM_F_CREATE != 0;
        return Err(if creates { Errno::EOPNOTSUPP } else { Errno::ENODEV });
    }
    if n::attributes(attrs).any(|(k, _)| !matches!(k, n::IFLA_IFNAME | n::IFLA_EXT_MASK)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let up = IfFlags::IFF_UP.bits();
    // Old programs leave the mask empty, and mean all flags.
    if header.ifi_change & up != 0 || header.ifi_change == 0 && header.ifi_flags & up != 0 {
        device.set_up(header.ifi_flags & up != 0);
        let mut event = Vec::new();
        let header = Nlmsghdr { nlmsg_type: n::RTM_NEWLINK, ..Nlmsghdr::default() };
        link(request.net, header, &[], &mut event);
        request.net.netlink.broadcast(n::NETLINK_ROUTE, n::RTNLGRP_LINK, &event);
    }
    Ok(())
}

fn change_address(request: &Request<'_>) -> Result<()> {
    let (header, attrs) = request.split::<Ifaddrmsg>()?;
    request.net.device.name_of(header.ifa_index as i32).ok_or(Errno::ENODEV)?;
    let find = |kind: u16| n::attributes(attrs).find(|(k, _)| *k == kind).map(|(_, v)| v);
    let ip = address(find(n::IFA_LOCAL).or(find(n::IFA_ADDRESS)).ok_or(Errno::EINVAL)?)?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    if u16::from(header.ifa_family) != family_of(ip) || header.ifa_prefixlen > bits {
        return Err(Errno::EINVAL);
    }
    let adds = request.header.nlmsg_type == n::RTM_NEWADDR;
    let device = &request.net.device;
    let changed = Address { ip, prefix: header.ifa_prefixlen, scope: header.ifa_scope };
    if adds {
        match device.add_address(ip, header.ifa_prefixlen, header.ifa_scope) {
            Err(Errno::EEXIST) if request.header.nlmsg_flags & n::NLM_F_REPLACE != 0 => {}
            result => result?,
        }
    } else {
        device.remove_address(ip, Some(header.ifa_prefixlen))?;
    }
    let mut event = Vec::new();
    let header = Nlmsghdr { nlmsg_type: request.header.nlmsg_type, ..Nlmsghdr::default() };
    put_address(&changed, header, &mut event);
    let group = if ip.is_ipv4() { n::RTNLGRP_IPV4_IFADDR } else { n::RTNLGRP_IPV6_IFADDR };
    request.net.netlink.broadcast(n::NETLINK_ROUTE, group, &event);
    Ok(())
}
