//! Random numbers (`random.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Flags of getrandom(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GetrandomFlags: u32 {
        const GRND_NONBLOCK = 1;
        const GRND_RANDOM = 2;
        const GRND_INSECURE = 4;
    }
}

// ioctls of /dev/random.
pub const RNDGETENTCNT: u32 = 0x80045200;
pub const RNDADDTOENTCNT: u32 = 0x40045201;
pub const RNDADDENTROPY: u32 = 0x40085203;
pub const RNDZAPENTCNT: u32 = 0x5204;
pub const RNDCLEARPOOL: u32 = 0x5206;
pub const RNDRESEEDCRNG: u32 = 0x5207;
