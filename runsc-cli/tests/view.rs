//! What those find who enter the mount namespace of a container's process on the host, as Podman does.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use common::Runsc;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Whether there can be a view here. If not, says why, for the test to be skipped.
fn can_view() -> bool {
    let why_not = match File::options().read(true).write(true).open("/dev/fuse") {
        _ if !nix::unistd::geteuid().is_root() => Some("only root can enter namespaces".into()),
        Err(error) => Some(format!("/dev/fuse: {error}")),
        Ok(_) => None,
    };
    if let Some(why) = &why_not {
        eprintln!("skipped: views of containers: {why}");
    }
    why_not.is_none()
}

/// Does `work` in the mount namespace of a process.
fn inside<T: Send>(pid: i32, work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNS).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
}

fn of_podman(config: &mut Value) {
    config["annotations"] = json!({"io.container.manager": "libpod"});
    config["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
    ]);
}

/// Runs a container, and returns the pid of its process.
fn run(runsc: &Runsc, id: &str, change: impl FnOnce(&mut Value)) -> i32 {
    let bundle = runsc.bundle(id, &["sleep", "100000"], change);
    let mut run = runsc.command(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), id]);
    // The container has them, too: who reads them to their end would wait for its.
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    runsc.state(id)["pid"].as_i64().unwrap() as i32
}

#[test]
fn podman_finds_the_files_of_a_container() {
    need_sandbox!();
    if !can_view() {
        return;
    }
    let runsc = Runsc::without_cgroups();
    let pid = run(&runsc, "view", of_podman);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let view = mounts.lines().find(|line| line.contains(" - fuse ")).unwrap_or_default();
    assert!(view.contains(" / / rw,nosuid,nodev,noexec"), "{mounts}");
    inside(pid, || {
        assert!(fs::read_to_string("/etc/passwd").unwrap().contains("bob:x:1000"));
        assert!(fs::read_to_string("/../../proc/1/cmdline").unwrap().contains("sleep\0"));
        assert!(fs::read_to_string("/proc/1/status").unwrap().contains("Name:\tsleep"));
        fs::create_dir("/t/d").unwrap();
        fs::write("/t/d/f", vec![b'x'; 300_000]).unwrap();
        fs::set_permissions("/t/d/f", PermissionsExt::from_mode(0o4750)).unwrap();
        std::os::unix::fs::chown("/t/d/f", Some(1000), Some(100)).unwrap();
        // A change of owner takes the bit.
        assert_eq!(fs::metadata("/t/d/f").unwrap().mode(), 0o100750);
        fs::rename("/t/d/f", "/t/g").unwrap();
        fs::hard_link("/t/g", "/t/d/h").unwrap();
        assert_eq!(fs::metadata("/t/d/h").unwrap().ino(), fs::metadata("/t/g").unwrap().ino());
        symlink("/t/g", "/t/soft").unwrap();
        assert_eq!(fs::read("/t/soft").unwrap().len(), 300_000);
        // Nothing leads out, round in circles, or to the host's devices and programs.
        symlink("loop", "/t/loop").unwrap();
        assert_eq!(errno(fs::read("/t/loop")), Some(Errno::ELOOP));
        symlink("/../../../..", "/t/out").unwrap();
        assert_eq!(fs::metadata("/t/out").unwrap().ino(), fs::metadata("/").unwrap().ino());
        mknod("/t/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), nix::sys::stat::makedev(1, 3))
            .unwrap();
        assert_eq!(errno(File::open("/t/null")), Some(Errno::EACCES));
        assert_eq!(errno(Command::new("/bin/true").status()), Some(Errno::EACCES));
    });
    assert_eq!(
        runsc.ok(&["exec", "view", "stat", "-c", "%a %u %g %s %h", "/t/g"]).trim(),
        "750 1000 100 300000 2"
    );
    // What the guest does is seen at once, also in a directory that somebody is in.
    let (ask, asked) = std::sync::mpsc::channel::<&[&str]>();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let work = move || {
            let in_guest = |args| {
                ask.send(args).unwrap();
                is_done.recv().unwrap();
            };
            std::env::set_current_dir("/t/d").unwrap();
            let mut open = File::open("h").unwrap();
            in_guest(&["rm", "/t/d/h", "/t/g"]);
            in_guest(&["mkdir", "/t/d/h"]);
            assert!(fs::metadata("h").unwrap().is_dir());
            assert_eq!(errno(fs::metadata("/t/g")), Some(Errno::ENOENT));
            let mut data = Vec::new();
            open.read_to_end(&mut data).unwrap();
            assert_eq!(data.len(), 300_000);
            in_guest(&["rm", "-r", "/t/d"]);
            assert_eq!(errno(fs::write("new", "")), Some(Errno::ENOENT));
        };
        scope.spawn(move || inside(pid, work));
        // Here are the host's files.
        for args in asked {
            runsc.ok(&[&["exec", "view"], args].concat());
            done.send(()).unwrap();
        }
    });
    // Held, it can be looked at.
    runsc.ok(&["pause", "view"]);
    inside(pid, || assert!(fs::read_to_string("/proc/1/stat").unwrap().contains("(sleep)")));
    runsc.ok(&["resume", "view"]);
}

