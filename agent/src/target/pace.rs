//! How fast a target may send: a token bucket, in datagrams.
//!
//! Receivers lose what comes too fast: netconsd keeps 256 records of a host in order and has a socket buffer
//! of some 200 KiB; at 50 µs per datagram it lost nothing. So a backlog leaves in an
//! orderly way, and a storm is held in the record store, where what is lost is counted.
//!
//! Pure: the clock comes from outside, and must not jump. `CLOCK_MONOTONIC` stands still
//! while the machine is suspended; a longer pause fills the bucket and no more.

const SECOND_NS: u64 = 1_000_000_000;
/// A bucket that ran empty is left alone until it holds this much time's worth of
/// datagrams, so that nobody wakes up for each.
const WORTH_WAKING_NS: u64 = 1_000_000;

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Datagrams a second; at least 1.
    pub per_second: u32,
    /// Datagrams at once after a pause; at least 1.
    pub burst: u32,
}

impl Pace {
    /// The burst that netconsd's window takes.
    pub const BURST: u32 = 256;
}

/// The tokens of one target. Counted in datagrams times nanoseconds, so that
/// nothing is ever rounded.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pace: Pace,
    /// Negative after a record of several datagrams.
    credit: i64,
    filled_at_ns: u64,
    /// It ran empty; nothing is taken before it is worth it.
    empty: bool,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(pace: Pace, now_ns: u64) -> Self {
        Self { pace, credit: capacity(pace), filled_at_ns: now_ns, empty: false }
    }

    /// The rate it was made for.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Adds what has accrued since the last call.
    pub fn refill(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = self.filled_at_ns.max(now_ns);
        let gained = passed_ns.saturating_mul(u64::from(self.pace.per_second.max(1)));
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(gained).min(capacity(self.pace));
        self.empty &= self.credit < self.enough();
    }

    /// Whether a record may be begun.
    pub fn may_begin(&mut self) -> bool {
        self.empty |= self.credit < SECOND_NS as i64;
        !self.empty
    }

    /// Takes one datagram out. A record that was begun is finished whatever it costs.
    pub fn take(&mut self) {
        self.credit = self.credit.saturating_sub(SECOND_NS as i64);
    }

    /// When a record may be begun again, if not now.
    #[must_use]
    pub fn ready_at_ns(&self) -> Option<u64> {
        let missing = u64::try_from(self.enough() - self.credit).unwrap_or(0);
        let wait_ns = missing.div_ceil(u64::from(self.pace.per_second.max(1)));
        self.empty.then(|| self.filled_at_ns.saturating_add(wait_ns))
    }

    /// The credit that ends a wait.
    fn enough(&self) -> i64 {
        let worth = i64::from(self.pace.per_second) * WORTH_WAKING_NS as i64;
        worth.clamp(SECOND_NS as i64, capacity(self.pace))
    }
}

fn capacity(pace: Pace) -> i64 {
    i64::from(pace.burst.max(1)) * SECOND_NS as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends as much as it may at each of these times; the sizes are those of the
    /// records, in datagrams. Returns when each datagram left.
    fn sent(pace: Pace, steps_ns: &[u64], sizes: &[usize]) -> Vec<u64> {
        let mut bucket = Bucket::new(pace, 0);
        let (mut now_ns, mut out, mut sizes) = (0, Vec::new(), sizes.iter().cycle());
        for step_ns in steps_ns {
            now_ns += step_ns;
            bucket.refill(now_ns);
            while bucket.may_begin() {
                for _ in 0..*sizes.next().unwrap() {
                    bucket.take();
                    out.push(now_ns);
                }
            }
            assert!(bucket.ready_at_ns().is_some_and(|at| at > now_ns));
        }
        out
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_rate(
            per_second in 1u32..100_000,
            burst in 1u32..300,
            steps_ns in prop::collection::vec(1u64..200_000_000, 1..40),
            sizes in prop::collection::vec(1usize..4, 1..8),
        ) {
            let largest = *sizes.iter().max().unwrap() as u64;
            let out = sent(Pace { per_second, burst }, &steps_ns, &sizes);
            for (first, from) in out.iter().enumerate() {
                for (last, to) in out.iter().enumerate().skip(first).step_by(7) {
                    let count = (last - first + 1) as u64;
                    let accrued = (to - from) * u64::from(per_second) / SECOND_NS + 1;
                    prop_assert!(count <= u64::from(burst) + accrued + largest);
                }
            }
        }
    }

    #[test]
    fn the_rate_is_reached_by_whoever_comes_when_it_is_time() {
        let mut bucket = Bucket::new(Pace { per_second: 20_000, burst: Pace::BURST }, 0);
        let (mut now_ns, mut count, mut looks) = (0, 0u64, 0u64);
        while now_ns < 10 * SECOND_NS {
            bucket.refill(now_ns);
            while bucket.may_begin() {
                bucket.take();
                count += 1;
            }
            now_ns = bucket.ready_at_ns().unwrap();
            looks += 1;
        }
        assert!((199_900..=200_300).contains(&count), "{count}");
        assert!(looks <= 10_001, "{looks} looks");
    }

    #[test]
    fn a_slow_pace_waits_for_one_datagram_only() {
        let mut bucket = Bucket::new(Pace { per_second: 2, burst: 256 }, 0);
        while bucket.may_begin() {
            bucket.take();
        }
        assert_eq!(bucket.ready_at_ns(), Some(SECOND_NS / 2));
        bucket.refill(SECOND_NS / 2);
        assert!(bucket.may_begin());
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more() {
        let mut bucket = Bucket::new(Pace { per_second: 1000, burst: 5 }, 0);
        bucket.refill(u64::MAX / 2);
        let mut count = 0;
        while bucket.may_begin() {
            bucket.take();
            count += 1;
        }
        assert_eq!(count, 5);
    }
}
