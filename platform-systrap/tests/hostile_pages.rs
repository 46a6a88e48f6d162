//! Guests whose pages are overwritten with everything, at any time, while the sentry serves them: requests, frames, control
//! words, the service thread's memory. They may die of it, by the names that the platform has for that. Nothing may
//! hang, the sentry's side may not panic, and a guest beside them counts on.
//!
//! `$HOSTILE_SECONDS` says how long each test goes on (default: 3), `$HOSTILE_SEED` where it begins. A test that fails says
//! the seed of its round, which is enough to have the same values and steps again, though not the same interleaving.

mod common;

use common::{CODE, DATA, Random, context, frame_address, host_ids, space, thread};
use platform::stub::{EXTRA_TEXT, SLOT_SIZE, SLOTS, STUB_DATA, STUB_TEXT};
use platform::{
    AddressSpace, Change, Context, Death, Exit, Interrupter, PAGE_SIZE, PATCH_AREA, Prot, Resume, Thread,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Bytes of a thread's pages that mean something.
const PAGES: u64 = 0x6000;
/// Longer than the platform gives a guest before it ends it. Only what hangs meets this.
const HANGS: Duration = Duration::from_secs(240);
/// What guests map and unmap.
const SCRATCH: u64 = 0x100_0000;

// Calls of each kind, at sites that can be patched; now and then a fault.
guest!(
    mixed,
    "xor r12d, r12d",
    "2:",
    "mov eax, 1",
    "mov edi, 1",
    "mov esi, 0x800000",
    "mov edx, 64",
    "syscall",
    "mov rbx, rax",
    "mov eax, 2",
    "mov edi, 0x800100",
    "syscall",
    "mov rbx, rax",
    "mov eax, 7",
    "mov edi, 0x800200",
    "mov esi, 3",
    "syscall",
    "mov rbx, rax",
    "mov eax, 39",
    "syscall",
    "mov rbx, rax",
    "mov eax, 1000",
    "syscall",
    "mov rbx, rax",
    "mov eax, 56",
    "syscall",
    "mov rbx, rax",
    "inc r12",
    "test r12, 15",
    "jnz 2b",
    "mov qword ptr [0x1000], 0",
    "jmp 2b",
);

// Stores words of the table at r14 at addresses of the table at r13, chosen by the seed r12, r15 pauses after each.
guest!(
    noise,
    "mov rbx, r12",
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
    "mov eax, ebx",
    "and eax, 0xff8",
    "mov rdi, [r13 + rax]",
    "mov rax, rbx",
    "shr rax, 20",
    "and eax, 0xff8",
    "mov rsi, [r14 + rax]",
    "bt rbx, 50",
    "jc 3f",
    "mov [rdi], esi",
    "jmp 4f",
    "3:",
    "mov [rdi], rsi",
    "4:",
    "mov rcx, r15",
    "jrcxz 2b",
    "5:",
    "pause",
    "dec rcx",
    "jnz 5b",
    "jmp 2b",
);

// Counts; each call must give 3 * r12 + 1.
guest!(
    counting,
    "2:",
    "mov eax, 1000",
    "mov rdi, r12",
    "syscall",
    "mov rbx, rax",
    "lea rcx, [r12 + r12 * 2 + 1]",
    "cmp rbx, rcx",
    "jne 3f",
    "inc r12",
    "jmp 2b",
    "3:",
    "ud2",
);

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Seeds of rounds, until the time is over.
fn seeds() -> impl Iterator<Item = u64> {
    let end = Instant::now() + Duration::from_secs(setting("HOSTILE_SECONDS", 3));
    (setting("HOSTILE_SEED", 1)..).take_while(move |_| Instant::now() < end)
}

fn generator(seed: u64) -> Random {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..4 {
        random.next();
    }
    random
}

fn one_of(random: &mut Random, values: &[u64]) -> u64 {
    values[(random.next() % values.len() as u64) as usize]
}

/// A value that may mean something to somebody.
fn value(random: &mut Random) -> u64 {
    match random.next() % 10 {
        // States, counts, kinds of doorbells, lengths.
        0..=3 => one_of(
            random,
            &[
                0,
                1,
                2,
                3,
                4,
                5,
                7,
                8,
                9,
                16,
                0x100,
                0x101,
                0x102,
                0x105,
                0xfff,
                4095,
                4096,
                4097,
                0xffff_ffff,
                1 << 31,
            ],
        ),
        4 => random.next() % 512,
        5 => random.next(),
        // Calls that the stub may make.
        6 => one_of(
            random,
            &[9, 10, 11, 15, 25, 28, 3, 46, 47, 44, 33, 56, 60, 157, 202, 228, 231, 317, 0x3fff_fff0],
        ),
        // Addresses.
        7 => {
            one_of(random, &[DATA, CODE, SCRATCH, STUB_DATA, STUB_TEXT, EXTRA_TEXT, SLOTS, 0, 0x1000])
                + random.next() % 0x2000
        }
        8 => SLOTS + random.next() % (3 * SLOT_SIZE),
        _ => one_of(
            random,
            &[platform::USER_MAX, 0x7fff_ffff_f000, 1 << 47, u64::MAX, u64::MAX - 511, 1 << 63],
        ),
    }
}

/// Where something is overwritten. `service`: also what the service thread has.
fn target(random: &mut Random, service: bool) -> u64 {
    if service && random.next().is_multiple_of(4) {
        let part = one_of(random, &[0, 0x80, 0x100, 0x1000, 0x2000, 0xf000]);
        return STUB_DATA + part + ((random.next() % 0x200) & !3);
    }
    let slot = SLOTS + random.next() % 3 * SLOT_SIZE;
    slot + match random.next() % 8 {
        // The state, and what goes with it.
        0..=1 => 256,
        2 => 256 + ((random.next() % 0x200) & !3),
        3 => 0x200 + ((random.next() % 0x280) & !3),
        4 => (random.next() % 0x100) & !3,
        _ => (random.next() % PAGES) & !3,
    }
}

/// Writes to the stub's memory, wherever it is.
fn scribble(pid: i32, addr: u64, bytes: &[u8]) {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: addr as *mut _, iov_len: bytes.len() };
    // SAFETY: the kernel reads `bytes`, and checks the other address.
    unsafe { libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) };
}

