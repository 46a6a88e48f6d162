//! Signals (kernel/signal.c).

use std::sync::Arc;

use abi::signal::{
    KernelSigaction, SI_TKILL, SIG_BLOCK, SIG_DFL, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK, SaFlags, SigInfo,
    Signal, SignalSet, StackT,
};
use abi::time::Timespec;
use abi::{Errno, Result};
use sentry::task::signal::{may_signal, user_info};
use sentry::task::{CurrentTask, Outcome, ThreadGroup};

use crate::arguments::UserPtr;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    RT_SIGACTION => rt_sigaction;
    RT_SIGPROCMASK => rt_sigprocmask;
    RT_SIGPENDING => rt_sigpending;
    RT_SIGSUSPEND => rt_sigsuspend;
    RT_SIGTIMEDWAIT => rt_sigtimedwait;
    RT_SIGQUEUEINFO => rt_sigqueueinfo;
    RT_TGSIGQUEUEINFO => rt_tgsigqueueinfo;
    RT_SIGRETURN => rt_sigreturn;
    SIGALTSTACK => sigaltstack;
    KILL => kill;
    TKILL => tkill;
    TGKILL => tgkill;
    PAUSE => pause;
    PIDFD_SEND_SIGNAL => pidfd_send_signal;
};

const SIGSET_SIZE: usize = 8;

/// The mask argument of a call, with its size. EINVAL for another size, EFAULT.
pub fn read_mask(task: &CurrentTask, mask: UserPtr<SignalSet>, size: usize) -> Result<SignalSet> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    mask.read(task)
}

fn rt_sigaction(
    task: &CurrentTask,
    number: i32,
    new: UserPtr<KernelSigaction>,
    old: UserPtr<KernelSigaction>,
    size: usize,
) -> Result<()> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let new = match new.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    let signal = Signal::from_i32(number).ok_or(Errno::EINVAL)?;
    if new.is_some() && matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
        return Err(Errno::EINVAL);
    }
    let actions = task.group.actions.read().clone();
    let previous = actions.lock().get(signal);
    if let Some(mut action) = new {
        action.mask = action.mask.difference(SignalSet::UNBLOCKABLE);
        // Flags that are not known are cleared, so that a program can find out which are.
        action.flags = SaFlags::from_bits_truncate(action.flags).bits() & !SaFlags::SA_UNSUPPORTED.bits();
        actions.lock().set(signal, action);
        let ignored = actions.lock().ignores(signal);
        if ignored && matches!(action.handler, SIG_IGN | SIG_DFL) {
            // What waits of a signal that is ignored now goes away (POSIX 3.3.1.3).
            let mut group = task.group.signals.lock();
            group.pending.discard(signal.into());
            for thread in task.group.threads() {
                thread.signals.lock().pending.discard(signal.into());
            }
        }
    }
    old.write_if_some(task, &previous)
}

