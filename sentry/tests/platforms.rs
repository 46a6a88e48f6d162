//! The memory manager and the loader on the host-process platforms.
//!
//! No test harness: a platform is made while the process has one thread.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::elf::{ELFMAG, EM_X86_64, ET_EXEC, Elf64Ehdr, Elf64Phdr, PF_R, PF_W, PF_X, PT_LOAD};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use platform::{Context, Exit, PAGE_SIZE, Platform, Prot, Resume};
use sentry::fs::anonymous::AnonymousFs;
use sentry::loader::{LoadRequest, Vdso, load};
use sentry::mm::{FaultOutcome, Fixed, Limits, MapFile, MapRequest, MemoryFile, MemoryManager, RemapRequest};
use sentry::vfs::{
    Attributes, Dentry, File, FileOps, Inode, Io, Mappable, ObjectId, Path, SetAttributes, Sink,
};
use zerocopy::IntoBytes;

const P: u64 = PAGE_SIZE;
const BASE: u64 = 0x20_0000_0000;
const RW: Prot = Prot::READ.union(Prot::WRITE);

type Test = fn(&dyn Platform);

const TESTS: &[(&str, Test)] = &[
    ("random_histories_agree_with_the_host", random_histories_agree_with_the_host),
    ("fork_shares_and_copies", fork_shares_and_copies),
    ("readers_of_a_file_cannot_write_it", readers_of_a_file_cannot_write_it),
    ("noexec_files_are_copied", noexec_files_are_copied),
    ("moves_cross_boundaries_of_the_host", moves_cross_boundaries_of_the_host),
    ("discarded_memory_is_zero", discarded_memory_is_zero),
    ("a_program_grows_its_stack", a_program_grows_its_stack),
    ("the_vdso_tells_the_time", the_vdso_tells_the_time),
];

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let mut failed = false;
    for name in ["ptrace", "systrap"] {
        let platform: Box<dyn Platform> = match name {
            "ptrace" => match platform_ptrace::Ptrace::new() {
                Ok(platform) => Box::new(platform),
                Err(error) => {
                    println!("{name} ... skipped: {error}");
                    continue;
                }
            },
            _ => match platform_systrap::SystrapPlatform::new(true) {
                Ok(platform) => Box::new(platform),
                Err(error) => {
                    println!("{name} ... skipped: {error}");
                    continue;
                }
            },
        };
        for (test, run) in TESTS {
            if filter.as_ref().is_some_and(|f| !test.contains(f.as_str())) {
                continue;
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&*platform)));
            println!("{name}: {test} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
            failed |= result.is_err();
        }
    }
    std::process::exit(i32::from(failed));
}

fn anonymous(addr: u64, len: u64, prot: Prot) -> MapRequest {
    let fixed = if addr == 0 { Fixed::No } else { Fixed::Replace };
    MapRequest { addr, len, prot, fixed, ..MapRequest::default() }
}

fn byte(mm: &MemoryManager, addr: u64) -> Result<u8> {
    mm.read_object(addr)
}

/// Pages of a host file.
struct Pages(Arc<OwnedFd>);

impl Mappable for Pages {
    fn object(&self) -> ObjectId {
        ObjectId { dev: 99, ino: 1 }
    }

    fn host_fd(&self, _prot: Prot, _shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        Ok((self.0.clone(), 0))
    }
}

struct Content(Vec<u8>);

impl FileOps for Content {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        sentry::vfs::io::put_slice(dst, &self.0, offset)
    }
}

/// A regular file of so many bytes.
struct Regular(u64);

impl Inode for Regular {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ino(&self) -> u64 {
        7
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attributes(&self) -> Result<Attributes> {
        let time = abi::time::Timespec::default();
        Ok(Attributes {
            ino: 7,
            mode: abi::stat::S_IFREG | 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: self.0,
            blocks: 0,
            blksize: 4096,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        })
    }

