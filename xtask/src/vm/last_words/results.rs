//! The results of the runs, one JSON object per line of a file, and the table made of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Subject;
use super::crashes::CRASHES;
use super::judge::{Share, Verdict};
use crate::vm::kernel::version;

const BEGIN: &str = "<!-- last-words:begin -->";
const END: &str = "<!-- last-words:end -->";

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Release of the kernel.
    pub(super) kernel: String,
    /// Name of the crash.
    pub(super) crash: String,
    pub(super) subject: Subject,
    pub(super) cpu: usize,
    /// How long the run took, with both boots.
    pub(super) seconds: f64,
    /// What the agent said about its source of records.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) source: Option<String>,
    /// What came of it, or why there is no result.
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It crashed and was judged.
    Judged(Verdict),
    /// Also the second attempt came to nothing.
    Failed(String),
}

impl Row {
    /// The line that tells of the run.
    pub(super) fn line(&self) -> String {
        let Self { kernel, crash, subject, cpu, seconds, .. } = self;
        let subject = subject.name();
        let outcome = match &self.outcome {
            Outcome::Failed(error) => format!("NO RESULT: {error}"),
            Outcome::Judged(verdict) => {
                let mut text = format!("before the stop {}", share(verdict.before_stop));
                for (name, part) in [
                    ("later", verdict.later),
                    ("storm", verdict.storm),
                    ("after the reboot", verdict.after_reboot),
                ] {
                    if part.printed > 0 {
                        let _ = write!(text, ", {name} {}", share(part));
                    }
                }
                if let Some(first) = verdict.missing.first() {
                    let _ = write!(text, ", first missing: {first:?}");
                }
                text
            }
        };
        format!("last-words {kernel} {crash} CPU {cpu} {subject}: {outcome}; {seconds:.0} s")
    }
}

fn share(share: Share) -> String {
    format!("{}/{} ({:.0} %)", share.arrived, share.printed, share.percent())
}

/// Appends a row to the file.
pub(super) fn append(file: &Path, row: &Row) -> Result<()> {
    let line = serde_json::to_string(row).context("write a result")?;
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let mut opened = opened.with_context(|| format!("open {}", file.display()))?;
    opened
        .write_all(format!("{line}\n").as_bytes())
        .with_context(|| format!("write to {}", file.display()))
}

/// All rows of the file; none if there is no file.
///
/// # Errors
/// A line that is no result, naming it.
pub(super) fn read(file: &Path) -> Result<Vec<Row>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    (1..)
        .zip(text.lines())
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}:{number} is no result", file.display()))
        })
        .collect()
}

/// The table, as Markdown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut cells: BTreeMap<(usize, Vec<u64>, &str), BTreeMap<Subject, Cell>> = BTreeMap::new();
    for row in rows {
        // The order of the crashes; those that are no more come last.
        let place = CRASHES.iter().position(|crash| crash.name == row.crash);
        let place = place.unwrap_or(CRASHES.len());
        let subjects = cells.entry((place, version(&row.kernel), &row.kernel)).or_default();
        subjects.entry(row.subject).or_default().add(&row.outcome);
    }
    let mut text = "| crash | kernel | lines | agent: complete | median, least | \
                    netconsole: complete | median, least | later lines: agent, netconsole | \
                    agent: rest, after the reboot |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let nothing = Cell::default();
    for ((place, _, kernel), subjects) in &cells {
        let cell = |subject| subjects.get(&subject).unwrap_or(&nothing);
        let (agent, netconsole) = (cell(Subject::Agent), cell(Subject::Netconsole));
        let title = CRASHES.get(*place).map_or("(others)", |crash| crash.title);
        let _ = writeln!(
            text,
            "| {title} | {} | {} | {} | {} | {} | {} | {}, {} | {} |",
            short_release(kernel),
            lines(agent, netconsole),
            agent.complete(),
            agent.spread(),
            netconsole.complete(),
            netconsole.spread(),
            sum(&agent.later),
            sum(&netconsole.later),
            sum(&agent.after_reboot),
        );
    }
    text
}

/// `6.1.0-50-amd64` is 6.1.0-50 to a reader.
fn short_release(release: &str) -> &str {
    let end = release.find("+deb").or_else(|| release.find("-amd64"));
    &release[..end.unwrap_or(release.len())]
}

/// Puts the table into the marked section of a text.
pub(super) fn insert(text: &str, table: &str) -> Result<String> {
    let missing = || format!("the text has no section from {BEGIN} to {END}: put these lines in");
    let (head, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, tail) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{head}{BEGIN}\n{table}{END}{tail}"))
}

