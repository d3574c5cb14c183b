//! Looking names up, against a DNS server on the other end of a cable, and through
//! what becomes of servers and of resolv.conf in the life of a host.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    capture::{Arrived, Capture},
    dns::{DnsServer, Manner},
    kmsg::{self, Unlimited},
    netns::{Pair, RIGHT_V4, root_or_skip},
};
use netconsole_agent::names::{
    ADDRESSES_MAX, IpVersion, LOOK_UP_MAX, NameChange, NameError, NameState, Names, Resolved,
    VALID_MAX, VALID_MIN,
};
use tempfile::TempDir;

/// A second address of the server's end.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const SERVER: &str = "nameserver 192.0.2.2\n";
/// So that silence does not take ten seconds.
const QUICK: &str = "options timeout:1 attempts:1\n";

struct Site {
    pair: Pair,
    server: DnsServer,
    folder: TempDir,
    names: Names,
}

impl Site {
    /// A cable, a server at its right end, and files for its left end.
    fn new(test: &str) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        let pair = Pair::new();
        let folder = tempfile::tempdir().expect("a folder");
        let names =
            Names::with_files(folder.path().join("hosts"), folder.path().join("resolv.conf"));
        let server = DnsServer::start(&pair.right, RIGHT_V4.into());
        let site = Self { pair, server, folder, names };
        site.resolv_conf(&[SERVER, QUICK].concat());
        site.server.set("ready.test", &[("192.0.2.1", 60)]);
        // The kernel notices the carrier up to a second later, and drops until then.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = site.look_up("ready.test") {
            assert!(Instant::now() < deadline, "{error}");
        }
        Some(site)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn resolv_conf(&self, text: &str) {
        std::fs::write(self.path("resolv.conf"), text).expect("write resolv.conf");
    }

    fn look_up(&self, host: &str) -> Result<Resolved, NameError> {
        self.pair.left.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(self.names.look_up(host))
        })
    }

    fn addresses(&self, host: &str) -> Vec<String> {
        let resolved = self.look_up(host).unwrap_or_else(|error| panic!("{host}: {error}"));
        resolved.addresses.iter().map(IpAddr::to_string).collect()
    }

    fn valid_s(&self, host: &str) -> u64 {
        self.look_up(host).unwrap_or_else(|error| panic!("{host}: {error}")).valid_for.as_secs()
    }

    /// As the control thread does: a look-up, and what the state makes of it.
    fn refresh(&self, state: &mut NameState) -> NameChange {
        state.asked(Instant::now());
        let result = self.look_up(state.host());
        state.answer(Instant::now(), result)
    }
}

#[test]
fn both_kinds_of_address_are_found() {
    let Some(site) = Site::new("both_kinds_of_address_are_found") else { return };
    site.server.set(
        "fleet.test",
        &[("2001:db8::2", 600), ("192.0.2.7", 600), ("192.0.2.2", 600), ("0.0.0.0", 600)],
    );
    site.server.set("six.test", &[("2001:db8::2", 600)]);
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.7", "192.0.2.2", "2001:db8::2"]);
    assert_eq!(site.addresses("FLEET.test."), ["192.0.2.7", "192.0.2.2", "2001:db8::2"]);
    let six = site.look_up("six.test").expect("an address");
    assert_eq!(six.addresses, ["2001:db8::2".parse::<IpAddr>().expect("an address")]);
    assert_eq!(six.unanswered, None);
    // By the search list, and by a server that has an IPv6 address.
    assert!(site.look_up("fleet").is_err());
    site.resolv_conf(&[SERVER, QUICK, "search elsewhere.test test\n"].concat());
    assert_eq!(site.addresses("six"), ["2001:db8::2"]);
    let server = DnsServer::start(&site.pair.right, "2001:db8::2".parse().expect("an address"));
    server.set("over.six.test", &[("192.0.2.8", 600)]);
    site.resolv_conf("nameserver 2001:db8::2\n");
    assert_eq!(site.addresses("over.six.test"), ["192.0.2.8"]);
}

