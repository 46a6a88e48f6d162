//! Sessions and their controlling terminals, and process groups in the foreground (drivers/tty/tty_jobctrl.c).

use std::sync::Arc;

use abi::capability::CAP_SYS_ADMIN;
use abi::signal::{SIG_IGN, Signal};
use abi::{Errno, Result};

use super::Terminal;
use crate::Kernel;
use crate::task::{CurrentTask, Pid, Session, Task, ThreadGroup};

/// Whom a terminal belongs to.
#[derive(Default)]
pub(super) struct Control {
    session: Option<Arc<Pid>>,
    foreground: Option<Arc<Pid>>,
}

/// Sends a signal of the kernel's to a process group. The tasklist lock is not held.
pub(super) fn signal(group: &Pid, signal: Signal) {
    let Some(group) = group.process_group() else { return };
    let Some(kernel) = group.members().first().map(|process| process.kernel.clone()) else { return };
    // Nobody joins it by being made meanwhile.
    let _tasklist = kernel.tasklist.lock();
    group.send_kernel_signal(signal);
}

/// The processes of a session.
fn members(kernel: &Kernel, session: &Arc<Pid>) -> Vec<Arc<ThreadGroup>> {
    let mut all = kernel.processes();
    all.retain(|process| Arc::ptr_eq(&process.session().pid, session));
    all
}

impl Terminal {
    /// The process group in the foreground.
    pub fn foreground(&self) -> Option<Arc<Pid>> {
        self.control.lock().foreground.clone()
    }

    /// The session whose controlling terminal this is.
    pub fn session(&self) -> Option<Arc<Pid>> {
        self.control.lock().session.clone()
    }

    /// Is it the controlling terminal of the task's process?
    pub(super) fn controls(&self, task: &Task) -> bool {
        task.group.terminal().is_some_and(|terminal| std::ptr::eq(&*terminal, self))
    }

    /// Makes it the controlling terminal of a session leader, whose process group comes to the foreground. The
    /// tasklist lock is held.
    pub(crate) fn take_control(self: &Arc<Terminal>, leader: &ThreadGroup) {
        let group = leader.process_group();
        *self.control.lock() =
            Control { session: Some(group.session.pid.clone()), foreground: Some(group.pid.clone()) };
        *group.session.lost_foreground.lock() = None;
        leader.set_terminal(Some(self.clone()));
    }

    /// open(2) without O_NOCTTY: a session leader without a terminal gets this one, if nobody else has it.
    pub(super) fn offer(self: &Arc<Terminal>, task: &CurrentTask) {
        let group = &task.group;
        if !group.is_session_leader() {
            return;
        }
        let _tasklist = task.kernel().tasklist.lock();
        if group.terminal().is_none() && self.session().is_none() {
            self.take_control(group);
        }
    }

    /// The session loses the terminal, and its leader is told (tty_signal_session_leader()).
    pub(super) fn leave_session(&self) {
        let Control { session: Some(session), foreground } = std::mem::take(&mut *self.control.lock()) else {
            return;
        };
        let Some(kernel) = self.number.kernel() else { return };
        let tasklist = kernel.tasklist.lock();
        let mut leader = None;
        for process in members(&kernel, &session) {
            if process.terminal().is_some_and(|terminal| std::ptr::eq(&*terminal, self)) {
                process.set_terminal(None);
            }
            if Arc::ptr_eq(&process.pid, &session) && !process.is_dead() {
                *process.session().lost_foreground.lock() = foreground.clone();
                leader = Some(process);
            }
        }
        drop(tasklist);
        if let Some(leader) = leader {
            leader.send_kernel_signal(Signal::SIGHUP);
            leader.send_kernel_signal(Signal::SIGCONT);
        }
    }

