//! ioctl numbers of files, block devices and namespaces, and how such numbers are made (`ioctl.h`, `ioctls.h`, `fs.h`,
//! `nsfs.h`). Those of terminals are in [`crate::tty`], of sockets in [`crate::socket`].
#![allow(missing_docs, reason = "the names are Linux's")]

// Direction in a number: none, the kernel reads, the kernel writes.
pub const _IOC_NONE: u32 = 0;
pub const _IOC_WRITE: u32 = 1;
pub const _IOC_READ: u32 = 2;

/// `_IOC`: direction, type, number and size of the argument.
pub const fn ioc(dir: u32, kind: u8, number: u8, size: usize) -> u32 {
    dir << 30 | (size as u32 & 0x3fff) << 16 | (kind as u32) << 8 | number as u32
}

/// `_IO`: no argument.
pub const fn io(kind: u8, number: u8) -> u32 {
    ioc(_IOC_NONE, kind, number, 0)
}

/// `_IOR`: the kernel writes the argument.
pub const fn ior(kind: u8, number: u8, size: usize) -> u32 {
    ioc(_IOC_READ, kind, number, size)
}

/// `_IOW`: the kernel reads the argument.
pub const fn iow(kind: u8, number: u8, size: usize) -> u32 {
    ioc(_IOC_WRITE, kind, number, size)
}

/// `_IOWR`: both.
pub const fn iowr(kind: u8, number: u8, size: usize) -> u32 {
    ioc(_IOC_READ | _IOC_WRITE, kind, number, size)
}

/// `_IOC_TYPE`
pub const fn ioc_type(command: u32) -> u8 {
    (command >> 8) as u8
}

/// `_IOC_NR`
pub const fn ioc_number(command: u32) -> u8 {
    command as u8
}

/// `_IOC_SIZE`
pub const fn ioc_size(command: u32) -> usize {
    (command >> 16 & 0x3fff) as usize
}

// Any file.
pub const FIONREAD: u32 = 0x541b;
pub const FIONBIO: u32 = 0x5421;
pub const FIOASYNC: u32 = 0x5452;
pub const FIOCLEX: u32 = 0x5451;
pub const FIONCLEX: u32 = 0x5450;
pub const FIOQSIZE: u32 = 0x5460;

// Files on file systems.
pub const FIBMAP: u32 = 1;
pub const FIGETBSZ: u32 = 2;
pub const FIFREEZE: u32 = 0xc0045877;
pub const FITHAW: u32 = 0xc0045878;
pub const FITRIM: u32 = 0xc0185879;
pub const FICLONE: u32 = 0x40049409;
pub const FICLONERANGE: u32 = 0x4020940d;
pub const FIDEDUPERANGE: u32 = 0xc0189436;
pub const FS_IOC_GETFLAGS: u32 = 0x80086601;
pub const FS_IOC_SETFLAGS: u32 = 0x40086602;
pub const FS_IOC_GETVERSION: u32 = 0x80087601;
pub const FS_IOC_SETVERSION: u32 = 0x40087602;
pub const FS_IOC_FSGETXATTR: u32 = 0x801c581f;
pub const FS_IOC_FSSETXATTR: u32 = 0x401c5820;
pub const FS_IOC_FIEMAP: u32 = 0xc020660b;
pub const FS_IOC_GETFSLABEL: u32 = 0x81009431;
pub const FS_IOC_SETFSLABEL: u32 = 0x41009432;
pub const FS_IOC_ENABLE_VERITY: u32 = 0x40806685;
pub const FS_IOC_MEASURE_VERITY: u32 = 0xc0046686;

// Flags of FS_IOC_GETFLAGS.
pub const FS_SECRM_FL: u32 = 1;
pub const FS_COMPR_FL: u32 = 4;
pub const FS_SYNC_FL: u32 = 8;
pub const FS_IMMUTABLE_FL: u32 = 0x10;
pub const FS_APPEND_FL: u32 = 0x20;
pub const FS_NODUMP_FL: u32 = 0x40;
pub const FS_NOATIME_FL: u32 = 0x80;
pub const FS_INDEX_FL: u32 = 0x1000;
pub const FS_DIRSYNC_FL: u32 = 0x10000;
pub const FS_TOPDIR_FL: u32 = 0x20000;
pub const FS_EXTENT_FL: u32 = 0x80000;
pub const FS_NOCOW_FL: u32 = 0x800000;
pub const FS_DAX_FL: u32 = 0x2000000;
pub const FS_PROJINHERIT_FL: u32 = 0x20000000;
pub const FS_CASEFOLD_FL: u32 = 0x40000000;

