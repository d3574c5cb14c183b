//! Ways out: a queue that is taken, UDP sockets, and receivers that are groups.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use agent_tests::netns::{LEFT_V4, Pair};
use netconsole_agent::egress::xdp::{self, XdpOptions};

use super::{
    link::TARGET,
    scene::{Expected, LIMIT, LIMIT_BIND, ROUNDS, Scene, done, ready, told, told_and_done},
};

/// Somebody else has the queue: the target takes the next best way out, and comes back to
/// AF_XDP later; one that may take nothing else waits.
#[test]
fn a_queue_is_taken_and_released() {
    if !ready("a_queue_is_taken_and_released") {
        return;
    }
    let net = Pair::new();
    let index = net.left.ifindex("left0");
    let holder = net.left.run(|| xdp::open(&XdpOptions::new(index, "left0")));
    let holder = holder.expect("an AF_XDP socket");
    let target =
        format!("{TARGET}\n[target.strict]\nremote = \"192.0.2.2:7777\"\negress = \"xdp\"");
    let far = (&net.right, &[][..]);
    let mut scene = Scene::start_with("busy", &net.left, far, "", &target, 1);
    let view = scene.wait_active();
    let egress = view.egress.expect("a way out");
    assert_eq!(egress.kind, "packet", "{egress:?}");
    assert!(!egress.reason.is_empty());
    let strict = scene.agent.view().target("strict").clone();
    assert_eq!(strict.state, "waiting");
    assert_eq!(strict.waiting_kind.as_deref(), Some("bind_busy"), "{strict:#?}");
    scene.say_and_see(20);

    drop(holder);
    let released = Instant::now();
    // After 5 s, or 10 s more if that was just before.
    while released.elapsed() < Duration::from_secs(17)
        && scene.view().egress.is_none_or(|egress| egress.kind != "xdp")
    {
        let _ = scene.say_evenly(20, 400, 0);
    }
    let back = released.elapsed();
    let view = scene.wait_active();
    assert_eq!(view.egress.expect("a way out").kind, "xdp", "{}", scene.agent.log());
    scene.say_and_see(20);
    println!("busy: AF_XDP again {:.1} s after the queue was released", back.as_secs_f64());
    let begin = Instant::now();
    while scene.agent.view().target("strict").state != "active" {
        assert!(begin.elapsed() < Duration::from_secs(15), "{:#?}", scene.agent.view());
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.missing.is_empty());
}

#[test]
fn udp_sockets_heal_as_well() {
    if !ready("udp_sockets_heal_as_well") {
        return;
    }
    let net = Pair::new();
    net.right.ip("addr add 198.51.100.10/32 dev lo");
    let route = "route add 198.51.100.0/24 via 192.0.2.2";
    net.left.ip(route);
    let target = "remote = \"198.51.100.10:6666\"\negress = \"udp\"";
    let mut scene = Scene::start("udp", &net.left, &net.right, target);
    for _ in 0..2 {
        scene.round(
            || net.left.ip("link set left0 down"),
            &["device_down", "no_route"],
            || {
                net.left.ip("link set left0 up");
                net.left.ip(route);
            },
            told_and_done(|notice| notice.is_sending("left0")),
        );
        scene.round(
            || net.right.ip("link set right0 down"),
            &["no_carrier", "no_route"],
            || net.right.ip("link set right0 up"),
            told(|notice| notice.is_sending("left0")),
        );
        scene.round(
            || net.left.ip("route del 198.51.100.0/24"),
            &["no_route"],
            || net.left.ip(route),
            done(),
        );
        scene.round(
            || net.left.ip("addr del 192.0.2.1/24 dev left0"),
            &["no_address", "no_route"],
            || {
                net.left.ip("addr add 192.0.2.1/24 dev left0");
                net.left.ip(route);
            },
            done(),
        );
    }
    scene.judge(LIMIT);
    let outcome = scene.finish(&Expected::default());
    assert_eq!(outcome.view.egress.expect("a way out").kind, "udp");
    assert!(outcome.arrived.iter().all(|one| one.from.ip() == LEFT_V4));
}

#[test]
fn groups_heal_as_well() {
    if !ready("groups_heal_as_well") {
        return;
    }
    for (label, remote, mac) in [
        ("multicast", "239.1.2.3:6666", [0x01, 0x00, 0x5e, 1, 2, 3]),
        ("broadcast", "192.0.2.255:6666", [0xff; 6]),
        ("all-broadcast", "255.255.255.255:6666", [0xff; 6]),
        ("multicast6", "[ff15::1:203]:6666", [0x33, 0x33, 0, 1, 2, 3]),
    ] {
        let net = Pair::new();
        net.left.sysctl("net/ipv6/conf/left0/keep_addr_on_down", "1");
        net.left.sysctl("net/ipv6/conf/left0/accept_dad", "0");
        net.left.ip("addr del 192.0.2.1/24 dev left0");
        net.left.ip("addr add 192.0.2.1/24 brd + dev left0");
        let target = format!("remote = \"{remote}\"\ndevice = \"left0\"");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        for _ in 0..ROUNDS {
            scene.round(
                || net.left.ip("link set left0 down"),
                &["device_down", "no_route"],
                || net.left.ip("link set left0 up"),
                told(|notice| match label {
                    // Its route comes later.
                    "multicast6" => notice.is_running("left0"),
                    _ => notice.is_sending("left0"),
                }),
            );
        }
        scene.judge(LIMIT);
        let outcome = scene.finish(&Expected::default());
        assert!(outcome.arrived.iter().all(|one| one.dst_mac == mac), "{label}");
    }
}

