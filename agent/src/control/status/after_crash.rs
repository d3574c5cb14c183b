//! What `status` tells of what earlier boots left, and of how far that was sent.

use serde::{Deserialize, Serialize};

use crate::{
    after_crash::{Found, dump::Dump, piece, sending::Sending},
    receive::render::printable,
};

/// What was found at the start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct AfterCrashStatus {
    /// The dumps, the oldest first.
    pub dumps: Vec<DumpStatus>,
    /// Files that are of no use, or could not be looked at.
    pub unusable: u64,
    /// Some of them in words; and what is wrong with the agent's own memory of what was sent.
    pub problems: Vec<String>,
}

/// One dump.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct DumpStatus {
    /// The name that its lines have before them.
    pub name: String,
    /// `Panic#1`, `Oops#3`, …
    pub reason: String,
    /// When it was written, in seconds since 1970.
    pub unix_s: Option<u64>,
    /// The id of the boot that it belongs to, if the agent ran in it.
    pub boot: Option<String>,
    /// A backend of pstore, or a folder.
    pub backend: String,
    /// Its lines.
    pub lines: u64,
    /// Its parts.
    pub parts: u64,
    /// Parts of it that are known to be missing.
    pub parts_missing: u64,
    /// Targets that have been sent all of it, in this run or an earlier one, sorted.
    pub sent_to: Vec<String>,
}

/// How far one target has come.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct AfterCrashTarget {
    /// Dumps that it has been sent whole, in this run or an earlier one.
    pub dumps_sent: u64,
    /// Dumps that it has still to be sent, or the rest of.
    pub dumps_waiting: u64,
    /// Lines that the kernel took in this run.
    pub lines_sent: u64,
    /// Lines that were given up in this run.
    pub lines_lost: u64,
}

impl From<&Sending> for AfterCrashTarget {
    fn from(sending: &Sending) -> Self {
        Self {
            dumps_sent: sending.dumps_done() as u64,
            dumps_waiting: sending.dumps_left() as u64,
            lines_sent: sending.lines_sent(),
            lines_lost: sending.lines_lost(),
        }
    }
}

impl AfterCrashTarget {
    /// In one line, if there is anything to tell.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let Self { dumps_sent, dumps_waiting, lines_sent, lines_lost } = *self;
        (*self != Self::default()).then(|| {
            format!(
                "{dumps_sent} dumps sent, {dumps_waiting} waiting; in this run {lines_sent} lines \
                 sent, {lines_lost} lost"
            )
        })
    }
}

impl AfterCrashStatus {
    /// Of what was found.
    #[must_use]
    pub fn new(found: &Found) -> Self {
        let Found { dumps, unusable, problems, memory, memory_problem } = found;
        let mut status = Self {
            dumps: dumps.iter().map(|dump| DumpStatus::new(dump)).collect(),
            unusable: *unusable,
            problems: problems.iter().chain(memory_problem).cloned().collect(),
        };
        for target in memory.targets() {
            let sent = memory.were_sent(dumps, target);
            for (dump, _) in status.dumps.iter_mut().zip(sent).filter(|(_, sent)| *sent) {
                dump.sent_to.push(target.to_owned());
            }
        }
        status
    }

    /// The dump of this name was sent to a target.
    pub fn note_sent(&mut self, name: &str, target: &str) {
        let dumps = self.dumps.iter_mut().filter(|dump| dump.name == name);
        for DumpStatus { sent_to, .. } in dumps {
            if let Err(at) = sent_to.binary_search_by(|other| other.as_str().cmp(target)) {
                sent_to.insert(at, target.to_owned());
            }
        }
    }

    /// For people: a summary first, then a line for each dump and problem. Nothing if there is
    /// nothing.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.dumps.is_empty() && self.problems.is_empty() {
            return Vec::new();
        }
        let mut first = format!("after a crash: {} dumps found", self.dumps.len());
        let unsent = self.dumps.iter().filter(|dump| dump.sent_to.is_empty()).count();
        if unsent > 0 {
            first.push_str(&format!(", {unsent} not sent to any target yet"));
        }
        if self.unusable > 0 {
            first.push_str(&format!(", {} files of no use (--verbose)", self.unusable));
        }
        let dumps = self.dumps.iter().map(DumpStatus::line);
        let problems = self.problems.iter().map(|problem| format!("  {problem}"));
        [first]
            .into_iter()
            .chain(dumps.chain(problems).map(|line| printable(line.as_bytes())))
            .collect()
    }
}

impl DumpStatus {
    fn new(dump: &Dump) -> Self {
        Self {
            name: dump.name.clone(),
            reason: dump.reason.clone(),
            unix_s: dump.unix_s,
            boot: dump.boot.clone(),
            backend: dump.backend.clone(),
            lines: dump.line_count() as u64,
            parts: dump.parts.len() as u64,
            parts_missing: dump.missing,
            sent_to: Vec::new(),
        }
    }

    fn line(&self) -> String {
        let missing = match self.parts_missing {
            0 => String::new(),
            missing => format!(" ({missing} missing)"),
        };
        let sent_to = match &self.sent_to[..] {
            [] => "no target yet".to_owned(),
            names => names.join(", "),
        };
        format!(
            "  {} {} at {} in boot {}, from {}: {} lines in {} parts{missing}; sent to {sent_to}",
            self.name,
            self.reason,
            piece::time(self.unix_s).as_deref().unwrap_or("an unknown time"),
            self.boot.as_deref().unwrap_or("unknown"),
            self.backend,
            self.lines,
            self.parts
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_is_nothing_to_tell() {
        assert_eq!(AfterCrashStatus::default().lines(), Vec::<String>::new());
        assert_eq!(AfterCrashTarget::default().line(), None);
    }

    #[test]
    fn every_dump_has_its_line() {
        let dump = DumpStatus {
            name: "0123456789ab".to_owned(),
            reason: "Panic#1".to_owned(),
            unix_s: Some(1_700_000_000),
            boot: None,
            backend: "efi_pstore".to_owned(),
            lines: 340,
            parts: 9,
            parts_missing: 1,
            sent_to: vec!["fleet".to_owned()],
        };
        let other = DumpStatus { sent_to: Vec::new(), parts_missing: 0, ..dump.clone() };
        let status = AfterCrashStatus {
            dumps: vec![dump, other],
            unusable: 1,
            problems: vec!["/sys/fs/pstore/dmesg-erst-1: it is no text\u{1b}".to_owned()],
        };
        let lines = status.lines();
        assert_eq!(
            lines[0],
            "after a crash: 2 dumps found, 1 not sent to any target yet, 1 files of no use (--verbose)"
        );
        assert_eq!(
            lines[1],
            "  0123456789ab Panic#1 at 2023-11-14T22:13:20Z in boot unknown, from efi_pstore: \
             340 lines in 9 parts (1 missing); sent to fleet"
        );
        assert!(lines[2].ends_with("340 lines in 9 parts; sent to no target yet"));
        assert!(lines[3].contains("it is no text") && !lines[3].contains('\u{1b}'));
    }
}