    fn set_attributes(&self, _set: &SetAttributes) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn open(&self, _io: &Io<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

fn file(content: &[u8]) -> Arc<File> {
    let ops = Arc::new(Content(content.to_vec()));
    let nameless = AnonymousFs::new().file(ops.clone(), OpenFlags::empty());
    let inode = Arc::new(Regular(content.len() as u64));
    let dentry = Dentry::anonymous(nameless.path().dentry().superblock(), inode, b"");
    File::new(ops, Path::new(nameless.path().mount().clone(), dentry), OpenFlags::empty())
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// Every page can be read and written if the map says so, and what was written is found again.
fn random_histories_agree_with_the_host(platform: &dyn Platform) {
    const PAGES: u64 = 24;
    let limits = Limits::default();
    for seed in 0..6 {
        let mut numbers = Numbers(seed);
        let mm = MemoryManager::new(platform).unwrap();
        for _ in 0..120 {
            let at = BASE + numbers.below(PAGES) * P;
            let len = (1 + numbers.below(5)) * P;
            let prot = Prot::from_bits_truncate(numbers.below(4) as u32);
            match numbers.below(6) {
                0 | 1 => {
                    let shared = numbers.below(3) == 0;
                    mm.map(None, &MapRequest { shared, ..anonymous(at, len, prot) }).unwrap();
                }
                2 => mm.unmap(None, at, len).unwrap(),
                3 => drop(mm.protect(None, at, len, prot, false, &limits)),
                4 => {
                    let fixed = (numbers.below(2) == 0).then(|| BASE + numbers.below(PAGES) * P);
                    let new_len = (1 + numbers.below(5)) * P;
                    let dont_unmap = numbers.below(4) == 0;
                    let req =
                        RemapRequest { old: at, old_len: len, new_len, may_move: true, fixed, dont_unmap };
                    let _ = mm.remap(None, &req, &limits);
                }
                _ => drop(mm.write_bytes(at + 5, &[numbers.below(256) as u8])),
            }
            let maps = mm.maps();
            for page in 0..PAGES + 5 {
                let addr = BASE + page * P;
                let map = maps.iter().find(|m| m.start <= addr && addr < m.end);
                assert_eq!(mm.resident(addr, &mut [0]).is_ok(), map.is_some(), "{addr:x}");
                let prot = map.map_or(Prot::empty(), |m| m.prot);
                let writable = mm.write_bytes(addr + 9, &[page as u8]);
                // Shared memory that was made larger than its object faults beyond it.
                let beyond = map.is_some_and(|m| m.offset + (addr - m.start) >= 5 * P || m.object.ino != 0);
                if !beyond || writable.is_ok() {
                    assert_eq!(writable.is_ok(), prot.contains(Prot::WRITE), "{addr:x}");
                }
                let read = byte(&mm, addr + 9);
                if !beyond || read.is_ok() {
                    assert_eq!(read.is_ok(), !prot.is_empty(), "{addr:x}");
                }
                if writable.is_ok() {
                    assert_eq!(read, Ok(page as u8));
                }
            }
        }
    }
}

fn fork_shares_and_copies(platform: &dyn Platform) {
    let mm = MemoryManager::new(platform).unwrap();
    mm.map(None, &MapRequest { shared: true, ..anonymous(BASE, P, RW) }).unwrap();
    mm.map(None, &anonymous(BASE + P, 3 * P, RW)).unwrap();
    mm.advise(None, BASE + 2 * P, P, abi::mman::MADV_DONTFORK, false).unwrap();
    mm.advise(None, BASE + 3 * P, P, abi::mman::MADV_WIPEONFORK, false).unwrap();
    for page in 0..4 {
        mm.write_bytes(BASE + page * P, b"before").unwrap();
    }
    let child = mm.fork(None).unwrap();
    let grandchild = child.fork(None).unwrap();
    assert_eq!(byte(&child, BASE + P), Ok(b'b'));
    assert_eq!(byte(&child, BASE + 2 * P), Err(Errno::EFAULT));
    assert_eq!(byte(&child, BASE + 3 * P), Ok(0));
    grandchild.write_bytes(BASE, b"SHARED").unwrap();
    grandchild.write_bytes(BASE + P, b"mine").unwrap();
    assert_eq!(byte(&mm, BASE), Ok(b'S'));
    assert_eq!((byte(&mm, BASE + P), byte(&child, BASE + P)), (Ok(b'b'), Ok(b'b')));
    assert_eq!(mm.futex_key(BASE, true), grandchild.futex_key(BASE, true));
    assert_eq!(grandchild.compare_exchange(None, BASE + 8, 0, 7), Ok(0));
    assert_eq!(mm.load_u32(BASE + 8), Ok(7));
    mm.kill();
    assert_eq!(byte(&mm, BASE), Err(Errno::EFAULT));
    assert_eq!(byte(&child, BASE), Ok(b'S'), "the child lives on");
}

fn readers_of_a_file_cannot_write_it(platform: &dyn Platform) {
    struct InMemory(MemoryFile);
    impl Mappable for InMemory {
        fn object(&self) -> ObjectId {
            ObjectId { dev: 99, ino: 2 }
        }
        fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
            self.0.host_fd(prot, shared)
        }
    }
    let contents = MemoryFile::new().unwrap();
    contents.write_at(b"contents", 0).unwrap();
    let mappable: Arc<dyn Mappable> = Arc::new(InMemory(contents));
    let mm = MemoryManager::new(platform).unwrap();
    let map = |addr, prot, max_prot, shared| {
        let file = MapFile { mappable: mappable.clone(), file: None, name: None, offset: 0, max_prot };
        mm.map(None, &MapRequest { shared, file: Some(file), ..anonymous(addr, P, prot) })
    };
    map(BASE, Prot::READ, Prot::READ, true).unwrap();
    // Also not if the stub is made to try.
    let change = platform::Change::Protect { addr: BASE, len: P, prot: RW };
    assert_eq!(mm.address_space().apply(None, &[change]), Err(Errno::EACCES));
    map(BASE + P, Prot::READ, RW, true).unwrap();
    mm.protect(None, BASE + P, P, RW, false, &Limits::default()).unwrap();
    mm.write_bytes(BASE + P, b"C").unwrap();
    map(BASE + 2 * P, RW, Prot::all(), false).unwrap();
    mm.write_bytes(BASE + 2 * P, b"private").unwrap();
    let mut seen = [0; 8];
    mm.read_bytes(BASE, &mut seen).unwrap();
    assert_eq!(&seen, b"Contents");
    // Beyond the end of the file.
    let file = MapFile { mappable, file: None, name: None, offset: P, max_prot: RW };
    mm.map(None, &MapRequest { shared: true, file: Some(file), ..anonymous(BASE + 4 * P, P, RW) }).unwrap();
    assert_eq!(byte(&mm, BASE + 4 * P), Err(Errno::EFAULT));
}

fn noexec_files_are_copied(platform: &dyn Platform) {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let dir = tempfile::tempdir().unwrap();
    let flags = MsFlags::MS_NOEXEC;
    if let Err(error) = mount(Some("none"), dir.path(), Some("tmpfs"), flags, None::<&str>) {
        println!("noexec_files_are_copied ... skipped: mounting a tmpfs: {error}");
        return;
    }
    let content: Vec<u8> = (0..3 * P + 100).map(|i| (i / P) as u8 + 1).collect();
    let path = dir.path().join("program");
    let opened = std::fs::write(&path, &content).and_then(|()| std::fs::File::open(&path));
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    let pages: Arc<dyn Mappable> = Arc::new(Pages(Arc::new(opened.unwrap().into())));
    let mm = MemoryManager::new(platform).unwrap();
    let request = |addr, prot| {
        let file = MapFile {
            mappable: pages.clone(),
            file: Some(file(&content)),
            name: None,
            offset: P,
            max_prot: Prot::all(),
        };
        MapRequest { file: Some(file), ..anonymous(addr, 3 * P, prot) }
    };
    mm.map(None, &request(BASE, Prot::READ | Prot::EXEC)).unwrap();
    assert_eq!(
        (byte(&mm, BASE), byte(&mm, BASE + 2 * P + 99), byte(&mm, BASE + 2 * P + 100)),
        (Ok(2), Ok(4), Ok(0))
    );
    assert_eq!(mm.write_bytes(BASE, b"x"), Err(Errno::EFAULT));
    // Made executable later, with changes of its own.
    mm.map(None, &request(2 * BASE, RW)).unwrap();
    mm.write_bytes(2 * BASE, b"patched").unwrap();
    mm.protect(None, 2 * BASE, 2 * P, Prot::READ | Prot::EXEC, false, &Limits::default()).unwrap();
    assert_eq!((byte(&mm, 2 * BASE), byte(&mm, 2 * BASE + P)), (Ok(b'p'), Ok(3)));
    assert_eq!(byte(&mm, 2 * BASE + 2 * P), Ok(4));
    // Discarding brings the file's contents back.
    mm.protect(None, 2 * BASE, 2 * P, RW | Prot::EXEC, false, &Limits::default()).unwrap();
    mm.advise(None, 2 * BASE, P, abi::mman::MADV_DONTNEED, false).unwrap();
    assert_eq!(byte(&mm, 2 * BASE), Ok(2));
    // Growing copies what is new.
    let req = RemapRequest {
        old: BASE,
        old_len: P,
        new_len: 2 * P,
        may_move: true,
        fixed: None,
        dont_unmap: false,
    };
    let new = mm.remap(None, &req, &Limits::default()).unwrap();
    assert_eq!((byte(&mm, new), byte(&mm, new + P)), (Ok(2), Ok(3)));
    // Beyond the last page of the file there is nothing, whatever is done to it; the zeroes before that are there.
    let beyond = MapRequest { len: 5 * P, ..request(3 * BASE, Prot::READ | Prot::EXEC) };
    mm.map(None, &beyond).unwrap();
    assert_eq!((byte(&mm, 3 * BASE + 3 * P - 1), byte(&mm, 3 * BASE + 3 * P)), (Ok(0), Err(Errno::EFAULT)));
    mm.protect(None, 3 * BASE, 5 * P, RW, false, &Limits::default()).unwrap();
    assert_eq!(mm.write_bytes(3 * BASE + 2 * P, b"x"), Ok(()));
    assert_eq!(mm.write_bytes(3 * BASE + 4 * P, b"x"), Err(Errno::EFAULT));
}

/// Neighbours that were written apart are one mapping to the guest and two to the host.
fn moves_cross_boundaries_of_the_host(platform: &dyn Platform) {
    let mm = MemoryManager::new(platform).unwrap();
    for page in [0, 2, 4, 1, 3] {
        mm.map(None, &anonymous(BASE + page * P, P, RW)).unwrap();
        mm.write_bytes(BASE + page * P, &[page as u8 + 1]).unwrap();
    }
    assert_eq!(mm.maps().len(), 1);
    let req = RemapRequest {
        old: BASE,
        old_len: 5 * P,
        new_len: 7 * P,
        may_move: true,
        fixed: None,
        dont_unmap: false,
    };
    // Something right above, so that it has to move.
    mm.map(None, &anonymous(BASE + 5 * P, P, Prot::READ)).unwrap();
    let new = mm.remap(None, &req, &Limits::default()).unwrap();
    let bytes: Vec<u8> = (0..7).map(|page| byte(&mm, new + page * P).unwrap()).collect();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 0, 0]);
    assert_eq!(byte(&mm, BASE), Err(Errno::EFAULT));
}

fn discarded_memory_is_zero(platform: &dyn Platform) {
    let mm = MemoryManager::new(platform).unwrap();
    mm.map(None, &MapRequest { populate: true, ..anonymous(BASE, 4 * P, RW) }).unwrap();
    let mut resident = [0; 4];
    mm.resident(BASE, &mut resident).unwrap();
    assert_eq!(resident.map(|r| r & 1), [1; 4]);
    assert!(mm.resident_bytes() >= 4 * P);
    mm.write_bytes(BASE, &[7; 4 * P as usize]).unwrap();
    mm.advise(None, BASE + P, 2 * P, abi::mman::MADV_DONTNEED, false).unwrap();
    mm.resident(BASE, &mut resident).unwrap();
    assert_eq!(resident.map(|r| r & 1), [1, 0, 0, 1]);
    assert_eq!((byte(&mm, BASE), byte(&mm, BASE + P)), (Ok(7), Ok(0)));
    // A large reservation costs nothing, and part of it can be used.
    let big = mm.map(None, &MapRequest { noreserve: true, ..anonymous(0, 1 << 42, RW) }).unwrap();
    mm.write_bytes(big + (1 << 41), b"x").unwrap();
    assert_eq!(byte(&mm, big + (1 << 41)), Ok(b'x'));
}

/// Where [`program`] puts its code, and a page of data.
const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x60_0000;

/// Loads a program with this code.
fn program(platform: &dyn Platform, code: &[u8], vdso: Option<&Vdso>) -> (Arc<MemoryManager>, Context) {
    let segment = |p_flags, p_vaddr, p_filesz, p_memsz| Elf64Phdr {
        p_type: PT_LOAD,
        p_flags,
        p_offset: 0,
        p_vaddr,
        p_paddr: p_vaddr,
        p_filesz,
        p_memsz,
        p_align: P,
    };
    let len = 256 + code.len() as u64;
    let segments = [segment(PF_R | PF_X, CODE, len, len), segment(PF_R | PF_W, DATA, 0, P)];
    let mut e_ident = [0; 16];
    e_ident[..4].copy_from_slice(&ELFMAG);
    e_ident[4..7].copy_from_slice(&[2, 1, 1]);
    let header = Elf64Ehdr {
        e_ident,
        e_type: ET_EXEC,
        e_machine: EM_X86_64,
        e_version: 1,
        e_entry: CODE + 256,
        e_phoff: 64,
        e_phentsize: 56,
        e_phnum: 2,
        ..Elf64Ehdr::default()
    };
    let mut content = [header.as_bytes(), segments.as_bytes()].concat();
    content.resize(256, 0);
    content.extend_from_slice(code);
    let mm = MemoryManager::new(platform).unwrap();
    let request = LoadRequest {
        file: file(&content),
        filename: b"/program".to_vec(),
        argv: vec![b"program".to_vec()],
        envp: vec![],
        uid: 0,
        euid: 0,
        gid: 0,
        egid: 0,
        secure: false,
        stack_limit: 8 << 20,
        random: [3; 48],
        randomize: true,
        vdso,
        resolver: &|_| Err(Errno::ENOENT),
    };
    let loaded = load(&mm, &request).unwrap();
    let mut context = Context::default();
    context.regs.rip = loaded.entry;
    context.regs.rsp = loaded.stack_pointer;
    context.regs.eflags = 0x202;
    (mm, context)
}

fn a_program_grows_its_stack(platform: &dyn Platform) {
    let code = [
        0x48, 0x89, 0xe3, // mov rbx, rsp
        0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, // 1: sub rsp, 4096
        0xc7, 0x04, 0x24, 0x07, 0x00, 0x00, 0x00, // mov dword [rsp], 7
        0x48, 0x89, 0xe7, // mov rdi, rsp
        0xb8, 0x27, 0x00, 0x00, 0x00, // mov eax, getpid
        0x0f, 0x05, // syscall
        0xeb, 0xe6, // jmp 1b
    ];
    let (mm, context) = program(platform, &code, None);
    let mut thread = mm.address_space().clone().new_thread(&context).unwrap();
    let (mut pages, mut growths) = (0, 0);
    let mut resume = Resume::Context;
    let limits = Limits::default();
    let outcome = loop {
        match thread.run(resume) {
            Exit::Syscall { number: 39, args, .. } => {
                assert_eq!(byte(&mm, args[0]), Ok(7));
                pages += 1;
                resume = Resume::Result(1);
            }
            Exit::Fault(fault) => match mm.handle_fault(Some(&mut *thread), &fault, &limits) {
                FaultOutcome::Resume => {
                    growths += 1;
                    resume = Resume::Context;
                }
                signal => break signal,
            },
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(outcome, FaultOutcome::Signal { signal: 11, code: 1, .. }), "{outcome:?}");
    assert!((2040..2048).contains(&pages), "{pages} pages of 8 MiB");
    assert!(growths < 10, "{growths}");
    assert_eq!(mm.usage().stack, 8 << 20);
}

fn the_vdso_tells_the_time(platform: &dyn Platform) {
    let vdso = Vdso::new().unwrap();
    let mut code = vec![
        0xbf, 0x01, 0x00, 0x00, 0x00, // 1: mov edi, CLOCK_MONOTONIC
        0xbe, 0x00, 0x00, 0x60, 0x00, // mov esi, DATA
        0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, // movabs rax, clock_gettime
        0xff, 0xd0, // call rax
        0x89, 0xc7, // mov edi, eax
        0xb8, 0x27, 0x00, 0x00, 0x00, // mov eax, getpid
        0x0f, 0x05, // syscall
        0xeb, 0x00, // jmp 1b
    ];
    let len = code.len();
    code[len - 1] = (-(len as i64)) as u8;
    let (mm, context) = program(platform, &code, Some(&vdso));
    let function = mm.layout().vdso + 0x800;
    assert_eq!(mm.poke(CODE + 256 + 12, &function.to_le_bytes()), Ok(8));
    let mut thread = mm.address_space().clone().new_thread(&context).unwrap();
    let mut resume = Resume::Context;
    let host = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    };
    let (mut calls, mut answers, mut last) = (0, 0, 0);
    while answers < 50 {
        let before = host();
        match thread.run(resume) {
            Exit::Syscall { number: 228, args: [1, DATA, ..], .. } => {
                calls += 1;
                let now = vdso.times().map_or_else(host, |times| times.monotonic);
                mm.write_object(DATA, &[now / 1_000_000_000, now % 1_000_000_000]).unwrap();
                resume = Resume::Result(0);
            }
            Exit::Syscall { number: 39, args, .. } => {
                assert_eq!(args[0], 0);
                let [seconds, nanos]: [u64; 2] = mm.read_object(DATA).unwrap();
                let time = seconds * 1_000_000_000 + nanos;
                assert!(time >= last && nanos < 1_000_000_000);
                // A call of the sentry's may have read the clock before.
                let tolerance = 20_000_000;
                assert!(time + tolerance >= before && time <= host() + tolerance, "{time} {before}");
                last = time;
                answers += 1;
                std::thread::sleep(std::time::Duration::from_millis(4));
                resume = Resume::Result(1);
            }
            other => panic!("{other:?}"),
        }
    }
    if platform::tsc::is_clock() {
        assert!(calls < 25, "{calls} system calls for {answers} answers");
    } else {
        println!("the_vdso_tells_the_time ... partly skipped: the host does not keep time by the counter");
    }
}
