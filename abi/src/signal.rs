//! Signals (`signal.h`, `siginfo.h`, `sigcontext.h`, `ucontext.h`, `signalfd.h`).
//!
//! This is the kernel's view: real-time signals are 32 to 64, of which the C library keeps 32 and 33 to itself.
#![allow(missing_docs, reason = "the names are Linux's")]

use std::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::siginfo::SigInfo;

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// The number of signals, and the size of a `sigset_t` in bytes, which every `rt_` call is told.
pub const NSIG: u32 = 64;
pub const SIGSET_SIZE: usize = 8;
// The first and last real-time signal.
pub const SIGRTMIN: u32 = 32;
pub const SIGRTMAX: u32 = 64;

macro_rules! signals {
    ($($name:ident = $number:literal, $action:ident;)*) => {
        impl Signal {
            $(pub const $name: Signal = Signal($number);)*

            /// The name (`SIGTERM`), or `None` for a real-time signal.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some(stringify!($name)),)* _ => None }
            }

            /// What happens if the program says `SIG_DFL`.
            pub const fn default_action(self) -> DefaultAction {
                match self.0 { $($number => DefaultAction::$action,)* _ => DefaultAction::Term }
            }
        }
    };
}

signals! {
    SIGHUP = 1, Term;
    SIGINT = 2, Term;
    SIGQUIT = 3, Core;
    SIGILL = 4, Core;
    SIGTRAP = 5, Core;
    SIGABRT = 6, Core;
    SIGBUS = 7, Core;
    SIGFPE = 8, Core;
    SIGKILL = 9, Term;
    SIGUSR1 = 10, Term;
    SIGSEGV = 11, Core;
    SIGUSR2 = 12, Term;
    SIGPIPE = 13, Term;
    SIGALRM = 14, Term;
    SIGTERM = 15, Term;
    SIGSTKFLT = 16, Term;
    SIGCHLD = 17, Ignore;
    SIGCONT = 18, Continue;
    SIGSTOP = 19, Stop;
    SIGTSTP = 20, Stop;
    SIGTTIN = 21, Stop;
    SIGTTOU = 22, Stop;
    SIGURG = 23, Ignore;
    SIGXCPU = 24, Core;
    SIGXFSZ = 25, Core;
    SIGVTALRM = 26, Term;
    SIGPROF = 27, Term;
    SIGWINCH = 28, Ignore;
    SIGIO = 29, Term;
    SIGPWR = 30, Term;
    SIGSYS = 31, Core;
}

/// What a signal does if it is neither handled, ignored nor blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultAction {
    /// The process ends.
    Term,
    /// The process ends and dumps core.
    Core,
    /// Nothing.
    Ignore,
    /// The process stops.
    Stop,
    /// A stopped process continues.
    Continue,
}

impl Signal {
    /// Another name of `SIGIO`.
    pub const SIGPOLL: Signal = Signal::SIGIO;

    /// The signal with this number, or `None` outside 1..=64.
    pub const fn new(number: u32) -> Option<Signal> {
        if number >= 1 && number <= NSIG { Some(Signal(number as u8)) } else { None }
    }

    /// As [`Signal::new`], from what a system call was given as an `int`.
    pub const fn from_i32(number: i32) -> Option<Signal> {
        if number < 0 { None } else { Signal::new(number as u32) }
    }

    /// From a name, with or without `SIG` and in any case, or a decimal number, as kill(1) takes it.
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse() {
            return Signal::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        (1..SIGRTMIN)
            .filter_map(Signal::new)
            .find(|signal| signal.name().and_then(|name| name.strip_prefix("SIG")) == Some(short))
    }

    /// The number, 1 to 64.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// True for 32 to 64, which queue; the others are pending once at most.
    pub const fn is_realtime(self) -> bool {
        self.number() >= SIGRTMIN
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Signal {
    /// `SIGTERM`, or `SIGRT_2` for 34.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.number() - SIGRTMIN),
        }
    }
}

/// `sigset_t`: a set of signals, signal `n` being bit `n - 1`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SignalSet(pub u64);

