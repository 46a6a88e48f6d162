//! The protocol between a kernel and the server of a filesystem in user space (`fuse.h`), version 7.31.
#![allow(missing_docs, reason = "the names are Linux's")]

pub const FUSE_KERNEL_VERSION: u32 = 7;
/// What the layouts here are of; newer kernels get along with it.
pub const FUSE_KERNEL_MINOR_VERSION: u32 = 31;
/// The inode number of the root.
pub const FUSE_ROOT_ID: u64 = 1;

layout! {
    /// `struct fuse_in_header`, at the start of every request.
    struct FuseInHeader[40] {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16,
        padding: u16,
    }

    /// `struct fuse_out_header`, at the start of every answer.
    struct FuseOutHeader[16] { len: u32, error: i32, unique: u64 }

    /// `struct fuse_init_in`, as far as all versions have it.
    struct FuseInitIn[16] { major: u32, minor: u32, max_readahead: u32, flags: u32 }

    /// `struct fuse_init_out`.
    struct FuseInitOut[64] {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }

    /// `struct fuse_attr`.
    struct FuseAttr[88] {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }

    /// `struct fuse_entry_out`.
    struct FuseEntryOut[128] {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: FuseAttr,
    }

    /// `struct fuse_attr_out`.
    struct FuseAttrOut[104] { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: FuseAttr }

    /// `struct fuse_forget_in`.
    struct FuseForgetIn[8] { nlookup: u64 }

    /// `struct fuse_batch_forget_in`.
    struct FuseBatchForgetIn[8] { count: u32, dummy: u32 }

    /// `struct fuse_forget_one`.
    struct FuseForgetOne[16] { nodeid: u64, nlookup: u64 }

    /// `struct fuse_getattr_in`.
    struct FuseGetattrIn[16] { getattr_flags: u32, dummy: u32, fh: u64 }

    /// `struct fuse_setattr_in`.
    struct FuseSetattrIn[88] {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }

    /// `struct fuse_mknod_in`.
    struct FuseMknodIn[16] { mode: u32, rdev: u32, umask: u32, padding: u32 }

    /// `struct fuse_mkdir_in`.
    struct FuseMkdirIn[8] { mode: u32, umask: u32 }

    /// `struct fuse_rename_in`.
    struct FuseRenameIn[8] { newdir: u64 }

    /// `struct fuse_rename2_in`.
    struct FuseRename2In[16] { newdir: u64, flags: u32, padding: u32 }

    /// `struct fuse_link_in`.
    struct FuseLinkIn[8] { oldnodeid: u64 }

    /// `struct fuse_open_in`.
    struct FuseOpenIn[8] { flags: u32, open_flags: u32 }

    /// `struct fuse_create_in`.
    struct FuseCreateIn[16] { flags: u32, mode: u32, umask: u32, open_flags: u32 }

    /// `struct fuse_open_out`.
    struct FuseOpenOut[16] { fh: u64, open_flags: u32, backing_id: i32 }

    /// `struct fuse_release_in`.
    struct FuseReleaseIn[24] { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }

    /// `struct fuse_read_in`.
    struct FuseReadIn[40] {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }

    /// `struct fuse_write_in`.
    struct FuseWriteIn[40] {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }

    /// `struct fuse_write_out`.
    struct FuseWriteOut[8] { size: u32, padding: u32 }

    /// `struct fuse_kstatfs`.
    struct FuseKstatfs[80] {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }

    /// `struct fuse_fsync_in`.
    struct FuseFsyncIn[16] { fh: u64, fsync_flags: u32, padding: u32 }

    /// `struct fuse_setxattr_in` of versions before 7.33.
    struct FuseSetxattrIn[8] { size: u32, flags: u32 }

    /// `struct fuse_getxattr_in`.
    struct FuseGetxattrIn[8] { size: u32, padding: u32 }

    /// `struct fuse_getxattr_out`.
    struct FuseGetxattrOut[8] { size: u32, padding: u32 }

    /// `struct fuse_dirent`, before the name.
    struct FuseDirent[24] { ino: u64, off: u64, namelen: u32, kind: u32 }
}

/// `FUSE_BIG_WRITES`: a write may be longer than a page.
pub const FUSE_BIG_WRITES: u32 = 1 << 5;
/// `FUSE_GETATTR_FH`.
pub const FUSE_GETATTR_FH: u32 = 1;
/// Reads and writes bypass the kernel's cache.
pub const FOPEN_DIRECT_IO: u32 = 1;
/// The data is enough.
pub const FUSE_FSYNC_FDATASYNC: u32 = 1;

pub const FATTR_MODE: u32 = 1;
pub const FATTR_UID: u32 = 1 << 1;
pub const FATTR_GID: u32 = 1 << 2;
pub const FATTR_SIZE: u32 = 1 << 3;
pub const FATTR_ATIME: u32 = 1 << 4;
pub const FATTR_MTIME: u32 = 1 << 5;
pub const FATTR_FH: u32 = 1 << 6;
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
pub const FATTR_MTIME_NOW: u32 = 1 << 8;

pub const FUSE_LOOKUP: u32 = 1;
/// Has no answer.
pub const FUSE_FORGET: u32 = 2;
pub const FUSE_GETATTR: u32 = 3;
pub const FUSE_SETATTR: u32 = 4;
pub const FUSE_READLINK: u32 = 5;
pub const FUSE_SYMLINK: u32 = 6;
pub const FUSE_MKNOD: u32 = 8;
pub const FUSE_MKDIR: u32 = 9;
pub const FUSE_UNLINK: u32 = 10;
pub const FUSE_RMDIR: u32 = 11;
pub const FUSE_RENAME: u32 = 12;
pub const FUSE_LINK: u32 = 13;
pub const FUSE_OPEN: u32 = 14;
pub const FUSE_READ: u32 = 15;
pub const FUSE_WRITE: u32 = 16;
pub const FUSE_STATFS: u32 = 17;
pub const FUSE_RELEASE: u32 = 18;
pub const FUSE_FSYNC: u32 = 20;
pub const FUSE_SETXATTR: u32 = 21;
pub const FUSE_GETXATTR: u32 = 22;
pub const FUSE_LISTXATTR: u32 = 23;
pub const FUSE_REMOVEXATTR: u32 = 24;
pub const FUSE_FLUSH: u32 = 25;
pub const FUSE_INIT: u32 = 26;
pub const FUSE_OPENDIR: u32 = 27;
pub const FUSE_READDIR: u32 = 28;
pub const FUSE_RELEASEDIR: u32 = 29;
pub const FUSE_FSYNCDIR: u32 = 30;
pub const FUSE_CREATE: u32 = 35;
/// Needs no answer.
pub const FUSE_INTERRUPT: u32 = 36;
pub const FUSE_DESTROY: u32 = 38;
/// Has no answer.
pub const FUSE_BATCH_FORGET: u32 = 42;
pub const FUSE_RENAME2: u32 = 45;
