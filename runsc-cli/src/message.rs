//! What processes of one sandbox hand each other beside file descriptors: configurations in sealed memfds, and packets
//! of a Unix SOCK_SEQPACKET socket with descriptors beside them (SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, UnixAddr, accept4, recvmsg, sendmsg,
};

/// The largest configuration accepted, in bytes.
const LIMIT: u64 = 16 << 20;
/// The largest number of descriptors beside a packet.
const MAX_FDS: usize = 32;

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

/// Sends one packet with descriptors beside it.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if fds.len() > MAX_FDS {
        bail!("more than {MAX_FDS} file descriptors in one packet");
    }
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(packet)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => continue,
            result => return result.map(drop).context("sendmsg"),
        }
    }
}

/// Receives one packet of at most `limit` bytes, and what lies beside it; empty at the end of the connection.
pub fn receive(socket: BorrowedFd<'_>, limit: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0u8; limit];
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
            bail!("a packet was cut off");
        }
        message.bytes
    };
    packet.truncate(received);
    Ok((packet, fds))
}

/// Accepts a connection, which does not block.
pub fn accept(listening: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listening.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn packets_arrive_with_their_descriptors() {
        use nix::sys::socket::{AddressFamily, SockType, socketpair};
        let (left, right) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let file = sealed_memfd(c"test", b"contents").unwrap();
        send(left.as_fd(), b"text", &[file.as_fd()]).unwrap();
        let (got, mut fds) = receive(right.as_fd(), 16).unwrap();
        assert_eq!((got.as_slice(), fds.len()), (&b"text"[..], 1));
        assert_eq!(read_memfd(fds.remove(0)).unwrap(), b"contents");
        send(left.as_fd(), b"too long", &[]).unwrap();
        assert!(receive(right.as_fd(), 4).is_err());
        assert!(send(left.as_fd(), b"", &[file.as_fd(); MAX_FDS + 1]).is_err());
        drop(left);
        assert!(receive(right.as_fd(), 16).unwrap().0.is_empty());
    }

    #[test]
    fn a_sealed_memfd_cannot_be_written() {
        let fd = sealed_memfd(c"test", b"contents").unwrap();
        assert_eq!(nix::unistd::write(&fd, b"x"), Err(Errno::EPERM));
    }
}
