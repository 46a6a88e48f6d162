//! The processor's time stamp counter.

use std::sync::OnceLock;

/// The counter. Not read before what comes before it in the program.
pub fn read() -> u64 {
    // SAFETY: both instructions exist on every x86-64 processor and touch no memory.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        std::arch::x86_64::_rdtsc()
    }
}

static IS_CLOCK: OnceLock<bool> = OnceLock::new();

/// Finds out whether the host keeps its own time by the counter, which it does only if that ticks at a constant rate,
/// in step on all processors. Reads a file of sysfs: to be called before the sentry is confined.
pub fn probe() {
    IS_CLOCK.get_or_init(|| {
        std::fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|name| name.trim_ascii() == b"tsc")
    });
}

/// What [`probe`] found; false if it was not called.
pub fn is_clock() -> bool {
    IS_CLOCK.get().copied().unwrap_or(false)
}
