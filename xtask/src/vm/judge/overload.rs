//! Judges what became of a flood that the programs' ring could not hold, because the agent
//! stood still meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::super::record::messages;
use super::{Evidence, ending::Ending};

const PHASE: &str = "overload";
const PORT: u16 = 7963;
/// The severest level that may be left out.
const WARNING: u64 = 4;
/// So many of the newest records the kernel still has when the agent goes on: they must come.
const STILL_THERE: u64 = 1_000;

#[derive(Deserialize)]
struct Capture {
    ring_full: u64,
    backfilled: u64,
    shed: BTreeMap<String, u64>,
}

impl Evidence<'_> {
    /// Whether the severest records arrived, the mildest were left out first, and the account
    /// tells exactly how many are missing.
    pub(super) fn overload(&self) -> Result<String> {
        let text = self.report.info("status-overload")?;
        let status: Ending<Capture> = serde_json::from_str(text).context("the agent's status")?;
        let records = self.report.phase(PHASE)?;
        let sent = messages(&self.records_on(PORT), false)?;
        let seqs: BTreeSet<u64> = sent.iter().map(|message| message.seq).collect();
        ensure!(seqs.len() == sent.len(), "{} seqs came twice", sent.len() - seqs.len());
        let mut missing = BTreeMap::new();
        let (mut first_missing, mut newest_missing) = (BTreeMap::new(), BTreeMap::new());
        for record in records.iter().filter(|record| !seqs.contains(&record.seq)) {
            ensure!(
                record.level >= WARNING,
                "seq {} of level {} is missing",
                record.seq,
                record.level
            );
            *missing.entry(record.level).or_insert(0_u64) += 1;
            first_missing.entry(record.level).or_insert(record.seq);
            newest_missing.insert(record.level, record.seq);
        }
        for message in &sent {
            if let Ok(at) = records.binary_search_by_key(&message.seq, |record| record.seq) {
                let ours = message.body == records[at].body;
                ensure!(ours, "seq {} is not the record", message.seq);
            }
        }
        // From the mildest on each is given up later than the one before.
        let order: Vec<u64> = first_missing.values().rev().copied().collect();
        ensure!(
            missing.len() == 4 && order.is_sorted(),
            "not in the order of severity: the first missing by level are {first_missing:?}"
        );
        let severe = records.iter().filter(|record| record.level < WARNING).count();
        ensure!(severe > 90, "only {severe} severe records were logged");

        let account = &status.targets.first().context("no target")?.account;
        let (lost, gone): (u64, u64) = (account.lost.values().sum(), missing.values().sum());
        ensure!(account.balances && account.queued == 0, "the account does not balance: {text}");
        ensure!(lost == gone, "{lost} were counted as lost, {gone} are missing: {missing:?}");
        let Capture { ring_full, backfilled, shed } = &status.capture;
        let newest = records.last().context("no records")?.seq;
        let gone_last = *newest_missing.values().max().context("nothing is missing")?;
        ensure!(
            *backfilled > 0 && gone_last + STILL_THERE < newest,
            "{backfilled} were filled in, and of the newest {newest} still {gone_last} is missing"
        );
        let shed: u64 = shed.values().sum();
        // Some of what was left out may have been read from /dev/kmsg.
        ensure!(*ring_full == 0 && shed >= gone, "{shed} were left out, {ring_full} had no room");
        Ok(format!(
            "{severe} severe records arrived; missing by level: {missing:?}, left out {shed}, \
             filled in {backfilled}"
        ))
    }
}
