//! File locks: flock(2), POSIX record locks and open file description locks (fs/locks.c).
//!
//! The locks of an inode belong to its superblock's [`LockTable`]. A lock that cannot be had is EAGAIN; the functions
//! that wait do so on a queue of the inode, and note whom they wait for, so that a circle of processes is EDEADLK.
//!
//! Lock order: a table's lock, then `WAITING`. Waiters are woken after both were released.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use abi::capability::CAP_LEASE;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::fd_table::FdTable;
use super::file::File;
use crate::task::{CurrentTask, Pid};
use crate::wait::WaitQueue;

/// How many record locks an inode can have: ENOLCK beyond.
const LOCKS_MAX: usize = 65536;

/// What a lock allows others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// F_RDLCK, LOCK_SH: others may have such a lock too.
    Read,
    /// F_WRLCK, LOCK_EX: nobody else may have one.
    Write,
}

/// Whom a record lock belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The processes that share a descriptor table (by its address), for POSIX locks.
    Process(usize),
    /// An open file description, for OFD locks.
    Description(u64),
}

impl Owner {
    /// The owner of POSIX locks made by the users of this table.
    pub fn process(table: &FdTable) -> Owner {
        Owner::Process(std::ptr::from_ref(table).addr())
    }

    /// The owner of OFD locks made through this open file description.
    pub fn description(file: &File) -> Owner {
        Owner::Description(file.id())
    }
}

/// A range of bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte; [`Range::MAX`] for "to the end, however long the file gets".
    pub end: u64,
}

impl Range {
    /// The largest offset (OFFSET_MAX).
    pub const MAX: u64 = i64::MAX as u64;

    /// From `l_len` of `struct flock` and an `l_start` to which what `l_whence` stands for has been added. EINVAL
    /// before the start of the file, EOVERFLOW beyond the largest offset.
    pub fn new(start: i64, len: i64) -> Result<Range> {
        if start < 0 {
            return Err(Errno::EINVAL);
        }
        let (first, last) = match len {
            0 => (start, i64::MAX),
            1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
            _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
        };
        if first < 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Range { start: first as u64, end: last as u64 })
    }

    /// `l_len`: 0 if it goes on to the end.
    pub fn len(&self) -> u64 {
        if self.end == Range::MAX { 0 } else { self.end - self.start + 1 }
    }

    /// Never: a range has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn meets(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// The locks of an inode: its number, record locks, and flock locks with the numbers of their open files.
pub type Listed = (u64, Vec<RecordLock>, Vec<(u64, Kind)>);

/// A record lock.
#[derive(Clone)]
pub struct RecordLock {
    /// Whose it is.
    pub owner: Owner,
    /// What it allows others.
    pub kind: Kind,
    /// Where.
    pub range: Range,
    /// The process, for F_GETLK's `l_pid`; `None` for OFD locks (shown as -1).
    pub pid: Option<Arc<Pid>>,
}

impl RecordLock {
    fn conflicts(&self, other: &RecordLock) -> bool {
        self.owner != other.owner
            && self.range.meets(&other.range)
            && (self.kind == Kind::Write || other.kind == Kind::Write)
    }
}

#[derive(Default)]
struct InodeLocks {
    /// In the order of their start; those of one owner do not overlap.
    records: Vec<RecordLock>,
    /// By open file description.
    flocks: Vec<(u64, Kind)>,
    queue: WaitQueue,
    /// Those who hold on to the queue.
    waiters: usize,
}

impl InodeLocks {
    fn conflict(&self, wanted: &RecordLock) -> Option<&RecordLock> {
        self.records.iter().find(|held| held.conflicts(wanted))
    }

