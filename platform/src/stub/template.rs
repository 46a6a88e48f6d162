//! The template: the first stub process, from which all others are forked.
//!
//! It is forked from the sentry, sheds everything it inherited, and enters the stub's code. Between the fork and the
//! entry only raw system calls are made: the sentry may have had threads, so no lock and no allocator may be used.

use super::arch;
use super::death::Watcher;
use super::filter::{RET_TRACE, Rule, assemble, base_rules};
use super::process::{Channel, StubProcess, adopt};
use super::processor::Binding;
use super::tracee::Tracee;
use super::{EXTRA_OFFSET, FILTER_OFFSET, STUB_DATA, STUB_TEXT, TEXT_MAX};
use crate::{Death, Errno, Result};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// A signal handler in the stub's text, installed with SA_SIGINFO, SA_RESTORER and an empty mask.
#[derive(Clone, Copy, Debug)]
pub struct Handler {
    /// The signal.
    pub signal: i32,
    /// Its address ([`arch::FAULT_HANDLER`], or in [`Options::extra_text`]).
    pub addr: u64,
    /// More `SA_*` flags.
    pub flags: u64,
    /// Signals blocked while it runs (bit n-1 is signal n).
    pub mask: u64,
}

/// What a platform wants of its stubs.
pub struct Options<'a> {
    /// The platform's own position-independent code, mapped read-only and executable at [`super::EXTRA_TEXT`].
    pub extra_text: &'a [u8],
    /// Rules beside [`base_rules`].
    pub extra_rules: Vec<Rule>,
    /// The filter's answer to calls from guest code: `SECCOMP_RET_*`, not ALLOW.
    pub guest_action: u32,
    /// Handlers beside those of SIGSEGV and SIGBUS ([`arch::FAULT_HANDLER`]), or instead of them.
    pub handlers: Vec<Handler>,
    /// Wanted oom_score_adj of stubs. Failure to set it is not an error.
    pub oom_score_adj: Option<i32>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            extra_text: &[],
            extra_rules: Vec::new(),
            guest_action: RET_TRACE,
            handlers: Vec::new(),
            oom_score_adj: Some(500),
        }
    }
}

/// Why there is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// What was tried.
    pub step: &'static str,
    /// Why it failed.
    pub errno: Errno,
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "making the first stub process: {}: {}", self.step, self.errno)
    }
}

impl std::error::Error for TemplateError {}

/// The template of a platform's stub processes. Dropping it ends the template process, not those forked from it.
pub struct Template {
    watcher: Arc<Watcher>,
    process: Option<Arc<StubProcess>>,
}

/// The steps of the child, in the order of the numbers it reports.
const STEPS: &[&str] = &[
    "setpgid",
    "moving file descriptors",
    "closing file descriptors",
    "unregistering the rseq area",
    "an unknown rseq area is registered",
    "memory-deny-write-execute cannot be lifted",
    "rlimits",
    "dropping capabilities",
    "no_new_privs",
    "making it dumpable",
    "parent-death signal",
    "signal handlers",
    "signal stack",
    "robust list",
];
/// The steps of the entry code, from number 100.
const ENTRY_STEPS: &[&str] = &[
    "mapping the stub's text (is the region occupied, or memfd mapping forbidden?)",
    "mapping the stub's data",
    "unmapping what is below the stub",
    "unmapping what is between text and data",
    "unmapping what is above the stub",
    "unblocking signals",
    "installing the seccomp filter",
];

