use std::os::fd::OwnedFd;

use abi::fcntl::OpenFlags;
use gofer::{Client, MountFlags as Served, MountRoot, channel_pair, serve};
use platform::Prot;
use proptest::prelude::*;

use super::*;
use crate::fs::gofer::{Access, GoferFs};
use crate::fs::testing::{
    HostTree, Listing, Mounted, Operation, Snapshot, Tree, compare, operation, read, write,
};
use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
use crate::vfs::Io;

fn tmpfs() -> Arc<Tmpfs> {
    Tmpfs::new(&TmpfsOptions::unlimited())
}

fn over(lowers: Vec<Layer>) -> Mounted {
    let upper = Upper::on(tmpfs(), &lowers[0]).unwrap();
    Mounted::new(Overlay::new(Some(upper), lowers).unwrap())
}

/// A directory of the host by way of a gofer.
fn gofer(host: &HostTree, flags: Served) -> Arc<GoferFs> {
    let (ours, theirs) = channel_pair().unwrap();
    let fd: OwnedFd = std::fs::File::open(host.0.path()).unwrap().into();
    std::thread::spawn(move || serve(theirs, vec![MountRoot { fd, flags }]));
    GoferFs::new(Arc::new(Client::new(ours)), 0, Access::Exclusive, b"").unwrap()
}

/// An overlay, compared with a plain tree: links of directories are not counted, and those of files that were broken
/// apart differ.
struct Compared<'a>(&'a dyn Tree);

impl Tree for Compared<'_> {
    fn apply(&self, operation: &Operation) -> Result<()> {
        self.0.apply(operation)
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.0.snapshot();
        for summary in snapshot.values_mut() {
            summary.nlink = 0;
        }
        snapshot
    }
}

/// Renaming a directory with a lower part is EXDEV here.
fn meant(operation: &Operation, result: Result<()>) -> bool {
    matches!((operation, result), (Operation::Rename(..), Err(Errno::EXDEV)))
}

fn no_links(operations: &[Operation]) -> Vec<Operation> {
    operations.iter().filter(|o| !matches!(o, Operation::Link(..))).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_one_tree(
        below in prop::collection::vec(operation(), 0..25),
        operations in prop::collection::vec(operation(), 1..30),
    ) {
        // Hard links of the lower layer are broken when written to: without them, everything is the same.
        let (host, lower) = (HostTree::new(), tmpfs());
        let plain = Mounted::new(lower.clone());
        for operation in no_links(&below) {
            prop_assert_eq!(plain.apply(&operation), host.apply(&operation));
        }
        let before = plain.snapshot();
        drop(plain);
        let tree = over(vec![Layer::whole(lower.clone())]);
        compare(&Compared(&tree), &Compared(&host), &operations, meant)?;
        // Whatever was done, the lower layer is as it was.
        prop_assert_eq!(Mounted::new(lower).snapshot(), before);
    }

    #[test]
    fn behaves_as_one_tree_over_the_host(
        below in prop::collection::vec(operation(), 0..20),
        operations in prop::collection::vec(operation(), 1..15),
    ) {
        let (host, lower) = (HostTree::new(), HostTree::new());
        for operation in no_links(&below) {
            let _ = (lower.apply(&operation), host.apply(&operation));
        }
        let tree = over(vec![Layer::whole(gofer(&lower, Served::READ_ONLY))]);
        compare(&Compared(&tree), &Compared(&host), &operations, meant)?;
    }

    #[test]
    fn a_second_mount_shows_the_same(
        below in prop::collection::vec(operation(), 0..25),
        operations in prop::collection::vec(operation(), 1..30),
    ) {
        // Nothing is remembered that is not in the layers, and layers can be stacked.
        let lower = Layer::whole(tmpfs());
        let plain = Mounted::new(lower.fs.clone());
        for operation in &below {
            let _ = plain.apply(operation);
        }
        let upper = Upper::on(tmpfs(), &lower).unwrap();
        let first = Mounted::new(Overlay::new(Some(upper.clone()), vec![lower.clone()]).unwrap());
        for operation in &operations {
            let _ = first.apply(operation);
        }
        let shown = Compared(&first).snapshot();
        let second = Mounted::new(Overlay::new(Some(upper.clone()), vec![lower.clone()]).unwrap());
        prop_assert_eq!(&Compared(&second).snapshot(), &shown);
        let stacked = Mounted::new(Overlay::new(None, vec![upper.layer, lower]).unwrap());
        prop_assert_eq!(&Compared(&stacked).snapshot(), &shown);
    }
}