    /// A process in the background that changes its terminal (SIGTTOU) or reads from it (SIGTTIN) is stopped: its
    /// group gets the signal, and the call is repeated afterwards. Who ignores the signal may change the terminal, but
    /// not read; who would never be continued may do neither (__tty_check_change()).
    pub(super) fn check_change(&self, task: &Task, signal: Signal) -> Result<()> {
        if !self.controls(task) {
            return Ok(());
        }
        let own = task.group.process_group();
        match self.foreground() {
            Some(foreground) if !Arc::ptr_eq(&foreground, &own.pid) => {}
            _ => return Ok(()),
        }
        if task.blocked().contains(signal) || task.group.action(signal).handler == SIG_IGN {
            return if signal == Signal::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
        }
        if crate::task::is_orphaned(&own, None) {
            return Err(Errno::EIO);
        }
        own.send_kernel_signal(signal);
        Err(Errno::ERESTARTSYS)
    }

    /// TIOCSCTTY; `steal` is its argument, `readable` says that the file is open for reading.
    pub(super) fn set_controlling(
        self: &Arc<Terminal>,
        task: &Task,
        steal: u64,
        readable: bool,
    ) -> Result<()> {
        let group = &task.group;
        let leads = group.is_session_leader();
        let _tasklist = task.kernel().tasklist.lock();
        let owner = self.session();
        if leads && owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &group.session().pid)) {
            return Ok(());
        }
        if !leads || group.terminal().is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(owner) = owner {
            if steal != 1 || !task.capable(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            for process in members(task.kernel(), &owner) {
                process.set_terminal(None);
            }
        }
        if !readable && !task.capable(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.take_control(group);
        Ok(())
    }

    /// TIOCSPGRP.
    pub(super) fn set_foreground(&self, task: &CurrentTask, arg: u64) -> Result<()> {
        self.check_change(task, Signal::SIGTTOU)
            .map_err(|e| if e == Errno::EIO { Errno::ENOTTY } else { e })?;
        let number: i32 = task.mm().read_object(arg)?;
        let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
        let session = task.group.session();
        let mut control = self.control.lock();
        let owns = control.session.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &session.pid));
        if !self.controls(task) || !owns {
            return Err(Errno::ENOTTY);
        }
        let group = task.pid_ns().find(number).ok_or(Errno::ESRCH)?;
        let of_group = group.process_group().map(|group| group.session.clone());
        // Linux takes the number of any process for a group.
        let of_group = of_group.or_else(|| group.group().map(|process| process.session()));
        if !of_group.is_some_and(|of_group| Arc::ptr_eq(&of_group, &session)) {
            return Err(Errno::EPERM);
        }
        control.foreground = Some(group);
        Ok(())
    }
}

/// A session leader gives up its terminal, by TIOCNOTTY or by its end (disassociate_ctty()): the foreground is told,
/// and no process of the session has the terminal any more.
pub fn disassociate(leader: &Arc<ThreadGroup>, on_exit: bool) {
    if !leader.is_session_leader() {
        return;
    }
    let session: Arc<Session> = leader.session();
    let terminal = leader.terminal();
    match &terminal {
        Some(terminal) => {
            if let Some(foreground) = terminal.foreground() {
                signal(&foreground, Signal::SIGHUP);
                if !on_exit {
                    signal(&foreground, Signal::SIGCONT);
                }
            }
        }
        None => {
            // It was lost by a hangup: who was in the foreground learns of the end of the session now.
            let lost = if on_exit { session.lost_foreground.lock().take() } else { None };
            if let Some(lost) = lost {
                signal(&lost, Signal::SIGHUP);
                signal(&lost, Signal::SIGCONT);
            }
            return;
        }
    }
    let _tasklist = leader.kernel.tasklist.lock();
    if let Some(terminal) = terminal {
        let mut control = terminal.control.lock();
        if control.session.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &session.pid)) {
            *control = Control::default();
        }
    }
    *session.lost_foreground.lock() = None;
    for process in members(&leader.kernel, &session.pid) {
        process.set_terminal(None);
    }
}

/// TIOCNOTTY.
pub(super) fn give_up(task: &Task) {
    disassociate(&task.group, false);
    task.group.set_terminal(None);
}
