//! Doorbells: what they mean, and frames that show the thread in code of ours, made ones that the guest knows.

use super::{At, Call, Inner};
use crate::DOORBELL;
use crate::arch::frame::{SIGINFO, UCONTEXT};
use crate::arch::patched::{self, Progress};
use crate::arch::request::Said;
use crate::arch::stub::{CALLED, RING};
use crate::arch::{AUDIT_ARCH, CALL_SIZE};
use crate::link::KICK;
use crate::notify::Notification;
use platform::stub::EXTRA_TEXT;
use platform::stub::arch::vsyscall_number;
use platform::{Death, Exit, Fault};

/// What a doorbell means.
pub(super) enum Ring {
    Exit(Exit),
    /// The kick's.
    Kicked,
    /// Nothing of ours.
    Nothing,
    /// Of an order that was carried out, with the result.
    Called(u64),
    /// The one that was answered already, again.
    Again,
}

impl Inner {
    pub(super) fn is_doorbell(&self, notification: &Notification) -> bool {
        notification.number == DOORBELL as i32 && notification.ip >= EXTRA_TEXT
    }

    /// The doorbell of a patched call.
    pub(super) fn is_ring(&self, notification: &Notification) -> bool {
        self.is_doorbell(notification) && notification.args[0] == RING
    }

