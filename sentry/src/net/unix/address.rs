//! Names of Unix sockets: paths, and abstract names of a network namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::socket::AF_UNIX;
use abi::{Errno, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::UnixSocket;
use crate::net::socket::{RawAddress, address_family};

/// The longest `sun_path`.
const PATH_LEN: usize = 108;

/// The name that a socket is bound to, as `sun_path`: a path with its NUL, or an abstract name with its leading NUL.
#[derive(Debug, PartialEq, Eq)]
pub struct UnixAddress(Vec<u8>);

impl UnixAddress {
    /// From the `struct sockaddr_un` of a guest (unix_validate_addr()). EINVAL for a bad length, an empty name or
    /// another family.
    pub fn parse(addr: &[u8]) -> Result<UnixAddress> {
        let Some(name) = addr.get(2..).filter(|n| !n.is_empty() && n.len() <= PATH_LEN) else {
            return Err(Errno::EINVAL);
        };
        if address_family(addr)? != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        if name[0] == 0 {
            return Ok(UnixAddress(name.to_vec()));
        }
        let mut path: Vec<u8> = name.iter().copied().take_while(|&c| c != 0).collect();
        path.push(0);
        Ok(UnixAddress(path))
    }

    /// An abstract name; `name` begins with NUL.
    pub fn from_abstract(name: Vec<u8>) -> UnixAddress {
        UnixAddress(name)
    }

    /// Is it an abstract name?
    pub fn is_abstract(&self) -> bool {
        self.0.first() == Some(&0)
    }

    /// The path without its NUL.
    pub fn path(&self) -> &[u8] {
        self.0.split_last().map_or(&[], |(_, path)| path)
    }

    /// The name as in `sun_path`.
    pub fn name(&self) -> &[u8] {
        &self.0
    }

    /// As `struct sockaddr_un`.
    pub fn raw(&self) -> RawAddress {
        let mut raw = unnamed();
        raw.extend_from_slice(&self.0);
        raw
    }
}

/// The address of a socket without a name: only the family.
pub fn unnamed() -> RawAddress {
    SmallVec::from_slice(&AF_UNIX.to_ne_bytes())
}

/// Sockets by type and abstract name.
type Abstract = HashMap<(u32, Vec<u8>), Weak<UnixSocket>>;

/// The Unix sockets of a network namespace.
#[derive(Default)]
pub struct Names {
    /// Abstract names, with the type of the socket: types do not share them.
    bound: Mutex<Abstract>,
    /// All sockets, for `/proc/net/unix`.
    all: Mutex<BTreeMap<u64, Weak<UnixSocket>>>,
    next_id: AtomicU64,
    next_name: AtomicU32,
}

impl Names {
    /// Enters a new socket; returns what to call [`Names::leave`] with.
    pub fn enter(&self, socket: &Weak<UnixSocket>) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.all.lock().insert(id, socket.clone());
        id
    }

    /// A socket is gone.
    pub fn leave(&self, id: u64) {
        self.all.lock().remove(&id);
    }

    /// All sockets, the oldest first.
    pub fn all(&self) -> Vec<Arc<UnixSocket>> {
        self.all.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Binds an abstract name. EADDRINUSE.
    pub fn bind(&self, kind: u32, name: &UnixAddress, socket: &Weak<UnixSocket>) -> Result<()> {
        let mut bound = self.bound.lock();
        let entry = bound.entry((kind, name.0.clone()));
        match entry {
            std::collections::hash_map::Entry::Occupied(mut taken) => {
                if taken.get().strong_count() > 0 {
                    return Err(Errno::EADDRINUSE);
                }
                taken.insert(socket.clone());
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(socket.clone());
            }
        }
        Ok(())
    }

    /// Binds a free abstract name of five hexadecimal digits. ENOSPC when there is none.
    pub fn autobind(&self, kind: u32, socket: &Weak<UnixSocket>) -> Result<UnixAddress> {
        for _ in 0..=0xf_ffff {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
            let name = UnixAddress(format!("\0{number:05x}").into_bytes());
            if self.bind(kind, &name, socket).is_ok() {
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Gives a name up.
    pub fn unbind(&self, kind: u32, name: &UnixAddress) {
        self.bound.lock().remove(&(kind, name.0.clone()));
    }

    /// The socket with a name.
    pub fn find(&self, kind: u32, name: &UnixAddress) -> Option<Arc<UnixSocket>> {
        self.bound.lock().get(&(kind, name.0.clone()))?.upgrade()
    }
}
