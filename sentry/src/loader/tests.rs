//! Tests of the loader on a platform that is a table.

use std::any::Any;
use std::sync::Arc;

use abi::elf as at;
use abi::elf::{Elf64Ehdr, Elf64Phdr};
use abi::fcntl::OpenFlags;
use platform::{PAGE_SIZE, Prot, USER_MAX};
use proptest::prelude::{any, proptest};
use zerocopy::{FromBytes, IntoBytes};

use super::{LoadError, LoadRequest, Loaded, PIE_BASE, Vdso, load};
use crate::fs::anonymous::AnonymousFs;
use crate::mm::mock::MockPlatform;
use crate::mm::{MapName, MemoryFile, MemoryManager};
use crate::vfs::{File, FileOps, Io, Mappable, ObjectId, Sink, io::put_slice};
use crate::{Errno, Result};

const P: u64 = PAGE_SIZE;

/// A file with these contents.
struct Bytes {
    content: Vec<u8>,
    pages: Option<Arc<Pages>>,
}

struct Pages(MemoryFile);

impl Mappable for Pages {
    fn object(&self) -> ObjectId {
        ObjectId { dev: 1, ino: 2 }
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<std::os::fd::OwnedFd>, u64)> {
        self.0.host_fd(prot, shared)
    }
}

impl FileOps for Bytes {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        put_slice(dst, &self.content, offset)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        self.pages.clone().map(|p| p as Arc<dyn Mappable>).ok_or(Errno::ENODEV)
    }
}

fn file(content: &[u8], mappable: bool) -> Arc<File> {
    let pages = mappable.then(|| {
        let file = MemoryFile::new().unwrap();
        file.write_at(content, 0).unwrap();
        Arc::new(Pages(file))
    });
    AnonymousFs::new().file(Arc::new(Bytes { content: content.to_vec(), pages }), OpenFlags::empty())
}

fn segment(p_type: u32, p_flags: u32, p_offset: u64, p_vaddr: u64, p_filesz: u64, p_memsz: u64) -> Elf64Phdr {
    Elf64Phdr { p_type, p_flags, p_offset, p_vaddr, p_paddr: p_vaddr, p_filesz, p_memsz, p_align: P }
}

/// An ELF file of four pages; page n is full of n from byte 1024 on.
fn elf(e_type: u16, segments: &[Elf64Phdr], e_entry: u64) -> Vec<u8> {
    let mut e_ident = [0; 16];
    e_ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let header = Elf64Ehdr {
        e_ident,
        e_type,
        e_machine: at::EM_X86_64,
        e_version: 1,
        e_entry,
        e_phoff: 64,
        e_ehsize: 64,
        e_phentsize: 56,
        e_phnum: segments.len() as u16,
        ..Elf64Ehdr::default()
    };
    let mut content = [header.as_bytes(), segments.as_bytes()].concat();
    assert!(content.len() <= 1024);
    content.resize(1024, 0);
    for page in 0..4u8 {
        content.resize((usize::from(page) + 1) * P as usize, page);
    }
    content
}

const RX: u32 = at::PF_R | at::PF_X;
const RW: u32 = at::PF_R | at::PF_W;

/// Code, and data of 100 bytes followed by two and a half pages of zeroes.
fn program(e_type: u16, base: u64) -> Vec<u8> {
    let segments = [
        segment(at::PT_LOAD, RX, 0, base, 2 * P, 2 * P),
        segment(at::PT_LOAD, RW, 2 * P + 16, base + 3 * P + 16, 100, 2 * P + 2048),
        segment(at::PT_TLS, RW, 0, 0, 0, 0),
    ];
    elf(e_type, &segments, base + P)
}

