//! The records of one source in the order of their sequence numbers.
//!
//! A record waits for those before it until its time is over; then the gap is
//! told. What came already is recognized by sequence number and time, so that a
//! repeated record is dropped and a reboot (the same numbers with other times)
//! is not taken for one. It holds no sockets and no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::HOLD;

/// Most records that wait.
const HELD_MAX: usize = 512;
/// So far back a number may be repeated or late; further back it is a new count.
const WINDOW: u64 = 1024;
/// A clock that went back by more than this belongs to a new boot: printk's
/// clocks of two CPUs differ by far less.
const CLOCK_BACK_US: u64 = 1_000_000;

/// What the order needs to know of a record.
pub(super) trait Item {
    /// Sequence number.
    fn seq(&self) -> u64;
    /// Microseconds since boot, if they are exact.
    fn ts_us(&self) -> Option<u64>;
    /// Memory it takes, roughly.
    fn bytes(&self) -> usize;
}

/// What is to be told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// A record in order.
    Record(T),
    /// A record out of order.
    Late {
        item: T,
        /// It had been told as missing.
        was_missing: bool,
    },
    /// A record that came before.
    Duplicate,
    /// Records that did not come.
    Gap { first_seq: u64, last_seq: u64 },
    /// The source counts anew.
    Restart,
}

#[derive(Debug)]
pub(super) struct Stream<T> {
    /// First number told in this count, and the one that is due.
    bounds: Option<(u64, u64)>,
    held: BTreeMap<u64, (Duration, T)>,
    held_bytes: usize,
    /// Numbers told within the window, with their times.
    told: BTreeMap<u64, Option<u64>>,
    /// Highest exact time told.
    last_ts_us: u64,
}

impl<T: Item> Stream<T> {
    pub(super) fn new() -> Self {
        Self {
            bounds: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            told: BTreeMap::new(),
            last_ts_us: 0,
        }
    }

