//! System V IPC (sysvipc(7)).

use std::sync::Arc;

use abi::capability::CAP_SYS_RESOURCE;
use abi::ipc as i;
use abi::ipc::{Msginfo, MsqidDs, Sembuf, SemidDs, Seminfo, ShmInfo, ShmidDs, Shminfo};
use abi::time::Timespec;
use abi::{Errno, Result};
use platform::{PAGE_SIZE, Prot};
use sentry::ipc::IpcNamespace;
use sentry::ipc::ids::Object;
use sentry::ipc::msg::{Queue, Select};
use sentry::ipc::sem::Set;
use sentry::ipc::shm::{self, Segment};
use sentry::mm::{Fixed, MapFile, MapRequest};
use sentry::parameters::{MSGMAX, MSGMNB, MSGMNI, SEM, SHMMAX, SHMMNI};
use sentry::task::CurrentTask;

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    SHMGET => shmget;
    SHMAT => shmat;
    SHMDT => shmdt;
    SHMCTL => shmctl;
    SEMGET => semget;
    SEMOP => semop;
    SEMTIMEDOP => semtimedop;
    SEMCTL => semctl;
    MSGGET => msgget;
    MSGSND => msgsnd;
    MSGRCV => msgrcv;
    MSGCTL => msgctl;
};

fn ipc(task: &CurrentTask) -> Arc<IpcNamespace> {
    task.namespaces().ipc.clone()
}

/// EACCES unless the caller may do what the mask says.
fn check(task: &CurrentTask, ns: &IpcNamespace, object: &impl Object, mask: u32) -> Result<()> {
    object.permission().check(&task.credentials(), &ns.user_ns, mask)
}

fn check_owner(task: &CurrentTask, ns: &IpcNamespace, object: &impl Object) -> Result<()> {
    object.permission().check_owner(&task.credentials(), &ns.user_ns)
}

fn shmget(task: &CurrentTask, key: i32, size: u64, flags: u32) -> Result<u32> {
    let ns = ipc(task);
    shm::sweep(&ns.shm);
    let creds = task.credentials();
    let check = |segment: &Segment| if size > segment.size() { Err(Errno::EINVAL) } else { Ok(()) };
    ns.shm.get(key, flags, &creds, (&ns.user_ns, &ns.parameters), check, |permission| {
        if size < i::SHMMIN || size > SHMMAX.get(&ns.parameters) as u64 {
            return Err(Errno::EINVAL);
        }
        if size > task.group.container.memory() {
            return Err(Errno::ENOMEM);
        }
        if flags & i::SHM_HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        Segment::new(permission, size, task.group.pid.clone())
    })
}

fn shmat(task: &CurrentTask, id: u32, addr: u64, flags: u32) -> Result<u64> {
    let ns = ipc(task);
    let segment = ns.shm.find(id)?;
    let mut at = addr;
    if !addr.is_multiple_of(i::SHMLBA) {
        if flags & i::SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        at -= addr % i::SHMLBA;
    }
    if at == 0 && flags & i::SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let read_only = flags & i::SHM_RDONLY != 0;
    let mut prot = if read_only { Prot::READ } else { Prot::READ | Prot::WRITE };
    let mut mask = if read_only { 4 } else { 6 };
    if flags & i::SHM_EXEC != 0 {
        prot |= Prot::EXEC;
        mask |= 1;
    }
    check(task, &ns, &*segment, mask)?;
    let fixed = match (at, flags & i::SHM_REMAP) {
        (0, _) => Fixed::No,
        (_, 0) => Fixed::NoReplace,
        _ => Fixed::Replace,
    };
    let mappable = segment.attach(task.group.pid.clone());
    let max_prot = if read_only { Prot::READ | Prot::EXEC } else { Prot::READ | Prot::WRITE | Prot::EXEC };
    let name = Some(format!("/SYSV{:08x}", segment.permission().key).into());
    let request = MapRequest {
        addr: at,
        len: segment.size().next_multiple_of(PAGE_SIZE),
        prot,
        shared: true,
        fixed,
        file: Some(MapFile { mappable, file: None, name, offset: 0, max_prot }),
        limits: task.memory_limits(),
        ..MapRequest::default()
    };
    let mm = task.mm();
    task.with_thread(|thread| mm.map(thread, &request))
        .map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })
}