#[test]
fn others_get_no_view() {
    need_sandbox!();
    let runsc = Runsc::without_cgroups();
    let pid = run(&runsc, "plain", |_| {});
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(!mounts.contains("fuse"), "{mounts}");
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        assert_ne!(fs::read_to_string(task.path().join("comm")).unwrap().trim(), "view");
    }
}

#[test]
fn requests_end_with_the_sentry() {
    need_sandbox!();
    if !can_view() {
        return;
    }
    let runsc = Runsc::without_cgroups();
    let pid = run(&runsc, "ends", of_podman);
    let (entered, has_entered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            inside(pid, || {
                let file = File::open("/etc/passwd").unwrap();
                kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
                entered.send(()).unwrap();
                // These wait: for an answer, until nobody can give it any more.
                (errno((&file).read(&mut [0; 10])), errno(fs::read_dir("/")), errno(fs::metadata("/etc")))
            })
        });
        has_entered.recv().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let (read, listed, found) = reader.join().unwrap();
        for errno in [read, listed, found] {
            assert!(matches!(errno, Some(Errno::ENOTCONN | Errno::ECONNABORTED)), "{errno:?}");
        }
    });
    common::wait_until("the sentry is gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
}

/// What stands for a container of a pod has the host's files; who enters its mount namespace does not find them.
#[test]
fn what_stands_for_a_container_does_not_lead_to_the_host() {
    need_sandbox!();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can enter namespaces");
        return;
    }
    let runsc = Runsc::without_cgroups();
    run(&runsc, "pod", |_| {});
    let join = |config: &mut Value| {
        config["annotations"]["io.kubernetes.cri-o.ContainerType"] = "container".into();
        config["annotations"]["io.kubernetes.cri-o.SandboxID"] = "pod".into();
    };
    let plain = run(&runsc, "plain", join);
    inside(plain, || {
        assert_eq!(fs::read_dir("/").unwrap().count(), 0);
        assert_eq!(errno(fs::write("/x", "")), Some(Errno::EROFS));
    });
    if can_view() {
        let member = run(&runsc, "member", |config| {
            of_podman(config);
            join(config);
        });
        inside(member, || {
            assert!(fs::read_to_string("/proc/1/cmdline").unwrap().starts_with("sleep\0"));
            fs::write("/t/of-member", "x").unwrap();
        });
        assert_eq!(runsc.ok(&["exec", "member", "cat", "/t/of-member"]), "x");
        assert!(!fs::exists("/t/of-member").unwrap());
        // Signals still find their way from there.
        kill(Pid::from_raw(member), Signal::SIGKILL).unwrap();
        runsc.wait_for("member", "stopped");
    }
    kill(Pid::from_raw(plain), Signal::SIGTERM).unwrap();
}
