//! AF_NETLINK (netlink(7), net/netlink/af_netlink.c).
//!
//! The kernel's side answers while the request is sent: replies are in the socket's queue when sendmsg(2) returns.

mod route;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::capability::{CAP_NET_ADMIN, CAP_NET_BROADCAST};
use abi::netdevice::{SIOCINQ, SIOCOUTQ};
use abi::netlink::{self as n, MessageWriter, Nlmsgerr, Nlmsghdr};
use abi::poll::PollEvents;
use abi::socket::{AF_NETLINK, AF_UNSPEC, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOL_NETLINK, SockaddrNl};
use abi::{Errno, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::NetNamespace;
use super::options::{Common, Switches};
use super::socket::{
    ControlMessage, Incoming, MessageCredentials, OptionValue, Outgoing, RawAddress, Received, Socket,
    address_family, int_value, take, true_size,
};
use crate::task::{CurrentTask, Task};

/// How many groups a protocol has.
const GROUPS: u32 = 64;

/// The sockets of a network namespace.
#[derive(Default)]
pub struct Table {
    ports: Mutex<HashMap<(u32, u32), Weak<NetlinkSocket>>>,
    next: AtomicU32,
}

impl Table {
    /// Every bound socket.
    pub fn all(&self) -> Vec<Arc<NetlinkSocket>> {
        let mut all: Vec<_> =
            self.ports.lock().iter().filter_map(|(key, weak)| Some((*key, weak.upgrade()?))).collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, socket)| socket).collect()
    }

    fn enter(&self, protocol: u32, port: u32, socket: &Weak<NetlinkSocket>) -> Result<()> {
        let mut ports = self.ports.lock();
        let taken = ports.get(&(protocol, port)).is_some_and(|weak| weak.strong_count() > 0);
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        ports.insert((protocol, port), socket.clone());
        Ok(())
    }

    /// Sends a message to all members of a group.
    fn broadcast(&self, protocol: u32, group: u32, data: &[u8]) {
        let members = self.all().into_iter().filter(|s| s.common.protocol == protocol);
        for socket in members.filter(|s| s.is_member(group)) {
            socket.put(Message { data: data.to_vec(), from: 0, group });
        }
    }
}

/// socket(2). ESOCKTNOSUPPORT, EPROTONOSUPPORT.
pub(super) fn create(
    _task: &Task,
    net: Arc<NetNamespace>,
    kind: u32,
    protocol: i32,
) -> Result<Arc<dyn Socket>> {
    if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    let protocol = u32::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
    match protocol {
        n::NETLINK_ROUTE | n::NETLINK_USERSOCK | n::NETLINK_KOBJECT_UEVENT => {}
        _ => return Err(Errno::EPROTONOSUPPORT),
    }
    if let (n::NETLINK_ROUTE, Some(stack)) = (protocol, net.stack().cloned()) {
        return stack.socket(net, AF_NETLINK, kind, protocol);
    }
    let common = Common::new(net, AF_NETLINK, kind, protocol);
    Ok(Arc::new_cyclic(|me| NetlinkSocket {
        common,
        me: me.clone(),
        state: Mutex::default(),
        inbox: Mutex::default(),
        reading: Mutex::new(()),
        flags: AtomicU32::new(0),
    }))
}

struct Message {
    data: Vec<u8>,
    from: u32,
    group: u32,
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    held: usize,
}

#[derive(Default)]
struct State {
    /// `nl_pid`, once it is bound.
    port: Option<u32>,
    /// Groups it is in, as bits.
    groups: u64,
    /// Where connect(2) directs messages.
    to: (u32, u32),
}

/// A netlink socket.
pub struct NetlinkSocket {
    common: Common,
    me: Weak<NetlinkSocket>,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    reading: Mutex<()>,
    /// Options that are on, by their number as a bit.
    flags: AtomicU32,
}

fn parse(addr: &[u8]) -> Result<SockaddrNl> {
    let (addr, _) = SockaddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
    if addr.nl_family == AF_NETLINK { Ok(addr) } else { Err(Errno::EINVAL) }
}

