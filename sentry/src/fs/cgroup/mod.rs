//! cgroup2: the unified hierarchy, as far as it is shown (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).

use std::sync::Arc;

use abi::Result;
use abi::stat::CGROUP2_SUPER_MAGIC;

use super::synthetic::{Context, Entry, Node, Read};
use crate::Kernel;
use crate::vfs::{FileSystem, FsStatus, Inode};

#[derive(Clone)]
struct Group(Arc<Kernel>);

impl Context for Group {
    const BLOCK_SIZE: u32 = 4096;
}

static ROOT: Entry<Group> = Entry::dir(
    "",
    &[
        Entry::text("cgroup.controllers", &Read(|_, _| Ok(b"cpuset cpu memory pids\n".to_vec()))),
        Entry::text(
            "pids.max",
            &Read(|group: &Group, _| Ok(format!("{}\n", group.0.threads_max).into_bytes())),
        ),
    ],
);

/// A cgroup2 filesystem.
pub struct CgroupFs {
    root: Arc<Node<Group>>,
}

/// The hierarchy of the sandbox.
pub fn new(kernel: &Arc<Kernel>) -> Arc<CgroupFs> {
    Arc::new(CgroupFs { root: Node::new(Group(kernel.clone()), &ROOT, 1) })
}

impl FileSystem for CgroupFs {
    fn name(&self) -> &'static str {
        "cgroup2"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: CGROUP2_SUPER_MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

/// The cgroup of a process as `/proc/PID/cgroup` shows it.
pub fn path_of(_kernel: &Kernel, _group: &crate::task::ThreadGroup) -> Vec<u8> {
    b"/".to_vec()
}
