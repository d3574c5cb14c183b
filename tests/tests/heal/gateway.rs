//! The receiver is behind a gateway: the route, the gateway or its MAC changes.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use agent_tests::{
    capture::Capture,
    kmsg::mark,
    lan::{Lan, router_mac},
    monitor::Notice,
    netns::{Namespace, Pair, mac_text},
};
use rustix::process::Signal;

use super::scene::{Expected, LIMIT, LIMIT_BIND, PORT, ROUNDS, Scene, ready, told, told_and_done};

const TARGET: &str = "remote = \"198.51.100.10:6666\"";
const TARGET_V6: &str = "remote = \"[2001:db8:99::10]:6666\"";

/// Everything that the host sends is captured at its port of the switch.
fn start(lan: &Lan, label: &'static str, target: &str) -> Scene {
    Scene::start_with(label, &lan.host, (&lan.switch, &["br0"]), "", target, 1)
}

#[test]
fn a_route_is_removed_and_added() {
    if !ready("a_route_is_removed_and_added") {
        return;
    }
    for (label, target, family, gateway) in
        [("route", TARGET, "-4", "10.0.0.1"), ("route6", TARGET_V6, "-6", "2001:db8:1::1")]
    {
        let lan = Lan::new();
        let add = format!("{family} route add default via {gateway}");
        lan.host.ip(&add);
        let mut scene = start(&lan, label, target);
        for _ in 0..ROUNDS {
            scene.round(
                || lan.host.ip(&format!("{family} route del default")),
                &["no_route"],
                || lan.host.ip(&add),
                told(|notice| *notice == Notice::Route),
            );
        }
        scene.judge(LIMIT);
        scene.assert_went(&["waiting (no_route)", "active"]);
        let outcome = scene.finish(&Expected::default());
        assert!(outcome.arrived.iter().all(|one| one.dst_mac == router_mac(1, 0)), "{label}");
    }
}

#[test]
fn the_default_gateway_becomes_another_one() {
    if !ready("the_default_gateway_becomes_another_one") {
        return;
    }
    for (label, target, family, gateways) in [
        ("gateway", TARGET, "-4", ["10.0.0.1", "10.0.0.2"]),
        ("gateway6", TARGET_V6, "-6", ["2001:db8:1::1", "2001:db8:1::2"]),
    ] {
        let lan = Lan::new();
        lan.host.ip(&format!("{family} route add default via {}", gateways[0]));
        let mut scene = start(&lan, label, target);
        scene.say_and_see(5);
        for round in 1..=4 {
            let new = round % 2;
            let from = scene.capture.count();
            lan.host.ip(&format!("{family} route replace default via {}", gateways[new]));
            let replaced = Instant::now();
            let said = scene.say_evenly(200, 1_000, 0);
            let wanted = router_mac(new as u8 + 1, 0);
            let first = scene
                .capture
                .wait(from, Duration::from_secs(5), |one| one.dst_mac == wanted)
                .unwrap_or_else(|| panic!("nothing to {wanted:x?}\n{}", scene.agent.log()));
            scene.healed(first.at.saturating_duration_since(replaced));
            let last = scene.arrival(said.end - 1);
            assert_eq!(last.dst_mac, wanted);
            let hop = scene.view().next_hop.expect("a next hop");
            assert_eq!(hop.gateway.as_deref(), Some(gateways[new]));
        }
        scene.judge(LIMIT);
        let outcome = scene.finish(&Expected::default());
        // From one to the next, and never back.
        let mut macs: Vec<_> = outcome.arrived.iter().map(|one| one.dst_mac).collect();
        macs.dedup();
        assert_eq!(
            macs,
            [
                router_mac(1, 0),
                router_mac(2, 0),
                router_mac(1, 0),
                router_mac(2, 0),
                router_mac(1, 0)
            ]
        );
    }
}

