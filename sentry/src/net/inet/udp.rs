//! UDP (udp(7), net/ipv4/udp.c), and what it has in common with sockets of ICMP echo.
//!
//! A datagram goes from the sender's memory into the receiver's queue; there it counts for SO_RCVBUF, and what does
//! not fit is dropped.

use std::any::Any;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::capability::CAP_NET_BIND_SERVICE;
use abi::inet::{self as i, IPPROTO_UDP, IPPROTO_UDPLITE, In6Pktinfo, InPktinfo};
use abi::netdevice::{SIOCINQ, SIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{self as s, AF_INET6, AF_UNSPEC, MsgFlags, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP};
use abi::socket::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SockExtendedErr};
use abi::time::Timespec;
use abi::{Errno, Result};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::address::{self, Endpoint};
use super::options::{Ip, Wants};
use super::ping;
use super::ports::{Binding, Ports, Sharing, ephemeral};
use crate::net::device;
use crate::net::options::{Common, RECEIVE, SEND, Switches};
use crate::net::socket::{
    ControlMessage, Incoming, OptionValue, Outgoing, RawAddress, Received, Socket, address_family, int_value,
    take, true_size,
};
use crate::task::{CurrentTask, Task};

/// The most data in a datagram of IPv4 and of IPv6.
const DATA_MAX: [usize; 2] = [65_507, 65_527];

/// The most errors that wait (IP_RECVERR).
const ERRORS_MAX: usize = 64;

/// How much of a datagram comes back with an ICMP error.
const RETURNED: usize = 548;

/// Options that are remembered.
const REMEMBERED: [i32; 3] = [i::UDP_CORK, i::UDP_NO_CHECK6_TX, i::UDP_NO_CHECK6_RX];

/// UDPLITE_SEND_CSCOV and UDPLITE_RECV_CSCOV.
const COVERAGES: [i32; 2] = [10, 11];

const SOL_UDPLITE: i32 = IPPROTO_UDPLITE as i32;

/// The ports of a protocol.
#[derive(Default)]
pub struct Table(RwLock<Ports<UdpSocket>>);

impl Table {
    /// Every bound socket.
    pub fn all(&self) -> Vec<Arc<UdpSocket>> {
        self.0.read().all()
    }
}

#[derive(Clone)]
struct Datagram {
    data: Arc<Vec<u8>>,
    from: Endpoint,
    to: Endpoint,
    tos: u8,
    ttl: u8,
    arrival: Option<Timespec>,
}

/// An error that an earlier datagram has brought back.
struct Bounced {
    data: Vec<u8>,
    to: Endpoint,
}

/// A datagram that is still being put together (MSG_MORE, UDP_CORK).
struct Corked {
    data: Vec<u8>,
    plan: Plan,
}

/// Where a datagram goes, and how.
#[derive(Clone, Copy)]
struct Plan {
    from: Endpoint,
    to: Endpoint,
    connected: bool,
    tos: u8,
    ttl: u8,
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<Datagram>,
    /// What they count for SO_RCVBUF.
    held: usize,
    errors: VecDeque<Bounced>,
}

#[derive(Default)]
struct State {
    /// The port and address it is bound to.
    bound: Option<Endpoint>,
    port_locked: bool,
    address_locked: bool,
    peer: Option<Endpoint>,
    corked: Option<Corked>,
}

/// A socket of datagrams.
pub struct UdpSocket {
    common: Common,
    ip: Ip,
    me: Weak<UdpSocket>,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    reading: Mutex<()>,
}

impl UdpSocket {
    /// A new socket of the protocol in `common`.
    pub fn create(common: Common) -> Arc<UdpSocket> {
        Arc::new_cyclic(|me| UdpSocket {
            ip: Ip::new(&common.net, common.domain),
            common,
            me: me.clone(),
            state: Mutex::default(),
            inbox: Mutex::default(),
            reading: Mutex::new(()),
        })
    }

    fn is_echo(&self) -> bool {
        !self.is_lite() && self.common.protocol != IPPROTO_UDP
    }

    fn is_lite(&self) -> bool {
        self.common.protocol == IPPROTO_UDPLITE
    }

    fn table(&self) -> &RwLock<Ports<UdpSocket>> {
        let net = &self.common.net;
        match self.common.protocol {
            IPPROTO_UDP => &net.udp.0,
            IPPROTO_UDPLITE => &net.udplite.0,
            _ => &net.ping.0,
        }
    }

