//! What a confined process can and cannot do.

use crate::serving::{child, expect_killed, expect_success, mount, serve_confined, superuser};
use abi::Errno;
use gofer::client::{NewAttributes, NewInode};
use gofer::confine::{Skipped, confine};
use gofer::protocol::{OpenFlags, RenameFlags};
use gofer::server::MountRoot;
use gofer::{Client, MountFlags, channel_pair};
use nix::libc;
use nix::sys::signal::Signal;
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::tempdir;

/// openat2(2) without any restriction of its own.
fn openat2(directory: RawFd, path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    let mode = if flags & libc::O_CREAT != 0 { 0o600 } else { 0 };
    let how = [flags as u64, mode, 0];
    // SAFETY: the path is NUL-terminated, `how` is a struct open_how.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), how.as_ptr(), 24) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor is new.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as RawFd) })
}

/// Runs `attempt` in a confined child, with the descriptor of its root.
fn as_gofer(flags: MountFlags, attempt: impl FnOnce(RawFd)) -> nix::unistd::Pid {
    let root = tempdir().unwrap();
    fs::write(root.path().join("file"), b"x").unwrap();
    let pid = child(|| {
        let (ours, end) = channel_pair().unwrap();
        let mounts = vec![mount(root.path(), flags)];
        // Closed with all others.
        std::mem::forget(ours);
        // For the message of a panic.
        let errors = std::io::stderr();
        let _confined = confine(&[end], mounts, &[errors.as_fd()]).unwrap();
        // The mount's descriptor is the only directory above the standard ones.
        let is_root = |fd: &RawFd| openat2(*fd, c"file", libc::O_PATH).is_ok();
        attempt((3..10_000).find(is_root).unwrap());
    });
    // The directory must stay until the child is done.
    let status = nix::sys::wait::waitid(
        nix::sys::wait::Id::Pid(pid),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    );
    status.unwrap();
    pid
}

#[test]
fn nothing_but_the_mount_can_be_named() {
    if !superuser("an empty root") {
        return;
    }
    expect_success(as_gofer(MountFlags::empty(), |root| {
        let missing = Some(Errno::ENOENT);
        for path in [c"/etc/passwd", c"/proc/self/root/etc", c"/dev/null", c"../../../../etc/passwd"] {
            for from in [libc::AT_FDCWD, root] {
                assert_eq!(openat2(from, path, libc::O_RDONLY).err(), missing, "{path:?}");
            }
        }
        let above = openat2(root, c"../../..", libc::O_PATH).unwrap();
        openat2(above.as_raw_fd(), c"file", libc::O_RDWR).unwrap();
        let above = openat2(libc::AT_FDCWD, c"../../..", libc::O_PATH).unwrap();
        assert_eq!(openat2(above.as_raw_fd(), c"self", libc::O_PATH).err(), missing);
        assert!(openat2(libc::AT_FDCWD, c"/new", libc::O_CREAT | libc::O_WRONLY).is_err());
    }));
}

#[test]
fn a_read_only_mount_is_that_for_the_kernel_too() {
    if !superuser("isolated mounts") {
        return;
    }
    expect_success(as_gofer(MountFlags::READ_ONLY, |root| {
        for flags in [libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
            assert_eq!(openat2(root, c"file", flags).err(), Some(Errno::EROFS));
        }
        assert_eq!(openat2(root, c"new", libc::O_CREAT | libc::O_WRONLY).err(), Some(Errno::EROFS));
        openat2(root, c"file", libc::O_RDONLY).unwrap();
    }));
}

