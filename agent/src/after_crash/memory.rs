//! What must be known after the next start: which dumps each target has been sent, and when the
//! last boots began.
//!
//! A JSON file in the agent's state folder, written whole under another name first. A file
//! that is not understood is as good as none: then dumps are sent again, and none is lost.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{dump::Dump, part::Hash};

/// Name of the file.
const FILE: &str = "after-crash.json";
const VERSION: u32 = 1;
/// Largest file that is written or read.
const FILE_MAX_BYTES: usize = 4 << 20;
/// Boots that are remembered.
const BOOTS_MAX: usize = 32;
/// Dumps that are remembered: more than a look finds.
const DUMPS_MAX: usize = 2 * super::DUMPS_MAX;
/// Targets that are remembered for a dump; there are never so many at a time.
const TARGETS_MAX: usize = 512;
/// Longest name of a target that is taken from the file.
const NAME_MAX_BYTES: usize = 256;

/// Why the memory cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {operation} {}: {source} (`state_dir` must be a folder that the agent may write to; \
     `StateDirectory=` in its unit makes the default one)",
    .path.display()
)]
pub struct MemoryError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    version: u32,
    #[serde(default)]
    boots: Vec<Boot>,
    #[serde(default)]
    dumps: Vec<StoredDump>,
}

/// A boot that the agent ran in.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// As in `/proc/sys/kernel/random/boot_id`.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
}

impl Boot {
    fn is_sound(&self) -> bool {
        self.id.len() == 36 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    }
}

#[derive(Deserialize, Serialize)]
struct StoredDump {
    parts: Vec<String>,
    sent_to: BTreeSet<String>,
}

/// What is known of one dump.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    parts: Vec<Hash>,
    sent_to: BTreeSet<String>,
}

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    boots: Vec<Boot>,
    /// Those that were seen last are at the end.
    dumps: Vec<Remembered>,
}

impl Memory {
    /// What the last run left in this folder, and what is wrong with that.
    #[must_use]
    pub fn read(state_dir: &Path) -> (Self, Option<String>) {
        let path = state_dir.join(FILE);
        let mut text = Vec::new();
        let read = File::open(&path)
            .and_then(|file| file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(error) => {
                let why = MemoryError { operation: "read", path, source: error };
                (Self::default(), Some(why.to_string()))
            }
            Ok(_) => match Self::parse(&text) {
                Some(memory) => (memory, None),
                None => {
                    let why = format!(
                        "{} is not understood and begun anew; dumps may be sent again",
                        path.display()
                    );
                    (Self::default(), Some(why))
                }
            },
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > FILE_MAX_BYTES {
            return None;
        }
        let stored: Stored = serde_json::from_slice(text).ok()?;
        if stored.version != VERSION {
            return None;
        }
        let dumps = stored.dumps.into_iter().take(DUMPS_MAX).map(|dump| Remembered {
            parts: dump.parts.iter().filter_map(|hash| Hash::from_hex(hash)).collect(),
            sent_to: dump
                .sent_to
                .into_iter()
                .filter(|name| name.len() <= NAME_MAX_BYTES)
                .take(TARGETS_MAX)
                .collect(),
        });
        Some(Self {
            boots: stored.boots.into_iter().filter(Boot::is_sound).take(BOOTS_MAX).collect(),
            dumps: dumps.filter(|dump| !dump.parts.is_empty()).collect(),
        })
    }

    /// Notes the boot that the agent runs in. The first time that was noted stays: later the
    /// clock may have been set.
    pub fn note_boot(&mut self, boot: Boot) {
        if boot.is_sound() && !self.boots.iter().any(|known| known.id == boot.id) {
            self.boots.push(boot);
            let many = self.boots.len().saturating_sub(BOOTS_MAX);
            self.boots.drain(..many);
        }
    }

    /// The boot in which it was that time, as far as is known; never the present one, `now`.
    #[must_use]
    pub fn boot_at(&self, unix_s: u64, now: &Boot) -> Option<&str> {
        let now = self.boots.iter().find(|boot| boot.id == now.id).unwrap_or(now);
        if unix_s >= now.began_unix_s {
            return None;
        }
        let earlier =
            self.boots.iter().filter(|boot| boot.id != now.id && boot.began_unix_s <= unix_s);
        earlier.max_by_key(|boot| boot.began_unix_s).map(|boot| &*boot.id)
    }

    /// Of these dumps, whether each was sent to a target whole.
    #[must_use]
    pub fn were_sent(&self, dumps: &[Arc<Dump>], target: &str) -> Vec<bool> {
        let sent = self.dumps.iter().filter(|known| known.sent_to.contains(target));
        let parts: BTreeSet<&Hash> = sent.flat_map(|known| &known.parts).collect();
        dumps.iter().map(|dump| dump.parts.iter().all(|part| parts.contains(part))).collect()
    }

    /// The targets that are known to have been sent anything.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<&str> {
        self.dumps.iter().flat_map(|known| &known.sent_to).map(String::as_str).collect()
    }

