//! Resource limits (getrlimit(2)).

use abi::resource::{RLIM_INFINITY, RLIM_NLIMITS, Rlimit};
use parking_lot::RwLock;

/// The limits of a process, by `RLIMIT_*`.
pub struct Limits(RwLock<[Rlimit; RLIM_NLIMITS as usize]>);

impl Limits {
    /// Linux's defaults for init, with room for many files.
    pub fn initial() -> Limits {
        use abi::resource as r;
        let mut limits = [Rlimit { rlim_cur: RLIM_INFINITY, rlim_max: RLIM_INFINITY }; RLIM_NLIMITS as usize];
        let mut set =
            |which: u32, cur: u64, max: u64| limits[which as usize] = Rlimit { rlim_cur: cur, rlim_max: max };
        set(r::RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
        set(r::RLIMIT_CORE, 0, RLIM_INFINITY);
        set(r::RLIMIT_NPROC, 63_000, 63_000);
        set(r::RLIMIT_NOFILE, 1_048_576, 1_048_576);
        set(r::RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
        set(r::RLIMIT_SIGPENDING, 63_000, 63_000);
        set(r::RLIMIT_MSGQUEUE, 819_200, 819_200);
        set(r::RLIMIT_NICE, 0, 0);
        set(r::RLIMIT_RTPRIO, 0, 0);
        Limits(RwLock::new(limits))
    }

    /// A copy, for a new process.
    pub fn fork(&self) -> Limits {
        Limits(RwLock::new(*self.0.read()))
    }

    /// Both values of a limit; unlimited if there is no such limit.
    pub fn get(&self, which: u32) -> Rlimit {
        let unlimited = Rlimit { rlim_cur: RLIM_INFINITY, rlim_max: RLIM_INFINITY };
        self.0.read().get(which as usize).copied().unwrap_or(unlimited)
    }

    /// The soft value.
    pub fn current(&self, which: u32) -> u64 {
        self.get(which).rlim_cur
    }

    /// Replaces a limit.
    pub fn set(&self, which: u32, new: Rlimit) {
        if let Some(limit) = self.0.write().get_mut(which as usize) {
            *limit = new;
        }
    }
}
