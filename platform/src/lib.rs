//! The platform contract: a CPU with its MMU and its memory.
//!
//! A platform runs guest threads and owns guest address spaces. The sentry decides *what* is mapped where; how that
//! memory is backed, copied on fork and paged in is the platform's affair. A platform knows nothing of the sentry.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod context;
pub mod cpu;
pub mod heap;
mod host;
pub mod random;
pub mod stub;
pub mod tsc;
pub mod vdso;
pub mod xstate;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub use abi::{Errno, Result};
pub use context::{Context, Registers, XState};
pub use host::{host_cpu, memory_barrier};

/// Size of a page in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// The lowest address a guest may map (`vm.mmap_min_addr`).
pub const USER_MIN: u64 = 0x1_0000;

/// One past the highest address a guest may map. Stubs live above it on the host-process platforms.
pub const USER_MAX: u64 = 0x7ffe_0000_0000;

/// Bytes of a range that a platform may ask for with [`AddressSpace::patch`], and their alignment.
pub const PATCH_AREA: u64 = 0x1_0000;

bitflags::bitflags! {
    /// Page protection, with the values of `PROT_*` (mman.h).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Prot: u32 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
    }
}

/// One change of an address space. Addresses and lengths are multiples of [`PAGE_SIZE`], lengths not zero, ranges
/// inside [`USER_MIN`]..[`USER_MAX`]; anything else is EINVAL. A mapping replaces what was there (MAP_FIXED).
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Private zero-filled memory, copied on write across forks.
    MapAnonymous {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Protection.
        prot: Prot,
    },
    /// Pages of a host file or memfd. The fd must permit what `prot` and `shared` ask, and should permit no more.
    MapFile {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Protection.
        prot: Prot,
        /// MAP_SHARED instead of MAP_PRIVATE.
        shared: bool,
        /// The file.
        file: BorrowedFd<'a>,
        /// Offset of `addr` in the file, in bytes, a multiple of the page size.
        offset: u64,
    },
    /// Remove what is mapped in the range; holes are fine.
    Unmap {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// Change the protection of a range that is mapped throughout.
    Protect {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// The new protection.
        prot: Prot,
    },
    /// mremap(2) with MREMAP_MAYMOVE | MREMAP_FIXED; with `old == new`, growth or shrinkage in place. `keep` is
    /// MREMAP_DONTUNMAP. The old range lies in one mapping.
    Move {
        /// First byte of the old range.
        old: u64,
        /// Bytes of the old range. 0 duplicates a shared mapping.
        old_len: u64,
        /// First byte of the new range.
        new: u64,
        /// Bytes of the new range.
        new_len: u64,
        /// Leave the old range mapped, and empty.
        keep: bool,
    },
    /// madvise(2) with a raw advice value. Only advice that concerns the caller's own pages is carried out
    /// (DONTNEED, FREE, WILLNEED, HUGEPAGE, NOHUGEPAGE, POPULATE_READ, POPULATE_WRITE, COLD, PAGEOUT, REMOVE,
    /// DONTFORK, DOFORK, WIPEONFORK, KEEPONFORK); other values are EINVAL.
    Advise {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// `MADV_*`.
        advice: i32,
    },
}

/// What a host can do for a platform, found at start.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One line each: a feature and whether it is there, for `runsc platforms`.
    pub features: Vec<(String, String)>,
}

/// A way to run guest code.
pub trait Platform: Send + Sync {
    /// The name used by `--platform`.
    fn name(&self) -> &'static str;

    /// An empty address space. The host process (if any) behind it already exists when this returns.
    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>>;

