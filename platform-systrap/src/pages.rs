//! The pages that the threads of an address space share with the sentry: one file, mapped here in large pieces and in the
//! stub process a thread at a time.
//!
//! Making them costs as much as some switches between processes. So those of a process that has ended, and had one thread, are
//! wiped and given to a new one. [`platform::stub::State::keep`] holds them until nobody can write there any more.

use crate::arch::frame::{Geometry, Page};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use parking_lot::Mutex;
use platform::stub::{Op, SLOT_SIZE, SLOTS};
use platform::{Errno, Result};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Threads whose pages are one mapping of the sentry's.
const CHUNK: usize = 64;

/// Pages kept for new address spaces at most.
const SPARE_MAX: usize = 4;

/// Pages without an address space.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<(OwnedFd, Chunks)>>);

/// See the module.
pub(crate) struct Pages {
    /// By slot number.
    memory: Option<OwnedFd>,
    /// Bytes of one thread's.
    size: usize,
    chunks: Mutex<Chunks>,
    /// Only the first slot was ever used.
    is_single: AtomicBool,
    spare: Arc<Spare>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        let chunks = self.chunks.get_mut();
        let (whole, mapped) = (chunks.size, std::mem::take(&mut chunks.mapped));
        let chunks = Chunks { size: whole, mapped };
        let [first] = chunks.mapped[..] else { return };
        // The stub had the descriptor, and may write to the file's end.
        let has_grown = nix::sys::stat::fstat(&memory).map(|stat| stat.st_size) != Ok(whole.get() as i64);
        if has_grown || !*self.is_single.get_mut() {
            return;
        }
        // SAFETY: the first slot's pages, which nobody uses any more. (They lie in the chunk, which is larger.)
        unsafe { first.cast::<u8>().write_bytes(0, self.size) };
        let mut spare = self.spare.0.lock();
        if spare.len() < SPARE_MAX {
            spare.push((memory, chunks));
        }
    }
}

/// The parts of the memory that are mapped here, in order.
struct Chunks {
    size: NonZeroUsize,
    mapped: Vec<NonNull<c_void>>,
}

// SAFETY: the mappings belong to the process, not to a thread.
unsafe impl Send for Chunks {}

impl Drop for Chunks {
    fn drop(&mut self) {
        for &chunk in &self.mapped {
            // SAFETY: mapped by `Pages::of` with this size; who uses it holds the pages.
            let _ = unsafe { munmap(chunk, self.size.get()) };
        }
    }
}

impl Pages {
    /// For a new address space.
    pub fn new(geometry: &Geometry, spare: &Arc<Spare>) -> Result<Self> {
        let wiped = spare.0.lock().pop();
        let (memory, chunks) = match wiped {
            Some(wiped) => wiped,
            None => {
                let memory = memfd_create("systrap", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
                fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
                let size = NonZeroUsize::new(geometry.size * CHUNK).ok_or(Errno::EINVAL)?;
                (memory, Chunks { size, mapped: Vec::new() })
            }
        };
        Ok(Self {
            memory: Some(memory),
            size: geometry.size,
            chunks: Mutex::new(chunks),
            is_single: AtomicBool::new(true),
            spare: spare.clone(),
        })
    }

    /// The pages of the slot number `index`, and what the stub must do to have them, with [`Pages::memory`] as its
    /// descriptor 0.
    pub fn of(&self, index: u32) -> Result<(Page, [Op; 2])> {
        let (addr, index) = (SLOTS + u64::from(index) * SLOT_SIZE, index as usize);
        let offset = index * self.size;
        if index > 0 {
            self.is_single.store(false, Relaxed);
        }
        let mut chunks = self.chunks.lock();
        let whole = chunks.size;
        while chunks.mapped.len() <= index / CHUNK {
            let start = chunks.mapped.len() * whole.get();
            nix::unistd::ftruncate(self.memory()?, (start + whole.get()) as i64)?;
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let chunk =
                unsafe { mmap(None, whole, prot, MapFlags::MAP_SHARED, self.memory()?, start as i64) }?;
            chunks.mapped.push(chunk);
        }
        let chunk = chunks.mapped.get(index / CHUNK).ok_or(Errno::EINVAL)?;
        // SAFETY: inside the chunk. It is unmapped when this is dropped, which every thread holds by its address space.
        let page = unsafe { Page::new(chunk.as_ptr().cast::<u8>().add(index % CHUNK * self.size), addr) };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let args = [addr, self.size as u64, prot as u64, flags as u64, 0, offset as u64];
        let ops = [
            Op::call(libc::SYS_mmap, args).with_fd(4),
            Op::call(libc::SYS_madvise, [addr, self.size as u64, libc::MADV_DONTFORK as u64, 0, 0, 0]),
        ];
        Ok((page, ops))
    }

    /// The file.
    pub fn memory(&self) -> Result<BorrowedFd<'_>> {
        self.memory.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
    }
}
