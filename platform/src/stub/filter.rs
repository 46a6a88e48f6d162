//! The seccomp filter that every stub process carries.
//!
//! seccompiler knows neither instruction pointers nor RET_TRACE beside RET_TRAP in one program, so the program is
//! assembled here, from rules that are data.
//!
//! The first instruction loads the instruction pointer: then the kernel, which tries at installation to find calls that
//! are allowed whatever their arguments, gives up at once for each of them, and filters stacked on this one are cheap.
//! No call is ever allowed by its number alone. The instruction pointer selects a route and is no protection: guest code
//! can jump to the stub's `syscall` instruction. What the rules allow is harmless whoever does it.

use super::arch::{AUDIT_ARCH, THREAD_FLAGS};
use super::{STUB_TEXT, TEXT_MAX};
use libc::sock_filter;

/// Tracer's choice: ENOSYS without one; outranked by USER_NOTIF and TRAP of a filter added later.
pub const RET_TRACE: u32 = libc::SECCOMP_RET_TRACE;
/// SIGSYS.
pub const RET_TRAP: u32 = libc::SECCOMP_RET_TRAP;
/// Carry the call out.
pub const RET_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// What an argument must be for a rule to allow the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Equal to the value (all 64 bits).
    Equal(u8, u64),
    /// No bits outside the mask.
    Within(u8, u64),
    /// High half zero, and the low half, masked by the first number, one of the values.
    OneOf(u8, u32, Vec<u32>),
}

/// A call that is allowed if all its checks hold. Several rules may name the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// System call number.
    pub number: u32,
    /// All must hold. Arguments are counted from 0.
    pub checks: Vec<Check>,
}

impl Rule {
    /// A rule without checks: allowed from the stub's text with any arguments.
    pub fn any(number: i64) -> Rule {
        Rule { number: number as u32, checks: Vec::new() }
    }

    /// Adds a check.
    pub fn check(mut self, check: Check) -> Rule {
        self.checks.push(check);
        self
    }
}

/// Advice that concerns the caller's own pages only.
pub(super) const ADVICE: &[i32] = &[
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_REMOVE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_WIPEONFORK,
    libc::MADV_KEEPONFORK,
    libc::MADV_COLD,
    libc::MADV_PAGEOUT,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
];

/// What a stub may do, from its text only.
pub fn base_rules() -> Vec<Rule> {
    use Check::{Equal, OneOf, Within};
    let prot = 7;
    let map_flags = libc::MAP_SHARED
        | libc::MAP_PRIVATE
        | libc::MAP_FIXED
        | libc::MAP_ANONYMOUS
        | libc::MAP_NORESERVE
        | libc::MAP_POPULATE;
    vec![
        Rule::any(libc::SYS_mmap).check(Within(2, prot)).check(Within(3, map_flags as u64)),
        Rule::any(libc::SYS_munmap),
        Rule::any(libc::SYS_mprotect).check(Within(2, prot)),
        Rule::any(libc::SYS_mremap)
            .check(Within(3, (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP) as u64)),
        Rule::any(libc::SYS_madvise).check(OneOf(2, !0, ADVICE.iter().map(|a| *a as u32).collect())),
        Rule::any(libc::SYS_mincore),
        Rule::any(libc::SYS_futex).check(OneOf(
            1,
            !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32,
            vec![
                libc::FUTEX_WAIT as u32,
                libc::FUTEX_WAKE as u32,
                libc::FUTEX_WAIT_BITSET as u32,
                libc::FUTEX_WAKE_BITSET as u32,
            ],
        )),
        Rule::any(libc::SYS_recvmsg).check(Equal(0, 0)),
        Rule::any(libc::SYS_sendto).check(Equal(0, 0)).check(Equal(4, 0)),
        Rule::any(libc::SYS_close),
        Rule::any(libc::SYS_close_range).check(Equal(2, 0)),
        Rule::any(libc::SYS_dup2).check(Equal(1, 0)),
        Rule::any(libc::SYS_clone).check(Equal(0, libc::CLONE_PARENT as u64)),
        Rule::any(libc::SYS_clone).check(Equal(0, THREAD_FLAGS)),
        Rule::any(libc::SYS_prctl)
            .check(Equal(0, libc::PR_SET_PDEATHSIG as u64))
            .check(Equal(1, libc::SIGKILL as u64)),
        // The thread's own processor time, asked for on its behalf by a tracer.
        Rule::any(libc::SYS_clock_gettime).check(Equal(0, libc::CLOCK_THREAD_CPUTIME_ID as u64)),
        // A process enters cgroups by itself ([`super::StubProcess::enter`]). No disk's file reaches that far.
        Rule::any(libc::SYS_pwrite64).check(Equal(2, 1)).check(Equal(3, FAR)),
        Rule::any(libc::SYS_rt_sigreturn),
        Rule::any(libc::SYS_exit),
        Rule::any(libc::SYS_exit_group),
    ]
}

