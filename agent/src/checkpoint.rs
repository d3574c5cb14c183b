//! How far each target has come in this boot, for the run after this one.
//!
//! A file per target in the agent's runtime folder, of which one number changes: the first seq
//! that still has to be sent. It is mapped, and the pump stores it once per batch, so it is right
//! at every instant, however the process ends (the kernel keeps the page). The rest of the file,
//! with the id of the boot, is written once, to another name first: a file of that name is whole.
//!
//! It knows nothing of records, and a file that is not understood is as good as none.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use crate::capture::bpf::SharedWord;

/// Folder of the files, in the agent's runtime folder.
const FOLDER: &str = "checkpoints";
/// Of this form, version 1: the magic, the boot's id as text, padding, the number.
const MAGIC: &[u8; 8] = b"ncackpt1";
const BOOT_ID_BYTES: usize = 36;
const SEQ_AT_BYTES: usize = 64;
const LEN_BYTES: usize = SEQ_AT_BYTES + size_of::<u64>();

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The id of this boot cannot be read.
    #[error("cannot read the id of this boot from {BOOT_ID}: {0} (is /proc mounted?)")]
    BootId(io::Error),
    /// A file cannot be used.
    #[error(
        "cannot {operation} the checkpoint {}: {source} (`runtime_dir` must be a folder that the agent may write to)",
        .path.display()
    )]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error(
        "another agent uses the checkpoint {}; give each agent a `runtime_dir` of its own",
        .0.display()
    )]
    InUse(PathBuf),
}

/// tmpfs and ramfs (`include/uapi/linux/magic.h`).
const MEMORY_FILE_SYSTEMS: [u32; 2] = [0x0102_1994, 0x8584_58f6];

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where the checkpoints of this boot are.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    boot_id: [u8; BOOT_ID_BYTES],
}

impl Checkpoints {
    /// Those in this runtime folder, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made, or the boot has no id.
    pub fn open(runtime_dir: &Path) -> Result<Self, CheckpointError> {
        let text = fs::read(BOOT_ID).map_err(CheckpointError::BootId)?;
        let boot_id = text
            .get(..BOOT_ID_BYTES)
            .and_then(|id| id.try_into().ok())
            .ok_or_else(|| CheckpointError::BootId(io::ErrorKind::InvalidData.into()))?;
        Self::of_boot(runtime_dir, boot_id)
    }

    fn of_boot(runtime_dir: &Path, boot_id: [u8; BOOT_ID_BYTES]) -> Result<Self, CheckpointError> {
        let folder = runtime_dir.join(FOLDER);
        fs::create_dir_all(&folder)
            .map_err(|source| failed("make the folder of", &folder, source))?;
        Ok(Self { folder, boot_id })
    }

    /// Whether they are in memory. On a disk's file system a store may wait for the disk: when the
    /// page is being written back, or too many of the system's pages are to be.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn are_in_memory(&self) -> io::Result<bool> {
        is_in_memory(&self.folder)
    }

    /// The checkpoint of a target, for this agent alone, and the number in it if an earlier run
    /// of this boot left one. Until [`Checkpoint::store`] it stays as it was.
    ///
    /// # Errors
    /// If the file cannot be used, or another agent uses it.
    pub fn of(&self, target: &str) -> Result<(Checkpoint, Option<u64>), CheckpointError> {
        let path = self.path(target);
        let fail = |operation| {
            let path = path.clone();
            move |source| CheckpointError::File { operation, path, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let mut there = match options.open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail("open")(error)),
        };
        let mut bytes = Vec::with_capacity(LEN_BYTES);
        if let Some(file) = &mut there {
            lock(file, &path)?;
            file.take(LEN_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail("read"))?;
        }
        let known = self.seq_in(&bytes);
        let file = match (there, known) {
            (Some(file), Some(_)) => file,
            _ => {
                // The lock of the old file is held until the new one has its name.
                let new = self.folder.join(format!("{target}.seq~"));
                let mut file = options.create(true).mode(0o600).open(&new).map_err(fail("make"))?;
                // Another agent that starts now may have mapped it already: nothing is cut before
                // it is ours.
                lock(&file, &path)?;
                file.set_len(0).map_err(fail("empty"))?;
                file.write_all(&self.bytes(u64::MAX)).map_err(fail("write"))?;
                fs::rename(&new, &path).map_err(fail("name"))?;
                file
            }
        };
        let word = SharedWord::map(&file, SEQ_AT_BYTES).map_err(fail("map"))?;
        Ok((Checkpoint { word, _lock: file }, known))
    }

    /// The target is removed: its file goes, and a target of that name begins anew. One that is
    /// still in use writes where nobody reads.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn forget(&self, target: &str) -> Result<(), CheckpointError> {
        let path = self.path(target);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// The number as the next run would find it, while somebody uses it.
    #[cfg(test)]
    pub(crate) fn peek(&self, target: &str) -> Option<u64> {
        self.seq_in(&fs::read(self.path(target)).ok()?)
    }

    fn path(&self, target: &str) -> PathBuf {
        self.folder.join(format!("{target}.seq"))
    }

    /// The number in a whole file of this boot, once it was stored.
    fn seq_in(&self, bytes: &[u8]) -> Option<u64> {
        let whole =
            bytes.len() == LEN_BYTES && bytes[..SEQ_AT_BYTES] == self.bytes(0)[..SEQ_AT_BYTES];
        let seq = u64::from_ne_bytes(bytes.get(SEQ_AT_BYTES..LEN_BYTES)?.try_into().ok()?);
        (whole && seq != u64::MAX).then_some(seq)
    }

    fn bytes(&self, seq: u64) -> [u8; LEN_BYTES] {
        let mut bytes = [0; LEN_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[MAGIC.len()..MAGIC.len() + BOOT_ID_BYTES].copy_from_slice(&self.boot_id);
        bytes[SEQ_AT_BYTES..].copy_from_slice(&seq.to_ne_bytes());
        bytes
    }
}

