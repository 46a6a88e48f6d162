//! Reading, writing and controlling open files (fs/read_write.c, fs/fcntl.c, fs/splice.c).

use std::sync::Arc;

use abi::fcntl::{self as f, FallocFlags, OpenFlags, RwFlags};
use abi::limits::IOV_MAX;
use abi::poll::PollEvents;
use abi::resource::{RLIM_INFINITY, RLIMIT_FSIZE, RLIMIT_NOFILE};
use abi::signal::Signal;
use abi::stat::FileType;
use abi::uio::Iovec;
use abi::{Errno, Result};
use sentry::mm::{UserSink, UserSource};
use sentry::net::socket::{receive_deadline, send_deadline};
use sentry::task::CurrentTask;
use sentry::vfs::io::{CHUNK, SliceSource};
use sentry::vfs::{FdFlags, File, Io, Sink, Source, VecSink, notify, operations};

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
    CLOSE => close;
    CLOSE_RANGE => close_range;
    DUP => dup;
    DUP2 => dup2;
    DUP3 => dup3;
    FCNTL => fcntl;
    IOCTL => ioctl;
    PIPE => pipe;
    PIPE2 => pipe2;
    FSYNC => fsync;
    FDATASYNC => fdatasync;
    SYNC => sync;
    SYNCFS => syncfs;
    SYNC_FILE_RANGE => sync_file_range;
    FTRUNCATE => ftruncate;
    FALLOCATE => fallocate;
    FADVISE64 => fadvise64;
    READAHEAD => readahead;
    SENDFILE => sendfile;
    SPLICE => splice;
    TEE => tee;
    VMSPLICE => vmsplice;
    COPY_FILE_RANGE => copy_file_range;
};

/// The most that one call moves (MAX_RW_COUNT).
pub const RW_MAX: usize = 0x7fff_f000;

