//! The status on one screen: a short head, and one line for each target.
//!
//! Fitted to a width in characters: what does not fit is cut with `…`, and where even that
//! is not enough, whole columns are left out and named below. Without a width nothing is
//! cut. What came from outside cannot steer the terminal.

use std::{fmt::Write as _, time::Duration};

use super::{Status, TargetStatus};
use crate::receive::render::printable;

const GAP: &str = "  ";

/// One column and what it may do without.
struct Column {
    title: &'static str,
    right: bool,
    /// It is not made narrower than this; `usize::MAX` for never.
    min: usize,
    /// The higher, the sooner it is left out; 0 stays.
    expendable: u8,
    /// It is cut in front: its end tells more.
    end: bool,
    cell: fn(&TargetStatus) -> String,
}

const COLUMNS: [Column; 10] = [
    Column { title: "TARGET", right: false, min: 8, expendable: 0, end: false, cell: name },
    Column {
        title: "STATE",
        right: false,
        min: usize::MAX,
        expendable: 0,
        end: false,
        cell: state,
    },
    Column { title: "REMOTE", right: false, min: 15, expendable: 5, end: false, cell: remote },
    Column { title: "WAY", right: false, min: 11, expendable: 2, end: true, cell: way },
    Column { title: "NEXT HOP", right: false, min: 17, expendable: 6, end: false, cell: next_hop },
    Column { title: "SENT", right: true, min: usize::MAX, expendable: 1, end: false, cell: sent },
    Column {
        title: "FILTERED",
        right: true,
        min: usize::MAX,
        expendable: 4,
        end: false,
        cell: filtered,
    },
    Column { title: "LOST", right: true, min: usize::MAX, expendable: 0, end: false, cell: lost },
    Column {
        title: "QUEUED",
        right: true,
        min: usize::MAX,
        expendable: 3,
        end: false,
        cell: queued,
    },
    Column {
        title: "LAST ERROR",
        right: false,
        min: 20,
        expendable: 0,
        end: false,
        cell: last_error,
    },
];

fn name(target: &TargetStatus) -> String {
    let mark = if target.live.is_empty() { "" } else { "*" };
    format!("{}{mark}", target.name)
}

fn state(target: &TargetStatus) -> String {
    target.state.clone()
}

fn remote(target: &TargetStatus) -> String {
    target.remote.clone()
}

/// Device, queue and kind of the way out, as far as there are.
fn way(target: &TargetStatus) -> String {
    let Some(egress) = &target.egress else { return "-".to_owned() };
    let device = target.next_hop.as_ref().map(|hop| hop.device.clone());
    let queue = egress.queue.map(|queue| queue.to_string());
    let parts: Vec<_> = [device, queue, Some(egress.kind.clone())].into_iter().flatten().collect();
    parts.join("/")
}

fn next_hop(target: &TargetStatus) -> String {
    let hop = target.next_hop.as_ref();
    let hop = hop.and_then(|hop| hop.mac.as_ref().or(hop.gateway.as_ref()));
    hop.cloned().unwrap_or_else(|| "-".to_owned())
}

fn sent(target: &TargetStatus) -> String {
    short(target.account.sent)
}

fn filtered(target: &TargetStatus) -> String {
    short(target.account.filtered)
}

fn lost(target: &TargetStatus) -> String {
    short(target.account.lost_total())
}

fn queued(target: &TargetStatus) -> String {
    short(target.account.queued)
}

/// What is wrong now, or else what was wrong last.
fn last_error(target: &TargetStatus) -> String {
    target.waiting_for.clone().or_else(|| target.last_error.clone()).unwrap_or_default()
}

/// A count in at most five characters, cut and never rounded up.
fn short(count: u64) -> String {
    if count < 100_000 {
        return count.to_string();
    }
    let mut whole = count;
    for unit in ['k', 'M', 'G', 'T', 'P'] {
        let rest = whole % 1000;
        whole /= 1000;
        match whole {
            0..10 => return format!("{whole}.{:02}{unit}", rest / 10),
            10..100 => return format!("{whole}.{}{unit}", rest / 100),
            100..1000 => return format!("{whole}{unit}"),
            _ => {}
        }
    }
    // 18 at most.
    format!("{}E", whole / 1000)
}

fn cut(text: &str, width: usize) -> String {
    match width.checked_sub(1) {
        _ if text.chars().count() <= width => text.to_owned(),
        Some(kept) => text.chars().take(kept).chain(['…']).collect(),
        None => String::new(),
    }
}

fn cut_front(text: &str, width: usize) -> String {
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    reversed(&cut(&reversed(text), width))
}

/// A column with its cells, and the width that it gets.
struct Filled<'a> {
    column: &'a Column,
    cells: Vec<String>,
    natural: usize,
    width: usize,
}

impl<'a> Filled<'a> {
    fn new(column: &'a Column, targets: &[TargetStatus]) -> Self {
        let cells: Vec<_> =
            targets.iter().map(|target| printable((column.cell)(target).as_bytes())).collect();
        let longest = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let natural = longest.max(column.title.len());
        Self { column, cells, natural, width: natural }
    }

