//! The memory of guest processes.
//!
//! The platform holds the pages; a [`MemoryManager`] keeps what the guest asked for: its mappings, limits and layout,
//! what a fault means and what `/proc/PID/maps` shows. It is shared by everything that clone(2) made with CLONE_VM.
//!
//! | file | subject |
//! |---|---|
//! | `range_map`, `vma` | the map of mappings |
//! | `map`, `protect`, `remap`, `advise` | the calls that change it |
//! | `fault` | faults and stack growth |
//! | `access`, `window`, `user_io` | reading and writing guest memory |
//! | `patch` | call sites that the platform rewrites |
//! | `futex` | what a futex word is known by |
//! | `shared` | memory that processes share, and files in memory |
//! | `maps` | the view that proc and prctl(2) have |
//!
//! Lock order: file system locks → `MemoryManager::state`. Data moves to and from guest memory under locks of files,
//! and may find that a stack has to grow, so nothing that takes such a lock is called with `state` held: host fds are
//! asked for before, and what an operation unmapped is dropped after. The host is called with `state` held, so that
//! the map and the host agree whenever the lock is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
pub use platform::Prot;
use platform::{AddressSpace, Change, PAGE_SIZE, Platform, Thread, USER_MAX, USER_MIN};

use crate::vfs::File;
use crate::{Errno, Result};

mod access;
mod advise;
mod fault;
mod futex;
mod map;
mod maps;
#[cfg(test)]
pub(crate) mod mock;
mod patch;
pub mod policy;
mod protect;
pub mod range_map;
mod remap;
pub mod shared;
mod user_io;
pub mod vma;
mod window;

pub use fault::FaultOutcome;
pub use futex::FutexKey;
pub use map::{Fixed, MapFile, MapRequest};
pub use maps::{MapEntry, MapKind, MapName, Resident, Usage};
pub use remap::RemapRequest;
pub use shared::{AnonymousShared, MemoryFile};
pub use user_io::{UserSink, UserSource};
pub use window::Window;

use range_map::Piece;
use vma::{Backing, Vma, VmaFlags, VmaMap};

/// The calling task's own guest thread, if it runs in the address space at hand: changes can be cheaper through it.
pub type By<'a> = Option<&'a mut (dyn Thread + 'a)>;

/// `by` for one of several uses.
fn again<'s>(by: &'s mut By<'_>) -> By<'s> {
    match by {
        Some(thread) => Some(&mut **thread),
        None => None,
    }
}

/// The most mappings of an address space (`vm.max_map_count`).
pub const MAP_COUNT_MAX: usize = 65530;

/// Size of what MAP_32BIT reaches.
const LOW_TOP: u64 = 1 << 31;

/// The resource limits of whoever asks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK.
    pub memlock: u64,
    /// CAP_IPC_LOCK, which overrides RLIMIT_MEMLOCK.
    pub can_lock: bool,
    /// The sandbox's memory. A single private writable mapping of more is refused unless MAP_NORESERVE
    /// (vm.overcommit_memory 0).
    pub memory: u64,
}

impl Default for Limits {
    /// No limits, but for a stack of 8 MiB.
    fn default() -> Limits {
        Limits {
            address_space: u64::MAX,
            data: u64::MAX,
            stack: 8 << 20,
            memlock: u64::MAX,
            can_lock: false,
            memory: u64::MAX,
        }
    }
}

/// Where the parts of a process are. What exec found out, what prctl(PR_SET_MM) can change, and proc shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Linux's mm_struct")]
pub struct Layout {
    /// Where the search for a free range begins, downwards.
    pub mmap_base: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// Address of the vdso's ELF header, or 0.
    pub vdso: u64,
}

/// Sums over the mappings, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    total: u64,
    data: u64,
    stack: u64,
    exec: u64,
    shared: u64,
    locked: u64,
}

impl Totals {
    /// What a mapping adds.
    fn of(len: u64, vma: &Vma) -> Totals {
        if vma.flags.contains(VmaFlags::PLATFORM) {
            return Totals::default();
        }
        let when = |condition: bool| if condition { len } else { 0 };
        Totals {
            total: len,
            data: when(vma.is_data()),
            stack: when(vma.flags.contains(VmaFlags::GROWS_DOWN)),
            exec: when(vma.is_exec()),
            shared: when(!vma.is_private_anonymous()),
            locked: when(vma.flags.contains(VmaFlags::LOCKED)),
        }
    }

