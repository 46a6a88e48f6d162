//! The Linux x86-64 ABI as a guest sees it: errno values, structure layouts, flag sets, ioctl and system call
//! numbers. Plain data only; nothing here calls the host.
#![forbid(unsafe_code)]

pub mod errno;

pub use errno::{Errno, Result};