fn rt_sigprocmask(
    task: &CurrentTask,
    how: u32,
    new: UserPtr<SignalSet>,
    old: UserPtr<SignalSet>,
    size: usize,
) -> Result<()> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let previous = task.blocked();
    if let Some(pointer) = new.non_null() {
        let set = pointer.read(task)?;
        let mask = match how {
            SIG_BLOCK => previous.union(set),
            SIG_UNBLOCK => previous.difference(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        task.set_blocked(mask);
    }
    old.write_if_some(task, &previous)
}

fn rt_sigpending(task: &CurrentTask, set: UserPtr<u64>, size: usize) -> Result<()> {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = task.pending().intersection(task.blocked());
    task.mm().write_result(set.addr, &pending.0.to_le_bytes()[..size])
}

fn rt_sigsuspend(task: &CurrentTask, mask: UserPtr<SignalSet>, size: usize) -> Result<()> {
    let mask = read_mask(task, mask, size)?;
    task.set_temporary_mask(mask);
    wait_for_signal(task)
}

fn pause(task: &CurrentTask) -> Result<()> {
    wait_for_signal(task)
}

fn wait_for_signal(task: &CurrentTask) -> Result<()> {
    match task.sleep::<()>(None, true, || None) {
        Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
        result => result,
    }
}

fn rt_sigtimedwait(
    task: &CurrentTask,
    set: UserPtr<SignalSet>,
    info: UserPtr<SigInfo>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> Result<u32> {
    let wanted = read_mask(task, set, size)?.difference(SignalSet::UNBLOCKABLE);
    let deadline = match timeout.non_null() {
        None => None,
        Some(pointer) => {
            let time = pointer.read(task)?.to_duration()?;
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            Some(task.kernel().clock.monotonic().saturating_add(nanos))
        }
    };
    let group = task.group.clone();
    let queue = [(&group.signal_events, abi::poll::PollEvents::POLLIN)];
    let taken = match task.take_signal(wanted) {
        Some(taken) => taken,
        None => {
            // A signal that is waited for is not to be taken as one that interrupts.
            let old = task.set_blocked(task.blocked().union(wanted));
            let result = task.wait_until(&queue, deadline, || task.take_signal(wanted));
            task.set_blocked(old);
            result.map_err(|e| match e {
                Errno::ETIMEDOUT => Errno::EAGAIN,
                Errno::ERESTARTSYS => Errno::EINTR,
                e => e,
            })?
        }
    };
    info.write_if_some(task, &taken)?;
    Ok(taken.si_signo as u32)
}

fn queue_info(
    task: &CurrentTask,
    number: i32,
    info: UserPtr<SigInfo>,
    target: &Arc<ThreadGroup>,
) -> Result<SigInfo> {
    let mut info = info.read(task)?;
    info.si_signo = number;
    // Only the kernel and kill(2) may claim to be the kernel or kill(2).
    if (info.si_code >= 0 || info.si_code == SI_TKILL) && !Arc::ptr_eq(target, &task.group) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn signal_of(number: i32) -> Result<Option<Signal>> {
    match number {
        0 => Ok(None),
        n => Signal::from_i32(n).map(Some).ok_or(Errno::EINVAL),
    }
}

fn rt_sigqueueinfo(task: &CurrentTask, pid: i32, number: i32, info: UserPtr<SigInfo>) -> Result<()> {
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    let target = process::process(task, pid)?;
    let info = queue_info(task, number, info, &target)?;
    let signal = signal_of(number)?;
    check(task, &target, signal)?;
    if signal.is_some() { target.send_signal_of(&task.group, info) } else { Ok(()) }
}

fn rt_tgsigqueueinfo(
    task: &CurrentTask,
    tgid: i32,
    tid: i32,
    number: i32,
    info: UserPtr<SigInfo>,
) -> Result<()> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let target = process::thread(task, tid)?;
    let info = queue_info(task, number, info, &target.group)?;
    if target.group.pid.number_in(&task.pid_ns()) as i32 != tgid {
        return Err(Errno::ESRCH);
    }
    let signal = signal_of(number)?;
    may_signal(task, &target, signal)?;
    if signal.is_some() { target.send_signal_of(&task.group, info) } else { Ok(()) }
}

fn rt_sigreturn(task: &CurrentTask) -> Result<Outcome> {
    let left = task.with_context(|context| {
        let mut edited = context.clone();
        let result = task.leave_handler(&mut edited);
        if result.is_ok() {
            *context = edited;
        }
        result
    })?;
    if left.is_err() {
        task.force_signal(SigInfo::kernel(Signal::SIGSEGV));
    }
    Ok(Outcome::Context)
}

fn sigaltstack(task: &CurrentTask, new: UserPtr<StackT>, old: UserPtr<StackT>) -> Result<()> {
    let new = match new.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    let sp = task.with_context(|context| context.regs.rsp)?;
    let current = task.signals.lock().stack;
    let mut shown = current;
    if current.ss_size == 0 {
        shown = StackT { ss_flags: abi::signal::SS_DISABLE, ..StackT::default() };
    } else if task.on_signal_stack(&current, sp) {
        shown.ss_flags |= abi::signal::SS_ONSTACK;
    }
    if let Some(new) = new {
        task.set_signal_stack(&new, sp)?;
    }
    old.write_if_some(task, &shown)
}

/// EPERM unless the caller may signal the process.
fn check(task: &CurrentTask, target: &Arc<ThreadGroup>, signal: Option<Signal>) -> Result<()> {
    match target.any_task() {
        Some(thread) => may_signal(task, &thread, signal),
        // A zombie: there is nothing left to protect.
        None => Ok(()),
    }
}

fn send_to(task: &CurrentTask, target: &Arc<ThreadGroup>, signal: Option<Signal>) -> Result<()> {
    check(task, target, signal)?;
    match signal {
        Some(signal) => target.send_signal_of(&task.group, user_info(task, target, signal, false)),
        None => Ok(()),
    }
}

fn kill(task: &CurrentTask, pid: i32, number: i32) -> Result<()> {
    if pid > 0 {
        let target = process::process(task, pid)?;
        return send_to(task, &target, signal_of(number)?);
    }
    // Nobody comes to be while many are signalled.
    let _tasklist = task.kernel().tasklist.lock();
    let targets = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        0 => task.group.process_group().members(),
        -1 => {
            let ns = task.pid_ns();
            let all = ns.pids().into_iter().filter_map(|(n, pid)| if n == 1 { None } else { pid.group() });
            all.filter(|g| !Arc::ptr_eq(g, &task.group)).collect()
        }
        p => {
            let pid = task.pid_ns().find(p.unsigned_abs()).ok_or(Errno::ESRCH)?;
            pid.process_group().ok_or(Errno::ESRCH)?.members()
        }
    };
    let signal = signal_of(number)?;
    if pid == -1 {
        // Those that may not be signalled are passed over in silence.
        for target in &targets {
            let _ = send_to(task, target, signal);
        }
        return if targets.is_empty() { Err(Errno::ESRCH) } else { Ok(()) };
    }
    send_to_all(task, &targets, signal, None)
}

fn tkill(task: &CurrentTask, tid: i32, number: i32) -> Result<()> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(task, None, tid, number)
}

