//! The tables of parameters, in the order of their names.

use super::{LastPid, NoHugePages, Restored, Shown, Sysctl, Trigger, UtsName, net, uuid_text};
use crate::fs::proc::arch;
use crate::fs::synthetic::Entry;
use crate::kernel::{RELEASE, VERSION};
use crate::parameters::{self, Parameter, Scope};
use crate::vfs::Io;

const SECCOMP_ACTIONS: &str = "kill_process kill_thread trap errno trace log allow";
const SECCOMP_LOGGED: &str = "kill_process kill_thread trap errno trace log";

/// A parameter that nothing but its file needs to know: name, full name, scope, defaults, least and most.
macro_rules! number {
    ($name:literal, $full:literal, $scope:ident, $default:expr, $min:expr, $max:expr) => {
        number!($name, $full, $scope, $default, $min, $max, 0o644)
    };
    ($name:literal, $full:literal, $scope:ident, $default:expr, $min:expr, $max:expr, $mode:literal) => {
        Entry::file(
            $name,
            $mode,
            &Parameter {
                name: $full,
                scope: Scope::$scope,
                default: &$default,
                min: $min,
                max: $max,
                unsigned: false,
            },
        )
    };
}

/// Open files, free ones, and the most that there may be.
fn file_nr(sysctl: &Sysctl, _io: &Io<'_>) -> abi::Result<String> {
    let tasks = sysctl.kernel().processes();
    let open: usize =
        tasks.iter().filter_map(|p| p.any_task()?.files()).map(|files| files.list().len()).sum();
    Ok(format!("{open}\t0\t{}", i64::MAX))
}

/// `/proc/sys`.
pub(super) static SYS: Entry<Sysctl> = Entry::dir(
    "",
    &[
        Entry::dir("abi", &[]),
        Entry::dir("debug", &[]),
        Entry::dir("dev", &[]),
        Entry::dir("fs", FS),
        Entry::dir("kernel", KERNEL),
        Entry::tree("net", 0o555, net),
        Entry::dir("user", USER),
        Entry::dir("vm", VM),
    ],
);

/// `/proc/sys/net`.
pub(super) static NET: Entry<Sysctl> = Entry::dir(
    "",
    &[
        Entry::dir("core", NET_CORE),
        Entry::dir("ipv4", NET_IPV4),
        Entry::dir("ipv6", NET_IPV6),
        Entry::dir("unix", NET_UNIX),
    ],
);

static MSG_NEXT_ID: Restored = Restored(&parameters::MSG_NEXT_ID);
static SEM_NEXT_ID: Restored = Restored(&parameters::SEM_NEXT_ID);
static SHM_NEXT_ID: Restored = Restored(&parameters::SHM_NEXT_ID);

