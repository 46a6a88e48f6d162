//! Mounts (`mount.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

layout! {
    /// `struct mount_attr` of mount_setattr(2).
    struct MountAttr[32] { attr_set: u64, attr_clr: u64, propagation: u64, userns_fd: u64 }

    /// `struct mnt_id_req` of statmount(2) and listmount(2).
    struct MntIdReq[32] { size: u32, mnt_ns_fd: u32, mnt_id: u64, param: u64, mnt_ns_id: u64 }

    /// `struct statmount` without the strings that follow it; fields ending in a string are offsets into these.
    struct Statmount[512] {
        size: u32, mnt_opts: u32, mask: u64, sb_dev_major: u32, sb_dev_minor: u32, sb_magic: u64,
        sb_flags: u32, fs_type: u32, mnt_id: u64, mnt_parent_id: u64, mnt_id_old: u32, mnt_parent_id_old: u32,
        mnt_attr: u64, mnt_propagation: u64, mnt_peer_group: u64, mnt_master: u64, propagate_from: u64,
        mnt_root: u32, mnt_point: u32, mnt_ns_id: u64, fs_subtype: u32, sb_source: u32, opt_num: u32,
        opt_array: u32, opt_sec_num: u32, opt_sec_array: u32, supported_mask: u64, mnt_uidmap_num: u32,
        mnt_uidmap: u32, mnt_gidmap_num: u32, mnt_gidmap: u32, _spare2: [u64; 43],
    }
}

bitflags! {
    /// Flags of mount(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountFlags: u64 {
        const MS_RDONLY = 1;
        const MS_NOSUID = 2;
        const MS_NODEV = 4;
        const MS_NOEXEC = 8;
        const MS_SYNCHRONOUS = 0x10;
        const MS_REMOUNT = 0x20;
        const MS_MANDLOCK = 0x40;
        const MS_DIRSYNC = 0x80;
        const MS_NOSYMFOLLOW = 0x100;
        const MS_NOATIME = 0x400;
        const MS_NODIRATIME = 0x800;
        const MS_BIND = 0x1000;
        const MS_MOVE = 0x2000;
        const MS_REC = 0x4000;
        const MS_SILENT = 0x8000;
        const MS_POSIXACL = 0x10000;
        const MS_UNBINDABLE = 0x20000;
        const MS_PRIVATE = 0x40000;
        const MS_SLAVE = 0x80000;
        const MS_SHARED = 0x100000;
        const MS_RELATIME = 0x200000;
        const MS_KERNMOUNT = 0x400000;
        const MS_I_VERSION = 0x800000;
        const MS_STRICTATIME = 0x1000000;
        const MS_LAZYTIME = 0x2000000;
        const MS_SUBMOUNT = 0x4000000;
        const MS_NOREMOTELOCK = 0x8000000;
        const MS_NOSEC = 0x10000000;
        const MS_BORN = 0x20000000;
        const MS_ACTIVE = 0x40000000;
        const MS_NOUSER = 0x80000000;
    }

    /// Flags of umount2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct UmountFlags: u32 {
        const MNT_FORCE = 1;
        const MNT_DETACH = 2;
        const MNT_EXPIRE = 4;
        const UMOUNT_NOFOLLOW = 8;
    }

    /// `attr_set` and `attr_clr` of [`MountAttr`], and attributes of fsmount(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MountAttrFlags: u64 {
        const MOUNT_ATTR_RDONLY = 1;
        const MOUNT_ATTR_NOSUID = 2;
        const MOUNT_ATTR_NODEV = 4;
        const MOUNT_ATTR_NOEXEC = 8;
        const MOUNT_ATTR__ATIME = 0x70;
        const MOUNT_ATTR_NOATIME = 0x10;
        const MOUNT_ATTR_STRICTATIME = 0x20;
        const MOUNT_ATTR_NODIRATIME = 0x80;
        const MOUNT_ATTR_IDMAP = 0x100000;
        const MOUNT_ATTR_NOSYMFOLLOW = 0x200000;
    }

    /// Flags of move_mount(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MoveMountFlags: u32 {
        const MOVE_MOUNT_F_SYMLINKS = 1;
        const MOVE_MOUNT_F_AUTOMOUNTS = 2;
        const MOVE_MOUNT_F_EMPTY_PATH = 4;
        const MOVE_MOUNT_T_SYMLINKS = 0x10;
        const MOVE_MOUNT_T_AUTOMOUNTS = 0x20;
        const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
        const MOVE_MOUNT_SET_GROUP = 0x100;
        const MOVE_MOUNT_BENEATH = 0x200;
    }

    /// `param` of [`MntIdReq`] and `mask` of [`Statmount`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatmountMask: u64 {
        const STATMOUNT_SB_BASIC = 1;
        const STATMOUNT_MNT_BASIC = 2;
        const STATMOUNT_PROPAGATE_FROM = 4;
        const STATMOUNT_MNT_ROOT = 8;
        const STATMOUNT_MNT_POINT = 0x10;
        const STATMOUNT_FS_TYPE = 0x20;
        const STATMOUNT_MNT_NS_ID = 0x40;
        const STATMOUNT_MNT_OPTS = 0x80;
        const STATMOUNT_FS_SUBTYPE = 0x100;
        const STATMOUNT_SB_SOURCE = 0x200;
        const STATMOUNT_OPT_ARRAY = 0x400;
        const STATMOUNT_OPT_SEC_ARRAY = 0x800;
        const STATMOUNT_SUPPORTED_MASK = 0x1000;
        const STATMOUNT_MNT_UIDMAP = 0x2000;
        const STATMOUNT_MNT_GIDMAP = 0x4000;
    }
}

// Flags of open_tree(2), besides [`crate::fcntl::AtFlags`].
pub const OPEN_TREE_CLONE: u32 = 1;
pub const OPEN_TREE_CLOEXEC: u32 = 0x80000;
pub const FSOPEN_CLOEXEC: u32 = 1;
pub const FSPICK_CLOEXEC: u32 = 1;
pub const FSPICK_SYMLINK_NOFOLLOW: u32 = 2;
pub const FSPICK_NO_AUTOMOUNT: u32 = 4;
pub const FSPICK_EMPTY_PATH: u32 = 8;
pub const FSMOUNT_CLOEXEC: u32 = 1;
// Commands of fsconfig(2).
pub const FSCONFIG_SET_FLAG: u32 = 0;
pub const FSCONFIG_SET_STRING: u32 = 1;
pub const FSCONFIG_SET_BINARY: u32 = 2;
pub const FSCONFIG_SET_PATH: u32 = 3;
pub const FSCONFIG_SET_PATH_EMPTY: u32 = 4;
pub const FSCONFIG_SET_FD: u32 = 5;
pub const FSCONFIG_CMD_CREATE: u32 = 6;
pub const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
pub const FSCONFIG_CMD_CREATE_EXCL: u32 = 8;
// The value in the high half of mount(2)'s flags that old programs pass, and its mask.
pub const MS_MGC_VAL: u64 = 0xc0ed0000;
pub const MS_MGC_MSK: u64 = 0xffff0000;

/// `mnt_id` of listmount(2) for the root of the namespace.
pub const LSMT_ROOT: u64 = 0xffff_ffff_ffff_ffff;
/// Flag of listmount(2).
pub const LISTMOUNT_REVERSE: u32 = 1;
pub const MNT_ID_REQ_SIZE_VER0: u32 = 24;
pub const MNT_ID_REQ_SIZE_VER1: u32 = 32;
