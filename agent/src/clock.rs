//! The clock that goes on while the host is suspended.
//!
//! What is promised per hour or per second (rates, pacing, keepalives) is promised to people
//! and receivers, for whom a suspended host's time passes too: it follows `CLOCK_BOOTTIME`.
//! What is waited for inside this host (halves of records, sockets, answers) stands still
//! with it and stays on `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`: a suspend must not
//! use up anybody's patience. Nothing here follows the wall clock, so setting that one disturbs
//! nothing. See `clock_gettime(2)`.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::capture::wait::now_ns;

/// Two looks at two clocks are further apart than this only after a suspend, or if the thread
/// was held up between them; then the next look puts it right.
const UNSUSPENDED_NS: u64 = 10_000_000;

/// `CLOCK_BOOTTIME` in nanoseconds.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `CLOCK_BOOTTIME` as time since the boot.
#[must_use]
pub fn since_boot() -> Duration {
    Duration::from_nanos(boot_ns())
}

/// How long the host was suspended in all: what is added to `CLOCK_MONOTONIC` to get
/// `CLOCK_BOOTTIME`. Only [`Self::of_this_host`] reads the clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspended {
    total_ns: u64,
}

impl Suspended {
    /// What there was until now.
    #[must_use]
    pub fn of_this_host() -> Self {
        let mut suspended = Self::default();
        suspended.look(now_ns(), boot_ns());
        suspended
    }

    /// Takes a look at both clocks, the monotonic one first, and returns the total. It does not
    /// waver with the time between the two looks.
    pub fn look(&mut self, monotonic_ns: u64, boot_ns: u64) -> u64 {
        let total_ns = boot_ns.saturating_sub(monotonic_ns);
        if total_ns.abs_diff(self.total_ns) > UNSUSPENDED_NS {
            self.total_ns = total_ns;
        }
        self.total_ns
    }

    /// What the last look found.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn a_suspend_is_seen_and_the_time_between_two_looks_is_not() {
        let mut suspended = Suspended::default();
        assert_eq!(suspended.look(5_000, 5_080), 0);
        assert_eq!(suspended.look(6_000, 6_000 + 8 * HOUR_NS), 8 * HOUR_NS);
        assert_eq!(suspended.look(7_000, 9_000 + 8 * HOUR_NS), 8 * HOUR_NS);
        // A thread that was held up, and the look after that.
        assert_eq!(suspended.look(9_000, 9_000 + 9 * HOUR_NS), 9 * HOUR_NS);
        assert_eq!(suspended.look(10_000, 10_050 + 8 * HOUR_NS), 8 * HOUR_NS + 50);
    }

    #[test]
    fn the_clock_of_boots_is_not_behind_the_monotonic_one() {
        let monotonic_ns = now_ns();
        assert!(boot_ns() >= monotonic_ns);
        assert!(since_boot() >= Duration::from_nanos(monotonic_ns));
    }
}
