//! The running thread's own view of itself, and the loop in which it runs.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::{SaFlags, Signal, SignalSet};
use abi::{Errno, Result};
use platform::{Context, Death, Exit, Fault, Resume, Thread};

use super::signal::Delivery;
use super::task::{RunState, Task};
use crate::mm::{FaultOutcome, MemoryManager};
use crate::vfs::{Fd, FdFlags, FdTable, File, Io};
use crate::wait::{Registration, WaitQueue};

/// How a system call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a value in the result register.
    Value(u64),
    /// The call replaced the registers (rt_sigreturn, execve).
    Context,
    /// The thread is to leave; its exit status has been set.
    Exit(u32),
}

/// The system call table, which lives in a crate of its own.
pub trait SyscallTable: Send + Sync {
    /// Carries out a call.
    fn call(&self, task: &CurrentTask, number: u64, args: [u64; 6]) -> Result<Outcome>;
}

/// How far the present system call of a thread is, and with what the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none: an interruption or a fault. With the registers.
    Outside,
    /// It is being carried out.
    Called,
    /// It returns this.
    Returned(u64),
    /// It has replaced the registers.
    Replaced,
    /// What became of it is in the registers, for a tracer to see.
    Settled,
}

/// What a call needs to go on with after a stop or a signal without a handler (restart_block).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The deadline in nanoseconds of the monotonic clock.
    pub deadline: u64,
}

/// An interrupted call that restart_syscall(2) repeats: number, arguments and what it left.
type Repeatable = (u64, [u64; 6], Option<Restart>);

/// The running thread. Not `Send`: it never leaves its host thread.
pub struct CurrentTask {
    task: Arc<Task>,
    thread: RefCell<Option<Box<dyn Thread>>>,
    /// Ends the process when the host kills what is behind its memory, also while the thread sleeps in a call.
    death_watch: RefCell<Option<Box<dyn Send + Sync>>>,
    memory: RefCell<Arc<MemoryManager>>,
    fault: Cell<Option<Fault>>,
    restart: Cell<Option<Restart>>,
    arguments: Cell<(u64, [u64; 6])>,
    /// A temporary signal mask is in force.
    masked: Cell<bool>,
    /// How far the present call is.
    pub(super) stage: Cell<Stage>,
    /// It has stopped for a tracer since it last looked for signals: what is in the registers counts.
    pub(super) trapped: Cell<bool>,
    /// What restart_syscall(2) is to repeat.
    repeatable: Cell<Option<Repeatable>>,
    /// Processor time of the guest threads before the present one (exec), in nanoseconds.
    earlier: Cell<u64>,
}

fn watch_death(task: &Arc<Task>, mm: &MemoryManager) -> Box<dyn Send + Sync> {
    let task = Arc::downgrade(task);
    mm.address_space().on_death(Arc::new(move || {
        if let Some(task) = task.upgrade() {
            task.group.begin_exit(abi::wait::signaled(Signal::SIGKILL, false));
        }
    }))
}

impl Deref for CurrentTask {
    type Target = Arc<Task>;

    fn deref(&self) -> &Arc<Task> {
        &self.task
    }
}

impl CurrentTask {
    /// Takes over `task` on the calling host thread, with a guest thread that starts with `context`.
    pub fn new(task: Arc<Task>, context: &Context) -> Result<CurrentTask> {
        let mm = task.memory().ok_or(Errno::ESRCH)?;
        let thread = mm.address_space().clone().new_thread(context)?;
        task.parker();
        task.take_host_thread();
        task.set_interrupter(Some(thread.interrupter()));
        let death_watch = watch_death(&task, &mm);
        Ok(CurrentTask {
            task,
            thread: RefCell::new(Some(thread)),
            death_watch: RefCell::new(Some(death_watch)),
            memory: RefCell::new(mm),
            fault: Cell::new(None),
            restart: Cell::new(None),
            arguments: Cell::new((0, [0; 6])),
            masked: Cell::new(false),
            stage: Cell::new(Stage::Outside),
            trapped: Cell::new(false),
            repeatable: Cell::new(None),
            earlier: Cell::new(0),
        })
    }

