//! Mounts and their nodes: apart, forgotten, bounded, shared by channels.

use crate::operations::{each, find, new, populate, same};
use crate::serving::{How, Serving, WAYS, child, close_all_but, expect_success, mount, serve_confined};
use abi::Errno;
use gofer::protocol::{NodeId, OpenFlags, RenameFlags, SyncScope};
use gofer::{Client, MountFlags, channel_pair};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use tempfile::{TempDir, tempdir};

#[test]
fn several_mounts_are_apart() {
    for how in WAYS {
        let (a, b, c): (TempDir, TempDir, TempDir) =
            (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
        populate(a.path());
        fs::write(c.path().join("bound"), b"bound").unwrap();
        let mounts = vec![
            mount(a.path(), MountFlags::empty()),
            mount(b.path(), MountFlags::READ_ONLY),
            mount(&c.path().join("bound"), MountFlags::empty()),
            mount(a.path(), MountFlags::empty()),
        ];
        let serving = Serving::start(how, mounts);
        let client = serving.client();
        let root = |n| client.attach(n).unwrap();
        assert_eq!(client.attach(4).err(), Some(Errno::ENOENT));
        assert_eq!(client.attach(u32::MAX).err(), Some(Errno::ENOENT));
        same(&root(0).attributes, a.path());
        assert_eq!((root(0).flags, root(1).flags), (MountFlags::empty(), MountFlags::READ_ONLY));
        let (top, bound, again) = (root(0).node, root(2).node, root(3).node);
        let (file, _) = find(client, top, "file");
        assert_eq!(client.link(file, again, b"x"), Err(Errno::EXDEV));
        let rename = client.rename((top, b"file"), (again, b"x"), RenameFlags::empty());
        assert_eq!(rename, Err(Errno::EXDEV));

        same(&root(2).attributes, &c.path().join("bound"));
        let walked = client.walk(bound, &[b"x"]).unwrap();
        assert_eq!((walked.entries.len(), walked.error), (0, Some(Errno::ENOTDIR)));
        let (_, opened) = client.open(bound, OpenFlags::READ_WRITE).unwrap();
        File::from(opened).write_all(b"B").unwrap();
        assert_eq!(fs::read(c.path().join("bound")).unwrap(), b"Bound");
        assert_eq!(client.read_dir(bound, 0, 1, false).err(), Some(Errno::ENOTDIR));

        // Roots cannot be forgotten.
        client.forget(top);
        client.flush().unwrap();
        client.attributes(top).unwrap();
        serving.finish();
    }
}

#[test]
fn forgotten_nodes_are_stale_and_let_go_of_their_inodes() {
    each(MountFlags::empty(), |client, top, root| {
        fs::write(root.join("file"), vec![1; 1 << 20]).unwrap();
        let (file, _) = find(client, top, "file");
        let (other, _) = find(client, top, "file");
        assert_ne!(file, other);
        client.unlink(top, b"file", false).unwrap();
        assert_eq!(client.attributes(file).unwrap().links, 0);
        client.forget(file);
        // It went with this request.
        assert_eq!(client.attributes(file), Err(Errno::ESTALE));
        client.attributes(other).unwrap();
        client.forget(other);
        client.forget(other);
        client.forget(NodeId { index: u32::MAX, generation: u32::MAX });
        client.flush().unwrap();
        assert_eq!(client.open(other, OpenFlags::empty()).err(), Some(Errno::ESTALE));
        assert_eq!(client.walk(other, &[b"x"]).err(), Some(Errno::ESTALE));
        // A full list of nodes to forget leaves room for the longest requests.
        fs::create_dir(root.join("d")).unwrap();
        for _ in 0..3000 {
            client.forget(find(client, top, "d").0);
        }
        let nodes: Vec<_> = (0..3000).map(|_| find(client, top, "d").0).collect();
        nodes.iter().for_each(|&node| client.forget(node));
        let _ = client.symlink(top, &[b'n'; 255], &[b't'; 4095], new(0).uid, new(0).gid);
        nodes.iter().for_each(|&node| client.forget(node));
        let _ = client.set_xattr(top, b"user.x", &[0; gofer::protocol::XATTR_VALUE_MAX], 0);
        client.flush().unwrap();
        assert!(!client.is_broken());
    });
}

#[test]
fn forgetting_closes_all_that_was_open_of_a_node() {
    let root = tempdir().unwrap();
    populate(root.path());
    let (serving, top) = Serving::directory(How::Confined, root.path(), MountFlags::empty());
    let client = serving.client();
    let before = serving.descriptors();
    let (node, _) = find(client, top, "dir");
    assert_eq!(serving.descriptors(), before + 1);
    fs::write(root.path().join("dir/other"), b"").unwrap();
    // Half a directory stays open to be read on.
    assert!(!client.read_dir(node, 0, 1, false).unwrap().end);
    assert_eq!(serving.descriptors(), before + 2);
    client.forget(node);
    client.flush().unwrap();
    assert_eq!(serving.descriptors(), before);
    // To the end: closed at once.
    let (node, _) = find(client, top, "dir");
    assert!(client.read_dir(node, 0, 65536, false).unwrap().end);
    let (file, _) = find(client, top, "file");
    client.open(file, OpenFlags::READ_WRITE).unwrap();
    client.sync(file, SyncScope::Node).unwrap();
    assert_eq!(serving.descriptors(), before + 2);
    serving.finish();
}

#[test]
fn nodes_are_bounded_in_number() {
    let root = tempdir().unwrap();
    fs::write(root.path().join("file"), b"").unwrap();
    let (client, end) = channel_pair().unwrap();
    let mounts = vec![mount(root.path(), MountFlags::empty())];
    let server = child(move || {
        use nix::sys::resource::{Resource, setrlimit};
        // What other tests have open at the moment would count.
        close_all_but(&[end.as_raw_fd(), mounts[0].fd.as_raw_fd()]);
        setrlimit(Resource::RLIMIT_NOFILE, 300, 300).unwrap();
        serve_confined(end, mounts, |_| {});
    });
    let client = Client::new(client);
    let top = client.attach(0).unwrap().node;
    let mut held = Vec::new();
    let error = loop {
        match client.lookup(top, b"file") {
            Ok((entry, _)) => held.push(entry.node),
            Err(error) => break error,
        }
        assert!(held.len() < 300);
    };
    assert_eq!(error, Errno::ENFILE);
    assert!(held.len() > 200);
    // Nothing is made that could not be held, and all else goes on.
    assert_eq!(client.create(top, b"new", OpenFlags::READ_WRITE, new(0)).err(), Some(Errno::ENFILE));
    assert_eq!(client.mkdir(top, b"new", new(0)).err(), Some(Errno::ENFILE));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    client.open(held[0], OpenFlags::READ_WRITE).unwrap();
    client.forget(held.pop().unwrap());
    client.create(top, b"new", OpenFlags::READ_WRITE, new(0o600)).unwrap();
    drop(client);
    expect_success(server);
}

#[test]
fn several_channels_share_their_nodes() {
    let root = tempdir().unwrap();
    populate(root.path());
    let pairs: Vec<_> = (0..3).map(|_| channel_pair().unwrap()).collect();
    let (clients, ends): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mounts = vec![mount(root.path(), MountFlags::empty())];
    let server = child(move || {
        let confined = gofer::confine::confine(&ends, mounts, &[]).unwrap();
        gofer::server::serve_channels(ends, confined.server).unwrap();
    });
    let mut clients: Vec<Client> = clients.into_iter().map(Client::new).collect();
    let top = clients[0].attach(0).unwrap().node;
    let (node, _) = find(&clients[1], top, "dir/sub/file");
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(move || {
                for _ in 0..200 {
                    client.forget(find(client, top, "dir/sub").0);
                    client.open(node, OpenFlags::READ_WRITE).unwrap();
                }
            });
        }
    });
    while let Some(client) = clients.pop() {
        client.attributes(node).unwrap();
    }
    expect_success(server);
}
