//! A soak: random faults for minutes, one after the other and one within the other, under a base
//! load with storms in it. At the end each seq is accounted for.
//!
//! ```text
//! NETCONSOLE_AGENT_SOAK_MINUTES=30   instead of 3 minutes (20 s with NETCONSOLE_AGENT_QUICK)
//! NETCONSOLE_AGENT_SEED=17           the same faults again (as far as scheduling allows)
//! ```
//!
//! ```text
//!   left                                        right
//!   agent ─ left0 192.0.2.1 ──── veth ──── 192.0.2.2 right0 ─ lo 198.51.100.10
//!             plain ─────────────────────────► :6666             ▲
//!             paced, by the gateway 192.0.2.2 ───────────────────┘ :6667
//! ```
//!
//! The faults are in `soak/faults.rs`, the judgement in `soak/judge.rs`. Each configuration that
//! is written has a number, which all records and notices of it carry as userdata: so each
//! datagram tells which run of the agent it is from.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agent_tests::{
    capture::Tap,
    kmsg::{Reader, Unlimited, mark},
    netns::{Pair, xdp_or_skip},
    process::Footprint,
    quick, seed,
    view::View,
};
use faults::Scene;
use judge::{Frames, Judgement};

#[path = "soak/faults.rs"]
mod faults;
#[path = "soak/judge.rs"]
mod judge;
#[path = "soak/memory.rs"]
mod memory;

/// Names how long the faults go on.
const MINUTES_VARIABLE: &str = "NETCONSOLE_AGENT_SOAK_MINUTES";
const MINUTES: u64 = 3;
const QUICK_S: u64 = 20;
/// The targets and their ports.
const TARGETS: [(&str, u16); 2] = [("plain", 6666), ("paced", 6667)];
const WRITERS: u64 = 3;
const LINES_PER_S_EACH: u64 = 100;
/// The account is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Everything must have left so long after the last fault: a full store at the slower pace is 4 s.
const PATIENCE: Duration = Duration::from_secs(60);
const RSS_GROWTH_MAX_BYTES: u64 = 8 << 20;

fn length() -> Duration {
    let minutes = std::env::var(MINUTES_VARIABLE).ok();
    let minutes = minutes.map(|text| text.parse::<u64>().expect("minutes are a number"));
    match minutes {
        Some(minutes) => Duration::from_secs(minutes * 60),
        None if quick() => Duration::from_secs(QUICK_S),
        None => Duration::from_secs(MINUTES * 60),
    }
}

/// A line of any level that no console shows, mostly short, with what has to be escaped.
fn line(random: &mut fastrand::Rng, label: &str, number: u64) -> Vec<u8> {
    let priority = random.u8(1..=7) + 8 * random.u8(0..4);
    let most = if random.u8(0..16) == 0 { 850 } else { 120 };
    let filler = "a\\b\u{e9}c\td = 1;2 ".chars().cycle().take(random.usize(0..most) * 7 / 8);
    let filler: String = filler.collect();
    let mut text = format!("<{priority}>soak {} {label} {number} {filler}", std::process::id());
    while text.len() > 950 {
        text.pop();
    }
    text.push('\n');
    text.into_bytes()
}

/// Writes evenly until it is told to stop.
fn writer(seed: u64, number: u64, stop: &AtomicBool) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed ^ number);
    let mut file = File::options().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let label = format!("w{number}");
    let begin = Instant::now();
    let mut lines = 0;
    while !stop.load(Ordering::Acquire) {
        file.write_all(&line(&mut random, &label, lines)).expect("write /dev/kmsg");
        lines += 1;
        let due = begin + Duration::from_micros(lines * 1_000_000 / LINES_PER_S_EACH);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    lines
}

/// Sets it when it goes, however that comes about: threads of a scope would wait for ever.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What is wrong in any account.
fn wrong_in(view: &View) -> Vec<String> {
    let wrong = view.targets.iter().filter(|target| {
        let account = &target.account;
        !account.adds_up() || account.unbalanced > 0 || account.filtered > 0
    });
    wrong.map(|target| format!("{}: {:?}", target.name, target.account)).collect()
}

