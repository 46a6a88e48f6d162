//! Netlink: messages and attributes, and the route family (`netlink.h`, `rtnetlink.h`, `if_link.h`, `if_addr.h`,
//! `neighbour.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use zerocopy::{FromBytes, Immutable, IntoBytes};

// Families, the protocol of socket(2).
pub const NETLINK_ROUTE: u32 = 0;
pub const NETLINK_USERSOCK: u32 = 2;
pub const NETLINK_SOCK_DIAG: u32 = 4;
pub const NETLINK_NFLOG: u32 = 5;
pub const NETLINK_XFRM: u32 = 6;
pub const NETLINK_SELINUX: u32 = 7;
pub const NETLINK_AUDIT: u32 = 9;
pub const NETLINK_NETFILTER: u32 = 12;
pub const NETLINK_KOBJECT_UEVENT: u32 = 15;
pub const NETLINK_GENERIC: u32 = 16;
// Options of `SOL_NETLINK`.
pub const NETLINK_ADD_MEMBERSHIP: i32 = 1;
pub const NETLINK_DROP_MEMBERSHIP: i32 = 2;
pub const NETLINK_PKTINFO: i32 = 3;
pub const NETLINK_BROADCAST_ERROR: i32 = 4;
pub const NETLINK_NO_ENOBUFS: i32 = 5;
pub const NETLINK_LISTEN_ALL_NSID: i32 = 8;
pub const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
pub const NETLINK_CAP_ACK: i32 = 10;
pub const NETLINK_EXT_ACK: i32 = 11;
pub const NETLINK_GET_STRICT_CHK: i32 = 12;
// Types of messages of every family.
pub const NLMSG_NOOP: u16 = 1;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const NLMSG_OVERRUN: u16 = 4;
pub const NLMSG_MIN_TYPE: u16 = 16;
// `nlmsg_flags`
pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_MULTI: u16 = 2;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_ECHO: u16 = 8;
pub const NLM_F_DUMP_INTR: u16 = 0x10;
pub const NLM_F_DUMP_FILTERED: u16 = 0x20;
pub const NLM_F_ROOT: u16 = 0x100;
pub const NLM_F_MATCH: u16 = 0x200;
pub const NLM_F_ATOMIC: u16 = 0x400;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;
pub const NLM_F_CAPPED: u16 = 0x100;
pub const NLM_F_ACK_TLVS: u16 = 0x200;
// Bits of `nla_type`.
pub const NLA_F_NESTED: u16 = 0x8000;
pub const NLA_F_NET_BYTEORDER: u16 = 0x4000;
// Attributes of an acknowledgement with NLM_F_ACK_TLVS.
pub const NLMSGERR_ATTR_MSG: u16 = 1;
pub const NLMSGERR_ATTR_OFFS: u16 = 2;
pub const NLMSGERR_ATTR_COOKIE: u16 = 3;

