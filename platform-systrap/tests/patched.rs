//! Patched call sites: calls are the same as unpatched ones, also under disturbance, and the guest sees no difference.

mod common;

use common::{CODE, DATA, Random, context, host_ids, meanwhile, patch, space, thread};
use platform::{Change, Errno, Exit, PAGE_SIZE, PATCH_AREA, Prot, Resume};
use std::time::Duration;

// r12 counts, r13 is the number; each call must give 3 * r12 + 1 and leave all other registers and the flags alone.
guest!(
    counting,
    "2:",
    "mov rax, r13",
    "mov rdi, r12",
    "lea rsi, [r12 + 1]",
    "lea rdx, [r12 + 2]",
    "lea r10, [r12 + 3]",
    "lea r8, [r12 + 4]",
    "lea r9, [r12 + 5]",
    "cmp rdi, rsi", // below, signed less
    "syscall",
    "lea rbx, [r12 + r12 * 2 + 1]",
    "jae 3f",
    "jge 3f",
    "cmp rax, rbx",
    "jne 3f",
    "lea rbx, [r12 + 5]",
    "cmp r9, rbx",
    "jne 3f",
    "lea rbx, [r12 + 4]",
    "cmp r8, rbx",
    "jne 3f",
    "lea rbx, [r12 + 3]",
    "cmp r10, rbx",
    "jne 3f",
    "lea rbx, [r12 + 2]",
    "cmp rdx, rbx",
    "jne 3f",
    "lea rbx, [r12 + 1]",
    "cmp rsi, rbx",
    "jne 3f",
    "cmp rdi, r12",
    "jne 3f",
    "inc r12",
    "jmp 2b",
    "3:",
    "ud2",
);

/// Runs `counting` for `calls` calls of `number`, patched from the tenth on, under `disturb`.
fn count(
    number: u64,
    calls: u64,
    seed: u64,
    mut disturb: impl FnMut(i32, &dyn platform::Interrupter) + Send,
) {
    let Some(space) = space(counting()) else { return };
    let mut start = context();
    start.regs.r13 = number;
    let mut thread = thread(&space, &start);
    let pid = host_ids(&mut *thread).1;
    let interrupter = thread.interrupter();
    let mut random = Random(seed);
    let mut interrupts = 0;
    meanwhile(
        move || disturb(pid, &*interrupter),
        || {
            let mut resume = Resume::Context;
            let (mut expected, mut is_patched) = (0, false);
            while expected < calls {
                match thread.run(resume) {
                    Exit::Syscall { number: reported, args, ip } => {
                        let all = [0, 1, 2, 3, 4, 5].map(|n| expected + n);
                        assert_eq!((reported, args), (number, all));
                        if expected == 10 && !std::mem::replace(&mut is_patched, true) {
                            assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                            assert_eq!(patch(&space, &mut *thread, ip), Err(Errno::EEXIST));
                        }
                        let result = 3 * expected + 1;
                        expected += 1;
                        resume = Resume::Result(result);
                        match random.next() % 16 {
                            0 => {
                                let regs = thread.context().expect("alive").regs;
                                assert_eq!(
                                    (regs.rax, regs.rdi, regs.r12),
                                    (number, expected - 1, expected - 1)
                                );
                                assert_eq!((regs.rip, regs.rcx, regs.gs_base), (ip, ip, 0));
                            }
                            1 => {
                                thread.context().expect("alive").regs.rax = result;
                                resume = Resume::Context;
                            }
                            2 => {
                                // The call is to be made again.
                                let regs = &mut thread.context().expect("alive").regs;
                                regs.rip -= 2;
                                expected -= 1;
                                resume = Resume::Context;
                            }
                            3 => {
                                let change =
                                    Change::MapAnonymous { addr: DATA, len: PAGE_SIZE, prot: Prot::READ };
                                assert_eq!(space.apply(Some(&mut *thread), &[change]), Ok(()));
                            }
                            _ => {}
                        }
                    }
                    Exit::Interrupted => {
                        interrupts += 1;
                        if random.next().is_multiple_of(4) {
                            let regs = thread.context().expect("alive").regs;
                            assert!(regs.r12 == expected || regs.r12 + 1 == expected, "{regs:x?} {expected}");
                            let code = CODE..CODE + counting().len() as u64;
                            assert!(code.contains(&regs.rip), "{:x}", regs.rip);
                        }
                        resume = Resume::Context;
                    }
                    other => panic!("{other:?} after {expected} calls: {:x?}", thread.context()),
                }
            }
        },
    );
    println!("call {number}: {interrupts} interrupts");
}

