//! Patched calls: the code that a rewritten `syscall` instruction leads to.
//!
//! A call site is a `syscall` instruction and what follows it. Five bytes from the `syscall` on become a jump to a
//! *trampoline* in reach, which holds the instructions that were overwritten and goes on behind them:
//!
//! ```text
//! site:  syscall              site:  jmp trampoline        trampoline: find the thread's page, or make the call
//!        cmp rax, -4095               (rest of cmp)                    jump to the stub's text (below)
//!        ja ..                        ja ..               continuation: cmp rax, -4095
//!                                                                      jmp site + 8
//! ```
//!
//! Only the instructions from the `syscall` on are touched: the processor has just executed it, so where they begin is
//! known and not guessed. Nothing says that no jump leads to one of them; therefore the trampoline is put where the
//! bytes of the jump at the places at which instructions began are invalid opcodes ([`super::site`]). Who jumps there gets an
//! exception, and is sent to the copy of the instruction in the trampoline.
//!
//! The stub has no register to itself. A thread's gs base points at its pages while the guest's own is 0 (to the guest
//! it reads as 0 wherever the kernel shows it); a thread with one of its own makes its calls unpatched. `syscall` may
//! destroy rcx and r11, and so does the trampoline; flags are kept (but for the direction flag all are in `lahf` and
//! `seto`; that one is not touched, which is why nothing here uses string instructions).
//!
//! Memory that a call reads, when it is small and easily found, is copied to the thread's page by the stub, and what a
//! call writes is copied from there ([`Carry`]). If the first copy faults, the handler lets it go on at the next step: the
//! sentry then looks for itself. If the second does, the call ends with EFAULT: a sibling has changed what the sentry had
//! found writable, or the file behind it has become shorter.

use super::frame::{CONTROL_FS, CONTROL_GS};
use super::request::{
    ANSWERS, ARGS, ASLEEP, AWAKE, CALL_DONE, CALL_REQUEST, CARRIED, CARRIED_ADDR, CARRIED_LEN, CARRIED_MAX,
    COMMAND, CONTINUATION, CPU, FLAGS, IP, LATER_COUNT, LOAD, LOAD_STACK, MASK, NUMBER, OPERATIONS,
    OPERATIONS_COUNT, OPERATIONS_DONE, OPERATIONS_MAX, PIECES, PIECES_MAX, REPLY, RESTING, RESULT, SAVE,
    SAVED, SAVED_FEATURES, SAVED_IMAGE, SAVED_STACK, SPIN, STATE, STRING_MAX,
};
use super::site::{COPIED, UNPATCHED};
use super::stub::RING;
use crate::DOORBELL;
use platform::stub::EXTRA_TEXT;

/// Offset of the code in the platform's text.
pub const OFFSET: usize = 0x800;

/// Saves whatever registers are not in the page yet. The guest's stack may not be touched, so the flags are pushed to the
/// page; a thread that is stopped there has its stack pointer in the page as well ([`Page::unpushed`](super::frame::Page::unpushed)).
macro_rules! save_registers {
    () => {
        concat!(
            "mov gs:[{saved}], rbx\n",
            "mov gs:[{saved} + 8], rbp\n",
            "mov gs:[{saved} + 16], rsp\n",
            "mov gs:[{saved} + 24], r12\n",
            "mov gs:[{saved} + 32], r13\n",
            "mov gs:[{saved} + 40], r14\n",
            "mov gs:[{saved} + 48], r15\n",
            "rdfsbase rax\n",
            "mov gs:[{saved} + 56], rax\n",
            "mov rsp, gs:[{saved_stack}]\n",
            "pushfq\n",
            "mov rsp, gs:[{saved} + 16]\n",
            "mov eax, gs:[{saved_features}]\n",
            "mov edx, gs:[{saved_features} + 4]\n",
            "mov ecx, gs:[{saved_image}]\n",
            "xsave64 gs:[rcx]\n",
        )
    };
}

