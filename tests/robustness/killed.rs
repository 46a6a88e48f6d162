//! kill -9 of each process of a sandbox, at each stage of its life: what is left can be deleted, and then nothing is left.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runsc_tests::tree;

use crate::sandbox::{Runsc, on_each_platform, text, wait_until_gone};

/// The sentry's children: one for each address space.
pub fn stubs(runsc: &Runsc, id: &str) -> Vec<i32> {
    let sentry = runsc.process(id, "sentry");
    tree::family(sentry as u32).into_iter().filter(|&pid| pid != sentry).collect()
}

/// One that a guest process runs in: the youngest. (The oldest is what the others are forked from.)
pub fn youngest_stub(runsc: &Runsc, id: &str) -> i32 {
    stubs(runsc, id).into_iter().max().unwrap()
}

/// The one of the stub processes, but for these, that has used most processor time, which has to be some: what runs in it is
/// a guest process that works, and not one that was made ahead of need.
pub fn busiest_stub(runsc: &Runsc, id: &str, but: &HashSet<i32>) -> i32 {
    let ticks = |pid: i32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum()
    };
    loop {
        let used = stubs(runsc, id).into_iter().filter(|pid| !but.contains(pid)).map(|pid| (ticks(pid), pid));
        match used.max() {
            Some((ticks, pid)) if ticks > 2 => return pid,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn any_process_may_be_killed_at_any_stage() {
    on_each_platform("any_process_may_be_killed", |runsc| {
        for stage in ["created", "running"] {
            for victim in ["sentry", "gofer", "stub"] {
                let bundle = runsc.bundle("b", &["idle"], |_| {});
                runsc.ok(&["create", "--bundle", &bundle, "c"]);
                if stage == "running" {
                    runsc.ok(&["start", "c"]);
                }
                let processes = runsc.processes("c");
                assert!(processes.len() >= 3, "{processes:?}");
                kill_9(match victim {
                    "stub" => youngest_stub(runsc, "c"),
                    name => runsc.process("c", name),
                });
                if (stage, victim) == ("running", "stub") {
                    // Also though the process sleeps in a call.
                    assert!(runsc.ok(&["wait", "c"]).contains("137"));
                }
                // Whatever it says, it answers.
                runsc.output(&["state", "c"]);
                runsc.output(&["kill", "c", "TERM"]);
                runsc.delete("c");
                wait_until_gone(&processes);
            }
        }
    });
}

#[test]
fn the_guilty_process_dies_and_not_the_sandbox() {
    on_each_platform("the_guilty_process_dies", |runsc| {
        let running = runsc.run_until_ready("c", &["idle"]);
        let before: HashSet<i32> = stubs(runsc, "c").into_iter().collect();
        let mut other =
            runsc.command(&["exec", "c", "/stress", "spin"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // As the host's OOM killer would: the process of one guest process, which is running. (One that sleeps in a call
        // learns of it when the call ends.)
        kill_9(busiest_stub(runsc, "c", &before));
        assert_eq!(other.wait().unwrap().code(), Some(137));
        assert_eq!(runsc.ok(&["exec", "c", "/stress", "hello"]), "hello\n");
        assert_eq!(runsc.state("c")["status"], "running");
        runsc.delete("c");
        drop(running);
    });
}

#[test]
fn commands_may_be_killed_at_any_point() {
    on_each_platform("commands_may_be_killed", |runsc| {
        let bundle = runsc.bundle("b", &["idle"], |_| {});
        // Each verb is killed a little later every time, from before it has begun to after its end.
        for verb in ["create", "run", "start"] {
            for step in 0..7 {
                let id = format!("{verb}{step}");
                let mut command = match verb {
                    "start" => {
                        runsc.ok(&["create", "--bundle", &bundle, &id]);
                        runsc.command(&["start", &id])
                    }
                    _ => runsc.command(&[verb, "--bundle", &bundle, &id]),
                };
                let mut child = command.spawn().unwrap();
                std::thread::sleep(Duration::from_millis(step * step * 4));
                let mut processes = tree::family(child.id());
                processes.remove(&(child.id() as i32));
                let _ = child.kill();
                child.wait().unwrap();
                if runsc.root().join(&id).exists() {
                    processes.extend(runsc.processes(&id));
                    runsc.ok(&["delete", "--force", &id]);
                }
                wait_until_gone(&processes);
                assert!(!runsc.root().join(&id).exists());
            }
        }
        assert_eq!(text(&runsc.output(&["list", "--quiet"]).stdout), "");
    });
}
