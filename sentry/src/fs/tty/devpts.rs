//! devpts: the names of terminals (fs/devpts/inode.c). Every mount is an instance with numbers of its own.
//!
//! Lock order: the root directory's lock → the table of numbers.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::fcntl::OpenFlags;
use abi::stat::{FileType, S_IFCHR, S_IFDIR, makedev};
use abi::time::Timespec;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::{AUXILIARY, Terminal};
use crate::Kernel;
use crate::task::{Task, UserNamespace};
use crate::vfs::{
    Attributes, Dentry, DirSink, FileOps, FileSystem, FsStatus, Inode, Io, Mount, MountFlags, NewInode,
    NewKind, Path, SetAttributes, SuperBlock, TimeUpdate, notify,
};

/// DEVPTS_SUPER_MAGIC
const MAGIC: u64 = 0x1cd1;

/// The most terminals that an instance may be asked to have (NR_UNIX98_PTY_MAX).
const INSTANCE_MAX: u32 = 1 << 20;

/// The most terminals in all instances: `kernel.pty.max` less `kernel.pty.reserve`.
const TOTAL_MAX: u32 = 4096 - 1024;

/// Inode numbers of the root and of `ptmx`; terminals follow.
const ROOT: u64 = 1;
const PTMX: u64 = 2;
const FIRST: u64 = 3;

/// Mount options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevptsOptions {
    /// The owner of all terminals, if not who opens them.
    pub uid: Option<u32>,
    /// The group of all terminals, if not that of who opens them.
    pub gid: Option<u32>,
    /// Permission bits of terminals.
    pub mode: u32,
    /// Permission bits of `ptmx`.
    pub ptmxmode: u32,
    /// The most terminals.
    pub max: u32,
}

impl Default for DevptsOptions {
    fn default() -> DevptsOptions {
        DevptsOptions { uid: None, gid: None, mode: 0o600, ptmxmode: 0, max: INSTANCE_MAX }
    }
}

impl DevptsOptions {
    /// Parses the data of mount(2). EINVAL for what is unknown or malformed.
    pub fn parse(data: &[u8]) -> Result<DevptsOptions> {
        let data = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut options = DevptsOptions::default();
        for option in data.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let octal = || u32::from_str_radix(value, 8).map(|mode| mode & 0o777).map_err(|_| Errno::EINVAL);
            let number = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match key {
                "uid" => options.uid = Some(number()?),
                "gid" => options.gid = Some(number()?),
                "mode" => options.mode = octal()?,
                "ptmxmode" => options.ptmxmode = octal()?,
                "max" => {
                    options.max = number().ok().filter(|&max| max <= INSTANCE_MAX).ok_or(Errno::EINVAL)?
                }
                // Every instance is a new one.
                "newinstance" if value.is_empty() => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

impl DevptsOptions {
    /// The owners that the options name are ids of a namespace. EINVAL if it does not have them.
    pub fn mapped(mut self, user_ns: &UserNamespace) -> Result<DevptsOptions> {
        self.uid = self.uid.map(|uid| user_ns.kernel_uid(uid)).transpose()?;
        self.gid = self.gid.map(|gid| user_ns.kernel_gid(gid)).transpose()?;
        Ok(self)
    }
}

impl fmt::Display for DevptsOptions {
    /// As in `/proc/mounts` (devpts_show_options()).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uid) = self.uid {
            write!(f, "uid={uid},")?;
        }
        if let Some(gid) = self.gid {
            write!(f, "gid={gid},")?;
        }
        write!(f, "mode={:03o},ptmxmode={:03o}", self.mode, self.ptmxmode)?;
        if self.max < INSTANCE_MAX {
            write!(f, ",max={}", self.max)?;
        }
        Ok(())
    }
}

/// What an instance consists of.
struct Instance {
    kernel: Weak<Kernel>,
    options: DevptsOptions,
    /// Numbers in use, and the names that some of them have.
    numbers: Mutex<BTreeMap<u32, Option<Arc<Node>>>>,
    /// The root directory, once it is known.
    root: OnceLock<Weak<Dentry>>,
}

/// A devpts.
pub struct Devpts {
    instance: Arc<Instance>,
    root: Arc<Node>,
}

impl Devpts {
    /// A new instance without terminals.
    pub fn new(kernel: &Arc<Kernel>, options: DevptsOptions) -> Arc<Devpts> {
        let instance = Arc::new(Instance {
            kernel: Arc::downgrade(kernel),
            options,
            numbers: Mutex::default(),
            root: OnceLock::new(),
        });
        let ptmx = Node::new(PTMX, Kind::Ptmx, options.ptmxmode, (0, 0));
        let root = Node::new(ROOT, Kind::Root(instance.clone(), ptmx), 0o755, (0, 0));
        Arc::new(Devpts { instance, root })
    }

