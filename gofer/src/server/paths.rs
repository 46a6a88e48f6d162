//! How names and nodes become paths that the kernel takes.

use crate::host;
use crate::protocol::NAME_MAX;
use abi::{Errno, Result};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A NUL-terminated string of limited length, kept in place.
pub struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    /// The parts one after the other. ENAMETOOLONG if they are too long, EINVAL with a NUL.
    pub fn new(parts: &[&[u8]]) -> Result<Short<N>> {
        let mut string = Short { bytes: [0; N], len: 0 };
        for part in parts {
            let end = string.len.saturating_add(part.len());
            // One byte stays for the NUL.
            if end >= N {
                return Err(Errno::ENAMETOOLONG);
            }
            string.bytes.get_mut(string.len..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
            string.len = end;
        }
        CStr::from_bytes_with_nul(string.with_nul()).map_err(|_| Errno::EINVAL)?;
        Ok(string)
    }

    fn with_nul(&self) -> &[u8] {
        self.bytes.get(..=self.len).unwrap_or(&[0])
    }

    /// The string.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(self.with_nul()).unwrap_or(c"")
    }
}

/// The name of a directory entry.
pub type Name = Short<{ NAME_MAX + 1 }>;
/// The path of a descriptor's entry in the directory of descriptors.
pub type Link = Short<32>;

/// What is possible on this host.
pub struct Paths {
    /// openat2(2) can be used.
    pub openat2: bool,
    /// What to put in front of a descriptor's number to get a path to what it names.
    prefix: Option<&'static [u8]>,
}

impl Default for Paths {
    fn default() -> Self {
        Paths { openat2: true, prefix: None }
    }
}

impl Paths {
    /// Finds out what is possible, with a root. ENOSYS if no link of a descriptor can be reached: /proc is missing.
    pub fn probe(&mut self, root: BorrowedFd<'_>) -> Result<()> {
        if self.prefix.is_some() {
            return Ok(());
        }
        let identity = |of: &libc::statx| (of.stx_ino, of.stx_dev_major, of.stx_dev_minor, of.stx_mode);
        let is = identity(&host::statx(root)?);
        let mut prefixes = [&b""[..], b"/proc/self/fd/"].into_iter();
        self.prefix = prefixes.find(|prefix| {
            let found = link(prefix, root).and_then(|path| host::statx_path(path.as_c_str()));
            found.is_ok_and(|found| identity(&found) == is)
        });
        if self.prefix.is_none() {
            return Err(Errno::ENOSYS);
        }
        // A seccomp filter around us may say EPERM for calls that it does not know.
        let missing = [Errno::ENOSYS, Errno::EPERM];
        self.openat2 = match host::openat2(root, c"never-there", libc::O_PATH | libc::O_CLOEXEC, 0) {
            Ok(_) => true,
            Err(error) => !missing.contains(&error),
        };
        Ok(())
    }

    /// A path that leads to exactly what `fd` names, when followed.
    pub fn link(&self, fd: BorrowedFd<'_>) -> Result<Link> {
        link(self.prefix.ok_or(Errno::ENOSYS)?, fd)
    }

    /// Opens an entry of a directory, never through a symbolic link. The name has been checked: it is one component,
    /// or `.`.
    pub fn open_at(&self, directory: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        if self.openat2 {
            host::openat2(directory, name, flags, mode)
        } else {
            host::openat(directory, name, flags, mode)
        }
    }

    /// An `O_PATH` descriptor of an entry of a directory, whatever it is. The name has been checked.
    pub fn look_up(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
        self.open_at(directory, Name::new(&[name])?.as_c_str(), libc::O_PATH, 0)
    }

    /// A directory to read from, for an `O_PATH` descriptor.
    pub fn open_directory(&self, directory: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.open_at(directory, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
    }

    /// Opens once more, otherwise, what `fd` names.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd> {
        host::openat(nix::fcntl::AT_FDCWD, self.link(fd)?.as_c_str(), flags | libc::O_CLOEXEC, 0)
    }
}

fn link(prefix: &[u8], fd: BorrowedFd<'_>) -> Result<Link> {
    let mut digits = [0; 10];
    let mut rest = fd.as_raw_fd().unsigned_abs();
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    Link::new(&[prefix, digits.get(start..).unwrap_or(&[])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn links_lead_to_descriptors() {
        let root = std::fs::File::open("/").unwrap();
        let mut paths = Paths::default();
        assert_eq!(paths.link(root.as_fd()).err(), Some(Errno::ENOSYS));
        paths.probe(root.as_fd()).unwrap();
        let number = root.as_raw_fd();
        assert_eq!(
            paths.link(root.as_fd()).unwrap().as_c_str().to_str().unwrap(),
            format!("/proc/self/fd/{number}")
        );
        assert_eq!(link(b"", nix::fcntl::AT_FDCWD).unwrap().as_c_str(), c"100");
    }

    #[test]
    fn short_strings_are_bounded() {
        assert_eq!(Short::<4>::new(&[b"ab", b"c"]).unwrap().as_c_str(), c"abc");
        assert_eq!(Short::<4>::new(&[b"ab", b"cd"]).err(), Some(Errno::ENAMETOOLONG));
        assert_eq!(Short::<4>::new(&[b"a\0"]).err(), Some(Errno::EINVAL));
        assert_eq!(Name::new(&[&[b'x'; 255]]).unwrap().as_c_str().count_bytes(), 255);
    }
}