/// The offset at which a stub may write a byte to files that it was given for mapping: the last one there can be. Those that
/// it can write it may change in any case.
pub(super) const FAR: u64 = i64::MAX as u64 - 1;

const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// A jump out of a rule, to be filled in when its length is known.
const NEXT_RULE: u8 = 0xff;

fn insn(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
fn arg_low(arg: u8) -> u32 {
    16 + 8 * u32::from(arg)
}

fn assemble_rule(program: &mut Vec<sock_filter>, rule: &Rule) {
    let start = program.len();
    program.push(insn(LD, NR, 0, 0));
    program.push(insn(JEQ, rule.number, 0, NEXT_RULE));
    for check in &rule.checks {
        match check {
            Check::Equal(arg, value) => {
                program.push(insn(LD, arg_low(*arg) + 4, 0, 0));
                program.push(insn(JEQ, (value >> 32) as u32, 0, NEXT_RULE));
                program.push(insn(LD, arg_low(*arg), 0, 0));
                program.push(insn(JEQ, *value as u32, 0, NEXT_RULE));
            }
            Check::Within(arg, mask) => {
                program.push(insn(LD, arg_low(*arg) + 4, 0, 0));
                program.push(insn(JSET, !(mask >> 32) as u32, NEXT_RULE, 0));
                program.push(insn(LD, arg_low(*arg), 0, 0));
                program.push(insn(JSET, !*mask as u32, NEXT_RULE, 0));
            }
            Check::OneOf(arg, mask, values) => {
                program.push(insn(LD, arg_low(*arg) + 4, 0, 0));
                program.push(insn(JEQ, 0, 0, NEXT_RULE));
                program.push(insn(LD, arg_low(*arg), 0, 0));
                program.push(insn(AND, *mask, 0, 0));
                for (i, value) in values.iter().enumerate() {
                    let left = (values.len() - 1 - i) as u8;
                    program.push(insn(JEQ, *value, left, if left == 0 { NEXT_RULE } else { 0 }));
                }
            }
        }
    }
    program.push(insn(RET, RET_ALLOW, 0, 0));
    let end = program.len();
    for (i, instruction) in program.iter_mut().enumerate().skip(start) {
        let out = (end - i - 1) as u8;
        if instruction.code & 7 == libc::BPF_JMP as u16 {
            if instruction.jt == NEXT_RULE {
                instruction.jt = out;
            }
            if instruction.jf == NEXT_RULE {
                instruction.jf = out;
            }
        }
    }
}

/// Assembles the program: calls from outside the stub's text get `guest`; calls from the text are held against the
/// rules and get RET_TRACE if none allows them; another architecture gets RET_TRAP.
pub fn assemble(rules: &[Rule], guest: u32) -> Vec<sock_filter> {
    let text_low = STUB_TEXT as u32;
    let text_end = text_low + TEXT_MAX as u32;
    let mut program = vec![
        insn(LD, IP_HIGH, 0, 0),
        insn(JEQ, (STUB_TEXT >> 32) as u32, 0, 3),
        insn(LD, IP_LOW, 0, 0),
        insn(JGE, text_end, 1, 0),
        insn(JGE, text_low, 4, 0),
        // Guest code.
        insn(LD, ARCH, 0, 0),
        insn(JEQ, AUDIT_ARCH, 1, 0),
        insn(RET, RET_TRAP, 0, 0),
        insn(RET, guest, 0, 0),
        // The stub's text.
        insn(LD, ARCH, 0, 0),
        insn(JEQ, AUDIT_ARCH, 1, 0),
        insn(RET, RET_TRAP, 0, 0),
    ];
    for rule in rules {
        assemble_rule(&mut program, rule);
    }
    program.push(insn(RET, RET_TRACE, 0, 0));
    program
}
