//! Every operation, on each kind of server.

use crate::serving::{How, Serving, WAYS, superuser};
use abi::Errno;
use gofer::client::{NewAttributes, NewInode, SetTime, SocketKind};
use gofer::protocol::{Attributes, FileKind, NodeId, OpenFlags, RenameFlags, SyncScope, Timestamp};
use gofer::{Client, MountFlags};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use tempfile::tempdir;

pub fn new(mode: u32) -> NewInode {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    NewInode { mode, uid, gid }
}

pub fn each(flags: MountFlags, test: impl Fn(&Client, NodeId, &Path)) {
    for how in WAYS {
        eprintln!("{how:?}");
        let root = tempdir().unwrap();
        let (serving, top) = Serving::directory(how, root.path(), flags);
        test(serving.client(), top, root.path());
        serving.finish();
    }
}

pub fn find(client: &Client, top: NodeId, path: &str) -> (NodeId, Attributes) {
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let walked = client.walk(top, &names).unwrap();
    assert_eq!(walked.entries.len(), names.len(), "{path}: {:?}", walked.error);
    let last = walked.entries.last().unwrap();
    (last.node, last.attributes)
}

pub fn same(attributes: &Attributes, path: &Path) {
    let is = fs::symlink_metadata(path).unwrap();
    assert_eq!(attributes.mode, is.mode());
    assert_eq!(u64::from(attributes.links), is.nlink());
    assert_eq!((attributes.uid, attributes.gid), (is.uid(), is.gid()));
    assert_eq!((attributes.size, attributes.blocks), (is.size(), is.blocks()));
    assert_eq!((attributes.inode, u64::from(attributes.block_size)), (is.ino(), is.blksize()));
    assert_eq!(nix::sys::stat::makedev(attributes.dev_major.into(), attributes.dev_minor.into()), is.dev());
    assert_eq!(
        nix::sys::stat::makedev(attributes.rdev_major.into(), attributes.rdev_minor.into()),
        is.rdev()
    );
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: nanoseconds as u64 };
    // Reading a link or a directory since may have changed that of access.
    let (then, now) = (attributes.accessed, time(is.atime(), is.atime_nsec()));
    assert!((then.seconds, then.nanoseconds) <= (now.seconds, now.nanoseconds));
    assert_eq!(attributes.modified, time(is.mtime(), is.mtime_nsec()));
    assert_eq!(attributes.changed, time(is.ctime(), is.ctime_nsec()));
    if attributes.mask & nix::libc::STATX_BTIME != 0 {
        let born = is.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(attributes.born, time(born.as_secs() as i64, i64::from(born.subsec_nanos())));
    }
}

/// One of each kind of inode, by name.
pub fn populate(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("dir/sub/file"), b"contents").unwrap();
    fs::write(root.join("file"), b"top").unwrap();
    symlink("dir/sub", root.join("link")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
    mknod(&root.join("whiteout"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
}

#[test]
fn walk_stops_where_a_name_leads_no_further() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let walk = |names: &[&str]| client.walk(top, &names.iter().map(|n| n.as_bytes()).collect::<Vec<_>>());
        let found = walk(&["dir", "sub", "file"]).unwrap();
        assert_eq!((found.entries.len(), &found.target, found.error), (3, &None, None));
        for (entry, path) in found.entries.iter().zip(["dir", "dir/sub", "dir/sub/file"]) {
            same(&entry.attributes, &root.join(path));
        }
        let found = walk(&["dir", "none", "file"]).unwrap();
        assert_eq!((found.entries.len(), found.error), (1, Some(Errno::ENOENT)));
        let found = walk(&["file", "x"]).unwrap();
        assert_eq!((found.entries.len(), found.error), (1, Some(Errno::ENOTDIR)));
        for names in [&["link"][..], &["link", "file"]] {
            let found = walk(names).unwrap();
            assert_eq!((found.entries.len(), found.error), (1, None));
            assert_eq!(found.target.as_deref(), Some(&b"dir/sub"[..]));
            same(&found.entries[0].attributes, &root.join("link"));
        }
        assert_eq!(walk(&[]).unwrap().entries.len(), 0);
        assert_eq!(walk(&["x"; 33]), Err(Errno::E2BIG));
        assert_eq!(walk(&[&"x".repeat(256)]), Err(Errno::ENAMETOOLONG));
        assert_eq!(walk(&[&"x".repeat(255)]).unwrap().error, Some(Errno::ENOENT));
        assert_eq!(walk(&[""]), Err(Errno::ENOENT));
        for name in [".", "..", "/", "a/b", "a\0b"] {
            assert_eq!(walk(&["dir", name]), Err(Errno::EINVAL), "{name:?}");
        }
        let deep: Vec<&str> = vec!["d"; 32];
        fs::create_dir_all(root.join(deep.join("/"))).unwrap();
        assert_eq!(walk(&deep).unwrap().entries.len(), 32);
        assert_eq!(client.lookup(top, b"nothing").err(), Some(Errno::ENOENT));
    });
}

