//! System calls, general registers, FPU and vector state, segment bases, single steps.

use super::code;
use super::harness::{CODE, DATA, Guest, Outcome, fault, start, syscall};
use super::{Case, Outcome::Passed};
use crate::{Context, Exit, Platform, Resume};

pub(super) const CASES: &[Case] = &[
    ("syscall_arguments_and_result", arguments),
    ("syscall_result_may_be_any_number", any_result),
    ("syscall_numbers_of_every_shape", odd_numbers),
    ("context_at_a_syscall", context_at_syscall),
    ("context_resumed_unedited_keeps_the_number", unedited),
    ("context_edits_take_effect", edits),
    ("initial_registers", initial),
    ("sse_and_x87_survive_calls", sse),
    ("fpu_context_is_editable", fpu_edit),
    ("fpu_context_is_sanitized", fpu_garbage),
    ("avx_survives_calls_and_is_editable", avx),
    ("segment_bases", bases),
    ("fsgsbase_instructions", fsgsbase),
    ("single_step", single_step),
    ("single_step_over_a_syscall", step_syscall),
    ("trap_flag_of_the_guest", trap_flag),
    ("vsyscall_page", vsyscall),
    ("cpu_time", cpu_time),
];

fn arguments(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::six_arguments());
    let exit = guest.go();
    let Exit::Syscall { number, args, ip } = exit else { panic!("{exit:x?}") };
    assert_eq!(number, 1234);
    assert_eq!(args, [1, 2, 3, 4, 5, 6].map(|n| n * 0x1111_1111_1111_1111));
    assert_eq!(ip, CODE + code::six_arguments().len() as u64 - 2);
    let fault = fault(guest.result(77));
    assert_eq!(fault.signal, libc::SIGILL);
    let regs = guest.context().regs;
    assert_eq!(regs.rax, 77);
    assert_eq!([regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9], args);
    let rest = [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15];
    assert_eq!(rest, [7, 8, 9, 10, 11, 12].map(|n| n * 0x1111_1111_1111_1111));
    // As after any system call.
    assert_eq!(regs.rcx, ip);
    assert_eq!(regs.r11 & 0x202, 0x202);
    Passed
}

fn any_result(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::syscall_loop());
    assert_eq!(syscall(guest.go()).0, 39);
    // Also numbers that the host's kernel takes for its own restart codes.
    let restarts = (505..520u64).map(u64::wrapping_neg);
    for value in [0, 1, u64::MAX, 1 << 63, -4095i64 as u64].into_iter().chain(restarts) {
        let (number, args) = syscall(guest.result(value));
        assert_eq!((number, args[0]), (39, value), "{value:#x}");
    }
    Passed
}

fn odd_numbers(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::odd_numbers());
    assert_eq!(syscall(guest.go()).0, 0x4000_0001);
    assert_eq!(syscall(guest.result(0)).0 as u32, u32::MAX);
    assert_eq!(syscall(guest.result(0)).0 as u32, 39);
    fault(guest.result(0));
    Passed
}

fn context_at_syscall(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::six_arguments());
    let Exit::Syscall { number, args, ip } = guest.go() else { panic!() };
    let regs = guest.context().regs;
    assert_eq!((regs.rax, regs.rip, regs.rdi, regs.r9), (number, ip, args[0], args[5]));
    // Looking changes nothing.
    assert_eq!(fault(guest.result(5)).signal, libc::SIGILL);
    assert_eq!(guest.context().regs.rax, 5);
    Passed
}

fn unedited(platform: &dyn Platform) -> Outcome {
    for look in [false, true] {
        let mut guest = Guest::new(platform, code::six_arguments());
        syscall(guest.go());
        if look {
            guest.context();
        }
        assert_eq!(fault(guest.go()).signal, libc::SIGILL);
        assert_eq!(guest.context().regs.rax, 1234, "looked: {look}");
    }
    Passed
}

fn edits(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::six_arguments());
    syscall(guest.go());
    let regs = &mut guest.context().regs;
    let length = code::six_arguments().len() as u64;
    // Back to the call, as a restart does.
    regs.rip = CODE + length - 4;
    (regs.rax, regs.rdi, regs.rcx, regs.r11) = (4321, 99, 98, 97);
    let exit = guest.go();
    let Exit::Syscall { number, args, .. } = exit else { panic!("{exit:x?}") };
    assert_eq!((number, args[0]), (4321, 99));
    // rcx and r11, which a system call's return destroys, are set too when the context is.
    let regs = &mut guest.context().regs;
    (regs.rax, regs.rcx, regs.r11, regs.rsp, regs.r15) = (u64::MAX - 511, 96, 95, 0x1234_5678, 1 << 63);
    regs.eflags |= 0x401;
    fault(guest.go());
    let regs = guest.context().regs;
    assert_eq!((regs.rax, regs.rcx, regs.r11), (u64::MAX - 511, 96, 95));
    assert_eq!((regs.rsp, regs.r15, regs.eflags & 0x401), (0x1234_5678, 1 << 63, 0x401));
    Passed
}

