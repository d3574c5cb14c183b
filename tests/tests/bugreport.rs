//! `netconsole-agent bugreport` with the real binary: what is in the archive with an agent and
//! without one, and that no value of the userdata is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    kmsg,
    netns::{Pair, root_or_skip},
};
use flate2::read::GzDecoder;

const PATIENCE: Duration = Duration::from_secs(20);
const FOLDER: &str = "netconsole-agent-bugreport/";
/// What must not leave: written plainly, through a template, under a key of the defaults, set
/// live, in a file that is broken, and behind what looks like the end of a line in TOML (a value of two
/// lines, and a path).
const SECRETS: [&str; 7] = [
    "\"plain\"-secret-4711",
    "filled-secret-4712",
    "default-secret-4713",
    "live-secret-4714",
    "broken-secret-4715",
    "first\\nsecret-4716",
    "C:\\new-secret-4717",
];

/// Runs the command, with a `journalctl` that shows `log`.
fn bugreport(folder: &Path, log: &str, arguments: &[&str]) -> Output {
    let journal = folder.join("journalctl");
    fs::write(folder.join("log"), log).expect("write the log");
    fs::write(&journal, format!("#!/bin/sh\ncat {}/log\n", folder.display())).expect("write");
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(binary())
        .arg("bugreport")
        .args(arguments)
        .env("PATH", format!("{}:{path}", folder.display()))
        .output()
        .expect("run the command")
}

/// Names and texts in an archive; asserts that it is for its owner alone.
fn parts(path: &Path) -> BTreeMap<String, String> {
    let file = File::open(path).expect("the archive");
    assert_eq!(file.metadata().expect("its mode").permissions().mode() & 0o7777, 0o600);
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let mut parts = BTreeMap::new();
    for entry in tar.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("UTF-8");
        let name = name.strip_prefix(FOLDER).unwrap_or_else(|| panic!("{name} is not in {FOLDER}"));
        parts.insert(name.to_owned(), text);
    }
    parts
}

/// Without this a test would prove nothing.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assert_no_secret(parts: &BTreeMap<String, String>) {
    for (name, text) in parts {
        for secret in SECRETS {
            // What is before may be escaped in any way.
            let end = &secret[secret.find("secret-").expect("it is one")..];
            assert!(!text.contains(end), "{secret} is in {name}:\n{text}");
        }
    }
}

#[test]
fn a_running_agent_is_in_it_without_its_userdata() {
    if !root_or_skip("a_running_agent_is_in_it_without_its_userdata") {
        return;
    }
    let pair = Pair::new();
    let _sink = pair.right.sink(6666);
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = folder.path().join("metrics.sock");
    let table = format!("capture = \"tracepoint\"\nmetrics = \"unix:{}\"", metrics.display());
    let [plain, filled, default, live, broken, two_lines, path] = SECRETS;
    let targets = format!(
        "[defaults.userdata]\nsite = \"{default}\"\n\
         [target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"udp\"\nmax_level = \"info\"\n\
         [target.peer.userdata]\nrack = '{plain}'\njob = \"{{env:SECRET_JOB}}\"\n"
    );
    let variables = [("SECRET_JOB", filled)];
    let agent = Agent::start_with(&pair.left, &table, &targets, 1, &variables);
    agent.command(&["userdata", "set", "peer", "ticket", live]);
    let config = agent.config().display().to_string();
    // Its log comes by a thread of its own.
    until("the change is in the log", || agent.log().contains("userdata.ticket"));
    assert!(!agent.log().contains(live), "{}", agent.log());
    // As journald forwards the agent's log, and with what the template became.
    let report = format!("error: no\n --> x:4:8\n  |\n4 | a = \"{two_lines}\"\n");
    let forwarded = format!("<13>netconsole-agent[7]: ERROR no error={report:?} {filled}\n");
    kmsg::write(&[forwarded.into_bytes()], 0);

    let out = folder.path().join("good.tar.gz");
    let arguments = ["--config", &config, "--out", out.to_str().expect("UTF-8"), "--kernel-log"];
    let output = bugreport(folder.path(), &agent.log(), &arguments);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", out.display()));
    let good = parts(&out);
    let expected = [
        "config.toml",
        "doctor.json",
        "doctor.txt",
        "kernel-log.txt",
        "ledger.txt",
        "log.txt",
        "metrics.txt",
        "programs.txt",
        "status.json",
        "status.txt",
        "versions.txt",
    ];
    assert_eq!(good.keys().collect::<Vec<_>>(), expected);
    let pid = agent.pid();
    for (name, words) in [
        ("config.toml", "rack = \"***\""),
        ("config.toml", "site = \"***\""),
        ("config.toml", "job = \"***\""),
        ("config.toml", "remote = \"192.0.2.2:6666\""),
        ("doctor.txt", "target peer"),
        ("ledger.txt", "balances"),
        ("log.txt", "peer"),
        ("metrics.txt", "# EOF"),
        ("kernel-log.txt", "netconsole-agent[7]: ERROR no error="),
        ("kernel-log.txt", "4 | ***\\n"),
        ("programs.txt", "\nprog_id:"),
        ("status.txt", "userdata.ticket"),
        ("versions.txt", &format!("pid {pid}, up ")),
    ] {
        assert!(good[name].contains(words), "{words:?} is not in {name}:\n{}", good[name]);
    }
    let status: serde_json::Value = serde_json::from_str(&good["status.json"]).expect("JSON");
    assert_eq!(status["pid"], pid);
    serde_json::from_str::<serde_json::Value>(&good["doctor.json"]).expect("JSON");
    assert_no_secret(&good);

    // A file that cannot be used: its lines are in the agent's log and in its status.
    agent.rewrite(&format!(
        "[target.peer]\nremote = \"192.0.2.2:6666\"\n[target.peer.userdata]\n\
         rack = '{plain}'\ntwo = \"{two_lines}\"\n\"a/b\" = '{path}'\nother = \"{broken}\n"
    ));
    agent.try_command(&["reload"]).expect_err("it is bad");
    until("the error is in the log", || agent.log().contains(broken));
    let out = folder.path().join("bad.tar.gz");
    let socket = agent.socket().display().to_string();
    let arguments =
        ["--config", &config, "--socket", &socket, "--out", out.to_str().expect("UTF-8")];
    let output = bugreport(folder.path(), &agent.log(), &arguments);
    assert!(output.status.success(), "{output:?}");
    let bad = parts(&out);
    assert!(bad["config.toml.error"].contains("agent.toml:"), "{}", bad["config.toml.error"]);
    for words in ["10 | two = ", "11 | \\\"a/b\\\" = "] {
        assert!(agent.log().contains(words), "{words} is not in the log:\n{}", agent.log());
    }
    assert!(bad["status.txt"].contains("peer"), "{}", bad["status.txt"]);
    assert!(!bad.contains_key("kernel-log.txt"), "nobody asked for it");
    assert_no_secret(&bad);
    let _ = agent.stop();
}

