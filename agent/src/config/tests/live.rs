//! Changes of a running agent over the files.

use std::fs;

use super::*;

const FILE: &str = r#"[defaults]
max_level = "err"
[defaults.userdata]
site = "fra1"
[target.fleet]
remote = "192.0.2.1"
pace = "5/s"
[target.fleet.userdata]
rack = "r12"
[target.other]
remote = "192.0.2.2"
"#;

fn sources() -> Sources {
    let (name, text) = ("agent.toml".to_owned(), FILE.to_owned());
    Sources::of_texts(vec![Source { name, text, role: Role::Main }])
}

fn set(target: &str, settings: &str) -> LiveChange {
    LiveChange::Set { target: target.to_owned(), settings: settings.to_owned() }
}

fn add(target: &str, settings: &str) -> LiveChange {
    LiveChange::Add { target: target.to_owned(), settings: settings.to_owned() }
}

fn remove(target: &str) -> LiveChange {
    LiveChange::Remove { target: target.to_owned() }
}

fn userdata(key: &str, value: &str) -> LiveChange {
    let (target, key, value) = ("fleet".to_owned(), key.to_owned(), value.to_owned());
    LiveChange::UserdataSet { target, key, value }
}

fn unset(key: &str) -> LiveChange {
    LiveChange::UserdataUnset { target: "fleet".to_owned(), key: key.to_owned() }
}

fn with(sources: &Sources, changes: &[LiveChange]) -> Sources {
    changes.iter().fold(sources.clone(), |sources, change| {
        sources.with_live(change).unwrap_or_else(|error| panic!("{change:?}: {error}"))
    })
}

fn after(changes: &[LiveChange]) -> Config {
    with(&sources(), changes).check().unwrap()
}

fn named<'a>(config: &'a Config, name: &str) -> &'a Target {
    config.targets.iter().find(|target| target.name == name).unwrap()
}

