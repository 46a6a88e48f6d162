//! Message queues (msgget(2), ipc/msg.c).

use std::collections::VecDeque;
use std::sync::Arc;

use abi::ipc::MsqidDs;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::ids::{Object, Permission};
use crate::task::{CurrentTask, Pid, PidNamespace, UserNamespace};
use crate::wait::WaitQueue;

struct Message {
    kind: i64,
    text: Vec<u8>,
}

struct State {
    permission: Permission,
    messages: VecDeque<Message>,
    bytes: u64,
    bytes_max: u64,
    sent_at: i64,
    received_at: i64,
    changed_at: i64,
    last_sender: Option<Arc<Pid>>,
    last_receiver: Option<Arc<Pid>>,
    removed: bool,
}

/// A queue.
pub struct Queue {
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Object for Queue {
    fn permission(&self) -> Permission {
        self.state.lock().permission
    }
}

/// Which message msgrcv(2) is to take.
#[derive(Clone, Copy, Debug)]
pub enum Select {
    /// The first.
    Any,
    /// The first of this type.
    Kind(i64),
    /// The first of another type (MSG_EXCEPT).
    Not(i64),
    /// The one with the lowest type of at most this.
    UpTo(i64),
    /// The one at this place, which is copied and stays (MSG_COPY).
    Copy(usize),
}

impl Queue {
    /// An empty queue for at most `bytes_max` bytes.
    pub fn new(permission: Permission, bytes_max: u64) -> Arc<Queue> {
        let state = State {
            permission,
            messages: VecDeque::new(),
            bytes: 0,
            bytes_max,
            sent_at: 0,
            received_at: 0,
            changed_at: crate::time::now().tv_sec,
            last_sender: None,
            last_receiver: None,
            removed: false,
        };
        Arc::new(Queue { state: Mutex::new(state), queue: WaitQueue::new() })
    }

    fn try_send(&self, task: &CurrentTask, kind: i64, text: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let fits = state.bytes + text.len() as u64 <= state.bytes_max;
        if !fits || state.messages.len() as u64 >= state.bytes_max {
            return Err(Errno::EAGAIN);
        }
        state.bytes += text.len() as u64;
        state.messages.push_back(Message { kind, text: text.to_vec() });
        state.sent_at = crate::time::now().tv_sec;
        state.last_sender = Some(task.group.pid.clone());
        drop(state);
        self.queue.notify(PollEvents::POLLIN);
        Ok(())
    }

    /// msgsnd(2). EAGAIN with `nowait`, EIDRM, EINTR.
    pub fn send(&self, task: &CurrentTask, kind: i64, text: &[u8], nowait: bool) -> Result<()> {
        wait(task, &self.queue, PollEvents::POLLOUT, nowait, Errno::EAGAIN, || {
            self.try_send(task, kind, text)
        })
    }

    fn try_receive(
        &self,
        task: &CurrentTask,
        which: Select,
        max: usize,
        cut: bool,
    ) -> Result<(i64, Vec<u8>)> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let mut all = state.messages.iter().enumerate();
        let at = match which {
            Select::Any => all.next(),
            Select::Kind(kind) => all.find(|(_, m)| m.kind == kind),
            Select::Not(kind) => all.find(|(_, m)| m.kind != kind),
            Select::UpTo(kind) => all.filter(|(_, m)| m.kind <= kind).min_by_key(|(i, m)| (m.kind, *i)),
            Select::Copy(index) => all.nth(index),
        };
        let (index, message) = at.ok_or(Errno::EAGAIN)?;
        if message.text.len() > max && !cut {
            return Err(Errno::E2BIG);
        }
        if let Select::Copy(_) = which {
            return Ok((message.kind, message.text[..message.text.len().min(max)].to_vec()));
        }
        let Some(mut message) = state.messages.remove(index) else { return Err(Errno::EAGAIN) };
        state.bytes = state.bytes.saturating_sub(message.text.len() as u64);
        state.received_at = crate::time::now().tv_sec;
        state.last_receiver = Some(task.group.pid.clone());
        drop(state);
        self.queue.notify(PollEvents::POLLOUT);
        message.text.truncate(max);
        Ok((message.kind, message.text))
    }

    /// msgrcv(2): type and text. `cut` is MSG_NOERROR. ENOMSG with `nowait`, E2BIG, EIDRM, EINTR.
    pub fn receive(
        &self,
        task: &CurrentTask,
        which: Select,
        max: usize,
        cut: bool,
        nowait: bool,
    ) -> Result<(i64, Vec<u8>)> {
        let nowait = nowait || matches!(which, Select::Copy(_));
        wait(task, &self.queue, PollEvents::POLLIN, nowait, Errno::ENOMSG, || {
            self.try_receive(task, which, max, cut)
        })
    }

    /// IPC_STAT.
    pub fn status(&self, user_ns: &UserNamespace, pid_ns: &Arc<PidNamespace>) -> MsqidDs {
        let state = self.state.lock();
        let number = |pid: &Option<Arc<Pid>>| pid.as_ref().map_or(0, |p| p.number_in(pid_ns)) as i32;
        MsqidDs {
            msg_perm: state.permission.show(user_ns),
            msg_stime: state.sent_at,
            msg_rtime: state.received_at,
            msg_ctime: state.changed_at,
            msg_cbytes: state.bytes,
            msg_qnum: state.messages.len() as u64,
            msg_qbytes: state.bytes_max,
            msg_lspid: number(&state.last_sender),
            msg_lrpid: number(&state.last_receiver),
            ..MsqidDs::default()
        }
    }

    /// IPC_SET; `may_raise` is CAP_SYS_RESOURCE. EPERM for a queue larger than `limit` without it.
    pub fn set(&self, new: &MsqidDs, user_ns: &UserNamespace, limit: u64, may_raise: bool) -> Result<()> {
        if new.msg_qbytes > limit && !may_raise {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        state.permission.set(&new.msg_perm, user_ns)?;
        state.bytes_max = new.msg_qbytes.min(1 << 24);
        state.changed_at = crate::time::now().tv_sec;
        drop(state);
        self.queue.notify(PollEvents::all());
        Ok(())
    }

    /// IPC_RMID: those who wait get EIDRM.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.queue.notify(PollEvents::all());
    }
}

/// Tries until it does not say EAGAIN, which with `nowait` becomes `none`. Signals are EINTR, never a restart.
fn wait<T>(
    task: &CurrentTask,
    queue: &WaitQueue,
    events: PollEvents,
    nowait: bool,
    none: Errno,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    match attempt() {
        Err(Errno::EAGAIN) if nowait => return Err(none),
        Err(Errno::EAGAIN) => {}
        result => return result,
    }
    let result = task.wait_until(&[(queue, events)], None, || match attempt() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    match result {
        Ok(result) => result,
        Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
        Err(e) => Err(e),
    }
}
