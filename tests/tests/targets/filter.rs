//! What is sent, and what is left out on purpose and counted so.

use std::time::Duration;

use super::scene::{PEER, Scene};

/// The first rule that matches decides; what is left out is counted filtered.
#[test]
fn rules_decide_in_order() {
    let targets = format!(
        "{PEER}\
         [[target.peer.filter]]\ntext = \"important martian\"\naction = \"send\"\n\
         [[target.peer.filter]]\ntext = \"martian source\"\naction = \"drop\"\n\
         [[target.peer.filter]]\nregex = \"^noise [0-9]+$\"\naction = \"drop\"\n\
         [[target.peer.filter]]\ntask = \"quiet*\"\naction = \"drop\"\n"
    );
    let Some(mut scene) = Scene::start("rules", &targets, 1) else { return };
    let before = scene.agent.status().targets[0].account.filtered;
    scene.say(&[
        "martian source 10.0.0.1",
        "important martian source",
        "noise 17",
        "noise 17 and more",
    ]);
    scene.hear("the end of the rules.");
    assert_eq!(scene.count("important martian source"), 1);
    assert_eq!(scene.count("martian source"), 1);
    assert_eq!((scene.count(";noise 17\n"), scene.count("noise 17 and more")), (0, 1));
    let account = &scene.agent.status().targets[0].account;
    assert_eq!(account.filtered - before, 2);
    let explained = scene.agent.command(&["filter", "explain", "peer", "martian source x"]);
    assert!(explained.contains("rule 2") && explained.contains("drop"), "{explained}");
    let explained = scene.agent.command(&["filter", "explain", "peer", "--last", "3"]);
    assert_eq!(
        explained.lines().filter(|line| line.contains("the end of the rules.")).count(),
        1,
        "{explained}"
    );
}

/// A rate lets through so many, and says afterwards how many it did not.
#[test]
fn a_rate_is_kept_and_told() {
    let targets = format!("{PEER}[[target.peer.filter]]\ntext = \"chatter\"\nrate = \"5/1s\"\n");
    let Some(mut scene) = Scene::start("rate", &targets, 1) else { return };
    let lines: Vec<String> = (0..50).map(|n| format!("chatter {n}.")).collect();
    scene.say(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let notice = scene.wait_for("the notice", |datagram| datagram.contains("suppressed"));
    assert!(notice.contains("45") && notice.contains("5/1s"), "{notice}");
    assert_eq!(scene.count(";chatter "), 5);
    assert_eq!(scene.agent.status().targets[0].account.filtered, 45);
    // Another period.
    std::thread::sleep(Duration::from_millis(1100));
    scene.hear("chatter again.");
}

/// What looks like an oops but was written by a program is held back like everything else:
/// only the kernel's own reports pass a target's rate (see the unit tests and the VMs).
#[test]
fn a_forged_oops_is_limited() {
    let targets = format!("{PEER}rate = \"3/1s\"\n");
    let Some(mut scene) = Scene::start("forged", &targets, 1) else { return };
    let mut lines =
        vec!["BUG: kernel NULL pointer dereference, address: 0000000000000000".to_owned()];
    lines.extend((0..30).map(|n| format!(" forged_line_{n}.+0x10/0x20")));
    scene.say(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let notice = scene.wait_for("the notice", |datagram| datagram.contains("suppressed"));
    assert!(notice.contains("of the target"), "{notice}");
    assert_eq!(scene.count("forged_line_"), 2);
}
