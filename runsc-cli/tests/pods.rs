//! Several containers in one sandbox.

mod common;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use common::cgroups::{self, Groups, can_limit, stubs};
use common::{Runsc, wait_for_no_process, wait_until};
use serde_json::{Value, json};

const TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

fn quiet(runsc: &Runsc, args: &[&str]) -> bool {
    runsc.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// A sandbox with the id `pod` whose first container does nothing.
fn pod(runsc: &Runsc, change: impl FnOnce(&mut Value)) {
    let bundle = runsc.bundle("pod", &["sleep", "100000"], |config| {
        config["annotations"] = json!({TYPE: "sandbox", SANDBOX: "pod"});
        change(config);
    });
    assert!(quiet(runsc, &["create", "--bundle", bundle.to_str().unwrap(), "pod"]));
    runsc.ok(&["start", "pod"]);
}

/// The bundle of a container that joins it.
fn member(runsc: &Runsc, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let _ = std::fs::remove_dir_all(runsc.dir.path().join(id));
    let bundle = runsc.bundle(id, &["sh", "-c", script], |config| {
        config["annotations"] = json!({TYPE: "container", SANDBOX: "pod"});
        config["linux"] = json!({"namespaces": [{"type": "pid"}, {"type": "mount"}]});
        change(config);
    });
    bundle.to_str().unwrap().to_owned()
}

fn start(runsc: &Runsc, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
    let bundle = member(runsc, id, script, change);
    assert!(quiet(runsc, &["create", "--bundle", &bundle, id]), "creating {id}");
    runsc.ok(&["start", id]);
}

fn wait_for_file(path: &Path, contents: &str) {
    wait_until(&format!("{} is {contents:?}", path.display()), || {
        std::fs::read_to_string(path).is_ok_and(|text| text == contents)
    });
}

fn bind(config: &mut Value, source: &Path) {
    config["mounts"] = json!([
        {"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}
    ]);
}

#[test]
fn containers_of_a_pod_live_and_die_by_themselves() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |config| config["hostname"] = json!("podhost"));
    start(&runsc, "one", "sleep 100001", |_| {});
    start(&runsc, "two", "sleep 100002", |config| config["process"]["user"] = json!({"uid": 7, "gid": 8}));
    let pid = |id: &str| runsc.state(id)["pid"].as_i64().unwrap();
    assert!(pid("one") != pid("two") && pid("one") != pid("pod"));
    for id in ["pod", "one", "two"] {
        assert_eq!(runsc.state(id)["status"], "running", "{id}");
    }
    assert_eq!(runsc.ok(&["list", "--quiet"]), "one\npod\ntwo\n");
    // Each has its own processes, numbers, root and user; the host name is the sandbox's.
    let ps = runsc.ok(&["ps", "one"]);
    assert!(ps.contains("sleep") && ps.lines().count() <= 3, "{ps}");
    assert_eq!(runsc.ok(&["exec", "one", "sh", "-c", "echo $PPID; hostname; id -u"]), "0\npodhost\n0\n");
    assert_eq!(runsc.ok(&["exec", "two", "sh", "-c", "id -u; id -g"]), "7\n8\n");
    let pids: Vec<i32> = serde_json::from_str(&runsc.ok(&["ps", "--format", "json", "two"])).unwrap();
    assert!(pids.contains(&1), "{pids:?}");
    runsc.ok(&["exec", "one", "touch", "/tmp/mine"]);
    assert_eq!(runsc.output(&["exec", "two", "stat", "/tmp/mine"]).status.code(), Some(1));
    // One ends, the others do not notice.
    assert!(runsc.fails(&["delete", "one"]).contains("not stopped"));
    runsc.ok(&["kill", "one", "KILL"]);
    assert_eq!(runsc.ok(&["wait", "one"]), "{\"exitStatus\":137,\"id\":\"one\"}\n");
    assert_eq!(runsc.state("one")["status"], "stopped");
    assert!(runsc.fails(&["exec", "one", "true"]).contains("stopped"));
    runsc.ok(&["delete", "one"]);
    assert_eq!(runsc.ok(&["exec", "two", "echo", "fine"]), "fine\n");
    // The id can be used again.
    start(&runsc, "one", "exit 3", |_| {});
    assert_eq!(runsc.ok(&["wait", "one"]), "{\"exitStatus\":3,\"id\":\"one\"}\n");
    // The end of the first is the end of all.
    runsc.ok(&["kill", "pod", "KILL"]);
    runsc.wait_for("pod", "stopped");
    runsc.wait_for("two", "stopped");
    assert_eq!(runsc.ok(&["wait", "two"]), "{\"exitStatus\":137,\"id\":\"two\"}\n");
    assert_eq!(runsc.ok(&["wait", "one"]), "{\"exitStatus\":3,\"id\":\"one\"}\n");
    for id in ["two", "one", "pod"] {
        runsc.ok(&["delete", id]);
    }
    assert_eq!(std::fs::read_dir(runsc.root()).unwrap().count(), 0);
    wait_for_no_process(runsc.root().to_str().unwrap());
}

