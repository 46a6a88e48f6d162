//! Guest memory that travels with a patched call in the thread's page, which saves calls of the host: what the call
//! reads came with it ([`crate::arch::patched`]), and what it writes may be left for the stub thread to copy.
//!
//! It is found by the host thread, not by the guest thread that the sentry passes around: whoever carries out a call
//! accesses the memory from many places. The page can be written by siblings; it holds nothing but their own memory's
//! bytes, which they could have changed anyway. Addresses and lengths of what is to be copied are kept here as well.

use crate::arch::frame::Page;
use crate::arch::request::PIECES_MAX;
use crate::space::Space;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    /// That of the guest thread that this host thread runs.
    static CURRENT: RefCell<Option<Rc<Carrier>>> = const { RefCell::new(None) };
}

/// One guest thread's memory on its way.
pub(crate) struct Carrier {
    space: Arc<Space>,
    page: Page,
    /// A patched call is being carried out.
    is_open: Cell<bool>,
    /// Address and length of what came with it.
    carried: Cell<(u64, usize)>,
    /// What is to be copied: address, length, offset.
    later: RefCell<Vec<(u64, usize, usize)>>,
    /// `later` went with the reply.
    is_sent: Cell<bool>,
    /// Some of it could not be copied.
    has_failed: Cell<bool>,
}

impl Carrier {
    /// For the guest thread that the calling host thread runs from now on.
    pub fn new(space: Arc<Space>, page: Page) -> Rc<Self> {
        let carrier = Rc::new(Self {
            space,
            page,
            is_open: Cell::new(false),
            carried: Cell::new((0, 0)),
            later: RefCell::new(Vec::with_capacity(PIECES_MAX)),
            is_sent: Cell::new(false),
            has_failed: Cell::new(false),
        });
        CURRENT.set(Some(carrier.clone()));
        carrier
    }

    /// The guest thread is gone.
    pub fn end(self: &Rc<Self>) {
        self.close();
        let _ = CURRENT.try_with(|current| {
            let mut current = current.borrow_mut();
            if current.as_ref().is_some_and(|other| Rc::ptr_eq(other, self)) {
                *current = None;
            }
        });
    }

    /// A patched call has come.
    pub fn open(&self) {
        self.later.borrow_mut().clear();
        self.is_sent.set(false);
        self.has_failed.set(false);
        self.carried.set(self.page.carried());
        self.is_open.set(true);
    }

    /// The call's reply comes next: says what is to be copied.
    pub fn send(&self) {
        self.is_open.set(false);
        self.page.set_pieces(&self.later.borrow());
        self.is_sent.set(true);
    }

    /// What the call has read may have changed since.
    pub fn forget(&self) {
        self.carried.set((0, 0));
    }

    /// Copies now what was left for the stub, if the call is still being carried out: after the reply it is the stub's
    /// matter, and the guest may have written there since.
    pub fn flush(&self) {
        if self.is_open.get() {
            self.copy();
        }
    }

    fn copy(&self) {
        self.forget();
        let mut later = self.later.borrow_mut();
        for (addr, len, offset) in later.drain(..) {
            let mut bytes = vec![0; len];
            if self.page.read_later(offset, &mut bytes) {
                // It was writable when it was taken.
                if self.space.process.write_batch(&[(addr, &bytes)]) != Ok(len) {
                    self.has_failed.set(true);
                }
            }
        }
    }

    /// The thread has left the call without the stub's part, or perhaps without.
    pub fn close(&self) {
        self.flush();
        self.is_open.set(false);
    }

    /// The thread was stopped after the reply, and may not have copied everything. False: that faults.
    pub fn finish(&self) -> bool {
        if self.is_sent.take() {
            self.copy();
        }
        !self.has_failed.take()
    }

    /// The call's result, which is EFAULT if what it has written could not be copied.
    pub fn result(&self, value: u64) -> u64 {
        if self.has_failed.take() && (value as i64) >= 0 { -libc::EFAULT as i64 as u64 } else { value }
    }

    /// Reads from what came with the call: whether all of it was there.
    fn read(&self, addr: u64, out: &mut [u8]) -> bool {
        let (start, len) = self.carried.get();
        let Some(offset) = addr.checked_sub(start).map(|offset| offset as usize) else { return false };
        let fits = offset.checked_add(out.len()).is_some_and(|end| end <= len);
        fits && self.page.read_carried(offset, out)
    }

    fn read_some(&self, addr: u64, out: &mut [u8]) -> usize {
        let (start, len) = self.carried.get();
        let rest = match addr.checked_sub(start) {
            Some(offset) => len.saturating_sub(usize::try_from(offset).unwrap_or(len)),
            None => 0,
        };
        let count = rest.min(out.len());
        let is_read = count > 0 && out.get_mut(..count).is_some_and(|out| self.read(addr, out));
        if is_read { count } else { 0 }
    }

    fn write_later(&self, addr: u64, bytes: &[u8]) -> bool {
        self.forget();
        let mut later = self.later.borrow_mut();
        let start = later.last().map_or(0, |(_, len, offset)| offset + len);
        let fits = later.len() < PIECES_MAX && self.page.write_later(start, bytes);
        if fits {
            later.push((addr, bytes.len(), start));
        }
        fits
    }
}

/// The carrier of the calling thread's call, if it is one in `space`.
fn with_open<R>(space: &Space, f: impl FnOnce(&Carrier) -> R) -> Option<R> {
    CURRENT
        .try_with(|current| match &*current.borrow() {
            Some(carrier) if carrier.is_open.get() && std::ptr::eq(&*carrier.space, space) => {
                Some(f(carrier))
            }
            _ => None,
        })
        .ok()
        .flatten()
}

/// Reads segments of memory that came with the call, or none.
pub(crate) fn read(space: &Space, segments: &mut [(u64, &mut [u8])]) -> bool {
    with_open(space, |carrier| {
        let all = segments.iter_mut().all(|(addr, out)| carrier.read(*addr, out));
        if !all && !carrier.later.borrow().is_empty() {
            // Perhaps it is what is to be written.
            carrier.flush();
        }
        all
    })
    .unwrap_or(false)
}

/// Reads the first bytes at `addr` that came with the call: how many.
pub(crate) fn read_some(space: &Space, addr: u64, out: &mut [u8]) -> usize {
    with_open(space, |carrier| carrier.read_some(addr, out)).unwrap_or(0)
}

/// Leaves bytes for the stub thread to copy before the guest goes on, if there is room.
pub(crate) fn write_later(space: &Space, addr: u64, bytes: &[u8]) -> bool {
    with_open(space, |carrier| carrier.write_later(addr, bytes)).unwrap_or(false)
}

/// Memory of `space` is about to be changed, or looked at from elsewhere.
pub(crate) fn settle(space: &Space) {
    with_open(space, Carrier::flush);
}
