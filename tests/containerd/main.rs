//! Containers by a real containerd, started here with all of its state in a directory of its own: through our shim, and
//! through containerd's shim for runc with our binary.
//!
//! Without containerd, or without root, all is skipped, and that is said.

mod cri;
mod daemon;
mod image;
mod stream;
mod terminal;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use daemon::{Containerd, Shim, eventually, shell, text};

type Case = (&'static str, fn(&Containerd));

/// Cases for both shims.
const BOTH: &[Case] = &[
    ("output_and_exit_code", output_and_exit_code),
    ("much_output_is_not_lost", much_output_is_not_lost),
    ("standard_input_and_its_end", standard_input_and_its_end),
    ("a_detached_container", a_detached_container),
    ("exec", exec),
    ("kill_and_exit_status", kill_and_exit_status),
    ("pause_and_resume", pause_and_resume),
    ("metrics", metrics),
    ("a_terminal", a_terminal),
    ("failures_are_told_and_leave_nothing", failures_are_told_and_leave_nothing),
    ("containerd_restarts", containerd_restarts),
];

/// Cases for our shim.
const OURS: &[Case] = &[
    ("exec_signals", exec_signals),
    ("events_in_order", events_in_order),
    ("checkpoints_are_refused", checkpoints_are_refused),
    ("a_shim_that_dies", a_shim_that_dies),
    ("cri_pod", cri::pod),
    ("cri_streams", cri::pod_streams),
    ("cri_pod_limits", cri::pod_limits),
];

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        println!("containerd: test");
        return ExitCode::SUCCESS;
    }
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for shim in [Shim::Ours, Shim::Runc] {
        let daemon = match Containerd::start(shim) {
            Ok(daemon) => daemon,
            Err(why) => {
                println!("containerd: skipped with {shim:?}: {why}");
                skipped += 1;
                continue;
            }
        };
        let cases = BOTH.iter().chain(if shim == Shim::Ours { OURS } else { &[] });
        for (name, case) in cases.filter(|(name, _)| wanted(name)) {
            print!("test {shim:?}::{name} ... ");
            let _ = std::io::stdout().flush();
            let result = catch_unwind(AssertUnwindSafe(|| {
                case(&daemon);
                daemon.nothing_is_left();
            }));
            match result {
                Ok(()) if daemon.take_skip() => {
                    println!("skipped");
                    skipped += 1;
                }
                Ok(()) => {
                    println!("ok");
                    passed += 1;
                }
                Err(_) => {
                    println!("FAILED");
                    failed += 1;
                    daemon.clean();
                }
            }
        }
        if let Err(why) = daemon.stop() {
            println!("containerd: {shim:?}: {why}");
            failed += 1;
        }
    }
    println!("\ncontainerd: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn output_and_exit_code(daemon: &Containerd) {
    let output = daemon.run("c1", &["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    // It is not the host's kernel.
    let output = daemon.run("c2", &["--rm"], &["uname", "-a"]);
    assert!(text(&output.stdout).contains("runsc"), "{output:?}");
    assert!(output.status.success());
}

fn much_output_is_not_lost(daemon: &Containerd) {
    // Its end comes while much of it has not been read.
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789 $i; i=$((i+1)); done";
    let output = daemon.run("c1", &["--rm"], &["sh", "-c", script]);
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 20000);
    assert!(lines.ends_with(" 19999\n"));
}

fn standard_input_and_its_end(daemon: &Containerd) {
    let mut child = daemon
        .run_command("c1", &["--rm"], &["sh", "-c", "cat; echo end; sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than what lies between: ctr tells of the end only to a container that has started.
    let payload = "line of input\n".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let payload = payload.clone();
        move || stdin.write_all(payload.as_bytes()).unwrap()
    });
    // To the end of it while the container runs: ctr cancels its readers when a task has ended, and may lose what it has not
    // read by then, with any runtime (containerd's pull request 13931 mends that for `ctr task exec`).
    let mut stdout = child.stdout.take().unwrap();
    let mut output = Vec::new();
    let mut part = [0; 1 << 16];
    while !output.ends_with(b"end\n") {
        match stdout.read(&mut part).unwrap() {
            0 => break,
            n => output.extend_from_slice(&part[..n]),
        }
    }
    writer.join().unwrap();
    assert!(text(&output) == format!("{payload}end\n"), "{} bytes came back", output.len());
    daemon.ctr_ok(&["task", "kill", "--signal", "SIGKILL", "c1"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

fn a_detached_container(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    assert_eq!(daemon.task_status("c1"), "RUNNING");
    let output = daemon.ctr_ok(&["task", "ps", "c1"]);
    assert!(output.lines().count() >= 2, "{output}");
    daemon.kill_and_remove("c1");
}

fn exec(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    let output =
        daemon.ctr(&["task", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo hi; echo no >&2; exit 5"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(5), "hi\n".into()), "{output:?}");
    assert!(text(&output.stderr).contains("no\n"), "{output:?}");
    // Ids can be used again.
    let output = daemon.ctr(&["task", "exec", "--exec-id", "e1", "c1", "true"]);
    assert!(output.status.success(), "{output:?}");
    let output = daemon.ctr(&["task", "exec", "--exec-id", "e2", "c1", "/no/such/program"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/no/such/program"), "{output:?}");
    let output = daemon
        .ctr_command(&["task", "exec", "--exec-id", "e3", "c1", "head", "-n1"])
        .stdin(shell("echo from outside"))
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "from outside\n", "{output:?}");
    daemon.kill_and_remove("c1");
}

fn exec_signals(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    for (signal, code) in [("SIGKILL", 137), ("SIGTERM", 143)] {
        let mut child = daemon
            .ctr_command(&["task", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo up; exec sleep 500"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        daemon.ctr_ok(&["task", "kill", "--signal", signal, "--exec-id", "e1", "c1"]);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
    daemon.kill_and_remove("c1");
}

fn kill_and_exit_status(daemon: &Containerd) {
    daemon.run_detached("c1", &["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]);
    eventually("the trap is set", || {
        daemon.ctr(&["task", "kill", "--signal", "SIGTERM", "c1"]);
        (daemon.task_status("c1") == "STOPPED").then_some(())
    });
    assert_eq!(daemon.task_rm("c1"), 9);
    daemon.ctr_ok(&["container", "rm", "c1"]);

    daemon.run_detached("c2", &["sleep", "1000"]);
    let output = daemon.ctr(&["task", "rm", "c2"]);
    assert!(!output.status.success(), "a running task was removed");
    daemon.ctr_ok(&["task", "kill", "--all", "--signal", "SIGKILL", "c2"]);
    eventually("c2 has stopped", || (daemon.task_status("c2") == "STOPPED").then_some(()));
    let output = daemon.ctr(&["task", "kill", "c2"]);
    assert!(text(&output.stderr).contains("not found") || output.status.success(), "{output:?}");
    assert_eq!(daemon.task_rm("c2"), 137);
    daemon.ctr_ok(&["container", "rm", "c2"]);
}

fn pause_and_resume(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    let output = daemon.ctr(&["task", "pause", "c1"]);
    if cannot_pause(&text(&output.stderr)) {
        daemon.skip("runsc has no pause");
    } else {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(daemon.task_status("c1"), "PAUSED");
        daemon.ctr_ok(&["task", "resume", "c1"]);
        assert_eq!(daemon.task_status("c1"), "RUNNING");
        let output = daemon.ctr(&["task", "exec", "--exec-id", "e1", "c1", "echo", "awake"]);
        assert_eq!(text(&output.stdout), "awake\n", "{output:?}");
    }
    daemon.kill_and_remove("c1");
}

fn cannot_pause(said: &str) -> bool {
    said.contains("unrecognized subcommand") || said.contains("not there yet")
}

fn metrics(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    let output = daemon.ctr(&["task", "metrics", "c1"]);
    if text(&output.stderr).contains("no metrics received") {
        daemon.skip("runsc has no control groups, and no events");
    } else {
        assert!(output.status.success(), "{output:?}");
        let table = text(&output.stdout);
        let used = table
            .lines()
            .filter_map(|line| line.strip_prefix("memory.usage"))
            .find_map(|rest| rest.split_whitespace().last()?.parse::<u64>().ok());
        assert!(used.is_some_and(|bytes| bytes > 0), "{table}");
    }
    daemon.kill_and_remove("c1");
}

fn a_terminal(daemon: &Containerd) {
    let script = "tty; stty size; read line; echo got $line; exit 4";
    let mut session =
        terminal::Session::start(daemon.run_command("c1", &["--rm", "-t"], &["sh", "-c", script]));
    session.expect("/dev/pts/");
    session.expect("\n");
    // Whatever the size is by then: it is set when the container has started.
    session.type_line("something");
    session.expect("got something");
    assert_eq!(session.wait(), Some(4));

    daemon.run_detached("c2", &["sleep", "1000"]);
    // Its size is told when it has started.
    let script = "until [ -n \"$(stty size 2> /dev/null)\" ]; do sleep 0.1; done; echo size $(stty size)";
    let command = daemon.ctr_command(&["task", "exec", "-t", "--exec-id", "e1", "c2", "sh", "-c", script]);
    let mut session = terminal::Session::start(command);
    session.expect("size 33 99");
    assert_eq!(session.wait(), Some(0));
    daemon.kill_and_remove("c2");
}

fn failures_are_told_and_leave_nothing(daemon: &Containerd) {
    let output = daemon.run("c1", &["--rm"], &["/no/such/program"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("/no/such/program"), "{said}");
    assert!(!said.contains("EOF"), "{said}");
    // ctr leaves a task that could not be started.
    daemon.ctr(&["task", "rm", "--force", "c1"]);
    daemon.ctr(&["container", "rm", "c1"]);
    let output = daemon.run("c1", &["--rm", "--cwd", "relative"], &["true"]);
    assert!(!output.status.success(), "{output:?}");
    // The id is free.
    let output = daemon.run("c1", &["--rm"], &["true"]);
    assert!(output.status.success(), "{output:?}");
}

fn containerd_restarts(daemon: &Containerd) {
    daemon.run_detached("c1", &["sh", "-c", "while :; do echo tick; sleep 0.1; done"]);
    daemon.restart();
    assert_eq!(daemon.task_status("c1"), "RUNNING");
    let output = daemon.ctr(&["task", "exec", "--exec-id", "e1", "c1", "echo", "still here"]);
    assert_eq!(text(&output.stdout), "still here\n", "{output:?}");
    // One that ends while nobody looks.
    daemon.run_detached("c2", &["sh", "-c", "sleep 1; exit 6"]);
    daemon.stop_daemon();
    std::thread::sleep(Duration::from_secs(2));
    daemon.start_daemon();
    eventually("c2 has stopped", || (daemon.task_status("c2") == "STOPPED").then_some(()));
    assert_eq!(daemon.task_rm("c2"), 6);
    daemon.ctr_ok(&["container", "rm", "c2"]);
    daemon.kill_and_remove("c1");
}

fn events_in_order(daemon: &Containerd) {
    let mut listener =
        daemon.ctr_command(&["events"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = daemon::lines_of(listener.stdout.take().unwrap());
    // It says nothing when it is ready.
    eventually("events come", || {
        daemon.ctr_ok(&["namespace", "label", "default", "beat=1"]);
        lines.recv_timeout(Duration::from_millis(200)).ok()
    });
    daemon.run_detached("c1", &["sleep", "1000"]);
    daemon.ctr_ok(&["task", "exec", "--exec-id", "e1", "c1", "true"]);
    daemon.kill_and_remove("c1");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|topic| topic != "/tasks/delete") {
        let line = lines.recv_timeout(Duration::from_secs(300)).unwrap_or_else(|_| panic!("only {seen:?}"));
        seen.extend(line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned));
    }
    let expected = ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"];
    assert_eq!(seen, expected.map(|topic| format!("/tasks/{topic}")));
    listener.kill().unwrap();
    listener.wait().unwrap();
}

fn checkpoints_are_refused(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    // ctr pauses it first.
    let said = text(&daemon.ctr(&["task", "checkpoint", "c1"]).stderr);
    if cannot_pause(&said) {
        daemon.skip("runsc has no pause");
    } else {
        assert!(said.contains("checkpoints are not supported"), "{said}");
        assert_eq!(daemon.task_status("c1"), "RUNNING");
    }
    daemon.kill_and_remove("c1");
}

fn a_shim_that_dies(daemon: &Containerd) {
    daemon.run_detached("c1", &["sleep", "1000"]);
    let shims = daemon.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    daemon::kill(shims[0]);
    // containerd notices, and calls the shim's delete.
    eventually("c1 has been cleaned up", || {
        daemon
            .ctr(&["task", "ls"])
            .stdout
            .split(|b| *b == b'\n')
            .all(|line| !line.starts_with(b"c1 "))
            .then_some(())
    });
    eventually("no sandbox is left", || daemon.sandboxes().is_empty().then_some(()));
    daemon.ctr(&["task", "rm", "c1"]);
    daemon.ctr_ok(&["container", "rm", "c1"]);
}
