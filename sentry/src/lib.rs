//! The kernel of a sandbox: Linux in safe Rust.
//!
//! | module | subject |
//! |---|---|
//! | [`wait`] | wait queues, how a thread sleeps |
//! | [`vfs`] | inodes, dentries, mounts, path walks, open files, descriptor tables |
#![forbid(unsafe_code)]

pub mod vfs;
pub mod wait;

pub use abi::{Errno, Result};
