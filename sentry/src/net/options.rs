//! What every socket has, and the options of SOL_SOCKET (socket(7), net/core/sock.c).

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use abi::netdevice::IFNAMSIZ;
use abi::poll::PollEvents;
use abi::socket as s;
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::NetNamespace;
use super::socket::{ControlMessage, OptionValue, PeerIdentity, Received, Socket, int_value};
use crate::parameters::{RMEM_DEFAULT, RMEM_MAX, WMEM_DEFAULT, WMEM_MAX};
use crate::task::Task;
use crate::task::credentials::OVERFLOW_ID;
use crate::vfs::Path;
use crate::wait::WaitQueue;

/// No timeout.
pub const FOREVER: u64 = u64::MAX;

/// The most bytes of an option's value that are looked at.
pub const VALUE_MAX: usize = 256;

/// What SO_SNDBUF and SO_RCVBUF cannot go below.
const SEND_BUFFER_MIN: u32 = 4608;
const RECEIVE_BUFFER_MIN: u32 = 2304;

/// Receivers may shut down (RCV_SHUTDOWN).
pub const RECEIVE: u8 = 1;
/// Senders may shut down (SEND_SHUTDOWN).
pub const SEND: u8 = 2;

bitflags::bitflags! {
    /// Options that are on or off.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Switches: u32 {
        #[allow(missing_docs, reason = "the names are Linux's")]
        const DEBUG = 1;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const REUSEADDR = 2;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const DONTROUTE = 4;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const BROADCAST = 8;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const KEEPALIVE = 0x10;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const OOBINLINE = 0x20;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const REUSEPORT = 0x40;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const PASSCRED = 0x80;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const PASSSEC = 0x100;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const PASSPIDFD = 0x200;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const PASSRIGHTS = 0x400;
        /// SO_TIMESTAMP or SO_TIMESTAMPNS.
        const TIMESTAMP = 0x800;
        /// It is SO_TIMESTAMPNS.
        const NANOSECONDS = 0x1000;
        /// It is the `_NEW` one.
        const TIMESTAMP_NEW = 0x2000;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const RXQ_OVFL = 0x4000;
        /// SO_SNDBUF was set (SOCK_SNDBUF_LOCK).
        const SEND_BUFFER_SET = 0x8000;
        /// SO_RCVBUF was set (SOCK_RCVBUF_LOCK).
        const RECEIVE_BUFFER_SET = 0x10000;
        /// SO_TIMESTAMPING asks for what can be given: software stamps of arrival.
        const TIMESTAMPING = 0x20000;
        #[allow(missing_docs, reason = "the names are Linux's")]
        const INQ = 0x40000;
    }
}

/// The switches that SOL_SOCKET sets directly.
const SWITCHES: [(i32, Switches); 9] = [
    (s::SO_DEBUG, Switches::DEBUG),
    (s::SO_REUSEADDR, Switches::REUSEADDR),
    (s::SO_DONTROUTE, Switches::DONTROUTE),
    (s::SO_BROADCAST, Switches::BROADCAST),
    (s::SO_KEEPALIVE, Switches::KEEPALIVE),
    (s::SO_OOBINLINE, Switches::OOBINLINE),
    (s::SO_REUSEPORT, Switches::REUSEPORT),
    (s::SO_RXQ_OVFL, Switches::RXQ_OVFL),
    (s::SO_INQ, Switches::INQ),
];

/// Options that are remembered for getsockopt(2) and mean nothing to a sandbox without devices: name, is it a
/// boolean, default.
const REMEMBERED: [(i32, bool, i32); 14] = [
    (s::SO_NO_CHECK, true, 0),
    (s::SO_PRIORITY, false, 0),
    (s::SO_MARK, false, 0),
    (s::SO_WIFI_STATUS, true, 0),
    (s::SO_NOFCS, true, 0),
    (s::SO_LOCK_FILTER, true, 0),
    (s::SO_SELECT_ERR_QUEUE, true, 0),
    (s::SO_BUSY_POLL, false, 0),
    (s::SO_INCOMING_CPU, false, -1),
    (s::SO_PREFER_BUSY_POLL, true, 0),
    (s::SO_BUSY_POLL_BUDGET, false, 0),
    (s::SO_RCVMARK, true, 0),
    (s::SO_RCVPRIORITY, true, 0),
    (s::SO_TXREHASH, false, 1),
];

