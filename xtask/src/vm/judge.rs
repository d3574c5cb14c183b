//! Compares what left a VM: the agent's datagrams with what `/dev/kmsg` calls
//! for, and with what the kernel's own netconsole sent for the same records.
//!
//! A record that only the kernel lacks is told, not held against the agent: the
//! kernel's netconsole loses some (7.0 and later print from a thread).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};

use super::capture::Datagram;
use super::kernel::version;
use super::record::{Message, Record, fragments, messages};
use super::report::{Outcome, Report, Verdict};

/// The guest's address.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The thread that writes the test records, and its CPU.
const WRITER: (&str, &str) = ("vm_writer", "1");
/// The thread that writes in between, and what its records begin with.
const DISTURBER: (&str, &str) = ("vm_disturber", "0");
const DISTURBANCE: &[u8] = b"disturbance ";
/// What every target with user data appends.
const USERDATA: &[u8] = b" role=db\n site=fra1 rack=7\n";

/// A target that the kernel and the agent have with the same settings; its port
/// is `base + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Basic,
    Extended,
    Release,
    /// User data, and the system data that this kernel has.
    Data,
    /// User data and all system data: the agent's only.
    AllData,
}

const TARGETS: [(Target, &str, u16); 5] = [
    (Target::Basic, "basic", 1),
    (Target::Extended, "extended", 3),
    (Target::Release, "release", 4),
    (Target::Data, "data", 5),
    (Target::AllData, "all-data", 6),
];

/// The phases of the run, each with its way to capture records, and the base of
/// the agent's ports in it.
const PHASES: [(&str, u16); 3] = [("commit", 7660), ("tracepoint", 7760), ("kmsg", 7860)];
const KERNEL_BASE: u16 = 6660;

/// All that was seen of one run.
pub(crate) struct Evidence<'a> {
    report: &'a Report,
    /// Payloads that the guest sent, by port.
    sent: BTreeMap<u16, Vec<&'a [u8]>>,
}

impl<'a> Evidence<'a> {
    /// Sorts what was captured.
    pub(crate) fn new(report: &'a Report, captured: &'a [Datagram]) -> Self {
        let mut sent: BTreeMap<u16, Vec<&[u8]>> = BTreeMap::new();
        for datagram in captured.iter().filter(|datagram| datagram.source == GUEST) {
            sent.entry(datagram.destination_port).or_default().push(&datagram.payload);
        }
        Self { report, sent }
    }

