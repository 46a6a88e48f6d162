//! Tests of the memory manager on a platform that is a table.

use std::sync::Arc;

use abi::mman::{
    MADV_DONTFORK, MADV_DONTNEED, MADV_FREE, MADV_HWPOISON, MADV_POPULATE_WRITE, MADV_REMOVE,
    MADV_WIPEONFORK, MlockallFlags,
};
use abi::signal::{SEGV_ACCERR, SEGV_MAPERR};
use platform::{Fault, PAGE_SIZE, Prot, USER_MAX, USER_MIN};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::mock::{MockPlatform, MockSpace};
use super::vma::STACK_GUARD;
use super::{
    FaultOutcome, Fixed, FutexKey, Limits, MapFile, MapName, MapRequest, MemoryFile, MemoryManager,
    RemapRequest, UserSink, UserSource, Window,
};
use crate::vfs::{Mappable, ObjectId, Sink, Source};
use crate::{Errno, Result};

const RW: Prot = Prot::READ.union(Prot::WRITE);
const P: u64 = PAGE_SIZE;
const BASE: u64 = 0x10_0000_0000;

struct Fixture {
    mm: Arc<MemoryManager>,
    host: Arc<MockSpace>,
}

fn fixture() -> Fixture {
    let platform = MockPlatform::default();
    let mm = MemoryManager::new(&platform).unwrap();
    Fixture { mm, host: platform.last() }
}

fn anonymous(addr: u64, len: u64, prot: Prot) -> MapRequest {
    let fixed = if addr == 0 { Fixed::No } else { Fixed::Replace };
    MapRequest { addr, len, prot, fixed, ..MapRequest::default() }
}

impl Fixture {
    fn map(&self, req: &MapRequest) -> Result<u64> {
        self.mm.map(None, req)
    }

    fn map_at(&self, addr: u64, pages: u64) {
        assert_eq!(self.map(&anonymous(addr, pages * P, RW)), Ok(addr));
    }

    /// Ranges as the guest sees them.
    fn ranges(&self) -> Vec<(u64, u64)> {
        self.mm.maps().iter().map(|m| (m.start, m.end)).collect()
    }

    fn protect(&self, addr: u64, len: u64, prot: Prot) -> Result<()> {
        self.mm.protect(None, addr, len, prot, false, &Limits::default())
    }

    fn remap(&self, old: u64, old_len: u64, new_len: u64, may_move: bool, fixed: Option<u64>) -> Result<u64> {
        let req = RemapRequest { old, old_len, new_len, may_move, fixed, dont_unmap: false };
        self.mm.remap(None, &req, &Limits::default())
    }

    fn fault(&self, addr: u64, error: u64) -> FaultOutcome {
        let fault = Fault { signal: 11, code: SEGV_MAPERR, addr, trapno: 14, error };
        self.mm.handle_fault(None, &fault, &Limits::default())
    }

    fn byte(&self, addr: u64) -> Result<u8> {
        self.mm.read_object(addr)
    }
}

/// A file in memory as a mappable thing.
struct Pages(MemoryFile);

impl Pages {
    fn new(content: &[u8]) -> Arc<Pages> {
        let file = MemoryFile::new().unwrap();
        file.write_at(content, 0).unwrap();
        Arc::new(Pages(file))
    }
}

impl Mappable for Pages {
    fn object(&self) -> ObjectId {
        ObjectId { dev: 7, ino: 42 }
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<std::os::fd::OwnedFd>, u64)> {
        self.0.host_fd(prot, shared)
    }
}

fn file_request(
    pages: &Arc<Pages>,
    addr: u64,
    len: u64,
    prot: Prot,
    shared: bool,
    max_prot: Prot,
) -> MapRequest {
    let file = MapFile { mappable: pages.clone(), file: None, name: None, offset: 0, max_prot };
    MapRequest { shared, file: Some(file), ..anonymous(addr, len, prot) }
}

