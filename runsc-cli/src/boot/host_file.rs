//! Files of the host that a container is given: standard input, output and error.
//!
//! A read or write goes to the host at once and never waits: pipes and terminals come with descriptions of their own
//! that do not block (see `console`); where that was not possible, RWF_NOWAIT or a look beforehand must do. One
//! thread waits for all of them, edge-triggered, so that it sleeps unless something happens.
//!
//! A terminal of the host that is not the container's console keeps its own line discipline and its own session.

use std::any::Any;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::MsgFlags;
use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;
use sentry::task::CurrentTask;
use sentry::vfs::{
    Attributes, Dentry, File, FileOps, FileSystem, FsStatus, Inode, Io, Mount, MountFlags, Path,
    SetAttributes, Sink, Source, SuperBlock,
};
use sentry::wait::WaitQueue;

/// The most that is carried at once, in bytes.
const CHUNK: usize = 64 << 10;
/// What a pipe or terminal that says that it can be written takes without waiting, in bytes (PIPE_BUF).
const SMALL: usize = 4096;

/// The files of the host in one sandbox.
pub struct HostFiles {
    mount: Arc<Mount>,
    watcher: Arc<Watcher>,
    next_ino: AtomicU64,
}

impl HostFiles {
    /// Starts the thread that waits for them.
    pub fn new() -> anyhow::Result<HostFiles> {
        let root = SuperBlock::make(Arc::new(HostFs));
        Ok(HostFiles {
            mount: Mount::new(root, MountFlags::empty(), b"none"),
            watcher: Watcher::start()?,
            next_ino: AtomicU64::new(2),
        })
    }

    /// Makes open files of descriptors; those that are the same open file on the host are the same here, so that they
    /// share an offset.
    pub fn open(&self, fds: Vec<OwnedFd>) -> Result<Vec<Arc<File>>> {
        let mut open: Vec<(Arc<File>, Arc<OwnedFd>)> = Vec::new();
        for fd in fds {
            let same = open.iter().find(|(_, other)| same_description(other, &fd)).cloned();
            open.push(match same {
                Some(same) => same,
                None => self.open_one(fd)?,
            });
        }
        Ok(open.into_iter().map(|(file, _)| file).collect())
    }

    /// Who waits for them.
    pub fn watcher(&self) -> Arc<Watcher> {
        self.watcher.clone()
    }

    fn open_one(&self, fd: OwnedFd) -> Result<(Arc<File>, Arc<OwnedFd>)> {
        let fd = Arc::new(fd);
        let host = HostFile::new(fd.clone(), &self.watcher)?;
        // SAFETY: F_GETFL takes no argument.
        let flags = nix::errno::Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
        let flags = OpenFlags::from_bits_truncate(flags as u32)
            & (OpenFlags::O_WRONLY | OpenFlags::O_RDWR | OpenFlags::O_APPEND);
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        let inode = Arc::new(HostInode { ino, file: Some(host.clone()) });
        let dentry = Dentry::anonymous(self.mount.superblock(), inode, b"");
        if let Some(position) = host.position()? {
            let file = File::new(host, Path::new(self.mount.clone(), dentry), flags);
            *file.position() = position;
            return Ok((file, fd));
        }
        Ok((File::new(host, Path::new(self.mount.clone(), dentry), flags), fd))
    }
}

/// Whether two descriptors share an offset. Only asked of regular files, where it matters.
fn same_description(one: &OwnedFd, other: &OwnedFd) -> bool {
    let id = |fd: &OwnedFd| {
        let stat = nix::sys::stat::fstat(fd).ok()?;
        let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let at = lseek(fd, 0, Whence::SeekCur).ok()?;
        regular.then_some((stat.st_dev, stat.st_ino, at))
    };
    let (Some(a), Some(b)) = (id(one), id(other)) else { return false };
    if a != b {
        return false;
    }
    // Where one goes, the other goes, too: kcmp(2) would be for others to abuse.
    let Ok(moved) = lseek(one, 1, Whence::SeekCur) else { return false };
    let followed = lseek(other, 0, Whence::SeekCur) == Ok(moved);
    let _ = lseek(one, a.2, Whence::SeekSet);
    followed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    Directory,
    Terminal,
    Socket,
    /// Pipes, and devices that are no terminals.
    Stream,
}

