//! What comes at once and leaves later: a burst into a paced target, and a start with a full
//! kernel buffer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    capture::Tap,
    kmsg::{mark, seq_of, write},
    netns::Pair,
    peer::SeqPeer,
    stream::is_notice,
};

use super::{PORT, TARGET, figure::Table};

const BURST: usize = 100_000;
/// Of the configuration's defaults.
const PACED: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"xdp\"\n";
const STARTS: usize = 5;
const FIRST_LIVE_MAX: Duration = Duration::from_millis(100);

pub(crate) fn measure(pair: &Pair, table: &mut Table) {
    burst(pair, table);
    start(pair, table);
}

/// 100,000 short records as fast as one writer goes, to a target with the default pace.
fn burst(pair: &Pair, table: &mut Table) {
    let peer = SeqPeer::start(&pair.right, PORT);
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", PACED, 1);
    let lines: Vec<Vec<u8>> =
        (0..BURST).map(|line| format!("<6>burst into a pace {line:06}\n").into_bytes()).collect();
    let begin = Instant::now();
    write(&lines, 0);
    let wrote = begin.elapsed();
    let last = mark();
    let status = agent.wait(Duration::from_secs(30), |status| {
        let account = &status.targets[0].account;
        account.next_seq - account.queued > last
    });
    let took = begin.elapsed();
    let _ = agent.stop();
    let arrived = peer.finish();
    let account = &status.targets[0].account;
    table.judged(
        "100,000 records at once, pace 20000/s",
        &format!(
            "{} lost, {} did not arrive; in {:.2} s, out {:.1} s",
            account.lost_total(),
            arrived.missing,
            wrote.as_secs_f64(),
            took.as_secs_f64()
        ),
        "0, 0",
        account.lost_total() == 0 && arrived.missing == 0 && arrived.seqs >= BURST as u64,
    );
}

/// From the start of the process to the first record at the receiver that was logged after the
/// programs were attached.
fn start(pair: &Pair, table: &mut Table) {
    let mut took = Vec::new();
    let mut replayed = 0;
    for _ in 0..STARTS {
        // More than the buffer holds, with lines as long as most.
        write(&vec![format!("<6>{:080}\n", 0).into_bytes(); 10_000], 0);
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let tap = {
            let arrivals = Arc::clone(&arrivals);
            Tap::start(&pair.right, PORT, &[], move |frame| {
                if !is_notice(frame.payload) {
                    let arrival = (seq_of(frame.payload), frame.at);
                    arrivals.lock().expect("what arrived").push(arrival);
                }
            })
        };
        let stop = AtomicBool::new(false);
        let begin = Instant::now();
        let log = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    write(&[b"<6>live\n".to_vec()], 0);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
            let settings = "capture = \"tracepoint\"\nreplay = \"resume\"";
            let agent = Agent::start(&pair.left, settings, TARGET, 1);
            std::thread::sleep(Duration::from_millis(200));
            replayed = agent.status().capture.replayed;
            stop.store(true, Ordering::Release);
            agent.stop()
        });
        drop(tap);
        let live_seq: u64 = log
            .split("live_seq=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("the log tells the first live seq");
        let arrivals = arrivals.lock().expect("what arrived");
        let live = arrivals.iter().find(|(seq, _)| *seq >= live_seq);
        let (_, at) = live.expect("a live record");
        took.push(at.duration_since(begin));
    }
    took.sort_unstable();
    let median = took[STARTS / 2];
    table.judged(
        "process start to the first live record",
        &format!(
            "{:.0} ms median, {:.0} ms worst ({replayed} replayed before)",
            median.as_secs_f64() * 1e3,
            took[STARTS - 1].as_secs_f64() * 1e3
        ),
        &format!("<= {} ms", FIRST_LIVE_MAX.as_millis()),
        median <= FIRST_LIVE_MAX,
    );
}
