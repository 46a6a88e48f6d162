//! The tables of parameters.

use super::{LastPid, NoHugePages, Restored, Shown, Sysctl, Trigger, UtsName, net, uuid_text};
use crate::fs::proc::arch;
use crate::fs::synthetic::Entry;
use crate::kernel::{RELEASE, VERSION};
use crate::parameters::{self, Parameter, Scope};
use crate::vfs::Io;

const SECCOMP_ACTIONS: &str = "kill_process kill_thread trap errno trace log allow";
const SECCOMP_LOGGED: &str = "kill_process kill_thread trap errno trace log";

const MAPS: i64 = crate::mm::MAP_COUNT_MAX as i64;
const INT_MIN: i64 = i32::MIN as i64;
const INT_MAX: i64 = i32::MAX as i64;

/// A parameter that nothing but its file needs to know: directory, name, scope, defaults, least and most.
macro_rules! number {
    ($dir:expr, $name:literal, $scope:ident, $default:expr, $min:expr, $max:expr) => {
        number!($dir, $name, $scope, $default, $min, $max, 0o644)
    };
    ($dir:expr, $name:literal, $scope:ident, $default:expr, $min:expr, $max:expr, $mode:literal) => {
        Entry::file(
            $name,
            $mode,
            &Parameter {
                name: concat!($dir, ".", $name),
                scope: Scope::$scope,
                default: &$default,
                min: $min,
                max: $max,
                unsigned: false,
            },
        )
    };
}

mod net;

pub(super) use net::NET;

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

static MSG_NEXT_ID: Restored = Restored(&parameters::MSG_NEXT_ID);
static SEM_NEXT_ID: Restored = Restored(&parameters::SEM_NEXT_ID);
static SHM_NEXT_ID: Restored = Restored(&parameters::SHM_NEXT_ID);

const KERNEL: &[Entry<Sysctl>] = &[
    Entry::text("arch", &Shown(|_, _| Ok(arch::MACHINE.to_string()))),
    number!("kernel", "auto_msgmni", Ipc, [0], 0, 1),
    number!("kernel", "cap_last_cap", System, [40], 40, 40, 0o444),
    Entry::text("core_pattern", &Shown(|_, _| Ok("core".to_string()))),
    number!("kernel", "core_pipe_limit", System, [0], 0, 0),
    number!("kernel", "core_uses_pid", System, [0], 0, 0),
    number!("kernel", "ctrl-alt-del", System, [1], 0, 1),
    Entry::file("dmesg_restrict", 0o644, &parameters::DMESG_RESTRICT),
    Entry::file("domainname", 0o644, &UtsName(false)),
    Entry::file("hostname", 0o644, &UtsName(true)),
    number!("kernel", "hung_task_timeout_secs", System, [120], 0, INT_MAX),
    // There is none.
    number!("kernel", "io_uring_disabled", System, [2], 2, 2),
    number!("kernel", "io_uring_group", System, [-1], -1, INT_MAX),
    Entry::dir("keys", KERNEL_KEYS),
    number!("kernel", "kptr_restrict", System, [0], 0, 2),
    Entry::file("msg_next_id", 0o644, &MSG_NEXT_ID),
    Entry::file("msgmax", 0o644, &parameters::MSGMAX),
    Entry::file("msgmnb", 0o644, &parameters::MSGMNB),
    Entry::file("msgmni", 0o644, &parameters::MSGMNI),
    number!("kernel", "ngroups_max", System, [65536], 65536, 65536, 0o444),
    number!("kernel", "nmi_watchdog", System, [0], 0, 0),
    Entry::file("ns_last_pid", 0o666, &LastPid),
    number!("kernel", "numa_balancing", System, [0], 0, 0),
    Entry::text("osrelease", &Shown(|_, _| Ok(RELEASE.to_string()))),
    Entry::text("ostype", &Shown(|_, _| Ok("Linux".to_string()))),
    number!("kernel", "overflowgid", System, [65534], 65534, 65534),
    number!("kernel", "overflowuid", System, [65534], 65534, 65534),
    number!("kernel", "panic", System, [0], INT_MIN, INT_MAX),
    number!("kernel", "panic_on_oops", System, [0], 0, 1),
    number!("kernel", "perf_cpu_time_max_percent", System, [25], 0, 100),
    number!("kernel", "perf_event_max_sample_rate", System, [100000], 1, INT_MAX),
    number!("kernel", "perf_event_max_stack", System, [127], 0, INT_MAX),
    number!("kernel", "perf_event_mlock_kb", System, [516], 0, INT_MAX),
    number!("kernel", "perf_event_paranoid", System, [2], -1, INT_MAX),
    number!("kernel", "pid_max", System, [4194304], 4194304, 4194304),
    number!("kernel", "print-fatal-signals", System, [0], 0, INT_MAX),
    number!("kernel", "printk", System, [4, 4, 1, 7], 0, INT_MAX),
    number!("kernel", "printk_delay", System, [0], 0, 10000),
    number!("kernel", "printk_ratelimit", System, [5], 0, INT_MAX),
    number!("kernel", "printk_ratelimit_burst", System, [10], 0, INT_MAX),
    Entry::dir("pty", KERNEL_PTY),
    Entry::dir("random", KERNEL_RANDOM),
    Entry::file("randomize_va_space", 0o644, &parameters::RANDOMIZE_VA_SPACE),
    number!("kernel", "sched_autogroup_enabled", System, [1], 0, 1),
    number!("kernel", "sched_cfs_bandwidth_slice_us", System, [5000], 1, INT_MAX),
    number!("kernel", "sched_deadline_period_max_us", System, [4194304], 0, INT_MAX),
    number!("kernel", "sched_deadline_period_min_us", System, [100], 0, INT_MAX),
    number!("kernel", "sched_rr_timeslice_ms", System, [100], INT_MIN, INT_MAX),
    number!("kernel", "sched_rt_period_us", System, [1000000], 1, INT_MAX),
    number!("kernel", "sched_rt_runtime_us", System, [950000], -1, INT_MAX),
    Entry::dir("seccomp", KERNEL_SECCOMP),
    Entry::file("sem", 0o644, &parameters::SEM),
    Entry::file("sem_next_id", 0o644, &SEM_NEXT_ID),
    Entry::file("shm_next_id", 0o644, &SHM_NEXT_ID),
    number!("kernel", "shm_rmid_forced", Ipc, [0], 0, 0),
    Entry::file("shmall", 0o644, &parameters::SHMALL),
    Entry::file("shmmax", 0o644, &parameters::SHMMAX),
    Entry::file("shmmni", 0o644, &parameters::SHMMNI),
    number!("kernel", "soft_watchdog", System, [0], 0, 0),
    number!("kernel", "sysctl_writes_strict", System, [1], 1, 1),
    number!("kernel", "tainted", System, [0], 0, i64::MAX),
    Entry::text("threads-max", &Shown(|sysctl, _| Ok(sysctl.kernel().threads_max.to_string()))),
    number!("kernel", "timer_migration", System, [1], 0, 1),
    number!("kernel", "unprivileged_bpf_disabled", System, [2], 0, 2),
    Entry::text("version", &Shown(|_, _| Ok(VERSION.to_string()))),
    number!("kernel", "watchdog", System, [0], 0, 0),
    number!("kernel", "watchdog_thresh", System, [10], 0, 60),
    Entry::dir("yama", KERNEL_YAMA),
];

