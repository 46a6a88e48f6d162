//! Filters that guests install (seccomp(2), kernel/seccomp.c).
//!
//! Each thread has a [`Seccomp`]; [`CurrentTask::screen`] asks it before each call. Which calls a chain of filters
//! allows whatever their arguments are is worked out once, when a filter is added, so that an allowed call costs the
//! look at a bit.
//!
//! Lock order: `Kernel::tasklist` (for those who change several threads) → a thread's mode.

pub mod bpf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::seccomp::{
    AUDIT_ARCH_X86_64, MAX_INSNS_PER_PATH, SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF, SeccompData, SeccompFlags,
};
use abi::siginfo::SigInfo;
use abi::signal::{SYS_SECCOMP, Signal};
use abi::{Errno, Result, sysno};
use parking_lot::RwLock;

use crate::task::{CurrentTask, Outcome, Task};
pub use bpf::Program;

/// What seccomp(2) says of a filter's errors is no more than this (MAX_ERRNO).
const ERRNO_MAX: u32 = 4095;

/// Numbers below this have a bit.
const CACHED: usize = (sysno::MAX as usize + 64) & !63;

/// The filters of a thread, the newest first.
#[derive(Debug)]
pub struct Filters {
    /// The filter installed before.
    pub previous: Option<Arc<Filters>>,
    program: Program,
    /// SECCOMP_FILTER_FLAG_LOG.
    log: bool,
    /// What the limit counts: instructions of this and all before, and 4 for each before.
    total: usize,
    /// Calls that are allowed whatever their arguments are.
    allowed: [u64; CACHED / 64],
}

impl Filters {
    /// Adds a filter to those there are. ENOMEM if all together are too long.
    pub fn new(previous: Option<Arc<Filters>>, program: Program, log: bool) -> Result<Arc<Filters>> {
        let before = previous.as_ref().map_or(0, |p| p.total + 4);
        let total = before + program.length();
        if total > MAX_INSNS_PER_PATH {
            return Err(Errno::ENOMEM);
        }
        let mut allowed = previous.as_ref().map_or([u64::MAX; CACHED / 64], |p| p.allowed);
        for number in 0..CACHED {
            let known = |offset| match offset {
                bpf::NUMBER => Some(number as u32),
                bpf::ARCH => Some(AUDIT_ARCH_X86_64),
                _ => None,
            };
            if program.run(known) != Some(SECCOMP_RET_ALLOW) {
                allowed[number / 64] &= !(1 << (number % 64));
            }
        }
        Ok(Arc::new(Filters { previous, program, log, total, allowed }))
    }

    fn chain(self: &Arc<Filters>) -> impl Iterator<Item = &Arc<Filters>> {
        std::iter::successors(Some(self), |filters| filters.previous.as_ref())
    }

    /// How many there are.
    pub fn count(self: &Arc<Filters>) -> usize {
        self.chain().count()
    }

    /// True if `self` is one of the filters that `other` has.
    fn is_part_of(self: &Arc<Filters>, other: &Arc<Filters>) -> bool {
        other.chain().any(|filters| Arc::ptr_eq(filters, self))
    }

    fn allows(&self, number: i32) -> bool {
        let Ok(number) = usize::try_from(number) else { return false };
        self.allowed.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    /// What the filters return: the strictest, of equals the newest, and whether that one wants it logged.
    pub fn evaluate(self: &Arc<Filters>, data: &SeccompData) -> (u32, bool) {
        if self.allows(data.nr) && data.arch == AUDIT_ARCH_X86_64 {
            return (SECCOMP_RET_ALLOW, false);
        }
        let words: [u32; 16] = zerocopy::transmute!(*data);
        let mut strictest = (SECCOMP_RET_ALLOW, false);
        for filters in self.chain() {
            let load = |offset: u32| words.get(offset as usize / 4).copied();
            let returned = filters.program.run(load).unwrap_or(SECCOMP_RET_KILL_THREAD);
            let action = |value: u32| (value & SECCOMP_RET_ACTION_FULL) as i32;
            if action(returned) < action(strictest.0) {
                strictest = (returned, filters.log);
            }
        }
        strictest
    }
}

impl Drop for Filters {
    /// A long chain must not take a stack frame for each.
    fn drop(&mut self) {
        let mut next = self.previous.take();
        while let Some(filters) = next {
            next = Arc::into_inner(filters).and_then(|mut filters| filters.previous.take());
        }
    }
}

/// What a thread's calls go through.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Disabled,
    /// read, write, _exit and rt_sigreturn are all there is.
    Strict,
    /// Filters.
    Filter(Arc<Filters>),
}

