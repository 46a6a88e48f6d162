//! AF_UNIX (unix(7), net/unix/af_unix.c).

mod address;
mod connect;
mod datagram;
mod message;
mod stream;

use std::any::Any;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use abi::netdevice::{SIOCATMARK, SIOCINQ, SIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use abi::{Errno, Result};
use parking_lot::Mutex;

pub(crate) use address::Names;
pub use address::UnixAddress;
pub(crate) use message::Ancillary;
use message::{Inbox, Message};

use super::options::{Common, RECEIVE, SEND, Switches};
use super::rights::Rights;
use super::socket::{
    ControlMessage, Incoming, MessageCredentials, Outgoing, PeerIdentity, RawAddress, Received, Socket,
};
use super::{NetNamespace, rights};
use crate::parameters::UNIX_MAX_DGRAM_QLEN;
use crate::task::{CurrentTask, Task};
use crate::vfs::{File, Path};

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not connected.
    Idle = 0,
    /// listen(2) was called.
    Listening,
    /// Has a peer; for datagrams, or is somebody's.
    Connected,
}

#[derive(Default)]
struct State {
    peer: Option<Arc<UnixSocket>>,
    address: Option<Arc<UnixAddress>>,
    /// The address is its own, not that of the listener that made it.
    bound: bool,
    /// What a path name leads to: the name stays when the socket goes, the inode when the name goes.
    place: Option<Path>,
    /// SO_PEERCRED.
    peer_identity: Option<PeerIdentity>,
    /// Who called listen(2): SO_PEERCRED of those who connect.
    own_identity: Option<PeerIdentity>,
}

/// A Unix socket.
pub struct UnixSocket {
    common: Common,
    me: Weak<UnixSocket>,
    id: u64,
    phase: AtomicU8,
    /// Held while data is copied to a receiver: one at a time, and messages leave only from the front.
    reading: Mutex<()>,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
}

impl UnixSocket {
    /// socket(2). EPROTONOSUPPORT, ESOCKTNOSUPPORT.
    pub fn create(net: Arc<NetNamespace>, kind: u32, protocol: i32) -> Result<Arc<UnixSocket>> {
        if protocol != 0 && protocol != i32::from(AF_UNIX) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        match kind {
            SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET => {}
            // "Believe it or not BSD has AF_UNIX, SOCK_RAW".
            SOCK_RAW => return Ok(UnixSocket::new(Common::new(net, AF_UNIX, SOCK_DGRAM, 0))),
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        }
        Ok(UnixSocket::new(Common::new(net, AF_UNIX, kind, 0)))
    }

    fn new(common: Common) -> Arc<UnixSocket> {
        let backlog = UNIX_MAX_DGRAM_QLEN.get(&common.net.parameters) as usize;
        Arc::new_cyclic(|me| UnixSocket {
            id: common.net.unix.enter(me),
            common,
            me: me.clone(),
            phase: AtomicU8::new(Phase::Idle as u8),
            reading: Mutex::new(()),
            state: Mutex::default(),
            inbox: Mutex::new(Inbox { backlog, ..Inbox::default() }),
        })
    }

    /// socketpair(2).
    pub fn pair(
        task: &Task,
        net: Arc<NetNamespace>,
        kind: u32,
        protocol: i32,
    ) -> Result<(Arc<UnixSocket>, Arc<UnixSocket>)> {
        let a = UnixSocket::create(net.clone(), kind, protocol)?;
        let b = UnixSocket::create(net, kind, protocol)?;
        for (one, other) in [(&a, &b), (&b, &a)] {
            let mut state = one.state.lock();
            state.peer = Some(other.clone());
            state.peer_identity = Some(PeerIdentity::of(task));
            drop(state);
            one.set_phase(Phase::Connected);
        }
        Ok((a, b))
    }

    fn weak(&self) -> &Weak<UnixSocket> {
        &self.me
    }

