//! Host processes: starting a part of the sandbox in namespaces of its own, and telling whether one still lives.
//!
//! The command is single-threaded when it starts one, so the child may use everything a forked process may.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Gid, Pid, Uid, pipe2, read, setsid, write};
use serde::{Deserialize, Serialize};

/// The number that the first donated file descriptor has in the child.
pub const FIRST_FD: RawFd = 3;

/// Who the child is, when it gets a user namespace.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    /// No user namespace: the caller's own rights.
    Inherited,
    /// A user namespace that knows only the caller, as its root.
    Single,
    /// A user namespace that knows the host's root and nobody, under their own numbers.
    RootAndNobody,
}

/// What to start: this program again, with another verb.
pub struct Spawn<'a> {
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Namespaces to make, without the user namespace.
    pub namespaces: CloneFlags,
    /// The child's user namespace.
    pub identity: Identity,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Further file descriptors: numbers 3, 4, … in the child, which gets no others.
    pub fds: Vec<BorrowedFd<'a>>,
    /// Make standard input the controlling terminal of the child's new session.
    pub controlling_terminal: bool,
    /// The network namespace that the child starts in, instead of the caller's.
    pub network: Option<BorrowedFd<'a>>,
    /// Where its limits hold.
    pub place: &'a Place,
    /// What the caller does about the child before that executes anything. It is told what the child has entered of
    /// the place.
    pub prepare: &'a dyn Fn(Pid, &Entered) -> Result<()>,
}

/// Cgroups that a child enters by itself, before it does anything else. (To be moved by another process costs a grace
/// period of the host's kernel, some ten milliseconds: it waits until no thread of the host is about to fork or exit.
/// Who is made in a group, or moves its only thread, waits for nobody.)
#[derive(Debug, Default)]
pub struct Place {
    /// The directory of a group of cgroup2, and its name.
    pub unified: Option<(String, OwnedFd)>,
    /// Files `tasks` of version 1, open for writing, and the names of their hierarchies.
    pub tasks: Vec<(String, OwnedFd)>,
}

/// Names of what a child has entered.
pub type Entered = Vec<String>;

/// A process that was started, or found again by its state file.
#[derive(Debug)]
pub struct Child {
    /// In the caller's pid namespace.
    pub pid: Pid,
    /// Refers to exactly this process.
    pub pidfd: OwnedFd,
}