layout! {
    /// `struct nlmsghdr`. `nlmsg_len` counts the header, but not the padding to the next message.
    struct Nlmsghdr[16] { nlmsg_len: u32, nlmsg_type: u16, nlmsg_flags: u16, nlmsg_seq: u32, nlmsg_pid: u32 }

    /// `struct nlmsgerr`, the payload of NLMSG_ERROR; `error` is 0 or a negative errno.
    struct Nlmsgerr[20] { error: i32, msg: Nlmsghdr }

    /// `struct nlattr`. `nla_len` counts the header, but not the padding to the next attribute.
    struct Nlattr[4] { nla_len: u16, nla_type: u16 }

    /// `struct rtgenmsg`, the least that a dump request has.
    struct Rtgenmsg[1] { rtgen_family: u8 }

    /// `struct ifinfomsg` of RTM_GETLINK.
    struct Ifinfomsg[16] {
        ifi_family: u8, _ifi_pad: u8, ifi_type: u16, ifi_index: i32, ifi_flags: u32, ifi_change: u32,
    }

    /// `struct ifaddrmsg` of RTM_GETADDR.
    struct Ifaddrmsg[8] { ifa_family: u8, ifa_prefixlen: u8, ifa_flags: u8, ifa_scope: u8, ifa_index: u32 }

    /// `struct rtmsg` of RTM_GETROUTE.
    struct Rtmsg[12] {
        rtm_family: u8, rtm_dst_len: u8, rtm_src_len: u8, rtm_tos: u8, rtm_table: u8, rtm_protocol: u8, rtm_scope: u8,
        rtm_type: u8, rtm_flags: u32,
    }

    /// `struct ndmsg` of RTM_GETNEIGH.
    struct Ndmsg[12] {
        ndm_family: u8, _ndm_pad1: u8, _ndm_pad2: u16, ndm_ifindex: i32, ndm_state: u16, ndm_flags: u8, ndm_type: u8,
    }

    /// `struct ifa_cacheinfo`, of IFA_CACHEINFO; times are in seconds, and hundredths for the stamps.
    struct IfaCacheinfo[16] { ifa_prefered: u32, ifa_valid: u32, cstamp: u32, tstamp: u32 }

    /// `struct rtnl_link_stats64`, of IFLA_STATS64.
    struct RtnlLinkStats64[200] {
        rx_packets: u64, tx_packets: u64, rx_bytes: u64, tx_bytes: u64, rx_errors: u64, tx_errors: u64,
        rx_dropped: u64, tx_dropped: u64, multicast: u64, collisions: u64, rx_length_errors: u64,
        rx_over_errors: u64, rx_crc_errors: u64, rx_frame_errors: u64, rx_fifo_errors: u64,
        rx_missed_errors: u64, tx_aborted_errors: u64, tx_carrier_errors: u64, tx_fifo_errors: u64,
        tx_heartbeat_errors: u64, tx_window_errors: u64, rx_compressed: u64, tx_compressed: u64,
        rx_nohandler: u64, rx_otherhost_dropped: u64,
    }

    /// `struct rtnl_link_stats`, of IFLA_STATS: the first of [`RtnlLinkStats64`]'s in 32 bits, in the same order.
    struct RtnlLinkStats[96] { counters: [u32; 24] }
}

// Types of messages of `NETLINK_ROUTE`.
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_SETLINK: u16 = 19;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_DELNEIGH: u16 = 29;
pub const RTM_GETNEIGH: u16 = 30;
pub const RTM_NEWRULE: u16 = 32;
pub const RTM_DELRULE: u16 = 33;
pub const RTM_GETRULE: u16 = 34;
pub const RTM_NEWQDISC: u16 = 36;
pub const RTM_DELQDISC: u16 = 37;
pub const RTM_GETQDISC: u16 = 38;
pub const RTM_NEWTCLASS: u16 = 40;
pub const RTM_GETTCLASS: u16 = 42;
pub const RTM_NEWTFILTER: u16 = 44;
pub const RTM_GETTFILTER: u16 = 46;
pub const RTM_GETMULTICAST: u16 = 58;
pub const RTM_GETANYCAST: u16 = 62;
pub const RTM_GETNEIGHTBL: u16 = 66;
pub const RTM_NEWADDRLABEL: u16 = 72;
pub const RTM_GETADDRLABEL: u16 = 74;
pub const RTM_GETDCB: u16 = 78;
pub const RTM_NEWNETCONF: u16 = 80;
pub const RTM_GETNETCONF: u16 = 82;
pub const RTM_NEWNSID: u16 = 88;
pub const RTM_GETNSID: u16 = 90;
pub const RTM_NEWSTATS: u16 = 92;
pub const RTM_GETSTATS: u16 = 94;

// Attributes of a link.
pub const IFLA_UNSPEC: u16 = 0;
pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_BROADCAST: u16 = 2;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_LINK: u16 = 5;
pub const IFLA_QDISC: u16 = 6;
pub const IFLA_STATS: u16 = 7;
pub const IFLA_COST: u16 = 8;
pub const IFLA_PRIORITY: u16 = 9;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_WIRELESS: u16 = 11;
pub const IFLA_PROTINFO: u16 = 12;
pub const IFLA_TXQLEN: u16 = 13;
pub const IFLA_MAP: u16 = 14;
pub const IFLA_WEIGHT: u16 = 15;
pub const IFLA_OPERSTATE: u16 = 16;
pub const IFLA_LINKMODE: u16 = 17;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_NET_NS_PID: u16 = 19;
pub const IFLA_IFALIAS: u16 = 20;
pub const IFLA_NUM_VF: u16 = 21;
pub const IFLA_STATS64: u16 = 23;
pub const IFLA_AF_SPEC: u16 = 26;
pub const IFLA_GROUP: u16 = 27;
pub const IFLA_NET_NS_FD: u16 = 28;
pub const IFLA_EXT_MASK: u16 = 29;
pub const IFLA_PROMISCUITY: u16 = 30;
pub const IFLA_NUM_TX_QUEUES: u16 = 31;
pub const IFLA_NUM_RX_QUEUES: u16 = 32;
pub const IFLA_CARRIER: u16 = 33;
pub const IFLA_CARRIER_CHANGES: u16 = 35;
pub const IFLA_PHYS_SWITCH_ID: u16 = 36;
pub const IFLA_LINK_NETNSID: u16 = 37;
pub const IFLA_GSO_MAX_SEGS: u16 = 40;
pub const IFLA_GSO_MAX_SIZE: u16 = 41;
pub const IFLA_MIN_MTU: u16 = 50;
pub const IFLA_MAX_MTU: u16 = 51;
pub const IFLA_PROP_LIST: u16 = 52;
pub const IFLA_ALT_IFNAME: u16 = 53;
pub const IFLA_PERM_ADDRESS: u16 = 54;
// Attributes in IFLA_LINKINFO.
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const VETH_INFO_PEER: u16 = 1;
// Bits of IFLA_EXT_MASK.
pub const RTEXT_FILTER_VF: u32 = 1;
pub const RTEXT_FILTER_SKIP_STATS: u32 = 8;