/// The segments of an iovec array. EINVAL for too many or a negative length, EFAULT.
pub fn read_iovecs(
    task: &CurrentTask,
    iov: UserPtr<Iovec>,
    count: usize,
) -> Result<smallvec::SmallVec<[(u64, u64); 8]>> {
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

fn one(addr: u64, len: usize) -> smallvec::SmallVec<[(u64, u64); 8]> {
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
fn write_at(
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

fn read(task: &CurrentTask, fd: i32, buf: Address, count: usize) -> Result<usize> {
    let file = task.file(fd)?;
    let mm = task.mm();
    read_file(task, &file, &mut UserSink::new(&mm, one(buf.0, count))?, &file.io(Some(task)))
}

fn write(task: &CurrentTask, fd: i32, buf: Address, count: usize) -> Result<usize> {
    let file = task.file(fd)?;
    let mm = task.mm();
    write_file(task, &file, &mut UserSource::new(&mm, one(buf.0, count))?, &file.io(Some(task)))
}

fn readv(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize) -> Result<usize> {
    let file = task.file(fd)?;
    let mm = task.mm();
    let segments = read_iovecs(task, iov, count)?;
    read_file(task, &file, &mut UserSink::new(&mm, segments)?, &file.io(Some(task)))
}

fn writev(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize) -> Result<usize> {
    let file = task.file(fd)?;
    let mm = task.mm();
    let segments = read_iovecs(task, iov, count)?;
    write_file(task, &file, &mut UserSource::new(&mm, segments)?, &file.io(Some(task)))
}

/// rw_verify_area(): the range must not go beyond the largest offset.
fn positioned(file: &Arc<File>, offset: i64, count: usize) -> Result<u64> {
    if offset.checked_add_unsigned(count as u64).is_none() {
        return Err(Errno::EINVAL);
    }
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    if file.operations().seekable() { Ok(offset) } else { Err(Errno::ESPIPE) }
}

fn pread64(task: &CurrentTask, fd: i32, buf: Address, count: usize, offset: i64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let offset = positioned(&file, offset, count)?;
    file.check_readable()?;
    let mm = task.mm();
    file.operations().read(&file.io(Some(task)), &mut UserSink::new(&mm, one(buf.0, count))?, offset)
}

fn pwrite64(task: &CurrentTask, fd: i32, buf: Address, count: usize, offset: i64) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let mut offset = positioned(&file, offset, count)?;
    file.check_writable()?;
    let mm = task.mm();
    write_at(task, &file, &mut UserSource::new(&mm, one(buf.0, count))?, &file.io(Some(task)), &mut offset)
}

fn preadv(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    low: u64,
    high: u64,
) -> Result<usize> {
    let _ = high;
    do_preadv(task, fd, iov, count, low as i64, RwFlags::empty())
}

fn pwritev(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    low: u64,
    high: u64,
) -> Result<usize> {
    let _ = high;
    do_pwritev(task, fd, iov, count, low as i64, RwFlags::empty())
}

fn rwf(flags: u32) -> Result<RwFlags> {
    RwFlags::from_bits(flags).ok_or(Errno::EOPNOTSUPP)
}

// The register with the high half of the offset is not used on x86-64; the flags are the sixth argument.
fn preadv2(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    low: u64,
    _high: u64,
) -> Result<usize> {
    let flags = rwf(task.arguments().1[5] as u32)?;
    if low as i64 == -1 {
        let file = task.file(fd)?;
        let mm = task.mm();
        let segments = read_iovecs(task, iov, count)?;
        let io = with_flags(&file, task, flags);
        return read_file(task, &file, &mut UserSink::new(&mm, segments)?, &io);
    }
    do_preadv(task, fd, iov, count, low as i64, flags)
}

fn pwritev2(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    low: u64,
    _high: u64,
) -> Result<usize> {
    let flags = rwf(task.arguments().1[5] as u32)?;
    if low as i64 == -1 {
        let file = task.file(fd)?;
        let mm = task.mm();
        let segments = read_iovecs(task, iov, count)?;
        let io = with_flags(&file, task, flags);
        return write_file(task, &file, &mut UserSource::new(&mm, segments)?, &io);
    }
    do_pwritev(task, fd, iov, count, low as i64, flags)
}

fn with_flags<'a>(file: &File, task: &'a CurrentTask, flags: RwFlags) -> Io<'a> {
    let mut io = file.io(Some(task));
    io.nonblocking |= flags.contains(RwFlags::RWF_NOWAIT);
    io.append |= flags.contains(RwFlags::RWF_APPEND);
    io
}

fn do_preadv(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    offset: i64,
    flags: RwFlags,
) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let offset = positioned(&file, offset, 0)?;
    file.check_readable()?;
    let segments = read_iovecs(task, iov, count)?;
    let mm = task.mm();
    file.operations().read(&with_flags(&file, task, flags), &mut UserSink::new(&mm, segments)?, offset)
}

fn do_pwritev(
    task: &CurrentTask,
    fd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    offset: i64,
    flags: RwFlags,
) -> Result<usize> {
    if offset < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let mut offset = positioned(&file, offset, 0)?;
    file.check_writable()?;
    let segments = read_iovecs(task, iov, count)?;
    let mm = task.mm();
    let n = write_at(
        task,
        &file,
        &mut UserSource::new(&mm, segments)?,
        &with_flags(&file, task, flags),
        &mut offset,
    )?;
    if flags.intersects(RwFlags::RWF_SYNC | RwFlags::RWF_DSYNC) {
        file.operations().sync(!flags.contains(RwFlags::RWF_SYNC))?;
    }
    Ok(n)
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

fn close(task: &CurrentTask, fd: i32) -> Result<()> {
    let file = task.fds().remove(fd)?;
    operations::flush(task, &file);
    Ok(())
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

fn close_range(task: &CurrentTask, first: u32, last: u32, flags: u32) -> Result<()> {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = Arc::new(task.fds().fork());
        drop(task.set_files(Some(own)));
    }
    let files = task.fds();
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.set_cloexec_range(first, last);
        return Ok(());
    }
    for file in files.remove_where(|fd, _| (first..=last).contains(&(fd as u32))) {
        operations::flush(task, &file);
    }
    Ok(())
}

