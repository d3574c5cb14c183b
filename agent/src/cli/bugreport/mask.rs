//! What may be a secret is taken out of texts: values of the userdata, and lines of the
//! configuration in its reports.
//!
//! A value is looked for as it is and as JSON, TOML and logs escape it. Below [`LEAST_BYTES`] it is not
//! looked for outside of the configuration: `r1` is part of too much. Values that live commands set are
//! in the agent's log alone, where they are known by the line they are in.

use std::borrow::Cow;

use crate::config::MASK;

/// The table of a target that has what may be secrets.
const USERDATA: &str = "userdata";

/// Shorter values stay where they are not known to be userdata.
const LEAST_BYTES: usize = 4;

/// What is to be masked.
#[derive(Debug)]
pub(super) struct Mask {
    /// The longest first: one may be part of another.
    forms: Vec<String>,
}

impl Mask {
    pub(super) fn new(secrets: Vec<String>) -> Self {
        let mut forms: Vec<String> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= LEAST_BYTES)
            .flat_map(|secret| {
                let json = serde_json::Value::from(secret.as_str()).to_string();
                let debug = format!("{secret:?}");
                let inner = |quoted: &str| quoted[1..quoted.len() - 1].to_owned();
                // A report in a field of the log is escaped twice.
                let twice = format!("{debug:?}");
                let twice = twice[3..twice.len() - 3].to_owned();
                [inner(&json), inner(&debug), twice, secret]
            })
            .collect();
        forms.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
        forms.dedup();
        Self { forms }
    }

    /// The text without them.
    pub(super) fn masked(&self, text: &str) -> String {
        self.forms.iter().fold(text.to_owned(), |text, form| text.replace(form, MASK))
    }
}

/// A text without the lines of the configuration that reports in it show: `12 | key = "value"`, on
/// lines of their own or between `\n` in a field of the log.
pub(super) fn without_lines(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        for (index, part) in line.split("\\n").enumerate() {
            if index > 0 {
                kept.push_str("\\n");
            }
            match source_line(part) {
                Some(head) => {
                    kept.push_str(head);
                    kept.push_str(MASK);
                }
                None => kept.push_str(part),
            }
        }
        kept.push_str(end);
    }
    kept
}

/// A log of the agent without the values of userdata that operators changed, which it notes as
/// `change=UserdataSet { …, value: "…" }` and `change=Set { …, settings: "…" }`.
pub(super) fn without_changes(log: &str) -> String {
    log.split_inclusive('\n').map(without_change).collect()
}

fn without_change(line: &str) -> Cow<'_, str> {
    let value = line.find(" change=UserdataSet {").and_then(|at| find_after(line, at, "value: "));
    let settings = || find_after(line, line.find(" change=")?, "settings: ");
    let settings = || settings().filter(|at| line[*at..].contains(USERDATA));
    let Some(start) = value.or_else(settings) else { return line.into() };
    // Whatever is in it, what is behind it has no brace.
    let end = line.rfind(" }").filter(|end| *end > start).unwrap_or(line.trim_end().len());
    format!("{}{MASK}{}", &line[..start], &line[end..]).into()
}

/// Where the first `words` behind a place end.
fn find_after(line: &str, at: usize, words: &str) -> Option<usize> {
    line[at..].find(words).map(|found| at + found + words.len())
}

/// What is before the text of a line of the configuration: `…12 | `.
fn source_line(part: &str) -> Option<&str> {
    let at = part.find(" | ")?;
    let head = &part[..at];
    let number = head.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_number = number.len() < head.len();
    let alone = number.is_empty() || number.ends_with(char::is_whitespace);
    (is_number && alone).then(|| &part[..at + " | ".len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_masked_however_they_are_written() {
        let secret = "a \"b\"\\c";
        let mask =
            Mask::new(vec![secret.to_owned(), "a \"b\"\\c and more".to_owned(), "r12".into()]);
        let json = serde_json::json!({ "x": secret }).to_string();
        assert_eq!(mask.masked(&json), "{\"x\":\"***\"}");
        let log = format!("error={:?} r12", format!("x = {secret:?}"));
        assert_eq!(mask.masked(&log), "error=\"x = \\\"***\\\"\" r12");
        assert_eq!(mask.masked(&format!("{secret} and more, {secret}")), "***, ***");
        assert_eq!(Mask::new(Vec::new()).masked("text"), "text");
    }

    #[test]
    fn what_operators_set_is_masked_in_the_log() {
        use crate::config::LiveChange;
        let (target, value) = ("peer".to_owned(), "a } b \"c\"\nvalue: ".to_owned());
        let set = LiveChange::UserdataSet { target: target.clone(), key: "job".to_owned(), value };
        let settings = "userdata.job = \"secret\"\n".to_owned();
        let add = LiveChange::Add { target: target.clone(), settings };
        let other = LiveChange::Set { target, settings: "max_level = \"err\"\n".to_owned() };
        let log: String = [&set, &add, &other]
            .map(|change| format!("INFO Changed by an operator. change={change:?} uid=0 pid=7\n"))
            .concat();
        let head = "INFO Changed by an operator. change=";
        let expected = format!(
            "{head}UserdataSet {{ target: \"peer\", key: \"job\", value: *** }} uid=0 pid=7\n\
             {head}Add {{ target: \"peer\", settings: *** }} uid=0 pid=7\n\
             {head}Set {{ target: \"peer\", settings: \"max_level = \\\"err\\\"\\n\" }} uid=0 pid=7\n"
        );
        assert_eq!(without_changes(&log), expected);
    }

    #[test]
    fn lines_of_the_configuration_are_left_out_of_its_reports() {
        let text = "[target.x]\nremote = \"192.0.2.1\"\n[target.x.userdata]\nrack = \"{file:secret}\"\nkey = \"other\n";
        let report = crate::config::parse(text, "agent.toml").expect_err("bad").to_string();
        assert!(report.contains("4 | rack = \"{file:secret}\""), "{report}");
        let kept = without_lines(&report);
        assert!(!kept.contains("rack = ") && !kept.contains("other"), "{kept}");
        assert!(kept.contains("4 | ***\n") && kept.contains(" --> agent.toml:4:"), "{kept}");
        // As the log has it.
        let field = format!(
            "2026-11-21T00:00:00 host netconsole-agent[7]: ERROR no error={report:?}\nnext\n"
        );
        let kept = without_lines(&field);
        assert!(!kept.contains("rack = ") && !kept.contains("other"), "{kept}");
        assert!(kept.ends_with("\nnext\n") && kept.contains("ERROR no error="), "{kept}");
        for text in ["a | b", "x 3|4", "", "n12 | x", "one\ntwo"] {
            assert_eq!(without_lines(text), text);
        }
    }
}
