//! Fail-stop: the thread that looks after kicks that are not answered, and (before Linux 6.11) after sentry threads that
//! wait for dead stubs.
//!
//! It sleeps on a timer that is armed only while there is something to look after, so that neither a kick nor an idle
//! guest costs a wake.

use crate::link::{KICK, Link};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use parking_lot::Mutex;
use platform::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(20);
/// Processor time of its own that a kicked thread may use before its handler rings. (A signal that is not blocked is
/// taken at the next return to user mode; only long kernel work comes between, such as clearing huge pages.)
const OWN_TIME: Duration = Duration::from_millis(200);
/// Looks at which a kicked thread sleeps in a call of the guest with the signal blocked before it is taken for captured.
const SLEEPS: u32 = 2;
/// Without /proc neither can be seen, and this much real time has to pass.
const BLIND: Duration = Duration::from_secs(20);

/// Wakes a sentry thread out of the listener on kernels that do not do it by themselves.
const WAKE: i32 = libc::SIGUSR2;

struct Entry {
    link: Arc<Link>,
    kick: u32,
    since: Instant,
    first: Option<Look>,
    sleeps: u32,
}

impl Entry {
    fn new(link: &Arc<Link>) -> Self {
        let kick = link.kicks.load(SeqCst);
        Self { link: link.clone(), kick, since: Instant::now(), first: None, sleeps: 0 }
    }
}

/// What /proc says about a stub thread.
#[derive(Clone, Copy)]
struct Look {
    used: Duration,
    /// Asleep outside the stub's text with the kick blocked.
    captured: bool,
}

#[derive(Default)]
struct List {
    armed: bool,
    started: bool,
    entries: Vec<Entry>,
}

/// See the module.
pub struct Monitor {
    timer: TimerFd,
    list: Mutex<List>,
    proc: Option<PathBuf>,
    wake_owners: bool,
}

impl Monitor {
    /// `wake_owners`: the kernel leaves a listener's reader asleep when the last thread with the filter exits.
    pub fn new(wake_owners: bool) -> Result<Arc<Self>, Errno> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        if wake_owners {
            extern "C" fn nothing(_: libc::c_int) {}
            let action = nix::sys::signal::SigAction::new(
                nix::sys::signal::SigHandler::Handler(nothing),
                nix::sys::signal::SaFlags::empty(),
                nix::sys::signal::SigSet::empty(),
            );
            // SAFETY: the handler does nothing; nobody else uses the signal.
            unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGUSR2, &action)? };
        }
        Ok(Arc::new(Self { timer, list: Mutex::default(), proc: proc_dir(), wake_owners }))
    }

    /// Whether threads can be observed.
    pub fn has_proc(&self) -> bool {
        self.proc.is_some()
    }

    /// Starts the thread, once.
    pub fn start(self: &Arc<Self>) -> Result<(), Errno> {
        let mut list = self.list.lock();
        if !list.started {
            let monitor = Arc::downgrade(self);
            let timer = nix::unistd::dup(&self.timer)?;
            std::thread::Builder::new().name("systrap-monitor".into()).spawn(move || {
                let mut expirations = [0; 8];
                loop {
                    let _ = nix::unistd::read(&timer, &mut expirations);
                    match monitor.upgrade() {
                        Some(monitor) => monitor.look(),
                        None => return,
                    }
                }
            })?;
            list.started = true;
        }
        Ok(())
    }

    /// Looks after `link` as long as it is overdue.
    pub fn watch(&self, link: &Arc<Link>) {
        if link.watched.swap(true, SeqCst) {
            return;
        }
        let mut list = self.list.lock();
        list.entries.push(Entry::new(link));
        if !list.armed {
            list.armed = true;
            self.arm();
        }
    }

    fn arm(&self) {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(PERIOD));
        if let Err(error) = self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            tracing::error!(%error, "arming the stub monitor");
        }
    }

    fn look(&self) {
        let mut entries = {
            let mut list = self.list.lock();
            list.armed = false;
            std::mem::take(&mut list.entries)
        };
        entries.retain_mut(|entry| {
            if self.is_settled(entry) {
                entry.link.watched.store(false, SeqCst);
                // Something may have happened between the look and the store.
                if self.is_settled(entry) || entry.link.watched.swap(true, SeqCst) {
                    return false;
                }
            }
            true
        });
        let mut list = self.list.lock();
        list.entries.append(&mut entries);
        if !list.entries.is_empty() && !list.armed {
            list.armed = true;
            self.arm();
        }
    }

    fn is_settled(&self, entry: &mut Entry) -> bool {
        let link = &entry.link.clone();
        if link.state.death().is_some() {
            if !self.wake_owners || !link.is_awaited() {
                return true;
            }
            // SAFETY: a plain system call; the owner's handler does nothing. Repeated until the owner has left, for
            // it may be just about to sleep.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), link.owner, WAKE) };
            return false;
        }
        if !link.is_overdue() {
            return true;
        }
        if entry.kick != link.kicks.load(SeqCst) {
            *entry = Entry::new(link);
            return false;
        }
        let verdict = match self.observe(link) {
            None => (entry.since.elapsed() > BLIND).then_some("a kick was not answered"),
            Some(now) => {
                let first = *entry.first.get_or_insert(now);
                entry.sleeps = if now.captured && link.is_waiting() { entry.sleeps + 1 } else { 0 };
                if now.used.saturating_sub(first.used) > OWN_TIME {
                    Some("a kick was not answered in time")
                } else if entry.sleeps >= SLEEPS {
                    Some("a thread has blocked the kick")
                } else {
                    None
                }
            }
        };
        match verdict {
            Some(reason) if link.is_overdue() => link.state.misbehaved(reason),
            _ => {}
        }
        false
    }

    fn observe(&self, link: &Link) -> Option<Look> {
        let task = self.proc.as_ref()?.join(format!("{}/task/{}", link.state.pid(), link.tid));
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let blocked = u64::from_str_radix(field("SigBlk:")?, 16).ok()?;
        let captured = blocked & 1 << (KICK - 1) != 0 && field("State:")?.starts_with('S') && {
            let call = std::fs::read_to_string(task.join("syscall")).ok()?;
            let ip = call.trim_end().rsplit(" 0x").next()?;
            u64::from_str_radix(ip, 16).is_ok_and(|ip| ip < platform::USER_MAX)
        };
        Some(Look { used: cpu_time(&task)?, captured })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The thread finds nobody.
        let now = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(1)));
        let _ = self.timer.set(now, TimerSetTimeFlags::empty());
    }
}

/// Processor time of a thread: the first number of schedstat, in nanoseconds.
fn cpu_time(task: &std::path::Path) -> Option<Duration> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// A /proc that shows our own pid namespace.
fn proc_dir() -> Option<PathBuf> {
    let link = std::fs::read_link("/proc/self").ok()?;
    (link.to_str()?.parse() == Ok(std::process::id())).then(|| PathBuf::from("/proc"))
}