#[test]
fn the_ttl_counts_within_bounds() {
    let Some(site) = Site::new("the_ttl_counts_within_bounds") else { return };
    for (ttl, wanted) in [(0, VALID_MIN), (5, VALID_MIN), (86_400, VALID_MAX)] {
        site.server.set("fleet.test", &[("192.0.2.2", ttl)]);
        assert_eq!(site.valid_s("fleet.test"), wanted.as_secs(), "TTL {ttl}");
    }
    // The smallest counts, also that of an alias.
    site.server.set("fleet.test", &[("192.0.2.2", 600), ("2001:db8::2", 300)]);
    assert_eq!(site.valid_s("fleet.test"), 300);
    site.server.set("alias.test", &[("fleet.test", 120)]);
    assert_eq!(site.valid_s("alias.test"), 120);
    site.server.set("alias.test", &[("fleet.test", 1200)]);
    assert_eq!(site.valid_s("alias.test"), 300);
    // Nothing in between remembers the old answer, however long it was to hold.
    site.server.set("moving.test", &[("192.0.2.2", 86_400)]);
    assert_eq!(site.addresses("moving.test"), ["192.0.2.2"]);
    site.server.set("moving.test", &[("192.0.2.3", 86_400)]);
    assert_eq!(site.addresses("moving.test"), ["192.0.2.3"]);
}

#[test]
fn the_last_good_address_outlives_the_server() {
    let Some(site) = Site::new("the_last_good_address_outlives_the_server") else { return };
    let good: Vec<IpAddr> = vec![RIGHT_V4.into()];
    site.server.set("fleet.test", &[("192.0.2.2", 60)]);
    let mut state = NameState::new("fleet.test", None, Instant::now());
    assert_eq!(site.refresh(&mut state), NameChange::Address { before: None });
    assert_eq!(state.addresses(), good);
    let left = state.next_at().saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(59) && left <= Duration::from_secs(60), "{left:?}");
    for manner in [Manner::Silent, Manner::Failing] {
        site.server.behave(manner);
        assert_eq!(site.refresh(&mut state), NameChange::Failed, "{manner:?}");
        assert_eq!(state.addresses(), good);
        assert!(!state.due(Instant::now() + Duration::from_secs(29)));
        assert!(state.due(Instant::now() + Duration::from_secs(31)));
    }
    assert_eq!(state.failure().map(|failure| failure.times), Some(2));
    // It is back, and the name has moved.
    site.server.behave(Manner::Good);
    site.server.set("fleet.test", &[("192.0.2.3", 60)]);
    assert_eq!(site.refresh(&mut state), NameChange::Address { before: Some(RIGHT_V4.into()) });
    assert_eq!((state.address(), state.failure()), (Some(OTHER.into()), None));
    site.server.set("fleet.test", &[("192.0.2.2", 60), ("192.0.2.3", 60)]);
    assert_eq!(site.refresh(&mut state), NameChange::Others);
    assert_eq!(state.address(), Some(OTHER.into()), "still in the answer");
}

