//! An ordered map from disjoint ranges of addresses to values, with splitting, merging and the search for gaps.

use std::collections::BTreeMap;

/// A value of a [`RangeMap`].
pub trait Segment: Clone {
    /// The value of the part that begins `by` bytes after this one's start.
    fn advanced(&self, by: u64) -> Self;

    /// True if `next`, which follows directly on `len` bytes of this, can be one range with it.
    fn continued_by(&self, len: u64, next: &Self) -> bool;

    /// Bytes that [`RangeMap::find_gap`] leaves free at the end of the gap below the range.
    fn guard(&self) -> u64 {
        0
    }
}

/// A range with its value: start, end (exclusive), value.
pub type Piece<S> = (u64, u64, S);

/// What is known of the gaps, so that a search need not begin at the top each time: above `from` and below `top`, no
/// gap is larger than `largest`.
#[derive(Clone, Copy, Debug)]
struct Known {
    top: u64,
    from: u64,
    largest: u64,
}

/// Disjoint ranges in order. Neighbours that can be one are one.
#[derive(Clone, Debug)]
pub struct RangeMap<S> {
    ranges: BTreeMap<u64, (u64, S)>,
    known: Known,
}

impl<S> Default for RangeMap<S> {
    fn default() -> RangeMap<S> {
        RangeMap { ranges: BTreeMap::new(), known: Known { top: 0, from: 0, largest: 0 } }
    }
}

