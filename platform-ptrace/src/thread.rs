//! A guest thread: a traced thread of a stub process.
//!
//! Between two runs the thread is in a ptrace stop. What its registers mean depends on the kind of stop: at a system
//! call's entry the number is in `orig_rax`; and in every stop that follows a system call the kernel, on the way out,
//! would restart the call if `rax` looked like one of its internal codes and `orig_rax` like a number. So `orig_rax` is -1
//! whenever `rax` may have such a value.

use crate::Space;
use crate::tracee::{Go, Stop, SyscallInfo, Tracee, user_offset};
use parking_lot::Mutex;
use platform::stub::{Slot, StubProcess, arch};
use platform::{Context, Death, Errno, Exit, Fault, Interrupter, Registers, Result, Resume, Thread, XState};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The signal that makes a running tracee stop. Standard, so that it does not queue, and ignored by default.
const KICK: i32 = libc::SIGURG;
/// The signals whose default action is to stop a process.
const STOPS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Between two looks whether a thread may go on whose process somebody on the host has stopped, or somebody wants it.
const LOOK: Duration = Duration::from_millis(10);

const RUNNING: u8 = 1;
const KICKED: u8 = 2;

/// The interrupter.
struct Kick {
    pid: i32,
    tid: i32,
    state: AtomicU8,
    /// True once the tid may mean another thread.
    gone: Mutex<bool>,
}

impl Kick {
    /// Before the guest runs: false, and the interrupt is consumed, if it must not.
    fn enter(&self) -> bool {
        if self.state.fetch_or(RUNNING, Ordering::AcqRel) & KICKED == 0 {
            return true;
        }
        self.state.store(0, Ordering::Release);
        false
    }

    /// After the guest ran.
    fn leave(&self) {
        self.state.fetch_and(!RUNNING, Ordering::AcqRel);
    }

    fn is_kicked(&self) -> bool {
        self.state.load(Ordering::Acquire) & KICKED != 0
    }
}

impl Interrupter for Kick {
    fn interrupt(&self) {
        // A signal sent between `enter` and the resumption stays pending, and stops the thread at once.
        if self.state.fetch_or(KICKED, Ordering::AcqRel) == RUNNING {
            let gone = self.gone.lock();
            if !*gone {
                // SAFETY: a plain system call; the thread has not been waited for, so the tid is its own.
                unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, KICK) };
            }
        }
    }
}

/// Where the thread stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the entry of a `syscall`: the number is in `orig_rax`.
    Syscall,
    /// After a call of the vsyscall page whose return was carried out: the number is in `rax`.
    Vsyscall,
    /// Anywhere else.
    Elsewhere,
}

/// A guest thread.
pub(crate) struct PtraceThread {
    space: Arc<Space>,
    tracee: Tracee,
    kick: Arc<Kick>,
    slot: Slot,
    at: At,
    /// Valid if `fetched`; `single_step` always.
    context: Context,
    /// The segment bases as the thread has them, when `fetched`.
    bases: (u64, u64),
    fetched: bool,
    /// Somebody on the host has stopped the process: the guest waits for SIGCONT.
    held: bool,
    /// The signal by which that is to happen when the thread goes on, or 0.
    stop_signal: i32,
    dead: Option<Death>,
    born: Instant,
    cpu_time: Cell<Duration>,
    /// ptrace requests must come from the host thread that made this.
    not_send: PhantomData<*const ()>,
}

