//! Devices on top of others: VLAN, bond and team, and what the kernel's bonding selftest
//! asks of netconsole (`tools/testing/selftests/drivers/net/bonding/netcons_over_bonding.sh`),
//! with the answers that the agent gives instead of a refusal. And events of devices by
//! a program, which the hardened kernels that refuse fentry cannot show.
//!
//! `cargo xtask vm` runs this file in a VM, where all of it must run; elsewhere a test
//! whose kind of device the kernel does not have is skipped. Emulated machines are slow, so
//! the times to heal are printed and judged with much room.

use std::{process::Command, time::Duration};

use agent_tests::netns::{LEFT_V4, Namespace, Pair};

#[allow(dead_code, reason = "shared with the tests of heal.rs, which use more of it")]
#[path = "heal/scene.rs"]
mod scene;

use scene::{Expected, Scene, ready, told};

const TARGET: &str = "remote = \"192.0.2.2:6666\"";
const LIMIT: Duration = Duration::from_millis(250);
/// Behind two cables is a bridge, whose ports are told of their carrier by the kernel's link watch:
/// once a second at most (`net/core/link_watch.c`). What is asked before is not answered, and a
/// bond's port and the bridge's may have to wait one after the other. An emulated machine whose host
/// is busy takes its time besides.
const LIMIT_BRIDGE: Duration = Duration::from_secs(4);

/// Whether this kernel has a kind of device.
fn ready_for(test: &str, kind: &str) -> bool {
    let ready = ready(test);
    assert!(ready || !in_vm(), "{test}: skipped where it has to run");
    if !ready {
        return false;
    }
    let probe = Pair::new();
    let (name, of) = (probe.left.name(), if kind == "vlan" { "link left0 " } else { "" });
    let words = format!("-n {name} link add {of}name probe type {kind}");
    let words = words
        .split_whitespace()
        .chain((kind == "vlan").then_some(["id", "9"]).into_iter().flatten());
    let made = Command::new("ip").args(words).output().expect("run ip");
    if made.status.success() {
        return true;
    }
    let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    assert!(!in_vm(), "{test}: no {kind} here: {why}");
    println!(
        "SKIPPED: {test}: this kernel has no {kind} devices ({why}); `cargo xtask vm` runs it"
    );
    false
}

fn in_vm() -> bool {
    std::env::var_os("NETCONSOLE_AGENT_VM").is_some()
}

fn take_addresses(namespace: &Namespace, device: &str) {
    namespace.ip(&format!("addr flush dev {device}"));
}

/// Two cables: left0 and left1, whose other ends are ports of a bridge with the
/// receiver's address.
fn two_cables() -> Pair {
    let net = Pair::new();
    take_addresses(&net.left, "left0");
    take_addresses(&net.right, "right0");
    let name = net.right.name();
    net.left.ip(&format!(
        "link add left1 address 02:00:00:00:00:11 type veth peer name right1 netns {name}"
    ));
    net.right.ip("link add br0 type bridge");
    for port in ["right0", "right1"] {
        net.right.ip(&format!("link set {port} master br0"));
        net.right.ip(&format!("link set {port} up"));
    }
    net.right.ip("link set br0 up");
    net.right.ip("addr add 192.0.2.2/24 dev br0");
    net
}

/// The bridge's ports see the frames, so the bridge itself is not captured as well.
fn start(net: &Pair, label: &'static str, target: &str) -> Scene {
    Scene::start_with(label, &net.left, (&net.right, &["br0"]), "", target, 1)
}

fn enslave(net: &Pair, port: &str, master: &str) {
    net.left.ip(&format!("link set {port} down"));
    net.left.ip(&format!("link set {port} master {master}"));
    net.left.ip(&format!("link set {port} up"));
}

fn bond(net: &Pair, ports: &[&str]) {
    net.left.ip("link add bond0 type bond mode active-backup miimon 20");
    for port in ports {
        enslave(net, port, "bond0");
    }
    net.left.ip("link set bond0 up");
    net.left.ip("addr add 192.0.2.1/24 dev bond0");
}

