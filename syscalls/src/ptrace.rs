//! ptrace(2) (kernel/ptrace.c, arch/x86/kernel/ptrace.c).

use std::sync::Arc;

use abi::ptrace::{self as p, PtraceOptions, PtraceSyscallInfo, UserRegs};
use abi::seccomp::AUDIT_ARCH_X86_64;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, SignalSet};
use abi::uio::Iovec;
use abi::{Errno, Result};
use platform::{Context, Registers};
use sentry::task::ptrace::{Going, Stop, StopKind, Trace};
use sentry::task::{CurrentTask, Task};
use zerocopy::{FromBytes, IntoBytes};

use crate::arguments::UserPtr;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    PTRACE => ptrace, Partial, "no debug registers, system call emulation or seccomp events";
};

// Register sets (elf.h).
const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;

/// The bits of rflags that a tracer may change (FLAG_MASK), without the trap flag, which is the kernel's here.
const FLAGS_CHANGEABLE: u64 = 0x0005_0cd5;

fn ptrace(task: &CurrentTask, request: u64, pid: i32, addr: u64, data: u64) -> Result<u64> {
    let request = u32::try_from(request).map_err(|_| Errno::EIO)?;
    if request == p::PTRACE_TRACEME {
        return task.trace_me().map(|()| 0);
    }
    let tracee = match pid {
        0 => return Err(Errno::ESRCH),
        _ => process::thread(task, pid)?,
    };
    match request {
        p::PTRACE_ATTACH => task.attach_to(&tracee, None).map(|()| 0),
        p::PTRACE_SEIZE => {
            if addr != 0 {
                return Err(Errno::EIO);
            }
            task.attach_to(&tracee, Some(options(data)?)).map(|()| 0)
        }
        p::PTRACE_KILL | p::PTRACE_INTERRUPT if !tracee.is_traced_by(task) => Err(Errno::ESRCH),
        p::PTRACE_KILL => tracee.group.send_signal(SigInfo::kernel(Signal::SIGKILL)).map(|()| 0),
        p::PTRACE_INTERRUPT => tracee.ask_to_stop().map(|()| 0),
        _ => of_stopped(task, &tracee, request, addr, data),
    }
}

fn options(data: u64) -> Result<PtraceOptions> {
    let options = u32::try_from(data).ok().and_then(PtraceOptions::from_bits).ok_or(Errno::EINVAL)?;
    // Filters cannot be suspended.
    if options.contains(PtraceOptions::PTRACE_O_SUSPEND_SECCOMP) { Err(Errno::EINVAL) } else { Ok(options) }
}

fn stop(trace: &mut Trace) -> Result<&mut Stop> {
    trace.stop.as_mut().ok_or(Errno::ESRCH)
}

fn of_stopped(task: &CurrentTask, tracee: &Arc<Task>, request: u32, addr: u64, data: u64) -> Result<u64> {
    // ESRCH before anything else.
    tracee.with_stop(task, |_| Ok(()))?;
    let go = |going, detach| tracee.let_go(data, going, detach).map(|()| 0);
    match request {
        p::PTRACE_CONT => go(Going::Freely, false),
        p::PTRACE_SYSCALL => go(Going::ToSyscall, false),
        p::PTRACE_SINGLESTEP => go(Going::ByStep, false),
        p::PTRACE_DETACH => go(Going::Freely, true),
        p::PTRACE_LISTEN => tracee.listen().map(|()| 0),
        p::PTRACE_SETOPTIONS => {
            let options = options(data)?;
            tracee.with_stop(task, |trace| {
                trace.options = options;
                Ok(0)
            })
        }
        p::PTRACE_GETEVENTMSG => {
            let message = tracee.with_stop(task, |trace| Ok(trace.message))?;
            task.mm().write_object(data, &message).map(|()| 0)
        }
        p::PTRACE_GETSIGINFO => {
            let info = tracee.with_stop(task, |trace| stop(trace)?.info.ok_or(Errno::EINVAL))?;
            task.mm().write_object(data, &info).map(|()| 0)
        }
        p::PTRACE_SETSIGINFO => {
            let new: SigInfo = task.mm().read_object(data)?;
            tracee.with_stop(task, |trace| {
                let info = &mut stop(trace)?.info;
                info.is_some().then(|| *info = Some(new)).ok_or(Errno::EINVAL)
            })?;
            Ok(0)
        }
        p::PTRACE_PEEKTEXT | p::PTRACE_PEEKDATA => {
            let word: u64 = memory(tracee)?.read_object(addr).map_err(|_| Errno::EIO)?;
            task.mm().write_object(data, &word).map(|()| 0)
        }
        p::PTRACE_POKETEXT | p::PTRACE_POKEDATA => {
            let written = memory(tracee)?.poke(addr, &data.to_le_bytes()).map_err(|_| Errno::EIO)?;
            if written == 8 { Ok(0) } else { Err(Errno::EIO) }
        }
        p::PTRACE_PEEKUSR => peek_user(task, tracee, addr, data),
        p::PTRACE_POKEUSR => poke_user(task, tracee, addr, data),
        p::PTRACE_GETREGS => {
            let regs = general(task, tracee)?;
            task.mm().write_bytes(data, &regs).map(|()| 0)
        }
        p::PTRACE_SETREGS => {
            let mut bytes = [0; size_of::<UserRegs>()];
            task.mm().read_bytes(data, &mut bytes)?;
            set_general(task, tracee, &bytes).map(|()| 0)
        }
        p::PTRACE_GETFPREGS => {
            let image = floating(task, tracee)?;
            task.mm().write_bytes(data, image.get(..512).ok_or(Errno::EIO)?).map(|()| 0)
        }
        p::PTRACE_SETFPREGS => {
            let mut bytes = vec![0; 512];
            task.mm().read_bytes(data, &mut bytes)?;
            set_floating(task, tracee, &bytes).map(|()| 0)
        }
        p::PTRACE_GETREGSET => get_set(task, tracee, addr, UserPtr::new(data)),
        p::PTRACE_SETREGSET => set_set(task, tracee, addr, UserPtr::new(data)),
        p::PTRACE_GETSIGMASK | p::PTRACE_SETSIGMASK if addr != 8 => Err(Errno::EINVAL),
        p::PTRACE_GETSIGMASK => task.mm().write_object(data, &tracee.blocked()).map(|()| 0),
        p::PTRACE_SETSIGMASK => {
            let mask: SignalSet = task.mm().read_object(data)?;
            tracee.set_blocked(mask);
            Ok(0)
        }
        p::PTRACE_GET_SYSCALL_INFO => syscall_info(task, tracee, addr, data),
        p::PTRACE_ARCH_PRCTL => arch_prctl(task, tracee, addr, data),
        _ => Err(Errno::EIO),
    }
}

