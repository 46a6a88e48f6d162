//! Messages of Unix sockets, the queue they are received from, and what goes with them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use abi::capability::{CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN};
use abi::limits::SCM_MAX_FD;
use abi::poll::PollEvents;
use abi::socket::{SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET, Ucred};
use abi::time::Timespec;
use abi::{Errno, Result};
use zerocopy::FromBytes;

use super::{UnixAddress, UnixSocket};
use crate::net::options::Charge;
use crate::net::rights::Rights;
use crate::net::socket::{ControlMessage, MessageCredentials};
use crate::task::Task;

/// A message, or a part of a stream that one sender wrote.
pub(super) struct Message {
    /// The data. Shared with a receiver while it copies.
    pub data: Arc<Vec<u8>>,
    /// How much of it has been received (streams).
    pub start: usize,
    /// Who sent it, if somebody wanted to know.
    pub credentials: Option<MessageCredentials>,
    /// Files.
    pub rights: Option<Rights>,
    /// The sender's name (datagrams).
    pub from: Option<Arc<UnixAddress>>,
    /// When it came, if the receiver wants to know.
    pub arrival: Option<Timespec>,
    /// Room taken in the sender's buffer.
    pub charge: Charge,
}

impl Message {
    /// Bytes that have not been received.
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }
}

/// What a socket has received.
#[derive(Default)]
pub(super) struct Inbox {
    /// Messages.
    pub messages: VecDeque<Message>,
    /// The sum of their lengths.
    pub bytes: usize,
    /// The data of the message that is out of band, a byte (MSG_OOB): the last that was sent so, until it is received.
    pub urgent: Option<Arc<Vec<u8>>>,
    /// Connections to be accepted.
    pub connections: VecDeque<Arc<UnixSocket>>,
    /// More than so many connections, or datagrams of strangers, do not wait here.
    pub backlog: usize,
    /// The socket is closed, and takes nothing.
    pub closed: bool,
    /// Who waits for room here.
    pub waiting: Vec<Weak<UnixSocket>>,
}

impl Inbox {
    /// Is this message the one out of band?
    pub fn is_urgent(&self, message: &Message) -> bool {
        self.urgent.as_ref().is_some_and(|data| Arc::ptr_eq(data, &message.data))
    }

    /// Takes the message out of band out of the queue.
    pub fn take_urgent(&mut self) -> Option<Message> {
        let at = self.messages.iter().position(|message| self.is_urgent(message));
        self.urgent = None;
        let message = self.messages.remove(at?)?;
        self.bytes -= message.len();
        Some(message)
    }

    /// No more datagrams, except those of the peer.
    pub fn is_full(&self) -> bool {
        self.messages.len() > self.backlog
    }

    /// `socket` is to be told when there is room.
    pub fn wait(&mut self, socket: &UnixSocket) {
        let me = socket.weak();
        self.waiting.retain(|w| w.strong_count() > 0);
        if !self.waiting.iter().any(|w| w.ptr_eq(me)) {
            self.waiting.push(me.clone());
        }
    }
}

/// Tells those who waited for room.
pub(super) fn wake(waiting: Vec<Weak<UnixSocket>>) {
    for socket in waiting.iter().filter_map(Weak::upgrade) {
        socket.common.queue.notify(PollEvents::WRITABLE | PollEvents::POLLWRBAND);
    }
}

/// Control messages of a sender, understood (`struct scm_cookie`).
#[derive(Default)]
pub(crate) struct Ancillary {
    credentials: Option<MessageCredentials>,
    /// Files. They go with the first bytes.
    pub rights: Option<Rights>,
}

impl Ancillary {
    /// scm_send(): EINVAL, EBADF, EPERM, ESRCH, ETOOMANYREFS.
    pub fn parse(task: Option<&Task>, control: &[ControlMessage]) -> Result<Ancillary> {
        let mut ancillary = Ancillary::default();
        let Some(task) = task else { return Ok(ancillary) };
        let mut files = Vec::new();
        for message in control.iter().filter(|m| m.level == SOL_SOCKET) {
            match message.kind {
                SCM_RIGHTS => {
                    let table = task.files().ok_or(Errno::EBADF)?;
                    if files.len() + message.data.len() / 4 > SCM_MAX_FD {
                        return Err(Errno::EINVAL);
                    }
                    for fd in message.data.as_chunks::<4>().0 {
                        files.push(table.get(i32::from_ne_bytes(*fd))?);
                    }
                }
                SCM_CREDENTIALS => {
                    let ucred = Ucred::read_from_bytes(&message.data).map_err(|_| Errno::EINVAL)?;
                    ancillary.credentials = Some(check_credentials(task, &ucred)?);
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        if !files.is_empty() {
            ancillary.rights = Some(Rights::launch(task, files)?);
        }
        Ok(ancillary)
    }

    /// The credentials to send: those given; else the task's own, if `wanted`.
    pub fn credentials(&self, task: Option<&Task>, wanted: bool) -> Option<MessageCredentials> {
        self.credentials.clone().or_else(|| task.filter(|_| wanted).map(MessageCredentials::of))
    }
}

/// scm_check_creds(): a sender may only claim ids that it has, unless privileged.
fn check_credentials(task: &Task, ucred: &Ucred) -> Result<MessageCredentials> {
    let creds = task.credentials();
    let ns = &creds.user_ns;
    let uid = ns.kernel_uid(ucred.uid)?;
    let gid = ns.kernel_gid(ucred.gid)?;
    let pid_ns = task.pid_ns();
    let own = task.group.pid.number_in(&pid_ns) as i32 == ucred.pid;
    let pid_ok = own || creds.capable_in(&pid_ns.user_ns, CAP_SYS_ADMIN);
    let uid_ok = [creds.uid, creds.euid, creds.suid].contains(&uid) || creds.capable(CAP_SETUID);
    let gid_ok = [creds.gid, creds.egid, creds.sgid].contains(&gid) || creds.capable(CAP_SETGID);
    if !pid_ok || !uid_ok || !gid_ok {
        return Err(Errno::EPERM);
    }
    let pid = if own {
        task.group.pid.clone()
    } else {
        let number = u32::try_from(ucred.pid).map_err(|_| Errno::ESRCH)?;
        pid_ns.find(number).ok_or(Errno::ESRCH)?
    };
    Ok(MessageCredentials { pid: Some(pid), uid, gid })
}
