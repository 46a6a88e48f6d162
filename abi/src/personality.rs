//! Execution domains (`personality.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

pub const UNAME26: u32 = 0x20000;
pub const ADDR_NO_RANDOMIZE: u32 = 0x40000;
pub const FDPIC_FUNCPTRS: u32 = 0x80000;
pub const MMAP_PAGE_ZERO: u32 = 0x100000;
pub const ADDR_COMPAT_LAYOUT: u32 = 0x200000;
pub const READ_IMPLIES_EXEC: u32 = 0x400000;
pub const ADDR_LIMIT_32BIT: u32 = 0x800000;
pub const SHORT_INODE: u32 = 0x1000000;
pub const WHOLE_SECONDS: u32 = 0x2000000;
pub const STICKY_TIMEOUTS: u32 = 0x4000000;
pub const ADDR_LIMIT_3GB: u32 = 0x8000000;
pub const PER_LINUX: u32 = 0;
pub const PER_LINUX32: u32 = 8;
pub const PER_MASK: u32 = 0xff;
/// What exec of a privileged program clears.
pub const PER_CLEAR_ON_SETID: u32 = 0x740000;
/// The argument of personality(2) that changes nothing.
pub const PERSONALITY_QUERY: u32 = 0xffffffff;