fn with_interpreter() -> Vec<u8> {
    let mut content = elf(
        at::ET_DYN,
        &[
            segment(at::PT_PHDR, at::PF_R, 64, 64, 168, 168),
            segment(at::PT_INTERP, at::PF_R, 2048, 2048, 7, 7),
            segment(at::PT_LOAD, RX, 0, 0, 3 * P, 3 * P),
        ],
        P,
    );
    content[2048..2055].copy_from_slice(b"/ld.so\0");
    content
}

struct Outcome {
    mm: Arc<MemoryManager>,
    loaded: Loaded,
}

fn run(
    program: &Arc<File>,
    interpreter: Result<Vec<u8>>,
    seed: u8,
) -> std::result::Result<Outcome, LoadError> {
    run_with(program, interpreter, seed, None, &[b"prog".to_vec(), b"arg".to_vec()])
}

fn run_with(
    program: &Arc<File>,
    interpreter: Result<Vec<u8>>,
    seed: u8,
    vdso: Option<&Vdso>,
    argv: &[Vec<u8>],
) -> std::result::Result<Outcome, LoadError> {
    let mm = MemoryManager::new(&MockPlatform::default()).unwrap();
    let resolver = |path: &[u8]| {
        assert_eq!(path, b"/ld.so");
        interpreter.clone().map(|content| file(&content, true))
    };
    let request = LoadRequest {
        file: program.clone(),
        filename: b"/bin/prog".to_vec(),
        argv: argv.to_vec(),
        envp: vec![b"A=1".to_vec()],
        uid: 1,
        euid: 2,
        gid: 3,
        egid: 4,
        secure: true,
        stack_limit: 8 << 20,
        random: [seed; 48],
        randomize: seed != 0,
        vdso,
        resolver: &resolver,
    };
    let loaded = load(&mm, &request)?;
    Ok(Outcome { mm, loaded })
}

impl Outcome {
    fn words(&self, addr: u64, count: usize) -> Vec<u64> {
        self.mm.read_array(addr, count).unwrap()
    }

    fn byte(&self, addr: u64) -> Result<u8> {
        self.mm.read_object(addr)
    }

    fn auxv(&self, kind: u64) -> Option<u64> {
        let auxv = self.mm.auxv();
        let words: Vec<u64> =
            auxv.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
        words.chunks_exact(2).find(|pair| pair[0] == kind).map(|pair| pair[1])
    }

    fn string(&self, addr: u64) -> Vec<u8> {
        self.mm.read_cstring(addr, 4096, Errno::E2BIG).unwrap()
    }
}

fn errno(content: &[u8]) -> Errno {
    run(&file(content, true), Err(Errno::ENOENT), 1).err().unwrap().errno
}

#[test]
fn a_static_program() {
    for mappable in [true, false] {
        let base = 0x40_0000;
        let o = run(&file(&program(at::ET_EXEC, base), mappable), Err(Errno::ENOENT), 0).unwrap();
        assert_eq!(o.loaded.entry, base + P);
        assert_eq!(o.byte(base + P), Ok(1));
        assert_eq!(o.byte(base + 3 * P + 16), Ok(2));
        assert_eq!(o.byte(base + 3 * P + 115), Ok(2));
        assert_eq!(o.byte(base + 3 * P + 116), Ok(0), "cleared to the end of the page");
        assert_eq!(o.byte(base + 5 * P + 2063), Ok(0));
        assert_eq!(o.byte(base + 2 * P), Err(Errno::EFAULT), "a hole between the segments");
        let prots: Vec<String> = o.mm.maps().iter().map(|m| m.permissions()).collect();
        assert_eq!(prots, ["r-xp", "rw-p", "rw-p", "rw-p"]);
        let layout = o.mm.layout();
        assert_eq!((layout.start_code, layout.end_code), (base, base + 2 * P));
        assert_eq!((layout.start_brk, layout.brk), (base + 6 * P, base + 6 * P));
        assert_eq!(o.auxv(at::AT_PHDR), Some(base + 64));
        assert_eq!(o.auxv(at::AT_ENTRY), Some(base + P));
        assert_eq!(o.auxv(at::AT_BASE), Some(0));
        assert!(o.mm.exe().is_some());
        // The heap begins there.
        let end = base + 6 * P + 100;
        assert_eq!(o.mm.set_brk(None, end, &crate::mm::Limits::default()), end);
    }
}

