//! Path resolution (path_resolution(7), fs/namei.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::stat::FileType;
use abi::{Errno, Result};
use parking_lot::RwLock;

use super::dentry::Dentry;
use super::inode::LinkTarget;
use super::mount::{Mount, MountNamespace};
use super::permission::{self, EXEC};
use super::{File, Io};
use crate::task::Credentials;

/// How many symbolic links one resolution follows (MAXSYMLINKS).
const LINKS_MAX: u32 = 40;

/// The longest path, with its terminating zero byte.
pub const PATH_MAX: usize = 4096;

/// The longest component.
pub const NAME_MAX: usize = 255;

/// A place: a dentry as seen through a mount.
#[derive(Clone)]
pub struct Path {
    mount: Arc<Mount>,
    dentry: Arc<Dentry>,
}

impl Path {
    /// The dentry must be of the mount's superblock.
    pub fn new(mount: Arc<Mount>, dentry: Arc<Dentry>) -> Path {
        Path { mount, dentry }
    }

    /// The mount.
    pub fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// The dentry.
    pub fn dentry(&self) -> &Arc<Dentry> {
        &self.dentry
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn super::Inode> {
        self.dentry.inode()
    }

    /// The same mount and dentry?
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// The directory above, across mounts, but not above `root`.
    pub fn up(&self, root: &Path) -> Path {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return at;
            }
            if !Arc::ptr_eq(&at.dentry, at.mount.root()) {
                if let Some(parent) = at.dentry.parent() {
                    return Path::new(at.mount.clone(), parent);
                }
                return at;
            }
            match at.mount.parent() {
                Some(parent) => at = parent,
                None => return at,
            }
        }
    }

    /// The absolute name below `root` (d_path), and whether it is reachable from there. "(deleted)" is not added.
    pub fn name_below(&self, root: &Path) -> (Vec<u8>, bool) {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = self.clone();
        let reachable = loop {
            if at.same(root) {
                break true;
            }
            if Arc::ptr_eq(&at.dentry, at.mount.root()) {
                match at.mount.parent() {
                    Some(parent) => at = parent,
                    None => break false,
                }
                continue;
            }
            let Some(parent) = at.dentry.parent() else { break false };
            names.push(at.dentry.name());
            at = Path::new(at.mount.clone(), parent);
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        (path, reachable)
    }

    /// What links of proc show: the name below `root`, with " (deleted)" if it is gone.
    pub fn display(&self, root: &Path) -> Vec<u8> {
        let (mut name, _) = self.name_below(root);
        if self.dentry.is_unlinked() {
            name.extend_from_slice(b" (deleted)");
        }
        name
    }
}

/// Root, working directory and umask of a process; shared by CLONE_FS.
pub struct FsContext {
    places: RwLock<(Path, Path)>,
    umask: AtomicU32,
}

impl FsContext {
    /// With this root and working directory.
    pub fn new(root: Path, cwd: Path, umask: u32) -> FsContext {
        FsContext { places: RwLock::new((root, cwd)), umask: AtomicU32::new(umask) }
    }

    /// A copy, for a new process.
    pub fn fork(&self) -> FsContext {
        let (root, cwd) = self.places.read().clone();
        FsContext::new(root, cwd, self.umask())
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        self.places.read().0.clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.places.read().1.clone()
    }

    /// chroot(2).
    pub fn set_root(&self, root: Path) {
        self.places.write().0 = root;
    }

    /// chdir(2).
    pub fn set_cwd(&self, cwd: Path) {
        self.places.write().1 = cwd;
    }

    /// The umask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// umask(2): returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }
}

bitflags::bitflags! {
    /// How a path is resolved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WalkFlags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path means the starting point (AT_EMPTY_PATH).
        const EMPTY = 4;
        /// RESOLVE_NO_XDEV.
        const NO_XDEV = 8;
        /// RESOLVE_NO_MAGICLINKS.
        const NO_MAGICLINKS = 16;
        /// RESOLVE_NO_SYMLINKS.
        const NO_SYMLINKS = 32;
        /// RESOLVE_BENEATH.
        const BENEATH = 64;
        /// RESOLVE_IN_ROOT: the starting point is the root.
        const IN_ROOT = 128;
    }
}

