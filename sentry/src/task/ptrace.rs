//! Tracing (kernel/ptrace.c, kernel/signal.c): who traces whom, and what tracers do with tracees. The tracee's
//! side is in `stops.rs`.
//!
//! A tracee stops on its own thread, in `CurrentTask::trap`: it leaves its registers in its [`Tracing`], tells the tracer,
//! and sleeps until the tracer has it go on. The tracer reads and changes what is there; when the tracee goes on it takes
//! over registers that were changed. Who is not traced pays for all this with the look at a flag.
//!
//! Lock order: `Kernel::tasklist` → a tracer's lists ([`Tracer`]) → a tracee's [`Tracing`] → the signals of its process →
//! its own. None of the two in the middle is held while somebody sleeps, sends a signal or wakes another.

mod stops;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::capability::CAP_SYS_PTRACE;
use abi::poll::PollEvents;
use abi::ptrace::{self as p, PtraceOptions};
use abi::siginfo::SigInfo;
use abi::signal::{CLD_STOPPED, CLD_TRAPPED, SIG_IGN, SaFlags, Signal, SignalSet};
use abi::wait::WaitOptions;
use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::Context;

use super::access::AccessMode;
use super::credentials::Credentials;
use super::current::CurrentTask;
use super::group::{ThreadGroup, Usage};
use super::pid::Pid;
use super::task::{RunState, Task};
use super::wait::{Report, Which};
use crate::Kernel;

/// In [`Task::traps`]: the tracer wants a stop (PTRACE_INTERRUPT), or the process of a new tracee has stopped already.
pub(super) const TRAP_STOP: u8 = 1;
/// In [`Task::traps`]: the process of a seized tracee was stopped or continued.
pub(super) const TRAP_NOTIFY: u8 = 2;

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
    /// To the next system call, which is not carried out.
    Emulating,
    /// By one instruction; a system call is not carried out.
    EmulatingByStep,
}

impl Going {
    fn steps(self) -> bool {
        matches!(self, Going::ByStep | Going::EmulatingByStep)
    }
}

/// A tracee that has stopped.
pub struct Stop {
    /// The `status >> 8` of wait(2): a signal, and above it an event.
    pub code: u32,
    /// What PTRACE_GETSIGINFO tells; `None` for the stop of a process, unless it was seized.
    pub info: Option<SigInfo>,
    /// The registers.
    pub context: Context,
    /// They were changed.
    pub changed: bool,
    /// wait(2) has told of it.
    reported: bool,
    /// PTRACE_LISTEN: it stays where it is, but events of its process are told.
    listening: bool,
}

/// What ties a tracee to its tracer.
pub struct Link {
    tracer: Weak<Task>,
    /// Those of the tracer when it became one: set-id programs ask them.
    credentials: Arc<Credentials>,
    /// PTRACE_O_*.
    pub options: PtraceOptions,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    going: Going,
}

impl Link {
    fn new(tracer: &Arc<Task>, options: PtraceOptions) -> Link {
        let credentials = tracer.credentials();
        Link { tracer: Arc::downgrade(tracer), credentials, options, message: 0, going: Going::Freely }
    }

    fn is_of(&self, tracer: &Task) -> bool {
        std::ptr::eq(self.tracer.as_ptr(), tracer)
    }
}

/// What a tracer has asked for when it let a tracee go on.
struct Resumed {
    signal: Option<Signal>,
    info: Option<SigInfo>,
    context: Option<Context>,
    steps: bool,
}

/// A thread as a tracee.
#[derive(Default)]
pub struct Tracing {
    link: Option<Link>,
    stop: Option<Stop>,
    /// Not taken note of yet.
    resumed: Option<Resumed>,
}

impl Tracing {
    fn resume(&mut self, signal: Option<Signal>, going: Going) {
        if let Some(stop) = self.stop.take() {
            let context = stop.changed.then_some(stop.context);
            self.resumed = Some(Resumed { signal, info: stop.info, context, steps: going.steps() });
        }
    }
}

/// A tracee that has ended.
struct Dead {
    pid: Arc<Pid>,
    process_group: Arc<Pid>,
    uid: u32,
    status: u32,
    usage: Usage,
    /// Its parent learns of the end of this process when the tracer has.
    held: Option<Arc<ThreadGroup>>,
}

/// A thread as a tracer.
#[derive(Default)]
pub struct Tracer(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    /// The thread has ended: it traces nobody any more.
    ended: bool,
    tracees: Vec<Weak<Task>>,
    dead: Vec<Dead>,
}

