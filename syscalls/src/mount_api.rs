//! Mounts by descriptors: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2), statmount(2) and their kin
//! (fs/fsopen.c, fs/namespace.c).

use std::sync::Arc;

use abi::fcntl::{AtFlags, OpenFlags};
use abi::mount::{self as m, MountAttr, MountAttrFlags, MoveMountFlags};
use abi::{Errno, Result};
use sentry::fs::mount_context::{FsContext, tree_file};
use sentry::task::CurrentTask;
use sentry::vfs::mount::MountTree;
use sentry::vfs::{File, Mount, MountFlags, MountNamespace, Path};

use crate::arguments::{Address, UserCStr};
use crate::files::{AT_FDCWD, read_extensible, resolve_flags};
use crate::mounts::{check_admin, is_mount_root, propagation_of};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    OPEN_TREE => open_tree;
    OPEN_TREE_ATTR => open_tree_attr, Partial, "no mappings of ids";
    MOVE_MOUNT => move_mount, Partial, "no MOVE_MOUNT_SET_GROUP or MOVE_MOUNT_BENEATH";
    FSOPEN => fsopen;
    FSCONFIG => fsconfig, Partial, "options are looked at when the filesystem is created; none take files";
    FSMOUNT => fsmount;
    FSPICK => fspick;
    MOUNT_SETATTR => mount_setattr, Partial, "no mappings of ids";
};

/// AT_RECURSIVE.
const AT_RECURSIVE: u32 = 0x8000;

/// The namespace that a mount belongs to, if it is the caller's or a detached tree. EINVAL.
fn namespace_of(task: &CurrentTask, mount: &Mount) -> Result<Arc<MountNamespace>> {
    let own = task.namespaces().mount.clone();
    match mount.namespace() {
        Some(ns) if ns.is_anonymous() || Arc::ptr_eq(&ns, &own) => Ok(ns),
        _ => Err(Errno::EINVAL),
    }
}

