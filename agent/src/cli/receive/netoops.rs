//! Dumps: datagrams of netoops senders to files, and a line for each on standard output.
//!
//! A file is created under a name that no other has (`O_EXCL`), within the folder that was
//! opened at the start; nothing in a packet becomes part of a path.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open, openat};
use rustix::io::Errno;

use super::socket::Intake;
use crate::netoops::{Assembled, Assembler, Limits, Outcome};
use crate::receive::netoops::{Summary, file_name, json, summary_json, summary_text, text};

/// Names tried for a dump; so many of one host, number and kind may end in one second.
const ATTEMPTS: u32 = 1000;
/// Sources of which it is told that they send something else.
const STRANGERS_MAX: usize = 64;

/// The folder of the files.
struct Folder {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Folder {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = open(path, flags, Mode::empty()).map_err(io::Error::from);
        let descriptor = descriptor.with_context(|| {
            format!("cannot open {} for dumps (make the folder, or choose --dir)", path.display())
        })?;
        let writable = accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        writable.map_err(io::Error::from).with_context(|| {
            format!("cannot write dumps into {} (choose another --dir)", path.display())
        })?;
        Ok(Self { path: path.to_owned(), descriptor })
    }

    /// Writes a dump into a new file and returns its path.
    fn write(&self, dump: &Assembled<IpAddr>) -> anyhow::Result<PathBuf> {
        let at = SystemTime::now();
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The log is not for everybody, as with `kernel.dmesg_restrict`.
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        for attempt in 1..=ATTEMPTS {
            let name = file_name(dump, at, attempt);
            let path = self.path.join(&name);
            let file = match openat(&self.descriptor, name, flags, mode) {
                Err(Errno::EXIST) => continue,
                file => file.map_err(io::Error::from),
            };
            let written = file.and_then(|file| File::from(file).write_all(&dump.text));
            return written
                .map(|()| path.clone())
                .with_context(|| format!("cannot write {}", path.display()));
        }
        bail!("cannot write a dump into {}: {ATTEMPTS} names are taken", self.path.display())
    }
}

/// Assembler, folder and output.
pub(super) struct Dumps<W> {
    assembler: Assembler<IpAddr>,
    folder: Folder,
    /// Complete since the last turn.
    complete: Vec<Assembled<IpAddr>>,
    summary: Summary,
    /// Sources that sent what is no packet of a dump; each is told once.
    strangers: HashSet<IpAddr>,
    json: bool,
    /// Dumps still to be told, if they are counted.
    left: Option<u64>,
    out: W,
}

impl<W: Write> Dumps<W> {
    /// Writes up to `count` dumps into `dir` and a line for each to `out`.
    ///
    /// # Errors
    /// If nothing can be written into `dir`.
    pub(super) fn new(dir: &Path, json: bool, count: Option<u64>, out: W) -> anyhow::Result<Self> {
        Ok(Self {
            assembler: Assembler::new(Limits::default()),
            folder: Folder::open(dir)?,
            complete: Vec::new(),
            summary: Summary::default(),
            strangers: HashSet::new(),
            json,
            left: count,
            out,
        })
    }

    /// Writes a dump and its line. A dump that cannot be written is told, and the next one
    /// may have more luck.
    fn tell(&mut self, dump: &Assembled<IpAddr>) -> io::Result<()> {
        let path = self.keep(dump);
        let path = path.as_deref();
        let line = if self.json { json(dump, path) } else { text(dump, path) };
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.out.write_all(line.as_bytes())
    }

