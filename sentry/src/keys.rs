//! Keys and keyrings (security/keys): the types `keyring`, `user` and `logon`.
//!
//! Whoever can name a key by way of its own keyrings possesses it. Nobody outside is asked for keys (request-key(8)):
//! what is not there is ENOKEY.
//!
//! Lock order: a keyring's links before those of the keyrings in it; the registry's lock is a leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::capability::{CAP_CHOWN, CAP_SYS_ADMIN};
use abi::keyctl as k;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::parameters::{self, Parameter};
use crate::task::{Credentials, Task};

/// How deep keyrings are searched (KEYRING_SEARCH_MAX_DEPTH).
const DEPTH_MAX: usize = 6;

/// The most links of a keyring.
const LINKS_MAX: usize = 4096;

/// Permissions of possessor, user, group or others.
pub mod need {
    #![allow(missing_docs, reason = "the names are Linux's")]
    pub const NOTHING: u32 = 0;
    pub const VIEW: u32 = 1;
    pub const READ: u32 = 2;
    pub const WRITE: u32 = 4;
    pub const SEARCH: u32 = 8;
    pub const LINK: u32 = 0x10;
    pub const SETATTR: u32 = 0x20;
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Holds keys.
    Keyring,
    /// Holds bytes.
    User,
    /// Holds bytes that cannot be read back.
    Logon,
}

impl KeyType {
    /// By its name. ENODEV for one that is not there.
    pub fn by_name(name: &[u8]) -> Result<KeyType> {
        match name {
            b"keyring" => Ok(KeyType::Keyring),
            b"user" => Ok(KeyType::User),
            b"logon" => Ok(KeyType::Logon),
            _ => Err(Errno::ENODEV),
        }
    }

    fn name(self) -> &'static str {
        match self {
            KeyType::Keyring => "keyring",
            KeyType::User => "user",
            KeyType::Logon => "logon",
        }
    }
}

/// A key.
pub struct Key {
    /// Its number.
    pub serial: i32,
    /// Its type.
    pub kind: KeyType,
    /// Its name.
    pub description: Vec<u8>,
    owner: Mutex<(u32, u32)>,
    permissions: AtomicU32,
    payload: Mutex<Vec<u8>>,
    links: Mutex<Vec<Arc<Key>>>,
    revoked: AtomicBool,
    /// Monotonic nanoseconds at which it expires; 0 for never.
    expires: AtomicU64,
    /// What its user is charged for.
    charge: Option<Charge>,
}

impl Drop for Key {
    /// Keyrings in keyrings must not take a stack frame each.
    fn drop(&mut self) {
        let mut open = std::mem::take(self.links.get_mut());
        while let Some(key) = open.pop() {
            if let Some(mut key) = Arc::into_inner(key) {
                open.append(key.links.get_mut());
            }
        }
    }
}

struct Charge {
    usage: Arc<Mutex<Usage>>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut usage = self.usage.lock();
        usage.keys -= 1;
        usage.bytes -= self.bytes;
    }
}

/// What a user's keys take.
#[derive(Default)]
struct Usage {
    keys: usize,
    bytes: usize,
}

