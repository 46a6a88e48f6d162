//! `linux.seccomp` of a config.json as a program for the sentry's own seccomp, as runc makes one by libseccomp.
//!
//! What the rules mean is runc's: names that are not known are left out, a rule without conditions comes before those
//! with some, an argument named twice in a rule makes several rules of it, and calls newer than any that is named end
//! with ENOSYS unless the default action lets them through.

use std::collections::BTreeMap;

use abi::seccomp::{
    AUDIT_ARCH_X86_64, BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_LD,
    BPF_MAXINSNS, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use abi::{Errno, sysno};
use anyhow::{Result, bail};
use oci_spec::runtime as oci;
use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSeccompOperator as Operator};
use serde::{Deserialize, Serialize};

/// A program and how it is to be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `struct sock_filter`: code, jt, jf, k.
    pub instructions: Vec<(u16, u8, u8, u32)>,
    /// SECCOMP_FILTER_FLAG_LOG.
    pub log: bool,
}

/// What a rule for one call says.
struct Rule {
    conditions: Vec<oci::LinuxSeccompArg>,
    returned: u32,
}

/// Numbers of the x32 ABI have this bit (__X32_SYSCALL_BIT).
const X32: u32 = 0x4000_0000;

fn op(code: u16, jt: u8, jf: u8, k: u32) -> (u16, u8, u8, u32) {
    (code, jt, jf, k)
}

fn load(offset: usize) -> (u16, u8, u8, u32) {
    op(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset as u32)
}

fn ret(value: u32) -> (u16, u8, u8, u32) {
    op(BPF_RET, 0, 0, value)
}

/// What a filter returns for an action; `errno` is EPERM if it is not given, as in runc.
fn returned(action: Action, errno: Option<u32>) -> Result<u32> {
    let data = errno.unwrap_or(1) & SECCOMP_RET_DATA;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => SECCOMP_RET_TRAP,
        Action::ScmpActErrno => SECCOMP_RET_ERRNO | data,
        Action::ScmpActTrace => SECCOMP_RET_TRACE | data,
        Action::ScmpActLog => SECCOMP_RET_LOG,
        Action::ScmpActAllow => SECCOMP_RET_ALLOW,
        Action::ScmpActNotify => bail!("action SCMP_ACT_NOTIFY is not supported"),
    })
}

/// Makes the program. Errors are those of the config.
pub fn compile(config: &oci::LinuxSeccomp) -> Result<Filter> {
    let default = returned(config.default_action(), config.default_errno_ret())?;
    let mut rules: BTreeMap<u64, Vec<Rule>> = BTreeMap::new();
    let mut newest = 0;
    for (index, call) in config.syscalls().iter().flatten().enumerate() {
        let action = returned(call.action(), call.errno_ret())?;
        let args = call.args().clone().unwrap_or_default();
        if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
            bail!("syscalls[{index}]: there is no argument {}", arg.index());
        }
        let numbers: Vec<u64> = call.names().iter().filter_map(|name| sysno::number(name)).collect();
        newest = numbers.iter().copied().fold(newest, u64::max);
        if action == default {
            continue;
        }
        let repeated = (0..6).any(|i| args.iter().filter(|arg| arg.index() == i).count() > 1);
        let alternatives: Vec<Vec<oci::LinuxSeccompArg>> =
            if repeated { args.iter().map(|arg| vec![*arg]).collect() } else { vec![args] };
        for number in numbers {
            for conditions in &alternatives {
                let rule = Rule { conditions: conditions.clone(), returned: action };
                rules.entry(number).or_default().push(rule);
            }
        }
    }
    let mut code =
        vec![load(4), op(BPF_JMP | BPF_JEQ, 1, 0, AUDIT_ARCH_X86_64), ret(SECCOMP_RET_KILL_THREAD), load(0)];
    let has_x32 = config.architectures().iter().flatten().any(|arch| *arch == oci::Arch::ScmpArchX32);
    if !has_x32 {
        // -1 is what a tracer leaves of a call that it calls off.
        code.push(op(BPF_JMP | BPF_JGE, 0, 2, X32));
        code.push(op(BPF_JMP | BPF_JEQ, 1, 0, u32::MAX));
        code.push(ret(SECCOMP_RET_KILL_THREAD));
    }
    let lets_through =
        matches!(config.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    if !lets_through && newest > 0 {
        code.push(op(BPF_JMP | BPF_JGT, 0, 1, newest as u32));
        code.push(ret(SECCOMP_RET_ERRNO | Errno::ENOSYS.raw() as u32));
    }
    for (number, rules) in &rules {
        if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
            code.push(op(BPF_JMP | BPF_JEQ, 0, 1, *number as u32));
            code.push(ret(rule.returned));
            continue;
        }
        let mut block = Vec::new();
        for rule in rules {
            block.extend(body(rule));
        }
        block.push(ret(default));
        code.push(op(BPF_JMP | BPF_JEQ, 1, 0, *number as u32));
        code.push(op(BPF_JMP | BPF_JA, 0, 0, block.len() as u32));
        code.extend(block);
    }
    code.push(ret(default));
    if code.len() > BPF_MAXINSNS {
        bail!("the rules make {} instructions, and {BPF_MAXINSNS} is the limit", code.len());
    }
    let log =
        config.flags().iter().flatten().any(|f| *f == oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog);
    Ok(Filter { instructions: code, log })
}

