//! The ports and connections of TCP in a network namespace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use parking_lot::Mutex;

use super::TcpSocket;
use crate::net::inet::Endpoint;
use crate::net::inet::ports::{Binding, Ports, Sharing};
use crate::time::Clock;

/// How long a port that a connection has left is kept from those who do not share it (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: u64 = 60_000_000_000;

/// A connection's share in the port of its listener, or a memory of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    port: u16,
    ip: IpAddr,
    uid: u32,
    reuse: bool,
    reuse_port: bool,
}

impl Share {
    /// Of a connection.
    pub fn of(socket: &TcpSocket, local: Endpoint, uid: u32) -> Share {
        let sharing = Sharing::of(socket);
        Share { port: local.port, ip: local.ip, uid, reuse: sharing.reuse, reuse_port: sharing.reuse_port }
    }
}

struct Shared {
    share: Share,
    /// Connections.
    count: usize,
    /// The end of the last one's time wait.
    until: u64,
}

#[derive(Default)]
pub(super) struct Inner {
    pub ports: Ports<TcpSocket>,
    connections: HashMap<(Endpoint, Endpoint), Weak<TcpSocket>>,
    shared: HashMap<u16, Vec<Shared>>,
    /// Whose turn it is among listeners that share a port.
    pub turn: usize,
    /// Entries of `shared` when the old ones were last thrown out.
    swept: usize,
}

/// The table.
#[derive(Default)]
pub struct Table(pub(super) Mutex<Inner>);

impl Table {
    /// Every connection, listener and bound socket.
    pub fn all(&self) -> Vec<Arc<TcpSocket>> {
        let inner = self.0.lock();
        let mut all = inner.ports.all();
        let mut connections: Vec<_> =
            inner.connections.iter().filter_map(|(key, weak)| Some((*key, weak.upgrade()?))).collect();
        drop(inner);
        connections.sort_by_key(|(key, _)| *key);
        let bound: std::collections::HashSet<_> = all.iter().map(Arc::as_ptr).collect();
        all.extend(connections.into_iter().map(|(_, s)| s).filter(|s| !bound.contains(&Arc::as_ptr(s))));
        all
    }
}

impl Inner {
    /// May the socket have the port? EADDRINUSE.
    pub fn check(&self, port: u16, binding: &Binding, sharing: Sharing, socket: &TcpSocket) -> Result<()> {
        self.ports.check(port, binding, sharing, socket)?;
        let now = Clock::default().monotonic();
        let conflicts = |s: &Shared| {
            let theirs = Binding { ip: s.share.ip, dual: false, uid: s.share.uid, chosen: true };
            let other = Sharing { reuse: s.share.reuse, reuse_port: s.share.reuse_port, listening: false };
            // A listener may come back while its connections live, if all agreed to reuse.
            let own = Sharing { listening: false, ..sharing };
            (s.count > 0 || s.until > now)
                && theirs.overlaps(binding)
                && !own.allows(binding, &other, &theirs)
        };
        if self.shared.get(&port).into_iter().flatten().any(conflicts) {
            return Err(Errno::EADDRINUSE);
        }
        Ok(())
    }

    /// Enters a connection. EADDRNOTAVAIL if there is one between the same endpoints.
    pub fn connect(&mut self, local: Endpoint, remote: Endpoint, socket: &Weak<TcpSocket>) -> Result<()> {
        if self.is_connected(local, remote) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.connections.insert((local, remote), socket.clone());
        Ok(())
    }

    /// Is there a connection between these?
    pub fn is_connected(&self, local: Endpoint, remote: Endpoint) -> bool {
        self.connections.get(&(local, remote)).is_some_and(|weak| weak.strong_count() > 0)
    }

    /// Takes a connection out.
    pub fn disconnect(&mut self, local: Endpoint, remote: Endpoint, socket: &TcpSocket) {
        let key = (local, remote);
        if self.connections.get(&key).is_some_and(|weak| std::ptr::eq(weak.as_ptr(), socket)) {
            self.connections.remove(&key);
        }
    }

    fn shared(&mut self, share: Share) -> &mut Shared {
        let shares = self.shared.entry(share.port).or_default();
        let index = shares.iter().position(|s| s.share == share).unwrap_or_else(|| {
            shares.push(Shared { share, count: 0, until: 0 });
            shares.len() - 1
        });
        &mut shares[index]
    }

    /// A connection shares its listener's port.
    pub fn share(&mut self, share: Share) {
        self.shared(share).count += 1;
    }

    /// It does no longer.
    pub fn unshare(&mut self, share: Share) {
        let shared = self.shared(share);
        shared.count = shared.count.saturating_sub(1);
        self.sweep();
    }

    /// A connection has ended here first: its port is left alone for a while.
    pub fn time_wait(&mut self, share: Share) {
        self.shared(share).until = Clock::default().monotonic() + TIME_WAIT;
        self.sweep();
    }

    fn sweep(&mut self) {
        if self.shared.len() < 2 * self.swept + 64 {
            return;
        }
        let now = Clock::default().monotonic();
        self.shared.retain(|_, shares| {
            shares.retain(|s| s.count > 0 || s.until > now);
            !shares.is_empty()
        });
        self.swept = self.shared.len();
    }
}