    fn keep(&mut self, dump: &Assembled<IpAddr>) -> Option<PathBuf> {
        self.summary.dumps += 1;
        self.summary.incomplete += u64::from(!dump.missing.is_empty());
        match self.folder.write(dump) {
            Ok(path) => Some(path),
            Err(error) => {
                self.summary.not_written += 1;
                complain(&format!("{}: {error:#}", dump.source));
                None
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.left == Some(0)
    }

    /// Writes what has arrived and was not written because the lines could not be.
    /// What is beyond the count is left.
    pub(super) fn write_rest(&mut self) {
        if self.is_enough() {
            return;
        }
        for dump in std::mem::take(&mut self.complete) {
            self.keep(&dump);
        }
        while let Some(dump) = self.assembler.pop_incomplete(Duration::MAX) {
            self.keep(&dump);
        }
    }

    /// JSON goes where the dumps' lines go; the line for people goes to standard error.
    ///
    /// # Errors
    /// If standard output fails.
    pub(super) fn summary(&mut self) -> io::Result<()> {
        let counters = self.assembler.counters();
        self.summary.repeated = counters.repeated;
        self.summary.conflicting = counters.conflicting;
        if self.json {
            self.out.write_all(summary_json(&self.summary).as_bytes())?;
            self.out.flush()
        } else {
            // Without standard error there is nobody to tell.
            let _ = io::stderr().write_all(summary_text(&self.summary).as_bytes());
            Ok(())
        }
    }

    /// An error if a dump could not be written.
    pub(super) fn all_written(&self) -> anyhow::Result<()> {
        let (lost, dumps) = (self.summary.not_written, self.summary.dumps);
        ensure!(lost == 0, "{lost} of {dumps} dumps could not be written");
        Ok(())
    }
}

impl<W: Write> Intake for Dumps<W> {
    fn datagram(&mut self, now: Duration, source: IpAddr, bytes: &[u8]) {
        self.summary.datagrams += 1;
        let source = source.to_canonical();
        match self.assembler.push(now, source, bytes) {
            Ok(Outcome::Complete(dump)) => self.complete.push(*dump),
            Ok(Outcome::Kept | Outcome::Repeated | Outcome::Conflicting) => {}
            Err(error) => {
                self.summary.refused += 1;
                if self.strangers.len() < STRANGERS_MAX && self.strangers.insert(source) {
                    complain(&format!("{source}: {error}; further ones are only counted"));
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.assembler.next_deadline()
    }

    fn turn(&mut self, now: Duration, last: bool) -> io::Result<bool> {
        let until = if last { Duration::MAX } else { now };
        let mut complete = std::mem::take(&mut self.complete).into_iter();
        while !self.is_enough() {
            let next = complete.next().or_else(|| self.assembler.pop_incomplete(until));
            let Some(dump) = next else { break };
            if let Err(error) = self.tell(&dump) {
                self.complete = complete.collect();
                return Err(error);
            }
        }
        self.out.flush()?;
        Ok(!self.is_enough())
    }
}

/// Says something on standard error, if anybody listens.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::cli::receive::Gone;
    use crate::netoops::wire::PACKET_BYTES;
    use crate::netoops::{Dump, Kind};

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn dumps(dir: &Path, count: Option<u64>) -> Dumps<Vec<u8>> {
        Dumps::new(dir, false, count, Vec::new()).expect("a folder")
    }

    fn send(dumps: &mut Dumps<impl Write>, id: u16, text: &[u8], packets: &[u32]) {
        let dump = Dump::new(id, Kind::Hard, b"6.1.0", text.len()).expect("short enough");
        for &packet_no in packets {
            let mut packet = [0; PACKET_BYTES];
            assert_eq!(dump.packet(text, packet_no, &mut packet), PACKET_BYTES);
            dumps.datagram(Duration::ZERO, SOURCE, &packet);
        }
    }

    fn files(dir: &Path) -> Vec<(String, String)> {
        let read = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry.expect("an entry");
            let text = std::fs::read_to_string(entry.path()).expect("a text");
            (entry.file_name().into_string().expect("UTF-8"), text)
        };
        let mut files: Vec<_> = std::fs::read_dir(dir).expect("the folder").map(read).collect();
        files.sort();
        files
    }

    #[test]
    fn each_dump_is_a_file_of_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dumps = dumps(dir.path(), None);
        for id in [7, 8] {
            send(&mut dumps, id, b"hello\n", &[0, 0, 0]);
        }
        assert!(dumps.turn(Duration::ZERO, false).expect("written"));
        let files = files(dir.path());
        assert_eq!(files.len(), 2);
        assert!(files[0].0.starts_with("netoops-127.0.0.1-00007-hard-"), "{}", files[0].0);
        assert_eq!(files[0].1, "hello\n");
        let mode = dir.path().join(&files[0].0).metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o037, 0, "{mode:o}");
        let out = String::from_utf8(dumps.out.clone()).expect("UTF-8");
        assert!(out.starts_with("127.0.0.1 dump 7 hard, kernel 6.1.0 (x86): 1 of 1 packets, /"));
        assert!(out.lines().next().expect("a line").ends_with(&files[0].0));
        dumps.all_written().expect("all written");
    }

    #[test]
    fn no_file_is_overwritten_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let dump = |text: &[u8]| Assembled {
            source: SOURCE,
            dump_id: 7,
            kind: Kind::Soft,
            arch: 2,
            kernel_release: Vec::new(),
            packet_count: 1,
            received: 1,
            missing: Vec::new(),
            repeated: 0,
            conflicting: 0,
            text: text.to_vec(),
        };
        // Links under all the names of the next seconds.
        let target = dir.path().join("target");
        let now = SystemTime::now();
        for second in 0..20 {
            let name = file_name(&dump(b""), now + Duration::from_secs(second), 1);
            symlink(&target, dir.path().join(name)).expect("a link");
        }
        let folder = Folder::open(dir.path()).expect("a folder");
        let paths: Vec<_> =
            (0..50_u8).map(|number| folder.write(&dump(&[number])).expect("written")).collect();
        assert!(!target.exists());
        for (number, path) in paths.iter().enumerate() {
            assert_eq!(std::fs::read(path).expect("a file"), [number as u8]);
        }
    }