#[test]
fn calls_are_the_same() {
    // The last needs its registers, and is made as if the site were not patched.
    for number in [39, 1000, 511, 56] {
        count(number, 5_000, 0x9876 + number, |_, _| std::thread::sleep(Duration::from_millis(1)));
    }
}

#[test]
fn interrupts_lose_nothing() {
    for number in [39, 56] {
        let mut pauses = Random(0x77 + number);
        count(number, 20_000, 0x1357 + number, move |_, interrupter| {
            interrupter.interrupt();
            std::thread::sleep(pauses.time(Duration::from_micros(120)));
        });
    }
}

#[test]
fn foreign_signals_lose_nothing() {
    let mut pauses = Random(0x99);
    let mut signals = [libc::SIGUSR1, libc::SIGSEGV, libc::SIGSYS].into_iter().cycle();
    count(39, 20_000, 0x2468, move |tid, _| {
        let signal = signals.next().unwrap_or(libc::SIGUSR1);
        // SAFETY: a plain system call on a thread that lives as long as this.
        unsafe { libc::syscall(libc::SYS_tkill, tid, signal) };
        std::thread::sleep(pauses.time(Duration::from_micros(200)));
    });
}

#[test]
fn stops_show_no_code_of_ours() {
    for number in [39, 56] {
        let Some(space) = space(counting()) else { return };
        let mut start = context();
        start.regs.r13 = number;
        let mut thread = thread(&space, &start);
        let pid = host_ids(&mut *thread).0;
        let interrupter = thread.interrupter();
        let mut pauses = Random(number);
        let disturb = || {
            // SAFETY: plain system calls on our own child.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            std::thread::sleep(pauses.time(Duration::from_micros(100)));
            interrupter.interrupt();
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGCONT) };
            std::thread::sleep(pauses.time(Duration::from_micros(150)));
        };
        meanwhile(disturb, || {
            let (mut resume, mut expected, mut is_patched) = (Resume::Context, 0, false);
            while expected < 4_000 {
                match thread.run(resume) {
                    Exit::Syscall { number: reported, args, ip } => {
                        assert_eq!(reported, number);
                        // A stop may have the kernel make an answered call again: see the crate's documentation.
                        if args[0] + 1 != expected {
                            assert_eq!(args[0], expected);
                            expected += 1;
                        }
                        if expected == 10 && !std::mem::replace(&mut is_patched, true) {
                            assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                        }
                        resume = Resume::Result(3 * args[0] + 1);
                    }
                    Exit::Interrupted => {
                        let regs = thread.context().expect("alive").regs;
                        let code = CODE..CODE + counting().len() as u64;
                        assert!(code.contains(&regs.rip), "{:x}", regs.rip);
                        resume = Resume::Context;
                    }
                    other => panic!("{other:?} after {expected} calls: {:x?}", thread.context()),
                }
            }
        });
    }
}

// Makes call r13 with r12 as its argument and then call 1000, again and again.
guest!(
    repeating,
    "2:",
    "mov eax, r13d",
    "mov rdi, r12",
    "syscall",
    "mov rbx, rax",
    "inc r12",
    "mov eax, 1000",
    "mov rdi, r12",
    "syscall",
    "jmp 2b",
);

/// Stops a process and lets it go on, so that the kernel restarts what the thread waits in.
fn stop_and_continue((pid, tid): (i32, i32)) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).expect("a thread");
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a state")
    };
    for (signal, is_reached) in [(libc::SIGSTOP, 'T'), (libc::SIGCONT, 'S')] {
        // SAFETY: a plain system call on our own child.
        unsafe { libc::kill(pid, signal) };
        while state() != is_reached {
            std::thread::yield_now();
        }
    }
}

