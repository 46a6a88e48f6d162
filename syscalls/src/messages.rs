//! Messages of sockets: send(2), recv(2) and their families (net/socket.c, net/core/scm.c).

use std::sync::Arc;

use abi::limits::IOV_MAX;
use abi::poll::PollEvents;
use abi::socket::{
    Cmsghdr, Mmsghdr, MsgFlags, Msghdr, SCM_CREDENTIALS, SCM_PIDFD, SCM_RIGHTS, SOL_SOCKET, cmsg_align,
};
use abi::time::Timespec;
use abi::{Errno, Result};
use sentry::mm::{UserSink, UserSource};
use sentry::net::options::visible_credentials;
use sentry::net::socket::{self, of_file};
use sentry::net::{ControlMessage, Incoming, Outgoing, RawAddress, Received};
use sentry::parameters::OPTMEM_MAX;
use sentry::task::CurrentTask;
use sentry::vfs::File;
use zerocopy::{FromBytes, IntoBytes};

use crate::arguments::{Address, UserPtr};
use crate::io::{RW_MAX, read_iovecs};
use crate::rows;
use crate::sockets::{interrupted, read_address, socket_file, write_address};
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SENDTO => sendto;
    RECVFROM => recvfrom;
    SENDMSG => sendmsg;
    RECVMSG => recvmsg;
    SENDMMSG => sendmmsg;
    RECVMMSG => recvmmsg;
};

/// The most control data that a message may have, whatever `net.core.optmem_max` says.
const CONTROL_MAX: usize = 131_072;

/// Sends, waiting as the flags say.
fn send(task: &CurrentTask, file: &Arc<File>, message: &mut Outgoing<'_>) -> Result<usize> {
    let socket = of_file(file)?;
    let mut io = file.io(Some(task));
    io.nonblocking |= message.flags.contains(MsgFlags::MSG_DONTWAIT);
    let deadline = if io.nonblocking { None } else { socket::send_deadline(task, file) };
    let result = task.block_on(file, &io, PollEvents::WRITABLE, deadline, || socket.send(message));
    match result {
        Err(_) if message.sent > 0 => Ok(message.sent),
        result => result.map_err(|e| interrupted(e, deadline)),
    }
}

/// Receives, waiting as the flags say.
fn receive(task: &CurrentTask, file: &Arc<File>, message: &mut Incoming<'_>) -> Result<usize> {
    let socket = of_file(file)?;
    let mut io = file.io(Some(task));
    let flags = message.flags;
    // Out-of-band data and errors are there or not.
    let at_once = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_OOB | MsgFlags::MSG_ERRQUEUE;
    io.nonblocking |= flags.intersects(at_once);
    message.nonblocking = io.nonblocking;
    let deadline = if io.nonblocking { None } else { socket::receive_deadline(task, file) };
    let result = task.block_on(file, &io, PollEvents::READABLE, deadline, || socket.receive(message));
    match result {
        Err(_) if message.copied > 0 => Ok(message.copied),
        result => result.map_err(|e| interrupted(e, deadline)),
    }
}

fn sendto(
    task: &CurrentTask,
    fd: i32,
    buf: Address,
    len: usize,
    flags: u32,
    addr: Address,
    addr_len: i32,
) -> Result<usize> {
    let mm = task.mm();
    let mut src = UserSource::buffer(&mm, buf.0, len.min(RW_MAX) as u64)?;
    let file = socket_file(task, fd)?;
    let to = if addr.0 == 0 { RawAddress::new() } else { read_address(task, addr, addr_len)? };
    let flags = MsgFlags::from_bits_retain(flags);
    let mut message = Outgoing::plain(Some(task), &mut src, flags);
    message.to = &to;
    send(task, &file, &mut message)
}

fn recvfrom(
    task: &CurrentTask,
    fd: i32,
    buf: Address,
    len: usize,
    flags: u32,
    addr: Address,
    addr_len: UserPtr<i32>,
) -> Result<usize> {
    let mm = task.mm();
    let mut dst = UserSink::buffer(&mm, buf.0, len.min(RW_MAX) as u64)?;
    let file = socket_file(task, fd)?;
    let mut message = Incoming::plain(Some(task), &mut dst, false);
    message.flags = MsgFlags::from_bits_retain(flags);
    message.wants_address = addr.0 != 0;
    let done = receive(task, &file, &mut message)?;
    if addr.0 != 0 {
        let from = message.address.take().unwrap_or_default();
        write_address(task, &from, addr, addr_len)?;
    }
    Ok(done)
}

