//! The device goes and comes back: the same, another one, or under another name.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use agent_tests::netns::{Namespace, Pair};

use super::{
    link::TARGET,
    scene::{Expected, LIMIT_BIND, ROUNDS, Scene, ready, told},
};

const MAC: &str = "02:00:00:00:00:01";

/// Plugs a new cable in where the old one was; the left end comes up last.
pub(super) fn connect(net: &Pair, left: &str, options: &str) {
    create(net, left, options);
    net.left.ip(&format!("addr add 192.0.2.1/24 dev {left}"));
    net.left.ip(&format!("link set {left} up"));
}

/// The same, with a left end that is down and has no address.
fn create(net: &Pair, left: &str, options: &str) {
    net.left.ip(&format!(
        "link add {left} {options} type veth peer name right0 address 02:00:00:00:00:02 netns {}",
        net.right.name()
    ));
    net.right.ip("addr add 192.0.2.2/24 dev right0");
    net.right.ip("link set right0 up");
}

#[test]
fn a_device_is_deleted_and_made_again() {
    if !ready("a_device_is_deleted_and_made_again") {
        return;
    }
    for (label, target) in [
        ("recreated", format!("{TARGET}\ndevice = \"left0\"")),
        ("recreated-auto", TARGET.to_owned()),
    ] {
        let net = Pair::new();
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("link del left0"),
                // Without a device of its own the target has lost its route.
                if label == "recreated" { &["no_device"] } else { &["no_device", "no_route"] },
                || connect(&net, "left0", "address 02:00:00:00:00:01"),
                told(|notice| notice.is_sending("left0")),
            );
            assert_eq!(scene.view().egress.expect("a way out").kind, "xdp", "{label}");
        }
        scene.judge(LIMIT_BIND);
        let _ = scene.finish(&Expected::default());
    }
}

#[test]
fn a_device_is_made_again_with_the_same_index() {
    if !ready("a_device_is_made_again_with_the_same_index") {
        return;
    }
    let net = Pair::new();
    let index = net.left.ifindex("left0");
    let target = format!("{TARGET}\ndevice = \"left0\"");
    let mut scene = Scene::start("same-index", &net.left, &net.right, &target);
    for _ in 0..ROUNDS {
        scene.round(
            || net.left.ip("link del left0"),
            &["no_device"],
            || connect(&net, "left0", &format!("index {index} address {MAC}")),
            told(|notice| notice.is_sending("left0")),
        );
        assert_eq!(net.left.ifindex("left0"), index);
    }
    // So fast that nobody may see it gone.
    scene.say_and_see(5);
    let waiting = {
        net.left.ip("link del left0");
        create(&net, "left0", &format!("index {index} address {MAC}"));
        net.left.ip("addr add 192.0.2.1/24 dev left0");
        let waiting = scene.say(20);
        net.left.ip("link set left0 up");
        waiting
    };
    let _ = scene.arrival(waiting.end - 1);
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected::default());
}

#[test]
fn a_device_known_by_its_mac_comes_back_under_another_name() {
    if !ready("a_device_known_by_its_mac_comes_back_under_another_name") {
        return;
    }
    let net = Pair::new();
    let target = format!("{TARGET}\ndevice = \"{MAC}\"");
    let mut scene = Scene::start("by-mac", &net.left, &net.right, &target);
    let mut old = "left0".to_owned();
    for round in 0..ROUNDS {
        let new = format!("other{round}");
        scene.round(
            || net.left.ip(&format!("link del {old}")),
            &["no_device"],
            || connect(&net, &new, &format!("address {MAC}")),
            told(|notice| notice.is_sending(&new)),
        );
        let hop = scene.view().next_hop.expect("a next hop");
        assert_eq!(hop.device, new);
        old = new;
    }
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected::default());
}

