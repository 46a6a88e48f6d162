//! What the two ways to hold guest memory cost the host: private memory of the stub processes, managed by the host
//! kernel (the design), against one shared memfd from which the sentry hands out pieces (what gVisor does).
//!
//! The second is not built; what is measured of it is the least that the host has to do for it, in this process:
//! mapping pieces of the memfd, giving pages back by punching holes, and for fork write-protecting everything and
//! copying pages one by one on SIGSEGV. In a sandbox each of these faults is a trip to the sentry besides (3 to 4 us).
//!
//! Prints one line a case, best of several runs: native, host-managed through the platform, memfd. `docs/memory.md` has
//! a run of it and what follows from it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platform::{AddressSpace, Change, PAGE_SIZE, Platform, Prot};

const P: usize = PAGE_SIZE as usize;
const MIB: usize = 1 << 20;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const GUEST: u64 = 0x10_0000_0000;

/// The memfd of the shared design.
static MEMFD: AtomicI32 = AtomicI32::new(-1);
/// Where its unused part begins.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let platform = match platform_systrap::SystrapPlatform::new(true) {
        Ok(platform) => platform,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    // SAFETY: the name is a string; the descriptor is new.
    let memfd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC)) };
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::ftruncate(memfd.as_raw_fd(), 1 << 40) }, 0);
    MEMFD.store(memfd.as_raw_fd(), Ordering::Relaxed);
    println!("{:44} {:>12} {:>12} {:>12}", "us", "native", "platform", "memfd");
    for pages in [1, 16, 256] {
        map_and_touch(&platform, pages);
    }
    for mib in [1, 16, 64] {
        fork(&platform, mib);
    }
    for mib in [1, 16, 64] {
        fork_and_exec(mib);
    }
    for len in [64, P, 16 * P, MIB] {
        access(&platform, len);
    }
    compiler_run();
}

/// The best of `runs`, in microseconds.
fn best(runs: usize, mut f: impl FnMut() -> Duration) -> f64 {
    (0..runs).map(|_| f()).min().unwrap_or_default().as_secs_f64() * 1e6
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn line(name: &str, native: Option<f64>, platform: Option<f64>, memfd: Option<f64>) {
    let text = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
    println!("{name:44} {:>12} {:>12} {:>12}", text(native), text(platform), text(memfd));
}

fn map(addr: *mut u8, len: usize, flags: i32, fd: i32, offset: u64) -> *mut u8 {
    // SAFETY: a fixed address is one of an earlier mapping of this program's.
    let at = unsafe { libc::mmap(addr.cast(), len, RW, flags, fd, offset as i64) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

fn map_private(len: usize) -> *mut u8 {
    map(std::ptr::null_mut(), len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0)
}

/// A new piece of the memfd.
fn map_piece(len: usize) -> (*mut u8, u64) {
    let offset = NEXT.fetch_add(len as u64, Ordering::Relaxed);
    (map(std::ptr::null_mut(), len, libc::MAP_SHARED, MEMFD.load(Ordering::Relaxed), offset), offset)
}

fn unmap(at: *mut u8, len: usize) {
    // SAFETY: nothing else uses the mapping.
    assert_eq!(unsafe { libc::munmap(at.cast(), len) }, 0);
}

/// Gives the pages of a piece back to the host.
fn free_piece(offset: u64, len: usize) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain numbers.
    let rc = unsafe { libc::fallocate(MEMFD.load(Ordering::Relaxed), mode, offset as i64, len as i64) };
    assert_eq!(rc, 0);
}

fn touch(at: *mut u8, len: usize) {
    for offset in (0..len).step_by(P) {
        // SAFETY: inside a writable mapping of `len` bytes.
        unsafe { at.add(offset).write_volatile(1) };
    }
}

fn map_and_touch(platform: &dyn Platform, pages: usize) {
    const TIMES: usize = 50;
    let len = pages * P;
    let native = best(20, || {
        timed(|| {
            for _ in 0..TIMES {
                let at = map_private(len);
                touch(at, len);
                unmap(at, len);
            }
        })
    });
    let memfd = best(20, || {
        timed(|| {
            for _ in 0..TIMES {
                let (at, offset) = map_piece(len);
                touch(at, len);
                unmap(at, len);
                free_piece(offset, len);
            }
        })
    });
    // Through the platform, by the service thread; the sentry touches the pages.
    let space = platform.new_address_space().unwrap();
    let host = best(20, || {
        timed(|| {
            for _ in 0..TIMES {
                dirty(&*space, len);
                space.apply(None, &[Change::Unmap { addr: GUEST, len: len as u64 }]).unwrap();
            }
        })
    });
    let each = |total: f64| Some(total / TIMES as f64);
    line(&format!("mmap, touch, munmap of {pages} pages"), each(native), each(host), each(memfd));
}

/// Maps memory in a guest and writes to every page.
fn dirty(space: &dyn AddressSpace, len: usize) {
    let prot = Prot::READ | Prot::WRITE;
    space.apply(None, &[Change::MapAnonymous { addr: GUEST, len: len as u64, prot }]).unwrap();
    let pages: Vec<(u64, &[u8])> = (0..len / P).map(|page| (GUEST + (page * P) as u64, &[1u8][..])).collect();
    for batch in pages.chunks(512) {
        assert_eq!(space.write_batch(batch), Ok(batch.len()));
    }
}

/// Forks, has the child do something, and waits for it.
fn fork_and(child: impl FnOnce()) {
    // SAFETY: the process has one thread; the child calls nothing that takes locks.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for our child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        }
    }
}

/// How many pages a program writes to after it has forked.
const REWRITTEN: usize = 64;

fn protect(at: *mut u8, len: usize, prot: i32) {
    // SAFETY: changes a mapping of this program's, whose users expect it.
    assert_eq!(unsafe { libc::mprotect(at.cast(), len, prot) }, 0);
}

/// Copies a page of the memfd on a write fault, as the sentry would.
extern "C" fn copy_on_write(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid pointer to the handler of a SIGSEGV.
    let page = unsafe { (*info).si_addr() } as usize & !(P - 1);
    let fd = MEMFD.load(Ordering::Relaxed);
    let offset = NEXT.fetch_add(P as u64, Ordering::Relaxed);
    // SAFETY: a page that this program mapped read-only is copied and replaced by the copy; only system calls that
    // are safe in handlers.
    unsafe {
        libc::pwrite(fd, page as *const _, P, offset as i64);
        libc::mmap(page as *mut _, P, RW, libc::MAP_SHARED | libc::MAP_FIXED, fd, offset as i64);
    }
}

fn catch_write_faults() {
    // SAFETY: a zeroed sigaction is valid, and the handler has the right type for SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = copy_on_write as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
    }
}