fn nofile(task: &CurrentTask) -> u64 {
    task.group.limits.current(RLIMIT_NOFILE)
}

fn dup(task: &CurrentTask, fd: i32) -> Result<i32> {
    let files = task.fds();
    files.install(files.get(fd)?, FdFlags::empty(), 0, nofile(task))
}

fn dup_to(task: &CurrentTask, old: i32, new: i32, flags: FdFlags) -> Result<i32> {
    let files = task.fds();
    if new < 0 || new as u64 >= nofile(task) {
        return Err(Errno::EBADF);
    }
    let file = files.get(old)?;
    if let Some(replaced) = files.install_at(new, file, flags, nofile(task))? {
        operations::flush(task, &replaced);
    }
    Ok(new)
}

fn dup2(task: &CurrentTask, old: i32, new: i32) -> Result<i32> {
    if old == new {
        return task.file(old).map(|_| new);
    }
    dup_to(task, old, new, FdFlags::empty())
}

fn dup3(task: &CurrentTask, old: i32, new: i32, flags: u32) -> Result<i32> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::O_CLOEXEC).is_empty() || old == new {
        return Err(Errno::EINVAL);
    }
    let cloexec = if flags.is_empty() { FdFlags::empty() } else { FdFlags::CLOEXEC };
    dup_to(task, old, new, cloexec)
}

fn fcntl(task: &CurrentTask, fd: i32, command: u32, arg: u64) -> Result<u64> {
    let files = task.fds();
    let (file, fd_flags) = files.entry(fd)?;
    let path_only = file.flags().contains(OpenFlags::O_PATH);
    match command {
        f::F_DUPFD | f::F_DUPFD_CLOEXEC => {
            if arg >= nofile(task) {
                return Err(Errno::EINVAL);
            }
            let flags = if command == f::F_DUPFD { FdFlags::empty() } else { FdFlags::CLOEXEC };
            return files.install(file, flags, arg as i32, nofile(task)).map(|fd| fd as u64);
        }
        f::F_GETFD => return Ok(fd_flags.bits().into()),
        f::F_SETFD => {
            files.set_flags(fd, FdFlags::from_bits_truncate(arg as u32))?;
            return Ok(0);
        }
        f::F_GETFL if path_only => return Ok(file.flags().bits().into()),
        f::F_GETFL => return Ok((file.flags() | OpenFlags::O_LARGEFILE).bits().into()),
        f::F_DUPFD_QUERY => {
            let other = files.get(arg as i32)?;
            return Ok(Arc::ptr_eq(&file, &other).into());
        }
        _ if path_only => return Err(Errno::EBADF),
        _ => {}
    }
    match command {
        f::F_SETFL => {
            let flags = OpenFlags::from_bits_retain(arg as u32);
            if flags.contains(OpenFlags::O_NOATIME) && !file.flags().contains(OpenFlags::O_NOATIME) {
                let attributes = file.path().inode().attributes()?;
                if !sentry::vfs::permission::is_owner(&task.credentials(), &attributes) {
                    return Err(Errno::EPERM);
                }
            }
            file.set_flags_by(fd, flags);
            Ok(0)
        }
        f::F_GETPIPE_SZ => match file.ops::<sentry::fs::pipe::PipeEnd>() {
            Some(end) => Ok(end.pipe().capacity() as u64),
            None => Err(Errno::EBADF),
        },
        f::F_SETPIPE_SZ => {
            let Some(end) = file.ops::<sentry::fs::pipe::PipeEnd>() else { return Err(Errno::EBADF) };
            let wanted = usize::try_from(arg).map_err(|_| Errno::EINVAL)?;
            if wanted > i32::MAX as usize {
                return Err(Errno::EINVAL);
            }
            let privileged = task.capable(abi::capability::CAP_SYS_RESOURCE);
            let most = sentry::parameters::PIPE_MAX_SIZE.get(&task.kernel().parameters) as usize;
            if wanted > most && !(privileged && wanted <= 1 << 31) {
                return Err(Errno::EPERM);
            }
            Ok(end.pipe().set_capacity(wanted)? as u64)
        }
        _ => crate::io_control::fcntl(task, fd, &file, command, arg),
    }
}

