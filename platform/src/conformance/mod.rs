//! The conformance suite: what every platform must do, generic over the contract.
//!
//! A case is a function that panics on failure. [`main`] is the harness for a platform's `tests/conformance.rs`
//! (`harness = false`): it runs each case in a process of its own, with a platform of its own, and kills it if it hangs.

pub mod code;
mod faults;
mod harness;
mod hostile;
mod interrupts;
mod memory;
mod registers;
mod threads;

pub use harness::{Guest, Outcome, main, stub_pids};

use crate::Platform;

/// A named case. It returns [`Outcome::Skipped`] where the machine lacks what it needs.
pub type Case = (&'static str, fn(&dyn Platform) -> Outcome);

/// Every case.
pub fn all() -> Vec<Case> {
    [registers::CASES, memory::CASES, faults::CASES, interrupts::CASES, threads::CASES, hostile::CASES]
        .concat()
}
