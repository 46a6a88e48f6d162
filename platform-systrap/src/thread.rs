//! A guest thread: a stub thread with its listener, seen from its sentry thread.

use crate::DOORBELL;
use crate::arch::frame::{CONTROL_MSGHDR, CONTROL_RESULT, CONTROL_STATUS, SIGINFO, Shape, UCONTEXT};
use crate::arch::stub::{CALLED, Command, ENTRY, PROLOGUE, START};
use crate::arch::{AUDIT_ARCH, CALL_SIZE, TRAP_FLAG};
use crate::link::{KICK, Kicker, Link};
use crate::notify::{Listener, Notification};
use crate::space::{Lease, Space};
use nix::errno::Errno as HostErrno;
use platform::stub::arch::vsyscall_number;
use platform::stub::{DeathWatch, EXTRA_TEXT, Op, StubProcess};
use platform::{Context, Death, Errno, Exit, Fault, Interrupter, Resume, Thread};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A call of the guest that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    number: u64,
    args: [u64; 6],
    ip: u64,
}

/// Where the stub thread is while the sentry has it.
#[derive(Clone, Copy, Debug)]
enum At {
    /// In the guest's call, which waits for the answer to notification `id`.
    Call { id: u64, call: Call },
    /// In the handler's doorbell: the frame in the page is the guest's state. After a call, it says that the call
    /// has been made and returned its own number.
    Doorbell { id: u64 },
    /// Gone.
    Dead(Death),
}

/// The platform's [`Thread`].
pub struct Guest(RefCell<Inner>);

struct Inner {
    space: Arc<Space>,
    lease: Lease,
    listener: Listener,
    link: Arc<Link>,
    /// Index of the shape of this thread's frames.
    shape: usize,
    at: At,
    /// The last exit was a call, for [`Resume::Result`].
    in_call: bool,
    /// The value for a call that is not answered yet.
    reply: Option<u64>,
    /// A call whose answer did not arrive because something interrupted it, and the answer. It will be restarted.
    unanswered: Option<(Call, u64)>,
    /// The last call that was answered by a notification, and the answer.
    answered: Option<(Call, u64)>,
    /// Count of the last doorbell, and its answer once given.
    rung: u64,
    answer: Command,
    /// That answer did not arrive.
    again: bool,
    /// Bases of fs and gs as the last doorbell told them.
    bases: (u64, u64),
    context: Box<Context>,
    /// `context` is the thread's, and is what it goes on with.
    fetched: bool,
    /// The guest had set the trap flag itself when it was last given a context.
    own_trap: bool,
    _death: Option<DeathWatch>,
}

/// What a doorbell means.
enum Ring {
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

impl Guest {
    /// Starts a thread with `context` on the calling host thread.
    pub(crate) fn new(space: Arc<Space>, context: &Context) -> Result<Self, Errno> {
        space.host.monitor.start()?;
        let (lease, map) = space.lease()?;
        let shape = space.host.geometry.shapes.first().ok_or(Errno::EINVAL)?;
        let stack = lease.page.frame_address(shape);
        let mut prologue = Context::default();
        prologue.regs.rip = PROLOGUE;
        prologue.regs.rsp = stack;
        lease.page.prepare();
        lease.page.store(shape, &prologue, u64::MAX);
        let tid = space.process.spawn_thread(&map, &[space.memory()], stack, ENTRY, 0)?;
        let fd = Self::receive_listener(&space.process, &lease)?;
        let listener = Listener::new(fd);
        if !listener.wait(platform::stub::REPLY_TIMEOUT) {
            space.process.state().misbehaved("a new thread that does not start");
            return Err(Errno::ESRCH);
        }
        let link =
            Link::new(space.process.state().clone(), tid, space.threads.clone(), space.host.monitor.clone());
        let death = space.host.monitor.expect_death(&link);
        let mut inner = Inner {
            space,
            lease,
            listener,
            link,
            shape: 0,
            at: At::Dead(Death::Host),
            in_call: false,
            reply: None,
            unanswered: None,
            answered: None,
            rung: 0,
            answer: Command::Return,
            again: false,
            bases: (context.regs.fs_base, context.regs.gs_base),
            context: Box::new(context.clone()),
            fetched: true,
            own_trap: false,
            _death: death,
        };
        inner.link.begin_waiting();
        let started = inner.start();
        inner.link.end_waiting();
        started.map_err(|_| Errno::ESRCH)?;
        Ok(Self(RefCell::new(inner)))
    }

