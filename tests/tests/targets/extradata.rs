//! What the agent adds to records, on the wire.

use super::scene::{PEER, Scene};

/// Each value equals what the host itself says.
#[test]
fn the_values_are_those_of_the_host() {
    let keys = ["pid", "cgroup", "unit", "hostname", "boot_id", "uptime", "taint", "thp", "nic"];
    let on: String = keys.iter().map(|key| format!("{key} = true\n")).collect();
    let targets = format!("{PEER}[target.peer.sysdata]\n{on}");
    let Some(mut scene) = Scene::start("values", &targets, 1) else { return };
    let heard = scene.hear("with values.");
    let value = |key: &str| {
        let line = heard.lines().find_map(|line| line.strip_prefix(&format!(" {key}=")));
        line.unwrap_or_else(|| panic!("no {key} in {heard}")).to_owned()
    };
    let file = |path: &str| std::fs::read_to_string(path).expect(path).trim().to_owned();
    assert_eq!(value("hostname"), file("/proc/sys/kernel/hostname"));
    assert_eq!(value("boot_id"), file("/proc/sys/kernel/random/boot_id"));
    assert_eq!(value("nic"), "left0/0");
    let uptime: f64 =
        file("/proc/uptime").split(' ').next().expect("a number").parse().expect("a number");
    let told: f64 = value("uptime").parse().expect("a number");
    assert!((uptime - told).abs() < 30.0, "{told} and {uptime}");
    // The thread that wrote it is of this process.
    let pid = value("pid");
    assert!(std::path::Path::new(&format!("/proc/self/task/{pid}")).exists(), "{pid}");
    // The lines come in the documented order.
    let order: Vec<&str> = heard
        .lines()
        .filter_map(|line| line.strip_prefix(' ')?.split_once('='))
        .map(|(key, _)| key)
        .collect();
    let wanted: Vec<&str> = keys.iter().copied().filter(|key| order.contains(key)).collect();
    assert_eq!(order, wanted);
}

/// A template's value is read at the start and at each reload; a missing one omits its key and
/// is said.
#[test]
fn templates_are_read_anew_with_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let rack = folder.path().join("rack");
    std::fs::write(&rack, "r12\n").expect("write");
    let rack = rack.to_str().expect("UTF-8");
    let targets = format!(
        "{PEER}[target.peer.userdata]\nrack = \"{{file:{rack}}}\"\nabsent = \"{{file:{rack}.absent}}\"\n"
    );
    let Some(mut scene) = Scene::start("templates", &targets, 1) else { return };
    let heard = scene.hear("first.");
    assert!(heard.contains("\n rack=r12\n") && !heard.contains("absent="), "{heard}");
    assert!(scene.agent.log().contains("absent"), "{}", scene.agent.log());
    std::fs::write(rack, "r13\n").expect("write");
    assert!(scene.hear("second.").contains("\n rack=r12\n"));
    scene.agent.command(&["reload"]);
    assert!(scene.hear("third.").contains("\n rack=r13\n"));
    // What others may write is not believed.
    let mut permissions = std::fs::metadata(rack).expect("it").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o666);
    std::fs::set_permissions(rack, permissions).expect("chmod");
    let said = scene.agent.command(&["reload"]);
    assert!(said.contains("rack"), "{said}");
    assert!(!scene.hear("fourth.").contains("rack="));
}
