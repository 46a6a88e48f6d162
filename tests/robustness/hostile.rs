//! Stubs that are stopped or killed from outside in the middle of work, and programs that attack what the sandbox has in
//! their processes: the sandbox reports and goes on, and can be deleted at any time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::killed::{busiest_stub, stubs};
use crate::sandbox::{Runsc, describe, on_each_platform, text};

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// The sandbox works: for the commands that look, and with a process more.
fn works(runsc: &Runsc, id: &str) {
    assert_eq!(runsc.state(id)["status"], "running");
    assert_eq!(runsc.ok(&["exec", id, "/stress", "hello"]), "hello\n");
}

/// The process is stopped, and stays it.
fn is_stopped(pid: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(stat.contains(") T "), "{stat}");
}

#[test]
fn a_stub_may_be_killed_under_load() {
    on_each_platform("a_stub_under_load", |runsc| {
        let mut running = runsc.run_until_ready("c", &["load", "6"]);
        signal(busiest_stub(runsc, "c", &HashSet::new()), Signal::SIGKILL);
        assert_eq!(running.line(), "status 0x9\n");
        works(runsc, "c");
        assert_eq!(running.finish(), ("5 others\n".into(), Some(0)));
        runsc.delete("c");
    });
}

#[test]
fn a_stub_may_be_stopped_under_load() {
    on_each_platform("a_stopped_stub", |runsc| {
        let mut running = runsc.run_until_ready("c", &["load", "6"]);
        let victim = busiest_stub(runsc, "c", &HashSet::new());
        for pause in [1, 5, 20, 100, 300] {
            signal(victim, Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(pause));
            works(runsc, "c");
            is_stopped(victim);
            signal(victim, Signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(pause));
        }
        // It ends though it is stopped.
        signal(victim, Signal::SIGSTOP);
        signal(victim, Signal::SIGKILL);
        assert_eq!(running.line(), "status 0x9\n");
        assert_eq!(running.finish(), ("5 others\n".into(), Some(0)));
        runsc.delete("c");
    });
}

#[test]
fn what_stubs_are_forked_from_may_be_stopped() {
    on_each_platform("a_stopped_template", |runsc| {
        let running = runsc.run_until_ready("c", &["load", "1"]);
        let oldest = stubs(runsc, "c").into_iter().min().unwrap();
        signal(oldest, Signal::SIGSTOP);
        // More than can have been made ahead of need.
        for _ in 0..4 {
            works(runsc, "c");
        }
        is_stopped(oldest);
        runsc.delete("c");
        drop(running);
    });
}

#[test]
fn a_sandbox_with_stopped_stubs_can_be_killed_and_deleted() {
    on_each_platform("a_sandbox_with_stopped_stubs", |runsc| {
        for how in ["killed", "deleted"] {
            let running = runsc.run_until_ready("c", &["load", "6"]);
            for pid in stubs(runsc, "c") {
                signal(pid, Signal::SIGSTOP);
            }
            assert_eq!(runsc.state("c")["status"], "running");
            if how == "killed" {
                runsc.ok(&["kill", "c", "KILL"]);
                // All are stopped: nobody answers but by dying. (`run` may have deleted the container by then.)
                let output = runsc.output(&["wait", "c"]);
                let is_gone = text(&output.stderr).contains("does not exist");
                assert!(is_gone || text(&output.stdout).contains("137"), "{}", describe(&output));
            }
            runsc.delete("c");
            drop(running);
        }
    });
}

/// Runs a command of `stress` to its end, which it finds by itself; then says what it said.
fn run(runsc: &Runsc, args: &[&str], last: &str) {
    let began = Instant::now();
    let bundle = runsc.bundle("c", args, |_| {});
    let output = runsc.output(&["run", "--bundle", &bundle, "c"]);
    assert!(output.status.success() && text(&output.stdout) == last, "{args:?}: {}", describe(&output));
    println!("  {args:?}: {:?}", began.elapsed());
}

fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.into())
}

#[test]
fn ten_thousand_forks() {
    on_each_platform("ten_thousand_forks", |runsc| run(runsc, &["forks", "10000"], "10000 forks\n"));
}

#[test]
fn a_program_that_takes_its_own_ground_away() {
    on_each_platform("its_own_ground", |runsc| run(runsc, &["unmap"], "the parent lives\n"));
}

#[test]
fn a_program_that_maps_until_nothing_is_free() {
    on_each_platform("maps_all", |runsc| run(runsc, &["mappings"], "status 0\n"));
}

#[test]
fn jumps_into_the_stub() {
    let count = setting("HOSTILE_JUMPS", "100");
    on_each_platform("jumps", |runsc| run(runsc, &["jumps", &count], &format!("{count} jumps\n")));
}

#[test]
fn hostile_gs_bases() {
    on_each_platform("gs_bases", |runsc| run(runsc, &["gs"], "the parent lives\n"));
}

#[test]
fn the_stubs_memory_is_overwritten() {
    let count = setting("HOSTILE_LIVES", "40");
    on_each_platform("overwritten", |runsc| {
        run(runsc, &["overwriting", &count], &format!("{count} lives\n"));
    });
}
