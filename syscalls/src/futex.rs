//! Futexes (futex(2), kernel/futex/syscalls.c).

use std::sync::atomic::Ordering;

use abi::futex as f;
use abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, Timespec};
use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::task::futex::WaitFor;

use crate::arguments::{Address, UserPtr};
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    FUTEX => futex, Partial, "locks with priority inheritance order their waiters, but boost nobody";
    FUTEX_WAKE => futex_wake;
    FUTEX_WAIT => futex_wait;
    FUTEX_REQUEUE => futex_requeue;
    FUTEX_WAITV => futex_waitv;
    SET_ROBUST_LIST => set_robust_list;
    GET_ROBUST_LIST => get_robust_list;
};

/// A deadline on the monotonic clock, from a timeout as futex(2) means it.
fn deadline(
    task: &CurrentTask,
    timeout: UserPtr<Timespec>,
    absolute: bool,
    realtime: bool,
) -> Result<Option<u64>> {
    let Some(pointer) = timeout.non_null() else { return Ok(None) };
    let time = pointer.read(task)?.to_duration()?;
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let clock = &task.kernel().clock;
    let now = clock.monotonic();
    Ok(Some(match (absolute, realtime) {
        (true, true) => now.saturating_add(nanos.saturating_sub(clock.realtime_nanos())),
        (true, false) => nanos,
        (false, _) => now.saturating_add(nanos),
    }))
}

