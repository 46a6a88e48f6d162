//! The reference platform: a guest thread is a thread of a stub process, traced with PTRACE_SYSEMU by the sentry
//! thread that runs it.
//!
//! Simple, and works wherever ptrace does; a system call costs two context switches and four host calls. The sentry must
//! not wait for "any child" with waitpid(-1): that would take stops away from the threads that wait for them.

mod thread;
mod tracee;

use platform::stub::filter::RET_TRAP;
use platform::stub::{Handler, Options, StubProcess, Template, TemplateError, arch};
use platform::{AddressSpace, Change, Context, Errno, Platform, Report, Result, Thread};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The platform.
pub struct Ptrace {
    template: Template,
}

impl Ptrace {
    /// Forks the template process; see [`Template::new`] for when that may be done.
    pub fn new() -> std::result::Result<Ptrace, TemplateError> {
        // A handler for each fault, whose frame is read for what ptrace does not tell (see `thread`).
        let handler =
            |signal| Handler { signal, addr: arch::FAULT_HANDLER, flags: libc::SA_NODEFER as u64, mask: 0 };
        let options = Options {
            // Calls from guest code never get as far as the filter, except those of the vsyscall page.
            guest_action: RET_TRAP,
            handlers: [libc::SIGFPE, libc::SIGILL, libc::SIGTRAP].map(handler).to_vec(),
            ..Options::default()
        };
        let template = Template::new(&options)?;
        template.probe_ptrace()?;
        Ok(Ptrace { template })
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(Space { process: self.template.spawn()? }))
    }

    fn branch(&self, entrances: &[BorrowedFd<'_>]) -> Result<Arc<dyn Platform>> {
        let process = self.template.spawn()?;
        process.enter(entrances)?;
        Ok(Arc::new(Branch { process, report: self.report() }))
    }

    fn report(&self) -> Report {
        let layout = platform::xstate::layout();
        let line = |name: &str, value: String| (name.to_owned(), value);
        Report {
            features: vec![
                line("PTRACE_SYSEMU", "yes".into()),
                line("process_vm_readv of stubs", "yes".into()),
                line("XSAVE image", format!("{} bytes, components {:#x}", layout.size, layout.features)),
            ],
        }
    }
}

/// What address spaces descend from that are to have something in common for the host.
struct Branch {
    process: Arc<StubProcess>,
    report: Report,
}

impl Platform for Branch {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(Space { process: self.process.fork()? }))
    }

    fn close(&self) {
        self.process.kill();
    }

    fn report(&self) -> Report {
        self.report.clone()
    }
}

/// A guest address space: a stub process.
pub(crate) struct Space {
    pub(crate) process: Arc<StubProcess>,
}

impl AddressSpace for Space {
    fn new_thread(self: Arc<Self>, context: &Context) -> Result<Box<dyn Thread>> {
        Ok(Box::new(thread::PtraceThread::new(self, context)?))
    }