    /// Memory of the records that wait, roughly.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// When the record that waits for longest has waited enough.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let since = self.held.values().map(|&(since, _)| since).min()?;
        Some(since.saturating_add(HOLD))
    }

    /// Takes a record that arrived at `now`.
    pub(super) fn push(&mut self, now: Duration, item: T, turns: &mut Vec<Turn<T>>) {
        let (seq, ts_us) = (item.seq(), item.ts_us());
        let Some((first, next)) = self.bounds else {
            self.bounds = Some((seq, seq));
            self.tell(item, turns);
            return;
        };
        if seq >= next {
            let back = |ts_us: u64| ts_us.saturating_add(CLOCK_BACK_US) < self.last_ts_us;
            if ts_us.is_some_and(back) {
                self.restart(item, turns);
            } else if self.held.contains_key(&seq) {
                turns.push(Turn::Duplicate);
            } else {
                self.held_bytes += item.bytes();
                self.held.insert(seq, (now, item));
                self.tell_consecutive(turns);
                if self.held.len() > HELD_MAX {
                    self.tell_gap(turns);
                }
            }
            return;
        }
        match self.told.get(&seq) {
            // An estimated time says nothing about the boot.
            Some(&told) if told == ts_us || told.is_none() || ts_us.is_none() => {
                turns.push(Turn::Duplicate);
            }
            None if next - seq <= WINDOW => {
                self.told.insert(seq, ts_us);
                turns.push(Turn::Late { item, was_missing: seq > first });
            }
            _ => self.restart(item, turns),
        }
    }

    /// Tells the gaps whose time is over, and what is behind them.
    pub(super) fn expire(&mut self, now: Duration, turns: &mut Vec<Turn<T>>) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell_gap(turns);
        }
    }

    /// Tells all that waits.
    pub(super) fn flush(&mut self, turns: &mut Vec<Turn<T>>) {
        while !self.held.is_empty() {
            self.tell_gap(turns);
        }
    }

    fn restart(&mut self, item: T, turns: &mut Vec<Turn<T>>) {
        self.flush(turns);
        turns.push(Turn::Restart);
        let seq = item.seq();
        self.bounds = Some((seq, seq));
        self.told.clear();
        self.last_ts_us = 0;
        self.tell(item, turns);
    }

    /// Tells the gap before the first record that waits, and what follows it.
    fn tell_gap(&mut self, turns: &mut Vec<Turn<T>>) {
        let (Some((_, next)), Some((&seq, _))) = (&mut self.bounds, self.held.first_key_value())
        else {
            return;
        };
        if seq > *next {
            turns.push(Turn::Gap { first_seq: *next, last_seq: seq - 1 });
            *next = seq;
        }
        self.tell_consecutive(turns);
    }

    fn tell_consecutive(&mut self, turns: &mut Vec<Turn<T>>) {
        while let Some(entry) = self.held.first_entry()
            && self.bounds.is_some_and(|(_, next)| *entry.key() == next)
        {
            let (_, item) = entry.remove();
            self.held_bytes -= item.bytes();
            self.tell(item, turns);
        }
    }

    /// Tells the record that is due.
    fn tell(&mut self, item: T, turns: &mut Vec<Turn<T>>) {
        let (seq, ts_us) = (item.seq(), item.ts_us());
        if let Some((_, next)) = &mut self.bounds {
            *next = seq.saturating_add(1);
        }
        self.told.insert(seq, ts_us);
        while let Some(entry) = self.told.first_entry()
            && *entry.key() < seq.saturating_sub(WINDOW)
        {
            entry.remove();
        }
        self.last_ts_us = self.last_ts_us.max(ts_us.unwrap_or(0));
        turns.push(Turn::Record(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(5);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Rec(u64, Option<u64>);

    impl Item for Rec {
        fn seq(&self) -> u64 {
            self.0
        }
        fn ts_us(&self) -> Option<u64> {
            self.1
        }
        fn bytes(&self) -> usize {
            10
        }
    }

    fn rec(seq: u64) -> Rec {
        Rec(seq, Some(60_000_000 + seq))
    }

    fn push(stream: &mut Stream<Rec>, items: &[Rec]) -> Vec<Turn<Rec>> {
        let mut turns = Vec::new();
        for &item in items {
            stream.push(T0, item, &mut turns);
        }
        turns
    }

    #[test]
    fn records_are_put_in_order() {
        let mut stream = Stream::new();
        let turns = push(&mut stream, &[10, 12, 13, 11, 14].map(rec));
        assert_eq!(turns, [10, 11, 12, 13, 14].map(|seq| Turn::Record(rec(seq))));
        assert_eq!((stream.held_bytes(), stream.deadline()), (0, None));
    }

    #[test]
    fn a_gap_is_told_when_its_time_is_over_and_a_late_record_is_marked() {
        let mut stream = Stream::new();
        let mut turns = push(&mut stream, &[10, 13].map(rec));
        assert_eq!(turns, [Turn::Record(rec(10))]);
        assert_eq!(stream.held_bytes(), 10);
        let deadline = stream.deadline().expect("one waits");
        assert_eq!(deadline, T0 + HOLD);
        turns.clear();
        stream.expire(deadline - Duration::from_nanos(1), &mut turns);
        assert_eq!(turns, []);
        stream.expire(deadline, &mut turns);
        let gap = Turn::Gap { first_seq: 11, last_seq: 12 };
        assert_eq!(turns, [gap, Turn::Record(rec(13))]);
        let late = |seq, was_missing| Turn::Late { item: rec(seq), was_missing };
        assert_eq!(
            push(&mut stream, &[12, 12, 9].map(rec)),
            [late(12, true), Turn::Duplicate, late(9, false)]
        );
    }

    #[test]
    fn repeated_records_are_dropped_whether_told_or_waiting() {
        let mut stream = Stream::new();
        let turns = push(&mut stream, &[10, 12, 12, 10].map(rec));
        assert_eq!(turns, [Turn::Record(rec(10)), Turn::Duplicate, Turn::Duplicate]);
        let estimate = Rec(10, None);
        assert_eq!(push(&mut stream, &[estimate]), [Turn::Duplicate]);
    }

    #[test]
    fn a_reboot_is_recognized() {
        let cases: [(&[Rec], Rec); 3] = [
            // The same number at another time.
            (&[rec(10)], Rec(10, Some(9))),
            // Far back.
            (&[rec(5000)], rec(100)),
            // A higher number, but the clock went back.
            (&[rec(10)], Rec(11, Some(7))),
        ];
        for (before, first) in cases {
            let mut stream = Stream::new();
            push(&mut stream, before);
            assert_eq!(
                push(&mut stream, &[first, Rec(first.0 + 1, first.1)]),
                [Turn::Restart, Turn::Record(first), Turn::Record(Rec(first.0 + 1, first.1))]
            );
        }
    }

    #[test]
    fn a_reboot_tells_first_what_waited() {
        let mut stream = Stream::new();
        let turns = push(&mut stream, &[rec(10), rec(12), Rec(10, Some(1))]);
        assert_eq!(turns.len(), 5);
        assert_eq!(turns[2], Turn::Record(rec(12)));
        assert_eq!(turns[3], Turn::Restart);
    }

    #[test]
    fn no_more_than_the_bound_waits() {
        let mut stream = Stream::new();
        let first = push(&mut stream, &[rec(0)]);
        assert_eq!(first.len(), 1);
        let many: Vec<_> = (2..2 + HELD_MAX as u64).map(rec).collect();
        assert_eq!(push(&mut stream, &many), []);
        let turns = push(&mut stream, &[rec(2 + HELD_MAX as u64)]);
        assert_eq!(turns.len(), HELD_MAX + 2);
        assert_eq!(stream.held_bytes(), 0);
    }

    #[test]
    fn the_highest_number_is_no_trap() {
        let mut stream = Stream::new();
        push(&mut stream, &[rec(0), Rec(u64::MAX, Some(70_000_000))]);
        let mut turns = Vec::new();
        stream.flush(&mut turns);
        assert_eq!(turns.len(), 2);
        push(&mut stream, &[Rec(u64::MAX, Some(70_000_000))]);
        stream.flush(&mut turns);
    }
}
