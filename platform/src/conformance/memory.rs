//! Mappings, fork, reading and writing guest memory.

use super::code;
use super::harness::{CODE, DATA, DATA_PAGES, Guest, Outcome, fault, syscall};
use super::{Case, Outcome::Passed};
use crate::{Change, Errno, PAGE_SIZE, Platform, Prot, USER_MAX, USER_MIN};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    ("map_anonymous_unmap_protect", map),
    ("changes_are_checked", checked),
    ("changes_stop_at_the_first_failure", stops),
    ("file_mappings_private_and_shared", files),
    ("move_grow_shrink_keep", moves),
    ("advice", advice),
    ("resident_pages", resident),
    ("fork_copies_on_write", fork),
    ("branches_end_by_themselves", branch),
    ("fork_trees", fork_tree),
    ("read_and_write_batches", batches),
    ("partial_transfers", partial),
    ("poke_ignores_protection", poke),
    ("compare_exchange", compare_exchange),
    ("self_modifying_code", self_modifying),
];

const RW: Prot = Prot::READ.union(Prot::WRITE);
const A: u64 = 0x7000_0000_0000;

fn page(addr: u64, pages: u64, prot: Prot) -> Change<'static> {
    Change::MapAnonymous { addr, len: pages * PAGE_SIZE, prot }
}

fn file(pages: u64) -> OwnedFd {
    let fd = memfd_create("conformance", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, (pages * PAGE_SIZE) as i64).unwrap();
    for i in 0..pages {
        nix::sys::uio::pwrite(&fd, &[i as u8 + 1], (i * PAGE_SIZE) as i64).unwrap();
    }
    fd
}

fn map(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::store());
    guest.space.apply(None, &[page(A, 2, RW)]).unwrap();
    guest.context().regs.rdi = A;
    syscall(guest.go());
    let mut byte = [0];
    guest.space.read(A, &mut byte).unwrap();
    assert_eq!(byte, [0x5a]);
    // Read-only: a protection fault, repaired, and the instruction goes on.
    let protect = |prot| Change::Protect { addr: A, len: PAGE_SIZE, prot };
    guest.space.apply(None, &[protect(Prot::READ)]).unwrap();
    let f = fault(guest.result(A + 1));
    assert_eq!((f.signal, f.code, f.addr), (libc::SIGSEGV, 2, A + 1));
    guest.space.apply(None, &[protect(RW)]).unwrap();
    syscall(guest.go());
    guest.space.read(A + 1, &mut byte).unwrap();
    assert_eq!(byte, [0x5a]);
    // Gone: a mapping fault.
    guest.space.apply(None, &[Change::Unmap { addr: A, len: PAGE_SIZE }]).unwrap();
    let f = fault(guest.result(A + 2));
    assert_eq!((f.signal, f.code, f.addr), (libc::SIGSEGV, 1, A + 2));
    // A new mapping is zero.
    guest.space.apply(None, &[page(A, 1, RW)]).unwrap();
    guest.space.read(A, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    // No execution without the right.
    guest.context().regs.rip = A;
    let f = fault(guest.go());
    assert_eq!((f.signal, f.code, f.addr), (libc::SIGSEGV, 2, A));
    Passed
}

fn checked(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    let f = file(1);
    for (addr, len) in [
        (A + 1, PAGE_SIZE),
        (A, 0),
        (A, 100),
        (0, PAGE_SIZE),
        (USER_MIN - PAGE_SIZE, PAGE_SIZE),
        (USER_MAX, PAGE_SIZE),
        (USER_MAX - PAGE_SIZE, 2 * PAGE_SIZE),
        (A, 0u64.wrapping_sub(PAGE_SIZE)),
        (0u64.wrapping_sub(PAGE_SIZE), PAGE_SIZE),
    ] {
        let file = f.as_fd();
        for change in [
            Change::MapAnonymous { addr, len, prot: RW },
            Change::MapFile { addr, len, prot: RW, shared: true, file, offset: 0 },
            Change::Unmap { addr, len },
            Change::Protect { addr, len, prot: RW },
            Change::Advise { addr, len, advice: libc::MADV_DONTNEED },
            Change::Move { old: addr, old_len: len.max(1), new: A, new_len: PAGE_SIZE, keep: false },
            Change::Move { old: A, old_len: PAGE_SIZE, new: addr, new_len: len, keep: false },
        ] {
            assert_eq!(space.apply(None, &[change]), Err(Errno::EINVAL), "{change:x?}");
        }
    }
    space.apply(None, &[page(USER_MIN, 1, RW), page(USER_MAX - PAGE_SIZE, 1, RW)]).unwrap();
    for advice in [-1, 0, 1, libc::MADV_HWPOISON, libc::MADV_MERGEABLE, 1000] {
        let change = Change::Advise { addr: USER_MIN, len: PAGE_SIZE, advice };
        assert_eq!(space.apply(None, &[change]), Err(Errno::EINVAL));
    }
    // Protecting a hole is ENOMEM, unmapping one is fine.
    let protect = Change::Protect { addr: A, len: PAGE_SIZE, prot: RW };
    assert_eq!(space.apply(None, &[protect]), Err(Errno::ENOMEM));
    space.apply(None, &[Change::Unmap { addr: A, len: PAGE_SIZE }]).unwrap();
    Passed
}