// Attributes of an address, and `ifa_flags`.
pub const IFA_UNSPEC: u16 = 0;
pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_LABEL: u16 = 3;
pub const IFA_BROADCAST: u16 = 4;
pub const IFA_ANYCAST: u16 = 5;
pub const IFA_CACHEINFO: u16 = 6;
pub const IFA_MULTICAST: u16 = 7;
pub const IFA_FLAGS: u16 = 8;
pub const IFA_RT_PRIORITY: u16 = 9;
pub const IFA_TARGET_NETNSID: u16 = 10;
pub const IFA_PROTO: u16 = 11;
pub const IFA_F_SECONDARY: u32 = 1;
pub const IFA_F_NODAD: u32 = 2;
pub const IFA_F_OPTIMISTIC: u32 = 4;
pub const IFA_F_DADFAILED: u32 = 8;
pub const IFA_F_HOMEADDRESS: u32 = 0x10;
pub const IFA_F_DEPRECATED: u32 = 0x20;
pub const IFA_F_TENTATIVE: u32 = 0x40;
pub const IFA_F_PERMANENT: u32 = 0x80;
pub const IFA_F_MANAGETEMPADDR: u32 = 0x100;
pub const IFA_F_NOPREFIXROUTE: u32 = 0x200;

// Attributes of a route.
pub const RTA_UNSPEC: u16 = 0;
pub const RTA_DST: u16 = 1;
pub const RTA_SRC: u16 = 2;
pub const RTA_IIF: u16 = 3;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_PRIORITY: u16 = 6;
pub const RTA_PREFSRC: u16 = 7;
pub const RTA_METRICS: u16 = 8;
pub const RTA_MULTIPATH: u16 = 9;
pub const RTA_FLOW: u16 = 11;
pub const RTA_CACHEINFO: u16 = 12;
pub const RTA_TABLE: u16 = 15;
pub const RTA_MARK: u16 = 16;
pub const RTA_VIA: u16 = 18;
pub const RTA_PREF: u16 = 20;
pub const RTA_EXPIRES: u16 = 23;
pub const RTA_UID: u16 = 25;
pub const RTA_IP_PROTO: u16 = 27;
pub const RTA_SPORT: u16 = 28;
pub const RTA_DPORT: u16 = 29;
// `rtm_type`
pub const RTN_UNSPEC: u8 = 0;
pub const RTN_UNICAST: u8 = 1;
pub const RTN_LOCAL: u8 = 2;
pub const RTN_BROADCAST: u8 = 3;
pub const RTN_ANYCAST: u8 = 4;
pub const RTN_MULTICAST: u8 = 5;
pub const RTN_BLACKHOLE: u8 = 6;
pub const RTN_UNREACHABLE: u8 = 7;
pub const RTN_PROHIBIT: u8 = 8;
// `rtm_protocol`
pub const RTPROT_UNSPEC: u8 = 0;
pub const RTPROT_REDIRECT: u8 = 1;
pub const RTPROT_KERNEL: u8 = 2;
pub const RTPROT_BOOT: u8 = 3;
pub const RTPROT_STATIC: u8 = 4;
pub const RTPROT_RA: u8 = 9;
pub const RTPROT_DHCP: u8 = 16;
// `rtm_scope` and `ifa_scope`
pub const RT_SCOPE_UNIVERSE: u8 = 0;
pub const RT_SCOPE_SITE: u8 = 200;
pub const RT_SCOPE_LINK: u8 = 253;
pub const RT_SCOPE_HOST: u8 = 254;
pub const RT_SCOPE_NOWHERE: u8 = 255;
// `rtm_table`
pub const RT_TABLE_UNSPEC: u8 = 0;
pub const RT_TABLE_COMPAT: u8 = 252;
pub const RT_TABLE_DEFAULT: u8 = 253;
pub const RT_TABLE_MAIN: u8 = 254;
pub const RT_TABLE_LOCAL: u8 = 255;
// `rtm_flags`
pub const RTNH_F_DEAD: u32 = 1;
pub const RTNH_F_ONLINK: u32 = 4;
pub const RTNH_F_LINKDOWN: u32 = 0x10;
pub const RTM_F_NOTIFY: u32 = 0x100;
pub const RTM_F_CLONED: u32 = 0x200;
pub const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
pub const RTM_F_FIB_MATCH: u32 = 0x2000;

