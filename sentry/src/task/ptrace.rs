//! Tracing (kernel/ptrace.c, kernel/signal.c): who traces whom, and the stops of a tracee.
//!
//! A tracee stops on its own thread, in [`CurrentTask::trap`]: it leaves its registers in its [`Trace`], tells the tracer,
//! and sleeps until the tracer has it go on. The tracer reads and changes what is there; when the tracee goes on it takes
//! over registers that were changed.
//!
//! Lock order: `Kernel::tasklist` → a tracer's list of tracees → a tracee's trace → its signals. A tracee's trace is
//! never held while it sleeps, sends a signal or wakes somebody.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::capability::CAP_SYS_PTRACE;
use abi::poll::PollEvents;
use abi::ptrace::{self as p, PtraceOptions};
use abi::sched::CloneFlags;
use abi::siginfo::SigInfo;
use abi::signal::{CLD_TRAPPED, SI_USER, SIG_IGN, SaFlags, Signal};
use abi::wait::WaitOptions;
use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::{Context, Resume};

use super::access::AccessMode;
use super::current::CurrentTask;
use super::group::{ThreadGroup, Usage};
use super::pid::Pid;
use super::task::{RunState, Task};
use super::wait::{Report, Which};

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Going {
    /// Until something happens.
    #[default]
    Freely,
    /// To the next entry of a system call, or the end of the present one.
    ToSyscall,
    /// By one instruction.
    ByStep,
}

/// Where a tracee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// About to take a signal.
    Signal,
    /// About to carry out a system call.
    SyscallEntry,
    /// Done with a system call.
    SyscallExit,
    /// One of `PTRACE_EVENT_*`.
    Event,
    /// Its process has stopped.
    Group,
}

/// A tracee that has stopped.
pub struct Stop {
    /// Why.
    pub kind: StopKind,
    /// The `status >> 8` of wait(2): a signal, and above it an event.
    pub code: u32,
    /// What PTRACE_GETSIGINFO tells; `None` for the stop of a process.
    pub info: Option<SigInfo>,
    /// The registers.
    pub context: Context,
    /// They were changed.
    pub changed: bool,
    /// wait(2) has told of it.
    reported: bool,
}

/// What a tracer has asked for when it let a tracee go on.
struct Resumed {
    signal: Option<Signal>,
    info: Option<SigInfo>,
    context: Option<Context>,
}

/// What makes a thread a tracee.
pub struct Trace {
    tracer: Weak<Task>,
    /// PTRACE_O_*.
    pub options: PtraceOptions,
    /// PTRACE_SEIZE rather than PTRACE_ATTACH or PTRACE_TRACEME.
    pub seized: bool,
    /// Where it stands, if it does.
    pub stop: Option<Stop>,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    going: Going,
    resumed: Option<Resumed>,
    /// PTRACE_LISTEN: it stays where it is, but events of its process are told.
    listening: bool,
}

impl Trace {
    fn new(tracer: &Arc<Task>, options: PtraceOptions, seized: bool) -> Trace {
        Trace {
            tracer: Arc::downgrade(tracer),
            options,
            seized,
            stop: None,
            message: 0,
            going: Going::Freely,
            resumed: None,
            listening: false,
        }
    }
}

/// A tracee that has ended, for a tracer that is not its parent.
struct Dead {
    pid: Arc<Pid>,
    uid: u32,
    status: u32,
    usage: Usage,
}

/// A thread as a tracer.
#[derive(Default)]
pub struct Tracer {
    tracees: Mutex<Vec<Weak<Task>>>,
    dead: Mutex<Vec<Dead>>,
}