#[test]
fn attributes_are_the_hosts() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let kinds = [
            ("dir", FileKind::Directory),
            ("file", FileKind::Regular),
            ("link", FileKind::Symlink),
            ("fifo", FileKind::Fifo),
            ("socket", FileKind::Socket),
            ("whiteout", FileKind::Character),
        ];
        for (name, kind) in kinds {
            let (node, attributes) = find(client, top, name);
            assert_eq!(attributes.kind(), Some(kind));
            same(&attributes, &root.join(name));
            same(&client.attributes(node).unwrap(), &root.join(name));
        }
        assert_eq!(client.read_link(find(client, top, "link").0).unwrap().as_ref(), b"dir/sub");
        assert_eq!(client.read_link(find(client, top, "file").0), Err(Errno::EINVAL));
    });
}

#[test]
fn open_gives_regular_files_only() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let (node, _) = find(client, top, "file");
        let (attributes, file) = client.open(node, OpenFlags::empty()).unwrap();
        same(&attributes, &root.join("file"));
        let mut file = File::from(file);
        let mut contents = String::new();
        file.read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "top");
        assert!(file.write(b"x").is_err());

        // The node is the inode: neither a rename nor a new file of its name make a difference.
        fs::rename(root.join("file"), root.join("dir/moved")).unwrap();
        fs::write(root.join("file"), b"another").unwrap();
        let (_, file) = client.open(node, OpenFlags::READ_WRITE).unwrap();
        File::from(file).write_all_at(b"T", 0).unwrap();
        assert_eq!(fs::read(root.join("dir/moved")).unwrap(), b"Top");
        let (attributes, _) = client.open(node, OpenFlags::WRITE_ONLY | OpenFlags::TRUNCATE).unwrap();
        assert_eq!(attributes.size, 0);
        assert_eq!(fs::read(root.join("file")).unwrap(), b"another");
        let (_, file) = client.open(node, OpenFlags::WRITE_ONLY | OpenFlags::APPEND).unwrap();
        fs::write(root.join("dir/moved"), b"12").unwrap();
        File::from(file).write_all(b"3").unwrap();
        assert_eq!(fs::read(root.join("dir/moved")).unwrap(), b"123");
        fs::remove_file(root.join("dir/moved")).unwrap();
        client.open(node, OpenFlags::SYNC | OpenFlags::NO_ATIME).unwrap();

        let open = |name| client.open(find(client, top, name).0, OpenFlags::empty()).err();
        assert_eq!(open("dir"), Some(Errno::EISDIR));
        assert_eq!(open("link"), Some(Errno::ELOOP));
        for name in ["fifo", "socket", "whiteout"] {
            assert_eq!(open(name), Some(Errno::ENXIO), "{name}");
        }
        for flags in [
            OpenFlags::TRUNCATE,
            OpenFlags::WRITE_ONLY | OpenFlags::READ_WRITE,
            OpenFlags::from_bits_retain(nix::libc::O_CREAT as u32),
            OpenFlags::from_bits_retain(nix::libc::O_PATH as u32),
        ] {
            assert_eq!(client.open(node, flags).err(), Some(Errno::EINVAL));
        }
        assert!(!client.is_broken());
    });
}

#[test]
fn directories_are_opened_where_allowed() {
    each(MountFlags::DIRECTORY_DESCRIPTORS, |client, top, root| {
        let (attributes, _) = client.open(top, OpenFlags::empty()).unwrap();
        same(&attributes, root);
        assert_eq!(client.open(top, OpenFlags::READ_WRITE).err(), Some(Errno::EISDIR));
    });
}