const KERNEL_KEYS: &[Entry<Sysctl>] = &[
    number!("kernel.keys", "gc_delay", System, [300], 0, INT_MAX),
    Entry::file("maxbytes", 0o644, &parameters::KEYS_MAXBYTES),
    Entry::file("maxkeys", 0o644, &parameters::KEYS_MAXKEYS),
    number!("kernel.keys", "persistent_keyring_expiry", System, [259200], 0, INT_MAX),
    Entry::file("root_maxbytes", 0o644, &parameters::KEYS_ROOT_MAXBYTES),
    Entry::file("root_maxkeys", 0o644, &parameters::KEYS_ROOT_MAXKEYS),
];

const KERNEL_PTY: &[Entry<Sysctl>] = &[
    number!("kernel.pty", "max", System, [4096], 0, INT_MAX),
    number!("kernel.pty", "nr", System, [0], 0, 0, 0o444),
    number!("kernel.pty", "reserve", System, [1024], 0, INT_MAX),
];

const KERNEL_RANDOM: &[Entry<Sysctl>] = &[
    Entry::text("boot_id", &Shown(|sysctl, _| Ok(uuid_text(sysctl.kernel().boot_id)))),
    number!("kernel.random", "entropy_avail", System, [256], 256, 256, 0o444),
    number!("kernel.random", "poolsize", System, [256], 256, 256, 0o444),
    number!("kernel.random", "urandom_min_reseed_secs", System, [60], 0, INT_MAX),
    Entry::text("uuid", &Shown(|_, _| Ok(uuid_text(crate::kernel::random_uuid())))),
    number!("kernel.random", "write_wakeup_threshold", System, [256], 0, INT_MAX),
];

const KERNEL_SECCOMP: &[Entry<Sysctl>] = &[
    Entry::text("actions_avail", &Shown(|_, _| Ok(SECCOMP_ACTIONS.to_string()))),
    Entry::text("actions_logged", &Shown(|_, _| Ok(SECCOMP_LOGGED.to_string()))),
];

const KERNEL_YAMA: &[Entry<Sysctl>] = &[Entry::file("ptrace_scope", 0o644, &parameters::PTRACE_SCOPE)];