#[test]
fn the_stack() {
    let o = run(&file(&program(at::ET_EXEC, 0x40_0000), true), Err(Errno::ENOENT), 9).unwrap();
    let sp = o.loaded.stack_pointer;
    assert_eq!(sp % 16, 0);
    assert!(sp < USER_MAX && sp > USER_MAX - (20 << 30));
    let words = o.words(sp, 6);
    assert_eq!(words[0], 2);
    assert_eq!(o.string(words[1]), b"prog");
    assert_eq!(o.string(words[2]), b"arg");
    assert_eq!((words[3], words[5]), (0, 0));
    assert_eq!(o.string(words[4]), b"A=1");
    let auxv = o.mm.auxv();
    let mut on_stack = vec![0; auxv.len()];
    o.mm.read_bytes(sp + 48, &mut on_stack).unwrap();
    assert_eq!(on_stack, auxv);
    let get = |kind| o.auxv(kind).unwrap();
    assert_eq!([get(at::AT_UID), get(at::AT_EUID), get(at::AT_GID), get(at::AT_EGID)], [1, 2, 3, 4]);
    assert_eq!((get(at::AT_SECURE), get(at::AT_PAGESZ), get(at::AT_CLKTCK)), (1, 4096, 100));
    assert_eq!(o.string(get(at::AT_EXECFN)), b"/bin/prog");
    assert_eq!(o.string(get(at::AT_PLATFORM)), b"x86_64");
    assert_eq!(o.words(get(at::AT_RANDOM), 2), [0x0909_0909_0909_0909; 2]);
    let maps = o.mm.maps();
    let stack = maps.last().unwrap();
    assert!(matches!(&stack.name, MapName::Text(name) if &**name == "[stack]"));
    assert!(stack.end - stack.start >= 132 << 10);
    o.mm.write_bytes(stack.end - (7 << 20), b"it grows").unwrap();
    let none =
        run_with(&file(&program(at::ET_EXEC, 0x40_0000), true), Err(Errno::ENOENT), 1, None, &[]).unwrap();
    assert_eq!(none.words(none.loaded.stack_pointer, 1), [1], "argv[0] is never missing");
}

#[test]
fn position_independent_programs_and_their_interpreter() {
    let interpreter = program(at::ET_DYN, 0);
    for seed in [0, 1, 255] {
        let o = run(&file(&with_interpreter(), true), Ok(interpreter.clone()), seed).unwrap();
        let (base, entry) = (o.auxv(at::AT_BASE).unwrap(), o.auxv(at::AT_ENTRY).unwrap());
        assert_eq!(o.loaded.entry, base + P);
        assert!(entry - P >= PIE_BASE && entry - P <= PIE_BASE + (1 << 40));
        assert_eq!(seed == 0, entry == PIE_BASE + P);
        assert_eq!(o.auxv(at::AT_PHDR), Some(entry - P + 64));
        assert_eq!(o.auxv(at::AT_PHNUM), Some(3));
        assert!(base > 0x7000_0000_0000 && base < o.loaded.stack_pointer, "{base:x}");
        assert_eq!(o.byte(base + P), Ok(1));
        let layout = o.mm.layout();
        assert!(layout.brk >= entry + 2 * P && layout.brk <= entry + (2 << 30));
        // The loader run by itself goes elsewhere, and its heap where programs are.
        let o = run(&file(&interpreter, true), Err(Errno::ENOENT), seed).unwrap();
        assert!(o.loaded.entry > 0x7000_0000_0000);
        assert_eq!(o.auxv(at::AT_BASE), Some(0));
        if seed != 0 {
            assert!((PIE_BASE..PIE_BASE + (2 << 30)).contains(&o.mm.layout().brk));
        }
    }
    // A large alignment.
    let mut aligned = segment(at::PT_LOAD, RX, 0, 0, 3 * P, 3 * P);
    aligned.p_align = 2 << 20;
    let o = run(&file(&elf(at::ET_DYN, &[aligned], P), true), Err(Errno::ENOENT), 77).unwrap();
    assert_eq!((o.loaded.entry - P) % (2 << 20), 0);
}

