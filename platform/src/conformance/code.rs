//! Guest programs: position-independent machine code, linked as data and copied to guest memory.

/// Defines a function that returns a program's bytes.
macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident: $($line:literal)+;)*) => { $(
        std::arch::global_asm!(
            ".pushsection .rodata.guest_code, \"a\", @progbits",
            concat!("__guest_", stringify!($name), "_start:"),
            $($line,)+
            concat!("__guest_", stringify!($name), "_end:"),
            ".popsection",
            // Local symbols are reachable from the functions below through these.
            ".pushsection .text.guest_code, \"ax\", @progbits",
            concat!(".globl __guest_", stringify!($name)),
            concat!(".hidden __guest_", stringify!($name)),
            concat!("__guest_", stringify!($name), ":"),
            concat!("lea rax, [rip + __guest_", stringify!($name), "_start]"),
            concat!("lea rdx, [rip + __guest_", stringify!($name), "_end]"),
            "sub rdx, rax",
            "ret",
            ".popsection",
        );
        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            #[repr(C)]
            struct Bytes { start: *const u8, len: usize }
            unsafe extern "C" {
                #[link_name = concat!("__guest_", stringify!($name))]
                fn bytes() -> Bytes;
            }
            // SAFETY: the function returns the bounds of read-only data, in rax and rdx as the ABI wants.
            unsafe {
                let b = bytes();
                std::slice::from_raw_parts(b.start, b.len)
            }
        }
    )* };
}