#[test]
fn new_inodes_have_the_owner_and_mode_asked_for() {
    if !superuser("owners of new inodes") {
        return;
    }
    each(MountFlags::empty(), |client, top, root| {
        // Neither directory nor umask let these ids do anything: the sentry has decided that they may.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
        for (n, mode) in [0o644, 0o666, 0o4755, 0o2755, 0o6711, 0o1777, 0].into_iter().enumerate() {
            let new = NewInode { mode, uid: 1234, gid: 4321 };
            let check = |name: &str, attributes: &Attributes, mode| {
                assert_eq!((attributes.uid, attributes.gid), (1234, 4321));
                assert_eq!(attributes.mode & 0o7777, mode, "{name}");
                same(attributes, &root.join(name));
            };
            let name = |kind: &str| format!("{kind}{n}");
            let file = name("file");
            let created = client.create(top, file.as_bytes(), OpenFlags::READ_WRITE, new).unwrap();
            check(&file, &created.attributes, mode);
            File::from(created.file).write_all(b"x").unwrap();
            assert_eq!(client.attributes(created.node).unwrap().size, 1);
            let again = client.create(top, file.as_bytes(), OpenFlags::READ_WRITE, new);
            assert_eq!(again.err(), Some(Errno::EEXIST));

            // mkdir(2) heeds no set-ID bits.
            let entry = client.mkdir(top, name("d").as_bytes(), new).unwrap();
            check(&name("d"), &entry.attributes, mode & 0o1777);
            assert_eq!(client.mkdir(top, name("d").as_bytes(), new), Err(Errno::EEXIST));
            for kind in [FileKind::Regular, FileKind::Fifo, FileKind::Socket] {
                let name = name(&format!("{kind:?}"));
                let entry = client.mknod(top, name.as_bytes(), kind, new).unwrap();
                assert_eq!(entry.attributes.kind(), Some(kind));
                check(&name, &entry.attributes, mode);
            }
            let entry = client.symlink(top, name("l").as_bytes(), b"/any/where", 1234, 4321).unwrap();
            check(&name("l"), &entry.attributes, 0o777);
            assert_eq!(fs::read_link(root.join(name("l"))).unwrap().to_str(), Some("/any/where"));
        }
        // The server is itself again.
        let created = client.create(top, b"own", OpenFlags::WRITE_ONLY, new(0o600)).unwrap();
        assert_eq!((created.attributes.uid, created.attributes.gid), (0, 0));
        let nobody = NewInode { mode: 0o600, uid: u32::MAX, gid: 0 };
        assert_eq!(client.mkdir(top, b"nobody", nobody), Err(Errno::EINVAL));
    });
}

#[test]
fn what_cannot_be_made_is_refused() {
    each(MountFlags::empty(), |client, top, root| {
        fs::write(root.join("file"), b"").unwrap();
        let (file, _) = find(client, top, "file");
        for kind in [FileKind::Character, FileKind::Block] {
            assert_eq!(client.mknod(top, b"device", kind, new(0)), Err(Errno::EPERM));
        }
        for kind in [FileKind::Directory, FileKind::Symlink] {
            assert_eq!(client.mknod(top, b"other", kind, new(0)), Err(Errno::EPERM));
        }
        let create = |dir, name: &[u8], mode| client.create(dir, name, OpenFlags::empty(), new(mode)).err();
        assert_eq!(create(file, b"x", 0), Some(Errno::ENOTDIR));
        assert_eq!(create(top, b"x", 0o10000), Some(Errno::EINVAL));
        assert_eq!(create(top, b"..", 0), Some(Errno::EINVAL));
        assert_eq!(create(top, b"a/b", 0), Some(Errno::EINVAL));
        assert_eq!(create(top, &[b'x'; 256], 0), Some(Errno::ENAMETOOLONG));
        assert_eq!(create(NodeId { index: 77, generation: 0 }, b"x", 0), Some(Errno::ESTALE));
        assert_eq!(client.mkdir(top, b"x", new(0o10000)), Err(Errno::EINVAL));
        assert_eq!(client.symlink(top, b"l", b"", 0, 0), Err(Errno::ENOENT));
        assert_eq!(client.symlink(top, b"l", &[b'x'; 4096], 0, 0), Err(Errno::ENAMETOOLONG));
        let NewInode { uid, gid, .. } = new(0);
        client.symlink(top, b"l", &[b'x'; 4095], uid, gid).unwrap();
        assert_eq!(client.lookup(top, b"l").unwrap().1.unwrap().len(), 4095);
        assert_eq!(fs::read_dir(root).unwrap().count(), 2);
    });
}