#[test]
fn calls_restarted_at_a_new_patch_are_made_once() {
    // One that is told the sentry, one that the stub may answer, one that is made as if the site were not patched.
    for number in [1001, 39, 56] {
        for way in 0..4 {
            let Some(space) = space(repeating()) else { return };
            let mut start = context();
            start.regs.r13 = number;
            let mut thread = thread(&space, &start);
            if number == 39 {
                thread.set_answers(&[Some(39), None, None, None, None, None]);
            }
            let ids = host_ids(&mut *thread);
            let Exit::Syscall { args, ip, .. } = thread.run(Resume::Context) else { panic!("no call") };
            assert_eq!(args[0], 0);
            assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
            stop_and_continue(ids);
            let mut resume = Resume::Result(39);
            match way {
                0 => {}
                1 => assert_eq!(thread.context().expect("alive").regs.rip, ip),
                2 => {
                    thread.interrupter().interrupt();
                    assert!(matches!(thread.run(resume), Exit::Interrupted));
                    let regs = thread.context().expect("alive").regs;
                    assert_eq!((regs.rip, regs.rax), (ip, 39));
                    resume = Resume::Context;
                }
                _ => {
                    thread.context().expect("alive").regs.rax = 39;
                    resume = Resume::Context;
                }
            }
            for round in 1..4 {
                // The stub may answer again.
                if number != 39 && round > 1 {
                    assert!(
                        matches!(thread.run(resume), Exit::Syscall { number: next, .. } if next == number)
                    );
                    resume = Resume::Result(39);
                }
                let Exit::Syscall { number: next, args, .. } = thread.run(resume) else { panic!("no call") };
                assert_eq!((next, args[0]), (1000, round), "call {number}, way {way}");
                let regs = thread.context().expect("alive").regs;
                assert_eq!((regs.rbx, regs.r12), (39, round), "call {number}, way {way}");
                resume = Resume::Result(0);
            }
        }
    }
}

// Makes a call, then jumps to the instruction behind `syscall`, then to the one after that.
guest!(
    jumping,
    "xor r12d, r12d",
    "2:",
    "mov eax, 1000",
    "syscall",
    "4:",
    "mov edx, eax",
    "5:",
    "mov esi, edx",
    "inc r12",
    "test r12, 1",
    "jz 2b",
    "mov eax, r12d",
    "mov edx, 7",
    "test r12, 2",
    "jz 4b",
    "jmp 5b",
);

#[test]
fn jumps_into_a_patch_go_to_what_was_there() {
    let run = |patched: bool| {
        let space = space(jumping())?;
        let mut thread = thread(&space, &context());
        let mut resume = Resume::Context;
        let mut seen = Vec::new();
        for round in 0..12 {
            match thread.run(resume) {
                Exit::Syscall { number: 1000, args, ip } => {
                    if round == 2 && patched {
                        assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                        let mut bytes = [0; 4];
                        assert_eq!(space.read(ip - 2, &mut bytes), Ok(4));
                        assert_eq!(bytes, [0x0f, 0x05, 0x89, 0xc2], "the guest's own bytes are read");
                    }
                    seen.push((args[1], args[2]));
                }
                other => panic!("{other:?} {:x?}", thread.context()),
            }
            resume = Resume::Result(100);
        }
        Some(seen)
    };
    assert_eq!(run(true), run(false));
}

// Calls 39 and 1000 in turn, at one site.
guest!(
    asking,
    "2:",
    "mov eax, 39",
    "5:",
    "syscall",
    "mov rbx, rax",
    "cmp r12, 1",
    "jne 3f",
    "mov r12d, 0",
    "jmp 2b",
    "3:",
    "mov r12d, 1",
    "mov rdi, rbx",
    "mov eax, 1000",
    "jmp 5b",
);

