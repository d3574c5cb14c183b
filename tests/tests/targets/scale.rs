//! A hundred targets: what they cost, and how fast they are reloaded.

use std::time::{Duration, Instant};

use netconsole_agent::control::{protocol::Request, socket::ask};

use super::scene::{PEER, Scene};

const TARGETS: usize = 100;

fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// Targets with filters, extra data and a rate each; they share a device and its socket.
fn many(round: usize) -> String {
    let mut text = format!(
        "{PEER}[defaults]\nmax_level = \"info\"\nrate = \"100/10s\"\n\
         [defaults.sysdata]\ncpu = true\nhostname = true\ncgroup = true\n\
         [[defaults.filter]]\ntext = \"martian source\"\naction = \"drop\"\n\
         [[defaults.filter]]\nregex = \"usb [0-9.-]+: (new|reset)\"\naction = \"drop\"\n"
    );
    for n in 0..TARGETS {
        let port = 10_000 + n;
        text += &format!(
            "[target.t{n}]\nremote = \"192.0.2.2:{port}\"\n\
             [target.t{n}.userdata]\nround = \"{round}\"\nrack = \"r{n}\"\n"
        );
    }
    text
}

#[test]
fn a_hundred_targets_cost_little_and_are_reloaded_fast() {
    let Some(mut scene) = Scene::start("a hundred targets", PEER, 1) else { return };
    scene.hear("with one target.");
    let before = resident_bytes(scene.agent.pid());
    scene.agent.rewrite(&many(0));
    scene.agent.command(&["reload"]);
    scene.agent.wait(Duration::from_secs(20), |status| {
        status.targets.iter().filter(|target| target.state == "active").count() == TARGETS + 1
    });
    for n in 0..100 {
        scene.say(&[&format!("with a hundred targets {n}.")]);
    }
    scene.settle();
    let more = resident_bytes(scene.agent.pid()) - before;
    let socket = scene.agent.socket();
    let mut times: Vec<Duration> = (1..=5)
        .map(|round| {
            scene.agent.rewrite(&many(round));
            let begin = Instant::now();
            let reply = ask(&socket, &Request::Reload).expect("an answer");
            assert!(reply.ok, "{reply:?}");
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("SCALE {TARGETS} targets: {} KiB more, reload {:?}", more >> 10, times[2]);
    assert!(more <= 8 << 20, "{more} bytes more");
    assert!(times[2] <= Duration::from_millis(50), "{times:?}");
    let status = scene.agent.status();
    assert!(status.targets.iter().all(|target| target.account.balances), "{}", status.to_text());
    // And they go again.
    scene.agent.rewrite(PEER);
    scene.agent.command(&["reload"]);
    scene.agent.wait(Duration::from_secs(10), |status| status.targets.len() == 1);
    scene.hear("with one target again.");
}
