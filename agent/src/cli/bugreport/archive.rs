//! The archive: parts by name, each masked, as a gzipped tar of one folder.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::SystemTime,
};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::mask::Mask;

/// The folder in the archive.
const FOLDER: &str = "netconsole-agent-bugreport";
/// Of the archive and of what is in it: for its owner alone.
const MODE: u32 = 0o600;

/// What is gathered.
#[derive(Debug)]
pub(super) struct Archive {
    mask: Mask,
    parts: Vec<(&'static str, Result<String, String>)>,
}

impl Archive {
    pub(super) fn new(mask: Mask) -> Self {
        Self { mask, parts: Vec::new() }
    }

    /// Adds a part, or why it could not be had.
    pub(super) fn add(&mut self, name: &'static str, part: Result<String, String>) {
        let mask = |text: String| self.mask.masked(&text);
        let part = part.map(mask).map_err(mask);
        self.parts.push((name, part));
    }

    /// Adds a part that is JSON, and stays so whatever is masked.
    pub(super) fn add_json(&mut self, name: &'static str, part: Result<Value, String>) {
        let part = part.and_then(|mut value| {
            self.mask.masked_json(&mut value);
            serde_json::to_string_pretty(&value).map_err(|error| error.to_string())
        });
        self.parts.push((name, part.map_err(|reason| self.mask.masked(&reason))));
    }

    /// What could not be had, and why.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.parts.iter().filter_map(|(name, part)| Some((*name, part.as_ref().err()?.as_str())))
    }

    /// Writes it to a new file.
    ///
    /// # Errors
    /// If there is such a file already, or it cannot be written; then it is not left half done.
    pub(super) fn write(&self, path: &Path, now: SystemTime) -> anyhow::Result<()> {
        let shown = path.display();
        let bytes = self.packed(now).context("cannot pack the archive")?;
        // Never through a link that somebody put there.
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
        let mut file = file.with_context(|| {
            format!("cannot create the archive {shown} (--out names another place)")
        })?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = std::fs::remove_file(path);
        }
        written.with_context(|| format!("cannot write the archive {shown}"))
    }

    fn packed(&self, now: SystemTime) -> io::Result<Vec<u8>> {
        let mtime_s = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, part) in &self.parts {
            let (name, text) = match part {
                Ok(text) => ((*name).to_owned(), text.clone()),
                Err(reason) => (format!("{name}.error"), format!("{}\n", reason.trim_end())),
            };
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(MODE);
            header.set_mtime(mtime_s);
            tar.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        }
        tar.into_inner()?.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn parts_and_reasons_are_in_it_masked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.tar.gz");
        let mut archive = Archive::new(Mask::new(vec!["hidden".to_owned()]));
        archive.add("a.txt", Ok("one hidden word\n".to_owned()));
        archive.add("b.txt", Err("not hidden".to_owned()));
        archive.write(&path, SystemTime::now()).expect("an archive");
        assert_eq!(archive.missing().collect::<Vec<_>>(), [("b.txt", "not ***")]);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let file = std::fs::File::open(&path).expect("a file");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut found = BTreeMap::new();
        for entry in tar.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            assert_eq!(entry.header().mode().expect("a mode"), 0o600);
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("a text");
            found.insert(name, text);
        }
        let expected = [("a.txt", "one *** word\n"), ("b.txt.error", "not ***\n")];
        let expected = expected.map(|(name, text)| (format!("{FOLDER}/{name}"), text.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        // It is not written over.
        let error = archive.write(&path, SystemTime::now()).expect_err("it is there");
        assert!(format!("{error:#}").contains("--out"), "{error:#}");
    }
}
