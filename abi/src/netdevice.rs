//! Network devices and the ioctls of sockets (`if.h`, `if_arp.h`, `if_ether.h`, `if_packet.h`, `sockios.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

pub const IFNAMSIZ: usize = 16;

layout! {
    /// `struct ifreq`: a device's name and what an ioctl gets or sets.
    struct Ifreq[40] { ifr_name: [u8; 16], ifr_ifru: [u8; 24] }

    /// `struct ifconf` of SIOCGIFCONF.
    struct Ifconf[16] { ifc_len: i32, _pad: u32, ifc_buf: u64 }

    /// `struct ifmap` in an [`Ifreq`].
    struct Ifmap[24] { mem_start: u64, mem_end: u64, base_addr: u16, irq: u8, dma: u8, port: u8, _pad: [u8; 3] }
}

bitflags! {
    /// `ifr_flags` (the low half) and `ifi_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IfFlags: u32 {
        const IFF_UP = 1;
        const IFF_BROADCAST = 2;
        const IFF_DEBUG = 4;
        const IFF_LOOPBACK = 8;
        const IFF_POINTOPOINT = 0x10;
        const IFF_NOTRAILERS = 0x20;
        const IFF_RUNNING = 0x40;
        const IFF_NOARP = 0x80;
        const IFF_PROMISC = 0x100;
        const IFF_ALLMULTI = 0x200;
        const IFF_MASTER = 0x400;
        const IFF_SLAVE = 0x800;
        const IFF_MULTICAST = 0x1000;
        const IFF_PORTSEL = 0x2000;
        const IFF_AUTOMEDIA = 0x4000;
        const IFF_DYNAMIC = 0x8000;
        const IFF_LOWER_UP = 0x10000;
        const IFF_DORMANT = 0x20000;
        const IFF_ECHO = 0x40000;
    }
}

// Operational states (`IFLA_OPERSTATE`).
pub const IF_OPER_UNKNOWN: u8 = 0;
pub const IF_OPER_NOTPRESENT: u8 = 1;
pub const IF_OPER_DOWN: u8 = 2;
pub const IF_OPER_LOWERLAYERDOWN: u8 = 3;
pub const IF_OPER_TESTING: u8 = 4;
pub const IF_OPER_DORMANT: u8 = 5;
pub const IF_OPER_UP: u8 = 6;

// Types of hardware.
pub const ARPHRD_ETHER: u16 = 1;
pub const ARPHRD_PPP: u16 = 512;
pub const ARPHRD_TUNNEL: u16 = 768;
pub const ARPHRD_TUNNEL6: u16 = 769;
pub const ARPHRD_LOOPBACK: u16 = 772;
pub const ARPHRD_SIT: u16 = 776;
pub const ARPHRD_IPGRE: u16 = 778;
pub const ARPHRD_NONE: u16 = 65534;
pub const ARPHRD_VOID: u16 = 65535;

pub const ETH_P_ALL: u16 = 3;
pub const ETH_P_IP: u16 = 2048;
pub const ETH_P_ARP: u16 = 2054;
pub const ETH_P_IPV6: u16 = 34525;
pub const ETH_P_LOOP: u16 = 96;
pub const ETH_ALEN: usize = 6;
pub const ETH_HLEN: usize = 14;
pub const ETH_DATA_LEN: usize = 1500;
pub const ETH_FRAME_LEN: usize = 1514;

// `sll_pkttype`, and options of `SOL_PACKET`.
pub const PACKET_HOST: u8 = 0;
pub const PACKET_BROADCAST: u8 = 1;
pub const PACKET_MULTICAST: u8 = 2;
pub const PACKET_OTHERHOST: u8 = 3;
pub const PACKET_OUTGOING: u8 = 4;
pub const PACKET_ADD_MEMBERSHIP: i32 = 1;
pub const PACKET_DROP_MEMBERSHIP: i32 = 2;
pub const PACKET_RX_RING: i32 = 5;
pub const PACKET_STATISTICS: i32 = 6;
pub const PACKET_AUXDATA: i32 = 8;
pub const PACKET_VERSION: i32 = 10;
pub const PACKET_RESERVE: i32 = 12;
pub const PACKET_TX_RING: i32 = 13;

