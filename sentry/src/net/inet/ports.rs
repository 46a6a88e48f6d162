//! Ports in use, and who may share one (inet_csk_get_port(), udp_lib_get_port()).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use abi::{Errno, Result};

use crate::net::options::Switches;
use crate::net::{NetNamespace, Socket};
use crate::parameters::IP_LOCAL_PORT_RANGE;

/// The ports that are given to those who do not ask for one.
pub fn ephemeral(net: &NetNamespace) -> RangeInclusive<u16> {
    let range = IP_LOCAL_PORT_RANGE.values(&net.parameters);
    let port = |i: usize, default| range.get(i).and_then(|&p| u16::try_from(p).ok()).unwrap_or(default);
    let (first, last) = (port(0, 32_768), port(1, 60_999));
    if first <= last { first..=last } else { last..=first }
}

/// What a socket is bound to, besides the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address; unspecified for any.
    pub ip: IpAddr,
    /// :: without IPV6_V6ONLY: any address of IPv4 too.
    pub dual: bool,
    /// The owner of the socket, for SO_REUSEPORT.
    pub uid: u32,
    /// bind(2) named the port.
    pub chosen: bool,
}

impl Binding {
    /// Are there destinations that both take (inet_rcv_saddr_equal())?
    pub fn overlaps(&self, other: &Binding) -> bool {
        if self.ip.is_ipv4() == other.ip.is_ipv4() {
            return self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified();
        }
        let v6 = if self.ip.is_ipv6() { self } else { other };
        v6.dual && v6.ip.is_unspecified()
    }

    /// How well it suits a destination; `None` if not at all.
    pub fn matches(&self, to: IpAddr) -> Option<u32> {
        if self.ip == to {
            Some(3)
        } else if self.ip.is_unspecified() && self.ip.is_ipv4() == to.is_ipv4() {
            Some(2)
        } else if self.dual && self.ip.is_unspecified() {
            Some(1)
        } else {
            None
        }
    }
}

/// A socket that is bound to a port.
pub struct Entry<S> {
    /// To what.
    pub binding: Binding,
    /// Who.
    pub socket: Weak<S>,
}

impl<S: Socket> Entry<S> {
    fn is(&self, socket: &S) -> bool {
        std::ptr::eq(self.socket.as_ptr(), socket)
    }
}

/// How a new binding gets on with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// SO_REUSEADDR.
    pub reuse: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// A listener, or about to be one: SO_REUSEADDR does not help against it.
    pub listening: bool,
}

impl Sharing {
    /// Of a socket.
    pub fn of(socket: &impl Socket) -> Sharing {
        let common = socket.common();
        Sharing {
            reuse: common.has(Switches::REUSEADDR),
            reuse_port: common.has(Switches::REUSEPORT),
            listening: socket.is_listening(),
        }
    }

    /// May two that overlap live together?
    pub fn allows(&self, binding: &Binding, other: &Sharing, others: &Binding) -> bool {
        self.reuse && other.reuse && !other.listening && !self.listening
            || self.reuse_port && other.reuse_port && binding.uid == others.uid
    }
}

/// The ports of a protocol in a network namespace.
pub struct Ports<S> {
    map: HashMap<u16, Vec<Entry<S>>>,
    next: u16,
}

impl<S> Default for Ports<S> {
    fn default() -> Ports<S> {
        let mut start = [0; 2];
        platform::random::fill(&mut start);
        Ports { map: HashMap::new(), next: u16::from_ne_bytes(start) }
    }
}

impl<S: Socket> Ports<S> {
    /// May the socket have the port? EADDRINUSE.
    pub fn check(&self, port: u16, binding: &Binding, sharing: Sharing, socket: &S) -> Result<()> {
        let conflicts = |entry: &Entry<S>| {
            if entry.is(socket) || !entry.binding.overlaps(binding) {
                return false;
            }
            let Some(other) = entry.socket.upgrade() else { return false };
            !sharing.allows(binding, &Sharing::of(&*other), &entry.binding)
        };
        if self.at(port).iter().any(conflicts) { Err(Errno::EADDRINUSE) } else { Ok(()) }
    }

