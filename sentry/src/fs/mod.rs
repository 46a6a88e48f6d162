//! The filesystems and file types.
