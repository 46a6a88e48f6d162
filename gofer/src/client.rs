//! The sentry's end of a channel: typed requests, checked replies.
//!
//! [`Client`] is shared by all threads of the sentry; one request is on its way at a time. A reply that breaks the
//! protocol, or the end of the server, closes the channel for good: from then on everything is EIO. So does a server that
//! is alive and does not answer within a minute. That is counted in several shorter waits, so that a sandbox which is
//! frozen for an hour in the middle of a request does not blame its gofer.
//!
//! What comes back is checked, so that callers need not: kinds exist, sizes and counts of blocks fit a signed 64-bit
//! number, nanoseconds are below a second, names are single components, link targets are paths, errors are errnos that
//! a guest may see, and a descriptor asked for is there and is of the kind asked for. Node ids are opaque; a hostile
//! server may repeat them.
//!
//! The host calls made here are sendmsg(2), recvmsg(2), statx(2) and close(2).
//!
//! Lock order: `channel`, then `forgets`. Neither is held while calling anything outside this crate.

use crate::host;
use crate::protocol::{
    Attach, AttachReply, Attributes, Connect, Create, DirEntryHeader, Entry, FileKind, Link, MAX_FORGETS,
    MAX_MESSAGE, MAX_WALK, Make, Malformed, Message, MountFlags, Node, NodeId, Open, OpenFlags, Operation,
    Parts, ReadDir, ReadDirReply, Rename, RenameFlags, ReplyHeader, RequestHeader, SetAttributes, Statfs,
    Sync, SyncScope, Timestamp, Unlink, VERSION, Walk, WalkReply, XATTR_NAME_MAX, XATTR_VALUE_MAX, Xattr,
    check_name, check_target,
};
use abi::{Errno, Result};
use parking_lot::Mutex;
use std::os::fd::{AsFd, OwnedFd};

/// How often a client looks for a reply, each time for [`PATIENCE`](crate::protocol::PATIENCE).
const WAITS: u32 = 6;

/// One channel to a gofer.
pub struct Client {
    channel: Mutex<Channel>,
    forgets: Mutex<Vec<NodeId>>,
}

struct Channel {
    /// `None` once the channel is broken.
    socket: Option<OwnedFd>,
    sequence: u32,
    message: Message,
}

/// The root of a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// The node: a directory, or a file bind mount's file. Roots need not be forgotten.
    pub node: NodeId,
    /// Its attributes.
    pub attributes: Attributes,
    /// What may be done with the mount.
    pub flags: MountFlags,
}

/// What a walk found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// The entries found, one a name. Fewer than names if one is missing, or is no directory though names follow it.
    pub entries: Vec<Entry>,
    /// The target of the last entry, if that is a symbolic link.
    pub target: Option<Box<[u8]>>,
    /// Why there are fewer entries than names: ENOENT, ENOTDIR (also behind anything but a symbolic link) and so on.
    /// `None` behind a symbolic link: the caller resolves it.
    pub error: Option<Errno>,
}

/// Who owns a new inode, and its permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewInode {
    /// Permissions (07777), the umask already applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group. In a set-group-ID directory the caller passes the directory's.
    pub gid: u32,
}

/// A new file.
#[derive(Debug)]
pub struct Created {
    /// Its node.
    pub node: NodeId,
    /// Its attributes.
    pub attributes: Attributes,
    /// A descriptor of it.
    pub file: OwnedFd,
}

/// A new time stamp of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The host's present time.
    Now,
    /// This time.
    To(Timestamp),
}

/// The attributes to set: those that are `Some`, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the fields of Attributes")]
pub struct NewAttributes {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<SetTime>,
    pub modified: Option<SetTime>,
}

/// The type of a Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are socket(2)'s")]
pub enum SocketKind {
    Stream = libc::SOCK_STREAM as u32,
    Datagram = libc::SOCK_DGRAM as u32,
    SeqPacket = libc::SOCK_SEQPACKET as u32,
}

