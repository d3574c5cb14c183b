//! Whether the data threads move: for the health page, the log, and systemd's watchdog.
//!
//! What is looked at is what each thread counts itself on each turn of its loop, never a timer:
//! the pump turns at least every 12.5 ms, the thread of `/dev/kmsg` every 250 ms, with or
//! without records. So whatever holds a thread (a lock, a loop, a system call that does not
//! come back, a debugger) is noticed, and nothing else is.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// A thread that has not moved for this long stands still: 240 turns of the pump, twelve of
/// the other one, and well below any useful time of a watchdog.
const STILL_AFTER: Duration = Duration::from_secs(3);
/// The control thread looks at least this often. What is longer was its own absence
/// (the whole process was stopped), and no thread's fault.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The names of the threads, as the system shows them.
pub const THREADS: [&str; 2] = ["pump", "kmsg"];

/// What each of [`THREADS`] has counted.
pub type Turns = [u64; THREADS.len()];

/// See the module's description.
#[derive(Debug)]
pub struct Progress {
    turns: Option<Turns>,
    still_for: [Duration; THREADS.len()],
    told: [bool; THREADS.len()],
    looked_at: Instant,
}

impl Progress {
    /// Nothing has stood still yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            turns: None,
            still_for: [Duration::ZERO; THREADS.len()],
            told: [false; THREADS.len()],
            looked_at: now,
        }
    }

    /// Looks at the counts, and logs once if a thread stands still, and if it moves again.
    pub fn look(&mut self, now: Instant, turns: Turns) {
        let passed = now.saturating_duration_since(self.looked_at).min(LOOK_MAX);
        self.looked_at = now;
        for (index, name) in THREADS.into_iter().enumerate() {
            let moved = self.turns.is_none_or(|before| before[index] != turns[index]);
            let still_for = &mut self.still_for[index];
            *still_for = if moved { Duration::ZERO } else { *still_for + passed };
            let still = *still_for >= STILL_AFTER;
            if still && !self.told[index] {
                tracing::error!(
                    thread = name,
                    "A data thread makes no progress; systemd's watchdog, if there is one, will restart the agent."
                );
            } else if moved && self.told[index] {
                tracing::info!(thread = name, "The data thread makes progress again.");
            }
            self.told[index] = still;
        }
        self.turns = Some(turns);
    }

    /// Which threads stand still; all `false` is well.
    #[must_use]
    pub fn still(&self) -> [bool; THREADS.len()] {
        self.still_for.map(|still_for| still_for >= STILL_AFTER)
    }

    /// What is wrong, in a line.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let still = THREADS.into_iter().zip(self.still_for);
        let still: Vec<_> = still
            .filter(|(_, still_for)| *still_for >= STILL_AFTER)
            .map(|(name, still_for)| {
                format!("the {name} thread has made no progress for {} s", still_for.as_secs())
            })
            .collect();
        (!still.is_empty()).then(|| still.join("; "))
    }
}

/// systemd's watchdog (`WatchdogSec=`, sd_watchdog_enabled(3)): a sign of life at half of its
/// time, if every thread has moved since the last one.
#[derive(Debug)]
pub struct Watchdog {
    due: Option<Interval>,
    turns: Option<Turns>,
}

impl Watchdog {
    /// The one that this process was started with, if any.
    #[must_use]
    pub fn of_this_service() -> Self {
        let due = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()).map(|time| {
            let half = time / 2;
            let mut due = interval_at(tokio::time::Instant::now() + half, half);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due
        });
        Self { due, turns: None }
    }

    /// Waits until a sign of life is due; for ever if nobody wants one. May be dropped at any time.
    pub async fn due(&mut self) {
        match &mut self.due {
            Some(due) => drop(due.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Gives the sign of life, if it is deserved.
    pub fn tick(&mut self, turns: Turns) {
        if self.deserves(turns) {
            // systemd that cannot be reached will do what it thinks right.
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }

    fn deserves(&mut self, turns: Turns) -> bool {
        let moved = self.turns.is_none_or(|before| before.iter().zip(&turns).all(|(a, b)| a != b));
        if moved {
            self.turns = Some(turns);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_named_until_it_moves() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let at = |second: u64| begin + Duration::from_secs(second);
        progress.look(at(0), [1, 1]);
        for second in 1..=2 {
            progress.look(at(second), [1, 1 + second]);
            assert_eq!(progress.trouble(), None);
        }
        progress.look(at(3), [1, 4]);
        assert_eq!(progress.still(), [true, false]);
        let trouble = "the pump thread has made no progress for 3 s";
        assert_eq!(progress.trouble().as_deref(), Some(trouble));
        progress.look(at(4), [2, 5]);
        assert_eq!(progress.still(), [false, false]);
    }

    #[test]
    fn a_process_that_was_stopped_is_not_blamed_on_its_threads() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        progress.look(begin, [1, 1]);
        progress.look(begin + Duration::from_secs(3600), [1, 1]);
        assert_eq!(progress.still(), [false, false]);
    }

    #[test]
    fn a_sign_of_life_needs_every_thread_to_have_moved() {
        let mut watchdog = Watchdog { due: None, turns: None };
        assert!(watchdog.deserves([1, 1]));
        assert!(!watchdog.deserves([2, 1]));
        assert!(!watchdog.deserves([1, 2]));
        assert!(watchdog.deserves([2, 2]));
    }
}
