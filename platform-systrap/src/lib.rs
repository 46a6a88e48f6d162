//! The default platform: system calls are caught by seccomp, without ptrace.
//!
//! A guest thread is a thread of a stub process with a seccomp filter and a listener of its own (seccomp_unotify(2)).
//! Its sentry thread waits in the listener. By number a call goes one of two ways:
//!
//! - *Notified*: the stub thread sleeps in the call, the sentry thread gets number and arguments, and answers with the
//!   result. Two ioctls a call; registers stay in the kernel. If somebody asks for them, the thread is *kicked*: a
//!   signal interrupts the call, and the handler's frame holds them. (A patched call is asked instead: see
//!   `arch/x86_64/request.rs`.)
//! - *Trapped*: for the calls that always need the registers, or end the guest thread, the filter raises SIGSYS, and the
//!   handler tells the sentry by the *doorbell*, a call from the stub's text that the listener gets. Measured, this costs about 60 % of a
//!   notification with a kick.
//!
//! Exceptions and kicks ring the same doorbell. While a thread is in the doorbell, the frame in the pages that it shares
//! with the sentry is its state: the sentry edits it, and the handler returns to it by rt_sigreturn.
//!
//! **Trust.** All of this runs in the guest's address space and can be captured by the guest: the filter only routes, and
//! the base filter of [`platform::stub`] lets nothing through that matters. Notifications come from the kernel, frames
//! from shared memory: the sentry reads a frame once, at offsets of its own, and cleans it. What cannot be is answered by
//! killing the stub process. A thread that blocks the kick is found by the [`monitor`].
//!
//! **Exactly once.** A call is reported once and carried out once. See [`link`] for the one way in which the kernel loses
//! a reply, and how it is avoided for our own signals; for signals from elsewhere the frame tells what happened. What
//! remains: if a stub is stopped from outside (SIGSTOP, the freezer, a suspend) in the some 100 ns in which a thread that
//! was woken for that has not yet noticed a reply, the kernel restarts a call that had been answered. It cannot be told
//! from a guest that makes the same call again. Hence pausing is done by the sentry. (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
//! would rule it out at the same speed; but then a guest that blocks in a call, which may be for days, could not be
//! frozen, and the host not suspended.)

//! **Measured** (`examples/roundtrip.rs`, Linux 6.18, a nested 2-core VM where a native getppid takes 180 ns, busy with other
//! work; pinned to one core or not makes no difference): notified call 5.6 µs, the same protocol in C 5.3 µs; with its
//! context 16 µs; trapped call with or without context 10.5 µs; mmap by the service thread 13 µs; making and dropping a
//! thread 130 µs. On hosts without synchronous wakes an idle second core makes a call two to ten times as slow.

mod ahead;
mod arch;
mod carrier;
mod link;
mod look;
mod monitor;
mod notify;
mod pages;
mod patch;
mod protocol;
mod space;
mod stub_thread;
mod thread;
mod turns;

use ahead::Ahead;
use arch::{frame::Geometry, stub};
use link::KICK;
use look::Load;
use monitor::Monitor;
use patch::Patches;
use platform::stub::filter::{Check, Rule};
use platform::stub::{Handler, Options, StubProcess, Template, TemplateError};
use platform::{AddressSpace, Change, Context, Errno, Exit, Platform, Prot, Report, Resume};
use space::Space;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use thread::Guest;

/// The number of the doorbell: no call of Linux, only heeded when it comes from the stub's text.
pub(crate) const DOORBELL: u32 = 0x3fff_fff0;

/// What all address spaces share.
pub(crate) struct Host {
    template: Template,
    geometry: Geometry,
    monitor: Arc<Monitor>,
    load: Load,
    /// Of threads that are gone.
    spare: Arc<pages::Spare>,
    /// Call sites are rewritten.
    patching: bool,
}

/// The platform.
pub struct SystrapPlatform {
    ahead: Ahead,
    host: Arc<Host>,
    report: Report,
}

