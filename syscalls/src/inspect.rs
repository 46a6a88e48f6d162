//! Looking at and into other processes: pidfds, process_vm_readv(2), kcmp(2), membarrier(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_NICE};
use abi::fcntl::OpenFlags;
use abi::sched as s;
use abi::uio::Iovec;
use abi::{Errno, Result};
use sentry::mm::MemoryManager;
use sentry::task::{CurrentTask, Task};

use crate::arguments::UserPtr;
use crate::credentials::may_inspect;
use crate::io::read_iovecs;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    PIDFD_OPEN => pidfd_open;
    PIDFD_GETFD => pidfd_getfd;
    PROCESS_VM_READV => process_vm_readv;
    PROCESS_VM_WRITEV => process_vm_writev;
    PROCESS_MRELEASE => process_mrelease;
    KCMP => kcmp;
    MEMBARRIER => membarrier, Partial, "no restartable sequences to wait for";
    SCHED_GETATTR => sched_getattr;
    SCHED_SETATTR => sched_setattr, Partial, "remembered; the host schedules";
    SCHED_RR_GET_INTERVAL => sched_rr_get_interval;
    IOPRIO_GET => ioprio_get;
    IOPRIO_SET => ioprio_set, Partial, "remembered; the host schedules";
    RESTART_SYSCALL => restart_syscall;
    VHANGUP => vhangup;
};

fn pidfd_open(task: &CurrentTask, pid: i32, flags: u32) -> Result<i32> {
    const PIDFD_THREAD: u32 = OpenFlags::O_EXCL.bits();
    if flags & !(OpenFlags::O_NONBLOCK.bits() | PIDFD_THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let found = task.pid_ns().find(pid as u32).ok_or(Errno::ESRCH)?;
    let thread = flags & PIDFD_THREAD != 0;
    if !thread && found.group().is_none() {
        return Err(if found.task().is_some() { Errno::ENOENT } else { Errno::ESRCH });
    }
    let file = sentry::fs::pidfd::open(task.kernel(), &found, thread);
    if flags & OpenFlags::O_NONBLOCK.bits() != 0 {
        file.set_flags(OpenFlags::O_NONBLOCK);
    }
    task.install(file, true)
}

fn pidfd_getfd(task: &CurrentTask, pidfd: i32, fd: i32, flags: u32) -> Result<i32> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(pidfd)?;
    let pidfd = file.ops::<sentry::fs::pidfd::PidFd>().ok_or(Errno::EBADF)?;
    let target = pidfd.pid.group().and_then(|g| g.any_task()).ok_or(Errno::ESRCH)?;
    may_inspect(task, &target)?;
    let theirs = target.files().ok_or(Errno::ESRCH)?.get(fd)?;
    task.install(theirs, true)
}

