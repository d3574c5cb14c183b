//! A suspend, and the wall clock set forth and back, while a writer logs, a rate is in force
//! and keepalives are due. What left the host is judged outside.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Agent, LIMIT, REMOTE, SOCKET, WRITER_CPU, join, on_thread, say, set, tool, with_agent, write,
};

pub(super) const PHASE: &str = "clocks";
const PORT_ALL: u16 = 8063;
const PORT_LIMITED: u16 = 8064;
/// Less than the keepalive's interval less a tenth of it, in which it may come: 9 s to 11 s.
const _: () = assert!(SOON.as_secs() < 9);
/// Longer than the keepalive's interval and a tenth, and than the period of the rate.
const SUSPEND_S: i64 = 14;
/// How soon after the resume a keepalive must have come.
const SOON: Duration = Duration::from_secs(5);
/// Records for the target with the rate, at a time: more than it lets through.
const LIMITED_RECORDS: u64 = 8;

pub(super) fn run() -> Result<()> {
    let settings = format!(
        "[agent]\ncontrol_socket = \"{SOCKET}\"\nreplay = \"none\"\n\
         [target.all]\nremote = \"{REMOTE}:{PORT_ALL}\"\nmax_level = \"debug\"\nkeepalive = \"10s\"\n\
         [target.limited]\nremote = \"{REMOTE}:{PORT_LIMITED}\"\nmax_level = \"debug\"\n\
         facility = [\"local0\"]\nrate = \"5/10s\"\n"
    );
    with_agent(PHASE, &settings, |agent| {
        let over = Arc::new(AtomicBool::new(false));
        let writer = on_thread("vm_writer", WRITER_CPU, {
            let over = Arc::clone(&over);
            move || {
                let mut numbers = 0..;
                while !over.load(Ordering::Relaxed) {
                    write(format!("<14>clocks {}\n", numbers.next().unwrap_or(0)))?;
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
        })?;
        let disturbed = disturb(agent);
        over.store(true, Ordering::Relaxed);
        join(writer).and(disturbed)
    })
}

fn disturb(agent: &Agent) -> Result<()> {
    // The one that says that the target is active, and the first by the clock. The next falls
    // due in the suspend, and with a clock that stood still it would be late.
    let active = keepalives_after(agent, 0, LIMIT)?;
    let first = keepalives_after(agent, active, LIMIT)?;
    limited("before the suspend", LIMITED_RECORDS)?;
    let before_ns = suspended_ns();
    suspend()?;
    let suspended_s = (suspended_ns() - before_ns) / 1_000_000_000;
    say(&format!("INFO suspended {suspended_s}"));
    // The alarm was set before; a busy machine takes seconds to fall asleep.
    ensure!(suspended_s + 6 >= SUSPEND_S, "the suspend took {suspended_s} s");
    keepalives_after(agent, first, SOON).context("right after the resume")?;
    limited("after the resume", LIMITED_RECORDS)?;
    for (name, hours) in [("an hour forth", 1), ("an hour back", -1), ("back again", -1)] {
        set_wall_clock(hours * 3600)?;
        limited(name, 1)?;
    }
    set_wall_clock(3600)
}

/// Waits until the agent has sent more than `before` messages; returns how many.
fn keepalives_after(agent: &Agent, before: u64, limit: Duration) -> Result<u64> {
    let start = Instant::now();
    loop {
        // The first target in the status is the one with keepalives, and sends no others.
        let sent = agent.count("messages")?;
        if sent > before {
            return Ok(sent);
        }
        ensure!(start.elapsed() < limit, "no keepalive in {} s", limit.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Records for the target with the rate: facility 16 is local0.
fn limited(when: &str, records: u64) -> Result<()> {
    (0..records).try_for_each(|number| write(format!("<134>limited {when} {number}\n")))
}

/// Suspends to memory; the real-time clock wakes the machine. (Suspended to idle it would not
/// wake: QEMU tells of the alarm only where the firmware was asked to sleep.)
fn suspend() -> Result<()> {
    set(Path::new("/sys/power/mem_sleep"), "deep")?;
    let alarm = Path::new("/sys/class/rtc/rtc0/wakealarm");
    set(alarm, "0")?;
    set(alarm, &format!("+{SUSPEND_S}"))?;
    fs::write("/sys/power/state", "mem").context("suspend")
}

fn suspended_ns() -> i64 {
    let now_ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    now_ns(ClockId::Boottime) - now_ns(ClockId::Monotonic)
}

fn set_wall_clock(by_s: i64) -> Result<()> {
    let to_s = clock_gettime(ClockId::Realtime).tv_sec + by_s;
    tool("date", &["-s", &format!("@{to_s}")])
}