    pub(super) fn arc(&self) -> Option<Arc<UnixSocket>> {
        self.me.upgrade()
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Idle,
            1 => Phase::Listening,
            _ => Phase::Connected,
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// The name it is bound to.
    pub fn address(&self) -> Option<Arc<UnixAddress>> {
        self.state.lock().address.clone()
    }

    fn peer(&self) -> Option<Arc<UnixSocket>> {
        self.state.lock().peer.clone()
    }

    fn is_stream(&self) -> bool {
        self.common.kind == SOCK_STREAM
    }

    fn is_connection_based(&self) -> bool {
        self.common.kind != SOCK_DGRAM
    }

    /// Does a receiver want to know who sends?
    fn wants_credentials(&self) -> bool {
        self.common.switches().intersects(Switches::PASSCRED | Switches::PASSPIDFD)
    }

    /// Control messages about the sender of what was received.
    fn put_credentials(&self, message: &mut Incoming<'_>, credentials: Option<MessageCredentials>) {
        let switches = self.common.switches();
        if !switches.intersects(Switches::PASSCRED | Switches::PASSPIDFD) {
            return;
        }
        let credentials = credentials.unwrap_or_else(MessageCredentials::nobody);
        if switches.contains(Switches::PASSPIDFD)
            && let Some(pid) = &credentials.pid
        {
            message.control.push(Received::PidFd(pid.clone()));
        }
        if switches.contains(Switches::PASSCRED) {
            message.control.push(Received::Credentials(credentials));
        }
    }

    /// Calls `f` with each file in a message, or in one to a connection that was not accepted.
    pub(super) fn each_right(&self, f: &mut dyn FnMut(&Arc<File>)) {
        let inbox = self.inbox.lock();
        inbox.messages.iter().filter_map(|m| m.rights.as_ref()).flat_map(|r| r.files()).for_each(&mut *f);
        for child in &inbox.connections {
            child.each_right(f);
        }
    }

    /// Takes the files out of messages that nobody can receive any more.
    pub(super) fn take_rights(&self, taken: &mut Vec<Rights>) {
        let mut inbox = self.inbox.lock();
        taken.extend(inbox.messages.iter_mut().filter_map(|m| m.rights.take()));
        for child in &inbox.connections {
            child.take_rights(taken);
        }
    }

    /// The end of a connection that nobody has accepted, or of a socket whose last descriptor is gone
    /// (unix_release_sock()).
    fn release(&self, embryo: bool) {
        let connection_based = self.is_connection_based();
        self.common.shut_down(RECEIVE | SEND);
        let (messages, connections, waiting) = {
            let mut inbox = self.inbox.lock();
            inbox.closed = true;
            inbox.bytes = 0;
            let waiting = std::mem::take(&mut inbox.waiting);
            (std::mem::take(&mut inbox.messages), std::mem::take(&mut inbox.connections), waiting)
        };
        let (peer, name) = {
            let mut state = self.state.lock();
            state.place = None;
            let bound = std::mem::take(&mut state.bound);
            (state.peer.take(), state.address.clone().filter(|a| bound && a.is_abstract()))
        };
        self.set_phase(Phase::Idle);
        if let Some(name) = name {
            self.common.net.unix.unbind(self.common.kind, &name);
        }
        message::wake(waiting);
        if let Some(peer) = peer.filter(|_| connection_based) {
            if !messages.is_empty() || embryo {
                peer.common.set_error(Errno::ECONNRESET);
            }
            peer.common.shut_down(RECEIVE | SEND);
            peer.common.queue.notify(PollEvents::all());
        }
        for child in connections {
            child.release(true);
        }
        drop(messages);
        self.common.queue.notify(PollEvents::all());
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.common.net.unix.leave(self.id);
    }
}

impl Socket for UnixSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bind(&self, task: &Task, addr: &[u8]) -> Result<()> {
        self.bind_name(task, addr)
    }

    fn listen(&self, task: &Task, backlog: u32) -> Result<()> {
        self.start_listening(task, backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.accept_connection()?)
    }

