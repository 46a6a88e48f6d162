//! The code that guest threads run in the stub: the start of a thread, and the one signal handler.
//!
//! It is linked as read-only data and mapped at [`EXTRA_TEXT`] of each stub process. It uses no SSE, no TLS, no stack,
//! and keeps in registers what a sibling thread must not change.
//!
//! The handler runs on the signal stack in the thread's shared page with all signals blocked. It tells the sentry with
//! the doorbell, a call that the thread's filter hands to the listener:
//!
//! ```text
//! rdi signal, or START or CALLED   rsi siginfo, or the result of a call    rdx ucontext
//! r10 fs base    r8 gs base    r9 entries so far, so that a restarted doorbell is told from a new one
//! ```
//!
//! and the answer says how to go on: see [`Command`].

use super::frame::{
    CONTROL_CALL, CONTROL_COUNT, CONTROL_FS, CONTROL_GS, CONTROL_LISTENER, CONTROL_TIME, SIGINFO, UCONTEXT,
};
use super::{filter, patched};
use crate::DOORBELL;
use platform::stub::{EXTRA_TEXT, SLOT_SIZE, SLOTS, arch::FAULT_HANDLER};

/// `rdi` of a doorbell: a thread has started.
pub const START: u64 = 0x100;
/// `rdi` of a doorbell: a call that the sentry ordered was made.
pub const CALLED: u64 = 0x101;
/// `rdi` of a doorbell: a patched call waits, or operations are done; see [`super::request`].
pub const RING: u64 = 0x102;

/// The answer to a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Command {
    /// rt_sigreturn.
    Return = 0,
    /// Load the bases of fs and gs from the page, then rt_sigreturn.
    LoadAndReturn = 1,
    /// Make the call in the page, then ring again.
    Call = 2,
    /// End the thread.
    Exit = 3,
    /// Only to the first doorbell, which closes its descriptor of the listener whatever the answer is: ring again.
    Again = 4,
}

/// Offset of a new thread's first steps.
const START_OFFSET: u64 = 0;
/// Offset of the signal handler.
const HANDLER_OFFSET: u64 = 8;
/// Offset of rt_sigreturn.
const RETURN_OFFSET: u64 = 16;
/// Offset of [`patched::fixups`].
const FIXUPS_OFFSET: usize = 0x3c0;
/// Offset of `struct sock_fprog`.
const PROGRAM_OFFSET: usize = 0x400;
/// Offset of rip in ucontext.
const UC_RIP: usize = 40 + 16 * 8;

