//! `--network=host`: AF_INET and AF_INET6 sockets of the host, in the network namespace that the sentry was started in.
//! The guest's calls are carried out on them by the sentry, within its filter; what waits, waits in the sentry.
//!
//! Netlink sockets (NETLINK_ROUTE) are the host's too, for questions only: what would change the network is EPERM.

use std::any::Any;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::poll::PollEvents;
use abi::socket::{AF_NETLINK, MsgFlags, SO_ERROR, SO_RCVBUF, SO_SNDBUF, SOCK_STREAM, SOL_SOCKET};
use abi::{Errno, Result};
use nix::errno::Errno as HostErrno;
use parking_lot::Mutex;
use sentry::net::host::Stack;
use sentry::net::{
    Common, ControlMessage, Incoming, NetNamespace, OptionValue, Outgoing, RawAddress, Received, Socket,
};
use sentry::task::{CurrentTask, Task};
use sentry::vfs::Source;

use super::host_file::Watcher;
use crate::confine::policy;

/// The most that a stream carries at once, in bytes.
const CHUNK: usize = 64 << 10;
/// No datagram is longer, in bytes; netlink answers come in pieces of 32 KiB.
const DATAGRAM: usize = 128 << 10;
/// Room for control messages, in bytes.
const CONTROL: usize = 1024;
/// Bytes of the kernel's struct ifreq.
const IFREQ: usize = 40;

/// The host's network.
pub struct HostNetwork {
    watcher: Arc<Watcher>,
}

impl HostNetwork {
    /// `watcher` tells when its sockets are ready.
    pub fn new(watcher: Arc<Watcher>) -> HostNetwork {
        HostNetwork { watcher }
    }
}

impl Stack for HostNetwork {
    fn socket(
        &self,
        net: Arc<NetNamespace>,
        domain: u16,
        kind: u32,
        protocol: u32,
    ) -> Result<Arc<dyn Socket>> {
        let host_kind = kind as i32 | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers.
        let fd = unsafe { libc::socket(domain.into(), host_kind, protocol as i32) };
        HostSocket::adopt(Common::new(net, domain, kind, protocol), fd, &self.watcher)
    }
}

/// A socket of the host.
struct HostSocket {
    common: Common,
    fd: Arc<OwnedFd>,
    watcher: Arc<Watcher>,
    listening: AtomicBool,
    /// Where connect(2) is on its way to.
    target: Mutex<RawAddress>,
}

impl HostSocket {
    /// Takes over what a call has returned: a new descriptor or an error.
    fn adopt(common: Common, fd: libc::c_int, watcher: &Arc<Watcher>) -> Result<Arc<dyn Socket>> {
        let fd = HostErrno::result(fd)?;
        // SAFETY: the kernel has just made it for us.
        let fd = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        watcher.tell(&fd, common.queue.clone())?;
        Ok(Arc::new(HostSocket {
            common,
            fd,
            watcher: watcher.clone(),
            listening: AtomicBool::new(false),
            target: Mutex::default(),
        }))
    }

    fn is_stream(&self) -> bool {
        self.common.kind == SOCK_STREAM
    }

    fn call_connect(&self, addr: &[u8]) -> Result<()> {
        // SAFETY: `addr` outlives the call, and its length goes with it.
        let rc = unsafe { libc::connect(self.fd.as_raw_fd(), addr.as_ptr().cast(), addr.len() as u32) };
        Ok(HostErrno::result(rc).map(drop)?)
    }

    /// getsockname(2) or getpeername(2).
    fn name(
        &self,
        call: unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
    ) -> Result<RawAddress> {
        let mut addr = [0u8; 128];
        let mut len = addr.len() as u32;
        // SAFETY: the kernel writes `len` bytes of `addr` at most, which outlives the call.
        let rc = unsafe { call(self.fd.as_raw_fd(), addr.as_mut_ptr().cast(), &raw mut len) };
        HostErrno::result(rc)?;
        Ok(RawAddress::from_slice(addr.get(..len as usize).unwrap_or_default()))
    }