impl SignalSet {
    pub const EMPTY: SignalSet = SignalSet(0);
    pub const FULL: SignalSet = SignalSet(!0);
    /// The two that cannot be caught, blocked or ignored.
    pub const UNBLOCKABLE: SignalSet = SignalSet::of(&[Signal::SIGKILL, Signal::SIGSTOP]);
    /// The signals that stop a process (`SIG_KERNEL_STOP_MASK`).
    pub const STOP: SignalSet =
        SignalSet::of(&[Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]);
    /// The signals of faults, which are delivered before others (`SYNCHRONOUS_MASK`).
    pub const SYNCHRONOUS: SignalSet = SignalSet::of(&[
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGFPE,
        Signal::SIGSYS,
    ]);

    /// The set of these signals.
    pub const fn of(signals: &[Signal]) -> SignalSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= SignalSet::bit(signals[i]);
            i += 1;
        }
        SignalSet(bits)
    }

    const fn bit(signal: Signal) -> u64 {
        1 << (signal.0 - 1)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & SignalSet::bit(signal) != 0
    }

    pub const fn add(&mut self, signal: Signal) {
        self.0 |= SignalSet::bit(signal);
    }

    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !SignalSet::bit(signal);
    }

    pub const fn union(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 | other.0)
    }

    pub const fn intersection(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & other.0)
    }

    /// The signals of `self` that are not in `other`.
    pub const fn difference(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & !other.0)
    }

    /// All other signals.
    pub const fn complement(self) -> SignalSet {
        SignalSet(!self.0)
    }

    /// The signal with the lowest number.
    pub const fn first(self) -> Option<Signal> {
        Signal::new(self.0.trailing_zeros() + 1)
    }

    /// In the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let signal = rest.first()?;
            rest.remove(signal);
            Some(signal)
        })
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> SignalSet {
        SignalSet::of(&[signal])
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        signals.into_iter().fold(SignalSet::EMPTY, |set, signal| set.union(signal.into()))
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

// Handlers that are numbers.
pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;
// How of rt_sigprocmask(2).
pub const SIG_BLOCK: u32 = 0;
pub const SIG_UNBLOCK: u32 = 1;
pub const SIG_SETMASK: u32 = 2;

bitflags! {
    /// `sa_flags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SaFlags: u64 {
        const SA_NOCLDSTOP = 1;
        const SA_NOCLDWAIT = 2;
        const SA_SIGINFO = 4;
        const SA_UNSUPPORTED = 0x400;
        const SA_EXPOSE_TAGBITS = 0x800;
        const SA_RESTORER = 0x4000000;
        const SA_ONSTACK = 0x8000000;
        const SA_RESTART = 0x10000000;
        const SA_NODEFER = 0x40000000;
        const SA_RESETHAND = 0x80000000;
    }
}

layout! {
    /// `struct sigaction` of the kernel, as rt_sigaction(2) takes it.
    struct KernelSigaction[32] { handler: u64, flags: u64, restorer: u64, mask: SignalSet }

    /// `stack_t` of sigaltstack(2).
    struct StackT[24] { ss_sp: u64, ss_flags: u32, _pad: u32, ss_size: u64 }

    /// `struct sigevent`. Of the union only the thread id is used by the kernel.
    struct Sigevent[64] {
        sigev_value: u64, sigev_signo: i32, sigev_notify: i32, sigev_notify_thread_id: i32, _pad: [u32; 11],
    }

    /// `struct signalfd_siginfo`.
    struct SignalfdSiginfo[128] {
        ssi_signo: u32, ssi_errno: i32, ssi_code: i32, ssi_pid: u32, ssi_uid: u32, ssi_fd: i32, ssi_tid: u32,
        ssi_band: u32, ssi_overrun: u32, ssi_trapno: u32, ssi_status: i32, ssi_int: i32, ssi_ptr: u64, ssi_utime: u64,
        ssi_stime: u64, ssi_addr: u64, ssi_addr_lsb: u16, _pad2: u16, ssi_syscall: i32, ssi_call_addr: u64,
        ssi_arch: u32, _pad: [u8; 28],
    }

    /// The pointer and size that pselect6(2) and io_pgetevents(2) get as their last argument.
    struct SigsetArgpack[16] { p: u64, size: u64 }

    /// `struct sigcontext`: the registers in a signal frame.
    struct Sigcontext[256] {
        r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64, di: u64, si: u64,
        bp: u64, bx: u64, dx: u64, ax: u64, cx: u64, sp: u64, ip: u64, flags: u64, cs: u16, gs: u16, fs: u16,
        ss: u16, err: u64, trapno: u64, oldmask: u64, cr2: u64, fpstate: u64, reserved1: [u64; 8],
    }

    /// `struct ucontext`.
    struct Ucontext[304] {
        uc_flags: u64, uc_link: u64, uc_stack: StackT, uc_mcontext: Sigcontext, uc_sigmask: SignalSet,
    }

    /// `struct rt_sigframe`: what a handler finds above its return address.
    struct RtSigframe[440] { pretcode: u64, uc: Ucontext, info: SigInfo }

    /// `struct _fpx_sw_bytes`, at [`FPX_SW_BYTES_OFFSET`] of the FXSAVE area in a signal frame.
    struct FpxSwBytes[48] { magic1: u32, extended_size: u32, xfeatures: u64, xstate_size: u32, _padding: [u32; 7] }
}

