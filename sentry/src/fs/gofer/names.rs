//! Which names a directory of the host has, so that most of those that it has not cost no request.
//!
//! Programs look for a name in one directory after the other, and make files where there were none. Once some look-ups
//! in a directory have failed, it is listed, and further ones are answered here. This is for exclusive mode only.
//! Hashes are kept, not names: where two collide, the host is asked, as it is for every name that may exist. Names are
//! only ever added, so a removed one costs a request, too.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// How many look-ups fail before a directory is listed.
const MISSES: u32 = 16;

/// How many names a directory may have to be remembered.
const MOST: usize = 4096;

/// How many names are remembered in all directories of a filesystem, of about 16 bytes each.
const BUDGET: usize = 128 * 1024;

/// What all directories of a filesystem share.
#[derive(Default)]
pub(super) struct Hashing {
    state: RandomState,
    kept: AtomicUsize,
}

/// The names of one directory.
#[derive(Default)]
pub(super) struct Names(Mutex<State>);

#[derive(Default)]
struct State {
    misses: u32,
    /// How many names were added: a listing that was made meanwhile may lack one.
    added: u64,
    hashes: Option<HashSet<u64>>,
}

/// A listing in the making.
pub(super) struct Listing {
    added: u64,
    hashes: HashSet<u64>,
}

impl Names {
    /// True if there is certainly no such name.
    pub fn lack(&self, hashing: &Hashing, name: &[u8]) -> bool {
        // Longer ones are errors of another kind.
        name.len() <= 255
            && self
                .0
                .lock()
                .hashes
                .as_ref()
                .is_some_and(|known| !known.contains(&hashing.state.hash_one(name)))
    }

    /// A look-up has failed. The directory is to be listed now if this returns something.
    pub fn missed(&self) -> Option<Listing> {
        let mut state = self.0.lock();
        if state.misses >= MISSES {
            return None;
        }
        state.misses += 1;
        (state.misses == MISSES).then(|| Listing { added: state.added, hashes: HashSet::new() })
    }

    /// A name was made.
    pub fn add(&self, hashing: &Hashing, name: &[u8]) {
        let mut state = self.0.lock();
        state.added += 1;
        if let Some(known) = &mut state.hashes
            && known.insert(hashing.state.hash_one(name))
        {
            hashing.kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The directory was listed to its end.
    pub fn listed(&self, hashing: &Hashing, listing: Listing) {
        let mut state = self.0.lock();
        let count = listing.hashes.len();
        if state.added != listing.added {
            state.misses = 0;
        } else if state.hashes.is_none() && hashing.kept.load(Ordering::Relaxed) + count <= BUDGET {
            hashing.kept.fetch_add(count, Ordering::Relaxed);
            state.hashes = Some(listing.hashes);
        }
    }

    /// The directory is forgotten.
    pub fn let_go(&mut self, hashing: &Hashing) {
        if let Some(known) = self.0.get_mut().hashes.take() {
            hashing.kept.fetch_sub(known.len(), Ordering::Relaxed);
        }
    }
}

impl Listing {
    /// Takes note of a name; false if there are too many.
    pub fn add(&mut self, hashing: &Hashing, name: &[u8]) -> bool {
        self.hashes.insert(hashing.state.hash_one(name));
        self.hashes.len() <= MOST
    }
}
