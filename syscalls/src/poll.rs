//! Waiting for files: poll(2), select(2), epoll(7), and the files made to be waited for (fs/select.c, fs/eventpoll.c).

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::{EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent, PollEvents, PollFd};
use abi::resource::RLIMIT_NOFILE;
use abi::signal::{SignalSet, SigsetArgpack};
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result};
use sentry::fs::epoll::Epoll;
use sentry::fs::{epoll, eventfd, signalfd};
use sentry::task::CurrentTask;
use sentry::vfs::File;
use sentry::wait::Registration;
use zerocopy::IntoBytes;

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::signals::read_mask;
use crate::table::Row;

/// Results of poll(2) up to which it is cheaper to leave each to the end of the call than to write all at once.
const FEW: usize = 4;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    POLL => poll;
    PPOLL => ppoll;
    SELECT => select;
    PSELECT6 => pselect6;
    EPOLL_CREATE => epoll_create;
    EPOLL_CREATE1 => epoll_create1;
    EPOLL_CTL => epoll_ctl;
    EPOLL_WAIT => epoll_wait;
    EPOLL_PWAIT => epoll_pwait;
    EPOLL_PWAIT2 => epoll_pwait2;
    EVENTFD => eventfd;
    EVENTFD2 => eventfd2;
    SIGNALFD => signalfd;
    SIGNALFD4 => signalfd4;
};

/// A deadline some time from now: `None` for no time at all.
fn after(task: &CurrentTask, timeout: Option<std::time::Duration>) -> Option<u64> {
    let nanos = u64::try_from(timeout?.as_nanos()).unwrap_or(u64::MAX);
    Some(task.kernel().clock.monotonic().saturating_add(nanos))
}

/// The deadline that a timeout means; none for a null pointer. EFAULT, EINVAL.
pub(crate) fn after_timeout(task: &CurrentTask, timeout: UserPtr<Timespec>) -> Result<Option<u64>> {
    match timeout.non_null() {
        Some(pointer) => Ok(after(task, Some(pointer.read(task)?.to_duration()?))),
        None => Ok(None),
    }
}

fn millis(timeout: i32) -> Option<std::time::Duration> {
    u64::try_from(timeout).ok().map(std::time::Duration::from_millis)
}

/// Waits until one of the files has one of its events. Returns what each has. `deadline` in the past: no wait.
fn wait_for_files(
    task: &CurrentTask,
    files: &[Option<(Arc<File>, PollEvents)>],
    deadline: Option<u64>,
) -> Result<Vec<PollEvents>> {
    let io = task.io();
    let look = || -> (Vec<PollEvents>, bool) {
        let ready: Vec<PollEvents> = files
            .iter()
            .map(|entry| match entry {
                Some((file, wanted)) => file.operations().poll(&io) & (*wanted | PollEvents::ALWAYS),
                None => PollEvents::empty(),
            })
            .collect();
        let any = ready.iter().any(|r| !r.is_empty());
        (ready, any)
    };
    let (ready, any) = look();
    if any || deadline.is_some_and(|d| d <= task.kernel().clock.monotonic()) {
        return Ok(ready);
    }
    let waker = task.waker();
    let _registrations: Vec<Registration> = files
        .iter()
        .flatten()
        .filter_map(|(file, wanted)| {
            file.operations().wait_queue().map(|queue| queue.register(*wanted, waker.clone()))
        })
        .collect();
    let result = task.sleep(deadline, true, || {
        let (ready, any) = look();
        any.then_some(ready)
    });
    match result {
        Err(Errno::ETIMEDOUT) => Ok(look().0),
        result => result,
    }
}

