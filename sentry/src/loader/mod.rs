//! Loading programs: what execve(2) does between opening the file and the first instruction.
//!
//! | file | subject |
//! |---|---|
//! | `elf` | headers and segments |
//! | `script` | `#!` lines |
//! | `stack` | arguments, environment, auxiliary vector |
//! | `vdso` | the shared object that every program finds in its memory |
//! | `clock_page` | the page from which it tells the time |

use std::sync::Arc;

use abi::elf as at;
use platform::{PAGE_SIZE, Prot, USER_MAX};

use crate::mm::vma::STACK_GUARD;
use crate::mm::{Fixed, Limits, MapRequest, MemoryManager};
use crate::vfs::File;
use crate::{Errno, Result};

mod clock_page;
mod elf;
mod script;
mod stack;
#[cfg(test)]
mod tests;
pub mod vdso;

pub use script::{Script, parse_script};
pub use stack::check_arguments;
pub use vdso::Vdso;

use elf::{Elf, Place, page_end};

/// Where position-independent programs begin (`ELF_ET_DYN_BASE`, two thirds of the address space).
const PIE_BASE: u64 = 0x5555_5555_4000;

/// Random bits of the stack's address in pages, as Linux has them.
const STACK_RANDOM: u64 = 0x3f_ffff;

/// Random bits of mappings and of position-independent programs, in pages (vm.mmap_rnd_bits).
const MMAP_RANDOM: u64 = (1 << 28) - 1;

/// The most that the heap is moved up.
const BRK_RANDOM: u64 = 1 << 30;

/// Room above the stack pointer that the initial stack has beyond what is on it.
const STACK_EXTRA: u64 = 128 << 10;

/// What is to be loaded, and for whom.
pub struct LoadRequest<'a> {
    /// The program, open for execution. Scripts have been replaced by their interpreters.
    pub file: Arc<File>,
    /// AT_EXECFN.
    pub filename: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// AT_UID.
    pub uid: u32,
    /// AT_EUID.
    pub euid: u32,
    /// AT_GID.
    pub gid: u32,
    /// AT_EGID.
    pub egid: u32,
    /// AT_SECURE.
    pub secure: bool,
    /// RLIMIT_STACK.
    pub stack_limit: u64,
    /// Random bytes: for AT_RANDOM, and for the layout.
    pub random: [u8; 48],
    /// False with the personality ADDR_NO_RANDOMIZE, or without `kernel.randomize_va_space`.
    pub randomize: bool,
    /// The vdso to be mapped.
    pub vdso: Option<&'a Vdso>,
    /// Opens the interpreter for execution.
    pub resolver: &'a dyn Fn(&[u8]) -> Result<Arc<File>>,
}

/// A program ready to run. All other registers are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The first instruction.
    pub entry: u64,
    /// The stack pointer.
    pub stack_pointer: u64,
}

/// Why a program was not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// What execve(2) returns, unless `fatal`.
    pub errno: Errno,
    /// Linux finds this out when the old program is gone already, and kills the process with SIGSEGV.
    pub fatal: bool,
}

impl From<LoadError> for Errno {
    fn from(error: LoadError) -> Errno {
        error.errno
    }
}

impl From<Errno> for LoadError {
    /// An error that execve(2) can return.
    fn from(errno: Errno) -> LoadError {
        LoadError { errno, fatal: false }
    }
}

/// Random numbers of a request, each for one purpose.
struct Random {
    stack: u64,
    mmap: u64,
    pie: u64,
    brk: u64,
    shift: u64,
}

impl Random {
    fn of(request: &LoadRequest<'_>) -> Random {
        let word = |i: usize| {
            let bytes = request.random.get(i..i + 8).and_then(|b| b.try_into().ok()).unwrap_or_default();
            if request.randomize { u64::from_le_bytes(bytes) } else { 0 }
        };
        let brk = word(40);
        Random {
            stack: (word(16) & STACK_RANDOM) * PAGE_SIZE,
            mmap: (word(24) & MMAP_RANDOM) * PAGE_SIZE,
            pie: (word(32) & MMAP_RANDOM) * PAGE_SIZE,
            brk: (brk % BRK_RANDOM) & !(PAGE_SIZE - 1),
            shift: (brk >> 48) % 8192,
        }
    }
}

/// Loads a program into `mm`, which is new and empty. Errors are execve's: ENOEXEC for what is no program of this
/// machine, ELIBBAD and EIO for its interpreter, E2BIG for too many arguments, what opening the interpreter gives; and
/// fatal ones for segments that cannot be mapped.
pub fn load(mm: &Arc<MemoryManager>, request: &LoadRequest<'_>) -> std::result::Result<Loaded, LoadError> {
    // Linux gives a program without arguments an empty one, since so many rely on argv[0].
    let empty = [Vec::new()];
    let argv = if request.argv.is_empty() { &empty } else { request.argv.as_slice() };
    check_arguments(&request.filename, argv, &request.envp, request.stack_limit)?;
    let program = Elf::read(&request.file)?;
    let interpreter = match program.interpreter()? {
        Some(path) => Some(Elf::read_interpreter(&(request.resolver)(&path)?)?),
        None => None,
    };
    map_all(mm, request, argv, &program, interpreter.as_ref())
        .map_err(|errno| LoadError { errno, fatal: true })
}

