//! The filter against a slow one that was written to be obviously right.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

/// A glob, by trying everything.
fn slow_glob(glob: &[u8], bytes: &[u8], path: bool) -> bool {
    let Some((&first, glob_rest)) = glob.split_first() else { return bytes.is_empty() };
    let one = || bytes.split_first().filter(|(byte, _)| !path || **byte != b'/');
    match first {
        b'*' if glob_rest.first() == Some(&b'*') => {
            let rest = &glob_rest[1..];
            (0..=bytes.len()).any(|skip| slow_glob(rest, &bytes[skip..], path))
        }
        b'*' => (0..=bytes.len())
            .take_while(|skip| !path || *skip == 0 || bytes[skip - 1] != b'/')
            .any(|skip| slow_glob(glob_rest, &bytes[skip..], path)),
        b'?' => one().is_some_and(|(_, rest)| slow_glob(glob_rest, rest, path)),
        // The only class below.
        b'[' => one().is_some_and(|(byte, rest)| {
            matches!(byte, b'a' | b'b') && slow_glob(&glob_rest[3..], rest, path)
        }),
        b'\\' => {
            bytes.first() == glob_rest.first() && slow_glob(&glob_rest[1..], &bytes[1..], path)
        }
        byte => bytes.first() == Some(&byte) && slow_glob(glob_rest, &bytes[1..], path),
    }
}

/// For each condition; `None` if the record does not say. It never knows the leaf of a
/// cgroup, which has a test of its own.
fn slow_conditions(rule: &Rule, record: &Record<'_>, path: Option<&[u8]>) -> Vec<Option<bool>> {
    let said = |field| (!record.approximated).then_some(field);
    let task = record.context.map(|context| context.task);
    let glob = |glob: &Option<String>, field: Option<&[u8]>, path| match glob {
        Some(glob) => field.map(|field| slow_glob(glob.as_bytes(), field, path)),
        None => Some(true),
    };
    let text = match &rule.text {
        None => true,
        Some(TextMatch::Contains(text)) => {
            text.is_empty()
                || record.text.windows(text.len()).any(|window| window == text.as_bytes())
        }
        Some(TextMatch::Regex(regex)) => regex::bytes::RegexBuilder::new(regex)
            .unicode(false)
            .build()
            .unwrap()
            .is_match(record.text),
    };
    vec![
        Some(text),
        glob(&rule.subsystem, said(record.subsystem), false),
        glob(&rule.device, said(record.device), false),
        glob(&rule.task, task, false),
        glob(&rule.cgroup, path, true),
        if rule.cpus.is_empty() {
            Some(true)
        } else {
            record.context.map(|context| rule.cpus.contains(&context.cpu))
        },
    ]
}

fn slow(spec: &FilterSpec, record: &Record<'_>, path: Option<&[u8]>) -> (Decision, Reason) {
    let decided = |reason, send| (if send { Decision::Send } else { Decision::Filter }, reason);
    if !record.approximated && record.level > spec.max_level {
        return decided(Reason::Level { level: record.level }, false);
    }
    if !record.approximated
        && spec.facilities.as_ref().is_some_and(|list| !list.contains(&record.facility))
    {
        return decided(Reason::Facility { facility: record.facility }, false);
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let conditions = slow_conditions(rule, record, path);
        let guessed = conditions.contains(&None);
        let sends = rule.action == Action::Send;
        if conditions.contains(&Some(false)) || guessed && !sends {
            continue;
        }
        return decided(Reason::Rule { index, guessed }, rule.action != Action::Drop);
    }
    decided(Reason::Default, true)
}

fn paths() -> Vec<&'static [u8]> {
    vec![b"/", b"/a", b"/a/b", b"/b/a", b"/a/a/b", b"/ab", b"/b*"]
}

fn globs() -> impl Strategy<Value = Option<String>> {
    option::of(
        vec(select(vec!["a", "b", "*", "**", "?", "[ab]", "/", r"\*"]), 0..5)
            .prop_map(|parts| parts.concat())
            // Three stars are `**` and `*` above, and `**` below.
            .prop_filter("three stars", |glob| !glob.contains("***")),
    )
}

fn texts() -> impl Strategy<Value = Option<TextMatch>> {
    let regexes = select(vec![
        "a",
        "^a",
        "a$",
        "a.b",
        "(a|b)+b",
        "[^a]",
        "a{2,3}",
        r"\Aab*\z",
        "(?i)A",
        r"\bab\b",
        ".*a.*b",
        "(?s)b.b",
        "(?m)^b$",
        r"\xff",
        "",
        r"[[:^alpha:]]",
        "a|^b|b$",
        "(?:ab?)*?b",
    ]);
    option::of(prop_oneof![
        "[ab]{0,3}".prop_map(TextMatch::Contains),
        regexes.prop_map(|regex| TextMatch::Regex(regex.to_owned())),
    ])
}

