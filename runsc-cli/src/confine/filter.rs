//! From a policy to a system call filter on the calling thread.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::policy::{Call, Role, Test, calls};
use crate::record;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;

/// Puts the filters on all threads of the process, those of platforms included: what the control thread may call,
/// and with it what any thread may. A call that is not allowed raises SIGSYS, which ends the process (see
/// [`report_denied_calls`]).
pub fn install(platform: &str, host_network: bool) -> Result<()> {
    for program in [thread_fallback()?, compile(&calls(Role::Control, platform, host_network))?] {
        seccompiler::apply_filter_all_threads(&program).context("installing a system call filter")?;
    }
    Ok(())
}

/// Takes from the calling thread, and from those that it will make, what only other roles may call. This is a filter
/// of its own, and a short one: filters add up, and the one that is there is long.
pub fn narrow(role: Role, platform: &str, host_network: bool) -> Result<()> {
    let allowed = calls(role, platform, host_network);
    let denied: BTreeMap<i64, Vec<SeccompRule>> = calls(Role::Control, platform, host_network)
        .iter()
        .filter(|call| allowed.iter().all(|other| other.number != call.number))
        .map(|call| (call.number, Vec::new()))
        .collect();
    let filter = SeccompFilter::new(denied, SeccompAction::Allow, SeccompAction::Trap, ARCH)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program).context("installing a system call filter")
}

fn compile(calls: &[Call]) -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        let entry = rules.entry(call.number).or_default();
        for alternative in call.when {
            let conditions =
                alternative.iter().map(|(index, test)| condition(*index, *test)).collect::<Result<_, _>>()?;
            entry.push(SeccompRule::new(conditions)?);
        }
    }
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, ARCH)?;
    Ok(filter.try_into()?)
}

fn condition(index: u8, test: Test) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (op, length, value) = match test {
        Test::Is(value) => (SeccompCmpOp::Eq, SeccompCmpArgLen::Dword, value),
        Test::Null => (SeccompCmpOp::Eq, SeccompCmpArgLen::Qword, 0),
        Test::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), SeccompCmpArgLen::Dword, value),
    };
    SeccompCondition::new(index, length, op, value)
}

/// The flags of clone3 are in memory, where no filter can see them: without it, the C library makes its threads with
/// clone, whose flags are an argument.
fn thread_fallback() -> Result<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), ARCH)?;
    Ok(filter.try_into()?)
}

/// Makes a denied call end the process with its name in the record, so that it is told why a sandbox is gone.
pub fn report_denied_calls() -> Result<()> {
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = denied as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `denied` is async-signal-safe and has the signature that SA_SIGINFO asks for.
    let rc = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
    Errno::result(rc).context("sigaction(SIGSYS)")?;
    Ok(())
}

extern "C" fn denied(_signo: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // `si_syscall` follows `si_call_addr` in the union, which starts 16 bytes in on 64-bit machines; the libc crate
    // has no accessor for it.
    // SAFETY: the kernel passes a complete siginfo of 128 bytes.
    let number = unsafe { info.cast::<u8>().add(24).cast::<u32>().read() };
    record::set_denied(number);
    // SAFETY: always safe to call; runs nothing of ours.
    unsafe { libc::_exit(crate::EXIT_FAILURE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_compiles_and_is_of_a_bearable_size() {
        for role in [Role::Control, Role::Task] {
            for platform in ["ptrace", "systrap"] {
                for (host_network, limit) in [(false, 1000), (true, 2000)] {
                    let program = compile(&calls(role, platform, host_network)).unwrap();
                    assert!(program.len() < limit, "{role:?} {platform}: {} instructions", program.len());
                }
            }
        }
        thread_fallback().unwrap();
    }
}
