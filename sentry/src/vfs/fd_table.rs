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

#[derive(Default)]
struct Slots {
    slots: Vec<Option<(Arc<File>, FdFlags)>>,
    /// No number below is free.
    first_free: usize,
}

impl Slots {
    fn free_from(&self, min: usize) -> usize {
        let start = min.max(self.first_free);
        (start..self.slots.len()).find(|&i| self.slots[i].is_none()).unwrap_or(self.slots.len().max(min))
    }

    fn set(&mut self, fd: usize, file: Arc<File>, flags: FdFlags) -> Option<Arc<File>> {
        if fd >= self.slots.len() {
            self.slots.resize(fd + 1, None);
        }
        if fd == self.first_free {
            self.first_free += 1;
        }
        self.slots[fd].replace((file, flags)).map(|(old, _)| old)
    }

    fn take(&mut self, fd: usize) -> Option<Arc<File>> {
        let (file, _) = self.slots.get_mut(fd)?.take()?;
        self.first_free = self.first_free.min(fd);
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
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
        let slots = self.0.read();
        FdTable(RwLock::new(Slots { slots: slots.slots.clone(), first_free: slots.first_free }))
    }

    /// The file of a descriptor. EBADF.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>> {
        self.entry(fd).map(|(file, _)| file)
    }

    /// The file and flags of a descriptor. EBADF.
    pub fn entry(&self, fd: Fd) -> Result<(Arc<File>, FdFlags)> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.0.read().slots.get(index).cloned().flatten().ok_or(Errno::EBADF)
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
        match self.0.write().slots.get_mut(index) {
            Some(Some((_, old))) => {
                *old = flags;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Sets FD_CLOEXEC on a range (close_range(2) with CLOSE_RANGE_CLOEXEC).
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        for (_, flags) in
            self.0.write().slots.iter_mut().take(last as usize + 1).skip(first as usize).flatten()
        {
            *flags |= FdFlags::CLOEXEC;
        }
    }

    /// Takes out the descriptors that `which` selects.
    pub fn remove_where(&self, mut which: impl FnMut(Fd, FdFlags) -> bool) -> Vec<Arc<File>> {
        let mut slots = self.0.write();
        let mut removed = Vec::new();
        for fd in 0..slots.slots.len() {
            if let Some(Some((_, flags))) = slots.slots.get(fd)
                && which(fd as Fd, *flags)
            {
                removed.extend(slots.take(fd));
            }
        }
        removed
    }

    /// How many descriptors there is room for, as `FDSize` of `/proc/PID/status` shows it.
    pub fn capacity(&self) -> usize {
        self.0.read().slots.len().next_power_of_two().max(64)
    }

    /// The open descriptors.
    pub fn list(&self) -> Vec<(Fd, Arc<File>, FdFlags)> {
        let slots = self.0.read();
        let open = slots.slots.iter().enumerate();
        open.filter_map(|(fd, slot)| slot.as_ref().map(|(file, flags)| (fd as Fd, file.clone(), *flags)))
            .collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let owner = super::locks::Owner::process(self);
        for (file, _) in self.0.get_mut().slots.iter().flatten() {
            super::locks::owner_closed(owner, file);
        }
    }
}
