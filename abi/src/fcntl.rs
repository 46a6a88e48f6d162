//! Opening and controlling files (`fcntl.h`, `openat2.h`, `falloc.h`, `fadvise.h`, `splice.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Flags of open(2) and the file status flags of F_GETFL. `O_RDONLY` is the absence of the two access bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        const O_WRONLY = 1;
        const O_RDWR = 2;
        const O_CREAT = 0x40;
        const O_EXCL = 0x80;
        const O_NOCTTY = 0x100;
        const O_TRUNC = 0x200;
        const O_APPEND = 0x400;
        const O_NONBLOCK = 0x800;
        const O_DSYNC = 0x1000;
        const FASYNC = 0x2000;
        const O_DIRECT = 0x4000;
        const O_LARGEFILE = 0x8000;
        const O_DIRECTORY = 0x10000;
        const O_NOFOLLOW = 0x20000;
        const O_NOATIME = 0x40000;
        const O_CLOEXEC = 0x80000;
        const O_SYNC = 0x101000;
        const O_PATH = 0x200000;
        const O_TMPFILE = 0x410000;
        /// The bit of `O_SYNC` that is not `O_DSYNC`.
        const __O_SYNC = 0x100000;
        /// The bit of `O_TMPFILE` that is not `O_DIRECTORY`.
        const __O_TMPFILE = 0x400000;
    }
}

impl OpenFlags {
    /// The access mode as a number, to compare with [`O_RDONLY`] and its sisters.
    pub const fn access_mode(self) -> u32 {
        self.bits() & O_ACCMODE
    }

    /// True if read(2) is allowed. Mode 3 (ioctl only) allows neither; nor does `O_PATH`.
    pub const fn readable(self) -> bool {
        matches!(self.access_mode(), O_RDONLY | O_RDWR) && !self.contains(OpenFlags::O_PATH)
    }

    /// True if write(2) is allowed.
    pub const fn writable(self) -> bool {
        matches!(self.access_mode(), O_WRONLY | O_RDWR) && !self.contains(OpenFlags::O_PATH)
    }

    /// True for all the bits of `O_TMPFILE`, which includes `O_DIRECTORY`.
    pub const fn is_tmpfile(self) -> bool {
        self.contains(OpenFlags::O_TMPFILE)
    }

    /// The flags that fcntl(F_SETFL) can change.
    pub const SETTABLE: OpenFlags = OpenFlags::O_APPEND
        .union(OpenFlags::O_NONBLOCK)
        .union(OpenFlags::FASYNC)
        .union(OpenFlags::O_DIRECT)
        .union(OpenFlags::O_NOATIME);

    /// The flags of creation and opening, which are not kept in the open file and not shown by F_GETFL.
    pub const OPENING: OpenFlags = OpenFlags::O_CREAT
        .union(OpenFlags::O_EXCL)
        .union(OpenFlags::O_NOCTTY)
        .union(OpenFlags::O_TRUNC)
        .union(OpenFlags::O_CLOEXEC);
}

pub const O_ACCMODE: u32 = 0o3;
pub const O_RDONLY: u32 = 0o0;
pub const O_WRONLY: u32 = 0o1;
pub const O_RDWR: u32 = 0o2;

