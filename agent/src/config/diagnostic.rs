//! Problems of a configuration, and how they are shown.

use std::{io, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

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
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
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
    /// The file cannot be read.
    #[error("error: cannot read the configuration {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something that is not understood, or not possible.
    #[error("{report}")]
    Invalid {
        /// All problems with their lines, for people.
        report: String,
        /// The same for programs.
        problems: Vec<Diagnostic>,
    },
}

/// The problems found so far.
#[derive(Debug)]
pub(super) struct Findings {
    list: Vec<Diagnostic>,
    /// Lines that are not TOML; what the parser made of them is a guess.
    broken_lines: Vec<Range<usize>>,
}

impl Findings {
    /// Begins with what the TOML parser found in `text`.
    pub(super) fn new(text: &str, errors: Vec<toml::de::Error>) -> Self {
        let mut findings = Self { list: Vec::new(), broken_lines: Vec::new() };
        for error in errors {
            let span = clamp(&error.span().unwrap_or(0..0), text);
            let (before, after) = (&text[..span.start], &text[span.end..]);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let line_end = after.find('\n').map_or(text.len(), |at| span.end + at);
            findings.broken_lines.push(line_start..line_end);
            findings.push(Severity::Error, span, error.message().to_owned(), None);
        }
        findings
    }

    /// Notes an error, unless its line is broken anyway.
    pub(super) fn problem(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        let broken = |line: &Range<usize>| line.start <= span.start && span.start <= line.end;
        if !self.broken_lines.iter().any(broken) {
            self.push(Severity::Error, span, message, help);
        }
    }

    /// Notes that something is not there, unless it may be in a broken line.
    pub(super) fn missing(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        if self.broken_lines.is_empty() {
            self.push(Severity::Error, span, message, help);
        }
    }

    /// Notes something that is allowed and probably not meant.
    pub(super) fn warning(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.push(Severity::Warning, span, message, help);
    }

    fn push(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) {
        self.list.push(Diagnostic { severity, span, message, help });
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The errors and the warnings, each in the order of the text.
    pub(super) fn split(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.list.sort_by_key(|problem| problem.span.start);
        self.list.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}

/// Renders problems like a compiler does: file, line, column, the line itself.
pub(super) fn render(problems: &[Diagnostic], text: &str, file: &str) -> String {
    let renderer = Renderer::plain();
    let mut reports: Vec<String> = problems
        .iter()
        .take(SHOWN_MAX)
        .map(|problem| {
            let level = match problem.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let span = clamp(&problem.span, text);
            let mut group = level.primary_title(problem.message.as_str()).element(
                Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(span)),
            );
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            renderer.render(&[group]).to_string()
        })
        .collect();
    if problems.len() > SHOWN_MAX {
        reports.push(format!("{file}: {} more problems", problems.len() - SHOWN_MAX));
    }
    reports.join("\n\n")
}

/// A span that can be shown: inside the text and on character borders.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.floor_char_boundary(span.end).max(start)
}