fn futex(task: &CurrentTask, addr: u64, op: u32, value: u32, timeout: Address, addr2: u64) -> Result<usize> {
    let value3 = task.arguments().1[5] as u32;
    let shared = op & f::FUTEX_PRIVATE_FLAG == 0;
    let realtime = op & f::FUTEX_CLOCK_REALTIME != 0;
    let command = op & f::FUTEX_CMD_MASK;
    let timed = UserPtr::<Timespec>::new(timeout.0);
    // Of the operations that wake, the fourth argument is a second count.
    let value2 = timeout.0 as u32;
    if realtime && !matches!(command, f::FUTEX_WAIT_BITSET | f::FUTEX_WAIT_REQUEUE_PI | f::FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let mm = task.mm();
    let table = &task.kernel().futexes;
    match command {
        f::FUTEX_WAIT => wait(task, addr, value, shared, f::FUTEX_BITSET_MATCH_ANY, timed, false, realtime),
        f::FUTEX_WAIT_BITSET => wait(task, addr, value, shared, value3, timed, true, realtime),
        f::FUTEX_WAKE => {
            Ok(table.wake(mm.futex_key(addr, shared)?, value, f::FUTEX_BITSET_MATCH_ANY)? as usize)
        }
        f::FUTEX_WAKE_BITSET => {
            if value3 == 0 {
                return Err(Errno::EINVAL);
            }
            Ok(table.wake(mm.futex_key(addr, shared)?, value, value3)? as usize)
        }
        f::FUTEX_REQUEUE | f::FUTEX_CMP_REQUEUE => {
            if (value as i32) < 0 || (value2 as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let from = (addr, mm.futex_key(addr, shared)?);
            let to = mm.futex_key(addr2, shared)?;
            let expected = (command == f::FUTEX_CMP_REQUEUE).then_some(value3);
            let (woken, moved) = table.requeue(&mm, from, to, value, value2, expected)?;
            Ok((woken + moved) as usize)
        }
        f::FUTEX_WAKE_OP => wake_op(task, addr, addr2, shared, value, value2, value3),
        f::FUTEX_LOCK_PI | f::FUTEX_LOCK_PI2 => {
            // The older operation has always meant the wall clock.
            let realtime = realtime || command == f::FUTEX_LOCK_PI;
            let deadline = deadline(task, timed, true, realtime)?;
            task.futex_lock_pi(addr, shared, deadline, false).map(|()| 0)
        }
        f::FUTEX_TRYLOCK_PI => task.futex_lock_pi(addr, shared, None, true).map(|()| 0),
        f::FUTEX_UNLOCK_PI => task.futex_unlock_pi(addr, shared).map(|()| 0),
        f::FUTEX_WAIT_REQUEUE_PI => {
            let deadline = deadline(task, timed, true, realtime)?;
            let wait = WaitFor { addr, expected: value, shared };
            task.futex_wait_requeue_pi(wait, addr2, deadline).map(|()| 0)
        }
        f::FUTEX_CMP_REQUEUE_PI => {
            if (value as i32) < 0 || (value2 as i32) < 0 || value != 1 {
                return Err(Errno::EINVAL);
            }
            Ok(task.futex_cmp_requeue_pi(addr, addr2, shared, value2, value3)? as usize)
        }
        _ => Err(Errno::ENOSYS),
    }
}

#[allow(clippy::too_many_arguments, reason = "they are the call's")]
fn wait(
    task: &CurrentTask,
    addr: u64,
    expected: u32,
    shared: bool,
    bitset: u32,
    timeout: UserPtr<Timespec>,
    absolute: bool,
    realtime: bool,
) -> Result<usize> {
    let restarted = task.take_restart().map(|r| r.deadline);
    let deadline = match restarted {
        Some(deadline) => Some(deadline),
        None => deadline(task, timeout, absolute, realtime)?,
    };
    match task.futex_wait(WaitFor { addr, expected, shared }, bitset, deadline) {
        Ok(()) => Ok(0),
        // A relative timeout goes on where it was; without one the call is simply repeated.
        Err(Errno::ERESTARTSYS) => match deadline {
            Some(deadline) => Err(task.restart_with(deadline)),
            None => Err(Errno::ERESTARTSYS),
        },
        Err(e) => Err(e),
    }
}

fn wake_op(
    task: &CurrentTask,
    addr: u64,
    addr2: u64,
    shared: bool,
    wake: u32,
    wake2: u32,
    encoded: u32,
) -> Result<usize> {
    let mm = task.mm();
    let (key, key2) = (mm.futex_key(addr, shared)?, mm.futex_key(addr2, shared)?);
    let op = encoded >> 28 & 7;
    let shift = encoded >> 28 & f::FUTEX_OP_OPARG_SHIFT != 0;
    let comparison = encoded >> 24 & 15;
    // Both arguments are signed numbers of twelve bits.
    let argument = ((encoded << 8) as i32 >> 20) as u32;
    let compare_with = (encoded << 20) as i32 >> 20;
    let argument = if shift { 1u32.checked_shl(argument & 31).unwrap_or(0) } else { argument };
    if op > f::FUTEX_OP_XOR || comparison > f::FUTEX_OP_CMP_GE {
        return Err(Errno::ENOSYS);
    }
    let old = task.futex_modify(addr2, |old| match op {
        f::FUTEX_OP_SET => argument,
        f::FUTEX_OP_ADD => old.wrapping_add(argument),
        f::FUTEX_OP_OR => old | argument,
        f::FUTEX_OP_ANDN => old & !argument,
        _ => old ^ argument,
    })? as i32;
    let holds = match comparison {
        f::FUTEX_OP_CMP_EQ => old == compare_with,
        f::FUTEX_OP_CMP_NE => old != compare_with,
        f::FUTEX_OP_CMP_LT => old < compare_with,
        f::FUTEX_OP_CMP_LE => old <= compare_with,
        f::FUTEX_OP_CMP_GT => old > compare_with,
        _ => old >= compare_with,
    };
    let table = &task.kernel().futexes;
    let mut woken = table.wake(key, wake, f::FUTEX_BITSET_MATCH_ANY)?;
    if holds {
        woken += table.wake(key2, wake2, f::FUTEX_BITSET_MATCH_ANY)?;
    }
    Ok(woken as usize)
}

fn futex_waitv(
    task: &CurrentTask,
    waiters: UserPtr<f::FutexWaitv>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: i32,
) -> Result<usize> {
    if flags != 0 || count == 0 || count as usize > f::FUTEX_WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    if !timeout.is_null() && clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(task, timeout, true, clock == CLOCK_REALTIME)?;
    let waits = waiters.read_slice(task, count as usize)?.iter().map(wait_for).collect::<Result<Vec<_>>>()?;
    task.futex_wait_on(&waits, f::FUTEX_BITSET_MATCH_ANY, deadline)
}

/// The flags of the calls of 6.7 (futex_to_flags()): is the futex shared? EINVAL for sizes other than 32 bits, and for
/// the placement of memory, which one node does not have.
fn shared_of(flags: u32) -> Result<bool> {
    let known = f::FUTEX2_SIZE_MASK | f::FUTEX2_PRIVATE;
    if flags & !known != 0 || flags & f::FUTEX2_SIZE_MASK != f::FUTEX2_SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & f::FUTEX2_PRIVATE == 0)
}

/// A value or a mask of a 32-bit futex.
fn word(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Errno::EINVAL)
}

