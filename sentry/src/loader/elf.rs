//! ELF headers and segments (fs/binfmt_elf.c). The file is the guest's: nothing in it is believed.

use std::sync::Arc;

use abi::elf::{
    ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, Elf64Ehdr, Elf64Phdr, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP,
    PT_LOAD,
};
use abi::limits::PATH_MAX;
use platform::{PAGE_SIZE, Prot, USER_MAX};
use zerocopy::FromBytes;

use crate::mm::{Fixed, Limits, MapFile, MapRequest, MemoryManager};
use crate::vfs::{File, Io, Mappable, VecSink};
use crate::{Errno, Result};

/// The most bytes that program headers may take (`ELF_MIN_ALIGN`).
const HEADERS_MAX: usize = PAGE_SIZE as usize;

/// Reads up to `len` bytes at `offset`; fewer at the end of the file.
fn read(file: &File, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(len);
    while sink.data.len() < len {
        let at = offset.checked_add(sink.data.len() as u64).ok_or(Errno::EINVAL)?;
        if file.operations().read(&Io::default(), &mut sink, at)? == 0 {
            break;
        }
    }
    Ok(sink.data)
}

/// An executable or an interpreter.
pub struct Elf {
    file: Arc<File>,
    pages: Arc<dyn Mappable>,
    /// The ELF header.
    pub header: Elf64Ehdr,
    /// The program headers.
    pub segments: Vec<Elf64Phdr>,
}

/// A file whose contents can only be read, and are copied.
struct Unmappable(crate::vfs::ObjectId);

impl Mappable for Unmappable {
    fn object(&self) -> crate::vfs::ObjectId {
        self.0
    }

    fn host_fd(&self, _prot: Prot, _shared: bool) -> Result<(Arc<std::os::fd::OwnedFd>, u64)> {
        Err(Errno::ENODEV)
    }
}

/// Where a mapped file ended up.
pub struct Mapped {
    /// What is added to the addresses in the file.
    pub bias: u64,
    /// Address of the program headers, if a segment contains them; else 0.
    pub headers: u64,
    /// Lowest address of code, and one past the highest.
    pub code: (u64, u64),
    /// The same of data (which is what Linux calls so: everything with contents).
    pub data: (u64, u64),
    /// One past the highest address of all.
    pub end: u64,
    /// What remains to be cleared when the mappings exist: address, length, and whether it must succeed.
    pub clear: Vec<(u64, u64, bool)>,
}

impl Mapped {
    /// Clears the rest of pages that contents end in. EFAULT.
    pub fn clear(&self, mm: &MemoryManager) -> Result<()> {
        for &(addr, len, must) in &self.clear {
            // Nobody misses the zeroes at the end of a segment that cannot be written.
            if mm.zero(addr, len).is_err() && must {
                return Err(Errno::EFAULT);
            }
        }
        Ok(())
    }
}

/// Where a file of type ET_DYN goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Wherever there is room.
    Anywhere,
    /// At this address, moved down to the file's alignment.
    At(u64),
}

impl Elf {
    /// Reads the headers. ENOEXEC for anything that is no 64-bit x86 program.
    pub fn read(file: &Arc<File>) -> Result<Elf> {
        let elf = Elf::parse(file, Errno::ENOEXEC, Errno::ENOEXEC)?;
        if elf.has_type() { Ok(elf) } else { Err(Errno::ENOEXEC) }
    }

    /// Reads the headers of an interpreter: EIO if there is not even an ELF header, ELIBBAD if it is not right. That its
    /// type is wrong comes out only when it is mapped, as in Linux.
    pub fn read_interpreter(file: &Arc<File>) -> Result<Elf> {
        Elf::parse(file, Errno::EIO, Errno::ELIBBAD)
    }

    fn has_type(&self) -> bool {
        matches!(self.header.e_type, ET_EXEC | ET_DYN)
    }