#[test]
fn mmap_has_linuxs_errors() {
    let f = fixture();
    let fails = |req: MapRequest| f.map(&req).unwrap_err();
    assert_eq!(fails(anonymous(0, 0, RW)), Errno::EINVAL);
    assert_eq!(fails(anonymous(0, u64::MAX, RW)), Errno::ENOMEM);
    assert_eq!(fails(anonymous(0, USER_MAX + P, RW)), Errno::ENOMEM);
    assert_eq!(fails(anonymous(BASE + 1, P, RW)), Errno::EINVAL);
    assert_eq!(fails(anonymous(P, P, RW)), Errno::EPERM);
    assert_eq!(fails(anonymous(USER_MAX, P, RW)), Errno::ENOMEM);
    assert_eq!(fails(MapRequest { grows_down: true, shared: true, ..anonymous(0, P, RW) }), Errno::EINVAL);
    let locked = Limits { memlock: 0, ..Limits::default() };
    assert_eq!(fails(MapRequest { locked: true, limits: locked, ..anonymous(0, P, RW) }), Errno::EPERM);
    let locked = Limits { memlock: P, ..Limits::default() };
    assert_eq!(fails(MapRequest { locked: true, limits: locked, ..anonymous(0, 2 * P, RW) }), Errno::EAGAIN);
    let small = Limits { address_space: 3 * P, ..Limits::default() };
    assert_eq!(fails(MapRequest { limits: small, ..anonymous(0, 4 * P, RW) }), Errno::ENOMEM);
    let small = Limits { data: 3 * P, ..Limits::default() };
    assert_eq!(fails(MapRequest { limits: small, ..anonymous(0, 4 * P, RW) }), Errno::ENOMEM);
    f.map(&MapRequest { limits: small, ..anonymous(0, 4 * P, Prot::READ) }).unwrap();
    let small = Limits { memory: 1 << 20, ..Limits::default() };
    assert_eq!(fails(MapRequest { limits: small, ..anonymous(0, 2 << 20, RW) }), Errno::ENOMEM);
    f.map(&MapRequest { limits: small, noreserve: true, ..anonymous(0, 2 << 20, RW) }).unwrap();

    let pages = Pages::new(&[1; 100]);
    let mut unaligned = file_request(&pages, 0, P, Prot::READ, false, Prot::all());
    unaligned.file.as_mut().unwrap().offset = 1;
    assert_eq!(fails(unaligned), Errno::EINVAL);
    let mut far = file_request(&pages, 0, 2 * P, Prot::READ, false, Prot::all());
    far.file.as_mut().unwrap().offset = (i64::MAX as u64) & !(P - 1);
    assert_eq!(fails(far), Errno::EOVERFLOW);
    assert_eq!(fails(file_request(&pages, 0, P, RW, true, Prot::READ)), Errno::EACCES);
    assert_eq!(fails(file_request(&pages, 0, P, Prot::READ, true, Prot::WRITE)), Errno::EACCES);
    assert_eq!(fails(file_request(&pages, 0, P, Prot::EXEC, false, RW)), Errno::EPERM);
    let grows = MapRequest { grows_down: true, ..file_request(&pages, 0, P, Prot::READ, false, RW) };
    assert_eq!(fails(grows), Errno::EINVAL);

    f.map_at(BASE, 2);
    let req = MapRequest { fixed: Fixed::NoReplace, ..anonymous(BASE + P, 2 * P, RW) };
    assert_eq!(fails(req.clone()), Errno::EEXIST);
    assert_eq!(f.map(&MapRequest { addr: BASE + 2 * P, ..req }), Ok(BASE + 2 * P));
}

#[test]
fn addresses_are_chosen_from_the_top_and_hints_are_heard() {
    let f = fixture();
    f.mm.set_layout(|l| l.mmap_base = BASE);
    assert_eq!(f.map(&anonymous(0, P, RW)), Ok(BASE - P));
    assert_eq!(f.map(&anonymous(0, 10, Prot::READ)), Ok(BASE - 2 * P));
    let hint = |addr| MapRequest { addr, fixed: Fixed::No, ..anonymous(0, P, RW) };
    assert_eq!(f.map(&hint(BASE + 123)), Ok(BASE));
    assert_eq!(f.map(&hint(BASE)), Ok(BASE - 3 * P), "taken");
    assert_eq!(f.map(&hint(1)), Ok(BASE - 4 * P), "no hint");
    assert_eq!(f.map(&hint(P)), Ok(USER_MIN), "raised to what is allowed");
    assert_eq!(f.map(&hint(u64::MAX)), Ok(BASE - 5 * P), "out of reach");
    let low = f.map(&MapRequest { low: true, ..anonymous(0, P, RW) }).unwrap();
    assert_eq!(low, (1 << 31) - P);
    let huge = f.map(&anonymous(0, 4 << 20, RW)).unwrap();
    assert_eq!(huge % (2 << 20), 0, "aligned for huge pages");
    // Near a stack its guard is kept clear, unless the address is fixed.
    let stack = BASE + (1 << 30);
    f.map(&MapRequest { grows_down: true, ..anonymous(stack, P, RW) }).unwrap();
    assert_ne!(f.map(&hint(stack - P)), Ok(stack - P));
    assert_eq!(f.map(&hint(stack - STACK_GUARD - P)), Ok(stack - STACK_GUARD - P));
    f.map_at(stack - 4 * P, 1);
}

#[test]
fn mappings_split_and_merge() {
    let f = fixture();
    f.map_at(BASE, 4);
    f.map_at(BASE + 4 * P, 4);
    assert_eq!(f.ranges(), [(BASE, BASE + 8 * P)]);
    f.mm.unmap(None, BASE + 2 * P, P).unwrap();
    assert_eq!(f.ranges(), [(BASE, BASE + 2 * P), (BASE + 3 * P, BASE + 8 * P)]);
    f.protect(BASE + 4 * P, P, Prot::READ).unwrap();
    assert_eq!(f.ranges().len(), 4);
    assert_eq!(f.host.prot(BASE + 4 * P), Some(Prot::READ));
    f.protect(BASE + 4 * P, P, RW).unwrap();
    assert_eq!(f.ranges().len(), 2);
    assert_eq!(f.mm.usage().total, 7 * P);
    assert_eq!(f.mm.usage().data, 7 * P);
    for (addr, len, errno) in [(1, P, Errno::EINVAL), (BASE, 0, Errno::EINVAL), (USER_MAX, P, Errno::EINVAL)]
    {
        assert_eq!(f.mm.unmap(None, addr, len), Err(errno));
    }
    // A range that nothing is in, and one that goes below what can be mapped.
    f.mm.unmap(None, BASE * 2, P).unwrap();
    f.mm.unmap(None, 0, BASE + P).unwrap();
    f.mm.unmap(None, BASE, 100 * P).unwrap();
    assert_eq!((f.host.mapped(), f.mm.usage().total, f.mm.usage().peak), (0, 0, 8 * P));
}

