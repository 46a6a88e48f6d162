//! Inotify (fs/notify): watches on inodes, and the events that operations report.

use super::file::File;

/// The watches on the inodes of a superblock.
#[derive(Default)]
pub struct WatchTable {}

/// Reports IN_CLOSE_WRITE or IN_CLOSE_NOWRITE.
pub(super) fn file_closed(_file: &File) {}

use super::dentry::Dentry;
use super::walk::Path;

/// IN_CREATE.
pub fn created(_dir: &Dentry, _name: &[u8]) {}

/// IN_DELETE, and IN_DELETE_SELF with the last link.
pub fn deleted(_dir: &Dentry, _name: &[u8], _child: &Dentry) {}

/// IN_MOVED_FROM, IN_MOVED_TO and IN_MOVE_SELF; `replaced` is what had the new name.
pub fn moved(
    _from: &Dentry,
    _name: &[u8],
    _to: &Dentry,
    _to_name: &[u8],
    _child: &Dentry,
    _replaced: Option<&Dentry>,
) {
}

/// IN_MODIFY.
pub fn modified(_path: &Path) {}

/// IN_ACCESS.
pub fn accessed(_path: &Path) {}

/// IN_OPEN.
pub fn opened(_path: &Path) {}

/// IN_ATTRIB.
pub fn attrib(_path: &Path) {}