#[test]
fn each_failure_is_told_with_its_cause() {
    let Some(site) = Site::new("each_failure_is_told_with_its_cause") else { return };
    site.server.set("empty.test", &[]);
    site.server.set("blocked.test", &[("0.0.0.0", 60), ("::", 60)]);
    site.server.set("dangling.test", &[("missing.test", 60)]);
    let told = |host: &str, wanted: &str| {
        let error = site.look_up(host).expect_err(host);
        let text = error.to_string();
        assert!(text.contains(host) && text.contains(wanted), "{host}: {text}");
        error
    };
    let error = told("missing.test", "(NXDOMAIN, asked: 192.0.2.2)");
    assert!(matches!(error, NameError::NotFound { .. }), "{error:?}");
    for host in ["empty.test", "blocked.test"] {
        let error = told(host, "no usable A or AAAA record");
        assert!(matches!(error, NameError::NoAddress { .. }), "{error:?}");
    }
    assert!(site.look_up("dangling.test").is_err());
    site.server.behave(Manner::Failing);
    let error = told("missing.test", "Server Failure");
    assert!(matches!(error, NameError::ServerFailure { .. }), "{error:?}");
    site.server.behave(Manner::Silent);
    let start = Instant::now();
    let error = told("missing.test", "no DNS server answered");
    assert!(matches!(error, NameError::Timeout { .. }), "{error:?}");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "timeout:1 attempts:1: {:?}",
        start.elapsed()
    );
    // Nothing leads to the server: that is known at once.
    site.resolv_conf("nameserver 198.51.100.53\n");
    let start = Instant::now();
    let error = told("missing.test", "check the route to the servers");
    assert!(matches!(error, NameError::Failed { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let error = told("no name", "is not a DNS name");
    assert!(matches!(error, NameError::NotAName { .. }), "{error:?}");
}

#[test]
fn silence_is_bounded_without_options() {
    let Some(site) = Site::new("silence_is_bounded_without_options") else { return };
    site.server.behave(Manner::Silent);
    // Many names, many servers, and more patience than is granted.
    site.resolv_conf(
        "nameserver 192.0.2.2\nnameserver 192.0.2.98\nnameserver 192.0.2.99\n\
         search a.test b.test c.test d.test e.test f.test\noptions timeout:60 attempts:9\n",
    );
    let start = Instant::now();
    let error = site.look_up("fleet").expect_err("silence");
    assert!(matches!(error, NameError::Timeout { .. }), "{error:?}");
    assert!(start.elapsed() < LOOK_UP_MAX + Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_change_of_resolv_conf_counts_at_once() {
    let Some(site) = Site::new("a_change_of_resolv_conf_counts_at_once") else { return };
    site.pair.right.ip(&format!("addr add {OTHER}/24 dev right0"));
    let other = DnsServer::start(&site.pair.right, OTHER.into());
    site.server.set("fleet.test", &[("192.0.2.10", 600)]);
    other.set("fleet.test", &[("192.0.2.11", 600)]);
    // At boot the file may not be there, or be empty until DHCP has written it.
    let mut state = NameState::new("fleet.test", None, Instant::now());
    std::fs::remove_file(site.path("resolv.conf")).expect("remove resolv.conf");
    for (text, wanted) in [
        (None, "cannot read"),
        (Some(""), "names no DNS server"),
        (Some("search test\n"), "names no DNS server"),
    ] {
        if let Some(text) = text {
            site.resolv_conf(text);
        }
        assert_eq!(site.refresh(&mut state), NameChange::Failed);
        let error = state.failure().expect("a failure").error.to_string();
        let path = site.path("resolv.conf").display().to_string();
        for wanted in [wanted, "fleet.test", path.as_str(), "`nameserver` line"] {
            assert!(error.contains(wanted), "{error}");
        }
    }
    site.resolv_conf(SERVER);
    assert_eq!(site.refresh(&mut state), NameChange::Address { before: None });
    assert_eq!(state.address(), Some("192.0.2.10".parse().expect("an address")));
    // Of the same size, and at once: as a whole, and as a file that takes its place.
    site.resolv_conf("nameserver 192.0.2.3\n");
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.11"]);
    std::fs::write(site.path("new"), SERVER).expect("write a file");
    std::fs::rename(site.path("new"), site.path("resolv.conf")).expect("replace resolv.conf");
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.10"]);
}

#[test]
fn the_hosts_file_comes_first() {
    let Some(site) = Site::new("the_hosts_file_comes_first") else { return };
    site.server.set("fleet.test", &[("192.0.2.10", 600)]);
    let hosts = |text: &str| std::fs::write(site.path("hosts"), text).expect("write hosts");
    hosts("127.0.0.1 localhost\n2001:db8::5 fleet.test fleet\n192.0.2.5 fleet.test\n");
    assert_eq!(site.addresses("fleet"), ["2001:db8::5"]);
    assert_eq!(site.valid_s("fleet.test"), VALID_MIN.as_secs());
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.5", "2001:db8::5"]);
    let (before, _) = site.server.asked();
    std::fs::remove_file(site.path("resolv.conf")).expect("remove resolv.conf");
    assert_eq!(site.addresses("FLEET.test."), ["192.0.2.5", "2001:db8::5"]);
    assert_eq!(site.server.asked().0, before);
    hosts("127.0.0.1 localhost\n");
    site.resolv_conf(SERVER);
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.10"]);
}

#[test]
fn a_server_that_does_not_work_hides_none_that_does() {
    let test = "a_server_that_does_not_work_hides_none_that_does";
    let Some(site) = Site::new(test) else { return };
    site.pair.right.ip(&format!("addr add {OTHER}/24 dev right0"));
    let other = DnsServer::start(&site.pair.right, OTHER.into());
    site.server.set("fleet.test", &[("192.0.2.10", 600)]);
    other.set("fleet.test", &[("192.0.2.11", 600)]);
    other.set("only.other.test", &[("192.0.2.12", 600)]);
    site.resolv_conf("nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.10"], "the first one is asked first");
    // What the first one answers is the answer, as for everybody else on the host.
    assert!(matches!(site.look_up("only.other.test"), Err(NameError::NotFound { .. })));
    assert_eq!(other.asked().0, 0, "and nobody else is asked");
    // A second of silence is waited for; after a refusal there is nothing to wait for.
    for (manner, limit) in
        [(Manner::Silent, Duration::from_secs(3)), (Manner::Failing, Duration::from_millis(700))]
    {
        site.server.behave(manner);
        let start = Instant::now();
        assert_eq!(site.addresses("fleet.test"), ["192.0.2.11"], "{manner:?}");
        assert!(start.elapsed() < limit, "{manner:?}: {:?}", start.elapsed());
    }
    site.resolv_conf("nameserver 198.51.100.53\nnameserver 192.0.2.98\nnameserver 192.0.2.3\n");
    assert_eq!(site.addresses("fleet.test"), ["192.0.2.11"], "the third");
}

/// The text may stand for several names: which one is meant must not depend on whether a server
/// answers for the first of them.
#[test]
fn a_search_stops_where_nobody_answers() {
    let Some(site) = Site::new("a_search_stops_where_nobody_answers") else { return };
    site.resolv_conf(&[SERVER, QUICK, "search a.test b.test\n"].concat());
    site.server.set("fleet.b.test", &[("192.0.2.11", 600)]);
    assert_eq!(site.addresses("fleet"), ["192.0.2.11"], "there is no fleet.a.test");
    site.server.set("fleet.a.test", &[("192.0.2.10", 600)]);
    assert_eq!(site.addresses("fleet"), ["192.0.2.10"]);
    site.server.behave_for("fleet.a.test", Manner::Silent);
    let start = Instant::now();
    let error = site.look_up("fleet").expect_err("nobody answers");
    assert!(matches!(error, NameError::Timeout { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
    // A server that says that it cannot tell has answered; glibc goes on, too.
    site.server.behave_for("fleet.a.test", Manner::Failing);
    assert_eq!(site.addresses("fleet"), ["192.0.2.11"]);
    site.server.behave_for("fleet.a.test", Manner::Good);
    assert_eq!(site.addresses("fleet"), ["192.0.2.10"]);
}

#[test]
fn half_an_answer_is_used_and_told() {
    let Some(site) = Site::new("half_an_answer_is_used_and_told") else { return };
    site.server.set("fleet.test", &[("192.0.2.2", 600), ("2001:db8::2", 600)]);
    let mut state = NameState::new("fleet.test", None, Instant::now());
    site.refresh(&mut state);
    state.use_address("2001:db8::2".parse().expect("an address"));
    for manner in [Manner::SilentOnAaaa, Manner::FailingOnAaaa] {
        site.server.behave(manner);
        let start = Instant::now();
        let half = site.look_up("fleet.test").expect("an address");
        assert!(start.elapsed() < Duration::from_secs(2), "{manner:?}: {:?}", start.elapsed());
        assert_eq!(half.addresses, [IpAddr::from(RIGHT_V4)], "{manner:?}");
        assert_eq!((half.unanswered, half.valid_for), (Some(IpVersion::V6), VALID_MIN));
        assert_eq!(site.refresh(&mut state), NameChange::Unchanged, "{manner:?}");
        assert_eq!(state.address(), Some("2001:db8::2".parse().expect("an address")));
    }
}

#[test]
fn a_long_answer_comes_by_tcp_and_is_cut() {
    let Some(site) = Site::new("a_long_answer_comes_by_tcp_and_is_cut") else { return };
    let many: Vec<String> = (1..=60).map(|host| format!("192.0.2.{host}")).collect();
    let data: Vec<(&str, u32)> = many.iter().map(|text| (text.as_str(), 600)).collect();
    site.server.set("many.test", &data);
    let found = site.addresses("many.test");
    assert_eq!(found, many[..ADDRESSES_MAX]);
    assert!(site.server.asked().1 > 0, "by TCP");
}

#[test]
fn nothing_is_left_behind() {
    let Some(site) = Site::new("nothing_is_left_behind") else { return };
    site.server.set("fleet.test", &[("192.0.2.2", 600)]);
    site.resolv_conf(SERVER);
    let open = || std::fs::read_dir("/proc/self/fd").expect("the open files").count();
    let (before, after) = site.pair.left.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let before = open();
            for _ in 0..100 {
                site.names.look_up("fleet.test").await.expect("an address");
            }
            // Look-ups that are given up in the middle.
            site.server.behave(Manner::Silent);
            for _ in 0..20 {
                let patience = Duration::from_millis(10);
                let given_up = tokio::time::timeout(patience, site.names.look_up("fleet.test"));
                assert!(given_up.await.is_err());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            (before, open())
        })
    });
    assert_eq!(after, before, "open files");
}

/// The thread that looks names up has other things to do meanwhile.
#[test]
fn slow_files_hold_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hosts, resolv_conf) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    // To open it takes as long as nobody writes.
    let made = std::process::Command::new("mkfifo").arg(&hosts).status().expect("run mkfifo");
    assert!(made.success());
    let names = Names::with_files(&hosts, &resolv_conf);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            std::fs::write(&hosts, "192.0.2.5 fleet.test\n").expect("write hosts");
        });
        runtime.block_on(async {
            let start = Instant::now();
            let look_up = names.look_up("fleet.test");
            let other = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                start.elapsed()
            };
            let (found, other) = tokio::join!(look_up, other);
            assert_eq!(
                found.expect("an address").addresses,
                ["192.0.2.5".parse::<IpAddr>().expect("one")]
            );
            assert!(other < Duration::from_millis(700), "{other:?}");
        });
    });
}

