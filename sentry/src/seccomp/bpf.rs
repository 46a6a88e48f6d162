//! Classic BPF as seccomp(2) takes it: checked (bpf_check_classic(), seccomp_check_filter()) and interpreted.
//!
//! A checked program ends: jumps only go forward, and its last instruction returns. What it loads is within `struct
//! seccomp_data`, and what it takes from its memory it has stored there before.

use abi::seccomp::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_DIV, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP,
    BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_LSH, BPF_MAXINSNS, BPF_MEM, BPF_MEMWORDS, BPF_MISC,
    BPF_MUL, BPF_NEG, BPF_OR, BPF_RET, BPF_RSH, BPF_ST, BPF_STX, BPF_SUB, BPF_TAX, BPF_TXA, BPF_W, BPF_X,
    BPF_XOR, SeccompData, SockFilter,
};
use abi::{Errno, Result};

/// One operand: a constant or the index register.
#[derive(Clone, Copy, Debug)]
enum Operand {
    K(u32),
    X,
}

#[derive(Clone, Copy, Debug)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Lsh,
    Rsh,
    Neg,
    Xor,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    Set,
}

/// An instruction after the check; targets of jumps are indices.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A = the word of `struct seccomp_data` at this offset.
    Load(u32),
    LoadA(u32),
    LoadX(u32),
    LoadAFrom(usize),
    LoadXFrom(usize),
    StoreA(usize),
    StoreX(usize),
    Alu(Alu, Operand),
    Jump(usize),
    Branch(Test, Operand, usize, usize),
    Return(u32),
    ReturnA,
    AToX,
    XToA,
}

/// A program that has been checked.
#[derive(Debug)]
pub struct Program {
    ops: Vec<Op>,
    length: usize,
}

/// The offset of `nr` in `struct seccomp_data`.
pub const NUMBER: u32 = 0;

/// The offset of `arch`.
pub const ARCH: u32 = 4;

impl Program {
    /// Checks a program. EINVAL.
    pub fn check(instructions: &[SockFilter]) -> Result<Program> {
        let length = instructions.len();
        if length == 0 || length > BPF_MAXINSNS {
            return Err(Errno::EINVAL);
        }
        let ops: Vec<Op> = instructions
            .iter()
            .enumerate()
            .map(|(at, instruction)| decode(at, length, instruction))
            .collect::<Result<_>>()?;
        if !matches!(ops.last(), Some(Op::Return(_) | Op::ReturnA)) {
            return Err(Errno::EINVAL);
        }
        check_memory(&ops)?;
        Ok(Program { length: instructions.iter().map(translated).sum::<usize>() + 3, ops })
    }

    /// How many instructions Linux makes of it, which is what its limit for all filters of a thread counts
    /// (bpf_convert_filter()).
    pub fn length(&self) -> usize {
        self.length
    }

    /// Runs it. `load` gives the words of `struct seccomp_data`; if it gives none, nor does this.
    pub fn run(&self, load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; BPF_MEMWORDS];
        let mut at = 0;
        loop {
            // The check has seen to it that there always is one.
            let op = *self.ops.get(at)?;
            at += 1;
            match op {
                Op::Load(offset) => a = load(offset)?,
                Op::LoadA(k) => a = k,
                Op::LoadX(k) => x = k,
                Op::LoadAFrom(i) => a = memory[i % BPF_MEMWORDS],
                Op::LoadXFrom(i) => x = memory[i % BPF_MEMWORDS],
                Op::StoreA(i) => memory[i % BPF_MEMWORDS] = a,
                Op::StoreX(i) => memory[i % BPF_MEMWORDS] = x,
                Op::AToX => x = a,
                Op::XToA => a = x,
                Op::Jump(target) => at = target,
                Op::Return(k) => return Some(k),
                Op::ReturnA => return Some(a),
                Op::Alu(operation, operand) => {
                    let b = value(operand, x);
                    a = match operation {
                        Alu::Add => a.wrapping_add(b),
                        Alu::Sub => a.wrapping_sub(b),
                        Alu::Mul => a.wrapping_mul(b),
                        // A division by zero ends the program with 0.
                        Alu::Div => match a.checked_div(b) {
                            Some(quotient) => quotient,
                            None => return Some(0),
                        },
                        Alu::Or => a | b,
                        Alu::And => a & b,
                        Alu::Lsh => a.wrapping_shl(b),
                        Alu::Rsh => a.wrapping_shr(b),
                        Alu::Neg => a.wrapping_neg(),
                        Alu::Xor => a ^ b,
                    };
                }
                Op::Branch(test, operand, yes, no) => {
                    let b = value(operand, x);
                    let holds = match test {
                        Test::Equal => a == b,
                        Test::Greater => a > b,
                        Test::GreaterOrEqual => a >= b,
                        Test::Set => a & b != 0,
                    };
                    at = if holds { yes } else { no };
                }
            }
        }
    }
}

