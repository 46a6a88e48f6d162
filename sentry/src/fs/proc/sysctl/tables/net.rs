//! `/proc/sys/net`.

use super::super::{Shown, Sysctl};
use super::{INT_MAX, INT_MIN};
use crate::fs::synthetic::Entry;
use crate::parameters::{self, Parameter, Scope};

/// A directory `conf`: after each name its values for `all`, `default` and `lo`.
macro_rules! conf {
    ($dir:literal; $($name:literal: $all:expr, $default:expr, $lo:expr;)*) => {
        &[
            Entry::dir("all", &[$(number!(concat!($dir, ".all"), $name, Net, [$all], INT_MIN, INT_MAX)),*]),
            Entry::dir("default", &[$(number!(concat!($dir, ".default"), $name, Net, [$default], INT_MIN, INT_MAX)),*]),
            Entry::dir("lo", &[$(number!(concat!($dir, ".lo"), $name, Net, [$lo], INT_MIN, INT_MAX)),*]),
        ]
    };
}

/// `/proc/sys/net`.
pub(in super::super) static NET: Entry<Sysctl> = Entry::dir(
    "",
    &[
        Entry::dir("core", NET_CORE),
        Entry::dir("ipv4", NET_IPV4),
        Entry::dir("ipv6", NET_IPV6),
        Entry::dir("unix", NET_UNIX),
    ],
);

const NET_CORE: &[Entry<Sysctl>] = &[
    number!("net.core", "bpf_jit_enable", System, [1], 0, 2),
    number!("net.core", "busy_poll", System, [0], 0, INT_MAX),
    number!("net.core", "busy_read", System, [0], 0, INT_MAX),
    Entry::text("default_qdisc", &Shown(|_, _| Ok("pfifo_fast".to_string()))),
    number!("net.core", "dev_weight", System, [64], 1, INT_MAX),
    number!("net.core", "message_burst", System, [10], 0, INT_MAX),
    number!("net.core", "message_cost", System, [5], 0, INT_MAX),
    number!("net.core", "netdev_budget", System, [300], 0, INT_MAX),
    number!("net.core", "netdev_budget_usecs", System, [8000], 0, INT_MAX),
    number!("net.core", "netdev_max_backlog", System, [1000], 0, INT_MAX),
    Entry::file("optmem_max", 0o644, &parameters::OPTMEM_MAX),
    Entry::file("rmem_default", 0o644, &parameters::RMEM_DEFAULT),
    Entry::file("rmem_max", 0o644, &parameters::RMEM_MAX),
    Entry::file("somaxconn", 0o644, &parameters::SOMAXCONN),
    Entry::file("wmem_default", 0o644, &parameters::WMEM_DEFAULT),
    Entry::file("wmem_max", 0o644, &parameters::WMEM_MAX),
];

