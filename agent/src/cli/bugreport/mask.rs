//! What may be a secret is taken out of texts: values of the userdata, and lines of the
//! configuration in its reports.
//!
//! A value is looked for as it is and as JSON, TOML and logs escape it. Below [`LEAST_BYTES`] it is not
//! looked for outside of the configuration: `r1` is part of too much. Of values that live commands set
//! nothing is known here: the agent tells them to nobody but the receivers.

use serde_json::Value;

use crate::config::MASK;

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

    /// JSON without them, wherever a string is. Numbers and words of the format are none, however
    /// a value looks, and names of members are ours.
    pub(super) fn masked_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.masked(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.masked_json(item)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.masked_json(member));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A text without the lines of the configuration that reports in it show: `12 | key = "value"`, on
/// lines of their own or between `\n` in a field of the log.
pub(super) fn without_lines(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        for (index, part) in escaped_lines(line).into_iter().enumerate() {
            if index > 0 {
                kept.push_str("\\n");
            }
            let Some(head) = source_line(part) else {
                kept.push_str(part);
                continue;
            };
            kept.push_str(head);
            kept.push_str(MASK);
            // A report begins with what is wrong: the first part of a field is no line of a file. So
            // this is a line of its own, and any `\n` in it is the file's.
            if index == 0 {
                break;
            }
        }
        kept.push_str(end);
    }
    kept
}

/// What is between the escaped line ends of a text in a field of the log. In what is escaped, each
/// backslash of the text has become two: only behind an even number of them `\n` is a line end.
fn escaped_lines(line: &str) -> Vec<&str> {
    let bytes = line.as_bytes();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'n')) => {
                parts.push(&line[start..at]);
                at += 2;
                start = at;
            }
            (b'\\', _) => at += 2,
            _ => at += 1,
        }
    }
    parts.push(&line[start..]);
    parts
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

    /// Whatever a value is, the figures stay and what comes out is JSON.
    #[test]
    fn in_json_only_strings_are_masked() {
        let mask = Mask::new(["true", "null", "1000", "sent", "a \"b\""].map(str::to_owned).into());
        let mut json = serde_json::json!({
            "sent": 1000, "on": true, "none": null, "list": ["sent", 1000, {"x": "is a \"b\""}],
        });
        mask.masked_json(&mut json);
        let expected = serde_json::json!({
            "sent": 1000, "on": true, "none": null, "list": ["***", 1000, {"x": "is ***"}],
        });
        assert_eq!(json, expected);
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
        for text in ["a | b", "x 3|4", "", "n12 | x", "one\ntwo", "a\\nb \\\\n\\"] {
            assert_eq!(without_lines(text), text);
        }
    }

    /// What looks like a line end in a value is none, in plain text as in the log.
    #[test]
    fn a_line_is_left_out_to_its_end() {
        for (line, hidden) in [
            (r#"a = "first\nsecret""#, "secret"),
            (r#"a = "first\\nsecret""#, "secret"),
            (r#"a = "first\\\nsecret""#, "secret"),
            (r"'a/b' = 'C:\new-pass'", "ew-pass"),
            (r#"a = "more\n4 | than\n5 | one secret" | x"#, "secret"),
            (r#"a = """\"#, r#""""#),
        ] {
            let report = format!("error: no\n --> x:4:8\n  |\n4 | {line}\n  | ^^\n  = help: h");
            let plain = without_lines(&report);
            assert_eq!(plain, report.replace(line, "***"));
            assert!(!plain.contains(hidden), "{plain}");
            let logged = format!("10:00 host agent[7]: 4 | {line}\nnext\n");
            assert_eq!(without_lines(&logged), "10:00 host agent[7]: 4 | ***\nnext\n");
            let field =
                |report: &str| format!("10:00 host agent[7]: ERROR no error={report:?} x=1\n");
            assert_eq!(without_lines(&field(&report)), field(&report.replace(line, "***")));
        }
    }
}
