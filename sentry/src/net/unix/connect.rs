//! Binding, listening, connecting and accepting.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::socket::AF_UNIX;
use abi::stat::{FileType, S_IFMT};
use abi::{Errno, Result};

use super::message::wake;
use super::{Phase, UnixAddress, UnixSocket};
use crate::net::options::RECEIVE;
use crate::net::socket::{PeerIdentity, address_family};
use crate::task::Task;
use crate::vfs::permission::WRITE;
use crate::vfs::{NewKind, WalkFlags, operations, permission};

impl UnixSocket {
    pub(super) fn bind_name(&self, task: &Task, addr: &[u8]) -> Result<()> {
        if addr.len() == 2 && address_family(addr)? == AF_UNIX {
            return self.autobind();
        }
        let address = UnixAddress::parse(addr)?;
        if address.is_abstract() { self.bind_abstract(address) } else { self.bind_path(task, address) }
    }

    fn bind_abstract(&self, address: UnixAddress) -> Result<()> {
        let mut state = self.state.lock();
        if state.address.is_some() {
            return Err(Errno::EINVAL);
        }
        self.common.net.unix.bind(self.common.kind, &address, self.weak())?;
        state.address = Some(Arc::new(address));
        state.bound = true;
        Ok(())
    }

    /// A name for a socket that needs one to be answered: bind(2) of an address without a name, and senders with
    /// SO_PASSCRED.
    fn autobind(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.address.is_none() {
            let address = self.common.net.unix.autobind(self.common.kind, self.weak())?;
            state.address = Some(Arc::new(address));
            state.bound = true;
        }
        Ok(())
    }

    pub(super) fn autobind_if_passing(&self) -> Result<()> {
        if self.wants_credentials() && self.address().is_none() { self.autobind() } else { Ok(()) }
    }

    fn bind_path(&self, task: &Task, address: UnixAddress) -> Result<()> {
        // The permissions of the socket's own inode, which fchmod(2) may have changed.
        let own = self.common.place().and_then(|place| place.inode().attributes().ok());
        let mode = own.map_or(0o777, |a| a.mode & !S_IFMT);
        let made = operations::create(task, None, address.path(), NewKind::Socket, mode);
        let place = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
        let mut state = self.state.lock();
        if state.address.is_some() {
            drop(state);
            // As Linux, which notices only now. There is nobody to tell if somebody else was faster.
            let _ = operations::unlink(task, None, address.path(), false);
            return Err(Errno::EINVAL);
        }
        let me = self.arc().ok_or(Errno::EINVAL)?;
        place.dentry().superblock().special.set(place.inode().ino(), &me);
        state.address = Some(Arc::new(address));
        state.bound = true;
        state.place = Some(place);
        Ok(())
    }

    /// The socket with a name (unix_find_other()). ECONNREFUSED, EPROTOTYPE, and the errors of a path walk.
    pub(super) fn find(&self, task: &Task, address: &UnixAddress) -> Result<Arc<UnixSocket>> {
        let kind = self.common.kind;
        if address.is_abstract() {
            return self.common.net.unix.find(kind, address).ok_or(Errno::ECONNREFUSED);
        }
        let place = operations::resolve(task, None, address.path(), WalkFlags::FOLLOW)?;
        permission::check(&task.credentials(), place.mount(), &**place.inode(), WRITE)?;
        if place.inode().file_type() != FileType::Socket {
            return Err(Errno::ECONNREFUSED);
        }
        let special = &place.dentry().superblock().special;
        let socket: Arc<UnixSocket> = special.get(place.inode().ino()).ok_or(Errno::ECONNREFUSED)?;
        if socket.inbox.lock().closed {
            return Err(Errno::ECONNREFUSED);
        }
        if socket.common.kind == kind { Ok(socket) } else { Err(Errno::EPROTOTYPE) }
    }

    pub(super) fn start_listening(&self, task: &Task, backlog: u32) -> Result<()> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.address.is_none() || self.phase() == Phase::Connected {
            return Err(Errno::EINVAL);
        }
        state.own_identity = Some(PeerIdentity::of(task));
        // What SO_PEERCRED says of a listener.
        state.peer_identity = state.own_identity.clone();
        self.set_phase(Phase::Listening);
        let mut inbox = self.inbox.lock();
        inbox.backlog = backlog as usize;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop((inbox, state));
        wake(waiting);
        Ok(())
    }

    pub(super) fn accept_connection(&self) -> Result<Arc<UnixSocket>> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.phase() != Phase::Listening {
            return Err(Errno::EINVAL);
        }
        let mut inbox = self.inbox.lock();
        let Some(child) = inbox.connections.pop_front() else {
            return Err(if self.common.shut() & RECEIVE != 0 { Errno::EINVAL } else { Errno::EAGAIN });
        };
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        wake(waiting);
        Ok(child)
    }

    pub(super) fn connect_stream(&self, task: &Task, addr: &[u8]) -> Result<()> {
        let address = UnixAddress::parse(addr)?;
        self.autobind_if_passing()?;
        let listener = self.find(task, &address)?;
        if listener.phase() != Phase::Listening || listener.common.shut() & RECEIVE != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let (listener_address, listener_identity) = {
            let state = listener.state.lock();
            (state.address.clone(), state.own_identity.clone())
        };
        let mut state = self.state.lock();
        let mut inbox = listener.inbox.lock();
        if inbox.closed {
            return Err(Errno::ECONNREFUSED);
        }
        if inbox.connections.len() > inbox.backlog {
            inbox.wait(self);
            return Err(Errno::EAGAIN);
        }
        match self.phase() {
            Phase::Idle if state.peer.is_none() => {}
            Phase::Connected => return Err(Errno::EISCONN),
            _ => return Err(Errno::EINVAL),
        }
        let child = UnixSocket::new(listener.common.inherit_passing());
        {
            let mut own = child.state.lock();
            own.peer = self.arc();
            own.address = listener_address;
            own.peer_identity = Some(PeerIdentity::of(task));
        }
        child.set_phase(Phase::Connected);
        state.peer = Some(child.clone());
        state.peer_identity = listener_identity;
        self.set_phase(Phase::Connected);
        inbox.connections.push_back(child);
        drop((inbox, state));
        listener.common.queue.notify(PollEvents::READABLE);
        self.common.queue.notify(PollEvents::WRITABLE);
        Ok(())
    }
}
