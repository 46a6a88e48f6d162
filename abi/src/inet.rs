//! Internet sockets (`in.h`, `in6.h`, `tcp.h`, `udp.h`, `icmp.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use crate::socket::{AF_INET, AF_INET6};

layout! {
    /// `struct sockaddr_in`; port and address are in network order.
    struct SockaddrIn[16] { sin_family: u16, sin_port: [u8; 2], sin_addr: [u8; 4], sin_zero: [u8; 8] }

    /// `struct sockaddr_in6`; port, flow information and address are in network order.
    struct SockaddrIn6[28] {
        sin6_family: u16, sin6_port: [u8; 2], sin6_flowinfo: [u8; 4], sin6_addr: [u8; 16], sin6_scope_id: u32,
    }

    /// `struct ip_mreq`.
    struct IpMreq[8] { imr_multiaddr: [u8; 4], imr_interface: [u8; 4] }

    /// `struct ip_mreqn`.
    struct IpMreqn[12] { imr_multiaddr: [u8; 4], imr_address: [u8; 4], imr_ifindex: i32 }

    /// `struct ipv6_mreq`.
    struct Ipv6Mreq[20] { ipv6mr_multiaddr: [u8; 16], ipv6mr_ifindex: i32 }

    /// `struct in_pktinfo`, the control message of IP_PKTINFO.
    struct InPktinfo[12] { ipi_ifindex: i32, ipi_spec_dst: [u8; 4], ipi_addr: [u8; 4] }

    /// `struct in6_pktinfo`, the control message of IPV6_PKTINFO.
    struct In6Pktinfo[20] { ipi6_addr: [u8; 16], ipi6_ifindex: i32 }

    /// `struct tcp_info`; getsockopt(TCP_INFO) gives as much of it as was asked for. The first
    /// byte of bit fields is the two window scales (sending in the low half); the second has `tcpi_delivery_rate_app_limited` in bit 0 and
    /// `tcpi_fastopen_client_fail` in bits 1 and 2.
    struct TcpInfo[248] {
        tcpi_state: u8, tcpi_ca_state: u8, tcpi_retransmits: u8, tcpi_probes: u8, tcpi_backoff: u8,
        tcpi_options: u8, tcpi_wscale: u8, tcpi_bits: u8, tcpi_rto: u32, tcpi_ato: u32, tcpi_snd_mss: u32,
        tcpi_rcv_mss: u32, tcpi_unacked: u32, tcpi_sacked: u32, tcpi_lost: u32, tcpi_retrans: u32,
        tcpi_fackets: u32, tcpi_last_data_sent: u32, tcpi_last_ack_sent: u32, tcpi_last_data_recv: u32,
        tcpi_last_ack_recv: u32, tcpi_pmtu: u32, tcpi_rcv_ssthresh: u32, tcpi_rtt: u32, tcpi_rttvar: u32,
        tcpi_snd_ssthresh: u32, tcpi_snd_cwnd: u32, tcpi_advmss: u32, tcpi_reordering: u32, tcpi_rcv_rtt: u32,
        tcpi_rcv_space: u32, tcpi_total_retrans: u32, tcpi_pacing_rate: u64, tcpi_max_pacing_rate: u64,
        tcpi_bytes_acked: u64, tcpi_bytes_received: u64, tcpi_segs_out: u32, tcpi_segs_in: u32,
        tcpi_notsent_bytes: u32, tcpi_min_rtt: u32, tcpi_data_segs_in: u32, tcpi_data_segs_out: u32,
        tcpi_delivery_rate: u64, tcpi_busy_time: u64, tcpi_rwnd_limited: u64, tcpi_sndbuf_limited: u64,
        tcpi_delivered: u32, tcpi_delivered_ce: u32, tcpi_bytes_sent: u64, tcpi_bytes_retrans: u64,
        tcpi_dsack_dups: u32, tcpi_reord_seen: u32, tcpi_rcv_ooopack: u32, tcpi_snd_wnd: u32,
        tcpi_rcv_wnd: u32, tcpi_rehash: u32, tcpi_total_rto: u16, tcpi_total_rto_recoveries: u16,
        tcpi_total_rto_time: u32,
    }
}

impl From<SocketAddrV4> for SockaddrIn {
    fn from(addr: SocketAddrV4) -> SockaddrIn {
        SockaddrIn {
            sin_family: AF_INET,
            sin_port: addr.port().to_be_bytes(),
            sin_addr: addr.ip().octets(),
            sin_zero: [0; 8],
        }
    }
}