fn pairs(target: &Target) -> Vec<(&str, &str)> {
    target.userdata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[test]
fn settings_lie_over_the_files() {
    let config = after(&[
        set("fleet", "max_level = \"info\"\nuserdata.rack = \"r13\"\n[sysdata]\ncpu = true\n"),
        set("fleet", "max_level = 7"),
    ]);
    let fleet = named(&config, "fleet");
    assert_eq!((fleet.max_level, fleet.pace), (7, Some(5)));
    assert_eq!(pairs(fleet), [("site", "fra1"), ("rack", "r13")]);
    assert_eq!(fleet.sysdata, [SysdataKey::Cpu].into_iter().collect());
    assert_eq!(fleet.live, ["max_level", "userdata.rack", "sysdata.cpu"]);
    assert_eq!(named(&config, "other").live, [""; 0]);
    assert_eq!(named(&config, "other").max_level, 3);
}

#[test]
fn userdata_is_set_and_removed() {
    let config = after(&[
        userdata("job", "a"),
        userdata("zone", "1"),
        unset("site"),
        unset("rack"),
        userdata("job", "b\" # \\ [target.x]"),
        userdata("we.ird \"key", "{env:JOB}"),
    ]);
    let fleet = named(&config, "fleet");
    assert_eq!(
        pairs(fleet),
        [("job", "b\" # \\ [target.x]"), ("zone", "1"), ("we.ird \"key", "{env:JOB}")]
    );
    assert!(fleet.live.contains(&"userdata.site".to_owned()), "{:?}", fleet.live);
    assert_eq!(pairs(named(&config, "other")), [("site", "fra1")]);
    let back = after(&[unset("rack"), userdata("rack", "r9")]);
    assert_eq!(pairs(named(&back, "fleet")), [("site", "fra1"), ("rack", "r9")]);
    assert!(
        sources().with_live(&unset("none")).unwrap_err().to_string().contains("no userdata key")
    );
}

#[test]
fn targets_come_and_go() {
    let new = add("new", "remote = \"192.0.2.9\"\n[userdata]\na = \"b\"\n");
    let config = after(&[new.clone(), set("new", "max_level = 1")]);
    let target = named(&config, "new");
    assert_eq!((target.max_level, pairs(target)), (1, vec![("site", "fra1"), ("a", "b")]));
    assert_eq!(target.live, ["remote", "userdata.a", "max_level"]);
    let config = after(&[new, remove("new"), remove("fleet")]);
    assert_eq!(config.targets.len(), 1);
    assert_eq!(config.removed, ["fleet"]);
    // All may go.
    let config = after(&[remove("fleet"), remove("other")]);
    assert_eq!(config.targets, []);
    let config = after(&[remove("fleet"), add("fleet", "remote = \"192.0.2.7\"")]);
    assert_eq!(config.removed, [""; 0]);
    assert_eq!(pairs(named(&config, "fleet")), [("site", "fra1")]);
    let config = after(&[remove("fleet"), add("fleet", "remote = \"192.0.2.7\""), remove("fleet")]);
    assert_eq!((config.targets.len(), &config.removed[..]), (1, &["fleet".to_owned()][..]));
}

#[test]
fn bad_changes_are_refused_and_leave_all_as_it_was() {
    let start = with(&sources(), &[set("fleet", "max_level = 5")]);
    for (change, wanted) in [
        (set("none", "max_level = 1"), "there is no target \"none\"; there are: fleet, other"),
        (remove("none"), "there is no target"),
        (add("fleet", "remote = \"192.0.2.1\""), "there is a target \"fleet\" already"),
        (add("new", ""), "no `remote`"),
        (add("a b", "remote = \"192.0.2.1\""), "cannot be the name"),
        (set("fleet", "max_level = 9"), "(live):1:13"),
        (set("fleet", "max_level = 1\nmax_levle = 2"), "(live):2:1"),
        (set("fleet", "max_level = 1\nmax_level = 2"), "duplicate key"),
        (set("fleet", "x"), "(live):1:2"),
        (set("fleet", "format = \"basic\""), "`userdata` needs the extended format"),
        (set("fleet", "format = \"basic\""), "(live):1:10"),
        (userdata("a/b", "c"), "cannot be a userdata key"),
        (userdata("", "c"), "without a key"),
        (userdata("a", "b\nc"), "line end"),
        (userdata("a", "{file:x}"), "absolute path"),
        (set("fleet", &"#".repeat(70_000)), "65536 is the most"),
    ] {
        let error = start.with_live(&change).unwrap_err().to_string();
        assert!(error.contains(wanted), "{change:?}: {error}");
        assert!(error.contains("(live)"), "{change:?}: {error}");
    }
    assert_eq!(named(&start.check().unwrap(), "fleet").max_level, 5);
    let error = start.with_live(&set("fleet", "\nmax_level = 9")).unwrap_err().to_string();
    let expected = "error: `max_level` must be a number from 0 to 7\n --> (live):2:13\n  |\n2 | \
                    max_level = 9\n  |             ^";
    assert_eq!(error, expected);
}

#[test]
fn settings_stay_inside_their_target() {
    let clean = sources().check().unwrap();
    for settings in [
        "max_level = 1\n[target.other]\nmax_level = 1\n",
        "[agent]\nstore = \"1MiB\"\n",
        "[defaults]\nmax_level = 1\n",
        "[[target]]\n",
        "target.other.max_level = 1",
        "]\n[target.other]\nmax_level = 1",
        "\"\"\"\n[target.other]\n",
    ] {
        for change in [set("fleet", settings), add("new", settings)] {
            let error = sources().with_live(&change).unwrap_err().to_string();
            assert!(error.contains("(live)"), "{settings:?}: {error}");
        }
    }
    for text in
        ["\"", "\"\"\"", "'''", "\\", "\"\n[target.other]\nmax_level=1", "\u{0}", "]", "a = 1"]
    {
        let changed =
            [userdata("k", text), userdata(text, "v"), add(text, "remote = \"192.0.2.3\"")];
        for change in changed {
            let Ok(changed) = sources().with_live(&change) else { continue };
            let config = changed.check().unwrap();
            assert_eq!(named(&config, "other"), named(&clean, "other"), "{change:?}");
            assert_eq!(
                (config.agent, config.targets.len()),
                (clean.agent.clone(), 2),
                "{change:?}"
            );
        }
    }
}

#[test]
fn any_number_of_changes_needs_little() {
    let mut changed = sources();
    for n in 0..50 {
        let value = n.to_string();
        changed = with(
            &changed,
            &[
                userdata("job", &value),
                userdata("zone", &value),
                userdata(&format!("k{n}"), &value),
                unset(&format!("k{n}")),
                set("fleet", &format!("max_level = {}\nrelease = true", n % 8)),
                set("fleet", "release = false\nrate = \"1/s\""),
                add("new", "remote = \"192.0.2.9\""),
                remove("new"),
                remove("other"),
                add("other", "remote = \"192.0.2.8\""),
            ],
        );
    }
    assert!(changed.live.len() <= 7, "{:?}", changed.live);
    let config = changed.check().unwrap();
    let fleet = named(&config, "fleet");
    assert_eq!((fleet.max_level, fleet.release), (1, false));
    let wanted = [("site", "fra1"), ("rack", "r12"), ("job", "49"), ("zone", "49")];
    assert_eq!(pairs(fleet), wanted);
}

#[test]
fn a_reload_keeps_what_is_live() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, FILE).unwrap();
    let start = Sources::read(&Place::File(file.clone())).unwrap();
    let changed = with(
        &start,
        &[
            set("fleet", "max_level = 1"),
            set("other", "max_level = 2"),
            add("new", "remote = \"192.0.2.9\"\npace = \"7/s\""),
            set("new", "max_level = 2"),
        ],
    );
    // `other` is gone, and `new` is now in the file.
    fs::write(
        &file,
        "[target.fleet]\nremote = \"192.0.2.1\"\npace = \"9/s\"\n\
         [target.new]\nremote = \"192.0.2.8\"\nqueue = 3\n",
    )
    .unwrap();
    let again = changed.reread().unwrap();
    let config = again.check().unwrap();
    let [fleet, new] = &config.targets[..] else { panic!("{:?}", config.targets) };
    assert_eq!((fleet.max_level, fleet.pace), (1, Some(9)));
    assert_eq!(new.remote.to_string(), "192.0.2.9:6666");
    assert_eq!((new.queue, new.pace, new.max_level), (3, Some(7), 2));
    fs::write(&file, FILE).unwrap();
    let config = again.reread().unwrap().check().unwrap();
    assert_eq!(named(&config, "other").live, [""; 0], "it had not existed in between");
    // Broken files: told, and what runs is still there.
    fs::write(&file, "[target.fleet]\n").unwrap();
    assert!(changed.reread().unwrap().check().is_err());
    assert!(changed.check().is_ok());
    let removed = with(&start, &[remove("other")]);
    fs::write(&file, FILE).unwrap();
    assert_eq!(removed.reread().unwrap().check().unwrap().targets.len(), 1);
}

