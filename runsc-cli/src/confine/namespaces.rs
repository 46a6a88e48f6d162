//! Leaving the host's files and rights behind.

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
