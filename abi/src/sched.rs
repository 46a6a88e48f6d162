//! Creating and scheduling threads (`sched.h`, `sched/types.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Flags of clone(2), clone3(2), unshare(2) and setns(2). The low byte of clone(2)'s is the exit signal ([`CSIGNAL`]).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CloneFlags: u64 {
        /// unshare(2) and clone3(2) only: the bit is in the exit signal of clone(2).
        const CLONE_NEWTIME = 0x80;
        const CLONE_VM = 0x100;
        const CLONE_FS = 0x200;
        const CLONE_FILES = 0x400;
        const CLONE_SIGHAND = 0x800;
        const CLONE_PIDFD = 0x1000;
        const CLONE_PTRACE = 0x2000;
        const CLONE_VFORK = 0x4000;
        const CLONE_PARENT = 0x8000;
        const CLONE_THREAD = 0x10000;
        const CLONE_NEWNS = 0x20000;
        const CLONE_SYSVSEM = 0x40000;
        const CLONE_SETTLS = 0x80000;
        const CLONE_PARENT_SETTID = 0x100000;
        const CLONE_CHILD_CLEARTID = 0x200000;
        const CLONE_DETACHED = 0x400000;
        const CLONE_UNTRACED = 0x800000;
        const CLONE_CHILD_SETTID = 0x1000000;
        const CLONE_NEWCGROUP = 0x2000000;
        const CLONE_NEWUTS = 0x4000000;
        const CLONE_NEWIPC = 0x8000000;
        const CLONE_NEWUSER = 0x10000000;
        const CLONE_NEWPID = 0x20000000;
        const CLONE_NEWNET = 0x40000000;
        const CLONE_IO = 0x80000000;
        // clone3(2) only.
        const CLONE_CLEAR_SIGHAND = 0x100000000;
        const CLONE_INTO_CGROUP = 0x200000000;
    }
}

impl CloneFlags {
    /// The flags that make a new namespace.
    pub const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
        .union(CloneFlags::CLONE_NEWCGROUP)
        .union(CloneFlags::CLONE_NEWUTS)
        .union(CloneFlags::CLONE_NEWIPC)
        .union(CloneFlags::CLONE_NEWUSER)
        .union(CloneFlags::CLONE_NEWPID)
        .union(CloneFlags::CLONE_NEWNET)
        .union(CloneFlags::CLONE_NEWTIME);
}

/// The exit signal in the flags of clone(2).
pub const CSIGNAL: u64 = 0xff;

layout! {
    /// `struct clone_args` of clone3(2).
    struct CloneArgs[88] {
        flags: u64, pidfd: u64, child_tid: u64, parent_tid: u64, exit_signal: u64, stack: u64, stack_size: u64,
        tls: u64, set_tid: u64, set_tid_size: u64, cgroup: u64,
    }

    /// `struct sched_param`.
    struct SchedParam[4] { sched_priority: i32 }

    /// `struct sched_attr` of sched_setattr(2).
    struct SchedAttr[56] {
        size: u32, sched_policy: u32, sched_flags: u64, sched_nice: i32, sched_priority: u32, sched_runtime: u64,
        sched_deadline: u64, sched_period: u64, sched_util_min: u32, sched_util_max: u32,
    }
}

pub const CLONE_ARGS_SIZE_VER0: usize = 64;
pub const CLONE_ARGS_SIZE_VER1: usize = 80;
pub const CLONE_ARGS_SIZE_VER2: usize = 88;
pub const SCHED_ATTR_SIZE_VER0: usize = 48;
pub const SCHED_ATTR_SIZE_VER1: usize = 56;
/// The deepest nesting of pid namespaces, hence the most entries of `set_tid`.
pub const MAX_PID_NS_LEVEL: u64 = 32;

pub const SCHED_NORMAL: u32 = 0;
pub const SCHED_FIFO: u32 = 1;
pub const SCHED_RR: u32 = 2;
pub const SCHED_BATCH: u32 = 3;
pub const SCHED_IDLE: u32 = 5;
pub const SCHED_DEADLINE: u32 = 6;
pub const SCHED_EXT: u32 = 7;
/// Or'ed to the policy of sched_setscheduler(2).
pub const SCHED_RESET_ON_FORK: u32 = 0x40000000;
pub const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
pub const SCHED_FLAG_RECLAIM: u64 = 2;
pub const SCHED_FLAG_DL_OVERRUN: u64 = 4;
pub const SCHED_FLAG_KEEP_POLICY: u64 = 8;
pub const SCHED_FLAG_KEEP_PARAMS: u64 = 0x10;
pub const SCHED_FLAG_UTIL_CLAMP_MIN: u64 = 0x20;
pub const SCHED_FLAG_UTIL_CLAMP_MAX: u64 = 0x40;
pub const SCHED_FLAG_ALL: u64 = 0x7f;

// Which of getpriority(2).
pub const PRIO_PROCESS: i32 = 0;
pub const PRIO_PGRP: i32 = 1;
pub const PRIO_USER: i32 = 2;
pub const MIN_NICE: i32 = -20;
pub const MAX_NICE: i32 = 19;
pub const MAX_RT_PRIO: i32 = 100;

// Which of ioprio_get(2), and the parts of its value.
pub const IOPRIO_WHO_PROCESS: i32 = 1;
pub const IOPRIO_WHO_PGRP: i32 = 2;
pub const IOPRIO_WHO_USER: i32 = 3;
pub const IOPRIO_CLASS_SHIFT: u32 = 13;
pub const IOPRIO_CLASS_NONE: u32 = 0;
pub const IOPRIO_CLASS_RT: u32 = 1;
pub const IOPRIO_CLASS_BE: u32 = 2;
pub const IOPRIO_CLASS_IDLE: u32 = 3;
pub const IOPRIO_NR_LEVELS: u32 = 8;
pub const IOPRIO_NORM: u32 = 4;

// Types of kcmp(2).
pub const KCMP_FILE: u32 = 0;
pub const KCMP_VM: u32 = 1;
pub const KCMP_FILES: u32 = 2;
pub const KCMP_FS: u32 = 3;
pub const KCMP_SIGHAND: u32 = 4;
pub const KCMP_IO: u32 = 5;
pub const KCMP_SYSVSEM: u32 = 6;
pub const KCMP_EPOLL_TFD: u32 = 7;
