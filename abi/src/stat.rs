//! What files are (`stat.h`, `statfs.h`, `magic.h`, `xattr.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

pub use crate::mount::{MountFlags, UmountFlags};

layout! {
    /// `struct stat`.
    struct Stat[144] {
        st_dev: u64, st_ino: u64, st_nlink: u64, st_mode: u32, st_uid: u32, st_gid: u32, _pad0: u32, st_rdev: u64,
        st_size: i64, st_blksize: i64, st_blocks: i64, st_atime: u64, st_atime_nsec: u64, st_mtime: u64,
        st_mtime_nsec: u64, st_ctime: u64, st_ctime_nsec: u64, _unused: [i64; 3],
    }

    /// `struct statx_timestamp`.
    struct StatxTimestamp[16] { tv_sec: i64, tv_nsec: u32, _reserved: i32 }

    /// `struct statx`.
    struct Statx[256] {
        stx_mask: u32, stx_blksize: u32, stx_attributes: u64, stx_nlink: u32, stx_uid: u32, stx_gid: u32,
        stx_mode: u16, _spare0: u16, stx_ino: u64, stx_size: u64, stx_blocks: u64, stx_attributes_mask: u64,
        stx_atime: StatxTimestamp, stx_btime: StatxTimestamp, stx_ctime: StatxTimestamp, stx_mtime: StatxTimestamp,
        stx_rdev_major: u32, stx_rdev_minor: u32, stx_dev_major: u32, stx_dev_minor: u32, stx_mnt_id: u64,
        stx_dio_mem_align: u32, stx_dio_offset_align: u32, stx_subvol: u64, stx_atomic_write_unit_min: u32,
        stx_atomic_write_unit_max: u32, stx_atomic_write_segments_max: u32, stx_dio_read_offset_align: u32,
        stx_atomic_write_unit_max_opt: u32, _spare2: u32, _spare3: [u64; 8],
    }

    /// `struct statfs`.
    struct Statfs[120] {
        f_type: i64, f_bsize: i64, f_blocks: u64, f_bfree: u64, f_bavail: u64, f_files: u64, f_ffree: u64,
        f_fsid: [i32; 2], f_namelen: i64, f_frsize: i64, f_flags: i64, f_spare: [i64; 4],
    }

    /// `struct ustat`.
    struct Ustat[32] { f_tfree: i32, _pad0: u32, f_tinode: u64, f_fname: [u8; 6], f_fpack: [u8; 6], _pad1: u32 }

    /// `struct utimbuf` of utime(2).
    struct Utimbuf[16] { actime: i64, modtime: i64 }

    /// `struct xattr_args` of setxattrat(2) and getxattrat(2).
    struct XattrArgs[16] { value: u64, size: u32, flags: u32 }

    /// `struct file_attr` of file_getattr(2).
    struct FileAttr[24] { fa_xflags: u64, fa_extsize: u32, fa_nextents: u32, fa_projid: u32, fa_cowextsize: u32 }
}