    /// A platform like this one, whose address spaces descend from a process of the host of their own
    /// which has entered the host's cgroups with these entrances: they and all that is forked from them begin there. An
    /// entrance is a file `tasks` (version 1) or `cgroup.procs` (cgroup2, where it takes a grace period of the host's),
    /// open for writing; at most [`stub::MAX_FDS`]. An errno: it could not be entered, or there are no processes for
    /// guests here (EOPNOTSUPP).
    fn branch(&self, entrances: &[BorrowedFd<'_>]) -> Result<Arc<dyn Platform>> {
        let _ = entrances;
        Err(Errno::EOPNOTSUPP)
    }

    /// Ends the process of a branch, for good: new address spaces are ESRCH. Those that there are stay.
    fn close(&self) {}

    /// What was detected when the platform was made.
    fn report(&self) -> Report;
}

/// A guest address space. May be used by several guest processes at once (vfork, CLONE_VM).
///
/// Every method fails with ESRCH once the address space is dead (killed by the host, or by [`AddressSpace::kill`]).
pub trait AddressSpace: Send + Sync {
    /// A guest thread that starts with `context`. To be called on the host thread that will call [`Thread::run`]:
    /// threads are bound to it (ptrace needs that).
    fn new_thread(self: Arc<Self>, context: &Context) -> Result<Box<dyn Thread>>;

    /// Carries out `changes` in order and stops at the first that fails. `by` is the caller's own guest thread if it
    /// belongs to this address space, which can be cheaper. When this returns, every guest thread of the address
    /// space sees the changes.
    fn apply(&self, by: Option<&mut dyn Thread>, changes: &[Change<'_>]) -> Result<()>;

    /// A copy with copy-on-write semantics (fork(2)), without threads.
    fn fork(&self, by: Option<&mut dyn Thread>) -> Result<Arc<dyn AddressSpace>>;

    /// Reads guest memory into the segments, in order. Returns the bytes read before the first that could not be
    /// (so 0 is a fault at once). The guest's own page protection applies.
    fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<usize>;

    /// Writes the segments to guest memory, in order; as [`AddressSpace::read_batch`].
    fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<usize>;

    /// [`AddressSpace::read_batch`] of one segment.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        self.read_batch(&mut [(addr, buf)])
    }

    /// [`AddressSpace::write_batch`] of one segment.
    fn write(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        self.write_batch(&[(addr, buf)])
    }

    /// Reads as much at `addr` as came with the call that the calling thread's own guest thread is in; perhaps nothing. It
    /// costs nothing to ask, and [`AddressSpace::read_batch`] looks there as well, but for all or nothing.
    fn read_carried(&self, addr: u64, buf: &mut [u8]) -> usize {
        let _ = (addr, buf);
        0
    }

    /// Takes bytes that are to be in guest memory when the guest thread whose call the calling thread carries out goes on,
    /// which is cheaper than writing them at once. The memory must be private and writable, and lie within the file if it is
    /// of one: if the bytes cannot be written then, the call ends with EFAULT. False: nothing was done.
    fn write_later(&self, addr: u64, buf: &[u8]) -> bool {
        let _ = (addr, buf);
        false
    }

    /// Writes code or data regardless of page protection, as a debugger does (copy-on-write in private mappings).
    fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize>;

    /// Atomic compare-and-exchange of an aligned 32-bit guest word. Returns the value found; it was replaced if that
    /// equals `expected`. EFAULT if the word cannot be written.
    fn compare_exchange(
        &self,
        by: Option<&mut dyn Thread>,
        addr: u64,
        expected: u32,
        new: u32,
    ) -> Result<u32>;

    /// Makes the calls of a site cheaper by rewriting its code: the call that ended at `ip` is `by`'s present one, and
    /// [`Thread::hot_site`] proposed it. To be called only if the site's pages are private, executable and not
    /// writable, with changes of the address space locked out.
    ///
    /// `place` is called with the address of a range of [`PATCH_AREA`] bytes in which the platform would like to keep code
    /// of its own, perhaps several times. If nothing is mapped there and nothing ever will be but at the guest's
    /// explicit wish, it is to map it private, executable, not writable, and return true.
    ///
    /// The platform undoes it by itself when later changes call for it. EOPNOTSUPP: not this site, or never.
    fn patch(&self, by: &mut dyn Thread, ip: u64, place: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let _ = (by, ip, place);
        Err(Errno::EOPNOTSUPP)
    }

    /// Puts back all that [`AddressSpace::patch`] has rewritten, and rewrites nothing from now on: somebody is about to look
    /// at each instruction. To be called with changes of the address space locked out.
    fn stop_patching(&self) {}

    /// mincore(2): one byte a page of the range, bit 0 set when it is resident. ENOMEM for holes.
    fn resident(&self, addr: u64, pages: &mut [u8]) -> Result<()>;

    /// Calls `watch` once when the host process behind it dies, at once if it is dead, from whatever thread notices; no more
    /// when the result is dropped. (A thread that runs the guest learns of it from [`Thread::run`].)
    fn on_death(&self, watch: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync>;

    /// Kills the host process behind it. All threads report [`Exit::Dead`]. Also done on the last drop.
    fn kill(&self);
}

/// The calls that [`Thread::set_answers`] is about: getpid, getuid, getgid, geteuid, getegid, gettid.
pub const ANSWERS: [u64; 6] = [
    libc::SYS_getpid as u64,
    libc::SYS_getuid as u64,
    libc::SYS_getgid as u64,
    libc::SYS_geteuid as u64,
    libc::SYS_getegid as u64,
    libc::SYS_gettid as u64,
];

/// How a guest thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The system call that the last [`Exit::Syscall`] reported ends with this value in the result register.
    Result(u64),
    /// With the context as edited through [`Thread::context`] (or unchanged after a fault or an interruption).
    Context,
}

/// Why a guest thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A system call. It has not been carried out and never will be by the host.
    Syscall {
        /// The number (register rax).
        number: u64,
        /// rdi, rsi, rdx, r10, r8, r9.
        args: [u64; 6],
        /// The address after the `syscall` instruction.
        ip: u64,
    },
    /// A synchronous exception.
    Fault(Fault),
    /// [`Interrupter::interrupt`] was called. Nothing of the guest was lost.
    Interrupted,
    /// The thread is gone for good.
    Dead(Death),
}

/// A synchronous exception, in the terms of sigaction(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// The processor's exception number (`trapno` of a signal frame).
    pub trapno: u64,
    /// The processor's error code (`err` of a signal frame; bit 1 is a write, bit 4 an instruction fetch).
    pub error: u64,
}

