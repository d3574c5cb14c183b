//! Problems of a configuration, and how they are shown.

use std::{io, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
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

/// Renders problems like a compiler does: file, line, column, the line itself.
pub(super) fn render(problems: &[Diagnostic], text: &str, file: &str) -> String {
    let renderer = Renderer::plain();
    let reports: Vec<String> = problems
        .iter()
        .map(|problem| {
            let span = clamp(&problem.span, text);
            let mut group = Level::ERROR.primary_title(problem.message.as_str()).element(
                Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(span)),
            );
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            renderer.render(&[group]).to_string()
        })
        .collect();
    reports.join("\n\n")
}

/// A span that the renderer can show: inside the text and on character borders.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let border = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = border(span.start);
    start..border(span.end).max(start)
}
