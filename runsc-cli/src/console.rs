//! Terminals and signals of a command that stands for a guest process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::isatty;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::control;
use crate::process;

/// Standard input, output and error for a guest process.
#[derive(Debug)]
pub struct Stdio {
    /// What becomes 0, 1 and 2.
    pub fds: [OwnedFd; 3],
    /// They are a new terminal, which nobody's session has yet.
    pub new_terminal: bool,
    /// What becomes 3 and up.
    pub preserved: Vec<OwnedFd>,
}

/// Takes over the descriptors after standard error that the caller wants to be passed on (`--preserve-fds`). To be
/// called before anything else is opened.
pub fn preserve(count: u32) -> Result<Vec<OwnedFd>> {
    let end = process::FIRST_FD + i32::try_from(count).context("--preserve-fds")?;
    // SAFETY: nothing was opened yet: what has these numbers came from the caller.
    let take = |number| unsafe { process::adopt(number) };
    (process::FIRST_FD..end)
        .map(|number| {
            let passed =
                take(number).ok().context("it is not open").and_then(|fd| passable(&fd).map(|()| fd));
            passed.with_context(|| format!("--preserve-fds={count}: file descriptor {number}"))
        })
        .collect()
}

/// Whether the sandbox can work on an open file of the host.
fn passable(fd: &OwnedFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{getsockopt, sockopt};
    use nix::sys::stat::{SFlag, fstat};
    if OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_PATH) {
        bail!("it was opened with O_PATH");
    }
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFCHR | SFlag::S_IFDIR => Ok(()),
        SFlag::S_IFSOCK if getsockopt(fd, sockopt::AcceptConn)? => {
            bail!("a listening socket of the host cannot be used inside")
        }
        SFlag::S_IFSOCK => Ok(()),
        _ => bail!("it is of a kind that cannot be passed on"),
    }
}

/// Sockets of systemd's socket activation, which runc passes on.
pub fn refuse_activation() -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS") > Some(0) {
        bail!("LISTEN_FDS: a listening socket of the host cannot be used inside");
    }
    Ok(())
}

impl Stdio {
    /// All of them, in order.
    pub fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().chain(&self.preserved).map(AsFd::as_fd).collect()
    }

    /// The same with these, which become 3 and up.
    pub fn with(mut self, preserved: &[OwnedFd]) -> Result<Stdio> {
        self.preserved = preserved.iter().map(|fd| private(fd.as_fd())).collect::<Result<_>>()?;
        Ok(self)
    }

    /// The command's own.
    pub fn inherit() -> Result<Stdio> {
        Ok(Stdio {
            fds: [
                private(std::io::stdin().as_fd())?,
                private(std::io::stdout().as_fd())?,
                private(std::io::stderr().as_fd())?,
            ],
            new_terminal: false,
            preserved: Vec::new(),
        })
    }

    /// What `terminal` of a process and `--console-socket` ask for.
    pub fn choose(
        terminal: bool,
        console_socket: Option<&Path>,
        size: Option<(u16, u16)>,
        detach: bool,
    ) -> Result<Stdio> {
        match (terminal, console_socket) {
            (false, None) => Stdio::inherit(),
            (true, Some(path)) => Stdio::new_pty(path, size),
            (false, Some(_)) => {
                bail!("a console socket without process.terminal in config.json")
            }
            (true, None) if detach => {
                bail!("process.terminal needs --console-socket when detached")
            }
            (true, None) if !isatty(std::io::stdin())? => {
                bail!("process.terminal, but standard input is no terminal")
            }
            (true, None) => Stdio::inherit(),
        }
    }

    /// Makes a terminal and sends its master side to the socket's owner, as runc does.
    fn new_pty(console_socket: &Path, size: Option<(u16, u16)>) -> Result<Stdio> {
        let size = size.map(|(rows, columns)| nix::pty::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        });
        let pty = openpty(size.as_ref(), None).context("making a terminal")?;
        let socket =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("socket")?;
        connect(socket.as_raw_fd(), &UnixAddr::new(console_socket)?)
            .with_context(|| format!("connecting to the console socket {console_socket:?}"))?;
        sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[std::io::IoSlice::new(b"/dev/ptmx")],
            &[ControlMessage::ScmRights(&[pty.master.as_raw_fd()])],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .context("sending the terminal to the console socket")?;
        set_nonblocking(&pty.slave)?;
        make_raw(&pty.slave)?;
        let fds = [pty.slave.try_clone()?, pty.slave.try_clone()?, pty.slave];
        Ok(Stdio { fds, new_terminal: true, preserved: Vec::new() })
    }
}