fn stops(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    let mut changes: Vec<_> = (0..300).map(|i| page(A + i * 2 * PAGE_SIZE, 1, RW)).collect();
    changes.push(Change::Protect { addr: A + PAGE_SIZE, len: PAGE_SIZE, prot: RW });
    changes.push(page(A + PAGE_SIZE, 1, RW));
    assert_eq!(space.apply(None, &changes), Err(Errno::ENOMEM));
    assert_eq!(space.write(A + 299 * 2 * PAGE_SIZE, b"x"), Ok(1));
    assert_eq!(space.write(A + PAGE_SIZE, b"x"), Ok(0));
    Passed
}

fn files(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::store());
    let fd = file(4);
    let map = |addr, shared, prot, offset| Change::MapFile {
        addr,
        len: 2 * PAGE_SIZE,
        prot,
        shared,
        file: fd.as_fd(),
        offset,
    };
    let (private, shared) = (A, A + 0x10000);
    guest
        .space
        .apply(None, &[map(private, false, RW, PAGE_SIZE), map(shared, true, RW, 2 * PAGE_SIZE)])
        .unwrap();
    let mut byte = [0];
    guest.space.read(private, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    guest.context().regs.rdi = private;
    syscall(guest.go());
    nix::sys::uio::pread(&fd, &mut byte, PAGE_SIZE as i64).unwrap();
    assert_eq!(byte, [2], "a private write stays private");
    syscall(guest.result(shared));
    nix::sys::uio::pread(&fd, &mut byte, 2 * PAGE_SIZE as i64).unwrap();
    assert_eq!(byte, [0x5a], "a shared write reaches the file");
    // Another address space sees it, and what the sentry writes.
    let other = platform.new_address_space().unwrap();
    other.apply(None, &[map(shared, true, Prot::READ, 2 * PAGE_SIZE)]).unwrap();
    other.read(shared, &mut byte).unwrap();
    assert_eq!(byte, [0x5a]);
    nix::sys::uio::pwrite(&fd, &[0x77], 2 * PAGE_SIZE as i64).unwrap();
    guest.space.read(shared, &mut byte).unwrap();
    assert_eq!(byte, [0x77]);
    // Beyond the end of the file: SIGBUS.
    nix::unistd::ftruncate(&fd, 3 * PAGE_SIZE as i64).unwrap();
    let f = fault(guest.result(shared + PAGE_SIZE));
    assert_eq!((f.signal, f.code, f.addr), (libc::SIGBUS, 2, shared + PAGE_SIZE));
    // A descriptor without write access gives no write access, also later.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let read_only = std::fs::File::open(path).unwrap();
    let read_only = Change::MapFile {
        addr: A,
        len: PAGE_SIZE,
        prot: Prot::READ,
        shared: true,
        file: read_only.as_fd(),
        offset: 0,
    };
    other.apply(None, &[read_only]).unwrap();
    let protect = Change::Protect { addr: A, len: PAGE_SIZE, prot: RW };
    assert_eq!(other.apply(None, &[protect]), Err(Errno::EACCES));
    // Many files in one batch.
    let fds: Vec<OwnedFd> = (0..40).map(|_| file(1)).collect();
    let changes: Vec<_> = fds
        .iter()
        .zip(0..)
        .map(|(fd, i)| Change::MapFile {
            addr: A + i * PAGE_SIZE,
            len: PAGE_SIZE,
            prot: Prot::READ,
            shared: i % 2 == 0,
            file: fd.as_fd(),
            offset: 0,
        })
        .collect();
    other.apply(None, &changes).unwrap();
    for (fd, i) in fds.iter().zip(0..) {
        nix::sys::uio::pwrite(fd, &[100 + i as u8], 0).unwrap();
        other.read(A + i * PAGE_SIZE, &mut byte).unwrap();
        assert_eq!(byte, [100 + i as u8]);
    }
    Passed
}

