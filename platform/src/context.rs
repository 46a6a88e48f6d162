//! Register state of a guest thread.

/// General registers, in the order and with the names of `struct user_regs_struct` (sys/user.h).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// Floating point and vector state: an XSAVE image in standard (not compacted) format, as in a signal frame, without
/// the trailing FP_XSTATE_MAGIC2. An empty image stands for the processor's initial state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XState(pub Vec<u8>);

/// Everything that makes up a guest thread's processor state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// General registers. `cs`, `ss` and the other selectors are ignored on the way in: a guest has the 64-bit user ones.
    pub regs: Registers,
    /// FPU and vector registers. Platforms refuse no image: reserved bits are cleared before it is loaded.
    pub xstate: XState,
    /// Stop with SIGTRAP after the next instruction (the trap flag, kept apart from the guest's own).
    pub single_step: bool,
}