#[test]
fn a_member_that_was_not_started_can_be_killed() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |_| {});
    for (signal, code) in [("KILL", 137), ("INT", 130)] {
        let bundle = member(&runsc, "m", "true", |_| {});
        assert!(quiet(&runsc, &["create", "--bundle", &bundle, "m"]));
        runsc.ok(&["kill", "m", "WINCH"]);
        assert_eq!(runsc.state("m")["status"], "created");
        runsc.ok(&["kill", "m", signal]);
        let end: Value = serde_json::from_str(&runsc.ok(&["wait", "m"])).unwrap();
        assert_eq!(end["exitStatus"], code, "{signal}");
        runsc.wait_for("m", "stopped");
        runsc.ok(&["delete", "m"]);
    }
    assert_eq!(runsc.state("pod")["status"], "running");
}

#[test]
fn a_pod_shares_directories_of_the_host() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let host = runsc.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    pod(&runsc, |_| {});
    // A fifo has its two ends in two containers: it must be one object.
    let script = "mkdir /data/d; busybox mkfifo /data/fifo; cat /data/fifo > /data/got; sleep 100000";
    start(&runsc, "one", script, |config| bind(config, &host));
    while !host.join("fifo").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    start(&runsc, "two", "echo through > /data/fifo; sleep 100000", |config| bind(config, &host));
    wait_for_file(&host.join("got"), "through\n");
    // Files of the first one's gofer are there when it is gone.
    runsc.ok(&["delete", "--force", "one"]);
    assert_eq!(runsc.ok(&["exec", "two", "cat", "/data/got"]), "through\n");
    runsc.ok(&["exec", "two", "sh", "-c", "echo more > /data/more"]);
    wait_for_file(&host.join("more"), "more\n");
    runsc.ok(&["delete", "--force", "two"]);
    wait_for_no_process("one");
    runsc.ok(&["delete", "--force", "pod"]);
}

#[test]
fn volumes_in_memory_are_the_pods() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let host = runsc.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    pod(&runsc, |config| {
        let annotations = config["annotations"].as_object_mut().unwrap();
        for (field, value) in [("type", "tmpfs"), ("share", "pod"), ("options", "rw,size=1m")] {
            annotations.insert(format!("dev.gvisor.spec.mount.cache.{field}"), json!(value));
        }
        annotations.insert("dev.gvisor.spec.mount.cache.source".into(), json!(host));
    });
    start(&runsc, "one", "echo kept > /data/file; sleep 100000", |config| bind(config, &host));
    while runsc.output(&["exec", "one", "stat", "/data/file"]).status.code() != Some(0) {}
    runsc.ok(&["delete", "--force", "one"]);
    start(&runsc, "two", "sleep 100000", |config| bind(config, &host));
    assert_eq!(runsc.ok(&["exec", "two", "cat", "/data/file"]), "kept\n");
    assert!(runsc.ok(&["exec", "two", "grep", "/data", "/proc/mounts"]).contains("tmpfs"));
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}

