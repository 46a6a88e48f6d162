//! A client that sends anything to the server, and a server that answers anything to the client.

use crate::serving::{How, Random, Serving, child, descriptors, expect_success, mount};
use abi::Errno;
use gofer::client::{NewAttributes, NewInode, SocketKind};
use gofer::protocol::{
    Attach, Attributes, Connect, Create, Entry, FileKind, Link, MAX_MESSAGE, Make, Message, Node, NodeId,
    Open, OpenFlags, Operation, Parts, ReadDir, Rename, RenameFlags, ReplyHeader, RequestHeader,
    SetAttributes, Sync, SyncScope, Unlink, VERSION, Walk, Xattr,
};
use gofer::{Client, MountFlags, Server, channel_pair};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use tempfile::tempdir;

/// More rounds on request.
fn rounds(normal: usize) -> usize {
    std::env::var("GOFER_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(normal)
}

/// A request that is valid in form, on nodes that may exist.
fn request(random: &mut Random, message: &mut Message) {
    let operation = Operation::ALL[random.below(Operation::ALL.len())];
    let names: [&[u8]; 12] =
        [b"a", b"b", b"c", b"d", b"e", b"dir", b"link", b"file", b"f", b"..", b"/etc", &[b'x'; 255]];
    let indices = if random.below(2) == 0 { 3 } else { 40 };
    let generation = if random.below(2) == 0 { 0 } else { random.below(40) as u32 };
    let node = NodeId { index: random.below(indices) as u32, generation };
    let other = NodeId { index: 0, generation: 0 };
    let name = names[random.below(names.len())];
    let small = [0, 1, 2, 0o644, 0o1002, 0xffff_ffff][random.below(6)];
    let forgets = random.below(9).saturating_sub(6);
    message.truncate(0);
    let header = RequestHeader { operation: operation as u16, forgets: forgets as u16, sequence: small };
    message.put(&header).unwrap();
    for _ in 0..forgets {
        let (index, generation) = (random.below(64) as u32, random.below(40) as u32);
        message.put(&NodeId { index, generation }).unwrap();
    }
    match operation {
        Operation::Attach => message.put(&Attach { mount: random.below(3) as u32, version: VERSION }),
        Operation::Forget => Ok(()),
        Operation::Walk => {
            let count = random.below(5);
            message.put(&Walk { node, count: count as u32 }).unwrap();
            for _ in 0..count {
                let name = names[random.below(names.len())];
                message.put(&(name.len() as u8)).unwrap();
                message.put_bytes(name).unwrap();
            }
            Ok(())
        }
        Operation::Open => message.put(&Open { node, flags: small }),
        Operation::Create => {
            message.put(&Create { directory: node, flags: small & 3, mode: 0o644, uid: 0, gid: 0 }).unwrap();
            message.put_bytes(name)
        }
        Operation::Mkdir | Operation::Mknod | Operation::Symlink => {
            let kind = [0, 0o010000, 0o020000, 0o060000, 0o100000, 0o140000][random.below(6)];
            let (mode, name_len) = (0o755 | kind, name.len() as u32);
            message.put(&Make { directory: node, mode, uid: small & 1, gid: 0, name: name_len }).unwrap();
            message.put_bytes(name).unwrap();
            message.put_bytes(if operation == Operation::Symlink { b"../target" } else { b"" })
        }
        Operation::Link => {
            message.put(&Link { node, directory: other }).unwrap();
            message.put_bytes(name)
        }
        Operation::Unlink => {
            message.put(&Unlink { directory: node, is_directory: small & 1 }).unwrap();
            message.put_bytes(name)
        }
        Operation::Rename => {
            let old_name = name.len() as u32;
            let rename = Rename { old_directory: node, new_directory: other, flags: small & 7, old_name };
            message.put(&rename).unwrap();
            message.put_bytes(name).unwrap();
            message.put_bytes(names[random.below(names.len())])
        }
        Operation::SetAttributes => {
            let valid = random.below(256) as u32;
            message.put(&SetAttributes {
                node,
                valid,
                mode: 0o600,
                size: random.next() & 0xffff,
                ..Default::default()
            })
        }
        Operation::GetAttributes | Operation::Statfs | Operation::ReadLink | Operation::ListXattr => {
            message.put(&Node { node })
        }
        Operation::ReadDir => {
            let cookie = if small == 0 { random.next() } else { 0 };
            message.put(&ReadDir { node, cookie, limit: random.next() as u32, attributes: small & 1 })
        }
        Operation::GetXattr | Operation::SetXattr | Operation::RemoveXattr => {
            message.put(&Xattr { node, flags: small & 3, name: 6 }).unwrap();
            message.put_bytes(b"user.x").unwrap();
            message.put_bytes(&name[..name.len() * usize::from(operation == Operation::SetXattr)])
        }
        Operation::Sync => message.put(&Sync { node, scope: small & 1 }),
        Operation::Connect => message.put(&Connect { node, kind: small }),
    }
    .unwrap();
}

/// Changes some bytes, the length, or everything.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.extend((0..random.below(300)).map(|n| n as u8)),
        2 => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
        3 => {
            bytes.resize(random.below(MAX_MESSAGE), 0);
            bytes.iter_mut().skip(4).for_each(|byte| *byte = random.next() as u8);
        }
        _ => {
            for _ in 0..random.below(4) + 1 {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len().min(64));
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)];
                }
            }
        }
    }
}

