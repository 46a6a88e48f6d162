//! Limits of a container: those that the sentry holds, those that the host's cgroups hold, and what the guest sees.

mod common;

use std::path::PathBuf;

use common::cgroups::{can_limit, directories, group, host_file};
use common::{Runsc, describe, text, wait_until};
use serde_json::{Value, json};

#[test]
fn the_number_of_processes_is_limited() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--ignore-cgroups"]);
    // One process after the other: those of a pipeline race for the last places.
    let script = "cat /sys/fs/cgroup/pids.max; sleep 100 & sleep 100 & sleep 100 & echo four; \
                  (sleep 100 & sleep 100 & sleep 100 & sleep 100) 2>/tmp/said; grep -c -m1 -i fork /tmp/said; \
                  grep -c '^max 0' /sys/fs/cgroup/pids.events; kill -9 -1";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        config["linux"] = json!({"resources": {"pids": {"limit": 6}}});
        config["mounts"] = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]);
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(text(&output.stdout), "6\nfour\n1\n0\n", "{}", describe(&output));
}

#[test]
fn the_guest_sees_its_limits() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--ignore-cgroups"]);
    let script = "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo; cd /sys/fs/cgroup; \
                  cat cpu.max memory.max memory.swap.max cpu.weight";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        config["linux"] = json!({"resources": {
            "cpu": {"quota": 40000, "period": 50000, "shares": 1024},
            "memory": {"limit": 209715200, "swap": 209715200}
        }});
        config["mounts"] = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]);
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    let expected = "1\nMemTotal:         204800 kB\n40000 50000\n209715200\n0\n39\n";
    assert_eq!(text(&output.stdout), expected, "{}", describe(&output));
}

#[test]
fn a_container_is_in_its_cgroup_until_it_is_deleted() {
    need_sandbox!();
    if !can_limit("a_container_is_in_its_cgroup_until_it_is_deleted") {
        return;
    }
    let runsc = Runsc::new();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |config| {
        config["linux"] = json!({
            "cgroupsPath": group("life"),
            "resources": {"memory": {"limit": 268435456}, "pids": {"limit": 100}}
        });
    });
    // The container keeps what it is given as standard output.
    let mut create = runsc.command(&["create", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(create.stdout(std::process::Stdio::null()).status().unwrap().success());
    let groups = directories(&runsc, "c1");
    // All processes of the sandbox: the stubs are the sentry's children.
    let sentry = runsc.state("c1")["pid"].as_u64().unwrap();
    runsc.ok(&["start", "c1"]);
    let members = |path: &PathBuf| std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
    for (controller, directory) in &groups {
        let members = members(directory);
        assert!(members.lines().any(|pid| pid == sentry.to_string()), "{controller}: {members:?}");
        assert!(members.lines().count() >= 3, "{controller}: {members:?}");
    }
    let limit = || {
        let file = host_file(&runsc, "c1", "memory.limit_in_bytes", "memory.max").unwrap();
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    };
    assert_eq!(limit(), "268435456");
    runsc.ok(&["update", "--memory", "300m", "--pids-limit", "50", "c1"]);
    assert_eq!(limit(), (300 << 20).to_string());
    let resources = runsc.dir.path().join("resources.json");
    std::fs::write(&resources, r#"{"memory": {"limit": 314576896}, "cpu": {"shares": 512}}"#).unwrap();
    runsc.ok(&["update", "--resources", resources.to_str().unwrap(), "c1"]);
    assert_eq!(limit(), "314576896");
    let event: Value = serde_json::from_str(&runsc.ok(&["events", "--stats", "c1"])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("c1")));
    assert_eq!(event["data"]["memory"]["usage"]["limit"], 314576896);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(event["data"]["pids"], json!({"current": 1, "limit": 50}));
    runsc.ok(&["delete", "--force", "c1"]);
    for (_, directory) in &groups {
        assert!(!directory.exists(), "{directory:?}");
    }
}

#[test]
fn a_paused_container_does_nothing_and_can_be_killed() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--ignore-cgroups"]);
    // One that computes, one that sleeps and writes.
    let script = "(while :; do :; done) & while :; do echo x >> /data/out; sleep 0.01; done";
    let host = runsc.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        config["mounts"] =
            json!([{"destination": "/data", "type": "bind", "source": host, "options": ["rbind"]}]);
    });
    let mut run = runsc.command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(run.stdout(std::process::Stdio::null()).status().unwrap().success());
    let size = || std::fs::metadata(host.join("out")).map_or(0, |meta| meta.len());
    let grows = |from: u64| wait_until("something is written", || size() > from);
    let used = || {
        let event: Value = serde_json::from_str(&runsc.ok(&["events", "--stats", "c1"])).unwrap();
        event["data"]["cpu"]["usage"]["user"].as_u64().unwrap()
    };
    grows(0);
    runsc.ok(&["pause", "c1"]);
    assert_eq!(runsc.state("c1")["status"], "paused");
    let (size_before, used_before) = (size(), used());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(size(), size_before);
    assert_eq!(used(), used_before);
    assert!(runsc.fails(&["exec", "c1", "true"]).contains("cannot exec in a paused container"));
    assert!(runsc.fails(&["pause", "c1"]).contains("paused"));
    assert!(runsc.fails(&["delete", "c1"]).contains("not stopped"));
    runsc.ok(&["resume", "c1"]);
    assert_eq!(runsc.state("c1")["status"], "running");
    assert!(runsc.fails(&["resume", "c1"]).contains("running"));
    grows(size_before);
    runsc.ok(&["exec", "c1", "true"]);
    runsc.ok(&["pause", "c1"]);
    runsc.ok(&["kill", "c1", "KILL"]);
    runsc.wait_for("c1", "stopped");
    assert!(runsc.fails(&["resume", "c1"]).contains("not running"));
    runsc.ok(&["delete", "c1"]);
}