#[test]
fn other_system_calls_kill() {
    let call = |number: libc::c_long, args: [libc::c_long; 5]| {
        // SAFETY: the calls made here are to be refused before they look at anything; none would write to our memory.
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    };
    let path = c"file".as_ptr() as libc::c_long;
    let all = MountFlags::all() - MountFlags::READ_ONLY;
    let kills: &[(MountFlags, libc::c_long, [libc::c_long; 5])] = &[
        (all, libc::SYS_execve, [path, 0, 0, 0, 0]),
        (all, libc::SYS_fork, [0; 5]),
        (all, libc::SYS_clone, [0; 5]),
        (all, libc::SYS_ptrace, [0; 5]),
        (all, libc::SYS_kill, [1, 0, 0, 0, 0]),
        (all, libc::SYS_open, [path, 0, 0, 0, 0]),
        (all, libc::SYS_openat, [libc::AT_FDCWD.into(), path, libc::O_CREAT.into(), 0, 0]),
        (all, libc::SYS_openat, [libc::AT_FDCWD.into(), path, libc::O_TMPFILE.into(), 0, 0]),
        (all, libc::SYS_openat, [3, path, 0, 0, 0]),
        (all, libc::SYS_mmap, [0, 4096, libc::PROT_EXEC.into(), libc::MAP_PRIVATE.into(), -1]),
        (all, libc::SYS_mmap, [0, 4096, libc::PROT_READ.into(), libc::MAP_PRIVATE.into(), 3]),
        (all, libc::SYS_mprotect, [0, 4096, libc::PROT_EXEC.into(), 0, 0]),
        (all, libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0]),
        (all, libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 0, 0, 0]),
        (all, libc::SYS_mknodat, [3, path, (libc::S_IFCHR | 0o600).into(), 0x103, 0]),
        (all, libc::SYS_fchownat, [libc::AT_FDCWD.into(), path, 0, 0, 0]),
        (all, libc::SYS_sendmsg, [1000, 0, libc::MSG_NOSIGNAL.into(), 0, 0]),
        (all, libc::SYS_write, [1000, 0, 0, 0, 0]),
        (all, libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0]),
        (all, libc::SYS_mount, [0; 5]),
        (all, libc::SYS_chroot, [path, 0, 0, 0, 0]),
        (all, libc::SYS_setuid, [0; 5]),
        (all, libc::SYS_open_by_handle_at, [3, 0, 0, 0, 0]),
        (MountFlags::empty(), libc::SYS_socket, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0, 0]),
        (MountFlags::READ_ONLY, libc::SYS_unlinkat, [3, path, 0, 0, 0]),
        (MountFlags::READ_ONLY, libc::SYS_setfsuid, [0; 5]),
    ];
    for (flags, number, args) in kills {
        expect_killed(as_gofer(*flags, |_| call(*number, *args)), Signal::SIGSYS);
    }
    // The same with arguments as the server has them.
    expect_success(as_gofer(all, |_| {
        call(libc::SYS_socket, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, 0, 0]);
        call(libc::SYS_openat, [libc::AT_FDCWD.into(), path, libc::O_PATH.into(), 0, 0]);
    }));
}

#[test]
fn only_the_descriptors_given_stay_open() {
    let (root, report) = (tempdir().unwrap(), tempdir().unwrap());
    let log = File::create(report.path().join("log")).unwrap();
    let stray = File::open("/dev/null").unwrap();
    expect_success(child(|| {
        let (ours, end) = channel_pair().unwrap();
        let mounts = vec![mount(root.path(), MountFlags::empty())];
        // Their owners must not close them again.
        let closed = [stray.into_raw_fd(), ours.into_raw_fd()];
        let _confined = confine(&[end], mounts, &[log.as_fd()]).unwrap();
        for fd in closed {
            assert_eq!(confined_fstat(fd), Err(Errno::EBADF));
        }
        // There, so that nothing else comes in their place, but of no use.
        for fd in 0..3 {
            confined_fstat(fd).unwrap();
        }
        // SAFETY: descriptor 2 belongs to nobody in particular and is only borrowed here.
        let errors = unsafe { std::os::fd::BorrowedFd::borrow_raw(2) };
        assert_eq!(nix::unistd::write(errors, b"x"), Err(nix::errno::Errno::EBADF));
        nix::unistd::write(&log, b"logged").unwrap();
    }));
    assert_eq!(fs::read_to_string(report.path().join("log")).unwrap(), "logged");
}

fn confined_fstat(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: all-zero bytes are a valid struct statx.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and `out` has room for the structure.
    let done = unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_TYPE, &raw mut out) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

