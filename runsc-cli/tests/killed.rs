//! Commands that are killed at any point: what they leave can be seen and removed, and many containers at once.

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Runsc, describe, wait_for_no_process};
use serde_json::json;

/// Numbers that look random (xorshift), from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64 | 1;
        eprintln!("seed {seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs a command and kills it after a random time, which is longer than it takes every now and then.
fn killed(runsc: &Runsc, random: &mut Random, args: &[&str]) {
    let mut child = runsc.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Most of them are over in this time, the rest is spread over it.
    std::thread::sleep(Duration::from_micros(random.below(60_000)));
    let _ = child.kill();
    child.wait().unwrap();
}

fn nothing_is_left(runsc: &Runsc, ids: &[&str]) {
    for id in ids {
        let output = runsc.output(&["delete", "--force", id]);
        assert!(output.status.success(), "{id}: {}", describe(&output));
    }
    // There is none if all commands were killed before they did anything.
    let entries = std::fs::read_dir(runsc.root()).into_iter().flatten().flatten();
    let left: Vec<_> = entries.map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    wait_for_no_process(runsc.root().to_str().unwrap());
    for id in ids {
        wait_for_no_process(id);
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for id in ids {
            assert!(!hierarchy.path().join(id).exists(), "{id} in {hierarchy:?}");
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(runsc.dir.path().to_str().unwrap()), "{mounts}");
}

fn bundle(runsc: &Runsc, name: &str) -> String {
    runsc.bundle(name, &["sleep", "100000"], |_| {}).to_str().unwrap().to_owned()
}

#[test]
fn a_command_that_is_killed_leaves_nothing_that_cannot_be_removed() {
    need_sandbox!();
    let runsc = Runsc::new();
    let mut random = Random::new();
    let bundle = bundle(&runsc, "b");
    for round in 0..40 {
        let id = format!("killed-{}-{round}", std::process::id());
        let id = id.as_str();
        killed(&runsc, &mut random, &["create", "--bundle", &bundle, id]);
        if random.below(2) == 0 && !runsc.root().join(id).join("state.json").exists() {
            // What a create left is taken over by the next.
            // It may have to wait until the processes have gone that the killed one had just made.
            let again = || {
                let mut again = runsc.command(&["create", "--bundle", &bundle, id]);
                again.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
            };
            assert!((0..200).any(|_| again() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }));
        }
        killed(&runsc, &mut random, &["start", id]);
        killed(&runsc, &mut random, &["exec", "--detach", id, "sleep", "100000"]);
        // It says something, whatever it is.
        if runsc.root().join(id).exists() {
            let state = runsc.state(id);
            let known = ["creating", "created", "running", "stopped"];
            assert!(known.iter().any(|status| state["status"] == *status), "{state}");
        }
        killed(&runsc, &mut random, &["kill", id, "KILL"]);
        killed(&runsc, &mut random, &["delete", "--force", id]);
        nothing_is_left(&runsc, &[id]);
    }
}

#[test]
fn in_a_pod_a_command_that_is_killed_leaves_nothing_that_cannot_be_removed() {
    need_sandbox!();
    let runsc = Runsc::new();
    let mut random = Random::new();
    let pod = format!("pod-{}", std::process::id());
    let (kind, name) = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id");
    let first = runsc.bundle("pod", &["sleep", "100000"], |config| {
        config["annotations"] = json!({kind: "sandbox", name: pod});
    });
    let member = runsc.bundle("member", &["sleep", "100000"], |config| {
        config["annotations"] = json!({kind: "container", name: pod});
        config["linux"] = json!({"namespaces": [{"type": "pid"}]});
    });
    let member = member.to_str().unwrap();
    let mut create = runsc.command(&["create", "--bundle", first.to_str().unwrap(), &pod]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    runsc.ok(&["start", &pod]);
    for round in 0..40 {
        let id = format!("member-{}-{round}", std::process::id());
        let id = id.as_str();
        killed(&runsc, &mut random, &["create", "--bundle", member, id]);
        killed(&runsc, &mut random, &["start", id]);
        killed(&runsc, &mut random, &["exec", "--detach", id, "sleep", "100000"]);
        killed(&runsc, &mut random, &["delete", "--force", id]);
        let output = runsc.output(&["delete", "--force", id]);
        assert!(output.status.success(), "{id}: {}", describe(&output));
        wait_for_no_process(id);
        assert_eq!(runsc.state(&pod)["status"], "running");
    }
    assert_eq!(runsc.ok(&["exec", &pod, "echo", "fine"]), "fine\n");
    nothing_is_left(&runsc, &[&pod]);
}

/// Descriptors and threads of a process.
fn holds(pid: i64) -> (usize, usize) {
    let count =
        |what| std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join(what)).unwrap().count();
    (count("fd"), count("task"))
}

#[test]
fn many_containers_come_and_go_in_one_sandbox() {
    need_sandbox!();
    let runsc = Runsc::new();
    let pod = format!("many-{}", std::process::id());
    let (kind, name) = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id");
    let first = runsc.bundle("pod", &["sleep", "100000"], |config| {
        config["annotations"] = json!({kind: "sandbox", name: pod});
    });
    let member = runsc.bundle("member", &["sh", "-c", "echo here"], |config| {
        config["annotations"] = json!({kind: "container", name: pod});
        config["linux"] = json!({"namespaces": [{"type": "pid"}]});
    });
    let member = member.to_str().unwrap();
    let mut create = runsc.command(&["create", "--bundle", first.to_str().unwrap(), &pod]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    runsc.ok(&["start", &pod]);
    let sentry = runsc.state(&pod)["pid"].as_i64().unwrap();
    let mut held = (0, 0);
    for round in 0..60 {
        assert_eq!(runsc.ok(&["run", "--bundle", member, &format!("{pod}-{round}")]), "here\n");
        if round == 10 {
            held = holds(sentry);
        }
    }
    let now = holds(sentry);
    assert!(now.0 <= held.0 + 4 && now.1 <= held.1 + 4, "descriptors and threads: {held:?}, then {now:?}");
    // And at once.
    let running: Vec<_> = (0..16)
        .map(|n| {
            let id = format!("{pod}-at-once-{n}");
            runsc.command(&["run", "--bundle", member, &id]).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert_eq!(common::text(&output.stdout), "here\n", "{}", describe(&output));
    }
    nothing_is_left(&runsc, &[&pod]);
}
