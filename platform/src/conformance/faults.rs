//! Exceptions: signal, code, address, exception number and error code are those of Linux.

use super::code;
use super::harness::{CODE, DATA, Guest, Outcome, fault, syscall};
use super::{Case, Outcome::Passed};
use crate::{Change, Fault, PAGE_SIZE, Platform, Prot};

pub(super) const CASES: &[Case] = &[
    ("fault_int3", int3),
    ("fault_divide_by_zero", divide),
    ("fault_undefined_instruction", ud2),
    ("fault_privileged_instruction", hlt),
    ("fault_non_canonical_address", non_canonical),
    ("fault_int_0x80", int80),
    ("fault_simd_exception", simd),
    ("fault_page_fault_kinds", pages),
    ("fault_jump_to_nowhere", nowhere),
    ("faults_leave_registers_alone", registers),
];

const SI_KERNEL: i32 = 0x80;

fn run(platform: &dyn Platform, code: &[u8]) -> (Guest, Fault) {
    let mut guest = Guest::new(platform, code);
    guest.context().regs.rdi = DATA;
    let f = fault(guest.go());
    (guest, f)
}

fn int3(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::int3());
    assert_eq!((f.signal, f.code, f.trapno, f.error), (libc::SIGTRAP, SI_KERNEL, 3, 0));
    assert_eq!(guest.context().regs.rip, CODE + 2, "a trap: the address after it");
    assert_eq!(syscall(guest.go()).0, 39);
    Passed
}

fn divide(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::divide());
    let ip = guest.context().regs.rip;
    assert_eq!(ip, CODE + code::divide().len() as u64 - 2);
    assert_eq!((f.signal, f.code, f.addr, f.trapno, f.error), (libc::SIGFPE, 1, ip, 0, 0));
    Passed
}

fn ud2(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::ud2());
    assert_eq!((f.signal, f.code, f.addr, f.trapno, f.error), (libc::SIGILL, 2, CODE + 1, 6, 0));
    assert_eq!(guest.context().regs.rip, CODE + 1);
    Passed
}

fn hlt(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::hlt());
    assert_eq!((f.signal, f.code, f.addr, f.trapno, f.error), (libc::SIGSEGV, SI_KERNEL, 0, 13, 0));
    assert_eq!(guest.context().regs.rip, CODE + 1);
    Passed
}

fn non_canonical(platform: &dyn Platform) -> Outcome {
    let (_, f) = run(platform, code::non_canonical());
    assert_eq!((f.signal, f.code, f.addr, f.trapno, f.error), (libc::SIGSEGV, SI_KERNEL, 0, 13, 0));
    Passed
}

fn int80(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::int80());
    assert_eq!((f.signal, f.code, f.addr, f.trapno), (libc::SIGSEGV, SI_KERNEL, 0, 13));
    let regs = guest.context().regs;
    assert_eq!((regs.rip, regs.rax, regs.cs), (CODE + 6, 20, 0x33));
    guest.context().regs.rip += 2;
    assert_eq!(syscall(guest.go()), (39, [20, 0, 0, 0, 0, 0]));
    Passed
}

fn simd(platform: &dyn Platform) -> Outcome {
    let (mut guest, f) = run(platform, code::simd_exception());
    let ip = CODE + code::simd_exception().len() as u64 - 2 - 4;
    assert_eq!(guest.context().regs.rip, ip);
    assert_eq!((f.signal, f.code, f.addr, f.trapno, f.error), (libc::SIGFPE, 3, ip, 19, 0));
    // The state that the handler will look at is there, and the sentry can mask the exception.
    let image = &mut guest.context().xstate.0;
    assert_eq!(image[24..28], 0x1d84u32.to_le_bytes());
    image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    assert_eq!(fault(guest.go()).signal, libc::SIGILL);
    Passed
}

