//! Shared memory segments (shmget(2), ipc/shm.c).

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::capability::CAP_IPC_LOCK;
use abi::ipc::{SHM_DEST, SHM_LOCKED, ShmidDs};
use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::Prot;

use super::ids::{Object, Permission, Table};
use crate::mm::AnonymousShared;
use crate::task::{Credentials, Pid, PidNamespace, UserNamespace};
use crate::vfs::{Mappable, ObjectId};

struct State {
    permission: Permission,
    attached_at: i64,
    detached_at: i64,
    changed_at: i64,
    creator: Arc<Pid>,
    last: Option<Arc<Pid>>,
    attachments: Vec<Weak<Attachment>>,
    removed: bool,
    /// SHM_LOCK: remembered and shown; the sandbox's memory is not locked on the host.
    locked: bool,
}

/// A segment.
pub struct Segment {
    memory: Arc<AnonymousShared>,
    size: u64,
    state: Mutex<State>,
}

/// One shmat(2), held by the mappings that come from it.
pub struct Attachment {
    segment: Arc<Segment>,
}

impl Mappable for Attachment {
    fn object(&self) -> ObjectId {
        self.segment.memory.object()
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        self.segment.memory.host_fd(prot, shared)
    }

    fn counts_mappings(&self) -> bool {
        true
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.segment.state.lock().detached_at = crate::time::now().tv_sec;
    }
}

impl Object for Segment {
    fn permission(&self) -> Permission {
        self.state.lock().permission
    }
}

impl Segment {
    /// A segment of `size` bytes. ENOMEM.
    pub fn new(permission: Permission, size: u64, creator: Arc<Pid>) -> Result<Arc<Segment>> {
        let rounded = size.checked_next_multiple_of(platform::PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let state = State {
            permission,
            attached_at: 0,
            detached_at: 0,
            changed_at: crate::time::now().tv_sec,
            creator,
            last: None,
            attachments: Vec::new(),
            removed: false,
            locked: false,
        };
        Ok(Arc::new(Segment { memory: AnonymousShared::new(rounded)?, size, state: Mutex::new(state) }))
    }

    /// Its size as asked for, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// shmat(2) by `pid`: what is to be mapped.
    pub fn attach(self: &Arc<Segment>, pid: Arc<Pid>) -> Arc<Attachment> {
        let attachment = Arc::new(Attachment { segment: self.clone() });
        let mut state = self.state.lock();
        state.attachments.retain(|a| a.strong_count() > 0);
        state.attachments.push(Arc::downgrade(&attachment));
        state.attached_at = crate::time::now().tv_sec;
        state.last = Some(pid);
        attachment
    }

    /// How many mappings there are.
    pub fn attached(&self) -> u64 {
        self.state.lock().attachments.iter().map(|a| a.strong_count() as u64).sum()
    }

    /// shmctl(IPC_STAT).
    pub fn status(&self, user_ns: &UserNamespace, pid_ns: &Arc<PidNamespace>) -> ShmidDs {
        let attached = self.attached();
        let state = self.state.lock();
        let mut shm_perm = state.permission.show(user_ns);
        if state.removed {
            shm_perm.mode |= SHM_DEST;
        }
        if state.locked {
            shm_perm.mode |= SHM_LOCKED;
        }
        ShmidDs {
            shm_perm,
            shm_segsz: self.size,
            shm_atime: state.attached_at,
            shm_dtime: state.detached_at,
            shm_ctime: state.changed_at,
            shm_cpid: state.creator.number_in(pid_ns) as i32,
            shm_lpid: state.last.as_ref().map_or(0, |p| p.number_in(pid_ns)) as i32,
            shm_nattch: attached,
            ..ShmidDs::default()
        }
    }

    /// SHM_LOCK and SHM_UNLOCK. EPERM but for owners with a RLIMIT_MEMLOCK (`limit`) and holders of CAP_IPC_LOCK.
    pub fn lock(
        &self,
        creds: &Credentials,
        user_ns: &Arc<UserNamespace>,
        locked: bool,
        limit: u64,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if !creds.capable_in(user_ns, CAP_IPC_LOCK) {
            let owns = creds.euid == state.permission.uid || creds.euid == state.permission.cuid;
            if !owns || locked && limit == 0 {
                return Err(Errno::EPERM);
            }
        }
        state.locked = locked;
        Ok(())
    }

    /// IPC_SET.
    pub fn set(&self, new: &ShmidDs, user_ns: &UserNamespace) -> Result<()> {
        let mut state = self.state.lock();
        state.permission.set(&new.shm_perm, user_ns)?;
        state.changed_at = crate::time::now().tv_sec;
        Ok(())
    }
}

/// IPC_RMID: the segment goes when nobody has it attached any more.
pub fn remove(table: &Table<Segment>, id: u32) -> Result<()> {
    let segment = table.find(id)?;
    if segment.attached() == 0 {
        table.remove(id)?;
        return Ok(());
    }
    let mut state = segment.state.lock();
    state.removed = true;
    state.permission.key = abi::ipc::IPC_PRIVATE;
    drop(state);
    table.forget_key(id);
    Ok(())
}

/// Takes out segments that were removed and are no longer attached.
pub fn sweep(table: &Table<Segment>) {
    for (id, segment) in table.list() {
        if segment.state.lock().removed && segment.attached() == 0 {
            // Somebody else may have been faster.
            let _ = table.remove(id);
        }
    }
}