#[test]
fn errors_before_the_point_of_no_return() {
    let good = program(at::ET_EXEC, 0x40_0000);
    let edit = |offset: usize, byte: u8| {
        let mut content = good.clone();
        content[offset] = byte;
        errno(&content)
    };
    assert_eq!(errno(b""), Errno::ENOEXEC);
    assert_eq!(errno(b"\x7fELF"), Errno::ENOEXEC);
    assert_eq!(edit(0, 0), Errno::ENOEXEC);
    assert_eq!(edit(16, at::ET_REL as u8), Errno::ENOEXEC);
    assert_eq!(edit(18, at::EM_386 as u8), Errno::ENOEXEC);
    assert_eq!(edit(18, at::EM_AARCH64 as u8), Errno::ENOEXEC);
    assert_eq!(edit(54, 32), Errno::ENOEXEC, "size of a program header");
    assert_eq!(edit(56, 0), Errno::ENOEXEC, "no program headers");
    assert_eq!(edit(57, 1), Errno::ENOEXEC, "more than a page of them");
    assert_eq!(edit(39, 0x7f), Errno::ENOEXEC, "headers beyond the end");

    let outer = file(&with_interpreter(), true);
    let inner = |content: Result<Vec<u8>>| {
        let error = run(&outer, content, 1).err().unwrap();
        assert!(!error.fatal);
        error.errno
    };
    assert_eq!(inner(Err(Errno::EACCES)), Errno::EACCES);
    assert_eq!(inner(Ok(b"\x7fELF".to_vec())), Errno::EIO);
    assert_eq!(inner(Ok(vec![0; 100])), Errno::ELIBBAD);
    let mut wrong = program(at::ET_DYN, 0);
    wrong[18] = at::EM_AARCH64 as u8;
    assert_eq!(inner(Ok(wrong)), Errno::ELIBBAD);

    let path = |filesz, last: u8| {
        let mut content = with_interpreter();
        content[64 + 56 + 32] = filesz;
        content[2054] = last;
        errno(&content)
    };
    assert_eq!(path(1, 0), Errno::ENOEXEC);
    assert_eq!(path(7, b'x'), Errno::ENOEXEC, "no NUL");
    let mut content = with_interpreter();
    content[64 + 56 + 8 + 2] = 1;
    assert_eq!(errno(&content), Errno::EIO, "beyond the end");

    let many = vec![vec![b'a'; 100_000]; 100];
    let error = run_with(&file(&good, true), Err(Errno::ENOENT), 1, None, &many).err().unwrap();
    assert_eq!(error, LoadError { errno: Errno::E2BIG, fatal: false });
}

