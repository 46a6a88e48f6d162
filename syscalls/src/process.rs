//! Processes and threads: making, replacing, ending and waiting for them; groups and sessions (kernel/fork.c,
//! kernel/exit.c, kernel/sys.c, fs/exec.c).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::fcntl::AtFlags;
use abi::sched::{CloneArgs, CloneFlags};
use abi::signal::{SigInfo, Signal};
use abi::wait::{P_ALL, P_PGID, P_PID, P_PIDFD, Rusage, WaitOptions};
use abi::{Errno, Result};
use sentry::mm::Window;
use sentry::task::clone::CloneRequest;
use sentry::task::exec::{ExecRequest, open_executable};
use sentry::task::group::{ProcessGroup, Usage};
use sentry::task::wait::{Report, Which};
use sentry::task::{CurrentTask, Outcome, Pid, Task};
use sentry::vfs::FdFlags;

use crate::arguments::{Address, UserCStr, UserPtr};
use crate::files::{AT_FDCWD, read_extensible, resolve_flags};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    CLONE => clone;
    CLONE3 => clone3;
    FORK => fork;
    VFORK => vfork;
    EXECVE => execve;
    EXECVEAT => execveat;
    EXIT => exit;
    EXIT_GROUP => exit_group;
    WAIT4 => wait4;
    WAITID => waitid;
    GETPID => getpid;
    GETTID => gettid;
    GETPPID => getppid;
    GETPGID => getpgid;
    GETPGRP => getpgrp;
    SETPGID => setpgid;
    GETSID => getsid;
    SETSID => setsid;
    SET_TID_ADDRESS => set_tid_address;
    ARCH_PRCTL => arch_prctl;
};

/// The longest argument or variable (MAX_ARG_STRLEN).
const ARGUMENT_MAX: usize = 128 * 1024;

/// How many there may be in all bytes, whatever the stack limit is (ARG_MAX of a 24 MiB stack).
const ARGUMENTS_MAX: usize = 6 * 1024 * 1024;

fn clone(
    task: &CurrentTask,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> Result<u32> {
    let exit_signal = Signal::from_i32((flags & 0xff) as i32);
    // Bits that nobody knows are ignored by clone(2), and only by it.
    let flags = CloneFlags::from_bits_truncate(flags & 0xffff_ff00);
    if flags.contains(CloneFlags::CLONE_PIDFD | CloneFlags::CLONE_PARENT_SETTID) {
        // Both would be written to the same place.
        return Err(Errno::EINVAL);
    }
    task.clone_task(&CloneRequest {
        flags,
        pidfd: if flags.contains(CloneFlags::CLONE_PIDFD) { parent_tid } else { 0 },
        child_tid,
        parent_tid,
        exit_signal: if flags.contains(CloneFlags::CLONE_THREAD) { None } else { exit_signal },
        stack,
        tls,
        set_tid: Vec::new(),
        cgroup: None,
    })
}

fn fork(task: &CurrentTask) -> Result<u32> {
    task.clone_task(&CloneRequest { exit_signal: Some(Signal::SIGCHLD), ..CloneRequest::default() })
}

fn vfork(task: &CurrentTask) -> Result<u32> {
    let flags = CloneFlags::CLONE_VFORK | CloneFlags::CLONE_VM;
    task.clone_task(&CloneRequest { flags, exit_signal: Some(Signal::SIGCHLD), ..CloneRequest::default() })
}

fn clone3(task: &CurrentTask, args: Address, size: usize) -> Result<u32> {
    let args: CloneArgs = read_extensible(task, args.0, size, 64)?;
    let flags = CloneFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    if flags.contains(CloneFlags::CLONE_DETACHED)
        || args.flags & 0xff != 0 && !flags.contains(CloneFlags::CLONE_NEWTIME)
    {
        return Err(Errno::EINVAL);
    }
    if args.exit_signal & !0xff != 0 || args.exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::CLONE_THREAD | CloneFlags::CLONE_PARENT) && args.exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    if (args.stack == 0) != (args.stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    if args.set_tid_size > 32 || (args.set_tid == 0) != (args.set_tid_size == 0) {
        return Err(Errno::EINVAL);
    }
    let into_cgroup = flags.contains(CloneFlags::CLONE_INTO_CGROUP);
    if into_cgroup && size < abi::sched::CLONE_ARGS_SIZE_VER2 {
        return Err(Errno::EINVAL);
    }
    let cgroup = match i32::try_from(args.cgroup) {
        _ if !into_cgroup => None,
        Ok(fd) => Some(sentry::fs::cgroup::to_enter(task, &*task.file(fd)?)?),
        Err(_) => return Err(Errno::EINVAL),
    };
    let set_tid = UserPtr::<u32>::new(args.set_tid).read_slice(task, args.set_tid_size as usize)?;
    if !set_tid.is_empty() {
        let ns = task.namespaces().pid_for_children.user_ns.clone();
        let creds = task.credentials();
        let capable = creds.capable_in(&ns, abi::capability::CAP_CHECKPOINT_RESTORE)
            || creds.capable_in(&ns, abi::capability::CAP_SYS_ADMIN);
        if !capable {
            return Err(Errno::EPERM);
        }
    }
    task.clone_task(&CloneRequest {
        flags,
        pidfd: args.pidfd,
        child_tid: args.child_tid,
        parent_tid: args.parent_tid,
        exit_signal: Signal::from_i32(args.exit_signal as i32),
        stack: args.stack.wrapping_add(args.stack_size),
        tls: args.tls,
        set_tid,
        cgroup,
    })
}

/// A null-terminated array of strings. E2BIG beyond the limits, EFAULT.
fn read_strings(task: &CurrentTask, array: u64, total: &mut usize) -> Result<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    if array == 0 {
        return Ok(strings);
    }
    let mm = task.mm();
    let (mut pointers, mut texts) = (Window::new(&mm), Window::new(&mm));
    let mut at = array;
    loop {
        let pointer = pointers.read_u64(at)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = texts.read_cstring(pointer, ARGUMENT_MAX, Errno::E2BIG)?;
        *total += string.len() + 1 + size_of::<u64>();
        if *total > ARGUMENTS_MAX {
            return Err(Errno::E2BIG);
        }
        strings.push(string);
        at = at.checked_add(size_of::<u64>() as u64).ok_or(Errno::EFAULT)?;
    }
}

