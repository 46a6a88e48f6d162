//! What programs are told of the processor.

/// The entries of the auxiliary vector (getauxval(3)) that describe the processor, as the host told this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auxiliary {
    /// AT_HWCAP: the features that CPUID leaf 1 reports in edx.
    pub hwcap: u64,
    /// AT_HWCAP2: what the kernel lets user space use, such as FSGSBASE.
    pub hwcap2: u64,
    /// AT_MINSIGSTKSZ: bytes that a signal frame takes, with all of the vector state that this processor has.
    pub min_signal_stack: u64,
}

/// The processor, as the host describes it.
pub fn auxiliary() -> Auxiliary {
    let get = |kind| {
        // SAFETY: getauxval only reads the process's auxiliary vector, and knows all values of its argument.
        unsafe { libc::getauxval(kind) }
    };
    let min_signal_stack = match get(libc::AT_MINSIGSTKSZ) {
        0 => libc::MINSIGSTKSZ as u64,
        size => size,
    };
    Auxiliary { hwcap: get(libc::AT_HWCAP), hwcap2: get(libc::AT_HWCAP2), min_signal_stack }
}