#[test]
fn a_pid_namespace_can_be_shared() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |_| {});
    let path = format!("/proc/{}/ns/pid", runsc.state("pod")["pid"]);
    let share = |config: &mut Value| {
        config["linux"] = json!({"namespaces": [{"type": "pid", "path": path}, {"type": "mount"}]});
    };
    start(&runsc, "one", "sleep 100001 & sleep 100002", share);
    let all = runsc.ok(&["exec", "one", "ps"]);
    assert!(all.contains("sleep 100000"), "{all}");
    let own = runsc.ok(&["ps", "--format", "json", "one"]);
    let own: Vec<i32> = serde_json::from_str(&own).unwrap();
    assert!(!own.contains(&1), "{own:?}");
    // Those of others are not for it to signal.
    assert!(runsc.fails(&["kill", "--pid", "1", "one", "KILL"]).contains("no such process"));
    // With the first process, the others end, too: nobody else would end them.
    runsc.ok(&["kill", "one", "KILL"]);
    assert_eq!(runsc.ok(&["wait", "one"]), "{\"exitStatus\":137,\"id\":\"one\"}\n");
    while runsc.ok(&["exec", "pod", "ps"]).contains("sleep 100001") {}
    // Another container's namespace.
    start(&runsc, "two", "sleep 100003", |_| {});
    let path = format!("/proc/{}/ns/pid", runsc.state("two")["pid"]);
    start(&runsc, "three", "sleep 100004", |config| {
        config["linux"] = json!({"namespaces": [{"type": "pid", "path": path}, {"type": "mount"}]});
    });
    let seen = runsc.ok(&["exec", "two", "ps"]);
    assert!(seen.contains("sleep 100004") && !seen.contains("sleep 100000"), "{seen}");
}

#[test]
fn standard_files_are_taken_at_create_and_let_go_at_the_end() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |_| {});
    let bundle = member(&runsc, "one", "cat; echo done", |_| {});
    let (mut output, writer) = std::io::pipe().unwrap();
    let (reader, input) = std::io::pipe().unwrap();
    let created = runsc
        .command(&["create", "--bundle", &bundle, "one"])
        .stdin(reader)
        .stdout(writer)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    std::io::Write::write_all(&mut &input, b"in\n").unwrap();
    drop(input);
    runsc.ok(&["start", "one"]);
    // Until its end, which comes when nobody has the other side.
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "in\ndone\n");
    assert_eq!(runsc.ok(&["wait", "one"]), "{\"exitStatus\":0,\"id\":\"one\"}\n");
}

