//! The values of the host that records are sent with: its name, boot, taint and
//! settings.
//!
//! Sources: `uname(2)` for `hostname`; `/proc/sys/kernel/random/boot_id`;
//! `/sys/kernel/livepatch/*/{enabled,transition}`
//! (`Documentation/ABI/testing/sysfs-kernel-livepatch`); `/proc/sys/kernel/tainted` with the
//! letters of `taint_flags` (`kernel/panic.c`);
//! `/sys/kernel/mm/transparent_hugepage/{enabled,defrag}`;
//! `/sys/kernel/sched_ext/{state,root/ops}` (`kernel/sched/ext.c`). It reads when it is
//! told to and compares; it watches nothing.
//!
//! | key         | value                                                                    |
//! |-------------|--------------------------------------------------------------------------|
//! | `hostname`  | the kernel's node name; no line for its default `(none)`                  |
//! | `boot_id`   | as the file says                                                          |
//! | `livepatch` | patches that are in force, sorted, joined by `,`; `NAME(transition)` while not all tasks have changed over; no line without any |
//! | `taint`     | letters of the flags in the kernel's order (`OE`), `?` for a flag that is newer than this table; `0` if there is none |
//! | `thp`       | the chosen words, `enabled/defrag`: `madvise/madvise`                     |
//! | `sched_ext` | `enabled/scx_rusty`; the state alone while no scheduler is loaded         |

use std::{ffi::OsString, fs, io::Read, os::unix::ffi::OsStringExt, path::Path};

use rustix::time::{ClockId, clock_gettime};

use crate::netconsole::{HostLines, Sysdata, SysdataKey};

/// Letters of the flags of `/proc/sys/kernel/tainted`, from bit 0 on.
const TAINT_LETTERS: &[u8] = b"PFSRMBUDAWCIOELKXTNJ";
/// Far more than any of these files holds.
const FILE_MAX_BYTES: u64 = 4096;
const NS_PER_SECOND: i64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;
/// Of several looks at two clocks, one is not interrupted.
const CLOCK_LOOKS: usize = 4;

/// What the host says of itself, as far as it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostValues {
    /// Only what is known, in the order of the keys.
    values: Vec<(SysdataKey, Vec<u8>)>,
    /// `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC` in nanoseconds, whole milliseconds, so that
    /// two looks are equal.
    suspended_ns: u64,
}

impl HostValues {
    /// Reads the values of `wanted` that are about the host, and no others. What this kernel
    /// does not have is left out. It takes some microseconds per key.
    #[must_use]
    pub fn read(wanted: Sysdata) -> Self {
        Self::read_under(Path::new("/"), wanted)
    }

    /// The same with another directory in place of `/`.
    #[must_use]
    pub fn read_under(root: &Path, wanted: Sysdata) -> Self {
        let values = wanted.keys().filter_map(|key| Some((key, value(root, key)?))).collect();
        let suspended_ns = if wanted.contains(SysdataKey::Uptime) { suspended_ns() } else { 0 };
        Self { values, suspended_ns }
    }

    /// The lines of `sysdata` for the format of a target, ready to be copied. What was
    /// not read has no line.
    #[must_use]
    pub fn lines(&self, sysdata: Sysdata) -> HostLines {
        HostLines::new(sysdata, self.suspended_ns, |wanted| self.get(wanted))
    }

    /// One value, if it is known.
    #[must_use]
    pub fn get(&self, wanted: SysdataKey) -> Option<&[u8]> {
        let found = self.values.iter().find(|(key, _)| *key == wanted)?;
        Some(&found.1)
    }
}

fn value(root: &Path, key: SysdataKey) -> Option<Vec<u8>> {
    match key {
        SysdataKey::Hostname => {
            let name = rustix::system::uname().nodename().to_bytes().to_vec();
            (name != b"(none)").then_some(name)
        }
        SysdataKey::BootId => read(&root.join("proc/sys/kernel/random/boot_id")),
        SysdataKey::Livepatch => livepatch(&root.join("sys/kernel/livepatch")),
        SysdataKey::Taint => taint(&read(&root.join("proc/sys/kernel/tainted"))?),
        SysdataKey::Thp => {
            let directory = root.join("sys/kernel/mm/transparent_hugepage");
            let enabled = read(&directory.join("enabled"))?;
            let defrag = read(&directory.join("defrag"))?;
            Some([chosen(&enabled)?, chosen(&defrag)?].join(&b'/'))
        }
        SysdataKey::SchedExt => {
            let directory = root.join("sys/kernel/sched_ext");
            let state = read(&directory.join("state"))?;
            Some(match read(&directory.join("root/ops")) {
                Some(scheduler) => [state, scheduler].join(&b'/'),
                None => state,
            })
        }
        // Of the record, of the kernel's release or of the clocks.
        SysdataKey::Cpu
        | SysdataKey::Taskname
        | SysdataKey::Release
        | SysdataKey::Msgid
        | SysdataKey::Pid
        | SysdataKey::Cgroup
        | SysdataKey::Unit
        | SysdataKey::Uptime
        | SysdataKey::Nic => None,
    }
}

/// What a file of one short line says; `None` if it cannot be read or is empty.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(64);
    fs::File::open(path).ok()?.take(FILE_MAX_BYTES).read_to_end(&mut text).ok()?;
    let text = text.trim_ascii();
    (!text.is_empty()).then(|| text.to_vec())
}