fn memory(tracee: &Task) -> Result<Arc<sentry::mm::MemoryManager>> {
    tracee.memory().ok_or(Errno::EIO)
}

fn change<R>(task: &CurrentTask, tracee: &Task, f: impl FnOnce(&mut Context) -> Result<R>) -> Result<R> {
    tracee.with_stop(task, |trace| {
        let stop = stop(trace)?;
        let result = f(&mut stop.context)?;
        stop.changed = true;
        Ok(result)
    })
}

/// The general registers as the tracer is to see them.
fn general(task: &CurrentTask, tracee: &Task) -> Result<Vec<u8>> {
    tracee.with_stop(task, |trace| {
        let mut regs = stop(trace)?.context.regs;
        // __USER_CS and __USER_DS.
        regs.cs = 0x33;
        regs.ss = 0x2b;
        Ok(regs.as_bytes().to_vec())
    })
}

/// Replaces the first of the general registers. EIO for what they cannot be.
fn set_general(task: &CurrentTask, tracee: &Task, bytes: &[u8]) -> Result<()> {
    change(task, tracee, |context| {
        let old = context.regs;
        let mut whole = old.as_bytes().to_vec();
        let len = bytes.len().min(whole.len());
        whole[..len].copy_from_slice(&bytes[..len]);
        let mut new = Registers::read_from_bytes(&whole).map_err(|_| Errno::EIO)?;
        if new.fs_base >= platform::USER_MAX || new.gs_base >= platform::USER_MAX {
            return Err(Errno::EIO);
        }
        new.eflags = old.eflags & !FLAGS_CHANGEABLE | new.eflags & FLAGS_CHANGEABLE;
        (new.cs, new.ss, new.ds, new.es, new.fs, new.gs) = (old.cs, old.ss, old.ds, old.es, old.fs, old.gs);
        context.regs = new;
        Ok(())
    })
}

/// Where XSAVE images say which components the kernel has (`struct _fpx_sw_bytes`, XSTATE_FX_SW_OFFSET).
const XSTATE_FEATURES_AT: usize = 464;

fn floating(task: &CurrentTask, tracee: &Task) -> Result<Vec<u8>> {
    let image = tracee.with_stop(task, |trace| Ok(stop(trace)?.context.xstate.clone()))?;
    let mut image = platform::xstate::sanitize(&image);
    if let Some(place) = image.get_mut(XSTATE_FEATURES_AT..XSTATE_FEATURES_AT + 8) {
        place.copy_from_slice(&platform::xstate::layout().features.to_le_bytes());
    }
    Ok(image)
}

fn set_floating(task: &CurrentTask, tracee: &Task, bytes: &[u8]) -> Result<()> {
    change(task, tracee, |context| {
        let mut image = platform::xstate::sanitize(&context.xstate);
        let len = bytes.len().min(image.len());
        image[..len].copy_from_slice(&bytes[..len]);
        platform::xstate::clear_software(&mut image);
        if len <= 512
            && let Some(present) = image.get_mut(512)
        {
            // What was given is x87 and SSE state.
            *present |= 3;
        }
        context.xstate = platform::XState(image);
        Ok(())
    })
}

