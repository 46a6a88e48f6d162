//! Random sequences of changes, made through the gofer in one directory and directly in another one: outcomes and
//! results must be the same.

use crate::serving::{Serving, WAYS, superuser};
use abi::{Errno, Result};
use gofer::client::{NewAttributes, NewInode};
use gofer::protocol::{FileKind, NodeId, OpenFlags, RenameFlags};
use gofer::{Client, MountFlags};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path below the root, of names out of a few.
type Place = Vec<u8>;

#[derive(Clone, Debug)]
enum Change {
    Create(Place, u32),
    Unnamed(Place, Place),
    Mkdir(Place, u32),
    Mknod(Place, FileKind),
    Symlink(Place, Place),
    Link(Place, Place),
    Unlink(Place, bool),
    Rename(Place, Place, u32),
    Chmod(Place, u32),
    Truncate(Place, u64),
    Write(Place, u8),
    SetXattr(Place, u8, u32),
    RemoveXattr(Place, u8),
}

fn name(n: u8) -> String {
    ["a", "b", "c", "long-name-that-is-not-inline-anywhere"][usize::from(n % 4)].into()
}

fn path(root: &Path, place: &Place) -> PathBuf {
    place.iter().fold(root.to_path_buf(), |path, &n| path.join(name(n)))
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = || proptest::collection::vec(0u8..4, 1..4);
    let mode =
        || prop_oneof![Just(0o644), Just(0o755), Just(0o4755), Just(0o2777), Just(0o1700), 0u32..0o10000];
    let kind = prop_oneof![Just(FileKind::Regular), Just(FileKind::Fifo), Just(FileKind::Socket)];
    let change = prop_oneof![
        4 => (place(), mode()).prop_map(|(p, m)| Change::Create(p, m)),
        1 => (place(), place()).prop_map(|(p, q)| Change::Unnamed(p, q)),
        4 => (place(), mode()).prop_map(|(p, m)| Change::Mkdir(p, m)),
        2 => (place(), kind).prop_map(|(p, k)| Change::Mknod(p, k)),
        2 => (place(), place()).prop_map(|(p, q)| Change::Symlink(p, q)),
        3 => (place(), place()).prop_map(|(p, q)| Change::Link(p, q)),
        3 => (place(), any::<bool>()).prop_map(|(p, d)| Change::Unlink(p, d)),
        4 => (place(), place(), 0u32..4).prop_map(|(p, q, f)| Change::Rename(p, q, f)),
        2 => (place(), mode()).prop_map(|(p, m)| Change::Chmod(p, m)),
        2 => (place(), 0u64..100_000).prop_map(|(p, s)| Change::Truncate(p, s)),
        2 => (place(), any::<u8>()).prop_map(|(p, b)| Change::Write(p, b)),
        1 => (place(), 0u8..3, 0u32..3).prop_map(|(p, n, f)| Change::SetXattr(p, n, f)),
        1 => (place(), 0u8..3).prop_map(|(p, n)| Change::RemoveXattr(p, n)),
    ];
    proptest::collection::vec(change, 1..60)
}

fn ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn new(mode: u32) -> NewInode {
    let (uid, gid) = ids();
    NewInode { mode, uid, gid }
}

/// The node at a place, walked to as the kernel would without following symbolic links (ELOOP through one).
fn node(client: &Client, top: NodeId, place: &[u8]) -> Result<NodeId> {
    let names: Vec<String> = place.iter().map(|&n| name(n)).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let walked = client.walk(top, &names)?;
    match (walked.entries.last(), walked.error) {
        _ if names.is_empty() => Ok(top),
        (Some(last), None) if walked.entries.len() == names.len() => Ok(last.node),
        (_, Some(error)) => Err(error),
        _ => Err(Errno::ELOOP),
    }
}

fn parent(client: &Client, top: NodeId, place: &[u8]) -> Result<(NodeId, Vec<u8>)> {
    let (last, before) = place.split_last().ok_or(Errno::EINVAL)?;
    let directory = node(client, top, before)?;
    match client.attributes(directory)?.kind() {
        Some(FileKind::Directory) => Ok((directory, name(*last).into_bytes())),
        Some(FileKind::Symlink) => Err(Errno::ELOOP),
        _ => Err(Errno::ENOTDIR),
    }
}