    /// The memory.
    pub fn mm(&self) -> Arc<MemoryManager> {
        self.memory.borrow().clone()
    }

    /// The descriptors.
    pub fn fds(&self) -> Arc<FdTable> {
        // A running task has a table until it exits, and then it runs no more calls.
        self.task.files().unwrap_or_default()
    }

    /// The open file of a descriptor. EBADF.
    pub fn file(&self, fd: Fd) -> Result<Arc<File>> {
        self.fds().get(fd)
    }

    /// As [`CurrentTask::file`], but EBADF for descriptors of O_PATH.
    pub fn real_file(&self, fd: Fd) -> Result<Arc<File>> {
        let file = self.file(fd)?;
        if file.flags().contains(abi::fcntl::OpenFlags::O_PATH) { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Gives a file the lowest free number. EMFILE.
    pub fn install(&self, file: Arc<File>, cloexec: bool) -> Result<Fd> {
        let flags = if cloexec { FdFlags::CLOEXEC } else { FdFlags::empty() };
        self.fds().install(file, flags, 0, self.group.limits.current(abi::resource::RLIMIT_NOFILE))
    }

    /// Circumstances of an operation on a file, on behalf of this task.
    pub fn io(&self) -> Io<'_> {
        Io::of(&self.task)
    }

    /// The guest thread, for changes of memory that it can make cheaper.
    pub fn with_thread<R>(&self, f: impl FnOnce(Option<&mut dyn Thread>) -> R) -> R {
        match self.thread.try_borrow_mut() {
            Ok(mut thread) => match thread.as_mut() {
                Some(thread) => f(Some(&mut **thread)),
                None => f(None),
            },
            Err(_) => f(None),
        }
    }

    /// Reads or edits the registers. ESRCH if the guest thread is dead.
    pub fn with_context<R>(&self, f: impl FnOnce(&mut Context) -> R) -> Result<R> {
        let mut thread = self.thread.borrow_mut();
        let thread = thread.as_mut().ok_or(Errno::ESRCH)?;
        let context = thread.context().map_err(|_| Errno::ESRCH)?;
        Ok(f(context))
    }

    /// A tracer has changed them.
    pub(super) fn set_arguments(&self, number: u64, args: [u64; 6]) {
        self.arguments.set((number, args));
    }

    /// Number and arguments of the call that is being carried out.
    pub fn arguments(&self) -> (u64, [u64; 6]) {
        self.arguments.get()
    }

    /// The fault that is being delivered as a signal.
    pub(super) fn last_fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// exec: a new address space and a thread in it. The old thread is gone when this returns.
    pub(super) fn replace_memory(&self, mm: Arc<MemoryManager>, context: &Context) -> Result<()> {
        let new = mm.address_space().clone().new_thread(context)?;
        self.task.set_interrupter(Some(new.interrupter()));
        self.note_cpu_time();
        self.earlier.set(self.task.user_time.load(Ordering::Relaxed));
        self.task.identity_changed();
        self.death_watch.replace(Some(watch_death(&self.task, &mm)));
        let old_thread = self.thread.replace(Some(new));
        let old_task_memory = self.task.set_memory(Some(mm.clone()));
        let old_memory = self.memory.replace(mm);
        drop(old_thread);
        drop((old_task_memory, old_memory));
        Ok(())
    }

    fn note_cpu_time(&self) {
        if let Ok(thread) = self.thread.try_borrow()
            && let Some(thread) = &*thread
        {
            let time = u64::try_from(thread.cpu_time().as_nanos()).unwrap_or(u64::MAX);
            self.task.user_time.store(self.earlier.get() + time, Ordering::Relaxed);
            self.task.cpu_stale.store(false, Ordering::Relaxed);
            self.task.cpu_notes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Brings the task's processor times up to date.
    pub fn update_cpu_time(&self) {
        self.note_cpu_time();
    }

    /// The deadline of the interrupted call that is now being repeated, if it left one.
    pub fn take_restart(&self) -> Option<Restart> {
        self.restart.take()
    }

    /// Leaves the deadline for a repetition, and returns the error to end the call with.
    pub fn restart_with(&self, deadline: u64) -> Errno {
        self.restart.set(Some(Restart { deadline }));
        Errno::ERESTART_RESTARTBLOCK
    }

    /// Sleeps until `ready` says so. It is asked at once, and again after each event of the queues that meets its
    /// mask. ERESTARTSYS when a signal arrives, ETIMEDOUT at the deadline (monotonic nanoseconds).
    pub fn wait_until<T>(
        &self,
        queues: &[(&WaitQueue, PollEvents)],
        deadline: Option<u64>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        let parker = self.task.parker().clone();
        let _registrations: smallvec::SmallVec<[Registration; 2]> =
            queues.iter().map(|(queue, mask)| queue.register(*mask, parker.clone())).collect();
        self.sleep(deadline, true, ready)
    }

    /// As [`CurrentTask::wait_until`], but only the end of the process ends it early (with ERESTARTSYS).
    pub fn wait_killable<T>(&self, queue: &WaitQueue, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        let _registration = queue.register(PollEvents::all(), self.task.parker().clone());
        self.sleep(None, false, ready)
    }

    /// Sleeps with registrations that the caller made with [`CurrentTask::waker`].
    pub fn sleep<T>(
        &self,
        deadline: Option<u64>,
        interruptible: bool,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let parker = self.task.parker();
        self.task.waits.fetch_add(1, Ordering::Relaxed);
        self.set_state(if interruptible { RunState::Sleeping } else { RunState::Uninterruptible });
        let result = loop {
            parker.reset();
            if let Some(value) = ready() {
                break Ok(value);
            }
            if self.work.load(Ordering::SeqCst) {
                if self.task.cpu_stale.load(Ordering::Relaxed) {
                    // Somebody may have asked for it (refresh_cpu_time()).
                    self.note_cpu_time();
                }
                let ends = if interruptible { self.has_signal() } else { self.is_killed() };
                if ends {
                    break Err(Errno::ERESTARTSYS);
                }
                if interruptible {
                    self.work.store(false, Ordering::SeqCst);
                    // Sent between the look and the store?
                    if self.has_signal() {
                        self.work.store(true, Ordering::SeqCst);
                        break Err(Errno::ERESTARTSYS);
                    }
                }
            }
            let timeout = match deadline {
                None => None,
                Some(deadline) => {
                    let now = self.kernel().clock.monotonic();
                    if now >= deadline {
                        break Err(Errno::ETIMEDOUT);
                    }
                    Some(Duration::from_nanos(deadline - now))
                }
            };
            if let Ok(mut thread) = self.thread.try_borrow_mut()
                && let Some(thread) = thread.as_mut()
            {
                thread.idle();
            }
            parker.park(timeout);
        };
        self.set_state(RunState::Running);
        result
    }

    /// What wakes this thread, to be registered with queues before [`CurrentTask::sleep`].
    pub fn waker(&self) -> Arc<crate::wait::Parker> {
        self.task.parker().clone()
    }

    /// Tries an operation on a file until it does not say EAGAIN, waiting for `events` in between unless the file is
    /// non-blocking. `deadline`: SO_RCVTIMEO and its like, EAGAIN when it passes.
    pub fn block_on<T>(
        &self,
        file: &File,
        io: &Io<'_>,
        events: PollEvents,
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        match attempt() {
            Err(Errno::EAGAIN) if !io.nonblocking => {}
            result => return result,
        }
        let Some(queue) = file.operations().wait_queue() else { return Err(Errno::EAGAIN) };
        let result = self.wait_until(&[(queue, events)], deadline, || match attempt() {
            Err(Errno::EAGAIN) => None,
            result => Some(result),
        });
        match result {
            Ok(result) => result,
            Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
            Err(e) => Err(e),
        }
    }

    /// Runs the guest until the thread ends.
    pub fn run(self) {
        let status = self.run_guest();
        self.event_stop(
            abi::ptrace::PtraceOptions::PTRACE_O_TRACEEXIT,
            abi::ptrace::PTRACE_EVENT_EXIT,
            status.into(),
        );
        self.note_cpu_time();
        self.death_watch.take();
        if self.is_alone_in_memory() {
            // Nobody sees what becomes of the memory, so the whole process may end at once.
            self.leave_memory();
            self.mm().kill();
        }
        // The guest thread goes first: nothing of it may run when others learn of its end.
        drop(self.thread.take());
        self.exit(status);
    }

    fn run_guest(&self) -> u32 {
        let table = self.kernel().syscalls;
        if (self.work.load(Ordering::SeqCst) || self.kernel().freezer.any())
            && let Some(status) = self.do_work(None)
        {
            return status;
        }
        loop {
            let exit = {
                let mut thread = self.thread.borrow_mut();
                let Some(thread) = thread.as_mut() else { return 0 };
                if self.task.identity_changed.load(Ordering::Relaxed) {
                    self.task.identity_changed.store(false, Ordering::Relaxed);
                    thread.set_answers(&self.answers());
                }
                self.task.cpu_stale.store(true, Ordering::Relaxed);
                thread.run(match self.stage.get() {
                    Stage::Returned(value) => Resume::Result(value),
                    _ => Resume::Context,
                })
            };
            let mut restartable = None;
            match exit {
                Exit::Syscall { number, args, ip } => {
                    self.patch_hot_site();
                    self.arguments.set((number, args));
                    self.task.syscall.store(number as i32, Ordering::Relaxed);
                    self.restart.set(None);
                    self.stage.set(Stage::Called);
                    let traced = self.is_traced();
                    let result = if traced {
                        self.carry_out_traced(ip)
                    } else {
                        match self.screen(number, args, ip) {
                            None => table.call(self, number, args),
                            Some(result) => result,
                        }
                    };
                    match result {
                        Ok(Outcome::Value(value)) => self.stage.set(Stage::Returned(value)),
                        Ok(Outcome::Context) => self.stage.set(Stage::Replaced),
                        Ok(Outcome::Exit(status)) => return status,
                        Err(e) => {
                            // A restart code is for tracers; nobody else gets to see it.
                            self.stage.set(Stage::Returned(e.to_register()));
                            if e.is_restart() {
                                restartable = Some((number, args, e));
                                self.work.store(true, Ordering::SeqCst);
                            }
                        }
                    }
                    if traced || self.trapped.get() {
                        self.trace_exit();
                    }
                }
                Exit::Fault(fault) => {
                    self.stage.set(Stage::Outside);
                    self.handle_fault(&fault);
                }
                Exit::Interrupted => {
                    self.stage.set(Stage::Outside);
                    self.note_cpu_time();
                    self.work.store(true, Ordering::SeqCst);
                }
                Exit::Dead(death) => {
                    if !self.is_killed() {
                        match death {
                            Death::Killed => {}
                            Death::Host => {
                                tracing::warn!(pid = self.tgid(), "guest process killed by the host")
                            }
                            Death::Misbehaved => {
                                tracing::warn!(pid = self.tgid(), "guest process broke the protocol")
                            }
                        }
                    }
                    return self.group.begin_exit(abi::wait::signaled(Signal::SIGKILL, false));
                }
            }
            if (self.work.load(Ordering::SeqCst) || self.masked.get() || self.kernel().freezer.any())
                && let Some(status) = self.do_work(restartable)
            {
                return status;
            }
        }
    }

    /// What the calls of [`platform::ANSWERS`] return, as far as only the task itself can change it and nobody wants to see
    /// the calls.
    fn answers(&self) -> [Option<u64>; platform::ANSWERS.len()] {
        if self.kernel().strace || self.is_traced() {
            return [None; platform::ANSWERS.len()];
        }
        let creds = self.credentials();
        // The maps of another namespace may be written at any time.
        let is_initial = Arc::ptr_eq(&creds.user_ns, &self.kernel().user_ns);
        let id = |id: u32| is_initial.then_some(u64::from(id));
        let answers = [
            Some(self.tgid().into()),
            id(creds.user_ns.uid(creds.uid)),
            id(creds.user_ns.gid(creds.gid)),
            id(creds.user_ns.uid(creds.euid)),
            id(creds.user_ns.gid(creds.egid)),
            Some(self.tid().into()),
        ];
        let mut numbers = platform::ANSWERS.into_iter();
        answers
            .map(|answer| answer.filter(|_| numbers.next().is_some_and(|number| self.seccomp.allows(number))))
    }

    fn patch_hot_site(&self) {
        let mut thread = self.thread.borrow_mut();
        if let Some(thread) = thread.as_mut()
            && let Some(ip) = thread.hot_site()
        {
            self.memory.borrow().patch(&mut **thread, ip);
        }
    }

    fn handle_fault(&self, fault: &Fault) {
        let mm = self.mm();
        let limits = self.memory_limits();
        match self.with_thread(|thread| mm.handle_fault(thread, fault, &limits)) {
            FaultOutcome::Resume => {}
            FaultOutcome::Signal { signal, code, addr } => {
                self.fault.set(Some(*fault));
                if let Some(signal) = Signal::from_i32(signal) {
                    tracing::debug!(pid = self.tgid(), ?signal, code, addr, "guest fault");
                    self.force_signal(SigInfo::fault(signal, code, addr));
                }
            }
        }
    }

    /// Delivers signals, stops, and repeats the interrupted call. Returns the status with which the thread is to end.
    fn do_work(&self, mut interrupted: Option<(u64, [u64; 6], Errno)>) -> Option<u32> {
        loop {
            self.work.store(false, Ordering::SeqCst);
            let delivery = self.next_delivery();
            if self.trapped.take() {
                self.settle_call();
                interrupted = self.call_to_restart();
            }
            match delivery {
                Delivery::Exit(status) => return Some(status),
                Delivery::None => {
                    self.fault.set(None);
                    let Some((number, args, error)) = interrupted.take() else {
                        self.restore_saved_mask();
                        return None;
                    };
                    // No handler ran: the call is repeated here and now, and the guest never sees it stop.
                    self.restore_saved_mask();
                    if error != Errno::ERESTART_RESTARTBLOCK {
                        self.restart.set(None);
                    }
                    if self.is_traced() || self.stage.get() == Stage::Settled {
                        self.restart_visibly(number, args, error);
                        if !self.work.load(Ordering::SeqCst) {
                            return None;
                        }
                        continue;
                    }
                    self.stage.set(Stage::Called);
                    match self.kernel().syscalls.call(self, number, args) {
                        Ok(Outcome::Value(value)) => self.stage.set(Stage::Returned(value)),
                        Ok(Outcome::Context) => self.stage.set(Stage::Replaced),
                        Ok(Outcome::Exit(status)) => return Some(status),
                        Err(e) => {
                            self.stage.set(Stage::Returned(e.to_register()));
                            interrupted = e.is_restart().then_some((number, args, e));
                        }
                    }
                    if interrupted.is_none() && !self.work.load(Ordering::SeqCst) {
                        return None;
                    }
                }
                Delivery::Handler(info, action) => {
                    let restarts = |e: Errno| match e {
                        Errno::ERESTARTNOINTR => true,
                        Errno::ERESTARTSYS => {
                            SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_RESTART)
                        }
                        _ => false,
                    };
                    let restart = interrupted.take().map(|(number, _, e)| (number, restarts(e)));
                    let entered = self.with_context(|context| {
                        match (restart, self.stage.get()) {
                            (Some((number, true)), _) => {
                                context.regs.rax = number;
                                context.regs.rip = context.regs.rip.wrapping_sub(2);
                            }
                            (Some(_), _) => context.regs.rax = Errno::EINTR.to_register(),
                            (_, Stage::Returned(value)) => context.regs.rax = value,
                            _ => {}
                        }
                        self.enter_handler(context, &info, &action)
                    });
                    self.fault.set(None);
                    self.stage.set(Stage::Outside);
                    match entered {
                        Ok(Ok(())) if self.is_traced() => self.trace_handler(),
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => self.force_segv(&info),
                        Err(_) => return Some(abi::wait::signaled(Signal::SIGKILL, false)),
                    }
                }
            }
        }
    }

    /// Has the guest make an interrupted call again, where a tracer sees it.
    fn restart_visibly(&self, number: u64, args: [u64; 6], error: Errno) {
        self.settle_call();
        let repeats_block = error == Errno::ERESTART_RESTARTBLOCK;
        if repeats_block && number != abi::sysno::RESTART_SYSCALL {
            self.repeatable.set(Some((number, args, self.restart.get())));
        }
        let _ = self.with_context(|context| {
            context.regs.rax = if repeats_block { abi::sysno::RESTART_SYSCALL } else { number };
            context.regs.rip = context.regs.rip.wrapping_sub(2);
        });
    }

    /// restart_syscall(2). EINTR if there is nothing to repeat.
    pub fn repeat_call(&self) -> Result<Outcome> {
        let (number, args, restart) = self.repeatable.get().ok_or(Errno::EINTR)?;
        self.restart.set(restart);
        let result = self.kernel().syscalls.call(self, number, args);
        if result != Err(Errno::ERESTART_RESTARTBLOCK) {
            self.repeatable.set(None);
        }
        result
    }

    /// The frame could not be written: SIGSEGV, and if that was the signal, the default action of it (force_sigsegv).
    fn force_segv(&self, info: &SigInfo) {
        if info.signal() == Some(Signal::SIGSEGV) {
            self.group.actions.read().lock().set(Signal::SIGSEGV, abi::signal::KernelSigaction::default());
        }
        self.force_signal(SigInfo::kernel(Signal::SIGSEGV));
    }

    fn restore_saved_mask(&self) {
        self.masked.set(false);
        let saved = self.signals.lock().saved.take();
        if let Some(mask) = saved {
            self.set_blocked(mask);
        }
    }

    /// sigsuspend, ppoll and their like: blocks `mask` until the call ends; then the old mask comes back, after the
    /// handler of the signal that ended it.
    pub fn set_temporary_mask(&self, mask: SignalSet) {
        let mut own = self.signals.lock();
        let old = std::mem::replace(&mut own.blocked, mask.difference(SignalSet::UNBLOCKABLE));
        own.saved.get_or_insert(old);
        drop(own);
        self.masked.set(true);
        self.work.store(true, Ordering::SeqCst);
    }
}

impl CurrentTask {
    /// A task whose guest thread could not be made: what exit does, without the parts that need one.
    pub(super) fn never_started(task: Arc<Task>) {
        let Some(mm) = task.memory() else { return };
        let current = CurrentTask {
            task,
            thread: RefCell::new(None),
            death_watch: RefCell::new(None),
            memory: RefCell::new(mm),
            fault: Cell::new(None),
            restart: Cell::new(None),
            arguments: Cell::new((0, [0; 6])),
            masked: Cell::new(false),
            stage: Cell::new(Stage::Outside),
            trapped: Cell::new(false),
            repeatable: Cell::new(None),
            earlier: Cell::new(0),
        };
        current.exit(abi::wait::signaled(Signal::SIGKILL, false));
    }
}