    #[test]
    fn what_is_open_at_the_end_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dumps = dumps(dir.path(), None);
        send(&mut dumps, 7, &[b'x'; 2048], &[1]);
        assert!(dumps.turn(Duration::from_secs(1), false).expect("written"));
        assert_eq!(files(dir.path()).len(), 0);
        dumps.turn(Duration::from_secs(2), true).expect("written");
        let files = files(dir.path());
        assert_eq!(files.len(), 1);
        assert!(files[0].1.contains("packet 0 is missing"), "{}", files[0].1);
        assert_eq!((dumps.summary.dumps, dumps.summary.incomplete), (1, 1));
    }

    #[test]
    fn the_count_ends_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dumps = dumps(dir.path(), Some(2));
        for id in 0..5 {
            send(&mut dumps, id, b"hello\n", &[0]);
        }
        assert!(!dumps.turn(Duration::ZERO, false).expect("written"));
        dumps.write_rest();
        assert_eq!(files(dir.path()).len(), 2);
    }

    #[test]
    fn files_are_written_without_a_reader_of_the_lines() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dumps = Dumps::new(dir.path(), true, None, Gone).expect("a folder");
        for id in 0..3 {
            send(&mut dumps, id, b"hello\n", &[0]);
        }
        send(&mut dumps, 3, &[b'x'; 2048], &[1]);
        dumps.turn(Duration::ZERO, false).expect_err("nobody reads");
        dumps.write_rest();
        assert_eq!(files(dir.path()).len(), 4);
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        std::fs::write(&file, b"").expect("a file");
        for path in [file, dir.path().join("missing")] {
            let error = Dumps::new(&path, false, None, Vec::new()).err().expect("no folder");
            let error = format!("{error:#}");
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("--dir"), "{error}");
        }
    }

    #[test]
    fn a_dump_that_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut dumps = dumps(dir.path(), None);
        // The folder that was opened is gone, and another one of the same name is not taken.
        let path = dir.path().to_owned();
        dir.close().expect("removed");
        send(&mut dumps, 7, b"hello\n", &[0]);
        std::fs::create_dir(&path).expect("a folder");
        assert!(dumps.turn(Duration::ZERO, false).expect("told"));
        assert_eq!(files(&path).len(), 0);
        std::fs::remove_dir(&path).expect("removed");
        assert!(String::from_utf8_lossy(&dumps.out).ends_with(", not written\n"));
        assert!(dumps.all_written().is_err());
    }
}
