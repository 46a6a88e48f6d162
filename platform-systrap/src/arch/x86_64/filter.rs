//! The filter that each guest thread adds to the base filter. It only routes: what reaches no listener falls to the
//! base filter, which is complete by itself.
//!
//! The instruction pointer is loaded first: then no call is allowed whatever the pointer, so that the kernel need not
//! run the filter for every call number when it is installed.

use crate::DOORBELL;
use libc::sock_filter;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Offset of `instruction_pointer` in `struct seccomp_data`, high half.
const IP_HIGH: u32 = 12;
const NUMBER: u32 = 0;

/// Calls whose handlers always need the registers, or end the guest thread: a signal frame costs less than a notification
/// and a kick.
pub const WITH_CONTEXT: [libc::c_long; 9] = [
    libc::SYS_rt_sigreturn,
    libc::SYS_clone,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_arch_prctl,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
];

/// What a guest thread does in the stub's text. The base filter allows more there, for the service thread: whoever jumps
/// into the text shall not make processes that nobody knows of.
const OWN: [libc::c_long; 11] = [
    libc::SYS_rt_sigreturn,
    libc::SYS_mprotect,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_futex,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
];

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Instructions of the filter.
pub const LENGTH: usize = 13 + WITH_CONTEXT.len() + OWN.len();

/// The filter, as `struct sock_filter` lies in memory.
pub fn program() -> [sock_filter; LENGTH] {
    const CALLS: usize = WITH_CONTEXT.len();
    const STUB: usize = 6 + CALLS;
    let mut program = [instruction(RETURN, libc::SECCOMP_RET_TRACE, 0, 0); LENGTH];
    let head = [
        instruction(LOAD, IP_HIGH, 0, 0),
        // The stub region is the top of the user half; above it is only the vsyscall page.
        instruction(AT_LEAST, (platform::USER_MAX >> 32) as u32, STUB as u8 - 2, 0),
        instruction(LOAD, NUMBER, 0, 0),
        // Negative and x32 numbers: the kernel does not restart a call with number -1, so a kick could lose it.
        instruction(AT_LEAST, 0x4000_0000, CALLS as u8 + 1, 0),
    ];
    program[..4].copy_from_slice(&head);
    for (index, &number) in WITH_CONTEXT.iter().enumerate() {
        program[4 + index] = instruction(EQUAL, number as u32, (CALLS - index) as u8, 0);
    }
    program[4 + CALLS] = instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0);
    program[5 + CALLS] = instruction(RETURN, libc::SECCOMP_RET_TRAP, 0, 0);
    let stub = [
        // A vsyscall cannot be restarted either.
        instruction(AT_LEAST, 0x8000_0000, (2 + OWN.len() + 3) as u8, 0),
        instruction(LOAD, NUMBER, 0, 0),
        instruction(EQUAL, DOORBELL, OWN.len() as u8 + 1, 0),
    ];
    program[STUB..STUB + 3].copy_from_slice(&stub);
    for (index, &number) in OWN.iter().enumerate() {
        program[STUB + 3 + index] = instruction(EQUAL, number as u32, (OWN.len() - index + 1) as u8, 0);
    }
    let end = STUB + 3 + OWN.len();
    program[end] = instruction(RETURN, libc::SECCOMP_RET_TRACE, 0, 0);
    program[end + 1] = instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0);
    program[end + 2] = instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    program[end + 3] = instruction(RETURN, libc::SECCOMP_RET_TRAP, 0, 0);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does.
    fn run(number: u32, ip: u64) -> u32 {
        let program = program();
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => value = if step.k == NUMBER { number } else { (ip >> 32) as u32 },
                EQUAL => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                AT_LEAST => at += usize::from(if value >= step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn calls_take_their_routes() {
        use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF};
        for ip in [0, 0x1_0000, 0x7ffd_ffff_ffff] {
            for number in [0, 39, 61, 500, DOORBELL, 0x3fff_ffff] {
                assert_eq!(run(number, ip), SECCOMP_RET_USER_NOTIF, "{number}");
            }
            for number in WITH_CONTEXT.map(|number| number as u32).into_iter().chain([0x4000_0000, u32::MAX])
            {
                assert_eq!(run(number, ip), SECCOMP_RET_TRAP, "{number}");
            }
        }
        for ip in [platform::USER_MAX, 0x7fff_ffff_ffff] {
            assert_eq!(run(DOORBELL, ip), SECCOMP_RET_USER_NOTIF);
            for number in OWN {
                assert_eq!(run(number as u32, ip), SECCOMP_RET_ALLOW, "{number}");
            }
            for number in [
                libc::SYS_clone,
                libc::SYS_mincore,
                libc::SYS_recvmsg,
                libc::SYS_sendmsg,
                libc::SYS_seccomp,
                -1,
            ] {
                assert_eq!(run(number as u32, ip), SECCOMP_RET_TRACE, "{number}");
            }
        }
        for number in [0, 96, DOORBELL] {
            assert_eq!(run(number, 0xffff_ffff_ff60_0400), SECCOMP_RET_TRAP);
        }
    }
}