    fn least(&self) -> usize {
        self.natural.min(self.column.min)
    }

    fn write(&self, text: &str, line: &mut String) {
        let cut = if self.column.end { cut_front } else { cut };
        let (text, width) = (cut(text, self.width), self.width);
        // Writing to a String cannot fail.
        let _ = if self.column.right {
            write!(line, "{text:>width$}{GAP}")
        } else {
            write!(line, "{text:<width$}{GAP}")
        };
    }
}

/// Leaves out columns until the others fit at their narrowest, and gives these what is left,
/// from the left on. Returns the titles of those left out.
fn fit(columns: &mut Vec<Filled<'_>>, width: usize) -> Vec<&'static str> {
    let least = |columns: &[Filled<'_>]| {
        let gaps = GAP.len() * columns.len().saturating_sub(1);
        columns.iter().map(Filled::least).sum::<usize>() + gaps
    };
    let mut left_out = Vec::new();
    while least(columns) > width {
        let ranks = columns.iter().map(|filled| filled.column.expendable).enumerate();
        match ranks.max_by_key(|(_, rank)| *rank) {
            Some((at, 1..)) => left_out.push(columns.remove(at).column.title),
            _ => break,
        }
    }
    let mut spare = width.saturating_sub(least(columns));
    for filled in columns {
        let more = spare.min(filled.natural - filled.least());
        filled.width = filled.least() + more;
        spare -= more;
    }
    left_out
}

impl Status {
    /// The head and a line for each target, no wider than `width` if one is given.
    #[must_use]
    pub fn to_screen(&self, width: Option<usize>) -> String {
        let mut lines = self.head();
        lines.push(String::new());
        let mut columns: Vec<_> = COLUMNS
            .iter()
            .map(|column| Filled::new(column, &self.targets))
            // An empty column of errors is good news that needs no place.
            .filter(|filled| filled.cells.iter().any(|cell| !cell.is_empty()))
            .collect();
        let left_out = width.map(|width| fit(&mut columns, width)).unwrap_or_default();
        if !self.targets.is_empty() {
            let mut line = String::new();
            columns.iter().for_each(|filled| filled.write(filled.column.title, &mut line));
            lines.push(line);
        }
        for target in 0..self.targets.len() {
            let mut line = String::new();
            columns.iter().for_each(|filled| filled.write(&filled.cells[target], &mut line));
            lines.push(line);
        }
        lines.extend(self.foot(&left_out));
        let mut text = String::new();
        for line in lines {
            let line = line.trim_end();
            text.push_str(&width.map_or_else(|| line.to_owned(), |width| cut(line, width)));
            text.push('\n');
        }
        text
    }

    fn head(&self) -> Vec<String> {
        let capture = &self.capture;
        let up = humantime::format_duration(Duration::from_secs(self.uptime_s));
        let hook = capture.hook.as_deref().map(|hook| format!(" ({hook})")).unwrap_or_default();
        let mut head = vec![format!(
            "netconsole-agent {}, pid {}, up {up}, source {}{hook}",
            self.version, self.pid, capture.source
        )];
        let troubles: Vec<_> = [
            ("ring full", capture.ring_full),
            ("left out while the ring filled up", capture.shed.total()),
            ("read errors", capture.read_errors),
            ("recursion misses", capture.recursion_misses),
            ("malformed", capture.malformed),
            ("/dev/kmsg overwritten", capture.kmsg_overwritten),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
        if !troubles.is_empty() {
            head.push(format!("capture: {}", troubles.join(", ")));
        }
        // The first line says what and where; the others show it.
        if let Some(error) = self.config_error.as_ref().and_then(|error| error.lines().next()) {
            head.push(format!("configuration NOT IN USE: {error}"));
        }
        if let Some(error) = &self.metrics_error {
            head.push(format!("metrics NOT SERVED: {error}"));
        }
        if !self.removed.is_empty() {
            head.push(format!("targets removed live: {}", self.removed.join(", ")));
        }
        head.extend(self.after_crash.lines().into_iter().next());
        head.extend(self.refused.line());
        head.iter().map(|line| printable(line.as_bytes())).collect()
    }

    fn foot(&self, left_out: &[&str]) -> Vec<String> {
        let mut foot = Vec::new();
        if self.targets.is_empty() {
            foot.push("There is no target.".to_owned());
        }
        if self.targets.iter().any(|target| !target.live.is_empty()) {
            foot.push("* changed live, until the agent restarts (--verbose says what)".to_owned());
        }
        let warned = self.targets.iter().filter(|target| !target.warnings.is_empty()).count();
        if warned > 0 {
            let noun = if warned == 1 { "target has" } else { "targets have" };
            foot.push(format!("{warned} {noun} warnings (--verbose shows them)"));
        }
        for TargetStatus { name, account, .. } in &self.targets {
            if !account.balances || account.unbalanced > 0 {
                let name = printable(name.as_bytes());
                foot.push(format!("{name}: the account {}", account.imbalance()));
            }
        }
        if !left_out.is_empty() {
            foot.push(format!("no room for {} (--verbose)", left_out.join(", ")));
        }
        foot
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