    /// setsockopt(2), if the filter lets it through.
    fn set(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if !policy::may_set_option(level, name) {
            return Err(Errno::ENOPROTOOPT);
        }
        let len = value.len() as u32;
        // SAFETY: `value` outlives the call, and its length goes with it.
        let rc = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
        Ok(HostErrno::result(rc).map(drop)?)
    }

    fn get(&self, level: i32, name: i32, room: usize) -> Result<OptionValue> {
        let mut value = vec![0u8; room.min(CONTROL)];
        let mut len = value.len() as u32;
        // SAFETY: the kernel writes `len` bytes of `value` at most, which outlives the call.
        let rc = unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
        };
        HostErrno::result(rc)?;
        Ok(OptionValue::bytes(value.get(..len as usize).unwrap_or_default()))
    }

    /// sendmsg(2) without waiting.
    fn send_now(&self, data: &[u8], to: &[u8], control: &[u8], flags: MsgFlags) -> Result<usize> {
        let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !to.is_empty() {
            message.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_namelen = to.len() as u32;
        }
        if !control.is_empty() {
            message.msg_control = control.as_ptr().cast_mut().cast();
            message.msg_controllen = control.len();
        }
        let flags = flags.bits() as i32 | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: all that the message points to outlives the call, and is only read by it.
        let rc = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, flags) };
        Ok(HostErrno::result(rc)? as usize)
    }

    /// recvmsg(2) without waiting: its result, the flags, the sender and the control messages.
    fn receive_now(&self, data: &mut [u8], flags: MsgFlags) -> Result<Message> {
        let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        let mut from = [0u8; 128];
        // Aligned for the headers in it.
        let mut control = [0u64; CONTROL / 8];
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_name = from.as_mut_ptr().cast();
        message.msg_namelen = from.len() as u32;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL;
        let flags = flags.bits() as i32 | libc::MSG_DONTWAIT;
        // SAFETY: all that the message points to outlives the call.
        let rc = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
        let length = HostErrno::result(rc)? as usize;
        let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Message {
            length,
            flags: MsgFlags::from_bits_truncate(message.msg_flags as u32),
            from: RawAddress::from_slice(from.get(..message.msg_namelen as usize).unwrap_or_default()),
            control: decode(control.get(..message.msg_controllen).unwrap_or_default()),
        })
    }

    /// ioctl(2) on `N` bytes of guest memory.
    fn pass<const N: usize>(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        let mut data = [0u8; N];
        task.mm().read_bytes(arg, &mut data)?;
        // SAFETY: the requests passed here read and write a plain structure of N bytes at most.
        let rc = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::c_ulong::from(request), data.as_mut_ptr()) };
        HostErrno::result(rc)?;
        task.mm().write_bytes(arg, &data)?;
        Ok(0)
    }

    /// SIOCGIFCONF, whose structure points to the room for the answer.
    fn interfaces(&self, task: &CurrentTask, arg: u64) -> Result<u64> {
        let mut request = [0u8; 16];
        task.mm().read_bytes(arg, &mut request)?;
        let word = |at: usize| request.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
        let room = word(0).map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        let target = request.last_chunk::<8>().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let mut answer = vec![0u8; usize::try_from(room).unwrap_or(0).min(CHUNK)];
        // SAFETY: all-zero is a valid ifconf.
        let mut config: libc::ifconf = unsafe { std::mem::zeroed() };
        config.ifc_len = answer.len() as i32;
        if target != 0 {
            config.ifc_ifcu.ifcu_buf = answer.as_mut_ptr().cast();
        }
        // SAFETY: the kernel writes `ifc_len` bytes of `answer` at most, or only the length without a buffer.
        let rc = unsafe { libc::ioctl(self.fd.as_raw_fd(), SIOCGIFCONF as libc::c_ulong, &raw mut config) };
        HostErrno::result(rc)?;
        if target != 0 {
            let length = usize::try_from(config.ifc_len).unwrap_or(0);
            task.mm().write_bytes(target, answer.get(..length).unwrap_or_default())?;
        }
        task.mm().write_bytes(arg, &config.ifc_len.to_ne_bytes())?;
        Ok(0)
    }
}

/// A message that was received.
struct Message {
    /// recvmsg(2)'s result.
    length: usize,
    flags: MsgFlags,
    from: RawAddress,
    control: Vec<ControlMessage>,
}

