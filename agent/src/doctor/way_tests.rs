//! Tests of the judgement of a way.

use super::super::{Level, Report, Section, split_remedy};
use super::*;
use crate::net::{ResolveError, egress_kinds};

const MAC: MacAddr = [2, 0, 0, 0, 0, 2];

fn neighbour(state: NeighbourState, mac: Option<MacAddr>) -> Neighbour {
    let confirmed_ago = Some(Duration::from_secs(63));
    Neighbour { state, mac, confirmed_ago, router: false, kept: false }
}

fn hop() -> Hop {
    Hop {
        ifname: "eth7".to_owned(),
        local: "192.0.2.1".parse().unwrap(),
        gateway: None,
        mac: Some(MAC),
        mac_source: MacSource::Neighbour,
        mtu_bytes: 1500,
        ethernet: true,
        local_route: false,
        xfrm_policies: false,
    }
}

fn xdp(opened: Opened) -> Egress {
    xdp_then(vec![opened])
}

/// AF_XDP and what comes after it, as far as it was tried.
fn xdp_then(opened: Vec<Opened>) -> Egress {
    let kinds = egress_kinds(None, EgressKind::Xdp);
    let choice = Ok((EgressKind::Xdp, "a reason".to_owned()));
    Egress { choice, tries: kinds.into_iter().zip(opened).collect() }
}

fn refused() -> Opened {
    Opened::Refused {
        finding: "cannot bind: Invalid argument".to_owned(),
        remedy: "fix".to_owned(),
    }
}

fn good() -> Facts {
    Facts {
        remote: Ok("192.0.2.2:6666".parse().unwrap()),
        named: None,
        device_wanted: None,
        egress_wanted: None,
        queue: 0,
        local_wanted: None,
        hop: Ok(Some(hop())),
        neighbour_denied: false,
        xfrm_unknown: false,
        elsewhere: Elsewhere::No,
        device: Some(device::tests::ethernet()),
        neighbour: Some(neighbour(NeighbourState::Reachable, Some(MAC))),
        device_addresses: vec!["192.0.2.1".parse().unwrap()],
        egress: Some(xdp(Opened::Yes)),
        firewall: firewall::Facts::default(),
        agent: None,
    }
}

fn with_hop(change: impl FnOnce(&mut Hop)) -> Facts {
    let mut hop = hop();
    change(&mut hop);
    Facts { hop: Ok(Some(hop)), ..good() }
}

fn blocked(object: &'static str) -> Blocked {
    Blocked { object, finding: "no answer".to_owned(), remedy: "look there".to_owned() }
}

/// The line of `object`, its level, and words of finding and remedy.
#[track_caller]
fn expect(facts: &Facts, object: &str, level: Level, words: &[&str]) {
    let findings = judge(facts);
    let found = findings.iter().find(|finding| finding.object == object);
    let found = found.unwrap_or_else(|| panic!("{object} in {findings:?}"));
    assert_eq!(found.level, level, "{found:?}");
    assert_eq!(found.remedy.is_some(), level != Level::Ok, "{found:?}");
    let text = format!("{} -> {}", found.finding, found.remedy.clone().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

fn objects(facts: &Facts) -> Vec<String> {
    judge(facts).into_iter().map(|finding| finding.object).collect()
}

#[test]
fn a_good_way_has_a_line_for_each_step() {
    let facts = good();
    assert!(judge(&facts).iter().all(|finding| finding.level == Level::Ok), "{:?}", judge(&facts));
    assert_eq!(
        objects(&facts),
        ["remote", "device", "route", "source", "next hop", "queue", "mtu", "egress", "bypassed"]
    );
    expect(&facts, "next hop", Level::Ok, &["02:00:00:00:00:02 (reachable, confirmed 1m 3s ago)"]);
    expect(&facts, "egress", Level::Ok, &["xdp (a reason); queue 0 could be bound"]);
}

#[test]
fn nothing_is_told_of_what_lies_behind_an_obstacle() {
    let facts = Facts { hop: Err(blocked("next hop")), egress: None, ..good() };
    assert_eq!(objects(&facts), ["remote", "device", "next hop"]);
    expect(&facts, "next hop", Level::Fail, &["no answer", "look there"]);
    let facts = Facts { hop: Err(blocked("route")), device: None, egress: None, ..good() };
    assert_eq!(objects(&facts), ["remote", "route"]);
    let facts = Facts { remote: Err(blocked("remote")), ..good() };
    assert_eq!(objects(&facts), ["remote"]);
    expect(&facts, "remote", Level::Fail, &["look there"]);
}

#[test]
fn a_device_that_is_down_is_told_once() {
    let down = device::Facts { up: false, ..device::tests::ethernet() };
    let facts = Facts { hop: Err(blocked("device")), device: Some(down), egress: None, ..good() };
    assert_eq!(objects(&facts), ["remote", "device"]);
    expect(&facts, "device", Level::Fail, &["eth7 (driver e1000e) is down", "ip link set eth7 up"]);
}

#[test]
fn a_route_by_another_device_is_the_wrong_port() {
    let wanted = Some("eth7".to_owned());
    let elsewhere = Elsewhere::Device("eth8".to_owned());
    let facts = Facts { device_wanted: wanted.clone(), elsewhere, ..good() };
    expect(&facts, "wrong port", Level::Warn, &["leaves by eth8", "\"auto\" or \"eth8\""]);
    // Also, and above all, where it does not work.
    let facts = Facts { hop: Err(blocked("next hop")), egress: None, ..facts };
    expect(&facts, "wrong port", Level::Warn, &["leaves by eth8"]);
    let facts = Facts { device_wanted: wanted, elsewhere: Elsewhere::Nowhere, ..good() };
    expect(&facts, "wrong port", Level::Warn, &["on the link of eth7", "add a route"]);
}

/// The report of the README's example, word by word.
#[test]
fn the_readme_shows_what_is_found() {
    let error = ResolveError::NeighbourUnresolved {
        neighbour: "192.0.2.10".parse().unwrap(),
        device: "eth0".to_owned(),
        state: "failed".to_owned(),
        waited: Duration::from_millis(1500),
        route_device: None,
    };
    let (finding, remedy) = split_remedy(&error);
    let device = device::Facts {
        name: "eth0".to_owned(),
        driver: Some("igb".to_owned()),
        ..device::tests::ethernet()
    };
    let facts = Facts {
        remote: Ok("192.0.2.10:6666".parse().unwrap()),
        device_wanted: Some("eth0".to_owned()),
        hop: Err(Blocked { object: "next hop", finding, remedy }),
        elsewhere: Elsewhere::Device("eth1".to_owned()),
        device: Some(device),
        egress: None,
        ..good()
    };
    let section = Section { area: "target fleet".to_owned(), findings: judge(&facts) };
    let text = Report { sections: vec![section] }.to_text();
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&format!("```text\n{text}```\n")), "{text}");
}