fn execve(task: &CurrentTask, path: UserCStr, argv: Address, envp: Address) -> Result<Outcome> {
    execveat(task, AT_FDCWD, path, argv, envp, 0)
}

fn execveat(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    argv: Address,
    envp: Address,
    flags: u32,
) -> Result<Outcome> {
    let flags = AtFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if !(flags - AtFlags::AT_EMPTY_PATH - AtFlags::AT_SYMLINK_NOFOLLOW).is_empty() {
        return Err(Errno::EINVAL);
    }
    let name = path.path(task)?;
    let place = resolve_flags(task, dirfd, path, flags)?;
    if flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW)
        && place.inode().file_type() == abi::stat::FileType::Symlink
    {
        return Err(Errno::ELOOP);
    }
    let file = open_executable(task, &place)?;
    let by_fd = dirfd != AT_FDCWD && name.first() != Some(&b'/');
    let (filename, unreachable) = if by_fd {
        let cloexec = task.fds().entry(dirfd)?.1.contains(FdFlags::CLOEXEC);
        let mut filename = format!("/dev/fd/{dirfd}").into_bytes();
        if !name.is_empty() {
            filename.push(b'/');
            filename.extend_from_slice(&name);
        }
        (filename, cloexec)
    } else {
        (name, false)
    };
    let mut total = 0;
    let mut argv = read_strings(task, argv.0, &mut total)?;
    let envp = read_strings(task, envp.0, &mut total)?;
    if argv.is_empty() {
        // Linux starts such a program with one empty argument.
        argv.push(Vec::new());
    }
    task.exec(ExecRequest { file, filename, unreachable, argv, envp })?;
    Ok(Outcome::Context)
}

fn exit(_task: &CurrentTask, code: i32) -> Result<Outcome> {
    Ok(Outcome::Exit(abi::wait::exited(code)))
}

fn exit_group(task: &CurrentTask, code: i32) -> Result<Outcome> {
    Ok(Outcome::Exit(task.group.begin_exit(abi::wait::exited(code))))
}

/// struct rusage.
pub fn rusage(usage: &Usage) -> Rusage {
    let time = |nanos: u64| abi::time::Timeval::from_nanos(nanos as i64);
    Rusage {
        ru_utime: time(usage.time.user),
        ru_stime: time(usage.time.system),
        ru_maxrss: usage.max_rss as i64,
        ru_nvcsw: usage.voluntary as i64,
        ru_nivcsw: usage.involuntary as i64,
        ..Rusage::default()
    }
}