/// The receiver's address becomes one of this host's own: frames lead nowhere then. A target
/// that may take nothing else waits; another one takes UDP.
#[test]
fn a_way_that_no_frame_can_take() {
    if !ready("a_way_that_no_frame_can_take") {
        return;
    }
    let net = Pair::new();
    let target = format!(
        "{TARGET}\negress = \"xdp\"\n\
         [target.any]\nremote = \"192.0.2.2:7777\""
    );
    let far = (&net.right, &[][..]);
    let mut scene = Scene::start_with("impossible", &net.left, far, "", &target, 2);
    for _ in 0..ROUNDS {
        scene.round(
            || net.left.ip("addr add 192.0.2.2/32 dev lo"),
            &["egress_impossible"],
            || net.left.ip("addr del 192.0.2.2/32 dev lo"),
            done(),
        );
    }
    scene.judge(LIMIT_BIND);
    scene.assert_went(&["waiting (egress_impossible)", "active"]);
    let _ = scene.finish(&Expected::default());
}

/// A host whose device `up0` lies on left0, where frames can be held back.
fn jammed() -> (Pair, impl Fn(&Pair, &str)) {
    let net = Pair::new();
    net.left.ip("addr del 192.0.2.1/24 dev left0");
    net.left.ip("link set left0 address 02:00:00:00:00:03");
    net.left.ip("link add link left0 name up0 address 02:00:00:00:00:01 type macvlan");
    net.left.ip("addr add 192.0.2.1/24 dev up0");
    net.left.ip("link set up0 up");
    let tbf = |net: &Pair, rate: &str| {
        let words = format!(
            "-n {} qdisc replace dev left0 root handle 1: tbf rate {rate} burst 700 limit 4mb",
            net.left.name()
        );
        let out = Command::new("tc").args(words.split(' ')).output().expect("run tc");
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    };
    (net, tbf)
}

/// The device below holds the frames back (`tbf`, tc-tbf(8)), and so the socket's memory is
/// not freed: it takes no more. The target notices, gives it up and takes the next best
/// way, with what the old one did not take.
fn give_up(label: &'static str, count: usize, kinds: [&str; 2]) {
    const SILENCE: Duration = Duration::from_secs(9);
    let (net, tbf) = jammed();
    let holder = (kinds[0] != "xdp").then(|| {
        let index = net.left.ifindex("up0");
        net.left.run(|| xdp::open(&XdpOptions::new(index, "up0"))).expect("an AF_XDP socket")
    });
    let target = format!("{TARGET}\npace = \"off\"");
    let mut scene = Scene::start(label, &net.left, &net.right, &target);
    assert_eq!(scene.wait_active().egress.expect("a way out").kind, kinds[0]);
    scene.say_and_see(5);
    // A frame of these, which have about 500 bytes, is let through at once and none for the half minute
    // after it: one that left would be a sign of life.
    tbf(&net, "64bit");
    let said = scene.say_evenly(count, 0, 400);
    let begin = Instant::now();
    let view = scene.wait("on the next way", 2 * SILENCE, |view| {
        let kind = view.egress.as_ref().map(|egress| egress.kind.as_str());
        view.state == "active" && kind == Some(kinds[1])
    });
    let took = begin.elapsed();
    println!("HEAL {label}: given up after {:.1} s, limit {SILENCE:?}", took.as_secs_f64());
    assert!(took < SILENCE, "{took:?}");
    let reason = view.egress.expect("a way out").reason;
    assert!(reason.contains("sends nothing"), "{reason}");
    let later = scene.text(said.start + 10);
    let left = scene.capture.all().iter().any(|one| one.begins_with(&later));
    assert!(!left, "nothing was stuck");
    tbf(&net, "1gbit");
    let _ = scene.arrival(said.end - 1);
    scene.wait_active();
    scene.assert_went(&["active", "waiting (socket_dead)", "active"]);
    drop(holder);
    scene.wait("back on AF_XDP", Duration::from_secs(20), |view| {
        view.egress.as_ref().is_some_and(|egress| egress.kind == "xdp")
    });
    scene.say_and_see(20);
    let outcome = scene.finish(&Expected::default());
    assert!(outcome.missing.is_empty());
}

/// A packet socket takes as much as its send buffer holds (`net.core.wmem_default`).
#[test]
fn a_socket_that_sends_nothing_is_given_up() {
    if ready("a_socket_that_sends_nothing_is_given_up") {
        give_up("stuck-packet", 1_000, ["packet", "udp"]);
    }
}

/// An AF_XDP socket takes as many frames as it has, and gets none back.
#[test]
fn a_socket_whose_frames_never_come_back_is_given_up() {
    if ready("a_socket_whose_frames_never_come_back_is_given_up") {
        give_up("stuck-xdp", 3_500, ["xdp", "packet"]);
    }
}
