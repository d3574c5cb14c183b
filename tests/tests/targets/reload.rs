//! Reading the configuration anew while records come.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_tests::kmsg::write;
use netconsole_agent::control::{protocol::Request, socket::ask};
use rustix::process::Signal;

use super::scene::{PEER, Scene, mailbox};

const RELOADS: usize = 1000;

/// Numbers of `word` among the datagrams, in order of arrival.
fn numbers(word: &str, arrived: &[String]) -> Vec<usize> {
    let number = |datagram: &String| {
        let (_, rest) = datagram.split_once(&format!(";{word} "))?;
        rest.split_once('.')?.0.parse().ok()
    };
    arrived.iter().filter_map(number).collect()
}

/// Not one record is lost or doubled, for the target that stays and for those that change in
/// their data, in their filter and in their socket.
#[test]
fn a_thousand_reloads_under_load_lose_and_double_nothing() {
    let others = |n: usize| {
        let (level, local) = (["info", "debug"][n % 2], 6665 + n % 3);
        format!(
            "{PEER}[target.data]\nremote = \"192.0.2.2:7001\"\n[target.data.userdata]\nround = \"{n}\"\n\
             [target.filter]\nremote = \"192.0.2.2:7002\"\nmax_level = \"{level}\"\n\
             [target.socket]\nremote = \"192.0.2.2:7003\"\nlocal = \":{local}\"\negress = \"udp\"\n"
        )
    };
    let Some(mut scene) = Scene::start("reloads", &others(0), 4) else { return };
    let mailboxes = [7001, 7002, 7003].map(|port| mailbox(&scene.pair, port));
    let first = scene.agent.status().targets[0].account.first_seq;
    let stop = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut said = 0;
            while !stop.load(Ordering::Acquire) {
                let lines: Vec<Vec<u8>> =
                    (said..said + 10).map(|n| format!("<6>reloads {n}.\n").into_bytes()).collect();
                write(&lines, 0);
                said += lines.len();
                std::thread::sleep(Duration::from_millis(2));
            }
            said
        });
        let socket = scene.agent.socket();
        let begin = Instant::now();
        for n in 1..=RELOADS {
            scene.agent.rewrite(&others(n));
            let reply = ask(&socket, &Request::Reload).expect("an answer");
            assert!(reply.ok, "{reply:?}");
            std::thread::sleep(Duration::from_millis(4));
        }
        println!("RELOADS {RELOADS} in {:?}", begin.elapsed());
        stop.store(true, Ordering::Release);
        writer.join().expect("the writer")
    });
    scene.settle();
    println!("RELOADS {said} records");
    let all: Vec<usize> = (0..said).collect();
    assert!(numbers("reloads", &scene.arrived) == all, "the target that stays");
    for (name, mailbox) in ["data", "filter", "socket"].iter().zip(&mailboxes) {
        let mut arrived = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = mailbox.recv(&mut buffer) {
            arrived.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        let found = numbers("reloads", &arrived);
        assert!(found == all, "{name}: {} of {said}", found.len());
    }
    let status = scene.agent.status();
    for target in &status.targets {
        assert!(target.account.balances, "{}", status.to_text());
        assert_eq!(target.account.lost_total(), 0, "{}", status.to_text());
    }
    let stays = &status.targets[0];
    assert_eq!(stays.account.first_seq, first, "it kept its account");
    assert!(stays.transitions.len() <= 3, "it kept its socket: {:?}", stays.transitions);
}

/// A bad file changes nothing; the error is in the answer, in `status` and in the log.
#[test]
fn a_bad_configuration_changes_nothing() {
    let Some(mut scene) = Scene::start("bad configuration", PEER, 1) else { return };
    scene.hear("before it.");
    let before = scene.agent.status();
    scene.agent.rewrite("[target.peer]\nremote = \"192.0.2.2:6666\"\nmax_level = \"loud\"\n");
    let refusal = scene.agent.try_command(&["reload"]).expect_err("a refusal");
    assert!(refusal.contains("agent.toml:") && refusal.contains("`max_level`"), "{refusal}");
    let status = scene.agent.status();
    assert!(status.config_error.as_ref().is_some_and(|error| error.contains("`max_level`")));
    assert_eq!(status.config_generation, before.config_generation);
    assert!(scene.agent.log().contains("`max_level`"), "{}", scene.agent.log());
    scene.hear("during it.");
    // The signal does the same, and a good file ends it.
    scene.agent.signal(Signal::HUP);
    scene.agent.rewrite(&format!("{PEER}[target.peer.userdata]\nkey = \"good\"\n"));
    scene.agent.signal(Signal::HUP);
    let status = scene.agent.wait(Duration::from_secs(5), |status| status.config_error.is_none());
    assert!(status.config_generation > before.config_generation);
    assert!(scene.hear("after it.").ends_with("\n key=good\n"));
    assert_eq!(status.targets[0].account.first_seq, before.targets[0].account.first_seq);
}

/// A target that is no longer there ends, a new one begins.
#[test]
fn targets_come_and_go_with_the_file() {
    let Some(mut scene) = Scene::start("come and go", PEER, 1) else { return };
    let other = "[target.other]\nremote = \"192.0.2.2:6667\"\n";
    let late = mailbox(&scene.pair, 6667);
    scene.hear("with one.");
    scene.agent.rewrite(&format!("{PEER}{other}"));
    scene.agent.command(&["reload"]);
    let names = |scene: &mut Scene, wanted: &[&str]| {
        scene.agent.wait(Duration::from_secs(5), |status| {
            let active = status.targets.iter().filter(|target| target.state == "active");
            active.map(|target| target.name.as_str()).eq(wanted.iter().copied())
        });
    };
    names(&mut scene, &["peer", "other"]);
    scene.hear("with both.");
    let mut buffer = [0; 2048];
    late.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    while !String::from_utf8_lossy(&buffer).contains("with both.") {
        late.recv(&mut buffer).expect("the record");
    }
    scene.agent.rewrite(other);
    scene.agent.command(&["reload"]);
    names(&mut scene, &["other"]);
    // It comes back from the pump a moment later.
    let begin = Instant::now();
    while !scene.agent.log().contains("The target's final account.") {
        assert!(begin.elapsed() < Duration::from_secs(5), "{}", scene.agent.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Keys of the agent itself that cannot change while it runs are told.
#[test]
fn what_needs_a_restart_is_said() {
    let Some(scene) = Scene::start("needs a restart", PEER, 1) else { return };
    scene.agent.rewrite(&format!("store = \"32MiB\"\n{PEER}"));
    let said = scene.agent.command(&["reload"]);
    assert!(said.contains("`store`") && said.contains("restart"), "{said}");
}
