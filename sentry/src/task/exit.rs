//! The end of threads and processes (kernel/exit.c).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use abi::signal::{SIG_IGN, SaFlags, Signal};

use super::current::CurrentTask;
use super::group::{ProcessGroup, Remains, ThreadGroup};
use super::task::{RunState, Task};

/// True if no member of the process group has a parent in another group of the same session, so that nobody could
/// continue it when it stops. `leaving` is left out of account.
pub(crate) fn is_orphaned(process_group: &Arc<ProcessGroup>, leaving: Option<&Arc<ThreadGroup>>) -> bool {
    !process_group.members().iter().any(|member| {
        if leaving.is_some_and(|l| Arc::ptr_eq(l, member)) || member.is_dead() {
            return false;
        }
        member.parent().is_some_and(|parent| {
            let of_parent = parent.process_group();
            !Arc::ptr_eq(&of_parent, process_group) && Arc::ptr_eq(&of_parent.session, &process_group.session)
        })
    })
}

/// A process group that became an orphan while it had stopped members: SIGHUP, then SIGCONT. What is being cut is the tie
/// of a member to `parent`; only one to another group of the session kept the group from being an orphan before.
fn kill_orphaned(
    process_group: &Arc<ProcessGroup>,
    parent: Option<&Arc<ThreadGroup>>,
    leaving: Option<&Arc<ThreadGroup>>,
) {
    let tied = parent.is_some_and(|parent| {
        let of_parent = parent.process_group();
        !Arc::ptr_eq(&of_parent, process_group) && Arc::ptr_eq(&of_parent.session, &process_group.session)
    });
    if !tied {
        return;
    }
    let stopped = process_group.members().iter().any(|m| m.signals.lock().stop.is_some());
    if stopped && is_orphaned(process_group, leaving) {
        process_group.send_kernel_signal(Signal::SIGHUP);
        process_group.send_kernel_signal(Signal::SIGCONT);
    }
}

/// Takes a zombie out of its parent's list. The tasklist lock is held.
pub(super) fn reap(parent: &Arc<ThreadGroup>, child: &Arc<ThreadGroup>) {
    parent.family.lock().children.retain(|c| !Arc::ptr_eq(c, child));
    let mut family = child.family.lock();
    family.reaped = true;
    let process_group = family.process_group.clone();
    drop(family);
    process_group.leave(child);
    child.pid.set_group(std::sync::Weak::new());
    drop(child.counted.lock().take());
}

impl CurrentTask {
    /// Ends the thread; with the last one its process. `status` is a wait status.
    pub(super) fn exit(self, status: u32) {
        self.release_memory();
        // The last user of the table closes its files with it.
        drop(self.set_files(None));
        let group = self.group.clone();
        let task = Arc::clone(&*self);
        task.keep_system_time();
        group.dead_usage.lock().add(&task.usage());
        self.kernel().statistics.task_ended(task.cpu_time());
        task.group.container.task_ended(task.cpu_time());
        let counted = task.leave_counts();
        if Arc::ptr_eq(&task.pid(), &group.pid) {
            *group.remains.lock() = Some(Remains::of(&task));
            *group.counted.lock() = counted;
        }
        task.set_state(RunState::Zombie);
        let last = {
            let mut tasks = group.tasks.lock();
            tasks.retain(|t| !Arc::ptr_eq(t, &task));
            tasks.is_empty()
        };
        task.set_interrupter(None);
        task.stop_tracing();
        let whole = group.signals.lock().exit.map_or(status, |e| e.status);
        task.tell_tracer_of_end(whole, last);
        if !Arc::ptr_eq(&task.pid(), &group.pid) {
            task.pid().exited.notify(PollEvents::POLLIN);
        }
        if last {
            *group.last_uid.lock() = task.credentials().uid;
            for (_, set) in task.namespaces().ipc.sem.list() {
                set.process_ended(&group.pid);
            }
            if !task.namespaces().ipc.shm.is_empty() {
                let mm = self.mm();
                let runs_in = |process: &Arc<ThreadGroup>| {
                    process
                        .any_task()
                        .and_then(|task| task.memory())
                        .is_some_and(|own| Arc::ptr_eq(&own, &mm))
                };
                if !self.kernel().processes().iter().any(runs_in) {
                    mm.forget_counted();
                }
            }
            let status = group.signals.lock().exit.map_or(status, |e| e.status);
            end_process(&group, &task, status);
        }
        group.thread_events.notify(PollEvents::POLLIN);
        drop(task);
    }

    /// No other task runs in this one's memory, and none looks at it.
    pub(super) fn is_alone_in_memory(&self) -> bool {
        // The task's own handle, and this one.
        const OWN: usize = 3;
        Arc::strong_count(&self.mm()) <= OWN
    }

    /// What is left of [`CurrentTask::release_memory`] if the task is alone in its memory, where nobody waits for its end.
    pub(super) fn leave_memory(&self) {
        self.leave_futexes(&self.mm());
        self.clear_child_tid.store(0, Ordering::Release);
    }

    /// What exec and exit have in common (mm_release): robust futexes, the word that pthread_join waits on, vfork.
    pub(super) fn release_memory(&self) {
        let mm = self.mm();
        self.leave_futexes(&mm);
        let clear = self.clear_child_tid.swap(0, Ordering::AcqRel);
        if clear != 0 && mm.write_bytes(clear, &0u32.to_le_bytes()).is_ok() {
            self.kernel().futexes.wake_address(&mm, clear);
        }
        self.finish_vfork();
    }

