//! Stub processes by themselves: commands, forks, memory, and what happens when they die.

use platform::stub::arch::{PARK, THREAD_FLAGS};
use platform::stub::filter::base_rules;
use platform::stub::{Op, Options, Template, check_range};
use platform::{Change, Death, Errno, PAGE_SIZE, Prot, USER_MAX, USER_MIN};
use std::io::{Read, Write};

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

/// What a captured service thread could try: nothing but the rules passes, whoever asks.
#[test]
fn the_filter_lets_nothing_else_through() {
    let template = template();
    let stub = template.spawn().unwrap();
    let enosys = i64::from(-libc::ENOSYS);
    let call = |number: i64, args: [u64; 6]| {
        stub.execute(&[Op::call(number, args)], &[]).unwrap_or_else(|e| panic!("call {number}: {e}"))[0]
    };
    let known: Vec<i64> = base_rules().iter().map(|rule| i64::from(rule.number)).collect();
    // uretprobe and uprobe (6.11, 6.18): newer kernels exempt them from seccomp, and answer SIGILL.
    let exempt = [335, 336];
    for number in (0..600).filter(|n| !known.contains(n) && !exempt.contains(n)) {
        assert_eq!(call(number, [0; 6]), enosys, "call {number}");
    }
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
    for flag in [libc::MAP_HUGETLB, libc::MAP_LOCKED, libc::MAP_GROWSDOWN, libc::MAP_NONBLOCK] {
        assert_eq!(call(libc::SYS_mmap, [A, 4096, 3, private | flag as u64, u64::MAX, 0]), enosys);
    }
    assert_eq!(call(libc::SYS_mmap, [A, 4096, 3, private, u64::MAX, 0]), A as i64);
    assert_eq!(call(libc::SYS_mprotect, [A, 4096, libc::PROT_GROWSDOWN as u64, 0, 0, 0]), enosys);
    assert_eq!(call(libc::SYS_mremap, [A, 4096, 4096, 8, A, 0]), enosys);
    for advice in
        [libc::MADV_MERGEABLE, libc::MADV_HWPOISON, libc::MADV_SOFT_OFFLINE, libc::MADV_DOFORK | 1 << 31]
    {
        assert_eq!(call(libc::SYS_madvise, [A, 4096, advice as u64, 0, 0, 0]), enosys);
    }
    for operation in [libc::FUTEX_LOCK_PI, libc::FUTEX_REQUEUE, libc::FUTEX_WAKE_OP, libc::FUTEX_FD] {
        assert_eq!(call(libc::SYS_futex, [A, operation as u64, 0, 0, 0, 0]), enosys);
    }
    assert_eq!(call(libc::SYS_futex, [A, libc::FUTEX_WAKE as u64, 1, 0, 0, 0]), 0);
    for flags in [
        libc::SIGCHLD as u64,
        libc::CLONE_NEWUSER as u64 | libc::CLONE_PARENT as u64,
        THREAD_FLAGS | libc::CLONE_UNTRACED as u64,
        libc::CLONE_PARENT as u64 | 1 << 32,
        libc::CLONE_VM as u64 | libc::CLONE_PARENT as u64,
    ] {
        assert_eq!(call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), enosys);
    }
    let pdeath = libc::PR_SET_PDEATHSIG as u64;
    assert_eq!(call(libc::SYS_prctl, [pdeath, 0, 0, 0, 0, 0]), enosys);
    assert_eq!(call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0, 0]), enosys);
    assert_eq!(call(libc::SYS_clock_gettime, [0, A, 0, 0, 0, 0]), enosys);
    assert_eq!(call(libc::SYS_sendto, [0, A, 1, 0, A, 16]), enosys);
    assert_eq!(call(libc::SYS_recvmsg, [1, A, 0, 0, 0, 0]), enosys);
    assert_eq!(call(libc::SYS_dup2, [0, 5, 0, 0, 0, 0]), enosys);
    let cloexec = libc::CLOSE_RANGE_CLOEXEC.into();
    assert_eq!(call(libc::SYS_close_range, [1, 9, cloexec, 0, 0, 0]), enosys);
}

/// `kill -9` of a sentry ends its stubs, also those whose service thread waits for nothing.
#[test]
fn stubs_die_with_the_sentry() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: the child uses only what survives a fork of a threaded process: system calls and the C library's
    // allocator.
    let sentry = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let template = Template::new(&Options::default());
            let stub = template.as_ref().ok().and_then(|template| template.spawn().ok());
            let pid = stub.as_ref().map_or(0, |s| s.pid());
            let _ = writer.write_all(&pid.to_le_bytes());
            std::thread::sleep(std::time::Duration::from_secs(1000));
            std::process::exit(1)
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    let mut pid = [0; 4];
    reader.read_exact(&mut pid).unwrap();
    let pid = i32::from_le_bytes(pid);
    assert!(pid > 0);
    nix::sys::signal::kill(sentry, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(sentry, None).unwrap();
    // Gone, or a zombie that init has not got round to.
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|s| !s.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
    };
    while alive() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// A fork answered by a lie must not make the sentry take another process for the child.
#[test]
fn pids_are_the_kernels_word() {
    let template = template();
    let stub = template.spawn().unwrap();
    let slot = stub.allocate_slot().unwrap();
    // Threads: of this process, and not the service thread.
    let memory = platform::stub::StubProcess::slot_memory(&slot);
    let tid = stub.spawn_thread(&memory, &[], slot.end(), PARK, slot.addr()).unwrap();
    assert!(tid > 0 && tid != stub.pid());
    assert_eq!(std::fs::read_dir(format!("/proc/{}/task", stub.pid())).unwrap().count(), 2);
    // Forks have neither the thread nor its slot.
    let child = stub.fork().unwrap();
    assert_eq!(std::fs::read_dir(format!("/proc/{}/task", child.pid())).unwrap().count(), 1);
    assert_eq!(child.read_stub(slot.addr(), &mut [0]), Err(Errno::EFAULT));
    assert_eq!(stub.read_stub(slot.addr(), &mut [0]), Ok(()));
}

/// The sentry's own situation: pid 1 of a pid namespace in a user namespace, and later without capabilities.
#[test]
fn the_sentry_may_be_pid_1() {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    // SAFETY: as above.
    let outer = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).is_err() {
                std::process::exit(77);
            }
            // SAFETY: a process with one thread.
            match unsafe { fork() }.unwrap() {
                ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                    WaitStatus::Exited(_, code) => std::process::exit(code),
                    _ => std::process::exit(99),
                },
                ForkResult::Child => std::process::exit(as_pid_1()),
            }
        }
    };
    match waitpid(outer, None).unwrap() {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, 77) => println!("skipped: no user namespaces here"),
        other => panic!("{other:?}"),
    }
}

/// The number of the step that failed, or 0.
fn as_pid_1() -> i32 {
    if nix::unistd::getpid().as_raw() != 1 {
        return 1;
    }
    let Ok(template) = Template::new(&Options::default()) else { return 2 };
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: capset with the layouts of version 3.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } != 0 {
        return 3;
    }
    let Ok(stub) = template.spawn() else { return 4 };
    if stub.apply(&[anonymous(1)]).is_err() || stub.write_batch(&[(A, b"abc")]) != Ok(3) {
        return 5;
    }
    if stub.poke(A, b"xyz") != Ok(3) {
        return 6;
    }
    let Ok(child) = stub.fork() else { return 7 };
    let mut buf = [0; 3];
    if child.read_batch(&mut [(A, &mut buf)]) != Ok(3) || &buf != b"xyz" {
        return 8;
    }
    0
}