#[test]
fn a_vlan_follows_its_parent() {
    if !ready_for("a_vlan_follows_its_parent", "vlan") {
        return;
    }
    let net = Pair::new();
    for (side, parent, address) in
        [(&net.left, "left0", "192.0.2.1"), (&net.right, "right0", "192.0.2.2")]
    {
        take_addresses(side, parent);
        side.ip(&format!("link add link {parent} name {parent}.5 type vlan id 5"));
        side.ip(&format!("addr add {address}/24 dev {parent}.5"));
        side.ip(&format!("link set {parent}.5 up"));
    }
    // The parent sees the frames of its VLAN.
    let far = (&net.right, &["right0"][..]);
    let mut scene = Scene::start_with("vlan", &net.left, far, "", TARGET, 1);
    let lost = ["device_down", "no_carrier", "no_route"];
    for _ in 0..2 {
        scene.round(
            || net.left.ip("link set left0 down"),
            &lost,
            || net.left.ip("link set left0 up"),
            told(|notice| notice.is_running("left0.5")),
        );
        scene.round(
            || net.right.ip("link set right0 down"),
            &lost,
            || {
                net.right.ip("link set right0 up");
            },
            told(|notice| notice.is_running("left0.5")),
        );
        scene.round(
            || net.left.ip("link del left0.5"),
            &["no_device", "no_route"],
            || {
                net.left.ip("link add link left0 name left0.5 type vlan id 5");
                net.left.ip("addr add 192.0.2.1/24 dev left0.5");
                net.left.ip("link set left0.5 up");
            },
            told(|notice| notice.is_running("left0.5")),
        );
    }
    net.left.ip("link set left0 address 02:00:00:00:00:77");
    scene.say_and_see(5);
    let hop = scene.view().next_hop.expect("a next hop");
    assert_eq!(hop.device, "left0.5");
    scene.judge(LIMIT);
    let outcome = scene.finish(&Expected::default());
    assert_eq!(outcome.view.egress.expect("a way out").kind, "xdp");
}

#[test]
fn a_bond_fails_over_and_loses_all_its_ports() {
    if !ready_for("a_bond_fails_over_and_loses_all_its_ports", "bond") {
        return;
    }
    let net = two_cables();
    bond(&net, &["left0", "left1"]);
    let mut scene = start(&net, "bond", TARGET);
    assert_eq!(scene.view().next_hop.expect("a next hop").device, "bond0");
    for _ in 0..2 {
        // One cable is enough.
        for port in ["right0", "right1"] {
            net.right.ip(&format!("link set {port} down"));
            std::thread::sleep(Duration::from_millis(400));
            scene.say_and_see(10);
            net.right.ip(&format!("link set {port} up"));
            std::thread::sleep(Duration::from_millis(400));
            scene.say_and_see(10);
        }
        scene.round(
            || {
                net.right.ip("link set right0 down");
                net.right.ip("link set right1 down");
            },
            &["no_carrier", "no_route"],
            || {
                net.right.ip("link set right0 up");
                net.right.ip("link set right1 up");
            },
            told(|notice| notice.is_running("bond0")),
        );
    }
    scene.judge(LIMIT_BRIDGE);
    let _ = scene.finish(&Expected { vanished: 50, refused_at_most: 20, ..Expected::default() });
}

/// Where netconsole refuses a port (2), or ends the target whose device becomes one (4),
/// the agent uses the master; and nothing keeps a device from becoming a port (6).
#[test]
fn the_kernels_bonding_selftest() {
    if !ready_for("the_kernels_bonding_selftest", "bond") {
        return;
    }
    let net = two_cables();
    bond(&net, &["left0"]);
    // 1 and 2: on the master, and on a port of it.
    let by_port = format!("{TARGET}\ndevice = \"left0\"");
    for target in [format!("{TARGET}\ndevice = \"bond0\""), by_port.clone()] {
        let mut scene = start(&net, "bond-port", &target);
        scene.say_and_see(10);
        assert_eq!(scene.view().next_hop.expect("a next hop").device, "bond0");
        // 5: another port joins the bond.
        enslave(&net, "left1", "bond0");
        scene.say_and_see(10);
        net.left.ip("link set left1 nomaster");
        scene.say_and_see(10);
        let _ =
            scene.finish(&Expected { vanished: 50, refused_at_most: 20, ..Expected::default() });
    }
    // 3: after the bond is deleted, on what was its port; 4 and 6: the port is enslaved again.
    let mut scene = start(&net, "bond-deleted", &by_port);
    for _ in 0..2 {
        scene.say_and_see(5);
        net.left.ip("link del bond0");
        net.left.ip("addr add 192.0.2.1/24 dev left0");
        net.left.ip("link set left0 up");
        let waiting = scene.say(10);
        let _ = scene.arrival(waiting.end - 1);
        assert_eq!(scene.wait_active().next_hop.expect("a next hop").device, "left0");
        net.left.ip("addr del 192.0.2.1/24 dev left0");
        bond(&net, &["left0"]);
        let waiting = scene.say(10);
        let _ = scene.arrival(waiting.end - 1);
        let view = scene.wait("on the bond", Duration::from_secs(10), |view| {
            view.next_hop.as_ref().is_some_and(|hop| hop.device == "bond0")
        });
        assert!(view.warnings.iter().any(|words| words.contains("port of bond0")), "{view:?}");
    }
    let _ = scene.finish(&Expected { vanished: 50, refused_at_most: 20, ..Expected::default() });
}