/// A process that is being killed gives up its memory by itself, and at once.
fn process_mrelease(task: &CurrentTask, pidfd: i32, flags: u32) -> Result<()> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(pidfd)?;
    let pidfd = file.ops::<sentry::fs::pidfd::PidFd>().ok_or(Errno::EBADF)?;
    let target = pidfd.pid.group().and_then(|g| g.any_task()).ok_or(Errno::ESRCH)?;
    if target.is_killed() { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The memory of another process. ESRCH, EPERM.
fn memory_of(task: &CurrentTask, pid: i32) -> Result<Arc<MemoryManager>> {
    let target = process::thread(task, pid).map_err(|_| Errno::ESRCH)?;
    may_inspect(task, &target)?;
    target.memory().ok_or(Errno::ESRCH)
}

/// Copies between two lists of ranges until one ends or a fault. EFAULT if nothing was copied.
fn copy(from: (&MemoryManager, &[(u64, u64)]), to: (&MemoryManager, &[(u64, u64)])) -> Result<usize> {
    const PIECE: u64 = 64 * 1024;
    let (mut from_list, mut to_list) = (from.1.iter().copied(), to.1.iter().copied());
    let (mut source, mut target) = (from_list.next(), to_list.next());
    let mut done = 0;
    let mut buf = Vec::new();
    while let (Some(a), Some(b)) = (source, target) {
        let len = a.1.min(b.1).min(PIECE);
        if len == 0 {
            if a.1 == 0 {
                source = from_list.next();
            } else {
                target = to_list.next();
            }
            continue;
        }
        buf.resize(len as usize, 0);
        let read = from.0.read_upto(a.0, &mut buf).unwrap_or(0);
        let written = if read == 0 { 0 } else { to.0.write_upto(b.0, &buf[..read]).unwrap_or(0) };
        done += written;
        if (written as u64) < len {
            break;
        }
        source = Some((a.0 + len, a.1 - len));
        target = Some((b.0 + len, b.1 - len));
    }
    let wanted = from.1.iter().any(|r| r.1 > 0) && to.1.iter().any(|r| r.1 > 0);
    if done == 0 && wanted { Err(Errno::EFAULT) } else { Ok(done) }
}

fn process_vm_readv(
    task: &CurrentTask,
    pid: i32,
    local: UserPtr<Iovec>,
    local_count: usize,
    remote: UserPtr<Iovec>,
    remote_count: usize,
) -> Result<usize> {
    transfer(task, pid, (local, local_count), (remote, remote_count), false)
}

fn process_vm_writev(
    task: &CurrentTask,
    pid: i32,
    local: UserPtr<Iovec>,
    local_count: usize,
    remote: UserPtr<Iovec>,
    remote_count: usize,
) -> Result<usize> {
    transfer(task, pid, (local, local_count), (remote, remote_count), true)
}

fn transfer(
    task: &CurrentTask,
    pid: i32,
    local: (UserPtr<Iovec>, usize),
    remote: (UserPtr<Iovec>, usize),
    write: bool,
) -> Result<usize> {
    if task.arguments().1[5] != 0 {
        return Err(Errno::EINVAL);
    }
    let local = read_iovecs(task, local.0, local.1)?;
    let remote = read_iovecs(task, remote.0, remote.1)?;
    let own = task.mm();
    let other = memory_of(task, pid)?;
    if write { copy((&own, &local), (&other, &remote)) } else { copy((&other, &remote), (&own, &local)) }
}

fn kcmp(task: &CurrentTask, pid1: i32, pid2: i32, kind: u32, index1: u64, index2: u64) -> Result<u32> {
    const KCMP_FILE: u32 = 0;
    const KCMP_IO: u32 = 5;
    const KCMP_SYSVSEM: u32 = 6;
    let find = |pid| process::thread(task, pid).map_err(|_| Errno::ESRCH);
    let (a, b) = (find(pid1)?, find(pid2)?);
    may_inspect(task, &a)?;
    may_inspect(task, &b)?;
    let order = |a: usize, b: usize| match a.cmp(&b) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    };
    fn address<T: ?Sized>(arc: &Arc<T>) -> usize {
        Arc::as_ptr(arc).cast::<()>() as usize
    }
    let gone = Errno::ESRCH;
    Ok(match kind {
        KCMP_FILE => {
            let file = |t: &Task, fd: u64| {
                let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
                t.files().ok_or(gone)?.get(fd)
            };
            order(address(&file(&a, index1)?), address(&file(&b, index2)?))
        }
        1 => order(address(&a.memory().ok_or(gone)?), address(&b.memory().ok_or(gone)?)),
        2 => order(address(&a.files().ok_or(gone)?), address(&b.files().ok_or(gone)?)),
        3 => order(address(&a.fs()), address(&b.fs())),
        4 => order(address(&a.group.actions.read()), address(&b.group.actions.read())),
        // Nobody has an I/O context.
        KCMP_IO => 0,
        KCMP_SYSVSEM => {
            // Who has nothing to undo has no list, which is the same for all.
            let list = |t: &Task| {
                let pid = &t.group.pid;
                let has = t.namespaces().ipc.sem.list().iter().any(|(_, set)| set.has_undo(pid));
                if has { address(pid) } else { 0 }
            };
            order(list(&a), list(&b))
        }
        _ => return Err(Errno::EINVAL),
    })
}

