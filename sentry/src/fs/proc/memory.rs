//! What is in an address space: `maps`, `smaps`, `mem`, `cmdline`, `environ`, `auxv` (fs/proc/task_mmu.c, fs/proc/base.c).

use std::any::Any;
use std::fmt::Write;
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::stat::{major, minor};
use abi::{Errno, Result};
use platform::{PAGE_SIZE, Prot};

use super::descriptors::file_name;
use super::subject::{Subject, may};
use crate::fs::synthetic::Request;
use crate::mm::{MapEntry, MapKind, MapName, MemoryManager};
use crate::task::AccessMode;
use crate::vfs::{FileOps, Io, Path, Sink, Source};

/// The column from which names are shown.
const NAME_COLUMN: usize = 73;

/// How much memory is moved at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The most that is shown of arguments or environment, in bytes.
const STRINGS_MAX: u64 = 8 << 20;

/// The reader's root directory.
fn root_of(io: &Io<'_>) -> Option<Path> {
    io.task.map(|task| task.fs().root())
}

/// Appends the line of a mapping.
fn put_line(text: &mut Vec<u8>, entry: &MapEntry, root: Option<&Path>) {
    let begin = text.len();
    let (dev, ino, name) = match &entry.name {
        MapName::File(file) => {
            let object = file.path().dentry().object();
            (object.dev, object.ino, file_name(file, root))
        }
        // What the kernel itself provides belongs to no file.
        MapName::Text(name) if name.starts_with('[') => (0, 0, name.as_bytes().to_vec()),
        MapName::Text(name) => (entry.object.dev, entry.object.ino, name.as_bytes().to_vec()),
        // Shared anonymous memory is a file of the kernel's own tmpfs.
        MapName::None if entry.object.ino != 0 => (1, entry.object.ino, b"/dev/zero (deleted)".to_vec()),
        MapName::None => (0, 0, Vec::new()),
    };
    let line = format!(
        "{:08x}-{:08x} {} {:08x} {:02x}:{:02x} {ino} ",
        entry.start,
        entry.end,
        entry.permissions(),
        entry.offset,
        major(dev),
        minor(dev),
    );
    text.extend_from_slice(line.as_bytes());
    if !name.is_empty() {
        text.resize(text.len().max(begin + NAME_COLUMN), b' ');
        for byte in name {
            match byte {
                b'\n' => text.extend_from_slice(b"\\012"),
                _ => text.push(byte),
            }
        }
    }
    text.push(b'\n');
}

pub(super) fn maps(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let Some(mm) = subject.memory()? else { return Ok(Vec::new()) };
    let root = root_of(io);
    let mut text = Vec::new();
    for entry in mm.maps() {
        put_line(&mut text, &entry, root.as_ref());
    }
    Ok(text)
}

/// What smaps tells of a mapping, or of all, in bytes.
#[derive(Default)]
struct Use {
    resident: u64,
    shared_clean: u64,
    private_clean: u64,
    private_dirty: u64,
    shared_dirty: u64,
    anonymous: u64,
    locked: u64,
    by_kind: [u64; 3],
}

impl Use {
    fn add(&mut self, entry: &MapEntry, resident: u64) {
        let kind = entry.kind();
        let writable = entry.prot.contains(Prot::WRITE);
        self.resident += resident;
        // Which pages are dirty is not known: what can be written to is taken to have been.
        match kind {
            MapKind::Anonymous => {
                self.private_dirty += resident;
                self.anonymous += resident;
            }
            MapKind::File if writable => self.private_dirty += resident,
            MapKind::File => self.private_clean += resident,
            MapKind::Shared if writable => self.shared_dirty += resident,
            MapKind::Shared => self.shared_clean += resident,
        }
        let index = match kind {
            MapKind::Anonymous => 0,
            MapKind::File => 1,
            MapKind::Shared => 2,
        };
        self.by_kind[index] += resident;
        if entry.flags.contains(crate::mm::vma::VmaFlags::LOCKED) {
            self.locked += resident;
        }
    }

