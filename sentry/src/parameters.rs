//! Kernel parameters (sysctl(8)): numbers that `/proc/sys` shows and may change.
//!
//! A [`Parameter`] says what a parameter is; its values are kept only where they were changed, in the [`Parameters`] of
//! the kernel or of a namespace. Those that are named here have an effect; the others are in the tables of `/proc/sys`.

use std::collections::BTreeMap;

use abi::{Errno, Result};
use parking_lot::RwLock;

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The sandbox.
    System,
    /// A network namespace.
    Net,
    /// An IPC namespace.
    Ipc,
}

/// A parameter: one or several numbers.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, as in sysctl.conf(5).
    pub name: &'static str,
    /// Where its values are kept.
    pub scope: Scope,
    /// Its values at the start.
    pub default: &'static [i64],
    /// The least that each may be.
    pub min: i64,
    /// The most that each may be.
    pub max: i64,
    /// The values are unsigned numbers, whatever the signs of `min` and `max`.
    pub unsigned: bool,
}

impl Parameter {
    /// All values.
    pub fn values(&self, of: &Parameters) -> Vec<i64> {
        of.0.read().get(self.name).cloned().unwrap_or_else(|| self.default.to_vec())
    }

    /// The first value.
    pub fn get(&self, of: &Parameters) -> i64 {
        let set = of.0.read().get(self.name).and_then(|values| values.first().copied());
        set.or(self.default.first().copied()).unwrap_or(0)
    }

    /// A value as text.
    pub fn show(&self, value: i64) -> String {
        if self.unsigned { (value as u64).to_string() } else { value.to_string() }
    }

    fn permits(&self, value: i64) -> bool {
        if self.unsigned {
            (self.min as u64..=self.max as u64).contains(&(value as u64))
        } else {
            (self.min..=self.max).contains(&value)
        }
    }

    /// Replaces the first values. EINVAL, and no change, if one is out of range or there are too many.
    pub fn set(&self, of: &Parameters, new: &[i64]) -> Result<()> {
        if new.len() > self.default.len() || !new.iter().all(|&value| self.permits(value)) {
            return Err(Errno::EINVAL);
        }
        let mut all = of.0.write();
        let values = all.entry(self.name).or_insert_with(|| self.default.to_vec());
        for (value, new) in values.iter_mut().zip(new) {
            *value = *new;
        }
        Ok(())
    }
}

const INT: i64 = i32::MAX as i64;

macro_rules! parameters {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $scope:ident, [$($value:expr),*], $min:expr, $max:expr $(, $unsigned:ident)?;)*) => {
        $($(#[$doc])* pub static $id: Parameter = Parameter {
            name: $name,
            scope: Scope::$scope,
            default: &[$($value),*],
            min: $min,
            max: $max,
            unsigned: parameters!(@unsigned $($unsigned)?),
        };)*

        /// All of them.
        #[cfg(test)]
        pub(crate) static ALL: &[&Parameter] = &[$(&$id),*];
    };
    (@unsigned) => { false };
    (@unsigned unsigned) => { true };
}

