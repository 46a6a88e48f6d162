//! Waiting for children (`wait.h`): options and the status word.
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

pub use crate::resource::Rusage;
use crate::signal::Signal;

bitflags! {
    /// Options of wait4(2) and waitid(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WaitOptions: u32 {
        const WNOHANG = 1;
        const WUNTRACED = 2;
        const WEXITED = 4;
        const WCONTINUED = 8;
        const WNOWAIT = 0x1000000;
        const __WNOTHREAD = 0x20000000;
        const __WALL = 0x40000000;
        const __WCLONE = 0x80000000;
    }
}

impl WaitOptions {
    /// waitid(2)'s name of `WUNTRACED`.
    pub const WSTOPPED: WaitOptions = WaitOptions::WUNTRACED;
}

pub const P_ALL: u32 = 0;
pub const P_PID: u32 = 1;
pub const P_PGID: u32 = 2;
pub const P_PIDFD: u32 = 3;

/// The status of a child that exited; only the low byte of `code` is kept.
pub const fn exited(code: i32) -> u32 {
    (code as u32 & 0xff) << 8
}

/// The status of a child that a signal killed.
pub const fn signaled(signal: Signal, core: bool) -> u32 {
    signal.number() | if core { 0x80 } else { 0 }
}

/// The status of a child that a signal stopped.
pub const fn stopped(signal: Signal) -> u32 {
    (signal.number() << 8) | 0x7f
}

/// The status of a traced child that stopped with `PTRACE_EVENT_*` number `event`.
pub const fn stopped_event(signal: Signal, event: u32) -> u32 {
    stopped(signal) | (event << 16)
}

/// The status of a child that continued.
pub const CONTINUED: u32 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_decode_as_libc_does() {
        for code in [0, 1, 255] {
            let status = exited(code) as i32;
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == code);
        }
        assert_eq!(exited(256 + 3), exited(3));
        for core in [false, true] {
            let status = signaled(Signal::SIGSEGV, core) as i32;
            assert!(
                libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == 11 && libc::WCOREDUMP(status) == core
            );
        }
        let status = stopped(Signal::SIGTSTP) as i32;
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == 20);
        assert!(libc::WIFCONTINUED(CONTINUED as i32));
        assert_eq!(stopped_event(Signal::SIGTRAP, 4), 0x4057f);
    }
}
