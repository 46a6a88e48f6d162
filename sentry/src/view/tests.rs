//! Requests as a kernel would make them, and as it never would.

use std::sync::Arc;

use abi::Errno;
use abi::fuse::{
    FATTR_GID, FATTR_MODE, FATTR_MTIME, FATTR_SIZE, FATTR_UID, FUSE_BATCH_FORGET, FUSE_CREATE, FUSE_FORGET,
    FUSE_GETATTR, FUSE_INIT, FUSE_LINK, FUSE_LOOKUP, FUSE_MKDIR, FUSE_MKNOD, FUSE_OPEN, FUSE_OPENDIR,
    FUSE_READ, FUSE_READDIR, FUSE_READLINK, FUSE_RELEASE, FUSE_RENAME2, FUSE_RMDIR, FUSE_ROOT_ID,
    FUSE_SETATTR, FUSE_STATFS, FUSE_SYMLINK, FUSE_UNLINK, FUSE_WRITE, FuseAttr, FuseAttrOut,
    FuseBatchForgetIn, FuseCreateIn, FuseDirent, FuseEntryOut, FuseForgetIn, FuseForgetOne, FuseGetattrIn,
    FuseInHeader, FuseInitIn, FuseInitOut, FuseKstatfs, FuseLinkIn, FuseMkdirIn, FuseMknodIn, FuseOpenIn,
    FuseOpenOut, FuseOutHeader, FuseReadIn, FuseReleaseIn, FuseRename2In, FuseSetattrIn, FuseWriteIn,
    FuseWriteOut,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{MAX_DATA, View, take};
use crate::task::Task;
use crate::vfs::{Mount, MountFlags, MountNamespace, SuperBlock};

const ROOT: u64 = FUSE_ROOT_ID;

/// A server, and the task whose files it shows.
struct Served {
    view: View,
    task: Arc<Task>,
}

fn view() -> Served {
    let task = crate::task::testing::task();
    let view = View::new(task.namespaces().mount.clone());
    Served { view, task }
}

fn bytes<T: IntoBytes + Immutable>(value: T, rest: &[u8]) -> Vec<u8> {
    [value.as_bytes(), rest].concat()
}

impl Served {
    fn request(&mut self, opcode: u32, nodeid: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let len = (size_of::<FuseInHeader>() + body.len()) as u32;
        let header =
            FuseInHeader { len, opcode, nodeid, unique: 7, uid: 5, gid: 6, ..FuseInHeader::default() };
        let mut out = Vec::new();
        if !self.view.answer(&bytes(header, body), &mut out) {
            return Ok(Vec::new());
        }
        let mut rest = &out[..];
        let answer: FuseOutHeader = take(&mut rest).unwrap();
        assert_eq!((answer.len as usize, answer.unique), (out.len(), 7));
        if answer.error != 0 {
            assert!(rest.is_empty());
            return Err(Errno::from_raw(-answer.error));
        }
        Ok(rest.to_vec())
    }

    fn ask<T: FromBytes + Immutable + KnownLayout>(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
    ) -> Result<T, Errno> {
        let answer = self.request(opcode, node, body)?;
        take(&mut &answer[..])
    }

    fn lookup(&mut self, dir: u64, name: &[u8]) -> Result<FuseEntryOut, Errno> {
        self.ask(FUSE_LOOKUP, dir, &[name, b"\0"].concat())
    }

    fn attributes(&mut self, node: u64) -> Result<FuseAttr, Errno> {
        let answer: FuseAttrOut = self.ask(FUSE_GETATTR, node, FuseGetattrIn::default().as_bytes())?;
        Ok(answer.attr)
    }

    fn mkdir(&mut self, dir: u64, name: &str) -> FuseEntryOut {
        let body = bytes(FuseMkdirIn { mode: 0o755, umask: 0 }, &[name.as_bytes(), b"\0"].concat());
        self.ask(FUSE_MKDIR, dir, &body).unwrap()
    }

    /// Makes a file with contents, and returns its numbers: inode and open file.
    fn create(&mut self, dir: u64, name: &str, data: &[u8]) -> (u64, u64) {
        let new = FuseCreateIn { flags: libc_flags::RDWR, mode: 0o100640, ..FuseCreateIn::default() };
        let answer = self.request(FUSE_CREATE, dir, &bytes(new, &[name.as_bytes(), b"\0"].concat())).unwrap();
        let mut rest = &answer[..];
        let (entry, open): (FuseEntryOut, FuseOpenOut) = (take(&mut rest).unwrap(), take(&mut rest).unwrap());
        let write = FuseWriteIn { fh: open.fh, size: data.len() as u32, ..FuseWriteIn::default() };
        let written: FuseWriteOut = self.ask(FUSE_WRITE, entry.nodeid, &bytes(write, data)).unwrap();
        assert_eq!(written.size as usize, data.len());
        (entry.nodeid, open.fh)
    }

    fn read(&mut self, node: u64, fh: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.request(FUSE_READ, node, FuseReadIn { fh, size, ..FuseReadIn::default() }.as_bytes())
    }

    fn names(&mut self, dir: u64, size: u32) -> Vec<String> {
        let open: FuseOpenOut = self.ask(FUSE_OPENDIR, dir, FuseOpenIn::default().as_bytes()).unwrap();
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let read = FuseReadIn { fh: open.fh, offset, size, ..FuseReadIn::default() };
            let answer = self.request(FUSE_READDIR, dir, read.as_bytes()).unwrap();
            assert!(answer.len() <= size as usize);
            if answer.is_empty() {
                break;
            }
            let mut rest = &answer[..];
            while let Ok(entry) = take::<FuseDirent>(&mut rest) {
                names.push(String::from_utf8(rest[..entry.namelen as usize].to_vec()).unwrap());
                rest = &rest[(entry.namelen as usize).next_multiple_of(8)..];
                offset = entry.off;
            }
        }
        self.request(FUSE_RELEASE, dir, FuseReleaseIn { fh: open.fh, ..FuseReleaseIn::default() }.as_bytes())
            .unwrap();
        names.sort();
        names
    }
}

