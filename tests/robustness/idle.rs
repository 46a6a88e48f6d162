//! A sandbox whose guest sleeps uses no processor time, and little memory.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::sandbox::on_each_platform;

/// Context switches of all threads of a process, of both kinds.
fn switches(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| -> u64 {
        let lines = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).map(of).sum()
}

/// Bytes that a process has to itself.
fn private_memory(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    Some(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024)
}

#[test]
fn an_idle_sandbox_does_nothing() {
    on_each_platform("an_idle_sandbox_does_nothing", |runsc| {
        let running = runsc.run_until_ready("idle", &["idle"]);
        let processes = ["sentry", "gofer"].map(|name| (name, runsc.process("idle", name)));
        // What starting has left to do may take its time; what an idle sandbox does never ends. So there must be two
        // seconds without a switch, sooner or later.
        let mut quiet = false;
        for _ in 0..20 {
            let before = processes.map(|(_, pid)| switches(pid));
            std::thread::sleep(Duration::from_secs(2));
            let after = processes.map(|(_, pid)| switches(pid));
            quiet = before == after;
            if quiet {
                break;
            }
        }
        assert!(quiet, "an idle sandbox goes on switching");
        let mut sum = 0;
        for (name, pid) in processes {
            let Some(bytes) = private_memory(pid) else { continue };
            println!("  {name}: {} KiB of private memory", bytes / 1024);
            sum += bytes;
        }
        // A debug build needs more than a release build; either is far below what a cache without bound would be.
        assert!(sum < 64 << 20, "{sum} bytes of private memory");
        runsc.delete("idle");
        drop(running);
    });
}

#[test]
fn files_that_nobody_waits_for_wake_nobody() {
    on_each_platform("files_that_nobody_waits_for", |runsc| {
        let mut running = runsc.run_until_ready("idle", &["idle"]);
        let sentry = runsc.process("idle", "sentry");
        let mut input = running.child.stdin.take().unwrap();
        let before = switches(sentry);
        for _ in 0..50 {
            input.write_all(b"x").unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        // Each byte is an event of the guest's standard input.
        let woken = switches(sentry) - before;
        assert!(woken < 40, "{woken} switches");
        runsc.delete("idle");
    });
}