#[test]
fn the_process_that_stands_for_a_container_ends_with_it_and_it_with_the_process() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |_| {});
    let bundle = member(&runsc, "one", "exit 7", |_| {});
    let output = runsc.output(&["run", "--bundle", &bundle, "one"]);
    assert_eq!(output.status.code(), Some(7), "{}", common::describe(&output));
    assert!(runsc.fails(&["state", "one"]).contains("does not exist"));
    // Killed by whoever knows its pid.
    start(&runsc, "two", "sleep 100001", |_| {});
    let kill = |pid: &Value, signal: i32| {
        // SAFETY: sends a signal to a process that this test has started.
        assert_eq!(unsafe { libc::kill(pid.as_i64().unwrap() as i32, signal) }, 0);
    };
    kill(&runsc.state("two")["pid"], libc::SIGKILL);
    runsc.wait_for("two", "stopped");
    assert_eq!(runsc.ok(&["wait", "two"]), "{\"exitStatus\":137,\"id\":\"two\"}\n");
    // Signals go through it.
    start(&runsc, "three", "trap 'exit 5' TERM; touch /tmp/ready; while :; do sleep 0.01; done", |_| {});
    while runsc.output(&["exec", "three", "stat", "/tmp/ready"]).status.code() != Some(0) {}
    kill(&runsc.state("three")["pid"], libc::SIGTERM);
    assert_eq!(runsc.ok(&["wait", "three"]), "{\"exitStatus\":5,\"id\":\"three\"}\n");
    // Without its gofer it has no files.
    start(&runsc, "four", "sleep 100002", |_| {});
    let state = std::fs::read_to_string(runsc.root().join("four/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    kill(&state["gofer"]["pid"], libc::SIGKILL);
    runsc.wait_for("four", "stopped");
    assert_eq!(runsc.state("pod")["status"], "running");
    for id in ["two", "three", "four", "pod"] {
        runsc.ok(&["delete", "--force", id]);
    }
    wait_for_no_process(runsc.root().to_str().unwrap());
}

#[test]
fn a_container_cannot_join_what_is_not_there() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = member(&runsc, "one", "true", |_| {});
    let said = runsc.fails(&["create", "--bundle", &bundle, "one"]);
    assert!(said.contains("joining sandbox \"pod\"") && said.contains("does not exist"), "{said}");
    assert!(runsc.fails(&["state", "one"]).contains("does not exist"));
    pod(&runsc, |_| {});
    let bundle = member(&runsc, "one", "true", |config| config["process"]["args"] = json!(["nowhere"]));
    assert!(runsc.fails(&["create", "--bundle", &bundle, "one"]).contains("nowhere"));
    assert!(runsc.fails(&["state", "one"]).contains("does not exist"));
    runsc.ok(&["kill", "pod", "KILL"]);
    runsc.wait_for("pod", "stopped");
    assert!(runsc.fails(&["create", "--bundle", &bundle, "one"]).contains("it is stopped"));
}

/// A group for a container of the pod, and these limits.
fn limited(config: &mut Value, path: &str, resources: Value) {
    config["linux"]["cgroupsPath"] = json!(path);
    config["linux"]["resources"] = resources;
    config["mounts"] = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]);
}

/// What a program in a container sees of its limits: processors, memory in KiB, and files of its cgroup.
fn seen(runsc: &Runsc, id: &str) -> String {
    let script = "busybox nproc; grep -c ^processor /proc/cpuinfo; ls /sys/devices/system/cpu | grep -c 'cpu[0-9]'; \
                  grep MemTotal /proc/meminfo | grep -o '[0-9]*'; cd /sys/fs/cgroup; cat cpu.max memory.max";
    runsc.ok(&["exec", id, "sh", "-c", script]).replace('\n', " ")
}

