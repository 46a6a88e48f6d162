//! Moving data between files (fs/splice.c, fs/read_write.c).

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::{FileType, S_IFMT};
use abi::uio::Iovec;
use abi::{Errno, Result};
use sentry::mm::{UserSink, UserSource};
use sentry::task::CurrentTask;
use sentry::vfs::io::{CHUNK, SliceSource};
use sentry::vfs::{File, Io, VecSink};

use crate::arguments::UserPtr;
use crate::io::{RW_MAX, read_file, read_iovecs, write_at, write_file};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SENDFILE => sendfile;
    SPLICE => splice;
    TEE => tee;
    VMSPLICE => vmsplice;
    COPY_FILE_RANGE => copy_file_range;
};

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
        // Between files that are always ready, only this ends 2 GiB early (splice_from_pipe_next()).
        if done > 0 && task.has_signal() {
            break;
        }
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
    if !splices(&in_file)? || !splices(&out_file)? {
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

/// Whether there is something to splice: nameless files that are no pipes have nothing, and directories.
fn splices(file: &File) -> Result<bool> {
    let kind = file.path().inode().attributes()?.mode & S_IFMT;
    Ok(kind != 0 && kind != FileType::Directory.mode())
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
        // It waits for room, and takes what there is (vmsplice_to_pipe()).
        let mut source = UserSource::new(&mm, segments)?;
        task.block_on(&file, &io, PollEvents::WRITABLE, None, || {
            file.operations().write(&io, &mut source, &mut 0)
        })
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
