//! The definitions of the keys against what is read, and the keys that came with filters.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    config::keys::{AGENT, TARGET},
    target::filter::spec::{Action, TextMatch},
};

fn example_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/agent.toml")
}

/// With every comment sign before a setting removed.
fn opened(text: &str) -> String {
    text.lines()
        .map(|line| {
            line.strip_prefix("#").filter(|rest| !rest.starts_with([' ', ':'])).unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[test]
fn the_example_is_what_is_shipped() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(example_file(), example()).unwrap();
    }
    let shipped = std::fs::read_to_string(example_file()).unwrap();
    assert_eq!(shipped, example(), "UPDATE_GOLDEN=1 writes it anew");
    for line in example().lines() {
        assert!(line.len() <= 100, "{line}");
    }
}

#[test]
fn the_example_is_what_the_defaults_are() {
    let shown = parse(&example(), "agent.toml").unwrap();
    assert_eq!(shown.agent, Agent::default());
    assert_eq!(shown.last_words, LastWords::default());
    let opened = parse(&opened(&example()), "agent.toml").unwrap();
    assert_eq!(opened.agent, Agent::default());
    assert_eq!(opened.last_words, LastWords::default());
    assert_eq!(opened.targets, shown.targets);
    assert_eq!(opened.warnings, Warnings::default());
}

/// What the example says without a comment sign and a blank is right, too.
#[test]
fn the_suggestions_of_the_example_are_good() {
    let is_setting = |line: &&str| {
        let rest = line.strip_prefix("# ").unwrap_or(line).trim_start_matches('#');
        rest.starts_with('[')
            || rest.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|byte| byte != b' '))
    };
    let open =
        |line: &str| line.strip_prefix("# ").unwrap_or(line).trim_start_matches('#').to_owned();
    // Each of these excludes another one.
    let text: Vec<String> = example()
        .lines()
        .filter(is_setting)
        .map(open)
        .filter(|line| !["pcap =", "regex =", "action ="].iter().any(|key| line.starts_with(key)))
        .collect();
    let config = parse(&text.join("\n"), "x").unwrap();
    assert_eq!(config.agent.control_group.as_deref(), Some("adm"));
    let target = &config.targets[0];
    assert_eq!((target.filter.len(), target.userdata.len()), (1, 4));
    assert_eq!(target.filter[0].cpus, [0, 1, 2, 3, 8]);
}

#[test]
fn each_default_is_what_counts_without_it() {
    let plain = parse("[target.x]\nremote = \"192.0.2.1\"\n", "x").unwrap();
    for (table, keys) in [("agent", AGENT), ("target.x", TARGET)] {
        for key in keys {
            let Some(default) = key.default else { continue };
            let text =
                format!("target.x.remote = \"192.0.2.1\"\n{table}.{} = {default}\n", key.name);
            assert_eq!(parse(&text, "x").unwrap(), plain, "{}", key.name);
        }
    }
}

#[test]
fn the_new_keys_are_understood() {
    let text = r#"
[agent]
control_group = "adm"
[target.a]
remote = "192.0.2.1"
enabled = false
facility = ["local0", "kern", "daemon", 16, 200]
rate = "10/5s"
keepalive = "1h"
remote_mac = "auto"
[target.a.userdata]
rack = "{file:/etc/rack}"
json = '{"a": {"b": 1}}'
[[target.a.filter]]
text = "martian source"
cpu = [3, 1]
action = "drop"
[[target.a.filter]]
regex = '^usb \d+\xff'
task = "kworker/*"
subsystem = "usb"
device = "+usb:*"
cgroup = "/system.slice/**"
cpu = 7
rate = "1/m"
[[target.a.filter]]
action = "rate"
rate = "100/s"
"#;
    let config = parse(text, "x").unwrap();
    assert_eq!(config.warnings, Warnings::default());
    assert_eq!(config.agent.control_group.as_deref(), Some("adm"));
    let target = &config.targets[0];
    assert!(!target.enabled);
    assert_eq!(target.facilities.as_deref(), Some(&[0, 3, 16, 200][..]));
    assert_eq!(target.rate, Some(Rate { count: 10, period: Duration::from_secs(5) }));
    assert_eq!(target.keepalive, Some(Duration::from_secs(3600)));
    let [first, second, last] = &target.filter[..] else { panic!("{:?}", target.filter) };
    assert_eq!(first.text, Some(TextMatch::Contains("martian source".to_owned())));
    assert_eq!((&first.cpus[..], first.action), (&[1, 3][..], Action::Drop));
    assert_eq!(second.text, Some(TextMatch::Regex(r"^usb \d+\xff".to_owned())));
    assert_eq!(second.cgroup.as_deref(), Some("/system.slice/**"));
    let rate = |count, seconds| Action::Rate(Rate { count, period: Duration::from_secs(seconds) });
    assert_eq!((second.action, last.action), (rate(1, 60), rate(100, 1)));
}