impl Task {
    /// Has it a tracer?
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Acquire)
    }

    /// The tracer.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        if !self.is_traced() {
            return None;
        }
        self.trace.lock().as_ref()?.tracer.upgrade()
    }

    fn begin_trace(self: &Arc<Task>, tracer: &Arc<Task>, trace: Trace) -> Result<()> {
        let mut tracees = tracer.tracing.tracees.lock();
        let mut place = self.trace.lock();
        if place.is_some() {
            return Err(Errno::EPERM);
        }
        *place = Some(trace);
        self.traced.store(true, Ordering::Release);
        // Nothing is answered behind the tracer's back.
        self.identity_changed.store(true, Ordering::Relaxed);
        tracees.retain(|tracee| tracee.strong_count() > 0);
        tracees.push(Arc::downgrade(self));
        Ok(())
    }

    /// PTRACE_TRACEME: the thread that made the process traces it, or its leader. EPERM.
    pub fn trace_me(self: &Arc<Task>) -> Result<()> {
        let _tasklist = self.kernel().tasklist.lock();
        let maker = self.group.family.lock().made_by.upgrade();
        let parent = self.group.parent().ok_or(Errno::EPERM)?;
        let tracer = maker.filter(|task| Arc::ptr_eq(&task.group, &parent)).or_else(|| parent.any_task());
        let tracer = tracer.ok_or(Errno::EPERM)?;
        self.begin_trace(&tracer, Trace::new(&tracer, PtraceOptions::empty(), false))
    }

    /// PTRACE_ATTACH, or with options PTRACE_SEIZE. EPERM.
    pub fn attach_to(self: &Arc<Task>, tracee: &Arc<Task>, seize: Option<PtraceOptions>) -> Result<()> {
        if Arc::ptr_eq(&self.group, &tracee.group) {
            return Err(Errno::EPERM);
        }
        self.may_access(tracee, AccessMode::AttachReal)?;
        let scope = crate::parameters::PTRACE_SCOPE.get(&self.kernel().parameters);
        if scope > 0 && !self.credentials().capable_in(&tracee.credentials().user_ns, CAP_SYS_PTRACE) {
            return Err(Errno::EPERM);
        }
        {
            let _tasklist = self.kernel().tasklist.lock();
            if tracee.is_killed() {
                return Err(Errno::EPERM);
            }
            tracee.begin_trace(self, Trace::new(self, seize.unwrap_or_default(), seize.is_some()))?;
        }
        match seize {
            None => {
                let _ = tracee.send_signal(SigInfo::kernel(Signal::SIGSTOP));
            }
            Some(_) => tracee.interrupt(),
        }
        Ok(())
    }

    /// Lets a stopped tracee go on, perhaps without being traced any longer. ESRCH if it is not stopped, EIO for a
    /// signal that is none.
    pub fn let_go(self: &Arc<Task>, signal: u64, going: Going, detach: bool) -> Result<()> {
        let signal = match signal {
            0 => None,
            number => {
                let number = i32::try_from(number).map_err(|_| Errno::EIO)?;
                Some(Signal::from_i32(number).ok_or(Errno::EIO)?)
            }
        };
        {
            let mut place = self.trace.lock();
            let trace = place.as_mut().ok_or(Errno::ESRCH)?;
            let stop = trace.stop.take().ok_or(Errno::ESRCH)?;
            let context = stop.changed.then_some(stop.context);
            trace.resumed = Some(Resumed { signal, info: stop.info, context });
            trace.going = going;
            trace.listening = false;
            if detach {
                // The tracee takes this away itself, with what it is to do.
                trace.tracer = Weak::new();
                self.traced.store(false, Ordering::Release);
            }
        }
        self.interrupt();
        Ok(())
    }

    /// PTRACE_INTERRUPT. EIO unless seized.
    pub fn ask_to_stop(self: &Arc<Task>) -> Result<()> {
        {
            let mut place = self.trace.lock();
            let trace = place.as_mut().ok_or(Errno::ESRCH)?;
            if !trace.seized {
                return Err(Errno::EIO);
            }
            self.trap_asked.store(true, Ordering::Release);
            if trace.listening {
                // Told once more.
                trace.listening = false;
                if let Some(stop) = &mut trace.stop {
                    stop.reported = false;
                }
            }
        }
        self.interrupt();
        if let Some(tracer) = self.tracer() {
            tracer.group.child_events.notify(PollEvents::POLLIN);
        }
        Ok(())
    }

    /// PTRACE_LISTEN. EIO unless it was seized and its process has stopped.
    pub fn listen(&self) -> Result<()> {
        let mut place = self.trace.lock();
        let trace = place.as_mut().ok_or(Errno::ESRCH)?;
        let fits = trace.seized && trace.stop.as_ref().is_some_and(|stop| stop.kind == StopKind::Group);
        if !fits {
            return Err(Errno::EIO);
        }
        trace.listening = true;
        Ok(())
    }

    /// Looks at or changes the stop of a tracee. ESRCH unless `tracer` traces it and it is stopped.
    pub fn with_stop<R>(&self, tracer: &Task, f: impl FnOnce(&mut Trace) -> Result<R>) -> Result<R> {
        let mut place = self.trace.lock();
        let trace = place.as_mut().ok_or(Errno::ESRCH)?;
        let own = trace.tracer.upgrade().is_some_and(|t| std::ptr::eq(&raw const *t, tracer));
        if !own || trace.stop.is_none() || trace.listening {
            return Err(Errno::ESRCH);
        }
        f(trace)
    }

    /// True if `tracer` traces it.
    pub fn is_traced_by(&self, tracer: &Task) -> bool {
        self.tracer().is_some_and(|t| std::ptr::eq(&raw const *t, tracer))
    }

    /// The end of a tracer: its tracees go on alone, or end with it (exit_ptrace()).
    pub(super) fn stop_tracing(&self) {
        let tracees = std::mem::take(&mut *self.tracing.tracees.lock());
        self.tracing.dead.lock().clear();
        for tracee in tracees.iter().filter_map(Weak::upgrade) {
            if !tracee.is_traced_by(self) {
                continue;
            }
            let kills = {
                let mut place = tracee.trace.lock();
                let Some(trace) = place.as_mut() else { continue };
                trace.options.contains(PtraceOptions::PTRACE_O_EXITKILL)
            };
            if kills {
                let _ = tracee.group.send_signal(SigInfo::kernel(Signal::SIGKILL));
            }
            if tracee.let_go(0, Going::Freely, true).is_err() {
                *tracee.trace.lock() = None;
                tracee.traced.store(false, Ordering::Release);
                tracee.identity_changed.store(true, Ordering::Relaxed);
                tracee.interrupt();
            }
        }
    }

    /// A tracee has ended: its tracer can wait for it, unless it is the parent and this the whole process.
    pub(super) fn tell_tracer_of_end(&self, status: u32, whole_process: bool) {
        let Some(tracer) = self.tracer() else { return };
        let parent = self.group.parent();
        let of_parent = parent.is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.group));
        let leader = Arc::ptr_eq(&self.pid(), &self.group.pid);
        if leader && (!whole_process || of_parent) {
            return;
        }
        let dead = Dead { pid: self.pid(), uid: self.credentials().uid, status, usage: self.usage() };
        tracer.tracing.dead.lock().push(dead);
        *self.trace.lock() = None;
        self.traced.store(false, Ordering::Release);
        tell(&self.group, &tracer, super::wait::exit_code(status), status as i32);
    }
}

