//! The part of a thread's pages through which it makes patched calls.
//!
//! ```text
//! line 0   state, number, six arguments          written by the stub, but for the state
//! line 1   address after the call, continuation, flags; the result; what is carried, and how much is to be copied
//! line 2   whether the sentry looks, how long to spin; answers that the stub gives itself
//! then     operations for the stub; what is to be copied where; registers that the stub saves
//! pages    memory that the call reads, copied by the stub; memory that it writes, for the stub to copy
//! ```
//!
//! The state is the protocol:
//!
//! ```text
//! CALL_REQUEST  stub: a call is posted         + ASLEEP: and the doorbell rings, or is about to
//! REPLY         sentry: the result is there
//! COMMAND       sentry: operations are there
//! SAVE          sentry: it wants all registers
//! CALL_DONE     stub: that is done             + ASLEEP: as above
//! LOAD          sentry: a frame with all registers is there, in the place of a result
//! ```
//!
//! The stub goes on when the state is the sentry's. It rings when the sentry says that it is not looking
//! ([`RESTING`]), or when it has waited long enough. Both sides write first and look afterwards (`xchg` is a full
//! barrier), so that one of them sees the other. All of it can be written by sibling threads: a state that makes no sense is
//! no request.

use super::frame::Page;
use crate::protocol;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

pub use crate::protocol::{ASLEEP, CALL_DONE, CALL_REQUEST, COMMAND, LOAD, REPLY, RESTING, SAVE, Said};

/// Offset of the state.
pub const STATE: usize = 256;
/// Offset of the processor on which the call was posted, in the low 12 bits.
pub const CPU: usize = 260;
/// Offset of the number (rax).
pub const NUMBER: usize = 264;
/// Offset of rdi, rsi, rdx, r10, r8, r9.
pub const ARGS: usize = 272;
/// Offset of the address after the call.
pub const IP: usize = 320;
/// Offset of the address in the trampoline at which to go on.
pub const CONTINUATION: usize = 328;
/// Offset of the flags: `lahf` in the high byte, `seto` in the low.
pub const FLAGS: usize = 336;
/// Offset of the result.
pub const RESULT: usize = 344;
/// Offset of the address of the guest memory that the stub has copied to [`CARRIED`].
pub const CARRIED_ADDR: usize = 352;
/// Offset of how many bytes that are; 0: none.
pub const CARRIED_LEN: usize = 360;
/// Offset of how many pieces the stub is to copy to guest memory before it goes on.
pub const LATER_COUNT: usize = 364;
/// Offset of the word that says whether the sentry looks.
pub const AWAKE: usize = 384;
/// Offset of the number of times to look before ringing.
pub const SPIN: usize = 388;
/// Offset of the mask of answers that may be given; bit 1 is the first.
pub const MASK: usize = 392;
/// Offset of the answers.
pub const ANSWERS: usize = 400;
/// Offset of the number of operations.
pub const OPERATIONS_COUNT: usize = 448;
/// Offset of the number that is done.
pub const OPERATIONS_DONE: usize = 452;
/// Offset of the operations: number, six arguments, result.
pub const OPERATIONS: usize = 512;
/// Operations in one command.
pub const OPERATIONS_MAX: usize = 8;
/// Offset of the pieces: address, length (4 bytes), offset in the page (4 bytes).
pub const PIECES: usize = OPERATIONS + OPERATIONS_MAX * 64;
/// Pieces at most.
pub const PIECES_MAX: usize = 4;
/// Offset of rbx, rbp, rsp, r12, r13, r14, r15, fs base, flags, as the stub has saved them.
pub const SAVED: usize = PIECES + PIECES_MAX * 16;
/// How many these are.
pub const SAVED_COUNT: usize = 9;
/// Offset of the address behind the saved flags, which are pushed.
pub const SAVED_STACK: usize = SAVED + SAVED_COUNT * 8;
/// Offset of the features to be saved in the image.
pub const SAVED_FEATURES: usize = SAVED_STACK + 8;
/// Offset of the offset of the image.
pub const SAVED_IMAGE: usize = SAVED_FEATURES + 8;
/// Offset of the stack pointer for rt_sigreturn(2).
pub const LOAD_STACK: usize = SAVED_IMAGE + 8;
/// One past the last byte, but for the pages of data.
pub const END: usize = LOAD_STACK + 8;
/// Offset of the memory that the stub has copied.
pub const CARRIED: usize = 0x4000;
/// Bytes of it at most.
pub const CARRIED_MAX: usize = 4096;
/// Bytes of a string that is carried at most.
pub const STRING_MAX: usize = 512;
/// Offset of the memory that the stub is to copy.
pub const LATER: usize = CARRIED + CARRIED_MAX;
/// Bytes of it at most.
pub const LATER_MAX: usize = 4096;
/// One past the last byte of the pages of data.
pub const DATA_END: usize = LATER + LATER_MAX;