#[test]
fn threads_that_get_in_each_others_way_leave_one_tree() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    for round in 0..4 {
        let (host, lower) = (HostTree::new(), tmpfs());
        let mut runner = TestRunner::default();
        let mut some = |count| {
            let strategy = prop::collection::vec(operation(), count);
            strategy.new_tree(&mut runner).unwrap().current()
        };
        let plain = Mounted::new(lower.clone());
        for operation in some(20 + round) {
            let _ = (plain.apply(&operation), host.apply(&operation));
        }
        let lower =
            if round % 2 == 0 { Layer::whole(lower) } else { Layer::whole(gofer(&host, Served::READ_ONLY)) };
        let upper = Upper::on(tmpfs(), &lower).unwrap();
        let tree = Mounted::new(Overlay::new(Some(upper.clone()), vec![lower.clone()]).unwrap());
        let threads: Vec<_> = (0..4).map(|_| some(200)).collect();
        let tree = &tree;
        std::thread::scope(|scope| {
            for operations in &threads {
                scope.spawn(move || {
                    for operation in operations {
                        let _ = tree.apply(operation);
                        if let Ok(listing) = tree.list("d") {
                            assert!(listing.names().len() >= 2);
                        }
                    }
                });
            }
        });
        let shown = Compared(tree).snapshot();
        let again = Mounted::new(Overlay::new(Some(upper.clone()), vec![lower]).unwrap());
        assert_eq!(Compared(&again).snapshot(), shown);
        // Nothing is left of what was prepared.
        let mut left = Listing::default();
        let work = Mounted::new(upper.layer.fs.clone()).open("work", OpenFlags::O_DIRECTORY).unwrap();
        work.operations().read_dir(&Io::default(), 0, &mut left).unwrap();
        assert_eq!(left.names(), [".", ".."]);
    }
}

fn lower_tree() -> (Arc<Tmpfs>, Layer) {
    let fs = tmpfs();
    let tree = Mounted::new(fs.clone());
    tree.create("d", NewKind::Directory, 0o750).unwrap();
    tree.create("d/a", NewKind::Regular, 0o640).unwrap();
    write(&tree.open("d/a", OpenFlags::O_RDWR).unwrap(), 0, b"lower", false).unwrap();
    tree.create("b", NewKind::Regular, 0o4755).unwrap();
    (fs.clone(), Layer::whole(fs))
}

#[test]
fn numbers_stay_through_copy_up() {
    let (_, lower) = lower_tree();
    let upper = Upper::on(tmpfs(), &lower).unwrap();
    let fs = Overlay::new(Some(upper), vec![lower]).unwrap();
    let tree = Mounted::new(fs.clone());
    let before = (tree.stat("d").unwrap().ino, tree.stat("d/a").unwrap().ino);
    write(&tree.open("d/a", OpenFlags::O_RDWR).unwrap(), 0, b"upper", false).unwrap();
    assert_eq!((tree.stat("d").unwrap().ino, tree.stat("d/a").unwrap().ino), before);
    // Also when everything is looked up anew.
    let again = Mounted::new(fs);
    assert_eq!((again.stat("d").unwrap().ino, again.stat("d/a").unwrap().ino), before);
    again.snapshot();
}

