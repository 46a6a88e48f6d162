//! Servers to test: in a thread, in a thread without openat2, and in a confined process.

use gofer::confine::{Skipped, confine};
use gofer::protocol::NodeId;
use gofer::server::serve_channels;
use gofer::{Client, MountFlags, MountRoot, Server, channel_pair};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::JoinHandle;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Thread,
    WithoutOpenat2,
    Confined,
}

pub const WAYS: [How; 3] = [How::Thread, How::WithoutOpenat2, How::Confined];

enum Running {
    Thread(JoinHandle<abi::Result<()>>),
    Process(Pid),
    Ended,
}

pub struct Serving {
    client: Option<Client>,
    server: Running,
}

impl Serving {
    pub fn start(how: How, mounts: Vec<MountRoot>) -> Serving {
        let (client, end) = channel_pair().unwrap();
        use Running::{Process, Thread};
        let server = match how {
            How::Confined => Process(child(move || {
                let all = nix::unistd::geteuid().is_root();
                serve_confined(end, mounts, |skipped| assert!(!all || skipped.is_empty(), "{skipped:?}"));
            })),
            _ => Thread(std::thread::spawn(move || {
                let mut server = Server::new(mounts)?;
                if how == How::WithoutOpenat2 {
                    server.without_openat2();
                }
                serve_channels(vec![end], server)
            })),
        };
        Serving { client: Some(Client::new(client)), server }
    }

    /// One mount of a directory, and its root.
    pub fn directory(how: How, path: &Path, flags: MountFlags) -> (Serving, NodeId) {
        let serving = Serving::start(how, vec![mount(path, flags)]);
        let top = serving.client().attach(0).unwrap().node;
        (serving, top)
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// How many descriptors a server in a process of its own has.
    pub fn descriptors(&self) -> usize {
        let Running::Process(pid) = self.server else { panic!("a thread") };
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    /// Ends the connection and waits for the server, which must end well.
    pub fn finish(mut self) {
        drop(self.client.take());
        match std::mem::replace(&mut self.server, Running::Ended) {
            Running::Thread(thread) => thread.join().unwrap().unwrap(),
            Running::Process(pid) => expect_success(pid),
            Running::Ended => {}
        }
    }

    /// Kills the server process.
    pub fn kill(&mut self) {
        if let Running::Process(pid) = std::mem::replace(&mut self.server, Running::Ended) {
            kill(pid, Signal::SIGKILL).unwrap();
            waitpid(pid, None).unwrap();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn mount(path: &Path, flags: MountFlags) -> MountRoot {
    MountRoot { fd: File::open(path).unwrap().into(), flags }
}

/// In a child: confines it, calls `ready` with what was skipped, and serves.
pub fn serve_confined(end: OwnedFd, mounts: Vec<MountRoot>, ready: impl FnOnce(&[Skipped])) {
    let channels = vec![end];
    let confined = confine(&channels, mounts, &[]).unwrap();
    ready(&confined.skipped);
    serve_channels(channels, confined.server).unwrap();
}

/// Runs `run` in a child process, which exits with 0 unless it panics.
pub fn child(run: impl FnOnce()) -> Pid {
    // SAFETY: the child has this thread only. It allocates, which glibc allows after fork, uses no lock that another
    // thread could have held, and ends without unwinding into the test's frames.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let done = catch_unwind(AssertUnwindSafe(run));
            // SAFETY: no destructor or exit handler of the parent's must run here.
            unsafe { nix::libc::_exit(if done.is_ok() { 0 } else { 101 }) }
        }
    }
}

/// In a child: closes the descriptors above 2 that it has from its parent, but these.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().map(|&fd| fd as u32).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: their owners are in frames that the child never returns to.
            unsafe { nix::libc::syscall(nix::libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

pub fn expect_success(pid: Pid) {
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}

pub fn expect_killed(pid: Pid, by: Signal) {
    let status = waitpid(pid, None).unwrap();
    assert!(matches!(status, WaitStatus::Signaled(_, signal, _) if signal == by), "{status:?}");
}

/// True if the test runs as the superuser; else says that what follows is skipped.
pub fn superuser(what: &str) -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        eprintln!("skipped: {what}: not the superuser");
    }
    is
}

/// Numbers that look random and are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// How many open descriptors this process has.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
