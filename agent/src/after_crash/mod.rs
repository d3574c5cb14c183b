//! After the reboot: what the last boots left in the host's persistent store goes to the
//! targets with `after_crash = true`, once to each.
//!
//! At the start, with the privileges of the start, [`files`] reads what pstore and
//! systemd-pstore have; [`part`] makes parts of it and [`dump`] puts them together. [`memory`]
//! says what was sent already. [`sending`] is one target on its way through the rest, and
//! [`piece`] what a message says. Who gives the messages to the pump is the control thread
//! (`control/manager/after_crash.rs`). They are messages, not records (`message.rs`): this
//! boot's sequence does not know of them. Nothing is ever deleted here.

pub mod dump;
pub mod files;
pub mod memory;
pub mod part;
pub mod piece;
pub mod sending;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dump::{Dump, group};
use files::{Files, Places};
use memory::{Boot, Memory};

/// Most dumps, the newest ones.
const DUMPS_MAX: usize = 256;

/// What there was at the start.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The dumps, the oldest first.
    pub dumps: Vec<Arc<Dump>>,
    /// Files that are of no use, or could not be looked at.
    pub unusable: u64,
    /// Some of them in words, with the reason.
    pub problems: Vec<String>,
    /// What was sent of it before, and when boots began.
    pub memory: Memory,
    /// Why the memory of earlier runs is not there.
    pub memory_problem: Option<String>,
}

impl Found {
    /// Looks at this host.
    #[must_use]
    pub fn on_this_host(state_dir: &Path) -> Self {
        Self::look(&Places::default(), state_dir, &this_boot())
    }

    /// Looks at these places; `now` is the boot that the agent runs in.
    #[must_use]
    pub fn look(places: &Places, state_dir: &Path, now: &Boot) -> Self {
        let (mut memory, memory_problem) = Memory::read(state_dir);
        let Files { parts, mut unusable, mut problems } = files::read(places);
        let named = |mut dump: Dump| {
            let boot = dump.unix_s.and_then(|unix_s| memory.boot_at(unix_s, now));
            dump.boot = boot.map(str::to_owned);
            Arc::new(dump)
        };
        let mut dumps: Vec<_> = group(parts).into_iter().map(named).collect();
        let many = dumps.len().saturating_sub(DUMPS_MAX);
        if many > 0 {
            dumps.drain(..many);
            unusable += many as u64;
            problems.push(format!("{many} dumps are left out: {DUMPS_MAX} others are newer"));
        }
        memory.note_boot(now.clone());
        memory.seen(&dumps);
        Self { dumps, unusable, problems, memory, memory_problem }
    }
}

/// The boot that the agent runs in, by the wall clock as it is now.
fn this_boot() -> Boot {
    // Without an id, which has never been seen to be missing, it is not remembered.
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let began = since.saturating_sub(crate::clock::since_boot());
    Boot { id: id.trim().to_owned(), began_unix_s: began.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_of_the_boot_before_and_known_as_sent_later() {
        let folder = tempfile::tempdir().unwrap();
        let places =
            Places { pstore: folder.path().join("sys"), systemd: folder.path().join("var") };
        let state_dir = folder.path().join("state");
        let boot = |digit: u8, began_unix_s| Boot {
            id: format!("0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5{digit}"),
            began_unix_s,
        };
        let first = Found::look(&places, &state_dir, &boot(1, 1_600_000_000));
        assert!(first.dumps.is_empty());
        first.memory.write(&state_dir).unwrap();

        fs::create_dir(&places.pstore).unwrap();
        let path = places.pstore.join("dmesg-efi_pstore-160000010001001");
        fs::write(path, "Panic#1 Part1\n<0>x\n").unwrap();
        let mut found = Found::look(&places, &state_dir, &boot(2, 1_700_000_000));
        assert_eq!(found.dumps.len(), 1);
        assert_eq!(found.dumps[0].boot.as_deref(), Some(&*boot(1, 0).id));
        assert_eq!(found.memory.were_sent(&found.dumps, "fleet"), [false]);
        found.memory.note_sent(&found.dumps[0], "fleet");
        found.memory.write(&state_dir).unwrap();

        let again = Found::look(&places, &state_dir, &boot(3, 1_800_000_000));
        assert_eq!(again.dumps, found.dumps);
        assert_eq!(again.memory.were_sent(&again.dumps, "fleet"), [true]);
    }

    #[test]
    fn of_too_many_the_newest_count() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { pstore: folder.path().into(), systemd: folder.path().join("var") };
        for id in 0..DUMPS_MAX + 3 {
            let at = 1_600_000_000 + id;
            let path = folder.path().join(format!("dmesg-efi-{at}01001"));
            fs::write(path, format!("Panic#1 Part1\n{id}\n")).unwrap();
        }
        let boot = Boot { id: String::new(), began_unix_s: 0 };
        let found = Found::look(&places, &folder.path().join("state"), &boot);
        assert_eq!((found.dumps.len(), found.unusable), (DUMPS_MAX, 3));
        assert_eq!(found.dumps[0].unix_s, Some(1_600_000_003));
        assert!(found.problems[0].starts_with("3 dumps are left out"));
    }

    #[test]
    fn this_boot_is_one() {
        let boot = this_boot();
        assert_eq!(boot.id.len(), 36);
        assert!(boot.began_unix_s > 1_000_000_000);
    }
}
