//! What depends on the processor: the frame that a signal leaves, the filter, the stub's code.

pub mod filter;
pub mod frame;
pub mod patched;
pub mod request;
pub mod site;
pub mod stub;
pub mod xstate;

/// AUDIT_ARCH_X86_64 (audit.h).
pub const AUDIT_ARCH: u32 = 0xc000_003e;

/// Bytes of a `syscall` instruction, and of `int 0x80` and `sysenter`.
pub const CALL_SIZE: u64 = 2;

/// The flag that stops after an instruction.
pub const TRAP_FLAG: u64 = 1 << 8;

/// Whether user code may read and write the bases of fs and gs (AT_HWCAP2, 5.9).
pub fn has_fsgsbase() -> bool {
    // SAFETY: a plain library call.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}
