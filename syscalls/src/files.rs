//! Calls on paths (fs/open.c, fs/namei.c, fs/stat.c, fs/attr.c, fs/readdir.c).

use std::sync::Arc;

use abi::capability::{CAP_DAC_READ_SEARCH, CAP_SYS_CHROOT};
use abi::dirent::{encode_dirent, encode_dirent64};
use abi::fcntl::{AtFlags, OpenFlags, OpenHow, RenameFlags, ResolveFlags};
use abi::stat::{FileType, Stat, Statfs, Statx, StatxMask, StatxTimestamp, UTIME_NOW, UTIME_OMIT};
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::vfs::operations::{self, OpenRequest};
use sentry::vfs::{DirSink, File, NewKind, Path, TimeUpdate, WalkFlags};

use crate::arguments::{Address, UserCStr, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    OPEN => open;
    OPENAT => openat;
    OPENAT2 => openat2;
    CREAT => creat;
    STAT => stat;
    FSTAT => fstat;
    LSTAT => lstat;
    NEWFSTATAT => newfstatat;
    STATX => statx;
    ACCESS => access;
    FACCESSAT => faccessat;
    FACCESSAT2 => faccessat2;
    MKDIR => mkdir;
    MKDIRAT => mkdirat;
    MKNOD => mknod;
    MKNODAT => mknodat;
    RMDIR => rmdir;
    UNLINK => unlink;
    UNLINKAT => unlinkat;
    LINK => link;
    LINKAT => linkat;
    SYMLINK => symlink;
    SYMLINKAT => symlinkat;
    READLINK => readlink;
    READLINKAT => readlinkat;
    RENAME => rename;
    RENAMEAT => renameat;
    RENAMEAT2 => renameat2;
    CHMOD => chmod;
    FCHMOD => fchmod;
    FCHMODAT => fchmodat;
    FCHMODAT2 => fchmodat2;
    CHOWN => chown;
    LCHOWN => lchown;
    FCHOWN => fchown;
    FCHOWNAT => fchownat;
    UTIME => utime;
    UTIMES => utimes;
    FUTIMESAT => futimesat;
    UTIMENSAT => utimensat;
    TRUNCATE => truncate;
    GETDENTS => getdents;
    GETDENTS64 => getdents64;
    CHDIR => chdir;
    FCHDIR => fchdir;
    GETCWD => getcwd;
    CHROOT => chroot;
    UMASK => umask;
    STATFS => statfs;
    FSTATFS => fstatfs;
};

/// AT_FDCWD.
pub const AT_FDCWD: i32 = -100;

/// Where a relative path starts: `None` for the working directory. An absolute path does not look at `dirfd`.
pub fn start_of(task: &CurrentTask, dirfd: i32, path: &[u8]) -> Result<Option<Path>> {
    if dirfd == AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(None);
    }
    let file = task.file(dirfd)?;
    if !path.is_empty() && !file.path().dentry().is_dir() {
        return Err(Errno::ENOTDIR);
    }
    Ok(Some(file.path().clone()))
}

/// Resolves the path argument of an `*at` call.
pub fn resolve_at(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: WalkFlags) -> Result<Path> {
    let path = path.path(task)?;
    let start = start_of(task, dirfd, &path)?;
    operations::resolve(task, start.as_ref(), &path, flags)
}

/// As [`resolve_at`], with AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH; a null path with AT_EMPTY_PATH is an empty one.
pub fn resolve_flags(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: AtFlags) -> Result<Path> {
    let mut walk = WalkFlags::FOLLOW;
    if flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW) {
        walk -= WalkFlags::FOLLOW;
    }
    if flags.contains(AtFlags::AT_EMPTY_PATH) {
        walk |= WalkFlags::EMPTY;
        if path.is_null() {
            let start = start_of(task, dirfd, b"")?;
            return operations::resolve(task, start.as_ref(), b"", walk);
        }
    }
    resolve_at(task, dirfd, path, walk)
}

/// The bits of a flags argument that a call knows; EINVAL for others.
pub(crate) fn at_flags(flags: u32, known: AtFlags) -> Result<AtFlags> {
    let flags = AtFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if (flags - known).is_empty() { Ok(flags) } else { Err(Errno::EINVAL) }
}