    /// Enters a socket.
    pub fn enter(&mut self, port: u16, binding: Binding, socket: &Weak<S>) {
        self.map.entry(port).or_default().push(Entry { binding, socket: socket.clone() });
    }

    /// Takes a socket out.
    pub fn leave(&mut self, port: u16, socket: &S) {
        if let Some(entries) = self.map.get_mut(&port) {
            entries.retain(|entry| !entry.is(socket));
            if entries.is_empty() {
                self.map.remove(&port);
            }
        }
    }

    /// A socket's binding got more precise: it was connected; or less, when it was disconnected.
    pub fn rebind(&mut self, port: u16, ip: IpAddr, dual: bool, socket: &S) {
        let entries = self.map.get_mut(&port).into_iter().flatten();
        for entry in entries.filter(|entry| entry.is(socket)) {
            entry.binding.ip = ip;
            entry.binding.dual = dual;
        }
    }

    /// Who is at a port.
    pub fn at(&self, port: u16) -> &[Entry<S>] {
        self.map.get(&port).map_or(&[], Vec::as_slice)
    }

    /// The next port of a range to try.
    pub fn candidate(&mut self, range: &RangeInclusive<u16>) -> u16 {
        let port = range.start() + self.next % range.len().min(u16::MAX as usize) as u16;
        self.next = self.next.wrapping_add(1);
        port
    }

    /// All sockets with their ports.
    pub fn all(&self) -> Vec<Arc<S>> {
        let mut all: Vec<(u16, Arc<S>)> = self
            .map
            .iter()
            .flat_map(|(&port, entries)| entries.iter().map(move |e| (port, e)))
            .filter_map(|(port, entry)| Some((port, entry.socket.upgrade()?)))
            .collect();
        all.sort_by_key(|(port, _)| *port);
        all.into_iter().map(|(_, socket)| socket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(ip: &str, dual: bool) -> Binding {
        Binding { ip: ip.parse().unwrap(), dual, uid: 0, chosen: true }
    }

    #[test]
    fn wildcards_overlap_with_what_they_cover() {
        let any4 = binding("0.0.0.0", false);
        let any6 = binding("::", false);
        let both = binding("::", true);
        let home4 = binding("127.0.0.1", false);
        let other4 = binding("127.0.0.2", false);
        let home6 = binding("::1", false);
        assert!(any4.overlaps(&home4) && !home4.overlaps(&other4) && home4.overlaps(&home4));
        assert!(both.overlaps(&any4) && home4.overlaps(&both) && both.overlaps(&home6));
        assert!(!any6.overlaps(&any4) && !any6.overlaps(&home4) && !home6.overlaps(&any4));
        assert_eq!(home4.matches(home4.ip), Some(3));
        assert_eq!(any4.matches(home4.ip), Some(2));
        assert_eq!(both.matches(home4.ip), Some(1));
        assert_eq!(any6.matches(home4.ip), None);
        assert_eq!(home4.matches(other4.ip), None);
    }

    #[test]
    fn ports_are_shared_by_agreement() {
        let home = binding("127.0.0.1", false);
        let plain = Sharing { reuse: false, reuse_port: false, listening: false };
        let reuse = Sharing { reuse: true, ..plain };
        let listening = Sharing { listening: true, ..reuse };
        let port = Sharing { reuse_port: true, listening: true, ..plain };
        assert!(!plain.allows(&home, &plain, &home) && !reuse.allows(&home, &plain, &home));
        assert!(reuse.allows(&home, &reuse, &home) && !reuse.allows(&home, &listening, &home));
        assert!(port.allows(&home, &port, &home));
        assert!(!port.allows(&home, &port, &Binding { uid: 1, ..home }));
    }
}