/// What the kernel's selftest of resuming targets asserts (`netcons_resume.sh`): removed,
/// the target stops; made again, it resumes by itself. By its MAC, which the device is given
/// while it is down and before it is renamed.
#[test]
fn a_target_resumes_as_the_kernels_own_does() {
    if !ready("a_target_resumes_as_the_kernels_own_does") {
        return;
    }
    for (label, device) in [("resume-name", "left0"), ("resume-mac", MAC)] {
        let net = Pair::new();
        let target = format!("{TARGET}\ndevice = \"{device}\"");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("link del left0"),
                &["no_device"],
                || {
                    if device == MAC {
                        create(&net, "eni0", "address 02:00:00:00:00:77");
                        net.left.ip(&format!("link set eni0 address {MAC}"));
                        net.left.ip("link set eni0 name left0");
                    } else {
                        create(&net, "left0", "");
                    }
                    net.left.ip("addr add 192.0.2.1/24 dev left0");
                    net.left.ip("link set left0 up");
                },
                told(|notice| notice.is_sending("left0")),
            );
        }
        scene.judge(LIMIT_BIND);
        scene.assert_went(&["waiting (no_device)", "active"]);
        let _ = scene.finish(&Expected::default());
    }
}

#[test]
fn a_device_moves_to_another_namespace_and_back() {
    if !ready("a_device_moves_to_another_namespace_and_back") {
        return;
    }
    let net = Pair::new();
    let other = Namespace::new("o");
    let target = format!("{TARGET}\ndevice = \"left0\"");
    let mut scene = Scene::start("moved", &net.left, &net.right, &target);
    for _ in 0..ROUNDS {
        scene.round(
            || net.left.ip(&format!("link set left0 netns {}", other.name())),
            &["no_device"],
            || {
                other.ip(&format!("link set left0 netns {}", net.left.name()));
                net.left.ip("addr add 192.0.2.1/24 dev left0");
                net.left.ip("link set left0 up");
            },
            told(|notice| notice.is_sending("left0")),
        );
    }
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected::default());
}