std::arch::global_asm!(
    ".pushsection .rodata.systrap_patched, \"a\", @progbits",
    ".balign 64",
    ".globl __systrap_patched_start, __systrap_patched_end, __systrap_patched_saved",
    ".globl __systrap_patched_flags, __systrap_patched_args, __systrap_patched_posted",
    ".globl __systrap_patched_carrying, __systrap_patched_carried",
    ".globl __systrap_patched_copying, __systrap_patched_copied, __systrap_patched_faulted",
    ".globl __systrap_patched_loading",
    ".hidden __systrap_patched_loading",
    ".hidden __systrap_patched_start, __systrap_patched_end, __systrap_patched_saved",
    ".hidden __systrap_patched_flags, __systrap_patched_args, __systrap_patched_posted",
    ".hidden __systrap_patched_carrying, __systrap_patched_carried",
    ".hidden __systrap_patched_copying, __systrap_patched_copied, __systrap_patched_faulted",
    // From a trampoline: rcx = the address after the guest's call, the continuation is stored.
    "__systrap_patched_start:",
    "mov gs:[{ip}], rcx",
    "mov gs:[{number}], rax",
    "__systrap_patched_saved:",
    "lahf",
    "seto al",
    "mov gs:[{flags}], ax",
    "mov rcx, gs:[{number}]",
    "__systrap_patched_flags:",
    "xor r11d, r11d",
    "cmp rcx, {classes}",
    "jae .Lpatched_post",
    "lea r11, [rip + __systrap_patched_end]",
    "movzx r11d, byte ptr [r11 + rcx]",
    "test r11d, r11d",
    "jz .Lpatched_post",
    "cmp r11d, {unpatched}",
    "je .Lpatched_unpatched",
    "cmp r11d, {carry}",
    "jae .Lpatched_post",
    // A call that the thread may answer itself.
    "mov ecx, gs:[{mask}]",
    "bt ecx, r11d",
    "jnc .Lpatched_post",
    "mov rcx, gs:[r11 * 8 + {answers} - 8]",
    "mov ax, gs:[{flags}]",
    "add al, 0x7f",
    "sahf",
    "mov rax, rcx",
    "mov rcx, gs:[{ip}]",
    "mov r11d, 0x246",
    "jmp gs:[{continuation}]",
    // A call that needs its registers: as it was.
    ".Lpatched_unpatched:",
    "mov ax, gs:[{flags}]",
    "add al, 0x7f",
    "sahf",
    "mov rax, gs:[{number}]",
    "mov rcx, gs:[{continuation}]",
    "lea rcx, [rcx - {back}]",
    "jmp rcx",
    ".Lpatched_post:",
    "mov gs:[{args}], rdi",
    "mov gs:[{args} + 8], rsi",
    "mov gs:[{args} + 16], rdx",
    "mov gs:[{args} + 24], r10",
    "mov gs:[{args} + 32], r8",
    "mov gs:[{args} + 40], r9",
    "mov dword ptr gs:[{carried_len}], 0",
    "__systrap_patched_args:",
    "sub r11d, {carry}",
    "jb .Lpatched_taken",
    // What memory the call reads: rsi = address, rcx = length.
    "jz .Lpatched_string_first",
    "cmp r11d, 2",
    "jb .Lpatched_string",
    "je .Lpatched_buffer",
    "cmp r11d, 4",
    "jb .Lpatched_polled",
    "je .Lpatched_event",
    "cmp r11d, 6",
    "jb .Lpatched_time_first",
    "ja .Lpatched_saved",
    "mov rsi, rdx",
    "jmp .Lpatched_time",
    ".Lpatched_time_first:",
    "mov rsi, rdi",
    ".Lpatched_time:",
    "mov ecx, 16",
    "jmp .Lpatched_carry",
    ".Lpatched_event:",
    "mov rsi, r10",
    "mov ecx, 12",
    "jmp .Lpatched_carry",
    ".Lpatched_polled:",
    "mov rcx, rsi",
    "mov rsi, rdi",
    "cmp rcx, {carried_max} / 8",
    "ja .Lpatched_taken",
    "shl rcx, 3",
    "jmp .Lpatched_carry",
    ".Lpatched_buffer:",
    "mov rcx, rdx",
    "cmp rcx, {carried_max}",
    "ja .Lpatched_taken",
    ".Lpatched_carry:",
    "mov r9d, ecx",
    "xor r8d, r8d",
    "__systrap_patched_carrying:",
    "sub ecx, 8",
    "jb 3f",
    "2:",
    "mov rax, [rsi + r8]",
    "mov gs:[r8 + {carried}], rax",
    "add r8d, 8",
    "sub ecx, 8",
    "jae 2b",
    "3:",
    "add ecx, 8",
    "jz 5f",
    "4:",
    "mov al, [rsi + r8]",
    "mov gs:[r8 + {carried}], al",
    "inc r8d",
    "dec ecx",
    "jnz 4b",
    "5:",
    "mov gs:[{carried_addr}], rsi",
    "mov gs:[{carried_len}], r9d",
    "jmp .Lpatched_taken",
    ".Lpatched_saved:",
    save_registers!(),
    "jmp .Lpatched_taken",
    ".Lpatched_string_first:",
    "mov rsi, rdi",
    ".Lpatched_string:",
    "xor ecx, ecx",
    "2:",
    "mov al, [rsi + rcx]",
    "mov gs:[rcx + {carried}], al",
    "inc ecx",
    "test al, al",
    "jz 3f",
    "cmp ecx, {string_max}",
    "jb 2b",
    "3:",
    "mov gs:[{carried_addr}], rsi",
    "mov gs:[{carried_len}], ecx",
    "__systrap_patched_carried:",
    ".Lpatched_taken:",
    "mov eax, 0x7b", // the segment whose limit tells the processor (__CPUNODE_SEG)
    "lsl eax, eax",
    "mov gs:[{cpu}], eax",
    "mov edx, {request}",
    "mov esi, {request} + {asleep}",
    "mov eax, edx",
    "xchg gs:[{state}], eax",
    "__systrap_patched_posted:",
    // edx = what the sentry is to see, esi = the same when nobody spins.
    ".Lpatched_wait:",
    "cmp dword ptr gs:[{awake}], {resting}",
    "je .Lpatched_sleep",
    "mov ecx, gs:[{spin}]",
    ".Lpatched_spin:",
    "pause",
    "cmp gs:[{state}], edx",
    "jne .Lpatched_woken",
    "dec ecx",
    "jnz .Lpatched_spin",
    ".Lpatched_sleep:",
    "mov eax, edx",
    "lock cmpxchg gs:[{state}], esi",
    "jne .Lpatched_woken",
    ".Lpatched_ring:",
    "mov edi, {ring}",
    "mov eax, {doorbell}",
    "syscall",
    // Anything but 0 is an order to leave, or ENOSYS because the sentry's end is closed.
    "test rax, rax",
    "jnz .Lpatched_exit",
    ".Lpatched_woken:",
    "mov eax, gs:[{state}]",
    "cmp eax, {reply}",
    "je .Lpatched_return",
    "cmp eax, {command}",
    "je .Lpatched_command",
    "cmp eax, {save}",
    "je .Lpatched_save",
    "cmp eax, {load}",
    "je .Lpatched_load",
    "cmp eax, esi",
    "je .Lpatched_ring",
    "cmp eax, edx",
    "je .Lpatched_wait",
    ".Lpatched_exit:",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "ud2",
    // Calls that the sentry orders, up to the first that fails.
    ".Lpatched_command:",
    "mov dword ptr gs:[{operations_done}], 0",
    ".Lpatched_next:",
    "mov ecx, gs:[{operations_done}]",
    "cmp ecx, gs:[{operations_count}]",
    "jae .Lpatched_done",
    "cmp ecx, {operations_max}",
    "jae .Lpatched_done",
    "shl ecx, 6",
    "mov eax, gs:[rcx + {operations}]",
    "mov rdi, gs:[rcx + {operations} + 8]",
    "mov rsi, gs:[rcx + {operations} + 16]",
    "mov rdx, gs:[rcx + {operations} + 24]",
    "mov r10, gs:[rcx + {operations} + 32]",
    "mov r8, gs:[rcx + {operations} + 40]",
    "mov r9, gs:[rcx + {operations} + 48]",
    "syscall",
    "mov ecx, gs:[{operations_done}]",
    "and ecx, {operations_max} - 1",
    "shl ecx, 6",
    "mov gs:[rcx + {operations} + 56], rax",
    "inc dword ptr gs:[{operations_done}]",
    "cmp rax, -4095",
    "jb .Lpatched_next",
    ".Lpatched_done:",
    "mov edx, {done}",
    "mov esi, {done} + {asleep}",
    "mov eax, edx",
    "xchg gs:[{state}], eax",
    "jmp .Lpatched_wait",
    ".Lpatched_return:",
    "cmp dword ptr gs:[{later_count}], 0",
    "jne .Lpatched_later",
    ".Lpatched_restore:",
    "mov rdi, gs:[{args}]",
    "mov rsi, gs:[{args} + 8]",
    "mov rdx, gs:[{args} + 16]",
    "mov r10, gs:[{args} + 24]",
    "mov r8, gs:[{args} + 32]",
    "mov r9, gs:[{args} + 40]",
    "mov ax, gs:[{flags}]",
    "add al, 0x7f",
    "sahf",
    "mov rax, gs:[{result}]",
    "mov rcx, gs:[{ip}]",
    "mov r11d, 0x246",
    "jmp gs:[{continuation}]",
    // Memory that the call has written, up to PIECES_MAX pieces.
    ".Lpatched_later:",
    "xor r8d, r8d",
    ".Lpatched_piece:",
    "cmp r8d, gs:[{later_count}]",
    "jae .Lpatched_restore",
    "cmp r8d, {pieces_max}",
    "jae .Lpatched_restore",
    "mov r9d, r8d",
    "shl r9d, 4",
    "mov rdi, gs:[r9 + {pieces}]",
    "mov ecx, gs:[r9 + {pieces} + 8]",
    "mov esi, gs:[r9 + {pieces} + 12]",
    "inc r8d",
    "__systrap_patched_copying:",
    "sub ecx, 8",
    "jb 3f",
    "2:",
    "mov rax, gs:[rsi]",
    "mov [rdi], rax",
    "add esi, 8",
    "add rdi, 8",
    "sub ecx, 8",
    "jae 2b",
    "3:",
    "add ecx, 8",
    "jz .Lpatched_piece",
    "4:",
    "mov al, gs:[rsi]",
    "mov [rdi], al",
    "inc esi",
    "inc rdi",
    "dec ecx",
    "jnz 4b",
    "__systrap_patched_copied:",
    "jmp .Lpatched_piece",
    // That memory faults.
    "__systrap_patched_faulted:",
    "mov qword ptr gs:[{result}], -{efault}",
    "jmp .Lpatched_restore",
    ".Lpatched_save:",
    save_registers!(),
    "jmp .Lpatched_done",
    // All registers as a frame in the page says.
    "__systrap_patched_loading:",
    ".Lpatched_load:",
    "mov rax, gs:[{fs}]",
    "mov rcx, gs:[{gs}]",
    "mov rsp, gs:[{load_stack}]",
    "wrfsbase rax",
    "wrgsbase rcx",
    "mov eax, 15",
    "syscall",
    "ud2",
    "__systrap_patched_end:",
    ".popsection",
    ip = const IP,
    number = const NUMBER,
    flags = const FLAGS,
    mask = const MASK,
    answers = const ANSWERS,
    continuation = const CONTINUATION,
    back = const COPIED - UNPATCHED,
    args = const ARGS,
    cpu = const CPU,
    request = const CALL_REQUEST,
    done = const CALL_DONE,
    asleep = const ASLEEP,
    state = const STATE,
    awake = const AWAKE,
    resting = const RESTING,
    spin = const SPIN,
    ring = const RING,
    doorbell = const DOORBELL,
    reply = const REPLY,
    command = const COMMAND,
    save = const SAVE,
    load = const LOAD,
    saved = const SAVED,
    saved_stack = const SAVED_STACK,
    saved_features = const SAVED_FEATURES,
    saved_image = const SAVED_IMAGE,
    load_stack = const LOAD_STACK,
    fs = const CONTROL_FS,
    gs = const CONTROL_GS,
    result = const RESULT,
    efault = const libc::EFAULT,
    operations = const OPERATIONS,
    operations_count = const OPERATIONS_COUNT,
    operations_done = const OPERATIONS_DONE,
    operations_max = const OPERATIONS_MAX,
    classes = const CLASSES,
    unpatched = const UNPATCHED_CLASS,
    carry = const CARRY_CLASS,
    carried = const CARRIED,
    carried_addr = const CARRIED_ADDR,
    carried_len = const CARRIED_LEN,
    carried_max = const CARRIED_MAX,
    string_max = const STRING_MAX,
    later_count = const LATER_COUNT,
    pieces = const PIECES,
    pieces_max = const PIECES_MAX,
);