/// Why systrap does not work here.
#[derive(Debug)]
pub enum Error {
    /// The kernel or the processor lacks something.
    Missing(&'static str),
    /// The first stub process could not be made.
    Template(TemplateError),
    /// A trial run failed.
    Trial(&'static str, Errno),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Missing(what) => write!(f, "systrap: this host has no {what}"),
            Error::Template(error) => write!(f, "systrap: {error}"),
            Error::Trial(step, errno) => write!(f, "systrap: trial run: {step}: {errno}"),
        }
    }
}

impl std::error::Error for Error {}

/// Linux's release as (major, minor).
fn release() -> (u32, u32) {
    let name = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let mut numbers = name.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel knows a filter action (SECCOMP_GET_ACTION_AVAIL).
fn has_action(action: u32) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0 }
}

/// Whether the kernel can let only fatal signals end a call that was received (5.19). Not used: see the crate's
/// documentation.
fn has_killable_wait() -> bool {
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV;
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: without a program there is nothing to install; EFAULT comes after the check of the flags.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    result == -1 && nix::errno::Errno::last() == nix::errno::Errno::EFAULT
}

/// Whether the structures of the listener have the sizes that we know.
fn has_known_sizes() -> bool {
    let mut sizes = [0u16; 3];
    // SAFETY: the kernel writes three numbers (struct seccomp_notif_sizes).
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, sizes.as_mut_ptr()) };
    result == 0 && sizes == [80, 24, 64]
}

impl SystrapPlatform {
    /// Makes the platform, and runs a guest of a few instructions to prove that it works. The conditions are those of
    /// [`Template::new`].
    ///
    /// `patching`: call sites are rewritten, where the processor allows it.
    pub fn new(patching: bool) -> Result<Self, Error> {
        let geometry = Geometry::new().ok_or(Error::Missing("XSAVE"))?;
        if !arch::has_fsgsbase() {
            return Err(Error::Missing("FSGSBASE in user mode (Linux 5.9)"));
        }
        if !has_action(libc::SECCOMP_RET_USER_NOTIF) || !has_action(libc::SECCOMP_RET_TRAP) {
            return Err(Error::Missing("seccomp user notification (Linux 5.0, CONFIG_SECCOMP_FILTER)"));
        }
        if !has_known_sizes() {
            return Err(Error::Missing("seccomp notification of a known size"));
        }
        // What needs no stub comes first: afterwards there is something to clean up.
        let release = release();
        let wakes_readers = release >= (6, 11);
        let monitor = Monitor::new(!wakes_readers).map_err(|errno| Error::Trial("timer", errno))?;
        let text = stub::text();
        let handlers = (1..=64)
            .map(|signal| match signal {
                libc::SIGSEGV
                | libc::SIGBUS
                | libc::SIGFPE
                | libc::SIGILL
                | libc::SIGTRAP
                | libc::SIGSYS
                | KICK => Handler {
                    signal,
                    addr: stub::HANDLER,
                    flags: (libc::SA_ONSTACK | libc::SA_RESTART) as u64,
                    mask: u64::MAX,
                },
                // From somebody on the host, and none of the guest's business. SIGKILL works.
                _ => Handler { signal, addr: libc::SIG_IGN as u64, flags: 0, mask: 0 },
            })
            .collect();
        let options = Options {
            extra_text: &text,
            extra_rules: vec![
                Rule::any(libc::SYS_seccomp)
                    .check(Check::Equal(0, u64::from(libc::SECCOMP_SET_MODE_FILTER)))
                    .check(Check::Equal(1, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))
                    .check(Check::Equal(2, stub::PROGRAM)),
            ],
            handlers,
            ..Options::default()
        };
        let template = Template::new(&options).map_err(Error::Template)?;
        let patching = patching && arch::patched::is_possible();
        let host = Arc::new(Host {
            template,
            geometry,
            monitor,
            load: Load::new(),
            spare: Arc::default(),
            patching,
        });
        let sync = trial(&host)?;
        let yes = |there: bool| String::from(if there { "yes" } else { "no" });
        let feature = |name: &str, value: String| (name.to_string(), value);
        let report = Report {
            features: vec![
                feature("kernel", format!("{}.{}", release.0, release.1)),
                feature("synchronous wake-up (6.6)", yes(sync)),
                feature("listeners report dead threads (6.11)", yes(wakes_readers)),
                feature("killable wait (5.19, not used)", yes(has_killable_wait())),
                feature("FSGSBASE", yes(true)),
                feature("patched call sites (BMI2)", yes(patching)),
                feature("processors", host.load.processors().to_string()),
                feature("signal frame", format!("{} bytes", host.geometry.size)),
                feature("AMX frames", yes(host.geometry.shapes.len() > 1)),
            ],
        };
        let forked = host.clone();
        let ahead = Ahead::new(host.clone(), Box::new(move || forked.template.process().cloned()));
        Ok(Self { ahead, host, report })
    }
}

