//! Signals: queues, sending, choosing what to deliver (signal(7), kernel/signal.c).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use abi::resource::RLIMIT_SIGPENDING;
use abi::siginfo::SigInfo;
use abi::signal::{
    CLD_CONTINUED, CLD_STOPPED, DefaultAction, KernelSigaction, SI_TKILL, SI_USER, SIG_DFL, SIG_IGN, SaFlags,
    Signal, SignalSet, StackT,
};
use abi::{Errno, Result};

use super::credentials::Credentials;
use super::current::CurrentTask;
use super::group::{ProcessGroup, ThreadGroup};
use super::ptrace::TRAP_NOTIFY;
use super::task::{RunState, Task};

/// What a process does on each signal.
#[derive(Clone)]
pub struct Actions([KernelSigaction; 64]);

impl Default for Actions {
    fn default() -> Actions {
        Actions([KernelSigaction::default(); 64])
    }
}

impl Actions {
    /// The action of a signal.
    pub fn get(&self, signal: Signal) -> KernelSigaction {
        self.0[signal.number() as usize - 1]
    }

    /// Replaces an action.
    pub fn set(&mut self, signal: Signal, action: KernelSigaction) {
        self.0[signal.number() as usize - 1] = action;
    }

    /// exec: handlers go back to the default, ignored signals stay ignored.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = KernelSigaction { handler, ..KernelSigaction::default() };
        }
    }

    /// The signals that are ignored, and those that have a handler, for `/proc/PID/status`.
    pub fn sets(&self) -> (SignalSet, SignalSet) {
        let (mut ignored, mut caught) = (SignalSet::EMPTY, SignalSet::EMPTY);
        for (i, action) in self.0.iter().enumerate() {
            let Some(signal) = Signal::new(i as u32 + 1) else { continue };
            match action.handler {
                SIG_DFL => {}
                SIG_IGN => ignored.add(signal),
                _ => caught.add(signal),
            }
        }
        (ignored, caught)
    }

    /// True if the signal would have no effect (sig_handler_ignored).
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.get(signal).handler {
            SIG_IGN => true,
            SIG_DFL => signal.default_action() == DefaultAction::Ignore,
            _ => false,
        }
    }
}

/// Signals that wait to be taken.
#[derive(Clone, Default)]
pub struct Pending {
    set: SignalSet,
    queue: VecDeque<SigInfo>,
}

impl Pending {
    /// The signals that wait.
    pub fn set(&self) -> SignalSet {
        self.set
    }

    /// How many entries are queued.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Queues a signal. A standard signal that waits already is not queued again; a real-time signal sent by a
    /// program beyond `limit` is EAGAIN.
    fn add(&mut self, info: SigInfo, limit: u64) -> Result<()> {
        let Some(signal) = info.signal() else { return Err(Errno::EINVAL) };
        if !signal.is_realtime() && self.set.contains(signal) {
            return Ok(());
        }
        if self.queue.len() as u64 >= limit && signal.is_realtime() {
            if info.is_from_user() && info.si_code != SI_USER {
                return Err(Errno::EAGAIN);
            }
            // The signal arrives, but without its information.
            self.set.add(signal);
            return Ok(());
        }
        self.set.add(signal);
        self.queue.push_back(info);
        Ok(())
    }

    /// Takes the next signal that is in `wanted`: faults first, then by number.
    fn take(&mut self, wanted: SignalSet) -> Option<SigInfo> {
        let ready = self.set.intersection(wanted);
        let signal = ready.intersection(SignalSet::SYNCHRONOUS).first().or(ready.first())?;
        let number = signal.number() as i32;
        let Some(at) = self.queue.iter().position(|info| info.si_signo == number) else {
            self.set.remove(signal);
            return Some(SigInfo::kill(signal, SI_USER, 0, 0));
        };
        let info = self.queue.remove(at);
        if !self.queue.iter().any(|info| info.si_signo == number) {
            self.set.remove(signal);
        }
        info
    }

    /// Forgets signals.
    pub fn discard(&mut self, signals: SignalSet) {
        self.set = self.set.difference(signals);
        self.queue.retain(|info| info.signal().is_none_or(|s| !signals.contains(s)));
    }

