//! For tests of filesystems: a mounted tree without a task, the same operations on a directory of the host, and random
//! operations to be carried out on both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use abi::fcntl::{OpenFlags, RenameFlags};
use abi::stat::FileType;
use abi::{Errno, Result};
use nix::fcntl::AT_FDCWD;
use proptest::prelude::*;

use crate::vfs::io::SliceSource;
use crate::vfs::{
    Attributes, Dentry, DirSink, Entry, File, FileSystem, Io, Mount, MountFlags, NewInode, NewKind, Path,
    SetAttributes, SuperBlock, Target, VecSink, notify,
};

/// What is compared of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub mode: u32,
    /// Of directories: the links that subdirectories make.
    pub nlink: u64,
    /// 0 for directories.
    pub size: u64,
    pub content: Vec<u8>,
}

pub type Snapshot = BTreeMap<String, Summary>;

/// A tree of files. All symbolic links in it lead nowhere.
pub trait Tree {
    fn apply(&self, operation: &Operation) -> Result<()>;
    fn snapshot(&self) -> Snapshot;
}

#[derive(Clone, Debug)]
pub enum Operation {
    Create(&'static str),
    Mkdir(&'static str),
    Symlink(&'static str, &'static str),
    Fifo(&'static str),
    Link(&'static str, &'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    Rename(&'static str, &'static str, bool),
    Write(&'static str, u64, Vec<u8>),
    Append(&'static str, Vec<u8>),
    Truncate(&'static str, u64),
    Chmod(&'static str, u32),
    Punch(&'static str, u64, u64),
    Allocate(&'static str, u64, u64, bool),
}

const PATHS: &[&str] = &["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/e", "f/e/g"];

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(PATHS)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![4 => 0..200usize, 2 => 4000..9000usize, 1 => 60_000..140_000usize];
    (any::<u8>(), len)
        .prop_map(|(seed, len)| (0..len).map(|i| seed.wrapping_add((i / 7) as u8) | 1).collect())
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..300u64, 3 => 0..20_000u64, 3 => 0..300_000u64, 1 => Just(4096), 1 => Just(65536)]
}

/// Random operations.
pub fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    prop_oneof![
        4 => path().prop_map(O::Create),
        4 => path().prop_map(O::Mkdir),
        1 => (path(), prop::sample::select(&["x", "/some/where", "x/y"][..])).prop_map(|(p, t)| O::Symlink(p, t)),
        1 => path().prop_map(O::Fifo),
        2 => (path(), path()).prop_map(|(a, b)| O::Link(a, b)),
        2 => path().prop_map(O::Unlink),
        2 => path().prop_map(O::Rmdir),
        4 => (path(), path(), any::<bool>()).prop_map(|(a, b, x)| O::Rename(a, b, x)),
        3 => (path(), offset(), bytes()).prop_map(|(p, o, b)| O::Write(p, o, b)),
        1 => (path(), bytes()).prop_map(|(p, b)| O::Append(p, b)),
        2 => (path(), offset()).prop_map(|(p, s)| O::Truncate(p, s)),
        1 => (path(), 0..0o1000u32).prop_map(|(p, m)| O::Chmod(p, m)),
        2 => (path(), offset(), offset()).prop_map(|(p, o, l)| O::Punch(p, o, l + 1)),
        2 => (path(), offset(), offset(), any::<bool>()).prop_map(|(p, o, l, k)| O::Allocate(p, o, l + 1, k)),
    ]
}

/// Carries out all operations on both, and compares every outcome and the trees. `skip` is asked about differing
/// outcomes that are meant to be.
pub fn compare(
    one: &dyn Tree,
    other: &dyn Tree,
    operations: &[Operation],
    skip: impl Fn(&Operation, Result<()>) -> bool,
) -> Result<(), TestCaseError> {
    for operation in operations {
        let result = one.apply(operation);
        if skip(operation, result) {
            continue;
        }
        prop_assert_eq!(result, other.apply(operation), "{:?}", operation);
        prop_assert_eq!(one.snapshot(), other.snapshot(), "after {:?}", operation);
    }
    Ok(())
}

/// A filesystem of the sentry's, mounted.
pub struct Mounted {
    pub root: Path,
}

/// Collects all entries.
#[derive(Default)]
pub struct Listing(pub Vec<(u64, u64, FileType, Vec<u8>)>, pub usize);

impl Listing {
    /// Takes at most `limit` entries.
    pub fn limited(limit: usize) -> Listing {
        Listing(Vec::new(), limit)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(.., name)| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

impl DirSink for Listing {
    fn entry(&mut self, next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool {
        if self.1 != 0 && self.0.len() >= self.1 {
            return false;
        }
        self.0.push((next, ino, file_type, name.to_vec()));
        true
    }
}

/// Permission bits and owner of what tests make.
pub fn new(kind: NewKind, mode: u32) -> NewInode {
    NewInode { kind, mode, uid: 0, gid: 0 }
}

fn check_dir(dentry: &Dentry) -> Result<()> {
    match dentry.inode().file_type() {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Errno::ENOENT),
        _ => Err(Errno::ENOTDIR),
    }
}

impl Mounted {
    pub fn new(fs: Arc<dyn FileSystem>) -> Mounted {
        let root = SuperBlock::make(fs);
        Mounted { root: Path::new(Mount::new(root.clone(), MountFlags::RELATIME, b"test"), root) }
    }

    pub fn find(&self, path: &str) -> Result<Arc<Dentry>> {
        let mut at = self.root.dentry().clone();
        for name in path.split('/').filter(|n| !n.is_empty()) {
            check_dir(&at)?;
            at = at.lookup(name.as_bytes())?;
        }
        Ok(at)
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(Arc<Dentry>, &'p [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.find(dir)?;
        check_dir(&dir)?;
        Ok((dir, name.as_bytes()))
    }

    pub fn stat(&self, path: &str) -> Result<Attributes> {
        self.find(path)?.inode().attributes()
    }

    pub fn create(&self, path: &str, kind: NewKind, mode: u32) -> Result<Arc<Dentry>> {
        let (dir, name) = self.parent(path)?;
        let mut children = dir.lock();
        match dir.lookup_locked(&mut children, name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        let inode = dir.inode().create(name, &new(kind, mode))?;
        let dentry = dir.insert(&mut children, name, inode);
        drop(children);
        dentry.keep();
        notify::created(&dir, name, &dentry);
        Ok(dentry)
    }

    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        let target = self.find(from)?;
        let (dir, name) = self.parent(to)?;
        let mut children = dir.lock();
        match dir.lookup_locked(&mut children, name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if target.is_dir() {
            return Err(Errno::EPERM);
        }
        dir.inode().link(name, target.inode())?;
        let dentry = dir.insert(&mut children, name, target.inode().clone());
        drop(children);
        notify::linked(&dir, name, &dentry);
        Ok(())
    }

    pub fn remove(&self, path: &str, directory: bool) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let mut children = dir.lock();
        let (target, _) = dir.lookup_locked(&mut children, name)?;
        match (directory, target.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => dir.inode().rmdir(name, target.inode())?,
            (false, false) => dir.inode().unlink(name, target.inode())?,
        }
        dir.removed(&mut children, &target);
        drop(children);
        notify::deleted(&dir, name, &target);
        Ok(())
    }

    pub fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        static RENAME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
        let ((a, old_name), (b, new_name)) = (self.parent(from)?, self.parent(to)?);
        let _rename = RENAME.lock();
        let exchange = flags.contains(RenameFlags::RENAME_EXCHANGE);
        let (mut a_children, mut b_children) = Dentry::lock_both(&a, &b);
        let (source, _) = a.lookup_locked(&mut a_children, old_name)?;
        let in_b = b_children.as_deref_mut().unwrap_or(&mut a_children);
        let target = match b.lookup_locked(in_b, new_name) {
            Ok((target, _)) => Some(target),
            Err(Errno::ENOENT) if !exchange => None,
            Err(e) => return Err(e),
        };
        if b.is_below(&source) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = &target {
            if a.is_below(target) {
                return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
            if target.object() == source.object() {
                return Ok(());
            }
            match (source.is_dir(), target.is_dir()) {
                _ if exchange => {}
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        let from = Entry { name: old_name, inode: source.inode() };
        let onto = Target { name: new_name, inode: target.as_ref().map(|t| t.inode()) };
        a.inode().rename(from, b.inode(), onto, flags)?;
        match &target {
            Some(target) if exchange => {
                Dentry::exchanged(&a, &mut a_children, &source, &b, b_children.as_deref_mut(), target);
            }
            _ => {
                if let Some(target) = &target {
                    b.removed(b_children.as_deref_mut().unwrap_or(&mut a_children), target);
                }
                a.moved(&mut a_children, &source, &b, b_children.as_deref_mut(), new_name);
            }
        }
        drop((a_children, b_children));
        let replaced = target.as_deref().filter(|_| !exchange);
        notify::moved(&a, old_name, &b, new_name, &source, replaced);
        if let (true, Some(target)) = (exchange, &target) {
            notify::moved(&b, new_name, &a, old_name, target, None);
        }
        Ok(())
    }

    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<File>> {
        self.open_dentry(self.find(path)?, flags)
    }

    pub fn open_dentry(&self, dentry: Arc<Dentry>, flags: OpenFlags) -> Result<Arc<File>> {
        match dentry.inode().file_type() {
            FileType::Directory if flags.writable() => return Err(Errno::EISDIR),
            FileType::Regular | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        }
        let path = Path::new(self.root.mount().clone(), dentry);
        let ops = path.inode().open(&Io::default(), &path, flags)?;
        let file = File::new(ops, path, flags);
        notify::opened(file.path());
        Ok(file)
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.open(path, OpenFlags::empty())?;
        read(&file)
    }

    pub fn list(&self, path: &str) -> Result<Listing> {
        let mut listing = Listing::default();
        let file = self.open(path, OpenFlags::O_DIRECTORY)?;
        file.operations().read_dir(&Io::default(), 0, &mut listing)?;
        Ok(listing)
    }
}

/// All of a file, read in odd pieces.
pub fn read(file: &File) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut sink = VecSink::new(50_001);
        match file.operations().read(&Io::default(), &mut sink, all.len() as u64)? {
            0 => return Ok(all),
            _ => all.append(&mut sink.data),
        }
    }
}

/// Writes all of `data`.
pub fn write(file: &File, offset: u64, data: &[u8], append: bool) -> Result<()> {
    let (mut src, mut at) = (SliceSource::new(data), offset);
    let io = Io { append, ..Io::default() };
    let mut done = 0;
    while done < data.len() {
        let n = file.operations().write(&io, &mut src, &mut at)?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        (done, at) = (done + n, at + n as u64);
    }
    Ok(())
}

impl Tree for Mounted {
    fn apply(&self, operation: &Operation) -> Result<()> {
        use Operation as O;
        let writable = |path: &str| {
            let file = self.open(path, OpenFlags::O_WRONLY)?;
            if file.path().dentry().is_dir() { Err(Errno::EISDIR) } else { Ok(file) }
        };
        match operation {
            O::Create(path) => self.create(path, NewKind::Regular, 0o640).map(drop),
            O::Mkdir(path) => self.create(path, NewKind::Directory, 0o755).map(drop),
            O::Symlink(path, target) => {
                self.create(path, NewKind::Symlink(target.as_bytes().to_vec()), 0o777).map(drop)
            }
            O::Fifo(path) => self.create(path, NewKind::Fifo, 0o600).map(drop),
            O::Link(from, to) => self.link(from, to),
            O::Unlink(path) => self.remove(path, false),
            O::Rmdir(path) => self.remove(path, true),
            O::Rename(from, to, exchange) => {
                let flags = if *exchange { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::empty() };
                self.rename(from, to, flags)
            }
            O::Write(path, offset, data) => write(&*writable(path)?, *offset, data, false),
            O::Append(path, data) => write(&*writable(path)?, 0, data, true),
            O::Truncate(path, size) => {
                let dentry = writable(path)?.path().dentry().clone();
                dentry
                    .inode()
                    .set_attributes(&SetAttributes { size: Some(*size), ..SetAttributes::default() })
            }
            O::Chmod(path, mode) => {
                let dentry = self.find(path)?;
                if dentry.inode().file_type() == FileType::Symlink {
                    return Err(Errno::EOPNOTSUPP);
                }
                dentry
                    .inode()
                    .set_attributes(&SetAttributes { mode: Some(*mode), ..SetAttributes::default() })
            }
            O::Punch(path, offset, len) => {
                writable(path)?.operations().allocate(&Io::default(), 3, *offset, *len)
            }
            O::Allocate(path, offset, len, keep) => {
                writable(path)?.operations().allocate(&Io::default(), u32::from(*keep), *offset, *len)
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::new();
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            for (_, ino, file_type, name) in self.list(&dir).unwrap().0 {
                let name = String::from_utf8(name).unwrap();
                if name == "." || name == ".." {
                    continue;
                }
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let dentry = self.find(&path).unwrap();
                let stat = dentry.inode().attributes().unwrap();
                assert_eq!((stat.ino, stat.file_type()), (ino, file_type), "{path}");
                let content = match file_type {
                    FileType::Regular => self.read(&path).unwrap(),
                    FileType::Symlink => dentry.inode().readlink(&Io::default()).unwrap(),
                    _ => Vec::new(),
                };
                let size = if file_type == FileType::Directory { 0 } else { stat.size };
                if file_type == FileType::Directory {
                    todo.push(path.clone());
                }
                all.insert(path, Summary { mode: stat.mode, nlink: stat.nlink, size, content });
            }
        }
        all
    }
}

/// A directory of the host.
pub struct HostTree(pub tempfile::TempDir);

fn io<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
}

impl HostTree {
    /// On the host's tmpfs.
    pub fn new() -> HostTree {
        HostTree(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

impl Tree for HostTree {
    fn apply(&self, operation: &Operation) -> Result<()> {
        use Operation as O;
        use nix::fcntl::{FallocateFlags, fallocate};
        use nix::sys::stat::Mode;
        let open = |path: &str, append: bool| {
            let path = self.path(path);
            // Neither through links nor into fifos.
            match io(std::fs::symlink_metadata(&path))? {
                m if m.is_dir() => return Err(Errno::EISDIR),
                m if m.is_symlink() => return Err(Errno::ELOOP),
                m if !m.is_file() => return Err(Errno::ENXIO),
                _ => {}
            }
            io(std::fs::OpenOptions::new().write(true).append(append).open(path))
        };
        let set_mode = |path: &str, mode: u32| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            io(std::fs::set_permissions(self.path(path), mode))
        };
        match operation {
            O::Create(path) => {
                io(std::fs::File::create_new(self.path(path)))?;
                set_mode(path, 0o640)
            }
            O::Mkdir(path) => {
                io(std::fs::create_dir(self.path(path)))?;
                set_mode(path, 0o755)
            }
            O::Symlink(path, target) => io(std::os::unix::fs::symlink(target, self.path(path))),
            O::Fifo(path) => Ok(nix::unistd::mkfifo(&self.path(path), Mode::from_bits_retain(0o600))?),
            O::Link(from, to) => io(std::fs::hard_link(self.path(from), self.path(to))),
            O::Unlink(path) => match io(std::fs::remove_file(self.path(path))) {
                Err(Errno::EPERM) => Err(Errno::EISDIR),
                result => result,
            },
            O::Rmdir(path) => io(std::fs::remove_dir(self.path(path))),
            O::Rename(from, to, exchange) => {
                let (from, to) = (self.path(from), self.path(to));
                if *exchange {
                    let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    Ok(nix::fcntl::renameat2(AT_FDCWD, &from, AT_FDCWD, &to, flags)?)
                } else {
                    io(std::fs::rename(from, to))
                }
            }
            O::Write(path, offset, data) => io(open(path, false)?.write_all_at(data, *offset)),
            O::Append(path, data) => io(std::io::Write::write_all(&mut open(path, true)?, data)),
            O::Truncate(path, size) => io(open(path, false)?.set_len(*size)),
            O::Chmod(path, mode) => match io(std::fs::symlink_metadata(self.path(path)))? {
                m if m.is_symlink() => Err(Errno::EOPNOTSUPP),
                _ => set_mode(path, *mode),
            },
            O::Punch(path, offset, len) => {
                let flags = FallocateFlags::from_bits_retain(3);
                Ok(fallocate(open(path, false)?, flags, *offset as i64, *len as i64)?)
            }
            O::Allocate(path, offset, len, keep) => {
                let flags = FallocateFlags::from_bits_retain(i32::from(*keep));
                Ok(fallocate(open(path, false)?, flags, *offset as i64, *len as i64)?)
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(self.0.path().join(&dir)).unwrap() {
                let path = dir.join(entry.unwrap().file_name());
                let full = self.0.path().join(&path);
                let stat = std::fs::symlink_metadata(&full).unwrap();
                let content = if stat.is_file() {
                    std::fs::read(&full).unwrap()
                } else if stat.is_symlink() {
                    OsStr::as_bytes(std::fs::read_link(&full).unwrap().as_os_str()).to_vec()
                } else {
                    Vec::new()
                };
                let size = if stat.is_dir() { 0 } else { stat.size() };
                let name = path.to_str().unwrap().to_string();
                if stat.is_dir() {
                    todo.push(path);
                }
                all.insert(name, Summary { mode: stat.mode(), nlink: stat.nlink(), size, content });
            }
        }
        all
    }
}