mod libc_flags {
    pub const RDWR: u32 = abi::fcntl::OpenFlags::O_RDWR.bits();
}

#[test]
fn a_kernel_can_do_with_files_what_it_wants() {
    let mut served = view();
    let init = FuseInitIn { major: 7, minor: 45, max_readahead: 4096, flags: u32::MAX };
    let answer: FuseInitOut = served.ask(FUSE_INIT, 0, init.as_bytes()).unwrap();
    assert_eq!((answer.major, answer.minor, answer.max_write), (7, 31, MAX_DATA as u32));

    let dir = served.mkdir(ROOT, "d");
    assert_eq!((dir.attr.mode, dir.attr.uid, dir.attr.gid), (0o40755, 5, 6));
    let (file, fh) = served.create(dir.nodeid, "f", b"contents");
    assert_eq!(served.read(file, fh, u32::MAX).unwrap(), b"contents");
    assert_eq!(served.attributes(file).unwrap().mode, 0o100640);

    let set = FuseSetattrIn {
        valid: FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_MTIME,
        mode: 0o4711,
        uid: 1,
        gid: 2,
        size: 4,
        mtime: -3i64 as u64,
        mtimensec: 999_999_999,
        ..FuseSetattrIn::default()
    };
    let answer: FuseAttrOut = served.ask(FUSE_SETATTR, file, set.as_bytes()).unwrap();
    let attr = answer.attr;
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o104711, 1, 2, 4));
    assert_eq!((attr.mtime as i64, attr.mtimensec), (-3, 999_999_999));
    let set = FuseSetattrIn { valid: FATTR_MTIME, mtimensec: 1_000_000_000, ..FuseSetattrIn::default() };
    assert_eq!(served.request(FUSE_SETATTR, file, set.as_bytes()), Err(Errno::EINVAL));

    let link: FuseEntryOut =
        served.ask(FUSE_LINK, ROOT, &bytes(FuseLinkIn { oldnodeid: file }, b"hard\0")).unwrap();
    assert_eq!((link.attr.ino, link.attr.nlink), (attr.ino, 2));
    let soft: FuseEntryOut = served.ask(FUSE_SYMLINK, ROOT, b"soft\0d/f\0").unwrap();
    assert_eq!(served.request(FUSE_READLINK, soft.nodeid, b"").unwrap(), b"d/f");
    assert_eq!(served.names(ROOT, 4096), [".", "..", "d", "hard", "soft"]);
    // One entry fits at a time.
    assert_eq!(served.names(ROOT, 32), [".", "..", "d", "hard", "soft"]);

    let rename = FuseRename2In { newdir: ROOT, flags: 0, padding: 0 };
    served.request(FUSE_RENAME2, dir.nodeid, &bytes(rename, b"f\0moved\0")).unwrap();
    assert_eq!(served.lookup(dir.nodeid, b"f"), Err(Errno::ENOENT));
    assert_eq!(served.lookup(ROOT, b"moved").unwrap().nodeid, file);
    served.request(FUSE_RMDIR, ROOT, b"d\0").unwrap();
    assert_eq!(served.request(FUSE_UNLINK, ROOT, b"d\0"), Err(Errno::ENOENT));
    let status: FuseKstatfs = served.ask(FUSE_STATFS, ROOT, b"").unwrap();
    assert_eq!((status.bsize, status.namelen), (4096, 255));
}