#[test]
fn the_server_survives_any_request_and_keeps_no_descriptor() {
    for without_openat2 in [false, true] {
        let (root, outside) = (tempdir().unwrap(), tempdir().unwrap());
        fs::create_dir_all(root.path().join("dir/a")).unwrap();
        fs::write(root.path().join("file"), b"x").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        // A process of its own, since descriptors are counted.
        expect_success(child(|| {
            let before = descriptors();
            let flags = MountFlags::all() - MountFlags::READ_ONLY;
            let mounts = vec![mount(root.path(), flags), mount(root.path(), MountFlags::READ_ONLY)];
            let mut server = Server::new(mounts).unwrap();
            if without_openat2 {
                server.without_openat2();
            }
            let mut reply = Message::new();
            let mut message = Message::new();
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let mut succeeded = [0; 32];
            for _ in 0..rounds(60_000) {
                request(&mut random, &mut message);
                let mut bytes = message.as_bytes().to_vec();
                if random.below(3) == 0 {
                    mutate(&mut random, &mut bytes);
                }
                let outcome = server.handle(&bytes, &mut reply);
                if bytes.len() < size_of::<RequestHeader>() {
                    assert!(outcome.is_err());
                    continue;
                }
                let outcome = outcome.unwrap();
                let header: ReplyHeader = Parts::new(reply.as_bytes()).get().unwrap();
                assert_eq!(header.descriptors, u16::from(outcome.is_some()));
                assert!(
                    header.error < 4096 && (header.error == 0 || reply.len() == size_of::<ReplyHeader>())
                );
                if header.error == 0 {
                    succeeded[usize::from(header.operation)] += 1;
                }
                // Mutated forgets never remove the roots.
                assert!(server.held() >= 2 && server.held() < 2000, "{}", server.held());
            }
            // An ordinary user takes its own permissions away at some point.
            let all = if nix::unistd::geteuid().is_root() { Operation::ALL } else { &[] };
            for operation in all.iter().filter(|&&operation| operation != Operation::Connect) {
                assert!(succeeded[*operation as usize] > 0, "{operation:?} never succeeded");
            }
            assert!(descriptors() <= before + server.held() + 4, "streams and nodes only");
            drop(server);
            assert_eq!(descriptors(), before);
        }));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!outside.path().parent().unwrap().join("target").exists());
    }
}

