//! Neighbours that do not answer, MACs that are told by hand, and the wrong port.

use std::{
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use agent_tests::netns::Pair;

use super::{
    link::TARGET,
    scene::{Expected, LIMIT, ROUNDS, Scene, ms, ready, told},
};

#[test]
fn a_neighbour_that_failed_answers() {
    if !ready("a_neighbour_that_failed_answers") {
        return;
    }
    let net = Pair::new();
    let late: IpAddr = "192.0.2.9".parse().expect("an address");
    let far = (&net.right, &[][..]);
    let target = "remote = \"192.0.2.9:6666\"";
    let mut scene = Scene::start_with("failed", &net.left, far, "", target, 0);
    scene.wait_waiting(&["neighbour_unresolved"]);
    let gone = |net: &Pair| {
        net.right.ip("addr del 192.0.2.9/24 dev right0");
        net.left.ip("neigh del 192.0.2.9 dev left0");
    };
    // It asks for this host, and so is known.
    for round in 0..ROUNDS {
        if round == 0 {
            // Until the kernel has given up.
            std::thread::sleep(Duration::from_millis(3_500));
        }
        scene.recover(
            || {
                net.right.ip("addr add 192.0.2.9/24 dev right0");
                net.right.run(|| {
                    let socket = UdpSocket::bind("192.0.2.9:7000").expect("bind");
                    socket.send_to(b"here", "192.0.2.1:7000").expect("send");
                });
            },
            told(|notice| notice.is_reachable(late)),
        );
        scene.say_and_see(5);
        gone(&net);
        scene.wait_waiting(&["neighbour_unresolved"]);
    }
    // It says nothing, and is found by asking.
    for _ in 0..2 {
        let added = Instant::now();
        scene.recover(
            || net.right.ip("addr add 192.0.2.9/24 dev right0"),
            told(|notice| notice.is_reachable(late)),
        );
        println!("failed: {:.0} ms after the address was there", ms(added.elapsed()));
        scene.say_and_see(5);
        gone(&net);
        scene.wait_waiting(&["neighbour_unresolved"]);
    }
    net.right.ip("addr add 192.0.2.9/24 dev right0");
    scene.wait_active();
    scene.judge(LIMIT);
    let _ = scene.finish(&Expected::default());
}

#[test]
fn a_static_mac_that_disagrees_is_told_and_used() {
    if !ready("a_static_mac_that_disagrees_is_told_and_used") {
        return;
    }
    let net = Pair::new();
    net.right.sysctl("net/ipv4/conf/right0/arp_notify", "1");
    let target = format!("{TARGET}\nremote_mac = \"02:00:00:00:00:99\"");
    let mut scene = Scene::start("static-mac", &net.left, &net.right, &target);
    scene.say_and_see(5);
    // Somebody else on this host speaks with the receiver.
    net.left.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.send_to(b"ask", "192.0.2.2:9").expect("send");
    });
    let view = scene.wait("warned", Duration::from_secs(3), |view| !view.warnings.is_empty());
    let words = view.warnings.join("; ");
    for mac in ["02:00:00:00:00:99", "02:00:00:00:00:02"] {
        assert!(words.contains(mac), "{words}");
    }
    scene.say_and_see(5);
    // The receiver gets the MAC that was configured, and says so.
    net.right.ip("link set right0 address 02:00:00:00:00:99");
    scene.wait("content", Duration::from_secs(3), |view| view.warnings.is_empty());
    scene.say_and_see(5);
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.arrived.iter().all(|one| one.dst_mac == [2, 0, 0, 0, 0, 0x99]));
}

/// Two cables, and the target is bound to the one that the route does not take.
#[test]
fn the_wrong_port_is_told() {
    if !ready("the_wrong_port_is_told") {
        return;
    }
    let net = Pair::new();
    net.left.ip(&format!("link add left1 type veth peer name right1 netns {}", net.right.name()));
    net.left.ip("addr add 192.0.3.1/24 dev left1");
    net.right.ip("addr add 192.0.3.2/24 dev right1");
    net.left.ip("link set left1 up");
    net.right.ip("link set right1 up");
    let target = format!("{TARGET}\ndevice = \"left1\"");
    let mut scene = Scene::start("wrong-port", &net.left, &net.right, &target);
    let view = scene.wait("warned", Duration::from_secs(3), |view| !view.warnings.is_empty());
    let words = view.warnings.join("; ");
    for device in ["left0", "left1"] {
        assert!(words.contains(device), "{words}");
    }
    scene.say_and_see(20);
    // Once the route leads there, all is well.
    net.left.ip("route add 192.0.2.2/32 dev left1");
    scene.wait("content", Duration::from_secs(3), |view| view.warnings.is_empty());
    scene.say_and_see(20);
    let right1 = net.right.ifindex("right1") as usize;
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.arrived.iter().all(|one| one.ifindex == right1 && one.to_us));
}
