//! `netconsole-agent doctor` in namespaces: what is in the way is found, told in words with its
//! remedy, and is not there where all is well. Each test brings about one fault.

use std::{
    collections::BTreeSet,
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    dns::{DnsServer, Manner, resolving_with},
    netns::{Namespace, Pair, RIGHT_V4, root_or_skip},
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
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
        // Only what keeps a target from working is a failure: something on its way, or that nothing
        // can be captured, which keeps all of them from it.
        let failures = || report.lines.iter().filter(|line| line.level == "fail");
        for line in failures().filter(|line| line.area == "host") {
            assert!(["/dev/kmsg", "source"].contains(&line.object.as_str()), "{line:?}");
        }
        let failed = failures().next().is_some();
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
    let show = |what: &str| {
        let mut command = Command::new("ip");
        command.args(["-n", pair.left.name()]).args(what.split_whitespace());
        String::from_utf8(command.output().expect("run ip").stdout).expect("UTF-8")
    };
    let state = || ["link", "addr", "route show table all", "rule", "qdisc"].map(show);
    let neighbours = || -> BTreeSet<String> {
        let addresses = show("neigh show nud all");
        let unicast = addresses.lines().filter(|line| !line.contains("NOARP"));
        unicast.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let newest_program = || programs().last().copied().unwrap_or(0);
    let doctor = Doctor::new(TARGET);
    // Carrier and duplicate address detection settle by themselves.
    let (mut before, mut since) = (state(), Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(100));
        let now = state();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
    let known = neighbours();
    let oldest = newest_program();
    let report = doctor.run(&pair.left);
    report.expect_code(OK);
    assert!(report.lines.iter().any(|line| line.finding.contains("attaches to")), "{report}");
    // The queue is free again at once, too.
    doctor.run(&pair.left).expect(PEER, "egress", "ok", &["could be bound"]);
    let newest = newest_program();
    assert_eq!(state(), before);
    // The kernel learned the next hop's MAC; nobody is asked for anything else.
    let learned: Vec<String> = neighbours().difference(&known).cloned().collect();
    assert_eq!(learned, [RIGHT_V4.to_string()]);
    // Whatever was loaded meanwhile goes: what agents of other tests have ends with these.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left: Vec<u32> =
            programs().into_iter().filter(|id| (oldest + 1..=newest).contains(id)).collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "programs {left:?} are still loaded");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ids of the loaded eBPF programs, in ascending order.
fn programs() -> Vec<u32> {
    let loaded = aya::programs::loaded_programs();
    // One may go in between.
    loaded.filter_map(|program| Some(program.ok()?.id())).collect()
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
    // AF_PACKET needs no queue; its frames pass by the same things.
    report.expect(PEER, "egress", "warn", &["auto takes packet", "xdp: ", "Invalid argument"]);
    assert_eq!(report.find(PEER, "bypassed").len(), 1, "{report}");
}

/// What doctor says that `auto` takes, the agent takes.
#[test]
fn auto_is_told_as_the_agent_does_it() {
    if !root_or_skip("auto_is_told_as_the_agent_does_it") {
        return;
    }
    let pair = Pair::new();
    let targets = format!("{TARGET}queue = 9\n");
    let said = Doctor::new(&targets).run(&pair.left);
    said.expect(PEER, "egress", "warn", &["auto takes packet"]);
    let agent = Agent::start(&pair.left, "", &targets, 1);
    let kind = agent.view().target("peer").egress.as_ref().map(|egress| egress.kind.clone());
    assert_eq!(kind.as_deref(), Some("packet"), "{}", agent.log());
    assert!(agent.stop().contains("final account"));
}

#[test]
fn a_configured_packet_socket_is_tried() {
    if !root_or_skip("a_configured_packet_socket_is_tried") {
        return;
    }
    let pair = Pair::new();
    let packet = format!("{TARGET}egress = \"packet\"\n");
    let report = Doctor::new(&packet).run(&pair.left);
    report.expect_code(OK);
    report.expect(PEER, "egress", "ok", &["packet (configured)", "a socket could be opened"]);
    report.expect(PEER, "bypassed", "ok", &[]);
    assert_eq!(report.find(PEER, "queue").len(), 0, "{report}");
    // There is no frame to this host itself.
    let here = "[target.peer]\nremote = \"192.0.2.1:6666\"\negress = \"packet\"\n";
    let report = Doctor::new(here).run(&pair.left);
    report.expect_code(FAILED);
    report.expect(PEER, "egress", "fail", &["the remote is this host", "`udp` or `auto`"]);
}

/// A device that is named by its MAC or by another of its names is one like any other.
#[test]
fn a_device_is_known_by_whatever_it_is_called() {
    if !root_or_skip("a_device_is_known_by_whatever_it_is_called") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link property add dev left0 altname peer-port");
    pair.left.ip("link add other0 address 02:00:00:00:00:21 type veth peer name other1");
    pair.left.ip("link set other1 up");
    pair.left.ip("link set other0 up");
    pair.left.ip("addr add 203.0.113.1/24 dev other0");
    let of = |device: &str, rest: &str| {
        Doctor::new(&format!("{TARGET}device = \"{device}\"\n{rest}")).run(&pair.left)
    };
    for device in ["peer-port", "02:00:00:00:00:01"] {
        for egress in ["xdp", "packet", "udp"] {
            let report = of(device, &format!("egress = \"{egress}\"\n"));
            report.expect_code(OK);
            report.expect(PEER, "device", "ok", &["left0", "up"]);
            report.expect(PEER, "egress", "ok", &[egress, "could be"]);
            assert_eq!(report.find(PEER, "wrong port").len(), 0, "{report}");
        }
    }
    let report = of("02:00:00:00:00:21", "");
    report.expect_code(FAILED);
    report.expect(PEER, "wrong port", "warn", &["02:00:00:00:00:21", "leaves by left0"]);
    // Also where the resolver does not come as far as that.
    pair.left.ip("link set other0 down");
    let report = of("02:00:00:00:00:21", "");
    report.expect(PEER, "device", "fail", &["other0", "is down"]);
    report.expect(PEER, "wrong port", "warn", &["leaves by left0"]);
    pair.left.ip("link set left0 down");
    let report = of("peer-port", "");
    report.expect(PEER, "device", "fail", &["left0", "is down"]);
    assert_eq!(report.find(PEER, "wrong port").len(), 0, "{report}");
    let report = of("02:00:00:00:00:77", "");
    report.expect(PEER, "device", "fail", &["02:00:00:00:00:77", "does not exist"]);
}

/// By which device a group is reached is up to the sender.
#[test]
fn a_group_has_no_wrong_port() {
    if !root_or_skip("a_group_has_no_wrong_port") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link add other0 type veth peer name other1");
    pair.left.ip("link set other1 up");
    pair.left.ip("link set other0 up");
    pair.left.ip("addr add 203.0.113.1/24 dev other0");
    let of = |remote: &str| {
        let target = format!("[target.peer]\nremote = \"{remote}\"\ndevice = \"other0\"\n");
        Doctor::new(&target).run(&pair.left)
    };
    for route in ["", "route add 224.0.0.0/4 dev left0", "link set other0 down"] {
        if !route.is_empty() {
            pair.left.ip(route);
        }
        let report = of("239.1.2.3:6666");
        assert_eq!(report.find(PEER, "wrong port").len(), 0, "{route}: {report}");
        if route.starts_with("link") {
            report.expect(PEER, "device", "fail", &["other0", "is down"]);
        } else {
            report.expect_code(OK);
            report.expect(PEER, "next hop", "ok", &["01:00:5e:01:02:03", "multicast"]);
        }
    }
    pair.left.ip("link set other0 up");
    // Nothing leads to this one, so it is taken to be on the device's link.
    let report = of("198.51.100.7:6666");
    report.expect(PEER, "next hop", "fail", &["198.51.100.7 on other0"]);
    pair.left.ip("neigh replace 198.51.100.7 lladdr 02:00:00:00:00:22 dev other0");
    let report = of("198.51.100.7:6666");
    report.expect_code(OK);
    report.expect(PEER, "wrong port", "warn", &["no route leads", "on the link of other0"]);
}

#[test]
fn a_name_is_looked_up_and_all_its_addresses_are_tried() {
    if !root_or_skip("a_name_is_looked_up_and_all_its_addresses_are_tried") {
        return;
    }
    let pair = Pair::new();
    let server = DnsServer::start(&pair.right, RIGHT_V4.into());
    let run = |name: &str, rest: &str| {
        let doctor = Doctor::new(&format!("[target.peer]\nremote = \"{name}:6666\"\n{rest}"));
        let resolv_conf = doctor.folder.path().join("resolv.conf");
        let text = "nameserver 192.0.2.2\noptions timeout:1 attempts:1\n";
        std::fs::write(&resolv_conf, text).expect("write resolv.conf");
        let prefix = resolving_with(&resolv_conf);
        Doctor { prefix, ..doctor }.run(&pair.left)
    };
    server.set("fleet.test", &[("192.0.2.2", 60)]);
    // The kernel notices the carrier up to a second later, and drops until then.
    let deadline = Instant::now() + Duration::from_secs(10);
    while run("fleet.test", "").code != OK {
        assert!(Instant::now() < deadline, "{}", run("fleet.test", ""));
    }
    let report = run("fleet.test", "");
    report.expect(PEER, "remote", "ok", &["192.0.2.2:6666, address of fleet.test"]);
    report.expect(PEER, "egress", "ok", &["xdp", "could be bound"]);
    // The first one has no route, the second is silent, as the agent finds out, too.
    let addresses =
        [("198.51.100.7", 60), ("192.0.2.77", 60), ("192.0.2.2", 60), ("2001:db8::2", 60)];
    server.set("fleet.test", &addresses);
    let report = run("fleet.test", "");
    report.expect_code(OK);
    let words = ["192.0.2.2:6666", "passed over", "198.51.100.7 (", "192.0.2.77 ("];
    report.expect(PEER, "remote", "ok", &words);
    report.expect(PEER, "next hop", "ok", &["192.0.2.2 is 02:00:00:00:00:02"]);
    // `local` says which version counts.
    let v6 = "local = \"[2001:db8::1]:6665\"\n";
    // The device's own link-local address is being checked for duplicates at first.
    let deadline = Instant::now() + Duration::from_secs(10);
    while run("fleet.test", v6).code != OK && Instant::now() < deadline {}
    let report = run("fleet.test", v6);
    report.expect_code(OK);
    report.expect(PEER, "remote", "ok", &["[2001:db8::2]:6666, address of fleet.test"]);
    server.set("fleet.test", &addresses[..3]);
    let report = run("fleet.test", v6);
    report.expect_code(FAILED);
    report.expect(PEER, "name", "fail", &["has no IPv6 address", "change `local`"]);
    // Without any way the first one is told of.
    server.set("fleet.test", &addresses[..1]);
    let report = run("fleet.test", "");
    report.expect(PEER, "route", "fail", &["198.51.100.7", "add a route"]);
    // Each failure of a name comes with its own remedy.
    let report = run("missing.test", "");
    report.expect_code(FAILED);
    report.expect(PEER, "name", "fail", &["NXDOMAIN", "correct `remote`"]);
    server.behave(Manner::Silent);
    let report = run("fleet.test", "");
    report.expect(PEER, "name", "fail", &["no DNS server answered", "port 53"]);
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
fn a_qdisc_for_what_comes_in_is_passed_by_by_nothing() {
    if !root_or_skip("a_qdisc_for_what_comes_in_is_passed_by_by_nothing") {
        return;
    }
    let pair = Pair::new();
    let tc = |arguments: &str| {
        let mut command = Command::new("tc");
        command.args(["-n", pair.left.name()]).args(arguments.split_whitespace());
        let output = command.output().expect("run tc");
        assert!(output.status.success(), "tc {arguments}: {output:?}");
    };
    for kind in ["ingress", "clsact"] {
        tc(&format!("qdisc add dev left0 {kind}"));
        Doctor::new(TARGET).run(&pair.left).expect(
            PEER,
            "bypassed",
            "ok",
            &["no configured qdisc"],
        );
        tc(&format!("qdisc del dev left0 {kind}"));
    }
    // With a filter for what goes out it is something else.
    tc("qdisc add dev left0 clsact");
    tc("filter add dev left0 egress protocol all u32 match u32 0 0 flowid :1");
    Doctor::new(TARGET).run(&pair.left).expect(
        PEER,
        "bypassed",
        "warn",
        &["qdisc clsact on left0"],
    );
}

/// Makes an nftables chain for what this host sends, with `policy` (`NF_DROP`, `NF_ACCEPT`), as
/// `nft` would: a batch of a table and a chain (`include/uapi/linux/netfilter/nf_tables.h`).
fn add_output_chain(namespace: &Namespace, name: &str, policy: u32) {
    const NFTABLES: u16 = 10;
    const REQUEST_ACK_CREATE: u16 = 0x1 | 0x4 | 0x400;
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
    fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + attributes.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and port; then `struct nfgenmsg`.
        bytes.extend([0; 8]);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        bytes.extend(attributes);
        bytes
    }
    let text = |text: &str| [text.as_bytes(), b"\0"].concat();
    let (inet, new_table, new_chain) = (1, NFTABLES << 8, NFTABLES << 8 | 3);
    // `NF_INET_LOCAL_OUT`, priority 0.
    let hook = [attribute(1, &3u32.to_be_bytes()), attribute(2, &0u32.to_be_bytes())].concat();
    let chain = [
        attribute(1, &text("doctor")),
        attribute(3, &text(name)),
        attribute(4 | 0x8000, &hook),
        attribute(5, &policy.to_be_bytes()),
        attribute(7, &text("filter")),
    ];
    let batch = [
        message(0x10, 1, 0, NFTABLES, &[]),
        message(new_table, 0x401, inet, 0, &attribute(1, &text("doctor"))),
        message(new_chain, REQUEST_ACK_CREATE, inet, 0, &chain.concat()),
        message(0x11, 1, 0, NFTABLES, &[]),
    ];
    let answer = namespace.run(|| {
        let kind = SockType::Raw;
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, kind, SockFlag::empty(), protocol);
        let socket = socket.expect("a netlink socket");
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &batch.concat(), &kernel, MsgFlags::empty())
            .expect("send the batch");
        let mut answer = [0; 64];
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        answer
    });
    // `NLMSG_ERROR` with an error of 0.
    assert_eq!(answer[4..6], 2u16.to_ne_bytes(), "{answer:?}");
    let errno = -i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
    assert_eq!(errno, 0, "{}", std::io::Error::from_raw_os_error(errno));
}