    /// Forgets what a deleted POSIX timer has queued.
    pub fn discard_timer(&mut self, timer_id: i32) {
        let of_timer = |info: &SigInfo| info.si_code == abi::signal::SI_TIMER && info.timer_id() == timer_id;
        self.queue.retain(|info| !of_timer(info));
        self.set = self.queue.iter().filter_map(SigInfo::signal).collect();
    }

    /// A queued expiry of this timer, to count an overrun on.
    pub fn timer_entry(&mut self, timer_id: i32) -> Option<&mut SigInfo> {
        self.queue
            .iter_mut()
            .find(|info| info.si_code == abi::signal::SI_TIMER && info.timer_id() == timer_id)
    }
}

/// Signal state of a thread.
#[derive(Clone, Default)]
pub struct TaskSignals {
    /// Signals sent to the thread.
    pub pending: Pending,
    /// Blocked signals.
    pub blocked: SignalSet,
    /// The mask to go back to after sigsuspend, ppoll and their like.
    pub saved: Option<SignalSet>,
    /// sigaltstack(2).
    pub stack: StackT,
    /// Taking part in a group stop.
    pub stopped: bool,
    /// Its tracer has let it go on although its process has stopped.
    pub stop_ignored: bool,
}

/// What ends a whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupExit {
    /// The wait status.
    pub status: u32,
}

/// Signal state of a process.
#[derive(Default)]
pub struct GroupSignals {
    /// Signals sent to the process.
    pub pending: Pending,
    /// The process is ending: every thread leaves.
    pub exit: Option<GroupExit>,
    /// exec: every thread but this one leaves.
    pub exec_by: Option<u32>,
    /// The signal that stopped, or is stopping, the process.
    pub stop: Option<Signal>,
    /// All threads have stopped, and the parent was told.
    pub stop_complete: bool,
    /// wait(WUNTRACED) has something to report.
    pub stop_report: bool,
    /// wait(WCONTINUED) has something to report.
    pub continue_report: bool,
}

impl ThreadGroup {
    /// The action of a signal.
    pub fn action(&self, signal: Signal) -> KernelSigaction {
        self.actions.read().lock().get(signal)
    }

    /// Sends a signal to the process: any thread may take it.
    pub fn send_signal(self: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
        send(self, None, info, false)
    }

    /// Sends a signal of `sender`'s making to the process.
    pub fn send_signal_of(self: &Arc<ThreadGroup>, sender: &ThreadGroup, info: SigInfo) -> Result<()> {
        send(self, None, info, is_outside(sender, self))
    }

    /// Sends a signal that comes from outside of the sandbox: SIGKILL and SIGSTOP reach also its first process.
    pub fn send_signal_from_outside(self: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
        send(self, None, info, true)
    }

    /// Sends a signal of the kernel's to the process.
    pub fn send_kernel_signal(self: &Arc<ThreadGroup>, signal: Signal) {
        // Only real-time signals of programs can fail.
        let _ = send(self, None, SigInfo::kernel(signal), false);
    }

    /// Sends a signal of the kernel's to one of its threads (SIGPIPE, SIGXFSZ).
    pub fn send_kernel_signal_to_task(self: &Arc<ThreadGroup>, task: &Task, signal: Signal) {
        if let Some(task) = self.threads().iter().find(|t| std::ptr::eq(Arc::as_ptr(t), task)) {
            let _ = send(self, Some(task), SigInfo::kernel(signal), false);
        }
    }

    /// Ends the process with this wait status: every thread leaves as soon as it looks. The first call wins.
    pub fn begin_exit(self: &Arc<ThreadGroup>, status: u32) -> u32 {
        let mut signals = self.signals.lock();
        let status = signals.exit.get_or_insert(GroupExit { status }).status;
        signals.stop = None;
        drop(signals);
        for task in self.threads() {
            task.interrupt();
        }
        status
    }
}

impl ProcessGroup {
    /// Sends a signal of the kernel's to every process of the group.
    pub fn send_kernel_signal(&self, signal: Signal) {
        for process in self.members() {
            process.send_kernel_signal(signal);
        }
    }
}