#[test]
fn segments_that_cannot_be() {
    let fails = |segments: &[Elf64Phdr], e_type| {
        let error = run(&file(&elf(e_type, segments, 0x40_0000), true), Err(Errno::ENOENT), 1).err().unwrap();
        assert!(error.fatal);
    };
    let load = |offset, vaddr, filesz, memsz| segment(at::PT_LOAD, RW, offset, vaddr, filesz, memsz);
    for e_type in [at::ET_EXEC, at::ET_DYN] {
        fails(&[segment(at::PT_NOTE, RW, 0, 0, 0, 0)], e_type);
        fails(&[load(0, 0x40_0000, 2 * P, P)], e_type);
        fails(&[load(0, 0x40_0000, P, u64::MAX)], e_type);
        fails(&[load(0, 0x40_0000, u64::MAX, u64::MAX)], e_type);
        fails(&[load(0, 0x40_0000, 0, USER_MAX)], e_type);
        fails(&[load(8, 0x40_0000, P, P)], e_type);
        fails(&[load(0, 0x40_0010, P, P)], e_type);
        fails(&[load(0, 0x40_0000, P, P), load(0, u64::MAX - P, P, P)], e_type);
    }
    fails(&[load(0, 0, P, P)], at::ET_EXEC);
    fails(&[load(0, USER_MAX - P, P, 2 * P)], at::ET_EXEC);
    fails(&[load(0, USER_MAX, P, P)], at::ET_EXEC);
    // Segments that overlap: the later one wins, as in Linux.
    let overlapping = [load(0, 0x40_0000, 2 * P, 2 * P), load(3 * P, 0x40_1000, P, P)];
    let o = run(&file(&elf(at::ET_EXEC, &overlapping, 0x40_0000), true), Err(Errno::ENOENT), 1).unwrap();
    assert_eq!(o.byte(0x40_1000), Ok(3));
    // Nothing but zeroes.
    let o =
        run(&file(&elf(at::ET_EXEC, &[load(0, 0x40_0100, 0, P)], 0x40_0000), true), Err(Errno::ENOENT), 1);
    assert_eq!(o.unwrap().byte(0x40_1000 + 0xff), Ok(0));
    // An executable stack only by request.
    let code = segment(at::PT_LOAD, RX, 0, 0x40_0000, P, P);
    let stack = segment(at::PT_GNU_STACK, RW | at::PF_X, 0, 0, 0, 0);
    let o = run(&file(&elf(at::ET_EXEC, &[code, stack], 0x40_0000), true), Err(Errno::ENOENT), 1).unwrap();
    assert_eq!(o.mm.maps().last().unwrap().permissions(), "rwxp");
}

#[test]
fn a_file_cut_at_every_length() {
    let (outer, inner) = (with_interpreter(), program(at::ET_DYN, 0));
    for len in 0..outer.len() {
        // Segments beyond the end of the file are mapped, and fault when touched; all else is an error.
        let result = run(&file(&outer[..len], true), Ok(inner.clone()), 1);
        assert!(len >= 2055 || result.is_err(), "{len}");
    }
    for len in 0..inner.len() {
        let result = run(&file(&outer, true), Ok(inner[..len].to_vec()), 1);
        assert!(len >= 64 + 3 * 56 || result.is_err(), "{len}");
    }
}

