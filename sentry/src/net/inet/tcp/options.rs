//! Options of SOL_TCP, with Linux's defaults and limits.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use abi::capability::CAP_NET_ADMIN;
use abi::inet::{self as t, TCP_CLOSE, TCP_LISTEN, TcpInfo};
use abi::socket::SOL_TCP;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::TcpSocket;
use crate::net::socket::{OptionValue, int_value};
use crate::parameters::{self, Parameter};
use crate::task::Task;

/// The congestion control algorithms on offer: names without a difference where nothing is ever lost.
const CONGESTION: [&[u8]; 2] = [b"cubic", b"reno"];

/// Options that are remembered: name, least and greatest value (0 and 1: any value, as a boolean), default.
const REMEMBERED: &[(i32, i32, i32, i32)] = &[
    (t::TCP_NODELAY, 0, 1, 0),
    (t::TCP_CORK, 0, 1, 0),
    (t::TCP_KEEPIDLE, 1, t::MAX_TCP_KEEPIDLE, 0),
    (t::TCP_KEEPINTVL, 1, t::MAX_TCP_KEEPINTVL, 0),
    (t::TCP_KEEPCNT, 1, t::MAX_TCP_KEEPCNT, 0),
    (t::TCP_SYNCNT, 1, t::MAX_TCP_SYNCNT, 0),
    (t::TCP_THIN_LINEAR_TIMEOUTS, 0, 1, 0),
    (t::TCP_THIN_DUPACK, 0, 1, 0),
    (t::TCP_USER_TIMEOUT, 0, i32::MAX, 0),
    (t::TCP_FASTOPEN, 0, i32::MAX, 0),
    (t::TCP_NOTSENT_LOWAT, i32::MIN, i32::MAX, 0),
    (t::TCP_SAVE_SYN, 0, 2, 0),
    (t::TCP_FASTOPEN_CONNECT, 0, 1, 0),
    (t::TCP_FASTOPEN_NO_COOKIE, 0, 1, 0),
    (t::TCP_TX_DELAY, 0, i32::MAX, 0),
    (t::TCP_RTO_MAX_MS, 1000, 120_000, 120_000),
    (t::TCP_RTO_MIN_US, 5000, 200_000, 200_000),
    (t::TCP_DELACK_MAX_US, 5000, 200_000, 200_000),
    (t::TCP_QUICKACK, 0, 1, 1),
];

/// Options whose default is a kernel parameter.
const TUNABLE: [(i32, &Parameter); 5] = [
    (t::TCP_KEEPIDLE, &parameters::TCP_KEEPALIVE_TIME),
    (t::TCP_KEEPINTVL, &parameters::TCP_KEEPALIVE_INTVL),
    (t::TCP_KEEPCNT, &parameters::TCP_KEEPALIVE_PROBES),
    (t::TCP_SYNCNT, &parameters::TCP_SYN_RETRIES),
    (t::TCP_LINGER2, &parameters::TCP_FIN_TIMEOUT),
];

/// What a segment holds: on the loopback device, half of the window at first.
const SEGMENT: [i32; 2] = [32_741, 32_732];

/// The state of SOL_TCP.
pub(super) struct TcpOptions {
    /// TCP_INQ.
    queue_length: AtomicBool,
    congestion: Mutex<&'static [u8]>,
}

impl Default for TcpOptions {
    fn default() -> TcpOptions {
        TcpOptions { queue_length: AtomicBool::new(false), congestion: Mutex::new(CONGESTION[0]) }
    }
}

impl TcpOptions {
    /// For a connection that a listener makes.
    pub fn inherit(&self) -> TcpOptions {
        TcpOptions {
            queue_length: AtomicBool::new(self.tells_queue_length()),
            congestion: Mutex::new(*self.congestion.lock()),
        }
    }

    /// TCP_INQ.
    pub fn tells_queue_length(&self) -> bool {
        self.queue_length.load(Relaxed)
    }
}

/// How long TCP_DEFER_ACCEPT waits: seconds become a number of retransmissions, and those seconds.
fn defer_accept(seconds: i32) -> i32 {
    const RTO_MAX: i32 = 120;
    let (mut timeout, mut period) = (1, 1);
    let mut count = i32::from(seconds > 0);
    while count > 0 && seconds > period && count < 255 {
        count += 1;
        timeout = (timeout * 2).min(RTO_MAX);
        period += timeout;
    }
    if count == 0 { 0 } else { period }
}

