//! POSIX message queues (mq_overview(7), ipc/mqueue.c). Their names are a filesystem: [`crate::fs::mqueue`].
//!
//! A message goes straight to a thread that waits for one, and only if there is none into the queue; so threads are
//! served in the order in which they came, and a notification is for an empty queue that nobody waits on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::ipc::{
    HARD_MSGMAX, HARD_MSGSIZEMAX, MQ_PRIO_MAX, MqAttr, NOTIFY_COOKIE_LEN, NOTIFY_REMOVED, NOTIFY_WOKENUP,
};
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::{SI_MESGQ, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, Signal};
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::IpcNamespace;
use crate::net::netlink::NetlinkSocket;
use crate::net::socket;
use crate::parameters as p;
use crate::task::{CurrentTask, Pid, Task, UserNamespace};
use crate::vfs::File;
use crate::wait::{Parker, WaitQueue};

/// sizeof(struct msg_msg) and sizeof(struct posix_msg_tree_node), which RLIMIT_MSGQUEUE counts too.
const MESSAGE_OVERHEAD: u64 = 48;
const PRIORITY_OVERHEAD: u64 = 48;

/// How many bytes the queues of each user may come to hold (RLIMIT_MSGQUEUE).
#[derive(Default)]
pub struct QueueBytes(Mutex<HashMap<u32, u64>>);

/// A part of a user's allowance, until this is dropped.
pub struct Charge {
    of: Arc<QueueBytes>,
    uid: u32,
    bytes: u64,
}