impl Key {
    fn has_links(&self) -> Result<()> {
        if self.kind == KeyType::Keyring { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// EKEYREVOKED or EKEYEXPIRED if it is no longer to be used.
    fn check_valid(&self, now: u64) -> Result<()> {
        let expires = self.expires.load(Ordering::Relaxed);
        if self.revoked.load(Ordering::Relaxed) {
            Err(Errno::EKEYREVOKED)
        } else if expires != 0 && now >= expires {
            Err(Errno::EKEYEXPIRED)
        } else {
            Ok(())
        }
    }

    fn allows(&self, creds: &Credentials, possessed: bool, wanted: u32) -> bool {
        let permissions = self.permissions.load(Ordering::Relaxed);
        let (uid, gid) = *self.owner.lock();
        let by_who = if uid == creds.fsuid {
            permissions >> 16
        } else if gid == creds.fsgid || creds.groups.contains(&gid) {
            permissions >> 8
        } else {
            permissions
        };
        let by_possession = if possessed { permissions >> 24 } else { 0 };
        (by_who | by_possession) & wanted == wanted
    }

    /// KEYCTL_DESCRIBE: `type;uid;gid;permissions;description`.
    pub fn describe(&self, creds: &Credentials) -> Vec<u8> {
        let (uid, gid) = *self.owner.lock();
        let ns = &creds.user_ns;
        let permissions = self.permissions.load(Ordering::Relaxed);
        let head = format!("{};{};{};{permissions:08x};", self.kind.name(), ns.uid(uid), ns.gid(gid));
        [head.as_bytes(), &self.description].concat()
    }

    /// KEYCTL_READ. EOPNOTSUPP for what cannot be read back.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self.kind {
            KeyType::Keyring => {
                Ok(self.links.lock().iter().flat_map(|key| key.serial.to_ne_bytes()).collect())
            }
            KeyType::User => Ok(self.payload.lock().clone()),
            KeyType::Logon => Err(Errno::EOPNOTSUPP),
        }
    }

    /// KEYCTL_UPDATE. EINVAL for a bad length, EOPNOTSUPP for keyrings, EDQUOT if it grows beyond what it was charged.
    pub fn update(&self, payload: Vec<u8>) -> Result<()> {
        if self.kind == KeyType::Keyring {
            return Err(Errno::EOPNOTSUPP);
        }
        check_payload(self.kind, &self.description, &payload)?;
        let room = self.charge.as_ref().map_or(usize::MAX, |c| c.bytes - self.description.len());
        let mut old = self.payload.lock();
        if payload.len() > room.max(old.len()) {
            return Err(Errno::EDQUOT);
        }
        *old = payload;
        Ok(())
    }

