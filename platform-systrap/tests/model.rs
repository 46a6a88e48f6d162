//! The protocol of calls, in every order that matters (loom): no wake-up is lost, each call is reported once and its result
//! arrives, whatever interrupts it.
//!
//! The words change by the transitions of the crate itself (`src/protocol.rs`). What stands around them is a copy: the
//! stub's side of `arch/x86_64/patched.rs` (assembler), the sentry's of `thread.rs` and `look.rs`, reduced to the
//! protocol, and of the kernel what seccomp_unotify(2) and signals do. The names are the same there.

#[allow(dead_code, reason = "the model uses a part of the transitions")]
#[path = "../src/protocol.rs"]
mod protocol;

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;
use protocol::{ASLEEP, CALL_DONE, CALL_REQUEST, COMMAND, OVER, REPLY, RESTING, Said, Then, Word};

/// As the processor has them: all but a load are full barriers. (loom takes SeqCst for acquire and release.)
impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(Ordering::SeqCst)
    }

    fn swap(&self, value: u32) -> u32 {
        fence(Ordering::SeqCst);
        let old = self.swap(value, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        old
    }

    fn set(&self, bits: u32) -> u32 {
        fence(Ordering::SeqCst);
        let old = self.fetch_or(bits, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        old
    }

    fn clear(&self, bits: u32) -> u32 {
        fence(Ordering::SeqCst);
        let old = self.fetch_and(!bits, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        old
    }

    fn replace(&self, old: u32, new: u32) -> Result<u32, u32> {
        fence(Ordering::SeqCst);
        let result = self.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        result
    }
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The doorbell of a patched call.
    Ring,
    /// That of the handler; the frame says the rest.
    Handler,
    /// A call from an unpatched site.
    Call(u32),
    /// The guest has made all its calls.
    End,
}

/// Where a thread goes on when its handler returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// In call `.0`, which has not been posted, or in a notified one, which is restarted.
    In(u32),
    /// In call `.0`, which has been posted.
    Posted(u32),
    /// After a call that has this result.
    After(u32),
}

#[derive(Default)]
struct Bell {
    id: u64,
    ringing: Option<Kind>,
    taken: bool,
    answer: Option<u32>,
    signal: bool,
    frame: Option<Frame>,
}

/// The listener and the pending signal of one stub thread.
#[derive(Default)]
struct Kernel {
    bell: Mutex<Bell>,
    changed: Condvar,
}

impl Kernel {
    fn lock(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap()
    }

    /// Stub: a call that the filter notifies of. None: a signal has interrupted it.
    fn notify(&self, kind: Kind, interruptible: bool) -> Option<u32> {
        let mut bell = self.lock();
        bell.id += 1;
        (bell.ringing, bell.taken, bell.answer) = (Some(kind), false, None);
        self.changed.notify_all();
        loop {
            if let Some(answer) = bell.answer.take() {
                bell.ringing = None;
                return Some(answer);
            }
            if interruptible && bell.signal {
                // Until the kernel has the lock again, it accepts an answer, and loses it.
                drop(bell);
                let mut bell = self.lock();
                (bell.ringing, bell.answer) = (None, None);
                return None;
            }
            bell = self.changed.wait(bell).unwrap();
        }
    }

    /// Stub: takes a signal.
    fn take_signal(&self) -> bool {
        std::mem::take(&mut self.lock().signal)
    }

    /// tgkill(2).
    fn signal(&self) {
        self.lock().signal = true;
        self.changed.notify_all();
    }

    /// SECCOMP_IOCTL_NOTIF_RECV.
    fn receive(&self) -> (u64, Kind) {
        let mut bell = self.lock();
        loop {
            if let Some(kind) = bell.ringing
                && !bell.taken
            {
                bell.taken = true;
                return (bell.id, kind);
            }
            bell = self.changed.wait(bell).unwrap();
        }
    }

    /// Poll.
    fn has_something(&self) -> bool {
        let bell = self.lock();
        bell.ringing.is_some() && !bell.taken
    }

    /// SECCOMP_IOCTL_NOTIF_SEND.
    fn send(&self, id: u64, value: u32) -> bool {
        let mut bell = self.lock();
        let is_there = bell.ringing.is_some() && bell.id == id;
        if is_there {
            bell.answer = Some(value);
            self.changed.notify_all();
        }
        is_there
    }
}

/// The pages of a thread, its link, and the kernel between the two sides.
struct Shared {
    state: AtomicU32,
    awake: AtomicU32,
    posted: AtomicU32,
    result: AtomicU32,
    link: AtomicU32,
    kernel: Kernel,
}

/// What call `number` gives.
fn result_of(number: u32) -> u32 {
    number + 100
}

/// The value of a call that the sentry has not answered: its number.
fn unanswered(number: u32) -> u32 {
    number
}

/// The stub thread, with the guest's calls.
struct Stub {
    shared: Arc<Shared>,
    operations: u32,
}

impl Stub {
    /// The handler: says where the thread goes on.
    fn handle(&self, frame: Frame) -> Frame {
        self.shared.kernel.lock().frame = Some(frame);
        // With all signals blocked.
        self.shared.kernel.notify(Kind::Handler, false);
        self.shared.kernel.lock().frame.take().unwrap()
    }

    fn handle_if_signalled(&self, frame: Frame) -> Option<Frame> {
        self.shared.kernel.take_signal().then(|| self.handle(frame))
    }

    /// A call until it has a result.
    fn call(&mut self, number: u32, patched: bool) {
        let mut frame = Frame::In(number);
        let result = loop {
            frame = match frame {
                Frame::After(result) => break result,
                Frame::Posted(_) => panic!("code of the stub's is shown to the guest"),
                Frame::In(_) if patched => self.post(number),
                Frame::In(_) => match self.shared.kernel.notify(Kind::Call(number), true) {
                    Some(result) => Frame::After(result),
                    None => {
                        assert!(self.shared.kernel.take_signal());
                        self.handle(Frame::In(number))
                    }
                },
            };
        };
        assert_eq!(result, result_of(number));
    }

    /// `__systrap_patched_start` and what follows.
    fn post(&mut self, number: u32) -> Frame {
        let shared = self.shared.clone();
        if let Some(frame) = self.handle_if_signalled(Frame::In(number)) {
            return frame;
        }
        shared.posted.store(number, Ordering::SeqCst);
        let mut waiting = CALL_REQUEST;
        Word::swap(&shared.state, waiting);
        'wait: loop {
            if let Some(frame) = self.handle_if_signalled(Frame::Posted(number)) {
                return frame;
            }
            // .Lpatched_wait: a look, then the doorbell.
            let mut is_woken = false;
            if Word::load(&shared.awake) != RESTING {
                thread::yield_now();
                is_woken = Word::load(&shared.state) != waiting;
            }
            let mut rings = !is_woken && shared.state.replace(waiting, waiting + ASLEEP).is_ok();
            loop {
                if rings {
                    match shared.kernel.notify(Kind::Ring, true) {
                        Some(0) => {}
                        Some(_) => panic!("an order to leave"),
                        None => {
                            assert!(shared.kernel.take_signal());
                            return self.handle(Frame::Posted(number));
                        }
                    }
                }
                // .Lpatched_woken
                match Word::load(&shared.state) {
                    REPLY => return Frame::After(shared.result.load(Ordering::SeqCst)),
                    COMMAND => {
                        self.operations += 1;
                        waiting = CALL_DONE;
                        Word::swap(&shared.state, waiting);
                        continue 'wait;
                    }
                    state if state == waiting + ASLEEP => rings = true,
                    state if state == waiting => continue 'wait,
                    state => panic!("state {state}"),
                }
            }
        }
    }
}

