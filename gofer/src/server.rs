//! The server: carries out the requests of one sentry on the mounts it was given.
//!
//! **What can be named.** A node is an `O_PATH` descriptor. A name is looked up below a directory's descriptor, one
//! component at a time: openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`, or, on
//! kernels before 5.6, openat(2) with `O_NOFOLLOW`, which for a single component that is not `..` comes to the same.
//! So a rename on the host can change what a name means but not lead out of the mount.
//!
//! **How a node is used.** Where a call wants a path or another kind of descriptor, it gets the node's entry in
//! `/proc/self/fd`: this link leads to the inode itself, wherever that has been moved in the meantime. A confined gofer
//! has that directory, and nothing else of /proc, as its working directory (see [`crate::confine`]), so that it works
//! in an empty root.
//!
//! **Who owns a new inode.** It is created under the caller's ids (setfsuid(2), setfsgid(2)), so it never has another
//! owner, not even for a moment, and no later chown(2) can hit something else. This needs CAP_SETUID, CAP_SETGID and,
//! lest the superuser's other file capabilities be suspended meanwhile, `SECBIT_NO_SETUID_FIXUP`. In a user namespace,
//! an id that is not mapped is EOVERFLOW, as in Linux. Without those capabilities (an ordinary user and no user
//! namespace) no other owner can be expressed: everything belongs to that user, as on a filesystem mounted with
//! `uid=`, and chown(2) is EPERM.
//!
//! The requests come from a sentry that may have been taken over. Nothing here indexes, multiplies or allocates
//! unchecked, and nodes are bounded in number.

mod directory;
mod inode;
mod nodes;
mod owner;
mod paths;
mod xattr;

use crate::host;
use crate::protocol::{
    Attach, AttachReply, Attributes, Entry, FileKind, MAX_FORGETS, MAX_MESSAGE, MAX_WALK, Malformed, Message,
    Node, NodeId, Operation, Parts, ReplyHeader, RequestHeader, Timestamp, VERSION, Walk, WalkReply,
    check_name,
};
use abi::{Errno, Result};
use directory::Streams;
use nodes::{Held, Nodes};
use owner::Owner;
use paths::Paths;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use crate::protocol::MountFlags;

/// How many nodes a server holds at most, if the limit on open files allows.
pub const MAX_NODES: usize = 1 << 16;

/// Something to serve: a directory, or a single file for a file bind mount.
#[derive(Debug)]
pub struct MountRoot {
    /// The directory or file; `O_PATH` is enough.
    pub fd: OwnedFd,
    /// What may be done with it.
    pub flags: MountFlags,
}

/// The state of one sentry's connection: its mounts and the nodes that it holds.
pub struct Server {
    mounts: Vec<MountFlags>,
    nodes: Nodes,
    streams: Streams,
    owner: Owner,
    paths: Paths,
}

/// The reply to a request that was understood at least in part.
type Outcome = Result<Option<OwnedFd>>;

impl Server {
    /// A server for these mounts, numbered in this order. EINVAL for a root that is neither a directory nor a regular
    /// file, a socket or a device. Clears the umask of the process, and sets `SECBIT_NO_SETUID_FIXUP` in the calling
    /// thread where it can: requests must be handled by the thread that makes the server.
    pub fn new(mounts: Vec<MountRoot>) -> Result<Server> {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let mut flags = Vec::with_capacity(mounts.len());
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.0;
        // Some descriptors are in use for other things, and opening a node takes one more.
        let room = usize::try_from(limit).unwrap_or(MAX_NODES).saturating_sub(64 + mounts.len());
        let mut nodes = Nodes::new(room.min(MAX_NODES).saturating_add(mounts.len()));
        let mut paths = Paths::default();
        for (index, mount) in mounts.into_iter().enumerate() {
            let attributes = attributes(mount.fd.as_fd())?;
            let kind = attributes.kind().filter(|&kind| kind != FileKind::Symlink).ok_or(Errno::EINVAL)?;
            paths.probe(mount.fd.as_fd())?;
            let index = u16::try_from(index).map_err(|_| Errno::EINVAL)?;
            nodes.insert_root(Held { fd: mount.fd, kind, mount: index })?;
            flags.push(mount.flags);
        }
        Ok(Server { mounts: flags, nodes, streams: Streams::default(), owner: Owner::new()?, paths })
    }

    /// Do without openat2(2), as on a kernel that lacks it.
    pub fn without_openat2(&mut self) {
        self.paths.openat2 = false;
    }

    /// Whether names are looked up by openat2(2), or by openat(2) because that is missing.
    pub fn uses_openat2(&self) -> bool {
        self.paths.openat2
    }

    /// Number of nodes that the client holds, the roots included.
    pub fn held(&self) -> usize {
        self.nodes.len()
    }

