//! The schema against what is read, and against what is shipped; the manual against what is kept.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::*;
use crate::config::{
    keys::{AGENT, Key, LAST_WORDS_KEYS, TARGET},
    kind::Kind,
};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema = schema();
    jsonschema::meta::validate(schema.as_value()).expect("a schema");
    jsonschema::validator_for(schema.as_value()).expect("a schema that can be used")
});

/// What the schema has against a text.
fn objections(text: &str) -> Vec<String> {
    let value: Value = toml::from_str(text).expect("TOML");
    VALIDATOR
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

pub(super) fn assert_taken(text: &str) {
    let objections = objections(text);
    assert!(objections.is_empty(), "{text}\n{objections:?}");
}

/// A file that is kept, as it is made; `UPDATE_GOLDEN=1` writes it anew.
#[track_caller]
fn assert_kept(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(kept, made, "{}: UPDATE_GOLDEN=1 writes it anew", path.display());
}

#[test]
fn the_schema_is_what_is_shipped() {
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert_kept("../configs/agent.schema.json", &made);
    // The example names it.
    let directive = "#:schema ./agent.schema.json\n";
    assert!(example().starts_with(directive));
}

#[test]
fn the_manual_is_what_is_kept() {
    let version = concat!("netconsole-agent ", env!("CARGO_PKG_VERSION"));
    // So that a release changes nothing here.
    let made = manual().replace(version, "netconsole-agent VERSION");
    assert_kept("src/config/tests/netconsole-agent.toml.5", &made);
}

#[test]
fn every_key_is_in_the_manual() {
    let manual = manual();
    for key in AGENT.iter().chain(LAST_WORDS_KEYS).chain(TARGET) {
        if !matches!(key.kind, Kind::Table) {
            // As roff has it.
            assert!(manual.contains(&format!("\n\\fB{}\\fR\n", key.name)), "{}", key.name);
        }
    }
    for key in SysdataKey::ALL {
        assert!(manual.contains(key.name()), "{}", key.name());
    }
}

#[test]
fn what_the_schema_refuses_is_refused() {
    let target = |line: &str| format!("[target.x]\nremote = \"192.0.2.1\"\n{line}\n");
    for text in [
        // No such key, in every table.
        "agnet = 1\n[target.x]\nremote = \"192.0.2.1\"\n".to_owned(),
        target("remot = \"192.0.2.2\""),
        target("[agent]\ncaptur = \"auto\""),
        target("[last_words]\nhodl = \"1ms\""),
        target("[defaults]\nremote = \"192.0.2.1\""),
        target("[target.x.sysdata]\ncpus = true"),
        target("[[target.x.filter]]\ncpus = 1\naction = \"drop\""),
        // Another type.
        target("queue = \"0\""),
        target("enabled = \"no\""),
        target("device = 3"),
        target("pace = 20000"),
        target("facility = 3"),
        target("filter = 1"),
        target("filter = [1]"),
        target("userdata = [\"a\"]"),
        target("[target.x.userdata]\na = 1"),
        target("[target.x.sysdata]\ncpu = \"yes\""),
        target("[agent]\nmetrics = true"),
        "[target]\nx = 3\n".to_owned(),
        "agent = true\n".to_owned(),
        // No such word.
        target("egress = \"tcp\""),
        target("format = \"json\""),
        target("max_level = \"warn\""),
        target("facility = \"kern\""),
        target("facility = [\"kern\", \"local8\"]"),
        target("dump = \"kdump\""),
        target("[agent]\ncapture = \"console\""),
        target("[agent]\nreplay = \"all\""),
        target("[[target.x.filter]]\naction = \"log\""),
        // Out of range.
        target("queue = 65536"),
        target("queue = -1"),
        target("max_level = 8"),
        target("copies = 0"),
        target("copies = 9"),
        target("facility = [256]"),
        target("facility = []"),
        target("pace = \"0/s\""),
        target("pace = \"10000001/s\""),
        target("[[target.x.filter]]\ncpu = 8192\naction = \"drop\""),
        target("[[target.x.filter]]\ncpu = []\naction = \"drop\""),
        target(&format!("[agent]\ncontrol_socket = \"/{}\"", "x".repeat(107))),
        target(&format!("[agent]\ncontrol_group = \"{}\"", "x".repeat(33))),
        target(&format!("[target.x.userdata]\n{} = \"a\"", "x".repeat(54))),
        // Written in another way.
        target("rate = \"10\""),
        target("rate = \"10/parsec\""),
        target("keepalive = \"hourly\""),
        target("remote_mac = \"1:2:3:4:5:6\""),
        target("device = \"a/b\""),
        target("local = \"host\""),
        target("pcap = \"\"\negress = \"pcap\""),
        target("[agent]\nstore = \"lots\""),
        target("[agent]\ncontrol_socket = \"x.sock\""),
        target("[agent]\nmetrics = \"localhost:9774\""),
        target("[last_words]\nhold = \"5 ticks\""),
        target("[target.x.userdata]\n\"a/b\" = \"c\""),
        target("[[target.x.filter]]\ntext = \"\"\naction = \"drop\""),
        target("[[target.x.filter]]\ntext = \"a\"\nregex = \"b\"\naction = \"drop\""),
        target("[[target.x.filter]]\ntext = \"a\""),
        "[target.x]\nremote = \"host_a.example\"\n".to_owned(),
        "[target.x]\nremote = \"host name\"\n".to_owned(),
        "[target.\"a b\"]\nremote = \"192.0.2.1\"\n".to_owned(),
        "[target]\n".to_owned(),
        "[target.x]\n".to_owned(),
    ] {
        assert!(!objections(&text).is_empty(), "the schema takes {text}");
        assert!(parse(&text, "x").is_err(), "the reader takes {text}");
    }
}

/// Values of a kind, as TOML, and values that are none.
fn samples(kind: &Kind) -> (Vec<String>, Vec<String>) {
    let quoted = |word: &&str| format!("\"{word}\"");
    match kind {
        Kind::Switch => (vec!["true".into(), "false".into()], vec!["0".into(), "\"on\"".into()]),
        Kind::Number(range) => {
            let good = [range.start(), range.end()].map(u32::to_string);
            let above = (u64::from(*range.end()) + 1).to_string();
            (good.to_vec(), vec![above, (i64::from(*range.start()) - 1).to_string(), "1.5".into()])
        }
        Kind::Word(words) => {
            (words.iter().map(quoted).collect(), vec!["\"nonsense/\"".into(), "\"\"".into()])
        }
        Kind::Text { .. } => (Vec::new(), vec!["true".into(), "[\"x\"]".into(), "\"\"".into()]),
        Kind::List(kinds) => {
            let inner: Vec<_> = kinds.iter().map(samples).collect();
            let list = |value: &String| format!("[{value}]");
            (
                inner.iter().flat_map(|(good, _)| good).map(list).collect(),
                vec!["[]".into(), "[true]".into()],
            )
        }
        Kind::Either(kinds) => {
            let inner: Vec<_> = kinds.iter().map(samples).collect();
            (inner.into_iter().flat_map(|(good, _)| good).collect(), vec!["true".into()])
        }
        Kind::Table => (Vec::new(), vec!["1".into()]),
    }
}

/// What a definition says of a key is what the reader takes: each word, both ends of a range, and
/// nothing beside it.
#[test]
fn each_kind_is_what_is_read() {
    let text = |table: &str, key: &Key, value: &str| {
        // What the kind of a way out asks for.
        let more = if value == "\"pcap\"" { "target.x.pcap = \"/x\"\n" } else { "" };
        let remote = if key.name == "remote" { "" } else { "target.x.remote = \"192.0.2.1\"\n" };
        format!("{remote}{more}{table}.{} = {value}\n", key.name)
    };
    for (table, keys) in [("agent", AGENT), ("last_words", LAST_WORDS_KEYS), ("target.x", TARGET)] {
        for key in keys {
            let (mut good, bad) = samples(&key.kind);
            good.extend(
                key.default.or(key.example).map(str::to_owned).filter(|_| key.name != "pcap"),
            );
            for value in good {
                let text = text(table, key, &value);
                // Here the schema is asked as well.
                assert!(parse(&text, "x").is_ok(), "{text}");
            }
            for value in bad {
                let text = text(table, key, &value);
                assert!(parse(&text, "x").is_err(), "{text}");
                assert!(!objections(&text).is_empty(), "{text}");
            }
        }
    }
}

#[test]
fn values_in_their_many_forms_are_taken_by_both() {
    let target = |line: &str| format!("[target.x]\nremote = \"192.0.2.1\"\n{line}\n");
    for line in [
        "remote_mac = \"52:54:00:AA:bb:01\"",
        "device = \"enp0s31f6.100\"",
        "device = \"02:00:00:00:00:0A\"",
        "rate = \"1/1m 30s\"",
        "rate = \"3/m\"",
        "rate = \"1000000/1day\"",
        "rate = \"007/500 ms\"",
        "keepalive = \"1h 30min\"",
        "keepalive = \"7days\"",
        "pace = \"10000000/s\"",
        "local = \"192.0.2.9:7\"",
        "local = \":7\"",
        "copies = 0x8",
        "[last_words]\nhold = \"0s\"\nbudget = \"1s 500ms\"",
        "[last_words]\nhold = \"0\"",
        "[agent]\nstore = \"1 GiB\"",
        "[agent]\nstore = \"33554432\"",
        "[agent]\nstore = \"17.5M\"",
        "[agent]\nmetrics = \"[::1]:9774\"",
        "[agent]\nmetrics = \"127.3.2.1:1\"",
        "[agent]\nmetrics = \"unix:/run/x.sock\"",
        "[[target.x.filter]]\ncpu = \"0-3, 8\"\naction = \"send\"",
        "[[target.x.filter]]\ntext = \"\\n\"\nrate = \"1/s\"",
        "[target.x.userdata]\n\"odd key\" = \"\"",
    ] {
        parse(&target(line), "x").unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for remote in [
        "2001:db8::1",
        "[2001:db8::1]",
        "[fe80::1%3]:514",
        "::ffff:192.0.2.1",
        "netcons.example.net.",
        "cafe:1514",
    ] {
        let text = format!("[target.x]\nremote = {remote:?}\n");
        parse(&text, "x").unwrap_or_else(|error| panic!("{remote}: {error}"));
    }
}