#[test]
fn unnamed_files_can_get_a_name() {
    each(MountFlags::empty(), |client, top, root| {
        let created = match client.create_unnamed(top, OpenFlags::READ_WRITE, new(0o640)) {
            Err(Errno::EOPNOTSUPP) => return eprintln!("skipped: the filesystem has no O_TMPFILE"),
            created => created.unwrap(),
        };
        assert_eq!((created.attributes.links, created.attributes.mode & 0o7777), (0, 0o640));
        File::from(created.file).write_all(b"unnamed").unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        assert_eq!(client.link(created.node, top, b"name").unwrap().links, 1);
        assert_eq!(fs::read(root.join("name")).unwrap(), b"unnamed");
        assert_eq!(client.create_unnamed(top, OpenFlags::empty(), new(0)).err(), Some(Errno::EINVAL));
    });
}

#[test]
fn links_unlinks_and_renames() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let (file, _) = find(client, top, "file");
        let (dir, _) = find(client, top, "dir");
        let attributes = client.link(file, dir, b"hard").unwrap();
        same(&attributes, &root.join("dir/hard"));
        assert_eq!(attributes.links, 2);
        assert_eq!(client.link(file, dir, b"hard"), Err(Errno::EEXIST));
        assert_eq!(client.link(dir, top, b"x"), Err(Errno::EPERM));
        // Of the symbolic link itself.
        let (link, _) = find(client, top, "link");
        client.link(link, top, b"link2").unwrap();
        assert_eq!(fs::read_link(root.join("link2")).unwrap().to_str(), Some("dir/sub"));

        assert_eq!(client.unlink(top, b"dir", false), Err(Errno::EISDIR));
        assert_eq!(client.unlink(top, b"dir", true), Err(Errno::ENOTEMPTY));
        assert_eq!(client.unlink(top, b"file", true), Err(Errno::ENOTDIR));
        assert_eq!(client.unlink(top, b"link", true), Err(Errno::ENOTDIR));
        assert_eq!(client.unlink(top, b"none", false), Err(Errno::ENOENT));
        assert_eq!(client.unlink(top, b"..", true), Err(Errno::EINVAL));
        for name in ["link2", "fifo", "socket", "whiteout"] {
            client.unlink(top, name.as_bytes(), false).unwrap();
            assert!(!root.join(name).exists());
        }
        client.mkdir(top, b"empty", new(0o755)).unwrap();
        client.unlink(top, b"empty", true).unwrap();

        let none = RenameFlags::empty();
        client.rename((top, b"file"), (dir, b"renamed"), none).unwrap();
        assert_eq!(
            client.attributes(file).unwrap().inode,
            fs::metadata(root.join("dir/renamed")).unwrap().ino()
        );
        let replace = |flags| client.rename((dir, b"renamed"), (dir, b"sub"), flags);
        assert_eq!(replace(RenameFlags::NO_REPLACE), Err(Errno::EEXIST));
        assert_eq!(replace(none), Err(Errno::EISDIR));
        replace(RenameFlags::EXCHANGE).unwrap();
        assert!(root.join("dir/sub").is_file() && root.join("dir/renamed").is_dir());
        assert_eq!(replace(RenameFlags::WHITEOUT), Err(Errno::EPERM));
        let (sub, _) = find(client, top, "dir/renamed");
        assert_eq!(client.rename((top, b"dir"), (sub, b"x"), none), Err(Errno::EINVAL));
        assert_eq!(client.rename((top, b"x"), (top, b".."), none), Err(Errno::EINVAL));
        let unknown = RenameFlags::from_bits_retain(8);
        assert_eq!(client.rename((dir, b"sub"), (top, b"x"), unknown), Err(Errno::EINVAL));
    });
}