#[test]
fn capabilities_are_reduced() {
    if !superuser("capabilities") {
        return;
    }
    for (flags, expected) in [
        (MountFlags::READ_ONLY, 0xc),
        (MountFlags::empty(), 0x8000_00df),
        (MountFlags::READ_ONLY | MountFlags::HOST_UDS, 0xe),
        (MountFlags::TRUSTED_OVERLAY, 0x8020_00df),
    ] {
        let root = tempdir().unwrap();
        let (client, end) = channel_pair().unwrap();
        let mounts = vec![mount(root.path(), flags)];
        let pid = child(|| {
            serve_confined(end, mounts, |_| {});
        });
        let client = Client::new(client);
        client.attach(0).unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(set), expected, "{set} {flags:?}");
        }
        assert_eq!((field("CapInh"), field("CapAmb"), field("NoNewPrivs"), field("Seccomp:")), (0, 0, 1, 2));
        drop(client);
        expect_success(pid);
    }
}

/// A directory of an ordinary user's, and a server run by that user; in a user namespace if asked for.
fn as_ordinary_user(
    namespace: bool,
    test: impl FnOnce(&Client, gofer::protocol::NodeId),
) -> Option<fs::Metadata> {
    const USER: u32 = 54321;
    let base = tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = base.path().join("root");
    fs::create_dir(&root).unwrap();
    nix::unistd::chown(&root, Some(USER.into()), Some(USER.into())).unwrap();
    let (client, end) = channel_pair().unwrap();
    let (ready, started) = std::os::unix::net::UnixStream::pair().unwrap();
    let path = root.clone();
    let pid = child(move || {
        use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
        setgroups(&[]).unwrap();
        let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
        // Or the maps could not be written.
        nix::sys::prctl::set_dumpable(true).unwrap();
        if namespace {
            let flags = nix::sched::CloneFlags::CLONE_NEWUSER | nix::sched::CloneFlags::CLONE_NEWNS;
            if nix::sched::unshare(flags).is_err() {
                return;
            }
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", format!("0 {USER} 1")).unwrap();
            fs::write("/proc/self/gid_map", format!("0 {USER} 1")).unwrap();
        }
        // Opened in its own mount namespace.
        let fd = File::open(&path).unwrap().into();
        nix::unistd::write(&ready, b"x").unwrap();
        drop(ready);
        serve_confined(end, vec![MountRoot { fd, flags: MountFlags::empty() }], |skipped| {
            // In a namespace of its own, a user can do all there is to do.
            assert_eq!(skipped.is_empty(), namespace, "{skipped:?}");
        });
    });
    let mut byte = [0];
    let ready = nix::unistd::read(&started, &mut byte).unwrap() == 1;
    if ready {
        let client = Client::new(client);
        let top = client.attach(0).unwrap().node;
        test(&client, top);
        assert!(!client.is_broken());
        drop(client);
    }
    expect_success(pid);
    if ready { fs::metadata(root.join("file")).ok() } else { None }
}

#[test]
fn an_ordinary_user_owns_all_it_makes() {
    if !superuser("becoming somebody else") {
        return;
    }
    let made = as_ordinary_user(false, |client, top| {
        let new = NewInode { mode: 0o640, uid: 0, gid: 0 };
        let created = client.create(top, b"file", OpenFlags::READ_WRITE, new).unwrap();
        assert_eq!((created.attributes.uid, created.attributes.gid), (54321, 54321));
        let chown = NewAttributes { uid: Some(0), ..NewAttributes::default() };
        assert_eq!(client.set_attributes(created.node, &chown), Err(Errno::EPERM));
        client.set_xattr(created.node, b"user.x", b"y", 0).unwrap();
        client.mkdir(top, b"dir", NewInode { uid: 33, ..new }).unwrap();
        client.link(created.node, top, b"hard").unwrap();
    });
    assert_eq!(made.unwrap().uid(), 54321);
}

