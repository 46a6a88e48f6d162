//! What requests do.

use std::sync::Arc;

use abi::fcntl::{OpenFlags, RenameFlags};
use abi::fuse::{
    FATTR_ATIME, FATTR_ATIME_NOW, FATTR_FH, FATTR_GID, FATTR_MODE, FATTR_MTIME, FATTR_MTIME_NOW, FATTR_SIZE,
    FATTR_UID, FOPEN_DIRECT_IO, FUSE_CREATE, FUSE_FLUSH, FUSE_FSYNC, FUSE_FSYNC_FDATASYNC, FUSE_FSYNCDIR,
    FUSE_GETATTR, FUSE_GETATTR_FH, FUSE_GETXATTR, FUSE_LINK, FUSE_LISTXATTR, FUSE_LOOKUP, FUSE_MKDIR,
    FUSE_MKNOD, FUSE_OPEN, FUSE_OPENDIR, FUSE_READ, FUSE_READDIR, FUSE_READLINK, FUSE_RELEASE,
    FUSE_RELEASEDIR, FUSE_REMOVEXATTR, FUSE_RENAME, FUSE_RENAME2, FUSE_RMDIR, FUSE_ROOT_ID, FUSE_SETATTR,
    FUSE_SETXATTR, FUSE_STATFS, FUSE_SYMLINK, FUSE_UNLINK, FUSE_WRITE, FuseAttr, FuseAttrOut, FuseCreateIn,
    FuseDirent, FuseEntryOut, FuseFsyncIn, FuseGetattrIn, FuseGetxattrIn, FuseGetxattrOut, FuseInHeader,
    FuseKstatfs, FuseLinkIn, FuseMkdirIn, FuseMknodIn, FuseOpenIn, FuseOpenOut, FuseReadIn, FuseReleaseIn,
    FuseRename2In, FuseRenameIn, FuseSetattrIn, FuseSetxattrIn, FuseWriteIn, FuseWriteOut,
};
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};

use super::{MAX_DATA, View, put, take, take_name};
use crate::task::Credentials;
use crate::vfs::io::SliceSource;
use crate::vfs::walk::{Last, NAME_MAX, PATH_MAX, Parent};
use crate::vfs::{Attributes, DirSink, File, Io, NewKind, Path, TimeUpdate, VecSink, notify, operations};

/// What the kernel's own operations on files go by: nobody waits.
const IO: Io<'static> = Io { task: None, nonblocking: true, append: false, direct: false };

/// Flags of open(2) that mean something here.
const OPEN_FLAGS: OpenFlags = OpenFlags::O_WRONLY.union(OpenFlags::O_RDWR).union(OpenFlags::O_APPEND);

