//! What a family of sockets implements, open files of sockets, and messages on their way in and out.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::socket::MsgFlags;
use abi::{Errno, Result};
use smallvec::SmallVec;

use super::options::Common;
use super::rights::Rights;
use super::{device, options};
use crate::Kernel;
use crate::task::{CurrentTask, Pid, Task};
use crate::vfs::{File, FileOps, Io, Sink, Source};
use crate::wait::WaitQueue;

/// A `struct sockaddr` of any family as bytes, at most 128 of them.
pub type RawAddress = SmallVec<[u8; 32]>;

/// The family in an address. EINVAL if it is too short to have one.
pub fn address_family(addr: &[u8]) -> Result<u16> {
    match addr {
        [a, b, ..] => Ok(u16::from_ne_bytes([*a, *b])),
        _ => Err(Errno::EINVAL),
    }
}

/// A control message as sendmsg(2) passes it. Its length has been checked against the buffer.
#[derive(Clone, Debug, Default)]
pub struct ControlMessage {
    /// `cmsg_level`
    pub level: i32,
    /// `cmsg_type`
    pub kind: i32,
    /// What follows the header.
    pub data: Vec<u8>,
}

/// The sender of a message, in kernel ids.
#[derive(Clone)]
pub struct MessageCredentials {
    /// The process; `None` is the kernel.
    pub pid: Option<Arc<Pid>>,
    /// Real uid.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
}

impl MessageCredentials {
    /// What a task is known as unless it says something else.
    pub fn of(task: &Task) -> MessageCredentials {
        let creds = task.credentials();
        MessageCredentials { pid: Some(task.group.pid.clone()), uid: creds.uid, gid: creds.gid }
    }

    /// Nobody: the message was sent when no one asked for credentials.
    pub fn nobody() -> MessageCredentials {
        MessageCredentials { pid: None, uid: u32::MAX, gid: u32::MAX }
    }

    /// The same sender?
    pub fn same(&self, other: &MessageCredentials) -> bool {
        let pid = |c: &MessageCredentials| c.pid.as_ref().map(Arc::as_ptr);
        (pid(self), self.uid, self.gid) == (pid(other), other.uid, other.gid)
    }
}

/// Who is at the other end of a Unix socket (SO_PEERCRED): as of connect(2), listen(2) or socketpair(2), in kernel ids.
#[derive(Clone)]
pub struct PeerIdentity {
    /// The process.
    pub pid: Arc<Pid>,
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
}

impl PeerIdentity {
    /// That of a task.
    pub fn of(task: &Task) -> PeerIdentity {
        let creds = task.credentials();
        PeerIdentity {
            pid: task.group.pid.clone(),
            uid: creds.euid,
            gid: creds.egid,
            groups: creds.groups.clone(),
        }
    }
}

/// A control message as recvmsg(2) delivers it.
pub enum Received {
    /// SCM_CREDENTIALS.
    Credentials(MessageCredentials),
    /// SCM_RIGHTS: files that become descriptors of the receiver.
    Rights(Rights),
    /// SCM_PIDFD.
    PidFd(Arc<Pid>),
    /// Any other.
    Data(ControlMessage),
}

/// A message to be sent. What is kept in it survives EAGAIN, so that an attempt goes on where the last one stopped.
pub struct Outgoing<'a> {
    /// Who sends.
    pub task: Option<&'a Task>,
    /// The data.
    pub src: &'a mut dyn Source,
    /// To whom; empty for the peer.
    pub to: &'a [u8],
    /// Control messages.
    pub control: &'a [ControlMessage],
    /// MSG_*.
    pub flags: MsgFlags,
    /// Bytes sent by earlier attempts.
    pub sent: usize,
    /// An attempt has said EAGAIN.
    pub waited: bool,
    /// What a Unix socket made of the control messages.
    pub(crate) ancillary: Option<super::unix::Ancillary>,
}

