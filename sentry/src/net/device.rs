//! The loopback device: its state, its addresses, and the ioctls on devices (netdevice(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use abi::capability::CAP_NET_ADMIN;
use abi::inet::SockaddrIn;
use abi::netdevice::{self as n, ARPHRD_LOOPBACK, IFNAMSIZ, IfFlags, Ifconf, Ifreq};
use abi::netlink::{RT_SCOPE_HOST, RT_SCOPE_UNIVERSE};
use abi::socket::AF_INET;
use abi::{Errno, Result};
use parking_lot::RwLock;
use zerocopy::{FromBytes, IntoBytes};

use super::NetNamespace;
use crate::task::CurrentTask;

/// The name of the device.
pub const NAME: &[u8] = b"lo";

/// Its index.
pub const INDEX: i32 = 1;

/// Its MTU.
pub const MTU: u32 = 65536;

/// `txqueuelen`
pub const QUEUE_LEN: i32 = 1000;

/// The most addresses it may have.
const ADDRESSES_MAX: usize = 1024;

/// An address of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
}

impl Address {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            // On a loopback device, the whole network is local.
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = netmask(self.prefix);
                own.to_bits() & mask == ip.to_bits() & mask
            }
            (own, ip) => own == ip,
        }
    }
}

fn netmask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

#[derive(Default)]
struct State {
    up: bool,
    addresses: Vec<Address>,
}

/// The device `lo`.
#[derive(Default)]
pub struct Loopback(RwLock<State>);

impl Loopback {
    /// A device that is down.
    pub fn new() -> Loopback {
        Loopback::default()
    }

    /// Brings it up, with 127.0.0.1 and ::1, or down.
    pub fn set_up(&self, up: bool) {
        let mut state = self.0.write();
        state.up = up;
        if !up {
            state.addresses.retain(|a| a.ip.is_ipv4());
            return;
        }
        if state.addresses.is_empty() {
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            state.addresses.push(Address { ip, prefix: 8, scope: RT_SCOPE_HOST });
        }
        let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
        if !state.addresses.iter().any(|a| a.ip == ip) {
            state.addresses.push(Address { ip, prefix: 128, scope: RT_SCOPE_HOST });
        }
    }

    /// Is it up?
    pub fn is_up(&self) -> bool {
        self.0.read().up
    }

    /// `ifi_flags`
    pub fn flags(&self) -> IfFlags {
        if self.is_up() {
            IfFlags::IFF_UP | IfFlags::IFF_LOOPBACK | IfFlags::IFF_RUNNING | IfFlags::IFF_LOWER_UP
        } else {
            IfFlags::IFF_LOOPBACK
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.read().addresses.clone()
    }

    /// Adds an address. EEXIST.
    pub fn add_address(&self, ip: IpAddr, prefix: u8, scope: u8) -> Result<()> {
        let mut state = self.0.write();
        if state.addresses.iter().any(|a| (a.ip, a.prefix) == (ip, prefix)) {
            return Err(Errno::EEXIST);
        }
        if state.addresses.len() >= ADDRESSES_MAX {
            return Err(Errno::ENOBUFS);
        }
        state.addresses.push(Address { ip, prefix, scope });
        Ok(())
    }

    /// Removes an address. EADDRNOTAVAIL.
    pub fn remove_address(&self, ip: IpAddr, prefix: Option<u8>) -> Result<()> {
        let mut state = self.0.write();
        let matches = |a: &Address| a.ip == ip && prefix.is_none_or(|p| p == a.prefix);
        let index = state.addresses.iter().position(matches).ok_or(Errno::EADDRNOTAVAIL)?;
        state.addresses.remove(index);
        Ok(())
    }

    /// Can a socket be bound to the address?
    pub fn is_local(&self, ip: IpAddr) -> bool {
        let state = self.0.read();
        // Local routes of a device that is down are gone, but the addresses count as its own.
        state.addresses.iter().any(|a| a.ip == ip || state.up && a.contains(ip))
    }

    /// The source address for a destination. ENETUNREACH if there is no way.
    pub fn route(&self, to: IpAddr) -> Result<IpAddr> {
        let state = self.0.read();
        if !state.up {
            return Err(Errno::ENETUNREACH);
        }
        let found = state.addresses.iter().filter(|a| a.contains(to)).max_by_key(|a| (a.prefix, a.ip == to));
        found.map(|a| a.ip).ok_or(Errno::ENETUNREACH)
    }

    /// The index of a device.
    pub fn index_of(&self, name: &[u8]) -> Option<i32> {
        (name == NAME).then_some(INDEX)
    }

    /// The name of a device.
    pub fn name_of(&self, index: i32) -> Option<&'static [u8]> {
        (index == INDEX).then_some(NAME)
    }
}

fn socket_address(ip: Ipv4Addr) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(SockaddrIn::from(SocketAddrV4::new(ip, 0)).as_bytes());
    bytes
}

fn word(value: i32) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&value.to_ne_bytes());
    bytes
}

fn configuration(task: &CurrentTask, net: &NetNamespace, arg: u64) -> Result<u64> {
    let mut conf: Ifconf = task.mm().read_object(arg)?;
    let entry = size_of::<Ifreq>();
    let mut entries = Vec::new();
    for address in net.device.addresses() {
        if let IpAddr::V4(ip) = address.ip {
            let mut ifr = Ifreq { ifr_ifru: socket_address(ip), ..Ifreq::default() };
            ifr.ifr_name[..NAME.len()].copy_from_slice(NAME);
            entries.push(ifr);
        }
    }
    if conf.ifc_buf == 0 {
        conf.ifc_len = (entries.len() * entry) as i32;
    } else {
        let room = usize::try_from(conf.ifc_len).map_err(|_| Errno::EINVAL)? / entry;
        entries.truncate(room);
        task.mm().write_bytes(conf.ifc_buf, entries.as_bytes())?;
        conf.ifc_len = (entries.len() * entry) as i32;
    }
    task.mm().write_object(arg, &conf)?;
    Ok(0)
}

