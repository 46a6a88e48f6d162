//! Sockets of every family (`socket.h`, `net.h`, `un.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

pub use crate::inet::{SockaddrIn, SockaddrIn6};
pub use crate::uio::Iovec;

pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_AX25: u16 = 3;
pub const AF_BRIDGE: u16 = 7;
pub const AF_INET6: u16 = 10;
pub const AF_NETLINK: u16 = 16;
pub const AF_PACKET: u16 = 17;
pub const AF_ALG: u16 = 38;
pub const AF_VSOCK: u16 = 40;
pub const AF_XDP: u16 = 44;
pub const AF_MAX: u16 = 46;

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const SOCK_RDM: u32 = 4;
pub const SOCK_SEQPACKET: u32 = 5;
pub const SOCK_DCCP: u32 = 6;
pub const SOCK_PACKET: u32 = 10;
pub const SOCK_MAX: u32 = 11;
pub const SOCK_TYPE_MASK: u32 = 0xf;

bitflags! {
    /// Flags of socket(2), socketpair(2) and accept4(2), or'ed to the type.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SocketFlags: u32 {
        const SOCK_CLOEXEC = 0x80000;
        const SOCK_NONBLOCK = 0x800;
    }

    /// Flags of send(2) and recv(2), and `msg_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MsgFlags: u32 {
        const MSG_OOB = 1;
        const MSG_PEEK = 2;
        const MSG_DONTROUTE = 4;
        const MSG_CTRUNC = 8;
        const MSG_PROBE = 0x10;
        const MSG_TRUNC = 0x20;
        const MSG_DONTWAIT = 0x40;
        const MSG_EOR = 0x80;
        const MSG_WAITALL = 0x100;
        const MSG_FIN = 0x200;
        const MSG_SYN = 0x400;
        const MSG_CONFIRM = 0x800;
        const MSG_RST = 0x1000;
        const MSG_ERRQUEUE = 0x2000;
        const MSG_NOSIGNAL = 0x4000;
        const MSG_MORE = 0x8000;
        const MSG_WAITFORONE = 0x10000;
        const MSG_BATCH = 0x40000;
        const MSG_ZEROCOPY = 0x4000000;
        const MSG_FASTOPEN = 0x20000000;
        const MSG_CMSG_CLOEXEC = 0x40000000;
        const MSG_CMSG_COMPAT = 0x80000000;
    }
}

// How of shutdown(2).
pub const SHUT_RD: u32 = 0;
pub const SHUT_WR: u32 = 1;
pub const SHUT_RDWR: u32 = 2;

// Levels of getsockopt(2).
pub const SOL_IP: i32 = 0;
pub const SOL_SOCKET: i32 = 1;
pub const SOL_TCP: i32 = 6;
pub const SOL_UDP: i32 = 17;
pub const SOL_IPV6: i32 = 41;
pub const SOL_ICMPV6: i32 = 58;
pub const SOL_RAW: i32 = 255;
pub const SOL_PACKET: i32 = 263;
pub const SOL_NETLINK: i32 = 270;
pub const SOL_TLS: i32 = 282;

