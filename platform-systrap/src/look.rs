//! Looking for requests instead of sleeping: a wake that crosses to another core costs tens of microseconds in a virtual
//! machine, a request that is seen in shared memory a fraction of one.
//!
//! A sentry thread and its stub thread are either *together*: wakes are synchronous, so that the scheduler keeps the
//! pair on one core, and nobody looks. Or they are *apart*: the sentry thread keeps off the stub's core, looks for a
//! while after each reply, and wakes are ordinary ones (a synchronous one would bring the stub to the core on which the
//! sentry thread looks). Apart pays only when calls follow each other closely, and when there are processors for all
//! guests that run and all threads that look ([`Load`]): while apart, a score rises with calls that come soon, and falls by
//! more when one comes late, unpatched, or has to wait for something. What others on the host need shows only in
//! looking in vain; so a pair that was apart without much use waits twice as long before it tries again.
//!
//! If there are not enough processors, but all who need them are guests that do little but call, they take [`turns`].
//!
//! [`turns`]: crate::turns

use crate::Host;
use crate::arch::frame::Page;
use crate::arch::request::Said;
use crate::notify::Listener;
use crate::turns::{TURN, Turns};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// Ticks of the time stamp counter within which a call comes soon after the last reply; some 10 µs.
const SOON: u64 = 30_000;
/// Ticks to look for a call.
const LIMIT: u64 = 2 * SOON;
/// The same after a stub thread was woken, when a turn begins.
const WAKE: u64 = 20 * SOON;
/// Ticks between two glances at the listener, which brings whatever is no patched call.
const GLANCE: u64 = 3_000;
/// Calls in a row that came soon before looking begins, at first.
const ENOUGH: u32 = 48;
/// The same at most.
const ENOUGH_MOST: u32 = 1 << 14;
/// Calls seen by looking that make up for what moving apart and coming together cost.
const WORTH: u32 = 2000;
/// The score at first, and at most. At 0 the pair comes together.
const MOST: u32 = 64;
/// What a call that came late takes from the score.
const LATE: u32 = 8;
/// The most that crowded calls count for, and what one takes that came late all the same.
const CROWDED_MOST: u32 = 8 * ENOUGH;
const ALONE: u32 = 16;
/// What it takes when the time for looking has run out: somebody else may need the processors.
const IN_VAIN: u32 = 24;
/// Ticks that the sentry usually takes for a call, at most, of a guest that takes turns: others cannot use that time.
const LIGHT: u64 = SOON / 3;
/// Every so many calls that time is taken.
const SAMPLE: u32 = 16;
/// How often the stub looks for a reply before it rings; each time is some 20 to 50 ns.
const STUB_LOOKS: u32 = 400;

/// Who needs a processor.
pub struct Load {
    /// Guest threads that do not wait.
    busy: AtomicU32,
    /// Sentry threads that look because there is room.
    looking: AtomicU32,
    /// Of the busy ones those that do little but call, and would take turns or do.
    bound: AtomicU32,
    turns: Turns,
    /// Processors that this process may use.
    processors: u32,
    allowed: Option<CpuSet>,
}

impl Load {
    /// Asks the host.
    pub fn new() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok();
        let count =
            |set: &CpuSet| (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count();
        let processors = allowed.as_ref().map_or(1, count) as u32;
        let (busy, looking, bound) = Default::default();
        Self { busy, looking, bound, turns: Turns::default(), processors, allowed }
    }

    /// Processors that this process may use.
    pub fn processors(&self) -> u32 {
        self.processors
    }

    /// Whether one more may look beside those that do.
    fn has_room(&self, more: u32) -> bool {
        self.busy.load(Relaxed) + self.looking.load(Relaxed) + self.turns.holders() + more <= self.processors
    }

    /// How much longer a guest's next call takes because of others: by two doorbells of each of those on its processor.
    fn crowd(&self) -> u64 {
        u64::from((2 * self.busy.load(Relaxed)).div_ceil(self.processors)).max(1)
    }

    /// How many pairs may have two processors each, if all that would take turns wait.
    fn places(&self) -> u32 {
        let others = self.busy.load(Relaxed).saturating_sub(self.bound.load(Relaxed));
        self.processors.saturating_sub(others + self.looking.load(Relaxed)) / 2
    }
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A patched call.
    Call,
    /// Something in the listener.
    Notification,
    /// Nothing yet, and it is time to sleep.
    Nothing,
}

