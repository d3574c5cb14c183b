//! 100,000 lines a second for a minute: whether anything is lost, what a record
//! costs the agent and those who print, and how much memory it holds afterwards.

use std::{
    fs::OpenOptions,
    io::Write as _,
    time::{Duration, Instant},
};

use agent_tests::{agent::Agent, netns::Pair, peer::SeqPeer, process};
use rustix::thread::set_current_timer_slack;

use super::{PORT, TARGET, cost::thread_cpu_ns, figure::Table};

const WRITERS: u64 = 2;
const PER_SECOND: u64 = 100_000;
const LOAD: Duration = Duration::from_secs(60);
/// The same without the agent, before and after.
const WITHOUT: Duration = Duration::from_secs(10);
/// What those who print may take longer with the agent: their CPU time per line.
const SLOWED_MAX: f64 = 1.3;
/// Of all records, at most this share may have come from `/dev/kmsg` alone.
const BACKFILLED_MAX_SHARE: f64 = 0.000_1;
/// Pace of a writer: so many lines, then a pause until the next one is due.
const SLICE: Duration = Duration::from_millis(1);
/// A writer that was held up makes up for it by at most this many slices at a time.
const CATCH_UP_SLICES: u32 = 2;
/// Less than this share of the wanted rate, and the load was not the one asked for.
const RATE_MIN_SHARE: f64 = 0.99;

/// Of the configuration's defaults, stated here so that they are taken off exactly.
const STORE_MIB: f64 = 16.0;
const RING_BYTES: u64 = 8 << 20;
/// Frames of the AF_XDP socket.
const UMEM_MIB: f64 = 2048.0 * 2048.0 / MIB;
const RESIDENT_MAX_MIB: f64 = 16.0;
const MIB: f64 = (1 << 20) as f64;

pub(crate) fn measure(pair: &Pair, table: &mut Table) {
    let before = offer(WITHOUT);
    let peer = SeqPeer::start(&pair.right, PORT);
    let settings = format!(
        "capture = \"tracepoint\"\nstore = \"{STORE_MIB}MiB\"\nring = \"{}MiB\"",
        RING_BYTES >> 20
    );
    let mut agent = Agent::start(&pair.left, &settings, TARGET, 1);
    let seen_before = agent.status().targets[0].account.seen;
    let cpu_before_ns = process::cpu_ns(agent.pid());
    let Offered { lines, rate, line_ns } = offer(LOAD);
    let status = agent.wait(Duration::from_secs(20), |status| {
        let account = &status.targets[0].account;
        account.queued == 0 && account.seen >= seen_before + lines
    });
    let cpu_ns = process::cpu_ns(agent.pid()) - cpu_before_ns;
    let memory = process::Memory::of(agent.pid());
    let _ = agent.stop();
    let arrived = peer.finish();
    let after = offer(WITHOUT);

    let account = &status.targets[0].account;
    let seen = account.seen - seen_before;
    let lost = account.lost_total();
    table.judged(
        "lines a second offered for 60 s",
        &format!("{rate:.0} (and {} lines by others)", seen.saturating_sub(lines)),
        &format!(">= {:.0}", PER_SECOND as f64 * RATE_MIN_SHARE),
        rate >= PER_SECOND as f64 * RATE_MIN_SHARE,
    );
    table.judged(
        "  lost records, by the agent's account",
        &format!("{lost} of {seen}"),
        "0",
        lost == 0 && account.queued == 0 && account.balances,
    );
    table.judged(
        "  seqs that did not arrive",
        &format!("{} ({} arrived)", arrived.missing, arrived.seqs),
        "0",
        arrived.missing == 0 && arrived.out_of_order == 0 && arrived.seqs >= lines,
    );
    table.told(
        "  records with estimated fields",
        &format!("{:.2} %", 100.0 * account.approximated as f64 / seen.max(1) as f64),
    );
    let backfilled = account.backfilled as f64 / seen.max(1) as f64;
    table.judged(
        "  back-filled records",
        &format!("{:.4} %", 100.0 * backfilled),
        &format!("<= {:.2} %", 100.0 * BACKFILLED_MAX_SHARE),
        backfilled <= BACKFILLED_MAX_SHARE,
    );
    table.told(
        "  the agent's CPU time per record",
        &format!("{:.0} ns", cpu_ns as f64 / seen.max(1) as f64),
    );
    let without_ns = f64::midpoint(before.line_ns, after.line_ns);
    let slowed = line_ns / without_ns;
    table.judged(
        "  CPU time of those who print",
        &format!(
            "{slowed:.2}x ({line_ns:.0} ns a line, without the agent {:.0} and {:.0} ns)",
            before.line_ns, after.line_ns
        ),
        &format!("<= {SLOWED_MAX}x"),
        slowed <= SLOWED_MAX,
    );
    let own = memory.resident_bytes as f64 / MIB
        - memory.bpf_maps_bytes as f64 / MIB
        - STORE_MIB
        - UMEM_MIB;
    table.judged(
        "  resident, less store, ring and frames",
        &format!("{own:.1} MiB (of {:.1} MiB)", memory.resident_bytes as f64 / MIB),
        &format!("<= {RESIDENT_MAX_MIB:.0} MiB"),
        own <= RESIDENT_MAX_MIB,
    );
}

/// A load that was offered.
struct Offered {
    lines: u64,
    /// Lines a second.
    rate: f64,
    /// CPU time of the writers per line, in nanoseconds.
    line_ns: f64,
}

fn offer(load: Duration) -> Offered {
    let begin = Instant::now();
    let written: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_paced(writer, begin, load)))
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    let rate = 1.0 / begin.elapsed().as_secs_f64();
    let lines: u64 = written.iter().map(|(lines, _)| lines).sum();
    let cpu_ns: u64 = written.iter().map(|(_, cpu_ns)| cpu_ns).sum();
    Offered { lines, rate: rate * lines as f64, line_ns: cpu_ns as f64 / lines as f64 }
}

/// One writer's share of the load; returns how many lines it wrote, and its CPU time.
fn write_paced(writer: u64, begin: Instant, load: Duration) -> (u64, u64) {
    // Without it the pauses are up to 50 µs longer, and only that.
    let _ = set_current_timer_slack(std::num::NonZeroU64::new(1));
    let per_slice = PER_SECOND / WRITERS / (1_000_000_000 / SLICE.as_nanos() as u64);
    let slices = (load.as_nanos() / SLICE.as_nanos()) as u32;
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let mut lines = 0;
    let mut slice = 0;
    while slice < slices {
        let wanted = (begin.elapsed().as_nanos() / SLICE.as_nanos()) as u32 + 1;
        let now = wanted.saturating_sub(slice).min(CATCH_UP_SLICES).min(slices - slice);
        for _ in 0..u64::from(now) * per_slice {
            let line = format!("<6>load of writer {writer}, line {lines:07}: {:042}\n", 0);
            file.write_all(line.as_bytes()).expect("write /dev/kmsg");
            lines += 1;
        }
        slice += now;
        // While it is behind, half a pause: twice the pace, not a burst.
        let behind = wanted > slice;
        let due = if behind { begin.elapsed() + SLICE / 2 } else { SLICE * slice };
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    (lines, thread_cpu_ns())
}
