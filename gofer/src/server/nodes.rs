//! The table of nodes that a client holds.

use crate::protocol::{FileKind, NodeId};
use abi::{Errno, Result};
use std::os::fd::OwnedFd;

/// An inode held for the client.
pub struct Held {
    /// Its descriptor, as a rule `O_PATH`.
    pub fd: OwnedFd,
    /// Its type, which never changes.
    pub kind: FileKind,
    /// The mount it was reached through.
    pub mount: u16,
}

struct Slot {
    /// How often the slot has been used. Wraps: a client that keeps ids for 2³² uses of a slot confuses itself only.
    generation: u32,
    held: Option<Held>,
}

/// Slots for nodes. The first ones are the roots, which stay.
pub struct Nodes {
    slots: Vec<Slot>,
    free: Vec<u32>,
    roots: u32,
    limit: usize,
}

impl Nodes {
    /// A table for at most `limit` nodes, the roots included.
    pub fn new(limit: usize) -> Nodes {
        Nodes { slots: Vec::new(), free: Vec::new(), roots: 0, limit }
    }

    /// Adds a root, before any other node.
    pub fn insert_root(&mut self, held: Held) -> Result<()> {
        self.insert(held)?;
        self.roots += 1;
        Ok(())
    }

    /// The id of a root.
    pub fn root(&self, index: u32) -> Option<NodeId> {
        (index < self.roots).then_some(NodeId { index, generation: 0 })
    }

    /// Number of nodes held.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// ENFILE if there is no room for another node.
    pub fn room(&self) -> Result<()> {
        if self.len() < self.limit { Ok(()) } else { Err(Errno::ENFILE) }
    }

    /// Adds a node. ENFILE if the table is full.
    pub fn insert(&mut self, held: Held) -> Result<NodeId> {
        self.room()?;
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(index as usize).ok_or(Errno::EIO)?;
            slot.held = Some(held);
            return Ok(NodeId { index, generation: slot.generation });
        }
        let index = u32::try_from(self.slots.len()).map_err(|_| Errno::ENFILE)?;
        self.slots.push(Slot { generation: 0, held: Some(held) });
        Ok(NodeId { index, generation: 0 })
    }

    /// The node of this id. ESTALE if it is not held.
    pub fn get(&self, id: NodeId) -> Result<&Held> {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation);
        slot.and_then(|slot| slot.held.as_ref()).ok_or(Errno::ESTALE)
    }

    /// The node of this id, a directory. ENOTDIR if it is something else.
    pub fn directory(&self, id: NodeId) -> Result<&Held> {
        self.get(id)
            .and_then(|held| if held.kind == FileKind::Directory { Ok(held) } else { Err(Errno::ENOTDIR) })
    }

    /// Removes a node, unless it is a root or not held; true if it was removed.
    pub fn remove(&mut self, id: NodeId) -> bool {
        if id.index < self.roots || self.get(id).is_err() {
            return false;
        }
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            slot.held = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.index);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        let fd = std::fs::File::open("/").unwrap().into();
        Held { fd, kind: FileKind::Directory, mount: 0 }
    }

    #[test]
    fn ids_go_stale_roots_stay_and_the_table_is_bounded() {
        let mut nodes = Nodes::new(3);
        nodes.insert_root(held()).unwrap();
        let root = nodes.root(0).unwrap();
        assert_eq!(nodes.root(1), None);
        let a = nodes.insert(held()).unwrap();
        let b = nodes.insert(held()).unwrap();
        assert_eq!(nodes.insert(held()), Err(Errno::ENFILE));
        assert!(nodes.remove(a) && !nodes.remove(a) && !nodes.remove(root));
        assert_eq!(nodes.get(a).err(), Some(Errno::ESTALE));
        let c = nodes.insert(held()).unwrap();
        assert_eq!(c.index, a.index);
        assert_ne!(c, a);
        assert!(nodes.get(b).is_ok() && nodes.get(c).is_ok() && nodes.get(a).is_err());
        assert_eq!(nodes.len(), 3);
        assert!(size_of::<Slot>() <= 12, "64 Ki nodes must stay below 1 MiB");
    }
}