impl Task {
    /// Has it a tracer?
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// The tracer.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        if !self.is_traced() {
            return None;
        }
        self.tracing.lock().link.as_ref()?.tracer.upgrade()
    }

    /// It has a tracer with PTRACE_SEIZE.
    pub(super) fn is_seized(&self) -> bool {
        self.seized.load(Ordering::Relaxed)
    }

    fn begin_trace(self: &Arc<Task>, tracer: &Arc<Task>, link: Link, seized: bool) -> Result<()> {
        {
            let mut lists = tracer.tracer_of.0.lock();
            let mut tracing = self.tracing.lock();
            if lists.ended || tracing.link.is_some() {
                return Err(Errno::EPERM);
            }
            tracing.link = Some(link);
            self.seized.store(seized, Ordering::Relaxed);
            self.traced.store(true, Ordering::SeqCst);
            lists.tracees.retain(|tracee| tracee.strong_count() > 0);
            lists.tracees.push(Arc::downgrade(self));
        }
        tracer.group.has_traced.store(true, Ordering::SeqCst);
        // Nothing is answered behind the tracer's back.
        self.identity_changed();
        if let Some(mm) = self.memory() {
            mm.stop_patching();
        }
        Ok(())
    }

    /// The tie is cut. The lock of `tracing` is held.
    fn untie(&self, tracing: &mut Tracing) {
        tracing.link = None;
        self.traced.store(false, Ordering::SeqCst);
        self.seized.store(false, Ordering::Relaxed);
        self.traps.store(0, Ordering::Relaxed);
    }

    /// What is to be done after that.
    fn go_alone(&self) {
        self.identity_changed();
        // If its process has stopped, it stops with it.
        self.signals.lock().stop_ignored = false;
        self.interrupt();
    }

    /// PTRACE_TRACEME: the thread that made the process traces it, or its leader. EPERM.
    pub fn trace_me(self: &Arc<Task>) -> Result<()> {
        let _tasklist = self.kernel().tasklist.lock();
        let maker = self.group.family.lock().made_by.upgrade();
        let parent = self.group.parent().ok_or(Errno::EPERM)?;
        let tracer = maker.filter(|task| Arc::ptr_eq(&task.group, &parent) && !task.tracer_of.0.lock().ended);
        let tracer = tracer.or_else(|| parent.any_task()).ok_or(Errno::EPERM)?;
        let mut link = Link::new(&tracer, PtraceOptions::empty());
        // It is no better than its tracee, who has asked for it.
        link.credentials = self.credentials();
        self.begin_trace(&tracer, link, false)
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
            if tracee.state() == RunState::Zombie as u8 as char {
                return Err(Errno::EPERM);
            }
            tracee.begin_trace(self, Link::new(self, seize.unwrap_or_default()), seize.is_some())?;
        }
        if seize.is_none() {
            let _ = tracee.send_signal(SigInfo::kernel(Signal::SIGSTOP));
        }
        tracee.interrupt();
        Ok(())
    }

    /// Lets a stopped tracee of `by` go on; `None`: without being traced any longer. ESRCH if it is not stopped, EIO for
    /// a signal that is none.
    pub fn let_go(self: &Arc<Task>, by: &Task, signal: u64, going: Option<Going>) -> Result<()> {
        {
            let mut lists = by.tracer_of.0.lock();
            let mut tracing = self.tracing.lock();
            stopped_for(&mut tracing, by)?;
            let signal = match signal {
                0 => None,
                number => {
                    let number = i32::try_from(number).map_err(|_| Errno::EIO)?;
                    Some(Signal::from_i32(number).ok_or(Errno::EIO)?)
                }
            };
            tracing.resume(signal, going.unwrap_or_default());
            match (going, &mut tracing.link) {
                (Some(going), Some(link)) => link.going = going,
                _ => {
                    self.untie(&mut tracing);
                    lists.tracees.retain(|tracee| !std::ptr::eq(tracee.as_ptr(), Arc::as_ptr(self)));
                }
            }
        }
        match going {
            Some(_) => self.interrupt(),
            None => self.go_alone(),
        }
        Ok(())
    }

    /// PTRACE_INTERRUPT. EIO unless seized.
    pub fn ask_to_stop(&self) -> Result<()> {
        if !self.is_seized() {
            return Err(Errno::EIO);
        }
        self.ask_for_trap(TRAP_STOP);
        Ok(())
    }

    /// The tracee is to stop for [`TRAP_STOP`] or [`TRAP_NOTIFY`]. One that has stopped does so later, unless it listens.
    pub(super) fn ask_for_trap(&self, trap: u8) {
        self.traps.fetch_or(trap, Ordering::SeqCst);
        self.interrupt();
    }

    /// PTRACE_LISTEN by `tracer`. EIO unless it was seized and it is the stop of its process or of PTRACE_INTERRUPT.
    pub fn listen(&self, tracer: &Task) -> Result<()> {
        let mut tracing = self.tracing.lock();
        let (_, stop) = stopped_for(&mut tracing, tracer)?;
        if !self.is_seized() || stop.code >> 8 != p::PTRACE_EVENT_STOP {
            return Err(Errno::EIO);
        }
        stop.listening = true;
        drop(tracing);
        self.interrupt();
        Ok(())
    }

    /// Looks at or changes the stop of a tracee. ESRCH unless `tracer` traces it and it is stopped.
    pub fn with_stop<R>(
        &self,
        tracer: &Task,
        f: impl FnOnce(&mut Link, &mut Stop) -> Result<R>,
    ) -> Result<R> {
        let mut tracing = self.tracing.lock();
        let (link, stop) = stopped_for(&mut tracing, tracer)?;
        f(link, stop)
    }

    /// True if `tracer` traces it.
    pub fn is_traced_by(&self, tracer: &Task) -> bool {
        self.is_traced() && self.tracing.lock().link.as_ref().is_some_and(|link| link.is_of(tracer))
    }

    /// The mask that a tracer sees: not the temporary one of sigsuspend(2) and its like.
    pub fn lasting_mask(&self) -> SignalSet {
        let own = self.signals.lock();
        own.saved.unwrap_or(own.blocked)
    }

    /// Replaces the mask for good.
    pub fn set_lasting_mask(&self, mask: SignalSet) {
        self.signals.lock().saved = None;
        self.set_blocked(mask);
    }

    /// The tracer, if it must not see what a set-id program may do with its new rights (ptracer_capable()).
    pub(super) fn has_weak_tracer(&self, credentials: &Credentials) -> bool {
        self.is_traced()
            && self
                .tracing
                .lock()
                .link
                .as_ref()
                .is_some_and(|link| !link.credentials.capable_in(&credentials.user_ns, CAP_SYS_PTRACE))
    }

    /// The end of a tracer: its tracees go on alone, or end with it (exit_ptrace()).
    pub(super) fn stop_tracing(&self) {
        let (tracees, dead) = {
            let mut lists = self.tracer_of.0.lock();
            lists.ended = true;
            (std::mem::take(&mut lists.tracees), std::mem::take(&mut lists.dead))
        };
        for tracee in tracees.iter().filter_map(Weak::upgrade) {
            let options = match &tracee.tracing.lock().link {
                Some(link) if link.is_of(self) => link.options,
                _ => continue,
            };
            if options.contains(PtraceOptions::PTRACE_O_EXITKILL) {
                let _ = tracee.group.send_signal(SigInfo::kernel(Signal::SIGKILL));
            }
            {
                let mut tracing = tracee.tracing.lock();
                tracing.resume(None, Going::Freely);
                tracee.untie(&mut tracing);
            }
            tracee.go_alone();
        }
        for dead in dead {
            dead.release(self.kernel());
        }
    }

    /// A thread has ended that is not the first of its process: if it is traced, its tracer can wait for it. `last`: the
    /// process has ended, too, which [`Task::leave_process_to_tracer`] is about.
    pub(super) fn tell_tracer_of_end(self: &Arc<Task>, status: u32, last: bool) {
        let Some(tracer) = self.tracer() else { return };
        // Who waits sees it as a tracee or as a dead one.
        let _tasklist = self.kernel().tasklist.lock();
        if !Arc::ptr_eq(&self.pid(), &self.group.pid) {
            self.untie(&mut self.tracing.lock());
            self.leave_to(&tracer, status, None);
        } else if !last {
            *self.group.leader_tracer.lock() = Arc::downgrade(&tracer);
        }
    }

    /// The process of its last thread has ended. True if its parent may know only when a tracer has waited for it. The
    /// tasklist lock is held.
    pub(super) fn leave_process_to_tracer(self: &Arc<Task>, status: u32) -> bool {
        let tracer = if Arc::ptr_eq(&self.pid(), &self.group.pid) {
            let tracer = self.tracer();
            if tracer.is_some() {
                self.untie(&mut self.tracing.lock());
            }
            tracer
        } else {
            self.group.leader_tracer.lock().upgrade()
        };
        let Some(tracer) = tracer else { return false };
        let of_parent = self.group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.group));
        !of_parent && self.leave_to(&tracer, status, Some(self.group.clone()))
    }

    fn leave_to(self: &Arc<Task>, tracer: &Arc<Task>, status: u32, held: Option<Arc<ThreadGroup>>) -> bool {
        let pid = if held.is_some() { self.group.pid.clone() } else { self.pid() };
        let number = pid.number_in(tracer.group.pid.namespace());
        {
            let mut lists = tracer.tracer_of.0.lock();
            if lists.ended {
                return false;
            }
            let process_group = self.group.process_group().pid.clone();
            let (uid, usage) = (self.credentials().uid, self.usage());
            lists.dead.push(Dead { pid, process_group, uid, status, usage, held });
        }
        let value = if status & 0x7f == 0 { status >> 8 & 0xff } else { status & 0x7f };
        tell(&self.group, number, tracer, super::wait::exit_code(status), value);
        true
    }
}

