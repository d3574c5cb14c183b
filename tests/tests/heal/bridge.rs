//! The device becomes a port of a bridge, and is released again. The kernel's netconsole
//! ends a target whose device joins a bridge; here it goes on.

use agent_tests::netns::{LEFT_MAC, LEFT_V4, Pair};

use super::{
    link::TARGET,
    scene::{Expected, LIMIT_BIND, Scene, ready, told},
};

#[test]
fn a_device_joins_a_bridge_and_leaves_it() {
    if !ready("a_device_joins_a_bridge_and_leaves_it") {
        return;
    }
    for (label, target) in [
        ("bridge-auto", TARGET.to_owned()),
        ("bridge-device", format!("{TARGET}\ndevice = \"left0\"")),
    ] {
        let net = Pair::new();
        net.left.ip("link add br0 type bridge");
        net.left.ip("link set br0 up");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..2 {
            // As it is done: first the port, and the address later. The port still reaches
            // the receiver, so nothing has to wait.
            scene.say_and_see(5);
            net.left.ip("link set left0 master br0");
            let said = scene.say_evenly(200, 400, 0);
            let _ = scene.arrival(said.end - 1);

            net.left.ip("addr del 192.0.2.1/24 dev left0");
            scene.wait_waiting(&[]);
            scene.recover(
                || net.left.ip("addr add 192.0.2.1/24 dev br0"),
                told(|notice| notice.is_usable(LEFT_V4.into())),
            );
            assert_eq!(scene.view().next_hop.expect("a next hop").device, "br0");
            scene.say_and_see(20);

            net.left.ip("link set left0 nomaster");
            net.left.ip("addr del 192.0.2.1/24 dev br0");
            scene.wait_waiting(&[]);
            scene.recover(
                || net.left.ip("addr add 192.0.2.1/24 dev left0"),
                told(|notice| notice.is_usable(LEFT_V4.into())),
            );
            assert_eq!(scene.view().next_hop.expect("a next hop").device, "left0");
            scene.say_and_see(20);
        }
        scene.judge(LIMIT_BIND);
        let outcome = scene.finish(&Expected { vanished: 8, ..Expected::default() });
        // A bridge has the MAC of its only port.
        assert!(outcome.arrived.iter().all(|one| one.src_mac == LEFT_MAC && one.to_us));
    }
}

/// The other way round: the target uses the bridge, whose port goes and comes back.
#[test]
fn the_port_of_a_bridge_goes_and_comes_back() {
    if !ready("the_port_of_a_bridge_goes_and_comes_back") {
        return;
    }
    let net = Pair::new();
    net.left.ip("addr del 192.0.2.1/24 dev left0");
    net.left.ip("link add br0 address 02:00:00:00:00:01 type bridge");
    net.left.ip("link set left0 master br0");
    net.left.ip("link set br0 up");
    net.left.ip("addr add 192.0.2.1/24 dev br0");
    let mut scene = Scene::start("bridge-port", &net.left, &net.right, TARGET);
    for _ in 0..3 {
        scene.round(
            || net.left.ip("link set left0 nomaster"),
            &["no_carrier"],
            || net.left.ip("link set left0 master br0"),
            told(|notice| notice.is_sending("br0")),
        );
    }
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected { vanished: 8, ..Expected::default() });
}