impl Task {
    /// Sends a signal to the thread.
    pub fn send_signal(self: &Arc<Task>, info: SigInfo) -> Result<()> {
        send(&self.group, Some(self), info, false)
    }

    /// Sends a signal of `sender`'s making to the thread.
    pub fn send_signal_of(self: &Arc<Task>, sender: &ThreadGroup, info: SigInfo) -> Result<()> {
        send(&self.group, Some(self), info, is_outside(sender, &self.group))
    }

    /// The signals that the thread could take now.
    fn deliverable(&self, group: &GroupSignals) -> SignalSet {
        let own = self.signals.lock();
        own.pending.set().union(group.pending.set()).difference(own.blocked)
    }

    /// True if a signal (or the end of the process) is waiting for the thread: what ends an interruptible wait.
    pub fn has_signal(&self) -> bool {
        let group = self.group.signals.lock();
        group.exit.is_some()
            || group.exec_by.is_some_and(|tid| tid != self.tid())
            || self.traps.load(Ordering::SeqCst) != 0
            || group.stop.is_some() && {
                let own = self.signals.lock();
                !own.stopped && !own.stop_ignored
            }
            || !self.deliverable(&group).is_empty()
    }

    /// True if the thread must leave: what ends even waits that signals do not end.
    pub fn is_killed(&self) -> bool {
        let group = self.group.signals.lock();
        group.exit.is_some() || group.exec_by.is_some_and(|tid| tid != self.tid())
    }

    /// Blocked signals.
    pub fn blocked(&self) -> SignalSet {
        self.signals.lock().blocked
    }

    /// Replaces the mask; SIGKILL and SIGSTOP stay out of it. Returns the old one.
    pub fn set_blocked(&self, mask: SignalSet) -> SignalSet {
        let old =
            std::mem::replace(&mut self.signals.lock().blocked, mask.difference(SignalSet::UNBLOCKABLE));
        // Signals of the process that were blocked here may be taken by this thread now, or must be by another.
        self.work.store(true, Ordering::SeqCst);
        let newly = mask.difference(old);
        let waiting = self.group.signals.lock().pending.set().intersection(newly);
        for signal in waiting.iter() {
            wake_one(&self.group, signal);
        }
        old
    }

    /// Takes a pending signal that is in `wanted`, whether blocked or not (sigtimedwait, signalfd).
    pub fn take_signal(&self, wanted: SignalSet) -> Option<SigInfo> {
        let mut group = self.group.signals.lock();
        let own = self.signals.lock().pending.take(wanted);
        let mut taken = own.or_else(|| group.pending.take(wanted));
        drop(group);
        if let Some(info) = &mut taken {
            self.group.timers.note_delivery(info);
        }
        taken
    }

    /// All pending signals of the thread and its process.
    pub fn pending(&self) -> SignalSet {
        let group = self.group.signals.lock();
        self.signals.lock().pending.set().union(group.pending.set())
    }
}

/// Wakes a thread that can take `signal`: the leader if it can, else the first that can.
fn wake_one(group: &Arc<ThreadGroup>, signal: Signal) {
    let threads = group.threads();
    if let Some(task) = threads.iter().find(|t| !t.signals.lock().blocked.contains(signal)) {
        task.interrupt();
    }
}

/// True if `sender` has no number in the pid namespace of `target`: it lives outside of it.
pub(super) fn is_outside(sender: &ThreadGroup, target: &ThreadGroup) -> bool {
    sender.pid.number_in(target.pid.namespace()) == 0
}