impl PtraceThread {
    pub(crate) fn new(space: Arc<Space>, context: &Context) -> Result<PtraceThread> {
        let process = &space.process;
        let slot = process.allocate_slot()?;
        let memory = StubProcess::slot_memory(&slot);
        let tid = process.spawn_thread(&memory, &[], slot.end(), arch::PARK, slot.addr())?;
        let tracee = Tracee(tid);
        if let Err(e) = tracee.seize() {
            process.state().alive()?;
            // Not ours to trace: either the host forbids it, or the stub named a thread that is traced already.
            process.state().misbehaved("a new thread cannot be seized");
            return Err(e.into());
        }
        let kick = Kick { pid: process.pid(), tid, state: AtomicU8::new(0), gone: Mutex::new(false) };
        let mut thread = PtraceThread {
            space,
            tracee,
            kick: Arc::new(kick),
            slot,
            at: At::Elsewhere,
            context: context.clone(),
            bases: (0, 0),
            fetched: true,
            held: false,
            stop_signal: 0,
            dead: None,
            born: Instant::now(),
            cpu_time: Cell::default(),
            not_send: PhantomData,
        };
        if tracee.wait() == Stop::Gone {
            thread.died();
            return Err(Errno::ESRCH);
        }
        // A captured service thread could have made it with kicks blocked.
        tracee.clear_signal_mask().map_err(|_| Errno::ESRCH)?;
        let now = tracee.registers().map_err(|_| Errno::ESRCH)?;
        thread.bases = (now.fs_base, now.gs_base);
        thread.write_back().map_err(|_| Errno::ESRCH)?;
        Ok(thread)
    }

    /// Notes that the thread is gone, and with it the process.
    fn died(&mut self) -> Death {
        if let Some(death) = self.dead {
            return death;
        }
        let state = self.space.process.state();
        state.kill(Death::Host);
        // Take it off the kernel's books: until then the process cannot be reaped.
        while self.tracee.wait() != Stop::Gone {}
        *self.kick.gone.lock() = true;
        let death = state.death().unwrap_or(Death::Host);
        self.dead = Some(death);
        death
    }

    /// Writes the edited context to the thread.
    fn write_back(&mut self) -> Result<(), nix::errno::Errno> {
        let mut registers = self.context.regs;
        registers.cs = 0x33;
        registers.ss = 0x2b;
        registers.orig_rax = u64::MAX;
        self.tracee.set_registers(&registers)?;
        // A base above the user's range, which only a guest with FSGSBASE can have set, is refused by the host: so
        // unchanged ones are left alone, and wild new ones dropped.
        let wild = |e| if e == nix::errno::Errno::EIO { Ok(()) } else { Err(e) };
        if registers.fs_base != self.bases.0 {
            self.tracee.set_user(user_offset!(fs_base), registers.fs_base).or_else(wild)?;
        }
        if registers.gs_base != self.bases.1 {
            self.tracee.set_user(user_offset!(gs_base), registers.gs_base).or_else(wild)?;
        }
        self.tracee.set_xstate(&platform::xstate::sanitize(&self.context.xstate))?;
        self.fetched = false;
        self.at = At::Elsewhere;
        Ok(())
    }

    /// Sets `rax` so that the kernel takes it as it is.
    fn set_result(&mut self, value: u64) -> Result<(), nix::errno::Errno> {
        self.tracee.set_user(user_offset!(rax), value)?;
        // ERESTARTSYS .. ERESTART_RESTARTBLOCK.
        if (512..=516).contains(&(value as i64).wrapping_neg()) {
            self.tracee.set_user(user_offset!(orig_rax), u64::MAX)?;
        }
        self.fetched = false;
        self.at = At::Elsewhere;
        Ok(())
    }

    fn prepare(&mut self, resume: Resume) -> Result<(), nix::errno::Errno> {
        match (resume, self.at) {
            (Resume::Result(value), At::Syscall | At::Vsyscall) => self.set_result(value),
            _ if self.fetched => self.write_back(),
            // As if the context had been fetched and not edited.
            (_, At::Syscall) => {
                let number = self.tracee.registers()?.orig_rax;
                self.set_result(number)
            }
            _ => {
                self.at = At::Elsewhere;
                Ok(())
            }
        }
    }