#[test]
fn mprotect_stops_at_the_error() {
    let f = fixture();
    f.map_at(BASE, 2);
    f.map_at(BASE + 3 * P, 1);
    assert_eq!(f.protect(BASE + 1, P, RW), Err(Errno::EINVAL));
    assert_eq!(f.protect(BASE, 0, RW), Ok(()));
    assert_eq!(f.protect(BASE * 2, P, RW), Err(Errno::ENOMEM));
    assert_eq!(f.protect(BASE, u64::MAX, RW), Err(Errno::ENOMEM));
    assert_eq!(f.protect(BASE + P, 3 * P, Prot::READ), Err(Errno::ENOMEM));
    let prots: Vec<Prot> = f.mm.maps().iter().map(|m| m.prot).collect();
    assert_eq!(prots, [RW, Prot::READ, RW], "what comes before the hole was changed");

    let pages = Pages::new(&[1; 100]);
    f.map(&file_request(&pages, BASE + 2 * P, P, Prot::READ, true, Prot::READ)).unwrap();
    assert_eq!(f.protect(BASE + P, 3 * P, RW), Err(Errno::EACCES));
    assert_eq!(f.host.prot(BASE + P), Some(RW));
    assert_eq!(f.host.prot(BASE + 2 * P), Some(Prot::READ));

    let grow = |addr| f.mm.protect(None, addr, P, Prot::READ, true, &Limits::default());
    assert_eq!(grow(BASE), Err(Errno::EINVAL));
    f.map(&MapRequest { grows_down: true, ..anonymous(2 * BASE, 4 * P, RW) }).unwrap();
    grow(2 * BASE + 2 * P).unwrap();
    assert_eq!(f.host.prot(2 * BASE), Some(Prot::READ), "from the start of the mapping");
    assert_eq!(f.host.prot(2 * BASE + 3 * P), Some(RW));

    f.map(&anonymous(3 * BASE, 8 * P, Prot::READ)).unwrap();
    let limits = Limits { data: 8 * P, ..Limits::default() };
    assert_eq!(f.mm.protect(None, 3 * BASE, 8 * P, RW, false, &limits), Err(Errno::ENOMEM));
}

#[test]
fn write_access_means_read_access_on_the_host() {
    let f = fixture();
    f.map(&anonymous(BASE, P, Prot::WRITE)).unwrap();
    f.mm.write_bytes(BASE, b"x").unwrap();
    assert_eq!(f.byte(BASE), Ok(b'x'));
    f.protect(BASE, P, Prot::empty()).unwrap();
    assert_eq!(f.byte(BASE), Err(Errno::EFAULT));
    assert_eq!(f.mm.write_bytes(BASE, b"x"), Err(Errno::EFAULT));
}

#[test]
fn shared_file_mappings_get_just_the_access_of_the_guests_descriptor() {
    let f = fixture();
    let pages = Pages::new(b"contents");
    f.map(&file_request(&pages, BASE, P, Prot::READ, true, Prot::READ)).unwrap();
    // What a hijacked stub would try.
    let change = platform::Change::Protect { addr: BASE, len: P, prot: RW };
    assert_eq!(f.mm.address_space().apply(None, &[change]), Err(Errno::EACCES));
    // A writable descriptor, mapped for reading first.
    f.map(&file_request(&pages, BASE + P, P, Prot::READ, true, RW)).unwrap();
    f.protect(BASE + P, P, RW).unwrap();
    f.mm.write_bytes(BASE + P, b"CON").unwrap();
    let mut seen = [0; 8];
    f.mm.read_bytes(BASE, &mut seen).unwrap();
    assert_eq!(&seen, b"CONtents");
    // A private one never writes through.
    f.map(&file_request(&pages, BASE + 2 * P, P, RW, false, Prot::all())).unwrap();
    f.mm.write_bytes(BASE + 2 * P, b"xxx").unwrap();
    assert_eq!(f.byte(BASE), Ok(b'C'));
}

#[test]
fn shared_anonymous_memory_is_shared_with_the_child() {
    let f = fixture();
    f.map(&MapRequest { shared: true, ..anonymous(BASE, 2 * P, RW) }).unwrap();
    f.map_at(BASE + 2 * P, 1);
    let child = f.mm.fork(None).unwrap();
    child.write_bytes(BASE + P - 1, b"shared").unwrap();
    child.write_bytes(BASE + 2 * P, b"mine").unwrap();
    assert_eq!(f.byte(BASE + P), Ok(b'h'));
    assert_eq!(f.byte(BASE + 2 * P), Ok(0));
    let map = f.mm.maps().remove(0);
    assert_eq!(map.permissions(), "rw-s");
    assert!(matches!(&map.name, MapName::Text(name) if &**name == "/dev/zero (deleted)"));
    // Futexes: the same word in both for shared memory only.
    assert_eq!(f.mm.futex_key(BASE + 8, true), child.futex_key(BASE + 8, true));
    assert_ne!(f.mm.futex_key(BASE + 8, true), f.mm.futex_key(BASE + 12, true));
    assert_ne!(f.mm.futex_key(BASE + 8, false), child.futex_key(BASE + 8, false));
    assert_ne!(f.mm.futex_key(BASE + 2 * P, true), f.mm.futex_key(BASE + 2 * P, false), "as in Linux");
    assert_ne!(f.mm.futex_key(BASE + 2 * P, true), child.futex_key(BASE + 2 * P, true));
    assert!(matches!(f.mm.futex_key(BASE + P, true), Ok(FutexKey::Shared { offset: P, .. })));
    assert_eq!(f.mm.futex_key(BASE + 1, false), Err(Errno::EINVAL));
    assert_eq!(f.mm.futex_key(2 * BASE, true), Err(Errno::EFAULT));
    assert_eq!(f.mm.futex_key(USER_MAX, false), Err(Errno::EFAULT));
    assert_eq!(f.mm.compare_exchange(None, BASE + 8, 0, 5), Ok(0));
    assert_eq!(child.load_u32(BASE + 8), Ok(5));
    assert_eq!(child.load_u32(BASE + 12), Ok(0));
    assert_eq!(f.mm.compare_exchange(None, BASE + 8, 0, 6), Ok(5));
    assert_eq!(f.mm.compare_exchange(None, BASE * 2, 0, 6), Err(Errno::EFAULT));
}