/// `struct user_msghdr`, with the checks that come first. EFAULT, EINVAL, EMSGSIZE.
fn read_header(task: &CurrentTask, header: UserPtr<Msghdr>) -> Result<Msghdr> {
    let mut header = header.read(task)?;
    if header.msg_name == 0 {
        header.msg_namelen = 0;
    }
    if header.msg_namelen < 0 {
        return Err(Errno::EINVAL);
    }
    header.msg_namelen = header.msg_namelen.min(128);
    if header.msg_iovlen > IOV_MAX as u64 {
        return Err(Errno::EMSGSIZE);
    }
    Ok(header)
}

fn sendmsg(task: &CurrentTask, fd: i32, header: UserPtr<Msghdr>, flags: u32) -> Result<usize> {
    if flags & MsgFlags::MSG_CMSG_COMPAT.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let file = socket_file(task, fd)?;
    send_one(task, &file, header, flags)
}

fn send_one(task: &CurrentTask, file: &Arc<File>, header: UserPtr<Msghdr>, flags: u32) -> Result<usize> {
    let header = read_header(task, header)?;
    let to = match header.msg_namelen {
        0 => RawAddress::new(),
        len => read_address(task, Address(header.msg_name), len)?,
    };
    let segments = read_iovecs(task, UserPtr::new(header.msg_iov), header.msg_iovlen as usize)?;
    let control = read_control(task, header.msg_control, header.msg_controllen)?;
    let mm = task.mm();
    let mut src = UserSource::new(&mm, segments)?;
    let flags = MsgFlags::from_bits_retain(flags);
    let mut message = Outgoing::plain(Some(task), &mut src, flags);
    (message.to, message.control) = (&to, &control);
    send(task, file, &mut message)
}

/// Control messages. ENOBUFS if they are too long, EINVAL if a length lies.
fn read_control(task: &CurrentTask, addr: u64, len: u64) -> Result<Vec<ControlMessage>> {
    if addr == 0 || len == 0 {
        return Ok(Vec::new());
    }
    let max =
        usize::try_from(OPTMEM_MAX.get(&task.namespaces().net.parameters)).unwrap_or(0).min(CONTROL_MAX);
    let len = usize::try_from(len).ok().filter(|&len| len <= max).ok_or(Errno::ENOBUFS)?;
    let mut bytes = vec![0; len];
    task.mm().read_bytes(addr, &mut bytes)?;
    parse_control(&bytes)
}

fn parse_control(bytes: &[u8]) -> Result<Vec<ControlMessage>> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Ok((header, after)) = Cmsghdr::read_from_prefix(rest) {
        let len = usize::try_from(header.cmsg_len).map_err(|_| Errno::EINVAL)?;
        let data = len.checked_sub(size_of::<Cmsghdr>()).and_then(|len| after.get(..len));
        let data = data.ok_or(Errno::EINVAL)?.to_vec();
        messages.push(ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, data });
        rest = rest.get(cmsg_align(len)..).unwrap_or_default();
    }
    Ok(messages)
}

fn recvmsg(task: &CurrentTask, fd: i32, header: UserPtr<Msghdr>, flags: u32) -> Result<usize> {
    if flags & MsgFlags::MSG_CMSG_COMPAT.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let file = socket_file(task, fd)?;
    receive_one(task, &file, header, flags).map(|(done, _)| done)
}

