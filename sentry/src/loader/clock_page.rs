//! What the vdso's page says: the time at some value of the processor's counter, and how fast the counter ticks.
//!
//! The rate is measured against the host's clock, between two refreshes. A page is good for as long as the time over
//! which its rate was measured, up to a second; after that the vdso makes a system call, which refreshes it. An error
//! of some tens of nanoseconds in reading both clocks is thus at most doubled, and the host's own adjustments of its
//! rate show within a second. If the page was ahead of the host's clock at a refresh, it does not go back: it goes
//! slower until the next one.

use abi::time::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME, CLOCK_REALTIME_COARSE,
};
use nix::time::{ClockId, clock_gettime};
use zerocopy::IntoBytes;

const SECOND: u64 = 1_000_000_000;

/// The first rate is measured over at least this many nanoseconds.
const FIRST_WINDOW: u64 = 10_000_000;

/// The most that the rate can change from one measurement to the next, in millionths: twice what adjtime(2) does, and
/// what was slowed down to let the clock catch up.
const RATE_STEP: u64 = 2000;

/// How many times the clocks are read to find a reading that nothing came between.
const ATTEMPTS: usize = 5;

/// Counter and clocks at the same moment, as far as that goes. Clocks in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counter.
    pub ticks: u64,
    /// CLOCK_MONOTONIC.
    pub monotonic: u64,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC.
    pub realtime_offset: i64,
    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC.
    pub boottime_offset: i64,
}

fn nanos(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map_or(0, |t| (t.tv_sec() as u64).wrapping_mul(SECOND).wrapping_add(t.tv_nsec() as u64))
}

impl Reading {
    /// Reads the host's clocks.
    pub fn now() -> Reading {
        // The tightest of some attempts: an interrupt can come between.
        let pair = |clock| {
            (0..ATTEMPTS)
                .map(|_| {
                    let before = platform::tsc::read();
                    let time = nanos(clock);
                    let after = platform::tsc::read();
                    (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), time)
                })
                .min_by_key(|&(width, ..)| width)
                .map_or((0, 0), |(_, ticks, time)| (ticks, time))
        };
        let (ticks, monotonic) = pair(ClockId::CLOCK_MONOTONIC);
        let offset = |clock| {
            // Their difference is constant but for steps; the smaller error is that of the tightest pair.
            (0..ATTEMPTS)
                .map(|_| {
                    let before = nanos(ClockId::CLOCK_MONOTONIC);
                    let time = nanos(clock);
                    let after = nanos(ClockId::CLOCK_MONOTONIC);
                    let width = after.wrapping_sub(before);
                    (width, time.wrapping_sub(before.wrapping_add(width / 2)) as i64)
                })
                .min_by_key(|&(width, _)| width)
                .map_or(0, |(_, offset)| offset)
        };
        Reading {
            ticks,
            monotonic,
            realtime_offset: offset(ClockId::CLOCK_REALTIME),
            boottime_offset: offset(ClockId::CLOCK_BOOTTIME),
        }
    }
}

/// What is in the page.
#[derive(Clone, Copy, Debug)]
struct Published {
    ticks: u64,
    monotonic: u64,
    /// Nanoseconds a tick, times 2^32.
    rate: u64,
    /// Ticks for which it holds.
    window: u64,
    realtime_offset: i64,
    boottime_offset: i64,
}

/// The clocks at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// CLOCK_MONOTONIC.
    pub monotonic: u64,
    /// CLOCK_REALTIME.
    pub realtime: u64,
    /// CLOCK_BOOTTIME.
    pub boottime: u64,
}

impl Published {
    /// CLOCK_MONOTONIC as readers compute it, at most at the end of the window.
    fn monotonic_at(&self, ticks: u64) -> u64 {
        let elapsed = ticks.wrapping_sub(self.ticks).min(self.window);
        self.monotonic.wrapping_add(scale(elapsed, self.rate))
    }
}

/// Ticks to nanoseconds.
fn scale(ticks: u64, rate: u64) -> u64 {
    ((u128::from(ticks) * u128::from(rate)) >> 32) as u64
}

/// The sentry's side of the page.
pub struct ClockPage {
    usable: bool,
    sequence: u32,
    /// The reading from which the rate is measured.
    last: Option<Reading>,
    published: Option<Published>,
}

