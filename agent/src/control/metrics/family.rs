//! What a metric is: its name by type and unit, its labels, its meaning, and what reads its values.

use std::fmt;

use prometheus_client::{metrics::MetricType, registry::Unit};

use super::{samples::Samples, view::Scrape};

/// Begins every name.
pub const PREFIX: &str = "netconsole_agent";

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the agent restarts; its name ends in `_total`.
    Counter,
    /// May rise and fall.
    Gauge,
    /// Counts by size; with `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1, with what is to be known in its labels; its name ends in `_info`.
    Info,
}

impl Kind {
    pub(super) fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// Unit of a metric; it is part of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseUnit {
    Seconds,
    Bytes,
}

impl From<BaseUnit> for Unit {
    fn from(unit: BaseUnit) -> Self {
        match unit {
            BaseUnit::Seconds => Self::Seconds,
            BaseUnit::Bytes => Self::Bytes,
        }
    }
}

/// A metric with its series.
#[derive(Debug)]
pub struct Family {
    /// Its name without prefix, unit and what its type adds.
    pub(super) name: &'static str,
    pub(super) unit: Option<BaseUnit>,
    pub(super) kind: Kind,
    /// The labels of each series.
    pub labels: &'static [&'static str],
    /// What it means, in one sentence.
    pub help: &'static str,
    pub(super) samples: fn(&Scrape, &mut Samples<'_>) -> fmt::Result,
}

impl Family {
    /// Its name as it is queried; for a histogram without `_bucket`, `_sum` or `_count`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let mut name = format!("{PREFIX}_{}", self.name);
        if let Some(unit) = self.unit {
            name = format!("{name}_{}", Unit::from(unit).as_str());
        }
        match self.kind {
            Kind::Counter => name + "_total",
            Kind::Info => name + "_info",
            Kind::Gauge | Kind::Histogram => name,
        }
    }
}

const TARGET: &[&str] = &["target"];
const NONE: &[&str] = &[];

pub(super) const fn of_target(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>) -> fmt::Result,
) -> Family {
    Family { name, unit: None, kind, labels: TARGET, help, samples }
}

pub(super) const fn of_agent(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>) -> fmt::Result,
) -> Family {
    Family { name, unit: None, kind, labels: NONE, help, samples }
}
