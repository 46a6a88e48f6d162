//! Asynchronous I/O (fs/aio.c). Requests are carried out by io_submit(2) itself.

use std::sync::Arc;

use abi::aio as a;
use abi::fcntl::RwFlags;
use abi::poll::PollEvents;
use abi::signal::SignalSet;
use abi::time::Timespec;
use abi::{Errno, Result};
use platform::{PAGE_SIZE, Prot};
use sentry::aio::Context;
use sentry::fs::eventfd::EventFd;
use sentry::mm::{Fixed, MapRequest};
use sentry::task::CurrentTask;
use sentry::vfs::File;

use crate::arguments::{Address, UserPtr};
use crate::io::{self, Place};
use crate::poll::after_timeout;
use crate::rows;
use crate::signals::read_mask;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    IO_SETUP => io_setup, Partial, "requests are carried out when they are submitted; no IOCB_CMD_POLL";
    IO_DESTROY => io_destroy;
    IO_SUBMIT => io_submit, Partial, "requests are carried out when they are submitted; no IOCB_CMD_POLL";
    IO_CANCEL => io_cancel;
    IO_GETEVENTS => io_getevents;
    IO_PGETEVENTS => io_pgetevents;
};

/// The most results that a ring has room for.
const RING_MAX: usize = 0x1000_0000 / size_of::<a::IoEvent>();

fn context(task: &CurrentTask, id: u64) -> Result<Arc<Context>> {
    task.mm().aio.find(id).ok_or(Errno::EINVAL)
}

fn io_setup(task: &CurrentTask, count: u32, id: UserPtr<u64>) -> Result<()> {
    if id.read(task)? != 0 || count == 0 {
        return Err(Errno::EINVAL);
    }
    let most = sentry::parameters::AIO_MAX_NR.get(&task.kernel().parameters) as u64;
    let mm = task.mm();
    // Each processor may keep some places to itself.
    let places = (count as usize).max(task.group.container.cpus() as usize * 4).saturating_mul(2);
    if places > RING_MAX {
        return Err(Errno::EINVAL);
    }
    if u64::from(count) + mm.aio.capacity() as u64 > most {
        return Err(Errno::EAGAIN);
    }
    // Linux maps a ring there, which programs may read results from. One without its magic number is left alone.
    let request = MapRequest {
        addr: 0,
        len: PAGE_SIZE,
        prot: Prot::READ | Prot::WRITE,
        fixed: Fixed::No,
        limits: task.memory_limits(),
        ..MapRequest::default()
    };
    let at = task.with_thread(|thread| mm.map(thread, &request))?;
    if let Err(e) = id.write(task, &at) {
        let _ = task.with_thread(|thread| mm.unmap(thread, at, PAGE_SIZE));
        return Err(e);
    }
    mm.aio.add(at, Context::new(places));
    Ok(())
}

fn io_destroy(task: &CurrentTask, id: u64) -> Result<()> {
    let mm = task.mm();
    mm.aio.remove(id).ok_or(Errno::EINVAL)?;
    let _ = task.with_thread(|thread| mm.unmap(thread, id, PAGE_SIZE));
    Ok(())
}

