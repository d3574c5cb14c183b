//! The report on a terminal: a heading per area, levels and objects in columns, long text wrapped.

use super::{Report, Section};

/// Columns of a line at most; a word that is longer stands alone.
const WIDTH: usize = 100;
/// Columns before the object: two blanks, the level, two blanks.
const LEVEL_WIDTH: usize = 8;

pub(super) fn render(report: &Report) -> String {
    let objects = report.sections.iter().flat_map(|section| &section.findings);
    let object_width =
        objects.map(|finding| finding.object.chars().count()).max().unwrap_or(0).min(24) + 2;
    let sections: Vec<_> =
        report.sections.iter().map(|section| section_text(section, object_width)).collect();
    sections.join("\n")
}

fn section_text(section: &Section, object_width: usize) -> String {
    let mut text = format!("{}\n", section.area);
    let indent = " ".repeat(LEVEL_WIDTH + object_width);
    for finding in &section.findings {
        let head = format!("  {:<6}{:<object_width$}", finding.level.name(), finding.object);
        wrap(&mut text, &head, &indent, &finding.finding);
        if let Some(remedy) = &finding.remedy {
            wrap(&mut text, &format!("{indent}-> "), &format!("{indent}   "), remedy);
        }
    }
    text
}

/// Appends `words` as lines that begin with `head`, then with `indent`.
fn wrap(text: &mut String, head: &str, indent: &str, words: &str) {
    let mut line = head.to_owned();
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = indent.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    #[test]
    fn columns_are_aligned_and_long_text_is_wrapped() {
        let long = "word ".repeat(40);
        let report = Report {
            sections: vec![
                Section { area: "host".to_owned(), findings: vec![Finding::ok("kernel", "6.18")] },
                Section {
                    area: "target a".to_owned(),
                    findings: vec![Finding::fail("next hop", long.clone(), long)],
                },
            ],
        };
        let text = render(&report);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..4], ["host", "  ok    kernel    6.18", "", "target a"]);
        assert!(lines[4].starts_with("  fail  next hop  word word"), "{text}");
        assert!(lines[5].starts_with("                  word"), "{text}");
        assert!(text.contains("\n                  -> word"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH && !line.ends_with(' ')), "{text}");
        assert_eq!(text.matches("word").count(), 80);
    }
}
