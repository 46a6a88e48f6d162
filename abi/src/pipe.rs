//! Pipes (`pipe_fs_i.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

/// The capacity of a new pipe in pages.
pub const PIPE_DEF_BUFFERS: usize = 16;
/// The least capacity that a user over the limit gets, in pages.
pub const PIPE_MIN_DEF_BUFFERS: usize = 2;
/// The default of `fs.pipe-max-size`, in bytes.
pub const PIPE_MAX_SIZE: usize = 1048576;
/// The default of `fs.pipe-user-pages-soft`.
pub const PIPE_USER_PAGES_SOFT: usize = 16384;
