//! What proc and prctl(2) show of an address space.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use platform::{PAGE_SIZE, Prot};

use super::vma::{Backing, VmaFlags};
use super::{Layout, MemoryManager};
use crate::vfs::{File, ObjectId};

/// What `/proc/PID/maps` shows in its last column.
#[derive(Clone)]
pub enum MapName {
    /// Nothing.
    None,
    /// `[heap]`, `[stack]`, `[vdso]`, or a name that an object in memory has.
    Text(Arc<str>),
    /// The path of an open file.
    File(Arc<File>),
}

/// A line of `/proc/PID/maps`, and a section of smaps.
#[derive(Clone)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Protection.
    pub prot: Prot,
    /// What mprotect(2) may make of it.
    pub max_prot: Prot,
    /// Shared and so on.
    pub flags: VmaFlags,
    /// Offset in the file.
    pub offset: u64,
    /// The object; zeroes for private anonymous memory.
    pub object: ObjectId,
    /// Its name.
    pub name: MapName,
}

/// What kind of memory a mapping is, as VmRSS is split up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Private, without a file.
    Anonymous,
    /// Of a file on a filesystem.
    File,
    /// Shared memory, and files in memory.
    Shared,
}

/// How much is in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// RssAnon.
    pub anonymous: u64,
    /// RssFile.
    pub file: u64,
    /// RssShmem.
    pub shared: u64,
}

impl Resident {
    /// VmRSS.
    pub fn total(&self) -> u64 {
        self.anonymous + self.file + self.shared
    }
}

impl MapEntry {
    /// What kind of memory it is.
    pub fn kind(&self) -> MapKind {
        match &self.name {
            MapName::File(file) if file.path().dentry().superblock().fs().name() == "tmpfs" => {
                MapKind::Shared
            }
            MapName::File(_) => MapKind::File,
            _ if self.object.ino != 0 => MapKind::Shared,
            _ => MapKind::Anonymous,
        }
    }

    /// True for a System V shared memory segment.
    pub fn is_sysv(&self) -> bool {
        matches!(&self.name, MapName::Text(name) if name.starts_with("/SYSV"))
    }

    /// `rwxp` and so on.
    pub fn permissions(&self) -> String {
        let letter = |set: bool, letter: char| if set { letter } else { '-' };
        [
            letter(self.prot.contains(Prot::READ), 'r'),
            letter(self.prot.contains(Prot::WRITE), 'w'),
            letter(self.prot.contains(Prot::EXEC), 'x'),
            if self.flags.contains(VmaFlags::SHARED) { 's' } else { 'p' },
        ]
        .iter()
        .collect()
    }

    /// The `VmFlags` line of smaps, without its name.
    pub fn vm_flags(&self) -> String {
        let mut text = String::new();
        let mut add = |set: bool, name: &str| {
            if set {
                text.push_str(name);
                text.push(' ');
            }
        };
        add(self.prot.contains(Prot::READ), "rd");
        add(self.prot.contains(Prot::WRITE), "wr");
        add(self.prot.contains(Prot::EXEC), "ex");
        add(self.flags.contains(VmaFlags::SHARED), "sh");
        add(self.max_prot.contains(Prot::READ), "mr");
        add(self.max_prot.contains(Prot::WRITE), "mw");
        add(self.max_prot.contains(Prot::EXEC), "me");
        add(self.flags.contains(VmaFlags::SHARED), "ms");
        add(self.flags.contains(VmaFlags::GROWS_DOWN), "gd");
        add(self.flags.contains(VmaFlags::LOCKED), "lo");
        add(self.flags.contains(VmaFlags::SEQUENTIAL), "sr");
        add(self.flags.contains(VmaFlags::RANDOM), "rr");
        add(self.flags.contains(VmaFlags::DONT_FORK), "dc");
        add(self.flags.contains(VmaFlags::DONT_EXPAND), "de");
        let accounted = self.prot.contains(Prot::WRITE)
            && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::NO_RESERVE);
        add(accounted, "ac");
        add(self.flags.contains(VmaFlags::NO_RESERVE), "nr");
        add(self.flags.contains(VmaFlags::WIPE_ON_FORK), "wf");
        add(self.flags.contains(VmaFlags::DONT_DUMP), "dd");
        add(self.flags.contains(VmaFlags::HUGE_PAGE), "hg");
        add(self.flags.contains(VmaFlags::NO_HUGE_PAGE), "nh");
        add(self.flags.contains(VmaFlags::MERGEABLE), "mg");
        add(self.flags.contains(VmaFlags::SEALED), "sl");
        text
    }
}

/// Sums over the mappings, in bytes (`/proc/PID/status` and statm).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// VmSize.
    pub total: u64,
    /// VmPeak.
    pub peak: u64,
    /// VmData: private and writable.
    pub data: u64,
    /// VmStk.
    pub stack: u64,
    /// VmExe and VmLib together.
    pub exec: u64,
    /// Of files and shared objects.
    pub shared: u64,
    /// VmLck.
    pub locked: u64,
}

impl MemoryManager {
    /// All mappings, in order of address.
    pub fn maps(&self) -> Vec<MapEntry> {
        let state = self.state.read();
        let layout = &state.layout;
        state
            .vmas
            .iter()
            .filter(|(_, _, vma)| !vma.flags.contains(VmaFlags::PLATFORM))
            .map(|(start, end, vma)| {
                let (offset, object, name) = match &vma.backing {
                    Backing::File { mapping, offset } => {
                        let name = match (&mapping.file, &mapping.name) {
                            (Some(file), _) => MapName::File(file.clone()),
                            (None, Some(name)) => MapName::Text(name.clone()),
                            (None, None) => MapName::None,
                        };
                        let mut object = mapping.mappable.object();
                        // As Linux shows the internal mount that such memory is on.
                        if matches!(&name, MapName::Text(text) if text.starts_with('/')) && object.dev == 0 {
                            object.dev = 1;
                        }
                        (*offset, object, name)
                    }
                    Backing::Anonymous => {
                        (0, ObjectId { dev: 0, ino: 0 }, anonymous_name(layout, start, end))
                    }
                };
                let (prot, max_prot, flags) = (vma.prot, vma.max_prot, vma.flags);
                MapEntry { start, end, prot, max_prot, flags, offset, object, name }
            })
            .collect()
    }