fn value(operand: Operand, x: u32) -> u32 {
    match operand {
        Operand::K(k) => k,
        Operand::X => x,
    }
}

fn decode(at: usize, length: usize, instruction: &SockFilter) -> Result<Op> {
    let SockFilter { code, jt, jf, k } = *instruction;
    let slot = || usize::try_from(k).ok().filter(|&i| i < BPF_MEMWORDS).ok_or(Errno::EINVAL);
    let target = |distance: u32| {
        let target = (at + 1).checked_add(distance as usize).filter(|&t| t < length);
        target.ok_or(Errno::EINVAL)
    };
    let operand = if code & BPF_X != 0 { Operand::X } else { Operand::K(k) };
    let alu = |operation| Ok(Op::Alu(operation, operand));
    let branch = |test| Ok(Op::Branch(test, operand, target(jt.into())?, target(jf.into())?));
    const LD_ABS: u16 = BPF_LD | BPF_W | BPF_ABS;
    const LD_LEN: u16 = BPF_LD | BPF_W | BPF_LEN;
    const LDX_LEN: u16 = BPF_LDX | BPF_W | BPF_LEN;
    const LD_IMM: u16 = BPF_LD | BPF_IMM;
    const LDX_IMM: u16 = BPF_LDX | BPF_IMM;
    const LD_MEM: u16 = BPF_LD | BPF_MEM;
    const LDX_MEM: u16 = BPF_LDX | BPF_MEM;
    const RET_K: u16 = BPF_RET | BPF_K;
    const RET_A: u16 = BPF_RET | BPF_A;
    const TAX: u16 = BPF_MISC | BPF_TAX;
    const TXA: u16 = BPF_MISC | BPF_TXA;
    const NEG: u16 = BPF_ALU | BPF_NEG;
    const JA: u16 = BPF_JMP | BPF_JA;
    const SIZE: u32 = size_of::<SeccompData>() as u32;
    match code {
        LD_ABS if k < SIZE && k.is_multiple_of(4) => Ok(Op::Load(k)),
        LD_LEN => Ok(Op::LoadA(SIZE)),
        LDX_LEN => Ok(Op::LoadX(SIZE)),
        LD_IMM => Ok(Op::LoadA(k)),
        LDX_IMM => Ok(Op::LoadX(k)),
        LD_MEM => Ok(Op::LoadAFrom(slot()?)),
        LDX_MEM => Ok(Op::LoadXFrom(slot()?)),
        BPF_ST => Ok(Op::StoreA(slot()?)),
        BPF_STX => Ok(Op::StoreX(slot()?)),
        RET_K => Ok(Op::Return(k)),
        RET_A => Ok(Op::ReturnA),
        TAX => Ok(Op::AToX),
        TXA => Ok(Op::XToA),
        NEG => Ok(Op::Alu(Alu::Neg, Operand::K(0))),
        JA => Ok(Op::Jump(target(k)?)),
        _ if code & 0x7 == BPF_ALU => match code & !(7 | BPF_X) {
            BPF_ADD => alu(Alu::Add),
            BPF_SUB => alu(Alu::Sub),
            BPF_MUL => alu(Alu::Mul),
            BPF_DIV if !matches!(operand, Operand::K(0)) => alu(Alu::Div),
            BPF_OR => alu(Alu::Or),
            BPF_AND => alu(Alu::And),
            BPF_LSH if !matches!(operand, Operand::K(32..)) => alu(Alu::Lsh),
            BPF_RSH if !matches!(operand, Operand::K(32..)) => alu(Alu::Rsh),
            BPF_XOR => alu(Alu::Xor),
            _ => Err(Errno::EINVAL),
        },
        _ if code & 0x7 == BPF_JMP => match code & !(7 | BPF_X) {
            BPF_JEQ => branch(Test::Equal),
            BPF_JGT => branch(Test::Greater),
            BPF_JGE => branch(Test::GreaterOrEqual),
            BPF_JSET => branch(Test::Set),
            _ => Err(Errno::EINVAL),
        },
        _ => Err(Errno::EINVAL),
    }
}