/// Has the number of AT_REMOVEDIR, with another meaning for faccessat2(2).
const AT_EACCESS: AtFlags = AtFlags::AT_REMOVEDIR;

pub(crate) const EMPTY_OR_NOFOLLOW: AtFlags = AtFlags::AT_EMPTY_PATH.union(AtFlags::AT_SYMLINK_NOFOLLOW);

fn open_at(task: &CurrentTask, dirfd: i32, path: &[u8], request: &OpenRequest) -> Result<i32> {
    let start = start_of(task, dirfd, path)?;
    let file = operations::open(task, start.as_ref(), path, request)?;
    task.install(file, request.flags.contains(OpenFlags::O_CLOEXEC))
}

/// The flags that open(2) knows; it ignores others.
fn open_request(flags: u32, mode: u32) -> Result<OpenRequest> {
    let mut flags = OpenFlags::from_bits_truncate(flags);
    let creates = flags.contains(OpenFlags::O_CREAT) || flags.is_tmpfile();
    if flags.contains(OpenFlags::O_PATH) {
        flags &= OpenFlags::O_PATH | OpenFlags::O_DIRECTORY | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
    } else {
        let temporary = flags.contains(OpenFlags::__O_TMPFILE);
        let both = flags.contains(OpenFlags::O_CREAT | OpenFlags::O_DIRECTORY);
        if (temporary && !(flags.is_tmpfile() && flags.writable())) || (both && !temporary) {
            return Err(Errno::EINVAL);
        }
    }
    let mode = if creates { mode & 0o7777 } else { 0 };
    Ok(OpenRequest { flags, mode, resolve: WalkFlags::empty() })
}

fn open(task: &CurrentTask, path: UserCStr, flags: u32, mode: u32) -> Result<i32> {
    openat(task, AT_FDCWD, path, flags, mode)
}

fn creat(task: &CurrentTask, path: UserCStr, mode: u32) -> Result<i32> {
    let flags = OpenFlags::O_CREAT | OpenFlags::O_WRONLY | OpenFlags::O_TRUNC;
    openat(task, AT_FDCWD, path, flags.bits(), mode)
}

fn openat(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32, mode: u32) -> Result<i32> {
    let request = open_request(flags, mode)?;
    open_at(task, dirfd, &path.path(task)?, &request)
}