/// Where a comparison goes: to the next condition, or past the rule.
const PAST: u8 = u8::MAX;

/// A rule: returns if all conditions hold, else goes past its end.
fn body(rule: &Rule) -> Vec<(u16, u8, u8, u32)> {
    let mut code = Vec::new();
    for arg in &rule.conditions {
        code.extend(condition(arg));
    }
    code.push(ret(rule.returned));
    let length = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        // At most six conditions of at most six instructions: it fits.
        let past = (length - at - 1) as u8;
        if instruction.0 & 7 == BPF_JMP {
            for target in [&mut instruction.1, &mut instruction.2] {
                if *target == PAST {
                    *target = past;
                }
            }
        }
    }
    code
}

/// Falls through if it holds. The two halves of a number are compared one after the other, the high one first.
fn condition(arg: &oci::LinuxSeccompArg) -> Vec<(u16, u8, u8, u32)> {
    let low_at = 16 + arg.index() * 8;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(arg.value());
    let jump = |test, jt, jf, k| op(BPF_JMP | test, jt, jf, k);
    let and = |k| op(BPF_ALU | BPF_AND, 0, 0, k);
    match arg.op() {
        Operator::ScmpCmpEq => {
            vec![load(low_at + 4), jump(BPF_JEQ, 0, PAST, high), load(low_at), jump(BPF_JEQ, 0, PAST, low)]
        }
        Operator::ScmpCmpNe => {
            vec![load(low_at + 4), jump(BPF_JEQ, 0, 2, high), load(low_at), jump(BPF_JEQ, PAST, 0, low)]
        }
        Operator::ScmpCmpGe | Operator::ScmpCmpGt => {
            let test = if arg.op() == Operator::ScmpCmpGe { BPF_JGE } else { BPF_JGT };
            vec![
                load(low_at + 4),
                jump(BPF_JGT, 3, 0, high),
                jump(BPF_JEQ, 0, PAST, high),
                load(low_at),
                jump(test, 0, PAST, low),
            ]
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let test = if arg.op() == Operator::ScmpCmpLt { BPF_JGE } else { BPF_JGT };
            vec![
                load(low_at + 4),
                jump(BPF_JGT, PAST, 0, high),
                jump(BPF_JEQ, 0, 2, high),
                load(low_at),
                jump(test, PAST, 0, low),
            ]
        }
        Operator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(arg.value_two().unwrap_or(0));
            vec![
                load(low_at + 4),
                and(high),
                jump(BPF_JEQ, 0, PAST, wanted_high),
                load(low_at),
                and(low),
                jump(BPF_JEQ, 0, PAST, wanted_low),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::seccomp::{SeccompData, SockFilter};
    use sentry::seccomp::{Filters, Program};
    use serde_json::{Value, json};

    const EPERM: u32 = SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = SECCOMP_RET_ERRNO | 38;

    /// What the filter of a config says to calls.
    fn filter(config: Value) -> impl Fn(u64, [u64; 6]) -> u32 {
        let config: oci::LinuxSeccomp = serde_json::from_value(config).unwrap();
        let filter = compile(&config).unwrap();
        let code: Vec<SockFilter> =
            filter.instructions.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
        let filters = Filters::new(None, Program::check(&code).unwrap(), filter.log).unwrap();
        move |number, args| {
            let data =
                SeccompData { nr: number as i32, arch: AUDIT_ARCH_X86_64, instruction_pointer: 0, args };
            filters.evaluate(&data).0
        }
    }

    #[test]
    fn a_profile_of_docker() {
        // The shape of Docker's default profile, as dockerd writes it for a container without capabilities.
        let says = filter(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["read", "write", "openat", "_llseek", "no_such_call", "futex_waitv"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 131072, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        }));
        let none = [0; 6];
        let first = |value| [value, 0, 0, 0, 0, 0];
        assert_eq!(says(sysno::READ, none), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::MOUNT, none), EPERM);
        assert_eq!(says(sysno::SOCKET, first(2)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::SOCKET, first(40)), EPERM);
        assert_eq!(says(sysno::SOCKET, first(40 | 1 << 32)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::PERSONALITY, first(0)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::PERSONALITY, first(131072)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::PERSONALITY, first(8)), EPERM);
        assert_eq!(says(sysno::CLONE, first(0x11)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::CLONE, first(0x1000_0000)), EPERM);
        assert_eq!(says(sysno::CLONE3, none), ENOSYS);
        // Newer than any that the profile knows.
        assert_eq!(says(sysno::FUTEX_WAITV + 1, none), ENOSYS);
        assert_eq!(says(sysno::LANDLOCK_ADD_RULE, none), EPERM);
    }

    #[test]
    fn comparisons() {
        let big = 5u64 << 32 | 7;
        let values = [0, 7, 8, 5 << 32, big - 1, big, big + 1, 6 << 32, u64::MAX];
        type Compare = fn(u64, u64) -> bool;
        let operators: [(&str, Compare); 6] = [
            ("SCMP_CMP_EQ", |a, b| a == b),
            ("SCMP_CMP_NE", |a, b| a != b),
            ("SCMP_CMP_LT", |a, b| a < b),
            ("SCMP_CMP_LE", |a, b| a <= b),
            ("SCMP_CMP_GT", |a, b| a > b),
            ("SCMP_CMP_GE", |a, b| a >= b),
        ];
        for (name, compare) in operators {
            let says = filter(json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mmap"], "action": "SCMP_ACT_KILL_PROCESS",
                              "args": [{"index": 5, "value": big, "op": name}, {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}],
            }));
            for value in values {
                let expected = if compare(value, big) { SECCOMP_RET_KILL_PROCESS } else { SECCOMP_RET_ALLOW };
                assert_eq!(says(sysno::MMAP, [0, 9, 0, 0, 0, value]), expected, "{value:#x} {name}");
                assert_eq!(says(sysno::MMAP, [0, 8, 0, 0, 0, value]), SECCOMP_RET_ALLOW);
            }
        }
    }

    #[test]
    fn an_argument_named_twice_is_either_and_no_condition_comes_first() {
        let says = filter(json!({
            "defaultAction": "SCMP_ACT_KILL",
            "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
                {"names": ["close"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["close"], "action": "SCMP_ACT_LOG"},
            ],
        }));
        let second = |value| [0, value, 0, 0, 0, 0];
        assert_eq!(says(sysno::KILL, second(1)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::KILL, second(2)), SECCOMP_RET_ALLOW);
        assert_eq!(says(sysno::KILL, second(3)), SECCOMP_RET_KILL_THREAD);
        assert_eq!(says(sysno::CLOSE, [1; 6]), SECCOMP_RET_LOG);
        // The x32 ABI was not asked for.
        assert_eq!(says(u64::from(X32) | sysno::CLOSE, [1; 6]), SECCOMP_RET_KILL_THREAD);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let error =
            |config: Value| compile(&serde_json::from_value(config).unwrap()).unwrap_err().to_string();
        assert!(error(json!({"defaultAction": "SCMP_ACT_NOTIFY"})).contains("NOTIFY"));
        let call = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]);
        assert!(error(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": call})).contains("argument 6"));
    }
}