/// An open file of the host.
pub struct HostFile {
    fd: Arc<OwnedFd>,
    kind: Kind,
    /// Reads and writes of this description do not wait.
    nonblocking: bool,
    queue: Option<WaitQueue>,
    /// Offset and data move together.
    moving: Mutex<()>,
}

impl HostFile {
    fn new(fd: Arc<OwnedFd>, watcher: &Arc<Watcher>) -> Result<Arc<HostFile>> {
        let stat = nix::sys::stat::fstat(&*fd)?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFBLK => Kind::Regular,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR if nix::unistd::isatty(&*fd).unwrap_or(false) => Kind::Terminal,
            _ => Kind::Stream,
        };
        // SAFETY: F_GETFL takes no argument.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        let nonblocking = flags >= 0 && flags & libc::O_NONBLOCK != 0;
        let queue = match kind {
            Kind::Regular | Kind::Directory => None,
            _ => watcher.watch(&fd)?,
        };
        Ok(Arc::new(HostFile { fd, kind, nonblocking, queue, moving: Mutex::default() }))
    }

    /// Where the next read or write of a regular file is.
    fn position(&self) -> Result<Option<u64>> {
        match self.kind {
            Kind::Regular => Ok(Some(lseek(&*self.fd, 0, Whence::SeekCur)? as u64)),
            _ => Ok(None),
        }
    }

    /// What poll(2) says of it now.
    fn ready(&self, events: PollEvents) -> PollEvents {
        let mut entry = libc::pollfd { fd: self.fd.as_raw_fd(), events: events.bits() as i16, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        let n = unsafe { libc::poll(&raw mut entry, 1, 0) };
        if n > 0 { PollEvents::from_bits_truncate(entry.revents as u16 as u32) } else { PollEvents::empty() }
    }

    fn read_now(&self, buf: &mut [u8]) -> Result<usize> {
        if self.kind == Kind::Socket {
            return Ok(nix::sys::socket::recv(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT)?);
        }
        if !self.nonblocking {
            let part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
            // SAFETY: the part is `buf`, which is borrowed exclusively.
            let rc = unsafe { libc::preadv2(self.fd.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
            match nix::errno::Errno::result(rc) {
                Err(nix::errno::Errno::EOPNOTSUPP) => {}
                result => return Ok(result? as usize),
            }
            if self.ready(PollEvents::POLLIN).is_empty() {
                return Err(Errno::EAGAIN);
            }
        }
        Ok(nix::unistd::read(&*self.fd, buf)?)
    }

    fn write_now(&self, buf: &[u8]) -> Result<usize> {
        if self.kind == Kind::Socket {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            return Ok(nix::sys::socket::send(self.fd.as_raw_fd(), buf, flags)?);
        }
        if self.nonblocking {
            return Ok(nix::unistd::write(&*self.fd, buf)?);
        }
        let part = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
        // SAFETY: the part is `buf`, which is only read.
        let rc = unsafe { libc::pwritev2(self.fd.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
        match nix::errno::Errno::result(rc) {
            Err(nix::errno::Errno::EOPNOTSUPP) => {}
            result => return Ok(result? as usize),
        }
        if self.ready(PollEvents::POLLOUT).is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(nix::unistd::write(&*self.fd, buf.get(..SMALL).unwrap_or(buf))?)
    }

    /// An ioctl that the host carries out on a structure of `N` bytes, read from and written to guest memory.
    fn pass<const N: usize>(
        &self,
        task: &CurrentTask,
        request: u32,
        arg: u64,
        reads: bool,
        writes: bool,
    ) -> Result<u64> {
        let mut data = [0u8; N];
        if reads {
            task.mm().read_bytes(arg, &mut data)?;
        }
        // SAFETY: the requests passed here use a structure of N bytes at most.
        let rc = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::c_ulong::from(request), data.as_mut_ptr()) };
        nix::errno::Errno::result(rc)?;
        if writes {
            task.mm().write_bytes(arg, &data)?;
        }
        Ok(0)
    }
}

/// Bytes of the kernel's struct termios.
const TERMIOS: usize = 36;

impl FileOps for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        self.kind == Kind::Regular
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        if self.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        let mut buf = vec![0; dst.remaining().min(CHUNK)];
        if buf.is_empty() {
            return Ok(0);
        }
        let n = if self.kind == Kind::Regular {
            let _moving = self.moving.lock();
            // The host's offset moves along: whoever gets the file after us goes on there.
            lseek(&*self.fd, offset_of(offset)?, Whence::SeekSet)?;
            nix::unistd::read(&*self.fd, &mut buf)?
        } else {
            self.read_now(&mut buf)?
        };
        dst.put(buf.get(..n).unwrap_or_default())
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        let mut buf = vec![0; src.remaining().min(CHUNK)];
        let taken = src.take(&mut buf)?;
        buf.truncate(taken);
        let result = if self.kind == Kind::Regular {
            let _moving = self.moving.lock();
            let whence =
                if io.append { lseek(&*self.fd, 0, Whence::SeekEnd) } else { Ok(offset_of(*offset)?) };
            let start = whence.and_then(|at| lseek(&*self.fd, at, Whence::SeekSet))?;
            nix::unistd::write(&*self.fd, &buf).map_err(Errno::from).inspect(|n| {
                // A host description with O_APPEND writes elsewhere.
                let end = lseek(&*self.fd, 0, Whence::SeekCur).unwrap_or(start + *n as i64);
                *offset = (end - *n as i64).max(0) as u64;
            })
        } else {
            self.write_now(&buf)
        };
        match result {
            Ok(n) => {
                src.untake(taken.saturating_sub(n));
                Ok(n)
            }
            Err(error) => {
                src.untake(taken);
                if error == Errno::EPIPE
                    && let Some(task) = io.task
                {
                    task.group.send_kernel_signal_to_task(task, Signal::SIGPIPE);
                }
                Err(error)
            }
        }
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let all = PollEvents::POLLIN | PollEvents::POLLOUT | PollEvents::POLLRDNORM | PollEvents::POLLWRNORM;
        match self.queue {
            None => all,
            Some(_) => self.ready(all | PollEvents::POLLPRI),
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.queue.as_ref()
    }

    fn seek(&self, whence: u32, offset: i64) -> Result<u64> {
        let whence = match whence {
            2 => Whence::SeekEnd,
            3 => Whence::SeekData,
            4 => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        let _moving = self.moving.lock();
        Ok(lseek(&*self.fd, offset, whence)? as u64)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        if self.kind != Kind::Regular {
            return Err(Errno::EINVAL);
        }
        let result =
            if data_only { nix::unistd::fdatasync(&*self.fd) } else { nix::unistd::fsync(&*self.fd) };
        Ok(result?)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        if self.kind != Kind::Regular {
            return Err(Errno::EINVAL);
        }
        Ok(nix::unistd::ftruncate(&*self.fd, offset_of(size)?)?)
    }

    fn ioctl(&self, task: &CurrentTask, _file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        use abi::tty;
        if request == abi::ioctl::FIONREAD
            && matches!(self.kind, Kind::Terminal | Kind::Stream | Kind::Socket)
        {
            return self.pass::<4>(task, request, arg, false, true);
        }
        if self.kind != Kind::Terminal {
            return Err(Errno::ENOTTY);
        }
        match request {
            tty::TCGETS => self.pass::<TERMIOS>(task, request, arg, false, true),
            tty::TCSETS | tty::TCSETSW | tty::TCSETSF => {
                self.pass::<TERMIOS>(task, request, arg, true, false)
            }
            tty::TIOCGWINSZ => self.pass::<8>(task, request, arg, false, true),
            tty::TIOCSWINSZ => self.pass::<8>(task, request, arg, true, false),
            tty::TIOCOUTQ => self.pass::<4>(task, request, arg, false, true),
            tty::TCFLSH => {
                // SAFETY: TCFLSH takes an integer.
                let rc = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TCFLSH, arg & 3) };
                nix::errno::Errno::result(rc)?;
                Ok(0)
            }
            // Output has gone to the host; what is left of it there is the host's affair.
            tty::TCSBRK | tty::TCSBRKP => Ok(0),
            // It is nobody's controlling terminal: those are consoles.
            tty::TIOCSCTTY => Err(Errno::EPERM),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn anonymous_name(&self) -> String {
        let stat = nix::sys::stat::fstat(&*self.fd);
        let (mode, device) = stat.map_or((0, 0), |stat| (stat.st_mode & libc::S_IFMT, stat.st_rdev));
        match mode {
            libc::S_IFIFO => "pipe:".to_string(),
            libc::S_IFSOCK => "socket:".to_string(),
            libc::S_IFCHR if device == libc::makedev(1, 3) => "/dev/null".to_string(),
            _ => format!("host:[{}]", self.fd.as_raw_fd()),
        }
    }
}

fn offset_of(offset: u64) -> Result<i64> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// What stat(2) says of it, and how `/proc/self/fd/N` opens it again.
struct HostInode {
    ino: u64,
    /// None for the root, which nobody sees.
    file: Option<Arc<HostFile>>,
}

impl Inode for HostInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn file_type(&self) -> FileType {
        match self.attributes() {
            Ok(attributes) => attributes.file_type(),
            Err(_) => FileType::Regular,
        }
    }

    fn attributes(&self) -> Result<Attributes> {
        let stat = match &self.file {
            Some(file) => nix::sys::stat::fstat(&*file.fd)?,
            None => {
                // SAFETY: all-zero is a valid stat.
                let mut stat: libc::stat = unsafe { std::mem::zeroed() };
                stat.st_mode = libc::S_IFDIR;
                stat
            }
        };
        let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        Ok(Attributes {
            ino: self.ino,
            mode: stat.st_mode,
            nlink: 1,
            // The host's ids mean nothing inside, and whoever was given a file may open it again.
            uid: 0,
            gid: 0,
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            btime: time(stat.st_ctime, stat.st_ctime_nsec),
        })
    }

    fn set_attributes(&self, set: &SetAttributes) -> Result<()> {
        match (set, &self.file) {
            (SetAttributes { size: Some(size), .. }, Some(file)) => file.truncate(*size),
            _ => Err(Errno::EPERM),
        }
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let file = self.file.as_ref().ok_or(Errno::ENXIO)?;
        // SAFETY: F_GETFL takes no argument.
        let host = nix::errno::Errno::result(unsafe { libc::fcntl(file.fd.as_raw_fd(), libc::F_GETFL) })?;
        let host = OpenFlags::from_bits_truncate(host as u32);
        // No more than the description that we have permits.
        if flags.writable() && !host.writable() || flags.readable() && !host.readable() {
            return Err(Errno::EACCES);
        }
        Ok(file.clone())
    }

    fn opens_special(&self) -> bool {
        true
    }

    fn permission(&self, _creds: &sentry::task::Credentials, mask: u32) -> Result<()> {
        if mask & 1 != 0 { Err(Errno::EACCES) } else { Ok(()) }
    }
}

struct HostFs;

impl FileSystem for HostFs {
    fn name(&self) -> &'static str {
        "hostfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(HostInode { ino: 1, file: None })
    }

    fn status(&self) -> Result<FsStatus> {
        Ok(FsStatus { block_size: 4096, name_max: 255, ..FsStatus::default() })
    }
}

