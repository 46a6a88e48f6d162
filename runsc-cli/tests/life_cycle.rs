//! Containers from create to delete.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Runsc, describe, text};
use serde_json::{Value, json};

fn run(runsc: &Runsc, args: &[&str], change: impl FnOnce(&mut Value)) -> std::process::Output {
    let bundle = runsc.bundle("b", args, change);
    runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"])
}

fn run_text(args: &[&str], change: impl FnOnce(&mut Value)) -> String {
    let runsc = Runsc::without_cgroups();
    let output = run(&runsc, args, change);
    assert!(output.status.success(), "{}", describe(&output));
    text(&output.stdout)
}

#[test]
fn a_container_has_what_its_configuration_says() {
    need_sandbox!();
    let script =
        "hostname; pwd; echo $A; id -u; id -g; id -G; umask; cat /proc/self/oom_score_adj; ulimit -n";
    let out = run_text(&["sh", "-c", script], |config| {
        let process = &mut config["process"];
        process["user"] = json!({"uid": 1000, "gid": 100, "additionalGids": [7, 8], "umask": 63});
        process["cwd"] = json!("/tmp");
        process["oomScoreAdj"] = json!(123);
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 321, "hard": 400}]);
        config["hostname"] = json!("somewhere");
    });
    assert_eq!(out, "somewhere\n/tmp\nB\n1000\n100\n100 7 8\n0077\n123\n321\n");
}

#[test]
fn without_a_host_name_of_its_own_a_container_has_that_of_the_host() {
    need_sandbox!();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for none in [Value::Null, json!("")] {
        assert_eq!(run_text(&["hostname"], |config| config["hostname"] = none), host);
    }
}

#[test]
fn seccomp_of_the_configuration_holds_for_each_process() {
    need_sandbox!();
    let script = "mkdir /tmp/a; mkdir -m 700 /tmp/b && echo made; grep Seccomp: /proc/self/status";
    let filter = |config: &mut Value| {
        config["linux"] = json!({"seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
                {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS",
                 "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
            ]
        }});
    };
    let runsc = Runsc::without_cgroups();
    let output = run(&runsc, &["sh", "-c", script], filter);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out, "Seccomp:\t2\n", "{}", describe(&output));
    assert_eq!(err.matches("Read-only file system").count(), 2, "{err}");
    let runsc = Runsc::without_cgroups();
    let output = run(&runsc, &["sh", "-c", "sh -c 'kill -10 1; echo alive'; echo $?"], filter);
    // Killed by SIGSYS.
    assert!(text(&output.stdout).ends_with("159\n"), "{}", describe(&output));
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["true"], |config| {
        config["linux"] = json!({"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}});
    });
    let error = runsc.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(error.contains("linux.seccomp") && error.contains("SCMP_ACT_NOTIFY"), "{error}");
}

#[test]
fn exit_codes_and_signals_are_passed_on() {
    need_sandbox!();
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        let runsc = Runsc::without_cgroups();
        // The shell is not process 1, which could not kill itself.
        let script = format!("sh -c '{script}'; exit $?");
        let output = run(&runsc, &["sh", "-c", &script], |_| {});
        assert_eq!(output.status.code(), Some(code), "{script}: {}", describe(&output));
        assert!(runsc.fails(&["state", "c1"]).contains("does not exist"));
    }
}