    /// Lets the thread wait for the end of the stop that its process is in, until there is something to report.
    fn wait_for_sigcont(&self, go: Go) -> Result<Stop, nix::errno::Errno> {
        if self.tracee.listen().is_err() {
            // It was somewhere else since, or the stop is over by now: this brings it there, or tells, before anything of
            // the guest's runs.
            self.tracee.interrupt()?;
            self.tracee.resume(go, 0)?;
            return Ok(self.tracee.wait());
        }
        loop {
            if let Some(stop) = self.tracee.look(libc::WNOHANG) {
                return Ok(stop);
            }
            if self.kick.is_kicked() {
                self.tracee.interrupt()?;
                return Ok(self.tracee.wait());
            }
            // Neither a kick nor the other end of a wait could wake it.
            std::thread::sleep(LOOK);
        }
    }

    /// What a stop means; `None` if the guest just goes on.
    fn classify(&mut self, stop: Stop) -> Result<Option<Exit>, nix::errno::Errno> {
        let signal = match stop {
            Stop::Gone => return Err(nix::errno::Errno::ESRCH),
            Stop::Event | Stop::Group => {
                self.held = stop == Stop::Group;
                return Ok(None);
            }
            Stop::Syscall => {
                let info = self.tracee.syscall_info()?;
                if info.arch != arch::AUDIT_ARCH {
                    return self.foreign_call().map(Some);
                }
                self.at = At::Syscall;
                return Ok(Some(syscall_exit(&info)));
            }
            Stop::Signal(signal) => signal,
        };
        if signal == KICK {
            // A late one may come from an interrupt that an earlier exit has answered.
            let kicked = self.kick.state.fetch_and(!KICKED, Ordering::AcqRel) & KICKED != 0;
            return Ok(kicked.then_some(Exit::Interrupted));
        }
        let info = self.tracee.siginfo()?;
        // Anything not from the kernel is aimed at the stub by someone on the host, and is none of the guest's. What stops
        // the process does so for all of its threads.
        if info.si_code <= 0 {
            self.stop_signal = if STOPS.contains(&signal) { signal } else { 0 };
            return Ok(None);
        }
        match signal {
            libc::SIGSYS => self.vsyscall().map(Some),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                self.fault(signal, &info).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The filter stopped a call of the vsyscall page. The kernel has carried out its `ret` and put the number in `rax`.
    fn vsyscall(&mut self) -> Result<Exit, nix::errno::Errno> {
        let r = self.tracee.registers()?;
        self.at = At::Vsyscall;
        Ok(registers_exit(&r, r.rax))
    }

    /// `int 0x80`, or another way in of 32-bit programs: what a kernel without them answers, a general protection fault.
    /// (The upper half of `rax` is lost, and so is the address if it was sysenter.)
    fn foreign_call(&mut self) -> Result<Exit, nix::errno::Errno> {
        let mut r = self.tracee.registers()?;
        r.rip = if r.cs == 0x33 { r.rip.wrapping_sub(2) } else { 0 };
        r.cs = 0x33;
        r.ss = 0x2b;
        r.rax = r.orig_rax;
        r.orig_rax = u64::MAX;
        self.tracee.set_registers(&r)?;
        const SI_KERNEL: i32 = 0x80;
        Ok(Exit::Fault(Fault { signal: libc::SIGSEGV, code: SI_KERNEL, addr: 0, trapno: 13, error: 0x402 }))
    }

    fn fault(&mut self, signal: i32, info: &libc::siginfo_t) -> Result<Exit, nix::errno::Errno> {
        // SAFETY: the kernel's faults carry an address.
        let addr = unsafe { info.si_addr() } as u64;
        let registers = self.tracee.registers()?;
        // Where the host has no vsyscall page, a call of it faults.
        if signal == libc::SIGSEGV
            && let Some(number) = arch::vsyscall_number(registers.rip)
            && let Some(exit) = self.absent_vsyscall(registers, number)?
        {
            return Ok(exit);
        }
        // SIGTRAP tells the exception by its code: TRAP_TRACE and others are debug exceptions, SI_KERNEL is int3.
        let (trapno, error) = match (signal, info.si_code) {
            (libc::SIGTRAP, libc::TRAP_BRKPT..=4) => (1, 0),
            (libc::SIGTRAP, _) => (3, 0),
            _ => self.exception(signal, &registers)?,
        };
        Ok(Exit::Fault(Fault { signal, code: info.si_code, addr, trapno, error }))
    }

    fn absent_vsyscall(&mut self, mut r: Registers, number: u64) -> Result<Option<Exit>, nix::errno::Errno> {
        let mut word = [0; 8];
        if self.space.process.read_batch(&mut [(r.rsp, &mut word)]) != Ok(8) {
            return Ok(None);
        }
        r.rip = u64::from_le_bytes(word);
        r.rsp = r.rsp.wrapping_add(8);
        r.rax = number;
        r.orig_rax = u64::MAX;
        self.tracee.set_registers(&r)?;
        self.at = At::Vsyscall;
        Ok(Some(registers_exit(&r, number)))
    }

    /// The processor's exception number and error code. ptrace does not tell them, but a signal frame does: the
    /// signal is delivered on the slot's stack, the thread stops before the handler's first instruction, the
    /// frame is read, and everything is put back.
    fn exception(&mut self, signal: i32, registers: &Registers) -> Result<(u64, u64), nix::errno::Errno> {
        let xstate = self.tracee.xstate()?;
        let mut on_slot = *registers;
        on_slot.rsp = self.slot.end();
        on_slot.orig_rax = u64::MAX;
        self.tracee.set_registers(&on_slot)?;
        if self.step(signal)? == Stop::Gone {
            return Err(nix::errno::Errno::ESRCH);
        }
        // rdx is the address of the ucontext, whose gregs are at 40: err, trapno are numbers 19 and 20.
        let frame = self.tracee.registers()?.rdx.wrapping_add(40 + 19 * 8);
        let mut words = [0; 16];
        let read = self.space.process.read_stub(frame, &mut words);
        let mut back = *registers;
        back.orig_rax = u64::MAX;
        self.tracee.set_registers(&back)?;
        self.tracee.set_xstate(&xstate)?;
        if read.is_err() {
            return Ok((0, 0));
        }
        let word =
            |i: usize| words.get(i..i + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
        Ok((word(8), word(0)))
    }

    /// Lets the thread do one step, with a signal to be delivered, until it traps or is gone. One instruction only: the
    /// stub's text may have been unmapped or replaced through a captured service thread, and must not get hold of us.
    fn step(&self, signal: i32) -> Result<Stop, nix::errno::Errno> {
        self.tracee.resume(Go::Step, signal)?;
        loop {
            match self.tracee.wait() {
                stop @ (Stop::Gone | Stop::Signal(libc::SIGTRAP)) => return Ok(stop),
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGSYS)
                    if self.tracee.siginfo()?.si_code > 0 =>
                {
                    self.space.process.state().misbehaved("a fault in the stub's own code");
                    return Err(nix::errno::Errno::ESRCH);
                }
                // A late kick, or a signal of somebody's on the host. A stop keeps the guest from going on, not this.
                Stop::Signal(signal) if STOPS.contains(&signal) => self.tracee.resume(Go::Step, signal)?,
                _ => self.tracee.resume(Go::Step, 0)?,
            }
        }
    }

    /// Makes the stopped thread do a system call of ours, from the stub's text. `None` if the thread ended.
    fn inject(&self, number: i64, args: [u64; 6]) -> Result<Option<i64>, nix::errno::Errno> {
        let before = self.tracee.registers()?;
        let mut r = before;
        r.rip = arch::CALL_TRAP;
        r.cs = 0x33;
        r.ss = 0x2b;
        r.rax = number as u64;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = args;
        r.orig_rax = u64::MAX;
        r.eflags &= !0x100;
        self.tracee.set_registers(&r)?;
        // At a call's entry the first step is the return from that call.
        let mut after = r;
        for _ in 0..2 {
            if after.rip == arch::CALL_TRAP {
                if self.step(0)? == Stop::Gone {
                    return Ok(None);
                }
                after = self.tracee.registers()?;
            }
        }
        // At a call's entry `orig_rax` is still needed, and `rax` harmless.
        let mut back = before;
        if self.at == At::Syscall {
            back.rax = 0;
        } else {
            back.orig_rax = u64::MAX;
        }
        self.tracee.set_registers(&back)?;
        Ok(Some(after.rax as i64))
    }

    /// Reads the thread's processor time: the host tells it only to the thread's own process.
    fn ask_cpu_time(&self) -> Option<Duration> {
        let args = [libc::CLOCK_THREAD_CPUTIME_ID as u64, self.slot.addr(), 0, 0, 0, 0];
        if self.inject(libc::SYS_clock_gettime, args) != Ok(Some(0)) {
            return None;
        }
        let mut words = [0; 16];
        self.space.process.read_stub(self.slot.addr(), &mut words).ok()?;
        let seconds = u64::from_le_bytes(words.get(..8)?.try_into().ok()?);
        let nanos = u64::from_le_bytes(words.get(8..)?.try_into().ok()?);
        // A sibling thread may have written there: no more than can be true.
        Some(
            Duration::new(seconds.min(u64::MAX / 2), (nanos % 1_000_000_000) as u32).min(self.born.elapsed()),
        )
    }
}

fn syscall_exit(info: &SyscallInfo) -> Exit {
    // Linux looks at the lower half of rax only.
    Exit::Syscall { number: u64::from(info.nr as u32), args: info.args, ip: info.ip }
}

fn registers_exit(r: &Registers, number: u64) -> Exit {
    Exit::Syscall { number, args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9], ip: r.rip }
}

impl Thread for PtraceThread {
    fn run(&mut self, resume: Resume) -> Exit {
        if let Some(death) = self.dead {
            return Exit::Dead(death);
        }
        if self.prepare(resume).is_err() {
            return Exit::Dead(self.died());
        }
        loop {
            if !self.kick.enter() {
                return Exit::Interrupted;
            }
            let go = if self.context.single_step { Go::SysemuStep } else { Go::Sysemu };
            let signal = std::mem::take(&mut self.stop_signal);
            let stop = match self.held {
                true => self.wait_for_sigcont(go),
                false => self.tracee.resume(go, signal).map(|()| self.tracee.wait()),
            };
            let stop = stop.unwrap_or(Stop::Gone);
            self.kick.leave();
            match self.classify(stop) {
                Ok(Some(exit)) => return exit,
                Ok(None) => {}
                Err(_) => return Exit::Dead(self.died()),
            }
        }
    }