#[test]
fn programs_run_in_the_cgroup_of_their_container() {
    need_sandbox!();
    if !can_limit("programs_run_in_the_cgroup_of_their_container") {
        return;
    }
    let groups = Groups::new("in");
    let runsc = Runsc::new();
    pod(&runsc, |config| limited(config, &groups.below("pod"), json!({"cpu": {"shares": 2}})));
    let resources = json!({"cpu": {"cpus": "0", "shares": 512}});
    // Forks, and programs that replace others.
    let script = "(sleep 1000; true) & exec sh -c 'sleep 1000; true'";
    start(&runsc, "one", script, |config| limited(config, &groups.below("one"), resources));
    start(&runsc, "two", "sleep 1000", |config| {
        limited(config, &groups.below("two"), json!({}));
        config["process"]["oomScoreAdj"] = json!(900);
    });
    assert!(quiet(&runsc, &["exec", "--detach", "one", "sleep", "1000"]));
    // Five sleeps and shells, and the process that all descend from; there may be one that waits for its program.
    wait_until("all of them", || (6..=7).contains(&stubs(&runsc, "one").len()));
    assert!((2..=3).contains(&stubs(&runsc, "two").len()));
    assert!((2..=3).contains(&stubs(&runsc, "pod").len()));
    for pid in stubs(&runsc, "one") {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("\nCpus_allowed_list:\t0\n"), "{status}");
    }
    for pid in stubs(&runsc, "two") {
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "900\n");
    }
    // The sentry works for all.
    let shares = |id: &str| {
        let weight = |v2: u64| v2.saturating_sub(1) * 262_142 / 9999 + 2;
        let text = cgroups::read(&runsc, id, "cpu.shares", "cpu.weight").unwrap();
        let number: u64 = text.parse().unwrap();
        let v2 = cgroups::read(&runsc, id, "cpu.shares", "cpu.shares").is_none();
        if v2 { weight(number) } else { number }
    };
    assert!(shares("pod") >= 1500, "{}", shares("pod"));
    runsc.ok(&["delete", "--force", "two"]);
    assert!((500..1024).contains(&shares("pod")), "{}", shares("pod"));
    let event: Value = serde_json::from_str(&runsc.ok(&["events", "--stats", "one"])).unwrap();
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(event["data"]["pids"]["current"], 5);
}

#[test]
fn limits_of_a_container_hold_for_it_alone() {
    need_sandbox!();
    if !can_limit("limits_of_a_container_hold_for_it_alone") {
        return;
    }
    let groups = Groups::new("own");
    let runsc = Runsc::new();
    pod(&runsc, |config| limited(config, &groups.below("pod"), json!({})));
    let host = runsc.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    let data = json!({"destination": "/data", "type": "bind", "source": host, "options": ["rbind"]});
    // One that holds 20 MiB and waits, and one that wants 70: of 80 there are.
    let hungry = "(dd if=/dev/zero bs=20M count=1 2>/dev/null | (head -c 1 >/dev/null; echo x >/data/ready; sleep 1000)) & \
                  until [ -e /data/ready ]; do sleep 0.1; done; \
                  dd if=/dev/zero of=/dev/null bs=70M count=1 2>/dev/null; echo $? >/data/status; sleep 1000";
    start(&runsc, "hungry", hungry, |config| {
        limited(config, &groups.below("hungry"), json!({"memory": {"limit": 83886080, "swap": 83886080}}));
        config["mounts"].as_array_mut().unwrap().push(data.clone());
    });
    let busy =
        "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo $? >/data/busy; while :; do :; done";
    start(&runsc, "busy", busy, |config| {
        limited(config, &groups.below("busy"), json!({"cpu": {"quota": 20000, "period": 100000}}));
        config["mounts"].as_array_mut().unwrap().push(data.clone());
    });
    wait_for_file(&host.join("busy"), "0\n");
    wait_for_file(&host.join("status"), "137\n");
    assert_eq!(runsc.ok(&["exec", "hungry", "echo", "alive"]), "alive\n");
    let kills =
        |id: &str| cgroups::count(&runsc, id, ("memory.oom_control", "memory.events"), "oom_kill").unwrap();
    assert!(kills("hungry") > 0);
    assert_eq!((kills("pod"), kills("busy")), (0, 0));
    let throttled =
        |id: &str| cgroups::count(&runsc, id, ("cpu.stat", "cpu.stat"), "nr_throttled").unwrap_or(0);
    wait_until("a quota that is used up", || throttled("busy") > 3);
    assert_eq!((throttled("pod"), throttled("hungry")), (0, 0));
    for id in ["pod", "hungry", "busy"] {
        assert_eq!(runsc.state(id)["status"], "running", "{id}");
    }
}