fn moves(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    space.apply(None, &[page(A, 2, RW)]).unwrap();
    space.write(A, b"moved").unwrap();
    let (old, old_len, new, new_len) = (A, 2 * PAGE_SIZE, A + 0x10_0000, 4 * PAGE_SIZE);
    space.apply(None, &[Change::Move { old, old_len, new, new_len, keep: false }]).unwrap();
    let mut buf = [0; 5];
    assert_eq!(space.read(new, &mut buf), Ok(5));
    assert_eq!(&buf, b"moved");
    assert_eq!(space.read(A, &mut buf), Ok(0));
    assert_eq!(space.write(new + 3 * PAGE_SIZE, b"x"), Ok(1));
    // In place: shrink, then grow.
    let at = |old_len, new_len| Change::Move { old: new, old_len, new, new_len, keep: false };
    space.apply(None, &[at(4 * PAGE_SIZE, PAGE_SIZE)]).unwrap();
    assert_eq!(space.write(new + PAGE_SIZE, b"x"), Ok(0));
    space.apply(None, &[at(PAGE_SIZE, 3 * PAGE_SIZE)]).unwrap();
    assert_eq!(space.write(new + 2 * PAGE_SIZE, b"x"), Ok(1));
    // Keep: the old range stays mapped, empty.
    let len = 3 * PAGE_SIZE;
    space.apply(None, &[Change::Move { old: new, old_len: len, new: A, new_len: len, keep: true }]).unwrap();
    assert_eq!(space.read(A, &mut buf), Ok(5));
    assert_eq!(&buf, b"moved");
    assert_eq!(space.read(new, &mut buf), Ok(5));
    assert_eq!(buf, [0; 5]);
    // Length 0 duplicates a shared mapping.
    let fd = file(1);
    let (file, len) = (fd.as_fd(), PAGE_SIZE);
    let map = Change::MapFile { addr: A, len, prot: RW, shared: true, file, offset: 0 };
    let twin = Change::Move { old: A, old_len: 0, new: new + 0x10000, new_len: len, keep: false };
    space.apply(None, &[map, twin]).unwrap();
    space.write(A, b"twins").unwrap();
    space.read(new + 0x10000, &mut buf).unwrap();
    assert_eq!(&buf, b"twins");
    Passed
}

fn advice(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    space.apply(None, &[page(A, 4, RW)]).unwrap();
    space.write(A, b"x").unwrap();
    let advise = |advice| space.apply(None, &[Change::Advise { addr: A, len: 4 * PAGE_SIZE, advice }]);
    advise(libc::MADV_DONTNEED).unwrap();
    let mut byte = [1];
    space.read(A, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    for a in [libc::MADV_WILLNEED, libc::MADV_FREE, libc::MADV_POPULATE_WRITE, libc::MADV_WIPEONFORK] {
        advise(a).unwrap_or_else(|e| panic!("advice {a}: {e}"));
    }
    space.write(A, b"x").unwrap();
    let child = space.fork(None).unwrap();
    child.read(A, &mut byte).unwrap();
    assert_eq!(byte, [0], "wiped on fork");
    Passed
}

fn resident(platform: &dyn Platform) -> Outcome {
    let space = platform.new_address_space().unwrap();
    space.apply(None, &[page(A, 8, RW)]).unwrap();
    space.write(A + PAGE_SIZE, b"x").unwrap();
    let mut pages = [0xff; 3];
    space.resident(A, &mut pages).unwrap();
    assert_eq!(pages.map(|p| p & 1), [0, 1, 0]);
    assert_eq!(space.resident(A + 7 * PAGE_SIZE, &mut pages), Err(Errno::ENOMEM));
    Passed
}

fn fork(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::load());
    guest.space.write(DATA, b"P").unwrap();
    let parent = guest.space.clone();
    let child = parent.fork(Some(&mut *guest.thread)).unwrap();
    parent.write(DATA, b"Q").unwrap();
    let mut byte = [0];
    child.read(DATA, &mut byte).unwrap();
    assert_eq!(&byte, b"P");
    child.write(DATA, b"C").unwrap();
    guest.context().regs.rdi = DATA;
    let context = guest.context().clone();
    assert_eq!(syscall(guest.go()).1[1], u64::from(b'Q'));
    let mut thread = child.clone().new_thread(&context).unwrap();
    assert_eq!(syscall(thread.run(crate::Resume::Context)).1[1], u64::from(b'C'));
    // One's death does not touch the other.
    parent.kill();
    assert_eq!(syscall(thread.run(crate::Resume::Result(DATA))).1[1], u64::from(b'C'));
    Passed
}

