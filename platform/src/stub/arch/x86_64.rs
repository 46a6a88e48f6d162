//! The stub's code for x86-64: entry, command loop, and the few routines that guest threads are sent to.
//!
//! It is linked as read-only data, copied to a sealed memfd, and runs at [`STUB_TEXT`]. It uses no SSE, no TLS and (but
//! for the fault handler) no stack, and keeps what it can in registers, since guests can write its memory.
//!
//! Layout of [`STUB_DATA`] (`r15` in the loop):
//!
//! ```text
//! 0x0000  struct msghdr (56 bytes), struct iovec at 0x40
//! 0x0080  control buffer: cmsghdr (16 bytes), then the received descriptors as int[16] at 0x90
//! 0x0100  reply: u32 sequence, u32 done, i64 results[56]
//! 0x0300  command: u32 sequence, u32 count, ops[56] of { u32 nr, u32 flags, u64 args[6] }; all in one page, because after
//!         a fork both processes get a copy of each page that they write
//! 0x2000  scratch page
//! 0x3000  signal stack, up to the end
//! ```

use super::super::{FILTER_OFFSET, MAX_OPS, STUB_DATA, STUB_DATA_SIZE, STUB_END, STUB_TEXT};

const _: () = assert!(0x108 + MAX_OPS * 8 <= 0x300 && 0x308 + MAX_OPS * 56 <= 0x1000);

/// AUDIT_ARCH_X86_64 (audit.h).
pub const AUDIT_ARCH: u32 = 0xc000_003e;

/// clone(2) flags of guest threads: CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM. The only ones, besides
/// CLONE_PARENT alone for a process, that the filter lets through.
pub const THREAD_FLAGS: u64 = 0x5_0f00;