#[test]
fn links_of_a_lower_layer_are_broken() {
    let (fs, lower) = lower_tree();
    Mounted::new(fs).link("b", "c").unwrap();
    let tree = over(vec![lower]);
    let (b, c) = (tree.stat("b").unwrap(), tree.stat("c").unwrap());
    assert_eq!((b.ino, b.nlink), (c.ino, 2));
    let dentry = tree.find("b").unwrap();
    let object = dentry.object();
    write(&tree.open("b", OpenFlags::O_WRONLY).unwrap(), 0, b"new", false).unwrap();
    assert_eq!(tree.read("c").unwrap(), b"");
    assert_ne!(tree.stat("b").unwrap().ino, tree.stat("c").unwrap().ino);
    assert_eq!(dentry.object(), object);
    tree.snapshot();
    // They are no longer one file, so that renaming one to the other does something.
    tree.rename("b", "c", RenameFlags::empty()).unwrap();
    assert_eq!(tree.read("c").unwrap(), b"new");
    assert_eq!(tree.find("b").map(drop), Err(Errno::ENOENT));
}

#[test]
fn copies_keep_everything() {
    let (fs, lower) = lower_tree();
    let plain = Mounted::new(fs);
    let inode = plain.find("b").unwrap().inode().clone();
    inode.set_xattr(b"user.x", b"1", false, false).unwrap();
    inode.set_xattr(b"trusted.overlay.origin", b"1", false, false).unwrap();
    let time = abi::time::Timespec { tv_sec: 1234, tv_nsec: 5 };
    let at = Some(TimeUpdate::At(time));
    for path in ["b", "d"] {
        let set =
            SetAttributes { uid: Some(3), gid: Some(4), atime: at, mtime: at, ..SetAttributes::default() };
        plain.find(path).unwrap().inode().set_attributes(&set).unwrap();
    }
    let big: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    write(&plain.open("d/a", OpenFlags::O_RDWR).unwrap(), 1 << 30, &big, false).unwrap();
    let tree = over(vec![lower]);
    tree.find("b")
        .unwrap()
        .inode()
        .set_attributes(&SetAttributes { gid: Some(5), ..SetAttributes::default() })
        .unwrap();
    let (stat, dentry) = (tree.stat("b").unwrap(), tree.find("b").unwrap());
    assert_eq!((stat.mode & 0o7777, stat.uid, stat.gid, stat.mtime, stat.atime), (0o4755, 3, 5, time, time));
    assert_eq!(dentry.inode().xattr(b"user.x").unwrap(), b"1");
    assert_eq!(dentry.inode().xattr_names().unwrap(), [b"user.x"]);
    // Holes stay holes, and the directory above is copied with its times.
    write(&tree.open("d/a", OpenFlags::O_RDWR).unwrap(), 0, b"x", false).unwrap();
    let stat = tree.stat("d/a").unwrap();
    assert_eq!((stat.size, stat.blocks), ((1 << 30) + 200_000, 50 * 8));
    let dir = tree.stat("d").unwrap();
    assert_eq!((dir.mode & 0o7777, dir.uid, dir.gid, dir.mtime), (0o750, 3, 4, time));
    let file = tree.open("d/a", OpenFlags::empty()).unwrap();
    let mut sink = crate::vfs::VecSink::new(300_000);
    file.operations().read(&Io::default(), &mut sink, 1 << 30).unwrap();
    assert!(sink.data == big);
}

#[test]
fn readers_follow_a_copy_up() {
    let (_, lower) = lower_tree();
    let tree = over(vec![lower]);
    let reader = tree.open("d/a", OpenFlags::empty()).unwrap();
    assert_eq!(read(&reader).unwrap(), b"lower");
    let old = reader.operations().mappable().unwrap();
    let (fd, _) = old.host_fd(Prot::READ, false).unwrap();
    write(&tree.open("d/a", OpenFlags::O_WRONLY).unwrap(), 0, b"UPPER", false).unwrap();
    assert_eq!(read(&reader).unwrap(), b"UPPER");
    let mut buf = [0; 5];
    nix::sys::uio::pread(&fd, &mut buf, 0).unwrap();
    assert_eq!(&buf, b"lower");
    assert_eq!(reader.operations().mappable().unwrap().object(), old.object());
}

