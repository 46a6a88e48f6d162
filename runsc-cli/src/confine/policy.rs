//! The host calls that a sentry may make, by role of the thread, with what its arguments must be.
//!
//! Whatever is not listed ends the sentry. Nothing here names a file of the host, makes a socket other than a connected
//! pair (unless the guest was given the host's network), executes a program or makes memory executable: what a sentry holds was given to it before.

use libc::{c_int, c_long};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs guest tasks: system calls of the guest are handled here.
    Task,
    /// Serves the control API.
    Control,
}

/// A system call that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: c_long,
    /// One of these must hold, each of them a list of tests that must all hold. An empty list allows every call.
    pub when: &'static [&'static [(u8, Test)]],
}

/// A test of one argument.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// The low 32 bits are this.
    Is(u64),
    /// All 64 bits are zero.
    Null,
    /// The low 32 bits, masked.
    Masked {
        /// Bits that count.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

use Test::{Is, Masked, Null};

const fn any(number: c_long) -> Call {
    Call { number, when: &[] }
}

const fn when(number: c_long, when: &'static [&'static [(u8, Test)]]) -> Call {
    Call { number, when }
}

/// None of these flags is set.
const fn without(flags: c_int) -> Test {
    Masked { mask: flags as u32 as u64, value: 0 }
}

/// All of these flags are set.
const fn with(flags: c_int) -> Test {
    Masked { mask: flags as u32 as u64, value: flags as u32 as u64 }
}

/// clone(2) as the C library makes a thread.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;

/// Number of the descriptor of a tmpfs of the sandbox's own. Files that several guests map are made there, because a
/// file can be opened a second time, just for reading, only by a name. An absolute name leads to the empty root.
pub const MEMORY_DIRECTORY: c_int = 255;

/// What any Rust program does: memory that is never executable, threads, locks, time, signals, its own end.
const RUNTIME: &[Call] = &[
    any(libc::SYS_brk),
    any(libc::SYS_clock_getres),
    any(libc::SYS_clock_gettime),
    any(libc::SYS_clock_nanosleep),
    when(libc::SYS_clone, &[&[(0, Is(THREAD))]]),
    any(libc::SYS_clone3),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    any(libc::SYS_futex),
    any(libc::SYS_getcpu),
    any(libc::SYS_getpid),
    any(libc::SYS_getrandom),
    any(libc::SYS_gettid),
    // membarrier(2) of guests.
    any(libc::SYS_membarrier),
    any(libc::SYS_gettimeofday),
    any(libc::SYS_madvise),
    any(libc::SYS_membarrier),
    when(libc::SYS_mmap, &[&[(2, without(libc::PROT_EXEC))]]),
    when(libc::SYS_mprotect, &[&[(2, without(libc::PROT_EXEC))]]),
    any(libc::SYS_mremap),
    any(libc::SYS_munmap),
    any(libc::SYS_nanosleep),
    when(
        libc::SYS_prctl,
        &[&[(0, Is(libc::PR_SET_NAME as u64))], &[(0, Is(libc::PR_SET_NO_NEW_PRIVS as u64))]],
    ),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_rseq),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_sched_yield),
    // More filters only take away.
    when(libc::SYS_seccomp, &[&[(0, Is(libc::SECCOMP_SET_MODE_FILTER as u64)), (1, Null)]]),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_time),
    any(libc::SYS_uname),
];