fn find(task: &CurrentTask, number: i32) -> Option<Arc<Pid>> {
    task.pid_ns().find(u32::try_from(number).ok()?)
}

fn which(pid: Option<Arc<Pid>>, group: bool) -> Which {
    match pid {
        None => Which::Nobody,
        Some(pid) if group => Which::Group(pid),
        Some(pid) => Which::Process(pid),
    }
}

fn wait4(
    task: &CurrentTask,
    pid: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> Result<u32> {
    let options = WaitOptions::from_bits(options).ok_or(Errno::EINVAL)?;
    let known = WaitOptions::WNOHANG
        | WaitOptions::WUNTRACED
        | WaitOptions::WCONTINUED
        | WaitOptions::__WNOTHREAD
        | WaitOptions::__WCLONE
        | WaitOptions::__WALL;
    if !(options - known).is_empty() {
        return Err(Errno::EINVAL);
    }
    let whom = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(task.group.process_group().pid.clone()),
        p if p < 0 => which(find(task, -p), true),
        p => which(find(task, p), false),
    };
    let Some(report) = task.wait_for_child(&whom, options | WaitOptions::WEXITED)? else { return Ok(0) };
    status.write_if_some(task, &(report.status as i32))?;
    usage.write_if_some(task, &rusage(&report.usage))?;
    Ok(report.pid.number_in(&task.pid_ns()))
}

