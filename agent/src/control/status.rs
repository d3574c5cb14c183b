//! What `status` tells.
//!
//! The same structure goes over the control socket as JSON and is the output of
//! `status --json`; fields are only ever added. How it reads on a terminal is in [`screen`]
//! (a line for each target) and [`text`] (everything).

pub mod after_crash;
pub mod ledger;
pub mod screen;
pub mod text;

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use self::after_crash::{AfterCrashStatus, AfterCrashTarget};
use super::last_words::LastWordsStatus;
use crate::ledger::{Ledger, LostReason, SharedLedger};

/// The whole report.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The source of records.
    pub capture: CaptureStatus,
    /// What happens when the kernel panics.
    #[serde(default)]
    pub last_words: LastWordsStatus,
    /// The targets, in the order of the configuration.
    pub targets: Vec<TargetStatus>,
    /// Why the configuration that was read last is not in use; then the one before it is.
    #[serde(default)]
    pub config_error: Option<String>,
    /// How often a configuration has come into use: 1 for the one of the start, one more for
    /// each reload that changed something or could have.
    #[serde(default)]
    pub config_generation: u64,
    /// Targets of the files that were removed live.
    #[serde(default)]
    pub removed: Vec<String>,
    /// What was refused at the control socket.
    #[serde(default)]
    pub refused: RefusedStatus,
    /// Why metrics are not served although they are configured.
    #[serde(default)]
    pub metrics_error: Option<String>,
    /// What earlier boots left when they crashed.
    #[serde(default)]
    pub after_crash: AfterCrashStatus,
}

/// Clients and requests that were refused at the control socket, by reason.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct RefusedStatus {
    /// The client may not ask that, or nothing at all.
    pub not_allowed: u64,
    /// The request was too long, unfinished or not understood.
    pub malformed: u64,
    /// There were too many clients, or too many `tail`s.
    pub too_many_clients: u64,
}

/// The source in use and what became of the records on their way in.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct CaptureStatus {
    /// `commit`, `tracepoint` or `kmsg`.
    pub source: String,
    /// The hook of an eBPF source.
    pub hook: Option<String>,
    /// Why this source.
    pub reason: String,
    /// How network device events are noticed.
    pub netdev_events: String,
    /// First seq of this run.
    pub first_seq: u64,
    /// Records that the programs wrote to the ring.
    pub captured: u64,
    /// Records that found the ring full.
    pub ring_full: u64,
    /// Records that the programs left out while the ring filled up, so that more severe ones
    /// find room (commit source).
    #[serde(default)]
    pub shed: ShedStatus,
    /// Reads of kernel memory that failed.
    pub read_errors: u64,
    /// Runs of a program that the kernel skipped.
    pub recursion_misses: u64,
    /// Records read from `/dev/kmsg`.
    pub kmsg_read: u64,
    /// Times the kernel overwrote what `/dev/kmsg` would have shown next.
    pub kmsg_overwritten: u64,
    /// Records whose header came by the ring, so that `/dev/kmsg` was not needed for them
    /// (tracepoint source).
    #[serde(default)]
    pub completed: u64,
    /// Records settled with estimated fields.
    pub approximated: u64,
    /// Records that the programs did not deliver and `/dev/kmsg` did.
    pub backfilled: u64,
    /// Records that were logged before the start.
    #[serde(default)]
    pub replayed: u64,
    /// Ring items that were no record.
    pub malformed: u64,
    /// Joins whose two texts differed.
    pub mismatched: u64,
    /// Waits of the data threads that ended.
    pub wakeups: u64,
}

/// Records that were sacrificed before they were in the ring, by level.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct ShedStatus {
    /// The first to go.
    pub debug: u64,
    /// The second.
    pub info: u64,
    /// The third.
    pub notice: u64,
    /// The last; errors and worse are written as long as there is room.
    pub warning: u64,
}

impl ShedStatus {
    /// From the programs' counters, the mildest level first.
    #[must_use]
    pub fn new([debug, info, notice, warning]: [u64; 4]) -> Self {
        Self { debug, info, notice, warning }
    }

    /// Of all levels.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.debug + self.info + self.notice + self.warning
    }
}

/// One target.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// Where it sends to, as configured.
    pub remote: String,
    /// The address in use.
    #[serde(default)]
    pub remote_address: Option<String>,
    /// `extended` or `basic`.
    pub format: String,
    /// `disabled`, `waiting`, `active` or `draining`.
    pub state: String,
    /// What it waits for, in words.
    pub waiting_for: Option<String>,
    /// What it waits for, as a word for programs (`no_carrier`, `no_route`, …).
    #[serde(default)]
    pub waiting_kind: Option<String>,
    /// The way out of the host.
    pub egress: Option<EgressStatus>,
    /// The next hop.
    pub next_hop: Option<NextHopStatus>,
    /// What works, and yet is probably not meant so.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Records of the account's `sent` that may have gone to a MAC address which was
    /// no longer the right one.
    #[serde(default)]
    pub suspected: u64,
    /// The last transitions, oldest first.
    #[serde(default)]
    pub transitions: Vec<TransitionStatus>,
    /// What was changed live, in words; it is gone when the agent restarts.
    #[serde(default)]
    pub live: Vec<String>,
    /// What went wrong last, whether or not it still does.
    #[serde(default)]
    pub last_error: Option<String>,
    /// The account.
    pub account: Account,
    /// How far it has come with what earlier boots left; `None` if it is not sent that.
    #[serde(default)]
    pub after_crash: Option<AfterCrashTarget>,
}

