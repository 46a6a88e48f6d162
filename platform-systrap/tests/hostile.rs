//! Guests that attack what systrap keeps in their address space. They may die of it; nothing may hang, nobody else may
//! notice.

mod common;

use common::{CODE, DATA, Random, STACK, context, frame_address, host_ids, meanwhile, space, thread};
use platform::stub::arch::{CALL_TRAP, EXIT};
use platform::stub::{
    EXTRA_TEXT, Op, Options, SLOT_SIZE, SLOTS, STUB_DATA, STUB_DATA_SIZE, STUB_TEXT, Template,
};
use platform::{
    AddressSpace, Change, Context, Death, Errno, Exit, PAGE_SIZE, PATCH_AREA, Prot, Resume, Thread,
};
use std::sync::Arc;
use std::time::Duration;

/// Number of the doorbell.
const DOORBELL: u64 = 0x3fff_fff0;

guest!(echo, "2:", "mov eax, 39", "syscall", "mov rbx, rax", "jmp 2b");
guest!(spin, "2:", "jmp 2b");
guest!(nothing, "ud2");

/// The platform still makes guests that work.
fn still_works() {
    let Some(space) = space(echo()) else { return };
    let mut thread = thread(&space, &context());
    let mut resume = Resume::Context;
    for value in 0..3 {
        assert!(matches!(thread.run(resume), Exit::Syscall { number: 39, .. }));
        resume = Resume::Result(value);
    }
    assert_eq!(thread.context().expect("alive").regs.rax, 39);
}

/// Runs until the guest dies, or `stops` times; interrupts what does not stop.
fn run_for_a_while(thread: &mut dyn Thread, stops: u32) -> Option<Death> {
    let interrupter = thread.interrupter();
    let disturb = move || {
        std::thread::sleep(Duration::from_millis(20));
        interrupter.interrupt();
    };
    meanwhile(disturb, || {
        for _ in 0..stops {
            if let Exit::Dead(death) = thread.run(Resume::Context) {
                return Some(death);
            }
        }
        None
    })
}

// Overwrites the 4096 bytes at rdi with noise, for ever.
guest!(
    noise,
    "mov rbx, 0x9e3779b97f4a7c15",
    "2:",
    "mov rax, rbx",
    "shl rax, 13",
    "xor rbx, rax",
    "mov rax, rbx",
    "shr rax, 7",
    "xor rbx, rax",
    "mov rax, rbx",
    "shl rax, 17",
    "xor rbx, rax",
    "mov rax, rbx",
    "and eax, 0xff8",
    "mov [rdi + rax], rbx",
    "jmp 2b",
    // A guest that calls and faults in turn.
    ".balign 256",
    "3:",
    "mov eax, 39",
    "syscall",
    "mov eax, 56",
    "syscall",
    "mov qword ptr [0x1000], 0",
    "jmp 3b",
);

#[test]
fn a_sibling_overwrites_the_frame() {
    let mut deaths = 0;
    for round in 0..12 {
        let Some(space) = space(noise()) else { return };
        let mut start = context();
        start.regs.rip = CODE + 256;
        let mut victim = thread(&space, &start);
        let page = frame_address(&mut *victim) & !(SLOT_SIZE - 1);
        let mut random = Random(round + 1);
        let interrupter = victim.interrupter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut start = context();
                start.regs.rdi = page;
                let Ok(mut attacker) = space.clone().new_thread(&start) else { return };
                while !matches!(attacker.run(Resume::Context), Exit::Dead(_)) {}
            });
            for _ in 0..3000 {
                match victim.run(Resume::Context) {
                    Exit::Dead(_) => {
                        deaths += 1;
                        break;
                    }
                    _ if random.next().is_multiple_of(4) => {
                        let Ok(context) = victim.context() else { break };
                        context.regs.rip = CODE + 256;
                        context.regs.rsp = STACK;
                    }
                    _ if random.next().is_multiple_of(8) => interrupter.interrupt(),
                    _ => {}
                }
            }
            space.kill();
        });
        assert!(matches!(victim.run(Resume::Context), Exit::Dead(_)));
    }
    println!("{deaths} of 12 died of it");
    still_works();
}

