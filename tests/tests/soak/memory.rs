//! A cgroup whose memory can be limited; removed on drop, when nothing runs in it any more.
//! Version 2 (`Documentation/admin-guide/cgroup-v2.rst`, "Memory"), else version 1
//! (`cgroup-v1/memory.rst`), which has no limit that only takes memory back.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The cgroup.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryLimit {
    /// Makes the cgroup, or says why there is none.
    pub(crate) fn new() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let mounts = || mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let controls = |root: &str| {
            let enabled = fs::read_to_string(Path::new(root).join("cgroup.subtree_control"));
            enabled.unwrap_or_default().split_whitespace().any(|name| name == "memory")
        };
        let two = mounts().find(|fields| fields[2] == "cgroup2" && controls(fields[1]));
        let one = || {
            let has_memory = |options: &str| options.split(',').any(|option| option == "memory");
            mounts().find(|fields| fields[2] == "cgroup" && has_memory(fields[3]))
        };
        let (fields, version) = match two {
            Some(fields) => (fields, Version::Two),
            None => (one().ok_or("no cgroup hierarchy has the memory controller")?, Version::One),
        };
        let folder = Path::new(fields[1]).join(format!("nca-soak-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        Ok(Self { folder, version })
    }

    /// Puts a process into it. What it allocated before counts elsewhere.
    pub(crate) fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// Memory in use, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        let path = self.folder.join(file);
        let text = fs::read_to_string(path).expect("the memory in use");
        text.trim().parse().expect("bytes")
    }

    /// Sets the limits above which memory is taken back, and above which it is killed.
    pub(crate) fn set(&self, limits_bytes: Option<(u64, u64)>) {
        let text = |bytes: Option<u64>, none: &str| {
            bytes.map_or(none.to_owned(), |bytes| bytes.to_string())
        };
        let most = limits_bytes.map(|(_, most)| most);
        match self.version {
            Version::One => self.write("memory.limit_in_bytes", &text(most, "-1")),
            Version::Two => {
                self.write("memory.max", &text(most, "max"));
                self.write("memory.high", &text(limits_bytes.map(|(high, _)| high), "max"));
            }
        }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A process that was killed just now may still be in it.
        let end = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
