//! signalfd(2) (fs/signalfd.c).

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::{SigInfo, SignalSet, SignalfdSiginfo};
use abi::{Errno, Result};
use parking_lot::Mutex;
use zerocopy::IntoBytes;

use crate::task::{CurrentTask, Task, ThreadGroup};
use crate::vfs::{File, FileOps, Io, Sink};
use crate::wait::WaitQueue;

/// A file from which the reader's pending signals are read.
pub struct SignalFd {
    mask: Mutex<SignalSet>,
    /// The process that made it, whose events wake those who wait. Who reads gets his own signals.
    maker: Arc<ThreadGroup>,
}

/// Makes a signalfd.
pub fn open(task: &CurrentTask, mask: SignalSet, flags: OpenFlags) -> Arc<File> {
    let mask = Mutex::new(mask.difference(SignalSet::UNBLOCKABLE));
    let ops = SignalFd { mask, maker: task.group.clone() };
    task.kernel().anonymous.file(Arc::new(ops), flags | OpenFlags::O_RDWR)
}

impl SignalFd {
    /// Replaces the signals it is for.
    pub fn set_mask(&self, mask: SignalSet) {
        *self.mask.lock() = mask.difference(SignalSet::UNBLOCKABLE);
        self.maker.signal_events.notify(PollEvents::POLLIN);
    }
}

fn describe(info: &SigInfo) -> SignalfdSiginfo {
    SignalfdSiginfo {
        ssi_signo: info.si_signo as u32,
        ssi_errno: info.si_errno,
        ssi_code: info.si_code,
        ssi_pid: info.pid() as u32,
        ssi_uid: info.uid(),
        ssi_int: info.value() as i32,
        ssi_ptr: info.value(),
        ssi_status: info.status(),
        ..SignalfdSiginfo::default()
    }
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        const SIZE: usize = size_of::<SignalfdSiginfo>();
        if dst.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        let task: &Task = io.task.ok_or(Errno::EINVAL)?;
        let mut done = 0;
        while dst.remaining() >= SIZE {
            let mask = *self.mask.lock();
            let Some(info) = task.take_signal(mask) else { break };
            done += dst.put(describe(&info).as_bytes())?;
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self, io: &Io<'_>) -> PollEvents {
        let mask = *self.mask.lock();
        let pending = match io.task {
            Some(task) => task.pending(),
            None => {
                let shared = self.maker.signals.lock().pending.set();
                self.maker.threads().iter().fold(shared, |set, t| set.union(t.signals.lock().pending.set()))
            }
        };
        if pending.intersection(mask).is_empty() { PollEvents::empty() } else { PollEvents::POLLIN }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.maker.signal_events)
    }

    fn fdinfo(&self) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[signalfd]".to_string()
    }
}