    /// Replaces what the owner has in the range by a lock of `kind`, or by nothing. ENOLCK.
    fn replace(&mut self, lock: &RecordLock, kind: Option<Kind>) -> Result<()> {
        let RecordLock { owner, range, .. } = *lock;
        // The hole may split one lock into two.
        if self.records.len() + 2 > LOCKS_MAX && kind.is_some() {
            return Err(Errno::ENOLCK);
        }
        let mut own = Vec::new();
        self.records.retain(|held| {
            if held.owner == owner {
                own.push(held.clone());
            }
            held.owner != owner
        });
        let mut pieces: Vec<RecordLock> = Vec::with_capacity(own.len() + 2);
        for held in own {
            if !held.range.meets(&range) {
                pieces.push(held);
                continue;
            }
            if held.range.start < range.start {
                let left = Range { start: held.range.start, end: range.start - 1 };
                pieces.push(RecordLock { range: left, ..held.clone() });
            }
            if held.range.end > range.end {
                let right = Range { start: range.end + 1, end: held.range.end };
                pieces.push(RecordLock { range: right, ..held });
            }
        }
        if let Some(kind) = kind {
            pieces.push(RecordLock { kind, ..lock.clone() });
        }
        pieces.sort_by_key(|p| p.range.start);
        for piece in pieces {
            match self.records.last_mut() {
                Some(last)
                    if last.owner == owner
                        && last.kind == piece.kind
                        && last.range.end.checked_add(1) == Some(piece.range.start) =>
                {
                    last.range.end = piece.range.end;
                }
                _ => self.records.push(piece),
            }
        }
        self.records.sort_by_key(|held| held.range.start);
        Ok(())
    }
}

/// Who waits for whom with a record lock.
struct Edge {
    ticket: u64,
    waiter: Owner,
    holder: Owner,
    /// The table and inode that they meet at.
    place: (usize, u64),
}

static WAITING: Mutex<Vec<Edge>> = Mutex::new(Vec::new());

/// Notes that `waiter` waits for `holder`. EDEADLK if the holder waits for the waiter, directly or through others.
fn begin_wait(ticket: u64, waiter: Owner, holder: Owner, place: (usize, u64)) -> Result<()> {
    // Descriptions are no processes: they can be passed on, and who holds one does not wait (posix_locks_deadlock()).
    if matches!(waiter, Owner::Description(_)) {
        return Ok(());
    }
    let mut waiting = WAITING.lock();
    waiting.retain(|edge| edge.ticket != ticket);
    let mut seen = vec![holder];
    let mut next = 0;
    while let Some(&at) = seen.get(next) {
        next += 1;
        if at == waiter {
            return Err(Errno::EDEADLK);
        }
        for edge in waiting.iter().filter(|edge| edge.waiter == at) {
            if !seen.contains(&edge.holder) {
                seen.push(edge.holder);
            }
        }
    }
    waiting.push(Edge { ticket, waiter, holder, place });
    Ok(())
}

/// The locks on the inodes of a superblock, by inode number.
#[derive(Default)]
pub struct LockTable {
    inodes: Mutex<HashMap<u64, InodeLocks>>,
    /// The length of the map, so that closing a file where there are no locks costs one load.
    len: AtomicUsize,
}

/// Somebody who waits for a lock on an inode: keeps the queue, and the note of whom he waits for.
struct Waiter<'a> {
    table: &'a LockTable,
    ino: u64,
    queue: WaitQueue,
    ticket: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        WAITING.lock().retain(|edge| edge.ticket != self.ticket);
        self.table.with(self.ino, |locks| locks.waiters -= 1);
    }
}

