//! `/sys/devices/system/cpu` and `/sys/devices/system/node`: processors, their caches, and the node they belong to.

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::{Machine, NODE_MEMORY, Sysfs};
use crate::fs::proc::arch;
use crate::fs::synthetic::{Children, Entry, Fixed, Kind, Node, Read, Receive, child_ino};
use crate::vfs::{Inode, Io};

/// The directory of all processors.
pub(super) const CPUS: Kind<Machine> = Kind::Directory(
    &[
        Entry::text("isolated", &Fixed("\n")),
        Entry::text("kernel_max", &Fixed("8191\n")),
        Entry::text("offline", &Fixed("\n")),
        Entry::text("online", &Read(all)),
        Entry::text("possible", &Read(all)),
        Entry::text("present", &Read(all)),
        Entry::dir(
            "smt",
            &[Entry::text("active", &Fixed("0\n")), Entry::text("control", &Fixed("notsupported\n"))],
        ),
        Entry::file("uevent", 0o644, &Fixed("")),
    ],
    Some(Children {
        find: |machine, ino, name| {
            let cpu = Cpu { machine: machine.clone(), number: number_of(machine, name, b"cpu")? };
            Ok(Node::new(cpu, &CPU, child_ino(ino, name, 0)))
        },
        list: |machine, ino, _io, from, receive| list(machine, ino, from, receive, FileType::Directory),
    }),
);

/// `/sys/bus/cpu/devices`.
pub(super) const LINKS_FROM_BUS: Kind<Machine> = Kind::Directory(
    &[],
    Some(Children {
        find: |machine, ino, name| {
            let cpu = Cpu { machine: machine.clone(), number: number_of(machine, name, b"cpu")? };
            Ok(Node::new(cpu, &FROM_BUS, child_ino(ino, name, 0)))
        },
        list: |machine, ino, _io, from, receive| list(machine, ino, from, receive, FileType::Symlink),
    }),
);

/// The node.
pub(super) const NODE: Kind<Machine> = Kind::Directory(
    &[
        Entry::text("cpulist", &Read(all)),
        Entry::text("cpumap", &Read(|machine: &Machine, _| Ok(mask(machine, 0..machine.cpus())))),
        Entry::text("distance", &Fixed("10\n")),
        Entry::text("meminfo", NODE_MEMORY),
        Entry::text(
            "numastat",
            &Fixed("numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0\n"),
        ),
    ],
    Some(Children {
        find: |machine, ino, name| {
            let cpu = Cpu { machine: machine.clone(), number: number_of(machine, name, b"cpu")? };
            Ok(Node::new(cpu, &FROM_NODE, child_ino(ino, name, 0)))
        },
        list: |machine, ino, _io, from, receive| list(machine, ino, from, receive, FileType::Symlink),
    }),
);

/// A processor.
#[derive(Clone)]
struct Cpu {
    machine: Machine,
    number: u32,
}

impl Sysfs for Cpu {}

static CPU: Entry<Cpu> = Entry::dir(
    "",
    &[
        Entry { name: "cache", mode: 0o755, kind: Kind::Directory(&[], Some(CACHES)) },
        Entry::link("node0", |_, _| Ok(b"../../node/node0".to_vec())),
        Entry::link("subsystem", |_, _| Ok(b"../../../../bus/cpu".to_vec())),
        Entry::dir(
            "topology",
            &[
                Entry::text("cluster_cpus", &Read(own_mask)),
                Entry::text("cluster_cpus_list", &Read(own)),
                Entry::text("cluster_id", &Fixed("65535\n")),
                Entry::text("core_cpus", &Read(own_mask)),
                Entry::text("core_cpus_list", &Read(own)),
                Entry::text("core_id", &Read(own)),
                Entry::text("core_siblings", &Read(package_mask)),
                Entry::text("core_siblings_list", &Read(package)),
                Entry::text("die_cpus", &Read(package_mask)),
                Entry::text("die_cpus_list", &Read(package)),
                Entry::text("die_id", &Fixed("0\n")),
                Entry::text("package_cpus", &Read(package_mask)),
                Entry::text("package_cpus_list", &Read(package)),
                Entry::text("physical_package_id", &Fixed("0\n")),
                Entry::text("thread_siblings", &Read(own_mask)),
                Entry::text("thread_siblings_list", &Read(own)),
            ],
        ),
        Entry::file("uevent", 0o644, &Fixed("")),
    ],
);

static FROM_BUS: Entry<Cpu> =
    Entry::link("", |cpu, _| Ok(format!("../../../devices/system/cpu/cpu{}", cpu.number).into_bytes()));

static FROM_NODE: Entry<Cpu> =
    Entry::link("", |cpu, _| Ok(format!("../../cpu/cpu{}", cpu.number).into_bytes()));