std::arch::global_asm!(
    ".pushsection .rodata.systrap_text, \"a\", @progbits",
    ".balign 64",
    ".globl __systrap_text_start, __systrap_text_end",
    ".hidden __systrap_text_start, __systrap_text_end",
    "__systrap_text_start:",
    ".balign 8; jmp .Lsystrap_start",
    ".balign 8; jmp .Lsystrap_handler",
    ".balign 8; jmp .Lsystrap_return",
    ".balign 16",
    // A new thread, from a frame that blocks all signals: rsp = the place of frames. The filter comes with a listener,
    // whose number goes to the sentry by the command socket. The answer to the doorbell says that the sentry has taken it,
    // so that it can be closed.
    ".Lsystrap_start:",
    "mov r15, rsp",
    "and r15, -{slot}",
    "mov edi, 1", // SECCOMP_SET_MODE_FILTER
    "mov esi, 8", // SECCOMP_FILTER_FLAG_NEW_LISTENER
    "lea rdx, [rip + __systrap_text_start + {program}]",
    "mov eax, 317",
    "syscall",
    "mov ebx, eax",
    "mov [r15 + {listener}], eax",
    "xor edi, edi",
    "lea rsi, [r15 + {listener}]",
    "mov edx, 4",
    "mov r10d, 0x4000", // MSG_NOSIGNAL
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 44",
    "syscall",
    "test ebx, ebx",
    "js .Lsystrap_exit",
    "test rax, rax",
    "js .Lsystrap_exit",
    "mov edi, {start}",
    "lea rsi, [rsp + {siginfo}]",
    "lea rdx, [rsp + {ucontext}]",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov r9, [r15 + {count}]",
    "inc r9",
    "mov [r15 + {count}], r9",
    "mov eax, {doorbell}",
    "syscall",
    "mov r12, rax",
    "mov edi, ebx",
    "mov eax, 3",
    "syscall",
    "mov rax, r12",
    "cmp rax, 4",
    "jne .Lsystrap_answer",
    "mov edi, {start}",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "jmp .Lsystrap_ring",
    // rdi = signal, rsi = siginfo, rdx = ucontext, rsp = frame.
    ".Lsystrap_handler:",
    // The service thread has its signal stack below the slots, and a handler of its own.
    "movabs rax, {slots}",
    "cmp rsp, rax",
    "jb .Lsystrap_service",
    // A copy for a patched call that met memory which is not there goes on without.
    "cmp edi, 11",
    "je 3f",
    "cmp edi, 7",
    "jne 5f",
    "3:",
    "cmp dword ptr [rsi + 8], 0",
    "jle 5f",
    "mov rax, [rdx + {rip}]",
    "lea rcx, [rip + __systrap_text_start + {fixups}]",
    "cmp rax, [rcx]",
    "jb 4f",
    "cmp rax, [rcx + 8]",
    "jb 6f",
    "4:",
    "add rcx, 24",
    "cmp rax, [rcx]",
    "jb 5f",
    "cmp rax, [rcx + 8]",
    "jae 5f",
    "6:",
    "mov rax, [rcx + 16]",
    "mov [rdx + {rip}], rax",
    "jmp .Lsystrap_return",
    "5:",
    "mov r15, rsp",
    "and r15, -{slot}",
    // Most calls that are trapped end the thread, or its use of this process: its processor time will be asked for.
    "cmp edi, 31",
    "jne 7f",
    "mov r12d, edi",
    "mov r13, rsi",
    "mov r14, rdx",
    "mov edi, 3", // CLOCK_THREAD_CPUTIME_ID
    "lea rsi, [r15 + {time}]",
    "mov eax, 228",
    "syscall",
    "mov edi, r12d",
    "mov rsi, r13",
    "mov rdx, r14",
    "7:",
    "rdfsbase r10",
    "rdgsbase r8",
    ".Lsystrap_ring:",
    "mov r9, [r15 + {count}]",
    "inc r9",
    "mov [r15 + {count}], r9",
    "mov eax, {doorbell}",
    "syscall",
    ".Lsystrap_answer:",
    "cmp rax, 1",
    "je .Lsystrap_load",
    "jb .Lsystrap_return",
    "cmp rax, 2",
    "je .Lsystrap_call",
    // Ordered, or the sentry's end is closed (ENOSYS).
    ".Lsystrap_exit:",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "ud2",
    ".Lsystrap_load:",
    "mov rax, [r15 + {fs}]",
    "wrfsbase rax",
    "mov rax, [r15 + {gs}]",
    "wrgsbase rax",
    ".Lsystrap_return:",
    "add rsp, 8",
    "mov eax, 15",
    "syscall",
    "ud2",
    ".Lsystrap_call:",
    "mov r12, rdx",
    "mov eax, [r15 + {call}]",
    "mov rdi, [r15 + {call} + 8]",
    "mov rsi, [r15 + {call} + 16]",
    "mov rdx, [r15 + {call} + 24]",
    "mov r10, [r15 + {call} + 32]",
    "mov r8, [r15 + {call} + 40]",
    "mov r9, [r15 + {call} + 48]",
    "syscall",
    "mov edi, {called}",
    "mov rsi, rax",
    "mov rdx, r12",
    "jmp .Lsystrap_ring",
    ".Lsystrap_service:",
    // Signals from a process are nobody's business here.
    "cmp dword ptr [rsi + 8], 0",
    "jle .Lsystrap_return",
    "movabs rax, {service}",
    "jmp rax",
    "__systrap_text_end:",
    ".popsection",
    program = const PROGRAM_OFFSET,
    fixups = const FIXUPS_OFFSET,
    rip = const UC_RIP,
    slot = const SLOT_SIZE,
    listener = const CONTROL_LISTENER,
    count = const CONTROL_COUNT,
    fs = const CONTROL_FS,
    gs = const CONTROL_GS,
    call = const CONTROL_CALL,
    time = const CONTROL_TIME,
    siginfo = const SIGINFO,
    ucontext = const UCONTEXT,
    start = const START,
    called = const CALLED,
    doorbell = const DOORBELL,
    slots = const SLOTS,
    service = const FAULT_HANDLER,
);

unsafe extern "C" {
    static __systrap_text_start: u8;
    static __systrap_text_end: u8;
}

/// Where a thread starts whose state is a frame at its stack pointer.
pub const ENTRY: u64 = EXTRA_TEXT + RETURN_OFFSET;
/// Where that frame lets it go on, with all signals blocked.
pub const PROLOGUE: u64 = EXTRA_TEXT + START_OFFSET;
/// Where the `struct sock_fprog` of the threads' filter is.
pub const PROGRAM: u64 = EXTRA_TEXT + PROGRAM_OFFSET as u64;
/// Guest code for the trial run: getpid, then the call whose number was the result, then an invalid instruction.
pub const TRIAL: &[u8] = &[
    0xb8, 39, 0, 0, 0, // mov eax, 39
    0x0f, 0x05, // syscall
    0x0f, 0x05, // syscall
    0x0f, 0x0b, // ud2
];
/// The handler of all signals.
pub const HANDLER: u64 = EXTRA_TEXT + HANDLER_OFFSET;

/// The text with the thread filter behind it, to be mapped at [`EXTRA_TEXT`].
pub fn text() -> Vec<u8> {
    // SAFETY: the symbols delimit read-only data defined above.
    let code = unsafe {
        let start = &raw const __systrap_text_start;
        let end = &raw const __systrap_text_end;
        std::slice::from_raw_parts(start, end as usize - start as usize)
    };
    assert!(code.len() <= FIXUPS_OFFSET, "the stub's code runs into what follows");
    let mut text = code.to_vec();
    text.resize(FIXUPS_OFFSET, 0xcc);
    for word in patched::fixups().as_flattened() {
        text.extend_from_slice(&word.to_le_bytes());
    }
    text.resize(PROGRAM_OFFSET, 0xcc);
    let program = filter::program();
    text.extend_from_slice(&(program.len() as u64).to_le_bytes());
    text.extend_from_slice(&(PROGRAM + 16).to_le_bytes());
    for instruction in program {
        text.extend_from_slice(&instruction.code.to_le_bytes());
        text.extend_from_slice(&[instruction.jt, instruction.jf]);
        text.extend_from_slice(&instruction.k.to_le_bytes());
    }
    assert!(text.len() <= patched::OFFSET, "the filter runs into the code of patched calls");
    text.resize(patched::OFFSET, 0xcc);
    text.extend_from_slice(&patched::text());
    text
}