impl View {
    /// Carries out a request, and adds the answer to `out`.
    pub(super) fn call(&mut self, header: &FuseInHeader, mut body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let id = header.nodeid;
        let body = &mut body;
        match header.opcode {
            FUSE_LOOKUP => {
                let parent = self.parent(id, take_name(body)?)?;
                self.put_found(&parent, out)
            }
            FUSE_GETATTR => {
                let get: FuseGetattrIn = take(body)?;
                let fh = (get.getattr_flags & FUSE_GETATTR_FH != 0).then_some(get.fh);
                let place = self.open_place(id, fh)?;
                self.put_attributes(&place, out)
            }
            FUSE_SETATTR => {
                let set = take(body)?;
                self.set_attributes(header, &set, out)
            }
            FUSE_READLINK => {
                let target = self.place(id)?.inode().readlink(&IO)?;
                if target.len() >= PATH_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                out.extend_from_slice(&target);
                Ok(())
            }
            FUSE_SYMLINK => {
                let parent = self.parent(id, take_name(body)?)?;
                let target = take_name(body)?.to_vec();
                self.make(header, &parent, NewKind::Symlink(target), 0o777, out)
            }
            FUSE_MKNOD => {
                let new: FuseMknodIn = take(body)?;
                let parent = self.parent(id, take_name(body)?)?;
                let rdev = u64::from(new.rdev);
                let kind = match FileType::from_mode(new.mode) {
                    Some(FileType::Regular) => NewKind::Regular,
                    Some(FileType::Fifo) => NewKind::Fifo,
                    Some(FileType::Socket) => NewKind::Socket,
                    Some(FileType::CharDevice) => NewKind::CharDevice(rdev),
                    Some(FileType::BlockDevice) => NewKind::BlockDevice(rdev),
                    Some(FileType::Directory | FileType::Symlink) | None => return Err(Errno::EINVAL),
                };
                self.make(header, &parent, kind, new.mode, out)
            }
            FUSE_MKDIR => {
                let new: FuseMkdirIn = take(body)?;
                let parent = self.parent(id, take_name(body)?)?;
                self.make(header, &parent, NewKind::Directory, new.mode, out)
            }
            FUSE_UNLINK | FUSE_RMDIR => {
                let parent = self.parent(id, take_name(body)?)?;
                operations::unlink_in(&self.caller(header), &parent, header.opcode == FUSE_RMDIR)
            }
            FUSE_RENAME => {
                let rename: FuseRenameIn = take(body)?;
                self.rename(header, rename.newdir, 0, body)
            }
            FUSE_RENAME2 => {
                let rename: FuseRename2In = take(body)?;
                self.rename(header, rename.newdir, rename.flags, body)
            }
            FUSE_LINK => {
                let link: FuseLinkIn = take(body)?;
                let target = self.place(link.oldnodeid)?;
                let parent = self.parent(id, take_name(body)?)?;
                operations::link_in(&self.caller(header), &target, &parent)?;
                self.put_found(&parent, out)
            }
            FUSE_OPEN | FUSE_OPENDIR => {
                let open: FuseOpenIn = take(body)?;
                let flags = OpenFlags::from_bits_truncate(open.flags) & OPEN_FLAGS;
                let place = self.place(id)?;
                if place.dentry().is_dir() != (header.opcode == FUSE_OPENDIR) {
                    return Err(if place.dentry().is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
                }
                self.open(header, place, flags, out)
            }
            FUSE_CREATE => {
                let create: FuseCreateIn = take(body)?;
                let parent = self.parent(id, take_name(body)?)?;
                self.create(header, &parent, &create, out)
            }
            FUSE_READ => self.read(&take(body)?, out),
            FUSE_WRITE => {
                let write: FuseWriteIn = take(body)?;
                let data = body.get(..write.size as usize).ok_or(Errno::EINVAL)?;
                self.write(&write, data, out)
            }
            FUSE_READDIR => self.read_dir(&take(body)?, out),
            FUSE_FLUSH => {
                let flush: FuseReleaseIn = take(body)?;
                self.nodes.file(flush.fh)?.operations().flush(&IO)
            }
            FUSE_RELEASE | FUSE_RELEASEDIR => {
                let release: FuseReleaseIn = take(body)?;
                self.nodes.close(release.fh);
                Ok(())
            }
            FUSE_FSYNC | FUSE_FSYNCDIR => {
                let sync: FuseFsyncIn = take(body)?;
                self.nodes.file(sync.fh)?.operations().sync(sync.fsync_flags & FUSE_FSYNC_FDATASYNC != 0)
            }
            FUSE_STATFS => self.put_status(id, out),
            FUSE_GETXATTR => {
                let get: FuseGetxattrIn = take(body)?;
                let name = take_name(body)?;
                check_xattr(name)?;
                put_xattr(&get, &self.place(id)?.inode().xattr(name)?, out)
            }
            FUSE_LISTXATTR => {
                let get: FuseGetxattrIn = take(body)?;
                let mut names = self.place(id)?.inode().xattr_names()?;
                names.iter_mut().for_each(|name| name.push(0));
                put_xattr(&get, &names.concat(), out)
            }
            FUSE_SETXATTR => {
                let set: FuseSetxattrIn = take(body)?;
                let name = take_name(body)?;
                let value = body.get(..set.size as usize).ok_or(Errno::EINVAL)?;
                let place = self.changeable(id, name)?;
                place.inode().set_xattr(name, value, set.flags & 1 != 0, set.flags & 2 != 0)?;
                notify::attrib(&place);
                Ok(())
            }
            FUSE_REMOVEXATTR => {
                let name = take_name(body)?;
                let place = self.changeable(id, name)?;
                place.inode().remove_xattr(name)?;
                notify::attrib(&place);
                Ok(())
            }
            // Among them FUSE_ACCESS: the host's kernel looks at modes by itself.
            _ => Err(Errno::ENOSYS),
        }
    }

    /// Root's credentials, with the ids of whoever asks: new files are theirs. That they may, the host's kernel has
    /// decided by the modes that it was told.
    fn caller(&self, header: &FuseInHeader) -> Credentials {
        Credentials { fsuid: header.uid, fsgid: header.gid, ..self.credentials.clone() }
    }

    fn place(&self, id: u64) -> Result<Path> {
        if id == FUSE_ROOT_ID { Ok(self.namespace.root()) } else { self.nodes.place(id) }
    }

    /// That of an open file, if one is named.
    fn open_place(&self, id: u64, fh: Option<u64>) -> Result<Path> {
        match fh {
            Some(fh) => Ok(self.nodes.file(fh)?.path().clone()),
            None => self.place(id),
        }
    }

    fn parent(&self, id: u64, name: &[u8]) -> Result<Parent> {
        let dir = self.place(id)?;
        if !dir.dentry().is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(Errno::EINVAL);
        }
        Ok(Parent { dir, last: Last::Name(name.to_vec()), slash: false })
    }