impl LockTable {
    /// Calls `f` with the locks of an inode, which are forgotten afterwards if there are none.
    fn with<R>(&self, ino: u64, f: impl FnOnce(&mut InodeLocks) -> R) -> R {
        let mut inodes = self.inodes.lock();
        let locks = inodes.entry(ino).or_default();
        let result = f(locks);
        if locks.records.is_empty() && locks.flocks.is_empty() && locks.waiters == 0 {
            inodes.remove(&ino);
        }
        self.len.store(inodes.len(), Ordering::SeqCst);
        result
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    fn place(&self, ino: u64) -> (usize, u64) {
        (std::ptr::from_ref(self).addr(), ino)
    }

    /// Something was given up: who waits looks again, and until then waits for nobody.
    fn wake(&self, ino: u64, queue: &WaitQueue) {
        if !queue.is_empty() {
            let place = self.place(ino);
            WAITING.lock().retain(|edge| edge.place != place);
            queue.notify(PollEvents::POLLIN);
        }
    }

    fn waiter(&self, ino: u64) -> Waiter<'_> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let queue = self.with(ino, |locks| {
            locks.waiters += 1;
            locks.queue.clone()
        });
        Waiter { table: self, ino, queue, ticket: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// F_SETLK with F_RDLCK or F_WRLCK. EAGAIN if somebody else's lock is in the way.
    pub fn set_record(&self, ino: u64, lock: &RecordLock) -> Result<()> {
        self.try_record(ino, lock, None)
    }

    fn try_record(&self, ino: u64, lock: &RecordLock, ticket: Option<u64>) -> Result<()> {
        let queue = self.with(ino, |locks| {
            if let Some(held) = locks.conflict(lock) {
                if let Some(ticket) = ticket {
                    begin_wait(ticket, lock.owner, held.owner, self.place(ino))?;
                }
                return Err(Errno::EAGAIN);
            }
            locks.replace(lock, Some(lock.kind))?;
            Ok(locks.queue.clone())
        })?;
        // It may be weaker than what it replaced.
        self.wake(ino, &queue);
        Ok(())
    }

    /// F_SETLKW with F_RDLCK or F_WRLCK. EDEADLK, ERESTARTSYS.
    pub fn wait_record(&self, task: &CurrentTask, ino: u64, lock: &RecordLock) -> Result<()> {
        let waiter = self.waiter(ino);
        task.wait_until(&[(&waiter.queue, PollEvents::POLLIN)], None, || {
            match self.try_record(ino, lock, Some(waiter.ticket)) {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            }
        })?
    }

    /// F_SETLK with F_UNLCK. ENOLCK if that would split a lock and there is no room for one more.
    pub fn clear_record(&self, ino: u64, owner: Owner, range: Range) -> Result<()> {
        let lock = RecordLock { owner, kind: Kind::Read, range, pid: None };
        let queue = self.with(ino, |locks| locks.replace(&lock, None).map(|()| locks.queue.clone()))?;
        self.wake(ino, &queue);
        Ok(())
    }

    /// F_GETLK: a lock that is in the way of `lock`.
    pub fn conflicting_record(&self, ino: u64, lock: &RecordLock) -> Option<RecordLock> {
        if self.is_empty() {
            return None;
        }
        self.with(ino, |locks| locks.conflict(lock).cloned())
    }

    /// flock(2) with LOCK_NB, of the open file description with this number. EAGAIN; then a lock that was to be
    /// converted is lost, as in Linux.
    pub fn set_flock(&self, ino: u64, file: u64, kind: Kind) -> Result<()> {
        let (result, freed) = self.with(ino, |locks| {
            let old = locks.flocks.iter().position(|&(id, _)| id == file);
            if let Some(old) = old {
                if locks.flocks.get(old).is_some_and(|&(_, k)| k == kind) {
                    return (Ok(()), None);
                }
                locks.flocks.swap_remove(old);
            }
            let freed = old.map(|_| locks.queue.clone());
            if locks.flocks.iter().any(|&(_, held)| held == Kind::Write || kind == Kind::Write) {
                return (Err(Errno::EAGAIN), freed);
            }
            locks.flocks.push((file, kind));
            (Ok(()), freed)
        });
        if let Some(queue) = freed {
            self.wake(ino, &queue);
        }
        result
    }

    /// flock(2) without LOCK_NB. ERESTARTSYS.
    pub fn wait_flock(&self, task: &CurrentTask, ino: u64, file: u64, kind: Kind) -> Result<()> {
        let waiter = self.waiter(ino);
        task.wait_until(&[(&waiter.queue, PollEvents::POLLIN)], None, || {
            match self.set_flock(ino, file, kind) {
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            }
        })?
    }

    /// flock(2) with LOCK_UN.
    pub fn clear_flock(&self, ino: u64, file: u64) {
        let freed = self.with(ino, |locks| {
            let before = locks.flocks.len();
            locks.flocks.retain(|&(id, _)| id != file);
            (locks.flocks.len() != before).then(|| locks.queue.clone())
        });
        if let Some(queue) = freed {
            self.wake(ino, &queue);
        }
    }

    fn clear_owner(&self, ino: u64, owner: Owner) {
        let freed = self.with(ino, |locks| {
            let before = locks.records.len();
            locks.records.retain(|held| held.owner != owner);
            (locks.records.len() != before).then(|| locks.queue.clone())
        });
        if let Some(queue) = freed {
            self.wake(ino, &queue);
        }
    }

    /// All record locks, and all flock locks with the numbers of their open files, by inode number, for `/proc/locks`.
    pub fn list(&self) -> Vec<Listed> {
        let inodes = self.inodes.lock();
        inodes.iter().map(|(&ino, l)| (ino, l.records.clone(), l.flocks.clone())).collect()
    }
}

