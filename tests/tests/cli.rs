//! The command line as scripts and people meet it: exit codes, messages with a
//! remedy, and what it leaves alone. No test here needs root.

use std::{
    net::UdpSocket,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use agent_tests::agent::binary;

const PATIENCE: Duration = Duration::from_secs(20);
const OK: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const BAD_CONFIG: i32 = 78;

/// What the agent said, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code, no signal"),
            out: String::from_utf8(output.stdout.clone()).expect("UTF-8"),
            err: String::from_utf8(output.stderr.clone()).expect("UTF-8"),
        }
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

fn agent(arguments: &[&str]) -> Said {
    let output = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("start the agent");
    Said::of(&output)
}

/// A folder with the configuration `text` in `agent.toml`.
fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("agent.toml"), text).expect("write the configuration");
    folder
}

fn config_in(folder: &tempfile::TempDir) -> String {
    folder.path().join("agent.toml").display().to_string()
}

#[test]
fn a_good_configuration_is_called_good() {
    let folder = folder_with("[target.fleet]\nremote = \"192.0.2.10:1514\"\n");
    let said = agent(&["check", "--config", &config_in(&folder)]).expect(OK);
    assert!(said.out.contains("good; fleet -> 192.0.2.10:1514"), "{}", said.out);
    assert_eq!(said.err, "");
    // What is shipped is good, too.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/agent.toml");
    agent(&["check", "--config", &shipped.display().to_string()]).expect(OK);
}

/// Text, the place of the problem in it, and words of the message or its help.
const BAD: [(&str, &str, &[&str]); 10] = [
    ("", "1:1", &["no target", "[target.fleet]"]),
    ("[target.fleet]\n", "1:9", &["no `remote`", "192.0.2.10:6666"]),
    ("[target.fleet]\nremote = \"no_where:6666\"\n", "2:10", &["remote", "underscore"]),
    ("[target.fleet]\nremote = \"192.0.2.10\"\nremoet = 1\n", "3:1", &["remoet"]),
    ("[target.fleet]\nremote = \"192.0.2.10\"\nmax_level = 9\n", "3:13", &["max_level"]),
    (
        "[target.fleet]\nremote = \"192.0.2.10\"\negress = \"pigeon\"\n",
        "3:10",
        &["auto, xdp, packet, udp or pcap"],
    ),
    ("[target.fleet]\nremote = \"192.0.2.10\"\negress = \"pcap\"\n", "1:9", &["pcap"]),
    (
        "[target.fleet]\nremote = \"192.0.2.10\"\nformat = \"basic\"\nrelease = true\n",
        "4:11",
        &["extended"],
    ),
    (
        "[agent]\nring = \"3MiB\"\n[target.fleet]\nremote = \"192.0.2.10\"\n",
        "2:8",
        &["power of two"],
    ),
    ("[target.fleet\nremote = \"192.0.2.10\"\n", "1:14", &["expected"]),
];

#[test]
fn problems_of_a_configuration_are_shown_at_their_place() {
    for (text, place, words) in BAD {
        let folder = folder_with(text);
        let config = config_in(&folder);
        let said = agent(&["check", "--config", &config]).expect(BAD_CONFIG);
        let at = format!("{config}:{place}");
        assert!(said.err.contains(&at), "{at} for\n{text}\nin\n{}", said.err);
        for word in words {
            assert!(said.err.contains(word), "{word:?} for\n{text}\nin\n{}", said.err);
        }
        assert_eq!(said.out, "");
    }
}

#[test]
fn all_problems_are_shown_at_once() {
    let folder =
        folder_with("[agent]\nstore = 7\n[target.a]\nremote = 1\n[target.b]\nqueue = -1\n");
    let config = config_in(&folder);
    let said = agent(&["check", "--config", &config]).expect(BAD_CONFIG);
    for place in ["2:9", "4:10", "5:9", "6:9"] {
        assert!(said.err.contains(&format!("{config}:{place}")), "{place} in\n{}", said.err);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    for command in ["check", "run"] {
        let said = agent(&[command, "--config", "/nonexistent/agent.toml"]).expect(BAD_CONFIG);
        assert!(said.err.contains("/nonexistent/agent.toml"), "{}", said.err);
        assert!(said.err.contains("No such file"), "{}", said.err);
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("agent.toml"), b"\xff\xfe").expect("write");
    let said = agent(&["check", "--config", &config_in(&folder)]).expect(BAD_CONFIG);
    assert!(said.err.contains("UTF-8"), "{}", said.err);
}

#[test]
fn run_touches_nothing_if_its_configuration_is_bad() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("made/control.sock");
    let config = folder.path().join("agent.toml");
    let pcap = folder.path().join("records.pcap");
    let text = format!(
        "[agent]\ncontrol_socket = {socket:?}\n[target.fleet]\nremote = \"192.0.2.10\"\n\
         egress = \"pcap\"\npcap = {pcap:?}\nlocal = \"nowhere\"\n"
    );
    std::fs::write(&config, text).expect("write the configuration");
    let said = agent(&["run", "--config", &config.display().to_string()]).expect(BAD_CONFIG);
    assert!(said.err.contains(&format!("{}:7:9", config.display())), "{}", said.err);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["agent.toml"]);
}

