//! Terminals without tasks: consoles on pseudo-terminals of the host, and devpts.

use std::fs::File as HostFile;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::tty::Winsize;
use abi::{Errno, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Devpts, DevptsOptions, HostConsole};
use crate::Kernel;
use crate::fs::testing::{Listing, Mounted};
use crate::task::testing::kernel;
use crate::vfs::io::SliceSource;
use crate::vfs::{File, Io, Path, VecSink};

/// How long something may take that is only waited for. Only a failure takes that long.
const LIMIT: Duration = Duration::from_secs(10);

fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A console, the open terminal, and the master of the host's terminal.
struct Setup {
    console: HostConsole,
    file: Arc<File>,
    master: HostFile,
}

fn setup(kernel: &Arc<Kernel>, place: Option<Path>, blocking: bool) -> Setup {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut settings = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut settings);
    nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &settings).unwrap();
    if !blocking {
        fcntl(&pty.slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    let fds: (OwnedFd, OwnedFd) = (pty.slave.try_clone().unwrap(), pty.slave);
    let size = Winsize { ws_row: 24, ws_col: 80, ..Winsize::default() };
    let console = HostConsole::new(kernel, place, (7, 8), fds, size).unwrap();
    let file = console.open().unwrap();
    Setup { console, file, master: pty.master.into() }
}

fn read(file: &File) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(1000);
    file.operations().read(&Io::default(), &mut sink, 0)?;
    Ok(sink.data)
}

fn write(file: &File, data: &[u8]) -> Result<usize> {
    file.operations().write(&Io::default(), &mut SliceSource::new(data), &mut 0)
}

impl Setup {
    fn reads(&self) -> Vec<u8> {
        until("input", || match read(&self.file) {
            Err(Errno::EAGAIN) => None,
            result => Some(result.unwrap()),
        })
    }

    /// What the host has seen, of which so much is expected.
    fn seen(&self, count: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut buf = [0; 4096];
        while seen.len() < count {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()), Ok(1), "saw {}", seen.len());
            let n = (&self.master).read(&mut buf).unwrap();
            seen.extend(&buf[..n]);
        }
        seen
    }

    fn types(&self, text: &[u8]) {
        (&self.master).write_all(text).unwrap();
    }
}

#[test]
fn a_console_edits_lines_and_echoes() {
    let kernel = kernel();
    for blocking in [false, true] {
        let s = setup(&kernel, None, blocking);
        s.types(b"helx\x7flo\r");
        assert_eq!(s.reads(), b"hello\n");
        assert_eq!(s.seen(11), b"helx\x08 \x08lo\r\n");
        assert_eq!(write(&s.file, b"answer\n"), Ok(7));
        assert_eq!(s.seen(8), b"answer\r\n");
    }
}

#[test]
fn a_console_waits_for_a_slow_host() {
    let kernel = kernel();
    for blocking in [false, true] {
        let s = setup(&kernel, None, blocking);
        let text: Vec<u8> = (0..60_000u32).map(|n| b'a' + (n % 26) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut done = 0;
                while done < text.len() {
                    match write(&s.file, &text[done..]) {
                        Ok(n) => done += n,
                        Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
                        Err(e) => panic!("{e:?}"),
                    }
                }
            });
            assert_eq!(s.seen(text.len()), text);
        });
    }
}

#[test]
fn a_console_takes_no_more_than_it_has_room_for() {
    let kernel = kernel();
    let s = setup(&kernel, None, false);
    let line = [b"0123456789".repeat(9), b"\r".to_vec()].concat();
    let typed = line.repeat(400);
    std::thread::scope(|scope| {
        scope.spawn(|| s.types(&typed));
        // Echo wants to be read, or else it is lost.
        scope.spawn(|| s.seen(1000));
        for _ in 0..400 {
            let read = s.reads();
            assert_eq!(read.len(), line.len());
            assert_eq!(read[..90], line[..90]);
        }
    });
}

