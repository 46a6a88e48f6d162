//! Terminals: the caller's own, and those that a console socket takes.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Runsc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use serde_json::json;

/// The side of a terminal that a person sits at.
struct Person {
    master: File,
    seen: String,
}

impl Person {
    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the text appears after what was waited for before.
    fn sees(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < end, "waiting for {text:?}, saw {:?}", self.seen);
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(100u8)).unwrap();
            if fds[0].any() != Some(true) {
                continue;
            }
            let mut buf = [0u8; 4096];
            let n = self.master.read(&mut buf).unwrap_or(0);
            assert!(n > 0, "the terminal ended; waiting for {text:?}, saw {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
    }

    /// Waits until nobody has the other side any more.
    fn sees_the_end(&mut self) {
        let mut buf = [0u8; 4096];
        // EIO, where others say end of file.
        while self.master.read(&mut buf).is_ok_and(|n| n > 0) {}
    }

    fn resizes(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure outlives the call.
        let rc = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(rc, 0);
    }

    /// A shell at a prompt of its own, of which every command is answered with its output in brackets.
    fn meets_a_shell(&mut self) {
        // Not as typed, lest the echo be taken for the answer.
        self.types("PS1= ; echo rea''dy\n");
        self.sees("ready");
        self.resizes(33, 77);
        self.types("stty size\n");
        self.sees("33 77");
        self.types("echo go''ing; sleep 1000\n");
        self.sees("going");
        std::thread::sleep(Duration::from_millis(300));
        self.types("\x03");
        self.types("echo status $?\n");
        self.sees("status 130");
        self.types("sh -c 'trap \"stty size; exit\" WINCH; echo se\"\"t; while true; do sleep 0.1; done'\n");
        self.sees("set\r\n");
        self.resizes(40, 100);
        self.sees("40 100");
    }
}

#[test]
fn a_command_runs_on_the_callers_terminal() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let pty = openpty(None, None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = runsc.command(&["do", "sh"]);
    command.env("ENV", "").stdin(slave()).stdout(slave()).stderr(slave());
    // SAFETY: both are system calls.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let mut person = Person { master: pty.master.try_clone().unwrap().into(), seen: String::new() };
    person.meets_a_shell();
    person.types("exit 7\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert_eq!(before.local_flags, after.local_flags, "the terminal was not put back");
}

#[test]
fn a_command_in_a_pipeline_leaves_the_terminal_alone() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let pty = openpty(None, None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let script = "test -t 0; a=$?; test -t 1; echo $a$?; read line; echo \"<$line>\"";
    let mut command = runsc.command(&["do", "sh", "-c", script]);
    let mut child = command.stdin(slave()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut answer = [0u8; 3];
    output.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"01\n");
    assert_eq!(before, nix::sys::termios::tcgetattr(&pty.slave).unwrap());
    File::from(pty.master.try_clone().unwrap()).write_all(b"typed\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "<typed>\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn all_output_is_on_the_terminal_when_a_command_ends() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let pty = openpty(None, None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    // More than fits anywhere, to somebody who reads late.
    let mut command = runsc.command(&["do", "seq", "1", "20000"]);
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    let mut person = Person { master: pty.master.try_clone().unwrap().into(), seen: String::new() };
    std::thread::sleep(Duration::from_secs(1));
    let expected: String = (1..=20000).map(|n| format!("{n}\r\n")).collect();
    person.sees(&expected);
    assert!(child.wait().unwrap().success());
}

/// Receives what a runtime sends to a console socket.
fn accept_terminal(listener: &std::os::unix::net::UnixListener) -> File {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let (connection, _) = listener.accept().unwrap();
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut bytes = [0u8; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<UnixAddr>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .unwrap();
    let fd = message
        .cmsgs()
        .unwrap()
        .find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .unwrap();
    // SAFETY: just received.
    unsafe { File::from_raw_fd(fd) }
}

#[test]
fn a_console_socket_takes_the_containers_terminal() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle("b", &["sh"], |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    });
    let path = runsc.dir.path().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = path.to_str().unwrap();
    let run = |args: &[&str]| {
        let mut command = runsc.command(args);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap().success());
    };
    run(&["create", "--bundle", bundle.to_str().unwrap(), "--console-socket", socket, "c1"]);
    let mut person = Person { master: accept_terminal(&listener), seen: String::new() };
    run(&["start", "c1"]);
    person.types("stty size\n");
    person.sees("11 22");
    person.meets_a_shell();
    // A second process, on a terminal of its own.
    let process = runsc.dir.path().join("process.json");
    let text = json!({"terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh"], "cwd": "/", "env": ["PATH=/bin"]});
    std::fs::write(&process, text.to_string()).unwrap();
    let process = process.to_str().unwrap();
    run(&["exec", "--detach", "--process", process, "--console-socket", socket, "c1"]);
    let mut other = Person { master: accept_terminal(&listener), seen: String::new() };
    other.meets_a_shell();
    other.types("test /dev/console -ef /dev/pts/0 && echo one of t''hem; readlink /proc/self/fd/0\n");
    other.sees("one of them");
    other.sees("/dev/pts/1");
    // What is left behind with the terminal open keeps it.
    other.types("(trap '' HUP; sleep 1; echo late''r) & exit\n");
    other.sees("later");
    other.sees_the_end();
    person.types("echo still''here; exit 5\n");
    person.sees("stillhere");
    runsc.wait_for("c1", "stopped");
    assert_eq!(runsc.ok(&["wait", "c1"]), "{\"exitStatus\":5,\"id\":\"c1\"}\n");
}

#[test]
fn a_terminal_that_goes_away_hangs_up() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let bundle = runsc.bundle(
        "b",
        &["sh", "-c", "trap 'exit 9' HUP; echo rea''dy; while :; do sleep 1; done"],
        |config| {
            config["process"]["terminal"] = json!(true);
        },
    );
    let path = runsc.dir.path().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let bundle = bundle.to_str().unwrap();
    let mut command = runsc.command(&[
        "run",
        "--detach",
        "--bundle",
        bundle,
        "--console-socket",
        path.to_str().unwrap(),
        "c1",
    ]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let mut person = Person { master: accept_terminal(&listener), seen: String::new() };
    person.sees("ready");
    drop(person);
    runsc.wait_for("c1", "stopped");
    assert_eq!(runsc.ok(&["wait", "c1"]), "{\"exitStatus\":9,\"id\":\"c1\"}\n");
}