fn tgkill(task: &CurrentTask, tgid: i32, tid: i32, number: i32) -> Result<()> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(task, Some(tgid), tid, number)
}

fn to_thread(task: &CurrentTask, tgid: Option<i32>, tid: i32, number: i32) -> Result<()> {
    let target = process::thread(task, tid)?;
    if tgid.is_some_and(|tgid| target.group.pid.number_in(&task.pid_ns()) as i32 != tgid) {
        return Err(Errno::ESRCH);
    }
    let signal = signal_of(number)?;
    may_signal(task, &target, signal)?;
    match signal {
        Some(signal) => target.send_signal_of(&task.group, user_info(task, &target.group, signal, true)),
        None => Ok(()),
    }
}

/// Sends to processes, with `info` or what kill(2) says. The error only if nobody got it; ESRCH if there is nobody.
fn send_to_all(
    task: &CurrentTask,
    targets: &[Arc<ThreadGroup>],
    signal: Option<Signal>,
    info: Option<SigInfo>,
) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for target in targets {
        let sent = check(task, target, signal).and_then(|()| match signal {
            Some(signal) => target
                .send_signal_of(&task.group, info.unwrap_or_else(|| user_info(task, target, signal, false))),
            None => Ok(()),
        });
        match sent {
            Ok(()) => result = Ok(()),
            Err(error) if result == Err(Errno::ESRCH) => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

fn pidfd_send_signal(
    task: &CurrentTask,
    fd: i32,
    number: i32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> Result<()> {
    use abi::pidfd::{
        PIDFD_SELF_THREAD, PIDFD_SELF_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP, PIDFD_SIGNAL_THREAD,
        PIDFD_SIGNAL_THREAD_GROUP,
    };
    const SCOPES: u32 = PIDFD_SIGNAL_THREAD | PIDFD_SIGNAL_THREAD_GROUP | PIDFD_SIGNAL_PROCESS_GROUP;
    if flags & !SCOPES != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let (pid, is_thread) = match fd {
        PIDFD_SELF_THREAD => (task.pid(), true),
        PIDFD_SELF_THREAD_GROUP => (task.group.pid.clone(), false),
        fd => sentry::fs::pidfd::target(&*task.file(fd)?)?,
    };
    // Who is not to be seen from here cannot be signalled either.
    if pid.number_in(&task.pid_ns()) == 0 {
        return Err(Errno::EINVAL);
    }
    let to_thread = flags == PIDFD_SIGNAL_THREAD || flags == 0 && is_thread;
    let target = pid.task().map(|thread| thread.group.clone()).or_else(|| pid.group());
    let signal = signal_of(number);
    let info = match info.non_null() {
        Some(pointer) => {
            let read = pointer.read(task)?;
            if read.si_signo != number {
                return Err(Errno::EINVAL);
            }
            let target = target.as_ref().ok_or(Errno::ESRCH)?;
            Some(queue_info(task, number, pointer, target)?)
        }
        None => None,
    };
    if flags == PIDFD_SIGNAL_PROCESS_GROUP {
        let _tasklist = task.kernel().tasklist.lock();
        let members = pid.process_group().map(|group| group.members()).unwrap_or_default();
        return send_to_all(task, &members, signal?, info);
    }
    let target = target.ok_or(Errno::ESRCH)?;
    if !to_thread {
        return send_to_all(task, &[target], signal?, info);
    }
    let thread = pid.task().ok_or(Errno::ESRCH)?;
    let signal = signal?;
    may_signal(task, &thread, signal)?;
    match signal {
        Some(signal) => {
            thread.send_signal_of(&task.group, info.unwrap_or_else(|| user_info(task, &target, signal, true)))
        }
        None => Ok(()),
    }
}
