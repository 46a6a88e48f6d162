//! The kernel parameters of network namespaces that have a meaning here (`/proc/sys/net`).

use crate::parameters::{Parameter, Scope};

const fn parameter(name: &'static str, default: &'static [i64], min: i64, max: i64) -> Parameter {
    Parameter { name, scope: Scope::Net, default, min, max }
}

/// The longest backlog that listen(2) gives.
pub static SOMAXCONN: Parameter = parameter("net.core.somaxconn", &[4096], 0, i32::MAX as i64);

/// How many datagrams wait at a Unix socket.
pub static MAX_DGRAM_QLEN: Parameter = parameter("net.unix.max_dgram_qlen", &[10], 0, i32::MAX as i64);

/// Ports that are given to those who do not ask for one.
pub static LOCAL_PORT_RANGE: Parameter =
    parameter("net.ipv4.ip_local_port_range", &[32_768, 60_999], 1, 65_535);

/// The first port that needs no CAP_NET_BIND_SERVICE.
pub static UNPRIVILEGED_PORT_START: Parameter =
    parameter("net.ipv4.ip_unprivileged_port_start", &[1024], 0, 65_535);

/// Groups whose members may have sockets of ICMP echo: as container runtimes set it, everybody.
pub static PING_GROUP_RANGE: Parameter =
    parameter("net.ipv4.ping_group_range", &[0, i32::MAX as i64], 0, u32::MAX as i64 - 1);

/// All of them.
pub static ALL: [&Parameter; 5] =
    [&SOMAXCONN, &MAX_DGRAM_QLEN, &LOCAL_PORT_RANGE, &UNPRIVILEGED_PORT_START, &PING_GROUP_RANGE];
