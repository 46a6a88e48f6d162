//! `net/`: the network namespace of a process (proc_net(5)).

use std::sync::Arc;

use abi::Result;

use super::subject::Subject;
use crate::fs::synthetic::{Content, Entry, Kind};
use crate::net::NetNamespace;
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
        Entry::text("dev", &OfNet(dev)),
        Entry::text("if_inet6", &OfNet(if_inet6)),
        Entry::text("packet", &OfNet(packet)),
        Entry::text("psched", &OfNet(|_| "000003e8 00000040 000f4240 3b9aca00\n".to_string())),
        Entry::text("raw", &OfNet(|_| inet(false, true))),
        Entry::text("raw6", &OfNet(|_| inet(true, true))),
        Entry::text("route", &OfNet(route)),
        Entry::text("tcp", &OfNet(|_| inet(false, false))),
        Entry::text("tcp6", &OfNet(|_| inet(true, false))),
        Entry::text("udp", &OfNet(|_| inet(false, true))),
        Entry::text("udp6", &OfNet(|_| inet(true, true))),
        Entry::text("unix", &OfNet(unix)),
    ],
    None,
);

fn arp(_net: &NetNamespace) -> String {
    "IP address       HW type     Flags       HW address            Mask     Device\n".to_string()
}

fn dev(_net: &NetNamespace) -> String {
    "Inter-|   Receive                                                |  Transmit\n\
     \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls \
     carrier compressed\n\
     \x20   lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0\
     \x20         0\n"
        .to_string()
}

fn if_inet6(_net: &NetNamespace) -> String {
    "00000000000000000000000000000001 01 80 10 80       lo\n".to_string()
}

fn packet(_net: &NetNamespace) -> String {
    "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_string()
}

fn route(_net: &NetNamespace) -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    format!("{head:<127}\n")
}

/// The heading of a list of sockets.
fn inet(six: bool, datagrams: bool) -> String {
    let (local, remote) = if six { (39, 39) } else { (14, 12) };
    let _ = (local, remote);
    let addresses = if six {
        "  sl  local_address                         remote_address                        st "
    } else {
        "  sl  local_address rem_address   st "
    };
    let tail = if datagrams { " ref pointer drops" } else { "" };
    format!("{addresses}tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode{tail}\n")
}

fn unix(_net: &NetNamespace) -> String {
    "Num       RefCount Protocol Flags    Type St Inode Path\n".to_string()
}
