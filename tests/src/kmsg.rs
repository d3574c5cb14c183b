//! The kernel's log from the tests' side: writers, an independent reader of
//! `/dev/kmsg`, and the rate limit that stands in the way of both.
//!
//! The reader shares no code with the agent: it keeps the raw bytes of each read.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Lifts the limit of ten lines per five seconds for writers of `/dev/kmsg`, and
/// restores what was there on drop.
#[derive(Debug)]
pub struct Unlimited {
    before: String,
}

const DEVKMSG: &str = "/proc/sys/kernel/printk_devkmsg";

impl Unlimited {
    /// Sets `kernel.printk_devkmsg=on`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it changes a sysctl; that should be visible")]
    pub fn new() -> Self {
        let before = std::fs::read_to_string(DEVKMSG).expect("read the sysctl");
        std::fs::write(DEVKMSG, "on").expect("set the sysctl");
        Self { before }
    }
}

impl Drop for Unlimited {
    fn drop(&mut self) {
        // Not `expect`: a panic while panicking would abort.
        let _ = std::fs::write(DEVKMSG, self.before.trim());
    }
}

/// One record as `/dev/kmsg` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its sequence number.
    pub seq: u64,
    /// The bytes of the read.
    pub bytes: Vec<u8>,
}

/// A thread that reads all that is logged from its start on.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Read>,
}

/// What a [`Reader`] has read.
#[derive(Debug, Default)]
pub struct Read {
    /// The records, in order.
    pub lines: Vec<Line>,
    /// Times the kernel overwrote records before they were read.
    pub overwritten: usize,
}

impl Reader {
    /// Opens `/dev/kmsg`, passes over what is there, and starts reading.
    #[must_use]
    pub fn start() -> Self {
        let mut file = open();
        let mut buffer = vec![0; 8192];
        while let Ok(length) | Err(Some(length)) = read_line(&mut file, &mut buffer) {
            if length == 0 {
                break;
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut read = Read::default();
                loop {
                    // Stopping is looked at before the read, so that the last
                    // records are not left behind.
                    let stopping = stop.load(Ordering::Acquire);
                    match read_line(&mut file, &mut buffer) {
                        Ok(0) if stopping => return read,
                        Ok(0) => std::thread::sleep(Duration::from_micros(100)),
                        Ok(length) => {
                            let bytes = buffer[..length].to_vec();
                            read.lines.push(Line { seq: seq_of(&bytes), bytes });
                        }
                        Err(_) => read.overwritten += 1,
                    }
                }
            })
        };
        Self { stop, thread }
    }

    /// Reads what is left and gives it back.
    #[must_use]
    pub fn finish(self) -> Read {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the reader of /dev/kmsg")
    }
}

fn open() -> File {
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open("/dev/kmsg")
        .expect("open /dev/kmsg")
}

/// The length of the next line; 0 if there is none now; an error if the kernel
/// overwrote what came next.
fn read_line(file: &mut File, buffer: &mut [u8]) -> Result<usize, Option<usize>> {
    match file.read(buffer) {
        Ok(length) => Ok(length),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Some(1)),
        Err(error) => panic!("read /dev/kmsg: {error}"),
    }
}

/// The second field of the header.
#[must_use]
pub fn seq_of(line: &[u8]) -> u64 {
    let field = line.split(|byte| *byte == b',').nth(1).expect("a header");
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).expect("a seq")
}

/// Writes records, each one write, evenly at `per_second` (as fast as it goes if 0).
pub fn write(records: &[Vec<u8>], per_second: u64) {
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let start = Instant::now();
    for (index, record) in records.iter().enumerate() {
        if per_second > 0 {
            let due = start + Duration::from_nanos(index as u64 * 1_000_000_000 / per_second);
            let left = due.saturating_duration_since(Instant::now());
            if left > Duration::from_micros(100) {
                std::thread::sleep(left);
            }
        }
        file.write_all(record).expect("write /dev/kmsg");
    }
}
