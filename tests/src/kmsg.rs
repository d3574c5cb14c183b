//! The kernel's log from the tests' side: writers, an independent reader of
//! `/dev/kmsg`, and the rate limit that stands in the way of both.
//!
//! The reader shares no code with the agent: it keeps the raw bytes of each read.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Lifts the limit of ten lines per five seconds for writers of `/dev/kmsg`, and keeps
/// records off slow consoles, which would hold the writers up; restores what was
/// there on drop.
#[derive(Debug)]
pub struct Unlimited {
    before: Vec<(&'static str, String)>,
}

/// The sysctls, and what the tests need there. The kernel insists on the line end.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/kernel/printk_devkmsg", "on\n"), ("/proc/sys/kernel/printk", "1\n")];

impl Unlimited {
    /// Sets the sysctls.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it changes sysctls; that should be visible")]
    pub fn new() -> Self {
        let mut unlimited = Self { before: Vec::new() };
        for (path, value) in SYSCTLS {
            unlimited.before.push((path, std::fs::read_to_string(path).expect("read a sysctl")));
            std::fs::write(path, value).expect("set a sysctl");
        }
        unlimited
    }
}

impl Drop for Unlimited {
    fn drop(&mut self) {
        for (path, value) in &self.before {
            // Not `expect`: a panic while panicking would abort.
            let _ = std::fs::write(path, value);
        }
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

/// Everything that the kernel still has, a line per record.
#[must_use]
pub fn all() -> Vec<Vec<u8>> {
    let mut file = open();
    let mut buffer = vec![0; 8192];
    let mut lines = Vec::new();
    loop {
        match read_line(&mut file, &mut buffer) {
            Ok(0) => return lines,
            Ok(length) => lines.push(buffer[..length].to_vec()),
            Err(_) => {}
        }
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
    let interval = Duration::from_nanos(1_000_000_000_u64.checked_div(per_second).unwrap_or(0));
    let mut due = Instant::now();
    for record in records {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            std::thread::sleep(left);
        }
        file.write_all(record).expect("write /dev/kmsg");
        // A writer that was held up goes on evenly, without a burst.
        due = (due + interval).max(Instant::now());
    }
}

/// Writes a record and returns its seq: what was written before has a lower one.
/// Others may log at the same time, so counting records tells nothing.
///
/// # Panics
/// If the record does not show up.
#[must_use]
pub fn mark() -> u64 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut buffer = vec![0; 8192];
    let begin = Instant::now();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let text = format!("agent-tests mark {} {count}.", std::process::id());
        let mut file = open();
        file.seek(SeekFrom::End(0)).expect("pass over what is there");
        write(&[format!("<6>{text}\n").into_bytes()], 0);
        // If it is overwritten before it is found, another one is written.
        let tried = Instant::now();
        while tried.elapsed() < Duration::from_millis(500) {
            match read_line(&mut file, &mut buffer) {
                Ok(0) => std::thread::sleep(Duration::from_micros(100)),
                Ok(length) => {
                    let line = &buffer[..length];
                    if line.windows(text.len()).any(|window| window == text.as_bytes()) {
                        return seq_of(line);
                    }
                }
                Err(_) => break,
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no mark shows up in /dev/kmsg");
    }
}