/// A call made with a `syscall` instruction of the stub's.
fn stub_call(space: &Arc<dyn AddressSpace>, number: i64, args: [u64; 6]) -> Box<dyn Thread> {
    let mut thread = thread(space, &context());
    let regs = &mut thread.context().expect("alive").regs;
    regs.rip = CALL_TRAP;
    regs.rax = number as u64;
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
    thread
}

#[test]
fn calls_made_by_the_stubs_text() {
    let text = STUB_TEXT & !(PAGE_SIZE - 1);
    let whole = 1 << 46;
    for (number, args) in [
        // The ground is pulled away.
        (libc::SYS_munmap, [SLOTS, SLOT_SIZE, 0, 0, 0, 0]),
        (libc::SYS_munmap, [text, STUB_DATA - text, 0, 0, 0, 0]),
        (libc::SYS_munmap, [EXTRA_TEXT, PAGE_SIZE, 0, 0, 0, 0]),
        (libc::SYS_munmap, [STUB_DATA, STUB_DATA_SIZE, 0, 0, 0, 0]),
        (libc::SYS_munmap, [0, whole, 0, 0, 0, 0]),
        (libc::SYS_mprotect, [SLOTS, PAGE_SIZE, 0, 0, 0, 0]),
        (libc::SYS_mprotect, [SLOTS, PAGE_SIZE, 1, 0, 0, 0]),
        (libc::SYS_mprotect, [STUB_DATA, STUB_DATA_SIZE, 0, 0, 0, 0]),
        (libc::SYS_madvise, [SLOTS, PAGE_SIZE, libc::MADV_DONTNEED as u64, 0, 0, 0]),
        (libc::SYS_madvise, [SLOTS, PAGE_SIZE, libc::MADV_REMOVE as u64, 0, 0, 0]),
        (libc::SYS_madvise, [STUB_DATA, STUB_DATA_SIZE, libc::MADV_DONTNEED as u64, 0, 0, 0]),
        (libc::SYS_mremap, [SLOTS, PAGE_SIZE, PAGE_SIZE, 3, DATA, 0]),
        (libc::SYS_mmap, [SLOTS, PAGE_SIZE, 7, 0x32, u64::MAX, 0]),
        // The command socket.
        (libc::SYS_close, [0; 6]),
        (libc::SYS_recvmsg, [0, DATA, libc::MSG_DONTWAIT as u64, 0, 0, 0]),
        (libc::SYS_sendto, [0, DATA, 8, libc::MSG_DONTWAIT as u64, 0, 0]),
        (libc::SYS_sendmsg, [0, DATA, libc::MSG_DONTWAIT as u64, 0, 0, 0]),
        // Threads, processes, filters.
        (libc::SYS_clone, [0x5_0f00, STACK - 4096, 0, 0, 0, 0]),
        (libc::SYS_exit, [0; 6]),
        (libc::SYS_exit_group, [0; 6]),
        (libc::SYS_seccomp, [1, 8, EXTRA_TEXT + 0x400, 0, 0, 0]),
        (libc::SYS_rt_sigreturn, [0; 6]),
        // The doorbell, with arguments of every kind.
        (DOORBELL as i64, [0; 6]),
        (DOORBELL as i64, [10, SLOTS, SLOTS, 0, 0, 1 << 40]),
        (DOORBELL as i64, [u64::MAX; 6]),
    ] {
        let Some(space) = space(echo()) else { return };
        let mut thread = stub_call(&space, number, args);
        let death = run_for_a_while(&mut *thread, 6);
        // What is left of it still answers, or is dead.
        let _ = thread.context();
        let _ = space.clone().new_thread(&context());
        println!("call {number} {args:x?}: {death:?}");
        drop(thread);
    }
    still_works();
}

