//! The pages of a thread with its signal frame, shared by the stub thread and the sentry.
//!
//! ```text
//! 0      control block: see the CONTROL_ constants
//! 256    requests of patched calls: see `request`
//!        ...
//! frame  struct rt_sigframe: restorer, ucontext, siginfo (asm/sigframe.h); the stack pointer when a handler starts
//!        padding to 64, XSAVE image, magic, end
//! data   memory that travels with patched calls: see `request`
//! ```
//!
//! The kernel puts a frame always at the same place, because SS_AUTODISARM makes every handler start at the top of
//! the signal stack. (With AMX there are two places: a thread's image grows when it first uses the tiles.) Sibling
//! guest threads can write the pages at any time: they are read once into sentry memory, only at offsets known
//! beforehand, and no pointer in them is followed.

use super::request::{CARRIED, CARRIED_MAX, DATA_END, LATER, LATER_MAX};
use super::xstate::Layout;
use platform::{Context, Fault, Registers, XState};

/// Where ucontext is.
pub const UCONTEXT: usize = 8;
/// Where siginfo is.
pub const SIGINFO: usize = UCONTEXT + UCONTEXT_SIZE;
/// Bytes of `struct rt_sigframe`.
const FRAME_SIZE: usize = SIGINFO + 128;
const UCONTEXT_SIZE: usize = 304;
const UC_STACK: usize = UCONTEXT + 16;
const UC_MCONTEXT: usize = UCONTEXT + 40;
const UC_SIGMASK: usize = UCONTEXT + 296;
/// Words of `struct sigcontext`, general registers first.
const RAX: usize = 13;
const RCX: usize = 14;
const RSP: usize = 15;
const RIP: usize = 16;
const EFLAGS: usize = 17;
const SELECTORS: usize = 18;
const ERROR: usize = 19;
const TRAPNO: usize = 20;
const FPSTATE: usize = 23;
const SIGCONTEXT_WORDS: usize = 32;

/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS: an image follows, and `ss` is to be loaded.
const UC_FLAGS: u64 = 7;
/// SS_AUTODISARM: without it the guest's stack pointer would aim the next frame.
const SS_AUTODISARM: u64 = 1 << 31;
/// `__USER_CS`.
pub const USER_CS: u64 = 0x33;
/// `__USER_DS`.
pub const USER_SS: u64 = 0x2b;
/// The two, with `gs` 0 and `fs` 0 between them.
const USER_SELECTORS: u64 = USER_CS | USER_SS << 48;

/// Bytes of the control block, with the requests.
const CONTROL_SIZE: usize = super::request::END;
/// `fs` base to load before the handler returns.
pub const CONTROL_FS: usize = 0;
/// `gs` base to load before the handler returns.
pub const CONTROL_GS: usize = 8;
/// Counts the handler's entries.
pub const CONTROL_COUNT: usize = 16;
/// What a new thread says of its listener.
pub const CONTROL_LISTENER: usize = 24;
/// A call to be made: number, six arguments.
pub const CONTROL_CALL: usize = 128;
/// Two words that a call may write.
pub const CONTROL_RESULT: usize = 184;

/// The thread's processor time, two words, when its handler was entered for a trapped call.
pub const CONTROL_TIME: usize = 200;

/// Where a frame and its image are, the same in every thread.
#[derive(Clone, Debug)]
pub struct Shape {
    frame: usize,
    image: usize,
    end: usize,
    xstate: Layout,
}

impl Shape {
    /// Whether frames of this shape cannot hold `state`.
    pub fn lacks(&self, state: &XState) -> bool {
        self.xstate.lacks(state)
    }

    /// As get_sigframe() and fpu__alloc_mathframe() compute it.
    fn new(end: usize, xstate: Layout) -> Self {
        let image = (end - xstate.frame_size()) & !63;
        let frame = ((image - FRAME_SIZE) & !15) - 8;
        Self { frame, image, end, xstate }
    }
}

const _: () = assert!(DATA_END <= platform::stub::SLOT_SIZE as usize);

/// The shapes of frames on this host.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Bytes of a thread's pages.
    pub size: usize,
    /// The one of a new thread, then (with AMX) the one after the first use of tiles.
    pub shapes: Vec<Shape>,
}

impl Geometry {
    /// The geometry for this host's registers.
    pub fn new() -> Option<Self> {
        let layouts = Layout::detect()?;
        let largest = layouts.iter().map(Layout::frame_size).max()?;
        let end = (CONTROL_SIZE + FRAME_SIZE + 16 + 64 + largest + 64).next_power_of_two().max(4096);
        if end > CARRIED {
            return None;
        }
        let shapes = layouts.into_iter().map(|layout| Shape::new(end, layout)).collect();
        Some(Self { size: DATA_END, shapes })
    }
}

/// One thread's pages: where the sentry and where the stub has them.
#[derive(Clone)]
pub struct Page {
    /// The sentry's mapping.
    at: *mut u8,
    /// The stub's address.
    pub guest: u64,
}