/// Tells wait queues of what happens to files of the host, as long as somebody waits.
///
/// Lock order: `Watcher::queues`, then `Watched::listens`.
pub struct Watcher {
    epoll: Epoll,
    queues: Mutex<Queues>,
    next: AtomicU64,
}

#[derive(Default)]
struct Queues {
    by_key: HashMap<u64, Arc<Watched>>,
    /// How many there were when those of closed files were last swept out.
    swept: usize,
}

/// A file of the host in the watcher's epoll set.
struct Watched {
    key: u64,
    fd: Weak<OwnedFd>,
    queue: WaitQueue,
    /// The set has its events. Else nobody has waited since the last.
    listens: Mutex<bool>,
}

/// All events, each change once.
const CHANGES: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

impl Watched {
    /// Somebody has registered: what happens from now on, and what has happened already, is told.
    fn listen(&self, epoll: &Epoll) {
        let mut listens = self.listens.lock();
        if !*listens && self.set(epoll, CHANGES) {
            *listens = true;
        }
    }

    fn happened(&self, epoll: &Epoll, events: EpollFlags) {
        {
            let mut listens = self.listens.lock();
            // Whoever registers after this look calls `listen`, which waits for the lock. Errors and the end are told
            // in any case, but no more than once.
            if self.queue.is_empty() {
                if *listens && self.set(epoll, EpollFlags::EPOLLET) {
                    *listens = false;
                }
                return;
            }
        }
        self.queue.notify(PollEvents::from_bits_truncate(events.bits() as u32));
    }

