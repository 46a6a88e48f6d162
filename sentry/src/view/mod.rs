//! The files of a container for the host to see: the server of a FUSE filesystem that shows a mount namespace.
//!
//! Podman enters the mount namespace of a container's process on the host to list processes and to copy files. What it
//! finds mounted there asks this server, which answers from the VFS as root of the container would see it: with all of
//! its mounts, and with proc. Names are walked by the host's kernel, which asks for one component at a time and follows
//! symbolic links below the root of that namespace: no request can name anything but an inode that was found before and
//! a name in it.
//!
//! Nothing is cached by the host's kernel, so that it sees at once what guests do; and what it does not use it forgets,
//! so that a file that a guest has removed is gone. Fifos, sockets and devices have attributes only: the host's kernel
//! does not ask to open them. Requests are served in turn, by a thread that sleeps while there are none, and none of
//! them waits for a guest: a read that would is EAGAIN. Each may wait for the gofer, as those of guests do.
//!
//! | file | subject |
//! |---|---|
//! | `mod` | requests and answers |
//! | `calls` | what requests do |
//! | `nodes` | inodes and open files that the host's kernel refers to |

mod calls;
mod nodes;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::fuse::{
    FUSE_BATCH_FORGET, FUSE_BIG_WRITES, FUSE_DESTROY, FUSE_FORGET, FUSE_INIT, FUSE_INTERRUPT,
    FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, FuseBatchForgetIn, FuseForgetIn, FuseForgetOne,
    FuseInHeader, FuseInitIn, FuseInitOut, FuseOutHeader,
};
use abi::{Errno, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::task::credentials::IdMap;
use crate::task::{Credentials, UserNamespace};
use crate::vfs::MountNamespace;
use nodes::Nodes;

/// The longest write, and the longest read.
const MAX_DATA: usize = 128 * 1024;
/// A request with it: headers, and names that it may have instead.
const MAX_REQUEST: usize = MAX_DATA + 4096;

/// The server.
pub struct View {
    namespace: Arc<MountNamespace>,
    /// Root's of the host, whose ids are those that the files of the sandbox's user namespace really have.
    credentials: Credentials,
    nodes: Nodes,
}

/// Takes a structure off the start of a request.
fn take<T: FromBytes + Immutable + KnownLayout>(body: &mut &[u8]) -> Result<T> {
    let (value, rest) = T::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    *body = rest;
    Ok(value)
}

/// Takes a name with its terminating zero byte.
fn take_name<'a>(body: &mut &'a [u8]) -> Result<&'a [u8]> {
    let end = body.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
    let (name, rest) = body.split_at(end);
    *body = rest.get(1..).unwrap_or_default();
    Ok(name)
}

/// Adds a structure to an answer.
fn put<T: IntoBytes + Immutable>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(value.as_bytes());
}

impl View {
    /// Of this namespace.
    pub fn new(namespace: Arc<MountNamespace>) -> View {
        let credentials = Credentials::root(UserNamespace::initial((IdMap::identity(), IdMap::identity())));
        View { namespace, credentials, nodes: Nodes::default() }
    }

    /// Answers requests until the filesystem is gone. `device` is the `/dev/fuse` that it was mounted with.
    pub fn serve(mut self, device: OwnedFd) -> std::io::Result<()> {
        let device = File::from(device);
        let mut request = vec![0; MAX_REQUEST];
        let mut out = Vec::new();
        loop {
            let length = match (&device).read(&mut request) {
                Ok(length) => length,
                Err(error) => match (error.kind(), error.raw_os_error()) {
                    // ENOENT: whoever asked did not wait until it was read.
                    (ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::NotFound, _) => continue,
                    (_, Some(errno)) if errno == Errno::ENODEV.raw() => return Ok(()),
                    _ => return Err(error),
                },
            };
            let request = request.get(..length).unwrap_or_default();
            if !self.answer(request, &mut out) {
                continue;
            }
            if let Err(error) = (&device).write(&out) {
                // Nobody waits for it any more, and nobody will forget or close what it speaks of.
                self.nodes.undo();
                if error.kind() != ErrorKind::NotFound {
                    tracing::debug!("answering the host's kernel: {error}");
                }
            }
        }
    }

    /// Answers one request. False if it wants no answer.
    fn answer(&mut self, request: &[u8], out: &mut Vec<u8>) -> bool {
        let mut body = request;
        out.clear();
        let Ok(header) = take::<FuseInHeader>(&mut body) else { return false };
        match header.opcode {
            FUSE_FORGET | FUSE_BATCH_FORGET => {
                // What is left of a request that is too short is not to be had.
                let _ = self.forget(&header, body);
                return false;
            }
            FUSE_INTERRUPT | FUSE_DESTROY => return false,
            _ => {}
        }
        put(out, &FuseOutHeader::default());
        self.nodes.begin();
        let result = match header.opcode {
            FUSE_INIT => init(body, out),
            _ => self.call(&header, body, out),
        };
        let mut answer = FuseOutHeader { unique: header.unique, ..FuseOutHeader::default() };
        if let Err(errno) = result {
            out.truncate(size_of::<FuseOutHeader>());
            // What a guest would see after a restart is nothing that the host's kernel takes.
            answer.error = -if errno.is_restart() { Errno::EINTR } else { errno }.raw();
        }
        answer.len = out.len() as u32;
        // It has room: the header was put first.
        let _ = answer.write_to_prefix(out);
        true
    }

    fn forget(&mut self, header: &FuseInHeader, mut body: &[u8]) -> Result<()> {
        if header.opcode == FUSE_FORGET {
            let forget: FuseForgetIn = take(&mut body)?;
            self.nodes.forget(header.nodeid, forget.nlookup);
            return Ok(());
        }
        let batch: FuseBatchForgetIn = take(&mut body)?;
        for _ in 0..batch.count {
            let one: FuseForgetOne = take(&mut body)?;
            self.nodes.forget(one.nodeid, one.nlookup);
        }
        Ok(())
    }
}

/// FUSE_INIT. A kernel of another major version is told ours, and asks again.
fn init(mut body: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let init: FuseInitIn = take(&mut body)?;
    if init.major < FUSE_KERNEL_VERSION {
        return Err(Errno::EPROTO);
    }
    put(
        out,
        &FuseInitOut {
            major: FUSE_KERNEL_VERSION,
            minor: FUSE_KERNEL_MINOR_VERSION,
            max_readahead: init.max_readahead,
            flags: init.flags & FUSE_BIG_WRITES,
            max_write: MAX_DATA as u32,
            time_gran: 1,
            ..FuseInitOut::default()
        },
    );
    Ok(())
}
