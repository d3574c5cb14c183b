//! The endpoint for metrics and health, and the watchdog, each with the real binary.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixStream},
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    kmsg::{Unlimited, mark, write},
    netns::{Namespace, Pair, root_or_skip},
    peer::Peer,
    scrape::{Answer, Series, read_answer, request},
};
use netconsole_agent::{
    control::status::{Account, Status},
    ledger::LostReason,
    target::state::{State, WaitKind},
};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESS: &str = "127.0.0.1:9774";
const TCP: &str = "capture = \"tracepoint\"\nmetrics = \"127.0.0.1:9774\"";
const TARGETS: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"udp\"\n\
                       max_level = \"info\"\npace = \"off\"\n\
                       [target.far]\nremote = \"198.51.100.1:6666\"\n";

fn connect(namespace: &Namespace) -> TcpStream {
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let stream = namespace.run(|| TcpStream::connect(address).expect("connect"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn get(namespace: &Namespace, path: &str) -> Answer {
    request(connect(namespace), "GET", path).expect("an answer")
}

fn scrape(namespace: &Namespace) -> Series {
    let answer = get(namespace, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(answer.head.contains("application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    Series::read(&answer.body)
}

fn account<'a>(status: &'a Status, name: &str) -> &'a Account {
    let target = status.targets.iter().find(|target| target.name == name);
    &target.expect("the target").account
}

#[test]
fn what_is_scraped_is_what_status_says() {
    if !root_or_skip("what_is_scraped_is_what_status_says") {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let _peer = Peer::start(&pair.right, 6666);
    let mut agent = Agent::start(&pair.left, TCP, TARGETS, 1);
    // Before anything has happened everything is there.
    let fresh = scrape(&pair.left);
    for target in ["peer", "far"] {
        for reason in LostReason::ALL {
            let name = reason.name();
            let lost = format!("records_lost_total{{target=\"{target}\",reason=\"{name}\"}}");
            assert_eq!(fresh.get(&lost), 0.0);
        }
        for kind in WaitKind::ALL {
            let name = kind.name();
            let waits =
                fresh.get(&format!("target_waiting{{target=\"{target}\",reason=\"{name}\"}}"));
            assert_eq!(
                waits == 1.0,
                (target, kind) == ("far", WaitKind::NoRoute),
                "{target} {name}"
            );
        }
        let state = |state: &str| {
            fresh.get(&format!("target_state{{target=\"{target}\",state=\"{state}\"}}"))
        };
        assert_eq!(State::NAMES.map(state).iter().sum::<f64>(), 1.0);
        assert_eq!(state("active"), if target == "peer" { 1.0 } else { 0.0 });
        let since =
            fresh.get(&format!("target_state_since_timestamp_seconds{{target=\"{target}\"}}"));
        assert!(since >= fresh.get("start_time_seconds") - 1.0, "{since}");
    }

    // Known traffic: every fourth record is of a level that `peer` does not want.
    let level = |number| if number % 4 == 0 { 7 } else { 6 };
    let record = |number| format!("<{}>scraped {number}\n", level(number)).into_bytes();
    let records: Vec<_> = (0..400).map(record).collect();
    write(&records, 200);
    let (pair_left, last) = (&pair.left, mark());
    agent.wait(PATIENCE, |status| {
        let account = account(status, "peer");
        account.next_seq - account.queued > last
    });
    // Others may log in between: what is scraped lies between two looks.
    let begin = Instant::now();
    let (before, series, after) = loop {
        let (before, series, after) = (agent.status(), scrape(pair_left), agent.status());
        let still = |name: &str| account(&before, name).next_seq == account(&after, name).next_seq;
        if still("peer") && still("far") {
            break (before, series, after);
        }
        assert!(begin.elapsed() < PATIENCE, "the kernel never stops logging");
    };
    assert!(account(&before, "peer").sent >= 300 && account(&before, "peer").filtered >= 100);
    for name in ["peer", "far"] {
        let account = account(&after, name);
        let value = |metric: &str| series.get(&format!("{metric}{{target=\"{name}\"}}")) as u64;
        assert_eq!(value("records_seen_total"), account.seen, "{name}");
        assert_eq!(value("records_sent_total"), account.sent, "{name}");
        assert_eq!(value("records_filtered_total"), account.filtered, "{name}");
        assert_eq!(value("records_waiting") + value("records_in_flight"), account.queued, "{name}");
        assert_eq!(value("records_approximated_total"), account.approximated, "{name}");
        assert_eq!(value("records_backfilled_total"), account.backfilled, "{name}");
        assert_eq!(value("records_doubled_total"), account.doubled, "{name}");
        assert_eq!(value("packets_total"), account.packets, "{name}");
        assert_eq!(value("messages_sent_total"), account.messages, "{name}");
        assert_eq!(value("ledger_unbalanced_total"), 0, "{name}");
        assert_eq!(account.unbalanced, 0);
        for (reason, count) in &account.lost {
            let lost = format!("records_lost_total{{target=\"{name}\",reason=\"{reason}\"}}");
            assert_eq!(series.get(&lost) as u64, *count, "{name} {reason}");
        }
    }
    assert_eq!(series.get("capture_records_total") as u64, after.capture.captured);
    assert_eq!(series.get("kmsg_records_read_total") as u64, after.capture.kmsg_read);
    assert_eq!(series.get("capture_ring_full_total") as u64, after.capture.ring_full);
    let version = format!("build_info{{version=\"{}\"}}", after.version);
    assert_eq!(series.get(&version), 1.0);
    assert_eq!(series.get("config_generation"), 1.0);
    assert_eq!(series.get("config_last_reload_successful"), 1.0);

    // A configuration that is refused.
    std::fs::write(agent.config(), "nonsense").expect("write");
    assert!(agent.try_command(&["reload"]).is_err());
    assert_eq!(scrape(pair_left).get("config_last_reload_successful"), 0.0);

    // The ledger as a table, and for programs.
    let text = agent.command(&["status", "--ledger"]);
    let account = account(&after, "far");
    for term in ["seen ", "= sent ", "+ lost: backlog ", "backfilled ", "doubled ", "balances"] {
        assert!(text.contains(term), "{text}");
    }
    assert!(text.contains(&format!("far (seq {} to ", account.first_seq)), "{text}");
    let json = agent.command(&["status", "--ledger", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["far"]["first_seq"], account.first_seq, "{json}");
    assert_eq!(json["peer"]["balances"], true, "{json}");

    let log = agent.stop();
    let line = log.lines().find(|line| line.contains("final account") && line.contains("\"peer\""));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for term in ["seen ", "not_captured ", "backfilled ", "doubled ", "; balances"] {
        assert!(line.contains(term), "{line}");
    }
}

#[test]
fn an_outage_is_in_the_histogram() {
    if !root_or_skip("an_outage_is_in_the_histogram") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let mut agent = Agent::start(&pair.left, TCP, TARGETS, 1);
    let series = |name: &str| {
        scrape(&pair.left).get(&format!("target_heal_duration_seconds_{name}{{target=\"peer\"}}"))
    };
    assert_eq!(series("count"), 0.0, "the start is no outage");
    let is = |state: &'static str| {
        move |status: &Status| status.targets.iter().any(|t| t.name == "peer" && t.state == state)
    };
    pair.left.ip("link set left0 down");
    agent.wait(PATIENCE, is("waiting"));
    std::thread::sleep(Duration::from_millis(300));
    pair.left.ip("link set left0 up");
    agent.wait(PATIENCE, is("active"));
    assert_eq!(series("count"), 1.0);
    assert!((0.3..20.0).contains(&series("sum")), "{}", series("sum"));
    // What an operator switches is none.
    agent.command(&["target", "disable", "peer"]);
    agent.wait(PATIENCE, is("disabled"));
    agent.command(&["target", "enable", "peer"]);
    agent.wait(PATIENCE, is("active"));
    // Nor is another way, which an operator asks for.
    agent.rewrite(&TARGETS.replace("192.0.2.2:6666", "192.0.2.2:6667"));
    agent.command(&["reload"]);
    let moved = |status: &Status| {
        let changed = |text: &str| text.contains("its settings were changed");
        let peer = status.targets.iter().find(|target| target.name == "peer");
        peer.is_some_and(|peer| peer.state == "active")
            && status.config_generation == 2
            && changed(&format!("{peer:?}"))
    };
    agent.wait(PATIENCE, moved);
    assert_eq!(series("count"), 1.0);
}

#[test]
fn only_what_there_is_is_answered() {
    if !root_or_skip("only_what_there_is_is_answered") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let agent = Agent::start(&pair.left, TCP, TARGETS, 1);
    assert_eq!(get(&pair.left, "/healthz").body, "ok\n");
    let ready = get(&pair.left, "/readyz");
    assert_eq!(ready.status, 200, "a target without a way does not make it unready");
    assert!(
        ready.body.starts_with("ready: records are captured by tracepoint\n"),
        "{}",
        ready.body
    );
    assert!(ready.body.contains("\npeer: active\nfar: waiting (no_route): "), "{}", ready.body);
    for path in ["/", "/metrics/", "/metrics2", "/..", "//metrics"] {
        assert_eq!(get(&pair.left, path).status, 404, "{path}");
    }
    assert_eq!(get(&pair.left, "/metrics?name=x").status, 200);
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let answer = request(connect(&pair.left), method, "/metrics").expect("an answer");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.to_ascii_lowercase().contains("allow: get"), "{}", answer.head);
    }
    let mut long = connect(&pair.left);
    let header = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(100_000));
    // It may hang up before it has read everything.
    let _ = long.write_all(header.as_bytes());
    assert!(read_answer(long).is_none_or(|answer| (400..500).contains(&answer.status)));
    let mut nonsense = connect(&pair.left);
    nonsense.write_all(b"\x00\xff garbage\r\n\r\n").expect("written");
    assert!(read_answer(nonsense).is_none_or(|answer| answer.status == 400));
    assert_eq!(get(&pair.left, "/healthz").status, 200);
    assert!(!agent.stop().contains("PANIC"));
}

#[test]
fn slow_clients_and_a_thousand_of_them_keep_nobody_out() {
    if !root_or_skip("slow_clients_and_a_thousand_of_them_keep_nobody_out") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let agent = Agent::start(&pair.left, TCP, TARGETS, 1);
    let quick = |what: &str| {
        let begin = Instant::now();
        assert_eq!(agent.status().targets.len(), 2, "{what}");
        let _ = scrape(&pair.left);
        assert!(begin.elapsed() < Duration::from_secs(2), "{what}: {:?}", begin.elapsed());
    };
    let mut slow = connect(&pair.left);
    slow.write_all(b"GET /metr").expect("half a request");
    quick("half a request");
    let mut deaf = connect(&pair.left);
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    quick("one that does not read");

    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("descriptors").count();
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let idle: Vec<_> = pair
        .left
        .run(|| (0..1000).map(|_| TcpStream::connect(address).expect("connect")).collect());
    quick("a thousand that say nothing");
    let now = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("descriptors").count();
    assert!(now <= open + 40, "{now} descriptors after {open}");
    drop(idle);
    for _ in 0..1000 {
        assert_eq!(get(&pair.left, "/healthz").status, 200);
    }
    // The slow ones are sent away by themselves.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    let log = agent.stop();
    assert!(!log.contains("PANIC") && !log.contains("ERROR"), "{log}");
}

#[test]
fn the_unix_socket_is_for_root_and_gone_afterwards() {
    if !root_or_skip("the_unix_socket_is_for_root_and_gone_afterwards") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run/metrics.sock");
    let table = format!("capture = \"kmsg\"\nmetrics = \"unix:{}\"", path.display());
    let mut agent = Agent::start(&pair.left, &table, TARGETS, 1);
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connect = || UnixStream::connect(&path).expect("connect");
    let answer = request(connect(), "GET", "/metrics").expect("an answer");
    assert_eq!(answer.status, 200);
    let series = Series::read(&answer.body);
    assert_eq!(series.get("capture_source_info{source=\"kmsg\",hook=\"none\"}"), 1.0);
    assert_eq!(request(connect(), "GET", "/healthz").expect("an answer").status, 200);
    // It stays where it is until a restart, and a reload says so.
    let text = std::fs::read_to_string(agent.config()).expect("read");
    let other = text.replace("metrics.sock", "other.sock");
    std::fs::write(agent.config(), other).expect("write");
    let said = agent.command(&["reload"]);
    assert!(said.contains("`metrics` of [agent] changes with a restart only"), "{said}");
    agent.wait(PATIENCE, |status| status.config_generation == 2);
    assert_eq!(request(connect(), "GET", "/healthz").expect("an answer").status, 200);
    let _ = agent.stop();
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_costs_the_metrics_and_nothing_else() {
    if !root_or_skip("an_address_that_is_taken_costs_the_metrics_and_nothing_else") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let _taken = pair.left.run(|| std::net::TcpListener::bind(ADDRESS).expect("bind"));
    let agent = Agent::start(&pair.left, TCP, TARGETS, 1);
    let text = agent.command(&["status"]);
    assert!(text.contains("metrics NOT SERVED: cannot listen on 127.0.0.1:9774"), "{text}");
    assert!(agent.stop().contains("Metrics are not served"));
}

/// A path that the agent could not bind is not its own, and at its end it removes nothing there.
#[test]
fn a_path_that_is_taken_is_left_as_it_was() {
    if !root_or_skip("a_path_that_is_taken_is_left_as_it_was") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("somebody.conf");
    std::fs::write(&file, "precious").expect("write");
    let socket = folder.path().join("others.sock");
    let _others = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    for (path, why) in [(&file, "is no socket"), (&socket, "another agent answers")] {
        let table = format!("capture = \"kmsg\"\nmetrics = \"unix:{}\"", path.display());
        let agent = Agent::start(&pair.left, &table, TARGETS, 1);
        let text = agent.command(&["status"]);
        assert!(text.contains("metrics NOT SERVED") && text.contains(why), "{text}");
        let _ = agent.stop();
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"precious");
    UnixStream::connect(&socket).expect("the other one's socket is still there");
}

/// Runs `check` on a configuration.
fn check(folder: &Path, metrics: &str) -> (Option<i32>, String) {
    let config = folder.join("agent.toml");
    let text =
        format!("[agent]\nmetrics = \"{metrics}\"\n[target.x]\nremote = \"192.0.2.2:6666\"\n");
    std::fs::write(&config, text).expect("write");
    let output =
        Command::new(binary()).args(["check", "--offline", "--config"]).arg(config).output();
    let output = output.expect("run check");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_address_that_others_could_reach_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for address in ["0.0.0.0:9774", "[::]:9774", "192.0.2.1:9774"] {
        let (code, said) = check(folder.path(), address);
        assert_eq!(code, Some(78), "{said}");
        for words in ["agent.toml:2:11", "no loopback address", "use \"127.0.0.1:9774\""] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    assert_eq!(check(folder.path(), "127.0.0.1:9774").0, Some(0));
}

/// `promtool check rules`, where there is a promtool.
#[test]
fn the_example_alerts_are_rules() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/alerts.yml");
    match Command::new("promtool").args(["check", "rules"]).arg(rules).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => println!("SKIPPED: the_example_alerts_are_rules: no promtool ({error})"),
    }
}

/// systemd's end of the notification socket.
struct Systemd(UnixDatagram);

impl Systemd {
    /// What the agent says within a time, line by line.
    fn hear(&self, within: Duration) -> Vec<String> {
        let end = Instant::now() + within;
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|t| !t.is_zero()) {
            self.0.set_read_timeout(Some(left)).expect("a timeout");
            let Ok(len) = self.0.recv(&mut buffer) else { continue };
            said.extend(String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned));
        }
        said
    }

    fn signs(&self, within: Duration) -> usize {
        self.hear(within).iter().filter(|line| *line == "WATCHDOG=1").count()
    }
}

