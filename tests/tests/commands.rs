//! The commands that talk to an agent, against one that only notes what it is asked: what
//! goes over the control socket, and what people and programs get to see. No root needed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use agent_tests::agent::binary;
use netconsole_agent::{
    control::{protocol::Request, status::Status},
    message,
};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);
const DONE: &str = "{\"ok\":true}";

/// Answers each of so many requests with the same lines, and hangs up.
struct Mock {
    folder: tempfile::TempDir,
    requests: JoinHandle<Vec<Request>>,
}

impl Mock {
    fn answering(requests: usize, lines: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("sock")).expect("bind");
        let answer: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let requests = std::thread::spawn(move || {
            let answered = |_| {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().expect("a reader"));
                reader.read_line(&mut line).expect("a request");
                // The client may have enough.
                let _ = stream.write_all(answer.as_bytes());
                Request::parse(line.as_bytes()).expect("a request")
            };
            (0..requests).map(answered).collect()
        });
        Self { folder, requests }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn start(&self, arguments: &[&str], stdin: &str) -> Child {
        let (command, rest) = arguments.split_first().expect("a command");
        let mut child = Command::new(binary())
            .arg(command)
            .args(rest.iter().take_while(|argument| **argument != "--"))
            .arg(format!("--socket={}", self.socket().display()))
            .args(rest.iter().skip_while(|argument| **argument != "--"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the command");
        // It need not read it.
        let _ = child.stdin.take().expect("its input").write_all(stdin.as_bytes());
        child
    }

    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str], stdin: &str) -> (i32, String, String) {
        let output = self.start(arguments, stdin).wait_with_output().expect("its end");
        (
            output.status.code().expect("an exit code"),
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    }

    fn asked(self) -> Vec<Request> {
        self.requests.join().expect("the agent")
    }
}

/// The request that a command makes.
fn request(arguments: &[&str]) -> Request {
    let mock = Mock::answering(1, &[DONE]);
    let (code, out, err) = mock.run(arguments, "");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""), "{arguments:?}");
    mock.asked().remove(0)
}

#[test]
fn commands_ask_for_what_they_say() {
    let text = |text: &str| text.to_owned();
    let fleet = || text("fleet");
    for (arguments, expected) in [
        (&["target", "enable", "fleet"][..], Request::Enable { target: fleet() }),
        (&["target", "disable", "fleet"], Request::Disable { target: fleet() }),
        (&["target", "remove", "fleet"], Request::Remove { target: fleet() }),
        (&["target", "resolve"], Request::Resolve { target: None }),
        (&["reload"], Request::Reload),
        (
            &["target", "set", "fleet", "max_level=err", "sysdata.cpu=true"],
            Request::Set {
                target: fleet(),
                settings: text("max_level = \"err\"\nsysdata.cpu = true\n"),
            },
        ),
        (
            &["userdata", "set", "fleet", "rack", "-7 = \"x\""],
            Request::UserdataSet { target: fleet(), key: text("rack"), value: text("-7 = \"x\"") },
        ),
        (
            &["userdata", "unset", "fleet", "rack"],
            Request::UserdataUnset { target: fleet(), key: text("rack") },
        ),
        (
            &["send", "fleet", "other", "some text"],
            Request::Send {
                targets: vec![fleet(), text("other")],
                all: false,
                text: text("some text"),
            },
        ),
        (
            &["send", "--all", "--", "--text"],
            Request::Send { targets: Vec::new(), all: true, text: text("--text") },
        ),
        (
            &["loglevel", "debug", "--for", "5m"],
            Request::Loglevel { level: text("debug"), for_s: Some(300) },
        ),
        (&["loglevel", "info"], Request::Loglevel { level: text("info"), for_s: None }),
        (
            &["filter", "explain", "fleet"],
            Request::FilterExplain { target: fleet(), line: None, last: 10 },
        ),
        (
            &["filter", "explain", "fleet", "--last", "3"],
            Request::FilterExplain { target: fleet(), line: None, last: 3 },
        ),
        (
            &["filter", "explain", "fleet", "6,1,1,-;x"],
            Request::FilterExplain { target: fleet(), line: Some(text("6,1,1,-;x")), last: 0 },
        ),
    ] {
        assert_eq!(request(arguments), expected);
    }
}

#[test]
fn no_value_becomes_another_setting() {
    let value = "x\"\n[agent]\ncontrol_group = \"all";
    let request = request(&["target", "add", "fleet", &format!("remote={value}")]);
    let Request::Add { settings, .. } = request else { panic!("{request:?}") };
    // As the agent might read it.
    let config = format!("[target.fleet]\n{settings}");
    let error = netconsole_agent::config::parse(&config, "it").expect_err("no such remote");
    let report = error.to_string();
    assert_eq!(report.matches("error:").count(), 1, "{report}");
    assert!(report.contains("`remote`"), "{report}");
}

