//! How long a target's outages lasted: from leaving `active` without having been told to, to
//! being active again. The first way that it finds ends no outage, and an operator's switch or change
//! of its settings is none.

use std::time::{Duration, Instant};

use crate::target::state::State;

/// Upper bounds of the buckets, in seconds: from what an event heals at once to what needs a person.
pub(in crate::control) const BUCKETS_S: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0, 21_600.0];

/// Outages that are over, by their length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heals {
    since: Option<Instant>,
    total: Duration,
    /// Per bucket, not cumulative; the last one has no bound.
    counts: [u64; BUCKETS_S.len() + 1],
}

impl Heals {
    /// The target went from one state to another, or stayed.
    pub fn changed(&mut self, now: Instant, before: &State, after: &State) {
        match (before, after) {
            (State::Active, State::Waiting(_)) => self.since = Some(now),
            (_, State::Active) => {
                if let Some(since) = self.since.take() {
                    self.healed(now.saturating_duration_since(since));
                }
            }
            (_, State::Disabled | State::Draining) => self.since = None,
            (_, State::Waiting(_)) => {}
        }
    }

    /// The outage that began just now is an operator's doing.
    pub fn is_wanted(&mut self) {
        self.since = None;
    }

    fn healed(&mut self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound);
        self.counts[bucket.unwrap_or(BUCKETS_S.len())] += 1;
        self.total += after;
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their length in all.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Upper bound in seconds and count of each bucket alone; the last one's bound is `f64::MAX`.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BUCKETS_S.into_iter().chain([f64::MAX]).zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::state::{Reason, WaitKind};

    #[test]
    fn an_outage_lasts_from_active_to_active() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let waiting = |kind| State::Waiting(Reason { kind, text: String::new() });
        let (start, down) = (waiting(WaitKind::Starting), waiting(WaitKind::DeviceDown));
        let mut heals = Heals::default();
        heals.changed(at(0), &State::Disabled, &start);
        heals.changed(at(50), &start, &State::Active);
        assert_eq!(heals.count(), 0, "the start is no outage");
        heals.changed(at(100), &State::Active, &down);
        heals.changed(at(105), &down, &start);
        heals.changed(at(120), &start, &State::Active);
        heals.changed(at(121), &State::Active, &State::Active);
        assert_eq!((heals.count(), heals.total()), (1, Duration::from_millis(20)));
        assert_eq!(heals.buckets()[2], (0.025, 1));
        // Switched off in between: nobody waited for that.
        heals.changed(at(200), &State::Active, &down);
        heals.changed(at(300), &down, &State::Disabled);
        heals.changed(at(400), &State::Disabled, &start);
        heals.changed(at(500), &start, &State::Active);
        assert_eq!(heals.count(), 1);
        // Other settings: it looks for its way anew.
        heals.changed(at(510), &State::Active, &start);
        heals.is_wanted();
        heals.changed(at(520), &start, &State::Active);
        assert_eq!(heals.count(), 1);
        heals.changed(at(600), &State::Active, &down);
        heals.changed(at(90_000_000), &down, &State::Active);
        assert_eq!(heals.buckets().last(), Some(&(f64::MAX, 1)));
    }
}
