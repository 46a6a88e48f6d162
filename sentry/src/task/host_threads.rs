//! Host threads for guest threads. One whose task has ended waits for the next: making and ending a thread of the host
//! takes a stack, a dozen calls and a wake.

use std::sync::mpsc::{Sender, channel};

use abi::{Errno, Result};
use parking_lot::Mutex;

type Work = Box<dyn FnOnce() + Send>;

/// The most that wait.
const IDLE_MAX: usize = 8;
/// Bytes of a stack.
const STACK: usize = 512 * 1024;

/// Those that wait. (Leaf lock.)
static IDLE: Mutex<Vec<Sender<Work>>> = Mutex::new(Vec::new());

/// Does `work` on a thread of its own. EAGAIN if the host has none left.
pub(super) fn run(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut work: Work = Box::new(work);
    loop {
        let idle = IDLE.lock().pop();
        let Some(idle) = idle else { break };
        match idle.send(work) {
            Ok(()) => return Ok(()),
            Err(unsent) => work = unsent.0,
        }
    }
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || live(work))
        .map(drop)
        .map_err(|_| Errno::EAGAIN)
}

fn live(mut work: Work) {
    let (sender, receiver) = channel();
    loop {
        work();
        {
            let mut idle = IDLE.lock();
            if idle.len() >= IDLE_MAX {
                return;
            }
            idle.push(sender.clone());
        }
        match receiver.recv() {
            Ok(next) => work = next,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_used_again_and_few_wait() {
        let (send, receive) = channel();
        for _ in 0..100 {
            let send = send.clone();
            run(move || send.send(std::thread::current().id()).unwrap_or_default()).unwrap();
        }
        let mut ids: Vec<_> = receive.iter().take(100).collect();
        for _ in 0..100 {
            let send = send.clone();
            run(move || send.send(std::thread::current().id()).unwrap_or_default()).unwrap();
            ids.push(receive.recv().unwrap());
        }
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert!(different.len() < 200, "{}", different.len());
        assert!(IDLE.lock().len() <= IDLE_MAX);
    }
}
