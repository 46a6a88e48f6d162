use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use abi::Errno;
use abi::fcntl::{OpenFlags, RenameFlags};
use gofer::{MountFlags, MountRoot, channel_pair, serve};
use platform::Prot;
use proptest::prelude::*;

use super::*;
use crate::fs::testing::{HostTree, Listing, Mounted, compare, operation, read, write};
use crate::vfs::{Io, NewKind, SetAttributes};

/// A host directory and the filesystem over it, served by a thread.
fn served(access: Access, flags: MountFlags) -> (HostTree, Mounted) {
    let host = HostTree::new();
    let (ours, theirs) = channel_pair().unwrap();
    let fd: OwnedFd = std::fs::File::open(host.0.path()).unwrap().into();
    std::thread::spawn(move || serve(theirs, vec![MountRoot { fd, flags }]));
    let fs = GoferFs::new(Arc::new(Client::new(ours)), 0, access, b"").unwrap();
    (host, Mounted::new(fs))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_what_it_serves(operations in prop::collection::vec(operation(), 1..30), shared: bool) {
        let (_host, tree) = served(if shared { Access::Shared } else { Access::Exclusive }, MountFlags::empty());
        compare(&tree, &HostTree::new(), &operations, |_, _| false)?;
    }
}

#[test]
fn two_names_of_a_file_are_one_inode() {
    let (host, tree) = served(Access::Exclusive, MountFlags::empty());
    std::fs::write(host.0.path().join("a"), "x").unwrap();
    std::fs::hard_link(host.0.path().join("a"), host.0.path().join("b")).unwrap();
    let (a, b) = (tree.find("a").unwrap(), tree.find("b").unwrap());
    assert!(Arc::ptr_eq(a.inode(), b.inode()));
    let ino = std::fs::metadata(host.0.path().join("a")).unwrap().ino();
    assert_eq!((a.inode().ino(), a.inode().attributes().unwrap().nlink), (ino, 2));
    tree.remove("b", false).unwrap();
    assert_eq!(a.inode().attributes().unwrap().nlink, 1);
}

#[test]
fn exclusive_files_are_remembered_and_shared_ones_are_not() {
    for access in [Access::Exclusive, Access::Shared] {
        let (host, tree) = served(access, MountFlags::empty());
        let path = host.0.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let before = tree.stat("a").unwrap();
        assert_eq!(tree.find("b").map(drop), Err(Errno::ENOENT));
        std::fs::write(&path, "longer").unwrap();
        std::fs::write(host.0.path().join("b"), "").unwrap();
        let expected = if access == Access::Shared { 6 } else { before.size };
        assert_eq!(tree.stat("a").unwrap().size, expected);
        assert_eq!(tree.find("b").is_ok(), access == Access::Shared);
    }
}

#[test]
fn own_changes_are_seen_at_once() {
    let (_host, tree) = served(Access::Exclusive, MountFlags::empty());
    tree.create("d", NewKind::Directory, 0o700).unwrap();
    tree.create("d/a", NewKind::Regular, 0o600).unwrap();
    tree.stat("d").unwrap();
    tree.create("d/e", NewKind::Directory, 0o700).unwrap();
    assert_eq!(tree.stat("d").unwrap().nlink, 3);
    let file = tree.open("d/a", OpenFlags::O_RDWR).unwrap();
    write(&file, 5000, b"abc", false).unwrap();
    let stat = tree.stat("d/a").unwrap();
    assert_eq!((stat.size, stat.blocks), (5003, 8));
    // Appending by two descriptions, and where it went.
    let mut at = 0;
    let io = Io { append: true, ..Io::default() };
    let mut src = crate::vfs::io::SliceSource::new(b"def");
    assert_eq!(
        tree.open("d/a", OpenFlags::O_WRONLY).unwrap().operations().write(&io, &mut src, &mut at),
        Ok(3)
    );
    assert_eq!((at, tree.stat("d/a").unwrap().size), (5003, 5006));
    assert_eq!(&read(&file).unwrap()[5000..], b"abcdef");
    // Stores through a mapping.
    let (fd, _) = file.operations().mappable().unwrap().host_fd(Prot::READ | Prot::WRITE, true).unwrap();
    nix::sys::uio::pwrite(&fd, b"x", 9999).unwrap();
    assert_eq!(tree.stat("d/a").unwrap().size, 10000);
    let (fd, _) = file.operations().mappable().unwrap().host_fd(Prot::READ, true).unwrap();
    assert!(nix::sys::uio::pwrite(&fd, b"x", 0).is_err());
    // What was replaced has lost its name.
    let replaced = tree.create("d/b", NewKind::Regular, 0o600).unwrap();
    tree.rename("d/a", "d/b", RenameFlags::empty()).unwrap();
    assert_eq!(replaced.inode().attributes().unwrap().nlink, 0);
    file.operations().truncate(1).unwrap();
    assert_eq!(tree.stat("d/b").unwrap().size, 1);
}

