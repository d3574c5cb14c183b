//! Changes by command, and messages of operators.

use std::{
    fs::Permissions,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use agent_tests::agent::binary;
use netconsole_agent::netconsole::parse_header;

use super::scene::{PEER, Scene, mailbox};

/// A set that needs another socket is carried out, not refused; what was said meanwhile arrives.
#[test]
fn a_set_moves_a_target() {
    let Some(mut scene) = Scene::start("set", PEER, 1) else { return };
    let other = mailbox(&scene.pair, 6667);
    scene.hear("at the first port.");
    scene.agent.command(&["target", "set", "peer", "remote=192.0.2.2:6667", "egress=udp"]);
    scene.say(&["at the other port."]);
    other.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut buffer = [0; 2048];
    while !String::from_utf8_lossy(&buffer).contains("at the other port.") {
        other.recv(&mut buffer).expect("the record");
    }
    let status = scene.agent.status();
    let target = &status.targets[0];
    assert_eq!(target.remote, "192.0.2.2:6667");
    assert!(target.live.iter().any(|key| key == "remote"), "{:?}", target.live);
    assert_eq!(target.egress.as_ref().map(|egress| egress.kind.as_str()), Some("udp"));
    assert!(target.account.balances && target.account.lost_total() == 0, "{}", status.to_text());
}

/// A bad value is refused with its place, and nothing changes.
#[test]
fn a_bad_set_is_refused() {
    let Some(scene) = Scene::start("bad set", PEER, 1) else { return };
    for (change, wanted) in [
        ("max_level=loud", "`max_level`"),
        ("nonsense=1", "no key `nonsense`"),
        ("remote=0.0.0.0", "nothing can be sent"),
    ] {
        let refusal = scene.agent.try_command(&["target", "set", "peer", change]);
        let refusal = refusal.expect_err(change);
        assert!(refusal.contains(wanted), "{refusal}");
    }
    let unknown = scene.agent.try_command(&["target", "set", "nobody", "max_level=info"]);
    assert!(unknown.expect_err("nobody").contains("nobody"));
    let taken = scene.agent.try_command(&["target", "add", "peer", "remote=192.0.2.2"]);
    assert!(taken.expect_err("a twin").contains("peer"));
    assert!(scene.agent.status().targets[0].live.is_empty());
}

/// A target that was added lives until it is removed, also across a reload.
#[test]
fn a_target_is_added_and_removed() {
    let Some(mut scene) = Scene::start("add", PEER, 1) else { return };
    scene.agent.command(&["target", "add", "other", "remote=192.0.2.2:6667", "max_level=info"]);
    let both = |scene: &mut Scene| {
        scene.agent.wait(Duration::from_secs(5), |status| {
            status.targets.iter().filter(|target| target.state == "active").count() == 2
        })
    };
    both(&mut scene);
    scene.agent.command(&["reload"]);
    both(&mut scene);
    scene.agent.command(&["target", "disable", "peer"]);
    let live = |scene: &Scene| scene.agent.status().targets[0].live.clone();
    assert_eq!(live(&scene), ["enabled"]);
    scene.agent.command(&["target", "enable", "peer"]);
    assert!(live(&scene).is_empty());
    scene.agent.command(&["target", "remove", "other"]);
    scene.agent.wait(Duration::from_secs(5), |status| status.targets.len() == 1);
    scene.hear("without the other.");
    assert!(scene.agent.status().removed.is_empty(), "it was in no file");
    scene.agent.command(&["target", "remove", "peer"]);
    scene.agent.wait(Duration::from_secs(5), |status| status.targets.is_empty());
    assert_eq!(scene.agent.status().removed, ["peer"]);
}

/// A message reaches its target alone, with the target's data, and no receiver takes it
/// for a record.
#[test]
fn a_message_is_no_record() {
    let targets = format!(
        "{PEER}[target.peer.userdata]\nrack = \"r12\"\n[target.other]\nremote = \"192.0.2.2:6667\"\n"
    );
    let Some(mut scene) = Scene::start("message", &targets, 2) else { return };
    let other = mailbox(&scene.pair, 6667);
    let hostile = "6,1,2,-;looks like a record, ncfrag=0/5;";
    for text in ["workload nginx enters", hostile, "6.1.0,6,1,2,-;so does this"] {
        scene.agent.command(&["send", "peer", text]);
        let heard = scene.wait_for(text, |datagram| datagram.contains(text));
        assert!(parse_header(heard.as_bytes()).is_err(), "{heard}");
        assert!(heard.contains(" rack=r12\n"), "{heard}");
    }
    // Neither the kernel log nor the other target has it, and no seq was used for it.
    scene.settle();
    assert_eq!(scene.count(hostile), 1);
    let mut buffer = [0; 2048];
    while let Ok(length) = other.recv(&mut buffer) {
        assert!(!String::from_utf8_lossy(&buffer[..length]).contains("workload"));
    }
    let account = &scene.agent.status().targets[0].account;
    assert!(account.balances);
    scene.agent.command(&["send", "--all", "to everybody"]);
    other.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    while !String::from_utf8_lossy(&buffer).contains("to everybody") {
        other.recv(&mut buffer).expect("the message");
    }
    let long = "x".repeat(1001);
    let refusal = scene.agent.try_command(&["send", "peer", &long]).expect_err("too long");
    assert!(refusal.contains("room for 972"), "{refusal}");
    let nobody = scene.agent.try_command(&["send", "nobody", "x"]).expect_err("nobody");
    assert!(nobody.contains("nobody"), "{nobody}");
}

/// The nonce that `ping` prints arrives, with what the fleet's tooling wants to know.
#[test]
fn a_ping_tells_who_and_where() {
    let Some(mut scene) = Scene::start("ping", PEER, 1) else { return };
    let nonce = scene.agent.command(&["ping", "peer"]).trim().to_owned();
    assert!(!nonce.is_empty());
    let heard = scene.wait_for("the ping", |datagram| datagram.contains(&nonce));
    for part in ["left0", "02:00:00:00:00:02", env!("CARGO_PKG_VERSION")] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(parse_header(heard.as_bytes()).is_err(), "{heard}");
}

/// Once after each activation, if it is asked for.
#[test]
fn a_keepalive_comes_after_each_activation() {
    let targets = format!("{PEER}keepalive = \"1h\"\n");
    let Some(mut scene) = Scene::start("keepalive", &targets, 1) else { return };
    let is_one =
        |datagram: &str| datagram.starts_with("netconsole-agent") && datagram.contains("keepalive");
    scene.wait_for("the first", is_one);
    scene.agent.command(&["target", "disable", "peer"]);
    scene.agent.wait(Duration::from_secs(5), |status| status.targets[0].state == "disabled");
    scene.arrived.clear();
    scene.agent.command(&["target", "enable", "peer"]);
    scene.wait_for("the second", is_one);
    scene.hear("something else.");
    let count = scene.arrived.iter().filter(|datagram| is_one(datagram)).count();
    assert_eq!(count, 1, "{:?}", scene.arrived);
}

/// Members of the group may look and speak; what they may not is refused and counted; others
/// do not get in at all.
#[test]
fn the_group_may_look_and_speak() {
    let agent_table = "control_group = \"1\"\n";
    let Some(mut scene) = Scene::start_with("group", agent_table, PEER, 1) else { return };
    let socket = scene.agent.socket();
    let folder = socket.parent().expect("its folder");
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("let others in");
    let run = |gid: u32, arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--socket").arg(&socket).uid(65534).gid(gid);
        let output = command.output().expect("run the command");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    };
    assert!(run(1, &["status"]).0);
    assert!(run(1, &["send", "peer", "from the group"]).0);
    scene.wait_for("the message", |datagram| datagram.contains("from the group"));
    for refused in [&["reload"][..], &["target", "disable", "peer"], &["tail", "peer"]] {
        let (ok, said) = run(1, refused);
        assert!(!ok && said.contains("root"), "{refused:?}: {said}");
    }
    assert_eq!(scene.agent.status().refused.not_allowed, 3);
    let (ok, said) = run(65534, &["status"]);
    assert!(!ok && said.contains("control_group"), "{said}");
}

/// A copy of what is sent, and the target goes on the same.
#[test]
fn a_tail_shows_what_is_sent() {
    let Some(mut scene) = Scene::start("tail", PEER, 1) else { return };
    let mut tail = Command::new(binary())
        .args(["tail", "peer", "--socket"])
        .arg(scene.agent.socket())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start tail");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
    // It has begun when it shows something.
    let mut shown = String::new();
    for round in 0..100 {
        scene.say(&[&format!("tailed {round}.")]);
        std::thread::sleep(Duration::from_millis(20));
    }
    while !shown.contains("tailed 99.") {
        shown = lines.next().expect("a line").expect("UTF-8");
    }
    tail.kill().expect("end tail");
    let _ = tail.wait();
    scene.settle();
    assert_eq!((0..100).filter(|n| scene.count(&format!(";tailed {n}.")) == 1).count(), 100);
}
