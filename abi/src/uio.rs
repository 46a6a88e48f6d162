//! Scattered buffers (`uio.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

layout! {
    /// `struct iovec`.
    struct Iovec[16] { iov_base: u64, iov_len: u64 }
}
