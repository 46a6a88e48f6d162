//! Requests that open, create, change, name or remove inodes.

use super::paths::{Name, Short};
use super::{Outcome, Server, attributes, only};
use crate::host;
use crate::protocol::{
    Connect, Create, FileKind, Link, Make, Message, MountFlags, Node, Open, OpenFlags, Parts, Rename,
    RenameFlags, SetAttributes, SetFlags, Statfs, Sync, SyncScope, TARGET_MAX, Timestamp, Unlink, check_name,
    check_target,
};
use abi::{Errno, Result};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use std::os::fd::{AsFd, OwnedFd};

impl Server {
    pub(super) fn open(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Open = only(parts)?;
        let held = self.nodes.get(request.node)?;
        let flags = OpenFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
        let writes = check_open(flags)?;
        let file = match held.kind {
            FileKind::Regular => {
                if writes {
                    self.writable(held)?;
                }
                // Not to wait for the holder of a lease.
                let flags = flags.bits() as i32 | libc::O_NOCTTY | libc::O_NONBLOCK;
                self.paths.reopen(held.fd.as_fd(), flags)?
            }
            FileKind::Directory => {
                if writes || !self.flags(held.mount).contains(MountFlags::DIRECTORY_DESCRIPTORS) {
                    return Err(Errno::EISDIR);
                }
                self.paths.open_directory(held.fd.as_fd())?
            }
            FileKind::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        };
        let attributes = attributes(file.as_fd())?;
        if attributes.kind() != Some(held.kind) {
            return Err(Errno::ENXIO);
        }
        reply.put(&attributes)?;
        Ok(Some(file))
    }

    pub(super) fn create(&mut self, mut parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Create = parts.get()?;
        let name = parts.rest();
        let held = self.nodes.directory(request.directory)?;
        self.writable(held)?;
        self.nodes.room()?;
        let flags = OpenFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
        let writes = check_open(flags)?;
        check_permissions(request.mode)?;
        let (name, how) = if name.is_empty() {
            if !writes {
                return Err(Errno::EINVAL);
            }
            (Name::new(&[b"."])?, libc::O_TMPFILE)
        } else {
            check_name(name)?;
            (Name::new(&[name])?, libc::O_CREAT | libc::O_EXCL)
        };
        let flags = flags.bits() as i32 | how | libc::O_NOCTTY | libc::O_NONBLOCK;
        let mount = held.mount;
        let file = self.owner.create(request.uid, request.gid, || {
            self.paths.open_at(held.fd.as_fd(), name.as_c_str(), flags, request.mode)
        })?;
        // Through the new file itself: its name may already mean something else.
        let node = self.paths.reopen(file.as_fd(), libc::O_PATH)?;
        let (entry, _) = self.hold(node, mount)?;
        reply.put(&entry)?;
        Ok(Some(file))
    }

    pub(super) fn mkdir(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        self.make(parts, reply, |server, request, name, rest| {
            if !rest.is_empty() {
                return Err(Errno::EPROTO);
            }
            check_permissions(request.mode)?;
            let directory = server.nodes.directory(request.directory)?.fd.as_fd();
            Ok(nix::sys::stat::mkdirat(directory, name.as_c_str(), Mode::from_bits_truncate(request.mode))?)
        })
    }

    pub(super) fn mknod(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        self.make(parts, reply, |server, request, name, rest| {
            if !rest.is_empty() {
                return Err(Errno::EPROTO);
            }
            let held = server.nodes.directory(request.directory)?;
            let kind = FileKind::from_mode(request.mode).ok_or(Errno::EINVAL)?;
            let permissions = request.mode & !libc::S_IFMT;
            check_permissions(permissions)?;
            let allowed = match kind {
                FileKind::Regular | FileKind::Fifo | FileKind::Socket => true,
                FileKind::Character => server.flags(held.mount).contains(MountFlags::WHITEOUTS),
                _ => false,
            };
            if !allowed {
                return Err(Errno::EPERM);
            }
            let bits = SFlag::from_bits_truncate(kind.mode_bits());
            let mode = Mode::from_bits_truncate(permissions);
            Ok(nix::sys::stat::mknodat(held.fd.as_fd(), name.as_c_str(), bits, mode, 0)?)
        })
    }

    pub(super) fn symlink(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        self.make(parts, reply, |server, request, name, target| {
            check_target(target)?;
            let target = Short::<{ TARGET_MAX + 1 }>::new(&[target])?;
            let directory = server.nodes.directory(request.directory)?.fd.as_fd();
            Ok(nix::unistd::symlinkat(target.as_c_str(), directory, name.as_c_str())?)
        })
    }