fn membarrier(task: &CurrentTask, command: u32, flags: u32, _cpu: i32) -> Result<u32> {
    const QUERY: u32 = 0;
    const GLOBAL: u32 = 1;
    const GLOBAL_EXPEDITED: u32 = 2;
    const REGISTER_GLOBAL: u32 = 4;
    const PRIVATE: u32 = 8;
    const REGISTER_PRIVATE: u32 = 16;
    const GET_REGISTRATIONS: u32 = 512;
    const KNOWN: u32 =
        GLOBAL | GLOBAL_EXPEDITED | REGISTER_GLOBAL | PRIVATE | REGISTER_PRIVATE | GET_REGISTRATIONS;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = &task.group.membarrier;
    match command {
        QUERY => Ok(KNOWN),
        GET_REGISTRATIONS => Ok(registered.load(Ordering::Relaxed)),
        REGISTER_GLOBAL | REGISTER_PRIVATE => {
            registered.fetch_or(command, Ordering::Relaxed);
            Ok(0)
        }
        PRIVATE if registered.load(Ordering::Relaxed) & REGISTER_PRIVATE == 0 => Err(Errno::EPERM),
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE => {
            // The host's barrier over all its processors covers every thread of the sandbox. It takes milliseconds.
            platform::memory_barrier()?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn sched_getattr(task: &CurrentTask, pid: i32, attr: UserPtr<u8>, size: u32, flags: u32) -> Result<()> {
    const FIRST_VERSION: u32 = 48;
    if attr.is_null() || pid < 0 || flags != 0 || !(FIRST_VERSION..=4096).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let target = process::thread(task, pid)?;
    let scheduling = *target.scheduling.lock();
    let full = s::SchedAttr {
        size: size.min(size_of::<s::SchedAttr>() as u32),
        sched_policy: scheduling.policy,
        sched_flags: u64::from(scheduling.reset_on_fork),
        sched_nice: scheduling.nice,
        sched_priority: scheduling.priority,
        ..s::SchedAttr::default()
    };
    let bytes = zerocopy::IntoBytes::as_bytes(&full);
    task.mm().write_bytes(attr.addr, &bytes[..bytes.len().min(size as usize)])
}

fn sched_setattr(task: &CurrentTask, pid: i32, attr: UserPtr<s::SchedAttr>, flags: u32) -> Result<()> {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size = task.mm().read_object::<u32>(attr.addr)?;
    let size = if size == 0 { 48 } else { size };
    let new: s::SchedAttr = match crate::files::read_extensible(task, attr.addr, size as usize, 48) {
        Err(Errno::EINVAL) => return Err(Errno::E2BIG),
        result => result?,
    };
    let target = process::thread(task, pid)?;
    let realtime = matches!(new.sched_policy, s::SCHED_FIFO | s::SCHED_RR);
    if new.sched_policy > s::SCHED_IDLE || new.sched_policy == 4 {
        return Err(Errno::EINVAL);
    }
    if realtime != (1..=99).contains(&new.sched_priority) {
        return Err(Errno::EINVAL);
    }
    let capable = task.capable(abi::capability::CAP_SYS_NICE);
    if realtime && !capable {
        return Err(Errno::EPERM);
    }
    let mut scheduling = target.scheduling.lock();
    if new.sched_nice < scheduling.nice && !capable {
        return Err(Errno::EPERM);
    }
    scheduling.policy = new.sched_policy;
    scheduling.priority = new.sched_priority;
    scheduling.nice = new.sched_nice.clamp(-20, 19);
    scheduling.reset_on_fork = new.sched_flags & 1 != 0;
    Ok(())
}

fn sched_rr_get_interval(task: &CurrentTask, pid: i32, interval: UserPtr<abi::time::Timespec>) -> Result<()> {
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = process::thread(task, pid)?;
    let nanos = match target.scheduling.lock().policy {
        s::SCHED_FIFO => 0,
        s::SCHED_RR => 100_000_000,
        _ => 4_000_000,
    };
    interval.write(task, &abi::time::Timespec::from_nanos(nanos))
}

/// The threads that `IOPRIO_WHO_*` means: with priorities of I/O as with those of the processor.
fn io_targets(task: &CurrentTask, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let which = which.checked_sub(1).and_then(|w| u32::try_from(w).ok()).ok_or(Errno::EINVAL)?;
    crate::system::targets(task, which, who)
}

/// The priority of one whose class is "none": it follows from the nice value (task_nice_ioprio()).
fn effective_io_priority(task: &Task) -> u32 {
    let scheduling = task.scheduling.lock();
    match scheduling.io_priority {
        0 => {
            let class = match scheduling.policy {
                abi::sched::SCHED_IDLE => s::IOPRIO_CLASS_IDLE,
                p if p == abi::sched::SCHED_FIFO || p == abi::sched::SCHED_RR => s::IOPRIO_CLASS_RT,
                _ => s::IOPRIO_CLASS_BE,
            };
            (class << s::IOPRIO_CLASS_SHIFT) | ((scheduling.nice + 20) as u32 / 5)
        }
        set => set.into(),
    }
}

fn ioprio_get(task: &CurrentTask, which: i32, who: i32) -> Result<u32> {
    let targets = io_targets(task, which, who)?;
    // Of one process what was set; of several the best of what that comes to, which is the lowest number.
    let priority = |t: &Arc<Task>| match which {
        1 => t.scheduling.lock().io_priority.into(),
        _ => effective_io_priority(t),
    };
    targets.iter().map(priority).min().ok_or(Errno::ESRCH)
}

fn ioprio_set(task: &CurrentTask, which: i32, who: i32, priority: i32) -> Result<()> {
    let class = priority as u32 >> s::IOPRIO_CLASS_SHIFT;
    let level = priority as u32 & 7;
    match class {
        s::IOPRIO_CLASS_RT if !task.capable(CAP_SYS_ADMIN) && !task.capable(CAP_SYS_NICE) => {
            return Err(Errno::EPERM);
        }
        s::IOPRIO_CLASS_RT | s::IOPRIO_CLASS_BE | s::IOPRIO_CLASS_IDLE => {}
        s::IOPRIO_CLASS_NONE if level == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    let value = u16::try_from(priority).map_err(|_| Errno::EINVAL)?;
    let own = task.credentials();
    for target in io_targets(task, which, who)? {
        let other = target.credentials();
        if other.uid != own.euid && other.uid != own.uid && !task.capable(CAP_SYS_NICE) {
            return Err(Errno::EPERM);
        }
        target.scheduling.lock().io_priority = value;
    }
    Ok(())
}

/// Interrupted calls are repeated without this, but for those of tracees.
fn restart_syscall(task: &CurrentTask) -> Result<sentry::task::Outcome> {
    task.repeat_call()
}

fn vhangup(task: &CurrentTask) -> Result<()> {
    if !task.capable(abi::capability::CAP_SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    if let Some(terminal) = task.group.terminal() {
        terminal.hang_up();
    }
    Ok(())
}