// Commands of fcntl(2).
pub const F_DUPFD: u32 = 0;
pub const F_GETFD: u32 = 1;
pub const F_SETFD: u32 = 2;
pub const F_GETFL: u32 = 3;
pub const F_SETFL: u32 = 4;
pub const F_GETLK: u32 = 5;
pub const F_SETLK: u32 = 6;
pub const F_SETLKW: u32 = 7;
pub const F_SETOWN: u32 = 8;
pub const F_GETOWN: u32 = 9;
pub const F_SETSIG: u32 = 10;
pub const F_GETSIG: u32 = 11;
pub const F_SETOWN_EX: u32 = 15;
pub const F_GETOWN_EX: u32 = 16;
pub const F_GETOWNER_UIDS: u32 = 17;
pub const F_OFD_GETLK: u32 = 36;
pub const F_OFD_SETLK: u32 = 37;
pub const F_OFD_SETLKW: u32 = 38;
pub const F_SETLEASE: u32 = 1024;
pub const F_GETLEASE: u32 = 1025;
pub const F_NOTIFY: u32 = 1026;
pub const F_DUPFD_QUERY: u32 = 1027;
pub const F_CREATED_QUERY: u32 = 1028;
pub const F_CANCELLK: u32 = 1029;
pub const F_DUPFD_CLOEXEC: u32 = 1030;
pub const F_SETPIPE_SZ: u32 = 1031;
pub const F_GETPIPE_SZ: u32 = 1032;
pub const F_ADD_SEALS: u32 = 1033;
pub const F_GET_SEALS: u32 = 1034;
pub const F_GET_RW_HINT: u32 = 1035;
pub const F_SET_RW_HINT: u32 = 1036;
pub const F_GET_FILE_RW_HINT: u32 = 1037;
pub const F_SET_FILE_RW_HINT: u32 = 1038;
pub const FD_CLOEXEC: u32 = 1;
pub const F_RDLCK: i16 = 0;
pub const F_WRLCK: i16 = 1;
pub const F_UNLCK: i16 = 2;
pub const F_OWNER_TID: u32 = 0;
pub const F_OWNER_PID: u32 = 1;
pub const F_OWNER_PGRP: u32 = 2;

// Operations of flock(2).
pub const LOCK_SH: u32 = 1;
pub const LOCK_EX: u32 = 2;
pub const LOCK_NB: u32 = 4;
pub const LOCK_UN: u32 = 8;

layout! {
    /// `struct flock`, in which F_SETLK and its sisters describe a range.
    struct Flock[32] {
        l_type: i16, l_whence: i16, _pad0: [u8; 4], l_start: i64, l_len: i64, l_pid: i32, _pad1: [u8; 4],
    }

    /// `struct f_owner_ex` of F_SETOWN_EX.
    struct FOwnerEx[8] { r#type: i32, pid: i32 }

    /// `struct file_handle` without the handle that follows.
    struct FileHandle[8] { handle_bytes: u32, handle_type: i32 }

    /// `struct open_how` of openat2(2).
    struct OpenHow[24] { flags: u64, mode: u64, resolve: u64 }
}

bitflags! {
    /// Flags of the calls with a directory descriptor (`AT_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AtFlags: u32 {
        const AT_SYMLINK_NOFOLLOW = 0x100;
        const AT_REMOVEDIR = 0x200;
        const AT_SYMLINK_FOLLOW = 0x400;
        const AT_NO_AUTOMOUNT = 0x800;
        const AT_EMPTY_PATH = 0x1000;
        const AT_STATX_FORCE_SYNC = 0x2000;
        const AT_STATX_DONT_SYNC = 0x4000;
        const AT_RECURSIVE = 0x8000;
    }

    /// How openat2(2) may resolve a path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ResolveFlags: u64 {
        const RESOLVE_NO_XDEV = 1;
        const RESOLVE_NO_MAGICLINKS = 2;
        const RESOLVE_NO_SYMLINKS = 4;
        const RESOLVE_BENEATH = 8;
        const RESOLVE_IN_ROOT = 0x10;
        const RESOLVE_CACHED = 0x20;
    }

    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RenameFlags: u32 {
        const RENAME_NOREPLACE = 1;
        const RENAME_EXCHANGE = 2;
        const RENAME_WHITEOUT = 4;
    }

    /// Modes of fallocate(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FallocFlags: u32 {
        const FALLOC_FL_KEEP_SIZE = 1;
        const FALLOC_FL_PUNCH_HOLE = 2;
        const FALLOC_FL_NO_HIDE_STALE = 4;
        const FALLOC_FL_COLLAPSE_RANGE = 8;
        const FALLOC_FL_ZERO_RANGE = 0x10;
        const FALLOC_FL_INSERT_RANGE = 0x20;
        const FALLOC_FL_UNSHARE_RANGE = 0x40;
        const FALLOC_FL_WRITE_ZEROES = 0x80;
    }

    /// Seals of F_ADD_SEALS.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Seals: u32 {
        const F_SEAL_SEAL = 1;
        const F_SEAL_SHRINK = 2;
        const F_SEAL_GROW = 4;
        const F_SEAL_WRITE = 8;
        const F_SEAL_FUTURE_WRITE = 0x10;
        const F_SEAL_EXEC = 0x20;
    }

    /// Flags of splice(2), tee(2) and vmsplice(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SpliceFlags: u32 {
        const SPLICE_F_MOVE = 1;
        const SPLICE_F_NONBLOCK = 2;
        const SPLICE_F_MORE = 4;
        const SPLICE_F_GIFT = 8;
    }

    /// Flags of preadv2(2) and pwritev2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RwFlags: u32 {
        const RWF_HIPRI = 1;
        const RWF_DSYNC = 2;
        const RWF_SYNC = 4;
        const RWF_NOWAIT = 8;
        const RWF_APPEND = 0x10;
        const RWF_NOAPPEND = 0x20;
        const RWF_ATOMIC = 0x40;
        const RWF_DONTCACHE = 0x80;
        const RWF_NOSIGNAL = 0x100;
    }

    /// Flags of sync_file_range(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SyncFileRangeFlags: u32 {
        const SYNC_FILE_RANGE_WAIT_BEFORE = 1;
        const SYNC_FILE_RANGE_WRITE = 2;
        const SYNC_FILE_RANGE_WAIT_AFTER = 4;
    }

    /// Flags of close_range(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CloseRangeFlags: u32 {
        const CLOSE_RANGE_UNSHARE = 2;
        const CLOSE_RANGE_CLOEXEC = 4;
    }
}

