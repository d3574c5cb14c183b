//! Rules, their order, and what becomes of records that do not say everything.

mod hostile;
mod rates;
mod reference;
mod reports;

use super::*;
use crate::{
    record::{CGROUP_MAX_BYTES, Caller, Context},
    target::filter::spec::{Action, TextMatch},
};

/// A rule that matches everything.
pub(super) fn rule(action: Action) -> Rule {
    Rule {
        text: None,
        subsystem: None,
        device: None,
        task: None,
        cgroup: None,
        cpus: Vec::new(),
        action,
    }
}

pub(super) fn regex(regex: &str) -> Option<TextMatch> {
    Some(TextMatch::Regex(regex.to_owned()))
}

pub(super) fn contains(text: &str) -> Option<TextMatch> {
    Some(TextMatch::Contains(text.to_owned()))
}

pub(super) fn spec(rules: Vec<Rule>) -> FilterSpec {
    FilterSpec { max_level: 7, facilities: None, rules, rate: None }
}

pub(super) fn filter(rules: Vec<Rule>) -> Filter {
    Filter::compile(spec(rules)).unwrap()
}

pub(super) fn context() -> Context<'static> {
    Context { cpu: 3, pid: 47, task: b"nginx", cgroup_id: 9, cgroup: b"nginx.service" }
}

pub(super) fn record(text: &[u8]) -> Record<'_> {
    Record {
        seq: 1,
        ts_ns: 1_000_000_000,
        facility: 0,
        level: 6,
        cont: false,
        caller: Some(Caller::Task(47)),
        text,
        subsystem: b"usb",
        device: b"+usb:1-1",
        context: Some(context()),
        approximated: false,
        backfilled: false,
    }
}

const PATH: Option<&[u8]> = Some(b"/system.slice/nginx.service");

#[test]
fn a_filter_of_nothing_sends_everything() {
    let filter = filter(Vec::new());
    assert_eq!(filter.decide(&record(b"x"), None, 0), Decision::Send);
    assert_eq!(filter.explain(&record(b"x"), None).to_string(), "sent: no filter rule matches");
    assert!(!filter.needs_cgroup_path());
    assert_eq!(filter.take_notice(u64::MAX), None);
    assert_eq!(filter.notice_due_ns(), None);
}

#[test]
fn level_and_facility_come_before_the_rules() {
    let spec = FilterSpec {
        max_level: 4,
        facilities: Some(vec![0, 63, 64, 255]),
        rules: vec![rule(Action::Send)],
        rate: None,
    };
    let filter = Filter::compile(spec.clone()).unwrap();
    assert_eq!(filter.spec(), &spec);
    for (level, facility, wanted) in [
        (0, 0, "sent: filter rule 1 (send)"),
        (4, 63, "sent: filter rule 1 (send)"),
        (4, 64, "sent: filter rule 1 (send)"),
        (4, 255, "sent: filter rule 1 (send)"),
        (5, 0, "left out: level 5 is less severe than max_level 4"),
        (4, 1, "left out: facility 1 is not among the target's facilities"),
        (4, 62, "left out: facility 62 is not among the target's facilities"),
        (4, 254, "left out: facility 254 is not among the target's facilities"),
        (7, 1, "left out: level 7 is less severe than max_level 4"),
    ] {
        let mut record = record(b"x");
        (record.level, record.facility) = (level, facility);
        let explanation = filter.explain(&record, None);
        assert_eq!(explanation.to_string(), wanted, "{level} {facility}");
        assert_eq!(filter.decide(&record, None, 0), explanation.decision);
        // Neither is known of an approximated record.
        record.approximated = true;
        assert_eq!(filter.decide(&record, None, 0), Decision::Send);
    }
    let none = FilterSpec { facilities: Some(Vec::new()), ..spec };
    let filter = Filter::compile(none).unwrap();
    assert_eq!(filter.decide(&Record { level: 0, ..record(b"x") }, None, 0), Decision::Filter);
}

