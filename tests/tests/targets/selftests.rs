//! The selftests of the kernel's netconsole (tools/testing/selftests/drivers/net/netconsole)
//! with their own assertions, against the agent. `netcons_resume` is in `heal`, and
//! `bonding/netcons_over_bonding` in `stacked`.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::scene::{PEER, Scene, mailbox};

/// `MSG` of `lib_netcons.sh`.
const MESSAGE: &str = "netconsole selftest";

/// `netcons_basic.sh`: basic and extended, IPv4 and IPv6; the text arrives, and in the extended
/// format the userdata.
#[test]
fn basic() {
    let data = "[target.NAME.userdata]\nkey = \"value\"\n";
    let target = |name: &str, port: u16, remote: &str, more: &str| {
        format!("[target.{name}]\nremote = \"{remote}:{port}\"\n{}", more.replace("NAME", name))
    };
    let targets = [
        target("ext4", 7001, "192.0.2.2", data),
        target("ext6", 7002, "[2001:db8::2]", data),
        target("basic4", 7003, "192.0.2.2", "format = \"basic\"\n"),
        target("basic6", 7004, "[2001:db8::2]", "format = \"basic\"\n"),
    ];
    let Some(scene) = Scene::start("basic", &targets.concat(), 4) else { return };
    let mailboxes = [7001, 7002, 7003, 7004].map(|port| mailbox(&scene.pair, port));
    scene.say(&[MESSAGE]);
    for (mailbox, extended) in mailboxes.iter().zip([true, true, false, false]) {
        mailbox.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let mut buffer = [0; 2048];
        let text = loop {
            let length = mailbox.recv(&mut buffer).expect("the message");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(MESSAGE) {
                break text;
            }
        };
        assert_eq!(text.contains("key=value"), extended, "{text}");
        assert_eq!(text.contains(';'), extended, "{text}");
    }
}

/// `netcons_cmdline.sh`: the same parameter string, with the device by name and by MAC.
#[test]
fn cmdline() {
    for device in ["left0", "02:00:00:00:00:01"] {
        let string =
            format!("netconsole=+1514@192.0.2.1/{device},6666@192.0.2.2/02:00:00:00:00:02");
        let import = Command::new(agent_tests::agent::binary())
            .args(["import", &string])
            .output()
            .expect("run import");
        assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        let targets = String::from_utf8(import.stdout).expect("TOML");
        let Some(mut scene) = Scene::start("cmdline", &targets, 1) else { return };
        let heard = scene.hear(MESSAGE);
        assert!(heard.starts_with("14,"), "extended: {heard}");
        let view = scene.agent.view();
        assert_eq!(view.targets[0].next_hop.as_ref().map(|hop| hop.device.as_str()), Some("left0"));
        drop(scene.agent.stop());
    }
}

/// Strips `HEADER,ncfrag=N/N;`, as the selftest does by its expression.
fn without_headers(fragments: &[String]) -> String {
    let body = |fragment: &String| {
        let (header, body) = fragment.split_once(';').expect("a header");
        assert!(header.contains(",ncfrag="), "{fragment}");
        body.to_owned()
    };
    fragments.iter().map(body).collect()
}

/// `netcons_fragmented_msg.sh`: a long text and a long value in two fragments, with and
/// without the release.
#[test]
fn fragmented_msg() {
    let Some(mut scene) = Scene::start("fragmented_msg", PEER, 1) else { return };
    let text: String =
        (0..136).map(|n| format!("MSG{n:03}=")).collect::<String>()[..940].to_owned();
    let value = "0123456789".repeat(17) + "x";
    scene.agent.command(&["userdata", "set", "peer", "key", &value]);
    for release in ["true", "false"] {
        scene.agent.command(&["target", "set", "peer", &format!("release={release}")]);
        scene.say(&[&text]);
        scene.settle();
        let is_one = |datagram: &&String| datagram.contains(",ncfrag=");
        let fragments: Vec<String> = scene.arrived.iter().filter(is_one).cloned().collect();
        scene.arrived.clear();
        // More than one record may be long; ours is the one with the text.
        let first = fragments.iter().position(|one| one.contains("MSG000=")).expect("ours");
        let ours = without_headers(&fragments[first..first + 2]);
        assert!(ours.contains(&text), "{ours}");
        assert!(ours.contains(&format!(" key={value}\n")), "{ours}");
    }
}