impl TcpSocket {
    pub(super) fn set_tcp_option(&self, task: &Task, name: i32, value: &[u8]) -> Result<()> {
        let common = &self.common;
        let admin = || common.net.capable(task, CAP_NET_ADMIN);
        match name {
            t::TCP_CONGESTION => {
                let wanted = value.split(|&c| c == 0).next().unwrap_or_default();
                if value.is_empty() {
                    return Err(Errno::EINVAL);
                }
                let found = CONGESTION.into_iter().find(|&c| c == wanted).ok_or(Errno::ENOENT)?;
                *self.options.congestion.lock() = found;
                return Ok(());
            }
            t::TCP_ULP => return Err(Errno::ENOENT),
            t::TCP_MD5SIG | t::TCP_MD5SIG_EXT | t::TCP_FASTOPEN_KEY => return Err(Errno::EINVAL),
            _ => {}
        }
        let int = int_value(value)?;
        let stored = match name {
            t::TCP_MAXSEG if int != 0 && !(88..=32767).contains(&int) => return Err(Errno::EINVAL),
            t::TCP_MAXSEG => int,
            t::TCP_LINGER2 if int < 0 => -1,
            t::TCP_LINGER2 => int.min(120),
            t::TCP_DEFER_ACCEPT => defer_accept(int),
            t::TCP_WINDOW_CLAMP if int == 0 && self.phase() != TCP_CLOSE => return Err(Errno::EINVAL),
            t::TCP_WINDOW_CLAMP if int == 0 => 0,
            t::TCP_WINDOW_CLAMP => int.max(1152),
            t::TCP_INQ if !(0..=1).contains(&int) => return Err(Errno::EINVAL),
            t::TCP_INQ => {
                self.options.queue_length.store(int != 0, Relaxed);
                return Ok(());
            }
            // Nothing that could be repaired.
            t::TCP_REPAIR..=t::TCP_REPAIR_OPTIONS | t::TCP_TIMESTAMP | t::TCP_REPAIR_WINDOW => {
                return Err(if admin() { Errno::ENOPROTOOPT } else { Errno::EPERM });
            }
            t::TCP_FASTOPEN if !matches!(self.phase(), TCP_CLOSE | TCP_LISTEN) => {
                return Err(Errno::EINVAL);
            }
            t::TCP_FASTOPEN_CONNECT if self.phase() != TCP_CLOSE => return Err(Errno::EINVAL),
            t::TCP_THIN_LINEAR_TIMEOUTS
            | t::TCP_THIN_DUPACK
            | t::TCP_FASTOPEN_CONNECT
            | t::TCP_FASTOPEN_NO_COOKIE
                if !(0..=1).contains(&int) =>
            {
                return Err(Errno::EINVAL);
            }
            _ => {
                let known = REMEMBERED.iter().find(|(n, ..)| *n == name);
                match known.ok_or(Errno::ENOPROTOOPT)? {
                    (_, 0, 1, _) => i32::from(int != 0),
                    (_, min, max, _) if (min..=max).contains(&&int) => int,
                    _ => return Err(Errno::EINVAL),
                }
            }
        };
        common.remember(SOL_TCP, name, stored);
        Ok(())
    }