// Options of `SOL_SOCKET`.
pub const SO_DEBUG: i32 = 1;
pub const SO_REUSEADDR: i32 = 2;
pub const SO_TYPE: i32 = 3;
pub const SO_ERROR: i32 = 4;
pub const SO_DONTROUTE: i32 = 5;
pub const SO_BROADCAST: i32 = 6;
pub const SO_SNDBUF: i32 = 7;
pub const SO_RCVBUF: i32 = 8;
pub const SO_KEEPALIVE: i32 = 9;
pub const SO_OOBINLINE: i32 = 10;
pub const SO_NO_CHECK: i32 = 11;
pub const SO_PRIORITY: i32 = 12;
pub const SO_LINGER: i32 = 13;
pub const SO_BSDCOMPAT: i32 = 14;
pub const SO_REUSEPORT: i32 = 15;
pub const SO_PASSCRED: i32 = 16;
pub const SO_PEERCRED: i32 = 17;
pub const SO_RCVLOWAT: i32 = 18;
pub const SO_SNDLOWAT: i32 = 19;
pub const SO_RCVTIMEO: i32 = 20;
pub const SO_SNDTIMEO: i32 = 21;
pub const SO_BINDTODEVICE: i32 = 25;
pub const SO_ATTACH_FILTER: i32 = 26;
pub const SO_DETACH_FILTER: i32 = 27;
pub const SO_PEERNAME: i32 = 28;
pub const SO_TIMESTAMP: i32 = 29;
pub const SO_ACCEPTCONN: i32 = 30;
pub const SO_PEERSEC: i32 = 31;
pub const SO_SNDBUFFORCE: i32 = 32;
pub const SO_RCVBUFFORCE: i32 = 33;
pub const SO_PASSSEC: i32 = 34;
pub const SO_TIMESTAMPNS: i32 = 35;
pub const SO_MARK: i32 = 36;
pub const SO_TIMESTAMPING: i32 = 37;
pub const SO_PROTOCOL: i32 = 38;
pub const SO_DOMAIN: i32 = 39;
pub const SO_RXQ_OVFL: i32 = 40;
pub const SO_WIFI_STATUS: i32 = 41;
pub const SO_PEEK_OFF: i32 = 42;
pub const SO_NOFCS: i32 = 43;
pub const SO_LOCK_FILTER: i32 = 44;
pub const SO_SELECT_ERR_QUEUE: i32 = 45;
pub const SO_BUSY_POLL: i32 = 46;
pub const SO_MAX_PACING_RATE: i32 = 47;
pub const SO_BPF_EXTENSIONS: i32 = 48;
pub const SO_INCOMING_CPU: i32 = 49;
pub const SO_ATTACH_BPF: i32 = 50;
pub const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
pub const SO_ATTACH_REUSEPORT_EBPF: i32 = 52;
pub const SO_CNX_ADVICE: i32 = 53;
pub const SO_MEMINFO: i32 = 55;
pub const SO_INCOMING_NAPI_ID: i32 = 56;
pub const SO_COOKIE: i32 = 57;
pub const SO_PEERGROUPS: i32 = 59;
pub const SO_ZEROCOPY: i32 = 60;
pub const SO_TXTIME: i32 = 61;
pub const SO_BINDTOIFINDEX: i32 = 62;
pub const SO_TIMESTAMP_NEW: i32 = 63;
pub const SO_TIMESTAMPNS_NEW: i32 = 64;
pub const SO_TIMESTAMPING_NEW: i32 = 65;
pub const SO_RCVTIMEO_NEW: i32 = 66;
pub const SO_SNDTIMEO_NEW: i32 = 67;
pub const SO_DETACH_REUSEPORT_BPF: i32 = 68;
pub const SO_PREFER_BUSY_POLL: i32 = 69;
pub const SO_BUSY_POLL_BUDGET: i32 = 70;
pub const SO_NETNS_COOKIE: i32 = 71;
pub const SO_BUF_LOCK: i32 = 72;
pub const SO_RESERVE_MEM: i32 = 73;
pub const SO_TXREHASH: i32 = 74;
pub const SO_RCVMARK: i32 = 75;
pub const SO_PASSPIDFD: i32 = 76;
pub const SO_PEERPIDFD: i32 = 77;
pub const SO_DEVMEM_LINEAR: i32 = 78;
pub const SO_DEVMEM_DMABUF: i32 = 79;
pub const SO_DEVMEM_DONTNEED: i32 = 80;
pub const SO_RCVPRIORITY: i32 = 82;
pub const SO_PASSRIGHTS: i32 = 83;
pub const SO_INQ: i32 = 84;
// Bits of SO_BUF_LOCK.
pub const SOCK_SNDBUF_LOCK: u32 = 1;
pub const SOCK_RCVBUF_LOCK: u32 = 2;