/// Who walks, and in which tree.
pub struct Walker<'a> {
    /// For links of proc.
    pub io: Io<'a>,
    /// For search permission.
    pub creds: &'a Credentials,
    /// What is mounted.
    pub namespace: &'a MountNamespace,
    /// Where absolute names begin.
    pub root: Path,
}

/// The last component of a path whose directory was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name(Vec<u8>),
    /// `.`, `..`, `/` or nothing: the directory itself is the result.
    Directory,
}

/// A directory and a name in it.
pub struct Parent {
    /// The directory.
    pub dir: Path,
    /// The name.
    pub last: Last,
    /// The path ended in a slash: the name must be a directory.
    pub slash: bool,
}

/// What the last component of a walk turned out to be.
pub enum Found {
    /// A place.
    Path(Path),
    /// An open file behind a magic link.
    File(Arc<File>),
}

struct State<'a> {
    at: Path,
    root: Path,
    links: u32,
    flags: WalkFlags,
    path: std::borrow::Cow<'a, [u8]>,
}

impl Walker<'_> {
    /// Resolves `path` from `start`.
    pub fn walk(&self, start: &Path, path: &[u8], flags: WalkFlags) -> Result<Path> {
        match self.find(start, path, flags)? {
            Found::Path(path) => Ok(path),
            Found::File(file) => Ok(file.path().clone()),
        }
    }

    /// As [`Walker::walk`], and tells a magic link's open file from a place.
    pub fn find(&self, start: &Path, path: &[u8], flags: WalkFlags) -> Result<Found> {
        let mut state = self.begin(start, path, flags)?;
        if path.is_empty() {
            return Ok(Found::Path(state.at));
        }
        loop {
            let parent = self.parent_of(&mut state)?;
            let Last::Name(name) = parent.last else {
                return Ok(Found::Path(parent.dir));
            };
            let must_be_dir = parent.slash || flags.contains(WalkFlags::DIRECTORY);
            let found = self.step(&mut state, &parent.dir, &name)?;
            if found.inode().file_type() == FileType::Symlink
                && (parent.slash || flags.contains(WalkFlags::FOLLOW))
            {
                match self.follow(&mut state, &parent.dir, &found, b"")? {
                    // A link's slash does not get lost: `path/` must be a directory wherever it leads.
                    None if parent.slash => state.path.to_mut().push(b'/'),
                    None => {}
                    Some(Found::Path(path)) if must_be_dir && !path.dentry().is_dir() => {
                        return Err(Errno::ENOTDIR);
                    }
                    Some(found) => return Ok(found),
                }
                continue;
            }
            if must_be_dir && !found.dentry().is_dir() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(Found::Path(found));
        }
    }

    /// Resolves all but the last component. Unless `flags` has FOLLOW, a last component that is a symbolic link is
    /// left alone; with it, links are followed until the last component is none (for O_CREAT).
    pub fn parent(&self, start: &Path, path: &[u8], flags: WalkFlags) -> Result<Parent> {
        let mut state = self.begin(start, path, flags)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        loop {
            let parent = self.parent_of(&mut state)?;
            let Last::Name(name) = &parent.last else { return Ok(parent) };
            if !flags.contains(WalkFlags::FOLLOW) {
                return Ok(parent);
            }
            match self.step(&mut state, &parent.dir, name) {
                Ok(found) if found.inode().file_type() == FileType::Symlink => {
                    match self.follow(&mut state, &parent.dir, &found, b"")? {
                        None => continue,
                        // A magic link: what it leads to exists, the caller walks again and finds it.
                        Some(_) => return Ok(parent),
                    }
                }
                Ok(_) | Err(Errno::ENOENT) => return Ok(parent),
                Err(e) => return Err(e),
            }
        }
    }

    fn begin<'p>(&self, start: &Path, path: &'p [u8], flags: WalkFlags) -> Result<State<'p>> {
        if path.is_empty() && !flags.contains(WalkFlags::EMPTY) {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let confined = flags.intersects(WalkFlags::IN_ROOT | WalkFlags::BENEATH);
        let root = if confined { start.clone() } else { self.root.clone() };
        Ok(State { at: start.clone(), root, links: 0, flags, path: path.into() })
    }

    fn parent_of(&self, state: &mut State<'_>) -> Result<Parent> {
        let path = std::mem::take(&mut state.path);
        let mut rest: Vec<u8>;
        let mut left: &[u8] = &path;
        if left.first() == Some(&b'/') {
            self.jump_to_root(state)?;
        }
        loop {
            let skipped = left.iter().take_while(|&&c| c == b'/').count();
            left = &left[skipped..];
            if left.is_empty() {
                return Ok(Parent { dir: state.at.clone(), last: Last::Directory, slash: true });
            }
            if !state.at.dentry().is_dir() {
                return Err(Errno::ENOTDIR);
            }
            permission::check(self.creds, state.at.mount(), &**state.at.inode(), EXEC)?;
            let len = left.iter().position(|&c| c == b'/').unwrap_or(left.len());
            let (name, after) = left.split_at(len);
            let slashes = after.iter().take_while(|&&c| c == b'/').count();
            let last = slashes == after.len();
            match name {
                b"." => {}
                b".." => self.dot_dot(state)?,
                _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                _ if last => {
                    let dir = state.at.clone();
                    return Ok(Parent { dir, last: Last::Name(name.to_vec()), slash: slashes > 0 });
                }
                _ => {
                    let dir = state.at.clone();
                    let found = self.step(state, &dir, name)?;
                    if found.inode().file_type() == FileType::Symlink {
                        match self.follow(state, &dir, &found, after)? {
                            None => {
                                rest = std::mem::take(&mut state.path).into_owned();
                                return self.continue_with(state, &mut rest);
                            }
                            Some(Found::Path(path)) => state.at = path,
                            Some(Found::File(file)) => state.at = file.path().clone(),
                        }
                    } else {
                        state.at = found;
                    }
                }
            }
            left = &after[slashes..];
            if left.is_empty() {
                return Ok(Parent { dir: state.at.clone(), last: Last::Directory, slash: slashes > 0 });
            }
        }
    }

    fn continue_with(&self, state: &mut State<'_>, rest: &mut Vec<u8>) -> Result<Parent> {
        state.path = std::mem::take(rest).into();
        self.parent_of(state)
    }

    fn jump_to_root(&self, state: &mut State<'_>) -> Result<()> {
        if state.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        if state.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(state.at.mount(), state.root.mount()) {
            return Err(Errno::EXDEV);
        }
        state.at = state.root.clone();
        Ok(())
    }

    fn dot_dot(&self, state: &mut State<'_>) -> Result<()> {
        if state.at.same(&state.root) {
            return if state.flags.contains(WalkFlags::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) };
        }
        let up = self.namespace.top(state.at.up(&state.root));
        if state.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(up.mount(), state.at.mount()) {
            return Err(Errno::EXDEV);
        }
        state.at = up;
        Ok(())
    }

    /// One name of a directory, with the mount on it entered.
    fn step(&self, state: &mut State<'_>, dir: &Path, name: &[u8]) -> Result<Path> {
        let child = dir.dentry().lookup(name)?;
        let found = Path::new(dir.mount().clone(), child);
        if found.dentry().mounts() == 0 {
            return Ok(found);
        }
        let top = self.namespace.top(found);
        if state.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(top.mount(), dir.mount()) {
            return Err(Errno::EXDEV);
        }
        Ok(top)
    }

    /// Follows a link found in `dir`. `None`: the text of the link, followed by `after`, is what is left to walk.
    fn follow(&self, state: &mut State<'_>, dir: &Path, link: &Path, after: &[u8]) -> Result<Option<Found>> {
        state.links += 1;
        if state.links > LINKS_MAX || state.flags.contains(WalkFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        let target = link.inode().follow(&self.io)?;
        if let LinkTarget::Jump(_) | LinkTarget::File(_) = target {
            if state.flags.contains(WalkFlags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if state.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
        }
        match target {
            LinkTarget::Jump(path) => Ok(Some(Found::Path(path))),
            LinkTarget::File(file) => Ok(Some(Found::File(file))),
            LinkTarget::Text(mut text) => {
                if text.is_empty() {
                    return Err(Errno::ENOENT);
                }
                text.extend_from_slice(after);
                if text.len() >= 2 * PATH_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                state.at = dir.clone();
                state.path = text.into();
                Ok(None)
            }
        }
    }
}