    fn binding(&self, ip: IpAddr, chosen: bool) -> Binding {
        let dual = self.common.domain == AF_INET6 && ip.is_ipv6() && !self.ip.wants(Wants::V6_ONLY);
        Binding { ip, dual, uid: self.common.identity().1, chosen }
    }

    /// Local and remote address, as `/proc/net/udp` shows them.
    pub fn endpoints(&self) -> (Endpoint, Endpoint) {
        let state = self.state.lock();
        let none = Endpoint::unspecified(self.common.domain);
        (state.bound.unwrap_or(none), state.peer.unwrap_or(none))
    }

    /// Bytes that wait to be received.
    pub fn queued(&self) -> usize {
        self.inbox.lock().held
    }

    fn take_port(&self, state: &mut State, endpoint: Endpoint) -> Result<()> {
        let binding = self.binding(endpoint.ip, endpoint.port != 0);
        let sharing = Sharing::of(self);
        let mut ports = self.table().write();
        let port = if endpoint.port == 0 {
            let alone = Sharing { reuse: false, ..sharing };
            let range = ephemeral(&self.common.net);
            let mut candidates = (0..range.len()).map(|_| {
                let port = ports.candidate(&range);
                ports.check(port, &binding, alone, self).map(|()| port)
            });
            candidates.find_map(Result::ok).ok_or(Errno::EADDRINUSE)?
        } else {
            ports.check(endpoint.port, &binding, sharing, self)?;
            endpoint.port
        };
        ports.enter(port, binding, &self.me);
        state.bound = Some(Endpoint { ip: endpoint.ip, port });
        Ok(())
    }

    fn autobind(&self, state: &mut State) -> Result<()> {
        if state.bound.is_none() {
            let any = Endpoint::unspecified(self.common.domain);
            self.take_port(state, any).map_err(|_| Errno::EAGAIN)?;
        }
        Ok(())
    }

