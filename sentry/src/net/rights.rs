//! Files in flight: those that SCM_RIGHTS has put into the queues of Unix sockets (unix(7), net/unix/garbage.c).
//!
//! A socket that is sent through itself, or two through each other, keep each other alive when no descriptor is left.
//! [`collect`] finds them: sockets whose only references are in queues, and in none that a descriptor leads to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use abi::resource::RLIMIT_NOFILE;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::socket;
use super::unix::UnixSocket;
use crate::task::Task;
use crate::vfs::File;

struct InFlight {
    file: Weak<File>,
    /// How many messages it is in.
    count: usize,
}

#[derive(Default)]
struct Registry {
    /// Unix sockets in flight, by [`File::id`].
    sockets: HashMap<u64, InFlight>,
    /// Files in flight by user (a kernel uid).
    users: HashMap<u32, usize>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// The length of [`Registry::sockets`].
static SOCKETS: AtomicUsize = AtomicUsize::new(0);

/// Serialises collections. Taken before the registry.
static COLLECTING: Mutex<()> = Mutex::new(());

fn unix_socket(file: &File) -> Option<&UnixSocket> {
    socket::of_file(file).ok()?.as_any().downcast_ref()
}

/// The files of one message.
pub struct Rights {
    files: Vec<Arc<File>>,
    /// The user that the files are counted for; `None` when they are not in flight.
    user: Option<u32>,
}

impl Rights {
    /// Puts files in flight. ETOOMANYREFS if the user has more of them than RLIMIT_NOFILE allows open.
    pub fn launch(task: &Task, files: Vec<Arc<File>>) -> Result<Rights> {
        let creds = task.credentials();
        let user = creds.uid;
        let mut registry = REGISTRY.lock();
        let used = registry.users.get(&user).copied().unwrap_or(0);
        if used as u64 > task.group.limits.current(RLIMIT_NOFILE) {
            let initial = &task.kernel().user_ns;
            if !creds.capable_in(initial, CAP_SYS_RESOURCE) && !creds.capable_in(initial, CAP_SYS_ADMIN) {
                return Err(Errno::ETOOMANYREFS);
            }
        }
        *registry.users.entry(user).or_default() += files.len();
        registry.enter(&files);
        Ok(Rights { files, user: Some(user) })
    }

    /// The same files for one more receiver (MSG_PEEK), not in flight.
    pub fn duplicate(&self) -> Rights {
        Rights { files: self.files.clone(), user: None }
    }

    /// The files.
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }

    /// The files have been received: they are no longer in flight.
    pub fn land(&mut self) {
        if let Some(user) = self.user.take() {
            REGISTRY.lock().leave(&self.files, user);
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        self.land();
        discard(std::mem::take(&mut self.files));
    }
}

impl Registry {
    fn enter(&mut self, files: &[Arc<File>]) {
        for file in files.iter().filter(|f| unix_socket(f).is_some()) {
            let entry = self.sockets.entry(file.id());
            entry.or_insert_with(|| InFlight { file: Arc::downgrade(file), count: 0 }).count += 1;
        }
        SOCKETS.store(self.sockets.len(), Ordering::Relaxed);
    }

    fn leave(&mut self, files: &[Arc<File>], user: u32) {
        if let Some(count) = self.users.get_mut(&user) {
            *count = count.saturating_sub(files.len());
            if *count == 0 {
                self.users.remove(&user);
            }
        }
        for file in files.iter().filter(|f| unix_socket(f).is_some()) {
            if let Some(entry) = self.sockets.get_mut(&file.id()) {
                entry.count -= 1;
                if entry.count == 0 {
                    self.sockets.remove(&file.id());
                }
            }
        }
        SOCKETS.store(self.sockets.len(), Ordering::Relaxed);
    }
}

thread_local! {
    /// What is to be dropped by a [`discard`] further up this stack.
    static DEFERRED: RefCell<Option<Vec<Arc<File>>>> = const { RefCell::new(None) };
}

/// Drops files one after the other. The drop of one may close a socket with files in its queue, and so on: those wait
/// here, so that a chain of any length does not use up the stack.
fn discard(files: Vec<Arc<File>>) {
    if files.is_empty() {
        return;
    }
    let nested = DEFERRED.with(|deferred| match &mut *deferred.borrow_mut() {
        Some(list) => {
            list.extend_from_slice(&files);
            true
        }
        none => {
            *none = Some(Vec::new());
            false
        }
    });
    drop(files);
    if nested {
        return;
    }
    while let Some(file) = DEFERRED.with(|deferred| deferred.borrow_mut().as_mut().and_then(Vec::pop)) {
        drop(file);
    }
    DEFERRED.with(|deferred| *deferred.borrow_mut() = None);
}

/// Empties the queues of sockets that nothing but such queues refers to. Called when a Unix socket is closed; looks
/// only after so many calls that its work is in proportion to theirs.
pub(super) fn collect() {
    static CLOSED: AtomicUsize = AtomicUsize::new(0);
    let in_flight = SOCKETS.load(Ordering::Relaxed);
    if in_flight == 0 || CLOSED.fetch_add(1, Ordering::Relaxed) < in_flight / 2 {
        return;
    }
    CLOSED.store(0, Ordering::Relaxed);
    // Another thread's collection, or one further up this stack, is as good.
    let Some(_collecting) = COLLECTING.try_lock() else { return };
    let registry = REGISTRY.lock();
    // Receivers and senders take the registry's lock before a file leaves or enters a queue for good, and a file in
    // somebody's hands has one reference more than messages.
    let candidates: Vec<Candidate> = registry
        .sockets
        .iter()
        .filter(|(_, entry)| entry.file.strong_count() == entry.count)
        .filter_map(|(&id, entry)| {
            let socket = unix_socket(&*entry.file.upgrade()?)?.arc()?;
            Some(Candidate { id, socket, outside: entry.count, holds: Vec::new(), reachable: false })
        })
        .collect();
    let garbage = unreachable(candidates);
    let mut lost = Vec::new();
    for socket in &garbage {
        socket.take_rights(&mut lost);
    }
    drop(registry);
    if !garbage.is_empty() {
        tracing::debug!(count = garbage.len(), "unreachable sockets collected");
    }
    drop(lost);
}

struct Candidate {
    id: u64,
    socket: Arc<UnixSocket>,
    /// References from elsewhere than queues of candidates.
    outside: usize,
    /// The candidates in its queue.
    holds: Vec<usize>,
    reachable: bool,
}

fn unreachable(mut candidates: Vec<Candidate>) -> Vec<Arc<UnixSocket>> {
    let index: HashMap<u64, usize> = candidates.iter().enumerate().map(|(i, c)| (c.id, i)).collect();
    for i in 0..candidates.len() {
        let mut holds = Vec::new();
        candidates[i].socket.each_right(&mut |file| holds.extend(index.get(&file.id()).copied()));
        for &held in &holds {
            candidates[held].outside = candidates[held].outside.saturating_sub(1);
        }
        candidates[i].holds = holds;
    }
    let mut work: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].outside > 0).collect();
    while let Some(i) = work.pop() {
        if !std::mem::replace(&mut candidates[i].reachable, true) {
            work.extend_from_slice(&candidates[i].holds);
        }
    }
    candidates.into_iter().filter(|c| !c.reachable).map(|c| c.socket).collect()
}
