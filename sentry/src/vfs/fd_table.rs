//! File descriptor tables (fs/file.c).

use std::sync::Arc;

use abi::{Errno, Result};
use parking_lot::RwLock;

use super::file::File;

/// A descriptor number.
pub type Fd = i32;

bitflags::bitflags! {
    /// Flags of a descriptor.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FdFlags: u32 {
        /// FD_CLOEXEC.
        const CLOEXEC = 1;
    }
}

/// The largest number a table can hold, whatever RLIMIT_NOFILE says (`fs.nr_open`).
pub const NR_OPEN: u64 = 1 << 20;

/// How many descriptors are kept together. A table takes memory for those numbers that are near one in use.
const CHUNK: usize = 64;

type Entry = (Arc<File>, FdFlags);

#[derive(Clone)]
struct Chunk {
    used: usize,
    entries: [Option<Entry>; CHUNK],
}

#[derive(Clone, Default)]
struct Slots {
    /// The last one is never empty.
    chunks: Vec<Option<Box<Chunk>>>,
    /// No number below is free.
    first_free: usize,
}

impl Slots {
    fn get(&self, fd: usize) -> Option<&Entry> {
        self.chunks.get(fd / CHUNK)?.as_ref()?.entries[fd % CHUNK].as_ref()
    }

    fn get_mut(&mut self, fd: usize) -> Option<&mut Entry> {
        self.chunks.get_mut(fd / CHUNK)?.as_mut()?.entries[fd % CHUNK].as_mut()
    }

    /// Descriptors and entries, in order.
    fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let chunks = self.chunks.iter().enumerate().filter_map(|(i, chunk)| Some((i, chunk.as_ref()?)));
        chunks.flat_map(|(i, chunk)| {
            let entries = chunk.entries.iter().enumerate();
            entries.filter_map(move |(k, entry)| Some((i * CHUNK + k, entry.as_ref()?)))
        })
    }

    fn free_from(&self, min: usize) -> usize {
        let start = min.max(self.first_free);
        let mut fd = start;
        while let Some(chunk) = self.chunks.get(fd / CHUNK) {
            let Some(chunk) = chunk.as_ref().filter(|chunk| chunk.used > 0) else { return fd };
            if chunk.used < CHUNK
                && let Some(free) = (fd % CHUNK..CHUNK).find(|&k| chunk.entries[k].is_none())
            {
                return fd - fd % CHUNK + free;
            }
            fd = fd - fd % CHUNK + CHUNK;
        }
        fd
    }

    fn set(&mut self, fd: usize, file: Arc<File>, flags: FdFlags) -> Option<Arc<File>> {
        if fd / CHUNK >= self.chunks.len() {
            self.chunks.resize(fd / CHUNK + 1, None);
        }
        if fd == self.first_free {
            self.first_free += 1;
        }
        let empty = || Box::new(Chunk { used: 0, entries: [const { None }; CHUNK] });
        let chunk = self.chunks[fd / CHUNK].get_or_insert_with(empty);
        let old = chunk.entries[fd % CHUNK].replace((file, flags));
        chunk.used += usize::from(old.is_none());
        old.map(|(file, _)| file)
    }

    fn take(&mut self, fd: usize) -> Option<Arc<File>> {
        let place = self.chunks.get_mut(fd / CHUNK)?;
        let chunk = place.as_mut()?;
        let (file, _) = chunk.entries[fd % CHUNK].take()?;
        chunk.used -= 1;
        if chunk.used == 0 {
            *place = None;
        }
        self.first_free = self.first_free.min(fd);
        while self.chunks.last().is_some_and(Option::is_none) {
            self.chunks.pop();
        }
        Some(file)
    }
}

/// The descriptors of a process; shared by CLONE_FILES. Files that a change drops are returned or dropped after the
/// lock was released.
#[derive(Default)]
pub struct FdTable(RwLock<Slots>);

impl FdTable {
    /// An empty table.
    pub fn new() -> FdTable {
        FdTable::default()
    }

    /// A copy that refers to the same files, for a new process.
    pub fn fork(&self) -> FdTable {
        FdTable(RwLock::new(self.0.read().clone()))
    }