#[test]
fn whiteouts_where_allowed() {
    each(MountFlags::WHITEOUTS, |client, top, root| {
        let entry = client.mknod(top, b"whiteout", FileKind::Character, new(0)).unwrap();
        same(&entry.attributes, &root.join("whiteout"));
        assert_eq!((entry.attributes.rdev_major, entry.attributes.rdev_minor), (0, 0));
        assert_eq!(client.open(entry.node, OpenFlags::empty()).err(), Some(Errno::ENXIO));
        fs::write(root.join("a"), b"a").unwrap();
        client.rename((top, b"a"), (top, b"b"), RenameFlags::WHITEOUT).unwrap();
        let left = fs::symlink_metadata(root.join("a")).unwrap();
        assert_eq!((left.mode() & nix::libc::S_IFMT, left.rdev()), (nix::libc::S_IFCHR, 0));
        assert_eq!(client.mknod(top, b"block", FileKind::Block, new(0)), Err(Errno::EPERM));
    });
}

#[test]
fn attributes_are_set() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let (file, before) = find(client, top, "dir/sub/file");
        let path = root.join("dir/sub/file");
        let set = |node, new: NewAttributes| client.set_attributes(node, &new);
        let none = NewAttributes::default();
        let mode = set(file, NewAttributes { mode: Some(0o4711), ..none }).unwrap();
        assert_eq!(mode.mode & 0o7777, 0o4711);
        same(&mode, &path);
        assert_eq!(set(file, NewAttributes { size: Some(100_000), ..none }).unwrap().size, 100_000);
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
        let accessed = Timestamp { seconds: -5, nanoseconds: 999_999_999 };
        let times = NewAttributes { accessed: Some(SetTime::To(accessed)), ..none };
        let got = set(file, times).unwrap();
        assert_eq!(got.accessed, accessed);
        assert!(got.modified.seconds >= before.modified.seconds);
        let modified = Timestamp { seconds: 1 << 31, nanoseconds: 1 };
        set(file, NewAttributes { modified: Some(SetTime::To(modified)), ..none }).unwrap();
        let now = set(file, NewAttributes { accessed: Some(SetTime::Now), ..none }).unwrap();
        assert_eq!(now.modified, modified);
        assert!(now.accessed.seconds >= before.changed.seconds);
        same(&now, &path);
        assert_eq!(set(file, none).unwrap(), now);

        let (dir, _) = find(client, top, "dir");
        let (link, _) = find(client, top, "link");
        let size = NewAttributes { size: Some(0), ..none };
        assert_eq!(set(dir, size), Err(Errno::EISDIR));
        assert_eq!(set(link, size), Err(Errno::EINVAL));
        assert_eq!(set(find(client, top, "fifo").0, size), Err(Errno::EINVAL));
        assert_eq!(set(file, NewAttributes { size: Some(u64::MAX), ..none }), Err(Errno::EINVAL));
        assert_eq!(set(file, NewAttributes { mode: Some(0o10000), ..none }), Err(Errno::EINVAL));
        assert_eq!(set(file, NewAttributes { uid: Some(u32::MAX), ..none }), Err(Errno::EINVAL));
        assert_eq!(set(link, NewAttributes { mode: Some(0), ..none }), Err(Errno::EOPNOTSUPP));
        let bad = Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
        assert_eq!(set(file, NewAttributes { accessed: Some(SetTime::To(bad)), ..none }), Err(Errno::EINVAL));
        // A symbolic link's own times; what it leads to keeps its.
        let before = fs::metadata(root.join("dir/sub")).unwrap().mtime();
        let got = set(link, NewAttributes { modified: Some(SetTime::To(modified)), ..none }).unwrap();
        assert_eq!(got.modified, modified);
        assert_eq!(fs::metadata(root.join("dir/sub")).unwrap().mtime(), before);
        for name in ["fifo", "socket", "dir"] {
            let (node, _) = find(client, top, name);
            let got =
                set(node, NewAttributes { mode: Some(0o711), accessed: Some(SetTime::Now), ..none }).unwrap();
            assert_eq!(got.mode & 0o7777, 0o711);
            same(&got, &root.join(name));
        }
        if superuser("chown") {
            let got =
                set(file, NewAttributes { uid: Some(7), gid: Some(8), mode: Some(0o4755), ..none }).unwrap();
            assert_eq!((got.uid, got.gid, got.mode & 0o7777), (7, 8, 0o4755));
            let got = set(file, NewAttributes { gid: Some(9), ..none }).unwrap();
            // As Linux does.
            assert_eq!((got.uid, got.gid, got.mode & 0o7777), (7, 9, 0o755));
            let got = set(link, NewAttributes { uid: Some(5), ..none }).unwrap();
            same(&got, &root.join("link"));
            assert_eq!(got.uid, 5);
            assert_ne!(fs::metadata(root.join("dir/sub")).unwrap().uid(), 5);
        }
    });
}

