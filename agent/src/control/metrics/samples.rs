//! Takes the series of one metric, and writes them as prometheus-client encodes them. It knows
//! nothing of what is measured.

use std::fmt;

use prometheus_client::encoding::{EncodeGaugeValue, MetricEncoder, NoLabelSet};

use super::{
    family::Family,
    view::{Scrape, TargetScrape},
};
use crate::ledger::Ledger;

type Labels<'a> = [(&'a str, &'a str)];

/// Takes the series of one metric.
pub(super) struct Samples<'a> {
    labels: &'static [&'static str],
    metric: MetricEncoder<'a>,
}

impl<'a> Samples<'a> {
    pub(super) fn new(family: &Family, metric: MetricEncoder<'a>) -> Self {
        Self { labels: family.labels, metric }
    }

    /// Writes one series.
    fn series(
        &mut self,
        labels: &Labels<'_>,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(self.labels), "{labels:?}");
        if labels.is_empty() {
            return write(&mut self.metric);
        }
        write(&mut self.metric.encode_family(&labels)?)
    }

    pub(super) fn counter(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        self.series(labels, |metric| metric.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    pub(super) fn counter_s(&mut self, labels: &Labels<'_>, seconds: f64) -> fmt::Result {
        self.series(labels, |metric| metric.encode_counter::<NoLabelSet, _, f64>(&seconds, None))
    }

    pub(super) fn gauge(
        &mut self,
        labels: &Labels<'_>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.series(labels, |metric| metric.encode_gauge(&value))
    }

    pub(super) fn info(&mut self, labels: &Labels<'_>) -> fmt::Result {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(self.labels), "{labels:?}");
        self.metric.encode_info(&labels)
    }

    pub(super) fn histogram(&mut self, labels: &Labels<'_>, target: &TargetScrape) -> fmt::Result {
        let heals = &target.heals;
        self.series(labels, |metric| {
            let sum = heals.total().as_secs_f64();
            metric.encode_histogram::<NoLabelSet>(sum, heals.count(), &heals.buckets(), None)
        })
    }

    pub(super) fn of_ledgers(
        &mut self,
        scrape: &Scrape,
        value: impl Fn(&Ledger) -> u64,
    ) -> fmt::Result {
        let mut targets = scrape.targets.iter();
        targets
            .try_for_each(|target| self.counter(&[("target", &target.name)], value(&target.ledger)))
    }
}
