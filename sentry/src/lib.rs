//! The kernel of a sandbox: Linux in safe Rust.
//!
//! | module | subject |
//! |---|---|
//! | [`kernel`] | what there is once per sandbox, and how the first process starts |
//! | [`container`] | containers: what runs their programs, what of the machine they see |
//! | [`task`] | threads, processes, signals, credentials, namespaces |
//! | [`mm`] | address spaces and guest memory |
//! | [`loader`] | ELF and `#!` programs |
//! | [`vfs`] | inodes, dentries, mounts, path walks, open files, descriptor tables |
//! | [`fs`] | the filesystems and file types |
//! | [`net`] | sockets |
//! | [`ipc`] | System V IPC and POSIX message queues |
//! | [`time`] | clocks and timers |
//! | [`aio`] | results of asynchronous I/O |
//! | [`seccomp`] | filters that guests install |
//! | [`keys`] | keys and keyrings |
//! | [`log`] | what syslog(2) reads |
//! | [`parameters`] | kernel parameters (sysctl) |
//! | [`statistics`] | sums over all that has happened |
//! | [`view`] | the files of a container for the host to see |
//! | [`wait`] | wait queues, how a thread sleeps |
#![forbid(unsafe_code)]
// Tasks refer to files, files to sockets, sockets to tasks: the compiler follows a long way to see that all are `Send`.
#![recursion_limit = "256"]

pub mod aio;
pub mod container;
pub mod fs;
pub mod ipc;
pub mod kernel;
pub mod keys;
pub mod loader;
pub mod log;
pub mod mm;
pub mod net;
pub mod parameters;
pub mod seccomp;
pub mod statistics;
pub mod task;
pub mod time;
pub mod vfs;
pub mod view;
pub mod wait;

pub use abi::{Errno, Result};
pub use kernel::Kernel;
