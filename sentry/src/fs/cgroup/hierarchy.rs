//! The groups of processes.
//!
//! Lock order: a group's children → a process's `cgroup`. The values of a group are locked alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::Kernel;
use crate::fs::synthetic::Access;
use crate::task::ThreadGroup;

/// The most groups of a sandbox.
const GROUPS_MAX: usize = 4096;

/// The most levels of groups.
const DEPTH_MAX: usize = 128;

/// A group of processes.
#[derive(Debug)]
pub struct Cgroup {
    /// A number that no other group has or had.
    pub id: u64,
    name: Vec<u8>,
    parent: Weak<Cgroup>,
    children: Mutex<BTreeMap<Vec<u8>, Arc<Cgroup>>>,
    removed: AtomicBool,
    /// What was written to its files, by name.
    values: Mutex<BTreeMap<&'static str, String>>,
    /// Owners and modes that were changed, by file; "" is the directory.
    access: Mutex<BTreeMap<&'static str, Access>>,
}

/// All groups of a sandbox: a hierarchy for each container.
pub struct Hierarchy {
    root: Arc<Cgroup>,
    count: AtomicUsize,
    next: AtomicU64,
}

impl Default for Hierarchy {
    fn default() -> Hierarchy {
        Hierarchy {
            root: Cgroup::new(1, b"", Weak::new()),
            count: AtomicUsize::new(1),
            next: AtomicU64::new(2),
        }
    }
}

impl Cgroup {
    fn new(id: u64, name: &[u8], parent: Weak<Cgroup>) -> Arc<Cgroup> {
        Arc::new(Cgroup {
            id,
            name: name.to_vec(),
            parent,
            children: Mutex::default(),
            removed: AtomicBool::new(false),
            values: Mutex::default(),
            access: Mutex::default(),
        })
    }

    /// The group above; `None` for the root.
    pub fn parent(&self) -> Option<Arc<Cgroup>> {
        self.parent.upgrade()
    }