bitflags! {
    /// What statx(2) is asked for and what it answers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatxMask: u32 {
        const STATX_TYPE = 1;
        const STATX_MODE = 2;
        const STATX_NLINK = 4;
        const STATX_UID = 8;
        const STATX_GID = 0x10;
        const STATX_ATIME = 0x20;
        const STATX_MTIME = 0x40;
        const STATX_CTIME = 0x80;
        const STATX_INO = 0x100;
        const STATX_SIZE = 0x200;
        const STATX_BLOCKS = 0x400;
        const STATX_BASIC_STATS = 0x7ff;
        const STATX_BTIME = 0x800;
        const STATX_MNT_ID = 0x1000;
        const STATX_DIOALIGN = 0x2000;
        const STATX_MNT_ID_UNIQUE = 0x4000;
        const STATX_SUBVOL = 0x8000;
        const STATX_WRITE_ATOMIC = 0x10000;
        const STATX_DIO_READ_ALIGN = 0x20000;
    }

    /// `stx_attributes`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatxAttributes: u64 {
        const STATX_ATTR_COMPRESSED = 4;
        const STATX_ATTR_IMMUTABLE = 0x10;
        const STATX_ATTR_APPEND = 0x20;
        const STATX_ATTR_NODUMP = 0x40;
        const STATX_ATTR_ENCRYPTED = 0x800;
        const STATX_ATTR_AUTOMOUNT = 0x1000;
        const STATX_ATTR_MOUNT_ROOT = 0x2000;
        const STATX_ATTR_VERITY = 0x100000;
        const STATX_ATTR_DAX = 0x200000;
        const STATX_ATTR_WRITE_ATOMIC = 0x400000;
    }

    /// `f_flags` of statfs(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatfsFlags: u64 {
        const ST_RDONLY = 1;
        const ST_NOSUID = 2;
        const ST_NODEV = 4;
        const ST_NOEXEC = 8;
        const ST_SYNCHRONOUS = 0x10;
        const ST_VALID = 0x20;
        const ST_MANDLOCK = 0x40;
        const ST_NOATIME = 0x400;
        const ST_NODIRATIME = 0x800;
        const ST_RELATIME = 0x1000;
        const ST_NOSYMFOLLOW = 0x2000;
    }
}

pub const S_IFMT: u32 = 0o170000;
pub const S_IFSOCK: u32 = 0o140000;
pub const S_IFLNK: u32 = 0o120000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFBLK: u32 = 0o60000;
pub const S_IFDIR: u32 = 0o40000;
pub const S_IFCHR: u32 = 0o20000;
pub const S_IFIFO: u32 = 0o10000;
pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;
pub const S_IRWXU: u32 = 0o700;
pub const S_IRUSR: u32 = 0o400;
pub const S_IWUSR: u32 = 0o200;
pub const S_IXUSR: u32 = 0o100;
pub const S_IRWXG: u32 = 0o70;
pub const S_IRGRP: u32 = 0o40;
pub const S_IWGRP: u32 = 0o20;
pub const S_IXGRP: u32 = 0o10;
pub const S_IRWXO: u32 = 0o7;
pub const S_IROTH: u32 = 0o4;
pub const S_IWOTH: u32 = 0o2;
pub const S_IXOTH: u32 = 0o1;
/// All that chmod(2) can change.
pub const S_IALLUGO: u32 = 0o7777;
pub const S_IRWXUGO: u32 = 0o777;

/// `tv_nsec` of utimensat(2) that means the current time.
pub const UTIME_NOW: u64 = 0x3fff_ffff;
/// `tv_nsec` of utimensat(2) that means no change.
pub const UTIME_OMIT: u64 = 0x3fff_fffe;

// Flags of setxattr(2), and its limits.
pub const XATTR_CREATE: u32 = 1;
pub const XATTR_REPLACE: u32 = 2;
pub const XATTR_NAME_MAX: usize = 255;
pub const XATTR_SIZE_MAX: usize = 65536;
pub const XATTR_LIST_MAX: usize = 65536;

// `f_type` of statfs(2).
pub const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
pub const BDEVFS_MAGIC: u64 = 0x62646576;
pub const BINFMTFS_MAGIC: u64 = 0x42494e4d;
pub const BPF_FS_MAGIC: u64 = 0xcafe4a11;
pub const BTRFS_SUPER_MAGIC: u64 = 0x9123683e;
pub const CGROUP_SUPER_MAGIC: u64 = 0x27e0eb;
pub const CGROUP2_SUPER_MAGIC: u64 = 0x63677270;
pub const DEBUGFS_MAGIC: u64 = 0x64626720;
pub const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
pub const EROFS_SUPER_MAGIC_V1: u64 = 0xe0f5e1e2;
pub const EXT4_SUPER_MAGIC: u64 = 0xef53;
pub const FUSE_SUPER_MAGIC: u64 = 0x65735546;
pub const HUGETLBFS_MAGIC: u64 = 0x958458f6;
pub const MQUEUE_MAGIC: u64 = 0x1980_0202;
pub const NFS_SUPER_MAGIC: u64 = 0x6969;
pub const NSFS_MAGIC: u64 = 0x6e736673;
pub const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c7630;
pub const PIDFS_MAGIC: u64 = 0x5049_4446;
pub const PIPEFS_MAGIC: u64 = 0x50495045;
pub const PROC_SUPER_MAGIC: u64 = 0x9fa0;
pub const RAMFS_MAGIC: u64 = 0x858458f6;
pub const SECURITYFS_MAGIC: u64 = 0x73636673;
pub const SOCKFS_MAGIC: u64 = 0x534f434b;
pub const SYSFS_MAGIC: u64 = 0x62656572;
pub const TMPFS_MAGIC: u64 = 0x1021994;
pub const TRACEFS_MAGIC: u64 = 0x74726163;
pub const V9FS_MAGIC: u64 = 0x1021997;
pub const XFS_SUPER_MAGIC: u64 = 0x58465342;

