//! One stub process: its command socket, its threads' slots.
//!
//! Lock order: `StubProcess::channel`, then `StubProcess::slots`, then those of [`super::death`].

use super::arch::THREAD_FLAGS;
use super::death::{State, Watcher};
use super::filter::FAR;
use super::processor::Binding;
use super::tracee::Tracee;
use super::{
    LOOK_AFTER, MAX_FDS, MAX_OPS, MAX_SLOTS, REPLY_TIMEOUT, SCRATCH_OFFSET, SLOT_SIZE, SLOTS, STUB_DATA,
};
use crate::{Death, Errno, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use parking_lot::{Mutex, MutexGuard};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// One operation of a command: a raw system call made by the service thread, or one of the special operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Op {
    number: u32,
    flags: u32,
    args: [u64; 6],
}

const OP_FORK: u32 = 0x4000_0000;
const OP_THREAD: u32 = 0x4000_0001;
const OP_CMPXCHG: u32 = 0x4000_0002;
const NO_FD: u32 = 7;
const KEEP_GOING: u32 = 8;

impl Op {
    /// A system call (`SYS_*`).
    pub fn call(number: i64, args: [u64; 6]) -> Op {
        Op { number: number as u32, flags: NO_FD, args }
    }

    /// Number and arguments.
    pub(super) fn parts(&self) -> (u64, [u64; 6]) {
        (u64::from(self.number), self.args)
    }

    /// Says that argument `arg` (0..6) is an index into the command's file descriptors.
    pub fn with_fd(mut self, arg: u32) -> Op {
        self.flags = self.flags & !7 | arg;
        self
    }

    pub(super) fn set_arg(mut self, arg: usize, value: u64) -> Op {
        if let Some(slot) = self.args.get_mut(arg) {
            *slot = value;
        }
        self
    }

    /// Goes on with the next operation even if this one fails.
    pub fn keep_going(mut self) -> Op {
        self.flags |= KEEP_GOING;
        self
    }

    /// Closes all descriptors but the command socket: those that came with a command, and what other threads of the process
    /// that was forked had open.
    fn close_all() -> Op {
        Op::call(libc::SYS_close_range, [1, u64::from(u32::MAX), 0, 0, 0, 0])
    }

    /// Atomic compare-and-exchange of a 32-bit word: the value found, or -EFAULT.
    pub fn compare_exchange(addr: u64, expected: u32, new: u32) -> Op {
        Op { number: OP_CMPXCHG, flags: NO_FD, args: [addr, u64::from(expected), u64::from(new), 0, 0, 0] }
    }
}

/// Bytes of what a new thread says.
const GREETING: usize = 4;

/// What a service thread said.
pub(super) struct Reply {
    pub(super) results: Vec<i64>,
    pub(super) sender: i32,
}

pub(super) struct Channel {
    socket: OwnedFd,
    sequence: u32,
    /// What a new thread said before somebody waited for it.
    greeting: Option<i32>,
}

