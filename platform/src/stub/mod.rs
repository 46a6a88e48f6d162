//! Stub processes: the host processes in which guests run on the host-process platforms.
//!
//! A guest address space is the address space of a *stub process*. The guest owns everything below [`USER_MAX`];
//! above it, at fixed addresses, the stub keeps
//!
//! ```text
//! STUB_TEXT   position-independent code and the seccomp program, a sealed memfd mapped r-x
//! STUB_DATA   the service thread's command buffer, scratch page and signal stack (private, writable)
//! SLOTS       one slot for each guest thread: its stack and control pages, never inherited by fork
//! ```
//!
//! The main thread of every stub process, its *service thread*, runs a loop in the text: it receives a command (a list
//! of raw system calls, with file descriptors to use in them) on its socket, carries it out, and replies. Stub processes
//! descend from one [`Template`] by commanded forks, but all of them are children of the sentry (CLONE_PARENT).
//!
//! **Trust.** A guest shares its address space with the stub, can write `STUB_DATA` at any moment and so take over the
//! service thread. Hence every reply is hostile: a pid is believed only with the kernel's credentials on a message of
//! that process, a tid only if the kernel says that it belongs to the process, a result is a number to be checked. What
//! a captured service thread can do is limited by the seccomp filter ([`filter`]) to what is harmless by construction:
//! it can rearrange its own memory, fork more of itself, and die. What it forks is a child of the sentry and in the process
//! group of the guest process that it came from, with which it ends. A service thread that does not answer is killed with
//! its process after [`REPLY_TIMEOUT`].

pub mod arch;
mod death;
pub mod filter;
mod memory;
mod process;
mod processor;
mod template;
mod tracee;

pub use death::{DeathWatch, State};
pub use memory::{call_of_change, check_range};
pub use process::{Op, Slot, StubProcess, check};
pub use template::{Handler, Options, Template, TemplateError};

use crate::USER_MAX;
use std::time::Duration;

/// Where the stub region begins.
pub const STUB_BASE: u64 = USER_MAX;
/// Where the stub's code is mapped, read-only and executable, in every stub process.
pub const STUB_TEXT: u64 = STUB_BASE + 0x1_0000;
/// Where the platform's own code ([`Options::extra_text`]) is mapped.
pub const EXTRA_TEXT: u64 = STUB_TEXT + EXTRA_OFFSET as u64;
/// The service thread's writable memory.
pub const STUB_DATA: u64 = STUB_BASE + 0x10_0000;
/// Size of [`STUB_DATA`].
pub const STUB_DATA_SIZE: u64 = 0x1_0000;
/// The first thread slot.
pub const SLOTS: u64 = STUB_BASE + 0x1000_0000;
/// Size of a thread slot: room for a signal frame with the largest FPU image, and control pages.
pub const SLOT_SIZE: u64 = 0x1_0000;
/// One past the last address of a process.
pub const STUB_END: u64 = 0x7fff_ffff_f000;
/// Thread slots of an address space.
pub const MAX_SLOTS: u32 = ((STUB_END - SLOTS) / SLOT_SIZE) as u32;

/// Operations in one command.
pub const MAX_OPS: usize = 56;
/// File descriptors with one command.
pub const MAX_FDS: usize = 16;

/// How long a service thread may take for one command before its process is killed. Populating a large mapping or
/// forking a large process takes seconds of honest work, on a busy host more.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it is waited for before it is looked whether somebody has stopped the process.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Offset of the seccomp program in the text.
const FILTER_OFFSET: usize = 0x1000;
/// Offset of the platform's own code in the text.
const EXTRA_OFFSET: usize = 0x8000;
/// Largest text that fits below [`STUB_DATA`].
const TEXT_MAX: usize = 0x8_0000;

/// Offset in [`STUB_DATA`] of a page that results of system calls may be put in.
const SCRATCH_OFFSET: u64 = 0x2000;
/// Size of the scratch page.
const SCRATCH_SIZE: usize = 4096;