/// A value that looks like a part of JSON, or like one of its figures, spoils neither.
#[test]
fn json_stays_json_whatever_is_masked() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("agent.toml");
    let text = "[target.peer]\nremote = \"127.0.0.1:6666\"\negress = \"udp\"\n\
                [target.peer.userdata]\nrack = \"true\"\nrow = \"null\"\nsite = \"level\"\n";
    fs::write(&config, text).expect("write the configuration");
    let (config, out) = (config.display().to_string(), folder.path().join("x.tar.gz"));
    let arguments = ["--config", &config, "--out", out.to_str().expect("UTF-8")];
    let output = bugreport(folder.path(), "x=true\n", &arguments);
    assert!(output.status.success(), "{output:?}");
    let parts = parts(&out);
    assert_eq!(parts["log.txt"], "x=***\n");
    let doctor: serde_json::Value = serde_json::from_str(&parts["doctor.json"]).expect("JSON");
    for finding in doctor.as_array().expect("findings") {
        assert!(finding["level"].is_string(), "{finding}");
    }
}

#[test]
fn without_an_agent_the_reasons_are_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("none.sock");
    let config = folder.path().join("agent.toml");
    let [plain, ..] = SECRETS;
    let text = format!(
        "[agent]\ncontrol_socket = {socket:?}\n[target.peer]\nremote = \"127.0.0.1:6666\"\n\
         egress = \"udp\"\n[target.peer.userdata]\nrack = '{plain}'\n"
    );
    fs::write(&config, text).expect("write the configuration");
    let (config, out) = (config.display().to_string(), folder.path().join("x.tar.gz"));
    let arguments = ["--config", &config, "--out", out.to_str().expect("UTF-8")];
    let output = bugreport(folder.path(), "", &arguments);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("without status.txt: cannot reach the agent"), "{told}");
    let parts = parts(&out);
    let expected = [
        "config.toml",
        "doctor.json",
        "doctor.txt",
        "ledger.txt.error",
        "log.txt.error",
        "metrics.txt.error",
        "programs.txt.error",
        "status.json.error",
        "status.txt.error",
        "versions.txt",
    ];
    assert_eq!(parts.keys().collect::<Vec<_>>(), expected);
    assert!(parts["status.txt.error"].contains("none.sock"), "{}", parts["status.txt.error"]);
    assert!(parts["config.toml"].contains("rack = \"***\""), "{}", parts["config.toml"]);
    assert_no_secret(&parts);
    // What is there is not written over.
    let output = bugreport(folder.path(), "", &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--out"), "{output:?}");
}

/// Has the shell look at a script without running it.
fn assert_is_taken(shell: &str, script: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), script).expect("write the script");
    match Command::new(shell).arg("-n").arg(file.path()).output() {
        Ok(output) => {
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
        }
        Err(error) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{shell}: {error}; `cargo xtask setup` brings it"
            );
            println!("SKIPPED: whether {shell} takes its completions: {error}");
        }
    }
}

#[test]
fn pages_completions_and_the_schema_need_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        // Nothing of the host is needed for them.
        let output = command.args(arguments).env_clear().current_dir(folder.path()).output();
        let output = output.expect("run the command");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(run(&["man", "--out", "a/b"]), "");
    let pages = fs::read_dir(folder.path().join("a/b")).expect("the pages").count();
    assert!(pages > 30, "{pages} pages");
    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef netconsole-agent"),
        ("fish", "complete -c netconsole-agent"),
    ] {
        let script = run(&["completions", shell]);
        assert!(script.contains(words), "{shell}:\n{script}");
        assert_is_taken(shell, &script);
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/agent.schema.json");
    let schema = fs::read_to_string(schema).expect("the schema");
    assert!(run(&["config", "schema"]) == schema, "configs/agent.schema.json is another one");
}