impl Spawn<'_> {
    /// Starts it. When this returns, the child has executed the program again, in its own session, with default
    /// signal dispositions and an empty environment.
    pub fn start(&self) -> Result<Child> {
        let args: Vec<CString> =
            self.args.iter().map(|arg| CString::new(arg.as_str())).collect::<std::result::Result<_, _>>()?;
        let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC)?;
        let (failed_read, failed_write) = pipe2(OFlag::O_CLOEXEC)?;
        let mut flags = self.namespaces;
        if !matches!(self.identity, Identity::Inherited) {
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        let cloned = in_network(self.network, || {
            fork_into(flags, self.place).with_context(|| format!("clone({flags:?})"))
        })?;
        let Some((child, entered)) = cloned else {
            drop((go_write, failed_read));
            self.child(&args, go_read, failed_write);
        };
        drop((go_read, failed_write));
        let result = self
            .map_ids(child.pid)
            .and_then(|()| (self.prepare)(child.pid, &entered))
            .and_then(|()| Ok(write(&go_write, b"g")?))
            .and_then(|_| exec_outcome(&failed_read));
        if let Err(error) = result {
            drop(go_write);
            kill_and_reap(&child);
            return Err(error);
        }
        Ok(child)
    }

    /// Fills the maps of the child's user namespace.
    fn map_ids(&self, pid: Pid) -> Result<()> {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let file = |name: &str, text: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::write(&path, text).with_context(|| format!("writing {text:?} to {path}"))
        };
        match self.identity {
            Identity::Inherited => Ok(()),
            Identity::Single => {
                file("setgroups", "deny")?;
                file("uid_map", &format!("0 {uid} 1\n"))?;
                file("gid_map", &format!("0 {gid} 1\n"))
            }
            Identity::RootAndNobody => {
                file("uid_map", "0 0 1\n65534 65534 1\n")?;
                file("gid_map", "0 0 1\n65534 65534 1\n")
            }
        }
    }

    fn child(&self, args: &[CString], go: OwnedFd, failed: OwnedFd) -> ! {
        // The donated fds get fixed low numbers: nothing that is still needed may sit there.
        let above = FIRST_FD + self.fds.len() as RawFd;
        let failed = park(failed.as_fd(), above).unwrap_or(failed);
        let (stage, errno) = match self.try_exec(args, go, above) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let _ = write(&failed, format!("{stage}\0{}", errno as i32).as_bytes());
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(127) }
    }

    fn try_exec(
        &self,
        args: &[CString],
        go: OwnedFd,
        above: RawFd,
    ) -> std::result::Result<std::convert::Infallible, (&'static str, Errno)> {
        let step = |stage: &'static str| move |errno: Errno| (stage, errno);
        // The parent writes one byte when the user namespace has its maps; end of file means that it gave up.
        match read(&go, &mut [0u8; 1]) {
            Ok(1) => {}
            Ok(_) => return Err(("waiting for the id maps", Errno::ECANCELED)),
            Err(errno) => return Err(("waiting for the id maps", errno)),
        }
        drop(go);
        let parked = self
            .stdio
            .iter()
            .chain(&self.fds)
            .map(|fd| park(*fd, above))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(step("fcntl(F_DUPFD)"))?;
        for (target, fd) in parked.iter().enumerate() {
            // SAFETY: `target` is a number this process is done with: every fd still needed was parked above it.
            let rc = unsafe { libc::dup2(fd.as_raw_fd(), target as RawFd) };
            Errno::result(rc).map_err(step("dup2"))?;
        }
        // SAFETY: only sets a flag on this process's own descriptors.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                above as libc::c_uint,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        Errno::result(rc).map_err(step("close_range"))?;
        setsid().map_err(step("setsid"))?;
        if self.controlling_terminal {
            // SAFETY: TIOCSCTTY takes an integer.
            let rc = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            Errno::result(rc).map_err(step("ioctl(TIOCSCTTY)"))?;
        }
        default_signals();
        let _ = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let environment: [CString; 0] = [];
        nix::unistd::execve(c"/proc/self/exe", args, &environment).map_err(step("execve(/proc/self/exe)"))
    }
}

/// Whether this process's user namespace knows nobody, so that a sentry can become it.
pub fn knows_nobody() -> bool {
    let covers = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        let first = numbers.next().unwrap_or(0);
        let count = numbers.nth(1).unwrap_or(0);
        (first..first.saturating_add(count)).contains(&65534)
    };
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .iter()
        .all(|path| std::fs::read_to_string(path).is_ok_and(|map| map.lines().any(covers)))
}

/// Does `work`, which may make a child, in another network namespace. (The child cannot enter it by itself, if it starts
/// in a user namespace of its own.)
fn in_network<T>(
    network: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let Some(network) = network else { return work() };
    let own = std::fs::File::open("/proc/self/ns/net").context("/proc/self/ns/net")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
    let result = work();
    if !matches!(result, Ok(None)) {
        setns(&own, CloneFlags::CLONE_NEWNET).context("leaving the network namespace")?;
    }
    result
}

/// Of what type a namespace is: `CLONE_NEW*`.
pub fn namespace_type(file: &std::fs::File) -> nix::Result<CloneFlags> {
    /// ioctl_nsfs(2).
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(rc).map(CloneFlags::from_bits_retain)
}

/// Whether this process's root is not the host's.
pub fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let numbers: Vec<&str> = map.split_whitespace().collect();
        numbers != ["0", "0", "4294967295"]
    })
}

