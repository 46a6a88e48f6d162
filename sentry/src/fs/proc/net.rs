//! `net/`: the network namespace of a process (proc_net(5)).

use std::sync::Arc;

use abi::Result;

use super::subject::Subject;
use crate::fs::synthetic::{Content, Entry, Kind};
use crate::net::{NetNamespace, proc as text};
use crate::vfs::Io;

/// A file about a network namespace.
struct OfNet(fn(&NetNamespace) -> String);

impl Content<Subject> for OfNet {
    fn read(&self, subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
        let net: Arc<NetNamespace> = subject.find()?.namespaces()?.net.clone();
        Ok((self.0)(&net).into_bytes())
    }
}

/// `net/`.
pub(super) const NET: Kind<Subject> = Kind::Directory(
    &[
        Entry::text("arp", &OfNet(arp)),
        Entry::text("dev", &OfNet(text::dev)),
        Entry::text("icmp", &OfNet(|net| text::icmp(net, false))),
        Entry::text("icmp6", &OfNet(|net| text::icmp(net, true))),
        Entry::text("if_inet6", &OfNet(text::if_inet6)),
        Entry::text("igmp", &OfNet(text::igmp)),
        Entry::text("ipv6_route", &OfNet(text::ipv6_route)),
        Entry::text("netlink", &OfNet(text::netlink)),
        Entry::text("netstat", &OfNet(text::netstat)),
        Entry::text("packet", &OfNet(packet)),
        Entry::text("protocols", &OfNet(text::protocols)),
        Entry::text("psched", &OfNet(|_| "000003e8 00000040 000f4240 3b9aca00\n".to_string())),
        Entry::text("raw", &OfNet(|_| text::raw(false))),
        Entry::text("raw6", &OfNet(|_| text::raw(true))),
        Entry::text("route", &OfNet(text::route)),
        Entry::text("snmp", &OfNet(text::snmp)),
        Entry::text("sockstat", &OfNet(text::sockstat)),
        Entry::text("sockstat6", &OfNet(text::sockstat6)),
        Entry::text("tcp", &OfNet(|net| text::tcp(net, false))),
        Entry::text("tcp6", &OfNet(|net| text::tcp(net, true))),
        Entry::text("udp", &OfNet(|net| text::udp(net, false))),
        Entry::text("udp6", &OfNet(|net| text::udp(net, true))),
        Entry::text("udplite", &OfNet(|net| text::udplite(net, false))),
        Entry::text("udplite6", &OfNet(|net| text::udplite(net, true))),
        Entry::text("unix", &OfNet(text::unix)),
    ],
    None,
);

fn arp(_net: &NetNamespace) -> String {
    "IP address       HW type     Flags       HW address            Mask     Device\n".to_string()
}

fn packet(_net: &NetNamespace) -> String {
    "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_string()
}