#[test]
fn a_container_may_be_kept_when_it_has_ended() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sh", "-c", "exit 3"], |_| {});
    let output = runsc.output(&["run", "--keep", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(output.status.code(), Some(3), "{}", describe(&output));
    assert_eq!(runsc.state("c1")["status"], "stopped");
    assert!(runsc.ok(&["wait", "c1"]).contains("\"exitStatus\":3"));
    runsc.ok(&["delete", "c1"]);
    assert!(runsc.fails(&["state", "c1"]).contains("does not exist"));
}

#[test]
fn mount_points_are_made_in_a_read_only_root() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--overlay2=none"]);
    let bundle = runsc.bundle("b", &["sh", "-c", "cat /made/here/comm; touch /x"], |config| {
        config["root"]["readonly"] = json!(true);
        config["mounts"] = json!([{"destination": "/made/here", "type": "proc", "source": "proc"},
                                  {"destination": "/made/here", "type": "tmpfs", "source": "tmpfs"},
                                  {"destination": "/made/too", "type": "tmpfs", "source": "tmpfs"}]);
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", describe(&output));
    assert!(!bundle.join("rootfs/made").exists(), "made on the host");
}

#[test]
fn a_boot_that_fails_is_told_and_not_the_hook_that_it_makes_fail() {
    need_sandbox!();
    let runsc = Runsc::new();
    let bundle = runsc.bundle("b", &["no-such-program"], |config| {
        let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); for i in $(seq 600); do [ -e /proc/$pid/ns/net ] || break; sleep 0.1; done; exit 1";
        config["hooks"] = json!({"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let line = runsc.fails(&["create", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(line.contains("executable file not found"), "{line}");
    let bundle = runsc.bundle("b2", &["true"], |config| {
        config["hooks"] = json!({"prestart": [{"path": "/bin/false"}]});
    });
    assert!(runsc.fails(&["create", "--bundle", bundle.to_str().unwrap(), "c2"]).contains("prestart hook"));
}

#[test]
fn a_program_that_cannot_be_executed_is_named_by_create() {
    need_sandbox!();
    for (program, words) in [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": permission denied"),
    ] {
        for verb in ["create", "run"] {
            let runsc = Runsc::without_cgroups();
            let bundle = runsc.bundle("b", &[program], |_| {});
            let line = runsc.fails(&[verb, "--bundle", bundle.to_str().unwrap(), "c1"]);
            assert!(line.contains(words), "{verb}: {line}");
            assert!(runsc.fails(&["state", "c1"]).contains("does not exist"));
        }
    }
}

#[test]
fn standard_files_are_passed_on() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sh", "-c", "cat; echo error >&2"], |_| {});
    let mut child = runsc
        .command(&["run", "--bundle", bundle.to_str().unwrap(), "c1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More than a pipe holds, so that both sides must be at work.
    let data = "0123456789abcdef".repeat(32 << 10);
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let data = data.clone();
        move || input.write_all(data.as_bytes()).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    assert_eq!(text(&output.stdout), data);
    assert_eq!(text(&output.stderr), "error\n");
}

#[test]
fn mounts_are_where_they_should_be() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let host = runsc.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "contents\n").unwrap();
    let script = "cat /data/file /one; echo new > /data/new; echo x > /ro/x || echo refused; \
                  grep -c . /proc/self/mounts > /dev/null && echo proc; ls /dev/null; echo end";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": host, "options": ["rbind"]},
            {"destination": "/ro", "type": "bind", "source": host, "options": ["rbind", "ro"]},
            {"destination": "/one", "type": "bind", "source": host.join("file"), "options": ["bind"]},
            {"destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
        ]);
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(
        text(&output.stdout),
        "contents\ncontents\nrefused\nproc\n/dev/null\nend\n",
        "{}",
        describe(&output)
    );
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
}

#[test]
fn mountinfo_tells_what_of_the_host_is_mounted() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let host = runsc.dir.path().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&host, runsc.dir.path().join("link")).unwrap();
    let script = "while read -r _ _ _ root at _; do case $at in /data|/one|/) echo $root $at;; esac; done \
                  < /proc/self/mountinfo";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |config| {
        let (sub, file) = (runsc.dir.path().join("link/sub"), host.join("file"));
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": sub, "options": ["rbind"]},
            {"destination": "/one", "type": "bind", "source": file, "options": ["bind"]},
        ]);
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    let host = host.canonicalize().unwrap();
    let expected = format!("/ /\n{0}/sub /data\n{0}/file /one\n", host.display());
    assert_eq!(text(&output.stdout), expected, "{}", describe(&output));
}

