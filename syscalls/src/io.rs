//! Reading and writing open files, their offsets and lengths (fs/read_write.c, fs/sync.c, fs/open.c, mm/fadvise.c).

use std::sync::Arc;

use abi::fcntl::{self as f, FallocFlags, RwFlags};
use abi::limits::IOV_MAX;
use abi::mman::{Cachestat, CachestatRange};
use abi::poll::PollEvents;
use abi::resource::{RLIM_INFINITY, RLIMIT_FSIZE};
use abi::signal::Signal;
use abi::stat::{FileType, S_IFMT};
use abi::uio::Iovec;
use abi::{Errno, Result};
use sentry::mm::{UserSink, UserSource};
use sentry::net::socket::{receive_deadline, send_deadline};
use sentry::task::CurrentTask;
use sentry::vfs::{File, Io, Sink, Source, notify, operations};

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    READ => read;
    WRITE => write;
    READV => readv;
    WRITEV => writev;
    PREAD64 => pread64;
    PWRITE64 => pwrite64;
    PREADV => preadv;
    PWRITEV => pwritev;
    PREADV2 => preadv2;
    PWRITEV2 => pwritev2;
    LSEEK => lseek;
    FSYNC => fsync;
    FDATASYNC => fdatasync;
    SYNC => sync;
    SYNCFS => syncfs;
    SYNC_FILE_RANGE => sync_file_range;
    FTRUNCATE => ftruncate;
    FALLOCATE => fallocate;
    FADVISE64 => fadvise64;
    READAHEAD => readahead;
    CACHESTAT => cachestat, Partial, "every page of a file counts as cached, and as clean";
};

/// The most that one call moves (MAX_RW_COUNT).
pub const RW_MAX: usize = 0x7fff_f000;

/// Addresses and lengths.
pub type Segments = smallvec::SmallVec<[(u64, u64); 8]>;

/// The segments of an iovec array. EINVAL for too many or a negative length, EFAULT.
pub fn read_iovecs(task: &CurrentTask, iov: UserPtr<Iovec>, count: usize) -> Result<Segments> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut total = 0usize;
    let mut segments = smallvec::SmallVec::new();
    for entry in iov.read_slice(task, count)? {
        if (entry.iov_len as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        let len = (entry.iov_len as usize).min(RW_MAX - total);
        total += len;
        segments.push((entry.iov_base, len as u64));
    }
    Ok(segments)
}

pub(crate) fn one(addr: u64, len: usize) -> Segments {
    smallvec::smallvec![(addr, len.min(RW_MAX) as u64)]
}

/// read(2) of an open file at its offset, waiting as its flags say.
pub fn read_file(task: &CurrentTask, file: &Arc<File>, dst: &mut dyn Sink, io: &Io<'_>) -> Result<usize> {
    file.check_readable()?;
    let ops = file.operations();
    let done = if ops.seekable() {
        let mut position = file.position();
        let n = ops.read(io, dst, *position)?;
        *position += n as u64;
        n
    } else if let Some(result) = ops.read_by(task, io, dst) {
        result?
    } else {
        let deadline = if io.nonblocking { None } else { receive_deadline(task, file) };
        let read = task.block_on(file, io, PollEvents::READABLE, deadline, || ops.read(io, dst, 0));
        read.map_err(|e| crate::sockets::interrupted(e, deadline))?
    };
    notify::accessed(file.path());
    Ok(done)
}