fn map_all(
    mm: &Arc<MemoryManager>,
    request: &LoadRequest<'_>,
    argv: &[Vec<u8>],
    program: &Elf,
    interpreter: Option<&Elf>,
) -> Result<Loaded> {
    let random = Random::of(request);
    let limits = Limits { stack: request.stack_limit, ..Limits::default() };
    let stack_top = USER_MAX - random.stack;
    mm.set_layout(|layout| {
        // Below the largest stack that the limit allows, and all of its random offset.
        let spread = if request.randomize { (STACK_RANDOM + 1) * PAGE_SIZE } else { 0 };
        let room =
            request.stack_limit.saturating_add(spread + STACK_GUARD).clamp(128 << 20, USER_MAX / 6 * 5);
        layout.mmap_base = (USER_MAX - (room + PAGE_SIZE - 1) - random.mmap) & !(PAGE_SIZE - 1);
    });

    let is_pie = program.header.e_type == at::ET_DYN;
    let is_loader = is_pie && interpreter.is_none();
    let place = if is_loader && program.alignment() <= PAGE_SIZE {
        Place::Anywhere
    } else {
        Place::At(PIE_BASE + random.pie)
    };
    mm.defer();
    let mapped = program.map(mm, place, false, &limits)?;
    let mut entry = mapped.bias.wrapping_add(program.header.e_entry);
    let mut base = 0;
    let mut interpreter_mapped = None;
    if let Some(interpreter) = interpreter {
        let mapped = interpreter.map(mm, Place::Anywhere, true, &limits)?;
        base = mapped.bias;
        entry = base.wrapping_add(interpreter.header.e_entry);
        interpreter_mapped = Some(mapped);
    }
    if entry >= USER_MAX {
        return Err(Errno::EINVAL);
    }
    let vdso = request.vdso.map_or(Ok(0), |vdso| vdso.map(mm))?;

    let auxv = auxiliary_vector(request, program, &mapped, base, vdso);
    let image = stack::build(stack::Parts {
        top: stack_top,
        filename: &request.filename,
        argv,
        envp: &request.envp,
        random: request.random.first_chunk().copied().unwrap_or_default(),
        shift: random.shift,
        auxv,
    });
    let stack_pointer = image.stack_pointer;
    map_stack(mm, stack_top, stack_pointer, program.wants_executable_stack(), &limits)?;
    mm.commit()?;
    mapped.clear(mm)?;
    if let Some(mapped) = interpreter_mapped {
        mapped.clear(mm)?;
    }
    mm.write_bytes(stack_pointer, &image.bytes)?;

    // A loader that is run by itself leaves the heap of its program room to grow.
    let heap = match (is_loader, request.randomize) {
        (true, true) => PIE_BASE,
        (_, true) => page_end(mapped.end).and_then(|end| end.checked_add(PAGE_SIZE)).ok_or(Errno::ENOMEM)?,
        (_, false) => page_end(mapped.end).ok_or(Errno::ENOMEM)?,
    };
    let heap = heap.saturating_add(random.brk);
    mm.set_auxv(image.auxv);
    mm.set_exe(Some(request.file.clone()));
    mm.set_layout(|layout| {
        (layout.start_code, layout.end_code) = mapped.code;
        (layout.start_data, layout.end_data) = mapped.data;
        (layout.start_brk, layout.brk) = (heap, heap);
        (layout.arg_start, layout.arg_end) = (image.arg_start, image.arg_end);
        (layout.env_start, layout.env_end) = (image.env_start, image.env_end);
        layout.start_stack = stack_pointer;
        layout.vdso = vdso;
    });
    Ok(Loaded { entry, stack_pointer })
}

fn map_stack(mm: &MemoryManager, top: u64, pointer: u64, executable: bool, limits: &Limits) -> Result<()> {
    let used = pointer & !(PAGE_SIZE - 1);
    let lowest = top.saturating_sub(limits.stack & !(PAGE_SIZE - 1));
    let addr = (used - STACK_EXTRA).max(lowest).min(used);
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, executable);
    mm.map(
        None,
        &MapRequest {
            addr,
            len: top - addr,
            prot,
            fixed: Fixed::NoReplace,
            grows_down: true,
            limits: *limits,
            ..MapRequest::default()
        },
    )?;
    Ok(())
}

/// The auxiliary vector in Linux's order. The entries for strings are filled in when the stack is built.
fn auxiliary_vector(
    request: &LoadRequest<'_>,
    program: &Elf,
    mapped: &elf::Mapped,
    base: u64,
    vdso: u64,
) -> Vec<(u64, u64)> {
    let cpu = platform::cpu::auxiliary();
    let mut auxv = Vec::with_capacity(24);
    if vdso != 0 {
        auxv.push((at::AT_SYSINFO_EHDR, vdso));
    }
    auxv.extend([
        (at::AT_MINSIGSTKSZ, cpu.min_signal_stack),
        (at::AT_HWCAP, cpu.hwcap),
        (at::AT_PAGESZ, PAGE_SIZE),
        (at::AT_CLKTCK, abi::time::USER_HZ),
        (at::AT_PHDR, mapped.headers),
        (at::AT_PHENT, u64::from(program.header.e_phentsize)),
        (at::AT_PHNUM, u64::from(program.header.e_phnum)),
        (at::AT_BASE, base),
        (at::AT_FLAGS, 0),
        (at::AT_ENTRY, mapped.bias.wrapping_add(program.header.e_entry)),
        (at::AT_UID, u64::from(request.uid)),
        (at::AT_EUID, u64::from(request.euid)),
        (at::AT_GID, u64::from(request.gid)),
        (at::AT_EGID, u64::from(request.egid)),
        (at::AT_SECURE, u64::from(request.secure)),
        (at::AT_RANDOM, 0),
        (at::AT_HWCAP2, cpu.hwcap2),
        (at::AT_EXECFN, 0),
        (at::AT_PLATFORM, 0),
    ]);
    auxv
}