    /// The file of a descriptor. EBADF.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>> {
        self.entry(fd).map(|(file, _)| file)
    }

    /// The file and flags of a descriptor. EBADF.
    pub fn entry(&self, fd: Fd) -> Result<(Arc<File>, FdFlags)> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.0.read().get(index).cloned().ok_or(Errno::EBADF)
    }

    /// Installs a file at the lowest free number from `min` on. EMFILE at `limit` (RLIMIT_NOFILE).
    pub fn install(&self, file: Arc<File>, flags: FdFlags, min: Fd, limit: u64) -> Result<Fd> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let mut slots = self.0.write();
        let fd = slots.free_from(min);
        if fd as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EMFILE);
        }
        slots.set(fd, file, flags);
        Ok(fd as Fd)
    }

    /// EMFILE if no number below `limit` (RLIMIT_NOFILE) is free.
    pub fn check_room(&self, limit: u64) -> Result<()> {
        let room = (self.0.read().free_from(0) as u64) < limit.min(NR_OPEN);
        if room { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// dup2(2): installs a file at this number; what was there is returned, for the caller to flush and drop. EBADF
    /// at or above `limit`.
    pub fn install_at(
        &self,
        fd: Fd,
        file: Arc<File>,
        flags: FdFlags,
        limit: u64,
    ) -> Result<Option<Arc<File>>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        Ok(self.0.write().set(index, file, flags))
    }

    /// Takes a descriptor out; the caller flushes and drops the file. EBADF.
    pub fn remove(&self, fd: Fd) -> Result<Arc<File>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.0.write().take(index).ok_or(Errno::EBADF)
    }

    /// Sets FD_CLOEXEC. EBADF.
    pub fn set_flags(&self, fd: Fd, flags: FdFlags) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.0.write().get_mut(index).ok_or(Errno::EBADF)?.1 = flags;
        Ok(())
    }

    /// Sets FD_CLOEXEC on a range (close_range(2) with CLOSE_RANGE_CLOEXEC).
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut slots = self.0.write();
        let range = first as usize..=last as usize;
        let there: Vec<usize> = slots.iter().map(|(fd, _)| fd).filter(|fd| range.contains(fd)).collect();
        for fd in there {
            if let Some((_, flags)) = slots.get_mut(fd) {
                *flags |= FdFlags::CLOEXEC;
            }
        }
    }

    /// Takes out the descriptors that `which` selects.
    pub fn remove_where(&self, mut which: impl FnMut(Fd, FdFlags) -> bool) -> Vec<Arc<File>> {
        let mut slots = self.0.write();
        let chosen: Vec<usize> =
            slots.iter().filter(|(fd, (_, flags))| which(*fd as Fd, *flags)).map(|(fd, _)| fd).collect();
        chosen.into_iter().filter_map(|fd| slots.take(fd)).collect()
    }

    /// How many descriptors there is room for, as `FDSize` of `/proc/PID/status` shows it.
    pub fn capacity(&self) -> usize {
        (self.0.read().chunks.len() * CHUNK).next_power_of_two().max(64)
    }

    /// The open descriptors.
    pub fn list(&self) -> Vec<(Fd, Arc<File>, FdFlags)> {
        let slots = self.0.read();
        slots.iter().map(|(fd, (file, flags))| (fd as Fd, file.clone(), *flags)).collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let owner = super::locks::Owner::process(self);
        for (_, (file, _)) in self.0.get_mut().iter() {
            super::locks::owner_closed(owner, file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
    use crate::vfs::file::PathOnly;
    use crate::vfs::{Mount, MountFlags, Path, SuperBlock};

    fn file() -> Arc<File> {
        let root = SuperBlock::make(Tmpfs::new(&TmpfsOptions::unlimited()));
        let mount = Mount::new(root.clone(), MountFlags::empty(), b"t");
        File::new(Arc::new(PathOnly), Path::new(mount, root), abi::fcntl::OpenFlags::O_PATH)
    }

    const NONE: FdFlags = FdFlags::empty();

    #[test]
    fn the_lowest_free_number_is_taken() {
        let (table, file) = (FdTable::new(), file());
        for fd in 0..200 {
            assert_eq!(table.install(file.clone(), NONE, 0, NR_OPEN), Ok(fd));
        }
        for fd in [150, 3, 64, 127] {
            table.remove(fd).unwrap();
        }
        for fd in [3, 64, 127, 150, 200] {
            assert_eq!(table.install(file.clone(), NONE, 0, NR_OPEN), Ok(fd));
        }
        assert_eq!(table.install(file.clone(), NONE, 500, NR_OPEN), Ok(500));
        assert_eq!(table.install(file.clone(), NONE, 0, 201).err(), Some(Errno::EMFILE));
        assert_eq!(table.list().len(), 202);
        assert_eq!(table.remove_where(|fd, _| fd >= 100).len(), 102);
        assert_eq!(table.capacity(), 128);
        assert_eq!(table.get(100).err(), Some(Errno::EBADF));
    }

    #[test]
    fn a_high_number_takes_little_memory() {
        let (table, file) = (FdTable::new(), file());
        let high = NR_OPEN as Fd - 1;
        assert!(table.install_at(high, file.clone(), FdFlags::CLOEXEC, NR_OPEN).unwrap().is_none());
        assert_eq!(table.0.read().chunks.iter().flatten().count(), 1);
        assert_eq!(table.install(file.clone(), NONE, 0, NR_OPEN), Ok(0));
        assert_eq!(table.fork().entry(high).unwrap().1, FdFlags::CLOEXEC);
        table.set_cloexec_range(0, u32::MAX);
        assert_eq!(table.entry(0).unwrap().1, FdFlags::CLOEXEC);
        table.remove(high).unwrap();
        assert_eq!(table.0.read().chunks.len(), 1);
    }
}