/// The bytes of the page ([`platform::vdso`]).
#[derive(Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct Page {
    sequence: u32,
    mode: u32,
    ticks: u64,
    rate: u64,
    window: u64,
    _reserved: [u64; 4],
    clocks: [[u64; 2]; 8],
}

impl ClockPage {
    /// A page that says nothing, and never will unless the counter is `usable` as a clock.
    pub fn new(usable: bool) -> ClockPage {
        ClockPage { usable, sequence: 0, last: None, published: None }
    }

    /// Has the page nothing to say (any more)?
    pub fn is_due(&self) -> bool {
        if !self.usable {
            return false;
        }
        match &self.published {
            Some(p) => platform::tsc::read().wrapping_sub(p.ticks) > p.window / 2,
            None => true,
        }
    }

    /// The clocks as a reader of the page computes them when the counter is at `ticks`, if it can.
    pub fn times(&self, ticks: u64) -> Option<Times> {
        let page = self.published.filter(|p| ticks.wrapping_sub(p.ticks) <= p.window)?;
        let monotonic = page.monotonic_at(ticks);
        Some(Times {
            monotonic,
            realtime: monotonic.wrapping_add_signed(page.realtime_offset),
            boottime: monotonic.wrapping_add_signed(page.boottime_offset),
        })
    }

    /// Takes a reading and computes what the page is to say from then on. `None` if the rate is not known yet.
    pub fn update(&mut self, read: impl FnOnce() -> Reading) -> Option<Vec<u8>> {
        let now = read();
        let Some(last) = self.last else {
            self.last = Some(now);
            return None;
        };
        let elapsed = now.monotonic.checked_sub(last.monotonic)?;
        if elapsed < FIRST_WINDOW {
            return None;
        }
        let rate = now.ticks.checked_sub(last.ticks).filter(|&t| t > 0).and_then(|ticks| {
            u64::try_from((u128::from(elapsed) << 32) / u128::from(ticks)).ok().filter(|&r| r > 0)
        });
        // The counter of a machine that was suspended or moved says nothing about the time that passed.
        let plausible = |&rate: &u64| {
            self.published.is_none_or(|old| rate.abs_diff(old.rate) / RATE_STEP <= old.rate / 1_000_000)
        };
        let Some(rate) = rate.filter(plausible) else {
            self.last = Some(now);
            self.published = None;
            self.sequence = self.sequence.wrapping_add(2);
            return Some(Page { sequence: self.sequence, ..Page::default() }.as_bytes().to_vec());
        };
        let window = scale_back(elapsed.min(SECOND), rate);
        let Reading { ticks, monotonic, realtime_offset, boottime_offset } = now;
        let mut new = Published { ticks, monotonic, rate, window, realtime_offset, boottime_offset };
        if let Some(old) = &self.published {
            // Nobody shall see the time go back.
            let shown = old.monotonic_at(now.ticks);
            let ahead = shown.saturating_sub(now.monotonic);
            if ahead > 0 {
                new.monotonic = shown;
                let span = elapsed.min(SECOND);
                let slower = u128::from(rate) * u128::from(span - ahead.min(span / 2)) / u128::from(span);
                new.rate = slower as u64;
            }
        }
        self.published = Some(new);
        self.last = Some(now);
        self.sequence = self.sequence.wrapping_add(2);
        let mut clocks = [[0; 2]; 8];
        let realtime = new.monotonic.wrapping_add_signed(now.realtime_offset);
        let boottime = new.monotonic.wrapping_add_signed(now.boottime_offset);
        for (clock, time) in [
            (CLOCK_REALTIME, realtime),
            (CLOCK_REALTIME_COARSE, realtime),
            (CLOCK_MONOTONIC, new.monotonic),
            (CLOCK_MONOTONIC_COARSE, new.monotonic),
            (CLOCK_BOOTTIME, boottime),
        ] {
            if let Some(entry) = clocks.get_mut(clock as usize) {
                *entry = [time / SECOND, time % SECOND];
            }
        }
        let page = Page {
            sequence: self.sequence,
            mode: 1,
            ticks: new.ticks,
            rate: new.rate,
            window: new.window,
            _reserved: [0; 4],
            clocks,
        };
        Some(page.as_bytes().to_vec())
    }
}