#[test]
fn jumps_into_the_handler() {
    let Some(mut space) = space(nothing()) else { return };
    let mut random = Random(0x77);
    let mut thread = thread(&space, &context());
    for offset in 0..0x140 {
        let frame = frame_address(&mut *thread);
        let Ok(context) = thread.context() else { panic!("a dead thread") };
        let regs = &mut context.regs;
        regs.rip = EXTRA_TEXT + offset;
        // As the kernel, or the start of a thread, would have them.
        let kinds = [10, 11, 31, 0x100, 0x101, random.next()];
        regs.rdi = kinds[(random.next() % 6) as usize];
        (regs.rsi, regs.rdx) = (frame + 312, frame + 8);
        regs.rsp = if random.next().is_multiple_of(4) { STACK } else { frame };
        regs.r15 = frame & !(SLOT_SIZE - 1);
        (regs.r9, regs.rax, regs.rbx) = (random.next() % 4, random.next() % 5, random.next() % 4);
        if run_for_a_while(&mut *thread, 4).is_some() || thread.context().is_err() {
            drop(thread);
            space = common::space(nothing()).expect("an address space");
            thread = common::thread(&space, &common::context());
        }
    }
    still_works();
}

/// A signal frame in guest memory at DATA from which a thread goes on at `rip` with every signal blocked.
fn hostile_frame(space: &dyn AddressSpace, rip: u64, rax: u64) {
    let mut words = [0u64; 56];
    // struct rt_sigframe: see the crate's frame.rs. The stack pointer is 8 above its start at rt_sigreturn.
    let mut put = |offset: usize, value: u64| words[offset / 8] = value;
    put(8 + 40 + 13 * 8, rax);
    put(8 + 40 + 15 * 8, STACK);
    put(8 + 40 + 16 * 8, rip);
    put(8 + 40 + 17 * 8, 0x202);
    put(8 + 40 + 18 * 8, 0x33 | 0x2b << 48);
    put(8 + 296, u64::MAX);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(space.write(DATA, &bytes), Ok(bytes.len()));
}

/// A thread that is about to block all signals and go on at `rip`.
fn deaf_thread(space: &Arc<dyn AddressSpace>, rip: u64) -> Box<dyn Thread> {
    hostile_frame(&**space, rip, 0);
    let mut thread = stub_call(space, libc::SYS_rt_sigreturn, [0; 6]);
    thread.context().expect("alive").regs.rsp = DATA + 8;
    thread
}

#[test]
fn a_deaf_thread_that_runs_is_killed() {
    let Some(space) = space(spin()) else { return };
    let mut thread = deaf_thread(&space, CODE);
    let interrupter = thread.interrupter();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            interrupter.interrupt();
        });
        assert_eq!(thread.run(Resume::Context), Exit::Dead(Death::Misbehaved));
    });
    still_works();
}

#[test]
fn a_deaf_thread_that_calls_is_killed_when_asked() {
    let Some(space) = space(echo()) else { return };
    let mut thread = deaf_thread(&space, CODE);
    assert!(matches!(thread.run(Resume::Context), Exit::Syscall { number: 39, .. }));
    // Calls work; nobody needs a signal for them.
    assert!(matches!(thread.run(Resume::Result(1)), Exit::Syscall { number: 39, .. }));
    assert_eq!(thread.context().err(), Some(Death::Misbehaved));
    assert_eq!(thread.run(Resume::Context), Exit::Dead(Death::Misbehaved));
    still_works();
}

#[test]
fn a_deaf_thread_dies_with_its_owner() {
    let Some(space) = space(spin()) else { return };
    let mut thread = deaf_thread(&space, CODE);
    // A deaf thread that sleeps in a call of the guest: dropping it cannot wait for it.
    hostile_frame(&*space, CODE, 0);
    let (pid, tid) = host_ids(&mut *thread);
    let killer = space.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            killer.kill();
        });
        assert_eq!(thread.run(Resume::Context), Exit::Dead(Death::Killed));
    });
    drop(thread);
    drop(space);
    // SAFETY: a plain system call that only asks.
    while unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) } == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_fault_without_signals_kills() {
    let Some(space) = space(nothing()) else { return };
    let mut thread = deaf_thread(&space, CODE);
    assert!(matches!(thread.run(Resume::Context), Exit::Dead(_)));
    still_works();
}

