//! epoll(7) (fs/eventpoll.c).
//!
//! Each watched file has a registration on its wait queue that puts the item on the ready list. epoll_wait then asks
//! each ready item's file what it really is, as Linux does; level-triggered items that are ready go to the end of the
//! list again.
//!
//! Lock order: [`NESTING`] → an instance's items → its ready list; the ready list is a leaf that wait queues may take.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::poll::{EpollEvent, EpollFlags, PollEvents};
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::Kernel;
use crate::parameters;
use crate::task::Task;
use crate::task::user_counts::Charge;
use crate::vfs::{Fd, File, FileOps, Io};
use crate::wait::{Registration, WaitQueue, Wake};

/// How deep instances may watch each other (EP_MAX_NESTS).
const NESTING_MAX: usize = 4;

/// Held while an instance is added to another, so that no cycle comes about.
static NESTING: Mutex<()> = Mutex::new(());

struct Item {
    file: Weak<File>,
    /// Identity of the open file, and the number by which it was added.
    key: (u64, Fd),
    state: Mutex<Interest>,
    /// The events of `state`, for those who wake: they hold locks under which no other may be taken.
    wanted: AtomicU32,
    ready: AtomicBool,
    /// What is told of events. Not the instance: a wake must not be what drops its last handle, for that takes the item
    /// out of the queue which is just waking it.
    announced: Arc<Readiness>,
}

#[derive(Clone, Copy)]
struct Interest {
    events: PollEvents,
    flags: EpollFlags,
    data: u64,
    /// Reported with EPOLLONESHOT: silent until modified.
    disabled: bool,
}

impl Wake for Item {
    fn wake(&self, events: PollEvents) {
        let wanted = PollEvents::from_bits_retain(self.wanted.load(Ordering::Acquire)) | PollEvents::ALWAYS;
        if !events.intersects(wanted) {
            return;
        }
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.announced.list.lock().push_back(self.key);
        }
        // An edge-triggered item reports each event anew, also if it is on the list already.
        self.announced.queue.notify(PollEvents::POLLIN);
    }

    fn wake_exclusively(&self, events: PollEvents) -> bool {
        // One that nobody waits on keeps the event for later, and leaves the wake to the next (ep_poll_callback()).
        let waited_for = !self.announced.queue.is_empty();
        self.wake(events);
        waited_for && events.bits() & self.wanted.load(Ordering::Acquire) != 0
    }
}

struct Watched {
    item: Arc<Item>,
    _registration: Registration,
    _charge: Charge,
}

/// The items that may be ready, and who waits for them.
#[derive(Default)]
struct Readiness {
    list: Mutex<VecDeque<(u64, Fd)>>,
    queue: WaitQueue,
}

#[derive(Default)]
struct Inner {
    items: Mutex<BTreeMap<(u64, Fd), Watched>>,
    ready: Arc<Readiness>,
    /// The instances that watch this one.
    watchers: Mutex<Vec<Weak<Inner>>>,
}

/// An epoll instance.
pub struct Epoll {
    inner: Arc<Inner>,
    kernel: Arc<Kernel>,
    /// Whose it is: they pay for what it watches.
    uid: u32,
}

/// Makes an instance for `task`.
pub fn open(task: &Task) -> Arc<File> {
    let kernel = task.kernel().clone();
    let anonymous = kernel.clone();
    let epoll = Epoll { inner: Arc::default(), kernel, uid: task.credentials().uid };
    anonymous.anonymous.file(Arc::new(epoll), OpenFlags::O_RDWR)
}

impl Inner {
    /// Queues an item whose file is ready, or may be.
    fn check(&self, item: &Item, file: &File) {
        let interest = *item.state.lock();
        if interest.disabled {
            return;
        }
        let wanted = interest.events | PollEvents::ALWAYS;
        if file.operations().poll(&Io::default()).intersects(wanted)
            && !item.ready.swap(true, Ordering::AcqRel)
        {
            self.ready.list.lock().push_back(item.key);
            self.ready.queue.notify(PollEvents::POLLIN);
        }
    }