    /// The vfork parent may go on.
    pub(super) fn finish_vfork(&self) {
        if let Some(done) = self.vfork_done.get() {
            done.set();
        }
    }
}

/// `task` was the last.
fn end_process(group: &Arc<ThreadGroup>, task: &Arc<Task>, status: u32) {
    let kernel = group.kernel.clone();
    group.timers.clear(&kernel);
    if group.is_session_leader() {
        crate::fs::tty::disassociate(group, true);
    }
    if group.is_init {
        end_namespace(group);
    }
    let tasklist = kernel.tasklist.lock();
    group.dead.store(true, Ordering::Release);
    let process_group = group.process_group();
    kill_orphaned(&process_group, group.parent().as_ref(), Some(group));
    let adopted = adopt_children(group);
    {
        let mut family = group.family.lock();
        family.zombie = Some(status);
        family.held = true;
    }
    let held = task.leave_process_to_tracer(status);
    group.exited.set(status);
    if !held {
        announce_end(group, status);
    }
    drop(tasklist);
    group.pid.exited.notify(PollEvents::POLLIN | PollEvents::POLLRDNORM);
    for (reaper, child) in adopted {
        let zombie = {
            let family = child.family.lock();
            family.zombie.filter(|_| !family.held)
        };
        if let Some(status) = zombie {
            let code = super::wait::exit_code(status);
            let value = if status & 0x7f == 0 { status >> 8 & 0xff } else { status & 0x7f };
            let info = super::wait::child_info(&child, &reaper, Signal::SIGCHLD, code, value as i32);
            let _ = reaper.send_signal(info);
            reaper.child_events.notify(PollEvents::POLLIN);
        }
    }
    kernel.process_ended(group, status);
}

/// The parent of a dead process can wait for it from now on, or it needs no waiting for. The tasklist lock is held.
pub(super) fn announce_end(group: &Arc<ThreadGroup>, status: u32) {
    let (parent, exit_signal) = {
        let mut family = group.family.lock();
        family.held = false;
        (family.parent.upgrade(), family.exit_signal)
    };
    let Some(parent) = parent else {
        group.family.lock().reaped = true;
        group.process_group().leave(group);
        drop(group.counted.lock().take());
        return;
    };
    if let Some(signal) = exit_signal {
        let action = parent.action(signal);
        let no_wait = SaFlags::from_bits_retain(action.flags).contains(SaFlags::SA_NOCLDWAIT);
        if signal == Signal::SIGCHLD && (action.handler == SIG_IGN || no_wait) {
            reap(&parent, group);
        }
        let code = super::wait::exit_code(status);
        let value = if status & 0x7f == 0 { status >> 8 & 0xff } else { status & 0x7f };
        let _ = parent.send_signal(super::wait::child_info(group, &parent, signal, code, value as i32));
    }
    parent.child_events.notify(PollEvents::POLLIN);
}

/// Gives the children of a dying process to the nearest subreaper or to the init of its pid namespace. Zombies of
/// nobody are reaped here.
fn adopt_children(group: &Arc<ThreadGroup>) -> Vec<(Arc<ThreadGroup>, Arc<ThreadGroup>)> {
    let children = std::mem::take(&mut group.family.lock().children);
    if children.is_empty() {
        return Vec::new();
    }
    let reaper = find_reaper(group);
    let mut adopted = Vec::new();
    for child in children {
        match &reaper {
            Some(reaper) => {
                {
                    let mut family = child.family.lock();
                    family.parent = Arc::downgrade(reaper);
                    family.exit_signal = Some(Signal::SIGCHLD);
                }
                let ignores = reaper.action(Signal::SIGCHLD);
                let auto = ignores.handler == SIG_IGN
                    || SaFlags::from_bits_retain(ignores.flags).contains(SaFlags::SA_NOCLDWAIT);
                let is_zombie = {
                    let family = child.family.lock();
                    family.zombie.is_some() && !family.held
                };
                if is_zombie && auto {
                    reap(reaper, &child);
                } else {
                    reaper.family.lock().children.push(child.clone());
                    adopted.push((reaper.clone(), child.clone()));
                }
            }
            None => {
                child.family.lock().parent = std::sync::Weak::new();
                if child.family.lock().zombie.is_some() {
                    reap(group, &child);
                }
            }
        }
        for task in child.threads() {
            if let Some(signal) = Signal::from_i32(task.parent_death_signal.load(Ordering::Relaxed)) {
                let _ = task.send_signal_of(group, abi::siginfo::SigInfo::kill(signal, 0, 0, 0));
            }
        }
        kill_orphaned(&child.process_group(), Some(group), None);
    }
    adopted
}

fn find_reaper(group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let ns = group.pid.namespace();
    let mut at = group.parent();
    while let Some(candidate) = at {
        if !Arc::ptr_eq(candidate.pid.namespace(), ns) {
            break;
        }
        if candidate.family.lock().subreaper && !candidate.is_dead() {
            return Some(candidate);
        }
        at = candidate.parent();
    }
    ns.init().filter(|init| !init.is_dead() && !Arc::ptr_eq(init, group))
}

/// The init of a pid namespace ends: everybody in it is killed (zap_pid_ns_processes), and waited for by the kernel.
fn end_namespace(init: &Arc<ThreadGroup>) {
    let ns = init.pid.namespace().clone();
    ns.set_dying();
    for (_, pid) in ns.pids() {
        if let Some(process) = pid.group().filter(|p| !Arc::ptr_eq(p, init)) {
            process.begin_exit(abi::wait::signaled(Signal::SIGKILL, false));
        }
    }
}
