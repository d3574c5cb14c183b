//! `netconsole-agent doctor` in namespaces: what is in the way is found, told in words with its
//! remedy, and is not there where all is well. Each test brings about one fault.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use agent_tests::{
    agent::{Agent, binary},
    netns::{Namespace, Pair, root_or_skip},
};
use serde::Deserialize;

const OK: i32 = 0;
const FAILED: i32 = 1;
const TARGET: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\n";

/// A line of the report, as `--json` has it. Nothing is left out, nothing is added.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    area: String,
    object: String,
    level: String,
    finding: String,
    remedy: Option<String>,
}

struct Report {
    code: i32,
    lines: Vec<Line>,
}

impl Report {
    fn find(&self, area: &str, object: &str) -> Vec<&Line> {
        let wanted = |line: &&Line| line.area == area && line.object == object;
        self.lines.iter().filter(wanted).collect()
    }

    /// Some line of `object` has the level, and the words in its finding or remedy.
    #[track_caller]
    fn expect(&self, area: &str, object: &str, level: &str, words: &[&str]) {
        let found = self.find(area, object);
        let fits = found.iter().any(|line| {
            let text = format!("{} -> {}", line.finding, line.remedy.as_deref().unwrap_or(""));
            line.level == level && words.iter().all(|word| text.contains(word))
        });
        assert!(fits, "no {level} line of {object} with {words:?} in {found:#?}\nall:\n{self}");
    }

    #[track_caller]
    fn expect_code(&self, code: i32) {
        assert_eq!(self.code, code, "{self}");
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Line { area, object, level, finding, remedy } in &self.lines {
            writeln!(f, "{area}: {level} {object}: {finding} -> {remedy:?}")?;
        }
        Ok(())
    }
}

/// A configuration in a folder of its own.
struct Doctor {
    folder: tempfile::TempDir,
    /// Put before the command, such as `setpriv`.
    prefix: Vec<String>,
}

impl Doctor {
    fn new(targets: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let doctor = Self { folder, prefix: Vec::new() };
        let socket = doctor.folder.path().join("none.sock");
        doctor.write(&format!("[agent]\ncontrol_socket = {socket:?}\n{targets}"));
        doctor
    }

    fn write(&self, text: &str) {
        std::fs::write(self.config(), text).expect("write the configuration");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    /// With other privileges than those of the tests. Everybody may read the configuration.
    fn with(mut self, prefix: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        self.prefix = prefix.split_whitespace().map(str::to_owned).collect();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.folder.path(), everybody).expect("open the folder");
        self
    }

    /// `ip netns exec` shows the namespace's own `/sys`.
    fn command(&self, namespace: &Namespace) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace.name()]).args(&self.prefix);
        command.arg(binary()).arg("doctor").arg("--config").arg(self.config());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it for programs and for people, and checks what holds for every report.
    #[track_caller]
    fn run(&self, namespace: &Namespace) -> Report {
        let output = self.command(namespace).arg("--json").output().expect("run doctor");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        let lines: Vec<Line> = serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{error} in\n{out}\nstderr:\n{err}"));
        assert_eq!(err, "");
        let report = Report { code: output.status.code().expect("a code, no signal"), lines };
        for line in &report.lines {
            assert_eq!(line.remedy.is_none(), line.level == "ok", "{line:?}");
            let remedy = line.remedy.as_deref().unwrap_or("none needed");
            assert!(remedy.split(' ').count() > 1, "words, not {line:?}");
            // What the system said never stands alone.
            assert!(!line.finding.starts_with("Unknown error"), "{line:?}");
            assert!(line.level == "ok" || line.finding.split(' ').count() > 3, "{line:?}");
        }
        let failed = report.lines.iter().any(|line| line.level == "fail");
        report.expect_code(if failed { FAILED } else { OK });
        report
    }
}

const PEER: &str = "target peer";

