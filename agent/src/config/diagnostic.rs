//! Problems of a configuration, and how they are shown.
//!
//! While they are collected, a place is a span in all texts set in a row ([`Texts`]);
//! what leaves this module names the source and counts from its beginning.

use std::{io, ops::Range, path::PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};

use super::places::{Texts, clamp};
use crate::target::filter::spec::Rule;

/// Most problems that a report shows; a file with more is most likely another file.
const SHOWN_MAX: usize = 50;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// There is no configuration.
    Error,
    /// The configuration is used, and is probably not what was meant.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file, or `(live)`.
    pub source: String,
    /// Where in its text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub others: Vec<OtherPlace>,
}

/// A further place of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherPlace {
    /// The file, or `(live)`.
    pub source: String,
    /// Where in its text, in bytes.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

/// What is odd in a configuration that is used nevertheless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// All warnings with their lines, for people; empty without any.
    pub report: String,
    /// The same for programs.
    pub problems: Vec<Diagnostic>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("error: cannot read the configuration {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no file at all.
    #[error(
        "error: there is no configuration; looked for agent.toml and targets.d/*.toml in {}: \
         write one (`netconsole-agent config example` prints a commented one), or name another \
         by --config",
        looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Absent {
        /// The folders that were looked at.
        looked_at: Vec<PathBuf>,
    },
    /// Something is said that is not understood, or not possible.
    #[error("{report}")]
    Invalid {
        /// All problems with their lines, for people.
        report: String,
        /// The same for programs.
        problems: Vec<Diagnostic>,
    },
    /// A live change is for a target or a key as it is not.
    #[error("error: (live): {0}")]
    Live(String),
}

/// A problem whose places are spans in all texts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    span: Range<usize>,
    message: String,
    help: Option<String>,
    others: Vec<(Range<usize>, String)>,
    /// There is no line to show.
    without_line: bool,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    /// Lines that are not TOML; what the parser made of them is a guess.
    broken_lines: Vec<Range<usize>>,
    /// The texts that have such lines.
    broken_texts: Vec<Range<usize>>,
    /// Filters that are known to be possible: finding out takes a while, and most targets have
    /// the same.
    pub(super) good_filters: Vec<Vec<Rule>>,
}

/// What is to be told about a duplicate in `text`, at `span`: where it was first.
pub(super) type FirstPlace<'a> = dyn Fn(&Range<usize>) -> Option<Range<usize>> + 'a;

impl Findings {
    /// Notes what the TOML parser found in a text that begins at `base`.
    pub(super) fn syntax(
        &mut self,
        text: &str,
        base: usize,
        errors: &[toml::de::Error],
        first_place: &FirstPlace<'_>,
    ) {
        for (index, error) in errors.iter().enumerate() {
            let span = clamp(&error.span().unwrap_or(0..0), text);
            let (before, after) = (&text[..span.start], &text[span.end..]);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let line_end = after.find('\n').map_or(text.len(), |at| span.end + at);
            self.broken_lines.push(base + line_start..base + line_end);
            self.broken_texts.push(base..base + text.len());
            let first = (index < SHOWN_MAX && error.message() == "duplicate key")
                .then(|| first_place(&span))
                .flatten();
            let others = first.map(|first| (shift(first, base), "it is here first".to_owned()));
            self.list.push(Finding {
                severity: Severity::Error,
                span: shift(span, base),
                message: error.message().to_owned(),
                help: None,
                others: others.into_iter().collect(),
                without_line: false,
            });
        }
    }

    /// Notes an error, unless its line is broken anyway.
    pub(super) fn problem(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.problem_with(span, message, help, Vec::new());
    }

    /// Notes an error that has to do with other places as well.
    pub(super) fn problem_with(
        &mut self,
        span: Range<usize>,
        message: String,
        help: Option<String>,
        others: Vec<(Range<usize>, String)>,
    ) {
        let broken = |line: &Range<usize>| line.start <= span.start && span.start <= line.end;
        if !self.broken_lines.iter().any(broken) {
            let severity = Severity::Error;
            self.list.push(Finding { severity, span, message, help, others, without_line: false });
        }
    }

    /// Notes that something is not there, unless it may be in a broken line.
    pub(super) fn missing(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        let broken = |text: &Range<usize>| text.start <= span.start && span.start <= text.end;
        if !self.broken_texts.iter().any(broken) {
            self.problem(span, message, help);
        }
    }