/// The ioctls on devices, which every socket takes. ENOTTY for others.
pub(super) fn ioctl(task: &CurrentTask, net: &NetNamespace, request: u32, arg: u64) -> Result<u64> {
    match request {
        n::SIOCGIFCONF => return configuration(task, net, arg),
        n::SIOCADDRT | n::SIOCDELRT | n::SIOCSARP | n::SIOCDARP | n::SIOCGARP => {
            if request != n::SIOCGARP && !net.capable(task, CAP_NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            return Err(if request == n::SIOCGARP { Errno::ENXIO } else { Errno::EOPNOTSUPP });
        }
        n::SIOCGIFNAME..=n::SIOCSIFMAP => {}
        _ => return Err(Errno::ENOTTY),
    }
    let mut ifr: Ifreq = task.mm().read_object(arg)?;
    let device = &net.device;
    if request == n::SIOCGIFNAME {
        let index = i32::read_from_prefix(&ifr.ifr_ifru).map_or(0, |(index, _)| index);
        let name = device.name_of(index).ok_or(Errno::ENODEV)?;
        ifr.ifr_name = [0; IFNAMSIZ];
        ifr.ifr_name[..name.len()].copy_from_slice(name);
        task.mm().write_object(arg, &ifr)?;
        return Ok(0);
    }
    ifr.ifr_name[IFNAMSIZ - 1] = 0;
    let name = ifr.ifr_name.split(|&c| c == 0).next().unwrap_or_default();
    device.index_of(name).ok_or(Errno::ENODEV)?;
    let v4 = device.addresses().into_iter().find_map(|a| match a.ip {
        IpAddr::V4(ip) => Some((ip, a.prefix)),
        IpAddr::V6(_) => None,
    });
    let v4 = v4.ok_or(Errno::EADDRNOTAVAIL);
    ifr.ifr_ifru = match request {
        n::SIOCGIFFLAGS => word(i32::from(device.flags().bits() as u16)),
        n::SIOCGIFADDR | n::SIOCGIFDSTADDR => socket_address(v4?.0),
        n::SIOCGIFNETMASK => socket_address(Ipv4Addr::from_bits(netmask(v4?.1))),
        n::SIOCGIFBRDADDR => v4.map(|_| socket_address(Ipv4Addr::UNSPECIFIED))?,
        n::SIOCGIFMETRIC => word(0),
        n::SIOCGIFMTU => word(MTU as i32),
        n::SIOCGIFHWADDR => word(ARPHRD_LOOPBACK.into()),
        n::SIOCGIFINDEX => word(INDEX),
        n::SIOCGIFTXQLEN => word(QUEUE_LEN),
        n::SIOCGIFMAP => [0; 24],
        n::SIOCSIFFLAGS | n::SIOCSIFADDR if !net.capable(task, CAP_NET_ADMIN) => return Err(Errno::EPERM),
        n::SIOCSIFFLAGS => {
            device.set_up(ifr.ifr_ifru[0] & IfFlags::IFF_UP.bits() as u8 != 0);
            return Ok(0);
        }
        n::SIOCSIFADDR => {
            let (addr, _) = SockaddrIn::read_from_prefix(&ifr.ifr_ifru).map_err(|_| Errno::EINVAL)?;
            if addr.sin_family != AF_INET {
                return Err(Errno::EINVAL);
            }
            let ip = Ipv4Addr::from(addr.sin_addr);
            let (prefix, scope) = if ip.is_loopback() { (8, RT_SCOPE_HOST) } else { (32, RT_SCOPE_UNIVERSE) };
            return device.add_address(ip.into(), prefix, scope).map(|()| 0);
        }
        n::SIOCETHTOOL | n::SIOCGIFMEM | n::SIOCGIFENCAP => return Err(Errno::EOPNOTSUPP),
        n::SIOCGIFCOUNT | n::SIOCGIFPFLAGS => return Err(Errno::EINVAL),
        n::SIOCGMIIPHY | n::SIOCGMIIREG => return Err(Errno::EOPNOTSUPP),
        _ if !net.capable(task, CAP_NET_ADMIN) => return Err(Errno::EPERM),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    task.mm().write_object(arg, &ifr)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_decide_what_is_reachable() {
        let lo = Loopback::new();
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(lo.route(home), Err(Errno::ENETUNREACH));
        lo.set_up(true);
        assert_eq!(lo.route("127.9.8.7".parse().unwrap()), Ok(home));
        assert_eq!(lo.route("::1".parse().unwrap()), Ok("::1".parse().unwrap()));
        assert_eq!(lo.route("10.0.0.1".parse().unwrap()), Err(Errno::ENETUNREACH));
        assert!(lo.is_local("127.9.8.7".parse().unwrap()) && !lo.is_local("::2".parse().unwrap()));
        lo.add_address("10.0.0.1".parse().unwrap(), 24, 0).unwrap();
        assert_eq!(lo.route("10.0.0.9".parse().unwrap()), Ok("10.0.0.1".parse().unwrap()));
        assert_eq!(lo.add_address("10.0.0.1".parse().unwrap(), 24, 0), Err(Errno::EEXIST));
        lo.remove_address("10.0.0.1".parse().unwrap(), None).unwrap();
        assert_eq!(lo.remove_address("10.0.0.1".parse().unwrap(), None), Err(Errno::EADDRNOTAVAIL));
        lo.set_up(false);
        assert_eq!(lo.route(home), Err(Errno::ENETUNREACH));
        assert_eq!(lo.addresses().len(), 1);
    }
}