/// SIGCHLD for the tracer, and a wake for who waits there.
fn tell(tracee: &Arc<ThreadGroup>, tracer: &Arc<Task>, code: i32, status: i32) {
    let group = &tracer.group;
    let action = group.action(Signal::SIGCHLD);
    let stops_quietly = SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_NOCLDSTOP);
    if action.handler != SIG_IGN && !(code == CLD_TRAPPED && stops_quietly) {
        let info = super::wait::child_info(tracee, group, Signal::SIGCHLD, code, status);
        let _ = group.send_signal(info);
    }
    group.child_events.notify(PollEvents::POLLIN);
}

fn is_meant(which: &Which, task: &Task) -> bool {
    match which {
        Which::Any => true,
        Which::Process(pid) => Arc::ptr_eq(pid, &task.pid()),
        Which::Group(pid) => Arc::ptr_eq(&task.group.process_group().pid, pid),
        Which::Nobody => false,
    }
}

impl CurrentTask {
    /// What tracees have to report to wait(2). `Err(ECHILD)` if there are none that are meant.
    pub(super) fn look_for_tracee(&self, which: &Which, options: WaitOptions) -> Result<Option<Report>> {
        let tracers = if options.contains(WaitOptions::__WNOTHREAD) {
            vec![Arc::clone(self)]
        } else {
            self.group.threads()
        };
        let mut any = false;
        for tracer in tracers {
            if options.contains(WaitOptions::WEXITED)
                && let Some(report) = dead_of(&tracer, which, options)
            {
                return Ok(Some(report));
            }
            let tracees: Vec<Arc<Task>> =
                tracer.tracing.tracees.lock().iter().filter_map(Weak::upgrade).collect();
            for tracee in tracees {
                if !is_meant(which, &tracee) || !tracee.is_traced_by(&tracer) {
                    continue;
                }
                any = true;
                let mut place = tracee.trace.lock();
                let Some(stop) = place.as_mut().and_then(|trace| trace.stop.as_mut()) else { continue };
                if stop.reported {
                    continue;
                }
                stop.reported = !options.contains(WaitOptions::WNOWAIT);
                let status = stop.code << 8 | 0x7f;
                drop(place);
                let uid = tracee.credentials().uid;
                let (pid, usage) = (tracee.pid(), tracee.usage());
                return Ok(Some(Report { pid, uid, code: CLD_TRAPPED, status, usage }));
            }
        }
        if any { Ok(None) } else { Err(Errno::ECHILD) }
    }

