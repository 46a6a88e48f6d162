use std::collections::BTreeSet;

use abi::fcntl::{FallocFlags, OpenFlags, RenameFlags, SEEK_DATA, SEEK_HOLE, Seals};
use abi::stat::FileType;
use platform::Prot;
use proptest::prelude::*;

use super::*;
use crate::fs::testing::{
    self, HostTree, Listing, Mounted, Operation, Tree, compare, new, operation, read, write,
};
use crate::vfs::{Entry, Io, SetAttributes, Target, TimeUpdate};

const RDWR: OpenFlags = OpenFlags::O_RDWR;

fn tmpfs(options: &str) -> (Arc<Tmpfs>, Mounted) {
    let fs = Tmpfs::new(&TmpfsOptions::new(1 << 30).parse(options.as_bytes(), 1 << 30).unwrap());
    (fs.clone(), Mounted::new(fs))
}

/// Makes the contents of every file be on the host.
fn map_all(tree: &Mounted) {
    for (path, _) in tree.snapshot() {
        if let Ok(file) = tree.open(&path, RDWR)
            && let Ok(mappable) = file.operations().mappable()
        {
            mappable.host_fd(Prot::READ, false).unwrap();
        }
    }
}

struct Mapped(Mounted);

impl Tree for Mapped {
    fn apply(&self, operation: &Operation) -> Result<()> {
        let result = self.0.apply(operation);
        map_all(&self.0);
        result
    }

