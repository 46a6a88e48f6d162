//! A tracee's own side: where it stops, what it tells its tracer there, and how it goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::ptrace::{self as p, PtraceOptions};
use abi::sched::CloneFlags;
use abi::siginfo::SigInfo;
use abi::signal::{CLD_STOPPED, CLD_TRAPPED, SI_USER, Signal, TRAP_BRKPT};
use abi::{Errno, Result, sysno};

use super::{Going, Link, Resumed, Stop, TRAP_STOP, tell};
use crate::task::current::{CurrentTask, Outcome, Stage};
use crate::task::pid::Pid;
use crate::task::signal;
use crate::task::task::{RunState, Task};

impl CurrentTask {
    /// Stops for the tracer, if there still is one, and the thread is not to leave. `None`: it was not the tracer who let it
    /// go on. `why` is CLD_TRAPPED or CLD_STOPPED.
    fn trap(&self, code: u32, info: Option<SigInfo>, message: u64, why: i32) -> Option<Resumed> {
        self.settle_call();
        self.trapped.set(true);
        self.work.store(true, Ordering::SeqCst);
        let mut context = self.with_context(|context| context.clone()).ok()?;
        context.single_step = false;
        // What ends the thread ends this, but not the stop at the very end.
        let is_leaving = self.is_killed();
        if is_leaving && code >> 8 != p::PTRACE_EVENT_EXIT {
            return None;
        }
        let tracer = {
            let mut tracing = self.tracing.lock();
            let link = tracing.link.as_mut()?;
            let tracer = link.tracer.upgrade()?;
            // Nor would a tracer have it go on that is ending itself: two that trace each other would wait forever.
            if is_leaving && tracer.is_killed() {
                return None;
            }
            // Who learns of the stop sees it in proc, too.
            self.set_state(RunState::Traced);
            link.message = message;
            self.traps.fetch_and(!TRAP_STOP, Ordering::SeqCst);
            tracing.resumed = None;
            tracing.stop =
                Some(Stop { code, info, context, changed: false, reported: false, listening: false });
            tracer
        };
        let status = match why {
            CLD_STOPPED => self.group.signals.lock().stop.unwrap_or(Signal::SIGTRAP).number(),
            _ => code & 0x7f,
        };
        tell(&self.group, self.pid().number_in(tracer.group.pid.namespace()), &tracer, why, status);
        drop(tracer);
        let resumed = loop {
            self.parker().reset();
            let is_killed = !is_leaving && self.is_killed();
            let mut tracing = self.tracing.lock();
            if let Some(resumed) = tracing.resumed.take() {
                break Some(resumed);
            }
            let listens = tracing.stop.as_ref().is_some_and(|stop| stop.listening);
            if is_killed || tracing.stop.is_none() || listens && self.traps.load(Ordering::SeqCst) != 0 {
                tracing.stop = None;
                break None;
            }
            drop(tracing);
            self.parker().park(None);
        };
        self.set_state(RunState::Running);
        self.work.store(true, Ordering::SeqCst);
        let mut resumed = resumed?;
        let new = resumed.context.take();
        let _ = self.with_context(|context| {
            if let Some(new) = new {
                *context = new;
            }
            context.single_step = resumed.steps;
        });
        Some(resumed)
    }

    fn going(&self) -> Option<Going> {
        self.tracing.lock().link.as_ref().map(|link| link.going)
    }

    /// What PTRACE_GETSIGINFO tells of a stop that no signal caused.
    fn event_info(&self, signal: Signal, code: u32) -> SigInfo {
        let creds = self.credentials();
        let own = self.pid().number_in(&self.pid_ns());
        SigInfo::kill(signal, code as i32, own as i32, creds.user_ns.uid(creds.uid))
    }

    /// A signal is about to be taken: the tracer may change it or call it off.
    pub(in crate::task) fn signal_stop(&self, info: SigInfo) -> Option<SigInfo> {
        let Some(signal) = info.signal() else { return Some(info) };
        let tracer = self.tracer();
        let Some(resumed) = self.trap(signal.number(), Some(info), 0, CLD_TRAPPED) else {
            return (!self.is_killed()).then_some(info);
        };
        let signal = resumed.signal?;
        let info = match (resumed.info, tracer) {
            // The signal it stopped for, perhaps with other information.
            (Some(info), _) if info.signal() == Some(signal) => info,
            (_, Some(tracer)) => signal::user_info(&tracer, &self.group, signal, false),
            (_, None) => SigInfo::kill(signal, SI_USER, 0, 0),
        };
        if self.blocked().contains(signal) {
            // Since then: it waits.
            let _ = self.send_signal(info);
            return None;
        }
        Some(info)
    }