    /// Stops for the tracer, if there still is one. Returns the signal with which it goes on, and its information.
    fn trap(
        &self,
        kind: StopKind,
        code: u32,
        info: Option<SigInfo>,
        message: Option<u64>,
        shown: impl FnOnce(&mut Context),
    ) -> (Option<Signal>, Option<SigInfo>) {
        let own = || (info.and_then(|info| info.signal()), info);
        let Ok(mut context) = self.with_context(|context| context.clone()) else { return own() };
        context.single_step = false;
        shown(&mut context);
        let tracer = {
            let mut place = self.trace.lock();
            let Some(trace) = place.as_mut() else { return own() };
            let Some(tracer) = trace.tracer.upgrade() else { return own() };
            // Who learns of the stop sees it in proc, too.
            self.set_state(RunState::Traced);
            if let Some(message) = message {
                trace.message = message;
            }
            if kind == StopKind::Group || code >> 8 == p::PTRACE_EVENT_STOP {
                self.trap_asked.store(false, Ordering::Release);
            }
            trace.resumed = None;
            trace.stop = Some(Stop { kind, code, info, context, changed: false, reported: false });
            tracer
        };
        tell(&self.group, &tracer, CLD_TRAPPED, (code & 0x7f) as i32);
        drop(tracer);
        // What ends the process ends this, but for the stop at the very end.
        let at_end = code >> 8 == p::PTRACE_EVENT_EXIT;
        let resumed = loop {
            self.parker().reset();
            {
                let mut place = self.trace.lock();
                let Some(trace) = place.as_mut() else { break None };
                if let Some(resumed) = trace.resumed.take() {
                    break Some(resumed);
                }
                let (exit, stopped) = {
                    let signals = self.group.signals.lock();
                    (signals.exit, signals.stop.is_some())
                };
                if trace.listening && !stopped {
                    // Continued: that is told, and it waits for the tracer again.
                    trace.listening = false;
                    if let Some(stop) = &mut trace.stop {
                        stop.code = Signal::SIGTRAP.number() | p::PTRACE_EVENT_STOP << 8;
                        stop.kind = StopKind::Event;
                        stop.reported = false;
                    }
                    let tracer = trace.tracer.upgrade();
                    drop(place);
                    if let Some(tracer) = tracer {
                        tell(&self.group, &tracer, CLD_TRAPPED, Signal::SIGTRAP.number() as i32);
                    }
                    continue;
                }
                let killed = abi::wait::signaled(Signal::SIGKILL, false);
                let ends = match exit {
                    Some(exit) => !at_end || exit.status == killed,
                    None => self.is_killed(),
                };
                if ends || trace.tracer.strong_count() == 0 {
                    trace.stop = None;
                    break None;
                }
            }
            self.parker().park(None);
        };
        self.set_state(RunState::Running);
        self.work.store(true, Ordering::SeqCst);
        let (going, detached) = {
            let mut place = self.trace.lock();
            let detached = place.as_ref().is_none_or(|trace| trace.tracer.strong_count() == 0);
            let going = place.as_ref().map_or(Going::Freely, |trace| trace.going);
            if detached {
                *place = None;
                self.traced.store(false, Ordering::Release);
                self.identity_changed.store(true, Ordering::Relaxed);
            }
            (going, detached)
        };
        let Some(resumed) = resumed else { return (None, None) };
        if let Some(new) = resumed.context {
            self.take_registers(new);
        }
        let step = going == Going::ByStep && !detached;
        let _ = self.with_context(|context| context.single_step = step);
        let info = match (resumed.signal, resumed.info) {
            (None, _) => None,
            // The signal it stopped for, perhaps with other information.
            (Some(signal), Some(info)) if info.signal() == Some(signal) => Some(info),
            (Some(signal), _) => Some(SigInfo::kill(signal, SI_USER, 0, 0)),
        };
        (resumed.signal, info)
    }