#[test]
fn what_is_mounted_is_seen() {
    let mut served = view();
    let point = served.mkdir(ROOT, "mnt");
    let task = served.task.clone();
    let ns: Arc<MountNamespace> = task.namespaces().mount.clone();
    let tmpfs = SuperBlock::make(crate::fs::tmpfs::Tmpfs::new(&crate::fs::tmpfs::TmpfsOptions::new(1 << 20)));
    let mount = Mount::new(tmpfs, MountFlags::empty(), b"none");
    let at = crate::vfs::operations::resolve(&task, None, b"/mnt", crate::vfs::WalkFlags::empty()).unwrap();
    ns.attach(crate::vfs::mount::MountTree::single(mount.clone()), &at).unwrap();
    let top = served.lookup(ROOT, b"mnt").unwrap();
    assert_ne!(top.nodeid, point.nodeid);
    served.mkdir(top.nodeid, "inside");
    assert_eq!(served.names(top.nodeid, 4096), [".", "..", "inside"]);
    // The root of a filesystem has the same number in both.
    assert_ne!(top.attr.ino, served.attributes(ROOT).unwrap().ino);
    mount.set_flags(MountFlags::RDONLY).unwrap();
    let body = bytes(FuseMkdirIn { mode: 0o755, umask: 0 }, b"more\0");
    assert_eq!(served.request(FUSE_MKDIR, top.nodeid, &body), Err(Errno::EROFS));
}

#[test]
fn names_are_of_one_component_and_lead_nowhere_else() {
    let mut served = view();
    let long = [b'x'; 300];
    let wrong: [(&[u8], Errno); 6] = [
        (b"", Errno::EINVAL),
        (b".", Errno::EINVAL),
        (b"..", Errno::EINVAL),
        (b"a/b", Errno::EINVAL),
        (b"../etc", Errno::EINVAL),
        (&long, Errno::ENAMETOOLONG),
    ];
    for (name, errno) in wrong {
        assert_eq!(served.lookup(ROOT, name), Err(errno));
        let body = bytes(FuseMkdirIn::default(), &[name, b"\0"].concat());
        assert_eq!(served.request(FUSE_MKDIR, ROOT, &body), Err(errno));
    }
    // Links are never followed here: a loop is two names.
    let a: FuseEntryOut = served.ask(FUSE_SYMLINK, ROOT, b"a\0b\0").unwrap();
    let _: FuseEntryOut = served.ask(FUSE_SYMLINK, ROOT, b"b\0a\0").unwrap();
    assert_eq!(served.request(FUSE_READLINK, a.nodeid, b"").unwrap(), b"b");
    assert_eq!(served.lookup(a.nodeid, b"x"), Err(Errno::ENOTDIR));
    assert_eq!(served.request(FUSE_OPEN, a.nodeid, FuseOpenIn::default().as_bytes()), Err(Errno::ELOOP));
}