    /// How many levels of instances watch this one.
    fn height(&self) -> usize {
        let watchers: Vec<Arc<Inner>> = self.watchers.lock().iter().filter_map(Weak::upgrade).collect();
        watchers.iter().map(|w| 1 + w.height()).max().unwrap_or(0)
    }

    /// Drops items whose files were closed.
    fn remove(&self, key: (u64, Fd)) {
        let removed = self.items.lock().remove(&key);
        drop(removed);
    }
}

/// What an item is to be told of.
fn interest(event: &EpollEvent) -> Interest {
    let bits = event.events;
    Interest {
        events: PollEvents::from_bits_truncate(bits),
        flags: EpollFlags::from_bits_truncate(bits),
        data: event.data,
        disabled: false,
    }
}

impl Epoll {
    /// How deep the instances below this one go. ELOOP if `seek` is among them, or too deep.
    fn depth(&self, seek: &Arc<Inner>, level: usize) -> Result<usize> {
        if Arc::ptr_eq(&self.inner, seek) || level > NESTING_MAX {
            return Err(Errno::ELOOP);
        }
        let files: Vec<Arc<File>> =
            self.inner.items.lock().values().filter_map(|w| w.item.file.upgrade()).collect();
        let mut deepest = 0;
        for file in files {
            if let Some(inner) = file.ops::<Epoll>() {
                deepest = deepest.max(1 + inner.depth(seek, level + 1)?);
            }
        }
        Ok(deepest)
    }

    /// EPOLL_CTL_ADD. EEXIST, EPERM for files that are always ready, ELOOP, EINVAL for EPOLLEXCLUSIVE on an instance,
    /// ENOSPC beyond `fs.epoll.max_user_watches`.
    pub fn add(&self, fd: Fd, file: &Arc<File>, event: &EpollEvent) -> Result<()> {
        let queue = file.operations().wait_queue().ok_or(Errno::EPERM)?;
        let new = interest(event);
        let nested = file.ops::<Epoll>();
        if new.flags.contains(EpollFlags::EPOLLEXCLUSIVE) {
            let known = PollEvents::POLLIN | PollEvents::POLLOUT | PollEvents::ALWAYS;
            let others = EpollFlags::EPOLLET | EpollFlags::EPOLLWAKEUP | EpollFlags::EPOLLEXCLUSIVE;
            if nested.is_some() || !(new.events - known).is_empty() || !(new.flags - others).is_empty() {
                return Err(Errno::EINVAL);
            }
        }
        let _nesting = nested.map(|_| NESTING.lock());
        if let Some(nested) = nested
            && nested.depth(&self.inner, 1)? + 1 + self.inner.height() > NESTING_MAX
        {
            return Err(Errno::ELOOP);
        }
        let key = (file.id(), fd);
        let mut items = self.inner.items.lock();
        if items.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let max = parameters::EPOLL_WATCHES.get(&self.kernel.parameters);
        let charge = self.kernel.epoll_watches.charge(self.uid, max).ok_or(Errno::ENOSPC)?;
        let item = Arc::new(Item {
            file: Arc::downgrade(file),
            key,
            state: Mutex::new(new),
            wanted: AtomicU32::new(new.events.bits()),
            ready: AtomicBool::new(false),
            announced: self.inner.ready.clone(),
        });
        // Items of files that were closed without EPOLL_CTL_DEL go when the table has grown.
        let mut closed = Vec::new();
        if items.len() >= 16 && items.len().is_power_of_two() {
            let dead: Vec<_> =
                items.iter().filter(|(_, w)| w.item.file.strong_count() == 0).map(|(k, _)| *k).collect();
            closed.extend(dead.iter().filter_map(|key| items.remove(key)));
        }
        // Everything is listened to: a later EPOLL_CTL_MOD changes only what is reported.
        let registration = match new.flags.contains(EpollFlags::EPOLLEXCLUSIVE) {
            true => queue.register_exclusive(PollEvents::all(), item.clone()),
            false => queue.register(PollEvents::all(), item.clone()),
        };
        items.insert(key, Watched { item: item.clone(), _registration: registration, _charge: charge });
        drop(items);
        drop(closed);
        if let Some(nested) = nested {
            let mut watchers = nested.inner.watchers.lock();
            watchers.retain(|w| w.strong_count() > 0);
            watchers.push(Arc::downgrade(&self.inner));
        }
        self.inner.check(&item, file);
        Ok(())
    }