parameters! {
    /// Requests of asynchronous I/O that may be under way.
    AIO_MAX_NR = "fs.aio-max-nr", System, [65536], 0, i64::MAX;
    /// Files that the epoll instances of a user watch.
    EPOLL_WATCHES = "fs.epoll.max_user_watches", System, [1_048_576], 0, i64::MAX;
    /// Events that wait on an inotify file.
    INOTIFY_QUEUED_EVENTS = "fs.inotify.max_queued_events", System, [16384], 0, INT;
    /// Inotify files of a user.
    INOTIFY_INSTANCES = "fs.inotify.max_user_instances", System, [128], 0, INT;
    /// Inotify watches of a user.
    INOTIFY_WATCHES = "fs.inotify.max_user_watches", System, [65536], 0, INT;
    /// Messages of a queue that is made without attributes.
    MQUEUE_MSG_DEFAULT = "fs.mqueue.msg_default", Ipc, [10], 1, 65536;
    /// Messages of a queue, at most.
    MQUEUE_MSG_MAX = "fs.mqueue.msg_max", Ipc, [10], 1, 65536;
    /// Bytes of a message of a queue that is made without attributes.
    MQUEUE_MSGSIZE_DEFAULT = "fs.mqueue.msgsize_default", Ipc, [8192], 128, 16_777_216;
    /// Bytes of a message, at most.
    MQUEUE_MSGSIZE_MAX = "fs.mqueue.msgsize_max", Ipc, [8192], 128, 16_777_216;
    /// Queues of a namespace.
    MQUEUE_QUEUES_MAX = "fs.mqueue.queues_max", Ipc, [256], 0, INT;
    /// Bytes that F_SETPIPE_SZ may ask for without CAP_SYS_RESOURCE.
    PIPE_MAX_SIZE = "fs.pipe-max-size", System, [1_048_576], 4096, INT;
    /// Only CAP_SYSLOG lets read the kernel's log.
    DMESG_RESTRICT = "kernel.dmesg_restrict", System, [1], 0, 1;
    /// Bytes of the keys of a user.
    KEYS_MAXBYTES = "kernel.keys.maxbytes", System, [20_000], 0, INT;
    /// Keys of a user.
    KEYS_MAXKEYS = "kernel.keys.maxkeys", System, [200], 0, INT;
    /// Bytes of root's keys.
    KEYS_ROOT_MAXBYTES = "kernel.keys.root_maxbytes", System, [25_000_000], 0, INT;
    /// Root's keys.
    KEYS_ROOT_MAXKEYS = "kernel.keys.root_maxkeys", System, [1_000_000], 0, INT;
    /// Bytes of a System V message.
    MSGMAX = "kernel.msgmax", Ipc, [abi::ipc::MSGMAX as i64], 0, 1 << 24;
    /// Bytes of a new System V message queue.
    MSGMNB = "kernel.msgmnb", Ipc, [abi::ipc::MSGMNB as i64], 0, 1 << 24;
    /// System V message queues.
    MSGMNI = "kernel.msgmni", Ipc, [abi::ipc::MSGMNI as i64], 0, 32768;
    /// The id of the next System V message queue, if it is not negative.
    MSG_NEXT_ID = "kernel.msg_next_id", Ipc, [-1], -1, INT;
    /// The id of the next set of System V semaphores.
    SEM_NEXT_ID = "kernel.sem_next_id", Ipc, [-1], -1, INT;
    /// The id of the next System V shared memory segment.
    SHM_NEXT_ID = "kernel.shm_next_id", Ipc, [-1], -1, INT;
    /// Whether a program's addresses are randomized.
    RANDOMIZE_VA_SPACE = "kernel.randomize_va_space", System, [2], 0, 2;
    /// System V semaphores: of a set, in all, operations of a call, sets.
    SEM = "kernel.sem", Ipc, [32000, 1_024_000_000, 500, 32000], 0, INT;
    /// Pages of System V shared memory in all.
    SHMALL = "kernel.shmall", Ipc, [abi::ipc::SHMALL as i64], 0, -1, unsigned;
    /// Bytes of a System V shared memory segment.
    SHMMAX = "kernel.shmmax", Ipc, [abi::ipc::SHMMAX as i64], 0, -1, unsigned;
    /// System V shared memory segments.
    SHMMNI = "kernel.shmmni", Ipc, [abi::ipc::SHMMNI as i64], 0, 32768;
    /// Whom ptrace(2) may attach to. 0: Yama is not there.
    PTRACE_SCOPE = "kernel.yama.ptrace_scope", System, [0], 0, 0;
    /// Whether memory is promised that may not be there: 0 if it is not much, 1 always.
    OVERCOMMIT_MEMORY = "vm.overcommit_memory", System, [0], 0, 1;
    /// Bytes of control messages.
    OPTMEM_MAX = "net.core.optmem_max", Net, [131_072], 0, INT;
    /// Bytes of a new socket's receive buffer.
    RMEM_DEFAULT = "net.core.rmem_default", Net, [212_992], 256, INT;
    /// What SO_RCVBUF may ask for.
    RMEM_MAX = "net.core.rmem_max", Net, [212_992], 256, INT;
    /// Connections that wait for accept(2), at most.
    SOMAXCONN = "net.core.somaxconn", Net, [4096], 0, INT;
    /// Bytes of a new socket's send buffer.
    WMEM_DEFAULT = "net.core.wmem_default", Net, [212_992], 256, INT;
    /// What SO_SNDBUF may ask for.
    WMEM_MAX = "net.core.wmem_max", Net, [212_992], 256, INT;
    /// Time to live of packets.
    IP_DEFAULT_TTL = "net.ipv4.ip_default_ttl", Net, [64], 1, 255;
    /// First and last port for sockets that did not choose one.
    IP_LOCAL_PORT_RANGE = "net.ipv4.ip_local_port_range", Net, [32768, 60999], 1, 65535;
    /// Addresses may be bound that are of no interface.
    IP_NONLOCAL_BIND = "net.ipv4.ip_nonlocal_bind", Net, [0], 0, 1;
    /// The first port that needs no CAP_NET_BIND_SERVICE.
    IP_UNPRIVILEGED_PORT_START = "net.ipv4.ip_unprivileged_port_start", Net, [1024], 0, 65535;
    /// First and last group that may open ICMP echo sockets: everybody, as container runtimes set it.
    PING_GROUP_RANGE = "net.ipv4.ping_group_range", Net, [0, INT], 0, u32::MAX as i64;
    /// Seconds in FIN_WAIT_2.
    TCP_FIN_TIMEOUT = "net.ipv4.tcp_fin_timeout", Net, [60], 0, INT;
    /// Seconds between keepalive probes.
    TCP_KEEPALIVE_INTVL = "net.ipv4.tcp_keepalive_intvl", Net, [75], 0, INT;
    /// Keepalive probes before a connection is dropped.
    TCP_KEEPALIVE_PROBES = "net.ipv4.tcp_keepalive_probes", Net, [9], 0, INT;
    /// Seconds of silence before the first keepalive probe.
    TCP_KEEPALIVE_TIME = "net.ipv4.tcp_keepalive_time", Net, [7200], 0, INT;
    /// Least, first and largest receive buffer in bytes.
    TCP_RMEM = "net.ipv4.tcp_rmem", Net, [4096, 131_072, 6_291_456], 1, INT;
    /// SYNs that are sent before connect(2) fails.
    TCP_SYN_RETRIES = "net.ipv4.tcp_syn_retries", Net, [6], 1, 127;
    /// Least, first and largest send buffer in bytes.
    TCP_WMEM = "net.ipv4.tcp_wmem", Net, [4096, 16384, 4_194_304], 1, INT;
    /// IPv6 sockets do not take IPv4 connections.
    BINDV6ONLY = "net.ipv6.bindv6only", Net, [0], 0, 1;
    /// Datagrams that wait on a Unix socket.
    UNIX_MAX_DGRAM_QLEN = "net.unix.max_dgram_qlen", Net, [10], 0, INT;
}

/// Values that were changed.
#[derive(Debug, Default)]
pub struct Parameters(RwLock<BTreeMap<&'static str, Vec<i64>>>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_where_they_were_set() {
        let (one, other) = (Parameters::default(), Parameters::default());
        SEM.set(&one, &[1, 2]).unwrap();
        assert_eq!(SEM.values(&one), [1, 2, 500, 32000]);
        assert_eq!(SEM.values(&other), SEM.default);
        assert_eq!((SEM.get(&one), SEM.get(&other)), (1, 32000));
        assert_eq!(SEM.set(&one, &[-1]), Err(Errno::EINVAL));
        assert_eq!(SEM.set(&one, &[1, 2, 3, 4, 5]), Err(Errno::EINVAL));
        assert_eq!(SEM.get(&one), 1);
    }
}
