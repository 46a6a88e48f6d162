//! The life of a connection: bind, listen, connect, accept, shutdown, close.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::capability::CAP_NET_BIND_SERVICE;
use abi::inet::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_SENT};
use abi::poll::PollEvents;
use abi::socket::AF_INET6;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::flow::Flow;
use super::table::{Inner, Share};
use super::{Link, Progress, SEND_BUFFER_CONNECTED, State, TcpSocket};
use crate::net::NetNamespace;
use crate::net::inet::address::{self, Endpoint};
use crate::net::inet::options::Wants;
use crate::net::inet::ports::{Binding, Sharing, ephemeral};
use crate::net::options::{RECEIVE, SEND, Switches};
use crate::task::Task;

#[derive(Default)]
struct Backlog {
    /// Connections to be accepted.
    ready: VecDeque<Arc<TcpSocket>>,
    /// Those who will be connected when there is room.
    waiting: VecDeque<Weak<TcpSocket>>,
    limit: usize,
    closed: bool,
}

impl Backlog {
    fn is_full(&self) -> bool {
        self.ready.len() > self.limit
    }
}

/// What a listening socket has besides others.
pub(super) struct Listener {
    backlog: Mutex<Backlog>,
}

impl Listener {
    /// Connections that wait, and the most that may.
    pub fn load(&self) -> (usize, usize) {
        let backlog = self.backlog.lock();
        (backlog.ready.len(), backlog.limit)
    }

    fn forget(&self, socket: &TcpSocket) {
        self.backlog.lock().waiting.retain(|weak| !std::ptr::eq(weak.as_ptr(), socket));
    }
}

impl TcpSocket {
    fn binding(&self, ip: std::net::IpAddr) -> Binding {
        let dual = self.common.domain == AF_INET6 && !self.ip.wants(Wants::V6_ONLY);
        Binding { ip, dual: dual && ip.is_ipv6(), uid: self.common.identity().1, chosen: false }
    }

    pub(super) fn bind_address(&self, task: &Task, addr: &[u8]) -> Result<()> {
        let (endpoint, mapped) = Endpoint::parse_bind(self.common.domain, addr)?;
        let net = &self.common.net;
        if endpoint.ip.is_multicast() && endpoint.ip.is_ipv6() {
            return Err(Errno::EINVAL);
        }
        let free = self.ip.wants(Wants::FREEBIND);
        let privileged = endpoint.port != 0 && net.is_privileged(endpoint.port);
        if self.common.domain != AF_INET6 {
            address::check_bindable(net, endpoint.ip, free, true)?;
        }
        if privileged && !net.capable(task, CAP_NET_BIND_SERVICE) {
            return Err(Errno::EACCES);
        }
        let mut state = self.state.lock();
        if self.phase() != TCP_CLOSE || state.bound.is_some() || mapped && self.ip.wants(Wants::V6_ONLY) {
            return Err(Errno::EINVAL);
        }
        address::check_bindable(net, endpoint.ip, free, true)?;
        self.take_port(&mut state, endpoint)?;
        state.port_locked = endpoint.port != 0;
        state.address_locked = !endpoint.ip.is_unspecified();
        Ok(())
    }

    /// Takes the port of `endpoint`, or an ephemeral one. EADDRINUSE.
    fn take_port(&self, state: &mut State, endpoint: Endpoint) -> Result<()> {
        let binding = Binding { chosen: endpoint.port != 0, ..self.binding(endpoint.ip) };
        let sharing = Sharing::of(self);
        let mut table = self.common.net.tcp.0.lock();
        let port = if endpoint.port == 0 {
            // Nothing is shared unasked.
            let alone = Sharing { reuse: false, ..sharing };
            let free = |table: &Inner, port| table.check(port, &binding, alone, self).is_ok();
            pick(&self.common.net, &mut table, free).ok_or(Errno::EADDRINUSE)?
        } else {
            table.check(endpoint.port, &binding, sharing, self)?;
            endpoint.port
        };
        table.ports.enter(port, binding, &self.me);
        let bound = Endpoint { ip: endpoint.ip, port };
        state.bound = Some(bound);
        state.local = Some(bound);
        Ok(())
    }