    fn add(&mut self, other: &Totals) {
        self.total += other.total;
        self.data += other.data;
        self.stack += other.stack;
        self.exec += other.exec;
        self.shared += other.shared;
        self.locked += other.locked;
    }

    fn sub(&mut self, other: &Totals) {
        self.total -= other.total;
        self.data -= other.data;
        self.stack -= other.stack;
        self.exec -= other.exec;
        self.shared -= other.shared;
        self.locked -= other.locked;
    }
}

/// What a mapping made from now on is locked with (mlockall(MCL_FUTURE)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LockFuture {
    #[default]
    No,
    Populate,
    OnFault,
}

#[derive(Clone, Default)]
struct State {
    vmas: VmaMap,
    totals: Totals,
    peak: u64,
    layout: Layout,
    lock_future: LockFuture,
    /// Counts changes, so that a fault can be told from one that a change by another thread has cured.
    generation: u64,
    /// The last address whose fault was put down to such a race, and the generation then.
    excused: Option<(u64, u64)>,
    /// The limits last seen, for stack growth on the sentry's own accesses.
    limits: Limits,
    auxv: Vec<u8>,
    exe: Option<Arc<File>>,
    /// Mappings that are not made on the host yet, if that is put off: address, length, mapping.
    deferred: Option<Vec<(u64, u64, Vma)>>,
}

impl State {
    /// Puts a mapping in place; returns what it replaced, to be dropped when the lock is free.
    #[must_use]
    fn insert(&mut self, start: u64, end: u64, vma: Vma) -> Vec<Piece<Vma>> {
        self.totals.add(&Totals::of(end - start, &vma));
        let removed = self.vmas.insert(start, end, vma);
        self.forget(&removed);
        self.peak = self.peak.max(self.totals.total);
        removed
    }

    /// Takes mappings out; returns them, to be dropped when the lock is free.
    #[must_use]
    fn remove(&mut self, start: u64, end: u64) -> Vec<Piece<Vma>> {
        let removed = self.vmas.remove(start, end);
        self.forget(&removed);
        removed
    }

    fn forget(&mut self, removed: &[Piece<Vma>]) {
        for (start, end, vma) in removed {
            self.totals.sub(&Totals::of(end - start, vma));
        }
        self.generation += 1;
    }

    /// Changes what is mapped in a range.
    fn update(&mut self, start: u64, end: u64, mut change: impl FnMut(&mut Vma)) {
        let totals = &mut self.totals;
        self.vmas.update(start, end, |s, e, vma| {
            totals.sub(&Totals::of(e - s, vma));
            change(vma);
            totals.add(&Totals::of(e - s, vma));
        });
        self.generation += 1;
    }