// Attributes and states of a neighbour.
pub const NDA_DST: u16 = 1;
pub const NDA_LLADDR: u16 = 2;
pub const NDA_CACHEINFO: u16 = 3;
pub const NDA_PROBES: u16 = 4;
pub const NUD_INCOMPLETE: u16 = 1;
pub const NUD_REACHABLE: u16 = 2;
pub const NUD_STALE: u16 = 4;
pub const NUD_DELAY: u16 = 8;
pub const NUD_PROBE: u16 = 0x10;
pub const NUD_FAILED: u16 = 0x20;
pub const NUD_NOARP: u16 = 0x40;
pub const NUD_PERMANENT: u16 = 0x80;
pub const NUD_NONE: u16 = 0;

// Multicast groups of `NETLINK_ROUTE`, by number and as the old bits of `nl_groups`.
pub const RTNLGRP_LINK: u32 = 1;
pub const RTNLGRP_NOTIFY: u32 = 2;
pub const RTNLGRP_NEIGH: u32 = 3;
pub const RTNLGRP_TC: u32 = 4;
pub const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub const RTNLGRP_IPV4_RULE: u32 = 8;
pub const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub const RTNLGRP_IPV6_IFINFO: u32 = 12;
pub const RTNLGRP_IPV6_RULE: u32 = 19;
pub const RTMGRP_LINK: u32 = 1;
pub const RTMGRP_NOTIFY: u32 = 2;
pub const RTMGRP_NEIGH: u32 = 4;
pub const RTMGRP_IPV4_IFADDR: u32 = 0x10;
pub const RTMGRP_IPV4_ROUTE: u32 = 0x40;
pub const RTMGRP_IPV6_IFADDR: u32 = 0x100;
pub const RTMGRP_IPV6_ROUTE: u32 = 0x400;

// Messages and attributes start at multiples of this.
pub const NLMSG_ALIGNTO: usize = 4;
pub const NLA_ALIGNTO: usize = 4;