impl<'a> Outgoing<'a> {
    /// Plain data to the peer, as write(2) sends it.
    pub fn plain(task: Option<&'a Task>, src: &'a mut dyn Source, flags: MsgFlags) -> Outgoing<'a> {
        Outgoing { task, src, to: &[], control: &[], flags, sent: 0, waited: false, ancillary: None }
    }

    /// EPIPE: with SIGPIPE, unless MSG_NOSIGNAL.
    pub fn broken_pipe(&self) -> Errno {
        if let Some(task) = self.task
            && !self.flags.contains(MsgFlags::MSG_NOSIGNAL)
        {
            task.group.send_kernel_signal_to_task(task, Signal::SIGPIPE);
        }
        Errno::EPIPE
    }
}

/// A message to be received. Streams go on after EAGAIN where they stopped (MSG_WAITALL).
pub struct Incoming<'a> {
    /// Who receives.
    pub task: Option<&'a Task>,
    /// Where the data goes.
    pub dst: &'a mut dyn Sink,
    /// MSG_*.
    pub flags: MsgFlags,
    /// Nobody will wait: less than SO_RCVLOWAT is delivered too.
    pub nonblocking: bool,
    /// Bytes received so far.
    pub copied: usize,
    /// Fill in `address`.
    pub wants_address: bool,
    /// The sender's address, if it has one.
    pub address: Option<RawAddress>,
    /// `msg_flags` of the result.
    pub out_flags: MsgFlags,
    /// Control messages.
    pub control: SmallVec<[Received; 1]>,
    /// Whose bytes a Unix stream has delivered; others do not go with them.
    pub(crate) sender: Option<MessageCredentials>,
}

impl<'a> Incoming<'a> {
    /// As read(2) receives.
    pub fn plain(task: Option<&'a Task>, dst: &'a mut dyn Sink, nonblocking: bool) -> Incoming<'a> {
        Incoming {
            task,
            dst,
            flags: MsgFlags::empty(),
            nonblocking,
            copied: 0,
            wants_address: false,
            address: None,
            out_flags: MsgFlags::empty(),
            control: SmallVec::new(),
            sender: None,
        }
    }

    pub(crate) fn peeks(&self) -> bool {
        self.flags.contains(MsgFlags::MSG_PEEK)
    }

    /// How many bytes a stream waits for (sock_rcvlowat()): all with MSG_WAITALL, else SO_RCVLOWAT.
    pub fn target(&self, common: &Common) -> usize {
        let wanted = self.copied + self.dst.remaining();
        let low = if self.flags.contains(MsgFlags::MSG_WAITALL) { wanted } else { common.receive_low() };
        low.min(wanted).max(1)
    }
}

/// The memory that Linux counts for a message of this length (`skb->truesize`), so that as many fit into a buffer.
pub(crate) fn true_size(len: usize) -> usize {
    // The head is allocated in powers of two, with 320 bytes of administration in it; what is beyond 16 KiB, in pages.
    const HEAD_MAX: usize = 16_384 - 320;
    if len <= HEAD_MAX {
        256 + (len + 320).next_power_of_two().max(512)
    } else {
        256 + 16_384 + (len - HEAD_MAX).next_multiple_of(4096)
    }
}

/// The next `len` bytes of a source.
pub(crate) fn take(src: &mut dyn Source, len: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; len];
    let mut done = 0;
    while done < len {
        match src.take(data.get_mut(done..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => {
                src.untake(done);
                return Err(e);
            }
        }
    }
    if done < len {
        src.untake(done);
        return Err(Errno::EFAULT);
    }
    Ok(data)
}

/// The value of an option.
pub enum OptionValue {
    /// These bytes, of which the caller gets as many as it has room for.
    Bytes(SmallVec<[u8; 32]>),
    /// ERANGE: so many bytes would be needed.
    Needs(usize),
}

impl OptionValue {
    /// An `int`.
    pub fn int(value: i32) -> OptionValue {
        OptionValue::Bytes(SmallVec::from_slice(&value.to_ne_bytes()))
    }

    /// A structure.
    pub fn object<T: zerocopy::IntoBytes + zerocopy::Immutable>(value: &T) -> OptionValue {
        OptionValue::Bytes(SmallVec::from_slice(value.as_bytes()))
    }

    /// Bytes.
    pub fn bytes(value: &[u8]) -> OptionValue {
        OptionValue::Bytes(SmallVec::from_slice(value))
    }
}

