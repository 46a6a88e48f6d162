//! The administrator's calls (kernel/printk, kernel/reboot.c, kernel/module, kernel/kexec.c, mm/swapfile.c).
//!
//! A sandbox has no machine of its own to administer. Who lacks the capability is told so, as on Linux; who has it is
//! told what a kernel says that was set up to refuse (`kernel.modules_disabled`, `kernel.kexec_load_disabled`, lockdown).

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_PACCT, CAP_SYSLOG};
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::stat::Ustat;
use abi::{Errno, Result};
use sentry::log;
use sentry::parameters::DMESG_RESTRICT;
use sentry::task::{CurrentTask, Outcome};

use crate::arguments::{Address, UserCStr, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SYSLOG => syslog, Partial, "a log of the sandbox's own; the console's level is only checked";
    REBOOT => reboot, Partial, "ends the processes of the pid namespace, as in any but the first";
    SWAPON => swap, Missing, "as without CONFIG_SWAP; EPERM without CAP_SYS_ADMIN";
    SWAPOFF => swap, Missing, "as without CONFIG_SWAP; EPERM without CAP_SYS_ADMIN";
    ACCT => acct, Missing, "as without CONFIG_BSD_PROCESS_ACCT; EPERM without CAP_SYS_PACCT";
    IOPL => iopl, Partial, "EPERM, as in a locked down kernel";
    IOPERM => ioperm, Partial, "EPERM, as in a locked down kernel";
    INIT_MODULE => refused, Partial, "EPERM, as with kernel.modules_disabled";
    FINIT_MODULE => refused, Partial, "EPERM, as with kernel.modules_disabled";
    DELETE_MODULE => refused, Partial, "EPERM, as with kernel.modules_disabled";
    KEXEC_LOAD => refused, Partial, "EPERM, as with kernel.kexec_load_disabled";
    KEXEC_FILE_LOAD => refused, Partial, "EPERM, as with kernel.kexec_load_disabled";
    BPF => bpf, Missing, "EPERM without CAP_BPF, as with kernel.unprivileged_bpf_disabled, else ENOSYS";
    USTAT => ustat, Partial, "finds only what is mounted in the caller's namespace";
};

fn syslog(task: &CurrentTask, action: i32, buf: Address, len: i32) -> Result<usize> {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const SIZE_BUFFER: i32 = 10;
    let kernel = task.kernel();
    let open_to_all = matches!(action, READ_ALL | SIZE_BUFFER) && DMESG_RESTRICT.get(&kernel.parameters) == 0;
    if !open_to_all && !task.capable(CAP_SYSLOG) {
        return Err(Errno::EPERM);
    }
    match action {
        // Close, open, console off and on.
        0 | 1 | 6 | 7 => Ok(0),
        READ | READ_ALL | READ_CLEAR => {
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            if buf.0 == 0 {
                return Err(Errno::EINVAL);
            }
            if len == 0 {
                return Ok(0);
            }
            let text = match action {
                READ => {
                    let queue = [(&kernel.log.queue, PollEvents::POLLIN)];
                    task.wait_until(&queue, None, || kernel.log.read(len))?
                }
                _ => kernel.log.read_all(len, action == READ_CLEAR),
            };
            task.mm().write_bytes(buf.0, &text)?;
            Ok(text.len())
        }
        5 => {
            kernel.log.clear();
            Ok(0)
        }
        8 if (1..=8).contains(&len) => Ok(0),
        9 => Ok(kernel.log.unread()),
        SIZE_BUFFER => Ok(log::CAPACITY),
        _ => Err(Errno::EINVAL),
    }
}

fn reboot(task: &CurrentTask, magic1: u32, magic2: u32, command: u32, arg: UserCStr) -> Result<Outcome> {
    const RESTART: u32 = 0x0123_4567;
    const RESTART2: u32 = 0xa1b2_c3d4;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    let ns = task.pid_ns();
    if !task.credentials().capable_in(&ns.user_ns, CAP_SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    // Birthdays of Linus Torvalds and his daughters.
    let known = [0x2812_1969, 0x0512_1996, 0x1604_1998, 0x2011_2000];
    if magic1 != 0xfee1_dead || !known.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    // reboot_pid_ns(): init ends by a signal that says which it was, and the others with it.
    let signal = match command {
        RESTART => Signal::SIGHUP,
        RESTART2 => {
            arg.read(task, 256, Errno::EFAULT)?;
            Signal::SIGHUP
        }
        HALT | POWER_OFF => Signal::SIGINT,
        // Whatever else there is concerns the machine.
        _ => return Err(Errno::EINVAL),
    };
    let Some(init) = ns.init() else { return Err(Errno::EINVAL) };
    let status = init.begin_exit(abi::wait::signaled(signal, false));
    let own = std::sync::Arc::ptr_eq(&init, &task.group);
    Ok(Outcome::Exit(if own { status } else { task.group.begin_exit(abi::wait::exited(0)) }))
}

fn swap(task: &CurrentTask, _path: UserCStr) -> Result<()> {
    Err(if task.capable(CAP_SYS_ADMIN) { Errno::ENOSYS } else { Errno::EPERM })
}

fn acct(task: &CurrentTask, _path: UserCStr) -> Result<()> {
    Err(if task.capable(CAP_SYS_PACCT) { Errno::ENOSYS } else { Errno::EPERM })
}

fn bpf(task: &CurrentTask) -> Result<()> {
    let may = task.capable(abi::capability::CAP_BPF) || task.capable(CAP_SYS_ADMIN);
    Err(if may { Errno::ENOSYS } else { Errno::EPERM })
}

fn iopl(_task: &CurrentTask, level: u32) -> Result<()> {
    match level {
        0 => Ok(()),
        1..=3 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn ioperm(_task: &CurrentTask, from: u64, count: u64, on: i32) -> Result<()> {
    const PORTS: u64 = 65536;
    match from.checked_add(count) {
        Some(end) if end > from && end <= PORTS => {}
        _ => return Err(Errno::EINVAL),
    }
    if on == 0 { Ok(()) } else { Err(Errno::EPERM) }
}

fn refused(_task: &CurrentTask) -> Result<()> {
    Err(Errno::EPERM)
}

fn ustat(task: &CurrentTask, dev: u32, buf: UserPtr<Ustat>) -> Result<()> {
    // new_decode_dev() of the 32 bits that there are room for.
    let mounts = task.namespaces().mount.mounts();
    let found = mounts.iter().find(|m| m.superblock().dev() as u32 == dev).ok_or(Errno::EINVAL)?;
    let status = found.superblock().fs().status()?;
    buf.write(
        task,
        &Ustat { f_tfree: status.blocks_free as i32, f_tinode: status.files_free, ..Ustat::default() },
    )
}