fn initial(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    super::harness::load(&*space, code::ud2());
    let mut context = start(CODE);
    (context.regs.rbx, context.regs.r15) = (11, 12);
    // Selectors are not the guest's to choose.
    (context.regs.cs, context.regs.ss, context.regs.fs) = (0x10, 0x18, 0x23);
    let mut thread = space.new_thread(&context).unwrap();
    fault(thread.run(Resume::Context));
    let regs = thread.context().unwrap().regs;
    assert_eq!((regs.rbx, regs.r15, regs.rax, regs.rdi, regs.r8), (11, 12, 0, 0, 0));
    assert_eq!((regs.rip, regs.rsp), (CODE + 1, context.regs.rsp));
    assert_eq!((regs.cs, regs.ss, regs.ds, regs.es, regs.fs, regs.gs), (0x33, 0x2b, 0, 0, 0, 0));
    assert_eq!((regs.fs_base, regs.gs_base), (0, 0));
    let xstate = &thread.context().unwrap().xstate.0;
    assert_eq!(xstate[..2], 0x37fu16.to_le_bytes());
    assert_eq!(xstate[24..28], 0x1f80u32.to_le_bytes());
    // x87 and vector registers.
    assert!(xstate[32..416].iter().all(|b| *b == 0));
    Passed
}

fn sse(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::sse());
    guest.context().regs.rdi = DATA;
    assert_eq!(syscall(guest.go()).0, 39);
    assert_eq!(syscall(guest.result(0)).0, 40);
    let mut buf = [0; 96];
    guest.space.read(DATA, &mut buf).unwrap();
    assert_eq!(buf[..4], 0x3f80u32.to_le_bytes());
    assert_eq!(buf[8..16], 1.0f64.to_le_bytes());
    for part in buf[64..].chunks(8) {
        assert_eq!(part, 0x0123_4567_89ab_cdefu64.to_le_bytes());
    }
    Passed
}

fn fpu_edit(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::sse());
    guest.context().regs.rdi = DATA;
    syscall(guest.go());
    let context = guest.context();
    let image = &mut context.xstate.0;
    assert_eq!(image[160..168], 0x0123_4567_89ab_cdefu64.to_le_bytes());
    image[160..168].copy_from_slice(&7u64.to_le_bytes());
    image[24..28].copy_from_slice(&0x5f80u32.to_le_bytes());
    assert_eq!(syscall(guest.go()).0, 40);
    let mut buf = [0; 96];
    guest.space.read(DATA, &mut buf).unwrap();
    assert_eq!(buf[..4], 0x5f80u32.to_le_bytes());
    assert_eq!(buf[64..72], 7u64.to_le_bytes());
    assert_eq!(buf[80..88], 0x0123_4567_89ab_cdefu64.to_le_bytes());
    // An empty image is the initial state.
    guest.context().xstate.0.clear();
    fault(guest.go());
    let image = &guest.context().xstate.0;
    assert_eq!(image[24..28], 0x1f80u32.to_le_bytes());
    assert!(image[160..416].iter().all(|b| *b == 0));
    Passed
}

fn fpu_garbage(platform: &dyn Platform) -> Outcome {
    for len in [1, 511, 512, 575, 576, 600, 832, 4096, 20000] {
        let mut guest = Guest::new(platform, code::syscall_loop());
        guest.context().xstate.0 = vec![0xff; len];
        syscall(guest.go());
        guest.context();
        syscall(guest.go());
    }
    Passed
}

fn avx(platform: &dyn Platform) -> Outcome {
    if !std::arch::is_x86_feature_detected!("avx") {
        return Outcome::Skipped("the processor has no AVX".into());
    }
    let mut guest = Guest::new(platform, code::avx());
    guest.context().regs.rdi = DATA;
    let value: Vec<u8> = (1..=32).collect();
    guest.space.write(DATA, &value).unwrap();
    syscall(guest.go());
    syscall(guest.result(0));
    let mut buf = vec![0; 32];
    guest.space.read(DATA + 32, &mut buf).unwrap();
    assert_eq!(buf, value);
    // The upper half of ymm7 is in the component at 576 of a standard image; edit it, and run the store again.
    let context = guest.context();
    let upper = 576 + 7 * 16;
    assert_eq!(context.xstate.0[upper..upper + 16], value[16..]);
    context.xstate.0[upper] = 99;
    context.regs.rip = CODE + code::avx().len() as u64 - 2 - 7 - 5;
    syscall(guest.go());
    guest.space.read(DATA + 32, &mut buf).unwrap();
    assert_eq!(buf[16], 99);
    Passed
}

fn bases(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::segment_bases());
    guest.space.write(DATA, &[1, 0, 0, 0, 0, 0, 0, 0, 2]).unwrap();
    let regs = &mut guest.context().regs;
    (regs.fs_base, regs.gs_base) = (DATA, DATA + 8);
    assert_eq!(syscall(guest.go()).1[..2], [1, 2]);
    assert_eq!(syscall(guest.result(0)).1[..2], [1, 2]);
    let regs = &mut guest.context().regs;
    assert_eq!((regs.fs_base, regs.gs_base), (DATA, DATA + 8));
    (regs.fs_base, regs.gs_base) = (regs.gs_base, regs.fs_base);
    assert_eq!(syscall(guest.go()).1[..2], [2, 1]);
    Passed
}