/// The bytes that a socket has sent and others have not yet taken (`sk_wmem_alloc`). It outlives the socket as long as
/// there are messages of it.
pub struct SendAccount {
    used: AtomicUsize,
    limit: AtomicU32,
    queue: WaitQueue,
}

impl SendAccount {
    /// Bytes not taken yet.
    pub fn used(&self) -> usize {
        // Who waits for room has entered a queue before; the order matters.
        self.used.load(SeqCst)
    }

    /// SO_SNDBUF.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed) as usize
    }

    /// May something be sent now?
    pub fn has_room(&self) -> bool {
        self.used() < self.limit()
    }

    /// What poll(2) calls writable: three quarters are free.
    pub fn is_writable(&self) -> bool {
        self.used().saturating_mul(4) <= self.limit()
    }

    /// Takes up room, until the result is dropped. It may go beyond the limit once.
    pub fn charge(self: &Arc<SendAccount>, amount: usize) -> Charge {
        self.used.fetch_add(amount, Relaxed);
        Charge { account: self.clone(), amount }
    }
}

/// Room that a message takes up in its sender's buffer.
pub struct Charge {
    account: Arc<SendAccount>,
    amount: usize,
}

impl Charge {
    /// Who sent it.
    pub fn account(&self) -> &Arc<SendAccount> {
        &self.account
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let account = &self.account;
        // Only the crossing of the threshold is news. It is ordered against those who wait by the queue's lock.
        let before = account.used.fetch_sub(self.amount, SeqCst);
        let limit = account.limit();
        let after = before - self.amount;
        if before.saturating_mul(4) > limit && after.saturating_mul(4) <= limit {
            account.queue.notify(PollEvents::WRITABLE | PollEvents::POLLWRBAND);
        }
    }
}

/// What every socket has.
pub struct Common {
    /// AF_*.
    pub domain: u16,
    /// SOCK_*.
    pub kind: u32,
    /// The protocol in force.
    pub protocol: u32,
    /// Its network.
    pub net: Arc<NetNamespace>,
    /// Where changes of poll are announced.
    pub queue: WaitQueue,
    /// What it has sent that waits at receivers.
    pub sent: Arc<SendAccount>,
    /// SO_RCVBUF.
    pub receive_buffer: AtomicU32,
    /// SO_RCVTIMEO in nanoseconds, or [`FOREVER`].
    pub receive_timeout: AtomicU64,
    /// SO_SNDTIMEO.
    pub send_timeout: AtomicU64,
    /// Messages dropped for want of room (SO_RXQ_OVFL, SO_MEMINFO).
    pub drops: AtomicU32,
    /// SO_PEEK_OFF, or -1.
    pub peek_offset: AtomicI32,
    switches: AtomicU32,
    receive_low: AtomicI32,
    /// SO_LINGER: -1 is off, else seconds.
    linger: AtomicI32,
    /// [`RECEIVE`] and [`SEND`].
    shutdown: AtomicU8,
    error: AtomicI32,
    bound_device: AtomicI32,
    timestamping: AtomicU32,
    pacing: AtomicU64,
    cookie: AtomicU64,
    remembered: Mutex<SmallVec<[(i32, i32, i32); 2]>>,
    place: OnceLock<Path>,
}

impl Common {
    /// With Linux's defaults.
    pub fn new(net: Arc<NetNamespace>, domain: u16, kind: u32, protocol: u32) -> Common {
        let queue = WaitQueue::new();
        let sent = SendAccount {
            used: AtomicUsize::new(0),
            limit: AtomicU32::new(WMEM_DEFAULT.get(&net.parameters) as u32),
            queue: queue.clone(),
        };
        let receive_buffer = AtomicU32::new(RMEM_DEFAULT.get(&net.parameters) as u32);
        Common {
            domain,
            kind,
            protocol,
            net,
            queue,
            sent: Arc::new(sent),
            receive_buffer,
            receive_timeout: AtomicU64::new(FOREVER),
            send_timeout: AtomicU64::new(FOREVER),
            drops: AtomicU32::new(0),
            peek_offset: AtomicI32::new(-1),
            switches: AtomicU32::new(Switches::PASSRIGHTS.bits()),
            receive_low: AtomicI32::new(1),
            linger: AtomicI32::new(-1),
            shutdown: AtomicU8::new(0),
            error: AtomicI32::new(0),
            bound_device: AtomicI32::new(0),
            timestamping: AtomicU32::new(0),
            pacing: AtomicU64::new(u64::MAX),
            cookie: AtomicU64::new(0),
            remembered: Mutex::default(),
            place: OnceLock::new(),
        }
    }

