//! The names of POSIX message queues (the mqueue filesystem of ipc/mqueue.c). There is one filesystem for each IPC
//! namespace, however often it is mounted.
//!
//! Lock order: the directory's entries → an inode's metadata.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::resource::RLIMIT_MSGQUEUE;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::ipc::IpcNamespace;
use crate::ipc::mqueue::{Queue, QueueBytes, Size};
use crate::parameters::MQUEUE_QUEUES_MAX;
use crate::task::{CurrentTask, Task};
use crate::vfs::io::put_slice;
use crate::vfs::permission::{self, EXEC, WRITE};
use crate::vfs::{
    Attributes, DirSink, FileOps, FileSystem, FsStatus, Inode, Io, Mount, MountFlags, NewInode, NewKind,
    Path, SetAttributes, Sink, SuperBlock, TimeUpdate, notify, operations,
};
use crate::wait::WaitQueue;

/// MQUEUE_MAGIC
const MAGIC: u64 = 0x1980_0202;

/// Sizes that stat(2) shows: of a queue, and of the directory for each name (FILENT_SIZE, DIRENT_SIZE).
const FILE_SIZE: u64 = 80;
const ENTRY_SIZE: u64 = 20;

/// RLIMIT_MSGQUEUE of those who make a queue with open(2), whose limit is not at hand here (MQ_BYTES_MAX).
const LIMIT: u64 = 819_200;

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
    btime: Timespec,
}

impl Meta {
    fn new(mode: u32, uid: u32, gid: u32) -> Mutex<Meta> {
        let now = crate::time::now();
        Mutex::new(Meta { mode, uid, gid, atime: now, mtime: now, ctime: now, btime: now })
    }

    fn attributes(&self, ino: u64, file_type: FileType, nlink: u64, size: u64) -> Attributes {
        Attributes {
            ino,
            mode: file_type.mode() | self.mode,
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            size,
            blocks: 0,
            blksize: 4096,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }

    fn set(&mut self, set: &SetAttributes) {
        let now = crate::time::now();
        let time = |update| match update {
            TimeUpdate::Now => now,
            TimeUpdate::At(time) => time,
        };
        self.mode = set.mode.map_or(self.mode, |mode| mode & 0o7777);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        self.atime = set.atime.map_or(self.atime, time);
        self.mtime = set.mtime.map_or(self.mtime, time);
        self.ctime = now;
    }

    /// The contents of a directory have changed.
    fn modified(&mut self) {
        let now = crate::time::now();
        (self.atime, self.mtime, self.ctime) = (now, now, now);
    }
}

/// A queue's inode.
pub struct QueueInode {
    ino: u64,
    meta: Mutex<Meta>,
    linked: AtomicBool,
    queue: Arc<Queue>,
    directory: Weak<Directory>,
}

impl Drop for QueueInode {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.upgrade() {
            directory.entries.lock().queues -= 1;
        }
    }
}

impl Inode for QueueInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attributes(&self) -> Result<Attributes> {
        let nlink = u64::from(self.linked.load(Ordering::Relaxed));
        Ok(self.meta.lock().attributes(self.ino, FileType::Regular, nlink, FILE_SIZE))
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        self.meta.lock().set(set);
        Ok(())
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(QueueFile { queue: self.queue.clone() }))
    }
}

/// An open queue: what a message queue descriptor refers to.
pub struct QueueFile {
    /// The queue.
    pub queue: Arc<Queue>,
}

