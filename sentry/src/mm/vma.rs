//! What is mapped in one range of addresses.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use platform::Prot;

use super::policy::Policy;
use super::range_map::{RangeMap, Segment};
use crate::vfs::{File, Mappable, ObjectId};

/// Bytes below a mapping that grows down which are never given to another (`stack_guard_gap`, 256 pages).
pub const STACK_GUARD: u64 = 256 * platform::PAGE_SIZE;

bitflags::bitflags! {
    /// Properties of a mapping, beside its protection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct VmaFlags: u32 {
        /// MAP_SHARED.
        const SHARED = 1;
        /// MAP_GROWSDOWN.
        const GROWS_DOWN = 1 << 1;
        /// mlock(2).
        const LOCKED = 1 << 2;
        /// MLOCK_ONFAULT.
        const LOCK_ON_FAULT = 1 << 3;
        /// MAP_NORESERVE.
        const NO_RESERVE = 1 << 4;
        /// MADV_DONTFORK.
        const DONT_FORK = 1 << 5;
        /// MADV_WIPEONFORK.
        const WIPE_ON_FORK = 1 << 6;
        /// MADV_DONTDUMP.
        const DONT_DUMP = 1 << 7;
        /// MADV_HUGEPAGE.
        const HUGE_PAGE = 1 << 8;
        /// MADV_NOHUGEPAGE.
        const NO_HUGE_PAGE = 1 << 9;
        /// MADV_MERGEABLE.
        const MERGEABLE = 1 << 10;
        /// MADV_SEQUENTIAL.
        const SEQUENTIAL = 1 << 11;
        /// MADV_RANDOM.
        const RANDOM = 1 << 12;
        /// mremap(2) cannot make it larger (the vdso and its data).
        const DONT_EXPAND = 1 << 13;
        /// A private file mapping whose contents were copied to anonymous memory, because the host would not map it.
        const COPIED = 1 << 14;
        /// mseal(2).
        const SEALED = 1 << 15;
        /// Code that the platform has put there. The guest does not see it, and may map something else in its place.
        const PLATFORM = 1 << 16;
    }
}

/// What the pieces of one file mapping have in common.
pub struct Mapping {
    /// The pages.
    pub mappable: Arc<dyn Mappable>,
    /// The open file, which stays open for as long as it is mapped.
    pub file: Option<Arc<File>>,
    /// What `/proc/PID/maps` shows for a mapping without file.
    pub name: Option<Arc<str>>,
    /// The host file, and what is added to file offsets. `None` if private mappings have to be copied.
    pub host: Option<(Arc<OwnedFd>, u64)>,
}

/// Where the pages come from.
#[derive(Clone)]
pub enum Backing {
    /// Zero-filled memory of the process.
    Anonymous,
    /// A file, or an object in memory.
    File {
        /// The file.
        mapping: Arc<Mapping>,
        /// Offset of the range's first byte.
        offset: u64,
    },
}

impl Backing {
    /// The same for the copy of an address space.
    pub fn forked(&self) -> Backing {
        match self {
            Backing::File { mapping, offset } if mapping.mappable.counts_mappings() => {
                let mapping = Mapping {
                    mappable: mapping.mappable.clone(),
                    file: mapping.file.clone(),
                    name: mapping.name.clone(),
                    host: mapping.host.clone(),
                };
                Backing::File { mapping: Arc::new(mapping), offset: *offset }
            }
            other => other.clone(),
        }
    }
}

impl Backing {
    /// The backing of what begins `by` bytes later.
    pub fn advanced(&self, by: u64) -> Backing {
        match self {
            Backing::Anonymous => Backing::Anonymous,
            Backing::File { mapping, offset } => {
                Backing::File { mapping: mapping.clone(), offset: offset.wrapping_add(by) }
            }
        }
    }
}

/// A mapping (`vm_area_struct`), without its addresses, which are the key of the map.
#[derive(Clone)]
pub struct Vma {
    /// Current protection.
    pub prot: Prot,
    /// What mprotect(2) may give it (VM_MAYREAD and so on).
    pub max_prot: Prot,
    /// Other properties.
    pub flags: VmaFlags,
    /// On which nodes it should lie.
    pub policy: Policy,
    /// Its pages.
    pub backing: Backing,
}

impl Vma {
    /// MAP_SHARED?
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Counted against RLIMIT_DATA: private and writable, and no stack (`is_data_mapping`).
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWS_DOWN)
    }

    /// Executable and not writable (`is_exec_mapping`).
    pub fn is_exec(&self) -> bool {
        self.prot.contains(Prot::EXEC)
            && !self.prot.contains(Prot::WRITE)
            && !self.flags.contains(VmaFlags::GROWS_DOWN)
    }

    /// The host has nothing but private anonymous memory here.
    pub fn is_anonymous_on_host(&self) -> bool {
        matches!(self.backing, Backing::Anonymous) || self.flags.contains(VmaFlags::COPIED)
    }

    /// The page that is `into` bytes into the mapping is one of its file, as far as can be told without asking anybody.
    pub fn is_within_file(&self, into: u64) -> bool {
        let Backing::File { mapping, offset } = &self.backing else { return false };
        let size = mapping.mappable.known_size().unwrap_or(0);
        let page = offset.saturating_add(into) & !(platform::PAGE_SIZE - 1);
        page < size
    }

    /// Private memory without a file.
    pub fn is_private_anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
    }

    /// Sealed, and memory that its program cannot write: its contents are to stay.
    pub fn is_sealed_constant(&self) -> bool {
        self.flags.contains(VmaFlags::SEALED)
            && self.is_private_anonymous()
            && !self.prot.contains(Prot::WRITE)
    }

    /// The open file, if it maps one.
    pub fn file(&self) -> Option<&Arc<File>> {
        match &self.backing {
            Backing::File { mapping, .. } => mapping.file.as_ref(),
            Backing::Anonymous => None,
        }
    }

    /// The object and the offset in it that `into` bytes into the mapping are.
    pub fn object(&self, into: u64) -> Option<(ObjectId, u64)> {
        match &self.backing {
            Backing::File { mapping, offset } => Some((mapping.mappable.object(), offset.wrapping_add(into))),
            Backing::Anonymous => None,
        }
    }
}

impl Segment for Vma {
    fn advanced(&self, by: u64) -> Vma {
        Vma { backing: self.backing.advanced(by), ..*self }
    }

    fn continued_by(&self, len: u64, next: &Vma) -> bool {
        if (self.prot, self.max_prot, self.flags, self.policy)
            != (next.prot, next.max_prot, next.flags, next.policy)
        {
            return false;
        }
        match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::File { mapping: a, offset: at }, Backing::File { mapping: b, offset: next_at }) => {
                let same = Arc::ptr_eq(a, b)
                    || match (&a.file, &b.file) {
                        (Some(x), Some(y)) => Arc::ptr_eq(x, y) && a.mappable.object() == b.mappable.object(),
                        _ => false,
                    };
                same && at.checked_add(len) == Some(*next_at)
            }
            _ => false,
        }
    }

    fn guard(&self) -> u64 {
        if self.flags.contains(VmaFlags::GROWS_DOWN) { STACK_GUARD } else { 0 }
    }
}

/// The mappings of an address space.
pub type VmaMap = RangeMap<Vma>;
