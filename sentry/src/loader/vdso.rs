//! The vdso: a shared object with the functions that programs call for the time, made at boot and mapped into every
//! program, and the page below it from which they read.
//!
//! The C libraries and Go's runtime look for versioned symbols in its dynamic section by the rules of the ELF gABI.
//! Section headers, relocations and everything else that they do not look at are left out.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::elf as at;
use abi::elf::{Elf64Dyn, Elf64Ehdr, Elf64Phdr, Elf64Sym};
use parking_lot::Mutex;
use platform::{PAGE_SIZE, Prot};
use zerocopy::IntoBytes;

pub use super::clock_page::Times;
use super::clock_page::{ClockPage, Reading};
use crate::mm::{Fixed, MapFile, MapRequest, MemoryFile, MemoryManager};
use crate::vfs::{Mappable, ObjectId};
use crate::{Errno, Result};

/// Where the code is in the image. Everything before it are tables.
const TEXT: u64 = platform::vdso::DATA_DISTANCE - PAGE_SIZE;

const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

/// A file in memory that guests can only read.
struct Published {
    file: MemoryFile,
    object: ObjectId,
}

impl Mappable for Published {
    fn object(&self) -> ObjectId {
        self.object
    }

    fn host_fd(&self, prot: Prot, shared: bool) -> Result<(Arc<OwnedFd>, u64)> {
        if shared && prot.contains(Prot::WRITE) {
            return Err(Errno::EACCES);
        }
        self.file.host_fd(prot, shared)
    }
}

/// The vdso of a sandbox.
pub struct Vdso {
    image: Arc<Published>,
    page: Arc<Published>,
    len: u64,
    /// What the page says.
    clock: Mutex<ClockPage>,
}

impl Vdso {
    /// Makes the image and the page. To be called before the sentry is confined, because it looks into sysfs, and
    /// into proc unless the directory for files in memory has been given.
    pub fn new() -> Result<Vdso> {
        platform::tsc::probe();
        let image = build();
        let publish = |content: &[u8], ino| -> Result<Arc<Published>> {
            let file = MemoryFile::new()?;
            file.write_at(content, 0)?;
            file.host_fd(Prot::READ, false)?;
            // Numbers that no anonymous object gets, as those count from 1.
            Ok(Arc::new(Published { file, object: ObjectId { dev: 0, ino: u64::MAX - ino } }))
        };
        Ok(Vdso {
            image: publish(&image, 0)?,
            page: publish(&[0; PAGE_SIZE as usize], 1)?,
            len: image.len() as u64,
            clock: Mutex::new(ClockPage::new(platform::tsc::is_clock())),
        })
    }

    /// Maps page and image next to each other, wherever there is room. Returns the address of the image.
    pub(super) fn map(&self, mm: &MemoryManager) -> Result<u64> {
        let base = mm.find_free(PAGE_SIZE + self.len, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let map = |addr, len, prot, max_prot, pages: &Arc<Published>, name: &str| {
            let file =
                MapFile { mappable: pages.clone(), file: None, name: Some(name.into()), offset: 0, max_prot };
            let fixed = Fixed::NoReplace;
            let file = Some(file);
            mm.map(None, &MapRequest { addr, len, prot, fixed, file, special: true, ..MapRequest::default() })
        };
        map(base, PAGE_SIZE, Prot::READ, Prot::READ, &self.page, "[vvar]")?;
        let prot = Prot::READ | Prot::EXEC;
        map(base + PAGE_SIZE, self.len, prot, Prot::all(), &self.image, "[vdso]")
    }

    /// The time as the page tells it, after bringing that up to date if need be. To be used by clock_gettime(2) and
    /// its like: they are called when the page has nothing to say any more, and what they return must not be less
    /// than what programs have read from it. `None` if the counter is no clock, or its rate not known yet.
    pub fn times(&self) -> Option<Times> {
        let mut clock = self.clock.lock();
        if clock.is_due()
            && let Some(bytes) = clock.update(Reading::now)
        {
            publish(&self.page.file, &bytes);
        }
        clock.times(platform::tsc::read())
    }
}

/// Writes the page so that a reader sees either the old or the new contents: the sequence number in the first word is
/// odd in between.
fn publish(page: &MemoryFile, bytes: &[u8]) {
    let sequence = bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
    let write = |bytes: &[u8], offset| {
        if let Err(error) = page.write_at(bytes, offset) {
            tracing::error!(%error, "writing the vdso's page");
        }
    };
    write(&sequence.wrapping_sub(1).to_le_bytes(), 0);
    write(bytes.get(4..).unwrap_or_default(), 4);
    write(&sequence.to_le_bytes(), 0);
}

/// The hash of symbol and version names (System V gABI).
fn hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |h, byte| {
        let h = (h << 4).wrapping_add(u32::from(byte));
        let high = h & 0xf000_0000;
        (h ^ (high >> 24)) & !high
    })
}

/// A string table under construction.
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        at
    }
}