/// write(2) of an open file at its offset: all of the source, waiting as its flags say.
pub fn write_file(task: &CurrentTask, file: &Arc<File>, src: &mut dyn Source, io: &Io<'_>) -> Result<usize> {
    file.check_writable()?;
    let ops = file.operations();
    if ops.seekable() {
        let mut position = file.position();
        let n = write_at(task, file, src, io, &mut position)?;
        *position += n as u64;
        return Ok(n);
    }
    let mut done = 0;
    loop {
        let deadline = if io.nonblocking { None } else { send_deadline(task, file) };
        let result = task.block_on(file, io, PollEvents::WRITABLE, deadline, || ops.write(io, src, &mut 0));
        match result.map_err(|e| crate::sockets::interrupted(e, deadline)) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                if src.remaining() == 0 || !ops.writes_all() {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    notify::modified(file.path());
    Ok(done)
}

/// A write at an offset, within RLIMIT_FSIZE.
pub(crate) fn write_at(
    task: &CurrentTask,
    file: &Arc<File>,
    src: &mut dyn Source,
    io: &Io<'_>,
    offset: &mut u64,
) -> Result<usize> {
    let limit = task.group.limits.current(RLIMIT_FSIZE);
    let ops = file.operations();
    let mut limited;
    let src: &mut dyn Source =
        if limit != RLIM_INFINITY && file.path().inode().file_type() == FileType::Regular {
            let at = if io.append { file.path().inode().attributes()?.size } else { *offset };
            if src.remaining() > 0 && at >= limit {
                task.group.send_kernel_signal_to_task(task, Signal::SIGXFSZ);
                return Err(Errno::EFBIG);
            }
            let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
            limited = Limited { inner: src, left: room };
            &mut limited
        } else {
            src
        };
    let n = ops.write(io, src, offset)?;
    if n > 0 {
        operations::remove_privileges(task, file.path());
        notify::modified(file.path());
    }
    Ok(n)
}

struct Limited<'a> {
    inner: &'a mut dyn Source,
    left: usize,
}

impl Source for Limited<'_> {
    fn remaining(&self) -> usize {
        self.inner.remaining().min(self.left)
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self.inner.take(buf)?;
        self.left -= n.min(self.left);
        Ok(n)
    }

    fn untake(&mut self, count: usize) {
        self.left += count;
        self.inner.untake(count);
    }
}

/// Where in a file a read or write takes place.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// At the offset of the open file, which moves along.
    Current,
    /// At an offset of its own.
    At(i64),
}

impl Place {
    /// The offset to use. ESPIPE for files without offsets, EINVAL beyond the largest one (rw_verify_area()).
    fn check(self, file: &File, count: u64) -> Result<Option<u64>> {
        let Place::At(offset) = self else { return Ok(None) };
        if offset.checked_add_unsigned(count).is_none() {
            return Err(Errno::EINVAL);
        }
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        if file.operations().seekable() { Ok(Some(offset)) } else { Err(Errno::ESPIPE) }
    }
}

fn with_flags<'a>(file: &File, task: &'a CurrentTask, flags: RwFlags) -> Io<'a> {
    let mut io = file.io(Some(task));
    io.nonblocking |= flags.contains(RwFlags::RWF_NOWAIT);
    io.append |= flags.contains(RwFlags::RWF_APPEND);
    io
}

fn total(segments: &Segments) -> u64 {
    segments.iter().map(|segment| segment.1).sum()
}

/// Reads into guest memory. The file is known to be readable.
pub(crate) fn read_segments(
    task: &CurrentTask,
    file: &Arc<File>,
    segments: Segments,
    place: Place,
    flags: RwFlags,
) -> Result<usize> {
    let offset = place.check(file, total(&segments))?;
    let io = with_flags(file, task, flags);
    let mm = task.mm();
    let mut sink = UserSink::new(&mm, segments)?;
    match offset {
        None => read_file(task, file, &mut sink, &io),
        Some(offset) => file.operations().read(&io, &mut sink, offset),
    }
}

/// Writes from guest memory. The file is known to be writable.
pub(crate) fn write_segments(
    task: &CurrentTask,
    file: &Arc<File>,
    segments: Segments,
    place: Place,
    flags: RwFlags,
) -> Result<usize> {
    let offset = place.check(file, total(&segments))?;
    let io = with_flags(file, task, flags);
    let mm = task.mm();
    let mut source = UserSource::new(&mm, segments)?;
    let done = match offset {
        None => write_file(task, file, &mut source, &io)?,
        Some(mut offset) => write_at(task, file, &mut source, &io, &mut offset)?,
    };
    if flags.intersects(RwFlags::RWF_SYNC | RwFlags::RWF_DSYNC) && file.operations().seekable() {
        file.operations().sync(!flags.contains(RwFlags::RWF_SYNC))?;
    }
    Ok(done)
}