    /// The path from the root, with " (deleted)" once it is removed.
    pub fn path(self: &Arc<Cgroup>) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = Some(self.clone());
        while let Some(group) = at {
            at = group.parent();
            if at.is_some() {
                names.push(group.name.clone());
            }
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        if self.removed.load(Ordering::Acquire) {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// The groups below, by name.
    pub fn children(&self) -> Vec<(Vec<u8>, Arc<Cgroup>)> {
        self.children.lock().iter().map(|(name, group)| (name.clone(), group.clone())).collect()
    }

    /// A group below. ENOENT.
    pub fn child(&self, name: &[u8]) -> Result<Arc<Cgroup>> {
        self.children.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }

    /// True if it is `other` or lies below it.
    pub fn is_below(self: &Arc<Cgroup>, other: &Arc<Cgroup>) -> bool {
        let mut at = Some(self.clone());
        while let Some(group) = at {
            if Arc::ptr_eq(&group, other) {
                return true;
            }
            at = group.parent();
        }
        false
    }

    /// How many levels of groups are above it.
    pub fn depth(&self) -> usize {
        let mut depth = 0;
        let mut at = self.parent();
        while let Some(group) = at {
            depth += 1;
            at = group.parent();
        }
        depth
    }

    /// How many groups are below it, at any depth.
    pub fn descendants(&self) -> usize {
        let mut count = 0;
        let mut todo = self.children();
        while let Some((_, group)) = todo.pop() {
            count += 1;
            todo.extend(group.children());
        }
        count
    }

    /// True once it was removed.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// What was written to a file.
    pub fn value(&self, file: &'static str) -> Option<String> {
        self.values.lock().get(file).cloned()
    }

    /// Keeps what was written to a file.
    pub fn set_value(&self, file: &'static str, value: String) {
        self.values.lock().insert(file, value);
    }

    /// Mode and owner of a file, if they were changed.
    pub fn access(&self, file: &'static str) -> Option<Access> {
        self.access.lock().get(file).copied()
    }

    /// Changes mode and owner of a file.
    pub fn set_access(&self, file: &'static str, access: Access) {
        self.access.lock().insert(file, access);
    }
}

impl Hierarchy {
    /// The root of a hierarchy of a container's own.
    pub fn new_root(&self) -> Arc<Cgroup> {
        Cgroup::new(self.next.fetch_add(1, Ordering::Relaxed), b"", Weak::new())
    }

    /// The root of the first container's.
    pub fn root(&self) -> &Arc<Cgroup> {
        &self.root
    }

    /// The group of a process.
    pub fn of(&self, process: &ThreadGroup) -> Arc<Cgroup> {
        process.cgroup.read().clone().unwrap_or_else(|| process.container.cgroup.clone())
    }

    /// Makes a group. EEXIST, EINVAL for a name with a line feed, EAGAIN beyond the limits, ENOENT below a removed group.
    pub fn make(&self, parent: &Arc<Cgroup>, name: &[u8], access: Access) -> Result<Arc<Cgroup>> {
        if name.contains(&b'\n') {
            return Err(Errno::EINVAL);
        }
        for (above, levels) in std::iter::successors(Some(parent.clone()), |g| g.parent()).zip(1usize..) {
            let limit = |file| above.value(file).and_then(|v| v.parse::<usize>().ok());
            let full = limit("cgroup.max.descendants").is_some_and(|max| above.descendants() >= max);
            let deep = limit("cgroup.max.depth").is_some_and(|max| levels > max) || levels > DEPTH_MAX;
            if full || deep {
                return Err(Errno::EAGAIN);
            }
        }
        let mut children = parent.children.lock();
        if parent.is_removed() {
            return Err(Errno::ENOENT);
        }
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.count.fetch_add(1, Ordering::AcqRel) >= GROUPS_MAX {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return Err(Errno::EAGAIN);
        }
        let group = Cgroup::new(self.next.fetch_add(1, Ordering::Relaxed), name, Arc::downgrade(parent));
        // Whoever makes a group owns the files with which it is run (cgroup_kn_set_ugid()).
        if (access.uid, access.gid) != (0, 0) {
            group.set_access("", access);
            for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                group.set_access(file, Access { mode: 0o644, ..access });
            }
        }
        children.insert(name.to_vec(), group.clone());
        Ok(group)
    }

    /// Removes a group. EBUSY if it has processes or groups.
    pub fn remove(&self, kernel: &Kernel, parent: &Arc<Cgroup>, name: &[u8]) -> Result<()> {
        let mut siblings = parent.children.lock();
        let group = siblings.get(name).cloned().ok_or(Errno::ENOENT)?;
        if !group.children.lock().is_empty() || !self.processes(kernel, &group).is_empty() {
            return Err(Errno::EBUSY);
        }
        group.removed.store(true, Ordering::Release);
        siblings.remove(name);
        self.count.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// The living processes of a group.
    pub fn processes(&self, kernel: &Kernel, group: &Arc<Cgroup>) -> Vec<Arc<ThreadGroup>> {
        let of_group =
            |process: &Arc<ThreadGroup>| !process.is_dead() && Arc::ptr_eq(&self.of(process), group);
        kernel.processes().into_iter().filter(of_group).collect()
    }

    /// The living processes of a group and of those below it.
    pub fn all_processes(&self, kernel: &Kernel, group: &Arc<Cgroup>) -> Vec<Arc<ThreadGroup>> {
        let below = |process: &Arc<ThreadGroup>| !process.is_dead() && self.of(process).is_below(group);
        kernel.processes().into_iter().filter(below).collect()
    }

    /// Moves a process. ENODEV into a removed group; EBUSY into one that hands its controllers down.
    pub fn enter(&self, group: &Arc<Cgroup>, process: &ThreadGroup) -> Result<()> {
        // With the group's lock, so that it is not removed meanwhile.
        let _children = group.children.lock();
        if group.is_removed() {
            return Err(Errno::ENODEV);
        }
        let hands_down = group.value("cgroup.subtree_control").is_some_and(|v| !v.is_empty());
        if group.parent().is_some() && hands_down {
            return Err(Errno::EBUSY);
        }
        *process.cgroup.write() = Some(group.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_paths_and_limits() {
        let hierarchy = Hierarchy::default();
        let root = hierarchy.root().clone();
        let access = Access { mode: 0o755, uid: 0, gid: 0 };
        let a = hierarchy.make(&root, b"a", access).unwrap();
        let b = hierarchy.make(&a, b"b", access).unwrap();
        assert_eq!((root.path(), a.path(), b.path()), (b"/".to_vec(), b"/a".to_vec(), b"/a/b".to_vec()));
        assert_eq!((b.depth(), root.descendants()), (2, 2));
        assert!(b.is_below(&a) && !a.is_below(&b));
        assert_eq!(hierarchy.make(&root, b"a", access).map(drop), Err(Errno::EEXIST));
        assert_eq!(hierarchy.make(&root, b"x\ny", access).map(drop), Err(Errno::EINVAL));
        a.set_value("cgroup.max.depth", "1".to_string());
        assert_eq!(hierarchy.make(&b, b"c", access).map(drop), Err(Errno::EAGAIN));
        hierarchy.make(&a, b"d", access).unwrap();
        a.set_value("cgroup.max.descendants", "2".to_string());
        assert_eq!(hierarchy.make(&a, b"e", access).map(drop), Err(Errno::EAGAIN));
    }

    #[test]
    fn the_maker_owns_a_group() {
        let hierarchy = Hierarchy::default();
        let access = Access { mode: 0o755, uid: 7, gid: 8 };
        let group = hierarchy.make(hierarchy.root(), b"a", access).unwrap();
        assert_eq!(group.access(""), Some(access));
        assert_eq!(group.access("cgroup.procs"), Some(Access { mode: 0o644, uid: 7, gid: 8 }));
        assert_eq!(group.access("memory.max"), None);
    }
}
