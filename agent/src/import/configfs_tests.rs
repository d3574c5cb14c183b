//! Trees as kernels 6.1, 6.12 and 7.2 have them, made in a directory.

use std::{fs, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    configfs::{Host, read},
    tests::parsed,
    *,
};
use crate::netconsole::{FormatKind, SysdataKey};

/// An enabled target of Linux 6.1: no release, no userdata.
const TARGET_6_1: [(&str, &str); 9] = [
    ("enabled", "1\n"),
    ("extended", "1\n"),
    ("dev_name", "eth1\n"),
    ("local_port", "6665\n"),
    ("remote_port", "1514\n"),
    ("local_ip", "192.0.2.1\n"),
    ("remote_ip", "192.0.2.10\n"),
    ("local_mac", "52:54:00:00:00:01\n"),
    ("remote_mac", "52:54:00:00:00:02\n"),
];

struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("netconsole")).unwrap();
        Self(dir)
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn target(&self, name: &str, attributes: &[(&str, &str)]) -> &Self {
        for (attribute, value) in TARGET_6_1.iter().chain(attributes) {
            self.write(&format!("netconsole/{name}/{attribute}"), value);
        }
        self
    }

    fn host(&self) -> Host {
        let path = |name: &str| self.0.path().join(name);
        Host {
            parameters: path("parameters"),
            command_line: path("cmdline"),
            printk: path("printk"),
        }
    }

    fn read(&self) -> Result<Import, ImportError> {
        read(&self.0.path().join("netconsole"), &self.host())
    }
}

fn has(import: &Import, wanted: &str) -> bool {
    import.notes.iter().any(|note| note.contains(wanted))
}

#[test]
fn a_tree_of_6_1() {
    let tree = Tree::new();
    tree.target("fleet", &[]).target(
        "other",
        &[("extended", "0\n"), ("remote_ip", "fd00::a\n"), ("local_ip", "fd00::1\n")],
    );
    tree.write("printk", "4\t4\t1\t7\n");
    let import = tree.read().unwrap();
    assert_eq!(
        import.toml,
        "[target.fleet]\nremote = \"192.0.2.10:1514\"\ndevice = \"eth1\"\nlocal = \"192.0.2.1\"\n\n\
         [target.other]\nremote = \"[fd00::a]:1514\"\ndevice = \"eth1\"\nformat = \"basic\"\n\
         local = \"fd00::1\"\n"
    );
    parsed(&import);
    assert!(has(&import, "fleet: remote_mac 52:54:00:00:00:02 is not carried over"));
    assert!(has(&import, "fleet: local = \"192.0.2.1\" may be what the kernel chose"));
    assert!(has(&import, "it is 4 now, which `max_level = 3` would be"), "{import:?}");
    assert_eq!(import.notes.len(), 5, "{import:#?}");
}

