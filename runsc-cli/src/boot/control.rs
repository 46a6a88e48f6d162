//! The sentry's side of the control socket: one thread, which polls.
//!
//! Nothing here waits for a client: requests are whole packets, and a client that does not read its answers is
//! dropped.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{SockFlag, accept4};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::guest::Process;
use super::launcher::Launcher;
use crate::control::{ProcessInfo, Reply, Request, Target};
use crate::message;
use crate::record::ExitStatus;
use crate::report;

/// The pid of a container's first process.
pub const INIT: i32 = 1;

/// Clients beyond this are turned away.
const MAX_CLIENTS: usize = 1024;

/// What the control thread asks of the kernel.
pub trait Control: Send + Sync {
    /// Lets the first process run.
    fn start(&self) -> Result<()>;

    /// Starts another process in the container. It is nobody's child; its status is kept for [`Control::ended`].
    fn exec(&self, process: Process, stdio: [OwnedFd; 3]) -> Result<i32>;

    /// Sends a signal.
    fn signal(&self, target: Target, signo: i32) -> Result<()>;

    /// The container's processes.
    fn processes(&self) -> Result<Vec<ProcessInfo>>;

    /// How a process ended: the first one, or one that was started by exec. None while it lives.
    fn ended(&self, pid: i32) -> Result<Option<ExitStatus>>;

    /// Calls this whenever the answer of [`Control::ended`] may have changed.
    fn on_end(&self, notify: Box<dyn Fn() + Send + Sync>);

    /// Nothing more happens: what is on its way to the host gets a last chance.
    fn finish(&self);

    /// Calls that the guest made and that are not there, with how often.
    fn unimplemented(&self) -> Vec<(String, u64)>;
}

struct Client {
    socket: OwnedFd,
    /// The process whose end it waits for.
    waits_for: Option<i32>,
    /// A process that ends with this connection.
    attached: Option<i32>,
}

/// Serves `listening` until the first process has ended, and returns how it did. `terminal` tells of changes to the
/// window of the first process's terminal.
pub fn serve(
    control: &Arc<dyn Control>,
    launcher: &Launcher,
    listening: &OwnedFd,
    terminal: Option<&SignalFd>,
) -> Result<ExitStatus> {
    let ended = Arc::new(EventFd::from_flags(
        nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK,
    )?);
    let notify = ended.clone();
    control.on_end(Box::new(move || {
        let _ = notify.write(1);
    }));
    let mut clients: Vec<Client> = Vec::new();
    let mut started = false;
    loop {
        let status = control.ended(INIT)?;
        answer_waits(control, &mut clients);
        if let Some(status) = status {
            return Ok(status);
        }
        let mut fds = vec![
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
            PollFd::new(listening.as_fd(), PollFlags::POLLIN),
            // Without one, a place that is never ready.
            PollFd::new(
                terminal.map_or(listening.as_fd(), AsFd::as_fd),
                if terminal.is_some() { PollFlags::POLLIN } else { PollFlags::empty() },
            ),
        ];
        fds.extend(clients.iter().map(|client| PollFd::new(client.socket.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let ready: Vec<bool> =
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        let _ = ended.read();
        while let Some(Ok(Some(info))) = terminal.map(SignalFd::read_signal) {
            // All else is the host's driver's opinion of bytes that are for the guest's.
            if info.ssi_signo as i32 == libc::SIGWINCH {
                let _ = control.signal(Target::Foreground(INIT), libc::SIGWINCH);
            }
        }
        let mut ready_clients = ready.iter().skip(3);
        clients.retain_mut(|client| {
            if !*ready_clients.next().unwrap_or(&false) {
                return true;
            }
            let keep = client.handle(control, launcher, &mut started);
            if !keep && let Some(pid) = client.attached {
                let _ = control.signal(Target::Process(pid), libc::SIGKILL);
            }
            keep
        });
        if ready.get(1) == Some(&true) {
            accept(listening.as_fd(), &mut clients)?;
        }
    }
}

fn accept(listening: BorrowedFd<'_>, clients: &mut Vec<Client>) -> Result<()> {
    loop {
        let fd = match accept4(listening.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(fd) => fd,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::ECONNABORTED | Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("accept"),
        };
        // SAFETY: the kernel has just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        if clients.len() < MAX_CLIENTS {
            clients.push(Client { socket, waits_for: None, attached: None });
        }
    }
}

fn answer_waits(control: &Arc<dyn Control>, clients: &mut Vec<Client>) {
    clients.retain_mut(|client| {
        let Some(pid) = client.waits_for else {
            return true;
        };
        let reply = match control.ended(pid) {
            Ok(None) => return true,
            Ok(Some(status)) => Reply::Ended(status),
            Err(error) => Reply::Failed(report::chain(&error)),
        };
        client.waits_for = None;
        if client.attached == Some(pid) {
            client.attached = None;
        }
        client.reply(&reply)
    });
}

impl Client {
    /// Handles a packet or the end of the connection; false when the client is done.
    fn handle(&mut self, control: &Arc<dyn Control>, launcher: &Launcher, started: &mut bool) -> bool {
        let (request, fds) = match message::receive::<Request>(self.socket.as_fd()) {
            Ok(Some(request)) => request,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!("control socket: {}", report::line(&error));
                return false;
            }
        };
        tracing::debug!("control request {request:?}");
        let reply = match request {
            Request::Start if *started => Err(anyhow!("it was started before")),
            Request::Start => {
                let control = control.clone();
                let result = launcher.run(move || control.start());
                *started = result.is_ok();
                result.map(|()| Reply::Done)
            }
            Request::Exec { process, attached } => {
                let control = control.clone();
                launcher
                    .run(move || {
                        let stdio = <[OwnedFd; 3]>::try_from(fds)
                            .map_err(|_| anyhow!("exec wants three file descriptors"))?;
                        control.exec(*process, stdio)
                    })
                    .map(|pid| {
                        self.attached = attached.then_some(pid);
                        Reply::Started { pid }
                    })
            }
            Request::Wait { pid } => match control.ended(pid) {
                Ok(_) => {
                    // Answered before the next poll.
                    self.waits_for = Some(pid);
                    return true;
                }
                Err(error) => Err(error),
            },
            Request::Signal { target, signo } => control.signal(target, signo).map(|()| Reply::Done),
            Request::Processes => control.processes().map(Reply::Processes),
            Request::Status => Ok(Reply::Status { started: *started }),
        };
        self.reply(&reply.unwrap_or_else(|error| Reply::Failed(report::chain(&error))))
    }

    /// False if the client does not take it.
    fn reply(&self, reply: &Reply) -> bool {
        // A full buffer means that nobody reads.
        let _ = setsockopt(&self.socket, sockopt::SendTimeout, &TimeVal::milliseconds(1));
        message::send(self.socket.as_fd(), reply, &[]).is_ok()
    }
}
