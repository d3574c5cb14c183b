//! How late a record is: from just before the write to `/dev/kmsg` to the return of
//! the receiver's `recv` on the other end of the veth pair.
//!
//! The text carries the time of the write, so clock and threads of this
//! process are in the figure, on both ends.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::UdpSocket,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    netns::{Pair, RIGHT_V4},
};
use rustix::{
    thread::set_current_timer_slack,
    time::{ClockId, clock_gettime},
};

use super::{
    PORT, TARGET,
    figure::{Table, quantile},
};

const INTERVAL: Duration = Duration::from_millis(1);
/// The sources take turns in so many rounds, each so long.
const ROUNDS: usize = 2;
const ROUND: Duration = Duration::from_millis(2500);
/// What comes this soon after the start is not counted.
const WARM_UP: Duration = Duration::from_millis(200);
const MEDIAN_MAX_US: f64 = 60.0;
const P99_MAX_US: f64 = 1000.0;
const MARK: &str = "sent at ";

pub(crate) fn measure(pair: &Pair, table: &mut Table) {
    let sources = ["tracepoint", "kmsg"];
    let mut latencies_us = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (source, latencies_us) in sources.iter().zip(&mut latencies_us) {
            latencies_us.extend(round(pair, source));
        }
    }
    for ((source, mut us), judged) in sources.iter().zip(latencies_us).zip([true, false]) {
        us.sort_by(f64::total_cmp);
        let (p50, p99) = (quantile(&us, 0.5), quantile(&us, 0.99));
        let rest = format!(
            "p99.9 {:.0} us, max {:.0} us, of {}",
            quantile(&us, 0.999),
            quantile(&us, 1.0),
            us.len()
        );
        let [half, most] = ["p50", "p99"].map(|name| format!("latency by {source}, {name}"));
        if judged {
            let target = |us: f64| format!("<= {us:.0} us");
            table.judged(
                &half,
                &format!("{p50:.0} us"),
                &target(MEDIAN_MAX_US),
                p50 <= MEDIAN_MAX_US,
            );
            let measured = format!("{p99:.0} us ({rest})");
            table.judged(&most, &measured, &target(P99_MAX_US), p99 <= P99_MAX_US);
        } else {
            table.told(&half, &format!("{p50:.0} us"));
            table.told(&most, &format!("{p99:.0} us ({rest})"));
        }
    }
}

/// Latencies of one round, in microseconds.
fn round(pair: &Pair, source: &str) -> Vec<f64> {
    let socket = pair.right.run(|| UdpSocket::bind((RIGHT_V4, PORT)).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let agent = Agent::start(&pair.left, &format!("capture = {source:?}"), TARGET, 1);
    let us = std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        let receiver = scope.spawn(|| receive(&socket));
        let (written, us) =
            (writer.join().expect("the writer"), receiver.join().expect("the receiver"));
        assert!(us.len() == written as usize, "{} of {written} lines arrived", us.len());
        us
    });
    let _ = agent.stop();
    us.into_iter().skip((WARM_UP.as_nanos() / INTERVAL.as_nanos()) as usize).collect()
}

fn write() -> u32 {
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1));
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let begin = Instant::now();
    let mut written = 0;
    while begin.elapsed() < ROUND {
        std::thread::sleep((INTERVAL * written).saturating_sub(begin.elapsed()));
        let line = format!("<6>{MARK}{:020}, a line of the usual length, or nearly so\n", now_ns());
        file.write_all(line.as_bytes()).expect("write /dev/kmsg");
        written += 1;
    }
    written
}

/// Receives until nothing has come for the socket's timeout.
fn receive(socket: &UdpSocket) -> Vec<f64> {
    let mut us = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        let now = now_ns();
        let text = String::from_utf8_lossy(&buffer[..length]);
        // Records of others have no mark.
        let stamp = text.split_once(MARK).and_then(|(_, rest)| rest.get(..20));
        if let Some(sent_ns) = stamp.and_then(|digits| digits.parse::<u64>().ok()) {
            us.push(now.saturating_sub(sent_ns) as f64 / 1000.0);
        }
    }
    us
}

/// `CLOCK_MONOTONIC`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
