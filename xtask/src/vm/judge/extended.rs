//! Judges extended targets: header, body, extra data and the places where a long
//! message is cut, message by message.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::super::kernel::version;
use super::super::record::{Message, Record, fragments, messages};
use super::{Evidence, JOINED, KERNEL_BASE, Target, WITHOUT_PROGRAM, passed, shown};

/// The thread that writes the test records, and its CPU.
const WRITER: (&str, &str) = ("vm_writer", "1");
/// The thread that writes in between, and what its records begin with.
const DISTURBER: (&str, &str) = ("vm_disturber", "0");
const DISTURBANCE: &[u8] = b"disturbance ";
/// What every target with user data appends.
const USERDATA: &[u8] = b" role=db\n site=fra1 rack=7\n";

/// Whose message is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Kernel,
    /// The agent, with or without knowing who printed the record.
    Agent {
        has_context: bool,
    },
}

impl Evidence<'_> {
    /// How many of the phase's records the kernel's netconsole sent; each must be
    /// as expected.
    pub(super) fn kernel_extended(&self, phase: &str, target: Target) -> Result<String> {
        let records = self.report.phase(phase)?;
        let by_seq = self.kernel_messages(target)?;
        let mut found = 0;
        for record in records {
            let Some(message) = by_seq.get(&record.seq) else { continue };
            self.check(record, message, target, Sender::Kernel)?;
            found += 1;
        }
        ensure!(found > 0, "none of {} records was sent", records.len());
        Ok(format!("{found} of {} records as expected", records.len()))
    }

    /// Whether the agent sent every record of the phase, once, in order, as the
    /// record and the settings call for, and as the kernel sent it.
    pub(super) fn agent_extended(&self, phase: &str, target: Target, port: u16) -> Result<String> {
        let records = self.report.phase(phase)?;
        let first = records.first().context("no records")?.seq;
        let ours = messages(&self.payloads(port), target == Target::Release)?;
        let kernels =
            if self.kernel_has(target) { self.kernel_messages(target)? } else { BTreeMap::new() };
        let mut ours = ours.iter().skip_while(|message| message.seq < first);
        let mut previous_id = None;
        let (mut same, mut approximated, mut without_context) = (0, 0, 0);
        for record in records {
            let seq = record.seq;
            let message = ours.next().with_context(|| format!("seq {seq} is missing"))?;
            ensure!(message.seq == seq, "seq {} came instead of {seq}", message.seq);
            let guessed = match message.approximated_at() {
                Some(at) if phase == JOINED => Some(record.approximated(at)?),
                _ => None,
            };
            if guessed.is_some() && record.is_cut {
                // What the rest of its text is, nothing here knows.
                approximated += 1;
                previous_id = None;
                continue;
            }
            let record = guessed.as_ref().unwrap_or(record);
            let lacks_context = target.has_sysdata()
                && phase != WITHOUT_PROGRAM
                && self.wanted(target)?.contains("cpu")
                && !message.body_has(" cpu=");
            without_context += u64::from(lacks_context);
            let sender = Sender::Agent { has_context: phase != WITHOUT_PROGRAM && !lacks_context };
            let id = self.check(record, message, target, sender)?;
            if let (Some(id), Some(previous)) = (id, previous_id) {
                ensure!(id == previous + 1, "seq {seq}: msgid {id} follows {previous}");
            }
            previous_id = id;
            match kernels.get(&seq) {
                _ if guessed.is_some() => approximated += 1,
                Some(kernel) if self.same(message, kernel, target)? => same += 1,
                Some(kernel) => bail!(
                    "seq {seq}: {} differs from the kernel's {}",
                    shown(&message.datagrams),
                    shown(&kernel.datagrams)
                ),
                None => {}
            }
        }
        let told = self.told_without_context(phase)?;
        ensure!(
            without_context <= told,
            "{without_context} records have no CPU, the agent tells of {told}"
        );
        passed(records.len(), same, approximated)
    }

    /// The system data that the target is to have.
    fn wanted(&self, target: Target) -> Result<BTreeSet<&str>> {
        if target == Target::AllData {
            return Ok(BTreeSet::from(["cpu", "taskname", "release", "msgid"]));
        }
        self.report.list("sysdata")
    }

    /// Checks one message against its record; returns its msgid.
    fn check(
        &self,
        record: &Record,
        message: &Message,
        target: Target,
        sender: Sender,
    ) -> Result<Option<u64>> {
        let release = self.report.info("release")?;
        let seq = record.seq;
        let sent = || shown(&message.datagrams);
        let prefix = if target == Target::Release { format!("{release},") } else { String::new() };
        ensure!(
            message.header == [prefix.as_bytes(), &record.header].concat(),
            "seq {seq}: the header is not {prefix}{}: {}",
            record.header.escape_ascii(),
            sent()
        );
        let extra = message.body.strip_prefix(record.body.as_slice());
        let extra = extra.with_context(|| {
            format!("seq {seq}: not the record {}: {}", shown(&[&record.body]), sent())
        })?;
        ensure!(
            message.datagrams == fragments(&message.header, &message.body),
            "seq {seq}: cut in the wrong places: {}",
            sent()
        );
        if !target.has_sysdata() {
            ensure!(extra.is_empty(), "seq {seq}: extra data: {}", sent());
            return Ok(None);
        }
        let extra = extra.strip_prefix(USERDATA);
        let extra = extra.with_context(|| format!("seq {seq}: no user data: {}", sent()))?;
        let extra = std::str::from_utf8(extra).context("system data that is no text")?;
        let mut wanted = self.wanted(target)?;
        if sender == (Sender::Agent { has_context: false }) {
            wanted.remove("cpu");
            wanted.remove("taskname");
        }
        // The kernel's idea of the author is only compared, where it is true.
        let author = if sender == Sender::Kernel { None } else { author(record) };
        sysdata(extra, &wanted, release, author)
            .with_context(|| format!("seq {seq}: system data {extra:?}"))
    }

    /// Whether the agent's message is the kernel's, but for what cannot be equal:
    /// msgid counts from another start, and the agent knows CPU and task only with
    /// a program, the kernel only since 7.0 (before, it named who ran the console).
    fn same(&self, ours: &Message, kernel: &Message, target: Target) -> Result<bool> {
        if target != Target::Data || self.report.list("sysdata")?.is_empty() {
            return Ok(ours.datagrams == kernel.datagrams);
        }
        let both_know = version(self.report.info("release")?) >= vec![7] && ours.body_has(" cpu=");
        let comparable = |message: &Message| -> Vec<Vec<u8>> {
            let lines = message.body.split_inclusive(|&byte| byte == b'\n');
            let author =
                |line: &[u8]| line.starts_with(b" cpu=") || line.starts_with(b" taskname=");
            lines
                .filter(|line| !line.starts_with(b" msgid=") && (both_know || !author(line)))
                .map(<[u8]>::to_vec)
                .collect()
        };
        Ok(ours.header == kernel.header && comparable(ours) == comparable(kernel))
    }

    /// The messages of a target of the kernel, by seq.
    ///
    /// Before 7.0 the kernel spoils the last byte of a message of exactly 1000
    /// bytes, because it prints into a buffer of 1000 with a NUL at its end; that
    /// byte is put back here.
    fn kernel_messages(&self, target: Target) -> Result<BTreeMap<u64, Message>> {
        let spoils = version(self.report.info("release")?) < vec![7];
        let payloads = self.payloads(KERNEL_BASE + target.offset());
        let mut payloads: Vec<Vec<u8>> = payloads.into_iter().map(<[u8]>::to_vec).collect();
        for payload in payloads.iter_mut().filter(|_| spoils) {
            match (payload.len(), payload.last()) {
                (999, Some(byte)) if *byte != b'\n' => payload.push(b'\n'),
                (1000, Some(0)) => payload[999] = b'\n',
                _ => {}
            }
        }
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let messages = messages(&payloads, target == Target::Release)?;
        Ok(messages.into_iter().map(|message| (message.seq, message)).collect())
    }
}

