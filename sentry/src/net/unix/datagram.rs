//! Datagrams, and sequences of packets.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::socket::{AF_UNSPEC, MsgFlags, SOCK_SEQPACKET};
use abi::{Errno, Result};

use super::message::{Message, wake};
use super::{Phase, UnixAddress, UnixSocket};
use crate::net::options::RECEIVE;
use crate::net::socket::{Incoming, Outgoing, Received, address_family, take, true_size};
use crate::task::Task;

impl UnixSocket {
    fn is_sequenced(&self) -> bool {
        self.common.kind == SOCK_SEQPACKET
    }

    /// unix_may_send(): nobody's peer, or ours.
    fn may_send_to(&self, other: &UnixSocket) -> bool {
        if std::ptr::eq(self, other) {
            let state = self.state.lock();
            return state.peer.as_ref().is_none_or(|p| std::ptr::eq(&**p, self));
        }
        other.state.lock().peer.as_ref().is_none_or(|p| std::ptr::eq(&**p, self))
    }

    fn is_peer_of(&self, other: &UnixSocket) -> bool {
        other.state.lock().peer.as_ref().is_some_and(|p| std::ptr::eq(&**p, self))
    }

    /// Is there no room at the peer for one more datagram? Who asks is told when there is.
    pub(super) fn peer_is_full(&self) -> bool {
        if self.is_stream() {
            return false;
        }
        let Some(peer) = self.peer() else { return false };
        if self.is_peer_of(&peer) {
            return false;
        }
        let mut inbox = peer.inbox.lock();
        let full = inbox.is_full() && !inbox.closed;
        if full {
            inbox.wait(self);
        }
        full
    }

