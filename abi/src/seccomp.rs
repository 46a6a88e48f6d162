//! System call filters (`seccomp.h`, `filter.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

// Modes of prctl(PR_SET_SECCOMP).
pub const SECCOMP_MODE_DISABLED: u32 = 0;
pub const SECCOMP_MODE_STRICT: u32 = 1;
pub const SECCOMP_MODE_FILTER: u32 = 2;
// Operations of seccomp(2).
pub const SECCOMP_SET_MODE_STRICT: u32 = 0;
pub const SECCOMP_SET_MODE_FILTER: u32 = 1;
pub const SECCOMP_GET_ACTION_AVAIL: u32 = 2;
pub const SECCOMP_GET_NOTIF_SIZES: u32 = 3;

bitflags! {
    /// Flags of SECCOMP_SET_MODE_FILTER.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SeccompFlags: u32 {
        const SECCOMP_FILTER_FLAG_TSYNC = 1;
        const SECCOMP_FILTER_FLAG_LOG = 2;
        const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
        const SECCOMP_FILTER_FLAG_NEW_LISTENER = 8;
        const SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10;
        const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20;
    }
}

// What a filter returns: an action and 16 bits of data. The action that is least as a signed number wins.
pub const SECCOMP_RET_KILL_PROCESS: u32 = 0x80000000;
pub const SECCOMP_RET_KILL_THREAD: u32 = 0;
pub const SECCOMP_RET_TRAP: u32 = 0x30000;
pub const SECCOMP_RET_ERRNO: u32 = 0x50000;
pub const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc00000;
pub const SECCOMP_RET_TRACE: u32 = 0x7ff00000;
pub const SECCOMP_RET_LOG: u32 = 0x7ffc0000;
pub const SECCOMP_RET_ALLOW: u32 = 0x7fff0000;
pub const SECCOMP_RET_ACTION_FULL: u32 = 0xffff0000;
pub const SECCOMP_RET_DATA: u32 = 0xffff;

layout! {
    /// `struct sock_filter`.
    struct SockFilter[8] { code: u16, jt: u8, jf: u8, k: u32 }

    /// `struct sock_fprog`.
    struct SockFprog[16] { len: u16, _pad: [u16; 3], filter: u64 }

    /// `struct seccomp_data`, what a filter reads.
    struct SeccompData[64] { nr: i32, arch: u32, instruction_pointer: u64, args: [u64; 6] }

    /// `struct seccomp_notif`.
    struct SeccompNotif[80] { id: u64, pid: u32, flags: u32, data: SeccompData }

    /// `struct seccomp_notif_resp`.
    struct SeccompNotifResp[24] { id: u64, val: i64, error: i32, flags: u32 }

    /// `struct seccomp_notif_sizes`.
    struct SeccompNotifSizes[6] { seccomp_notif: u16, seccomp_notif_resp: u16, seccomp_data: u16 }

    /// `struct seccomp_notif_addfd`.
    struct SeccompNotifAddfd[24] { id: u64, flags: u32, srcfd: u32, newfd: u32, newfd_flags: u32 }
}

pub const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
pub const SECCOMP_ADDFD_FLAG_SETFD: u32 = 1;
pub const SECCOMP_ADDFD_FLAG_SEND: u32 = 2;
pub const SECCOMP_IOCTL_NOTIF_RECV: u32 = 0xc0502100;
pub const SECCOMP_IOCTL_NOTIF_SEND: u32 = 0xc0182101;
pub const SECCOMP_IOCTL_NOTIF_ID_VALID: u32 = 0x40082102;
pub const SECCOMP_IOCTL_NOTIF_ADDFD: u32 = 0x40182103;
pub const SECCOMP_IOCTL_NOTIF_SET_FLAGS: u32 = 0x40082104;
pub const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u32 = 1;

// `arch` of [`SeccompData`].
pub const AUDIT_ARCH_X86_64: u32 = 0xc000003e;
pub const AUDIT_ARCH_I386: u32 = 0x40000003;

// Limits of a filter, in instructions.
pub const BPF_MAXINSNS: usize = 4096;
pub const BPF_MEMWORDS: usize = 16;
pub const MAX_INSNS_PER_PATH: usize = 32768;

// Parts of `code` of [`SockFilter`].
pub const BPF_LD: u16 = 0;
pub const BPF_LDX: u16 = 1;
pub const BPF_ST: u16 = 2;
pub const BPF_STX: u16 = 3;
pub const BPF_ALU: u16 = 4;
pub const BPF_JMP: u16 = 5;
pub const BPF_RET: u16 = 6;
pub const BPF_MISC: u16 = 7;
pub const BPF_W: u16 = 0;
pub const BPF_H: u16 = 8;
pub const BPF_B: u16 = 0x10;
pub const BPF_IMM: u16 = 0;
pub const BPF_ABS: u16 = 0x20;
pub const BPF_IND: u16 = 0x40;
pub const BPF_MEM: u16 = 0x60;
pub const BPF_LEN: u16 = 0x80;
pub const BPF_MSH: u16 = 0xa0;
pub const BPF_ADD: u16 = 0;
pub const BPF_SUB: u16 = 0x10;
pub const BPF_MUL: u16 = 0x20;
pub const BPF_DIV: u16 = 0x30;
pub const BPF_OR: u16 = 0x40;
pub const BPF_AND: u16 = 0x50;
pub const BPF_LSH: u16 = 0x60;
pub const BPF_RSH: u16 = 0x70;
pub const BPF_NEG: u16 = 0x80;
pub const BPF_MOD: u16 = 0x90;
pub const BPF_XOR: u16 = 0xa0;
pub const BPF_JA: u16 = 0;
pub const BPF_JEQ: u16 = 0x10;
pub const BPF_JGT: u16 = 0x20;
pub const BPF_JGE: u16 = 0x30;
pub const BPF_JSET: u16 = 0x40;
pub const BPF_K: u16 = 0;
pub const BPF_X: u16 = 8;
pub const BPF_A: u16 = 0x10;
pub const BPF_TAX: u16 = 0;
pub const BPF_TXA: u16 = 0x80;
