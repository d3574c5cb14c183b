//! What a running agent costs whoever prints: the time of a write to
//! `/dev/kmsg` with the agent and without, in rounds that take turns.
//!
//! Two clocks. The thread's CPU time is what printing itself takes, with the
//! programs, the doorbell and the shared cache lines; neighbours do not count. The wall
//! clock's median over short batches is what the caller sees while it has its CPU.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    net::UdpSocket,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    netns::{Pair, RIGHT_V4},
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    PORT, TARGET,
    figure::{Table, median},
};

const RATIO_MAX: f64 = 1.3;
const ROUNDS: usize = 7;
/// Writes before the clock starts: caches, the kernel's log buffer, the agent's pages.
const WARM_UP: usize = 5_000;
const BATCH: usize = 200;
const BATCHES: usize = 150;
/// Writes of the paced writer, one per millisecond.
const PACED: usize = 600;

/// A level, 80 bytes of text, and the end of the line.
const LINE: &[u8; 84] =
    b"<6>a line of eighty bytes, as a driver or a firewall prints them, over and over ag.\n";

/// Time per write in ns.
#[derive(Clone, Copy, Debug)]
struct Round {
    full_cpu_ns: f64,
    full_wall_ns: f64,
    paced_wall_ns: f64,
}

pub(crate) fn measure(pair: &Pair, table: &mut Table) {
    // Takes what arrives and looks at none of it: a reader would compete for the
    // CPUs and is no part of what the agent costs.
    let _receiver =
        pair.right.run(|| UdpSocket::bind((RIGHT_V4, PORT)).expect("bind the receiver"));
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(round(&mut file));
        let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", TARGET, 1);
        with.push(round(&mut file));
        agent.wait(Duration::from_secs(10), |status| status.targets[0].account.queued == 0);
        let _ = agent.stop();
    }
    let mut compare = |name: &str, time: fn(&Round) -> f64, target: Option<f64>| {
        let ratio = median(without.iter().zip(&with).map(|(a, b)| time(b) / time(a)));
        let measured = format!(
            "{ratio:.2}x ({:.0} ns, without {:.0} ns)",
            median(with.iter().map(time)),
            median(without.iter().map(time))
        );
        match target {
            Some(most) => table.judged(name, &measured, &format!("<= {most}x"), ratio <= most),
            None => table.told(name, &measured),
        }
    };
    compare("printk at full speed, CPU time", |round| round.full_cpu_ns, Some(RATIO_MAX));
    compare("printk at full speed, wall clock", |round| round.full_wall_ns, None);
    compare("printk at 1,000/s, wall clock", |round| round.paced_wall_ns, None);
}

fn round(file: &mut File) -> Round {
    let mut write = || file.write_all(LINE).expect("write /dev/kmsg");
    for _ in 0..WARM_UP {
        write();
    }
    let cpu_before = thread_cpu_ns();
    let walls: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..BATCH {
                write();
            }
            begin.elapsed().as_nanos() as f64 / BATCH as f64
        })
        .collect();
    let full_cpu_ns = (thread_cpu_ns() - cpu_before) as f64 / (BATCH * BATCHES) as f64;
    // The backlog of the storm is not what a paced writer meets.
    std::thread::sleep(Duration::from_millis(300));
    let paced = (0..PACED).map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        let begin = Instant::now();
        write();
        begin.elapsed().as_nanos() as f64
    });
    Round { full_cpu_ns, full_wall_ns: median(walls), paced_wall_ns: median(paced) }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
