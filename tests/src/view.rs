//! The status as a program outside of the project would read it from the control socket.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::Deserialize;

#[derive(Deserialize)]
struct Reply {
    status: Option<View>,
}

/// The report.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// The targets.
    pub targets: Vec<TargetView>,
}

/// One target.
#[derive(Clone, Debug, Deserialize)]
pub struct TargetView {
    /// Its name.
    pub name: String,
    /// `disabled`, `waiting`, `active` or `draining`.
    pub state: String,
    /// What it waits for, in words.
    pub waiting_for: Option<String>,
    /// What it waits for.
    #[serde(default)]
    pub waiting_kind: Option<String>,
    /// What is probably not meant so.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Records that may not have arrived.
    #[serde(default)]
    pub suspected: u64,
    /// The last changes of its state, oldest first.
    #[serde(default)]
    pub transitions: Vec<TransitionView>,
    /// The next hop.
    pub next_hop: Option<NextHopView>,
    /// The way out.
    pub egress: Option<EgressView>,
    /// The account.
    pub account: AccountView,
}

/// A change of a target's state.
#[derive(Clone, Debug, Deserialize)]
pub struct TransitionView {
    /// When.
    pub unix_ms: u64,
    /// The state before, such as `waiting (no_carrier)`.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why.
    pub cause: String,
}

/// A next hop.
#[derive(Clone, Debug, Deserialize)]
pub struct NextHopView {
    /// The device.
    pub device: String,
    /// The source address.
    pub source: String,
    /// The MAC address.
    pub mac: Option<String>,
    /// The gateway.
    pub gateway: Option<String>,
}

/// A way out.
#[derive(Clone, Debug, Deserialize)]
pub struct EgressView {
    /// `xdp`, `packet` or `udp`.
    pub kind: String,
    /// Why this one.
    pub reason: String,
}

/// An account.
#[derive(Clone, Debug, Deserialize)]
pub struct AccountView {
    /// First seq it answers for.
    pub first_seq: u64,
    /// First seq it has not seen.
    pub next_seq: u64,
    /// Seqs in between.
    pub seen: u64,
    /// Sent.
    pub sent: u64,
    /// Left out on purpose.
    pub filtered: u64,
    /// Lost, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Under way or waiting.
    pub queued: u64,
    /// Whether the sum is right, as the agent sees it.
    pub balances: bool,
    /// How often it has been wrong.
    #[serde(default)]
    pub unbalanced: u64,
}

impl AccountView {
    /// Lost for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Whether everything up to a seq has its fate.
    #[must_use]
    pub fn is_past(&self, seq: u64) -> bool {
        self.next_seq - self.queued > seq
    }

    /// Whether the sum is right, as anybody can see.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.balances
            && self.seen == self.next_seq - self.first_seq
            && self.seen == self.sent + self.filtered + self.lost_total() + self.queued
    }
}

impl View {
    /// Asks a running agent; none if there is no answer.
    ///
    /// # Panics
    /// If the answer is no status.
    #[must_use]
    pub fn ask(socket: &Path) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"{\"cmd\":\"status\",\"v\":1}\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        // It may end in the middle of its answer.
        if !line.ends_with('\n') {
            return None;
        }
        let reply: Reply = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in the status {line}"));
        reply.status
    }

    /// One target.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn target(&self, name: &str) -> &TargetView {
        let found = self.targets.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("no target {name:?} in {self:?}"))
    }
}