    /// The source address for a destination. EACCES, ENETUNREACH.
    fn route(&self, bound: Option<Endpoint>, to: IpAddr) -> Result<IpAddr> {
        let net = &self.common.net;
        if self.common.domain == AF_INET6 && to.is_ipv4() && self.ip.wants(Wants::V6_ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        let own = bound.map(|bound| bound.ip).filter(|ip| !ip.is_unspecified());
        if own.is_some_and(|own| own.is_ipv4() != to.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let source = if to.is_multicast() || to == IpAddr::V4(Ipv4Addr::BROADCAST) {
            // There is no route for these; somebody has to name the device.
            let (level, name) =
                if to.is_ipv4() { (SOL_IP, i::IP_MULTICAST_IF) } else { (SOL_IPV6, i::IPV6_MULTICAST_IF) };
            let index = self.common.remembered(level, name).filter(|_| to.is_multicast()).unwrap_or(0);
            let named = index != 0 || self.common.bound_device() != 0;
            if !named && own.is_none_or(|own| !own.is_ipv4()) {
                return Err(Errno::ENETUNREACH);
            }
            net.device.route(if to.is_ipv4() { home } else { std::net::Ipv6Addr::LOCALHOST.into() })?
        } else {
            net.device.route(to)?
        };
        if address::is_broadcast(to) && !self.common.has(Switches::BROADCAST) {
            return Err(Errno::EACCES);
        }
        Ok(own.filter(|own| !own.is_multicast() && !address::is_broadcast(*own)).unwrap_or(source))
    }

    /// Where a message goes.
    fn plan(&self, message: &Outgoing<'_>) -> Result<Plan> {
        let to = if message.to.is_empty() {
            None
        } else {
            let to = Endpoint::parse_send(self.common.domain, message.to)?;
            if to.port == 0 && !self.is_echo() {
                return Err(Errno::EINVAL);
            }
            Some(to)
        };
        let mut state = self.state.lock();
        let to = to.or(state.peer).ok_or(Errno::EDESTADDRREQ)?.or_loopback();
        self.autobind(&mut state)?;
        let bound = state.bound;
        let connected = state.peer == Some(to);
        drop(state);
        let mut plan = Plan {
            from: Endpoint { ip: to.ip, port: bound.map_or(0, |b| b.port) },
            to,
            connected,
            tos: self.header_value(to.ip, &self.ip.tos, &self.ip.traffic_class, 0),
            ttl: self.header_value(
                to.ip,
                &self.ip.ttl,
                &self.ip.hops,
                if to.ip.is_multicast() { 1 } else { 64 },
            ),
        };
        let source = self.read_control(message.control, &mut plan)?;
        plan.from.ip = self.route(bound, to.ip)?;
        if let Some(source) = source {
            plan.from.ip = source;
        }
        Ok(plan)
    }

    fn header_value(
        &self,
        to: IpAddr,
        v4: &std::sync::atomic::AtomicI32,
        v6: &std::sync::atomic::AtomicI32,
        default: u8,
    ) -> u8 {
        let value = if to.is_ipv4() { v4 } else { v6 };
        u8::try_from(value.load(Ordering::Relaxed)).unwrap_or(default)
    }

    /// Control messages to the network layer. Returns the source address, if they name one.
    fn read_control(&self, control: &[ControlMessage], plan: &mut Plan) -> Result<Option<IpAddr>> {
        let mut source = None;
        let byte = |data: &[u8]| match data {
            [byte] => Ok(i32::from(*byte)),
            _ => int_value(data),
        };
        let in_byte = |value: i32| u8::try_from(value).map_err(|_| Errno::EINVAL);
        let net = &self.common.net;
        for message in control {
            match (message.level, message.kind) {
                (SOL_SOCKET, s::SCM_RIGHTS | s::SCM_CREDENTIALS | s::SO_MARK | s::SCM_TIMESTAMPING) => {}
                (SOL_SOCKET, _) => return Err(Errno::EINVAL),
                (SOL_IP, i::IP_PKTINFO) => {
                    let info = InPktinfo::read_from_bytes(&message.data).map_err(|_| Errno::EINVAL)?;
                    let ip = IpAddr::from(info.ipi_spec_dst);
                    if !ip.is_unspecified() {
                        source = Some(ip);
                    }
                }
                (SOL_IP, i::IP_TTL) => {
                    plan.ttl =
                        in_byte(int_value(&message.data)?).ok().filter(|&t| t > 0).ok_or(Errno::EINVAL)?;
                }
                (SOL_IP, i::IP_TOS) => plan.tos = in_byte(byte(&message.data)?)?,
                (SOL_IPV6, i::IPV6_PKTINFO | i::IPV6_2292PKTINFO) => {
                    let info = In6Pktinfo::read_from_bytes(&message.data).map_err(|_| Errno::EINVAL)?;
                    let ip = std::net::Ipv6Addr::from(info.ipi6_addr);
                    if !ip.is_unspecified() {
                        source = Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::V4));
                    }
                }
                (SOL_IPV6, i::IPV6_HOPLIMIT) => match int_value(&message.data)? {
                    -1 => {}
                    hops => plan.ttl = in_byte(hops)?,
                },
                (SOL_IPV6, i::IPV6_TCLASS) => match int_value(&message.data)? {
                    -1 => {}
                    class => plan.tos = in_byte(class)?,
                },
                (SOL_IP | SOL_IPV6 | SOL_UDP, _) => return Err(Errno::EINVAL),
                _ => {}
            }
        }
        match source {
            Some(ip) if !net.device.is_local(ip) => Err(Errno::EINVAL),
            source => Ok(source),
        }
    }

    fn transmit(&self, data: Vec<u8>, plan: Plan) -> Result<()> {
        if data.len() > DATA_MAX[usize::from(plan.to.ip.is_ipv6())] {
            return Err(Errno::EMSGSIZE);
        }
        let Plan { from, to, tos, ttl, .. } = plan;
        if self.is_echo() {
            let data = ping::answer(data, self.common.domain == AF_INET6, from.port)?;
            let from = Endpoint { ip: to.ip, port: 0 };
            let to = plan.from;
            self.deliver(Datagram { data: Arc::new(data), from, to, tos, ttl, arrival: None });
            return Ok(());
        }
        let datagram = Datagram { data: Arc::new(data), from, to, tos, ttl, arrival: None };
        let receivers = self.receivers(from, to);
        if receivers.is_empty() {
            if !to.ip.is_multicast() && !address::is_broadcast(to.ip) {
                self.bounced(&datagram, plan.connected);
            }
            return Ok(());
        }
        for receiver in receivers {
            receiver.deliver(datagram.clone());
        }
        Ok(())
    }

