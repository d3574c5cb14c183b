//! How fast one target may send: a token bucket, in datagrams.
//!
//! netconsd, the usual receiver, holds 256 slots per sender and the system's default
//! receive buffer: bursts up to that and a datagram each 50 µs are what it was seen
//! to take without loss. What is held back waits in the record store, so pacing
//! loses nothing by itself.
//!
//! Only integers: the credit is counted in billionths of a datagram, of which a
//! nanosecond earns `per_second`, so nothing is ever rounded and the rate does not
//! drift; dividing is needed only to say when to come back. The clock is
//! `CLOCK_BOOTTIME`, which goes on in suspend as the receiver does; whatever it does, no
//! more than `burst` is ever saved up. It is not a queue, and it reads no clock.

/// How fast a target may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Datagrams per second in the long run; 0 means 1.
    pub per_second: u32,
    /// Datagrams that may leave at once after a pause; 0 means 1.
    pub burst: u32,
}

impl Default for Pace {
    /// What netconsd takes without loss.
    fn default() -> Self {
        Self { per_second: 20_000, burst: 256 }
    }
}

/// Credit that one datagram costs.
const DATAGRAM: i64 = 1_000_000_000;
/// Who has to wait does so until this much time has earned something again, so that
/// a backlog does not cost a wake-up per datagram.
const WORTH_WAKING_NS: u64 = 1_000_000;

/// The bucket of one target.
#[derive(Debug)]
pub struct Bucket {
    /// In billionths of a datagram; below zero after a record in many fragments.
    credit: i64,
    refilled_ns: u64,
}

impl Default for Bucket {
    /// A full one, whatever the burst will be.
    fn default() -> Self {
        Self { credit: i64::MAX, refilled_ns: 0 }
    }
}

impl Bucket {
    /// Whether a record may be begun now. Its datagrams, however many, are then to
    /// be paid for one by one: a record is never torn apart. Who must not wait (last
    /// words) pays without asking; that only delays what comes after.
    ///
    /// # Errors
    /// With the time to ask again.
    pub fn admit(&mut self, pace: Pace, now_ns: u64) -> Result<(), u64> {
        let per_second = u64::from(pace.per_second.max(1));
        let full = i64::from(pace.burst.max(1)) * DATAGRAM;
        let earned = now_ns.saturating_sub(self.refilled_ns).saturating_mul(per_second);
        self.refilled_ns = self.refilled_ns.max(now_ns);
        self.credit = self.credit.saturating_add_unsigned(earned).min(full);
        if self.credit >= DATAGRAM {
            return Ok(());
        }
        // At most 2^32 * 10^6.
        let worth_waking = ((per_second * WORTH_WAKING_NS) as i64).clamp(DATAGRAM, full);
        let missing = worth_waking.saturating_sub(self.credit).unsigned_abs();
        Err(now_ns.saturating_add(missing.div_ceil(per_second)))
    }

    /// One datagram was sent.
    pub fn pay(&mut self) {
        self.credit = self.credit.saturating_sub(DATAGRAM);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends records of `fragments` datagrams for as long as it may.
    fn drain(bucket: &mut Bucket, pace: Pace, now_ns: u64, fragments: u32) -> (u64, u64) {
        let mut sent = 0;
        loop {
            match bucket.admit(pace, now_ns) {
                Ok(()) => (0..fragments).for_each(|_| {
                    bucket.pay();
                    sent += 1;
                }),
                Err(due_ns) => return (sent, due_ns),
            }
        }
    }

    proptest! {
        /// Whoever sends whenever it may, at whatever times it asks.
        #[test]
        fn no_window_holds_more_than_burst_and_rate(
            per_second in 1u32..200_000,
            burst in 1u32..2_000,
            steps in proptest::collection::vec((0u64..3_000_000, 1u32..9), 1..200),
        ) {
            let pace = Pace { per_second, burst };
            let mut bucket = Bucket::default();
            let mut now_ns = 5_000_000_000;
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for (step_ns, fragments) in steps {
                now_ns += step_ns;
                sent.push((now_ns, drain(&mut bucket, pace, now_ns, fragments).0));
            }
            for (first, (begin_ns, _)) in sent.iter().enumerate() {
                let mut total = 0;
                for (end_ns, count) in &sent[first..] {
                    total += u128::from(*count);
                    let earned = u128::from(end_ns - begin_ns) * u128::from(per_second);
                    // One record of up to 8 fragments overdraws.
                    let most = u128::from(burst) + earned / 1_000_000_000 + 8;
                    prop_assert!(total <= most, "{total} > {most} in {} ns", end_ns - begin_ns);
                }
            }
        }

        /// Whoever comes back when told to gets the whole rate.
        #[test]
        fn the_rate_is_reached(per_second in 1u32..500_000, burst in 1u32..2_000, fragments in 1u32..9) {
            let pace = Pace { per_second, burst };
            let mut bucket = Bucket::default();
            let mut now_ns = 1;
            drain(&mut bucket, pace, now_ns, fragments);
            let (mut sent, mut wakes) = (0u64, 0u64);
            while wakes < 500 {
                let (count, due_ns) = drain(&mut bucket, pace, now_ns, fragments);
                (sent, wakes) = (sent + count, wakes + 1);
                prop_assert!(due_ns > now_ns);
                now_ns = due_ns;
            }
            let wanted = u128::from(now_ns) * u128::from(per_second) / 1_000_000_000;
            let sent = u128::from(sent);
            prop_assert!(sent * 100 + 1_600 >= wanted * 99, "{sent} of {wanted}");
            prop_assert!(sent <= wanted + u128::from(fragments), "{sent} of {wanted}");
            // And is not woken more often than a millisecond's worth or the burst asks
            // for, less the part of a datagram that was left.
            let worth_ns = |datagrams: u32| u64::from(datagrams) * 1_000_000_000 / u64::from(per_second);
            let least_ns = worth_ns(burst).min(1_000_000).saturating_sub(worth_ns(1) + 1);
            prop_assert!(now_ns >= (wakes - 1) * least_ns, "{wakes} wake-ups in {now_ns} ns");
        }
    }

    #[test]
    fn a_jump_of_the_clock_saves_up_no_more_than_a_burst() {
        let pace = Pace::default();
        let mut bucket = Bucket::default();
        assert_eq!(drain(&mut bucket, pace, 1, 1).0, 256);
        assert_eq!(drain(&mut bucket, pace, u64::MAX, 1).0, 256);
        // Nor does one backwards earn anything.
        assert_eq!(drain(&mut bucket, pace, 7, 1).0, 0);
    }

    #[test]
    fn a_suspend_of_hours_is_a_pause_like_any_other() {
        const HOURS_NS: u64 = 8 * 3_600_000_000_000;
        let pace = Pace { per_second: 1_000, burst: 10 };
        let mut bucket = Bucket::default();
        let (sent, due_ns) = drain(&mut bucket, pace, 1, 1);
        assert_eq!((sent, due_ns), (10, 1_000_001));
        let after = due_ns + HOURS_NS;
        assert_eq!(drain(&mut bucket, pace, after, 1), (10, after + 1_000_000));
        assert_eq!(drain(&mut bucket, pace, after + 1_000_000, 1).0, 1);
    }

    #[test]
    fn a_zero_is_slow_and_not_fatal() {
        let pace = Pace { per_second: 0, burst: 0 };
        let mut bucket = Bucket::default();
        assert_eq!(drain(&mut bucket, pace, 1_000, 1), (1, 1_000_001_000));
        let most = Pace { per_second: u32::MAX, burst: u32::MAX };
        assert!(bucket.admit(most, u64::MAX).is_ok());
    }
}