#[test]
fn a_tree_of_6_12() {
    let tree = Tree::new();
    tree.target(
        "cmdline0",
        &[("release", "1\n"), ("local_ip", "0.0.0.0\n"), ("remote_mac", "ff:ff:ff:ff:ff:ff\n")],
    );
    tree.write("netconsole/cmdline0/userdata/site/value", "fra1 rack=7\n");
    tree.write("netconsole/cmdline0/userdata/a.b/value", "\"quoted\" \\ \t\n");
    tree.target("off", &[("enabled", "0\n"), ("release", "0\n")]);
    fs::create_dir(tree.0.path().join("netconsole/off/userdata")).unwrap();
    tree.target("unset", &[("enabled", "0\n"), ("remote_ip", "0.0.0.0\n")]);
    let import = tree.read().unwrap();
    let targets = parsed(&import);
    let [first, off] = targets.as_slice() else { panic!("{import:#?}") };
    assert!(first.release && first.enabled);
    assert_eq!((first.local_ip, first.local_port), (None, 6665));
    let mut userdata = first.userdata.clone();
    userdata.sort();
    let wanted = [("a.b", "\"quoted\" \\ \t"), ("site", "fra1 rack=7")];
    assert_eq!(userdata, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!((off.name.as_str(), off.enabled), ("off", false));
    assert!(has(&import, "cmdline0: the broadcast MAC is not carried over"));
    assert!(has(&import, "off: is disabled"));
    assert!(has(&import, "unset: is not imported: it has no remote_ip"));
}

#[test]
fn a_tree_of_7_2() {
    let tree = Tree::new();
    tree.target(
        "fleet",
        &[
            ("release", "0\n"),
            ("transmit_errors", "12\n"),
            ("local_ip", "\n"),
            ("userdata/cpu_nr_enabled", "1\n"),
            ("userdata/taskname_enabled", "1\n"),
            ("userdata/release_enabled", "1\n"),
            ("userdata/msgid_enabled", "0\n"),
            ("userdata/rack/value", "r12\n"),
            ("userdata/none/value", "\n"),
            ("userdata/sla/sh/value", "x"),
            ("userdata/template/value", "{env:JOB}\n"),
            ("ratelimit_burst", "10\n"),
        ],
    );
    let import = tree.read().unwrap();
    let targets = parsed(&import);
    let sysdata: Vec<_> = targets[0].sysdata.keys().collect();
    assert_eq!(sysdata, [SysdataKey::Cpu, SysdataKey::Taskname, SysdataKey::Release]);
    assert!(targets[0].userdata.contains(&("rack".to_owned(), "r12".to_owned())));
    assert!(!targets[0].userdata.iter().any(|(key, _)| key == "template"));
    for wanted in [
        "fleet: release_enabled shows taskname's switch",
        "fleet: userdata \"template\" is not carried over: its value would be a template here",
        "fleet: userdata \"sla\" is not carried over: No such file",
        "fleet: ratelimit_burst (10) is not carried over",
    ] {
        assert!(has(&import, wanted), "{wanted}: {import:#?}");
    }
}

#[test]
fn a_basic_target_has_no_extra_data() {
    let tree = Tree::new();
    tree.target(
        "basic",
        &[
            ("extended", "0\n"),
            ("release", "1\n"),
            ("userdata/msgid_enabled", "1\n"),
            ("userdata/rack/value", "r12\n"),
        ],
    );
    let import = tree.read().unwrap();
    let targets = parsed(&import);
    assert_eq!(targets[0].format, FormatKind::Basic);
    assert!(has(&import, "basic: release is not carried over: `release` needs the extended"));
    assert!(has(&import, "basic: userdata and sysdata are not carried over"));
}

#[test]
fn names_that_are_none_here_get_a_number_that_is_free() {
    let tree = Tree::new();
    tree.target("a b", &[]).target("target1", &[]).target("dotted.name", &[]);
    let import = tree.read().unwrap();
    let names: Vec<_> = parsed(&import).into_iter().map(|target| target.name).collect();
    assert_eq!(names, ["target2", "dotted.name", "target1"]);
    assert!(has(&import, "\"a b\" is now target2: \"a b\" cannot be the name of a target"));
}

#[test]
fn odd_values_are_told() {
    let tree = Tree::new();
    tree.target("bad", &[("remote_ip", "host\n")]).target("gone", &[("dev_name", "\n")]);
    tree.write("netconsole/file", "");
    tree.write("netconsole/raw/remote_ip", "192.0.2.10\n");
    fs::create_dir_all(tree.0.path().join("netconsole/raw/userdata/key")).unwrap();
    fs::write(tree.0.path().join("netconsole/raw/userdata/key/value"), b"\xff\n").unwrap();
    let import = tree.read().unwrap();
    let targets = parsed(&import);
    assert_eq!(targets.len(), 2, "{import:#?}");
    for wanted in [
        "bad: is not imported: remote_ip has \"host\"",
        "file: is not imported: cannot read enabled",
        "gone: the kernel's target has no device at the moment",
        "raw: userdata \"key\" is not carried over: it is not UTF-8 text",
    ] {
        assert!(has(&import, wanted), "{wanted}: {import:#?}");
    }
}

#[test]
fn more_userdata_than_receivers_take_is_told() {
    let tree = Tree::new();
    let long = "v".repeat(190);
    for index in 0..40 {
        tree.target("fleet", &[(&format!("userdata/key{index}/value"), &long)]);
    }
    let import = tree.read().unwrap();
    let kept = parsed(&import)[0].userdata.len();
    let told = import.notes.iter().filter(|note| note.contains("exceeds what netconsd")).count();
    assert!(kept > 20 && told > 0, "{import:#?}");
    assert_eq!(kept + told, 40);
}

#[test]
fn a_missing_tree_names_the_remedy_and_what_is_known_otherwise() {
    let tree = Tree::new();
    fs::remove_dir(tree.0.path().join("netconsole")).unwrap();
    let error = tree.read().unwrap_err().to_string();
    assert!(error.contains("modprobe netconsole") && error.ends_with("'STRING'`"), "{error}");
    tree.write("cmdline", "quiet netconsole=\"+@/eth0,@192.0.2.10/;@/,@192.0.2.11/\" panic=1\n");
    let error = tree.read().unwrap_err().to_string();
    let found = "; this kernel was started with netconsole=+@/eth0,@192.0.2.10/;@/,@192.0.2.11/";
    assert!(error.ends_with(found), "{error}");
    tree.write("parameters/netconsole", "@/,@192.0.2.12/\n");
    let error = tree.read().unwrap_err().to_string();
    assert!(error.ends_with("netconsole=@/,@192.0.2.12/"), "{error}");
    assert!(matches!(
        read(Path::new("/proc/self/status"), &tree.host()),
        Err(ImportError::Read { .. })
    ));
}

#[test]
fn targets_of_the_boot_that_the_tree_lacks_are_told() {
    let tree = Tree::new();
    tree.target("fleet", &[]).write("cmdline", "netconsole.netconsole=@/,@192.0.2.11/");
    tree.write("parameters/oops_only", "Y\n");
    let import = tree.read().unwrap();
    assert!(has(&import, "also started with netconsole=@/,@192.0.2.11/"), "{import:#?}");
    assert!(has(&import, "oops_only is set"));
    tree.target("cmdline0", &[]);
    assert!(!has(&tree.read().unwrap(), "also started with"));
}

#[test]
fn an_empty_tree_has_nothing() {
    assert_eq!(Tree::new().read().unwrap(), Import::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_userdata_comes_out_as_it_is(
        key in "[a-zA-Z0-9_. \"\\\\\u{e9}\u{7f}\u{1}#=\\[\\]-]{1,20}",
        value in "[ -~\u{1}-\u{8}\u{7f}\u{e9}\u{2028}\t\r]{0,60}",
    ) {
        prop_assume!(!matches!(key.as_str(), "." | "..") && !value.contains("{file:") && !value.contains("{env:"));
        let tree = Tree::new();
        tree.target("fleet", &[(&format!("userdata/{key}/value"), &format!("{value}\n"))]);
        let import = tree.read().unwrap();
        prop_assert_eq!(&parsed(&import)[0].userdata, &[(key, value)], "{:?}", import);
    }
}