fn pages(platform: &dyn Platform) -> Outcome {
    const USER: u64 = 4;
    const WRITE: u64 = 2;
    const PRESENT: u64 = 1;
    const FETCH: u64 = 16;
    let hole = 0x1000_0000;
    for (program, write) in [(code::load(), 0), (code::store(), WRITE)] {
        let mut guest = Guest::new(platform, program);
        guest.context().regs.rdi = hole + 5;
        let f = fault(guest.go());
        let expected =
            Fault { signal: libc::SIGSEGV, code: 1, addr: hole + 5, trapno: 14, error: USER | write };
        assert_eq!(f, expected);
        // Mapped without rights, and touched before, so that the page is present.
        let addr = hole;
        let rw = Prot::READ | Prot::WRITE;
        guest.space.apply(None, &[Change::MapAnonymous { addr, len: PAGE_SIZE, prot: rw }]).unwrap();
        guest.space.write(hole, b"x").unwrap();
        let protect = |prot| Change::Protect { addr, len: PAGE_SIZE, prot };
        guest.space.apply(None, &[protect(Prot::empty())]).unwrap();
        let f = fault(guest.go());
        assert_eq!((f.signal, f.code, f.addr, f.trapno), (libc::SIGSEGV, 2, hole + 5, 14));
        assert_eq!(f.error & (USER | WRITE), USER | write);
        guest.space.apply(None, &[protect(Prot::READ)]).unwrap();
        if write == 0 {
            syscall(guest.go());
        } else {
            let f = fault(guest.go());
            let error = USER | WRITE | PRESENT;
            assert_eq!(f, Fault { signal: libc::SIGSEGV, code: 2, addr: hole + 5, trapno: 14, error });
        }
        guest.context().regs.rip = hole;
        let f = fault(guest.go());
        assert_eq!((f.signal, f.code, f.addr, f.trapno), (libc::SIGSEGV, 2, hole, 14));
        assert_eq!(f.error, USER | PRESENT | FETCH);
    }
    Passed
}

fn nowhere(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::jump());
    guest.context().regs.rdi = 0;
    let f = fault(guest.go());
    assert_eq!((f.signal, f.code, f.addr, f.trapno), (libc::SIGSEGV, 1, 0, 14));
    assert_eq!(guest.context().regs.rip, 0);
    // Into the kernel's half.
    guest.context().regs.rip = 0xffff_ffff_8000_0000;
    let f = fault(guest.go());
    assert_eq!((f.signal, f.trapno), (libc::SIGSEGV, 14));
    Passed
}

fn registers(platform: &dyn Platform) -> Outcome {
    let mut guest = Guest::new(platform, code::store());
    let hole = 0x1000_0000;
    let context = guest.context();
    context.regs.rdi = hole;
    (context.regs.rbx, context.regs.r11, context.regs.rcx) = (1, 2, 3);
    context.regs.rax = -514i64 as u64;
    let mut before = context.clone();
    fault(guest.go());
    let after = guest.context();
    assert_eq!(after.xstate, before.xstate.clone().filled());
    before.regs.orig_rax = after.regs.orig_rax;
    let mask = 0xcd5; // the arithmetic flags and direction
    assert_eq!(after.regs.eflags & mask, before.regs.eflags & mask);
    (before.regs.eflags, before.regs.cs, before.regs.ss) = (after.regs.eflags, after.regs.cs, after.regs.ss);
    assert_eq!(after.regs, before.regs);
    // Again and again.
    for _ in 0..100 {
        assert_eq!(fault(guest.go()).addr, hole);
    }
    assert_eq!(guest.context().regs.rax, -514i64 as u64);
    Passed
}

impl crate::XState {
    /// An empty image spelled out.
    fn filled(self) -> Vec<u8> {
        if self.0.is_empty() { crate::xstate::initial() } else { self.0 }
    }
}

impl PartialEq<Vec<u8>> for crate::XState {
    fn eq(&self, other: &Vec<u8>) -> bool {
        // MXCSR_MASK and the list of components in their initial state may differ.
        let cut = |image: &[u8]| (image[..24].to_vec(), image[32..464].to_vec());
        cut(&self.0) == cut(other)
    }
}