/// Why a thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The address space was killed by [`AddressSpace::kill`].
    Killed,
    /// The host ended the process: out of memory, or someone's SIGKILL.
    Host,
    /// The stub broke the protocol, and was killed for it. The reason has been logged.
    Misbehaved,
}

/// A guest thread. Belongs to one host thread; dropping it ends the guest thread.
pub trait Thread {
    /// Runs the guest until something needs the sentry. The first call after creation takes [`Resume::Context`].
    fn run(&mut self, resume: Resume) -> Exit;

    /// The whole register state, to be read or edited while the thread is stopped. After [`Exit::Syscall`], `rax`
    /// is the call's number and `rip` the address after the instruction, as on entry to Linux's handler; edits take
    /// effect with [`Resume::Context`], which leaves `rax` to the editor. May cost microseconds: ask only when
    /// needed. Fails if the thread is dead.
    fn context(&mut self) -> std::result::Result<&mut Context, Death>;

    /// A handle for other threads.
    fn interrupter(&self) -> Arc<dyn Interrupter>;

    /// The guest waits: until the next [`Thread::run`], the sentry thread sleeps or is about to.
    fn idle(&mut self) {}

    /// Whether it would pay to patch the site of the call that the last [`Thread::run`] reported
    /// ([`AddressSpace::patch`]). True at most once for a site, now and then.
    fn hot_site(&mut self) -> Option<u64> {
        None
    }

    /// Tells the platform what calls without side effects return, so that it may answer them without the sentry: in the order
    /// of [`ANSWERS`]; `None`: it must ask.
    fn set_answers(&mut self, answers: &[Option<u64>; ANSWERS.len()]) {
        let _ = answers;
    }

    /// Processor time that the guest thread has used.
    fn cpu_time(&self) -> Duration;

    /// The platform's own type, for `by` arguments.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// Makes a running guest thread return to its sentry thread.
pub trait Interrupter: Send + Sync {
    /// May be called from any thread at any time, also before `run` is entered and after the thread's death. The
    /// current `run`, or the next, returns [`Exit::Interrupted`], or an exit that happened just before. Interrupts do not
    /// count up: two before one `run` are one.
    fn interrupt(&self);
}