#[test]
fn a_console_hangs_up_with_the_host() {
    let kernel = kernel();
    let s = setup(&kernel, None, false);
    drop(s.master);
    until("the hangup", || (read(&s.file) == Ok(Vec::new())).then_some(()));
    assert_eq!(write(&s.file, b"x"), Err(Errno::EIO));
    let events = s.file.operations().poll(&Io::default());
    assert!(events.contains(PollEvents::POLLHUP | PollEvents::POLLIN | PollEvents::POLLOUT));
    assert_eq!(s.console.open().err(), Some(Errno::EIO));
    assert!(s.console.with_host(|_| ()).is_none());
}

#[test]
fn a_console_lets_go_of_the_host_when_nobody_uses_it() {
    let kernel = kernel();
    let Setup { console, file, master } = setup(&kernel, None, false);
    let terminal = Arc::downgrade(console.terminal());
    let again = console.open().unwrap();
    drop(file);
    drop(console);
    // Somebody still has it open.
    write(&again, b"last words\n").unwrap();
    drop(again);
    let mut seen = Vec::new();
    let end = (&master).read_to_end(&mut seen);
    assert_eq!(end.err().and_then(|e| e.raw_os_error()), Some(nix::libc::EIO));
    assert_eq!(seen, b"last words\r\n");
    until("the terminal to go", || (terminal.strong_count() == 0).then_some(()));
    assert_eq!(kernel.ptys.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn devpts_names_terminals() {
    let kernel = kernel();
    let options = DevptsOptions::parse(b"gid=5,mode=620,ptmxmode=666,max=2,newinstance").unwrap();
    assert_eq!(options.to_string(), "gid=5,mode=620,ptmxmode=666,max=2");
    let pts = Mounted::new(Devpts::new(&kernel, options));
    assert_eq!(pts.list("").unwrap().names(), [".", "..", "ptmx"]);
    let first = setup(&kernel, Some(pts.root.clone()), false);
    let second = setup(&kernel, Some(pts.root.clone()), false);
    let stat = pts.stat("1").unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid), (0o020620, 7, 5));
    assert_eq!(stat.rdev, abi::stat::makedev(136, 1));
    assert_eq!(pts.list("").unwrap().names(), [".", "..", "ptmx", "0", "1"]);
    // In pieces, and while names go.
    let file = pts.open("", OpenFlags::O_DIRECTORY).unwrap();
    let mut part = Listing::limited(4);
    let at = file.operations().read_dir(&Io::default(), 0, &mut part).unwrap();
    assert_eq!(part.names(), [".", "..", "ptmx", "0"]);
    let held = pts.find("0").unwrap();
    let file_of_first = first.file.clone();
    drop(first.master);
    until("the name to go", || pts.find("0").is_err().then_some(()));
    assert!(held.is_unlinked());
    let mut rest = Listing::default();
    file.operations().read_dir(&Io::default(), at, &mut rest).unwrap();
    assert_eq!(rest.names(), ["1"]);
    // The number is taken as long as the terminal is open.
    let pty = nix::pty::openpty(None, None).unwrap();
    let third = HostConsole::new(
        &kernel,
        Some(pts.root.clone()),
        (0, 0),
        (pty.slave, pty.master),
        Winsize::default(),
    );
    assert_eq!(third.err(), Some(Errno::ENOSPC));
    drop((first.console, first.file, file_of_first));
    let again = until("the number", || {
        let pty = nix::pty::openpty(None, None).unwrap();
        let fds = (pty.slave, pty.master);
        HostConsole::new(&kernel, Some(pts.root.clone()), (0, 0), fds, Winsize::default()).ok()
    });
    assert_eq!(again.terminal().index(), 0);
    // Not the terminal that had the name before.
    assert!(!Arc::ptr_eq(&pts.find("0").unwrap(), &held));
    assert_eq!(second.console.terminal().name(), "pts/1");
}

#[test]
fn options_of_devpts_are_checked() {
    for bad in
        [&b"mode=x"[..], b"nonsense", b"max=-1", b"max=1048577", b"ptmxmode=9", b"gid=", b"newinstance=1"]
    {
        assert_eq!(DevptsOptions::parse(bad), Err(Errno::EINVAL), "{}", bad.escape_ascii());
    }
    assert_eq!(DevptsOptions::parse(b"").unwrap().to_string(), "mode=600,ptmxmode=000");
}