fn through_gofer(client: &Client, top: NodeId, change: &Change) -> Result<()> {
    let at = |place: &Place| parent(client, top, place);
    let to = |place: &Place| node(client, top, place);
    match change {
        Change::Create(place, mode) => {
            let (directory, name) = at(place)?;
            client.create(directory, &name, OpenFlags::WRITE_ONLY, new(*mode)).map(drop)
        }
        Change::Unnamed(directory, place) => {
            let directory = to(directory)?;
            let file = client.create_unnamed(directory, OpenFlags::WRITE_ONLY, new(0o600))?;
            let (directory, name) = at(place)?;
            client.link(file.node, directory, &name).map(drop)
        }
        Change::Mkdir(place, mode) => {
            let (directory, name) = at(place)?;
            client.mkdir(directory, &name, new(*mode)).map(drop)
        }
        Change::Mknod(place, kind) => {
            let (directory, name) = at(place)?;
            client.mknod(directory, &name, *kind, new(0o640)).map(drop)
        }
        Change::Symlink(place, target) => {
            let (directory, name) = at(place)?;
            let target = path(Path::new(""), target);
            let (uid, gid) = ids();
            client.symlink(directory, &name, target.as_os_str().as_encoded_bytes(), uid, gid).map(drop)
        }
        Change::Link(from, place) => {
            let from = to(from)?;
            let (directory, name) = at(place)?;
            client.link(from, directory, &name).map(drop)
        }
        Change::Unlink(place, is_directory) => {
            let (directory, name) = at(place)?;
            client.unlink(directory, &name, *is_directory)
        }
        Change::Rename(from, place, flags) => {
            let (old, old_name) = at(from)?;
            let (new, new_name) = at(place)?;
            client.rename((old, &old_name), (new, &new_name), RenameFlags::from_bits_retain(*flags))
        }
        Change::Chmod(place, mode) => {
            let new = NewAttributes { mode: Some(*mode), ..NewAttributes::default() };
            client.set_attributes(to(place)?, &new).map(drop)
        }
        Change::Truncate(place, size) => {
            let new = NewAttributes { size: Some(*size), ..NewAttributes::default() };
            client.set_attributes(to(place)?, &new).map(drop)
        }
        Change::Write(place, byte) => {
            let (_, file) = client.open(to(place)?, OpenFlags::WRITE_ONLY | OpenFlags::APPEND)?;
            Ok(File::from(file).write_all(&[*byte; 10])?)
        }
        Change::SetXattr(place, n, flags) => {
            client.set_xattr(to(place)?, format!("user.{n}").as_bytes(), &[*n; 5], *flags)
        }
        Change::RemoveXattr(place, n) => client.remove_xattr(to(place)?, format!("user.{n}").as_bytes()),
    }
}

/// What openat2 says of a place without following symbolic links, as a descriptor's path.
fn direct_path(root: &File, place: &[u8]) -> Result<PathBuf> {
    let path = path(Path::new("./"), &place.to_vec());
    let how = nix::fcntl::OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(nix::fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS);
    let fd = nix::fcntl::openat2(root, &path, how)?;
    Ok(fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))?)
}

fn direct_parent(root: &File, place: &[u8]) -> Result<PathBuf> {
    let (last, before) = place.split_last().ok_or(Errno::EINVAL)?;
    let path = direct_path(root, before)?;
    let kind = fs::symlink_metadata(&path)?.file_type();
    if kind.is_symlink() {
        return Err(Errno::ELOOP);
    }
    if !kind.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    Ok(path.join(name(*last)))
}