    /// The host's process and thread id of the stub thread, for messages.
    pub fn host_ids(&self) -> (i32, i32) {
        let inner = self.0.borrow();
        (inner.space.process.pid(), inner.link.tid)
    }

    /// Where the stub has the thread's frame, for tests that attack it.
    #[doc(hidden)]
    pub fn frame_address(&self) -> u64 {
        let inner = self.0.borrow();
        inner.lease.page.frame_address(inner.shape())
    }

    /// Whether wakes are synchronous.
    pub fn is_synchronous(&self) -> bool {
        self.0.borrow().listener.is_synchronous
    }

    /// Has the service thread wait for the new thread's filter and send its listener.
    fn receive_listener(process: &StubProcess, lease: &Lease) -> Result<OwnedFd, Errno> {
        let field = |field| lease.page.control_address(field);
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let ops = [
            // EAGAIN if the thread was faster.
            Op::call(libc::SYS_futex, [field(CONTROL_STATUS), wait as u64, u64::from(u32::MAX), 0, 0, 0])
                .keep_going(),
            Op::call(libc::SYS_sendmsg, [0, field(CONTROL_MSGHDR), libc::MSG_NOSIGNAL as u64, 0, 0, 0]),
        ];
        let (results, mut donated) = process.execute_receiving(&ops, &[])?;
        if donated.is_empty()
            && let Some(&result @ ..0) = results.last()
        {
            // The thread has gone already: it got no listener.
            tracing::warn!(pid = process.pid(), result, "no listener for a new thread");
            return Err(Errno::EBUSY);
        }
        match donated.pop() {
            Some(fd) => Ok(fd),
            None => {
                process.state().misbehaved("a new thread without a listener");
                Err(Errno::ESRCH)
            }
        }
    }
}

impl Inner {
    fn shape(&self) -> &Shape {
        &self.space.host.geometry.shapes[self.shape]
    }

    fn misbehaved(&mut self, reason: &str) -> Death {
        self.space.process.state().misbehaved(reason);
        self.died()
    }

    fn died(&mut self) -> Death {
        let death = self.space.process.state().death().unwrap_or(Death::Misbehaved);
        self.link.end();
        self.at = At::Dead(death);
        death
    }

    /// Answers the doorbell of a new thread that has made its listener, and waits for the one at which it has closed its
    /// own descriptor of it.
    fn start(&mut self) -> Result<(), Death> {
        while self.rung == 0 {
            let notification = self.receive()?;
            let [kind, .., count] = notification.args;
            if !self.is_doorbell(&notification) || kind != START || count > 1 {
                return Err(self.misbehaved("a new thread that does not start"));
            }
            self.at = At::Doorbell { id: notification.id };
            self.rung = count;
            if count == 0 {
                // If it does not arrive, the same doorbell rings again.
                let _ = self.listener.send(notification.id, 0);
            }
        }
        Ok(())
    }

    /// Waits for the next notification.
    fn receive(&mut self) -> Result<Notification, Death> {
        loop {
            match self.listener.receive() {
                Ok(notification) if notification.pid == self.link.tid as u32 => return Ok(notification),
                Ok(_) => return Err(self.misbehaved("a thread with the filter of another")),
                Err(HostErrno::ENOENT | HostErrno::EINTR) => {}
                Err(_) => return Err(self.misbehaved("a listener that is none")),
            }
            if self.space.process.state().death().is_some() {
                return Err(self.died());
            }
            if self.listener.is_orphan() {
                return Err(self.orphaned());
            }
        }
    }

    /// The thread is gone: the process is dying, or the guest ended a thread behind our back, and the rest still answers.
    fn orphaned(&mut self) -> Death {
        let ping = Op::call(libc::SYS_close, [u64::MAX, 0, 0, 0, 0, 0]);
        match self.space.process.execute(&[ping], &[]) {
            Ok(_) => self.misbehaved("a thread that ended by itself"),
            Err(_) => {
                self.space.process.state().kill(Death::Host);
                self.died()
            }
        }
    }

    fn is_doorbell(&self, notification: &Notification) -> bool {
        notification.number == DOORBELL as i32 && notification.ip >= EXTRA_TEXT
    }

