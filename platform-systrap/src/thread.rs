//! A guest thread: a stub thread with its listener, seen from its sentry thread.

mod doorbell;
mod order;

use crate::arch::frame::{CONTROL_RESULT, Shape};
use crate::arch::request::{OPERATIONS_MAX, Said};
use crate::arch::stub::Command;
use crate::arch::{AUDIT_ARCH, TRAP_FLAG};
use crate::carrier::Carrier;
use crate::link::{Kicker, Link};
use crate::look::{Pace, Seen};
use crate::monitor::processor_time;
use crate::notify::{Listener, Notification};
use crate::patch::Heat;
use crate::space::{Lease, Space};
use crate::stub_thread::StubThread;
use doorbell::Ring;
use nix::errno::Errno as HostErrno;
use platform::stub::{DeathWatch, Op};
use platform::{ANSWERS, Context, Death, Errno, Exit, Interrupter, Resume, Thread};
use std::cell::RefCell;
use std::rc::Rc;
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
    /// In a patched call, which waits for the reply in the page.
    Request { call: Call },
    /// In the guest, after the reply to a patched call.
    Guest,
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
    carrier: Rc<Carrier>,
    listener: Arc<Listener>,
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
    /// It has not got its guest yet.
    is_new: bool,
    /// The last doorbell came with the thread's processor time.
    is_timed: bool,
    /// Bases of fs and gs as the last doorbell told them.
    bases: (u64, u64),
    context: Box<Context>,
    /// `context` is the thread's, and is what it goes on with.
    fetched: bool,
    /// The frame's instruction pointer is one that the guest knows, and there may be a jump of ours.
    relocated: bool,
    /// The doorbell that a patched call rings.
    ringing: Option<u64>,
    /// It is this thread's turn, and the call that has just been replied to has rung meanwhile, or is about to.
    is_rung: bool,
    /// The calls of this thread by site, and the site found worth patching.
    heat: Heat,
    hot: Option<u64>,
    pace: Pace,
    /// The mask of the stub's answers. They are withheld while the sentry has such a call itself: if it is restarted
    /// where a patch has come meanwhile, it must not be answered twice.
    answers: u32,
    withheld: bool,
    /// The guest had set the trap flag itself when it was last given a context.
    own_trap: bool,
    /// Processor time of the stub thread before it had this guest, and as last asked for.
    used_before: Duration,
    used: Duration,
    _death: Option<DeathWatch>,
}