fn at_path(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<Path> {
    let known = AtFlags::AT_EMPTY_PATH | AtFlags::AT_SYMLINK_NOFOLLOW;
    resolve_flags(task, dirfd, path, AtFlags::from_bits_truncate(flags) & known)
}

fn tree(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<Arc<File>> {
    let at = AtFlags::AT_EMPTY_PATH | AtFlags::AT_NO_AUTOMOUNT | AtFlags::AT_SYMLINK_NOFOLLOW;
    if flags & !(at.bits() | AT_RECURSIVE | m::OPEN_TREE_CLONE | m::OPEN_TREE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let clone = flags & m::OPEN_TREE_CLONE != 0;
    if flags & AT_RECURSIVE != 0 && !clone {
        return Err(Errno::EINVAL);
    }
    if clone {
        check_admin(task)?;
    }
    let place = at_path(task, dirfd, path, flags)?;
    if !clone {
        return Ok(File::new(Arc::new(sentry::vfs::file::PathOnly), place, OpenFlags::O_PATH));
    }
    let ns = namespace_of(task, place.mount())?;
    let copy = ns.copy_tree(&place, flags & AT_RECURSIVE != 0)?;
    Ok(tree_file(copy, task.namespaces().mount.user_ns.clone()))
}

fn open_tree(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<i32> {
    let file = tree(task, dirfd, path, flags)?;
    task.install(file, flags & m::OPEN_TREE_CLOEXEC != 0)
}

fn open_tree_attr(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    flags: u32,
    attr: Address,
    size: usize,
) -> Result<i32> {
    if attr.0 == 0 && size != 0 {
        return Err(Errno::EINVAL);
    }
    let file = tree(task, dirfd, path, flags)?;
    if attr.0 != 0 {
        let change = Change::read(task, attr, size)?;
        change.apply(task, file.path(), flags & AT_RECURSIVE != 0)?;
    }
    task.install(file, flags & m::OPEN_TREE_CLOEXEC != 0)
}

fn move_mount(
    task: &CurrentTask,
    from_fd: i32,
    from: UserCStr,
    to_fd: i32,
    to: UserCStr,
    flags: u32,
) -> Result<()> {
    use MoveMountFlags as F;
    check_admin(task)?;
    let flags = F::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.intersects(F::MOVE_MOUNT_SET_GROUP | F::MOVE_MOUNT_BENEATH) {
        return Err(Errno::EINVAL);
    }
    let walk = |symlinks: F, empty: F| {
        let mut at = AtFlags::empty();
        if !flags.contains(symlinks) {
            at |= AtFlags::AT_SYMLINK_NOFOLLOW;
        }
        if flags.contains(empty) {
            at |= AtFlags::AT_EMPTY_PATH;
        }
        at.bits()
    };
    let target = at_path(task, to_fd, to, walk(F::MOVE_MOUNT_T_SYMLINKS, F::MOVE_MOUNT_T_EMPTY_PATH))?;
    let source = at_path(task, from_fd, from, walk(F::MOVE_MOUNT_F_SYMLINKS, F::MOVE_MOUNT_F_EMPTY_PATH))?;
    let into = namespace_of(task, target.mount())?;
    let out_of = namespace_of(task, source.mount())?;
    if !is_mount_root(&source) {
        return Err(Errno::EINVAL);
    }
    if out_of.is_anonymous() {
        if source.mount().parent().is_some() || Arc::ptr_eq(&into, &out_of) {
            return Err(Errno::EINVAL);
        }
        if target.dentry().is_dir() != source.dentry().is_dir() {
            return Err(if target.dentry().is_dir() { Errno::EINVAL } else { Errno::ENOTDIR });
        }
        return into.attach(out_of.take_tree(), &target);
    }
    if !Arc::ptr_eq(&into, &out_of) {
        return Err(Errno::EINVAL);
    }
    if source.mount().parent().is_some_and(|p| p.mount().propagation().group != 0) {
        return Err(Errno::EINVAL);
    }
    into.relocate(source.mount(), &target)
}

fn fsopen(task: &CurrentTask, kind: UserCStr, flags: u32) -> Result<i32> {
    check_admin(task)?;
    if flags & !m::FSOPEN_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = kind.read(task, platform::PAGE_SIZE as usize, Errno::EINVAL)?;
    let kind = String::from_utf8(kind).map_err(|_| Errno::ENODEV)?;
    if kind != "overlay" && !sentry::fs::is_known(&kind) {
        return Err(Errno::ENODEV);
    }
    let file = FsContext::open(task.kernel(), &kind, None);
    task.install(file, flags & m::FSOPEN_CLOEXEC != 0)
}

fn fspick(task: &CurrentTask, dirfd: i32, path: UserCStr, flags: u32) -> Result<i32> {
    check_admin(task)?;
    let known =
        m::FSPICK_CLOEXEC | m::FSPICK_SYMLINK_NOFOLLOW | m::FSPICK_NO_AUTOMOUNT | m::FSPICK_EMPTY_PATH;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let mut at = AtFlags::empty();
    if flags & m::FSPICK_SYMLINK_NOFOLLOW != 0 {
        at |= AtFlags::AT_SYMLINK_NOFOLLOW;
    }
    if flags & m::FSPICK_EMPTY_PATH != 0 {
        at |= AtFlags::AT_EMPTY_PATH;
    }
    let place = at_path(task, dirfd, path, at.bits())?;
    if !is_mount_root(&place) {
        return Err(Errno::EINVAL);
    }
    let mount = place.mount().clone();
    let kind = mount.superblock().fs().name();
    let file = FsContext::open(task.kernel(), kind, Some(mount));
    task.install(file, flags & m::FSPICK_CLOEXEC != 0)
}

fn fsconfig(
    task: &CurrentTask,
    fd: i32,
    command: u32,
    key: UserCStr,
    value: UserCStr,
    aux: i32,
) -> Result<()> {
    if fd < 0 {
        return Err(Errno::EINVAL);
    }
    let (has_key, has_value) = (!key.is_null(), !value.is_null());
    let fine = match command {
        m::FSCONFIG_SET_FLAG => has_key && !has_value && aux == 0,
        m::FSCONFIG_SET_STRING => has_key && has_value && aux == 0,
        m::FSCONFIG_SET_BINARY => has_key && has_value && (1..=1024 * 1024).contains(&aux),
        m::FSCONFIG_SET_PATH | m::FSCONFIG_SET_PATH_EMPTY => {
            has_key && has_value && (aux == AT_FDCWD || aux >= 0)
        }
        m::FSCONFIG_SET_FD => has_key && !has_value && aux >= 0,
        m::FSCONFIG_CMD_CREATE | m::FSCONFIG_CMD_CREATE_EXCL | m::FSCONFIG_CMD_RECONFIGURE => {
            !has_key && !has_value && aux == 0
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if !fine {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let context = file.ops::<FsContext>().ok_or(Errno::EINVAL)?;
    let key = if has_key { key.read(task, 256, Errno::EINVAL)? } else { Vec::new() };
    match command {
        m::FSCONFIG_SET_FLAG => context.set(&key, None),
        m::FSCONFIG_SET_STRING => context.set(&key, Some(&value.read(task, 256, Errno::EINVAL)?)),
        m::FSCONFIG_CMD_CREATE | m::FSCONFIG_CMD_CREATE_EXCL => {
            check_admin(task)?;
            context.create(|kind, options| crate::mounts::new_filesystem(task, kind, options))
        }
        m::FSCONFIG_CMD_RECONFIGURE => {
            check_admin(task)?;
            context.reconfigure()
        }
        // No filesystem has an option of that kind.
        _ => Err(Errno::EINVAL),
    }
}

/// Flags of a mount from attributes. EINVAL.
fn flags_of(attributes: u64) -> Result<MountFlags> {
    use MountAttrFlags as A;
    let attributes = A::from_bits(attributes).ok_or(Errno::EINVAL)?;
    if attributes.intersects(A::MOUNT_ATTR_IDMAP | A::MOUNT_ATTR_NOSYMFOLLOW) {
        return Err(Errno::EINVAL);
    }
    let mut flags = plain_flags(attributes);
    let atime = attributes & A::MOUNT_ATTR__ATIME;
    if atime == A::MOUNT_ATTR_NOATIME {
        flags |= MountFlags::NOATIME;
    } else if atime.is_empty() {
        flags |= MountFlags::RELATIME;
    } else if atime != A::MOUNT_ATTR_STRICTATIME {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

/// The flags that are one attribute each.
fn plain_flags(attributes: MountAttrFlags) -> MountFlags {
    use MountAttrFlags as A;
    let pairs = [
        (A::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (A::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (A::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (A::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (A::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
    ];
    pairs.into_iter().filter(|(attribute, _)| attributes.contains(*attribute)).map(|(_, flag)| flag).collect()
}

fn fsmount(task: &CurrentTask, fd: i32, flags: u32, attributes: u32) -> Result<i32> {
    check_admin(task)?;
    if flags & !m::FSMOUNT_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let mount_flags = flags_of(attributes.into())?;
    let file = task.file(fd)?;
    let context = file.ops::<FsContext>().ok_or(Errno::EINVAL)?;
    let mount = context.mount(mount_flags)?;
    let file = tree_file(MountTree::single(mount), task.namespaces().mount.user_ns.clone());
    task.install(file, flags & m::FSMOUNT_CLOEXEC != 0)
}

/// What mount_setattr(2) is to do.
struct Change {
    set: MountFlags,
    clear: MountFlags,
    propagation: u64,
}

impl Change {
    /// EINVAL, E2BIG, EFAULT.
    fn read(task: &CurrentTask, attr: Address, size: usize) -> Result<Change> {
        use MountAttrFlags as A;
        let attr: MountAttr = read_extensible(task, attr.0, size, size_of::<MountAttr>())?;
        let set = A::from_bits(attr.attr_set).ok_or(Errno::EINVAL)?;
        let clear = A::from_bits(attr.attr_clr).ok_or(Errno::EINVAL)?;
        let unsupported = A::MOUNT_ATTR_IDMAP | A::MOUNT_ATTR_NOSYMFOLLOW;
        if set.intersects(unsupported) || clear.contains(A::MOUNT_ATTR_IDMAP) {
            return Err(Errno::EINVAL);
        }
        if attr.propagation != 0 && propagation_of(attr.propagation).is_none() {
            return Err(Errno::EINVAL);
        }
        let mut change =
            Change { set: plain_flags(set), clear: plain_flags(clear), propagation: attr.propagation };
        let atime = set & A::MOUNT_ATTR__ATIME;
        let clears = clear & A::MOUNT_ATTR__ATIME;
        if clears == A::MOUNT_ATTR__ATIME {
            change.clear |= MountFlags::RELATIME | MountFlags::NOATIME;
            if atime == A::MOUNT_ATTR_NOATIME {
                change.set |= MountFlags::NOATIME;
            } else if atime.is_empty() {
                change.set |= MountFlags::RELATIME;
            } else if atime != A::MOUNT_ATTR_STRICTATIME {
                return Err(Errno::EINVAL);
            }
        } else if !clears.is_empty() || !atime.is_empty() {
            return Err(Errno::EINVAL);
        }
        Ok(change)
    }

    fn apply(&self, task: &CurrentTask, place: &Path, recursive: bool) -> Result<()> {
        let ns = namespace_of(task, place.mount())?;
        if !is_mount_root(place) {
            return Err(Errno::EINVAL);
        }
        let mut mounts = vec![place.mount().clone()];
        let mut next = 0;
        while recursive && next < mounts.len() {
            let below = ns.children(&mounts[next].clone());
            mounts.extend(below);
            next += 1;
        }
        let mut done: Vec<(&Arc<Mount>, MountFlags)> = Vec::new();
        for mount in &mounts {
            let old = mount.flags();
            if let Err(e) = mount.set_flags((old - self.clear) | self.set) {
                // All or nothing.
                for (mount, old) in done {
                    let _ = mount.set_flags(old);
                }
                return Err(e);
            }
            done.push((mount, old));
        }
        if let Some(kind) = propagation_of(self.propagation) {
            for mount in &mounts {
                crate::mounts::set_propagation(mount, kind);
            }
        }
        Ok(())
    }
}

fn mount_setattr(
    task: &CurrentTask,
    dirfd: i32,
    path: UserCStr,
    flags: u32,
    attr: Address,
    size: usize,
) -> Result<()> {
    let at = AtFlags::AT_EMPTY_PATH | AtFlags::AT_NO_AUTOMOUNT | AtFlags::AT_SYMLINK_NOFOLLOW;
    if flags & !(at.bits() | AT_RECURSIVE) != 0 {
        return Err(Errno::EINVAL);
    }
    if size > platform::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    if size < size_of::<MountAttr>() {
        return Err(Errno::EINVAL);
    }
    check_admin(task)?;
    let given: MountAttr = read_extensible(task, attr.0, size, size_of::<MountAttr>())?;
    if given.attr_set == 0 && given.attr_clr == 0 && given.propagation == 0 {
        return Ok(());
    }
    let change = Change::read(task, attr, size)?;
    let place = at_path(task, dirfd, path, flags)?;
    change.apply(task, &place, flags & AT_RECURSIVE != 0)
}