/// Receives a message; returns its length and `msg_flags`.
fn receive_one(
    task: &CurrentTask,
    file: &Arc<File>,
    pointer: UserPtr<Msghdr>,
    flags: u32,
) -> Result<(usize, MsgFlags)> {
    let header = read_header(task, pointer)?;
    let segments = read_iovecs(task, UserPtr::new(header.msg_iov), header.msg_iovlen as usize)?;
    let mm = task.mm();
    let mut dst = UserSink::new(&mm, segments)?;
    let flags = MsgFlags::from_bits_retain(flags);
    let mut message = Incoming::plain(Some(task), &mut dst, false);
    message.flags = flags;
    message.wants_address = header.msg_name != 0;
    let done = receive(task, file, &mut message)?;
    let room = usize::try_from(header.msg_controllen).unwrap_or(usize::MAX).min(CONTROL_MAX);
    let room = if header.msg_control == 0 { 0 } else { room };
    let control = std::mem::take(&mut message.control);
    let cloexec = flags.contains(MsgFlags::MSG_CMSG_CLOEXEC);
    let mut writer = ControlWriter { bytes: Vec::new(), room, truncated: false };
    for part in in_order(control) {
        writer.put(task, part, cloexec);
    }
    let mut out_flags = message.out_flags | flags & MsgFlags::MSG_CMSG_CLOEXEC;
    out_flags.set(MsgFlags::MSG_CTRUNC, writer.truncated);
    let from = message.address.take().unwrap_or_default();
    // Name, length of the name, control data, flags: in one go.
    let mut result = header;
    result.msg_flags = out_flags.bits();
    result.msg_controllen = writer.bytes.len() as u64;
    let shown = from.get(..from.len().min(header.msg_namelen as usize)).unwrap_or_default();
    if header.msg_name != 0 {
        result.msg_namelen = from.len() as i32;
    }
    let namelen = result.msg_namelen.to_ne_bytes();
    let mut pieces: smallvec::SmallVec<[(u64, &[u8]); 4]> = smallvec::SmallVec::new();
    if !shown.is_empty() {
        pieces.push((header.msg_name, shown));
    }
    if !writer.bytes.is_empty() {
        pieces.push((header.msg_control, &writer.bytes));
    }
    if header.msg_name != 0 {
        pieces.push((pointer.addr + std::mem::offset_of!(Msghdr, msg_namelen) as u64, &namelen));
    }
    // `msg_controllen` and `msg_flags` are behind each other.
    let tail = result.as_bytes().get(std::mem::offset_of!(Msghdr, msg_controllen)..).unwrap_or_default();
    let tail = tail.get(..12).unwrap_or_default();
    pieces.push((pointer.addr + std::mem::offset_of!(Msghdr, msg_controllen) as u64, tail));
    mm.write_batch(&pieces)?;
    Ok((done, out_flags))
}

/// As Linux delivers them: what the network layer has to say, the sender, files, the sender's pidfd.
fn in_order(control: smallvec::SmallVec<[Received; 1]>) -> Vec<Received> {
    let mut control: Vec<Received> = control.into_iter().collect();
    control.sort_by_key(|part| match part {
        Received::Data(_) => 0,
        Received::Credentials(_) => 1,
        Received::Rights(_) => 2,
        Received::PidFd(_) => 3,
    });
    control
}

/// Control data on its way to the guest.
struct ControlWriter {
    bytes: Vec<u8>,
    room: usize,
    truncated: bool,
}

impl ControlWriter {
    fn left(&self) -> usize {
        self.room - self.bytes.len()
    }

    /// put_cmsg()
    fn message(&mut self, level: i32, kind: i32, data: &[u8]) {
        const HEADER: usize = size_of::<Cmsghdr>();
        let left = self.left();
        if left < HEADER {
            self.truncated = true;
            return;
        }
        let shown = data.get(..data.len().min(left - HEADER)).unwrap_or_default();
        self.truncated |= shown.len() < data.len();
        let header = Cmsghdr { cmsg_len: (HEADER + shown.len()) as u64, cmsg_level: level, cmsg_type: kind };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(shown);
        let end = (start + cmsg_align(HEADER + shown.len())).min(self.room);
        self.bytes.resize(end, 0);
    }

    fn put(&mut self, task: &CurrentTask, part: Received, cloexec: bool) {
        match part {
            Received::Data(ControlMessage { level, kind, data }) => self.message(level, kind, &data),
            Received::Credentials(creds) => {
                let visible = visible_credentials(task, &creds);
                self.message(SOL_SOCKET, SCM_CREDENTIALS, visible.as_bytes());
            }
            Received::Rights(rights) => {
                let room = self.left().saturating_sub(size_of::<Cmsghdr>()) / size_of::<i32>();
                let mut fds = Vec::new();
                for file in rights.files().iter().take(room) {
                    match task.install(file.clone(), cloexec) {
                        Ok(fd) => fds.push(fd),
                        Err(_) => break,
                    }
                }
                self.truncated |= fds.len() < rights.files().len();
                if !fds.is_empty() {
                    self.message(SOL_SOCKET, SCM_RIGHTS, fds.as_bytes());
                }
            }
            Received::PidFd(pid) => {
                if self.left() < size_of::<Cmsghdr>() + size_of::<i32>() {
                    self.truncated = true;
                    return;
                }
                let file = sentry::fs::pidfd::open(task.kernel(), &pid, false);
                let fd = task.install(file, cloexec).unwrap_or_else(|e| -e.raw());
                self.message(SOL_SOCKET, SCM_PIDFD, &fd.to_ne_bytes());
            }
        }
    }
}