fn raw(port: u32, groups: u32) -> RawAddress {
    let addr = SockaddrNl { nl_family: AF_NETLINK, nl_pad: 0, nl_pid: port, nl_groups: groups };
    SmallVec::from_slice(addr.as_bytes())
}

impl NetlinkSocket {
    /// Port, groups and bytes that wait, for `/proc/net/netlink`.
    pub fn status(&self) -> (u32, u32, usize) {
        let state = self.state.lock();
        (state.port.unwrap_or(0), state.groups as u32, self.inbox.lock().held)
    }

    fn has(&self, option: i32) -> bool {
        self.flags.load(Ordering::Relaxed) & 1 << option != 0
    }

    fn is_member(&self, group: u32) -> bool {
        self.state.lock().groups & group_bit(group) != 0
    }

    /// Gives it a port: the process's number if that is free.
    fn autobind(&self, task: Option<&Task>) -> Result<u32> {
        let mut state = self.state.lock();
        if let Some(port) = state.port {
            return Ok(port);
        }
        let table = &self.common.net.netlink;
        let protocol = self.common.protocol;
        let mut port = task.map_or(0, |task| task.tgid());
        while port == 0 || table.enter(protocol, port, &self.me).is_err() {
            // Numbers that no process has.
            port = (-4097i32 as u32).wrapping_sub(table.next.fetch_add(1, Ordering::Relaxed) % (1 << 30));
        }
        state.port = Some(port);
        Ok(port)
    }

    fn put(&self, message: Message) {
        let size = true_size(message.data.len());
        let mut inbox = self.inbox.lock();
        if inbox.held > self.common.receive_buffer() {
            drop(inbox);
            self.common.drops.fetch_add(1, Ordering::Relaxed);
            if !self.has(n::NETLINK_NO_ENOBUFS) {
                self.common.set_error(Errno::ENOBUFS);
                self.common.queue.notify(PollEvents::POLLERR | PollEvents::READABLE);
            }
            return;
        }
        inbox.held += size;
        inbox.messages.push_back(message);
        drop(inbox);
        self.common.queue.notify(PollEvents::READABLE);
    }

    /// Puts a message of the kernel's into the queue.
    pub fn deliver(&self, data: Vec<u8>) {
        self.reply(data);
    }

    fn reply(&self, data: Vec<u8>) {
        if !data.is_empty() {
            self.put(Message { data, from: 0, group: 0 });
        }
    }