#[test]
fn ids_are_those_of_the_host_that_the_mappings_say() {
    use std::os::unix::fs::{MetadataExt, chown};
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--ignore-cgroups", "--overlay2=none"]);
    let host = runsc.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("roots"), "").unwrap();
    chown(&host, Some(5000), Some(6000)).unwrap();
    std::fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let map = |first: u32| json!([{"containerID": 0, "hostID": first, "size": 2000}]);
    let mapped = |config: &mut Value| {
        config["linux"] = json!({
            "namespaces": [{"type": "user"}, {"type": "mount"}],
            "uidMappings": map(5000),
            "gidMappings": map(6000),
            "devices": [{"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "uid": 7, "gid": 8}],
        });
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": host, "options": ["rbind"]},
            {"destination": "/shm", "type": "tmpfs", "source": "shm", "options": ["mode=700", "gid=5"]},
        ]);
    };
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; echo x > /data/new; \
                  stat -c '%u %g %n' /data /data/new /data/roots /shm /dev/own; \
                  echo y > /data/roots || echo refused; sleep 1000";
    let bundle = runsc.bundle("b", &["sh", "-c", script], mapped);
    let out = std::fs::File::create(runsc.dir.path().join("out")).unwrap();
    let mut command = runsc.command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c1"]);
    let status = command.stdout(out.try_clone().unwrap()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let said = || std::fs::read_to_string(runsc.dir.path().join("out")).unwrap();
    common::wait_until("the last line is there", || said().contains("refused"));
    let expected = "0\n0\n         0       5000       2000\n         0       6000       2000\n0 0 /data\n\
                    0 0 /data/new\n65534 65534 /data/roots\n0 5 /shm\n7 8 /dev/own\nrefused\n";
    assert_eq!(said(), expected);
    let new = std::fs::metadata(host.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (5000, 6000));
    // Others, too.
    runsc.ok(&["exec", "--user", "3:4", "c1", "touch", "/data/another"]);
    let another = std::fs::metadata(host.join("another")).unwrap();
    assert_eq!((another.uid(), another.gid()), (5003, 6004));
    let output = runsc.output(&["exec", "--user", "2000", "c1", "true"]);
    assert!(
        text(&output.stderr).contains("user id 2000 is not in linux.uidMappings"),
        "{}",
        describe(&output)
    );
}

#[test]
fn writes_to_the_root_go_where_the_overlay_says() {
    need_sandbox!();
    for (flag, kept) in [("--overlay2=root:memory", false), ("--overlay2=none", true)] {
        let runsc = Runsc::with_flags(&[flag, "--ignore-cgroups"]);
        let output = run(&runsc, &["sh", "-c", "echo x > /tmp/x; cat /tmp/x"], |_| {});
        assert_eq!(text(&output.stdout), "x\n", "{flag}: {}", describe(&output));
        assert_eq!(runsc.dir.path().join("b/rootfs/tmp/x").exists(), kept, "{flag}");
    }
    let runsc = Runsc::without_cgroups();
    let output = run(&runsc, &["touch", "/tmp/x"], |config| config["root"]["readonly"] = json!(true));
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", describe(&output));
}

