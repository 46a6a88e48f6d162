//! Process numbers and pid namespaces (pid_namespaces(7), kernel/pid.c).
//!
//! A [`Pid`] is one number in its namespace and in every one above; it stands for a thread, and as long as somebody
//! uses it so for a process, a process group and a session. The number is free again when the last of them let go.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use parking_lot::{Mutex, RwLock};

use super::credentials::UserNamespace;
use super::group::{ProcessGroup, Session, ThreadGroup};
use super::task::Task;

/// The largest process number (`kernel.pid_max`).
pub const PID_MAX: u32 = 4_194_304;

#[derive(Default)]
struct Numbers {
    used: BTreeMap<u32, Weak<Pid>>,
    last: u32,
}

/// A pid namespace.
pub struct PidNamespace {
    /// Inode number in nsfs.
    pub ino: u64,
    /// The namespace above.
    pub parent: Option<Arc<PidNamespace>>,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    /// How deep it is; 0 for the initial one.
    pub level: u32,
    numbers: Mutex<Numbers>,
    init: RwLock<Weak<ThreadGroup>>,
    dying: AtomicBool,
}

impl PidNamespace {
    /// A namespace below `parent`. ENOSPC beyond 32 levels.
    pub fn new(parent: Option<Arc<PidNamespace>>, user_ns: Arc<UserNamespace>) -> Result<Arc<PidNamespace>> {
        let level = parent.as_ref().map_or(0, |p| p.level + 1);
        if level > 32 {
            return Err(Errno::ENOSPC);
        }
        Ok(Arc::new(PidNamespace {
            ino: super::next_namespace_ino(),
            parent,
            user_ns,
            level,
            numbers: Mutex::default(),
            init: RwLock::default(),
            dying: AtomicBool::new(false),
        }))
    }

    /// The process with number 1, which adopts orphans.
    pub fn init(&self) -> Option<Arc<ThreadGroup>> {
        self.init.read().upgrade()
    }

    pub(crate) fn set_init(&self, group: &Arc<ThreadGroup>) {
        *self.init.write() = Arc::downgrade(group);
    }

    /// Init is dead: nothing new can be made here.
    pub(super) fn set_dying(&self) {
        self.dying.store(true, Ordering::Release);
    }

    /// Finds a number.
    pub fn find(&self, number: u32) -> Option<Arc<Pid>> {
        self.numbers.lock().used.get(&number)?.upgrade()
    }

    /// All numbers in use, in order.
    pub fn pids(&self) -> Vec<(u32, Arc<Pid>)> {
        let numbers = self.numbers.lock();
        numbers.used.iter().filter_map(|(&n, weak)| Some((n, weak.upgrade()?))).collect()
    }

    /// The first number in use from `from` on.
    pub fn next(&self, from: u32) -> Option<(u32, Arc<Pid>)> {
        let numbers = self.numbers.lock();
        numbers.used.range(from..).find_map(|(&n, weak)| Some((n, weak.upgrade()?)))
    }

    /// The number handed out last (`/proc/loadavg`).
    pub fn last(&self) -> u32 {
        self.numbers.lock().last
    }

    /// Sets the number after which the search begins (`/proc/sys/kernel/ns_last_pid`).
    pub fn set_last(&self, last: u32) {
        self.numbers.lock().last = last.min(PID_MAX - 1);
    }

    fn reserve(&self, wanted: Option<u32>) -> Result<u32> {
        if self.dying.load(Ordering::Acquire) {
            return Err(Errno::ENOMEM);
        }
        let mut numbers = self.numbers.lock();
        if let Some(n) = wanted {
            if n == 0 || n >= PID_MAX {
                return Err(Errno::EINVAL);
            }
            if numbers.used.contains_key(&n) {
                return Err(Errno::EEXIST);
            }
            numbers.used.insert(n, Weak::new());
            return Ok(n);
        }
        // After the first turn low numbers are left alone (RESERVED_PIDS).
        let mut n = numbers.last + 1;
        for _ in 0..2 {
            while n < PID_MAX {
                if let Entry::Vacant(free) = numbers.used.entry(n) {
                    free.insert(Weak::new());
                    numbers.last = n;
                    return Ok(n);
                }
                n += 1;
            }
            n = 300;
        }
        Err(Errno::EAGAIN)
    }