    fn apply(&self, _by: Option<&mut dyn Thread>, changes: &[Change<'_>]) -> Result<()> {
        self.process.apply(changes)
    }

    fn fork(&self, _by: Option<&mut dyn Thread>) -> Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(Space { process: self.process.fork()? }))
    }

    fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<usize> {
        self.process.read_batch(segments)
    }

    fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<usize> {
        self.process.write_batch(segments)
    }

    fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        self.process.poke(addr, buf)
    }

    fn compare_exchange(
        &self,
        _by: Option<&mut dyn Thread>,
        addr: u64,
        expected: u32,
        new: u32,
    ) -> Result<u32, Errno> {
        self.process.compare_exchange(addr, expected, new)
    }

    fn resident(&self, addr: u64, pages: &mut [u8]) -> Result<()> {
        self.process.resident(addr, pages)
    }

    fn on_death(&self, watch: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        Box::new(self.process.state().on_death(watch))
    }

    fn kill(&self) {
        self.process.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::stub::{Op, SLOT_SIZE, SLOTS};
    use platform::{Exit, Prot, Resume};

    /// What a captured service thread can do to its own process ends that process, and holds up nobody.
    #[test]
    fn a_stub_that_loses_its_memory_dies() {
        let platform = Ptrace::new().unwrap();
        for drop_only in [false, true] {
            let space = Arc::new(Space { process: platform.template.spawn().unwrap() });
            let mut thread = space.clone().new_thread(&Context::default()).unwrap();
            // The signal frame of the first fault has nowhere to go.
            let unmap = Op::call(libc::SYS_munmap, [SLOTS, SLOT_SIZE, 0, 0, 0, 0]);
            assert_eq!(space.process.call(unmap, &[]), Ok(0));
            if !drop_only {
                assert!(matches!(thread.run(Resume::Context), Exit::Dead(_)));
                assert_eq!(space.read(0x10_0000, &mut [0]), Err(Errno::ESRCH));
            }
            drop(thread);
            // And the service thread without its code.
            let text = platform::stub::STUB_TEXT;
            let protect = Op::call(libc::SYS_mprotect, [text, 4096, 1, 0, 0, 0]);
            assert_eq!(space.process.call(protect, &[]), Err(Errno::ESRCH));
        }
    }

    /// Who stops a stub process from outside stops its guest, and holds up nobody else: not who changes its memory, forks it
    /// or makes a thread in it, and not who interrupts the guest.
    #[test]
    fn a_stopped_stub_keeps_its_guest_waiting_and_nobody_else() {
        const CODE: u64 = 0x10_0000;
        const DATA: u64 = 0x20_0000;
        let platform = Ptrace::new().unwrap();
        let space = Arc::new(Space { process: platform.template.spawn().unwrap() });
        let map =
            |addr| Change::MapAnonymous { addr, len: 4096, prot: Prot::READ | Prot::WRITE | Prot::EXEC };
        space.apply(None, &[map(CODE), map(DATA)]).unwrap();
        // inc qword ptr [rdi]; jmp back
        space.write(CODE, &[0x48, 0xff, 0x07, 0xeb, 0xfb]).unwrap();
        let mut context = Context::default();
        context.regs.rip = CODE;
        context.regs.rdi = DATA;
        let count = || {
            let mut word = [0; 8];
            space.read(DATA, &mut word).unwrap();
            u64::from_le_bytes(word)
        };
        let wait_until_more_than = |least| {
            while count() <= least {
                std::thread::yield_now();
            }
        };
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let guest = scope.spawn(|| {
                let mut thread = space.clone().new_thread(&context).unwrap();
                send.send(thread.interrupter()).unwrap();
                for _ in 0..3 {
                    assert!(matches!(thread.run(Resume::Context), Exit::Interrupted));
                    send.send(thread.interrupter()).unwrap();
                }
                assert!(matches!(thread.run(Resume::Context), Exit::Dead(_)));
            });
            let interrupter = receive.recv().unwrap();
            wait_until_more_than(0);
            let signal = |signal| {
                let pid = nix::unistd::Pid::from_raw(space.process.pid());
                nix::sys::signal::kill(pid, signal).unwrap();
            };
            use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
            for _ in 0..3 {
                signal(SIGSTOP);
                // The first command finds out that it is stopped, and by its answer it is.
                space.apply(None, &[map(0x30_0000)]).unwrap();
                let stopped_at = count();
                space.fork(None).unwrap().write(DATA, &[1]).unwrap();
                drop(space.clone().new_thread(&context).unwrap());
                interrupter.interrupt();
                receive.recv().unwrap();
                // It went on with `run`, but not with the guest.
                std::thread::sleep(std::time::Duration::from_millis(20));
                assert_eq!(count(), stopped_at);
                signal(SIGCONT);
                wait_until_more_than(stopped_at);
            }
            signal(SIGSTOP);
            space.kill();
            guest.join().unwrap();
        });
    }

    /// Nor does it hold up who needs a new process if what is stopped is the one that they are forked from.
    #[test]
    fn a_stopped_template_makes_processes() {
        let platform = Ptrace::new().unwrap();
        let template = platform.template.spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(template.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let space = Space { process: template.fork().unwrap() };
        space.apply(None, &[Change::MapAnonymous { addr: 0x10_0000, len: 4096, prot: Prot::READ }]).unwrap();
        // It is still stopped.
        let flags = nix::sys::wait::WaitPidFlag::WSTOPPED | nix::sys::wait::WaitPidFlag::__WALL;
        let status = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags).unwrap();
        assert!(matches!(status, nix::sys::wait::WaitStatus::Stopped(..)), "{status:?}");
    }
}