#[test]
fn a_healthy_target_has_no_failure() {
    if !root_or_skip("a_healthy_target_has_no_failure") {
        return;
    }
    let pair = Pair::new();
    let doctor = Doctor::new(TARGET);
    let report = doctor.run(&pair.left);
    report.expect_code(OK);
    for line in report.lines.iter().filter(|line| line.area == PEER) {
        assert_eq!(line.level, "ok", "{line:?}");
    }
    report.expect("host", "kernel", "ok", &["Linux"]);
    report.expect("host", "agent", "ok", &["none runs"]);
    report.expect("host", "/dev/kmsg", "ok", &[]);
    report.expect("host", "source", "ok", &["auto takes"]);
    report.expect(PEER, "device", "ok", &["left0", "veth", "up"]);
    report.expect(PEER, "route", "ok", &["by left0, on the link"]);
    report.expect(PEER, "source", "ok", &["192.0.2.1"]);
    report.expect(PEER, "next hop", "ok", &["192.0.2.2 is 02:00:00:00:00:02", "ago"]);
    report.expect(PEER, "queue", "ok", &["queue 0 of 1"]);
    report.expect(PEER, "mtu", "ok", &["1500"]);
    report.expect(PEER, "egress", "ok", &["xdp", "queue 0 could be bound"]);
    report.expect(PEER, "netpoll", "ok", &["netconsole"]);
    assert_eq!(report.find(PEER, "wrong port").len(), 0);

    // For people: the same, under headings, in columns, at most 100 wide.
    let output = doctor.command(&pair.left).output().expect("run doctor");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let headings: Vec<_> =
        text.lines().filter(|line| line.starts_with(char::is_alphabetic)).collect();
    assert_eq!(headings, ["host", PEER], "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let shown = text.lines().filter(|line| {
        ["  ok  ", "  warn  ", "  fail  "].iter().any(|level| line.starts_with(level))
    });
    assert_eq!(shown.count(), report.lines.len(), "{text}");
}

#[test]
fn nothing_is_left_behind() {
    if !root_or_skip("nothing_is_left_behind") {
        return;
    }
    let pair = Pair::new();
    let state = || {
        let show = |what: &[&str]| {
            let arguments = [&["-n", pair.left.name()], what].concat();
            Command::new("ip").args(arguments).output().expect("run ip").stdout
        };
        (show(&["link"]), show(&["addr"]), show(&["route", "show", "table", "all"]))
    };
    let doctor = Doctor::new(TARGET);
    // Carrier and duplicate address detection settle by themselves.
    let (mut before, mut since) = (state(), std::time::Instant::now());
    while since.elapsed() < std::time::Duration::from_secs(3) {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = state();
        if now != before {
            (before, since) = (now, std::time::Instant::now());
        }
    }
    doctor.run(&pair.left).expect_code(OK);
    // The queue is free again at once, too.
    doctor.run(&pair.left).expect(PEER, "egress", "ok", &["could be bound"]);
    assert_eq!(state(), before);
}

#[test]
fn a_device_that_is_down_is_found() {
    if !root_or_skip("a_device_that_is_down_is_found") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link set left0 down");
    let named = Doctor::new(&format!("{TARGET}device = \"left0\"\n")).run(&pair.left);
    named.expect_code(FAILED);
    named.expect(PEER, "device", "fail", &["left0", "is down", "ip link set left0 up"]);
    // Without a device of its own the target only lacks a route.
    let by_route = Doctor::new(TARGET).run(&pair.left);
    by_route.expect(PEER, "route", "fail", &["no routing table has an entry", "add a route"]);
}

#[test]
fn a_lost_carrier_is_found() {
    if !root_or_skip("a_lost_carrier_is_found") {
        return;
    }
    let pair = Pair::new();
    pair.right.ip("link set right0 down");
    let report = Doctor::new(&format!("{TARGET}device = \"left0\"\n")).run(&pair.left);
    report.expect_code(FAILED);
    report.expect(PEER, "device", "fail", &["left0", "no carrier", "cable"]);
}