/// The type of a file, as in `st_mode` and in directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
}

impl FileType {
    /// The type bits of a mode; `None` if they are not one of the seven.
    pub const fn from_mode(mode: u32) -> Option<FileType> {
        FileType::from_dtype(((mode & S_IFMT) >> 12) as u8)
    }

    /// The type of a `DT_*`; `None` for `DT_UNKNOWN`.
    pub const fn from_dtype(dtype: u8) -> Option<FileType> {
        Some(match dtype {
            1 => FileType::Fifo,
            2 => FileType::CharDevice,
            4 => FileType::Directory,
            6 => FileType::BlockDevice,
            8 => FileType::Regular,
            10 => FileType::Symlink,
            12 => FileType::Socket,
            _ => return None,
        })
    }

    /// The `S_IF*` bits.
    pub const fn mode(self) -> u32 {
        (self.dtype() as u32) << 12
    }

    /// The `DT_*` of a directory entry.
    pub const fn dtype(self) -> u8 {
        match self {
            FileType::Fifo => 1,
            FileType::CharDevice => 2,
            FileType::Directory => 4,
            FileType::BlockDevice => 6,
            FileType::Regular => 8,
            FileType::Symlink => 10,
            FileType::Socket => 12,
        }
    }
}

/// A device number as stat(2) shows and mknod(2) takes it (`new_encode_dev`): 12 bits of major, 20 of minor. Bits of
/// either beyond these are dropped.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) as u64
}

/// The major number of an encoded device number.
pub const fn major(dev: u64) -> u32 {
    (dev as u32 & 0xfff00) >> 8
}

/// The minor number of an encoded device number.
pub const fn minor(dev: u64) -> u32 {
    (dev as u32 & 0xff) | ((dev as u32 >> 12) & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(makedev(1, 3), 0x103);
        assert_eq!(makedev(0xabc, 0x12345), 0x123a_bc45, "as seen in st_rdev after mknod");
        for (maj, min) in [(0, 0), (1, 3), (136, 255), (0xfff, 0xfffff)] {
            assert_eq!((major(makedev(maj, min)), minor(makedev(maj, min))), (maj, min));
            assert_eq!(makedev(maj, min), libc::makedev(maj, min));
        }
    }

    #[test]
    fn types_convert_to_modes_and_entries() {
        let types = [
            (FileType::Fifo, S_IFIFO, libc::DT_FIFO),
            (FileType::CharDevice, S_IFCHR, libc::DT_CHR),
            (FileType::Directory, S_IFDIR, libc::DT_DIR),
            (FileType::BlockDevice, S_IFBLK, libc::DT_BLK),
            (FileType::Regular, S_IFREG, libc::DT_REG),
            (FileType::Symlink, S_IFLNK, libc::DT_LNK),
            (FileType::Socket, S_IFSOCK, libc::DT_SOCK),
        ];
        for (kind, mode, dtype) in types {
            assert_eq!((kind.mode(), kind.dtype()), (mode, dtype));
            assert_eq!(FileType::from_mode(mode | 0o7777), Some(kind));
            assert_eq!(FileType::from_dtype(dtype), Some(kind));
        }
        assert_eq!((FileType::from_mode(0o644), FileType::from_mode(S_IFMT)), (None, None));
    }
}
