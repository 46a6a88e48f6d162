//! Host calls that nix lacks or makes allocate, and the passing of descriptors: all the unsafe code of this crate.

mod process;
mod socket;

pub use process::{
    CapabilitySets, capabilities, clone_tree, close, close_range, drop_bounding_set, fsmount_empty,
    ignore_file_size_signal, lower_dumpable, secure_bits, set_capabilities, set_mount_attributes,
    set_secure_bits,
};
pub use socket::{
    connect_unix, grow_send_buffer, limit_waits, receive, receive_with_descriptor, send, seqpacket_pair,
};

use abi::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The value of a system call that returned -1 on failure.
fn check(value: libc::c_long) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| std::io::Error::last_os_error().into())
}

/// Takes ownership of a descriptor that a system call has just returned.
fn new_descriptor(value: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(check(value)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this call; nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// statx(2) of the inode that `fd` names, which may be `O_PATH`.
pub fn statx(fd: BorrowedFd<'_>) -> Result<libc::statx, Errno> {
    statx_at(fd, c"", libc::AT_EMPTY_PATH)
}

/// statx(2) of `name` in the directory `dir`, without following a symbolic link.
pub fn statx_name(dir: BorrowedFd<'_>, name: &CStr) -> Result<libc::statx, Errno> {
    statx_at(dir, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// statx(2) of a path that starts at the working directory, following symbolic links.
pub fn statx_path(path: &CStr) -> Result<libc::statx, Errno> {
    statx_at(nix::fcntl::AT_FDCWD, path, 0)
}

fn statx_at(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> Result<libc::statx, Errno> {
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: `name` is NUL-terminated, `out` has room for one structure.
    let done = unsafe {
        libc::statx(dir.as_raw_fd(), name.as_ptr(), flags | libc::AT_NO_AUTOMOUNT, mask, out.as_mut_ptr())
    };
    check(done.into())?;
    // SAFETY: all-zero bytes are a valid structure of integers, and the kernel has written to it.
    Ok(unsafe { out.assume_init() })
}

/// openat2(2) of a path that must stay below `dir` and have no symbolic link on the way.
pub fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;
    let how = [flags as u64, mode.into(), resolve];
    // SAFETY: `path` is NUL-terminated; `how` has the layout and size of struct open_how: three 64-bit numbers.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), how.as_ptr(), size_of_val(&how))
    };
    new_descriptor(fd)
}

/// openat(2).
pub fn openat(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: `path` is NUL-terminated.
    new_descriptor(unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags, mode) }.into())
}

/// getdents64(2): the length of the records written to `buffer`.
pub fn getdents(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is writable for its whole length.
    check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
}

/// lseek(2) from the start.
pub fn seek(fd: BorrowedFd<'_>, offset: i64) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset, libc::SEEK_SET) }).map(drop)
}

/// The target of the symbolic link that `fd` names (`O_PATH`): its length in `buffer`.
pub fn readlink(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the empty path is NUL-terminated and the buffer is writable for its whole length.
    check(unsafe { libc::readlinkat(fd.as_raw_fd(), c"".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
        as i64)
}

/// getxattr(2), following symbolic links: the length of the value in `buffer`.
pub fn getxattr(path: &CStr, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: both strings are NUL-terminated and the buffer is writable for its whole length.
    check(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
        as i64)
}

/// setxattr(2), following symbolic links.
pub fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Result<(), Errno> {
    // SAFETY: both strings are NUL-terminated and the value is readable for its whole length.
    check(
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }
            .into(),
    )
    .map(drop)
}

/// listxattr(2), following symbolic links: the length of the names in `buffer`.
pub fn listxattr(path: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the path is NUL-terminated and the buffer is writable for its whole length.
    check(unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
}

/// removexattr(2), following symbolic links.
pub fn removexattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both strings are NUL-terminated.
    check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }.into()).map(drop)
}

/// syncfs(2).
pub fn syncfs(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::syncfs(fd.as_raw_fd()) }.into()).map(drop)
}

/// statfs(2) of the filesystem that holds `fd`, which may be `O_PATH`.
pub fn fstatfs(fd: BorrowedFd<'_>) -> Result<libc::statfs64, Errno> {
    let mut out = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: `out` has room for one structure.
    check(unsafe { libc::fstatfs64(fd.as_raw_fd(), out.as_mut_ptr()) }.into())?;
    // SAFETY: all-zero bytes are a valid structure of integers, and the kernel has written to it.
    Ok(unsafe { out.assume_init() })
}

/// utimensat(2) of `path`, following symbolic links. Times are (seconds, nanoseconds or `UTIME_*`).
pub fn set_times(path: &CStr, times: [(i64, i64); 2]) -> Result<(), Errno> {
    let times = times.map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
    // SAFETY: the path is NUL-terminated and `times` holds two structures.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) }.into()).map(drop)
}

/// renameat2(2).
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), flags: u32) -> Result<(), Errno> {
    // SAFETY: both names are NUL-terminated.
    check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.0.as_raw_fd(),
            from.1.as_ptr(),
            to.0.as_raw_fd(),
            to.1.as_ptr(),
            flags,
        )
    })
    .map(drop)
}