    /// KEYCTL_REVOKE.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.payload.lock().clear();
        let links = std::mem::take(&mut *self.links.lock());
        drop(links);
    }

    /// KEYCTL_SETPERM. EINVAL, EACCES.
    pub fn set_permissions(&self, task: &Task, permissions: u32) -> Result<()> {
        if permissions & !0x3f3f_3f3f != 0 {
            return Err(Errno::EINVAL);
        }
        if task.credentials().fsuid != self.owner.lock().0 && !task.capable(CAP_SYS_ADMIN) {
            return Err(Errno::EACCES);
        }
        self.permissions.store(permissions, Ordering::Relaxed);
        Ok(())
    }

    /// KEYCTL_CHOWN: `None` leaves one as it is. EACCES.
    pub fn set_owner(&self, task: &Task, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let mut owner = self.owner.lock();
        if !task.capable(CAP_SYS_ADMIN) && !task.capable(CAP_CHOWN) {
            let creds = task.credentials();
            let in_group = |gid: u32| gid == creds.fsgid || creds.groups.contains(&gid);
            if uid.is_some_and(|uid| uid != owner.0)
                || gid.is_some_and(|gid| gid != owner.1 && !in_group(gid))
            {
                return Err(Errno::EACCES);
            }
        }
        *owner = (uid.unwrap_or(owner.0), gid.unwrap_or(owner.1));
        Ok(())
    }

    /// KEYCTL_SET_TIMEOUT: in some seconds from `now`; 0 for never.
    pub fn set_timeout(&self, now: u64, seconds: u32) {
        let expires = if seconds == 0 { 0 } else { now + u64::from(seconds) * 1_000_000_000 };
        self.expires.store(expires, Ordering::Relaxed);
    }

    /// KEYCTL_CLEAR. ENOTDIR for what is no keyring.
    pub fn clear(&self) -> Result<()> {
        self.has_links()?;
        let links = std::mem::take(&mut *self.links.lock());
        drop(links);
        Ok(())
    }

    /// Adds a link, in the place of one to a key of the same type and name. ENOTDIR, EDEADLK for a cycle, ENFILE.
    pub fn link(&self, key: &Arc<Key>) -> Result<()> {
        self.has_links()?;
        if key.holds(self, DEPTH_MAX)? {
            return Err(Errno::EDEADLK);
        }
        let mut links = self.links.lock();
        let same = |other: &Arc<Key>| other.kind == key.kind && other.description == key.description;
        let replaced = match links.iter().position(same) {
            Some(at) => Some(std::mem::replace(links.get_mut(at).ok_or(Errno::ENOKEY)?, key.clone())),
            None if links.len() >= LINKS_MAX => return Err(Errno::ENFILE),
            None => {
                links.push(key.clone());
                None
            }
        };
        drop(links);
        drop(replaced);
        Ok(())
    }

    /// Takes a link away. ENOTDIR, ENOENT.
    pub fn unlink(&self, key: &Key) -> Result<()> {
        self.has_links()?;
        let mut links = self.links.lock();
        let at = links.iter().position(|other| other.serial == key.serial).ok_or(Errno::ENOENT)?;
        let removed = links.remove(at);
        drop(links);
        drop(removed);
        Ok(())
    }

    /// True if `other` is this or somewhere in it. ELOOP if it is too deep to tell.
    fn holds(&self, other: &Key, depth: usize) -> Result<bool> {
        if std::ptr::eq(self, other) {
            return Ok(true);
        }
        let links: Vec<Arc<Key>> = self.links.lock().clone();
        for link in links.iter().filter(|link| link.kind == KeyType::Keyring) {
            let left = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
            if link.holds(other, left)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first key below that `wanted` accepts, in keyrings that may be searched. Nearer ones come first.
    fn find(
        &self,
        creds: &Credentials,
        possessed: bool,
        depth: usize,
        wanted: &dyn Fn(&Key) -> bool,
    ) -> Option<Arc<Key>> {
        let links: Vec<Arc<Key>> = self.links.lock().clone();
        if let Some(found) = links.iter().find(|key| wanted(key)) {
            return Some(found.clone());
        }
        let depth = depth.checked_sub(1)?;
        let open =
            |key: &&Arc<Key>| key.kind == KeyType::Keyring && key.allows(creds, possessed, need::SEARCH);
        links.iter().filter(open).find_map(|ring| ring.find(creds, possessed, depth, wanted))
    }
}

fn check_payload(kind: KeyType, description: &[u8], payload: &[u8]) -> Result<()> {
    let fine = match kind {
        KeyType::Keyring => payload.is_empty(),
        KeyType::User => (1..=32767).contains(&payload.len()),
        KeyType::Logon => {
            let service = description.iter().position(|&c| c == b':');
            (1..=32767).contains(&payload.len()) && service.is_some_and(|at| at > 0)
        }
    };
    if fine { Ok(()) } else { Err(Errno::EINVAL) }
}

#[derive(Default)]
struct Registry {
    last: i32,
    keys: BTreeMap<i32, Weak<Key>>,
    /// User keyring and default session keyring of each user.
    users: HashMap<u32, (Arc<Key>, Arc<Key>)>,
    usage: HashMap<u32, Arc<Mutex<Usage>>>,
}

/// All keys of the sandbox.
#[derive(Default)]
pub struct Keys(Mutex<Registry>);

/// The keyrings of a thread, beside those of its process and its user.
#[derive(Default)]
pub struct TaskKeyrings {
    /// KEY_SPEC_THREAD_KEYRING. Not inherited.
    pub thread: Mutex<Option<Arc<Key>>>,
    /// KEY_SPEC_SESSION_KEYRING. Inherited.
    pub session: Mutex<Option<Arc<Key>>>,
}

/// What a new key is to be.
pub struct NewKey<'a> {
    /// Its type.
    pub kind: KeyType,
    /// Its name.
    pub description: &'a [u8],
    /// What it holds.
    pub payload: Vec<u8>,
    /// `KEY_POS_*` and the others.
    pub permissions: u32,
}