    /// A stop that the tracer has asked for, or that of the process (do_jobctl_trap()).
    pub(in crate::task) fn trap_stop(&self) {
        if !self.is_traced() {
            self.traps.store(0, Ordering::Relaxed);
            return;
        }
        let signal = {
            let group = self.group.signals.lock();
            // What changes from here on is told by another trap.
            self.traps.store(0, Ordering::SeqCst);
            group.stop.unwrap_or(Signal::SIGTRAP)
        };
        if self.is_seized() {
            let code = signal.number() | p::PTRACE_EVENT_STOP << 8;
            self.trap(code, Some(self.event_info(signal, code)), 0, CLD_STOPPED);
        } else {
            self.trap(signal.number(), None, 0, CLD_STOPPED);
        }
    }

    /// One of `PTRACE_EVENT_*`, if the tracer has asked to be told of it. True if it has.
    pub(in crate::task) fn event_stop(&self, option: PtraceOptions, event: u32, message: u64) -> bool {
        let wants = |link: &Link| link.options.contains(option);
        let wanted = self.is_traced() && self.tracing.lock().link.as_ref().is_some_and(wants);
        if wanted {
            let code = Signal::SIGTRAP.number() | event << 8;
            self.trap(code, Some(self.event_info(Signal::SIGTRAP, code)), message, CLD_TRAPPED);
        }
        wanted
    }

    fn syscall_stop(&self, message: u32) {
        let options = self.tracing.lock().link.as_ref().map(|link| link.options).unwrap_or_default();
        let good = options.contains(PtraceOptions::PTRACE_O_TRACESYSGOOD);
        let code = Signal::SIGTRAP.number() | if good { 0x80 } else { 0 };
        let info = self.event_info(Signal::SIGTRAP, code);
        let resumed = self.trap(code, Some(info), message.into(), CLD_TRAPPED);
        if let Some(signal) = resumed.and_then(|resumed| resumed.signal) {
            let _ = self.send_signal(SigInfo::kernel(signal));
        }
    }

    /// A system call of a tracee; `ip` is the address behind it.
    pub(in crate::task) fn carry_out_traced(&self, ip: u64) -> Result<Outcome> {
        if let Some(end) = self.trace_entry() {
            return end;
        }
        let (number, args) = self.arguments();
        if let Some(end) = self.screen(number, args, ip) {
            return end;
        }
        // A filter may have asked the tracer, who may have changed the call.
        let (number, args) = self.arguments();
        self.kernel().syscalls.call(self, number, args)
    }

    /// Before a system call. `Some`: it is not carried out, and this is its end.
    fn trace_entry(&self) -> Option<Result<Outcome>> {
        let going = self.going()?;
        let emulates = matches!(going, Going::Emulating | Going::EmulatingByStep);
        if going != Going::ToSyscall && !emulates {
            return None;
        }
        self.syscall_stop(p::PTRACE_EVENTMSG_SYSCALL_ENTRY);
        self.take_call().or_else(|| emulates.then_some(Ok(Outcome::Context)))
    }

    /// The tracer is to be told of calls that a filter wants traced.
    pub(crate) fn wants_seccomp_events(&self) -> bool {
        let wants = |link: &Link| link.options.contains(PtraceOptions::PTRACE_O_TRACESECCOMP);
        self.is_traced() && self.tracing.lock().link.as_ref().is_some_and(wants)
    }

    /// A filter wants the tracer to see the call. `Some`: it is not carried out, and this is its end.
    pub(crate) fn seccomp_stop(&self, reason: u32) -> Option<Result<Outcome>> {
        let (option, event) = (PtraceOptions::PTRACE_O_TRACESECCOMP, p::PTRACE_EVENT_SECCOMP);
        self.event_stop(option, event, reason.into());
        let end = self.take_call();
        let negative = (self.arguments().0 as i64) < 0;
        end.or_else(|| negative.then_some(Ok(Outcome::Context)))
    }

    /// The call that is to be carried out after a stop at its entry, as the registers say. `Some`: none is.
    fn take_call(&self) -> Option<Result<Outcome>> {
        if self.is_killed() {
            return Some(Err(Errno::ENOSYS));
        }
        let Ok(regs) = self.with_context(|context| context.regs) else { return Some(Err(Errno::ENOSYS)) };
        let number = regs.orig_rax as i32 as i64 as u64;
        self.set_arguments(number, [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]);
        (number == u64::MAX).then_some(Ok(Outcome::Context))
    }

    /// After a system call of a tracee, or of one that has been a tracee when it began.
    pub(in crate::task) fn trace_exit(&self) {
        self.settle_call();
        match self.going() {
            Some(Going::ToSyscall) => self.syscall_stop(p::PTRACE_EVENTMSG_SYSCALL_EXIT),
            // The call was the step.
            Some(Going::ByStep) => {
                let ip = self.with_context(|context| {
                    context.single_step = false;
                    context.regs.rip
                });
                self.force_signal(SigInfo::fault(Signal::SIGTRAP, TRAP_BRKPT, ip.unwrap_or(0)));
            }
            _ => {}
        }
    }