#[test]
fn create_start_kill_delete() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sh", "-c", "echo started > /data/out; sleep 1000"], |config| {
        config["annotations"] = json!({"key": "value"});
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind"]}
        ]);
    });
    std::fs::create_dir(bundle.join("data")).unwrap();
    let pid_file = runsc.dir.path().join("pid");
    let status = runsc
        .command(&[
            "create",
            "--bundle",
            bundle.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            "c1",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let state = runsc.state("c1");
    assert_eq!(state["status"], "created");
    assert_eq!(state["annotations"]["key"], "value");
    assert_eq!(state["bundle"], bundle.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(state["pid"].to_string(), std::fs::read_to_string(&pid_file).unwrap());
    assert!(runsc.fails(&["create", "--bundle", bundle.to_str().unwrap(), "c1"]).contains("already exists"));
    assert!(!bundle.join("data/out").exists());
    runsc.ok(&["start", "c1"]);
    assert_eq!(runsc.state("c1")["status"], "running");
    assert!(runsc.fails(&["start", "c1"]).contains("running state"));
    assert!(runsc.fails(&["delete", "c1"]).contains("not stopped"));
    let list: Value = serde_json::from_str(&runsc.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(list[0]["id"], "c1");
    let out = bundle.join("data/out");
    while !std::fs::read_to_string(&out).is_ok_and(|text| text == "started\n") {
        assert_eq!(runsc.state("c1")["status"], "running");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Process 1 takes only signals that it has handlers for, but SIGKILL from outside.
    runsc.ok(&["kill", "c1", "TERM"]);
    assert_eq!(runsc.state("c1")["status"], "running");
    runsc.ok(&["kill", "c1", "KILL"]);
    runsc.wait_for("c1", "stopped");
    assert_eq!(runsc.ok(&["wait", "c1"]), "{\"exitStatus\":137,\"id\":\"c1\"}\n");
    assert!(runsc.fails(&["kill", "c1", "TERM"]).contains("container not running"));
    runsc.ok(&["kill", "--all", "c1", "TERM"]);
    runsc.ok(&["delete", "c1"]);
    assert_eq!(std::fs::read_dir(runsc.root()).unwrap().count(), 0);
}

#[test]
fn a_container_that_was_not_started_can_be_signalled() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["true"], |_| {});
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("--all", 143)] {
        let mut create = runsc.command(&["create", "--bundle", bundle.to_str().unwrap(), "c1"]);
        assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        for harmless in ["0", "WINCH", "CONT"] {
            runsc.ok(&["kill", "c1", harmless]);
        }
        let said = runsc.fails(&["kill", "--pid", "7", "c1"]);
        assert!(said.contains("no such process: 7"), "{said}");
        assert_eq!(runsc.state("c1")["status"], "created");
        if signal == "--all" {
            runsc.ok(&["kill", "--all", "c1"]);
        } else {
            runsc.ok(&["kill", "c1", signal]);
        }
        let end: Value = serde_json::from_str(&runsc.ok(&["wait", "c1"])).unwrap();
        assert_eq!(end["exitStatus"], code, "{signal}");
        runsc.wait_for("c1", "stopped");
        let said = runsc.fails(&["start", "c1"]);
        assert!(said.contains("stopped"), "{said}");
        let said = runsc.fails(&["kill", "c1", "0"]);
        assert!(said.contains("container not running"), "{said}");
        runsc.ok(&["delete", "c1"]);
        let said = runsc.fails(&["kill", "c1", "0"]);
        assert!(said.contains("does not exist"), "{said}");
    }
}

#[test]
fn exec_runs_beside_the_first_process() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |_| {});
    runsc.detached(&bundle);
    let exec = |args: &[&str]| runsc.output(&[&["exec"][..], args].concat());
    let output = exec(&["c1", "sh", "-c", "echo $A $B; pwd; id -u; exit 9"]);
    assert_eq!(output.status.code(), Some(9), "{}", describe(&output));
    assert_eq!(text(&output.stdout), "B\n/\n0\n");
    let output =
        exec(&["--env", "B=C", "--cwd", "/tmp", "--user", "bob", "c1", "sh", "-c", "echo $A $B; pwd; id"]);
    assert_eq!(
        text(&output.stdout),
        "B C\n/tmp\nuid=1000(bob) gid=100(users) groups=10(wheel)\n",
        "{}",
        describe(&output)
    );
    let long = format!("LONG={}", "x".repeat(100_000));
    let output = exec(&["--env", &long, "c1", "sh", "-c", "echo ${#LONG}"]);
    assert_eq!(text(&output.stdout), "100000\n", "{}", describe(&output));
    let output = exec(&["c1", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137), "{}", describe(&output));
    assert_eq!(exec(&["c1", "no-such-program"]).status.code(), Some(128));
    assert!(text(&exec(&["--user", "eve", "c1", "true"]).stderr).contains("user \"eve\""));
    let process = runsc.dir.path().join("process.json");
    std::fs::write(
        &process,
        json!({"user": {"uid": 5, "gid": 6}, "args": ["/bin/id"], "cwd": "/", "env": []}).to_string(),
    )
    .unwrap();
    let output = exec(&["--process", process.to_str().unwrap(), "c1"]);
    assert!(text(&output.stdout).starts_with("uid=5 gid=6"), "{}", describe(&output));
    let pids: Vec<i32> = serde_json::from_str(&runsc.ok(&["ps", "--format", "json", "c1"])).unwrap();
    assert_eq!(pids, [1]);
    assert!(runsc.ok(&["ps", "c1"]).contains("sleep"));
}

