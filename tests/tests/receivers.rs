//! The examples of `configs/receivers`, run as they stand there: a real rsyslogd and a real
//! pipeline at one end of a cable, the agent at the other. Of the files only the path of the
//! output is changed.

use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    kmsg::{self, Unlimited},
    netns::{LEFT_V4, Namespace, Pair, RIGHT_V4, root_or_skip},
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
/// Where the example writes.
const RSYSLOG_OUTPUT: &str = "file=\"/var/log/netconsole.json\"";
const PIPELINE_OUTPUT: &str = "/var/log/netconsole-errors.json";
/// The receivers' port, 6666, as `/proc/net/udp` has it.
const PORT_HEX: &str = ":1A0A ";

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/receivers").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program of the examples in the right namespace, and the file that it writes.
struct Receiver {
    child: Child,
    folder: tempfile::TempDir,
}

impl Receiver {
    /// The configuration of rsyslog, as it is shipped.
    fn rsyslog(namespace: &Namespace) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = example("rsyslog.conf");
        assert_eq!(text.matches(RSYSLOG_OUTPUT).count(), 1, "where it writes");
        let config = folder.path().join("rsyslog.conf");
        let output = folder.path().join("out.json").display().to_string();
        std::fs::write(&config, text.replace(RSYSLOG_OUTPUT, &format!("file={output:?}")))
            .expect("write it");
        let pid_file = folder.path().join("pid");
        let mut command = inside(namespace, "rsyslogd");
        command.arg("-n").arg("-f").arg(config).arg("-i").arg(pid_file);
        Self::start(command, folder)
    }

    /// The shell's pipeline of the README.
    fn pipeline(namespace: &Namespace) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let readme = example("README.md");
        let mut lines = readme.lines().filter(|line| line.contains(PIPELINE_OUTPUT));
        let line = lines.next().expect("a pipeline");
        let agent = binary().display().to_string();
        let line = line.replacen("netconsole-agent", &agent, 1);
        let output = folder.path().join("out.json").display().to_string();
        let mut command = inside(namespace, "sh");
        command.args(["-c", &line.replace(PIPELINE_OUTPUT, &output)]);
        Self::start(command, folder)
    }

    fn start(mut command: Command, folder: tempfile::TempDir) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .expect("start it; `cargo xtask setup` installs what is missing");
        let begin = Instant::now();
        loop {
            let sockets = ["udp", "udp6"].map(|file| {
                let path = format!("/proc/{}/net/{file}", child.id());
                std::fs::read_to_string(path).unwrap_or_default()
            });
            if sockets.concat().contains(PORT_HEX) {
                return Self { child, folder };
            }
            if let Some(end) = child.try_wait().expect("its state") {
                panic!("it ended with {end}");
            }
            assert!(begin.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out.json")
    }

    /// What it has written so far; a line that it is still at is left out.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.output()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        whole.lines().map(parse).collect()
    }

    /// Waits for lines, in the order of the file.
    fn wait_for(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let begin = Instant::now();
        loop {
            let lines = self.lines();
            let found: Vec<_> = lines.iter().filter(|line| wanted(line)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "{count} wanted, these came: {lines:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process id")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The group: a shell's pipeline has several processes.
        let _ = kill_process_group(self.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A command in a namespace, in the process that is started.
fn inside(namespace: &Namespace, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", namespace.name())).arg(program);
    command
}

/// priority, seq and time of the record with this text, as the kernel itself shows it.
fn in_the_kernel(text: &str) -> [u64; 3] {
    let lines = kmsg::all();
    let line = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .find(|line| line.split_once(';').is_some_and(|(_, rest)| rest.starts_with(text)));
    let line = line.unwrap_or_else(|| panic!("{text:?} is not in the kernel's log"));
    let mut fields = line.split(',').map(|field| field.parse().expect("a number"));
    [(); 3].map(|()| fields.next().expect("a field"))
}

/// The text and the userdata of fragments, put together as the file's comment says.
fn joined(parts: &[Value]) -> (String, Vec<(String, String)>) {
    let number = |part: &Value, name: &str| part["fragment"][name].as_u64().expect("a number");
    let mut parts = parts.to_vec();
    parts.sort_by_key(|part| number(part, "offset"));
    let mut whole = String::new();
    for part in &parts {
        assert_eq!(number(part, "offset"), whole.len() as u64, "{parts:#?}");
        whole += part["text"].as_str().expect("a text");
    }
    assert_eq!(number(&parts[0], "total"), whole.len() as u64, "{parts:#?}");
    let mut lines = whole.lines();
    let text = lines.next().expect("a text").to_owned();
    let entry = |line: &str| {
        let (key, value) = line.trim_start_matches(' ').split_once('=').expect("an entry");
        (key.to_owned(), value.to_owned())
    };
    (text, lines.map(entry).collect())
}

#[test]
fn rsyslog_makes_json_of_what_the_agent_sends() {
    if !root_or_skip("rsyslog_makes_json_of_what_the_agent_sends") {
        return;
    }
    let _unlimited = Unlimited::new();
    let pair = Pair::new();
    let rsyslog = Receiver::rsyslog(&pair.right);
    let targets = "\
[target.extended]
remote = \"192.0.2.2:6666\"
release = true
[target.extended.userdata]
rack = \"r7\"
job = 'web=7 \"blue\" C:\\x'
[target.extended.sysdata]
taskname = true
[target.basic]
remote = \"192.0.2.2:6666\"
local = \":6667\"
format = \"basic\"
";
    let agent = Agent::start(&pair.left, "", targets, 2);
    let tag = format!("nca-rsyslog {}", std::process::id());
    let line = format!("{tag} says \"hello\", #012 a=b; 1,2,3,-;x");
    let long = format!("{tag} long {}end", "0123456789".repeat(92));
    kmsg::write(&[format!("<4>{line}\n").into_bytes(), format!("<27>{long}\n").into_bytes()], 0);

    let is = |line: &Value, text: &str| line["text"].as_str().is_some_and(|it| it.contains(text));
    let found = rsyslog.wait_for(2, |it| is(it, &line));
    let [prio, seq, ts_us] = in_the_kernel(&line);
    assert_eq!((prio >> 3, prio & 7), (1, 4));
    let host = LEFT_V4.to_string();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut extended = found.iter().find(|it| it.get("seq").is_some()).expect("it").clone();
    let received = extended["received"].take();
    assert!(received.as_str().is_some_and(|time| time.contains('T')), "{received}");
    let taskname = extended["userdata"]["taskname"].take();
    assert!(taskname.as_str().is_some_and(|name| !name.is_empty()), "{extended:#}");
    // What depends on the kernel and on how busy the machine is.
    for name in ["caller", "approx"] {
        extended.as_object_mut().expect("an object").remove(name);
    }
    assert_eq!(
        extended,
        json!({
            "received": null, "host": host, "release": release, "facility": 1, "level": 4,
            "seq": seq, "ts_us": ts_us, "flag": "-", "text": line,
            "userdata": {"rack": "r7", "job": "web=7 \"blue\" C:\\x", "taskname": null},
        })
    );
    let mut basic = found.iter().find(|it| it.get("seq").is_none()).expect("it").clone();
    basic["received"].take();
    let printed = format!("[{:5}.{:06}]", ts_us / 1_000_000, ts_us % 1_000_000);
    let text = basic["text"].take();
    let text = text.as_str().expect("a text");
    assert!(text.starts_with(&printed) && text.ends_with(&line), "{text}");
    assert_eq!(basic, json!({"received": null, "host": host, "ts_us": ts_us, "text": null}));

    // Too long for one datagram: parts that a consumer can put together.
    let [prio, seq, _] = in_the_kernel(&long);
    let parts = rsyslog.wait_for(2, |it| it.get("fragment").is_some() && it["seq"] == seq);
    for part in &parts {
        assert_eq!((&part["facility"], &part["level"]), (&json!(prio >> 3), &json!(prio & 7)));
        assert_eq!(part["host"], host);
        assert!(part.get("userdata").is_none(), "{part:#}");
    }
    let (text, entries) = joined(&parts);
    assert_eq!(text, long);
    assert_eq!(entries[0], ("rack".to_owned(), "r7".to_owned()));
    assert_eq!(entries[1], ("job".to_owned(), "web=7 \"blue\" C:\\x".to_owned()));

    // A message is no record, and has its target's userdata.
    let said = format!("{tag} deploys; 6,1,1,-;x");
    let _ = agent.command(&["send", "extended", &said]);
    let messages = rsyslog.wait_for(1, |it| is(it, &said));
    assert_eq!(messages[0]["text"], format!("netconsole-agent, message: {said}"));
    assert_eq!(messages[0]["userdata"]["rack"], "r7");
    assert!(messages[0].get("seq").is_none(), "{:#}", messages[0]);
    assert!(agent.stop().contains("final account"));
}

/// What the file's comment shows, without the time.
fn shown_by_the_comment() -> Value {
    let text = example("rsyslog.conf");
    let lines = text.lines().skip_while(|line| !line.starts_with("#   {"));
    let lines = lines.map_while(|line| line.strip_prefix("#   "));
    let mut shown: Value = serde_json::from_str(&lines.collect::<String>()).expect("JSON");
    assert_eq!(shown["host"], LEFT_V4.to_string());
    for name in ["received", "host"] {
        shown.as_object_mut().expect("an object").remove(name).expect(name);
    }
    shown
}

/// What other senders send, and what nobody should.
#[test]
fn rsyslog_reads_every_form() {
    if !root_or_skip("rsyslog_reads_every_form") {
        return;
    }
    let pair = Pair::new();
    let rsyslog = Receiver::rsyslog(&pair.right);
    let record = |rest: Value| {
        let mut whole = json!({"facility": 0, "level": 6, "seq": 7, "ts_us": 9, "flag": "-"});
        whole.as_object_mut().expect("it").extend(rest.as_object().expect("it").clone());
        whole
    };
    let cases: Vec<(&[u8], Value)> = vec![
        (
            b"6.12.48,4,1234,81234567,-,caller=T17,approx=1;hello fleet\n SUBSYSTEM=usb\n \
              DEVICE=+usb:1-2\n rack=r7\n",
            shown_by_the_comment(),
        ),
        (b"6,7,9,-;text\n", record(json!({"text": "text"}))),
        (b"6,7,9,-;no line end", record(json!({"text": "no line end"}))),
        (b"6,7,9,-;\n a=b\n", record(json!({"text": "", "userdata": {"a": "b"}}))),
        (
            b"6.12.48-x,2047,18446744,012345,c,caller=C12,approx=1;a \\x0a b\n SUBSYSTEM=usb\n",
            json!({
                "release": "6.12.48-x", "facility": 255, "level": 7, "seq": 18_446_744,
                "ts_us": 12_345, "flag": "c", "caller": "C12", "approx": true,
                "text": "a \\x0a b", "userdata": {"SUBSYSTEM": "usb"},
            }),
        ),
        (
            b"6,7,9,-,caller=T3,ncfrag=12/40;part\n k=\n",
            record(json!({
                "caller": "T3", "fragment": {"offset": 12, "total": 40}, "text": "part\n k=\n",
            })),
        ),
        // Values make no keys of their own, wherever the quotes and backslashes stand.
        (
            b"6,7,9,-;t\n a=\"},\"level\":0,\"b\":\"\\\n \"k\\=\\\"\n only\n a=last\n",
            record(json!({
                "text": "t", "userdata": {"a": "last", "\"k\\": "\\\"", "only": ""},
            })),
        ),
        (
            b"6,7,9,-;t\n tab=a\tb\x01\n",
            record(json!({"text": "t", "userdata": {"tab": "a\tb\u{1}"}})),
        ),
        (
            b"6,7,9,-;<13>Oct 11 22:14:15 host su: x\n",
            record(json!({"text": "<13>Oct 11 22:14:15 host su: x"})),
        ),
        // The basic format.
        (b"[   12.000345] text\n", json!({"ts_us": 12_000_345, "text": "[   12.000345] text"})),
        (
            b"<3>[    1.500000] one\n[    1.500000] two\n",
            json!({
                "facility": 0, "level": 3, "ts_us": 1_500_000,
                "text": "[    1.500000] one\n[    1.500000] two",
            }),
        ),
        (b"just text; 6,7,9,-;x", json!({"text": "just text; 6,7,9,-;x"})),
        (
            b"<30>Oct 11 22:14:15 host su: x",
            json!({"facility": 3, "level": 6, "text": "Oct 11 22:14:15 host su: x"}),
        ),
        (b"6,7,nine,-;x\n", json!({"text": "6,7,nine,-;x"})),
        (
            b"netconsole-agent, message: hi\n rack=7\n",
            json!({"text": "netconsole-agent, message: hi", "userdata": {"rack": "7"}}),
        ),
    ];
    let sender = pair.left.run(|| UdpSocket::bind((LEFT_V4, 6665)).expect("bind"));
    let to = SocketAddr::from((RIGHT_V4, 6666));
    // The cable's carrier may come up to a second late, and what is sent before is dropped.
    let begin = Instant::now();
    while rsyslog.lines().is_empty() {
        assert!(begin.elapsed() < PATIENCE, "nothing arrives");
        sender.send_to(b"ready\n", to).expect("send");
        std::thread::sleep(Duration::from_millis(100));
    }
    for (datagram, _) in &cases {
        sender.send_to(datagram, to).expect("send");
    }
    let came = rsyslog.wait_for(cases.len(), |line| line["text"] != "ready");
    assert_eq!(came.len(), cases.len());
    for ((datagram, wanted), mut line) in cases.into_iter().zip(came) {
        let members = line.as_object_mut().expect("an object");
        assert!(members.remove("received").is_some_and(|time| time.is_string()));
        assert_eq!(members.remove("host"), Some(json!(LEFT_V4.to_string())));
        assert_eq!(line, wanted, "{}", datagram.escape_ascii());
    }
    // It ends when it is told to.
    let mut rsyslog = rsyslog;
    kill_process(rsyslog.id(), Signal::TERM).expect("a signal");
    assert!(rsyslog.child.wait().expect("its end").success());
}

/// The record that the README shows is what `receive --json` prints of one.
#[test]
fn a_record_looks_as_it_is_shown() {
    let readme = example("README.md");
    let shown = readme.lines().find(|line| line.starts_with("{\"source\"")).expect("a record");
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = port.expect("a free port").to_string();
    let mut child = Command::new(binary())
        .args(["receive", "--json", "--count", "1", "--listen", &address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the receiver");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let begin = Instant::now();
    // It may not listen yet; then sending is refused.
    while child.try_wait().expect("its state").is_none() {
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        let _ = sender.send_to(b"4,1234,81234567,-;hello fleet\n rack=r7\n", &address);
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("its output");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let printed = printed.lines().next().expect("a record").replace("127.0.0.1", "192.0.2.1");
    assert_eq!(printed, shown);
}

/// So are what it prints of records that did not come, and of a sender that booted.
#[test]
fn gaps_and_restarts_look_as_they_are_shown() {
    let readme = example("README.md");
    let is_event = |line: &&str| line.starts_with("{\"gap\"") || line.starts_with("{\"restart\"");
    let shown: Vec<_> = readme.lines().filter(is_event).collect();
    let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = address.expect("a free port");
    let mut child = Command::new(binary())
        .args(["receive", "--json", "--count", "3", "--listen", &address.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the receiver");
    let begin = Instant::now();
    let sockets = || std::fs::read_to_string(format!("/proc/{}/net/udp", child.id()));
    while !sockets().expect("its sockets").contains(&format!(":{:04X} ", address.port())) {
        assert!(begin.elapsed() < PATIENCE, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for record in ["6,9,81000000,-;one\n", "6,13,81000001,-;two\n", "6,20,100,-;booted\n"] {
        sender.send_to(record.as_bytes(), address).expect("send");
    }
    while child.try_wait().expect("its state").is_none() {
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("its output");
    let printed =
        String::from_utf8(output.stdout).expect("UTF-8").replace("127.0.0.1", "192.0.2.1");
    assert_eq!(printed.lines().filter(is_event).collect::<Vec<_>>(), shown, "{printed}");
    assert_eq!(shown.len(), 2);
}

#[test]
fn a_pipeline_gets_the_errors_alone() {
    if !root_or_skip("a_pipeline_gets_the_errors_alone") {
        return;
    }
    let _unlimited = Unlimited::new();
    let pair = Pair::new();
    let pipeline = Receiver::pipeline(&pair.right);
    let targets = "[target.fleet]\nremote = \"192.0.2.2:6666\"\n";
    let agent = Agent::start(&pair.left, "", targets, 1);
    let tag = format!("nca-pipeline {}", std::process::id());
    let lines: Vec<Vec<u8>> =
        [6, 3, 4, 2].iter().map(|level| format!("<{level}>{tag} level {level}\n").into()).collect();
    kmsg::write(&lines, 0);
    let own = |line: &Value| line["text"].as_str().is_some_and(|text| text.starts_with(&tag));
    let found = pipeline.wait_for(2, own);
    let wanted: Vec<_> = [3, 2]
        .iter()
        .map(|level| {
            let text = format!("{tag} level {level}");
            let [_, seq, _] = in_the_kernel(&text);
            json!({"source": LEFT_V4.to_string(), "seq": seq, "text": text})
        })
        .collect();
    assert_eq!(found, wanted);
    assert!(agent.stop().contains("final account"));
}