    fn find(&self, parent: &Parent) -> Result<Path> {
        let Last::Name(name) = &parent.last else { return Err(Errno::EINVAL) };
        let found = Path::new(parent.dir.mount().clone(), parent.dir.dentry().lookup(name)?);
        Ok(self.namespace.top(found))
    }

    /// Inode numbers are unique on the view, though those of its filesystems are not.
    fn ino(&self, place: &Path, ino: u64) -> u64 {
        let minor = |place: &Path| u64::from(abi::stat::minor(place.dentry().superblock().dev()));
        ino ^ ((minor(place) ^ minor(&self.namespace.root())) << 44)
    }

    fn attributes(&self, place: &Path) -> Result<FuseAttr> {
        let Attributes {
            ino, mode, nlink, uid, gid, rdev, size, blocks, blksize, atime, mtime, ctime, ..
        } = place.inode().attributes()?;
        Ok(FuseAttr {
            ino: self.ino(place, ino),
            size,
            blocks,
            atime: atime.tv_sec as u64,
            mtime: mtime.tv_sec as u64,
            ctime: ctime.tv_sec as u64,
            atimensec: atime.tv_nsec as u32,
            mtimensec: mtime.tv_nsec as u32,
            ctimensec: ctime.tv_nsec as u32,
            mode,
            nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
            uid,
            gid,
            rdev: rdev as u32,
            blksize,
            flags: 0,
        })
    }

    fn put_attributes(&self, place: &Path, out: &mut Vec<u8>) -> Result<()> {
        // They are valid for no time at all.
        put(out, &FuseAttrOut { attr: self.attributes(place)?, ..FuseAttrOut::default() });
        Ok(())
    }

    fn put_entry(&mut self, place: &Path, out: &mut Vec<u8>) -> Result<()> {
        let attr = self.attributes(place)?;
        put(out, &FuseEntryOut { nodeid: self.nodes.name(place)?, attr, ..FuseEntryOut::default() });
        Ok(())
    }

    fn put_found(&mut self, parent: &Parent, out: &mut Vec<u8>) -> Result<()> {
        let place = self.find(parent)?;
        self.put_entry(&place, out)
    }

    fn make(
        &mut self,
        header: &FuseInHeader,
        parent: &Parent,
        kind: NewKind,
        mode: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let creds = self.caller(header);
        let made = operations::create_in(&creds, &creds.user_ns, parent, kind, mode & 0o7777)?;
        self.put_entry(&made, out)
    }

    fn open(
        &mut self,
        header: &FuseInHeader,
        place: Path,
        flags: OpenFlags,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.nodes.check_room()?;
        let file = operations::open_plain(&self.caller(header), place, flags)?;
        // What is read comes from here each time: sizes of proc's files say nothing, and guests write, too.
        put(
            out,
            &FuseOpenOut {
                fh: self.nodes.opened(file),
                open_flags: FOPEN_DIRECT_IO,
                ..FuseOpenOut::default()
            },
        );
        Ok(())
    }

    fn create(
        &mut self,
        header: &FuseInHeader,
        parent: &Parent,
        create: &FuseCreateIn,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.nodes.check_room()?;
        let creds = self.caller(header);
        let flags = OpenFlags::from_bits_truncate(create.flags);
        let made =
            operations::create_in(&creds, &creds.user_ns, parent, NewKind::Regular, create.mode & 0o7777);
        let place = match made {
            // A guest was faster.
            Err(Errno::EEXIST) if !flags.contains(OpenFlags::O_EXCL) => self.find(parent)?,
            made => made?,
        };
        self.put_entry(&place, out)?;
        let opened = self.open(header, place, flags & OPEN_FLAGS, out);
        opened.inspect_err(|_| self.nodes.undo())
    }