#[test]
fn mremap_in_all_its_modes() {
    let f = fixture();
    f.mm.set_layout(|l| l.mmap_base = BASE);
    let a = 2 * BASE;
    f.map_at(a, 4);
    f.mm.write_bytes(a + P, b"data").unwrap();
    for (old, old_len, new_len, may_move, fixed, errno) in [
        (a + 1, P, P, true, None, Errno::EINVAL),
        (a, P, 0, true, None, Errno::EINVAL),
        (a, P, P, false, Some(a + 8 * P), Errno::EINVAL),
        (a, P, P, true, Some(a + 1), Errno::EINVAL),
        (a, 4 * P, 4 * P, true, Some(a + 2 * P), Errno::EINVAL),
        (a, P, P, true, Some(USER_MAX), Errno::EINVAL),
        (a, P, P, true, Some(P), Errno::EPERM),
        (4 * BASE, P, P, true, None, Errno::EFAULT),
        (a, 5 * P, 6 * P, true, None, Errno::EFAULT),
        (a, 0, P, true, None, Errno::EINVAL),
        (a, P, USER_MAX, true, None, Errno::ENOMEM),
        (a, u64::MAX, P, true, None, Errno::EINVAL),
        (a, P, u64::MAX, true, None, Errno::EINVAL),
    ] {
        assert_eq!(
            f.remap(old, old_len, new_len, may_move, fixed),
            Err(errno),
            "{old:x} {old_len:x} {new_len:x}"
        );
    }
    assert_eq!(f.remap(a, 4 * P, 4 * P, false, None), Ok(a));
    // In place, then blocked by a neighbour.
    assert_eq!(f.remap(a, 4 * P, 6 * P, false, None), Ok(a));
    f.map(&anonymous(a + 6 * P, P, Prot::READ)).unwrap();
    assert_eq!(f.remap(a, 6 * P, 7 * P, false, None), Err(Errno::ENOMEM));
    // Moved. It is several mappings on the host by now.
    let b = f.remap(a, 6 * P, 8 * P, true, None).unwrap();
    assert_eq!(b, BASE - 8 * P);
    assert_eq!(f.byte(b + P), Ok(b'd'));
    assert_eq!(f.byte(b + 7 * P), Ok(0));
    assert_eq!(f.byte(a + P), Err(Errno::EFAULT));
    // Shrunk, and moved over something else.
    assert_eq!(f.remap(b, 8 * P, 2 * P, false, None), Ok(b));
    assert_eq!(f.remap(b, 2 * P, 3 * P, true, Some(a + 5 * P)), Ok(a + 5 * P));
    assert_eq!(f.byte(a + 6 * P), Ok(b'd'));
    assert_eq!(f.ranges(), [(a + 5 * P, a + 8 * P)]);
    // Left in place, empty.
    let keep = |old, old_len, new_len| {
        let req = RemapRequest { old, old_len, new_len, may_move: true, fixed: None, dont_unmap: true };
        f.mm.remap(None, &req, &Limits::default())
    };
    assert_eq!(keep(a + 5 * P, P, 2 * P), Err(Errno::EINVAL));
    let c = keep(a + 6 * P, P, P).unwrap();
    assert_eq!((f.byte(c), f.byte(a + 6 * P)), (Ok(b'd'), Ok(0)));
    assert_eq!(f.mm.usage().total, 4 * P);
    // A second view of shared memory, and growth beyond the object, which is mapped but not there.
    f.map(&MapRequest { shared: true, ..anonymous(3 * BASE, 2 * P, RW) }).unwrap();
    let d = f.remap(3 * BASE + P, 0, P, true, None).unwrap();
    f.mm.write_bytes(d, b"both").unwrap();
    assert_eq!(f.byte(3 * BASE + P), Ok(b'b'));
    assert_eq!(f.remap(3 * BASE, 2 * P, 3 * P, false, None), Ok(3 * BASE));
    assert_eq!(f.byte(3 * BASE + 2 * P), Err(Errno::EFAULT));
    // Limits.
    let limits = Limits { address_space: f.mm.usage().total, ..Limits::default() };
    let req =
        RemapRequest { old: c, old_len: P, new_len: 2 * P, may_move: true, fixed: None, dont_unmap: false };
    assert_eq!(f.mm.remap(None, &req, &limits), Err(Errno::ENOMEM));
}

#[test]
fn a_failed_move_leaves_everything_as_it_was() {
    for fail in 1..12 {
        let f = fixture();
        f.map_at(BASE, 2);
        f.map_at(BASE + 2 * P, 1);
        f.mm.write_bytes(BASE, b"data").unwrap();
        f.host.fail_in.store(fail, std::sync::atomic::Ordering::Relaxed);
        let result = f.remap(BASE, 3 * P, 5 * P, true, Some(2 * BASE));
        f.host.fail_in.store(0, std::sync::atomic::Ordering::Relaxed);
        if let Ok(new) = result {
            assert_eq!(f.byte(new), Ok(b'd'));
            return;
        }
        // (If undoing fails as well, nothing can be said.)
        assert_eq!(f.byte(BASE), Ok(b'd'), "{fail}");
        assert_eq!(f.ranges(), [(BASE, BASE + 3 * P)]);
        assert_eq!(f.host.mapped(), 3 * P);
    }
    panic!("never succeeded");
}