const KERNEL: &[Entry<Sysctl>] = &[
    Entry::text("arch", &Shown(|_, _| Ok(arch::MACHINE.to_string()))),
    number!("auto_msgmni", "kernel.auto_msgmni", Ipc, [0], 0, 1),
    number!("cap_last_cap", "kernel.cap_last_cap", System, [40], 40, 40, 0o444),
    Entry::text("core_pattern", &Shown(|_, _| Ok("core".to_string()))),
    number!("core_pipe_limit", "kernel.core_pipe_limit", System, [0], 0, 0),
    number!("core_uses_pid", "kernel.core_uses_pid", System, [0], 0, 0),
    number!("ctrl-alt-del", "kernel.ctrl-alt-del", System, [1], 0, 1),
    Entry::file("dmesg_restrict", 0o644, &parameters::DMESG_RESTRICT),
    Entry::file("domainname", 0o644, &UtsName(false)),
    Entry::file("hostname", 0o644, &UtsName(true)),
    number!("hung_task_timeout_secs", "kernel.hung_task_timeout_secs", System, [120], 0, i32::MAX as i64),
    Entry::file("io_uring_disabled", 0o644, &parameters::IO_URING_DISABLED),
    number!("io_uring_group", "kernel.io_uring_group", System, [-1], -1, i32::MAX as i64),
    Entry::dir("keys", KERNEL_KEYS),
    number!("kptr_restrict", "kernel.kptr_restrict", System, [0], 0, 2),
    Entry::file("msg_next_id", 0o644, &MSG_NEXT_ID),
    Entry::file("msgmax", 0o644, &parameters::MSGMAX),
    Entry::file("msgmnb", 0o644, &parameters::MSGMNB),
    Entry::file("msgmni", 0o644, &parameters::MSGMNI),
    number!("ngroups_max", "kernel.ngroups_max", System, [65536], 65536, 65536, 0o444),
    number!("nmi_watchdog", "kernel.nmi_watchdog", System, [0], 0, 0),
    Entry::file("ns_last_pid", 0o666, &LastPid),
    number!("numa_balancing", "kernel.numa_balancing", System, [0], 0, 0),
    Entry::text("osrelease", &Shown(|_, _| Ok(RELEASE.to_string()))),
    Entry::text("ostype", &Shown(|_, _| Ok("Linux".to_string()))),
    number!("overflowgid", "kernel.overflowgid", System, [65534], 65534, 65534),
    number!("overflowuid", "kernel.overflowuid", System, [65534], 65534, 65534),
    number!("panic", "kernel.panic", System, [0], i32::MIN as i64, i32::MAX as i64),
    number!("panic_on_oops", "kernel.panic_on_oops", System, [0], 0, 1),
    number!("perf_cpu_time_max_percent", "kernel.perf_cpu_time_max_percent", System, [25], 0, 100),
    number!(
        "perf_event_max_sample_rate",
        "kernel.perf_event_max_sample_rate",
        System,
        [100000],
        1,
        i32::MAX as i64
    ),
    number!("perf_event_max_stack", "kernel.perf_event_max_stack", System, [127], 0, i32::MAX as i64),
    number!("perf_event_mlock_kb", "kernel.perf_event_mlock_kb", System, [516], 0, i32::MAX as i64),
    number!("perf_event_paranoid", "kernel.perf_event_paranoid", System, [2], -1, i32::MAX as i64),
    number!("pid_max", "kernel.pid_max", System, [4194304], 4194304, 4194304),
    number!("print-fatal-signals", "kernel.print-fatal-signals", System, [0], 0, i32::MAX as i64),
    number!("printk", "kernel.printk", System, [4, 4, 1, 7], 0, i32::MAX as i64),
    number!("printk_delay", "kernel.printk_delay", System, [0], 0, 10000),
    number!("printk_ratelimit", "kernel.printk_ratelimit", System, [5], 0, i32::MAX as i64),
    number!("printk_ratelimit_burst", "kernel.printk_ratelimit_burst", System, [10], 0, i32::MAX as i64),
    Entry::dir("pty", KERNEL_PTY),
    Entry::dir("random", KERNEL_RANDOM),
    Entry::file("randomize_va_space", 0o644, &parameters::RANDOMIZE_VA_SPACE),
    number!("sched_autogroup_enabled", "kernel.sched_autogroup_enabled", System, [1], 0, 1),
    number!(
        "sched_cfs_bandwidth_slice_us",
        "kernel.sched_cfs_bandwidth_slice_us",
        System,
        [5000],
        1,
        i32::MAX as i64
    ),
    number!(
        "sched_deadline_period_max_us",
        "kernel.sched_deadline_period_max_us",
        System,
        [4194304],
        0,
        i32::MAX as i64
    ),
    number!(
        "sched_deadline_period_min_us",
        "kernel.sched_deadline_period_min_us",
        System,
        [100],
        0,
        i32::MAX as i64
    ),
    number!(
        "sched_rr_timeslice_ms",
        "kernel.sched_rr_timeslice_ms",
        System,
        [100],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("sched_rt_period_us", "kernel.sched_rt_period_us", System, [1000000], 1, i32::MAX as i64),
    number!("sched_rt_runtime_us", "kernel.sched_rt_runtime_us", System, [950000], -1, i32::MAX as i64),
    Entry::dir("seccomp", KERNEL_SECCOMP),
    Entry::file("sem", 0o644, &parameters::SEM),
    Entry::file("sem_next_id", 0o644, &SEM_NEXT_ID),
    Entry::file("shm_next_id", 0o644, &SHM_NEXT_ID),
    number!("shm_rmid_forced", "kernel.shm_rmid_forced", Ipc, [0], 0, 0),
    Entry::file("shmall", 0o644, &parameters::SHMALL),
    Entry::file("shmmax", 0o644, &parameters::SHMMAX),
    Entry::file("shmmni", 0o644, &parameters::SHMMNI),
    number!("soft_watchdog", "kernel.soft_watchdog", System, [0], 0, 0),
    number!("sysctl_writes_strict", "kernel.sysctl_writes_strict", System, [1], 1, 1),
    number!("tainted", "kernel.tainted", System, [0], 0, i64::MAX),
    Entry::text("threads-max", &Shown(|sysctl, _| Ok(sysctl.kernel().threads_max.to_string()))),
    number!("timer_migration", "kernel.timer_migration", System, [1], 0, 1),
    number!("unprivileged_bpf_disabled", "kernel.unprivileged_bpf_disabled", System, [2], 0, 2),
    Entry::text("version", &Shown(|_, _| Ok(VERSION.to_string()))),
    number!("watchdog", "kernel.watchdog", System, [0], 0, 0),
    number!("watchdog_thresh", "kernel.watchdog_thresh", System, [10], 0, 60),
    Entry::dir("yama", KERNEL_YAMA),
];

const KERNEL_KEYS: &[Entry<Sysctl>] = &[
    number!("gc_delay", "kernel.keys.gc_delay", System, [300], 0, i32::MAX as i64),
    number!("maxbytes", "kernel.keys.maxbytes", System, [20000], 0, i32::MAX as i64),
    number!("maxkeys", "kernel.keys.maxkeys", System, [200], 0, i32::MAX as i64),
    number!(
        "persistent_keyring_expiry",
        "kernel.keys.persistent_keyring_expiry",
        System,
        [259200],
        0,
        i32::MAX as i64
    ),
    number!("root_maxbytes", "kernel.keys.root_maxbytes", System, [25000000], 0, i32::MAX as i64),
    number!("root_maxkeys", "kernel.keys.root_maxkeys", System, [1000000], 0, i32::MAX as i64),
];

const KERNEL_PTY: &[Entry<Sysctl>] = &[
    number!("max", "kernel.pty.max", System, [4096], 0, i32::MAX as i64),
    number!("nr", "kernel.pty.nr", System, [0], 0, 0, 0o444),
    number!("reserve", "kernel.pty.reserve", System, [1024], 0, i32::MAX as i64),
];

const KERNEL_RANDOM: &[Entry<Sysctl>] = &[
    Entry::text("boot_id", &Shown(|sysctl, _| Ok(uuid_text(sysctl.kernel().boot_id)))),
    number!("entropy_avail", "kernel.random.entropy_avail", System, [256], 256, 256, 0o444),
    number!("poolsize", "kernel.random.poolsize", System, [256], 256, 256, 0o444),
    number!(
        "urandom_min_reseed_secs",
        "kernel.random.urandom_min_reseed_secs",
        System,
        [60],
        0,
        i32::MAX as i64
    ),
    Entry::text("uuid", &Shown(|_, _| Ok(uuid_text(crate::kernel::random_uuid())))),
    number!(
        "write_wakeup_threshold",
        "kernel.random.write_wakeup_threshold",
        System,
        [256],
        0,
        i32::MAX as i64
    ),
];

const KERNEL_SECCOMP: &[Entry<Sysctl>] = &[
    Entry::text("actions_avail", &Shown(|_, _| Ok(SECCOMP_ACTIONS.to_string()))),
    Entry::text("actions_logged", &Shown(|_, _| Ok(SECCOMP_LOGGED.to_string()))),
];

const KERNEL_YAMA: &[Entry<Sysctl>] = &[Entry::file("ptrace_scope", 0o644, &parameters::PTRACE_SCOPE)];

const VM: &[Entry<Sysctl>] = &[
    number!("admin_reserve_kbytes", "vm.admin_reserve_kbytes", System, [8192], 0, i32::MAX as i64),
    Entry::file("compact_memory", 0o200, &Trigger(1)),
    number!("compaction_proactiveness", "vm.compaction_proactiveness", System, [20], 0, 100),
    number!("dirty_background_bytes", "vm.dirty_background_bytes", System, [0], 0, i64::MAX),
    number!("dirty_background_ratio", "vm.dirty_background_ratio", System, [10], 0, 100),
    number!("dirty_bytes", "vm.dirty_bytes", System, [0], 0, i64::MAX),
    number!("dirty_expire_centisecs", "vm.dirty_expire_centisecs", System, [3000], 0, i32::MAX as i64),
    number!("dirty_ratio", "vm.dirty_ratio", System, [20], 0, 100),
    number!("dirty_writeback_centisecs", "vm.dirty_writeback_centisecs", System, [500], 0, i32::MAX as i64),
    number!("dirtytime_expire_seconds", "vm.dirtytime_expire_seconds", System, [43200], 0, i32::MAX as i64),
    Entry::file("drop_caches", 0o200, &Trigger(4)),
    number!("extfrag_threshold", "vm.extfrag_threshold", System, [500], 0, 1000),
    number!("hugetlb_shm_group", "vm.hugetlb_shm_group", System, [0], 0, i32::MAX as i64),
    number!("laptop_mode", "vm.laptop_mode", System, [0], 0, i32::MAX as i64),
    number!("legacy_va_layout", "vm.legacy_va_layout", System, [0], 0, 0),
    number!(
        "lowmem_reserve_ratio",
        "vm.lowmem_reserve_ratio",
        System,
        [256, 256, 32, 0, 0],
        0,
        i32::MAX as i64
    ),
    Entry::file("max_map_count", 0o644, &parameters::MAX_MAP_COUNT),
    number!("memfd_noexec", "vm.memfd_noexec", System, [0], 0, 0),
    number!("min_free_kbytes", "vm.min_free_kbytes", System, [67584], 0, i32::MAX as i64),
    number!("mmap_min_addr", "vm.mmap_min_addr", System, [65536], 65536, 65536),
    Entry::file("nr_hugepages", 0o644, &NoHugePages),
    Entry::file("nr_overcommit_hugepages", 0o644, &NoHugePages),
    number!("oom_dump_tasks", "vm.oom_dump_tasks", System, [1], 0, i32::MAX as i64),
    number!("oom_kill_allocating_task", "vm.oom_kill_allocating_task", System, [0], 0, i32::MAX as i64),
    number!("overcommit_kbytes", "vm.overcommit_kbytes", System, [0], 0, i64::MAX),
    Entry::file("overcommit_memory", 0o644, &parameters::OVERCOMMIT_MEMORY),
    number!("overcommit_ratio", "vm.overcommit_ratio", System, [50], 0, i32::MAX as i64),
    number!("page-cluster", "vm.page-cluster", System, [3], 0, 31),
    number!("panic_on_oom", "vm.panic_on_oom", System, [0], 0, 2),
    number!("stat_interval", "vm.stat_interval", System, [1], 0, i32::MAX as i64),
    number!("swappiness", "vm.swappiness", System, [60], 0, 200),
    number!("unprivileged_userfaultfd", "vm.unprivileged_userfaultfd", System, [0], 0, 0),
    number!("user_reserve_kbytes", "vm.user_reserve_kbytes", System, [131072], 0, i32::MAX as i64),
    number!("vfs_cache_pressure", "vm.vfs_cache_pressure", System, [100], 0, i32::MAX as i64),
    number!("watermark_boost_factor", "vm.watermark_boost_factor", System, [15000], 0, i32::MAX as i64),
    number!("watermark_scale_factor", "vm.watermark_scale_factor", System, [10], 1, 3000),
    number!("zone_reclaim_mode", "vm.zone_reclaim_mode", System, [0], 0, i32::MAX as i64),
];

const FS: &[Entry<Sysctl>] = &[
    Entry::file("aio-max-nr", 0o644, &parameters::AIO_MAX_NR),
    number!("aio-nr", "fs.aio-nr", System, [0], 0, 0, 0o444),
    Entry::dir("binfmt_misc", &[]),
    number!("dentry-state", "fs.dentry-state", System, [0, 0, 0, 0, 0, 0], 0, 0, 0o444),
    number!("dir-notify-enable", "fs.dir-notify-enable", System, [1], 0, 1),
    Entry::dir("epoll", FS_EPOLL),
    number!("file-max", "fs.file-max", System, [i64::MAX], 0, i64::MAX),
    Entry::text("file-nr", &Shown(file_nr)),
    Entry::text("inode-nr", &Shown(|_, _| Ok("0\t0".to_string()))),
    Entry::text("inode-state", &Shown(|_, _| Ok("0\t0\t0\t0\t0\t0\t0".to_string()))),
    Entry::dir("inotify", FS_INOTIFY),
    number!("lease-break-time", "fs.lease-break-time", System, [45], 0, i32::MAX as i64),
    number!("leases-enable", "fs.leases-enable", System, [1], 0, 1),
    number!("mount-max", "fs.mount-max", System, [100000], 100000, 100000),
    Entry::dir("mqueue", FS_MQUEUE),
    number!("nr_open", "fs.nr_open", System, [1048576], 1048576, 1048576),
    number!("overflowgid", "fs.overflowgid", System, [65534], 65534, 65534),
    number!("overflowuid", "fs.overflowuid", System, [65534], 65534, 65534),
    Entry::file("pipe-max-size", 0o644, &parameters::PIPE_MAX_SIZE),
    number!("pipe-user-pages-hard", "fs.pipe-user-pages-hard", System, [0], 0, i64::MAX),
    number!("pipe-user-pages-soft", "fs.pipe-user-pages-soft", System, [16384], 0, i64::MAX),
    number!("protected_fifos", "fs.protected_fifos", System, [1], 1, 1),
    number!("protected_hardlinks", "fs.protected_hardlinks", System, [1], 1, 1),
    number!("protected_regular", "fs.protected_regular", System, [1], 1, 1),
    number!("protected_symlinks", "fs.protected_symlinks", System, [0], 0, 0),
    number!("suid_dumpable", "fs.suid_dumpable", System, [0], 0, 0),
];

const FS_EPOLL: &[Entry<Sysctl>] = &[Entry::file("max_user_watches", 0o644, &parameters::EPOLL_WATCHES)];

const FS_INOTIFY: &[Entry<Sysctl>] = &[
    Entry::file("max_queued_events", 0o644, &parameters::INOTIFY_QUEUED_EVENTS),
    Entry::file("max_user_instances", 0o644, &parameters::INOTIFY_INSTANCES),
    Entry::file("max_user_watches", 0o644, &parameters::INOTIFY_WATCHES),
];

const FS_MQUEUE: &[Entry<Sysctl>] = &[
    Entry::file("msg_default", 0o644, &parameters::MQUEUE_MSG_DEFAULT),
    Entry::file("msg_max", 0o644, &parameters::MQUEUE_MSG_MAX),
    Entry::file("msgsize_default", 0o644, &parameters::MQUEUE_MSGSIZE_DEFAULT),
    Entry::file("msgsize_max", 0o644, &parameters::MQUEUE_MSGSIZE_MAX),
    Entry::file("queues_max", 0o644, &parameters::MQUEUE_QUEUES_MAX),
];

const USER: &[Entry<Sysctl>] = &[
    number!("max_cgroup_namespaces", "user.max_cgroup_namespaces", System, [31000], 31000, 31000),
    number!("max_ipc_namespaces", "user.max_ipc_namespaces", System, [31000], 31000, 31000),
    number!("max_mnt_namespaces", "user.max_mnt_namespaces", System, [31000], 31000, 31000),
    number!("max_net_namespaces", "user.max_net_namespaces", System, [31000], 31000, 31000),
    number!("max_pid_namespaces", "user.max_pid_namespaces", System, [31000], 31000, 31000),
    number!("max_time_namespaces", "user.max_time_namespaces", System, [31000], 31000, 31000),
    number!("max_user_namespaces", "user.max_user_namespaces", System, [31000], 31000, 31000),
    number!("max_uts_namespaces", "user.max_uts_namespaces", System, [31000], 31000, 31000),
    number!("max_inotify_instances", "user.max_inotify_instances", System, [128], 128, 128),
    number!("max_inotify_watches", "user.max_inotify_watches", System, [65536], 65536, 65536),
];

const NET_CORE: &[Entry<Sysctl>] = &[
    number!("bpf_jit_enable", "net.core.bpf_jit_enable", System, [1], 0, 2),
    number!("busy_poll", "net.core.busy_poll", System, [0], 0, i32::MAX as i64),
    number!("busy_read", "net.core.busy_read", System, [0], 0, i32::MAX as i64),
    Entry::text("default_qdisc", &Shown(|_, _| Ok("pfifo_fast".to_string()))),
    number!("dev_weight", "net.core.dev_weight", System, [64], 1, i32::MAX as i64),
    number!("message_burst", "net.core.message_burst", System, [10], 0, i32::MAX as i64),
    number!("message_cost", "net.core.message_cost", System, [5], 0, i32::MAX as i64),
    number!("netdev_budget", "net.core.netdev_budget", System, [300], 0, i32::MAX as i64),
    number!("netdev_budget_usecs", "net.core.netdev_budget_usecs", System, [8000], 0, i32::MAX as i64),
    number!("netdev_max_backlog", "net.core.netdev_max_backlog", System, [1000], 0, i32::MAX as i64),
    Entry::file("optmem_max", 0o644, &parameters::OPTMEM_MAX),
    Entry::file("rmem_default", 0o644, &parameters::RMEM_DEFAULT),
    Entry::file("rmem_max", 0o644, &parameters::RMEM_MAX),
    Entry::file("somaxconn", 0o644, &parameters::SOMAXCONN),
    Entry::file("wmem_default", 0o644, &parameters::WMEM_DEFAULT),
    Entry::file("wmem_max", 0o644, &parameters::WMEM_MAX),
];

const NET_IPV4: &[Entry<Sysctl>] = &[
    Entry::dir("conf", NET_IPV4_CONF),
    number!("fib_multipath_hash_policy", "net.ipv4.fib_multipath_hash_policy", Net, [0], 0, 3),
    number!("icmp_echo_ignore_all", "net.ipv4.icmp_echo_ignore_all", Net, [0], 0, 1),
    number!("icmp_echo_ignore_broadcasts", "net.ipv4.icmp_echo_ignore_broadcasts", Net, [1], 0, 1),
    number!(
        "icmp_ignore_bogus_error_responses",
        "net.ipv4.icmp_ignore_bogus_error_responses",
        Net,
        [1],
        0,
        1
    ),
    number!("icmp_msgs_burst", "net.ipv4.icmp_msgs_burst", Net, [50], 0, i32::MAX as i64),
    number!("icmp_msgs_per_sec", "net.ipv4.icmp_msgs_per_sec", Net, [1000], 0, i32::MAX as i64),
    number!("icmp_ratelimit", "net.ipv4.icmp_ratelimit", Net, [1000], 0, i32::MAX as i64),
    number!("icmp_ratemask", "net.ipv4.icmp_ratemask", Net, [6168], 0, i32::MAX as i64),
    number!("igmp_max_memberships", "net.ipv4.igmp_max_memberships", Net, [20], 0, i32::MAX as i64),
    number!("inet_peer_maxttl", "net.ipv4.inet_peer_maxttl", Net, [600], 0, i32::MAX as i64),
    Entry::file("ip_default_ttl", 0o644, &parameters::IP_DEFAULT_TTL),
    number!("ip_dynaddr", "net.ipv4.ip_dynaddr", Net, [0], 0, 7),
    number!("ip_early_demux", "net.ipv4.ip_early_demux", Net, [1], 0, 1),
    number!("ip_forward", "net.ipv4.ip_forward", Net, [0], 0, 1),
    Entry::file("ip_local_port_range", 0o644, &parameters::IP_LOCAL_PORT_RANGE),
    Entry::text("ip_local_reserved_ports", &Shown(|_, _| Ok(String::new()))),
    number!("ip_no_pmtu_disc", "net.ipv4.ip_no_pmtu_disc", Net, [0], 0, 3),
    Entry::file("ip_nonlocal_bind", 0o644, &parameters::IP_NONLOCAL_BIND),
    Entry::file("ip_unprivileged_port_start", 0o644, &parameters::IP_UNPRIVILEGED_PORT_START),
    number!("ipfrag_high_thresh", "net.ipv4.ipfrag_high_thresh", Net, [4194304], 0, i64::MAX),
    number!("ipfrag_low_thresh", "net.ipv4.ipfrag_low_thresh", Net, [3145728], 0, i64::MAX),
    number!("ipfrag_time", "net.ipv4.ipfrag_time", Net, [30], 0, i32::MAX as i64),
    Entry::file("ping_group_range", 0o644, &parameters::PING_GROUP_RANGE),
    number!("tcp_abort_on_overflow", "net.ipv4.tcp_abort_on_overflow", Net, [0], 0, 1),
    number!("tcp_adv_win_scale", "net.ipv4.tcp_adv_win_scale", Net, [1], 0, 31),
    number!("tcp_app_win", "net.ipv4.tcp_app_win", Net, [31], 0, 31),
    number!("tcp_autocorking", "net.ipv4.tcp_autocorking", Net, [1], 0, 1),
    number!("tcp_base_mss", "net.ipv4.tcp_base_mss", Net, [1024], 0, i32::MAX as i64),
    number!(
        "tcp_challenge_ack_limit",
        "net.ipv4.tcp_challenge_ack_limit",
        Net,
        [2147483647],
        0,
        i32::MAX as i64
    ),
    number!("tcp_dsack", "net.ipv4.tcp_dsack", Net, [1], 0, 1),
    number!("tcp_early_retrans", "net.ipv4.tcp_early_retrans", Net, [3], 0, 4),
    number!("tcp_ecn", "net.ipv4.tcp_ecn", Net, [2], 0, 5),
    number!("tcp_fack", "net.ipv4.tcp_fack", Net, [0], 0, i32::MAX as i64),
    number!("tcp_fastopen", "net.ipv4.tcp_fastopen", Net, [1], 0, i32::MAX as i64),
    Entry::text("tcp_allowed_congestion_control", &Shown(|_, _| Ok("reno cubic".to_string()))),
    Entry::text("tcp_available_congestion_control", &Shown(|_, _| Ok("reno cubic".to_string()))),
    Entry::text("tcp_congestion_control", &Shown(|_, _| Ok("cubic".to_string()))),
    Entry::file("tcp_fin_timeout", 0o644, &parameters::TCP_FIN_TIMEOUT),
    Entry::file("tcp_keepalive_intvl", 0o644, &parameters::TCP_KEEPALIVE_INTVL),
    Entry::file("tcp_keepalive_probes", 0o644, &parameters::TCP_KEEPALIVE_PROBES),
    Entry::file("tcp_keepalive_time", 0o644, &parameters::TCP_KEEPALIVE_TIME),
    Entry::file("tcp_rmem", 0o644, &parameters::TCP_RMEM),
    Entry::file("tcp_wmem", 0o644, &parameters::TCP_WMEM),
    Entry::file("tcp_syn_retries", 0o644, &parameters::TCP_SYN_RETRIES),
    Entry::file("tcp_max_syn_backlog", 0o644, &parameters::TCP_MAX_SYN_BACKLOG),
    number!("tcp_frto", "net.ipv4.tcp_frto", Net, [2], 0, 2),
    number!("tcp_invalid_ratelimit", "net.ipv4.tcp_invalid_ratelimit", Net, [500], 0, i32::MAX as i64),
    number!("tcp_limit_output_bytes", "net.ipv4.tcp_limit_output_bytes", Net, [4194304], 0, i32::MAX as i64),
    number!("tcp_low_latency", "net.ipv4.tcp_low_latency", Net, [0], 0, i32::MAX as i64),
    number!("tcp_max_orphans", "net.ipv4.tcp_max_orphans", Net, [65536], 0, i32::MAX as i64),
    number!("tcp_max_reordering", "net.ipv4.tcp_max_reordering", Net, [300], 0, i32::MAX as i64),
    number!("tcp_max_tw_buckets", "net.ipv4.tcp_max_tw_buckets", Net, [65536], 0, i32::MAX as i64),
    number!("tcp_min_rtt_wlen", "net.ipv4.tcp_min_rtt_wlen", Net, [300], 0, 86400),
    number!("tcp_min_snd_mss", "net.ipv4.tcp_min_snd_mss", Net, [48], 0, 65535),
    number!("tcp_min_tso_segs", "net.ipv4.tcp_min_tso_segs", Net, [2], 0, 65535),
    number!("tcp_moderate_rcvbuf", "net.ipv4.tcp_moderate_rcvbuf", Net, [1], 0, 1),
    number!("tcp_mtu_probe_floor", "net.ipv4.tcp_mtu_probe_floor", Net, [48], 0, 65535),
    number!("tcp_mtu_probing", "net.ipv4.tcp_mtu_probing", Net, [0], 0, 2),
    number!("tcp_no_metrics_save", "net.ipv4.tcp_no_metrics_save", Net, [0], 0, 1),
    number!("tcp_notsent_lowat", "net.ipv4.tcp_notsent_lowat", Net, [4294967295], 0, u32::MAX as i64),
    number!("tcp_orphan_retries", "net.ipv4.tcp_orphan_retries", Net, [0], 0, 255),
    number!("tcp_pacing_ca_ratio", "net.ipv4.tcp_pacing_ca_ratio", Net, [120], 0, 1000),
    number!("tcp_pacing_ss_ratio", "net.ipv4.tcp_pacing_ss_ratio", Net, [200], 0, 1000),
    number!("tcp_probe_interval", "net.ipv4.tcp_probe_interval", Net, [600], 0, i32::MAX as i64),
    number!("tcp_probe_threshold", "net.ipv4.tcp_probe_threshold", Net, [8], 0, i32::MAX as i64),
    number!("tcp_recovery", "net.ipv4.tcp_recovery", Net, [1], 0, 255),
    number!("tcp_reordering", "net.ipv4.tcp_reordering", Net, [3], 0, i32::MAX as i64),
    number!("tcp_retrans_collapse", "net.ipv4.tcp_retrans_collapse", Net, [1], 0, 1),
    number!("tcp_retries1", "net.ipv4.tcp_retries1", Net, [3], 0, 255),
    number!("tcp_retries2", "net.ipv4.tcp_retries2", Net, [15], 0, 255),
    number!("tcp_rfc1337", "net.ipv4.tcp_rfc1337", Net, [0], 0, 1),
    number!("tcp_sack", "net.ipv4.tcp_sack", Net, [1], 0, 1),
    number!("tcp_slow_start_after_idle", "net.ipv4.tcp_slow_start_after_idle", Net, [1], 0, 1),
    number!("tcp_stdurg", "net.ipv4.tcp_stdurg", Net, [0], 0, 1),
    number!("tcp_synack_retries", "net.ipv4.tcp_synack_retries", Net, [5], 0, 255),
    number!("tcp_syncookies", "net.ipv4.tcp_syncookies", Net, [1], 0, 2),
    number!("tcp_thin_linear_timeouts", "net.ipv4.tcp_thin_linear_timeouts", Net, [0], 0, 1),
    number!("tcp_timestamps", "net.ipv4.tcp_timestamps", Net, [1], 0, 2),
    number!("tcp_tso_win_divisor", "net.ipv4.tcp_tso_win_divisor", Net, [3], 0, 255),
    number!("tcp_tw_reuse", "net.ipv4.tcp_tw_reuse", Net, [2], 0, 2),
    number!("tcp_window_scaling", "net.ipv4.tcp_window_scaling", Net, [1], 0, 1),
    number!("udp_early_demux", "net.ipv4.udp_early_demux", Net, [1], 0, 1),
    number!("udp_rmem_min", "net.ipv4.udp_rmem_min", Net, [4096], 0, i32::MAX as i64),
    number!("udp_wmem_min", "net.ipv4.udp_wmem_min", Net, [4096], 0, i32::MAX as i64),
    number!("tcp_mem", "net.ipv4.tcp_mem", System, [287901, 383869, 575802], 0, i64::MAX),
    number!("udp_mem", "net.ipv4.udp_mem", System, [575802, 767738, 1151604], 0, i64::MAX),
];

const NET_IPV4_CONF: &[Entry<Sysctl>] = &[
    Entry::dir("all", NET_IPV4_CONF_ALL),
    Entry::dir("default", NET_IPV4_CONF_DEFAULT),
    Entry::dir("lo", NET_IPV4_CONF_LO),
];

const NET_IPV4_CONF_ALL: &[Entry<Sysctl>] = &[
    number!("accept_local", "net.ipv4.conf.all.accept_local", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_redirects",
        "net.ipv4.conf.all.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv4.conf.all.accept_source_route",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("arp_accept", "net.ipv4.conf.all.arp_accept", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_announce", "net.ipv4.conf.all.arp_announce", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_filter", "net.ipv4.conf.all.arp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_ignore", "net.ipv4.conf.all.arp_ignore", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_notify", "net.ipv4.conf.all.arp_notify", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("bootp_relay", "net.ipv4.conf.all.bootp_relay", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("disable_policy", "net.ipv4.conf.all.disable_policy", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("disable_xfrm", "net.ipv4.conf.all.disable_xfrm", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "force_igmp_version",
        "net.ipv4.conf.all.force_igmp_version",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("forwarding", "net.ipv4.conf.all.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("log_martians", "net.ipv4.conf.all.log_martians", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("mc_forwarding", "net.ipv4.conf.all.mc_forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("proxy_arp", "net.ipv4.conf.all.proxy_arp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("route_localnet", "net.ipv4.conf.all.route_localnet", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("rp_filter", "net.ipv4.conf.all.rp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "secure_redirects",
        "net.ipv4.conf.all.secure_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("send_redirects", "net.ipv4.conf.all.send_redirects", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("shared_media", "net.ipv4.conf.all.shared_media", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("src_valid_mark", "net.ipv4.conf.all.src_valid_mark", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("tag", "net.ipv4.conf.all.tag", Net, [0], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV4_CONF_DEFAULT: &[Entry<Sysctl>] = &[
    number!("accept_local", "net.ipv4.conf.default.accept_local", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_redirects",
        "net.ipv4.conf.default.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv4.conf.default.accept_source_route",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("arp_accept", "net.ipv4.conf.default.arp_accept", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_announce", "net.ipv4.conf.default.arp_announce", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_filter", "net.ipv4.conf.default.arp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_ignore", "net.ipv4.conf.default.arp_ignore", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_notify", "net.ipv4.conf.default.arp_notify", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("bootp_relay", "net.ipv4.conf.default.bootp_relay", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "disable_policy",
        "net.ipv4.conf.default.disable_policy",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("disable_xfrm", "net.ipv4.conf.default.disable_xfrm", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "force_igmp_version",
        "net.ipv4.conf.default.force_igmp_version",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("forwarding", "net.ipv4.conf.default.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("log_martians", "net.ipv4.conf.default.log_martians", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "mc_forwarding",
        "net.ipv4.conf.default.mc_forwarding",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("proxy_arp", "net.ipv4.conf.default.proxy_arp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "route_localnet",
        "net.ipv4.conf.default.route_localnet",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("rp_filter", "net.ipv4.conf.default.rp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "secure_redirects",
        "net.ipv4.conf.default.secure_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "send_redirects",
        "net.ipv4.conf.default.send_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("shared_media", "net.ipv4.conf.default.shared_media", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "src_valid_mark",
        "net.ipv4.conf.default.src_valid_mark",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("tag", "net.ipv4.conf.default.tag", Net, [0], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV4_CONF_LO: &[Entry<Sysctl>] = &[
    number!("accept_local", "net.ipv4.conf.lo.accept_local", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_redirects",
        "net.ipv4.conf.lo.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv4.conf.lo.accept_source_route",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("arp_accept", "net.ipv4.conf.lo.arp_accept", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_announce", "net.ipv4.conf.lo.arp_announce", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_filter", "net.ipv4.conf.lo.arp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_ignore", "net.ipv4.conf.lo.arp_ignore", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("arp_notify", "net.ipv4.conf.lo.arp_notify", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("bootp_relay", "net.ipv4.conf.lo.bootp_relay", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("disable_policy", "net.ipv4.conf.lo.disable_policy", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("disable_xfrm", "net.ipv4.conf.lo.disable_xfrm", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "force_igmp_version",
        "net.ipv4.conf.lo.force_igmp_version",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("forwarding", "net.ipv4.conf.lo.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("log_martians", "net.ipv4.conf.lo.log_martians", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("mc_forwarding", "net.ipv4.conf.lo.mc_forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("proxy_arp", "net.ipv4.conf.lo.proxy_arp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("route_localnet", "net.ipv4.conf.lo.route_localnet", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("rp_filter", "net.ipv4.conf.lo.rp_filter", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "secure_redirects",
        "net.ipv4.conf.lo.secure_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("send_redirects", "net.ipv4.conf.lo.send_redirects", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("shared_media", "net.ipv4.conf.lo.shared_media", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("src_valid_mark", "net.ipv4.conf.lo.src_valid_mark", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("tag", "net.ipv4.conf.lo.tag", Net, [0], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV6_CONF: &[Entry<Sysctl>] = &[
    Entry::dir("all", NET_IPV6_CONF_ALL),
    Entry::dir("default", NET_IPV6_CONF_DEFAULT),
    Entry::dir("lo", NET_IPV6_CONF_LO),
];

const NET_IPV6_CONF_ALL: &[Entry<Sysctl>] = &[
    number!("accept_dad", "net.ipv6.conf.all.accept_dad", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("accept_ra", "net.ipv6.conf.all.accept_ra", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_ra_defrtr",
        "net.ipv6.conf.all.accept_ra_defrtr",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_ra_pinfo",
        "net.ipv6.conf.all.accept_ra_pinfo",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_redirects",
        "net.ipv6.conf.all.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv6.conf.all.accept_source_route",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("addr_gen_mode", "net.ipv6.conf.all.addr_gen_mode", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("autoconf", "net.ipv6.conf.all.autoconf", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("dad_transmits", "net.ipv6.conf.all.dad_transmits", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("disable_ipv6", "net.ipv6.conf.all.disable_ipv6", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("forwarding", "net.ipv6.conf.all.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("hop_limit", "net.ipv6.conf.all.hop_limit", Net, [64], i32::MIN as i64, i32::MAX as i64),
    number!(
        "keep_addr_on_down",
        "net.ipv6.conf.all.keep_addr_on_down",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("max_addresses", "net.ipv6.conf.all.max_addresses", Net, [16], i32::MIN as i64, i32::MAX as i64),
    number!("mtu", "net.ipv6.conf.all.mtu", Net, [1280], i32::MIN as i64, i32::MAX as i64),
    number!("proxy_ndp", "net.ipv6.conf.all.proxy_ndp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "router_solicitations",
        "net.ipv6.conf.all.router_solicitations",
        Net,
        [-1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_prefered_lft",
        "net.ipv6.conf.all.temp_prefered_lft",
        Net,
        [86400],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_valid_lft",
        "net.ipv6.conf.all.temp_valid_lft",
        Net,
        [604800],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("use_tempaddr", "net.ipv6.conf.all.use_tempaddr", Net, [0], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV6_CONF_DEFAULT: &[Entry<Sysctl>] = &[
    number!("accept_dad", "net.ipv6.conf.default.accept_dad", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("accept_ra", "net.ipv6.conf.default.accept_ra", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_ra_defrtr",
        "net.ipv6.conf.default.accept_ra_defrtr",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_ra_pinfo",
        "net.ipv6.conf.default.accept_ra_pinfo",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_redirects",
        "net.ipv6.conf.default.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv6.conf.default.accept_source_route",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "addr_gen_mode",
        "net.ipv6.conf.default.addr_gen_mode",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("autoconf", "net.ipv6.conf.default.autoconf", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "dad_transmits",
        "net.ipv6.conf.default.dad_transmits",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("disable_ipv6", "net.ipv6.conf.default.disable_ipv6", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("forwarding", "net.ipv6.conf.default.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("hop_limit", "net.ipv6.conf.default.hop_limit", Net, [64], i32::MIN as i64, i32::MAX as i64),
    number!(
        "keep_addr_on_down",
        "net.ipv6.conf.default.keep_addr_on_down",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "max_addresses",
        "net.ipv6.conf.default.max_addresses",
        Net,
        [16],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("mtu", "net.ipv6.conf.default.mtu", Net, [1280], i32::MIN as i64, i32::MAX as i64),
    number!("proxy_ndp", "net.ipv6.conf.default.proxy_ndp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "router_solicitations",
        "net.ipv6.conf.default.router_solicitations",
        Net,
        [-1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_prefered_lft",
        "net.ipv6.conf.default.temp_prefered_lft",
        Net,
        [86400],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_valid_lft",
        "net.ipv6.conf.default.temp_valid_lft",
        Net,
        [604800],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("use_tempaddr", "net.ipv6.conf.default.use_tempaddr", Net, [0], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV6_CONF_LO: &[Entry<Sysctl>] = &[
    number!("accept_dad", "net.ipv6.conf.lo.accept_dad", Net, [-1], i32::MIN as i64, i32::MAX as i64),
    number!("accept_ra", "net.ipv6.conf.lo.accept_ra", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!(
        "accept_ra_defrtr",
        "net.ipv6.conf.lo.accept_ra_defrtr",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_ra_pinfo",
        "net.ipv6.conf.lo.accept_ra_pinfo",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_redirects",
        "net.ipv6.conf.lo.accept_redirects",
        Net,
        [1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "accept_source_route",
        "net.ipv6.conf.lo.accept_source_route",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("addr_gen_mode", "net.ipv6.conf.lo.addr_gen_mode", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("autoconf", "net.ipv6.conf.lo.autoconf", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("dad_transmits", "net.ipv6.conf.lo.dad_transmits", Net, [1], i32::MIN as i64, i32::MAX as i64),
    number!("disable_ipv6", "net.ipv6.conf.lo.disable_ipv6", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("forwarding", "net.ipv6.conf.lo.forwarding", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!("hop_limit", "net.ipv6.conf.lo.hop_limit", Net, [64], i32::MIN as i64, i32::MAX as i64),
    number!(
        "keep_addr_on_down",
        "net.ipv6.conf.lo.keep_addr_on_down",
        Net,
        [0],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("max_addresses", "net.ipv6.conf.lo.max_addresses", Net, [16], i32::MIN as i64, i32::MAX as i64),
    number!("mtu", "net.ipv6.conf.lo.mtu", Net, [65536], i32::MIN as i64, i32::MAX as i64),
    number!("proxy_ndp", "net.ipv6.conf.lo.proxy_ndp", Net, [0], i32::MIN as i64, i32::MAX as i64),
    number!(
        "router_solicitations",
        "net.ipv6.conf.lo.router_solicitations",
        Net,
        [-1],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_prefered_lft",
        "net.ipv6.conf.lo.temp_prefered_lft",
        Net,
        [86400],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!(
        "temp_valid_lft",
        "net.ipv6.conf.lo.temp_valid_lft",
        Net,
        [604800],
        i32::MIN as i64,
        i32::MAX as i64
    ),
    number!("use_tempaddr", "net.ipv6.conf.lo.use_tempaddr", Net, [-1], i32::MIN as i64, i32::MAX as i64),
];

const NET_IPV6: &[Entry<Sysctl>] = &[
    Entry::file("bindv6only", 0o644, &parameters::BINDV6ONLY),
    Entry::dir("conf", NET_IPV6_CONF),
    number!("ip_nonlocal_bind", "net.ipv6.ip_nonlocal_bind", Net, [0], 0, 1),
    number!("auto_flowlabels", "net.ipv6.auto_flowlabels", Net, [1], 0, 3),
    number!("idgen_retries", "net.ipv6.idgen_retries", Net, [3], 0, i32::MAX as i64),
];

const NET_UNIX: &[Entry<Sysctl>] = &[Entry::file("max_dgram_qlen", 0o644, &parameters::UNIX_MAX_DGRAM_QLEN)];