    fn context(&mut self) -> std::result::Result<&mut Context, Death> {
        if let Some(death) = self.dead {
            return Err(death);
        }
        if !self.fetched {
            let (Ok(mut registers), Ok(mut xstate)) = (self.tracee.registers(), self.tracee.xstate()) else {
                return Err(self.died());
            };
            self.bases = (registers.fs_base, registers.gs_base);
            match self.at {
                At::Syscall => registers.rax = registers.orig_rax,
                At::Vsyscall => registers.orig_rax = registers.rax,
                At::Elsewhere => registers.orig_rax = u64::MAX,
            }
            platform::xstate::clear_software(&mut xstate);
            self.context.regs = registers;
            self.context.xstate = XState(xstate);
            self.fetched = true;
        }
        Ok(&mut self.context)
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        self.kick.clone()
    }

    /// Runs a few instructions of the stub's on the thread, which must be stopped, as it is whenever its owner asks.
    fn cpu_time(&self) -> Duration {
        if self.dead.is_none()
            && let Some(time) = self.ask_cpu_time()
            && time > self.cpu_time.get()
        {
            self.cpu_time.set(time);
        }
        self.cpu_time.get()
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl Drop for PtraceThread {
    fn drop(&mut self) {
        if self.dead.is_some() {
            return;
        }
        *self.kick.gone.lock() = true;
        // Send it to its exit, and see it out: the slot is free only then.
        match self.inject(libc::SYS_exit, [0; 6]) {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.space.process.state().misbehaved("a thread that will not exit");
                self.died();
            }
            Err(_) => {
                self.died();
            }
        }
    }
}