    /// Those of a connection that a listener makes: its options are the listener's.
    pub fn inherit(&self) -> Common {
        let child = Common::new(self.net.clone(), self.domain, self.kind, self.protocol);
        child.sent.limit.store(self.sent.limit.load(Relaxed), Relaxed);
        child.receive_buffer.store(self.receive_buffer.load(Relaxed), Relaxed);
        child.receive_timeout.store(self.receive_timeout.load(Relaxed), Relaxed);
        child.send_timeout.store(self.send_timeout.load(Relaxed), Relaxed);
        child.switches.store(self.switches.load(Relaxed), Relaxed);
        child.receive_low.store(self.receive_low.load(Relaxed), Relaxed);
        child.linger.store(self.linger.load(Relaxed), Relaxed);
        child.bound_device.store(self.bound_device.load(Relaxed), Relaxed);
        child.timestamping.store(self.timestamping.load(Relaxed), Relaxed);
        *child.remembered.lock() = self.remembered.lock().clone();
        child
    }

    /// Those of a connection that a Unix listener makes: only what it passes is the listener's.
    pub fn inherit_passing(&self) -> Common {
        let child = Common::new(self.net.clone(), self.domain, self.kind, self.protocol);
        let passing = Switches::PASSCRED | Switches::PASSSEC | Switches::PASSPIDFD | Switches::PASSRIGHTS;
        child.switches.store((self.switches() & passing).bits(), Relaxed);
        child
    }

    /// Is the option on?
    pub fn has(&self, switch: Switches) -> bool {
        self.switches.load(Relaxed) & switch.bits() == switch.bits()
    }

    /// All of them.
    pub fn switches(&self) -> Switches {
        Switches::from_bits_retain(self.switches.load(Relaxed))
    }

    /// Turns options on or off.
    pub fn switch(&self, switch: Switches, on: bool) {
        if on {
            self.switches.fetch_or(switch.bits(), Relaxed);
        } else {
            self.switches.fetch_and(!switch.bits(), Relaxed);
        }
    }

    /// SO_RCVLOWAT.
    pub fn receive_low(&self) -> usize {
        self.receive_low.load(Relaxed).max(1) as usize
    }

    /// SO_SNDBUF.
    pub fn send_buffer(&self) -> usize {
        self.sent.limit()
    }

    /// Changes SO_SNDBUF, as autotuning does.
    pub fn set_send_buffer(&self, size: u32) {
        self.sent.limit.store(size, Relaxed);
    }

