//! The operations on paths, with their permission checks (fs/namei.c, fs/open.c, fs/attr.c).

use std::sync::Arc;

use abi::capability::{CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_MKNOD};
use abi::fcntl::{OpenFlags, RenameFlags};
use abi::stat::{FileType, S_ISGID, S_ISUID};
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::inode::{Attributes, Entry, Inode, NewInode, NewKind, SetAttributes, Target};
use super::mount::MountFlags;
use super::permission::{self, EXEC, READ, WRITE};
use super::walk::{Found, Last, Parent, Walker};
use super::{Dentry, File, FileOps, Io, Path, WalkFlags, notify};
use crate::fs::pipe::PipeEnd;
use crate::task::{Credentials, CurrentTask, Task, UserNamespace};

/// Renames of directories across directories, one at a time (s_vfs_rename_mutex, for all superblocks).
static RENAME: Mutex<()> = Mutex::new(());

/// Calls `f` with what is needed to walk on behalf of `task`, and the working directory (or `start`).
pub fn with_walker<R>(task: &Task, start: Option<&Path>, f: impl FnOnce(&Walker<'_>, &Path) -> R) -> R {
    let creds = task.credentials();
    let namespaces = task.namespaces();
    let fs = task.fs();
    let walker = Walker { io: Io::of(task), creds: &creds, namespace: &namespaces.mount, root: fs.root() };
    match start {
        Some(start) => f(&walker, start),
        None => f(&walker, &fs.cwd()),
    }
}

/// Resolves a path from `start`, or from the working directory.
pub fn resolve(task: &Task, start: Option<&Path>, path: &[u8], flags: WalkFlags) -> Result<Path> {
    with_walker(task, start, |walker, start| walker.walk(start, path, flags))
}

fn parent(task: &Task, start: Option<&Path>, path: &[u8], flags: WalkFlags) -> Result<Parent> {
    with_walker(task, start, |walker, start| walker.parent(start, path, flags))
}

/// How to open (open(2), openat2(2)).
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest {
    /// O_*.
    pub flags: OpenFlags,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// RESOLVE_*.
    pub resolve: WalkFlags,
}

/// open(2).
pub fn open(
    task: &CurrentTask,
    start: Option<&Path>,
    path: &[u8],
    request: &OpenRequest,
) -> Result<Arc<File>> {
    use OpenFlags as O;
    let flags = request.flags;
    let mut walk = request.resolve;
    if !flags.contains(O::O_NOFOLLOW) && !flags.contains(O::O_CREAT | O::O_EXCL) {
        walk |= WalkFlags::FOLLOW;
    }
    if flags.contains(O::O_DIRECTORY) {
        walk |= WalkFlags::DIRECTORY;
    }
    if flags.contains(O::O_PATH) {
        let found = with_walker(task, start, |walker, start| walker.find(start, path, walk))?;
        let place = match found {
            Found::Path(path) => path,
            Found::File(file) => file.path().clone(),
        };
        let keep = O::O_PATH | O::O_DIRECTORY | O::O_NOFOLLOW;
        return Ok(File::new(Arc::new(super::file::PathOnly), place, flags & keep));
    }
    if flags.is_tmpfile() {
        let dir = resolve(task, start, path, walk | WalkFlags::DIRECTORY)?;
        return open_unnamed(task, &dir, request);
    }
    if flags.contains(O::O_CREAT) {
        return create_or_open(task, start, path, request, walk);
    }
    match with_walker(task, start, |walker, start| walker.find(start, path, walk))? {
        Found::Path(place) => open_found(task, place, flags, false),
        Found::File(file) => reopen(task, &file, flags),
    }
}

/// A magic link to a file without a path: a new open of the same pipe or device, or of the same inode.
fn reopen(task: &CurrentTask, file: &Arc<File>, flags: OpenFlags) -> Result<Arc<File>> {
    if let Some(end) = file.ops::<PipeEnd>() {
        let place = file.path();
        permission::check(&task.credentials(), place.mount(), &**place.inode(), open_mask(flags))?;
        let ops = crate::fs::pipe::open_pipe(task, end.pipe().clone(), flags)?;
        return Ok(File::new(ops, place.clone(), flags));
    }
    match file.path().inode().file_type() {
        FileType::Socket => Err(Errno::ENXIO),
        _ => open_found(task, file.path().clone(), flags, false),
    }
}

fn open_unnamed(task: &CurrentTask, dir: &Path, request: &OpenRequest) -> Result<Arc<File>> {
    if !request.flags.writable() {
        return Err(Errno::EINVAL);
    }
    let creds = task.credentials();
    permission::check(&creds, dir.mount(), &**dir.inode(), WRITE | EXEC)?;
    let new = new_inode(&creds, dir, NewKind::Regular, request.mode & !task.fs().umask())?;
    let inode = dir.inode().create_unnamed(&new)?;
    let name = format!("#{}", inode.ino());
    let dentry = Dentry::anonymous(dir.dentry().superblock(), inode, name.as_bytes());
    if request.flags.contains(OpenFlags::O_EXCL) {
        dentry.refuse_name();
    }
    open_found(task, Path::new(dir.mount().clone(), dentry), request.flags, true)
}

fn create_or_open(
    task: &CurrentTask,
    start: Option<&Path>,
    path: &[u8],
    request: &OpenRequest,
    walk: WalkFlags,
) -> Result<Arc<File>> {
    let flags = request.flags;
    let parent = parent(task, start, path, walk)?;
    let Last::Name(name) = &parent.last else {
        return Err(if flags.contains(OpenFlags::O_EXCL) { Errno::EEXIST } else { Errno::EISDIR });
    };
    if parent.slash {
        return Err(Errno::EISDIR);
    }
    let exclusive = flags.contains(OpenFlags::O_EXCL);
    let dir = &parent.dir;
    let existing = {
        let mut children = dir.dentry().lock();
        match dir.dentry().lookup_locked(&mut children, name) {
            Ok((dentry, _)) => dentry,
            Err(Errno::ENOENT) => {
                let creds = task.credentials();
                check_create(&creds, dir)?;
                let mode = request.mode & !task.fs().umask();
                let new = new_inode(&creds, dir, NewKind::Regular, mode)?;
                let inode = dir.inode().create(name, &new)?;
                let dentry = dir.dentry().insert(&mut children, name, inode);
                drop(children);
                dentry.keep();
                notify::created(dir.dentry(), name, &dentry);
                return open_found(task, Path::new(dir.mount().clone(), dentry), flags, true);
            }
            Err(e) => return Err(e),
        }
    };
    if exclusive {
        return Err(Errno::EEXIST);
    }
    let place = task.namespaces().mount.top(Path::new(dir.mount().clone(), existing));
    match place.inode().file_type() {
        FileType::Symlink if flags.contains(OpenFlags::O_NOFOLLOW) => return Err(Errno::ELOOP),
        // A magic link at the end, or a link that appeared just now.
        FileType::Symlink => {
            let found = with_walker(task, start, |walker, start| walker.find(start, path, walk))?;
            return match found {
                Found::Path(place) => open_found(task, place, flags, false),
                Found::File(file) => reopen(task, &file, flags),
            };
        }
        FileType::Directory => return Err(Errno::EISDIR),
        _ => {}
    }
    check_sticky_create(task, dir, &place, flags)?;
    open_found(task, place, flags, false)
}

/// fs.protected_regular and fs.protected_fifos = 1: in a sticky world-writable directory O_CREAT does not open
/// somebody else's file.
fn check_sticky_create(task: &Task, dir: &Path, place: &Path, flags: OpenFlags) -> Result<()> {
    let dir_attributes = dir.inode().attributes()?;
    if dir_attributes.mode & (abi::stat::S_ISVTX | 0o002) != abi::stat::S_ISVTX | 0o002 {
        return Ok(());
    }
    let attributes = place.inode().attributes()?;
    let guarded = matches!(attributes.file_type(), FileType::Regular | FileType::Fifo);
    let creds = task.credentials();
    if guarded && flags.writable() && attributes.uid != dir_attributes.uid && attributes.uid != creds.fsuid {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Opens what a walk has found. `created`: permission bits do not matter, and O_TRUNC has nothing to do.
pub fn open_found(task: &CurrentTask, place: Path, flags: OpenFlags, created: bool) -> Result<Arc<File>> {
    use OpenFlags as O;
    let inode = place.inode().clone();
    let file_type = inode.file_type();
    if file_type == FileType::Symlink {
        return Err(Errno::ELOOP);
    }
    if flags.contains(O::O_DIRECTORY) && file_type != FileType::Directory && !flags.is_tmpfile() {
        return Err(Errno::ENOTDIR);
    }
    if file_type == FileType::Directory && (flags.writable() || flags.intersects(O::O_CREAT | O::O_TRUNC)) {
        return Err(Errno::EISDIR);
    }
    if matches!(file_type, FileType::CharDevice | FileType::BlockDevice)
        && place.mount().flags().contains(MountFlags::NODEV)
    {
        return Err(Errno::EACCES);
    }
    let creds = task.credentials();
    if !created {
        permission::check(&creds, place.mount(), &*inode, open_mask(flags))?;
        if flags.contains(O::O_NOATIME) && !permission::is_owner(&creds, &inode.attributes()?) {
            return Err(Errno::EPERM);
        }
        if flags.writable() && file_type == FileType::Regular {
            place.dentry().superblock().check_not_executed(inode.ino())?;
        }
        if flags.contains(O::O_TRUNC) && file_type == FileType::Regular {
            truncate_inode(&creds, &place, 0)?;
        }
    }
    let io = Io { nonblocking: flags.contains(O::O_NONBLOCK), ..Io::of(task) };
    let special = match file_type {
        FileType::Fifo | FileType::Socket | FileType::CharDevice | FileType::BlockDevice => {
            !inode.opens_special()
        }
        _ => false,
    };
    let ops: Arc<dyn FileOps> = if special {
        match file_type {
            FileType::Fifo => crate::fs::pipe::open_fifo(task, &place, flags)?,
            FileType::CharDevice => {
                let rdev = inode.attributes()?.rdev;
                task.kernel().drivers.open(&io, &place, rdev, flags)?
            }
            _ => return Err(Errno::ENXIO),
        }
    } else {
        inode.open(&io, &place, flags)?
    };
    let file = File::opened(ops, place, flags)?;
    if created {
        file.set_created();
    }
    file.operations().opened(task);
    notify::opened(file.path());
    Ok(file)
}

/// Opens a regular file or directory that was found, on behalf of no task. ENXIO for what only tasks can open.
pub fn open_plain(creds: &Credentials, place: Path, flags: OpenFlags) -> Result<Arc<File>> {
    let inode = place.inode().clone();
    match inode.file_type() {
        FileType::Regular => {}
        FileType::Directory if flags.writable() => return Err(Errno::EISDIR),
        FileType::Directory => {}
        FileType::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::ENXIO),
    }
    permission::check(creds, place.mount(), &*inode, open_mask(flags))?;
    if flags.writable() {
        place.dentry().superblock().check_not_executed(inode.ino())?;
    }
    let ops = inode.open(&Io { nonblocking: true, ..Io::default() }, &place, flags)?;
    let file = File::opened(ops, place, flags)?;
    notify::opened(file.path());
    Ok(file)
}

/// What permission opening takes.
fn open_mask(flags: OpenFlags) -> u32 {
    let mut mask = 0;
    if flags.access_mode() != abi::fcntl::O_WRONLY {
        mask |= READ;
    }
    if flags.access_mode() != abi::fcntl::O_RDONLY || flags.contains(OpenFlags::O_TRUNC) {
        mask |= WRITE;
    }
    mask
}

fn check_create(creds: &Credentials, dir: &Path) -> Result<()> {
    if dir.dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    permission::check(creds, dir.mount(), &**dir.inode(), WRITE | EXEC)
}

/// `mode`: the umask was applied.
fn new_inode(creds: &Credentials, dir: &Path, kind: NewKind, mode: u32) -> Result<NewInode> {
    let masked = match kind {
        NewKind::Symlink(_) => 0o777,
        NewKind::Directory => mode & 0o1777,
        _ => mode & 0o7777,
    };
    let is_dir = kind == NewKind::Directory;
    let (mode, uid, gid) = permission::new_inode_owner(creds, &dir.inode().attributes()?, masked, is_dir);
    Ok(NewInode { kind, mode, uid, gid })
}

/// mknod(2), mkdir(2), symlink(2), and bind(2) of a Unix socket: makes an entry that must not exist. The mode is
/// before the umask.
pub fn create(task: &Task, start: Option<&Path>, path: &[u8], kind: NewKind, mode: u32) -> Result<Path> {
    let parent = parent(task, start, path, WalkFlags::empty())?;
    create_in(&task.credentials(), &task.kernel().user_ns, &parent, kind, mode & !task.fs().umask())
}

/// As [`create`], in a directory that was found. `devices`: the user namespace in which making devices takes CAP_MKNOD.
/// The umask was applied.
pub fn create_in(
    creds: &Credentials,
    devices: &Arc<UserNamespace>,
    parent: &Parent,
    kind: NewKind,
    mode: u32,
) -> Result<Path> {
    let Last::Name(name) = &parent.last else { return Err(Errno::EEXIST) };
    let dir = &parent.dir;
    let mut children = dir.dentry().lock();
    match dir.dentry().lookup_locked(&mut children, name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    if parent.slash && kind != NewKind::Directory {
        return Err(Errno::ENOENT);
    }
    check_create(creds, dir)?;
    // A whiteout (0:0) is free for all.
    if let NewKind::CharDevice(rdev) | NewKind::BlockDevice(rdev) = kind
        && !(matches!(kind, NewKind::CharDevice(_)) && rdev == 0)
        && !creds.capable_in(devices, CAP_MKNOD)
    {
        return Err(Errno::EPERM);
    }
    let new = new_inode(creds, dir, kind, mode)?;
    let inode = dir.inode().create(name, &new)?;
    let dentry = dir.dentry().insert(&mut children, name, inode);
    drop(children);
    dentry.keep();
    notify::created(dir.dentry(), name, &dentry);
    Ok(Path::new(dir.mount().clone(), dentry))
}

/// link(2) of something that was resolved.
pub fn link(task: &Task, target: &Path, start: Option<&Path>, path: &[u8]) -> Result<()> {
    link_in(&task.credentials(), target, &parent(task, start, path, WalkFlags::empty())?)
}

/// As [`link`], in a directory that was found.
pub fn link_in(creds: &Credentials, target: &Path, parent: &Parent) -> Result<()> {
    let Last::Name(name) = &parent.last else { return Err(Errno::EEXIST) };
    let dir = &parent.dir;
    let mut children = dir.dentry().lock();
    match dir.dentry().lookup_locked(&mut children, name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    if parent.slash {
        return Err(Errno::ENOENT);
    }
    if !Arc::ptr_eq(target.mount(), dir.mount()) {
        return Err(Errno::EXDEV);
    }
    check_create(creds, dir)?;
    let attributes = target.inode().attributes()?;
    if target.dentry().is_dir() {
        return Err(Errno::EPERM);
    }
    if attributes.nlink == 0 && target.dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    check_protected_link(creds, target, &attributes)?;
    dir.inode().link(name, target.inode())?;
    let dentry = dir.dentry().insert(&mut children, name, target.inode().clone());
    drop(children);
    dentry.keep();
    notify::linked(dir.dentry(), name, &dentry);
    Ok(())
}

/// fs.protected_hardlinks = 1: only the owner, or who may read and write a plain file, makes links to it.
fn check_protected_link(creds: &Credentials, target: &Path, attributes: &Attributes) -> Result<()> {
    if creds.fsuid == attributes.uid || creds.capable_over(attributes, CAP_FOWNER) {
        return Ok(());
    }
    let set_id = attributes.mode & S_ISUID != 0 || attributes.mode & (S_ISGID | 0o010) == S_ISGID | 0o010;
    let plain = attributes.file_type() == FileType::Regular && !set_id;
    if plain && target.inode().permission(creds, READ | WRITE).is_ok() { Ok(()) } else { Err(Errno::EPERM) }
}

fn check_delete(creds: &Credentials, dir: &Path, target: &Dentry) -> Result<()> {
    permission::check(creds, dir.mount(), &**dir.inode(), WRITE | EXEC)?;
    permission::check_sticky(creds, &dir.inode().attributes()?, &target.inode().attributes()?)
}

/// unlink(2), or rmdir(2) with `directory`.
pub fn unlink(task: &Task, start: Option<&Path>, path: &[u8], directory: bool) -> Result<()> {
    let parent = parent(task, start, path, WalkFlags::empty())?;
    match &parent.last {
        Last::Directory if directory => Err(last_component_error(path)),
        _ => unlink_in(&task.credentials(), &parent, directory),
    }
}

/// As [`unlink`], in a directory that was found.
pub fn unlink_in(creds: &Credentials, parent: &Parent, directory: bool) -> Result<()> {
    let Last::Name(name) = &parent.last else { return Err(Errno::EISDIR) };
    let dir = &parent.dir;
    let mut children = dir.dentry().lock();
    let (target, _) = dir.dentry().lookup_locked(&mut children, name)?;
    if parent.slash && !target.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    check_delete(creds, dir, &target)?;
    match (directory, target.is_dir()) {
        (true, false) => return Err(Errno::ENOTDIR),
        (false, true) => return Err(Errno::EISDIR),
        _ => {}
    }
    if target.mounts() > 0 {
        return Err(Errno::EBUSY);
    }
    if directory {
        // The victim is locked too: nothing may appear in it meanwhile.
        let _inner = target.lock();
        dir.inode().rmdir(name, target.inode())?;
    } else {
        dir.inode().unlink(name, target.inode())?;
    }
    dir.dentry().removed(&mut children, &target);
    drop(children);
    notify::deleted(dir.dentry(), name, &target);
    Ok(())
}

/// rmdir(2) of something that ends in `.`, `..` or is the root.
fn last_component_error(path: &[u8]) -> Errno {
    match path.split(|&c| c == b'/').rfind(|c| !c.is_empty()) {
        Some(b".") => Errno::EINVAL,
        Some(b"..") => Errno::ENOTEMPTY,
        _ => Errno::EBUSY,
    }
}

/// renameat2(2).
pub fn rename(
    task: &Task,
    from: (Option<&Path>, &[u8]),
    to: (Option<&Path>, &[u8]),
    flags: RenameFlags,
) -> Result<()> {
    check_rename_flags(flags)?;
    let old = parent(task, from.0, from.1, WalkFlags::empty())?;
    let new = parent(task, to.0, to.1, WalkFlags::empty())?;
    rename_in(&task.credentials(), &old, &new, flags)
}

fn check_rename_flags(flags: RenameFlags) -> Result<()> {
    let others = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_WHITEOUT;
    let contradict = flags.contains(RenameFlags::RENAME_EXCHANGE) && flags.intersects(others);
    if contradict { Err(Errno::EINVAL) } else { Ok(()) }
}

/// As [`rename`], in directories that were found.
pub fn rename_in(creds: &Credentials, old: &Parent, new: &Parent, flags: RenameFlags) -> Result<()> {
    check_rename_flags(flags)?;
    let exchange = flags.contains(RenameFlags::RENAME_EXCHANGE);
    let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
    let (old_dir, new_dir) = (&old.dir, &new.dir);
    if !Arc::ptr_eq(old_dir.mount(), new_dir.mount()) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(old_name) = &old.last else { return Err(Errno::EBUSY) };
    let Last::Name(new_name) = &new.last else {
        return Err(if no_replace { Errno::EEXIST } else { Errno::EBUSY });
    };
    let _rename = RENAME.lock();
    let (a, b) = (old_dir.dentry(), new_dir.dentry());
    let (mut a_children, mut b_children) = Dentry::lock_both(a, b);
    let (source, _) = a.lookup_locked(&mut a_children, old_name)?;
    let target = match b.lookup_locked(b_children.as_deref_mut().unwrap_or(&mut a_children), new_name) {
        Ok((target, _)) => Some(target),
        Err(Errno::ENOENT) => None,
        Err(e) => return Err(e),
    };
    match &target {
        Some(_) if no_replace => return Err(Errno::EEXIST),
        None if exchange => return Err(Errno::ENOENT),
        _ => {}
    }
    if !source.is_dir() && (old.slash || (!exchange && new.slash)) {
        return Err(Errno::ENOTDIR);
    }
    if exchange && new.slash && target.as_ref().is_some_and(|t| !t.is_dir()) {
        return Err(Errno::ENOTDIR);
    }
    if b.is_below(&source) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &target
        && a.is_below(target)
    {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    if let Some(target) = &target
        && (Arc::ptr_eq(target, &source) || target.object() == source.object())
    {
        // Two names of one file: nothing happens.
        return Ok(());
    }
    check_delete(creds, old_dir, &source)?;
    match &target {
        None => check_create(creds, new_dir)?,
        Some(target) => {
            check_delete(creds, new_dir, target)?;
            if !exchange {
                match (source.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
    }
    // A directory that gets another parent has its `..` rewritten.
    if source.is_dir() && !Arc::ptr_eq(a, b) {
        permission::check(creds, old_dir.mount(), &**source.inode(), WRITE)?;
    }
    if source.mounts() > 0 || target.as_ref().is_some_and(|t| t.mounts() > 0) {
        return Err(Errno::EBUSY);
    }
    let from = Entry { name: old_name, inode: source.inode() };
    let onto = Target { name: new_name, inode: target.as_ref().map(|t| t.inode()) };
    a.inode().rename(from, b.inode(), onto, flags)?;
    match &target {
        Some(target) if exchange => {
            Dentry::exchanged(a, &mut a_children, &source, b, b_children.as_deref_mut(), target);
        }
        _ => {
            if let Some(target) = &target {
                b.removed(b_children.as_deref_mut().unwrap_or(&mut a_children), target);
            }
            a.moved(&mut a_children, &source, b, b_children.as_deref_mut(), new_name);
        }
    }
    drop((a_children, b_children));
    notify::moved(a, old_name, b, new_name, &source, target.as_deref().filter(|_| !exchange));
    if let (true, Some(target)) = (exchange, &target) {
        notify::moved(b, new_name, a, old_name, target, None);
    }
    Ok(())
}

fn changed(place: &Path, set: &SetAttributes) -> Result<()> {
    if place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    place.inode().set_attributes(set)
}

/// chmod(2) of something that was resolved.
pub fn chmod(creds: &Credentials, place: &Path, mode: u32) -> Result<()> {
    if place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    let attributes = place.inode().attributes()?;
    if attributes.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    if !permission::is_owner(creds, &attributes) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & 0o7777;
    if mode & S_ISGID != 0 && !creds.in_group(attributes.gid) && !creds.capable_over(&attributes, CAP_FSETID)
    {
        mode &= !S_ISGID;
    }
    changed(place, &SetAttributes { mode: Some(mode), ..SetAttributes::default() })?;
    notify::attrib(place);
    Ok(())
}

/// chown(2) of something that was resolved, with kernel ids.
pub fn chown(creds: &Credentials, place: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    let attributes = place.inode().attributes()?;
    let own = creds.fsuid == attributes.uid;
    let capable = creds.capable_over(&attributes, CAP_CHOWN);
    if let Some(uid) = uid
        && !(own && uid == attributes.uid)
        && !capable
    {
        return Err(Errno::EPERM);
    }
    if let Some(gid) = gid
        && !(own && (creds.in_group(gid) || gid == attributes.gid))
        && !capable
    {
        return Err(Errno::EPERM);
    }
    // Set-id bits do not survive a change of owner, not even root's.
    let mut mode = None;
    if attributes.file_type() != FileType::Directory {
        let mut kept = attributes.mode & 0o7777 & !S_ISUID;
        if attributes.mode & (S_ISGID | 0o010) == S_ISGID | 0o010 {
            kept &= !S_ISGID;
        }
        if kept != attributes.mode & 0o7777 {
            mode = Some(kept);
        }
        if place.inode().xattr(b"security.capability").is_ok() {
            place.inode().remove_xattr(b"security.capability")?;
        }
    }
    changed(place, &SetAttributes { uid, gid, mode, ..SetAttributes::default() })?;
    notify::attrib(place);
    Ok(())
}

/// utimensat(2) of something that was resolved. `None` means now for both, which needs only write permission.
pub fn set_times(
    creds: &Credentials,
    place: &Path,
    times: Option<(Option<super::TimeUpdate>, Option<super::TimeUpdate>)>,
) -> Result<()> {
    use super::TimeUpdate::Now;
    if place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    let attributes = place.inode().attributes()?;
    let (atime, mtime) = times.unwrap_or((Some(Now), Some(Now)));
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    if !permission::is_owner(creds, &attributes) {
        if (atime, mtime) != (Some(Now), Some(Now)) {
            return Err(Errno::EPERM);
        }
        place.inode().permission(creds, WRITE)?;
    }
    changed(place, &SetAttributes { atime, mtime, ..SetAttributes::default() })?;
    notify::attrib(place);
    Ok(())
}

/// truncate(2) of something that was resolved, with its permission checks.
pub fn truncate(creds: &Credentials, place: &Path, size: u64) -> Result<()> {
    match place.inode().file_type() {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    permission::check(creds, place.mount(), &**place.inode(), WRITE)?;
    place.dentry().superblock().check_not_executed(place.inode().ino())?;
    truncate_inode(creds, place, size)?;
    notify::modified(place);
    Ok(())
}

fn truncate_inode(creds: &Credentials, place: &Path, size: u64) -> Result<()> {
    let attributes = place.inode().attributes()?;
    let mode = cleared_set_id(creds, &attributes);
    changed(place, &SetAttributes { size: Some(size), mode, ..SetAttributes::default() })?;
    if attributes.size > 0 {
        notify::modified(place);
    }
    Ok(())
}

fn cleared_set_id(creds: &Credentials, attributes: &Attributes) -> Option<u32> {
    if attributes.mode & (S_ISUID | S_ISGID) == 0 || creds.capable_over(attributes, CAP_FSETID) {
        return None;
    }
    let mut mode = attributes.mode & 0o7777 & !S_ISUID;
    if mode & 0o010 != 0 {
        mode &= !S_ISGID;
    }
    (mode != attributes.mode & 0o7777).then_some(mode)
}

/// After a write: set-id bits and file capabilities go (file_remove_privs()).
pub fn remove_privileges(task: &Task, place: &Path) {
    let inode = place.inode();
    if inode.file_type() != FileType::Regular {
        return;
    }
    let Ok(attributes) = inode.attributes() else { return };
    if let Some(mode) = cleared_set_id(&task.credentials(), &attributes) {
        // The data was written: nothing is left to undo if this fails.
        let _ = inode.set_attributes(&SetAttributes { mode: Some(mode), ..SetAttributes::default() });
    }
}

/// access(2): with the real ids unless `effective`.
pub fn access(task: &Task, place: &Path, mask: u32, effective: bool) -> Result<()> {
    let mut creds = (*task.credentials()).clone();
    if !effective {
        creds.fsuid = creds.uid;
        creds.fsgid = creds.gid;
        let root = creds.user_ns.kernel_uid(0).ok();
        creds.effective =
            if Some(creds.uid) == root { creds.permitted } else { abi::capability::CapSet::EMPTY };
    }
    let inode = place.inode();
    if mask & EXEC != 0
        && inode.file_type() == FileType::Regular
        && place.mount().flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    inode.permission(&creds, mask)?;
    let on_disk = matches!(inode.file_type(), FileType::Regular | FileType::Directory | FileType::Symlink);
    if mask & WRITE != 0 && on_disk && place.mount().is_read_only() {
        return Err(Errno::EROFS);
    }
    Ok(())
}

/// A descriptor was closed: POSIX locks of the process on the file go, and the file is told.
pub fn flush(task: &CurrentTask, file: &Arc<File>) {
    super::locks::descriptor_closed(task, file);
    // close(2) has done its work whatever this says; an error of delayed writing has no place here.
    let _ = file.operations().flush(&task.io());
}

/// Is the inode a directory that can be entered (chdir(2), chroot(2))?
pub fn check_directory(task: &Task, place: &Path) -> Result<()> {
    if !place.dentry().is_dir() {
        return Err(Errno::ENOTDIR);
    }
    place.inode().permission(&task.credentials(), EXEC)
}

/// A read-only view for those that only need the attributes.
pub fn attributes(place: &Path) -> Result<Attributes> {
    let inode: &Arc<dyn Inode> = place.inode();
    inode.attributes()
}