fn ioctl(task: &CurrentTask, fd: i32, request: u32, arg: u64) -> Result<u64> {
    use abi::ioctl as i;
    let file = task.real_file(fd)?;
    match request {
        i::FIOCLEX | i::FIONCLEX => {
            let flags = if request == i::FIOCLEX { FdFlags::CLOEXEC } else { FdFlags::empty() };
            task.fds().set_flags(fd, flags)?;
            Ok(0)
        }
        i::FIONBIO => {
            let on = task.mm().read_object::<i32>(arg)? != 0;
            let flags = file.flags();
            file.set_flags(if on { flags | OpenFlags::O_NONBLOCK } else { flags - OpenFlags::O_NONBLOCK });
            Ok(0)
        }
        i::FIOASYNC => {
            let on = task.mm().read_object::<i32>(arg)? != 0;
            let flags = file.flags();
            file.set_flags_by(fd, if on { flags | OpenFlags::FASYNC } else { flags - OpenFlags::FASYNC });
            Ok(0)
        }
        i::FIONREAD
            if file.path().inode().file_type() == FileType::Regular && file.operations().seekable() =>
        {
            let size = file.path().inode().attributes()?.size;
            let left = size.saturating_sub(*file.position());
            task.mm().write_object(arg, &(left.min(i32::MAX as u64) as i32))?;
            Ok(0)
        }
        _ => file.operations().ioctl(task, &file, request, arg),
    }
}

fn pipe(task: &CurrentTask, fds: UserPtr<[i32; 2]>) -> Result<()> {
    pipe2(task, fds, 0)
}