    /// Who gets a datagram: all members of a group, else the one whose binding is the most precise.
    fn receivers(&self, from: Endpoint, to: Endpoint) -> SmallVec<[Arc<UdpSocket>; 4]> {
        // Their states are looked at without the table's lock, which comes after them.
        let bound: SmallVec<[(Binding, Arc<UdpSocket>); 4]> = {
            let ports = self.table().read();
            let entries = ports.at(to.port).iter().filter(|entry| entry.binding.matches(to.ip).is_some());
            entries.filter_map(|entry| Some((entry.binding, entry.socket.upgrade()?))).collect()
        };
        if to.ip.is_multicast() || address::is_broadcast(to.ip) {
            let group = to.ip.is_multicast();
            let joined = !group || bound.iter().any(|(_, socket)| socket.ip.is_member(to.ip));
            let all = if to.ip.is_ipv4() { Wants::ALL_GROUPS } else { Wants::ALL_GROUPS6 };
            let takes = |socket: &UdpSocket| {
                (!group || socket.ip.is_member(to.ip) || socket.ip.wants(all))
                    && socket.connection_score(from).is_some()
            };
            let sockets = bound.into_iter().map(|(_, socket)| socket);
            return if joined { sockets.filter(|socket| takes(socket)).collect() } else { SmallVec::new() };
        }
        let mut best: SmallVec<[Arc<UdpSocket>; 4]> = SmallVec::new();
        let mut most = 0;
        for (binding, socket) in bound {
            let Some(matches) = binding.matches(to.ip) else { continue };
            let Some(connected) = socket.connection_score(from) else { continue };
            let score = matches + 4 * connected;
            if score > most {
                best.clear();
                most = score;
            }
            if score == most {
                best.push(socket);
            }
        }
        // With SO_REUSEPORT a flow stays with one of them; else it is the one that came last.
        let spread = best.len() > 1 && best.iter().all(|s| s.common.has(Switches::REUSEPORT));
        let chosen = if spread {
            let mut hasher = DefaultHasher::new();
            (from, to).hash(&mut hasher);
            let index = hasher.finish() as usize % best.len();
            Some(best.swap_remove(index))
        } else {
            best.pop()
        };
        chosen.into_iter().collect()
    }

    /// 1 if it is connected to the sender, 0 if it is not connected, `None` if it is to another.
    fn connection_score(&self, from: Endpoint) -> Option<u32> {
        match self.state.lock().peer {
            None => Some(0),
            Some(peer) => (peer == from).then_some(1),
        }
    }

