//! Credentials, capabilities and user namespaces (credentials(7), capabilities(7), user_namespaces(7)).

use std::sync::Arc;

use abi::capability::{CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CapSet};
use abi::{Errno, Result};
use parking_lot::RwLock;

use crate::vfs::Attributes;

/// What an id looks like where it has no mapping (`kernel.overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

/// One line of a uid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdExtent {
    /// First id inside the namespace.
    pub first: u32,
    /// What it is, as a kernel id.
    pub kernel: u32,
    /// How many.
    pub count: u32,
}

/// The ids of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    extents: Vec<IdExtent>,
}

impl IdMap {
    /// The map in which every id is what it is.
    pub fn identity() -> IdMap {
        IdMap { extents: vec![IdExtent { first: 0, kernel: 0, count: u32::MAX }] }
    }

    /// From extents whose `kernel` ids are kernel ids. EINVAL if they overlap or wrap.
    pub fn new(extents: Vec<IdExtent>) -> Result<IdMap> {
        for (i, e) in extents.iter().enumerate() {
            let (Some(first_end), Some(kernel_end)) =
                (e.first.checked_add(e.count), e.kernel.checked_add(e.count))
            else {
                return Err(Errno::EINVAL);
            };
            let overlaps = |o: &IdExtent| {
                (o.first < first_end && e.first < o.first.saturating_add(o.count))
                    || (o.kernel < kernel_end && e.kernel < o.kernel.saturating_add(o.count))
            };
            let wraps = e.first == u32::MAX || e.kernel == u32::MAX;
            if e.count == 0 || wraps || extents[..i].iter().any(overlaps) {
                return Err(Errno::EINVAL);
            }
        }
        Ok(IdMap { extents })
    }

    /// True until a map was written.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// The lines.
    pub fn extents(&self) -> &[IdExtent] {
        &self.extents
    }

    /// The kernel id of an id inside.
    pub fn to_kernel(&self, id: u32) -> Option<u32> {
        if id == u32::MAX {
            return None;
        }
        let e = self.extents.iter().find(|e| id >= e.first && id - e.first < e.count)?;
        Some(e.kernel + (id - e.first))
    }

    /// The id inside of a kernel id.
    pub fn from_kernel(&self, id: u32) -> Option<u32> {
        let e = self.extents.iter().find(|e| id >= e.kernel && id - e.kernel < e.count)?;
        Some(e.first + (id - e.kernel))
    }
}

/// A user namespace.
pub struct UserNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The namespace it was made in; `None` for the initial one.
    pub parent: Option<Arc<UserNamespace>>,
    /// Who made it (kernel ids).
    pub owner: (u32, u32),
    /// How deep it is.
    pub level: u32,
    maps: RwLock<(IdMap, IdMap)>,
    setgroups_denied: std::sync::atomic::AtomicBool,
}

impl UserNamespace {
    /// The initial namespace. Kernel ids are the host's: its maps of user and group ids say which of them it has.
    pub fn initial(maps: (IdMap, IdMap)) -> Arc<UserNamespace> {
        Arc::new(UserNamespace {
            ino: super::next_namespace_ino(),
            parent: None,
            owner: (0, 0),
            level: 0,
            maps: RwLock::new(maps),
            setgroups_denied: false.into(),
        })
    }

    /// A child namespace without maps. ENOSPC (EUSERS in old kernels) beyond 32 levels.
    pub fn child(self: &Arc<UserNamespace>, owner: (u32, u32)) -> Result<Arc<UserNamespace>> {
        if self.level >= 32 {
            return Err(Errno::ENOSPC);
        }
        Ok(Arc::new(UserNamespace {
            ino: super::next_namespace_ino(),
            parent: Some(self.clone()),
            owner,
            level: self.level + 1,
            maps: RwLock::default(),
            setgroups_denied: self.setgroups_denied().into(),
        }))
    }

    /// The kernel id of a uid inside. EINVAL without a mapping.
    pub fn kernel_uid(&self, uid: u32) -> Result<u32> {
        self.maps.read().0.to_kernel(uid).ok_or(Errno::EINVAL)
    }

    /// The kernel id of a gid inside. EINVAL without a mapping.
    pub fn kernel_gid(&self, gid: u32) -> Result<u32> {
        self.maps.read().1.to_kernel(gid).ok_or(Errno::EINVAL)
    }

    /// What a kernel uid looks like inside.
    pub fn uid(&self, kernel: u32) -> u32 {
        self.maps.read().0.from_kernel(kernel).unwrap_or(OVERFLOW_ID)
    }

    /// What a kernel gid looks like inside.
    pub fn gid(&self, kernel: u32) -> u32 {
        self.maps.read().1.from_kernel(kernel).unwrap_or(OVERFLOW_ID)
    }

    /// True if both ids of an inode are mapped here.
    pub fn maps_ids(&self, uid: u32, gid: u32) -> bool {
        let maps = self.maps.read();
        maps.0.from_kernel(uid).is_some() && maps.1.from_kernel(gid).is_some()
    }

    /// A copy of the uid map (`true`) or gid map.
    pub fn map(&self, uids: bool) -> IdMap {
        let maps = self.maps.read();
        if uids { maps.0.clone() } else { maps.1.clone() }
    }