fn sendmmsg(task: &CurrentTask, fd: i32, vector: UserPtr<Mmsghdr>, count: u32, flags: u32) -> Result<usize> {
    if flags & MsgFlags::MSG_CMSG_COMPAT.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let file = socket_file(task, fd)?;
    let mut done = 0;
    while done < (count as usize).min(IOV_MAX) {
        let entry = vector.at(done)?;
        let sent = send_one(task, &file, UserPtr::new(entry.addr), flags)
            .and_then(|sent| write_length(task, entry, sent));
        match sent {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn write_length(task: &CurrentTask, entry: UserPtr<Mmsghdr>, len: usize) -> Result<()> {
    let offset = std::mem::offset_of!(Mmsghdr, msg_len) as u64;
    task.mm().write_object(entry.addr + offset, &(len as u32))
}

fn recvmmsg(
    task: &CurrentTask,
    fd: i32,
    vector: UserPtr<Mmsghdr>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize> {
    if flags & MsgFlags::MSG_CMSG_COMPAT.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let clock = &task.kernel().clock;
    let deadline = match timeout.non_null() {
        None => None,
        Some(pointer) => {
            let time = pointer.read(task)?;
            if time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec) {
                return Err(Errno::EINVAL);
            }
            let nanos =
                (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64);
            Some(clock.monotonic().saturating_add(nanos))
        }
    };
    let file = socket_file(task, fd)?;
    of_file(&file)?.common().take_error()?;
    let mut flags = MsgFlags::from_bits_retain(flags);
    let mut done = 0;
    while done < (count as usize).min(IOV_MAX) {
        let entry = vector.at(done)?;
        let wanted = flags - MsgFlags::MSG_WAITFORONE;
        let received = receive_one(task, &file, UserPtr::new(entry.addr), wanted.bits());
        let received = received.and_then(|(len, f)| write_length(task, entry, len).map(|()| f));
        match received {
            Ok(out) => {
                done += 1;
                if flags.contains(MsgFlags::MSG_WAITFORONE) {
                    flags |= MsgFlags::MSG_DONTWAIT;
                }
                let late = deadline.is_some_and(|deadline| clock.monotonic() >= deadline);
                if late || out.contains(MsgFlags::MSG_OOB) {
                    break;
                }
            }
            Err(e) if done > 0 => {
                // The messages count; the error is for the next call.
                if e != Errno::EAGAIN && !e.is_restart() {
                    of_file(&file)?.common().set_error(e);
                }
                break;
            }
            Err(e) => return Err(e),
        }
    }
    if let (Some(pointer), Some(deadline)) = (timeout.non_null(), deadline) {
        let left = deadline.saturating_sub(clock.monotonic());
        let left = Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
        pointer.write(task, &left)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u64, data: &[u8]) -> Vec<u8> {
        let header = Cmsghdr { cmsg_len: len, cmsg_level: 1, cmsg_type: 2 };
        [header.as_bytes(), data].concat()
    }

    #[test]
    fn control_messages_are_found_by_their_lengths() {
        let mut bytes = message(17, &[9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(message(24, &[1; 8]));
        let found = parse_control(&bytes).unwrap();
        assert_eq!(found.iter().map(|m| m.data.len()).collect::<Vec<_>>(), [1, 8]);
        // What follows the last message is too short to be one.
        bytes.extend([0; 15]);
        assert_eq!(parse_control(&bytes).unwrap().len(), 2);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for len in [0, 15, 25, u64::MAX, i64::MAX as u64] {
            assert_eq!(parse_control(&message(len, &[0; 8])).unwrap_err(), Errno::EINVAL, "length {len}");
        }
    }

    #[test]
    fn control_data_is_cut_to_the_room() {
        let mut writer = ControlWriter { bytes: Vec::new(), room: 30, truncated: false };
        writer.message(1, 2, &[1; 4]);
        assert_eq!((writer.bytes.len(), writer.truncated), (24, false));
        writer.message(1, 2, &[1; 4]);
        assert_eq!((writer.bytes.len(), writer.truncated), (24, true));
        let mut writer = ControlWriter { bytes: Vec::new(), room: 18, truncated: false };
        writer.message(1, 2, &[1; 4]);
        assert_eq!((writer.bytes.len(), writer.bytes[0], writer.truncated), (18, 18, true));
    }
}
