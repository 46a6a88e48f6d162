//! Sockets (net/socket.c): making, naming, connecting them, and their options. Messages are in [`crate::messages`].

use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::resource::RLIMIT_NOFILE;
use abi::socket::{SHUT_RDWR, SO_PEERPIDFD, SOCK_TYPE_MASK, SOL_SOCKET, SocketFlags};
use abi::{Errno, Result};
use sentry::net::socket::{self, of_file};
use sentry::net::{self, OptionValue, RawAddress, Socket, SocketFile};
use sentry::parameters::SOMAXCONN;
use sentry::task::CurrentTask;
use sentry::vfs::File;

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SOCKET => socket;
    SOCKETPAIR => socketpair;
    BIND => bind;
    LISTEN => listen;
    ACCEPT => accept;
    ACCEPT4 => accept4;
    CONNECT => connect;
    GETSOCKNAME => getsockname;
    GETPEERNAME => getpeername;
    SHUTDOWN => shutdown;
    SETSOCKOPT => setsockopt;
    GETSOCKOPT => getsockopt;
};

/// The size of `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;

/// An address that a guest passes (move_addr_to_kernel()). EINVAL, EFAULT.
pub(crate) fn read_address(task: &CurrentTask, addr: Address, len: i32) -> Result<RawAddress> {
    let len = usize::try_from(len).ok().filter(|&len| len <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; ADDRESS_MAX];
    let bytes = &mut bytes[..len];
    if len > 0 {
        task.mm().read_bytes(addr.0, bytes)?;
    }
    Ok(RawAddress::from_slice(bytes))
}

/// Gives an address to a guest, as much of it as there is room for, and its full length (move_addr_to_user()).
pub(crate) fn write_address(
    task: &CurrentTask,
    value: &[u8],
    addr: Address,
    len: UserPtr<i32>,
) -> Result<()> {
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    let shown = value.get(..value.len().min(room)).unwrap_or_default();
    if !shown.is_empty() {
        task.mm().write_result(addr.0, shown)?;
    }
    len.write(task, &(value.len() as i32))
}

/// The open file of a socket. EBADF, ENOTSOCK.
pub(crate) fn socket_file(task: &CurrentTask, fd: i32) -> Result<Arc<File>> {
    let file = task.real_file(fd)?;
    of_file(&file)?;
    Ok(file)
}

/// The type and the flags of a new socket. EINVAL for others.
fn split_type(kind: i32) -> Result<(i32, SocketFlags)> {
    let flags = SocketFlags::from_bits(kind as u32 & !SOCK_TYPE_MASK).ok_or(Errno::EINVAL)?;
    Ok((kind & SOCK_TYPE_MASK as i32, flags))
}

fn open(task: &CurrentTask, socket: Arc<dyn Socket>, flags: SocketFlags) -> Arc<File> {
    let creds = task.credentials();
    let nonblocking = flags.contains(SocketFlags::SOCK_NONBLOCK);
    let open = if nonblocking { OpenFlags::O_NONBLOCK } else { OpenFlags::empty() };
    SocketFile::open(task.kernel(), socket, (creds.fsuid, creds.fsgid), open)
}

fn socket(task: &CurrentTask, domain: i32, kind: i32, protocol: i32) -> Result<i32> {
    let (kind, flags) = split_type(kind)?;
    let socket = net::create(task, domain, kind, protocol)?;
    task.install(open(task, socket, flags), flags.contains(SocketFlags::SOCK_CLOEXEC))
}

fn socketpair(
    task: &CurrentTask,
    domain: i32,
    kind: i32,
    protocol: i32,
    fds: UserPtr<[i32; 2]>,
) -> Result<()> {
    let (kind, flags) = split_type(kind)?;
    let (a, b) = net::create_pair(task, domain, kind, protocol)?;
    let cloexec = flags.contains(SocketFlags::SOCK_CLOEXEC);
    let first = task.install(open(task, a, flags), cloexec)?;
    let undo = |fd| {
        // It was installed just now.
        let _ = task.fds().remove(fd);
    };
    let second = task.install(open(task, b, flags), cloexec).inspect_err(|_| undo(first))?;
    fds.write(task, &[first, second]).inspect_err(|_| {
        undo(first);
        undo(second);
    })
}

fn bind(task: &CurrentTask, fd: i32, addr: Address, len: i32) -> Result<()> {
    let file = socket_file(task, fd)?;
    let addr = read_address(task, addr, len)?;
    of_file(&file)?.bind(task, &addr)
}

fn listen(task: &CurrentTask, fd: i32, backlog: i32) -> Result<()> {
    let file = socket_file(task, fd)?;
    let most = SOMAXCONN.get(&task.namespaces().net.parameters);
    let backlog = u32::try_from(most).unwrap_or(u32::MAX).min(backlog as u32);
    of_file(&file)?.listen(task, backlog)
}

fn accept(task: &CurrentTask, fd: i32, addr: Address, len: UserPtr<i32>) -> Result<i32> {
    accept4(task, fd, addr, len, 0)
}

