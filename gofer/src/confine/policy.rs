//! The system calls of a gofer: an allow-list, as data, with the arguments that matter. Anything else kills the
//! process.
//!
//! Arguments are checked where a call could do more than the server wants of it: channels are the only sockets to send
//! to, no memory is executable, nothing is created through openat(2), no device nodes are made, and calls that take a
//! path start at the working directory (which is /proc/self/fd) only. openat2(2) takes its flags in memory, where a
//! filter cannot look; what it can reach is limited by the empty root and by the isolated mounts.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// What the filter depends on.
pub struct Process<'a> {
    /// The channels served.
    pub channels: &'a [RawFd],
    /// Descriptors that may be written to: a log.
    pub writable_descriptors: &'a [RawFd],
    /// Whether any mount is writable.
    pub writable: bool,
    /// Whether any mount allows connecting to Unix sockets.
    pub host_uds: bool,
    /// Whether openat2(2) is there; openat(2) takes its place otherwise.
    pub openat2: bool,
}

/// When a call is allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Some mount is writable.
    Writable,
    /// Some mount allows connecting to Unix sockets.
    HostUds,
    /// There is more than one channel.
    SeveralChannels,
    /// openat2(2) is there.
    Openat2,
    /// openat2(2) is missing.
    NoOpenat2,
}

/// What an argument, by its position, must be.
#[derive(Clone, Copy)]
enum Check {
    Is(u8, u32),
    /// All bits of the mask are zero.
    Without(u8, u32),
    /// One of the channels.
    Channel(u8),
    /// One of the descriptors that may be written to, or the standard error output.
    Log(u8),
}

use Check::{Channel, Is, Log, Without};
use When::{Always, HostUds, NoOpenat2, Openat2, SeveralChannels, Writable};

const AT_FDCWD: u32 = libc::AT_FDCWD as u32;
/// O_CREAT, and the bit that makes O_TMPFILE more than O_DIRECTORY.
const CREATES: u32 = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const AT_SYMLINK_FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;
const PROT_EXEC: u32 = libc::PROT_EXEC as u32;

#[rustfmt::skip]
const CALLS: &[(libc::c_long, When, &[Check])] = &[
    // The channel.
    (libc::SYS_recvmsg, Always, &[Channel(0), Is(2, libc::MSG_CMSG_CLOEXEC as u32)]),
    (libc::SYS_sendmsg, Always, &[Channel(0), Is(2, libc::MSG_NOSIGNAL as u32)]),
    (libc::SYS_poll, SeveralChannels, &[]),
    // Looking.
    (libc::SYS_openat2, Openat2, &[Is(3, 24)]),
    (libc::SYS_openat, Openat2, &[Is(0, AT_FDCWD), Without(2, CREATES)]),
    (libc::SYS_openat, NoOpenat2, &[]),
    (libc::SYS_close, Always, &[]),
    (libc::SYS_statx, Always, &[]),
    (libc::SYS_fstatfs, Always, &[]),
    (libc::SYS_readlinkat, Always, &[]),
    (libc::SYS_getdents64, Always, &[]),
    (libc::SYS_lseek, Always, &[]),
    (libc::SYS_getxattr, Always, &[]),
    (libc::SYS_listxattr, Always, &[]),
    (libc::SYS_fsync, Always, &[]),
    (libc::SYS_fdatasync, Always, &[]),
    (libc::SYS_syncfs, Always, &[]),
    // Changing.
    (libc::SYS_mkdirat, Writable, &[]),
    (libc::SYS_mknodat, Writable, &[Is(3, 0)]),
    (libc::SYS_symlinkat, Writable, &[]),
    (libc::SYS_linkat, Writable, &[Is(0, AT_FDCWD), Is(4, AT_SYMLINK_FOLLOW)]),
    (libc::SYS_unlinkat, Writable, &[]),
    (libc::SYS_renameat2, Writable, &[]),
    (libc::SYS_fchownat, Writable, &[Is(4, AT_EMPTY_PATH)]),
    (libc::SYS_fchmodat, Writable, &[Is(0, AT_FDCWD)]),
    (libc::SYS_truncate, Writable, &[]),
    (libc::SYS_utimensat, Writable, &[Is(0, AT_FDCWD), Is(3, 0)]),
    (libc::SYS_setxattr, Writable, &[]),
    (libc::SYS_removexattr, Writable, &[]),
    (libc::SYS_setfsuid, Writable, &[]),
    (libc::SYS_setfsgid, Writable, &[]),
    // Connecting.
    (libc::SYS_socket, HostUds, &[Is(0, libc::AF_UNIX as u32)]),
    (libc::SYS_connect, HostUds, &[]),
    // Memory.
    (libc::SYS_brk, Always, &[]),
    (libc::SYS_mmap, Always, &[Without(2, PROT_EXEC), Is(4, u32::MAX)]),
    (libc::SYS_mprotect, Always, &[Without(2, PROT_EXEC)]),
    (libc::SYS_mremap, Always, &[]),
    (libc::SYS_munmap, Always, &[]),
    (libc::SYS_madvise, Always, &[]),
    // The allocator looks at the policy of overcommitment before it gives memory back.
    (libc::SYS_read, Always, &[]),
    // The language's run-time library, logs, panics, the end.
    (libc::SYS_fcntl, Always, &[Is(1, libc::F_GETFD as u32)]),
    (libc::SYS_write, Always, &[Log(0)]),
    (libc::SYS_writev, Always, &[Log(0)]),
    (libc::SYS_futex, Always, &[]),
    (libc::SYS_sched_yield, Always, &[]),
    (libc::SYS_getrandom, Always, &[]),
    (libc::SYS_clock_gettime, Always, &[]),
    (libc::SYS_getcwd, Always, &[]),
    (libc::SYS_getpid, Always, &[]),
    (libc::SYS_gettid, Always, &[]),
    (libc::SYS_tgkill, Always, &[Is(2, libc::SIGABRT as u32)]),
    (libc::SYS_rt_sigaction, Always, &[]),
    (libc::SYS_rt_sigprocmask, Always, &[]),
    (libc::SYS_rt_sigreturn, Always, &[]),
    (libc::SYS_sigaltstack, Always, &[]),
    (libc::SYS_restart_syscall, Always, &[]),
    (libc::SYS_exit, Always, &[]),
    (libc::SYS_exit_group, Always, &[]),
];

