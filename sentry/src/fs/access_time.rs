//! When an open file updates the time of last access (touch_atime(), relatime_need_update()).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::fcntl::OpenFlags;
use abi::time::Timespec;

use crate::vfs::{Mount, MountFlags, Path};

const DAY: i64 = 24 * 60 * 60;

/// What an open file needs to know of its mount and flags.
pub struct AccessTime {
    mount: Arc<Mount>,
    noatime: AtomicBool,
    directory: bool,
}

impl AccessTime {
    /// Of a file opened at `path` with `flags`.
    pub fn new(path: &Path, flags: OpenFlags) -> AccessTime {
        AccessTime {
            mount: path.mount().clone(),
            noatime: flags.contains(OpenFlags::O_NOATIME).into(),
            directory: path.dentry().is_dir(),
        }
    }

    /// F_SETFL.
    pub fn flags_changed(&self, flags: OpenFlags) {
        self.noatime.store(flags.contains(OpenFlags::O_NOATIME), Ordering::Relaxed);
    }

    /// Whether an access at `now` is to be noted, given the time stamps so far.
    pub fn is_due(&self, atime: Timespec, mtime: Timespec, ctime: Timespec, now: Timespec) -> bool {
        let flags = self.mount.flags();
        if self.noatime.load(Ordering::Relaxed)
            || flags.intersects(MountFlags::RDONLY | MountFlags::NOATIME)
            || (self.directory && flags.contains(MountFlags::NODIRATIME))
        {
            return false;
        }
        let key = |t: Timespec| (t.tv_sec, t.tv_nsec);
        !flags.contains(MountFlags::RELATIME)
            || key(mtime) >= key(atime)
            || key(ctime) >= key(atime)
            || now.tv_sec.saturating_sub(atime.tv_sec) >= DAY
    }
}