#[test]
fn stubs_answer_what_they_may() {
    let Some(space) = space(asking()) else { return };
    let mut thread = thread(&space, &context());
    let mut resume = Resume::Context;
    let mut asked = 0;
    for round in 0..40 {
        match thread.run(resume) {
            Exit::Syscall { number: 39, ip, .. } => {
                asked += 1;
                if round == 4 {
                    assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                    thread.set_answers(&[Some(4711), None, None, None, None, None]);
                }
                resume = Resume::Result(42);
            }
            Exit::Syscall { number: 1000, args, .. } => {
                assert_eq!(args[0], if round > 5 { 4711 } else { 42 }, "{round}");
                if round == 30 {
                    thread.set_answers(&[None; 6]);
                }
                resume = Resume::Result(0);
                if round == 30 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, 3);
    assert!(matches!(thread.run(resume), Exit::Syscall { number: 39, .. }), "answers can be taken back");
}

// With r12: jumps behind the call r12 times, then makes call 1001. Without: makes call 1000 again and again.
guest!(
    hopping,
    "test r12, r12",
    "jnz 7f",
    "2:",
    "mov eax, 1000",
    "syscall",
    "4:",
    "mov edx, eax",
    "mov esi, edx",
    "test r12, r12",
    "jz 2b",
    "7:",
    "dec r12",
    "jnz 4b",
    "mov eax, 1001",
    "syscall",
    "ud2",
);

#[test]
fn what_met_a_patch_is_heard_after_it_is_gone() {
    let Some(space) = space(hopping()) else { return };
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (hopping, ended) = (space.clone(), &ended);
        scope.spawn(move || {
            let mut start = context();
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                start.regs.r12 = 20_000;
                let mut hopper = thread(&hopping, &start);
                match hopper.run(Resume::Context) {
                    Exit::Syscall { number: 1001, .. } => {}
                    other => panic!("{other:?} {:x?}", hopper.context()),
                }
            }
        });
        let mut thread = thread(&space, &context());
        let Exit::Syscall { ip, .. } = thread.run(Resume::Context) else { panic!() };
        let mut patches = 0;
        let protect = |prot| space.apply(None, &[Change::Protect { addr: CODE, len: PAGE_SIZE, prot }]);
        // Until there are no more places for trampolines.
        while patches < 100 && patch(&space, &mut *thread, ip).is_ok() {
            patches += 1;
            std::thread::sleep(Duration::from_micros(50));
            assert_eq!(protect(Prot::all()), Ok(()));
            assert_eq!(protect(Prot::READ | Prot::EXEC), Ok(()));
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(patches > 20, "{patches}");
    });
}

#[test]
fn interrupts_where_a_patch_is_met_show_the_guests_code() {
    let Some(space) = space(hopping()) else { return };
    let mut patching = thread(&space, &context());
    let Exit::Syscall { ip, .. } = patching.run(Resume::Context) else { panic!() };
    assert_eq!(patch(&space, &mut *patching, ip), Ok(()));
    let mut start = context();
    start.regs.r12 = 3_000;
    let mut hopper = thread(&space, &start);
    let interrupter = hopper.interrupter();
    let mut pauses = Random(0x5151);
    let disturb = || {
        interrupter.interrupt();
        std::thread::sleep(pauses.time(Duration::from_micros(100)));
    };
    meanwhile(disturb, || {
        loop {
            match hopper.run(Resume::Context) {
                Exit::Interrupted => {
                    let rip = hopper.context().expect("alive").regs.rip;
                    assert!((CODE..CODE + hopping().len() as u64).contains(&rip), "{rip:x}");
                }
                Exit::Syscall { number: 1001, .. } => break,
                other => panic!("{other:?} {:x?}", hopper.context().map(|context| context.regs.rip)),
            }
        }
    });
}

