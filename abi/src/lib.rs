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

pub mod dirent;
pub mod elf;
pub mod errno;
pub mod fcntl;
pub mod limits;
pub mod mman;
pub mod poll;
pub mod resource;
pub mod sched;
pub mod siginfo;
pub mod signal;
pub mod stat;
pub mod sysno;
pub mod time;
pub mod uio;
pub mod utsname;
pub mod wait;

pub use errno::{Errno, Result};