#[test]
fn the_heap_grows_and_shrinks() {
    let f = fixture();
    f.mm.set_layout(|l| (l.start_brk, l.brk) = (BASE, BASE));
    let limits = Limits::default();
    assert_eq!(f.mm.set_brk(None, 0, &limits), BASE);
    assert_eq!(f.mm.set_brk(None, BASE + 10, &limits), BASE + 10);
    assert_eq!(f.ranges(), [(BASE, BASE + P)]);
    assert!(matches!(&f.mm.maps()[0].name, MapName::Text(name) if &**name == "[heap]"));
    assert_eq!(f.mm.set_brk(None, BASE + 3 * P, &limits), BASE + 3 * P);
    f.mm.write_bytes(BASE + 2 * P, b"x").unwrap();
    assert_eq!(f.mm.set_brk(None, BASE + P + 1, &limits), BASE + P + 1);
    assert_eq!(f.mm.set_brk(None, BASE + 3 * P, &limits), BASE + 3 * P);
    assert_eq!(f.byte(BASE + 2 * P), Ok(0), "fresh again");
    f.map_at(BASE + 5 * P, 1);
    assert_eq!(f.mm.set_brk(None, BASE + 5 * P, &limits), BASE + 3 * P, "no free page above");
    assert_eq!(f.mm.set_brk(None, BASE + 4 * P, &limits), BASE + 4 * P);
    let tight = Limits { data: 4 * P, ..limits };
    assert_eq!(f.mm.set_brk(None, BASE + 4 * P + 1, &tight), BASE + 4 * P);
    assert_eq!(f.mm.set_brk(None, u64::MAX, &limits), BASE + 4 * P);
    f.mm.unmap(None, BASE + P, P).unwrap();
    assert_eq!(f.mm.set_brk(None, BASE, &limits), BASE);
    assert_eq!(f.ranges(), [(BASE + 5 * P, BASE + 6 * P)]);
}

#[test]
fn stacks_grow_on_faults_and_on_the_sentrys_accesses() {
    let f = fixture();
    let top = BASE + (64 << 20);
    f.mm.set_layout(|l| l.start_stack = top - 8);
    f.map(&MapRequest { grows_down: true, ..anonymous(top - P, P, RW) }).unwrap();
    assert_eq!(f.fault(top - P - 8, 6), FaultOutcome::Resume);
    let first = f.ranges()[0].0;
    assert!(first <= top - (128 << 10), "grows in steps");
    assert_eq!(f.ranges().len(), 1);
    // Far below, but within the limit; and beyond.
    assert_eq!(f.fault(top - (4 << 20), 6), FaultOutcome::Resume);
    assert!(f.byte(top - (4 << 20)).is_ok());
    let signal = |code, addr| FaultOutcome::Signal { signal: 11, code, addr };
    assert_eq!(f.fault(top - (8 << 20) - 1, 6), signal(SEGV_MAPERR, top - (8 << 20) - 1));
    f.mm.write_bytes(top - (5 << 20), b"grown by the sentry").unwrap();
    assert_eq!(f.mm.write_bytes(top - (9 << 20), b"x"), Err(Errno::EFAULT));
    // All of the limit can be had, whatever the steps.
    f.mm.write_bytes(top - (8 << 20), b"x").unwrap();
    assert_eq!(f.mm.usage().stack, 8 << 20);

    // A neighbour keeps its distance.
    let top = 2 * BASE;
    f.map(&MapRequest { grows_down: true, ..anonymous(top - P, P, RW) }).unwrap();
    f.map_at(top - STACK_GUARD - 40 * P, 1);
    assert_eq!(f.fault(top - 39 * P, 6), FaultOutcome::Resume);
    assert_eq!(
        f.ranges().last().unwrap().0,
        top - 39 * P,
        "not the process's stack: no more than what is needed"
    );
    assert_eq!(f.fault(top - 39 * P - 1, 6), signal(SEGV_MAPERR, top - 39 * P - 1));
}

#[test]
fn faults_are_told_apart() {
    let f = fixture();
    let signal = |code, addr| FaultOutcome::Signal { signal: 11, code, addr };
    f.map(&anonymous(BASE, P, Prot::READ)).unwrap();
    assert_eq!(f.fault(BASE, 6), signal(SEGV_ACCERR, BASE));
    assert_eq!(f.fault(BASE, 0x14), signal(SEGV_ACCERR, BASE), "no execution");
    assert_eq!(f.fault(BASE + P, 4), signal(SEGV_MAPERR, BASE + P));
    assert_eq!(f.fault(BASE - 1, 4), signal(SEGV_MAPERR, BASE - 1));
    assert_eq!(f.fault(USER_MAX + P, 4), signal(SEGV_MAPERR, USER_MAX + P), "the stub is not there");
    // Allowed by the map: a race, but only once.
    assert_eq!(f.fault(BASE, 4), FaultOutcome::Resume);
    assert_eq!(f.fault(BASE, 4), signal(SEGV_MAPERR, BASE));
    f.map_at(BASE + P, 1);
    assert_eq!(f.fault(BASE, 4), FaultOutcome::Resume, "something has changed");
    // What else there is passes through.
    for (signal, code, addr) in [(7, 2, BASE), (8, 1, BASE), (11, 128, 0)] {
        let fault = Fault { signal, code, addr, trapno: 0, error: 0 };
        let outcome = f.mm.handle_fault(None, &fault, &Limits::default());
        assert_eq!(outcome, FaultOutcome::Signal { signal, code, addr });
    }
}

