//! A guest address space: a stub process, and the pages that its threads share with the sentry.

use crate::Host;
use crate::arch::frame::Page;
use crate::carrier;
use crate::patch::Patches;
use crate::stub_thread::StubThread;
use crate::thread::Guest;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use parking_lot::Mutex;
use platform::stub::{Op, Slot, StubProcess, call_of_change, check};
use platform::{AddressSpace, Change, Context, Errno, Result, Thread};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// Threads whose pages are one mapping of the sentry's.
const CHUNK: usize = 64;

/// The platform's [`AddressSpace`].
pub struct Space {
    pub(crate) host: Arc<Host>,
    pub(crate) process: Arc<StubProcess>,
    /// All threads' pages, by slot number.
    memory: OwnedFd,
    chunks: Mutex<Chunks>,
    pub(crate) patches: Patches,
    /// The service thread and the guest threads.
    pub(crate) threads: Arc<AtomicU32>,
    /// There was never more than one guest thread.
    single: AtomicBool,
    is_used: AtomicBool,
    /// Stub threads that have no guest.
    resting: Mutex<Vec<StubThread>>,
}

/// Stub threads of an address space that rest at most. (The host's pids limit of a sandbox has room for them.)
const RESTING_MAX: usize = 4;

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
            // SAFETY: mapped by `Space::lease` with this size; the threads that used it hold the space.
            let _ = unsafe { munmap(chunk, self.size.get()) };
        }
    }
}

/// A thread's slot and its pages.
pub(crate) struct Lease {
    pub(crate) page: Page,
    /// Given back when the thread is gone.
    pub(crate) slot: Option<Slot>,
}

