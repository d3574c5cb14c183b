//! The merged configuration with the place that each value comes from. As TOML it can be
//! read again, and then means the same.

use std::{fmt::Write as _, ops::Range};

use serde_json::{Map, Value as Json, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlStringBuilder};

use super::{
    keys::{AGENT, FILTER, Key, LAST_WORDS, LAST_WORDS_KEYS, RULE, SYSDATA, TARGET, USERDATA},
    live::LIVE,
    merge::{Merged, MergedTarget, fits},
    places::Texts,
};
use crate::netconsole::SysdataKey;

/// Stands for what is not shown.
pub const MASK: &str = "***";

/// A configuration to be shown.
#[derive(Clone, Debug)]
pub struct Shown {
    agent: Vec<Line>,
    last_words: Vec<Line>,
    targets: Vec<ShownTarget>,
}

#[derive(Clone, Debug)]
struct ShownTarget {
    name: String,
    keys: Vec<Line>,
    rules: Vec<Vec<Line>>,
    userdata: Vec<Line>,
    sysdata: Vec<Line>,
}

/// One value.
#[derive(Clone, Debug)]
struct Line {
    key: String,
    /// As TOML; `None` if nothing is set and nothing could be written for that.
    toml: Option<String>,
    json: Json,
    from: From,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
enum From {
    Default,
    Source { name: String, line: usize },
}

impl Shown {
    pub(super) fn new(merged: &Merged<'_>, texts: &Texts<'_>) -> Self {
        let none = DeTable::new();
        let agent = merged.agent.as_ref().map_or(&none, |(table, _)| table);
        let last_words = merged.last_words.as_ref().map_or(&none, |(table, _)| table);
        Self {
            agent: AGENT.iter().map(|key| line(key, agent, texts)).collect(),
            last_words: LAST_WORDS_KEYS.iter().map(|key| line(key, last_words, texts)).collect(),
            targets: merged.targets.iter().map(|target| shown_target(target, texts)).collect(),
        }
    }

    /// Puts [`MASK`] in the place of every value of the userdata, which may be a secret; the keys
    /// stay.
    pub fn mask_userdata(&mut self) {
        for line in self.targets.iter_mut().flat_map(|target| &mut target.userdata) {
            line.json = MASK.into();
            line.toml = Some(format!("\"{MASK}\""));
        }
    }

    /// TOML with comments.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = "[agent]\n".to_owned();
        write_lines(&mut text, &self.agent);
        let _ = write!(text, "\n[{LAST_WORDS}]\n");
        write_lines(&mut text, &self.last_words);
        for target in &self.targets {
            let name = format!("target.{}", target.name.to_toml_key());
            let _ = write!(text, "\n[{name}]\n");
            write_lines(&mut text, &target.keys);
            for rule in &target.rules {
                let _ = write!(text, "\n[[{name}.{FILTER}]]\n");
                write_lines(&mut text, rule);
            }
            for (key, lines) in [(USERDATA, &target.userdata), (SYSDATA, &target.sysdata)] {
                if !lines.is_empty() {
                    let _ = write!(text, "\n[{name}.{key}]\n");
                    write_lines(&mut text, lines);
                }
            }
        }
        text
    }

    /// The same for programs: each value is `{"value": …, "source": FILE, "line": N}`, where
    /// `source` is `default` without a line, or `(live)`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let targets: Map<String, Json> = self
            .targets
            .iter()
            .map(|target| {
                let mut object = object(&target.keys);
                object.insert(USERDATA.to_owned(), object_of(&target.userdata));
                object.insert(SYSDATA.to_owned(), object_of(&target.sysdata));
                let rules = target.rules.iter().map(|rule| object_of(rule));
                object.insert(FILTER.to_owned(), rules.collect());
                (target.name.clone(), object.into())
            })
            .collect();
        let last_words = object_of(&self.last_words);
        json!({ "agent": object_of(&self.agent), LAST_WORDS: last_words, "targets": targets })
    }
}

fn object_of(lines: &[Line]) -> Json {
    object(lines).into()
}

fn object(lines: &[Line]) -> Map<String, Json> {
    let value = |line: &Line| match &line.from {
        From::Default => json!({ "value": line.json, "source": "default" }),
        From::Source { name, line: number } => {
            json!({ "value": line.json, "source": name, "line": number })
        }
    };
    lines.iter().map(|line| (line.key.clone(), value(line))).collect()
}

