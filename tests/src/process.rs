//! What `/proc` says about a running process, and about the machine.

use std::{
    fs::read_to_string,
    time::{Duration, Instant},
};

/// The texts of `file` of all threads of a process.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let folder = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    // A thread may end in between.
    threads.filter_map(|thread| read_to_string(thread.ok()?.path().join(file)).ok()).collect()
}

/// CPU time of all threads that run now, in ns (first field of `schedstat`,
/// `Documentation/scheduler/sched-stats.rst`).
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn cpu_ns(pid: u32) -> u64 {
    let times = of_threads(pid, "schedstat");
    assert!(!times.is_empty(), "/proc/{pid}/task/*/schedstat: the kernel needs CONFIG_SCHED_INFO");
    times.iter().map(|text| number(text.split_whitespace().next())).sum()
}

/// Times that the threads went to sleep, which is how often they were woken.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn voluntary_switches(pid: u32) -> u64 {
    of_threads(pid, "status").iter().map(|text| field(text, "voluntary_ctxt_switches:")).sum()
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub resident_bytes: u64,
    /// Of that, the mappings of BPF maps. A ring buffer is mapped twice in a row, and counts twice.
    pub bpf_maps_bytes: u64,
}

impl Memory {
    /// Reads `/proc/PID/status` and `/proc/PID/smaps`.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut of_map = false;
        let mut bpf_maps_kib = 0;
        for line in read("smaps").lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if !name.ends_with(':') {
                of_map = line.contains("bpf-map");
            } else if of_map && name == "Rss:" {
                bpf_maps_kib += field(line, "Rss:");
            }
        }
        Self {
            resident_bytes: field(&read("status"), "VmRSS:") << 10,
            bpf_maps_bytes: bpf_maps_kib << 10,
        }
    }
}

/// Everything that a process may leak.
#[derive(Clone, Debug)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Of these, sockets.
    pub sockets: usize,
    /// Mapped rings of sockets.
    pub rings: usize,
    /// The frames of a socket are pinned, and so resident.
    pub memory: Memory,
}

impl Footprint {
    /// What a process has when it has let go of all that it had not `before`, or after five seconds:
    /// a socket may still be waiting to be closed.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn settled(pid: u32, before: &Self) -> Self {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::of(pid);
            let settled = now.descriptors <= before.descriptors
                && now.sockets <= before.sockets
                && now.rings <= before.rings;
            if settled || Instant::now() > end {
                return now;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads `/proc/PID`.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let links: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let sockets = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:"));
        let maps = read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
        Self {
            descriptors: links.len(),
            sockets: sockets.count(),
            rings: maps.lines().filter(|line| line.contains("socket:")).count(),
            memory: Memory::of(pid),
        }
    }
}

/// How the machine's CPUs have spent their time so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct MachineTimes {
    idle: u64,
    stolen: u64,
    total: u64,
}

/// Reads `/proc/stat`.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn machine_times() -> MachineTimes {
    let text = read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; the guest's are in user.
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map(|word| number(Some(word))).collect();
    MachineTimes { idle: ticks[3] + ticks[4], stolen: ticks[7], total: ticks.iter().sum() }
}

impl MachineTimes {
    /// Shares of the time since `before` that were busy, and that were taken by the host.
    #[must_use]
    pub fn shares_since(&self, before: &Self) -> (f64, f64) {
        let total = (self.total - before.total).max(1) as f64;
        let idle = (self.idle - before.idle) as f64 / total;
        (1.0 - idle, (self.stolen - before.stolen) as f64 / total)
    }
}

/// Running processes of this name (as `comm` has it, at most 15 bytes).
#[must_use]
pub fn count_named(comm: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    processes
        .filter_map(|process| read_to_string(process.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim_end() == comm)
        .count()
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    number(line.and_then(|rest| rest.split_whitespace().next()))
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{word:?} is no number"))
}