#[test]
fn a_configured_mac_is_compared() {
    let with = |entry| Facts {
        neighbour: entry,
        ..with_hop(|hop| {
            hop.mac = Some([2, 0, 0, 0, 0, 0x99]);
            hop.mac_source = MacSource::Static;
        })
    };
    let other = with(Some(neighbour(NeighbourState::Stale, Some(MAC))));
    expect(
        &other,
        "next hop",
        Level::Warn,
        &["02:00:00:00:00:99", "the neighbour table has 02:00:00:00:00:02", "remote_mac"],
    );
    let failed = with(Some(neighbour(NeighbourState::Failed, Some(MAC))));
    expect(&failed, "next hop", Level::Ok, &["no entry"]);
    expect(&with(None), "next hop", Level::Ok, &["no entry"]);
    let same = with(Some(neighbour(NeighbourState::Reachable, Some([2, 0, 0, 0, 0, 0x99]))));
    expect(&same, "next hop", Level::Ok, &["as configured and in the neighbour table"]);
}

#[test]
fn without_the_capability_a_known_neighbour_is_still_told() {
    let facts = Facts { neighbour_denied: true, ..good() };
    expect(&facts, "next hop", Level::Ok, &["02:00:00:00:00:02"]);
    let facts = Facts { neighbour: None, ..facts };
    expect(&facts, "next hop", Level::Warn, &["CAP_NET_ADMIN", "root"]);
}

#[test]
fn a_source_of_another_device_is_doubtful() {
    let facts = Facts {
        local_wanted: Some("192.0.2.1".parse().unwrap()),
        device_addresses: Vec::new(),
        ..good()
    };
    expect(&facts, "source", Level::Warn, &["no address of eth7", "rp_filter"]);
}

#[test]
fn a_small_mtu_loses_long_records() {
    let small = |bytes| with_hop(|hop| hop.mtu_bytes = bytes);
    expect(&small(1028), "mtu", Level::Ok, &["1028"]);
    expect(&small(1027), "mtu", Level::Warn, &["too_long", "raise the MTU of eth7"]);
    let v6 = Facts { remote: Ok("[2001:db8::2]:6666".parse().unwrap()), ..small(1047) };
    expect(&v6, "mtu", Level::Warn, &["1048"]);
    let udp = Egress {
        choice: Ok((EgressKind::Udp, "the remote is this host".to_owned())),
        tries: vec![(EgressKind::Udp, Opened::Yes)],
    };
    let facts = Facts { egress: Some(udp), ..small(600) };
    expect(&facts, "mtu", Level::Warn, &["IP fragments"]);
}

