//! A guest address space: a stub process, and the pages that its threads share with the sentry.

use crate::Host;
use crate::arch::frame::Page;
use crate::carrier;
use crate::pages::Pages;
use crate::patch::Patches;
use crate::stub_thread::StubThread;
use crate::thread::Guest;
use parking_lot::Mutex;
use platform::stub::{Slot, StubProcess, call_of_change, check};
use platform::{AddressSpace, Change, Context, Errno, Result, Thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// The platform's [`AddressSpace`].
pub struct Space {
    pub(crate) host: Arc<Host>,
    pub(crate) process: Arc<StubProcess>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) patches: Patches,
    /// The service thread and the guest threads.
    pub(crate) threads: Arc<AtomicU32>,
    /// There was never more than one guest thread.
    single: AtomicBool,
    is_used: AtomicBool,
    /// Threads that are employed and have not got their guest: most still have their listener open as well, and a stub process
    /// may only have so many descriptors.
    unstarted: AtomicU32,
    /// Stub threads that have no guest.
    resting: Mutex<Vec<StubThread>>,
}

/// Stub threads of an address space that rest at most. (The host's pids limit of a sandbox has room for them.)
const RESTING_MAX: usize = 4;

/// Threads without a guest that may have their listener open.
const UNSTARTED_MAX: u32 = 16;

/// A thread's slot and its pages.
pub(crate) struct Lease {
    pub(crate) page: Page,
    /// Given back when the thread is gone.
    pub(crate) slot: Option<Slot>,
}

impl Space {
    /// A copy of the process `parent`, with a thread in it that rests.
    pub(crate) fn new(host: Arc<Host>, parent: &StubProcess, patches: Patches) -> Result<Self> {
        let pages = Arc::new(Pages::new(&host.geometry, &host.spare)?);
        let (process, thread) = StubThread::fork(&host, parent, &pages)?;
        Ok(Self {
            host,
            process,
            pages,
            patches,
            threads: Arc::new(AtomicU32::new(1)),
            single: AtomicBool::new(true),
            is_used: AtomicBool::new(false),
            unstarted: AtomicU32::new(0),
            resting: Mutex::new(vec![thread]),
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
        let mut thread = match resting {
            Some(thread) => thread,
            None => StubThread::start(self)?,
        };
        let opened = self.unstarted.fetch_add(1, SeqCst);
        thread.arrive(&self.process, opened >= UNSTARTED_MAX).inspect_err(|_| self.started())?;
        Ok(thread)
    }

    /// A stub thread that was employed has got its guest.
    pub(crate) fn started(&self) {
        self.unstarted.fetch_sub(1, SeqCst);
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
        Ok(Arc::new(Self::new(self.host.clone(), &self.process, self.patches.copy())?))
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
