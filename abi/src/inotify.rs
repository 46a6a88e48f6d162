//! Watching files (`inotify.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Flags of inotify_init1(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InotifyInitFlags: u32 {
        const IN_CLOEXEC = 0x80000;
        const IN_NONBLOCK = 0x800;
    }

    /// What a watch asks for and what an event says.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InotifyMask: u32 {
        const IN_ACCESS = 1;
        const IN_MODIFY = 2;
        const IN_ATTRIB = 4;
        const IN_CLOSE_WRITE = 8;
        const IN_CLOSE_NOWRITE = 0x10;
        const IN_OPEN = 0x20;
        const IN_MOVED_FROM = 0x40;
        const IN_MOVED_TO = 0x80;
        const IN_CREATE = 0x100;
        const IN_DELETE = 0x200;
        const IN_DELETE_SELF = 0x400;
        const IN_MOVE_SELF = 0x800;
        const IN_UNMOUNT = 0x2000;
        const IN_Q_OVERFLOW = 0x4000;
        const IN_IGNORED = 0x8000;
        const IN_ONLYDIR = 0x1000000;
        const IN_DONT_FOLLOW = 0x2000000;
        const IN_EXCL_UNLINK = 0x4000000;
        const IN_MASK_CREATE = 0x10000000;
        const IN_MASK_ADD = 0x20000000;
        const IN_ISDIR = 0x40000000;
        const IN_ONESHOT = 0x80000000;
        const IN_ALL_EVENTS = 0xfff;
    }
}

layout! {
    /// `struct inotify_event` without the name that follows: `len` bytes, NUL included, padded to a multiple of 16.
    struct InotifyEvent[16] { wd: i32, mask: u32, cookie: u32, len: u32 }
}
