//! Running the cases, and a small guest to run them on.

use crate::{AddressSpace, Change, Context, Exit, Fault, PAGE_SIZE, Platform, Prot, Resume, Thread};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a case ended, if it did not panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// This machine lacks what the case needs.
    Skipped(String),
}

/// Where a guest's code is (read, execute).
pub const CODE: u64 = 0x40_0000;
/// Where a guest's data is (read, write), [`DATA_PAGES`] pages.
pub const DATA: u64 = 0x80_0000;
/// Pages of data.
pub const DATA_PAGES: u64 = 16;
/// Where the stack ends.
pub const STACK: u64 = DATA + DATA_PAGES * PAGE_SIZE;

/// An address space with code, data and one thread.
pub struct Guest {
    /// Its memory.
    pub space: Arc<dyn AddressSpace>,
    /// Its thread, at the start of the code.
    pub thread: Box<dyn Thread>,
}

/// Maps [`CODE`] with `code`, and [`DATA`].
pub fn load(space: &dyn AddressSpace, code: &[u8]) {
    let len = (code.len() as u64).next_multiple_of(PAGE_SIZE);
    let rw = Prot::READ | Prot::WRITE;
    space
        .apply(
            None,
            &[
                Change::MapAnonymous { addr: CODE, len, prot: rw },
                Change::MapAnonymous { addr: DATA, len: DATA_PAGES * PAGE_SIZE, prot: rw },
            ],
        )
        .expect("mapping code and data");
    assert_eq!(space.write(CODE, code), Ok(code.len()));
    space
        .apply(None, &[Change::Protect { addr: CODE, len, prot: Prot::READ | Prot::EXEC }])
        .expect("protecting the code");
}

/// A context at `ip` with a stack.
pub fn start(ip: u64) -> Context {
    let mut context = Context::default();
    context.regs.rip = ip;
    context.regs.rsp = STACK - 64;
    context.regs.eflags = 0x202;
    context
}

impl Guest {
    /// A new guest that will run `code`.
    pub fn new(platform: &dyn Platform, code: &[u8]) -> Guest {
        let space = platform.new_address_space().expect("a new address space");
        load(&*space, code);
        let thread = space.clone().new_thread(&start(CODE)).expect("a new thread");
        Guest { space, thread }
    }

    /// Goes on with the context.
    pub fn go(&mut self) -> Exit {
        self.thread.run(Resume::Context)
    }

    /// Ends the system call.
    pub fn result(&mut self, value: u64) -> Exit {
        self.thread.run(Resume::Result(value))
    }

    /// The context; panics if the thread is dead.
    pub fn context(&mut self) -> &mut Context {
        self.thread.context().expect("the context of a living thread")
    }
}

/// The number and arguments of a system call; panics on another exit.
#[track_caller]
pub fn syscall(exit: Exit) -> (u64, [u64; 6]) {
    match exit {
        Exit::Syscall { number, args, .. } => (number, args),
        other => panic!("expected a system call, got {other:x?}"),
    }
}

/// The fault; panics on another exit.
#[track_caller]
pub fn fault(exit: Exit) -> Fault {
    match exit {
        Exit::Fault(fault) => fault,
        other => panic!("expected a fault, got {other:x?}"),
    }
}

/// Host process ids of this process's children, which with the host-process platforms are the stubs, oldest first. Empty
/// with others.
pub fn stub_pids() -> Vec<i32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    pids
}

/// Longest a case may take: far more than any needs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the cases whose names contain one of the arguments (all without arguments), each in a forked child. Understands
/// `--list`, `--exact` and `--nocapture` as far as cargo needs them. Exits with 1 if one failed.
pub fn main(make: fn() -> Result<Box<dyn Platform>, String>) {
    let mut patterns = Vec::new();
    let (mut list, mut exact) = (false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--list" => list = true,
            "--exact" => exact = true,
            other if other.starts_with('-') => {}
            _ => patterns.push(arg),
        }
    }
    let wanted =
        |name: &str| patterns.iter().any(|p| if exact { name == p } else { name.contains(p.as_str()) });
    let cases: Vec<_> =
        super::all().into_iter().filter(|(name, _)| patterns.is_empty() || wanted(name)).collect();
    if list {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    println!("\nrunning {} cases", cases.len());
    let (mut failed, mut skipped) = (Vec::new(), 0);
    for (name, case) in &cases {
        print!("case {name} ... ");
        let _ = std::io::stdout().flush();
        match in_child(make, *case) {
            Ok(Outcome::Passed) => println!("ok"),
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                println!("skipped: {why}");
            }
            Err(why) => {
                println!("FAILED: {why}");
                failed.push(*name);
            }
        }
    }
    let passed = cases.len() - failed.len() - skipped;
    println!("\nresult: {passed} passed, {} failed {failed:?}, {skipped} skipped\n", failed.len());
    if !failed.is_empty() {
        std::process::exit(1);
    }
}

fn in_child(
    make: fn() -> Result<Box<dyn Platform>, String>,
    case: fn(&dyn Platform) -> Outcome,
) -> Result<Outcome, String> {
    let (mut reader, mut writer) = std::io::pipe().map_err(|e| e.to_string())?;
    // SAFETY: the harness has one thread.
    let pid = match unsafe { nix::unistd::fork() }.map_err(|e| e.to_string())? {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(|| match make() {
                Ok(platform) => {
                    let outcome = case(&*platform);
                    drop(platform);
                    // Nothing may be left behind; the reaping takes a moment, for ever is a hang.
                    while !stub_pids().is_empty() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    outcome
                }
                Err(e) => panic!("no platform: {e}"),
            }));
            let code = match outcome {
                Ok(Outcome::Passed) => 0,
                Ok(Outcome::Skipped(why)) => {
                    let _ = writer.write_all(why.as_bytes());
                    2
                }
                Err(_) => 1,
            };
            std::process::exit(code);
        }
    };
    drop(writer);
    let began = Instant::now();
    let status = loop {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if began.elapsed() > TIMEOUT => {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                let _ = waitpid(pid, None);
                return Err(format!("hung for {} s", TIMEOUT.as_secs()));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(2)),
            Ok(status) => break status,
            Err(e) => return Err(e.to_string()),
        }
    };
    match status {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(Outcome::Passed),
        nix::sys::wait::WaitStatus::Exited(_, 2) => {
            let mut why = String::new();
            let _ = std::io::Read::read_to_string(&mut reader, &mut why);
            Ok(Outcome::Skipped(why))
        }
        other => Err(format!("{other:?}")),
    }
}