/// `outside`: the sender lives outside of the process's pid namespace. What the information says of the sender decides
/// nothing, for rt_sigqueueinfo(2) lets programs say what they like; but that it comes from the kernel, they cannot say
/// to others (__send_signal_locked()'s `force`).
fn send(group: &Arc<ThreadGroup>, to: Option<&Arc<Task>>, info: SigInfo, outside: bool) -> Result<()> {
    let Some(signal) = info.signal() else { return Err(Errno::EINVAL) };
    let limit = group.limits.current(RLIMIT_SIGPENDING);
    let mut notify_parent = None;
    {
        let mut signals = group.signals.lock();
        if signals.exit.is_some() && signal != Signal::SIGKILL {
            return Ok(());
        }
        let threads = group.threads();
        if SignalSet::STOP.contains(signal) {
            forget(&mut signals, &threads, Signal::SIGCONT.into());
        } else if signal == Signal::SIGCONT {
            forget(&mut signals, &threads, SignalSet::STOP);
            if signals.stop.take().is_some() {
                let was_complete = std::mem::take(&mut signals.stop_complete);
                signals.stop_report = false;
                signals.continue_report = was_complete;
                if was_complete {
                    notify_parent = Some(());
                }
                for task in &threads {
                    task.interrupt();
                }
            }
            // Tracers are told, also if there was no stop.
            threads.iter().filter(|t| t.is_seized()).for_each(|t| t.ask_for_trap(TRAP_NOTIFY));
        }
        // What an init's own processes send does not kill it, nor what they have sent on occasions (F_SETSIG, timers).
        let from_inside = info.si_code != abi::signal::SI_KERNEL && !outside;
        let ignored = match signal {
            Signal::SIGKILL => group.is_init && from_inside,
            _ => is_ignored(group, to, &threads, from_inside, signal),
        };
        if ignored {
            drop(signals);
            if notify_parent.is_some() {
                super::wait::notify_parent(group, CLD_CONTINUED, Signal::SIGCONT.number());
            }
            return Ok(());
        }
        match to {
            Some(task) => task.signals.lock().pending.add(info, limit)?,
            None => signals.pending.add(info, limit)?,
        }
        if is_fatal(group, to, &threads, signal) {
            // Nobody can catch it: the process ends now, also if the chosen thread is busy.
            if signal == Signal::SIGKILL || signal.default_action() == DefaultAction::Term {
                signals.exit = Some(GroupExit { status: abi::wait::signaled(signal, false) });
                signals.stop = None;
                for task in &threads {
                    task.interrupt();
                }
            }
        }
    }
    if notify_parent.is_some() {
        super::wait::notify_parent(group, CLD_CONTINUED, Signal::SIGCONT.number());
    }
    match to {
        Some(task) => {
            if !task.signals.lock().blocked.contains(signal) {
                task.interrupt();
            }
        }
        None => wake_one(group, signal),
    }
    group.signal_events.notify(PollEvents::POLLIN);
    Ok(())
}

fn forget(group: &mut GroupSignals, threads: &[Arc<Task>], signals: SignalSet) {
    group.pending.discard(signals);
    for task in threads {
        task.signals.lock().pending.discard(signals);
    }
}

/// sig_ignored(): blocked signals are kept, since the action may change before they are unblocked.
fn is_ignored(
    group: &ThreadGroup,
    to: Option<&Arc<Task>>,
    threads: &[Arc<Task>],
    from_inside: bool,
    signal: Signal,
) -> bool {
    let blocked = |task: &Arc<Task>| task.signals.lock().blocked.contains(signal);
    if to.map_or_else(|| threads.first().is_some_and(blocked), blocked) {
        return false;
    }
    // A tracer may want to know.
    if to.map_or_else(|| threads.iter().any(|t| t.is_traced()), |t| t.is_traced()) {
        return false;
    }
    let action = group.action(signal);
    // The init of a namespace only gets what it has a handler for, also from the kernel (sig_task_ignored()), but for
    // SIGSTOP from outside.
    let forced = signal == Signal::SIGSTOP && !from_inside;
    if group.is_init && action.handler == SIG_DFL && !forced && signal != Signal::SIGCONT {
        return true;
    }
    group.actions.read().lock().ignores(signal) && signal != Signal::SIGCONT
}

/// True if the signal ends the process without anyone being able to object.
fn is_fatal(group: &ThreadGroup, to: Option<&Arc<Task>>, threads: &[Arc<Task>], signal: Signal) -> bool {
    if signal == Signal::SIGKILL {
        return true;
    }
    let term = group.action(signal).handler == SIG_DFL && signal.default_action() == DefaultAction::Term;
    if !term || group.is_init {
        return false;
    }
    // A stopped thread takes nothing but SIGKILL (wants_signal()).
    let open = |task: &Arc<Task>| {
        let own = task.signals.lock();
        !own.stopped && !task.is_traced() && !own.blocked.contains(signal)
    };
    to.map_or_else(|| threads.iter().any(open), open)
}