#[test]
fn a_gateway_tells_its_new_mac() {
    if !ready("a_gateway_tells_its_new_mac") {
        return;
    }
    for (label, target, family, gateway, notify) in [
        // A gratuitous ARP, an unsolicited neighbour advertisement.
        ("garp", TARGET, "-4", "10.0.0.1", "net/ipv4/conf/lan0/arp_notify"),
        ("na", TARGET_V6, "-6", "2001:db8:1::1", "net/ipv6/conf/lan0/ndisc_notify"),
    ] {
        let lan = Lan::new();
        lan.routers[0].sysctl(notify, "1");
        lan.host.ip(&format!("{family} route add default via {gateway}"));
        let gateway: IpAddr = gateway.parse().expect("an address");
        let mut scene = start(&lan, label, target);
        scene.say_and_see(5);
        for change in 1..=3 {
            let new = router_mac(1, change);
            let (from, cut) = (scene.capture.count(), scene.monitor.count());
            lan.routers[0].ip(&format!("link set lan0 address {}", mac_text(new)));
            let is_news = |notice: &Notice| {
                matches!(notice, Notice::Neighbour { address, mac: Some(mac) }
                    if *address == gateway && *mac == new)
            };
            let told = scene.monitor.wait(cut, Duration::from_secs(3), is_news);
            let told = told.expect("the gateway tells its new MAC");
            let said = scene.say_evenly(100, 1_000, 0);
            let first = scene
                .capture
                .wait(from, Duration::from_secs(5), |one| one.dst_mac == new)
                .unwrap_or_else(|| panic!("nothing to {new:x?}\n{}", scene.agent.log()));
            scene.healed(first.at.saturating_duration_since(told));
            let _ = scene.arrival(said.end - 1);
        }
        scene.judge(LIMIT);
        let _ = scene.finish(&Expected::default());
    }
}

/// Another router takes over the address, and nobody tells: no carrier is lost, no ARP is
/// sent. What left meanwhile counts as sent, and is told as suspected.
#[test]
fn a_gateway_is_replaced_without_notice() {
    if ready("a_gateway_is_replaced_without_notice") {
        replace_without_notice("silent", TARGET, "10.0.0.1/24");
    }
}

#[test]
fn an_ipv6_gateway_is_replaced_without_notice() {
    if ready("an_ipv6_gateway_is_replaced_without_notice") {
        replace_without_notice("silent IPv6", TARGET_V6, "2001:db8:1::1/64");
    }
}

/// More news than the kernel keeps for the agent (`ENOBUFS`, netlink(7)): it looks anew instead
/// of waiting for the next recheck. The news that fill the buffer are no reason to look: they
/// are of neighbours that no target has.
#[test]
fn news_that_were_lost_are_made_up_for() {
    if !ready("news_that_were_lost_are_made_up_for") {
        return;
    }
    const NEIGHBOURS: usize = 3_000;
    let lan = Lan::new();
    lan.host.ip("route add default via 10.0.0.1");
    let mut scene = start(&lan, "overrun", TARGET);
    for round in 1..=2 {
        scene.say_and_see(5);
        let before = lost_news(&lan.host);
        scene.agent.signal(Signal::STOP);
        let news: String = (0..NEIGHBOURS)
            .map(|number| {
                let (high, low) = (number / 250 % 4 + 1, number % 250 + 1);
                let change = number / 1_000 + 3 * round;
                format!(
                    "neigh replace 10.9.{high}.{low} lladdr 02:00:00:00:09:{change:02x} dev up0\n"
                )
            })
            .collect();
        lan.host.batch(&news);
        let new = round % 2;
        lan.host.ip(&format!("route replace default via 10.0.0.{}", new + 1));
        let lost = lost_news(&lan.host);
        assert!(lost > before, "the buffer held {NEIGHBOURS} news: {before}, {lost}");
        let from = scene.capture.count();
        scene.agent.signal(Signal::CONT);
        let resumed = Instant::now();
        let said = scene.say_evenly(100, 200, 0);
        let wanted = router_mac(new as u8 + 1, 0);
        let first = scene
            .capture
            .wait(from, Duration::from_secs(5), |one| one.dst_mac == wanted)
            .unwrap_or_else(|| panic!("nothing to {wanted:x?}\n{}", scene.agent.log()));
        scene.healed(first.at.saturating_duration_since(resumed));
        assert_eq!(scene.arrival(said.end - 1).dst_mac, wanted);
    }
    // It has all the news of before to read first.
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected::default());
}

/// How many messages the sockets of a namespace have lost (`Drops` in `/proc/net/netlink`).
fn lost_news(namespace: &Namespace) -> u64 {
    let table = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
    let table = table.expect("the netlink sockets");
    let mut lines = table.lines();
    let at = lines.next().expect("a head").split_whitespace().position(|word| word == "Drops");
    let at = at.expect("a column Drops");
    lines.filter_map(|line| line.split_whitespace().nth(at)?.parse::<u64>().ok()).sum()
}