// `uc_flags`.
pub const UC_FP_XSTATE: u64 = 1;
pub const UC_SIGCONTEXT_SS: u64 = 2;
pub const UC_STRICT_RESTORE_SS: u64 = 4;
pub const FP_XSTATE_MAGIC1: u32 = 0x46505853;
pub const FP_XSTATE_MAGIC2: u32 = 0x46505845;
/// The size of `FP_XSTATE_MAGIC2`, which follows the XSAVE area.
pub const FP_XSTATE_MAGIC2_SIZE: usize = 4;
/// Where [`FpxSwBytes`] is in the 512 bytes of FXSAVE.
pub const FPX_SW_BYTES_OFFSET: usize = 464;
/// The size of the FXSAVE area.
pub const FXSAVE_SIZE: usize = 512;

// `ss_flags` of [`StackT`].
pub const SS_ONSTACK: u32 = 1;
pub const SS_DISABLE: u32 = 2;
pub const SS_AUTODISARM: u32 = 0x80000000;
pub const MINSIGSTKSZ: usize = 2048;

// `sigev_notify`.
pub const SIGEV_SIGNAL: i32 = 0;
pub const SIGEV_NONE: i32 = 1;
pub const SIGEV_THREAD: i32 = 2;
pub const SIGEV_THREAD_ID: i32 = 4;

bitflags! {
    /// Flags of signalfd4(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SignalfdFlags: u32 {
        const SFD_CLOEXEC = 0x80000;
        const SFD_NONBLOCK = 0x800;
    }
}