const NET_IPV4: &[Entry<Sysctl>] = &[
    Entry::dir("conf", NET_IPV4_CONF),
    number!("net.ipv4", "fib_multipath_hash_policy", Net, [0], 0, 3),
    number!("net.ipv4", "icmp_echo_ignore_all", Net, [0], 0, 1),
    number!("net.ipv4", "icmp_echo_ignore_broadcasts", Net, [1], 0, 1),
    number!("net.ipv4", "icmp_ignore_bogus_error_responses", Net, [1], 0, 1),
    number!("net.ipv4", "icmp_msgs_burst", Net, [50], 0, INT_MAX),
    number!("net.ipv4", "icmp_msgs_per_sec", Net, [1000], 0, INT_MAX),
    number!("net.ipv4", "icmp_ratelimit", Net, [1000], 0, INT_MAX),
    number!("net.ipv4", "icmp_ratemask", Net, [6168], 0, INT_MAX),
    number!("net.ipv4", "igmp_max_memberships", Net, [20], 0, INT_MAX),
    number!("net.ipv4", "inet_peer_maxttl", Net, [600], 0, INT_MAX),
    Entry::file("ip_default_ttl", 0o644, &parameters::IP_DEFAULT_TTL),
    number!("net.ipv4", "ip_dynaddr", Net, [0], 0, 7),
    number!("net.ipv4", "ip_early_demux", Net, [1], 0, 1),
    number!("net.ipv4", "ip_forward", Net, [0], 0, 1),
    Entry::file("ip_local_port_range", 0o644, &parameters::IP_LOCAL_PORT_RANGE),
    Entry::text("ip_local_reserved_ports", &Shown(|_, _| Ok(String::new()))),
    number!("net.ipv4", "ip_no_pmtu_disc", Net, [0], 0, 3),
    Entry::file("ip_nonlocal_bind", 0o644, &parameters::IP_NONLOCAL_BIND),
    Entry::file("ip_unprivileged_port_start", 0o644, &parameters::IP_UNPRIVILEGED_PORT_START),
    number!("net.ipv4", "ipfrag_high_thresh", Net, [4194304], 0, i64::MAX),
    number!("net.ipv4", "ipfrag_low_thresh", Net, [3145728], 0, i64::MAX),
    number!("net.ipv4", "ipfrag_time", Net, [30], 0, INT_MAX),
    Entry::file("ping_group_range", 0o644, &parameters::PING_GROUP_RANGE),
    number!("net.ipv4", "tcp_abort_on_overflow", Net, [0], 0, 1),
    number!("net.ipv4", "tcp_adv_win_scale", Net, [1], 0, 31),
    number!("net.ipv4", "tcp_app_win", Net, [31], 0, 31),
    number!("net.ipv4", "tcp_autocorking", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_base_mss", Net, [1024], 0, INT_MAX),
    number!("net.ipv4", "tcp_challenge_ack_limit", Net, [2147483647], 0, INT_MAX),
    number!("net.ipv4", "tcp_dsack", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_early_retrans", Net, [3], 0, 4),
    number!("net.ipv4", "tcp_ecn", Net, [2], 0, 5),
    number!("net.ipv4", "tcp_fack", Net, [0], 0, INT_MAX),
    number!("net.ipv4", "tcp_fastopen", Net, [1], 0, INT_MAX),
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
    number!("net.ipv4", "tcp_max_syn_backlog", Net, [2048], 0, INT_MAX),
    number!("net.ipv4", "tcp_frto", Net, [2], 0, 2),
    number!("net.ipv4", "tcp_invalid_ratelimit", Net, [500], 0, INT_MAX),
    number!("net.ipv4", "tcp_limit_output_bytes", Net, [4194304], 0, INT_MAX),
    number!("net.ipv4", "tcp_low_latency", Net, [0], 0, INT_MAX),
    number!("net.ipv4", "tcp_max_orphans", Net, [65536], 0, INT_MAX),
    number!("net.ipv4", "tcp_max_reordering", Net, [300], 0, INT_MAX),
    number!("net.ipv4", "tcp_max_tw_buckets", Net, [65536], 0, INT_MAX),
    number!("net.ipv4", "tcp_min_rtt_wlen", Net, [300], 0, 86400),
    number!("net.ipv4", "tcp_min_snd_mss", Net, [48], 0, 65535),
    number!("net.ipv4", "tcp_min_tso_segs", Net, [2], 0, 65535),
    number!("net.ipv4", "tcp_moderate_rcvbuf", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_mtu_probe_floor", Net, [48], 0, 65535),
    number!("net.ipv4", "tcp_mtu_probing", Net, [0], 0, 2),
    number!("net.ipv4", "tcp_no_metrics_save", Net, [0], 0, 1),
    number!("net.ipv4", "tcp_notsent_lowat", Net, [4294967295], 0, u32::MAX as i64),
    number!("net.ipv4", "tcp_orphan_retries", Net, [0], 0, 255),
    number!("net.ipv4", "tcp_pacing_ca_ratio", Net, [120], 0, 1000),
    number!("net.ipv4", "tcp_pacing_ss_ratio", Net, [200], 0, 1000),
    number!("net.ipv4", "tcp_probe_interval", Net, [600], 0, INT_MAX),
    number!("net.ipv4", "tcp_probe_threshold", Net, [8], 0, INT_MAX),
    number!("net.ipv4", "tcp_recovery", Net, [1], 0, 255),
    number!("net.ipv4", "tcp_reordering", Net, [3], 0, INT_MAX),
    number!("net.ipv4", "tcp_retrans_collapse", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_retries1", Net, [3], 0, 255),
    number!("net.ipv4", "tcp_retries2", Net, [15], 0, 255),
    number!("net.ipv4", "tcp_rfc1337", Net, [0], 0, 1),
    number!("net.ipv4", "tcp_sack", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_slow_start_after_idle", Net, [1], 0, 1),
    number!("net.ipv4", "tcp_stdurg", Net, [0], 0, 1),
    number!("net.ipv4", "tcp_synack_retries", Net, [5], 0, 255),
    number!("net.ipv4", "tcp_syncookies", Net, [1], 0, 2),
    number!("net.ipv4", "tcp_thin_linear_timeouts", Net, [0], 0, 1),
    number!("net.ipv4", "tcp_timestamps", Net, [1], 0, 2),
    number!("net.ipv4", "tcp_tso_win_divisor", Net, [3], 0, 255),
    number!("net.ipv4", "tcp_tw_reuse", Net, [2], 0, 2),
    number!("net.ipv4", "tcp_window_scaling", Net, [1], 0, 1),
    number!("net.ipv4", "udp_early_demux", Net, [1], 0, 1),
    number!("net.ipv4", "udp_rmem_min", Net, [4096], 0, INT_MAX),
    number!("net.ipv4", "udp_wmem_min", Net, [4096], 0, INT_MAX),
    number!("net.ipv4", "tcp_mem", System, [287901, 383869, 575802], 0, i64::MAX),
    number!("net.ipv4", "udp_mem", System, [575802, 767738, 1151604], 0, i64::MAX),
];

const NET_IPV4_CONF: &[Entry<Sysctl>] = conf! {
    "net.ipv4.conf";
    "accept_local": 0, 0, 0;
    "accept_redirects": 1, 1, 1;
    "accept_source_route": 0, 0, 1;
    "arp_accept": 0, 0, 0;
    "arp_announce": 0, 0, 0;
    "arp_filter": 0, 0, 0;
    "arp_ignore": 0, 0, 0;
    "arp_notify": 0, 0, 0;
    "bootp_relay": 0, 0, 0;
    "disable_policy": 0, 0, 1;
    "disable_xfrm": 0, 0, 1;
    "force_igmp_version": 0, 0, 0;
    "forwarding": 0, 0, 0;
    "log_martians": 0, 0, 0;
    "mc_forwarding": 0, 0, 0;
    "proxy_arp": 0, 0, 0;
    "route_localnet": 0, 0, 0;
    "rp_filter": 0, 0, 0;
    "secure_redirects": 1, 1, 1;
    "send_redirects": 1, 1, 1;
    "shared_media": 1, 1, 1;
    "src_valid_mark": 0, 0, 0;
    "tag": 0, 0, 0;
};

const NET_IPV6_CONF: &[Entry<Sysctl>] = conf! {
    "net.ipv6.conf";
    "accept_dad": 1, 1, -1;
    "accept_ra": 1, 1, 1;
    "accept_ra_defrtr": 1, 1, 1;
    "accept_ra_pinfo": 1, 1, 1;
    "accept_redirects": 1, 1, 1;
    "accept_source_route": 0, 0, 0;
    "addr_gen_mode": 0, 0, 0;
    "autoconf": 1, 1, 1;
    "dad_transmits": 1, 1, 1;
    "disable_ipv6": 0, 0, 0;
    "forwarding": 0, 0, 0;
    "hop_limit": 64, 64, 64;
    "keep_addr_on_down": 0, 0, 0;
    "max_addresses": 16, 16, 16;
    "mtu": 1280, 1280, 65536;
    "proxy_ndp": 0, 0, 0;
    "router_solicitations": -1, -1, -1;
    "temp_prefered_lft": 86400, 86400, 86400;
    "temp_valid_lft": 604800, 604800, 604800;
    "use_tempaddr": 0, 0, -1;
};

const NET_IPV6: &[Entry<Sysctl>] = &[
    Entry::file("bindv6only", 0o644, &parameters::BINDV6ONLY),
    Entry::dir("conf", NET_IPV6_CONF),
    number!("net.ipv6", "ip_nonlocal_bind", Net, [0], 0, 1),
    number!("net.ipv6", "auto_flowlabels", Net, [1], 0, 3),
    number!("net.ipv6", "idgen_retries", Net, [3], 0, INT_MAX),
];

const NET_UNIX: &[Entry<Sysctl>] = &[Entry::file("max_dgram_qlen", 0o644, &parameters::UNIX_MAX_DGRAM_QLEN)];