/// A descriptor of the same pipe or terminal that does not block, without a change to the caller's, which others
/// share: a description of its own. Of the same description, where there can be no other, or its offset counts.
fn private(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    use nix::sys::stat::{Mode, SFlag, fstat};
    let stat = fstat(fd).context("fstat of a standard file")?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR && isatty(fd).unwrap_or(false) {
        let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // Somebody else's may not be opened again.
        if let Ok(again) = open(path.as_str(), flags, Mode::empty()) {
            return Ok(again);
        }
    }
    fd.try_clone_to_owned().context("dup")
}

fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).context("F_SETFL")?;
    Ok(())
}

/// Makes a terminal carry bytes as they are: the guest's terminal, whose other end it is, does all the rest.
fn make_raw(terminal: impl AsFd) -> Result<()> {
    let mut settings = tcgetattr(&terminal).context("tcgetattr")?;
    cfmakeraw(&mut settings);
    tcsetattr(&terminal, SetArg::TCSADRAIN, &settings).context("tcsetattr")
}

/// Puts the command's terminal back as it was.
pub struct TerminalGuard {
    saved: Option<Termios>,
}

impl TerminalGuard {
    /// Remembers the settings of standard input, if it is a terminal.
    pub fn new() -> TerminalGuard {
        TerminalGuard { saved: tcgetattr(std::io::stdin()).ok() }
    }

    /// From here on the terminal is the guest's.
    pub fn hand_over(&self) -> Result<()> {
        make_raw(std::io::stdin()).context("the terminal on standard input")
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}

/// Signals that a command passes on to the guest process that it stands for: all that can be caught, but those that
/// it causes itself.
pub struct Signals {
    fd: SignalFd,
    set: SigSet,
}

impl Signals {
    /// From here on they are passed on instead of acting on the command.
    pub fn take_over() -> Result<Signals> {
        let mut set = SigSet::empty();
        for signal in Signal::iterator() {
            match signal {
                Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCHLD | Signal::SIGPIPE => {}
                // Faults of its own.
                Signal::SIGSEGV
                | Signal::SIGBUS
                | Signal::SIGILL
                | Signal::SIGFPE
                | Signal::SIGSYS
                | Signal::SIGTRAP
                | Signal::SIGABRT => {}
                signal => set.add(signal),
            }
        }
        set.thread_block().context("sigprocmask")?;
        let fd =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")?;
        Ok(Signals { fd, set })
    }

    /// Lets them act on the command again.
    pub fn give_back(self) -> Result<()> {
        self.set.thread_unblock().context("sigprocmask")
    }

    /// The next signal that is there.
    pub fn next(&self) -> Option<i32> {
        self.fd.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }

    /// Tells when there are signals, inside of a runtime.
    pub fn watch(&self) -> Result<AsyncFd<OwnedFd>> {
        Ok(control::watch(self.fd.as_fd().try_clone_to_owned()?, Interest::READABLE)?)
    }

    /// Waits until `ended` can be read; meanwhile calls `forward` with each signal.
    pub fn forward_until(&self, ended: BorrowedFd<'_>, mut forward: impl FnMut(i32)) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(ended, PollFlags::POLLIN), PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("poll"),
            }
            let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            if ready(&fds[0]) {
                return Ok(());
            }
            while let Some(signo) = self.next() {
                forward(signo);
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A signal by number or name, with or without SIG.
pub fn signal_number(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("there is no signal {number}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+")
        && let Ok(offset @ 0..=30) = offset.parse::<i32>()
    {
        return Ok(34 + offset);
    }
    match format!("SIG{name}").parse::<Signal>() {
        Ok(signal) => Ok(signal as i32),
        Err(_) => bail!("there is no signal {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigwinch", 28), ("0", 0), ("64", 64), ("RTMIN+1", 35)]
        {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for bad in ["65", "-1", "SIGNONE", "", "RTMIN+31"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_console_socket_gets_the_master_side() {
        use std::io::{Read, Write};
        use std::os::fd::FromRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let stdio = Stdio::choose(true, Some(&path), Some((33, 99)), true).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut bytes = [0u8; 64];
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let message = nix::sys::socket::recvmsg::<UnixAddr>(
            connection.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let mut master = message
            .cmsgs()
            .unwrap()
            .find_map(|part| match part {
                nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            })
            // SAFETY: just received.
            .map(|fd| unsafe { std::fs::File::from_raw_fd(fd) })
            .unwrap();
        std::fs::File::from(stdio.fds[1].try_clone().unwrap()).write_all(b"hello\n").unwrap();
        // As it is: what the guest's terminal makes of it was made there.
        let mut line = [0u8; 6];
        master.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello\n");
    }
}
