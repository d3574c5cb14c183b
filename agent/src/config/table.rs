//! Reading a TOML table key by key, noting every problem at its place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{diagnostic::Findings, keys::Key};
use crate::target::filter::spec::Rule;

/// A table whose keys are taken one after the other; what has no definition is unknown.
pub(super) struct Table<'t, 'p> {
    table: &'t DeTable<'t>,
    name: String,
    /// Where the table itself is, for what is missing in it.
    pub(super) span: Range<usize>,
    known: Vec<&'static str>,
    findings: &'p mut Findings,
}

/// A value with its place.
pub(super) type Value<'t> = &'t Spanned<DeValue<'t>>;

impl<'t, 'p> Table<'t, 'p> {
    pub(super) fn new(
        table: &'t DeTable<'t>,
        name: String,
        span: Range<usize>,
        keys: &'static [Key],
        findings: &'p mut Findings,
    ) -> Self {
        let known = keys.iter().map(|key| key.name).collect();
        Self { table, name, span, known, findings }
    }

    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.findings.problem(span, message.into(), help.into());
    }

    /// A problem that has to do with another place as well.
    pub(super) fn problem_with(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        other: (Range<usize>, &str),
    ) {
        let others = vec![(other.0, other.1.to_owned())];
        self.findings.problem_with(span, message.into(), None, others);
    }

    /// Whether these rules were found to be possible before.
    pub(super) fn is_known_filter(&self, rules: &[Rule]) -> bool {
        self.findings.good_filters.iter().any(|good| good == rules)
    }

    /// These rules are possible.
    pub(super) fn know_filter(&mut self, rules: &[Rule]) {
        self.findings.good_filters.push(rules.to_vec());
    }

    /// Notes that a key which is needed is not there.
    pub(super) fn missing(&mut self, message: &str, help: &str) {
        self.findings.missing(self.span.clone(), message.to_owned(), Some(help.to_owned()));
    }

    pub(super) fn warning(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        self.findings.warning(span, message.into(), Some(help.to_owned()));
    }

    /// The value of a key, whatever its type.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'t>> {
        debug_assert!(self.known.contains(&key), "{key} has no definition");
        self.table.get(key)
    }

    /// Where the value of a key is.
    pub(super) fn place(&mut self, key: &'static str) -> Option<Range<usize>> {
        self.take(key).map(Spanned::span)
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Option<(T, Range<usize>)> {
        let value = self.take(key)?;
        match convert(value.get_ref()) {
            Some(converted) => Some((converted, value.span())),
            None => {
                let found = value.get_ref().type_str();
                let message = format!("`{key}` must be {wanted}, and this is a TOML {found}");
                self.problem(value.span(), message, None);
                None
            }
        }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<(&'t str, Range<usize>)> {
        self.typed(key, "a string in quotes", |value| value.as_str())
    }

    pub(super) fn bool(&mut self, key: &'static str) -> Option<(bool, Range<usize>)> {
        self.typed(key, "true or false", |value| value.as_bool())
    }

    /// A whole number between 0 and `max`.
    pub(super) fn number(&mut self, key: &'static str, max: u32) -> Option<(u32, Range<usize>)> {
        let (text, span) = self.typed(key, "a whole number", |value| value.as_integer())?;
        match i64::from_str_radix(text.as_str(), text.radix()).map(u32::try_from) {
            Ok(Ok(number)) if number <= max => Some((number, span)),
            _ => {
                self.problem(span, format!("`{key}` must be a number from 0 to {max}"), None);
                None
            }
        }
    }

    /// A string that `parse` understands; else a problem with `help`.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        help: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, span) = self.string(key)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.problem(span, format!("`{key}` does not understand {text:?}"), help.to_owned());
        }
        parsed
    }

    /// A table inside of this one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<(&'t DeTable<'t>, Range<usize>)> {
        self.typed(key, "a table", |value| value.as_table())
    }

    /// A reader of a table inside of this one, which notes its problems here.
    pub(super) fn inner<'q>(
        &'q mut self,
        table: &'t DeTable<'t>,
        name: String,
        span: Range<usize>,
        known: Vec<&'static str>,
    ) -> Table<'t, 'q> {
        Table { table, name, span, known, findings: self.findings }
    }

    /// Its name with a key of it, as a header would say it.
    pub(super) fn inner_name(&self, key: &str) -> String {
        format!("{}.{key}]", self.name.trim_end_matches(']'))
    }

    /// The keys that are there.
    pub(super) fn has_any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.table.contains_key(*key))
    }

    /// Notes each key that has no definition.
    pub(super) fn finish(self) {
        let known = self.known.clone();
        self.finish_naming(known);
    }

    /// The same, with a help that names only these keys.
    pub(super) fn finish_naming(self, mut named: Vec<&'static str>) {
        named.sort_unstable();
        for (key, _) in self.table {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            self.findings.problem(
                key.span(),
                format!("{} has no key `{}`", self.name, key.get_ref()),
                Some(format!("the keys there are: {}", named.join(", "))),
            );
        }
    }
}
