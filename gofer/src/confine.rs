//! What a `runsc gofer` process does to itself before it serves, so that little is left for whoever takes it over
//! through a hostile sentry.
//!
//! [`confine`] in this order:
//! - raises the limit on open files, keeps limits on file size from killing the process, forbids tracing by others;
//! - replaces each mount root by a detached copy of its mount tree (open_tree(2)), private, nosuid, nodev and, where it
//!   is to be read-only, read-only for the kernel as well. `..` ends at the root of such a copy, and a descriptor
//!   opened read-only below it cannot be upgraded, through no link in any /proc;
//! - leaves the network namespace, if Unix sockets of the host may be connected to: those with an abstract address
//!   belong to the namespace, those with a path do not;
//! - makes an empty detached tmpfs its root directory (a process without CAP_SYS_CHROOT and with no descriptor of
//!   anything outside does not get out of that), and a detached mount of its own /proc/self/fd its working directory,
//!   which [`crate::server`] needs;
//! - closes all descriptors but those it was given; 0, 1 and 2 never become anything that could be written to;
//! - drops all capabilities but those for files that the mounts need;
//! - sets `no_new_privs` and installs a seccomp filter, an allow-list with argument checks ([`policy`]).
//!
//! Not everything is possible everywhere. An ordinary user has no mounts of its own; a root that was opened in another
//! mount namespace than the present one cannot be copied. What was skipped is returned with the reason: the caller
//! knows whether that is acceptable. Closing descriptors, dropping capabilities, `no_new_privs` and the filter are
//! never skipped.
//!
//! Later changes of the host's mounts below a root do not show in its copy (`rprivate`, which is the default of OCI).

pub mod policy;

use crate::host::{self, CapabilitySets};
use crate::server::{MountFlags, MountRoot, Server};
use abi::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

const CAP_CHOWN: u64 = 1 << 0;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_FOWNER: u64 = 1 << 3;
const CAP_FSETID: u64 = 1 << 4;
const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const CAP_SETPCAP: u64 = 1 << 8;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SETFCAP: u64 = 1 << 31;

/// A confined server, ready for [`serve_channels`](crate::server::serve_channels).
pub struct Confined {
    /// Serves the mounts that were given.
    pub server: Server,
    /// The steps that were not possible, and why.
    pub skipped: Vec<Skipped>,
}

/// A step of the confinement that was not possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// What was to be done.
    pub step: &'static str,
    /// Why it could not be done.
    pub error: Errno,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

/// Why a process could not be confined. It may be half confined and must end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    step: &'static str,
    cause: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "confining the gofer: {}: {}", self.step, self.cause)
    }
}

impl std::error::Error for Failure {}

trait Step<T> {
    /// Names the step that failed.
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure { step, cause: error.to_string() })
    }
}

/// Confines the process, which must have one thread only, to serving these mounts on these channels. All other
/// descriptors are closed, but those in `keep`, to which the process may still write (a log, say). Where they have an
/// owner (a `File`, say) that owner must not be dropped any more: it would close what has got the number since.
pub fn confine(
    channels: &[OwnedFd],
    mounts: Vec<MountRoot>,
    keep: &[BorrowedFd<'_>],
) -> Result<Confined, Failure> {
    unshare(CloneFlags::CLONE_THREAD).step("checking that there is one thread")?;
    let flags = mounts.iter().fold(MountFlags::empty(), |all, mount| all | mount.flags);
    let writable = mounts.iter().any(|mount| !mount.flags.contains(MountFlags::READ_ONLY));
    let mut skipped = Vec::new();
    let mut skip = |step, error| skipped.push(Skipped { step, error });

    limits().step("setting limits")?;
    host::lower_dumpable().step("forbidding traces")?;
    let descriptors = open("/proc/self/fd").step("opening /proc/self/fd")?;
    let mounts = mounts.into_iter().map(|mount| isolate(mount, &mut skip)).collect::<Vec<_>>();
    if flags.contains(MountFlags::HOST_UDS)
        && let Err(error) = unshare(CloneFlags::CLONE_NEWNET)
    {
        skip("leaving the network namespace", error.into());
    }
    let descriptors = host::clone_tree(descriptors.as_fd(), c"", false).unwrap_or_else(|error| {
        skip("isolating /proc/self/fd", error);
        descriptors
    });
    let root = match empty_root() {
        Ok(root) => Some(root),
        Err(error) => {
            skip("changing the root directory", error);
            None
        }
    };
    nix::unistd::fchdir(&descriptors).step("changing the working directory")?;

    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend(channels.iter().map(AsRawFd::as_raw_fd));
    kept.extend(mounts.iter().map(|mount| mount.fd.as_raw_fd()));
    occupy_standard(&kept, root.as_ref().unwrap_or(&descriptors)).step("replacing standard descriptors")?;
    // The root and working directories hold what they need themselves.
    drop((descriptors, root));
    close_others(kept).step("closing descriptors")?;

    if let Err(error) = drop_capabilities(flags, writable).step("dropping capabilities")? {
        skip("keeping set-ID transitions from changing capabilities", error);
    }
    nix::sys::prctl::set_no_new_privs().step("setting no_new_privs")?;
    let server = Server::new(mounts).step("preparing the mounts")?;
    let program = policy::compile(&policy::Process {
        channels: &channels.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(),
        writable_descriptors: &keep.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(),
        writable,
        host_uds: flags.contains(MountFlags::HOST_UDS),
        openat2: server.uses_openat2(),
    })
    .step("compiling the system call filter")?;
    seccompiler::apply_filter(&program).step("installing the system call filter")?;
    Ok(Confined { server, skipped })
}

fn limits() -> Result<(), Errno> {
    // Every node that the sentry holds takes a descriptor.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, most, most)?;
    host::ignore_file_size_signal()
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())?)
}

