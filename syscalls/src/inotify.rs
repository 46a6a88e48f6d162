//! Watching for changes of files (fs/notify/inotify/inotify_user.c).

use abi::fcntl::OpenFlags;
use abi::inotify::InotifyMask as Mask;
use abi::{Errno, Result};
use sentry::fs::inotify::{Account, Inotify, InotifyFile};
use sentry::task::CurrentTask;
use sentry::vfs::notify;
use sentry::vfs::{WalkFlags, permission};

use crate::arguments::UserCStr;
use crate::files::{AT_FDCWD, resolve_at};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    INOTIFY_INIT => inotify_init;
    INOTIFY_INIT1 => inotify_init1;
    INOTIFY_ADD_WATCH => inotify_add_watch;
    INOTIFY_RM_WATCH => inotify_rm_watch;
};

fn inotify_init(task: &CurrentTask) -> Result<i32> {
    inotify_init1(task, 0)
}

fn inotify_init1(task: &CurrentTask, flags: u32) -> Result<i32> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::O_CLOEXEC - OpenFlags::O_NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let ops = std::sync::Arc::new(InotifyFile(Inotify::new(Some(Account::new(task)?))));
    let file = task.kernel().anonymous.file(ops, flags & OpenFlags::O_NONBLOCK);
    task.install(file, flags.contains(OpenFlags::O_CLOEXEC))
}

fn inotify_add_watch(task: &CurrentTask, fd: i32, path: UserCStr, mask: u32) -> Result<i32> {
    let mask = notify::check_mask(mask)?;
    let file = task.real_file(fd)?;
    let instance = file.ops::<InotifyFile>().ok_or(Errno::EINVAL)?;
    let mut walk = WalkFlags::FOLLOW;
    if mask.contains(Mask::IN_DONT_FOLLOW) {
        walk -= WalkFlags::FOLLOW;
    }
    if mask.contains(Mask::IN_ONLYDIR) {
        walk |= WalkFlags::DIRECTORY;
    }
    let place = resolve_at(task, AT_FDCWD, path, walk)?;
    place.inode().permission(&task.credentials(), permission::READ)?;
    instance.0.add_watch(place.dentry(), mask)
}

fn inotify_rm_watch(task: &CurrentTask, fd: i32, wd: i32) -> Result<()> {
    let file = task.real_file(fd)?;
    file.ops::<InotifyFile>().ok_or(Errno::EINVAL)?.0.remove_watch(wd)
}
