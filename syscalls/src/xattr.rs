//! Extended attributes (fs/xattr.c), and the attributes of fs/file_attr.c, which no filesystem here has.

use abi::fcntl::AtFlags;
use abi::stat::{FileAttr, FileType, XattrArgs};
use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::vfs::{Path, WalkFlags, permission};

use crate::arguments::{Address, UserCStr, UserPtr};
use crate::files::{AT_FDCWD, EMPTY_OR_NOFOLLOW, at_flags, read_extensible, resolve_at, resolve_flags};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SETXATTR => setxattr;
    LSETXATTR => lsetxattr;
    FSETXATTR => fsetxattr;
    GETXATTR => getxattr;
    LGETXATTR => lgetxattr;
    FGETXATTR => fgetxattr;
    LISTXATTR => listxattr;
    LLISTXATTR => llistxattr;
    FLISTXATTR => flistxattr;
    REMOVEXATTR => removexattr;
    LREMOVEXATTR => lremovexattr;
    FREMOVEXATTR => fremovexattr;
    SETXATTRAT => setxattrat;
    GETXATTRAT => getxattrat;
    LISTXATTRAT => listxattrat;
    REMOVEXATTRAT => removexattrat;
    FILE_GETATTR => file_attr, Partial, "EOPNOTSUPP: no filesystem here has such attributes";
    FILE_SETATTR => file_attr, Partial, "EOPNOTSUPP: no filesystem here has such attributes";
};

const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65536;

