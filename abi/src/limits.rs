//! Limits (`limits.h`, `uio.h`, `binfmts.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

/// The longest path with its NUL.
pub const PATH_MAX: usize = 4096;
/// The longest name of a file, without NUL.
pub const NAME_MAX: usize = 255;
/// The most symbolic links followed in resolving a path (`MAXSYMLINKS`).
pub const MAXSYMLINKS: usize = 40;
/// The most entries of an iovec array.
pub const IOV_MAX: usize = 1024;
pub const UIO_FASTIOV: usize = 8;
/// The most bytes that one read(2) or write(2) transfers.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
pub const NGROUPS_MAX: usize = 65536;
/// The most bytes that write(2) puts into a pipe at once.
pub const PIPE_BUF: usize = 4096;
/// The longest single argument of execve(2), with its NUL.
pub const MAX_ARG_STRLEN: usize = 131072;
pub const MAX_ARG_STRINGS: usize = 0x7fff_ffff;
/// The least that arguments and environment may take, whatever RLIMIT_STACK is.
pub const ARG_MAX: usize = 131072;
/// The size of a thread's name with its NUL.
pub const TASK_COMM_LEN: usize = 16;
/// The longest `#!` line of a script.
pub const BINPRM_BUF_SIZE: usize = 256;
/// The most descriptors in one SCM_RIGHTS message.
pub const SCM_MAX_FD: usize = 253;
/// The most that `socket(2)`'s listen(2) queues by default.
pub const SOMAXCONN: u32 = 4096;
// The largest process id and one.
pub const PID_MAX_DEFAULT: u32 = 32768;
pub const PID_MAX_LIMIT: u32 = 4194304;
/// The first address that a 64-bit program cannot map (`TASK_SIZE_MAX`).
pub const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