fn branch(platform: &dyn Platform) -> Outcome {
    // In place of a cgroup's, a file that tells what was written to it.
    let group = memfd_create("group", MFdFlags::empty()).unwrap();
    let group = std::fs::File::from(group);
    let branch = match platform.branch(&[group.as_fd()]) {
        Err(Errno::EOPNOTSUPP) => return Outcome::Skipped("guests have no processes of their own".into()),
        branch => branch.unwrap(),
    };
    let mut written = [0];
    assert_eq!(group.read_at(&mut written, i64::MAX as u64 - 1).unwrap(), 1);
    assert_eq!(written, *b"0");
    let closed = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(platform.branch(&[group.as_fd(), closed.as_fd()]).err(), Some(Errno::EBADF));
    let mut guest = Guest::new(&*branch, code::load());
    guest.space.write(DATA, b"B").unwrap();
    branch.close();
    assert_eq!(branch.new_address_space().err(), Some(Errno::ESRCH));
    guest.context().regs.rdi = DATA;
    assert_eq!(syscall(guest.go()).1[1], u64::from(b'B'));
    drop(branch);
    drop(Guest::new(platform, code::load()));
    Passed
}

fn fork_tree(platform: &dyn Platform) -> Outcome {
    let root = Guest::new(platform, code::load());
    let mut spaces = vec![root.space.clone()];
    for round in 0..5u64 {
        let children: Vec<_> = spaces.iter().map(|s| s.fork(None).unwrap()).collect();
        for (i, child) in children.iter().enumerate() {
            child.write(DATA + round * 2, &[round as u8 + 1, i as u8]).unwrap();
        }
        spaces.extend(children);
    }
    assert_eq!(spaces.len(), 32);
    // Number i was made in round r (its highest bit) as the copy of i - 2^r.
    for (i, space) in spaces.iter().enumerate() {
        let mut expected = [0u8; 10];
        for round in 0..5 {
            if i & (1 << round) != 0 {
                expected[round * 2] = round as u8 + 1;
                expected[round * 2 + 1] = (i & ((1 << round) - 1)) as u8;
            }
        }
        let mut found = [0; 10];
        space.read(DATA, &mut found).unwrap();
        assert_eq!(found, expected, "space {i}");
    }
    Passed
}

fn batches(platform: &dyn Platform) -> Outcome {
    let guest = Guest::new(platform, code::load());
    let count = 3000;
    let data: Vec<[u8; 3]> = (0..count).map(|i: u64| [i as u8, (i >> 8) as u8, 7]).collect();
    // Backwards, with empty segments, and more than the host takes in one call.
    let at = |i: usize| DATA + 8 * (count as usize - 1 - i) as u64;
    let mut segments: Vec<(u64, &[u8])> = Vec::new();
    for (i, d) in data.iter().enumerate() {
        segments.push((at(i), d));
        segments.push((1, &[]));
    }
    assert_eq!(guest.space.write_batch(&segments), Ok(9000));
    let mut back = vec![[0u8; 3]; count as usize];
    let mut segments: Vec<(u64, &mut [u8])> =
        back.iter_mut().enumerate().map(|(i, b)| (at(i), &mut b[..])).collect();
    assert_eq!(guest.space.read_batch(&mut segments), Ok(9000));
    assert_eq!(back, data);
    assert_eq!(guest.space.read_batch(&mut []), Ok(0));
    Passed
}

