//! The system as a whole: sysinfo(2), syslog(2), reboot(2) (`sysinfo.h`, `reboot.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

layout! {
    /// `struct sysinfo`. Loads are fixed-point numbers with [`SI_LOAD_SHIFT`] bits after the point.
    struct Sysinfo[112] {
        uptime: i64, loads: [u64; 3], totalram: u64, freeram: u64, sharedram: u64, bufferram: u64, totalswap: u64,
        freeswap: u64, procs: u16, _pad0: u16, _pad1: u32, totalhigh: u64, freehigh: u64, mem_unit: u32, _pad2: u32,
    }
}

pub const SI_LOAD_SHIFT: u32 = 16;

// Actions of syslog(2).
pub const SYSLOG_ACTION_CLOSE: u32 = 0;
pub const SYSLOG_ACTION_OPEN: u32 = 1;
pub const SYSLOG_ACTION_READ: u32 = 2;
pub const SYSLOG_ACTION_READ_ALL: u32 = 3;
pub const SYSLOG_ACTION_READ_CLEAR: u32 = 4;
pub const SYSLOG_ACTION_CLEAR: u32 = 5;
pub const SYSLOG_ACTION_CONSOLE_OFF: u32 = 6;
pub const SYSLOG_ACTION_CONSOLE_ON: u32 = 7;
pub const SYSLOG_ACTION_CONSOLE_LEVEL: u32 = 8;
pub const SYSLOG_ACTION_SIZE_UNREAD: u32 = 9;
pub const SYSLOG_ACTION_SIZE_BUFFER: u32 = 10;

// Arguments of reboot(2).
pub const LINUX_REBOOT_MAGIC1: u32 = 0xfee1dead;
pub const LINUX_REBOOT_MAGIC2: u32 = 0x28121969;
pub const LINUX_REBOOT_MAGIC2A: u32 = 0x5121996;
pub const LINUX_REBOOT_MAGIC2B: u32 = 0x16041998;
pub const LINUX_REBOOT_MAGIC2C: u32 = 0x20112000;
pub const LINUX_REBOOT_CMD_RESTART: u32 = 0x1234567;
pub const LINUX_REBOOT_CMD_HALT: u32 = 0xcdef0123;
pub const LINUX_REBOOT_CMD_CAD_ON: u32 = 0x89abcdef;
pub const LINUX_REBOOT_CMD_CAD_OFF: u32 = 0;
pub const LINUX_REBOOT_CMD_POWER_OFF: u32 = 0x4321fedc;
pub const LINUX_REBOOT_CMD_RESTART2: u32 = 0xa1b2c3d4;
pub const LINUX_REBOOT_CMD_SW_SUSPEND: u32 = 0xd000fce2;
pub const LINUX_REBOOT_CMD_KEXEC: u32 = 0x45584543;
