//! Fail-stop: the thread that looks after kicks that are not answered, and (before Linux 6.11) after sentry threads that
//! wait for dead stubs.
//!
//! It sleeps on a timer that is armed only while there is something to look after, so that neither a kick nor an idle
//! guest costs a wake. Time is counted in its own looks: when the whole machine stands still or has no processor to
//! spare, nobody is blamed. It asks only for processor clocks, since a confined sentry cannot look into /proc.

use crate::link::Link;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use parking_lot::Mutex;
use platform::Errno;
use platform::stub::DeathWatch;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(20);
/// Processor time of its own that a thread may use after a kick. A signal that is not blocked is taken at the next
/// return to user mode; only long kernel work comes between, such as clearing huge pages.
const OWN_TIME: Duration = Duration::from_millis(250);
/// Looks before that is judged.
const LEAST: u32 = 10;
/// Looks before a thread that sleeps in a call of the guest must have woken for the kick.
const CALL_LIMIT: u32 = 250;
/// Looks before any kick must have been answered: longer than an honest stub waits for a disk or a processor. (A stub that
/// is kept stopped from outside for so long while it is kicked dies too: pausing is the sentry's.)
const LIMIT: u32 = 1500;

/// Wakes a sentry thread out of the listener on kernels that do not do it by themselves.
const WAKE: i32 = libc::SIGUSR2;

/// A thread that was kicked.
struct Entry {
    link: Arc<Link>,
    /// Which kick.
    kick: u32,
    looks: u32,
    /// Processor time of the process at the first look.
    used: Duration,
}

impl Entry {
    fn new(link: &Arc<Link>) -> Self {
        Self { link: link.clone(), kick: link.kicks.load(SeqCst), looks: 0, used: Duration::ZERO }
    }
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
        Ok(Arc::new(Self { timer, list: Mutex::default(), wake_owners }))
    }

    /// Has the owner of `link` woken when the stub dies, where the kernel does not do it.
    pub fn expect_death(self: &Arc<Self>, link: &Arc<Link>) -> Option<DeathWatch> {
        let (monitor, waiting) = (self.clone(), link.clone());
        self.wake_owners.then(|| link.state.on_death(Arc::new(move || monitor.watch(&waiting))))
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

    /// Looks after `link` as long as it needs it.
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
        let link = entry.link.clone();
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
            *entry = Entry::new(&link);
            return false;
        }
        let used = processor_time(link.state.pid()).unwrap_or(entry.used);
        if entry.looks == 0 {
            entry.used = used;
        }
        entry.looks += 1;
        // The scheduler is fair among the threads of a process.
        let own = used.saturating_sub(entry.used) / link.siblings.load(SeqCst).max(1);
        let verdict = match entry.looks {
            LIMIT.. => Some("a kick was not answered"),
            CALL_LIMIT.. if link.is_waiting() => Some("a thread in a call did not wake for a kick"),
            LEAST.. if own > OWN_TIME => Some("a running thread did not answer a kick"),
            _ => None,
        };
        if let Some(reason) = verdict
            && link.is_overdue()
        {
            link.state.misbehaved(reason);
        }
        false
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The thread finds nobody.
        let now = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(1)));
        let _ = self.timer.set(now, TimerSetTimeFlags::empty());
    }
}

/// Processor time of a process (clock_getcpuclockid(3)).
pub fn processor_time(pid: i32) -> Option<Duration> {
    const CPUCLOCK_SCHED: i32 = 2;
    let clock = nix::time::ClockId::from_raw(!pid << 3 | CPUCLOCK_SCHED);
    clock.now().ok().map(Duration::from)
}