impl Template {
    /// Forks the template.
    ///
    /// To be called when the sentry is in its final user and pid namespace (its stubs must be in the same ones, or it
    /// may not read their memory), before it is confined by seccomp, and best while it is single-threaded; on its main
    /// thread, or another that lives as long as the stubs: they are killed when that thread ends.
    pub fn new(options: &Options<'_>) -> std::result::Result<Template, TemplateError> {
        let at = |step: &'static str| move |errno: Errno| TemplateError { step, errno };
        let text = build_text(options);
        if text.len() > TEXT_MAX || options.guest_action == libc::SECCOMP_RET_ALLOW {
            return Err(TemplateError { step: "the platform's own code or filter", errno: Errno::EINVAL });
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memfd = memfd_create("stub", flags).map_err(|e| at("memfd_create")(e.into()))?;
        nix::unistd::ftruncate(&memfd, text.len() as i64)
            .and_then(|()| nix::sys::uio::pwrite(&memfd, &text, 0))
            .map_err(|e| at("writing the text")(e.into()))?;
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| at("sealing the text")(e.into()))?;
        let length = NonZeroUsize::new(text.len()).ok_or(at("the text")(Errno::EINVAL))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        // SAFETY: a new mapping of a sealed file at an address of the kernel's choice.
        let temporary = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, &memfd, 0) }
            .map_err(|e| at("mapping the text")(e.into()))?;
        let (ours, theirs) = Channel::pair().map_err(at("socketpair"))?;
        let setup = Setup {
            entry: temporary.as_ptr() as u64,
            text_len: text.len() as u64,
            socket: theirs.as_raw_fd(),
            memfd: memfd.as_raw_fd(),
            rseq: arch::rseq_area(),
            handlers: handlers(options),
            oom_score_adj: options.oom_score_adj.map(|n| n.to_string()),
        };
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))
            .map_err(|e| at("blocking signals")(e.into()))?;
        // A child without an exit signal: only waits with __WALL see it, and the sentry gets no SIGCHLD.
        // SAFETY: without CLONE_VM the child has its own copy of everything; it makes raw system calls only.
        let pid = unsafe { arch::syscall(libc::SYS_clone, [0; 6]) };
        if pid == 0 {
            // SAFETY: we are the only thread of the new process.
            unsafe { child(&setup) }
        }
        let restored = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
        drop(theirs);
        // SAFETY: the mapping made above, which only the child used.
        let unmapped = unsafe { munmap(temporary, text.len()) };
        if pid < 0 {
            return Err(at("fork")(Errno::from_raw(-pid as i32)));
        }
        let kill = |e: TemplateError| {
            // SAFETY: our own child, not yet waited for.
            unsafe {
                libc::kill(pid as i32, libc::SIGKILL);
                libc::waitpid(pid as i32, std::ptr::null_mut(), libc::__WALL);
            }
            e
        };
        restored.and(unmapped).map_err(|e| kill(at("restoring the caller")(e.into())))?;
        let ready =
            ours.reply_ready().map_err(|e| kill(at("waiting for it (it may have been killed)")(e)))?;
        if let [step, result] = ready.results[..] {
            let name = match step {
                100.. => ENTRY_STEPS.get(step as usize - 100),
                _ => STEPS.get(step as usize),
            };
            return Err(kill(TemplateError {
                step: name.copied().unwrap_or("an unknown step"),
                errno: Errno::from_raw((-result).clamp(0, 4095) as i32),
            }));
        }
        let watcher = Watcher::new().map_err(|e| kill(at("epoll")(e)))?;
        let process =
            adopt(watcher.clone(), pid as i32, ours, Binding::none()).map_err(|e| kill(at("pidfd")(e)))?;
        let template = Template { watcher, process: Some(process) };
        let mut probe = [0; 8];
        template
            .process()
            .and_then(|p| p.read_stub(STUB_DATA, &mut probe))
            .map_err(at("process_vm_readv (is ptrace restricted here, by Yama or in a container?)"))?;
        Ok(template)
    }

    /// Whether the calling thread may trace stubs.
    pub fn probe_ptrace(&self) -> std::result::Result<(), TemplateError> {
        let seized = self.process().and_then(|p| Tracee::seize(p.pid(), p.state()));
        seized.map(drop).map_err(|errno| TemplateError {
            step: "ptrace (is it restricted here, by Yama or a seccomp policy?)",
            errno,
        })
    }

    /// The first process, to be copied.
    pub fn process(&self) -> Result<&Arc<StubProcess>> {
        self.process.as_ref().ok_or(Errno::ESRCH)
    }

    /// A new stub process with an empty guest address space.
    pub fn spawn(&self) -> Result<Arc<StubProcess>> {
        self.process()?.fork()
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.state().kill(Death::Killed);
            drop(process);
        }
        self.watcher.stop();
    }
}

