//! The file protocol: what travels on a channel between sentry and gofer.
//!
//! A channel is one `SOCK_SEQPACKET` socket pair. A message is one packet of at most [`MAX_MESSAGE`] bytes: a header,
//! a fixed-layout body, then names and other bytes of variable length. Every request has exactly one reply, with the
//! same operation and sequence number, and a channel has one request outstanding. A reply may carry one file
//! descriptor (`SCM_RIGHTS`); a request never does. File data never travels here: the sentry reads, writes and maps
//! the descriptors it is given.
//!
//! A [`NodeId`] names an inode that the server holds open (`O_PATH`). It comes from attach, walk or a creation,
//! survives renames and unlinking, and lives until it is forgotten. A request can carry ids to forget in front of its
//! body, so that forgetting costs no message of its own.
//!
//! Names are single components: the server never follows a symbolic link and never sees `.` or `..`.

use crate::host;
use abi::Errno;
use bitflags::bitflags;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version in an attach request; a server that speaks another one answers EPROTONOSUPPORT.
pub const VERSION: u32 = 1;
/// The largest message, header included, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The largest number of names in one walk.
pub const MAX_WALK: usize = 32;
/// The largest number of node ids forgotten by one request.
pub const MAX_FORGETS: usize = 1024;
/// The longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` less the terminator).
pub const TARGET_MAX: usize = 4095;
/// The longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
pub const XATTR_NAME_MAX: usize = 255;
/// The longest value of an extended attribute that fits into a message. Linux allows 64 KiB; E2BIG above this.
pub const XATTR_VALUE_MAX: usize = MAX_MESSAGE - 512;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Operation { $($(#[$doc])* $name = $value,)* }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];

            /// The operation with this number, if there is one.
            pub fn from_raw(raw: u16) -> Option<Operation> {
                match raw { $($value => Some(Operation::$name),)* _ => None }
            }
        }
    };
}

operations! {
    /// The root node of a mount: [`Attach`] → [`AttachReply`].
    Attach = 1,
    /// Nothing but the forgets in front of the body: no body → no body.
    Forget = 2,
    /// Nodes of successive names: [`Walk`], names → [`WalkReply`], entries, link target.
    Walk = 3,
    /// A descriptor of a regular file: [`Open`] → [`Attributes`] and a descriptor.
    Open = 4,
    /// A new regular file, opened: [`Create`], name → [`Entry`] and a descriptor. No name makes an unnamed file.
    Create = 5,
    /// A new directory: [`Make`], name → [`Entry`].
    Mkdir = 6,
    /// A new regular file, fifo, socket or whiteout: [`Make`], name → [`Entry`].
    Mknod = 7,
    /// A new symbolic link: [`Make`] with the length of the name, name, target → [`Entry`].
    Symlink = 8,
    /// A hard link: [`Link`], name → [`Attributes`] of the node.
    Link = 9,
    /// Removes a name: [`Unlink`], name → no body.
    Unlink = 10,
    /// Renames: [`Rename`], old name, new name → no body.
    Rename = 11,
    /// Changes attributes: [`SetAttributes`] → [`Attributes`] afterwards.
    SetAttributes = 12,
    /// Attributes: [`Node`] → [`Attributes`].
    GetAttributes = 13,
    /// The filesystem of a node: [`Node`] → [`Statfs`].
    Statfs = 14,
    /// A batch of directory entries: [`ReadDir`] → [`ReadDirReply`], entries.
    ReadDir = 15,
    /// The target of a symbolic link: [`Node`] → target.
    ReadLink = 16,
    /// An extended attribute: [`Xattr`], name → value.
    GetXattr = 17,
    /// Sets an extended attribute: [`Xattr`], name, value → no body.
    SetXattr = 18,
    /// The names of extended attributes, each with its NUL: [`Node`] → names.
    ListXattr = 19,
    /// Removes an extended attribute: [`Xattr`], name → no body.
    RemoveXattr = 20,
    /// Writes a node or its filesystem to storage: [`Sync`] → no body.
    Sync = 21,
    /// Connects to a Unix socket of the host: [`Connect`] → no body and a descriptor.
    Connect = 22,
}

