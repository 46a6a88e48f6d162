//! Mounts and mount namespaces (fs/namespace.c, Documentation/filesystems/sharedsubtree.rst).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result};
use parking_lot::{Mutex, RwLock};

use super::dentry::{Dentry, SuperBlock};
use super::walk::Path;
use crate::task::UserNamespace;
use crate::wait::WaitQueue;

bitflags::bitflags! {
    /// Flags of one mount, with the values of `MS_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u64 {
        /// Read-only.
        const RDONLY = 1;
        /// Set-user-ID bits are ignored.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Nothing can be executed.
        const NOEXEC = 8;
        /// Access times are not updated.
        const NOATIME = 1 << 10;
        /// Access times of directories are not updated.
        const NODIRATIME = 1 << 11;
        /// Access times are updated when older than the modification.
        const RELATIME = 1 << 21;
    }
}

/// How mount events travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// The peer group it belongs to (`shared:N`), 0 for none.
    pub group: u64,
    /// The peer group it receives from (`master:N`), 0 for none.
    pub master: u64,
    /// MS_UNBINDABLE.
    pub unbindable: bool,
}

struct State {
    parent: Option<(Weak<Mount>, Arc<Dentry>)>,
    flags: MountFlags,
    propagation: Propagation,
}

/// A tree attached somewhere.
pub struct Mount {
    id: u32,
    superblock: Arc<SuperBlock>,
    root: Arc<Dentry>,
    source: Vec<u8>,
    state: RwLock<State>,
    /// Open files that may write: a mount that has some cannot become read-only.
    writers: AtomicI64,
    /// MNT_EXPIRE came by, and no file was opened since.
    expiring: AtomicBool,
    namespace: RwLock<Weak<MountNamespace>>,
}

impl Mount {
    /// A mount of `root` that is not attached anywhere yet.
    pub fn new(root: Arc<Dentry>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        static NEXT: AtomicU32 = AtomicU32::new(20);
        root.superblock().mounted();
        Arc::new(Mount {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            superblock: root.superblock().clone(),
            root,
            source: source.to_vec(),
            state: RwLock::new(State { parent: None, flags, propagation: Propagation::default() }),
            writers: AtomicI64::new(0),
            expiring: AtomicBool::new(false),
            namespace: RwLock::default(),
        })
    }

    /// The number that `/proc/self/mountinfo` shows.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The superblock.
    pub fn superblock(&self) -> &Arc<SuperBlock> {
        &self.superblock
    }

    /// The dentry that appears at the mount point.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// The source as given to mount(2).
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// The flags.
    pub fn flags(&self) -> MountFlags {
        self.state.read().flags
    }

    /// Replaces the flags (MS_REMOUNT | MS_BIND). EBUSY if files are open for writing and it would become read-only.
    pub fn set_flags(&self, flags: MountFlags) -> Result<()> {
        let mut state = self.state.write();
        if flags.contains(MountFlags::RDONLY)
            && !state.flags.contains(MountFlags::RDONLY)
            && self.writers.load(Ordering::Acquire) > 0
        {
            return Err(Errno::EBUSY);
        }
        state.flags = flags;
        Ok(())
    }