#[test]
fn who_takes_too_much_memory_dies_and_nobody_else() {
    need_sandbox!();
    if !can_limit("who_takes_too_much_memory_dies_and_nobody_else") {
        return;
    }
    let runsc = Runsc::new();
    // One that holds 40 MiB and waits, and one that wants 130: of 150 there are.
    let script = "(dd if=/dev/zero bs=40M count=1 2>/dev/null | (head -c 1 >/dev/null; echo x >/tmp/ready; sleep 1000)) & \
                  until [ -e /tmp/ready ]; do sleep 0.1; done; \
                  dd if=/dev/zero of=/dev/null bs=130M count=1 2>/dev/null; echo $?; echo alive";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        config["linux"] = json!({
            "cgroupsPath": group("memory"),
            "resources": {"memory": {"limit": 157286400, "swap": 157286400}}
        });
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(text(&output.stdout), "137\nalive\n", "{}", describe(&output));
}

#[test]
fn a_limit_that_cannot_hold_is_a_failure() {
    need_sandbox!();
    let runsc = Runsc::new();
    let bundle = runsc.bundle("b", &["true"], |config| {
        config["linux"] = json!({
            "cgroupsPath": group("nonsense"),
            "resources": {"cpu": {"cpus": "100000"}}
        });
    });
    let bundle = bundle.to_str().unwrap();
    let said = runsc.fails(&["run", "--bundle", bundle, "c1"]);
    assert!(said.contains("cgroups: "), "{said}");
    assert!(runsc.fails(&["state", "c1"]).contains("does not exist"));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let left = hierarchy.path().join(group("nonsense").trim_start_matches('/'));
        assert!(!left.exists(), "{left:?}");
    }
    let output = runsc.output(&["--ignore-cgroups", "run", "--bundle", bundle, "c1"]);
    assert!(output.status.success(), "{}", describe(&output));
}