    /// ENOMEM if `len` more bytes of such a mapping exceed RLIMIT_AS or RLIMIT_DATA (may_expand_vm).
    fn may_expand(&self, vma: &Vma, len: u64, limits: &Limits) -> Result<()> {
        let over = |used: u64, limit: u64| used.saturating_add(len) > limit & !(PAGE_SIZE - 1);
        if over(self.totals.total, limits.address_space)
            || (vma.is_data() && over(self.totals.data, limits.data))
        {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// EAGAIN if `len` more locked bytes exceed RLIMIT_MEMLOCK (mlock_future_ok).
    fn may_lock(&self, len: u64, limits: &Limits) -> Result<()> {
        let over = self.totals.locked.saturating_add(len) > limits.memlock & !(PAGE_SIZE - 1);
        if over && !limits.can_lock { Err(Errno::EAGAIN) } else { Ok(()) }
    }
}

/// An address space and what the kernel knows of it (`mm_struct`).
pub struct MemoryManager {
    id: u64,
    space: Arc<dyn AddressSpace>,
    state: RwLock<State>,
    dumpable: AtomicU32,
    /// The most that was seen resident, in bytes; 0 if nobody has looked.
    resident_peak: AtomicU64,
    /// Registrations of membarrier(2), as a mask of its commands.
    pub membarrier: AtomicU32,
    /// Contexts of asynchronous I/O.
    pub aio: crate::aio::Contexts,
    /// Who reads memory in a way that has to see all of an exec(2) or none of it (`exec_update_lock`).
    pub exec_update: Mutex<()>,
}

impl MemoryManager {
    fn with(
        space: Arc<dyn AddressSpace>,
        state: State,
        dumpable: u32,
        membarrier: u32,
    ) -> Arc<MemoryManager> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(MemoryManager {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            space,
            state: RwLock::new(state),
            dumpable: AtomicU32::new(dumpable),
            resident_peak: AtomicU64::new(0),
            membarrier: AtomicU32::new(membarrier),
            aio: crate::aio::Contexts::default(),
            exec_update: Mutex::new(()),
        })
    }

    /// An empty address space. ENOMEM or EAGAIN if the host has no process to spare.
    pub fn new(platform: &dyn Platform) -> Result<Arc<MemoryManager>> {
        let mut state = State::default();
        state.layout.mmap_base = USER_MAX;
        Ok(MemoryManager::with(platform.new_address_space()?, state, 1, 0))
    }

    /// The copy that fork(2) makes. Locks on memory are not inherited.
    pub fn fork(&self, by: By<'_>) -> Result<Arc<MemoryManager>> {
        // Exclusive, because a change during the host's fork would show up in one copy only.
        let state = self.state.write();
        let space = self.space.fork(by)?;
        let mut copy = State {
            vmas: VmaMap::default(),
            totals: Totals::default(),
            peak: 0,
            lock_future: LockFuture::No,
            excused: None,
            ..state.clone()
        };
        for (start, end, vma) in state.vmas.iter() {
            if vma.flags.contains(VmaFlags::DONT_FORK) {
                continue;
            }
            let flags = vma.flags - (VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
            let none = copy.insert(start, end, Vma { flags, backing: vma.backing.forked(), ..vma.clone() });
            debug_assert!(none.is_empty());
        }
        drop(state);
        let membarrier = self.membarrier.load(Ordering::Relaxed);
        Ok(MemoryManager::with(space, copy, self.dumpable(), membarrier))
    }

    /// Forgets mappings that somebody counts, of memory that nobody runs in any more: they are no longer counted when the end
    /// of the process is told, although the host takes its memory apart later.
    pub fn forget_counted(&self) {
        let counts = |vma: &Vma| match &vma.backing {
            Backing::File { mapping, .. } => mapping.mappable.counts_mappings(),
            Backing::Anonymous => false,
        };
        let mut state = self.state.write();
        let ranges: Vec<(u64, u64)> =
            state.vmas.iter().filter(|(_, _, vma)| counts(vma)).map(|(start, end, _)| (start, end)).collect();
        let forgotten: Vec<_> =
            ranges.into_iter().flat_map(|(start, end)| state.remove(start, end)).collect();
        drop(state);
        drop(forgotten);
    }

    /// The platform's side of it.
    pub fn address_space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    /// A number that no other address space of the sandbox has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends the host process behind it, and every thread in it.
    pub fn kill(&self) {
        self.space.kill();
    }

    /// PR_GET_DUMPABLE: 0, 1 or 2 (root only).
    pub fn dumpable(&self) -> u32 {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// PR_SET_DUMPABLE, and what changes of credentials do.
    pub fn set_dumpable(&self, dumpable: u32) {
        self.dumpable.store(dumpable, Ordering::Relaxed);
    }

    /// Has the host carry out changes.
    fn apply(&self, by: By<'_>, changes: &[Change<'_>]) -> Result<()> {
        self.space.apply(by, changes)
    }
}

/// A length rounded up to pages; `None` if that overflows.
fn page_up(len: u64) -> Option<u64> {
    Some(len.checked_add(PAGE_SIZE - 1)? & !(PAGE_SIZE - 1))
}

fn is_page_aligned(addr: u64) -> bool {
    addr & (PAGE_SIZE - 1) == 0
}

/// The protection that the host applies. The processor cannot give write access without read access, and the
/// sentry's own reads go by what the host has.
fn host_prot(prot: Prot) -> Prot {
    if prot.contains(Prot::WRITE) { prot | Prot::READ } else { prot }
}

/// The part of a range that can have mappings.
fn clamp(start: u64, end: u64) -> Option<(u64, u64)> {
    let (start, end) = (start.max(USER_MIN), end.min(USER_MAX));
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests;
