//! Waiting for children (wait4(2), waitid(2)), and telling parents (kernel/exit.c).

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::{
    CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_TRAPPED, SIG_IGN, SaFlags, Signal,
};
use abi::wait::WaitOptions;
use abi::{Errno, Result};

use super::current::CurrentTask;
use super::group::{ThreadGroup, Usage};
use super::pid::Pid;

/// Nanoseconds in a tick of `CLK_TCK`.
pub const NANOS_PER_TICK: u64 = 10_000_000;

/// Which children.
#[derive(Clone)]
pub enum Which {
    /// Any.
    Any,
    /// This process.
    Process(Arc<Pid>),
    /// Those in the process group with this number.
    Group(Arc<Pid>),
    /// Nobody has the number asked for.
    Nobody,
}

/// What a child did.
#[derive(Clone)]
pub struct Report {
    /// The child.
    pub pid: Arc<Pid>,
    /// Its real uid (kernel id).
    pub uid: u32,
    /// `CLD_*`.
    pub code: i32,
    /// The wait status of wait4(2).
    pub status: u32,
    /// What it used.
    pub usage: Usage,
}

impl Report {
    /// `si_status`: exit code or signal number.
    pub fn si_status(&self) -> i32 {
        match self.code {
            CLD_EXITED => (self.status >> 8 & 0xff) as i32,
            CLD_STOPPED => (self.status >> 8 & 0xff) as i32,
            CLD_TRAPPED => (self.status >> 8) as i32,
            CLD_CONTINUED => Signal::SIGCONT.number() as i32,
            _ => (self.status & 0x7f) as i32,
        }
    }
}

/// The `CLD_*` of an exit status.
pub fn exit_code(status: u32) -> i32 {
    match status {
        s if s & 0x7f == 0 => CLD_EXITED,
        s if s & 0x80 != 0 => CLD_DUMPED,
        _ => CLD_KILLED,
    }
}

/// Sends SIGCHLD (unless SA_NOCLDSTOP) for a stop or continuation, and wakes those who wait.
pub(super) fn notify_parent(child: &Arc<ThreadGroup>, code: i32, status: u32) {
    let Some(parent) = child.parent() else { return };
    let action = parent.action(Signal::SIGCHLD);
    let quiet =
        SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_NOCLDSTOP) || action.handler == SIG_IGN;
    if !quiet {
        let _ = parent.send_signal(child_info(child, &parent, Signal::SIGCHLD, code, status as i32));
    }
    parent.child_events.notify(PollEvents::POLLIN);
}

/// The information of a SIGCHLD.
pub(super) fn child_info(
    child: &Arc<ThreadGroup>,
    parent: &Arc<ThreadGroup>,
    signal: Signal,
    code: i32,
    status: i32,
) -> SigInfo {
    let pid = child.pid.number_in(parent.pid.namespace()) as i32;
    let uid = child.any_task().map_or(0, |t| t.credentials().uid);
    let uid = parent.any_task().map_or(uid, |p| p.credentials().user_ns.uid(uid));
    let time = child.cpu_time();
    let ticks = |nanos: u64| (nanos / NANOS_PER_TICK) as i64;
    SigInfo::child(signal, code, pid, uid, status, ticks(time.user), ticks(time.system))
}

impl CurrentTask {
    /// Waits for a child as `options` say. `None`: WNOHANG, and nothing to report. ECHILD without such children.
    pub fn wait_for_child(&self, which: &Which, options: WaitOptions) -> Result<Option<Report>> {
        let group = self.group.clone();
        let look = || match self.look_for_child(which, options) {
            Ok(Some(report)) => Some(Ok(Some(report))),
            Ok(None) if options.contains(WaitOptions::WNOHANG) => Some(Ok(None)),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        };
        self.wait_until(&[(&group.child_events, PollEvents::POLLIN)], None, look)?
    }

    fn look_for_child(&self, which: &Which, options: WaitOptions) -> Result<Option<Report>> {
        let _tasklist = self.kernel().tasklist.lock();
        let children = self.group.family.lock().children.clone();
        let mut any = match self.look_for_tracee(which, options) {
            Ok(Some(report)) => return Ok(Some(report)),
            found => found.is_ok(),
        };
        for child in children {
            let of_clone = child.family.lock().exit_signal != Some(Signal::SIGCHLD);
            let clone_wanted = if options.contains(WaitOptions::__WCLONE) { of_clone } else { !of_clone };
            if !options.contains(WaitOptions::__WALL) && !clone_wanted {
                continue;
            }
            let of_other = options.contains(WaitOptions::__WNOTHREAD)
                && child.family.lock().made_by.upgrade().is_some_and(|maker| !Arc::ptr_eq(&maker, self));
            if of_other {
                continue;
            }
            let wanted = match which {
                Which::Any => true,
                Which::Process(pid) => Arc::ptr_eq(pid, &child.pid),
                Which::Group(pid) => Arc::ptr_eq(&child.process_group().pid, pid),
                Which::Nobody => false,
            };
            if !wanted {
                continue;
            }
            any = true;
            if let Some(report) = self.report_of(&child, options) {
                return Ok(Some(report));
            }
        }
        if any { Ok(None) } else { Err(Errno::ECHILD) }
    }

    fn report_of(&self, child: &Arc<ThreadGroup>, options: WaitOptions) -> Option<Report> {
        let zombie = child.family.lock().zombie;
        let uid = *child.last_uid.lock();
        if let Some(status) = zombie {
            if !options.contains(WaitOptions::WEXITED) || child.family.lock().held {
                return None;
            }
            let mut usage = child.usage();
            usage.add(&child.children_usage.lock());
            if !options.contains(WaitOptions::WNOWAIT) {
                self.group.children_usage.lock().add(&usage);
                super::exit::reap(&self.group, child);
            }
            return Some(Report { pid: child.pid.clone(), uid, code: exit_code(status), status, usage });
        }
        // A tracer that is the parent is told as a tracer (ptrace_reparented()).
        let is_traced_here = || {
            let tracer = child.any_task().and_then(|task| task.tracer());
            tracer.is_some_and(|tracer| Arc::ptr_eq(&tracer.group, &self.group))
        };
        let hidden = child.signals.lock().stop_report && is_traced_here();
        let mut signals = child.signals.lock();
        let keep = options.contains(WaitOptions::WNOWAIT);
        let (code, status) = if options.contains(WaitOptions::WSTOPPED) && signals.stop_report && !hidden {
            let signal = signals.stop?;
            signals.stop_report = keep;
            (CLD_STOPPED, abi::wait::stopped(signal))
        } else if options.contains(WaitOptions::WCONTINUED) && signals.continue_report {
            signals.continue_report = keep;
            (CLD_CONTINUED, 0xffff)
        } else {
            return None;
        };
        drop(signals);
        let uid = child.any_task().map_or(uid, |t| t.credentials().uid);
        Some(Report { pid: child.pid.clone(), uid, code, status, usage: child.usage() })
    }
}
