//! sysfs: devices and the kernel as files (sysfs(5)).

use std::sync::Arc;

use abi::Result;
use abi::stat::SYSFS_MAGIC;

use super::synthetic::{Context, Entry, Node, Read};
use crate::Kernel;
use crate::vfs::{FileSystem, FsStatus, Inode, Io};

/// The machine.
#[derive(Clone)]
struct Machine(Arc<Kernel>);

impl Context for Machine {
    const FILE_SIZE: u64 = 4096;
    const BLOCK_SIZE: u32 = 4096;
}

static ROOT: Entry<Machine> = Entry::dir(
    "",
    &[
        Entry::dir("block", &[]),
        Entry::dir("bus", &[]),
        Entry::dir("class", &[]),
        Entry::dir(
            "devices",
            &[Entry::dir("system", &[Entry::dir("cpu", &[Entry::text("online", &Read(cpus))])])],
        ),
        Entry::dir("firmware", &[]),
        Entry::dir("fs", &[Entry::dir("cgroup", &[])]),
        Entry::dir("kernel", &[]),
        Entry::dir("module", &[]),
        Entry::dir("power", &[]),
    ],
);

fn cpus(machine: &Machine, _io: &Io<'_>) -> Result<Vec<u8>> {
    let last = machine.0.cpus - 1;
    Ok(if last == 0 { "0\n".to_string() } else { format!("0-{last}\n") }.into_bytes())
}

/// A sysfs.
pub struct SysFs {
    root: Arc<Node<Machine>>,
}

/// A sysfs that shows the sandbox's machine.
pub fn new(kernel: &Arc<Kernel>) -> Arc<SysFs> {
    Arc::new(SysFs { root: Node::new(Machine(kernel.clone()), &ROOT, 1) })
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