#[test]
fn every_subcommand_explains_itself() {
    let top = agent(&["--help"]).expect(OK);
    let commands: Vec<&str> = top
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for known in [
        "run", "check", "status", "target", "userdata", "send", "ping", "filter", "tail",
        "loglevel", "reload", "receive",
    ] {
        assert!(commands.contains(&known), "{known} in\n{}", top.out);
    }
    for command in commands {
        let said = agent(&[command, "--help"]).expect(OK);
        assert!(said.out.contains("Usage: netconsole-agent"), "{command}:\n{}", said.out);
        // `target` has subcommands of its own, which have the examples.
        if !said.out.contains("Commands:") {
            assert!(said.out.contains("Example"), "{command}:\n{}", said.out);
        }
    }
    for words in [
        "target list",
        "target resolve",
        "target enable",
        "target disable",
        "target set",
        "target add",
        "target remove",
        "userdata set",
        "userdata unset",
        "filter explain",
    ] {
        let arguments: Vec<_> = words.split(' ').chain(["--help"]).collect();
        let said = agent(&arguments).expect(OK);
        assert!(said.out.contains("Example"), "{}", said.out);
    }
    let version = agent(&["--version"]).expect(OK);
    assert!(version.out.starts_with("netconsole-agent "), "{}", version.out);
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["check", "--no-such-option"],
        &["target"],
        &["receive", "--count", "0"],
        &["receive", "--count", "many"],
        &["receive", "--listen", "nowhere"],
        &["receive", "--for", "soon"],
        &["receive", "--dir", "/tmp"],
        &["send"],
        &["send", "text-without-a-target"],
        &["send", "--all", "fleet", "text"],
        &["target", "set", "fleet"],
        &["target", "set", "fleet", "max_level"],
        &["target", "set", "fleet", "[agent]\ncontrol_group=\"x\""],
        &["target", "add", "fleet", "a b=1"],
        &["userdata", "set", "fleet", "key"],
        &["filter", "explain", "fleet", "line", "--last", "3"],
        &["filter", "explain", "fleet", "--last", "0"],
        &["loglevel", "debug", "--for", "soon"],
        &["status", "--watch", "0"],
        &["status", "--json", "--verbose"],
    ] {
        let said = agent(arguments).expect(USAGE);
        assert!(said.err.contains("--help") || said.err.contains("Usage"), "{}", said.err);
        assert_eq!(said.out, "");
    }
}

#[test]
fn without_an_agent_the_remedy_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock").display().to_string();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
        &["target", "resolve", "fleet"],
        &["send", "--all", "text"],
        &["tail", "fleet"],
        &["reload"],
    ] {
        let said = agent(&[arguments, &["--socket", &socket]].concat()).expect(FAILED);
        assert!(said.err.contains(&socket), "{}", said.err);
        assert!(said.err.contains("is it running?"), "{}", said.err);
        assert!(said.err.contains("--socket"), "{}", said.err);
        assert_eq!(said.out, "");
    }
}

#[test]
fn an_agent_that_talks_nonsense_is_reported() {
    use std::io::{BufRead as _, Write as _};
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    let nonsense = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut line = String::new();
        let mut reader = std::io::BufReader::new(stream.try_clone().expect("a reader"));
        reader.read_line(&mut line).expect("a request");
        stream.write_all(b"what?\n").expect("answer");
        line
    });
    let said = agent(&["status", "--socket", &socket.display().to_string()]).expect(FAILED);
    assert!(said.err.contains("same version"), "{}", said.err);
    assert_eq!(nonsense.join().expect("the listener"), "{\"cmd\":\"status\",\"v\":1}\n");
}

/// A port of the loopback device that was free a moment ago.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address").port()
}

#[test]
fn receive_ends_after_so_many_records() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut child = Command::new(binary())
        .args(["receive", "--count", "3", "--listen", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the receiver");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let begin = Instant::now();
    let mut seq = 10;
    // It may not listen yet; what comes too early is refused, and sent anew.
    while child.try_wait().expect("the receiver's state").is_none() {
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        let record = format!("4,{seq},1000000,-;record {seq}\n");
        if sender.send_to(record.as_bytes(), &address).is_ok() {
            seq += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = Said::of(&child.wait_with_output().expect("its output")).expect(OK);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.out);
    for (line, follows) in lines.iter().zip(lines.iter().skip(1)) {
        let number = |line: &str| -> u64 {
            line.split_whitespace().nth(1).and_then(|seq| seq.parse().ok()).expect("a seq")
        };
        assert_eq!(number(line) + 1, number(follows), "{}", said.out);
        assert!(line.starts_with("127.0.0.1 "), "{line}");
        assert!(line.contains("kern.warn") && line.contains("] record "), "{line}");
    }
}

#[test]
fn receive_ends_after_its_time_and_prints_json() {
    let address = format!("127.0.0.1:{}", free_port());
    let said = agent(&["receive", "--for", "200ms", "--json", "--listen", &address]).expect(OK);
    for line in said.out.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(value.is_object(), "{line}");
    }
}

#[test]
fn a_port_in_use_is_a_failure_with_a_remedy() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address").to_string();
    let said = agent(&["receive", "--for", "10s", "--listen", &address]).expect(FAILED);
    assert!(said.err.contains(&address), "{}", said.err);
    assert!(said.err.contains("choose another port"), "{}", said.err);
}
