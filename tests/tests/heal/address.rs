//! The source address goes and comes back.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use agent_tests::netns::{LEFT_V4, Pair};

use super::{
    link::TARGET,
    scene::{Expected, LIMIT, ROUNDS, Scene, ready, told},
};

#[test]
fn an_ipv4_address_is_removed_and_added() {
    if !ready("an_ipv4_address_is_removed_and_added") {
        return;
    }
    for (label, target) in [
        ("address", TARGET.to_owned()),
        ("address-device", format!("{TARGET}\ndevice = \"left0\"")),
        ("address-local", format!("{TARGET}\nlocal = \"192.0.2.1:6665\"")),
    ] {
        let net = Pair::new();
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("addr del 192.0.2.1/24 dev left0"),
                &["no_address", "no_route"],
                || net.left.ip("addr add 192.0.2.1/24 dev left0"),
                told(|notice| notice.is_usable(LEFT_V4.into())),
            );
        }
        scene.judge(LIMIT);
        let outcome = scene.finish(&Expected::default());
        assert!(outcome.arrived.iter().all(|one| one.from.ip() == LEFT_V4), "{label}");
    }
}

/// Another address takes the place of the one in use: what leaves later leaves from it.
#[test]
fn an_address_is_replaced() {
    if !ready("an_address_is_replaced") {
        return;
    }
    for (label, egress) in [("readdressed-xdp", "xdp"), ("readdressed-udp", "udp")] {
        let net = Pair::new();
        let target = format!("{TARGET}\negress = \"{egress}\"");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        scene.say_and_see(5);
        // Else the addresses of a subnet go with its first one.
        net.left.sysctl("net/ipv4/conf/left0/promote_secondaries", "1");
        let mut old = "192.0.2.1".to_owned();
        for host in [31, 32, 33] {
            let new = format!("192.0.2.{host}");
            let address: IpAddr = new.parse().expect("an address");
            let from = scene.capture.count();
            net.left.ip(&format!("addr add {new}/24 dev left0"));
            net.left.ip(&format!("addr del {old}/24 dev left0"));
            let replaced = Instant::now();
            let said = scene.say_evenly(200, 1_000, 0);
            let first = scene
                .capture
                .wait(from, Duration::from_secs(5), |one| one.from.ip() == address)
                .unwrap_or_else(|| panic!("nothing from {new}\n{}", scene.agent.log()));
            scene.healed(first.at.saturating_duration_since(replaced));
            let _ = scene.arrival(said.end - 1);
            old = new;
        }
        scene.judge(LIMIT);
        let _ = scene.finish(&Expected::default());
    }
}

/// While an address is tentative (RFC 4862, 5.4) nothing may be sent from it.
#[test]
fn an_ipv6_address_is_tentative_first() {
    if !ready("an_ipv6_address_is_tentative_first") {
        return;
    }
    let own: IpAddr = "2001:db8::9".parse().expect("an address");
    for (label, local) in [("tentative", ""), ("tentative-local", "local = \"[2001:db8::9]:6665\"")]
    {
        let net = Pair::new();
        // 500 ms of waiting instead of a second, and no delay before.
        net.left.sysctl("net/ipv6/neigh/left0/retrans_time_ms", "500");
        net.left.sysctl("net/ipv6/conf/left0/router_solicitation_delay", "0");
        net.left.ip("addr del 2001:db8::1/64 dev left0");
        net.left.ip("addr add 2001:db8::9/64 dev left0");
        let target = format!("remote = \"[2001:db8::2]:6666\"\n{local}");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..2 {
            scene.say_and_see(5);
            net.left.ip("addr del 2001:db8::9/64 dev left0");
            if !local.is_empty() {
                scene.wait_waiting(&["no_address", "no_route"]);
            }
            let cut = scene.monitor.count();
            net.left.ip("addr add 2001:db8::9/64 dev left0");
            let view = scene.wait_waiting(&["address_tentative"]);
            let words = view.waiting_for.unwrap_or_default();
            assert!(words.contains("duplicates"), "{words}");
            let waiting = scene.say(20);
            let usable = scene
                .monitor
                .wait(cut, Duration::from_secs(5), |notice| notice.is_usable(own))
                .expect("the address becomes usable");
            let first = scene.arrival(waiting.start);
            assert!(first.at >= usable - Duration::from_millis(5), "sent from a tentative address");
            scene.healed(first.at.saturating_duration_since(usable));
            let _ = scene.arrival(waiting.end - 1);
            scene.wait_active();
        }
        scene.judge(LIMIT);
        let outcome = scene.finish(&Expected::default());
        assert!(outcome.arrived.iter().all(|one| one.from.ip() == own), "{label}");
    }
}