/// Makes a terminal the controlling one of this process's session, which must be new.
pub fn take_terminal(terminal: &OwnedFd) {
    // SAFETY: TIOCSCTTY takes an integer.
    let _ = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
}

/// Lets go of the caller's standard files: it waits for their end.
pub fn leave_stdio() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    let _ = nix::unistd::dup2_stdin(&null);
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
}

/// In a process that was forked to do one thing: closes all file descriptors but the standard files and these.
///
/// # Safety
/// Nothing that owns one of the others may be used, or dropped, any more.
pub unsafe fn close_all_but<'a>(keep: impl Iterator<Item = BorrowedFd<'a>>) {
    let mut keep: Vec<RawFd> = keep.map(|fd| fd.as_raw_fd()).collect();
    keep.sort_unstable();
    let mut from = FIRST_FD;
    for fd in keep.into_iter().map(Some).chain([None]) {
        let to = fd.map_or(libc::c_uint::MAX, |fd| fd as libc::c_uint - 1);
        if from as libc::c_uint <= to {
            // SAFETY: the caller promises that nobody uses what is closed.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, from as libc::c_uint, to, 0) };
        }
        from = fd.map_or(from, |fd| fd + 1);
    }
}

/// Goes on in a child process. None in the child.
pub fn fork() -> Result<Option<Child>> {
    Ok(fork_into(CloneFlags::empty(), &Place::default())?.map(|(child, _)| child))
}

/// fork(2) with namespace flags into cgroups, with a pidfd. None in the child.
pub fn fork_into(flags: CloneFlags, place: &Place) -> Result<Option<(Child, Entered)>> {
    let pipe = if place.tasks.is_empty() { None } else { Some(pipe2(OFlag::O_CLOEXEC)?) };
    let mut entered = Entered::new();
    let into = place.unified.as_ref();
    let cloned = match clone_process(flags, into.map(|(_, fd)| fd.as_fd())) {
        // Groups whose rules do not allow it, or a kernel that cannot do it, are for the caller to deal with.
        Err(_) if into.is_some() => clone_process(flags, None)?,
        cloned => {
            entered.extend(into.map(|(name, _)| name.clone()));
            cloned?
        }
    };
    let Some(child) = cloned else {
        let results: Vec<u8> = place.tasks.iter().map(|(_, file)| write(file, b"0").is_ok().into()).collect();
        if let Some((_, told)) = pipe {
            let _ = write(&told, &results);
        }
        return Ok(None);
    };
    if let Some((told, own_end)) = pipe {
        drop(own_end);
        let mut results = vec![0; place.tasks.len()];
        // A child that says nothing is gone, which is noticed elsewhere.
        let _ = std::io::Read::read_exact(&mut std::fs::File::from(told), &mut results);
        let names = place.tasks.iter().map(|(name, _)| name.clone());
        entered.extend(names.zip(results).filter_map(|(name, result)| (result == 1).then_some(name)));
    }
    Ok(Some((child, entered)))
}