/// A change of a target's state.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TransitionStatus {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The state before; a waiting one with its kind.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why.
    pub cause: String,
}

/// A way out.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct EgressStatus {
    /// `xdp`, `packet`, `udp` or `pcap`.
    pub kind: String,
    /// Why this kind.
    pub reason: String,
    /// Queue of the device, for `xdp`.
    pub queue: Option<u32>,
}

/// A next hop.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct NextHopStatus {
    /// Device that the packets leave by.
    pub device: String,
    /// Source address.
    pub source: String,
    /// MAC address they are sent to.
    pub mac: Option<String>,
    /// Gateway, if the remote is not on the link.
    pub gateway: Option<String>,
    /// Seconds since the neighbour was last known to have that MAC address.
    #[serde(default)]
    pub confirmed_s: Option<u64>,
}

/// The account of a target: `seen = sent + filtered + lost + queued`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Account {
    /// First seq the target is responsible for.
    pub first_seq: u64,
    /// First seq it has not seen.
    pub next_seq: u64,
    /// Seqs it has been responsible for.
    pub seen: u64,
    /// Records that the kernel took whole.
    pub sent: u64,
    /// Records left out on purpose.
    pub filtered: u64,
    /// Lost records by reason; every reason is listed.
    pub lost: BTreeMap<String, u64>,
    /// Records on their way or waiting.
    pub queued: u64,
    /// Of `sent`, those with estimated fields.
    pub approximated: u64,
    /// Of `sent`, those read from `/dev/kmsg` because the programs did not deliver them.
    #[serde(default)]
    pub backfilled: u64,
    /// Of `sent`, those of which a part left more than once.
    #[serde(default)]
    pub doubled: u64,
    /// Packets handed to the way out.
    pub packets: u64,
    /// Messages (of operators, keepalives, notices) that the kernel took; they are no records.
    #[serde(default)]
    pub messages: u64,
    /// Messages that could not be sent.
    #[serde(default)]
    pub messages_lost: u64,
    /// Whether the sum is right.
    pub balances: bool,
    /// How often it has been wrong since the target was added; see the log.
    #[serde(default)]
    pub unbalanced: u64,
}

impl From<Ledger> for Account {
    fn from(ledger: Ledger) -> Self {
        Self {
            first_seq: ledger.first_seq,
            next_seq: ledger.next_seq,
            seen: ledger.seen(),
            sent: ledger.sent,
            filtered: ledger.filtered,
            lost: LostReason::ALL
                .iter()
                .map(|reason| (reason.name().to_owned(), ledger.lost[*reason as usize]))
                .collect(),
            queued: ledger.queued(),
            approximated: ledger.approximated,
            backfilled: ledger.backfilled,
            doubled: ledger.doubled,
            packets: ledger.packets,
            messages: ledger.messages,
            messages_lost: ledger.messages_lost,
            balances: ledger.balances(),
            unbalanced: 0,
        }
    }
}

impl From<&SharedLedger> for Account {
    fn from(shared: &SharedLedger) -> Self {
        Self { unbalanced: shared.unbalanced(), ..shared.read().into() }
    }
}

impl TransitionStatus {
    /// In one line, with the time as UTC.
    #[must_use]
    pub fn line(&self) -> String {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.unix_ms);
        let at = humantime::format_rfc3339_millis(at);
        format!("{at} {} -> {}: {}", self.from, self.to, self.cause)
    }
}

impl Account {
    /// Lost records, for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// The same with every term, for the log at the end.
    #[must_use]
    pub fn in_full(&self) -> String {
        let lost: Vec<_> =
            self.lost.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let mut line = format!(
            "seen {} = sent {} + filtered {} + lost {} + queued {} ({}), approximated {}, \
             backfilled {}, doubled {}; packets {}; messages {}, lost {}",
            self.seen,
            self.sent,
            self.filtered,
            self.lost_total(),
            self.queued,
            lost.join(", "),
            self.approximated,
            self.backfilled,
            self.doubled,
            self.packets,
            self.messages,
            self.messages_lost
        );
        let _ = match (self.balances, self.unbalanced) {
            (true, 0) => write!(line, "; balances"),
            _ => write!(line, " -- {}", self.imbalance()),
        };
        line
    }

    /// What to say of an account that is, or was, wrong.
    #[must_use]
    pub fn imbalance(&self) -> String {
        let now = if self.balances { "DID NOT BALANCE" } else { "DOES NOT BALANCE" };
        format!("{now} ({} times), please report this", self.unbalanced)
    }

    /// The account in one line, for the log and the terminal.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "seen {} = sent {} + filtered {} + lost {} + queued {}",
            self.seen,
            self.sent,
            self.filtered,
            self.lost_total(),
            self.queued
        );
        let lost: Vec<_> = self.lost.iter().filter(|(_, count)| **count > 0).collect();
        if !lost.is_empty() {
            let list: Vec<_> =
                lost.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            let _ = write!(line, " ({})", list.join(", "));
        }
        for (what, count) in [
            ("approximated", self.approximated),
            ("backfilled", self.backfilled),
            ("doubled", self.doubled),
        ] {
            if count > 0 {
                let _ = write!(line, ", {what} {count}");
            }
        }
        if self.messages + self.messages_lost > 0 {
            let _ = write!(line, "; messages {}, lost {}", self.messages, self.messages_lost);
        }
        if !self.balances || self.unbalanced > 0 {
            let _ = write!(line, " -- {}", self.imbalance());
        }
        line
    }
}