    fn snapshot(&self) -> testing::Snapshot {
        self.0.snapshot()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_hosts_tmpfs(operations in prop::collection::vec(operation(), 1..40)) {
        compare(&tmpfs("").1, &HostTree::new(), &operations, |_, _| false)?;
    }

    #[test]
    fn behaves_as_the_hosts_tmpfs_when_mapped(operations in prop::collection::vec(operation(), 1..20)) {
        compare(&Mapped(tmpfs("").1), &HostTree::new(), &operations, |_, _| false)?;
    }

    #[test]
    fn holes_and_space_are_where_the_host_has_them(
        operations in prop::collection::vec(data_operation(), 1..20),
    ) {
        let (fs, tree) = tmpfs("");
        let host = HostTree::new();
        let path = host.0.path().join("a");
        for tree in [&tree as &dyn Tree, &host] {
            tree.apply(&Operation::Create("a")).unwrap();
        }
        for operation in &operations {
            prop_assert_eq!(tree.apply(operation), host.apply(operation));
            let file = tree.open("a", RDWR).unwrap();
            let stat = tree.stat("a").unwrap();
            let on_host = std::fs::File::open(&path).unwrap();
            let blocks = std::os::unix::fs::MetadataExt::blocks(&on_host.metadata().unwrap());
            prop_assert_eq!(stat.blocks, blocks, "after {:?}", operation);
            prop_assert_eq!(fs.shared.limits.pages.load(Ordering::Relaxed) * 8, blocks);
            // Pages that were allocated but not written are data here and holes there.
            if operations.iter().any(|o| matches!(o, Operation::Allocate(..))) {
                continue;
            }
            for (whence, unix) in [(SEEK_DATA, nix::unistd::Whence::SeekData), (SEEK_HOLE, nix::unistd::Whence::SeekHole)] {
                for at in (0..stat.size + 5000).step_by(3001) {
                    let expected = nix::unistd::lseek(&on_host, at as i64, unix).map(|o| o as u64).map_err(Errno::from);
                    prop_assert_eq!(file.operations().seek(whence, at as i64), expected, "{} {}", whence, at);
                }
            }
        }
    }
}

fn data_operation() -> impl Strategy<Value = Operation> {
    operation().prop_filter_map("not about contents", |operation| {
        use Operation as O;
        Some(match operation {
            O::Write(_, offset, data) => O::Write("a", offset, data),
            O::Append(_, data) => O::Append("a", data),
            O::Truncate(_, size) => O::Truncate("a", size),
            O::Punch(_, offset, len) => O::Punch("a", offset, len),
            O::Allocate(_, offset, len, keep) => O::Allocate("a", offset, len, keep),
            _ => return None,
        })
    })
}

#[test]
fn a_full_filesystem_is_enospc() {
    let (fs, tree) = tmpfs("size=64k,nr_inodes=4");
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let file = tree.open("a", RDWR).unwrap();
    let mut src = crate::vfs::io::SliceSource::new(&[1; 100_000]);
    assert_eq!(file.operations().write(&Io::default(), &mut src, &mut 100), Ok(65536 - 100));
    assert_eq!(write(&file, 65536, b"x", false), Err(Errno::ENOSPC));
    write(&file, 65535, b"x", false).unwrap();
    let status = fs.status().unwrap();
    assert_eq!((status.blocks, status.blocks_free, status.files, status.files_free), (16, 0, 4, 2));
    tree.create("b", NewKind::Directory, 0o700).unwrap();
    tree.link("a", "c").unwrap();
    assert_eq!(tree.create("d", NewKind::Fifo, 0o700).map(drop), Err(Errno::ENOSPC));
    assert_eq!(tree.link("a", "d"), Err(Errno::ENOSPC));
    tree.remove("c", false).unwrap();
    tree.create("d", NewKind::Fifo, 0o700).unwrap();
    // An open file keeps its space.
    tree.remove("a", false).unwrap();
    assert_eq!(fs.status().unwrap().blocks_free, 0);
    drop(file);
    let status = fs.status().unwrap();
    assert_eq!((status.blocks_free, status.files_free), (16, 1));
    assert_eq!(fs.reconfigure(b"size=4k,nr_inodes=1"), Err(Errno::EINVAL));
    assert_eq!(fs.reconfigure(b"foo"), Err(Errno::EINVAL));
    fs.reconfigure(b"size=4k").unwrap();
    assert_eq!(fs.status().unwrap().files, 4);
    assert_eq!(fs.status().unwrap().blocks, 1);
}

#[test]
fn options_are_those_of_mount() {
    let parse = |text: &str| TmpfsOptions::new(1 << 20).parse(text.as_bytes(), 1 << 20);
    let options = parse("size=64k,mode=755,uid=1,gid=2,nr_inodes=1k").unwrap();
    assert_eq!((options.size, options.mode, options.uid, options.gid), (65536, 0o755, 1, 2));
    assert_eq!(options.to_string(), "size=64k,nr_inodes=1024,mode=755,uid=1,gid=2,inode64");
    assert_eq!(parse("size=50%").unwrap().size, (1 << 20) / 100 * 50);
    assert_eq!(parse("nr_blocks=2").unwrap().size, 8192);
    assert_eq!(parse("").unwrap().to_string(), "inode64");
    for bad in ["size=x", "size=1q", "mode=9", "foo", "uid=-1", "size=99999999999999999999", "size=99e"] {
        assert_eq!(parse(bad).err(), Some(Errno::EINVAL), "{bad}");
    }
}

#[test]
fn an_entry_that_stays_is_listed_once() {
    let (_, tree) = tmpfs("");
    for i in 0..100 {
        tree.create(&format!("f{i}"), NewKind::Regular, 0o600).unwrap();
    }
    let dir = tree.open("", OpenFlags::O_DIRECTORY).unwrap();
    let (mut seen, mut at, mut round) = (Vec::new(), 0, 0);
    loop {
        let mut some = Listing::limited(7);
        let next = dir.operations().read_dir(&Io::default(), at, &mut some).unwrap();
        if some.0.is_empty() {
            break;
        }
        assert_eq!(some.0.last().unwrap().0, next);
        for name in some.names() {
            // Renaming what was listed must neither list it again nor go on for ever.
            if name.starts_with('f') {
                tree.rename(&name, &format!("r{name}"), RenameFlags::empty()).unwrap();
            }
            seen.push(name);
        }
        if round < 10 {
            tree.remove(&format!("f{}", 99 - round), false).unwrap();
        }
        tree.create(&format!("n{round}"), NewKind::Regular, 0o600).unwrap();
        (at, round) = (next, round + 1);
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len());
    assert!((0..80).all(|i| unique.contains(&format!("f{i}"))));
    assert!(!seen.iter().any(|name| name.starts_with('n') || name.starts_with('r')));
    // From the start, everything that is there now.
    let mut all = Listing::default();
    dir.operations().read_dir(&Io::default(), 0, &mut all).unwrap();
    assert!(all.names().contains(&"n0".to_string()));
}

#[test]
fn times_follow_what_is_done() {
    let (_, tree) = tmpfs("");
    let old = abi::time::Timespec { tv_sec: 1000, tv_nsec: 0 };
    tree.create("d", NewKind::Directory, 0o700).unwrap();
    tree.create("d/a", NewKind::Regular, 0o600).unwrap();
    let age = |path: &str| {
        let at = Some(TimeUpdate::At(old));
        let set = SetAttributes { atime: at, mtime: at, ..SetAttributes::default() };
        tree.find(path).unwrap().inode().set_attributes(&set).unwrap();
        tree.stat(path).unwrap().ctime
    };
    let ctime = age("d/a");
    let newer =
        |a: abi::time::Timespec, b: abi::time::Timespec| (a.tv_sec, a.tv_nsec) >= (b.tv_sec, b.tv_nsec);
    // Reading: the access time alone, and only when it is older than the others.
    tree.read("d/a").unwrap();
    let read_once = tree.stat("d/a").unwrap();
    assert!(newer(read_once.atime, ctime) && read_once.mtime == old && read_once.ctime == ctime);
    tree.read("d/a").unwrap();
    assert_eq!(tree.stat("d/a").unwrap().atime, read_once.atime);
    write(&tree.open("d/a", RDWR).unwrap(), 0, b"x", false).unwrap();
    let written = tree.stat("d/a").unwrap();
    assert!(written.mtime != old && written.mtime == written.ctime);
    // Truncating to the same length changes the change time only.
    age("d/a");
    let resize = |size| {
        let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
        tree.find("d/a").unwrap().inode().set_attributes(&set).unwrap();
        tree.stat("d/a").unwrap().mtime
    };
    assert_eq!(resize(1), old);
    assert_ne!(resize(0), old);
    for change in [
        Box::new(|| tree.create("d/b", NewKind::Regular, 0o600).map(drop)) as Box<dyn Fn() -> Result<()>>,
        Box::new(|| tree.link("d/a", "d/c")),
        Box::new(|| tree.rename("d/b", "d/e", RenameFlags::empty())),
        Box::new(|| tree.remove("d/c", false)),
    ] {
        age("d");
        change().unwrap();
        assert_ne!(tree.stat("d").unwrap().mtime, old);
    }
}

#[test]
fn extended_attributes_have_limits() {
    let (_, tree) = tmpfs("nr_inodes=10");
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let inode = tree.find("a").unwrap().inode().clone();
    assert_eq!(inode.set_xattr(b"user.a", b"1", false, true), Err(Errno::ENODATA));
    inode.set_xattr(b"user.a", b"1", true, false).unwrap();
    assert_eq!(inode.set_xattr(b"user.a", b"1", true, false), Err(Errno::EEXIST));
    inode.set_xattr(b"security.b", b"", false, false).unwrap();
    assert_eq!(inode.xattr(b"user.a"), Ok(b"1".to_vec()));
    assert_eq!(inode.xattr(b"user.b"), Err(Errno::ENODATA));
    assert_eq!(inode.xattr(b"system.posix_acl_access"), Err(Errno::EOPNOTSUPP));
    assert_eq!(inode.xattr(b"user."), Err(Errno::EOPNOTSUPP));
    assert_eq!(inode.xattr_names().unwrap().len(), 2);
    assert_eq!(inode.set_xattr(b"user.big", &[0; 9000], false, false), Err(Errno::ENOSPC));
    inode.set_xattr(b"user.big", &[0; 7000], false, false).unwrap();
    assert_eq!(inode.set_xattr(b"user.c", &[0; 2000], false, false), Err(Errno::ENOSPC));
    inode.remove_xattr(b"user.big").unwrap();
    inode.set_xattr(b"user.c", &[0; 2000], false, false).unwrap();
    assert_eq!(inode.remove_xattr(b"user.big"), Err(Errno::ENODATA));
}

#[test]
fn an_unnamed_file_can_get_a_name() {
    let (fs, tree) = tmpfs("");
    let root = fs.root();
    let inode = root.create_unnamed(&new(NewKind::Regular, 0o600)).unwrap();
    assert_eq!(inode.attributes().unwrap().nlink, 0);
    root.link(b"a", &inode).unwrap();
    assert_eq!((tree.stat("a").unwrap().ino, tree.stat("a").unwrap().nlink), (inode.ino(), 1));
}

#[test]
fn a_rename_can_leave_a_whiteout() {
    let (_, tree) = tmpfs("");
    tree.create("d", NewKind::Directory, 0o700).unwrap();
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let root = tree.root.inode();
    let (source, dir) = (tree.find("a").unwrap(), tree.find("d").unwrap());
    let from = Entry { name: b"a", inode: source.inode() };
    let onto = Target { name: b"b", inode: None };
    root.rename(from, dir.inode(), onto, RenameFlags::RENAME_WHITEOUT).unwrap();
    let whiteout = root.lookup(b"a").unwrap().attributes().unwrap();
    assert_eq!((whiteout.file_type(), whiteout.rdev), (FileType::CharDevice, 0));
    assert!(tree.stat("d/b").is_ok());
}

#[test]
fn a_removed_directory_takes_nothing_more() {
    let (_, tree) = tmpfs("");
    let dir = tree.create("d", NewKind::Directory, 0o700).unwrap();
    tree.remove("d", true).unwrap();
    assert_eq!(dir.inode().create(b"a", &new(NewKind::Regular, 0o600)).map(drop), Err(Errno::ENOENT));
    assert_eq!(dir.inode().attributes().unwrap().nlink, 0);
}

#[test]
fn a_deep_tree_is_dropped_without_recursion() {
    let (_, tree) = tmpfs("nr_inodes=0");
    let mut at = tree.root.inode().clone();
    for _ in 0..200_000 {
        at = at.create(b"d", &new(NewKind::Directory, 0o700)).unwrap();
    }
    drop(at);
    drop(tree);
}

#[test]
fn a_deep_chain_of_dentries_is_dropped_without_recursion() {
    let (_, tree) = tmpfs("nr_inodes=0");
    let mut at = tree.root.dentry().clone();
    for _ in 0..200_000 {
        let inode = at.inode().create(b"d", &new(NewKind::Directory, 0o700)).unwrap();
        let mut children = at.lock();
        let child = at.insert(&mut children, b"d", inode);
        drop(children);
        at = child;
    }
}

#[test]
fn removing_a_name_frees_what_nobody_uses() {
    let (fs, tree) = tmpfs("");
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    write(&tree.open("a", RDWR).unwrap(), 0, &[1; 5000], false).unwrap();
    tree.find("a").unwrap();
    tree.remove("a", false).unwrap();
    assert_eq!(fs.shared.limits.pages.load(Ordering::Relaxed), 0);
}

#[test]
fn mappings_see_writes_and_writes_see_mappings() {
    let (_, tree) = tmpfs("");
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let file = tree.open("a", RDWR).unwrap();
    write(&file, 100_000, b"before", false).unwrap();
    let mappable = file.operations().mappable().unwrap();
    assert_eq!(mappable.object(), file.path().dentry().object());
    let (fd, offset) = mappable.host_fd(Prot::READ | Prot::WRITE, true).unwrap();
    let mut buf = [0; 6];
    nix::sys::uio::pread(&*fd, &mut buf, 100_000 + offset as i64).unwrap();
    assert_eq!(&buf, b"before");
    nix::sys::uio::pwrite(&*fd, b"mapped", 100_000).unwrap();
    assert_eq!(&read(&file).unwrap()[100_000..], b"mapped");
    write(&file, 100_000, b"after!", false).unwrap();
    nix::sys::uio::pread(&*fd, &mut buf, 100_000).unwrap();
    assert_eq!(&buf, b"after!");
    // What may only be read cannot be written through the descriptor either.
    let (fd, _) = file.operations().mappable().unwrap().host_fd(Prot::READ, true).unwrap();
    assert!(nix::sys::uio::pwrite(&*fd, b"x", 0).is_err());
}

#[test]
fn seals_hold() {
    let fs = Tmpfs::new(&TmpfsOptions::unlimited());
    let inode = fs.sealed_file(0o777, 0, 0, Seals::empty()).unwrap();
    let tree = Mounted::new(fs);
    let dentry = crate::vfs::Dentry::anonymous(tree.root.dentry().superblock(), inode, b"memfd:x");
    let file = tree.open_dentry(dentry, RDWR).unwrap();
    write(&file, 0, &[1; 8000], false).unwrap();
    let ops = file.ops::<TmpFile>().unwrap();
    ops.add_seals(Seals::F_SEAL_GROW).unwrap();
    assert_eq!(write(&file, 7000, &[2; 2000], false), Err(Errno::EPERM));
    let mut src = crate::vfs::io::SliceSource::new(&[2; 8001]);
    assert_eq!(file.operations().write(&Io::default(), &mut src, &mut 0), Ok(4096));
    assert_eq!(file.operations().truncate(8001), Err(Errno::EPERM));
    file.operations().truncate(7999).unwrap();
    ops.add_seals(Seals::F_SEAL_SHRINK).unwrap();
    assert_eq!(file.operations().truncate(10), Err(Errno::EPERM));
    let mapping = file.operations().mappable().unwrap();
    mapping.host_fd(Prot::READ | Prot::WRITE, true).unwrap();
    assert_eq!(ops.add_seals(Seals::F_SEAL_WRITE), Err(Errno::EBUSY));
    ops.add_seals(Seals::F_SEAL_FUTURE_WRITE).unwrap();
    drop(mapping);
    ops.add_seals(Seals::F_SEAL_WRITE | Seals::F_SEAL_SEAL).unwrap();
    assert_eq!(write(&file, 0, b"x", false), Err(Errno::EPERM));
    assert_eq!(file.operations().allocate(&Io::default(), 3, 0, 100), Err(Errno::EPERM));
    let mapping = file.operations().mappable().unwrap();
    assert_eq!(mapping.host_fd(Prot::READ | Prot::WRITE, true).map(drop), Err(Errno::EPERM));
    mapping.host_fd(Prot::READ, true).unwrap();
    assert_eq!(ops.add_seals(Seals::F_SEAL_EXEC), Err(Errno::EPERM));
    // An ordinary file cannot be sealed.
    tree.create("a", NewKind::Regular, 0o600).unwrap();
    let plain = tree.open("a", RDWR).unwrap();
    assert_eq!(plain.ops::<TmpFile>().unwrap().seals(), Seals::F_SEAL_SEAL);
    assert_eq!(plain.ops::<TmpFile>().unwrap().add_seals(Seals::F_SEAL_GROW), Err(Errno::EPERM));
}

#[test]
fn a_long_allocation_ends_with_its_process() {
    let data = data::Data::new(Arc::new(Limits::default()), Seals::empty());
    let asked = std::cell::Cell::new(0);
    let stops = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    assert_eq!(data.allocate(FallocFlags::empty(), 0, 1 << 40, &stops), Err(Errno::EINTR));
    assert_eq!((data.size(), asked.get()), (0, 3));
}