programs! {
    /// One system call after the other, with the result of the last as first argument.
    syscall_loop:
        "2: mov eax, 39"
        "syscall"
        "mov rdi, rax"
        "jmp 2b";
    /// The six arguments and the number, then whatever the sentry makes of it.
    six_arguments:
        "mov rdi, 0x1111111111111111"
        "mov rsi, 0x2222222222222222"
        "mov rdx, 0x3333333333333333"
        "mov r10, 0x4444444444444444"
        "mov r8, 0x5555555555555555"
        "mov r9, 0x6666666666666666"
        "mov rbx, 0x7777777777777777"
        "mov rbp, 0x8888888888888888"
        "mov r12, 0x9999999999999999"
        "mov r13, 0xaaaaaaaaaaaaaaaa"
        "mov r14, 0xbbbbbbbbbbbbbbbb"
        "mov r15, 0xcccccccccccccccc"
        "mov eax, 1234"
        "syscall"
        "ud2";
    /// Calls with numbers of every shape: x32, -1, garbage above 32 bits.
    odd_numbers:
        "mov eax, 0x40000001"
        "syscall"
        "mov rax, -1"
        "syscall"
        "mov rax, 0xabcd00000027"
        "syscall"
        "ud2";
    /// Counts in rbx for ever.
    spin:
        "2: inc rbx"
        "jmp 2b";
    /// Counts calls in rbx, which each carries as its first argument.
    count_calls:
        "xor ebx, ebx"
        "2: inc rbx"
        "mov rdi, rbx"
        "mov eax, 39"
        "syscall"
        "jmp 2b";
    /// Six nops, a call, two nops, a call.
    nops:
        "nop" "nop" "nop" "nop" "nop" "nop"
        "mov eax, 39"
        "syscall"
        "nop" "nop"
        "syscall";
    /// Loads a byte from [rdi], reports it; again with rdi = the result.
    load:
        "2: movzx esi, byte ptr [rdi]"
        "mov eax, 39"
        "syscall"
        "mov rdi, rax"
        "jmp 2b";
    /// Stores a byte to [rdi], reports; again with rdi = the result.
    store:
        "2: mov byte ptr [rdi], 0x5a"
        "mov eax, 39"
        "syscall"
        "mov rdi, rax"
        "jmp 2b";
    /// Jumps to rdi.
    jump:
        "jmp rdi";
    /// Calls rbx, then reports what it returned as the first argument; again with rdi = the result.
    call:
        "2: call rbx"
        "mov rdi, rax"
        "mov eax, 39"
        "syscall"
        "mov rdi, rax"
        "jmp 2b";
    /// Writes the function `mov eax, esi; ret` to [rdi] byte by byte with a changing constant and calls it, 3 times.
    self_modifying:
        "mov ebx, 1"
        "2: mov byte ptr [rdi], 0xb8"
        "mov dword ptr [rdi + 1], ebx"
        "mov byte ptr [rdi + 5], 0xc3"
        "call rdi"
        "mov r12, rdi"
        "mov rdi, rax"
        "mov eax, 39"
        "syscall"
        "mov rdi, r12"
        "inc ebx"
        "jmp 2b";
    /// Loads xmm and mxcsr and x87 state, makes a call, and stores them.
    sse:
        "mov rax, 0x0123456789abcdef"
        "movq xmm0, rax"
        "punpcklqdq xmm0, xmm0"
        "movdqa xmm15, xmm0"
        "fld1"
        "mov dword ptr [rdi], 0x3f80"
        "ldmxcsr [rdi]"
        "mov eax, 39"
        "syscall"
        "movups [rdi + 64], xmm0"
        "movups [rdi + 80], xmm15"
        "stmxcsr [rdi]"
        "fstp qword ptr [rdi + 8]"
        "mov eax, 40"
        "syscall"
        "ud2";
    /// The same with the upper halves of ymm registers.
    avx:
        "vmovups ymm7, [rdi]"
        "mov eax, 39"
        "syscall"
        "vmovups [rdi + 32], ymm7"
        "mov eax, 40"
        "syscall"
        "ud2";
    /// Reports fs:0 and gs:0; again after the call.
    segment_bases:
        "2: mov rdi, fs:[0]"
        "mov rsi, gs:[0]"
        "mov eax, 39"
        "syscall"
        "jmp 2b";
    /// wrfsbase rdi, wrgsbase rsi, a call, rdfsbase and rdgsbase, a call.
    fsgsbase:
        "wrfsbase rdi"
        "wrgsbase rsi"
        "mov eax, 39"
        "syscall"
        "rdfsbase rdi"
        "rdgsbase rsi"
        "mov eax, 40"
        "syscall"
        "ud2";
    /// Breakpoint.
    int3: "nop" "int3" "mov eax, 39" "syscall";
    /// Division by zero.
    divide: "xor ecx, ecx" "mov eax, 1" "cdq" "idiv ecx";
    /// Undefined instruction.
    ud2: "nop" "ud2";
    /// A privileged instruction.
    hlt: "nop" "hlt";
    /// The 32-bit entry.
    int80: "nop" "mov eax, 20" "int 0x80" "mov edi, eax" "mov eax, 39" "syscall";
    /// A load from a non-canonical address.
    non_canonical: "mov rdi, 0x8000000000000000" "mov rax, [rdi]";
    /// Sets the trap flag by itself.
    trap_flag: "pushfq" "or qword ptr [rsp], 0x100" "popfq" "nop" "nop" "ud2";
    /// SSE division by zero with the exception unmasked.
    simd_exception:
        "mov dword ptr [rdi], 0x1d80"
        "ldmxcsr [rdi]"
        "mov eax, 1"
        "cvtsi2sd xmm0, eax"
        "xorpd xmm1, xmm1"
        "divsd xmm0, xmm1"
        "ud2";
    /// Adds 1 to the word at [rdi] until it is rsi, with a locked instruction, then reports it.
    add_until:
        "2: lock inc dword ptr [rdi]"
        "mov ecx, [rdi]"
        "cmp ecx, esi"
        "jb 2b"
        "mov eax, 39"
        "syscall"
        "ud2";
    /// Raw calls of memory management on the stub region: munmap(rdi, rsi), mprotect, then a store to it.
    unmap_call:
        "mov eax, 11"
        "syscall"
        "jmp rdx";
}