    /// Takes a doorbell.
    fn ring(&mut self, notification: &Notification) -> Result<Ring, Death> {
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
        self.at = At::Doorbell { id: notification.id };
        if count == self.rung {
            return Ok(Ring::Again);
        }
        self.rung = count;
        if kind == CALLED {
            return Ok(Ring::Called(info));
        }
        self.bases = (fs_base, gs_base);
        self.fetched = false;
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
            libc::SIGSEGV if self.absent_vsyscall() => self.trapped_call(),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                Exit::Fault(page.fault(shape, signal))
            }
            _ => return Err(self.misbehaved("a doorbell without a reason")),
        };
        Ok(Ring::Exit(exit))
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
    fn recover_answer(&mut self) {
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

    /// The frame shows `call` about to be restarted (unless the kernel does not restart it); makes it one after it.
    fn finish_in_frame(&self, call: Call, value: u64) {
        let shape = self.shape();
        self.lease.page.set_rip(shape, call.ip);
        self.lease.page.set_rax(shape, value);
    }

    /// Brings the thread from the guest's call into the handler, by a kick that is sent or on its way.
    fn enter_handler(&mut self) -> Result<(), Death> {
        let At::Call { call, .. } = self.at else { return Ok(()) };
        self.link.begin_waiting();
        self.link.kick();
        let result = self.await_handler(call);
        self.link.end_waiting();
        result
    }

    fn await_handler(&mut self, call: Call) -> Result<(), Death> {
        loop {
            let notification = self.receive()?;
            if !self.is_doorbell(&notification) {
                // The same call, interrupted and restarted by something else before our signal came.
                if self.call_of(&notification) != Some(call) {
                    return Err(self.misbehaved("another call in the middle of one"));
                }
                self.at = At::Call { id: notification.id, call };
                continue;
            }
            let value = self.reply.take().unwrap_or(call.number);
            self.unanswered = Some((call, value));
            // Ours, or another's in its place; ours comes when that one has returned.
            match self.ring(&notification)? {
                Ring::Kicked | Ring::Nothing => return Ok(()),
                _ => return Err(self.misbehaved("a doorbell in the middle of a call")),
            }
        }
    }

    fn call_of(&self, notification: &Notification) -> Option<Call> {
        (notification.arch == AUDIT_ARCH).then_some(Call {
            number: notification.number as i64 as u64,
            args: notification.args,
            ip: notification.ip,
        })
    }

    /// Lets the thread go on from where it is.
    fn go(&mut self) -> Result<(), Death> {
        if let At::Call { id, call } = self.at {
            let value = self.reply.unwrap_or(call.number);
            // The kernel takes these for orders to restart when it delivers a signal.
            let restarts = (-516..=-512).contains(&(value as i64));
            if !self.fetched && !restarts {
                self.reply = None;
                match self.listener.send(id, value) {
                    Ok(()) => self.answered = Some((call, value)),
                    Err(_) => self.unanswered = Some((call, value)),
                }
                self.link.enter_guest();
                return Ok(());
            }
            self.enter_handler()?;
        }
        match self.at {
            At::Doorbell { id } => {
                if !std::mem::take(&mut self.again) {
                    self.answer = Command::Return;
                }
                if self.fetched {
                    self.fetched = false;
                    self.own_trap = self.context.regs.eflags & TRAP_FLAG != 0;
                    let shape = &self.space.host.geometry.shapes[self.shape];
                    self.lease.page.store(shape, &self.context, 0);
                    self.answer = Command::LoadAndReturn;
                }
                // If it fails, the same doorbell rings again.
                let _ = self.listener.send(id, self.answer as u64);
                self.link.enter_guest();
                Ok(())
            }
            At::Dead(death) => Err(death),
            At::Call { .. } => Err(self.misbehaved("a thread that stays in its call")),
        }
    }

    /// Runs the guest. `None`: it only has to be let go again.
    fn next(&mut self) -> Result<Option<Exit>, Death> {
        self.go()?;
        let notification = self.receive()?;
        let kicked = self.link.leave_guest();
        if self.is_doorbell(&notification) {
            return Ok(match self.ring(&notification)? {
                Ring::Exit(exit) => Some(exit),
                Ring::Kicked | Ring::Nothing | Ring::Called(_) => None,
                Ring::Again => {
                    // The page still holds what the answer was about.
                    self.again = true;
                    None
                }
            });
        }
        let Some(call) = self.call_of(&notification) else {
            return Err(self.misbehaved("a call of another architecture"));
        };
        self.at = At::Call { id: notification.id, call };
        let again = match self.unanswered.take() {
            Some((old, value)) if old == call => {
                self.reply = Some(value);
                true
            }
            Some(_) => return Err(self.misbehaved("another call in the place of a restarted one")),
            None => false,
        };
        if kicked {
            self.enter_handler()?;
        }
        if again {
            return Ok(None);
        }
        Ok(Some(Exit::Syscall { number: call.number, args: call.args, ip: call.ip }))
    }

    fn run(&mut self, resume: Resume) -> Result<Exit, Death> {
        if let At::Dead(death) = self.at {
            return Err(death);
        }
        if let Resume::Result(value) = resume
            && self.in_call
        {
            self.set_result(value);
        }
        loop {
            if self.link.take_wanted() {
                self.in_call = false;
                self.context.regs.orig_rax = u64::MAX;
                return Ok(Exit::Interrupted);
            }
            if let Some(exit) = self.next()? {
                self.in_call = matches!(exit, Exit::Syscall { .. });
                return Ok(exit);
            }
        }
    }

    fn set_result(&mut self, value: u64) {
        if self.fetched {
            self.context.regs.rax = value;
        } else if let At::Call { .. } = self.at {
            self.reply = Some(value);
        } else {
            self.lease.page.set_rax(self.shape(), value);
        }
    }

    fn fetch(&mut self) -> Result<(), Death> {
        if let At::Dead(death) = self.at {
            return Err(death);
        }
        if self.fetched {
            return Ok(());
        }
        self.enter_handler()?;
        let context = &mut self.context;
        (context.regs.fs_base, context.regs.gs_base) = self.bases;
        self.lease.page.load(&self.space.host.geometry.shapes[self.shape], context);
        if context.single_step && !self.own_trap {
            context.regs.eflags &= !TRAP_FLAG;
        }
        if self.in_call {
            context.regs.orig_rax = context.regs.rax;
        }
        self.fetched = true;
        Ok(())
    }

    /// Has the stub thread make a call of its own. The arguments lie in memory that siblings can write: only calls
    /// that are harmless whatever they are get through the base filter.
    fn call(&mut self, number: i64, args: [u64; 6]) -> Result<u64, Death> {
        if let At::Dead(death) = self.at {
            return Err(death);
        }
        self.enter_handler()?;
        let At::Doorbell { id } = self.at else { return Err(Death::Misbehaved) };
        self.lease.page.set_call(number as u64, args);
        self.answer = Command::Call;
        let _ = self.listener.send(id, Command::Call as u64);
        self.link.begin_waiting();
        let result = self.await_call();
        self.link.end_waiting();
        result
    }

    fn await_call(&mut self) -> Result<u64, Death> {
        loop {
            let notification = self.receive()?;
            if !self.is_doorbell(&notification) {
                return Err(self.misbehaved("a call of the guest in place of ours"));
            }
            match self.ring(&notification)? {
                Ring::Called(result) => return Ok(result),
                Ring::Again => {
                    let At::Doorbell { id } = self.at else { return Err(Death::Misbehaved) };
                    let _ = self.listener.send(id, Command::Call as u64);
                }
                _ => return Err(self.misbehaved("a doorbell in the middle of our call")),
            }
        }
    }

    fn cpu_time(&mut self) -> Result<Duration, Death> {
        let output = self.lease.page.control_address(CONTROL_RESULT);
        let clock = libc::CLOCK_THREAD_CPUTIME_ID as u64;
        self.call(libc::SYS_clock_gettime, [clock, output, 0, 0, 0, 0])?;
        let [seconds, nanoseconds] = self.lease.page.call_output();
        // The guest could write there.
        Ok(Duration::from_secs(seconds & 0xffff_ffff) + Duration::from_nanos(nanoseconds & 0xffff_ffff))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A thread of a process that dies needs no end of its own.
        if self.space.process.state().death().is_none()
            && self.enter_handler().is_ok()
            && let At::Doorbell { id } = self.at
        {
            // If that does not arrive, the doorbell finds the listener closed, which means the same.
            let _ = self.listener.send(id, Command::Exit as u64);
        }
        self.link.end();
    }
}

impl Thread for Guest {
    fn run(&mut self, resume: Resume) -> Exit {
        self.0.get_mut().run(resume).unwrap_or_else(Exit::Dead)
    }

    fn context(&mut self) -> Result<&mut Context, Death> {
        let inner = self.0.get_mut();
        inner.fetch()?;
        Ok(&mut inner.context)
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        Arc::new(Kicker(self.0.borrow().link.clone()))
    }

    fn cpu_time(&self) -> Duration {
        self.0.borrow_mut().cpu_time().unwrap_or_default()
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