// Types of control messages of `SOL_SOCKET`.
pub const SCM_RIGHTS: i32 = 1;
pub const SCM_CREDENTIALS: i32 = 2;
pub const SCM_SECURITY: i32 = 3;
pub const SCM_PIDFD: i32 = 4;
/// Types of control messages that are numbered as the option that asks for them.
pub const SCM_TIMESTAMP: i32 = SO_TIMESTAMP;
pub const SCM_TIMESTAMPNS: i32 = SO_TIMESTAMPNS;
pub const SCM_TIMESTAMPING: i32 = SO_TIMESTAMPING;

layout! {
    /// `struct user_msghdr`.
    struct Msghdr[56] {
        msg_name: u64, msg_namelen: i32, _pad0: u32, msg_iov: u64, msg_iovlen: u64, msg_control: u64,
        msg_controllen: u64, msg_flags: u32, _pad1: u32,
    }

    /// `struct mmsghdr`.
    struct Mmsghdr[64] { msg_hdr: Msghdr, msg_len: u32, _pad: u32 }

    /// `struct cmsghdr`. `cmsg_len` counts this header, but not the padding after the data.
    struct Cmsghdr[16] { cmsg_len: u64, cmsg_level: i32, cmsg_type: i32 }

    /// `struct ucred`.
    struct Ucred[12] { pid: i32, uid: u32, gid: u32 }

    /// `struct linger`.
    struct Linger[8] { l_onoff: i32, l_linger: i32 }

    /// `struct __kernel_sockaddr_storage`: the largest address.
    struct SockaddrStorage[128] { ss_family: u16, _data: [u8; 126] }

    /// `struct sockaddr_un`. The path may be shorter, and need not end in NUL.
    struct SockaddrUn[110] { sun_family: u16, sun_path: [u8; 108] }

    /// `struct sockaddr_nl`.
    struct SockaddrNl[12] { nl_family: u16, nl_pad: u16, nl_pid: u32, nl_groups: u32 }

    /// `struct sockaddr_ll`; `sll_protocol` is in network order.
    struct SockaddrLl[20] {
        sll_family: u16, sll_protocol: [u8; 2], sll_ifindex: i32, sll_hatype: u16, sll_pkttype: u8, sll_halen: u8,
        sll_addr: [u8; 8],
    }

    /// `struct sock_extended_err` of `MSG_ERRQUEUE`.
    struct SockExtendedErr[16] {
        ee_errno: u32, ee_origin: u8, ee_type: u8, ee_code: u8, ee_pad: u8, ee_info: u32, ee_data: u32,
    }
}

pub const SO_EE_ORIGIN_NONE: u8 = 0;
pub const SO_EE_ORIGIN_LOCAL: u8 = 1;
pub const SO_EE_ORIGIN_ICMP: u8 = 2;
pub const SO_EE_ORIGIN_ICMP6: u8 = 3;

/// Rounds the length of a control message up to where the next one starts (`CMSG_ALIGN`). Never overflows.
pub const fn cmsg_align(len: usize) -> usize {
    len.saturating_add(7) & !7
}

/// `cmsg_len` of a message with `data` bytes (`CMSG_LEN`).
pub const fn cmsg_len(data: usize) -> usize {
    size_of::<Cmsghdr>().saturating_add(data)
}

/// The room that a message with `data` bytes takes (`CMSG_SPACE`).
pub const fn cmsg_space(data: usize) -> usize {
    size_of::<Cmsghdr>().saturating_add(cmsg_align(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_are_padded_to_words() {
        assert_eq!((cmsg_len(4), cmsg_space(4), cmsg_space(8), cmsg_space(0)), (20, 24, 24, 16));
        assert!(cmsg_align(usize::MAX) > usize::MAX - 8 && cmsg_space(usize::MAX) > usize::MAX - 8);
    }
}