fn rules() -> impl Strategy<Value = Rule> {
    // Rates that are never used up; when they are is tested elsewhere.
    let rate = Rate { count: u32::MAX, period: Duration::from_secs(1) };
    (
        texts(),
        [globs(), globs(), globs(), globs()],
        vec(0u32..3, 0..2),
        select(vec![Action::Send, Action::Drop, Action::Rate(rate)]),
        0u8..4,
    )
        .prop_map(|(text, [subsystem, device, task, cgroup], cpus, action, keep)| {
            let mut rule = Rule { text, subsystem, device, task, cgroup, cpus, action };
            // Rules with few conditions, or none would ever match.
            if keep != 0 {
                (rule.subsystem, rule.device) = (None, None);
            }
            if keep != 1 {
                (rule.task, rule.cpus) = (None, Vec::new());
            }
            if keep != 2 {
                rule.cgroup = None;
            }
            rule
        })
}

fn specs() -> impl Strategy<Value = FilterSpec> {
    (0u8..8, option::of(vec(0u8..4, 0..4)), vec(rules(), 0..6)).prop_map(
        |(max_level, facilities, rules)| FilterSpec { max_level, facilities, rules, rate: None },
    )
}

fn some_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(select(b"aabb \n\xffA".to_vec()), 0..12), vec(any::<u8>(), 0..1024),]
}

proptest! {
    #[test]
    fn decides_as_the_slow_one_does(
        spec in specs(),
        text in some_text(),
        (level, facility) in (0u8..8, 0u8..4),
        subsystem in "[ab/]{0,3}",
        device in "[ab*]{0,3}",
        task in "[ab]{0,3}",
        cpu in 0u32..3,
        path in select(paths()),
        (approximated, context, path_known) in any::<(bool, bool, bool)>(),
    ) {
        let filter = Filter::compile(spec.clone()).unwrap();
        let context = context.then_some(Context {
            cpu, pid: 1, task: task.as_bytes(), cgroup_id: 1, cgroup: b"",
        });
        let record = Record {
            level, facility, approximated, context,
            subsystem: subsystem.as_bytes(), device: device.as_bytes(),
            ..record(&text)
        };
        let path = path_known.then_some(path);
        let explanation = filter.explain(&record, path);
        let (decision, reason) = slow(&spec, &record, path);
        prop_assert_eq!((explanation.decision, explanation.reason), (decision, reason));
        prop_assert_eq!(filter.decide(&record, path, 0), explanation.decision);
        prop_assert!(!explanation.to_string().is_empty());
    }

    /// A leaf excludes a glob only if no path that ends in it matches.
    #[test]
    fn a_leaf_never_excludes_what_the_path_would_not(
        glob in globs(),
        path in "(/[ab*]{1,3}){1,4}",
    ) {
        let any = rule(Action::Send);
        let filter = filter(vec![Rule { cgroup: glob, ..any.clone() }, rule(Action::Drop)]);
        let leaf = path.rsplit('/').next().unwrap();
        let record = Record {
            context: Some(Context { cgroup: leaf.as_bytes(), ..context() }),
            ..record(b"")
        };
        if filter.decide(&record, Some(path.as_bytes()), 0) == Decision::Send {
            prop_assert_eq!(filter.decide(&record, None, 0), Decision::Send);
        }
    }

    /// Any rule text either compiles or is refused; any record is decided upon.
    #[test]
    fn no_pattern_and_no_record_is_fatal(
        pattern in prop_oneof![any::<String>(), "[a-c*?\\[\\](){}|+.\\\\^$0-9,!-]{0,20}"],
        text in vec(any::<u8>(), 0..300),
        (ts_ns, now_ns, level, facility) in any::<(u64, u64, u8, u8)>(),
    ) {
        let rate = Rate { count: 1, period: Duration::from_millis(1) };
        let any = rule(Action::Rate(rate));
        for rule in [
            Rule { text: Some(TextMatch::Regex(pattern.clone())), ..any.clone() },
            Rule { text: Some(TextMatch::Contains(pattern.clone())), ..any.clone() },
            Rule { subsystem: Some(pattern.clone()), ..any.clone() },
            Rule { cgroup: Some(pattern.clone()), ..any.clone() },
        ] {
            let spec = FilterSpec { rate: Some(rate), ..spec(vec![rule]) };
            let filter = match Filter::compile(spec) {
                Ok(filter) => filter,
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    continue;
                }
            };
            let record = Record {
                ts_ns, level, facility, subsystem: &text, context: None, ..record(&text)
            };
            for _ in 0..3 {
                let explained = filter.explain(&record, Some(&text)).decision;
                prop_assert_eq!(filter.decide(&record, Some(&text), now_ns), explained);
            }
            let _ = filter.take_notice(now_ns);
        }
    }
}