#[test]
fn each_condition_by_itself() {
    let any = rule(Action::Drop);
    let glob = |text: &str| Some(text.to_owned());
    let table = [
        (Rule { ..any.clone() }, true),
        (Rule { text: contains(""), ..any.clone() }, true),
        (Rule { text: contains("new high-speed"), ..any.clone() }, true),
        (Rule { text: contains("New high-speed"), ..any.clone() }, false),
        (Rule { text: contains("1.2*"), ..any.clone() }, false),
        (Rule { text: regex(""), ..any.clone() }, true),
        (Rule { text: regex(r"^usb \d-\d: new"), ..any.clone() }, true),
        (Rule { text: regex("^new"), ..any.clone() }, false),
        (Rule { text: regex("device$"), ..any.clone() }, true),
        (Rule { text: regex("device.$"), ..any.clone() }, false),
        (Rule { text: regex("(?i)NEW"), ..any.clone() }, true),
        (Rule { text: regex(r"\bhigh\b"), ..any.clone() }, true),
        (Rule { text: regex(r"\bigh\b"), ..any.clone() }, false),
        (Rule { text: regex(r"\xff"), ..any.clone() }, true),
        (Rule { text: regex(r"\xfe"), ..any.clone() }, false),
        (Rule { subsystem: glob("usb"), ..any.clone() }, true),
        (Rule { subsystem: glob("us"), ..any.clone() }, false),
        (Rule { subsystem: glob("?s[a-c]"), ..any.clone() }, true),
        (Rule { subsystem: glob(""), ..any.clone() }, false),
        (Rule { device: glob("+usb:*"), ..any.clone() }, true),
        (Rule { device: glob("+pci:*"), ..any.clone() }, false),
        (Rule { task: glob("nginx"), ..any.clone() }, true),
        (Rule { task: glob("*x"), ..any.clone() }, true),
        (Rule { task: glob("*y"), ..any.clone() }, false),
        (Rule { cgroup: glob("/system.slice/*.service"), ..any.clone() }, true),
        (Rule { cgroup: glob("/system.slice/*.scope"), ..any.clone() }, false),
        (Rule { cgroup: glob("/*.service"), ..any.clone() }, false),
        (Rule { cgroup: glob("/**.service"), ..any.clone() }, true),
        (Rule { cpus: vec![7, 3], ..any.clone() }, true),
        (Rule { cpus: vec![7, 4], ..any.clone() }, false),
        // All of them have to hold.
        (
            Rule {
                text: contains("usb"),
                task: glob("nginx"),
                subsystem: glob("*"),
                cpus: vec![3],
                ..any.clone()
            },
            true,
        ),
        (Rule { text: contains("usb"), task: glob("nginx"), cpus: vec![4], ..any.clone() }, false),
        (Rule { text: contains("pci"), task: glob("nginx"), cpus: vec![3], ..any }, false),
    ];
    let record = record(b"usb 1-1: new high-speed\nUSB \xff device");
    for (rule, matches) in table {
        let wanted = if matches { Decision::Filter } else { Decision::Send };
        let one = filter(vec![rule.clone()]);
        assert_eq!(one.decide(&record, PATH, 0), wanted, "{rule:?}");
        assert_eq!(one.needs_cgroup_path(), rule.cgroup.is_some());
        // And the first that matches decides.
        let first = filter(vec![rule.clone(), self::rule(Action::Send)]);
        assert_eq!(first.decide(&record, PATH, 0), wanted);
        let kept = filter(vec![Rule { action: Action::Send, ..rule }, self::rule(Action::Drop)]);
        let wanted = if matches { Decision::Send } else { Decision::Filter };
        assert_eq!(kept.decide(&record, PATH, 0), wanted);
    }
}