fn fork(platform: &dyn Platform, mib: usize) {
    let len = mib * MIB;
    let at = map_private(len);
    touch(at, len);
    let (mut forks, mut writes) = (f64::MAX, f64::MAX);
    for _ in 0..10 {
        forks = forks.min(best(1, || timed(|| fork_and(|| {}))));
        writes = writes.min(best(1, || timed(|| touch(at, REWRITTEN * P))));
    }
    unmap(at, len);

    let space = platform.new_address_space().unwrap();
    dirty(&*space, len);
    let host = best(10, || timed(|| drop(space.fork(None).unwrap())));
    drop(space);

    catch_write_faults();
    let (at, offset) = map_piece(len);
    touch(at, len);
    let (mut shared_forks, mut shared_writes) = (f64::MAX, f64::MAX);
    for _ in 0..10 {
        let forked = timed(|| {
            protect(at, len, libc::PROT_READ);
            fork_and(|| {});
        });
        shared_forks = shared_forks.min(forked.as_secs_f64() * 1e6);
        shared_writes = shared_writes.min(best(1, || timed(|| touch(at, REWRITTEN * P))));
    }
    unmap(at, len);
    free_piece(offset, len);
    line(&format!("fork, exit, wait with {mib} MiB dirty"), Some(forks), Some(host), Some(shared_forks));
    line(&format!("  then {REWRITTEN} pages written again"), Some(writes), None, Some(shared_writes));
}

fn fork_and_exec(mib: usize) {
    let len = mib * MIB;
    let exec = || {
        let argv = [c"/bin/true".as_ptr(), std::ptr::null()];
        // SAFETY: both arrays end in a null pointer.
        unsafe { libc::execv(argv[0], argv.as_ptr()) };
    };
    let at = map_private(len);
    touch(at, len);
    let native = best(10, || timed(|| fork_and(exec)));
    unmap(at, len);
    let (at, offset) = map_piece(len);
    touch(at, len);
    let memfd = best(10, || {
        protect(at, len, RW);
        timed(|| {
            protect(at, len, libc::PROT_READ);
            fork_and(exec);
        })
    });
    unmap(at, len);
    free_piece(offset, len);
    line(&format!("fork, exec of true, wait with {mib} MiB dirty"), Some(native), None, Some(memfd));
}

fn access(platform: &dyn Platform, len: usize) {
    const TIMES: usize = 100;
    let space = platform.new_address_space().unwrap();
    dirty(&*space, len.next_multiple_of(P));
    let mut buf = vec![0; len];
    let host = best(20, || {
        timed(|| {
            for _ in 0..TIMES {
                assert_eq!(space.read(GUEST, &mut buf), Ok(len));
            }
        })
    });
    let (at, offset) = map_piece(len.next_multiple_of(P));
    touch(at, len);
    let memfd = best(20, || {
        timed(|| {
            for _ in 0..TIMES {
                // SAFETY: `at` has `len` bytes, and nobody else writes them.
                unsafe { std::ptr::copy_nonoverlapping(std::hint::black_box(at), buf.as_mut_ptr(), len) };
                std::hint::black_box(&mut buf);
            }
        })
    });
    unmap(at, len.next_multiple_of(P));
    free_piece(offset, len.next_multiple_of(P));
    let each = |total: f64| Some(total / TIMES as f64);
    line(&format!("read of {len} bytes by the sentry"), None, each(host), each(memfd));
}

/// The memory of a compiler, as `strace` and `perf stat` show it for gcc -O1 and a small file: about 100 mappings and
/// growths of the heap, 2 200 faults, 1 200 of them in memory of its own, two children.
fn compiler_run() {
    const STEPS: usize = 40;
    const STEP: usize = 33 * P;
    let private = best(20, || {
        timed(|| {
            fork_and(|| {
                let pieces: Vec<_> = (0..STEPS).map(|_| map_private(STEP)).collect();
                pieces.iter().for_each(|&at| touch(at, STEP));
            })
        })
    });
    let shared = best(20, || {
        timed(|| {
            let first = NEXT.load(Ordering::Relaxed);
            fork_and(|| {
                let pieces: Vec<_> = (0..STEPS).map(|_| map_piece(STEP)).collect();
                pieces.iter().for_each(|&(at, _)| touch(at, STEP));
            });
            // One hole for each piece: in a sandbox others have their memory between them.
            (0..STEPS).for_each(|i| free_piece(first + (i * STEP) as u64, STEP));
        })
    });
    line("a compiler's own memory (1320 pages)", Some(private), None, Some(shared));
}
