//! Leaving the host's files and rights behind.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::policy::MEMORY_DIRECTORY;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};

/// The user and group that a sentry started by root becomes.
const NOBODY: u32 = 65534;

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// A root user gets no capabilities by execve, ambient ones cannot be raised, and both stay so (securebits.h:
/// NOROOT, KEEP_CAPS_LOCKED, NO_CAP_AMBIENT_RAISE and their locks).
const SECUREBITS: libc::c_ulong = 0b1110_0011;

/// Replaces the root of this mount namespace by an empty, read-only tmpfs.
pub fn enter_empty_root() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("making the mounts private")?;
    // Any directory will do, and this one is there, since it is how the program was executed again.
    let place = "/proc";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), place, Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=555"))
        .context("mounting an empty root")?;
    chdir(place).context("chdir")?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the host's root")?;
    chdir("/").context("chdir")?;
    mount(none, "/", none, flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)
        .context("making the empty root read-only")
}

/// A tmpfs that is mounted nowhere, for files that guests map: under [`MEMORY_DIRECTORY`]. To be made while there are
/// capabilities; anybody who has the descriptor may use it.
pub fn memory_directory() -> Result<OwnedFd> {
    let context = call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as i64, i64::from(FSOPEN_CLOEXEC), 0, 0, 0])
        .context("fsopen(tmpfs)")?;
    for (key, value) in [(c"size", c"0"), (c"nr_inodes", c"0"), (c"mode", c"777")] {
        let (key, value) = (key.as_ptr() as i64, value.as_ptr() as i64);
        call_int(libc::SYS_fsconfig, [context.as_raw_fd().into(), FSCONFIG_SET_STRING, key, value, 0])
            .context("fsconfig(tmpfs)")?;
    }
    call_int(libc::SYS_fsconfig, [context.as_raw_fd().into(), FSCONFIG_CMD_CREATE, 0, 0, 0])
        .context("fsconfig(tmpfs)")?;
    let attributes = (libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV) as i64;
    let mount = call(libc::SYS_fsmount, [context.as_raw_fd().into(), FSMOUNT_CLOEXEC, attributes, 0, 0])
        .context("fsmount(tmpfs)")?;
    // SAFETY: nothing has this number yet: the process starts with a handful of descriptors.
    let rc = unsafe { libc::dup3(mount.as_raw_fd(), MEMORY_DIRECTORY, libc::O_CLOEXEC) };
    Errno::result(rc).context("dup3")?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(MEMORY_DIRECTORY) })
}

const FSOPEN_CLOEXEC: i32 = 1;
const FSMOUNT_CLOEXEC: i64 = 1;
const FSCONFIG_SET_STRING: i64 = 1;
const FSCONFIG_CMD_CREATE: i64 = 6;

/// A system call that the C library has no function for.
pub fn call_int(number: libc::c_long, args: [i64; 5]) -> Result<i64> {
    // SAFETY: the callers pass descriptors, numbers and zero-terminated strings, as the calls want them.
    let rc = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    Ok(Errno::result(rc)?)
}

/// As [`call_int`], of one that makes a descriptor.
pub fn call(number: libc::c_long, args: [i64; 5]) -> Result<OwnedFd> {
    let fd = call_int(number, args)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives up every capability, the identity of root if there is another, and the ways to get them back.
pub fn drop_privileges(become_nobody: bool) -> Result<()> {
    for capability in 0..64 {
        // SAFETY: takes integers.
        let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(rc) {
            Err(Errno::EINVAL) => break,
            result => result.context("dropping the bounding set")?,
        };
    }
    // SAFETY: takes integers.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) };
    Errno::result(rc).context("setting the securebits")?;
    if become_nobody {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).context("setgroups")?;
        setresgid(gid, gid, gid).context("setresgid")?;
        setresuid(uid, uid, uid).context("setresuid")?;
    }
    let header = [CAPABILITY_VERSION, 0];
    let empty = [0u32; 6];
    // SAFETY: version 3 wants a header of two words and two data structures of three words each.
    let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), empty.as_ptr()) };
    Errno::result(rc).context("capset")?;
    prctl::set_no_new_privs().context("no_new_privs")?;
    // A change of user makes a process undumpable; its stubs inherit that, and their memory could not be read then.
    prctl::set_dumpable(true).context("PR_SET_DUMPABLE")?;
    limits()
}

/// No core dumps (a limit of one byte also stops a dump program, which a limit of zero does not), and as many file
/// descriptors as there may be.
fn limits() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 1, 1)
        .or_else(|_| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .context("RLIMIT_CORE")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("RLIMIT_NOFILE")
}
