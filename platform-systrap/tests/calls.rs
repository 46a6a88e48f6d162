//! System calls under disturbance: each is reported once, and its result arrives bit by bit.

mod common;

use common::{Random, context, host_ids, meanwhile, space, thread};
use platform::{Death, Exit, Resume};
use std::time::{Duration, Instant};

// r12 counts; r13 is the number. Each call must give 3 * r12 + 1.
guest!(
    counting,
    "2:",
    "mov rax, r13",
    "mov rdi, r12",
    "mov r14, rsp",
    "syscall",
    "lea rcx, [r12 + r12 * 2 + 1]",
    "cmp rax, rcx",
    "jne 3f",
    "cmp r14, rsp",
    "jne 3f",
    "inc r12",
    "jmp 2b",
    "3:",
    "ud2",
);

/// Keeps a thread (0 is the caller) on one of the processors, if there are so many.
fn pin(tid: i32, processor: usize) {
    let mut set = nix::sched::CpuSet::new();
    let _ = set.set(processor);
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(tid), &set);
}

/// Runs `counting` for `calls` calls of `number` among interrupts; with `apart` on two processors. Returns the number of
/// interrupts.
fn count(number: u64, calls: u64, seed: u64, apart: bool) -> u64 {
    let Some(space) = space(counting()) else { return 0 };
    let mut start = context();
    start.regs.r13 = number;
    let mut thread = thread(&space, &start);
    if apart {
        pin(0, 0);
        pin(host_ids(&mut *thread).1, 1);
    }
    let interrupter = thread.interrupter();
    let mut random = Random(seed);
    let mut pauses = Random(seed ^ 0x5555);
    let mut interrupts = 0;
    let disturb = move || {
        interrupter.interrupt();
        let pause = pauses.time(Duration::from_micros(120));
        if apart {
            // A sleep would be longer than a call.
            let start = Instant::now();
            while start.elapsed() < pause {}
        } else {
            std::thread::sleep(pause);
        }
    };
    meanwhile(disturb, || {
        let mut resume = Resume::Context;
        let mut expected = 0;
        while expected < calls {
            match thread.run(resume) {
                Exit::Syscall { number: reported, args, .. } => {
                    assert_eq!((reported, args[0]), (number, expected));
                    let result = 3 * expected + 1;
                    expected += 1;
                    resume = Resume::Result(result);
                    match random.next() % 8 {
                        0 => {
                            let regs = thread.context().expect("alive").regs;
                            assert_eq!((regs.rax, regs.rdi, regs.r12), (number, expected - 1, expected - 1));
                        }
                        1 => {
                            thread.context().expect("alive").regs.rax = result;
                            resume = Resume::Context;
                        }
                        _ => {}
                    }
                }
                Exit::Interrupted => {
                    interrupts += 1;
                    if random.next().is_multiple_of(4) {
                        let regs = thread.context().expect("alive").regs;
                        assert!(regs.r12 == expected || regs.r12 + 1 == expected, "{regs:x?} {expected}");
                    }
                    resume = Resume::Context;
                }
                other => panic!("{other:?} after {expected} calls: {:x?}", thread.context()),
            }
        }
    });
    interrupts
}

#[test]
fn interrupted_calls_happen_once() {
    // getpid is notified; clone is trapped; x32 and vsyscall-like odd numbers are trapped too.
    for number in [39, 56, 0x4000_0027, 0x3fff_ffff] {
        let interrupts = count(number, 20_000, 0x1234_5678_9abc_def1 ^ number, false);
        println!("call {number:#x}: {interrupts} interrupts");
    }
}

/// With the sentry thread and the stub on two processors, a signal can meet a reply in the kernel.
#[test]
fn interrupted_calls_happen_once_across_processors() {
    for number in [39, 56] {
        let interrupts = count(number, 20_000, 0x4321 ^ number, true);
        println!("call {number:#x}: {interrupts} interrupts");
    }
}

#[test]
fn minus_one_is_a_call() {
    assert_eq!(count(u64::MAX, 5_000, 77, false) == 0, common::platform().is_none());
}

guest!(
    echo,
    "2:",
    "mov eax, 39",
    "syscall",
    "mov rbx, rax",
    "mov eax, 40",
    "mov rdi, rbx",
    "syscall",
    "jmp 2b"
);

#[test]
fn results_are_exact() {
    let Some(space) = space(echo()) else { return };
    let mut thread = thread(&space, &context());
    let odd = [0, 1, i64::MAX, i64::MIN, i64::MIN + 1, 1 << 32, -1 << 32];
    let mut resume = Resume::Context;
    for value in (-5000..5000).chain(odd) {
        assert!(matches!(thread.run(resume), Exit::Syscall { number: 39, .. }));
        match thread.run(Resume::Result(value as u64)) {
            Exit::Syscall { number: 40, args, .. } => assert_eq!(args[0] as i64, value),
            other => panic!("{other:?}"),
        }
        resume = Resume::Result(0);
    }
}

