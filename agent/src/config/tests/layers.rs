//! Several files: which of them count, in which order, and what is told about them.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::*;
use crate::config::files;

fn source(name: &str, text: &str, role: Role) -> Source {
    Source { name: name.to_owned(), text: text.to_owned(), role }
}

/// Checks a main file and drop-ins `a.toml`, `b.toml`.
fn check(texts: &[&str]) -> Result<Config, ConfigError> {
    let names = ["agent.toml", "a.toml", "b.toml"];
    let role = |index| if index == 0 { Role::Main } else { Role::DropIn };
    let sources = texts.iter().zip(names).enumerate();
    let sources = sources.map(|(index, (text, name))| source(name, text, role(index)));
    let checked = Sources::of_texts(sources.collect()).check();
    if checked.is_ok() {
        texts.iter().for_each(|text| schema::assert_taken(text));
    }
    checked
}

fn target(name: &str) -> String {
    format!("[target.{name}]\nremote = \"{name}.example\"\n")
}

/// Three folders with files in them, and what is read from there.
fn read(list: &[(&str, &str)]) -> (tempfile::TempDir, Result<Vec<Source>, ConfigError>) {
    let root = tempfile::tempdir().unwrap();
    let folders = ["lib", "run", "etc"].map(|name| root.path().join(name));
    for (path, text) in list {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match *text {
            "null" => symlink("/dev/null", path).unwrap(),
            "gone" => symlink("/nonexistent", path).unwrap(),
            text => fs::write(path, text).unwrap(),
        }
    }
    let read = files::from_folders(&folders);
    (root, read)
}

fn names(list: &[(&str, &str)]) -> Vec<String> {
    let (root, sources) = read(list);
    let prefix = format!("{}/", root.path().display());
    sources.unwrap().iter().map(|source| source.name.replace(&prefix, "")).collect()
}

#[test]
fn a_later_folder_masks() {
    let found = names(&[
        ("lib/agent.toml", "x"),
        ("etc/targets.d/20-b.toml", "x"),
        ("lib/targets.d/20-b.toml", "x"),
        ("run/targets.d/10-a.toml", "x"),
        ("lib/targets.d/30-c.toml", "x"),
        ("run/targets.d/30-c.toml", "x"),
        ("run/targets.d/40-d.toml", "x"),
        ("etc/targets.d/40-d.toml", "null"),
        ("etc/targets.d/.hidden.toml", "x"),
        ("etc/targets.d/e.toml.bak", "x"),
        ("etc/targets.d/f.conf", "x"),
    ]);
    assert_eq!(
        found,
        [
            "lib/agent.toml",
            "run/targets.d/10-a.toml",
            "etc/targets.d/20-b.toml",
            "run/targets.d/30-c.toml",
            "etc/targets.d/40-d.toml"
        ]
    );
    assert_eq!(names(&[("lib/agent.toml", "x"), ("run/agent.toml", "")]), ["run/agent.toml"]);
    assert_eq!(names(&[("lib/targets.d/a.toml", "x")]), ["lib/targets.d/a.toml"]);
}