#[test]
fn madvise_has_linuxs_errors() {
    let f = fixture();
    f.map_at(BASE, 4);
    f.map_at(BASE + 5 * P, 1);
    let advise = |addr, len, advice| f.mm.advise(None, addr, len, advice, false);
    assert_eq!(advise(BASE + 1, P, MADV_DONTNEED), Err(Errno::EINVAL));
    assert_eq!(advise(BASE, P, 77), Err(Errno::EINVAL));
    assert_eq!(advise(BASE, 0, MADV_DONTNEED), Ok(()));
    assert_eq!(advise(BASE, u64::MAX, MADV_DONTNEED), Err(Errno::EINVAL));
    assert_eq!(advise(BASE, P, MADV_HWPOISON), Err(Errno::EPERM));
    f.mm.write_bytes(BASE, b"x").unwrap();
    f.mm.write_bytes(BASE + 5 * P, b"x").unwrap();
    assert_eq!(advise(BASE, 6 * P, MADV_DONTNEED), Err(Errno::ENOMEM), "a hole");
    assert_eq!((f.byte(BASE), f.byte(BASE + 5 * P)), (Ok(0), Ok(0)), "but the rest is done");
    assert_eq!(advise(BASE, P, MADV_REMOVE), Err(Errno::EINVAL));
    assert_eq!(advise(0, 2 * P, MADV_DONTNEED), Err(Errno::ENOMEM));
    let pages = Pages::new(&[1; 100]);
    f.map(&file_request(&pages, 2 * BASE, P, Prot::READ, true, Prot::READ)).unwrap();
    assert_eq!(advise(2 * BASE, P, MADV_FREE), Err(Errno::EINVAL));
    assert_eq!(advise(2 * BASE, P, MADV_WIPEONFORK), Err(Errno::EINVAL));
    assert_eq!(advise(2 * BASE, P, MADV_REMOVE), Err(Errno::EACCES));
    assert_eq!(advise(2 * BASE, P, MADV_POPULATE_WRITE), Err(Errno::EINVAL));
    f.mm.lock(None, BASE, P, false, &Limits::default()).unwrap();
    assert_eq!(advise(BASE, P, MADV_DONTNEED), Err(Errno::EINVAL), "locked");

    advise(BASE + 2 * P, P, MADV_DONTFORK).unwrap();
    advise(BASE + 3 * P, P, MADV_WIPEONFORK).unwrap();
    f.mm.write_bytes(BASE + 3 * P, b"x").unwrap();
    f.mm.write_bytes(BASE + P, b"x").unwrap();
    let child = f.mm.fork(None).unwrap();
    let byte = |addr| child.read_object::<u8>(addr);
    assert_eq!(byte(BASE + P), Ok(b'x'));
    assert_eq!(byte(BASE + 2 * P), Err(Errno::EFAULT));
    assert_eq!(byte(BASE + 3 * P), Ok(0));
    assert_eq!(child.maps().iter().map(|m| (m.start - BASE) / P).take(2).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(child.usage().locked, 0);
    assert_ne!(child.id(), f.mm.id());
}

#[test]
fn locked_memory_is_counted() {
    let f = fixture();
    f.map_at(BASE, 4);
    let limits = Limits { memlock: 3 * P, ..Limits::default() };
    assert_eq!(f.mm.lock(None, BASE, P, false, &Limits { memlock: 0, ..limits }), Err(Errno::EPERM));
    f.mm.lock(None, BASE + 1, P, false, &limits).unwrap();
    assert_eq!(f.mm.usage().locked, 2 * P);
    f.mm.lock(None, BASE, 3 * P, true, &limits).unwrap();
    assert_eq!(f.mm.lock(None, BASE, 4 * P, false, &limits), Err(Errno::ENOMEM));
    assert_eq!(f.mm.lock(None, BASE, 4 * P, false, &Limits { can_lock: true, ..limits }), Ok(()));
    assert_eq!(f.mm.lock(None, BASE + 3 * P, 2 * P, false, &Limits::default()), Err(Errno::ENOMEM), "a hole");
    assert_eq!(f.mm.unlock(BASE + 3 * P, 2 * P), Err(Errno::ENOMEM));
    assert_eq!(f.mm.usage().locked, 3 * P);
    f.mm.unmap(None, BASE, P).unwrap();
    assert_eq!(f.mm.usage().locked, 2 * P);
    assert_eq!(f.mm.lock_all(None, MlockallFlags::empty(), &limits), Err(Errno::EINVAL));
    assert_eq!(f.mm.lock_all(None, MlockallFlags::MCL_ONFAULT, &limits), Err(Errno::EINVAL));
    f.mm.lock_all(None, MlockallFlags::MCL_CURRENT | MlockallFlags::MCL_FUTURE, &limits).unwrap();
    assert_eq!(f.mm.usage().locked, 3 * P);
    assert_eq!(f.map(&MapRequest { limits, ..anonymous(0, P, RW) }), Err(Errno::EAGAIN));
    f.mm.unlock_all();
    assert_eq!(f.mm.usage().locked, 0);
    f.map(&MapRequest { limits, ..anonymous(0, P, RW) }).unwrap();
}

#[test]
fn msync_and_mincore_know_holes() {
    let f = fixture();
    f.map_at(BASE, 2);
    assert_eq!(f.mm.sync(BASE, 2 * P, 4), Ok(()));
    assert_eq!(f.mm.sync(BASE, 3 * P, 4), Err(Errno::ENOMEM));
    assert_eq!(f.mm.sync(BASE + 1, P, 4), Err(Errno::EINVAL));
    assert_eq!(f.mm.sync(BASE, P, 5), Err(Errno::EINVAL));
    assert_eq!(f.mm.sync(BASE, P, 8), Err(Errno::EINVAL));
    f.mm.lock(None, BASE, P, false, &Limits::default()).unwrap();
    assert_eq!(f.mm.sync(BASE, P, 2), Err(Errno::EBUSY));
    f.mm.write_bytes(BASE + P, b"x").unwrap();
    let mut pages = [9; 2];
    f.mm.resident(BASE, &mut pages).unwrap();
    assert_eq!(pages, [0, 1]);
    assert_eq!(f.mm.resident(BASE, &mut [0; 3]), Err(Errno::ENOMEM));
}

#[test]
fn strings_and_structures() {
    let f = fixture();
    f.map_at(BASE, 2);
    let edge = BASE + 2 * P - 6;
    f.mm.write_bytes(edge, b"hello\0").unwrap();
    assert_eq!(f.mm.read_cstring(edge, 4096, Errno::ENAMETOOLONG), Ok(b"hello".to_vec()));
    assert_eq!(f.mm.read_cstring(edge, 6, Errno::ENAMETOOLONG), Ok(b"hello".to_vec()));
    assert_eq!(f.mm.read_cstring(edge, 5, Errno::E2BIG), Err(Errno::E2BIG));
    f.mm.write_bytes(edge + 5, b"!").unwrap();
    assert_eq!(f.mm.read_cstring(edge, 4096, Errno::ENAMETOOLONG), Err(Errno::EFAULT));
    f.mm.write_bytes(BASE + P - 3, b"across\0").unwrap();
    assert_eq!(f.mm.read_cstring(BASE + P - 3, 4096, Errno::ENAMETOOLONG), Ok(b"across".to_vec()));
    assert_eq!(f.mm.read_cstring(u64::MAX - 2, 4096, Errno::ENAMETOOLONG), Err(Errno::EFAULT));

    f.mm.write_object(BASE, &[1u32, 2, 3][..]).unwrap();
    assert_eq!(f.mm.read_array::<u32>(BASE, 3), Ok(vec![1, 2, 3]));
    assert_eq!(f.mm.read_array::<u64>(BASE, usize::MAX), Err(Errno::EFAULT));
    assert_eq!(f.mm.read_object::<u64>(BASE + 2 * P - 4), Err(Errno::EFAULT));
    assert_eq!(f.mm.read_object::<u64>(u64::MAX - 3), Err(Errno::EFAULT));
    let mut four = [0; 4];
    assert_eq!(f.mm.read_upto(BASE + 2 * P - 2, &mut four), Ok(2));
    assert_eq!(f.mm.write_upto(BASE + 2 * P - 1, &[7; 4]), Ok(1));
    assert_eq!(f.mm.write_upto(BASE + 2 * P, &[7; 4]), Err(Errno::EFAULT));
    assert_eq!(f.mm.write_upto(BASE + 2 * P, &[]), Ok(0));
    f.mm.zero(BASE, 2 * P).unwrap();
    assert_eq!(f.byte(BASE + 2 * P - 1), Ok(0));
    assert_eq!(f.mm.zero(BASE, 2 * P + 1), Err(Errno::EFAULT));
    let (mut a, mut b) = ([1; 2], [1; 3]);
    f.mm.read_batch(&mut [(BASE, &mut a), (BASE + P, &mut b)]).unwrap();
    assert_eq!((a, b), ([0; 2], [0; 3]));
    assert_eq!(f.mm.write_batch(&[(BASE, &a), (BASE * 2, &b)]), Err(Errno::EFAULT));
    f.mm.kill();
    assert_eq!(f.map(&anonymous(0, P, RW)), Err(Errno::ESRCH));
}

#[test]
fn scattered_buffers() {
    let f = fixture();
    f.map_at(BASE, 1);
    let list = [(BASE, 3), (BASE + 100, 0), (BASE + 200, 4), (BASE + P - 2, 8)];
    let mut sink = UserSink::new(&f.mm, list).unwrap();
    assert_eq!(sink.remaining(), 15);
    assert_eq!(sink.put(b"abcde"), Ok(5));
    assert_eq!(sink.put(b"fg"), Ok(2));
    assert_eq!(sink.put(b"hijk"), Ok(2), "up to the end of the page");
    assert_eq!(sink.put(b"jk"), Err(Errno::EFAULT));
    assert_eq!(sink.remaining(), 6);

    let mut source = UserSource::new(&f.mm, list).unwrap();
    source.limit(8);
    let mut buf = [0; 5];
    assert_eq!(source.take(&mut buf), Ok(5));
    assert_eq!(&buf, b"abcde");
    source.untake(3);
    assert_eq!(source.remaining(), 6);
    let mut buf = [0; 6];
    assert_eq!(source.take(&mut buf), Ok(6));
    assert_eq!(&buf, b"cdefgh");
    assert_eq!(source.take(&mut buf), Ok(0));
    source.untake(8);
    assert_eq!(source.remaining(), 8);
    assert!(matches!(UserSink::buffer(&f.mm, USER_MAX, 1), Err(Errno::EFAULT)));
    assert!(matches!(UserSink::buffer(&f.mm, u64::MAX, 2), Err(Errno::EFAULT)));
    assert!(matches!(UserSource::new(&f.mm, vec![(0, USER_MAX); 1 << 18]), Err(Errno::EINVAL)));
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, u8, bool),
    Unmap(u64, u64),
    Protect(u64, u64, u8),
    Remap(u64, u64, u64, Option<u64>, bool),
    Write(u64, u8),
    Fork,
}