unsafe extern "C" {
    static __systrap_patched_start: u8;
    static __systrap_patched_saved: u8;
    static __systrap_patched_flags: u8;
    static __systrap_patched_args: u8;
    static __systrap_patched_carrying: u8;
    static __systrap_patched_carried: u8;
    static __systrap_patched_copying: u8;
    static __systrap_patched_copied: u8;
    static __systrap_patched_faulted: u8;
    static __systrap_patched_loading: u8;
    static __systrap_patched_posted: u8;
    static __systrap_patched_end: u8;
}

/// Calls that have a class.
const CLASSES: usize = 512;
/// The class of calls that need their registers, and are made as if the site were not patched.
const UNPATCHED_CLASS: u8 = 0xff;
/// The first class of calls with carried memory.
const CARRY_CLASS: u8 = 0x10;

/// What memory of a call is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Carry {
    /// The string at the first argument.
    FirstString = CARRY_CLASS,
    /// The string at the second argument.
    SecondString,
    /// As many bytes as the third argument says at the second.
    Buffer,
    /// As many `struct pollfd` as the second argument says at the first.
    Polled,
    /// A `struct epoll_event` at the fourth argument.
    Event,
    /// A `struct timespec` at the first argument.
    FirstTime,
    /// A `struct timespec` at the third argument.
    ThirdTime,
    /// No memory, but the registers: the call may deliver a signal to its own thread.
    Registers,
}