impl Mode {
    /// The number that `/proc/PID/status` and PR_GET_SECCOMP show.
    pub fn number(&self) -> u32 {
        match self {
            Mode::Disabled => SECCOMP_MODE_DISABLED,
            Mode::Strict => SECCOMP_MODE_STRICT,
            Mode::Filter(_) => SECCOMP_MODE_FILTER,
        }
    }

    /// How many filters there are.
    pub fn filters(&self) -> usize {
        match self {
            Mode::Filter(filters) => filters.count(),
            _ => 0,
        }
    }
}

/// The mode of a thread.
#[derive(Debug, Default)]
pub struct Seccomp {
    /// Not disabled. Read without the lock before each call.
    on: AtomicBool,
    mode: RwLock<Mode>,
}

impl Seccomp {
    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode.read().clone()
    }

    /// Replaces the mode.
    pub fn set(&self, mode: Mode) {
        let on = !matches!(mode, Mode::Disabled);
        *self.mode.write() = mode;
        self.on.store(on, Ordering::Release);
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Whether a call is allowed whatever its arguments are, and nobody wants to know of it.
    pub(crate) fn allows(&self, number: u64) -> bool {
        if !self.is_on() {
            return true;
        }
        match &*self.mode.read() {
            Mode::Disabled => true,
            Mode::Strict => false,
            Mode::Filter(filters) => i32::try_from(number).is_ok_and(|number| filters.allows(number)),
        }
    }
}

/// Adds a filter to those of a thread (SECCOMP_SET_MODE_FILTER), with TSYNC to all threads of its process. EINVAL in
/// strict mode. `Ok` is 0, or the number of a thread that cannot take it over (ESRCH with TSYNC_ESRCH).
pub fn install(task: &Task, program: Program, flags: SeccompFlags) -> Result<u32> {
    let sync = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_TSYNC);
    // A thread that is being made takes over what there is when it is added to its process.
    let _tasklist = task.kernel().tasklist.lock();
    let own = match task.seccomp.mode() {
        Mode::Disabled => None,
        Mode::Strict => return Err(Errno::EINVAL),
        Mode::Filter(filters) => Some(filters),
    };
    let others: Vec<Arc<Task>> = match sync {
        true => task.group.threads().into_iter().filter(|t| !std::ptr::eq(&**t, task)).collect(),
        false => Vec::new(),
    };
    for other in &others {
        let fits = match other.seccomp.mode() {
            Mode::Disabled => true,
            Mode::Strict => false,
            Mode::Filter(theirs) => own.as_ref().is_some_and(|own| theirs.is_part_of(own)),
        };
        if !fits && flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_TSYNC_ESRCH) {
            return Err(Errno::ESRCH);
        }
        if !fits {
            return Ok(other.pid().number_in(&task.pid_ns()));
        }
    }
    let log = flags.contains(SeccompFlags::SECCOMP_FILTER_FLAG_LOG);
    let filters = Filters::new(own, program, log)?;
    for other in &others {
        if task.no_new_privs.load(Ordering::Relaxed) {
            other.no_new_privs.store(true, Ordering::Relaxed);
        }
        other.seccomp.set(Mode::Filter(filters.clone()));
        // What its stub answers by itself is filtered from now on, too.
        other.identity_changed();
        other.interrupt();
    }
    task.seccomp.set(Mode::Filter(filters));
    task.identity_changed();
    Ok(0)
}

/// SECCOMP_SET_MODE_STRICT. EINVAL once there are filters.
pub fn set_strict(task: &Task) -> Result<()> {
    if let Mode::Filter(_) = task.seccomp.mode() {
        return Err(Errno::EINVAL);
    }
    task.seccomp.set(Mode::Strict);
    task.identity_changed();
    Ok(())
}