    /// A mount of a new instance that has no place in any tree.
    pub(super) fn detached(kernel: &Arc<Kernel>) -> Path {
        let root = SuperBlock::make(Devpts::new(kernel, DevptsOptions::default()));
        Path::new(Mount::new(root.clone(), MountFlags::empty(), b"devpts"), root)
    }

    /// The instance that has its root here. ENODEV.
    pub(super) fn at(root: &Path) -> Result<&Devpts> {
        let fs: &dyn Any = &**root.mount().superblock().fs();
        let is_root = Arc::ptr_eq(root.mount().root(), root.dentry()) && root.inode().ino() == ROOT;
        fs.downcast_ref::<Devpts>().filter(|_| is_root).ok_or(Errno::ENODEV)
    }

    /// Takes the lowest free number. ENOSPC.
    pub(super) fn allocate(&self) -> Result<Number> {
        let kernel = self.instance.kernel.upgrade().ok_or(Errno::ENOSPC)?;
        let mut numbers = self.instance.numbers.lock();
        let index = numbers.keys().zip(0..).find(|(used, at)| **used != *at);
        let index = index.map_or(numbers.len() as u32, |(_, free)| free);
        if index >= self.instance.options.max {
            return Err(Errno::ENOSPC);
        }
        let more = |total: u32| Some(total + 1).filter(|&total| total <= TOTAL_MAX);
        kernel.ptys.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).map_err(|_| Errno::ENOSPC)?;
        numbers.insert(index, None);
        Ok(Number { instance: self.instance.clone(), index, released: AtomicBool::new(false) })
    }
}

/// The devpts that a `ptmx` belongs to: its own, or the one mounted on `pts` beside it (devpts_acquire()). ENOENT or
/// ENODEV if there is none.
pub(super) fn of_ptmx(task: &Task, ptmx: &Path) -> Result<Path> {
    let root = ptmx.mount().superblock();
    let fs: &dyn Any = &**root.fs();
    if fs.is::<Devpts>() {
        let root = ptmx.dentry().parent().ok_or(Errno::ENODEV)?;
        // Also through a bind mount of the node alone.
        if Arc::ptr_eq(ptmx.mount().root(), &root) {
            return Ok(Path::new(ptmx.mount().clone(), root));
        }
        return Ok(Path::new(Mount::new(root.clone(), ptmx.mount().flags(), b"devpts"), root));
    }
    let dir = ptmx.dentry().parent().ok_or(Errno::ENOENT)?;
    let pts = Path::new(ptmx.mount().clone(), dir.lookup(b"pts")?);
    let root = task.namespaces().mount.top(pts);
    Devpts::at(&root)?;
    Ok(root)
}

/// The terminal whose name this is, while it has one.
pub(super) fn terminal_at(path: &Path) -> Option<Arc<Terminal>> {
    match &path.dentry().inode_as::<Node>()?.kind {
        Kind::Terminal(_, terminal) => terminal.upgrade(),
        _ => None,
    }
}

