//! The heap of this process.

/// Gives the host back what is free inside the heap. The allocator does that by itself only at the heap's end. Takes
/// milliseconds when much is free, during which other threads may have to wait to allocate.
pub fn give_back() {
    // SAFETY: malloc_trim has no preconditions, and only advises the host about pages that nobody uses.
    unsafe { libc::malloc_trim(0) };
}
