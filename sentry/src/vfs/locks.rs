//! File locks: flock(2), POSIX record locks and open file description locks (fs/locks.c).

use super::file::File;

/// The locks on the inodes of a superblock.
#[derive(Default)]
pub struct LockTable {}

/// The last descriptor of an open file description is gone: its flock and OFD locks go too.
pub(super) fn file_closed(_file: &File) {}

/// A process closed a descriptor: its POSIX locks on the inode go.
pub(super) fn descriptor_closed(_task: &crate::task::CurrentTask, _file: &std::sync::Arc<File>) {}