    /// Every comparison, one test per phase and target.
    pub(crate) fn judge(&self) -> Vec<Outcome> {
        let verdict = |result: Result<String>| match result {
            Ok(seen) => Verdict::Passed(seen),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let mut outcomes = vec![("kernel/targets".to_owned(), verdict(self.kernel_targets()))];
        for (phase, base) in PHASES {
            for (target, name, offset) in TARGETS {
                if self.kernel_has(target) {
                    let result = self.kernel(phase, target, KERNEL_BASE + offset);
                    outcomes.push((format!("{phase}/kernel/{name}"), verdict(result)));
                }
                let result = self.agent(phase, target, base + offset, offset);
                outcomes.push((format!("{phase}/agent/{name}"), verdict(result)));
            }
        }
        outcomes
    }

    /// Whether the guest could make the targets that this version is known to
    /// have: else less would be compared than one believes.
    fn kernel_targets(&self) -> Result<String> {
        let known: [(&[u64], &str); 3] =
            [(&[6, 6], "release"), (&[6, 9], "data"), (&[6, 16], "sysdata")];
        let version = version(self.report.info("release")?);
        let mut made = self.report.list("targets")?;
        if !self.report.list("sysdata")?.is_empty() {
            made.insert("sysdata");
        }
        for (since, name) in known {
            ensure!(
                made.contains(name) == (version.as_slice() >= since),
                "{name} is there from {since:?} on, but the guest made {made:?}"
            );
        }
        Ok(format!("{made:?}"))
    }

    fn kernel_has(&self, target: Target) -> bool {
        let targets = self.report.list("targets").unwrap_or_default();
        TARGETS.iter().any(|&(known, name, _)| known == target && targets.contains(name))
    }

    /// Whether the kernel's netconsole agrees with this module's idea of it.
    fn kernel(&self, phase: &str, target: Target, port: u16) -> Result<String> {
        let records = self.report.phase(phase)?;
        let sent = self.payloads(port);
        if target == Target::Basic {
            let expected: Vec<Vec<u8>> = records.iter().flat_map(Record::basic).collect();
            let found = in_order(&expected, &sent);
            ensure!(found > 0, "none of {} datagrams was sent", expected.len());
            return Ok(format!("{found} of {} datagrams as expected", expected.len()));
        }
        let by_seq = self.messages(port, target)?;
        let mut found = 0;
        for record in records {
            let Some(message) = by_seq.get(&record.seq) else { continue };
            self.check(record, message, target, None).context("the kernel's netconsole")?;
            found += 1;
        }
        ensure!(found > 0, "none of {} records was sent", records.len());
        Ok(format!("{found} of {} records as expected", records.len()))
    }

    /// Whether the agent sent every record of the phase, once, in order, as the
    /// record and the settings call for, and as the kernel sent it.
    fn agent(&self, phase: &str, target: Target, port: u16, offset: u16) -> Result<String> {
        let records = self.report.phase(phase)?;
        let sent = self.payloads(port);
        if target == Target::Basic {
            return agent_basic(records, &sent);
        }
        let ours = messages(&sent, target == Target::Release)?;
        let kernels = if self.kernel_has(target) {
            self.messages(KERNEL_BASE + offset, target)?
        } else {
            BTreeMap::new()
        };
        let mut ours = ours.iter().skip_while(|message| message.seq < records[0].seq);
        let mut previous_id = None;
        let (mut same, mut missing) = (0, 0);
        for record in records {
            let message = ours.next().with_context(|| format!("seq {} is missing", record.seq))?;
            ensure!(
                message.seq == record.seq,
                "seq {} came where seq {} was expected",
                message.seq,
                record.seq
            );
            let id = self.check(record, message, target, Some(phase))?;
            if let (Some(id), Some(previous)) = (id, previous_id) {
                ensure!(id == previous + 1, "msgid {id} follows {previous}, seq {}", record.seq);
            }
            previous_id = id;
            match kernels.get(&record.seq) {
                Some(kernel) if self.same(message, kernel, target) => same += 1,
                Some(kernel) => bail!(
                    "seq {}: {} differs from the kernel's {}",
                    record.seq,
                    shown(&message.datagrams),
                    shown(&kernel.datagrams)
                ),
                None => missing += 1,
            }
        }
        let mut text = format!("{} records", records.len());
        if self.kernel_has(target) {
            text += &format!(", {same} as the kernel sent them, {missing} not sent by the kernel");
        }
        Ok(text)
    }

    /// Checks one message against its record; returns its msgid. `phase` is the
    /// agent's way to capture, `None` for the kernel.
    fn check(
        &self,
        record: &Record,
        message: &Message,
        target: Target,
        phase: Option<&str>,
    ) -> Result<Option<u64>> {
        let release = self.report.info("release")?;
        let seq = record.seq;
        let prefix = if target == Target::Release { format!("{release},") } else { String::new() };
        ensure!(
            message.header == [prefix.as_bytes(), &record.header].concat(),
            "seq {seq}: the header is {}, not {prefix}{}",
            String::from_utf8_lossy(&message.header),
            String::from_utf8_lossy(&record.header)
        );
        let extra = message.body.strip_prefix(record.body.as_slice()).with_context(|| {
            format!("seq {seq}: {} does not begin with the record", shown(&message.datagrams))
        })?;
        ensure!(
            message.datagrams == fragments(&message.header, &message.body),
            "seq {seq}: cut in the wrong places: {}",
            shown(&message.datagrams)
        );
        if !matches!(target, Target::Data | Target::AllData) {
            ensure!(extra.is_empty(), "seq {seq}: extra data {}", String::from_utf8_lossy(extra));
            return Ok(None);
        }
        let extra = extra
            .strip_prefix(USERDATA)
            .with_context(|| format!("seq {seq}: no user data in {}", shown(&message.datagrams)))?;
        let extra = std::str::from_utf8(extra).context("system data that is no text")?;
        let mut wanted = if target == Target::AllData {
            BTreeSet::from(["cpu", "taskname", "release", "msgid"])
        } else {
            self.report.list("sysdata")?
        };
        if phase == Some("kmsg") {
            // Only an eBPF program sees who printed.
            wanted.remove("cpu");
            wanted.remove("taskname");
        }
        // The kernel's idea of the author is judged where it is compared.
        let author = if phase.is_some() { author(record) } else { None };
        sysdata(extra, &wanted, release, author)
            .with_context(|| format!("seq {seq}: system data {extra:?}"))
    }

    /// Whether the agent's message is the kernel's, but for what cannot be equal:
    /// msgid counts from another start, and before 7.0 the kernel named the CPU
    /// and task that ran the console.
    fn same(&self, ours: &Message, kernel: &Message, target: Target) -> bool {
        let Ok(sysdata) = self.report.list("sysdata") else { return false };
        if target != Target::Data || sysdata.is_empty() {
            return ours.datagrams == kernel.datagrams;
        }
        let context_is_true = self
            .report
            .info("release")
            .is_ok_and(|release| version(release).first().is_some_and(|&major| major >= 7));
        let stripped = |message: &Message| -> Vec<String> {
            String::from_utf8_lossy(&message.body)
                .split_inclusive('\n')
                .filter(|line| !line.starts_with(" msgid="))
                .filter(|line| {
                    context_is_true
                        || !(line.starts_with(" cpu=") || line.starts_with(" taskname="))
                })
                .map(str::to_owned)
                .collect()
        };
        ours.header == kernel.header && stripped(ours) == stripped(kernel)
    }

    fn payloads(&self, port: u16) -> Vec<&'a [u8]> {
        self.sent.get(&port).cloned().unwrap_or_default()
    }

