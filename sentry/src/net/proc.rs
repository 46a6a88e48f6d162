//! The text of `/proc/net` (proc_net(5)), in Linux's formats. Addresses of kernel objects are shown as zeroes, as to
//! those who may not see them.

use std::fmt::Write as _;
use std::net::IpAddr;

use abi::inet::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN};
use abi::netdevice::IfFlags;
use abi::socket::{AF_INET6, SOCK_STREAM};

use super::inet::Endpoint;
use super::inet::tcp::TcpSocket;
use super::inet::udp::UdpSocket;
use super::unix::{Phase, UnixAddress};
use super::{NetNamespace, Socket, device};

/// A pointer that is not for everybody's eyes.
const HIDDEN: &str = "0000000000000000";

/// Lines of IPv4 sockets have one length, so that the file can be read from any line on.
const TCP_LINE: usize = 149;
const UDP_LINE: usize = 127;

fn push_line(text: &mut String, line: &str, width: usize) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line:<width$}");
}

/// Address and port, as words in the byte order of this machine.
fn endpoint(endpoint: Endpoint, six: bool) -> String {
    let octets: Vec<u8> = match endpoint.ip {
        IpAddr::V4(ip) if six && !ip.is_unspecified() => ip.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V4(_) if six => vec![0; 16],
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in octets.as_chunks::<4>().0 {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{:04X}", endpoint.port);
    text
}

fn is_six(socket: &impl Socket) -> bool {
    socket.common().domain == AF_INET6
}

fn heading(six: bool) -> &'static str {
    if six {
        "local_address                         remote_address                        st tx_queue rx_queue tr \
         tm->when retrnsmt   uid  timeout inode"
    } else {
        "local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    }
}

/// `tcp` and `tcp6`: listeners and connections.
pub fn tcp(net: &NetNamespace, six: bool) -> String {
    let width = if six { 0 } else { TCP_LINE };
    let mut text = String::new();
    push_line(&mut text, &format!("  sl  {}", heading(six)), width);
    let state = |socket: &TcpSocket| socket.tcp_state();
    let shown = net.tcp.all().into_iter().filter(|s| is_six(&**s) == six && state(s) != TCP_CLOSE);
    let (listeners, others): (Vec<_>, Vec<_>) = shown.partition(|s| s.is_listening());
    for (number, socket) in listeners.iter().chain(&others).enumerate() {
        let (local, remote) = socket.endpoints();
        let (sent, received) = socket.queues();
        let listens = socket.tcp_state() == TCP_LISTEN;
        let sent = if listens { 0 } else { sent };
        let (ino, uid) = socket.common().identity();
        let timers = if listens { "100 0 0 10 0" } else { "20 0 0 10 -1" };
        let line = format!(
            "{number:4}: {} {} {:02X} {sent:08X}:{received:08X} 00:00000000 00000000 {uid:5}        0 {ino} 2 \
             {HIDDEN} {timers}",
            endpoint(local, six),
            endpoint(remote, six),
            socket.tcp_state(),
        );
        push_line(&mut text, &line, width);
    }
    text
}

fn datagrams(sockets: &[std::sync::Arc<UdpSocket>], six: bool, indent: &str, wide: usize) -> String {
    let width = if six { 0 } else { UDP_LINE };
    let mut text = String::new();
    push_line(&mut text, &format!("{indent}{} ref pointer drops", heading(six)), width);
    for (number, socket) in sockets.iter().filter(|s| is_six(&***s) == six).enumerate() {
        let (local, remote) = socket.endpoints();
        let (ino, uid) = socket.common().identity();
        let state = if remote.port == 0 { TCP_CLOSE } else { TCP_ESTABLISHED };
        let drops = socket.common().drops.load(std::sync::atomic::Ordering::Relaxed);
        let line = format!(
            "{number:wide$}: {} {} {state:02X} 00000000:{:08X} 00:00000000 00000000 {uid:5}        0 {ino} 2 \
             {HIDDEN} {drops}",
            endpoint(local, six),
            endpoint(remote, six),
            socket.queued(),
        );
        push_line(&mut text, &line, width);
    }
    text
}

/// `udp` and `udp6`.
pub fn udp(net: &NetNamespace, six: bool) -> String {
    datagrams(&net.udp.all(), six, if six { "  sl  " } else { "   sl  " }, 5)
}

/// `udplite` and `udplite6`.
pub fn udplite(net: &NetNamespace, six: bool) -> String {
    datagrams(&net.udplite.all(), six, if six { "  sl  " } else { "   sl  " }, 5)
}

/// `icmp` and `icmp6`.
pub fn icmp(net: &NetNamespace, six: bool) -> String {
    datagrams(&net.ping.all(), six, "  sl  ", 5)
}

/// `raw` and `raw6`: there are none.
pub fn raw(six: bool) -> String {
    datagrams(&[], six, "  sl  ", 5)
}

/// `unix`.
pub fn unix(net: &NetNamespace) -> String {
    let mut text = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    for socket in net.unix.all() {
        let listens = socket.is_listening();
        let accepted = socket.common().place().is_some();
        let state = match (socket.phase(), accepted) {
            (_, false) => 2,
            (Phase::Connected, _) => 3,
            _ => 1,
        };
        let flags = if listens { 0x1_0000 } else { 0 };
        let (ino, _) = socket.common().identity();
        let references = if state == 1 { 2 } else { 3 };
        let kind = socket.common().kind;
        let _ =
            write!(text, "{HIDDEN}: {references:08X} 00000000 {flags:08X} {kind:04X} {state:02X} {ino:5}");
        if let Some(address) = socket.address() {
            text.push(' ');
            text.push_str(&unix_name(&address));
        }
        text.push('\n');
    }
    text
}

/// A name with `@` where an abstract one has NULs.
fn unix_name(address: &UnixAddress) -> String {
    let name = if address.is_abstract() { address.name() } else { address.path() };
    let shown: Vec<u8> = name.iter().map(|&c| if c == 0 { b'@' } else { c }).collect();
    String::from_utf8_lossy(&shown).into_owned()
}

/// `netlink`.
pub fn netlink(net: &NetNamespace) -> String {
    let mut text = String::from(
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    );
    for socket in net.netlink.all() {
        let (port, groups, held) = socket.status();
        let common = socket.common();
        let (ino, _) = common.identity();
        let drops = common.drops.load(std::sync::atomic::Ordering::Relaxed);
        let _ = writeln!(
            text,
            "{HIDDEN} {:<3} {port:<10} {groups:08x} {held:<8} {:<8} 0     2        {drops:<8} {ino:<8}",
            common.protocol, 0
        );
    }
    text
}

/// `dev`. What goes over the loopback device is not counted.
pub fn dev(_net: &NetNamespace) -> String {
    "Inter-|   Receive                                                |  Transmit\n\
     \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls \
     carrier compressed\n\
     \x20   lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0\
     \x20         0\n"
        .to_string()
}

/// `route`: the main table, which is empty.
pub fn route(_net: &NetNamespace) -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    format!("{head:<127}\n")
}

/// `ipv6_route`
pub fn ipv6_route(net: &NetNamespace) -> String {
    let mut text = String::new();
    if !net.device.is_up() {
        return text;
    }
    let none = "00000000000000000000000000000000";
    for address in net.device.addresses() {
        if let IpAddr::V6(ip) = address.ip {
            let ip = hex(&ip.octets());
            let _ = writeln!(text, "{ip} 80 {none} 00 {none} 00000000 00000002 00000000 80200001       lo");
        }
    }
    let _ = writeln!(text, "{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo");
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `if_inet6`: address, index, prefix, scope, flags, device.
pub fn if_inet6(net: &NetNamespace) -> String {
    let mut text = String::new();
    for address in net.device.addresses() {
        if let IpAddr::V6(ip) = address.ip {
            let scope = if ip.is_loopback() { 0x10 } else { 0 };
            let _ = writeln!(
                text,
                "{} {:02x} {:02x} {scope:02x} 80 {:>8}",
                hex(&ip.octets()),
                device::INDEX,
                address.prefix,
                "lo"
            );
        }
    }
    text
}

/// `dev_mcast` and `igmp`: the group of all hosts.
pub fn igmp(net: &NetNamespace) -> String {
    let mut text = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    if net.device.flags().contains(IfFlags::IFF_UP) {
        text.push_str("1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n");
    }
    text
}

struct Counts {
    tcp: [usize; 2],
    udp: [usize; 2],
    established: usize,
}

fn counts(net: &NetNamespace) -> Counts {
    let mut counts = Counts { tcp: [0; 2], udp: [0; 2], established: 0 };
    for socket in net.tcp.all() {
        let state = socket.tcp_state();
        counts.tcp[usize::from(is_six(&*socket))] += usize::from(state != TCP_CLOSE);
        counts.established += usize::from(!matches!(state, TCP_CLOSE | TCP_LISTEN));
    }
    for socket in net.udp.all() {
        counts.udp[usize::from(is_six(&*socket))] += 1;
    }
    counts
}

/// `sockstat`
pub fn sockstat(net: &NetNamespace) -> String {
    let counts = counts(net);
    let (unix, netlink) = (net.unix.all().len(), net.netlink.all().len());
    let inet: usize = counts.tcp.iter().chain(&counts.udp).sum();
    format!(
        "sockets: used {}\nTCP: inuse {} orphan 0 tw 0 alloc {} mem 0\nUDP: inuse {} mem 0\nUDPLITE: inuse 0\n\
         RAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        unix + netlink + inet,
        counts.tcp[0],
        counts.tcp[0] + counts.tcp[1],
        counts.udp[0],
    )
}

/// `sockstat6`
pub fn sockstat6(net: &NetNamespace) -> String {
    let counts = counts(net);
    format!(
        "TCP6: inuse {}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n",
        counts.tcp[1], counts.udp[1],
    )
}

/// A line of names and one of values.
fn table(text: &mut String, prefix: &str, names: &str, values: &[i64]) {
    let count = names.split(' ').count();
    let mut line = String::new();
    for i in 0..count {
        let _ = write!(line, " {}", values.get(i).copied().unwrap_or(0));
    }
    let _ = writeln!(text, "{prefix}: {names}\n{prefix}:{line}");
}

/// `snmp`: what is not counted is zero.
pub fn snmp(net: &NetNamespace) -> String {
    let mut text = String::new();
    table(
        &mut text,
        "Ip",
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards \
         InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs \
         FragFails FragCreates OutTransmits",
        &[2, 64],
    );
    table(
        &mut text,
        "Icmp",
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos \
         InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors \
         OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs \
         OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps",
        &[],
    );
    table(
        &mut text,
        "Tcp",
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs \
         OutSegs RetransSegs InErrs OutRsts InCsumErrors",
        &[1, 200, 120_000, -1, 0, 0, 0, 0, counts(net).established as i64],
    );
    let udp = "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti \
               MemErrors";
    table(&mut text, "Udp", udp, &[]);
    table(&mut text, "UdpLite", udp, &[]);
    text
}

/// `netstat`: nothing of it happens between buffers.
pub fn netstat(_net: &NetNamespace) -> String {
    let mut text = String::new();
    table(
        &mut text,
        "TcpExt",
        "SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned \
         OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab DelayedACKs \
         DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops TCPHPHits TCPPureAcks TCPHPAcks",
        &[],
    );
    table(
        &mut text,
        "IpExt",
        "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets \
         InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors InNoECTPkts InECT1Pkts \
         InECT0Pkts InCEPkts ReasmOverlaps",
        &[],
    );
    text
}

/// `protocols`
pub fn protocols(net: &NetNamespace) -> String {
    let counts = counts(net);
    let (streams, others): (Vec<_>, Vec<_>) =
        net.unix.all().into_iter().partition(|socket| socket.common().kind == SOCK_STREAM);
    let inet = "y  y  y  n  y  y  y  n  y  y  y  y  n  n  y  y  y  n";
    let tcp = "y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y";
    let ping = "y  y  y  n  n  y  n  n  y  y  y  y  y  y  n  y  y  n";
    let plain = "y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n";
    let none = "n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n";
    let mut text = String::from(
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha \
         uh gp em\n",
    );
    let rows = [
        ("PINGv6", 1344, 0, -1, "NI", 0, "yes", ping),
        ("UDPv6", 1472, counts.udp[1], 0, "NI", 0, "yes", inet),
        ("TCPv6", 2432, counts.tcp[1], 0, "no", 192, "yes", tcp),
        ("UNIX-STREAM", 1152, streams.len(), -1, "NI", 0, "yes", plain),
        ("UNIX", 1152, others.len(), -1, "NI", 0, "yes", plain),
        ("PING", 1016, net.ping.all().len(), -1, "NI", 0, "yes", ping),
        ("UDP", 1344, counts.udp[0], 0, "NI", 0, "yes", inet),
        ("TCP", 2304, counts.tcp[0], 0, "no", 192, "yes", tcp),
        ("NETLINK", 1096, net.netlink.all().len(), -1, "NI", 0, "no", none),
    ];
    for (name, size, sockets, memory, pressure, header, slab, operations) in rows {
        let _ = writeln!(
            text,
            "{name:<9} {size:4} {sockets:6}  {memory:6}   {pressure:<3} {header:6}   {slab:<3}  {:<10}  \
             {operations}",
            "kernel",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::UserNamespace;
    use crate::task::credentials::IdMap;

    #[test]
    fn addresses_are_words_of_the_machine() {
        let v4 = Endpoint { ip: "127.0.0.1".parse().unwrap(), port: 48153 };
        assert_eq!(endpoint(v4, false), "0100007F:BC19");
        assert_eq!(endpoint(v4, true), "0000000000000000FFFF00000100007F:BC19");
        let v6 = Endpoint { ip: "::1".parse().unwrap(), port: 9 };
        assert_eq!(endpoint(v6, true), "00000000000000000000000001000000:0009");
    }

    #[test]
    fn lines_are_as_long_as_on_linux() {
        let net = NetNamespace::new(UserNamespace::initial((IdMap::identity(), IdMap::identity())));
        assert_eq!(tcp(&net, false).len(), 150);
        assert_eq!(udp(&net, false).len(), 128);
        assert!(if_inet6(&net).starts_with("00000000000000000000000000000001 01 80 10 80       lo\n"));
        let text = snmp(&net);
        let counts: Vec<usize> = text.lines().map(|line| line.split(' ').count()).collect();
        assert!(counts.chunks(2).all(|pair| pair[0] == pair[1]), "{counts:?}");
    }
}
