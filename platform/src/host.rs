//! Small questions to the host.

/// The processor that the calling thread runs on at this moment.
pub fn host_cpu() -> u32 {
    // SAFETY: the call takes no arguments and touches no memory.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).unwrap_or(0)
}
