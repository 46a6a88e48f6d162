//! POSIX message queues (mq_overview(7), ipc/mqueue.c).

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::ipc::{MQ_PRIO_MAX, MqAttr, NOTIFY_COOKIE_LEN};
use abi::signal::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, Sigevent};
use abi::time::Timespec;
use abi::{Errno, Result};
use sentry::fs::mqueue::{self, QueueFile};
use sentry::ipc::mqueue::{Message, Queue};
use sentry::task::CurrentTask;
use sentry::vfs::File;

use crate::arguments::{Address, UserCStr, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    MQ_OPEN => mq_open;
    MQ_UNLINK => mq_unlink;
    MQ_TIMEDSEND => mq_timedsend;
    MQ_TIMEDRECEIVE => mq_timedreceive;
    MQ_NOTIFY => mq_notify;
    MQ_GETSETATTR => mq_getsetattr;
};

fn mq_open(
    task: &CurrentTask,
    name: UserCStr,
    flags: u32,
    mode: u32,
    attributes: UserPtr<MqAttr>,
) -> Result<i32> {
    let attributes = match attributes.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    let name = name.path(task)?;
    let flags = OpenFlags::from_bits_retain(flags);
    task.install(mqueue::open(task, &name, flags, mode, attributes)?, true)
}

fn mq_unlink(task: &CurrentTask, name: UserCStr) -> Result<()> {
    let name = name.path(task)?;
    mqueue::unlink(task, &name)
}

/// The queue of a descriptor. EBADF for other files too.
fn queue(file: &Arc<File>) -> Result<Arc<Queue>> {
    file.ops::<QueueFile>().map(|q| q.queue.clone()).ok_or(Errno::EBADF)
}

/// A point of the wall clock, as one of the monotonic clock.
fn deadline(task: &CurrentTask, timeout: UserPtr<Timespec>) -> Result<Option<u64>> {
    let Some(pointer) = timeout.non_null() else { return Ok(None) };
    let nanos = u64::try_from(pointer.read(task)?.to_duration()?.as_nanos()).unwrap_or(u64::MAX);
    let clock = &task.kernel().clock;
    Ok(Some(clock.monotonic().saturating_add(nanos.saturating_sub(clock.realtime_nanos()))))
}

fn mq_timedsend(
    task: &CurrentTask,
    fd: i32,
    text: Address,
    len: usize,
    priority: u32,
    timeout: UserPtr<Timespec>,
) -> Result<()> {
    let deadline = deadline(task, timeout)?;
    if priority >= MQ_PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let file = task.real_file(fd)?;
    let queue = queue(&file)?;
    file.check_writable()?;
    if len as u64 > queue.size().bytes {
        return Err(Errno::EMSGSIZE);
    }
    let text = task.mm().read_array::<u8>(text.0, len)?;
    queue.send(task, Message { priority, text }, file.nonblocking(), deadline)
}

fn mq_timedreceive(
    task: &CurrentTask,
    fd: i32,
    text: Address,
    len: usize,
    priority: UserPtr<u32>,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    let deadline = deadline(task, timeout)?;
    let file = task.real_file(fd)?;
    let queue = queue(&file)?;
    file.check_readable()?;
    if (len as u64) < queue.size().bytes {
        return Err(Errno::EMSGSIZE);
    }
    let message = queue.receive(task, file.nonblocking(), deadline)?;
    // Where memory is bad, the message is lost.
    priority.write_if_some(task, &message.priority)?;
    task.mm().write_result(text.0, &message.text)?;
    Ok(message.text.len())
}

fn mq_notify(task: &CurrentTask, fd: i32, event: UserPtr<Sigevent>) -> Result<()> {
    let event = match event.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    let Some(event) = event else {
        queue(&task.real_file(fd)?)?.withdraw(&task.group.pid);
        return Ok(());
    };
    match event.sigev_notify {
        SIGEV_NONE => queue(&task.real_file(fd)?)?.notify_nobody(task),
        SIGEV_SIGNAL => {
            if !(0..=64).contains(&event.sigev_signo) {
                return Err(Errno::EINVAL);
            }
            queue(&task.real_file(fd)?)?.notify_by_signal(task, event.sigev_signo, event.sigev_value)
        }
        SIGEV_THREAD => {
            // The value points to a cookie, the signal number is a netlink socket.
            let cookie = UserPtr::<[u8; NOTIFY_COOKIE_LEN]>::new(event.sigev_value).read(task)?;
            let socket = task.real_file(event.sigev_signo)?;
            sentry::net::socket::of_file(&socket)?;
            queue(&task.real_file(fd)?)?.notify_by_socket(task, socket, cookie)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn mq_getsetattr(task: &CurrentTask, fd: i32, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> Result<()> {
    let nonblock = i64::from(OpenFlags::O_NONBLOCK.bits());
    let new = match new.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    if new.as_ref().is_some_and(|attributes| attributes.mq_flags & !nonblock != 0) {
        return Err(Errno::EINVAL);
    }
    let file = task.real_file(fd)?;
    let queue = queue(&file)?;
    let size = queue.size();
    let attributes = MqAttr {
        mq_flags: if file.nonblocking() { nonblock } else { 0 },
        mq_maxmsg: size.messages as i64,
        mq_msgsize: size.bytes as i64,
        mq_curmsgs: queue.len() as i64,
        ..MqAttr::default()
    };
    if let Some(new) = new {
        let flags = file.flags() - OpenFlags::O_NONBLOCK;
        let nonblocking = if new.mq_flags != 0 { OpenFlags::O_NONBLOCK } else { OpenFlags::empty() };
        file.set_flags(flags | nonblocking);
    }
    old.write_if_some(task, &attributes)
}
