//! The README's table of keys against the definitions.

use std::collections::BTreeMap;

use crate::{
    config::{
        keys::{AGENT, Key, LAST_WORDS_KEYS, RULE, TARGET},
        kind::Kind,
    },
    netconsole::SysdataKey,
};

const README: &str = include_str!("../../../../README.md");

/// What is in backticks.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The keys of a row, and what is in backticks beside them.
type Row = (Vec<&'static str>, Vec<&'static str>);

/// The rows, by table of the configuration.
fn rows() -> BTreeMap<&'static str, Vec<Row>> {
    let (_, table) =
        README.split_once("| key | values (default first) |\n|---|---|\n").expect("it");
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut current = "";
    for line in table.lines().take_while(|line| line.starts_with('|')) {
        let (keys, values) = line[1..].split_once(" | ").expect("two columns");
        let mut keys = spans(keys);
        if keys[0].starts_with('[') {
            current = keys.remove(0).trim_matches(['[', ']']);
        }
        rows.entry(current).or_default().push((keys, spans(values)));
    }
    rows
}

/// What must be said of a kind: each word, and both ends of a range.
fn words(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Switch => vec!["true".to_owned(), "false".to_owned()],
        Kind::Number(range) => vec![range.start().to_string(), range.end().to_string()],
        Kind::Word(words) => words.iter().map(|&word| word.to_owned()).collect(),
        Kind::Either(kinds) => kinds.iter().flat_map(words).collect(),
        Kind::Text { .. } | Kind::List(_) | Kind::Table => Vec::new(),
    }
}

#[test]
fn the_readme_has_every_key_with_its_words_and_its_default() {
    let rows = rows();
    let tables = [
        ("agent", AGENT),
        ("last_words", LAST_WORDS_KEYS),
        ("target.NAME", TARGET),
        ("target.NAME.filter", RULE),
    ];
    for (table, definitions) in tables {
        let definitions = || definitions.iter().filter(|key| !matches!(key.kind, Kind::Table));
        let rows = &rows[table];
        let mut told: Vec<&str> = rows.iter().flat_map(|(keys, _)| keys.clone()).collect();
        let mut defined: Vec<&str> = definitions().map(|key: &Key| key.name).collect();
        told.sort_unstable();
        defined.sort_unstable();
        assert_eq!(told, defined, "[{table}]");
        for key in definitions() {
            let (keys, values) =
                rows.iter().find(|(keys, _)| keys.contains(&key.name)).expect("it");
            for word in words(&key.kind) {
                assert!(values.contains(&&*word), "[{table}] {}: {word} is not said", key.name);
            }
            let default = key.default.map(|default| default.trim_matches('"'));
            if let Some(default) = default {
                assert!(values.contains(&default), "[{table}] {}: not {default}", key.name);
            }
            // "default first"; beside the name of a value that it has to do with.
            let known = |value: &&&str| words(&key.kind).iter().any(|word| *word == **value);
            if let (Some(default), [_], Some(first)) =
                (default, &keys[..], values.iter().find(known))
            {
                assert_eq!(*first, default, "[{table}] {}", key.name);
            }
        }
    }
    let tables: Vec<&str> =
        tables.map(|(table, _)| table).into_iter().chain(["defaults"]).collect();
    for name in rows.keys() {
        let is_known =
            tables.contains(name) || name.ends_with(".userdata") || name.ends_with(".sysdata");
        assert!(is_known, "[{name}]");
    }
}

#[test]
fn the_readme_has_every_key_of_sysdata() {
    let rows = &rows()["target.NAME.sysdata"];
    let [(_, told)] = &rows[..] else { panic!("{rows:?}") };
    let all: Vec<&str> = SysdataKey::ALL.into_iter().map(SysdataKey::name).collect();
    let said: Vec<&str> =
        told.iter().copied().filter(|word| !["true", "false"].contains(word)).collect();
    assert_eq!(said, all);
}