/// The calls with carried memory. None reads memory whose *present* value matters, as that of a futex does.
const CARRYING: &[(Carry, &[i64])] = &[
    (
        Carry::FirstString,
        &[
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_stat,
            libc::SYS_lstat,
            libc::SYS_access,
            libc::SYS_chdir,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
            libc::SYS_unlink,
            libc::SYS_readlink,
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_rename,
            libc::SYS_link,
            libc::SYS_symlink,
            libc::SYS_truncate,
            libc::SYS_statfs,
        ],
    ),
    (
        Carry::SecondString,
        &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_statx,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_readlinkat,
            libc::SYS_fchmodat,
            libc::SYS_fchownat,
            libc::SYS_utimensat,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
        ],
    ),
    (Carry::Buffer, &[libc::SYS_write, libc::SYS_pwrite64, libc::SYS_sendto]),
    (Carry::Polled, &[libc::SYS_poll, libc::SYS_ppoll]),
    (Carry::Event, &[libc::SYS_epoll_ctl]),
    (Carry::FirstTime, &[libc::SYS_nanosleep]),
    (Carry::ThirdTime, &[libc::SYS_clock_nanosleep]),
    (Carry::Registers, &[libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill]),
];

/// The classes by number: 0 for the sentry, else the number of the answer that the stub may give, or one of the above.
fn classes() -> [u8; CLASSES] {
    let mut classes = [0; CLASSES];
    let mut set = |number: u64, class: u8| classes[number as usize] = class;
    for (index, number) in platform::ANSWERS.into_iter().enumerate() {
        set(number, index as u8 + 1);
    }
    for number in super::filter::WITH_CONTEXT {
        set(number as u64, UNPATCHED_CLASS);
    }
    for &(carry, numbers) in CARRYING {
        for &number in numbers {
            set(number as u64, carry as u8);
        }
    }
    classes
}