/// The directory descriptor that stands for the working directory.
pub const AT_FDCWD: i32 = -100;
/// Flag of faccessat2(2); the same bit as `AT_REMOVEDIR`.
pub const AT_EACCESS: u32 = 0x200;
// Flag of name_to_handle_at(2).
pub const AT_HANDLE_FID: u32 = 0x200;
pub const AT_HANDLE_MNT_ID_UNIQUE: u32 = 1;
pub const AT_HANDLE_CONNECTABLE: u32 = 2;
pub const AT_STATX_SYNC_TYPE: u32 = 0x6000;
/// Flag of execveat(2): only check whether execution would be allowed.
pub const AT_EXECVE_CHECK: u32 = 0x10000;

pub const SEEK_SET: u32 = 0;
pub const SEEK_CUR: u32 = 1;
pub const SEEK_END: u32 = 2;
pub const SEEK_DATA: u32 = 3;
pub const SEEK_HOLE: u32 = 4;
pub const F_OK: u32 = 0;
pub const X_OK: u32 = 1;
pub const W_OK: u32 = 2;
pub const R_OK: u32 = 4;
pub const POSIX_FADV_NORMAL: u32 = 0;
pub const POSIX_FADV_RANDOM: u32 = 1;
pub const POSIX_FADV_SEQUENTIAL: u32 = 2;
pub const POSIX_FADV_WILLNEED: u32 = 3;
pub const POSIX_FADV_DONTNEED: u32 = 4;
pub const POSIX_FADV_NOREUSE: u32 = 5;

// Events of F_NOTIFY.
pub const DN_ACCESS: u32 = 1;
pub const DN_MODIFY: u32 = 2;
pub const DN_CREATE: u32 = 4;
pub const DN_DELETE: u32 = 8;
pub const DN_RENAME: u32 = 0x10;
pub const DN_ATTRIB: u32 = 0x20;
pub const DN_MULTISHOT: u32 = 0x80000000;

/// The size of the first `struct open_how`.
pub const OPEN_HOW_SIZE_VER0: u64 = 24;
/// The largest handle of name_to_handle_at(2).
pub const MAX_HANDLE_SZ: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes() {
        let of = |bits| {
            let flags = OpenFlags::from_bits_retain(bits);
            (flags.readable(), flags.writable())
        };
        assert_eq!((of(O_RDONLY), of(O_WRONLY), of(O_RDWR)), ((true, false), (false, true), (true, true)));
        assert_eq!(of(3), (false, false), "for ioctl only");
        assert_eq!(of(OpenFlags::O_PATH.bits() | O_RDWR), (false, false));
        assert!(OpenFlags::O_TMPFILE.is_tmpfile() && !OpenFlags::O_DIRECTORY.is_tmpfile());
        assert_eq!(OpenFlags::from_bits(0x8000_0000), None);
    }
}