/// What a rule does that asks for something: (the rule matches, the record does not say).
#[test]
fn what_a_record_does_not_say() {
    let whole = record(b"text");
    let no_context = Record { context: None, ..whole };
    let approximated = Record { approximated: true, ..whole };
    let leaf = |cgroup| Record { context: Some(Context { cgroup, ..context() }), ..whole };
    let glob = |text: &str| Some(text.to_owned());
    let any = rule(Action::Drop);
    let sub = Rule { subsystem: glob("usb"), ..any.clone() };
    let device = Rule { device: glob("+usb:1-1"), ..any.clone() };
    let task = Rule { task: glob("nginx"), ..any.clone() };
    let cpu = Rule { cpus: vec![3], ..any.clone() };
    let cgroup = |path| Rule { cgroup: glob(path), ..any.clone() };
    let path: &[u8] = b"/a/b";
    #[derive(Debug, PartialEq)]
    enum Is {
        Yes,
        No,
        Unknown,
    }
    use Is::{No, Unknown, Yes};
    let long = [b'x'; CGROUP_MAX_BYTES];
    let table = [
        (&any, no_context, None, Yes),
        (&sub, whole, None, Yes),
        (&sub, approximated, None, Unknown),
        (&sub, no_context, None, Yes),
        (&device, whole, None, Yes),
        (&device, approximated, None, Unknown),
        (&task, no_context, None, Unknown),
        (&task, approximated, None, Yes),
        (&cpu, no_context, None, Unknown),
        (&cpu, whole, None, Yes),
        (&cgroup("/a/b"), whole, Some(path), Yes),
        (&cgroup("/a/c"), whole, Some(path), No),
        (&cgroup("/a/b"), no_context, Some(path), Yes),
        (&cgroup("/a/b"), no_context, None, Unknown),
        // The leaf may tell that it is another, never that it is the one.
        (&cgroup("/a/b"), leaf(b"b"), None, Unknown),
        (&cgroup("/a/b"), leaf(b"c"), None, No),
        (&cgroup("/a/b"), leaf(b""), None, Unknown),
        (&cgroup("/a/x"), leaf(&long), None, Unknown),
        (&cgroup("/a/x"), leaf(&long[1..]), None, No),
        (&cgroup("/a/*"), leaf(b"c"), None, Unknown),
        (&cgroup("/a/*.x"), leaf(b"c"), None, No),
        (&cgroup("/a/**.x"), leaf(b"c"), None, No),
        (&cgroup("/a/**.x"), leaf(b"c.x"), None, Unknown),
        (&cgroup("/a/**"), leaf(b"c"), None, Unknown),
        (&cgroup("/a/x**"), leaf(b"c"), None, Unknown),
        (&cgroup("/a/[x/]y"), leaf(b"y"), None, No),
        (&cgroup("/"), leaf(b"c"), None, No),
    ];
    for (rule, record, path, wanted) in table {
        let dropped = filter(vec![rule.clone()]);
        let decision = dropped.decide(&record, path, 0);
        assert_eq!(decision == Decision::Filter, wanted == Yes, "{rule:?} {record:?}");
        // A rate matches as a drop does: the second of two would not pass.
        let rate = Rate { count: 1, period: std::time::Duration::from_secs(1) };
        let rated = filter(vec![Rule { action: Action::Rate(rate), ..rule.clone() }]);
        assert_eq!(rated.decide(&record, path, 0), Decision::Send);
        assert_eq!(rated.decide(&record, path, 0), decision, "{rule:?} {record:?}");
        let sends = Rule { action: Action::Send, ..rule.clone() };
        let kept = filter(vec![sends, self::rule(Action::Drop)]);
        let explanation = kept.explain(&record, path);
        assert_eq!(explanation.decision == Decision::Filter, wanted == No, "{rule:?} {record:?}");
        assert_eq!(kept.decide(&record, path, 0), explanation.decision);
        let guessed = Reason::Rule { index: 0, guessed: true };
        assert_eq!(explanation.reason == guessed, wanted == Unknown, "{rule:?} {record:?}");
        assert_eq!(
            explanation.to_string().contains("does not say all"),
            wanted == Unknown,
            "{explanation}"
        );
    }
    // What is known to be otherwise outweighs what is not known.
    let rules = vec![
        Rule { task: glob("nginx"), text: contains("other"), action: Action::Send, ..any.clone() },
        any.clone(),
    ];
    assert_eq!(filter(rules).decide(&no_context, None, 0), Decision::Filter);
}

