//! Permission checks that are the same for every filesystem (fs/namei.c, fs/attr.c).

use abi::capability::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID};
use abi::stat::{FileType, S_ISGID, S_ISVTX};
use abi::{Errno, Result};

use super::inode::{Attributes, Inode};
use super::mount::{Mount, MountFlags};
use crate::task::Credentials;

/// Execute or search.
pub const EXEC: u32 = 1;
/// Write.
pub const WRITE: u32 = 2;
/// Read.
pub const READ: u32 = 4;

/// generic_permission(): mode bits, then CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
pub fn generic(creds: &Credentials, attributes: &Attributes, mask: u32) -> Result<()> {
    let mode = attributes.mode;
    let granted = if creds.fsuid == attributes.uid {
        mode >> 6
    } else if creds.in_group(attributes.gid) {
        mode >> 3
    } else {
        mode
    };
    if mask & !granted & 7 == 0 {
        return Ok(());
    }
    let directory = attributes.file_type() == FileType::Directory;
    if directory || mask & EXEC == 0 || mode & 0o111 != 0 {
        if creds.capable_over(attributes, CAP_DAC_OVERRIDE) {
            return Ok(());
        }
        let read_only = mask & WRITE == 0 && (directory || mask & EXEC == 0);
        if read_only && creds.capable_over(attributes, CAP_DAC_READ_SEARCH) {
            return Ok(());
        }
    }
    Err(Errno::EACCES)
}

/// inode_permission() with the mount taken into account: EROFS before EACCES.
pub fn check(creds: &Credentials, mount: &Mount, inode: &dyn Inode, mask: u32) -> Result<()> {
    if mask & WRITE != 0 {
        let on_disk =
            matches!(inode.file_type(), FileType::Regular | FileType::Directory | FileType::Symlink);
        if on_disk && mount.is_read_only() {
            return Err(Errno::EROFS);
        }
    }
    inode.permission(creds, mask)
}

/// May `creds` act as the owner of the inode (inode_owner_or_capable)?
pub fn is_owner(creds: &Credentials, attributes: &Attributes) -> bool {
    creds.fsuid == attributes.uid || creds.capable_over(attributes, CAP_FOWNER)
}

/// may_delete(): write and search permission on the directory are checked by the caller; here the sticky bit.
pub fn check_sticky(creds: &Credentials, dir: &Attributes, target: &Attributes) -> Result<()> {
    if dir.mode & S_ISVTX == 0 || creds.fsuid == target.uid || creds.fsuid == dir.uid {
        return Ok(());
    }
    if creds.capable_over(target, CAP_FOWNER) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Execution: a regular file, on a mount without noexec, with an x bit that applies.
pub fn check_exec(creds: &Credentials, mount: &Mount, inode: &dyn Inode) -> Result<()> {
    if inode.file_type() != FileType::Regular || mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    inode.permission(creds, EXEC)
}

/// The mode and group of a new inode in a directory: setgid directories pass on their group (inode_init_owner).
pub fn new_inode_owner(creds: &Credentials, dir: &Attributes, mode: u32, is_dir: bool) -> (u32, u32, u32) {
    if dir.mode & S_ISGID == 0 {
        return (mode, creds.fsuid, creds.fsgid);
    }
    let mut mode = mode;
    if is_dir {
        mode |= S_ISGID;
    } else if mode & (S_ISGID | 0o010) == S_ISGID | 0o010
        && !creds.in_group(dir.gid)
        && !creds.capable(CAP_FSETID)
    {
        mode &= !S_ISGID;
    }
    (mode, creds.fsuid, dir.gid)
}