    fn put(&self, text: &mut String, rollup: bool) {
        let dirty = self.private_dirty + self.shared_dirty;
        let mut lines = vec![("Rss", self.resident), ("Pss", self.resident), ("Pss_Dirty", dirty)];
        if rollup {
            let [anonymous, file, shared] = self.by_kind;
            lines.extend([("Pss_Anon", anonymous), ("Pss_File", file), ("Pss_Shmem", shared)]);
        }
        lines.extend([
            ("Shared_Clean", self.shared_clean),
            ("Shared_Dirty", self.shared_dirty),
            ("Private_Clean", self.private_clean),
            ("Private_Dirty", self.private_dirty),
            ("Referenced", self.resident),
            ("Anonymous", self.anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ]);
        for (name, bytes) in lines {
            put_size(text, name, bytes);
        }
    }
}

fn put_size(text: &mut String, name: &str, bytes: u64) {
    let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
}

pub(super) fn smaps(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let Some(mm) = subject.memory()? else { return Ok(Vec::new()) };
    let root = root_of(io);
    let mut text = Vec::new();
    let maps = mm.maps();
    for (entry, resident) in maps.iter().zip(mm.resident_of(&maps)) {
        put_line(&mut text, entry, root.as_ref());
        let mut sizes = String::new();
        put_size(&mut sizes, "Size", entry.end - entry.start);
        put_size(&mut sizes, "KernelPageSize", PAGE_SIZE);
        put_size(&mut sizes, "MMUPageSize", PAGE_SIZE);
        let mut of_this = Use::default();
        of_this.add(entry, resident);
        of_this.put(&mut sizes, false);
        let _ = writeln!(sizes, "{:<16}{:>8}\nVmFlags: {}", "THPeligible:", 0, entry.vm_flags());
        text.extend_from_slice(sizes.as_bytes());
    }
    Ok(text)
}

pub(super) fn smaps_rollup(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mm = subject.memory()?.ok_or(Errno::ESRCH)?;
    let maps = mm.maps();
    let (start, end) = (maps.first().map_or(0, |e| e.start), maps.last().map_or(0, |e| e.end));
    let mut all = Use::default();
    for (entry, resident) in maps.iter().zip(mm.resident_of(&maps)) {
        all.add(entry, resident);
    }
    let head = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ");
    let mut text = format!("{head:<NAME_COLUMN$}[rollup]\n");
    all.put(&mut text, true);
    Ok(text.into_bytes())
}

/// Reads a range of guest memory as far as it goes.
fn strings(mm: &MemoryManager, start: u64, end: u64) -> Vec<u8> {
    let len = end.saturating_sub(start).min(STRINGS_MAX);
    let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = if text.is_empty() { 0 } else { mm.read_upto(start, &mut text).unwrap_or(0) };
    text.truncate(read);
    text
}

/// The arguments. A program that has overwritten the zero byte at their end has set a title, which may reach into the
/// environment (get_mm_cmdline()).
pub(super) fn cmdline(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let Some(mm) = subject.memory()? else { return Ok(Vec::new()) };
    let layout = mm.layout();
    if layout.arg_start >= layout.arg_end {
        return Ok(Vec::new());
    }
    let mut last = [0];
    if mm.read_upto(layout.arg_end - 1, &mut last) == Ok(1) && last != [0] {
        let adjacent = layout.env_start == layout.arg_end && layout.env_end >= layout.env_start;
        let end = if adjacent { layout.env_end } else { layout.arg_end };
        let mut title = strings(&mm, layout.arg_start, end.min(layout.arg_start.saturating_add(PAGE_SIZE)));
        if let Some(len) = title.iter().position(|&b| b == 0) {
            title.truncate(len + 1);
        }
        return Ok(title);
    }
    Ok(strings(&mm, layout.arg_start, layout.arg_end))
}

pub(super) fn environ(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mm = subject.memory()?.ok_or(Errno::ESRCH)?;
    let layout = mm.layout();
    Ok(strings(&mm, layout.env_start, layout.env_end))
}

pub(super) fn auxv(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(subject.memory()?.ok_or(Errno::ESRCH)?.auxv())
}

/// `clear_refs`: which pages were referenced is not shown, so forgetting it needs nothing.
pub(super) fn clear_refs(subject: &Subject, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    subject.find()?;
    match request.number()? {
        1..=5 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// `mem`: the address space, with addresses as offsets. It is that of the time of the open, also after an execve.
struct Memory(Weak<MemoryManager>);

pub(super) fn open(subject: &Subject, io: &Io<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    let task = subject.living()?;
    if !may(io, &task, AccessMode::Attach) {
        return Err(Errno::EACCES);
    }
    Ok(Arc::new(Memory(task.memory().map_or_else(Weak::new, |mm| Arc::downgrade(&mm)))))
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        let Some(mm) = self.0.upgrade() else { return Ok(0) };
        let mut buf = vec![0; dst.remaining().min(CHUNK)];
        let mut done = 0;
        while dst.remaining() > 0 {
            let part = buf.len().min(dst.remaining());
            let part = buf.get_mut(..part).unwrap_or_default();
            let wanted = part.len();
            let read = match mm.read_upto(offset.wrapping_add(done as u64), part) {
                Ok(read) => read,
                Err(_) if done == 0 => return Err(Errno::EIO),
                Err(_) => break,
            };
            match dst.put(part.get(..read).unwrap_or_default()) {
                Ok(put) if put == wanted => done += put,
                Ok(put) => return Ok(done + put),
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write(&self, _io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        let Some(mm) = self.0.upgrade() else { return Ok(0) };
        let mut buf = vec![0; src.remaining().min(CHUNK)];
        let mut done = 0;
        while src.remaining() > 0 {
            let part = buf.len().min(src.remaining());
            let part = buf.get_mut(..part).unwrap_or_default();
            let taken = match src.take(part) {
                Ok(taken) => taken,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            let put = mm.poke(offset.wrapping_add(done as u64), part.get(..taken).unwrap_or_default());
            match put {
                Ok(put) if put == taken => done += put,
                Ok(put) => return Ok(done + put),
                Err(_) if done == 0 => return Err(Errno::EIO),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
