//! Restartable sequences (`rseq.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

layout! {
    /// `struct rseq`, which is aligned to 32 bytes.
    struct Rseq[32] { cpu_id_start: u32, cpu_id: u32, rseq_cs: u64, flags: u32, node_id: u32, mm_cid: u32, _pad: u32 }

    /// `struct rseq_cs`, one critical section.
    struct RseqCs[32] { version: u32, flags: u32, start_ip: u64, post_commit_offset: u64, abort_ip: u64 }
}

// The size of the first `struct rseq`, which every caller may pass, and its alignment.
pub const ORIG_RSEQ_SIZE: u32 = 32;
pub const RSEQ_ALIGN: u32 = 32;
/// `AT_RSEQ_FEATURE_SIZE`: how much of the structure the kernel uses, to the end of `mm_cid`.
pub const RSEQ_FEATURE_SIZE: u64 = 28;

/// Flag of rseq(2).
pub const RSEQ_FLAG_UNREGISTER: u32 = 1;
// `cpu_id` of a thread that has not run yet since, or cannot be registered.
pub const RSEQ_CPU_ID_UNINITIALIZED: i32 = -1;
pub const RSEQ_CPU_ID_REGISTRATION_FAILED: i32 = -2;
// Flags of a critical section; any of them kills the thread since Linux 6.0.
pub const RSEQ_CS_FLAG_NO_RESTART_ON_PREEMPT: u32 = 1;
pub const RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL: u32 = 2;
pub const RSEQ_CS_FLAG_NO_RESTART_ON_MIGRATE: u32 = 4;
