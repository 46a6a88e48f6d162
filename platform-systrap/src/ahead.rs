//! Address spaces made ahead of need: a stub process with a thread in it, forked while the program that is loaded into the
//! last one already runs.
//!
//! The first is made when a third address space is asked for: a container's start asks for two, and a sandbox of one program
//! shall have none ahead. Nothing wakes while nobody asks.

use crate::Host;
use crate::patch::Patches;
use crate::space::Space;
use parking_lot::{Condvar, Mutex};
use platform::Result;
use platform::stub::StubProcess;
use std::sync::Arc;

/// Says which process, with an empty address space, to fork.
pub(crate) type Parent = Box<dyn Fn() -> Result<Arc<StubProcess>> + Send + Sync>;

/// Address spaces that are asked for before one is made ahead.
const FIRST: usize = 2;

/// See the module.
pub(crate) struct Ahead(Arc<Shared>);

struct Shared {
    host: Arc<Host>,
    parent: Parent,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many were asked for.
    asked: usize,
    ready: Option<Arc<Space>>,
    is_wanted: bool,
    has_thread: bool,
    is_over: bool,
}

impl Ahead {
    /// Of copies of the process that `parent` names.
    pub fn new(host: Arc<Host>, parent: Parent) -> Self {
        Self(Arc::new(Shared { host, parent, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// An empty address space.
    pub fn take(&self) -> Result<Arc<Space>> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        let ready = state.ready.take();
        state.asked = state.asked.saturating_add(1);
        if state.asked > FIRST && !state.is_over {
            state.is_wanted = true;
            if !std::mem::replace(&mut state.has_thread, true) {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name("systrap-ahead".into());
                // Without, each is made when it is needed.
                if let Err(error) = thread.stack_size(128 * 1024).spawn(move || shared.run()) {
                    tracing::debug!(%error, "no thread for stub processes ahead of need");
                }
            }
            shared.changed.notify_one();
        }
        drop(state);
        match ready {
            Some(space) if space.process.state().death().is_none() => Ok(space),
            _ => shared.make(),
        }
    }

    /// No more, and not the one that there is.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_over = true;
        self.0.changed.notify_one();
        let ready = state.ready.take();
        drop(state);
        drop(ready);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn make(&self) -> Result<Arc<Space>> {
        Ok(Arc::new(Space::new(self.host.clone(), &*(self.parent)()?, Patches::default())?))
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            if !std::mem::take(&mut state.is_wanted) || state.ready.is_some() {
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            let made = self.make();
            state = self.state.lock();
            match made {
                Ok(space) if !state.is_over => state.ready = Some(space),
                Ok(_) => {}
                Err(errno) => tracing::debug!(?errno, "making a stub process ahead of need"),
            }
        }
    }
}