impl Keys {
    /// Makes a key that nothing links to yet. EINVAL; EDQUOT beyond `kernel.keys.maxkeys` or one of its relatives.
    pub fn make(&self, task: &Task, new: NewKey<'_>) -> Result<Arc<Key>> {
        check_payload(new.kind, new.description, &new.payload)?;
        let creds = task.credentials();
        let bytes = new.description.len() + new.payload.len();
        let (keys_max, bytes_max) = match creds.uid {
            0 => (&parameters::KEYS_ROOT_MAXKEYS, &parameters::KEYS_ROOT_MAXBYTES),
            _ => (&parameters::KEYS_MAXKEYS, &parameters::KEYS_MAXBYTES),
        };
        let limit =
            |parameter: &Parameter| usize::try_from(parameter.get(&task.kernel().parameters)).unwrap_or(0);
        let (keys_max, bytes_max) = (limit(keys_max), limit(bytes_max));
        let mut registry = self.0.lock();
        let usage = registry.usage.entry(creds.uid).or_default().clone();
        {
            let mut usage = usage.lock();
            if usage.keys >= keys_max || usage.bytes + bytes > bytes_max {
                return Err(Errno::EDQUOT);
            }
            usage.keys += 1;
            usage.bytes += bytes;
        }
        let charge = Some(Charge { usage, bytes });
        Ok(registry.insert((creds.fsuid, creds.fsgid), new, charge))
    }

    fn by_serial(&self, serial: i32) -> Option<Arc<Key>> {
        self.0.lock().keys.get(&serial).and_then(Weak::upgrade)
    }

    /// The keyring of this name that its user may search, for KEYCTL_JOIN_SESSION_KEYRING.
    fn named_keyring(&self, creds: &Credentials, name: &[u8]) -> Option<Arc<Key>> {
        let keys: Vec<Arc<Key>> = self.0.lock().keys.values().filter_map(Weak::upgrade).collect();
        keys.into_iter().find(|key| {
            key.kind == KeyType::Keyring
                && key.description == name
                && !key.revoked.load(Ordering::Relaxed)
                && key.allows(creds, false, need::SEARCH)
        })
    }

    /// User keyring and default session keyring of a user.
    fn of_user(&self, uid: u32) -> (Arc<Key>, Arc<Key>) {
        let mut registry = self.0.lock();
        if let Some(rings) = registry.users.get(&uid) {
            return rings.clone();
        }
        let permissions = k::KEY_POS_ALL & !k::KEY_POS_SETATTR | k::KEY_USR_ALL;
        let mut ring = |name: String| {
            let new = NewKey {
                kind: KeyType::Keyring,
                description: name.as_bytes(),
                payload: Vec::new(),
                permissions,
            };
            registry.insert((uid, u32::MAX), new, None)
        };
        let user = ring(format!("_uid.{uid}"));
        let session = ring(format!("_uid_ses.{uid}"));
        session.links.lock().push(user.clone());
        registry.users.insert(uid, (user.clone(), session.clone()));
        (user, session)
    }
}

impl Registry {
    fn insert(&mut self, owner: (u32, u32), new: NewKey<'_>, charge: Option<Charge>) -> Arc<Key> {
        if self.keys.len() > 64 && self.keys.len().is_power_of_two() {
            self.keys.retain(|_, key| key.strong_count() > 0);
        }
        let mut random = [0; 4];
        while self.last < 3 || self.keys.contains_key(&self.last) {
            platform::random::fill(&mut random);
            self.last = i32::from_ne_bytes(random) & 0x3fff_ffff;
        }
        let key = Arc::new(Key {
            serial: self.last,
            kind: new.kind,
            description: new.description.to_vec(),
            owner: Mutex::new(owner),
            permissions: AtomicU32::new(new.permissions),
            payload: Mutex::new(new.payload),
            links: Mutex::default(),
            revoked: AtomicBool::new(false),
            expires: AtomicU64::new(0),
            charge,
        });
        self.keys.insert(self.last, Arc::downgrade(&key));
        key
    }
}

