//! Attempts to reach something outside the mount.

use crate::serving::{Serving, WAYS};
use abi::Errno;
use gofer::client::NewInode;
use gofer::protocol::{FileKind, OpenFlags, RenameFlags};
use gofer::{Client, MountFlags};
use nix::fcntl::{AT_FDCWD, renameat2};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::tempdir;

const ROUNDS: usize = 3000;

/// Ends the other thread also when this one panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls `attempt` many times, and until it has met either state, while another thread keeps exchanging two names.
/// `attempt` tells which state it met.
fn while_exchanging(a: &Path, b: &Path, mut attempt: impl FnMut() -> bool) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, a, AT_FDCWD, b, nix::fcntl::RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let _done = Done(&done);
        let mut met = [0, 0];
        while met[0] + met[1] < ROUNDS || met.contains(&0) {
            met[usize::from(attempt())] += 1;
        }
    });
}

fn read(client: &Client, node: gofer::protocol::NodeId) -> Option<String> {
    let (_, file) = client.open(node, OpenFlags::empty()).ok()?;
    let mut contents = String::new();
    File::from(file).read_to_string(&mut contents).unwrap();
    Some(contents)
}

#[test]
fn a_directory_that_turns_into_a_link_leads_nowhere() {
    for how in WAYS {
        let (inside, outside) = (tempdir().unwrap(), tempdir().unwrap());
        let root = inside.path();
        fs::create_dir(root.join("x")).unwrap();
        fs::write(root.join("x/name"), b"inside").unwrap();
        fs::write(outside.path().join("name"), b"outside").unwrap();
        symlink(outside.path(), root.join("y")).unwrap();
        let (serving, top) = Serving::directory(how, root, MountFlags::empty());
        let client = serving.client();
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let new = NewInode { mode: 0o755, uid: ids.0, gid: ids.1 };
        while_exchanging(&root.join("x"), &root.join("y"), || {
            let walked = client.walk(top, &[b"x", b"name"]).unwrap();
            if let [directory, file] = walked.entries[..] {
                assert_eq!(read(client, file.node).as_deref(), Some("inside"));
                let directory = directory.node;
                client.forget(client.mkdir(directory, b"made", new).unwrap().node);
                client.rename((directory, b"made"), (directory, b"moved"), RenameFlags::empty()).unwrap();
                client.unlink(directory, b"moved", true).unwrap();
                client.forget(client.create(directory, b"new", OpenFlags::WRITE_ONLY, new).unwrap().node);
                client.unlink(directory, b"new", false).unwrap();
            } else {
                assert_eq!(walked.target.as_deref(), Some(outside.path().as_os_str().as_encoded_bytes()));
                // The link itself is no directory, whatever is tried below it.
                let link = walked.entries[0].node;
                assert_eq!(client.walk(link, &[b"name"]).unwrap().error, Some(Errno::ENOTDIR));
                assert_eq!(client.mkdir(link, b"made", new), Err(Errno::ENOTDIR));
                assert_eq!(client.unlink(link, b"name", false), Err(Errno::ENOTDIR));
                assert_eq!(client.read_dir(link, 0, 1, true).err(), Some(Errno::ENOTDIR));
                assert_eq!(client.open(link, OpenFlags::empty()).err(), Some(Errno::ELOOP));
            }
            walked.entries.iter().for_each(|entry| client.forget(entry.node));
            walked.target.is_some()
        });
        assert_eq!(fs::read(outside.path().join("name")).unwrap(), b"outside");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        serving.finish();
    }
}

#[test]
fn a_file_that_turns_into_something_else_is_never_opened_as_that() {
    for how in WAYS {
        let (inside, outside) = (tempdir().unwrap(), tempdir().unwrap());
        let root = inside.path();
        fs::write(root.join("x"), b"inside").unwrap();
        fs::write(outside.path().join("secret"), b"outside").unwrap();
        symlink(outside.path().join("secret"), root.join("link")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (serving, top) = Serving::directory(how, root, MountFlags::empty());
        let client = serving.client();
        for other in ["link", "fifo"] {
            while_exchanging(&root.join("x"), &root.join(other), || {
                let (entry, _) = client.lookup(top, b"x").unwrap();
                let is_file = entry.attributes.kind() == Some(FileKind::Regular);
                assert_eq!(read(client, entry.node).as_deref(), is_file.then_some("inside"));
                client.forget(entry.node);
                is_file
            });
            // Whichever it is now, `x` must be the file again.
            if !fs::symlink_metadata(root.join("x")).unwrap().is_file() {
                let (x, other) = (root.join("x"), root.join(other));
                renameat2(AT_FDCWD, &x, AT_FDCWD, &other, nix::fcntl::RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        }
        assert!(!client.is_broken());
        serving.finish();
    }
}

#[test]
fn a_directory_moved_out_of_the_mount_does_not_take_us_along() {
    for how in WAYS {
        let base = tempdir().unwrap();
        let root = base.path().join("root");
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(base.path().join("secret"), b"outside").unwrap();
        let (serving, top) = Serving::directory(how, &root, MountFlags::empty());
        let client = serving.client();
        let walked = client.walk(top, &[b"d", b"e"]).unwrap();
        fs::rename(root.join("d"), base.path().join("d")).unwrap();
        for entry in &walked.entries {
            for names in [&[&b".."[..], b"secret"][..], &[b"../secret"], &[b"e", b"..", b"..", b"secret"]] {
                assert_eq!(client.walk(entry.node, names), Err(Errno::EINVAL));
            }
        }
        assert_eq!(client.lookup(top, b"d").err(), Some(Errno::ENOENT));
        serving.finish();
    }
}

#[test]
fn links_to_everywhere_are_only_text() {
    for how in WAYS {
        let root = tempdir().unwrap();
        let targets =
            ["/", "/etc/passwd", "../../../../etc/passwd", "/proc/self/root", "/proc/1/cwd", ".", ".."];
        for (n, target) in targets.iter().enumerate() {
            symlink(target, root.path().join(format!("l{n}"))).unwrap();
        }
        let (serving, top) = Serving::directory(how, root.path(), MountFlags::DIRECTORY_DESCRIPTORS);
        for (n, target) in targets.iter().enumerate() {
            let (entry, text) = serving.client().lookup(top, format!("l{n}").as_bytes()).unwrap();
            assert_eq!(text.as_deref(), Some(target.as_bytes()));
            assert_eq!(serving.client().open(entry.node, OpenFlags::empty()).err(), Some(Errno::ELOOP));
            assert_eq!(
                serving.client().statfs(entry.node).unwrap().kind,
                serving.client().statfs(top).unwrap().kind
            );
        }
        serving.finish();
    }
}
