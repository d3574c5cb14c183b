//! What the pages show: facts that others gathered, and their text.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::{Registry, Unit},
};

use super::{Page, families::FAMILIES, family::PREFIX, samples::Samples};
use crate::{
    capture::bpf::ProgramRuns,
    control::{
        life::heal::Heals,
        progress::{Progress, THREADS},
        status::{CaptureStatus, RefusedStatus, Status, after_crash::AfterCrashTarget},
    },
    ledger::Ledger,
    target::state::State,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that metrics are made of, at one moment.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Version of the agent.
    pub version: &'static str,
    /// When the agent started.
    pub started: SystemTime,
    /// How often a configuration has come into use.
    pub config_generation: u64,
    /// Whether the configuration that was read last is in use.
    pub config_good: bool,
    /// Size of the record store.
    pub store_bytes: usize,
    /// How full the queues are: bytes of the record store with what some target needs, bytes of the
    /// programs' ring, and records from `/dev/kmsg`.
    pub depths: [u64; 3],
    /// The source.
    pub capture: CaptureStatus,
    /// What the programs cost.
    pub programs: Vec<ProgramRuns>,
    /// What was refused at the control socket.
    pub refused: RefusedStatus,
    /// Whether each of [`THREADS`] stands still.
    pub still: [bool; THREADS.len()],
    /// Dumps of earlier boots that were found.
    pub after_crash_dumps: u64,
    /// Files of them that are of no use.
    pub after_crash_unusable: u64,
    /// The targets.
    pub targets: Vec<TargetScrape>,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetScrape {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// Since when; a waiting target may have changed what it waits for.
    pub since: SystemTime,
    /// Its account.
    pub ledger: Ledger,
    /// How often that was wrong.
    pub unbalanced: u64,
    /// Records that may have gone to a wrong MAC address.
    pub suspected: u64,
    /// Its outages.
    pub heals: Heals,
    /// How far it has come with what earlier boots left.
    pub after_crash: AfterCrashTarget,
}

impl Scrape {
    /// `/metrics`.
    #[must_use]
    pub fn page(self) -> Page {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Exposition(self)));
        let mut body = String::new();
        match text::encode(&mut body, &registry) {
            Ok(()) => Page { good: true, content_type: OPEN_METRICS, body },
            // Writing to a String does not fail.
            Err(error) => Page::text(false, format!("the metrics cannot be written: {error}\n")),
        }
    }
}

#[derive(Debug)]
struct Exposition(Scrape);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in FAMILIES {
            let unit = family.unit.map(Unit::from);
            let metric = encoder.encode_descriptor(
                family.name,
                family.help,
                unit.as_ref(),
                family.kind.metric_type(),
            )?;
            (family.samples)(&self.0, &mut Samples::new(family, metric))?;
        }
        Ok(())
    }
}

/// `/healthz`: the data threads move.
#[must_use]
pub fn health(progress: &Progress) -> Page {
    match progress.trouble() {
        None => Page::text(true, "ok\n".to_owned()),
        Some(trouble) => Page::text(false, format!("{trouble}\n")),
    }
}

/// `/readyz`: records are captured, so what is logged from now on is accounted for. A target
/// that waits for its network does not make the agent unready: restarting it, or keeping a
/// rollout from going on, would not help that; its state is in the body and in the metrics.
#[must_use]
pub fn ready(progress: &Progress, status: &Status) -> Page {
    let trouble = progress.trouble();
    let mut body = match &trouble {
        None => format!("ready: records are captured by {}\n", status.capture.source),
        Some(trouble) => format!("not ready: {trouble}\n"),
    };
    for target in &status.targets {
        body.push_str(&format!("{}: {}", target.name, target.state));
        if let (Some(kind), Some(why)) = (&target.waiting_kind, &target.waiting_for) {
            let why = crate::receive::render::printable(why.as_bytes());
            body.push_str(&format!(" ({kind}): {why}"));
        }
        body.push('\n');
    }
    Page::text(trouble.is_none(), body)
}

/// Seconds since 1970.
pub(super) fn unix_s(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
