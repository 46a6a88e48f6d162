//! What the tests of the whole product share: building guest programs, running them natively and in the sandbox,
//! and cleaning up after those that hang.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod chroot;
pub mod clients;
pub mod compat;
pub mod guest;
pub mod known;
pub mod ltp;
pub mod programs;
pub mod scratch;
pub mod target;
pub mod tree;
