//! Asynchronous I/O (`aio_abi.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

layout! {
    /// `struct iocb`.
    struct Iocb[64] {
        aio_data: u64, aio_key: u32, aio_rw_flags: u32, aio_lio_opcode: u16, aio_reqprio: i16,
        aio_fildes: u32, aio_buf: u64, aio_nbytes: u64, aio_offset: i64, _aio_reserved2: u64, aio_flags: u32,
        aio_resfd: u32,
    }

    /// `struct io_event`.
    struct IoEvent[32] { data: u64, obj: u64, res: i64, res2: i64 }

    /// The beginning of the ring that a context's address points to (`struct aio_ring`).
    struct AioRing[32] {
        id: u32, nr: u32, head: u32, tail: u32, magic: u32, compat_features: u32, incompat_features: u32,
        header_length: u32,
    }
}

// `aio_lio_opcode`
pub const IOCB_CMD_PREAD: u16 = 0;
pub const IOCB_CMD_PWRITE: u16 = 1;
pub const IOCB_CMD_FSYNC: u16 = 2;
pub const IOCB_CMD_FDSYNC: u16 = 3;
pub const IOCB_CMD_POLL: u16 = 5;
pub const IOCB_CMD_NOOP: u16 = 6;
pub const IOCB_CMD_PREADV: u16 = 7;
pub const IOCB_CMD_PWRITEV: u16 = 8;
// `aio_flags`
pub const IOCB_FLAG_RESFD: u32 = 1;
pub const IOCB_FLAG_IOPRIO: u32 = 2;
pub const AIO_RING_MAGIC: u32 = 0xa10a10a1;