#[test]
fn a_missing_device_and_a_missing_route_are_found() {
    if !root_or_skip("a_missing_device_and_a_missing_route_are_found") {
        return;
    }
    let pair = Pair::new();
    let targets = format!(
        "{TARGET}device = \"left9\"\n[target.far]\nremote = \"198.51.100.7:6666\"\n\
         [target.black]\nremote = \"203.0.113.7:6666\"\n"
    );
    pair.left.ip("route add blackhole 203.0.113.0/24");
    let report = Doctor::new(&targets).run(&pair.left);
    report.expect_code(FAILED);
    report.expect(PEER, "device", "fail", &["left9", "does not exist", "correct `device`"]);
    report.expect("target far", "route", "fail", &["no routing table has an entry", "add a route"]);
    report.expect("target black", "route", "fail", &["blackhole"]);
}

#[test]
fn a_silent_neighbour_is_found() {
    if !root_or_skip("a_silent_neighbour_is_found") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("route add 198.51.100.0/24 via 192.0.2.78");
    let targets = "[target.peer]\nremote = \"192.0.2.77:6666\"\n\
                   [target.far]\nremote = \"198.51.100.7:6666\"\n";
    let report = Doctor::new(targets).run(&pair.left);
    report.expect_code(FAILED);
    let words = ["192.0.2.77 on left0", "no answer", "check that host and its VLAN"];
    report.expect(PEER, "next hop", "fail", &words);
    // Of a remote behind a router it is the router that is silent.
    report.expect("target far", "next hop", "fail", &["192.0.2.78 on left0"]);
}

#[test]
fn the_wrong_port_is_found() {
    if !root_or_skip("the_wrong_port_is_found") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link add other0 type veth peer name other1");
    pair.left.ip("link set other1 up");
    pair.left.ip("link set other0 up");
    pair.left.ip("addr add 203.0.113.1/24 dev other0");
    let report = Doctor::new(&format!("{TARGET}device = \"other0\"\n")).run(&pair.left);
    report.expect_code(FAILED);
    let words = ["device = \"other0\"", "leaves by left0", "\"auto\" or \"left0\""];
    report.expect(PEER, "wrong port", "warn", &words);
    report.expect(PEER, "next hop", "fail", &["192.0.2.2 on other0", "no answer"]);
}

#[test]
fn a_wrong_static_mac_is_found() {
    if !root_or_skip("a_wrong_static_mac_is_found") {
        return;
    }
    let pair = Pair::new();
    let with = |mac: &str| Doctor::new(&format!("{TARGET}remote_mac = \"{mac}\"\n"));
    let report = with("02:00:00:00:00:99").run(&pair.left);
    report.expect(PEER, "next hop", "ok", &["02:00:00:00:00:99", "no entry"]);
    pair.left.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev left0 nud reachable");
    let report = with("02:00:00:00:00:99").run(&pair.left);
    let words = ["02:00:00:00:00:99", "neighbour table has 02:00:00:00:00:02", "`remote_mac`"];
    report.expect(PEER, "next hop", "warn", &words);
    let report = with("02:00:00:00:00:02").run(&pair.left);
    report.expect(PEER, "next hop", "ok", &["as configured and in the neighbour table"]);
}

#[test]
fn a_queue_that_does_not_exist_is_found() {
    if !root_or_skip("a_queue_that_does_not_exist_is_found") {
        return;
    }
    let pair = Pair::new();
    let doctor = Doctor::new(&format!("{TARGET}queue = 9\negress = \"xdp\"\n"));
    let report = doctor.run(&pair.left);
    report.expect_code(FAILED);
    report.expect(PEER, "queue", "fail", &["queue 9 does not exist", "left0 has 1", "queue = 0"]);
    report.expect(PEER, "egress", "fail", &["queue 9", "Invalid argument", "no such queue"]);
    // `auto` does without AF_XDP then.
    let report = Doctor::new(&format!("{TARGET}queue = 9\n")).run(&pair.left);
    report.expect_code(OK);
    report.expect(PEER, "queue", "warn", &["queue 9 does not exist"]);
    report.expect(PEER, "egress", "warn", &["auto takes udp", "Invalid argument"]);
}