std::arch::global_asm!(
    ".pushsection .rodata.stub_text, \"a\", @progbits",
    ".balign 64",
    ".globl __stub_text_start, __stub_text_end",
    ".hidden __stub_text_start, __stub_text_end",
    "__stub_text_start:",
    // The first bytes are a table of jumps at fixed offsets, 8 bytes each.
    ".balign 8; jmp .Lstub_enter",
    ".balign 8; jmp .Lstub_park",
    ".balign 8; jmp .Lstub_exit",
    ".balign 8; jmp .Lstub_fault_handler",
    ".balign 8; jmp .Lstub_restorer",
    // CALL_TRAP: one system call, then a trap for the tracer.
    ".balign 8; syscall; int3",
    ".balign 16",
    // Entry, in the freshly forked template: rdi = length of the text, fd 0 = command socket, fd 1 = text. All
    // signals are blocked. r13 counts steps for the error report; rsp is the stack of the Rust caller at first.
    ".Lstub_enter:",
    "mov r12, rdi",
    "mov r13d, 100",
    "movabs rdi, {text}",
    "mov rsi, r12",
    "mov edx, 5",     // PROT_READ | PROT_EXEC
    "mov r10d, 0x11", // MAP_SHARED | MAP_FIXED
    "mov r8d, 1",
    "xor r9d, r9d",
    "mov eax, 9",
    "syscall",
    "cmp rax, rdi",
    "jne .Lfail",
    "inc r13d", // 101
    "movabs r15, {data}",
    "mov rdi, r15",
    "mov esi, {data_size}",
    "mov edx, 3",     // PROT_READ | PROT_WRITE
    "mov r10d, 0x32", // MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    "mov r8, -1",
    "xor r9d, r9d",
    "mov eax, 9",
    "syscall",
    "cmp rax, r15",
    "jne .Lfail",
    "lea rsp, [r15 + {data_size}]",
    // Go on in the final mapping, and leave nothing else.
    "inc r13d", // 102
    "movabs rax, {text}",
    "lea rcx, [rip + 2f]",
    "lea rdx, [rip + __stub_text_start]",
    "sub rcx, rdx",
    "add rax, rcx",
    "jmp rax",
    "2:",
    "xor edi, edi",
    "movabs rsi, {text}",
    "mov eax, 11",
    "syscall",
    "test rax, rax",
    "jnz .Lfail",
    "inc r13d", // 103
    "movabs rdi, {text}",
    "add rdi, r12",
    "mov rsi, r15",
    "sub rsi, rdi",
    "mov eax, 11",
    "syscall",
    "test rax, rax",
    "jnz .Lfail",
    "inc r13d", // 104
    "lea rdi, [r15 + {data_size}]",
    "movabs rsi, {end}",
    "sub rsi, rdi",
    "mov eax, 11",
    "syscall",
    "test rax, rax",
    "jnz .Lfail",
    "mov edi, 1",
    "mov eax, 3",
    "syscall", // close the text
    // Nothing of the sentry's registers may stay: FPU and vectors to their initial state (all but PKRU, component
    // 9, which the kernel has set), then the segment bases.
    "mov dword ptr [r15 + 0x3000 + 24], 0x1f80",
    "mov eax, 0xfffffdff",
    "mov edx, 0x7fffffff",
    "xrstor64 [r15 + 0x3000]",
    "mov dword ptr [r15 + 0x3000 + 24], 0",
    "mov edi, 0x1002", // ARCH_SET_FS
    "xor esi, esi",
    "mov eax, 158",
    "syscall",
    "mov edi, 0x1001", // ARCH_SET_GS
    "xor esi, esi",
    "mov eax, 158",
    "syscall",
    "inc r13d",   // 105
    "mov edi, 2", // SIG_SETMASK to the empty set, which is at the start of the scratch page
    "lea rsi, [r15 + 0x2000]",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 14",
    "syscall",
    "test rax, rax",
    "jnz .Lfail",
    "inc r13d",   // 106
    "mov edi, 1", // SECCOMP_SET_MODE_FILTER
    "mov esi, 4", // SECCOMP_FILTER_FLAG_SPEC_ALLOW
    "movabs rdx, {text} + {filter}",
    "mov eax, 317",
    "syscall",
    "test rax, rax",
    "jnz .Lfail",
    "xor ebp, ebp",
    "xor ebx, ebx",
    "xor r13d, r13d",
    "jmp .Lready",
    // Report { step, -errno } in 16 bytes and go.
    ".Lfail:",
    "push rax",
    "push r13",
    "xor edi, edi",
    "mov rsi, rsp",
    "mov edx, 16",
    "mov r10d, 0x4000",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 44",
    "syscall",
    ".Ldie:",
    "mov edi, 1",
    "mov eax, 231",
    "syscall",
    "ud2",
    // The command loop. ebp = descriptors received, ebx = operations, r13 = index of the operation at r14.
    ".Lloop:",
    "xor eax, eax",
    "mov [r15], rax",
    "mov [r15 + 8], rax",
    "mov [r15 + 48], rax",
    "lea rax, [r15 + 0x40]",
    "mov [r15 + 16], rax",
    "mov qword ptr [r15 + 24], 1",
    "lea rax, [r15 + 0x80]",
    "mov [r15 + 32], rax",
    "mov qword ptr [r15 + 40], 80", // CMSG_SPACE of 16 descriptors
    "lea rax, [r15 + 0x300]",
    "mov [r15 + 0x40], rax",
    "mov qword ptr [r15 + 0x48], 0xd00",
    "xor edi, edi",
    "mov rsi, r15",
    "mov edx, 0x40000000", // MSG_CMSG_CLOEXEC
    "mov eax, 47",
    "syscall",
    "cmp rax, -4",
    "je .Lloop",
    "cmp rax, 8",
    "jl .Ldie", // the sentry is gone
    "xor ebp, ebp",
    "cmp qword ptr [r15 + 40], 20",
    "jb 3f",
    "mov rbp, [r15 + 0x80]",
    "sub rbp, 16",
    "shr rbp, 2",
    "cmp rbp, 16",
    "ja .Ldie",
    "3:",
    "mov ebx, [r15 + 0x304]",
    "cmp ebx, {max_ops}",
    "ja .Ldie",
    "xor r13d, r13d",
    "lea r14, [r15 + 0x308]",
    ".Lnext_op:",
    "cmp r13d, ebx",
    "jae .Ldone",
    // Bits 0..2 of the flags name the argument that is an index of a received descriptor; 7 is none.
    "mov eax, [r14 + 4]",
    "and eax, 7",
    "cmp eax, 6",
    "jae 4f",
    "mov rcx, [r14 + rax * 8 + 8]",
    "and ecx, 15",
    "mov ecx, [r15 + rcx * 4 + 0x90]",
    "mov [r14 + rax * 8 + 8], rcx",
    "4:",
    "mov rdi, [r14 + 8]",
    "mov rsi, [r14 + 16]",
    "mov rdx, [r14 + 24]",
    "mov r10, [r14 + 32]",
    "mov r8, [r14 + 40]",
    "mov r9, [r14 + 48]",
    "mov eax, [r14]",
    "cmp eax, 0x40000000",
    "jae .Lspecial",
    "syscall",
    ".Lresult:",
    "mov [r15 + r13 * 8 + 0x108], rax",
    "inc r13d",
    "cmp rax, -4095",
    "jb 5f",
    "test dword ptr [r14 + 4], 8", // keep going
    "jz .Ldone",
    "5:",
    "add r14, 56",
    "jmp .Lnext_op",
    ".Ldone:",
    "test ebp, ebp",
    "jz .Lready",
    "dec ebp",
    "mov edi, [r15 + rbp * 4 + 0x90]",
    "mov eax, 3",
    "syscall",
    "jmp .Ldone",
    ".Lready:",
    "mov eax, [r15 + 0x300]",
    "mov [r15 + 0x100], eax",
    "mov [r15 + 0x104], r13d",
    ".Lsend:",
    "xor edi, edi",
    "lea rsi, [r15 + 0x100]",
    "lea edx, [r13 * 8 + 8]",
    "mov r10d, 0x4000", // MSG_NOSIGNAL
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 44",
    "syscall",
    "cmp rax, -4",
    "je .Lsend",
    "test rax, rax",
    "js .Ldie",
    "jmp .Lloop",
    // Operations that are not plain system calls.
    ".Lspecial:",
    "sub eax, 0x40000000",
    "jz .Lop_fork",
    "dec eax",
    "jz .Lop_thread",
    "dec eax",
    "jz .Lop_cmpxchg",
    "mov rax, -38",
    "jmp .Lresult",
    // FORK(fd of the child's command socket)
    ".Lop_fork:",
    "mov r12d, edi",
    "mov edi, 0x8000", // CLONE_PARENT, and no exit signal
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 6f",
    "lea ebx, [r13 + 1]", // What comes next is the child's.
    "jmp .Lresult",
    "6:",
    "mov edi, r12d",
    "xor esi, esi",
    "mov eax, 33",
    "syscall",
    "test rax, rax",
    "jnz .Ldie",
    "mov edi, 1", // PR_SET_PDEATHSIG, which fork clears
    "mov esi, 9",
    "mov eax, 157",
    "syscall",
    "lea eax, [r13 + 1]",
    "sub ebx, eax",
    "xor r13d, r13d",
    "xor ebp, ebp", // The command says what to close.
    "add r14, 56",
    "jmp .Lnext_op",
    // THREAD(stack, entry, argument)
    ".Lop_thread:",
    "mov r12, rsi",
    "mov r9, rdx",
    "mov rsi, rdi",
    "mov edi, {thread_flags}",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jnz .Lresult",
    "mov rdi, r9",
    "jmp r12",
    // CMPXCHG(address, expected, new): the value found, or -EFAULT through the fault handler.
    ".Lop_cmpxchg:",
    "mov eax, esi",
    ".Lcmpxchg:",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov eax, eax",
    "jmp .Lresult",
    ".Lcmpxchg_fault:",
    "mov rax, -14",
    "jmp .Lresult",
    // SIGSEGV and SIGBUS: rdx = ucontext; gregs[REG_RIP] is at 168.
    ".Lstub_fault_handler:",
    "lea rcx, [rip + .Lcmpxchg]",
    "cmp [rdx + 168], rcx",
    "jne .Ldie",
    "lea rcx, [rip + .Lcmpxchg_fault]",
    "mov [rdx + 168], rcx",
    "ret",
    ".Lstub_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
    // A guest thread that waits to be seized: rdi = a word that nobody changes.
    ".Lstub_park:",
    "mov eax, 202",
    "mov esi, 128", // FUTEX_WAIT | FUTEX_PRIVATE_FLAG
    "mov edx, [rdi]",
    "xor r10d, r10d",
    "syscall",
    "jmp .Lstub_park",
    ".Lstub_exit:",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "ud2",
    "__stub_text_end:",
    ".popsection",
    text = const STUB_TEXT,
    data = const STUB_DATA,
    data_size = const STUB_DATA_SIZE,
    end = const STUB_END,
    filter = const FILTER_OFFSET,
    thread_flags = const THREAD_FLAGS,
    max_ops = const MAX_OPS,
);

