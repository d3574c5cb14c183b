//! A cgroup whose memory can be limited; removed on drop, when nothing runs in it any more.
//! Version 2 (`Documentation/admin-guide/cgroup-v2.rst`, "Memory"), else version 1
//! (`cgroup-v1/memory.rst`), which has no limit that only takes memory back; there who asks for more
//! waits, and nobody is killed.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Advice, fadvise},
    process::{Pid, Signal, kill_process_group},
};

/// More than any limit leaves free.
const HOGGED_BYTES: usize = 64 << 20;

/// The cgroup.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    folder: PathBuf,
    /// The cgroup that this process was in.
    own: PathBuf,
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
        let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        // `ID:CONTROLLERS:PATH`, without controllers for version 2.
        let path = text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let is_it = match version {
                Version::One => controllers.split(',').any(|name| name == "memory"),
                Version::Two => controllers.is_empty(),
            };
            is_it.then_some(path)
        });
        let path = path.ok_or("/proc/self/cgroup does not show the memory controller's cgroup")?;
        let own = Path::new(fields[1]).join(path.trim_start_matches('/'));
        let folder = Path::new(fields[1]).join(format!("nca-soak-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        let memory = Self { folder, own, version };
        if version == Version::One {
            memory.write("memory.oom_control", "1");
        }
        Ok(memory)
    }

    /// Puts a process into it. What it allocated before counts elsewhere.
    fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// What is started by `work` belongs to it from its beginning.
    pub(crate) fn during(&self, work: impl FnOnce()) {
        let pid = std::process::id();
        self.add(pid);
        work();
        fs::write(self.own.join("cgroup.procs"), pid.to_string()).expect("leave the cgroup");
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

    /// Sets the limit above which memory is taken back.
    pub(crate) fn set(&self, limit_bytes: Option<u64>) {
        let (file, none) = match self.version {
            Version::One => ("memory.limit_in_bytes", "-1"),
            Version::Two => ("memory.high", "max"),
        };
        let text = limit_bytes.map_or(none.to_owned(), |bytes| bytes.to_string());
        self.write(file, &text);
    }

    /// How often somebody asked for memory and some had to be taken back first.
    pub(crate) fn pressure(&self) -> u64 {
        let (file, keys): (_, &[&str]) = match self.version {
            Version::One => ("memory.failcnt", &[""]),
            Version::Two => ("memory.events", &["high ", "max "]),
        };
        let text = fs::read_to_string(self.folder.join(file)).expect("the events");
        let count = |line: &str| {
            let of_key = keys.iter().find_map(|key| line.strip_prefix(key));
            of_key.map_or(0, |count| count.trim().parse::<u64>().expect("a number"))
        };
        text.lines().map(count).sum()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A process in the cgroup that fills all of its memory with the cache of a file, again and again.
/// That can be taken back, so nobody is killed, but whoever asks for memory has to wait for it.
#[derive(Debug)]
pub(crate) struct Hog {
    process: Child,
    _file: tempfile::NamedTempFile,
}

impl Hog {
    pub(crate) fn start(memory: &MemoryLimit) -> Self {
        // What is cached already counts where it was read first.
        let mut file =
            tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
        file.write_all(&vec![1; HOGGED_BYTES]).expect("write it");
        file.as_file().sync_all().expect("write it");
        fadvise(file.as_file(), 0, None, Advice::DontNeed).expect("drop its cache");
        let script = "read go; while :; do cat \"$0\" > /dev/null; done";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(file.path())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("start the hog");
        memory.add(process.id());
        let mut go = process.stdin.take().expect("its input");
        go.write_all(b"go\n").expect("tell it to go");
        Self { process, _file: file }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
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