/// A batch of directory entries.
#[derive(Clone, Debug)]
pub struct DirBatch {
    bytes: Box<[u8]>,
    count: usize,
    /// True if the directory has nothing after this batch.
    pub end: bool,
}

/// An entry of a directory; never `.` or `..`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirEntry<'a> {
    /// A single component.
    pub name: &'a [u8],
    /// Inode number.
    pub inode: u64,
    /// The type, where the filesystem tells.
    pub kind: Option<FileKind>,
    /// Where to go on after this entry. Opaque; it may have any value but 0.
    pub cookie: u64,
    /// The attributes, if they were asked for and the entry was still there.
    pub attributes: Option<Attributes>,
}

impl Client {
    /// A client on one end of a [`channel_pair`](crate::channel_pair). No other process may keep the server's end
    /// open: its death would not be noticed.
    pub fn new(channel: OwnedFd) -> Client {
        let channel = Channel { socket: Some(channel), sequence: 0, message: Message::new() };
        Client { channel: Mutex::new(channel), forgets: Mutex::default() }
    }

    /// The root of the mount with this index. ENOENT without one.
    pub fn attach(&self, mount: u32) -> Result<Root> {
        self.call(
            Operation::Attach,
            |message| message.put(&Attach { mount, version: VERSION }),
            |mut parts| {
                let reply: AttachReply = parts.get()?;
                parts.end()?;
                let Entry { node, attributes } = checked_entry(reply.root)?;
                Ok(Root { node, attributes, flags: MountFlags::from_bits_truncate(reply.flags) })
            },
        )
    }

    /// Looks up successive names, at most [`MAX_WALK`] (E2BIG beyond), each below the one before; symbolic links are
    /// not followed. Each entry found holds a node, to be forgotten. ENFILE when the server has no room for more.
    pub fn walk(&self, from: NodeId, names: &[&[u8]]) -> Result<Walked> {
        if names.len() > MAX_WALK {
            return Err(Errno::E2BIG);
        }
        for name in names {
            check_name(name)?;
        }
        self.call(
            Operation::Walk,
            |message| {
                message.put(&Walk { node: from, count: names.len() as u32 })?;
                for name in names {
                    message.put(&(name.len() as u8))?;
                    message.put_bytes(name)?;
                }
                Ok(())
            },
            |mut parts| {
                let reply: WalkReply = parts.get()?;
                let count = reply.count as usize;
                if count > names.len() {
                    return Err(Malformed);
                }
                let mut entries = Vec::with_capacity(count);
                for _ in 0..count {
                    entries.push(checked_entry(parts.get()?)?);
                }
                let target = match parts.take(reply.target as usize)? {
                    [] => None,
                    target => Some(check_target(target).map(|()| Box::from(target)).map_err(|_| Malformed)?),
                };
                parts.end()?;
                let error = if reply.error == 0 { None } else { Some(guest_error(reply.error)?) };
                // Only the last entry may be something else than a directory.
                let inner = entries.len().saturating_sub(1);
                let kinds = |e: &Entry| e.attributes.kind();
                if entries.iter().take(inner).any(|e| kinds(e) != Some(FileKind::Directory)) {
                    return Err(Malformed);
                }
                let symlink = entries.last().and_then(kinds) == Some(FileKind::Symlink);
                if symlink != target.is_some() || (count < names.len() && error.is_none() && !symlink) {
                    return Err(Malformed);
                }
                Ok(Walked { entries, target, error })
            },
        )
    }