    /// `/proc/PID/setgroups` says deny.
    pub fn setgroups_denied(&self) -> bool {
        self.setgroups_denied.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// True if setgroups(2) is allowed: a gid map is there, and it was not denied.
    pub fn setgroups_allowed(&self) -> bool {
        !self.maps.read().1.is_empty() && !self.setgroups_denied()
    }

    /// Writes "deny" to `/proc/PID/setgroups`. EPERM once a gid map is there.
    pub fn deny_setgroups(&self) -> Result<()> {
        if !self.maps.read().1.is_empty() && !self.setgroups_denied() {
            return Err(Errno::EPERM);
        }
        self.setgroups_denied.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// Writes a map (map_write() of kernel/user_namespace.c). `lines` hold ids of the parent namespace (as seen by the
    /// writer); EPERM when written twice or without the right, EINVAL for bad lines.
    pub fn set_map(
        &self,
        uids: bool,
        lines: &[(u32, u32, u32)],
        writer: &Credentials,
        opener: &Credentials,
    ) -> Result<()> {
        let Some(parent) = &self.parent else { return Err(Errno::EPERM) };
        let mut maps = self.maps.write();
        let map = if uids { &maps.0 } else { &maps.1 };
        if !map.is_empty() {
            return Err(Errno::EPERM);
        }
        if lines.is_empty() || lines.len() > 340 {
            return Err(Errno::EINVAL);
        }
        // What is wrong in itself comes before what is not allowed.
        IdMap::new(
            lines.iter().map(|&(first, outside, count)| IdExtent { first, kernel: outside, count }).collect(),
        )?;
        let privileged = writer.capable_in(parent, if uids { CAP_SETUID } else { CAP_SETGID })
            && opener.capable_in(parent, if uids { CAP_SETUID } else { CAP_SETGID });
        let own = match lines {
            [(_, outside, 1)] if uids => {
                parent.maps.read().0.to_kernel(*outside) == Some(writer.euid) && self.owner.0 == writer.euid
            }
            [(_, outside, 1)] => {
                parent.maps.read().1.to_kernel(*outside) == Some(writer.egid)
                    && self.owner.0 == writer.euid
                    && self.setgroups_denied()
            }
            _ => false,
        };
        if !privileged && !own {
            return Err(Errno::EPERM);
        }
        let parent_maps = parent.maps.read();
        let parent_map = if uids { &parent_maps.0 } else { &parent_maps.1 };
        let mut extents = Vec::with_capacity(lines.len());
        for &(first, outside, count) in lines {
            let kernel = parent_map.to_kernel(outside).ok_or(Errno::EPERM)?;
            let last =
                outside.checked_add(count.checked_sub(1).ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
            // A range must be contiguous for the parent too.
            if parent_map.to_kernel(last) != kernel.checked_add(count - 1) {
                return Err(Errno::EPERM);
            }
            extents.push(IdExtent { first, kernel, count });
        }
        if uids && lines.iter().any(|l| l.1 == 0) && !writer.capable_in(parent, CAP_SETFCAP) && !own {
            return Err(Errno::EPERM);
        }
        let new = IdMap::new(extents)?;
        drop(parent_maps);
        if uids {
            maps.0 = new;
        } else {
            maps.1 = new;
        }
        Ok(())
    }

    /// True if `self` is `other` or was made below it.
    pub fn is_below(self: &Arc<UserNamespace>, other: &Arc<UserNamespace>) -> bool {
        let mut at = Some(self);
        while let Some(ns) = at {
            if Arc::ptr_eq(ns, other) {
                return true;
            }
            at = ns.parent.as_ref();
        }
        false
    }
}

/// The credentials of a task. Immutable: a change makes new ones. All ids are kernel ids.
#[derive(Clone)]
#[allow(missing_docs, reason = "the names are credentials(7)'s")]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<[u32]>,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    pub securebits: u32,
    pub user_ns: Arc<UserNamespace>,
}

impl Credentials {
    /// Root of a namespace (of the host where it has none), with every capability.
    pub fn root(user_ns: Arc<UserNamespace>) -> Credentials {
        let uid = user_ns.kernel_uid(0).unwrap_or(0);
        let gid = user_ns.kernel_gid(0).unwrap_or(0);
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Arc::new([]),
            permitted: CapSet::FULL,
            effective: CapSet::FULL,
            inheritable: CapSet::EMPTY,
            bounding: CapSet::FULL,
            ambient: CapSet::EMPTY,
            securebits: 0,
            user_ns,
        }
    }

    /// True if `gid` is the filesystem gid or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// True if `gid` is the effective gid or a supplementary one.
    pub fn in_egroup(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }

    /// ns_capable() in the task's own user namespace.
    pub fn capable(&self, capability: u32) -> bool {
        self.effective.contains(capability)
    }

    /// cap_capable(): has the task the capability in `target`?
    pub fn capable_in(&self, target: &Arc<UserNamespace>, capability: u32) -> bool {
        let mut ns = target;
        loop {
            if Arc::ptr_eq(ns, &self.user_ns) {
                return self.effective.contains(capability);
            }
            if ns.level <= self.user_ns.level {
                return false;
            }
            let Some(parent) = &ns.parent else { return false };
            // Whoever made a namespace has every capability in it.
            if Arc::ptr_eq(parent, &self.user_ns) && ns.owner.0 == self.euid {
                return true;
            }
            ns = parent;
        }
    }

    /// capable_wrt_inode_uidgid(): capable, and the inode's ids mean something in the task's namespace.
    pub fn capable_over(&self, attributes: &Attributes, capability: u32) -> bool {
        self.effective.contains(capability) && self.user_ns.maps_ids(attributes.uid, attributes.gid)
    }
}