/// The log shows changes in this way.
#[test]
fn values_are_shown_to_nobody() {
    let settings = "max_level = \"err\"\nuserdata.job = \"hidden\"\nremote = \"hidden\"\n[filter";
    let shown = [
        set("fleet", settings),
        add("new", "userdata = { job = 'hidden' }\n[[filter]]\ntext = \"hidden\""),
        remove("fleet"),
        userdata("job", "hidden } \"\n"),
        unset("job"),
    ];
    let shown = shown.map(|change| format!("{change:?}"));
    assert_eq!(
        shown,
        [
            r#"Set { target: "fleet", keys: {"filter", "max_level", "remote", "userdata.job"} }"#,
            r#"Add { target: "new", keys: {"filter", "userdata.job"} }"#,
            r#"Remove { target: "fleet", keys: {} }"#,
            r#"UserdataSet { target: "fleet", keys: {"userdata.job"} }"#,
            r#"UserdataUnset { target: "fleet", keys: {"userdata.job"} }"#,
        ]
    );
}

proptest! {
    #[test]
    fn no_change_panics_or_reaches_another_target(
        settings in "(?s)([a-z_.]{1,9} = [\"0-9a-z\\[\\]]{1,9}\n?|\\[.{0,9}\\]\n|.){0,6}",
        key in "(?s).{0,9}", value in "(?s).{0,30}",
    ) {
        let clean = sources().check().unwrap();
        for change in [set("fleet", &settings), userdata(&key, &value), add(&key, &settings)] {
            let Ok(changed) = sources().with_live(&change) else { continue };
            let config = changed.check().unwrap();
            prop_assert_eq!(named(&config, "other"), named(&clean, "other"));
            prop_assert_eq!(&config.agent, &clean.agent);
        }
        if let Ok(changed) = sources().with_live(&userdata(&key, &value)) {
            let config = changed.check().unwrap();
            let last = named(&config, "fleet").userdata.iter().any(|pair| *pair == (key.clone(), value.clone()));
            prop_assert!(last);
        }
    }
}
