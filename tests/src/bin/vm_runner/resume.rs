//! The agent is killed and started again while records are logged, with the programs that see
//! whole records: does each record reach the receiver? The host judges it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    Agent, LIMIT, NEWEST_SEQ, PACE, REMOTE, SOCKET, WRITER_CPU, join, mark, on_thread, say, settle,
};

pub(super) const PHASE: &str = "resume";
const PORT: u16 = 7965;
/// Of these every other one is a kill, the others an orderly end.
const ENDS: u64 = 10;
/// How long a run goes on after it has begun to send; longer from run to run.
const RUN: Duration = Duration::from_millis(35);
const ABSENCE: Duration = Duration::from_millis(60);
/// Few, since a start takes seconds on an emulated machine, and the kernel's buffer must hold what is
/// logged meanwhile.
const RECORDS_AT_ONCE: u64 = 2;
/// The reader of `/dev/kmsg` may be behind by as many, which the kernel's buffer holds easily.
const BEHIND_MAX: u64 = 500;

static STOP: AtomicBool = AtomicBool::new(false);

pub(super) fn run() -> Result<()> {
    let config = format!("/run/{PHASE}.toml");
    let settings = format!(
        "[agent]\ncontrol_socket = \"{SOCKET}\"\nruntime_dir = \"/run/{PHASE}\"\n\
         replay = \"resume\"\ncapture = \"commit\"\n\
         [target.one]\nremote = \"{REMOTE}:{PORT}\"\nmax_level = \"debug\"\n"
    );
    fs::write(&config, settings).context("write the settings")?;
    // What was logged before the first run is replayed, too.
    settle()?;
    mark(PHASE, "begin")?;
    let writer = on_thread("vm_writer", WRITER_CPU, log_until_told)?;
    let ended = end_again_and_again(&config);
    STOP.store(true, Ordering::Release);
    join(writer)?;
    ended?;
    let result = last_run(&config);
    for run in 0..=ENDS {
        for line in fs::read_to_string(log_of(run)).unwrap_or_default().lines() {
            say(&format!("agent {PHASE} {run}: {line}"));
        }
    }
    result
}

fn log_of(run: u64) -> String {
    format!("/run/{PHASE}-{run}.log")
}

fn end_again_and_again(config: &str) -> Result<()> {
    for run in 0..ENDS {
        let agent = Agent::start(config, &log_of(run))?;
        let start = Instant::now();
        while agent.count("sent")? == 0 {
            ensure!(start.elapsed() < LIMIT, "the agent sends nothing");
            thread::sleep(PACE);
        }
        thread::sleep(RUN * u32::try_from(run).unwrap_or(1));
        if run % 2 == 0 {
            drop(agent);
        } else {
            agent.stop()?;
        }
        thread::sleep(ABSENCE);
    }
    say(&format!("INFO {PHASE}-ends {ENDS}"));
    Ok(())
}

fn last_run(config: &str) -> Result<()> {
    let mut agent = Agent::start(config, &log_of(ENDS))?;
    mark(PHASE, "end").and(settle())?;
    say(&format!("INFO status-{PHASE} {}", agent.status()?.replace('\n', " ")));
    agent.check()?;
    agent.stop()
}

fn log_until_told() -> Result<()> {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    let mut kmsg = kmsg.context("open /dev/kmsg to write")?;
    let begin = NEWEST_SEQ.load(Ordering::Acquire);
    let mut number = 0;
    while !STOP.load(Ordering::Acquire) {
        if begin + number <= NEWEST_SEQ.load(Ordering::Acquire) + BEHIND_MAX {
            for _ in 0..RECORDS_AT_ONCE {
                let record = format!("<14>resumed {number}\n");
                kmsg.write_all(record.as_bytes()).context("write to /dev/kmsg")?;
                number += 1;
            }
        }
        thread::sleep(2 * PACE);
    }
    Ok(())
}