#[test]
fn an_open_file_outlives_its_name() {
    let (host, tree) = served(Access::Exclusive, MountFlags::empty());
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let file = tree.open("a", OpenFlags::O_RDWR).unwrap();
    tree.remove("a", false).unwrap();
    write(&file, 0, b"abc", false).unwrap();
    assert_eq!(read(&file).unwrap(), b"abc");
    let set = SetAttributes { mode: Some(0o640), size: Some(2), ..SetAttributes::default() };
    file.path().inode().set_attributes(&set).unwrap();
    let stat = file.path().inode().attributes().unwrap();
    assert_eq!((stat.mode & 0o777, stat.size, stat.nlink), (0o640, 2, 0));
    assert_eq!(std::fs::read_dir(host.0.path()).unwrap().count(), 0);
}

#[test]
fn large_directories_are_listed_once_in_pieces_of_any_size() {
    let (host, tree) = served(Access::Exclusive, MountFlags::empty());
    for i in 0..3000 {
        std::fs::write(host.0.path().join(format!("a file with number {i}")), "").unwrap();
    }
    let dir = tree.open("", OpenFlags::O_DIRECTORY).unwrap();
    for limit in [1, 7, 1000, 10_000] {
        let (mut seen, mut at) = (Vec::new(), 0);
        loop {
            let mut some = Listing::limited(limit);
            let next = dir.operations().read_dir(&Io::default(), at, &mut some).unwrap();
            if some.0.is_empty() {
                break;
            }
            assert_eq!(some.0.last().unwrap().0, next);
            seen.extend(some.names());
            at = next;
        }
        assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (3002, 3002));
        assert_eq!(seen[..2], [".", ".."]);
    }
    // Back to a place in the middle.
    let mut all = Listing::default();
    dir.operations().read_dir(&Io::default(), 0, &mut all).unwrap();
    let (offset, ..) = &all.0[1500];
    let mut rest = Listing::limited(1);
    dir.operations().read_dir(&Io::default(), *offset, &mut rest).unwrap();
    assert_eq!(rest.0[0].3, all.0[1501].3);
}

#[test]
fn names_that_are_not_there_are_asked_for_some_times_only() {
    for access in [Access::Exclusive, Access::Shared] {
        let (host, tree) = served(access, MountFlags::empty());
        std::fs::write(host.0.path().join("old"), "").unwrap();
        let root = tree.find("").unwrap();
        let root = root.inode();
        let absent = |name: &str| root.lookup(name.as_bytes()).map(drop) == Err(Errno::ENOENT);
        assert!((0..100).all(|i| absent(&format!("name{i}"))));
        // Made behind its back: who still asks finds it.
        std::fs::write(host.0.path().join("late"), "").unwrap();
        assert_eq!(absent("late"), access == Access::Exclusive);
        // What was there, and whatever is made from here, is found.
        assert!(!absent("old"));
        let names = ["file", "dir", "link", "other", "moved"];
        assert!(names.iter().all(|name| absent(name)));
        tree.create("file", NewKind::Regular, 0o600).unwrap();
        tree.create("dir", NewKind::Directory, 0o700).unwrap();
        tree.create("link", NewKind::Symlink(b"x".to_vec()), 0o777).unwrap();
        tree.link("file", "other").unwrap();
        tree.create("dir/inner", NewKind::Regular, 0o600).unwrap();
        tree.rename("dir/inner", "moved", RenameFlags::empty()).unwrap();
        assert!(names.iter().all(|name| !absent(name)));
        tree.remove("moved", false).unwrap();
        assert!(absent("moved"));
    }
}

#[test]
fn what_may_not_be_changed_is_erofs() {
    let (host, tree) = served(Access::Exclusive, MountFlags::READ_ONLY);
    std::fs::write(host.0.path().join("a"), "x").unwrap();
    assert_eq!(tree.create("b", NewKind::Regular, 0o600).map(drop), Err(Errno::EROFS));
    assert_eq!(tree.open("a", OpenFlags::O_RDWR).map(drop), Err(Errno::EROFS));
    assert_eq!(tree.remove("a", false), Err(Errno::EROFS));
    assert_eq!(tree.read("a").unwrap(), b"x");
}

#[test]
fn the_end_of_the_gofer_is_eio() {
    let (ours, theirs) = channel_pair().unwrap();
    let host = HostTree::new();
    std::fs::write(host.0.path().join("a"), "x").unwrap();
    let fd: OwnedFd = std::fs::File::open(host.0.path()).unwrap().into();
    let stop = theirs.try_clone().unwrap();
    let server =
        std::thread::spawn(move || serve(theirs, vec![MountRoot { fd, flags: MountFlags::empty() }]));
    let fs = GoferFs::new(Arc::new(Client::new(ours)), 0, Access::Exclusive, b"").unwrap();
    let tree = Mounted::new(fs);
    let file = tree.open("a", OpenFlags::empty()).unwrap();
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&stop), nix::sys::socket::Shutdown::Both)
        .unwrap();
    drop(stop);
    while !server.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(tree.find("b").map(drop), Err(Errno::EIO));
    // What is open stays so.
    assert_eq!(read(&file).unwrap(), b"x");
}
