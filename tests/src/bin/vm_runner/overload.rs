//! More records than the programs' ring holds, while the agent stands still: which of them
//! are sacrificed? The host judges it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{LIMIT, NEWEST_SEQ, REMOTE, SOCKET, settle, with_agent};

pub(super) const PHASE: &str = "overload";
const PORT: u16 = 7963;
/// Records of the flood: more than the ring (640 of them) and the kernel's buffer (some 5000)
/// can hold.
const RECORDS: u64 = 12_000;
/// One in so many is an error or worse: as many as the last three sixteenths of the ring hold.
const SEVERE_ONE_IN: u64 = 120;
/// Length of their texts in bytes.
const TEXT_BYTES: usize = 200;
/// The reader of `/dev/kmsg` may be behind by as many, which the kernel's buffer holds easily.
const BEHIND_MAX: u64 = 1_000;

pub(super) fn run() -> Result<()> {
    let settings = format!(
        "[agent]\ncontrol_socket = \"{SOCKET}\"\nreplay = \"none\"\ncapture = \"commit\"\nring = \"256KiB\"\n\
         [target.one]\nremote = \"{REMOTE}:{PORT}\"\nmax_level = \"debug\"\n"
    );
    with_agent(PHASE, &settings, |agent| {
        // What the start of the phase left in the ring is no part of the flood.
        settle()?;
        agent.signal(Signal::STOP)?;
        let flooded = flood();
        agent.signal(Signal::CONT)?;
        flooded.and(settle())
    })
}

fn flood() -> Result<()> {
    let begin = NEWEST_SEQ.load(Ordering::Acquire);
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    let mut kmsg = kmsg.context("open /dev/kmsg to write")?;
    for number in 0..RECORDS {
        let level = if number % SEVERE_ONE_IN == SEVERE_ONE_IN - 1 {
            number / SEVERE_ONE_IN % 4
        } else {
            4 + number % 4
        };
        // Facility 1, user.
        let record = format!("<{}>flood {number:0TEXT_BYTES$}\n", 8 | level);
        kmsg.write_all(record.as_bytes()).context("write to /dev/kmsg")?;
        let start = Instant::now();
        while begin + number > NEWEST_SEQ.load(Ordering::Acquire) + BEHIND_MAX {
            ensure!(start.elapsed() < LIMIT, "the reader of /dev/kmsg does not follow");
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