impl Page {
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: in the mapping, aligned, and only used atomically while it lives.
        unsafe { AtomicU32::from_ptr(self.pointer(offset).cast()) }
    }

    fn long(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.pointer(offset).cast()) }
    }

    /// What the stub says.
    pub fn said(&self) -> Said {
        protocol::said(self.word(STATE))
    }

    /// Whether the answer is there.
    pub fn is_replied(&self) -> bool {
        protocol::is_replied(self.word(STATE))
    }

    /// Number and arguments of the posted call, and the address after it.
    pub fn posted(&self) -> (u64, [u64; 6], u64) {
        let args = [0, 1, 2, 3, 4, 5].map(|index| self.long(ARGS + index * 8).load(SeqCst));
        (self.long(NUMBER).load(SeqCst), args, self.long(IP).load(SeqCst))
    }

    /// Address and length of the guest memory that came with the call.
    pub fn carried(&self) -> (u64, usize) {
        let len = self.word(CARRIED_LEN).load(SeqCst) as usize;
        (self.long(CARRIED_ADDR).load(SeqCst), len.min(CARRIED_MAX))
    }

    /// Says what is to be copied to guest memory: addresses, lengths and offsets from [`LATER`].
    pub fn set_pieces(&self, pieces: &[(u64, usize, usize)]) {
        for (index, (addr, len, offset)) in pieces.iter().enumerate().take(PIECES_MAX) {
            self.long(PIECES + index * 16).store(*addr, SeqCst);
            self.word(PIECES + index * 16 + 8).store(*len as u32, SeqCst);
            self.word(PIECES + index * 16 + 12).store((LATER + offset) as u32, SeqCst);
        }
        self.word(LATER_COUNT).store(pieces.len().min(PIECES_MAX) as u32, SeqCst);
    }

    /// The processor on which the stub thread was when it posted the call.
    pub fn cpu(&self) -> usize {
        self.word(CPU).load(SeqCst) as usize & 0xfff
    }

    /// The stored number, address after the call, and flags.
    pub fn stored(&self) -> (u64, u64, u16) {
        let flags = self.word(FLAGS).load(SeqCst) as u16;
        (self.long(NUMBER).load(SeqCst), self.long(IP).load(SeqCst), flags)
    }

    /// The result as last given.
    pub fn result(&self) -> u64 {
        self.long(RESULT).load(SeqCst)
    }

    /// Changes the state to the sentry's `state`. False: the stub rings, or is about to.
    fn hand_over(&self, state: u32) -> bool {
        protocol::hand_over(self.word(STATE), state)
    }

    /// Gives the result. False: the stub rings, or is about to, and waits for an answer to that.
    pub fn reply(&self, value: u64) -> bool {
        self.long(RESULT).store(value, SeqCst);
        self.hand_over(REPLY)
    }

    /// Withdraws the posted call: the thread goes on elsewhere.
    pub fn withdraw(&self) {
        protocol::withdraw(self.word(STATE));
    }

    /// Gives operations, at most [`OPERATIONS_MAX`]; otherwise as [`Page::reply`].
    pub fn order(&self, operations: &[(u64, [u64; 6])]) -> bool {
        for (index, (number, args)) in operations.iter().enumerate().take(OPERATIONS_MAX) {
            let at = OPERATIONS + index * 64;
            self.long(at).store(*number, SeqCst);
            for (arg, value) in args.iter().enumerate() {
                self.long(at + 8 + arg * 8).store(*value, SeqCst);
            }
        }
        self.word(OPERATIONS_COUNT).store(operations.len().min(OPERATIONS_MAX) as u32, SeqCst);
        self.hand_over(COMMAND)
    }

    /// Says how the stub is to save its registers: the image with `features` at an offset.
    pub fn set_saving(&self, features: u64, image: usize) {
        self.long(SAVED_STACK).store(self.guest + SAVED_STACK as u64, SeqCst);
        self.long(SAVED_FEATURES).store(features, SeqCst);
        self.word(SAVED_IMAGE).store(image as u32, SeqCst);
    }

    /// Has the stub save its registers; otherwise as [`Page::reply`].
    pub fn order_save(&self) -> bool {
        self.hand_over(SAVE)
    }

    /// The stack pointer of a thread that was stopped with `rsp`, perhaps while it saved its flags.
    pub fn unpushed(&self, rsp: u64) -> u64 {
        let place = self.guest + SAVED_STACK as u64;
        if rsp == place || rsp == place - 8 { self.saved()[2] } else { rsp }
    }

    /// What the stub has saved, see [`SAVED`].
    pub fn saved(&self) -> [u64; SAVED_COUNT] {
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|index| self.long(SAVED + index * 8).load(SeqCst))
    }

    /// Has the stub go on with the frame that stands at `stack`; otherwise as [`Page::reply`].
    pub fn reply_frame(&self, stack: u64) -> bool {
        self.long(LOAD_STACK).store(stack, SeqCst);
        self.hand_over(LOAD)
    }

    /// Whether a frame is there in the place of an answer.
    pub fn is_frame_given(&self) -> bool {
        self.word(STATE).load(SeqCst) == LOAD
    }

    /// The results of the operations that were done, at most `count`.
    pub fn results(&self, count: usize) -> impl Iterator<Item = i64> + '_ {
        let done = self.word(OPERATIONS_DONE).load(SeqCst) as usize;
        (0..done.min(count).min(OPERATIONS_MAX))
            .map(|index| self.long(OPERATIONS + index * 64 + 56).load(SeqCst) as i64)
    }

    /// Says whether the sentry looks at the state.
    pub fn set_looking(&self, looking: bool) {
        protocol::set_looking(self.word(AWAKE), looking);
    }

    /// Sets how often the stub looks before it rings.
    pub fn set_spin(&self, times: u32) {
        self.word(SPIN).store(times.max(1), SeqCst);
    }

    /// Sets the answers that the stub may give itself, in the order of the assembler's table; `None`: it asks. Returns the
    /// mask for [`Page::allow_answers`], until which it gives none.
    pub fn set_answers(&self, answers: &[Option<u64>; 6]) -> u32 {
        self.allow_answers(0);
        let mut mask = 0;
        for (index, answer) in answers.iter().enumerate() {
            if let Some(value) = answer {
                self.long(ANSWERS + index * 8).store(*value, SeqCst);
                mask |= 2 << index;
            }
        }
        mask
    }

    /// Says which of the answers the stub gives.
    pub fn allow_answers(&self, mask: u32) {
        self.word(MASK).store(mask, SeqCst);
    }
}
