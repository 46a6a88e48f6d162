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

/// Calls whose handlers always need the registers: a signal frame costs less than a notification and a kick.
const WITH_CONTEXT: [libc::c_long; 6] = [
    libc::SYS_rt_sigreturn,
    libc::SYS_clone,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_arch_prctl,
    libc::SYS_clone3,
];

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Instructions of the filter.
pub const LENGTH: usize = 12 + WITH_CONTEXT.len();

/// The filter, as `struct sock_filter` lies in memory.
pub fn program() -> [sock_filter; LENGTH] {
    const CALLS: u8 = WITH_CONTEXT.len() as u8;
    let mut program = [instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0); LENGTH];
    let head = [
        instruction(LOAD, IP_HIGH, 0, 0),
        // The stub region is the top of the user half; above it is only the vsyscall page.
        instruction(AT_LEAST, (platform::USER_MAX >> 32) as u32, CALLS + 4, 0),
        instruction(LOAD, NUMBER, 0, 0),
        // Negative and x32 numbers: the kernel does not restart a call with number -1, so a kick could lose it.
        instruction(AT_LEAST, 0x4000_0000, CALLS + 1, 0),
    ];
    program[..4].copy_from_slice(&head);
    for (index, &number) in WITH_CONTEXT.iter().enumerate() {
        program[4 + index] = instruction(EQUAL, number as u32, CALLS - index as u8, 0);
    }
    let tail = [
        instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_TRAP, 0, 0),
        // Stub region or vsyscall page. A vsyscall cannot be restarted either.
        instruction(AT_LEAST, 0x8000_0000, 4, 0),
        instruction(LOAD, NUMBER, 0, 0),
        instruction(EQUAL, DOORBELL, 0, 1),
        instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        instruction(RETURN, libc::SECCOMP_RET_TRAP, 0, 0),
    ];
    program[4 + WITH_CONTEXT.len()..4 + WITH_CONTEXT.len() + tail.len()].copy_from_slice(&tail);
    program
}
