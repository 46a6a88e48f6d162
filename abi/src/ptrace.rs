//! Tracing (`ptrace.h`, `user_64.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

// Requests of ptrace(2).
pub const PTRACE_TRACEME: u32 = 0;
pub const PTRACE_PEEKTEXT: u32 = 1;
pub const PTRACE_PEEKDATA: u32 = 2;
pub const PTRACE_PEEKUSR: u32 = 3;
pub const PTRACE_POKETEXT: u32 = 4;
pub const PTRACE_POKEDATA: u32 = 5;
pub const PTRACE_POKEUSR: u32 = 6;
pub const PTRACE_CONT: u32 = 7;
pub const PTRACE_KILL: u32 = 8;
pub const PTRACE_SINGLESTEP: u32 = 9;
pub const PTRACE_GETREGS: u32 = 0xc;
pub const PTRACE_SETREGS: u32 = 0xd;
pub const PTRACE_GETFPREGS: u32 = 0xe;
pub const PTRACE_SETFPREGS: u32 = 0xf;
pub const PTRACE_ATTACH: u32 = 0x10;
pub const PTRACE_DETACH: u32 = 0x11;
pub const PTRACE_SYSCALL: u32 = 0x18;
pub const PTRACE_ARCH_PRCTL: u32 = 30;
pub const PTRACE_SYSEMU: u32 = 0x1f;
pub const PTRACE_SYSEMU_SINGLESTEP: u32 = 0x20;
pub const PTRACE_SINGLEBLOCK: u32 = 33;
pub const PTRACE_SETOPTIONS: u32 = 0x4200;
pub const PTRACE_GETEVENTMSG: u32 = 0x4201;
pub const PTRACE_GETSIGINFO: u32 = 0x4202;
pub const PTRACE_SETSIGINFO: u32 = 0x4203;
pub const PTRACE_GETREGSET: u32 = 0x4204;
pub const PTRACE_SETREGSET: u32 = 0x4205;
pub const PTRACE_SEIZE: u32 = 0x4206;
pub const PTRACE_INTERRUPT: u32 = 0x4207;
pub const PTRACE_LISTEN: u32 = 0x4208;
pub const PTRACE_PEEKSIGINFO: u32 = 0x4209;
pub const PTRACE_GETSIGMASK: u32 = 0x420a;
pub const PTRACE_SETSIGMASK: u32 = 0x420b;
pub const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
pub const PTRACE_SECCOMP_GET_METADATA: u32 = 0x420d;
pub const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
pub const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
pub const PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4210;
pub const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4211;
pub const PTRACE_SET_SYSCALL_INFO: u32 = 0x4212;

bitflags! {
    /// Options of PTRACE_SETOPTIONS and PTRACE_SEIZE.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PtraceOptions: u32 {
        const PTRACE_O_TRACESYSGOOD = 1;
        const PTRACE_O_TRACEFORK = 2;
        const PTRACE_O_TRACEVFORK = 4;
        const PTRACE_O_TRACECLONE = 8;
        const PTRACE_O_TRACEEXEC = 0x10;
        const PTRACE_O_TRACEVFORKDONE = 0x20;
        const PTRACE_O_TRACEEXIT = 0x40;
        const PTRACE_O_TRACESECCOMP = 0x80;
        const PTRACE_O_EXITKILL = 0x100000;
        const PTRACE_O_SUSPEND_SECCOMP = 0x200000;
    }
}

// Events, in bits 16 and up of a stop's status.
pub const PTRACE_EVENT_FORK: u32 = 1;
pub const PTRACE_EVENT_VFORK: u32 = 2;
pub const PTRACE_EVENT_CLONE: u32 = 3;
pub const PTRACE_EVENT_EXEC: u32 = 4;
pub const PTRACE_EVENT_VFORK_DONE: u32 = 5;
pub const PTRACE_EVENT_EXIT: u32 = 6;
pub const PTRACE_EVENT_SECCOMP: u32 = 7;
pub const PTRACE_EVENT_STOP: u32 = 128;
// What PTRACE_GETEVENTMSG says of a system call stop.
pub const PTRACE_EVENTMSG_SYSCALL_ENTRY: u32 = 1;
pub const PTRACE_EVENTMSG_SYSCALL_EXIT: u32 = 2;
// `op` of [`PtraceSyscallInfo`].
pub const PTRACE_SYSCALL_INFO_NONE: u8 = 0;
pub const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
pub const PTRACE_SYSCALL_INFO_EXIT: u8 = 2;
pub const PTRACE_SYSCALL_INFO_SECCOMP: u8 = 3;
pub const PTRACE_PEEKSIGINFO_SHARED: u32 = 1;

layout! {
    /// `struct user_regs_struct`: PTRACE_GETREGS and the register set NT_PRSTATUS.
    struct UserRegs[216] {
        r15: u64, r14: u64, r13: u64, r12: u64, bp: u64, bx: u64, r11: u64, r10: u64, r9: u64, r8: u64,
        ax: u64, cx: u64, dx: u64, si: u64, di: u64, orig_ax: u64, ip: u64, cs: u64, flags: u64, sp: u64,
        ss: u64, fs_base: u64, gs_base: u64, ds: u64, es: u64, fs: u64, gs: u64,
    }

    /// `struct user_i387_struct`: PTRACE_GETFPREGS and NT_PRFPREG, the image of FXSAVE.
    struct UserFpregs[512] {
        cwd: u16, swd: u16, twd: u16, fop: u16, rip: u64, rdp: u64, mxcsr: u32, mxcr_mask: u32, st_space: [u32; 32],
        xmm_space: [u32; 64], _padding: [u32; 24],
    }

    /// `struct ptrace_syscall_info`. `data` is: on entry `nr` and six arguments; on exit the result and in the low byte of
    /// the next word whether it is an error; for a filter `nr`, six arguments and `ret_data`.
    struct PtraceSyscallInfo[88] {
        op: u8, _pad: u8, flags: u16, arch: u32, instruction_pointer: u64, stack_pointer: u64, data: [u64; 8],
    }

    /// `struct ptrace_peeksiginfo_args`.
    struct PtracePeeksiginfoArgs[16] { off: u64, flags: u32, nr: i32 }

    /// `struct ptrace_rseq_configuration`.
    struct PtraceRseqConfiguration[24] {
        rseq_abi_pointer: u64, rseq_abi_size: u32, signature: u32, flags: u32, _pad: u32,
    }
}

// The size of `struct user`, which PTRACE_PEEKUSR reads: [`UserRegs`] first, debug registers from [`U_DEBUGREG`].
pub const USER_SIZE: u64 = 912;
pub const U_DEBUGREG: u64 = 848;