#[test]
fn the_server_takes_no_path_for_a_name() {
    let base = tempdir().unwrap();
    fs::create_dir_all(base.path().join("root/dir")).unwrap();
    fs::write(base.path().join("root/file"), b"x").unwrap();
    for without_openat2 in [false, true] {
        let mounts = vec![mount(&base.path().join("root"), MountFlags::all() - MountFlags::READ_ONLY)];
        let mut server = Server::new(mounts).unwrap();
        if without_openat2 {
            server.without_openat2();
        }
        let (root, dir) = (NodeId { index: 0, generation: 0 }, NodeId { index: 1, generation: 0 });
        let mut reply = Message::new();
        let mut ask = |operation: Operation, put: &dyn Fn(&mut Message) -> abi::Result<()>| {
            let mut request = Message::new();
            let header = RequestHeader { operation: operation as u16, forgets: 0, sequence: 1 };
            request.put(&header).and_then(|()| put(&mut request)).unwrap();
            assert!(server.handle(request.as_bytes(), &mut reply).unwrap().is_none());
            Parts::new(reply.as_bytes()).get::<ReplyHeader>().unwrap().error as i32
        };
        let walk = |name: &[u8], m: &mut Message| {
            m.put(&Walk { node: root, count: 1 })?;
            m.put(&(name.len() as u8))?;
            m.put_bytes(name)
        };
        assert_eq!(ask(Operation::Walk, &|m| walk(b"dir", m)), 0);
        let bad: [(&[u8], Errno); 7] = [
            (b"", Errno::ENOENT),
            (b".", Errno::EINVAL),
            (b"..", Errno::EINVAL),
            (b"/", Errno::EINVAL),
            (b"../name", Errno::EINVAL),
            (b"dir/x", Errno::EINVAL),
            (b"x\0y", Errno::EINVAL),
        ];
        for (name, error) in bad {
            let error = error.raw();
            let len = name.len() as u32;
            assert_eq!(ask(Operation::Walk, &|m| walk(name, m)), error);
            for (operation, mode) in
                [(Operation::Mkdir, 0o755), (Operation::Mknod, 0o100644), (Operation::Symlink, 0)]
            {
                let make = Make { directory: dir, mode, uid: 0, gid: 0, name: len };
                let put = |m: &mut Message| {
                    m.put(&make)?;
                    m.put_bytes(name)?;
                    m.put_bytes(if operation == Operation::Symlink { b"target" } else { b"" })
                };
                assert_eq!(ask(operation, &put), error, "{operation:?}");
            }
            if !name.is_empty() {
                let create = Create { directory: dir, flags: 1, mode: 0o600, uid: 0, gid: 0 };
                assert_eq!(
                    ask(Operation::Create, &|m| m.put(&create).and_then(|()| m.put_bytes(name))),
                    error
                );
            }
            let link = Link { node: dir, directory: dir };
            assert_eq!(ask(Operation::Link, &|m| m.put(&link).and_then(|()| m.put_bytes(name))), error);
            let unlink = Unlink { directory: dir, is_directory: 1 };
            assert_eq!(ask(Operation::Unlink, &|m| m.put(&unlink).and_then(|()| m.put_bytes(name))), error);
            for (old, new) in [(name, &b"file"[..]), (b"file", name)] {
                let old_name = old.len() as u32;
                let rename = Rename { old_directory: root, new_directory: dir, flags: 0, old_name };
                let put = |m: &mut Message| {
                    m.put(&rename)?;
                    m.put_bytes(old)?;
                    m.put_bytes(new)
                };
                assert_eq!(ask(Operation::Rename, &put), error);
            }
        }
    }
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(base.path().join("root/dir")).unwrap().count(), 0);
}

#[test]
fn the_server_ends_a_channel_that_makes_no_sense() {
    let root = tempdir().unwrap();
    let file = File::open(root.path()).unwrap();
    let attack = |bytes: &[u8], descriptors: &[i32]| {
        let (ours, theirs) = channel_pair().unwrap();
        let mounts = vec![mount(root.path(), MountFlags::empty())];
        let server = std::thread::spawn(move || gofer::serve(theirs, mounts));
        let control = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &control };
        sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), None).unwrap();
        let mut reply = [0; 1024];
        let got = recv(ours.as_raw_fd(), &mut reply, MsgFlags::empty());
        assert!(matches!(got, Ok(0) | Err(nix::errno::Errno::ECONNRESET)), "{got:?}");
        server.join().unwrap().unwrap();
    };
    attack(b"short", &[]);
    attack(b"", &[]);
    attack(&vec![0; MAX_MESSAGE + 1], &[]);
    // A descriptor would be kept open by nobody.
    attack(&[0; 64], &[file.as_raw_fd(); 5]);
}

/// Answers each request with what `answer` makes of it, until the client gives up.
fn false_server(mut answer: impl FnMut(&[u8]) -> (Vec<u8>, Vec<OwnedFd>) + Send + 'static) -> Client {
    let (client, end) = channel_pair().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let len = match recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) if len > 0 => len,
                _ => break,
            };
            let (bytes, descriptors) = answer(&buffer[..len]);
            let descriptors: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
            let control = [ControlMessage::ScmRights(&descriptors)];
            let control = if descriptors.is_empty() { &[][..] } else { &control };
            let bytes = [IoSlice::new(&bytes)];
            if sendmsg::<()>(end.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None).is_err() {
                break;
            }
        }
    });
    Client::new(client)
}