/// Nanoseconds to ticks.
fn scale_back(nanos: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(nanos) << 32) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of 2.5 GHz that starts at 1000, and a clock that is `error` nanoseconds off.
    fn reading(at: u64, error: i64) -> Reading {
        Reading {
            ticks: 1000 + at * 5 / 2,
            monotonic: (7 * SECOND + at).wrapping_add_signed(error),
            realtime_offset: 1_000 * SECOND as i64,
            boottime_offset: 500,
        }
    }

    /// What a reader gets for a clock.
    fn shown(page: &[u8], clock: i32, ticks: u64) -> Option<u64> {
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let elapsed = ticks - word(8);
        let entry = 0x40 + clock as usize * 16;
        (elapsed <= word(0x18)).then(|| word(entry) * SECOND + word(entry + 8) + scale(elapsed, word(0x10)))
    }

    #[test]
    fn the_page_follows_the_clock() {
        let mut page = ClockPage::new(true);
        assert_eq!(page.update(|| reading(0, 0)), None, "no rate yet");
        assert_eq!(page.update(|| reading(FIRST_WINDOW / 2, 0)), None, "too soon");
        let bytes = page.update(|| reading(FIRST_WINDOW, 0)).unwrap();
        let at = |at: u64| reading(at, 0).ticks;
        let close = |time: Option<u64>, expected: u64| time.is_some_and(|t| t.abs_diff(expected) <= 2);
        for ns in [FIRST_WINDOW, FIRST_WINDOW + 77, 2 * FIRST_WINDOW - 10] {
            assert!(close(shown(&bytes, CLOCK_MONOTONIC, at(ns)), 7 * SECOND + ns));
            assert!(close(shown(&bytes, CLOCK_REALTIME, at(ns)), 1007 * SECOND + ns));
            assert!(close(shown(&bytes, CLOCK_BOOTTIME, at(ns)), 7 * SECOND + ns + 500));
        }
        assert_eq!(
            shown(&bytes, CLOCK_MONOTONIC, at(3 * FIRST_WINDOW)),
            None,
            "not for longer than was measured"
        );
        let bytes = page.update(|| reading(100 * SECOND, 0)).unwrap();
        assert!(close(
            shown(&bytes, CLOCK_MONOTONIC, at(100 * SECOND + SECOND / 2)),
            107 * SECOND + SECOND / 2
        ));
        assert_eq!(shown(&bytes, CLOCK_MONOTONIC, at(102 * SECOND)), None, "a second at most");
    }

    #[test]
    fn time_does_not_go_back() {
        let mut page = ClockPage::new(true);
        page.update(|| reading(0, 0));
        let mut bytes = page.update(|| reading(SECOND, 300)).unwrap();
        let mut last = 0;
        let mut at = SECOND;
        for error in [-300i64, 0, 2000, -2000, -2000, -2000, 500] {
            at += SECOND / 2;
            let before = shown(&bytes, CLOCK_MONOTONIC, reading(at, 0).ticks).unwrap();
            bytes = page.update(|| reading(at, error)).unwrap();
            let after = shown(&bytes, CLOCK_MONOTONIC, reading(at, 0).ticks).unwrap();
            assert!(before >= last && after >= before, "{last} {before} {after}");
            assert!(after.abs_diff(7 * SECOND + at) < 10_000);
            last = after;
        }
    }

    #[test]
    fn nonsense_is_not_published() {
        let mut page = ClockPage::new(true);
        page.update(|| reading(SECOND, 0));
        page.update(|| reading(2 * SECOND, 0)).unwrap();
        assert_eq!(page.update(|| Reading { monotonic: 0, ..reading(3 * SECOND, 0) }), None);
        let mode = |bytes: Option<Vec<u8>>| bytes.map(|b| b[4]);
        let stopped = page.update(|| Reading { ticks: 0, ..reading(3 * SECOND, 0) });
        assert_eq!(mode(stopped), Some(0), "the counter went back");
        assert_eq!(mode(page.update(|| reading(4 * SECOND, 0))), Some(1));
        let jumped = Reading { ticks: reading(9 * SECOND, 0).ticks, ..reading(5 * SECOND, 0) };
        assert_eq!(mode(page.update(|| jumped)), Some(0), "the counter jumped");
        assert!(!ClockPage::new(false).is_due());
    }

    #[test]
    fn this_machines_clocks_can_be_read() {
        let a = Reading::now();
        let b = Reading::now();
        assert!(b.ticks > a.ticks && b.monotonic >= a.monotonic);
        assert!(a.realtime_offset.abs_diff(b.realtime_offset) < 1_000_000_000);
        assert!(a.boottime_offset >= -1_000_000);
    }
}
