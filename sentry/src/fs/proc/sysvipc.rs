//! `/proc/sysvipc`: the System V IPC objects of the reader's namespace (ipc/util.c).

use std::fmt::Write;
use std::sync::Arc;

use abi::ipc::IpcPerm;
use abi::{Errno, Result};

use super::System;
use super::subject::user_ns_of;
use crate::ipc::IpcNamespace;
use crate::vfs::Io;

fn namespace(io: &Io<'_>) -> Result<Arc<IpcNamespace>> {
    Ok(io.task.ok_or(Errno::EINVAL)?.namespaces().ipc.clone())
}

fn owners(p: &IpcPerm) -> String {
    format!("{:>5} {:>5} {:>5} {:>5}", p.uid, p.gid, p.cuid, p.cgid)
}

pub(super) fn shm(system: &System, io: &Io<'_>) -> Result<Vec<u8>> {
    let (ns, user_ns) = (namespace(io)?, user_ns_of(io, system.kernel()));
    let mut text =
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      \
                    atime      dtime      ctime                   rss                  swap\n"
            .to_string();
    for (id, segment) in ns.shm.list() {
        let s = segment.status(&user_ns, &system.0.pid_ns);
        let p = &s.shm_perm;
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {:>5} {} {:>10} {:>10} {:>10} {:>21} {:>21}",
            p.key,
            p.mode,
            s.shm_segsz,
            s.shm_cpid,
            s.shm_lpid,
            s.shm_nattch,
            owners(p),
            s.shm_atime,
            s.shm_dtime,
            s.shm_ctime,
            s.shm_segsz.next_multiple_of(platform::PAGE_SIZE),
            0,
        );
    }
    Ok(text.into_bytes())
}

pub(super) fn sem(system: &System, io: &Io<'_>) -> Result<Vec<u8>> {
    let (ns, user_ns) = (namespace(io)?, user_ns_of(io, system.kernel()));
    let mut text =
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n".to_string();
    for (id, set) in ns.sem.list() {
        let s = set.status(&user_ns);
        let p = &s.sem_perm;
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o} {:>10} {} {:>10} {:>10}",
            p.key,
            p.mode,
            s.sem_nsems,
            owners(p),
            s.sem_otime,
            s.sem_ctime,
        );
    }
    Ok(text.into_bytes())
}

pub(super) fn msg(system: &System, io: &Io<'_>) -> Result<Vec<u8>> {
    let (ns, user_ns) = (namespace(io)?, user_ns_of(io, system.kernel()));
    let mut text = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      \
                    rtime      ctime\n"
        .to_string();
    for (id, queue) in ns.msg.list() {
        let s = queue.status(&user_ns, &system.0.pid_ns);
        let p = &s.msg_perm;
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {} {:>10} {:>10} {:>10}",
            p.key,
            p.mode,
            s.msg_cbytes,
            s.msg_qnum,
            s.msg_lspid,
            s.msg_lrpid,
            owners(p),
            s.msg_stime,
            s.msg_rtime,
            s.msg_ctime,
        );
    }
    Ok(text.into_bytes())
}
