//! Stub threads that outlive their guest threads, and address spaces made ahead of need: a new guest thread sees nothing
//! of what was there before.

mod common;

use common::{DATA, context, host_ids, platform, space, thread};
use platform::{AddressSpace, Exit, Platform, Resume};
use std::sync::Arc;
use std::time::Duration;

// Gives what it finds in registers, and fs, as arguments of a call; then answers getpid's, then spins.
guest!(
    looking,
    "rdfsbase rdi",
    "mov rsi, r15",
    "mov rdx, rbx",
    "mov r10, rbp",
    "movq r8, xmm3",
    "mov eax, 1000",
    "syscall",
    "mov ebx, 77",
    "mov r15, rbx",
    "mov ebp, 78",
    "movq xmm3, rbx",
    "wrfsbase rbx",
    "mov ecx, 60",
    "2:",
    "mov eax, 39",
    "push rcx",
    "syscall",
    "pop rcx",
    "dec ecx",
    "jnz 2b",
    "mov edi, eax",
    "mov eax, 60",
    "syscall",
    "ud2",
);

/// Host threads of a process.
fn threads_of(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).unwrap_or(0)
}

fn run_one(space: &Arc<dyn AddressSpace>, answer: u64) -> (i32, i32) {
    let mut thread = thread(space, &context());
    let ids = host_ids(&mut *thread);
    let Exit::Syscall { number: 1000, args, .. } = thread.run(Resume::Context) else { panic!("{answer}") };
    assert_eq!(args[..5], [0; 5], "thread {answer}");
    thread.set_answers(&[Some(answer); 6]);
    let mut exit = thread.run(Resume::Result(0));
    while let Exit::Syscall { number: 39, .. } = exit {
        exit = thread.run(Resume::Result(answer));
    }
    assert!(matches!(exit, Exit::Syscall { number: 60, args, .. } if args[0] == answer), "{exit:?}");
    ids
}

#[test]
fn guest_threads_follow_each_other_in_one_stub_thread() {
    let Some(space) = space(looking()) else { return };
    let first = run_one(&space, 1);
    let before = threads_of(first.0);
    for answer in 2..50 {
        assert_eq!(run_one(&space, answer), first);
    }
    assert_eq!(threads_of(first.0), before);
}

#[test]
fn few_stub_threads_rest() {
    let Some(space) = space(looking()) else { return };
    let mut all: Vec<_> = (0..20).map(|_| thread(&space, &context())).collect();
    let (pid, _) = host_ids(&mut *all[0]);
    assert_eq!(threads_of(pid), 21);
    drop(all);
    let mut looks = 0;
    while threads_of(pid) > 5 {
        std::thread::sleep(Duration::from_millis(10));
        looks += 1;
        assert!(looks < 1000, "{} threads", threads_of(pid));
    }
    run_one(&space, 5);
}

#[test]
fn an_interrupt_of_an_ended_thread_meets_nobody() {
    let Some(space) = space(looking()) else { return };
    let first = thread(&space, &context());
    let interrupter = first.interrupter();
    interrupter.interrupt();
    drop(first);
    for answer in 1..50 {
        interrupter.interrupt();
        run_one(&space, answer);
    }
}

#[test]
fn processor_time_begins_with_the_guest() {
    let Some(space) = space(looking()) else { return };
    // A second thread, or the process's time is the thread's.
    let _other = thread(&space, &context());
    let mut busy = thread(&space, &context());
    let Exit::Syscall { .. } = busy.run(Resume::Context) else { panic!() };
    let start = busy.cpu_time();
    let mut calls = 0;
    while busy.cpu_time() < start + Duration::from_millis(20) {
        busy.context().expect("alive").regs.rip -= 2;
        assert!(matches!(busy.run(Resume::Context), Exit::Syscall { .. }));
        calls += 1;
        assert!(calls < 1_000_000);
    }
    drop(busy);
    let mut next = thread(&space, &context());
    assert!(matches!(next.run(Resume::Context), Exit::Syscall { .. }));
    assert!(next.cpu_time() < Duration::from_millis(15), "{:?}", next.cpu_time());
}

#[test]
fn address_spaces_made_ahead_are_empty() {
    let Some(platform) = platform() else { return };
    let mut spaces = Vec::new();
    for round in 0..8 {
        let space = platform.new_address_space().expect("an address space");
        assert_eq!(space.read(DATA, &mut [0; 8]).unwrap_or(0), 0, "round {round}");
        spaces.push(space);
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..8 {
        let Some(space) = space(looking()) else { return };
        run_one(&space, 9);
    }
}

/// Open descriptors of a process.
fn descriptors_of(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

#[test]
fn listeners_are_closed_in_the_stub() {
    let Some(space) = space(looking()) else { return };
    let mut all: Vec<_> = (0..100).map(|_| thread(&space, &context())).collect();
    let (pid, _) = host_ids(&mut *all[0]);
    // The command socket, and the listeners of threads that have no guest yet: not of all of them.
    assert!((2..=17).contains(&descriptors_of(pid)), "{}", descriptors_of(pid));
    // A fork has none of those.
    let child = space.fork(None).expect("a fork");
    let mut thread = thread(&child, &context());
    let (pid_of_child, _) = host_ids(&mut *thread);
    assert_eq!(descriptors_of(pid_of_child), 2);
    for (thread, left) in [(&mut thread, pid_of_child)].into_iter().chain(all.iter_mut().map(|t| (t, pid))) {
        assert!(matches!(thread.run(Resume::Context), Exit::Syscall { number: 1000, .. }));
        assert!(descriptors_of(left) < 18);
    }
    assert_eq!((descriptors_of(pid), descriptors_of(pid_of_child)), (1, 1));
}
