//! Judges what the agent says of itself at the end of a phase (`status --json`):
//! its account must balance, name no loss, and match the frames on the wire.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::super::xdp_defect::kernel_defect;
use super::{Evidence, Target};

/// The part of the agent's status that is judged.
#[derive(Deserialize)]
struct Status {
    capture: Capture,
    last_words: LastWords,
    targets: Vec<TargetStatus>,
}

#[derive(Deserialize)]
struct Capture {
    source: String,
    /// Records that came from `/dev/kmsg` alone because the programs did not deliver them.
    backfilled: u64,
}

#[derive(Deserialize)]
struct LastWords {
    /// What proves a panic.
    proof: Option<String>,
    /// Lines that were held.
    held: u64,
    /// Records that were sent as last words.
    spoken: u64,
}

#[derive(Deserialize)]
struct TargetStatus {
    name: String,
    egress: Option<Egress>,
    account: Account,
}

#[derive(Deserialize)]
struct Egress {
    kind: String,
}

#[derive(Deserialize)]
struct Account {
    first_seq: u64,
    next_seq: u64,
    sent: u64,
    packets: u64,
}

impl Evidence<'_> {
    /// Of how many records the agent says that it does not know who printed them.
    pub(super) fn told_without_context(&self, phase: &str) -> Result<u64> {
        let text = self.report.info(&format!("status-{phase}"))?;
        let status: Status = serde_json::from_str(text).context("the agent's status")?;
        Ok(status.capture.backfilled)
    }

    /// Whether every record of the phase is accounted for as sent on each target.
    pub(super) fn agent_account(&self, phase: &str, base: u16) -> Result<String> {
        let text = self.report.info(&format!("status-{phase}"))?;
        let status: Status = serde_json::from_str(text).context("the agent's status")?;
        let records = self.report.phase(phase)?;
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok("no records".to_owned());
        };
        let source = &status.capture.source;
        ensure!(source == phase, "the records were captured by {source}");
        // Panics are forged in each phase, and these kernels have a function to hook.
        let LastWords { proof, held, spoken } = &status.last_words;
        ensure!((*held, *spoken) == (0, 0), "{held} lines were held, {spoken} said, by no panic");
        let hooked = ["fentry vpanic", "kprobe panic"].map(Some).contains(&proof.as_deref());
        ensure!(
            if source == "kmsg" { proof.is_none() } else { hooked },
            "source {source}: a panic is proved by {proof:?}"
        );
        let mut kinds = BTreeSet::new();
        for target in Target::ALL {
            let name = target.name();
            let target_status = status.targets.iter().find(|status| status.name == name);
            let target_status = target_status.with_context(|| format!("no target {name}"))?;
            let Account { first_seq, next_seq, sent, packets } = target_status.account;
            ensure!(
                first_seq <= first.seq && last.seq < next_seq,
                "{name}: seq {first_seq} to {next_seq} was seen of {} to {}",
                first.seq,
                last.seq
            );
            ensure!(
                sent == next_seq - first_seq,
                "{name}: {sent} of {} records were sent",
                next_seq - first_seq
            );
            let captured = self.payloads(base + target.offset()).len() as u64;
            ensure!(
                captured == packets,
                "{name}: {packets} packets were counted, {captured} left the VM"
            );
            let is_sound = kernel_defect(self.report.info("release")?).is_none();
            let kind = target_status.egress.as_ref().map(|egress| egress.kind.as_str());
            ensure!(
                kind.is_some() && (kind == Some("xdp")) == is_sound,
                "{name}: sent by {kind:?}"
            );
            kinds.extend(kind);
        }
        Ok(format!("every record from seq {} to {} was sent by {kinds:?}", first.seq, last.seq))
    }
}