fn directly(root: &File, change: &Change) -> Result<()> {
    let at = |place: &Place| direct_parent(root, place);
    let to = |place: &Place| direct_path(root, place);
    let bits = Mode::from_bits_retain;
    let metadata =
        |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.mode() & nix::libc::S_IFMT);
    let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
    match change {
        Change::Create(place, mode) => Ok(nix::fcntl::open(&at(place)?, create, bits(*mode)).map(drop)?),
        Change::Unnamed(directory, place) => {
            let directory = to(directory)?;
            if metadata(&directory)? != nix::libc::S_IFDIR {
                return Err(Errno::ENOTDIR);
            }
            let file = nix::fcntl::open(&directory, OFlag::O_TMPFILE | OFlag::O_WRONLY, bits(0o600))?;
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
            Ok(nix::unistd::linkat(AT_FDCWD, link.as_str(), AT_FDCWD, &at(place)?, follow)?)
        }
        Change::Mkdir(place, mode) => Ok(nix::unistd::mkdir(&at(place)?, bits(*mode))?),
        Change::Mknod(place, kind) => {
            let kind = SFlag::from_bits_truncate(kind.mode_bits());
            Ok(nix::sys::stat::mknod(&at(place)?, kind, bits(0o640), 0)?)
        }
        Change::Symlink(place, target) => {
            let target = path(Path::new(""), target);
            Ok(nix::unistd::symlinkat(&target, AT_FDCWD, &at(place)?)?)
        }
        Change::Link(from, place) => {
            let (from, place) = (to(from)?, at(place)?);
            Ok(nix::unistd::linkat(AT_FDCWD, &from, AT_FDCWD, &place, nix::fcntl::AtFlags::empty())?)
        }
        Change::Unlink(place, true) => Ok(fs::remove_dir(at(place)?)?),
        Change::Unlink(place, false) => Ok(fs::remove_file(at(place)?)?),
        Change::Rename(from, place, flags) => {
            let flags = nix::fcntl::RenameFlags::from_bits_retain(*flags);
            Ok(nix::fcntl::renameat2(AT_FDCWD, &at(from)?, AT_FDCWD, &at(place)?, flags)?)
        }
        Change::Chmod(place, mode) => {
            let path = to(place)?;
            if metadata(&path)? == nix::libc::S_IFLNK {
                return Err(Errno::EOPNOTSUPP);
            }
            let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
            Ok(nix::sys::stat::fchmodat(AT_FDCWD, &path, bits(*mode), follow)?)
        }
        Change::Truncate(place, size) => {
            let path = to(place)?;
            if metadata(&path)? == nix::libc::S_IFLNK {
                return Err(Errno::EINVAL);
            }
            Ok(nix::unistd::truncate(&path, *size as i64)?)
        }
        Change::Write(place, byte) => {
            let path = to(place)?;
            match metadata(&path)? {
                nix::libc::S_IFLNK => return Err(Errno::ELOOP),
                nix::libc::S_IFREG | nix::libc::S_IFDIR => {}
                // Ours; Linux would open a fifo.
                _ => return Err(Errno::ENXIO),
            }
            Ok(fs::OpenOptions::new().append(true).open(path)?.write_all(&[*byte; 10])?)
        }
        Change::SetXattr(place, n, flags) => xattr(&to(place)?, *n, Some(*flags)),
        Change::RemoveXattr(place, n) => xattr(&to(place)?, *n, None),
    }
}

/// lsetxattr(2), or lremovexattr(2).
fn xattr(path: &Path, n: u8, flags: Option<u32>) -> Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let name = std::ffi::CString::new(format!("user.{n}")).unwrap();
    let value = [n; 5];
    // SAFETY: the strings are NUL-terminated, and the value has the length given.
    let done = unsafe {
        match flags {
            Some(flags) => {
                nix::libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 5, flags as i32)
            }
            None => nix::libc::lremovexattr(path.as_ptr(), name.as_ptr()),
        }
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// All that there is below a directory: mode, owner, links, size, contents or target; and which names are one inode.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let is = fs::symlink_metadata(&path).unwrap();
            let short = path.strip_prefix(root).unwrap().to_path_buf();
            let contents = match is.mode() & nix::libc::S_IFMT {
                nix::libc::S_IFREG => {
                    format!("{:?}", fs::read(&path).unwrap().iter().filter(|&&b| b != 0).count())
                }
                nix::libc::S_IFLNK => format!("{:?}", fs::read_link(&path).unwrap()),
                nix::libc::S_IFDIR => {
                    left.push(path);
                    String::new()
                }
                _ => String::new(),
            };
            let size = if is.is_dir() { 0 } else { is.size() };
            let (mode, uid, gid, links) = (is.mode(), is.uid(), is.gid(), is.nlink());
            let same_as = first.entry(is.ino()).or_insert_with(|| short.clone()).clone();
            found.insert(short, format!("{mode:o} {uid} {gid} {links} {size} {contents} {same_as:?}"));
        }
    }
    found
}

#[test]
fn random_changes_have_the_outcome_of_the_same_system_calls() {
    if !superuser("permissions that forbid a look at the outcome") {
        return;
    }
    nix::sys::stat::umask(Mode::empty());
    for how in WAYS {
        let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
        TestRunner::new(config)
            .run(&changes(), |changes| {
                let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let (serving, top) = Serving::directory(how, ours.path(), MountFlags::empty());
                let root = File::open(theirs.path()).unwrap();
                for change in &changes {
                    let (got, expected) =
                        (through_gofer(serving.client(), top, change), directly(&root, change));
                    assert_eq!(got, expected, "{how:?} {change:?}");
                }
                assert_eq!(snapshot(ours.path()), snapshot(theirs.path()));
                serving.finish();
                Ok(())
            })
            .unwrap();
    }
}
