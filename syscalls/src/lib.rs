//! The system call table: one row per call, one module per family.
//!
//! A row names the call, its handler and how much of it is there; from the handler's type come the decoding of the
//! arguments and their text in `--strace`. Handlers take typed arguments and return what [`Return`] is implemented
//! for; errors are Linux's, checked in Linux's order.
#![forbid(unsafe_code)]

pub mod absent;
pub mod administration;
pub mod aio;
pub mod arguments;
pub mod clock;
pub mod credentials;
pub mod descriptors;
pub mod files;
pub mod futex;
pub mod handles;
pub mod inotify;
pub mod inspect;
pub mod io;
pub mod io_control;
pub mod keys;
pub mod memory;
pub mod messages;
pub mod mount_api;
pub mod mount_list;
pub mod mounts;
pub mod mqueue;
pub mod numa;
pub mod poll;
pub mod prctl;
pub mod process;
pub mod ptrace;
pub mod seccomp;
pub mod signals;
pub mod sockets;
pub mod splice;
mod strace;
pub mod system;
pub mod sysv;
pub mod table;
pub mod xattr;

pub use table::{Row, Support, TABLE, Table};