// The address and size of glibc's rseq area, if this libc has one.
std::arch::global_asm!(
    ".weak __rseq_offset",
    ".pushsection .text.stub_rseq, \"ax\", @progbits",
    ".globl __stub_rseq_offset",
    ".hidden __stub_rseq_offset",
    "__stub_rseq_offset:",
    "mov rax, [rip + __rseq_offset@GOTPCREL]",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    static __stub_text_start: u8;
    static __stub_text_end: u8;
    fn __stub_rseq_offset() -> *const isize;
}

/// Waits to be seized by a tracer. Argument: the address of a readable word.
pub const PARK: u64 = STUB_TEXT + 8;
/// Ends the calling thread.
pub const EXIT: u64 = STUB_TEXT + 16;
/// Signal handler for SIGSEGV and SIGBUS: repairs a compare-and-exchange, ends the process otherwise.
pub const FAULT_HANDLER: u64 = STUB_TEXT + 24;
/// `sa_restorer`.
pub const RESTORER: u64 = STUB_TEXT + 32;
/// A `syscall` instruction followed by `int3`, for calls that a tracer injects.
pub const CALL_TRAP: u64 = STUB_TEXT + 40;

/// The stub's code.
pub fn text() -> &'static [u8] {
    // SAFETY: the symbols delimit read-only data defined above.
    unsafe {
        let start = &raw const __stub_text_start;
        let end = &raw const __stub_text_end;
        std::slice::from_raw_parts(start, end as usize - start as usize)
    }
}