fn livepatch(directory: &Path) -> Option<Vec<u8>> {
    let is_one = |path: &Path| read(path).is_some_and(|text| text == b"1");
    let mut patches: Vec<Vec<u8>> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let path = entry.path();
            let mut name = OsString::into_vec(entry.file_name());
            // A patch on its way out is not enabled, and still in force for some tasks.
            if is_one(&path.join("transition")) {
                name.extend_from_slice(b"(transition)");
            } else if !is_one(&path.join("enabled")) {
                return None;
            }
            Some(name)
        })
        .collect();
    patches.sort_unstable();
    (!patches.is_empty()).then(|| patches.join(&b','))
}

fn taint(text: &[u8]) -> Option<Vec<u8>> {
    let flags: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if flags == 0 {
        return Some(b"0".to_vec());
    }
    let set = (0..u64::BITS as usize).filter(|bit| flags & (1 << bit) != 0);
    Some(set.map(|bit| TAINT_LETTERS.get(bit).copied().unwrap_or(b'?')).collect())
}

/// The word in brackets: `madvise` of `always [madvise] never`.
fn chosen(text: &[u8]) -> Option<&[u8]> {
    text.split(|&b| b == b' ').find_map(|word| word.strip_prefix(b"[")?.strip_suffix(b"]"))
}

fn suspended_ns() -> u64 {
    let now_ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * NS_PER_SECOND + time.tv_nsec
    };
    // Too large by what passes between the two looks, so the least is the best; without a
    // suspend that rounds down to nothing.
    let looks = (0..CLOCK_LOOKS).map(|_| {
        let monotonic_ns = now_ns(ClockId::Monotonic);
        now_ns(ClockId::Boottime) - monotonic_ns
    });
    let least_ns = looks.min().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0);
    least_ns / NS_PER_MS * NS_PER_MS
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn all() -> Sysdata {
        SysdataKey::ALL.into_iter().collect()
    }

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, text).expect("a file");
        }
        root
    }

    fn text(root: &tempfile::TempDir, key: SysdataKey) -> Option<String> {
        let values = HostValues::read_under(root.path(), all());
        values.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn a_host_with_everything_says_everything() {
        let root = host(&[
            ("proc/sys/kernel/random/boot_id", "0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b\n"),
            ("proc/sys/kernel/tainted", "12288\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            (
                "sys/kernel/mm/transparent_hugepage/defrag",
                "always defer [defer+madvise] madvise never\n",
            ),
            ("sys/kernel/sched_ext/state", "enabled\n"),
            ("sys/kernel/sched_ext/root/ops", "scx_rusty\n"),
            ("sys/kernel/livepatch/zeta/enabled", "1\n"),
            ("sys/kernel/livepatch/zeta/transition", "0\n"),
            ("sys/kernel/livepatch/alpha/enabled", "0\n"),
            ("sys/kernel/livepatch/alpha/transition", "1\n"),
            ("sys/kernel/livepatch/gone/enabled", "0\n"),
            ("sys/kernel/livepatch/gone/transition", "0\n"),
        ]);
        for (key, value) in [
            (SysdataKey::BootId, "0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b"),
            (SysdataKey::Taint, "OE"),
            (SysdataKey::Thp, "madvise/defer+madvise"),
            (SysdataKey::SchedExt, "enabled/scx_rusty"),
            (SysdataKey::Livepatch, "alpha(transition),zeta"),
        ] {
            assert_eq!(text(&root, key).as_deref(), Some(value), "{key:?}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_have_is_left_out() {
        let root = host(&[
            ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
            ("sys/kernel/sched_ext/state", "disabled\n"),
            ("sys/kernel/livepatch/p/enabled", "0\n"),
            ("proc/sys/kernel/tainted", "what?\n"),
        ]);
        for key in [SysdataKey::BootId, SysdataKey::Thp, SysdataKey::Livepatch, SysdataKey::Taint] {
            assert_eq!(text(&root, key), None, "{key:?}");
        }
        assert_eq!(text(&root, SysdataKey::SchedExt).as_deref(), Some("disabled"));
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        let root = host(&[("proc/sys/kernel/tainted", "1\n"), ("sys/kernel/sched_ext/state", "x")]);
        let wanted = [SysdataKey::Taint, SysdataKey::Cpu].into_iter().collect();
        let values = HostValues::read_under(root.path(), wanted);
        assert_eq!(values.values, [(SysdataKey::Taint, b"P".to_vec())]);
        assert_eq!(
            values.lines(all()),
            HostLines::new(all(), 0, |key| {
                (key == SysdataKey::Taint).then_some(b"P".as_slice())
            })
        );
    }

    #[test]
    fn taint_has_the_kernels_letters() {
        for (flags, letters) in [
            ("0", "0"),
            ("1", "P"),
            ("512", "W"),
            ("4096", "O"),
            ("12801", "PWOE"),
            ("1048575", "PFSRMBUDAWCIOELKXTNJ"),
            ("2097664", "W?"),
        ] {
            assert_eq!(taint(flags.as_bytes()).as_deref(), Some(letters.as_bytes()), "{flags}");
        }
    }

    #[test]
    fn this_host_is_read_twice_alike_and_quickly() {
        let first = HostValues::read(all());
        let boot_id = fs::read("/proc/sys/kernel/random/boot_id").expect("the boot's id");
        assert_eq!(first.get(SysdataKey::BootId), Some(boot_id.trim_ascii()));
        assert!(first.get(SysdataKey::Taint).is_some_and(|taint| !taint.is_empty()));
        let started = Instant::now();
        let looks = 200;
        let equal = (0..looks).filter(|_| HostValues::read(all()) == first).count();
        let each = started.elapsed() / looks;
        println!("one read of all values: {each:?}");
        // Another test may change the host's name for a moment; a clock cannot do it often.
        assert!(equal > 150, "{equal}");
        assert!(each < Duration::from_millis(5), "{each:?}");
    }
}