    /// EPOLL_CTL_MOD. ENOENT.
    pub fn modify(&self, fd: Fd, file: &Arc<File>, event: &EpollEvent) -> Result<()> {
        let new = interest(event);
        let item = match self.inner.items.lock().get(&(file.id(), fd)) {
            Some(watched) => watched.item.clone(),
            None => return Err(Errno::ENOENT),
        };
        let exclusive = item.state.lock().flags.contains(EpollFlags::EPOLLEXCLUSIVE);
        if exclusive || new.flags.contains(EpollFlags::EPOLLEXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        *item.state.lock() = new;
        item.wanted.store(new.events.bits(), Ordering::Release);
        self.inner.check(&item, file);
        Ok(())
    }

    /// EPOLL_CTL_DEL. ENOENT.
    pub fn delete(&self, fd: Fd, file: &Arc<File>) -> Result<()> {
        let removed = self.inner.items.lock().remove(&(file.id(), fd));
        if let Some(nested) = file.ops::<Epoll>() {
            nested.inner.watchers.lock().retain(|w| !std::ptr::eq(w.as_ptr(), Arc::as_ptr(&self.inner)));
        }
        removed.map(drop).ok_or(Errno::ENOENT)
    }

    /// Takes up to `max` events that are there now.
    pub fn take(&self, max: usize) -> Vec<EpollEvent> {
        let mut taken = Vec::new();
        let mut again = Vec::new();
        let mut rounds = self.inner.ready.list.lock().len();
        while taken.len() < max && rounds > 0 {
            rounds -= 1;
            let Some(key) = self.inner.ready.list.lock().pop_front() else { break };
            let item = match self.inner.items.lock().get(&key) {
                Some(watched) => watched.item.clone(),
                None => continue,
            };
            // Before the file is asked: what happens after the answer queues the item again.
            item.ready.store(false, Ordering::Release);
            let Some(file) = item.file.upgrade() else {
                self.inner.remove(key);
                continue;
            };
            let mut state = item.state.lock();
            if state.disabled {
                continue;
            }
            let ready = file.operations().poll(&Io::default()) & (state.events | PollEvents::ALWAYS);
            if ready.is_empty() {
                continue;
            }
            taken.push(EpollEvent { events: ready.bits(), data: state.data });
            if state.flags.contains(EpollFlags::EPOLLONESHOT) {
                state.disabled = true;
            } else if !state.flags.contains(EpollFlags::EPOLLET) {
                again.push(item.clone());
            }
        }
        for item in again {
            if !item.ready.swap(true, Ordering::AcqRel) {
                self.inner.ready.list.lock().push_back(item.key);
            }
        }
        taken
    }

    /// Where new events are announced.
    pub fn queue(&self) -> &WaitQueue {
        &self.inner.ready.queue
    }
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let keys: Vec<(u64, Fd)> = self.inner.ready.list.lock().iter().copied().collect();
        let any = keys.iter().any(|key| {
            let item = self.inner.items.lock().get(key).map(|w| w.item.clone());
            let Some(item) = item else { return false };
            let Some(file) = item.file.upgrade() else { return false };
            let interest = *item.state.lock();
            !interest.disabled
                && file.operations().poll(&Io::default()).intersects(interest.events | PollEvents::ALWAYS)
        });
        if any { PollEvents::POLLIN | PollEvents::POLLRDNORM } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.inner.ready.queue)
    }

    fn fdinfo(&self) -> String {
        let items = self.inner.items.lock();
        let lines = items.values().map(|w| {
            let state = *w.item.state.lock();
            let ino = w.item.file.upgrade().map_or(0, |f| f.path().inode().ino());
            format!(
                "tfd: {:8} events: {:8x} data: {:16x}  pos:0 ino:{ino:x} sdev:0\n",
                w.item.key.1,
                state.events.bits() | state.flags.bits(),
                state.data
            )
        });
        lines.collect()
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[eventpoll]".to_string()
    }
}