    /// Carries out one request. The reply is in `reply`, together with the descriptor returned. A request without a
    /// whole header has no reply: the connection must be ended.
    pub fn handle(&mut self, request: &[u8], reply: &mut Message) -> Result<Option<OwnedFd>, Malformed> {
        let mut parts = Parts::new(request);
        let header: RequestHeader = parts.get()?;
        let mut head =
            ReplyHeader { operation: header.operation, descriptors: 0, sequence: header.sequence, error: 0 };
        reply.truncate(0);
        let put = |message: &mut Message, head| {
            message.truncate(size_of::<ReplyHeader>());
            message.replace(0, head).map_err(|_| Malformed)
        };
        reply.put(&head).map_err(|_| Malformed)?;
        let outcome = self
            .forget(header.forgets, &mut parts)
            .and_then(|()| self.dispatch(header.operation, parts, reply));
        match outcome {
            Ok(None) => Ok(None),
            Ok(Some(descriptor)) => {
                head.descriptors = 1;
                reply.replace(0, &head).map_err(|_| Malformed)?;
                Ok(Some(descriptor))
            }
            Err(error) => {
                head.error = error.raw().unsigned_abs();
                put(reply, &head)?;
                Ok(None)
            }
        }
    }

    fn forget(&mut self, count: u16, parts: &mut Parts<'_>) -> Result<()> {
        if usize::from(count) > MAX_FORGETS {
            return Err(Errno::EPROTO);
        }
        for _ in 0..count {
            let node: NodeId = parts.get()?;
            if self.nodes.remove(node) {
                self.streams.forget(node);
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, operation: u16, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        match Operation::from_raw(operation).ok_or(Errno::EOPNOTSUPP)? {
            Operation::Attach => self.attach(parts, reply),
            Operation::Forget => parts.end().map(|()| None).map_err(Errno::from),
            Operation::Walk => self.walk(parts, reply),
            Operation::Open => self.open(parts, reply),
            Operation::Create => self.create(parts, reply),
            Operation::Mkdir => self.mkdir(parts, reply),
            Operation::Mknod => self.mknod(parts, reply),
            Operation::Symlink => self.symlink(parts, reply),
            Operation::Link => self.link(parts, reply),
            Operation::Unlink => self.unlink(parts),
            Operation::Rename => self.rename(parts),
            Operation::SetAttributes => self.set_attributes(parts, reply),
            Operation::GetAttributes => {
                let node: Node = only(parts)?;
                reply.put(&attributes(self.nodes.get(node.node)?.fd.as_fd())?)?;
                Ok(None)
            }
            Operation::Statfs => self.statfs(parts, reply),
            Operation::ReadDir => self.read_dir(parts, reply),
            Operation::ReadLink => {
                let node: Node = only(parts)?;
                let held = self.nodes.get(node.node)?;
                if held.kind != FileKind::Symlink {
                    return Err(Errno::EINVAL);
                }
                read_link(held.fd.as_fd(), reply)?;
                Ok(None)
            }
            Operation::GetXattr => self.get_xattr(parts, reply),
            Operation::SetXattr => self.set_xattr(parts),
            Operation::ListXattr => self.list_xattr(parts, reply),
            Operation::RemoveXattr => self.remove_xattr(parts),
            Operation::Sync => self.sync(parts),
            Operation::Connect => self.connect(parts),
        }
    }

    fn attach(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Attach = only(parts)?;
        if request.version != VERSION {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let flags = self.mounts.get(request.mount as usize).ok_or(Errno::ENOENT)?;
        let node = self.nodes.root(request.mount).ok_or(Errno::ENOENT)?;
        let attributes = attributes(self.nodes.get(node)?.fd.as_fd())?;
        reply.put(&AttachReply { flags: flags.bits(), reserved: 0, root: Entry { node, attributes } })?;
        Ok(None)
    }

    fn walk(&mut self, mut parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Walk = parts.get()?;
        if request.count as usize > MAX_WALK {
            return Err(Errno::EPROTO);
        }
        let mut names = parts;
        for _ in 0..request.count {
            let len: u8 = parts.get()?;
            check_name(parts.take(len.into())?)?;
        }
        parts.end()?;

        self.nodes.get(request.node)?;
        let at = reply.len();
        let mut found = WalkReply::default();
        reply.put(&found)?;
        let mut current = request.node;
        while found.count < request.count {
            let len: u8 = names.get()?;
            match self.step(current, names.take(len.into())?) {
                Ok((entry, kind)) => {
                    found.count += 1;
                    current = entry.node;
                    reply.put(&entry)?;
                    if kind == FileKind::Symlink {
                        match read_link(self.nodes.get(current)?.fd.as_fd(), reply) {
                            Ok(len) => found.target = len,
                            Err(error) => {
                                self.nodes.remove(current);
                                found.count -= 1;
                                reply.truncate(reply.len() - size_of::<Entry>());
                                found.error = error.raw().unsigned_abs();
                            }
                        }
                        break;
                    }
                }
                Err(error) => {
                    found.error = error.raw().unsigned_abs();
                    break;
                }
            }
        }
        reply.replace(at, &found)?;
        Ok(None)
    }

    /// Looks up one name and holds what it finds.
    fn step(&mut self, directory: NodeId, name: &[u8]) -> Result<(Entry, FileKind)> {
        let from = self.nodes.directory(directory)?;
        let mount = from.mount;
        self.nodes.room()?;
        let fd = self.paths.look_up(self.nodes.directory(directory)?.fd.as_fd(), name)?;
        self.hold(fd, mount)
    }

    /// Makes a node of an `O_PATH` descriptor.
    fn hold(&mut self, fd: OwnedFd, mount: u16) -> Result<(Entry, FileKind)> {
        let attributes = attributes(fd.as_fd())?;
        let kind = attributes.kind().ok_or(Errno::EIO)?;
        let node = self.nodes.insert(Held { fd, kind, mount })?;
        Ok((Entry { node, attributes }, kind))
    }

    fn flags(&self, mount: u16) -> MountFlags {
        self.mounts.get(usize::from(mount)).copied().unwrap_or(MountFlags::READ_ONLY)
    }

    /// EROFS for a node that may not be changed.
    fn writable(&self, held: &Held) -> Result<()> {
        if self.flags(held.mount).contains(MountFlags::READ_ONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// A directory in which names may be made and removed, after a check of the name.
    fn writable_directory(&self, node: NodeId, name: &[u8]) -> Result<&Held> {
        check_name(name)?;
        let held = self.nodes.directory(node)?;
        self.writable(held)?;
        Ok(held)
    }
}

/// The body of a request that has nothing of variable length.
fn only<T: zerocopy::FromBytes>(mut parts: Parts<'_>) -> Result<T> {
    let body = parts.get()?;
    parts.end()?;
    Ok(body)
}

/// Appends the target of the symbolic link that `fd` names, and returns its length.
fn read_link(fd: BorrowedFd<'_>, reply: &mut Message) -> Result<u32> {
    let len = host::readlink(fd, reply.spare())?;
    if len > crate::protocol::TARGET_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if len == 0 {
        return Err(Errno::ENOENT);
    }
    reply.advance(len);
    Ok(len as u32)
}

/// The attributes of what `fd` names.
fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes> {
    Ok(from_statx(&host::statx(fd)?))
}

fn from_statx(from: &libc::statx) -> Attributes {
    // A filesystem may hold nanoseconds out of range; the other side takes that for a broken server.
    let time = |time: libc::statx_timestamp| Timestamp {
        seconds: time.tv_sec,
        nanoseconds: u64::from(time.tv_nsec).min(999_999_999),
    };
    Attributes {
        mode: from.stx_mode.into(),
        links: from.stx_nlink,
        uid: from.stx_uid,
        gid: from.stx_gid,
        block_size: from.stx_blksize,
        rdev_major: from.stx_rdev_major,
        rdev_minor: from.stx_rdev_minor,
        dev_major: from.stx_dev_major,
        dev_minor: from.stx_dev_minor,
        mask: from.stx_mask,
        inode: from.stx_ino,
        size: from.stx_size.min(i64::MAX as u64),
        blocks: from.stx_blocks.min(i64::MAX as u64),
        flags: from.stx_attributes,
        accessed: time(from.stx_atime),
        modified: time(from.stx_mtime),
        changed: time(from.stx_ctime),
        born: time(from.stx_btime),
    }
}

/// Serves one channel until the client closes it.
pub fn serve(channel: OwnedFd, mounts: Vec<MountRoot>) -> Result<()> {
    serve_channels(vec![channel], Server::new(mounts)?)
}

/// Serves several channels of one sentry, which share their nodes, in one thread, until the last one is closed.
pub fn serve_channels(mut channels: Vec<OwnedFd>, mut server: Server) -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut request = vec![0; MAX_MESSAGE].into_boxed_slice();
    let mut reply = Message::new();
    while let [first, others @ ..] = channels.as_slice() {
        // With a single channel, receiving is what waits.
        if others.is_empty() {
            while serve_one(first.as_fd(), &mut server, &mut request, &mut reply) {}
            break;
        }
        let mut waits: Vec<_> =
            channels.iter().map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut waits, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            done => done?,
        };
        let ready: Vec<bool> = waits.iter().map(|wait| wait.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        channels.retain(|channel| {
            !ready.next().unwrap_or(false)
                || serve_one(channel.as_fd(), &mut server, &mut request, &mut reply)
        });
    }
    Ok(())
}

/// Receives, handles and answers one request; false if the channel has ended or must end.
fn serve_one(channel: BorrowedFd<'_>, server: &mut Server, request: &mut [u8], reply: &mut Message) -> bool {
    let received = match host::receive(channel, request) {
        Ok(received) if received.len > 0 && !received.truncated => received,
        Ok(received) => {
            if received.truncated {
                tracing::warn!("channel closed: a request too long, or with descriptors");
            }
            return false;
        }
        Err(error) => {
            tracing::debug!("channel closed: {error}");
            return false;
        }
    };
    let Some(request) = request.get(..received.len) else { return false };
    let descriptor = match server.handle(request, reply) {
        Ok(descriptor) => descriptor,
        Err(Malformed) => {
            tracing::warn!("channel closed: a request without a header");
            return false;
        }
    };
    // ETOOMANYREFS, ENOBUFS: a client that does not take what it asks for. It is told nothing more.
    match host::send(channel, reply.as_bytes(), descriptor.as_ref().map(OwnedFd::as_fd)) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!("channel closed: {error}");
            false
        }
    }
}
