//! Sockets of ICMP echo: SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6 (icmp(7), net/ipv4/ping.c). They are datagram
//! sockets whose port is the identifier; this host answers.

use abi::inet::{ICMP_ECHO, ICMP_ECHOREPLY, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST};
use abi::{Errno, Result};

use crate::net::NetNamespace;
use crate::parameters::PING_GROUP_RANGE;
use crate::task::Task;

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// May the task have such a socket? EACCES.
pub(super) fn check(task: &Task, net: &NetNamespace) -> Result<()> {
    let creds = task.credentials();
    let range = PING_GROUP_RANGE.values(&net.parameters);
    let allowed = |gid: u32| matches!(range[..], [first, last] if (first..=last).contains(&gid.into()));
    if allowed(creds.egid) || creds.groups.iter().any(|&gid| allowed(gid)) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// The answer to a request that a socket with this identifier sends. EINVAL if it is none.
pub(super) fn answer(mut request: Vec<u8>, v6: bool, identifier: u16) -> Result<Vec<u8>> {
    let (echo, reply) =
        if v6 { (ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY) } else { (ICMP_ECHO, ICMP_ECHOREPLY) };
    let header = request.first_chunk_mut::<HEADER>().ok_or(Errno::EINVAL)?;
    if header[0] != echo || header[1] != 0 {
        return Err(Errno::EINVAL);
    }
    header[0] = reply;
    header[2..4].fill(0);
    header[4..6].copy_from_slice(&identifier.to_be_bytes());
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(request)
}

fn checksum(data: &[u8]) -> u16 {
    let (pairs, rest) = data.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    let mut sum = sum + rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_data_and_a_right_checksum() {
        let request = [8, 0, 0, 0, 0, 0, 0, 7, b'a', b'b', b'c'].to_vec();
        let reply = answer(request.clone(), false, 0x1234).unwrap();
        assert_eq!((reply[0], &reply[4..]), (0, &[0x12, 0x34, 0, 7, b'a', b'b', b'c'][..]));
        assert_eq!(checksum(&reply), 0);
        assert_eq!(answer(request.clone(), true, 1), Err(Errno::EINVAL));
        assert_eq!(answer(request[..7].to_vec(), false, 1), Err(Errno::EINVAL));
    }
}
