//! Streams.
//!
//! What is written is copied once, into a block of its own or, if it is short, to the end of the last one, and taken
//! from there by the reader. No lock is held while guest memory is touched but the reader's own.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use abi::{Errno, Result};

use super::message::Message;
use super::{Phase, UnixSocket};
use crate::net::options::{RECEIVE, SEND, Switches};
use crate::net::rights::Rights;
use crate::net::socket::{Incoming, MessageCredentials, Outgoing, Received, take, true_size};

/// Writes are cut into pieces of this size.
const BLOCK: usize = 64 * 1024;

/// Writes of up to this size are gathered in blocks.
const SMALL: usize = 1024;

/// The size of a block in which writes are gathered when the reader does not keep up.
const GATHER: usize = 4096;

impl UnixSocket {
    pub(super) fn send_stream(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        let urgent = message.flags.contains(MsgFlags::MSG_OOB);
        if urgent && message.src.remaining() == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if !message.to.is_empty() {
            let connected = self.phase() == Phase::Connected;
            return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        let wanted = self.wants_credentials() || peer.wants_credentials() || peer.common.place().is_none();
        while message.src.remaining() > 0 {
            if self.common.shut() & SEND != 0 {
                // Who was asleep when the peer went away gets no signal.
                return Err(if message.sent == 0 && !message.waited {
                    message.broken_pipe()
                } else {
                    self.common.take_error().err().unwrap_or(Errno::EPIPE)
                });
            }
            self.common.take_error()?;
            if !self.common.sent.has_room() {
                message.waited = true;
                return Err(Errno::EAGAIN);
            }
            let most = (self.common.send_buffer() / 2).saturating_sub(64).clamp(1, BLOCK);
            // Of what is sent out of band, only the last byte is.
            let left = message.src.remaining();
            let len = left.min(most).min(if urgent { left.saturating_sub(1).max(1) } else { left });
            let urgent = urgent && left == 1;
            let ancillary = message.ancillary.get_or_insert_default();
            let credentials = ancillary.credentials(message.task, wanted);
            let mut small = [0; SMALL];
            let data = if len <= SMALL {
                let buf = &mut small[..len];
                if message.src.take(buf)? < len {
                    return Err(Errno::EFAULT);
                }
                Data::Small(buf)
            } else {
                Data::Large(take(message.src, len)?)
            };
            let rights = message.ancillary.as_mut().and_then(|a| a.rights.take());
            if !self.deliver(&peer, data, credentials, rights, urgent) {
                return Err(if message.sent == 0 { message.broken_pipe() } else { Errno::EPIPE });
            }
            message.sent += len;
        }
        Ok(message.sent)
    }

    /// Adds to the peer's queue. False if it takes nothing any more.
    fn deliver(
        &self,
        peer: &UnixSocket,
        data: Data<'_>,
        credentials: Option<MessageCredentials>,
        rights: Option<Rights>,
        urgent: bool,
    ) -> bool {
        if peer.common.shut() & RECEIVE != 0 {
            return false;
        }
        let mut inbox = peer.inbox.lock();
        if inbox.closed {
            return false;
        }
        inbox.bytes += data.len();
        let behind = !inbox.messages.is_empty();
        let block = match data {
            Data::Small(data) => {
                if let Some(last) = inbox.messages.back_mut()
                    && rights.is_none()
                    && !urgent
                    && self.append(last, data, credentials.as_ref())
                {
                    drop(inbox);
                    peer.common.queue.notify(PollEvents::READABLE);
                    return true;
                }
                let mut block = Vec::with_capacity(if behind { GATHER } else { data.len().max(256) });
                block.extend_from_slice(data);
                block
            }
            Data::Large(block) => block,
        };
        let charge = self.common.sent.charge(true_size(block.capacity()));
        let data = Arc::new(block);
        if urgent {
            // One that was not received is a byte like others from now on.
            inbox.urgent = Some(data.clone());
        }
        inbox.messages.push_back(Message {
            data,
            start: 0,
            credentials,
            rights,
            from: None,
            arrival: None,
            charge,
        });
        drop(inbox);
        let more = if urgent { PollEvents::POLLPRI } else { PollEvents::empty() };
        peer.common.queue.notify(PollEvents::READABLE | more);
        true
    }

    /// Adds to the last block, if there is room, it is the same sender's, and no reader is looking at it.
    fn append(&self, last: &mut Message, data: &[u8], credentials: Option<&MessageCredentials>) -> bool {
        let same = match (&last.credentials, credentials) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        };
        if !same || last.rights.is_some() || !Arc::ptr_eq(last.charge.account(), &self.common.sent) {
            return false;
        }
        let Some(block) = Arc::get_mut(&mut last.data) else { return false };
        if block.capacity() - block.len() < data.len() {
            return false;
        }
        block.extend_from_slice(data);
        true
    }