fn all(machine: &Machine, _io: &Io<'_>) -> Result<Vec<u8>> {
    let last = machine.cpus() - 1;
    Ok(if last == 0 { "0\n".to_string() } else { format!("0-{last}\n") }.into_bytes())
}

/// A mask of processors, as hexadecimal words.
fn mask(machine: &Machine, cpus: std::ops::Range<u32>) -> Vec<u8> {
    let total = machine.cpus();
    let mut bits = vec![0u64; total.div_ceil(64) as usize];
    for cpu in cpus {
        if let Some(word) = bits.get_mut(cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    format!("{}\n", crate::fs::proc::bitmap(&bits, total)).into_bytes()
}

fn own(cpu: &Cpu, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(format!("{}\n", cpu.number).into_bytes())
}

fn own_mask(cpu: &Cpu, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(mask(&cpu.machine, cpu.number..cpu.number + 1))
}

fn package(cpu: &Cpu, io: &Io<'_>) -> Result<Vec<u8>> {
    all(&cpu.machine, io)
}

fn package_mask(cpu: &Cpu, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(mask(&cpu.machine, 0..cpu.machine.cpus()))
}

/// The number in a name such as `cpu3`. ENOENT if there is no such processor.
fn number_of(machine: &Machine, name: &[u8], prefix: &[u8]) -> Result<u32> {
    let digits = name.strip_prefix(prefix).ok_or(Errno::ENOENT)?;
    let number = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u32>().ok()).ok_or(Errno::ENOENT)?;
    let canonical = number.to_string().as_bytes() == digits;
    if canonical && number < machine.cpus() { Ok(number) } else { Err(Errno::ENOENT) }
}

fn list(
    machine: &Machine,
    ino: u64,
    from: u64,
    receive: &mut Receive<'_>,
    file_type: FileType,
) -> Result<()> {
    for cpu in from..u64::from(machine.cpus()) {
        let name = format!("cpu{cpu}");
        if !receive(cpu, name.as_bytes(), child_ino(ino, name.as_bytes(), 0), file_type) {
            break;
        }
    }
    Ok(())
}

/// `cache/`.
const CACHES: Children<Cpu> = Children { find: find_cache, list: list_caches };

/// A cache of a processor.
#[derive(Clone)]
struct Cache {
    cpu: Cpu,
    cache: arch::Cache,
}

impl Sysfs for Cache {}

fn show(value: impl std::fmt::Display) -> Result<Vec<u8>> {
    Ok(format!("{value}\n").into_bytes())
}

impl Cache {
    /// The processors that share it: all share the third level.
    fn sharers(&self) -> std::ops::Range<u32> {
        if self.cache.level >= 3 { 0..self.cpu.machine.cpus() } else { self.cpu.number..self.cpu.number + 1 }
    }
}

static CACHE: Entry<Cache> = Entry::dir(
    "",
    &[
        Entry::text("coherency_line_size", &Read(|c: &Cache, _| show(c.cache.line))),
        Entry::text("id", &Read(|c: &Cache, _| show(c.sharers().start))),
        Entry::text("level", &Read(|c: &Cache, _| show(c.cache.level))),
        Entry::text("number_of_sets", &Read(|c: &Cache, _| show(c.cache.sets))),
        Entry::text("physical_line_partition", &Read(|c: &Cache, _| show(c.cache.partitions))),
        Entry::text(
            "shared_cpu_list",
            &Read(|c: &Cache, io| if c.cache.level >= 3 { package(&c.cpu, io) } else { own(&c.cpu, io) }),
        ),
        Entry::text("shared_cpu_map", &Read(|c: &Cache, _| Ok(mask(&c.cpu.machine, c.sharers())))),
        Entry::text("size", &Read(|c: &Cache, _| show(format_args!("{}K", c.cache.size())))),
        Entry::text("type", &Read(|c: &Cache, _| show(c.cache.kind))),
        Entry::text("ways_of_associativity", &Read(|c: &Cache, _| show(c.cache.ways))),
    ],
);

fn find_cache(cpu: &Cpu, ino: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    let caches = arch::caches();
    let found = caches.into_iter().enumerate().find(|(i, _)| format!("index{i}").as_bytes() == name);
    let (_, cache) = found.ok_or(Errno::ENOENT)?;
    Ok(Node::new(Cache { cpu: cpu.clone(), cache }, &CACHE, child_ino(ino, name, 0)))
}

fn list_caches(_cpu: &Cpu, ino: u64, _io: &Io<'_>, from: u64, receive: &mut Receive<'_>) -> Result<()> {
    for index in from..arch::caches().len() as u64 {
        let name = format!("index{index}");
        if !receive(index, name.as_bytes(), child_ino(ino, name.as_bytes(), 0), FileType::Directory) {
            break;
        }
    }
    Ok(())
}
