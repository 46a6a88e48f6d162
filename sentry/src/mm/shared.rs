//! Memory that processes share, and files that live in memory: one host object each.
//!
//! A stub process may map whatever the fd permits, and it is the guest's to subvert; so the fd that it gets has just
//! the guest's access. Anonymous shared memory has one fd, for reading and writing: whoever has a mapping of it may
//! write. A file can be mapped by a process that may only read it, so a [`MemoryFile`] has a second fd opened
//! O_RDONLY; without that, mprotect(2) by a hijacked stub would give write access. A memfd can be opened anew only by
//! way of `/proc/self/fd`, which a confined sentry does not have. So files are made in a private tmpfs whose
//! directory the sentry is given at boot ([`set_directory`]): creating, opening again and unlinking need nothing but
//! that fd. Without a directory (in tests) they are memfds.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use platform::Prot;

use crate::vfs::{Mappable, ObjectId};
use crate::{Errno, Result};

static DIRECTORY: OnceLock<OwnedFd> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Gives the directory of a tmpfs of the sandbox's own, mounted nosuid and nodev but not noexec, without a size limit.
/// To be called once, at boot; a second call changes nothing.
pub fn set_directory(dir: OwnedFd) {
    let _ = DIRECTORY.set(dir);
}

/// Shared memory without a name: mmap(2) with MAP_SHARED and MAP_ANONYMOUS, and System V segments.
pub struct AnonymousShared {
    fd: Arc<OwnedFd>,
    object: ObjectId,
    zero_device: bool,
}

/// The size of a mapping of `/dev/zero`: more than fits into an address space.
const ZERO_DEVICE_SIZE: u64 = 1 << 48;

impl AnonymousShared {
    /// `len` bytes of zeroes. ENOMEM if the host has no more.
    pub fn new(len: u64) -> Result<Arc<AnonymousShared>> {
        let fd = memory_fd()?;
        set_len(&fd, len)?;
        // No file system has this device number.
        let object = ObjectId { dev: 0, ino: NEXT.fetch_add(1, Ordering::Relaxed) };
        Ok(Arc::new(AnonymousShared { fd: Arc::new(fd), object, zero_device: false }))
    }

    /// What one call of mmap(2) with `/dev/zero` maps.
    pub fn zero_device() -> Result<Arc<AnonymousShared>> {
        let mut shared = AnonymousShared::new(ZERO_DEVICE_SIZE)?;
        if let Some(shared) = Arc::get_mut(&mut shared) {
            shared.zero_device = true;
        }
        Ok(shared)
    }
}

impl Mappable for AnonymousShared {
    fn object(&self) -> ObjectId {
        self.object
    }

    fn host_fd(&self, _prot: Prot, _shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        Ok((self.fd.clone(), 0))
    }

    fn is_zero(&self) -> bool {
        self.zero_device
    }
}

fn memory_fd() -> Result<OwnedFd> {
    memfd_create("guest", MFdFlags::MFD_CLOEXEC).map_err(|errno| match errno.into() {
        Errno::EMFILE | Errno::ENFILE => Errno::ENOMEM,
        other => other,
    })
}

/// A host file without a byte that nobody can change. A private mapping of it faults with SIGBUS.
pub(super) fn empty_file() -> Result<&'static OwnedFd> {
    static EMPTY: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(fd) = EMPTY.get() {
        return Ok(fd);
    }
    let fd = memfd_create("empty", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(EMPTY.get_or_init(|| fd))
}

fn set_len(fd: &OwnedFd, len: u64) -> Result<()> {
    let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
    nix::unistd::ftruncate(fd, len)?;
    Ok(())
}

/// The contents of a file in memory.
pub struct MemoryFile {
    writable: Arc<OwnedFd>,
    readable: OnceLock<Arc<OwnedFd>>,
    /// Its name in the directory, while the second fd may still be asked for.
    name: Option<String>,
}

impl MemoryFile {
    /// An empty file.
    pub fn new() -> Result<MemoryFile> {
        let Some(dir) = DIRECTORY.get() else {
            let writable = Arc::new(memory_fd()?);
            return Ok(MemoryFile { writable, readable: OnceLock::new(), name: None });
        };
        let name = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(dir, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(MemoryFile { writable: Arc::new(fd), readable: OnceLock::new(), name: Some(name) })
    }

    /// The host file, for the sentry's own reads and writes (at offsets; it has no position of its own).
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.writable
    }

    /// Its length in bytes.
    pub fn len(&self) -> Result<u64> {
        Ok(u64::try_from(nix::sys::stat::fstat(&self.writable)?.st_size).unwrap_or(0))
    }

    /// True if it has no bytes.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Truncates or extends.
    pub fn set_len(&self, len: u64) -> Result<()> {
        set_len(&self.writable, len)
    }

    /// Reads at an offset; 0 at the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        Ok(nix::sys::uio::pread(&self.writable, buf, offset)?)
    }

    /// Writes at an offset, and extends the file if need be.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        Ok(nix::sys::uio::pwrite(&self.writable, buf, offset)?)
    }

    /// fallocate(2) with the flags of `falloc.h`.
    pub fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        nix::fcntl::fallocate(&self.writable, flags, offset, len)?;
        Ok(())
    }

    /// Bytes of memory that it takes up, in units of 512 (st_blocks).
    pub fn blocks(&self) -> Result<u64> {
        Ok(u64::try_from(nix::sys::stat::fstat(&self.writable)?.st_blocks).unwrap_or(0))
    }

    /// What [`Mappable::host_fd`] is to answer: for shared writable mappings the writable fd, for others one that
    /// can only be read.
    pub fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        if shared && prot.contains(Prot::WRITE) {
            return Ok((self.writable.clone(), 0));
        }
        if let Some(fd) = self.readable.get() {
            return Ok((fd.clone(), 0));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = match (&self.name, DIRECTORY.get()) {
            (Some(name), Some(dir)) => nix::fcntl::openat(dir, name.as_str(), flags, Mode::empty())?,
            _ => reopen(&self.writable, flags)?,
        };
        Ok((self.readable.get_or_init(|| Arc::new(fd)).clone(), 0))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let (Some(name), Some(dir)) = (&self.name, DIRECTORY.get())
            && let Err(error) = nix::unistd::unlinkat(dir, name.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            tracing::warn!(%error, "removing a file in memory");
        }
    }
}

/// Opens a file anew by way of proc.
fn reopen(fd: &OwnedFd, flags: OFlag) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(nix::fcntl::open(path.as_str(), flags, Mode::empty())?)
}