#[test]
fn masked_files_say_nothing() {
    let (_root, sources) = read(&[
        ("lib/agent.toml", "[agent]\nstore = \"32MiB\"\n"),
        ("etc/agent.toml", "null"),
        ("lib/targets.d/a.toml", &target("a")),
        ("etc/targets.d/a.toml", ""),
        ("lib/targets.d/b.toml", &target("b")),
    ]);
    let config = Sources::of_texts(sources.unwrap()).check().unwrap();
    assert_eq!(config.agent, Agent::default());
    let names: Vec<_> = config.targets.iter().map(|target| &target.name).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn what_is_missing_or_unreadable_is_named() {
    let (root, sources) = read(&[]);
    let error = sources.unwrap_err().to_string();
    for folder in ["lib", "run", "etc"] {
        assert!(error.contains(&root.path().join(folder).display().to_string()), "{error}");
    }
    let (_root, sources) =
        read(&[("etc/targets.d/a.toml", "gone"), ("etc/targets.d/b.toml", "[x]")]);
    let error = Sources::of_texts(sources.unwrap()).check().unwrap_err().to_string();
    assert!(error.contains("targets.d/a.toml: No such file"), "{error}");
    assert!(error.contains("no key `x`"), "{error}");
    let (_root, sources) = read(&[("lib/agent.toml", &target("a")), ("etc/agent.toml", "gone")]);
    assert!(matches!(sources, Err(ConfigError::Read { .. })), "a broken link does not unmask");
    let (_root, sources) = read(&[("etc/agent.toml", "null"), ("run/targets.d/a.toml", "")]);
    let error = Sources::of_texts(sources.unwrap()).check().unwrap_err().to_string();
    assert!(error.contains("no file has a target"), "{error}");
    assert!(
        error.contains("etc/agent.toml, ") && error.contains("run/targets.d/a.toml"),
        "{error}"
    );
}

#[test]
fn drop_ins_lie_beside_a_named_file() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("other.toml");
    fs::create_dir(root.path().join("targets.d")).unwrap();
    fs::write(root.path().join("targets.d/a.toml"), target("a")).unwrap();
    fs::write(&file, "").unwrap();
    let place = Place::of(Some(&file));
    let sources = Sources::read(&place).unwrap();
    assert_eq!(sources.check().unwrap().targets.len(), 1);
    fs::write(root.path().join("targets.d/b.toml"), target("b")).unwrap();
    assert_eq!(sources.check().unwrap().targets.len(), 1);
    assert_eq!(sources.reread().unwrap().check().unwrap().targets.len(), 2);
    assert_eq!(load(&file).unwrap().targets.len(), 2);
    assert_eq!(Place::of(None), Place::Default);
    assert!(Sources::read(&Place::File(PathBuf::from("/nonexistent/x.toml"))).is_err());
}

#[test]
fn defaults_lie_under_each_target() {
    let main = r#"
[defaults]
max_level = "err"
pace = "5/s"
queue = 2
release = true
[defaults.userdata]
site = "fra1"
rack = "none"
[defaults.sysdata]
cpu = true
msgid = true
[[defaults.filter]]
text = "a"
action = "drop"
[target.x]
remote = "192.0.2.1"
pace = "off"
[target.x.userdata]
role = "db"
rack = "r12"
[target.x.sysdata]
cpu = false
pid = true
"#;
    let drop_in = "[target.y]\nremote = \"192.0.2.2\"\nformat = \"basic\"\negress = \"udp\"\n\
                   [[target.y.filter]]\ntext = \"b\"\naction = \"send\"\n\
                   [target.z]\nremote = \"192.0.2.3\"\nfilter = []\n";
    let config = check(&[main, drop_in]).unwrap();
    assert_eq!(config.warnings, Warnings::default());
    let [x, y, z] = &config.targets[..] else { panic!("{:?}", config.targets) };
    assert_eq!((x.max_level, x.pace, x.queue, x.release), (3, None, 2, true));
    let pairs: Vec<_> = x.userdata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("site", "fra1"), ("rack", "r12"), ("role", "db")]);
    assert_eq!(x.sysdata, [SysdataKey::Msgid, SysdataKey::Pid].into_iter().collect());
    assert_eq!(x.filter.len(), 1);
    // What does not fit its format and egress is not taken.
    assert_eq!((y.max_level, y.pace, y.queue, y.release), (3, Some(5), 0, false));
    assert_eq!((y.userdata.len(), y.sysdata), (0, Sysdata::default()));
    assert_eq!((y.filter.len(), z.filter.len()), (1, 0));
}