/// The code, to be put at [`OFFSET`].
pub fn text() -> Vec<u8> {
    // SAFETY: the symbols delimit read-only data defined above.
    let code = unsafe {
        let start = &raw const __systrap_patched_start;
        let end = &raw const __systrap_patched_end;
        std::slice::from_raw_parts(start, end as usize - start as usize)
    };
    [code, &classes()].concat()
}

/// The address at which one of the symbols is in a stub.
fn address(symbol: *const u8) -> u64 {
    EXTRA_TEXT + OFFSET as u64 + (symbol as u64 - &raw const __systrap_patched_start as u64)
}

/// Where the code touches memory of the guest: first address, one past the last, and where to go on if that faults.
pub fn fixups() -> [[u64; 3]; 2] {
    let carried = address(&raw const __systrap_patched_carried);
    let copied = address(&raw const __systrap_patched_copied);
    let faulted = address(&raw const __systrap_patched_faulted);
    [
        [address(&raw const __systrap_patched_carrying), carried, carried],
        [address(&raw const __systrap_patched_copying), copied, faulted],
    ]
}

/// Whether the registers have come with a call of this number.
pub fn has_registers(number: u64) -> bool {
    let mut with = CARRYING.iter().filter(|(carry, _)| *carry == Carry::Registers);
    with.any(|(_, numbers)| numbers.iter().any(|&with| with as u64 == number))
}

