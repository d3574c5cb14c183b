//! How often the programs ran and what that cost, as the kernel counts it
//! (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c): read from `/proc`, which needs no privilege.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use super::Probes;

/// What the kernel counts for one program, if `kernel.bpf_stats_enabled` is 1 (or somebody
/// holds a descriptor of `BPF_ENABLE_STATS`). Zero without that; it is never switched on from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Name of the program in the object.
    pub name: &'static str,
    /// Runs.
    pub runs: u64,
    /// Time spent in them.
    pub time: Duration,
}

impl Probes {
    /// The runs of every attached program.
    #[must_use]
    pub fn runs(&self) -> Vec<ProgramRuns> {
        let runs = |(name, fd): (&&'static str, &OwnedFd)| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
            let (runs, time) = parse(&info.unwrap_or_default());
            ProgramRuns { name, runs, time }
        };
        self.attached.iter().map(runs).collect()
    }
}

fn parse(info: &str) -> (u64, Duration) {
    let value = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    (value("run_cnt:"), Duration::from_nanos(value("run_time_ns:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_is_understood() {
        let info = "pos:\t0\nprog_type:\t17\nrun_time_ns:\t1500\nrun_cnt:\t7\n\
                    recursion_misses:\t0\n";
        assert_eq!(parse(info), (7, Duration::from_nanos(1500)));
        assert_eq!(parse("pos:\t0\n"), (0, Duration::ZERO));
    }
}