fn wait_for(entry: &f::FutexWaitv) -> Result<WaitFor> {
    let shared = shared_of(entry.flags)?;
    if entry._reserved != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(WaitFor { addr: entry.uaddr, expected: word(entry.val)?, shared })
}

fn futex_wake(task: &CurrentTask, addr: u64, mask: u64, count: i32, flags: u32) -> Result<usize> {
    let shared = shared_of(flags)?;
    let mask = word(mask)?;
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let key = task.mm().futex_key(addr, shared)?;
    // Unlike futex(2), none is none.
    if count == 0 {
        return Ok(0);
    }
    Ok(task.kernel().futexes.wake(key, count.max(1) as u32, mask)? as usize)
}

fn futex_wait(
    task: &CurrentTask,
    addr: u64,
    value: u64,
    mask: u64,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: i32,
) -> Result<()> {
    let shared = shared_of(flags)?;
    let (expected, mask) = (word(value)?, word(mask)?);
    if !timeout.is_null() && clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(task, timeout, true, clock == CLOCK_REALTIME)?;
    task.futex_wait(WaitFor { addr, expected, shared }, mask, deadline)
}

fn futex_requeue(
    task: &CurrentTask,
    waiters: UserPtr<f::FutexWaitv>,
    flags: u32,
    wake: i32,
    requeue: i32,
) -> Result<usize> {
    if flags != 0 || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let entries = waiters.read_slice(task, 2)?.iter().map(wait_for).collect::<Result<Vec<_>>>()?;
    let [from, to] = entries[..] else { return Err(Errno::EFAULT) };
    let wake = u32::try_from(wake).map_err(|_| Errno::EINVAL)?;
    let requeue = u32::try_from(requeue).map_err(|_| Errno::EINVAL)?;
    let mm = task.mm();
    let key = (from.addr, mm.futex_key(from.addr, from.shared)?);
    let to = mm.futex_key(to.addr, to.shared)?;
    let (woken, moved) = task.kernel().futexes.requeue(&mm, key, to, wake, requeue, Some(from.expected))?;
    Ok((woken + moved) as usize)
}

const HEAD_SIZE: usize = size_of::<f::RobustListHead>();

fn set_robust_list(task: &CurrentTask, head: u64, size: usize) -> Result<()> {
    if size != HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    task.robust_list.store(head, Ordering::Relaxed);
    Ok(())
}

fn get_robust_list(task: &CurrentTask, tid: i32, head: UserPtr<u64>, size: UserPtr<u64>) -> Result<()> {
    let target = process::thread(task, tid)?;
    crate::credentials::may_inspect(task, &target)?;
    size.write(task, &(HEAD_SIZE as u64))?;
    head.write(task, &target.robust_list.load(Ordering::Relaxed))
}
