//! The process or thread that a directory is about.

use std::sync::{Arc, Weak};

use abi::{Errno, Result};

use super::Instance;
use crate::Kernel;
use crate::fs::synthetic::{Access, Context};
use crate::task::{Task, ThreadGroup};

/// A process or thread. Holds neither: what is gone by the time that somebody looks is ENOENT or ESRCH.
#[derive(Clone)]
pub(super) struct Subject {
    pub instance: Arc<Instance>,
    group: Weak<ThreadGroup>,
    /// A thread other than the leader.
    task: Option<Weak<Task>>,
    /// A directory below `task/`, which shows what is the thread's alone.
    pub thread: bool,
}

/// A [`Subject`] that is there.
pub(super) struct Found {
    pub group: Arc<ThreadGroup>,
    /// `None` for a leader that has ended, and waits for other threads or its parent.
    pub task: Option<Arc<Task>>,
}

impl Subject {
    /// A process, by its leader.
    pub fn process(instance: &Arc<Instance>, group: &Arc<ThreadGroup>, thread: bool) -> Subject {
        Subject { instance: instance.clone(), group: Arc::downgrade(group), task: None, thread }
    }

    /// A thread.
    pub fn task(instance: &Arc<Instance>, task: &Arc<Task>, thread: bool) -> Subject {
        let is_leader = Arc::ptr_eq(&task.pid(), &task.group.pid);
        Subject {
            instance: instance.clone(),
            group: Arc::downgrade(&task.group),
            task: (!is_leader).then(|| Arc::downgrade(task)),
            thread,
        }
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.instance.kernel
    }

    /// ESRCH if it is gone.
    pub fn find(&self) -> Result<Found> {
        let group = self.group.upgrade().ok_or(Errno::ESRCH)?;
        if group.family.lock().reaped {
            return Err(Errno::ESRCH);
        }
        let task = match &self.task {
            None => group.tasks.lock().iter().find(|t| Arc::ptr_eq(&t.pid(), &group.pid)).cloned(),
            Some(task) => {
                let task = task.upgrade().ok_or(Errno::ESRCH)?;
                if !group.tasks.lock().iter().any(|t| Arc::ptr_eq(t, &task)) {
                    return Err(Errno::ESRCH);
                }
                Some(task)
            }
        };
        Ok(Found { group, task })
    }

    /// The thread itself. ESRCH if it has ended.
    pub fn living(&self) -> Result<Arc<Task>> {
        self.find()?.task.ok_or(Errno::ESRCH)
    }
}

impl Context for Subject {
    fn access(&self, mode: u32) -> Result<Access> {
        let found = self.find().map_err(|_| Errno::ENOENT)?;
        let Some(task) = found.task else { return Ok(Access { mode, uid: 0, gid: 0 }) };
        let creds = task.credentials();
        Ok(Access { mode, uid: creds.euid, gid: creds.egid })
    }

    fn lasts(&self) -> bool {
        false
    }
}
