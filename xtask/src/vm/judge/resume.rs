//! Judges what arrived while the agent was killed and started again under load, in the source
//! whose programs see whole records.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::super::record::messages;
use super::{Evidence, ending::Ending};

const PHASE: &str = "resume";
const PORT: u16 = 7965;
/// So many records were logged at least; with fewer there was no load.
const RECORDS_MIN: usize = 500;

#[derive(Deserialize)]
struct Capture {
    source: String,
    replayed: u64,
}

impl Evidence<'_> {
    /// Whether every record arrived, and what came twice was the same.
    pub(super) fn resume(&self) -> Result<String> {
        let text = self.report.info("status-resume")?;
        let status: Ending<Capture> = serde_json::from_str(text).context("the agent's status")?;
        ensure!(status.capture.source == "commit", "the source was {}", status.capture.source);
        ensure!(status.capture.replayed > 0, "the last run replayed nothing");
        let account = &status.targets.first().context("no target")?.account;
        let lost: u64 = account.lost.values().sum();
        ensure!(
            account.balances && account.queued == 0 && lost == 0,
            "the last run's account: {text}"
        );
        let records = self.report.phase(PHASE)?;
        ensure!(records.len() >= RECORDS_MIN, "only {} records were logged", records.len());
        let first = records.first().context("no records")?.seq;
        let mut came: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut twice = 0;
        // A run that is killed may leave a message in fragments without its end; all records of
        // the phase are short.
        let is_whole = |payload: &&&[u8]| !String::from_utf8_lossy(payload).contains(",ncfrag=");
        for payload in self.records_on(PORT).iter().filter(is_whole) {
            for message in messages(&[*payload], false)? {
                let before = came.insert(message.seq, message.body.clone());
                twice += usize::from(before.is_some());
                let same = before.is_none_or(|before| before == message.body);
                ensure!(same, "seq {} came twice, and not alike", message.seq);
            }
        }
        let mut missing = Vec::new();
        for record in records {
            match came.get(&record.seq) {
                None => missing.push(record.seq),
                Some(body) => ensure!(*body == record.body, "seq {} is not the record", record.seq),
            }
        }
        ensure!(missing.is_empty(), "{} records are missing: {missing:?}", missing.len());
        let before = came.range(..first).count();
        ensure!(before > 0, "nothing was replayed of what was logged before");
        let ends = self.report.info("resume-ends")?;
        Ok(format!(
            "{} records over {ends} ends of the agent, {twice} came twice; {before} of before",
            records.len()
        ))
    }
}
