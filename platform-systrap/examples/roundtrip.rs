//! Prints what a system call of a guest costs, in nanoseconds, beside a native one.

use platform::{AddressSpace, Change, Context, Exit, PAGE_SIZE, PATCH_AREA, Platform, Prot, Resume, Thread};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CODE: u64 = 0x40_0000;
const ROUNDS: u32 = 8_000;

/// `syscall; cmp rax, -4095; jmp` back, with the number kept in rbx.
const LOOP: &[u8] = &[0x89, 0xd8, 0x0f, 0x05, 0x48, 0x3d, 1, 0xf0, 0xff, 0xff, 0xeb, 0xf4];

fn best(mut f: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                f();
            }
            start.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min)
}

fn pin(cpus: &[usize]) {
    let mut set = nix::sched::CpuSet::new();
    for &cpu in cpus {
        let _ = set.set(cpu);
    }
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

fn thread(space: &Arc<dyn AddressSpace>, number: i64) -> Box<dyn Thread> {
    let mut context = Context::default();
    context.regs.rip = CODE;
    context.regs.rbx = number as u64;
    space.clone().new_thread(&context).expect("a thread")
}

fn calls(thread: &mut dyn Thread, fetch: bool) -> f64 {
    calls_from(thread, fetch, &mut Resume::Context)
}

fn calls_from(thread: &mut dyn Thread, fetch: bool, resume: &mut Resume) -> f64 {
    best(|| {
        match thread.run(*resume) {
            Exit::Syscall { .. } => {}
            other => panic!("{other:?}"),
        }
        if fetch {
            thread.context().expect("alive").regs.rax = 1;
        }
        *resume = Resume::Result(1);
    })
}

fn measure(platform: &dyn Platform, name: &str) {
    // SAFETY: a plain system call.
    let native = best(|| unsafe { assert!(libc::syscall(libc::SYS_getppid) > 0) });
    let space = platform.new_address_space().expect("an address space");
    space
        .apply(None, &[Change::MapAnonymous { addr: CODE, len: PAGE_SIZE, prot: Prot::READ | Prot::EXEC }])
        .expect("a mapping");
    space.poke(CODE, LOOP).expect("code");
    let line =
        |what: &str, ns: f64| println!("{name:12} {what:34} {ns:8.0} ns  {:6.1} x native", ns / native);
    line("native getppid", native);
    {
        let mut thread = thread(&space, libc::SYS_getpid);
        line("notified call", calls(&mut *thread, false));
        line("notified call + context", calls(&mut *thread, true));
        line("notified call after that", calls(&mut *thread, false));
        line("thread's processor time", best(|| assert!(thread.cpu_time() > Duration::ZERO)));
    }
    {
        let mut thread = thread(&space, libc::SYS_getppid);
        let Exit::Syscall { ip, .. } = thread.run(Resume::Context) else { panic!("no call") };
        let mapped = space.clone();
        let prot = Prot::READ | Prot::EXEC;
        let mut place =
            |addr| mapped.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_ok();
        space.patch(&mut *thread, ip, &mut place).expect("patched");
        let mut resume = Resume::Result(0);
        for _ in 0..3 {
            line("patched call", calls_from(&mut *thread, false, &mut resume));
        }
        let change = Change::MapAnonymous { addr: 0x80_0000, len: PAGE_SIZE, prot: Prot::READ };
        let by = best(|| {
            assert!(matches!(thread.run(resume), Exit::Syscall { .. }));
            space.apply(Some(&mut *thread), &[change]).expect("mapped");
        });
        line("patched call that maps", by);
        line("patched call + context", calls_from(&mut *thread, true, &mut resume));
    }
    {
        let mut thread = thread(&space, libc::SYS_clone);
        line("trapped call", calls(&mut *thread, false));
        line("trapped call + context", calls(&mut *thread, true));
    }
    let change = Change::MapAnonymous { addr: 0x80_0000, len: PAGE_SIZE, prot: Prot::READ };
    line("mmap by the service thread", best(|| space.apply(None, &[change]).expect("mapped")));
    let mut page = [0; 64];
    line("read of 64 bytes", best(|| assert_eq!(space.read(CODE, &mut page), Ok(64))));
    let start = Instant::now();
    for _ in 0..200 {
        drop(thread(&space, libc::SYS_getpid));
    }
    line("thread: make and drop", start.elapsed().as_nanos() as f64 / 200.0);
    let start = Instant::now();
    for _ in 0..100 {
        drop(space.fork(None).expect("a fork"));
    }
    line("fork and drop", start.elapsed().as_nanos() as f64 / 100.0);
}

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let platform = platform_systrap::SystrapPlatform::new(true).expect("systrap works here");
    for (name, value) in platform.report().features {
        println!("{name}: {value}");
    }
    measure(&platform, "unpinned");
    pin(&[0]);
    // Processes inherit the affinity of the template, so a new platform.
    let platform = platform_systrap::SystrapPlatform::new(true).expect("systrap works here");
    measure(&platform, "one core");
}