    /// SO_RCVBUF.
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer.load(Relaxed) as usize
    }

    /// SO_LINGER in seconds.
    pub fn linger(&self) -> Option<u32> {
        u32::try_from(self.linger.load(Relaxed)).ok()
    }

    /// The device of SO_BINDTODEVICE; 0 is any.
    pub fn bound_device(&self) -> i32 {
        self.bound_device.load(Relaxed)
    }

    /// [`RECEIVE`] and [`SEND`].
    pub fn shut(&self) -> u8 {
        self.shutdown.load(SeqCst)
    }

    /// Adds to them.
    pub fn shut_down(&self, how: u8) {
        self.shutdown.fetch_or(how, SeqCst);
    }

    /// A socket that is used again after a disconnect.
    pub fn reopen(&self) {
        self.shutdown.store(0, SeqCst);
    }

    /// SO_ERROR: the pending error, which is taken.
    pub fn take_error(&self) -> Result<()> {
        if self.error.load(Relaxed) == 0 {
            return Ok(());
        }
        match self.error.swap(0, Relaxed) {
            0 => Ok(()),
            e => Err(Errno::from_raw(e)),
        }
    }

    /// Is an error pending?
    pub fn has_error(&self) -> bool {
        self.error.load(Relaxed) != 0
    }

    /// Makes an error pending. Who waits has to be told by the caller.
    pub fn set_error(&self, error: Errno) {
        self.error.store(error.raw(), Relaxed);
    }

    /// Where the socket is in sockfs, once it has a descriptor.
    pub fn place(&self) -> Option<&Path> {
        self.place.get()
    }

    pub(super) fn set_place(&self, place: Path) {
        // A socket is opened once.
        let _ = self.place.set(place);
    }

    /// Inode number and owner (a kernel uid), for `/proc/net`; zeroes as long as it has no descriptor.
    pub fn identity(&self) -> (u64, u32) {
        let Some(place) = self.place.get() else { return (0, 0) };
        let uid = place.inode().attributes().map_or(0, |a| a.uid);
        (place.inode().ino(), uid)
    }

    /// An option that is only remembered.
    pub fn remembered(&self, level: i32, name: i32) -> Option<i32> {
        let all = self.remembered.lock();
        all.iter().find(|(l, n, _)| (*l, *n) == (level, name)).map(|(_, _, value)| *value)
    }

    /// Remembers an option.
    pub fn remember(&self, level: i32, name: i32, value: i32) {
        let mut all = self.remembered.lock();
        match all.iter_mut().find(|(l, n, _)| (*l, *n) == (level, name)) {
            Some(entry) => entry.2 = value,
            None => all.push((level, name, value)),
        }
    }

    /// The time to note with a message that arrives, if somebody wants to know.
    pub fn arrival(&self) -> Option<Timespec> {
        self.switches().intersects(Switches::TIMESTAMP | Switches::TIMESTAMPING).then(crate::time::now)
    }

    /// The control messages that tell the time of arrival.
    pub fn stamp(&self, arrival: Option<Timespec>, control: &mut SmallVec<[Received; 1]>) {
        let switches = self.switches();
        let Some(time) = arrival.or_else(|| self.arrival()) else { return };
        let mut put = |kind: i32, data: &[u8]| {
            control.push(Received::Data(ControlMessage { level: s::SOL_SOCKET, kind, data: data.to_vec() }));
        };
        let new = switches.contains(Switches::TIMESTAMP_NEW);
        if switches.contains(Switches::TIMESTAMP | Switches::NANOSECONDS) {
            put(if new { s::SO_TIMESTAMPNS_NEW } else { s::SO_TIMESTAMPNS }, time.as_bytes());
        } else if switches.contains(Switches::TIMESTAMP) {
            let time = Timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 };
            put(if new { s::SO_TIMESTAMP_NEW } else { s::SO_TIMESTAMP }, time.as_bytes());
        }
        if switches.contains(Switches::TIMESTAMPING) {
            let times = [time, Timespec::default(), Timespec::default()];
            put(s::SO_TIMESTAMPING, times.as_bytes());
        }
    }
}

/// Families that pass credentials and files.
fn passes(common: &Common, name: i32) -> bool {
    match name {
        s::SO_PASSCRED | s::SO_PASSSEC => matches!(common.domain, s::AF_UNIX | s::AF_NETLINK),
        _ => common.domain == s::AF_UNIX,
    }
}

fn pass_switch(name: i32) -> Switches {
    match name {
        s::SO_PASSCRED => Switches::PASSCRED,
        s::SO_PASSSEC => Switches::PASSSEC,
        s::SO_PASSPIDFD => Switches::PASSPIDFD,
        _ => Switches::PASSRIGHTS,
    }
}

fn is_inet(common: &Common) -> bool {
    matches!(common.domain, s::AF_INET | s::AF_INET6)
}