/// The text, the program and the platform's own code, as mapped at [`STUB_TEXT`].
fn build_text(options: &Options<'_>) -> Vec<u8> {
    let mut rules = base_rules();
    rules.extend(options.extra_rules.iter().cloned());
    let program = assemble(&rules, options.guest_action);
    let mut text = arch::text().to_vec();
    assert!(text.len() <= FILTER_OFFSET, "the stub's code outgrew its page");
    text.resize(FILTER_OFFSET, 0);
    // struct sock_fprog, then the program.
    text.extend_from_slice((program.len() as u64).as_bytes());
    text.extend_from_slice((STUB_TEXT + FILTER_OFFSET as u64 + 16).as_bytes());
    for instruction in &program {
        text.extend_from_slice(&instruction.code.to_le_bytes());
        text.extend_from_slice(&[instruction.jt, instruction.jf]);
        text.extend_from_slice(&instruction.k.to_le_bytes());
    }
    assert!(text.len() <= EXTRA_OFFSET, "the filter outgrew its pages");
    text.resize(EXTRA_OFFSET, 0);
    text.extend_from_slice(options.extra_text);
    text.resize(text.len().next_multiple_of(4096), 0);
    text
}

/// `struct sigaction` of the kernel: handler, flags, restorer, mask.
type KernelSigaction = [u64; 4];

fn handlers(options: &Options<'_>) -> [KernelSigaction; 64] {
    let mut table = [[0; 4]; 64];
    let fault = |signal| Handler {
        signal,
        addr: arch::FAULT_HANDLER,
        flags: (libc::SA_ONSTACK | libc::SA_NODEFER) as u64,
        mask: 0,
    };
    let own = [fault(libc::SIGSEGV), fault(libc::SIGBUS)];
    for handler in own.iter().chain(&options.handlers) {
        const SA_RESTORER: u64 = 0x0400_0000;
        let flags = handler.flags | libc::SA_SIGINFO as u64 | SA_RESTORER;
        if let Some(entry) = table.get_mut(handler.signal as usize - 1) {
            *entry = [handler.addr, flags, arch::RESTORER, handler.mask];
        }
    }
    table
}

/// What the child needs, made before the fork.
struct Setup {
    entry: u64,
    text_len: u64,
    socket: RawFd,
    memfd: RawFd,
    rseq: Option<u64>,
    handlers: [KernelSigaction; 64],
    oom_score_adj: Option<String>,
}

/// The child's side: sheds what it inherited and enters the stub.
///
/// # Safety
/// In a new process with one thread only.
unsafe fn child(setup: &Setup) -> ! {
    // SAFETY: raw system calls on this process's own state; pointers are to locals and to `setup`.
    let failed = unsafe { shed(setup) };
    let (step, result) = match failed {
        // SAFETY: the state that the entry expects has been made.
        Ok(()) => unsafe { arch::enter(setup.entry, setup.text_len) },
        Err(x) => x,
    };
    let socket = if step <= 1 { setup.socket } else { 0 };
    let message = [step as u64, result as u64];
    // SAFETY: a send of 16 bytes of a local, and the end of the process.
    unsafe {
        let pointer = message.as_ptr() as u64;
        let flags = libc::MSG_NOSIGNAL as u64;
        arch::syscall(libc::SYS_sendto, [socket as u64, pointer, 16, flags, 0, 0]);
        loop {
            arch::syscall(libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]);
        }
    }
}