#[test]
fn a_bind_mount_shows_what_the_host_does_to_it() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |config| {
        config["mounts"] = json!([
            {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind"]}
        ]);
    });
    std::fs::create_dir(bundle.join("data")).unwrap();
    std::fs::write(bundle.join("data/file"), "one\n").unwrap();
    runsc.detached(&bundle);
    let look = || {
        text(&runsc.output(&["exec", "c1", "sh", "-c", "ls /data; cat /data/file; cat /data/other"]).stdout)
    };
    assert_eq!(look(), "file\none\n");
    std::fs::write(bundle.join("data/other"), "two\n").unwrap();
    std::fs::write(bundle.join("data/file"), "longer\n").unwrap();
    assert_eq!(look(), "file\nother\nlonger\ntwo\n");
    std::fs::remove_file(bundle.join("data/file")).unwrap();
    std::fs::rename(bundle.join("data/other"), bundle.join("data/file")).unwrap();
    assert_eq!(look(), "file\ntwo\n");
}

#[test]
fn a_detached_exec_is_a_process_of_the_host() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |_| {});
    runsc.detached(&bundle);
    let file = |name: &str| runsc.dir.path().join(name);
    let status = runsc
        .command(&["exec", "--detach", "--pid-file"])
        .arg(file("pid"))
        .arg("--internal-pid-file")
        .arg(file("inside"))
        .args(["c1", "sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.1; done"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let host: i32 = std::fs::read_to_string(file("pid")).unwrap().parse().unwrap();
    let inside = std::fs::read_to_string(file("inside")).unwrap();
    let waiting = runsc.command(&["wait", "--pid", &inside, "c1"]).stdout(Stdio::piped()).spawn().unwrap();
    // The trap may not be set yet.
    std::thread::sleep(std::time::Duration::from_millis(500));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(host), nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = waiting.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("\"exitStatus\":3"), "{}", describe(&output));
}

#[test]
fn whatever_is_killed_can_be_deleted() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |_| {});
    for victim in ["sentry", "gofer"] {
        runsc.detached(&bundle);
        let state: Value =
            serde_json::from_str(&std::fs::read_to_string(runsc.root().join("c1/state.json")).unwrap())
                .unwrap();
        let pid = state[victim]["pid"].as_i64().unwrap() as i32;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        if victim == "sentry" {
            runsc.wait_for("c1", "stopped");
            assert!(runsc.ok(&["wait", "c1"]).contains("137"));
        }
        runsc.ok(&["delete", "--force", "c1"]);
        assert_eq!(std::fs::read_dir(runsc.root()).unwrap().count(), 0);
        for process in ["sentry", "gofer"] {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", state[process]["pid"])).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{process} after {victim} was killed: {stat}");
        }
    }
}

#[test]
fn hooks_run_at_their_points() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let log = runsc.dir.path().join("hooks");
    let hook = |name: &str| {
        let script = format!("echo {name} $(grep -o '\"status\":\"[a-z]*\"') >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let output = run(&runsc, &["true"], |config| {
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            config["hooks"][name] = hook(name);
        }
    });
    assert!(output.status.success(), "{}", describe(&output));
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\n\
         createContainer \"status\":\"creating\"\npoststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n"
    );
    let runsc = Runsc::without_cgroups();
    let output = run(&runsc, &["true"], |config| {
        config["hooks"]["createRuntime"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because; exit 1"]}]);
    });
    assert_eq!(output.status.code(), Some(128));
    assert!(text(&output.stderr).contains("createRuntime hook \"/bin/sh\": exit status: 1: because"));
    assert_eq!(std::fs::read_dir(runsc.root()).unwrap().count(), 0);
}

