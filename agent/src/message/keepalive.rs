//! When keepalives are due. Pure: the random numbers come from the caller, who
//! draws a new one for each, and so does the time. That is the time since the boot with all
//! suspends (`CLOCK_BOOTTIME`): a receiver that waits for a sign of life does not know of them.

use std::time::Duration;

/// A target says that it is alive when it becomes active; the next time comes after a share
/// of the interval, all shares alike likely. So a fleet that was started at once is spread
/// over the whole interval from then on.
#[must_use]
pub fn first(interval: Duration, random: u64) -> Duration {
    share(interval, random)
}

/// Until the next one: the interval, a tenth more or less. So hosts that fell into step
/// lose it again, and one that is silent for two intervals is silent.
#[must_use]
pub fn next(interval: Duration, random: u64) -> Duration {
    interval - interval / 10 + share(interval / 5, random)
}

/// When the next keepalive of one target is due, if it sends any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    due: Option<Duration>,
}

impl Schedule {
    /// Begins anew: the target became active, or its interval is another one.
    pub fn begin(&mut self, interval: Option<Duration>, now: Duration, random: u64) {
        self.due = interval.map(|interval| now.saturating_add(first(interval, random)));
    }

    /// How long until the next one.
    #[must_use]
    pub fn left(&self, now: Duration) -> Option<Duration> {
        self.due.map(|due| due.saturating_sub(now))
    }

    /// Whether one is due now; then the next is an interval from now, however late this one is.
    pub fn take(&mut self, interval: Option<Duration>, now: Duration, random: u64) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = interval.map(|interval| now.saturating_add(next(interval, random)));
        }
        is_due && interval.is_some()
    }
}

/// `random / 2^64` of the whole.
fn share(whole: Duration, random: u64) -> Duration {
    let seconds = u128::from(whole.as_secs()) * u128::from(random);
    // The seconds times 2^64, and what is below one of them in nanoseconds.
    let (secs, rest) = ((seconds >> 64) as u64, seconds as u64);
    let nanos = (u128::from(rest) * 1_000_000_000) >> 64;
    let subsec = (u128::from(whole.subsec_nanos()) * u128::from(random)) >> 64;
    Duration::from_secs(secs) + Duration::from_nanos((nanos + subsec) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Evenly drawn numbers for a fleet (splitmix64).
    fn fleet(hosts: u64) -> impl Iterator<Item = u64> {
        (1..=hosts).map(|host| {
            let mut z = host.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    #[test]
    fn a_fleet_started_at_once_spreads_over_the_interval() {
        const HOSTS: u64 = 36_000;
        let mut per_minute = [0u32; 60];
        for random in fleet(HOSTS) {
            let at = first(HOUR, random);
            assert!(at < HOUR);
            per_minute[(at.as_secs() / 60) as usize] += 1;
        }
        // 600 are expected in each; 20 % is more than four standard deviations.
        assert!(per_minute.iter().all(|hosts| (480..=720).contains(hosts)), "{per_minute:?}");
    }

    #[test]
    fn later_ones_keep_the_interval_and_are_a_tenth_off_at_most() {
        let mut sum = Duration::ZERO;
        for random in fleet(10_000) {
            let pause = next(HOUR, random);
            assert!(pause >= HOUR * 9 / 10 && pause <= HOUR * 11 / 10, "{pause:?}");
            sum += pause;
        }
        let mean = sum / 10_000;
        assert!(mean.abs_diff(HOUR) < HOUR / 100, "{mean:?}");
        assert_eq!(next(HOUR, 0), HOUR * 9 / 10);
        assert!(next(HOUR, u64::MAX) > HOUR * 11 / 10 - Duration::from_micros(1));
    }

    #[test]
    fn a_suspend_of_hours_is_followed_by_one_at_once_and_the_next_in_time() {
        let mut schedule = Schedule::default();
        let interval = Some(HOUR);
        assert!(!schedule.take(interval, HOUR * 100, 0) && schedule.left(HOUR).is_none());
        schedule.begin(interval, HOUR, 1 << 63);
        assert_eq!(schedule.left(HOUR), Some(HOUR / 2));
        assert!(!schedule.take(interval, HOUR * 3 / 2 - Duration::from_nanos(1), 0));
        let resumed = HOUR * 9;
        assert_eq!(schedule.left(resumed), Some(Duration::ZERO));
        assert!(schedule.take(interval, resumed, 1 << 63));
        assert!(!schedule.take(interval, resumed, 1 << 63), "one for all that were missed");
        assert_eq!(schedule.left(resumed), Some(HOUR));
        // Switched off meanwhile.
        assert!(!schedule.take(None, resumed * 2, 0) && schedule.left(resumed).is_none());
    }

    #[test]
    fn any_interval_is_divided_exactly() {
        assert_eq!(share(Duration::from_secs(3), 1 << 63), Duration::from_millis(1500));
        assert_eq!(share(Duration::from_millis(1), 1 << 63), Duration::from_micros(500));
        assert_eq!(share(Duration::ZERO, u64::MAX), Duration::ZERO);
        let longest = share(Duration::MAX, u64::MAX);
        assert!(longest < Duration::MAX && longest > Duration::MAX / 2);
        assert_eq!(first(Duration::MAX, 0), Duration::ZERO);
        assert!(next(Duration::MAX / 2, u64::MAX) > Duration::MAX / 2);
    }
}