fn fsgsbase(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::fsgsbase());
    let regs = &mut guest.context().regs;
    // Also a value of the kernel's half, which the instruction takes.
    (regs.rdi, regs.rsi) = (0x1234_5678_9000, 0xffff_8000_0000_1000);
    match guest.go() {
        Exit::Fault(f) if f.signal == libc::SIGILL => {
            return Outcome::Skipped("the host has FSGSBASE off".into());
        }
        exit => drop(syscall(exit)),
    }
    let regs = guest.context().regs;
    assert_eq!((regs.fs_base, regs.gs_base), (0x1234_5678_9000, 0xffff_8000_0000_1000));
    let (number, args) = syscall(guest.go());
    assert_eq!((number, args[0], args[1]), (40, 0x1234_5678_9000, 0xffff_8000_0000_1000));
    Passed
}

fn single_step(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::nops());
    guest.context().single_step = true;
    for i in 1..=6 {
        let f = fault(guest.go());
        assert_eq!((f.signal, f.code, f.trapno), (libc::SIGTRAP, 2, 1));
        let regs = guest.context().regs;
        assert_eq!(regs.rip, CODE + i);
        assert_eq!(regs.eflags & 0x100, 0, "the trap flag is not the guest's");
    }
    // And off again.
    guest.context().single_step = false;
    assert_eq!(syscall(guest.go()).0, 39);
    Passed
}

fn step_syscall(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::nops());
    guest.context().single_step = true;
    guest.context().regs.rip = CODE + 6;
    fault(guest.go());
    let exit = guest.go();
    let Exit::Syscall { number: 39, ip, .. } = exit else { panic!("{exit:x?}") };
    // The call was the step; the next one goes behind the instruction that follows it.
    fault(guest.result(5));
    let regs = guest.context().regs;
    assert_eq!((regs.rip, regs.rax), (ip + 1, 5));
    Passed
}

fn trap_flag(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::trap_flag());
    let f = fault(guest.go());
    assert_eq!((f.signal, f.code), (libc::SIGTRAP, 2));
    let regs = &mut guest.context().regs;
    assert_eq!(regs.eflags & 0x100, 0x100);
    assert_eq!(regs.rip, CODE + code::trap_flag().len() as u64 - 3);
    regs.eflags &= !0x100;
    assert_eq!(fault(guest.go()).signal, libc::SIGILL);
    Passed
}

fn vsyscall(platform: &dyn Platform) -> Outcome {
    let page = 0xffff_ffff_ff60_0000;
    for (offset, number) in
        [(0x000, libc::SYS_gettimeofday), (0x400, libc::SYS_time), (0x800, libc::SYS_getcpu)]
    {
        // Null pointers, good ones, and such as fault.
        for pointer in [0, DATA, 17, page] {
            let mut guest = Guest::new(platform, code::call());
            let regs = &mut guest.context().regs;
            (regs.rbx, regs.rdi, regs.rsi) = (page + offset, pointer, pointer);
            let exit = guest.go();
            let Exit::Syscall { number: got, args, ip } = exit else { panic!("{exit:x?}") };
            assert_eq!((got, args[0], args[1], ip), (number as u64, pointer, pointer, CODE + 2));
            let regs = guest.context().regs;
            assert_eq!((regs.rax, regs.rip, regs.rsp), (number as u64, ip, start(0).regs.rsp));
            let (next, args) = syscall(guest.result(1_000_000));
            assert_eq!((next, args[0]), (39, 1_000_000));
            let mut seen = [1; 16];
            guest.space.read(DATA, &mut seen).unwrap();
            assert_eq!(seen, [0; 16], "the host's kernel answered");
        }
    }
    // Elsewhere in the page: a fault.
    let mut guest = Guest::new(platform, code::call());
    guest.context().regs.rbx = page + 0x10;
    assert_eq!(fault(guest.go()).signal, libc::SIGSEGV);
    Passed
}

fn cpu_time(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::spin());
    let interrupter = guest.thread.interrupter();
    let before = guest.thread.cpu_time();
    let began = std::time::Instant::now();
    let wanted = std::time::Duration::from_millis(20);
    while guest.thread.cpu_time() < before + wanted {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(wanted);
                interrupter.interrupt();
            });
            assert_eq!(guest.go(), Exit::Interrupted);
        });
    }
    assert!(guest.thread.cpu_time() <= began.elapsed() + before);
    // Asking at a system call disturbs nothing.
    let mut guest = Guest::new(platform, code::six_arguments());
    let (_, args) = syscall(guest.go());
    assert!(guest.thread.cpu_time() > std::time::Duration::ZERO);
    assert_eq!(guest.context().regs.rax, 1234);
    guest.thread.cpu_time();
    let seen: Context = guest.context().clone();
    assert_eq!((seen.regs.rdi, seen.regs.rax), (args[0], 1234));
    assert_eq!(fault(guest.result(6)).signal, libc::SIGILL);
    assert_eq!(guest.context().regs.rax, 6);
    Passed
}
