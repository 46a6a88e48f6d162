//! The socket over which `runsc` hands out the master side of a new terminal.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A listening socket in a directory of its own: a bundle's path may be longer than a socket's address.
pub struct ConsoleSocket {
    listener: UnixListener,
    directory: tempfile::TempDir,
}

const NAME: &str = "console.sock";

impl ConsoleSocket {
    /// Listens.
    pub fn new() -> Result<ConsoleSocket> {
        let directory = tempfile::Builder::new()
            .prefix("runsc-pty-")
            .tempdir()
            .context("a directory for the console socket")?;
        let listener = UnixListener::bind(directory.path().join(NAME)).context("the console socket")?;
        listener.set_nonblocking(true)?;
        Ok(ConsoleSocket { listener, directory })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    /// The terminal that was sent. The sender has already returned: this does not wait.
    pub fn receive(self) -> Result<File> {
        let (stream, _) = self.listener.accept().context("no terminal was sent")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 256];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .context("receiving the terminal")?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(fd) = fds.next()
            {
                return Ok(fd.into());
            }
        }
        bail!("a message without a terminal")
    }
}

impl AsRef<Path> for ConsoleSocket {
    fn as_ref(&self) -> &Path {
        self.directory.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_comes_through() {
        let console = ConsoleSocket::new().unwrap();
        let directory = console.as_ref().to_owned();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"it").unwrap();
        let stream = UnixStream::connect(console.path()).unwrap();
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&stream, &[IoSlice::new(b"pty")], &mut control, SendFlags::empty()).unwrap();
        let mut received = console.receive().unwrap();
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "it");
        assert!(!directory.exists());
    }

    #[test]
    fn nothing_sent_is_an_error_at_once() {
        assert!(ConsoleSocket::new().unwrap().receive().is_err());
        let console = ConsoleSocket::new().unwrap();
        let mut stream = UnixStream::connect(console.path()).unwrap();
        stream.write_all(b"pty").unwrap();
        assert!(console.receive().is_err());
    }
}