/// Gives a terminal its name below `root`, which the options or else `owner` will own (devpts_pty_new()).
pub(super) fn publish(root: &Path, terminal: &Arc<Terminal>, owner: (u32, u32)) -> Result<Path> {
    let devpts = Devpts::at(root)?;
    let instance = &devpts.instance;
    let options = &instance.options;
    let owner = (options.uid.unwrap_or(owner.0), options.gid.unwrap_or(owner.1));
    let index = terminal.index();
    let kind = Kind::Terminal(terminal.rdev(), Arc::downgrade(terminal));
    let node = Node {
        times: terminal.times.clone(),
        ..Node::value(FIRST + u64::from(index), kind, options.mode, owner)
    };
    let node = Arc::new(node);
    let dir = root.dentry();
    let _ = instance.root.set(Arc::downgrade(dir));
    let name = index.to_string();
    let mut children = dir.lock();
    instance.numbers.lock().insert(index, Some(node.clone()));
    let dentry = dir.insert(&mut children, name.as_bytes(), node);
    drop(children);
    notify::created(dir, name.as_bytes(), &dentry);
    Ok(Path::new(root.mount().clone(), dentry))
}

/// A number that is in use.
pub(super) struct Number {
    instance: Arc<Instance>,
    index: u32,
    released: AtomicBool,
}

impl Number {
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn kernel(&self) -> Option<Arc<Kernel>> {
        self.instance.kernel.upgrade()
    }

    /// Takes the name away (devpts_pty_kill()).
    pub(super) fn unlink(&self) {
        let Some(dir) = self.instance.root.get().and_then(Weak::upgrade) else { return };
        let name = self.index.to_string();
        let mut children = dir.lock();
        let dentry = dir.lookup_locked(&mut children, name.as_bytes());
        let node = self.instance.numbers.lock().get_mut(&self.index).and_then(Option::take);
        let Some(node) = node else { return };
        node.named.store(false, Ordering::Release);
        if let Ok((dentry, _)) = dentry {
            dir.removed(&mut children, &dentry);
            drop(children);
            notify::deleted(&dir, name.as_bytes(), &dentry);
        }
    }

    /// The number can be used again.
    pub(super) fn release(&self) {
        if self.released.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unlink();
        self.instance.numbers.lock().remove(&self.index);
        if let Some(kernel) = self.kernel() {
            kernel.ptys.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.release();
    }
}

impl FileSystem for Devpts {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }

    fn options(&self) -> String {
        self.instance.options.to_string()
    }
}

/// When a terminal was read from and written to.
#[derive(Default)]
pub(super) struct Times(Mutex<Stamps>);

#[derive(Clone, Copy)]
struct Stamps {
    accessed: Timespec,
    modified: Timespec,
}

impl Default for Stamps {
    fn default() -> Stamps {
        let now = crate::time::now();
        Stamps { accessed: now, modified: now }
    }
}

/// Time stamps of terminals do not tell the rhythm of typing: they change every 8 seconds (tty_update_time()).
fn update(stamp: &mut Timespec) {
    let now = crate::time::now();
    if (now.tv_sec ^ stamp.tv_sec) & !7 != 0 {
        *stamp = now;
    }
}

impl Times {
    pub(super) fn accessed(&self) {
        update(&mut self.0.lock().accessed);
    }

    pub(super) fn modified(&self) {
        update(&mut self.0.lock().modified);
    }
}

enum Kind {
    /// The root, with its `ptmx`.
    Root(Arc<Instance>, Arc<Node>),
    Ptmx,
    Terminal(u64, Weak<Terminal>),
}

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    changed: Timespec,
}

/// An inode.
struct Node {
    ino: u64,
    kind: Kind,
    meta: Mutex<Meta>,
    times: Arc<Times>,
    created: Timespec,
    /// The name is there.
    named: AtomicBool,
}

impl Node {
    fn value(ino: u64, kind: Kind, mode: u32, (uid, gid): (u32, u32)) -> Node {
        let created = crate::time::now();
        let meta = Mutex::new(Meta { mode, uid, gid, changed: created });
        Node { ino, kind, meta, times: Arc::default(), created, named: AtomicBool::new(true) }
    }

