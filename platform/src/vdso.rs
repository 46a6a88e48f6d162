//! The code of the vdso: what guests call instead of making system calls for the time.
//!
//! It reads a page at [`DATA_DISTANCE`] below its first byte, which the sentry keeps up to date:
//!
//! ```text
//! 0x00  u32 sequence: odd while the page is written
//! 0x04  u32 mode: 1 if the counter is a clock; otherwise every call is a system call
//! 0x08  u64 counter at which the times below were right
//! 0x10  u64 nanoseconds a tick, times 2^32
//! 0x18  u64 ticks for which that holds; later calls are system calls, so that the sentry can refresh the page
//! 0x40  for each clock id 0 to 7: u64 seconds, u64 nanoseconds (less than a second)
//! ```
//!
//! So the page needs no timer to be kept up to date: a program that asks for the time once in a while makes a system
//! call, one that asks all the time makes one a second.

/// Bytes from the page that the code reads to the code's first byte.
pub const DATA_DISTANCE: u64 = 0x1800;

std::arch::global_asm!(
    ".pushsection .rodata.vdso_text, \"a\", @progbits",
    ".balign 64",
    ".globl __sandbox_vdso_start, __sandbox_vdso_end",
    ".hidden __sandbox_vdso_start, __sandbox_vdso_end",
    "__sandbox_vdso_start:",
    // The functions at fixed offsets of 8 bytes each.
    ".balign 8; jmp .Lvdso_clock_gettime",
    ".balign 8; jmp .Lvdso_gettimeofday",
    ".balign 8; jmp .Lvdso_time",
    ".balign 8; jmp .Lvdso_getcpu",
    ".balign 8; jmp .Lvdso_clock_getres",
    ".balign 16",
    // r10 = offset of a clock in the page. Returns seconds in rcx and nanoseconds in rax, or the carry flag.
    ".Lvdso_read:",
    "lea r8, [rip + __sandbox_vdso_start - {distance}]",
    "2:",
    "mov r9d, [r8]",
    "test r9b, 1",
    "jnz 4f",
    "cmp dword ptr [r8 + 4], 1",
    "jne 4f",
    "lfence",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "xor ecx, ecx",
    "sub rax, [r8 + 8]",
    "cmovb rax, rcx", // another processor's counter may be a little behind
    "cmp rax, [r8 + 0x18]",
    "ja 4f",
    "mul qword ptr [r8 + 0x10]",
    "shrd rax, rdx, 32",
    "mov rcx, [r8 + r10]",
    "add rax, [r8 + r10 + 8]",
    "cmp r9d, [r8]",
    "jne 2b",
    "3:",
    "cmp rax, 1000000000",
    "jb 5f",
    "sub rax, 1000000000",
    "inc rcx",
    "jmp 3b",
    "4: stc",
    "ret",
    "5: clc",
    "ret",
    // int clock_gettime(clockid_t edi, struct timespec *rsi)
    ".Lvdso_clock_gettime:",
    "cmp edi, 7",
    "ja 2f",
    "mov eax, 0xe3", // REALTIME, MONOTONIC, the coarse ones, BOOTTIME
    "bt eax, edi",
    "jnc 2f",
    "mov r10d, edi",
    "shl r10d, 4",
    "add r10d, 0x40",
    "call .Lvdso_read",
    "jc 2f",
    "mov [rsi], rcx",
    "mov [rsi + 8], rax",
    "xor eax, eax",
    "ret",
    "2:",
    "mov eax, 228",
    "syscall",
    "ret",
    // int gettimeofday(struct timeval *rdi, struct timezone *rsi)
    ".Lvdso_gettimeofday:",
    "test rdi, rdi",
    "jz 2f",
    "test rsi, rsi",
    "jnz 2f",
    "mov r10d, 0x40",
    "call .Lvdso_read",
    "jc 2f",
    "mov [rdi], rcx",
    "xor edx, edx",
    "mov ecx, 1000",
    "div rcx",
    "mov [rdi + 8], rax",
    "xor eax, eax",
    "ret",
    "2:",
    "mov eax, 96",
    "syscall",
    "ret",
    // time_t time(time_t *rdi)
    ".Lvdso_time:",
    "mov r10d, 0x40",
    "call .Lvdso_read",
    "jc 2f",
    "mov rax, rcx",
    "test rdi, rdi",
    "jz 3f",
    "mov [rdi], rax",
    "3:",
    "ret",
    "2:",
    "mov eax, 201",
    "syscall",
    "ret",
    // int getcpu(unsigned *, unsigned *, void *): which processor the guest sees is the sentry's to say.
    ".Lvdso_getcpu:",
    "mov eax, 309",
    "syscall",
    "ret",
    // int clock_getres(clockid_t, struct timespec *)
    ".Lvdso_clock_getres:",
    "mov eax, 229",
    "syscall",
    "ret",
    "__sandbox_vdso_end:",
    ".popsection",
    distance = const DATA_DISTANCE,
);

unsafe extern "C" {
    static __sandbox_vdso_start: u8;
    static __sandbox_vdso_end: u8;
}

/// The code, independent of its position.
pub fn text() -> &'static [u8] {
    let (start, end) = (&raw const __sandbox_vdso_start, &raw const __sandbox_vdso_end);
    // SAFETY: both symbols are in one section of read-only data, in this order, and all between them is initialised.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The functions: name, and offset in the text.
pub const FUNCTIONS: [(&str, u64); 5] =
    [("clock_gettime", 0), ("gettimeofday", 8), ("time", 16), ("getcpu", 24), ("clock_getres", 32)];