/// Writes one message to the end of a buffer. Its length is set by [`MessageWriter::finish`], which must be called.
#[derive(Debug)]
#[must_use]
pub struct MessageWriter<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> MessageWriter<'a> {
    /// Begins a message; `nlmsg_len` in `header` is ignored. The buffer may hold other messages.
    pub fn new(buf: &'a mut Vec<u8>, header: Nlmsghdr) -> MessageWriter<'a> {
        buf.resize(buf.len().next_multiple_of(NLMSG_ALIGNTO), 0);
        let start = buf.len();
        buf.extend_from_slice(header.as_bytes());
        MessageWriter { buf, start }
    }

    /// Adds the family's header ([`Ifinfomsg`] …), padded.
    pub fn payload<T: IntoBytes + Immutable>(&mut self, payload: &T) -> &mut Self {
        self.buf.extend_from_slice(payload.as_bytes());
        self.pad()
    }

    /// Adds an attribute. A value too long for the 16-bit length is left out.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        if let Ok(nla_len) = u16::try_from(size_of::<Nlattr>() + value.len()) {
            self.buf.extend_from_slice(Nlattr { nla_len, nla_type: kind }.as_bytes());
            self.buf.extend_from_slice(value);
        }
        self.pad()
    }

    /// Adds an attribute with a value of fixed layout: an integer or a structure.
    pub fn value<T: IntoBytes + Immutable>(&mut self, kind: u16, value: &T) -> &mut Self {
        self.attribute(kind, value.as_bytes())
    }

    /// Adds an attribute that is a string, with its NUL.
    pub fn string(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let mut bytes = value.to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute made of the attributes that `body` adds.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buf.len();
        self.buf.extend_from_slice(Nlattr { nla_len: 0, nla_type: kind }.as_bytes());
        body(self);
        match u16::try_from(self.buf.len() - start) {
            Ok(len) => self.buf[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.buf.truncate(start),
        }
        self
    }

    /// Sets the length of the message, and pads the buffer for the next one.
    pub fn finish(mut self) {
        let len = (self.buf.len() - self.start) as u32;
        self.buf[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) -> &mut Self {
        self.buf.resize(self.buf.len().next_multiple_of(NLA_ALIGNTO), 0);
        self
    }
}

/// Splits the first message off: its header, its payload, and what follows. `None` if the rest is too short for a
/// header or for the length that it says, as in `NLMSG_OK`.
pub fn split_message(bytes: &[u8]) -> Option<(Nlmsghdr, &[u8], &[u8])> {
    let (header, _) = Nlmsghdr::read_from_prefix(bytes).ok()?;
    let len = header.nlmsg_len as usize;
    let payload = bytes.get(size_of::<Nlmsghdr>()..len)?;
    Some((header, payload, bytes.get(len.next_multiple_of(NLMSG_ALIGNTO)..).unwrap_or_default()))
}

/// The attributes in a payload after its family header, as type without the `NLA_F_*` bits, and value. Ends at the
/// first one that is cut short.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, _) = Nlattr::read_from_prefix(rest).ok()?;
        let len = usize::from(header.nla_len);
        let value = rest.get(size_of::<Nlattr>()..len)?;
        rest = rest.get(len.next_multiple_of(NLA_ALIGNTO)..).unwrap_or_default();
        Some((header.nla_type & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_written() {
        let mut buf = vec![];
        for seq in 0..2 {
            let header = Nlmsghdr { nlmsg_type: RTM_NEWLINK, nlmsg_seq: seq, ..Nlmsghdr::default() };
            let mut message = MessageWriter::new(&mut buf, header);
            message.payload(&Ifinfomsg { ifi_index: 1, ..Ifinfomsg::default() });
            message.string(IFLA_IFNAME, b"lo").value(IFLA_MTU, &65536u32);
            message.nested(IFLA_LINKINFO | NLA_F_NESTED, |info| {
                info.string(IFLA_INFO_KIND, b"veth");
            });
            message.finish();
        }
        let (first, payload, rest) = split_message(&buf).unwrap();
        assert_eq!((first.nlmsg_seq, first.nlmsg_len), (0, 16 + 16 + 8 + 8 + 4 + 12));
        let (_, attrs) = Ifinfomsg::read_from_prefix(payload).unwrap();
        let found: Vec<_> = attributes(attrs).collect();
        assert_eq!(found[0], (IFLA_IFNAME, &b"lo\0"[..]));
        assert_eq!(found[1], (IFLA_MTU, &65536u32.to_ne_bytes()[..]));
        assert_eq!(found[2].0, IFLA_LINKINFO);
        assert_eq!(attributes(found[2].1).collect::<Vec<_>>(), [(IFLA_INFO_KIND, &b"veth\0"[..])]);
        let (second, _, rest) = split_message(rest).unwrap();
        assert_eq!(second.nlmsg_seq, 1);
        assert!(rest.is_empty());
    }

    #[test]
    fn lengths_that_lie_end_the_parse() {
        assert!(split_message(&[0; 15]).is_none());
        for len in [0u32, 15, 17, u32::MAX] {
            let header = Nlmsghdr { nlmsg_len: len, ..Nlmsghdr::default() };
            assert!(split_message(header.as_bytes()).is_none(), "length {len}");
        }
        for len in [0u16, 3, 5, u16::MAX] {
            assert_eq!(attributes(Nlattr { nla_len: len, nla_type: 1 }.as_bytes()).count(), 0);
        }
        let mut buf = vec![];
        let mut message = MessageWriter::new(&mut buf, Nlmsghdr::default());
        message.attribute(1, &[0; 65536]).nested(2, |body| {
            body.attribute(1, &[0; 60000]).attribute(1, &[0; 60000]);
        });
        message.finish();
        assert_eq!(buf.len(), 16, "what cannot be said is left out");
    }
}