    /// The handler of a signal was entered: that is a step.
    pub(in crate::task) fn trace_handler(&self) {
        if self.going().is_some_and(Going::steps) {
            let code = Signal::SIGTRAP.number();
            self.trap(code, Some(self.event_info(Signal::SIGTRAP, code)), 0, CLD_TRAPPED);
        }
    }

    /// Puts what has become of the present call into the registers, where a tracer sees it.
    pub(in crate::task) fn settle_call(&self) {
        let stage = self.stage.get();
        let number = self.arguments().0;
        let (rax, orig_rax) = match stage {
            Stage::Settled => return,
            Stage::Outside => (None, u64::MAX),
            Stage::Called => (Some(Errno::ENOSYS.to_register()), number),
            Stage::Returned(value) => (Some(value), number),
            Stage::Replaced if number == sysno::RT_SIGRETURN => (None, u64::MAX),
            Stage::Replaced => (None, number),
        };
        let _ = self.with_context(|context| {
            context.regs.orig_rax = orig_rax;
            context.regs.rax = rax.unwrap_or(context.regs.rax);
        });
        if stage != Stage::Called {
            self.stage.set(Stage::Settled);
        }
    }

    /// The call that the registers say is to be repeated.
    pub(in crate::task) fn call_to_restart(&self) -> Option<(u64, [u64; 6], Errno)> {
        let regs = self.with_context(|context| context.regs).ok()?;
        let code = i32::try_from((regs.rax as i64).wrapping_neg()).ok()?;
        let error = Errno::from_raw(code);
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        (regs.orig_rax as i64 >= 0 && error.is_restart()).then_some((regs.orig_rax, args, error))
    }

    /// The event that a clone is, if the tracer wants to know.
    pub(in crate::task) fn clone_event(&self, flags: CloneFlags, exit_signal: Option<Signal>) -> Option<u32> {
        if !self.is_traced() || flags.contains(CloneFlags::CLONE_UNTRACED) {
            return None;
        }
        let options = self.tracing.lock().link.as_ref()?.options;
        let event = if flags.contains(CloneFlags::CLONE_VFORK) {
            p::PTRACE_EVENT_VFORK
        } else if exit_signal != Some(Signal::SIGCHLD) {
            p::PTRACE_EVENT_CLONE
        } else {
            p::PTRACE_EVENT_FORK
        };
        options.contains(clone_option(event)).then_some(event)
    }

    /// The new task is traced by the same tracer, and stops first thing (ptrace_init_task()).
    pub(in crate::task) fn pass_trace_on(&self, child: &Arc<Task>) {
        let Some(tracer) = self.tracer() else { return };
        let link = match &self.tracing.lock().link {
            Some(link) => Link { credentials: link.credentials.clone(), ..Link::new(&tracer, link.options) },
            None => return,
        };
        let seized = self.is_seized();
        if child.begin_trace(&tracer, link, seized).is_err() {
            return;
        }
        if seized {
            child.ask_for_trap(TRAP_STOP);
        } else {
            let _ = child.send_signal(SigInfo::kill(Signal::SIGSTOP, SI_USER, 0, 0));
        }
    }

    /// The stop that tells of a clone; `child` is the new thread's.
    pub(in crate::task) fn tell_clone(&self, event: u32, child: &Pid) {
        self.event_stop(clone_option(event), event, self.number_for_tracer(child).into());
    }

    /// A thread's number as its tracer knows it.
    pub(in crate::task) fn number_for_tracer(&self, pid: &Pid) -> u32 {
        self.tracer().map_or(0, |tracer| pid.number_in(&tracer.pid_ns()))
    }

    /// After execve: an event, or for tracers of the old kind SIGTRAP. `old` is the number that the thread had.
    pub(in crate::task) fn tell_exec(&self, old: &Pid) {
        if !self.is_traced() {
            return;
        }
        self.mm().stop_patching();
        let (option, event) = (PtraceOptions::PTRACE_O_TRACEEXEC, p::PTRACE_EVENT_EXEC);
        let told = self.event_stop(option, event, self.number_for_tracer(old).into());
        // What a tracer has seen there is not the result.
        let _ = self.with_context(|context| context.regs.rax = 0);
        if !told && !self.is_seized() {
            let _ = self.send_signal(signal::user_info(self, &self.group, Signal::SIGTRAP, false));
        }
    }
}

fn clone_option(event: u32) -> PtraceOptions {
    match event {
        p::PTRACE_EVENT_VFORK => PtraceOptions::PTRACE_O_TRACEVFORK,
        p::PTRACE_EVENT_CLONE => PtraceOptions::PTRACE_O_TRACECLONE,
        _ => PtraceOptions::PTRACE_O_TRACEFORK,
    }
}