    fn new(ino: u64, kind: Kind, mode: u32, owner: (u32, u32)) -> Arc<Node> {
        Arc::new(Node::value(ino, kind, mode, owner))
    }
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        match self.kind {
            Kind::Root(..) => FileType::Directory,
            _ => FileType::CharDevice,
        }
    }

    fn attributes(&self) -> Result<Attributes> {
        let (kind, rdev, nlink) = match &self.kind {
            Kind::Root(..) => (S_IFDIR, 0, 2),
            Kind::Ptmx => (S_IFCHR, makedev(AUXILIARY, 2), 1),
            Kind::Terminal(rdev, _) => (S_IFCHR, *rdev, u64::from(self.named.load(Ordering::Acquire))),
        };
        let stamps = *self.times.0.lock();
        let meta = self.meta.lock();
        Ok(Attributes {
            ino: self.ino,
            mode: kind | meta.mode,
            nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size: 0,
            blocks: 0,
            blksize: 1024,
            atime: stamps.accessed,
            mtime: stamps.modified,
            ctime: meta.changed,
            btime: self.created,
        })
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        let now = crate::time::now();
        let time = |update: TimeUpdate| match update {
            TimeUpdate::Now => now,
            TimeUpdate::At(time) => time,
        };
        let mut meta = self.meta.lock();
        meta.mode = set.mode.unwrap_or(meta.mode);
        meta.uid = set.uid.unwrap_or(meta.uid);
        meta.gid = set.gid.unwrap_or(meta.gid);
        meta.changed = now;
        let mut stamps = self.times.0.lock();
        stamps.accessed = set.atime.map_or(stamps.accessed, time);
        stamps.modified = set.mtime.map_or(stamps.modified, time);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Kind::Root(instance, ptmx) = &self.kind else { return Err(Errno::ENOTDIR) };
        if name == b"ptmx" {
            return Ok(ptmx.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        let numbers = instance.numbers.lock();
        let node = numbers.get(&index).and_then(Option::as_ref).filter(|_| index.to_string() == text);
        Ok(node.ok_or(Errno::ENOENT)?.clone())
    }

    fn lookups_cacheable(&self) -> bool {
        false
    }

    fn create(&self, _name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        // There is no creating anything but by opening ptmx.
        Err(if new.kind == NewKind::Regular { Errno::EACCES } else { Errno::EPERM })
    }

    fn open(&self, _io: &Io<'_>, path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match &self.kind {
            Kind::Root(instance, _) => {
                let dentry = path.dentry().clone();
                Ok(Arc::new(Directory { instance: instance.clone(), dentry }))
            }
            _ => Err(Errno::ENXIO),
        }
    }
}

/// The root, open.
struct Directory {
    instance: Arc<Instance>,
    dentry: Arc<Dentry>,
}

impl FileOps for Directory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn crate::vfs::Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn read_dir(&self, _io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let parent = self.dentry.parent().map_or(ROOT, |parent| parent.inode().ino());
        let fixed = [
            (&b"."[..], ROOT, FileType::Directory),
            (b"..", parent, FileType::Directory),
            (b"ptmx", PTMX, FileType::CharDevice),
        ];
        let mut at = offset;
        for (position, (name, ino, file_type)) in (0u64..).zip(fixed) {
            if position >= at {
                if !sink.entry(position + 1, ino, file_type, name) {
                    return Ok(at);
                }
                at = position + 1;
            }
        }
        // The offset of a terminal is its inode number.
        let first = u32::try_from(at - FIRST).unwrap_or(u32::MAX);
        let numbers = self.instance.numbers.lock();
        for (index, _) in numbers.range(first..).filter(|(_, node)| node.is_some()) {
            let ino = FIRST + u64::from(*index);
            if !sink.entry(ino + 1, ino, FileType::CharDevice, index.to_string().as_bytes()) {
                return Ok(at);
            }
            at = ino + 1;
        }
        Ok(at)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }
}