/// Nothing is taken from memory that not every way there has stored (check_load_and_stores()).
fn check_memory(ops: &[Op]) -> Result<()> {
    // The slots that are stored on every way to an instruction, for those that are jumped to.
    let mut stored_at = vec![u16::MAX; ops.len()];
    let mut stored = 0u16;
    for (at, op) in ops.iter().enumerate() {
        stored &= stored_at[at];
        let mut meet = |target: usize| {
            if let Some(there) = stored_at.get_mut(target) {
                *there &= stored;
            }
        };
        match *op {
            Op::StoreA(i) | Op::StoreX(i) => stored |= 1 << i,
            Op::LoadAFrom(i) | Op::LoadXFrom(i) if stored >> i & 1 == 0 => return Err(Errno::EINVAL),
            Op::Jump(target) => {
                meet(target);
                stored = u16::MAX;
            }
            Op::Branch(_, _, yes, no) => {
                meet(yes);
                meet(no);
                stored = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

/// How many instructions of Linux's own machine one of these becomes.
fn translated(instruction: &SockFilter) -> usize {
    let SockFilter { code, jt, jf, k } = *instruction;
    let constant = code & BPF_X == 0;
    match code & 7 {
        BPF_ALU if code & !7 == BPF_DIV | BPF_X => 4,
        BPF_JMP if code & !7 == BPF_JA => 1,
        BPF_JMP => {
            let wide = usize::from(constant && (k as i32) < 0);
            let inverted = jt == 0 && code & !(7 | BPF_X) != BPF_JSET;
            wide + if jf == 0 || inverted { 1 } else { 2 }
        }
        BPF_RET if constant && code & BPF_A == 0 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::seccomp::{BPF_B, BPF_H, BPF_IND, BPF_MOD, BPF_MSH};

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn run(program: &[SockFilter]) -> u32 {
        Program::check(program).unwrap().run(|offset| Some(offset * 100)).unwrap()
    }

    const RET: SockFilter = SockFilter { code: BPF_RET | BPF_A, jt: 0, jf: 0, k: 0 };

    fn refused(program: &[SockFilter]) {
        assert_eq!(Program::check(program).err(), Some(Errno::EINVAL), "{program:?}");
    }

    #[test]
    fn arithmetic() {
        let alu = |code, a, k| run(&[op(BPF_LD, 0, 0, a), op(BPF_ALU | code, 0, 0, k), RET]);
        assert_eq!(alu(BPF_ADD, u32::MAX, 2), 1);
        assert_eq!(alu(BPF_SUB, 1, 2), u32::MAX);
        assert_eq!(alu(BPF_MUL, 0x8000_0000, 2), 0);
        assert_eq!(alu(BPF_DIV, 7, 2), 3);
        assert_eq!(alu(BPF_OR, 6, 1), 7);
        assert_eq!(alu(BPF_AND, 6, 3), 2);
        assert_eq!(alu(BPF_XOR, 6, 3), 5);
        assert_eq!(alu(BPF_LSH, 1, 31), 0x8000_0000);
        assert_eq!(alu(BPF_RSH, 0x8000_0000, 31), 1);
        assert_eq!(alu(BPF_NEG, 1, 0), u32::MAX);
        // By the index register: a division by zero is the end, a shift takes five bits.
        let by_x = |code, a, x| {
            run(&[op(BPF_LD, 0, 0, a), op(BPF_LDX, 0, 0, x), op(BPF_ALU | code | BPF_X, 0, 0, 0), RET])
        };
        assert_eq!(by_x(BPF_DIV, 5, 0), 0);
        assert_eq!(by_x(BPF_LSH, 1, 33), 2);
    }

    #[test]
    fn loads_stores_and_jumps() {
        assert_eq!(run(&[op(BPF_LD | BPF_ABS, 0, 0, 60), RET]), 6000);
        assert_eq!(run(&[op(BPF_LD | BPF_LEN, 0, 0, 0), RET]), 64);
        assert_eq!(run(&[op(BPF_LDX | BPF_LEN, 0, 0, 0), op(BPF_MISC | BPF_TXA, 0, 0, 0), RET]), 64);
        let through_memory = [
            op(BPF_LD, 0, 0, 5),
            op(BPF_ST, 0, 0, 15),
            op(BPF_LD, 0, 0, 6),
            op(BPF_LDX | BPF_MEM, 0, 0, 15),
            op(BPF_ALU | BPF_ADD | BPF_X, 0, 0, 0),
            RET,
        ];
        assert_eq!(run(&through_memory), 11);
        let branch = |code, k| {
            run(&[
                op(BPF_LD, 0, 0, 8),
                op(BPF_JMP | code, 0, 1, k),
                op(BPF_RET, 0, 0, 1),
                op(BPF_RET, 0, 0, 2),
            ])
        };
        assert_eq!([branch(BPF_JEQ, 8), branch(BPF_JEQ, 9)], [1, 2]);
        assert_eq!([branch(BPF_JGT, 7), branch(BPF_JGT, 8)], [1, 2]);
        assert_eq!([branch(BPF_JGE, 8), branch(BPF_JGE, 9)], [1, 2]);
        assert_eq!([branch(BPF_JSET, 12), branch(BPF_JSET, 7)], [1, 2]);
        let skip = [op(BPF_JMP, 0, 0, 1), op(BPF_RET, 0, 0, 1), op(BPF_RET, 0, 0, 2)];
        assert_eq!(run(&skip), 2);
    }

    #[test]
    fn what_is_not_known_has_no_result() {
        let program = [
            op(BPF_LD | BPF_ABS, 0, 0, NUMBER),
            op(BPF_JMP | BPF_JEQ, 1, 0, 3),
            op(BPF_RET, 0, 0, 7),
            op(BPF_LD | BPF_ABS, 0, 0, 16),
            RET,
        ];
        let program = Program::check(&program).unwrap();
        let known = |number| move |offset| (offset == NUMBER).then_some(number);
        assert_eq!(program.run(known(1)), Some(7));
        assert_eq!(program.run(known(3)), None);
    }

    #[test]
    fn programs_that_linux_refuses() {
        refused(&[]);
        refused(&vec![RET; BPF_MAXINSNS + 1]);
        refused(&[op(BPF_LD, 0, 0, 0)]);
        for offset in [1, 2, 64, 0xffff_f000] {
            refused(&[op(BPF_LD | BPF_ABS, 0, 0, offset), RET]);
        }
        for code in [BPF_LD | BPF_H | BPF_ABS, BPF_LD | BPF_B | BPF_ABS, BPF_LD | BPF_IND, BPF_LDX | BPF_MSH]
        {
            refused(&[op(code, 0, 0, 0), RET]);
        }
        refused(&[op(BPF_ALU | BPF_DIV, 0, 0, 0), RET]);
        refused(&[op(BPF_ALU | BPF_MOD, 0, 0, 3), RET]);
        refused(&[op(BPF_ALU | BPF_LSH, 0, 0, 32), RET]);
        refused(&[op(BPF_ST, 0, 0, 16), RET]);
        refused(&[op(BPF_JMP, 0, 0, 1), RET]);
        refused(&[op(BPF_JMP, 0, 0, u32::MAX), RET]);
        refused(&[op(BPF_JMP | BPF_JEQ, 0, 1, 0), RET]);
        refused(&[op(0xffff, 0, 0, 0), RET]);
        refused(&[op(BPF_RET | BPF_X, 0, 0, 0)]);
        // Taken from memory without having been stored there, on one of two ways.
        refused(&[op(BPF_LD | BPF_MEM, 0, 0, 0), RET]);
        refused(&[op(BPF_JMP | BPF_JEQ, 1, 0, 0), op(BPF_ST, 0, 0, 0), op(BPF_LD | BPF_MEM, 0, 0, 0), RET]);
    }
}