#[test]
fn statfs_is_the_hosts() {
    each(MountFlags::empty(), |client, top, root| {
        let (got, is) = (client.statfs(top).unwrap(), nix::sys::statfs::statfs(root).unwrap());
        assert_eq!(got.kind, is.filesystem_type().0 as u64);
        assert_eq!(
            (got.block_size, got.blocks, got.files),
            (is.block_size() as u64, is.blocks(), is.files())
        );
        assert_eq!(got.name_max, is.maximum_name_length() as u64);
    });
}

/// Reads a whole directory in batches.
fn list(client: &Client, node: NodeId, limit: u32, attributes: bool) -> BTreeMap<String, Option<Attributes>> {
    let mut found = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let batch = client.read_dir(node, cookie, limit, attributes).unwrap();
        for entry in batch.iter() {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            assert!(entry.attributes.is_none_or(|attributes| attributes.inode == entry.inode));
            assert!(found.insert(name, entry.attributes).is_none(), "twice");
            cookie = entry.cookie;
        }
        if batch.end {
            return found;
        }
        assert!(!batch.is_empty());
    }
}

#[test]
fn directories_are_read_in_batches() {
    each(MountFlags::empty(), |client, top, root| {
        assert!(list(client, top, 1, true).is_empty());
        populate(root);
        let many = root.join("dir/sub");
        for n in 0..700 {
            // Names of every length.
            fs::write(many.join(format!("{n:0width$}", width = n % 253 + 3)), b"").unwrap();
        }
        let (node, _) = find(client, top, "dir/sub");
        let expected: BTreeSet<String> =
            fs::read_dir(&many).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        for limit in [1, 300, 5000, 32768, u32::MAX] {
            for attributes in [false, true] {
                let found = list(client, node, limit, attributes);
                assert!(found.keys().eq(&expected), "{limit} {attributes}");
                for (name, got) in found {
                    assert_eq!(got.is_some(), attributes);
                    if let Some(got) = got {
                        same(&got, &many.join(name));
                    }
                }
            }
        }
        let kinds: BTreeMap<_, _> = client
            .read_dir(top, 0, 65536, false)
            .unwrap()
            .iter()
            .map(|entry| (entry.name.to_vec(), entry.kind.unwrap()))
            .collect();
        assert_eq!(kinds[&b"fifo"[..]], FileKind::Fifo);
        assert_eq!(kinds[&b"link"[..]], FileKind::Symlink);
        assert_eq!(kinds.len(), 6);

        // More directories at once than are kept open, each going on where it was.
        let first = client.read_dir(node, 0, 4000, false).unwrap();
        let mut cookies = [first.iter().last().unwrap().cookie; 8];
        let mut seen = [first.len(); 8];
        let nodes: Vec<NodeId> = (0..8).map(|_| find(client, top, "dir/sub").0).collect();
        for _ in 0..400 {
            for n in 0..8 {
                let batch = client.read_dir(nodes[n], cookies[n], 900, false).unwrap();
                seen[n] += batch.len();
                cookies[n] = batch.iter().last().map_or(cookies[n], |entry| entry.cookie);
            }
        }
        assert_eq!(seen, [expected.len(); 8]);
        // From the start again: with what is new.
        fs::write(many.join("new"), b"").unwrap();
        assert!(list(client, node, 32768, false).contains_key("new"));
        assert_eq!(client.read_dir(find(client, top, "file").0, 0, 1, false).err(), Some(Errno::ENOTDIR));
    });
}