    /// The kernel's part (netlink_rcv_skb()).
    fn request(&self, task: &Task, port: u32, data: &[u8]) {
        let mut rest = data;
        while let Some((header, payload, after)) = n::split_message(rest) {
            let whole = rest;
            rest = after;
            let control = header.nlmsg_type < n::NLMSG_MIN_TYPE;
            let result = if header.nlmsg_flags & n::NLM_F_REQUEST == 0 || control {
                Ok(())
            } else {
                let request = route::Request {
                    task,
                    net: &self.common.net,
                    header,
                    payload,
                    port,
                    strict: self.has(n::NETLINK_GET_STRICT_CHK),
                };
                match route::handle(&request) {
                    Ok(None) => Ok(()),
                    Ok(Some(replies)) => {
                        replies.into_iter().for_each(|data| self.reply(data));
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            };
            let answered = route::is_dump(&header) && result.is_ok() && !control;
            if result.is_err() || header.nlmsg_flags & n::NLM_F_ACK != 0 && !answered {
                self.acknowledge(&header, whole, port, result);
            }
        }
    }

    /// NLMSG_ERROR, also for success.
    fn acknowledge(&self, request: &Nlmsghdr, whole: &[u8], port: u32, result: Result<()>) {
        let mut data = Vec::new();
        let full = result.is_err() && !self.has(n::NETLINK_CAP_ACK);
        let header = Nlmsghdr {
            nlmsg_type: n::NLMSG_ERROR,
            nlmsg_flags: if full { 0 } else { n::NLM_F_CAPPED },
            nlmsg_seq: request.nlmsg_seq,
            nlmsg_pid: port,
            ..Nlmsghdr::default()
        };
        let error = result.err().map_or(0, |e| -e.raw());
        let mut message = MessageWriter::new(&mut data, header);
        message.payload(&Nlmsgerr { error, msg: *request });
        message.finish();
        if full {
            let payload = whole.get(size_of::<Nlmsghdr>()..request.nlmsg_len as usize).unwrap_or_default();
            data.extend_from_slice(payload);
            let len = (data.len() as u32).to_ne_bytes();
            data[..4].copy_from_slice(&len);
            data.resize(data.len().next_multiple_of(n::NLMSG_ALIGNTO), 0);
        }
        self.reply(data);
    }
}

fn group_bit(group: u32) -> u64 {
    if (1..=GROUPS).contains(&group) { 1 << (group - 1) } else { 0 }
}

impl Socket for NetlinkSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bind(&self, task: &Task, addr: &[u8]) -> Result<()> {
        let addr = parse(addr)?;
        {
            let mut state = self.state.lock();
            match state.port {
                Some(port) if port != addr.nl_pid => return Err(Errno::EINVAL),
                None if addr.nl_pid != 0 => {
                    self.common.net.netlink.enter(self.common.protocol, addr.nl_pid, &self.me)?;
                    state.port = Some(addr.nl_pid);
                }
                _ => {}
            }
        }
        self.autobind(Some(task))?;
        let mut state = self.state.lock();
        state.groups = state.groups & !u64::from(u32::MAX) | u64::from(addr.nl_groups);
        Ok(())
    }

    fn connect(&self, task: &Task, addr: &[u8]) -> Result<()> {
        if address_family(addr)? == AF_UNSPEC {
            self.state.lock().to = (0, 0);
            return Ok(());
        }
        let addr = parse(addr)?;
        if (addr.nl_pid != 0 || addr.nl_groups != 0) && !self.common.net.capable(task, CAP_NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.autobind(Some(task))?;
        self.state.lock().to = (addr.nl_pid, addr.nl_groups);
        Ok(())
    }

    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let task = message.task.ok_or(Errno::EINVAL)?;
        let (to, _) = if message.to.is_empty() {
            self.state.lock().to
        } else {
            let addr = parse(message.to)?;
            let special = addr.nl_pid != 0 || addr.nl_groups != 0;
            if special
                && self.common.protocol != n::NETLINK_USERSOCK
                && !self.common.net.capable(task, CAP_NET_ADMIN)
            {
                return Err(Errno::EPERM);
            }
            (addr.nl_pid, addr.nl_groups)
        };
        let port = self.autobind(Some(task))?;
        let len = message.src.remaining();
        if len > self.common.send_buffer().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let data = take(message.src, len)?;
        if to != 0 {
            let key = (self.common.protocol, to);
            let found = self.common.net.netlink.ports.lock().get(&key).and_then(Weak::upgrade);
            found.ok_or(Errno::ECONNREFUSED)?.put(Message { data, from: port, group: 0 });
        } else if self.common.protocol == n::NETLINK_ROUTE {
            self.request(task, port, &data);
        } else {
            return Err(Errno::ECONNREFUSED);
        }
        message.sent = len;
        Ok(len)
    }

    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let _reading = self.reading.lock();
        self.common.take_error()?;
        let peek = message.peeks();
        let mut inbox = self.inbox.lock();
        let found = inbox.messages.pop_front().ok_or(Errno::EAGAIN)?;
        inbox.held -= true_size(found.data.len());
        drop(inbox);
        let len = found.data.len().min(message.dst.remaining());
        if len < found.data.len() {
            message.out_flags |= MsgFlags::MSG_TRUNC;
        }
        let put = if len > 0 { message.dst.put(found.data.get(..len).unwrap_or_default()) } else { Ok(0) };
        message.copied = len;
        if message.wants_address {
            let groups = group_bit(found.group) as u32;
            message.address = Some(raw(found.from, groups));
        }
        if self.has(n::NETLINK_PKTINFO) {
            let (level, kind) = (SOL_NETLINK, n::NETLINK_PKTINFO);
            let data = found.group.to_ne_bytes().to_vec();
            message.control.push(Received::Data(ControlMessage { level, kind, data }));
        }
        if self.common.has(Switches::PASSCRED) {
            let kernel = MessageCredentials { pid: None, uid: 0, gid: 0 };
            message.control.push(Received::Credentials(kernel));
        }
        let all = found.data.len();
        if peek {
            let mut inbox = self.inbox.lock();
            inbox.held += true_size(all);
            inbox.messages.push_front(found);
        }
        put?;
        Ok(if message.flags.contains(MsgFlags::MSG_TRUNC) { all } else { len })
    }