fn waitid(
    task: &CurrentTask,
    kind: u32,
    id: i32,
    info: UserPtr<SigInfo>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> Result<()> {
    let mut options = WaitOptions::from_bits(options).ok_or(Errno::EINVAL)?;
    if !options.intersects(WaitOptions::WEXITED | WaitOptions::WSTOPPED | WaitOptions::WCONTINUED) {
        return Err(Errno::EINVAL);
    }
    let whom = match kind {
        P_ALL => Which::Any,
        P_PID if id <= 0 => return Err(Errno::EINVAL),
        P_PID => which(find(task, id), false),
        P_PGID if id < 0 => return Err(Errno::EINVAL),
        P_PGID if id == 0 => Which::Group(task.group.process_group().pid.clone()),
        P_PGID => which(find(task, id), true),
        P_PIDFD => {
            let file = task.file(id)?;
            let pidfd = file.ops::<sentry::fs::pidfd::PidFd>().ok_or(Errno::EBADF)?;
            if file.nonblocking() && !options.contains(WaitOptions::WNOHANG) {
                options |= WaitOptions::WNOHANG;
                let found = task.wait_for_child(&Which::Process(pidfd.pid.clone()), options)?;
                let report = found.ok_or(Errno::EAGAIN)?;
                return write_report(task, Some(report), info, usage);
            }
            Which::Process(pidfd.pid.clone())
        }
        _ => return Err(Errno::EINVAL),
    };
    let report = task.wait_for_child(&whom, options)?;
    write_report(task, report, info, usage)
}

fn write_report(
    task: &CurrentTask,
    report: Option<Report>,
    info: UserPtr<SigInfo>,
    usage: UserPtr<Rusage>,
) -> Result<()> {
    let filled = match &report {
        None => SigInfo::default(),
        Some(r) => {
            let uid = task.credentials().user_ns.uid(r.uid);
            let pid = r.pid.number_in(&task.pid_ns()) as i32;
            SigInfo::child(Signal::SIGCHLD, r.code, pid, uid, r.si_status(), 0, 0)
        }
    };
    info.write_if_some(task, &filled)?;
    if let Some(report) = &report {
        usage.write_if_some(task, &rusage(&report.usage))?;
    }
    Ok(())
}

fn getpid(task: &CurrentTask) -> Result<u32> {
    Ok(task.tgid())
}

fn gettid(task: &CurrentTask) -> Result<u32> {
    Ok(task.tid())
}

fn getppid(task: &CurrentTask) -> Result<u32> {
    Ok(task.group.parent().map_or(0, |p| p.pid.number_in(&task.pid_ns())))
}

/// The process that a number means; 0 is the caller. ESRCH.
pub fn process(task: &CurrentTask, number: i32) -> Result<Arc<sentry::task::ThreadGroup>> {
    if number == 0 {
        return Ok(task.group.clone());
    }
    let pid = find(task, number).ok_or(Errno::ESRCH)?;
    pid.group().or_else(|| pid.task().map(|t| t.group.clone())).ok_or(Errno::ESRCH)
}

/// The thread that a number means; 0 is the caller. ESRCH.
pub fn thread(task: &CurrentTask, number: i32) -> Result<Arc<Task>> {
    if number == 0 {
        return Ok(Arc::clone(task));
    }
    find(task, number).and_then(|pid| pid.task()).ok_or(Errno::ESRCH)
}

fn getpgid(task: &CurrentTask, pid: i32) -> Result<u32> {
    Ok(process(task, pid)?.process_group().pid.number_in(&task.pid_ns()))
}

fn getpgrp(task: &CurrentTask) -> Result<u32> {
    getpgid(task, 0)
}

fn getsid(task: &CurrentTask, pid: i32) -> Result<u32> {
    Ok(process(task, pid)?.session().pid.number_in(&task.pid_ns()))
}

fn setpgid(task: &CurrentTask, pid: i32, pgid: i32) -> Result<()> {
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = process(task, pid)?;
    if pid != 0
        && !Arc::ptr_eq(&target, &task.group)
        && find(task, pid).is_none_or(|p| !Arc::ptr_eq(&p, &target.pid))
    {
        return Err(Errno::EINVAL);
    }
    let _tasklist = task.kernel().tasklist.lock();
    let own = Arc::ptr_eq(&target, &task.group);
    if !own {
        if target.parent().is_none_or(|p| !Arc::ptr_eq(&p, &task.group)) {
            return Err(Errno::ESRCH);
        }
        if !Arc::ptr_eq(&target.session(), &task.group.session()) {
            return Err(Errno::EPERM);
        }
        if target.family.lock().did_exec {
            return Err(Errno::EACCES);
        }
    }
    if target.is_session_leader() {
        return Err(Errno::EPERM);
    }
    let wanted = if pgid == 0 { target.pid.clone() } else { find(task, pgid).ok_or(Errno::EPERM)? };
    let session = target.session();
    if Arc::ptr_eq(&wanted, &target.pid) {
        let group = match wanted.process_group() {
            Some(group) => group,
            None => ProcessGroup::new(wanted, session),
        };
        target.join_group(&group);
        return Ok(());
    }
    let group = wanted.process_group().filter(|g| Arc::ptr_eq(&g.session, &session)).ok_or(Errno::EPERM)?;
    target.join_group(&group);
    Ok(())
}

fn setsid(task: &CurrentTask) -> Result<u32> {
    let _tasklist = task.kernel().tasklist.lock();
    let group = &task.group;
    if group.pid.process_group().is_some_and(|g| !g.members().is_empty()) {
        return Err(Errno::EPERM);
    }
    group.begin_session();
    Ok(task.tgid())
}

fn set_tid_address(task: &CurrentTask, addr: u64) -> Result<u32> {
    task.clear_child_tid.store(addr, Ordering::Relaxed);
    Ok(task.tid())
}

fn arch_prctl(task: &CurrentTask, code: u32, addr: u64) -> Result<Outcome> {
    use abi::prctl as p;
    let check = |addr: u64| if addr >= platform::USER_MAX { Err(Errno::EPERM) } else { Ok(()) };
    match code {
        p::ARCH_SET_FS | p::ARCH_SET_GS => {
            check(addr)?;
            task.with_context(|context| {
                if code == p::ARCH_SET_FS {
                    context.regs.fs_base = addr;
                } else {
                    context.regs.gs_base = addr;
                }
                context.regs.rax = 0;
            })?;
            Ok(Outcome::Context)
        }
        p::ARCH_GET_FS | p::ARCH_GET_GS => {
            let value = task.with_context(|context| {
                if code == p::ARCH_GET_FS { context.regs.fs_base } else { context.regs.gs_base }
            })?;
            task.mm().write_object(addr, &value)?;
            Ok(Outcome::Value(0))
        }
        // CPUID cannot be made to fault here; shadow stacks and memory tagging are not there.
        p::ARCH_GET_CPUID => Ok(Outcome::Value(1)),
        p::ARCH_SET_CPUID => Err(Errno::ENODEV),
        _ => Err(Errno::EINVAL),
    }
}
