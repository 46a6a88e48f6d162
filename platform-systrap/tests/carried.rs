//! Memory that travels with patched calls, both ways: it is the guest's memory, also under disturbance.

mod common;

use common::{DATA, Random, context, meanwhile, patch, space, thread};
use platform::{Exit, Resume};
use std::time::Duration;

// Counts in memory, and makes write(2) of it, with what it was given as fifth argument.
guest!(
    travelling,
    "mov esi, 0x800000",
    "2:",
    "mov eax, 1",
    "mov edx, 100",
    "mov r8, [rsi + 2048]",
    "inc qword ptr [rsi]",
    "syscall",
    "mov rbx, rax",
    "jmp 2b",
);

#[test]
fn memory_travels_with_calls() {
    let Some(space) = space(travelling()) else { return };
    let mut thread = thread(&space, &context());
    let interrupter = thread.interrupter();
    let mut random = Random(0x1357);
    let mut pauses = Random(0x2468);
    let disturb = move || {
        interrupter.interrupt();
        std::thread::sleep(pauses.time(Duration::from_micros(300)));
    };
    let mut travelled = 0;
    meanwhile(disturb, || {
        let (mut calls, mut given, mut resume) = (0u64, 0u64, Resume::Context);
        while calls < 20_000 {
            match thread.run(resume) {
                Exit::Syscall { number: 1, args, ip } => {
                    calls += 1;
                    assert_eq!((args[1], args[2], args[4]), (DATA, 100, given), "call {calls}");
                    if calls == 10 {
                        assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                    }
                    let mut carried = [0; 200];
                    let length = space.read_carried(DATA, &mut carried);
                    assert!(length == 100 || length == 0, "{length}");
                    let mut bytes = [0; 8];
                    assert_eq!(space.read(DATA, &mut bytes), Ok(8));
                    assert_eq!(u64::from_le_bytes(bytes), calls);
                    assert!(length == 0 || carried[..8] == bytes);
                    given = random.next();
                    if space.write_later(DATA + 2048, &given.to_le_bytes()) {
                        travelled += 1;
                        // Nobody is left to take it.
                        assert!(space.write_later(0x10_0000, &[1; 100]));
                    } else {
                        assert_eq!(space.write(DATA + 2048, &given.to_le_bytes()), Ok(8));
                    }
                    match random.next() % 8 {
                        0 => {
                            assert_eq!(space.read(DATA + 2048, &mut bytes), Ok(8));
                            assert_eq!(u64::from_le_bytes(bytes), given);
                        }
                        1 => assert_eq!(thread.context().map(|context| context.regs.rdx), Ok(100)),
                        2 => thread.idle(),
                        _ => {}
                    }
                    resume = Resume::Result(100);
                }
                Exit::Interrupted => resume = Resume::Context,
                other => panic!("{other:?} {:x?}", thread.context()),
            }
        }
    });
    assert!(travelled > 10_000, "{travelled}");
}

// After a patched call changes what that has written, and makes a call that is not patched.
guest!(
    changing,
    "mov esi, 0x800000",
    "2:",
    "mov eax, 1000",
    "syscall",
    "mov qword ptr [rsi], 7",
    "mov eax, 1001",
    "syscall",
    "jmp 2b",
);

#[test]
fn what_has_travelled_is_the_guests() {
    let Some(space) = space(changing()) else { return };
    let mut thread = thread(&space, &context());
    let (mut travelled, mut resume) = (0, Resume::Context);
    for round in 0..100 {
        let Exit::Syscall { number: 1000, ip, .. } = thread.run(resume) else { panic!("{round}") };
        if round == 0 {
            assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
        }
        let nine = 9u64.to_le_bytes();
        if space.write_later(DATA, &nine) {
            travelled += 1;
        } else {
            assert_eq!(space.write(DATA, &nine), Ok(8));
        }
        let Exit::Syscall { number: 1001, .. } = thread.run(Resume::Result(0)) else { panic!("{round}") };
        match round % 3 {
            0 => thread.idle(),
            1 => assert!(thread.context().is_ok()),
            _ => {}
        }
        let mut bytes = [0; 8];
        assert_eq!(space.read(DATA, &mut bytes), Ok(8));
        assert_eq!(u64::from_le_bytes(bytes), 7, "{round}");
        resume = Resume::Result(0);
    }
    assert!(travelled > 90, "{travelled}");
}

// Makes a patched call, and tells its result to one that is not patched.
guest!(telling, "2:", "mov eax, 1000", "syscall", "mov rdi, rax", "mov eax, 1001", "syscall", "jmp 2b",);

#[test]
fn what_cannot_travel_is_a_fault() {
    let Some(space) = space(telling()) else { return };
    let mut thread = thread(&space, &context());
    let interrupter = thread.interrupter();
    let (mut travelled, mut round, mut resume) = (0, 0u64, Resume::Context);
    let mut random = Random(0x9876);
    let mut pauses = Random(0x5432);
    let disturb = move || {
        interrupter.interrupt();
        std::thread::sleep(pauses.time(Duration::from_micros(300)));
    };
    meanwhile(disturb, || {
        while round < 5000 {
            let ip = match thread.run(resume) {
                Exit::Syscall { number: 1000, ip, .. } => ip,
                Exit::Interrupted => {
                    resume = Resume::Context;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            round += 1;
            if round == 1 {
                assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
            }
            // The second is where nothing is mapped.
            let takes = [(DATA, true), (0x10_0000, random.next().is_multiple_of(4))];
            let mut expected = round;
            for (addr, _) in takes.into_iter().filter(|(_, takes)| *takes) {
                if space.write_later(addr, &round.to_le_bytes()) {
                    travelled += 1;
                    if addr != DATA {
                        expected = (-i64::from(libc::EFAULT)) as u64;
                    }
                }
            }
            match random.next() % 8 {
                0 => assert!(thread.context().is_ok()),
                1 => thread.idle(),
                _ => {}
            }
            resume = Resume::Result(round);
            loop {
                match thread.run(resume) {
                    Exit::Syscall { number: 1001, args, .. } => {
                        assert_eq!(args[0], expected, "{round}");
                        break;
                    }
                    Exit::Interrupted => resume = Resume::Context,
                    other => panic!("{other:?}"),
                }
            }
            resume = Resume::Result(0);
        }
    });
    assert!(travelled > 5000, "{travelled}");
}