fn openat2(task: &CurrentTask, dirfd: i32, path: UserCStr, how: Address, size: usize) -> Result<i32> {
    let how: OpenHow = read_extensible(task, how.0, size, size_of::<OpenHow>())?;
    let flags = u32::try_from(how.flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let resolve = ResolveFlags::from_bits(how.resolve).ok_or(Errno::EINVAL)?;
    let creates = flags.contains(OpenFlags::O_CREAT) || flags.is_tmpfile();
    if how.mode & !0o7777 != 0 || (!creates && how.mode != 0) {
        return Err(Errno::EINVAL);
    }
    let path_flags =
        OpenFlags::O_PATH | OpenFlags::O_DIRECTORY | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
    if flags.contains(OpenFlags::O_PATH) && !(flags - path_flags).is_empty() {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(ResolveFlags::RESOLVE_BENEATH | ResolveFlags::RESOLVE_IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(ResolveFlags::RESOLVE_CACHED) {
        // Nothing is known to be cached here: the caller is to try again without it.
        return Err(Errno::EAGAIN);
    }
    let mut request = open_request(flags.bits(), how.mode as u32)?;
    for (from, to) in [
        (ResolveFlags::RESOLVE_NO_XDEV, WalkFlags::NO_XDEV),
        (ResolveFlags::RESOLVE_NO_MAGICLINKS, WalkFlags::NO_MAGICLINKS),
        (ResolveFlags::RESOLVE_NO_SYMLINKS, WalkFlags::NO_SYMLINKS),
        (ResolveFlags::RESOLVE_BENEATH, WalkFlags::BENEATH),
        (ResolveFlags::RESOLVE_IN_ROOT, WalkFlags::IN_ROOT),
    ] {
        if resolve.contains(from) {
            request.resolve |= to;
        }
    }
    let path = path.path(task)?;
    if request.resolve.contains(WalkFlags::IN_ROOT) && dirfd != AT_FDCWD {
        // An absolute path starts at the descriptor too.
        let dir = task.file(dirfd)?.path().clone();
        let file = operations::open(task, Some(&dir), &path, &request)?;
        return task.install(file, request.flags.contains(OpenFlags::O_CLOEXEC));
    }
    open_at(task, dirfd, &path, &request)
}

/// copy_struct_from_user(): a structure that may be longer or shorter than the one known. E2BIG if what is not known
/// is not zero, EINVAL below the first version's size.
pub fn read_extensible<T>(task: &CurrentTask, addr: u64, size: usize, first_version: usize) -> Result<T>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    if size < first_version {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0u8; size.max(size_of::<T>())];
    task.mm().read_bytes(addr, &mut bytes[..size])?;
    if bytes[size_of::<T>()..].iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    T::read_from_bytes(&bytes[..size_of::<T>()]).map_err(|_| Errno::EINVAL)
}

fn stat_of(task: &CurrentTask, place: &Path) -> Result<Stat> {
    let a = place.inode().attributes()?;
    let user_ns = task.credentials().user_ns.clone();
    Ok(Stat {
        st_dev: place.dentry().superblock().dev(),
        st_ino: a.ino,
        st_nlink: a.nlink,
        st_mode: a.mode,
        st_uid: user_ns.uid(a.uid),
        st_gid: user_ns.gid(a.gid),
        st_rdev: a.rdev,
        st_size: a.size as i64,
        st_blksize: a.blksize.into(),
        st_blocks: a.blocks as i64,
        st_atime: a.atime.tv_sec as u64,
        st_atime_nsec: a.atime.tv_nsec as u64,
        st_mtime: a.mtime.tv_sec as u64,
        st_mtime_nsec: a.mtime.tv_nsec as u64,
        st_ctime: a.ctime.tv_sec as u64,
        st_ctime_nsec: a.ctime.tv_nsec as u64,
        ..Stat::default()
    })
}

fn stat(task: &CurrentTask, path: UserCStr, buf: UserPtr<Stat>) -> Result<()> {
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)?;
    buf.write(task, &stat_of(task, &place)?)
}

fn lstat(task: &CurrentTask, path: UserCStr, buf: UserPtr<Stat>) -> Result<()> {
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::empty())?;
    buf.write(task, &stat_of(task, &place)?)
}

fn fstat(task: &CurrentTask, fd: i32, buf: UserPtr<Stat>) -> Result<()> {
    let file = task.file(fd)?;
    buf.write(task, &stat_of(task, file.path())?)
}

fn newfstatat(task: &CurrentTask, dirfd: i32, path: UserCStr, buf: UserPtr<Stat>, flags: u32) -> Result<()> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT)?;
    let place = resolve_flags(task, dirfd, path, flags)?;
    buf.write(task, &stat_of(task, &place)?)
}