fn xattr_name(task: &CurrentTask, name: UserCStr) -> Result<Vec<u8>> {
    let name = name.read(task, XATTR_NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// xattr_permission(): who may touch which namespace.
fn check_xattr(task: &CurrentTask, place: &Path, name: &[u8], write: bool) -> Result<()> {
    let inode = place.inode();
    let creds = task.credentials();
    if write && place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    if name.starts_with(b"trusted.") {
        let capable = creds.capable_in(&task.kernel().user_ns, abi::capability::CAP_SYS_ADMIN);
        return if capable { Ok(()) } else { Err(if write { Errno::EPERM } else { Errno::ENODATA }) };
    }
    if name.starts_with(b"security.") {
        let allowed = !write || creds.capable(abi::capability::CAP_SETFCAP);
        return if allowed { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"user.") {
        if !matches!(inode.file_type(), FileType::Regular | FileType::Directory) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return inode.permission(&creds, if write { permission::WRITE } else { permission::READ });
    }
    Err(Errno::EOPNOTSUPP)
}

fn do_setxattr(
    task: &CurrentTask,
    place: &Path,
    name: UserCStr,
    value: Address,
    size: usize,
    flags: u32,
) -> Result<()> {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    let name = xattr_name(task, name)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut data = vec![0; size];
    task.mm().read_bytes(value.0, &mut data)?;
    check_xattr(task, place, &name, true)?;
    place.inode().set_xattr(&name, &data, flags & 1 != 0, flags & 2 != 0)?;
    sentry::vfs::notify::attrib(place);
    Ok(())
}

fn do_getxattr(
    task: &CurrentTask,
    place: &Path,
    name: UserCStr,
    value: Address,
    size: usize,
) -> Result<usize> {
    let name = xattr_name(task, name)?;
    check_xattr(task, place, &name, false)?;
    let data = place.inode().xattr(&name)?;
    if size == 0 {
        return Ok(data.len());
    }
    if data.len() > size {
        return Err(Errno::ERANGE);
    }
    task.mm().write_result(value.0, &data)?;
    Ok(data.len())
}

fn do_listxattr(task: &CurrentTask, place: &Path, list: Address, size: usize) -> Result<usize> {
    let trusted = task.credentials().capable_in(&task.kernel().user_ns, abi::capability::CAP_SYS_ADMIN);
    let mut names = Vec::new();
    for name in place.inode().xattr_names()? {
        if trusted || !name.starts_with(b"trusted.") {
            names.extend_from_slice(&name);
            names.push(0);
        }
    }
    if size == 0 {
        return Ok(names.len());
    }
    if names.len() > size {
        return Err(Errno::ERANGE);
    }
    task.mm().write_result(list.0, &names)?;
    Ok(names.len())
}

fn do_removexattr(task: &CurrentTask, place: &Path, name: UserCStr) -> Result<()> {
    let name = xattr_name(task, name)?;
    check_xattr(task, place, &name, true)?;
    place.inode().remove_xattr(&name)?;
    sentry::vfs::notify::attrib(place);
    Ok(())
}

fn followed(task: &CurrentTask, path: UserCStr) -> Result<Path> {
    resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)
}

fn unfollowed(task: &CurrentTask, path: UserCStr) -> Result<Path> {
    resolve_at(task, AT_FDCWD, path, WalkFlags::empty())
}

fn setxattr(
    task: &CurrentTask,
    path: UserCStr,
    name: UserCStr,
    value: Address,
    size: usize,
    flags: u32,
) -> Result<()> {
    do_setxattr(task, &followed(task, path)?, name, value, size, flags)
}

fn lsetxattr(
    task: &CurrentTask,
    path: UserCStr,
    name: UserCStr,
    value: Address,
    size: usize,
    flags: u32,
) -> Result<()> {
    do_setxattr(task, &unfollowed(task, path)?, name, value, size, flags)
}

fn fsetxattr(
    task: &CurrentTask,
    fd: i32,
    name: UserCStr,
    value: Address,
    size: usize,
    flags: u32,
) -> Result<()> {
    do_setxattr(task, task.real_file(fd)?.path(), name, value, size, flags)
}

fn getxattr(
    task: &CurrentTask,
    path: UserCStr,
    name: UserCStr,
    value: Address,
    size: usize,
) -> Result<usize> {
    do_getxattr(task, &followed(task, path)?, name, value, size)
}

fn lgetxattr(
    task: &CurrentTask,
    path: UserCStr,
    name: UserCStr,
    value: Address,
    size: usize,
) -> Result<usize> {
    do_getxattr(task, &unfollowed(task, path)?, name, value, size)
}

fn fgetxattr(task: &CurrentTask, fd: i32, name: UserCStr, value: Address, size: usize) -> Result<usize> {
    do_getxattr(task, task.real_file(fd)?.path(), name, value, size)
}

fn listxattr(task: &CurrentTask, path: UserCStr, list: Address, size: usize) -> Result<usize> {
    do_listxattr(task, &followed(task, path)?, list, size)
}

fn llistxattr(task: &CurrentTask, path: UserCStr, list: Address, size: usize) -> Result<usize> {
    do_listxattr(task, &unfollowed(task, path)?, list, size)
}

fn flistxattr(task: &CurrentTask, fd: i32, list: Address, size: usize) -> Result<usize> {
    do_listxattr(task, task.real_file(fd)?.path(), list, size)
}

fn removexattr(task: &CurrentTask, path: UserCStr, name: UserCStr) -> Result<()> {
    do_removexattr(task, &followed(task, path)?, name)
}

fn lremovexattr(task: &CurrentTask, path: UserCStr, name: UserCStr) -> Result<()> {
    do_removexattr(task, &unfollowed(task, path)?, name)
}

fn fremovexattr(task: &CurrentTask, fd: i32, name: UserCStr) -> Result<()> {
    do_removexattr(task, task.real_file(fd)?.path(), name)
}

/// What a call of the `*at` family means; a descriptor without a path must not be one of O_PATH.
fn place_at(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<Path> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW)?;
    let empty = flags.contains(AtFlags::AT_EMPTY_PATH) && (path.is_null() || path.path(task)?.is_empty());
    if empty && dirfd != AT_FDCWD {
        return Ok(task.real_file(dirfd)?.path().clone());
    }
    resolve_flags(task, dirfd, path, flags)
}

fn xattr_args(task: &CurrentTask, args: Address, size: usize) -> Result<XattrArgs> {
    read_extensible(task, args.0, size, size_of::<XattrArgs>())
}

fn setxattrat(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    at: u32,
    name: UserCStr,
    args: Address,
    size: usize,
) -> Result<()> {
    let args = xattr_args(task, args, size)?;
    let place = place_at(task, dirfd, path, at)?;
    do_setxattr(task, &place, name, Address(args.value), args.size as usize, args.flags)
}

fn getxattrat(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    at: u32,
    name: UserCStr,
    args: Address,
    size: usize,
) -> Result<usize> {
    let args = xattr_args(task, args, size)?;
    if args.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let place = place_at(task, dirfd, path, at)?;
    do_getxattr(task, &place, name, Address(args.value), args.size as usize)
}

fn listxattrat(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    at: u32,
    list: Address,
    size: usize,
) -> Result<usize> {
    do_listxattr(task, &place_at(task, dirfd, path, at)?, list, size)
}

fn removexattrat(task: &CurrentTask, dirfd: i32, path: UserCStr, at: u32, name: UserCStr) -> Result<()> {
    do_removexattr(task, &place_at(task, dirfd, path, at)?, name)
}

fn file_attr(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    attr: UserPtr<FileAttr>,
    size: usize,
    flags: u32,
) -> Result<()> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW)?;
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < size_of::<FileAttr>() || attr.is_null() {
        return Err(Errno::EINVAL);
    }
    resolve_flags(task, dirfd, path, flags)?;
    Err(Errno::EOPNOTSUPP)
}
