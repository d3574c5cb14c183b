//! The agent's own log: to standard error, where systemd and people read it.
//!
//! Never to the kernel log. journald may forward this log there, and what is
//! logged comes back as records to be sent; so nothing is logged per record, and
//! what repeats is limited ([`Limited`]).

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// Names the variable that sets the level, such as `debug` or `netconsole_agent::net=trace`.
pub const LEVEL_VARIABLE: &str = "NETCONSOLE_AGENT_LOG";

type Levels = reload::Handle<EnvFilter, Registry>;

/// The level in use, and how to change it.
static LEVELS: OnceLock<(Mutex<String>, Levels)> = OnceLock::new();

/// Starts logging; a second call changes nothing.
pub fn start() {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let (level, filter) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (wanted, filter),
        Err(_) => ("info".to_owned(), EnvFilter::new("info")),
    };
    let (filter, levels) = reload::Layer::new(filter);
    let log = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // journald stamps each line itself.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(log.without_time().with_ansi(false)).try_init()
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(log.with_ansi(ansi)).try_init()
    };
    // Somebody else, such as a test, may log already.
    if result.is_ok() {
        let _ = LEVELS.set((Mutex::new(level), levels));
    }
}

/// Changes the level, written as in [`LEVEL_VARIABLE`]; returns the one before.
///
/// # Errors
/// If it is not understood, or nothing is logged.
pub fn set_level(level: &str) -> Result<String, String> {
    let (current, levels) = LEVELS.get().ok_or("this agent does not log")?;
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("the level {level:?} is not understood: {error}"))?;
    levels.reload(filter).map_err(|error| error.to_string())?;
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::replace(&mut current, level.to_owned()))
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
