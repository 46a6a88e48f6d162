//! The vsyscall page (`asm/vsyscall.h`): three old calls at fixed addresses, entered by a plain `call`.
#![allow(missing_docs, reason = "the names are Linux's")]

pub const VSYSCALL_ADDR: u64 = 0xffff_ffff_ff60_0000;
/// gettimeofday(2)
pub const VSYSCALL_GETTIMEOFDAY: u64 = 0xffff_ffff_ff60_0000;
/// time(2)
pub const VSYSCALL_TIME: u64 = 0xffff_ffff_ff60_0400;
/// getcpu(2)
pub const VSYSCALL_GETCPU: u64 = 0xffff_ffff_ff60_0800;