    pub(super) fn start_listening(&self, backlog: u32) -> Result<()> {
        let mut state = self.state.lock();
        if state.progress != Progress::Unconnected {
            return Err(Errno::EINVAL);
        }
        match self.phase() {
            TCP_LISTEN => {
                let listener = self.listener().ok_or(Errno::EINVAL)?;
                drop(state);
                listener.backlog.lock().limit = backlog as usize;
                self.admit(&listener);
                return Ok(());
            }
            TCP_CLOSE => {}
            _ => return Err(Errno::EINVAL),
        }
        match state.bound {
            None => self.take_port(&mut state, Endpoint::unspecified(self.common.domain))?,
            Some(bound) => {
                // Who listens shares with no other listener by SO_REUSEADDR.
                let listening = Sharing { listening: false, ..Sharing::of(self) };
                let table = self.common.net.tcp.0.lock();
                table.ports.check(bound.port, &self.binding(bound.ip), listening, self)?;
            }
        }
        let backlog = Backlog { limit: backlog as usize, ..Backlog::default() };
        *self.listener.write() = Some(Arc::new(Listener { backlog: Mutex::new(backlog) }));
        state.remote = None;
        self.common.reopen();
        self.set_phase(TCP_LISTEN);
        Ok(())
    }

    pub(super) fn accept_connection(&self) -> Result<Arc<TcpSocket>> {
        let listener = self.listener().ok_or(Errno::EINVAL)?;
        let child = listener.backlog.lock().ready.pop_front().ok_or(Errno::EAGAIN)?;
        self.admit(&listener);
        Ok(child)
    }

    /// There may be room for those who wait.
    fn admit(&self, listener: &Arc<Listener>) {
        loop {
            let client = {
                let mut backlog = listener.backlog.lock();
                if backlog.is_full() || backlog.closed {
                    return;
                }
                match backlog.waiting.pop_front() {
                    None => return,
                    Some(client) => client.upgrade(),
                }
            };
            let Some(client) = client else { continue };
            let mut state = client.state.lock();
            if client.phase() == TCP_SYN_SENT {
                state.waits_at = None;
                if client.establish(&state, self, listener).is_err() {
                    client.refuse();
                }
                drop(state);
                client.common.queue.notify(PollEvents::all());
            }
        }
    }