proptest! {
    /// Any file is either loaded or refused.
    #[test]
    fn hostile_files_do_no_harm(
        edits in proptest::collection::vec((0..64 + 56 * 3usize, any::<u8>()), 0..12),
        wide in proptest::collection::vec((0..28usize, any::<u64>()), 0..4),
        seed in any::<u8>(),
        mappable in any::<bool>(),
        which in 0..3u8,
    ) {
        let mut content = match which {
            0 => program(at::ET_EXEC, 0x40_0000),
            1 => program(at::ET_DYN, 0),
            _ => with_interpreter(),
        };
        for (word, value) in wide {
            content[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (offset, byte) in edits {
            content[offset] = byte;
        }
        let resolver_content = content.clone();
        let mm = MemoryManager::new(&MockPlatform::default()).unwrap();
        let request = LoadRequest {
            file: file(&content, mappable),
            filename: b"x".to_vec(),
            argv: vec![],
            envp: vec![],
            uid: 0,
            euid: 0,
            gid: 0,
            egid: 0,
            secure: false,
            stack_limit: 8 << 20,
            random: [seed; 48],
            randomize: true,
            vdso: None,
            resolver: &|_| Ok(file(&resolver_content, true)),
        };
        if let Ok(loaded) = load(&mm, &request) {
            assert!(loaded.entry < USER_MAX && loaded.stack_pointer < USER_MAX);
        }
    }
}

#[test]
fn the_vdso_is_found_as_the_c_libraries_find_it() {
    let vdso = Vdso::new().unwrap();
    let o = run_with(
        &file(&program(at::ET_EXEC, 0x40_0000), true),
        Err(Errno::ENOENT),
        1,
        Some(&vdso),
        &[vec![]],
    );
    let o = o.unwrap();
    let base = o.auxv(at::AT_SYSINFO_EHDR).unwrap();
    assert_eq!(o.mm.layout().vdso, base);
    let names: Vec<_> =
        o.mm.maps()
            .iter()
            .filter_map(|m| match &m.name {
                MapName::Text(name) => Some((name.to_string(), m.permissions(), m.start)),
                _ => None,
            })
            .collect();
    assert!(names.contains(&("[vvar]".into(), "r--p".into(), base - P)));
    assert!(names.contains(&("[vdso]".into(), "r-xp".into(), base)));
    assert_eq!(o.mm.protect(None, base - P, P, Prot::WRITE, false, &Default::default()), Err(Errno::EACCES));

    let image = super::vdso::image_for_tests();
    let mut mapped = vec![0; image.len()];
    o.mm.read_bytes(base, &mut mapped).unwrap();
    assert_eq!(mapped, image);
    let (header, _) = Elf64Ehdr::read_from_prefix(&image).unwrap();
    let headers = &image[header.e_phoff as usize..][..usize::from(header.e_phnum) * 56];
    let dynamic = headers
        .chunks_exact(56)
        .map(|b| Elf64Phdr::read_from_bytes(b).unwrap())
        .find(|s| s.p_type == at::PT_DYNAMIC)
        .unwrap();
    let u64_at = |at: u64| u64::from_le_bytes(image[at as usize..][..8].try_into().unwrap());
    let u32_at = |at: u64| u32::from_le_bytes(image[at as usize..][..4].try_into().unwrap());
    let u16_at = |at: u64| u16::from_le_bytes(image[at as usize..][..2].try_into().unwrap());
    let tag = |tag: i64| {
        (0..)
            .map(|i| dynamic.p_vaddr + i * 16)
            .find(|&at| u64_at(at) as i64 == tag)
            .map(|at| u64_at(at + 8))
            .unwrap()
    };
    let text = |at: u64| image[at as usize..].split(|&b| b == 0).next().unwrap().to_vec();
    let (strings, symbols, hash) = (tag(at::DT_STRTAB), tag(at::DT_SYMTAB), tag(at::DT_HASH));
    assert_eq!(text(strings + tag(at::DT_SONAME)), b"linux-vdso.so.1");
    // By the hash table.
    let lookup = |name: &[u8]| {
        let buckets = u32_at(hash);
        assert_eq!(buckets, 1);
        let mut index = u32_at(hash + 8);
        while index != 0 {
            let symbol = symbols + u64::from(index) * 24;
            if text(strings + u64::from(u32_at(symbol))) == name {
                return Some((index, u64_at(symbol + 8)));
            }
            index = u32_at(hash + 12 + u64::from(index) * 4);
        }
        None
    };
    // The second version definition is LINUX_2.6, with the hash that glibc and Go have built in.
    let second = tag(at::DT_VERDEF) + u64::from(u32_at(tag(at::DT_VERDEF) + 16));
    assert_eq!((u16_at(second + 4), u32_at(second + 8)), (2, 61_765_110));
    assert_eq!(text(strings + u64::from(u32_at(second + 20))), b"LINUX_2.6");
    for name in
        ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "clock_gettime"]
    {
        let (index, value) = lookup(name.as_bytes()).unwrap();
        assert_eq!(u16_at(tag(at::DT_VERSYM) + u64::from(index) * 2), 2);
        assert!(matches!(image[value as usize], 0xe9 | 0xeb), "a jump");
    }
    assert_eq!(lookup(b"__vdso_nothing"), None);
}