#[test]
fn everything_is_accounted_for() {
    if !xdp_or_skip("everything_is_accounted_for") {
        return;
    }
    let length = length();
    let seed = seed("SOAK");
    println!("SOAK {} s", length.as_secs());
    let unlimited = Unlimited::new();
    let pair = Pair::new();
    pair.right.ip("addr add 198.51.100.10/32 dev lo");
    pair.left.ip(faults::ROUTE);
    let _sinks = TARGETS.map(|(_, port)| pair.right.sink(port));
    let frames = TARGETS.map(|_| Arc::new(Mutex::new(Frames::default())));
    let taps: Vec<_> = TARGETS
        .iter()
        .zip(&frames)
        .map(|((_, port), frames)| {
            let frames = Arc::clone(frames);
            Tap::start(&pair.right, *port, &["lo"], move |frame| {
                frames.lock().expect("what came").push((frame.at, frame.payload.to_vec()));
            })
        })
        .collect();
    let reader = Reader::start();
    let mut scene = Scene::start(&pair, seed);
    let first = mark();
    scene.wait_until_past(first, PATIENCE);
    let before = Footprint::of(scene.agent.pid());

    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let wrong = Mutex::new(Vec::new());
    let socket = scene.agent.socket();
    let written = std::thread::scope(|scope| {
        let stop_at_end = StopAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(LOOK_EVERY);
                if let Some(view) = View::ask(&socket) {
                    looks.fetch_add(1, Ordering::Relaxed);
                    wrong.lock().expect("what is wrong").extend(wrong_in(&view));
                }
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let stop = &stop;
                scope.spawn(move || writer(seed, number, stop))
            })
            .collect();
        let begin = Instant::now();
        while begin.elapsed() < length {
            scene.a_round(begin + length);
        }
        drop(stop_at_end);
        writers.into_iter().map(|writer| writer.join().expect("a writer")).sum::<u64>()
    });
    println!(
        "SOAK {written} lines of the base load, {} in storms, {} looks; faults {:?}",
        scene.stormed,
        looks.load(Ordering::Relaxed),
        scene.counts
    );
    assert_eq!(wrong.into_inner().expect("what is wrong"), Vec::<String>::new(), "seed {seed}");

    // It ends active, with nothing left to send, and nothing left over.
    scene.wait_until_active();
    let last = mark();
    scene.wait_until_past(last, PATIENCE);
    assert_eq!(wrong_in(&scene.agent.view()), Vec::<String>::new(), "seed {seed}");
    let after = Footprint::settled(scene.agent.pid(), &before);
    println!("SOAK before {before:?}, after {after:?}");
    assert!(after.descriptors <= before.descriptors, "descriptors: {before:?} {after:?}");
    assert!(after.rings <= before.rings, "rings: {before:?} {after:?}");
    let own = |of: &Footprint| of.memory.resident_bytes.saturating_sub(of.memory.bpf_maps_bytes);
    let grown = own(&after).saturating_sub(own(&before));
    assert!(grown <= RSS_GROWTH_MAX_BYTES, "{grown} bytes more: {before:?} {after:?}");

    let scene = scene.end();
    std::thread::sleep(Duration::from_millis(300));
    drop(taps);
    let read = reader.finish();
    drop(unlimited);
    let reference: BTreeMap<_, _> =
        read.lines.iter().map(|line| (line.seq, line.bytes.as_slice())).collect();
    println!("SOAK the reader: {} lines, {} times overwritten", reference.len(), read.overwritten);
    for ((index, (name, _)), frames) in TARGETS.iter().enumerate().zip(&frames) {
        let frames = frames.lock().expect("what came");
        let runs: Vec<_> = scene.runs.iter().map(|run| run.of_target(index)).collect();
        let judgement = Judgement::of(name, &frames, &runs, &scene.outages);
        judgement.compare_with(&reference);
        assert!(judgement.has(last), "{name}: the last one; seed {seed}");
    }
}