fn io_submit(task: &CurrentTask, id: u64, count: i64, requests: UserPtr<u64>) -> Result<i64> {
    if count < 0 {
        return Err(Errno::EINVAL);
    }
    let context = context(task, id)?;
    let count = count.min(context.capacity() as i64);
    for i in 0..count {
        let one =
            requests.at(i as usize).and_then(|at| at.read(task)).and_then(|at| submit(task, &context, at));
        match one {
            Ok(()) => {}
            Err(_) if i > 0 => return Ok(i),
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

fn submit(task: &CurrentTask, context: &Context, at: u64) -> Result<()> {
    let pointer = UserPtr::<a::Iocb>::new(at);
    let request = pointer.read(task)?;
    if request._aio_reserved2 != 0 || (request.aio_nbytes as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    if !context.reserve() {
        return Err(Errno::EAGAIN);
    }
    match start(task, at, &request) {
        Ok((result, notified)) => {
            let event = a::IoEvent { data: request.aio_data, obj: at, res: result, res2: 0 };
            context.complete(event);
            if let Some(eventfd) = notified.as_ref().and_then(|file| file.ops::<EventFd>()) {
                eventfd.signal(1);
            }
            Ok(())
        }
        Err(e) => {
            context.release();
            Err(e)
        }
    }
}

/// Carries a request out. An error is one of submitting; those of the operation are its result.
fn start(task: &CurrentTask, at: u64, request: &a::Iocb) -> Result<(i64, Option<Arc<File>>)> {
    let file = task.real_file(request.aio_fildes as i32)?;
    let notified = if request.aio_flags & a::IOCB_FLAG_RESFD != 0 {
        let file = task.file(request.aio_resfd as i32)?;
        file.ops::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(file)
    } else {
        None
    };
    // The key of a request that is under way.
    let key_at = at.checked_add(std::mem::offset_of!(a::Iocb, aio_key) as u64).ok_or(Errno::EFAULT)?;
    task.mm().write_object(key_at, &0u32)?;
    let done = match request.aio_lio_opcode {
        a::IOCB_CMD_PREAD | a::IOCB_CMD_PWRITE | a::IOCB_CMD_PREADV | a::IOCB_CMD_PWRITEV => {
            transfer(task, &file, request)?
        }
        a::IOCB_CMD_FSYNC | a::IOCB_CMD_FDSYNC => {
            let unused = request.aio_buf == 0
                && request.aio_offset == 0
                && request.aio_nbytes == 0
                && request.aio_rw_flags == 0;
            if !unused {
                return Err(Errno::EINVAL);
            }
            file.operations().sync(request.aio_lio_opcode == a::IOCB_CMD_FDSYNC).map(|()| 0)
        }
        _ => return Err(Errno::EINVAL),
    };
    let result = match done {
        Ok(count) => count as i64,
        // There is no way to repeat it.
        Err(e) if e.is_restart() => -i64::from(Errno::EINTR.raw()),
        Err(e) => -i64::from(e.raw()),
    };
    Ok((result, notified))
}

fn transfer(task: &CurrentTask, file: &Arc<File>, request: &a::Iocb) -> Result<Result<usize>> {
    let flags = RwFlags::from_bits(request.aio_rw_flags).ok_or(Errno::EOPNOTSUPP)?;
    let writes = matches!(request.aio_lio_opcode, a::IOCB_CMD_PWRITE | a::IOCB_CMD_PWRITEV);
    if writes {
        file.check_writable()?;
    } else {
        file.check_readable()?;
    }
    let vector = matches!(request.aio_lio_opcode, a::IOCB_CMD_PREADV | a::IOCB_CMD_PWRITEV);
    let segments = if vector {
        io::read_iovecs(task, UserPtr::new(request.aio_buf), request.aio_nbytes as usize)?
    } else {
        io::one(request.aio_buf, request.aio_nbytes as usize)
    };
    // Streams have no place.
    let place = if file.operations().seekable() { Place::At(request.aio_offset) } else { Place::Current };
    Ok(match writes {
        true => io::write_segments(task, file, segments, place, flags),
        false => io::read_segments(task, file, segments, place, flags),
    })
}

/// Nothing is under way for long enough to be called off.
fn io_cancel(task: &CurrentTask, id: u64, request: UserPtr<a::Iocb>, _result: Address) -> Result<()> {
    let key = request.read(task)?.aio_key;
    if key != 0 {
        return Err(Errno::EINVAL);
    }
    context(task, id)?;
    Err(Errno::EINVAL)
}

fn io_getevents(
    task: &CurrentTask,
    id: u64,
    min: i64,
    max: i64,
    events: UserPtr<a::IoEvent>,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let deadline = after_timeout(task, timeout)?;
    get_events(task, id, (min, max), events, deadline)
}

fn io_pgetevents(
    task: &CurrentTask,
    id: u64,
    min: i64,
    max: i64,
    events: UserPtr<a::IoEvent>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[u64; 2]>,
) -> Result<usize> {
    let deadline = after_timeout(task, timeout)?;
    if let Some(mask) = mask.non_null() {
        let [pointer, size] = mask.read(task)?;
        if pointer != 0 {
            let mask = read_mask(task, UserPtr::<SignalSet>::new(pointer), size as usize)?;
            task.set_temporary_mask(mask);
        }
    }
    get_events(task, id, (min, max), events, deadline)
}

fn get_events(
    task: &CurrentTask,
    id: u64,
    (min, max): (i64, i64),
    events: UserPtr<a::IoEvent>,
    deadline: Option<u64>,
) -> Result<usize> {
    let context = context(task, id)?;
    if min > max || min < 0 {
        return Err(Errno::EINVAL);
    }
    let (min, max) = (min as usize, max as usize);
    let mut done = 0;
    loop {
        while done < max {
            let found = context.fetch((max - done).min(128));
            if found.is_empty() {
                break;
            }
            let bytes = zerocopy::IntoBytes::as_bytes(&found[..]);
            if task.mm().write_bytes(events.at(done)?.addr, bytes).is_err() {
                return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
            }
            done += found.len();
        }
        if done >= min || context.is_destroyed() {
            return Ok(done);
        }
        let queue = [(&context.queue, PollEvents::POLLIN)];
        match task.wait_until(&queue, deadline, || context.is_ready().then_some(())) {
            Ok(()) => {}
            Err(Errno::ETIMEDOUT) => return Ok(done),
            Err(_) if done > 0 => return Ok(done),
            Err(_) => return Err(Errno::EINTR),
        }
    }
}
