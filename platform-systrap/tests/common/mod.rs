//! Guests of a few instructions, and the machine to run them.

#![allow(dead_code, reason = "each test binary uses a part")]

use platform::{AddressSpace, Change, Context, PAGE_SIZE, PATCH_AREA, Platform, Prot, Thread};
use platform_systrap::{Guest, SystrapPlatform};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Where the code of a guest is.
pub const CODE: u64 = 0x40_0000;
/// Where its writable memory is.
pub const DATA: u64 = 0x80_0000;
/// Bytes of that.
pub const DATA_SIZE: u64 = 16 * PAGE_SIZE;
/// The top of its stack.
pub const STACK: u64 = DATA + DATA_SIZE - 256;

/// Assembles guest code that may be put anywhere: `guest!(NAME, "instruction", …)` defines a function NAME that returns
/// its bytes.
#[macro_export]
macro_rules! guest {
    ($name:ident, $($line:expr),+ $(,)?) => {
        std::arch::global_asm!(
            ".pushsection .rodata.guest, \"a\", @progbits",
            concat!(".globl __guest_", stringify!($name), "_start, __guest_", stringify!($name), "_end"),
            concat!("__guest_", stringify!($name), "_start:"),
            $($line),+,
            concat!("__guest_", stringify!($name), "_end:"),
            ".popsection",
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("__guest_", stringify!($name), "_start")]
                static START: u8;
                #[link_name = concat!("__guest_", stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: the symbols delimit read-only data.
            unsafe {
                let (start, end) = (&raw const START, &raw const END);
                std::slice::from_raw_parts(start, end as usize - start as usize)
            }
        }
    };
}

/// One platform for all tests of a binary, made on a thread that stays (stubs die with it). `None` where the host cannot.
pub fn platform() -> Option<&'static SystrapPlatform> {
    static PLATFORM: OnceLock<Option<SystrapPlatform>> = OnceLock::new();
    PLATFORM
        .get_or_init(|| {
            tracing_subscriber::fmt().with_test_writer().init();
            let (send, receive) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _ = send.send(SystrapPlatform::new(true));
                loop {
                    std::thread::park();
                }
            });
            match receive.recv().expect("the thread lives") {
                Ok(platform) => Some(platform),
                Err(error) => {
                    println!("skipped: {error}");
                    None
                }
            }
        })
        .as_ref()
}

/// An address space with code and data.
pub fn space(code: &[u8]) -> Option<Arc<dyn AddressSpace>> {
    let space = platform()?.new_address_space().expect("an address space");
    let all = Prot::READ | Prot::WRITE;
    let len = (code.len() as u64).next_multiple_of(PAGE_SIZE);
    space
        .apply(
            None,
            &[
                Change::MapAnonymous { addr: CODE, len, prot: Prot::READ | Prot::EXEC },
                Change::MapAnonymous { addr: DATA, len: DATA_SIZE, prot: all },
            ],
        )
        .expect("mappings");
    assert_eq!(space.poke(CODE, code), Ok(code.len()));
    Some(space)
}

/// A context at the start of the code.
pub fn context() -> Context {
    let mut context = Context::default();
    context.regs.rip = CODE;
    context.regs.rsp = STACK;
    context
}

/// A thread that starts with `context`.
pub fn thread(space: &Arc<dyn AddressSpace>, context: &Context) -> Box<dyn Thread> {
    space.clone().new_thread(context).expect("a thread")
}

/// Process and thread id of a stub thread.
pub fn host_ids(thread: &mut dyn Thread) -> (i32, i32) {
    thread.as_any().downcast_ref::<Guest>().expect("a thread of this platform").host_ids()
}

/// Where the stub has a thread's frame.
pub fn frame_address(thread: &mut dyn Thread) -> u64 {
    thread.as_any().downcast_ref::<Guest>().expect("a thread of this platform").frame_address()
}

/// A small generator of numbers for tests (xorshift).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A time below `limit`.
    pub fn time(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.next() % limit.as_nanos() as u64)
    }
}

/// Calls `act` again and again on another thread while `work` runs.
pub fn meanwhile<T>(mut act: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                act();
            }
        });
        struct Stop<'a>(&'a std::sync::atomic::AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        work()
    })
}

/// Patches the site of the call that the thread is in.
pub fn patch(space: &Arc<dyn AddressSpace>, thread: &mut dyn Thread, ip: u64) -> platform::Result<()> {
    let mapped = space.clone();
    let mut place = |addr: u64| {
        let prot = Prot::READ | Prot::EXEC;
        let is_free = mapped.resident(addr, &mut [0]).is_err();
        is_free && mapped.apply(None, &[Change::MapAnonymous { addr, len: PATCH_AREA, prot }]).is_ok()
    };
    space.patch(thread, ip, &mut place)
}
