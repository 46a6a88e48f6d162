//! Messages with file descriptors between processes of one sandbox: JSON in one packet of a Unix SOCK_SEQPACKET
//! socket, descriptors beside it (SCM_RIGHTS). What is too big for a packet travels in a memfd of its own.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest text that goes into a packet, in bytes; well below the default send buffer.
const PACKET: usize = 32 << 10;
/// The largest message accepted, in bytes.
const LIMIT: u64 = 16 << 20;
/// The largest number of descriptors beside a message, the memfd of a big one included.
const MAX_FDS: usize = 16;
/// First byte of a packet: the text follows, or is in the last descriptor.
const INLINE: u8 = b'I';
const IN_MEMFD: u8 = b'M';

/// A memfd that holds `text` and can never change.
pub fn sealed_memfd(name: &std::ffi::CStr, text: &[u8]) -> Result<OwnedFd> {
    let fd =
        memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).context("memfd_create")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text).context("writing a memfd")?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("fcntl(F_ADD_SEALS)")?;
    Ok(file.into())
}

/// All of what [`sealed_memfd`] wrote.
pub fn read_memfd(fd: OwnedFd) -> Result<Vec<u8>> {
    use std::io::Seek;
    let mut file = std::fs::File::from(fd);
    file.rewind().context("lseek on a memfd")?;
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).context("reading a memfd")?;
    Ok(text)
}

/// Sends one message.
pub fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut packet = vec![INLINE];
    serde_json::to_writer(&mut packet, message)?;
    let mut raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let memfd;
    if packet.len() > PACKET {
        memfd = sealed_memfd(c"message", &packet[1..])?;
        packet = vec![IN_MEMFD];
        raw.push(memfd.as_raw_fd());
    }
    if raw.len() > MAX_FDS {
        bail!("more than {MAX_FDS} file descriptors in one message");
    }
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(&packet)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => continue,
            result => return result.map(drop).context("sendmsg"),
        }
    }
}

/// Receives one message; None at the end of the connection.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut packet = vec![0u8; PACKET + 1];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut fds = Vec::new();
    let received = {
        let mut parts = [IoSliceMut::new(&mut packet)];
        let message = loop {
            match recvmsg::<UnixAddr>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => return Ok(None),
                result => break result.context("recvmsg")?,
            }
        };
        for part in message.cmsgs().context("recvmsg")? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just made these descriptors for us.
                fds.extend(raw.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            bail!("a message was cut off");
        }
        message.bytes
    };
    let text = match packet.get(..received).and_then(<[u8]>::split_first) {
        None => return Ok(None),
        Some((&INLINE, text)) => text.to_vec(),
        Some((&IN_MEMFD, _)) => read_memfd(fds.pop().context("a big message without its memfd")?)?,
        Some(_) => bail!("a packet that is no message"),
    };
    let message = serde_json::from_slice(&text).context("a message that cannot be understood")?;
    Ok(Some((message, fds)))
}

/// Borrows each of `fds`.
pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn messages_of_any_size_arrive_with_their_descriptors() {
        let (left, right) = pair();
        let file = sealed_memfd(c"test", b"contents").unwrap();
        for size in [0, 100, PACKET - 10, PACKET, 3 << 20] {
            let text = "x".repeat(size);
            send(left.as_fd(), &text, &[file.as_fd()]).unwrap();
            let (got, mut fds) = receive::<String>(right.as_fd()).unwrap().unwrap();
            assert_eq!(got, text);
            assert_eq!(fds.len(), 1);
            assert_eq!(read_memfd(fds.remove(0)).unwrap(), b"contents");
        }
        drop(left);
        assert!(receive::<String>(right.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_sealed_memfd_cannot_be_written() {
        let fd = sealed_memfd(c"test", b"contents").unwrap();
        assert_eq!(nix::unistd::write(&fd, b"x"), Err(Errno::EPERM));
    }
}
