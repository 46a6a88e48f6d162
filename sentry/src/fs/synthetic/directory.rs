//! Open directories.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::{Context, Kind, Node, child_ino};
use crate::vfs::{Dentry, DirSink, FileOps, Inode, Io, Path, Sink};

/// An open directory. Positions: 0 and 1 are `.` and `..`, then come the table's entries, then the children.
pub struct Directory<C> {
    dentry: Arc<Dentry>,
    context: PhantomData<fn() -> C>,
}

impl<C: Context> Directory<C> {
    pub fn new(path: &Path) -> Directory<C> {
        Directory { dentry: path.dentry().clone(), context: PhantomData }
    }
}

impl<C: Context> FileOps for Directory<C> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn read_dir(&self, io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let node = self.dentry.inode_as::<Node<C>>().ok_or(Errno::EIO)?;
        let Kind::Directory(entries, children) = &node.entry.kind else { return Err(Errno::ENOTDIR) };
        node.context.access(node.entry)?;
        let parent = self.dentry.parent().map_or(node.ino(), |parent| parent.inode().ino());
        let dots = [(&b"."[..], node.ino(), FileType::Directory), (b"..", parent, FileType::Directory)];
        let table = entries.iter().map(|e| {
            let name = e.name.as_bytes();
            (name, child_ino(node.ino(), name, 0), e.file_type())
        });
        let mut at = offset;
        for (position, (name, ino, file_type)) in dots.into_iter().chain(table).enumerate() {
            let position = position as u64;
            if position >= offset {
                if !sink.entry(position + 1, ino, file_type, name) {
                    return Ok(at);
                }
                at = position + 1;
            }
        }
        let Some(children) = children else { return Ok(at) };
        let first = entries.len() as u64 + 2;
        let from = at.saturating_sub(first);
        (children.list)(&node.context, node.ino(), io, from, &mut |position, name, ino, file_type| {
            let next = first.saturating_add(position).saturating_add(1);
            let taken = sink.entry(next, ino, file_type, name);
            if taken {
                at = next;
            }
            taken
        })?;
        Ok(at)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
}
