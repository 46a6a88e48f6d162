//! inotify(7): a queue of events on watched files.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::inotify::{InotifyEvent, InotifyMask as Mask};
use abi::ioctl::FIONREAD;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;
use zerocopy::IntoBytes;

use crate::Kernel;
use crate::parameters::{self, Parameters};
use crate::task::user_counts::Charge;
use crate::task::{CurrentTask, Task};
use crate::vfs::notify::{Listener, Watch, WatchTable};
use crate::vfs::{Dentry, File, FileOps, Io, ObjectId, Sink};
use crate::wait::WaitQueue;

/// The wait for the reader ends for these.
const READABLE: PollEvents = PollEvents::READABLE;

#[derive(PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: Mask,
    cookie: u32,
    name: Box<[u8]>,
}

impl Event {
    /// Bytes that the name takes in the record, with its NUL and padding.
    fn name_len(&self) -> usize {
        if self.name.is_empty() {
            0
        } else {
            (self.name.len() + 1).next_multiple_of(size_of::<InotifyEvent>())
        }
    }

    fn len(&self) -> usize {
        size_of::<InotifyEvent>() + self.name_len()
    }

    /// As the last event of the queue, `old` says it all (inotify_merge).
    fn repeats(&self, old: &Event) -> bool {
        !old.mask.contains(Mask::IN_IGNORED)
            && (old.wd, old.mask, &old.name) == (self.wd, self.mask, &self.name)
    }

    fn record(&self) -> Vec<u8> {
        let len = self.name_len();
        let header =
            InotifyEvent { wd: self.wd, mask: self.mask.bits(), cookie: self.cookie, len: len as u32 };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&self.name);
        bytes.resize(size_of::<InotifyEvent>() + len, 0);
        bytes
    }
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    watches: BTreeMap<i32, Arc<Watch>>,
    by_object: HashMap<ObjectId, i32>,
    last_wd: i32,
    /// One for each watch.
    charges: Vec<Charge>,
}

impl State {
    fn take(&mut self, wd: i32) -> Option<Arc<Watch>> {
        let watch = self.watches.remove(&wd)?;
        self.by_object.remove(&watch.object());
        self.charges.pop();
        Some(watch)
    }
}

/// Who pays for an instance and its watches.
pub struct Account {
    kernel: Arc<Kernel>,
    uid: u32,
    _instance: Charge,
}

impl Account {
    /// For an instance that `task` makes. EMFILE beyond `fs.inotify.max_user_instances`.
    pub fn new(task: &Task) -> Result<Account> {
        let kernel = task.kernel().clone();
        let uid = task.credentials().uid;
        let max = parameters::INOTIFY_INSTANCES.get(&kernel.parameters);
        let instance = kernel.inotify.0.charge(uid, max).ok_or(Errno::EMFILE)?;
        Ok(Account { kernel, uid, _instance: instance })
    }
}

