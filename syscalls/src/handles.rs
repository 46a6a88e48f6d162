//! File handles (fs/fhandle.c). No filesystem here can find a file by its number.

use abi::capability::CAP_DAC_READ_SEARCH;
use abi::fcntl::AtFlags;
use abi::{Errno, Result};
use sentry::task::CurrentTask;

use crate::arguments::{UserCStr, UserPtr};
use crate::files::{AT_FDCWD, resolve_flags};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    NAME_TO_HANDLE_AT => name_to_handle_at, Missing, "EOPNOTSUPP, as on filesystems that cannot be exported";
    OPEN_BY_HANDLE_AT => open_by_handle_at, Missing, "EPERM or ESTALE: there are no handles";
};

/// MAX_HANDLE_SZ.
const HANDLE_MAX: u32 = 128;

fn name_to_handle_at(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    handle: UserPtr<u32>,
    _mount_id: UserPtr<i32>,
    flags: u32,
) -> Result<()> {
    const AT_HANDLE_FID: u32 = 0x200;
    const AT_HANDLE_MNT_ID_UNIQUE: u32 = 1;
    const AT_HANDLE_CONNECTABLE: u32 = 2;
    let follow = AtFlags::AT_SYMLINK_FOLLOW.bits();
    let empty = AtFlags::AT_EMPTY_PATH.bits();
    if flags & !(follow | empty | AT_HANDLE_FID | AT_HANDLE_MNT_ID_UNIQUE | AT_HANDLE_CONNECTABLE) != 0
        || flags & AT_HANDLE_FID != 0 && flags & AT_HANDLE_CONNECTABLE != 0
    {
        return Err(Errno::EINVAL);
    }
    let mut walk = AtFlags::from_bits_truncate(flags & empty);
    if flags & follow == 0 {
        walk |= AtFlags::AT_SYMLINK_NOFOLLOW;
    }
    resolve_flags(task, dirfd, path, walk)?;
    handle.read(task)?;
    Err(Errno::EOPNOTSUPP)
}

fn open_by_handle_at(task: &CurrentTask, mount: i32, handle: UserPtr<u32>, _flags: u32) -> Result<i32> {
    if mount != AT_FDCWD {
        task.file(mount)?;
    }
    if !task.capable(CAP_DAC_READ_SEARCH) {
        return Err(Errno::EPERM);
    }
    let size = handle.read(task)?;
    Err(if size == 0 || size > HANDLE_MAX { Errno::EINVAL } else { Errno::ESTALE })
}