impl Task {
    fn new_keyring(&self, name: &[u8], permissions: u32) -> Result<Arc<Key>> {
        let new = NewKey { kind: KeyType::Keyring, description: name, payload: Vec::new(), permissions };
        self.kernel().keys.make(self, new)
    }

    /// The keyrings that it searches: those of the thread, the process and the session.
    fn own_keyrings(&self) -> Vec<Arc<Key>> {
        let thread = self.keyrings.thread.lock().clone();
        let process = self.group.keyring.lock().clone();
        let session = self.keyrings.session.lock().clone();
        let session = session.unwrap_or_else(|| self.kernel().keys.of_user(self.credentials().uid).1);
        thread.into_iter().chain(process).chain([session]).collect()
    }

    fn possesses(&self, key: &Key) -> bool {
        let creds = self.credentials();
        self.own_keyrings().iter().any(|ring| {
            std::ptr::eq(&raw const **ring, key)
                || ring.allows(&creds, true, need::SEARCH)
                    && ring.find(&creds, true, DEPTH_MAX, &|other| std::ptr::eq(other, key)).is_some()
        })
    }

    /// The key that a number means, which may be one of `KEY_SPEC_*`; `create` makes keyrings that are not there.
    /// ENOKEY, EACCES without the permissions, EKEYREVOKED, EKEYEXPIRED, EINVAL.
    pub fn key(&self, id: i32, create: bool, wanted: u32) -> Result<Arc<Key>> {
        let keys = &self.kernel().keys;
        let creds = self.credentials();
        let own = k::KEY_POS_ALL | k::KEY_USR_VIEW;
        let (key, possessed) = match id {
            k::KEY_SPEC_THREAD_KEYRING | k::KEY_SPEC_PROCESS_KEYRING => {
                let (place, name): (_, &[u8]) = if id == k::KEY_SPEC_THREAD_KEYRING {
                    (&self.keyrings.thread, b"_tid")
                } else {
                    (&self.group.keyring, b"_pid")
                };
                let mut place = place.lock();
                if place.is_none() && create {
                    *place = Some(self.new_keyring(name, own)?);
                }
                (place.clone().ok_or(Errno::ENOKEY)?, true)
            }
            k::KEY_SPEC_SESSION_KEYRING => {
                let mut session = self.keyrings.session.lock();
                if session.is_none() && create {
                    *session = Some(self.new_keyring(b"_ses", own | k::KEY_USR_READ)?);
                }
                (session.clone().unwrap_or_else(|| keys.of_user(creds.uid).1), true)
            }
            k::KEY_SPEC_USER_KEYRING => {
                let ring = keys.of_user(creds.uid).0;
                let possessed = self.possesses(&ring);
                (ring, possessed)
            }
            k::KEY_SPEC_USER_SESSION_KEYRING => {
                let ring = keys.of_user(creds.uid).1;
                let possessed = self.possesses(&ring);
                (ring, possessed)
            }
            k::KEY_SPEC_REQKEY_AUTH_KEY | k::KEY_SPEC_REQUESTOR_KEYRING => return Err(Errno::ENOKEY),
            id if id < 1 => return Err(Errno::EINVAL),
            serial => {
                let key = keys.by_serial(serial).ok_or(Errno::ENOKEY)?;
                let possessed = self.possesses(&key);
                (key, possessed)
            }
        };
        if wanted != need::NOTHING {
            key.check_valid(self.kernel().clock.monotonic())?;
        }
        if key.allows(&creds, possessed, wanted) { Ok(key) } else { Err(Errno::EACCES) }
    }