fn get_set(task: &CurrentTask, tracee: &Task, kind: u64, iov: UserPtr<Iovec>) -> Result<u64> {
    let given = iov.read(task)?;
    let bytes = match kind {
        NT_PRSTATUS => general(task, tracee)?,
        NT_PRFPREG => floating(task, tracee)?.get(..512).ok_or(Errno::EIO)?.to_vec(),
        NT_X86_XSTATE => floating(task, tracee)?,
        _ => return Err(Errno::EINVAL),
    };
    if kind != NT_X86_XSTATE && !given.iov_len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let len = bytes.len().min(usize::try_from(given.iov_len).unwrap_or(usize::MAX));
    task.mm().write_bytes(given.iov_base, &bytes[..len])?;
    iov.write(task, &Iovec { iov_len: len as u64, ..given })?;
    Ok(0)
}

fn set_set(task: &CurrentTask, tracee: &Task, kind: u64, iov: UserPtr<Iovec>) -> Result<u64> {
    let given = iov.read(task)?;
    let most = match kind {
        NT_PRSTATUS => size_of::<UserRegs>(),
        NT_PRFPREG => 512,
        NT_X86_XSTATE => platform::xstate::layout().size,
        _ => return Err(Errno::EINVAL),
    };
    if kind != NT_X86_XSTATE && !given.iov_len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; most.min(usize::try_from(given.iov_len).unwrap_or(usize::MAX))];
    task.mm().read_bytes(given.iov_base, &mut bytes)?;
    match kind {
        NT_PRSTATUS => set_general(task, tracee, &bytes)?,
        _ => set_floating(task, tracee, &bytes)?,
    }
    iov.write(task, &Iovec { iov_len: bytes.len() as u64, ..given })?;
    Ok(0)
}

/// An offset into `struct user`. EIO.
fn user_offset(addr: u64) -> Result<usize> {
    if !addr.is_multiple_of(8) || addr >= p::USER_SIZE { Err(Errno::EIO) } else { Ok(addr as usize) }
}

fn peek_user(task: &CurrentTask, tracee: &Task, addr: u64, data: u64) -> Result<u64> {
    let offset = user_offset(addr)?;
    let regs = general(task, tracee)?;
    let word = regs.get(offset..offset + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    task.mm().write_object(data, &word).map(|()| 0)
}

fn poke_user(task: &CurrentTask, tracee: &Task, addr: u64, data: u64) -> Result<u64> {
    let offset = user_offset(addr)?;
    if offset < size_of::<UserRegs>() {
        let mut regs = general(task, tracee)?;
        regs[offset..offset + 8].copy_from_slice(&data.to_le_bytes());
        return set_general(task, tracee, &regs).map(|()| 0);
    }
    // There are no debug registers to set: they can only stay 0.
    if addr >= p::U_DEBUGREG && data == 0 { Ok(0) } else { Err(Errno::EIO) }
}

fn arch_prctl(task: &CurrentTask, tracee: &Task, addr: u64, code: u64) -> Result<u64> {
    use abi::prctl as a;
    let code = u32::try_from(code).map_err(|_| Errno::EINVAL)?;
    match code {
        a::ARCH_SET_FS | a::ARCH_SET_GS => {
            if addr >= platform::USER_MAX {
                return Err(Errno::EPERM);
            }
            change(task, tracee, |context| {
                let regs = &mut context.regs;
                *(if code == a::ARCH_SET_FS { &mut regs.fs_base } else { &mut regs.gs_base }) = addr;
                Ok(0)
            })
        }
        a::ARCH_GET_FS | a::ARCH_GET_GS => {
            let regs = tracee.with_stop(task, |trace| Ok(stop(trace)?.context.regs))?;
            let value = if code == a::ARCH_GET_FS { regs.fs_base } else { regs.gs_base };
            task.mm().write_object(addr, &value).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// PTRACE_GET_SYSCALL_INFO: returns how much there is to say.
fn syscall_info(task: &CurrentTask, tracee: &Task, size: u64, data: u64) -> Result<u64> {
    let (kind, regs) = tracee.with_stop(task, |trace| {
        let stop = stop(trace)?;
        Ok((stop.kind, stop.context.regs))
    })?;
    let mut info = PtraceSyscallInfo {
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        ..PtraceSyscallInfo::default()
    };
    let head = std::mem::offset_of!(PtraceSyscallInfo, data);
    let len = match kind {
        StopKind::SyscallEntry => {
            info.op = p::PTRACE_SYSCALL_INFO_ENTRY;
            info.data = [regs.orig_rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, 0];
            head + 7 * 8
        }
        StopKind::SyscallExit => {
            info.op = p::PTRACE_SYSCALL_INFO_EXIT;
            let failed = (-4095..0).contains(&(regs.rax as i64));
            info.data[0] = regs.rax;
            info.data[1] = failed.into();
            head + 9
        }
        _ => {
            info.op = p::PTRACE_SYSCALL_INFO_NONE;
            head
        }
    };
    let copied = len.min(usize::try_from(size).unwrap_or(usize::MAX));
    task.mm().write_bytes(data, &info.as_bytes()[..copied])?;
    Ok(len as u64)
}