impl From<SockaddrIn> for SocketAddrV4 {
    /// Of whatever family it says it is.
    fn from(addr: SockaddrIn) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(addr.sin_addr), u16::from_be_bytes(addr.sin_port))
    }
}

impl From<SocketAddrV6> for SockaddrIn6 {
    fn from(addr: SocketAddrV6) -> SockaddrIn6 {
        SockaddrIn6 {
            sin6_family: AF_INET6,
            sin6_port: addr.port().to_be_bytes(),
            sin6_flowinfo: addr.flowinfo().to_be_bytes(),
            sin6_addr: addr.ip().octets(),
            sin6_scope_id: addr.scope_id(),
        }
    }
}

impl From<SockaddrIn6> for SocketAddrV6 {
    /// Of whatever family it says it is.
    fn from(addr: SockaddrIn6) -> SocketAddrV6 {
        SocketAddrV6::new(
            Ipv6Addr::from(addr.sin6_addr),
            u16::from_be_bytes(addr.sin6_port),
            u32::from_be_bytes(addr.sin6_flowinfo),
            addr.sin6_scope_id,
        )
    }
}

pub const IPPROTO_IP: u32 = 0;
pub const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_IGMP: u32 = 2;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_IPV6: u32 = 41;
pub const IPPROTO_ICMPV6: u32 = 58;
pub const IPPROTO_SCTP: u32 = 132;
pub const IPPROTO_UDPLITE: u32 = 136;
pub const IPPROTO_RAW: u32 = 255;
pub const IPPROTO_MPTCP: u32 = 262;
pub const IPPROTO_MAX: u32 = 263;

// Options of `SOL_IP`.
pub const IP_TOS: i32 = 1;
pub const IP_TTL: i32 = 2;
pub const IP_HDRINCL: i32 = 3;
pub const IP_OPTIONS: i32 = 4;
pub const IP_ROUTER_ALERT: i32 = 5;
pub const IP_RECVOPTS: i32 = 6;
pub const IP_RETOPTS: i32 = 7;
pub const IP_PKTINFO: i32 = 8;
pub const IP_PKTOPTIONS: i32 = 9;
pub const IP_MTU_DISCOVER: i32 = 10;
pub const IP_RECVERR: i32 = 11;
pub const IP_RECVTTL: i32 = 12;
pub const IP_RECVTOS: i32 = 13;
pub const IP_MTU: i32 = 14;
pub const IP_FREEBIND: i32 = 15;
pub const IP_TRANSPARENT: i32 = 19;
pub const IP_RECVORIGDSTADDR: i32 = 20;
pub const IP_MINTTL: i32 = 21;
pub const IP_NODEFRAG: i32 = 22;
pub const IP_CHECKSUM: i32 = 23;
pub const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
pub const IP_RECVFRAGSIZE: i32 = 25;
pub const IP_RECVERR_RFC4884: i32 = 26;
pub const IP_MULTICAST_IF: i32 = 32;
pub const IP_MULTICAST_TTL: i32 = 33;
pub const IP_MULTICAST_LOOP: i32 = 34;
pub const IP_ADD_MEMBERSHIP: i32 = 35;
pub const IP_DROP_MEMBERSHIP: i32 = 36;
pub const IP_UNBLOCK_SOURCE: i32 = 37;
pub const IP_BLOCK_SOURCE: i32 = 38;
pub const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
pub const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
pub const IP_MSFILTER: i32 = 41;
pub const MCAST_JOIN_GROUP: i32 = 42;
pub const MCAST_LEAVE_GROUP: i32 = 45;
pub const IP_MULTICAST_ALL: i32 = 49;
pub const IP_UNICAST_IF: i32 = 50;
pub const IP_LOCAL_PORT_RANGE: i32 = 51;
pub const IP_PROTOCOL: i32 = 52;
// Values of IP_MTU_DISCOVER.
pub const IP_PMTUDISC_DONT: i32 = 0;
pub const IP_PMTUDISC_WANT: i32 = 1;
pub const IP_PMTUDISC_DO: i32 = 2;
pub const IP_PMTUDISC_PROBE: i32 = 3;
pub const IP_PMTUDISC_INTERFACE: i32 = 4;
pub const IP_PMTUDISC_OMIT: i32 = 5;

