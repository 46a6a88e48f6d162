//! seccomp(2) (kernel/seccomp.c).

use abi::capability::CAP_SYS_ADMIN;
use abi::seccomp::{
    BPF_MAXINSNS, SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES, SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_SET_MODE_FILTER,
    SECCOMP_SET_MODE_STRICT, SeccompData, SeccompFlags, SeccompNotif, SeccompNotifResp, SeccompNotifSizes,
    SockFilter, SockFprog,
};
use abi::{Errno, Result};
use sentry::seccomp::{self, Program};
use sentry::task::CurrentTask;

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SECCOMP => seccomp, Partial, "no listeners (SECCOMP_FILTER_FLAG_NEW_LISTENER is EINVAL)";
};

fn seccomp(task: &CurrentTask, operation: u32, flags: u32, args: Address) -> Result<u32> {
    match operation {
        SECCOMP_SET_MODE_STRICT if flags != 0 || args.0 != 0 => Err(Errno::EINVAL),
        SECCOMP_SET_MODE_STRICT => seccomp::set_strict(task).map(|()| 0),
        SECCOMP_SET_MODE_FILTER => set_filter(task, flags, args),
        SECCOMP_GET_ACTION_AVAIL | SECCOMP_GET_NOTIF_SIZES if flags != 0 => Err(Errno::EINVAL),
        SECCOMP_GET_ACTION_AVAIL => match UserPtr::<u32>::new(args.0).read(task)? {
            SECCOMP_RET_KILL_PROCESS
            | SECCOMP_RET_KILL_THREAD
            | SECCOMP_RET_TRAP
            | SECCOMP_RET_ERRNO
            | SECCOMP_RET_TRACE
            | SECCOMP_RET_LOG
            | SECCOMP_RET_ALLOW => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        },
        SECCOMP_GET_NOTIF_SIZES => {
            let sizes = SeccompNotifSizes {
                seccomp_notif: size_of::<SeccompNotif>() as u16,
                seccomp_notif_resp: size_of::<SeccompNotifResp>() as u16,
                seccomp_data: size_of::<SeccompData>() as u16,
            };
            UserPtr::new(args.0).write(task, &sizes).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// PR_SET_SECCOMP.
pub(crate) fn set_mode(task: &CurrentTask, mode: u32, filter: Address) -> Result<u32> {
    match mode {
        SECCOMP_MODE_STRICT => seccomp::set_strict(task).map(|()| 0),
        SECCOMP_MODE_FILTER => set_filter(task, 0, filter),
        _ => Err(Errno::EINVAL),
    }
}

fn set_filter(task: &CurrentTask, flags: u32, args: Address) -> Result<u32> {
    use SeccompFlags as F;
    let flags = F::from_bits(flags).ok_or(Errno::EINVAL)?;
    // Without listeners, neither they nor what only concerns them are known.
    if flags.intersects(F::SECCOMP_FILTER_FLAG_NEW_LISTENER | F::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        return Err(Errno::EINVAL);
    }
    let program = UserPtr::<SockFprog>::new(args.0).read(task)?;
    if program.len == 0 || usize::from(program.len) > BPF_MAXINSNS {
        return Err(Errno::EINVAL);
    }
    let may = task.no_new_privs.load(std::sync::atomic::Ordering::Relaxed)
        || task.credentials().capable(CAP_SYS_ADMIN);
    if !may {
        return Err(Errno::EACCES);
    }
    let instructions = UserPtr::<SockFilter>::new(program.filter).read_slice(task, program.len.into())?;
    seccomp::install(task, Program::check(&instructions)?, flags)
}