/// What is to be done before the guest goes on.
pub enum Delivery {
    /// Nothing: no signal with a handler.
    None,
    /// Build a frame for this handler.
    Handler(SigInfo, KernelSigaction),
    /// The thread ends with this wait status.
    Exit(u32),
}

impl CurrentTask {
    /// Takes signals until one has a handler or ends the process; stops if the process is to stop (get_signal()).
    pub fn next_delivery(&self) -> Delivery {
        loop {
            if self.kernel().freezer.any() {
                self.stay_frozen();
            }
            let mut group = self.group.signals.lock();
            if let Some(exit) = group.exit {
                return Delivery::Exit(exit.status);
            }
            if group.exec_by.is_some_and(|tid| tid != self.tid()) {
                return Delivery::Exit(0);
            }
            if let Some(signal) = group.stop
                && !self.signals.lock().stop_ignored
            {
                drop(group);
                if self.is_traced() {
                    self.stop_with_process(signal);
                } else {
                    self.take_part_in_stop(signal);
                }
                continue;
            }
            if self.traps.load(Ordering::SeqCst) != 0 {
                drop(group);
                self.trap_stop();
                continue;
            }
            let info = {
                let mut own = self.signals.lock();
                let wanted = own.blocked.complement();
                own.pending.take(wanted).or_else(|| group.pending.take(wanted))
            };
            let Some(mut info) = info else { return Delivery::None };
            if info.si_code == abi::signal::SI_TIMER {
                // Not under the lock: a timer that expires holds its own and wants this one.
                drop(group);
                self.group.timers.note_delivery(&mut info);
                group = self.group.signals.lock();
            }
            if self.is_traced() && info.signal() != Some(Signal::SIGKILL) {
                drop(group);
                match self.signal_stop(info) {
                    Some(new) => info = new,
                    None => continue,
                }
                group = self.group.signals.lock();
            }
            let Some(signal) = info.signal() else { continue };
            let action = self.group.action(signal);
            match action.handler {
                SIG_IGN => {}
                SIG_DFL => match signal.default_action() {
                    DefaultAction::Ignore | DefaultAction::Continue => {}
                    // What was blocked when it was sent.
                    _ if self.group.is_init && !SignalSet::UNBLOCKABLE.contains(signal) => {}
                    DefaultAction::Stop => {
                        drop(group);
                        if signal != Signal::SIGSTOP
                            && super::exit::is_orphaned(&self.group.process_group(), None)
                        {
                            continue;
                        }
                        // If a SIGCONT has come since the signal was taken, it wins.
                        let mut group = self.group.signals.lock();
                        if self.deliverable(&group).contains(Signal::SIGCONT) {
                            continue;
                        }
                        group.stop.get_or_insert(signal);
                        for task in self.group.threads() {
                            task.signals.lock().stop_ignored = false;
                            if task.is_seized() && !Arc::ptr_eq(&task, self) {
                                task.ask_for_trap(TRAP_NOTIFY);
                            }
                            task.interrupt();
                        }
                    }
                    kind => {
                        let core = kind == DefaultAction::Core && self.dumps_core();
                        let status = abi::wait::signaled(signal, core);
                        drop(group);
                        tracing::debug!(pid = self.tgid(), ?signal, "process killed by signal");
                        return Delivery::Exit(self.group.begin_exit(status));
                    }
                },
                _ => {
                    if SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_RESETHAND) {
                        let reset = KernelSigaction { handler: SIG_DFL, ..action };
                        self.group.actions.read().lock().set(signal, reset);
                    }
                    return Delivery::Handler(info, action);
                }
            }
        }
    }

    /// Whether the wait status says "core dumped". Cores are not written here: the status tells what Linux with a
    /// core_pattern that takes it would.
    pub(crate) fn dumps_core(&self) -> bool {
        self.group.limits.current(abi::resource::RLIMIT_CORE) > 0
    }

    /// The part of a tracee: it stops for its tracer, which may let it go on.
    fn stop_with_process(&self, signal: Signal) {
        if !self.join_stop(signal) {
            return;
        }
        // It takes part in the next stop again, and in this one without a tracer.
        self.signals.lock().stop_ignored = true;
        self.trap_stop();
        let mut own = self.signals.lock();
        own.stopped = false;
        own.stop_ignored &= self.is_traced();
    }

    /// Counts as stopped; the parent is told when all threads are. False if the stop is over already.
    fn join_stop(&self, signal: Signal) -> bool {
        let report = {
            let mut group = self.group.signals.lock();
            if group.stop.is_none() || group.exit.is_some() {
                return false;
            }
            self.signals.lock().stopped = true;
            let all = self.group.threads().iter().all(|t| t.signals.lock().stopped);
            let report = all && !group.stop_complete;
            if report {
                group.stop_complete = true;
                group.stop_report = true;
                group.continue_report = false;
            }
            report
        };
        if report {
            super::wait::notify_parent(&self.group, CLD_STOPPED, signal.number());
        }
        true
    }

    fn take_part_in_stop(&self, signal: Signal) {
        if !self.join_stop(signal) {
            return;
        }
        self.set_state(RunState::Stopped);
        loop {
            self.parker().reset();
            {
                let group = self.group.signals.lock();
                if group.stop.is_none() || group.exit.is_some() || group.exec_by.is_some() {
                    break;
                }
                // Attached meanwhile: the tracer is told of the stop.
                if self.is_traced() {
                    break;
                }
            }
            self.parker().park(None);
        }
        self.signals.lock().stopped = false;
        self.set_state(RunState::Running);
    }

    /// A fault of the guest's own making: the signal reaches the thread also if blocked or ignored, and then kills it
    /// (force_sig_info).
    pub fn force_signal(&self, info: SigInfo) {
        let Some(signal) = info.signal() else { return };
        let group = self.group.signals.lock();
        let mut own = self.signals.lock();
        let actions = self.group.actions.read().clone();
        let mut actions = actions.lock();
        let blocked = own.blocked.contains(signal);
        if blocked || actions.get(signal).handler == SIG_IGN {
            actions.set(signal, KernelSigaction::default());
            own.blocked.remove(signal);
        }
        if self.group.is_init && actions.get(signal).handler == SIG_DFL {
            // Not even init survives its own faults.
            drop((own, group));
            drop(actions);
            self.group.begin_exit(abi::wait::signaled(signal, false));
            return;
        }
        let _ = own.pending.add(info, u64::MAX);
        drop((own, group));
        self.work.store(true, Ordering::SeqCst);
    }
}

