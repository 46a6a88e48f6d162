//! Files that send signals: O_ASYNC (fs/fcntl.c) and directory notification (fs/notify/dnotify).
//!
//! Both tell the [`Owner`] of an open file. They are called by whoever makes the event, under the locks of a wait queue:
//! from there signals may be sent, since nothing notifies the queue of a file that can do this while it holds the locks
//! of signals.

use std::sync::{Arc, Weak};

use abi::fcntl::{
    DN_ACCESS, DN_ATTRIB, DN_CREATE, DN_DELETE, DN_MODIFY, DN_MULTISHOT, DN_RENAME, F_OWNER_PGRP, F_OWNER_PID,
};
use abi::inotify::InotifyMask as Mask;
use abi::poll::PollEvents as P;
use abi::siginfo::SigInfo;
use abi::signal::{POLL_ERR, POLL_HUP, POLL_IN, POLL_MSG, POLL_OUT, POLL_PRI, Signal};
use parking_lot::Mutex;

use super::Dentry;
use super::fd_table::Fd;
use super::notify::{Listener, Watch, WatchTable};
use crate::task::{Pid, Task};
use crate::wait::Wake;

/// Who is told of input on a file with O_ASYNC (F_SETOWN).
#[derive(Clone, Default)]
pub struct Owner {
    /// The thread, process or process group, if any.
    pub pid: Option<Arc<Pid>>,
    /// `F_OWNER_TID`, `F_OWNER_PID` or `F_OWNER_PGRP`.
    pub kind: i32,
    /// F_SETSIG; 0 is SIGIO.
    pub signal: i32,
    /// Real and effective user of who set it.
    users: (u32, u32),
}

impl Owner {
    /// F_SETOWN by `task`.
    pub fn set(&mut self, task: &Task, pid: Option<Arc<Pid>>, kind: i32) {
        let creds = task.credentials();
        self.users = (creds.uid, creds.euid);
        self.pid = pid;
        self.kind = kind;
    }

    /// sigio_perm().
    fn may_signal(&self, target: &Task) -> bool {
        let theirs = target.credentials();
        let (uid, euid) = self.users;
        euid == 0 || [uid, euid].iter().any(|id| *id == theirs.suid || *id == theirs.uid)
    }

    /// send_sigio(): `code` is one of `POLL_*`.
    fn send(&self, fd: Fd, code: i32) {
        let Some(pid) = &self.pid else { return };
        let info = match Signal::from_i32(self.signal) {
            Some(signal) => SigInfo::poll(signal, code, band(code).bits().into(), fd),
            None => SigInfo::kernel(Signal::SIGIO),
        };
        let processes = match self.kind as u32 {
            F_OWNER_PGRP => pid.process_group().map(|group| group.members()).unwrap_or_default(),
            F_OWNER_PID => pid.group().into_iter().collect(),
            _ => {
                if let Some(task) = pid.task()
                    && self.may_signal(&task)
                    && task.send_signal(info).is_err()
                {
                    let _ = task.send_signal(SigInfo::kernel(Signal::SIGIO));
                }
                return;
            }
        };
        for process in processes {
            // A queue that is full loses the details, not the signal.
            if process.any_task().is_some_and(|task| self.may_signal(&task))
                && process.send_signal(info).is_err()
            {
                process.send_kernel_signal(Signal::SIGIO);
            }
        }
    }
}

/// `si_band` of a `POLL_*`.
fn band(code: i32) -> P {
    match code {
        POLL_IN => P::POLLIN | P::POLLRDNORM,
        POLL_OUT => P::POLLOUT | P::POLLWRNORM | P::POLLWRBAND,
        POLL_MSG => P::POLLIN | P::POLLRDNORM | P::POLLMSG,
        POLL_PRI => P::POLLPRI | P::POLLRDBAND,
        POLL_HUP => P::POLLHUP | P::POLLERR,
        _ => P::POLLERR,
    }
}

/// In the wait queue of a file with O_ASYNC.
pub(super) struct Fasync {
    pub owner: Arc<Mutex<Owner>>,
    /// The descriptor by which O_ASYNC was set.
    pub fd: Fd,
}

impl Wake for Fasync {
    fn wake(&self, events: P) {
        let by_event = [
            (P::POLLHUP, POLL_HUP),
            (P::POLLERR, POLL_ERR),
            (P::POLLPRI, POLL_PRI),
            (P::POLLIN, POLL_IN),
            (P::POLLOUT, POLL_OUT),
        ];
        let code = by_event.iter().find(|(event, _)| events.intersects(*event)).map_or(POLL_IN, |e| e.1);
        let owner = self.owner.lock().clone();
        owner.send(self.fd, code);
    }
}

/// F_NOTIFY on an open directory: goes with the open file.
pub(super) struct DirectoryNotification {
    _listener: Arc<Teller>,
    watch: Arc<Watch>,
    /// `DN_*`.
    events: u32,
}

struct Teller {
    owner: Arc<Mutex<Owner>>,
    fd: Fd,
}

impl Listener for Teller {
    fn event(&self, _wd: i32, _mask: Mask, _cookie: u32, _name: &[u8]) {
        let owner = self.owner.lock().clone();
        owner.send(self.fd, POLL_MSG);
    }

    fn ignored(&self, _wd: i32) {}
}

impl DirectoryNotification {
    /// Watches for `events` beside those of `old`.
    pub fn new(
        dentry: &Dentry,
        owner: Arc<Mutex<Owner>>,
        fd: Fd,
        events: u32,
        old: Option<DirectoryNotification>,
    ) -> DirectoryNotification {
        let events = events | old.as_ref().map_or(0, |old| old.events);
        drop(old);
        let mut mask = Mask::empty();
        for (bit, wanted) in [
            (DN_ACCESS, Mask::IN_ACCESS),
            (DN_MODIFY, Mask::IN_MODIFY),
            (DN_ATTRIB, Mask::IN_ATTRIB),
            (DN_CREATE, Mask::IN_CREATE | Mask::IN_MOVED_TO),
            (DN_DELETE, Mask::IN_DELETE | Mask::IN_MOVED_FROM),
            (DN_RENAME, Mask::IN_MOVED_FROM),
        ] {
            if events & bit != 0 {
                mask |= wanted;
            }
        }
        if events & DN_MULTISHOT == 0 {
            mask |= Mask::IN_ONESHOT;
        }
        let listener = Arc::new(Teller { owner, fd });
        let weak = Arc::downgrade(&listener);
        let weak: Weak<dyn Listener> = weak;
        let watch = WatchTable::add(dentry, 0, mask, weak);
        DirectoryNotification { _listener: listener, watch, events }
    }
}

impl Drop for DirectoryNotification {
    fn drop(&mut self) {
        self.watch.remove();
    }
}
