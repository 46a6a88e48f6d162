//! System calls with random arguments (`tests/fuzz/syscalls.c`), for a few seconds. `$FUZZ_SEED`, `$FUZZ_EPOCHS`,
//! `$FUZZ_CALLS`, `$FUZZ_PROCESSES` and `$FUZZ_THREADS` make of it what one likes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use runsc_tests::guest::{self, Linkage};
use runsc_tests::tree;

use crate::sandbox::{describe, on_each_platform, text, wait_until_gone};

fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.into())
}

#[test]
fn random_calls_break_nothing() {
    let source = guest::crate_dir().join("fuzz/syscalls.c");
    on_each_platform("random_calls", |runsc| {
        let program = guest::build(&source, Linkage::Static).unwrap();
        let log = runsc.dir.path().join("log");
        let arguments = [
            setting("FUZZ_SEED", "1"),
            setting("FUZZ_EPOCHS", "6"),
            setting("FUZZ_CALLS", "1000"),
            setting("FUZZ_PROCESSES", "4"),
            setting("FUZZ_THREADS", "3"),
        ];
        let mut command = runsc.command(&["--debug", &format!("--debug-log={}", log.display()), "do", "--"]);
        command.arg(&program).args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What hangs is ended, and said to hang: each epoch ends after less than a minute, however slow it is.
        let epochs: u64 = arguments[1].parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60 * (epochs + 1));
        let mut processes = tree::family(child.id());
        let mut hung = false;
        while child.try_wait().unwrap().is_none() {
            processes.extend(tree::family(child.id()));
            if Instant::now() > deadline {
                hung = true;
                tree::kill_tree(child.id());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = child.wait_with_output().unwrap();
        let seen = format!("seed {}: {}", arguments[0], describe(&output));
        assert!(!hung, "it hangs: {seen}");
        assert!(output.status.success(), "{seen}");
        assert!(text(&output.stdout).contains("done: "), "{seen}");
        let log = std::fs::read(&log).map(|bytes| text(&bytes)).unwrap_or_default();
        let wrong = log.lines().find(|line| {
            ["panicked", "misbehaved", "broke the protocol"].iter().any(|word| line.contains(word))
        });
        assert_eq!(wrong, None, "{seen}");
        wait_until_gone(&processes);
    });
}
