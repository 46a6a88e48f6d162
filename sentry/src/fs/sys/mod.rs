//! sysfs: the machine and the kernel as files (sysfs(5)): what lscpu(1), runtimes and C libraries ask for.

mod cpu;
mod net;

use std::fmt::Write;
use std::sync::Arc;

use abi::stat::SYSFS_MAGIC;
use abi::{Errno, Result};

use super::synthetic::{Access, Context, Entry, Fixed, Kind, Node, Read};
use crate::Kernel;
use crate::container::Container;
use crate::vfs::{FileSystem, FsStatus, Inode, Io, NewInode, NewKind};

/// The machine.
#[derive(Clone)]
struct Machine {
    kernel: Arc<Kernel>,
    container: Arc<Container>,
}

impl Machine {
    fn cpus(&self) -> u32 {
        self.container.cpus()
    }
}

/// What files and directories of sysfs have in common.
trait Sysfs: Clone + Send + Sync + 'static {}

impl Sysfs for Machine {}

impl<T: Sysfs> Context for T {
    const FILE_SIZE: u64 = 4096;
    const BLOCK_SIZE: u32 = 4096;

    fn access(&self, entry: &Entry<T>) -> Result<Access> {
        let mode = if let Kind::Directory(..) = entry.kind { 0o755 } else { entry.mode };
        Ok(Access { mode, uid: 0, gid: 0 })
    }

    fn create(&self, _parent: u64, _name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        Err(if new.kind == NewKind::Regular { Errno::EACCES } else { Errno::EPERM })
    }
}

const DEVICES: &[Entry<Machine>] = &[
    Entry::dir(
        "system",
        &[
            Entry::dir(
                "clocksource",
                &[Entry::dir(
                    "clocksource0",
                    &[
                        Entry::text("available_clocksource", &Fixed("tsc \n")),
                        Entry::text("current_clocksource", &Fixed("tsc\n")),
                    ],
                )],
            ),
            Entry { name: "cpu", mode: 0o755, kind: cpu::CPUS },
            Entry::dir(
                "node",
                &[
                    Entry::text("has_cpu", &Fixed("0\n")),
                    Entry::text("has_memory", &Fixed("0\n")),
                    Entry::text("has_normal_memory", &Fixed("0\n")),
                    Entry { name: "node0", mode: 0o755, kind: cpu::NODE },
                    Entry::text("online", &Fixed("0\n")),
                    Entry::text("possible", &Fixed("0\n")),
                ],
            ),
        ],
    ),
    Entry::dir("virtual", &[Entry::dir("mem", MEMORY_DEVICES), Entry::dir("net", net::DEVICES)]),
];

macro_rules! memory_device {
    ($name:literal, $minor:literal) => {
        Entry::dir(
            $name,
            &[
                Entry::text("dev", &Fixed(concat!("1:", $minor, "\n"))),
                Entry::link("subsystem", |_, _| Ok(b"../../../../class/mem".to_vec())),
                Entry::file(
                    "uevent",
                    0o644,
                    &Fixed(concat!("MAJOR=1\nMINOR=", $minor, "\nDEVNAME=", $name, "\nDEVMODE=0666\n")),
                ),
            ],
        )
    };
}

const MEMORY_DEVICES: &[Entry<Machine>] = &[
    memory_device!("full", "7"),
    memory_device!("null", "3"),
    memory_device!("random", "8"),
    memory_device!("urandom", "9"),
    memory_device!("zero", "5"),
];

const KERNEL: &[Entry<Machine>] = &[
    Entry::text("address_bits", &Fixed("64\n")),
    Entry::dir(
        "cgroup",
        &[
            Entry::text("delegate", &Fixed("cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n")),
            Entry::text("features", &Fixed("")),
        ],
    ),
    Entry::text("cpu_byteorder", &Fixed("little\n")),
    Entry::dir("debug", &[]),
    Entry::text("fscaps", &Fixed("1\n")),
    Entry::dir(
        "mm",
        &[
            Entry::dir("hugepages", &[Entry::dir("hugepages-2048kB", HUGE_PAGES)]),
            Entry::dir(
                "transparent_hugepage",
                &[
                    Entry::text("defrag", &Fixed("always defer defer+madvise [madvise] never\n")),
                    Entry::text("enabled", &Fixed("always [madvise] never\n")),
                    Entry::text("hpage_pmd_size", &Fixed("2097152\n")),
                    Entry::text("shmem_enabled", &Fixed("always within_size advise [never] deny force\n")),
                    Entry::text("use_zero_page", &Fixed("1\n")),
                ],
            ),
        ],
    ),
    Entry::text("profiling", &Fixed("0\n")),
    Entry::dir("security", &[]),
    Entry::dir("tracing", &[]),
    Entry::text("uevent_seqnum", &Fixed("0\n")),
];

