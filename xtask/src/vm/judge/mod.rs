//! Compares what left a VM: the agent's datagrams with what `/dev/kmsg` calls
//! for, and with what the kernel's own netconsole sent for the same records.
//!
//! A record that only the kernel lacks is told, not held against the agent: the
//! kernel's netconsole loses some (7.0 and later print from a thread). Whether
//! the kernel's messages are what this project believes them to be is judged as
//! well, so that the reference cannot be wrong unseen.

mod account;
mod basic;
mod clocks;
mod contexts;
mod ending;
mod extended;
mod netconsole;
mod overload;
mod resume;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::capture::Datagram;
use super::kernel::version;
use super::report::{Outcome, Report, Verdict};

/// The guest's address.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// What QEMU's network answers ARP for 10.0.2.2 with (`special_ethaddr` of slirp
/// and the address).
const NEIGHBOUR: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// The phases of the run, each with its way to capture records, and the base of
/// the agent's ports in it.
const PHASES: [(&str, u16); 3] = [("commit", 7660), ("tracepoint", 7760), ("kmsg", 7860)];
/// The phase in which no eBPF program sees the records.
const WITHOUT_PROGRAM: &str = "kmsg";
/// The phase in which a program sees the records only in part, and `/dev/kmsg`
/// tells the rest; records may be approximated where it does so too late.
const JOINED: &str = "tracepoint";
/// At most one record in so many may be approximated.
const APPROXIMATED_ONE_IN: usize = 5;
/// The base of the ports of the kernel's own targets.
const KERNEL_BASE: u16 = 6660;

/// What a message of the agent's begins with, in place of a header.
const MESSAGE: &[u8] = b"netconsole-agent";

/// A target that the kernel and the agent have with the same settings.
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

impl Target {
    const ALL: [Self; 5] = [Self::Basic, Self::Extended, Self::Release, Self::Data, Self::AllData];

    fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::Release => "release",
            Self::Data => "data",
            Self::AllData => "all-data",
        }
    }

    fn has_sysdata(self) -> bool {
        matches!(self, Self::Data | Self::AllData)
    }

    /// What is added to the base to get the port.
    fn offset(self) -> u16 {
        match self {
            Self::Basic => 1,
            Self::Extended => 3,
            Self::Release => 4,
            Self::Data => 5,
            Self::AllData => 6,
        }
    }
}

/// All that was seen of one run.
pub(crate) struct Evidence<'a> {
    report: &'a Report,
    /// What the guest sent, by port.
    sent: BTreeMap<u16, Vec<&'a Datagram>>,
}

impl<'a> Evidence<'a> {
    /// Sorts what was captured.
    pub(crate) fn new(report: &'a Report, captured: &'a [Datagram]) -> Self {
        let mut sent: BTreeMap<u16, Vec<&Datagram>> = BTreeMap::new();
        for datagram in captured.iter().filter(|datagram| datagram.source == GUEST) {
            sent.entry(datagram.destination_port).or_default().push(datagram);
        }
        Self { report, sent }
    }

    /// Every test.
    pub(crate) fn judge(&self) -> Vec<Outcome> {
        let mut outcomes = self.comparisons();
        for (phase, _) in PHASES {
            outcomes.push((format!("{phase}/contexts"), verdict(self.contexts(phase))));
        }
        outcomes.extend(self.netconsole());
        outcomes.push(("overload/agent/order".to_owned(), verdict(self.overload())));
        outcomes.push(("resume/agent/all".to_owned(), verdict(self.resume())));
        outcomes.push(("clocks/agent/all".to_owned(), verdict(self.clocks_all())));
        outcomes.push(("clocks/agent/limited".to_owned(), verdict(self.clocks_limited())));
        outcomes
    }

    /// What the agent sent against what the kernel shows and sends, one test per phase and
    /// target.
    fn comparisons(&self) -> Vec<Outcome> {
        let mut outcomes = vec![("kernel/targets".to_owned(), verdict(self.kernel_targets()))];
        for (phase, base) in PHASES {
            for target in Target::ALL {
                let name = target.name();
                if self.kernel_has(target) {
                    let result = match target {
                        Target::Basic => self.kernel_basic(phase),
                        _ => self.kernel_extended(phase, target),
                    };
                    outcomes.push((format!("{phase}/kernel/{name}"), verdict(result)));
                }
                let port = base + target.offset();
                let result = match target {
                    Target::Basic => self.agent_basic(phase, port),
                    _ => self.agent_extended(phase, target, port),
                };
                outcomes.push((format!("{phase}/agent/{name}"), verdict(result)));
            }
            outcomes.push((format!("{phase}/agent/frames"), verdict(self.agent_frames(base))));
            let result = self.agent_account(phase, base);
            outcomes.push((format!("{phase}/agent/account"), verdict(result)));
        }
        outcomes
    }

    fn kernel_has(&self, target: Target) -> bool {
        self.report.list("targets").is_ok_and(|made| made.contains(target.name()))
    }

    /// Whether the guest could make the targets that this version is known to
    /// have: else less would be compared than one believes.
    fn kernel_targets(&self) -> Result<String> {
        let known: [(&[u64], &str); 4] =
            [(&[6, 1], "basic"), (&[6, 6], "release"), (&[6, 9], "data"), (&[6, 16], "sysdata")];
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

    /// Whether the agent's frames went to the neighbour (that lengths and
    /// checksums are right was seen when they were read).
    fn agent_frames(&self, base: u16) -> Result<String> {
        let ports = Target::ALL.map(|target| base + target.offset());
        let frames: Vec<&&Datagram> =
            ports.iter().filter_map(|port| self.sent.get(port)).flatten().collect();
        let macs: BTreeSet<[u8; 6]> = frames.iter().map(|frame| frame.destination_mac).collect();
        ensure!(macs == BTreeSet::from([NEIGHBOUR]), "frames were sent to {macs:x?}");
        Ok(format!("{} frames to the next hop", frames.len()))
    }

    /// Without the agent's own messages.
    fn records_on(&self, port: u16) -> Vec<&'a [u8]> {
        let payloads = self.payloads(port).into_iter();
        payloads.filter(|payload| !payload.starts_with(MESSAGE)).collect()
    }

    fn payloads(&self, port: u16) -> Vec<&'a [u8]> {
        let sent = self.sent.get(&port).into_iter().flatten();
        sent.map(|datagram| datagram.payload.as_slice()).collect()
    }
}

fn verdict(result: Result<String>) -> Verdict {
    match result {
        Ok(seen) => Verdict::Passed(seen),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

/// What a test of the agent says that passed, unless too much was approximated.
fn passed(records: usize, same: usize, approximated: usize) -> Result<String> {
    ensure!(
        approximated * APPROXIMATED_ONE_IN <= records,
        "{approximated} of {records} records were approximated"
    );
    let mut text = format!("{records} records, {same} as the kernel sent them");
    if approximated > 0 {
        text += &format!(", {approximated} approximated");
    }
    Ok(text)
}

/// Datagrams to be read by a human, the middle of long ones left out.
fn shown(datagrams: &[impl AsRef<[u8]>]) -> String {
    let texts: Vec<String> = datagrams
        .iter()
        .map(|datagram| {
            let text = datagram.as_ref().escape_ascii().to_string();
            if text.len() <= 200 {
                return text;
            }
            format!("{}…{}", &text[..100], &text[text.len() - 80..])
        })
        .collect();
    format!("[{}]", texts.join(" | "))
}