/// Makes every kind of request; the outcomes do not matter.
fn ask_everything(client: &Client) {
    let node = NodeId::default();
    let new = NewInode { mode: 0, uid: 0, gid: 0 };
    let _ = client.attach(0);
    let _ = client.walk(node, &[b"a", b"b", b"c"]);
    let _ = client.lookup(node, b"a");
    let _ = client.open(node, OpenFlags::empty());
    let _ = client.create(node, b"a", OpenFlags::empty(), new);
    let _ = client.mkdir(node, b"a", new);
    let _ = client.symlink(node, b"a", b"b", 0, 0);
    let _ = client.mknod(node, b"a", FileKind::Fifo, new);
    let _ = client.link(node, node, b"a");
    let _ = client.unlink(node, b"a", false);
    let _ = client.rename((node, b"a"), (node, b"b"), RenameFlags::empty());
    let _ = client.set_attributes(node, &NewAttributes::default());
    let _ = client.attributes(node);
    let _ = client.statfs(node);
    if let Ok(batch) = client.read_dir(node, 0, 100, true) {
        assert_eq!(batch.iter().count(), batch.len());
        for entry in batch.iter() {
            assert!(!entry.name.contains(&b'/') && !entry.name.is_empty() && entry.name != b"..");
        }
    }
    if let Ok(target) = client.read_link(node) {
        assert!(!target.is_empty() && target.len() < 4096 && !target.contains(&0));
    }
    let _ = client.get_xattr(node, b"user.x");
    if let Ok(names) = client.list_xattr(node) {
        assert!(names.last().is_none_or(|&last| last == 0));
    }
    let _ = client.sync(node, SyncScope::Node);
    let _ = client.connect(node, SocketKind::Stream);
    client.forget(node);
    let _ = client.flush();
}

#[test]
fn the_client_survives_any_reply_and_keeps_no_descriptor() {
    expect_success(child(|| {
        let root = tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink("target", root.path().join("link")).unwrap();
        let mut random = Random(0x1234_5678_9abc_def1);
        let before = descriptors();
        for round in 0..rounds(3000) {
            let path = root.path().to_path_buf();
            let mut server = Server::new(vec![mount(&path, MountFlags::READ_ONLY)]).unwrap();
            let mut reply = Message::new();
            let mut theirs = Random(random.next() | 1);
            // True answers, some of them mutated, with and without descriptors that were not asked for.
            let client = false_server(move |request| {
                let _ = server.handle(request, &mut reply);
                let mut bytes = reply.as_bytes().to_vec();
                if theirs.below(3) == 0 {
                    mutate(&mut theirs, &mut bytes);
                    // In sequence, or nothing more would be looked at.
                    if theirs.below(4) > 0 && bytes.len() >= 16 {
                        bytes[..2].copy_from_slice(&request[..2]);
                        bytes[4..8].copy_from_slice(&request[4..8]);
                        if theirs.below(2) == 0 {
                            bytes[8..12].fill(0);
                        }
                    }
                }
                if bytes.is_empty() {
                    bytes.push(0);
                }
                let number = [0, 0, 1, 2, 9][theirs.below(5)];
                (bytes, (0..number).map(|_| File::open("/dev/null").unwrap().into()).collect())
            });
            ask_everything(&client);
            drop(client);
            if round % 100 == 0 {
                settle(before + 2);
            }
        }
        settle(before);
    }));
}