/// Ends the test, from any thread, with the seed of the round.
fn fail(seed: u64, what: &str) -> ! {
    eprintln!("seed {seed}: {what}");
    std::process::abort();
}

/// A guest that nobody attacks.
struct Control {
    space: Arc<dyn AddressSpace>,
    counted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<()>,
}

const PATTERN: [u8; 4096] = [0x5a; 4096];

impl Control {
    fn new() -> Option<Control> {
        let space = space(counting())?;
        assert_eq!(space.write(DATA, &PATTERN), Ok(PATTERN.len()));
        let (counted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (its, count, end) = (space.clone(), counted.clone(), stop.clone());
        let worker = std::thread::spawn(move || {
            let mut thread = thread(&its, &context());
            let (mut resume, mut expected) = (Resume::Context, 0);
            while !end.load(SeqCst) {
                match thread.run(resume) {
                    Exit::Syscall { number: 1000, args, ip } => {
                        assert_eq!(args[0], expected);
                        if expected == 1000 {
                            let _ = patch(&its, &mut *thread, ip);
                        }
                        resume = Resume::Result(3 * expected + 1);
                        expected += 1;
                        count.store(expected, SeqCst);
                        // Others need the processors.
                        std::thread::sleep(Duration::from_micros(50));
                    }
                    other => panic!("{other:?} {:x?}", thread.context()),
                }
            }
        });
        Some(Control { space, counted, stop, worker })
    }

    /// It counts on, and has what it had.
    fn check(&self, seed: u64) {
        let (before, began) = (self.counted.load(SeqCst), Instant::now());
        while self.counted.load(SeqCst) == before {
            if began.elapsed() > HANGS || self.worker.is_finished() {
                fail(seed, "the guest beside it does not count any more");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut found = [0; 4096];
        assert_eq!(self.space.read(DATA, &mut found), Ok(found.len()), "seed {seed}");
        assert!(found == PATTERN, "seed {seed}");
    }

    fn end(self) {
        self.stop.store(true, SeqCst);
        self.worker.join().expect("a guest that counts");
    }
}

/// Patches the site of the call that the thread is in, if that can be.
fn patch(space: &Arc<dyn AddressSpace>, thread: &mut dyn Thread, ip: u64) -> platform::Result<()> {
    let mapped = space.clone();
    let mut place = |addr: u64| {
        let prot = Prot::READ | Prot::EXEC;
        mapped.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_ok()
    };
    space.patch(thread, ip, &mut place)
}

/// What the threads of a round share.
#[derive(Default)]
struct Round {
    stop: AtomicBool,
    interrupters: Mutex<Vec<Arc<dyn Interrupter>>>,
}

impl Round {
    fn add(&self, thread: &dyn Thread) {
        self.interrupters.lock().expect("no panic").push(thread.interrupter());
    }

    fn interrupt(&self) {
        self.interrupters.lock().expect("no panic").iter().for_each(|one| one.interrupt());
    }

    /// Does what a sentry does for a guest thread, until it dies or the round is over.
    fn serve(
        &self,
        space: &Arc<dyn AddressSpace>,
        thread: &mut dyn Thread,
        random: &mut Random,
        patching: bool,
    ) -> Option<Death> {
        let mut resume = Resume::Context;
        while !self.stop.load(SeqCst) {
            match thread.run(resume) {
                Exit::Dead(death) => return Some(death),
                Exit::Syscall { args, ip, .. } => {
                    if patching && random.next().is_multiple_of(8) {
                        let _ = patch(space, thread, ip);
                    }
                    resume = Resume::Result(value(random));
                    self.step(space, thread, random, &args, &mut resume);
                }
                Exit::Fault(_) => resume = restart(thread),
                Exit::Interrupted => {
                    resume = match random.next() % 4 {
                        0 => restart(thread),
                        1 => {
                            let _ = thread.context();
                            Resume::Context
                        }
                        _ => Resume::Context,
                    }
                }
            }
        }
        None
    }

    /// Some work for a call.
    fn step(
        &self,
        space: &Arc<dyn AddressSpace>,
        thread: &mut dyn Thread,
        random: &mut Random,
        args: &[u64; 6],
        resume: &mut Resume,
    ) {
        let prot = Prot::READ | Prot::WRITE;
        let len = PAGE_SIZE * (1 + random.next() % 4);
        let mut buf = [0; 512];
        match random.next() % 40 {
            0 => *resume = restart(thread),
            1 => {
                if let Ok(context) = thread.context() {
                    context.regs.rax = random.next();
                    *resume = Resume::Context;
                }
            }
            2..=4 => {
                let _ = space.apply(Some(thread), &[Change::MapAnonymous { addr: SCRATCH, len, prot }]);
            }
            5..=6 => {
                let changes = [
                    Change::MapAnonymous { addr: SCRATCH, len, prot },
                    Change::Protect { addr: SCRATCH, len, prot: Prot::READ },
                    Change::Advise { addr: SCRATCH, len, advice: libc::MADV_DONTNEED },
                    Change::Unmap { addr: SCRATCH, len },
                ];
                let _ = space.apply(Some(thread), &changes);
            }
            7 => {
                let _ = space.apply(None, &[Change::MapAnonymous { addr: SCRATCH, len, prot }]);
            }
            8..=12 => {
                for piece in 0..random.next() % 6 {
                    let size = (random.next() % 512) as usize;
                    space.write_later(DATA + 0x4000 + piece * 512, &buf[..size]);
                }
            }
            13..=15 => {
                let _ = space.read(args[(random.next() % 3) as usize], &mut buf);
            }
            16 => {
                space.read_carried(args[1], &mut buf);
            }
            17 => {
                let _ = space.write(args[1], &buf[..8]);
            }
            18 => {
                if let Ok(child) = space.fork(Some(thread)) {
                    self.child(child);
                }
            }
            19 => {
                let _ = space.compare_exchange(Some(thread), DATA, 0, 0);
            }
            20 => {
                thread.cpu_time();
            }
            21 => {
                // Its stub thread serves the next.
                if let Ok(mut other) = space.clone().new_thread(&context()) {
                    self.add(&*other);
                    let _ = other.run(Resume::Context);
                }
            }
            22 => thread.idle(),
            23 => thread.set_answers(&[Some(random.next()), None, Some(1), None, None, Some(2)]),
            24 => {
                let _ = space.resident(DATA, &mut [0; 4]);
            }
            25 => {
                let _ = thread.context();
            }
            _ => {}
        }
    }

    /// Runs a fork for a moment.
    fn child(&self, space: Arc<dyn AddressSpace>) {
        if let Ok(mut thread) = space.clone().new_thread(&context()) {
            self.add(&*thread);
            for value in 0..3 {
                if let Exit::Dead(_) = thread.run(Resume::Result(value)) {
                    break;
                }
            }
        }
    }
}

/// Lets the guest begin again.
fn restart(thread: &mut dyn Thread) -> Resume {
    if let Ok(now) = thread.context() {
        *now = context();
    }
    Resume::Context
}

/// A death that the platform has a name for. `Killed`: only if somebody did.
fn is_known(death: Option<Death>) -> bool {
    matches!(death, None | Some(Death::Misbehaved | Death::Host))
}

/// Threads of a round, who must all come to an end.
struct Workers {
    seed: u64,
    done: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    all: Vec<(&'static str, std::thread::JoinHandle<Option<Death>>)>,
}

impl Workers {
    fn new(seed: u64) -> Workers {
        let (sender, done) = mpsc::channel();
        Workers { seed, done, sender, all: Vec::new() }
    }

    fn spawn(&mut self, name: &'static str, work: impl FnOnce() -> Option<Death> + Send + 'static) {
        struct Done(mpsc::Sender<()>);
        impl Drop for Done {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let done = Done(self.sender.clone());
        self.all.push((
            name,
            std::thread::spawn(move || {
                let _done = done;
                work()
            }),
        ));
    }

    fn are_finished(&self) -> bool {
        self.all.iter().any(|(_, worker)| worker.is_finished())
    }

    /// Waits for all of them: who has not come to an end long after he was told to hangs.
    fn join(self) -> Vec<Option<Death>> {
        for _ in &self.all {
            if self.done.recv_timeout(HANGS).is_err() {
                let left: Vec<_> = self
                    .all
                    .iter()
                    .filter(|(_, worker)| !worker.is_finished())
                    .map(|(name, _)| *name)
                    .collect();
                fail(self.seed, &format!("hangs: {left:?}"));
            }
        }
        let seed = self.seed;
        let join = |(name, worker): (&str, std::thread::JoinHandle<_>)| {
            worker.join().unwrap_or_else(|_| fail(seed, &format!("{name} has panicked")))
        };
        self.all.into_iter().map(join).collect()
    }
}

/// One round: says who has died.
fn round(seed: u64) -> Vec<Option<Death>> {
    let mut random = generator(seed);
    let space = space(mixed()).expect("an address space");
    // Who captures the service thread is given a minute before the process is ended for it.
    let service = seed % 50 == 49;
    let patching = !random.next().is_multiple_of(4);
    let from_inside = random.next().is_multiple_of(2);
    let pause = Duration::from_nanos(one_of(&mut random, &[1, 10_000, 100_000, 1_000_000]));
    let interrupts = Duration::from_micros(one_of(&mut random, &[100, 1000, 20_000]));
    let shared = Arc::new(Round::default());
    let mut workers = Workers::new(seed);
    let (pids, pid) = mpsc::channel();
    for number in 0..1 + random.next() % 2 {
        let (space, shared, pids) = (space.clone(), shared.clone(), pids.clone());
        let mut random = generator(seed ^ (number + 1) << 40);
        workers.spawn("a guest", move || {
            // Another may have brought it down already.
            let mut thread = space.clone().new_thread(&context()).ok()?;
            let _ = pids.send(host_ids(&mut *thread).0);
            shared.add(&*thread);
            // Something honest first.
            for _ in 0..random.next() % 64 {
                if let Exit::Dead(death) = thread.run(Resume::Result(0)) {
                    return Some(death);
                }
            }
            shared.serve(&space, &mut *thread, &mut random, patching)
        });
    }
    drop(pids);
    let pid = pid.recv().expect("a thread that has begun");
    if from_inside {
        let code = CODE + 0x10_0000;
        let prot = Prot::READ | Prot::EXEC;
        let _ = space.apply(None, &[Change::MapAnonymous { addr: code, len: PAGE_SIZE, prot }]);
        let _ = space.poke(code, noise());
        let table = |words: Vec<u64>| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        // Writes that would fault are left out.
        let targets = table((0..512).map(|_| target(&mut random, service)).collect());
        let values = table((0..512).map(|_| value(&mut random)).collect());
        let _ = space.write_batch(&[(DATA + 0x8000, &targets), (DATA + 0x9000, &values)]);
        let mut start = context();
        let regs = &mut start.regs;
        (regs.rip, regs.r13, regs.r14) = (code, DATA + 0x8000, DATA + 0x9000);
        (regs.r12, regs.r15) = (random.next() | 1, one_of(&mut random, &[0, 50, 1000, 20_000]));
        let (space, shared) = (space.clone(), shared.clone());
        workers.spawn("the noise", move || {
            let mut thread = space.new_thread(&start).ok()?;
            shared.add(&*thread);
            while !shared.stop.load(SeqCst) {
                match thread.run(Resume::Context) {
                    Exit::Dead(death) => return Some(death),
                    Exit::Fault(_) => {
                        // A page of the second thread, where there is none.
                        if let Ok(now) = thread.context() {
                            now.regs.rip = start.regs.rip;
                            now.regs.r12 = now.regs.rbx | 1;
                        }
                    }
                    _ => {}
                }
            }
            None
        });
    }
    let (other, mut hands) = (shared.clone(), generator(seed ^ 0xabcd));
    workers.spawn("the interrupter", move || {
        while !other.stop.load(SeqCst) {
            other.interrupt();
            std::thread::sleep(hands.time(interrupts));
        }
        None
    });
    // A round ends with its first death, or after a while.
    let end = Instant::now() + Duration::from_millis(one_of(&mut random, &[20, 60, 200]));
    while Instant::now() < end && !workers.are_finished() {
        if !from_inside || random.next().is_multiple_of(4) {
            let bytes = value(&mut random).to_le_bytes();
            let size = if random.next().is_multiple_of(2) { 4 } else { 8 };
            scribble(pid, target(&mut random, service), &bytes[..size]);
        }
        std::thread::sleep(random.time(pause));
    }
    shared.stop.store(true, SeqCst);
    // All must come out, though nobody kills them. (Who is in a call when he is interrupted serves it first.)
    let calls = shared.clone();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let calling = std::thread::spawn(move || {
        while !is_over.load(SeqCst) {
            calls.interrupt();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let deaths = workers.join();
    over.store(true, SeqCst);
    calling.join().expect("no panic");
    space.kill();
    deaths
}

#[test]
fn pages_are_overwritten() {
    let Some(control) = Control::new() else { return };
    let (mut rounds, mut misbehaved, mut host) = (0, 0, 0);
    for seed in seeds() {
        let deaths = round(seed);
        assert!(deaths.iter().all(|death| is_known(*death)), "seed {seed}: {deaths:?}");
        control.check(seed);
        rounds += 1;
        misbehaved += u32::from(deaths.contains(&Some(Death::Misbehaved)));
        host += u32::from(deaths.contains(&Some(Death::Host)));
    }
    println!(
        "{rounds} rounds: {misbehaved} guests misbehaved, {host} ended otherwise, {} calls beside",
        control.counted.load(SeqCst)
    );
    control.end();
}

/// Registers as a handler, the stub or nobody would have them. `frame` is where the thread's frame is.
fn hostile_registers(random: &mut Random, frame: u64) -> Context {
    let mut start = context();
    let slot = frame & !(SLOT_SIZE - 1);
    let mut pick = || match random.next() % 8 {
        0 => slot,
        1 => frame,
        2 => frame + 8,
        3 => frame + 312,
        4 => STUB_DATA + ((random.next() % 0x4000) & !7),
        5 => DATA + random.next() % 0x4000,
        _ => value(random),
    };
    let regs = &mut start.regs;
    for register in [
        &mut regs.rax,
        &mut regs.rbx,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.rbp,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
        &mut regs.rsp,
        &mut regs.fs_base,
        &mut regs.gs_base,
    ] {
        *register = pick();
    }
    // Often as it should be, so that something happens.
    for register in [&mut regs.gs_base, &mut regs.r15] {
        if random.next().is_multiple_of(2) {
            *register = slot;
        }
    }
    if random.next().is_multiple_of(2) {
        regs.rsp = frame;
    }
    if random.next().is_multiple_of(2) {
        (regs.rdi, regs.rsi, regs.rdx) =
            (one_of(random, &[4, 5, 10, 11, 31, 0x100, 0x101, 0x102]), frame + 312, frame + 8);
    }
    regs.eflags = 0x202 | random.next() & 0xcd5;
    start
}

/// The bytes of the text that guests may jump to: the stub's, and the platform's own.
const TEXTS: [(u64, u64); 2] = [(STUB_TEXT, 0x400), (EXTRA_TEXT, 0x1000)];

#[test]
fn jumps_to_every_byte_of_the_text() {
    let Some(control) = Control::new() else { return };
    let all: u64 = TEXTS.iter().map(|(_, size)| size).sum();
    let mut at = 0;
    let mut guest: Option<Arc<dyn AddressSpace>> = None;
    let (mut jumps, mut deaths) = (0, 0);
    for seed in seeds() {
        let mut random = generator(seed ^ 0x5eed);
        let space = guest.take().unwrap_or_else(|| space(mixed()).expect("an address space"));
        // A thread of its own for some jumps: then it is another's turn, on the same stub thread.
        let shared = Arc::new(Round::default());
        let mut workers = Workers::new(seed);
        let (its, other, mut hands) = (space.clone(), shared.clone(), generator(seed));
        // A step that has no divisor in common with the number of bytes: all are met, far ones soon.
        let offsets: Vec<u64> = (0..16).map(|n| (at + n * 1117) % all).collect();
        at = (at + 16 * 1117) % all;
        jumps += offsets.len();
        workers.spawn("a guest", move || {
            let mut thread = its.clone().new_thread(&context()).ok()?;
            other.add(&*thread);
            let pid = host_ids(&mut *thread).0;
            for offset in offsets {
                let frame = frame_address(&mut *thread);
                let start = hostile_registers(&mut random, frame);
                let ip =
                    if offset < TEXTS[0].1 { TEXTS[0].0 + offset } else { TEXTS[1].0 + offset - TEXTS[0].1 };
                match thread.context() {
                    Ok(now) => {
                        *now = start;
                        now.regs.rip = ip;
                    }
                    Err(death) => return Some(death),
                }
                let mut resume = Resume::Context;
                for _ in 0..1 + random.next() % 4 {
                    if random.next().is_multiple_of(4) {
                        scribble(pid, target(&mut random, false), &value(&mut random).to_le_bytes());
                    }
                    match thread.run(resume) {
                        Exit::Dead(death) => return Some(death),
                        Exit::Syscall { args, .. } => {
                            resume = Resume::Result(value(&mut random));
                            other.step(&its, &mut *thread, &mut random, &args, &mut resume);
                        }
                        _ => resume = Resume::Context,
                    }
                }
            }
            None
        });
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let calling = std::thread::spawn(move || {
            while !is_over.load(SeqCst) {
                std::thread::sleep(hands.time(Duration::from_millis(3)));
                shared.interrupt();
            }
        });
        let died = workers.join();
        over.store(true, SeqCst);
        calling.join().expect("no panic");
        assert!(died.iter().all(|death| is_known(*death)), "seed {seed}: {died:?}");
        if died.contains(&None) && seed % 8 != 0 {
            guest = Some(space);
        } else {
            deaths += 1;
            space.kill();
        }
        control.check(seed);
    }
    println!("{jumps} jumps, {deaths} guests");
    control.end();
}