/// setsockopt(2) at SOL_SOCKET.
pub(super) fn set(task: &Task, socket: &dyn Socket, name: i32, value: &[u8]) -> Result<()> {
    let common = socket.common();
    if name == s::SO_BINDTODEVICE {
        return bind_to_device(task, common, value);
    }
    let int = int_value(value)?;
    let on = int != 0;
    let admin = || common.net.capable(task, CAP_NET_ADMIN);
    let raw_or_admin = || common.net.capable(task, CAP_NET_RAW) || admin();
    if let Some((_, switch)) = SWITCHES.iter().find(|(n, _)| *n == name) {
        match name {
            s::SO_DEBUG if on && !admin() => return Err(Errno::EACCES),
            s::SO_REUSEPORT if on && !is_inet(common) => return Err(Errno::EOPNOTSUPP),
            s::SO_INQ if common.domain != s::AF_UNIX || common.kind != s::SOCK_STREAM => {
                return Err(Errno::ENOPROTOOPT);
            }
            _ => {}
        }
        common.switch(*switch, on);
        return Ok(());
    }
    match name {
        s::SO_TYPE | s::SO_PROTOCOL | s::SO_DOMAIN | s::SO_ERROR => Err(Errno::ENOPROTOOPT),
        s::SO_SNDBUF | s::SO_SNDBUFFORCE | s::SO_RCVBUF | s::SO_RCVBUFFORCE => {
            let force = matches!(name, s::SO_SNDBUFFORCE | s::SO_RCVBUFFORCE);
            if force && !admin() {
                return Err(Errno::EPERM);
            }
            // As an unsigned number; the doubling makes room for what is counted besides the data.
            let sends = matches!(name, s::SO_SNDBUF | s::SO_SNDBUFFORCE);
            let max = if sends { &WMEM_MAX } else { &RMEM_MAX };
            let limit = if force { i32::MAX / 2 } else { max.get(&common.net.parameters) as i32 };
            let wanted = if int < 0 && force { 0 } else { (int as u32).min(limit as u32) };
            if sends {
                common.set_send_buffer(wanted.saturating_mul(2).max(SEND_BUFFER_MIN));
                common.switch(Switches::SEND_BUFFER_SET, true);
            } else {
                common.receive_buffer.store(wanted.saturating_mul(2).max(RECEIVE_BUFFER_MIN), Relaxed);
                common.switch(Switches::RECEIVE_BUFFER_SET, true);
            }
            socket.buffers_changed();
            common.queue.notify(PollEvents::WRITABLE);
            Ok(())
        }
        s::SO_PRIORITY if !(0..=6).contains(&int) && !raw_or_admin() => Err(Errno::EPERM),
        s::SO_MARK if !raw_or_admin() => Err(Errno::EPERM),
        s::SO_BUSY_POLL if int < 0 => Err(Errno::EINVAL),
        s::SO_BUSY_POLL | s::SO_PREFER_BUSY_POLL | s::SO_BUSY_POLL_BUDGET if on && !admin() => {
            Err(Errno::EPERM)
        }
        s::SO_TXREHASH if !is_stream(common) => Err(Errno::EOPNOTSUPP),
        s::SO_TXREHASH if !(-1..=1).contains(&int) => Err(Errno::EINVAL),
        s::SO_LINGER => {
            let (linger, _) = s::Linger::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
            let seconds = if linger.l_onoff == 0 { -1 } else { linger.l_linger.max(0) };
            common.linger.store(seconds, Relaxed);
            Ok(())
        }
        s::SO_BSDCOMPAT | s::SO_CNX_ADVICE => Ok(()),
        s::SO_PASSCRED | s::SO_PASSSEC | s::SO_PASSPIDFD | s::SO_PASSRIGHTS => {
            if !passes(common, name) {
                return Err(Errno::EOPNOTSUPP);
            }
            common.switch(pass_switch(name), on);
            Ok(())
        }
        s::SO_RCVLOWAT => {
            common.receive_low.store(if int < 0 { i32::MAX } else { int.max(1) }, Relaxed);
            common.queue.notify(PollEvents::READABLE);
            Ok(())
        }
        s::SO_RCVTIMEO | s::SO_RCVTIMEO_NEW => set_timeout(&common.receive_timeout, value),
        s::SO_SNDTIMEO | s::SO_SNDTIMEO_NEW => set_timeout(&common.send_timeout, value),
        s::SO_TIMESTAMP | s::SO_TIMESTAMP_NEW | s::SO_TIMESTAMPNS | s::SO_TIMESTAMPNS_NEW => {
            let all = Switches::TIMESTAMP | Switches::NANOSECONDS | Switches::TIMESTAMP_NEW;
            common.switch(all, false);
            if on {
                let nanos = matches!(name, s::SO_TIMESTAMPNS | s::SO_TIMESTAMPNS_NEW);
                let new = matches!(name, s::SO_TIMESTAMP_NEW | s::SO_TIMESTAMPNS_NEW);
                common.switch(Switches::TIMESTAMP, true);
                common.switch(Switches::NANOSECONDS, nanos);
                common.switch(Switches::TIMESTAMP_NEW, new);
            }
            Ok(())
        }
        s::SO_TIMESTAMPING | s::SO_TIMESTAMPING_NEW => {
            if int as u32 & !SOF_TIMESTAMPING_MASK != 0 {
                return Err(Errno::EINVAL);
            }
            common.timestamping.store(int as u32, Relaxed);
            let software = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
            common.switch(Switches::TIMESTAMPING, int as u32 & software == software);
            Ok(())
        }
        s::SO_PEEK_OFF => {
            if common.domain == s::AF_NETLINK {
                return Err(Errno::EOPNOTSUPP);
            }
            common.peek_offset.store(int, Relaxed);
            Ok(())
        }
        s::SO_MAX_PACING_RATE => {
            let rate = match value.first_chunk() {
                Some(bytes) => u64::from_ne_bytes(*bytes),
                None if int == -1 => u64::MAX,
                None => u64::from(int as u32),
            };
            common.pacing.store(rate, Relaxed);
            Ok(())
        }
        s::SO_BINDTOIFINDEX => {
            if int < 0 {
                return Err(Errno::EINVAL);
            }
            if common.bound_device() != 0 && !common.net.capable(task, CAP_NET_RAW) {
                return Err(Errno::EPERM);
            }
            common.bound_device.store(int, Relaxed);
            Ok(())
        }
        s::SO_BUF_LOCK => {
            if int & !3 != 0 {
                return Err(Errno::EINVAL);
            }
            common.switch(Switches::SEND_BUFFER_SET, int & 1 != 0);
            common.switch(Switches::RECEIVE_BUFFER_SET, int & 2 != 0);
            Ok(())
        }
        s::SO_DETACH_FILTER => Err(Errno::ENOENT),
        s::SO_ZEROCOPY | s::SO_RESERVE_MEM => Err(Errno::EOPNOTSUPP),
        _ => {
            let (_, boolean, _) = REMEMBERED.iter().find(|(n, ..)| *n == name).ok_or(Errno::ENOPROTOOPT)?;
            common.remember(s::SOL_SOCKET, name, if *boolean { on.into() } else { int });
            Ok(())
        }
    }
}