/// # Safety
/// As [`child`].
unsafe fn shed(setup: &Setup) -> std::result::Result<(), (usize, i64)> {
    // SAFETY: raw system calls of a single-threaded process on its own state.
    let call = |nr: i64, a: u64, b: u64, c: u64, d: u64| unsafe { arch::syscall(nr, [a, b, c, d, 0, 0]) };
    let must = |step: usize, result: i64| if result < 0 { Err((step, result)) } else { Ok(result) };
    // Out of the sentry's group, and of the terminal's signals. Not out of its session: it puts each stub process into a
    // group of its own.
    must(0, call(libc::SYS_setpgid, 0, 0, 0, 0))?;
    call(libc::SYS_chdir, c"/".as_ptr() as u64, 0, 0, 0);
    if let Some(value) = &setup.oom_score_adj {
        let path = c"/proc/self/oom_score_adj".as_ptr() as u64;
        let fd = call(libc::SYS_openat, libc::AT_FDCWD as u64, path, libc::O_WRONLY as u64, 0);
        if fd >= 0 {
            call(libc::SYS_write, fd as u64, value.as_ptr() as u64, value.len() as u64, 0);
            call(libc::SYS_close, fd as u64, 0, 0, 0);
        }
    }
    // The command socket becomes descriptor 0, the text 1, and nothing else stays open.
    let dup = libc::F_DUPFD as u64;
    let socket = must(1, call(libc::SYS_fcntl, setup.socket as u64, dup, 10, 0))?;
    let memfd = must(1, call(libc::SYS_fcntl, setup.memfd as u64, dup, 10, 0))?;
    must(1, call(libc::SYS_dup2, socket as u64, 0, 0, 0))?;
    must(1, call(libc::SYS_dup2, memfd as u64, 1, 0, 0))?;
    must(2, call(libc::SYS_close_range, 2, u64::from(u32::MAX), 0, 0))?;

    // Restartable sequences: the kernel would write to the area, and kill us once it is unmapped. The length must
    // be the registered one, which depends on the C library's version. That no area is left shows when one of our
    // own can be registered.
    const SIGNATURE: u64 = 0x5305_3053;
    #[repr(C, align(32))]
    struct Area([u64; 4]);
    let area = Area([0; 4]);
    let own = &raw const area as u64;
    if let Some(registered) = setup.rseq {
        let mut length = 32;
        while length <= 1024 {
            if call(libc::SYS_rseq, registered, length, 1, SIGNATURE) == 0 {
                break;
            }
            length += 32;
        }
    }
    match call(libc::SYS_rseq, own, 32, 0, SIGNATURE) {
        0 => must(3, call(libc::SYS_rseq, own, 32, 1, SIGNATURE))?,
        e if e == -i64::from(libc::ENOSYS) => 0,
        e => return Err((4, e)),
    };
    must(13, call(libc::SYS_set_robust_list, 0, 24, 0, 0))?;
    call(libc::SYS_set_tid_address, 0, 0, 0, 0);

    const PR_SET_MDWE: u64 = 65;
    const PR_GET_MDWE: u64 = 66;
    const PR_SET_MEMORY_MERGE: u64 = 67;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    call(libc::SYS_personality, 0, 0, 0, 0);
    call(libc::SYS_prctl, libc::PR_SET_THP_DISABLE as u64, 0, 0, 0);
    // Merging of equal pages would tell one sandbox about another.
    call(libc::SYS_prctl, PR_SET_MEMORY_MERGE, 0, 0, 0);
    call(libc::SYS_prctl, libc::PR_SET_NAME as u64, c"stub".as_ptr() as u64, 0, 0);
    if call(libc::SYS_prctl, PR_GET_MDWE, 0, 0, 0) > 0 {
        must(5, call(libc::SYS_prctl, PR_SET_MDWE, 0, 0, 0))?;
    }
    // AMX for guests, where the processor has it; permission is inherited.
    call(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA, 0, 0);

    // A core limit of 1 byte, not 0: core_pattern pipes ignore 0 and would parse hostile memory on the host.
    let limit = |resource: u32, soft: u64, hard: u64| {
        let value = [soft, hard];
        call(libc::SYS_prlimit64, 0, u64::from(resource), value.as_ptr() as u64, 0)
    };
    if limit(libc::RLIMIT_CORE, 1, 1) < 0 {
        must(6, limit(libc::RLIMIT_CORE, 0, 0))?;
    }
    must(6, limit(libc::RLIMIT_NOFILE, 64, 64))?;
    must(6, limit(libc::RLIMIT_MEMLOCK, 0, 0))?;
    for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA] {
        // Mutable, or the compiler knows that it stays zero.
        let mut old = [0u64; 2];
        call(libc::SYS_prlimit64, 0, u64::from(resource), 0, old.as_mut_ptr() as u64);
        limit(resource, old[1], old[1]);
    }

    call(libc::SYS_prctl, libc::PR_CAP_AMBIENT as u64, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0, 0);
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    must(7, call(libc::SYS_capset, header.as_ptr() as u64, none.as_ptr() as u64, 0, 0))?;
    must(8, call(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0))?;
    // The sentry reads and traces us, which asks for this.
    must(9, call(libc::SYS_prctl, libc::PR_SET_DUMPABLE as u64, 1, 0, 0))?;
    must(10, call(libc::SYS_prctl, libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0))?;

    for (i, action) in setup.handlers.iter().enumerate() {
        let signal = i as u64 + 1;
        if signal != libc::SIGKILL as u64 && signal != libc::SIGSTOP as u64 {
            must(11, call(libc::SYS_rt_sigaction, signal, action.as_ptr() as u64, 0, 8))?;
        }
    }
    // The service thread's signal stack; forks keep it, threads do not.
    let stack = [STUB_DATA + 0x3000, 0, super::STUB_DATA_SIZE - 0x3000];
    must(12, call(libc::SYS_sigaltstack, stack.as_ptr() as u64, 0, 0, 0))?;
    Ok(())
}