fn pipe2(task: &CurrentTask, fds: UserPtr<[i32; 2]>, flags: u32) -> Result<()> {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::O_CLOEXEC - OpenFlags::O_NONBLOCK - OpenFlags::O_DIRECT).is_empty() {
        return Err(Errno::EINVAL);
    }
    let (reader, writer) = sentry::fs::pipe::pipe(task, flags);
    let cloexec = flags.contains(OpenFlags::O_CLOEXEC);
    let read_fd = task.install(reader, cloexec)?;
    let undo = |fd| {
        let _ = task.fds().remove(fd);
    };
    let write_fd = task.install(writer, cloexec).inspect_err(|_| undo(read_fd))?;
    fds.write(task, &[read_fd, write_fd]).inspect_err(|_| {
        undo(read_fd);
        undo(write_fd);
    })
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
    file.operations().allocate(mode, offset as u64, len as u64)?;
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
    if file.path().inode().file_type() == FileType::Regular { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Moves up to `count` bytes between files through a buffer. Offsets are those given, or the files' own.
fn transfer(
    task: &CurrentTask,
    from: (&Arc<File>, Option<&mut u64>),
    to: (&Arc<File>, Option<&mut u64>),
    count: usize,
    nonblocking: bool,
) -> Result<usize> {
    let (in_file, mut in_offset) = from;
    let (out_file, mut out_offset) = to;
    let mut in_io = in_file.io(Some(task));
    let mut out_io = out_file.io(Some(task));
    in_io.nonblocking |= nonblocking;
    out_io.nonblocking |= nonblocking;
    let mut done = 0;
    while done < count {
        let mut sink = VecSink::new((count - done).min(CHUNK));
        let read = match &mut in_offset {
            Some(offset) => in_file.operations().read(&in_io, &mut sink, **offset),
            None if done > 0 && !in_file.operations().seekable() => {
                let io = Io { nonblocking: true, ..in_io };
                read_file(task, in_file, &mut sink, &io)
            }
            None => read_file(task, in_file, &mut sink, &in_io),
        };
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        let data = std::mem::take(&mut sink.data);
        let mut source = SliceSource::new(&data);
        let written = match &mut out_offset {
            Some(offset) => {
                write_at(task, out_file, &mut source, &out_io, offset).inspect(|n| **offset += *n as u64)
            }
            None => write_file(task, out_file, &mut source, &out_io),
        };
        let written = match written {
            Ok(n) => n,
            Err(e) => {
                give_back(in_file, &in_offset, data.len());
                return if done > 0 { Ok(done) } else { Err(e) };
            }
        };
        if let Some(offset) = &mut in_offset {
            **offset += written as u64;
        } else if written < data.len() {
            give_back(in_file, &in_offset, data.len() - written);
        }
        done += written;
        if written < data.len() {
            break;
        }
    }
    Ok(done)
}

/// What was read and could not be written is read again by the next call.
fn give_back(file: &Arc<File>, offset: &Option<&mut u64>, count: usize) {
    if offset.is_none() && file.operations().seekable() {
        let mut position = file.position();
        *position = position.saturating_sub(count as u64);
    }
}

fn sendfile(
    task: &CurrentTask,
    out_fd: i32,
    in_fd: i32,
    offset: UserPtr<i64>,
    count: usize,
) -> Result<usize> {
    let in_file = task.file(in_fd)?;
    let out_file = task.file(out_fd)?;
    in_file.check_readable()?;
    out_file.check_writable()?;
    // Only what has pages can be sent (do_splice_direct()).
    if in_file.path().inode().file_type() == FileType::Socket {
        return Err(Errno::EINVAL);
    }
    if out_file.flags().contains(OpenFlags::O_APPEND) && out_file.operations().seekable() {
        return Err(Errno::EINVAL);
    }
    let count = count.min(RW_MAX);
    match offset.non_null() {
        None => transfer(task, (&in_file, None), (&out_file, None), count, false),
        Some(pointer) => {
            let mut at = u64::try_from(pointer.read(task)?).map_err(|_| Errno::EINVAL)?;
            if !in_file.operations().seekable() {
                return Err(Errno::ESPIPE);
            }
            let done = transfer(task, (&in_file, Some(&mut at)), (&out_file, None), count, false)?;
            pointer.write(task, &(at as i64))?;
            Ok(done)
        }
    }
}

const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_ALL: u32 = 15;

fn is_pipe(file: &File) -> bool {
    file.ops::<sentry::fs::pipe::PipeEnd>().is_some()
}

fn splice(
    task: &CurrentTask,
    in_fd: i32,
    in_off: UserPtr<i64>,
    out_fd: i32,
    out_off: UserPtr<i64>,
    count: usize,
) -> Result<usize> {
    let flags = task.arguments().1[5] as u32;
    if count == 0 {
        return Ok(0);
    }
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let in_file = task.file(in_fd)?;
    let out_file = task.file(out_fd)?;
    in_file.check_readable()?;
    out_file.check_writable()?;
    let (in_pipe, out_pipe) = (is_pipe(&in_file), is_pipe(&out_file));
    if (in_pipe && !in_off.is_null()) || (out_pipe && !out_off.is_null()) {
        return Err(Errno::ESPIPE);
    }
    if !in_pipe && !out_pipe || out_file.flags().contains(OpenFlags::O_APPEND) {
        return Err(Errno::EINVAL);
    }
    if let (Some(a), Some(b)) =
        (in_file.ops::<sentry::fs::pipe::PipeEnd>(), out_file.ops::<sentry::fs::pipe::PipeEnd>())
        && Arc::ptr_eq(a.pipe(), b.pipe())
    {
        return Err(Errno::EINVAL);
    }
    let mut in_at = read_offset(task, &in_file, in_off)?;
    let mut out_at = read_offset(task, &out_file, out_off)?;
    // What a pipe takes at once bounds it: a splice never waits in the middle.
    let room = match out_file.ops::<sentry::fs::pipe::PipeEnd>() {
        Some(end) => end.pipe().capacity(),
        None => RW_MAX,
    };
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    let done = transfer(
        task,
        (&in_file, in_at.as_mut()),
        (&out_file, out_at.as_mut()),
        count.min(room),
        nonblocking,
    )?;
    if let Some(at) = in_at {
        in_off.write(task, &(at as i64))?;
    }
    if let Some(at) = out_at {
        out_off.write(task, &(at as i64))?;
    }
    Ok(done)
}

fn read_offset(task: &CurrentTask, file: &File, pointer: UserPtr<i64>) -> Result<Option<u64>> {
    match pointer.non_null() {
        None => Ok(None),
        Some(_) if !file.operations().seekable() => Err(Errno::EINVAL),
        Some(pointer) => u64::try_from(pointer.read(task)?).map(Some).map_err(|_| Errno::EINVAL),
    }
}

fn tee(task: &CurrentTask, in_fd: i32, out_fd: i32, count: usize, flags: u32) -> Result<usize> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if count == 0 {
        return Ok(0);
    }
    let in_file = task.file(in_fd)?;
    let out_file = task.file(out_fd)?;
    in_file.check_readable()?;
    out_file.check_writable()?;
    let (Some(from), Some(to)) =
        (in_file.ops::<sentry::fs::pipe::PipeEnd>(), out_file.ops::<sentry::fs::pipe::PipeEnd>())
    else {
        return Err(Errno::EINVAL);
    };
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    match from.tee(to, count) {
        Err(Errno::EAGAIN) if !nonblocking => {}
        result => return result,
    }
    let queues = [from.queue(), to.queue()].map(|q| (q, PollEvents::all()));
    task.wait_until(&queues, None, || match from.tee(to, count) {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    })?
}