/// Queue 1 of a device that comes back with one queue: the target takes the next best way,
/// and AF_XDP again when the queue is there again.
#[test]
fn the_queues_become_fewer_and_more() {
    if !ready("the_queues_become_fewer_and_more") {
        return;
    }
    const QUEUES: &str = "numtxqueues 4 numrxqueues 4 address 02:00:00:00:00:01";
    let net = Pair::new();
    net.left.ip("link del left0");
    connect(&net, "left0", QUEUES);
    // The second target takes nothing but AF_XDP.
    let target = format!(
        "{TARGET}\ndevice = \"left0\"\nqueue = 1\n\
         [target.strict]\nremote = \"192.0.2.2:7777\"\ndevice = \"left0\"\nqueue = 1\negress = \"xdp\""
    );
    let far = (&net.right, &[][..]);
    let mut scene = Scene::start_with("queues", &net.left, far, "", &target, 2);
    let kind = |scene: &Scene| scene.view().egress.expect("a way out").kind;
    assert_eq!(kind(&scene), "xdp");
    for _ in 0..2 {
        scene.round(
            || net.left.ip("link del left0"),
            &["no_device"],
            || connect(&net, "left0", "address 02:00:00:00:00:01"),
            told(|notice| notice.is_sending("left0")),
        );
        let egress = scene.view().egress.expect("a way out");
        assert_eq!(egress.kind, "packet", "{egress:?}");
        assert!(egress.reason.contains("queue"), "{egress:?}");
        let view = scene.agent.view();
        let strict = view.target("strict");
        assert_eq!((strict.state.as_str(), strict.egress.is_none()), ("waiting", true), "{view:?}");
        scene.round(
            || net.left.ip("link del left0"),
            &["no_device"],
            || connect(&net, "left0", QUEUES),
            told(|notice| notice.is_sending("left0")),
        );
        assert_eq!(kind(&scene), "xdp", "{:#?}", scene.view());
        let begin = std::time::Instant::now();
        while scene.agent.view().target("strict").state != "active" {
            assert!(begin.elapsed() < Duration::from_secs(2), "{:#?}", scene.agent.view());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    scene.judge(LIMIT_BIND);
    let strict = scene.agent.view().target("strict").account.clone();
    assert!(strict.adds_up() && strict.lost_total() == 0, "{strict:?}");
    let _ = scene.finish(&Expected::default());
}

/// Two targets share the socket of a device that goes down under load. One is bound to it and
/// waits; the other one's route leads by another device, and what it had in the socket is
/// not left there.
#[test]
fn a_target_that_moves_leaves_nothing_in_a_shared_socket() {
    if !ready("a_target_that_moves_leaves_nothing_in_a_shared_socket") {
        return;
    }
    let net = Pair::new();
    let name = net.right.name();
    net.left.ip(&format!("link add left1 type veth peer name right1 netns {name}"));
    net.left.ip("addr add 192.0.3.1/24 dev left1");
    net.right.ip("addr add 192.0.3.2/24 dev right1");
    net.right.ip("addr add 198.51.100.1/32 dev lo");
    net.right.ip("link set right1 up");
    net.left.ip("link set left1 up");
    let by_left0 = "route add 198.51.100.1 via 192.0.2.2 metric 10";
    net.left.ip(by_left0);
    net.left.ip("route add 198.51.100.1 via 192.0.3.2 metric 20");
    let targets = "remote = \"198.51.100.1:6666\"\n\
         [target.bound]\nremote = \"192.0.2.2:7777\"\ndevice = \"left0\"";
    let far = (&net.right, &[][..]);
    let mut scene = Scene::start_with("shared", &net.left, far, "", targets, 2);
    for _ in 0..3 {
        scene.say_and_see(5);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                net.left.ip("link set left0 down");
            });
            scene.say_evenly(4_000, 20_000, 0);
        });
        scene.say_and_see(5);
        assert_eq!(scene.view().next_hop.expect("a next hop").device, "left1");
        assert_eq!(scene.agent.view().target("bound").state, "waiting");
        net.left.ip("link set left0 up");
        net.left.ip(by_left0);
        let begin = std::time::Instant::now();
        while scene.agent.view().target("bound").state != "active" {
            assert!(begin.elapsed() < Duration::from_secs(5), "{:#?}", scene.agent.view());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // What the kernel had taken for the device that went, and what was behind it when the
    // device dropped that.
    let outcome = scene.finish(&Expected { refused_at_most: 100, ..Expected::default() });
    println!("shared: {} refused in three moves", outcome.missing.len());
}

/// By name, and it comes back under another one: its MAC tells.
#[test]
fn a_device_known_by_its_name_comes_back_under_another_one() {
    if !ready("a_device_known_by_its_name_comes_back_under_another_one") {
        return;
    }
    let net = Pair::new();
    let target = format!("{TARGET}\ndevice = \"left0\"");
    let mut scene = Scene::start("by-name", &net.left, &net.right, &target);
    let mut old = "left0".to_owned();
    for round in 0..ROUNDS {
        let new = format!("other{round}");
        scene.round(
            || net.left.ip(&format!("link del {old}")),
            &["no_device"],
            || connect(&net, &new, &format!("address {MAC}")),
            told(|notice| notice.is_sending(&new)),
        );
        assert_eq!(scene.view().next_hop.expect("a next hop").device, new);
        old = new;
    }
    // Another device is not taken for it, whatever its name.
    net.left.ip(&format!("link del {old}"));
    scene.wait_waiting(&["no_device"]);
    connect(&net, "other9", "address 02:00:00:00:00:66");
    let waiting = scene.say(5);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.view().waiting_kind.as_deref(), Some("no_device"));
    // Unless it has the name that is configured.
    net.left.ip("link set other9 down");
    net.left.ip("link set other9 name left0");
    net.left.ip("link set left0 up");
    let _ = scene.arrival(waiting.end - 1);
    scene.judge(LIMIT_BIND);
    let _ = scene.finish(&Expected::default());
}

/// `ethtool -L`; the error if the kernel refuses.
fn set_queues(net: &Pair, count: u32) -> Result<(), String> {
    let words = format!("netns exec {} ethtool -L left0 tx {count} rx {count}", net.left.name());
    let out = Command::new("ip").args(words.split(' ')).output().expect("run ip");
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    if out.status.success() { Ok(()) } else { Err(said) }
}