/// Where the stub thread is while the sentry has it.
#[derive(Clone, Copy, Debug)]
enum At {
    Call { id: u64, number: u32 },
    Request { number: u32 },
    Guest,
    Doorbell { id: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Call(u32),
    Interrupted,
    End,
}

/// The sentry thread.
struct Sentry {
    shared: Arc<Shared>,
    at: At,
    reply: Option<u32>,
    unanswered: Option<(u32, u32)>,
    ringing: Option<u64>,
    /// Looks after each reply.
    looks: bool,
    is_looking: bool,
}

impl Sentry {
    fn set_frame(&self, frame: Frame) {
        self.shared.kernel.lock().frame = Some(frame);
    }

    fn frame(&self) -> Frame {
        self.shared.kernel.lock().frame.unwrap()
    }

    fn enter_guest(&self) {
        if protocol::enter_guest(&self.shared.link) == Then::Signal {
            self.shared.kernel.signal();
        }
    }

    fn go(&mut self) {
        match self.at {
            At::Call { id, number } => {
                let value = self.reply.take().unwrap_or(unanswered(number));
                if !self.shared.kernel.send(id, value) {
                    self.unanswered = Some((number, value));
                }
                self.enter_guest();
            }
            At::Request { number } => {
                let value = self.reply.take().unwrap_or(unanswered(number));
                if self.looks && !std::mem::replace(&mut self.is_looking, true) {
                    protocol::set_looking(&self.shared.awake, true);
                }
                self.shared.result.store(value, Ordering::SeqCst);
                if !protocol::hand_over(&self.shared.state, REPLY)
                    && let Some(id) = self.ringing.take()
                {
                    self.shared.kernel.send(id, 0);
                }
                self.at = At::Guest;
                self.enter_guest();
            }
            At::Doorbell { id } => {
                self.shared.kernel.send(id, 0);
                self.enter_guest();
            }
            At::Guest => {}
        }
    }

