//! eventfd(2) (fs/eventfd.c).

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::Kernel;
use crate::vfs::{File, FileOps, Io, Sink, Source};
use crate::wait::WaitQueue;

/// A counter.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

/// Makes an eventfd.
pub fn open(kernel: &Arc<Kernel>, count: u32, semaphore: bool, flags: OpenFlags) -> Arc<File> {
    let ops = EventFd { count: Mutex::new(count.into()), semaphore, queue: WaitQueue::new() };
    kernel.anonymous.file(Arc::new(ops), flags | OpenFlags::O_RDWR)
}

impl EventFd {
    /// Adds to the counter as the kernel does (eventfd_signal): it stops at its maximum.
    pub fn signal(&self, add: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(add).min(u64::MAX - 1);
        drop(count);
        self.queue.notify(PollEvents::POLLIN);
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let value = if self.semaphore { 1 } else { *count };
        *count -= value;
        drop(count);
        self.queue.notify(PollEvents::POLLOUT);
        dst.put(&value.to_ne_bytes())
    }

    fn write(&self, _io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if src.take(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        let Some(new) = count.checked_add(value).filter(|&n| n < u64::MAX) else {
            drop(count);
            src.untake(8);
            return Err(Errno::EAGAIN);
        };
        *count = new;
        drop(count);
        self.queue.notify(PollEvents::POLLIN);
        Ok(8)
    }

    fn writes_all(&self) -> bool {
        false
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::POLLIN;
        }
        if count == u64::MAX {
            events |= PollEvents::POLLERR;
        }
        if count < u64::MAX - 1 {
            events |= PollEvents::POLLOUT;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        format!(
            "eventfd-count: {:16x}\neventfd-semaphore: {}\n",
            *self.count.lock(),
            i32::from(self.semaphore)
        )
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[eventfd]".to_string()
    }
}