/// The whole image, in pages.
fn build() -> Vec<u8> {
    let text = platform::vdso::text();
    let mut strings = Strings(vec![0]);
    let soname = strings.add(SONAME);
    let version = strings.add(VERSION);

    // Each function by two names, `__vdso_x` and weakly `x`, as in Linux; then the version itself.
    let mut symbols = vec![Elf64Sym::default()];
    let mut names = vec![String::new()];
    for (name, offset) in platform::vdso::FUNCTIONS {
        for (name, binding) in [(format!("__vdso_{name}"), 1), (name.to_string(), 2)] {
            let info = binding << 4 | 2; // STT_FUNC
            let (st_name, st_value) = (strings.add(&name), TEXT + offset);
            symbols.push(Elf64Sym { st_name, st_info: info, st_other: 0, st_shndx: 1, st_value, st_size: 8 });
            names.push(name);
        }
    }
    const SHN_ABS: u16 = 0xfff1;
    symbols.push(Elf64Sym { st_name: version, st_info: 1 << 4, st_shndx: SHN_ABS, ..Elf64Sym::default() });
    names.push(VERSION.to_string());
    let count = symbols.len() as u32;

    // One bucket: the chain is the table itself, from the last to the first.
    let mut hash_table = vec![1, count, count - 1];
    hash_table.extend((0..count).map(|i| i.saturating_sub(1)));

    // Verdef and verdaux for the object itself and for the version.
    let mut versions: Vec<u8> = Vec::new();
    for (index, (name, text)) in [(soname, SONAME), (version, VERSION)].into_iter().enumerate() {
        let (flags, next) = if index == 0 { (1u16, 28u32) } else { (0, 0) }; // VER_FLG_BASE
        versions.extend_from_slice([1u16, flags, index as u16 + 1, 1].as_bytes());
        versions.extend_from_slice([hash(text), 20, next, name, 0].as_bytes());
    }
    let mut symbol_versions = vec![0u16];
    symbol_versions.resize(symbols.len(), 2);

    let header_len = (size_of::<Elf64Ehdr>() + 2 * size_of::<Elf64Phdr>()) as u64;
    let mut image: Vec<u8> = vec![0; header_len as usize];
    let mut add = |bytes: &[u8]| {
        image.resize(image.len().next_multiple_of(8), 0);
        let at = image.len() as u64;
        image.extend_from_slice(bytes);
        at
    };
    let hash_at = add(hash_table.as_bytes());
    let symbols_at = add(symbols.as_slice().as_bytes());
    let strings_at = add(&strings.0);
    let symbol_versions_at = add(symbol_versions.as_bytes());
    let versions_at = add(&versions);
    let dynamic: Vec<Elf64Dyn> = [
        (at::DT_SONAME, u64::from(soname)),
        (at::DT_HASH, hash_at),
        (at::DT_STRTAB, strings_at),
        (at::DT_SYMTAB, symbols_at),
        (at::DT_STRSZ, strings.0.len() as u64),
        (at::DT_SYMENT, size_of::<Elf64Sym>() as u64),
        (at::DT_VERSYM, symbol_versions_at),
        (at::DT_VERDEF, versions_at),
        (at::DT_VERDEFNUM, 2),
        (at::DT_NULL, 0),
    ]
    .map(|(d_tag, d_val)| Elf64Dyn { d_tag, d_val })
    .to_vec();
    let dynamic_at = add(dynamic.as_slice().as_bytes());
    debug_assert!(image.len() as u64 <= TEXT, "the tables reach into the code");
    image.resize(TEXT as usize, 0);
    image.extend_from_slice(text);
    image.resize(image.len().next_multiple_of(PAGE_SIZE as usize), 0);

    let len = image.len() as u64;
    let mut ident = [0; 16];
    for (to, from) in ident.iter_mut().zip(at::ELFMAG.into_iter().chain([at::ELFCLASS64, at::ELFDATA2LSB, 1]))
    {
        *to = from;
    }
    let header = Elf64Ehdr {
        e_ident: ident,
        e_type: at::ET_DYN,
        e_machine: at::EM_X86_64,
        e_version: 1,
        e_entry: TEXT,
        e_phoff: size_of::<Elf64Ehdr>() as u64,
        e_ehsize: size_of::<Elf64Ehdr>() as u16,
        e_phentsize: size_of::<Elf64Phdr>() as u16,
        e_phnum: 2,
        ..Elf64Ehdr::default()
    };
    let segment = |p_type, p_flags, start: u64, len: u64, p_align| Elf64Phdr {
        p_type,
        p_flags,
        p_offset: start,
        p_vaddr: start,
        p_paddr: start,
        p_filesz: len,
        p_memsz: len,
        p_align,
    };
    let segments = [
        segment(at::PT_LOAD, at::PF_R | at::PF_X, 0, len, PAGE_SIZE),
        segment(at::PT_DYNAMIC, at::PF_R, dynamic_at, (dynamic.len() * size_of::<Elf64Dyn>()) as u64, 8),
    ];
    let headers = [header.as_bytes(), segments.as_bytes()].concat();
    for (to, from) in image.iter_mut().zip(headers) {
        *to = from;
    }
    image
}

#[cfg(test)]
pub(super) fn image_for_tests() -> Vec<u8> {
    build()
}