    pub(super) fn receive_stream(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if self.phase() != Phase::Connected {
            return Err(Errno::EINVAL);
        }
        let _reading = self.reading.lock();
        let peek = message.peeks();
        let inline = self.common.has(Switches::OOBINLINE);
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return self.receive_urgent(message, inline);
        }
        let target = message.target(&self.common);
        let waits_all = message.flags.contains(MsgFlags::MSG_WAITALL);
        let peek_offset = usize::try_from(self.common.peek_offset.load(std::sync::atomic::Ordering::Relaxed));
        let mut skip = if peek { peek_offset.unwrap_or(0) } else { 0 };
        if peek {
            // Each attempt looks from the start.
            message.control.clear();
            message.sender = None;
        }
        loop {
            let (data, start, len, last) = {
                let mut inbox = self.inbox.lock();
                let ended = self.common.has_error() || self.common.shut() & RECEIVE != 0;
                let short = message.copied + inbox.bytes.saturating_sub(skip) < target;
                if short && !ended && !message.nonblocking && (peek || !waits_all) {
                    return Err(Errno::EAGAIN);
                }
                let mut at = skip;
                let index = inbox.messages.iter().position(|m| {
                    let here = at < m.len();
                    if !here {
                        at -= m.len();
                    }
                    here
                });
                let Some(index) = index else { break };
                if inbox.messages.get(index).is_some_and(|m| inbox.is_urgent(m)) {
                    // Reads end before it. If it comes first, it is a byte like others, or is lost.
                    if message.copied > 0 {
                        return Ok(message.copied);
                    }
                    match (inline, peek) {
                        (true, true) => {}
                        (true, false) => inbox.urgent = None,
                        (false, true) => {
                            skip += 1;
                            continue;
                        }
                        (false, false) => {
                            let lost = inbox.take_urgent();
                            drop(inbox);
                            drop(lost);
                            continue;
                        }
                    }
                }
                let Some(found) = inbox.messages.get(index) else { break };
                if let Some(sender) = &message.sender {
                    let other = found.credentials.clone().unwrap_or_else(MessageCredentials::nobody);
                    if !sender.same(&other) {
                        return Ok(message.copied);
                    }
                } else if self.wants_credentials() {
                    let sender = found.credentials.clone();
                    message.sender = Some(sender.clone().unwrap_or_else(MessageCredentials::nobody));
                    self.put_credentials(message, sender);
                }
                if peek && let Some(rights) = &found.rights {
                    message.control.push(Received::Rights(rights.duplicate()));
                }
                let len = (found.len() - at).min(message.dst.remaining());
                (found.data.clone(), found.start + at, len, peek && found.rights.is_some())
            };
            if message.wants_address && message.address.is_none() {
                message.address = self.peer().and_then(|p| p.address()).map(|a| a.raw());
            }
            let done = match message.dst.put(data.get(start..start + len).unwrap_or_default()) {
                Ok(done) => done,
                Err(_) if message.copied > 0 => return Ok(message.copied),
                Err(e) => return Err(e),
            };
            message.copied += done;
            if peek {
                self.move_peek_offset(done as i32);
                skip += done;
            }
            let ended = if peek { last } else { self.consume(&data, done, message) };
            if done < len || ended || message.dst.remaining() == 0 {
                return Ok(message.copied);
            }
        }
        if message.copied >= target {
            return Ok(message.copied);
        }
        if message.copied == 0 {
            self.common.take_error()?;
        }
        if self.common.shut() & RECEIVE != 0 || self.common.has_error() {
            return Ok(message.copied);
        }
        Err(Errno::EAGAIN)
    }

    /// recv(2) with MSG_OOB: the byte out of band. EINVAL if there is none, or it is in line.
    fn receive_urgent(&self, message: &mut Incoming<'_>, inline: bool) -> Result<usize> {
        let byte = match &self.inbox.lock().urgent {
            Some(data) if !inline => data.first().copied().ok_or(Errno::EINVAL)?,
            _ => return Err(Errno::EINVAL),
        };
        let copied = message.dst.put(&[byte])?;
        if !message.peeks() {
            let taken = self.inbox.lock().take_urgent();
            drop(taken);
        }
        Ok(copied)
    }

    /// The first `count` bytes of the first message have been copied. True if they end a read: with files.
    fn consume(&self, data: &Arc<Vec<u8>>, count: usize, message: &mut Incoming<'_>) -> bool {
        let mut inbox = self.inbox.lock();
        let Some(front) = inbox.messages.front_mut().filter(|m| Arc::ptr_eq(&m.data, data)) else {
            return true;
        };
        front.start += count;
        let rights = front.rights.take();
        let empty = front.len() == 0;
        inbox.bytes -= count;
        let finished = if empty { inbox.messages.pop_front() } else { None };
        drop(inbox);
        drop(finished);
        self.move_peek_offset(-(count as i32));
        match rights {
            Some(mut rights) => {
                rights.land();
                message.control.push(Received::Rights(rights));
                true
            }
            None => false,
        }
    }

    /// SO_PEEK_OFF moves with what is read or peeked, when it is on.
    pub(super) fn move_peek_offset(&self, by: i32) {
        use std::sync::atomic::Ordering::Relaxed;
        let moved = |offset: i32| (offset >= 0).then(|| offset.saturating_add(by).max(0));
        // Nothing to do is no failure.
        let _ = self.common.peek_offset.fetch_update(Relaxed, Relaxed, moved);
    }
}

enum Data<'a> {
    Small(&'a [u8]),
    Large(Vec<u8>),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Data::Small(data) => data.len(),
            Data::Large(data) => data.len(),
        }
    }
}
