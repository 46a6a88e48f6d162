//! ptrace(2) requests on one stopped thread.

use nix::errno::Errno as Host;
use platform::Registers;
use std::ffi::c_void;

const NT_X86_XSTATE: usize = 0x202;
const NT_PRSTATUS: usize = 1;
const PTRACE_EVENT_STOP: i32 = 128;

/// Offset of a register in `struct user`, whose first member is `struct user_regs_struct`.
macro_rules! user_offset {
    ($field:ident) => {
        std::mem::offset_of!(Registers, $field)
    };
}
pub(crate) use user_offset;

/// How to let a tracee go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    /// To the next system call, which is not carried out.
    Sysemu,
    /// One instruction, or to a system call.
    SysemuStep,
    /// One instruction; system calls are carried out.
    Step,
}

/// What waitpid reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At a system call's entry.
    Syscall,
    /// A signal is about to be delivered.
    Signal(i32),
    /// PTRACE_INTERRUPT, or the end of a group stop.
    Event,
    /// A group stop: somebody on the host has stopped the process.
    Group,
    /// The thread has exited.
    Gone,
}

/// `struct ptrace_syscall_info` (linux/ptrace.h) of an entry stop.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SyscallInfo {
    pub(crate) op: u8,
    pad: [u8; 3],
    pub(crate) arch: u32,
    pub(crate) ip: u64,
    pub(crate) sp: u64,
    pub(crate) nr: u64,
    pub(crate) args: [u64; 6],
    more: [u64; 2],
}

/// A traced thread. All requests must come from the thread that seized it; ESRCH means that it is not stopped, which for
/// a well-behaved caller means dead.
#[derive(Clone, Copy)]
pub(crate) struct Tracee(pub(crate) i32);