#[test]
fn a_small_mtu_is_found() {
    if !root_or_skip("a_small_mtu_is_found") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link set left0 mtu 1000");
    let report = Doctor::new(TARGET).run(&pair.left);
    report.expect_code(OK);
    report.expect(PEER, "mtu", "warn", &["1000 bytes", "too_long", "raise the MTU of left0"]);
}

#[test]
fn what_frames_pass_by_is_found() {
    if !root_or_skip("what_frames_pass_by_is_found") {
        return;
    }
    let pair = Pair::new();
    let status = Command::new("tc")
        .args(["-n", pair.left.name(), "qdisc", "add", "dev", "left0", "root", "tbf"])
        .args(["rate", "100mbit", "burst", "64kb", "latency", "50ms"])
        .status()
        .expect("run tc");
    assert!(status.success(), "tc: this kernel lacks the qdisc tbf");
    let report = Doctor::new(TARGET).run(&pair.left);
    report.expect_code(OK);
    report.expect(PEER, "bypassed", "warn", &["qdisc tbf on left0", "egress = \"udp\""]);
    let report = Doctor::new(&format!("{TARGET}egress = \"udp\"\n")).run(&pair.left);
    assert_eq!(report.find(PEER, "bypassed").len(), 0, "{report}");
}

#[test]
fn a_missing_capability_is_found() {
    if !root_or_skip("a_missing_capability_is_found") {
        return;
    }
    let pair = Pair::new();
    let without = |capability: &str, targets: &str| {
        let prefix = format!("setpriv --bounding-set -{capability} --inh-caps -{capability}");
        Doctor::new(targets).with(&prefix).run(&pair.left)
    };
    let xdp = format!("{TARGET}egress = \"xdp\"\n");
    let report = without("net_raw", &xdp);
    report.expect_code(FAILED);
    report.expect("host", "capabilities", "warn", &["missing: CAP_NET_RAW", "AF_XDP"]);
    report.expect(PEER, "egress", "fail", &["AF_XDP on left0", "not permitted", "CAP_NET_RAW"]);
    // UDP needs none.
    let report = without("net_raw", TARGET);
    report.expect_code(OK);
    report.expect(PEER, "egress", "warn", &["auto takes udp", "CAP_NET_RAW"]);
    let restricted = std::fs::read_to_string("/proc/sys/kernel/dmesg_restrict");
    if restricted.is_ok_and(|value| value.trim() == "1") {
        let prefix = "setpriv --bounding-set -syslog,-sys_admin --inh-caps -syslog,-sys_admin";
        let report = Doctor::new(TARGET).with(prefix).run(&pair.left);
        report.expect_code(FAILED);
        report.expect("host", "/dev/kmsg", "fail", &["CAP_SYSLOG"]);
        report.expect("host", "source", "fail", &["none"]);
    }
}