/// The calling thread's rseq area, if the C library registered one.
pub(in super::super) fn rseq_area() -> Option<u64> {
    // SAFETY: the function only loads an address; if not null, it is a constant of the C library. fs:0 holds the
    // thread pointer.
    unsafe {
        let offset = __stub_rseq_offset();
        if offset.is_null() {
            return None;
        }
        let thread_pointer: u64;
        std::arch::asm!("mov {}, fs:[0]", out(reg) thread_pointer, options(nostack, readonly));
        Some(thread_pointer.wrapping_add(*offset as u64))
    }
}

/// A raw system call: the result register, without touching `errno`.
///
/// # Safety
/// As unsafe as the call.
#[inline(always)]
pub(in super::super) unsafe fn syscall(nr: i64, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the caller's promise; the kernel clobbers rcx and r11 only.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") nr => ret, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// Enters the stub at `entry`, a temporary mapping of the text.
///
/// # Safety
/// Only in a freshly forked process with the file descriptors and signal mask that the entry expects: everything
/// else in it is unmapped.
pub(in super::super) unsafe fn enter(entry: u64, text_len: u64) -> ! {
    // SAFETY: the caller's promise.
    unsafe { std::arch::asm!("jmp {}", in(reg) entry, in("rdi") text_len, options(noreturn)) }
}

/// The page of the three legacy calls (vsyscall(7)).
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;

/// Whether `ip` lies in the vsyscall page.
pub fn is_vsyscall(ip: u64) -> bool {
    ip & !0xfff == VSYSCALL_PAGE
}

/// The system call that a call of `ip` stands for: gettimeofday, time or getcpu.
pub fn vsyscall_number(ip: u64) -> Option<u64> {
    match ip.wrapping_sub(VSYSCALL_PAGE) {
        0x000 => Some(libc::SYS_gettimeofday as u64),
        0x400 => Some(libc::SYS_time as u64),
        0x800 => Some(libc::SYS_getcpu as u64),
        _ => None,
    }
}