const HUGE_PAGES: &[Entry<Machine>] = &[
    Entry::text("free_hugepages", &Fixed("0\n")),
    Entry::text("nr_hugepages", &Fixed("0\n")),
    Entry::text("nr_overcommit_hugepages", &Fixed("0\n")),
    Entry::text("resv_hugepages", &Fixed("0\n")),
    Entry::text("surplus_hugepages", &Fixed("0\n")),
];

static ROOT: Entry<Machine> = Entry::dir(
    "",
    &[
        Entry::dir("block", &[]),
        Entry::dir(
            "bus",
            &[
                Entry::dir("cpu", &[Entry { name: "devices", mode: 0o755, kind: cpu::LINKS_FROM_BUS }]),
                Entry::dir(
                    "node",
                    &[Entry::dir(
                        "devices",
                        &[Entry::link("node0", |_, _| Ok(b"../../../devices/system/node/node0".to_vec()))],
                    )],
                ),
                Entry::dir("pci", &[Entry::dir("devices", &[])]),
                Entry::dir("platform", &[Entry::dir("devices", &[])]),
            ],
        ),
        Entry::dir(
            "class",
            &[
                Entry::dir("block", &[]),
                Entry::dir(
                    "mem",
                    &[
                        Entry::link("full", |_, _| Ok(b"../../devices/virtual/mem/full".to_vec())),
                        Entry::link("null", |_, _| Ok(b"../../devices/virtual/mem/null".to_vec())),
                        Entry::link("random", |_, _| Ok(b"../../devices/virtual/mem/random".to_vec())),
                        Entry::link("urandom", |_, _| Ok(b"../../devices/virtual/mem/urandom".to_vec())),
                        Entry::link("zero", |_, _| Ok(b"../../devices/virtual/mem/zero".to_vec())),
                    ],
                ),
                Entry::dir("net", net::LINKS),
            ],
        ),
        Entry::dir(
            "dev",
            &[
                Entry::dir("block", &[]),
                Entry::dir(
                    "char",
                    &[
                        Entry::link("1:3", |_, _| Ok(b"../../devices/virtual/mem/null".to_vec())),
                        Entry::link("1:5", |_, _| Ok(b"../../devices/virtual/mem/zero".to_vec())),
                        Entry::link("1:7", |_, _| Ok(b"../../devices/virtual/mem/full".to_vec())),
                        Entry::link("1:8", |_, _| Ok(b"../../devices/virtual/mem/random".to_vec())),
                        Entry::link("1:9", |_, _| Ok(b"../../devices/virtual/mem/urandom".to_vec())),
                    ],
                ),
            ],
        ),
        Entry::dir("devices", DEVICES),
        Entry::dir("firmware", &[]),
        Entry::dir("fs", &[Entry::dir("bpf", &[]), Entry::dir("cgroup", &[])]),
        Entry::dir("kernel", KERNEL),
        Entry::dir("module", &[]),
        Entry::dir("power", &[]),
    ],
);

/// Memory of the only node there is.
fn node_memory(machine: &Machine, _io: &Io<'_>) -> Result<Vec<u8>> {
    let (total, free) =
        (machine.container.memory() / 1024, machine.kernel.memory_free(&machine.container) / 1024);
    let mut text = String::new();
    for (name, value) in [("MemTotal", total), ("MemFree", free), ("MemUsed", total.saturating_sub(free))] {
        let _ = writeln!(text, "Node 0 {:<15}{value:>9} kB", format!("{name}:"));
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Surp"] {
        let _ = writeln!(text, "Node 0 {:<16}{:>5}", format!("{name}:"), 0);
    }
    Ok(text.into_bytes())
}

const NODE_MEMORY: &Read<Machine> = &Read(node_memory);

/// A sysfs.
pub struct SysFs {
    root: Arc<Node<Machine>>,
}

/// A sysfs that shows the machine of a container.
pub fn new(kernel: &Arc<Kernel>, container: &Arc<Container>) -> Arc<SysFs> {
    let machine = Machine { kernel: kernel.clone(), container: container.clone() };
    Arc::new(SysFs { root: Node::new(machine, &ROOT, 1) })
}

impl FileSystem for SysFs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: SYSFS_MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every link of a class, bus or device number leads to a directory that is there.
    #[test]
    fn links_lead_somewhere() {
        fn find(path: &str) -> Option<&'static Entry<Machine>> {
            path.split('/').filter(|n| !n.is_empty()).try_fold(&ROOT, |at, name| match at.kind {
                Kind::Directory(entries, _) => entries.iter().find(|e| e.name == name),
                _ => None,
            })
        }
        for path in ["class/mem/null", "class/net/lo", "bus/node/devices/node0"] {
            assert!(find(path).is_some_and(|e| matches!(e.kind, Kind::Link(_))), "{path}");
        }
        for path in ["devices/virtual/mem/null", "devices/virtual/net/lo", "devices/system/node/node0"] {
            assert!(find(path).is_some_and(|e| matches!(e.kind, Kind::Directory(..))), "{path}");
        }
    }
}
