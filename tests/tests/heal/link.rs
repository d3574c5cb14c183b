//! The device stays, its link or what is written on it changes.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_tests::{
    kmsg::mark,
    netns::{LEFT_MAC, Pair, RIGHT_MAC},
};

use super::scene::{Expected, HISTORY, LIMIT, ROUNDS, Scene, ready, told};

pub(super) const TARGET: &str = "remote = \"192.0.2.2:6666\"";

#[test]
fn a_device_goes_down_and_up() {
    if !ready("a_device_goes_down_and_up") {
        return;
    }
    for (label, egress) in [("down-up-xdp", "xdp"), ("down-up-packet", "packet")] {
        let net = Pair::new();
        let target = format!("{TARGET}\negress = \"{egress}\"");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("link set left0 down"),
                &["device_down", "no_route"],
                || net.left.ip("link set left0 up"),
                told(|notice| notice.is_sending("left0")),
            );
        }
        scene.judge(LIMIT);
        scene.assert_went(&["waiting (device_down)", "active"]);
        let outcome = scene.finish(&Expected::default());
        assert_eq!(outcome.view.egress.expect("a way out").kind, egress);
        for one in &outcome.arrived {
            assert_eq!((one.src_mac, one.dst_mac), (LEFT_MAC, RIGHT_MAC), "{one:?}");
        }
    }
}

#[test]
fn a_device_goes_down_and_up_with_ipv6() {
    if !ready("a_device_goes_down_and_up_with_ipv6") {
        return;
    }
    let net = Pair::new();
    net.left.sysctl("net/ipv6/conf/left0/keep_addr_on_down", "1");
    net.left.sysctl("net/ipv6/conf/left0/accept_dad", "0");
    let target = "remote = \"[2001:db8::2]:6666\"";
    let mut scene = Scene::start("down-up6", &net.left, &net.right, target);
    let own: IpAddr = "2001:db8::1".parse().expect("an address");
    for _ in 0..ROUNDS {
        scene.round(
            || net.left.ip("link set left0 down"),
            &["device_down", "no_route"],
            || net.left.ip("link set left0 up"),
            told(|notice| notice.is_running("left0")),
        );
    }
    scene.judge(LIMIT);
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.arrived.iter().all(|one| one.from.ip() == own));
}

#[test]
fn a_carrier_is_lost_and_comes_back() {
    if !ready("a_carrier_is_lost_and_comes_back") {
        return;
    }
    let net = Pair::new();
    let mut scene = Scene::start("carrier", &net.left, &net.right, TARGET);
    for _ in 0..ROUNDS {
        scene.round(
            || net.right.ip("link set right0 down"),
            &["no_carrier"],
            || net.right.ip("link set right0 up"),
            told(|notice| notice.is_sending("left0")),
        );
    }
    scene.judge(LIMIT);
    scene.assert_went(&["waiting (no_carrier)", "active"]);
    let _ = scene.finish(&Expected::default());
}

/// What is in flight while the device goes down is not overtaken by what is behind it. The
/// kernel drops the first packets of a device that goes down and refuses the others (`ENETDOWN`),
/// which leave before anything else later: so a few may have to be given up for the order.
#[test]
fn a_device_goes_down_and_up_under_load() {
    const FLAPS: u32 = 40;
    if !ready("a_device_goes_down_and_up_under_load") {
        return;
    }
    let net = Pair::new();
    let target = format!("{TARGET}\npace = \"off\"");
    let mut scene = Scene::start("down-up-load", &net.left, &net.right, &target);
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..FLAPS {
                std::thread::sleep(Duration::from_millis(40));
                net.left.ip("link set left0 down");
                std::thread::sleep(Duration::from_millis(30));
                net.left.ip("link set left0 up");
            }
            done.store(true, Ordering::Release);
        });
        let mut said = 0;
        while !done.load(Ordering::Acquire) {
            // Many at once, so that a socket has some when its device goes.
            said = scene.say(40).end;
            std::thread::sleep(Duration::from_millis(1));
        }
        said
    });
    let _ = scene.arrival(said - 1);
    // Mostly none; up to six of 100,000 were seen.
    let expected = Expected { refused_at_most: 2 * FLAPS as usize, ..Expected::default() };
    println!("down-up-load: {} refused", scene.finish(&expected).missing.len());
}

#[test]
fn a_device_is_renamed() {
    if !ready("a_device_is_renamed") {
        return;
    }
    for (label, target) in
        [("renamed-auto", TARGET.to_owned()), ("renamed", format!("{TARGET}\ndevice = \"left0\""))]
    {
        let net = Pair::new();
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        scene.say_and_see(5);
        for (old, new) in [("left0", "other0"), ("other0", "left0")] {
            net.left.ip(&format!("link set {old} name {new}"));
            scene.say_and_see(20);
            scene.wait("using the new name", Duration::from_secs(2), |view| {
                let device = view.next_hop.as_ref().map(|hop| hop.device.as_str());
                view.state == "active" && device == Some(new)
            });
            scene.say_and_see(5);
        }
        // Also down and up under the other name.
        net.left.ip("link set left0 name third0");
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("link set third0 down"),
                &["device_down", "no_route"],
                || net.left.ip("link set third0 up"),
                told(|notice| notice.is_sending("third0")),
            );
        }
        scene.judge(LIMIT);
        let _ = scene.finish(&Expected::default());
    }
}

