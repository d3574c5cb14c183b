//! What the control thread shows of the agent: the status, and the pages for monitoring. It reads
//! counters and asks others for theirs; it changes nothing.

use std::{
    sync::atomic::Ordering,
    time::{Instant, SystemTime},
};

use super::{
    desk::Desk,
    manager::Manager,
    metrics::{self, Page, Question, view::Scrape},
    progress::{Progress, Turns},
    socket::Refusals,
    status::{CaptureStatus, ShedStatus, Status},
};
use crate::{
    capture::{SourceReport, bpf::Probes, kmsg::KmsgStats, sequencer::Begin},
    pump::PumpStats,
};

/// What `status` looks at besides the targets.
pub(super) struct ControlView<'a> {
    pub(super) started: Instant,
    pub(super) source: &'a SourceReport,
    pub(super) begin: Begin,
    pub(super) netdev_by: String,
    pub(super) probes: Option<&'a Probes>,
    pub(super) pump_stats: &'a PumpStats,
    pub(super) kmsg_stats: &'a KmsgStats,
    pub(super) refusals: &'a Refusals,
    pub(super) started_at: SystemTime,
    pub(super) store_bytes: usize,
    pub(super) metrics_error: Option<String>,
}

impl ControlView<'_> {
    /// The turns of the data threads' loops, as they count them.
    pub(super) fn turns(&self) -> Turns {
        let kmsg = self.kmsg_stats;
        // It counts what it reads, and its waits; a nap is neither, but follows one of them.
        let kmsg = [&kmsg.read, &kmsg.wakeups, &kmsg.overwritten, &kmsg.malformed];
        let kmsg = kmsg.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        [self.pump_stats.rounds.load(Ordering::Relaxed), kmsg]
    }

    pub(super) fn page(
        &self,
        question: Question,
        manager: &Manager,
        desk: &Desk,
        progress: &Progress,
    ) -> Page {
        match question {
            Question::Metrics => self.scrape(manager, desk, progress).page(),
            Question::Health => metrics::view::health(progress),
            Question::Ready => metrics::view::ready(progress, &self.status(manager, desk)),
        }
    }

    fn scrape(&self, manager: &Manager, desk: &Desk, progress: &Progress) -> Scrape {
        let Status { capture, refused, config_generation, config_error, after_crash, .. } =
            self.status(manager, desk);
        Scrape {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started_at,
            config_generation,
            config_good: config_error.is_none(),
            store_bytes: self.store_bytes,
            depths: [
                &self.pump_stats.store_needed_bytes,
                &self.pump_stats.ring_used_bytes,
                &self.pump_stats.kmsg_waiting,
            ]
            .map(|depth| depth.load(Ordering::Relaxed)),
            capture,
            programs: self.probes.map(Probes::runs).unwrap_or_default(),
            refused,
            still: progress.still(),
            after_crash_dumps: after_crash.dumps.len() as u64,
            after_crash_unusable: after_crash.unusable,
            targets: manager.scrape(),
        }
    }

    pub(super) fn status(&self, manager: &Manager, desk: &Desk) -> Status {
        let programs = self.probes.map(Probes::counters).unwrap_or_default();
        let (pump, kmsg) = (self.pump_stats, self.kmsg_stats);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            capture: CaptureStatus {
                source: self.source.kind.name().to_owned(),
                hook: self.source.hook.map(|hook| hook.name().to_owned()),
                reason: self.source.reason.clone(),
                netdev_events: self.netdev_by.clone(),
                first_seq: self.begin.first_seq,
                captured: programs.captured,
                ring_full: programs.ring_full,
                shed: ShedStatus::new(programs.shed),
                read_errors: programs.read_error,
                recursion_misses: programs.recursion_misses,
                kmsg_read: kmsg.read.load(Ordering::Relaxed),
                kmsg_overwritten: kmsg.overwritten.load(Ordering::Relaxed),
                completed: pump.completed.load(Ordering::Relaxed),
                approximated: pump.approximated.load(Ordering::Relaxed),
                backfilled: pump.backfilled.load(Ordering::Relaxed),
                replayed: pump.replayed.load(Ordering::Relaxed),
                malformed: pump.malformed.load(Ordering::Relaxed),
                mismatched: pump.mismatched.load(Ordering::Relaxed),
                wakeups: pump.wakeups.load(Ordering::Relaxed)
                    + kmsg.wakeups.load(Ordering::Relaxed),
            },
            last_words: manager.last_words_status(),
            targets: manager.status(),
            config_error: desk.error.clone(),
            config_generation: desk.generation,
            removed: desk.removed.clone(),
            refused: self.refusals.read(),
            metrics_error: self.metrics_error.clone(),
            after_crash: manager.after_crash_status(),
        }
    }
}