#[test]
fn changes_of_memory_undo_patches() {
    let code = CODE;
    let writable = Change::Protect { addr: code, len: PAGE_SIZE, prot: Prot::all() };
    let advice = Change::Advise { addr: code, len: PAGE_SIZE, advice: libc::MADV_WILLNEED };
    for change in [writable, advice] {
        let Some(space) = space(asking()) else { return };
        let mut thread = thread(&space, &context());
        let Exit::Syscall { ip, .. } = thread.run(Resume::Context) else { panic!() };
        let mut areas = Vec::new();
        let mapped = space.clone();
        let mut place = |addr: u64| {
            areas.push(addr);
            let prot = Prot::READ | Prot::EXEC;
            mapped.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_ok()
        };
        assert_eq!(space.patch(&mut *thread, ip, &mut place), Ok(()));
        assert_eq!(space.apply(None, &[change]), Ok(()));
        // The guest may look for itself now: its own instructions are back.
        let mut resume = Resume::Result(1);
        for _ in 0..6 {
            assert!(matches!(thread.run(resume), Exit::Syscall { .. }));
            resume = Resume::Result(0);
        }
        let area = Change::Unmap { addr: areas[0], len: PATCH_AREA };
        assert_eq!(space.apply(None, &[area]), Ok(()));
        for _ in 0..6 {
            assert!(matches!(thread.run(resume), Exit::Syscall { .. }));
        }
    }
}

#[test]
fn forks_have_the_patches() {
    let Some(space) = space(counting()) else { return };
    let mut start = context();
    start.regs.r13 = 1000;
    let mut parent = thread(&space, &start);
    let mut resume = Resume::Context;
    for n in 0..20 {
        let Exit::Syscall { ip, .. } = parent.run(resume) else { panic!() };
        if n == 5 {
            assert_eq!(patch(&space, &mut *parent, ip), Ok(()));
        }
        resume = Resume::Result(3 * n + 1);
    }
    let mut copy = parent.context().expect("alive").clone();
    copy.regs.rax = 3 * 19 + 1;
    let forked = space.fork(Some(&mut *parent)).expect("a fork");
    let mut child = thread(&forked, &copy);
    let mut resume = Resume::Context;
    for n in 20..200 {
        match child.run(resume) {
            Exit::Syscall { args, .. } => assert_eq!(args[0], n),
            other => panic!("{other:?}"),
        }
        resume = Resume::Result(3 * n + 1);
    }
    for n in 20..30 {
        match parent.run(Resume::Result(3 * (n - 1) + 1)) {
            Exit::Syscall { args, .. } => assert_eq!(args[0], n),
            other => panic!("{other:?}"),
        }
    }
}

guest!(setting, "wrgsbase rdi", "2:", "mov eax, 1000", "syscall", "rdgsbase rsi", "nop", "jmp 2b");

#[test]
fn threads_with_a_gs_base_of_their_own_call_too() {
    let Some(space) = space(setting()) else { return };
    // One far from the stub region, and one in it where nothing is.
    for base in [0x1234_5000u64, 0x7ffe_f000_0000] {
        let mut start = context();
        start.regs.rdi = base;
        let mut thread = thread(&space, &start);
        let mut resume = Resume::Context;
        for n in 0..20 {
            match thread.run(resume) {
                Exit::Syscall { args, ip, .. } => {
                    if n > 0 {
                        assert_eq!(args[1], base);
                    }
                    if n == 5 {
                        let _ = patch(&space, &mut *thread, ip);
                    }
                    if n == 8 {
                        assert_eq!(thread.context().expect("alive").regs.gs_base, base);
                    }
                }
                // Only the one that points where nothing is may hurt itself.
                Exit::Fault(fault) if base > 0x7ffe_0000_0000 => {
                    assert_eq!(fault.signal, libc::SIGSEGV);
                    break;
                }
                other => panic!("{other:?}"),
            }
            resume = Resume::Result(0);
        }
    }
}

