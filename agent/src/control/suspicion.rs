//! How many records may have gone to a MAC address that was no longer the right one.
//!
//! A frame to a wrong address leaves like any other; nobody says that it was in
//! vain. When the neighbour turns out to have another address, or none, what was sent since
//! it was last confirmed is *suspected*. Pure: the clock comes from outside.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Samples that are kept: longer than a neighbour goes unconfirmed.
const SAMPLES: usize = 128;

/// Between two samples; the ticks that bring them are not exact.
const SAMPLE_EVERY: Duration = Duration::from_millis(900);

/// The doubts about one target's neighbour.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// Records sent until then, oldest first.
    samples: VecDeque<(Instant, u64)>,
    /// Records sent when the address was last known to be right.
    good_sent: Option<u64>,
    /// Records under suspicion, of all windows.
    pub(super) records: u64,
    /// Windows.
    pub(super) windows: u64,
}

impl Suspicion {
    /// Remembers how many records were sent until now; once a second, however often it is called.
    pub(super) fn sample(&mut self, now: Instant, sent: u64) {
        let age = self.samples.back().map(|(at, _)| now.saturating_duration_since(*at));
        if age.is_some_and(|age| age < SAMPLE_EVERY) {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, sent));
    }

    /// The address was right `ago`.
    pub(super) fn confirmed(&mut self, now: Instant, ago: Duration, sent: u64) {
        let before = |at: &Instant| now.saturating_duration_since(*at) >= ago;
        let then = self.samples.iter().rev().find(|(at, _)| before(at)).map(|(_, sent)| *sent);
        let oldest = || self.samples.front().map_or(sent, |(_, sent)| *sent);
        let good = if ago < Duration::from_secs(1) { sent } else { then.unwrap_or_else(oldest) };
        self.good_sent = Some(self.good_sent.map_or(good, |earlier| earlier.max(good)));
    }

    /// The address turned out to be wrong; returns how many records that puts in doubt.
    pub(super) fn doubt(&mut self, sent: u64) -> u64 {
        let doubtful = self.good_sent.map_or(0, |good| sent.saturating_sub(good));
        self.good_sent = Some(sent);
        if doubtful > 0 {
            self.records += doubtful;
            self.windows += 1;
        }
        doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_since_the_last_confirmation_is_suspected() {
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        let mut suspicion = Suspicion::default();
        for n in 0..20 {
            suspicion.sample(second(n), n * 100);
        }
        suspicion.confirmed(second(20), Duration::from_secs(8), 2000);
        assert_eq!(suspicion.doubt(2050), 2050 - 1200);
        assert_eq!((suspicion.records, suspicion.windows), (850, 1));
        // The same news again puts nothing more in doubt.
        assert_eq!(suspicion.doubt(2050), 0);
        suspicion.confirmed(second(30), Duration::from_millis(3), 2500);
        assert_eq!(suspicion.doubt(2501), 1);
        assert_eq!((suspicion.records, suspicion.windows), (851, 2));
    }

    #[test]
    fn a_neighbour_that_was_never_confirmed_puts_nothing_in_doubt() {
        assert_eq!(Suspicion::default().doubt(10), 0);
    }

    #[test]
    fn an_older_confirmation_does_not_take_a_newer_one_back() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        suspicion.sample(start, 5);
        suspicion.confirmed(start, Duration::ZERO, 10);
        suspicion.confirmed(start, Duration::from_secs(60), 10);
        assert_eq!(suspicion.doubt(12), 2);
    }
}