fn table(file: &File) -> (&LockTable, u64) {
    let dentry = file.path().dentry();
    (&dentry.superblock().locks, dentry.inode().ino())
}

/// F_SETLK, F_SETLKW and their OFD sisters; `kind` is `None` for F_UNLCK. EBADF if the file is not open for what the
/// lock stands for. POSIX locks: a caller that shares its descriptors checks afterwards that the descriptor still
/// refers to the file, and unlocks if not (fcntl_setlk()).
pub fn set_record(
    task: &CurrentTask,
    file: &File,
    owner: Owner,
    kind: Option<Kind>,
    range: Range,
    wait: bool,
) -> Result<()> {
    let (table, ino) = table(file);
    let Some(kind) = kind else { return table.clear_record(ino, owner, range) };
    match kind {
        Kind::Read => file.check_readable()?,
        Kind::Write => file.check_writable()?,
    }
    let pid = matches!(owner, Owner::Process(_)).then(|| task.group.pid.clone());
    let lock = RecordLock { owner, kind, range, pid };
    if wait { table.wait_record(task, ino, &lock) } else { table.set_record(ino, &lock) }
}

/// F_GETLK and F_OFD_GETLK: a lock that is in the way.
pub fn get_record(file: &File, owner: Owner, kind: Kind, range: Range) -> Option<RecordLock> {
    let (table, ino) = table(file);
    table.conflicting_record(ino, &RecordLock { owner, kind, range, pid: None })
}

/// flock(2); `kind` is `None` for LOCK_UN.
pub fn flock(task: &CurrentTask, file: &File, kind: Option<Kind>, wait: bool) -> Result<()> {
    let (table, ino) = table(file);
    match kind {
        None => table.clear_flock(ino, file.id()),
        Some(kind) if wait => return table.wait_flock(task, ino, file.id(), kind),
        Some(kind) => return table.set_flock(ino, file.id(), kind),
    }
    Ok(())
}

/// F_SETLEASE. Leases are advice that Linux refuses too when others have the file open; here they are always refused:
/// EAGAIN (also for giving up a lease that nobody has), EINVAL but for regular files, EACCES for others' files.
pub fn set_lease(task: &CurrentTask, file: &File, kind: Option<Kind>) -> Result<()> {
    if kind.is_some() {
        let attributes = file.path().inode().attributes()?;
        let creds = task.credentials();
        if creds.fsuid != attributes.uid && !creds.capable(CAP_LEASE) {
            return Err(Errno::EACCES);
        }
        if attributes.file_type() != FileType::Regular {
            return Err(Errno::EINVAL);
        }
    }
    Err(Errno::EAGAIN)
}

/// The last descriptor of an open file description is gone: its flock and OFD locks go too.
pub(super) fn file_closed(file: &File) {
    let (table, ino) = table(file);
    if !table.is_empty() {
        table.clear_flock(ino, file.id());
        table.clear_owner(ino, Owner::description(file));
    }
}