#[test]
fn defaults_are_checked_once() {
    let main = "[defaults]\nremote = \"192.0.2.1\"\nmax_level = 9\nfoo = 1\n\
                [defaults.sysdata]\nnone = true\n";
    let error = check(&[main, &(target("x") + &target("y"))]).unwrap_err().to_string();
    let expected = r#"error: `remote` cannot be a default: all targets would send to one receiver
 --> agent.toml:2:1
  |
2 | remote = "192.0.2.1"
  | ^^^^^^
  |
  = help: each target has its own `remote`

error: `max_level` must be a number from 0 to 7
 --> agent.toml:3:13
  |
3 | max_level = 9
  |             ^

error: [defaults] has no key `foo`
 --> agent.toml:4:1
  |
4 | foo = 1
  | ^^^
  |
  = help: the keys there are: after_crash, copies, device, dump, egress, enabled, facility, filter, format, keepalive, local, max_level, pace, pcap, queue, rate, release, remote_mac, sysdata, userdata

error: [defaults.sysdata] has no key `none`
 --> agent.toml:6:1
  |
6 | none = true
  | ^^^^
  |
  = help: the keys there are: boot_id, cgroup, cpu, hostname, livepatch, msgid, nic, pid, release, sched_ext, taint, taskname, thp, unit, uptime"#;
    assert_eq!(error, expected);
}

#[test]
fn duplicates_show_both_places() {
    let main = "[target.x]\nremote = \"192.0.2.1\"\n\nremote = \"192.0.2.2\"\n";
    let drop_in = "[agent]\nstore = \"1MiB\"\n[target.x]\nremote = \"192.0.2.3\"\n";
    let error = check(&[main, "[defaults]\n[foo]\n", drop_in]).unwrap_err().to_string();
    let expected = r#"error: duplicate key
 --> agent.toml:4:1
  |
2 | remote = "192.0.2.1"
  | ------ it is here first
3 |
4 | remote = "192.0.2.2"
  | ^^^^^^

error: [defaults] is in a drop-in, which can only have targets
 --> a.toml:1:1
  |
1 | [defaults]
  | ^^^^^^^^^^
  |
  = help: write it into agent.toml

error: the file has no key `foo`
 --> a.toml:2:2
  |
2 | [foo]
  |  ^^^
  |
  = help: the keys there are: target

error: [agent] is in a drop-in, which can only have targets
 --> b.toml:1:1
  |
1 | [agent]
  | ^^^^^^^
  |
  = help: write it into agent.toml

error: there are two targets with the name `x`
 --> b.toml:3:9
  |
3 | [target.x]
  |         ^
  |
 ::: agent.toml:1:9
  |
1 | [target.x]
  |         - it is here first
  |
  = help: a file in targets.d cannot add to a target of another file; to replace a whole file, give the new one the same name in a later folder"#;
    assert_eq!(error, expected);
    let Err(ConfigError::Invalid { problems, .. }) = check(&[main, "", drop_in]) else { panic!() };
    let last = problems.last().unwrap();
    assert_eq!((last.source.as_str(), &last.span), ("b.toml", &(31..32)));
    assert_eq!((last.others[0].source.as_str(), &last.others[0].span), ("agent.toml", &(8..9)));
}

#[test]
fn a_broken_file_hides_no_problem_of_another() {
    let error = check(&["[target.x\n", "[target.y]\n"]).unwrap_err().to_string();
    assert!(error.contains("agent.toml:1:10"), "{error}");
    assert!(error.contains("a.toml:1:9") && error.contains("no `remote`"), "{error}");
}

#[test]
fn a_long_report_of_several_files_is_cut() {
    let keys =
        |from: usize| -> String { (from..from + 40).map(|n| format!("k{n} = 1\n")).collect() };
    let error = check(&[&keys(0), &keys(40)]).unwrap_err().to_string();
    assert!(error.ends_with("a.toml: 30 more problems"), "{error}");
}

proptest! {
    /// Good files, each with one piece replaced by anything.
    #[test]
    fn no_damage_panics(
        at in 0usize..4000, cut in 0usize..40, piece in "(?s).{0,20}",
        other in 0usize..200, tail in "(?s).{0,30}",
    ) {
        let text = example();
        let start = text.floor_char_boundary(at);
        let end = text.floor_char_boundary((at + cut).max(start));
        let main = [&text[..start], &piece, &text[end..]].concat();
        let drop_in = target("a") + "[target.a.userdata]\na = \"b\"\n[[target.a.filter]]\nrate = \"1/s\"\n";
        let cut = drop_in.floor_char_boundary(other);
        let drop_in = [&drop_in[..cut], &tail].concat();
        let _ = check(&[&main, &drop_in, &(target("fleet") + &tail)]);
    }
}
