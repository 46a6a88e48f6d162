//! prctl(2) (kernel/sys.c).

use std::sync::atomic::Ordering;

use abi::capability::{
    CAP_LAST_CAP, CAP_SETPCAP, CapSet, SECBIT_KEEP_CAPS, SECBIT_NO_CAP_AMBIENT_RAISE, SECURE_ALL_BITS,
    SECURE_ALL_LOCKS,
};
use abi::prctl as p;
use abi::{Errno, Result};
use sentry::task::{Credentials, CurrentTask};

use crate::arguments::Address;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    PRCTL => prctl, Partial, "no PR_SET_MM or PR_SET_VMA; no speculation or core scheduling control";
};

fn prctl(task: &CurrentTask, option: u32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) -> Result<u64> {
    let unused = |args: &[u64]| if args.iter().all(|&a| a == 0) { Ok(()) } else { Err(Errno::EINVAL) };
    match option {
        p::PR_SET_PDEATHSIG => {
            if arg2 > 64 {
                return Err(Errno::EINVAL);
            }
            task.parent_death_signal.store(arg2 as i32, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_PDEATHSIG => {
            task.mm().write_object(arg2, &task.parent_death_signal.load(Ordering::Relaxed))?;
            Ok(0)
        }
        p::PR_GET_DUMPABLE => Ok(task.mm().dumpable().into()),
        p::PR_SET_DUMPABLE => {
            if arg2 > 1 {
                return Err(Errno::EINVAL);
            }
            task.mm().set_dumpable(arg2 as u32);
            Ok(0)
        }
        p::PR_SET_NAME => {
            // What is longer is cut, without an error.
            let mut name = [0u8; 16];
            let n = task.mm().read_upto(arg2, &mut name)?;
            let len = name[..n.min(15)].iter().position(|&b| b == 0).unwrap_or(n.min(15));
            task.set_comm(&name[..len]);
            Ok(0)
        }
        p::PR_GET_NAME => {
            let mut name = [0u8; 16];
            let comm = task.comm();
            name[..comm.len()].copy_from_slice(&comm);
            task.mm().write_bytes(arg2, &name)?;
            Ok(0)
        }
        p::PR_GET_KEEPCAPS => Ok((task.credentials().securebits & SECBIT_KEEP_CAPS != 0).into()),
        p::PR_SET_KEEPCAPS => {
            if arg2 > 1 {
                return Err(Errno::EINVAL);
            }
            let creds = task.credentials();
            if creds.securebits & SECBIT_KEEP_CAPS << 1 != 0 {
                return Err(Errno::EPERM);
            }
            let bits = creds.securebits & !SECBIT_KEEP_CAPS | if arg2 == 1 { SECBIT_KEEP_CAPS } else { 0 };
            task.set_credentials(Credentials { securebits: bits, ..(*creds).clone() });
            Ok(0)
        }
        p::PR_GET_SECUREBITS => Ok(task.credentials().securebits.into()),
        p::PR_SET_SECUREBITS => set_securebits(task, arg2),
        p::PR_CAPBSET_READ => {
            if arg2 > u64::from(CAP_LAST_CAP) {
                return Err(Errno::EINVAL);
            }
            Ok(task.credentials().bounding.contains(arg2 as u32).into())
        }
        p::PR_CAPBSET_DROP => {
            let creds = task.credentials();
            if !creds.capable(CAP_SETPCAP) {
                return Err(Errno::EPERM);
            }
            if arg2 > u64::from(CAP_LAST_CAP) {
                return Err(Errno::EINVAL);
            }
            let bounding = creds.bounding.without(arg2 as u32);
            task.set_credentials(Credentials { bounding, ..(*creds).clone() });
            Ok(0)
        }
        p::PR_CAP_AMBIENT => {
            unused(&[arg4, arg5])?;
            ambient(task, arg2 as u32, arg3)
        }
        p::PR_SET_NO_NEW_PRIVS => {
            if arg2 != 1 {
                return Err(Errno::EINVAL);
            }
            unused(&[arg3, arg4, arg5])?;
            task.no_new_privs.store(true, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_NO_NEW_PRIVS => {
            unused(&[arg2, arg3, arg4, arg5])?;
            Ok(task.no_new_privs.load(Ordering::Relaxed).into())
        }
        p::PR_SET_CHILD_SUBREAPER => {
            task.group.family.lock().subreaper = arg2 != 0;
            Ok(0)
        }
        p::PR_GET_CHILD_SUBREAPER => {
            task.mm().write_object(arg2, &i32::from(task.group.family.lock().subreaper))?;
            Ok(0)
        }
        p::PR_SET_TIMERSLACK => {
            let default = task.default_timer_slack.load(Ordering::Relaxed);
            let slack = if arg2 as i64 <= 0 { default } else { arg2 };
            task.timer_slack.store(slack, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_TIMERSLACK => Ok(task.timer_slack.load(Ordering::Relaxed)),
        p::PR_GET_TIMING => Ok(0),
        p::PR_SET_TIMING => {
            if arg2 == 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        p::PR_GET_TSC => {
            task.mm().write_object(arg2, &1i32)?;
            Ok(0)
        }
        p::PR_SET_TSC => match arg2 {
            1 => Ok(0),
            _ => Err(Errno::EINVAL),
        },
        p::PR_GET_TID_ADDRESS => {
            task.mm().write_object(arg2, &task.clear_child_tid.load(Ordering::Relaxed))?;
            Ok(0)
        }
        p::PR_MCE_KILL => {
            unused(&[arg4, arg5])?;
            if arg2 > 1 || (arg2 == 1 && arg3 > 2) { Err(Errno::EINVAL) } else { Ok(0) }
        }
        p::PR_MCE_KILL_GET => {
            unused(&[arg2, arg3, arg4, arg5])?;
            Ok(2)
        }
        p::PR_SET_THP_DISABLE => {
            unused(&[arg3, arg4, arg5])?;
            let old = task.prctl_bits.load(Ordering::Relaxed);
            task.prctl_bits.store(old & !1 | u32::from(arg2 != 0), Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_THP_DISABLE => {
            unused(&[arg2, arg3, arg4, arg5])?;
            Ok((task.prctl_bits.load(Ordering::Relaxed) & 1).into())
        }
        // Everybody may be traced by those who may see it (kernel.yama.ptrace_scope is 0): there is nothing to except.
        p::PR_SET_PTRACER => match arg2 as i32 {
            0 | -1 => Ok(0),
            pid => crate::process::thread(task, pid).map(|_| 0).map_err(|_| Errno::EINVAL),
        },
        // Names of mappings are a debugging aid that depends on the kernel's configuration.
        p::PR_SET_VMA => Err(Errno::EINVAL),
        p::PR_GET_SECCOMP => Ok(task.seccomp.mode().number().into()),
        p::PR_SET_SECCOMP => crate::seccomp::set_mode(task, arg2 as u32, Address(arg3)).map(u64::from),
        _ => {
            let known = [p::PR_SET_MM, p::PR_SCHED_CORE];
            if known.contains(&option) {
                task.kernel().count_unimplemented(&format!("prctl option {option}"));
            }
            Err(Errno::EINVAL)
        }
    }
}

fn set_securebits(task: &CurrentTask, bits: u64) -> Result<u64> {
    let creds = task.credentials();
    let bits = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
    let old = creds.securebits;
    let locked = (old & SECURE_ALL_LOCKS) >> 1;
    let unlocking = old & SECURE_ALL_LOCKS & !bits != 0;
    let unknown = bits & !(SECURE_ALL_LOCKS | SECURE_ALL_BITS) != 0;
    if locked & (old ^ bits) != 0 || unlocking || unknown || !creds.capable(CAP_SETPCAP) {
        return Err(Errno::EPERM);
    }
    task.set_credentials(Credentials { securebits: bits, ..(*creds).clone() });
    Ok(0)
}

fn ambient(task: &CurrentTask, operation: u32, capability: u64) -> Result<u64> {
    let creds = task.credentials();
    if operation == p::PR_CAP_AMBIENT_CLEAR_ALL {
        if capability != 0 {
            return Err(Errno::EINVAL);
        }
        task.set_credentials(Credentials { ambient: CapSet::EMPTY, ..(*creds).clone() });
        return Ok(0);
    }
    let capability = u32::try_from(capability).ok().filter(|&c| c <= CAP_LAST_CAP).ok_or(Errno::EINVAL)?;
    match operation {
        p::PR_CAP_AMBIENT_IS_SET => Ok(creds.ambient.contains(capability).into()),
        p::PR_CAP_AMBIENT_RAISE => {
            let held = creds.permitted.contains(capability) && creds.inheritable.contains(capability);
            if !held || creds.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            let ambient = creds.ambient.with(capability);
            task.set_credentials(Credentials { ambient, ..(*creds).clone() });
            Ok(0)
        }
        p::PR_CAP_AMBIENT_LOWER => {
            let ambient = creds.ambient.without(capability);
            task.set_credentials(Credentials { ambient, ..(*creds).clone() });
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
