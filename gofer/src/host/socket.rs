//! Messages with descriptors on Unix sockets.

use super::{check, new_descriptor};
use abi::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

const DESCRIPTOR: usize = size_of::<RawFd>();

/// Room for a control message with one descriptor.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 24],
}

/// What one packet brought.
pub struct Received {
    /// Length of the data; 0 at the end of the connection.
    pub len: usize,
    /// True if the packet or its descriptors did not fit.
    pub truncated: bool,
    /// The descriptor that came along.
    pub descriptor: Option<OwnedFd>,
}

/// A connected pair of SOCK_SEQPACKET sockets, closed on exec.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Makes a send buffer at least `size` bytes large, as far as the host allows.
pub fn grow_send_buffer(socket: &OwnedFd, size: usize) -> Result<(), Errno> {
    use nix::sys::socket::{getsockopt, setsockopt, sockopt::SndBuf};
    if getsockopt(socket, SndBuf)? < 2 * size {
        setsockopt(socket, SndBuf, &size)?;
    }
    Ok(())
}

/// Ends each wait of a socket's owner in sending and receiving after `limit`, with EAGAIN.
pub fn limit_waits(socket: &OwnedFd, limit: std::time::Duration) -> Result<(), Errno> {
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike};
    let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    setsockopt(socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(socket, sockopt::SendTimeout, &limit)?;
    Ok(())
}

/// Sends one packet, with a descriptor if there is one. EPIPE if the other end is gone; never SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, data: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut control = Control { bytes: [0; 24] };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        let len = size_of::<libc::cmsghdr>() + DESCRIPTOR;
        control.header =
            libc::cmsghdr { cmsg_len: len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        // SAFETY: the union has 24 bytes: the header's 16 and the descriptor's 4.
        unsafe {
            let at = (&raw mut control).cast::<u8>().add(size_of::<libc::cmsghdr>());
            at.cast::<RawFd>().write_unaligned(descriptor.as_raw_fd());
        }
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = len;
    }
    loop {
        // SAFETY: `message` points to `part` and `control`, both alive; sendmsg only reads what they describe.
        let sent = check(
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as i64,
        );
        match sent {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one packet. Descriptors that come along are discarded by the kernel.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_message(socket, buffer, None)
}

/// Receives one packet and at most one descriptor, closed on exec.
pub fn receive_with_descriptor(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_message(socket, buffer, Some(&mut Control { bytes: [0; 24] }))
}

fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut control: Option<&mut Control>,
) -> Result<Received, Errno> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let len = loop {
        if let Some(control) = control.as_deref_mut() {
            message.msg_control = ptr::from_mut(control).cast();
            // Without the alignment at the end, in which a second descriptor would fit.
            message.msg_controllen = size_of::<libc::cmsghdr>() + DESCRIPTOR;
        }
        // SAFETY: `message` points to `part`, which describes `buffer`, and to `control`; both are writable and alive.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(got as i64) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(len) => break len,
        }
    };
    let descriptor = match control {
        Some(control) if message.msg_controllen >= size_of::<libc::cmsghdr>() + DESCRIPTOR => {
            // SAFETY: the kernel has written a control message at the start of the union.
            let header = unsafe { control.header };
            if header.cmsg_level == libc::SOL_SOCKET
                && header.cmsg_type == libc::SCM_RIGHTS
                && header.cmsg_len == size_of::<libc::cmsghdr>() + DESCRIPTOR
            {
                // SAFETY: the descriptor follows the header, within the union's 24 bytes.
                let fd = unsafe {
                    let at = ptr::from_mut(control).cast::<u8>().add(size_of::<libc::cmsghdr>());
                    at.cast::<RawFd>().read_unaligned()
                };
                // SAFETY: the kernel has just installed this descriptor for us; nothing else knows its number.
                Some(unsafe { OwnedFd::from_raw_fd(fd) })
            } else {
                None
            }
        }
        _ => None,
    };
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received { len, truncated, descriptor })
}

/// A new non-blocking Unix socket of type `kind`, connected to the socket at `path`, of at most 107 bytes.
pub fn connect_unix(kind: i32, path: &CStr) -> Result<OwnedFd, Errno> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let socket = new_descriptor(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }.into())?;
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = libc::AF_UNIX as u16;
    let bytes = path.to_bytes_with_nul();
    if bytes.len() > address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_un.
    check(unsafe { libc::connect(socket.as_fd().as_raw_fd(), (&raw const address).cast(), len) }.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_descriptor_is_passed_and_more_are_refused() {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        use std::io::IoSlice;
        let (a, b) = seqpacket_pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut buffer = [0; 16];

        send(a.as_fd(), b"with", Some(file.as_fd())).unwrap();
        let got = receive_with_descriptor(b.as_fd(), &mut buffer).unwrap();
        assert!(got.len == 4 && !got.truncated && got.descriptor.is_some());

        send(a.as_fd(), b"without", None).unwrap();
        let got = receive_with_descriptor(b.as_fd(), &mut buffer).unwrap();
        assert!(got.len == 7 && !got.truncated && got.descriptor.is_none());

        send(a.as_fd(), b"dropped", Some(file.as_fd())).unwrap();
        let got = receive(b.as_fd(), &mut buffer).unwrap();
        assert!(got.truncated && got.descriptor.is_none());

        let fds = [file.as_raw_fd(), file.as_raw_fd()];
        let many = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(a.as_raw_fd(), &[IoSlice::new(b"two")], &many, MsgFlags::empty(), None).unwrap();
        let got = receive_with_descriptor(b.as_fd(), &mut buffer).unwrap();
        assert!(got.truncated);

        send(a.as_fd(), &[0; 17], None).unwrap();
        assert!(receive(b.as_fd(), &mut buffer).unwrap().truncated);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().len, 0);
    }
}