// time() by the vsyscall page, r12 times.
guest!(
    vsyscall,
    "2:",
    "mov rdi, r12",
    "mov rax, 0xffffffffff600400",
    "call rax",
    "mov rbx, rax",
    "inc r12",
    "jmp 2b",
);

#[test]
fn vsyscalls_are_calls() {
    let Some(space) = space(vsyscall()) else { return };
    let mut thread = thread(&space, &context());
    let interrupter = thread.interrupter();
    let mut pauses = Random(99);
    let disturb = move || {
        interrupter.interrupt();
        std::thread::sleep(pauses.time(Duration::from_micros(200)));
    };
    meanwhile(disturb, || {
        // vsyscall(7) wants a pointer that is null or good.
        thread.context().expect("alive").regs.r12 = common::DATA;
        let mut resume = Resume::Context;
        let mut expected = common::DATA;
        while expected < common::DATA + 3000 {
            match thread.run(resume) {
                Exit::Syscall { number, args, .. } => {
                    assert_eq!((number, args[0]), (libc::SYS_time as u64, expected));
                    resume = Resume::Result(expected + 7);
                    expected += 1;
                }
                Exit::Interrupted => {
                    let regs = thread.context().expect("alive").regs;
                    assert!(
                        regs.rbx == 0 || regs.rbx == regs.r12 + 6 || regs.rbx == regs.r12 + 7,
                        "{regs:x?}"
                    );
                    resume = Resume::Context;
                }
                Exit::Fault(fault) if expected == common::DATA => {
                    println!("skipped: this kernel has no vsyscall page: {fault:x?}");
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn killed_at_any_moment() {
    let mut random = Random(0xdead_beef);
    for round in 0..60 {
        let Some(space) = space(counting()) else { return };
        let mut start = context();
        start.regs.r13 = [39, 56][round % 2];
        let mut thread = thread(&space, &start);
        let (pid, _) = host_ids(&mut *thread);
        let delay = random.time(Duration::from_millis(3));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(delay);
                // SAFETY: a plain system call on our own child, which is not reaped while the space lives.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            });
            let mut resume = Resume::Context;
            loop {
                match thread.run(resume) {
                    Exit::Syscall { args, .. } => {
                        resume = Resume::Result(3 * args[0] + 1);
                        if random.next().is_multiple_of(4)
                            && let Err(death) = thread.context()
                        {
                            assert_eq!(death, Death::Host);
                        }
                    }
                    Exit::Dead(death) => {
                        assert_eq!(death, Death::Host);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(thread.run(Resume::Context), Exit::Dead(Death::Host));
        assert!(thread.context().is_err());
        thread.interrupter().interrupt();
        assert_eq!(space.read(common::DATA, &mut [0; 8]), Err(platform::Errno::ESRCH));
    }
}

/// Stopping a stub behind the sentry's back may repeat a call (the crate's documentation says why), but loses nothing and
/// hangs nothing.
#[test]
fn stopped_at_any_moment() {
    for number in [39, 56] {
        let Some(space) = space(counting()) else { return };
        let mut start = context();
        start.regs.r13 = number;
        let mut thread = thread(&space, &start);
        let (pid, _) = host_ids(&mut *thread);
        let interrupter = thread.interrupter();
        let mut pauses = Random(number);
        let mut stops = 0;
        let disturb = || {
            // SAFETY: plain system calls on our own child.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            std::thread::sleep(pauses.time(Duration::from_micros(100)));
            if stops % 3 == 0 {
                interrupter.interrupt();
            }
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGCONT) };
            std::thread::sleep(pauses.time(Duration::from_micros(150)));
            stops += 1;
        };
        let mut repeated = 0;
        meanwhile(disturb, || {
            let mut resume = Resume::Context;
            let mut expected = 0;
            while expected < 4_000 {
                match thread.run(resume) {
                    Exit::Syscall { number: reported, args, .. } => {
                        assert_eq!(reported, number);
                        if args[0] + 1 == expected {
                            repeated += 1;
                        } else {
                            assert_eq!(args[0], expected);
                            expected += 1;
                        }
                        resume = Resume::Result(3 * args[0] + 1);
                    }
                    Exit::Interrupted => {
                        thread.context().expect("alive");
                        resume = Resume::Context;
                    }
                    other => panic!("{other:?} after {expected} calls: {:x?}", thread.context()),
                }
            }
        });
        println!("call {number}: {stops} stops, {repeated} calls repeated");
    }
}