impl CurrentTask {
    /// Asks the filters. `None`: the call is to be carried out; else this is its end (__secure_computing()).
    pub(crate) fn screen(&self, number: u64, args: [u64; 6], ip: u64) -> Option<Result<Outcome>> {
        if !self.seccomp.is_on() {
            return None;
        }
        match self.seccomp.mode() {
            Mode::Disabled => None,
            Mode::Strict => match number {
                sysno::READ | sysno::WRITE | sysno::EXIT | sysno::RT_SIGRETURN => None,
                _ => Some(Ok(Outcome::Exit(abi::wait::signaled(Signal::SIGKILL, false)))),
            },
            Mode::Filter(filters) => {
                let data =
                    SeccompData { nr: number as i32, arch: AUDIT_ARCH_X86_64, instruction_pointer: ip, args };
                let (returned, log) = filters.evaluate(&data);
                let action = returned & SECCOMP_RET_ACTION_FULL;
                if action == SECCOMP_RET_TRACE && self.wants_seccomp_events() {
                    return self.ask_tracer(&filters, &data, returned & SECCOMP_RET_DATA);
                }
                self.act(&data, returned, log)
            }
        }
    }

    /// The tracer is told of the call and may change it; the filters have the last word, but do not ask again
    /// (__seccomp_filter()).
    fn ask_tracer(&self, filters: &Arc<Filters>, data: &SeccompData, reason: u32) -> Option<Result<Outcome>> {
        if let Some(end) = self.seccomp_stop(reason) {
            return Some(end);
        }
        let (number, args) = self.arguments();
        let data = SeccompData { nr: number as i32, args, ..*data };
        let (returned, log) = filters.evaluate(&data);
        if returned & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_TRACE {
            return None;
        }
        self.act(&data, returned, log)
    }

    fn act(&self, data: &SeccompData, returned: u32, log: bool) -> Option<Result<Outcome>> {
        let action = returned & SECCOMP_RET_ACTION_FULL;
        let reason = returned & SECCOMP_RET_DATA;
        match action {
            SECCOMP_RET_ALLOW => return None,
            SECCOMP_RET_LOG => {
                self.log_seccomp(data, action, 0);
                return None;
            }
            _ if log => self.log_seccomp(data, action, 0),
            _ => {}
        }
        Some(match action {
            SECCOMP_RET_ERRNO => {
                Ok(Outcome::Value(Errno::from_raw(reason.min(ERRNO_MAX) as i32).to_register()))
            }
            // Without a tracer, and without a listener.
            SECCOMP_RET_TRACE | SECCOMP_RET_USER_NOTIF => Err(Errno::ENOSYS),
            SECCOMP_RET_TRAP => self.raise_sigsys(data, reason),
            _ => self.kill_by_filter(data, action),
        })
    }

    fn sigsys(data: &SeccompData, reason: u32) -> SigInfo {
        SigInfo::sigsys(SYS_SECCOMP, data.instruction_pointer, data.nr, data.arch, reason as i32)
    }

    /// The handler sees the number of the call where its result would be.
    fn raise_sigsys(&self, data: &SeccompData, reason: u32) -> Result<Outcome> {
        self.with_context(|context| context.regs.rax = data.nr as i64 as u64)?;
        self.force_signal(Self::sigsys(data, reason));
        Ok(Outcome::Context)
    }

    fn kill_by_filter(&self, data: &SeccompData, action: u32) -> Result<Outcome> {
        self.log_seccomp(data, action, Signal::SIGSYS.number());
        if action == SECCOMP_RET_KILL_THREAD && self.group.threads().len() > 1 {
            return Ok(Outcome::Exit(abi::wait::signaled(Signal::SIGSYS, false)));
        }
        let status = abi::wait::signaled(Signal::SIGSYS, self.dumps_core());
        Ok(Outcome::Exit(self.group.begin_exit(status)))
    }