// Rings the doorbell of a kick for ever: the stub's `mov eax, DOORBELL; syscall` is at r12, the thread's frame at r13, and a
// frame that leads back here at DATA + 8 on.
guest!(
    flood,
    "2:",
    "inc qword ptr [0x800000 + 0x1000]",
    "mov r9, [0x800000 + 0x1000]",
    "mov edi, 10",
    "lea rsi, [r13 + 312]",
    "lea rdx, [r13 + 8]",
    "mov rsp, 0x800000",
    "jmp r12",
);

#[test]
fn a_flood_of_doorbells_can_be_interrupted() {
    let Some(space) = space(flood()) else { return };
    let mut thread = thread(&space, &context());
    // Find `mov eax, DOORBELL` in the handler, behind the start's own.
    let (pid, _) = host_ids(&mut *thread);
    let mut text = vec![0u8; 0x400];
    let local = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    let remote = libc::iovec { iov_base: EXTRA_TEXT as *mut _, iov_len: text.len() };
    // SAFETY: the local vector is the whole of `text`.
    let read = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    assert_eq!(read, text.len() as isize);
    let ring = [0xb8, 0xf0, 0xff, 0xff, 0x3f, 0x0f, 0x05];
    let at =
        text.windows(ring.len()).rposition(|window| window == ring).unwrap_or_else(|| panic!("{text:x?}"));
    hostile_frame(&*space, CODE, 0);
    space.write(DATA + 8 + 296, &[0; 8]).expect("an empty signal mask");
    let frame = frame_address(&mut *thread);
    let kept = [EXTRA_TEXT + at as u64, frame];
    // r12, r13 in the frame that it returns to (words 4, 5).
    let bytes: Vec<u8> = kept.iter().flat_map(|word| word.to_le_bytes()).collect();
    space.write(DATA + 8 + 40 + 4 * 8, &bytes).expect("registers");
    let regs = &mut thread.context().expect("alive").regs;
    (regs.r12, regs.r13) = (kept[0], kept[1]);
    space.write(DATA + 0x1000, &(1u64 << 40).to_le_bytes()).expect("a count");
    let interrupter = thread.interrupter();
    for _ in 0..5 {
        let interrupter = interrupter.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                interrupter.interrupt();
            });
            match thread.run(Resume::Context) {
                Exit::Interrupted => {}
                other => panic!("{other:?}"),
            }
        });
    }
    let mut rung = [0; 8];
    assert_eq!(space.read(DATA + 0x1000, &mut rung), Ok(8));
    assert!(u64::from_le_bytes(rung) > (1 << 40) + 10);
    still_works();
}

#[test]
fn a_thread_that_ends_by_itself_ends_the_process() {
    let Some(space) = space(nothing()) else { return };
    let mut thread = thread(&space, &context());
    let start: &mut Context = thread.context().expect("alive");
    start.regs.rip = EXIT;
    assert_eq!(thread.run(Resume::Context), Exit::Dead(Death::Misbehaved));
    still_works();
}

