//! What a process does to itself before it serves: mounts of its own, capabilities, secure bits.

use super::{check, new_descriptor};
use abi::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// `struct mount_attr` with only bits to set.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const OPEN_TREE_CLONE: u32 = 1;
const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// A detached copy of the mount tree at `path`, relative to `dir`; the empty path is `dir` itself.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: the path is NUL-terminated.
    new_descriptor(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Makes all mounts of a detached tree private, nosuid, nodev and, if asked for, read-only.
pub fn set_mount_attributes(tree: &OwnedFd, read_only: bool) -> Result<(), Errno> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | if read_only { MOUNT_ATTR_RDONLY } else { 0 },
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: 0,
    };
    // SAFETY: the path is NUL-terminated; `attributes` has the layout and size of struct mount_attr.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    check(done).map(drop)
}

/// A new detached tmpfs with nothing in it, read-only.
pub fn fsmount_empty() -> Result<OwnedFd, Errno> {
    // SAFETY: the name is NUL-terminated.
    let context =
        new_descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    })?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // SAFETY: no memory is involved.
    new_descriptor(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
    })
}

/// Closes all descriptors from `first` to `last`, both included.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the caller has no owner of any of these descriptors (see `confine::close_others`).
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes one descriptor.
pub fn close(fd: u32) -> Result<(), Errno> {
    // SAFETY: as for `close_range`.
    check(unsafe { libc::close(fd as libc::c_int) }.into()).map(drop)
}

/// Keeps a write beyond RLIMIT_FSIZE from killing the process: it is EFBIG.
pub fn ignore_file_size_signal() -> Result<(), Errno> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

/// Keeps others of the same user from tracing the process and from reading its memory.
pub fn lower_dumpable() -> Result<(), Errno> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// The secure bits of the calling thread (`SECBIT_*`).
pub fn secure_bits() -> Result<i32, Errno> {
    // SAFETY: no memory is involved.
    Ok(check(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }.into())? as i32)
}

/// Sets the secure bits of the calling thread; needs CAP_SETPCAP.
pub fn set_secure_bits(bits: i32) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits) }.into()).map(drop)
}

/// Removes all capabilities from the bounding set that are not in `keep`; needs CAP_SETPCAP.
pub fn drop_bounding_set(keep: u64) -> Result<(), Errno> {
    for capability in (0..64).filter(|bit| keep & (1 << bit) == 0) {
        // SAFETY: no memory is involved.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
            // The number after the last capability that this kernel knows.
            Err(Errno::EINVAL) => break,
            done => done?,
        };
    }
    Ok(())
}

/// Capabilities of a thread, bit `n` for capability `n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapabilitySets {
    /// Those in force.
    pub effective: u64,
    /// Those that may be put in force.
    pub permitted: u64,
    /// Those that an exec may keep.
    pub inheritable: u64,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// The capabilities of the calling thread.
pub fn capabilities() -> Result<CapabilitySets, Errno> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut words = [0u32; 6];
    // SAFETY: version 3 writes two structures of three 32-bit numbers each.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    let [effective, permitted, inheritable, effective_high, permitted_high, inheritable_high] =
        words.map(u64::from);
    Ok(CapabilitySets {
        effective: effective_high << 32 | effective,
        permitted: permitted_high << 32 | permitted,
        inheritable: inheritable_high << 32 | inheritable,
    })
}

/// Sets the capabilities of the calling thread, and empties its ambient set.
pub fn set_capabilities(sets: CapabilitySets) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let CapabilitySets { effective, permitted, inheritable } = sets;
    let words = [effective, permitted, inheritable, effective >> 32, permitted >> 32, inheritable >> 32]
        .map(|set| set as u32);
    // SAFETY: version 3 reads two structures of three 32-bit numbers each.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) }).map(drop)
}
