//! Judges basic targets. Their datagrams carry no seq, so they are compared in
//! order with what the records call for.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::super::kernel::version;
use super::super::record::Record;
use super::{Evidence, JOINED, KERNEL_BASE, Target, WITHOUT_PROGRAM, passed, shown};

impl Evidence<'_> {
    /// How many of the phase's records the kernel's netconsole sent as expected.
    pub(super) fn kernel_basic(&self, phase: &str) -> Result<String> {
        let records = self.report.phase(phase)?;
        let buffer_bytes = self.console_buffer_bytes()?;
        let sent = self.payloads(KERNEL_BASE + Target::Basic.offset());
        let mut rest = sent.as_slice();
        let found =
            records.iter().filter(|record| advance(record, buffer_bytes, &mut rest)).count();
        ensure!(found > 0, "none of {} records was sent", records.len());
        Ok(format!("{found} of {} records as expected", records.len()))
    }

    /// Whether the agent sent the phase's records, one after the other. Where
    /// `/dev/kmsg` shows only a part of a text, what the kernel sent is the
    /// reference, unless the agent has nothing but `/dev/kmsg` either.
    pub(super) fn agent_basic(&self, phase: &str, port: u16) -> Result<String> {
        let records = self.report.phase(phase)?;
        let buffer_bytes = self.console_buffer_bytes()?;
        let sent = self.payloads(port);
        let first = records.first().context("no records")?.basic(buffer_bytes);
        // Where the time is approximated, the text must do.
        let mark = &first[0][first[0].iter().position(|&byte| byte == b']').unwrap_or(0)..];
        let start = sent.iter().position(|payload| payload.ends_with(mark));
        let start = start.with_context(|| format!("{} was not sent", shown(&first)))?;
        let kernels = self.payloads(KERNEL_BASE + Target::Basic.offset());
        let kernels: BTreeSet<&[u8]> = kernels.into_iter().collect();
        let mut rest = &sent[start..];
        let (mut same, mut approximated) = (0, 0);
        for record in records {
            let seq = record.seq;
            let time = rest.first().and_then(|payload| printed_time_us(payload));
            if phase == JOINED
                && let Some(time) = time.filter(|&time| time != record.timestamp_us)
                && let Some(count) = datagrams_of(&record.approximated(time)?, buffer_bytes, rest)
            {
                approximated += 1;
                rest = &rest[count..];
                continue;
            }
            let Some(count) = datagrams_of(record, buffer_bytes, rest) else {
                let expected = shown(&record.basic(buffer_bytes));
                bail!(
                    "seq {seq}: {expected} was expected, not {}",
                    shown(&rest[..rest.len().min(1)])
                )
            };
            let (ours, later) = rest.split_at(count);
            let also_the_kernel = ours.iter().all(|payload| kernels.contains(payload));
            ensure!(
                also_the_kernel || !record.is_cut || phase == WITHOUT_PROGRAM,
                "seq {seq}: the kernel did not send {}",
                shown(ours)
            );
            same += usize::from(also_the_kernel);
            rest = later;
        }
        passed(records.len(), same, approximated)
    }

    /// `PRINTK_MESSAGE_MAX` since 6.3, `CONSOLE_LOG_MAX` before.
    fn console_buffer_bytes(&self) -> Result<usize> {
        let since_6_3 = version(self.report.info("release")?) >= vec![6, 3];
        Ok(if since_6_3 { 2048 } else { 1024 })
    }
}

/// The time in the prefix of a printed line.
fn printed_time_us(payload: &[u8]) -> Option<u64> {
    let prefix = payload.strip_prefix(b"[")?.split(|&byte| byte == b']').next()?;
    let (seconds, micros) = std::str::from_utf8(prefix).ok()?.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// How many datagrams at the start of `sent` are the record's, if they are.
fn datagrams_of(record: &Record, buffer_bytes: usize, sent: &[&[u8]]) -> Option<usize> {
    let expected = record.basic(buffer_bytes);
    if !record.is_cut {
        let same = expected.iter().zip(sent).all(|(expected, sent)| expected == sent);
        return (same && sent.len() >= expected.len()).then_some(expected.len());
    }
    let last = sent.iter().position(|payload| payload.ends_with(b"\n"))?;
    let known = expected.concat();
    let known = known.strip_suffix(b"\n").unwrap_or(&known);
    sent[..=last].concat().starts_with(known).then_some(last + 1)
}

/// Moves `rest` behind the record's datagrams, if they are in it.
fn advance(record: &Record, buffer_bytes: usize, rest: &mut &[&[u8]]) -> bool {
    for start in 0..rest.len() {
        if let Some(count) = datagrams_of(record, buffer_bytes, &rest[start..]) {
            *rest = &rest[start + count..];
            return true;
        }
    }
    false
}