    pub(super) fn tcp_option(&self, name: i32, room: usize) -> Result<OptionValue> {
        let remembered =
            |default| Ok(OptionValue::int(self.common.remembered(SOL_TCP, name).unwrap_or(default)));
        match name {
            t::TCP_MAXSEG => match self.phase() {
                TCP_CLOSE | TCP_LISTEN => remembered(536).map(|value| match value {
                    OptionValue::Bytes(bytes) if bytes.iter().all(|&b| b == 0) => OptionValue::int(536),
                    value => value,
                }),
                _ => Ok(OptionValue::int(self.segment())),
            },
            t::TCP_DEFER_ACCEPT => remembered(0),
            t::TCP_WINDOW_CLAMP => remembered(if self.phase() == TCP_CLOSE { 0 } else { 65_536 }),
            t::TCP_INFO => Ok(OptionValue::object(&self.info())),
            t::TCP_CONGESTION => {
                let mut value = [0; t::TCP_CA_NAME_MAX];
                let name = *self.options.congestion.lock();
                value[..name.len()].copy_from_slice(name);
                Ok(OptionValue::bytes(&value))
            }
            t::TCP_ULP | t::TCP_SAVED_SYN | t::TCP_FASTOPEN_KEY => Ok(OptionValue::bytes(&[])),
            t::TCP_REPAIR | t::TCP_IS_MPTCP => Ok(OptionValue::int(0)),
            t::TCP_REPAIR_QUEUE | t::TCP_QUEUE_SEQ | t::TCP_REPAIR_WINDOW => Err(Errno::EINVAL),
            t::TCP_INQ => Ok(OptionValue::int(self.options.tells_queue_length().into())),
            t::TCP_CC_INFO => Ok(OptionValue::bytes(&[0; 20][..room.min(20)])),
            _ => {
                if let Some((_, parameter)) = TUNABLE.iter().find(|(n, _)| *n == name) {
                    return remembered(parameter.get(&self.common.net.parameters) as i32);
                }
                let known = REMEMBERED.iter().find(|(n, ..)| *n == name);
                remembered(known.ok_or(Errno::ENOPROTOOPT)?.3)
            }
        }
    }

    fn segment(&self) -> i32 {
        let v6 = self.peer_ip().is_some_and(|ip| ip.is_ipv6());
        SEGMENT[usize::from(v6)]
    }

    /// TCP_INFO: what a connection without delays and losses would say.
    pub fn info(&self) -> TcpInfo {
        let state = self.tcp_state();
        let mut info = TcpInfo {
            tcpi_state: state,
            tcpi_snd_ssthresh: i32::MAX as u32,
            tcpi_snd_cwnd: 10,
            tcpi_reordering: 3,
            tcpi_pacing_rate: u64::MAX,
            tcpi_max_pacing_rate: u64::MAX,
            ..TcpInfo::default()
        };
        if state == TCP_LISTEN {
            // As Linux, which puts these where nothing of a listener's would be.
            let (waiting, backlog) = self.listener().map_or((0, 0), |listener| listener.load());
            info.tcpi_unacked = waiting as u32;
            info.tcpi_sacked = backlog as u32;
            return info;
        }
        let Some(link) = self.link() else {
            info.tcpi_rto = 1_000_000;
            info.tcpi_snd_mss = 536;
            info.tcpi_rttvar = 250_000;
            info.tcpi_min_rtt = u32::MAX;
            return info;
        };
        let (sent, acknowledged) = link.tx.totals();
        let (received, _) = link.rx.totals();
        let segments = |bytes: u64| u32::try_from(bytes.div_ceil(SEGMENT[0] as u64)).unwrap_or(u32::MAX);
        info.tcpi_options = t::TCPI_OPT_TIMESTAMPS | t::TCPI_OPT_SACK | t::TCPI_OPT_WSCALE;
        info.tcpi_wscale = 7 | 7 << 4;
        info.tcpi_rto = 201_000;
        info.tcpi_snd_mss = self.segment() as u32;
        info.tcpi_rcv_mss = 536;
        info.tcpi_advmss = 65_483;
        info.tcpi_pmtu = 65_535;
        info.tcpi_rcv_ssthresh = 65_483;
        info.tcpi_rcv_space = 65_483;
        info.tcpi_rtt = 20;
        info.tcpi_rttvar = 10;
        info.tcpi_min_rtt = 5;
        info.tcpi_snd_wnd = 65_536;
        info.tcpi_rcv_wnd = 65_536;
        info.tcpi_bytes_sent = sent;
        info.tcpi_bytes_acked = acknowledged + 1;
        info.tcpi_bytes_received = received;
        info.tcpi_notsent_bytes = u32::try_from(sent - acknowledged).unwrap_or(u32::MAX);
        info.tcpi_data_segs_out = segments(sent);
        info.tcpi_data_segs_in = segments(received);
        info.tcpi_segs_out = segments(sent).saturating_add(segments(received)).saturating_add(2);
        info.tcpi_segs_in = info.tcpi_segs_out;
        info.tcpi_delivered = segments(acknowledged).saturating_add(1);
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deferred_accepts_wait_as_long_as_on_linux() {
        let wanted = [0, 1, 2, 3, 4, 5, 8, 60, 100, 1000];
        assert_eq!(wanted.map(defer_accept), [0, 1, 3, 3, 7, 7, 15, 63, 127, 1087]);
    }
}