/// Files that the sentry was given or made in memory: contents and size, nothing that names another file.
const FILES: &[Call] = &[
    any(libc::SYS_close),
    any(libc::SYS_copy_file_range),
    any(libc::SYS_dup),
    any(libc::SYS_dup3),
    any(libc::SYS_fallocate),
    when(
        libc::SYS_fcntl,
        &[
            &[(1, Is(libc::F_DUPFD_CLOEXEC as u64))],
            &[(1, Is(libc::F_GETFD as u64))],
            &[(1, Is(libc::F_SETFD as u64))],
            &[(1, Is(libc::F_GETFL as u64))],
            &[(1, Is(libc::F_SETFL as u64))],
            &[(1, Is(libc::F_ADD_SEALS as u64))],
            &[(1, Is(libc::F_GET_SEALS as u64))],
        ],
    ),
    any(libc::SYS_fdatasync),
    any(libc::SYS_fstat),
    any(libc::SYS_fsync),
    any(libc::SYS_ftruncate),
    any(libc::SYS_lseek),
    any(libc::SYS_memfd_create),
    // fstat of newer C libraries: the flag says that the descriptor itself is meant, and the path is null or empty.
    when(libc::SYS_newfstatat, &[&[(3, with(libc::AT_EMPTY_PATH))]]),
    // Not to keep a path (O_PATH), and nothing but files.
    when(
        libc::SYS_openat,
        &[&[(0, Is(MEMORY_DIRECTORY as u64)), (2, without(libc::O_PATH | libc::O_DIRECTORY))]],
    ),
    any(libc::SYS_pread64),
    any(libc::SYS_preadv),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwrite64),
    any(libc::SYS_pwritev),
    any(libc::SYS_pwritev2),
    any(libc::SYS_read),
    any(libc::SYS_readv),
    any(libc::SYS_sendfile),
    when(libc::SYS_statx, &[&[(2, with(libc::AT_EMPTY_PATH))]]),
    any(libc::SYS_sync_file_range),
    when(libc::SYS_unlinkat, &[&[(0, Is(MEMORY_DIRECTORY as u64)), (2, Is(0))]]),
    any(libc::SYS_write),
    any(libc::SYS_writev),
];

/// Waiting, and talking over sockets and pipes that are there.
const WAITING: &[Call] = &[
    any(libc::SYS_epoll_create1),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_pwait2),
    any(libc::SYS_epoll_wait),
    any(libc::SYS_eventfd2),
    when(
        libc::SYS_ioctl,
        &[
            &[(1, Is(libc::FIONREAD))],
            &[(1, Is(libc::FIONBIO))],
            &[(1, Is(libc::TCGETS))],
            &[(1, Is(libc::TCSETS))],
            &[(1, Is(libc::TCSETSW))],
            &[(1, Is(libc::TCSETSF))],
            &[(1, Is(libc::TCFLSH))],
            &[(1, Is(libc::TIOCGWINSZ))],
            &[(1, Is(libc::TIOCSWINSZ))],
            &[(1, Is(libc::TIOCOUTQ))],
        ],
    ),
    any(libc::SYS_pipe2),
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendmsg),
    // Without an address: on connected sockets only.
    when(libc::SYS_sendto, &[&[(4, Null)]]),
    when(
        libc::SYS_setsockopt,
        &[
            &[(1, Is(libc::SOL_SOCKET as u64)), (2, Is(libc::SO_PASSCRED as u64))],
            &[(1, Is(libc::SOL_SOCKET as u64)), (2, Is(libc::SO_RCVTIMEO as u64))],
            &[(1, Is(libc::SOL_SOCKET as u64)), (2, Is(libc::SO_SNDTIMEO as u64))],
            &[(1, Is(libc::SOL_SOCKET as u64)), (2, Is(libc::SO_SNDBUF as u64))],
        ],
    ),
    any(libc::SYS_shutdown),
    // Of connected sockets: a datagram socket could be connected anew, to a name of the host.
    when(
        libc::SYS_socketpair,
        &[
            &[(0, Is(libc::AF_UNIX as u64)), (1, of_type(libc::SOCK_STREAM))],
            &[(0, Is(libc::AF_UNIX as u64)), (1, of_type(libc::SOCK_SEQPACKET))],
        ],
    ),
    any(libc::SYS_timerfd_create),
    any(libc::SYS_timerfd_gettime),
    any(libc::SYS_timerfd_settime),
];

/// The stub processes: their memory, their end. They are all that the sentry's pid namespace holds.
const STUBS: &[Call] = &[
    any(libc::SYS_getpgrp),
    any(libc::SYS_kill),
    any(libc::SYS_pidfd_getfd),
    any(libc::SYS_pidfd_open),
    any(libc::SYS_pidfd_send_signal),
    any(libc::SYS_process_madvise),
    any(libc::SYS_process_vm_readv),
    any(libc::SYS_process_vm_writev),
    // Service threads run where they are waited for. (And a thread that looks for requests keeps off its guest's processor.)
    any(libc::SYS_sched_setaffinity),
    any(libc::SYS_setpgid),
    any(libc::SYS_tgkill),
    any(libc::SYS_wait4),
    any(libc::SYS_waitid),
];