    fn set(&self, epoll: &Epoll, flags: EpollFlags) -> bool {
        let Some(fd) = self.fd.upgrade() else { return false };
        epoll.modify(&*fd, &mut EpollEvent::new(flags, self.key)).is_ok()
    }
}

impl Watcher {
    fn start() -> anyhow::Result<Arc<Watcher>> {
        let watcher = Arc::new(Watcher {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            queues: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let of_thread = watcher.clone();
        std::thread::Builder::new().name("host-files".into()).spawn(move || of_thread.run())?;
        Ok(watcher)
    }

    /// A queue that is notified when the readiness of `fd` changes; None for files that are always ready.
    fn watch(self: &Arc<Watcher>, fd: &Arc<OwnedFd>) -> Result<Option<WaitQueue>> {
        let queue = WaitQueue::new();
        match self.tell(fd, queue.clone()) {
            Ok(()) => Ok(Some(queue)),
            Err(Errno::EPERM) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Notifies `queue` when the readiness of `fd` changes, for as long as it is open. EPERM for files that are always
    /// ready.
    pub fn tell(self: &Arc<Watcher>, fd: &Arc<OwnedFd>, queue: WaitQueue) -> Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let mut queues = self.queues.lock();
        // Closed descriptors leave the epoll set by themselves; here they are swept out once they may be the most.
        if queues.by_key.len() > 2 * queues.swept + 16 {
            queues.by_key.retain(|_, watched| watched.fd.strong_count() > 0);
            queues.swept = queues.by_key.len();
        }
        self.epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLET, key))?;
        let watched = Arc::new(Watched {
            key,
            fd: Arc::downgrade(fd),
            queue: queue.clone(),
            listens: Mutex::new(false),
        });
        queues.by_key.insert(key, watched.clone());
        drop(queues);
        let watcher = self.clone();
        let weak = Arc::downgrade(&watched);
        queue.on_wait(move || {
            if let Some(watched) = weak.upgrade() {
                watched.listen(&watcher.epoll);
            }
        });
        Ok(())
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let n = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!("waiting for files of the host: {errno}");
                    return;
                }
            };
            for event in events.iter().take(n) {
                let watched = self.queues.lock().by_key.get(&event.data()).cloned();
                if let Some(watched) = watched {
                    watched.happened(&self.epoll, event.events());
                }
            }
        }
    }
}
