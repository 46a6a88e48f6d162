//! Keys, ids and permissions of System V objects (ipc/util.c).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::capability::{CAP_IPC_OWNER, CAP_SYS_ADMIN};
use abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, IpcPerm};
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::parameters::{Parameter, Parameters};
use crate::task::{Credentials, UserNamespace};

/// Ids are an index and a sequence number, so that a stale id is not taken for a new object's.
const INDEX_BITS: u32 = 15;

/// Owner and mode of an object; ids are kernel ids.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are Linux's")]
pub struct Permission {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
}

impl Permission {
    /// ipcperms(): EACCES unless `creds` may do what `mask` says (4 read, 2 write).
    pub fn check(&self, creds: &Credentials, user_ns: &Arc<UserNamespace>, mask: u32) -> Result<()> {
        let granted = if creds.euid == self.uid || creds.euid == self.cuid {
            self.mode >> 6
        } else if creds.in_egroup(self.gid) || creds.in_egroup(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if mask & !granted & 7 == 0 || creds.capable_in(user_ns, CAP_IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// EPERM unless `creds` own the object: for IPC_SET and IPC_RMID.
    pub fn check_owner(&self, creds: &Credentials, user_ns: &Arc<UserNamespace>) -> Result<()> {
        let owns = creds.euid == self.uid || creds.euid == self.cuid;
        if owns || creds.capable_in(user_ns, CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// As `*ctl(IPC_STAT)` shows it to `user_ns`.
    pub fn show(&self, user_ns: &UserNamespace) -> IpcPerm {
        IpcPerm {
            key: self.key,
            uid: user_ns.uid(self.uid),
            gid: user_ns.gid(self.gid),
            cuid: user_ns.uid(self.cuid),
            cgid: user_ns.gid(self.cgid),
            mode: self.mode,
            seq: self.seq,
            ..IpcPerm::default()
        }
    }

    /// IPC_SET: owner and the nine mode bits. EINVAL for ids that are not mapped.
    pub fn set(&mut self, new: &IpcPerm, user_ns: &UserNamespace) -> Result<()> {
        let (uid, gid) = (user_ns.kernel_uid(new.uid)?, user_ns.kernel_gid(new.gid)?);
        self.uid = uid;
        self.gid = gid;
        self.mode = self.mode & !0o777 | new.mode & 0o777;
        Ok(())
    }
}

/// What every kind of object has.
pub trait Object: Send + Sync {
    /// Owner and mode.
    fn permission(&self) -> Permission;
}

struct Entries<T> {
    by_index: BTreeMap<u32, (u16, Arc<T>)>,
    /// Indices below that of the newest object, which are in use no more.
    freed: BTreeSet<u32>,
    /// Neither in use nor freed from here on.
    fresh: u32,
    keys: HashMap<i32, u32>,
    next_seq: u16,
}

/// The objects of one kind in a namespace.
pub struct Table<T> {
    entries: Mutex<Entries<T>>,
    /// How many objects there may be.
    max: fn(&Parameters) -> i64,
    /// The id that the next object is to have, if it is not negative.
    next_id: &'static Parameter,
}

impl<T> Entries<T> {
    /// A free index, from `start` on.
    fn free_index(&mut self, start: Option<u32>) -> Option<u32> {
        let end = 1 << INDEX_BITS;
        match start {
            None => self.freed.pop_first().or_else(|| {
                let fresh = (self.fresh < end).then_some(self.fresh)?;
                self.fresh += 1;
                Some(fresh)
            }),
            Some(start) => {
                let index = (start..end).find(|index| !self.by_index.contains_key(index))?;
                if !self.freed.remove(&index) {
                    self.freed.extend(self.fresh..index);
                    self.fresh = index + 1;
                }
                Some(index)
            }
        }
    }
}

impl<T: Object> Table<T> {
    /// With room for what the first function says, and the parameter that chooses an id.
    pub fn new(max: fn(&Parameters) -> i64, next_id: &'static Parameter) -> Table<T> {
        let entries = Entries {
            by_index: BTreeMap::new(),
            freed: BTreeSet::new(),
            fresh: 0,
            keys: HashMap::new(),
            next_seq: 0,
        };
        Table { entries: Mutex::new(entries), max, next_id }
    }

    /// `*get(2)`: finds the object of a key or makes one. `check` looks at one that is there; `make` gets its
    /// permission. ENOENT, EEXIST, EACCES, ENOSPC.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        creds: &Credentials,
        (user_ns, parameters): (&Arc<UserNamespace>, &Parameters),
        check: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Permission) -> Result<Arc<T>>,
    ) -> Result<u32> {
        let mut entries = self.entries.lock();
        if key != IPC_PRIVATE
            && let Some(&index) = entries.keys.get(&key)
            && let Some((seq, object)) = entries.by_index.get(&index)
        {
            if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            check(object)?;
            // What the caller asks for in the mode, for any of the three classes.
            let wanted = (flags >> 6 | flags >> 3 | flags) & 7;
            object.permission().check(creds, user_ns, wanted)?;
            return Ok(u32::from(*seq) << INDEX_BITS | index);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if entries.by_index.len() as i64 >= (self.max)(parameters) {
            return Err(Errno::ENOSPC);
        }
        let wanted = u32::try_from(self.next_id.get(parameters)).ok();
        let seq = wanted.map_or(entries.next_seq, |id| (id >> INDEX_BITS) as u16);
        let (uid, gid) = (creds.euid, creds.egid);
        let object = make(Permission { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777, seq })?;
        let start = wanted.map(|id| id & ((1 << INDEX_BITS) - 1));
        let index = entries.free_index(start).ok_or(Errno::ENOSPC)?;
        match wanted {
            Some(_) => self.next_id.set(parameters, &[-1])?,
            None => entries.next_seq = (seq + 1) & 0x7fff,
        }
        entries.by_index.insert(index, (seq, object));
        if key != IPC_PRIVATE {
            entries.keys.insert(key, index);
        }
        Ok(u32::from(seq) << INDEX_BITS | index)
    }

    /// The object of an id. EINVAL for a bad one.
    pub fn find(&self, id: u32) -> Result<Arc<T>> {
        let entries = self.entries.lock();
        match entries.by_index.get(&(id & ((1 << INDEX_BITS) - 1))) {
            Some((seq, object)) if u32::from(*seq) == id >> INDEX_BITS => Ok(object.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The object of an index, with its id, for `*_STAT`.
    pub fn at_index(&self, index: u32) -> Result<(u32, Arc<T>)> {
        let entries = self.entries.lock();
        // As Linux: what is given may also be an id, whose sequence number does not count.
        let index = index & ((1 << INDEX_BITS) - 1);
        let (seq, object) = entries.by_index.get(&index).ok_or(Errno::EINVAL)?;
        Ok((u32::from(*seq) << INDEX_BITS | index, object.clone()))
    }

    /// Takes an object out. EINVAL if it is gone already.
    pub fn remove(&self, id: u32) -> Result<Arc<T>> {
        let mut entries = self.entries.lock();
        let index = id & ((1 << INDEX_BITS) - 1);
        match entries.by_index.get(&index) {
            Some((seq, _)) if u32::from(*seq) == id >> INDEX_BITS => {}
            _ => return Err(Errno::EINVAL),
        }
        let (_, object) = entries.by_index.remove(&index).ok_or(Errno::EINVAL)?;
        entries.freed.insert(index);
        let key = object.permission().key;
        if entries.keys.get(&key) == Some(&index) {
            entries.keys.remove(&key);
        }
        Ok(object)
    }

    /// The key of an object means nothing any more (IPC_RMID of a segment that is still attached).
    pub fn forget_key(&self, id: u32) {
        let index = id & ((1 << INDEX_BITS) - 1);
        self.entries.lock().keys.retain(|_, i| *i != index);
    }

    /// True if there is no object.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().by_index.is_empty()
    }

    /// All objects with their ids.
    pub fn list(&self) -> Vec<(u32, Arc<T>)> {
        let entries = self.entries.lock();
        let all = entries.by_index.iter();
        all.map(|(index, (seq, object))| (u32::from(*seq) << INDEX_BITS | index, object.clone())).collect()
    }

    /// The highest index in use, 0 if there is none.
    pub fn highest(&self) -> u32 {
        self.entries.lock().by_index.keys().next_back().copied().unwrap_or(0)
    }
}