/// The `int` of setsockopt(2). EINVAL if there is less.
pub(crate) fn int_value(value: &[u8]) -> Result<i32> {
    let bytes = value.first_chunk().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// A socket. What a method does not implement is EOPNOTSUPP, as for families of Linux that lack it.
#[allow(unused_variables, reason = "the defaults refuse")]
pub trait Socket: Send + Sync + Any {
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;

    /// What every socket has.
    fn common(&self) -> &Common;

    /// bind(2).
    fn bind(&self, task: &Task, addr: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// listen(2); `backlog` has been cut to `net.core.somaxconn`.
    fn listen(&self, task: &Task, backlog: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// accept(2): a connection that waits. EAGAIN if there is none.
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// connect(2). EAGAIN when the call is to be repeated after an event, if it may block; EINPROGRESS when
    /// [`Socket::connected`] tells how it ends.
    fn connect(&self, task: &Task, addr: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// How a connect(2) that said EINPROGRESS ended; `None` while it goes on.
    fn connected(&self) -> Option<Result<()>> {
        Some(Ok(()))
    }

    /// Sends. Streams send all, with EAGAIN as long as something is left; how much went is in `message.sent`.
    fn send(&self, message: &mut Outgoing<'_>) -> Result<usize>;

    /// Receives. EAGAIN if there is less than what `message` waits for; what it got so far is in `message.copied`.
    fn receive(&self, message: &mut Incoming<'_>) -> Result<usize>;

    /// shutdown(2). `how` has been checked.
    fn shutdown(&self, how: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// getsockname(2).
    fn local_address(&self) -> Result<RawAddress>;

    /// getpeername(2).
    fn peer_address(&self) -> Result<RawAddress>;

    /// setsockopt(2) of levels other than SOL_SOCKET.
    fn set_option(&self, task: &Task, level: i32, name: i32, value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// getsockopt(2) of levels other than SOL_SOCKET. `room` is what the caller has room for.
    fn option(&self, task: &Task, level: i32, name: i32, room: usize) -> Result<OptionValue> {
        Err(Errno::EOPNOTSUPP)
    }

    /// An option of SOL_SOCKET was set, and has been noted in [`Socket::common`].
    fn socket_option_changed(&self, name: i32, value: &[u8]) -> Result<()> {
        Ok(())
    }

    /// An option of SOL_SOCKET that [`Socket::common`] does not know best.
    fn socket_option(&self, name: i32, room: usize) -> Option<Result<OptionValue>> {
        None
    }

    /// SO_SNDBUF or SO_RCVBUF changed.
    fn buffers_changed(&self) {}

    /// SO_PEERCRED and its like.
    fn peer_identity(&self) -> Option<PeerIdentity> {
        None
    }

    /// SO_ACCEPTCONN.
    fn is_listening(&self) -> bool {
        false
    }

    /// What can be done without waiting.
    fn poll(&self) -> PollEvents;

    /// ioctl(2), what the family adds. ENOTTY.
    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// The last descriptor is gone.
    fn close(&self);

    /// Additional lines of fdinfo.
    fn fdinfo(&self) -> String {
        String::new()
    }
}

/// An open file of a socket.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    ino: u64,
}

impl SocketFile {
    /// An open file; `flags` may have O_NONBLOCK. The inode belongs to `owner`.
    pub fn open(kernel: &Kernel, socket: Arc<dyn Socket>, owner: (u32, u32), flags: OpenFlags) -> Arc<File> {
        let path = kernel.anonymous.socket(owner);
        let ino = path.inode().ino();
        socket.common().set_place(path.clone());
        let flags = (flags & OpenFlags::O_NONBLOCK) | OpenFlags::O_RDWR;
        File::new(Arc::new(SocketFile { socket, ino }), path, flags)
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.close();
    }
}

/// The socket of an open file. ENOTSOCK.
pub fn of_file(file: &File) -> Result<&Arc<dyn Socket>> {
    file.ops::<SocketFile>().map(SocketFile::socket).ok_or(Errno::ENOTSOCK)
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut message = Incoming::plain(io.task, dst, io.nonblocking);
        match self.socket.receive(&mut message) {
            // Some, and less than SO_RCVLOWAT: a read(2) is not repeated with what it has.
            Err(Errno::EAGAIN) if message.copied > 0 => Ok(message.copied),
            result => result,
        }
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        let mut message = Outgoing::plain(io.task, src, MsgFlags::empty());
        match self.socket.send(&mut message) {
            Err(_) if message.sent > 0 => Ok(message.sent),
            result => result,
        }
    }

    fn signals(&self) -> bool {
        true
    }

    fn writes_all(&self) -> bool {
        self.socket.common().kind == abi::socket::SOCK_STREAM
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.socket.common().queue)
    }

    fn ioctl(&self, task: &CurrentTask, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        use abi::netdevice as n;
        match request {
            n::FIOSETOWN | n::SIOCSPGRP => set_owner(task, file, task.mm().read_object(arg)?),
            n::FIOGETOWN | n::SIOCGPGRP => {
                let owner = file.owner().clone();
                let number = owner.pid.map_or(0, |pid| pid.number_in(&task.pid_ns()) as i32);
                let group = owner.kind == abi::fcntl::F_OWNER_PGRP as i32;
                task.mm().write_object(arg, &if group { -number } else { number })?;
                Ok(0)
            }
            _ => match self.socket.ioctl(task, request, arg) {
                Err(Errno::ENOTTY) => device::ioctl(task, &self.socket.common().net, request, arg),
                result => result,
            },
        }
    }

    fn fdinfo(&self) -> String {
        self.socket.fdinfo()
    }

    fn anonymous_name(&self) -> String {
        format!("socket:[{}]", self.ino)
    }
}

/// FIOSETOWN: a process, or a process group as a negative number.
fn set_owner(task: &Task, file: &Arc<File>, who: i32) -> Result<u64> {
    let pid = match who {
        0 => None,
        i32::MIN => return Err(Errno::EINVAL),
        _ => Some(task.pid_ns().find(who.unsigned_abs()).ok_or(Errno::ESRCH)?),
    };
    let kind = if who < 0 { abi::fcntl::F_OWNER_PGRP } else { abi::fcntl::F_OWNER_PID };
    file.owner().set(task, pid, kind as i32);
    Ok(0)
}

/// setsockopt(2). `value` is what the guest passed, at most [`options::VALUE_MAX`] bytes of it.
pub fn set_option(task: &Task, socket: &Arc<dyn Socket>, level: i32, name: i32, value: &[u8]) -> Result<()> {
    if level == abi::socket::SOL_SOCKET {
        options::set(task, &**socket, name, value)?;
        socket.socket_option_changed(name, value)
    } else {
        socket.set_option(task, level, name, value)
    }
}

/// getsockopt(2).
pub fn option(
    task: &Task,
    socket: &Arc<dyn Socket>,
    level: i32,
    name: i32,
    room: usize,
) -> Result<OptionValue> {
    if level == abi::socket::SOL_SOCKET {
        socket.socket_option(name, room).unwrap_or_else(|| options::get(task, &**socket, name, room))
    } else {
        socket.option(task, level, name, room)
    }
}

/// The monotonic deadline of SO_RCVTIMEO, if the file is a socket that has one; for read(2) and its like.
pub fn receive_deadline(task: &Task, file: &File) -> Option<u64> {
    let common = file.ops::<SocketFile>()?.socket.common();
    deadline(task, common.receive_timeout.load(Ordering::Relaxed))
}

/// The same of SO_SNDTIMEO.
pub fn send_deadline(task: &Task, file: &File) -> Option<u64> {
    let common = file.ops::<SocketFile>()?.socket.common();
    deadline(task, common.send_timeout.load(Ordering::Relaxed))
}

fn deadline(task: &Task, timeout: u64) -> Option<u64> {
    (timeout != options::FOREVER).then(|| task.kernel().clock.monotonic().saturating_add(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_as_on_linux() {
        // Measured: so many bytes of outgoing queue for writes of 1, 1000 and 65536 bytes (in pieces).
        assert_eq!(true_size(1), 768);
        assert_eq!(213_504 / true_size(1), 278);
        assert_eq!(214_272 / true_size(1000), 93);
    }
}