fn do_poll(task: &CurrentTask, fds: UserPtr<PollFd>, count: u32, deadline: Option<u64>) -> Result<usize> {
    if u64::from(count) > task.group.limits.current(RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let mut entries = fds.read_slice(task, count as usize)?;
    let table = task.fds();
    let mut invalid = 0;
    let files: Vec<_> = entries
        .iter_mut()
        .map(|entry| {
            entry.revents = 0;
            if entry.fd < 0 {
                return None;
            }
            match table.get(entry.fd) {
                Ok(file) => {
                    let wanted = PollEvents::from_bits_truncate(u32::from(entry.events as u16));
                    Some((file, wanted))
                }
                Err(_) => {
                    entry.revents = PollEvents::POLLNVAL.bits() as _;
                    invalid += 1;
                    None
                }
            }
        })
        .collect();
    // A bad descriptor is an event: nobody waits.
    let deadline = if invalid > 0 { Some(0) } else { deadline };
    let ready = wait_for_files(task, &files, deadline)?;
    let mut count = invalid;
    for ((entry, file), ready) in entries.iter_mut().zip(&files).zip(&ready) {
        if file.is_some() {
            entry.revents = ready.bits() as _;
            count += usize::from(!ready.is_empty());
        }
    }
    // Only the results are written back: another thread may have changed the rest.
    let mut results = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let at = fds.at(i)?.addr + std::mem::offset_of!(PollFd, revents) as u64;
        results.push((at, entry.revents.as_bytes()));
    }
    if results.len() > FEW {
        task.mm().write_batch(&results)?;
    } else {
        for (at, bytes) in results {
            task.mm().write_result(at, bytes)?;
        }
    }
    Ok(count)
}

/// The deadline of a call, or the one it left when it was interrupted.
fn deadline_of(task: &CurrentTask, timeout: Option<std::time::Duration>) -> Option<u64> {
    match task.take_restart() {
        Some(restart) => Some(restart.deadline),
        None => after(task, timeout),
    }
}

fn poll(task: &CurrentTask, fds: UserPtr<PollFd>, count: u32, timeout: i32) -> Result<usize> {
    let deadline = deadline_of(task, millis(timeout));
    match do_poll(task, fds, count, deadline) {
        Err(Errno::ERESTARTSYS) => Err(task.restart_with(deadline.unwrap_or(u64::MAX))),
        result => result,
    }
}

fn ppoll(
    task: &CurrentTask,
    fds: UserPtr<PollFd>,
    count: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SignalSet>,
    size: usize,
) -> Result<usize> {
    let deadline = match timeout.non_null() {
        Some(pointer) => after(task, Some(pointer.read(task)?.to_duration()?)),
        None => None,
    };
    if !mask.is_null() {
        let mask = read_mask(task, mask, size)?;
        task.set_temporary_mask(mask);
    }
    let result = do_poll(task, fds, count, deadline);
    write_rest(task, timeout, deadline);
    result.map_err(no_handler)
}

/// Interrupted waits with a temporary mask are repeated only if no handler runs.
fn no_handler(e: Errno) -> Errno {
    if e == Errno::ERESTARTSYS { Errno::ERESTARTNOHAND } else { e }
}

/// ppoll and pselect6 write the time that is left back, if they can.
fn write_rest(task: &CurrentTask, timeout: UserPtr<Timespec>, deadline: Option<u64>) {
    if let (Some(pointer), Some(deadline)) = (timeout.non_null(), deadline)
        && !keeps_timeouts(task)
    {
        let left = deadline.saturating_sub(task.kernel().clock.monotonic());
        // As Linux: a constant timeout in read-only memory is no error.
        let _ = pointer.write(task, &Timespec::from_nanos(i64::try_from(left).unwrap_or(i64::MAX)));
    }
}

fn read_set(task: &CurrentTask, set: Address, bytes: usize) -> Result<Vec<u8>> {
    let mut bits = vec![0; bytes];
    if set.0 != 0 {
        task.mm().read_bytes(set.0, &mut bits)?;
    }
    Ok(bits)
}