fn replace_without_notice(label: &'static str, target: &str, gateway: &str) {
    const HEALED_WITHIN: Duration = Duration::from_secs(60);
    let lan = Lan::new();
    let [first, second] = &lan.routers;
    lan.switch.ip("link set p2 nomaster");
    second.ip("addr flush dev lan0");
    second.ip(&format!("addr add {gateway} dev lan0"));
    let (address, _) = gateway.split_once('/').expect("an address with its prefix");
    lan.host.ip(&format!("route add default via {address}"));
    // A closed port would be answered by ICMP, for which the router would ask for the host.
    let _sinks = [first.sink(PORT), second.sink(PORT)];
    let routers = [Capture::start(first, PORT, &["lo"]), Capture::start(second, PORT, &["lo"])];
    let mut scene = start(&lan, label, target);
    // The kernel confirms the neighbour when the agent has it asked. What was sent a good while
    // before that (once a second the agent notes how much it was) is above suspicion.
    const NOTED_EVERY: Duration = Duration::from_secs(2);
    scene.say_and_see(500);
    let last = mark();
    let view = scene.wait("done", NOTED_EVERY, |view| view.account.is_past(last));
    let (sure, said) = (view.account.sent, Instant::now());
    assert!(sure >= 500);
    while said.elapsed() < confirmed_ago(&lan.host, address) + NOTED_EVERY {
        assert!(said.elapsed() < HEALED_WITHIN, "nobody asks for {address}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(scene.view().suspected, 0);

    lan.switch.ip("link set p1 nomaster");
    lan.switch.ip("link set p2 master br0");
    let replaced = Instant::now();
    let healed = loop {
        let _ = scene.say(1);
        let found = routers[1].wait(0, Duration::from_millis(50), |one| one.to_us);
        if let Some(arrived) = found {
            break arrived.at - replaced;
        }
        assert!(replaced.elapsed() < HEALED_WITHIN, "{:#?}\n{}", scene.view(), scene.agent.log());
    };
    let last = scene.say(20).end - 1;
    let text = scene.text(last);
    let there =
        routers[1].wait(0, Duration::from_secs(5), |one| one.begins_with(&text) && one.to_us);
    assert!(there.is_some(), "{:#?}\n{}", scene.view(), scene.agent.log());
    let view = scene.wait("sure again", Duration::from_secs(5), |view| view.suspected > 0);

    let outcome = scene.finish(&Expected::default());
    let arrived: BTreeSet<u64> = routers
        .iter()
        .flat_map(|router| router.all())
        .filter(|one| one.to_us)
        .map(|one| one.seq)
        .collect();
    let left: BTreeSet<u64> = outcome.arrived.iter().map(|one| one.seq).collect();
    let vanished = left.difference(&arrived).count() as u64;
    println!(
        "HEAL {label}: {:.1} s, limit {} s; {vanished} records vanished, {} suspected",
        healed.as_secs_f64(),
        HEALED_WITHIN.as_secs(),
        view.suspected
    );
    assert!(vanished > 0, "it noticed at once?");
    // All that vanished, and nothing that was sent before the last confirmation.
    let doubtful = outcome.view.account.sent - sure;
    assert!((vanished..=doubtful).contains(&outcome.view.suspected), "{doubtful}");
}

/// How long ago a neighbour was last confirmed, in whole seconds
/// (`ip -s neigh`: used/confirmed/updated).
fn confirmed_ago(host: &Namespace, address: &str) -> Duration {
    let words = format!("-s -n {} neigh show to {address} dev up0", host.name());
    let out = Command::new("ip").args(words.split(' ')).output().expect("run ip");
    let text = String::from_utf8(out.stdout).expect("text");
    let seconds = text
        .split_once(" used ")
        .and_then(|(_, ages)| ages.split('/').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("{words}: {text:?}"));
    Duration::from_secs(seconds)
}

#[test]
fn an_ipv6_next_hop_with_a_link_local_address() {
    if !ready("an_ipv6_next_hop_with_a_link_local_address") {
        return;
    }
    let net = Pair::new();
    net.left.sysctl("net/ipv6/conf/left0/keep_addr_on_down", "1");
    net.left.sysctl("net/ipv6/conf/left0/accept_dad", "0");
    net.right.ip("addr add 2001:db8:99::10/128 dev lo");
    // Made from the MAC (RFC 4291, appendix A).
    let route = "-6 route add 2001:db8:99::/64 via fe80::ff:fe00:2 dev left0";
    net.left.ip(route);
    let mut scene = Scene::start("link-local", &net.left, &net.right, TARGET_V6);
    for _ in 0..ROUNDS {
        scene.round(
            || net.left.ip("link set left0 down"),
            &["device_down", "no_route"],
            || {
                net.left.ip("link set left0 up");
                net.left.ip(route);
            },
            told_and_done(|notice| notice.is_running("left0")),
        );
        let hop = scene.view().next_hop.expect("a next hop");
        assert_eq!(hop.gateway.as_deref(), Some("fe80::ff:fe00:2"));
    }
    scene.judge(LIMIT);
    let outcome = scene.finish(&Expected::default());
    let global: IpAddr = "2001:db8::1".parse().expect("an address");
    assert!(outcome.arrived.iter().all(|one| one.from.ip() == global && one.to_us));
}