fn accept4(task: &CurrentTask, fd: i32, addr: Address, len: UserPtr<i32>, flags: u32) -> Result<i32> {
    let flags = SocketFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let file = socket_file(task, fd)?;
    let socket = of_file(&file)?;
    // A connection must not be lost for want of a descriptor.
    task.fds().check_room(task.group.limits.current(RLIMIT_NOFILE))?;
    let io = file.io(Some(task));
    let deadline = if io.nonblocking { None } else { socket::receive_deadline(task, &file) };
    let accepted = task.block_on(&file, &io, PollEvents::READABLE, deadline, || socket.accept());
    let child = accepted.map_err(|e| interrupted(e, deadline))?;
    let new = open(task, child, flags);
    if addr.0 != 0 {
        let peer = of_file(&new)?.peer_address().map_err(|_| Errno::ECONNABORTED)?;
        write_address(task, &peer, addr, len)?;
    }
    task.install(new, flags.contains(SocketFlags::SOCK_CLOEXEC))
}

/// A wait with a timeout is not repeated after a signal (sock_intr_errno()).
pub(crate) fn interrupted(error: Errno, deadline: Option<u64>) -> Errno {
    if error == Errno::ERESTARTSYS && deadline.is_some() { Errno::EINTR } else { error }
}

fn connect(task: &CurrentTask, fd: i32, addr: Address, len: i32) -> Result<()> {
    let file = task.real_file(fd)?;
    let addr = read_address(task, addr, len)?;
    let socket = of_file(&file)?;
    let result = socket.connect(task, &addr);
    if file.nonblocking() {
        return result;
    }
    let deadline = socket::send_deadline(task, &file);
    let queues = [(&socket.common().queue, PollEvents::all())];
    match result {
        Err(Errno::EAGAIN) => {
            let ready = || match socket.connect(task, &addr) {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            };
            match task.wait_until(&queues, deadline, ready) {
                Ok(result) => result,
                Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
                Err(e) => Err(interrupted(e, deadline)),
            }
        }
        Err(error @ (Errno::EINPROGRESS | Errno::EALREADY)) => {
            match task.wait_until(&queues, deadline, || socket.connected()) {
                Ok(result) => result,
                Err(Errno::ETIMEDOUT) => Err(error),
                Err(e) => Err(interrupted(e, deadline)),
            }
        }
        result => result,
    }
}

fn getsockname(task: &CurrentTask, fd: i32, addr: Address, len: UserPtr<i32>) -> Result<()> {
    let file = socket_file(task, fd)?;
    write_address(task, &of_file(&file)?.local_address()?, addr, len)
}

fn getpeername(task: &CurrentTask, fd: i32, addr: Address, len: UserPtr<i32>) -> Result<()> {
    let file = socket_file(task, fd)?;
    write_address(task, &of_file(&file)?.peer_address()?, addr, len)
}

fn shutdown(task: &CurrentTask, fd: i32, how: u32) -> Result<()> {
    let file = socket_file(task, fd)?;
    if how > SHUT_RDWR { Err(Errno::EINVAL) } else { of_file(&file)?.shutdown(how) }
}

fn setsockopt(task: &CurrentTask, fd: i32, level: i32, name: i32, value: Address, len: i32) -> Result<()> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = socket_file(task, fd)?;
    let mut bytes = [0; net::options::VALUE_MAX];
    let bytes = &mut bytes[..len.min(net::options::VALUE_MAX)];
    if !bytes.is_empty() {
        task.mm().read_bytes(value.0, bytes)?;
    }
    socket::set_option(task, of_file(&file)?, level, name, bytes)
}

fn getsockopt(
    task: &CurrentTask,
    fd: i32,
    level: i32,
    name: i32,
    value: Address,
    len: UserPtr<i32>,
) -> Result<()> {
    let file = socket_file(task, fd)?;
    let socket = of_file(&file)?;
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    if (level, name) == (SOL_SOCKET, SO_PEERPIDFD) {
        return peer_pidfd(task, &**socket, value, room, len);
    }
    match socket::option(task, socket, level, name, room)? {
        OptionValue::Bytes(bytes) => {
            let shown = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            if !shown.is_empty() {
                task.mm().write_result(value.0, shown)?;
            }
            len.write(task, &(shown.len() as i32))
        }
        OptionValue::Needs(count) => {
            len.write(task, &(count as i32))?;
            Err(Errno::ERANGE)
        }
    }
}

fn peer_pidfd(
    task: &CurrentTask,
    socket: &dyn Socket,
    value: Address,
    room: usize,
    len: UserPtr<i32>,
) -> Result<()> {
    let peer = socket.peer_identity().ok_or(Errno::ENODATA)?;
    let fd = task.install(sentry::fs::pidfd::open(task.kernel(), &peer.pid, false), true)?;
    let bytes = fd.to_ne_bytes();
    let shown = bytes.get(..room.min(bytes.len())).unwrap_or_default();
    let written =
        task.mm().write_result(value.0, shown).and_then(|()| len.write(task, &(shown.len() as i32)));
    written.inspect_err(|_| {
        // It was installed just now.
        let _ = task.fds().remove(fd);
    })
}