#[test]
fn containers_do_not_keep_their_creators_waiting() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    // Whoever reads this pipe must see its end when the container has ended, though the container ran detached.
    let bundle = runsc.bundle("b", &["echo", "said"], |_| {});
    let output = runsc.output(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(text(&output.stdout), "said\n", "{}", describe(&output));
    runsc.wait_for("c1", "stopped");
    assert_eq!(runsc.ok(&["wait", "c1"]), "{\"exitStatus\":0,\"id\":\"c1\"}\n");
}

#[test]
fn a_command_may_be_killed_at_any_point() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sleep", "1000"], |_| {});
    // From before anything has happened to well after everything has.
    for step in 0..24u64 {
        let id = format!("killed-{}-{step}", std::process::id());
        let mut child = runsc
            .command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), &id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(step * step));
        child.kill().unwrap();
        child.wait().unwrap();
        runsc.output(&["state", &id]);
        runsc.ok(&["delete", "--force", &id]);
        assert_eq!(runsc.ok(&["list", "--quiet"]), "");
        common::wait_for_no_process(&id);
    }
}

impl Runsc {
    /// Runs a container detached, with no standard files of ours.
    fn detached(&self, bundle: &std::path::Path) {
        let status = self
            .command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c1"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

#[test]
fn hooks_of_start_container_run_inside() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let hook =
        |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin", "H=1"]});
    let bundle = runsc.bundle("b", &["sh", "-c", "cat /tmp/state /tmp/name; echo $$"], |config| {
        config["hooks"] = json!({"startContainer": [hook("cat > /tmp/state; echo; hostname > /tmp/name; echo $H >> /tmp/name")]});
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    let out = text(&output.stdout);
    assert!(out.contains(r#""id":"c1""#) && out.ends_with("box\n1\n1\n"), "{}", describe(&output));
    let bundle = runsc.bundle("failing", &["true"], |config| {
        config["hooks"] = json!({"startContainer": [hook("echo why; exit 3")]});
    });
    let said = runsc.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(said.contains("startContainer hook \"/bin/sh\"") && said.contains("why"), "{said}");
}

#[test]
fn preserved_descriptors_reach_the_process() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let here = |name: &str| runsc.dir.path().join(name);
    std::fs::write(here("in"), "from the host\n").unwrap();
    // By way of a shell, which opens them.
    let with = |redirections: &str, args: &[&str]| {
        let command = runsc.command(args);
        std::process::Command::new("sh")
            .args(["-c", &format!("exec \"$@\" {redirections}"), "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(runsc.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let script = "cat <&3; echo to the host >&4; [ -e /proc/self/fd/5 ] || echo no more";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |_| {});
    let bundle = bundle.to_str().unwrap();
    let output = with("3<in 4>out 5<in", &["run", "--preserve-fds=2", "--bundle", bundle, "c1"]);
    assert_eq!(text(&output.stdout), "from the host\nno more\n", "{}", describe(&output));
    assert_eq!(std::fs::read_to_string(here("out")).unwrap(), "to the host\n");
    // A pipe, and a process that is started later.
    let idle = runsc.bundle("idle", &["sleep", "1000"], |_| {});
    runsc
        .command(&["run", "--detach", "--bundle", idle.to_str().unwrap(), "c2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let output = with("3<in 4>&1", &["exec", "--preserve-fds=2", "c2", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "from the host\nto the host\nno more\n", "{}", describe(&output));
    let output = with("3<in 4<&-", &["run", "--preserve-fds=2", "--bundle", bundle, "c3"]);
    assert_eq!(output.status.code(), Some(128), "{}", describe(&output));
    assert!(text(&output.stderr).contains("file descriptor 4: it is not open"), "{}", describe(&output));
}

#[test]
fn a_preserved_directory_leads_nowhere_else() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let host = runsc.dir.path().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("sub/file"), "from the host\n").unwrap();
    std::os::unix::fs::symlink("../secret", host.join("out")).unwrap();
    std::fs::write(runsc.dir.path().join("secret"), "not yours\n").unwrap();
    let with = |args: &[&str]| {
        let command = runsc.command(args);
        std::process::Command::new("sh")
            .args(["-c", &format!("exec \"$@\" 3</dev/null 4<{} 5</dev/null", host.display()), "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let script = "cd /proc/self/fd/4 && ls && cat sub/file && echo \"$0\" > sub/$0 || echo failed; \
                  cat ../secret out ../../secret; ls ..; [ -c /proc/self/fd/3 ] && [ -c /proc/self/fd/5 ] && echo end";
    let expected = "out\nsub\nfrom the host\nout\nsub\nend\n";
    let bundle = runsc.bundle("b", &["sh", "-c", script, "one"], |_| {});
    let output = with(&["run", "--preserve-fds=3", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert_eq!(text(&output.stdout), expected, "{}", describe(&output));
    assert_eq!(std::fs::read_to_string(host.join("sub/one")).unwrap(), "one\n");
    let idle = runsc.bundle("idle", &["sleep", "1000"], |_| {});
    let mut run = runsc.command(&["run", "--detach", "--bundle", idle.to_str().unwrap(), "c2"]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let output = with(&["exec", "--preserve-fds=3", "c2", "sh", "-c", script, "two"]);
    assert_eq!(text(&output.stdout), expected, "{}", describe(&output));
    assert_eq!(std::fs::read_to_string(host.join("sub/two")).unwrap(), "two\n");
    // Its gofer is gone with the process.
    let gofers = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"runsc-gofer\0gofer\0c2\0")).count()
    };
    common::wait_until("one gofer is left", || gofers() <= 1);
}

#[test]
fn hooks_of_the_container_run_in_the_namespaces_of_the_sandbox() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let said = runsc.dir.path().join("said");
    let script = "readlink /proc/self/ns/net /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/mnt >";
    let bundle = runsc.bundle("b", &["sleep", "1000"], |config| {
        let script = format!("{script} {}", said.display());
        config["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let mut create = runsc.command(&["create", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = runsc.state("c1")["pid"].as_i64().unwrap();
    let namespace = |pid: &str, name| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let mut expected: Vec<_> = ["net", "uts", "ipc"].map(|name| namespace(&pid.to_string(), name)).into();
    assert_ne!(expected[0], namespace("self", "net"));
    expected.push(namespace("self", "mnt"));
    let said = std::fs::read_to_string(said).unwrap();
    assert_eq!(said.lines().map(std::path::PathBuf::from).collect::<Vec<_>>(), expected);
}

#[test]
fn the_users_log_names_calls_that_are_not_there() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let log = runsc.dir.path().join("user.log");
    let flag = format!("--user-log={}", log.display());
    let bundle = runsc.bundle("b", &["busybox", "swapoff", "/tmp"], |_| {});
    runsc.output(&["run", &flag, "--bundle", bundle.to_str().unwrap(), "c1"]);
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.lines().any(|line| line == "c1: unsupported system call swapoff (1 times)"), "{said:?}");
}

/// The sentry's user namespace on the host knows root and nobody.
#[test]
fn files_have_their_owners_also_while_they_are_open() {
    need_sandbox!();
    for access in ["shared", "exclusive"] {
        let access = format!("--file-access={access}");
        let runsc = Runsc::with_flags(&["--ignore-cgroups", "--overlay2=none", &access]);
        let script = "exec 3>/tmp/f; chown 7:8 /tmp/f; echo x >&3; stat -c %u:%g /tmp/f";
        let bundle = runsc.bundle("b", &["sh", "-c", script], |_| {});
        // A name that the small root has not got.
        std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin/chown")).unwrap();
        assert_eq!(runsc.ok(&["run", "--bundle", bundle.to_str().unwrap(), "owners"]), "7:8\n", "{access}");
    }
}
