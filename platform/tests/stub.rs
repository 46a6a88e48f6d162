//! Stub processes by themselves: commands, forks, memory, and what happens when they die.

use platform::stub::{Options, Template, check_range};
use platform::{Change, Death, Errno, PAGE_SIZE, Prot, USER_MAX, USER_MIN};

const A: u64 = 0x10_0000_0000;

fn template() -> Template {
    Template::new(&Options::default()).unwrap()
}

fn anonymous(pages: u64) -> Change<'static> {
    Change::MapAnonymous { addr: A, len: pages * PAGE_SIZE, prot: Prot::READ | Prot::WRITE }
}

#[test]
fn ranges() {
    assert_eq!(check_range(USER_MIN, PAGE_SIZE), Ok(()));
    assert_eq!(check_range(USER_MAX - PAGE_SIZE, PAGE_SIZE), Ok(()));
    for (addr, len) in [
        (0, PAGE_SIZE),
        (A, 0),
        (A + 1, PAGE_SIZE),
        (A, 1),
        (USER_MAX, PAGE_SIZE),
        (USER_MAX - PAGE_SIZE, 2 * PAGE_SIZE),
        (A, u64::MAX - PAGE_SIZE + 1),
    ] {
        assert_eq!(check_range(addr, len), Err(Errno::EINVAL), "{addr:#x}+{len:#x}");
    }
}

#[test]
fn memory() {
    let template = template();
    let stub = template.spawn().unwrap();
    assert_eq!(stub.write_batch(&[(A, b"x")]), Ok(0));
    stub.apply(&[anonymous(2)]).unwrap();
    assert_eq!(stub.write_batch(&[(A + 10, b"hello"), (A + 4094, b"world")]), Ok(10));
    let (mut a, mut b) = ([0; 5], [0; 5]);
    assert_eq!(stub.read_batch(&mut [(A + 4094, &mut a), (A + 10, &mut b)]), Ok(10));
    assert_eq!((&a, &b), (b"world", b"hello"));
    // A fault in the middle of a segment: what came before it counts, to the byte.
    let mut big = vec![0; 3 * 4096];
    assert_eq!(stub.read_batch(&mut [(A + 100, &mut big)]), Ok(2 * 4096 - 100));
    assert_eq!(stub.read_batch(&mut [(A, &mut a), (USER_MAX - 4, &mut b)]), Ok(5));
    assert_eq!(stub.compare_exchange(A + 100, 0, 7), Ok(0));
    assert_eq!(stub.compare_exchange(A + 100, 0, 9), Ok(7));
    assert_eq!(stub.compare_exchange(A + 2 * 4096, 0, 9), Err(Errno::EFAULT));
    assert_eq!(stub.compare_exchange(A + 2, 0, 9), Err(Errno::EINVAL));
    stub.apply(&[Change::Protect { addr: A, len: 4096, prot: Prot::READ }]).unwrap();
    assert_eq!(stub.compare_exchange(A + 100, 7, 9), Err(Errno::EFAULT));
    assert_eq!(stub.write_batch(&[(A, b"x")]), Ok(0));
    assert_eq!(stub.poke(A + 9, b"0123456789a"), Ok(11));
    let mut c = [0; 12];
    assert_eq!(stub.read_batch(&mut [(A + 9, &mut c)]), Ok(12));
    assert_eq!(&c, b"0123456789a\0");
    let mut pages = [9; 2];
    stub.resident(A, &mut pages).unwrap();
    assert_eq!(pages.map(|p| p & 1), [1, 1]);
    assert_eq!(stub.resident(A, &mut [0; 3]), Err(Errno::ENOMEM));
    // More changes than one command takes, of which the last is wrong.
    let mut changes = vec![anonymous(1); 200];
    changes.push(Change::Unmap { addr: A, len: 1 });
    assert_eq!(stub.apply(&changes), Err(Errno::EINVAL));
    assert_eq!(stub.read_batch(&mut [(A, &mut a)]), Ok(5));
    assert_eq!(a, [0; 5]);
}

#[test]
fn forks() {
    let template = template();
    let one = template.spawn().unwrap();
    one.apply(&[anonymous(1)]).unwrap();
    one.write_batch(&[(A, b"one")]).unwrap();
    let two = one.fork().unwrap();
    one.write_batch(&[(A, b"ONE")]).unwrap();
    let mut buf = [0; 3];
    two.read_batch(&mut [(A, &mut buf)]).unwrap();
    assert_eq!(&buf, b"one");
    one.kill();
    assert_eq!(one.apply(&[anonymous(1)]), Err(Errno::ESRCH));
    assert_eq!(one.read_batch(&mut [(A, &mut buf)]), Err(Errno::ESRCH));
    assert_eq!(one.state().death(), Some(Death::Killed));
    assert!(one.fork().is_err());
    drop(template);
    two.apply(&[anonymous(1)]).unwrap();
}

#[test]
fn death_by_the_host() {
    let template = template();
    let stub = template.spawn().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let watch = stub.state().on_death(std::sync::Arc::new(move || {
        let _ = sender.send(());
    }));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(stub.pid()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    receiver.recv().unwrap();
    drop(watch);
    assert_eq!(stub.state().death(), Some(Death::Host));
    assert_eq!(stub.apply(&[anonymous(1)]), Err(Errno::ESRCH));
}

/// A stub has nothing but the stub region, one descriptor, no capability, and no core.
#[test]
fn nothing_is_inherited() {
    let template = template();
    let stub = template.spawn().unwrap();
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", stub.pid())).unwrap();
    for line in proc("maps").lines().filter(|l| !l.contains("[vsyscall]")) {
        let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        assert!(start >= USER_MAX, "{line}");
    }
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", stub.pid()))
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(fds, ["0"]);
    let status = proc("status");
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(proc("limits").lines().any(|l| l.starts_with("Max core file size") && l.contains(" 1 ")));
}