fn write_lines(text: &mut String, lines: &[Line]) {
    for line in lines {
        let key = line.key.to_toml_key();
        let _ = match &line.toml {
            Some(value) => write!(text, "{key} = {value}"),
            None => write!(text, "# {key} is not set"),
        };
        let _ = match &line.from {
            From::Default => writeln!(text, "  # default"),
            From::Source { name, .. } if name == LIVE => writeln!(text, "  # {LIVE}"),
            // The name of a file can have a line end.
            From::Source { name, line } => writeln!(text, "  # {}:{line}", name.escape_debug()),
        };
    }
}

fn shown_target(target: &MergedTarget<'_>, texts: &Texts<'_>) -> ShownTarget {
    let table = &target.table;
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    let (egress, format) = (text("egress"), text("format"));
    let is_table = |key: &Key| [FILTER, USERDATA, SYSDATA].contains(&key.name);
    let keys = TARGET
        .iter()
        .filter(|key| !is_table(key))
        // A default that changes nothing would only be a warning when it is read again.
        .filter(|key| table.contains_key(key.name) || fits(key.name, egress, format))
        .map(|key| line(key, table, texts));
    let inner = |key: &str| table.get(key).and_then(|value| value.get_ref().as_table());
    let userdata =
        inner(USERDATA).into_iter().flatten().map(|(key, value)| written(key, value, texts));
    let on = inner(SYSDATA);
    let sysdata =
        SysdataKey::ALL.into_iter().filter(|_| fits(SYSDATA, egress, format)).map(|key| {
            match on.and_then(|table| table.get_key_value(key.name())) {
                Some((key, value)) => written(key, value, texts),
                None => of_default(key.name(), "false"),
            }
        });
    let rules = table.get(FILTER).and_then(|value| value.get_ref().as_array());
    let rules = rules.into_iter().flatten().filter_map(|rule| {
        let rule = rule.get_ref().as_table()?;
        let keys = RULE.iter().filter_map(|key| rule.get_key_value(key.name));
        Some(keys.map(|(key, value)| written(key, value, texts)).collect())
    });
    ShownTarget {
        name: target.name.clone(),
        keys: keys.collect(),
        rules: rules.collect(),
        userdata: userdata.collect(),
        sysdata: sysdata.collect(),
    }
}

fn line(key: &Key, table: &DeTable<'_>, texts: &Texts<'_>) -> Line {
    match (table.get_key_value(key.name), key.default) {
        (Some((key, value)), _) => written(key, value, texts),
        (None, Some(default)) => of_default(key.name, default),
        (None, None) => {
            Line { key: key.name.to_owned(), toml: None, json: Json::Null, from: From::Default }
        }
    }
}

fn of_default(key: &str, default: &str) -> Line {
    let json = json_of(default);
    let toml = Some(default.to_owned());
    Line { key: key.to_owned(), toml, json, from: From::Default }
}

/// A value that is written as TOML, for programs.
pub(super) fn json_of(toml: &str) -> Json {
    DeValue::parse(toml).map_or(Json::Null, |value| to_json(value.get_ref()))
}

fn written<K: AsRef<str>>(
    key: &Spanned<K>,
    value: &Spanned<DeValue<'_>>,
    texts: &Texts<'_>,
) -> Line {
    let span: Range<usize> = key.span();
    let (source, line) = texts.line(&span);
    Line {
        key: key.get_ref().as_ref().to_owned(),
        toml: Some(to_toml(value.get_ref())),
        json: to_json(value.get_ref()),
        from: From::Source { name: source.name.clone(), line },
    }
}

/// On one line.
fn to_toml(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => TomlStringBuilder::new(text).as_basic().to_toml_value(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let list: Vec<_> = list.iter().map(|value| to_toml(value.get_ref())).collect();
            format!("[{}]", list.join(", "))
        }
        DeValue::Table(table) => {
            let pair = |(key, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
                format!("{} = {}", key.get_ref().as_ref().to_toml_key(), to_toml(value.get_ref()))
            };
            let pairs: Vec<_> = table.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

fn to_json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Json::Null, Json::from)
        }
        DeValue::Boolean(on) => Json::from(*on),
        DeValue::Array(list) => list.iter().map(|value| to_json(value.get_ref())).collect(),
        DeValue::String(text) => Json::from(text.as_ref()),
        other => Json::from(to_toml(other)),
    }
}
