//! A thread of a stub process, traced for a moment: to write through it, or to have it answer though it is stopped.
//!
//! Somebody on the host may stop a stub process (SIGSTOP), which stops all of its threads. The guest's wait then, as they
//! should; but the service thread works for the sentry, which may hold locks while it waits for an answer, so that others
//! would wait with it: who lists processes, who kills this one, and everybody if it is the template. A tracer may let a
//! thread of a stopped process run; when the tracer lets go of it, the thread stops again with the others.

use super::death::State;
use crate::{Errno, Result};
use nix::errno::Errno as Host;
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::time::Duration;

/// Of `linux/ptrace.h`: a stop that is no signal's delivery.
const EVENT_STOP: i32 = 128;

/// A traced thread; let go on drop.
pub(super) struct Tracee<'a> {
    tid: Pid,
    state: &'a State,
    is_running: bool,
    /// It belongs to a process that is stopped.
    is_held: bool,
}

impl<'a> Tracee<'a> {
    /// Seizes a thread of the process and stops it. It must be nobody's tracee.
    pub(super) fn seize(tid: i32, state: &'a State) -> Result<Tracee<'a>> {
        let tid = Pid::from_raw(tid);
        ptrace::seize(tid, ptrace::Options::empty())?;
        let mut tracee = Tracee { tid, state, is_running: true, is_held: false };
        if tracee.stop().is_err() {
            state.kill(crate::Death::Host);
            return Err(Errno::ESRCH);
        }
        Ok(tracee)
    }

    /// Brings it to a stop that no signal is the cause of. Not by a wait that sleeps: that of a process whose other threads
    /// are zombies lasts until their tracers have reaped them, who may wait for the caller.
    fn stop(&mut self) -> Result<()> {
        ptrace::interrupt(self.tid)?;
        for tries in 0.. {
            if self.look()? {
                break;
            }
            self.state.alive()?;
            if tries < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// True if it is in a stop that no signal is the cause of; signals are let through. ESRCH if it is gone, which is for
    /// others to reap.
    fn look(&mut self) -> Result<bool> {
        // SAFETY: zeroes are a valid siginfo_t, which the kernel fills.
        let info = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
            Host::result(libc::waitid(libc::P_PID, self.tid.as_raw() as u32, &mut info, flags))?;
            info
        };
        // SAFETY: what a wait fills in, or zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(false);
        }
        let (signal, event) = (status & 0xff, status >> 8);
        self.is_running = false;
        if event != EVENT_STOP {
            self.resume(signal)?;
            return Ok(false);
        }
        self.is_held = signal != libc::SIGTRAP;
        Ok(true)
    }

    /// True if its process is stopped, and the thread too but for its tracer.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Lets it run, and goes on doing so if it has come to a stop since: it may have been let go on by others.
    pub(super) fn run(&mut self) -> Result<()> {
        if !self.is_running || self.look()? { self.resume(0) } else { Ok(()) }
    }

    fn resume(&mut self, signal: i32) -> Result<()> {
        // Not by way of `nix`, which knows no real-time signals.
        // SAFETY: data is a signal number.
        Host::result(unsafe { libc::ptrace(libc::PTRACE_CONT, self.tid.as_raw(), 0usize, signal as usize) })?;
        self.is_running = true;
        Ok(())
    }

    pub(super) fn peek(&self, addr: u64) -> Result<u64> {
        Ok(ptrace::read(self.tid, addr as *mut _)? as u64)
    }

    pub(super) fn poke(&self, addr: u64, word: u64) -> Result<()> {
        Ok(ptrace::write(self.tid, addr as *mut _, word as i64)?)
    }
}

impl Drop for Tracee<'_> {
    fn drop(&mut self) {
        let stopped = !self.is_running || self.stop().is_ok();
        if (!stopped || ptrace::detach(self.tid, None).is_err()) && self.tid.as_raw() != self.state.pid() {
            // Dead, which only its tracer can be told of; the first thread's end is for whoever reaps the process.
            self.state.kill(crate::Death::Host);
            // SAFETY: a plain system call.
            unsafe { libc::waitpid(self.tid.as_raw(), std::ptr::null_mut(), libc::__WALL) };
        }
    }
}