/// `netcons_overflow.sh`: 256 keys, and not one more.
#[test]
fn overflow() {
    let Some(scene) = Scene::start("overflow", PEER, 1) else { return };
    for n in 0..256 {
        scene.agent.command(&["userdata", "set", "peer", &format!("key{n}"), "v"]);
    }
    let refusal = scene.agent.try_command(&["userdata", "set", "peer", "key256", "v"]);
    let refusal = refusal.expect_err("one too many");
    assert!(refusal.contains("256"), "{refusal}");
    // Another value for one that is there is no more.
    scene.agent.command(&["userdata", "set", "peer", "key255", "w"]);
}

/// `netcons_sysdata.sh`: CPU and task of the writer, release, a number; with userdata too;
/// nothing once they are switched off.
#[test]
fn sysdata() {
    let Some(mut scene) = Scene::start("sysdata", PEER, 1) else { return };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let keys = ["cpu", "taskname", "release", "msgid"];
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let write_on = |cpu: usize, text: &str| {
        let line = format!("<6>{text}");
        let script = format!("exec taskset -c {cpu} /bin/echo '{line}' > /dev/kmsg");
        assert!(Command::new("sh").args(["-c", &script]).status().expect("sh").success());
    };
    for (round, with_userdata) in [(0, false), (1, true)] {
        for key in keys {
            scene.agent.command(&["target", "set", "peer", &format!("sysdata.{key}=true")]);
        }
        if with_userdata {
            scene.agent.command(&["userdata", "set", "peer", "userdatakey", "userdatavalue"]);
        }
        for cpu in 0..cpus {
            let text = format!("{MESSAGE} {round} {cpu}.");
            write_on(cpu, &text);
            let heard = scene.wait_for(&text, |datagram| datagram.contains(&text));
            assert!(heard.contains(&format!("\n cpu={cpu}\n")), "{heard}");
            assert!(heard.contains("\n taskname=echo\n"), "{heard}");
            assert!(heard.contains(&format!("\n release={release}\n")), "{heard}");
            let (_, msgid) = heard.split_once("\n msgid=").expect("a msgid");
            assert!(msgid.trim_end().bytes().all(|byte| byte.is_ascii_digit()), "{heard}");
            assert_eq!(heard.contains("\n userdatakey=userdatavalue\n"), with_userdata, "{heard}");
        }
    }
    for key in keys {
        scene.agent.command(&["target", "set", "peer", &format!("sysdata.{key}=false")]);
    }
    let heard = scene.hear("netconsole selftest without");
    assert!(!keys.iter().any(|key| heard.contains(&format!(" {key}="))), "{heard}");
}