/// Of clone3(2); the C library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) with a pidfd, into a group of cgroup2. None in the child.
fn clone_process(flags: CloneFlags, into: Option<BorrowedFd<'_>>) -> Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags.bits() as u32 as u64) | libc::CLONE_PIDFD as u64;
    if let Some(group) = into {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and without a stack this is fork(2); the process has one thread, so no lock is left
    // held in the child. The kernel writes the pidfd to `pidfd`, which outlives the call.
    let rc = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match Errno::result(rc)? {
        0 => Ok(None),
        pid => Ok(Some(Child {
            pid: Pid::from_raw(pid as i32),
            // SAFETY: the kernel made it for us, and nobody else knows it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
    }
}

/// A close-on-exec duplicate with a number of at least `least`.
fn park(fd: BorrowedFd<'_>, least: RawFd) -> nix::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: just made by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// What execve leaves of the caller's signal state is the mask and what is ignored: undo both.
pub fn default_signals() {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action runs no code of ours.
            let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
        }
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Reads what a child says when it could not execute; nothing means that it did.
fn exec_outcome(failed: &OwnedFd) -> Result<()> {
    let mut text = [0u8; 256];
    let n = loop {
        match read(failed, &mut text) {
            Err(Errno::EINTR) => continue,
            other => break other?,
        }
    };
    if n == 0 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(text.get(..n).unwrap_or_default()).into_owned();
    let (stage, errno) = text.split_once('\0').unwrap_or((&text, "0"));
    let errno = Errno::from_raw(errno.parse().unwrap_or(0));
    Err(errno).context(stage.to_owned())
}

/// Ends a child of ours for good.
pub fn kill_and_reap(child: &Child) {
    let _ = signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = nix::sys::wait::waitpid(child.pid, None);
}

/// pidfd_send_signal(2).
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signo: i32) -> nix::Result<()> {
    // SAFETY: the siginfo pointer may be null.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signo,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(rc).map(drop)
}

/// A process as a state file names it: a pid alone may belong to somebody else by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// In the host's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since the host's boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// Names a running process.
    pub fn of(pid: Pid) -> Result<ProcessId> {
        let (start_time, _) = stat(pid.as_raw())?.ok_or_else(|| anyhow!("process {pid} is gone"))?;
        Ok(ProcessId { pid: pid.as_raw(), start_time })
    }

    /// Whether it runs (a zombie does not).
    pub fn alive(&self) -> bool {
        matches!(stat(self.pid), Ok(Some((start, state))) if start == self.start_time && state != 'Z' && state != 'X')
    }

    /// A pidfd, if it still runs.
    pub fn open(&self) -> Option<OwnedFd> {
        // SAFETY: takes and returns integers; the result is a new descriptor.
        let fd = unsafe {
            let rc = libc::syscall(libc::SYS_pidfd_open, self.pid, 0);
            (rc >= 0).then(|| OwnedFd::from_raw_fd(rc as RawFd))
        };
        // The start time is checked after the pidfd was made, so both speak of the same process.
        fd.filter(|_| self.alive())
    }

    /// Sends SIGKILL and waits until it is gone (or a zombie of somebody else's).
    pub fn kill(&self, timeout: Duration) -> Result<()> {
        let Some(pidfd) = self.open() else {
            return Ok(());
        };
        match signal_pidfd(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("killing process {}", self.pid)),
        }
        if !wait_readable(pidfd.as_fd(), Some(timeout))? {
            bail!("process {} is still there {} s after SIGKILL", self.pid, timeout.as_secs());
        }
        Ok(())
    }
}

/// Waits until `fd` can be read or is hung up; for a pidfd, until the process has ended. False on a timeout.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = timeout
        .map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => continue,
            result => return Ok(result.context("poll")? > 0),
        }
    }
}

/// Start time and state letter of a process; None if there is none.
fn stat(pid: i32) -> Result<Option<(u64, char)>> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    // The name in parentheses may hold anything, so count from behind it: state is field 3, start time 22.
    let fields: Vec<&str> =
        text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    match (
        fields.first().and_then(|state| state.chars().next()),
        fields.get(19).and_then(|start| start.parse().ok()),
    ) {
        (Some(state), Some(start)) => Ok(Some((start, state))),
        _ => bail!("unexpected contents of {}", path.display()),
    }
}

/// Takes over a file descriptor that the parent donated under this number.
///
/// # Safety
/// Nobody else in this process may own the number. Called once for each number while the process starts.
pub unsafe fn adopt(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_GETFD on any number is harmless; the caller promises that the number is ours.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .with_context(|| format!("file descriptor {number} was not donated"))?;
    // SAFETY: it is open, and the caller promises that nobody owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let me = ProcessId::of(Pid::this()).unwrap();
        assert!(me.alive());
        let other = ProcessId { start_time: me.start_time + 1, ..me };
        assert!(!other.alive());
        assert!(other.open().is_none());
        other.kill(Duration::from_secs(1)).unwrap();
    }
}