#[test]
fn a_socket_that_does_not_open_fails_only_what_was_configured() {
    let configured =
        Facts { egress_wanted: Some(EgressKind::Xdp), egress: Some(xdp(refused())), ..good() };
    expect(&configured, "egress", Level::Fail, &["cannot bind: Invalid argument", "fix"]);
    assert!(!objects(&configured).contains(&"bypassed".to_owned()));
    // AF_PACKET carries frames as well.
    let auto = Facts {
        egress: Some(xdp_then(vec![refused(), Opened::Yes])),
        ..with_hop(|hop| hop.mtu_bytes = 600)
    };
    expect(&auto, "egress", Level::Warn, &["auto takes packet", "xdp: cannot bind", "fix"]);
    expect(&auto, "mtu", Level::Warn, &["too_long"]);
    expect(&auto, "bypassed", Level::Ok, &[]);
    let udp = Facts { egress: Some(xdp_then(vec![refused(), refused(), Opened::Yes])), ..auto };
    let words = ["auto takes udp", "xdp: cannot bind", "packet: cannot bind", "fix"];
    expect(&udp, "egress", Level::Warn, &words);
    expect(&udp, "mtu", Level::Warn, &["IP fragments"]);
    assert!(!objects(&udp).contains(&"bypassed".to_owned()));
    let none = Facts { egress: Some(xdp_then(vec![refused(), refused(), refused()])), ..good() };
    let words = ["nothing opens", "xdp: ", "packet: ", "udp: "];
    expect(&none, "egress", Level::Fail, &words);
}

#[test]
fn the_address_of_a_name_is_told_and_what_was_passed_over() {
    let named = |passed_over: &[&str]| Named {
        host: "fleet.test".to_owned(),
        passed_over: passed_over.iter().map(|text| (*text).to_owned()).collect(),
    };
    let facts = Facts { named: Some(named(&[])), ..good() };
    expect(&facts, "remote", Level::Ok, &["192.0.2.2:6666, address of fleet.test"]);
    let facts = Facts { named: Some(named(&["198.51.100.1 (no route)"])), ..good() };
    expect(&facts, "remote", Level::Ok, &["passed over: 198.51.100.1 (no route)"]);
}

#[test]
fn a_queue_that_is_missing_fails_only_what_was_configured() {
    let auto = Facts { queue: 5, ..good() };
    expect(&auto, "queue", Level::Warn, &["queue 5 does not exist", "queue = 0"]);
    let configured = Facts { egress_wanted: Some(EgressKind::Xdp), ..auto };
    expect(&configured, "queue", Level::Fail, &["queue 5 does not exist"]);
}

#[test]
fn an_impossible_way_out_fails() {
    let choice = Err(("cannot send by egress xdp".to_owned(), "set `egress`".to_owned()));
    let egress = Egress { choice, tries: Vec::new() };
    let facts = Facts { egress: Some(egress), ..good() };
    expect(&facts, "egress", Level::Fail, &["cannot send by egress xdp", "set `egress`"]);
}

#[test]
fn what_the_agent_holds_is_not_broken() {
    let agent = InAgent {
        pid: 7,
        state: "active".to_owned(),
        waiting_for: None,
        egress: Some("xdp".to_owned()),
    };
    let facts =
        Facts { egress: Some(xdp(Opened::Held { pid: 7 })), agent: Some(agent.clone()), ..good() };
    expect(&facts, "egress", Level::Ok, &["held by the running agent itself (pid 7)"]);
    expect(&facts, "agent", Level::Ok, &["pid 7", "active, by xdp"]);
    let waiting = InAgent {
        state: "waiting".to_owned(),
        waiting_for: Some("no carrier".to_owned()),
        egress: None,
        ..agent
    };
    let facts = Facts { agent: Some(waiting), ..facts };
    expect(&facts, "agent", Level::Warn, &["does not send to it: no carrier"]);
}

#[test]
fn what_frames_pass_by_is_told_where_there_is_something() {
    let chains = vec!["nftables inet filter output".to_owned()];
    let facts = Facts { firewall: firewall::Facts { chains, unknown: None }, ..good() };
    expect(&facts, "bypassed", Level::Warn, &["nftables inet filter output", "egress = \"udp\""]);
    let shaped = device::Facts { qdiscs: vec!["tbf".to_owned()], ..device::tests::ethernet() };
    let facts = Facts { device: Some(shaped), ..good() };
    expect(&facts, "bypassed", Level::Warn, &["qdisc tbf on eth7"]);
    let facts = Facts { xfrm_unknown: true, ..good() };
    expect(&facts, "bypassed", Level::Warn, &["IPsec policies cannot be listed", "root"]);
    let ipsec =
        Facts { egress_wanted: Some(EgressKind::Xdp), ..with_hop(|hop| hop.xfrm_policies = true) };
    expect(&ipsec, "egress", Level::Warn, &["in the clear", "egress = \"auto\""]);
}

#[test]
fn what_was_not_tried_for_want_of_privileges_is_no_failure() {
    let facts = Facts { egress: Some(xdp(Opened::NotTried)), ..good() };
    expect(&facts, "egress", Level::Warn, &["not tried", "CAP_NET_RAW", "root"]);
}

#[test]
fn a_file_needs_no_way() {
    let egress = |opened| Egress {
        choice: Ok((EgressKind::Pcap, "configured".to_owned())),
        tries: vec![(EgressKind::Pcap, opened)],
    };
    let facts = |opened| Facts {
        hop: Ok(None),
        egress_wanted: Some(EgressKind::Pcap),
        egress: Some(egress(opened)),
        device: None,
        ..good()
    };
    assert_eq!(objects(&facts(Opened::Yes)), ["remote", "egress"]);
    expect(&facts(Opened::Yes), "egress", Level::Ok, &["the folder can be written"]);
    expect(&facts(refused()), "egress", Level::Fail, &["pcap"]);
}
