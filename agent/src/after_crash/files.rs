//! Reads what pstore and systemd-pstore have kept. Only looks: nothing is changed or deleted.
//!
//! Nothing there is trusted: symbolic links are not followed, what is no regular file is left
//! alone, and everything has a limit. pstore is read before systemd-pstore's folder: that
//! service copies a file before it deletes it, so what is moved meanwhile is seen once at least.
//!
//! systemd-pstore (`src/pstore/pstore.c`) keeps the parts under their names: those of EFI in
//! `TIME/COUNT/`, those of ERST in `ID/`, older versions all in one folder by the beginning of
//! the number, other backends' and what is compressed beside these folders. Where it joins parts,
//! `dmesg.txt` is in the folder of the parts, and is of use only if they are gone.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    ffi::{CStr, CString},
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::part::{JOINED, Name, Origin, PART_MAX_BYTES, PREFIX, Part, Unusable, split_joined};

/// Files that are looked at in one place.
const FILES_MAX: usize = 1_024;
/// Entries of folders that are looked at in one place.
const ENTRIES_MAX: usize = 16_384;
/// Folders of folders.
const DEPTH_MAX: usize = 2;
/// Text of all files together.
pub const TOTAL_MAX_BYTES: usize = 8 << 20;
/// Problems that are told.
const PROBLEMS_MAX: usize = 16;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where pstore is mounted.
    pub pstore: PathBuf,
    /// The folder of systemd-pstore.
    pub systemd: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { pstore: "/sys/fs/pstore".into(), systemd: "/var/lib/systemd/pstore".into() }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The parts, some perhaps twice.
    pub parts: Vec<Part>,
    /// Files that are of no use, or could not be looked at.
    pub unusable: u64,
    /// Some of them in words, with the reason.
    pub problems: Vec<String>,
}

impl Files {
    fn problem(&mut self, path: &Path, why: &dyn std::fmt::Display) {
        self.unusable += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(format!("{}: {why}", path.display()));
        }
    }
}

/// A file that may be worth reading.
struct Candidate {
    folder: usize,
    name: CString,
    path: PathBuf,
    unix_s: Option<u64>,
}

/// A folder that is open.
struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    depth: usize,
}

/// Reads both places.
#[must_use]
pub fn read(places: &Places) -> Files {
    let mut files = Files::default();
    let mut left_bytes = TOTAL_MAX_BYTES;
    for (place, depth) in [(&places.pstore, 0), (&places.systemd, DEPTH_MAX)] {
        place_read(place, depth, &mut left_bytes, &mut files);
    }
    files
}

fn place_read(place: &Path, depth: usize, left_bytes: &mut usize, files: &mut Files) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match openat(CWD, place, flags, Mode::empty()) {
        Ok(fd) => Folder { fd, path: place.to_owned(), depth: 0 },
        // Neither a kernel without pstore nor a host without systemd is a problem.
        Err(Errno::NOENT) => return,
        Err(error) => return files.problem(place, &error),
    };
    let (folders, mut candidates) = candidates(root, depth, files);
    // If it is too much, the newest count.
    candidates.sort_by_key(|candidate| Reverse(candidate.unix_s));
    for (index, candidate) in candidates.iter().enumerate() {
        let too_much = "left out: there are too many or too large files, and others are newer";
        if index >= FILES_MAX || *left_bytes == 0 {
            files.problem(&candidate.path, &too_much);
            continue;
        }
        match content(&folders[candidate.folder].fd, &candidate.name) {
            Ok(content) if content.len() > *left_bytes => {
                *left_bytes = 0;
                files.problem(&candidate.path, &too_much);
            }
            Ok(content) => match parts(candidate, &content) {
                Ok(parts) => {
                    let bytes: usize = parts.iter().map(|part| part.text.len()).sum();
                    *left_bytes = left_bytes.saturating_sub(bytes.max(content.len()));
                    files.parts.extend(parts);
                }
                Err(unusable) => files.problem(&candidate.path, &unusable),
            },
            // It was moved meanwhile.
            Err(Unreadable::System(Errno::NOENT)) => {}
            Err(why) => files.problem(&candidate.path, &why),
        }
    }
}