/// Waits until threads that are ending have closed their descriptors.
fn settle(expected: usize) {
    for _ in 0..20_000 {
        if descriptors() <= expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{} descriptors, not {expected}", descriptors());
}

/// A reply in the right form to the request, with this error and body.
fn reply_to(request: &[u8], error: u32, body: &[&[u8]]) -> Vec<u8> {
    let header: RequestHeader = Parts::new(request).get().unwrap();
    let (operation, sequence) = (header.operation, header.sequence);
    let mut message = Message::new();
    message.put(&ReplyHeader { operation, descriptors: 0, sequence, error }).unwrap();
    body.iter().for_each(|part| message.put_bytes(part).unwrap());
    message.as_bytes().to_vec()
}

#[test]
fn the_client_believes_no_impossible_reply() {
    use zerocopy::IntoBytes;
    let good = Attributes { mode: 0o100644, links: 1, ..Attributes::default() };
    let attributes = |attributes: Attributes| {
        let client =
            false_server(move |request| (reply_to(request, 0, &[attributes.as_bytes()]), Vec::new()));
        let got = client.attributes(NodeId::default());
        assert_eq!(client.is_broken(), got.is_err());
        got
    };
    assert_eq!(attributes(good), Ok(good));
    let mut late = good;
    late.born.nanoseconds = 1_000_000_000;
    for bad in [
        Attributes { mode: 0o644, ..good },
        Attributes { mode: 0o170644, ..good },
        Attributes { mode: 0o100644 | 1 << 16, ..good },
        Attributes { size: 1 << 63, ..good },
        Attributes { blocks: u64::MAX, ..good },
        late,
    ] {
        assert_eq!(attributes(bad), Err(Errno::EIO), "{bad:?}");
    }

    let error = |error| {
        let client = false_server(move |request| (reply_to(request, error, &[]), Vec::new()));
        (client.attributes(NodeId::default()).unwrap_err(), client.is_broken())
    };
    assert_eq!(error(2), (Errno::ENOENT, false));
    // The restart codes of the kernel are no business of the other side.
    for code in [512, 513, 514, 516, 4096, 41, u32::MAX] {
        assert_eq!(error(code), (Errno::EIO, true), "{code}");
    }

    let link = |target: &'static [u8]| {
        let client = false_server(move |request| (reply_to(request, 0, &[target]), Vec::new()));
        client.read_link(NodeId::default())
    };
    assert_eq!(link(b"ok").unwrap().as_ref(), b"ok");
    for bad in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        assert_eq!(link(bad), Err(Errno::EIO));
    }

    // A symbolic link in the middle of a walk, as if it were a directory.
    let client = false_server(move |request| {
        let mut entry = Entry { node: NodeId::default(), attributes: good };
        entry.attributes.mode = 0o120777;
        let reply = [2u32, 0, 0, 0];
        (reply_to(request, 0, &[reply.as_bytes(), entry.as_bytes(), entry.as_bytes()]), Vec::new())
    });
    assert_eq!(client.walk(NodeId::default(), &[b"a", b"b"]).err(), Some(Errno::EIO));
}

#[test]
fn a_descriptor_of_the_wrong_kind_is_refused() {
    use zerocopy::IntoBytes;
    for wrong in ["pipe", "device", "socket"] {
        let client = false_server(move |request| {
            let good = Attributes { mode: 0o100644, ..Attributes::default() };
            let mut bytes = reply_to(request, 0, &[good.as_bytes()]);
            bytes[2] = 1;
            let descriptor: OwnedFd = match wrong {
                "pipe" => nix::unistd::pipe().unwrap().0,
                "device" => File::open("/dev/null").unwrap().into(),
                _ => channel_pair().unwrap().0,
            };
            (bytes, vec![descriptor])
        });
        assert_eq!(client.open(NodeId::default(), OpenFlags::empty()).err(), Some(Errno::EIO), "{wrong}");
        assert!(client.is_broken());
    }
}

#[test]
fn a_dead_server_is_an_error_and_no_hang() {
    let root = tempdir().unwrap();
    let (mut serving, top) = Serving::directory(How::Confined, root.path(), MountFlags::empty());
    serving.client().attributes(top).unwrap();
    serving.kill();
    assert_eq!(serving.client().attributes(top), Err(Errno::EIO));
    assert_eq!(serving.client().attributes(top), Err(Errno::EIO));
    assert!(serving.client().is_broken());
    serving.client().forget(top);
    assert_eq!(serving.client().flush(), Err(Errno::EIO));

    // While it waits for the answer, too.
    let (client, end) = channel_pair().unwrap();
    let client = Client::new(client);
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        drop(end);
    });
    assert_eq!(client.attributes(NodeId::default()), Err(Errno::EIO));
    server.join().unwrap();
    // And one that answers what nobody asked.
    let (client, end) = channel_pair().unwrap();
    send(end.as_raw_fd(), &[0; 16], MsgFlags::empty()).unwrap();
    let _keep = end.as_fd();
    assert_eq!(Client::new(client).attributes(NodeId::default()), Err(Errno::EIO));
}

#[test]
fn a_server_that_does_not_answer_is_an_error_and_no_hang() {
    let (client, _silent) = channel_pair().unwrap();
    // Less patience than the sentry has.
    let limit = TimeVal::milliseconds(10);
    setsockopt(&client, sockopt::ReceiveTimeout, &limit).unwrap();
    let client = Client::new(client);
    assert_eq!(client.attributes(NodeId::default()), Err(Errno::EIO));
    assert!(client.is_broken());
    assert_eq!(client.attributes(NodeId::default()), Err(Errno::EIO));
}