impl QueueBytes {
    /// Takes from what `uid` may use. EMFILE.
    fn charge(self: &Arc<QueueBytes>, uid: u32, bytes: u64, limit: u64) -> Result<Charge> {
        let mut users = self.0.lock();
        let used = users.get(&uid).copied().unwrap_or(0);
        let new = used.checked_add(bytes).filter(|&new| new <= limit).ok_or(Errno::EMFILE)?;
        users.insert(uid, new);
        Ok(Charge { of: self.clone(), uid, bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = self.of.0.lock();
        if let Some(used) = users.get_mut(&self.uid) {
            *used = used.saturating_sub(self.bytes);
            if *used == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

/// How many messages of which length a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// `mq_maxmsg`
    pub messages: u64,
    /// `mq_msgsize`
    pub bytes: u64,
}

impl Size {
    /// What a queue has that is made without attributes.
    pub fn default_in(ns: &IpcNamespace) -> Size {
        let least = |a: &p::Parameter, b: &p::Parameter| a.get(&ns.parameters).min(b.get(&ns.parameters));
        Size {
            messages: least(&p::MQUEUE_MSG_MAX, &p::MQUEUE_MSG_DEFAULT) as u64,
            bytes: least(&p::MQUEUE_MSGSIZE_MAX, &p::MQUEUE_MSGSIZE_DEFAULT) as u64,
        }
    }

    /// Attributes of mq_open(3). `privileged` is CAP_SYS_RESOURCE. EINVAL.
    pub fn from_attributes(attr: &MqAttr, ns: &IpcNamespace, privileged: bool) -> Result<Size> {
        let (messages_max, bytes_max) = if privileged {
            (HARD_MSGMAX, HARD_MSGSIZEMAX)
        } else {
            (p::MQUEUE_MSG_MAX.get(&ns.parameters), p::MQUEUE_MSGSIZE_MAX.get(&ns.parameters))
        };
        let within = |value: i64, max: i64| (1..=max).contains(&value).then_some(value as u64);
        Ok(Size {
            messages: within(attr.mq_maxmsg, messages_max).ok_or(Errno::EINVAL)?,
            bytes: within(attr.mq_msgsize, bytes_max).ok_or(Errno::EINVAL)?,
        })
    }

    /// What it counts for against RLIMIT_MSGQUEUE.
    fn charged(self) -> u64 {
        let overhead =
            self.messages * MESSAGE_OVERHEAD + self.messages.min(u64::from(MQ_PRIO_MAX)) * PRIORITY_OVERHEAD;
        overhead.saturating_add(self.messages.saturating_mul(self.bytes))
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its priority, below [`MQ_PRIO_MAX`].
    pub priority: u32,
    /// Its text.
    pub text: Vec<u8>,
}

/// A thread that waits: for a message to be put here, or for the one that is here to be taken.
struct Waiting {
    message: Mutex<Option<Message>>,
    served: AtomicBool,
    parker: Arc<Parker>,
}

impl Waiting {
    fn new(task: &CurrentTask, message: Option<Message>) -> Arc<Waiting> {
        let (message, served) = (Mutex::new(message), AtomicBool::new(false));
        Arc::new(Waiting { message, served, parker: task.waker() })
    }

    fn serve(&self) {
        self.served.store(true, Ordering::Release);
        self.parker.unpark();
    }

    fn is_served(&self) -> bool {
        self.served.load(Ordering::Acquire)
    }
}

/// What mq_notify(3) asks for.
enum Action {
    Nothing,
    Signal(i32, u64),
    /// A message to a netlink socket, with which glibc's SIGEV_THREAD is made.
    Netlink(Arc<File>, [u8; NOTIFY_COOKIE_LEN]),
}

struct Notify {
    owner: Arc<Pid>,
    user_ns: Arc<UserNamespace>,
    action: Action,
}

impl Notify {
    /// The end of a process withdraws what it has asked for.
    fn stands(&self) -> bool {
        self.owner.group().is_some_and(|process| !process.is_dead())
    }

    fn tell_socket(&self, what: u8) {
        if let Action::Netlink(file, cookie) = &self.action
            && let Some(socket) = netlink(file)
        {
            let mut cookie = *cookie;
            cookie[NOTIFY_COOKIE_LEN - 1] = what;
            socket.deliver(cookie.to_vec());
        }
    }
}

fn netlink(file: &File) -> Option<&NetlinkSocket> {
    socket::of_file(file).ok()?.as_any().downcast_ref()
}

#[derive(Default)]
struct State {
    /// By priority, in the order in which they came.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: u64,
    bytes: u64,
    receivers: VecDeque<Arc<Waiting>>,
    senders: VecDeque<Arc<Waiting>>,
    notify: Option<Notify>,
}

impl State {
    fn insert(&mut self, message: Message) {
        self.count += 1;
        self.bytes += message.text.len() as u64;
        self.messages.entry(message.priority).or_default().push_back(message.text);
    }

    /// The oldest message of the highest priority.
    fn take(&mut self) -> Option<Message> {
        let mut highest = self.messages.last_entry()?;
        let priority = *highest.key();
        let text = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        let text = text?;
        self.count -= 1;
        self.bytes -= text.len() as u64;
        Some(Message { priority, text })
    }
}

/// A queue.
pub struct Queue {
    size: Size,
    state: Mutex<State>,
    /// Woken when messages come and go.
    pub changed: WaitQueue,
    _charge: Charge,
}

impl Queue {
    /// An empty queue of `uid`, which may use `limit` bytes in all. EMFILE.
    pub fn new(bytes: &Arc<QueueBytes>, uid: u32, size: Size, limit: u64) -> Result<Queue> {
        let charge = bytes.charge(uid, size.charged(), limit)?;
        Ok(Queue { size, state: Mutex::default(), changed: WaitQueue::new(), _charge: charge })
    }

    /// How many messages of which length it takes.
    pub fn size(&self) -> Size {
        self.size
    }

    /// How many messages wait.
    pub fn len(&self) -> u64 {
        self.state.lock().count
    }

    /// True if no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What can be done without waiting.
    pub fn poll(&self) -> PollEvents {
        let count = self.len();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::POLLIN | PollEvents::POLLRDNORM;
        }
        if count < self.size.messages {
            events |= PollEvents::POLLOUT | PollEvents::POLLWRNORM;
        }
        events
    }

    /// What read(2) of the queue's file gives to `reader`.
    pub fn status(&self, reader: Option<&Task>) -> String {
        let state = self.state.lock();
        let (kind, signal, pid) = match state.notify.as_ref().filter(|notify| notify.stands()) {
            None => (0, 0, 0),
            Some(notify) => {
                let pid = reader.map_or(0, |task| notify.owner.number_in(&task.pid_ns()));
                match notify.action {
                    Action::Nothing => (SIGEV_NONE, 0, pid),
                    Action::Signal(signal, _) => (SIGEV_SIGNAL, signal, pid),
                    Action::Netlink(..) => (SIGEV_THREAD, 0, pid),
                }
            }
        };
        format!("QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
    }

    /// mq_timedsend(2), its arguments checked. EAGAIN, ETIMEDOUT, ERESTARTSYS.
    pub fn send(
        &self,
        task: &CurrentTask,
        message: Message,
        nonblocking: bool,
        deadline: Option<u64>,
    ) -> Result<()> {
        let waiting = {
            let mut state = self.state.lock();
            if state.count < self.size.messages {
                self.put(state, task, message);
                return Ok(());
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            let waiting = Waiting::new(task, Some(message));
            state.senders.push_back(waiting.clone());
            waiting
        };
        let slept = task.sleep(deadline, true, || waiting.is_served().then_some(()));
        let mut state = self.state.lock();
        if waiting.is_served() {
            return Ok(());
        }
        state.senders.retain(|w| !Arc::ptr_eq(w, &waiting));
        slept
    }

    fn put(&self, mut state: parking_lot::MutexGuard<'_, State>, task: &Task, message: Message) {
        if let Some(receiver) = state.receivers.pop_front() {
            *receiver.message.lock() = Some(message);
            receiver.serve();
            return;
        }
        state.insert(message);
        let notify = if state.count == 1 { state.notify.take() } else { None };
        drop(state);
        self.changed.notify(PollEvents::POLLIN | PollEvents::POLLRDNORM);
        let Some(notify) = notify else { return };
        notify.tell_socket(NOTIFY_WOKENUP);
        if let Action::Signal(number, value) = notify.action
            && let Some(signal) = Signal::from_i32(number)
            && let Some(process) = notify.owner.group()
        {
            let pid = task.group.pid.number_in(notify.owner.namespace());
            let uid = notify.user_ns.uid(task.credentials().uid);
            // A queue that is full loses it.
            let _ = process.send_signal(SigInfo::queue(signal, SI_MESGQ, pid as i32, uid, value));
        }
    }

    /// mq_timedreceive(2), its arguments checked. EAGAIN, ETIMEDOUT, ERESTARTSYS.
    pub fn receive(&self, task: &CurrentTask, nonblocking: bool, deadline: Option<u64>) -> Result<Message> {
        let waiting = {
            let mut state = self.state.lock();
            if let Some(message) = state.take() {
                if let Some(sender) = state.senders.pop_front() {
                    if let Some(message) = sender.message.lock().take() {
                        state.insert(message);
                    }
                    sender.serve();
                } else {
                    drop(state);
                    self.changed.notify(PollEvents::POLLOUT | PollEvents::POLLWRNORM);
                }
                return Ok(message);
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            let waiting = Waiting::new(task, None);
            state.receivers.push_back(waiting.clone());
            waiting
        };
        let slept = task.sleep(deadline, true, || waiting.is_served().then_some(()));
        let mut state = self.state.lock();
        if let Some(message) = waiting.message.lock().take() {
            return Ok(message);
        }
        state.receivers.retain(|w| !Arc::ptr_eq(w, &waiting));
        slept.and(Err(Errno::EAGAIN))
    }

    /// mq_notify(2) with SIGEV_NONE. EBUSY if another process has asked already.
    pub fn notify_nobody(&self, task: &CurrentTask) -> Result<()> {
        self.register(task, Action::Nothing)
    }

    /// mq_notify(2) with SIGEV_SIGNAL; signal 0 is none.
    pub fn notify_by_signal(&self, task: &CurrentTask, signal: i32, value: u64) -> Result<()> {
        self.register(task, Action::Signal(signal, value))
    }

    /// mq_notify(2) with SIGEV_THREAD: `cookie` goes to a netlink socket. EINVAL if it is none.
    pub fn notify_by_socket(
        &self,
        task: &CurrentTask,
        file: Arc<File>,
        cookie: [u8; NOTIFY_COOKIE_LEN],
    ) -> Result<()> {
        if netlink(&file).is_none() {
            return Err(Errno::EINVAL);
        }
        self.register(task, Action::Netlink(file, cookie))
    }

    fn register(&self, task: &CurrentTask, action: Action) -> Result<()> {
        let mut state = self.state.lock();
        if state.notify.as_ref().is_some_and(Notify::stands) {
            return Err(Errno::EBUSY);
        }
        let user_ns = task.credentials().user_ns.clone();
        state.notify = Some(Notify { owner: task.group.pid.clone(), user_ns, action });
        Ok(())
    }

    /// The process does not want to be notified any more.
    pub fn withdraw(&self, process: &Arc<Pid>) {
        let mut state = self.state.lock();
        let own = state.notify.take_if(|notify| Arc::ptr_eq(&notify.owner, process));
        drop(state);
        if let Some(notify) = own {
            notify.tell_socket(NOTIFY_REMOVED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_by_priority_and_age() {
        let mut state = State::default();
        for (priority, text) in [(1, "a"), (9, "b"), (1, "c"), (5, "d")] {
            state.insert(Message { priority, text: text.into() });
        }
        assert_eq!((state.count, state.bytes), (4, 4));
        let order: Vec<u8> = std::iter::from_fn(|| state.take()).flat_map(|m| m.text).collect();
        assert_eq!(order, b"bdac");
        assert_eq!((state.count, state.bytes), (0, 0));
    }

    #[test]
    fn a_user_has_a_budget() {
        let bytes = Arc::new(QueueBytes::default());
        let size = Size { messages: 10, bytes: 8192 };
        assert_eq!(size.charged(), 10 * 48 + 10 * 48 + 81920);
        let first = Queue::new(&bytes, 7, size, 100_000).unwrap();
        assert_eq!(Queue::new(&bytes, 7, size, 100_000).err(), Some(Errno::EMFILE));
        assert!(Queue::new(&bytes, 8, size, 100_000).is_ok());
        drop(first);
        assert!(Queue::new(&bytes, 7, size, 100_000).is_ok());
        assert!(bytes.0.lock().is_empty());
    }
}