/// Derives what every fixed-layout part of a message has.
macro_rules! layouts {
    ($($(#[$attr:meta])* $name:ident { $($(#[$field_attr:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$attr])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_attr])* pub $field: $ty,)* }
    )*};
}

layouts! {
    /// In front of every request.
    RequestHeader {
        /// An [`Operation`].
        operation: u16,
        /// How many [`NodeId`]s to forget follow the header, before the body; at most [`MAX_FORGETS`].
        forgets: u16,
        /// Returned with the reply.
        sequence: u32,
    }
    /// In front of every reply.
    ReplyHeader {
        /// The operation of the request.
        operation: u16,
        /// How many descriptors come with the reply: 0 or 1.
        descriptors: u16,
        /// The sequence number of the request.
        sequence: u32,
        /// 0, or a Linux errno: then there is no body.
        error: u32,
    }
    /// Names an inode that the server holds. What it consists of is the server's business.
    #[derive(Hash)]
    NodeId {
        /// The place in the server's table.
        index: u32,
        /// Tells apart the successive users of that place.
        generation: u32,
    }
    /// A time stamp, since 1970 in UTC.
    Timestamp {
        /// Seconds; negative before 1970.
        seconds: i64,
        /// 0..1 000 000 000.
        nanoseconds: u64,
    }
    /// What statx(2) tells. All fields are the host's; ids are not translated.
    Attributes {
        /// File type and permissions, as in `st_mode`.
        mode: u32,
        /// Number of links.
        links: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Preferred size of input and output, in bytes.
        block_size: u32,
        /// Device number of a device node.
        rdev_major: u32,
        /// Device number of a device node.
        rdev_minor: u32,
        /// The filesystem's device number.
        dev_major: u32,
        /// The filesystem's device number.
        dev_minor: u32,
        /// The `STATX_*` bits whose fields are valid (as a rule `STATX_BASIC_STATS`, and `STATX_BTIME` where known).
        mask: u32,
        /// Inode number; unique together with the device.
        inode: u64,
        /// Size in bytes.
        size: u64,
        /// Space used, in units of 512 bytes.
        blocks: u64,
        /// `STATX_ATTR_*` flags that are set.
        flags: u64,
        /// Last access.
        accessed: Timestamp,
        /// Last change of the contents.
        modified: Timestamp,
        /// Last change of the inode.
        changed: Timestamp,
        /// Creation; valid with `STATX_BTIME`.
        born: Timestamp,
    }
    /// A node and its attributes.
    Entry {
        /// The node, to be forgotten once for each time it was returned.
        node: NodeId,
        /// Its attributes.
        attributes: Attributes,
    }
    /// The body of requests that need nothing but a node.
    Node {
        /// The node.
        node: NodeId,
    }
    /// Asks for the root of a mount.
    Attach {
        /// Index into the list of mounts that the gofer was started with.
        mount: u32,
        /// [`VERSION`].
        version: u32,
    }
    /// The root of a mount.
    AttachReply {
        /// The [`MountFlags`] of the mount.
        flags: u32,
        /// 0.
        reserved: u32,
        /// The root: a directory, or the file of a file bind mount.
        root: Entry,
    }
    /// Asks for the nodes of successive names; `count` names follow, each with its length in one byte in front.
    Walk {
        /// Where to start.
        node: NodeId,
        /// Number of names, at most [`MAX_WALK`].
        count: u32,
    }
    /// What a walk found; `count` times [`Entry`] and the target of the last one, if it is a symbolic link, follow.
    WalkReply {
        /// Number of entries, at most the number of names.
        count: u32,
        /// 0, or why the walk went no further.
        error: u32,
        /// Length of the target in bytes; 0 if the last entry is no symbolic link.
        target: u32,
        /// 0.
        reserved: u32,
    }
    /// Asks for a descriptor.
    Open {
        /// A regular file (or a directory, if the mount allows it).
        node: NodeId,
        /// [`OpenFlags`].
        flags: u32,
    }
    /// Asks for a new file. Always exclusive: EEXIST when there is something of that name.
    Create {
        /// The directory.
        directory: NodeId,
        /// [`OpenFlags`].
        flags: u32,
        /// Permissions (07777).
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    }
    /// Asks for another new inode.
    Make {
        /// The directory.
        directory: NodeId,
        /// Permissions; for mknod also the file type. Ignored for symbolic links.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Length of the name, which is followed by the target of a symbolic link.
        name: u32,
    }
    /// Asks for a hard link.
    Link {
        /// What to link to.
        node: NodeId,
        /// Where the new name goes.
        directory: NodeId,
    }
    /// Asks for the removal of a name.
    Unlink {
        /// The directory.
        directory: NodeId,
        /// 1 to remove a directory (rmdir), 0 for anything else (unlink).
        is_directory: u32,
    }
    /// Asks for a rename.
    Rename {
        /// The directory of the old name.
        old_directory: NodeId,
        /// The directory of the new name.
        new_directory: NodeId,
        /// [`RenameFlags`].
        flags: u32,
        /// Length of the old name, which the new name follows.
        old_name: u32,
    }
    /// Asks for a change of the attributes that [`valid`](Self::valid) names, in this order: owner and group, mode,
    /// size, times.
    SetAttributes {
        /// The node.
        node: NodeId,
        /// [`SetFlags`].
        valid: u32,
        /// Permissions (07777).
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Size in bytes.
        size: u64,
        /// Last access.
        accessed: Timestamp,
        /// Last change of the contents.
        modified: Timestamp,
    }
    /// What statfs(2) tells.
    Statfs {
        /// The filesystem's magic number.
        kind: u64,
        /// Size of a block, in bytes.
        block_size: u64,
        /// Blocks in all.
        blocks: u64,
        /// Free blocks.
        blocks_free: u64,
        /// Free blocks for those without privilege.
        blocks_available: u64,
        /// Inodes in all.
        files: u64,
        /// Free inodes.
        files_free: u64,
        /// Longest name, in bytes.
        name_max: u64,
        /// Size of a fragment, in bytes.
        fragment_size: u64,
        /// `ST_*` mount flags.
        flags: u64,
    }
    /// Asks for directory entries, without `.` and `..`.
    ReadDir {
        /// The directory.
        node: NodeId,
        /// 0 for the start, else the cookie of the last entry seen.
        cookie: u64,
        /// The most bytes of entries wanted; the reply has at least one entry if there is one.
        limit: u32,
        /// 1 to have the attributes of each entry as well.
        attributes: u32,
    }
    /// In front of a batch of entries: each one is a [`DirEntryHeader`], its name, zeros up to a multiple of eight
    /// bytes, and [`Attributes`] where the header says so.
    ReadDirReply {
        /// Number of entries.
        count: u32,
        /// 1 if nothing follows the last one.
        end: u32,
    }
    /// In front of an entry's name.
    DirEntryHeader {
        /// Inode number.
        inode: U64,
        /// Where the next entry is.
        cookie: U64,
        /// `DT_*`.
        kind: u8,
        /// Length of the name.
        name: u8,
        /// 1 if attributes follow the name.
        attributes: u8,
        /// 0.
        reserved: u8,
    }
    /// Names an extended attribute.
    Xattr {
        /// The node.
        node: NodeId,
        /// 0, `XATTR_CREATE` (1) or `XATTR_REPLACE` (2); for setting only.
        flags: u32,
        /// Length of the name, which is followed by the value when setting.
        name: u32,
    }
    /// Asks for a write to storage.
    Sync {
        /// A regular file or a directory.
        node: NodeId,
        /// A [`SyncScope`].
        scope: u32,
    }
    /// Asks for a connection to a Unix socket of the host.
    Connect {
        /// The socket.
        node: NodeId,
        /// `SOCK_STREAM` (1), `SOCK_DGRAM` (2) or `SOCK_SEQPACKET` (5).
        kind: u32,
    }
}

/// A number of eight bytes without alignment.
pub type U64 = zerocopy::little_endian::U64;

bitflags! {
    /// What may be done with a mount.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// Nothing may be changed: EROFS.
        const READ_ONLY = 1;
        /// The guest may connect to Unix sockets of the host.
        const HOST_UDS = 2;
        /// Whiteouts (character devices 0:0) may be made.
        const WHITEOUTS = 4;
        /// `trusted.overlay.*` attributes may be read and written. The gofer keeps CAP_SYS_ADMIN for it.
        const TRUSTED_OVERLAY = 8;
        /// Directories may be opened too. The holder of a directory's descriptor is bound by the kernel's rules alone,
        /// not by this protocol; without the flag the answer is EISDIR.
        const DIRECTORY_DESCRIPTORS = 16;
    }

    /// How to open a file: the bits of open(2) that concern the descriptor's host side.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// `O_WRONLY`; reading only without this and the next one.
        const WRITE_ONLY = libc::O_WRONLY as u32;
        /// `O_RDWR`.
        const READ_WRITE = libc::O_RDWR as u32;
        /// `O_TRUNC`; needs write access.
        const TRUNCATE = libc::O_TRUNC as u32;
        /// `O_APPEND`.
        const APPEND = libc::O_APPEND as u32;
        /// `O_DSYNC`.
        const DATA_SYNC = libc::O_DSYNC as u32;
        /// `O_SYNC`, which includes `O_DSYNC`.
        const SYNC = libc::O_SYNC as u32;
        /// `O_DIRECT`.
        const DIRECT = libc::O_DIRECT as u32;
        /// `O_NOATIME`.
        const NO_ATIME = libc::O_NOATIME as u32;
    }

    /// Flags of renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        /// EEXIST if the new name exists.
        const NO_REPLACE = 1;
        /// Exchange the two names.
        const EXCHANGE = 2;
        /// Leave a whiteout behind; needs [`MountFlags::WHITEOUTS`].
        const WHITEOUT = 4;
    }

    /// What [`SetAttributes`] sets.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SetFlags: u32 {
        /// The permissions.
        const MODE = 1;
        /// The owner.
        const UID = 2;
        /// The group.
        const GID = 4;
        /// The size.
        const SIZE = 8;
        /// The time of last access.
        const ACCESSED = 16;
        /// The time of last access, to the host's present time.
        const ACCESSED_NOW = 32;
        /// The time of last change.
        const MODIFIED = 64;
        /// The time of last change, to the host's present time.
        const MODIFIED_NOW = 128;
    }
}