fn statx(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    flags: u32,
    mask: u32,
    buf: UserPtr<Statx>,
) -> Result<()> {
    const SYNC_TYPE: u32 = 0x6000;
    if mask & 0x8000_0000 != 0 || flags & SYNC_TYPE == SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let known = EMPTY_OR_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
    let flags = at_flags(flags & !SYNC_TYPE, known)?;
    let place = resolve_flags(task, dirfd, path, flags)?;
    let s = stat_of(task, &place)?;
    let a = place.inode().attributes()?;
    let time =
        |t: Timespec| StatxTimestamp { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec as u32, ..Default::default() };
    let unique = mask & StatxMask::STATX_MNT_ID_UNIQUE.bits() != 0;
    let id_mask = if unique { StatxMask::STATX_MNT_ID_UNIQUE } else { StatxMask::STATX_MNT_ID };
    let mut result_mask = StatxMask::STATX_BASIC_STATS | id_mask;
    if a.btime != Timespec::default() {
        result_mask |= StatxMask::STATX_BTIME;
    }
    let is_root = Arc::ptr_eq(place.dentry(), place.mount().root());
    buf.write(
        task,
        &Statx {
            stx_mask: result_mask.bits(),
            stx_blksize: a.blksize,
            stx_attributes: if is_root { 0x2000 } else { 0 },
            stx_attributes_mask: 0x2000,
            stx_nlink: a.nlink as u32,
            stx_uid: s.st_uid,
            stx_gid: s.st_gid,
            stx_mode: a.mode as u16,
            stx_ino: a.ino,
            stx_size: a.size,
            stx_blocks: a.blocks,
            stx_atime: time(a.atime),
            stx_btime: time(a.btime),
            stx_ctime: time(a.ctime),
            stx_mtime: time(a.mtime),
            stx_rdev_major: abi::stat::major(a.rdev),
            stx_rdev_minor: abi::stat::minor(a.rdev),
            stx_dev_major: abi::stat::major(s.st_dev),
            stx_dev_minor: abi::stat::minor(s.st_dev),
            stx_mnt_id: if unique {
                crate::mount_list::unique_id(place.mount())
            } else {
                place.mount().id().into()
            },
            ..Statx::default()
        },
    )
}

fn access(task: &CurrentTask, path: UserCStr, mode: u32) -> Result<()> {
    do_access(task, AT_FDCWD, path, mode, AtFlags::empty())
}

fn faccessat(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32) -> Result<()> {
    do_access(task, dirfd, path, mode, AtFlags::empty())
}

fn faccessat2(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32, flags: u32) -> Result<()> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW | AT_EACCESS)?;
    do_access(task, dirfd, path, mode, flags)
}

fn do_access(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32, flags: AtFlags) -> Result<()> {
    if mode & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let place = resolve_flags(task, dirfd, path, flags)?;
    if mode == 0 {
        return Ok(());
    }
    operations::access(task, &place, mode, flags.contains(AT_EACCESS))
}

fn create_at(task: &CurrentTask, dirfd: i32, path: UserCStr, kind: NewKind, mode: u32) -> Result<()> {
    let path = path.path(task)?;
    let start = start_of(task, dirfd, &path)?;
    operations::create(task, start.as_ref(), &path, kind, mode).map(drop)
}

fn mkdir(task: &CurrentTask, path: UserCStr, mode: u32) -> Result<()> {
    create_at(task, AT_FDCWD, path, NewKind::Directory, mode)
}

fn mkdirat(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32) -> Result<()> {
    create_at(task, dirfd, path, NewKind::Directory, mode)
}

fn mknod(task: &CurrentTask, path: UserCStr, mode: u32, dev: u64) -> Result<()> {
    mknodat(task, AT_FDCWD, path, mode, dev)
}

