//! System V IPC and POSIX message queues (`ipc.h`, `shm.h`, `sem.h`, `msg.h`, `mqueue.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

pub const IPC_PRIVATE: i32 = 0;
pub const IPC_CREAT: u32 = 0o1000;
pub const IPC_EXCL: u32 = 0o2000;
pub const IPC_NOWAIT: u32 = 0o4000;
// Commands of every `*ctl` call.
pub const IPC_RMID: u32 = 0;
pub const IPC_SET: u32 = 1;
pub const IPC_STAT: u32 = 2;
pub const IPC_INFO: u32 = 3;
/// Or'ed to a command; always implied by the 64-bit calls.
pub const IPC_64: u32 = 0x100;
pub const SHM_LOCK: u32 = 11;
pub const SHM_UNLOCK: u32 = 12;
pub const SHM_STAT: u32 = 13;
pub const SHM_INFO: u32 = 14;
pub const SHM_STAT_ANY: u32 = 15;
pub const GETPID: u32 = 11;
pub const GETVAL: u32 = 12;
pub const GETALL: u32 = 13;
pub const GETNCNT: u32 = 14;
pub const GETZCNT: u32 = 15;
pub const SETVAL: u32 = 16;
pub const SETALL: u32 = 17;
pub const SEM_STAT: u32 = 18;
pub const SEM_INFO: u32 = 19;
pub const SEM_STAT_ANY: u32 = 20;
pub const MSG_STAT: u32 = 11;
pub const MSG_INFO: u32 = 12;
pub const MSG_STAT_ANY: u32 = 13;

// Flags of shmget(2) and shmat(2), and in `mode` of [`ShmidDs`].
pub const SHM_HUGETLB: u32 = 0o4000;
pub const SHM_NORESERVE: u32 = 0o10000;
pub const SHM_RDONLY: u32 = 0o10000;
pub const SHM_RND: u32 = 0o20000;
pub const SHM_REMAP: u32 = 0o40000;
pub const SHM_EXEC: u32 = 0o100000;
pub const SHM_DEST: u32 = 0o1000;
pub const SHM_LOCKED: u32 = 0o2000;
pub const SHMMIN: u64 = 1;
pub const SHMMNI: u64 = 4096;
pub const SHMMAX: u64 = 0xffff_ffff_feff_ffff;
pub const SHMALL: u64 = 0xffff_ffff_feff_ffff;
pub const SHMLBA: u64 = 4096;

/// Flag of semop(2), and limits of semaphores.
pub const SEM_UNDO: i16 = 0x1000;
pub const SEMMNI: u32 = 32000;
pub const SEMMSL: u32 = 32000;
pub const SEMMNS: u32 = 1024000000;
pub const SEMOPM: u32 = 500;
pub const SEMVMX: u32 = 32767;
pub const SEMAEM: u32 = 32767;

// Flags of msgrcv(2), and limits of message queues.
pub const MSG_NOERROR: u32 = 0o10000;
pub const MSG_EXCEPT: u32 = 0o20000;
pub const MSG_COPY: u32 = 0o40000;
pub const MSGMNI: u32 = 32000;
pub const MSGMAX: u32 = 8192;
pub const MSGMNB: u32 = 16384;

layout! {
    /// `struct ipc64_perm`.
    struct IpcPerm[48] {
        key: i32, uid: u32, gid: u32, cuid: u32, cgid: u32, mode: u32, seq: u16, _pad1: u16, _pad2: u32,
        _unused: [u64; 2],
    }

    /// `struct shmid64_ds`.
    struct ShmidDs[112] {
        shm_perm: IpcPerm, shm_segsz: u64, shm_atime: i64, shm_dtime: i64, shm_ctime: i64, shm_cpid: i32,
        shm_lpid: i32, shm_nattch: u64, _unused: [u64; 2],
    }

    /// `struct shminfo64` of IPC_INFO.
    struct Shminfo[72] { shmmax: u64, shmmin: u64, shmmni: u64, shmseg: u64, shmall: u64, _unused: [u64; 4] }

    /// `struct shm_info` of SHM_INFO.
    struct ShmInfo[48] {
        used_ids: i32, _pad: u32, shm_tot: u64, shm_rss: u64, shm_swp: u64, swap_attempts: u64, swap_successes: u64,
    }

    /// `struct semid64_ds`.
    struct SemidDs[104] {
        sem_perm: IpcPerm, sem_otime: i64, _unused1: u64, sem_ctime: i64, _unused2: u64, sem_nsems: u64,
        _unused: [u64; 2],
    }

    /// `struct seminfo` of IPC_INFO and SEM_INFO.
    struct Seminfo[40] {
        semmap: i32, semmni: i32, semmns: i32, semmnu: i32, semmsl: i32, semopm: i32, semume: i32, semusz: i32,
        semvmx: i32, semaem: i32,
    }

    /// `struct sembuf`.
    struct Sembuf[6] { sem_num: u16, sem_op: i16, sem_flg: i16 }

    /// `struct msqid64_ds`.
    struct MsqidDs[120] {
        msg_perm: IpcPerm, msg_stime: i64, msg_rtime: i64, msg_ctime: i64, msg_cbytes: u64, msg_qnum: u64,
        msg_qbytes: u64, msg_lspid: i32, msg_lrpid: i32, _unused: [u64; 2],
    }

    /// `struct msginfo` of IPC_INFO and MSG_INFO.
    struct Msginfo[32] {
        msgpool: i32, msgmap: i32, msgmax: i32, msgmnb: i32, msgmni: i32, msgssz: i32, msgtql: i32,
        msgseg: u16, _pad: u16,
    }

    /// `struct mq_attr`.
    struct MqAttr[64] { mq_flags: i64, mq_maxmsg: i64, mq_msgsize: i64, mq_curmsgs: i64, _reserved: [i64; 4] }
}

pub const MQ_PRIO_MAX: u32 = 32768;
// Limits of message queues: defaults, and what privilege cannot exceed.
pub const DFLT_QUEUESMAX: i64 = 256;
pub const DFLT_MSGMAX: i64 = 10;
pub const DFLT_MSG: i64 = 10;
pub const HARD_MSGMAX: i64 = 65536;
pub const DFLT_MSGSIZEMAX: i64 = 8192;
pub const DFLT_MSGSIZE: i64 = 8192;
pub const HARD_MSGSIZEMAX: i64 = 16777216;
/// SIGEV_THREAD's cookie, and what is written to it.
pub const NOTIFY_COOKIE_LEN: usize = 32;
pub const NOTIFY_NONE: u8 = 0;
pub const NOTIFY_WOKENUP: u8 = 1;
pub const NOTIFY_REMOVED: u8 = 2;
