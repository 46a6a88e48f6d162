//! TCP (tcp(7), net/ipv4/tcp.c) between sockets of one network namespace: a connection is two [`flow::Flow`]s.

mod connect;
mod flow;
mod options;
mod table;

use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use abi::inet::{TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT2, TCP_LISTEN, TCP_SYN_SENT};
use abi::netdevice::{SIOCATMARK, SIOCINQ, SIOCOUTQ, SIOCOUTQNSD};
use abi::poll::PollEvents;
use abi::socket::{AF_INET6, MsgFlags, SOL_IP, SOL_IPV6, SOL_TCP};
use abi::{Errno, Result};
use parking_lot::{Mutex, RwLock};

pub(crate) use table::Table;

use self::connect::Listener;
use self::flow::{Flow, Reader, Written};
use self::options::TcpOptions;
use super::{Endpoint, Ip};
use crate::net::options::{Common, RECEIVE, SEND, Switches};
use crate::net::socket::{
    ControlMessage, Incoming, OptionValue, Outgoing, RawAddress, Received, Socket, address_family,
};
use crate::parameters::{TCP_RMEM, TCP_WMEM};
use crate::task::{CurrentTask, Task};

/// SO_SNDBUF of a connection, as Linux tunes it: two congestion windows.
const SEND_BUFFER_CONNECTED: u32 = 2_626_560;

/// Where `connect(2)` has got (`enum socket_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Unconnected,
    Connecting,
    Connected,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// The port and the address it is bound to.
    bound: Option<Endpoint>,
    /// bind(2) chose the port, or the address: they outlive a disconnect.
    port_locked: bool,
    address_locked: bool,
    /// As getsockname(2) and getpeername(2) tell them.
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
    /// The listener in whose backlog a connection waits for room.
    waits_at: Option<Weak<Listener>>,
    /// Counted with its listener's port.
    accepted: Option<table::Share>,
}

/// One end of a connection.
pub(super) struct Link {
    rx: Arc<Flow>,
    tx: Arc<Flow>,
    peer: Weak<TcpSocket>,
}

impl Link {
    /// Bytes sent that do not fit the receiver's buffer: what is only not read has been acknowledged.
    fn unacknowledged(&self) -> usize {
        let window = self.peer.upgrade().map_or(0, |peer| peer.common.receive_buffer());
        self.tx.pending().saturating_sub(window)
    }
}

/// A TCP socket.
pub struct TcpSocket {
    common: Common,
    ip: Ip,
    options: TcpOptions,
    me: Weak<TcpSocket>,
    /// `TCP_CLOSE`, `TCP_LISTEN`, `TCP_SYN_SENT` or `TCP_ESTABLISHED`; the finer states follow from the flows.
    phase: AtomicU8,
    state: Mutex<State>,
    link: RwLock<Option<Arc<Link>>>,
    listener: RwLock<Option<Arc<Listener>>>,
    /// It has sent a FIN before it got one.
    finished_first: AtomicBool,
}

impl TcpSocket {
    /// A new socket.
    pub fn create(common: Common) -> Arc<TcpSocket> {
        let first = |sizes: Vec<i64>| sizes.get(1).copied().unwrap_or(0) as u32;
        let parameters = &common.net.parameters;
        common.set_send_buffer(first(TCP_WMEM.values(parameters)));
        common.receive_buffer.store(first(TCP_RMEM.values(parameters)), Ordering::Relaxed);
        let ip = Ip::new(&common.net, common.domain);
        TcpSocket::build(common, ip, TcpOptions::default())
    }