#[test]
fn extended_attributes() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        let (file, _) = find(client, top, "file");
        if client.set_xattr(file, b"user.one", b"1", 0) == Err(Errno::EOPNOTSUPP) {
            return eprintln!("skipped: the filesystem has no user attributes");
        }
        assert_eq!(client.get_xattr(file, b"user.one").unwrap().as_ref(), b"1");
        assert_eq!(client.set_xattr(file, b"user.one", b"", 1), Err(Errno::EEXIST));
        assert_eq!(client.set_xattr(file, b"user.two", b"", 2), Err(Errno::ENODATA));
        assert_eq!(client.set_xattr(file, b"user.two", b"", 4), Err(Errno::EINVAL));
        client.set_xattr(file, b"user.two", &[0, 1, 255], 1).unwrap();
        client.set_xattr(file, b"user.empty", b"", 0).unwrap();
        assert_eq!(client.get_xattr(file, b"user.two").unwrap().as_ref(), [0, 1, 255]);
        assert_eq!(client.get_xattr(file, b"user.empty").unwrap().as_ref(), b"");
        let names = client.list_xattr(file).unwrap();
        let names: BTreeSet<&[u8]> = names.split_inclusive(|&b| b == 0).collect();
        assert_eq!(names, BTreeSet::from([&b"user.one\0"[..], b"user.two\0", b"user.empty\0"]));
        client.remove_xattr(file, b"user.one").unwrap();
        assert_eq!(client.remove_xattr(file, b"user.one"), Err(Errno::ENODATA));
        assert_eq!(client.get_xattr(file, b"user.one"), Err(Errno::ENODATA));
        client.set_xattr(top, b"user.dir", b"d", 0).unwrap();
        assert_eq!(client.get_xattr(top, b"user.dir").unwrap().as_ref(), b"d");
        let (link, _) = find(client, top, "link");
        assert_eq!(client.set_xattr(link, b"user.l", b"", 0), Err(Errno::EPERM));

        for name in [&b"trusted.overlay.opaque"[..], b"security.selinux", b"system.posix_acl_access", b"user"]
        {
            assert_eq!(client.get_xattr(file, name), Err(Errno::EOPNOTSUPP));
            assert_eq!(client.set_xattr(file, name, b"y", 0), Err(Errno::EOPNOTSUPP));
            assert_eq!(client.remove_xattr(file, name), Err(Errno::EOPNOTSUPP));
        }
        assert_eq!(client.get_xattr(file, b""), Err(Errno::ERANGE));
        assert_eq!(client.get_xattr(file, &[b'x'; 256]), Err(Errno::ERANGE));
        assert_eq!(client.set_xattr(file, b"user.big", &[0; 65536], 0), Err(Errno::E2BIG));
        if superuser("security.capability") {
            // Version 2, CAP_NET_RAW permitted.
            let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            client.set_xattr(file, b"security.capability", &value, 0).unwrap();
            assert_eq!(client.get_xattr(file, b"security.capability").unwrap().as_ref(), value);
            client.remove_xattr(file, b"security.capability").unwrap();
        }
    });
}

#[test]
fn overlay_attributes_where_allowed() {
    if !superuser("trusted attributes") {
        return;
    }
    each(MountFlags::TRUSTED_OVERLAY, |client, top, _| {
        client.set_xattr(top, b"trusted.overlay.opaque", b"y", 0).unwrap();
        assert_eq!(client.get_xattr(top, b"trusted.overlay.opaque").unwrap().as_ref(), b"y");
        assert_eq!(client.list_xattr(top).unwrap().as_ref(), b"trusted.overlay.opaque\0");
        assert_eq!(client.set_xattr(top, b"trusted.other", b"y", 0), Err(Errno::EOPNOTSUPP));
    });
}

#[test]
fn sync_takes_files_and_directories() {
    each(MountFlags::empty(), |client, top, root| {
        populate(root);
        for scope in [SyncScope::Node, SyncScope::Data, SyncScope::Filesystem] {
            client.sync(top, scope).unwrap();
            client.sync(find(client, top, "file").0, scope).unwrap();
            assert_eq!(client.sync(find(client, top, "fifo").0, scope), Err(Errno::EINVAL));
        }
    });
}