/// Who could send descriptors could fill up what the host allows a user to have in flight, for the stubs of all sandboxes.
#[test]
fn stubs_send_no_descriptors() {
    let Some(space) = space(nothing()) else { return };
    // struct msghdr at DATA, struct iovec at DATA + 64, a control message with descriptor 0 at DATA + 128.
    let mut words = [0u64; 32];
    (words[2], words[3], words[4], words[5]) = (DATA + 64, 1, DATA + 128, 24);
    (words[8], words[9]) = (DATA, 1);
    (words[16], words[17]) = (20, 1 | 1 << 32);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(space.write(DATA, &bytes), Ok(bytes.len()));
    for number in [libc::SYS_sendmsg, libc::SYS_sendmmsg] {
        let args = [0, DATA, (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u64, 0, 0, 0];
        let mut thread = stub_call(&space, number, args);
        assert!(matches!(thread.run(Resume::Context), Exit::Fault(_)));
        let result = thread.context().expect("alive").regs.rax as i64;
        assert_eq!(result, -i64::from(libc::ENOSYS), "{number}");
    }
}

/// A stub thread that is sent to sleep in the middle of an order, as a sibling can do by overwriting it: it is given up.
#[test]
fn an_order_that_never_ends_is_given_up() {
    let Some(space) = space(echo()) else { return };
    let mut thread = thread(&space, &context());
    assert!(matches!(thread.run(Resume::Context), Exit::Syscall { .. }));
    let pid = host_ids(&mut *thread).0;
    let (mapped, Exit::Syscall { ip, .. }) = (space.clone(), thread.run(Resume::Result(0))) else { panic!() };
    let mut place = |addr: u64| {
        let prot = Prot::READ | Prot::EXEC;
        mapped.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_ok()
    };
    if let Err(errno) = space.patch(&mut *thread, ip, &mut place) {
        println!("skipped: no patched sites here: {errno}");
        return;
    }
    let page = frame_address(&mut *thread) & !(SLOT_SIZE - 1);
    assert!(matches!(thread.run(Resume::Result(0)), Exit::Syscall { .. }));
    // The operation, as a sibling would like it: FUTEX_WAIT for a word that nobody changes.
    let futex = [libc::SYS_futex as u64, DATA + 0x800, 0, 0, 0, 0, 0];
    let bytes: Vec<u8> = futex.iter().flat_map(|word| word.to_le_bytes()).collect();
    let overwrite = move || {
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: (page + 512) as *mut _, iov_len: bytes.len() };
        // SAFETY: the kernel reads `bytes`, and checks the other address.
        unsafe { libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) };
    };
    let change = Change::MapAnonymous { addr: 0x100_0000, len: PAGE_SIZE, prot: Prot::READ };
    let result = meanwhile(overwrite, || {
        for _ in 0..100_000 {
            space.apply(Some(&mut *thread), &[change])?;
        }
        Ok(())
    });
    // If the other was never faster, it is as well.
    println!("{result:?}");
    if result.is_err() {
        assert_eq!(result, Err(Errno::ESRCH));
        assert_eq!(thread.run(Resume::Result(0)), Exit::Dead(Death::Misbehaved));
    }
    still_works();
}

/// What a captured service thread forks is nobody's that the sentry knows; it ends with the process that it was forked from.
#[test]
fn unknown_forks_end_with_their_process() {
    // On a thread of its own: the stubs die with it. In a process of its own: its children are counted.
    // SAFETY: the child makes a template, which is meant for a process that has been forked, and ends.
    match unsafe { nix::unistd::fork() }.expect("a process") {
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).expect("a child");
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
        nix::unistd::ForkResult::Child => {
            let ended = std::panic::catch_unwind(|| {
                let template = match Template::new(&Options::default()) {
                    Ok(template) => template,
                    Err(error) => return println!("skipped: {error}"),
                };
                let (process, other) = (template.spawn().expect("a stub"), template.spawn().expect("a stub"));
                let before = children().len();
                // As it would go on in a loop of its own.
                let fork = Op::call(libc::SYS_clone, [libc::CLONE_PARENT as u64, 0, 0, 0, 0, 0]);
                let _ = process.execute(&[fork.keep_going(), fork.keep_going(), fork.keep_going()], &[]);
                assert!(children().len() > before, "a fork by the service thread");
                process.kill();
                drop(process);
                while children().len() >= before {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Who has nothing to do with it lives.
                let ping = Op::call(libc::SYS_close, [u64::MAX, 0, 0, 0, 0, 0]);
                assert!(other.execute(&[ping], &[]).is_ok());
            });
            std::process::exit(i32::from(ended.is_err()));
        }
    }
}

/// The children of this process, dead or alive.
fn children() -> Vec<i32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    pids
}