#[test]
fn the_own_mac_changes() {
    if !ready("the_own_mac_changes") {
        return;
    }
    let net = Pair::new();
    let mut scene = Scene::start("own-mac", &net.left, &net.right, TARGET);
    scene.say_and_see(5);
    let mut macs = vec![LEFT_MAC];
    for host in [0x11, 0x12, 0x13] {
        let mac = [2, 0, 0, 0, 0, host];
        macs.push(mac);
        let from = scene.capture.count();
        net.left.ip(&format!("link set left0 address 02:00:00:00:00:{host:02x}"));
        let changed = Instant::now();
        // Evenly, so that one of them is the first with the new address.
        let said = scene.say_evenly(300, 1_000, 0);
        let text = scene.text(said.start);
        let prefix = text.split_once(&said.start.to_string()).expect("a number").0.to_owned();
        let first = scene
            .capture
            .wait(from, Duration::from_secs(2), |one| {
                one.src_mac == mac && one.begins_with(&prefix)
            })
            .unwrap_or_else(|| panic!("nothing comes from {host:02x}\n{}", scene.agent.log()));
        scene.healed(first.at.saturating_duration_since(changed));
        let _ = scene.arrival(said.end - 1);
    }
    scene.judge(LIMIT);
    let outcome = scene.finish(&Expected::default());
    // From one to the next, and never back.
    let mut seen: Vec<_> = outcome.arrived.iter().map(|one| one.src_mac).collect();
    seen.dedup();
    assert_eq!(seen, macs);
}

#[test]
fn the_mtu_is_lowered_and_raised() {
    if !ready("the_mtu_is_lowered_and_raised") {
        return;
    }
    for (label, egress) in [("mtu-xdp", "xdp"), ("mtu-packet", "packet")] {
        let net = Pair::new();
        let target = format!("{TARGET}\negress = \"{egress}\"");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        let large = scene.say_evenly(5, 0, 700);
        let _ = scene.arrival(large.end - 1);
        let mut large = 5;
        for _ in 0..ROUNDS {
            net.left.ip("link set left0 mtu 600");
            // Over 100 ms: the last of them long after the agent was told.
            let low = scene.say_evenly(20, 200, 700);
            scene.say_and_see(5);
            let arrived = scene.capture.all();
            for number in low.end - 5..low.end {
                let text = scene.text(number);
                assert!(!arrived.iter().any(|one| one.begins_with(&text)), "{number} is too long");
            }
            let from = scene.capture.count();
            net.left.ip("link set left0 mtu 1500");
            let raised = Instant::now();
            // Evenly, so that one of them is the first that fits again.
            let high = scene.say_evenly(100, 1_000, 700);
            let text = scene.text(high.start);
            let prefix = text.split_once(&high.start.to_string()).expect("a number").0.to_owned();
            let first = scene
                .capture
                .wait(from, Duration::from_secs(2), |one| one.begins_with(&prefix))
                .unwrap_or_else(|| panic!("nothing fits again\n{}", scene.agent.log()));
            scene.healed(first.at.saturating_duration_since(raised));
            let _ = scene.arrival(high.end - 1);
            large += low.len() + high.len();
        }
        scene.judge(LIMIT);
        let last = mark();
        let view = scene.wait("done", Duration::from_secs(5), |view| view.account.is_past(last));
        let lost = view.account.lost["too_long"] as usize;
        // What was too long for the device before the agent was told.
        let refused = view.account.lost["refused"] as usize;
        println!("{label}: of {large} large ones {lost} were too long, {refused} refused");
        assert!(lost >= 5 * ROUNDS && refused <= 20 * ROUNDS, "{lost}, {refused}");
        let outcome = scene.finish(&Expected {
            lost: &[("too_long", lost)],
            refused_at_most: refused,
            ..Expected::default()
        });
        assert_eq!(outcome.missing.len(), lost + refused);
    }
}

/// `status` tells the last sixteen changes of a target's state; the log tells each of them
/// once, the first sixteen as they deserve and then, for it may come back as kernel records,
/// one a minute, with the others left to `debug`.
#[test]
fn sixteen_changes_are_told_and_each_is_logged_once() {
    if !ready("sixteen_changes_are_told_and_each_is_logged_once") {
        return;
    }
    let net = Pair::new();
    let mut scene = Scene::start("history", &net.left, &net.right, TARGET);
    for _ in 0..8 {
        scene.round(
            || net.right.ip("link set right0 down"),
            &["no_carrier"],
            || net.right.ip("link set right0 up"),
            told(|notice| notice.is_sending("left0")),
        );
    }
    scene.judge(LIMIT);
    scene.assert_went(&["waiting (no_carrier)", "active", "waiting (no_carrier)", "active"]);
    assert_eq!(scene.view().transitions.len(), HISTORY);
    let logged = scene.logged();
    assert!(logged.len() > HISTORY, "{logged:#?}");
    assert_eq!(logged[0].0, "disabled", "{logged:#?}");
    for pair in logged.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{logged:#?}");
    }
    let log = scene.agent.log();
    let is_debug: Vec<bool> = log
        .lines()
        .filter(|line| line.contains("target_name=\"peer\"") && line.contains(" from=\""))
        .map(|line| line.contains(" DEBUG "))
        .collect();
    let shown: Vec<_> = (0..logged.len()).filter(|at| !is_debug[*at]).collect();
    assert_eq!(shown, (0..HISTORY).collect::<Vec<_>>(), "{log}");
    let _ = scene.finish(&Expected::default());
}
