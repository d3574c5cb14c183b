//! A cgroup whose memory can be limited; removed on drop, when nothing runs in it any more.
//! cgroup v2 only (`Documentation/admin-guide/cgroup-v2.rst`, "Memory").

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The cgroup.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    /// Makes the cgroup, or says why there is none.
    pub(crate) fn new() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .ok_or("cgroup v2 is not mounted")?[1];
        let root = Path::new(root);
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        if !enabled.split_whitespace().any(|name| name == "memory") {
            return Err(format!("no memory controller in {}", root.display()));
        }
        let folder = root.join(format!("nca-soak-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Puts a process into it. What it allocated before counts elsewhere.
    pub(crate) fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// Memory in use, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        let path = self.folder.join("memory.current");
        let text = fs::read_to_string(path).expect("the memory in use");
        text.trim().parse().expect("bytes")
    }

    /// Sets the limits above which memory is taken back, and above which it is killed.
    pub(crate) fn set(&self, limits_bytes: Option<(u64, u64)>) {
        let text = |bytes: Option<u64>| bytes.map_or("max".to_owned(), |bytes| bytes.to_string());
        self.write("memory.max", &text(limits_bytes.map(|(_, most)| most)));
        self.write("memory.high", &text(limits_bytes.map(|(high, _)| high)));
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