    /// These are there now: of what is remembered they go last.
    pub fn seen(&mut self, dumps: &[Arc<Dump>]) {
        let there: BTreeSet<&Hash> = dumps.iter().flat_map(|dump| &dump.parts).collect();
        // False comes first, and the order stays otherwise.
        self.dumps.sort_by_key(|known| known.parts.iter().any(|part| there.contains(part)));
    }

    /// A dump was sent to a target.
    pub fn note_sent(&mut self, dump: &Dump, target: &str) {
        match self.dumps.iter_mut().find(|known| known.parts == dump.parts) {
            Some(known) => {
                known.sent_to.insert(target.to_owned());
                while known.sent_to.len() > TARGETS_MAX {
                    known.sent_to.pop_first();
                }
            }
            None => self.dumps.push(Remembered {
                parts: dump.parts.clone(),
                sent_to: [target.to_owned()].into(),
            }),
        }
        let many = self.dumps.len().saturating_sub(DUMPS_MAX);
        self.dumps.drain(..many);
    }

    /// The file's text; what was seen longest ago is left out if it would be too large.
    fn text(&self) -> Vec<u8> {
        let stored = |from: usize| Stored {
            version: VERSION,
            boots: self.boots.clone(),
            dumps: self.dumps.iter().skip(from).map(Remembered::stored).collect(),
        };
        let mut from = 0;
        loop {
            // There is nothing in it that JSON does not know.
            let mut text = serde_json::to_vec_pretty(&stored(from)).unwrap_or_default();
            text.push(b'\n');
            if text.len() <= FILE_MAX_BYTES || from >= self.dumps.len() {
                return text;
            }
            from += (self.dumps.len() - from).div_ceil(8);
        }
    }

    /// Writes it, so that it is there whole or as it was before, whatever happens meanwhile. May
    /// take as long as the disk does.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn write(&self, state_dir: &Path) -> Result<(), MemoryError> {
        let fail = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| MemoryError { operation, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(state_dir)
            .map_err(fail("make", state_dir))?;
        let (path, new) = (state_dir.join(FILE), state_dir.join(format!("{FILE}~")));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(fail("make", &new))?;
        file.write_all(&self.text()).map_err(fail("write", &new))?;
        file.sync_all().map_err(fail("write", &new))?;
        fs::rename(&new, &path).map_err(fail("name", &path))?;
        let folder = File::open(state_dir).map_err(fail("open", state_dir))?;
        folder.sync_all().map_err(fail("write", state_dir))
    }
}