/// How far a thread has come whose instruction pointer is in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing has changed; the address after the call may not be stored yet.
    Entered,
    /// The number is stored, and rax is lost.
    Saved,
    /// So are the flags.
    FlagsSaved,
    /// And the arguments, of which any may be lost.
    ArgsSaved,
    /// The request is posted, and any register of an argument may be lost.
    Posted,
    /// It takes all registers as the sentry has given them.
    Loading,
}

/// The progress that an instruction pointer tells, if it is in the code.
pub fn progress(ip: u64) -> Option<Progress> {
    let offset = ip.checked_sub(EXTRA_TEXT + OFFSET as u64)?;
    let start = &raw const __systrap_patched_start as u64;
    let at = |symbol: *const u8| symbol as u64 - start;
    if offset >= at(&raw const __systrap_patched_end) {
        None
    } else if offset >= at(&raw const __systrap_patched_loading) {
        Some(Progress::Loading)
    } else if offset >= at(&raw const __systrap_patched_posted) {
        Some(Progress::Posted)
    } else if offset >= at(&raw const __systrap_patched_args) {
        Some(Progress::ArgsSaved)
    } else if offset >= at(&raw const __systrap_patched_flags) {
        Some(Progress::FlagsSaved)
    } else if offset >= at(&raw const __systrap_patched_saved) {
        Some(Progress::Saved)
    } else {
        Some(Progress::Entered)
    }
}

/// Whether the processor has what trampolines need: `rorx` (BMI2), and `lahf` in 64-bit mode.
pub fn is_possible() -> bool {
    let lahf = core::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 != 0;
    std::arch::is_x86_feature_detected!("bmi2") && lahf
}

/// Arithmetic flags that `lahf` and `seto` save.
const ARITHMETIC: u64 = 0x8d5;

/// `eflags` with the arithmetic flags as the code stored them.
pub fn restore_flags(eflags: u64, stored: u16) -> u64 {
    let overflow = u64::from(stored & 1) << 11;
    eflags & !ARITHMETIC | u64::from(stored >> 8) & 0xd5 | overflow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_back() {
        // CF, ZF and OF set.
        assert_eq!(restore_flags(0x246, 0x4700 | 1), 0x246 & !0x8d5 | 0x45 | 0x800);
        assert_eq!(restore_flags(0x8d7, 0x0200), 0x2);
    }

    #[test]
    fn classes_do_not_overlap() {
        let listed = CARRYING.iter().map(|(_, numbers)| numbers.len()).sum::<usize>();
        let all = listed + platform::ANSWERS.len() + super::super::filter::WITH_CONTEXT.len();
        assert_eq!(classes().iter().filter(|&&class| class != 0).count(), all);
        assert!(Carry::ThirdTime as u8 == CARRY_CLASS + 6, "as the assembler has it");
        assert!(has_registers(libc::SYS_tgkill as u64) && !has_registers(libc::SYS_write as u64));
    }
}
