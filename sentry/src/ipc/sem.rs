//! Semaphore sets (semget(2), ipc/sem.c).

use std::collections::HashMap;
use std::sync::Arc;

use abi::ipc::{IPC_NOWAIT, SEM_UNDO, SEMVMX, Sembuf, SemidDs};
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::ids::{Object, Permission};
use crate::task::{CurrentTask, Pid, UserNamespace};
use crate::wait::WaitQueue;

#[derive(Clone, Default)]
struct Semaphore {
    value: u16,
    last: Option<Arc<Pid>>,
    waiting_for_more: u32,
    waiting_for_zero: u32,
}

struct State {
    permission: Permission,
    semaphores: Vec<Semaphore>,
    operated_at: i64,
    changed_at: i64,
    removed: bool,
    /// What is to be added back when a process ends, by process (the address of its number).
    undo: HashMap<usize, Vec<i16>>,
}

/// A set.
pub struct Set {
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Object for Set {
    fn permission(&self) -> Permission {
        self.state.lock().permission
    }
}

enum Attempt {
    Done,
    Blocked { semaphore: usize, zero: bool, nowait: bool },
}

impl Set {
    /// A set of `count` semaphores, all 0.
    pub fn new(permission: Permission, count: usize) -> Arc<Set> {
        let state = State {
            permission,
            semaphores: vec![Semaphore::default(); count],
            operated_at: 0,
            changed_at: crate::time::now().tv_sec,
            removed: false,
            undo: HashMap::new(),
        };
        Arc::new(Set { state: Mutex::new(state), queue: WaitQueue::new() })
    }

    /// How many semaphores there are.
    pub fn len(&self) -> usize {
        self.state.lock().semaphores.len()
    }

    /// A set has at least one semaphore.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn attempt(&self, task: &CurrentTask, operations: &[Sembuf]) -> Result<Attempt> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let mut values: Vec<u16> = state.semaphores.iter().map(|s| s.value).collect();
        for op in operations {
            let index = usize::from(op.sem_num);
            let value = values.get_mut(index).ok_or(Errno::EFBIG)?;
            let nowait = op.sem_flg as u32 & IPC_NOWAIT != 0;
            let new = i32::from(*value) + i32::from(op.sem_op);
            if op.sem_op == 0 && *value != 0 {
                return Ok(Attempt::Blocked { semaphore: index, zero: true, nowait });
            }
            if new < 0 {
                return Ok(Attempt::Blocked { semaphore: index, zero: false, nowait });
            }
            if new > SEMVMX as i32 {
                return Err(Errno::ERANGE);
            }
            *value = new as u16;
        }
        let count = values.len();
        let pid = task.group.pid.clone();
        for op in operations {
            let index = usize::from(op.sem_num);
            if op.sem_flg & SEM_UNDO != 0 && op.sem_op != 0 {
                let undo = state.undo.entry(Arc::as_ptr(&pid) as usize).or_insert_with(|| vec![0; count]);
                undo[index] = undo[index].saturating_sub(op.sem_op);
            }
            state.semaphores[index].last = Some(pid.clone());
        }
        let changed = state.semaphores.iter().zip(&values).any(|(s, v)| s.value != *v);
        for (semaphore, value) in state.semaphores.iter_mut().zip(values) {
            semaphore.value = value;
        }
        state.operated_at = crate::time::now().tv_sec;
        drop(state);
        if changed {
            self.queue.notify(PollEvents::POLLIN);
        }
        Ok(Attempt::Done)
    }

    fn count_waiter(&self, semaphore: usize, zero: bool, change: i32) {
        let mut state = self.state.lock();
        if let Some(s) = state.semaphores.get_mut(semaphore) {
            let count = if zero { &mut s.waiting_for_zero } else { &mut s.waiting_for_more };
            *count = count.saturating_add_signed(change);
        }
    }