const SOF_TIMESTAMPING_RX_SOFTWARE: u32 = 8;
const SOF_TIMESTAMPING_SOFTWARE: u32 = 16;
const SOF_TIMESTAMPING_MASK: u32 = (1 << 19) - 1;

fn is_stream(common: &Common) -> bool {
    is_inet(common) && common.kind == s::SOCK_STREAM
}

fn set_timeout(timeout: &AtomicU64, value: &[u8]) -> Result<()> {
    let (time, _) = Timeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    let nanos = match u64::try_from(time.tv_sec) {
        // What is in the past does not wait.
        Err(_) => 0,
        Ok(0) if time.tv_usec == 0 => FOREVER,
        Ok(seconds) => seconds.saturating_mul(1_000_000_000).saturating_add(time.tv_usec as u64 * 1000),
    };
    timeout.store(nanos, Relaxed);
    Ok(())
}

fn bind_to_device(task: &Task, common: &Common, value: &[u8]) -> Result<()> {
    if common.bound_device() != 0 && !common.net.capable(task, CAP_NET_RAW) {
        return Err(Errno::EPERM);
    }
    let name = value.get(..value.len().min(IFNAMSIZ - 1)).unwrap_or_default();
    let name = name.split(|&c| c == 0).next().unwrap_or_default();
    let index = if name.is_empty() { 0 } else { common.net.device.index_of(name).ok_or(Errno::ENODEV)? };
    common.bound_device.store(index, Relaxed);
    Ok(())
}

