//! Numbers of open files, and what fcntl(2) and ioctl(2) do with any file (fs/file.c, fs/fcntl.c, fs/ioctl.c, fs/pipe.c).

use std::sync::Arc;

use abi::fcntl::{self as f, OpenFlags};
use abi::resource::RLIMIT_NOFILE;
use abi::stat::FileType;
use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::vfs::{FdFlags, operations};

use crate::arguments::UserPtr;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    CLOSE => close;
    CLOSE_RANGE => close_range;
    DUP => dup;
    DUP2 => dup2;
    DUP3 => dup3;
    FCNTL => fcntl, Partial, "leases are refused (EAGAIN); hints of how long data lives are not kept";
    IOCTL => ioctl;
    PIPE => pipe;
    PIPE2 => pipe2;
};

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