#[test]
fn rules_are_told_at_their_place() {
    let text = r#"[target.a]
remote = "192.0.2.1"
facility = ["kern", "krn"]
[[target.a.filter]]
action = "send"
[[target.a.filter]]
regex = 'eth\d+: (link'
action = "drop"
[[target.a.filter]]
text = "a"
regex = "b"
rate = "1/s"
[target.a.userdata]
rack = "r-{file:rack}"
"#;
    let error = parse(text, "x").unwrap_err().to_string();
    let expected = r#"error: `facility` does not understand this
 --> x:3:21
  |
3 | facility = ["kern", "krn"]
  |                     ^^^^^
  |
  = help: "all", or an array of names (kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, local0 to local7) and numbers from 0 to 255

error: `regex` is not a regular expression: unclosed group
 --> x:7:18
  |
7 | regex = 'eth\d+: (link'
  |                  ^

error: a rule has `text` or `regex`, not both
  --> x:11:9
   |
10 | text = "a"
   |        --- `text` is here
11 | regex = "b"
   |         ^^^

error: a template needs an absolute path, not "rack"
  --> x:14:11
   |
14 | rack = "r-{file:rack}"
   |           ^^^^^^^^^^^
   |
   = help: "{file:/etc/rack}" or "{env:JOB}""#;
    assert_eq!(error, expected);
    let text = "[target.a]\nremote = \"192.0.2.1\"\n[[target.a.filter]]\naction = \"send\"\n\
                [[target.a.filter]]\ntext = \"a\"\naction = \"drop\"\n";
    let warnings = parse(text, "x").unwrap().warnings;
    assert!(warnings.report.contains("never reached"), "{}", warnings.report);
    assert!(warnings.report.contains("x:3:1"), "{}", warnings.report);
}

#[test]
fn last_words_are_held_within_limits() {
    let target = "[target.x]\nremote = \"192.0.2.1\"\n";
    let off =
        parse(&format!("{target}[last_words]\nhold = \"0s\"\nbudget = \"2s\"\n"), "c").unwrap();
    let expected = LastWords { hold: Duration::ZERO, budget: Duration::from_secs(2) };
    assert_eq!(off.last_words, expected);
    let text = format!("{target}[last_words]\nhold = \"2s\"\nbudget = 5\nhodl = \"1ms\"\n");
    let error = parse(&text, "c").unwrap_err().to_string();
    assert!(
        error.contains("`hold` does not understand \"2s\"") && error.contains("c:4:8"),
        "{error}"
    );
    assert!(error.contains("from 0s to 1s"), "{error}");
    assert!(error.contains("`budget` must be a string in quotes"), "{error}");
    assert!(error.contains("the keys there are: budget, hold"), "{error}");
}

#[test]
fn copies_and_dumps() {
    let target = |more: &str| format!("[target.x]\nremote = \"192.0.2.1\"\n{more}\n");
    let parsed = |more: &str| parse(&target(more), "c").map(|mut config| config.targets.remove(0));
    let plain = parsed("").unwrap();
    assert_eq!((plain.copies, plain.netoops), (1, false));
    let both = parsed("copies = 3\ndump = \"netoops\"").unwrap();
    assert_eq!((both.copies, both.netoops), (3, true));
    for wrong in ["copies = 0", "copies = 9", "copies = \"3\"", "dump = \"kdump\"", "dump = true"] {
        let error = parsed(wrong).unwrap_err().to_string();
        assert!(error.contains("c:3:"), "{wrong}: {error}");
    }
}
