//! The nodes of `/dev`.

use std::sync::Arc;

use abi::stat::makedev;
use abi::{Errno, Result};

use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
use crate::vfs::{Dentry, FileSystem, Inode, NewInode, NewKind};

/// Character devices that every container has, with their numbers.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Makes the devices and links that every container has (runtime-spec, "Default Devices") in the directory `dev`. Names
/// that are taken stay what they are.
pub fn populate(dev: &Arc<Dentry>) -> Result<()> {
    let node = |kind, mode| NewInode { kind, mode, uid: 0, gid: 0 };
    for &(name, major, minor) in DEVICES {
        make(dev, name, &node(NewKind::CharDevice(makedev(major, minor)), 0o666))?;
    }
    for &(name, target) in LINKS {
        make(dev, name, &node(NewKind::Symlink(target.into()), 0o777))?;
    }
    Ok(())
}

fn make(dir: &Arc<Dentry>, name: &str, new: &NewInode) -> Result<()> {
    let mut children = dir.lock();
    match dir.lookup_locked(&mut children, name.as_bytes()) {
        Err(Errno::ENOENT) => {
            let inode = dir.inode().create(name.as_bytes(), new)?;
            let dentry = dir.insert(&mut children, name.as_bytes(), inode);
            drop(children);
            dentry.keep();
            Ok(())
        }
        result => result.map(drop),
    }
}

/// A filesystem, in a sandbox with `memory` bytes, with the nodes of `/dev`, and directories to mount `pts`, `shm` and `mqueue` on (devtmpfs).
pub fn new(memory: u64) -> Result<Arc<dyn FileSystem>> {
    let mut options = TmpfsOptions::new(memory);
    options.mode = 0o755;
    let fs = Tmpfs::new(&options);
    let root = crate::vfs::SuperBlock::make(fs.clone());
    populate(&root)?;
    for (name, mode) in [("mqueue", 0o755), ("pts", 0o755), ("shm", 0o1777)] {
        let new = NewInode { kind: NewKind::Directory, mode, uid: 0, gid: 0 };
        fs.root_inode().create(name.as_bytes(), &new)?;
    }
    Ok(fs)
}