    fn rename(&mut self, header: &FuseInHeader, to: u64, flags: u32, names: &mut &[u8]) -> Result<()> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        let old = self.parent(header.nodeid, take_name(names)?)?;
        let new = self.parent(to, take_name(names)?)?;
        operations::rename_in(&self.caller(header), &old, &new, flags)
    }

    fn set_attributes(
        &mut self,
        header: &FuseInHeader,
        set: &FuseSetattrIn,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let wants = |flag: u32| set.valid & flag != 0;
        let fh = wants(FATTR_FH).then_some(set.fh);
        let place = self.open_place(header.nodeid, fh)?;
        let creds = self.caller(header);
        let time = |chosen: u32, now: u32, seconds: u64, nanoseconds: u32| match (wants(chosen), wants(now)) {
            (true, true) => Ok(Some(TimeUpdate::Now)),
            (true, false) if nanoseconds >= 1_000_000_000 => Err(Errno::EINVAL),
            (true, false) => {
                Ok(Some(TimeUpdate::At(Timespec { tv_sec: seconds as i64, tv_nsec: i64::from(nanoseconds) })))
            }
            (false, _) => Ok(None),
        };
        let atime = time(FATTR_ATIME, FATTR_ATIME_NOW, set.atime, set.atimensec)?;
        let mtime = time(FATTR_MTIME, FATTR_MTIME_NOW, set.mtime, set.mtimensec)?;
        if wants(FATTR_SIZE) {
            match fh.map(|fh| self.nodes.file(fh)).transpose()? {
                Some(file) if file.flags().writable() => {
                    file.operations().truncate(set.size)?;
                    notify::modified(&place);
                }
                _ => operations::truncate(&creds, &place, set.size)?,
            }
        }
        let (uid, gid) = (wants(FATTR_UID).then_some(set.uid), wants(FATTR_GID).then_some(set.gid));
        if uid.is_some() || gid.is_some() {
            operations::chown(&creds, &place, uid, gid)?;
        }
        if wants(FATTR_MODE) {
            operations::chmod(&creds, &place, set.mode)?;
        }
        operations::set_times(&creds, &place, Some((atime, mtime)))?;
        self.put_attributes(&place, out)
    }

    fn read(&self, read: &FuseReadIn, out: &mut Vec<u8>) -> Result<()> {
        let file = self.nodes.file(read.fh)?;
        file.check_readable()?;
        let mut sink = VecSink::new((read.size as usize).min(MAX_DATA));
        file.operations().read(&file_io(file), &mut sink, read.offset)?;
        notify::accessed(file.path());
        out.extend_from_slice(&sink.data);
        Ok(())
    }

    fn write(&self, write: &FuseWriteIn, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let file = self.nodes.file(write.fh)?;
        file.check_writable()?;
        let mut source = SliceSource::new(data);
        let mut offset = write.offset;
        let written = file.operations().write(&file_io(file), &mut source, &mut offset)?;
        notify::modified(file.path());
        put(out, &FuseWriteOut { size: written as u32, ..FuseWriteOut::default() });
        Ok(())
    }

    fn read_dir(&self, read: &FuseReadIn, out: &mut Vec<u8>) -> Result<()> {
        let file = self.nodes.file(read.fh)?;
        let limit = out.len() + (read.size as usize).min(MAX_DATA);
        let mut entries = Entries { view: self, dir: file.path(), out, limit };
        file.operations().read_dir(&IO, read.offset, &mut entries)?;
        Ok(())
    }

    fn put_status(&self, id: u64, out: &mut Vec<u8>) -> Result<()> {
        let status = self.place(id)?.dentry().superblock().fs().status()?;
        let block_size = u32::try_from(status.block_size).unwrap_or(4096);
        put(
            out,
            &FuseKstatfs {
                blocks: status.blocks,
                bfree: status.blocks_free,
                bavail: status.blocks_available,
                files: status.files,
                ffree: status.files_free,
                bsize: block_size,
                namelen: status.name_max as u32,
                frsize: block_size,
                ..FuseKstatfs::default()
            },
        );
        Ok(())
    }

    /// A place whose extended attribute may be changed.
    fn changeable(&self, id: u64, name: &[u8]) -> Result<Path> {
        check_xattr(name)?;
        let place = self.place(id)?;
        if place.mount().is_read_only() { Err(Errno::EROFS) } else { Ok(place) }
    }
}

fn file_io(file: &Arc<File>) -> Io<'static> {
    Io { nonblocking: true, ..file.io(None) }
}

/// Those namespaces are there that guests know.
fn check_xattr(name: &[u8]) -> Result<()> {
    let known = [&b"user."[..], b"trusted.", b"security."].iter().any(|prefix| name.starts_with(prefix));
    if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

fn put_xattr(get: &FuseGetxattrIn, value: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if get.size == 0 {
        put(out, &FuseGetxattrOut { size: value.len() as u32, padding: 0 });
    } else if value.len() > get.size as usize {
        return Err(Errno::ERANGE);
    } else {
        out.extend_from_slice(value);
    }
    Ok(())
}

/// Entries of a directory, on their way into an answer.
struct Entries<'a> {
    view: &'a View,
    dir: &'a Path,
    out: &'a mut Vec<u8>,
    limit: usize,
}

impl DirSink for Entries<'_> {
    fn entry(&mut self, next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool {
        let length = (size_of::<FuseDirent>() + name.len()).next_multiple_of(8);
        if self.out.len() + length > self.limit {
            return false;
        }
        let end = self.out.len() + length;
        put(
            self.out,
            &FuseDirent {
                // Who lists a directory takes zero for "gone".
                ino: self.view.ino(self.dir, ino).max(1),
                off: next,
                namelen: name.len() as u32,
                kind: u32::from(file_type.dtype()),
            },
        );
        self.out.extend_from_slice(name);
        self.out.resize(end, 0);
        true
    }
}
