//! Several guest threads in one address space.

use super::code;
use super::harness::{CODE, DATA, DATA_PAGES, Guest, Outcome, STACK, load, start, syscall};
use super::{Case, Outcome::Passed};
use crate::{Change, Exit, PAGE_SIZE, Platform, Prot, Resume};

pub(super) const CASES: &[Case] = &[
    ("threads_share_memory", share),
    ("changes_are_seen_by_running_threads", changes),
    ("threads_come_and_go", churn),
    ("many_threads", many),
    ("address_spaces_come_and_go", spaces),
];

fn share(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    load(&*space, code::add_until());
    const TARGET: u64 = 2_000_000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let space = space.clone();
            scope.spawn(move || {
                let mut context = start(CODE);
                (context.regs.rdi, context.regs.rsi) = (DATA, TARGET);
                let mut thread = space.new_thread(&context).unwrap();
                assert_eq!(syscall(thread.run(Resume::Context)).0, 39);
                assert!(thread.context().unwrap().regs.rcx >= TARGET);
            });
        }
    });
    let mut word = [0; 4];
    space.read(DATA, &mut word).unwrap();
    let value = u64::from(u32::from_le_bytes(word));
    assert!((TARGET..TARGET + 4).contains(&value), "{value}");
    Passed
}

fn changes(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::add_until());
    let space = guest.space.clone();
    let regs = &mut guest.context().regs;
    (regs.rdi, regs.rsi) = (DATA, u64::from(u32::MAX));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until it runs.
            let mut word = [0; 4];
            while word == [0; 4] {
                space.read(DATA, &mut word).unwrap();
                std::thread::yield_now();
            }
            let protect = Change::Protect { addr: DATA, len: PAGE_SIZE, prot: Prot::READ };
            space.apply(None, &[protect]).unwrap();
            let (mut a, mut b) = ([0; 4], [0; 4]);
            space.read(DATA, &mut a).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            space.read(DATA, &mut b).unwrap();
            assert_eq!(a, b, "nobody writes any more");
        });
        let f = super::harness::fault(guest.go());
        assert_eq!((f.signal, f.code, f.addr), (libc::SIGSEGV, 2, DATA));
    });
    Passed
}

fn churn(platform: &dyn Platform) -> Outcome {
    let guest = Guest::new(platform, code::syscall_loop());
    for i in 0..200 {
        let mut thread = guest.space.clone().new_thread(&start(CODE)).unwrap();
        if i % 3 != 0 {
            syscall(thread.run(Resume::Context));
        }
        if i % 3 == 1 {
            syscall(thread.run(Resume::Result(1)));
            thread.interrupter().interrupt();
        }
    }
    assert_eq!(guest.space.write(DATA, b"x"), Ok(1));
    Passed
}

fn many(platform: &dyn Platform) -> Outcome {
    // A thousand at once, all of one host thread, each with its own registers.
    let guest = Guest::new(platform, code::count_calls());
    let mut threads: Vec<_> =
        (0..1000).map(|_| guest.space.clone().new_thread(&start(CODE)).unwrap()).collect();
    for round in 1..=3 {
        for thread in &mut threads {
            let resume = if round == 1 { Resume::Context } else { Resume::Result(0) };
            assert_eq!(syscall(thread.run(resume)).1[0], round);
        }
    }
    guest.space.kill();
    for thread in &mut threads {
        assert!(matches!(thread.run(Resume::Result(0)), Exit::Dead(_)));
    }
    Passed
}

fn spaces(platform: &dyn Platform) -> Outcome {
    let len = DATA_PAGES * PAGE_SIZE;
    for i in 0..100u64 {
        let mut guest = Guest::new(platform, code::count_calls());
        syscall(guest.go());
        let child = guest.space.fork(None).unwrap();
        let prot = Prot::READ | Prot::WRITE;
        child.apply(None, &[Change::MapAnonymous { addr: STACK, len, prot }]).unwrap();
        if i % 2 == 0 {
            guest.space.kill();
        } else {
            child.kill();
        }
    }
    Passed
}