fn step() -> impl Strategy<Value = Step> {
    let page = || 0..24u64;
    let len = || 1..6u64;
    prop_oneof![
        (page(), len(), 0..4u8, any::<bool>()).prop_map(|(a, l, p, s)| Step::Map(a, l, p, s)),
        (page(), len()).prop_map(|(a, l)| Step::Unmap(a, l)),
        (page(), len(), 0..4u8).prop_map(|(a, l, p)| Step::Protect(a, l, p)),
        (page(), 1..5u64, 1..6u64, proptest::option::of(page()), any::<bool>())
            .prop_map(|(a, o, n, f, k)| Step::Remap(a, o, n, f, k)),
        (page(), any::<u8>()).prop_map(|(a, b)| Step::Write(a, b)),
        proptest::strategy::Just(Step::Fork),
    ]
}

proptest! {
    /// After any history the map and the host agree on what is mapped and how, and the sums are right.
    #[test]
    fn the_map_and_the_host_agree(steps in proptest::collection::vec(step(), 1..50)) {
        let f = fixture();
        f.mm.set_layout(|l| l.mmap_base = BASE + 64 * P);
        let at = |page: u64| BASE + page * P;
        let prot = |p: u8| Prot::from_bits_truncate(u32::from(p));
        for step in steps {
            match step {
                Step::Map(a, l, p, shared) => {
                    f.map(&MapRequest { shared, ..anonymous(at(a), l * P, prot(p)) }).unwrap();
                }
                Step::Unmap(a, l) => f.mm.unmap(None, at(a), l * P).unwrap(),
                Step::Protect(a, l, p) => { let _ = f.protect(at(a), l * P, prot(p)); }
                Step::Remap(a, o, n, fixed, dont_unmap) => {
                    let req = RemapRequest {
                        old: at(a), old_len: o * P, new_len: n * P, may_move: true, fixed: fixed.map(at), dont_unmap,
                    };
                    let _ = f.mm.remap(None, &req, &Limits::default());
                }
                Step::Write(a, byte) => {
                    if f.mm.write_bytes(at(a), &[byte]).is_ok() {
                        assert_eq!(f.byte(at(a)), Ok(byte));
                    }
                }
                Step::Fork => {
                    let child = f.mm.fork(None).unwrap();
                    assert_eq!(child.usage().total, f.mm.usage().total);
                    assert_eq!(child.maps().len(), f.mm.maps().len());
                }
            }
            let maps = f.mm.maps();
            let mut total = 0;
            for m in &maps {
                total += m.end - m.start;
                for addr in (m.start..m.end).step_by(P as usize) {
                    let expected = if m.prot.contains(Prot::WRITE) { m.prot | Prot::READ } else { m.prot };
                    assert_eq!(f.host.prot(addr), Some(expected));
                }
            }
            assert_eq!(f.host.mapped(), total);
            let data: u64 = maps.iter()
                .filter(|m| m.permissions().starts_with("rw") || m.permissions().starts_with("-w"))
                .filter(|m| m.permissions().ends_with('p'))
                .map(|m| m.end - m.start).sum();
            assert_eq!((f.mm.usage().total, f.mm.usage().data), (total, data));
        }
        f.mm.unmap(None, 0, USER_MAX).unwrap();
        assert_eq!(f.host.mapped(), 0);
    }
}