// Options of `SOL_IPV6`.
pub const IPV6_ADDRFORM: i32 = 1;
pub const IPV6_2292PKTINFO: i32 = 2;
pub const IPV6_CHECKSUM: i32 = 7;
pub const IPV6_2292HOPLIMIT: i32 = 8;
pub const IPV6_FLOWINFO: i32 = 11;
pub const IPV6_UNICAST_HOPS: i32 = 16;
pub const IPV6_MULTICAST_IF: i32 = 17;
pub const IPV6_MULTICAST_HOPS: i32 = 18;
pub const IPV6_MULTICAST_LOOP: i32 = 19;
pub const IPV6_ADD_MEMBERSHIP: i32 = 20;
pub const IPV6_DROP_MEMBERSHIP: i32 = 21;
pub const IPV6_ROUTER_ALERT: i32 = 22;
pub const IPV6_MTU_DISCOVER: i32 = 23;
pub const IPV6_MTU: i32 = 24;
pub const IPV6_RECVERR: i32 = 25;
pub const IPV6_V6ONLY: i32 = 26;
pub const IPV6_JOIN_ANYCAST: i32 = 27;
pub const IPV6_LEAVE_ANYCAST: i32 = 28;
pub const IPV6_MULTICAST_ALL: i32 = 29;
pub const IPV6_FLOWLABEL_MGR: i32 = 32;
pub const IPV6_FLOWINFO_SEND: i32 = 33;
pub const IPV6_HDRINCL: i32 = 36;
pub const IPV6_RECVPKTINFO: i32 = 49;
pub const IPV6_PKTINFO: i32 = 50;
pub const IPV6_RECVHOPLIMIT: i32 = 51;
pub const IPV6_HOPLIMIT: i32 = 52;
pub const IPV6_RECVHOPOPTS: i32 = 53;
pub const IPV6_HOPOPTS: i32 = 54;
pub const IPV6_RTHDRDSTOPTS: i32 = 55;
pub const IPV6_RECVRTHDR: i32 = 56;
pub const IPV6_RTHDR: i32 = 57;
pub const IPV6_RECVDSTOPTS: i32 = 58;
pub const IPV6_DSTOPTS: i32 = 59;
pub const IPV6_RECVPATHMTU: i32 = 60;
pub const IPV6_PATHMTU: i32 = 61;
pub const IPV6_DONTFRAG: i32 = 62;
pub const IPV6_RECVTCLASS: i32 = 66;
pub const IPV6_TCLASS: i32 = 67;
pub const IPV6_AUTOFLOWLABEL: i32 = 70;
pub const IPV6_ADDR_PREFERENCES: i32 = 72;
pub const IPV6_MINHOPCOUNT: i32 = 73;
pub const IPV6_ORIGDSTADDR: i32 = 74;
pub const IPV6_TRANSPARENT: i32 = 75;
pub const IPV6_UNICAST_IF: i32 = 76;
pub const IPV6_RECVFRAGSIZE: i32 = 77;
pub const IPV6_FREEBIND: i32 = 78;