// Calls r9 with r12 as argument and result, with the direction flag set; rbx, r14 and the low half of xmm5 must stay equal,
// and all else as it was.
guest!(
    keeping,
    "2:",
    "lea rbx, [r12 * 2]",
    "mov r14, rbx",
    "movq xmm5, rbx",
    "mov rbp, r12",
    "mov r13, rsp",
    "lea r15, [r12 + 5]",
    "mov rdi, r12",
    "mov eax, r9d",
    "std",
    "syscall",
    "mov esi, 7",
    "pushfq",
    "cld",
    "pop rcx",
    "test ecx, 0x400",
    "jz 3f",
    "cmp rax, r12",
    "jne 3f",
    "movq rcx, xmm5",
    "cmp rbx, rcx",
    "jne 3f",
    "cmp rbx, r14",
    "jne 3f",
    "cmp rbp, r12",
    "jne 3f",
    "cmp rsp, r13",
    "jne 3f",
    "lea rcx, [r12 + 5]",
    "cmp r15, rcx",
    "jne 3f",
    "cmp rdi, r12",
    "jne 3f",
    "inc r12",
    "jmp 2b",
    "3:",
    "ud2",
);

/// Where xmm5 is in an XSAVE image.
const XMM5: usize = 160 + 5 * 16;

#[test]
fn contexts_in_patched_calls_can_be_changed() {
    // The registers of the second come with it.
    for number in [1000, libc::SYS_tgkill as u64] {
        change_contexts(number);
    }
}

fn change_contexts(number: u64) {
    let Some(space) = space(keeping()) else { return };
    let mut start = context();
    start.regs.r9 = number;
    let mut thread = thread(&space, &start);
    let (interrupter, tid) = (thread.interrupter(), host_ids(&mut *thread).1);
    let (mut random, mut pauses) = (Random(0xabcd), Random(0xdcba));
    let disturb = move || {
        interrupter.interrupt();
        // SAFETY: a plain system call on a thread that lives as long as this.
        unsafe { libc::syscall(libc::SYS_tkill, tid, libc::SIGUSR1) };
        std::thread::sleep(pauses.time(Duration::from_micros(400)));
    };
    meanwhile(disturb, || {
        let (mut calls, mut resume) = (0u64, Resume::Context);
        while calls < 8_000 {
            match thread.run(resume) {
                Exit::Syscall { number: made, args, ip } => {
                    assert_eq!((made, args[0], args[5]), (number, calls, number));
                    if calls == 10 {
                        assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                    }
                    resume = Resume::Result(calls);
                    let how = random.next() % 8;
                    if how < 3 {
                        let context = thread.context().expect("alive");
                        let regs = &mut context.regs;
                        assert_eq!((regs.rip, regs.rcx, regs.rdi, regs.rax), (ip, ip, calls, number));
                        assert_eq!((regs.rbx, regs.rbp, regs.r12), (calls * 2, calls, calls));
                        assert_eq!((regs.r13, regs.r14, regs.r15), (regs.rsp, calls * 2, calls + 5));
                        assert_eq!((regs.cs, regs.ss, regs.gs_base), (0x33, 0x2b, 0));
                        assert_eq!(regs.eflags & 0x400, 0x400);
                        let low = &mut context.xstate.0[XMM5..XMM5 + 8];
                        assert_eq!(*low, (calls * 2).to_le_bytes());
                        if how > 0 {
                            let other = random.next();
                            low.copy_from_slice(&other.to_le_bytes());
                            (regs.rbx, regs.r14) = (other, other);
                        }
                        if how == 2 {
                            regs.rax = calls;
                            resume = Resume::Context;
                        }
                    }
                    if how == 3 {
                        let change = Change::MapAnonymous { addr: DATA, len: PAGE_SIZE, prot: Prot::READ };
                        assert_eq!(space.apply(Some(&mut *thread), &[change]), Ok(()));
                        assert_eq!(thread.context().map(|context| context.regs.rbp), Ok(calls));
                    }
                    calls += 1;
                }
                Exit::Interrupted => {
                    let regs = thread.context().expect("alive").regs;
                    let code = CODE..CODE + keeping().len() as u64;
                    assert!(code.contains(&regs.rip), "{:x}", regs.rip);
                    resume = Resume::Context;
                }
                other => panic!("{other:?} after {calls}: {:x?}", thread.context()),
            }
        }
    });
}