/// A root that is the top of a mount tree of its own, where that is possible.
fn isolate(mount: MountRoot, skip: &mut impl FnMut(&'static str, Errno)) -> MountRoot {
    let MountRoot { fd, flags } = mount;
    let tree = match host::clone_tree(fd.as_fd(), c"", true) {
        Ok(tree) => tree,
        Err(error) => {
            skip("isolating a mount", error);
            return MountRoot { fd, flags };
        }
    };
    let read_only = flags.contains(MountFlags::READ_ONLY);
    if let Err(error) = host::set_mount_attributes(&tree, read_only) {
        skip("restricting a mount", error);
    }
    MountRoot { fd: tree, flags }
}

/// Changes the root directory to an empty one.
fn empty_root() -> Result<OwnedFd, Errno> {
    let root = host::fsmount_empty()?;
    nix::unistd::fchdir(&root)?;
    nix::unistd::chroot(".")?;
    Ok(root)
}

/// Puts a descriptor that can be neither read nor written in the place of those of 0, 1 and 2 that are not kept, so
/// that nothing opened later gets such a number and then, say, the message of a panic.
fn occupy_standard(kept: &[RawFd], with: &OwnedFd) -> Result<(), Errno> {
    if !kept.contains(&0) {
        nix::unistd::dup2_stdin(with)?;
    }
    if !kept.contains(&1) {
        nix::unistd::dup2_stdout(with)?;
    }
    if !kept.contains(&2) {
        nix::unistd::dup2_stderr(with)?;
    }
    Ok(())
}

/// Closes all descriptors above 2 but these.
fn close_others(mut kept: Vec<RawFd>) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd.saturating_add(1));
    }
    close_range(from, u32::MAX)
}

/// Closes the descriptors from `first` to `last`.
fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    match host::close_range(first, last) {
        // Before Linux 5.9. The working directory is that of the descriptors.
        Err(Errno::ENOSYS) => close_listed(".", first, last),
        done => done,
    }
}

/// Closes the descriptors from `first` to `last` that a directory like /proc/self/fd lists.
fn close_listed(directory: &str, first: u32, last: u32) -> Result<(), Errno> {
    let listed: Vec<u32> = std::fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in listed {
        match host::close(fd) {
            // The one that the directory was read through.
            Err(Errno::EBADF) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Keeps the capabilities that the mounts need. The inner result is the error of a step that could be left out.
fn drop_capabilities(flags: MountFlags, writable: bool) -> Result<Result<(), Errno>, Errno> {
    // To find and read everything, and to do so without leaving access times.
    let mut keep = CAP_DAC_READ_SEARCH | CAP_FOWNER;
    if writable {
        keep |= CAP_CHOWN | CAP_DAC_OVERRIDE | CAP_FSETID | CAP_SETUID | CAP_SETGID | CAP_SETFCAP;
    }
    if flags.contains(MountFlags::HOST_UDS) {
        // Connecting needs write permission.
        keep |= CAP_DAC_OVERRIDE;
    }
    if flags.contains(MountFlags::TRUSTED_OVERLAY) {
        keep |= CAP_SYS_ADMIN;
    }
    let had = host::capabilities()?;
    let mut restricted = Ok(());
    if had.effective & CAP_SETPCAP != 0 {
        let bits = libc::SECBIT_NO_SETUID_FIXUP | libc::SECBIT_NO_SETUID_FIXUP_LOCKED;
        restricted = host::secure_bits().and_then(|had| host::set_secure_bits(had | bits));
        host::drop_bounding_set(keep)?;
    } else if had.effective != 0 {
        restricted = Err(Errno::EPERM);
    }
    let left = keep & had.permitted;
    host::set_capabilities(CapabilitySets { effective: left, permitted: left, inheritable: 0 })?;
    Ok(restricted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_closed_one_by_one_where_the_kernel_cannot_do_it_at_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        // High ones, which no other test gets.
        let duplicate = || nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(900)).unwrap();
        let (first, second, third) = (duplicate(), duplicate(), duplicate());
        close_listed("/proc/self/fd", first as u32, second as u32).unwrap();
        let open = |fd: RawFd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        assert_eq!([first, second, third].map(open), [false, false, true]);
        close_listed("/proc/self/fd", third as u32, third as u32).unwrap();
        assert!(!open(third));
    }
}