/// One thread of the agent, held by ptrace until it is let go.
struct Held(Pid);

impl Held {
    fn new(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the threads");
        let thread = tasks.map(|entry| entry.expect("a thread").path()).find(|path| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
        });
        let thread = thread.unwrap_or_else(|| panic!("no thread {name}"));
        let tid = thread.file_name().and_then(|tid| tid.to_str()).expect("a number");
        let tid = Pid::from_raw(tid.parse().expect("a number"));
        ptrace::seize(tid, ptrace::Options::empty()).expect("seize");
        ptrace::interrupt(tid).expect("interrupt");
        let stopped = waitpid(tid, Some(WaitPidFlag::__WALL)).expect("wait");
        assert!(matches!(stopped, WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _)), "{stopped:?}");
        Self(tid)
    }

    fn let_go(self) {
        ptrace::detach(self.0, None).expect("detach");
    }
}

#[test]
fn the_watchdog_looks_at_the_threads_that_do_the_work() {
    const SECOND: Duration = Duration::from_secs(1);
    if !root_or_skip("the_watchdog_looks_at_the_threads_that_do_the_work") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&path).expect("bind"));
    let socket = path.to_str().expect("UTF-8");
    // A sign every 200 ms.
    let variables = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "400000")];
    let agent = Agent::start_with(&pair.left, TCP, TARGETS, 1, &variables);
    let begin = systemd.hear(2 * SECOND);
    assert_eq!(begin.first().map(String::as_str), Some("READY=1"), "{begin:?}");
    assert!(begin.iter().filter(|line| *line == "WATCHDOG=1").count() >= 5, "{begin:?}");
    for name in ["pump", "kmsg"] {
        let held = Held::new(agent.pid(), name);
        // It may have moved since the last sign, and that one be on its way.
        let _ = systemd.signs(SECOND / 2);
        assert_eq!(systemd.signs(4 * SECOND), 0, "{name} stands still");
        // The rest of the agent lives, and says what is wrong.
        let health = get(&pair.left, "/healthz");
        assert_eq!(health.status, 503, "{}", health.body);
        let words = format!("the {name} thread has made no progress for ");
        assert!(health.body.contains(&words), "{}", health.body);
        let ready = get(&pair.left, "/readyz");
        assert_eq!(ready.status, 503, "{}", ready.body);
        let series = scrape(&pair.left);
        assert_eq!(series.get(&format!("thread_progressing{{thread=\"{name}\"}}")), 0.0);
        held.let_go();
        assert!(systemd.signs(2 * SECOND) >= 5, "{name} moves again");
        let begin = Instant::now();
        while get(&pair.left, "/healthz").status != 200 {
            assert!(begin.elapsed() < PATIENCE, "{name} is not well again");
        }
        let log = agent.log();
        let told = |words: &str| {
            let thread = format!("thread={name:?}");
            log.lines().filter(|line| line.contains(words) && line.contains(&thread)).count()
        };
        assert_eq!(told("A data thread makes no progress"), 1, "{log}");
        assert_eq!(told("makes progress again"), 1, "{log}");
    }
    let _ = agent.stop();
    assert!(systemd.hear(SECOND / 10).iter().any(|line| line == "STOPPING=1"));
}

#[test]
fn without_a_watchdog_no_sign_is_given() {
    if !root_or_skip("without_a_watchdog_no_sign_is_given") {
        return;
    }
    let pair = Pair::new();
    let _peer = Peer::start(&pair.right, 6666);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&path).expect("bind"));
    let variables = [("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))];
    let agent = Agent::start_with(&pair.left, "", TARGETS, 1, &variables);
    assert_eq!(systemd.hear(Duration::from_secs(2)), ["READY=1"]);
    let _ = agent.stop();
}
