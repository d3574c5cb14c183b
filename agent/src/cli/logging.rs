//! The agent's own log: to standard error, where systemd and people read it.
//!
//! Never to the kernel log. journald may forward this log there, and what is
//! logged comes back as records to be sent; so nothing is logged per record, and
//! what repeats is limited ([`Limited`]).

use std::time::{Duration, Instant};

use tracing_subscriber::{EnvFilter, fmt};

/// Names the variable that sets the level, such as `debug` or `netconsole_agent::net=trace`.
pub const LEVEL_VARIABLE: &str = "NETCONSOLE_AGENT_LOG";

/// Starts logging; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // journald stamps each line itself.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().with_ansi(false).try_init()
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    // Somebody else, such as a test, may log already.
    drop(result);
}

/// Lets one message through per interval, after a burst, and counts the others.
#[derive(Debug)]
pub struct Limited {
    interval: Duration,
    burst: u32,
    /// Time saved up for messages to come; an interval pays for one.
    saved: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Limited {
    /// At most one message per `interval`.
    #[must_use]
    pub fn to_one_per(interval: Duration) -> Self {
        Self::to_bursts(1, interval)
    }

    /// At most `burst` messages at once, and one more per `interval`.
    #[must_use]
    pub fn to_bursts(burst: u32, interval: Duration) -> Self {
        Self { interval, burst, saved: interval * burst, last: None, suppressed: 0 }
    }

    /// `Some` with the number of messages left out before, if this one may be logged.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        let passed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        self.saved = (self.saved + passed).min(self.interval * self.burst);
        match self.saved.checked_sub(self.interval) {
            Some(left) => {
                self.saved = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_per_interval_and_the_rest_is_counted() {
        let mut limited = Limited::to_one_per(Duration::from_secs(60));
        let start = Instant::now();
        assert_eq!(limited.allow(start), Some(0));
        for second in 1..60 {
            assert_eq!(limited.allow(start + Duration::from_secs(second)), None);
        }
        assert_eq!(limited.allow(start + Duration::from_secs(60)), Some(59));
    }
    #[test]
    fn a_burst_passes_and_is_saved_up_again() {
        let mut limited = Limited::to_bursts(3, Duration::from_secs(10));
        let start = Instant::now();
        let allowed = |limited: &mut Limited, second| {
            (0..5).filter(|_| limited.allow(start + Duration::from_secs(second)).is_some()).count()
        };
        assert_eq!(allowed(&mut limited, 0), 3);
        assert_eq!(allowed(&mut limited, 10), 1);
        assert_eq!(allowed(&mut limited, 1000), 3);
    }
}