    /// Registers that a tracer has set. A call that was interrupted is only repeated if they say so (do_signal()).
    fn take_registers(&self, mut new: Context) {
        let regs = &mut new.regs;
        if regs.orig_rax as i64 >= 0 {
            match (regs.rax as i64).wrapping_neg() {
                512..=514 => {
                    regs.rax = regs.orig_rax;
                    regs.rip = regs.rip.wrapping_sub(2);
                }
                516 => {
                    regs.rax = abi::sysno::RESTART_SYSCALL;
                    regs.rip = regs.rip.wrapping_sub(2);
                }
                _ => {}
            }
        }
        let _ = self.with_context(|context| *context = new);
        self.registers_replaced.set(true);
    }

    /// A signal is about to be taken: the tracer may change it or call it off.
    pub(super) fn signal_stop(&self, info: SigInfo) -> Option<SigInfo> {
        let Some(signal) = info.signal() else { return Some(info) };
        let number = signal.number();
        let (going_on, new) = self.trap(StopKind::Signal, number, Some(info), None, |_| {});
        let new = new?;
        if going_on != Some(signal) && self.blocked().contains(going_on?) {
            // Blocked since: it waits.
            let _ = self.send_signal(new);
            return None;
        }
        Some(new)
    }

    /// A stop that the tracer has asked for, or that of the process. True if there was one.
    pub(super) fn trap_stop(&self, group_stop: Option<Signal>) -> bool {
        let seized = match &*self.trace.lock() {
            Some(trace) => trace.seized,
            None => return false,
        };
        if group_stop.is_none() && !self.trap_asked.swap(false, Ordering::AcqRel) {
            return false;
        }
        let signal = group_stop.unwrap_or(Signal::SIGTRAP).number();
        let kind = if group_stop.is_some() { StopKind::Group } else { StopKind::Event };
        if seized {
            let code = signal | p::PTRACE_EVENT_STOP << 8;
            let info = SigInfo { si_code: code as i32, ..SigInfo::kernel(Signal::SIGTRAP) };
            self.trap(kind, code, Some(info), Some(0), |_| {});
        } else {
            self.trap(kind, signal, None, None, |_| {});
        }
        true
    }

    /// One of `PTRACE_EVENT_*`, if the tracer has asked to be told of it. True if it has.
    pub(super) fn event_stop(&self, option: PtraceOptions, event: u32, message: u64) -> bool {
        let wanted = self.is_traced()
            && self.trace.lock().as_ref().is_some_and(|trace| trace.options.contains(option));
        if wanted {
            let code = Signal::SIGTRAP.number() | event << 8;
            let info = SigInfo { si_code: code as i32, ..SigInfo::kernel(Signal::SIGTRAP) };
            let (number, _) = self.arguments();
            self.trap(StopKind::Event, code, Some(info), Some(message), |context| {
                context.regs.orig_rax = number;
            });
        }
        wanted
    }

    fn syscall_trap(&self, kind: StopKind, message: u32, shown: impl FnOnce(&mut Context)) -> bool {
        let good = match &*self.trace.lock() {
            Some(trace) if trace.going == Going::ToSyscall => {
                trace.options.contains(PtraceOptions::PTRACE_O_TRACESYSGOOD)
            }
            // A single step over a call ends after it.
            Some(trace) if trace.going == Going::ByStep && kind == StopKind::SyscallExit => false,
            _ => return false,
        };
        let code = Signal::SIGTRAP.number() | if good { 0x80 } else { 0 };
        let info = SigInfo { si_code: code as i32, ..SigInfo::kernel(Signal::SIGTRAP) };
        let (signal, _) = self.trap(kind, code, Some(info), Some(message.into()), shown);
        if let Some(signal) = signal {
            let _ = self.send_signal(SigInfo::kill(signal, SI_USER, 0, 0));
        }
        true
    }

    /// Before a system call: what is to be carried out instead. `Err`: nothing is, and this is the result.
    pub(super) fn trace_entry(
        &self,
        number: u64,
        args: [u64; 6],
    ) -> std::result::Result<(u64, [u64; 6]), u64> {
        let stopped =
            self.syscall_trap(StopKind::SyscallEntry, p::PTRACE_EVENTMSG_SYSCALL_ENTRY, |context| {
                context.regs.orig_rax = number;
                context.regs.rax = Errno::ENOSYS.to_register();
            });
        if !stopped || !self.registers_replaced.take() {
            return Ok((number, args));
        }
        let regs = self.with_context(|context| context.regs).map_err(|_| Errno::ENOSYS.to_register())?;
        if (regs.orig_rax as i32) < 0 {
            return Err(regs.rax);
        }
        Ok((regs.orig_rax, [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]))
    }

