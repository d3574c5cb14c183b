//! The JSON Schema (draft 2020-12) of the configuration, made from the definitions of the keys,
//! for editors and for programs that write configurations.
//!
//! It is for one file, and takes every file that the agent takes. It does not know what needs more
//! than a key, such as a receiver in another IP version than the source: that only `check` tells.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use super::{
    keys::{
        AGENT, FILTER, Key, LAST_WORDS, LAST_WORDS_KEYS, REMOTE, RULE, SYSDATA, TARGET, USERDATA,
    },
    kind::{Kind, TARGET_NAME_MAX_BYTES},
    show::json_of,
};
use crate::netconsole::{SysdataKey, format};

/// The schema of `agent.toml` and, as far as targets go, of `targets.d/*.toml`.
#[must_use]
pub fn schema() -> Schema {
    let without_remote: Vec<&Key> = TARGET.iter().filter(|key| key.name != REMOTE).collect();
    let all = |keys: &'static [Key]| keys.iter().collect::<Vec<_>>();
    let mut target = table("A receiver.", &all(TARGET));
    target["required"] = json!([REMOTE]);
    let mut rule = table(
        "A rule: the first one whose conditions all hold decides; without one the record is sent.",
        &all(RULE),
    );
    rule["anyOf"] = json!([{ "required": ["action"] }, { "required": ["rate"] }]);
    rule["not"] = json!({ "required": ["text", "regex"] });
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netconsole-agent",
        "description": "Configuration of netconsole-agent: agent.toml and targets.d/*.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "agent": table("Settings of the agent itself.", &all(AGENT)),
            LAST_WORDS: table("What is done while the kernel panics.", &all(LAST_WORDS_KEYS)),
            "defaults": table("What counts for each target that does not say otherwise.", &without_remote),
            "target": {
                "description": "One table for each receiver; the name is yours.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": format!("^[A-Za-z0-9_.-]{{1,{TARGET_NAME_MAX_BYTES}}}$") },
                "additionalProperties": { "$ref": "#/$defs/target" },
            },
        },
        "$defs": { "target": target, FILTER: rule, USERDATA: userdata(), SYSDATA: sysdata() },
    })
}

/// A table with these keys and no other.
fn table(description: &str, keys: &[&Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: &Key) -> Value {
    match (&key.kind, key.name) {
        (Kind::Table, FILTER) => {
            json!({ "type": "array", "items": { "$ref": format!("#/$defs/{FILTER}") } })
        }
        (Kind::Table, name) => json!({ "$ref": format!("#/$defs/{name}") }),
        (kind, _) => {
            let mut property = of_kind(kind);
            let mut description = key.help.join(" ");
            // Words and numbers an editor shows by itself.
            if let Kind::Text { forms, .. } = kind {
                description += &format!(" Value: {forms}.");
            }
            property["description"] = description.into();
            if let Some(default) = key.default {
                property["default"] = json_of(default);
            }
            if let Some(example) = key.example {
                property["examples"] = json!([json_of(example)]);
            }
            property
        }
    }
}

fn of_kind(kind: &Kind) -> Value {
    let any = |kinds: &[Kind]| -> Value {
        match kinds {
            [one] => of_kind(one),
            kinds => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
        }
    };
    match kind {
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Number(range) => {
            json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
        }
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Text { pattern, .. } => json!({ "type": "string", "pattern": pattern }),
        Kind::List(kinds) => json!({ "type": "array", "minItems": 1, "items": any(kinds) }),
        Kind::Either(kinds) => any(kinds),
        Kind::Table => json!({ "type": "object" }),
    }
}

fn userdata() -> Value {
    json!({
        "description": "Your own additions to each record, in this order (extended format). A value \
                        can have the text of a file, {file:/etc/role}, or an environment variable, \
                        {env:JOB}, in it.",
        "type": "object",
        "maxProperties": format::USERDATA_ITEMS_MAX,
        // A key is the name of a folder in the kernel's netconsole.
        "propertyNames": { "pattern": format!("^[^/\\n\\u0000]{{1,{}}}$", format::USERDATA_KEY_MAX_BYTES) },
        "additionalProperties": { "type": "string" },
    })
}

fn sysdata() -> Value {
    let switch =
        |key: SysdataKey| (key.name().to_owned(), json!({ "type": "boolean", "default": false }));
    let properties: Map<String, Value> = SysdataKey::ALL.into_iter().map(switch).collect();
    json!({
        "description": "Added to each record by the agent (extended format).",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}
