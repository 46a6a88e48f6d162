//! Futexes (`futex.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

// Operations of futex(2), after [`FUTEX_CMD_MASK`].
pub const FUTEX_WAIT: u32 = 0;
pub const FUTEX_WAKE: u32 = 1;
pub const FUTEX_FD: u32 = 2;
pub const FUTEX_REQUEUE: u32 = 3;
pub const FUTEX_CMP_REQUEUE: u32 = 4;
pub const FUTEX_WAKE_OP: u32 = 5;
pub const FUTEX_LOCK_PI: u32 = 6;
pub const FUTEX_UNLOCK_PI: u32 = 7;
pub const FUTEX_TRYLOCK_PI: u32 = 8;
pub const FUTEX_WAIT_BITSET: u32 = 9;
pub const FUTEX_WAKE_BITSET: u32 = 10;
pub const FUTEX_WAIT_REQUEUE_PI: u32 = 11;
pub const FUTEX_CMP_REQUEUE_PI: u32 = 12;
pub const FUTEX_LOCK_PI2: u32 = 13;
pub const FUTEX_PRIVATE_FLAG: u32 = 0x80;
pub const FUTEX_CLOCK_REALTIME: u32 = 0x100;
pub const FUTEX_CMD_MASK: u32 = 0xfffffe7f;
pub const FUTEX_BITSET_MATCH_ANY: u32 = 0xffffffff;

// The word of a lock: owner's thread id and two flags.
pub const FUTEX_WAITERS: u32 = 0x80000000;
pub const FUTEX_OWNER_DIED: u32 = 0x40000000;
pub const FUTEX_TID_MASK: u32 = 0x3fffffff;

// Operations of FUTEX_WAKE_OP, in bits 28 to 31 of its argument, and comparisons, in bits 24 to 27.
pub const FUTEX_OP_SET: u32 = 0;
pub const FUTEX_OP_ADD: u32 = 1;
pub const FUTEX_OP_OR: u32 = 2;
pub const FUTEX_OP_ANDN: u32 = 3;
pub const FUTEX_OP_XOR: u32 = 4;
pub const FUTEX_OP_OPARG_SHIFT: u32 = 8;
pub const FUTEX_OP_CMP_EQ: u32 = 0;
pub const FUTEX_OP_CMP_NE: u32 = 1;
pub const FUTEX_OP_CMP_LT: u32 = 2;
pub const FUTEX_OP_CMP_LE: u32 = 3;
pub const FUTEX_OP_CMP_GT: u32 = 4;
pub const FUTEX_OP_CMP_GE: u32 = 5;

// Flags of futex_waitv(2), futex_wait(2), futex_wake(2) and futex_requeue(2).
pub const FUTEX2_SIZE_U8: u32 = 0;
pub const FUTEX2_SIZE_U16: u32 = 1;
pub const FUTEX2_SIZE_U32: u32 = 2;
pub const FUTEX2_SIZE_U64: u32 = 3;
pub const FUTEX2_SIZE_MASK: u32 = 3;
pub const FUTEX2_NUMA: u32 = 4;
pub const FUTEX2_MPOL: u32 = 8;
pub const FUTEX2_PRIVATE: u32 = 128;
/// The old name of FUTEX2_SIZE_U32.
pub const FUTEX_32: u32 = 2;
pub const FUTEX_WAITV_MAX: usize = 128;

/// The most entries of a robust list that are looked at.
pub const ROBUST_LIST_LIMIT: usize = 2048;

layout! {
    /// `struct futex_waitv`.
    struct FutexWaitv[24] { val: u64, uaddr: u64, flags: u32, _reserved: u32 }

    /// `struct robust_list_head`. Bit 0 of an entry's address says that it is a PI futex.
    struct RobustListHead[24] { list: u64, futex_offset: i64, list_op_pending: u64 }
}
