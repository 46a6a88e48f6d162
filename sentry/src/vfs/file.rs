//! Open file descriptions.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::{Mutex, MutexGuard};

use super::fasync::{DirectoryNotification, Fasync, Owner};
use super::fd_table::Fd;
use super::walk::Path;
use super::{DirSink, Io, Mappable, Sink, Source};
use crate::task::CurrentTask;
use crate::wait::{Registration, WaitQueue};

/// What a file type implements for each open. No method blocks for other guests: what would block is EAGAIN, and the
/// caller waits on [`FileOps::wait_queue`] for POLLIN or POLLOUT and tries again (unless the file is non-blocking).
#[allow(unused_variables, reason = "the defaults refuse")]
pub trait FileOps: Send + Sync + Any {
    /// For downcasts: `file.ops::<Pipe>()`.
    fn as_any(&self) -> &dyn Any;

    /// True for files with an offset (regular files, directories, most of proc). Streams ignore `offset` arguments,
    /// and pread(2) and lseek(2) on them are ESPIPE.
    fn seekable(&self) -> bool {
        false
    }

    /// True for devices whose lseek(2) does nothing and says 0 (null_lseek, noop_llseek).
    fn ignores_seeks(&self) -> bool {
        false
    }

    /// Reads at `offset`. 0 is the end of the file.
    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// read(2) of a stream by `task`, for files that wait by rules of their own (terminals: VMIN and VTIME). `None`:
    /// there are none, and the caller waits for [`FileOps::read`].
    fn read_by(&self, task: &CurrentTask, io: &Io<'_>, dst: &mut dyn Sink) -> Option<Result<usize>> {
        None
    }