/// How much [`Sync`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SyncScope {
    /// The node: fsync(2).
    Node = 0,
    /// The node without attributes that reading does not need: fdatasync(2).
    Data = 1,
    /// The filesystem of the node: syncfs(2).
    Filesystem = 2,
}

impl SyncScope {
    /// The scope with this number, if there is one.
    pub fn from_raw(raw: u32) -> Option<SyncScope> {
        [SyncScope::Node, SyncScope::Data, SyncScope::Filesystem].into_iter().find(|&s| s as u32 == raw)
    }
}

/// A file's type, from `S_IFMT`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// A fifo.
    Fifo = libc::DT_FIFO,
    /// A character device.
    Character = libc::DT_CHR,
    /// A directory.
    Directory = libc::DT_DIR,
    /// A block device.
    Block = libc::DT_BLK,
    /// A regular file.
    Regular = libc::DT_REG,
    /// A symbolic link.
    Symlink = libc::DT_LNK,
    /// A socket.
    Socket = libc::DT_SOCK,
}

impl FileKind {
    /// The type in the upper bits of `st_mode`, or `None` if there is no such type.
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        FileKind::from_dirent(u8::try_from((mode & libc::S_IFMT) >> 12).ok()?)
    }

    /// The type that a `DT_*` number names; `None` for `DT_UNKNOWN` and what does not exist.
    pub fn from_dirent(kind: u8) -> Option<FileKind> {
        use FileKind::{Block, Character, Directory, Fifo, Regular, Socket, Symlink};
        [Fifo, Character, Directory, Block, Regular, Symlink, Socket].into_iter().find(|&k| k as u8 == kind)
    }

    /// The bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }
}