impl<S: Segment> RangeMap<S> {
    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64, &S)> {
        self.ranges.iter().map(|(&start, (end, value))| (start, *end, value))
    }

    /// The range that contains `addr`.
    pub fn get(&self, addr: u64) -> Option<(u64, u64, &S)> {
        let (&start, (end, value)) = self.ranges.range(..=addr).next_back()?;
        (*end > addr).then_some((start, *end, value))
    }

    /// The first range that ends above `addr` (Linux's find_vma).
    pub fn at_or_above(&self, addr: u64) -> Option<(u64, u64, &S)> {
        self.get(addr).or_else(|| {
            let (&start, (end, value)) = self.ranges.range(addr..).next()?;
            Some((start, *end, value))
        })
    }

    /// The last range that ends at or below `addr`.
    pub fn below(&self, addr: u64) -> Option<(u64, u64, &S)> {
        let (&start, (end, value)) = self.ranges.range(..addr).next_back()?;
        if *end <= addr {
            return Some((start, *end, value));
        }
        let (&start, (end, value)) = self.ranges.range(..start).next_back()?;
        Some((start, *end, value))
    }

    /// The ranges that meet `start..end`, whole, in order.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &S)> {
        let first = if start < end { self.get(start).map_or(start, |(s, _, _)| s) } else { end };
        self.ranges.range(first..end).map(|(&s, (e, value))| (s, *e, value))
    }

    /// True if there is no hole in `start..end`.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for (s, e, _) in self.overlapping(start, end) {
            if s > at {
                return false;
            }
            at = e;
        }
        at >= end
    }

    /// Makes `at` a boundary if it is inside a range.
    fn cut(&mut self, at: u64) {
        let Some((&start, (end, value))) = self.ranges.range_mut(..at).next_back() else { return };
        if *end <= at {
            return;
        }
        let upper = (*end, value.advanced(at - start));
        *end = at;
        self.ranges.insert(at, upper);
    }

    /// Merges the ranges that meet at `at`, if they can be one.
    fn join(&mut self, at: u64) {
        let Some((upper_end, upper)) = self.ranges.get(&at) else { return };
        let upper_end = *upper_end;
        let Some((start, (end, lower))) = self.ranges.range(..at).next_back() else { return };
        if *end != at || !lower.continued_by(at - start, upper) {
            return;
        }
        let start = *start;
        self.ranges.remove(&at);
        if let Some(lower) = self.ranges.get_mut(&start) {
            lower.0 = upper_end;
        }
    }

    fn take(&mut self, start: u64, end: u64) -> Vec<Piece<S>> {
        if start >= end {
            return Vec::new();
        }
        self.cut(start);
        self.cut(end);
        let starts: Vec<u64> = self.ranges.range(start..end).map(|(&s, _)| s).collect();
        starts.into_iter().filter_map(|s| self.ranges.remove(&s).map(|(e, value)| (s, e, value))).collect()
    }

    /// Removes what is in `start..end` and returns it.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Piece<S>> {
        let removed = self.take(start, end);
        if !removed.is_empty() {
            self.gap_opened(start);
        }
        removed
    }

    /// Puts a value at `start..end` (not empty), in place of what was there, which is returned.
    pub fn insert(&mut self, start: u64, end: u64, value: S) -> Vec<Piece<S>> {
        let removed = self.take(start, end);
        if removed.iter().any(|(_, _, old)| old.guard() > value.guard()) {
            self.forget_gaps();
        }
        if start < end {
            self.ranges.insert(start, (end, value));
            self.join(end);
            self.join(start);
        }
        removed
    }

    /// Changes the values of the parts of ranges that are in `start..end`.
    pub fn update(&mut self, start: u64, end: u64, mut change: impl FnMut(u64, u64, &mut S)) {
        if start >= end {
            return;
        }
        self.cut(start);
        self.cut(end);
        let mut bounds = vec![start, end];
        let mut guards_changed = false;
        for (&s, (e, value)) in self.ranges.range_mut(start..end) {
            let guard = value.guard();
            change(s, *e, value);
            guards_changed |= guard != value.guard();
            bounds.push(s);
        }
        if guards_changed {
            self.forget_gaps();
        }
        for at in bounds {
            self.join(at);
        }
    }

    /// The highest address in `low..high` at which `len` bytes are free, a multiple of `align` (a power of two).
    pub fn find_gap(&mut self, len: u64, align: u64, low: u64, high: u64) -> Option<u64> {
        if len == 0 || low >= high {
            return None;
        }
        if self.known.top != high {
            self.known = Known { top: high, from: high, largest: 0 };
        }
        if len <= self.known.largest {
            self.known = Known { top: high, from: high, largest: 0 };
        }
        // The gap in hand is below `above`; its last `guard` bytes stay free.
        let mut above = self.known.from;
        let mut guard = 0;
        if let Some((&start, (_, value))) = self.ranges.range(above..).next() {
            guard = value.guard().saturating_sub(start - above);
        }
        let mut below = self.ranges.range(..above).rev();
        loop {
            let next = below.next();
            let floor = next.map_or(low, |(_, (end, _))| (*end).max(low));
            if let Some(top) = above.saturating_sub(guard).checked_sub(len) {
                let addr = top & !(align - 1);
                if addr >= floor {
                    self.known.from = above;
                    return Some(addr);
                }
            }
            match next {
                Some((&start, (_, value))) if start > low => {
                    self.known.largest = self.known.largest.max(above.saturating_sub(floor));
                    above = start;
                    guard = value.guard();
                }
                _ => {
                    // The lowest gap was seen only down to `low`.
                    self.known.from = above;
                    return None;
                }
            }
        }
    }

    fn forget_gaps(&mut self) {
        self.known = Known { top: 0, from: 0, largest: 0 };
    }

    /// Takes note of the gap around `at`.
    fn gap_opened(&mut self, at: u64) {
        let below = self.ranges.range(..=at).next_back().map_or(0, |(_, (end, _))| *end);
        let above = self.ranges.range(at..).next().map_or(u64::MAX, |(&start, _)| start).min(self.known.top);
        if above <= self.known.from {
            return;
        }
        if below < self.known.from {
            self.known.from = above;
        } else {
            self.known.largest = self.known.largest.max(above.saturating_sub(below));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    /// A value with an identity and an offset, like a file mapping.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Value {
        id: u8,
        offset: u64,
    }

    impl Segment for Value {
        fn advanced(&self, by: u64) -> Value {
            Value { id: self.id, offset: self.offset + by }
        }

        fn continued_by(&self, len: u64, next: &Value) -> bool {
            self.id == next.id && self.offset + len == next.offset
        }

        fn guard(&self) -> u64 {
            if self.id == 3 { 2 } else { 0 }
        }
    }

    const SIZE: u64 = 48;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64, u8, u64),
        Remove(u64, u64),
        Update(u64, u64, u8),
        Find(u64, u64, u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let range = (0..SIZE, 0..SIZE).prop_map(|(a, b)| (a.min(b), a.max(b)));
        prop_oneof![
            (range.clone(), 0..4u8, 0..3u64).prop_map(|((s, e), id, o)| Step::Insert(s, e, id, o)),
            range.clone().prop_map(|(s, e)| Step::Remove(s, e)),
            (range.clone(), 0..4u8).prop_map(|((s, e), id)| Step::Update(s, e, id)),
            (0..12u64, prop_oneof![Just(1u64), Just(4)], 0..6u64, any::<bool>()).prop_map(
                |(len, align, low, whole)| Step::Find(len, align, low, if whole { SIZE } else { 40 })
            ),
        ]
    }

    /// The highest fit, from a map of single units.
    fn model_gap(model: &[Option<Value>], len: u64, align: u64, low: u64, high: u64) -> Option<u64> {
        let free = |at: u64| {
            let next = (at..SIZE).find_map(|up| model[up as usize].clone().map(|v| (up, v)));
            next.is_none_or(|(up, v)| up > at + v.guard())
        };
        (low..high).rev().find(|&a| a % align == 0 && len > 0 && a + len <= high && (a..a + len).all(free))
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_units(steps in proptest::collection::vec(step(), 1..60)) {
            let mut map = RangeMap::default();
            let mut model: Vec<Option<Value>> = vec![None; SIZE as usize];
            for step in steps {
                match step {
                    Step::Insert(s, e, id, offset) => {
                        let mut removed = map.insert(s, e, Value { id, offset });
                        removed.reverse();
                        for at in s..e {
                            let old = model[at as usize].replace(Value { id, offset: offset + at - s });
                            if removed.last().is_some_and(|(_, end, _)| *end <= at) { removed.pop(); }
                            let new = removed.last().filter(|(start, _, _)| *start <= at);
                            assert_eq!(old, new.map(|(start, _, v)| v.advanced(at - start)));
                        }
                    }
                    Step::Remove(s, e) => {
                        let units: u64 = map.remove(s, e).iter().map(|(s, e, _)| e - s).sum();
                        let count = (s..e).filter(|&at| model[at as usize].take().is_some()).count();
                        assert_eq!(units, count as u64);
                    }
                    Step::Update(s, e, id) => {
                        map.update(s, e, |_, _, v| v.id = id);
                        for at in s..e {
                            if let Some(v) = &mut model[at as usize] { v.id = id; }
                        }
                    }
                    Step::Find(len, align, low, high) => {
                        assert_eq!(map.find_gap(len, align, low, high), model_gap(&model, len, align, low, high));
                    }
                }
                let mut last: Option<(u64, Value, u64)> = None;
                for (s, e, v) in map.iter() {
                    assert!(s < e);
                    if let Some((end, value, start)) = &last {
                        assert!(*end <= s);
                        assert!(*end < s || !value.continued_by(end - start, v), "not merged");
                    }
                    last = Some((e, v.clone(), s));
                }
                for at in 0..SIZE {
                    let got = map.get(at).map(|(s, _, v)| v.advanced(at - s));
                    assert_eq!(got, model[at as usize]);
                }
                for (s, e) in [(0, SIZE), (3, 9), (10, 11), (20, 47)] {
                    assert_eq!(map.covers(s, e), (s..e).all(|at| model[at as usize].is_some()));
                }
            }
        }
    }

    #[test]
    fn a_search_does_not_begin_at_the_top_each_time() {
        let mut map = RangeMap::default();
        let high = 1 << 40;
        for i in 0..100_000u64 {
            let at = map.find_gap(1, 1, 0, high).unwrap();
            map.insert(at, at + 1, Value { id: (i % 2) as u8, offset: 0 });
        }
        // A linear search each time would take minutes, here and when the lowest comes and goes.
        for _ in 0..100_000 {
            let at = map.find_gap(1, 1, 0, high).unwrap();
            map.insert(at, at + 1, Value { id: 0, offset: 9 });
            map.remove(at, at + 1);
        }
        assert_eq!(map.len(), 100_000);
    }
}
