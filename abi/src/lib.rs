//! The Linux x86-64 ABI as a guest sees it: errno values, structure layouts, flag sets, ioctl and system call
//! numbers. Plain data only; nothing here calls the host.
//!
//! A structure has the name of Linux's in CamelCase and Linux's field names, and can be copied to and from guest
//! memory as bytes: padding is a named field, so that nothing of the sentry's leaks through it. Constants have
//! Linux's names. Flag sets are `bitflags`; `from_bits` is the check for unknown flags.
#![forbid(unsafe_code)]

/// Defines structures that cross guest memory: `#[repr(C)]`, no hidden padding, and exactly `[size]` bytes. All fields
/// are public and all bytes zero is the default.
macro_rules! layout {
    ($($(#[$meta:meta])* struct $name:ident[$size:literal] { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the fields are Linux's")]
        pub struct $name { $($(#[$fmeta])* pub $field: $type),* }

        const _: () = assert!(size_of::<$name>() == $size);

        impl Default for $name {
            fn default() -> $name {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    )*};
}

pub mod aio;
pub mod capability;
pub mod dirent;
pub mod elf;
pub mod errno;
pub mod eventfd;
pub mod fcntl;
pub mod fuse;
pub mod futex;
pub mod inet;
pub mod inotify;
pub mod ioctl;
pub mod ipc;
pub mod keyctl;
pub mod limits;
pub mod mman;
pub mod mount;
pub mod netdevice;
pub mod netlink;
pub mod personality;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod prctl;
pub mod ptrace;
pub mod random;
pub mod resource;
pub mod rseq;
pub mod sched;
pub mod seccomp;
pub mod siginfo;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod sysinfo;
pub mod sysno;
pub mod time;
pub mod tty;
pub mod uio;
pub mod utsname;
pub mod vsyscall;
pub mod wait;

pub use errno::{Errno, Result};