// ioctls of sockets.
pub const FIOSETOWN: u32 = 0x8901;
pub const SIOCSPGRP: u32 = 0x8902;
pub const FIOGETOWN: u32 = 0x8903;
pub const SIOCGPGRP: u32 = 0x8904;
pub const SIOCATMARK: u32 = 0x8905;
pub const SIOCGSTAMP_OLD: u32 = 0x8906;
pub const SIOCGSTAMPNS_OLD: u32 = 0x8907;
pub const SIOCINQ: u32 = 0x541b;
pub const SIOCOUTQ: u32 = 0x5411;
// ioctls of routes and devices.
pub const SIOCADDRT: u32 = 0x890b;
pub const SIOCDELRT: u32 = 0x890c;
pub const SIOCGIFNAME: u32 = 0x8910;
pub const SIOCSIFLINK: u32 = 0x8911;
pub const SIOCGIFCONF: u32 = 0x8912;
pub const SIOCGIFFLAGS: u32 = 0x8913;
pub const SIOCSIFFLAGS: u32 = 0x8914;
pub const SIOCGIFADDR: u32 = 0x8915;
pub const SIOCSIFADDR: u32 = 0x8916;
pub const SIOCGIFDSTADDR: u32 = 0x8917;
pub const SIOCSIFDSTADDR: u32 = 0x8918;
pub const SIOCGIFBRDADDR: u32 = 0x8919;
pub const SIOCSIFBRDADDR: u32 = 0x891a;
pub const SIOCGIFNETMASK: u32 = 0x891b;
pub const SIOCSIFNETMASK: u32 = 0x891c;
pub const SIOCGIFMETRIC: u32 = 0x891d;
pub const SIOCSIFMETRIC: u32 = 0x891e;
pub const SIOCGIFMEM: u32 = 0x891f;
pub const SIOCSIFMEM: u32 = 0x8920;
pub const SIOCGIFMTU: u32 = 0x8921;
pub const SIOCSIFMTU: u32 = 0x8922;
pub const SIOCSIFNAME: u32 = 0x8923;
pub const SIOCSIFHWADDR: u32 = 0x8924;
pub const SIOCGIFHWADDR: u32 = 0x8927;
pub const SIOCGIFENCAP: u32 = 0x8925;
pub const SIOCADDMULTI: u32 = 0x8931;
pub const SIOCDELMULTI: u32 = 0x8932;
pub const SIOCGIFINDEX: u32 = 0x8933;
pub const SIOCGIFPFLAGS: u32 = 0x8935;
pub const SIOCGIFCOUNT: u32 = 0x8938;
pub const SIOCGIFBR: u32 = 0x8940;
pub const SIOCSIFBR: u32 = 0x8941;
pub const SIOCGIFTXQLEN: u32 = 0x8942;
pub const SIOCSIFTXQLEN: u32 = 0x8943;
pub const SIOCETHTOOL: u32 = 0x8946;
pub const SIOCGMIIPHY: u32 = 0x8947;
pub const SIOCGMIIREG: u32 = 0x8948;
pub const SIOCOUTQNSD: u32 = 0x894b;
pub const SIOCGSKNS: u32 = 0x894c;
pub const SIOCDARP: u32 = 0x8953;
pub const SIOCGARP: u32 = 0x8954;
pub const SIOCSARP: u32 = 0x8955;
pub const SIOCGIFMAP: u32 = 0x8970;
pub const SIOCSIFMAP: u32 = 0x8971;
pub const SIOCDEVPRIVATE: u32 = 0x89f0;
pub const SIOCPROTOPRIVATE: u32 = 0x89e0;
// Commands of SIOCETHTOOL.
pub const ETHTOOL_GDRVINFO: u32 = 3;
pub const ETHTOOL_GLINK: u32 = 0xa;
pub const ETHTOOL_GFEATURES: u32 = 0x3a;