fn mknodat(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32, dev: u64) -> Result<()> {
    // The number of a device is 32 bits wide on its way in.
    let dev = u64::from(dev as u32);
    let kind = match mode & abi::stat::S_IFMT {
        0 | abi::stat::S_IFREG => NewKind::Regular,
        abi::stat::S_IFCHR => NewKind::CharDevice(dev),
        abi::stat::S_IFBLK => NewKind::BlockDevice(dev),
        abi::stat::S_IFIFO => NewKind::Fifo,
        abi::stat::S_IFSOCK => NewKind::Socket,
        abi::stat::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    create_at(task, dirfd, path, kind, mode & 0o7777)
}

fn symlink(task: &CurrentTask, target: UserCStr, path: UserCStr) -> Result<()> {
    symlinkat(task, target, AT_FDCWD, path)
}

fn symlinkat(task: &CurrentTask, target: UserCStr, dirfd: i32, path: UserCStr) -> Result<()> {
    let target = target.path(task)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    create_at(task, dirfd, path, NewKind::Symlink(target), 0o777)
}

fn rmdir(task: &CurrentTask, path: UserCStr) -> Result<()> {
    do_unlink(task, AT_FDCWD, path, true)
}

fn unlink(task: &CurrentTask, path: UserCStr) -> Result<()> {
    do_unlink(task, AT_FDCWD, path, false)
}

fn unlinkat(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<()> {
    let flags = at_flags(flags, AtFlags::AT_REMOVEDIR)?;
    do_unlink(task, dirfd, path, flags.contains(AtFlags::AT_REMOVEDIR))
}

fn do_unlink(task: &CurrentTask, dirfd: i32, path: UserCStr, directory: bool) -> Result<()> {
    let path = path.path(task)?;
    let start = start_of(task, dirfd, &path)?;
    operations::unlink(task, start.as_ref(), &path, directory)
}

fn link(task: &CurrentTask, old: UserCStr, new: UserCStr) -> Result<()> {
    linkat(task, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn linkat(
    task: &CurrentTask,
    old_dir: i32,
    old: UserCStr,
    new_dir: i32,
    new: UserCStr,
    flags: u32,
) -> Result<()> {
    let flags = at_flags(flags, AtFlags::AT_SYMLINK_FOLLOW | AtFlags::AT_EMPTY_PATH)?;
    let mut walk = WalkFlags::empty();
    if flags.contains(AtFlags::AT_SYMLINK_FOLLOW) {
        walk |= WalkFlags::FOLLOW;
    }
    if flags.contains(AtFlags::AT_EMPTY_PATH) {
        if !task.credentials().capable_in(&task.kernel().user_ns, CAP_DAC_READ_SEARCH) {
            return Err(Errno::ENOENT);
        }
        walk |= WalkFlags::EMPTY;
    }
    let target = resolve_at(task, old_dir, old, walk)?;
    let path = new.path(task)?;
    let start = start_of(task, new_dir, &path)?;
    operations::link(task, &target, start.as_ref(), &path)
}

fn readlink(task: &CurrentTask, path: UserCStr, buf: Address, size: i32) -> Result<usize> {
    readlinkat(task, AT_FDCWD, path, buf, size)
}

fn readlinkat(task: &CurrentTask, dirfd: i32, path: UserCStr, buf: Address, size: i32) -> Result<usize> {
    let size = usize::try_from(size).ok().filter(|&s| s > 0).ok_or(Errno::EINVAL)?;
    let bytes = path.path(task)?;
    let start = start_of(task, dirfd, &bytes)?;
    let place = operations::resolve(task, start.as_ref(), &bytes, WalkFlags::EMPTY)?;
    if place.inode().file_type() != FileType::Symlink {
        return Err(if bytes.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let target = place.inode().readlink(&task.io())?;
    let len = target.len().min(size);
    task.mm().write_result(buf.0, &target[..len])?;
    Ok(len)
}

fn rename(task: &CurrentTask, old: UserCStr, new: UserCStr) -> Result<()> {
    renameat2(task, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn renameat(task: &CurrentTask, old_dir: i32, old: UserCStr, new_dir: i32, new: UserCStr) -> Result<()> {
    renameat2(task, old_dir, old, new_dir, new, 0)
}

fn renameat2(
    task: &CurrentTask,
    old_dir: i32,
    old: UserCStr,
    new_dir: i32,
    new: UserCStr,
    flags: u32,
) -> Result<()> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let (old, new) = (old.path(task)?, new.path(task)?);
    let old_start = start_of(task, old_dir, &old)?;
    let new_start = start_of(task, new_dir, &new)?;
    operations::rename(task, (old_start.as_ref(), &old), (new_start.as_ref(), &new), flags)
}

fn chmod(task: &CurrentTask, path: UserCStr, mode: u32) -> Result<()> {
    fchmodat(task, AT_FDCWD, path, mode)
}

fn fchmodat(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32) -> Result<()> {
    operations::chmod(&task.credentials(), &resolve_at(task, dirfd, path, WalkFlags::FOLLOW)?, mode)
}

fn fchmodat2(task: &CurrentTask, dirfd: i32, path: UserCStr, mode: u32, flags: u32) -> Result<()> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW)?;
    operations::chmod(&task.credentials(), &resolve_flags(task, dirfd, path, flags)?, mode)
}

fn fchmod(task: &CurrentTask, fd: i32, mode: u32) -> Result<()> {
    operations::chmod(&task.credentials(), task.real_file(fd)?.path(), mode)
}

fn do_chown(task: &CurrentTask, place: &Path, uid: u32, gid: u32) -> Result<()> {
    let ns = task.credentials().user_ns.clone();
    let kernel_uid = if uid == u32::MAX { None } else { Some(ns.kernel_uid(uid)?) };
    let kernel_gid = if gid == u32::MAX { None } else { Some(ns.kernel_gid(gid)?) };
    operations::chown(&task.credentials(), place, kernel_uid, kernel_gid)
}

fn chown(task: &CurrentTask, path: UserCStr, uid: u32, gid: u32) -> Result<()> {
    do_chown(task, &resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)?, uid, gid)
}

fn lchown(task: &CurrentTask, path: UserCStr, uid: u32, gid: u32) -> Result<()> {
    do_chown(task, &resolve_at(task, AT_FDCWD, path, WalkFlags::empty())?, uid, gid)
}

fn fchown(task: &CurrentTask, fd: i32, uid: u32, gid: u32) -> Result<()> {
    do_chown(task, task.real_file(fd)?.path(), uid, gid)
}

fn fchownat(task: &CurrentTask, dirfd: i32, path: UserCStr, uid: u32, gid: u32, flags: u32) -> Result<()> {
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW)?;
    do_chown(task, &resolve_flags(task, dirfd, path, flags)?, uid, gid)
}

fn utime(task: &CurrentTask, path: UserCStr, times: UserPtr<[i64; 2]>) -> Result<()> {
    let times = match times.non_null() {
        None => None,
        Some(pointer) => {
            let [atime, mtime] = pointer.read(task)?;
            let at = |sec| Some(TimeUpdate::At(Timespec { tv_sec: sec, tv_nsec: 0 }));
            Some((at(atime), at(mtime)))
        }
    };
    operations::set_times(&task.credentials(), &resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)?, times)
}

fn utimes(task: &CurrentTask, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> Result<()> {
    futimesat(task, AT_FDCWD, path, times)
}

fn futimesat(task: &CurrentTask, dirfd: i32, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> Result<()> {
    let times = match times.non_null() {
        None => None,
        Some(pointer) => {
            let [atime, mtime] = pointer.read(task)?;
            let at = |t: Timeval| {
                if !t.is_valid() {
                    return Err(Errno::EINVAL);
                }
                Ok(Some(TimeUpdate::At(Timespec { tv_sec: t.tv_sec, tv_nsec: t.tv_usec * 1000 })))
            };
            Some((at(atime)?, at(mtime)?))
        }
    };
    let place = if path.is_null() {
        task.real_file(dirfd)?.path().clone()
    } else {
        resolve_at(task, dirfd, path, WalkFlags::FOLLOW)?
    };
    operations::set_times(&task.credentials(), &place, times)
}

fn utimensat(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> Result<()> {
    let times = match times.non_null() {
        None => None,
        Some(pointer) => {
            let [atime, mtime] = pointer.read(task)?;
            let update = |t: Timespec| match t.tv_nsec as u64 {
                UTIME_NOW => Ok(Some(TimeUpdate::Now)),
                UTIME_OMIT => Ok(None),
                0..=999_999_999 => Ok(Some(TimeUpdate::At(t))),
                _ => Err(Errno::EINVAL),
            };
            Some((update(atime)?, update(mtime)?))
        }
    };
    if times == Some((None, None)) {
        return Ok(());
    }
    let flags = at_flags(flags, EMPTY_OR_NOFOLLOW)?;
    let place = if path.is_null() && dirfd != AT_FDCWD {
        if !flags.is_empty() {
            return Err(Errno::EINVAL);
        }
        task.real_file(dirfd)?.path().clone()
    } else {
        resolve_flags(task, dirfd, path, flags)?
    };
    operations::set_times(&task.credentials(), &place, times)
}

fn truncate(task: &CurrentTask, path: UserCStr, size: i64) -> Result<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)?;
    if size > task.group.limits.current(abi::resource::RLIMIT_FSIZE) {
        task.group.send_kernel_signal_to_task(task, abi::signal::Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    operations::truncate(&task.credentials(), &place, size)
}

struct Entries {
    buf: Vec<u8>,
    limit: usize,
    old_format: bool,
    full: bool,
}

impl DirSink for Entries {
    fn entry(&mut self, next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool {
        let before = self.buf.len();
        if self.old_format {
            encode_dirent(&mut self.buf, ino, next as i64, file_type.dtype(), name);
        } else {
            encode_dirent64(&mut self.buf, ino, next as i64, file_type.dtype(), name);
        }
        if self.buf.len() > self.limit {
            self.buf.truncate(before);
            self.full = true;
            return false;
        }
        true
    }
}

fn getdents(task: &CurrentTask, fd: i32, buf: Address, count: u32) -> Result<usize> {
    list(task, fd, buf, count, true)
}

fn getdents64(task: &CurrentTask, fd: i32, buf: Address, count: u32) -> Result<usize> {
    list(task, fd, buf, count, false)
}

fn list(task: &CurrentTask, fd: i32, buf: Address, count: u32, old_format: bool) -> Result<usize> {
    let file = task.real_file(fd)?;
    if !file.path().dentry().is_dir() {
        return Err(Errno::ENOTDIR);
    }
    // A directory that was removed is empty, and says so.
    if file.path().dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let limit = (count as usize).min(256 * 1024);
    let mut entries = Entries { buf: Vec::new(), limit, old_format, full: false };
    let mut position = file.position();
    let next = file.operations().read_dir(&task.io(), *position, &mut entries)?;
    if entries.buf.is_empty() && entries.full {
        return Err(Errno::EINVAL);
    }
    task.mm().write_result(buf.0, &entries.buf)?;
    *position = next;
    Ok(entries.buf.len())
}

fn chdir(task: &CurrentTask, path: UserCStr) -> Result<()> {
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    operations::check_directory(task, &place)?;
    task.fs().set_cwd(place);
    Ok(())
}

fn fchdir(task: &CurrentTask, fd: i32) -> Result<()> {
    let file: Arc<File> = task.file(fd)?;
    operations::check_directory(task, file.path())?;
    task.fs().set_cwd(file.path().clone());
    Ok(())
}

fn chroot(task: &CurrentTask, path: UserCStr) -> Result<()> {
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    operations::check_directory(task, &place)?;
    if !task.credentials().capable(CAP_SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    task.fs().set_root(place);
    Ok(())
}

fn getcwd(task: &CurrentTask, buf: Address, size: usize) -> Result<usize> {
    let fs = task.fs();
    let cwd = fs.cwd();
    if cwd.dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let (mut name, reachable) = cwd.name_below(&fs.root());
    if !reachable {
        name.splice(0..0, b"(unreachable)".iter().copied());
    }
    name.push(0);
    if name.len() > size {
        return Err(Errno::ERANGE);
    }
    task.mm().write_result(buf.0, &name)?;
    Ok(name.len())
}

fn umask(task: &CurrentTask, mask: u32) -> Result<u32> {
    Ok(task.fs().set_umask(mask))
}

fn statfs_of(place: &Path) -> Result<Statfs> {
    let status = place.mount().superblock().fs().status()?;
    let mount_flags = place.mount().flags().bits() & 0x1c0f;
    Ok(Statfs {
        f_type: status.magic as i64,
        f_bsize: status.block_size as i64,
        f_blocks: status.blocks,
        f_bfree: status.blocks_free,
        f_bavail: status.blocks_available,
        f_files: status.files,
        f_ffree: status.files_free,
        f_namelen: status.name_max as i64,
        f_frsize: status.block_size as i64,
        f_flags: (mount_flags | 0x20) as i64,
        ..Statfs::default()
    })
}

fn statfs(task: &CurrentTask, path: UserCStr, buf: UserPtr<Statfs>) -> Result<()> {
    let place = resolve_at(task, AT_FDCWD, path, WalkFlags::FOLLOW)?;
    buf.write(task, &statfs_of(&place)?)
}

fn fstatfs(task: &CurrentTask, fd: i32, buf: UserPtr<Statfs>) -> Result<()> {
    buf.write(task, &statfs_of(task.file(fd)?.path())?)
}