#[test]
fn in_a_user_namespace_unmapped_owners_overflow() {
    if !superuser("becoming somebody else") {
        return;
    }
    let made = as_ordinary_user(true, |client, top| {
        let new = NewInode { mode: 0o4750, uid: 0, gid: 0 };
        let created = client.create(top, b"file", OpenFlags::READ_WRITE, new).unwrap();
        assert_eq!(
            (created.attributes.uid, created.attributes.gid, created.attributes.mode),
            (0, 0, 0o104750)
        );
        let other = NewInode { mode: 0o750, uid: 33, gid: 33 };
        assert_eq!(client.mkdir(top, b"dir", other), Err(Errno::EOVERFLOW));
        assert_eq!(client.create(top, b"f2", OpenFlags::READ_WRITE, other).err(), Some(Errno::EOVERFLOW));
        let chown = NewAttributes { uid: Some(33), ..NewAttributes::default() };
        assert_eq!(client.set_attributes(created.node, &chown), Err(Errno::EINVAL));
        client.mkdir(top, b"dir", new).unwrap();
    });
    match made {
        Some(made) => assert_eq!(made.uid(), 54321),
        None => eprintln!("skipped: no user namespaces for ordinary users"),
    }
}

#[test]
fn mounts_below_a_root_are_part_of_it() {
    if !superuser("mounts") {
        return;
    }
    for flags in [MountFlags::empty(), MountFlags::READ_ONLY] {
        let root = tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(root.path().join("file"), b"x").unwrap();
        let (client, end) = channel_pair().unwrap();
        let path = root.path();
        let pid = child(|| {
            own_mount_namespace();
            let none = None::<&str>;
            let sub = path.join("sub");
            nix::mount::mount(none, &sub, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
            fs::write(sub.join("name"), b"below").unwrap();
            serve_confined(end, vec![mount(path, flags)], |skipped| assert!(skipped.is_empty()));
        });
        let client = Client::new(client);
        let top = client.attach(0).unwrap();
        let walked = client.walk(top.node, &[b"sub", b"name"]).unwrap();
        let [sub, name] = walked.entries[..] else { panic!("{walked:?}") };
        assert_ne!(name.attributes.dev_minor, top.attributes.dev_minor);
        let (attributes, _) = client.open(name.node, OpenFlags::empty()).unwrap();
        assert_eq!(attributes.size, 5);
        let rename = client.rename((top.node, b"file"), (sub.node, b"file"), RenameFlags::empty());
        let write = client.open(name.node, OpenFlags::READ_WRITE).err();
        if flags.contains(MountFlags::READ_ONLY) {
            assert_eq!((rename, write), (Err(Errno::EROFS), Some(Errno::EROFS)));
        } else {
            assert_eq!((rename, write), (Err(Errno::EXDEV), None));
            let (file, _) = client.lookup(top.node, b"file").unwrap();
            assert_eq!(client.link(file.node, sub.node, b"x"), Err(Errno::EXDEV));
            assert_eq!(client.unlink(top.node, b"sub", true), Err(Errno::EBUSY));
        }
        drop(client);
        expect_success(pid);
    }
}

#[test]
fn a_root_of_another_mount_namespace_is_served_and_reported() {
    if !superuser("mount namespaces") {
        return;
    }
    let root = tempdir().unwrap();
    fs::write(root.path().join("file"), b"x").unwrap();
    let (client, end) = channel_pair().unwrap();
    let mounts = vec![mount(root.path(), MountFlags::READ_ONLY)];
    let pid = child(|| {
        own_mount_namespace();
        serve_confined(end, mounts, |skipped| {
            assert_eq!(
                skipped.iter().map(Skipped::to_string).collect::<Vec<_>>(),
                ["isolating a mount: Invalid argument"]
            );
        });
    });
    let client = Client::new(client);
    let top = client.attach(0).unwrap().node;
    let (file, _) = client.lookup(top, b"file").unwrap();
    client.open(file.node, OpenFlags::empty()).unwrap();
    assert_eq!(client.open(file.node, OpenFlags::READ_WRITE).err(), Some(Errno::EROFS));
    drop(client);
    expect_success(pid);
}

/// Mounts made from here on are this process's own and end with it.
fn own_mount_namespace() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
}

#[test]
fn a_process_with_threads_is_not_confined() {
    expect_success(child(|| {
        let (_ours, end) = channel_pair().unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        let error = confine(&[end], Vec::new(), &[]).err().unwrap().to_string();
        assert!(error.starts_with("confining the gofer: checking that there is one thread: "), "{error}");
        drop(hold);
        let _ = thread.join();
    }));
}