/// `netcons_userdata.sh`: a value appears, changes, and goes with its text or its key; then
/// three workers change values, change keys and write at the same time, for 200 rounds.
#[test]
fn userdata() {
    let Some(mut scene) = Scene::start("userdata", PEER, 1) else { return };
    let set = |scene: &Scene, key: &str, value: &str| {
        scene.agent.command(&["userdata", "set", "peer", key, value]);
    };
    set(&scene, "key", "value");
    assert!(scene.hear("userdata 1.").ends_with("\n key=value\n"));
    set(&scene, "key", "other");
    assert!(scene.hear("userdata 2.").ends_with("\n key=other\n"));
    set(&scene, "key", "");
    assert!(!scene.hear("userdata 3.").contains("key="));
    set(&scene, "key", "back");
    assert!(scene.hear("userdata 4.").ends_with("\n key=back\n"));
    scene.agent.command(&["userdata", "unset", "peer", "key"]);
    assert!(!scene.hear("userdata 5.").contains("key="));
    for long in [false, true] {
        let value = |n: usize| if long { format!("{n}-").repeat(47) } else { n.to_string() };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let agent = &scene.agent;
            scope.spawn(|| {
                for n in 0..200 {
                    for key in 0..if long { 8 } else { 1 } {
                        let key = format!("values{key}");
                        agent.command(&["userdata", "set", "peer", &key, &value(n % 90 + 10)]);
                    }
                }
                stop.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    agent.command(&["userdata", "set", "peer", "coming", "and going"]);
                    agent.command(&["userdata", "unset", "peer", "coming"]);
                }
            });
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Acquire) {
                    scene.say(&[&format!("userdata worker {long} {n}.")]);
                    n += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        });
        scene.settle();
        let status = scene.agent.status();
        assert!(status.targets[0].account.balances, "{}", status.to_text());
        assert_eq!(status.targets[0].account.lost_total(), 0, "{}", status.to_text());
        // Each value is one that was set, whole.
        let mut values = 0;
        let whole = |datagram: &&String| !long && !datagram.contains(",ncfrag=");
        for line in scene.arrived.iter().filter(whole) {
            for (_, rest) in
                line.match_indices(" values0=").map(|(at, key)| line.split_at(at + key.len()))
            {
                let found = rest.split('\n').next().unwrap_or_default();
                assert!((10..100).any(|n| found == n.to_string()), "{line}");
                values += 1;
            }
        }
        assert!(long || values > 10, "{values} values arrived");
        scene.arrived.clear();
        for key in 0..8 {
            let key = format!("values{key}");
            let _ = scene.agent.try_command(&["userdata", "unset", "peer", &key]);
        }
    }
}

/// `netcons_torture.sh`: messages while targets are switched, added and removed and the device
/// goes down and up; the agent lives, leaks nothing and speaks in the end.
#[test]
fn torture() {
    let Some(mut scene) = Scene::start("torture", PEER, 1) else { return };
    let descriptors = |scene: &Scene| {
        std::fs::read_dir(format!("/proc/{}/fd", scene.agent.pid())).expect("descriptors").count()
    };
    // Threads that open and close sockets come up with the first ones.
    scene.agent.command(&["target", "resolve", "peer"]);
    let before = descriptors(&scene);
    let (rounds, stop) = (150, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (scene, stop) = (&scene, &stop);
        scope.spawn(move || {
            for n in 0..rounds {
                scene.agent.command(&["target", "disable", "peer"]);
                scene.agent.command(&["target", "enable", "peer"]);
                if n % 10 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            stop.store(true, Ordering::Release);
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let remote = "remote=192.0.2.2:6667";
                scene.agent.command(&["target", "add", "other", remote]);
                scene.agent.command(&["target", "remove", "other"]);
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                scene.pair.left.ip("link set left0 down");
                scene.pair.left.ip("link set left0 up");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let lines: Vec<String> = (0..10).map(|n| format!("torture {n}.")).collect();
                scene.say(&lines.iter().map(String::as_str).collect::<Vec<_>>());
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
    scene.agent.wait(Duration::from_secs(20), |status| {
        status.targets.iter().map(|target| target.state.as_str()).eq(["active"])
    });
    scene.hear("after the torture.");
    scene.settle();
    let status = scene.agent.status();
    assert!(status.targets[0].account.balances, "{}", status.to_text());
    // A socket that is closed may take a moment.
    let start = std::time::Instant::now();
    while descriptors(&scene) > before {
        assert!(start.elapsed() < Duration::from_secs(10), "{} > {before}", descriptors(&scene));
        std::thread::sleep(Duration::from_millis(50));
    }
}