// Options of `SOL_TCP`.
pub const TCP_NODELAY: i32 = 1;
pub const TCP_MAXSEG: i32 = 2;
pub const TCP_CORK: i32 = 3;
pub const TCP_KEEPIDLE: i32 = 4;
pub const TCP_KEEPINTVL: i32 = 5;
pub const TCP_KEEPCNT: i32 = 6;
pub const TCP_SYNCNT: i32 = 7;
pub const TCP_LINGER2: i32 = 8;
pub const TCP_DEFER_ACCEPT: i32 = 9;
pub const TCP_WINDOW_CLAMP: i32 = 10;
pub const TCP_INFO: i32 = 11;
pub const TCP_QUICKACK: i32 = 12;
pub const TCP_CONGESTION: i32 = 13;
pub const TCP_MD5SIG: i32 = 14;
pub const TCP_THIN_LINEAR_TIMEOUTS: i32 = 16;
pub const TCP_THIN_DUPACK: i32 = 17;
pub const TCP_USER_TIMEOUT: i32 = 18;
pub const TCP_REPAIR: i32 = 19;
pub const TCP_REPAIR_QUEUE: i32 = 20;
pub const TCP_QUEUE_SEQ: i32 = 21;
pub const TCP_REPAIR_OPTIONS: i32 = 22;
pub const TCP_FASTOPEN: i32 = 23;
pub const TCP_TIMESTAMP: i32 = 24;
pub const TCP_NOTSENT_LOWAT: i32 = 25;
pub const TCP_CC_INFO: i32 = 26;
pub const TCP_SAVE_SYN: i32 = 27;
pub const TCP_SAVED_SYN: i32 = 28;
pub const TCP_REPAIR_WINDOW: i32 = 29;
pub const TCP_FASTOPEN_CONNECT: i32 = 30;
pub const TCP_ULP: i32 = 31;
pub const TCP_MD5SIG_EXT: i32 = 32;
pub const TCP_FASTOPEN_KEY: i32 = 33;
pub const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
pub const TCP_ZEROCOPY_RECEIVE: i32 = 35;
pub const TCP_INQ: i32 = 36;
pub const TCP_TX_DELAY: i32 = 37;
pub const TCP_IS_MPTCP: i32 = 43;
pub const TCP_RTO_MAX_MS: i32 = 44;
pub const TCP_RTO_MIN_US: i32 = 45;
pub const TCP_DELACK_MAX_US: i32 = 46;
pub const TCP_CM_INQ: i32 = TCP_INQ;
// `tcpi_state`, as in /proc/net/tcp.
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT1: u8 = 4;
pub const TCP_FIN_WAIT2: u8 = 5;
pub const TCP_TIME_WAIT: u8 = 6;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_CLOSE_WAIT: u8 = 8;
pub const TCP_LAST_ACK: u8 = 9;
pub const TCP_LISTEN: u8 = 10;
pub const TCP_CLOSING: u8 = 11;
pub const TCP_NEW_SYN_RECV: u8 = 12;
// `tcpi_options`
pub const TCPI_OPT_TIMESTAMPS: u8 = 1;
pub const TCPI_OPT_SACK: u8 = 2;
pub const TCPI_OPT_WSCALE: u8 = 4;
pub const TCPI_OPT_ECN: u8 = 8;
pub const TCPI_OPT_ECN_SEEN: u8 = 16;
pub const TCPI_OPT_SYN_DATA: u8 = 32;
// `tcpi_ca_state`
pub const TCP_CA_OPEN: u8 = 0;
pub const TCP_CA_DISORDER: u8 = 1;
pub const TCP_CA_CWR: u8 = 2;
pub const TCP_CA_RECOVERY: u8 = 3;
pub const TCP_CA_LOSS: u8 = 4;
// Limits of the keep-alive options.
pub const MAX_TCP_KEEPIDLE: i32 = 32767;
pub const MAX_TCP_KEEPINTVL: i32 = 32767;
pub const MAX_TCP_KEEPCNT: i32 = 127;
pub const MAX_TCP_SYNCNT: i32 = 127;
pub const TCP_CA_NAME_MAX: usize = 16;

// Options of `SOL_UDP`.
pub const UDP_CORK: i32 = 1;
pub const UDP_ENCAP: i32 = 100;
pub const UDP_NO_CHECK6_TX: i32 = 101;
pub const UDP_NO_CHECK6_RX: i32 = 102;
pub const UDP_SEGMENT: i32 = 103;
pub const UDP_GRO: i32 = 104;

// Options of raw and ICMP sockets, and types of messages.
pub const ICMP_FILTER: i32 = 1;
pub const ICMPV6_FILTER: i32 = 1;
pub const ICMP_ECHOREPLY: u8 = 0;
pub const ICMP_DEST_UNREACH: u8 = 3;
pub const ICMP_ECHO: u8 = 8;
pub const ICMP_TIME_EXCEEDED: u8 = 11;
pub const ICMPV6_DEST_UNREACH: u8 = 1;
pub const ICMPV6_PKT_TOOBIG: u8 = 2;
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
pub const ICMPV6_ECHO_REPLY: u8 = 129;

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn addresses_are_in_network_order() {
        let addr: SocketAddrV4 = "127.0.0.1:8080".parse().unwrap();
        let raw = SockaddrIn::from(addr);
        assert_eq!(raw.as_bytes(), [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(SocketAddrV4::from(raw), addr);

        let addr = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0x12345, 7);
        let raw = SockaddrIn6::from(addr);
        assert_eq!(raw.as_bytes()[..8], [10, 0, 0, 80, 0, 1, 0x23, 0x45]);
        assert_eq!((raw.as_bytes()[23], raw.as_bytes()[24]), (1, 7));
        assert_eq!(SocketAddrV6::from(raw), addr);
    }
}