#[test]
fn answers_are_for_people_or_for_programs() {
    let lines = "{\"ok\":true,\"lines\":[\"one\",\"two \\u001b[31m\"]}";
    for (arguments, expected) in [
        (&["target", "list"][..], "one\ntwo \\x1b[31m\n"),
        (&["target", "list", "--json"], "[\"one\",\"two \\u001b[31m\"]\n"),
        (&["filter", "explain", "fleet"], "one\ntwo \\x1b[31m\n"),
        (&["filter", "explain", "fleet", "--json"], "[\"one\",\"two \\u001b[31m\"]\n"),
        (&["ping", "fleet"], "one\n"),
        (&["ping", "fleet", "--json"], "{\"nonce\":\"one\",\"target\":\"fleet\"}\n"),
    ] {
        let mock = Mock::answering(1, &[lines]);
        assert_eq!(mock.run(arguments, ""), (0, expected.to_owned(), String::new()));
        mock.asked();
    }
    // Where nothing is asked for, what the agent has to say are warnings.
    let mock = Mock::answering(1, &[lines]);
    let (code, out, err) = mock.run(&["reload"], "");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "one\ntwo \\x1b[31m\n"));
    mock.asked();
    let mock = Mock::answering(1, &["{\"ok\":false,\"error\":\"not\\u001b so\"}"]);
    let (code, out, err) = mock.run(&["target", "remove", "fleet"], "");
    let expected = "error: the agent refused: not\\x1b so\n";
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", expected));
    mock.asked();
}

#[test]
fn each_line_of_standard_input_is_a_message_of_its_own() {
    let mock = Mock::answering(3, &[DONE]);
    let (code, _, err) = mock.run(&["send", "fleet", "-"], "first\nsecond, x\nthird");
    assert_eq!((code, err.as_str()), (0, ""));
    let texts: Vec<_> = mock
        .asked()
        .into_iter()
        .map(|request| match request {
            Request::Send { targets, text, all: false } if targets == ["fleet"] => text,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["first", "second, x", "third"]);
}

#[test]
fn a_message_that_does_not_fit_is_refused_before_anybody_is_asked() {
    // Nobody listens: it does not come to that.
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("sock").display().to_string();
    let limit = message::text_max_bytes(message::Kind::Message, 0);
    for (text, needed) in [("x".repeat(limit + 1), limit + 1), ("\n".repeat(limit), 4 * limit)] {
        let output = Command::new(binary())
            .args(["send", "--all", "--socket", &socket, &text])
            .output()
            .expect("run the command");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(&format!("the text has {needed} bytes")), "{err}");
        assert!(err.contains(&format!("room for {limit} ")), "{err}");
    }
}

#[test]
fn a_tail_shows_packets_until_the_agent_ends_it() {
    let packets = [
        DONE,
        "{\"ok\":true,\"packet\":\"6,1,1,-;a\\n rack=1\\n\"}",
        "{\"ok\":true,\"packet\":\"b\\u001b\\n\",\"left_out\":3}",
    ];
    let mock = Mock::answering(1, &packets);
    let (code, out, _) = mock.run(&["tail", "fleet"], "");
    assert_eq!(code, 0);
    assert_eq!(out, "6,1,1,-;a\n rack=1\n-- 3 packets left out --\nb\\x1b\n");
    assert_eq!(mock.asked(), [Request::Tail { target: "fleet".to_owned() }]);
    let mock = Mock::answering(1, &packets);
    let (_, out, _) = mock.run(&["tail", "fleet", "--json"], "");
    assert_eq!(
        out,
        "{\"packet\":\"6,1,1,-;a\\n rack=1\\n\"}\n{\"left_out\":3,\"packet\":\"b\\u001b\\n\"}\n"
    );
    mock.asked();
    let mock = Mock::answering(1, &["{\"ok\":false,\"error\":\"no\"}"]);
    assert_eq!(mock.run(&["tail", "fleet"], "").0, 1);
    mock.asked();
}

/// The reply with the smallest status that is understood.
fn status() -> String {
    let status: Status = serde_json::from_value(serde_json::json!({
        "version": "1.2.3", "pid": 7, "uptime_s": 60, "targets": [],
        "capture": {
            "source": "kmsg", "hook": null, "reason": "why", "netdev_events": "by", "first_seq": 0,
            "captured": 0, "ring_full": 0, "read_errors": 0, "recursion_misses": 0, "kmsg_read": 0,
            "kmsg_overwritten": 0, "approximated": 0, "backfilled": 0,
            "malformed": 0, "mismatched": 0, "wakeups": 0,
        },
    }))
    .expect("a status");
    format!("{{\"ok\":true,\"status\":{}}}", serde_json::to_string(&status).expect("JSON"))
}

#[test]
fn a_status_that_is_watched_comes_again_until_nobody_looks() {
    const HEAD: &str = "netconsole-agent 1.2.3, pid 7, up 1m, source kmsg\n";
    let mock = Mock::answering(3, &[&status()]);
    let mut child = mock.start(&["status", "--watch", "1"], "");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    for _ in 0..2 {
        for expected in [HEAD, "\n", "There is no target.\n"] {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            // Without a terminal nothing is drawn over.
            assert_eq!(line, expected);
        }
    }
    // The reader goes away.
    drop(out);
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    mock.asked();

    // Ended, it says nothing. (Not by SIGINT: what runs in a shell's background ignores it.)
    let mock = Mock::answering(1, &[&status()]);
    let mut child = mock.start(&["status", "--watch=3600", "--json"], "");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    // One object, one line.
    let status: Status = serde_json::from_str(&line).expect("a status");
    assert_eq!(status.pid, 7);
    let begin = Instant::now();
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
    kill_process(pid, Signal::TERM).expect("a signal");
    let output = child.wait_with_output().expect("its end");
    assert!(begin.elapsed() < PATIENCE);
    assert!(output.stderr.is_empty(), "{output:?}");
    mock.asked();
}