    /// Notes something that is allowed and probably not meant.
    pub(super) fn warning(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.list.push(Finding {
            severity: Severity::Warning,
            span,
            message,
            help,
            others: Vec::new(),
            without_line: false,
        });
    }

    /// Notes what has no line that could be shown.
    pub(super) fn without_line(&mut self, span: Range<usize>, message: String) {
        self.list.push(Finding {
            severity: Severity::Error,
            span,
            message,
            help: None,
            others: Vec::new(),
            without_line: true,
        });
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The warnings, if there is nothing else.
    pub(super) fn into_warnings(mut self, texts: &Texts<'_>) -> Result<Warnings, ConfigError> {
        // What `[defaults]` says is met again in each target.
        self.list.sort_by_key(|finding| (finding.span.start, finding.span.end));
        let mut unique: Vec<Finding> = Vec::with_capacity(self.list.len());
        for finding in self.list {
            let place = finding.span.clone();
            let known = |other: &&Finding| other.span == place;
            let twins = unique.iter().rev().take_while(known);
            if !twins.into_iter().any(|twin| twin.message == finding.message) {
                unique.push(finding);
            }
        }
        let (errors, warnings): (Vec<_>, Vec<_>) =
            unique.into_iter().partition(|finding| finding.severity == Severity::Error);
        let told = |list: &[Finding]| (render(list, texts), diagnostics(list, texts));
        if errors.is_empty() {
            let (report, problems) = told(&warnings);
            return Ok(Warnings { report, problems });
        }
        let (report, problems) = told(&errors);
        Err(ConfigError::Invalid { report, problems })
    }
}

fn shift(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

fn diagnostics(findings: &[Finding], texts: &Texts<'_>) -> Vec<Diagnostic> {
    let place = |span: &Range<usize>| {
        let (source, span) = texts.locate(span);
        (source.name.clone(), span)
    };
    let diagnostic = |finding: &Finding| {
        let (source, span) = place(&finding.span);
        let others = finding.others.iter().map(|(span, label)| {
            let (source, span) = place(span);
            OtherPlace { source, span, label: label.clone() }
        });
        Diagnostic {
            severity: finding.severity,
            source,
            span,
            message: finding.message.clone(),
            help: finding.help.clone(),
            others: others.collect(),
        }
    };
    findings.iter().map(diagnostic).collect()
}

/// Renders problems like a compiler does: file, line, column, the line itself.
fn render(findings: &[Finding], texts: &Texts<'_>) -> String {
    let renderer = Renderer::plain();
    let mut reports: Vec<String> = findings
        .iter()
        .take(SHOWN_MAX)
        .map(|finding| {
            let level = match finding.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            if finding.without_line {
                return format!("error: {}", finding.message);
            }
            let mut group =
                level.primary_title(finding.message.as_str()).elements(snippets(finding, texts));
            if let Some(help) = &finding.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            renderer.render(&[group]).to_string()
        })
        .collect();
    if let Some(hidden) = findings.get(SHOWN_MAX..).filter(|hidden| !hidden.is_empty()) {
        let source = |finding: &Finding| texts.locate(&finding.span).0.name.as_str();
        let first = source(&hidden[0]);
        let of_one = hidden.iter().all(|finding| source(finding) == first);
        let of = if of_one { format!("{first}: ") } else { String::new() };
        reports.push(format!("{of}{} more problems", hidden.len()));
    }
    reports.join("\n\n")
}

/// One snippet for each source that a problem has to do with.
fn snippets<'a>(finding: &'a Finding, texts: &Texts<'a>) -> Vec<Snippet<'a, Annotation<'a>>> {
    let (source, span) = texts.locate(&finding.span);
    let mut snippet = Snippet::source(source.text.as_str())
        .path(source.name.as_str())
        .annotation(AnnotationKind::Primary.span(span));
    let mut elsewhere = Vec::new();
    for (span, label) in &finding.others {
        let (other, span) = texts.locate(span);
        let annotation = AnnotationKind::Context.span(span).label(label.as_str());
        if std::ptr::eq(other, source) {
            snippet = snippet.annotation(annotation);
        } else {
            elsewhere.push(
                Snippet::source(other.text.as_str())
                    .path(other.name.as_str())
                    .annotation(annotation),
            );
        }
    }
    let mut all = vec![snippet];
    all.append(&mut elsewhere);
    all
}
