//! Signal frames: how a handler is entered and left (arch/x86/kernel/signal_64.c).

use abi::siginfo::SigInfo;
use abi::signal::{
    FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, FP_XSTATE_MAGIC2_SIZE, FPX_SW_BYTES_OFFSET, FXSAVE_SIZE, FpxSwBytes,
    KernelSigaction, RtSigframe, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SaFlags, Sigcontext, SignalSet,
    StackT, UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, Ucontext,
};
use abi::{Errno, Result};
use platform::{Context, Registers, XState};
use zerocopy::{FromBytes, IntoBytes};

use super::current::CurrentTask;

/// The flags of rflags that sigreturn restores (FIX_EFLAGS).
const FLAGS_RESTORED: u64 = 0x50dd5;

/// The trap flag, direction flag and resume flag, which a handler starts without.
const FLAGS_CLEARED: u64 = 0x1_0500;

/// The bytes below the stack pointer that belong to the interrupted function.
const RED_ZONE: u64 = 128;

/// What an XSAVE image takes without AMX, and the gap before it.
const XSTATE_USUAL: usize = 2816;

/// What an XSAVE image may at most take: 12 KiB with AMX, and room.
const XSTATE_MAX: usize = 32 * 1024;

impl CurrentTask {
    /// True if `sp` lies on the alternate stack.
    pub fn on_signal_stack(&self, stack: &StackT, sp: u64) -> bool {
        // An autodisarmed stack is never "in use": it was taken off when the handler was entered.
        stack.ss_flags & (SS_AUTODISARM | SS_DISABLE) == 0
            && sp > stack.ss_sp
            && sp - stack.ss_sp <= stack.ss_size
    }

    /// Enters a handler: saves the context in a frame on the guest's stack and changes it.
    pub fn enter_handler(
        &self,
        context: &mut Context,
        info: &SigInfo,
        action: &KernelSigaction,
    ) -> Result<()> {
        let flags = SaFlags::from_bits_retain(action.flags);
        let (stack, mask) = {
            let own = self.signals.lock();
            (own.stack, own.saved.unwrap_or(own.blocked))
        };
        let regs = context.regs;
        let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
        let has_stack = stack.ss_size != 0 && stack.ss_flags & SS_DISABLE == 0;
        let on_stack = self.on_signal_stack(&stack, regs.rsp);
        if flags.contains(SaFlags::SA_ONSTACK) && has_stack && !on_stack {
            sp = stack.ss_sp.wrapping_add(stack.ss_size);
        }
        let xstate = frame_xstate(&context.xstate);
        let fpstate = if xstate.is_empty() {
            0
        } else {
            sp = sp.wrapping_sub(xstate.len() as u64) & !63;
            sp
        };
        let frame_at = (sp.wrapping_sub(size_of::<RtSigframe>() as u64) & !15).wrapping_sub(8);
        if on_stack && !self.on_signal_stack(&stack, frame_at) {
            return Err(Errno::EFAULT);
        }
        let mut shown = stack;
        shown.ss_flags = if !has_stack {
            SS_DISABLE
        } else if on_stack {
            SS_ONSTACK
        } else {
            stack.ss_flags & SS_AUTODISARM
        };
        let fault = self.last_fault();
        let frame = RtSigframe {
            pretcode: action.restorer,
            uc: Ucontext {
                uc_flags: UC_SIGCONTEXT_SS
                    | UC_STRICT_RESTORE_SS
                    | if fpstate != 0 { UC_FP_XSTATE } else { 0 },
                uc_link: 0,
                uc_stack: shown,
                uc_mcontext: sigcontext(&regs, fpstate, mask, fault),
                uc_sigmask: mask,
            },
            info: *info,
        };
        if !flags.contains(SaFlags::SA_RESTORER) {
            return Err(Errno::EFAULT);
        }
        let mm = self.mm();
        mm.write_batch(&[(frame_at, frame.as_bytes()), (fpstate, &xstate)])?;
        let mut own = self.signals.lock();
        own.saved = None;
        if stack.ss_flags & SS_AUTODISARM != 0 {
            own.stack = StackT { ss_flags: SS_DISABLE, ..StackT::default() };
        }
        let mut blocked = own.blocked.union(action.mask);
        if let Some(signal) = info.signal()
            && !flags.contains(SaFlags::SA_NODEFER)
        {
            blocked.add(signal);
        }
        own.blocked = blocked.difference(SignalSet::UNBLOCKABLE);
        drop(own);
        let regs = &mut context.regs;
        regs.rdi = info.si_signo as u64;
        regs.rsi = frame_at + std::mem::offset_of!(RtSigframe, info) as u64;
        regs.rdx = frame_at + std::mem::offset_of!(RtSigframe, uc) as u64;
        regs.rax = 0;
        regs.rip = action.handler;
        regs.rsp = frame_at;
        regs.eflags &= !FLAGS_CLEARED;
        Ok(())
    }