    /// Takes a doorbell.
    pub(super) fn ring(&mut self, notification: &Notification) -> Result<Ring, Death> {
        let [kind, info, context, fs_base, gs_base, count] = {
            let args = notification.args;
            [args[0], args[1], args[2], args[3], args[4], args[5]]
        };
        let page = &self.lease.page;
        let shapes = &self.space.host.geometry.shapes;
        let frame = context.wrapping_sub(UCONTEXT as u64);
        match shapes.iter().position(|shape| page.frame_address(shape) == frame) {
            Some(index) if kind == CALLED || info == frame + SIGINFO as u64 => self.shape = index,
            _ => return Err(self.misbehaved("a doorbell with a strange frame")),
        }
        let request = match self.at {
            At::Request { call } => Some(call),
            _ => None,
        };
        self.at = At::Doorbell { id: notification.id };
        self.is_timed = kind == libc::SIGSYS as u64;
        if count == self.rung {
            // The frame shows where it was to go on, which may be code of ours.
            self.leave_trampoline();
            return Ok(Ring::Again);
        }
        self.rung = count;
        if kind == CALLED {
            return Ok(Ring::Called(info));
        }
        self.bases = (fs_base, if gs_base == page.guest { 0 } else { gs_base });
        let fetched = std::mem::take(&mut self.fetched);
        self.ringing = None;
        self.relocated = false;
        if fetched && request.is_some() {
            // In the middle of a patched call, of which nothing but this context is left.
            self.lease.page.withdraw();
            self.fetched = true;
        } else {
            self.leave_own_code(request);
        }
        if let Some((call, value)) = self.unanswered.take() {
            self.finish_in_frame(call, value);
            self.answered = None;
        }
        let page = &self.lease.page;
        let shape = &self.space.host.geometry.shapes[self.shape];
        let signal = i32::try_from(kind).unwrap_or(0);
        let ours = signal == KICK && self.link.kick_arrived();
        if !ours && page.signal_code(shape) <= 0 {
            // From somebody on the host: none of the guest's business.
            self.recover_answer();
            return Ok(Ring::Nothing);
        }
        let exit = match signal {
            KICK => return Ok(Ring::Kicked),
            libc::SIGSYS => {
                if page.trapped_arch(shape) == AUDIT_ARCH {
                    self.trapped_call()
                } else {
                    // `int 0x80` on a kernel without 32-bit calls: a general protection fault of gate 0x80.
                    page.set_rip(shape, page.rip(shape).wrapping_sub(CALL_SIZE));
                    let error = 0x80 << 3 | 2;
                    Exit::Fault(Fault {
                        signal: libc::SIGSEGV,
                        code: libc::SI_KERNEL,
                        addr: 0,
                        trapno: 13,
                        error,
                    })
                }
            }
            // It goes on in the copy: see `go`.
            libc::SIGILL if self.space.patches.met(&self.space.process, page.rip(shape)) => {
                self.relocated = true;
                return Ok(Ring::Nothing);
            }
            libc::SIGSEGV if self.absent_vsyscall() => self.trapped_call(),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                Exit::Fault(page.fault(shape, signal))
            }
            _ => return Err(self.misbehaved("a doorbell without a reason")),
        };
        Ok(Ring::Exit(exit))
    }

    /// If the frame shows the thread in a trampoline, makes it show the place that the guest knows.
    fn leave_trampoline(&mut self) -> bool {
        let (page, shape) = (&self.lease.page, &self.space.host.geometry.shapes[self.shape]);
        let Some((ip, is_after_call)) = self.space.patches.original_ip(page.rip(shape)) else { return false };
        page.set_rip(shape, ip);
        if is_after_call {
            page.set_rcx(shape, ip);
        }
        self.relocated = true;
        true
    }

    /// The frame may show the thread in code of ours: makes it one that the guest knows. `request` is the patched call that
    /// the sentry has taken and not replied to; it is finished with the reply, or its own number.
    fn leave_own_code(&mut self, request: Option<Call>) {
        if self.leave_trampoline() {
            return;
        }
        let (page, shape) = (&self.lease.page, &self.space.host.geometry.shapes[self.shape]);
        let ip = page.rip(shape);
        let Some(progress) = patched::progress(ip) else { return };
        let (number, after, flags) = page.stored();
        let said = page.said();
        let posted = page.posted().1;
        let (is_replied, is_frame_given) = (page.is_replied(), page.is_frame_given());
        let result = page.result();
        page.withdraw();
        if progress == Progress::Loading
            || (progress == Progress::Posted && request.is_none() && is_frame_given)
        {
            // It was to go on with the context as it was given last.
            self.fetched = true;
            let regs = &mut self.context.regs;
            if let Some((ip, is_after_call)) = self.space.patches.original_ip(regs.rip) {
                regs.rip = ip;
                if is_after_call {
                    regs.rcx = ip;
                }
            }
            return;
        }
        let (stopped, unpushed) = (page.rsp(shape), page.unpushed(page.rsp(shape)));
        self.load();
        let regs = &mut self.context.regs;
        if stopped != unpushed {
            regs.rsp = unpushed;
        }
        let restart = |regs: &mut platform::Registers, after: u64| regs.rip = after.wrapping_sub(CALL_SIZE);
        let mut args = None;
        match progress {
            // rcx still holds it.
            Progress::Entered => {
                let after = regs.rcx;
                restart(regs, after);
            }
            Progress::Saved => {
                restart(regs, after);
                regs.rax = number;
            }
            Progress::FlagsSaved | Progress::ArgsSaved => {
                restart(regs, after);
                regs.rax = number;
                regs.eflags = patched::restore_flags(regs.eflags, flags);
                args = (progress == Progress::ArgsSaved).then_some(posted);
            }
            Progress::Posted | Progress::Loading => {
                regs.eflags = patched::restore_flags(regs.eflags, flags);
                match request {
                    Some(call) => {
                        regs.rip = call.ip;
                        regs.rax = self.reply.take().unwrap_or(call.number);
                        args = Some(call.args);
                    }
                    // Not seen yet: the guest makes it again.
                    None if matches!(said, Said::Call { .. }) || !is_replied => {
                        restart(regs, after);
                        regs.rax = number;
                        args = Some(posted);
                    }
                    None => {
                        regs.rip = after;
                        regs.rax = if self.carrier.finish() { result } else { -libc::EFAULT as i64 as u64 };
                        args = Some(posted);
                    }
                }
            }
        }
        if let Some(args) = args {
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        }
        regs.rcx = after;
        regs.r11 = regs.eflags;
        self.fetched = true;
    }

    /// The call that a frame made for it or by [`Inner::absent_vsyscall`] shows.
    fn trapped_call(&self) -> Exit {
        let (page, shape) = (&self.lease.page, self.shape());
        let number = page.rax(shape) as i32 as i64 as u64;
        Exit::Syscall { number, args: page.call_arguments(shape), ip: page.rip(shape) }
    }

    /// The guest has called an entry of the vsyscall page which the host does not have, or whose pointers the host does
    /// not like: makes the frame one after the call, with the number in rax.
    fn absent_vsyscall(&self) -> bool {
        let (page, shape) = (&self.lease.page, self.shape());
        let Some(number) = vsyscall_number(page.rip(shape)) else { return false };
        let stack = page.rsp(shape);
        let mut word = [0; 8];
        if self.space.process.read_batch(&mut [(stack, &mut word)]) != Ok(word.len()) {
            return false;
        }
        page.set_rip(shape, u64::from_le_bytes(word));
        page.set_rsp(shape, stack.wrapping_add(8));
        page.set_rax(shape, number);
        true
    }

    /// A signal that was not ours has come since the last answer, and the kernel may have lost that: then the frame shows
    /// the call about to be restarted. (It shows the same if the guest was just about to make the same call again and the
    /// signal hit that one instruction, which is much less likely.)
    pub(super) fn recover_answer(&mut self) {
        let Some((call, value)) = self.answered.take() else { return };
        let (page, shape) = (&self.lease.page, self.shape());
        let same = page.rip(shape) == call.ip.wrapping_sub(CALL_SIZE)
            && page.rcx(shape) == call.ip
            && page.rax(shape) as i32 as i64 as u64 == call.number
            && page.call_arguments(shape) == call.args;
        if same {
            self.finish_in_frame(call, value);
        }
    }

    /// The frame, or the context made of it, shows `call` about to be restarted (unless the kernel does not restart it);
    /// makes it one after it.
    pub(super) fn finish_in_frame(&mut self, call: Call, value: u64) {
        if self.fetched {
            let regs = &mut self.context.regs;
            (regs.rip, regs.rcx, regs.rax) = (call.ip, call.ip, value);
            return;
        }
        let shape = self.shape();
        self.lease.page.set_rip(shape, call.ip);
        self.lease.page.set_rax(shape, value);
        self.relocated = true;
    }
}