impl Remembered {
    fn stored(&self) -> StoredDump {
        StoredDump {
            parts: self.parts.iter().map(Hash::to_string).collect(),
            sent_to: self.sent_to.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::dump::{group, tests::part},
        *,
    };

    fn dump(text: &str) -> Dump {
        group(vec![
            part("erst", 1, 10, &format!("Panic#1 Part1\n{text}")),
            part("erst", 2, 10, &format!("Panic#1 Part2\nold {text}")),
        ])
        .remove(0)
    }

    fn was_sent(memory: &Memory, dump: &Dump, target: &str) -> bool {
        memory.were_sent(&[Arc::new(dump.clone())], target) == [true]
    }

    fn boot(digit: char, began_unix_s: u64) -> Boot {
        let id = "0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5X".replace('X', &digit.to_string());
        Boot { id, began_unix_s }
    }

    #[test]
    fn what_was_sent_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("a/b");
        assert_eq!(Memory::read(&state_dir), (Memory::default(), None));
        let mut memory = Memory::default();
        let (one, two) = (dump("one"), dump("two"));
        memory.note_boot(boot('1', 100));
        memory.note_sent(&one, "fleet");
        memory.note_sent(&one, "debug");
        memory.note_sent(&two, "fleet");
        memory.write(&state_dir).unwrap();
        let (again, problem) = Memory::read(&state_dir);
        assert_eq!((&again, problem), (&memory, None));
        assert!(was_sent(&again, &one, "fleet") && was_sent(&again, &one, "debug"));
        assert!(was_sent(&again, &two, "fleet") && !was_sent(&again, &two, "debug"));
        assert_eq!(again.targets(), ["debug", "fleet"].into());
        again.write(&state_dir).unwrap();
        let files: Vec<_> =
            fs::read_dir(&state_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(files, [FILE]);
    }

    #[test]
    fn a_dump_with_less_of_it_left_was_sent_and_one_with_more_was_not() {
        let mut memory = Memory::default();
        let whole = dump("one");
        let half = group(vec![part("x", 7, 3, "Panic#1 Part2\nold one")]).remove(0);
        memory.note_sent(&whole, "fleet");
        assert!(was_sent(&memory, &half, "fleet"));
        let mut memory = Memory::default();
        memory.note_sent(&half, "fleet");
        assert!(!was_sent(&memory, &whole, "fleet"));
    }

    #[test]
    fn no_damage_is_taken_for_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut memory = Memory::default();
        memory.note_sent(&dump("one"), "fleet");
        memory.write(folder.path()).unwrap();
        let good = fs::read(&path).unwrap();
        for len in 0..good.len() - 2 {
            fs::write(&path, &good[..len]).unwrap();
            let (read, problem) = Memory::read(folder.path());
            assert_eq!(read, Memory::default());
            assert!(problem.is_some_and(|problem| problem.contains(FILE)), "{len} bytes");
        }
        for text in [
            r#"{"version": 2}"#.to_owned(),
            r#"{"version": 1, "dumps": 7}"#.to_owned(),
            format!("{{\"version\": 1}}{}", " ".repeat(FILE_MAX_BYTES)),
        ] {
            fs::write(&path, text).unwrap();
            assert!(Memory::read(folder.path()).1.is_some());
        }
        // What is of no use is left out alone.
        let odd = r#"{"version": 1, "boots": [{"id": "x y", "began_unix_s": 1}],
            "dumps": [{"parts": ["zz"], "sent_to": ["a"]}], "more": 1}"#;
        fs::write(&path, odd).unwrap();
        assert_eq!(Memory::read(folder.path()), (Memory::default(), None));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(Memory::read(folder.path()).1.is_some());
        let error = Memory::default().write(folder.path()).unwrap_err().to_string();
        assert!(error.contains("state_dir"), "{error}");
    }

    #[test]
    fn it_does_not_grow_without_end_and_forgets_first_what_is_gone() {
        let mut memory = Memory::default();
        let there = Arc::new(dump("there"));
        memory.note_sent(&there, "fleet");
        for index in 0..DUMPS_MAX - 1 {
            memory.note_sent(&dump(&format!("gone {index}")), "fleet");
        }
        memory.seen(&[Arc::clone(&there)]);
        memory.note_sent(&dump("new"), "fleet");
        assert_eq!(memory.dumps.len(), DUMPS_MAX);
        assert!(was_sent(&memory, &there, "fleet") && was_sent(&memory, &dump("new"), "fleet"));
        assert!(!was_sent(&memory, &dump("gone 0"), "fleet"));

        let long = |index: usize| format!("{index:0>250}");
        for index in 0..2 * TARGETS_MAX {
            memory.note_sent(&there, &long(index));
        }
        assert_eq!(memory.dumps.last().map(|known| known.sent_to.len()), Some(1));
        for known in memory.dumps.iter_mut().rev().take(40) {
            known.sent_to = (0..TARGETS_MAX).map(long).collect();
        }
        let text = memory.text();
        assert!(text.len() <= FILE_MAX_BYTES, "{}", text.len());
        let kept = Memory::parse(&text).unwrap();
        assert!(was_sent(&kept, &dump("new"), &long(0)) && !kept.dumps.is_empty());
        for began in 0..100 {
            let digit = char::from(b'a' + began % 6);
            let mut boot = boot(digit, u64::from(began));
            boot.id.replace_range(..2, &format!("{began:02}"));
            memory.note_boot(boot);
        }
        assert_eq!(memory.boots.len(), BOOTS_MAX);
    }

    #[test]
    fn a_time_tells_the_boot() {
        let mut memory = Memory::default();
        let now = boot('9', 1_000);
        for known in [boot('1', 100), boot('2', 200), now.clone(), boot('2', 999)] {
            memory.note_boot(known);
        }
        let at = |unix_s| memory.boot_at(unix_s, &now).map(|id| id.chars().last().unwrap());
        assert_eq!(at(50), None);
        assert_eq!(at(100), Some('1'));
        assert_eq!(at(199), Some('1'));
        assert_eq!(at(999), Some('2'));
        assert_eq!(at(1_000), None, "not of an earlier boot, or by another clock");
    }
}
