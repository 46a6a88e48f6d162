//! Inodes and open files that the host's kernel refers to by numbers.

use std::collections::HashMap;
use std::sync::Arc;

use abi::fuse::FUSE_ROOT_ID;
use abi::{Errno, Result};

use crate::vfs::{File, Path};

/// How many inodes there may be at a time: a kernel forgets what it does not use, and then these are the directories
/// that somebody is in, and what they lead to.
const NODES_MAX: usize = 64 * 1024;
/// How many open files.
const FILES_MAX: usize = 4096;

/// A mount and a dentry. The number is of no other as long as the place is remembered.
type Key = (u32, usize);

fn key(place: &Path) -> Key {
    (place.mount().id(), Arc::as_ptr(place.dentry()).cast::<()>() as usize)
}

struct Node {
    place: Path,
    /// How many answers have named it, less those that were forgotten.
    lookups: u64,
}

/// What the host's kernel refers to.
#[derive(Default)]
pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<Key, u64>,
    files: HashMap<u64, Arc<File>>,
    /// The last number given away. None is given twice.
    last: u64,
    /// What the answer under way names: an inode, an open file.
    named: (Option<u64>, Option<u64>),
}

impl Nodes {
    /// A request begins.
    pub fn begin(&mut self) {
        self.named = (None, None);
    }

    /// The answer to the last request did not arrive.
    pub fn undo(&mut self) {
        let (node, file) = std::mem::take(&mut self.named);
        if let Some(node) = node {
            self.forget(node, 1);
        }
        if let Some(file) = file {
            self.close(file);
        }
    }

    fn next(&mut self) -> u64 {
        self.last = self.last.max(FUSE_ROOT_ID) + 1;
        self.last
    }

    /// The number of a place, which is named once more. ENOMEM if there are too many.
    pub fn name(&mut self, place: &Path) -> Result<u64> {
        let key = key(place);
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None if self.nodes.len() >= NODES_MAX => return Err(Errno::ENOMEM),
            None => {
                let number = self.next();
                self.numbers.insert(key, number);
                self.nodes.insert(number, Node { place: place.clone(), lookups: 0 });
                number
            }
        };
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_add(1);
        }
        self.named.0 = Some(number);
        Ok(number)
    }

    /// The place of a number other than the root's. ESTALE if it is forgotten.
    pub fn place(&self, number: u64) -> Result<Path> {
        self.nodes.get(&number).map(|node| node.place.clone()).ok_or(Errno::ESTALE)
    }

    /// That many answers about a number are forgotten.
    pub fn forget(&mut self, number: u64, count: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&key(&node.place));
        }
    }

    /// ENFILE if there are too many open files.
    pub fn check_room(&self) -> Result<()> {
        if self.files.len() >= FILES_MAX { Err(Errno::ENFILE) } else { Ok(()) }
    }

    /// The number of a file that was opened.
    pub fn opened(&mut self, file: Arc<File>) -> u64 {
        let number = self.next();
        self.files.insert(number, file);
        self.named.1 = Some(number);
        number
    }

    /// The open file of a number. EBADF.
    pub fn file(&self, number: u64) -> Result<&Arc<File>> {
        self.files.get(&number).ok_or(Errno::EBADF)
    }

    /// The host's kernel has closed it.
    pub fn close(&mut self, number: u64) {
        self.files.remove(&number);
    }

    #[cfg(test)]
    pub fn count(&self) -> (usize, usize) {
        (self.nodes.len(), self.files.len())
    }
}