#[test]
fn a_firewall_that_frames_pass_by_is_found() {
    if !root_or_skip("a_firewall_that_frames_pass_by_is_found") {
        return;
    }
    let pair = Pair::new();
    add_output_chain(&pair.left, "idle", 1);
    let report = Doctor::new(TARGET).run(&pair.left);
    report.expect(PEER, "bypassed", "ok", &["no output rule"]);
    add_output_chain(&pair.left, "strict", 0);
    for egress in ["xdp", "packet"] {
        let report = Doctor::new(&format!("{TARGET}egress = \"{egress}\"\n")).run(&pair.left);
        report.expect_code(OK);
        report.expect(
            PEER,
            "bypassed",
            "warn",
            &["nftables inet doctor strict", "egress = \"udp\""],
        );
        assert!(!report.to_string().contains("doctor idle"), "{report}");
    }
}

/// Warnings are none of the exit code's business, nor is a target that works that of another.
#[test]
fn the_exit_code_tells_whether_a_target_cannot_work() {
    if !root_or_skip("the_exit_code_tells_whether_a_target_cannot_work") {
        return;
    }
    let pair = Pair::new();
    pair.left.ip("link set left0 mtu 1000");
    let works = format!("{TARGET}queue = 9\nremote_mac = \"02:00:00:00:00:99\"\n");
    let report = Doctor::new(&works).run(&pair.left);
    report.expect_code(OK);
    let warned = report.lines.iter().filter(|line| line.area == PEER && line.level == "warn");
    assert!(warned.count() >= 3, "{report}");
    let fails = "[target.far]\nremote = \"198.51.100.7:6666\"\n";
    let report = Doctor::new(&[&works, fails].concat()).run(&pair.left);
    report.expect_code(FAILED);
    assert!(
        report
            .lines
            .iter()
            .filter(|line| line.level == "fail")
            .all(|line| line.area == "target far")
    );
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
}

/// `kernel.dmesg_restrict` is on, and as before on drop: so many other tests may run meanwhile.
struct Restricted {
    before: String,
}

impl Restricted {
    const PATH: &str = "/proc/sys/kernel/dmesg_restrict";

    fn new() -> Self {
        let before = std::fs::read_to_string(Self::PATH).expect("read the sysctl");
        std::fs::write(Self::PATH, "1\n").expect("set the sysctl");
        Self { before }
    }
}

impl Drop for Restricted {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::PATH, &self.before);
    }
}

/// Then no target can work, so that is a failure, too.
#[test]
fn a_kernel_log_that_may_not_be_read_is_found() {
    if !root_or_skip("a_kernel_log_that_may_not_be_read_is_found") {
        return;
    }
    let pair = Pair::new();
    let _restricted = Restricted::new();
    let prefix = "setpriv --bounding-set -syslog,-sys_admin --inh-caps -syslog,-sys_admin";
    let report = Doctor::new(TARGET).with(prefix).run(&pair.left);
    report.expect_code(FAILED);
    report.expect("host", "/dev/kmsg", "fail", &["CAP_SYSLOG"]);
    report.expect("host", "source", "fail", &["none"]);
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