impl FileOps for QueueFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        put_slice(dst, self.queue.status(io.task).as_bytes(), offset)
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        self.queue.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue.changed)
    }

    fn flush(&self, io: &Io<'_>) -> Result<()> {
        if let Some(task) = io.task {
            self.queue.withdraw(&task.group.pid);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Entries {
    /// By their offset in a listing, which grows with time.
    list: BTreeMap<u64, (Vec<u8>, Arc<QueueInode>)>,
    next: u64,
    /// How many queues there are, with those that have no name any more.
    queues: u64,
}

impl Entries {
    fn find(&self, name: &[u8]) -> Option<(u64, &Arc<QueueInode>)> {
        self.list.iter().find(|(_, (n, _))| n == name).map(|(at, (_, inode))| (*at, inode))
    }
}

/// The one directory.
struct Directory {
    me: Weak<Directory>,
    meta: Mutex<Meta>,
    entries: Mutex<Entries>,
    namespace: Weak<IpcNamespace>,
    bytes: Arc<QueueBytes>,
}

/// The directory's inode number; those of queues follow.
const ROOT_INO: u64 = 1;

impl Directory {
    /// Makes a queue. ENOSPC for too many, EMFILE for too much memory, EINVAL for a bad size, EACCES once the
    /// namespace is gone.
    fn add(
        &self,
        name: &[u8],
        new: &NewInode,
        privileged: bool,
        limit: u64,
        size: impl FnOnce(&IpcNamespace) -> Result<Size>,
    ) -> Result<Arc<QueueInode>> {
        let namespace = self.namespace.upgrade().ok_or(Errno::EACCES)?;
        let max = MQUEUE_QUEUES_MAX.get(&namespace.parameters) as u64;
        let mut entries = self.entries.lock();
        if entries.queues >= max && !privileged {
            return Err(Errno::ENOSPC);
        }
        if entries.find(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let queue = Queue::new(&self.bytes, new.uid, size(&namespace)?, limit)?;
        let at = entries.next;
        entries.next += 1;
        entries.queues += 1;
        let inode = Arc::new(QueueInode {
            ino: ROOT_INO + 1 + at,
            meta: Meta::new(new.mode & 0o7777, new.uid, new.gid),
            linked: AtomicBool::new(true),
            queue: Arc::new(queue),
            directory: self.me.clone(),
        });
        entries.list.insert(at, (name.to_vec(), inode.clone()));
        self.meta.lock().modified();
        Ok(inode)
    }
}

impl Inode for Directory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        ROOT_INO
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attributes(&self) -> Result<Attributes> {
        let size = (self.entries.lock().list.len() as u64 + 2) * ENTRY_SIZE;
        Ok(self.meta.lock().attributes(ROOT_INO, FileType::Directory, 2, size))
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        self.meta.lock().set(set);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let entries = self.entries.lock();
        let (_, inode) = entries.find(name).ok_or(Errno::ENOENT)?;
        Ok(inode.clone())
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        if new.kind != NewKind::Regular {
            return Err(Errno::EPERM);
        }
        Ok(self.add(name, new, false, LIMIT, |ns| Ok(Size::default_in(ns)))?)
    }

    fn unlink(&self, name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        let mut entries = self.entries.lock();
        let at = entries.find(name).ok_or(Errno::ENOENT)?.0;
        let removed = entries.list.remove(&at);
        self.meta.lock().modified();
        drop(entries);
        if let Some((_, inode)) = removed {
            inode.linked.store(false, Ordering::Relaxed);
            inode.meta.lock().ctime = crate::time::now();
        }
        Ok(())
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(Listing { directory: self.me.upgrade().ok_or(Errno::ENOENT)? }))
    }
}

/// The directory, open.
struct Listing {
    directory: Arc<Directory>,
}

impl FileOps for Listing {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn read_dir(&self, _io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let mut at = match sink.dots(offset, ROOT_INO, ROOT_INO) {
            Ok(at) => at,
            Err(full) => return Ok(full),
        };
        let entries = self.directory.entries.lock();
        for (position, (name, inode)) in entries.list.range(at.saturating_sub(2)..) {
            let next = position.saturating_add(3);
            if !sink.entry(next, inode.ino, FileType::Regular, name) {
                break;
            }
            at = next;
        }
        Ok(at)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }
}

struct MqueueFs {
    root: Arc<Directory>,
}

impl FileSystem for MqueueFs {
    fn name(&self) -> &'static str {
        "mqueue"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { magic: MAGIC, block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

/// The kernel's own mount of a namespace's queues, in which mq_open(2) finds them.
pub(crate) fn mount(namespace: Weak<IpcNamespace>, bytes: Arc<QueueBytes>) -> Arc<Mount> {
    let root = Arc::new_cyclic(|me| Directory {
        me: me.clone(),
        meta: Meta::new(0o1777, 0, 0),
        entries: Mutex::default(),
        namespace,
        bytes,
    });
    Mount::new(SuperBlock::make(Arc::new(MqueueFs { root })), MountFlags::empty(), b"mqueue")
}

fn root_of(task: &Task) -> Path {
    let mount = task.namespaces().ipc.queues.clone();
    let dentry = mount.root().clone();
    Path::new(mount, dentry)
}

/// EACCES for what is no name of a queue (lookup_one_len()).
fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ if name.len() > crate::vfs::walk::NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// mq_open(2); `name` is without the slash, `size` from the attributes if any were given.
pub fn open(
    task: &CurrentTask,
    name: &[u8],
    flags: OpenFlags,
    mode: u32,
    attributes: Option<abi::ipc::MqAttr>,
) -> Result<Arc<crate::vfs::File>> {
    use OpenFlags as O;
    check_name(name)?;
    let root = root_of(task);
    let dir = root.dentry();
    let access = O::O_RDWR | O::O_WRONLY;
    let opening = flags & (access | O::O_NONBLOCK);
    let mut children = dir.lock();
    let (dentry, created) = match dir.lookup_locked(&mut children, name) {
        Ok((dentry, _)) => {
            if flags.contains(O::O_CREAT | O::O_EXCL) {
                return Err(Errno::EEXIST);
            }
            if flags.contains(access) {
                return Err(Errno::EINVAL);
            }
            (dentry, false)
        }
        Err(Errno::ENOENT) if flags.contains(O::O_CREAT) => {
            let creds = task.credentials();
            permission::check(&creds, root.mount(), &**root.inode(), WRITE | EXEC)?;
            let privileged = task.capable(abi::capability::CAP_SYS_RESOURCE);
            let new = NewInode {
                kind: NewKind::Regular,
                mode: mode & 0o7777 & !task.fs().umask(),
                uid: creds.fsuid,
                gid: creds.fsgid,
            };
            let limit = task.group.limits.current(RLIMIT_MSGQUEUE);
            let directory = dir.inode_as::<Directory>().ok_or(Errno::EIO)?;
            let inode = directory.add(name, &new, privileged, limit, |ns| match &attributes {
                Some(attributes) => Size::from_attributes(attributes, ns, privileged),
                None => Ok(Size::default_in(ns)),
            })?;
            (dir.insert(&mut children, name, inode), true)
        }
        Err(e) => return Err(e),
    };
    drop(children);
    if created {
        dentry.keep();
        notify::created(dir, name, &dentry);
    }
    operations::open_found(task, Path::new(root.mount().clone(), dentry), opening, created)
}

/// mq_unlink(2).
pub fn unlink(task: &CurrentTask, name: &[u8]) -> Result<()> {
    check_name(name)?;
    operations::unlink(task, Some(&root_of(task)), name, false)
}