impl Channel {
    /// A pair of sockets: ours, and the stub's.
    pub(super) fn pair() -> Result<(Channel, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // The kernel's word for who sent a message.
        setsockopt(&ours, sockopt::PassCred, &true)?;
        let look_after = TimeVal::milliseconds(LOOK_AFTER.as_millis() as i64);
        setsockopt(&ours, sockopt::ReceiveTimeout, &look_after)?;
        let timeout = TimeVal::seconds(REPLY_TIMEOUT.as_secs() as i64);
        setsockopt(&ours, sockopt::SendTimeout, &timeout)?;
        Ok((Channel { socket: ours, sequence: 0, greeting: None }, theirs))
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives one message into `buf`. ESRCH if the other side is gone, ETIMEDOUT if it is silent; `look` is called
    /// meanwhile, every now and then. (No stub can send descriptors: its filter does not have sendmsg(2).)
    fn receive(&self, buf: &mut [u8], mut look: impl FnMut()) -> Result<(usize, i32)> {
        let mut looks = REPLY_TIMEOUT.as_millis() / LOOK_AFTER.as_millis();
        let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
        let mut sender = 0;
        let n = loop {
            let mut iov = [IoSliceMut::new(buf)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
                Ok(message) => {
                    let n = message.bytes;
                    for part in message.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmCredentials(c) = part {
                            sender = c.pid();
                        }
                    }
                    break n;
                }
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EAGAIN) if looks == 0 => return Err(Errno::ETIMEDOUT),
                Err(nix::errno::Errno::EAGAIN) => {
                    looks -= 1;
                    look();
                }
                Err(_) => return Err(Errno::ESRCH),
            }
        };
        if n == 0 { Err(Errno::ESRCH) } else { Ok((n, sender)) }
    }

    /// Waits for the reply with this sequence number.
    fn reply(&mut self, sequence: u32, limit: usize, mut look: impl FnMut()) -> Result<Reply> {
        let mut buf = [0u8; 8 + 8 * MAX_OPS];
        loop {
            let (n, sender) = self.receive(&mut buf, &mut look)?;
            if n == GREETING {
                // One at most, or the guest keeps us here.
                let [a, b, c, d, ..] = buf;
                if self.greeting.replace(i32::from_le_bytes([a, b, c, d])).is_some() {
                    return Err(Errno::EPROTO);
                }
                continue;
            }
            let word =
                |i: usize| buf.get(i..i + 4).map(|b| u32::from_le_bytes(b.try_into().unwrap_or([0; 4])));
            let done = word(4).unwrap_or(u32::MAX) as usize;
            if word(0) != Some(sequence) || done > limit || n != 8 + 8 * done {
                return Err(Errno::EPROTO);
            }
            let results = buf
                .iter()
                .as_slice()
                .chunks_exact(8)
                .skip(1)
                .take(done)
                .map(|c| i64::from_le_bytes(c.try_into().unwrap_or([0; 8])))
                .collect();
            return Ok(Reply { results, sender });
        }
    }

    /// Waits for what a new thread says.
    fn greeting(&mut self, look: impl FnMut()) -> Result<i32> {
        if let Some(said) = self.greeting.take() {
            return Ok(said);
        }
        let mut word = [0u8; GREETING];
        // A longer message would be cut.
        let mut buf = [0u8; GREETING + 1];
        match self.receive(&mut buf, look)? {
            (GREETING, _) => {
                word.copy_from_slice(&buf[..GREETING]);
                Ok(i32::from_le_bytes(word))
            }
            _ => Err(Errno::EPROTO),
        }
    }

    fn send(&mut self, ops: &[Op], fds: &[BorrowedFd<'_>]) -> Result<u32> {
        if ops.is_empty() || ops.len() > MAX_OPS || fds.len() > MAX_FDS {
            return Err(Errno::EINVAL);
        }
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let header = [self.sequence, ops.len() as u32];
        let iov = [IoSlice::new(header.as_bytes()), IoSlice::new(ops.as_bytes())];
        let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(self.sequence),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => return Err(Errno::ESRCH),
                // EMFILE, ETOOMANYREFS, ENOMEM: nothing was sent.
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Thread slots: those never used begin at `next`.
#[derive(Default)]
struct Slots {
    next: u32,
    free: Vec<u32>,
}

/// A slot of the stub region, for one guest thread's stack and control pages. Freed on drop: only after the thread that
/// uses it is gone.
pub struct Slot {
    process: Arc<StubProcess>,
    index: u32,
}

impl Slot {
    /// Number of the slot, below [`MAX_SLOTS`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its first byte; it has [`SLOT_SIZE`] bytes.
    pub fn addr(&self) -> u64 {
        SLOTS + u64::from(self.index) * SLOT_SIZE
    }

    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.addr() + SLOT_SIZE
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.process.slots.lock().free.push(self.index);
    }
}

/// A stub process. Dropping the last handle kills and reaps it.
pub struct StubProcess {
    watcher: Arc<Watcher>,
    state: Arc<State>,
    channel: Mutex<Channel>,
    slots: Mutex<Slots>,
    binding: Binding,
}

impl Drop for StubProcess {
    fn drop(&mut self) {
        self.watcher.release(self.state.pid());
    }
}

impl StubProcess {
    /// Wraps a process that has said that it is ready.
    fn new(
        watcher: Arc<Watcher>,
        state: Arc<State>,
        channel: Channel,
        binding: Binding,
    ) -> std::result::Result<StubProcess, (Arc<State>, Errno)> {
        if let Err(e) = watcher.register(&state, channel.socket()) {
            return Err((state, e));
        }
        Ok(StubProcess { watcher, state, channel: Mutex::new(channel), slots: Mutex::default(), binding })
    }

    /// The host's process id.
    pub fn pid(&self) -> i32 {
        self.state.pid()
    }

    /// Whether and why it is dead.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Kills it ([`crate::AddressSpace::kill`]).
    pub fn kill(&self) {
        self.state.kill(Death::Killed);
    }

    pub(super) fn lock_channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock()
    }

    /// Makes the service thread carry out `ops` (at most [`MAX_OPS`]) in order, with `fds` (at most [`MAX_FDS`]) open
    /// in it meanwhile. Stops after the first failure unless told to keep going. Returns the result registers of the
    /// operations done. Fails with ESRCH if the process is dead, and kills it if it does not follow the protocol;
    /// another errno means that nothing was done.
    pub fn execute(&self, ops: &[Op], fds: &[BorrowedFd<'_>]) -> Result<Vec<i64>> {
        Ok(self.command(&mut self.channel.lock(), ops, fds)?.results)
    }

    fn command(&self, channel: &mut Channel, ops: &[Op], fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.state.alive()?;
        self.binding.follow(&self.watcher.processors, self.pid());
        let answer = channel.send(ops, fds).and_then(|sequence| {
            let mut tracee = None;
            channel.reply(sequence, ops.len(), || self.look_after(&mut tracee, self.pid()))
        });
        answer.map_err(|e| self.broken(e))
    }

    /// Sees to it that a thread answers that is expected to, if it does not because somebody has stopped the process.
    fn look_after<'a>(&'a self, tracee: &mut Option<Tracee<'a>>, tid: i32) {
        let is_new = tracee.is_none();
        if is_new {
            *tracee = Tracee::seize(tid, &self.state).ok().filter(Tracee::is_held);
        }
        if let Some(held) = tracee {
            if is_new {
                tracing::info!(pid = self.pid(), "a stub process is stopped from outside");
            }
            // It is dead if this fails, which shows soon.
            let _ = held.run();
        }
    }

    fn broken(&self, e: Errno) -> Errno {
        match e {
            Errno::ESRCH => self.state.kill(Death::Host),
            Errno::EPROTO => self.state.misbehaved("a reply that makes no sense"),
            Errno::ETIMEDOUT => self.state.misbehaved("no reply"),
            other => return other,
        }
        Errno::ESRCH
    }

    /// The single result of one operation, as a number or an errno.
    pub fn call(&self, op: Op, fds: &[BorrowedFd<'_>]) -> Result<u64> {
        let results = self.execute(&[op], fds)?;
        match results.first() {
            Some(n) => check(*n),
            None => {
                self.state.misbehaved("an empty reply");
                Err(Errno::ESRCH)
            }
        }
    }

    /// Enters cgroups by files `tasks` or `cgroup.procs` ([`crate::Platform::branch`]), before it has other threads.
    ///
    /// To be moved by another process costs a grace period of the host's kernel, some ten milliseconds in which nobody
    /// makes, enters or leaves a cgroup: it waits until no thread of the host is about to fork or exit. Who moves its only
    /// thread waits for nobody.
    pub fn enter(&self, entrances: &[BorrowedFd<'_>]) -> Result<()> {
        if entrances.is_empty() {
            return Ok(());
        }
        // The writer itself.
        self.write_stub(STUB_DATA + SCRATCH_OFFSET, b"0")?;
        let enter = |index| {
            Op::call(libc::SYS_pwrite64, [index, STUB_DATA + SCRATCH_OFFSET, 1, FAR, 0, 0]).with_fd(0)
        };
        let ops: Vec<Op> = (0..entrances.len() as u64).map(enter).collect();
        let results = self.execute(&ops, entrances)?;
        for result in &results {
            check(*result)?;
        }
        if results.len() != ops.len() {
            self.state.misbehaved("operations left undone");
            return Err(Errno::ESRCH);
        }
        Ok(())
    }

    /// A copy of the process with one thread, the service thread. Thread slots are not part of it.
    pub fn fork(&self) -> Result<Arc<StubProcess>> {
        Ok(self.beget(&[Op::close_all()], &[])?.0)
    }

    /// [`StubProcess::fork`], and in the copy a thread that will say which of its descriptors it has for the sentry, as with
    /// [`StubProcess::spawn_thread_with_fd`]: it is there before we are told of the process, which saves some switches. Returns
    /// its tid. Before another thread is made, [`StubProcess::descriptor`] has to be called.
    pub fn fork_with_thread(
        &self,
        before: &[Op],
        fds: &[BorrowedFd<'_>],
        stack: u64,
        entry: u64,
    ) -> Result<(Arc<StubProcess>, i32)> {
        let mut ops = Vec::with_capacity(before.len() + 2);
        ops.extend_from_slice(before);
        // The thread's own descriptors come after this.
        ops.push(Op::close_all());
        ops.push(Op { number: OP_THREAD, flags: NO_FD, args: [stack, entry, 0, THREAD_FLAGS, 0, 0] });
        let (process, reply) = self.beget(&ops, fds)?;
        let tid = process.spawned(&ops, &reply.results)?;
        Ok((process, tid))
    }

    /// The descriptor that `tid`, the process's first thread, has for the sentry.
    pub fn descriptor(&self, tid: i32) -> Result<OwnedFd> {
        self.greeted(&mut self.channel.lock(), tid)
    }

    /// Forks a process that carries out `after` as its first command. There is [`Op::close_all`] in it.
    fn beget(&self, after: &[Op], fds: &[BorrowedFd<'_>]) -> Result<(Arc<StubProcess>, Reply)> {
        self.watcher.start()?;
        let (mut ours, theirs) = Channel::pair()?;
        let index = fds.len() as u64;
        let mut ops = Vec::with_capacity(after.len() + 1);
        ops.push(Op { number: OP_FORK, flags: NO_FD, args: [index, 0, 0, 0, 0, 0] }.with_fd(0));
        ops.extend_from_slice(after);
        let mut fds = fds.to_vec();
        fds.push(theirs.as_fd());
        let mut channel = self.channel.lock();
        self.state.alive()?;
        self.binding.follow(&self.watcher.processors, self.pid());
        let sequence = channel.send(&ops, &fds).map_err(|e| self.broken(e))?;
        drop(theirs);
        // The child first: what the parent says meanwhile need not wake us. (If there is no child, nobody has the other end.)
        let mut tracee = None;
        let ready = ours.reply(sequence, after.len(), || self.look_after(&mut tracee, self.pid()));
        let reply = channel.reply(sequence, 1, || self.look_after(&mut tracee, self.pid()));
        drop(tracee);
        let results = reply.map_err(|e| self.broken(e))?.results;
        drop(channel);
        let hint = check(results.first().copied().unwrap_or(-i64::from(libc::EPROTO)))?;
        let ready = match ready {
            Ok(ready) => ready,
            Err(e) => {
                // Either the child died at birth, or the parent lied.
                tracing::warn!(pid = self.pid(), hint, error = ?e, "no word from a forked stub process");
                return Err(Errno::EAGAIN);
            }
        };
        let process =
            adopt(self.watcher.clone(), ready.sender, ours, self.binding.inherited()).inspect_err(|e| {
                if *e == Errno::EPROTO {
                    self.state.misbehaved("a fork that is not our new child");
                }
            })?;
        Ok((process, ready))
    }

    /// A free thread slot. EAGAIN if all are taken.
    pub fn allocate_slot(self: &Arc<StubProcess>) -> Result<Slot> {
        let mut slots = self.slots.lock();
        let index = match slots.free.pop() {
            Some(index) => index,
            None if slots.next < MAX_SLOTS => {
                slots.next += 1;
                slots.next - 1
            }
            None => return Err(Errno::EAGAIN),
        };
        drop(slots);
        Ok(Slot { process: self.clone(), index })
    }

    /// Operations that fill a slot with private zero pages that forks do not inherit.
    pub fn slot_memory(slot: &Slot) -> [Op; 2] {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        [
            Op::call(libc::SYS_mmap, [slot.addr(), SLOT_SIZE, prot as u64, flags as u64, u64::MAX, 0]),
            Op::call(libc::SYS_madvise, [slot.addr(), SLOT_SIZE, libc::MADV_DONTFORK as u64, 0, 0, 0]),
        ]
    }

    /// Starts a thread with the stack pointer `stack` at `entry` in the stub's text, with `arg` in its first argument
    /// register, after `before` was carried out. It has the service thread's filter and signal mask, and no
    /// alternate stack. Returns its tid, which is a thread of this process but perhaps not a new one: the caller knows
    /// those that it has.
    pub fn spawn_thread(
        &self,
        before: &[Op],
        fds: &[BorrowedFd<'_>],
        stack: u64,
        entry: u64,
        arg: u64,
    ) -> Result<i32> {
        let mut ops = Vec::with_capacity(before.len() + 1);
        ops.extend_from_slice(before);
        ops.push(Op { number: OP_THREAD, flags: NO_FD, args: [stack, entry, arg, THREAD_FLAGS, 0, 0] });
        let results = self.execute(&ops, fds)?;
        self.spawned(&ops, &results)
    }

    /// [`StubProcess::spawn_thread`] of a thread that first of all says by four bytes on the command socket which of its
    /// descriptors it has for the sentry, or a negative errno, which is the error here. The descriptor is whatever the
    /// guest likes it to be. (The sentry takes it by itself: who may send descriptors may also fill up what the host
    /// allows a user to have in flight, for the stubs of all sandboxes.)
    pub fn spawn_thread_with_fd(
        &self,
        before: &[Op],
        fds: &[BorrowedFd<'_>],
        stack: u64,
        entry: u64,
        arg: u64,
    ) -> Result<(i32, OwnedFd)> {
        let mut ops = Vec::with_capacity(before.len() + 1);
        ops.extend_from_slice(before);
        ops.push(Op { number: OP_THREAD, flags: NO_FD, args: [stack, entry, arg, THREAD_FLAGS, 0, 0] });
        let mut channel = self.channel.lock();
        let reply = self.command(&mut channel, &ops, fds)?;
        let tid = self.spawned(&ops, &reply.results)?;
        Ok((tid, self.greeted(&mut channel, tid)?))
    }

    /// The descriptor of a new thread, which says its number before or after the reply.
    fn greeted(&self, channel: &mut Channel, tid: i32) -> Result<OwnedFd> {
        let mut tracee = None;
        let said = channel.greeting(|| self.look_after(&mut tracee, tid));
        drop(tracee);
        let number = check(said.map_err(|e| self.broken(e))?.into())?;
        self.state.descriptor(number as RawFd)
    }

    /// The tid of a new thread, from the results of the operations that made it.
    fn spawned(&self, ops: &[Op], results: &[i64]) -> Result<i32> {
        let last = check(results.last().copied().unwrap_or(-i64::from(libc::EPROTO)))?;
        let tid = i32::try_from(last).unwrap_or(0);
        // SAFETY: a plain system call; signal 0 only asks.
        let ours = tid > 0
            && tid != self.pid()
            && unsafe { libc::syscall(libc::SYS_tgkill, self.pid(), tid, 0) } == 0;
        if results.len() != ops.len() || !ours {
            self.state.alive()?;
            self.state.misbehaved("a new thread that is none");
            return Err(Errno::ESRCH);
        }
        self.watcher.processors.free(tid);
        Ok(tid)
    }
}

impl Channel {
    /// The first message of a stub process.
    pub(super) fn reply_ready(&self) -> Result<Reply> {
        let mut buf = [0u8; 16];
        let (n, sender) = self.receive(&mut buf, || {})?;
        let word = |i: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|k| buf[i + k]));
        match n {
            // A template that could not get ready: the step, and -errno.
            16 => Ok(Reply { results: vec![word(0) as i64, word(8) as i64], sender }),
            8 => Ok(Reply { results: Vec::new(), sender }),
            _ => Err(Errno::EPROTO),
        }
    }
}

/// Takes charge of a process that announced itself on `channel`. `sender` comes from the kernel, but may be any
/// process that had the other end: EPROTO unless it is an unknown child of ours.
pub(super) fn adopt(
    watcher: Arc<Watcher>,
    sender: i32,
    channel: Channel,
    binding: Binding,
) -> Result<Arc<StubProcess>> {
    // A child that nobody has waited for keeps its pid.
    // SAFETY: plain system calls; the raw waitid takes a null siginfo.
    let child = sender > 0
        && unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PID,
                sender,
                std::ptr::null::<libc::siginfo_t>(),
                libc::WEXITED | libc::__WALL | libc::WNOHANG | libc::WNOWAIT,
                std::ptr::null::<libc::rusage>(),
            )
        } == 0;
    if !child {
        return Err(Errno::EPROTO);
    }
    // Whatever it forks without being told is in its group, and ends with it. (If it is too late for this, it is dead.)
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(sender), nix::unistd::Pid::from_raw(sender));
    // SAFETY: a plain system call that returns a new descriptor.
    let pidfd = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, sender, 0) as RawFd;
        nix::errno::Errno::result(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    let state = State::new(sender, pidfd);
    match StubProcess::new(watcher, state, channel, binding) {
        Ok(process) => Ok(Arc::new(process)),
        Err((_, Errno::EEXIST)) => Err(Errno::EPROTO),
        Err((state, e)) => {
            // Nobody watches it: reap it here.
            state.kill(Death::Killed);
            state.wait();
            Err(e)
        }
    }
}

/// A result register as a number or an errno.
pub fn check(result: i64) -> Result<u64> {
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(result as u64) }
}