/// `ethtool -L` on the living device. The kernel takes no queue away from under an AF_XDP
/// socket (`ethnl_set_channels`, `net/ethtool/channels.c`), and the target goes on; one that is
/// switched off holds none, and finds the queue gone when it is switched on. It takes
/// the next best way, and AF_XDP again when the queue is there again.
#[test]
fn the_queues_change_while_the_device_lives() {
    if !ready("the_queues_change_while_the_device_lives") {
        return;
    }
    let net = Pair::new();
    net.left.ip("link del left0");
    connect(&net, "left0", &format!("numtxqueues 4 numrxqueues 4 address {MAC}"));
    let target = format!("{TARGET}\ndevice = \"left0\"\nqueue = 3");
    let mut scene = Scene::start("channels", &net.left, &net.right, &target);
    let kind = |scene: &Scene| scene.wait_active().egress.expect("a way out").kind;
    assert_eq!(kind(&scene), "xdp");
    // Under load: the kernel's refusal disturbs nothing.
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(10));
                let refused = set_queues(&net, 1).expect_err("the queue is in use");
                assert!(refused.contains("AF_XDP"), "{refused}");
                // More than the bound one needs.
                set_queues(&net, 4).expect("as many as there are");
            }
        });
        scene.say_evenly(1_000, 2_000, 0);
    });
    scene.say_and_see(5);
    assert_eq!(kind(&scene), "xdp");

    scene.agent.command(&["target", "disable", "peer"]);
    scene.wait("disabled", Duration::from_secs(3), |view| view.state == "disabled");
    let waiting = scene.say(20);
    // The socket is closed by a task of its own.
    let disabled = Instant::now();
    while let Err(refused) = set_queues(&net, 1) {
        assert!(disabled.elapsed() < Duration::from_secs(2), "the queue is not free: {refused}");
        std::thread::sleep(Duration::from_millis(10));
    }
    scene.agent.command(&["target", "enable", "peer"]);
    let enabled = Instant::now();
    let first = scene.arrival(waiting.start);
    scene.healed(first.at.saturating_duration_since(enabled));
    let _ = scene.arrival(waiting.end - 1);
    let egress = scene.wait_active().egress.expect("a way out");
    assert_eq!(egress.kind, "packet", "{egress:?}");
    assert!(egress.reason.contains("queue 3"), "{egress:?}");

    // Nobody tells that there are more: it is found out when AF_XDP is tried again.
    set_queues(&net, 4).expect("as many as before");
    let more = Instant::now();
    while more.elapsed() < Duration::from_secs(12)
        && scene.view().egress.is_none_or(|egress| egress.kind != "xdp")
    {
        let _ = scene.say_evenly(20, 400, 0);
    }
    println!(
        "channels: AF_XDP again {:.1} s after the queue was there",
        more.elapsed().as_secs_f64()
    );
    assert_eq!(kind(&scene), "xdp", "{}", scene.agent.log());
    scene.say_and_see(5);
    scene.judge(LIMIT_BIND);
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.missing.is_empty());
}

/// Queue 0, and the others go and come back below the running socket.
#[test]
fn the_other_queues_go_and_come_back() {
    if !ready("the_other_queues_go_and_come_back") {
        return;
    }
    let net = Pair::new();
    net.left.ip("link del left0");
    connect(&net, "left0", &format!("numtxqueues 4 numrxqueues 4 address {MAC}"));
    let mut scene = Scene::start("other-queues", &net.left, &net.right, TARGET);
    scene.say_and_see(5);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for count in [1, 4, 2, 4, 1, 3] {
                std::thread::sleep(Duration::from_millis(50));
                set_queues(&net, count).expect("nobody uses them");
            }
        });
        scene.say_evenly(2_000, 5_000, 0);
    });
    scene.say_and_see(5);
    let outcome = scene.finish(&Expected::default());
    assert_eq!(outcome.view.egress.expect("a way out").kind, "xdp");
    assert!(outcome.missing.is_empty());
}