    /// Sums over the mappings.
    pub fn usage(&self) -> Usage {
        let state = self.state.read();
        let totals = &state.totals;
        Usage {
            total: totals.total,
            peak: state.peak,
            data: totals.data,
            stack: totals.stack,
            exec: totals.exec,
            shared: totals.shared,
            locked: totals.locked,
        }
    }

    /// How many bytes of each of the mappings are in memory, as far as they can be told. Asks the host, a stretch at a
    /// time. Pages of files count if they are in the page cache; of more than 16 GiB the first are looked at.
    pub fn resident_of(&self, maps: &[MapEntry]) -> Vec<u64> {
        const PAGES_MAX: u64 = 4 << 20;
        let mut flags = vec![0; 4096];
        let mut found = vec![0; maps.len()];
        let mut looked_at = 0;
        // What is reserved only is skipped: it can be vast.
        let touched = |entry: &MapEntry| !entry.prot.is_empty();
        let mut next = 0;
        while let Some(first) = maps.get(next) {
            if !touched(first) {
                next += 1;
                continue;
            }
            // Neighbours are asked for together.
            let (start, mut end, mut after) = (first.start, first.end, next + 1);
            while let Some(entry) = maps.get(after).filter(|e| e.start == end && touched(e)) {
                end = entry.end;
                after += 1;
            }
            let (mut at, mut index) = (start, next);
            while at < end && looked_at < PAGES_MAX {
                let pages = ((end - at) / PAGE_SIZE).min(flags.len() as u64);
                let part = flags.get_mut(..pages as usize).unwrap_or_default();
                // A mapping that is gone by now counts nothing.
                let known = self.space.resident(at, part).is_ok();
                for (page, flag) in part.iter().enumerate() {
                    let addr = at + page as u64 * PAGE_SIZE;
                    while maps.get(index).is_some_and(|e| e.end <= addr) {
                        index += 1;
                    }
                    if let Some(bytes) = found.get_mut(index).filter(|_| known && flag & 1 != 0) {
                        *bytes += PAGE_SIZE;
                    }
                }
                at += pages * PAGE_SIZE;
                looked_at += pages;
            }
            next = after;
        }
        found
    }

    /// How much of the address space is in memory, by kind.
    pub fn resident_set(&self) -> Resident {
        let maps = self.maps();
        let mut sum = Resident::default();
        for (entry, bytes) in maps.iter().zip(self.resident_of(&maps)) {
            match entry.kind() {
                MapKind::Anonymous => sum.anonymous += bytes,
                MapKind::File => sum.file += bytes,
                MapKind::Shared => sum.shared += bytes,
            }
        }
        self.resident_peak.fetch_max(sum.total(), Ordering::Relaxed);
        sum
    }

    /// VmRSS: how much of it is in memory, in bytes. Asks the host; for proc, not for hot paths.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_set().total()
    }

    /// `ru_maxrss`, in KiB: the largest [`MemoryManager::resident_bytes`] that anybody has seen; if nobody has looked,
    /// what the process can have touched of its own memory.
    pub fn max_rss_kib(&self) -> u64 {
        match self.resident_peak.load(Ordering::Relaxed) {
            0 => {
                let totals = &self.state.read().totals;
                (totals.data + totals.stack + totals.exec) / 1024
            }
            peak => peak / 1024,
        }
    }

    /// Where everything is.
    pub fn layout(&self) -> Layout {
        self.state.read().layout.clone()
    }

    /// prctl(PR_SET_MM), whose checks are the caller's.
    pub fn set_layout(&self, change: impl FnOnce(&mut Layout)) {
        change(&mut self.state.write().layout);
    }

    /// The auxiliary vector, as `/proc/PID/auxv` shows it.
    pub fn auxv(&self) -> Vec<u8> {
        self.state.read().auxv.clone()
    }

    /// Remembers the auxiliary vector (exec, PR_SET_MM_AUXV).
    pub fn set_auxv(&self, auxv: Vec<u8>) {
        self.state.write().auxv = auxv;
    }

    /// The program's file.
    pub fn exe(&self) -> Option<Arc<File>> {
        self.state.read().exe.clone()
    }

    /// Replaces the program's file.
    pub fn set_exe(&self, exe: Option<Arc<File>>) {
        let old = std::mem::replace(&mut self.state.write().exe, exe);
        drop(old);
    }

    /// True if a mapping of the file `object` exists (PR_SET_MM_EXE_FILE is EBUSY then).
    pub fn maps_object(&self, object: ObjectId) -> bool {
        self.state.read().vmas.iter().any(|(_, _, vma)| vma.object(0).is_some_and(|(o, _)| o == object))
    }
}

/// `[heap]` and `[stack]`, as Linux tells them.
fn anonymous_name(layout: &Layout, start: u64, end: u64) -> MapName {
    if start < layout.brk && end > layout.start_brk {
        return MapName::Text("[heap]".into());
    }
    if start <= layout.start_stack && end >= layout.start_stack && layout.start_stack != 0 {
        return MapName::Text("[stack]".into());
    }
    MapName::None
}