/// A running agent with a name: it waits for the answer, heals when it comes, and keeps what it has
/// when the server says no more.
#[test]
fn an_agent_follows_a_name() {
    const PATIENCE: Duration = Duration::from_secs(45);
    let Some(site) = Site::new("an_agent_follows_a_name") else { return };
    site.pair.right.ip(&format!("addr add {OTHER}/24 dev right0"));
    // As short as it may be: then it is looked up again after 30 s.
    site.server.set("fleet.test", &[("192.0.2.2", 1)]);
    let _unlimited = Unlimited::new();
    let _sink = site.pair.right.sink(6666);
    let capture = Capture::start(&site.pair.right, 6666, &[]);
    let text = |number: u32| format!("nca-name {} {number}.", std::process::id());
    let say = |number: u32| kmsg::write(&[format!("<6>{}\n", text(number)).into_bytes()], 0);
    let arrival = |agent: &Agent, number: u32| -> Arrived {
        let arrived = capture.wait(0, PATIENCE, |one| one.begins_with(&text(number)));
        arrived.unwrap_or_else(|| panic!("{number} does not arrive:\n{}", agent.log()))
    };

    site.server.behave(Manner::Silent);
    let targets = "[target.fleet]\nremote = \"fleet.test:6666\"\negress = \"packet\"\n";
    let mut agent = Agent::start_resolving(&site.pair.left, targets, 0, &site.path("resolv.conf"));
    agent.wait(PATIENCE, |status| {
        let target = &status.targets[0];
        let waits_for = target.waiting_for.as_deref().unwrap_or_default();
        target.state == "waiting"
            && target.waiting_kind.as_deref() == Some("name_unresolved")
            && waits_for.contains("no DNS server answered for fleet.test (asked: 192.0.2.2)")
    });
    say(1);

    site.server.behave(Manner::Good);
    agent.wait(PATIENCE, |status| status.targets[0].state == "active");
    assert_eq!(arrival(&agent, 1).to, (RIGHT_V4, 6666).into());

    // The server stops answering. The next look-up fails, which nobody sees but the server.
    site.server.behave(Manner::Silent);
    let (asked, _) = site.server.asked();
    let deadline = Instant::now() + PATIENCE;
    while site.server.asked().0 == asked {
        assert!(Instant::now() < deadline, "it is not asked again:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Longer than the look-up takes.
    std::thread::sleep(Duration::from_secs(3));
    say(2);
    assert_eq!(arrival(&agent, 2).to, (RIGHT_V4, 6666).into());
    let view = agent.view();
    let target = view.target("fleet");
    let went: Vec<_> = target.transitions.iter().map(|change| change.to.as_str()).collect();
    assert_eq!((target.state.as_str(), went.last()), ("active", Some(&"active")), "{target:#?}");
    let times = went.iter().filter(|state| **state == "active").count();
    assert_eq!(times, 1, "it never stopped: {went:?}");

    // It answers again, with another address: whatever changes on the network is an occasion to ask.
    site.server.set("fleet.test", &[("192.0.2.3", 1)]);
    site.server.behave(Manner::Good);
    site.pair.left.ip("addr add 192.0.2.31/24 dev left0");
    let mut number = 2;
    let deadline = Instant::now() + PATIENCE;
    while arrival(&agent, number).to != (OTHER, 6666).into() {
        assert!(Instant::now() < deadline, "it does not move:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(200));
        number += 1;
        say(number);
    }
    let account = agent.view().target("fleet").account.clone();
    assert!(account.adds_up() && account.lost_total() == 0, "{account:?}");
    // In order, and each once.
    let prefix = format!("nca-name {} ", std::process::id());
    let own = capture.all().into_iter().filter(|one| one.begins_with(&prefix));
    let texts: Vec<_> = own.filter_map(|one| one.text).collect();
    assert_eq!(texts, (1..=number).map(text).collect::<Vec<_>>());
    assert!(agent.stop().contains("final account"));
}