/// The file of a read or write, checked in Linux's order.
fn file_for(task: &CurrentTask, fd: i32, place: Place, write: bool) -> Result<Arc<File>> {
    if let Place::At(..0) = place {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    place.check(&file, 0)?;
    if write {
        file.check_writable()?
    } else {
        file.check_readable()?
    }
    Ok(file)
}

fn read_vector(
    task: &CurrentTask,
    fd: i32,
    (iov, count): (UserPtr<Iovec>, usize),
    place: Place,
    flags: RwFlags,
) -> Result<usize> {
    let file = file_for(task, fd, place, false)?;
    read_segments(task, &file, read_iovecs(task, iov, count)?, place, flags)
}

fn write_vector(
    task: &CurrentTask,
    fd: i32,
    (iov, count): (UserPtr<Iovec>, usize),
    place: Place,
    flags: RwFlags,
) -> Result<usize> {
    let file = file_for(task, fd, place, true)?;
    write_segments(task, &file, read_iovecs(task, iov, count)?, place, flags)
}

fn read(task: &CurrentTask, fd: i32, buf: Address, count: usize) -> Result<usize> {
    let file = file_for(task, fd, Place::Current, false)?;
    read_segments(task, &file, one(buf.0, count), Place::Current, RwFlags::empty())
}

fn write(task: &CurrentTask, fd: i32, buf: Address, count: usize) -> Result<usize> {
    let file = file_for(task, fd, Place::Current, true)?;
    write_segments(task, &file, one(buf.0, count), Place::Current, RwFlags::empty())
}

fn pread64(task: &CurrentTask, fd: i32, buf: Address, count: usize, offset: i64) -> Result<usize> {
    let file = file_for(task, fd, Place::At(offset), false)?;
    read_segments(task, &file, one(buf.0, count), Place::At(offset), RwFlags::empty())
}

fn pwrite64(task: &CurrentTask, fd: i32, buf: Address, count: usize, offset: i64) -> Result<usize> {
    let file = file_for(task, fd, Place::At(offset), true)?;
    write_segments(task, &file, one(buf.0, count), Place::At(offset), RwFlags::empty())
}

fn readv(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize) -> Result<usize> {
    read_vector(task, fd, (iov, count), Place::Current, RwFlags::empty())
}

fn writev(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize) -> Result<usize> {
    write_vector(task, fd, (iov, count), Place::Current, RwFlags::empty())
}

// The fifth argument is the high half of the offset, of which 64 bits leave nothing (pos_from_hilo()).

fn preadv(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize, offset: i64) -> Result<usize> {
    read_vector(task, fd, (iov, count), Place::At(offset), RwFlags::empty())
}

fn pwritev(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize, offset: i64) -> Result<usize> {
    write_vector(task, fd, (iov, count), Place::At(offset), RwFlags::empty())
}

/// Place and flags of preadv2(2) and pwritev2(2).
fn place_and_flags(offset: i64, flags: u32) -> Result<(Place, RwFlags)> {
    let flags = RwFlags::from_bits(flags).ok_or(Errno::EOPNOTSUPP)?;
    Ok((if offset == -1 { Place::Current } else { Place::At(offset) }, flags))
}

fn preadv2(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> Result<usize> {
    let (place, flags) = place_and_flags(offset, flags)?;
    read_vector(task, fd, (iov, count), place, flags)
}

fn pwritev2(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> Result<usize> {
    let (place, flags) = place_and_flags(offset, flags)?;
    write_vector(task, fd, (iov, count), place, flags)
}

fn lseek(task: &CurrentTask, fd: i32, offset: i64, whence: u32) -> Result<u64> {
    let file = task.real_file(fd)?;
    if whence > f::SEEK_HOLE {
        return Err(Errno::EINVAL);
    }
    let ops = file.operations();
    if !ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    if ops.ignores_seeks() {
        return Ok(0);
    }
    let mut position = file.position();
    let new = match whence {
        f::SEEK_SET => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
        f::SEEK_CUR => {
            position.checked_add_signed(offset).filter(|&p| p <= i64::MAX as u64).ok_or(Errno::EINVAL)?
        }
        _ => ops.seek(whence, offset)?,
    };
    *position = new;
    Ok(new)
}

fn fsync(task: &CurrentTask, fd: i32) -> Result<()> {
    task.real_file(fd)?.operations().sync(false)
}

fn fdatasync(task: &CurrentTask, fd: i32) -> Result<()> {
    task.real_file(fd)?.operations().sync(true)
}

fn sync(task: &CurrentTask) -> Result<()> {
    for mount in task.namespaces().mount.mounts() {
        // sync(2) has no error to return.
        let _ = mount.superblock().fs().sync();
    }
    Ok(())
}

fn syncfs(task: &CurrentTask, fd: i32) -> Result<()> {
    task.real_file(fd)?.path().mount().superblock().fs().sync()
}

fn sync_file_range(task: &CurrentTask, fd: i32, offset: i64, len: i64, flags: u32) -> Result<()> {
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    let file = task.real_file(fd)?;
    match file.path().inode().file_type() {
        FileType::Regular | FileType::Directory => file.operations().sync(true),
        _ => Err(Errno::ESPIPE),
    }
}

fn check_size(task: &CurrentTask, size: u64) -> Result<()> {
    if size > task.group.limits.current(RLIMIT_FSIZE) {
        task.group.send_kernel_signal_to_task(task, Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

fn ftruncate(task: &CurrentTask, fd: i32, size: i64) -> Result<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let file = task.real_file(fd)?;
    if !file.flags().writable() || file.path().inode().file_type() != FileType::Regular {
        return Err(Errno::EINVAL);
    }
    check_size(task, size)?;
    file.operations().truncate(size)?;
    operations::remove_privileges(task, file.path());
    notify::modified(file.path());
    Ok(())
}

fn fallocate(task: &CurrentTask, fd: i32, mode: u32, offset: i64, len: i64) -> Result<()> {
    let file = task.real_file(fd)?;
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let flags = FallocFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    if flags.contains(FallocFlags::FALLOC_FL_PUNCH_HOLE) && !flags.contains(FallocFlags::FALLOC_FL_KEEP_SIZE)
    {
        return Err(Errno::EOPNOTSUPP);
    }
    file.check_writable()?;
    match file.path().inode().file_type() {
        FileType::Fifo => return Err(Errno::ESPIPE),
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if !flags.contains(FallocFlags::FALLOC_FL_KEEP_SIZE) {
        check_size(task, end as u64)?;
    }
    file.operations().allocate(&task.io(), mode, offset as u64, len as u64)?;
    operations::remove_privileges(task, file.path());
    notify::modified(file.path());
    Ok(())
}

fn fadvise64(task: &CurrentTask, fd: i32, _offset: i64, len: i64, advice: u32) -> Result<()> {
    let file = task.real_file(fd)?;
    if file.path().inode().file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || advice > 5 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn readahead(task: &CurrentTask, fd: i32, _offset: i64, _count: usize) -> Result<()> {
    let file = task.file(fd)?;
    file.check_readable()?;
    // Nameless files have no type.
    let has_pages = file.path().inode().attributes()?.mode & S_IFMT == FileType::Regular.mode();
    if has_pages { Ok(()) } else { Err(Errno::EINVAL) }
}

fn cachestat(
    task: &CurrentTask,
    fd: i32,
    range: UserPtr<CachestatRange>,
    found: UserPtr<Cachestat>,
    flags: u32,
) -> Result<()> {
    let file = task.real_file(fd)?;
    let range = range.read(task)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match file.path().inode().file_type() {
        FileType::Regular => file.path().inode().attributes()?.size,
        _ => 0,
    };
    let end = if range.len == 0 { size } else { range.off.saturating_add(range.len).min(size) };
    let pages = |len: u64| len.div_ceil(platform::PAGE_SIZE);
    let first = range.off / platform::PAGE_SIZE;
    let nr_cache = if end > range.off { pages(end) - first } else { 0 };
    found.write(task, &Cachestat { nr_cache, ..Cachestat::default() })
}