    /// True if nothing may be changed through this mount.
    pub fn is_read_only(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY)
    }

    /// How mount events travel.
    pub fn propagation(&self) -> Propagation {
        self.state.read().propagation
    }

    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE.
    pub fn set_propagation(&self, propagation: Propagation) {
        self.state.write().propagation = propagation;
    }

    /// A peer group number that nobody uses.
    pub fn new_group() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// The mount and dentry it is attached to; `None` for the root of a namespace and for detached mounts.
    pub fn parent(&self) -> Option<Path> {
        let state = self.state.read();
        let (mount, dentry) = state.parent.as_ref()?;
        Some(Path::new(mount.upgrade()?, dentry.clone()))
    }

    /// The namespace it is attached in, if it is.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.namespace.read().upgrade()
    }

    pub(super) fn file_opened(&self, flags: OpenFlags) {
        if self.expiring.load(Ordering::Relaxed) {
            self.expiring.store(false, Ordering::Relaxed);
        }
        if flags.writable() && !flags.contains(OpenFlags::O_PATH) {
            self.writers.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn file_closed(&self, flags: OpenFlags) {
        if flags.writable() && !flags.contains(OpenFlags::O_PATH) {
            self.writers.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn copy(&self, root: &Arc<Dentry>) -> Arc<Mount> {
        let new = Mount::new(root.clone(), self.flags(), &self.source);
        new.set_propagation(self.propagation());
        new
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.superblock.unmounted();
    }
}

type Point = (u32, usize);

fn point(mount: &Mount, dentry: &Arc<Dentry>) -> Point {
    (mount.id, Arc::as_ptr(dentry) as usize)
}

struct Table {
    root: Arc<Mount>,
    /// What is attached where; the last of a list is on top.
    attached: HashMap<Point, Vec<Arc<Mount>>>,
    all: BTreeMap<u32, Arc<Mount>>,
}

/// What a process sees mounted.
pub struct MountNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The user namespace whose capabilities allow changes.
    pub user_ns: Arc<UserNamespace>,
    /// A detached tree.
    anonymous: bool,
    table: RwLock<Table>,
    /// Serialises compound changes.
    change: Mutex<()>,
    /// Counts changes, for poll on /proc/self/mounts.
    events: AtomicU64,
    /// Woken by changes.
    pub changed: WaitQueue,
}

/// How many mounts a namespace may hold (`fs.mount-max`).
const MOUNT_MAX: usize = 100_000;

impl MountNamespace {
    /// A namespace with `root` at its root.
    pub fn new(root: Arc<Mount>, user_ns: Arc<UserNamespace>) -> Arc<MountNamespace> {
        MountNamespace::make(root, user_ns, false)
    }

    fn make(root: Arc<Mount>, user_ns: Arc<UserNamespace>, anonymous: bool) -> Arc<MountNamespace> {
        let all = BTreeMap::from([(root.id, root.clone())]);
        let ns = Arc::new(MountNamespace {
            ino: crate::task::next_namespace_ino(),
            user_ns,
            anonymous,
            table: RwLock::new(Table { root: root.clone(), attached: HashMap::new(), all }),
            change: Mutex::new(()),
            events: AtomicU64::new(0),
            changed: WaitQueue::new(),
        });
        *root.namespace.write() = Arc::downgrade(&ns);
        ns
    }

    /// A tree that is attached nowhere (open_tree(2), fsmount(2)): it lasts as long as the result, or until
    /// [`MountNamespace::take_tree`].
    pub fn detached(tree: MountTree, user_ns: Arc<UserNamespace>) -> Arc<MountNamespace> {
        let ns = MountNamespace::make(tree.root, user_ns, true);
        ns.link(tree.children.into_iter().map(|(mount, parent, at)| (mount, Path::new(parent, at))));
        ns
    }

    /// True for [`MountNamespace::detached`] trees.
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Takes the mounts of a detached tree out, to be attached somewhere.
    pub fn take_tree(&self) -> MountTree {
        let mut table = self.table.write();
        let mut tree = MountTree { root: table.root.clone(), children: Vec::new() };
        for mount in std::mem::take(&mut table.attached).into_values().flatten() {
            let Some((parent, dentry)) = mount.state.write().parent.take() else { continue };
            dentry.add_mounts(-1);
            if let Some(parent) = parent.upgrade() {
                tree.children.push((mount, parent, dentry));
            }
        }
        tree.children.sort_by_key(|(mount, _, _)| mount.id);
        tree
    }

    /// The root directory, with what is mounted over it.
    pub fn root(&self) -> Path {
        let root = self.table.read().root.clone();
        let dentry = root.root.clone();
        self.top(Path::new(root, dentry))
    }

    /// All mounts, in the order of their numbers.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.table.read().all.values().cloned().collect()
    }

    /// Counts the changes so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    fn count_change(&self) {
        self.events.fetch_add(1, Ordering::AcqRel);
        self.changed.notify(PollEvents::POLLERR | PollEvents::POLLPRI);
    }

    /// Where a path leads when mounts on it are entered: the root of the topmost mount there, or the path itself.
    pub fn top(&self, mut path: Path) -> Path {
        if path.dentry().mounts() > 0
            && let Some(other) = path.mount().namespace()
            && !std::ptr::eq(&raw const *other, self)
        {
            // A detached tree, or another namespace that a descriptor leads to.
            return other.top(path);
        }
        while path.dentry().mounts() > 0 {
            let table = self.table.read();
            let Some(mount) =
                table.attached.get(&point(path.mount(), path.dentry())).and_then(|list| list.last())
            else {
                break;
            };
            path = Path::new(mount.clone(), mount.root.clone());
        }
        path
    }

    /// Attaches `mount` (and the trees below it, from [`MountNamespace::copy_tree`]) at `at`.
    pub fn attach(self: &Arc<Self>, tree: MountTree, at: &Path) -> Result<()> {
        let _change = self.change.lock();
        if at.dentry().is_unlinked() {
            return Err(Errno::ENOENT);
        }
        // A descriptor of a magic link leads to it: there, nothing can be mounted (dont_mount() in fs/proc).
        let link = at.dentry().inode().file_type() == FileType::Symlink;
        if link && at.dentry().superblock().fs().name() == "proc" {
            return Err(Errno::ENOENT);
        }
        if at.dentry().is_dir() != tree.root.root.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let at = self.top(at.clone());
        let parent_shared = at.mount().propagation().group != 0;
        let targets = if parent_shared { self.receivers(&at) } else { Vec::new() };
        if self.table.read().all.len() + tree.len() * (1 + targets.len()) > MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        if parent_shared {
            // What is mounted below a shared mount is shared itself.
            for mount in tree.mounts() {
                let mut p = mount.propagation();
                if p.group == 0 {
                    p.group = Mount::new_group();
                    mount.set_propagation(p);
                }
            }
        }
        for (target, slave) in targets {
            let copy = tree.copy(if slave { CopyAs::Slave } else { CopyAs::Peer });
            if let Some(ns) = target.mount().namespace() {
                ns.attach_one(copy, &target);
            }
        }
        self.attach_one(tree, &at);
        Ok(())
    }

    fn attach_one(self: &Arc<Self>, tree: MountTree, at: &Path) {
        let children =
            tree.children.into_iter().map(|(mount, parent, dentry)| (mount, Path::new(parent, dentry)));
        self.link([(tree.root, at.clone())].into_iter().chain(children));
        self.count_change();
    }

    fn link(self: &Arc<Self>, links: impl Iterator<Item = (Arc<Mount>, Path)>) {
        let mut table = self.table.write();
        for (mount, at) in links {
            mount.state.write().parent = Some((Arc::downgrade(at.mount()), at.dentry().clone()));
            *mount.namespace.write() = Arc::downgrade(self);
            at.dentry().add_mounts(1);
            table.attached.entry(point(at.mount(), at.dentry())).or_default().push(mount.clone());
            table.all.insert(mount.id, mount);
        }
    }

    /// The places that a mount event at `at` propagates to; the flag says that the receiver is a slave.
    fn receivers(&self, at: &Path) -> Vec<(Path, bool)> {
        let group = at.mount().propagation().group;
        let mut found = Vec::new();
        for mount in self.table.read().all.values() {
            let p = mount.propagation();
            let same = Arc::ptr_eq(mount, at.mount());
            if !same
                && group != 0
                && (p.group == group || p.master == group)
                && at.dentry().is_below(&mount.root)
            {
                found.push((Path::new(mount.clone(), at.dentry().clone()), p.group != group));
            }
        }
        found
    }

    /// Mounts attached to `mount`, directly.
    pub fn children(&self, mount: &Mount) -> Vec<Arc<Mount>> {
        let table = self.table.read();
        let of_mount = table.attached.iter().filter(|((id, _), _)| *id == mount.id);
        let mut found: Vec<Arc<Mount>> = of_mount.flat_map(|(_, list)| list.iter().cloned()).collect();
        found.sort_by_key(|m| m.id);
        found
    }

    /// Takes `mount` out, with everything below it if `lazy` (MNT_DETACH). EBUSY if something is mounted below it, or
    /// if it is in use.
    pub fn detach(self: &Arc<Self>, mount: &Arc<Mount>, lazy: bool) -> Result<()> {
        let _change = self.change.lock();
        if !self.table.read().all.contains_key(&mount.id) {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(mount, &self.table.read().root) {
            return Err(if lazy { Errno::EINVAL } else { Errno::EBUSY });
        }
        if !lazy && self.is_used(mount) {
            return Err(Errno::EBUSY);
        }
        let mirrors = match mount.parent() {
            Some(at) if at.mount().propagation().group != 0 => self.receivers(&at),
            _ => Vec::new(),
        };
        for (at, _) in mirrors {
            let copy = self
                .table
                .read()
                .attached
                .get(&point(at.mount(), at.dentry()))
                .and_then(|l| l.last().cloned());
            if let Some(copy) = copy.filter(|c| Arc::ptr_eq(c.root(), mount.root())) {
                self.remove(&copy);
            }
        }
        self.remove(mount);
        Ok(())
    }

    /// True if something is mounted below, or files or directories of it are held; the caller holds it once.
    fn is_used(&self, mount: &Arc<Mount>) -> bool {
        // In the tables: `all` and `attached`. One more is the caller's. Whatever else holds it uses it.
        !self.children(mount).is_empty() || Arc::strong_count(mount) > 4
    }

    /// MNT_EXPIRE: the mount may go if this is the second time, and it was not used in between. EBUSY, EAGAIN.
    pub fn expire(&self, mount: &Arc<Mount>) -> Result<()> {
        if self.is_used(mount) {
            return Err(Errno::EBUSY);
        }
        if mount.expiring.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    fn remove(&self, mount: &Arc<Mount>) {
        for child in self.children(mount) {
            self.remove(&child);
        }
        let parent = mount.state.write().parent.take();
        let mut table = self.table.write();
        if let Some((parent, dentry)) = parent
            && let Some(parent) = parent.upgrade()
        {
            let point = point(&parent, &dentry);
            if let Some(list) = table.attached.get_mut(&point) {
                list.retain(|m| !Arc::ptr_eq(m, mount));
                if list.is_empty() {
                    table.attached.remove(&point);
                }
            }
            dentry.add_mounts(-1);
        }
        table.all.remove(&mount.id);
        drop(table);
        self.count_change();
    }

    /// A copy of what is mounted at `path`, for a bind mount; with the mounts below it if `recursive`. EINVAL if it is
    /// unbindable.
    pub fn copy_tree(&self, path: &Path, recursive: bool) -> Result<MountTree> {
        if path.mount().propagation().unbindable {
            return Err(Errno::EINVAL);
        }
        let root = path.mount().copy(path.dentry());
        let mut tree = MountTree { root: root.clone(), children: Vec::new() };
        if recursive {
            let mut open = vec![(path.mount().clone(), root)];
            while let Some((original, copy)) = open.pop() {
                for child in self.children(&original) {
                    let Some(at) = child.parent() else { continue };
                    if child.propagation().unbindable || !at.dentry().is_below(&copy.root) {
                        continue;
                    }
                    let child_copy = child.copy(&child.root);
                    tree.children.push((child_copy.clone(), copy.clone(), at.dentry().clone()));
                    open.push((child, child_copy));
                }
            }
        }
        Ok(tree)
    }

    /// MS_MOVE: takes a mount from its place to another.
    pub fn relocate(self: &Arc<Self>, mount: &Arc<Mount>, to: &Path) -> Result<()> {
        let _change = self.change.lock();
        let Some(from) = mount.parent() else { return Err(Errno::EINVAL) };
        if to.dentry().is_dir() != mount.root.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let mut at = Some(to.clone());
        while let Some(path) = at {
            if Arc::ptr_eq(path.mount(), mount) {
                return Err(Errno::ELOOP);
            }
            at = path.mount().parent();
        }
        let to = self.top(to.clone());
        self.reattach(mount, &from, &to);
        Ok(())
    }

    fn reattach(&self, mount: &Arc<Mount>, from: &Path, to: &Path) {
        let mut table = self.table.write();
        let old = point(from.mount(), from.dentry());
        if let Some(list) = table.attached.get_mut(&old) {
            list.retain(|m| !Arc::ptr_eq(m, mount));
            if list.is_empty() {
                table.attached.remove(&old);
            }
        }
        from.dentry().add_mounts(-1);
        to.dentry().add_mounts(1);
        mount.state.write().parent = Some((Arc::downgrade(to.mount()), to.dentry().clone()));
        table.attached.entry(point(to.mount(), to.dentry())).or_default().push(mount.clone());
        drop(table);
        self.count_change();
    }

    /// pivot_root(2): `new_root`, a mount's root, becomes the root of the namespace, and the old root is attached at
    /// `put_old`. Permission and the relation of the two have been checked.
    pub fn pivot(self: &Arc<Self>, new_root: &Path, put_old: &Path) -> Result<()> {
        let _change = self.change.lock();
        let mount = new_root.mount().clone();
        let Some(from) = mount.parent() else { return Err(Errno::EINVAL) };
        let old_root = self.table.read().root.clone();
        let mut table = self.table.write();
        let old_point = point(from.mount(), from.dentry());
        if let Some(list) = table.attached.get_mut(&old_point) {
            list.retain(|m| !Arc::ptr_eq(m, &mount));
            if list.is_empty() {
                table.attached.remove(&old_point);
            }
        }
        from.dentry().add_mounts(-1);
        mount.state.write().parent = None;
        table.root = mount;
        old_root.state.write().parent = Some((Arc::downgrade(put_old.mount()), put_old.dentry().clone()));
        put_old.dentry().add_mounts(1);
        table.attached.entry(point(put_old.mount(), put_old.dentry())).or_default().push(old_root);
        drop(table);
        self.count_change();
        Ok(())
    }

    /// A copy of the namespace (CLONE_NEWNS). The second result maps mounts of the old one to those of the new.
    pub fn clone_for(
        self: &Arc<Self>,
        user_ns: Arc<UserNamespace>,
    ) -> (Arc<MountNamespace>, HashMap<u32, Arc<Mount>>) {
        let _change = self.change.lock();
        let old = self.table.read();
        let mut copies: HashMap<u32, Arc<Mount>> = HashMap::new();
        // A less privileged namespace only receives events.
        let less = !Arc::ptr_eq(&user_ns, &self.user_ns);
        for mount in old.all.values() {
            let copy = mount.copy(&mount.root);
            let mut p = copy.propagation();
            if less && p.group != 0 {
                p = Propagation { master: p.group, group: 0, ..p };
            }
            copy.set_propagation(p);
            copies.insert(mount.id, copy);
        }
        let root = copies[&old.root.id].clone();
        let new = MountNamespace::new(root, user_ns);
        {
            let mut table = new.table.write();
            for list in old.attached.values() {
                for mount in list {
                    let Some(at) = mount.parent() else { continue };
                    let (Some(copy), Some(parent)) = (copies.get(&mount.id), copies.get(&at.mount().id))
                    else {
                        continue;
                    };
                    copy.state.write().parent = Some((Arc::downgrade(parent), at.dentry().clone()));
                    *copy.namespace.write() = Arc::downgrade(&new);
                    at.dentry().add_mounts(1);
                    table.attached.entry(point(parent, at.dentry())).or_default().push(copy.clone());
                    table.all.insert(copy.id, copy.clone());
                }
            }
        }
        drop(old);
        (new, copies)
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        for list in self.table.get_mut().attached.values() {
            for mount in list {
                if let Some((_, dentry)) = mount.state.write().parent.take() {
                    dentry.add_mounts(-1);
                }
            }
        }
    }
}

enum CopyAs {
    Peer,
    Slave,
}

/// Mounts that belong together and are attached in one step.
pub struct MountTree {
    root: Arc<Mount>,
    /// Each mount with the mount and dentry it sits on.
    children: Vec<(Arc<Mount>, Arc<Mount>, Arc<Dentry>)>,
}

impl MountTree {
    /// A tree of one mount.
    pub fn single(mount: Arc<Mount>) -> MountTree {
        MountTree { root: mount, children: Vec::new() }
    }

    /// The topmost mount.
    pub fn root(&self) -> &Arc<Mount> {
        &self.root
    }

    /// All mounts.
    pub fn mounts(&self) -> impl Iterator<Item = &Arc<Mount>> {
        std::iter::once(&self.root).chain(self.children.iter().map(|(mount, _, _)| mount))
    }

    fn len(&self) -> usize {
        1 + self.children.len()
    }

    fn copy(&self, how: CopyAs) -> MountTree {
        let copy = |mount: &Arc<Mount>| {
            let new = mount.copy(&mount.root);
            let p = mount.propagation();
            if let CopyAs::Slave = how {
                new.set_propagation(Propagation { group: 0, master: p.group, unbindable: false });
            }
            new
        };
        let mut map = HashMap::from([(self.root.id, copy(&self.root))]);
        let mut children = Vec::new();
        for (mount, parent, dentry) in &self.children {
            let new = copy(mount);
            map.insert(mount.id, new.clone());
            if let Some(parent) = map.get(&parent.id) {
                children.push((new, parent.clone(), dentry.clone()));
            }
        }
        MountTree { root: map[&self.root.id].clone(), children }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
    use crate::vfs::{NewInode, NewKind};

    #[test]
    fn a_filesystem_goes_with_its_last_mount() {
        let fs = Tmpfs::new(&TmpfsOptions::unlimited());
        let alive = Arc::downgrade(&fs);
        let mount = Mount::new(SuperBlock::make(fs), MountFlags::empty(), b"t");
        let again = Mount::new(mount.root().clone(), MountFlags::empty(), b"t");
        let new = NewInode { kind: NewKind::Regular, mode: 0o600, uid: 0, gid: 0 };
        mount.root().inode().create(b"f", &new).unwrap();
        // The cache keeps it for some time.
        drop(mount.root().lookup(b"f").unwrap());
        drop(mount);
        assert!(alive.upgrade().is_some());
        drop(again);
        assert!(alive.upgrade().is_none());
    }
}
