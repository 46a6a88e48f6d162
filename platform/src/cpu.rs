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
    // Not by getauxval: the C library overwrites its copy of this one.
    let hwcap = u64::from(std::arch::x86_64::__cpuid(1).edx);
    Auxiliary { hwcap, hwcap2: get(libc::AT_HWCAP2), min_signal_stack }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_the_same() {
        let auxv = std::fs::read("/proc/self/auxv").unwrap();
        let words: Vec<u64> =
            auxv.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
        let entry = |kind| words.chunks_exact(2).find(|pair| pair[0] == kind).map(|pair| pair[1]);
        let cpu = auxiliary();
        assert_eq!(entry(libc::AT_HWCAP), Some(cpu.hwcap));
        assert_eq!(entry(libc::AT_HWCAP2).unwrap_or(0), cpu.hwcap2);
        assert_eq!(entry(libc::AT_MINSIGSTKSZ).unwrap_or(libc::MINSIGSTKSZ as u64), cpu.min_signal_stack);
    }
}
