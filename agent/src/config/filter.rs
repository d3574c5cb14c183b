//! `[[target.NAME.filter]]`: the rules that decide which records are sent. What they mean is
//! in [`crate::target::filter`]; here they become [`Rule`]s, each problem at its place.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use super::{
    keys::{FILTER, RULE},
    places,
    table::Table,
    values,
};
use crate::target::filter::{
    Filter, FilterSpec,
    spec::{Action, Rule, TextMatch},
};

const ACTIONS: &str = "action = \"send\", action = \"drop\", or rate = \"10/5s\"";
const CONDITIONS: [&str; 7] = ["text", "regex", "subsystem", "device", "task", "cgroup", "cpu"];

/// Reads `filter`.
pub(super) fn filter(table: &mut Table<'_, '_>) -> Vec<Rule> {
    let Some(value) = table.take(FILTER) else { return Vec::new() };
    let wanted = "`filter` must be an array of tables: [[target.NAME.filter]]";
    let DeValue::Array(list) = value.get_ref() else {
        table.problem(value.span(), wanted, None);
        return Vec::new();
    };
    let (mut rules, mut places) = (Vec::new(), Vec::new());
    for (index, element) in list.iter().enumerate() {
        let Some(inner) = element.get_ref().as_table() else {
            table.problem(element.span(), wanted, None);
            continue;
        };
        let known = RULE.iter().map(|key| key.name).collect();
        let mut inner = table.inner(inner, "a rule of `filter`".to_owned(), element.span(), known);
        let decides_all = !inner.has_any(&CONDITIONS);
        if decides_all && index + 1 < list.len() {
            let message = "the rules after this one are never reached: it has no condition";
            inner.warning(element.span(), message, "such a rule can only be the last one");
        }
        let text = inner.place("regex").or_else(|| inner.place("text"));
        if let Some(rule) = rule(&mut inner) {
            rules.push(rule);
            places.push(text.unwrap_or_else(|| element.span()));
        }
        inner.finish();
    }
    if !table.is_known_filter(&rules) {
        let problems = refused(&rules);
        if problems.is_empty() {
            table.know_filter(&rules);
        }
        for (index, part, message) in problems {
            let place = places.get(index).cloned().unwrap_or_else(|| value.span());
            let place = match (part, rules.get(index).and_then(|rule| rule.text.as_ref())) {
                (Some(part), Some(TextMatch::Regex(text))) => places::inside(place, text, part),
                _ => place,
            };
            table.problem(place, message, None);
        }
    }
    rules
}

/// What cannot be compiled: the number of the rule, the part of its regular expression in
/// bytes if it is known, and what is wrong.
fn refused(rules: &[Rule]) -> Vec<(usize, Option<Range<usize>>, String)> {
    // As the filter's compiler reads them; it says where a mistake is only in words.
    let mut builder = regex_syntax::ParserBuilder::new();
    builder.utf8(false).unicode(false);
    let check = |(index, rule): (usize, &Rule)| {
        let Some(TextMatch::Regex(text)) = &rule.text else { return None };
        let (span, what) = match builder.build().parse(text) {
            Ok(_) => return None,
            Err(regex_syntax::Error::Parse(error)) => {
                (Some(error.span().start.offset..error.span().end.offset), error.kind().to_string())
            }
            Err(regex_syntax::Error::Translate(error)) => {
                (Some(error.span().start.offset..error.span().end.offset), error.kind().to_string())
            }
            Err(error) => (None, error.to_string()),
        };
        Some((index, span, format!("`regex` is not a regular expression: {what}")))
    };
    let problems: Vec<_> = rules.iter().enumerate().filter_map(check).collect();
    if !problems.is_empty() {
        return problems;
    }
    let spec = FilterSpec { max_level: 7, facilities: None, rules: rules.to_vec(), rate: None };
    let problem = Filter::compile(spec).err();
    problem
        .map(|error| {
            // Where the rule is the report shows.
            let message = format!("`{}` {}", error.condition, error.cause);
            (error.rule.unwrap_or(0), None, message)
        })
        .into_iter()
        .collect()
}

fn rule(table: &mut Table<'_, '_>) -> Option<Rule> {
    let contains = non_empty(table, "text");
    let regex = non_empty(table, "regex");
    if let (Some(text), Some(regex)) = (table.place("text"), table.place("regex")) {
        let message = "a rule has `text` or `regex`, not both";
        table.problem_with(regex, message, (text, "`text` is here"));
    }
    let subsystem = non_empty(table, "subsystem");
    let device = non_empty(table, "device");
    let task = non_empty(table, "task");
    let cgroup = non_empty(table, "cgroup");
    let cpus = values::cpus(table);
    let action = action(table)?;
    Some(Rule {
        text: contains.map(TextMatch::Contains).or(regex.map(TextMatch::Regex)),
        subsystem,
        device,
        task,
        cgroup,
        cpus,
        action,
    })
}

fn non_empty(table: &mut Table<'_, '_>, key: &'static str) -> Option<String> {
    let (text, span) = table.string(key)?;
    if text.is_empty() {
        table.problem(span, format!("`{key}` is empty"), "leave it out for any".to_owned());
        return None;
    }
    Some(text.to_owned())
}

fn action(table: &mut Table<'_, '_>) -> Option<Action> {
    let rate_place = table.place("rate");
    let rate = table.parsed("rate", values::RATE_FORMS, values::rate);
    if table.take("action").map(Spanned::get_ref).is_none() {
        if rate_place.is_none() {
            table.missing("the rule has no action", ACTIONS);
        }
        return rate.map(Action::Rate);
    }
    let (name, span) = table.string("action")?;
    match (name, rate_place) {
        ("rate", None) => {
            table.problem(span, "action = \"rate\" needs a `rate`", "rate = \"10/5s\"".to_owned());
            None
        }
        ("rate", Some(_)) => rate.map(Action::Rate),
        ("send" | "drop", Some(rate)) => {
            let message = format!("action = {name:?} does not go with a `rate`");
            table.problem_with(span, message, (rate, "the rate"));
            None
        }
        ("send", None) => Some(Action::Send),
        ("drop", None) => Some(Action::Drop),
        _ => {
            let message = format!("`action` does not understand {name:?}");
            table.problem(span, message, ACTIONS.to_owned());
            None
        }
    }
}