/// The task and CPU that wrote the record, where the test knows it: only the
/// runner writes records that are not of the kernel's own facility.
fn author(record: &Record) -> Option<(&'static str, &'static str)> {
    if record.facility == 0 {
        return None;
    }
    Some(if record.body.starts_with(DISTURBANCE) { DISTURBER } else { WRITER })
}

/// Checks the lines that the kernel calls sysdata, in their fixed order; returns
/// the msgid.
fn sysdata(
    text: &str,
    wanted: &BTreeSet<&str>,
    release: &str,
    author: Option<(&str, &str)>,
) -> Result<Option<u64>> {
    let mut lines = text.split_terminator('\n');
    let mut id = None;
    for name in ["cpu", "taskname", "release", "msgid"] {
        if !wanted.contains(name) {
            continue;
        }
        let line = lines.next().with_context(|| format!("no {name}"))?;
        let value = line.strip_prefix(' ').and_then(|line| line.strip_prefix(name));
        let value = value.and_then(|line| line.strip_prefix('='));
        let value = value.with_context(|| format!("{line:?} where {name} was expected"))?;
        match (name, author) {
            ("cpu", Some((_, cpu))) => ensure!(value == cpu, "cpu {value}, not {cpu}"),
            ("cpu", None) => ensure!(value.parse::<u32>().is_ok(), "{value} is no CPU"),
            ("taskname", Some((task, _))) => ensure!(value == task, "task {value}, not {task}"),
            ("release", _) => ensure!(value == release, "release {value}, not {release}"),
            ("msgid", _) => id = Some(value.parse().context("msgid is no number")?),
            _ => ensure!(!value.is_empty(), "{name} is empty"),
        }
    }
    ensure!(lines.next().is_none(), "more lines than were asked for");
    Ok(id)
}
