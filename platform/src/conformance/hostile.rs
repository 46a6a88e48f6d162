//! Guests that attack the stub: they may die of it, and nothing else may happen.

use super::code;
use super::harness::{CODE, DATA, Guest, Outcome, syscall};
use super::{Case, Outcome::Passed};
use crate::{Change, Errno, Exit, PAGE_SIZE, Platform, Prot, Resume, USER_MAX};

pub(super) const CASES: &[Case] = &[
    ("stub_region_is_out_of_reach_of_changes", region),
    ("stub_text_cannot_be_written", write_text),
    ("stub_data_can_only_hurt_itself", scribble),
    ("jumps_into_the_stub", jumps),
    ("memory_calls_of_the_guest_do_nothing", raw_calls),
];

/// Start, end and rights of a mapping of the stub.
type Range = (u64, u64, String);

/// Mapped ranges of the host process behind the guest, above the guest's own.
fn stub_ranges(pid: i32) -> Vec<Range> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let in_stub = start >= USER_MAX && end < 1 << 47;
            in_stub.then(|| (start, end, words.next().unwrap_or_default().to_owned()))
        })
        .collect()
}

fn guest_and_ranges(platform: &dyn Platform, code: &[u8]) -> Result<(Guest, Vec<Range>), Outcome> {
    let before = super::stub_pids();
    let guest = Guest::new(platform, code);
    match super::stub_pids().into_iter().find(|p| !before.contains(p)) {
        Some(pid) => Ok((guest, stub_ranges(pid))),
        None => Err(Outcome::Skipped("no host process behind an address space".into())),
    }
}

/// The platform still makes guests that work.
fn still_works(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, code::syscall_loop());
    assert_eq!(syscall(guest.go()).0, 39);
    assert_eq!(syscall(guest.result(1)).1[0], 1);
    guest.space.fork(None).unwrap();
}

fn region(platform: &dyn Platform) -> Outcome {
    let (guest, ranges) = match guest_and_ranges(platform, code::load()) {
        Ok(x) => x,
        Err(skip) => return skip,
    };
    assert!(!ranges.is_empty());
    for (addr, end, _) in ranges {
        let len = end - addr;
        let prot = Prot::READ | Prot::WRITE | Prot::EXEC;
        for change in [
            Change::Unmap { addr, len },
            Change::Protect { addr, len, prot },
            Change::MapAnonymous { addr, len, prot },
            Change::Advise { addr, len, advice: libc::MADV_DONTNEED },
            Change::Move { old: addr, old_len: len, new: DATA, new_len: len, keep: false },
            Change::Move { old: DATA, old_len: PAGE_SIZE, new: addr, new_len: PAGE_SIZE, keep: false },
            // Growth from below.
            Change::Move {
                old: DATA,
                old_len: PAGE_SIZE,
                new: USER_MAX - PAGE_SIZE,
                new_len: addr + len - USER_MAX + PAGE_SIZE,
                keep: false,
            },
        ] {
            assert_eq!(guest.space.apply(None, &[change]), Err(Errno::EINVAL), "{change:x?}");
        }
        assert_eq!(guest.space.read(addr, &mut [0; 8]), Ok(0));
        assert_eq!(guest.space.write(addr, &[0; 8]), Ok(0));
        assert_eq!(guest.space.poke(addr, &[0; 8]), Ok(0));
        assert_eq!(guest.space.compare_exchange(None, addr, 0, 1), Err(Errno::EFAULT));
        assert!(guest.space.resident(addr, &mut [0]).is_err());
    }
    still_works(platform);
    Passed
}

fn write_text(platform: &dyn Platform) -> Outcome {
    let (mut guest, ranges) = match guest_and_ranges(platform, code::store()) {
        Ok(x) => x,
        Err(skip) => return skip,
    };
    for (start, end, rights) in ranges {
        assert!(!(rights.contains('w') && rights.contains('x')), "{start:#x} is {rights}");
        if rights.contains('x') {
            for addr in (start..end).step_by(PAGE_SIZE as usize) {
                guest.context().regs.rip = CODE;
                guest.context().regs.rdi = addr;
                let f = super::harness::fault(guest.go());
                assert_eq!((f.signal, f.code, f.addr), (libc::SIGSEGV, 2, addr));
            }
        }
    }
    Passed
}

/// The guest overwrites everything of the stub's that it can while the sentry works on it.
fn scribble(platform: &dyn Platform) -> Outcome {
    for seed in 0..20u64 {
        let (mut guest, ranges) = match guest_and_ranges(platform, code::store()) {
            Ok(x) => x,
            Err(skip) => return skip,
        };
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut exit = None;
        for (start, end, rights) in &ranges {
            if !rights.contains('w') {
                continue;
            }
            for _ in 0..100 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let addr = start + random % (end - start);
                // Each exit is a call of the store program, a fault, or the end of the guest.
                let resume = match exit {
                    None => {
                        guest.context().regs.rdi = addr;
                        Resume::Context
                    }
                    Some(_) => Resume::Result(addr),
                };
                exit = Some(guest.thread.run(resume));
                match exit {
                    Some(Exit::Syscall { .. }) => {}
                    Some(Exit::Dead(_)) => break,
                    other => panic!("{other:x?}"),
                }
            }
        }
        let prot = Prot::READ | Prot::WRITE;
        let change = Change::MapAnonymous { addr: 0x1000_0000, len: PAGE_SIZE, prot };
        match guest.space.apply(None, &[change]) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => panic!("{e:?}"),
        }
        drop(guest.space.fork(None));
    }
    still_works(platform);
    Passed
}

/// Guest code enters the stub's text at every byte.
fn jumps(platform: &dyn Platform) -> Outcome {
    let (mut guest, ranges) = match guest_and_ranges(platform, code::jump()) {
        Ok(x) => x,
        Err(skip) => return skip,
    };
    let text = ranges.iter().find(|(.., rights)| rights.contains('x')).map(|(start, ..)| *start);
    let Some(text) = text else { return Outcome::Skipped("no stub text".into()) };
    for offset in (0..0x480u64).step_by(3) {
        let interrupter = guest.thread.interrupter();
        let Ok(context) = guest.thread.context() else {
            guest = Guest::new(platform, code::jump());
            continue;
        };
        context.regs.rip = text + offset;
        context.regs.rdi = DATA + 128;
        context.regs.rsp = DATA + 4096;
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                // It may be in a loop of the stub's.
                while receiver
                    .recv_timeout(std::time::Duration::from_millis(20))
                    .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    interrupter.interrupt();
                }
            });
            for _ in 0..4 {
                match guest.go() {
                    Exit::Dead(_) => break,
                    // Whatever call it is, the sentry sees it.
                    Exit::Syscall { .. } | Exit::Interrupted | Exit::Fault(_) => {}
                }
            }
            drop(sender);
        });
    }
    still_works(platform);
    Passed
}

fn raw_calls(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::unmap_call());
    let regs = &mut guest.context().regs;
    (regs.rdi, regs.rsi, regs.rdx) = (CODE, 1 << 46, 0);
    assert_eq!(syscall(guest.go()).0, 11);
    let mut byte = [0];
    assert_eq!(guest.space.read(CODE, &mut byte), Ok(1));
    let f = super::harness::fault(guest.result(0));
    assert_eq!(f.addr, 0);
    Passed
}