    /// semtimedop(2): all operations at once, or a wait until they can be. EAGAIN, EFBIG, ERANGE, EIDRM, EINTR.
    pub fn operate(&self, task: &CurrentTask, operations: &[Sembuf], deadline: Option<u64>) -> Result<()> {
        let (semaphore, zero) = match self.attempt(task, operations)? {
            Attempt::Done => return Ok(()),
            Attempt::Blocked { nowait: true, .. } => return Err(Errno::EAGAIN),
            Attempt::Blocked { semaphore, zero, .. } => (semaphore, zero),
        };
        self.count_waiter(semaphore, zero, 1);
        let result = task.wait_until(&[(&self.queue, PollEvents::POLLIN)], deadline, || {
            match self.attempt(task, operations) {
                Ok(Attempt::Done) => Some(Ok(())),
                Ok(Attempt::Blocked { nowait: true, .. }) => Some(Err(Errno::EAGAIN)),
                Ok(Attempt::Blocked { .. }) => None,
                Err(e) => Some(Err(e)),
            }
        });
        self.count_waiter(semaphore, zero, -1);
        match result {
            Ok(result) => result,
            Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
            // Never restarted (signal(7)).
            Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
            Err(e) => Err(e),
        }
    }

    /// SETVAL and SETALL from index `first` on. ERANGE.
    pub fn set_values(&self, task: &CurrentTask, first: usize, values: &[u16]) -> Result<()> {
        if values.iter().any(|&v| u32::from(v) > SEMVMX) {
            return Err(Errno::ERANGE);
        }
        let mut state = self.state.lock();
        for (i, &value) in values.iter().enumerate() {
            let semaphore = state.semaphores.get_mut(first + i).ok_or(Errno::EINVAL)?;
            semaphore.value = value;
            semaphore.last = Some(task.group.pid.clone());
            for undo in state.undo.values_mut() {
                undo[first + i] = 0;
            }
        }
        state.changed_at = crate::time::now().tv_sec;
        drop(state);
        self.queue.notify(PollEvents::POLLIN);
        Ok(())
    }

    /// GETALL.
    pub fn values(&self) -> Vec<u16> {
        self.state.lock().semaphores.iter().map(|s| s.value).collect()
    }

    /// GETVAL, GETPID, GETNCNT and GETZCNT of one semaphore, in this order. EINVAL.
    pub fn semaphore(&self, index: usize, task: &CurrentTask) -> Result<[u32; 4]> {
        let state = self.state.lock();
        let s = state.semaphores.get(index).ok_or(Errno::EINVAL)?;
        let pid = s.last.as_ref().map_or(0, |p| p.number_in(&task.pid_ns()));
        Ok([s.value.into(), pid, s.waiting_for_more, s.waiting_for_zero])
    }

    /// IPC_STAT.
    pub fn status(&self, user_ns: &UserNamespace) -> SemidDs {
        let state = self.state.lock();
        SemidDs {
            sem_perm: state.permission.show(user_ns),
            sem_otime: state.operated_at,
            sem_ctime: state.changed_at,
            sem_nsems: state.semaphores.len() as u64,
            ..SemidDs::default()
        }
    }

    /// IPC_SET.
    pub fn set(&self, new: &SemidDs, user_ns: &UserNamespace) -> Result<()> {
        let mut state = self.state.lock();
        state.permission.set(&new.sem_perm, user_ns)?;
        state.changed_at = crate::time::now().tv_sec;
        Ok(())
    }

    /// IPC_RMID: those who wait get EIDRM.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.queue.notify(PollEvents::all());
    }

    /// Whether something is to be undone when the process ends.
    pub fn has_undo(&self, pid: &Arc<Pid>) -> bool {
        self.state.lock().undo.contains_key(&(Arc::as_ptr(pid) as usize))
    }

    /// A process ended: what its SEM_UNDO operations did is undone.
    pub fn process_ended(&self, pid: &Arc<Pid>) {
        let mut state = self.state.lock();
        let Some(undo) = state.undo.remove(&(Arc::as_ptr(pid) as usize)) else { return };
        for (semaphore, change) in state.semaphores.iter_mut().zip(undo) {
            let value = i32::from(semaphore.value) + i32::from(change);
            semaphore.value = value.clamp(0, SEMVMX as i32) as u16;
        }
        drop(state);
        self.queue.notify(PollEvents::POLLIN);
    }
}