const VM: &[Entry<Sysctl>] = &[
    number!("vm", "admin_reserve_kbytes", System, [8192], 0, INT_MAX),
    Entry::file("compact_memory", 0o200, &Trigger(1)),
    number!("vm", "compaction_proactiveness", System, [20], 0, 100),
    number!("vm", "dirty_background_bytes", System, [0], 0, i64::MAX),
    number!("vm", "dirty_background_ratio", System, [10], 0, 100),
    number!("vm", "dirty_bytes", System, [0], 0, i64::MAX),
    number!("vm", "dirty_expire_centisecs", System, [3000], 0, INT_MAX),
    number!("vm", "dirty_ratio", System, [20], 0, 100),
    number!("vm", "dirty_writeback_centisecs", System, [500], 0, INT_MAX),
    number!("vm", "dirtytime_expire_seconds", System, [43200], 0, INT_MAX),
    Entry::file("drop_caches", 0o200, &Trigger(4)),
    number!("vm", "extfrag_threshold", System, [500], 0, 1000),
    number!("vm", "hugetlb_shm_group", System, [0], 0, INT_MAX),
    number!("vm", "laptop_mode", System, [0], 0, INT_MAX),
    number!("vm", "legacy_va_layout", System, [0], 0, 0),
    number!("vm", "lowmem_reserve_ratio", System, [256, 256, 32, 0, 0], 0, INT_MAX),
    number!("vm", "max_map_count", System, [MAPS], MAPS, MAPS),
    number!("vm", "memfd_noexec", System, [0], 0, 0),
    number!("vm", "min_free_kbytes", System, [67584], 0, INT_MAX),
    number!("vm", "mmap_min_addr", System, [65536], 65536, 65536),
    Entry::file("nr_hugepages", 0o644, &NoHugePages),
    Entry::file("nr_overcommit_hugepages", 0o644, &NoHugePages),
    number!("vm", "oom_dump_tasks", System, [1], 0, INT_MAX),
    number!("vm", "oom_kill_allocating_task", System, [0], 0, INT_MAX),
    number!("vm", "overcommit_kbytes", System, [0], 0, i64::MAX),
    Entry::file("overcommit_memory", 0o644, &parameters::OVERCOMMIT_MEMORY),
    number!("vm", "overcommit_ratio", System, [50], 0, INT_MAX),
    number!("vm", "page-cluster", System, [3], 0, 31),
    number!("vm", "panic_on_oom", System, [0], 0, 2),
    number!("vm", "stat_interval", System, [1], 0, INT_MAX),
    number!("vm", "swappiness", System, [60], 0, 200),
    number!("vm", "unprivileged_userfaultfd", System, [0], 0, 0),
    number!("vm", "user_reserve_kbytes", System, [131072], 0, INT_MAX),
    number!("vm", "vfs_cache_pressure", System, [100], 0, INT_MAX),
    number!("vm", "watermark_boost_factor", System, [15000], 0, INT_MAX),
    number!("vm", "watermark_scale_factor", System, [10], 1, 3000),
    number!("vm", "zone_reclaim_mode", System, [0], 0, INT_MAX),
];

const FS: &[Entry<Sysctl>] = &[
    Entry::file("aio-max-nr", 0o644, &parameters::AIO_MAX_NR),
    number!("fs", "aio-nr", System, [0], 0, 0, 0o444),
    Entry::dir("binfmt_misc", &[]),
    number!("fs", "dentry-state", System, [0, 0, 0, 0, 0, 0], 0, 0, 0o444),
    number!("fs", "dir-notify-enable", System, [1], 0, 1),
    Entry::dir("epoll", FS_EPOLL),
    number!("fs", "file-max", System, [i64::MAX], 0, i64::MAX),
    Entry::text("file-nr", &Shown(file_nr)),
    Entry::text("inode-nr", &Shown(|_, _| Ok("0\t0".to_string()))),
    Entry::text("inode-state", &Shown(|_, _| Ok("0\t0\t0\t0\t0\t0\t0".to_string()))),
    Entry::dir("inotify", FS_INOTIFY),
    number!("fs", "lease-break-time", System, [45], 0, INT_MAX),
    number!("fs", "leases-enable", System, [1], 0, 1),
    number!("fs", "mount-max", System, [100000], 100000, 100000),
    Entry::dir("mqueue", FS_MQUEUE),
    number!("fs", "nr_open", System, [1048576], 1048576, 1048576),
    number!("fs", "overflowgid", System, [65534], 65534, 65534),
    number!("fs", "overflowuid", System, [65534], 65534, 65534),
    Entry::file("pipe-max-size", 0o644, &parameters::PIPE_MAX_SIZE),
    number!("fs", "pipe-user-pages-hard", System, [0], 0, i64::MAX),
    number!("fs", "pipe-user-pages-soft", System, [16384], 0, i64::MAX),
    number!("fs", "protected_fifos", System, [1], 1, 1),
    number!("fs", "protected_hardlinks", System, [1], 1, 1),
    number!("fs", "protected_regular", System, [1], 1, 1),
    number!("fs", "protected_symlinks", System, [0], 0, 0),
    number!("fs", "suid_dumpable", System, [0], 0, 0),
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
    number!("user", "max_cgroup_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_ipc_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_mnt_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_net_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_pid_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_time_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_user_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_uts_namespaces", System, [31000], 31000, 31000),
    number!("user", "max_inotify_instances", System, [128], 128, 128),
    number!("user", "max_inotify_watches", System, [65536], 65536, 65536),
];