    /// audit_seccomp(): a line of the kernel's log.
    fn log_seccomp(&self, data: &SeccompData, action: u32, signal: u32) {
        let kernel = self.kernel();
        let creds = self.credentials();
        let now = kernel.clock.monotonic().saturating_sub(kernel.boot_time);
        let comm = String::from_utf8_lossy(&self.comm()).into_owned();
        let text = format!(
            "audit: type=1326 uid={} gid={} pid={} comm={comm:?} sig={signal} arch={:x} syscall={} compat=0 ip={:#x} \
             code={action:#x}",
            creds.uid,
            creds.gid,
            self.tid(),
            data.arch,
            data.nr,
            data.instruction_pointer,
        );
        tracing::debug!("{text}");
        kernel.log.add(5, now, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::seccomp::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_LD, BPF_RET, SECCOMP_RET_KILL_PROCESS, SockFilter};

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    /// Returns `value` for call `number`, else `other`.
    fn one(number: u32, value: u32, other: u32) -> Program {
        Program::check(&[
            op(BPF_LD | BPF_ABS, 0, 0, 0),
            op(BPF_JMP | BPF_JEQ, 0, 1, number),
            op(BPF_RET, 0, 0, value),
            op(BPF_RET, 0, 0, other),
        ])
        .unwrap()
    }

    fn data(nr: i32) -> SeccompData {
        SeccompData { nr, arch: AUDIT_ARCH_X86_64, instruction_pointer: 0, args: [0; 6] }
    }

    #[test]
    fn the_strictest_wins_and_of_equals_the_newest() {
        let all = [
            SECCOMP_RET_KILL_PROCESS,
            SECCOMP_RET_KILL_THREAD,
            SECCOMP_RET_TRAP,
            SECCOMP_RET_ERRNO,
            SECCOMP_RET_USER_NOTIF,
            SECCOMP_RET_TRACE,
            SECCOMP_RET_LOG,
            SECCOMP_RET_ALLOW,
        ];
        for (i, strict) in all.iter().enumerate() {
            for loose in &all[i..] {
                for (first, second) in [(strict, loose), (loose, strict)] {
                    let old = Filters::new(None, one(7, *first, SECCOMP_RET_ALLOW), false).unwrap();
                    let new = Filters::new(Some(old), one(7, *second, SECCOMP_RET_ALLOW), false).unwrap();
                    assert_eq!(new.evaluate(&data(7)).0, *strict);
                    assert_eq!(new.evaluate(&data(8)).0, SECCOMP_RET_ALLOW);
                }
            }
        }
        let old = Filters::new(None, one(7, SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ALLOW), false).unwrap();
        let new = Filters::new(Some(old), one(7, SECCOMP_RET_ERRNO | 2, SECCOMP_RET_ALLOW), true).unwrap();
        assert_eq!(new.evaluate(&data(7)), (SECCOMP_RET_ERRNO | 2, true));
        // An action that nobody knows is as strict as its number says.
        let odd = Filters::new(Some(new), one(7, 0x1234_0000, SECCOMP_RET_ALLOW), false).unwrap();
        assert_eq!(odd.evaluate(&data(7)).0, SECCOMP_RET_ERRNO | 2);
    }

    #[test]
    fn calls_allowed_whatever_their_arguments_are_known_beforehand() {
        let old = Filters::new(None, one(7, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW), false).unwrap();
        assert!(!old.allows(7) && old.allows(8) && old.allows(0) && old.allows(469));
        assert!(!old.allows(-1) && !old.allows(100_000));
        // What depends on an argument is not.
        let by_argument = Program::check(&[
            op(BPF_LD | BPF_ABS, 0, 0, 0),
            op(BPF_JMP | BPF_JEQ, 0, 2, 8),
            op(BPF_LD | BPF_ABS, 0, 0, 16),
            op(BPF_JMP | BPF_JEQ, 0, 1, 5),
            op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
            op(BPF_RET, 0, 0, SECCOMP_RET_ERRNO | 3),
        ])
        .unwrap();
        let new = Filters::new(Some(old), by_argument, false).unwrap();
        assert!(!new.allows(7) && !new.allows(8) && new.allows(9));
        let mut call = data(8);
        assert_eq!(new.evaluate(&call).0, SECCOMP_RET_ERRNO | 3);
        call.args[0] = 5;
        assert_eq!(new.evaluate(&call).0, SECCOMP_RET_ALLOW);
    }

    #[test]
    fn there_is_a_limit_to_all_filters_and_none_to_taking_them_away() {
        let mut filters = None;
        let error = loop {
            match Filters::new(filters.clone(), one(7, 0, SECCOMP_RET_ALLOW), false) {
                Ok(more) => filters = Some(more),
                Err(e) => break e,
            }
        };
        assert_eq!(error, Errno::ENOMEM);
        let filters = filters.unwrap();
        // 9 instructions (2 of them for each return) and 3, and 4 for each filter before.
        assert_eq!(filters.count(), (MAX_INSNS_PER_PATH + 4) / (9 + 4));
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || drop(filters))
            .unwrap()
            .join()
            .unwrap();
    }
}