#[test]
fn a_team_loses_its_ports_and_gets_them_back() {
    if !ready_for("a_team_loses_its_ports_and_gets_them_back", "team") {
        return;
    }
    let net = two_cables();
    net.left.ip("link add team0 type team");
    let teamnl = |words: &str| {
        let command = format!("netns exec {} teamnl team0 {words}", net.left.name());
        let out = Command::new("ip").args(command.split(' ')).output().expect("run teamnl");
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    };
    teamnl("setoption mode activebackup");
    enslave(&net, "left0", "team0");
    teamnl(&format!("setoption activeport {}", net.left.ifindex("left0")));
    net.left.ip("link set team0 up");
    net.left.ip("addr add 192.0.2.1/24 dev team0");
    let target = format!("{TARGET}\ndevice = \"left0\"");
    let mut scene = start(&net, "team", &target);
    assert_eq!(scene.view().next_hop.expect("a next hop").device, "team0");
    for _ in 0..2 {
        scene.round(
            || net.right.ip("link set right0 down"),
            &["no_carrier", "no_route", "neighbour_unresolved"],
            || net.right.ip("link set right0 up"),
            told(|notice| notice.is_running("team0")),
        );
    }
    // The device leaves the team and becomes its port again, as the target goes on.
    for _ in 0..2 {
        scene.say_and_see(5);
        net.left.ip("link set left0 nomaster");
        net.left.ip("addr del 192.0.2.1/24 dev team0");
        scene.wait_waiting(&[]);
        scene.recover(
            || {
                net.left.ip("link set left0 up");
                net.left.ip("addr add 192.0.2.1/24 dev left0");
            },
            told(|notice| notice.is_usable(LEFT_V4.into())),
        );
        assert_eq!(scene.view().next_hop.expect("a next hop").device, "left0");
        scene.say_and_see(5);

        net.left.ip("addr del 192.0.2.1/24 dev left0");
        scene.wait_waiting(&[]);
        scene.recover(
            || {
                enslave(&net, "left0", "team0");
                teamnl(&format!("setoption activeport {}", net.left.ifindex("left0")));
                net.left.ip("addr add 192.0.2.1/24 dev team0");
            },
            told(|notice| notice.is_usable(LEFT_V4.into())),
        );
        let view = scene.wait("on the team", Duration::from_secs(10), |view| {
            view.next_hop.as_ref().is_some_and(|hop| hop.device == "team0")
        });
        assert!(view.warnings.iter().any(|words| words.contains("port of team0")), "{view:?}");
        scene.say_and_see(5);
    }
    scene.judge(LIMIT_BRIDGE);
    let _ = scene.finish(&Expected { vanished: 50, refused_at_most: 20, ..Expected::default() });
}

/// The stock kernels of the VMs allow fentry.
#[test]
fn events_come_from_a_program() {
    if !ready("events_come_from_a_program") {
        return;
    }
    if !in_vm() {
        println!(
            "SKIPPED: events_come_from_a_program: `cargo xtask vm` runs it, where fentry is allowed"
        );
        return;
    }
    let net = Pair::new();
    let mut scene = Scene::start("program", &net.left, &net.right, TARGET);
    let log = scene.agent.log();
    assert!(log.contains("by=\"fentry call_netdevice_notifiers_info"), "{log}");
    for _ in 0..5 {
        scene.round(
            || net.left.ip("link set left0 down"),
            &["device_down", "no_route"],
            || net.left.ip("link set left0 up"),
            told(|notice| notice.is_running("left0")),
        );
    }
    net.left.ip("link del left0");
    let _ = scene.wait_waiting(&["no_device", "no_route"]);
    let name = net.right.name();
    net.left.ip(&format!(
        "link add left0 address 02:00:00:00:00:01 type veth peer name right0 netns {name}"
    ));
    net.left.ip("addr add 192.0.2.1/24 dev left0");
    net.right.ip("addr add 192.0.2.2/24 dev right0");
    net.right.ip("link set right0 up");
    net.left.ip("link set left0 up");
    scene.say_and_see(5);
    scene.judge(LIMIT);
    let _ = scene.finish(&Expected::default());
}