    pub(super) fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.read().clone()
    }

    /// Who takes a connection to `to`.
    fn find_listener(table: &mut Inner, to: Endpoint) -> Option<(Arc<TcpSocket>, Arc<Listener>)> {
        let mut best = Vec::new();
        let mut score = 0;
        for entry in table.ports.at(to.port) {
            let Some(matches) = entry.binding.matches(to.ip).filter(|&m| m >= score) else { continue };
            let Some(socket) = entry.socket.upgrade() else { continue };
            let Some(listener) = socket.listener() else { continue };
            if matches > score {
                best.clear();
                score = matches;
            }
            best.push((socket, listener));
        }
        // With SO_REUSEPORT there are several, and they take turns.
        table.turn = table.turn.wrapping_add(1);
        (!best.is_empty()).then(|| best.swap_remove(table.turn % best.len()))
    }

    pub(super) fn start_connecting(&self, addr: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        match state.progress {
            Progress::Connected => return Err(Errno::EISCONN),
            Progress::Connecting => {
                drop(state);
                return self.finish_connecting().unwrap_or(Err(Errno::EALREADY));
            }
            Progress::Unconnected if self.phase() != TCP_CLOSE => return Err(Errno::EISCONN),
            Progress::Unconnected => {}
        }
        let to = Endpoint::parse_connect(self.common.domain, addr)?.or_loopback();
        let net = &self.common.net;
        if to.ip.is_multicast() || address::is_broadcast(to.ip) {
            return Err(Errno::ENETUNREACH);
        }
        if self.common.domain == AF_INET6 && to.ip.is_ipv4() && self.ip.wants(Wants::V6_ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        let source = net.device.route(to.ip)?;
        let from = match state.bound {
            Some(bound) if !bound.ip.is_unspecified() => bound.ip,
            _ => source,
        };
        if from.is_ipv4() != to.ip.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        self.common.reopen();
        let mut table = net.tcp.0.lock();
        let local = match state.bound {
            Some(bound) => Endpoint { ip: from, port: bound.port },
            None => {
                let binding = self.binding(from);
                let free = |table: &Inner, port| {
                    let local = Endpoint { ip: from, port };
                    // Two may share an ephemeral port if they go to different places.
                    let shared = table.ports.at(port).iter().all(|entry| {
                        let listens = entry.socket.upgrade().is_some_and(|s| s.phase() == TCP_LISTEN);
                        !entry.binding.chosen && !listens
                    });
                    shared && !table.is_connected(local, to)
                };
                let port = pick(&self.common.net, &mut table, free).ok_or(Errno::EADDRNOTAVAIL)?;
                table.ports.enter(port, binding, &self.me);
                let bound = Endpoint { ip: address::any(self.common.domain), port };
                state.bound = Some(bound);
                Endpoint { ip: from, port }
            }
        };
        table.connect(local, to, &self.me)?;
        table.ports.rebind(local.port, from, false, self);
        let listener = TcpSocket::find_listener(&mut table, to);
        drop(table);
        state.local = Some(local);
        state.remote = Some(to);
        state.progress = Progress::Connecting;
        self.set_phase(TCP_SYN_SENT);
        match listener {
            Some((socket, listener)) => self.join(&mut state, &socket, &listener),
            None if local == to => self.connect_to_itself(),
            None => self.refuse(),
        }
        drop(state);
        Err(Errno::EINPROGRESS)
    }

    fn refuse(&self) {
        self.common.set_error(Errno::ECONNREFUSED);
        self.set_phase(TCP_CLOSE);
        self.common.shut_down(RECEIVE | SEND);
        self.common.queue.notify(PollEvents::all());
    }

    /// Connects to a listener, or waits in its backlog.
    fn join(&self, state: &mut State, socket: &TcpSocket, listener: &Arc<Listener>) {
        {
            let mut backlog = listener.backlog.lock();
            if backlog.is_full() && !backlog.closed {
                backlog.waiting.retain(|weak| weak.strong_count() > 0);
                backlog.waiting.push_back(self.me.clone());
                state.waits_at = Some(Arc::downgrade(listener));
                return;
            }
        }
        if self.establish(state, socket, listener).is_err() {
            self.refuse();
        }
    }

    /// Makes the other end of a connection, and puts it into the backlog. ECONNREFUSED if the listener is gone.
    fn establish(&self, state: &State, listening: &TcpSocket, listener: &Arc<Listener>) -> Result<()> {
        let (Some(local), Some(remote)) = (state.local, state.remote) else { return Err(Errno::EINVAL) };
        let child =
            TcpSocket::build(listening.common.inherit(), listening.ip.inherit(), listening.options.inherit());
        let share = Share::of(&child, remote, listening.common.identity().1);
        {
            let mut own = child.state.lock();
            own.progress = Progress::Connected;
            own.bound = Some(remote);
            own.local = Some(remote);
            own.remote = Some(local);
            own.accepted = Some(share);
        }
        for socket in [self, &*child] {
            if !socket.common.has(Switches::SEND_BUFFER_SET) {
                socket.common.set_send_buffer(SEND_BUFFER_CONNECTED);
            }
        }
        let (ours, theirs) = (&self.common, &child.common);
        let up = Flow::new(theirs.queue.clone(), ours.queue.clone(), theirs.receive_buffer());
        let down = Flow::new(ours.queue.clone(), theirs.queue.clone(), ours.receive_buffer());
        let link = Link { rx: up.clone(), tx: down.clone(), peer: self.me.clone() };
        *child.link.write() = Some(Arc::new(link));
        child.set_phase(TCP_ESTABLISHED);
        {
            let mut table = self.common.net.tcp.0.lock();
            let mut backlog = listener.backlog.lock();
            if backlog.closed {
                return Err(Errno::ECONNREFUSED);
            }
            // An old connection between the same endpoints cannot be there: the client has checked.
            let _ = table.connect(remote, local, &child.me);
            table.share(share);
            *self.link.write() = Some(Arc::new(Link { rx: down, tx: up, peer: child.me.clone() }));
            self.set_phase(TCP_ESTABLISHED);
            backlog.ready.push_back(child);
        }
        listening.common.queue.notify(PollEvents::READABLE);
        Ok(())
    }

    /// Both ends of a connection at once: its own port was free for it (simultaneous open).
    fn connect_to_itself(&self) {
        let queue = &self.common.queue;
        if !self.common.has(Switches::SEND_BUFFER_SET) {
            self.common.set_send_buffer(SEND_BUFFER_CONNECTED);
        }
        let flow = Flow::new(queue.clone(), queue.clone(), self.common.receive_buffer());
        *self.link.write() = Some(Arc::new(Link { rx: flow.clone(), tx: flow, peer: self.me.clone() }));
        self.set_phase(TCP_ESTABLISHED);
    }

    pub(super) fn finish_connecting(&self) -> Option<Result<()>> {
        let mut state = self.state.lock();
        match (self.phase(), state.progress) {
            (TCP_SYN_SENT, _) => None,
            (TCP_CLOSE, Progress::Connecting) => {
                let error = self.common.take_error().err().unwrap_or(Errno::ECONNABORTED);
                state.progress = Progress::Unconnected;
                self.leave(&mut state, false);
                self.common.reopen();
                Some(Err(error))
            }
            (_, Progress::Connecting) => {
                state.progress = Progress::Connected;
                Some(Ok(()))
            }
            (_, Progress::Connected) => Some(Ok(())),
            (_, Progress::Unconnected) => Some(Err(Errno::ECONNABORTED)),
        }
    }

    /// Gives up the connection's place in the tables, and the port if nobody asked for it.
    fn leave(&self, state: &mut State, time_wait: bool) {
        let mut table = self.common.net.tcp.0.lock();
        if let (Some(local), Some(remote)) = (state.local, state.remote) {
            table.disconnect(local, remote, self);
            if time_wait {
                table.time_wait(Share::of(self, local, self.common.identity().1));
            }
        }
        if let Some(share) = state.accepted.take() {
            table.unshare(share);
        }
        state.remote = None;
        if let Some(bound) = state.bound
            && !state.port_locked
        {
            table.ports.leave(bound.port, self);
            state.bound = None;
            state.local = None;
        } else if let Some(bound) = state.bound {
            if !state.address_locked {
                state.bound = Some(Endpoint { ip: address::any(self.common.domain), port: bound.port });
            }
            state.local = state.bound;
            let binding = self.binding(state.bound.map_or(bound.ip, |b| b.ip));
            table.ports.rebind(bound.port, binding.ip, binding.dual, self);
        }
    }

    /// A listener ends: those in its backlog are reset.
    fn stop_listening(&self) {
        let Some(listener) = self.listener.write().take() else { return };
        let (ready, waiting) = {
            let mut backlog = listener.backlog.lock();
            backlog.closed = true;
            (std::mem::take(&mut backlog.ready), std::mem::take(&mut backlog.waiting))
        };
        self.set_phase(TCP_CLOSE);
        for child in ready {
            child.abort();
        }
        for client in waiting.iter().filter_map(Weak::upgrade) {
            if client.phase() == TCP_SYN_SENT {
                client.refuse();
            }
        }
    }

    /// Ends a connection at once, and tells the other end (RST).
    fn abort(&self) {
        let mut state = self.state.lock();
        self.set_phase(TCP_CLOSE);
        self.leave(&mut state, false);
        drop(state);
        if let Some(link) = self.link() {
            link.rx.abandon();
            if let Some(peer) = link.peer.upgrade()
                && !std::ptr::eq(&*peer, self)
            {
                peer.reset();
            }
            link.tx.cut();
        }
    }

    /// connect(2) of AF_UNSPEC (tcp_disconnect()).
    pub(super) fn disconnect(&self) {
        let mut state = self.state.lock();
        match self.phase() {
            TCP_LISTEN => self.stop_listening(),
            TCP_SYN_SENT => {
                if let Some(listener) = state.waits_at.take().and_then(|weak| weak.upgrade()) {
                    listener.forget(self);
                }
                self.common.set_error(Errno::ECONNRESET);
            }
            TCP_ESTABLISHED if self.tcp_state() != TCP_CLOSE => self.common.set_error(Errno::ECONNRESET),
            _ => {}
        }
        let link = self.link.write().take();
        self.set_phase(TCP_CLOSE);
        state.progress = Progress::Unconnected;
        self.leave(&mut state, false);
        self.common.reopen();
        drop(state);
        if let Some(link) = link {
            link.rx.abandon();
            if let Some(peer) = link.peer.upgrade()
                && !std::ptr::eq(&*peer, self)
            {
                peer.reset();
            }
            link.tx.cut();
        }
        self.common.queue.notify(PollEvents::all());
    }

    pub(super) fn shut_down_connection(&self, how: u8) -> Result<()> {
        let phase = self.phase();
        let result = match phase {
            TCP_CLOSE => Err(Errno::ENOTCONN),
            TCP_LISTEN => {
                if how & RECEIVE != 0 {
                    let _state = self.state.lock();
                    self.stop_listening();
                }
                Ok(())
            }
            TCP_SYN_SENT => {
                self.disconnect();
                Ok(())
            }
            _ => {
                if self.tcp_state() == TCP_CLOSE {
                    return Err(Errno::ENOTCONN);
                }
                if how & SEND != 0
                    && let Some(link) = self.link()
                {
                    self.finish(&link);
                }
                Ok(())
            }
        };
        if phase == TCP_ESTABLISHED {
            self.common.shut_down(how);
        }
        self.common.queue.notify(PollEvents::all());
        result
    }

    /// Sends a FIN. The end that does so first keeps the memory of the connection.
    fn finish(&self, link: &Link) {
        if link.tx.finish() && !link.rx.is_finished() {
            self.finished_first.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn close_connection(&self) {
        let mut state = self.state.lock();
        let established = self.phase() == TCP_ESTABLISHED;
        match self.phase() {
            TCP_LISTEN => self.stop_listening(),
            TCP_SYN_SENT => {
                if let Some(listener) = state.waits_at.take().and_then(|weak| weak.upgrade()) {
                    listener.forget(self);
                }
            }
            _ => {}
        }
        let link = self.link().filter(|_| established);
        let unread = link.as_ref().is_some_and(|link| link.rx.abandon());
        let reset = link.is_some() && (unread || self.common.linger() == Some(0));
        if let Some(link) = link.as_ref().filter(|_| !reset) {
            self.finish(link);
        }
        self.set_phase(TCP_CLOSE);
        state.port_locked = false;
        self.leave(&mut state, self.finished_first.load(Ordering::Relaxed) && !reset);
        drop(state);
        self.common.shut_down(RECEIVE | SEND);
        if let Some(peer) = link.and_then(|link| link.peer.upgrade())
            && reset
            && !std::ptr::eq(&*peer, self)
        {
            peer.reset();
        }
        self.common.queue.notify(PollEvents::all());
    }
}

/// An ephemeral port.
fn pick(net: &NetNamespace, table: &mut Inner, free: impl Fn(&Inner, u16) -> bool) -> Option<u16> {
    let range = ephemeral(net);
    (0..range.len()).find_map(|_| {
        let port = table.ports.candidate(&range);
        free(table, port).then_some(port)
    })
}