fn do_select(task: &CurrentTask, count: i32, sets: [Address; 3], deadline: Option<u64>) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // No more than the table could hold; what is beyond is not looked at.
    let count =
        count.min(task.fds().list().last().map_or(0, |(fd, _, _)| *fd as usize + 1).max(64)).min(count);
    let bytes = count.div_ceil(64) * 8;
    let wanted =
        [read_set(task, sets[0], bytes)?, read_set(task, sets[1], bytes)?, read_set(task, sets[2], bytes)?];
    let masks = [PollEvents::SELECT_READ, PollEvents::SELECT_WRITE, PollEvents::SELECT_EXCEPT];
    let table = task.fds();
    let mut files = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let mut mask = PollEvents::empty();
        for (set, events) in wanted.iter().zip(masks) {
            if set[fd / 8] & 1 << (fd % 8) != 0 {
                mask |= events;
            }
        }
        if !mask.is_empty() {
            files.push(Some((table.get(fd as i32)?, mask)));
            numbers.push(fd);
        }
    }
    let ready = wait_for_files(task, &files, deadline)?;
    let mut results = [vec![0u8; bytes], vec![0u8; bytes], vec![0u8; bytes]];
    let mut total = 0;
    for (&fd, ready) in numbers.iter().zip(&ready) {
        for i in 0..3 {
            let bit = 1 << (fd % 8);
            if wanted[i][fd / 8] & bit != 0 && ready.intersects(masks[i]) {
                results[i][fd / 8] |= bit;
                total += 1;
            }
        }
    }
    for (set, result) in sets.iter().zip(&results) {
        if set.0 != 0 {
            task.mm().write_result(set.0, result)?;
        }
    }
    Ok(total)
}

/// personality(STICKY_TIMEOUTS): the time that is left is not written back.
fn keeps_timeouts(task: &CurrentTask) -> bool {
    task.group.personality.load(std::sync::atomic::Ordering::Relaxed) & abi::personality::STICKY_TIMEOUTS != 0
}

fn select(
    task: &CurrentTask,
    count: i32,
    read: Address,
    write: Address,
    except: Address,
    timeout: UserPtr<Timeval>,
) -> Result<usize> {
    let deadline = match timeout.non_null() {
        Some(pointer) => {
            let time = pointer.read(task)?;
            if time.tv_sec < 0 || time.tv_usec < 0 {
                return Err(Errno::EINVAL);
            }
            let extra = std::time::Duration::from_micros(time.tv_usec as u64);
            after(task, Some(std::time::Duration::from_secs(time.tv_sec as u64).saturating_add(extra)))
        }
        None => None,
    };
    let result = do_select(task, count, [read, write, except], deadline);
    if let (Some(pointer), Some(deadline)) = (timeout.non_null(), deadline)
        && !keeps_timeouts(task)
    {
        let left = deadline.saturating_sub(task.kernel().clock.monotonic());
        // As Linux: not being able to write it is no error.
        let _ = pointer.write(task, &Timeval::from_nanos(i64::try_from(left).unwrap_or(i64::MAX)));
    }
    result.map_err(no_handler)
}

fn pselect6(
    task: &CurrentTask,
    count: i32,
    read: Address,
    write: Address,
    except: Address,
    timeout: UserPtr<Timespec>,
    argument: UserPtr<SigsetArgpack>,
) -> Result<usize> {
    let deadline = match timeout.non_null() {
        Some(pointer) => after(task, Some(pointer.read(task)?.to_duration()?)),
        None => None,
    };
    if let Some(argument) = argument.non_null() {
        let pack = argument.read(task)?;
        if pack.p != 0 {
            let mask = read_mask(task, UserPtr::new(pack.p), pack.size as usize)?;
            task.set_temporary_mask(mask);
        }
    }
    let result = do_select(task, count, [read, write, except], deadline);
    write_rest(task, timeout, deadline);
    result.map_err(no_handler)
}

fn epoll_create(task: &CurrentTask, size: i32) -> Result<i32> {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(task, 0)
}

fn epoll_create1(task: &CurrentTask, flags: u32) -> Result<i32> {
    if flags & !EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    task.install(epoll::open(task), flags != 0)
}

fn epoll_ctl(task: &CurrentTask, epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) -> Result<()> {
    let event = if op == EPOLL_CTL_DEL { EpollEvent::default() } else { event.read(task)? };
    let instance_file = task.file(epfd)?;
    let file = task.real_file(fd)?;
    if file.operations().wait_queue().is_none() {
        return Err(Errno::EPERM);
    }
    let instance = instance_file.ops::<Epoll>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&instance_file, &file) {
        return Err(Errno::EINVAL);
    }
    match op {
        EPOLL_CTL_ADD => instance.add(fd, &file, &event),
        EPOLL_CTL_MOD => instance.modify(fd, &file, &event),
        EPOLL_CTL_DEL => instance.delete(fd, &file),
        _ => Err(Errno::EINVAL),
    }
}