impl Attributes {
    /// The file's type.
    pub fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.mode)
    }
}

/// Checks the name of a directory entry: one component that is neither `.` nor `..`, without a slash or a NUL.
/// ENOENT if empty, ENAMETOOLONG beyond [`NAME_MAX`], otherwise EINVAL.
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        [] => Err(Errno::ENOENT),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.iter().any(|&b| b == b'/' || b == 0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// Checks the target of a symbolic link: ENOENT if empty, ENAMETOOLONG beyond [`TARGET_MAX`], EINVAL with a NUL.
pub fn check_target(target: &[u8]) -> Result<(), Errno> {
    match target {
        [] => Err(Errno::ENOENT),
        _ if target.len() > TARGET_MAX => Err(Errno::ENAMETOOLONG),
        _ if target.contains(&0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// How long a client waits for a reply before it looks whether it has waited enough; see [`crate::client`].
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A new channel: two connected sockets, closed on exec, whose buffers take messages of the largest size. The first is
/// the client's, and does not wait for longer than [`PATIENCE`].
pub fn channel_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pair = host::seqpacket_pair()?;
    host::limit_waits(&pair.0, PATIENCE)?;
    for end in [&pair.0, &pair.1] {
        host::grow_send_buffer(end, 2 * MAX_MESSAGE)?;
    }
    Ok(pair)
}

/// A message that is shorter, longer or other than it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed message")
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for Errno {
    fn from(_: Malformed) -> Errno {
        Errno::EPROTO
    }
}

/// A message under construction, never longer than [`MAX_MESSAGE`].
pub struct Message {
    bytes: Box<[u8]>,
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Message::new()
    }
}

impl Message {
    /// An empty message. Its buffer comes zeroed, so that pages not used are not resident.
    pub fn new() -> Message {
        Message { bytes: vec![0; MAX_MESSAGE].into_boxed_slice(), len: 0 }
    }

    /// What has been put in.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing has been put in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts the message to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends bytes; EMSGSIZE if they do not fit.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.spare().get_mut(..bytes.len()).ok_or(Errno::EMSGSIZE)?.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Appends a fixed-layout part; EMSGSIZE if it does not fit.
    pub fn put<T: IntoBytes + Immutable>(&mut self, part: &T) -> Result<(), Errno> {
        self.put_bytes(part.as_bytes())
    }

    /// Overwrites the fixed-layout part at `offset`, which was put there before.
    pub fn replace<T: IntoBytes + Immutable>(&mut self, offset: usize, part: &T) -> Result<(), Errno> {
        let part = part.as_bytes();
        let end = offset.checked_add(part.len()).filter(|&end| end <= self.len).ok_or(Errno::EMSGSIZE)?;
        self.bytes.get_mut(offset..end).ok_or(Errno::EMSGSIZE)?.copy_from_slice(part);
        Ok(())
    }

    /// The room that is left, to be filled in place; [`Message::advance`] makes it part of the message.
    pub fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or(&mut [])
    }

    /// Adds `len` bytes of the spare room to the message.
    pub fn advance(&mut self, len: usize) {
        self.len = self.len.saturating_add(len).min(self.bytes.len());
    }
}

/// Reads the parts of a message one after the other.
#[derive(Clone, Copy)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The parts of these bytes.
    pub fn new(bytes: &'a [u8]) -> Parts<'a> {
        Parts(bytes)
    }

    /// The next fixed-layout part.
    pub fn get<T: FromBytes>(&mut self) -> Result<T, Malformed> {
        let (part, rest) = T::read_from_prefix(self.0).map_err(|_| Malformed)?;
        self.0 = rest;
        Ok(part)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (part, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(part)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_components() {
        assert_eq!(check_name(b"a"), Ok(()));
        assert_eq!(check_name(b"..."), Ok(()));
        assert_eq!(check_name(&[b'x'; 255]), Ok(()));
        assert_eq!(check_name(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        assert_eq!(check_name(b""), Err(Errno::ENOENT));
        for bad in [&b"."[..], b"..", b"a/b", b"/", b"a\0"] {
            assert_eq!(check_name(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn a_message_never_outgrows_its_limit() {
        let mut message = Message::new();
        message.put_bytes(&[1; MAX_MESSAGE - 7]).unwrap();
        assert_eq!(message.put(&NodeId::default()), Err(Errno::EMSGSIZE));
        assert_eq!(message.len(), MAX_MESSAGE - 7);
        message.put_bytes(&[2; 7]).unwrap();
        assert_eq!(message.put_bytes(&[3]), Err(Errno::EMSGSIZE));
        assert_eq!(message.replace(MAX_MESSAGE - 7, &NodeId::default()), Err(Errno::EMSGSIZE));
        message.advance(usize::MAX);
        assert_eq!(message.len(), MAX_MESSAGE);
    }

    #[test]
    fn an_entry_is_no_longer_than_the_kernels() {
        // The server relies on it when it sizes its buffer: linux_dirent64 has 19 bytes, the name and a NUL.
        for name in 1..=NAME_MAX {
            let ours = (size_of::<DirEntryHeader>() + name).next_multiple_of(8);
            assert!(ours <= (19 + name + 1).next_multiple_of(8), "{name}");
        }
    }

    #[test]
    fn kinds_match_modes() {
        for mode in (0..=0o17).map(|kind| kind << 12) {
            assert!(FileKind::from_mode(mode).is_none_or(|kind| kind.mode_bits() == mode));
        }
        assert_eq!(FileKind::from_mode(libc::S_IFSOCK | 0o644), Some(FileKind::Socket));
        assert_eq!(FileKind::from_mode(0o644), None);
    }
}