// Block devices.
pub const BLKROSET: u32 = 0x125d;
pub const BLKROGET: u32 = 0x125e;
pub const BLKRRPART: u32 = 0x125f;
pub const BLKGETSIZE: u32 = 0x1260;
pub const BLKFLSBUF: u32 = 0x1261;
pub const BLKRASET: u32 = 0x1262;
pub const BLKRAGET: u32 = 0x1263;
pub const BLKSSZGET: u32 = 0x1268;
pub const BLKBSZGET: u32 = 0x80081270;
pub const BLKBSZSET: u32 = 0x40081271;
pub const BLKGETSIZE64: u32 = 0x80081272;
pub const BLKDISCARD: u32 = 0x1277;
pub const BLKIOMIN: u32 = 0x1278;
pub const BLKIOOPT: u32 = 0x1279;
pub const BLKALIGNOFF: u32 = 0x127a;
pub const BLKPBSZGET: u32 = 0x127b;
pub const BLKDISCARDZEROES: u32 = 0x127c;
pub const BLKSECDISCARD: u32 = 0x127d;
pub const BLKROTATIONAL: u32 = 0x127e;
pub const BLKZEROOUT: u32 = 0x127f;

// Namespaces.
pub const NS_GET_USERNS: u32 = 0xb701;
pub const NS_GET_PARENT: u32 = 0xb702;
pub const NS_GET_NSTYPE: u32 = 0xb703;
pub const NS_GET_OWNER_UID: u32 = 0xb704;

layout! {
    /// `struct fsxattr` of FS_IOC_FSGETXATTR.
    struct Fsxattr[28] {
        fsx_xflags: u32, fsx_extsize: u32, fsx_nextents: u32, fsx_projid: u32, fsx_cowextsize: u32,
        fsx_pad: [u8; 8],
    }

    /// `struct file_clone_range` of FICLONERANGE.
    struct FileCloneRange[32] { src_fd: i64, src_offset: u64, src_length: u64, dest_offset: u64 }

    /// `struct fiemap` without its extents.
    struct Fiemap[32] {
        fm_start: u64, fm_length: u64, fm_flags: u32, fm_mapped_extents: u32, fm_extent_count: u32,
        fm_reserved: u32,
    }

    /// `struct fiemap_extent`.
    struct FiemapExtent[56] {
        fe_logical: u64, fe_physical: u64, fe_length: u64, _reserved64: [u64; 2], fe_flags: u32, _reserved: [u32; 3],
    }
}

pub const FIEMAP_FLAG_SYNC: u32 = 1;
pub const FIEMAP_EXTENT_LAST: u32 = 1;
pub const FIEMAP_EXTENT_UNKNOWN: u32 = 2;
pub const FIEMAP_EXTENT_DELALLOC: u32 = 4;
pub const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{seccomp, tty};

    #[test]
    fn numbers_are_made_as_the_headers_make_them() {
        assert_eq!(io(b'T', 0x15), tty::TIOCMGET);
        assert_eq!(ior(b'T', 0x2a, size_of::<tty::Termios2>()), tty::TCGETS2);
        assert_eq!(iow(b'T', 0x2b, size_of::<tty::Termios2>()), tty::TCSETS2);
        let recv = iowr(b'!', 0, size_of::<seccomp::SeccompNotif>());
        assert_eq!(recv, seccomp::SECCOMP_IOCTL_NOTIF_RECV);
        assert_eq!((ioc_type(recv), ioc_number(recv), ioc_size(recv)), (b'!', 0, 80));
        assert_eq!(iow(0x94, 13, size_of::<FileCloneRange>()), FICLONERANGE);
        assert_eq!(ior(b'X', 31, size_of::<Fsxattr>()), FS_IOC_FSGETXATTR);
        assert_eq!(iowr(b'f', 11, size_of::<Fiemap>()), FS_IOC_FIEMAP);
    }
}