impl Guest {
    /// Starts a thread with `context` on the calling host thread.
    pub(crate) fn new(space: Arc<Space>, context: &Context) -> Result<Self, Errno> {
        space.host.monitor.start()?;
        let StubThread { lease, listener, tid, shape, rung, doorbell, used } = space.employ()?;
        let (listener, doorbell) = (listener.ok_or(Errno::ESRCH)?, doorbell.ok_or(Errno::ESRCH)?);
        if let Some(shape) = space.host.geometry.shapes.last() {
            lease.page.prepare_saving(shape);
        }
        let answers = lease.page.set_answers(&[None; ANSWERS.len()]);
        let link =
            Link::new(space.process.state().clone(), tid, space.threads.clone(), space.host.monitor.clone());
        let death = space.host.monitor.expect_death(&link);
        let pace = Pace::new(&space.host);
        let carrier = Carrier::new(space.clone(), lease.page.clone());
        Ok(Self(RefCell::new(Inner {
            space,
            lease,
            carrier,
            listener,
            link,
            shape,
            at: At::Doorbell { id: doorbell },
            in_call: false,
            reply: None,
            unanswered: None,
            answered: None,
            rung,
            answer: Command::Return,
            again: false,
            is_new: true,
            is_timed: false,
            bases: (context.regs.fs_base, context.regs.gs_base),
            context: Box::new(context.clone()),
            fetched: true,
            relocated: false,
            ringing: None,
            is_rung: false,
            heat: Heat::new(),
            hot: None,
            pace,
            answers,
            withheld: false,
            own_trap: false,
            used_before: used,
            used,
            _death: death,
        })))
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

    fn call_of(&self, notification: &Notification) -> Option<Call> {
        let ip = notification.ip;
        (notification.arch == AUDIT_ARCH).then_some(Call {
            number: notification.number as i64 as u64,
            args: notification.args,
            ip: self.space.patches.original_ip(ip).map_or(ip, |(ip, _)| ip),
        })
    }

    /// The patched call that the thread says it makes.
    fn posted_call(&self) -> Option<Call> {
        if !matches!(self.lease.page.said(), Said::Call { .. }) {
            return None;
        }
        let (number, args, ip) = self.lease.page.posted();
        Some(Call { number: number as u32 as i32 as i64 as u64, args, ip })
    }

    /// Lets the stub give its answers, or not.
    fn withhold_answers(&mut self, withhold: bool) {
        if std::mem::replace(&mut self.withheld, withhold) != withhold {
            self.lease.page.allow_answers(if withhold { 0 } else { self.answers });
        }
    }

    /// Lets the thread go on from where it is.
    fn go(&mut self) -> Result<(), Death> {
        if !matches!(self.at, At::Request { .. }) {
            self.pace.prepare_other(&self.lease.page, &self.listener);
        }
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
        if let At::Request { call } = self.at {
            let value = self.reply.take().unwrap_or(call.number);
            self.pace.prepare(&self.lease.page, &self.listener);
            let is_awake = if self.fetched {
                self.store();
                self.lease.page.reply_context(self.shape())
            } else {
                self.carrier.send();
                self.lease.page.reply(value)
            };
            if !is_awake {
                match self.ringing.take() {
                    // If it does not arrive, the same doorbell rings again, and finds the reply.
                    Some(id) => drop(self.listener.send(id, 0)),
                    None => self.is_rung = self.pace.has_turn(),
                }
            }
            self.pace.replied(!is_awake);
            self.at = At::Guest;
            self.link.enter_guest();
            return Ok(());
        }
        match self.at {
            At::Doorbell { id } => {
                if !std::mem::take(&mut self.again) {
                    self.answer = Command::Return;
                }
                if self.fetched {
                    self.store();
                    self.answer = Command::LoadAndReturn;
                } else if std::mem::take(&mut self.relocated) {
                    let (page, shape) = (&self.lease.page, self.shape());
                    if let Some(ip) = self.space.patches.moved_ip(page.rip(shape)) {
                        page.set_rip(shape, ip);
                    }
                }
                // If it fails, the same doorbell rings again.
                let _ = self.listener.send(id, self.answer as u64);
                self.got_guest();
                self.link.enter_guest();
                Ok(())
            }
            At::Dead(death) => Err(death),
            At::Call { .. } | At::Request { .. } | At::Guest => {
                Err(self.misbehaved("a thread that stays in its call"))
            }
        }
    }

    /// The stub thread has had its first answer, or never will.
    fn got_guest(&mut self) {
        if std::mem::take(&mut self.is_new) {
            self.space.started();
        }
    }

    /// Makes a frame of `context`.
    fn store(&mut self) {
        self.fetched = false;
        self.own_trap = self.context.regs.eflags & TRAP_FLAG != 0;
        if let Some(ip) = self.space.patches.moved_ip(self.context.regs.rip) {
            self.context.regs.rip = ip;
        }
        let own = self.context.regs.gs_base;
        self.bases = (self.context.regs.fs_base, own);
        let is_free = own == 0 && self.space.host.patching;
        let page = &self.lease.page;
        page.store(self.shape(), &self.context, 0, if is_free { page.guest } else { own });
    }

    /// Waits until the guest makes a call or something else happens; `None`: a patched call is posted.
    fn await_guest(&mut self) -> Result<Option<Notification>, Death> {
        let mut is_rung = std::mem::take(&mut self.is_rung);
        loop {
            if self.pace.is_looking() && !is_rung {
                match self.pace.look(&self.lease.page, &self.listener) {
                    Seen::Call => return Ok(None),
                    // A turn shall not end because a call took long. A pair that looks for itself had better sleep.
                    Seen::Notification if self.pace.has_turn() => {}
                    Seen::Notification | Seen::Nothing => {
                        self.pace.rest(&self.lease.page);
                        if let Said::Call { asleep: false } = self.lease.page.said() {
                            self.pace.arrived();
                            return Ok(None);
                        }
                    }
                }
            }
            let notification = self.receive()?;
            let is_looking = self.pace.is_looking();
            if !self.is_ring(&notification) {
                if is_looking {
                    self.pace.rest(&self.lease.page);
                }
                return Ok(Some(notification));
            }
            if let Said::Call { .. } = self.lease.page.said() {
                self.ringing = Some(notification.id);
                self.pace.arrived();
                return Ok(None);
            }
            // Of the call that has been replied to.
            let _ = self.listener.send(notification.id, 0);
            if is_looking {
                self.pace.replied(is_rung);
            }
            is_rung = false;
        }
    }

    /// Runs the guest. `None`: it only has to be let go again.
    fn next(&mut self) -> Result<Option<Exit>, Death> {
        self.go()?;
        let Some(notification) = self.await_guest()? else {
            let (number, args, ip) = self.lease.page.posted();
            let call = Call { number: number as u32 as i32 as i64 as u64, args, ip };
            let kicked = self.link.leave_guest();
            self.at = At::Request { call };
            // At a site that was patched while the thread was in a call there.
            let again = self.is_restarted(call)?;
            self.answered = None;
            if !again {
                self.withhold_answers(false);
                self.carrier.open();
            }
            if kicked {
                self.in_call = true;
                self.enter_handler()?;
            }
            return Ok((!again).then_some(Exit::Syscall { number: call.number, args, ip }));
        };
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
        if call.ip == notification.ip && self.space.host.patching && self.heat.count(call.ip) {
            self.hot = Some(call.ip);
        }
        self.at = At::Call { id: notification.id, call };
        let again = self.is_restarted(call)?;
        if !again {
            self.withhold_answers(ANSWERS.contains(&call.number));
        }
        if kicked {
            self.enter_handler()?;
        }
        Ok((!again).then_some(Exit::Syscall { number: call.number, args: call.args, ip: call.ip }))
    }

    /// Whether the call that the thread makes is the one whose answer did not arrive: then that is the reply.
    fn is_restarted(&mut self, call: Call) -> Result<bool, Death> {
        match self.unanswered.take() {
            Some((old, value)) if old == call => {
                self.reply = Some(value);
                Ok(true)
            }
            Some(_) => Err(self.misbehaved("another call in the place of a restarted one")),
            None => Ok(false),
        }
    }

    fn run(&mut self, resume: Resume) -> Result<Exit, Death> {
        if let At::Dead(death) = self.at {
            return Err(death);
        }
        self.pace.busy();
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
        let value = self.carrier.result(value);
        if self.fetched {
            self.context.regs.rax = value;
        } else if let At::Call { .. } | At::Request { .. } = self.at {
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
        if let At::Request { call } = self.at {
            self.save(call)?;
        } else {
            self.enter_handler()?;
            if !self.fetched {
                self.load();
            }
        }
        if self.in_call {
            self.context.regs.orig_rax = self.context.regs.rax;
        }
        self.fetched = true;
        Ok(())
    }

    /// Copies the frame to `context`.
    fn load(&mut self) {
        let context = &mut self.context;
        (context.regs.fs_base, context.regs.gs_base) = self.bases;
        self.lease.page.load(&self.space.host.geometry.shapes[self.shape], context);
        if context.single_step && !self.own_trap {
            context.regs.eflags &= !TRAP_FLAG;
        }
    }

    fn cpu_time(&mut self) -> Result<Duration, Death> {
        if self.space.is_single()
            && let Some(time) = processor_time(self.space.process.pid())
        {
            return Ok(time);
        }
        let page = &self.lease.page;
        let [seconds, nanoseconds] = if self.is_timed && matches!(self.at, At::Doorbell { .. }) {
            page.time_of_call()
        } else {
            let output = page.control_address(CONTROL_RESULT);
            let clock = libc::CLOCK_THREAD_CPUTIME_ID as u64;
            self.call(libc::SYS_clock_gettime, [clock, output, 0, 0, 0, 0])?;
            self.lease.page.call_output()
        };
        // The guest could write there.
        self.used =
            Duration::from_secs(seconds & 0xffff_ffff) + Duration::from_nanos(nanoseconds & 0xffff_ffff);
        Ok(self.used.saturating_sub(self.used_before))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.got_guest();
        self.carrier.end();
        // A thread of a process that dies needs no end of its own.
        let rests = self.space.process.state().death().is_none() && self.enter_handler().is_ok();
        // From now on nobody signals it.
        self.link.end();
        if rests && let At::Doorbell { id } = self.at {
            self.pace.leave(&self.lease.page, &self.listener);
            self.space.dismiss(StubThread {
                lease: Lease { page: self.lease.page.clone(), slot: self.lease.slot.take() },
                listener: Some(self.listener.clone()),
                tid: self.link.tid,
                shape: self.shape,
                rung: self.rung,
                doorbell: Some(id),
                used: self.used,
            });
        }
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

    fn idle(&mut self) {
        let inner = self.0.get_mut();
        inner.carrier.flush();
        inner.pace.idle(&inner.lease.page);
    }

    fn hot_site(&mut self) -> Option<u64> {
        self.0.get_mut().hot.take()
    }

    fn set_answers(&mut self, answers: &[Option<u64>; 6]) {
        let inner = self.0.get_mut();
        inner.answers = inner.lease.page.set_answers(answers);
        if !inner.withheld {
            inner.lease.page.allow_answers(inner.answers);
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl Guest {
    /// Carries out operations in the stub thread, if it is in a patched call of this address space. Returns the results of
    /// those done.
    pub(crate) fn operate(
        &mut self,
        space: &Space,
        operations: &[(u64, [u64; 6])],
    ) -> Option<Result<Vec<i64>, Death>> {
        let inner = self.0.get_mut();
        let fits = matches!(inner.at, At::Request { .. }) && std::ptr::eq(&*inner.space, space);
        (fits && operations.len() <= OPERATIONS_MAX).then(|| inner.operate(operations))
    }
}