const PTRACE: &[Call] = &[any(libc::SYS_ptrace)];

const SYSTRAP: &[Call] = &[
    // Requests on a seccomp listener (linux/seccomp.h): receive, send, id valid, add fd, set flags.
    when(
        libc::SYS_ioctl,
        &[
            &[(1, Is(0xc050_2100))],
            &[(1, Is(0xc018_2101))],
            &[(1, Is(0x4008_2102))],
            &[(1, Is(0x4018_2103))],
            &[(1, Is(0x4008_2104))],
        ],
    ),
    // `poke` of a stub's read-only memory, and letting the service thread of a stopped stub answer: no request that touches
    // registers.
    when(
        libc::SYS_ptrace,
        &[
            &[(0, Is(libc::PTRACE_SEIZE as u64)), (3, Null)],
            &[(0, Is(libc::PTRACE_INTERRUPT as u64))],
            &[(0, Is(libc::PTRACE_CONT as u64))],
            &[(0, Is(libc::PTRACE_PEEKDATA as u64))],
            &[(0, Is(libc::PTRACE_POKEDATA as u64))],
            &[(0, Is(libc::PTRACE_DETACH as u64)), (3, Null)],
        ],
    ),
];

const CONTROL: &[Call] = &[
    // On the listening sockets that it was given; a connection must not block.
    when(libc::SYS_accept4, &[&[(3, Is((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64))]]),
];

/// Sockets of the host (`--network=host`): TCP, UDP and ICMP echo, and netlink sockets that ask for interfaces and
/// routes. Without capabilities on the network, the host's kernel lets them change nothing.
const HOST_NETWORK: &[Call] = &[
    when(
        libc::SYS_socket,
        &[
            &internet(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            &internet(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            &internet(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            &internet(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            &internet(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            &internet(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
            &[(0, Is(libc::AF_NETLINK as u64)), (2, Is(libc::NETLINK_ROUTE as u64))],
        ],
    ),
    when(libc::SYS_accept4, &[&[(3, Is((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64))]]),
    any(libc::SYS_bind),
    any(libc::SYS_connect),
    any(libc::SYS_getpeername),
    any(libc::SYS_getsockname),
    any(libc::SYS_getsockopt),
    any(libc::SYS_listen),
    when(
        libc::SYS_ioctl,
        &[
            &[(1, Is(SIOCATMARK as u64))],
            &[(1, Is(SIOCGIFCONF as u64))],
            &[(1, Is(INTERFACE_REQUESTS[0] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[1] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[2] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[3] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[4] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[5] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[6] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[7] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[8] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[9] as u64))],
            &[(1, Is(INTERFACE_REQUESTS[10] as u64))],
        ],
    ),
    when(libc::SYS_setsockopt, SOCKET_OPTIONS),
];

/// The arguments of socket(2) for a protocol of the internet.
const fn internet(family: c_int, kind: c_int, protocol: c_int) -> [(u8, Test); 3] {
    [(0, Is(family as u64)), (1, of_type(kind)), (2, Is(protocol as u64))]
}

/// The type of a socket, without SOCK_NONBLOCK and SOCK_CLOEXEC.
const fn of_type(kind: c_int) -> Test {
    Masked { mask: 0xf, value: kind as u64 }
}

const SIOCATMARK: u32 = 0x8905;
/// Lists the addresses of interfaces.
pub const SIOCGIFCONF: u32 = 0x8912;
/// Questions about an interface with a `struct ifreq`: its name, flags, addresses, metric, MTU, hardware address, index
/// and queue length.
pub const INTERFACE_REQUESTS: [u32; 11] =
    [0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942];

/// A socket option by level and name.
macro_rules! option {
    ($level:ident $name:ident) => {
        &[(1, Is(libc::$level as u64)), (2, Is(libc::$name as u64))]
    };
}

/// Socket options that a guest may set on sockets of the host. None takes a program or a descriptor, or moves the
/// socket to another protocol.
const SOCKET_OPTIONS: &[&[(u8, Test)]] = &[
    option!(SOL_SOCKET SO_REUSEADDR),
    option!(SOL_SOCKET SO_REUSEPORT),
    option!(SOL_SOCKET SO_BROADCAST),
    option!(SOL_SOCKET SO_KEEPALIVE),
    option!(SOL_SOCKET SO_LINGER),
    option!(SOL_SOCKET SO_OOBINLINE),
    option!(SOL_SOCKET SO_DONTROUTE),
    option!(SOL_SOCKET SO_PRIORITY),
    option!(SOL_SOCKET SO_RCVBUF),
    option!(SOL_SOCKET SO_RCVLOWAT),
    option!(SOL_SOCKET SO_TIMESTAMP),
    option!(SOL_SOCKET SO_TIMESTAMPNS),
    option!(IPPROTO_IP IP_TOS),
    option!(IPPROTO_IP IP_TTL),
    option!(IPPROTO_IP IP_RECVTOS),
    option!(IPPROTO_IP IP_RECVTTL),
    option!(IPPROTO_IP IP_RECVERR),
    option!(IPPROTO_IP IP_PKTINFO),
    option!(IPPROTO_IP IP_MTU_DISCOVER),
    option!(IPPROTO_IP IP_BIND_ADDRESS_NO_PORT),
    option!(IPPROTO_IP IP_MULTICAST_IF),
    option!(IPPROTO_IP IP_MULTICAST_TTL),
    option!(IPPROTO_IP IP_MULTICAST_LOOP),
    option!(IPPROTO_IP IP_ADD_MEMBERSHIP),
    option!(IPPROTO_IP IP_DROP_MEMBERSHIP),
    option!(IPPROTO_IPV6 IPV6_V6ONLY),
    option!(IPPROTO_IPV6 IPV6_UNICAST_HOPS),
    option!(IPPROTO_IPV6 IPV6_TCLASS),
    option!(IPPROTO_IPV6 IPV6_RECVTCLASS),
    option!(IPPROTO_IPV6 IPV6_RECVHOPLIMIT),
    option!(IPPROTO_IPV6 IPV6_RECVERR),
    option!(IPPROTO_IPV6 IPV6_RECVPKTINFO),
    option!(IPPROTO_IPV6 IPV6_MTU_DISCOVER),
    option!(IPPROTO_IPV6 IPV6_MULTICAST_IF),
    option!(IPPROTO_IPV6 IPV6_MULTICAST_HOPS),
    option!(IPPROTO_IPV6 IPV6_MULTICAST_LOOP),
    option!(IPPROTO_IPV6 IPV6_ADD_MEMBERSHIP),
    option!(IPPROTO_IPV6 IPV6_DROP_MEMBERSHIP),
    option!(IPPROTO_TCP TCP_NODELAY),
    option!(IPPROTO_TCP TCP_MAXSEG),
    option!(IPPROTO_TCP TCP_CORK),
    option!(IPPROTO_TCP TCP_KEEPIDLE),
    option!(IPPROTO_TCP TCP_KEEPINTVL),
    option!(IPPROTO_TCP TCP_KEEPCNT),
    option!(IPPROTO_TCP TCP_SYNCNT),
    option!(IPPROTO_TCP TCP_LINGER2),
    option!(IPPROTO_TCP TCP_DEFER_ACCEPT),
    option!(IPPROTO_TCP TCP_WINDOW_CLAMP),
    option!(IPPROTO_TCP TCP_QUICKACK),
    option!(IPPROTO_TCP TCP_CONGESTION),
    option!(IPPROTO_TCP TCP_USER_TIMEOUT),
    option!(IPPROTO_TCP TCP_NOTSENT_LOWAT),
    option!(IPPROTO_UDP UDP_SEGMENT),
    option!(IPPROTO_UDP UDP_GRO),
    option!(SOL_NETLINK NETLINK_PKTINFO),
    option!(SOL_NETLINK NETLINK_EXT_ACK),
    option!(SOL_NETLINK NETLINK_GET_STRICT_CHK),
    option!(SOL_NETLINK NETLINK_ADD_MEMBERSHIP),
    option!(SOL_NETLINK NETLINK_DROP_MEMBERSHIP),
];

/// Whether the filter lets a guest's setsockopt(2) on a socket of the host through.
pub fn may_set_option(level: i32, name: i32) -> bool {
    let is = |test: &Test, value: i32| matches!(test, Is(wanted) if *wanted == value as u32 as u64);
    SOCKET_OPTIONS
        .iter()
        .any(|tests| matches!(tests, [(1, wanted), (2, named)] if is(wanted, level) && is(named, name)))
}

/// Everything that a thread of this role may call on this platform. A call may be listed more than once: any of its
/// entries allows it.
pub fn calls(role: Role, platform: &str, host_network: bool) -> Vec<Call> {
    let of_platform = match platform {
        "ptrace" => PTRACE,
        _ => SYSTRAP,
    };
    let of_role = match role {
        Role::Task => &[][..],
        Role::Control => CONTROL,
    };
    let of_network = if host_network { HOST_NETWORK } else { &[][..] };
    // First what is called most: the tests of a call are made in this order.
    [of_platform, RUNTIME, FILES, WAITING, STUBS, of_network, of_role].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_host() {
        for role in [Role::Task, Role::Control] {
            for platform in ["ptrace", "systrap"] {
                let calls = calls(role, platform, false);
                for denied in [
                    libc::SYS_open,
                    libc::SYS_openat2,
                    libc::SYS_open_by_handle_at,
                    libc::SYS_socket,
                    libc::SYS_connect,
                    libc::SYS_bind,
                    libc::SYS_execve,
                    libc::SYS_execveat,
                    libc::SYS_fork,
                    libc::SYS_vfork,
                    libc::SYS_mount,
                    libc::SYS_move_mount,
                    libc::SYS_fsopen,
                    libc::SYS_unshare,
                    libc::SYS_setns,
                    libc::SYS_chroot,
                    libc::SYS_bpf,
                    libc::SYS_io_uring_setup,
                    libc::SYS_perf_event_open,
                    libc::SYS_userfaultfd,
                    libc::SYS_keyctl,
                ] {
                    assert!(
                        calls.iter().all(|call| call.number != denied),
                        "{role:?} on {platform} may call {denied}"
                    );
                }
                // A call that is allowed without conditions in one place must not have conditions in another.
                for call in &calls {
                    let unconditional = |other: &&Call| other.number == call.number && other.when.is_empty();
                    if !call.when.is_empty() {
                        assert!(!calls.iter().any(|other| unconditional(&other)), "{}", call.number);
                    }
                }
            }
        }
    }

    #[test]
    fn the_network_of_the_host_is_for_those_who_ask_for_it() {
        let calls = calls(Role::Task, "systrap", true);
        let socket: Vec<_> = calls.iter().filter(|call| call.number == libc::SYS_socket).collect();
        for tests in socket.iter().flat_map(|call| call.when) {
            assert!(tests.iter().any(|(index, _)| *index == 0), "any family");
            assert!(tests.iter().any(|(index, _)| *index == 2), "any protocol");
        }
        assert!(may_set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY));
        for name in
            [libc::SO_ATTACH_FILTER, libc::SO_ATTACH_BPF, libc::SO_ATTACH_REUSEPORT_EBPF, libc::SO_MARK]
        {
            assert!(!may_set_option(libc::SOL_SOCKET, name));
        }
        assert!(!may_set_option(libc::IPPROTO_TCP, libc::TCP_ULP));
    }

    #[test]
    fn ptrace_is_for_the_ptrace_platform() {
        // Without conditions, that is.
        let may_trace = |platform| {
            calls(Role::Task, platform, false)
                .iter()
                .any(|call| call.number == libc::SYS_ptrace && call.when.is_empty())
        };
        assert!(may_trace("ptrace") && !may_trace("systrap"));
    }
}
