//! What a stub thread does for the sentry while a call of its guest waits: it enters its handler, carries out operations, saves
//! its registers, or makes a call of its own.

use super::doorbell::Ring;
use super::{At, Call, Inner};
use crate::arch::TRAP_FLAG;
use crate::arch::frame::{USER_CS, USER_SS};
use crate::arch::patched;
use crate::arch::request::Said;
use crate::arch::stub::Command;
use crate::notify::Notification;
use platform::{Death, Registers};
use std::time::Duration;

/// Between two looks for the end of an order.
const LOOK: Duration = Duration::from_secs(1);
/// What one costs, and a doorbell meanwhile.
const LOOK_COST: u32 = 100;
const RING_COST: u32 = 1;
/// What there is to spend: [`platform::stub::REPLY_TIMEOUT`] in looks.
const PATIENCE: u32 = LOOK_COST * platform::stub::REPLY_TIMEOUT.as_secs() as u32;

impl Inner {
    /// Waits for the next notification of a thread that carries out an order. Nobody else ends this wait, and the order lies
    /// where siblings can write; so it is given up when `patience` is used up. Each look in vain costs much of that (what
    /// stands still as a whole is not blamed), each doorbell that says something else a little.
    fn receive_ordered(&mut self, patience: &mut u32) -> Result<Notification, Death> {
        let mut cost = RING_COST;
        while !self.listener.wait(LOOK) {
            cost += LOOK_COST;
            if cost > *patience {
                break;
            }
        }
        *patience = patience.saturating_sub(cost);
        if *patience == 0 {
            return Err(self.misbehaved("an order that is not carried out"));
        }
        self.receive()
    }

    /// Brings the thread from the guest's call into the handler, by a kick that is sent or on its way.
    pub(super) fn enter_handler(&mut self) -> Result<(), Death> {
        let (call, is_patched) = match self.at {
            At::Call { call, .. } => (call, false),
            At::Request { call } => (call, true),
            _ => return Ok(()),
        };
        self.carrier.close();
        self.link.begin_waiting();
        self.link.kick();
        let result = if is_patched { self.await_request_handler() } else { self.await_handler(call) };
        self.link.end_waiting();
        result
    }

    fn await_request_handler(&mut self) -> Result<(), Death> {
        loop {
            let notification = self.receive()?;
            // It went to sleep before the signal came, which ends that.
            if self.is_ring(&notification) {
                continue;
            }
            if !self.is_doorbell(&notification) {
                return Err(self.misbehaved("another call in the middle of a patched one"));
            }
            return match self.ring(&notification)? {
                Ring::Kicked | Ring::Nothing if self.fetched => Ok(()),
                _ => Err(self.misbehaved("a thread that left its patched call")),
            };
        }
    }

    fn await_handler(&mut self, call: Call) -> Result<(), Death> {
        loop {
            let notification = self.receive()?;
            if self.is_ring(&notification) {
                // It was, and its site has been patched meanwhile.
                if self.posted_call() != Some(call) {
                    return Err(self.misbehaved("another call in the middle of one"));
                }
                self.at = At::Request { call };
                return self.await_request_handler();
            }
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

    /// Has the stub thread carry out operations, in the middle of a patched call. Returns the results of those done.
    pub(super) fn operate(&mut self, operations: &[(u64, [u64; 6])]) -> Result<Vec<i64>, Death> {
        let is_awake = self.lease.page.order(operations);
        self.finish_order(is_awake)?;
        Ok(self.lease.page.results(operations.len()).collect())
    }

    /// Waits for the end of what was ordered in the middle of a patched call.
    fn finish_order(&mut self, is_awake: bool) -> Result<(), Death> {
        if let Some(id) = self.ringing.take() {
            let _ = self.listener.send(id, 0);
        } else if is_awake && self.pace.look_for_done(&self.lease.page) {
            return Ok(());
        }
        self.link.begin_waiting();
        let done = self.await_done();
        self.link.end_waiting();
        done
    }

    /// Gets the registers of a thread in a patched call, which stays there.
    pub(super) fn save(&mut self, call: Call) -> Result<(), Death> {
        self.carrier.close();
        let host = self.space.host.clone();
        // The one that holds most: what the thread has used meanwhile shows in the image.
        let Some(shape) = host.geometry.shapes.last() else { return Err(Death::Misbehaved) };
        if !patched::has_registers(self.lease.page.stored().0) {
            let is_awake = self.lease.page.order_save();
            self.finish_order(is_awake)?;
        }
        let page = &self.lease.page;
        page.load_image(shape, &mut self.context);
        if self.shape().lacks(&self.context.xstate) {
            self.shape = host.geometry.shapes.len() - 1;
        }
        let [rbx, rbp, rsp, r12, r13, r14, r15, fs_base, eflags] = page.saved();
        let [rdi, rsi, rdx, r10, r8, r9] = call.args;
        let mut eflags = patched::restore_flags(eflags, page.stored().2);
        if self.context.single_step && !self.own_trap {
            eflags &= !TRAP_FLAG;
        }
        let (rax, rcx, r11) = (self.reply.take().unwrap_or(call.number), call.ip, eflags);
        let (rip, orig_rax, gs_base) = (call.ip, u64::MAX, 0);
        self.context.regs = Registers {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            eflags,
            orig_rax,
            fs_base,
            gs_base,
            cs: USER_CS,
            ss: USER_SS,
            ..Registers::default()
        };
        Ok(())
    }

    fn await_done(&mut self) -> Result<(), Death> {
        let mut patience = PATIENCE;
        loop {
            let notification = self.receive_ordered(&mut patience)?;
            if self.is_ring(&notification) {
                if let Said::Done { .. } = self.lease.page.said() {
                    self.ringing = Some(notification.id);
                    return Ok(());
                }
                // Of the call itself, before it saw the order.
                let _ = self.listener.send(notification.id, 0);
                continue;
            }
            if !self.is_doorbell(&notification) {
                return Err(self.misbehaved("a call of the guest in place of our operations"));
            }
            // A signal from somebody on the host.
            self.rung = notification.args[5];
            let _ = self.listener.send(notification.id, Command::Return as u64);
        }
    }

    /// Has the stub thread make a call of its own. The arguments lie in memory that siblings can write: only calls
    /// that are harmless whatever they are get through the base filter.
    pub(super) fn call(&mut self, number: i64, args: [u64; 6]) -> Result<u64, Death> {
        if let At::Dead(death) = self.at {
            return Err(death);
        }
        self.enter_handler()?;
        let At::Doorbell { id } = self.at else { return Err(Death::Misbehaved) };
        self.lease.page.set_call(number as u64, args);
        self.answer = Command::Call;
        let _ = self.listener.send(id, Command::Call as u64);
        self.got_guest();
        self.link.begin_waiting();
        let result = self.await_call();
        self.link.end_waiting();
        result
    }

    fn await_call(&mut self) -> Result<u64, Death> {
        let mut patience = PATIENCE;
        loop {
            let notification = self.receive_ordered(&mut patience)?;
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
}