    fn connect(&self, task: &Task, addr: &[u8]) -> Result<()> {
        if self.is_connection_based() {
            self.connect_stream(task, addr)
        } else {
            self.connect_datagram(task, addr)
        }
    }

    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.ancillary.is_none() {
            message.ancillary = Some(Ancillary::parse(message.task, message.control)?);
        }
        if self.is_stream() { self.send_stream(message) } else { self.send_datagram(message) }
    }

    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if !self.is_stream() {
            return self.receive_datagram(message);
        }
        let done = self.receive_stream(message)?;
        if self.common.has(Switches::INQ) {
            let left = self.inbox.lock().bytes as i32;
            let (level, kind) = (abi::socket::SOL_SOCKET, abi::socket::SO_INQ);
            let data = left.to_ne_bytes().to_vec();
            message.control.push(Received::Data(ControlMessage { level, kind, data }));
        }
        Ok(done)
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        let how = how as u8 + 1;
        self.common.shut_down(how);
        if let Some(peer) = self.peer().filter(|_| self.is_connection_based()) {
            let mut peers = 0;
            if how & RECEIVE != 0 {
                peers |= SEND;
            }
            if how & SEND != 0 {
                peers |= RECEIVE;
            }
            peer.common.shut_down(peers);
            peer.common.queue.notify(PollEvents::all());
        }
        self.common.queue.notify(PollEvents::all());
        Ok(())
    }

    fn local_address(&self) -> Result<RawAddress> {
        Ok(self.address().map_or_else(address::unnamed, |address| address.raw()))
    }

    fn peer_address(&self) -> Result<RawAddress> {
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        peer.local_address()
    }

    fn peer_identity(&self) -> Option<PeerIdentity> {
        self.state.lock().peer_identity.clone()
    }

    fn is_listening(&self) -> bool {
        self.phase() == Phase::Listening
    }

    fn poll(&self) -> PollEvents {
        use PollEvents as P;
        let shut = self.common.shut();
        let phase = self.phase();
        let mut events = P::empty();
        if self.common.has_error() {
            events |= P::POLLERR;
        }
        if shut == RECEIVE | SEND {
            events |= P::POLLHUP;
        }
        if shut & RECEIVE != 0 {
            events |= P::POLLRDHUP | P::READABLE;
        }
        if self.is_connection_based() && phase == Phase::Idle {
            events |= P::POLLHUP;
        }
        {
            let inbox = self.inbox.lock();
            if !inbox.messages.is_empty() || !inbox.connections.is_empty() {
                events |= P::READABLE;
            }
            if inbox.urgent.is_some() {
                events |= P::POLLPRI;
            }
        }
        if phase != Phase::Listening && self.common.sent.is_writable() && !self.peer_is_full() {
            events |= P::WRITABLE | P::POLLWRBAND;
        }
        events
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        let value = match request {
            SIOCOUTQ => self.common.sent.used(),
            SIOCINQ if self.phase() == Phase::Listening => return Err(Errno::EINVAL),
            SIOCINQ => {
                let inbox = self.inbox.lock();
                if self.is_connection_based() {
                    inbox.bytes
                } else {
                    inbox.messages.front().map_or(0, Message::len)
                }
            }
            SIOCATMARK => {
                let inbox = self.inbox.lock();
                inbox.messages.front().is_some_and(|message| inbox.is_urgent(message)).into()
            }
            _ => return Err(Errno::ENOTTY),
        };
        task.mm().write_object(arg, &(value as i32))?;
        Ok(0)
    }

    fn close(&self) {
        self.release(false);
        rights::collect();
    }

    fn fdinfo(&self) -> String {
        let inbox = self.inbox.lock();
        let count: usize =
            inbox.messages.iter().filter_map(|m| m.rights.as_ref()).map(|r| r.files().len()).sum();
        format!("scm_fds: {count}\n")
    }
}
