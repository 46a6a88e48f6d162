//! Event counters (`eventfd.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Flags of eventfd2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EventfdFlags: u32 {
        const EFD_SEMAPHORE = 1;
        const EFD_CLOEXEC = 0x80000;
        const EFD_NONBLOCK = 0x800;
    }
}

/// The largest value of the counter.
pub const EFD_MAX: u64 = 0xffff_ffff_ffff_fffe;
