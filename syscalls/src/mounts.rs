//! Mounts and namespaces (fs/namespace.c, kernel/nsproxy.c).

use std::sync::Arc;

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_CHROOT};
use abi::mount::{MountFlags as M, UmountFlags};
use abi::sched::CloneFlags;
use abi::{Errno, Result};
use sentry::fs::overlay::Overlay;
use sentry::task::clone::in_new_user_namespace;
use sentry::task::{CurrentTask, Namespaces};
use sentry::vfs::mount::{MountTree, Propagation};
use sentry::vfs::operations::resolve;
use sentry::vfs::{Dentry, Mount, MountFlags, Path, SuperBlock, WalkFlags};

use crate::arguments::UserCStr;
use crate::files::{AT_FDCWD, resolve_at};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    MOUNT => mount;
    UMOUNT2 => umount2;
    PIVOT_ROOT => pivot_root;
    UNSHARE => unshare;
    SETNS => setns;
};

/// The flags that belong to the mount rather than to the filesystem.
const OF_MOUNT: M = M::MS_RDONLY
    .union(M::MS_NOSUID)
    .union(M::MS_NODEV)
    .union(M::MS_NOEXEC)
    .union(M::MS_NOATIME)
    .union(M::MS_NODIRATIME)
    .union(M::MS_RELATIME);

const PROPAGATION: M = M::MS_SHARED.union(M::MS_PRIVATE).union(M::MS_SLAVE).union(M::MS_UNBINDABLE);

