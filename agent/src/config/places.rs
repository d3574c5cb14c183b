//! Places in several texts: a place is a span in all of them set in a row, so that
//! a value keeps saying where it comes from while tables are merged.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::source::Source;

/// The texts of a configuration, in a row.
#[derive(Debug)]
pub(super) struct Texts<'t> {
    /// Each with the place where it begins.
    sources: Vec<(usize, &'t Source)>,
}

impl<'t> Texts<'t> {
    pub(super) fn new(sources: impl IntoIterator<Item = &'t Source>) -> Self {
        let mut next = 0;
        let begin = |source: &'t Source| {
            let start = next;
            // One more: the end of a text is a place of its own.
            next += source.text.len() + 1;
            (start, source)
        };
        Self { sources: sources.into_iter().map(begin).collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'t Source)> {
        self.sources.iter().copied()
    }

    /// The source of a place and the span in its text, on borders of characters.
    pub(super) fn locate(&self, span: &Range<usize>) -> (&'t Source, Range<usize>) {
        let index = self.sources.partition_point(|(start, _)| *start <= span.start);
        let (start, source) = self.sources[index.saturating_sub(1)];
        let local = span.start.saturating_sub(start)..span.end.saturating_sub(start);
        (source, clamp(&local, &source.text))
    }

    /// The source of a place and its line, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> (&'t Source, usize) {
        let (source, span) = self.locate(span);
        let before = &source.text.as_bytes()[..span.start];
        (source, 1 + before.iter().filter(|byte| **byte == b'\n').count())
    }
}

/// A span that can be shown: inside the text and on character borders.
pub(super) fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.floor_char_boundary(span.end).max(start)
}

/// Parses a text that begins at `base`, as far as it can be understood; the spans of
/// the errors count from the text's own beginning.
pub(super) fn parse(text: &str, base: usize) -> (DeTable<'_>, Vec<toml::de::Error>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    (shifted_table(root.into_inner(), base), errors)
}

// The parser bounds how deep tables lie in each other.
fn shifted_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let shifted = table.into_iter().map(|(key, value)| {
        let span = key.span();
        let key = Spanned::new(span.start + by..span.end + by, key.into_inner());
        (key, shifted_value(value, by))
    });
    shifted.collect()
}

fn shifted_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let shifted = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shifted_table(table, by)),
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|value| shifted_value(value, by)).collect())
        }
        plain => plain,
    };
    Spanned::new(span.start + by..span.end + by, shifted)
}

/// The place of a part of a string, given in bytes of its value: the whole string if it
/// is not written plainly between two quotes.
pub(super) fn inside(string: Range<usize>, value: &str, part: Range<usize>) -> Range<usize> {
    // Escapes are always longer than what they stand for.
    if string.len() == value.len() + 2 {
        string.start + 1 + part.start..string.start + 1 + part.end
    } else {
        string
    }
}