    fn parse(file: &Arc<File>, short: Errno, invalid: Errno) -> Result<Elf> {
        let head = read(file, 0, size_of::<Elf64Ehdr>())?;
        let (header, _) = Elf64Ehdr::read_from_prefix(&head).map_err(|_| short)?;
        // The class is not looked at: the size of the program headers tells.
        let right = header.e_ident.starts_with(&ELFMAG)
            && header.e_machine == EM_X86_64
            && usize::from(header.e_phentsize) == size_of::<Elf64Phdr>();
        let size = usize::from(header.e_phnum) * size_of::<Elf64Phdr>();
        if !right || size == 0 || size > HEADERS_MAX {
            return Err(invalid);
        }
        let bytes = read(file, header.e_phoff, size).map_err(|_| invalid)?;
        if bytes.len() < size {
            return Err(invalid);
        }
        let segments =
            bytes.chunks_exact(size_of::<Elf64Phdr>()).filter_map(|b| Elf64Phdr::read_from_bytes(b).ok());
        let pages = match file.operations().mappable() {
            Ok(pages) => pages,
            Err(_) => Arc::new(Unmappable(file.path().dentry().object())),
        };
        Ok(Elf { file: file.clone(), pages, header, segments: segments.collect() })
    }

    /// The interpreter's path. ENOEXEC if it has no sensible length or no NUL, EIO if the file ends before it.
    pub fn interpreter(&self) -> Result<Option<Vec<u8>>> {
        let Some(segment) = self.segments.iter().find(|s| s.p_type == PT_INTERP) else { return Ok(None) };
        if segment.p_filesz < 2 || segment.p_filesz > PATH_MAX as u64 {
            return Err(Errno::ENOEXEC);
        }
        let len = segment.p_filesz as usize;
        let mut path = read(&self.file, segment.p_offset, len)?;
        if path.len() < len {
            return Err(Errno::EIO);
        }
        if path.last() != Some(&0) {
            return Err(Errno::ENOEXEC);
        }
        let end = path.iter().position(|&b| b == 0).unwrap_or(0);
        path.truncate(end);
        Ok(Some(path))
    }

    /// True if PT_GNU_STACK asks for an executable stack. Without the header it is not executable on x86-64.
    pub fn wants_executable_stack(&self) -> bool {
        self.segments.iter().rfind(|s| s.p_type == PT_GNU_STACK).is_some_and(|s| s.p_flags & PF_X != 0)
    }

    fn loads(&self) -> impl Iterator<Item = &Elf64Phdr> {
        self.segments.iter().filter(|s| s.p_type == PT_LOAD)
    }

    /// From the page of the lowest address to the highest; 0 if nothing is loaded.
    fn span(&self) -> u64 {
        let low = self.loads().map(|s| page_start(s.p_vaddr)).min();
        let high = self.loads().map(|s| s.p_vaddr.wrapping_add(s.p_memsz)).max();
        match (low, high) {
            (Some(low), Some(high)) => high.saturating_sub(low),
            _ => 0,
        }
    }

    /// The largest alignment that a segment asks for.
    pub fn alignment(&self) -> u64 {
        self.loads().map(|s| s.p_align).filter(|a| a.is_power_of_two()).max().unwrap_or(0).max(PAGE_SIZE)
    }