#[test]
fn connects_to_sockets_of_the_host_where_allowed() {
    for how in WAYS {
        for allowed in
            [MountFlags::HOST_UDS, MountFlags::empty(), MountFlags::HOST_UDS | MountFlags::READ_ONLY]
        {
            let root = tempdir().unwrap();
            let listener = UnixListener::bind(root.path().join("stream")).unwrap();
            let _datagram = UnixDatagram::bind(root.path().join("datagram")).unwrap();
            drop(UnixListener::bind(root.path().join("deserted")).unwrap());
            fs::write(root.path().join("file"), b"").unwrap();
            let (serving, top) = Serving::directory(how, root.path(), allowed);
            let client = serving.client();
            let connect = |name, kind| client.connect(find(client, top, name).0, kind);
            if allowed.contains(MountFlags::HOST_UDS) {
                let mut ours = UnixStream::from(connect("stream", SocketKind::Stream).unwrap());
                let (mut theirs, _) = listener.accept().unwrap();
                theirs.write_all(b"hello").unwrap();
                ours.set_nonblocking(false).unwrap();
                let mut got = [0; 5];
                ours.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"hello");
                connect("datagram", SocketKind::Datagram).unwrap();
                assert_eq!(connect("stream", SocketKind::SeqPacket).err(), Some(Errno::EPROTOTYPE));
                assert_eq!(connect("deserted", SocketKind::Stream).err(), Some(Errno::ECONNREFUSED));
            } else {
                assert_eq!(connect("stream", SocketKind::Stream).err(), Some(Errno::ECONNREFUSED));
            }
            assert_eq!(connect("file", SocketKind::Stream).err(), Some(Errno::ECONNREFUSED));
            serving.finish();
        }
    }
}

#[test]
fn read_only_mounts_cannot_be_changed() {
    each(MountFlags::READ_ONLY | MountFlags::WHITEOUTS | MountFlags::TRUSTED_OVERLAY, |client, top, root| {
        populate(root);
        let (file, before) = find(client, top, "file");
        let rofs = Some(Errno::EROFS);
        for flags in
            [OpenFlags::WRITE_ONLY, OpenFlags::READ_WRITE, OpenFlags::READ_WRITE | OpenFlags::TRUNCATE]
        {
            assert_eq!(client.open(file, flags).err(), rofs);
        }
        assert_eq!(client.create(top, b"x", OpenFlags::empty(), new(0)).err(), rofs);
        assert_eq!(client.create_unnamed(top, OpenFlags::READ_WRITE, new(0)).err(), rofs);
        assert_eq!(client.mkdir(top, b"x", new(0)).err(), rofs);
        assert_eq!(client.mknod(top, b"x", FileKind::Regular, new(0)).err(), rofs);
        assert_eq!(client.mknod(top, b"x", FileKind::Character, new(0)).err(), rofs);
        assert_eq!(client.symlink(top, b"x", b"y", 0, 0).err(), rofs);
        assert_eq!(client.link(file, top, b"x").err(), rofs);
        assert_eq!(client.unlink(top, b"file", false).err(), rofs);
        assert_eq!(client.rename((top, b"file"), (top, b"x"), RenameFlags::empty()).err(), rofs);
        let none = NewAttributes::default();
        for new in [
            NewAttributes { mode: Some(0), ..none },
            NewAttributes { uid: Some(0), ..none },
            NewAttributes { size: Some(0), ..none },
            NewAttributes { modified: Some(SetTime::Now), ..none },
        ] {
            assert_eq!(client.set_attributes(file, &new).err(), rofs);
        }
        assert_eq!(client.set_xattr(file, b"user.x", b"", 0).err(), rofs);
        assert_eq!(client.remove_xattr(file, b"user.x").err(), rofs);

        let (_, opened) = client.open(file, OpenFlags::empty()).unwrap();
        assert!(File::from(opened).write(b"x").is_err());
        assert_eq!(client.attributes(file).unwrap(), before);
        assert_eq!(fs::read_dir(root).unwrap().count(), 6);
    });
}

#[test]
fn a_read_only_descriptor_cannot_be_upgraded() {
    if !superuser("isolated mounts") {
        return;
    }
    let root = tempdir().unwrap();
    fs::write(root.path().join("file"), b"").unwrap();
    let (serving, top) = Serving::directory(How::Confined, root.path(), MountFlags::READ_ONLY);
    let (file, _) = find(serving.client(), top, "file");
    let (_, opened) = serving.client().open(file, OpenFlags::empty()).unwrap();
    let again = fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    assert_eq!(again.unwrap_err().raw_os_error(), Some(Errno::EROFS.raw()));
    serving.finish();
}