/// May a task with `sender` credentials signal the process of `target` (kill_ok_by_cred)?
pub fn may_signal(sender: &Task, target: &Task, signal: Option<Signal>) -> Result<()> {
    let (from, to) = (sender.credentials(), target.credentials());
    if Arc::ptr_eq(&sender.group, &target.group) || ids_match(&from, &to) {
        return Ok(());
    }
    if from.capable_in(&to.user_ns, abi::capability::CAP_KILL) {
        return Ok(());
    }
    if signal == Some(Signal::SIGCONT) && Arc::ptr_eq(&sender.group.session(), &target.group.session()) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

fn ids_match(from: &Credentials, to: &Credentials) -> bool {
    [from.euid, from.uid].iter().any(|id| *id == to.suid || *id == to.uid)
}

/// The information of a signal that `sender` sends to `target` with kill(2) or tgkill(2).
pub fn user_info(sender: &Task, target: &ThreadGroup, signal: Signal, thread: bool) -> SigInfo {
    let ns = target.pid.namespace();
    let uid = target.any_task().map_or(0, |t| t.credentials().user_ns.uid(sender.credentials().uid));
    let code = if thread { SI_TKILL } else { SI_USER };
    SigInfo::kill(signal, code, sender.group.pid.number_in(ns) as i32, uid)
}