    /// Writes at `offset`; with `io.append` at the end. Returns the bytes written; `offset` becomes the place written
    /// to, which the caller moves on by the count.
    fn write(&self, io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// True if write(2) goes on after a partial write until everything is written (pipes, stream sockets).
    fn writes_all(&self) -> bool {
        true
    }

    /// What can be done now without blocking. Files that never block are always ready.
    fn poll(&self, io: &Io<'_>) -> PollEvents {
        PollEvents::POLLIN | PollEvents::POLLOUT | PollEvents::POLLRDNORM | PollEvents::POLLWRNORM
    }

    /// Where changes of [`FileOps::poll`] are announced; `None` for files that are always ready (epoll refuses them
    /// with EPERM).
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// lseek(2) for whences other than SEEK_SET and SEEK_CUR: SEEK_END, SEEK_DATA, SEEK_HOLE. Returns the offset.
    fn seek(&self, whence: u32, offset: i64) -> Result<u64> {
        Err(Errno::EINVAL)
    }

    /// Lists a directory from `offset` (0 is the start, others come from the sink's `next`). `.` and `..` included.
    /// Returns the offset to go on from.
    fn read_dir(&self, io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        Err(Errno::ENOTDIR)
    }

    /// ioctl(2). ENOTTY for what it does not know.
    fn ioctl(&self, task: &CurrentTask, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// Pages for mmap(2). ENODEV if it has none.
    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// True if mappings of it are memory without a file (`/dev/zero`).
    fn maps_anonymous(&self) -> bool {
        false
    }

    /// fsync(2), fdatasync(2).
    fn sync(&self, data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// ftruncate(2) by way of the open file, also when the inode has no name left. EINVAL for what has no length.
    fn truncate(&self, size: u64) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// fallocate(2). EINTR if the process is killed, where it takes long.
    fn allocate(&self, io: &Io<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// close(2) of one descriptor (not of the last): what `flush` is in Linux.
    fn flush(&self, io: &Io<'_>) -> Result<()> {
        Ok(())
    }

    /// True for files that signal what happens to those who ask for it by O_ASYNC.
    fn signals(&self) -> bool {
        false
    }

    /// The flags of F_SETFL changed.
    fn flags_changed(&self, flags: OpenFlags) {}

    /// open(2) by `task` has succeeded.
    fn opened(&self, task: &CurrentTask) {}

    /// The extra lines of `/proc/PID/fdinfo/N`.
    fn fdinfo(&self) -> String {
        String::new()
    }

    /// What `/proc/PID/fd/N` shows for a file without a path (`pipe:[1]`).
    fn anonymous_name(&self) -> String {
        "anon_inode:[file]".to_string()
    }
}

/// An open file description: what descriptors of one or several processes share.
pub struct File {
    ops: Arc<dyn FileOps>,
    path: Path,
    flags: AtomicU32,
    position: Mutex<u64>,
    owner: Arc<Mutex<Owner>>,
    /// O_ASYNC: a place in the wait queue.
    asynchronous: Mutex<Option<Registration>>,
    /// F_NOTIFY.
    directory_notification: Mutex<Option<DirectoryNotification>>,
    /// What the file is counted for in its superblock: 1 for writing, -1 for execution.
    counted: i64,
    /// A number unique among the open file descriptions of the sandbox, for OFD locks and epoll.
    id: u64,
    /// The open that this file comes from has also made the inode (F_CREATED_QUERY).
    created: AtomicBool,
}

impl File {
    /// An open file. `path` is where it was found (an entry of the internal anonymous mount for pipes and the like).
    pub fn new(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Arc<File> {
        File::make(ops, path, flags, 0)
    }

    /// A file that was opened by its name: while it is open for writing, nobody can execute it. ETXTBSY if somebody
    /// does.
    pub fn opened(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Result<Arc<File>> {
        let counts = flags.writable() && path.inode().file_type() == abi::stat::FileType::Regular;
        if counts {
            path.dentry().superblock().begin_write(path.inode().ino())?;
        }
        Ok(File::make(ops, path, flags, i64::from(counts)))
    }

    /// A program that is open for execution: nobody can open it for writing meanwhile. ETXTBSY if somebody has.
    pub fn executable(ops: Arc<dyn FileOps>, path: Path) -> Result<Arc<File>> {
        path.dentry().superblock().begin_execution(path.inode().ino())?;
        Ok(File::make(ops, path, OpenFlags::empty(), -1))
    }

    fn make(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags, counted: i64) -> Arc<File> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        path.mount().file_opened(flags);
        Arc::new(File {
            ops,
            path,
            counted,
            flags: AtomicU32::new((flags - OpenFlags::OPENING).bits()),
            position: Mutex::new(0),
            owner: Arc::default(),
            asynchronous: Mutex::default(),
            directory_notification: Mutex::default(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            created: AtomicBool::new(false),
        })
    }

    /// The open that this file comes from has also made the inode.
    pub fn set_created(&self) {
        self.created.store(true, Ordering::Relaxed);
    }

    /// See [`File::set_created`].
    pub fn created(&self) -> bool {
        self.created.load(Ordering::Relaxed)
    }

    /// The implementation, if it is a `T`.
    pub fn ops<T: FileOps>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// The implementation.
    pub fn operations(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`File::id`]'s field.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Access mode and status flags.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// F_SETFL: replaces the flags that may change.
    pub fn set_flags(&self, flags: OpenFlags) {
        let settable = OpenFlags::O_APPEND
            | OpenFlags::O_NONBLOCK
            | OpenFlags::O_DIRECT
            | OpenFlags::O_NOATIME
            | OpenFlags::FASYNC;
        let new = (self.flags() - settable) | (flags & settable);
        self.flags.store(new.bits(), Ordering::Relaxed);
        self.ops.flags_changed(new);
    }

    /// F_SETFL by way of descriptor `fd`: as [`File::set_flags`]; O_ASYNC takes effect where the file knows it.
    pub fn set_flags_by(&self, fd: Fd, flags: OpenFlags) {
        let (old, new) = (self.flags().contains(OpenFlags::FASYNC), flags.contains(OpenFlags::FASYNC));
        if old != new && self.ops.signals() {
            let mut mask = PollEvents::empty();
            if self.flags().readable() {
                mask |= PollEvents::POLLIN | PollEvents::POLLPRI;
            }
            if self.flags().writable() {
                mask |= PollEvents::POLLOUT;
            }
            let register =
                |queue: &WaitQueue| queue.register(mask, Arc::new(Fasync { owner: self.owner.clone(), fd }));
            let place = if new { self.ops.wait_queue().map(register) } else { None };
            *self.asynchronous.lock() = place;
        }
        self.set_flags(flags);
    }

    /// F_NOTIFY by way of descriptor `fd` of a directory: `DN_*`, 0 for no more.
    pub fn set_directory_notification(&self, fd: Fd, events: u32) {
        let mut notification = self.directory_notification.lock();
        let old = notification.take();
        if events & !abi::fcntl::DN_MULTISHOT != 0 {
            let dentry = self.path.dentry();
            *notification = Some(DirectoryNotification::new(dentry, self.owner.clone(), fd, events, old));
        }
    }

    /// True if O_NONBLOCK is set.
    pub fn nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::O_NONBLOCK)
    }

    /// The file offset, locked for the time of an operation (as f_pos_lock).
    pub fn position(&self) -> MutexGuard<'_, u64> {
        self.position.lock()
    }

    /// F_SETOWN's data.
    pub fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock()
    }

    /// EBADF unless open for reading.
    pub fn check_readable(&self) -> Result<()> {
        let flags = self.flags();
        if flags.readable() && !flags.contains(OpenFlags::O_PATH) { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// EBADF unless open for writing.
    pub fn check_writable(&self) -> Result<()> {
        let flags = self.flags();
        if flags.writable() && !flags.contains(OpenFlags::O_PATH) { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// The circumstances that the status flags imply.
    pub fn io<'a>(&self, task: Option<&'a crate::task::Task>) -> Io<'a> {
        let flags = self.flags();
        Io {
            task,
            nonblocking: flags.contains(OpenFlags::O_NONBLOCK),
            append: flags.contains(OpenFlags::O_APPEND),
            direct: flags.contains(OpenFlags::O_DIRECT),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        super::locks::file_closed(self);
        super::notify::file_closed(self);
        if self.counted != 0 {
            self.path.dentry().superblock().end_use(self.path.inode().ino(), -self.counted);
        }
        self.path.mount().file_closed(self.flags());
    }
}

/// What O_PATH gives: a place, and no operations.
pub struct PathOnly;

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn write(&self, _io: &Io<'_>, _src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn read_dir(&self, _io: &Io<'_>, _offset: u64, _sink: &mut dyn DirSink) -> Result<u64> {
        Err(Errno::EBADF)
    }
}
