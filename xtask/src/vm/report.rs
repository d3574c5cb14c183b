//! What the runner in the guest wrote to its serial line.
//!
//! One line per fact: `INFO name value`, `KMSG record` (its newlines written as
//! `\n`; the record itself has no other backslash than `\x`), `TEST name
//! ok|FAIL|SKIP reason`, and `DONE` at the end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::record::Record;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All was as it must be; the text says what was looked at.
    Passed(String),
    /// It was not.
    Failed(String),
    /// It could not be looked at there.
    Skipped(String),
}

/// The name of a test and how it ended.
pub(crate) type Outcome = (String, Verdict);

/// A whole report.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Facts about the guest.
    pub(crate) info: BTreeMap<String, String>,
    /// Everything that `/dev/kmsg` showed, in order.
    pub(crate) records: Vec<Record>,
    /// Tests that the runner judged by itself.
    pub(crate) tests: Vec<Outcome>,
    /// Lines of other kinds: the agent's own log.
    pub(crate) other: Vec<String>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// One that does not end with `DONE`, or a line that cannot be understood.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut report = Self::default();
        let mut done = false;
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(record) = line.strip_prefix(b"KMSG ") {
                let text = String::from_utf8_lossy(record).replace("\\n", "\n");
                let record = Record::parse(text.as_bytes())
                    .with_context(|| format!("in the report's line {text:?}"))?;
                report.records.push(record);
                continue;
            }
            let line = String::from_utf8_lossy(line).into_owned();
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("DONE"), None, None) => done = true,
                (Some("INFO"), Some(name), value) => {
                    let value = value.unwrap_or_default().to_owned();
                    report.info.insert(name.to_owned(), value);
                }
                (Some("TEST"), Some(name), Some(verdict)) => {
                    let (word, reason) = verdict.split_once(' ').unwrap_or((verdict, ""));
                    let reason = reason.to_owned();
                    let verdict = match word {
                        "ok" => Verdict::Passed(reason),
                        "SKIP" => Verdict::Skipped(reason),
                        _ => Verdict::Failed(reason),
                    };
                    report.tests.push((name.to_owned(), verdict));
                }
                _ if line.is_empty() => {}
                _ => report.other.push(line),
            }
        }
        ensure!(done, "the runner in the guest did not come to its end");
        Ok(report)
    }

    /// The value of a fact.
    pub(crate) fn info(&self, name: &str) -> Result<&str> {
        let value = self.info.get(name).map(String::as_str);
        value.with_context(|| format!("the runner in the guest did not say its {name}"))
    }

    /// The words of a fact that is a list.
    pub(crate) fn list(&self, name: &str) -> Result<BTreeSet<&str>> {
        Ok(self.info(name)?.split_whitespace().collect())
    }

    /// The records of a phase, from its first mark to its last.
    pub(crate) fn phase(&self, name: &str) -> Result<&[Record]> {
        let place = |mark: &str| {
            let text = format!("vm-test {name} {mark}\n");
            let found = self.records.iter().position(|record| record.body == text.as_bytes());
            found.with_context(|| format!("/dev/kmsg did not show the {mark} of the phase {name}"))
        };
        let records = self.records.get(place("begin")?..=place("end")?);
        let records = records.with_context(|| format!("the phase {name} ends before it begins"))?;
        for pair in records.windows(2) {
            ensure!(
                pair[1].seq == pair[0].seq + 1,
                "the reader of /dev/kmsg in the guest lost records after seq {}",
                pair[0].seq
            );
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_runner_writes() {
        let text = b"INFO release 6.1.0-50-amd64\r\nINFO sysdata cpu msgid\r\nhello there\r\n\
            KMSG 12,5,7,-;vm-test kmsg begin\\n\r\nKMSG 6,6,8,-;a \\x0a\\n DEVICE=n2\\n\r\n\
            KMSG 12,7,9,-;vm-test kmsg end\\n\r\nTEST a ok 7 records\r\nTEST b FAIL no\r\n\
            TEST c SKIP not here\r\nTEST d nonsense\r\nDONE\r\n";
        let report = Report::parse(text).unwrap();
        assert_eq!(report.info("release").unwrap(), "6.1.0-50-amd64");
        assert_eq!(report.list("sysdata").unwrap(), BTreeSet::from(["cpu", "msgid"]));
        assert!(report.info("other").is_err());
        let phase = report.phase("kmsg").unwrap();
        assert_eq!(phase.len(), 3);
        assert_eq!(phase[1].body, b"a \\x0a\n DEVICE=n2\n");
        assert!(report.phase("commit").is_err());
        assert_eq!(report.tests[0], ("a".to_owned(), Verdict::Passed("7 records".to_owned())));
        assert!(matches!(report.tests[1].1, Verdict::Failed(_)));
        assert!(matches!(report.tests[2].1, Verdict::Skipped(_)));
        assert!(matches!(report.tests[3].1, Verdict::Failed(_)));
        assert_eq!(report.other, ["hello there"]);
    }

    #[test]
    fn a_report_that_breaks_off_is_an_error() {
        assert!(Report::parse(b"TEST a ok\n").is_err());
    }

    #[test]
    fn a_hole_in_the_reference_is_an_error() {
        let text =
            b"KMSG 12,5,7,-;vm-test kmsg begin\\n\nKMSG 12,7,9,-;vm-test kmsg end\\n\nDONE\n";
        assert!(Report::parse(text).unwrap().phase("kmsg").is_err());
    }
}