#[test]
fn what_would_block_is_not_opened() {
    let mut served = view();
    for (name, mode) in [("fifo", 0o10644), ("device", 0o20644), ("socket", 0o140644)] {
        let new = FuseMknodIn { mode, rdev: 0x103, ..FuseMknodIn::default() };
        let body = bytes(new, &[name.as_bytes(), b"\0"].concat());
        let entry: FuseEntryOut = served.ask(FUSE_MKNOD, ROOT, &body).unwrap();
        assert_eq!(entry.attr.mode, mode);
        for flags in [0, libc_flags::RDWR] {
            let open = FuseOpenIn { flags, open_flags: 0 };
            assert_eq!(served.request(FUSE_OPEN, entry.nodeid, open.as_bytes()), Err(Errno::ENXIO));
        }
    }
}

#[test]
fn a_name_that_vanishes_keeps_its_inode_until_it_is_forgotten() {
    let mut served = view();
    let (file, fh) = served.create(ROOT, "f", b"data");
    // A guest removes it, and makes another.
    let task = served.task.clone();
    crate::vfs::operations::unlink(&task, None, b"/f", false).unwrap();
    assert_eq!(served.lookup(ROOT, b"f"), Err(Errno::ENOENT));
    assert_eq!(served.attributes(file).unwrap().nlink, 0);
    assert_eq!(served.read(file, fh, 10).unwrap(), b"data");
    let (other, other_fh) = served.create(ROOT, "f", b"new");
    assert_ne!(other, file);
    assert_eq!(served.lookup(ROOT, b"f").unwrap().nodeid, other);
    assert_eq!(served.view.nodes.count(), (2, 2));
    for fh in [fh, other_fh, other_fh, 99] {
        served
            .request(FUSE_RELEASE, file, FuseReleaseIn { fh, ..FuseReleaseIn::default() }.as_bytes())
            .unwrap();
    }
    served.request(FUSE_FORGET, file, FuseForgetIn { nlookup: 1 }.as_bytes()).unwrap();
    assert_eq!(served.attributes(file), Err(Errno::ESTALE));
    // It was named twice, and can be forgotten more often than that.
    let one = FuseForgetOne { nodeid: other, nlookup: 1 };
    let batch = bytes(FuseBatchForgetIn { count: 1, dummy: 0 }, one.as_bytes());
    served.request(FUSE_BATCH_FORGET, 0, &batch).unwrap();
    assert_eq!(served.view.nodes.count(), (1, 0));
    let many = FuseForgetOne { nodeid: other, nlookup: u64::MAX };
    // The count is more than there is.
    let batch = bytes(FuseBatchForgetIn { count: u32::MAX, dummy: 0 }, many.as_bytes());
    served.request(FUSE_BATCH_FORGET, 0, &batch).unwrap();
    assert_eq!(served.view.nodes.count(), (0, 0));
    assert_eq!(served.read(other, other_fh, 10), Err(Errno::EBADF));
}

#[test]
fn an_answer_that_nobody_takes_is_forgotten() {
    let mut served = view();
    let (file, fh) = served.create(ROOT, "f", b"");
    served.lookup(ROOT, b"f").unwrap();
    served.view.nodes.undo();
    assert_eq!(served.view.nodes.count(), (1, 1));
    served.request(FUSE_RELEASE, file, FuseReleaseIn { fh, ..FuseReleaseIn::default() }.as_bytes()).unwrap();
    served.request(FUSE_FORGET, file, FuseForgetIn { nlookup: 1 }.as_bytes()).unwrap();
    assert_eq!(served.view.nodes.count(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_request_does_harm(requests in prop::collection::vec(
        (0u32..60, 0u64..5, prop_oneof![
            prop::collection::vec(any::<u8>(), 0..120),
            // Numbers that are small enough to mean something.
            prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..8, 1 => any::<u8>()], 0..120),
        ]),
        1..8,
    )) {
        let mut served = view();
        served.create(ROOT, "f", b"x");
        for (opcode, node, body) in requests {
            let _ = served.request(opcode, node, &body);
        }
        let mut out = Vec::new();
        prop_assert!(!served.view.answer(b"short", &mut out));
    }
}
