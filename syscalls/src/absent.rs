//! Calls that are not there: they end as in a Linux that was built without the option, and are counted.

use abi::{Errno, Result};
use sentry::task::CurrentTask;

use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    USELIB => absent, Missing, "gone from Linux too";
    SYSFS => absent, Missing, "as without CONFIG_SYSFS_SYSCALL";
    MODIFY_LDT => absent, Missing, "as without CONFIG_MODIFY_LDT_SYSCALL";
    _SYSCTL => absent, Missing, "gone from Linux too";
    CREATE_MODULE => absent, Missing, "gone from Linux too";
    GET_KERNEL_SYMS => absent, Missing, "gone from Linux too";
    QUERY_MODULE => absent, Missing, "gone from Linux too";
    QUOTACTL => absent, Missing, "as without CONFIG_QUOTACTL";
    QUOTACTL_FD => absent, Missing, "as without CONFIG_QUOTACTL";
    NFSSERVCTL => absent, Missing, "gone from Linux too";
    GETPMSG => absent, Missing, "never in Linux";
    PUTPMSG => absent, Missing, "never in Linux";
    AFS_SYSCALL => absent, Missing, "never in Linux";
    TUXCALL => absent, Missing, "never in Linux";
    SECURITY => absent, Missing, "never in Linux";
    VSERVER => absent, Missing, "never in Linux";
    SET_THREAD_AREA => absent, Missing, "not in Linux on x86-64";
    GET_THREAD_AREA => absent, Missing, "not in Linux on x86-64";
    LOOKUP_DCOOKIE => absent, Missing, "gone from Linux too";
    EPOLL_CTL_OLD => absent, Missing, "never in Linux";
    EPOLL_WAIT_OLD => absent, Missing, "never in Linux";
    PERF_EVENT_OPEN => absent, Missing, "as without CONFIG_PERF_EVENTS";
    FANOTIFY_INIT => absent, Missing, "as without CONFIG_FANOTIFY";
    FANOTIFY_MARK => absent, Missing, "as without CONFIG_FANOTIFY";
    USERFAULTFD => absent, Missing, "as without CONFIG_USERFAULTFD";
    RSEQ => absent, Missing, "as without CONFIG_RSEQ: programs take their other ways";
    URETPROBE => absent, Missing, "as without CONFIG_UPROBES";
    UPROBE => absent, Missing, "as without CONFIG_UPROBES";
    IO_URING_SETUP => absent, Missing, "as without CONFIG_IO_URING";
    IO_URING_ENTER => absent, Missing, "as without CONFIG_IO_URING";
    IO_URING_REGISTER => absent, Missing, "as without CONFIG_IO_URING";
    LANDLOCK_CREATE_RULESET => absent, Missing, "as without CONFIG_SECURITY_LANDLOCK";
    LANDLOCK_ADD_RULE => absent, Missing, "as without CONFIG_SECURITY_LANDLOCK";
    LANDLOCK_RESTRICT_SELF => absent, Missing, "as without CONFIG_SECURITY_LANDLOCK";
    LSM_GET_SELF_ATTR => absent, Missing, "as without CONFIG_SECURITY";
    LSM_SET_SELF_ATTR => absent, Missing, "as without CONFIG_SECURITY";
    LSM_LIST_MODULES => absent, Missing, "as without CONFIG_SECURITY";
    MEMFD_SECRET => absent, Missing, "as without CONFIG_SECRETMEM";
    MAP_SHADOW_STACK => not_supported, Missing, "as on a processor without shadow stacks";
};

fn absent(_task: &CurrentTask) -> Result<()> {
    Err(Errno::ENOSYS)
}

fn not_supported(_task: &CurrentTask) -> Result<()> {
    Err(Errno::EOPNOTSUPP)
}