impl Tracee {
    /// # Safety
    /// `addr` and `data` must be what the request expects.
    unsafe fn request(self, request: u32, addr: usize, data: *mut c_void) -> Result<i64, Host> {
        // SAFETY: the caller's promise. The raw call has no PEEK special case of the C library's.
        let ret = unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), self.0 as i64, addr, data) };
        Host::result(ret)
    }

    /// Seizes and stops the thread, which runs freely.
    pub(crate) fn seize(self) -> Result<(), Host> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // SAFETY: data is the options word.
        unsafe { self.request(libc::PTRACE_SEIZE, 0, options as usize as *mut c_void) }?;
        self.interrupt()
    }

    /// Has it come to an event stop, from where it runs or listens; or at once when it is let go on.
    pub(crate) fn interrupt(self) -> Result<(), Host> {
        // SAFETY: no operands.
        unsafe { self.request(libc::PTRACE_INTERRUPT, 0, std::ptr::null_mut()) }.map(drop)
    }

    /// Leaves it in the group stop that it is in, and has the end of that reported. EIO in any other stop.
    pub(crate) fn listen(self) -> Result<(), Host> {
        // SAFETY: no operands.
        unsafe { self.request(libc::PTRACE_LISTEN, 0, std::ptr::null_mut()) }.map(drop)
    }

    /// Unblocks all signals of the stopped thread.
    pub(crate) fn clear_signal_mask(self) -> Result<(), Host> {
        const PTRACE_SETSIGMASK: u32 = 0x420b;
        let none = 0u64;
        // SAFETY: the kernel reads the 8 bytes of a signal set.
        unsafe { self.request(PTRACE_SETSIGMASK, 8, (&raw const none).cast_mut().cast()) }.map(drop)
    }

    pub(crate) fn resume(self, go: Go, signal: i32) -> Result<(), Host> {
        let request = match go {
            Go::Sysemu => libc::PTRACE_SYSEMU,
            Go::SysemuStep => libc::PTRACE_SYSEMU_SINGLESTEP,
            Go::Step => libc::PTRACE_SINGLESTEP,
        };
        // SAFETY: data is a signal number.
        unsafe { self.request(request, 0, signal as usize as *mut c_void) }.map(drop)
    }

    pub(crate) fn wait(self) -> Stop {
        loop {
            if let Some(stop) = self.look(0) {
                return stop;
            }
        }
    }

    /// What there is to report, if anything; `flags` are waitpid's.
    pub(crate) fn look(self, flags: i32) -> Option<Stop> {
        let mut status = 0;
        loop {
            // SAFETY: status is a local.
            let ret = unsafe { libc::waitpid(self.0, &mut status, libc::__WALL | flags) };
            if ret == self.0 {
                break;
            }
            if ret == 0 {
                return None;
            }
            if Host::last() != Host::EINTR {
                return Some(Stop::Gone);
            }
        }
        if !libc::WIFSTOPPED(status) {
            return Some(Stop::Gone);
        }
        Some(match libc::WSTOPSIG(status) {
            libc::SIGTRAP if status >> 16 == PTRACE_EVENT_STOP => Stop::Event,
            _ if status >> 16 == PTRACE_EVENT_STOP => Stop::Group,
            s if s == libc::SIGTRAP | 0x80 => Stop::Syscall,
            s => Stop::Signal(s),
        })
    }

    pub(crate) fn syscall_info(self) -> Result<SyscallInfo, Host> {
        let mut info = SyscallInfo::default();
        let size = std::mem::size_of::<SyscallInfo>();
        // SAFETY: the kernel writes at most `size` bytes; any bytes are a valid SyscallInfo.
        unsafe { self.request(libc::PTRACE_GET_SYSCALL_INFO, size, (&raw mut info).cast()) }?;
        Ok(info)
    }

    pub(crate) fn siginfo(self) -> Result<libc::siginfo_t, Host> {
        // SAFETY: zeroes are a valid siginfo_t; the kernel fills it.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            self.request(libc::PTRACE_GETSIGINFO, 0, (&raw mut info).cast())?;
            Ok(info)
        }
    }

    pub(crate) fn registers(self) -> Result<Registers, Host> {
        let mut registers = Registers::default();
        // SAFETY: Registers has the layout of struct user_regs_struct.
        unsafe { self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers).cast()) }?;
        Ok(registers)
    }

    /// Sets the general registers up to `ss`, without the segment bases and data selectors.
    pub(crate) fn set_registers(self, registers: &Registers) -> Result<(), Host> {
        let mut iov = libc::iovec {
            iov_base: std::ptr::from_ref(registers).cast_mut().cast(),
            iov_len: user_offset!(fs_base),
        };
        // SAFETY: the kernel reads iov_len bytes of a user_regs_struct.
        unsafe { self.request(libc::PTRACE_SETREGSET, NT_PRSTATUS, (&raw mut iov).cast()) }.map(drop)
    }

    /// Sets one register, by its offset in `struct user`.
    pub(crate) fn set_user(self, offset: usize, value: u64) -> Result<(), Host> {
        // SAFETY: data is the value.
        unsafe { self.request(libc::PTRACE_POKEUSER, offset, value as usize as *mut c_void) }.map(drop)
    }

    pub(crate) fn xstate(self) -> Result<Vec<u8>, Host> {
        let mut image = vec![0u8; platform::xstate::layout().size];
        let mut iov = libc::iovec { iov_base: image.as_mut_ptr().cast(), iov_len: image.len() };
        // SAFETY: the kernel writes at most iov_len bytes.
        unsafe { self.request(libc::PTRACE_GETREGSET, NT_X86_XSTATE, (&raw mut iov).cast()) }?;
        Ok(image)
    }

    /// Sets the FPU state to a whole, sanitized image.
    pub(crate) fn set_xstate(self, image: &[u8]) -> Result<(), Host> {
        let mut iov = libc::iovec { iov_base: image.as_ptr().cast_mut().cast(), iov_len: image.len() };
        // SAFETY: the kernel reads iov_len bytes.
        unsafe { self.request(libc::PTRACE_SETREGSET, NT_X86_XSTATE, (&raw mut iov).cast()) }.map(drop)
    }
}
