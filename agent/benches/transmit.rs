//! What the AF_XDP egress costs, against a bare AF_XDP loop and a UDP socket.
//!
//! ```text
//! cargo bench -p netconsole-agent --bench transmit     (root; about 20 s)
//! ```
//!
//! Three ways of sending the same 200-byte payload over one veth pair, in
//! rounds that take turns, so that a busy neighbour hits all three alike; medians of
//! the rounds. The frames go to a MAC that nobody has: the other end drops
//! them early, so little but transmitting is measured. The clock is the
//! sending thread's CPU time, softirq included: neighbours do not count.
//!
//! * *bare*: frames written once before the clock starts, descriptors for 32 of
//!   them, one kick, completions thrown away. No less work is possible with AF_XDP.
//! * *egress*: the agent's path: per datagram copy the payload, patch the
//!   headers (with checksums), push; per 32 flush and reap.
//! * *udp*: connected socket, one `send` per datagram.

#[path = "../../tests/src/netns.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests")]
mod netns;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netconsole_agent::egress::xdp::socket::{RawSocket, kick};
use netconsole_agent::egress::xdp::{self, XdpOptions};
use netconsole_agent::egress::{Outcome, Tag};
use netconsole_agent::frame::{FrameAddresses, HeaderTemplate};
use netns::{LEFT_MAC, LEFT_V4, MTU_BYTES, Pair, RIGHT_V4};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const PAYLOAD: [u8; 200] = [b'x'; 200];
const BATCH: u64 = 32;
const ROUNDS: usize = 36;
const ROUND: Duration = Duration::from_millis(100);
const SINK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xff];
const BARE_TARGET: f64 = 0.9;
const UDP_TARGET: f64 = 1.5;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` starts it too, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("SKIPPED: measures only under `cargo bench`");
        return Ok(());
    }
    if !netns::root_or_skip("transmit") {
        return Ok(());
    }
    let pair = Pair::new();
    pair.left.ip(&format!("neigh replace {RIGHT_V4} lladdr 02:00:00:00:00:ff dev left0"));
    let options = XdpOptions::new(pair.left.ifindex("left0"), "left0");
    let rounds = pair.left.run(|| measure(&options))?;

    let sent: u64 = rounds.iter().flatten().map(|run| run.datagrams).sum();
    let arrived = received_frames(&pair)?;
    ensure!(arrived >= sent, "{sent} datagrams were sent, {arrived} arrived");

    println!("{:<10} {:>8} {:>12}", "", "Mpps", "ns/datagram");
    for (way, name) in ["bare", "egress", "udp"].into_iter().enumerate() {
        let mpps = median(rounds.iter().map(|round| round[way].mpps()));
        println!("{name:<10} {mpps:>8.3} {:>12.0}", 1e3 / mpps);
    }
    // Of the two runs of one round: they had the same neighbours.
    let ratio = |way: usize| median(rounds.iter().map(|round| round[1].mpps() / round[way].mpps()));
    for (name, ratio, target) in
        [("egress / bare", ratio(0), BARE_TARGET), ("egress / udp", ratio(2), UDP_TARGET)]
    {
        let verdict = if ratio >= target { "met" } else { "MISSED" };
        println!("{name:<14} {ratio:.2}  (target {target:.1}: {verdict})");
    }
    Ok(())
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// One way of sending, for the time of one round.
#[derive(Clone, Copy, Debug)]
struct Run {
    datagrams: u64,
    cpu_time: Duration,
}

impl Run {
    fn mpps(self) -> f64 {
        self.datagrams as f64 / self.cpu_time.as_secs_f64() / 1e6
    }

    /// Calls `batch` for the time of a round.
    fn of(mut batch: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let (begin, begin_cpu) = (Instant::now(), cpu_time());
        let mut datagrams = 0;
        while begin.elapsed() < ROUND {
            batch()?;
            datagrams += BATCH;
        }
        Ok(Self { datagrams, cpu_time: cpu_time().saturating_sub(begin_cpu) })
    }
}

fn measure(options: &XdpOptions) -> anyhow::Result<Vec<[Run; 3]>> {
    // Sending and the other end's softirq stay on one CPU.
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).context("pin to CPU 0")?;
    let remote = SocketAddr::from((RIGHT_V4, 6666));
    let template = HeaderTemplate::new(FrameAddresses {
        src_mac: LEFT_MAC,
        dst_mac: SINK_MAC,
        vlan: None,
        local: SocketAddr::from((LEFT_V4, 6665)),
        remote,
    })?;
    let unmeasured = Run { datagrams: 0, cpu_time: ROUND };
    let mut rounds = vec![[unmeasured; 3]; ROUNDS];
    for (number, round) in rounds.iter_mut().enumerate() {
        // Each way is first, second and last equally often; sockets are closed
        // in between, because a queue has one.
        for way in (0..3).map(|turn| (turn + number) % 3) {
            round[way] = match way {
                0 => bare(options, &template)?,
                1 => egress(options, &template)?,
                _ => udp(remote)?,
            };
        }
    }
    Ok(rounds)
}

/// Writes one whole frame; its length in bytes.
fn fill(template: &HeaderTemplate, slot: &mut [u8], ip_id: u16) -> usize {
    slot[template.header_len()..][..PAYLOAD.len()].copy_from_slice(&PAYLOAD);
    template.write(slot, PAYLOAD.len(), ip_id)
}

fn bare(options: &XdpOptions, template: &HeaderTemplate) -> anyhow::Result<Run> {
    let mut socket = RawSocket::open(options)?;
    // As few as stay in the cache: two batches.
    let (mut addresses, mut len_bytes) = (Vec::new(), 0);
    for frame in socket.free.iter_mut().take(2 * BATCH as usize) {
        addresses.push(socket.umem.address(frame));
        len_bytes = fill(template, socket.umem.bytes_mut(frame), 0) as u32;
    }
    let mut next = addresses.iter().cycle();
    let mut in_flight = 0;
    Run::of(|| {
        for address in next.by_ref().take(BATCH as usize) {
            socket.tx.write(*address, len_bytes);
        }
        in_flight += BATCH;
        socket.tx.publish();
        while socket.tx.consumed() != socket.tx.published() {
            kick(&socket.fd)?;
        }
        // Not a frame that the kernel still has.
        while in_flight + BATCH > addresses.len() as u64 {
            in_flight -= u64::from(socket.completions.drain(|_| {}));
        }
        Ok(())
    })
}

fn egress(options: &XdpOptions, template: &HeaderTemplate) -> anyhow::Result<Run> {
    let mut egress = xdp::open(options)?;
    let (mut pushed, mut sent) = (0, 0);
    let run = Run::of(|| {
        for _ in 0..BATCH {
            egress.push(Tag(pushed), MTU_BYTES, &mut |slot| fill(template, slot, pushed as u16))?;
            pushed += 1;
        }
        egress.flush()?;
        egress.reap(&mut |_, outcome| sent += u64::from(outcome == Outcome::Sent));
        Ok(())
    })?;
    ensure!(sent == run.datagrams, "{} of {} datagrams were sent", sent, run.datagrams);
    Ok(run)
}

fn udp(remote: SocketAddr) -> anyhow::Result<Run> {
    let socket = UdpSocket::bind((LEFT_V4, 6665))?;
    socket.connect(remote)?;
    Run::of(|| {
        for _ in 0..BATCH {
            socket.send(&PAYLOAD)?;
        }
        Ok(())
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Frames that the other end has received.
fn received_frames(pair: &Pair) -> anyhow::Result<u64> {
    let output = std::process::Command::new("ip")
        .args(["-n", pair.right.name(), "-json", "-statistics", "link", "show", "right0"])
        .output()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("no counters for right0")
}