    /// After a system call. The result is in the registers from here on. True if the tracer has replaced them.
    pub(super) fn trace_exit(&self, number: u64, resume: &mut Resume) -> bool {
        self.settle_result(resume, Some(number));
        self.syscall_trap(StopKind::SyscallExit, p::PTRACE_EVENTMSG_SYSCALL_EXIT, |context| {
            context.regs.orig_rax = number;
        });
        self.registers_replaced.take()
    }

    /// Puts the result of a call into the registers, where a tracer sees it.
    pub(super) fn settle_result(&self, resume: &mut Resume, number: Option<u64>) {
        if let Resume::Result(value) = *resume {
            let _ = self.with_context(|context| {
                context.regs.rax = value;
                context.regs.orig_rax = number.unwrap_or(u64::MAX);
            });
            *resume = Resume::Context;
        }
    }

    /// The event that a clone is, if the tracer wants to know, or the child is to be traced anyway (CLONE_PTRACE).
    pub(super) fn clone_event(&self, flags: CloneFlags, exit_signal: Option<Signal>) -> Option<u32> {
        if !self.is_traced() || flags.contains(CloneFlags::CLONE_UNTRACED) {
            return None;
        }
        let options = self.trace.lock().as_ref()?.options;
        let (option, event) = if flags.contains(CloneFlags::CLONE_VFORK) {
            (PtraceOptions::PTRACE_O_TRACEVFORK, p::PTRACE_EVENT_VFORK)
        } else if exit_signal != Some(Signal::SIGCHLD) {
            (PtraceOptions::PTRACE_O_TRACECLONE, p::PTRACE_EVENT_CLONE)
        } else {
            (PtraceOptions::PTRACE_O_TRACEFORK, p::PTRACE_EVENT_FORK)
        };
        options.contains(option).then_some(event)
    }

    /// The new task is traced by the same tracer, and stops first thing (ptrace_init_task()).
    pub(super) fn pass_trace_on(&self, child: &Arc<Task>) {
        let Some(tracer) = self.tracer() else { return };
        let Some((options, seized)) = self.trace.lock().as_ref().map(|t| (t.options, t.seized)) else {
            return;
        };
        if child.begin_trace(&tracer, Trace::new(&tracer, options, seized)).is_err() {
            return;
        }
        if seized {
            child.trap_asked.store(true, Ordering::Release);
        } else {
            let _ = child.send_signal(SigInfo::kernel(Signal::SIGSTOP));
        }
        child.work.store(true, Ordering::SeqCst);
    }

    /// The stop that tells of a clone; `number` is the child's.
    pub(super) fn tell_clone(&self, event: u32, child: &Pid) {
        let ns = self.tracer().map(|tracer| tracer.pid_ns());
        let number = ns.map_or(0, |ns| child.number_in(&ns));
        let option = match event {
            p::PTRACE_EVENT_VFORK => PtraceOptions::PTRACE_O_TRACEVFORK,
            p::PTRACE_EVENT_CLONE => PtraceOptions::PTRACE_O_TRACECLONE,
            _ => PtraceOptions::PTRACE_O_TRACEFORK,
        };
        self.event_stop(option, event, number.into());
    }

    /// After execve: an event, or for tracers of the old kind SIGTRAP.
    pub(super) fn tell_exec(&self, old_number: u32) {
        if !self.is_traced() {
            return;
        }
        let event = p::PTRACE_EVENT_EXEC;
        let told = self.event_stop(PtraceOptions::PTRACE_O_TRACEEXEC, event, old_number.into());
        let seized = self.trace.lock().as_ref().is_none_or(|trace| trace.seized);
        if !told && !seized {
            let _ = self.send_signal(SigInfo::kill(Signal::SIGTRAP, SI_USER, 0, 0));
        }
    }
}

fn dead_of(tracer: &Task, which: &Which, options: WaitOptions) -> Option<Report> {
    let mut dead = tracer.tracing.dead.lock();
    let meant = |dead: &Dead| match which {
        Which::Any => true,
        Which::Process(pid) => Arc::ptr_eq(pid, &dead.pid),
        Which::Group(_) | Which::Nobody => false,
    };
    let at = dead.iter().position(meant)?;
    let report = |dead: &Dead| Report {
        pid: dead.pid.clone(),
        uid: dead.uid,
        code: super::wait::exit_code(dead.status),
        status: dead.status,
        usage: dead.usage,
    };
    if options.contains(WaitOptions::WNOWAIT) {
        return dead.get(at).map(report);
    }
    Some(report(&dead.remove(at)))
}
