//! Random bytes of the host.

/// Fills `buf` from the host's generator (getrandom(2)).
pub fn fill(buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        let rest = &mut buf[done..];
        // SAFETY: the pointer and length are those of a slice that is writable for the call.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        // The call cannot fail with these arguments but for EINTR.
        done += usize::try_from(n).unwrap_or(0);
    }
}
