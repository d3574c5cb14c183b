//! The device stays, its link or what is written on it changes.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_tests::netns::{LEFT_MAC, Pair, RIGHT_MAC};

use super::scene::{Expected, LIMIT, ROUNDS, Scene, ready, told};

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
        scene.round(
            || net.left.ip("link set third0 down"),
            &["device_down", "no_route"],
            || net.left.ip("link set third0 up"),
            told(|notice| notice.is_sending("third0")),
        );
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
        for _ in 0..ROUNDS {
            net.left.ip("link set left0 mtu 600");
            std::thread::sleep(Duration::from_millis(200));
            let _ = scene.say_evenly(4, 0, 700);
            scene.say_and_see(5);
            net.left.ip("link set left0 mtu 1500");
            let raised = Instant::now();
            std::thread::sleep(LIMIT);
            let large = scene.say_evenly(1, 0, 700);
            let first = scene.arrival(large.start);
            println!("{label}: {:?} after it was raised", first.at - raised);
        }
        let lost = 4 * ROUNDS;
        let outcome =
            scene.finish(&Expected { lost: &[("too_long", lost)], ..Expected::default() });
        assert_eq!(outcome.view.account.lost["too_long"], lost as u64);
        assert_eq!(outcome.missing.len(), lost);
    }
}
