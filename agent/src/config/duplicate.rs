//! Where a key that is there twice was first. The TOML parser tells the second place
//! only; the first is looked for in what stands before it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The place of the first of two equal keys in `text`, of which the second is at `second`.
pub(super) fn first_place(text: &str, second: &Range<usize>) -> Option<Range<usize>> {
    let line_start = text[..second.start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[second.end..].find('\n').map_or(text.len(), |at| second.end + at);
    let (before, line) = (&text[..line_start], &text[line_start..line_end]);
    let (root, _) = DeTable::parse_recoverable(before);
    let (alone, _) = DeTable::parse_recoverable(line);
    let is_header = line.trim_start().starts_with('[');
    let mut table = root.get_ref();
    if !is_header {
        let mut newest = (0, table);
        newest_table(before, table, &mut newest);
        table = newest.1;
    }
    // The line alone is a chain of tables with one key each.
    let mut chain = alone.get_ref();
    loop {
        let (key, value) = chain.iter().next()?;
        let (found, inner) = table.get_key_value(key)?;
        if key.span().start + line_start == second.start {
            return Some(found.span());
        }
        chain = value.get_ref().as_table()?;
        table = last_table(inner.get_ref())?;
    }
}

/// The table that lines go to: the last one for an array of tables.
fn last_table<'a, 't>(value: &'a DeValue<'t>) -> Option<&'a DeTable<'t>> {
    match value {
        DeValue::Table(table) => Some(table),
        DeValue::Array(array) => array.last()?.get_ref().as_table(),
        _ => None,
    }
}

/// Finds the table whose header is the last one.
fn newest_table<'a, 't>(text: &str, table: &'a DeTable<'t>, newest: &mut (usize, &'a DeTable<'t>)) {
    for (_, value) in table {
        let elements = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        for element in elements {
            let DeValue::Table(inner) = element.get_ref() else { continue };
            let start = element.span().start;
            if text.as_bytes().get(start) == Some(&b'[') && start >= newest.0 {
                *newest = (start, inner);
            }
            newest_table(text, inner, newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line and column (from 1) of the first place, for the first duplicate in a text.
    fn first(text: &str) -> Option<(usize, usize)> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let error = errors.iter().find(|error| error.message() == "duplicate key").unwrap();
        let at = first_place(text, &error.span().unwrap())?.start;
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        Some((text[..at].matches('\n').count() + 1, at - line_start + 1))
    }

    #[test]
    fn first_places() {
        for (text, wanted) in [
            ("a = 1\nb = 1\na = 2\n", Some((1, 1))),
            ("[x]\na = 1\n[y]\na = 1\nb = 1\n a = 2\n", Some((4, 1))),
            ("[t.x]\na = 1\n[t.y]\n[t.x]\nb = 1\n", Some((1, 4))),
            ("[x]\na.b = 1\na.b = 2\n", Some((2, 3))),
            ("[[x.f]]\na = 1\n[[x.f]]\na = 1\na = 2\n", Some((4, 1))),
            ("s = \"\"\"\n[no]\n\"\"\"\ns = 1\n", Some((1, 1))),
            ("a = { b = 1, b = 2 }\n", None),
        ] {
            assert_eq!(first(text), wanted, "{text}");
        }
    }
}
