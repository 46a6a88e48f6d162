//! ptrace(2) (kernel/ptrace.c, arch/x86/kernel/ptrace.c).

use std::sync::Arc;

use abi::ptrace::{self as p, PtraceOptions, PtraceSyscallInfo, UserRegs};
use abi::seccomp::AUDIT_ARCH_X86_64;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, SignalSet};
use abi::uio::Iovec;
use abi::{Errno, Result};
use platform::{Context, Registers};
use sentry::task::ptrace::Going;
use sentry::task::{CurrentTask, Task};
use zerocopy::{FromBytes, IntoBytes};

use crate::arguments::UserPtr;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    PTRACE => ptrace, Partial, "no debug registers, PTRACE_SINGLEBLOCK or PTRACE_PEEKSIGINFO";
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
            // Of old, another error for what is no option.
            let unknown = u32::try_from(data).ok().and_then(PtraceOptions::from_bits).is_none();
            let options = if unknown { Err(Errno::EIO) } else { options(data) };
            task.attach_to(&tracee, Some(options?)).map(|()| 0)
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

fn of_stopped(task: &CurrentTask, tracee: &Arc<Task>, request: u32, addr: u64, data: u64) -> Result<u64> {
    // ESRCH before anything else.
    tracee.with_stop(task, |_, _| Ok(()))?;
    let go = |going| tracee.let_go(task, data, going).map(|()| 0);
    match request {
        p::PTRACE_CONT => go(Some(Going::Freely)),
        p::PTRACE_SYSCALL => go(Some(Going::ToSyscall)),
        p::PTRACE_SINGLESTEP => go(Some(Going::ByStep)),
        p::PTRACE_SYSEMU => go(Some(Going::Emulating)),
        p::PTRACE_SYSEMU_SINGLESTEP => go(Some(Going::EmulatingByStep)),
        p::PTRACE_DETACH => go(None),
        p::PTRACE_LISTEN => tracee.listen(task).map(|()| 0),
        p::PTRACE_SETOPTIONS => {
            let options = options(data)?;
            tracee.with_stop(task, |link, _| {
                link.options = options;
                Ok(0)
            })
        }
        p::PTRACE_GETEVENTMSG => {
            let message = tracee.with_stop(task, |link, _| Ok(link.message))?;
            task.mm().write_object(data, &message).map(|()| 0)
        }
        p::PTRACE_GETSIGINFO => {
            let info = tracee.with_stop(task, |_, stop| stop.info.ok_or(Errno::EINVAL))?;
            task.mm().write_object(data, &info).map(|()| 0)
        }
        p::PTRACE_SETSIGINFO => {
            let new: SigInfo = task.mm().read_object(data)?;
            tracee.with_stop(task, |_, stop| {
                let info = &mut stop.info;
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
        p::PTRACE_GETSIGMASK => task.mm().write_object(data, &tracee.lasting_mask()).map(|()| 0),
        p::PTRACE_SETSIGMASK => {
            let mask: SignalSet = task.mm().read_object(data)?;
            tracee.set_lasting_mask(mask);
            Ok(0)
        }
        p::PTRACE_GET_SYSCALL_INFO => syscall_info(task, tracee, addr, data),
        p::PTRACE_SET_SYSCALL_INFO => set_syscall_info(task, tracee, addr, data),
        p::PTRACE_ARCH_PRCTL => arch_prctl(task, tracee, addr, data),
        _ => Err(Errno::EIO),
    }
}

fn memory(tracee: &Task) -> Result<Arc<sentry::mm::MemoryManager>> {
    tracee.memory().ok_or(Errno::EIO)
}

fn change<R>(task: &CurrentTask, tracee: &Task, f: impl FnOnce(&mut Context) -> Result<R>) -> Result<R> {
    tracee.with_stop(task, |_, stop| {
        let result = f(&mut stop.context)?;
        stop.changed = true;
        Ok(result)
    })
}

/// The general registers as the tracer is to see them.
fn general(task: &CurrentTask, tracee: &Task) -> Result<Vec<u8>> {
    tracee.with_stop(task, |_, stop| {
        let mut regs = stop.context.regs;
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
        // Segments stay as they are, but not whatever they are said to be (invalid_selector()).
        let is_user = |selector: u64| selector & 3 == 3;
        let optional = [new.ds, new.es, new.fs, new.gs].map(|selector| selector & 0xffff);
        if !is_user(new.cs) || !is_user(new.ss) || optional.iter().any(|&s| s != 0 && !is_user(s)) {
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

/// Where FXSAVE images have the control and status of SSE, and which of its bits there are.
const MXCSR_AT: usize = 24;
const MXCSR_MASK_AT: usize = 28;
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

fn floating(task: &CurrentTask, tracee: &Task) -> Result<Vec<u8>> {
    let image = tracee.with_stop(task, |_, stop| Ok(stop.context.xstate.clone()))?;
    let mut image = platform::xstate::sanitize(&image);
    if let Some(place) = image.get_mut(XSTATE_FEATURES_AT..XSTATE_FEATURES_AT + 8) {
        place.copy_from_slice(&platform::xstate::layout().features.to_le_bytes());
    }
    Ok(image)
}

fn set_floating(task: &CurrentTask, tracee: &Task, bytes: &[u8]) -> Result<()> {
    change(task, tracee, |context| {
        let mut image = platform::xstate::sanitize(&context.xstate);
        let word = |image: &[u8], at: usize| {
            image.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let known = match word(&image, MXCSR_MASK_AT) {
            0 => MXCSR_MASK_DEFAULT,
            mask => mask,
        };
        if word(bytes, MXCSR_AT) & !known != 0 {
            return Err(Errno::EINVAL);
        }
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
        NT_X86_XSTATE => {
            // Only a whole one, in the standard format, with what the processor has.
            if bytes.len() != most {
                return Err(Errno::EFAULT);
            }
            let word = |at: usize| {
                bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
            };
            let known = platform::xstate::layout().features;
            if word(512) & !known != 0 || (520..576).step_by(8).any(|at| word(at) != 0) {
                return Err(Errno::EINVAL);
            }
            set_floating(task, tracee, &bytes)?;
        }
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
            let regs = tracee.with_stop(task, |_, stop| Ok(stop.context.regs))?;
            let value = if code == a::ARCH_GET_FS { regs.fs_base } else { regs.gs_base };
            task.mm().write_object(addr, &value).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Which system call stop it is (ptrace_get_syscall_info_op()).
fn syscall_op(code: i32, message: u64) -> u8 {
    const STOP: u32 = SIGTRAP | 0x80;
    const FILTER: u32 = SIGTRAP | p::PTRACE_EVENT_SECCOMP << 8;
    const SIGTRAP: u32 = 5;
    match (code as u32, u32::try_from(message)) {
        (STOP, Ok(p::PTRACE_EVENTMSG_SYSCALL_ENTRY)) => p::PTRACE_SYSCALL_INFO_ENTRY,
        (STOP, Ok(p::PTRACE_EVENTMSG_SYSCALL_EXIT)) => p::PTRACE_SYSCALL_INFO_EXIT,
        (FILTER, _) => p::PTRACE_SYSCALL_INFO_SECCOMP,
        _ => p::PTRACE_SYSCALL_INFO_NONE,
    }
}

/// PTRACE_GET_SYSCALL_INFO: returns how much there is to say.
fn syscall_info(task: &CurrentTask, tracee: &Task, size: u64, data: u64) -> Result<u64> {
    let (op, message, regs) = tracee.with_stop(task, |link, stop| {
        let op = syscall_op(stop.info.map_or(0, |info| info.si_code), link.message);
        Ok((op, link.message, stop.context.regs))
    })?;
    let mut info = PtraceSyscallInfo {
        op,
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        ..PtraceSyscallInfo::default()
    };
    let head = std::mem::offset_of!(PtraceSyscallInfo, data);
    let len = match op {
        p::PTRACE_SYSCALL_INFO_ENTRY | p::PTRACE_SYSCALL_INFO_SECCOMP => {
            let number = regs.orig_rax as i32 as i64 as u64;
            let is_filter = op == p::PTRACE_SYSCALL_INFO_SECCOMP;
            let last = if is_filter { message } else { 0 };
            info.data = [number, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, last];
            head + 7 * 8 + if is_filter { 4 } else { 0 }
        }
        p::PTRACE_SYSCALL_INFO_EXIT => {
            let failed = (-4095..0).contains(&(regs.rax as i64));
            info.data[0] = regs.rax;
            info.data[1] = failed.into();
            head + 9
        }
        _ => head,
    };
    let copied = len.min(usize::try_from(size).unwrap_or(usize::MAX));
    task.mm().write_bytes(data, &info.as_bytes()[..copied])?;
    Ok(len as u64)
}

/// PTRACE_SET_SYSCALL_INFO: replaces the call, or its result. EINVAL for another stop than the present one.
fn set_syscall_info(task: &CurrentTask, tracee: &Task, size: u64, data: u64) -> Result<u64> {
    if size < size_of::<PtraceSyscallInfo>() as u64 {
        return Err(Errno::EINVAL);
    }
    let info: PtraceSyscallInfo = task.mm().read_object(data)?;
    if info.flags != 0 || info._pad != 0 {
        return Err(Errno::EINVAL);
    }
    tracee.with_stop(task, |link, stop| {
        if syscall_op(stop.info.map_or(0, |info| info.si_code), link.message) != info.op {
            return Err(Errno::EINVAL);
        }
        let regs = &mut stop.context.regs;
        match info.op {
            p::PTRACE_SYSCALL_INFO_ENTRY | p::PTRACE_SYSCALL_INFO_SECCOMP => {
                let [number, args @ .., _] = info.data;
                let number = i32::try_from(number as i64).map_err(|_| Errno::ERANGE)?;
                regs.orig_rax = number as i64 as u64;
                // Without a call, they are not arguments.
                if number != -1 {
                    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
                }
            }
            p::PTRACE_SYSCALL_INFO_EXIT => regs.rax = info.data[0],
            _ => return Err(Errno::EINVAL),
        }
        stop.changed = true;
        Ok(0)
    })
}
