//! Judges what left the VM around a suspend and changes of the wall clock.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::super::record::{Record, messages};
use super::Evidence;

const PHASE: &str = "clocks";
const PORT_ALL: u16 = 8063;
const PORT_LIMITED: u16 = 8064;
/// What the rate of the limited target lets through in a period.
const RATE: usize = 5;

impl Evidence<'_> {
    /// Whether every record was sent once and in order, and how many keepalives there were.
    pub(super) fn clocks_all(&self) -> Result<String> {
        let suspended_s = self.report.info("suspended")?;
        let records = self.report.phase(PHASE)?;
        let first = records.first().context("no records")?.seq;
        let payloads = self.records_on(PORT_ALL);
        let keepalives = self.payloads(PORT_ALL).len() - payloads.len();
        let sent = messages(&payloads, false)?;
        let mut ours = sent.iter().skip_while(|message| message.seq < first);
        for Record { seq, body, .. } in records {
            let message = ours.next().with_context(|| format!("seq {seq} is missing"))?;
            ensure!(message.seq == *seq, "seq {} came instead of {seq}", message.seq);
            ensure!(message.body == *body, "seq {seq} is not the record");
        }
        ensure!(keepalives >= 3, "{keepalives} keepalives");
        Ok(format!("{} records, {keepalives} keepalives, {suspended_s} s suspended", records.len()))
    }

    /// Whether the rate let a period's worth through before the suspend, after it, and nothing
    /// more because the wall clock was set.
    pub(super) fn clocks_limited(&self) -> Result<String> {
        let records = self.report.phase(PHASE)?;
        let of_rate = |record: &&Record| record.facility == 16;
        let groups = ["before the suspend", "after the resume"].map(|when| {
            let start = format!("limited {when} ");
            records
                .iter()
                .filter(of_rate)
                .filter(|record| record.body.starts_with(start.as_bytes()))
                .map(|record| record.seq)
                .take(RATE)
                .collect::<Vec<u64>>()
        });
        let wanted: BTreeSet<u64> = groups.concat().into_iter().collect();
        ensure!(wanted.len() == 2 * RATE, "the records for the rate were not logged");
        let first = records.first().map_or(0, |record| record.seq);
        let sent = messages(&self.records_on(PORT_LIMITED), false)?;
        let sent: Vec<u64> =
            sent.iter().map(|message| message.seq).filter(|seq| *seq >= first).collect();
        let logged = records.iter().filter(of_rate).count();
        ensure!(
            sent.iter().copied().collect::<BTreeSet<u64>>() == wanted && sent.len() == wanted.len(),
            "{sent:?} were sent of {logged}, not {wanted:?}"
        );
        Ok(format!("{} of {logged} records passed", sent.len()))
    }
}