#[test]
fn windows_read_a_page_once() {
    let f = fixture();
    f.map_at(BASE, 2);
    let middle = BASE + P;
    f.mm.write_bytes(middle - 6, b"one\0two\0three\0").unwrap();
    f.mm.write_bytes(middle + P - 5, b"last\0").unwrap();
    f.mm.write_object(BASE + P - 20, &(middle - 2)).unwrap();
    let before = f.host.reads();
    let mut window = Window::new(&f.mm);
    assert_eq!(window.read_u64(BASE + P - 20), Ok(middle - 2));
    assert_eq!(window.read_cstring(middle - 6, 100, Errno::E2BIG), Ok(b"one".to_vec()));
    assert_eq!(f.host.reads() - before, 1);
    // Across the end of a page, and up to the end of what there is.
    assert_eq!(window.read_cstring(middle - 2, 100, Errno::E2BIG), Ok(b"two".to_vec()));
    assert_eq!(window.read_cstring(middle + 2, 100, Errno::E2BIG), Ok(b"three".to_vec()));
    assert_eq!(window.read_cstring(middle + P - 5, 100, Errno::E2BIG), Ok(b"last".to_vec()));
    assert_eq!(f.host.reads() - before, 2);
    assert_eq!(window.read_u64(middle - 4), Ok(u64::from_le_bytes(*b"e\0two\0th")));
    // As many bytes as may be, with the end or without it.
    assert_eq!(window.read_cstring(middle + 2, 6, Errno::E2BIG), Ok(b"three".to_vec()));
    assert_eq!(window.read_cstring(middle + 2, 5, Errno::E2BIG), Err(Errno::E2BIG));
    for beyond in [middle + P, u64::MAX - 3, u64::MAX] {
        assert_eq!(window.read_cstring(beyond, 100, Errno::E2BIG), Err(Errno::EFAULT));
        assert_eq!(window.read_u64(beyond), Err(Errno::EFAULT));
    }
    assert_eq!(window.read_u64(middle + P - 4), Err(Errno::EFAULT));
}