    /// The entry `name` of a directory; for a symbolic link, its target as well. ENOENT if there is none.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<(Entry, Option<Box<[u8]>>)> {
        let walked = self.walk(directory, &[name])?;
        match (walked.entries.first(), walked.error) {
            (Some(&entry), _) => Ok((entry, walked.target)),
            (None, error) => Err(error.unwrap_or(Errno::EIO)),
        }
    }

    /// Opens a regular file. EISDIR for a directory (unless the mount has
    /// [`DIRECTORY_DESCRIPTORS`](MountFlags::DIRECTORY_DESCRIPTORS)), ELOOP for a symbolic link, ENXIO for anything
    /// else: devices, fifos and sockets of the host are never opened. The attributes are those after opening.
    pub fn open(&self, node: NodeId, flags: OpenFlags) -> Result<(Attributes, OwnedFd)> {
        let (attributes, file) = self.call_for_descriptor(
            Operation::Open,
            |message| message.put(&Open { node, flags: flags.bits() }),
            |mut parts| {
                let attributes = checked_attributes(parts.get()?)?;
                parts.end().map(|()| attributes)
            },
        )?;
        self.expect_kind(&file, &[FileKind::Regular, FileKind::Directory])?;
        Ok((attributes, file))
    }

    /// Makes a regular file and opens it; always exclusive, that is EEXIST if the name exists. An open(2) without
    /// `O_EXCL` walks first and comes here only on ENOENT, and starts again on EEXIST.
    pub fn create(&self, directory: NodeId, name: &[u8], flags: OpenFlags, new: NewInode) -> Result<Created> {
        check_name(name)?;
        self.create_file(directory, name, flags, new)
    }

    /// Makes a regular file without a name (`O_TMPFILE`), which [`Client::link`] can give one; needs write access.
    pub fn create_unnamed(&self, directory: NodeId, flags: OpenFlags, new: NewInode) -> Result<Created> {
        self.create_file(directory, b"", flags, new)
    }

    fn create_file(
        &self,
        directory: NodeId,
        name: &[u8],
        flags: OpenFlags,
        new: NewInode,
    ) -> Result<Created> {
        let NewInode { mode, uid, gid } = new;
        let (entry, file) = self.call_for_descriptor(
            Operation::Create,
            |message| {
                message.put(&Create { directory, flags: flags.bits(), mode, uid, gid })?;
                message.put_bytes(name)
            },
            entry_alone,
        )?;
        self.expect_kind(&file, &[FileKind::Regular])?;
        Ok(Created { node: entry.node, attributes: entry.attributes, file })
    }

    /// Makes a directory. As in mkdir(2), set-ID bits in the mode are ignored, and S_ISGID comes from the directory above.
    pub fn mkdir(&self, directory: NodeId, name: &[u8], new: NewInode) -> Result<Entry> {
        self.make(Operation::Mkdir, directory, name, b"", new)
    }

    /// Makes a regular file, a fifo, a socket, or (a character device 0:0, if the mount allows) a whiteout. Other
    /// devices are EPERM.
    pub fn mknod(&self, directory: NodeId, name: &[u8], kind: FileKind, new: NewInode) -> Result<Entry> {
        let mode = new.mode & 0o7777 | kind.mode_bits();
        self.make(Operation::Mknod, directory, name, b"", NewInode { mode, ..new })
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        directory: NodeId,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Entry> {
        check_target(target)?;
        self.make(Operation::Symlink, directory, name, target, NewInode { mode: 0o777, uid, gid })
    }

    fn make(
        &self,
        operation: Operation,
        directory: NodeId,
        name: &[u8],
        target: &[u8],
        new: NewInode,
    ) -> Result<Entry> {
        check_name(name)?;
        let NewInode { mode, uid, gid } = new;
        self.call(
            operation,
            |message| {
                message.put(&Make { directory, mode, uid, gid, name: name.len() as u32 })?;
                message.put_bytes(name)?;
                message.put_bytes(target)
            },
            entry_alone,
        )
    }

    /// Makes a hard link; the attributes are the node's afterwards. EXDEV across mounts.
    pub fn link(&self, node: NodeId, directory: NodeId, name: &[u8]) -> Result<Attributes> {
        check_name(name)?;
        self.call(
            Operation::Link,
            |message| {
                message.put(&Link { node, directory })?;
                message.put_bytes(name)
            },
            attributes_alone,
        )
    }

    /// Removes a name: of a directory (rmdir) or of anything else (unlink). The node of what was removed keeps the
    /// inode and its space until it is forgotten, so [`Client::flush`] after the last use of it.
    pub fn unlink(&self, directory: NodeId, name: &[u8], is_directory: bool) -> Result<()> {
        check_name(name)?;
        self.call(
            Operation::Unlink,
            |message| {
                message.put(&Unlink { directory, is_directory: is_directory.into() })?;
                message.put_bytes(name)
            },
            nothing,
        )
    }

    /// Renames within a mount; EXDEV across mounts. Nodes stay what they are.
    pub fn rename(&self, old: (NodeId, &[u8]), new: (NodeId, &[u8]), flags: RenameFlags) -> Result<()> {
        check_name(old.1)?;
        check_name(new.1)?;
        self.call(
            Operation::Rename,
            |message| {
                message.put(&Rename {
                    old_directory: old.0,
                    new_directory: new.0,
                    flags: flags.bits(),
                    old_name: old.1.len() as u32,
                })?;
                message.put_bytes(old.1)?;
                message.put_bytes(new.1)
            },
            nothing,
        )
    }

    /// Sets attributes, as the host's superuser would where the server is that: the caller has checked permission, and
    /// clears set-ID bits where Linux does. The attributes are those afterwards.
    pub fn set_attributes(&self, node: NodeId, new: &NewAttributes) -> Result<Attributes> {
        self.call(Operation::SetAttributes, |message| message.put(&new.to_request(node)), attributes_alone)
    }

    /// The attributes now.
    pub fn attributes(&self, node: NodeId) -> Result<Attributes> {
        self.call(Operation::GetAttributes, |message| message.put(&Node { node }), attributes_alone)
    }

    /// The filesystem that holds a node.
    pub fn statfs(&self, node: NodeId) -> Result<Statfs> {
        self.call(
            Operation::Statfs,
            |message| message.put(&Node { node }),
            |mut parts| {
                let statfs = parts.get()?;
                parts.end().map(|()| statfs)
            },
        )
    }

    /// Entries of a directory after `cookie` (0: from the start, with what is there now), at most about `limit` bytes
    /// of them. With `attributes`, each entry comes with its attributes, but no node. An empty batch is the end.
    pub fn read_dir(&self, node: NodeId, cookie: u64, limit: u32, attributes: bool) -> Result<DirBatch> {
        self.call(
            Operation::ReadDir,
            |message| message.put(&ReadDir { node, cookie, limit, attributes: attributes.into() }),
            |mut parts| {
                let reply: ReadDirReply = parts.get()?;
                let batch =
                    DirBatch { bytes: parts.rest().into(), count: reply.count as usize, end: reply.end != 0 };
                let mut rest = Parts::new(&batch.bytes);
                for _ in 0..batch.count {
                    next_dir_entry(&mut rest)?;
                }
                rest.end()?;
                if batch.count == 0 && !batch.end { Err(Malformed) } else { Ok(batch) }
            },
        )
    }

    /// The target of a symbolic link. EINVAL for anything else.
    pub fn read_link(&self, node: NodeId) -> Result<Box<[u8]>> {
        self.call(
            Operation::ReadLink,
            |message| message.put(&Node { node }),
            |mut parts| {
                let target = parts.rest();
                check_target(target).map(|()| target.into()).map_err(|_| Malformed)
            },
        )
    }

    /// The value of an extended attribute. ENODATA if there is none; EOPNOTSUPP for names other than `user.*`,
    /// `security.capability` and, where the mount allows, `trusted.overlay.*`.
    pub fn get_xattr(&self, node: NodeId, name: &[u8]) -> Result<Box<[u8]>> {
        self.call(
            Operation::GetXattr,
            |message| put_xattr(message, node, name, 0, b""),
            |mut parts| Ok(parts.rest().into()),
        )
    }

    /// Sets an extended attribute; `flags` is 0, `XATTR_CREATE` or `XATTR_REPLACE`. E2BIG above [`XATTR_VALUE_MAX`].
    pub fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if value.len() > XATTR_VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        self.call(Operation::SetXattr, |message| put_xattr(message, node, name, flags, value), nothing)
    }

    /// The names of the extended attributes that can be read here, each with a NUL after it.
    pub fn list_xattr(&self, node: NodeId) -> Result<Box<[u8]>> {
        self.call(
            Operation::ListXattr,
            |message| message.put(&Node { node }),
            |mut parts| {
                let names = parts.rest();
                let good = |name: &[u8]| !name.is_empty() && name.len() <= XATTR_NAME_MAX;
                match names {
                    [] => Ok(names.into()),
                    [inner @ .., 0] if inner.split(|&b| b == 0).all(good) => Ok(names.into()),
                    _ => Err(Malformed),
                }
            },
        )
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.call(Operation::RemoveXattr, |message| put_xattr(message, node, name, 0, b""), nothing)
    }

    /// Writes a regular file, a directory, or their filesystem to storage. Who has a descriptor uses that instead.
    pub fn sync(&self, node: NodeId, scope: SyncScope) -> Result<()> {
        self.call(Operation::Sync, |message| message.put(&Sync { node, scope: scope as u32 }), nothing)
    }

    /// Connects to a Unix socket of the host; the socket returned is non-blocking. ECONNREFUSED if the node
    /// is none, and if the mount does not allow it, as if nobody listened; EAGAIN if the listener's backlog is full.
    pub fn connect(&self, node: NodeId, kind: SocketKind) -> Result<OwnedFd> {
        let ((), socket) = self.call_for_descriptor(
            Operation::Connect,
            |message| message.put(&Connect { node, kind: kind as u32 }),
            nothing,
        )?;
        self.expect_kind(&socket, &[FileKind::Socket])?;
        Ok(socket)
    }

    /// Gives a node back, once for each time it was returned. It goes with the next request; never waits.
    pub fn forget(&self, node: NodeId) {
        self.forgets.lock().push(node);
    }

    /// Forgets now all that was given to [`Client::forget`]: inodes without a name give their space back.
    pub fn flush(&self) -> Result<()> {
        while !self.forgets.lock().is_empty() {
            self.call(Operation::Forget, |_| Ok(()), nothing)?;
        }
        Ok(())
    }

    /// True once the channel is closed: everything is EIO.
    pub fn is_broken(&self) -> bool {
        self.channel.lock().socket.is_none()
    }

    fn call<T>(
        &self,
        operation: Operation,
        write: impl FnOnce(&mut Message) -> Result<()>,
        read: impl FnOnce(Parts<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        self.channel.lock().call(&self.forgets, operation, false, write, read).map(|(value, _)| value)
    }

    fn call_for_descriptor<T>(
        &self,
        operation: Operation,
        write: impl FnOnce(&mut Message) -> Result<()>,
        read: impl FnOnce(Parts<'_>) -> Result<T, Malformed>,
    ) -> Result<(T, OwnedFd)> {
        let (value, descriptor) = self.channel.lock().call(&self.forgets, operation, true, write, read)?;
        Ok((value, descriptor.ok_or(Errno::EIO)?))
    }

    /// Checks that a descriptor is what was asked for: a hostile server might send a pipe for a file.
    fn expect_kind(&self, descriptor: &OwnedFd, kinds: &[FileKind]) -> Result<()> {
        let kind = FileKind::from_mode(host::statx(descriptor.as_fd())?.stx_mode.into());
        if kind.is_some_and(|kind| kinds.contains(&kind)) {
            return Ok(());
        }
        self.channel.lock().close("a descriptor of the wrong kind");
        Err(Errno::EIO)
    }
}

impl Channel {
    /// One request and its reply. `descriptor`: whether a successful reply brings one.
    fn call<T>(
        &mut self,
        forgets: &Mutex<Vec<NodeId>>,
        operation: Operation,
        descriptor: bool,
        write: impl FnOnce(&mut Message) -> Result<()>,
        read: impl FnOnce(Parts<'_>) -> Result<T, Malformed>,
    ) -> Result<(T, Option<OwnedFd>)> {
        self.sequence = self.sequence.wrapping_add(1);
        let Channel { socket: Some(socket), sequence, message } = self else { return Err(Errno::EIO) };
        let sequence = *sequence;
        message.truncate(0);
        // The forgets are taken off the list only when the request is sure to be sent. A long request leaves them to
        // a later one.
        let mut header = RequestHeader { operation: operation as u16, forgets: 0, sequence };
        message.put(&header)?;
        let room = if operation == Operation::SetXattr { 0 } else { MAX_FORGETS };
        let mut queue = forgets.lock();
        let kept = queue.len().saturating_sub(room);
        for node in queue.iter().skip(kept) {
            message.put(node)?;
            header.forgets += 1;
        }
        message.replace(0, &header)?;
        write(message)?;
        queue.truncate(kept);
        drop(queue);

        let received = host::send(socket.as_fd(), message.as_bytes(), None).and_then(|()| {
            message.truncate(0);
            let mut waits = 0;
            loop {
                match host::receive_with_descriptor(socket.as_fd(), message.spare()) {
                    Err(Errno::EAGAIN) if waits + 1 < WAITS => {
                        waits += 1;
                        tracing::warn!(?operation, waits, "the gofer does not answer");
                    }
                    Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                    result => return result,
                }
            }
        });
        let received = match received {
            Ok(received) if received.len > 0 && !received.truncated => received,
            Ok(received) => {
                return Err(self.close(if received.len == 0 { "end" } else { "a reply too long" }));
            }
            Err(error) => return Err(self.close(error.message())),
        };
        message.advance(received.len);
        match read_reply(message.as_bytes(), operation, sequence, received.descriptor, descriptor, read) {
            Ok(outcome) => outcome,
            Err(Malformed) => Err(self.close("a malformed reply")),
        }
    }

    /// Ends the channel: what the server says next could be the answer to something else.
    fn close(&mut self, why: &str) -> Errno {
        if self.socket.take().is_some() {
            tracing::warn!("gofer channel closed: {why}");
        }
        Errno::EIO
    }
}

/// Checks a reply. The outer result tells whether the server kept to the protocol.
fn read_reply<T>(
    bytes: &[u8],
    operation: Operation,
    sequence: u32,
    descriptor: Option<OwnedFd>,
    wants_descriptor: bool,
    read: impl FnOnce(Parts<'_>) -> Result<T, Malformed>,
) -> Result<Result<(T, Option<OwnedFd>)>, Malformed> {
    let mut parts = Parts::new(bytes);
    let header: ReplyHeader = parts.get()?;
    let has_descriptor = wants_descriptor && header.error == 0;
    if header.operation != operation as u16
        || header.sequence != sequence
        || header.descriptors != u16::from(has_descriptor)
        || descriptor.is_some() != has_descriptor
    {
        return Err(Malformed);
    }
    if header.error != 0 {
        parts.end()?;
        return Ok(Err(guest_error(header.error)?));
    }
    Ok(Ok((read(parts)?, descriptor)))
}

/// An errno from the other side that a guest may see.
fn guest_error(raw: u32) -> Result<Errno, Malformed> {
    let error = i32::try_from(raw).map(Errno::from_raw).map_err(|_| Malformed)?;
    if error.name().is_some() && !error.is_restart() { Ok(error) } else { Err(Malformed) }
}

fn checked_attributes(attributes: Attributes) -> Result<Attributes, Malformed> {
    let Attributes { accessed, modified, changed, born, .. } = attributes;
    let times = [accessed, modified, changed, born].iter().all(|time| time.nanoseconds < 1_000_000_000);
    let sizes = [attributes.size, attributes.blocks].iter().all(|&size| i64::try_from(size).is_ok());
    let mode = attributes.kind().is_some() && attributes.mode <= 0o177_777;
    if times && sizes && mode { Ok(attributes) } else { Err(Malformed) }
}

fn checked_entry(entry: Entry) -> Result<Entry, Malformed> {
    Ok(Entry { node: entry.node, attributes: checked_attributes(entry.attributes)? })
}

fn nothing(parts: Parts<'_>) -> Result<(), Malformed> {
    parts.end()
}

fn entry_alone(mut parts: Parts<'_>) -> Result<Entry, Malformed> {
    let entry = checked_entry(parts.get()?)?;
    parts.end().map(|()| entry)
}

fn attributes_alone(mut parts: Parts<'_>) -> Result<Attributes, Malformed> {
    let attributes = checked_attributes(parts.get()?)?;
    parts.end().map(|()| attributes)
}

fn put_xattr(message: &mut Message, node: NodeId, name: &[u8], flags: u32, value: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE);
    }
    message.put(&Xattr { node, flags, name: name.len() as u32 })?;
    message.put_bytes(name)?;
    message.put_bytes(value)
}

fn next_dir_entry<'a>(parts: &mut Parts<'a>) -> Result<DirEntry<'a>, Malformed> {
    let header: DirEntryHeader = parts.get()?;
    let length = usize::from(header.name);
    let padded = (size_of::<DirEntryHeader>() + length).next_multiple_of(8) - size_of::<DirEntryHeader>();
    let name = parts.take(padded)?.get(..length).ok_or(Malformed)?;
    check_name(name).map_err(|_| Malformed)?;
    let attributes = match header.attributes {
        0 => None,
        _ => Some(checked_attributes(parts.get()?)?),
    };
    Ok(DirEntry {
        name,
        inode: header.inode.get(),
        kind: FileKind::from_dirent(header.kind),
        cookie: header.cookie.get(),
        attributes,
    })
}