    fn local_address(&self) -> Result<RawAddress> {
        let state = self.state.lock();
        Ok(raw(state.port.unwrap_or(0), state.groups as u32))
    }

    fn peer_address(&self) -> Result<RawAddress> {
        let (port, groups) = self.state.lock().to;
        Ok(raw(port, groups))
    }

    fn set_option(&self, task: &Task, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let int = int_value(value)?;
        match name {
            n::NETLINK_ADD_MEMBERSHIP | n::NETLINK_DROP_MEMBERSHIP => {
                let bit = group_bit(int as u32);
                if bit == 0 {
                    return Err(Errno::EINVAL);
                }
                let mut state = self.state.lock();
                if name == n::NETLINK_ADD_MEMBERSHIP {
                    state.groups |= bit;
                } else {
                    state.groups &= !bit;
                }
            }
            n::NETLINK_LISTEN_ALL_NSID if !self.common.net.capable(task, CAP_NET_BROADCAST) => {
                return Err(Errno::EPERM);
            }
            n::NETLINK_PKTINFO
            | n::NETLINK_BROADCAST_ERROR
            | n::NETLINK_NO_ENOBUFS
            | n::NETLINK_LISTEN_ALL_NSID
            | n::NETLINK_CAP_ACK
            | n::NETLINK_EXT_ACK
            | n::NETLINK_GET_STRICT_CHK => {
                if int != 0 {
                    self.flags.fetch_or(1 << name, Ordering::Relaxed);
                } else {
                    self.flags.fetch_and(!(1 << name), Ordering::Relaxed);
                }
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn option(&self, _task: &Task, level: i32, name: i32, _room: usize) -> Result<OptionValue> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        match name {
            n::NETLINK_LIST_MEMBERSHIPS => match self.state.lock().groups {
                0 => Ok(OptionValue::bytes(&[])),
                groups => Ok(OptionValue::object(&groups)),
            },
            n::NETLINK_PKTINFO
            | n::NETLINK_BROADCAST_ERROR
            | n::NETLINK_NO_ENOBUFS
            | n::NETLINK_LISTEN_ALL_NSID
            | n::NETLINK_CAP_ACK
            | n::NETLINK_EXT_ACK
            | n::NETLINK_GET_STRICT_CHK => Ok(OptionValue::int(self.has(name).into())),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::WRITABLE | PollEvents::POLLWRBAND;
        if self.common.has_error() {
            events |= PollEvents::POLLERR;
        }
        if !self.inbox.lock().messages.is_empty() {
            events |= PollEvents::READABLE;
        }
        events
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        let value = match request {
            SIOCOUTQ => 0,
            SIOCINQ => self.inbox.lock().messages.front().map_or(0, |m| m.data.len()),
            _ => return Err(Errno::ENOTTY),
        };
        task.mm().write_object(arg, &(value as i32))?;
        Ok(0)
    }

    fn close(&self) {
        let port = self.state.lock().port;
        if let Some(port) = port {
            self.common.net.netlink.ports.lock().remove(&(self.common.protocol, port));
        }
        let lost = std::mem::take(&mut *self.inbox.lock());
        drop(lost);
    }
}