/// Runs a guest that makes one call of each class and then faults. Says whether wakes are synchronous.
fn trial(host: &Arc<Host>) -> Result<bool, Error> {
    let step = |name: &'static str| move |errno: Errno| Error::Trial(name, errno);
    let space = Arc::new(
        host.template
            .process()
            .and_then(|process| Space::new(host.clone(), process, Patches::default()))
            .map_err(step("making a stub process"))?,
    );
    let code = 0x1_0000;
    let prot = Prot::all();
    space
        .apply(None, &[Change::MapAnonymous { addr: code, len: platform::PAGE_SIZE, prot }])
        .map_err(step("mapping memory"))?;
    space.write(code, stub::TRIAL).map_err(step("writing code"))?;
    let mut context = Context::default();
    context.regs.rip = code;
    let mut thread = thread::Guest::new(space.clone(), &context)
        .map_err(step("starting a thread (is this process under a seccomp filter with a listener?)"))?;
    let sync = thread.is_synchronous();
    let mut run = |resume| platform::Thread::run(&mut thread, resume);
    let wrong = |what| Err(Error::Trial(what, Errno::EPROTO));
    match run(Resume::Context) {
        Exit::Syscall { number, .. } if number == libc::SYS_getpid as u64 => {}
        _ => return wrong("a notified call was not reported"),
    }
    match run(Resume::Result(libc::SYS_rt_sigreturn as u64)) {
        Exit::Syscall { number, .. } if number == libc::SYS_rt_sigreturn as u64 => {}
        _ => return wrong("a trapped call was not reported"),
    }
    match run(Resume::Result(0)) {
        Exit::Fault(fault) if fault.signal == libc::SIGILL => Ok(sync),
        _ => wrong("an exception was not reported"),
    }
}

impl Platform for SystrapPlatform {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn new_address_space(&self) -> platform::Result<Arc<dyn AddressSpace>> {
        Ok(self.ahead.take()?)
    }

    fn branch(&self, entrances: &[BorrowedFd<'_>]) -> platform::Result<Arc<dyn Platform>> {
        let process = self.host.template.spawn()?;
        process.enter(entrances)?;
        let parent = process.clone();
        let ahead = Ahead::new(self.host.clone(), Box::new(move || Ok(parent.clone())));
        Ok(Arc::new(Branch { ahead, process, report: self.report.clone() }))
    }

    fn report(&self) -> Report {
        self.report.clone()
    }
}

/// What address spaces descend from that are to have something in common for the host.
struct Branch {
    ahead: Ahead,
    process: Arc<StubProcess>,
    report: Report,
}

impl Platform for Branch {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn new_address_space(&self) -> platform::Result<Arc<dyn AddressSpace>> {
        Ok(self.ahead.take()?)
    }

    fn close(&self) {
        self.ahead.close();
        self.process.kill();
    }

    fn report(&self) -> Report {
        self.report.clone()
    }
}