fn vmsplice(task: &CurrentTask, fd: i32, iov: UserPtr<Iovec>, count: usize, flags: u32) -> Result<usize> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    if !is_pipe(&file) {
        return Err(Errno::EBADF);
    }
    let segments = read_iovecs(task, iov, count)?;
    let mm = task.mm();
    let mut io = file.io(Some(task));
    io.nonblocking |= flags & SPLICE_F_NONBLOCK != 0;
    if file.flags().writable() {
        write_file(task, &file, &mut UserSource::new(&mm, segments)?, &io)
    } else {
        read_file(task, &file, &mut UserSink::new(&mm, segments)?, &io)
    }
}

fn copy_file_range(
    task: &CurrentTask,
    in_fd: i32,
    in_off: UserPtr<i64>,
    out_fd: i32,
    out_off: UserPtr<i64>,
    count: usize,
) -> Result<usize> {
    let in_file = task.file(in_fd)?;
    let out_file = task.file(out_fd)?;
    let mut in_at = match in_off.non_null() {
        Some(pointer) => Some(u64::try_from(pointer.read(task)?).map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    let mut out_at = match out_off.non_null() {
        Some(pointer) => Some(u64::try_from(pointer.read(task)?).map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    if task.arguments().1[5] as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let types = [&in_file, &out_file].map(|file| file.path().inode().file_type());
    if types.contains(&FileType::Directory) {
        return Err(Errno::EISDIR);
    }
    if types != [FileType::Regular, FileType::Regular] {
        return Err(Errno::EINVAL);
    }
    in_file.check_readable()?;
    out_file.check_writable()?;
    if out_file.flags().contains(OpenFlags::O_APPEND) {
        return Err(Errno::EBADF);
    }
    let count = count.min(RW_MAX);
    if in_file.path().dentry().object() == out_file.path().dentry().object() {
        let a = in_at.unwrap_or_else(|| *in_file.position());
        let b = out_at.unwrap_or_else(|| *out_file.position());
        if a < b.saturating_add(count as u64) && b < a.saturating_add(count as u64) {
            return Err(Errno::EINVAL);
        }
    }
    let done = transfer(task, (&in_file, in_at.as_mut()), (&out_file, out_at.as_mut()), count, false)?;
    if let Some(at) = in_at {
        in_off.write(task, &(at as i64))?;
    }
    if let Some(at) = out_at {
        out_off.write(task, &(at as i64))?;
    }
    Ok(done)
}
