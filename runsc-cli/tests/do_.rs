//! `runsc do`.

mod common;

use common::{Runsc, describe, text, wait_until};

#[test]
fn a_command_sees_the_hosts_files_and_changes_nothing() {
    need_sandbox!();
    let runsc = Runsc::new();
    let dir = runsc.dir.path().join("work");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "contents\n").unwrap();
    let output = runsc
        .command(&[
            "do",
            "sh",
            "-c",
            "cat file; echo changed > file; cat file; pwd; id -u; echo $MARK; exit 5",
        ])
        .current_dir(&dir)
        .env("MARK", "passed")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", describe(&output));
    let pwd = dir.canonicalize().unwrap();
    assert_eq!(text(&output.stdout), format!("contents\nchanged\n{}\n0\npassed\n", pwd.display()));
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "contents\n");
    assert_eq!(runsc.ok(&["list", "--quiet"]), "");
}

#[test]
fn a_volume_is_written_to() {
    need_sandbox!();
    let runsc = Runsc::new();
    let dir = runsc.dir.path().join("work");
    std::fs::create_dir(&dir).unwrap();
    let volume = format!("{}:/mnt", dir.display());
    runsc.ok(&["do", "--volume", &volume, "sh", "-c", "echo x > /mnt/x"]);
    assert_eq!(std::fs::read_to_string(dir.join("x")).unwrap(), "x\n");
    let output = runsc.output(&["do", "--volume", &format!("{volume}:ro"), "sh", "-c", "echo y > /mnt/y"]);
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", describe(&output));
}

#[test]
fn a_signal_reaches_the_command() {
    need_sandbox!();
    let runsc = Runsc::new();
    let mut child = runsc
        .command(&["do", "sh", "-c", "trap 'exit 42' INT; echo ready; while true; do sleep 0.1; done"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut ready).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

#[test]
fn a_sandbox_ends_with_its_command() {
    need_sandbox!();
    let runsc = Runsc::new();
    let mut child = runsc
        .command(&["do", "sh", "-c", "echo ready; sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(&mut output, &mut ready).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // The end of the pipe: nobody holds its other side.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut output, &mut rest).unwrap();
    // The next one that comes after its end clears away what was left. (The pipe is closed before a process has ended.)
    wait_until("a sandbox that is cleared away", || {
        runsc.ok(&["do", "true"]);
        runsc.ok(&["list", "--quiet"]).is_empty()
    });
}

#[test]
fn system_calls_are_shown_if_asked_for() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--strace", "--strace-syscalls=uname"]);
    let output = runsc.output(&["do", "uname", "-s"]);
    assert_eq!(text(&output.stdout), "Linux\n");
    assert!(text(&output.stderr).contains("uname"), "{}", describe(&output));
    // And nothing of what carries the requests to the sandbox.
    assert!(!text(&output.stderr).contains("h2::"), "{}", describe(&output));
}

#[test]
fn the_directory_of_debug_logs_is_made() {
    need_sandbox!();
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("a/b");
    let runsc = Runsc::with_flags(&["--debug", "--debug-log", &format!("{}/", logs.display())]);
    runsc.ok(&["do", "true"]);
    let names =
        std::fs::read_dir(&logs).unwrap().map(|entry| text(entry.unwrap().file_name().as_encoded_bytes()));
    let names: Vec<String> = names.collect();
    assert!(names.iter().any(|name| name.ends_with(".boot.txt")), "{names:?}");
}

#[test]
fn an_ordinary_user_is_root_inside_and_no_more() {
    need_sandbox!();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: all tests run without root as it is");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hidden\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let script = format!("id -u; cat {}; echo x > /tmp/x && cat /tmp/x; exit 6", secret.display());
    let output = common::without_root(&["do", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(6), "{}", describe(&output));
    assert_eq!(text(&output.stdout), "0\nx\n", "{}", describe(&output));
    assert!(text(&output.stderr).contains("Permission denied"), "{}", describe(&output));
}

#[test]
fn parameters_have_their_effect() {
    need_sandbox!();
    let runsc = Runsc::new();
    let stacks = runsc.ok(&[
        "do",
        "sh",
        "-c",
        "echo 0 > /proc/sys/kernel/randomize_va_space; grep stack /proc/self/maps; grep stack /proc/self/maps",
    ]);
    let stacks: Vec<&str> = stacks.lines().collect();
    assert!(stacks.len() == 2 && stacks[0] == stacks[1], "{stacks:?}");
    let script = "
import array, socket
open('/proc/sys/net/core/optmem_max', 'w').write('500')
one, other = socket.socketpair()
for count in 100, 200:
    rights = array.array('i', [0] * count)
    try:
        print(one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]))
    except OSError as error:
        print(error.strerror)
";
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3");
        return;
    }
    assert_eq!(runsc.ok(&["do", "python3", "-c", script]), "1\nNo buffer space available\n");
}