/// Copies in a way that the compiler does not see into; by words, which not every processor does for bytes.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear in Rust code.
    unsafe {
        core::arch::asm!("rep movsq", "mov ecx, {rest:e}", "rep movsb", rest = in(reg) len % 8,
            inout("rcx") len / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

// SAFETY: the memory is shared with another process and only copied; it stays mapped as long as the arena, which
// outlives the pages that it hands out.
unsafe impl Send for Page {}

impl Page {
    /// # Safety
    /// `at` must be a writable mapping of [`Geometry::size`] bytes that lives as long as the result.
    pub unsafe fn new(at: *mut u8, guest: u64) -> Self {
        Self { at, guest }
    }

    /// The sentry's pointer to a byte of the control block.
    pub(super) fn pointer(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < CONTROL_SIZE);
        // SAFETY: all callers stay in the page.
        unsafe { self.at.add(offset) }
    }

    fn read(&self, offset: usize, out: &mut [u8]) {
        // SAFETY: all callers stay in the page. The copy is opaque to the compiler, so that concurrent writes by the
        // guest make for odd values but not for undefined behaviour.
        unsafe { copy(self.at.add(offset), out.as_mut_ptr(), out.len()) };
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: as in `read`.
        unsafe { copy(bytes.as_ptr(), self.at.add(offset), bytes.len()) };
    }

    /// Copies carried memory from `offset` on; all of it lies in [`CARRIED_MAX`], or nothing is copied.
    pub fn read_carried(&self, offset: usize, out: &mut [u8]) -> bool {
        let fits = offset.checked_add(out.len()).is_some_and(|end| end <= CARRIED_MAX);
        if fits {
            self.read(CARRIED + offset, out);
        }
        fits
    }

    /// Puts memory that the stub is to copy at `offset`; all of it fits into [`LATER_MAX`], or nothing is done.
    pub fn write_later(&self, offset: usize, bytes: &[u8]) -> bool {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= LATER_MAX);
        if fits {
            self.write(LATER + offset, bytes);
        }
        fits
    }

    /// Reads that again.
    pub fn read_later(&self, offset: usize, out: &mut [u8]) -> bool {
        let fits = offset.checked_add(out.len()).is_some_and(|end| end <= LATER_MAX);
        if fits {
            self.read(LATER + offset, out);
        }
        fits
    }

    fn read_u64(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.read(offset, &mut word);
        u64::from_le_bytes(word)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    fn register(index: usize) -> usize {
        UC_MCONTEXT + index * 8
    }

    /// Sets rax of the frame.
    pub fn set_rax(&self, shape: &Shape, value: u64) {
        self.write_u64(shape.frame + Self::register(RAX), value);
    }

    /// Sets rip of the frame.
    pub fn set_rip(&self, shape: &Shape, value: u64) {
        self.write_u64(shape.frame + Self::register(RIP), value);
    }

    /// Sets rsp of the frame.
    pub fn set_rsp(&self, shape: &Shape, value: u64) {
        self.write_u64(shape.frame + Self::register(RSP), value);
    }

    /// Sets rcx of the frame.
    pub fn set_rcx(&self, shape: &Shape, value: u64) {
        self.write_u64(shape.frame + Self::register(RCX), value);
    }

    /// rax of the frame.
    pub fn rax(&self, shape: &Shape) -> u64 {
        self.read_u64(shape.frame + Self::register(RAX))
    }

    /// rip of the frame.
    pub fn rip(&self, shape: &Shape) -> u64 {
        self.read_u64(shape.frame + Self::register(RIP))
    }

    /// rsp of the frame.
    pub fn rsp(&self, shape: &Shape) -> u64 {
        self.read_u64(shape.frame + Self::register(RSP))
    }

    /// rcx of the frame.
    pub fn rcx(&self, shape: &Shape) -> u64 {
        self.read_u64(shape.frame + Self::register(RCX))
    }

    /// rdi, rsi, rdx, r10, r8, r9 of the frame.
    pub fn call_arguments(&self, shape: &Shape) -> [u64; 6] {
        [8, 9, 12, 2, 0, 1].map(|index| self.read_u64(shape.frame + Self::register(index)))
    }

    /// `si_arch` of a SIGSYS frame.
    pub fn trapped_arch(&self, shape: &Shape) -> u32 {
        (self.read_u64(shape.frame + SIGINFO + 24) >> 32) as u32
    }

    /// `si_code`: above 0 if the kernel made the signal by itself.
    pub fn signal_code(&self, shape: &Shape) -> i32 {
        self.read_u64(shape.frame + SIGINFO + 8) as u32 as i32
    }

    /// The exception of a frame that was made for `signal`.
    pub fn fault(&self, shape: &Shape, signal: i32) -> Fault {
        let info = shape.frame + SIGINFO;
        Fault {
            signal,
            code: self.read_u64(info + 8) as u32 as i32,
            addr: self.read_u64(info + 16),
            trapno: self.read_u64(shape.frame + Self::register(TRAPNO)),
            error: self.read_u64(shape.frame + Self::register(ERROR)),
        }
    }

    /// Says where the stub saves its registers.
    pub fn prepare_saving(&self, shape: &Shape) {
        self.set_saving(shape.xstate.features(), shape.image);
    }

    /// Copies the image that the stub has saved to `context`.
    pub fn load_image(&self, shape: &Shape, context: &mut Context) {
        context.xstate.0.resize(shape.xstate.size(), 0);
        self.read(shape.image, &mut context.xstate.0);
        context.xstate.0 = shape.xstate.clean(&context.xstate);
    }

    /// Has the stub go on with the frame that was stored. False: it rings, or is about to.
    pub fn reply_context(&self, shape: &Shape) -> bool {
        self.reply_frame(self.frame_address(shape) + UCONTEXT as u64)
    }

    /// Copies the frame's registers to `context`. The bases of fs and gs are not in a frame.
    pub fn load(&self, shape: &Shape, context: &mut Context) {
        let mut bytes = [0; SIGCONTEXT_WORDS * 8];
        self.read(shape.frame + UC_MCONTEXT, &mut bytes);
        let mut words = [0; SIGCONTEXT_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        let selectors = words[SELECTORS];
        let (fs_base, gs_base) = (context.regs.fs_base, context.regs.gs_base);
        context.regs = Registers {
            r8: words[0],
            r9: words[1],
            r10: words[2],
            r11: words[3],
            r12: words[4],
            r13: words[5],
            r14: words[6],
            r15: words[7],
            rdi: words[8],
            rsi: words[9],
            rbp: words[10],
            rbx: words[11],
            rdx: words[12],
            rax: words[RAX],
            rcx: words[RCX],
            rsp: words[RSP],
            rip: words[RIP],
            eflags: words[EFLAGS],
            cs: selectors & 0xffff,
            ss: selectors >> 48,
            orig_rax: u64::MAX,
            fs_base,
            gs_base,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        };
        self.load_image(shape, context);
    }

    /// Writes a frame from which rt_sigreturn(2) continues with `context` and the signals of `mask` blocked. `gs` is the base
    /// of gs.
    pub fn store(&self, shape: &Shape, context: &Context, mask: u64, gs: u64) {
        let regs = &context.regs;
        let mut frame = [0u8; UCONTEXT_SIZE];
        let mut put = |offset: usize, value: u64| {
            frame[offset - UCONTEXT..offset - UCONTEXT + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(UCONTEXT, UC_FLAGS);
        put(UC_STACK, self.guest);
        put(UC_STACK + 8, SS_AUTODISARM);
        put(UC_STACK + 16, shape.end as u64);
        let trap = if context.single_step { super::TRAP_FLAG } else { 0 };
        let words = [
            regs.r8,
            regs.r9,
            regs.r10,
            regs.r11,
            regs.r12,
            regs.r13,
            regs.r14,
            regs.r15,
            regs.rdi,
            regs.rsi,
            regs.rbp,
            regs.rbx,
            regs.rdx,
            regs.rax,
            regs.rcx,
            regs.rsp,
            regs.rip,
            regs.eflags | trap,
            USER_SELECTORS,
        ];
        for (index, word) in words.into_iter().enumerate() {
            put(Self::register(index), word);
        }
        put(Self::register(FPSTATE), self.guest + shape.image as u64);
        put(UC_SIGMASK, mask);
        self.write(shape.frame + UCONTEXT, &frame);
        self.write(shape.image, &shape.xstate.frame_image(&context.xstate));
        self.write_u64(CONTROL_FS, canonical(regs.fs_base));
        self.write_u64(CONTROL_GS, canonical(gs));
    }

    /// Empties the control block, for a new thread.
    pub fn prepare(&self) {
        self.write(0, &[0; CONTROL_SIZE]);
    }

    /// Where the stub finds a field of the control block.
    pub fn control_address(&self, field: usize) -> u64 {
        self.guest + field as u64
    }

    /// Where the stub has the frame: the stack pointer of a handler.
    pub fn frame_address(&self, shape: &Shape) -> u64 {
        self.guest + shape.frame as u64
    }

    /// Puts a call where the stub looks for it.
    pub fn set_call(&self, number: u64, args: [u64; 6]) {
        self.write_u64(CONTROL_CALL, number);
        for (index, arg) in args.into_iter().enumerate() {
            self.write_u64(CONTROL_CALL + 8 + index * 8, arg);
        }
    }

    /// The processor time that came with a trapped call: seconds and nanoseconds.
    pub fn time_of_call(&self) -> [u64; 2] {
        [self.read_u64(CONTROL_TIME), self.read_u64(CONTROL_TIME + 8)]
    }

    /// The words that a call wrote.
    pub fn call_output(&self) -> [u64; 2] {
        [self.read_u64(CONTROL_RESULT), self.read_u64(CONTROL_RESULT + 8)]
    }
}

/// The nearest address that the base registers accept. (A larger one raises #GP in wrfsbase.)
fn canonical(base: u64) -> u64 {
    ((base << 16) as i64 >> 16) as u64
}