    pub(super) fn connect_datagram(&self, task: &Task, addr: &[u8]) -> Result<()> {
        let new = if address_family(addr)? == AF_UNSPEC {
            None
        } else {
            let address = UnixAddress::parse(addr)?;
            self.autobind_if_passing()?;
            let other = self.find(task, &address)?;
            if !self.may_send_to(&other) {
                return Err(Errno::EPERM);
            }
            Some(other)
        };
        self.set_phase(if new.is_some() { Phase::Connected } else { Phase::Idle });
        if let Some(new) = &new {
            new.set_phase(Phase::Connected);
        }
        let old = std::mem::replace(&mut self.state.lock().peer, new.clone());
        if let Some(old) = old
            && new.is_none_or(|new| !Arc::ptr_eq(&new, &old))
        {
            self.disconnected(&old);
            if old.peer().is_none() {
                old.set_phase(Phase::Idle);
            }
        }
        self.common.queue.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// What a former peer has sent is lost, and if it counted on us, it learns of it.
    fn disconnected(&self, old: &UnixSocket) {
        let (lost, waiting) = {
            let mut inbox = self.inbox.lock();
            inbox.bytes = 0;
            (std::mem::take(&mut inbox.messages), std::mem::take(&mut inbox.waiting))
        };
        if !lost.is_empty() {
            wake(waiting);
            if !old.inbox.lock().closed && self.is_peer_of(old) {
                old.common.set_error(Errno::ECONNRESET);
                old.common.queue.notify(PollEvents::POLLERR | PollEvents::READABLE);
            }
        }
        drop(lost);
    }

    pub(super) fn send_datagram(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if self.is_sequenced() {
            self.common.take_error()?;
            if self.phase() != Phase::Connected {
                return Err(Errno::ENOTCONN);
            }
            message.to = &[];
        }
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let address = if message.to.is_empty() { None } else { Some(UnixAddress::parse(message.to)?) };
        let peer = if address.is_some() { None } else { Some(self.peer().ok_or(Errno::ENOTCONN)?) };
        self.autobind_if_passing()?;
        let len = message.src.remaining();
        if len > self.common.send_buffer().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        self.common.take_error()?;
        if self.common.shut() & crate::net::options::SEND != 0 {
            return Err(Errno::EPIPE);
        }
        if !self.common.sent.has_room() {
            return Err(Errno::EAGAIN);
        }
        let to = match (peer, &address, message.task) {
            (Some(peer), ..) => peer,
            (None, Some(address), Some(task)) => self.find(task, address)?,
            _ => return Err(Errno::ENOTCONN),
        };
        if !self.may_send_to(&to) {
            return Err(Errno::EPERM);
        }
        let itself = std::ptr::eq(&*to, self);
        {
            let mut inbox = to.inbox.lock();
            if inbox.closed {
                drop(inbox);
                return Err(self.peer_is_dead(&to, address.is_some()));
            }
            if to.common.shut() & RECEIVE != 0 {
                return Err(Errno::EPIPE);
            }
            if !itself && inbox.is_full() {
                inbox.wait(self);
                drop(inbox);
                // The peer of a connected receiver is only held back by its own buffer.
                if !self.is_peer_of(&to) {
                    return Err(Errno::EAGAIN);
                }
            }
        }
        let data = take(message.src, len)?;
        let ancillary = message.ancillary.get_or_insert_default();
        let wanted = self.wants_credentials() || to.wants_credentials() || to.common.place().is_none();
        let new = Message {
            charge: self.common.sent.charge(true_size(data.capacity())),
            data: Arc::new(data),
            start: 0,
            credentials: ancillary.credentials(message.task, wanted),
            rights: ancillary.rights.take(),
            from: self.address(),
            arrival: to.common.arrival(),
        };
        let mut inbox = to.inbox.lock();
        if inbox.closed {
            drop(inbox);
            return Err(self.peer_is_dead(&to, address.is_some()));
        }
        inbox.bytes += len;
        inbox.messages.push_back(new);
        drop(inbox);
        to.common.queue.notify(PollEvents::READABLE);
        message.sent = len;
        Ok(len)
    }

    /// The receiver was closed.
    fn peer_is_dead(&self, peer: &Arc<UnixSocket>, addressed: bool) -> Errno {
        if self.is_sequenced() {
            return Errno::EPIPE;
        }
        if addressed {
            return Errno::ECONNREFUSED;
        }
        let mut state = self.state.lock();
        if state.peer.as_ref().is_some_and(|p| Arc::ptr_eq(p, peer)) {
            state.peer = None;
            drop(state);
            self.set_phase(Phase::Idle);
            self.disconnected(peer);
        }
        Errno::ECONNREFUSED
    }

    pub(super) fn receive_datagram(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if self.is_sequenced() && self.phase() != Phase::Connected {
            return Err(Errno::ENOTCONN);
        }
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = message.peeks();
        let _reading = self.reading.lock();
        self.common.take_error()?;
        let offset = self.common.peek_offset.load(std::sync::atomic::Ordering::Relaxed);
        let mut skip = if peek { usize::try_from(offset).unwrap_or(0) } else { 0 };
        let mut inbox = self.inbox.lock();
        // Messages that SO_PEEK_OFF has gone beyond are passed over.
        let index = inbox.messages.iter().position(|m| {
            let here = skip < m.len() || (skip == 0 && m.len() == 0);
            if !here {
                skip -= m.len();
            }
            here
        });
        let Some(index) = index else {
            drop(inbox);
            let ended = self.common.shut() & RECEIVE != 0;
            return if ended && (self.is_sequenced() || !message.nonblocking) {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        };
        if peek {
            let Some(found) = inbox.messages.get(index) else { return Err(Errno::EAGAIN) };
            let data = found.data.clone();
            let (credentials, from, arrival) = (found.credentials.clone(), found.from.clone(), found.arrival);
            let rights = found.rights.as_ref().map(crate::net::rights::Rights::duplicate);
            drop(inbox);
            let all = data.get(skip..).unwrap_or_default();
            let n = self.copy(message, all, credentials, from, arrival)?;
            message.control.extend(rights.map(Received::Rights));
            self.move_peek_offset(all.len().min(message.copied) as i32);
            return Ok(n);
        }
        let Some(found) = inbox.messages.pop_front() else { return Err(Errno::EAGAIN) };
        inbox.bytes -= found.len();
        let waiting = if inbox.is_full() { Vec::new() } else { std::mem::take(&mut inbox.waiting) };
        drop(inbox);
        wake(waiting);
        let Message { data, credentials, rights, from, arrival, charge, .. } = found;
        self.move_peek_offset(-(data.len() as i32));
        let result = self.copy(message, &data, credentials, from, arrival);
        if let Some(mut rights) = rights {
            rights.land();
            message.control.push(Received::Rights(rights));
        }
        drop(charge);
        result
    }

    /// Hands a datagram to its receiver: what does not fit is lost.
    fn copy(
        &self,
        message: &mut Incoming<'_>,
        data: &[u8],
        credentials: Option<crate::net::socket::MessageCredentials>,
        from: Option<Arc<UnixAddress>>,
        arrival: Option<abi::time::Timespec>,
    ) -> Result<usize> {
        let len = data.len().min(message.dst.remaining());
        if len < data.len() {
            message.out_flags |= MsgFlags::MSG_TRUNC;
        }
        if len > 0 && message.dst.put(&data[..len])? < len {
            return Err(Errno::EFAULT);
        }
        message.copied = len;
        if message.wants_address {
            message.address = from.map(|a| a.raw());
        }
        self.common.stamp(arrival, &mut message.control);
        self.put_credentials(message, credentials);
        Ok(if message.flags.contains(MsgFlags::MSG_TRUNC) { data.len() } else { len })
    }
}