    /// rt_sigreturn(2): takes the context back from the frame above the stack pointer.
    pub fn leave_handler(&self, context: &mut Context) -> Result<()> {
        let frame_at = context.regs.rsp.wrapping_sub(8);
        let mm = self.mm();
        // The image is just above the frame, unless the handler has moved it.
        let mut around = [0; size_of::<RtSigframe>() + XSTATE_USUAL];
        let have = mm.read_upto(frame_at, &mut around)?;
        let around = around.get(..have).unwrap_or_default();
        let (frame, _) = RtSigframe::read_from_prefix(around).map_err(|_| Errno::EFAULT)?;
        let sc = &frame.uc.uc_mcontext;
        let xstate = match sc.fpstate {
            0 => XState::default(),
            at => self.read_xstate(at, frame_at, around)?,
        };
        let old = context.regs;
        context.regs = Registers {
            r8: sc.r8,
            r9: sc.r9,
            r10: sc.r10,
            r11: sc.r11,
            r12: sc.r12,
            r13: sc.r13,
            r14: sc.r14,
            r15: sc.r15,
            rdi: sc.di,
            rsi: sc.si,
            rbp: sc.bp,
            rbx: sc.bx,
            rdx: sc.dx,
            rax: sc.ax,
            rcx: sc.cx,
            rsp: sc.sp,
            rip: sc.ip,
            eflags: (old.eflags & !FLAGS_RESTORED) | (sc.flags & FLAGS_RESTORED),
            ..old
        };
        context.xstate = xstate;
        self.set_blocked(frame.uc.uc_sigmask);
        // As restore_altstack(): errors are ignored, what can be set is.
        let _ = self.set_signal_stack(&frame.uc.uc_stack, context.regs.rsp);
        Ok(())
    }

    /// sigaltstack(2). EPERM on the stack itself, EINVAL for bad flags, ENOMEM if too small.
    pub fn set_signal_stack(&self, new: &StackT, sp: u64) -> Result<()> {
        let mut own = self.signals.lock();
        if self.on_signal_stack(&own.stack, sp) {
            return Err(Errno::EPERM);
        }
        let mode = new.ss_flags & !SS_AUTODISARM;
        if mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK {
            return Err(Errno::EINVAL);
        }
        if mode == SS_DISABLE {
            own.stack = StackT { ss_flags: new.ss_flags, ..StackT::default() };
            return Ok(());
        }
        if new.ss_size < abi::signal::MINSIGSTKSZ as u64 {
            return Err(Errno::ENOMEM);
        }
        own.stack = StackT { ss_flags: new.ss_flags & SS_AUTODISARM, ..*new };
        Ok(())
    }

    /// Reads an image at `at`, of which there may be something in `around`, the bytes from `start` on.
    fn read_xstate(&self, at: u64, start: u64, around: &[u8]) -> Result<XState> {
        let mm = self.mm();
        let fill = |buf: &mut [u8]| {
            let from = usize::try_from(at.wrapping_sub(start)).unwrap_or(usize::MAX);
            match from.checked_add(buf.len()).and_then(|to| around.get(from..to)) {
                Some(there) => {
                    buf.copy_from_slice(there);
                    Ok(())
                }
                None => mm.read_bytes(at, buf),
            }
        };
        let mut legacy = [0u8; FXSAVE_SIZE];
        fill(&mut legacy)?;
        let sw = FpxSwBytes::read_from_bytes(&legacy[FPX_SW_BYTES_OFFSET..]).map_err(|_| Errno::EFAULT)?;
        let size = sw.xstate_size as usize;
        let plausible = sw.magic1 == FP_XSTATE_MAGIC1
            && (FXSAVE_SIZE + 64..=XSTATE_MAX).contains(&size)
            && sw.extended_size as usize >= size;
        if !plausible {
            return Ok(XState(legacy.to_vec()));
        }
        let mut image = vec![0; size + FP_XSTATE_MAGIC2_SIZE];
        fill(&mut image)?;
        let magic2 = image.split_off(size);
        if magic2 != FP_XSTATE_MAGIC2.to_le_bytes() {
            return Ok(XState(legacy.to_vec()));
        }
        Ok(XState(image))
    }
}

/// The image with the marks by which a program finds its size.
fn frame_xstate(xstate: &XState) -> Vec<u8> {
    let mut image = xstate.0.clone();
    if image.len() < FXSAVE_SIZE || image.len() > XSTATE_MAX {
        return Vec::new();
    }
    if image.len() > FXSAVE_SIZE + 64 {
        let xstate_bv = image[FXSAVE_SIZE..FXSAVE_SIZE + 8].try_into().map_or(0, u64::from_le_bytes);
        let sw = FpxSwBytes {
            magic1: FP_XSTATE_MAGIC1,
            extended_size: (image.len() + FP_XSTATE_MAGIC2_SIZE) as u32,
            xfeatures: xstate_bv | 7,
            xstate_size: image.len() as u32,
            ..FpxSwBytes::default()
        };
        image[FPX_SW_BYTES_OFFSET..FXSAVE_SIZE].copy_from_slice(sw.as_bytes());
        image.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    } else {
        image.truncate(FXSAVE_SIZE);
        image[FPX_SW_BYTES_OFFSET..FXSAVE_SIZE].fill(0);
    }
    image
}

fn sigcontext(regs: &Registers, fpstate: u64, mask: SignalSet, fault: Option<platform::Fault>) -> Sigcontext {
    Sigcontext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        di: regs.rdi,
        si: regs.rsi,
        bp: regs.rbp,
        bx: regs.rbx,
        dx: regs.rdx,
        ax: regs.rax,
        cx: regs.rcx,
        sp: regs.rsp,
        ip: regs.rip,
        flags: regs.eflags,
        cs: 0x33,
        ss: 0x2b,
        err: fault.map_or(0, |f| f.error),
        trapno: fault.map_or(0, |f| f.trapno),
        cr2: fault.map_or(0, |f| if f.trapno == 14 { f.addr } else { 0 }),
        oldmask: mask.0,
        fpstate,
        ..Sigcontext::default()
    }
}
