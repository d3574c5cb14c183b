//! What becomes of records while a target cannot send, or may not.

use std::time::{Duration, Instant};

use agent_tests::{capture::Arrived, netns::Pair};

use super::{
    link::TARGET,
    scene::{Expected, LIMIT_BIND, ROUNDS, Scene, ms, ready},
};

#[test]
fn a_target_is_switched_off_and_on() {
    if !ready("a_target_is_switched_off_and_on") {
        return;
    }
    let net = Pair::new();
    let mut scene = Scene::start("switched", &net.left, &net.right, TARGET);
    for _ in 0..ROUNDS {
        scene.say_and_see(20);
        scene.agent.command(&["target", "disable", "peer"]);
        scene.wait("disabled", Duration::from_secs(3), |view| view.state == "disabled");
        let waiting = scene.say(50);
        std::thread::sleep(Duration::from_millis(100));
        let text = scene.text(waiting.start);
        assert!(scene.capture.all().iter().all(|one| !one.begins_with(&text)), "it is off");
        let queued = scene.view().account.queued;
        assert!(queued >= 50, "{queued}");
        scene.agent.command(&["target", "enable", "peer"]);
        let enabled = Instant::now();
        let first = scene.arrival(waiting.start);
        scene.healed(first.at.saturating_duration_since(enabled));
        let _ = scene.arrival(waiting.end - 1);
        scene.wait_active();
    }
    scene.judge(LIMIT_BIND);
    scene.assert_went(&["disabled", "active"]);
    let _ = scene.finish(&Expected::default());
}

/// More than the store holds: the oldest are lost, and counted; the rest comes in order.
#[test]
fn a_backlog_that_outgrows_the_store_loses_its_oldest() {
    if !ready("a_backlog_that_outgrows_the_store_loses_its_oldest") {
        return;
    }
    const COUNT: usize = 2_500;
    let net = Pair::new();
    let sizes = "store = \"1MiB\"\nring = \"512KiB\"";
    let far = (&net.right, &[][..]);
    let mut scene = Scene::start_with("backlog", &net.left, far, sizes, TARGET, 1);
    scene.say_and_see(5);
    net.left.ip("link set left0 down");
    scene.wait_waiting(&["device_down", "no_route"]);
    // 900 bytes: not in fragments.
    let waiting = scene.say_evenly(COUNT, 1_500, 860);
    net.left.ip("link set left0 up");
    let _ = scene.arrival(waiting.end - 1);
    let arrived = scene.capture.all();
    let came = |number: usize| {
        let text = scene.text(number);
        arrived.iter().any(|one| one.begins_with(&text))
    };
    let lost = waiting.clone().take_while(|number| !came(*number)).count();
    // 1 MiB holds between 600 and 1200 of them.
    assert!((COUNT - 1_200..=COUNT - 600).contains(&lost), "{lost} of {COUNT} lost");
    let outcome = scene.finish(&Expected { lost: &[("backlog", lost)], ..Expected::default() });
    let oldest: Vec<_> = (waiting.start..waiting.start + lost).collect();
    assert_eq!(outcome.missing, oldest);
}

/// At most `burst` at once and `per_second` after that, whatever the window.
fn assert_paced(label: &str, arrived: &[Arrived], burst: usize, per_second: usize) {
    let mut most = 0.0_f64;
    for window_ms in [1, 5, 20, 100, 500] {
        let window = Duration::from_millis(window_ms);
        let allowed = burst as f64 + per_second as f64 * window.as_secs_f64();
        let mut begin = 0;
        for end in 0..arrived.len() {
            while arrived[end].at.saturating_duration_since(arrived[begin].at) > window {
                begin += 1;
            }
            most = most.max((end - begin + 1) as f64 / allowed);
        }
    }
    println!("{label}: at most {:.0}% of what the pace allows in any window", most * 100.0);
    // A kick may be held up and the next one follow closely.
    assert!(most <= 1.25, "{label}: {most}");
}

#[test]
fn a_backlog_leaves_at_its_pace() {
    if !ready("a_backlog_leaves_at_its_pace") {
        return;
    }
    for (label, pace, per_second, count) in
        [("pace-default", "", 20_000, 8_000), ("pace-1000", "pace = \"1000/s\"", 1_000, 1_500)]
    {
        let net = Pair::new();
        let target = format!("{TARGET}\n{pace}");
        let mut scene = Scene::start(label, &net.left, &net.right, &target);
        scene.say_and_see(5);
        net.left.ip("link set left0 down");
        scene.wait_waiting(&["device_down", "no_route"]);
        let waiting = scene.say_evenly(count, 8_000, 0);
        // The bucket is full again.
        std::thread::sleep(Duration::from_millis(300));
        let from = scene.capture.count();
        net.left.ip("link set left0 up");
        let last = scene.arrival(waiting.end - 1);
        let arrived = scene.capture.all().split_off(from);
        assert_paced(label, &arrived, 256, per_second);
        let took = last.at - arrived[0].at;
        let ideal = Duration::from_secs_f64((count - 256) as f64 / per_second as f64);
        println!("{label}: {count} records in {:.0} ms, ideal {:.0} ms", ms(took), ms(ideal));
        assert!(took > ideal.mul_f64(0.9), "{label}: {took:?}");
        assert!(took < ideal.mul_f64(1.5) + Duration::from_millis(200), "{label}: {took:?}");
        let _ = scene.finish(&Expected::default());
    }
}