    /// Maps the segments; what [`Mapped::clear`] says is left to do. EINVAL or ENOMEM for addresses that cannot be,
    /// EEXIST if something is in the way, unless `over` it may be mapped: an interpreter that is not position-independent
    /// replaces what it meets.
    pub fn map(&self, mm: &MemoryManager, place: Place, over: bool, limits: &Limits) -> Result<Mapped> {
        if !self.has_type() {
            return Err(Errno::EINVAL);
        }
        let mut bias = 0;
        // A segment may replace one of the same file, but nothing else: the first one secures the room.
        let mut placed = false;
        let mut mapped =
            Mapped { bias: 0, headers: 0, code: (u64::MAX, 0), data: (0, 0), end: 0, clear: Vec::new() };
        for segment in self.loads() {
            if !placed {
                let span = page_end(self.span()).filter(|&span| span > 0).ok_or(Errno::EINVAL)?;
                if span > USER_MAX {
                    return Err(Errno::ENOMEM);
                }
                if self.header.e_type == ET_DYN {
                    let base = match place {
                        Place::At(addr) => addr & !(self.alignment() - 1),
                        Place::Anywhere => mm.find_free(span, self.alignment()).ok_or(Errno::ENOMEM)?,
                    };
                    bias = base.wrapping_sub(page_start(segment.p_vaddr));
                    mapped.bias = bias;
                }
                placed = true;
                let first = page_start(bias.wrapping_add(segment.p_vaddr));
                // Linux maps the whole span of a position-independent file at once, and fails if that cannot be.
                if self.header.e_type == ET_DYN && first.checked_add(span).is_none_or(|end| end > USER_MAX) {
                    return Err(Errno::ENOMEM);
                }
                let replace = over && self.header.e_type == ET_EXEC;
                let fixed = if replace { Fixed::Replace } else { Fixed::NoReplace };
                self.map_segment(mm, bias, segment, fixed, limits, &mut mapped.clear)?;
            } else {
                self.map_segment(mm, bias, segment, Fixed::Replace, limits, &mut mapped.clear)?;
            }
            let start = segment.p_vaddr;
            let in_range = |from: u64, at: u64, len: u64| at >= from && at - from < len;
            if in_range(segment.p_offset, self.header.e_phoff, segment.p_filesz) {
                mapped.headers =
                    bias.wrapping_add(self.header.e_phoff - segment.p_offset).wrapping_add(start);
            }
            let at = bias.wrapping_add(start);
            if at >= USER_MAX
                || segment.p_filesz > segment.p_memsz
                || segment.p_memsz > USER_MAX
                || USER_MAX - segment.p_memsz < at
            {
                return Err(Errno::EINVAL);
            }
            let (file_end, end) = (at + segment.p_filesz, at + segment.p_memsz);
            if segment.p_flags & PF_X != 0 {
                mapped.code = (mapped.code.0.min(at), mapped.code.1.max(file_end));
            }
            mapped.data = (mapped.data.0.max(at), mapped.data.1.max(file_end));
            mapped.end = mapped.end.max(end);
        }
        if mapped.code.1 == 0 {
            mapped.code = (0, 0);
        }
        if placed { Ok(mapped) } else { Err(Errno::EINVAL) }
    }

    /// Maps one segment: the pages of the file, zeroes up to the end of the last of them, and zero pages.
    fn map_segment(
        &self,
        mm: &MemoryManager,
        bias: u64,
        segment: &Elf64Phdr,
        fixed: Fixed,
        limits: &Limits,
        clear: &mut Vec<(u64, u64, bool)>,
    ) -> Result<()> {
        let prot = protection(segment.p_flags);
        let within = segment.p_vaddr % PAGE_SIZE;
        let addr = page_start(bias.wrapping_add(segment.p_vaddr));
        let after = |size: u64| addr.checked_add(within)?.checked_add(size);
        let file_end = after(segment.p_filesz).ok_or(Errno::ENOMEM)?;
        let end = after(segment.p_memsz).ok_or(Errno::ENOMEM)?;
        let mut zeroes_from = addr;
        if segment.p_filesz > 0 {
            let offset = segment.p_offset.checked_sub(within).ok_or(Errno::EINVAL)?;
            let file = MapFile {
                mappable: self.pages.clone(),
                file: Some(self.file.clone()),
                name: None,
                offset,
                max_prot: Prot::all(),
            };
            let len = file_end - addr;
            let limits = *limits;
            mm.map(
                None,
                &MapRequest { addr, len, prot, fixed, file: Some(file), limits, ..MapRequest::default() },
            )?;
            zeroes_from = page_end(file_end).ok_or(Errno::ENOMEM)?;
            if segment.p_memsz > segment.p_filesz && zeroes_from > file_end {
                let len = zeroes_from.min(USER_MAX).saturating_sub(file_end);
                clear.push((file_end, len, prot.contains(Prot::WRITE)));
            }
        }
        let zeroes_to = page_end(end).ok_or(Errno::ENOMEM)?;
        if zeroes_to > zeroes_from {
            let prot = Prot::READ | Prot::WRITE | (prot & Prot::EXEC);
            let fixed = if segment.p_filesz > 0 { Fixed::Replace } else { fixed };
            let (addr, len) = (zeroes_from, zeroes_to - zeroes_from);
            mm.map(None, &MapRequest { addr, len, prot, fixed, limits: *limits, ..MapRequest::default() })?;
        }
        Ok(())
    }
}

fn protection(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

fn page_start(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// Rounded up; `None` if that overflows.
pub(super) fn page_end(addr: u64) -> Option<u64> {
    addr.checked_add(PAGE_SIZE - 1).map(page_start)
}