fn timeout_value(timeout: &AtomicU64) -> OptionValue {
    let nanos = match timeout.load(Relaxed) {
        FOREVER => 0,
        nanos => nanos,
    };
    let time =
        Timeval { tv_sec: (nanos / 1_000_000_000) as i64, tv_usec: (nanos % 1_000_000_000 / 1000) as i64 };
    OptionValue::object(&time)
}

/// getsockopt(2) at SOL_SOCKET.
pub(super) fn get(task: &Task, socket: &dyn Socket, name: i32, room: usize) -> Result<OptionValue> {
    let common = socket.common();
    let flag = |on: bool| Ok(OptionValue::int(on.into()));
    if let Some((_, switch)) = SWITCHES.iter().find(|(n, _)| *n == name) {
        // It can be set, and not asked for.
        if name == s::SO_INQ {
            return Err(Errno::ENOPROTOOPT);
        }
        return flag(common.has(*switch));
    }
    let switches = common.switches();
    let stamps = |nanos: bool, new: bool| {
        switches.contains(Switches::TIMESTAMP)
            && switches.contains(Switches::NANOSECONDS) == nanos
            && switches.contains(Switches::TIMESTAMP_NEW) == new
    };
    match name {
        s::SO_TYPE => Ok(OptionValue::int(common.kind as i32)),
        s::SO_PROTOCOL => Ok(OptionValue::int(common.protocol as i32)),
        s::SO_DOMAIN => Ok(OptionValue::int(common.domain.into())),
        s::SO_ERROR => Ok(OptionValue::int(common.take_error().err().map_or(0, Errno::raw))),
        s::SO_SNDBUF => Ok(OptionValue::int(common.send_buffer() as i32)),
        s::SO_RCVBUF => Ok(OptionValue::int(common.receive_buffer() as i32)),
        s::SO_LINGER => {
            let linger = common.linger();
            let value = s::Linger { l_onoff: linger.is_some().into(), l_linger: linger.unwrap_or(0) as i32 };
            Ok(OptionValue::object(&value))
        }
        s::SO_BSDCOMPAT => Ok(OptionValue::int(0)),
        s::SO_TIMESTAMP => flag(stamps(false, false)),
        s::SO_TIMESTAMPNS => flag(stamps(true, false)),
        s::SO_TIMESTAMP_NEW => flag(stamps(false, true)),
        s::SO_TIMESTAMPNS_NEW => flag(stamps(true, true)),
        s::SO_TIMESTAMPING | s::SO_TIMESTAMPING_NEW => {
            Ok(OptionValue::object(&[common.timestamping.load(Relaxed), 0]))
        }
        s::SO_RCVTIMEO | s::SO_RCVTIMEO_NEW => Ok(timeout_value(&common.receive_timeout)),
        s::SO_SNDTIMEO | s::SO_SNDTIMEO_NEW => Ok(timeout_value(&common.send_timeout)),
        s::SO_RCVLOWAT => Ok(OptionValue::int(common.receive_low.load(Relaxed))),
        s::SO_SNDLOWAT => Ok(OptionValue::int(1)),
        s::SO_PASSCRED | s::SO_PASSSEC | s::SO_PASSPIDFD | s::SO_PASSRIGHTS => {
            if !passes(common, name) {
                return Err(Errno::EOPNOTSUPP);
            }
            flag(common.has(pass_switch(name)))
        }
        s::SO_PEERCRED => Ok(peer_credentials(task, socket.peer_identity().as_ref())),
        s::SO_PEERGROUPS => peer_groups(task, socket.peer_identity().as_ref(), room),
        s::SO_PEERNAME => {
            let address = socket.peer_address().map_err(|_| Errno::ENOTCONN)?;
            if address.len() < room { Err(Errno::EINVAL) } else { Ok(OptionValue::Bytes(address)) }
        }
        s::SO_ACCEPTCONN => flag(socket.is_listening()),
        s::SO_PEEK_OFF if common.domain == s::AF_NETLINK => Err(Errno::EOPNOTSUPP),
        s::SO_PEEK_OFF => Ok(OptionValue::int(common.peek_offset.load(Relaxed))),
        s::SO_MAX_PACING_RATE => {
            let rate = common.pacing.load(Relaxed);
            if room >= 8 {
                return Ok(OptionValue::object(&rate));
            }
            Ok(OptionValue::object(&u32::try_from(rate).unwrap_or(u32::MAX)))
        }
        s::SO_BPF_EXTENSIONS => Ok(OptionValue::int(64)),
        s::SO_MEMINFO => {
            let sent = common.sent.used() as u32;
            let (rcv, snd) = (common.receive_buffer() as u32, common.send_buffer() as u32);
            Ok(OptionValue::object(&[0, rcv, sent, snd, 0, 0, 0, 0, common.drops.load(Relaxed)]))
        }
        s::SO_INCOMING_NAPI_ID | s::SO_ZEROCOPY | s::SO_RESERVE_MEM => Ok(OptionValue::int(0)),
        s::SO_COOKIE => {
            if room < 8 {
                return Err(Errno::EINVAL);
            }
            if common.cookie.load(Relaxed) == 0 {
                // Who comes first gives the number.
                let _ = common.cookie.compare_exchange(0, common.net.next_cookie(), Relaxed, Relaxed);
            }
            Ok(OptionValue::object(&common.cookie.load(Relaxed)))
        }
        s::SO_NETNS_COOKIE if room != 8 => Err(Errno::EINVAL),
        s::SO_NETNS_COOKIE => Ok(OptionValue::object(&common.net.ino)),
        s::SO_BINDTODEVICE => {
            let name = common.net.device.name_of(common.bound_device());
            match name {
                None => Ok(OptionValue::bytes(&[])),
                Some(_) if room < IFNAMSIZ => Err(Errno::EINVAL),
                Some(name) => Ok(OptionValue::bytes(&[name, b"\0"].concat())),
            }
        }
        s::SO_BINDTOIFINDEX => Ok(OptionValue::int(common.bound_device())),
        s::SO_BUF_LOCK => {
            let send = switches.contains(Switches::SEND_BUFFER_SET);
            let receive = switches.contains(Switches::RECEIVE_BUFFER_SET);
            Ok(OptionValue::int(i32::from(send) | i32::from(receive) << 1))
        }
        s::SO_ATTACH_FILTER => Ok(OptionValue::bytes(&[])),
        s::SO_BUSY_POLL_BUDGET => Err(Errno::ENOPROTOOPT),
        s::SO_TXREHASH if !is_stream(common) => Err(Errno::EOPNOTSUPP),
        _ => {
            let (_, _, default) = REMEMBERED.iter().find(|(n, ..)| *n == name).ok_or(Errno::ENOPROTOOPT)?;
            Ok(OptionValue::int(common.remembered(s::SOL_SOCKET, name).unwrap_or(*default)))
        }
    }
}

