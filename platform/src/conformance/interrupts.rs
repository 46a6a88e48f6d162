//! Interrupts, and death.

use super::code;
use super::harness::{Guest, Outcome, stub_pids, syscall};
use super::{Case, Outcome::Passed};
use crate::{Change, Death, Errno, Exit, PAGE_SIZE, Platform, Prot, Resume};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) const CASES: &[Case] = &[
    ("interrupt_before_run", before),
    ("interrupt_with_a_result_pending", pending_result),
    ("interrupt_during_run", during),
    ("interrupts_do_not_count_up", once),
    ("interrupt_race_with_calls", race),
    ("interrupt_after_death", after_death),
    ("kill_during_run", kill),
    ("killed_by_the_host", host_kill),
    ("host_signals_are_not_the_guests", host_signals),
];

fn before(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::syscall_loop());
    guest.thread.interrupter().interrupt();
    assert_eq!(guest.go(), Exit::Interrupted);
    assert_eq!(syscall(guest.go()).0, 39);
    // Edits made before an interrupt that comes at once are not lost.
    guest.context().regs.rdi = 5;
    guest.context().regs.rip -= 2;
    guest.thread.interrupter().interrupt();
    assert_eq!(guest.go(), Exit::Interrupted);
    assert_eq!(guest.context().regs.rdi, 5);
    assert_eq!(syscall(guest.go()), (39, [5, 0, 0, 0, 0, 0]));
    Passed
}

fn pending_result(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::syscall_loop());
    syscall(guest.go());
    guest.thread.interrupter().interrupt();
    assert_eq!(guest.result(1234), Exit::Interrupted);
    assert_eq!(guest.context().regs.rax, 1234);
    assert_eq!(syscall(guest.go()).1[0], 1234);
    guest.thread.interrupter().interrupt();
    assert_eq!(guest.result(-513i64 as u64), Exit::Interrupted);
    assert_eq!(syscall(guest.go()).1[0], -513i64 as u64);
    Passed
}

fn during(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::spin());
    let interrupter = guest.thread.interrupter();
    let mut last = 0;
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let interrupter = interrupter.clone();
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(2));
                interrupter.interrupt();
            });
            assert_eq!(guest.go(), Exit::Interrupted);
            let count = guest.context().regs.rbx;
            assert!(count >= last);
            last = count;
        }
    });
    assert!(last > 0);
    Passed
}

fn once(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::syscall_loop());
    let interrupter = guest.thread.interrupter();
    for _ in 0..5 {
        interrupter.interrupt();
        interrupter.interrupt();
        assert_eq!(guest.go(), Exit::Interrupted);
        assert_eq!(syscall(guest.go()).0, 39);
        assert_eq!(syscall(guest.result(0)).0, 39);
    }
    Passed
}

/// Interrupts at random while the guest makes calls as fast as it can: no call is lost, repeated or changed, and every
/// interrupt is noticed.
fn race(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::count_calls());
    let interrupter = guest.thread.interrupter();
    let (sent, seen, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..3000u64 {
                sent.store(i + 1, Ordering::SeqCst);
                interrupter.interrupt();
                // It must arrive, without anything else happening.
                while seen.load(Ordering::SeqCst) <= i {
                    if i % 3 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
                for _ in 0..(i * 7919) % 500 {
                    std::hint::spin_loop();
                }
            }
            stop.store(true, Ordering::SeqCst);
            interrupter.interrupt();
        });
        let (mut resume, mut calls) = (Resume::Context, 0);
        while !stop.load(Ordering::SeqCst) {
            match guest.thread.run(resume) {
                Exit::Interrupted => {
                    seen.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
                    resume = Resume::Context;
                    if calls % 4 == 0 {
                        guest.context().regs.r8 = 1;
                    }
                }
                exit => {
                    let (number, args) = syscall(exit);
                    calls += 1;
                    assert_eq!((number, args[0]), (39, calls));
                    // Numbers that the host's kernel takes for restart codes when a signal is pending.
                    resume = Resume::Result((512 + calls % 5).wrapping_neg());
                }
            }
        }
    });
    Passed
}

fn after_death(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::spin());
    let interrupter = guest.thread.interrupter();
    guest.space.kill();
    interrupter.interrupt();
    let exit = guest.go();
    assert!(matches!(exit, Exit::Dead(Death::Killed) | Exit::Interrupted), "{exit:?}");
    assert_eq!(guest.go(), Exit::Dead(Death::Killed));
    interrupter.interrupt();
    assert_eq!(guest.go(), Exit::Dead(Death::Killed));
    drop(guest);
    interrupter.interrupt();
    Passed
}

fn kill(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::spin());
    let space = guest.space.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            space.kill();
        });
        assert_eq!(guest.go(), Exit::Dead(Death::Killed));
    });
    assert_eq!(guest.thread.context().err(), Some(Death::Killed));
    assert_eq!(guest.go(), Exit::Dead(Death::Killed));
    let rw = Prot::READ | Prot::WRITE;
    let change = Change::MapAnonymous { addr: 0x1000_0000, len: PAGE_SIZE, prot: rw };
    assert_eq!(space.apply(None, &[change]), Err(Errno::ESRCH));
    assert_eq!(space.read(super::harness::DATA, &mut [0]), Err(Errno::ESRCH));
    assert_eq!(space.write(super::harness::DATA, &[0]), Err(Errno::ESRCH));
    assert_eq!(space.compare_exchange(None, super::harness::DATA, 0, 0), Err(Errno::ESRCH));
    assert_eq!(space.poke(super::harness::DATA, &[0]), Err(Errno::ESRCH));
    assert_eq!(space.resident(super::harness::DATA, &mut [0]), Err(Errno::ESRCH));
    assert_eq!(space.fork(None).err(), Some(Errno::ESRCH));
    assert!(space.new_thread(&super::harness::start(0)).is_err());
    Passed
}

fn host_kill(platform: &dyn Platform) -> Outcome {
    let before = stub_pids();
    let mut guest = Guest::new(platform, code::spin());
    let Some(pid) = stub_pids().into_iter().find(|p| !before.contains(p)) else {
        return Outcome::Skipped("no host process behind an address space".into());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        assert_eq!(guest.go(), Exit::Dead(Death::Host));
    });
    assert_eq!(guest.space.read(super::harness::DATA, &mut [0]), Err(Errno::ESRCH));
    // Nothing of it stays once it is dropped.
    drop(guest);
    while stub_pids().contains(&pid) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Passed
}

fn host_signals(platform: &dyn Platform) -> Outcome {
    let before = stub_pids();
    let mut guest = Guest::new(platform, code::count_calls());
    let Some(pid) = stub_pids().into_iter().find(|p| !before.contains(p)) else {
        return Outcome::Skipped("no host process behind an address space".into());
    };
    let tid = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|t| t.unwrap().file_name().to_str().and_then(|t| t.parse::<i32>().ok()))
        .find(|t| *t != pid);
    let Some(tid) = tid else { return Outcome::Skipped("no thread of its own".into()) };
    let signals = [libc::SIGUSR1, libc::SIGTERM, libc::SIGSEGV, libc::SIGTRAP, libc::SIGSYS, libc::SIGCHLD];
    let (mut resume, mut calls) = (Resume::Context, 0);
    for i in 0..600 {
        let signal = signals[i % signals.len()];
        // SAFETY: a plain system call.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
        let (_, args) = syscall(guest.thread.run(resume));
        calls += 1;
        assert_eq!(args[0], calls);
        resume = Resume::Result(0);
    }
    Passed
}