    /// Puts a datagram into the queue, or drops it.
    fn deliver(&self, mut datagram: Datagram) {
        let size = true_size(datagram.data.len());
        datagram.arrival = self.common.arrival();
        let mut inbox = self.inbox.lock();
        if inbox.held > self.common.receive_buffer() {
            drop(inbox);
            self.common.drops.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inbox.held += size;
        inbox.datagrams.push_back(datagram);
        drop(inbox);
        self.common.queue.notify(PollEvents::READABLE);
    }

    /// Nobody is at the port: an ICMP error comes back.
    fn bounced(&self, datagram: &Datagram, connected: bool) {
        let wants = if self.common.domain == AF_INET6 { Wants::ERRORS6 } else { Wants::ERRORS };
        let queues = self.ip.wants(wants);
        if !connected && !queues {
            return;
        }
        if queues {
            let mut inbox = self.inbox.lock();
            if inbox.errors.len() < ERRORS_MAX {
                let len = datagram.data.len().min(RETURNED);
                let data = datagram.data.get(..len).unwrap_or_default().to_vec();
                inbox.errors.push_back(Bounced { data, to: datagram.to });
            }
        }
        self.common.set_error(Errno::ECONNREFUSED);
        self.common.queue.notify(PollEvents::POLLERR | PollEvents::READABLE);
    }

    /// Receives an error (MSG_ERRQUEUE).
    fn receive_error(&self, message: &mut Incoming<'_>) -> Result<usize> {
        let mut inbox = self.inbox.lock();
        let bounced = inbox.errors.pop_front().ok_or(Errno::EAGAIN)?;
        let more = !inbox.errors.is_empty();
        drop(inbox);
        if !more {
            // The errors that were told this way are not told again.
            let _ = self.common.take_error();
        }
        let len = bounced.data.len().min(message.dst.remaining());
        if len < bounced.data.len() {
            message.out_flags |= MsgFlags::MSG_TRUNC;
        }
        if len > 0 {
            message.dst.put(bounced.data.get(..len).unwrap_or_default())?;
        }
        message.copied = len;
        message.out_flags |= MsgFlags::MSG_ERRQUEUE;
        let domain = self.common.domain;
        message.address = Some(bounced.to.raw(domain));
        let v6 = bounced.to.ip.is_ipv6();
        let error = SockExtendedErr {
            ee_errno: Errno::ECONNREFUSED.raw() as u32,
            ee_origin: if v6 { SO_EE_ORIGIN_ICMP6 } else { SO_EE_ORIGIN_ICMP },
            ee_type: if v6 { i::ICMPV6_DEST_UNREACH } else { i::ICMP_DEST_UNREACH },
            ee_code: if v6 { 4 } else { 3 },
            ..SockExtendedErr::default()
        };
        let mut data = error.as_bytes().to_vec();
        data.extend_from_slice(&Endpoint { ip: bounced.to.ip, port: 0 }.raw(domain));
        let (level, kind) =
            if domain == AF_INET6 { (SOL_IPV6, i::IPV6_RECVERR) } else { (SOL_IP, i::IP_RECVERR) };
        message.control.push(Received::Data(ControlMessage { level, kind, data }));
        Ok(len)
    }

    /// The control messages that go with a datagram.
    fn describe(&self, message: &mut Incoming<'_>, datagram: &Datagram) {
        self.common.stamp(datagram.arrival, &mut message.control);
        let mut put = |level: i32, kind: i32, data: &[u8]| {
            message.control.push(Received::Data(ControlMessage { level, kind, data: data.to_vec() }));
        };
        let drops = self.common.drops.load(Ordering::Relaxed);
        if drops != 0 && self.common.has(Switches::RXQ_OVFL) {
            put(SOL_SOCKET, s::SO_RXQ_OVFL, drops.as_bytes());
        }
        let every = Wants::PKTINFO
            | Wants::TTL
            | Wants::TOS
            | Wants::ORIGINAL_DESTINATION
            | Wants::PKTINFO6
            | Wants::HOP_LIMIT
            | Wants::TRAFFIC_CLASS;
        if !self.ip.wants_any(every) {
            return;
        }
        if let IpAddr::V4(to) = datagram.to.ip {
            if self.ip.wants(Wants::PKTINFO) {
                let local = if to.is_multicast() { Ipv4Addr::LOCALHOST } else { to };
                let info = InPktinfo {
                    ipi_ifindex: device::INDEX,
                    ipi_spec_dst: local.octets(),
                    ipi_addr: to.octets(),
                };
                put(SOL_IP, i::IP_PKTINFO, info.as_bytes());
            }
            if self.ip.wants(Wants::TTL) {
                put(SOL_IP, i::IP_TTL, &i32::from(datagram.ttl).to_ne_bytes());
            }
            if self.ip.wants(Wants::TOS) {
                put(SOL_IP, i::IP_TOS, &[datagram.tos]);
            }
            if self.ip.wants(Wants::ORIGINAL_DESTINATION) {
                put(SOL_IP, i::IP_RECVORIGDSTADDR, &datagram.to.raw(s::AF_INET));
            }
        }
        if self.common.domain != AF_INET6 {
            return;
        }
        if self.ip.wants(Wants::PKTINFO6) {
            let ip = match datagram.to.ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let info = In6Pktinfo { ipi6_addr: ip.octets(), ipi6_ifindex: device::INDEX };
            put(SOL_IPV6, i::IPV6_PKTINFO, info.as_bytes());
        }
        if self.ip.wants(Wants::HOP_LIMIT) && datagram.to.ip.is_ipv6() {
            put(SOL_IPV6, i::IPV6_HOPLIMIT, &i32::from(datagram.ttl).to_ne_bytes());
        }
        if self.ip.wants(Wants::TRAFFIC_CLASS) && datagram.to.ip.is_ipv6() {
            put(SOL_IPV6, i::IPV6_TCLASS, &i32::from(datagram.tos).to_ne_bytes());
        }
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.peer = None;
        let Some(bound) = state.bound else { return };
        let mut ports = self.table().write();
        if !state.port_locked {
            ports.leave(bound.port, self);
            state.bound = None;
        } else if !state.address_locked {
            let ip = address::any(self.common.domain);
            let binding = self.binding(ip, true);
            ports.rebind(bound.port, binding.ip, binding.dual, self);
            state.bound = Some(Endpoint { ip, port: bound.port });
        }
    }

    /// Sends what was held back.
    fn uncork(&self) -> Result<()> {
        let corked = self.state.lock().corked.take();
        corked.map_or(Ok(()), |corked| self.transmit(corked.data, corked.plan))
    }
}

impl Socket for UdpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bind(&self, task: &Task, addr: &[u8]) -> Result<()> {
        let (endpoint, mapped) = Endpoint::parse_bind(self.common.domain, addr)?;
        let net = &self.common.net;
        let free = self.ip.wants(Wants::FREEBIND);
        if self.common.domain != AF_INET6 {
            address::check_bindable(net, endpoint.ip, free, false)?;
        }
        let privileged = endpoint.port != 0 && net.is_privileged(endpoint.port) && !self.is_echo();
        if privileged && !net.capable(task, CAP_NET_BIND_SERVICE) {
            return Err(Errno::EACCES);
        }
        let mut state = self.state.lock();
        if state.bound.is_some() || mapped && self.ip.wants(Wants::V6_ONLY) {
            return Err(Errno::EINVAL);
        }
        address::check_bindable(net, endpoint.ip, free, false)?;
        self.take_port(&mut state, endpoint)?;
        state.port_locked = endpoint.port != 0;
        state.address_locked = !endpoint.ip.is_unspecified();
        Ok(())
    }

