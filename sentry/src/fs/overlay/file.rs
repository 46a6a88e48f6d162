//! Files of a lower layer, open for reading.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};

use super::inode::OverlayInode;
use crate::task::CurrentTask;
use crate::vfs::{File, FileOps, Io, Mappable, Path, Sink};

/// A file opened for reading while it was not in the upper layer. When it is copied up, reads go there (since Linux
/// 4.19); mappings stay what they are.
pub struct OverlayFile {
    inode: Arc<OverlayInode>,
    path: Path,
    flags: OpenFlags,
    lower: Arc<dyn FileOps>,
    upper: OnceLock<Arc<dyn FileOps>>,
}

impl OverlayFile {
    pub(super) fn new(
        inode: Arc<OverlayInode>,
        io: &Io<'_>,
        path: &Path,
        flags: OpenFlags,
    ) -> Result<OverlayFile> {
        let lower = inode.lowers().first().ok_or(Errno::EIO)?.inode.open(io, path, flags)?;
        Ok(OverlayFile { inode, path: path.clone(), flags, lower, upper: OnceLock::new() })
    }

    fn real(&self) -> Result<&Arc<dyn FileOps>> {
        let Some(inode) = self.inode.in_upper() else { return Ok(&self.lower) };
        if let Some(ops) = self.upper.get() {
            return Ok(ops);
        }
        let ops = inode.open(&Io::default(), &self.path, self.flags)?;
        Ok(self.upper.get_or_init(|| ops))
    }
}

impl FileOps for OverlayFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        self.lower.seekable()
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        self.real()?.read(io, dst, offset)
    }

    fn poll(&self, io: &Io<'_>) -> PollEvents {
        self.lower.poll(io)
    }

    fn seek(&self, whence: u32, offset: i64) -> Result<u64> {
        self.real()?.seek(whence, offset)
    }

    fn ioctl(&self, task: &CurrentTask, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        self.real()?.ioctl(task, file, request, arg)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        self.real()?.mappable()
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        match self.inode.in_upper() {
            Some(_) => self.real()?.sync(data_only),
            // Nothing was written.
            None => Ok(()),
        }
    }

    fn flush(&self, io: &Io<'_>) -> Result<()> {
        self.lower.flush(io)
    }

    fn flags_changed(&self, flags: OpenFlags) {
        self.lower.flags_changed(flags);
        if let Some(upper) = self.upper.get() {
            upper.flags_changed(flags);
        }
    }
}