impl Dead {
    fn report(&self) -> Report {
        Report {
            pid: self.pid.clone(),
            uid: self.uid,
            code: super::wait::exit_code(self.status),
            status: self.status,
            usage: self.usage,
        }
    }

    fn is_meant(&self, which: &Which) -> bool {
        match which {
            Which::Any => true,
            Which::Process(pid) => Arc::ptr_eq(pid, &self.pid),
            Which::Group(pid) => Arc::ptr_eq(pid, &self.process_group),
            Which::Nobody => false,
        }
    }

    /// Nobody asked: the parent learns of the end all the same.
    fn release(self, kernel: &Kernel) {
        if let Some(group) = self.held {
            let _tasklist = kernel.tasklist.lock();
            super::exit::announce_end(&group, self.status);
        }
    }
}

/// The stop of a tracee, if it is one of `tracer` and has stopped. ESRCH.
fn stopped_for<'a>(tracing: &'a mut Tracing, tracer: &Task) -> Result<(&'a mut Link, &'a mut Stop)> {
    match (&mut tracing.link, &mut tracing.stop) {
        (Some(link), Some(stop)) if link.is_of(tracer) && !stop.listening => Ok((link, stop)),
        _ => Err(Errno::ESRCH),
    }
}

/// SIGCHLD for the tracer, and a wake for who waits there. `number` is the tracee's in the tracer's namespace.
fn tell(tracee: &Arc<ThreadGroup>, number: u32, tracer: &Arc<Task>, code: i32, status: u32) {
    let group = &tracer.group;
    let action = group.action(Signal::SIGCHLD);
    let stops_quietly = SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_NOCLDSTOP);
    let is_stop = matches!(code, CLD_TRAPPED | CLD_STOPPED);
    if action.handler != SIG_IGN && !(is_stop && stops_quietly) {
        let mut info = super::wait::child_info(tracee, group, Signal::SIGCHLD, code, status as i32);
        info.set_pid(number as i32);
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
    /// What tracees have to report to wait(2). `Err(ECHILD)` if there are none that are meant. The tasklist lock is held.
    pub(super) fn look_for_tracee(&self, which: &Which, options: WaitOptions) -> Result<Option<Report>> {
        if !self.group.has_traced.load(Ordering::Relaxed) {
            return Err(Errno::ECHILD);
        }
        let tracers = if options.contains(WaitOptions::__WNOTHREAD) {
            vec![Arc::clone(self)]
        } else {
            self.group.threads()
        };
        let mut any = false;
        for tracer in tracers {
            let (tracees, found) = {
                let mut lists = tracer.tracer_of.0.lock();
                let at = lists.dead.iter().position(|dead| dead.is_meant(which));
                any |= at.is_some();
                let found = at.filter(|_| options.contains(WaitOptions::WEXITED)).and_then(|at| {
                    let report = lists.dead.get(at)?.report();
                    let keep = options.contains(WaitOptions::WNOWAIT);
                    Some((report, if keep { None } else { lists.dead.remove(at).held }))
                });
                let tracees: Vec<Arc<Task>> = lists.tracees.iter().filter_map(Weak::upgrade).collect();
                (tracees, found)
            };
            if let Some((report, held)) = found {
                if let Some(group) = held {
                    super::exit::announce_end(&group, report.status);
                }
                return Ok(Some(report));
            }
            for tracee in tracees {
                if !is_meant(which, &tracee) || !tracee.is_traced_by(&tracer) {
                    continue;
                }
                any = true;
                let mut tracing = tracee.tracing.lock();
                let Some(stop) = &mut tracing.stop else { continue };
                if stop.reported || stop.listening {
                    continue;
                }
                stop.reported = !options.contains(WaitOptions::WNOWAIT);
                let status = stop.code << 8 | 0x7f;
                drop(tracing);
                let uid = tracee.credentials().uid;
                let (pid, usage) = (tracee.pid(), tracee.usage());
                return Ok(Some(Report { pid, uid, code: CLD_TRAPPED, status, usage }));
            }
        }
        if any { Ok(None) } else { Err(Errno::ECHILD) }
    }
}