impl DirBatch {
    /// The entries, in the directory's order.
    pub fn iter(&self) -> impl Iterator<Item = DirEntry<'_>> {
        let mut parts = Parts::new(&self.bytes);
        // They were all checked on arrival.
        (0..self.count).map_while(move |_| next_dir_entry(&mut parts).ok())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are no entries: the end of the directory.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl NewAttributes {
    fn to_request(self, node: NodeId) -> SetAttributes {
        use crate::protocol::SetFlags;
        let mut request = SetAttributes { node, ..SetAttributes::default() };
        let mut valid = SetFlags::empty();
        let mut set = |flag, value: Option<u32>| {
            valid.set(flag, value.is_some());
            value.unwrap_or_default()
        };
        request.uid = set(SetFlags::UID, self.uid);
        request.gid = set(SetFlags::GID, self.gid);
        request.mode = set(SetFlags::MODE, self.mode);
        valid.set(SetFlags::SIZE, self.size.is_some());
        request.size = self.size.unwrap_or_default();
        let mut time = |value: Option<SetTime>, to, now| match value {
            None => Timestamp::default(),
            Some(SetTime::Now) => {
                valid.insert(now);
                Timestamp::default()
            }
            Some(SetTime::To(time)) => {
                valid.insert(to);
                time
            }
        };
        request.accessed = time(self.accessed, SetFlags::ACCESSED, SetFlags::ACCESSED_NOW);
        request.modified = time(self.modified, SetFlags::MODIFIED, SetFlags::MODIFIED_NOW);
        request.valid = valid.bits();
        request
    }
}

// The largest request but one for an extended attribute leaves room for all forgets: two names and a target.
const _: () = assert!(MAX_FORGETS * size_of::<NodeId>() + MAX_WALK * 256 + 8192 < MAX_MESSAGE);
const _: () = assert!(
    size_of::<RequestHeader>() + size_of::<Xattr>() + XATTR_NAME_MAX + XATTR_VALUE_MAX <= MAX_MESSAGE
);