/// One sentry thread's part in it.
pub struct Pace {
    host: Arc<Host>,
    /// Calls in a row that came soon.
    row: u32,
    calls: u32,
    /// Rises with calls that came as soon as the other guests on the processors let them, and falls with others: a guest that
    /// does little but call is now and then interrupted.
    crowded: u32,
    /// How many make the pair go apart.
    enough: u32,
    score: u32,
    /// Calls seen by looking since the pair is apart.
    seen: u32,
    replied: u64,
    /// How long to look for the next call.
    limit: u64,
    /// When the last call came, if its time is taken; and what is usual.
    came: Option<u64>,
    service: u64,
    is_busy: bool,
    /// Counted in [`Load::bound`].
    is_bound: bool,
    is_apart: bool,
    is_looking: bool,
    /// Since when it is this thread's turn.
    turn: Option<Instant>,
}

fn ticks() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl Pace {
    /// For a new thread.
    pub fn new(host: &Arc<Host>) -> Self {
        host.load.busy.fetch_add(1, Relaxed);
        Self {
            host: host.clone(),
            row: 0,
            calls: 0,
            crowded: 0,
            enough: ENOUGH,
            score: 0,
            seen: 0,
            replied: 0,
            limit: LIMIT,
            came: None,
            service: 0,
            is_busy: true,
            is_bound: false,
            is_apart: false,
            is_looking: false,
            turn: None,
        }
    }

    /// The guest waits for something.
    pub fn idle(&mut self, page: &Page) {
        self.came = None;
        self.unbind();
        if std::mem::take(&mut self.is_busy) {
            self.host.load.busy.fetch_sub(1, Relaxed);
        }
        self.stop(page);
        self.late();
    }

    /// The guest runs.
    pub fn busy(&mut self) {
        if !std::mem::replace(&mut self.is_busy, true) {
            self.host.load.busy.fetch_add(1, Relaxed);
        }
    }

    /// The guest thread ends, and its stub thread waits for another.
    pub fn leave(&mut self, page: &Page, listener: &Listener) {
        if self.is_apart {
            self.come_together(page, listener);
        }
    }

    /// Whether the thread looks.
    pub fn is_looking(&self) -> bool {
        self.is_looking
    }

    /// It is this thread's turn.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Before a reply: decides how to wait for the next call. May wait for a turn.
    pub fn prepare(&mut self, page: &Page, listener: &Listener) {
        if let Some(came) = self.came.take() {
            // The shortest ones count: the others were interrupted.
            let took = ticks().wrapping_sub(came);
            self.service = took.min(self.service + self.service / 4 + LIGHT / 64);
        }
        if self.is_apart {
            if self.score > 0 && self.may_look(page) {
                self.begin_to_look(page);
            } else {
                self.come_together(page, listener);
            }
        } else if (self.row >= self.enough && self.host.load.has_room(1))
            || (self.crowded >= ENOUGH && self.await_turn(page))
        {
            if !self.move_away(page.cpu()) {
                self.stop(page);
                return;
            }
            listener.set_synchronous(false);
            page.set_spin(STUB_LOOKS);
            self.is_apart = true;
            self.score = MOST;
            self.seen = 0;
            self.begin_to_look(page);
        }
    }

    /// Whether a pair that is apart may look: there is room, or it is this thread's turn, after waiting for it.
    fn may_look(&mut self, page: &Page) -> bool {
        let load = &self.host.load;
        match self.turn {
            Some(since) if !load.turns.is_awaited() || since.elapsed() < TURN => load.places() > 0,
            None if load.has_room(u32::from(!self.is_looking)) => true,
            _ => self.await_turn(page),
        }
    }

    /// Waits for this thread's turn, if turns can be taken.
    fn await_turn(&mut self, page: &Page) -> bool {
        let host = self.host.clone();
        let load = &host.load;
        self.stop(page);
        if self.service > LIGHT || !self.is_busy {
            self.unbind();
            return false;
        }
        if !std::mem::replace(&mut self.is_bound, true) {
            load.bound.fetch_add(1, Relaxed);
        }
        if load.places() == 0 {
            return false;
        }
        // Its guest is in a call meanwhile.
        load.busy.fetch_sub(1, Relaxed);
        load.bound.fetch_sub(1, Relaxed);
        let granted = load.turns.wait(|| load.places());
        load.busy.fetch_add(1, Relaxed);
        load.bound.fetch_add(1, Relaxed);
        self.turn = granted.then(Instant::now);
        granted
    }

    /// It is not one that takes turns.
    fn unbind(&mut self) {
        if std::mem::take(&mut self.is_bound) {
            self.host.load.bound.fetch_sub(1, Relaxed);
        }
    }

    /// Before an answer to something else than a patched call.
    pub fn prepare_other(&mut self, page: &Page, listener: &Listener) {
        self.late();
        if self.is_apart {
            self.prepare(page, listener);
        }
    }

    fn begin_to_look(&mut self, page: &Page) {
        if !std::mem::replace(&mut self.is_looking, true) {
            if self.turn.is_none() {
                self.host.load.looking.fetch_add(1, Relaxed);
            }
            page.set_looking(true);
        }
    }

    fn come_together(&mut self, page: &Page, listener: &Listener) {
        self.rest(page);
        listener.set_synchronous(true);
        self.move_back();
        self.is_apart = false;
        self.crowded = 0;
        self.enough = if self.seen < WORTH { (self.enough * 2).min(ENOUGH_MOST) } else { ENOUGH };
        self.row = 0;
    }

    /// A reply was given. `wakes`: the stub thread slept, and may have to be woken on another processor.
    pub fn replied(&mut self, wakes: bool) {
        self.replied = ticks();
        self.limit = if wakes && self.turn.is_some() { WAKE } else { LIMIT };
    }

    /// A call has arrived.
    pub fn arrived(&mut self) {
        let now = ticks();
        let gap = now.wrapping_sub(self.replied);
        if gap <= SOON {
            self.score = (self.score + 1).min(MOST);
            self.row = self.row.saturating_add(1);
        } else {
            self.score = self.score.saturating_sub(LATE);
            self.row = 0;
            if gap > SOON * self.host.load.crowd() {
                self.alone();
            }
        }
        self.crowded = (self.crowded + 1).min(CROWDED_MOST);
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(SAMPLE) {
            self.came = Some(now);
        }
    }

    fn late(&mut self) {
        self.score = self.score.saturating_sub(LATE);
        self.row = 0;
        self.alone();
    }

    /// It does not only call.
    fn alone(&mut self) {
        self.crowded = self.crowded.saturating_sub(ALONE);
        if self.turn.is_none() && self.crowded < ENOUGH {
            self.unbind();
        }
    }

    /// Looks for a call.
    pub fn look(&mut self, page: &Page, listener: &Listener) -> Seen {
        let mut next = self.replied.wrapping_add(GLANCE);
        loop {
            for _ in 0..16 {
                if let Said::Call { .. } = page.said() {
                    self.arrived();
                    self.seen = self.seen.saturating_add(1);
                    return Seen::Call;
                }
                std::hint::spin_loop();
            }
            let now = ticks();
            if now.wrapping_sub(self.replied) > self.limit {
                self.score = self.score.saturating_sub(IN_VAIN);
                // The scheduler may have put the guest here.
                if nix::sched::sched_getcpu().is_ok_and(|cpu| cpu == page.cpu()) {
                    self.move_away(page.cpu());
                }
                return Seen::Nothing;
            }
            if (now.wrapping_sub(next) as i64) > 0 {
                let load = &self.host.load;
                let has_room = if self.turn.is_some() { load.places() > 0 } else { load.has_room(0) };
                if !has_room {
                    return Seen::Nothing;
                }
                if listener.has_something() {
                    return Seen::Notification;
                }
                next = now.wrapping_add(GLANCE);
            }
        }
    }

    /// Looks for the end of operations, for a while.
    pub fn look_for_done(&self, page: &Page) -> bool {
        if !self.is_looking {
            return false;
        }
        let start = ticks();
        while ticks().wrapping_sub(start) < LIMIT {
            if let Said::Done { asleep: false } = page.said() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Nothing has come, or something else than a call.
    pub fn rest(&mut self, page: &Page) {
        self.stop(page);
        self.alone();
    }

    /// Stops looking, and ends its turn.
    fn stop(&mut self, page: &Page) {
        if std::mem::take(&mut self.is_looking) {
            if self.turn.is_none() {
                self.host.load.looking.fetch_sub(1, Relaxed);
            }
            page.set_looking(false);
        }
        self.pass();
    }

    fn pass(&mut self) {
        if self.turn.take().is_some() {
            self.host.load.turns.pass(self.host.load.places());
        }
    }

    fn move_away(&self, cpu: usize) -> bool {
        let Some(mut set) = self.host.load.allowed else { return false };
        set.unset(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
    }

    fn move_back(&self) {
        if let Some(set) = &self.host.load.allowed {
            let _ = sched_setaffinity(Pid::from_raw(0), set);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if self.is_looking && self.turn.is_none() {
            self.host.load.looking.fetch_sub(1, Relaxed);
        }
        self.unbind();
        if self.is_busy {
            self.host.load.busy.fetch_sub(1, Relaxed);
        }
        self.pass();
        if self.is_apart {
            self.move_back();
        }
    }
}