fn shmdt(task: &CurrentTask, addr: u64) -> Result<()> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    // The segment that begins here, as far as it is still mapped from its beginning on.
    let maps = mm.maps();
    let first = maps.iter().find(|m| m.start == addr && m.is_sysv()).ok_or(Errno::EINVAL)?;
    let (object, base) = (first.object, first.start);
    for map in maps.iter().filter(|m| m.object == object && m.is_sysv()) {
        if map.start >= base && map.start - base == map.offset {
            task.with_thread(|thread| mm.unmap(thread, map.start, map.end - map.start))?;
        }
    }
    shm::sweep(&ipc(task).shm);
    Ok(())
}

fn shmctl(task: &CurrentTask, id: u32, command: u32, buf: Address) -> Result<u32> {
    let ns = ipc(task);
    let user_ns = task.credentials().user_ns.clone();
    shm::sweep(&ns.shm);
    match command & !i::IPC_64 {
        i::IPC_INFO => {
            let info = Shminfo {
                shmmax: SHMMAX.get(&ns.parameters) as u64,
                shmmin: i::SHMMIN,
                shmmni: SHMMNI.get(&ns.parameters) as u64,
                shmseg: SHMMNI.get(&ns.parameters) as u64,
                shmall: i::SHMALL,
                ..Shminfo::default()
            };
            task.mm().write_object(buf.0, &info)?;
            Ok(ns.shm.highest())
        }
        i::SHM_INFO => {
            let all = ns.shm.list();
            let pages = all.iter().map(|(_, s)| s.size().div_ceil(PAGE_SIZE)).sum();
            let info =
                ShmInfo { used_ids: all.len() as i32, shm_tot: pages, shm_rss: pages, ..ShmInfo::default() };
            task.mm().write_object(buf.0, &info)?;
            Ok(ns.shm.highest())
        }
        command @ (i::IPC_STAT | i::SHM_STAT | i::SHM_STAT_ANY) => {
            let (id, segment) =
                if command == i::IPC_STAT { (0, ns.shm.find(id)?) } else { ns.shm.at_index(id)? };
            if command != i::SHM_STAT_ANY {
                check(task, &ns, &*segment, 4)?;
            }
            task.mm().write_object(buf.0, &segment.status(&user_ns, &task.pid_ns()))?;
            Ok(id)
        }
        i::IPC_SET => {
            let new: ShmidDs = task.mm().read_object(buf.0)?;
            let segment = ns.shm.find(id)?;
            check_owner(task, &ns, &*segment)?;
            segment.set(&new, &user_ns).map(|()| 0)
        }
        i::IPC_RMID => {
            let segment = ns.shm.find(id)?;
            check_owner(task, &ns, &*segment)?;
            drop(segment);
            shm::remove(&ns.shm, id).map(|()| 0)
        }
        i::SHM_LOCK | i::SHM_UNLOCK => {
            let locked = command & !i::IPC_64 == i::SHM_LOCK;
            let limit = task.group.limits.current(abi::resource::RLIMIT_MEMLOCK);
            ns.shm.find(id)?.lock(&task.credentials(), &ns.user_ns, locked, limit).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The most semaphores of a set, and operations of a call.
fn semaphore_limits(ns: &IpcNamespace) -> [usize; 2] {
    let values = SEM.values(&ns.parameters);
    [0, 2].map(|at| values.get(at).map_or(0, |&v| v.clamp(0, i::SEMMSL.into()) as usize))
}

fn semget(task: &CurrentTask, key: i32, count: i32, flags: u32) -> Result<u32> {
    let ns = ipc(task);
    let most = semaphore_limits(&ns)[0];
    let count = usize::try_from(count).ok().filter(|&c| c <= most).ok_or(Errno::EINVAL)?;
    let creds = task.credentials();
    let check = |set: &Set| if count > set.len() { Err(Errno::EINVAL) } else { Ok(()) };
    ns.sem.get(key, flags, &creds, (&ns.user_ns, &ns.parameters), check, |permission| {
        if count == 0 { Err(Errno::EINVAL) } else { Ok(Set::new(permission, count)) }
    })
}

fn semop(task: &CurrentTask, id: u32, operations: UserPtr<Sembuf>, count: usize) -> Result<()> {
    semtimedop(task, id, operations, count, UserPtr::new(0))
}

fn semtimedop(
    task: &CurrentTask,
    id: u32,
    operations: UserPtr<Sembuf>,
    count: usize,
    timeout: UserPtr<Timespec>,
) -> Result<()> {
    let deadline = match timeout.non_null() {
        None => None,
        Some(pointer) => {
            let nanos = u64::try_from(pointer.read(task)?.to_duration()?.as_nanos()).unwrap_or(u64::MAX);
            Some(task.kernel().clock.monotonic().saturating_add(nanos))
        }
    };
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let ns = ipc(task);
    if count > semaphore_limits(&ns)[1] {
        return Err(Errno::E2BIG);
    }
    let operations = operations.read_slice(task, count)?;
    let set = ns.sem.find(id)?;
    if operations.iter().any(|op| usize::from(op.sem_num) >= set.len()) {
        return Err(Errno::EFBIG);
    }
    let alters = operations.iter().any(|op| op.sem_op != 0);
    check(task, &ns, &*set, if alters { 2 } else { 4 })?;
    set.operate(task, &operations, deadline)
}

fn semctl(task: &CurrentTask, id: u32, index: i32, command: u32, arg: u64) -> Result<u32> {
    let ns = ipc(task);
    let user_ns = task.credentials().user_ns.clone();
    match command & !i::IPC_64 {
        command @ (i::IPC_INFO | i::SEM_INFO) => {
            let all = ns.sem.list();
            let [semmsl, semopm] = semaphore_limits(&ns).map(|limit| limit as i32);
            let mut info = Seminfo {
                semmap: i::SEMMNS as i32,
                semmni: SEM.values(&ns.parameters).get(3).copied().unwrap_or(0) as i32,
                semmns: i::SEMMNS as i32,
                semmnu: i::SEMMNS as i32,
                semmsl,
                semopm,
                semume: semopm,
                semusz: 20,
                semvmx: i::SEMVMX as i32,
                semaem: i::SEMAEM as i32,
            };
            if command == i::SEM_INFO {
                info.semusz = all.len() as i32;
                info.semaem = all.iter().map(|(_, s)| s.len()).sum::<usize>() as i32;
            }
            task.mm().write_object(arg, &info)?;
            Ok(ns.sem.highest())
        }
        command @ (i::IPC_STAT | i::SEM_STAT | i::SEM_STAT_ANY) => {
            let (id, set) =
                if command == i::IPC_STAT { (0, ns.sem.find(id)?) } else { ns.sem.at_index(id)? };
            if command != i::SEM_STAT_ANY {
                check(task, &ns, &*set, 4)?;
            }
            task.mm().write_object(arg, &set.status(&user_ns))?;
            Ok(id)
        }
        i::IPC_SET => {
            let new: SemidDs = task.mm().read_object(arg)?;
            let set = ns.sem.find(id)?;
            check_owner(task, &ns, &*set)?;
            set.set(&new, &user_ns).map(|()| 0)
        }
        i::IPC_RMID => {
            let set = ns.sem.find(id)?;
            check_owner(task, &ns, &*set)?;
            ns.sem.remove(id)?.removed();
            Ok(0)
        }
        command @ (i::GETVAL | i::GETPID | i::GETNCNT | i::GETZCNT) => {
            let set = ns.sem.find(id)?;
            check(task, &ns, &*set, 4)?;
            let index = usize::try_from(index).map_err(|_| Errno::EINVAL)?;
            let [value, pid, more, zero] = set.semaphore(index, task)?;
            Ok(match command {
                i::GETVAL => value,
                i::GETPID => pid,
                i::GETNCNT => more,
                _ => zero,
            })
        }
        i::GETALL => {
            let set = ns.sem.find(id)?;
            check(task, &ns, &*set, 4)?;
            let bytes: Vec<u8> = set.values().iter().flat_map(|v| v.to_le_bytes()).collect();
            task.mm().write_bytes(arg, &bytes)?;
            Ok(0)
        }
        i::SETVAL => {
            let set = ns.sem.find(id)?;
            let index = usize::try_from(index).ok().filter(|&i| i < set.len()).ok_or(Errno::EINVAL)?;
            let value = u16::try_from(arg as i32).map_err(|_| Errno::ERANGE)?;
            check(task, &ns, &*set, 2)?;
            set.set_values(task, index, &[value]).map(|()| 0)
        }
        i::SETALL => {
            let set = ns.sem.find(id)?;
            check(task, &ns, &*set, 2)?;
            let values = UserPtr::<u16>::new(arg).read_slice(task, set.len())?;
            set.set_values(task, 0, &values).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn msgget(task: &CurrentTask, key: i32, flags: u32) -> Result<u32> {
    let ns = ipc(task);
    let creds = task.credentials();
    let bytes_max = MSGMNB.get(&ns.parameters) as u64;
    ns.msg.get(
        key,
        flags,
        &creds,
        (&ns.user_ns, &ns.parameters),
        |_| Ok(()),
        |permission| Ok(Queue::new(permission, bytes_max)),
    )
}

fn msgsnd(task: &CurrentTask, id: u32, message: Address, size: usize, flags: u32) -> Result<()> {
    let ns = ipc(task);
    if size > MSGMAX.get(&ns.parameters) as usize {
        return Err(Errno::EINVAL);
    }
    let kind: i64 = task.mm().read_object(message.0)?;
    if kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = vec![0; size];
    task.mm().read_bytes(message.0.checked_add(8).ok_or(Errno::EFAULT)?, &mut text)?;
    let queue = ns.msg.find(id)?;
    check(task, &ns, &*queue, 2)?;
    queue.send(task, kind, &text, flags & i::IPC_NOWAIT != 0)
}

fn msgrcv(
    task: &CurrentTask,
    id: u32,
    message: Address,
    size: usize,
    kind: i64,
    flags: u32,
) -> Result<usize> {
    if (size as i64) < 0 || id as i32 <= -1 {
        return Err(Errno::EINVAL);
    }
    let which = if flags & i::MSG_COPY != 0 {
        if flags & i::MSG_EXCEPT != 0 || flags & i::IPC_NOWAIT == 0 {
            return Err(Errno::EINVAL);
        }
        Select::Copy(usize::try_from(kind).map_err(|_| Errno::ENOMSG)?)
    } else {
        match kind {
            0 => Select::Any,
            k if k < 0 => Select::UpTo(k.checked_neg().unwrap_or(i64::MAX)),
            k if flags & i::MSG_EXCEPT != 0 => Select::Not(k),
            k => Select::Kind(k),
        }
    };
    let ns = ipc(task);
    let queue = ns.msg.find(id)?;
    check(task, &ns, &*queue, 4)?;
    let cut = flags & i::MSG_NOERROR != 0;
    let (kind, text) = queue.receive(task, which, size, cut, flags & i::IPC_NOWAIT != 0)?;
    task.mm().write_object(message.0, &kind)?;
    task.mm().write_bytes(message.0.checked_add(8).ok_or(Errno::EFAULT)?, &text)?;
    Ok(text.len())
}

fn msgctl(task: &CurrentTask, id: u32, command: u32, buf: Address) -> Result<u32> {
    let ns = ipc(task);
    let user_ns = task.credentials().user_ns.clone();
    match command & !i::IPC_64 {
        command @ (i::IPC_INFO | i::MSG_INFO) => {
            let all: Vec<MsqidDs> =
                ns.msg.list().iter().map(|(_, q)| q.status(&user_ns, &task.pid_ns())).collect();
            let msgmnb = MSGMNB.get(&ns.parameters) as i32;
            let msgmni = MSGMNI.get(&ns.parameters);
            let mut info = Msginfo {
                msgpool: (msgmni * i64::from(msgmnb) / 1024) as i32,
                msgmap: msgmnb,
                msgmax: MSGMAX.get(&ns.parameters) as i32,
                msgmnb,
                msgmni: msgmni as i32,
                msgssz: 16,
                msgtql: msgmnb,
                msgseg: 0xffff,
                ..Msginfo::default()
            };
            if command == i::MSG_INFO {
                info.msgpool = all.len() as i32;
                info.msgmap = all.iter().map(|q| q.msg_qnum).sum::<u64>() as i32;
                info.msgtql = all.iter().map(|q| q.msg_cbytes).sum::<u64>() as i32;
            }
            task.mm().write_object(buf.0, &info)?;
            Ok(ns.msg.highest())
        }
        command @ (i::IPC_STAT | i::MSG_STAT | i::MSG_STAT_ANY) => {
            let (id, queue) =
                if command == i::IPC_STAT { (0, ns.msg.find(id)?) } else { ns.msg.at_index(id)? };
            if command != i::MSG_STAT_ANY {
                check(task, &ns, &*queue, 4)?;
            }
            task.mm().write_object(buf.0, &queue.status(&user_ns, &task.pid_ns()))?;
            Ok(id)
        }
        i::IPC_SET => {
            let new: MsqidDs = task.mm().read_object(buf.0)?;
            let queue = ns.msg.find(id)?;
            check_owner(task, &ns, &*queue)?;
            let may_raise = task.capable(CAP_SYS_RESOURCE);
            queue.set(&new, &user_ns, MSGMNB.get(&ns.parameters) as u64, may_raise).map(|()| 0)
        }
        i::IPC_RMID => {
            let queue = ns.msg.find(id)?;
            check_owner(task, &ns, &*queue)?;
            ns.msg.remove(id)?.removed();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