/// All files by their names, and the folders that they are in.
fn candidates(root: Folder, depth: usize, files: &mut Files) -> (Vec<Folder>, Vec<Candidate>) {
    let (mut folders, mut candidates) = (Vec::new(), Vec::new());
    let mut to_do = VecDeque::from([root]);
    let mut entries_left = ENTRIES_MAX;
    while let Some(folder) = to_do.pop_front() {
        let (mut joined, mut has_parts) = (None, false);
        let entries = match Dir::read_from(&folder.fd) {
            Ok(entries) => entries,
            Err(error) => {
                files.problem(&folder.path, &error);
                continue;
            }
        };
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name();
            let Some(text) = name.to_str().ok().filter(|text| !matches!(*text, "." | "..")) else {
                continue;
            };
            let path = folder.path.join(text);
            if entries_left == 0 {
                files.problem(&folder.path, &"left out: there are too many files");
                break;
            }
            entries_left -= 1;
            let Ok(stat) = statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let unix_s = u64::try_from(stat.st_mtime).ok().filter(|at| *at > 0);
            let candidate =
                Candidate { folder: folders.len(), name: name.to_owned(), path, unix_s };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if text == JOINED => joined = Some(candidate),
                FileType::RegularFile if text.starts_with(PREFIX) => {
                    has_parts = true;
                    candidates.push(candidate);
                }
                FileType::Directory if folder.depth < depth => {
                    let flags =
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(&folder.fd, name, flags, Mode::empty()) {
                        Ok(fd) => to_do.push_back(Folder {
                            fd,
                            path: candidate.path,
                            depth: folder.depth + 1,
                        }),
                        Err(error) => files.problem(&candidate.path, &error),
                    }
                }
                FileType::RegularFile | FileType::Directory => {}
                _ if text.starts_with(PREFIX) => files.problem(&candidate.path, &"it is no file"),
                _ => {}
            }
        }
        if !has_parts {
            candidates.extend(joined);
        }
        folders.push(folder);
    }
    (folders, candidates)
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    System(#[from] Errno),
    #[error("{0}")]
    Read(#[from] std::io::Error),
    #[error("it is no file")]
    NoFile,
    #[error("it has more than {PART_MAX_BYTES} bytes")]
    TooLarge,
}

fn content(folder: &OwnedFd, name: &CStr) -> Result<Vec<u8>, Unreadable> {
    // Opening a FIFO or a device must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(folder, name, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unreadable::NoFile);
    }
    let mut content = Vec::new();
    File::from(fd).take(PART_MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
    if content.len() > PART_MAX_BYTES {
        return Err(Unreadable::TooLarge);
    }
    Ok(content)
}

#[derive(Debug, thiserror::Error)]
enum NoPart {
    #[error("pstore gives no file such a name")]
    Name,
    #[error("{0}")]
    Content(#[from] Unusable),
}

fn parts(candidate: &Candidate, content: &[u8]) -> Result<Vec<Part>, NoPart> {
    let name = candidate.name.to_str().map_err(|_| NoPart::Name)?;
    if name == JOINED {
        let folder = candidate.path.parent().unwrap_or(&candidate.path);
        let parts = split_joined(content, &folder.display().to_string(), candidate.unix_s);
        return if parts.is_empty() { Err(Unusable::NoText.into()) } else { Ok(parts) };
    }
    let name = Name::parse(name).ok_or(NoPart::Name)?;
    let unix_s = name.unix_s().or(candidate.unix_s);
    let compressed = name.compressed;
    let origin = Origin { backend: name.backend, id: name.id, unix_s };
    Ok(vec![Part::read(content, compressed, origin)?])
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
        time::{Duration, SystemTime},
    };

    use super::{
        super::{dump::group, part::tests::deflated},
        *,
    };

    struct Host {
        folder: tempfile::TempDir,
        places: Places,
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let places =
                Places { pstore: folder.path().join("sys"), systemd: folder.path().join("var") };
            fs::create_dir(&places.pstore).unwrap();
            fs::create_dir(&places.systemd).unwrap();
            Self { folder, places }
        }

        fn put(&self, path: &str, content: impl AsRef<[u8]>, unix_s: u64) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s);
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        }

        fn texts(&self) -> (Vec<String>, Files) {
            let files = read(&self.places);
            let text = |dump: &super::super::dump::Dump| {
                let line = |index| String::from_utf8_lossy(dump.line(index).unwrap()).into_owned();
                (0..dump.line_count()).map(line).collect::<Vec<_>>().join("|")
            };
            (group(files.parts.clone()).iter().map(text).collect(), files)
        }
    }

    #[test]
    fn a_host_that_has_neither_is_no_problem() {
        let host = Host::new();
        assert_eq!(read(&host.places), Files::default());
        fs::remove_dir(&host.places.pstore).unwrap();
        fs::remove_dir(&host.places.systemd).unwrap();
        assert_eq!(read(&host.places), Files::default());
    }

    #[test]
    fn what_is_in_both_places_counts_once() {
        let host = Host::new();
        for (id, part) in [(1, "Panic#1 Part1\nnew\n"), (2, "Panic#1 Part2\nold\n")] {
            host.put(&format!("sys/dmesg-erst-{id}"), part, 50);
            host.put(&format!("var/2/dmesg-erst-{id}"), part, 50);
        }
        host.put("var/2/dmesg.txt", "Panic#1 Part2\nold\nPanic#1 Part1\nnew\n", 60);
        let deflated = deflated(b"Panic#1 Part1\nof a ramoops\n", false);
        host.put("var/dmesg-ramoops-0.enc.z", &deflated, 70);
        host.put("sys/console-ramoops-0", "some console\n", 70);
        let (texts, files) = host.texts();
        assert_eq!(texts, ["old|new", "of a ramoops"]);
        assert_eq!(files.problems, Vec::<String>::new());
    }

    #[test]
    fn all_layouts_of_systemd_are_read() {
        let host = Host::new();
        host.put("var/1700000000/001/dmesg-efi_pstore-170000000001001", "Panic#1 Part1\na\n", 9);
        host.put("var/1700000000/001/dmesg-efi_pstore-170000000002001", "Panic#1 Part2\nb\n", 9);
        host.put("var/1600000000/dmesg.txt", "Oops#1 Part2\nd\nOops#1 Part1\nc\n", 8);
        host.put("var/deep/deeper/deepest/dmesg-erst-7", "Panic#1 Part1\ntoo deep\n", 9);
        let (texts, files) = host.texts();
        assert_eq!(texts, ["d|c", "b|a"]);
        assert_eq!(files.unusable, 0);
    }

    #[test]
    fn nothing_that_is_no_part_gets_out() {
        let host = Host::new();
        host.put("secret", "Panic#1 Part1\nsecret\n", 9);
        host.put("folder/dmesg-erst-1", "Panic#1 Part1\nsecret\n", 9);
        symlink("../secret", host.places.pstore.join("dmesg-erst-1")).unwrap();
        symlink("../folder", host.places.systemd.join("1")).unwrap();
        fs::create_dir(host.places.pstore.join("dmesg-erst-2")).unwrap();
        let fifo = host.places.pstore.join("dmesg-erst-3");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        host.put("sys/dmesg-erst-4.enc.z", [7; 100], 9);
        host.put("sys/dmesg-erst-5", [200; 100], 9);
        host.put("sys/dmesg-what?", "Panic#1 Part1\nx\n", 9);
        host.put("sys/dmesg-erst-6", vec![b'x'; PART_MAX_BYTES + 1], 9);
        let odd = std::ffi::OsStr::from_bytes(b"dmesg-\xff-1");
        fs::write(host.places.pstore.join(odd), "Panic#1 Part1\nx\n").unwrap();
        let (texts, files) = host.texts();
        assert_eq!(texts, Vec::<String>::new());
        assert_eq!(files.unusable, 6, "{:?}", files.problems);
        for (file, why) in [
            ("dmesg-erst-1", "no file"),
            ("dmesg-erst-3", "no file"),
            ("dmesg-erst-4.enc.z", "decompress"),
            ("dmesg-erst-5", "no text"),
            ("dmesg-erst-6", "bytes"),
            ("dmesg-what?", "name"),
        ] {
            let told =
                |problem: &&String| problem.contains(&format!("{file}: ")) && problem.contains(why);
            assert!(files.problems.iter().any(|problem| told(&problem)), "{:?}", files.problems);
        }
    }

    #[test]
    fn limits_hold_and_the_newest_count() {
        let host = Host::new();
        for id in 0..12_u64 {
            let text = format!("Panic#1 Part1\n{id} {}\n", "x".repeat(PART_MAX_BYTES - 100));
            host.put(&format!("sys/dmesg-ramoops-{id}"), text, 1_000 * (id + 1));
        }
        for id in 0..ENTRIES_MAX / 8 {
            host.put(&format!("var/dmesg-ramoops-{id}"), "Panic#1 Part1\nx\n", 9);
        }
        let (texts, files) = host.texts();
        assert_eq!(texts.len(), 8);
        assert!(texts[0].starts_with("4 ") && texts[7].starts_with("11 "));
        assert!(files.parts.iter().map(|part| part.text.len()).sum::<usize>() <= TOTAL_MAX_BYTES);
        assert_eq!(files.unusable as usize, 4 + ENTRIES_MAX / 8);
        assert_eq!(files.problems.len(), PROBLEMS_MAX);
    }
}