#[test]
fn an_update_changes_what_a_container_has_and_sees() {
    need_sandbox!();
    let groups = Groups::new("update");
    let limits = can_limit("the host's part of an_update_changes_what_a_container_has_and_sees");
    let runsc = if limits { Runsc::new() } else { Runsc::without_cgroups() };
    let host_memory = |id: &str| cgroups::read(&runsc, id, "memory.limit_in_bytes", "memory.max").unwrap();
    pod(&runsc, |config| {
        limited(config, &groups.below("pod"), json!({"cpu": {"quota": 100000, "period": 100000}}));
        config["annotations"]["io.kubernetes.cri.sandbox-memory"] = json!("536870912");
    });
    let own = json!({"cpu": {"quota": 50000, "period": 100000}, "memory": {"limit": 104857600}});
    start(&runsc, "own", "sleep 1000", |config| limited(config, &groups.below("own"), own));
    start(&runsc, "none", "sleep 1000", |config| limited(config, &groups.below("none"), json!({})));
    assert_eq!(seen(&runsc, "pod"), "1 1 1 524288 100000 100000 536870912 ");
    assert_eq!(seen(&runsc, "own"), "1 1 1 102400 50000 100000 104857600 ");
    assert_eq!(seen(&runsc, "none"), "1 1 1 524288 100000 100000 536870912 ");
    if limits {
        assert_eq!((host_memory("own").as_str(), host_memory("none").as_str()), ("104857600", "536870912"));
    }
    runsc.ok(&["update", "--memory", "209715200", "--cpu-quota", "25000", "own"]);
    assert_eq!(seen(&runsc, "own"), "1 1 1 204800 25000 100000 209715200 ");
    assert_eq!(seen(&runsc, "none"), "1 1 1 524288 100000 100000 536870912 ");
    // The sandbox's, too, is that of those who have none of their own.
    runsc.ok(&["update", "--memory", "268435456", "pod"]);
    assert_eq!(seen(&runsc, "pod"), "1 1 1 262144 100000 100000 268435456 ");
    assert_eq!(seen(&runsc, "own"), "1 1 1 204800 25000 100000 209715200 ");
    assert_eq!(seen(&runsc, "none"), "1 1 1 262144 100000 100000 268435456 ");
    if limits {
        assert_eq!((host_memory("own").as_str(), host_memory("none").as_str()), ("209715200", "268435456"));
        assert_eq!(host_memory("pod"), "268435456");
    }
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= 2) {
        // A program that was started before sees more, too.
        let mut exec = runsc.command(&["exec", "own", "sh", "-c", "read x; busybox nproc"]);
        let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        runsc.ok(&["update", "--cpu-quota", "200000", "pod"]);
        runsc.ok(&["update", "--cpu-quota", "150000", "own"]);
        drop(child.stdin.take());
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "2\n");
        assert_eq!(seen(&runsc, "own"), "2 2 2 204800 150000 100000 209715200 ");
        assert_eq!(seen(&runsc, "none"), "2 2 2 262144 200000 100000 268435456 ");
    }
}

#[test]
fn a_container_is_paused_without_the_others() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    pod(&runsc, |_| {});
    let host = runsc.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    let script = |id: &str| format!("while :; do echo x >> /data/{id}; sleep 0.01; done");
    for id in ["one", "two"] {
        start(&runsc, id, &script(id), |config| bind(config, &host));
    }
    let size = |id: &str| std::fs::metadata(host.join(id)).map_or(0, |meta| meta.len());
    let grows = |id: &str| {
        let before = size(id);
        wait_until("something is written", || size(id) > before);
    };
    grows("one");
    runsc.ok(&["pause", "one"]);
    let before = size("one");
    grows("two");
    assert_eq!(size("one"), before);
    assert_eq!(runsc.ok(&["exec", "two", "echo", "fine"]), "fine\n");
    runsc.ok(&["pause", "pod"]);
    grows("two");
    runsc.ok(&["resume", "pod"]);
    runsc.ok(&["resume", "one"]);
    grows("one");
    runsc.ok(&["pause", "two"]);
    runsc.ok(&["delete", "--force", "two"]);
    grows("one");
}
