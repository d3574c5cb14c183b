//! The eBPF programs that a running agent holds, and how often they ran.
//!
//! The counts are those that the kernel shows with a program's descriptor
//! (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`); it counts only while `kernel.bpf_stats_enabled` is 1.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use aya::programs::loaded_programs;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What the kernel shows of each program of the process.
pub(super) fn runs(pid: u32) -> Result<String, String> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("cannot read {folder}: {error}"))?;
    // Only root may know the names; the numbers say enough without.
    let names: BTreeMap<u32, String> = loaded_programs()
        .map_while(Result::ok)
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let mut found = BTreeMap::new();
    for entry in entries.flatten() {
        // A descriptor may be closed by now.
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        if let Some(id) = program_id(&info) {
            found.insert(id, info);
        }
    }
    let stats = fs::read_to_string(STATS)
        .map_or_else(|error| error.to_string(), |text| text.trim().to_owned());
    let mut text =
        format!("kernel.bpf_stats_enabled: {stats} (runs are counted only while it is 1)\n");
    if found.is_empty() {
        text.push_str("The agent holds no program.\n");
    }
    for (id, info) in found {
        let name = names.get(&id).map_or("?", String::as_str);
        let _ = write!(text, "\nprogram {name}\n{info}");
    }
    Ok(text)
}

fn program_id(info: &str) -> Option<u32> {
    let line = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_descriptor() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\ttracing\nlink_id:\t3\n";
        assert_eq!(program_id("pos:\t0\nprog_type:\t26\nprog_id:\t17\nrun_cnt:\t4\n"), Some(17));
        assert_eq!(program_id(link), None);
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = runs(u32::MAX).expect_err("no such process");
        assert!(error.contains("/proc/4294967295/fdinfo"), "{error}");
    }
}