fn peer_credentials(task: &Task, peer: Option<&PeerIdentity>) -> OptionValue {
    let Some(peer) = peer else {
        return OptionValue::object(&s::Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX });
    };
    let ns = &task.credentials().user_ns;
    let pid = peer.pid.number_in(&task.pid_ns()) as i32;
    OptionValue::object(&s::Ucred { pid, uid: ns.uid(peer.uid), gid: ns.gid(peer.gid) })
}

fn peer_groups(task: &Task, peer: Option<&PeerIdentity>, room: usize) -> Result<OptionValue> {
    let peer = peer.ok_or(Errno::ENODATA)?;
    let needs = peer.groups.len() * size_of::<u32>();
    if room < needs {
        return Ok(OptionValue::Needs(needs));
    }
    let ns = &task.credentials().user_ns;
    let groups: Vec<u32> = peer.groups.iter().map(|&gid| ns.gid(gid)).collect();
    Ok(OptionValue::bytes(groups.as_bytes()))
}

/// `struct ucred` of a message as `task` sees it.
pub fn visible_credentials(task: &Task, creds: &super::socket::MessageCredentials) -> s::Ucred {
    let ns = &task.credentials().user_ns;
    let pid = creds.pid.as_ref().map_or(0, |pid| pid.number_in(&task.pid_ns()) as i32);
    let id = |kernel: u32, shown: u32| if kernel == u32::MAX { OVERFLOW_ID } else { shown };
    s::Ucred { pid, uid: id(creds.uid, ns.uid(creds.uid)), gid: id(creds.gid, ns.gid(creds.gid)) }
}