impl Space {
    pub(crate) fn new(host: Arc<Host>, process: Arc<StubProcess>, patches: Patches) -> Result<Self> {
        let memory = memfd_create("systrap", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        let size = NonZeroUsize::new(host.geometry.size * CHUNK).ok_or(Errno::EINVAL)?;
        let chunks = Mutex::new(Chunks { size, mapped: Vec::new() });
        Ok(Self {
            host,
            process,
            memory,
            chunks,
            patches,
            threads: Arc::new(AtomicU32::new(1)),
            single: AtomicBool::new(true),
            is_used: AtomicBool::new(false),
            resting: Mutex::default(),
        })
    }

    /// Whether all processor time of the process is that of its one guest thread, and what the service thread did for it.
    pub(crate) fn is_single(&self) -> bool {
        self.single.load(SeqCst)
    }

    /// There is more than the service thread and one guest thread.
    fn is_shared(&self) -> bool {
        self.threads.load(SeqCst) > 2
    }

    /// A slot for a new thread, and what the stub must do to have its pages, with [`Space::memory`] as descriptor.
    pub(crate) fn lease(&self) -> Result<(Lease, [Op; 2])> {
        let slot = self.process.allocate_slot()?;
        let size = self.host.geometry.size;
        let index = slot.index() as usize;
        let offset = index * size;
        let mut chunks = self.chunks.lock();
        let whole = chunks.size;
        while chunks.mapped.len() <= index / CHUNK {
            let start = chunks.mapped.len() * whole.get();
            nix::unistd::ftruncate(&self.memory, (start + whole.get()) as i64)?;
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let chunk = unsafe { mmap(None, whole, prot, MapFlags::MAP_SHARED, &self.memory, start as i64) }?;
            chunks.mapped.push(chunk);
        }
        let chunk = chunks.mapped.get(index / CHUNK).ok_or(Errno::EINVAL)?;
        // SAFETY: inside the chunk. It is unmapped when the space is dropped, which every thread holds.
        let page = unsafe { Page::new(chunk.as_ptr().cast::<u8>().add(index % CHUNK * size), slot.addr()) };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let args = [slot.addr(), size as u64, prot as u64, flags as u64, 0, offset as u64];
        let ops = [
            Op::call(libc::SYS_mmap, args).with_fd(4),
            Op::call(libc::SYS_madvise, [slot.addr(), size as u64, libc::MADV_DONTFORK as u64, 0, 0, 0]),
        ];
        Ok((Lease { page, slot: Some(slot) }, ops))
    }

    /// [`AddressSpace::apply`] by the caller's own stub thread: `None` if that cannot be.
    fn apply_by(&self, guest: &mut Guest, changes: &[Change<'_>]) -> Option<Result<()>> {
        let mut operations = Vec::with_capacity(changes.len());
        for change in changes {
            match call_of_change(change) {
                Ok(Some(operation)) => operations.push(operation),
                // It has a file, or is wrong: the long way tells.
                Ok(None) | Err(_) => return None,
            }
        }
        let results = match guest.operate(self, &operations)? {
            Ok(results) => results,
            Err(_) => return Some(Err(Errno::ESRCH)),
        };
        let mut done = 0;
        for result in results {
            done += 1;
            if let Err(errno) = check(result) {
                return Some(Err(errno));
            }
        }
        if done != operations.len() {
            self.process.state().misbehaved("operations left undone");
            return Some(Err(Errno::ESRCH));
        }
        Some(Ok(()))
    }

    /// A stub thread for a guest thread.
    pub(crate) fn employ(&self) -> Result<StubThread> {
        if self.is_used.swap(true, SeqCst) {
            self.single.store(false, SeqCst);
        }
        let resting = self.resting.lock().pop();
        match resting {
            Some(thread) => Ok(thread),
            None => StubThread::start(self),
        }
    }

    /// Has a stub thread ready for the first guest thread.
    pub(crate) fn start_thread(&self) -> Result<()> {
        let thread = StubThread::start(self)?;
        self.resting.lock().push(thread);
        Ok(())
    }

    /// Takes a stub thread whose guest thread has ended.
    pub(crate) fn dismiss(&self, thread: StubThread) {
        let mut resting = self.resting.lock();
        if resting.len() < RESTING_MAX {
            resting.push(thread);
        } else {
            drop(resting);
            thread.end();
        }
    }

    /// The memory of the threads' pages.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl AddressSpace for Space {
    fn new_thread(self: Arc<Self>, context: &Context) -> Result<Box<dyn Thread>> {
        Ok(Box::new(Guest::new(self, context)?))
    }

    fn apply(&self, by: Option<&mut dyn Thread>, changes: &[Change<'_>]) -> Result<()> {
        carrier::settle(self);
        self.patches.prepare(&self.process, self.is_shared(), changes);
        let spared = self.patches.spare_copies(changes);
        let changes = spared.as_deref().unwrap_or(changes);
        if let Some(guest) = by.and_then(|thread| thread.as_any().downcast_mut::<Guest>())
            && let Some(result) = self.apply_by(guest, changes)
        {
            return result;
        }
        self.process.apply(changes)
    }

    fn fork(&self, _by: Option<&mut dyn Thread>) -> Result<Arc<dyn AddressSpace>> {
        carrier::settle(self);
        let process = self.process.fork()?;
        Ok(Arc::new(Self::new(self.host.clone(), process, self.patches.copy())?))
    }

    fn patch(&self, _by: &mut dyn Thread, ip: u64, place: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        self.patches.patch(&self.process, ip, self.is_shared(), place)
    }

    fn stop_patching(&self) {
        self.patches.stop(&self.process, self.is_shared());
    }

    fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<usize> {
        let read = if carrier::read(self, segments) {
            segments.iter().map(|(_, buf)| buf.len()).sum()
        } else {
            self.process.read_batch(segments)?
        };
        for (addr, buf) in segments {
            self.patches.conceal(*addr, buf);
        }
        Ok(read)
    }

    fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<usize> {
        carrier::settle(self);
        self.process.write_batch(segments)
    }

    fn read_carried(&self, addr: u64, buf: &mut [u8]) -> usize {
        let read = carrier::read_some(self, addr, buf);
        if let Some(buf) = buf.get_mut(..read) {
            self.patches.conceal(addr, buf);
        }
        read
    }

    fn write_later(&self, addr: u64, buf: &[u8]) -> bool {
        carrier::write_later(self, addr, buf)
    }

    fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        carrier::settle(self);
        self.patches.restore(&self.process, self.is_shared(), addr, buf.len() as u64);
        self.process.poke(addr, buf)
    }

    fn compare_exchange(
        &self,
        _by: Option<&mut dyn Thread>,
        addr: u64,
        expected: u32,
        new: u32,
    ) -> Result<u32> {
        carrier::settle(self);
        self.process.compare_exchange(addr, expected, new)
    }

    fn resident(&self, addr: u64, pages: &mut [u8]) -> Result<()> {
        self.process.resident(addr, pages)
    }

    fn on_death(&self, watch: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        Box::new(self.process.state().on_death(watch))
    }

    fn kill(&self) {
        self.process.kill();
    }
}
