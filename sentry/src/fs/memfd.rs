//! memfd_create(2) and file seals (mm/memfd.c).

use std::sync::Arc;

use abi::fcntl::{OpenFlags, Seals};
use abi::mman::{MFD_HUGE_MASK, MFD_HUGE_SHIFT, MemfdFlags};
use abi::{Errno, Result};

use super::tmpfs::{TmpFile, Tmpfs, TmpfsOptions};
use crate::task::Credentials;
use crate::vfs::{Dentry, File, Inode, Io, Mount, MountFlags, Path, SuperBlock};

/// The longest name: NAME_MAX less the prefix `memfd:`.
pub const NAME_MAX: usize = 249;

/// Where the files of memfd_create(2) live (the internal mount of shmem).
pub struct Memfds {
    fs: Arc<Tmpfs>,
    mount: Arc<Mount>,
}

impl Memfds {
    /// For a machine with `memory` bytes: all of them together take no more.
    pub fn new(memory: u64) -> Memfds {
        let mut options = TmpfsOptions::unlimited();
        options.size = memory;
        let fs = Tmpfs::new(&options);
        let mount = Mount::new(SuperBlock::make(fs.clone()), MountFlags::empty(), b"tmpfs");
        Memfds { fs, mount }
    }

    /// memfd_create(2); `raw` are the flags as given, `name` has no NUL. EINVAL for unknown flags and long names.
    ///
    /// MFD_HUGETLB is ENOSYS, as in a kernel without hugetlbfs.
    pub fn create(&self, creds: &Credentials, name: &[u8], raw: u32) -> Result<Arc<File>> {
        let size_bits = MFD_HUGE_MASK << MFD_HUGE_SHIFT;
        let huge = raw & MemfdFlags::MFD_HUGETLB.bits() != 0;
        let flags = MemfdFlags::from_bits(if huge { raw & !size_bits } else { raw }).ok_or(Errno::EINVAL)?;
        if flags.contains(MemfdFlags::MFD_EXEC | MemfdFlags::MFD_NOEXEC_SEAL) || name.len() > NAME_MAX {
            return Err(Errno::EINVAL);
        }
        if huge {
            return Err(Errno::ENOSYS);
        }
        let (mode, seals) = if flags.contains(MemfdFlags::MFD_NOEXEC_SEAL) {
            (0o666, Seals::F_SEAL_EXEC)
        } else if flags.contains(MemfdFlags::MFD_ALLOW_SEALING) {
            (0o777, Seals::empty())
        } else {
            (0o777, Seals::F_SEAL_SEAL)
        };
        let inode = self.fs.sealed_file(mode, creds.fsuid, creds.fsgid, seals)?;
        let label = [b"memfd:", name].concat();
        let dentry = Dentry::anonymous(self.mount.superblock(), inode.clone(), &label);
        let path = Path::new(self.mount.clone(), dentry);
        let flags = OpenFlags::O_RDWR | OpenFlags::O_LARGEFILE;
        let ops = inode.open(&Io::default(), &path, flags)?;
        Ok(File::new(ops, path, flags))
    }
}

fn sealable(file: &File) -> Result<&TmpFile> {
    file.ops::<TmpFile>().ok_or(Errno::EINVAL)
}

/// F_GET_SEALS. EINVAL for files that cannot have seals.
pub fn seals(file: &File) -> Result<Seals> {
    sealable(file).map(TmpFile::seals)
}

/// F_ADD_SEALS. EPERM for descriptors that cannot be written to and for files sealed against sealing, EINVAL for
/// unknown seals, EBUSY for F_SEAL_WRITE while there are shared writable mappings.
pub fn add_seals(file: &File, raw: u32) -> Result<()> {
    if !file.flags().writable() {
        return Err(Errno::EPERM);
    }
    let seals = Seals::from_bits(raw).ok_or(Errno::EINVAL)?;
    sealable(file)?.add_seals(seals)
}

/// Whether seals forbid shared mappings of this file that can be written to, now or after mprotect(2).
pub fn forbids_writable_mapping(file: &File) -> bool {
    seals(file).is_ok_and(|s| s.intersects(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE))
}