    fn await_guest(&mut self) -> Option<(u64, Kind)> {
        if self.is_looking {
            thread::yield_now();
            if let Said::Call { .. } = protocol::said(&self.shared.state) {
                return None;
            }
            // The same for time that is over and for something in the listener.
            self.shared.kernel.has_something();
            self.is_looking = false;
            protocol::set_looking(&self.shared.awake, false);
            if let Said::Call { asleep: false } = protocol::said(&self.shared.state) {
                return None;
            }
        }
        loop {
            let (id, kind) = self.shared.kernel.receive();
            if kind != Kind::Ring {
                return Some((id, kind));
            }
            if let Said::Call { .. } = protocol::said(&self.shared.state) {
                self.ringing = Some(id);
                return None;
            }
            self.shared.kernel.send(id, 0);
        }
    }

    /// The handler's doorbell.
    fn ring(&mut self, id: u64) {
        let request = match self.at {
            At::Request { number } => Some(number),
            _ => None,
        };
        self.at = At::Doorbell { id };
        self.ringing = None;
        // leave_own_code
        if let Frame::Posted(number) = self.frame() {
            let said = protocol::said(&self.shared.state);
            let is_replied = protocol::is_replied(&self.shared.state);
            let result = self.shared.result.load(Ordering::SeqCst);
            protocol::withdraw(&self.shared.state);
            let frame = match request {
                Some(taken) => {
                    assert_eq!(taken, number);
                    Frame::After(self.reply.take().unwrap_or(unanswered(number)))
                }
                None if matches!(said, Said::Call { .. }) || !is_replied => Frame::In(number),
                None => Frame::After(result),
            };
            self.set_frame(frame);
        }
        if let Some((_, value)) = self.unanswered.take() {
            self.set_frame(Frame::After(value));
        }
        assert!(protocol::kick_arrived(&self.shared.link), "a signal that nobody has sent");
    }

    fn enter_handler(&mut self) {
        let (number, is_patched) = match self.at {
            At::Call { number, .. } => (number, false),
            At::Request { number } => (number, true),
            _ => return,
        };
        if protocol::kick(&self.shared.link) {
            self.shared.kernel.signal();
        }
        loop {
            match self.shared.kernel.receive() {
                (_, Kind::Ring) if is_patched => {}
                (id, Kind::Handler) => {
                    if !is_patched {
                        self.unanswered = Some((number, self.reply.take().unwrap_or(unanswered(number))));
                    }
                    return self.ring(id);
                }
                other => panic!("{other:?} in the middle of a call"),
            }
        }
    }

    fn next(&mut self) -> Option<Exit> {
        self.go();
        let Some((id, kind)) = self.await_guest() else {
            let number = self.shared.posted.load(Ordering::SeqCst);
            let kicked = protocol::leave_guest(&self.shared.link);
            self.at = At::Request { number };
            assert_eq!(self.unanswered, None);
            if kicked {
                self.enter_handler();
            }
            return Some(Exit::Call(number));
        };
        let kicked = protocol::leave_guest(&self.shared.link);
        match kind {
            Kind::Handler => {
                self.ring(id);
                None
            }
            Kind::End => {
                Word::set(&self.shared.link, OVER);
                self.shared.kernel.send(id, 0);
                Some(Exit::End)
            }
            Kind::Call(number) => {
                self.at = At::Call { id, number };
                let again = self.unanswered.take();
                if let Some((old, value)) = again {
                    assert_eq!(old, number, "another call in the place of a restarted one");
                    self.reply = Some(value);
                }
                if kicked {
                    self.enter_handler();
                }
                again.is_none().then_some(Exit::Call(number))
            }
            Kind::Ring => unreachable!(),
        }
    }

    fn run(&mut self) -> Exit {
        loop {
            if protocol::take_wanted(&self.shared.link) {
                return Exit::Interrupted;
            }
            if let Some(exit) = self.next() {
                return exit;
            }
        }
    }

    fn set_result(&mut self, value: u32) {
        match self.at {
            At::Call { .. } | At::Request { .. } => self.reply = Some(value),
            _ => self.set_frame(Frame::After(value)),
        }
    }