#[test]
fn what_has_lost_its_name_can_still_be_changed() {
    let (fs, lower) = lower_tree();
    let tree = over(vec![lower]);
    let file = tree.open("d/a", OpenFlags::empty()).unwrap();
    tree.remove("d/a", false).unwrap();
    let dentry = file.path().dentry().clone();
    assert_eq!(dentry.inode().attributes().unwrap().nlink, 0);
    let writer = tree.open_dentry(dentry.clone(), OpenFlags::O_RDWR).unwrap();
    write(&writer, 5, b"!", false).unwrap();
    assert_eq!(read(&file).unwrap(), b"lower!");
    assert_eq!(dentry.inode().attributes().unwrap().nlink, 0);
    assert_eq!(tree.find("d/a").map(drop), Err(Errno::ENOENT));
    assert_eq!(Mounted::new(fs).read("d/a").unwrap(), b"lower");
}

#[test]
fn a_new_directory_hides_the_old_one() {
    let (_, lower) = lower_tree();
    let tree = over(vec![lower]);
    tree.remove("d/a", false).unwrap();
    tree.remove("d", true).unwrap();
    tree.create("d", NewKind::Directory, 0o700).unwrap();
    assert_eq!(tree.list("d").unwrap().names(), [".", ".."]);
    assert_eq!(tree.find("d/a").map(drop), Err(Errno::ENOENT));
    // A directory that comes from elsewhere, too.
    tree.remove("d", true).unwrap();
    tree.create("n", NewKind::Directory, 0o700).unwrap();
    tree.rename("n", "d", RenameFlags::empty()).unwrap();
    assert_eq!(tree.find("d/a").map(drop), Err(Errno::ENOENT));
    let mut names = tree.list("").unwrap().names();
    names.sort();
    assert_eq!(names, [".", "..", "b", "d"]);
}

#[test]
fn a_listing_stays_what_it_was() {
    let (_, lower) = lower_tree();
    let tree = over(vec![lower]);
    for i in 0..50 {
        tree.create(&format!("d/{i}"), NewKind::Regular, 0o600).unwrap();
    }
    let dir = tree.open("d", OpenFlags::O_DIRECTORY).unwrap();
    let (mut seen, mut at) = (Vec::new(), 0);
    loop {
        let mut some = Listing::limited(7);
        let next = dir.operations().read_dir(&Io::default(), at, &mut some).unwrap();
        if some.0.is_empty() {
            break;
        }
        for name in some.names().iter().filter(|name| !name.starts_with('.')) {
            tree.remove(&format!("d/{name}"), false).unwrap();
        }
        seen.extend(some.names());
        at = next;
    }
    assert_eq!(seen.len(), 53);
    tree.remove("d", true).unwrap();
}

#[test]
fn a_full_upper_layer_changes_nothing() {
    let (_, lower) = lower_tree();
    let full = Tmpfs::new(&TmpfsOptions::new(1 << 30).parse(b"nr_inodes=4", 0).unwrap());
    let upper = Upper::on(full.clone(), &lower).unwrap();
    let tree = Mounted::new(Overlay::new(Some(upper), vec![lower]).unwrap());
    tree.create("n", NewKind::Regular, 0o600).unwrap();
    let before = tree.snapshot();
    assert_eq!(tree.remove("b", false), Err(Errno::ENOSPC));
    assert_eq!(tree.open("d/a", OpenFlags::O_RDWR).map(drop), Err(Errno::ENOSPC));
    assert_eq!(tree.rename("b", "c", RenameFlags::empty()), Err(Errno::ENOSPC));
    assert_eq!(tree.snapshot(), before);
    tree.remove("n", false).unwrap();
    tree.remove("b", false).unwrap();
    assert_eq!(full.status().unwrap().files_free, 0);
}

