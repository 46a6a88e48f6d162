//! Small questions to the host.

/// The processor that the calling thread runs on at this moment.
pub fn host_cpu() -> u32 {
    // SAFETY: the call takes no arguments and touches no memory.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).unwrap_or(0)
}

/// Returns when every thread that runs on the host has passed a full memory barrier (membarrier(2) with
/// MEMBARRIER_CMD_GLOBAL). ENOSYS where the host has none.
pub fn memory_barrier() -> crate::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes plain numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
