//! `/sys/class/net`: network devices (Documentation/ABI/testing/sysfs-class-net).

use abi::Errno;

use super::Machine;
use crate::fs::synthetic::{Entry, Fixed, Refused};

/// The devices.
pub(super) const DEVICES: &[Entry<Machine>] = &[Entry::dir("lo", LOOPBACK)];

/// `/sys/class/net`.
pub(super) const LINKS: &[Entry<Machine>] =
    &[Entry::link("lo", |_, _| Ok(b"../../devices/virtual/net/lo".to_vec()))];

const LOOPBACK: &[Entry<Machine>] = &[
    Entry::text("addr_assign_type", &Fixed("0\n")),
    Entry::text("addr_len", &Fixed("6\n")),
    Entry::text("address", &Fixed("00:00:00:00:00:00\n")),
    Entry::text("broadcast", &Fixed("00:00:00:00:00:00\n")),
    Entry::text("carrier", &Fixed("1\n")),
    Entry::text("carrier_changes", &Fixed("0\n")),
    Entry::text("dev_id", &Fixed("0x0\n")),
    Entry::text("dev_port", &Fixed("0\n")),
    Entry::text("dormant", &Fixed("0\n")),
    Entry::text("duplex", &Refused(Errno::EINVAL)),
    Entry::text("flags", &Fixed("0x9\n")),
    Entry::text("ifalias", &Fixed("")),
    Entry::text("ifindex", &Fixed("1\n")),
    Entry::text("iflink", &Fixed("1\n")),
    Entry::text("link_mode", &Fixed("0\n")),
    Entry::text("mtu", &Fixed("65536\n")),
    Entry::text("name_assign_type", &Fixed("2\n")),
    Entry::text("netdev_group", &Fixed("0\n")),
    Entry::text("operstate", &Fixed("unknown\n")),
    Entry::text("proto_down", &Fixed("0\n")),
    Entry::text("speed", &Refused(Errno::EINVAL)),
    Entry::dir(
        "statistics",
        &[
            Entry::text("collisions", &Fixed("0\n")),
            Entry::text("multicast", &Fixed("0\n")),
            Entry::text("rx_bytes", &Fixed("0\n")),
            Entry::text("rx_dropped", &Fixed("0\n")),
            Entry::text("rx_errors", &Fixed("0\n")),
            Entry::text("rx_packets", &Fixed("0\n")),
            Entry::text("tx_bytes", &Fixed("0\n")),
            Entry::text("tx_dropped", &Fixed("0\n")),
            Entry::text("tx_errors", &Fixed("0\n")),
            Entry::text("tx_packets", &Fixed("0\n")),
        ],
    ),
    Entry::link("subsystem", |_, _| Ok(b"../../../../class/net".to_vec())),
    Entry::text("tx_queue_len", &Fixed("1000\n")),
    Entry::text("type", &Fixed("772\n")),
    Entry::file("uevent", 0o644, &Fixed("INTERFACE=lo\nIFINDEX=1\n")),
];