    fn messages(&self, port: u16, target: Target) -> Result<BTreeMap<u64, Message>> {
        let messages = messages(&self.payloads(port), target == Target::Release)?;
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

/// The agent's basic datagrams carry no seq: they must be those of the records,
/// one after the other.
fn agent_basic(records: &[Record], sent: &[&[u8]]) -> Result<String> {
    let expected: Vec<Vec<u8>> = records.iter().flat_map(Record::basic).collect();
    let first = sent.iter().position(|payload| *payload == expected[0]);
    let first = first.with_context(|| format!("{} was not sent", shown(&expected[..1])))?;
    for (place, expected) in expected.iter().enumerate() {
        let found = sent.get(first + place);
        ensure!(
            found == Some(&expected.as_slice()),
            "datagram {place} is {}, not {}",
            found.map_or("missing".to_owned(), |found| shown(&[found.to_vec()])),
            shown(std::slice::from_ref(expected))
        );
    }
    Ok(format!("{} datagrams of {} records", expected.len(), records.len()))
}

/// How many of `expected` are among `sent`, in the same order.
fn in_order(expected: &[Vec<u8>], sent: &[&[u8]]) -> usize {
    let mut rest = sent.iter();
    expected
        .iter()
        .filter(|expected| {
            let before = rest.clone();
            let found = rest.any(|payload| payload == expected);
            if !found {
                rest = before;
            }
            found
        })
        .count()
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
            ("cpu", None) => drop(value.parse::<u32>().context("cpu is no number")?),
            ("taskname", Some((task, _))) => ensure!(value == task, "task {value}, not {task}"),
            ("release", _) => ensure!(value == release, "release {value}, not {release}"),
            ("msgid", _) => id = Some(value.parse().context("msgid is no number")?),
            _ => ensure!(!value.is_empty(), "{name} is empty"),
        }
    }
    ensure!(lines.next().is_none(), "more lines than were asked for");
    Ok(id)
}

fn shown(datagrams: &[Vec<u8>]) -> String {
    let texts: Vec<String> = datagrams
        .iter()
        .map(|datagram| {
            let text = datagram.escape_ascii().to_string();
            if text.len() <= 200 {
                return text;
            }
            format!("{}…{}", &text[..100], &text[text.len() - 80..])
        })
        .collect();
    format!("{texts:?}")
}
