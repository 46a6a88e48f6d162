//! Memory of files that were removed goes back to the host, also from the middle of the heap.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How much is freed before it is worth the trouble, in bytes.
const WORTH: u64 = 16 << 20;

/// How long is waited: what is freed now may be wanted again at once.
const PAUSE: Duration = Duration::from_secs(2);

static FREED: AtomicU64 = AtomicU64::new(0);
static PENDING: AtomicBool = AtomicBool::new(false);

/// So many bytes of the heap were freed.
pub(super) fn freed(bytes: u64) {
    if FREED.fetch_add(bytes, Ordering::Relaxed) + bytes < WORTH || PENDING.swap(true, Ordering::AcqRel) {
        return;
    }
    // There is a thread only while there is something to do.
    let give_back = || {
        std::thread::sleep(PAUSE);
        PENDING.store(false, Ordering::Release);
        FREED.store(0, Ordering::Relaxed);
        platform::heap::give_back();
    };
    let started = std::thread::Builder::new().name("heap".into()).stack_size(128 * 1024).spawn(give_back);
    if started.is_err() {
        PENDING.store(false, Ordering::Release);
    }
}
