//! Nothing is lost: what was logged before the start, what is logged while the agent is not
//! there or does not get to run, and what it says about the rest.
//!
//! printk is global, so these tests run one at a time.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use agent_tests::{
    agent::Agent,
    kmsg::{self, Unlimited, mark, seq_of},
    netns::{Pair, root_or_skip},
    peer::Peer,
    quick,
    stream::Stream,
};
use netconsole_agent::control::status::Status;
use rustix::process::Signal;

const PORT: u16 = 6666;
const TARGET: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\npace = \"off\"\n";
const QUIET: Duration = Duration::from_millis(400);
/// Records that one kick may hand over, and so the most that may come twice after a kill.
const BATCH: usize = 256;

/// Whether everything up to a seq has its fate.
fn is_past(status: &Status, seq: u64) -> bool {
    status.targets.first().is_some_and(|target| {
        let account = &target.account;
        account.next_seq - account.queued > seq
    })
}

fn some_lines(label: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| format!("<6>{label} {index}\n").into_bytes()).collect()
}

#[test]
fn what_was_logged_before_the_start_is_sent_once() {
    if !root_or_skip("what_was_logged_before_the_start_is_sent_once") {
        return;
    }
    for capture in ["tracepoint", "kmsg"] {
        let pair = Pair::new();
        let _unlimited = Unlimited::new();
        let table = |replay: &str| format!("capture = {capture:?}\nreplay = {replay:?}\n");
        kmsg::write(&some_lines("before", 50), 0);

        // The first start: all that there is.
        let peer = Peer::start(&pair.right, PORT);
        let before = kmsg::all();
        let mut agent = Agent::start(&pair.left, &table("resume"), TARGET, 1);
        let live = mark();
        agent.wait(Duration::from_secs(5), |status| is_past(status, live));
        agent.end();
        peer.settle(QUIET);
        let stream = Stream::of(&peer.finish());
        stream.assert_told();
        assert_eq!((stream.doubled(), stream.steps_back().len()), (0, 0), "{capture}");
        let came = stream.by_seq();
        for line in before {
            let seq = seq_of(&line);
            // What is written now overwrites the oldest.
            let Some(record) = came.get(&seq) else {
                assert!(seq < *came.keys().next().expect("records"), "{capture}: {seq}");
                continue;
            };
            assert_eq!(String::from_utf8_lossy(record), String::from_utf8_lossy(&line));
        }
        assert!(came.contains_key(&live));
        let last = *came.keys().next_back().expect("records");

        // The next one: what was logged in between, and not once more what was sent.
        let peer = Peer::start(&pair.right, PORT);
        kmsg::write(&some_lines("in between", 30), 0);
        let between = mark();
        agent.start_again();
        let account_past = |agent: &mut Agent, seq| {
            agent.wait(Duration::from_secs(5), |status| is_past(status, seq))
        };
        let status = account_past(&mut agent, between);
        assert!(status.capture.replayed >= 31, "{:?}", status.capture);
        let live = mark();
        account_past(&mut agent, live);
        agent.end();
        peer.settle(QUIET);
        let stream = Stream::of(&peer.finish());
        assert_eq!((stream.doubled(), stream.missing()), (0, vec![]), "{capture}");
        let first = stream.records[0].0;
        assert_eq!(first, last + 1, "{capture}");
        drop(agent);

        // "none" begins with what comes, "boot" with the oldest.
        for (replay, has_old) in [("none", false), ("boot", true), ("boot", true)] {
            let peer = Peer::start(&pair.right, PORT);
            kmsg::write(&some_lines(replay, 5), 0);
            let old = mark();
            let mut agent = Agent::start(&pair.left, &table(replay), TARGET, 1);
            let live = mark();
            account_past(&mut agent, live);
            let _ = agent.stop();
            peer.settle(QUIET);
            let stream = Stream::of(&peer.finish());
            let came = stream.by_seq();
            assert_eq!(came.contains_key(&old), has_old, "{capture} {replay}");
            assert!(came.contains_key(&live), "{capture} {replay}");
            stream.assert_told();
        }
    }
}

/// Writers that log evenly until they are told to stop.
fn while_logging<T>(writers: usize, per_second: u64, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Acquire) {
                    let line = format!("<6>w{writer} {number}\n").into_bytes();
                    kmsg::write(&vec![line; 10], per_second);
                    number += 1;
                    written.fetch_add(10, Ordering::Relaxed);
                }
            });
        }
        let result = work();
        stop.store(true, Ordering::Release);
        result
    })
}

/// How many were said to be missing after the first record: the oldest ones of the kernel's buffer
/// may be overwritten while the first run begins.
fn lost_later(stream: &Stream) -> u64 {
    let first = stream.records[0].0;
    let later = stream.gaps.iter().filter(|gap| gap.last_seq > first);
    later.flat_map(|gap| gap.lost.values()).sum()
}