/// EPERM without CAP_SYS_ADMIN over the mount namespace (may_mount()).
pub(crate) fn check_admin(task: &CurrentTask) -> Result<()> {
    let ns = task.namespaces().mount.user_ns.clone();
    if task.credentials().capable_in(&ns, CAP_SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The flags of a mount: relatime is the default.
fn mount_flags(flags: M) -> MountFlags {
    let mut of_mount = flags & OF_MOUNT;
    if !flags.intersects(M::MS_NOATIME | M::MS_STRICTATIME) {
        of_mount |= M::MS_RELATIME;
    }
    MountFlags::from_bits_truncate(of_mount.bits())
}

fn optional(task: &CurrentTask, text: UserCStr) -> Result<Vec<u8>> {
    if text.is_null() { Ok(Vec::new()) } else { text.path(task) }
}

fn mount(
    task: &CurrentTask,
    source: UserCStr,
    target: UserCStr,
    kind: UserCStr,
    flags: u64,
    data: UserCStr,
) -> Result<()> {
    const MS_MGC_VAL: u64 = 0xc0ed_0000;
    let kind = optional(task, kind)?;
    let source_name = optional(task, source)?;
    let data = optional(task, data)?;
    let flags = if flags & 0xffff_0000 == MS_MGC_VAL { flags & 0xffff } else { flags };
    let flags = M::from_bits_retain(flags);
    let target = resolve_at(task, AT_FDCWD, target, WalkFlags::FOLLOW)?;
    check_admin(task)?;
    if flags.contains(M::MS_REMOUNT | M::MS_BIND) {
        return remount(&target, flags);
    }
    if flags.contains(M::MS_REMOUNT) {
        if !is_mount_root(&target) {
            return Err(Errno::EINVAL);
        }
        target.mount().superblock().fs().reconfigure(&data)?;
        return remount(&target, flags);
    }
    let ns = task.namespaces().mount.clone();
    if flags.contains(M::MS_BIND) {
        let from = resolve_at(task, AT_FDCWD, source, WalkFlags::FOLLOW)?;
        let tree = ns.copy_tree(&from, flags.contains(M::MS_REC))?;
        return ns.attach(tree, &target);
    }
    if flags.intersects(PROPAGATION) {
        return change_propagation(task, &target, flags);
    }
    if flags.contains(M::MS_MOVE) {
        let from = resolve_at(task, AT_FDCWD, source, WalkFlags::FOLLOW)?;
        if !is_mount_root(&from) {
            return Err(Errno::EINVAL);
        }
        if from.mount().parent().is_some_and(|p| p.mount().propagation().group != 0) {
            return Err(Errno::EINVAL);
        }
        return ns.relocate(from.mount(), &target);
    }
    let kind = std::str::from_utf8(&kind).map_err(|_| Errno::ENODEV)?;
    if kind.is_empty() {
        return Err(Errno::EINVAL);
    }
    let root = new_filesystem(task, kind, &data)?;
    let shown =
        if source_name.is_empty() { root.superblock().fs().source().into_bytes() } else { source_name };
    let mount = Mount::new(root, mount_flags(flags), &shown);
    ns.attach(MountTree::single(mount), &target)
}

/// The root of a new filesystem. ENODEV for a type that is not there.
pub(crate) fn new_filesystem(task: &CurrentTask, kind: &str, data: &[u8]) -> Result<Arc<Dentry>> {
    if kind == "overlay" {
        let layers = Overlay::mount(data, |path| resolve(task, None, path, WalkFlags::FOLLOW))?;
        return Ok(SuperBlock::make(layers));
    }
    let from = sentry::fs::Mounter {
        kernel: task.kernel(),
        container: &task.group.container,
        pid_ns: &task.pid_ns(),
        ipc: &task.namespaces().ipc,
        creds: &task.credentials(),
    };
    sentry::fs::make(&from, kind, data)
}

/// True if the path is where a mount begins.
pub(crate) fn is_mount_root(place: &Path) -> bool {
    Arc::ptr_eq(place.dentry(), place.mount().root())
}

fn remount(target: &Path, flags: M) -> Result<()> {
    if !is_mount_root(target) {
        return Err(Errno::EINVAL);
    }
    target.mount().set_flags(mount_flags(flags))
}

fn change_propagation(task: &CurrentTask, target: &Path, flags: M) -> Result<()> {
    if !(flags - PROPAGATION - M::MS_REC - M::MS_SILENT).is_empty() {
        return Err(Errno::EINVAL);
    }
    let kind = propagation_of((flags & PROPAGATION).bits()).ok_or(Errno::EINVAL)?;
    if !is_mount_root(target) {
        return Err(Errno::EINVAL);
    }
    let ns = task.namespaces().mount.clone();
    let mut mounts = vec![target.mount().clone()];
    let mut next = 0;
    while flags.contains(M::MS_REC) && next < mounts.len() {
        let below = ns.children(&mounts[next].clone());
        mounts.extend(below);
        next += 1;
    }
    for mount in mounts {
        set_propagation(&mount, kind);
    }
    Ok(())
}

/// One of MS_SHARED, MS_PRIVATE, MS_SLAVE and MS_UNBINDABLE.
pub(crate) fn propagation_of(flags: u64) -> Option<M> {
    let kind = M::from_bits_retain(flags);
    (PROPAGATION.contains(kind) && flags.count_ones() == 1).then_some(kind)
}

pub(crate) fn set_propagation(mount: &Mount, kind: M) {
    let old = mount.propagation();
    mount.set_propagation(match kind {
        M::MS_SHARED => {
            let group = if old.group == 0 { Mount::new_group() } else { old.group };
            Propagation { group, unbindable: false, ..old }
        }
        M::MS_SLAVE if old.group != 0 => Propagation { group: 0, master: old.group, unbindable: false },
        M::MS_SLAVE => old,
        M::MS_UNBINDABLE => Propagation { group: 0, master: 0, unbindable: true },
        _ => Propagation::default(),
    });
}

fn umount2(task: &CurrentTask, target: UserCStr, flags: u32) -> Result<()> {
    let flags = UmountFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let walk =
        if flags.contains(UmountFlags::UMOUNT_NOFOLLOW) { WalkFlags::empty() } else { WalkFlags::FOLLOW };
    let target = resolve_at(task, AT_FDCWD, target, walk)?;
    check_admin(task)?;
    if !is_mount_root(&target) {
        return Err(Errno::EINVAL);
    }
    let ns = task.namespaces().mount.clone();
    let mount = target.mount().clone();
    drop(target);
    if flags.contains(UmountFlags::MNT_EXPIRE) {
        let others = UmountFlags::MNT_FORCE | UmountFlags::MNT_DETACH;
        if flags.intersects(others) || Arc::ptr_eq(&mount, task.fs().root().mount()) {
            return Err(Errno::EINVAL);
        }
        ns.expire(&mount)?;
    }
    ns.detach(&mount, flags.contains(UmountFlags::MNT_DETACH))
}

fn pivot_root(task: &CurrentTask, new_root: UserCStr, put_old: UserCStr) -> Result<()> {
    check_admin(task)?;
    let directory = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let new = resolve_at(task, AT_FDCWD, new_root, directory)?;
    let old = resolve_at(task, AT_FDCWD, put_old, directory)?;
    let ns = task.namespaces().mount.clone();
    let root = task.fs().root();
    if Arc::ptr_eq(new.mount(), root.mount()) || Arc::ptr_eq(old.mount(), root.mount()) {
        return Err(Errno::EBUSY);
    }
    if !is_mount_root(&new) || !is_mount_root(&root) || new.mount().parent().is_none() {
        return Err(Errno::EINVAL);
    }
    // The place for the old root must lie below the new one.
    let mut at = old.clone();
    while !at.same(&new) {
        let up = at.up(&root);
        if up.same(&at) {
            return Err(Errno::EINVAL);
        }
        at = up;
    }
    ns.pivot(&new, &old)?;
    // Whoever had the old root as root or working directory moves along (chroot_fs_refs).
    for process in task.kernel().processes() {
        for thread in process.threads() {
            let fs = thread.fs();
            if fs.root().same(&root) {
                fs.set_root(new.clone());
            }
            if fs.cwd().same(&root) {
                fs.set_cwd(new.clone());
            }
        }
    }
    Ok(())
}

fn unshare(task: &CurrentTask, flags: u64) -> Result<()> {
    use CloneFlags as F;
    let mut flags = F::from_bits(flags).ok_or(Errno::EINVAL)?;
    let known = sentry::task::clone::NAMESPACES
        | F::CLONE_NEWTIME
        | F::CLONE_FS
        | F::CLONE_FILES
        | F::CLONE_VM
        | F::CLONE_SIGHAND
        | F::CLONE_SYSVSEM
        | F::CLONE_THREAD;
    if !(flags - known).is_empty() {
        return Err(Errno::EINVAL);
    }
    if flags.contains(F::CLONE_NEWUSER) {
        flags |= F::CLONE_THREAD | F::CLONE_FS;
    }
    if flags.contains(F::CLONE_NEWNS) {
        flags |= F::CLONE_FS;
    }
    let alone = task.group.threads().len() == 1;
    if flags.intersects(F::CLONE_THREAD | F::CLONE_SIGHAND | F::CLONE_VM) && !alone {
        return Err(Errno::EINVAL);
    }
    let old = task.credentials();
    let creds = if flags.contains(F::CLONE_NEWUSER) {
        let ns = old.user_ns.child((old.euid, old.egid))?;
        Arc::new(in_new_user_namespace(&old, ns))
    } else {
        old
    };
    let (namespaces, fs) = task.new_namespaces(flags - F::CLONE_NEWUSER, &creds)?;
    if let Some(fs) = fs {
        task.set_fs(fs);
    } else if flags.contains(F::CLONE_FS) {
        task.set_fs(Arc::new(task.fs().fork()));
    }
    if flags.contains(F::CLONE_FILES) {
        let own = Arc::new(task.fds().fork());
        drop(task.set_files(Some(own)));
    }
    if flags.contains(F::CLONE_NEWUSER) {
        task.set_credentials((*creds).clone());
    }
    task.set_namespaces((*namespaces).clone());
    Ok(())
}

fn setns(task: &CurrentTask, fd: i32, kind: u64) -> Result<()> {
    use CloneFlags as F;
    let wanted = F::from_bits(kind).ok_or(Errno::EINVAL)?;
    let file = task.file(fd)?;
    if let Some(pidfd) = file.ops::<sentry::fs::pidfd::PidFd>() {
        let target = pidfd.pid.group().and_then(|g| g.any_task()).ok_or(Errno::ESRCH)?;
        if wanted.is_empty() || !(wanted - sentry::task::clone::NAMESPACES).is_empty() {
            return Err(Errno::EINVAL);
        }
        crate::credentials::may_inspect(task, &target)?;
        let theirs = target.namespaces();
        let user = target.credentials().user_ns.clone();
        return join(
            task,
            wanted,
            &theirs,
            wanted.contains(F::CLONE_NEWUSER).then_some(user),
            Some(&target.fs().root()),
        );
    }
    let Some(ns) = file.ops::<sentry::fs::nsfs::NamespaceFile>() else { return Err(Errno::EINVAL) };
    let (kind, namespaces, user) = ns.target(task);
    if !wanted.is_empty() && wanted != kind {
        return Err(Errno::EINVAL);
    }
    join(task, kind, &namespaces, user, None)
}

/// Joins namespaces of others.
fn join(
    task: &CurrentTask,
    which: CloneFlags,
    theirs: &Namespaces,
    user: Option<Arc<sentry::task::UserNamespace>>,
    root: Option<&Path>,
) -> Result<()> {
    use CloneFlags as F;
    let mut creds = (*task.credentials()).clone();
    if let Some(user) = user {
        if Arc::ptr_eq(&user, &creds.user_ns) || task.group.threads().len() > 1 {
            return Err(Errno::EINVAL);
        }
        if !creds.capable_in(&user, CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        creds = in_new_user_namespace(&creds, user);
    }
    let admin = |owner: &Arc<sentry::task::UserNamespace>| {
        if creds.capable_in(owner, CAP_SYS_ADMIN) && creds.capable(CAP_SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    };
    let mut new = (*task.namespaces()).clone();
    if which.contains(F::CLONE_NEWUTS) {
        admin(&theirs.uts.user_ns)?;
        new.uts = theirs.uts.clone();
    }
    if which.contains(F::CLONE_NEWIPC) {
        admin(&theirs.ipc.user_ns)?;
        new.ipc = theirs.ipc.clone();
    }
    if which.contains(F::CLONE_NEWNET) {
        admin(&theirs.net.user_ns)?;
        new.net = theirs.net.clone();
    }
    if which.contains(F::CLONE_NEWPID) {
        admin(&theirs.pid_for_children.user_ns)?;
        let mut at = Some(theirs.pid_for_children.clone());
        let own = task.pid_ns();
        while at.as_ref().is_some_and(|ns| !Arc::ptr_eq(ns, &own)) {
            at = at.and_then(|ns| ns.parent.clone());
        }
        // Only downwards.
        if at.is_none() {
            return Err(Errno::EINVAL);
        }
        new.pid_for_children = theirs.pid_for_children.clone();
    }
    if which.contains(F::CLONE_NEWCGROUP) {
        admin(&theirs.cgroup.user_ns)?;
        new.cgroup = theirs.cgroup.clone();
    }
    if which.contains(F::CLONE_NEWNS) {
        admin(&theirs.mount.user_ns)?;
        if !creds.capable(CAP_SYS_CHROOT) {
            return Err(Errno::EPERM);
        }
        if Arc::strong_count(&task.fs()) > 2 {
            return Err(Errno::EINVAL);
        }
        new.mount = theirs.mount.clone();
        let root = root.cloned().unwrap_or_else(|| theirs.mount.root());
        task.fs().set_root(root.clone());
        task.fs().set_cwd(root);
    }
    task.set_credentials(creds);
    task.set_namespaces(new);
    Ok(())
}