/// An inotify instance.
pub struct Inotify {
    me: Weak<Inotify>,
    /// `None` in tests without a kernel.
    account: Option<Account>,
    /// How many events wait at most: `fs.inotify.max_queued_events`, as it was when the instance was made.
    events_max: usize,
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Inotify {
    /// inotify_init1(2).
    pub fn new(account: Option<Account>) -> Arc<Inotify> {
        let set = Parameters::default();
        let parameters = account.as_ref().map_or(&set, |account| &account.kernel.parameters);
        let events_max = usize::try_from(parameters::INOTIFY_QUEUED_EVENTS.get(parameters)).unwrap_or(0);
        let (state, queue) = (Mutex::default(), WaitQueue::new());
        Arc::new_cyclic(|me| Inotify { me: me.clone(), account, events_max, state, queue })
    }

    /// inotify_add_watch(2), after [`crate::vfs::notify::check_mask`], the walk (which IN_DONT_FOLLOW and IN_ONLYDIR
    /// govern) and the check for read permission. EEXIST with IN_MASK_CREATE, ENOSPC with too many watches.
    pub fn add_watch(&self, dentry: &Dentry, mask: Mask) -> Result<i32> {
        let mut state = self.state.lock();
        let known = state.by_object.get(&dentry.object()).and_then(|wd| state.watches.get(wd));
        if let Some(watch) = known {
            if mask.contains(Mask::IN_MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            watch.set_mask(mask, mask.contains(Mask::IN_MASK_ADD));
            return Ok(watch.wd);
        }
        if let Some(Account { kernel, uid, .. }) = &self.account {
            let max = parameters::INOTIFY_WATCHES.get(&kernel.parameters);
            state.charges.push(kernel.inotify.1.charge(*uid, max).ok_or(Errno::ENOSPC)?);
        }
        // Numbers are used again only after all others.
        let mut numbers = (state.last_wd..i32::MAX).chain(0..state.last_wd).map(|wd| wd + 1);
        let wd = numbers.find(|wd| !state.watches.contains_key(wd)).ok_or(Errno::ENOSPC)?;
        state.last_wd = wd;
        state.by_object.insert(dentry.object(), wd);
        let listener: Weak<dyn Listener> = self.me.clone();
        state.watches.insert(wd, WatchTable::add(dentry, wd, mask, listener));
        Ok(wd)
    }

    /// inotify_rm_watch(2). EINVAL for an unknown descriptor.
    pub fn remove_watch(&self, wd: i32) -> Result<()> {
        let watch = self.state.lock().take(wd).ok_or(Errno::EINVAL)?;
        watch.remove();
        self.push(Event { wd, mask: Mask::IN_IGNORED, cookie: 0, name: Box::default() });
        Ok(())
    }

    fn push(&self, event: Event) {
        let mut state = self.state.lock();
        if state.events.back().is_some_and(|last| event.repeats(last)) {
            return;
        }
        // One place more than the limit, for the overflow.
        if state.events.len() > self.events_max {
            return;
        }
        if state.events.len() == self.events_max {
            state.events.push_back(Event {
                wd: -1,
                mask: Mask::IN_Q_OVERFLOW,
                cookie: 0,
                name: Box::default(),
            });
        } else {
            state.events.push_back(event);
        }
        drop(state);
        self.queue.notify(READABLE);
    }
}

impl Listener for Inotify {
    fn event(&self, wd: i32, mut mask: Mask, cookie: u32, name: &[u8]) {
        // Linux never says of these that they are about a directory.
        if mask.intersects(Mask::IN_MOVE_SELF | Mask::IN_DELETE_SELF) {
            mask -= Mask::IN_ISDIR;
        }
        self.push(Event { wd, mask, cookie, name: name.into() });
    }

    fn ignored(&self, wd: i32) {
        let watch = self.state.lock().take(wd);
        if watch.is_some() {
            self.push(Event { wd, mask: Mask::IN_IGNORED, cookie: 0, name: Box::default() });
        }
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for watch in std::mem::take(&mut self.state.get_mut().watches).into_values() {
            watch.remove();
        }
    }
}

/// An inotify instance as an open file.
pub struct InotifyFile(pub Arc<Inotify>);

impl FileOps for InotifyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn signals(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        let mut total = 0;
        loop {
            let record = {
                let mut state = self.0.state.lock();
                match state.events.front() {
                    None if total == 0 => return Err(Errno::EAGAIN),
                    None => return Ok(total),
                    Some(event) if event.len() > dst.remaining() => {
                        return if total == 0 { Err(Errno::EINVAL) } else { Ok(total) };
                    }
                    Some(event) => {
                        let record = event.record();
                        state.events.pop_front();
                        record
                    }
                }
            };
            match dst.put(&record) {
                Ok(n) if n == record.len() => total += n,
                // As in Linux, the event is lost with the fault.
                Ok(_) | Err(_) if total > 0 => return Ok(total),
                Ok(_) => return Err(Errno::EFAULT),
                Err(e) => return Err(e),
            }
        }
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        if self.0.state.lock().events.is_empty() { PollEvents::empty() } else { READABLE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, task: &CurrentTask, _file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        match request {
            FIONREAD => {
                let bytes: usize = self.0.state.lock().events.iter().map(Event::len).sum();
                task.mm().write_object(arg, &i32::try_from(bytes).unwrap_or(i32::MAX))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn fdinfo(&self) -> String {
        let line = |w: &Arc<Watch>| {
            let ObjectId { dev, ino } = w.object();
            let mask = w.mask().bits();
            format!("inotify wd:{:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 \n", w.wd)
        };
        self.0.state.lock().watches.values().map(line).collect()
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:inotify".to_string()
    }
}

#[cfg(test)]
mod tests {
    use abi::fcntl::{OpenFlags, RenameFlags};

    use super::*;
    use crate::fs::testing::{Mounted, write};
    use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
    use crate::vfs::{NewKind, VecSink, notify};

    fn tree() -> Mounted {
        Mounted::new(Tmpfs::new(&TmpfsOptions::unlimited()))
    }

    fn read(inotify: &Arc<Inotify>, limit: usize) -> Result<Vec<u8>> {
        let mut sink = VecSink::new(limit);
        InotifyFile(inotify.clone()).read(&Io::default(), &mut sink, 0)?;
        Ok(sink.data)
    }

    /// All waiting events as `wd MASK cookie? name`.
    fn events(inotify: &Arc<Inotify>) -> Vec<String> {
        let Ok(bytes) = read(inotify, 1 << 20) else { return Vec::new() };
        let (mut rest, mut list, mut cookies) = (&bytes[..], Vec::new(), Vec::new());
        while let Ok((event, after)) = <InotifyEvent as zerocopy::FromBytes>::read_from_prefix(rest) {
            assert_eq!(event.len % 16, 0);
            let name = &after[..event.len as usize];
            rest = &after[event.len as usize..];
            let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_string();
            let mask: Vec<_> = Mask::from_bits_retain(event.mask).iter_names().map(|(n, _)| n).collect();
            // Cookies by the order in which they appear.
            if event.cookie != 0 && !cookies.contains(&event.cookie) {
                cookies.push(event.cookie);
            }
            let cookie = cookies.iter().position(|&c| c == event.cookie).map_or(0, |i| i + 1);
            list.push(format!("{} {} {cookie} {name}", event.wd, mask.join("|")).trim_end().to_string());
        }
        list
    }

    #[test]
    fn events_are_linuxs() {
        let tree = tree();
        let inotify = Inotify::new(None);
        tree.create("d", NewKind::Directory, 0o700).unwrap();
        tree.create("d/old", NewKind::Regular, 0o600).unwrap();
        let dir = inotify.add_watch(&tree.find("d").unwrap(), Mask::IN_ALL_EVENTS).unwrap();
        let old = inotify.add_watch(&tree.find("d/old").unwrap(), Mask::IN_ALL_EVENTS).unwrap();
        assert_eq!((dir, old), (1, 2));

        tree.create("d/new", NewKind::Regular, 0o600).unwrap();
        tree.create("d/sub", NewKind::Directory, 0o600).unwrap();
        let file = tree.open("d/old", OpenFlags::O_RDWR).unwrap();
        write(&file, 0, b"x", false).unwrap();
        notify::modified(file.path());
        notify::modified(file.path());
        drop(file);
        tree.link("d/old", "d/link").unwrap();
        assert_eq!(
            events(&inotify),
            [
                "1 IN_CREATE 0 new",
                "1 IN_CREATE|IN_ISDIR 0 sub",
                "1 IN_OPEN 0 old",
                "2 IN_OPEN 0",
                "1 IN_MODIFY 0 old",
                "2 IN_MODIFY 0",
                "1 IN_MODIFY 0 old",
                "2 IN_MODIFY 0",
                "1 IN_CLOSE_WRITE 0 old",
                "2 IN_CLOSE_WRITE 0",
                "2 IN_ATTRIB 0",
                "1 IN_CREATE 0 link",
            ]
        );

        tree.rename("d/new", "d/moved", RenameFlags::empty()).unwrap();
        tree.rename("d/old", "d/moved", RenameFlags::empty()).unwrap();
        tree.remove("d/moved", false).unwrap();
        tree.remove("d/link", false).unwrap();
        tree.remove("d/sub", true).unwrap();
        tree.remove("d", true).unwrap();
        assert_eq!(
            events(&inotify),
            [
                "1 IN_MOVED_FROM 1 new",
                "1 IN_MOVED_TO 1 moved",
                "1 IN_MOVED_FROM 2 old",
                "1 IN_MOVED_TO 2 moved",
                "2 IN_MOVE_SELF 0",
                "2 IN_ATTRIB 0",
                "1 IN_DELETE 0 moved",
                "2 IN_ATTRIB 0",
                "2 IN_DELETE_SELF 0",
                "2 IN_IGNORED 0",
                "1 IN_DELETE 0 link",
                "1 IN_DELETE|IN_ISDIR 0 sub",
                "1 IN_DELETE_SELF 0",
                "1 IN_IGNORED 0",
            ]
        );
    }

    #[test]
    fn an_open_file_outlives_its_name() {
        let tree = tree();
        let inotify = Inotify::new(None);
        tree.create("a", NewKind::Regular, 0o600).unwrap();
        inotify.add_watch(&tree.find("a").unwrap(), Mask::IN_DELETE_SELF).unwrap();
        let exclusive = Mask::IN_ACCESS | Mask::IN_EXCL_UNLINK;
        inotify.add_watch(tree.root.dentry(), exclusive).unwrap();
        let file = tree.open("a", OpenFlags::empty()).unwrap();
        notify::accessed(file.path());
        tree.remove("a", false).unwrap();
        notify::accessed(file.path());
        assert_eq!(events(&inotify), ["2 IN_ACCESS 0 a"]);
        drop(file);
        assert_eq!(events(&inotify), ["1 IN_DELETE_SELF 0", "1 IN_IGNORED 0"]);
    }

    #[test]
    fn watches_can_be_changed_and_removed() {
        let tree = tree();
        let inotify = Inotify::new(None);
        let root = tree.root.dentry();
        assert_eq!(inotify.add_watch(root, Mask::IN_CREATE | Mask::IN_MASK_CREATE), Ok(1));
        assert_eq!(inotify.add_watch(root, Mask::IN_CREATE | Mask::IN_MASK_CREATE), Err(Errno::EEXIST));
        assert_eq!(inotify.add_watch(root, Mask::IN_DELETE | Mask::IN_MASK_ADD), Ok(1));
        tree.create("a", NewKind::Regular, 0o600).unwrap();
        tree.remove("a", false).unwrap();
        assert_eq!(events(&inotify), ["1 IN_CREATE 0 a", "1 IN_DELETE 0 a"]);
        assert_eq!(inotify.add_watch(root, Mask::IN_DELETE | Mask::IN_ONESHOT), Ok(1));
        tree.create("a", NewKind::Regular, 0o600).unwrap();
        tree.create("b", NewKind::Regular, 0o600).unwrap();
        tree.remove("a", false).unwrap();
        tree.remove("b", false).unwrap();
        assert_eq!(events(&inotify), ["1 IN_DELETE 0 a", "1 IN_IGNORED 0"]);
        assert_eq!(inotify.remove_watch(1), Err(Errno::EINVAL));
        assert_eq!(inotify.add_watch(root, Mask::IN_DELETE), Ok(2));
        inotify.remove_watch(2).unwrap();
        assert_eq!(events(&inotify), ["2 IN_IGNORED 0"]);
        assert_eq!(notify::check_mask(0), Err(Errno::EINVAL));
        let both = Mask::IN_MASK_ADD | Mask::IN_MASK_CREATE | Mask::IN_CREATE;
        assert_eq!(notify::check_mask(both.bits()), Err(Errno::EINVAL));
        inotify.add_watch(root, Mask::IN_DELETE).unwrap();
        root.superblock().watches.unmounted();
        assert_eq!(events(&inotify), ["3 IN_UNMOUNT 0", "3 IN_IGNORED 0"]);
    }

    #[test]
    fn equal_events_are_one_and_too_many_an_overflow() {
        let tree = tree();
        let inotify = Inotify::new(None);
        inotify.add_watch(tree.root.dentry(), Mask::IN_OPEN | Mask::IN_CREATE).unwrap();
        tree.create("a", NewKind::Regular, 0o600).unwrap();
        for _ in 0..3 {
            tree.open("a", OpenFlags::empty()).unwrap();
        }
        assert_eq!(read(&inotify, 31), Err(Errno::EINVAL));
        assert_eq!(read(&inotify, 33).unwrap().len(), 32);
        assert_eq!(events(&inotify), ["1 IN_OPEN 0 a"]);
        assert_eq!(read(&inotify, 100), Err(Errno::EAGAIN));
        tree.create("b", NewKind::Regular, 0o600).unwrap();
        for i in 0..inotify.events_max {
            tree.open(if i % 2 == 0 { "a" } else { "b" }, OpenFlags::empty()).unwrap();
        }
        let all = events(&inotify);
        assert_eq!(all.len(), 16384 + 1);
        assert_eq!(all.last().unwrap(), "-1 IN_Q_OVERFLOW 0");
    }

    #[test]
    fn the_parameter_says_how_many_events_wait() {
        let task = crate::task::testing::task();
        parameters::INOTIFY_QUEUED_EVENTS.set(&task.kernel().parameters, &[2]).unwrap();
        let inotify = Inotify::new(Some(Account::new(&task).unwrap()));
        let tree = tree();
        inotify.add_watch(tree.root.dentry(), Mask::IN_CREATE).unwrap();
        for name in ["a", "b", "c", "d"] {
            tree.create(name, NewKind::Regular, 0o600).unwrap();
        }
        assert_eq!(events(&inotify), ["1 IN_CREATE 0 a", "1 IN_CREATE 0 b", "-1 IN_Q_OVERFLOW 0"]);
    }
}