/// Started and stopped while others write: the replay goes over into live without a gap, and the
/// next run begins where the last one ended.
#[test]
fn a_restart_in_order_neither_loses_nor_doubles() {
    if !root_or_skip("a_restart_in_order_neither_loses_nor_doubles") {
        return;
    }
    for capture in ["tracepoint", "kmsg"] {
        let pair = Pair::new();
        let _unlimited = Unlimited::new();
        let peer = Peer::start(&pair.right, PORT);
        let table = format!("capture = {capture:?}\nreplay = \"resume\"\n");
        let last = while_logging(2, 400, || {
            let mut agent = Agent::start(&pair.left, &table, TARGET, 1);
            for _ in 0..if quick() { 3 } else { 8 } {
                std::thread::sleep(Duration::from_millis(150));
                agent.end();
                std::thread::sleep(Duration::from_millis(100));
                agent.start_again();
                agent.wait(Duration::from_secs(5), |status| status.targets[0].account.sent > 0);
            }
            let last = mark();
            agent.wait(Duration::from_secs(5), |status| is_past(status, last));
            let status = agent.status();
            let _ = agent.stop();
            let target = &status.targets[0];
            // Of this run, which began long after the kernel's buffer was last full.
            assert_eq!(target.account.lost.values().sum::<u64>(), 0, "{}", status.to_text());
            last
        });
        peer.settle(QUIET);
        let stream = Stream::of(&peer.finish());
        stream.assert_told();
        assert_eq!(lost_later(&stream), 0, "{capture} {:?}", stream.gaps);
        assert_eq!((stream.doubled(), stream.steps_back()), (0, vec![]), "{capture}");
        assert!(stream.by_seq().contains_key(&last), "{capture}");
    }
}

/// Killed at any instant and started again: each record arrives, and of each run at most what one
/// kick handed over comes twice, byte for byte the same.
#[test]
fn two_hundred_kills_lose_nothing() {
    if !root_or_skip("two_hundred_kills_lose_nothing") {
        return;
    }
    let kills = if quick() { 15 } else { 200 };
    let seed = agent_tests::seed("KILLS");
    let mut random = fastrand::Rng::with_seed(seed);
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, PORT);
    let begin = SystemTime::now();
    let (last, alive) = while_logging(2, 300, || {
        let table = "replay = \"resume\"\ncapture = \"tracepoint\"\n";
        let mut agent = Agent::start(&pair.left, table, TARGET, 1);
        let mut alive = Vec::new();
        for _ in 0..kills {
            // From before it has begun to long after.
            let started = Instant::now();
            std::thread::sleep(Duration::from_millis(random.u64(1..450)));
            agent.kill();
            alive.push(started.elapsed());
            agent.start_again();
        }
        let last = mark();
        agent.wait(Duration::from_secs(10), |status| is_past(status, last));
        let _ = agent.stop();
        (last, alive)
    });
    peer.settle(QUIET);
    let stream = Stream::of(&peer.finish());
    println!(
        "KILLS {kills} in {:.1} s, {} records, {} twice, {} told lost; longest run {:?}",
        begin.elapsed().unwrap_or_default().as_secs_f64(),
        stream.by_seq().len(),
        stream.doubled(),
        stream.told_lost(),
        alive.iter().max()
    );
    stream.assert_told_after((kills * BATCH) as u64);
    assert!(stream.by_seq().contains_key(&last));
    // Each step back is the begin of a run, and no longer than a batch.
    let steps = stream.steps_back();
    assert!(steps.len() <= kills, "{} steps back", steps.len());
    for (before, after) in steps {
        assert!(before - after < BATCH as u64, "{before} {after}; seed {seed}");
    }
    // The kernel's buffer holds seconds of this.
    assert_eq!(lost_later(&stream), 0, "{:?}; seed {seed}", stream.gaps);
}

/// What the kernel has overwritten is said in the stream, with range and count, and counted.
#[test]
fn what_nobody_has_is_told() {
    if !root_or_skip("what_nobody_has_is_told") {
        return;
    }
    for (capture, ring) in [("tracepoint", "64KiB"), ("kmsg", "64KiB")] {
        let pair = Pair::new();
        let _unlimited = Unlimited::new();
        let peer = Peer::start(&pair.right, PORT);
        let table = format!("capture = {capture:?}\nring = {ring:?}\n");
        let mut agent = Agent::start(&pair.left, &table, TARGET, 1);
        let first = mark();
        agent.wait(Duration::from_secs(5), |status| is_past(status, first));
        // It does not get to run while much is logged.
        agent.signal(Signal::STOP);
        kmsg::write(&some_lines("a line that is lost with many others", 20_000), 0);
        agent.signal(Signal::CONT);
        let last = mark();
        let status = agent.wait(Duration::from_secs(10), |status| is_past(status, last));
        let account = &status.targets[0].account;
        let _ = agent.stop();
        peer.settle(QUIET);
        let stream = Stream::of(&peer.finish());
        stream.assert_told();
        assert_eq!(stream.told_lost(), account.lost_total(), "{capture} {account:?}");
        assert!(account.lost["kernel_overwrote"] > 10_000, "{capture} {account:?}");
        assert!(account.balances, "{capture} {account:?}");
        let told: BTreeSet<_> =
            stream.gaps.iter().flat_map(|gap| gap.lost.keys().map(String::as_str)).collect();
        assert_eq!(told, BTreeSet::from(["kernel_overwrote"]), "{capture}");
        assert_eq!((stream.doubled(), stream.steps_back()), (0, vec![]), "{capture}");
        let came = stream.by_seq();
        assert!(came.contains_key(&first) && came.contains_key(&last), "{capture}");
    }
}