fn partial(platform: &dyn Platform) -> Outcome {
    let guest = Guest::new(platform, code::load());
    let end = DATA + DATA_PAGES * PAGE_SIZE;
    let mut buf = vec![0u8; 4 * PAGE_SIZE as usize];
    // One segment across the end of what is mapped.
    assert_eq!(guest.space.read(end - 5000, &mut buf), Ok(5000));
    assert_eq!(guest.space.write(end - 5000, &buf), Ok(5000));
    assert_eq!(guest.space.read(end - 1, &mut buf), Ok(1));
    assert_eq!(guest.space.read(end, &mut buf), Ok(0));
    // The second of three.
    let (a, rest) = buf.split_at_mut(100);
    let (b, c) = rest.split_at_mut(100);
    let c = &mut c[..100];
    assert_eq!(guest.space.read_batch(&mut [(DATA, a), (end - 30, b), (DATA, c)]), Ok(130));
    assert_eq!(guest.space.write_batch(&[(DATA, a), (0, b), (DATA, c)]), Ok(100));
    // Protection counts, and so does the guest's range.
    assert_eq!(guest.space.write(CODE, b"x"), Ok(0));
    let none = Change::Protect { addr: DATA + PAGE_SIZE, len: PAGE_SIZE, prot: Prot::empty() };
    guest.space.apply(None, &[none]).unwrap();
    assert_eq!(guest.space.read(DATA, &mut buf), Ok(PAGE_SIZE as usize));
    assert_eq!(guest.space.write(DATA, &buf), Ok(PAGE_SIZE as usize));
    for addr in [USER_MAX, USER_MAX + 0x10000, u64::MAX - 10, 0xffff_8000_0000_0000] {
        assert_eq!(guest.space.read(addr, &mut buf), Ok(0), "{addr:#x}");
        assert_eq!(guest.space.write(addr, &buf), Ok(0), "{addr:#x}");
    }
    let last = page(USER_MAX - PAGE_SIZE, 1, RW);
    guest.space.apply(None, &[last]).unwrap();
    assert_eq!(guest.space.read(USER_MAX - 10, &mut buf), Ok(10));
    Passed
}

fn poke(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::syscall_loop());
    let child = guest.space.fork(None).unwrap();
    // `mov eax, 39` becomes `mov eax, 57`.
    assert_eq!(guest.space.poke(CODE + 1, &[57]), Ok(1));
    assert_eq!(syscall(guest.go()).0, 57);
    let mut byte = [0];
    child.read(CODE + 1, &mut byte).unwrap();
    assert_eq!(byte, [39], "copied on write");
    assert_eq!(guest.space.poke(CODE + PAGE_SIZE - 3, &[1; 10]), Ok(3));
    assert_eq!(guest.space.poke(A, &[1]), Ok(0));
    assert_eq!(guest.space.poke(USER_MAX + 0x10000, &[1]), Ok(0));
    Passed
}

fn compare_exchange(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::load());
    let space = guest.space.clone();
    let by = &mut *guest.thread;
    assert_eq!(space.compare_exchange(Some(&mut *by), DATA, 0, u32::MAX), Ok(0));
    assert_eq!(space.compare_exchange(Some(&mut *by), DATA, 0, 1), Ok(u32::MAX));
    assert_eq!(space.compare_exchange(None, DATA, u32::MAX, 5), Ok(u32::MAX));
    let mut word = [0; 8];
    space.read(DATA, &mut word).unwrap();
    assert_eq!(word, [5, 0, 0, 0, 0, 0, 0, 0]);
    for addr in [A, CODE, 0, USER_MAX, u64::MAX - 3] {
        assert_eq!(space.compare_exchange(None, addr, 0, 1), Err(Errno::EFAULT), "{addr:#x}");
        assert_eq!(space.compare_exchange(Some(&mut *by), addr, 0, 1), Err(Errno::EFAULT), "{addr:#x}");
    }
    // Behind the end of a file.
    let fd = file(1);
    let (file, len) = (fd.as_fd(), 2 * PAGE_SIZE);
    space.apply(None, &[Change::MapFile { addr: A, len, prot: RW, shared: true, file, offset: 0 }]).unwrap();
    assert_eq!(space.compare_exchange(None, A, 1, 2), Ok(1));
    assert_eq!(space.compare_exchange(None, A + PAGE_SIZE, 0, 2), Err(Errno::EFAULT));
    // And it still works afterwards.
    assert_eq!(space.compare_exchange(None, DATA, 5, 6), Ok(5));
    Passed
}

fn self_modifying(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::self_modifying());
    guest.space.apply(None, &[page(A, 1, RW | Prot::EXEC)]).unwrap();
    guest.context().regs.rdi = A;
    let mut exit = guest.go();
    for i in 1..100 {
        assert_eq!(syscall(exit).1[0], i);
        exit = guest.result(0);
    }
    // Code that the sentry wrote.
    guest.space.write(A, &[0x0f, 0x0b]).unwrap();
    guest.context().regs.rip = A;
    assert_eq!(fault(guest.go()).signal, libc::SIGILL);
    Passed
}