    /// The key of this type and name in the task's keyrings, or in `ring` alone. ENOKEY; EKEYREVOKED and EKEYEXPIRED.
    pub fn find_key(&self, ring: Option<&Arc<Key>>, kind: KeyType, description: &[u8]) -> Result<Arc<Key>> {
        let creds = self.credentials();
        let now = self.kernel().clock.monotonic();
        let rings = match ring {
            Some(ring) => {
                ring.has_links()?;
                vec![ring.clone()]
            }
            None => self.own_keyrings(),
        };
        let named = |key: &Key| {
            key.kind == kind && key.description == description && key.allows(&creds, true, need::SEARCH)
        };
        let valid = |key: &Key| named(key) && key.check_valid(now).is_ok();
        let search = |wanted: &dyn Fn(&Key) -> bool| {
            rings.iter().find_map(|ring| ring.find(&creds, true, DEPTH_MAX, wanted))
        };
        if let Some(found) = search(&valid) {
            return Ok(found);
        }
        match search(&named) {
            Some(stale) => Err(stale.check_valid(now).err().unwrap_or(Errno::ENOKEY)),
            None => Err(Errno::ENOKEY),
        }
    }

    /// add_key(2): makes a key in `ring`, or updates the one there.
    pub fn add_key(
        &self,
        ring: &Arc<Key>,
        kind: KeyType,
        description: &[u8],
        payload: Vec<u8>,
    ) -> Result<Arc<Key>> {
        ring.has_links()?;
        let same = |key: &&Arc<Key>| {
            key.kind == kind && key.description == description && !key.revoked.load(Ordering::Relaxed)
        };
        let there = ring.links.lock().iter().find(same).cloned();
        if let Some(there) = there
            && kind != KeyType::Keyring
        {
            if !there.allows(&self.credentials(), true, need::WRITE) {
                return Err(Errno::EACCES);
            }
            there.update(payload)?;
            return Ok(there);
        }
        let mut permissions = k::KEY_POS_ALL | k::KEY_USR_VIEW;
        if kind == KeyType::Logon {
            permissions &= !k::KEY_POS_READ;
        }
        let new = NewKey { kind, description, payload, permissions };
        let key = self.kernel().keys.make(self, new)?;
        ring.link(&key)?;
        Ok(key)
    }

    /// KEYCTL_JOIN_SESSION_KEYRING: a new session keyring, or the one of this name.
    pub fn join_session_keyring(&self, name: Option<&[u8]>) -> Result<i32> {
        let permissions = k::KEY_POS_ALL | k::KEY_USR_VIEW | k::KEY_USR_READ;
        let ring = match name {
            None => self.new_keyring(b"_ses", permissions)?,
            Some(name) => match self.kernel().keys.named_keyring(&self.credentials(), name) {
                Some(ring) => ring,
                None => self.new_keyring(name, permissions | k::KEY_USR_LINK)?,
            },
        };
        let serial = ring.serial;
        let old = self.keyrings.session.lock().replace(ring);
        drop(old);
        Ok(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_bound_what_a_user_has() {
        let task = crate::task::testing::task();
        let parameters = &task.kernel().parameters;
        parameters::KEYS_ROOT_MAXKEYS.set(parameters, &[2]).unwrap();
        parameters::KEYS_ROOT_MAXBYTES.set(parameters, &[20]).unwrap();
        let keys = Keys::default();
        let make = |payload: &[u8]| {
            let new =
                NewKey { kind: KeyType::User, description: b"k", payload: payload.to_vec(), permissions: 0 };
            keys.make(&task, new)
        };
        assert_eq!(make(&[1; 20]).err(), Some(Errno::EDQUOT));
        let held = [make(&[1]).unwrap(), make(&[1]).unwrap()];
        assert_eq!(make(&[1]).err(), Some(Errno::EDQUOT));
        drop(held);
        make(&[1]).unwrap();
    }
}
