//! The entries of a directory, by name and in the order of a listing.
//!
//! Each entry has a number that grows with time and stays as long as the entry is there: the offset of a listing. So
//! whatever comes and goes meanwhile, an entry that stays is listed once (libfs.c's offset directories).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::TmpInode;

/// Offsets before the first entry's: `.` and `..`.
const FIRST: u64 = 2;

struct Slot {
    offset: u64,
    inode: Arc<TmpInode>,
}

/// The entries of a directory.
#[derive(Default)]
pub struct Entries {
    by_name: HashMap<Arc<[u8]>, Slot>,
    by_offset: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
}

impl Entries {
    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The offset that the next new entry gets: listings that began before need not go on to it.
    pub fn end(&self) -> u64 {
        self.next.max(FIRST)
    }

    /// Finds a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        self.by_name.get(name).map(|slot| &slot.inode)
    }

    /// Enters a name. If it is taken, the new inode takes over its place, and the old one is returned.
    pub fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        if let Some(slot) = self.by_name.get_mut(name) {
            return Some(std::mem::replace(&mut slot.inode, inode));
        }
        let offset = self.end();
        self.next = offset + 1;
        let name: Arc<[u8]> = name.into();
        self.by_offset.insert(offset, name.clone());
        self.by_name.insert(name, Slot { offset, inode });
        None
    }

    /// Removes a name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let slot = self.by_name.remove(name)?;
        self.by_offset.remove(&slot.offset);
        if self.by_name.capacity() > 64 && self.by_name.capacity() / 8 > self.by_name.len() {
            self.by_name.shrink_to_fit();
        }
        Some(slot.inode)
    }

    /// The first entry from `offset` on, with its offset.
    #[allow(clippy::type_complexity, reason = "a triple of references")]
    pub fn from(&self, offset: u64) -> Option<(u64, &Arc<[u8]>, &Arc<TmpInode>)> {
        let (&at, name) = self.by_offset.range(offset..).next()?;
        Some((at, name, self.get(name)?))
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<Arc<TmpInode>> {
        self.by_offset.clear();
        std::mem::take(&mut self.by_name).into_values().map(|slot| slot.inode).collect()
    }
}