/// How many events one call may return (EP_MAX_EVENTS).
const EVENTS_MAX: i32 = i32::MAX / size_of::<EpollEvent>() as i32;

fn do_epoll_wait(
    task: &CurrentTask,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    deadline: Option<u64>,
) -> Result<usize> {
    if max <= 0 || max > EVENTS_MAX {
        return Err(Errno::EINVAL);
    }
    sentry::mm::MemoryManager::check_range(events.addr, max as u64 * size_of::<EpollEvent>() as u64)?;
    let file = task.file(epfd)?;
    let instance = file.ops::<Epoll>().ok_or(Errno::EINVAL)?;
    let max = (max as usize).min(64 * 1024);
    let take = || {
        let taken = instance.take(max);
        (!taken.is_empty()).then_some(taken)
    };
    let taken = match take() {
        Some(taken) => taken,
        None if deadline.is_some_and(|d| d <= task.kernel().clock.monotonic()) => return Ok(0),
        None => match task.wait_until(&[(instance.queue(), PollEvents::POLLIN)], deadline, take) {
            Ok(taken) => taken,
            Err(Errno::ETIMEDOUT) => return Ok(0),
            Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
            Err(e) => return Err(e),
        },
    };
    let mut bytes = Vec::with_capacity(taken.len() * size_of::<EpollEvent>());
    for event in &taken {
        bytes.extend_from_slice(zerocopy::IntoBytes::as_bytes(event));
    }
    task.mm().write_result(events.addr, &bytes)?;
    Ok(taken.len())
}

fn epoll_wait(
    task: &CurrentTask,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
) -> Result<usize> {
    do_epoll_wait(task, epfd, events, max, after(task, millis(timeout)))
}

fn epoll_pwait(
    task: &CurrentTask,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
    mask: UserPtr<SignalSet>,
) -> Result<usize> {
    if !mask.is_null() {
        let mask = read_mask(task, mask, task.arguments().1[5] as usize)?;
        task.set_temporary_mask(mask);
    }
    do_epoll_wait(task, epfd, events, max, after(task, millis(timeout)))
}

fn epoll_pwait2(
    task: &CurrentTask,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SignalSet>,
) -> Result<usize> {
    let deadline = after_timeout(task, timeout)?;
    if !mask.is_null() {
        let mask = read_mask(task, mask, task.arguments().1[5] as usize)?;
        task.set_temporary_mask(mask);
    }
    do_epoll_wait(task, epfd, events, max, deadline)
}

fn eventfd(task: &CurrentTask, count: u32) -> Result<i32> {
    eventfd2(task, count, 0)
}

fn eventfd2(task: &CurrentTask, count: u32, flags: u32) -> Result<i32> {
    const EFD_SEMAPHORE: u32 = 1;
    let open = OpenFlags::from_bits_retain(flags & !EFD_SEMAPHORE);
    if !(open - OpenFlags::O_CLOEXEC - OpenFlags::O_NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let file = eventfd::open(task.kernel(), count, flags & EFD_SEMAPHORE != 0, open & OpenFlags::O_NONBLOCK);
    task.install(file, open.contains(OpenFlags::O_CLOEXEC))
}

fn signalfd(task: &CurrentTask, fd: i32, mask: UserPtr<SignalSet>, size: usize) -> Result<i32> {
    signalfd4(task, fd, mask, size, 0)
}

fn signalfd4(task: &CurrentTask, fd: i32, mask: UserPtr<SignalSet>, size: usize, flags: u32) -> Result<i32> {
    let mask = read_mask(task, mask, size)?;
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::O_CLOEXEC - OpenFlags::O_NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    if fd == -1 {
        let file = signalfd::open(task, mask, flags & OpenFlags::O_NONBLOCK);
        return task.install(file, flags.contains(OpenFlags::O_CLOEXEC));
    }
    let file = task.file(fd)?;
    file.ops::<signalfd::SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(fd)
}