    fn make(
        &mut self,
        mut parts: Parts<'_>,
        reply: &mut Message,
        make: impl FnOnce(&Server, &Make, &Name, &[u8]) -> Result<()>,
    ) -> Outcome {
        let request: Make = parts.get()?;
        let name = parts.take(request.name as usize)?;
        let held = self.writable_directory(request.directory, name)?;
        self.nodes.room()?;
        let c_name = Name::new(&[name])?;
        let mount = held.mount;
        self.owner.create(request.uid, request.gid, || make(self, &request, &c_name, parts.rest()))?;
        // Whoever replaces the new inode at this moment gets a node of the replacement into the reply; that is what a
        // walk just after would have found too.
        let fd = self.paths.look_up(self.nodes.directory(request.directory)?.fd.as_fd(), name)?;
        let (entry, _) = self.hold(fd, mount)?;
        reply.put(&entry)?;
        Ok(None)
    }

    pub(super) fn link(&mut self, mut parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Link = parts.get()?;
        let name = parts.rest();
        let directory = self.writable_directory(request.directory, name)?;
        let held = self.nodes.get(request.node)?;
        if held.mount != directory.mount {
            return Err(Errno::EXDEV);
        }
        let from = self.paths.link(held.fd.as_fd())?;
        let name = Name::new(&[name])?;
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        nix::unistd::linkat(AT_FDCWD, from.as_c_str(), directory.fd.as_fd(), name.as_c_str(), follow)?;
        reply.put(&attributes(held.fd.as_fd())?)?;
        Ok(None)
    }

    pub(super) fn unlink(&mut self, mut parts: Parts<'_>) -> Outcome {
        let request: Unlink = parts.get()?;
        let name = parts.rest();
        let held = self.writable_directory(request.directory, name)?;
        let what = match request.is_directory {
            0 => UnlinkatFlags::NoRemoveDir,
            1 => UnlinkatFlags::RemoveDir,
            _ => return Err(Errno::EINVAL),
        };
        nix::unistd::unlinkat(held.fd.as_fd(), Name::new(&[name])?.as_c_str(), what)?;
        Ok(None)
    }

    pub(super) fn rename(&mut self, mut parts: Parts<'_>) -> Outcome {
        let request: Rename = parts.get()?;
        let old_name = parts.take(request.old_name as usize)?;
        let new_name = parts.rest();
        let old = self.writable_directory(request.old_directory, old_name)?;
        let new = self.writable_directory(request.new_directory, new_name)?;
        if old.mount != new.mount {
            return Err(Errno::EXDEV);
        }
        let flags = RenameFlags::from_bits(request.flags).ok_or(Errno::EINVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) && !self.flags(old.mount).contains(MountFlags::WHITEOUTS) {
            return Err(Errno::EPERM);
        }
        let (old_name, new_name) = (Name::new(&[old_name])?, Name::new(&[new_name])?);
        host::rename(
            (old.fd.as_fd(), old_name.as_c_str()),
            (new.fd.as_fd(), new_name.as_c_str()),
            flags.bits(),
        )?;
        Ok(None)
    }