// `si_code` of any signal.
pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 128;
pub const SI_QUEUE: i32 = -1;
pub const SI_TIMER: i32 = -2;
pub const SI_MESGQ: i32 = -3;
pub const SI_ASYNCIO: i32 = -4;
pub const SI_SIGIO: i32 = -5;
pub const SI_TKILL: i32 = -6;
pub const SI_DETHREAD: i32 = -7;
pub const SI_ASYNCNL: i32 = -60;
// `si_code` of SIGILL.
pub const ILL_ILLOPC: i32 = 1;
pub const ILL_ILLOPN: i32 = 2;
pub const ILL_ILLADR: i32 = 3;
pub const ILL_ILLTRP: i32 = 4;
pub const ILL_PRVOPC: i32 = 5;
pub const ILL_PRVREG: i32 = 6;
pub const ILL_COPROC: i32 = 7;
pub const ILL_BADSTK: i32 = 8;
pub const ILL_BADIADDR: i32 = 9;
// `si_code` of SIGFPE.
pub const FPE_INTDIV: i32 = 1;
pub const FPE_INTOVF: i32 = 2;
pub const FPE_FLTDIV: i32 = 3;
pub const FPE_FLTOVF: i32 = 4;
pub const FPE_FLTUND: i32 = 5;
pub const FPE_FLTRES: i32 = 6;
pub const FPE_FLTINV: i32 = 7;
pub const FPE_FLTSUB: i32 = 8;
pub const FPE_FLTUNK: i32 = 14;
pub const FPE_CONDTRAP: i32 = 15;
// `si_code` of SIGSEGV.
pub const SEGV_MAPERR: i32 = 1;
pub const SEGV_ACCERR: i32 = 2;
pub const SEGV_BNDERR: i32 = 3;
pub const SEGV_PKUERR: i32 = 4;
pub const SEGV_CPERR: i32 = 10;
// `si_code` of SIGBUS.
pub const BUS_ADRALN: i32 = 1;
pub const BUS_ADRERR: i32 = 2;
pub const BUS_OBJERR: i32 = 3;
pub const BUS_MCEERR_AR: i32 = 4;
pub const BUS_MCEERR_AO: i32 = 5;
// `si_code` of SIGTRAP.
pub const TRAP_BRKPT: i32 = 1;
pub const TRAP_TRACE: i32 = 2;
pub const TRAP_BRANCH: i32 = 3;
pub const TRAP_HWBKPT: i32 = 4;
pub const TRAP_UNK: i32 = 5;
pub const TRAP_PERF: i32 = 6;
// `si_code` of SIGCHLD.
pub const CLD_EXITED: i32 = 1;
pub const CLD_KILLED: i32 = 2;
pub const CLD_DUMPED: i32 = 3;
pub const CLD_TRAPPED: i32 = 4;
pub const CLD_STOPPED: i32 = 5;
pub const CLD_CONTINUED: i32 = 6;
// `si_code` of SIGIO.
pub const POLL_IN: i32 = 1;
pub const POLL_OUT: i32 = 2;
pub const POLL_MSG: i32 = 3;
pub const POLL_ERR: i32 = 4;
pub const POLL_PRI: i32 = 5;
pub const POLL_HUP: i32 = 6;
// `si_code` of SIGSYS.
pub const SYS_SECCOMP: i32 = 1;
pub const SYS_USER_DISPATCH: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_1_to_64() {
        assert_eq!((Signal::new(0), Signal::new(65), Signal::from_i32(-1)), (None, None, None));
        assert_eq!(Signal::new(64).map(Signal::number), Some(64));
        assert_eq!(Signal::from_i32(9), Some(Signal::SIGKILL));
        assert!(!Signal::SIGSYS.is_realtime() && Signal(32).is_realtime());
        for text in ["SIGTERM", "TERM", "sigterm", "15"] {
            assert_eq!(Signal::parse(text), Some(Signal::SIGTERM), "{text}");
        }
        for text in ["", "SIG", "SIGSIGTERM", "0", "65", "-9"] {
            assert_eq!(Signal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sets_keep_signal_n_in_bit_n_minus_1() {
        let mut set = SignalSet::of(&[Signal::SIGHUP, Signal(64)]);
        assert_eq!(set.0, 1 | 1 << 63);
        set.add(Signal::SIGKILL);
        assert!(set.contains(Signal::SIGKILL) && !set.contains(Signal::SIGINT));
        assert_eq!(set.iter().map(Signal::number).collect::<Vec<_>>(), [1, 9, 64]);
        set.remove(Signal::SIGHUP);
        assert_eq!(set.first(), Some(Signal::SIGKILL));
        assert_eq!(set.difference(SignalSet::UNBLOCKABLE), Signal(64).into());
        assert_eq!(set.iter().collect::<SignalSet>(), set);
        assert_eq!((SignalSet::FULL.iter().count(), SignalSet::EMPTY.first()), (64, None));
        assert_eq!(SignalSet::UNBLOCKABLE.0, 1 << 8 | 1 << 18);
    }

    #[test]
    fn default_actions_are_those_of_signal_7() {
        let of = |action| (1..=64).filter(|n| Signal(*n).default_action() == action).collect::<Vec<_>>();
        assert_eq!(of(DefaultAction::Core), [3, 4, 5, 6, 7, 8, 11, 24, 25, 31]);
        assert_eq!(of(DefaultAction::Ignore), [17, 23, 28]);
        assert_eq!(of(DefaultAction::Stop), [19, 20, 21, 22]);
        assert_eq!(of(DefaultAction::Continue), [18]);
        assert_eq!(of(DefaultAction::Term).len(), 64 - 10 - 3 - 4 - 1);
    }
}