    fn build(common: Common, ip: Ip, options: TcpOptions) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            common,
            ip,
            options,
            me: me.clone(),
            phase: AtomicU8::new(TCP_CLOSE),
            state: Mutex::default(),
            link: RwLock::default(),
            listener: RwLock::default(),
            finished_first: AtomicBool::new(false),
        })
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::SeqCst)
    }

    fn set_phase(&self, phase: u8) {
        self.phase.store(phase, Ordering::SeqCst);
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.link.read().clone()
    }

    /// The state as Linux names it (`TCP_*`).
    pub fn tcp_state(&self) -> u8 {
        match (self.phase(), self.link()) {
            (TCP_ESTABLISHED, Some(link)) => match (link.tx.is_finished(), link.rx.is_finished()) {
                (false, false) => TCP_ESTABLISHED,
                (false, true) => TCP_CLOSE_WAIT,
                (true, false) => TCP_FIN_WAIT2,
                (true, true) => TCP_CLOSE,
            },
            (phase, _) => phase,
        }
    }

    /// Addresses, as `/proc/net/tcp` shows them.
    pub fn endpoints(&self) -> (Endpoint, Endpoint) {
        let state = self.state.lock();
        let none = Endpoint::unspecified(self.common.domain);
        (state.local.unwrap_or(none), state.remote.unwrap_or(none))
    }

    /// Bytes sent and not read, and received and not read; for a listener, the backlog and what waits in it.
    pub fn queues(&self) -> (usize, usize) {
        if let Some(listener) = self.listener() {
            let (waiting, backlog) = listener.load();
            return (backlog, waiting);
        }
        self.link().map_or((0, 0), |link| (link.unacknowledged(), link.rx.pending()))
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        if matches!(self.phase(), TCP_CLOSE | TCP_LISTEN) {
            return None;
        }
        self.state.lock().remote.map(|remote| remote.ip)
    }

    /// Nothing is received any more: shut down here, or finished there.
    fn no_more_input(&self, link: Option<&Link>) -> bool {
        self.common.shut() & RECEIVE != 0 || link.is_some_and(|link| link.rx.is_finished())
    }

    /// The peer has reset the connection.
    fn reset(&self) {
        let error = match self.tcp_state() {
            TCP_CLOSE => return,
            TCP_SYN_SENT => Errno::ECONNREFUSED,
            TCP_CLOSE_WAIT => Errno::EPIPE,
            _ => Errno::ECONNRESET,
        };
        self.common.set_error(error);
        self.common.shut_down(RECEIVE | SEND);
        self.set_phase(TCP_CLOSE);
        if let Some(link) = self.link() {
            link.rx.cut();
            link.tx.cut();
        }
        self.common.queue.notify(PollEvents::all());
    }

    fn write(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        loop {
            match self.phase() {
                TCP_ESTABLISHED => {}
                TCP_SYN_SENT => {
                    self.common.take_error()?;
                    return Err(Errno::EAGAIN);
                }
                _ => return self.cannot_write(message),
            }
            let Some(link) = self.link() else { return self.cannot_write(message) };
            if self.common.has_error() || self.common.shut() & SEND != 0 {
                return self.cannot_write(message);
            }
            let urgent = message.flags.contains(MsgFlags::MSG_OOB);
            let stamp = || link.peer.upgrade().and_then(|peer| peer.common.arrival());
            let send_buffer = self.common.send_buffer();
            let written = if urgent && message.src.remaining() == 1 {
                let mut byte = [0];
                if message.src.take(&mut byte)? == 0 {
                    return Err(Errno::EFAULT);
                }
                message.sent += 1;
                link.tx.write_urgent(byte[0], stamp())
            } else if urgent && message.src.remaining() > 1 {
                let mut rest = AllButOne(&mut *message.src);
                match link.tx.write(&mut rest, send_buffer, &mut message.sent, stamp)? {
                    Written::All => continue,
                    other => other,
                }
            } else {
                link.tx.write(message.src, send_buffer, &mut message.sent, stamp)?
            };
            match written {
                Written::All => {
                    if urgent && let Some(peer) = link.peer.upgrade() {
                        peer.common.queue.notify(PollEvents::POLLPRI);
                    }
                    return Ok(message.sent);
                }
                Written::Full => {
                    message.waited = true;
                    return Err(Errno::EAGAIN);
                }
                Written::Abandoned => {
                    // It is on its way before the answer comes that there is nobody.
                    let mut scratch = vec![0; message.src.remaining().min(64 * 1024)];
                    while message.src.remaining() > 0 {
                        let len = message.src.remaining().min(scratch.len());
                        message.sent += message.src.take(scratch.get_mut(..len).unwrap_or_default())?;
                    }
                    self.reset();
                    return Ok(message.sent);
                }
            }
        }
    }

    /// sk_stream_error()
    fn cannot_write(&self, message: &Outgoing<'_>) -> Result<usize> {
        if message.sent > 0 {
            return Ok(message.sent);
        }
        self.common.take_error()?;
        Err(message.broken_pipe())
    }

    fn read(&self, message: &mut Incoming<'_>) -> Result<usize> {
        let phase = self.phase();
        if phase == TCP_LISTEN {
            return Err(Errno::ENOTCONN);
        }
        let link = self.link();
        let inline = self.common.has(Switches::OOBINLINE);
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return self.read_urgent(message, link.as_deref(), inline);
        }
        let target = message.target(&self.common);
        let discards = message.flags.contains(MsgFlags::MSG_TRUNC);
        let wanted = message.dst.remaining() - if discards { message.copied } else { 0 };
        if let Some(link) = &link {
            let peek = message
                .peeks()
                .then(|| usize::try_from(self.common.peek_offset.load(Ordering::Relaxed)).unwrap_or(0));
            let readable = link.rx.readable(inline);
            let ended = readable.finished || self.common.has_error() || self.common.shut() & RECEIVE != 0;
            let there = message.copied + readable.len.saturating_sub(peek.unwrap_or(0));
            let waits_all = message.flags.contains(MsgFlags::MSG_WAITALL);
            let patient = !message.nonblocking && !ended && phase == TCP_ESTABLISHED;
            if there < target && patient && !readable.at_mark && (peek.is_some() || !waits_all) {
                return Err(Errno::EAGAIN);
            }
            let send_buffer = link.peer.upgrade().map_or(0, |peer| peer.common.send_buffer());
            let mut reader = match peek {
                _ if discards => Reader::Discard,
                Some(skip) => Reader::Peek(&mut *message.dst, skip),
                None => Reader::Read(&mut *message.dst),
            };
            let done = match link.rx.read(&mut reader, wanted, inline, send_buffer) {
                Ok(done) => done,
                Err(_) if message.copied > 0 => return Ok(message.copied),
                Err(e) => return Err(e),
            };
            message.copied += done;
            self.move_peek_offset(if peek.is_some() { done as i32 } else { -(done as i32) });
            if done > 0 && (message.copied >= target || link.rx.readable(inline).at_mark) {
                self.describe(message, link);
                return Ok(message.copied);
            }
        }
        if message.copied > 0 {
            let over = self.common.has_error() || phase == TCP_CLOSE || self.no_more_input(link.as_deref());
            return if over { Ok(message.copied) } else { Err(Errno::EAGAIN) };
        }
        if link.as_ref().is_some_and(|link| link.rx.is_finished()) {
            return Ok(0);
        }
        self.common.take_error()?;
        if self.common.shut() & RECEIVE != 0 {
            return Ok(0);
        }
        if phase == TCP_CLOSE { Err(Errno::ENOTCONN) } else { Err(Errno::EAGAIN) }
    }

    fn move_peek_offset(&self, by: i32) {
        let moved = |offset: i32| (offset >= 0).then(|| offset.saturating_add(by).max(0));
        // Off is no failure.
        let _ = self.common.peek_offset.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// Control messages.
    fn describe(&self, message: &mut Incoming<'_>, link: &Link) {
        if self.common.switches().intersects(Switches::TIMESTAMP | Switches::TIMESTAMPING) {
            self.common.stamp(link.rx.arrival(), &mut message.control);
        }
        if self.options.tells_queue_length() {
            let data = (link.rx.pending() as i32).to_ne_bytes().to_vec();
            let (level, kind) = (SOL_TCP, abi::inet::TCP_CM_INQ);
            message.control.push(Received::Data(ControlMessage { level, kind, data }));
        }
    }

    fn read_urgent(&self, message: &mut Incoming<'_>, link: Option<&Link>, inline: bool) -> Result<usize> {
        let link = link.ok_or(Errno::ENOTCONN)?;
        if inline {
            return Err(Errno::EINVAL);
        }
        let byte = link.rx.read_urgent(message.peeks())?;
        message.out_flags |= MsgFlags::MSG_OOB;
        if message.dst.remaining() == 0 {
            message.out_flags |= MsgFlags::MSG_TRUNC;
            return Ok(0);
        }
        message.dst.put(&[byte])?;
        message.copied = 1;
        Ok(1)
    }
}