#[test]
fn an_overlay_can_be_the_layer_of_another() {
    let (_, lower) = lower_tree();
    let upper = Upper::on(tmpfs(), &lower).unwrap();
    let outer = Overlay::new(Some(upper), vec![lower]).unwrap();
    let root = outer.root();
    root.set_xattr(b"trusted.overlay.opaque", b"y", false, false).unwrap();
    assert_eq!(root.xattr(b"trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(root.xattr_names().unwrap(), [b"trusted.overlay.opaque"]);
    // It has no effect on the overlay itself.
    assert!(root.lookup(b"d").is_ok());
    root.remove_xattr(b"trusted.overlay.opaque").unwrap();
    assert_eq!(root.remove_xattr(b"trusted.overlay.opaque"), Err(Errno::ENODATA));
    assert_eq!(root.create(b"w", &whiteout()).map(drop), Err(Errno::EPERM));
}

#[test]
fn an_upper_layer_that_is_mounted_shows_what_it_has() {
    let (_, lower) = lower_tree();
    let fs = tmpfs();
    let seen = Mounted::new(fs.clone());
    let upper = Upper::on(fs, &lower).unwrap();
    upper.layer.fs.become_layer();
    let tree = Mounted::new(Overlay::new(Some(upper), vec![lower]).unwrap());
    assert_eq!(seen.find("upper/b").map(drop), Err(Errno::ENOENT));
    write(&tree.open("b", OpenFlags::O_RDWR).unwrap(), 0, b"new", false).unwrap();
    assert_eq!(seen.read("upper/b").unwrap(), b"new");
    let dentry = seen.find("upper/b").unwrap();
    tree.remove("b", false).unwrap();
    assert_eq!(seen.stat("upper/b").unwrap().file_type(), FileType::CharDevice);
    drop(dentry);
}

#[test]
fn a_file_can_be_mounted_by_itself() {
    let (fs, _) = lower_tree();
    let file = fs.root().lookup(b"d").unwrap().lookup(b"a").unwrap();
    let tree = over(vec![Layer { fs: fs.clone(), root: file }]);
    assert_eq!(tree.read("").unwrap(), b"lower");
    write(&tree.open("", OpenFlags::O_RDWR).unwrap(), 0, b"UPPER", false).unwrap();
    assert_eq!((tree.read("").unwrap(), tree.stat("").unwrap().nlink), (b"UPPER".to_vec(), 1));
    assert_eq!(Mounted::new(fs).read("d/a").unwrap(), b"lower");
}

#[test]
fn without_an_upper_layer_everything_is_erofs() {
    let (_, lower) = lower_tree();
    let tree = Mounted::new(Overlay::new(None, vec![lower]).unwrap());
    assert_eq!(tree.open("b", OpenFlags::O_RDWR).map(drop), Err(Errno::EROFS));
    assert_eq!(tree.remove("b", false), Err(Errno::EROFS));
    assert_eq!(tree.create("n", NewKind::Fifo, 0o600).map(drop), Err(Errno::EROFS));
    assert_eq!(tree.read("d/a").unwrap(), b"lower");
    assert_eq!(Overlay::new(None, Vec::new()).map(drop), Err(Errno::EINVAL));
}

#[test]
fn a_directory_of_the_host_can_be_the_upper_layer() {
    let (_, lower) = lower_tree();
    let host = HostTree::new();
    let upper = Upper::on(gofer(&host, Served::WHITEOUTS | Served::TRUSTED_OVERLAY), &lower).unwrap();
    let tree = Mounted::new(Overlay::new(Some(upper), vec![lower]).unwrap());
    tree.remove("b", false).unwrap();
    write(&tree.open("d/a", OpenFlags::O_RDWR).unwrap(), 5, b" and upper", false).unwrap();
    assert_eq!(tree.read("d/a").unwrap(), b"lower and upper");
    tree.rename("d/a", "c", RenameFlags::empty()).unwrap();
    tree.remove("d", true).unwrap();
    tree.create("d", NewKind::Directory, 0o700).unwrap();
    assert_eq!(tree.list("d").unwrap().names().len(), 2);
    let upper = host.0.path().join("upper");
    let mut names: Vec<_> = std::fs::read_dir(&upper).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(std::fs::read_dir(host.0.path().join("work")).unwrap().count(), 0);
    assert_eq!(std::fs::read(upper.join("c")).unwrap(), b"lower and upper");
}