/// The filter of a process.
pub fn compile(process: &Process<'_>) -> Result<BpfProgram, seccompiler::BackendError> {
    let standard_error = [libc::STDERR_FILENO];
    let logs: Vec<RawFd> = process.writable_descriptors.iter().chain(&standard_error).copied().collect();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for &(call, when, checks) in CALLS {
        let allowed = match when {
            Always => true,
            Writable => process.writable,
            HostUds => process.host_uds,
            SeveralChannels => process.channels.len() > 1,
            Openat2 => process.openat2,
            NoOpenat2 => !process.openat2,
        };
        if !allowed {
            continue;
        }
        let of_call = rules.entry(call).or_default();
        if checks.is_empty() {
            continue;
        }
        // One rule for each descriptor that the call may be made with.
        let descriptors: &[RawFd] = match checks {
            [Channel(_), ..] => process.channels,
            [Log(_), ..] => &logs,
            _ => &[-1],
        };
        for &descriptor in descriptors {
            let conditions = checks.iter().map(|check| condition(*check, descriptor));
            of_call.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

fn condition(check: Check, descriptor: RawFd) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (argument, operation, value) = match check {
        Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
        Without(argument, mask) => (argument, SeccompCmpOp::MaskedEq(mask.into()), 0),
        Channel(argument) | Log(argument) => (argument, SeccompCmpOp::Eq, descriptor as u32),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_compiles_in_all_shapes() {
        let mut lengths = Vec::new();
        for shape in 0..16 {
            let bit = |n| shape & (1 << n) != 0;
            let channels: &[RawFd] = if bit(0) { &[5, 6, 7] } else { &[5] };
            let (writable, host_uds, openat2) = (bit(1), bit(2), bit(3));
            let process = Process { channels, writable_descriptors: &[2, 9], writable, host_uds, openat2 };
            lengths.push(compile(&process).unwrap().len());
        }
        assert!(lengths.iter().max() < Some(&600), "{lengths:?}");
    }

    #[test]
    fn a_checked_call_is_not_allowed_unchecked_elsewhere() {
        // In seccompiler a call with an empty list of rules is allowed, so one unchecked row would undo the others.
        for (call, when, checks) in CALLS {
            let others = CALLS.iter().filter(|(other, other_when, _)| other == call && other_when == when);
            assert_eq!(others.count(), 1, "{call}");
            assert!(!checks.is_empty() || *when != Openat2 || *call != libc::SYS_openat);
        }
    }
}