/// A source without its last byte.
struct AllButOne<'a>(&'a mut dyn crate::vfs::Source);

impl crate::vfs::Source for AllButOne<'_> {
    fn remaining(&self) -> usize {
        self.0.remaining().saturating_sub(1)
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.0.take(buf)
    }

    fn untake(&mut self, count: usize) {
        self.0.untake(count);
    }
}

impl Socket for TcpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bind(&self, task: &Task, addr: &[u8]) -> Result<()> {
        self.bind_address(task, addr)
    }

    fn listen(&self, _task: &Task, backlog: u32) -> Result<()> {
        self.start_listening(backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.accept_connection()?)
    }

    fn connect(&self, _task: &Task, addr: &[u8]) -> Result<()> {
        if address_family(addr)? == abi::socket::AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        self.start_connecting(addr)
    }

    fn connected(&self) -> Option<Result<()>> {
        self.finish_connecting()
    }

    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_FASTOPEN) && message.sent == 0 && self.phase() == TCP_CLOSE {
            match self.start_connecting(message.to) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(e) => return Err(e),
            }
            if let Some(result) = self.finish_connecting() {
                result?;
            }
        }
        // The destination of a stream is ignored.
        self.write(message)
    }

    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        self.read(message)
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        self.shut_down_connection(how as u8 + 1)
    }

    fn local_address(&self) -> Result<RawAddress> {
        Ok(self.endpoints().0.raw(self.common.domain))
    }

    fn peer_address(&self) -> Result<RawAddress> {
        match self.tcp_state() {
            TCP_CLOSE | TCP_SYN_SENT | TCP_LISTEN => Err(Errno::ENOTCONN),
            _ => Ok(self.endpoints().1.raw(self.common.domain)),
        }
    }

    fn set_option(&self, task: &Task, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match level {
            SOL_TCP => self.set_tcp_option(task, name, value),
            SOL_IP | SOL_IPV6 => {
                let bound = self.state.lock().bound.is_some();
                self.ip.set(task, &self.common, bound, level, name, value)
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, _task: &Task, level: i32, name: i32, room: usize) -> Result<OptionValue> {
        match level {
            SOL_TCP => self.tcp_option(name, room),
            SOL_IP | SOL_IPV6 => self.ip.get(&self.common, self.peer_ip(), level, name, room),
            _ if self.common.domain == AF_INET6 => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn buffers_changed(&self) {
        if let Some(link) = self.link() {
            link.rx.set_window(self.common.receive_buffer());
        }
    }

    fn is_listening(&self) -> bool {
        self.phase() == TCP_LISTEN
    }

    fn poll(&self) -> PollEvents {
        use PollEvents as P;
        let phase = self.phase();
        if phase == TCP_LISTEN {
            let ready = self.listener().is_some_and(|listener| listener.load().0 > 0);
            return if ready { P::READABLE } else { P::empty() };
        }
        let link = self.link();
        let readable = link.as_ref().map(|l| l.rx.readable(self.common.has(Switches::OOBINLINE)));
        let readable = readable.unwrap_or_default();
        let shut = self.common.shut();
        let no_input = shut & RECEIVE != 0 || readable.finished;
        let no_output = shut & SEND != 0 || link.as_ref().is_some_and(|link| link.tx.is_finished());
        let mut events = P::empty();
        if no_input && no_output || phase == TCP_CLOSE {
            events |= P::POLLHUP;
        }
        if no_input {
            events |= P::READABLE | P::POLLRDHUP;
        }
        if phase != TCP_SYN_SENT {
            if readable.len >= self.common.receive_low() {
                events |= P::READABLE;
            }
            let room = link.as_ref().is_none_or(|link| link.tx.is_writable(self.common.send_buffer()));
            if no_output || room {
                events |= P::WRITABLE;
            }
            if readable.urgent {
                events |= P::POLLPRI;
            }
        }
        if self.common.has_error() {
            events |= P::POLLERR;
        }
        events
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        let link = self.link();
        let value = match request {
            SIOCINQ | SIOCOUTQ | SIOCOUTQNSD if self.phase() == TCP_LISTEN => return Err(Errno::EINVAL),
            SIOCINQ => link.map_or(0, |l| l.rx.readable(self.common.has(Switches::OOBINLINE)).len),
            SIOCOUTQ | SIOCOUTQNSD => link.map_or(0, |link| link.unacknowledged()),
            SIOCATMARK => link.map_or(0, |link| link.rx.readable(false).at_mark.into()),
            _ => return Err(Errno::ENOTTY),
        };
        task.mm().write_object(arg, &(value as i32))?;
        Ok(0)
    }

    fn close(&self) {
        self.close_connection();
    }
}
