//! Patterns and texts that are meant to hurt.

use std::time::{Duration, Instant};

use super::*;

/// Either compiled within the limits or refused for its size, and soon.
#[test]
fn hostile_regexes_are_bounded_or_refused() {
    let mut refused = Vec::new();
    for hostile in [
        "(a+)+$",
        "(a|aa)+$",
        "(a*)*b",
        ".*.*.*.*x",
        ".{0,10000}",
        ".{0,10000}x",
        "(x{1000}){1000}",
        "((x{1000}){1000}){1000}",
        "(?:){4294967295}",
        "(?:){100000}{100000}{100000}",
        "[01]*1[01]{20}",
        "x.{40}y",
        r"(\w+\s*){50}:",
        "(?i)(a|b|c|d|e|f|g){200}",
    ] {
        let began = Instant::now();
        let compiled =
            Filter::compile(spec(vec![Rule { text: regex(hostile), ..rule(Action::Drop) }]));
        // In an unoptimised build, on a busy machine.
        assert!(began.elapsed() < Duration::from_secs(5), "{hostile}: {:?}", began.elapsed());
        match compiled {
            Ok(filter) => {
                for text in [vec![b'a'; 1024], vec![b'x'; 1024], b"01".repeat(512)] {
                    let record = record(&text);
                    let explained = filter.explain(&record, None).decision;
                    assert_eq!(filter.decide(&record, None, 0), explained);
                }
            }
            Err(error) => {
                assert_eq!((error.rule, error.condition), (Some(0), "regex"));
                assert_eq!(error.cause, Cause::TooLarge, "{hostile}");
                refused.push(hostile);
            }
        }
    }
    for wanted in ["(x{1000}){1000}", "((x{1000}){1000}){1000}", "[01]*1[01]{20}", "x.{40}y"] {
        assert!(refused.contains(&wanted), "{wanted} was taken");
    }
    for wanted in ["(a+)+$", "(a|aa)+$", "(a*)*b", ".*.*.*.*x"] {
        assert!(!refused.contains(&wanted), "{wanted} was refused");
    }
}

#[test]
fn hostile_globs_are_bounded_or_refused() {
    let cgroup = |glob: String| {
        Filter::compile(spec(vec![Rule { cgroup: Some(glob), ..rule(Action::Drop) }]))
    };
    let stars = cgroup("*a".repeat(500)).unwrap();
    assert_eq!(stars.decide(&record(b""), Some(&[b'a'; 4096]), 0), Decision::Filter);
    assert_eq!(stars.decide(&record(b""), Some(&[b'b'; 4096]), 0), Decision::Send);
    let error = cgroup(format!("*[ab]{}", "?".repeat(30))).unwrap_err();
    assert_eq!(error.cause, Cause::TooLarge);
}

#[test]
fn all_automata_together_are_bounded() {
    // Each of some 100 KiB: few states, but nearly every byte a class of its own.
    let alphabet: String = ('0'..='z').filter(char::is_ascii_alphanumeric).collect();
    let pattern = alphabet.repeat(6);
    let rules = |count| vec![Rule { text: regex(&pattern), ..rule(Action::Drop) }; count];
    assert!(Filter::compile(spec(rules(4))).is_ok());
    let error = Filter::compile(spec(rules(1000))).unwrap_err();
    assert_eq!((error.condition, error.cause), ("regex", Cause::AllTooLarge));
    assert!(error.rule.is_some_and(|index| index > 8), "{:?}", error.rule);
}

#[test]
fn without_unicode_nothing_makes_an_automaton_quit() {
    for pattern in [r"\bé", r"é\b", "é+", "(?i)É", ".é.", r"\W\xa9"] {
        let rules = vec![Rule { text: regex(pattern), ..rule(Action::Drop) }];
        match Filter::compile(spec(rules)) {
            Ok(filter) => {
                let reference =
                    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap();
                for text in ["é", " é ", "aéa", "ééé", "É"] {
                    let dropped = filter.decide(&record(text.as_bytes()), None, 0);
                    let wanted = reference.is_match(text.as_bytes());
                    assert_eq!(dropped == Decision::Filter, wanted, "{pattern} {text}");
                }
            }
            Err(error) => assert!(matches!(error.cause, Cause::Regex(_)), "{pattern}: {error}"),
        }
    }
}