#[test]
fn an_ordinary_user_is_told_what_could_not_be_looked_at() {
    if !root_or_skip("an_ordinary_user_is_told_what_could_not_be_looked_at") {
        return;
    }
    let pair = Pair::new();
    // The binary may lie where only root may look.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("netconsole-agent");
    std::fs::copy(binary(), &copy).expect("copy the binary");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let doctor = Doctor::new(TARGET).with(nobody);
    let permissions = std::fs::metadata(doctor.folder.path()).expect("the folder").permissions();
    std::fs::set_permissions(folder.path(), permissions).expect("open the folder");
    let report = {
        let output = Command::new("ip")
            .args(["netns", "exec", pair.left.name()])
            .args(&doctor.prefix)
            .arg(&copy)
            .args(["doctor", "--json", "--config"])
            .arg(doctor.config())
            .output()
            .expect("run doctor");
        let lines = serde_json::from_slice(&output.stdout).expect("JSON");
        Report { code: output.status.code().expect("a code"), lines }
    };
    report.expect_code(OK);
    report.expect("host", "hooks", "warn", &["not looked at", "CAP_BPF", "run doctor as root"]);
    report.expect("host", "source", "warn", &["not known", "run doctor as root"]);
    report.expect("host", "capabilities", "warn", &["missing: CAP_PERFMON", "root"]);
    report.expect(PEER, "route", "ok", &["left0"]);
    report.expect(PEER, "device", "ok", &["left0"]);
    report.expect(PEER, "next hop", "warn", &["192.0.2.2", "CAP_NET_ADMIN", "root"]);
    report.expect(PEER, "egress", "warn", &["not tried", "CAP_NET_RAW", "root"]);
    assert!(report.lines.iter().all(|line| line.level != "fail"), "{report}");
}

#[test]
fn a_running_agent_is_asked_instead_of_disturbed() {
    if !root_or_skip("a_running_agent_is_asked_instead_of_disturbed") {
        return;
    }
    let pair = Pair::new();
    let targets = format!("{TARGET}egress = \"xdp\"\n");
    let mut agent = Agent::start(&pair.left, "", &targets, 1);
    let doctor = Doctor::new("");
    doctor.write(&format!("[agent]\ncontrol_socket = {:?}\n{targets}", agent.socket()));
    let report = doctor.run(&pair.left);
    report.expect_code(OK);
    let pid = format!("pid {}", agent.pid());
    report.expect("host", "agent", "ok", &[&pid, "1 of 1 targets send"]);
    report.expect(PEER, "agent", "ok", &[&pid, "active, by xdp"]);
    report.expect(PEER, "egress", "ok", &["held by the running agent itself", &pid]);
    report.expect("host", "source", "ok", &[]);
    // It goes on as if nothing had been.
    let status = agent.wait(Duration::from_secs(5), |status| status.targets[0].state == "active");
    assert!(status.targets[0].account.balances, "{}", status.to_text());
    // Who does not know of the agent finds the queue busy, and says what that means.
    let report = Doctor::new(&targets).run(&pair.left);
    report.expect_code(FAILED);
    report.expect(PEER, "egress", "fail", &["busy", "another program holds this queue"]);
    // An agent in another network namespace holds nothing here.
    let report = doctor.run(&pair.right);
    report.expect("host", "agent", "warn", &["another network namespace", "nsenter"]);
    assert!(agent.stop().contains("final account"));
}

#[test]
fn a_bad_configuration_is_78_and_none_is_the_host_alone() {
    let doctor = Doctor::new("[target.a]\nremote = \"nowhere\n");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).arg("doctor").args(arguments).output();
        let output = output.expect("run doctor");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
    };
    let config = doctor.config().display().to_string();
    let (code, out, err) = run(&["--config", &config]);
    assert_eq!((code, out.as_str()), (78, ""), "{err}");
    assert!(err.contains(&config), "{err}");
    let (code, _, err) = run(&["--config", "/nonexistent/agent.toml"]);
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("/nonexistent/agent.toml"), "{err}");
    let (code, _, _) = run(&["--nonsense"]);
    assert_eq!(code, 2);
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("Example:") && out.contains("--json"), "{out}");
    if std::path::Path::new("/etc/netconsole-agent/agent.toml").exists() {
        println!("SKIPPED in part: this host has a configuration");
        return;
    }
    let (_, out, err) = run(&["--json"]);
    let lines: Vec<Line> =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert!(lines.iter().all(|line| line.area == "host"), "{lines:?}");
    let line = lines.iter().find(|line| line.object == "configuration").expect("a line about it");
    assert_eq!(line.level, "warn");
    assert!(line.finding.contains("only the host was looked at"), "{line:?}");
}