    fn release(&self, number: u32) {
        self.numbers.lock().used.remove(&number);
    }
}

/// What a process number stands for.
#[derive(Default)]
struct Uses {
    task: Weak<Task>,
    group: Weak<ThreadGroup>,
    process_group: Weak<ProcessGroup>,
    session: Weak<Session>,
}

/// A process number, in its namespace and all above.
pub struct Pid {
    /// From the innermost namespace outwards.
    numbers: Vec<(Arc<PidNamespace>, u32)>,
    uses: RwLock<Uses>,
    /// Woken when the process ends: pidfd_open(2).
    pub exited: crate::wait::WaitQueue,
}

impl Pid {
    /// A new number in `ns`, or the numbers `wanted` (clone3's set_tid: innermost first). EAGAIN when there is none.
    pub fn allocate(ns: &Arc<PidNamespace>, wanted: &[u32]) -> Result<Arc<Pid>> {
        let mut numbers: Vec<(Arc<PidNamespace>, u32)> = Vec::new();
        let mut at = Some(ns.clone());
        while let Some(ns) = at {
            match ns.reserve(wanted.get(numbers.len()).copied()) {
                Ok(n) => numbers.push((ns.clone(), n)),
                Err(e) => {
                    for (ns, n) in numbers {
                        ns.release(n);
                    }
                    return Err(e);
                }
            }
            at = ns.parent.clone();
        }
        let pid = Arc::new(Pid { numbers, uses: RwLock::default(), exited: crate::wait::WaitQueue::new() });
        for (ns, n) in &pid.numbers {
            ns.numbers.lock().used.insert(*n, Arc::downgrade(&pid));
        }
        Ok(pid)
    }

    /// The number as seen in `ns`; 0 if it is not visible there.
    pub fn number_in(&self, ns: &Arc<PidNamespace>) -> u32 {
        self.numbers.iter().find(|(n, _)| Arc::ptr_eq(n, ns)).map_or(0, |(_, number)| *number)
    }

    /// The number in the innermost namespace.
    pub fn number(&self) -> u32 {
        self.numbers[0].1
    }

    /// The numbers, from the innermost namespace outwards.
    pub fn numbers(&self) -> impl Iterator<Item = (&Arc<PidNamespace>, u32)> {
        self.numbers.iter().map(|(ns, n)| (ns, *n))
    }

    /// The innermost namespace.
    pub fn namespace(&self) -> &Arc<PidNamespace> {
        &self.numbers[0].0
    }

    /// The thread with this number.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.uses.read().task.upgrade()
    }

    /// The process with this number.
    pub fn group(&self) -> Option<Arc<ThreadGroup>> {
        self.uses.read().group.upgrade()
    }

    /// The process group with this number.
    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.uses.read().process_group.upgrade()
    }

    /// The session with this number.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.uses.read().session.upgrade()
    }

    pub(super) fn set_task(&self, task: Weak<Task>) {
        self.uses.write().task = task;
    }

    pub(super) fn set_group(&self, group: Weak<ThreadGroup>) {
        self.uses.write().group = group;
    }

    pub(super) fn set_process_group(&self, group: &Arc<ProcessGroup>) {
        self.uses.write().process_group = Arc::downgrade(group);
    }

    pub(super) fn set_session(&self, session: &Arc<Session>) {
        self.uses.write().session = Arc::downgrade(session);
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        for (ns, n) in &self.numbers {
            if *n == 1 && ns.parent.is_some() && ns.init().is_none() {
                // The first fork in the namespace failed: it will have no init, and so no processes (free_pid()).
                ns.set_dying();
            }
            ns.release(*n);
        }
    }
}
