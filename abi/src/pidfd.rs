//! File descriptors of processes (`pidfd.h`, `nsfs.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use crate::ioctl::{io, iowr};

// Flags of pidfd_open(2): `O_NONBLOCK` and `O_EXCL`.
pub const PIDFD_NONBLOCK: u32 = 0x800;
pub const PIDFD_THREAD: u32 = 0x80;
// Flags of pidfd_send_signal(2).
pub const PIDFD_SIGNAL_THREAD: u32 = 1;
pub const PIDFD_SIGNAL_THREAD_GROUP: u32 = 2;
pub const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
// Descriptors that stand for the calling thread and its process.
pub const PIDFD_SELF_THREAD: i32 = -10000;
pub const PIDFD_SELF_THREAD_GROUP: i32 = -10001;

layout! {
    /// `struct pidfd_info` of `PIDFD_GET_INFO`.
    struct PidfdInfo[72] {
        mask: u64, cgroupid: u64, pid: u32, tgid: u32, ppid: u32, ruid: u32, rgid: u32, euid: u32, egid: u32,
        suid: u32, sgid: u32, fsuid: u32, fsgid: u32, exit_code: i32, coredump_mask: u32, _spare1: u32,
    }
}

/// The size of the first `struct pidfd_info`.
pub const PIDFD_INFO_SIZE_VER0: usize = 64;
// `mask` of [`PidfdInfo`].
pub const PIDFD_INFO_PID: u64 = 1;
pub const PIDFD_INFO_CREDS: u64 = 2;
pub const PIDFD_INFO_CGROUPID: u64 = 4;
pub const PIDFD_INFO_EXIT: u64 = 8;
pub const PIDFD_INFO_COREDUMP: u64 = 0x10;

/// ioctls of a pidfd. The kernel accepts any size from the first one's up in that of `PIDFD_GET_INFO`.
pub const PIDFD_GET_CGROUP_NAMESPACE: u32 = io(0xff, 1);
pub const PIDFD_GET_IPC_NAMESPACE: u32 = io(0xff, 2);
pub const PIDFD_GET_MNT_NAMESPACE: u32 = io(0xff, 3);
pub const PIDFD_GET_NET_NAMESPACE: u32 = io(0xff, 4);
pub const PIDFD_GET_PID_NAMESPACE: u32 = io(0xff, 5);
pub const PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE: u32 = io(0xff, 6);
pub const PIDFD_GET_TIME_NAMESPACE: u32 = io(0xff, 7);
pub const PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE: u32 = io(0xff, 8);
pub const PIDFD_GET_USER_NAMESPACE: u32 = io(0xff, 9);
pub const PIDFD_GET_UTS_NAMESPACE: u32 = io(0xff, 10);
pub const PIDFD_GET_INFO: u32 = iowr(0xff, 11, size_of::<PidfdInfo>());