fn is_in_memory(path: &Path) -> io::Result<bool> {
    // Of 32 bits, which some architectures sign-extend.
    Ok(MEMORY_FILE_SYSTEMS.contains(&(rustix::fs::statfs(path)?.f_type as u32)))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::File { operation, path: path.to_owned(), source }
}

/// The kernel gives the lock back when the file is closed, however the process ends.
fn lock(file: &File, path: &Path) -> Result<(), CheckpointError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => CheckpointError::InUse(path.to_owned()),
        TryLockError::Error(source) => failed("lock", path, source),
    })
}

/// One target's.
#[derive(Debug)]
pub struct Checkpoint {
    word: SharedWord,
    _lock: File,
}

impl Checkpoint {
    /// Everything before `next_seq` has its fate. A plain store to memory: no call, no lock.
    pub fn store(&self, next_seq: u64) {
        self.word.get().store(next_seq, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; BOOT_ID_BYTES] = *b"0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b";
    const OTHER: [u8; BOOT_ID_BYTES] = *b"1d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b";

    #[test]
    fn what_was_stored_is_there_for_the_next_run_of_this_boot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Checkpoints::of_boot(folder.path(), BOOT).unwrap();
        let (checkpoint, known) = boot.of("fleet").unwrap();
        assert_eq!(known, None);
        checkpoint.store(4_711);
        checkpoint.store(1 << 40);
        assert!(matches!(boot.of("fleet"), Err(CheckpointError::InUse(_))));
        let (_, other) = boot.of("other").unwrap();
        assert_eq!(other, None);
        drop(checkpoint);
        let (checkpoint, known) = boot.of("fleet").unwrap();
        assert_eq!(known, Some(1 << 40));
        // Opening it changes nothing.
        drop(checkpoint);
        assert_eq!(boot.of("fleet").unwrap().1, Some(1 << 40));

        let next = Checkpoints::of_boot(folder.path(), OTHER).unwrap();
        assert_eq!(next.of("fleet").unwrap().1, None, "another boot");
        assert_eq!(boot.of("fleet").unwrap().1, None, "made anew by the other boot");
    }

    #[test]
    fn a_target_that_never_began_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Checkpoints::of_boot(folder.path(), BOOT).unwrap();
        drop(boot.of("fleet").unwrap());
        assert_eq!(boot.of("fleet").unwrap().1, None);
    }

    #[test]
    fn a_removed_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Checkpoints::of_boot(folder.path(), BOOT).unwrap();
        let (checkpoint, _) = boot.of("fleet").unwrap();
        checkpoint.store(7);
        boot.forget("fleet").unwrap();
        boot.forget("fleet").unwrap();
        let (again, known) = boot.of("fleet").unwrap();
        assert_eq!(known, None);
        again.store(8);
        checkpoint.store(9);
        drop((checkpoint, again));
        assert_eq!(boot.of("fleet").unwrap().1, Some(8));
    }

    #[test]
    fn a_folder_in_memory_is_known() {
        assert!(is_in_memory(Path::new("/dev/shm")).unwrap());
        assert!(!is_in_memory(Path::new("/proc")).unwrap());
    }

    #[test]
    fn what_another_agent_is_making_is_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Checkpoints::of_boot(folder.path(), BOOT).unwrap();
        let new = folder.path().join(FOLDER).join("fleet.seq~");
        // The other one has made and locked it, and is about to give it its name.
        fs::write(&new, boot.bytes(7)).unwrap();
        let other = File::open(&new).unwrap();
        other.try_lock().unwrap();
        assert!(matches!(boot.of("fleet"), Err(CheckpointError::InUse(_))));
        assert_eq!(fs::read(&new).unwrap(), boot.bytes(7));
        // It was killed in the middle of that.
        drop(other);
        fs::write(&new, [9; 2 * LEN_BYTES]).unwrap();
        let (checkpoint, known) = boot.of("fleet").unwrap();
        assert_eq!(known, None);
        checkpoint.store(8);
        drop(checkpoint);
        assert_eq!(boot.of("fleet").unwrap().1, Some(8));
    }

    #[test]
    fn no_damage_is_taken_for_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Checkpoints::of_boot(folder.path(), BOOT).unwrap();
        let (checkpoint, _) = boot.of("fleet").unwrap();
        checkpoint.store(99);
        drop(checkpoint);
        let path = folder.path().join(FOLDER).join("fleet.seq");
        let good = fs::read(&path).unwrap();
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(boot.of("fleet").unwrap().1, None, "{len} bytes");
        }
        for at in 0..SEQ_AT_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(boot.of("fleet").unwrap().1, None, "byte {at}");
        }
        fs::write(&path, [&good[..], b"more"].concat()).unwrap();
        assert_eq!(boot.of("fleet").unwrap().1, None);
        fs::write(&path, &good).unwrap();
        assert_eq!(boot.of("fleet").unwrap().1, Some(99));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Checkpoints::of_boot(&file, BOOT).unwrap_err().to_string();
        assert!(error.contains("runtime_dir"), "{error}");
    }
}