#[test]
fn globs() {
    /// Glob, text, whether it matches in a name and in a path; `None` if it is no glob.
    type Row = (&'static str, &'static str, Option<(bool, bool)>);
    let table: [Row; 41] = [
        ("", "", Some((true, true))),
        ("", "x", Some((false, false))),
        ("a", "a", Some((true, true))),
        ("a", "A", Some((false, false))),
        ("a", "aa", Some((false, false))),
        ("*", "", Some((true, true))),
        ("*", "a/b", Some((true, false))),
        ("**", "a/b\nc", Some((true, true))),
        ("***", "a/b", Some((true, true))),
        ("a*c", "abbc", Some((true, true))),
        ("a*c", "ab/bc", Some((true, false))),
        ("a*c", "abcd", Some((false, false))),
        ("a**c", "ab/bc", Some((true, true))),
        ("a/**/c", "a/c", Some((false, false))),
        ("a/**/c", "a/b/b/c", Some((true, true))),
        ("?", "a", Some((true, true))),
        ("?", "", Some((false, false))),
        ("?", "/", Some((true, false))),
        ("?", "é", Some((false, false))),
        ("??", "é", Some((true, true))),
        ("é*", "éa", Some((true, true))),
        ("[abc]", "b", Some((true, true))),
        ("[abc]", "d", Some((false, false))),
        ("[a-c-]", "-", Some((true, true))),
        ("[!a-c]", "b", Some((false, false))),
        ("[^a-c]", "d", Some((true, true))),
        ("[!a]", "/", Some((true, false))),
        ("[]]", "]", Some((true, true))),
        ("[!]]", "]", Some((false, false))),
        (r"[\]-a]", "^", Some((true, true))),
        (r"\*", "*", Some((true, true))),
        (r"\*", "a", Some((false, false))),
        (r"a\\x2db", r"a\x2db", Some((true, true))),
        ("a.b", "axb", Some((false, false))),
        ("(a|b)+{2}$^", "(a|b)+{2}$^", Some((true, true))),
        ("a]", "a]", Some((true, true))),
        ("[", "[", None),
        ("[!", "", None),
        ("[b-a]", "", None),
        ("[é]", "", None),
        ("a\\", "a\\", None),
    ];
    for (glob, text, wanted) in table {
        for scope in [glob::Scope::Name, glob::Scope::Path] {
            let compiled = glob::Glob::new(glob, scope, &mut compile::Compiler::new());
            let wanted =
                wanted.map(|(name, path)| if scope == glob::Scope::Name { name } else { path });
            let matched = compiled.ok().map(|glob| glob.is_match(text.as_bytes()));
            assert_eq!(matched, wanted, "{glob:?} {text:?} {scope:?}");
        }
    }
    let empty = glob::Glob::new("[/]", glob::Scope::Path, &mut compile::Compiler::new());
    assert!(matches!(empty, Err(Cause::Glob(_))));
}

#[test]
fn an_error_says_where_and_what_to_do() {
    let any = rule(Action::Drop);
    let text = |rule: Rule| {
        Filter::compile(spec(vec![self::rule(Action::Send), rule])).unwrap_err().to_string()
    };
    let unclosed = text(Rule { text: regex("a(b"), ..any.clone() });
    assert_eq!(
        unclosed,
        "filter rule 2: `regex` is not a regular expression: unclosed group; the syntax is that \
         of the Rust crate `regex`, on bytes and without Unicode classes"
    );
    let long = text(Rule { text: contains(&"x".repeat(1025)), ..any.clone() });
    assert_eq!(long, "filter rule 2: `text` has 1025 bytes and at most 1024 are taken; shorten it");
    let glob = text(Rule { cgroup: Some("/a/[".to_owned()), ..any.clone() });
    assert_eq!(
        glob,
        "filter rule 2: `cgroup` is not a glob: a [ without its ]; write \\ before *, ?, [ or \\ \
         to mean the character itself"
    );
    for (name, rule) in [
        ("subsystem", Rule { subsystem: Some("[".to_owned()), ..any.clone() }),
        ("device", Rule { device: Some("[".to_owned()), ..any.clone() }),
        ("task", Rule { task: Some("[".to_owned()), ..any.clone() }),
    ] {
        assert!(text(rule).starts_with(&format!("filter rule 2: `{name}` is not a glob")));
    }
    let large = text(Rule { text: regex("(x{1000}){1000}"), ..any.clone() });
    assert_eq!(
        large,
        "filter rule 2: `regex` needs an automaton of more than 1024 KiB; make it simpler: fewer \
         or smaller repetitions such as {1,1000}, or `text` instead of `regex`"
    );
    let nothing = Rate { count: 0, period: std::time::Duration::from_secs(1) };
    let rate = text(Rule { action: Action::Rate(nothing), ..any.clone() });
    assert!(rate.starts_with("filter rule 2: `rate` lets nothing through"), "{rate}");
    let no_time = Rate { count: 1, period: std::time::Duration::ZERO };
    let of_target = FilterSpec { rate: Some(no_time), ..spec(Vec::new()) };
    let error = Filter::compile(of_target).unwrap_err();
    assert_eq!((error.rule, error.condition, error.cause), (None, "rate", Cause::Rate));
    let many = Filter::compile(spec(vec![any; 1025])).unwrap_err();
    assert_eq!(
        many.to_string(),
        "`filter` has 1025 rules and at most 1024 are taken; join or remove some"
    );
}