    pub(super) fn set_attributes(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: SetAttributes = only(parts)?;
        let held = self.nodes.get(request.node)?;
        self.writable(held)?;
        let valid = SetFlags::from_bits(request.valid).ok_or(Errno::EINVAL)?;
        let times = [
            time(valid, SetFlags::ACCESSED, SetFlags::ACCESSED_NOW, request.accessed)?,
            time(valid, SetFlags::MODIFIED, SetFlags::MODIFIED_NOW, request.modified)?,
        ];
        let size = if valid.contains(SetFlags::SIZE) {
            match held.kind {
                FileKind::Regular => Some(i64::try_from(request.size).map_err(|_| Errno::EINVAL)?),
                FileKind::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
        } else {
            None
        };
        if valid.contains(SetFlags::MODE) {
            check_permissions(request.mode)?;
            // Linux has no permissions of symbolic links.
            if held.kind == FileKind::Symlink {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        let link = self.paths.link(held.fd.as_fd())?;
        if valid.intersects(SetFlags::UID | SetFlags::GID) {
            let id = |flag, id| if !valid.contains(flag) { Ok(None) } else { valid_id(id).map(Some) };
            let uid = id(SetFlags::UID, request.uid)?.map(Uid::from_raw);
            let gid = id(SetFlags::GID, request.gid)?.map(Gid::from_raw);
            nix::unistd::fchownat(held.fd.as_fd(), c"", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        if valid.contains(SetFlags::MODE) {
            let mode = Mode::from_bits_truncate(request.mode);
            nix::sys::stat::fchmodat(
                AT_FDCWD,
                link.as_c_str(),
                mode,
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )?;
        }
        if let Some(size) = size {
            nix::unistd::truncate(link.as_c_str(), size)?;
        }
        if times.iter().any(|time| time.1 != libc::UTIME_OMIT) {
            host::set_times(link.as_c_str(), times)?;
        }
        reply.put(&attributes(held.fd.as_fd())?)?;
        Ok(None)
    }

    pub(super) fn statfs(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Node = only(parts)?;
        let from = host::fstatfs(self.nodes.get(request.node)?.fd.as_fd())?;
        reply.put(&Statfs {
            kind: from.f_type as u64,
            block_size: from.f_bsize as u64,
            blocks: from.f_blocks,
            blocks_free: from.f_bfree,
            blocks_available: from.f_bavail,
            files: from.f_files,
            files_free: from.f_ffree,
            name_max: from.f_namelen as u64,
            fragment_size: from.f_frsize as u64,
            flags: from.f_flags as u64,
        })?;
        Ok(None)
    }

    pub(super) fn sync(&mut self, parts: Parts<'_>) -> Outcome {
        let request: Sync = only(parts)?;
        let scope = SyncScope::from_raw(request.scope).ok_or(Errno::EINVAL)?;
        let held = self.nodes.get(request.node)?;
        let file: OwnedFd = match held.kind {
            FileKind::Directory => self.paths.open_directory(held.fd.as_fd())?,
            FileKind::Regular => {
                let flags = libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK;
                self.paths.reopen(held.fd.as_fd(), flags)?
            }
            _ => return Err(Errno::EINVAL),
        };
        match scope {
            SyncScope::Node => nix::unistd::fsync(&file)?,
            SyncScope::Data => nix::unistd::fdatasync(&file)?,
            SyncScope::Filesystem => host::syncfs(file.as_fd())?,
        }
        Ok(None)
    }

    pub(super) fn connect(&mut self, parts: Parts<'_>) -> Outcome {
        let request: Connect = only(parts)?;
        let held = self.nodes.get(request.node)?;
        if held.kind != FileKind::Socket || !self.flags(held.mount).contains(MountFlags::HOST_UDS) {
            return Err(Errno::ECONNREFUSED);
        }
        let kind = i32::try_from(request.kind).map_err(|_| Errno::EINVAL)?;
        if ![libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].contains(&kind) {
            return Err(Errno::EINVAL);
        }
        host::connect_unix(kind, self.paths.link(held.fd.as_fd())?.as_c_str()).map(Some)
    }
}

/// Checks open flags; true if they ask for writing.
fn check_open(flags: OpenFlags) -> Result<bool> {
    let writes = match flags & (OpenFlags::WRITE_ONLY | OpenFlags::READ_WRITE) {
        OpenFlags::WRITE_ONLY | OpenFlags::READ_WRITE => true,
        none if none.is_empty() => false,
        _ => return Err(Errno::EINVAL),
    };
    if flags.contains(OpenFlags::TRUNCATE) && !writes { Err(Errno::EINVAL) } else { Ok(writes) }
}

fn check_permissions(mode: u32) -> Result<()> {
    if mode & !0o7777 == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// -1 would mean "leave it".
fn valid_id(id: u32) -> Result<u32> {
    if id == u32::MAX { Err(Errno::EINVAL) } else { Ok(id) }
}

/// A time for utimensat(2).
fn time(valid: SetFlags, to: SetFlags, now: SetFlags, time: Timestamp) -> Result<(i64, i64)> {
    match (valid.contains(to), valid.contains(now)) {
        (true, true) => Err(Errno::EINVAL),
        (false, true) => Ok((0, libc::UTIME_NOW)),
        (false, false) => Ok((0, libc::UTIME_OMIT)),
        (true, false) => match i64::try_from(time.nanoseconds) {
            Ok(nanoseconds) if nanoseconds < 1_000_000_000 => Ok((time.seconds, nanoseconds)),
            _ => Err(Errno::EINVAL),
        },
    }
}
