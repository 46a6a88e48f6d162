//! poll(2), select(2) and epoll(7) (`poll.h`, `eventpoll.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// What a file is ready for: poll(2)'s bits, which are also epoll's.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollEvents: u32 {
        const POLLIN = 1;
        const POLLPRI = 2;
        const POLLOUT = 4;
        const POLLERR = 8;
        const POLLHUP = 0x10;
        const POLLNVAL = 0x20;
        const POLLRDNORM = 0x40;
        const POLLRDBAND = 0x80;
        const POLLWRNORM = 0x100;
        const POLLWRBAND = 0x200;
        const POLLMSG = 0x400;
        const POLLRDHUP = 0x2000;
    }

    /// The flags that epoll_ctl(2) takes besides the events.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EpollFlags: u32 {
        const EPOLLEXCLUSIVE = 0x10000000;
        const EPOLLWAKEUP = 0x20000000;
        const EPOLLONESHOT = 0x40000000;
        const EPOLLET = 0x80000000;
    }
}

impl PollEvents {
    /// What makes a file readable for select(2) (`POLLIN_SET`).
    pub const SELECT_READ: PollEvents = PollEvents::POLLRDNORM
        .union(PollEvents::POLLRDBAND)
        .union(PollEvents::POLLIN)
        .union(PollEvents::POLLHUP)
        .union(PollEvents::POLLERR)
        .union(PollEvents::POLLNVAL);
    /// What makes a file writable for select(2) (`POLLOUT_SET`).
    pub const SELECT_WRITE: PollEvents = PollEvents::POLLWRBAND
        .union(PollEvents::POLLWRNORM)
        .union(PollEvents::POLLOUT)
        .union(PollEvents::POLLERR)
        .union(PollEvents::POLLNVAL);
    /// What is exceptional for select(2) (`POLLEX_SET`).
    pub const SELECT_EXCEPT: PollEvents = PollEvents::POLLPRI.union(PollEvents::POLLNVAL);
    /// Always reported, whether asked for or not.
    pub const ALWAYS: PollEvents = PollEvents::POLLERR.union(PollEvents::POLLHUP);
    /// Ready for normal reading.
    pub const READABLE: PollEvents = PollEvents::POLLIN.union(PollEvents::POLLRDNORM);
    /// Ready for normal writing.
    pub const WRITABLE: PollEvents = PollEvents::POLLOUT.union(PollEvents::POLLWRNORM);
}

layout! {
    /// `struct pollfd`.
    struct PollFd[8] { fd: i32, events: i16, revents: i16 }
}

/// `struct epoll_event`, which is packed on x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

const _: () = assert!(size_of::<EpollEvent>() == 12);

pub const EPOLL_CLOEXEC: u32 = 0x80000;
pub const EPOLL_CTL_ADD: u32 = 1;
pub const EPOLL_CTL_DEL: u32 = 2;
pub const EPOLL_CTL_MOD: u32 = 3;

/// The most file descriptors that select(2)'s `fd_set` of the C library holds; the kernel's limit is RLIMIT_NOFILE.
pub const FD_SETSIZE: usize = 1024;