    fn connect(&self, _task: &Task, addr: &[u8]) -> Result<()> {
        if address_family(addr)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        let to = Endpoint::parse_send(self.common.domain, addr)?.or_loopback();
        let mut state = self.state.lock();
        let source = self.route(state.bound, to.ip)?;
        self.autobind(&mut state)?;
        let Some(bound) = state.bound else { return Err(Errno::EAGAIN) };
        if bound.ip.is_unspecified() || !state.address_locked {
            self.table().write().rebind(bound.port, source, false, self);
            state.bound = Some(Endpoint { ip: source, port: bound.port });
        }
        state.peer = Some(to);
        Ok(())
    }

    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        let len = message.src.remaining();
        if len > 0xffff {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let more = message.flags.contains(MsgFlags::MSG_MORE)
            || self.common.remembered(SOL_UDP, i::UDP_CORK).is_some_and(|on| on != 0);
        let corked = self.state.lock().corked.take();
        let (mut data, plan) = match corked {
            Some(corked) => (corked.data, corked.plan),
            None => (Vec::new(), self.plan(message)?),
        };
        if data.len() + len > DATA_MAX[usize::from(plan.to.ip.is_ipv6())] {
            return Err(Errno::EMSGSIZE);
        }
        self.common.take_error()?;
        if self.common.shut() & SEND != 0 {
            return Err(Errno::EPIPE);
        }
        let new = take(message.src, len)?;
        if data.is_empty() {
            data = new;
        } else {
            data.extend_from_slice(&new);
        }
        if more {
            self.state.lock().corked = Some(Corked { data, plan });
        } else {
            self.transmit(data, plan)?;
        }
        message.sent = len;
        Ok(len)
    }

    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_ERRQUEUE) {
            return self.receive_error(message);
        }
        let _reading = self.reading.lock();
        self.common.take_error()?;
        let peek = message.peeks();
        let offset = self.common.peek_offset.load(Ordering::Relaxed);
        let mut skip = if peek { usize::try_from(offset).unwrap_or(0) } else { 0 };
        let mut inbox = self.inbox.lock();
        let index = inbox.datagrams.iter().position(|d| {
            let here = skip < d.data.len() || skip == 0 && d.data.is_empty();
            if !here {
                skip -= d.data.len();
            }
            here
        });
        let datagram = if peek {
            index.and_then(|index| inbox.datagrams.get(index).cloned())
        } else {
            inbox.datagrams.pop_front()
        };
        let Some(datagram) = datagram else {
            let ended = self.common.shut() & RECEIVE != 0 && !message.nonblocking;
            return if ended { Ok(0) } else { Err(Errno::EAGAIN) };
        };
        if !peek {
            inbox.held -= true_size(datagram.data.len());
        }
        drop(inbox);
        let data = datagram.data.get(skip..).unwrap_or_default();
        let len = data.len().min(message.dst.remaining());
        if len < data.len() {
            message.out_flags |= MsgFlags::MSG_TRUNC;
        }
        if offset >= 0 {
            let by = if peek { len as i32 } else { -(datagram.data.len() as i32) };
            self.common.peek_offset.store(offset.saturating_add(by).max(0), Ordering::Relaxed);
        }
        if len > 0 && message.dst.put(data.get(..len).unwrap_or_default())? < len {
            return Err(Errno::EFAULT);
        }
        message.copied = len;
        if message.wants_address {
            message.address = Some(datagram.from.raw(self.common.domain));
        }
        self.describe(message, &datagram);
        Ok(if message.flags.contains(MsgFlags::MSG_TRUNC) { data.len() } else { len })
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        let connected = self.state.lock().peer.is_some();
        self.common.shut_down(how as u8 + 1);
        self.common.queue.notify(PollEvents::all());
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local_address(&self) -> Result<RawAddress> {
        Ok(self.endpoints().0.raw(self.common.domain))
    }

    fn peer_address(&self) -> Result<RawAddress> {
        let peer = self.state.lock().peer.filter(|peer| peer.port != 0);
        Ok(peer.ok_or(Errno::ENOTCONN)?.raw(self.common.domain))
    }

    fn set_option(&self, task: &Task, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match level {
            SOL_UDP | SOL_UDPLITE if !self.is_echo() => {
                let int = int_value(value)?;
                if self.is_lite() && COVERAGES.contains(&name) {
                    // Nothing gets lost on the way, so that no checksum has to cover anything.
                    let coverage = if int == 0 { 0 } else { int.clamp(8, 0xffff) };
                    self.common.remember(SOL_UDP, name, coverage);
                    return Ok(());
                }
                let on = int != 0;
                if !REMEMBERED.contains(&name) {
                    return Err(Errno::ENOPROTOOPT);
                }
                self.common.remember(SOL_UDP, name, on.into());
                if name == i::UDP_CORK && !on {
                    self.uncork()?;
                }
                Ok(())
            }
            SOL_IP | SOL_IPV6 => {
                let bound = self.state.lock().bound.is_some();
                self.ip.set(task, &self.common, bound, level, name, value)
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, _task: &Task, level: i32, name: i32, room: usize) -> Result<OptionValue> {
        match level {
            SOL_UDP | SOL_UDPLITE if !self.is_echo() => {
                if !REMEMBERED.contains(&name) && !COVERAGES.contains(&name) {
                    return Err(Errno::ENOPROTOOPT);
                }
                Ok(OptionValue::int(self.common.remembered(SOL_UDP, name).unwrap_or(0)))
            }
            SOL_IP | SOL_IPV6 => {
                let peer = self.state.lock().peer.map(|peer| peer.ip);
                self.ip.get(&self.common, peer, level, name, room)
            }
            _ if self.common.domain == AF_INET6 => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn poll(&self) -> PollEvents {
        use PollEvents as P;
        let shut = self.common.shut();
        let mut events = P::WRITABLE | P::POLLWRBAND;
        let inbox = self.inbox.lock();
        if self.common.has_error() || !inbox.errors.is_empty() {
            events |= P::POLLERR;
        }
        if !inbox.datagrams.is_empty() {
            events |= P::READABLE;
        }
        if shut & RECEIVE != 0 {
            events |= P::POLLRDHUP | P::READABLE;
        }
        if shut == RECEIVE | SEND {
            events |= P::POLLHUP;
        }
        events
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        let value = match request {
            SIOCOUTQ => 0,
            SIOCINQ => self.inbox.lock().datagrams.front().map_or(0, |d| d.data.len()),
            _ => return Err(Errno::ENOTTY),
        };
        task.mm().write_object(arg, &(value as i32))?;
        Ok(0)
    }

    fn close(&self) {
        let mut state = self.state.lock();
        if let Some(bound) = state.bound.take() {
            self.table().write().leave(bound.port, self);
        }
        drop(state);
        let lost = std::mem::take(&mut *self.inbox.lock());
        drop(lost);
    }
}
