//! More guests that do little but call than processors: they take turns at being looked for, some of them end, wait or are
//! interrupted meanwhile, and each gets its own results.

mod common;

use common::{context, patch, space, thread};
use platform::{Exit, Resume};
use std::time::Duration;

// Each call gives back its argument, which counts.
guest!(
    echo,
    "2:",
    "mov eax, 1000",
    "mov rdi, r12",
    "syscall",
    "cmp rax, r12",
    "jne 3f",
    "inc r12",
    "jmp 2b",
    "3:",
    "ud2",
);

/// Runs a guest for `calls` calls, and does `act` before each reply but few.
fn run(calls: u64, mut act: impl FnMut(u64, &mut dyn platform::Thread)) {
    let Some(space) = space(echo()) else { return };
    let mut thread = thread(&space, &context());
    let (mut expected, mut resume) = (0, Resume::Context);
    while expected < calls {
        resume = match thread.run(resume) {
            Exit::Syscall { number: 1000, args, ip } => {
                assert_eq!(args[0], expected);
                if expected == 10 {
                    assert_eq!(patch(&space, &mut *thread, ip), Ok(()));
                }
                act(expected, &mut *thread);
                expected += 1;
                Resume::Result(expected - 1)
            }
            Exit::Interrupted => Resume::Context,
            other => panic!("{other:?} after {expected} calls: {:x?}", thread.context()),
        };
    }
}

#[test]
fn guests_that_only_call_get_their_own_results() {
    let processors = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    std::thread::scope(|scope| {
        for number in 0..(2 * processors).clamp(4, 16) {
            scope.spawn(move || match number % 4 {
                // It ends while others go on.
                0 => run(20_000, |_, _| {}),
                // It waits now and then, as in a call that blocks.
                1 => run(30_000, |count, thread| {
                    if count % 5000 == 4999 {
                        thread.idle();
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }),
                // It is interrupted, and looked at.
                2 => run(30_000, |count, thread| {
                    if count % 1000 == 999 {
                        thread.interrupter().interrupt();
                    }
                    if count % 3000 == 999 {
                        assert_eq!(thread.context().expect("alive").regs.r12, count);
                    }
                }),
                // Its calls take long now and then.
                _ => run(30_000, |count, _| {
                    if count % 10_000 == 9999 {
                        std::thread::sleep(Duration::from_millis(40));
                    }
                }),
            });
        }
    });
}