/// Bytes of `struct cmsghdr`.
const HEADER: usize = 16;

/// Control messages as sendmsg(2) wants them. What passes descriptors or credentials is not for these sockets.
fn encode(messages: &[ControlMessage]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for message in messages {
        if message.level == SOL_SOCKET {
            return Err(Errno::EINVAL);
        }
        bytes.extend_from_slice(&(HEADER + message.data.len()).to_ne_bytes());
        bytes.extend_from_slice(&message.level.to_ne_bytes());
        bytes.extend_from_slice(&message.kind.to_ne_bytes());
        bytes.extend_from_slice(&message.data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    Ok(bytes)
}

/// Control messages as recvmsg(2) has written them.
fn decode(mut bytes: &[u8]) -> Vec<ControlMessage> {
    let mut messages = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, g, h, level @ .., i, j, k, l] = *header;
        let length = usize::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let Some(data) = bytes.get(HEADER..length) else { break };
        messages.push(ControlMessage {
            level: i32::from_ne_bytes(level),
            kind: i32::from_ne_bytes([i, j, k, l]),
            data: data.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    messages
}

/// Whether netlink messages only ask: RTM_GET* (linux/rtnetlink.h counts four kinds of each object).
fn only_asks(mut bytes: &[u8]) -> Result<()> {
    while let Some((header, _)) = bytes.split_first_chunk::<16>() {
        let [a, b, c, d, e, f, ..] = *header;
        let (length, kind) = (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f]));
        if length < 16 {
            return Err(Errno::EINVAL);
        }
        if kind < 16 || kind & 3 != 2 {
            return Err(Errno::EPERM);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// Fills `data` from a source; what it had taken is given back on an error.
fn fill(src: &mut dyn Source, data: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match src.take(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) => {
                src.untake(done);
                return Err(error);
            }
        }
    }
    Ok(done)
}

/// What a guest may ask of a send.
const SEND_FLAGS: MsgFlags = MsgFlags::MSG_OOB
    .union(MsgFlags::MSG_DONTROUTE)
    .union(MsgFlags::MSG_EOR)
    .union(MsgFlags::MSG_CONFIRM)
    .union(MsgFlags::MSG_MORE);

/// What a guest may ask of a receive; waiting is done here.
const RECEIVE_FLAGS: MsgFlags =
    MsgFlags::MSG_OOB.union(MsgFlags::MSG_PEEK).union(MsgFlags::MSG_TRUNC).union(MsgFlags::MSG_ERRQUEUE);

/// What a receive tells.
const TOLD_FLAGS: MsgFlags = MsgFlags::MSG_OOB
    .union(MsgFlags::MSG_TRUNC)
    .union(MsgFlags::MSG_CTRUNC)
    .union(MsgFlags::MSG_ERRQUEUE)
    .union(MsgFlags::MSG_EOR);

impl Socket for HostSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bind(&self, _task: &Task, addr: &[u8]) -> Result<()> {
        // SAFETY: `addr` outlives the call, and its length goes with it.
        let rc = unsafe { libc::bind(self.fd.as_raw_fd(), addr.as_ptr().cast(), addr.len() as u32) };
        Ok(HostErrno::result(rc).map(drop)?)
    }

    fn listen(&self, _task: &Task, backlog: u32) -> Result<()> {
        // SAFETY: takes integers.
        let rc = unsafe { libc::listen(self.fd.as_raw_fd(), i32::try_from(backlog).unwrap_or(i32::MAX)) };
        HostErrno::result(rc)?;
        self.listening.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        let (none, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no address is asked for.
        let fd = unsafe { libc::accept4(self.fd.as_raw_fd(), none, no_length, flags) };
        HostSocket::adopt(self.common.inherit(), fd, &self.watcher)
    }

    fn connect(&self, _task: &Task, addr: &[u8]) -> Result<()> {
        let result = self.call_connect(addr);
        if result == Err(Errno::EINPROGRESS) {
            *self.target.lock() = RawAddress::from_slice(addr);
        }
        result
    }

    fn connected(&self) -> Option<Result<()>> {
        let target = self.target.lock();
        // It tells how the attempt ended, and makes the socket know that it was told.
        match self.call_connect(&target) {
            Err(Errno::EALREADY | Errno::EINPROGRESS) => None,
            Err(Errno::EISCONN) => Some(Ok(())),
            result => Some(result),
        }
    }

    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::MSG_FASTOPEN) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (stream, flags) = (self.is_stream(), message.flags & SEND_FLAGS);
        let control = encode(message.control)?;
        loop {
            let length = message.src.remaining();
            if !stream && length > DATAGRAM {
                return Err(Errno::EMSGSIZE);
            }
            let mut data = vec![0; length.min(if stream { CHUNK } else { DATAGRAM })];
            let taken = fill(message.src, &mut data)?;
            let data = data.get(..taken).unwrap_or_default();
            let allowed = if self.common.domain == AF_NETLINK { only_asks(data) } else { Ok(()) };
            match allowed.and_then(|()| self.send_now(data, message.to, &control, flags)) {
                Ok(sent) => {
                    message.src.untake(taken.saturating_sub(sent));
                    message.sent += sent;
                    if !stream || sent == 0 || message.src.remaining() == 0 {
                        return Ok(message.sent);
                    }
                }
                Err(error) => {
                    message.src.untake(taken);
                    return Err(match error {
                        Errno::EPIPE if message.sent == 0 => message.broken_pipe(),
                        error => error,
                    });
                }
            }
        }
    }

    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize> {
        let flags = message.flags & RECEIVE_FLAGS;
        let stream = self.is_stream() && !flags.contains(MsgFlags::MSG_ERRQUEUE);
        // Data that is thrown away need not be carried.
        let discards = stream && flags.contains(MsgFlags::MSG_TRUNC);
        let target = message.target(&self.common);
        loop {
            let mut data = vec![0; message.dst.remaining().min(if stream { CHUNK } else { DATAGRAM })];
            let received = match self.receive_now(&mut data, flags) {
                Err(Errno::EAGAIN) if message.copied > 0 && message.nonblocking => return Ok(message.copied),
                Err(error) if error != Errno::EAGAIN && message.copied > 0 => return Ok(message.copied),
                result => result?,
            };
            message.out_flags |= received.flags & TOLD_FLAGS;
            message.control.extend(received.control.into_iter().map(Received::Data));
            if message.wants_address && !received.from.is_empty() {
                message.address = Some(received.from);
            }
            let carried = data.get(..received.length.min(data.len())).unwrap_or_default();
            let put = if discards { carried.len() } else { message.dst.put(carried)? };
            if !stream {
                // With MSG_TRUNC the length that it really has.
                message.copied += put;
                return Ok(received.length);
            }
            message.copied += put;
            let once = MsgFlags::MSG_PEEK | MsgFlags::MSG_OOB | MsgFlags::MSG_TRUNC;
            if put == 0 || message.copied >= target || flags.intersects(once) {
                return Ok(message.copied);
            }
        }
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        // SAFETY: takes integers.
        let rc = unsafe { libc::shutdown(self.fd.as_raw_fd(), how as i32) };
        Ok(HostErrno::result(rc).map(drop)?)
    }

    fn local_address(&self) -> Result<RawAddress> {
        self.name(libc::getsockname)
    }

    fn peer_address(&self) -> Result<RawAddress> {
        self.name(libc::getpeername)
    }

    fn set_option(&self, _task: &Task, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.set(level, name, value)
    }

    fn option(&self, _task: &Task, level: i32, name: i32, room: usize) -> Result<OptionValue> {
        self.get(level, name, room)
    }

    fn socket_option_changed(&self, name: i32, value: &[u8]) -> Result<()> {
        // What the filter does not let through concerns the sandbox alone.
        match policy::may_set_option(SOL_SOCKET, name) {
            true => self.set(SOL_SOCKET, name, value),
            false => Ok(()),
        }
    }

    fn socket_option(&self, name: i32, room: usize) -> Option<Result<OptionValue>> {
        matches!(name, SO_ERROR | SO_SNDBUF | SO_RCVBUF).then(|| self.get(SOL_SOCKET, name, room))
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    fn poll(&self) -> PollEvents {
        let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDNORM | libc::POLLWRNORM;
        let events = all | libc::POLLRDBAND | libc::POLLWRBAND | libc::POLLRDHUP;
        let mut entry = libc::pollfd { fd: self.fd.as_raw_fd(), events, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        let n = unsafe { libc::poll(&raw mut entry, 1, 0) };
        if n > 0 { PollEvents::from_bits_truncate(entry.revents as u16 as u32) } else { PollEvents::empty() }
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        match request {
            FIONREAD | TIOCOUTQ | SIOCATMARK => self.pass::<4>(task, request, arg),
            SIOCGIFCONF => self.interfaces(task, arg),
            request if policy::INTERFACE_REQUESTS.contains(&request) => {
                self.pass::<IFREQ>(task, request, arg)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn close(&self) {}
}

const FIONREAD: u32 = libc::FIONREAD as u32;
const TIOCOUTQ: u32 = libc::TIOCOUTQ as u32;
const SIOCATMARK: u32 = 0x8905;
const SIOCGIFCONF: u32 = policy::SIOCGIFCONF;

/// Before the sentry gives up its capabilities, in a network namespace that was made for it: the loopback device is up,
/// as in every container, and the kernel parameters of the network are those of config.json.
pub fn prepare<'a>(sysctls: impl Iterator<Item = (&'a String, &'a String)>) {
    if let Err(errno) = loopback_up() {
        tracing::warn!("the loopback device: {errno}");
    }
    for (name, value) in sysctls.filter(|(name, _)| name.starts_with("net.") && !name.contains('/')) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        if path.contains("/../") {
            continue;
        }
        let result = std::fs::write(&path, value).or_else(|error| match name.as_str() {
            // Only ids that the sandbox's user namespace knows can be named: up to nobody's, which the sentry has.
            "net.ipv4.ping_group_range" => std::fs::write(&path, "0 65534"),
            _ => Err(error),
        });
        if let Err(error) = result {
            tracing::warn!("sysctl {name}={value}: {error}");
        }
    }
}

fn loopback_up() -> nix::Result<()> {
    // SAFETY: takes integers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let fd = HostErrno::result(fd)?;
    // SAFETY: the kernel has just made it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as libc::c_ulong, &raw const request) };
    HostErrno::result(rc).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_go_both_ways() {
        let message = |level, kind, data: &[u8]| ControlMessage { level, kind, data: data.to_vec() };
        let messages = [message(0, 8, &[1, 2, 3, 4]), message(41, 50, &[9; 20])];
        let bytes = encode(&messages).unwrap();
        assert_eq!(bytes.len(), 24 + 40);
        let again = decode(&bytes);
        assert_eq!(again.len(), 2);
        assert_eq!((again[1].level, again[1].kind, again[1].data.len()), (41, 50, 20));
        assert!(encode(&[message(SOL_SOCKET, 1, &[0; 4])]).is_err(), "SCM_RIGHTS");
        // The padding behind the last is not missed.
        for end in 0..24 + 36 {
            assert!(decode(&bytes[..end]).len() < 2, "{end}");
        }
    }

    #[test]
    fn netlink_is_for_questions() {
        let request = |kind: u16, length: u32| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(20, 0);
            bytes
        };
        const RTM_NEWLINK: u16 = 16;
        const RTM_GETLINK: u16 = 18;
        const RTM_GETADDR: u16 = 22;
        const RTM_NEWROUTE: u16 = 24;
        assert_eq!(only_asks(&request(RTM_GETLINK, 20)), Ok(()));
        assert_eq!(only_asks(&[request(RTM_GETADDR, 20), request(RTM_GETLINK, 20)].concat()), Ok(()));
        assert_eq!(only_asks(&request(RTM_NEWLINK, 20)), Err(Errno::EPERM));
        assert_eq!(
            only_asks(&[request(RTM_GETADDR, 20), request(RTM_NEWROUTE, 20)].concat()),
            Err(Errno::EPERM)
        );
        assert_eq!(only_asks(&request(RTM_GETLINK, 3)), Err(Errno::EINVAL));
    }
}