/// A process closed a descriptor: its POSIX locks on the inode go, whichever descriptor they were made through.
pub(super) fn descriptor_closed(task: &CurrentTask, file: &Arc<File>) {
    if !table(file).0.is_empty() {
        owner_closed(Owner::process(&task.fds()), file);
    }
}

/// As [`descriptor_closed`], for a table that goes as a whole.
pub(super) fn owner_closed(owner: Owner, file: &File) {
    let (table, ino) = table(file);
    if !table.is_empty() {
        table.clear_owner(ino, owner);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INO: u64 = 7;

    fn lock(owner: usize, kind: Kind, start: u64, end: u64) -> RecordLock {
        RecordLock { owner: Owner::Process(owner), kind, range: Range { start, end }, pid: None }
    }

    #[test]
    fn ranges_are_those_of_struct_flock() {
        assert_eq!(Range::new(5, 0), Ok(Range { start: 5, end: Range::MAX }));
        assert_eq!(Range::new(5, 1), Ok(Range { start: 5, end: 5 }));
        assert_eq!(Range::new(5, -5), Ok(Range { start: 0, end: 4 }));
        assert_eq!(Range::new(5, -6), Err(Errno::EINVAL));
        assert_eq!(Range::new(-1, 5), Err(Errno::EINVAL));
        assert_eq!(Range::new(0, i64::MIN), Err(Errno::EINVAL));
        assert_eq!(Range::new(2, i64::MAX), Err(Errno::EOVERFLOW));
        assert_eq!(Range::new(1, i64::MAX), Ok(Range { start: 1, end: Range::MAX }));
        assert_eq!(Range::new(0, 0).unwrap().len(), 0);
        assert_eq!(Range::new(3, 4).unwrap().len(), 4);
    }

    #[test]
    fn a_circle_of_waiters_is_a_deadlock() {
        let table = LockTable::default();
        let (a, b, c) = (1001, 1002, 1003);
        for (owner, at) in [(a, 0), (b, 1), (c, 2)] {
            table.set_record(INO, &lock(owner, Kind::Write, at, at)).unwrap();
        }
        let (first, second) = (table.waiter(INO), table.waiter(INO));
        let wants = |owner, at, waiter: &Waiter<'_>| {
            table.try_record(INO, &lock(owner, Kind::Write, at, at), Some(waiter.ticket))
        };
        assert_eq!(wants(a, 1, &first), Err(Errno::EAGAIN));
        assert_eq!(wants(b, 2, &second), Err(Errno::EAGAIN));
        let third = table.waiter(INO);
        assert_eq!(wants(c, 0, &third), Err(Errno::EDEADLK));
        // A lock that is waited for no longer closes no circle.
        drop(second);
        assert_eq!(wants(c, 0, &third), Err(Errno::EAGAIN));
        drop((first, third));
        assert!(!WAITING.lock().iter().any(|edge| edge.place == table.place(INO)));
    }

    #[test]
    fn descriptions_do_not_deadlock() {
        let table = LockTable::default();
        let one = RecordLock { owner: Owner::Description(1), ..lock(0, Kind::Write, 0, 0) };
        let two = RecordLock { owner: Owner::Description(2), ..lock(0, Kind::Write, 1, 1) };
        table.set_record(INO, &one).unwrap();
        table.set_record(INO, &two).unwrap();
        let (w1, w2) = (table.waiter(INO), table.waiter(INO));
        let at = |lock: &RecordLock, start| RecordLock { range: Range { start, end: start }, ..lock.clone() };
        assert_eq!(table.try_record(INO, &at(&one, 1), Some(w1.ticket)), Err(Errno::EAGAIN));
        assert_eq!(table.try_record(INO, &at(&two, 0), Some(w2.ticket)), Err(Errno::EAGAIN));
    }

    #[test]
    fn giving_up_a_lock_wakes_who_waits() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl crate::wait::Wake for Flag {
            fn wake(&self, _: PollEvents) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let table = LockTable::default();
        table.set_record(INO, &lock(1, Kind::Write, 0, 9)).unwrap();
        let waiter = table.waiter(INO);
        let flag = Arc::new(Flag(false.into()));
        let _registration = waiter.queue.register(PollEvents::POLLIN, flag.clone());
        assert_eq!(table.set_record(INO, &lock(2, Kind::Read, 0, 0)), Err(Errno::EAGAIN));
        table.clear_record(INO, Owner::Process(1), Range { start: 0, end: 4 }).unwrap();
        assert!(flag.0.swap(false, Ordering::SeqCst));
        table.set_record(INO, &lock(1, Kind::Read, 0, 9)).unwrap();
        assert!(flag.0.swap(false, Ordering::SeqCst));
        table.set_flock(INO, 1, Kind::Write).unwrap();
        table.clear_flock(INO, 1);
        assert!(flag.0.load(Ordering::SeqCst));
    }

    #[test]
    fn a_failed_conversion_loses_the_flock() {
        let table = LockTable::default();
        table.set_flock(INO, 1, Kind::Read).unwrap();
        table.set_flock(INO, 2, Kind::Read).unwrap();
        assert_eq!(table.set_flock(INO, 1, Kind::Write), Err(Errno::EAGAIN));
        table.set_flock(INO, 2, Kind::Write).unwrap();
        assert_eq!(table.set_flock(INO, 1, Kind::Read), Err(Errno::EAGAIN));
        table.clear_flock(INO, 2);
        table.set_flock(INO, 1, Kind::Read).unwrap();
        table.clear_flock(INO, 1);
        assert!(table.is_empty());
    }

    /// What each owner has on each byte.
    type Model = [[Option<Kind>; 24]; 3];

    fn allowed(model: &Model, owner: usize, kind: Kind, range: std::ops::RangeInclusive<usize>) -> bool {
        let clash = |held: Option<Kind>| held == Some(Kind::Write) || (held.is_some() && kind == Kind::Write);
        (0..3).filter(|&other| other != owner).all(|other| range.clone().all(|at| !clash(model[other][at])))
    }

    proptest! {
        #[test]
        fn record_locks_are_as_if_each_byte_had_its_own(
            steps in prop::collection::vec((0..3usize, 0..3u8, 0..24usize, 0..24usize), 1..60)
        ) {
            let table = LockTable::default();
            let mut model: Model = [[None; 24]; 3];
            for (owner, action, a, b) in steps {
                let (start, end) = (a.min(b), a.max(b));
                let range = Range { start: start as u64, end: end as u64 };
                let kind = match action { 0 => Some(Kind::Read), 1 => Some(Kind::Write), _ => None };
                match kind {
                    Some(kind) => {
                        let expected = allowed(&model, owner, kind, start..=end);
                        let lock = lock(owner, kind, range.start, range.end);
                        prop_assert_eq!(table.conflicting_record(INO, &lock).is_none(), expected);
                        prop_assert_eq!(table.set_record(INO, &lock).is_ok(), expected);
                        if expected {
                            model[owner][start..=end].fill(Some(kind));
                        }
                    }
                    None => {
                        table.clear_record(INO, Owner::Process(owner), range).unwrap();
                        model[owner][start..=end].fill(None);
                    }
                }
                let listed = table.list();
                let records = listed.first().map(|(_, records, _)| &records[..]).unwrap_or_default();
                let mut seen: Model = [[None; 24]; 3];
                for held in records {
                    let Owner::Process(owner) = held.owner else { unreachable!() };
                    for at in held.range.start..=held.range.end {
                        prop_assert_eq!(seen[owner][at as usize].replace(held.kind), None);
                    }
                }
                prop_assert_eq!(seen, model);
                // Neighbours of one kind are one lock.
                for (owner, bytes) in model.iter().enumerate() {
                    let runs = (0..24).filter(|&i| bytes[i].is_some() && (i == 0 || bytes[i - 1] != bytes[i]));
                    let held = records.iter().filter(|h| h.owner == Owner::Process(owner));
                    prop_assert_eq!(held.count(), runs.count());
                }
            }
        }
    }
}