/// The runs of one crash on one kernel with one subject.
#[derive(Default)]
struct Cell {
    before_stop: Vec<Share>,
    later: Vec<Share>,
    after_reboot: Vec<Share>,
    failed: usize,
}

impl Cell {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Judged(verdict) => {
                self.before_stop.push(verdict.before_stop);
                self.later.push(verdict.later);
                self.after_reboot.push(verdict.after_reboot);
            }
            Outcome::Failed(_) => self.failed += 1,
        }
    }

    /// How many runs of how many were complete.
    fn complete(&self) -> String {
        let whole = self.before_stop.iter().filter(|share| share.is_whole()).count();
        let mut text = match self.before_stop.len() {
            0 => "–".to_owned(),
            runs => format!("{whole} of {runs}"),
        };
        if self.failed > 0 {
            let _ = write!(text, " ({} without result)", self.failed);
        }
        text
    }

    fn spread(&self) -> String {
        let mut percents: Vec<f64> = self.before_stop.iter().map(|share| share.percent()).collect();
        percents.sort_by(f64::total_cmp);
        match (percents.first(), median(&percents)) {
            (Some(least), Some(median)) => format!("{} %, {} %", rounded(median), rounded(*least)),
            _ => "–".to_owned(),
        }
    }
}

/// Rounded down: what is not complete must not read 100.
fn rounded(percent: f64) -> f64 {
    percent.floor()
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { *upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

/// The range of the numbers of lines.
fn lines(agent: &Cell, netconsole: &Cell) -> String {
    let printed = || agent.before_stop.iter().chain(&netconsole.before_stop).map(|s| s.printed);
    match (printed().min(), printed().max()) {
        (Some(least), Some(most)) if least == most => format!("{least}"),
        (Some(least), Some(most)) => format!("{least}–{most}"),
        _ => "–".to_owned(),
    }
}

/// The share of all runs together.
fn sum(shares: &[Share]) -> String {
    let arrived: usize = shares.iter().map(|share| share.arrived).sum();
    let printed: usize = shares.iter().map(|share| share.printed).sum();
    if printed == 0 {
        return "–".to_owned();
    }
    format!("{} %", rounded(Share { arrived, printed }.percent()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: &str, crash: &str, subject: Subject, arrived: usize) -> Row {
        let share = |arrived, printed| Share { arrived, printed };
        Row {
            kernel: kernel.to_owned(),
            crash: crash.to_owned(),
            subject,
            cpu: 1,
            seconds: 21.5,
            source: None,
            outcome: Outcome::Judged(Verdict {
                before_stop: share(arrived, 40),
                later: share(0, 1),
                after_reboot: share(1, 2),
                ..Verdict::default()
            }),
        }
    }

    #[test]
    fn a_row_survives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows");
        assert!(read(&file).unwrap().is_empty());
        let mut failed = row("6.1.0-50-amd64", "oops", Subject::Netconsole, 0);
        failed.outcome = Outcome::Failed("hung".to_owned());
        let rows = [row("6.1.0-50-amd64", "oops", Subject::Agent, 39), failed];
        rows.iter().for_each(|row| append(&file, row).unwrap());
        assert_eq!(read(&file).unwrap(), rows);
        fs::write(&file, "{}\n").unwrap();
        assert!(read(&file).is_err());
    }

    #[test]
    fn the_table_has_both_subjects_side_by_side() {
        let mut rows = vec![
            row("7.2.12+deb13-amd64", "oops", Subject::Agent, 40),
            row("6.12.9+deb12-amd64", "oops", Subject::Agent, 40),
            row("6.1.0-50-amd64", "oops", Subject::Agent, 40),
            row("6.1.0-50-amd64", "oops", Subject::Agent, 39),
            row("6.1.0-50-amd64", "oops", Subject::Netconsole, 20),
            row("6.1.0-50-amd64", "sysrq-cpu0", Subject::Netconsole, 40),
        ];
        rows[4].outcome = Outcome::Failed("hung".to_owned());
        let table = table(&rows);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("| `sysrq c` on CPU 0 | 6.1.0-50 | 40 | – | – | 1 of 1 |"));
        assert_eq!(
            lines[1],
            "| oops, no panic | 6.1.0-50 | 40 | 1 of 2 | 98 %, 97 % | – (1 without result) | – \
             | 0 %, – | 50 % |"
        );
        assert!(lines[2].contains("| 6.12.9 |") && lines[3].contains("| 7.2.12 |"));
    }

    #[test]
    fn only_the_marked_section_is_replaced() {
        let text = "a\n<!-- last-words:begin -->\nold\n<!-- last-words:end -->\nb\n";
        let new = insert(text, "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert!(insert("a\n", "new\n").is_err());
    }
}
