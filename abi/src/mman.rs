//! Memory mappings (`mman.h`, `memfd.h`, `membarrier.h`, `mempolicy.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use bitflags::bitflags;

bitflags! {
    /// Access of mmap(2) and mprotect(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        const PROT_READ = 1;
        const PROT_WRITE = 2;
        const PROT_EXEC = 4;
        const PROT_SEM = 8;
        const PROT_GROWSDOWN = 0x1000000;
        const PROT_GROWSUP = 0x2000000;
    }

    /// Flags of mmap(2). The low four bits are a number, see [`MapFlags::map_type`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        const MAP_SHARED = 1;
        const MAP_PRIVATE = 2;
        const MAP_FIXED = 0x10;
        const MAP_ANONYMOUS = 0x20;
        const MAP_32BIT = 0x40;
        const MAP_GROWSDOWN = 0x100;
        const MAP_DENYWRITE = 0x800;
        const MAP_EXECUTABLE = 0x1000;
        const MAP_LOCKED = 0x2000;
        const MAP_NORESERVE = 0x4000;
        const MAP_POPULATE = 0x8000;
        const MAP_NONBLOCK = 0x10000;
        const MAP_STACK = 0x20000;
        const MAP_HUGETLB = 0x40000;
        const MAP_SYNC = 0x80000;
        const MAP_FIXED_NOREPLACE = 0x100000;
        const MAP_UNINITIALIZED = 0x4000000;
    }

    /// Flags of mremap(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MremapFlags: u32 {
        const MREMAP_MAYMOVE = 1;
        const MREMAP_FIXED = 2;
        const MREMAP_DONTUNMAP = 4;
    }

    /// Flags of msync(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MsyncFlags: u32 {
        const MS_ASYNC = 1;
        const MS_INVALIDATE = 2;
        const MS_SYNC = 4;
    }

    /// Flags of mlockall(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MlockallFlags: u32 {
        const MCL_CURRENT = 1;
        const MCL_FUTURE = 2;
        const MCL_ONFAULT = 4;
    }

    /// Flags of memfd_create(2). The upper six bits are the log2 of a huge page size.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MemfdFlags: u32 {
        const MFD_CLOEXEC = 1;
        const MFD_ALLOW_SEALING = 2;
        const MFD_HUGETLB = 4;
        const MFD_NOEXEC_SEAL = 8;
        const MFD_EXEC = 0x10;
    }
}

impl MapFlags {
    /// The kind of mapping: [`MAP_SHARED`], [`MAP_PRIVATE`] or [`MAP_SHARED_VALIDATE`]; other numbers are invalid.
    pub const fn map_type(self) -> u32 {
        self.bits() & MAP_TYPE
    }
}

pub const MAP_TYPE: u32 = 0xf;
pub const MAP_SHARED: u32 = 1;
pub const MAP_PRIVATE: u32 = 2;
pub const MAP_SHARED_VALIDATE: u32 = 3;
pub const MAP_DROPPABLE: u32 = 8;
pub const MAP_HUGE_SHIFT: u32 = 26;
pub const MAP_HUGE_MASK: u32 = 63;
/// The flags that a file mapping with MAP_SHARED_VALIDATE may have; others are EOPNOTSUPP, but for `MAP_SYNC` where the
/// file system knows it.
pub const LEGACY_MAP_MASK: u32 =
    MapFlags::all().difference(MapFlags::MAP_SYNC.union(MapFlags::MAP_FIXED_NOREPLACE)).bits()
        | (21 << MAP_HUGE_SHIFT)
        | (30 << MAP_HUGE_SHIFT);

pub const MADV_NORMAL: u32 = 0;
pub const MADV_RANDOM: u32 = 1;
pub const MADV_SEQUENTIAL: u32 = 2;
pub const MADV_WILLNEED: u32 = 3;
pub const MADV_DONTNEED: u32 = 4;
pub const MADV_FREE: u32 = 8;
pub const MADV_REMOVE: u32 = 9;
pub const MADV_DONTFORK: u32 = 10;
pub const MADV_DOFORK: u32 = 11;
pub const MADV_HWPOISON: u32 = 100;
pub const MADV_SOFT_OFFLINE: u32 = 101;
pub const MADV_MERGEABLE: u32 = 12;
pub const MADV_UNMERGEABLE: u32 = 13;
pub const MADV_HUGEPAGE: u32 = 14;
pub const MADV_NOHUGEPAGE: u32 = 15;
pub const MADV_DONTDUMP: u32 = 16;
pub const MADV_DODUMP: u32 = 17;
pub const MADV_WIPEONFORK: u32 = 18;
pub const MADV_KEEPONFORK: u32 = 19;
pub const MADV_COLD: u32 = 20;
pub const MADV_PAGEOUT: u32 = 21;
pub const MADV_POPULATE_READ: u32 = 22;
pub const MADV_POPULATE_WRITE: u32 = 23;
pub const MADV_DONTNEED_LOCKED: u32 = 24;
pub const MADV_COLLAPSE: u32 = 25;
pub const MADV_GUARD_INSTALL: u32 = 102;
pub const MADV_GUARD_REMOVE: u32 = 103;

/// Flag of mlock2(2).
pub const MLOCK_ONFAULT: u32 = 1;
pub const MFD_HUGE_SHIFT: u32 = 26;
pub const MFD_HUGE_MASK: u32 = 0x3f;

// Commands of membarrier(2).
pub const MEMBARRIER_CMD_QUERY: u32 = 0;
pub const MEMBARRIER_CMD_GLOBAL: u32 = 1;
pub const MEMBARRIER_CMD_GLOBAL_EXPEDITED: u32 = 2;
pub const MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED: u32 = 4;
pub const MEMBARRIER_CMD_PRIVATE_EXPEDITED: u32 = 8;
pub const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: u32 = 16;
pub const MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 32;
pub const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 64;
pub const MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ: u32 = 128;
pub const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ: u32 = 256;
pub const MEMBARRIER_CMD_GET_REGISTRATIONS: u32 = 512;
pub const MEMBARRIER_CMD_FLAG_CPU: u32 = 1;

// Memory policies of set_mempolicy(2) and mbind(2), and the flags of get_mempolicy(2).
pub const MPOL_DEFAULT: u32 = 0;
pub const MPOL_PREFERRED: u32 = 1;
pub const MPOL_BIND: u32 = 2;
pub const MPOL_INTERLEAVE: u32 = 3;
pub const MPOL_LOCAL: u32 = 4;
pub const MPOL_PREFERRED_MANY: u32 = 5;
pub const MPOL_WEIGHTED_INTERLEAVE: u32 = 6;
pub const MPOL_F_STATIC_NODES: u32 = 0x8000;
pub const MPOL_F_RELATIVE_NODES: u32 = 0x4000;
pub const MPOL_F_NUMA_BALANCING: u32 = 0x2000;
pub const MPOL_F_NODE: u32 = 1;
pub const MPOL_F_ADDR: u32 = 2;
pub const MPOL_F_MEMS_ALLOWED: u32 = 4;
pub const MPOL_MF_STRICT: u32 = 1;
pub const MPOL_MF_MOVE: u32 = 2;
pub const MPOL_MF_MOVE_ALL: u32 = 4;

pub const PAGE_SIZE: u64 = 4096;

layout! {
    /// `struct cachestat_range` of cachestat(2).
    struct CachestatRange[16] { off: u64, len: u64 }

    /// `struct cachestat`, in pages.
    struct Cachestat[40] {
        nr_cache: u64, nr_dirty: u64, nr_writeback: u64, nr_evicted: u64, nr_recently_evicted: u64,
    }
}