    /// Has the stub thread do something in the middle of a patched call.
    fn operate(&mut self) -> bool {
        let At::Request { .. } = self.at else { return false };
        let is_awake = protocol::hand_over(&self.shared.state, COMMAND);
        if let Some(id) = self.ringing.take() {
            self.shared.kernel.send(id, 0);
        } else if is_awake && self.is_looking {
            thread::yield_now();
            if protocol::said(&self.shared.state) == (Said::Done { asleep: false }) {
                return true;
            }
        }
        loop {
            match self.shared.kernel.receive() {
                (id, Kind::Ring) => {
                    if let Said::Done { .. } = protocol::said(&self.shared.state) {
                        self.ringing = Some(id);
                        return true;
                    }
                    self.shared.kernel.send(id, 0);
                }
                // The owner itself kicks only in enter_handler(), others only a thread that is the guest's.
                other => panic!("{other:?} in the middle of operations"),
            }
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Calls are made from patched sites (else by notifications).
    patched: bool,
    /// How many calls.
    calls: u32,
    /// The sentry looks after its replies.
    looks: bool,
    /// Operations in the first call.
    operates: bool,
    /// The first call's registers are asked for.
    fetches: bool,
    /// Somebody interrupts, at any time.
    interrupted: bool,
}

/// Tries the plan in every order with at most `preemptions` switches that nothing asks for, or `$MODEL_PREEMPTIONS`.
fn check(plan: Plan, preemptions: usize) {
    let given = std::env::var("MODEL_PREEMPTIONS").ok().and_then(|value| value.parse().ok());
    let began = std::time::Instant::now();
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(given.unwrap_or(preemptions));
    builder.max_branches = 10_000;
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shared = Arc::new(Shared {
            state: AtomicU32::new(0),
            awake: AtomicU32::new(RESTING),
            posted: AtomicU32::new(0),
            result: AtomicU32::new(0),
            link: AtomicU32::new(0),
            kernel: Kernel::default(),
        });
        let mut stub = Stub { shared: shared.clone(), operations: 0 };
        let guest = thread::spawn(move || {
            (1..=plan.calls).for_each(|number| stub.call(number, plan.patched));
            stub.shared.kernel.notify(Kind::End, false);
            stub.operations
        });
        let interrupter = plan.interrupted.then(|| {
            let shared = shared.clone();
            thread::spawn(move || {
                if protocol::interrupt(&shared.link) {
                    shared.kernel.signal();
                    protocol::sent(&shared.link);
                }
            })
        });
        let mut sentry = Sentry {
            shared: shared.clone(),
            at: At::Guest,
            reply: None,
            unanswered: None,
            ringing: None,
            looks: plan.looks,
            is_looking: false,
        };
        // The thread begins in the doorbell; here it simply runs.
        sentry.enter_guest();
        let (mut reported, mut ordered, mut interrupts) = (0, 0, 0);
        loop {
            match sentry.run() {
                Exit::Call(number) => {
                    assert_eq!(number, reported + 1, "a call is reported once, in its order");
                    reported = number;
                    if plan.operates && number == 1 {
                        ordered += u32::from(sentry.operate());
                    }
                    if plan.fetches && number == 1 {
                        sentry.enter_handler();
                    }
                    sentry.set_result(result_of(number));
                }
                Exit::Interrupted => interrupts += 1,
                Exit::End => break,
            }
        }
        assert_eq!(reported, plan.calls);
        assert_eq!(guest.join().unwrap(), ordered, "operations are done once");
        assert!(interrupts <= u32::from(plan.interrupted));
        if let Some(interrupter) = interrupter {
            interrupter.join().unwrap();
        }
    });
    println!("{plan:?}: {orders:?} orders, {:?}", began.elapsed());
}

const PATCHED: Plan =
    Plan { patched: true, calls: 2, looks: false, operates: false, fetches: false, interrupted: false };

#[test]
fn patched_calls() {
    check(PATCHED, 4);
}

#[test]
fn patched_calls_that_are_looked_for() {
    check(Plan { looks: true, ..PATCHED }, 4);
}

#[test]
fn operations_in_a_patched_call() {
    check(Plan { operates: true, ..PATCHED }, 4);
    check(Plan { operates: true, looks: true, ..PATCHED }, 4);
}

#[test]
fn the_registers_of_a_patched_call() {
    check(Plan { fetches: true, ..PATCHED }, 4);
    check(Plan { fetches: true, operates: true, looks: true, ..PATCHED }, 4);
}

#[test]
fn an_interrupt_among_patched_calls() {
    let plan = Plan { interrupted: true, ..PATCHED };
    check(plan, 1);
    check(Plan { looks: true, ..plan }, 1);
    check(Plan { operates: true, fetches: true, ..plan }, 1);
    check(Plan { calls: 1, ..plan }, 2);
    check(Plan { calls: 1, looks: true, ..plan }, 2);
}

#[test]
fn an_interrupt_among_notified_calls() {
    let plan = Plan { patched: false, interrupted: true, ..PATCHED };
    check(plan, 1);
    check(Plan { fetches: true, ..plan }, 1);
    check(Plan { calls: 1, fetches: true, ..plan }, 2);
}
