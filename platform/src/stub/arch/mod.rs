//! The stub's machine code, one module an architecture.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    AUDIT_ARCH, CALL_TRAP, EXIT, FAULT_HANDLER, PARK, RESTORER, THREAD_FLAGS, is_vsyscall, text,
    vsyscall_number,
};
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{enter, rseq_area, syscall};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("stub processes exist for x86-64 only");
