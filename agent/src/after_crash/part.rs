//! One part of a dump, as pstore keeps it: its name, its header, its text. Pure, and trusts
//! none of it.
//!
//! Sources: `pstore_mkfile` (`fs/pstore/inode.c`) for names, `pstore_dump` and
//! `decompress_record` (`fs/pstore/platform.c`) for header and compression,
//! `efi_pstore_write` (`drivers/firmware/efi/efi-pstore.c`) for the number that is a time,
//! `psz_kmsg_read` (`fs/pstore/zone.c`) for the line that is put before the header, and
//! `src/pstore/pstore.c` of systemd for `dmesg.txt`.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest as _, Sha256};

/// Most bytes of one part, as stored and as text; the kernel's backends have from 1 KiB to
/// some hundred.
pub const PART_MAX_BYTES: usize = 1 << 20;
/// Longest reason and longest name of a backend.
const WORD_MAX_BYTES: usize = 32;
/// The suffix of what pstore could not decompress.
const COMPRESSED_SUFFIX: &str = ".enc.z";
/// Begins the name of every record of the kernel's log.
pub const PREFIX: &str = "dmesg-";
/// What systemd-pstore joins parts to.
pub const JOINED: &str = "dmesg.txt";

/// A part by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// SHA-256 of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of what hashes stand for, in their order.
    #[must_use]
    pub fn of_all<'a>(hashes: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Sha256::new();
        hashes.for_each(|hash| all.update(hash.0));
        Self(all.finalize().into())
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The name of a part: `dmesg-BACKEND-ID[.enc.z]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `efi_pstore`, `erst`, `ramoops`, …
    pub backend: String,
    /// The backend's own number; parts of one dump have growing ones.
    pub id: u64,
    /// pstore could not decompress it.
    pub compressed: bool,
}

impl Name {
    /// Reads a name; `None` if pstore gives no such names to parts of the log.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let plain = rest.strip_suffix(COMPRESSED_SUFFIX);
        let (backend, id) = plain.unwrap_or(rest).rsplit_once('-')?;
        let is_word = (1..=WORD_MAX_BYTES).contains(&backend.len())
            && backend.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let id = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok())??;
        is_word.then(|| Self { backend: backend.to_owned(), id, compressed: plain.is_some() })
    }

    /// When it was written, in seconds since 1970, if the name says so.
    #[must_use]
    pub fn unix_s(&self) -> Option<u64> {
        const YEAR_2001: u64 = 1_000_000_000;
        let unix_s = self.id / 100_000;
        (self.backend.starts_with("efi") && (YEAR_2001..1 << 33).contains(&unix_s))
            .then_some(unix_s)
    }
}

/// The first line of a part: `Panic#1 Part2`. Part 1 has the newest text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `Panic`, `Oops`, `Emergency`, …
    pub reason: String,
    /// Which dump of its boot.
    pub count: u32,
    /// Which part of the dump, from 1.
    pub number: u32,
}

impl Head {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (reason, rest) = line.split_once('#')?;
        let (count, number) = rest.split_once(" Part")?;
        let number_of = |digits: &str| {
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let is_word = (1..=WORD_MAX_BYTES).contains(&reason.len())
            && reason.bytes().all(|byte| byte.is_ascii_alphabetic());
        let head = Self {
            reason: reason.to_owned(),
            count: number_of(count)?,
            number: number_of(number)?,
        };
        (is_word && head.number > 0).then_some(head)
    }
}

/// Where a part comes from, as far as that helps to put it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The backend, or the folder of a joined file.
    pub backend: String,
    /// Grows from part to part of a dump.
    pub id: u64,
    /// When it was written, in seconds since 1970.
    pub unix_s: Option<u64>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its content, wherever it was found.
    pub hash: Hash,
    /// Its header, if it has one.
    pub head: Option<Head>,
    /// The text without header and without line ends at its end.
    pub text: Vec<u8>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why there is no text in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not deflate, or damaged.
    #[error(
        "it is compressed, and neither the kernel nor the agent can decompress it (deflate only; \
         another kernel may: look at CONFIG_PSTORE_COMPRESS)"
    )]
    Compressed,
    /// Something else.
    #[error("it is no text")]
    NoText,
}

impl Part {
    /// A part from the content of its file.
    ///
    /// # Errors
    /// If it has no text.
    pub fn read(content: &[u8], compressed: bool, origin: Origin) -> Result<Self, Unusable> {
        if !compressed {
            let part = Self::of_text(content, origin);
            return if part.head.is_some() || is_text(&part.text) {
                Ok(part)
            } else {
                Err(Unusable::NoText)
            };
        }
        // Raw since Linux 4.18, before that with zlib's header. Without its header line nothing
        // would tell text from noise: raw deflate has no checksum.
        [false, true]
            .into_iter()
            .filter_map(|zlib| inflate(content, zlib))
            .map(|text| Self::of_text(&text, origin.clone()))
            .find(|part| part.head.is_some())
            .ok_or(Unusable::Compressed)
    }

    fn of_text(content: &[u8], origin: Origin) -> Self {
        let (head, text) = split_head(content);
        let text = trimmed(text);
        let mut hashed = Sha256::new();
        if let Some(Head { reason, count, number }) = &head {
            hashed.update(format!("{reason}#{count} Part{number}\n"));
        }
        hashed.update(text);
        Self { hash: Hash(hashed.finalize().into()), head, text: text.to_vec(), origin }
    }
}

/// The parts of a file that systemd-pstore joined, the newest first. What stands before the
/// first header belongs to no part, except in a file without any.
#[must_use]
pub fn split_joined(content: &[u8], folder: &str, unix_s: Option<u64>) -> Vec<Part> {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if Head::parse(line.strip_suffix(b"\n").unwrap_or(line)).is_some() {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([content.len()]);
    let texts: Vec<&[u8]> =
        starts.iter().zip(ends).map(|(start, end)| &content[*start..end]).collect();
    let origin = |id: usize| Origin { backend: folder.to_owned(), id: id as u64, unix_s };
    if texts.is_empty() {
        return Part::read(content, false, origin(0)).into_iter().collect();
    }
    let parts = texts.into_iter().rev().enumerate();
    parts.map(|(id, text)| Part::of_text(without_name(text), origin(id))).collect()
}

/// Without the name of the next file, which older versions of systemd put between parts.
fn without_name(text: &[u8]) -> &[u8] {
    let text = trimmed(text);
    let last = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let name = std::str::from_utf8(&text[last..]).ok().and_then(|line| line.strip_suffix(':'));
    if name.is_some_and(|name| Name::parse(name).is_some()) { &text[..last] } else { text }
}

/// The header, and what follows it. It is the first line, or the second after
/// `Panic: Total 3 times`.
fn split_head(content: &[u8]) -> (Option<Head>, &[u8]) {
    let line = |text: &'_ [u8]| {
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        (end, (end + 1).min(text.len()))
    };
    let (end, next) = line(content);
    if let Some(head) = Head::parse(&content[..end]) {
        return (Some(head), &content[next..]);
    }
    let first = &content[..end];
    let is_total = end <= 80
        && first.windows(8).any(|window| window == b": Total ")
        && first.ends_with(b" times");
    let rest = &content[next..];
    let (end, next) = line(rest);
    match Head::parse(&rest[..end]).filter(|_| is_total) {
        Some(head) => (Some(head), &rest[next..]),
        None => (None, content),
    }
}

/// Without line ends and padding at the end, which copies may have and others not.
fn trimmed(text: &[u8]) -> &[u8] {
    let padding = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    let end = text.iter().rposition(|byte| !padding(byte)).map_or(0, |at| at + 1);
    &text[..end]
}

fn is_text(text: &[u8]) -> bool {
    let plain = |byte: &&u8| matches!(**byte, b' '..=b'~' | b'\n' | b'\t');
    !text.is_empty() && text.iter().filter(plain).count() >= text.len() / 8 * 7
}

/// Decompresses a whole stream; what follows it (ramoops adds a note) is left out.
fn inflate(content: &[u8], zlib: bool) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(PART_MAX_BYTES);
    let mut stream = Decompress::new(zlib);
    let status = stream.decompress_vec(content, &mut text, FlushDecompress::Finish);
    matches!(status, Ok(Status::StreamEnd)).then_some(text)
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    pub(in crate::after_crash) fn origin(id: u64) -> Origin {
        Origin { backend: "erst".to_owned(), id, unix_s: None }
    }

    pub(in crate::after_crash) fn deflated(text: &[u8], zlib: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 100);
        let mut stream = Compress::new(Compression::default(), zlib);
        stream.compress_vec(text, &mut out, FlushCompress::Finish).unwrap();
        out
    }

    const TEXT: &[u8] =
        b"Panic#2 Part1\n<0>[  100.1] Kernel panic - not syncing: sysrq\n<4>[  100.2] Call Trace:\n";

    #[test]
    fn names() {
        let parsed = |name| Name::parse(name).map(|name| (name.backend, name.id, name.compressed));
        for (name, backend, id, compressed) in [
            ("dmesg-efi-160000000001001", "efi", 160_000_000_001_001, false),
            ("dmesg-efi_pstore-1.enc.z", "efi_pstore", 1, true),
            ("dmesg-efi-pstore-12", "efi-pstore", 12, false),
            ("dmesg-erst-6936584529321066497", "erst", 6_936_584_529_321_066_497, false),
            ("dmesg-ramoops-0", "ramoops", 0, false),
            ("dmesg-pstore_blk-3.enc.z", "pstore_blk", 3, true),
            ("dmesg-nvram-1", "nvram", 1, false),
        ] {
            assert_eq!(parsed(name), Some((backend.to_owned(), id, compressed)), "{name}");
        }
        for name in [
            "console-ramoops-0",
            "dmesg.txt",
            "dmesg-",
            "dmesg-x",
            "dmesg--1",
            "dmesg-erst-",
            "dmesg-erst-+1",
            "dmesg-erst-18446744073709551616",
            "dmesg-a/../b-1",
            "dmesg-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
        let unix_s = |name| Name::parse(name).unwrap().unix_s();
        assert_eq!(unix_s("dmesg-efi_pstore-170000000002001"), Some(1_700_000_000));
        assert_eq!(unix_s("dmesg-efi-12"), None);
        assert_eq!(unix_s("dmesg-erst-170000000002001"), None);
    }

    #[test]
    fn the_header_is_understood_and_taken_off() {
        let part = Part::read(TEXT, false, origin(1)).unwrap();
        let head = Head { reason: "Panic".to_owned(), count: 2, number: 1 };
        assert_eq!(part.head, Some(head.clone()));
        assert!(part.text.starts_with(b"<0>[") && part.text.ends_with(b"Trace:"));
        let zoned = [b"Panic: Total 2 times\n", TEXT].concat();
        let of_zone = Part::read(&zoned, false, origin(9)).unwrap();
        assert_eq!((of_zone.head, of_zone.hash), (Some(head), part.hash));
        for no_header in [
            "Panic#1 Part0\nx",
            "Panic#-1 Part1\nx",
            "#1 Part1\nx",
            "Pa nic#1 Part1\nx",
            "Panic#1 Part1 \nx",
            "Panic#1 Part99999999999\nx",
            "line\nPanic#1 Part1\nx",
        ] {
            let part = Part::read(no_header.as_bytes(), false, origin(1)).unwrap();
            assert_eq!((part.head, &part.text[..]), (None, no_header.as_bytes()));
        }
    }

    #[test]
    fn a_part_is_the_same_wherever_it_is_found() {
        let plain = Part::read(TEXT, false, origin(1)).unwrap();
        let padded = [TEXT, b"\n\0\0"].concat();
        assert_eq!(Part::read(&padded, false, origin(2)).unwrap().hash, plain.hash);
        for zlib in [false, true] {
            let mut stored = deflated(TEXT, zlib);
            assert_eq!(Part::read(&stored, true, origin(3)).unwrap().hash, plain.hash);
            stored.extend_from_slice(b"\nECC: No errors detected\n");
            assert_eq!(Part::read(&stored, true, origin(3)).unwrap().hash, plain.hash);
        }
        let other = TEXT.to_ascii_uppercase();
        assert_ne!(Part::read(&other, false, origin(1)).unwrap().hash, plain.hash);
        assert_eq!(Hash::from_hex(&plain.hash.to_string()), Some(plain.hash));
        assert_eq!(Hash::from_hex("é0"), None);
        assert_eq!(Hash::from_hex(&"é".repeat(32)), None);
    }

    #[test]
    fn what_cannot_be_decompressed_is_no_text() {
        let stored = deflated(TEXT, false);
        for len in 0..stored.len() {
            let cut = Part::read(&stored[..len], true, origin(1));
            assert_eq!(cut, Err(Unusable::Compressed), "{len}");
        }
        let bomb = deflated(&vec![b'x'; 2 * PART_MAX_BYTES], false);
        assert_eq!(Part::read(&bomb, true, origin(1)), Err(Unusable::Compressed));
        let no_header = deflated(b"some text\n", true);
        assert_eq!(Part::read(&no_header, true, origin(1)), Err(Unusable::Compressed));
        assert_eq!(Part::read(&stored, false, origin(1)), Err(Unusable::NoText));
        assert_eq!(Part::read(b"", false, origin(1)), Err(Unusable::NoText));
    }

    #[test]
    fn joined_files_come_apart() {
        let parts = [&b"Panic#1 Part3\n<6>a\n<6>b\n"[..], b"Panic#1 Part2\n<6>c\n", TEXT];
        let read = |part: &&[u8]| Part::read(part, false, origin(0)).unwrap().hash;
        let hashes: Vec<_> = parts.iter().map(read).rev().collect();
        // As systemd does now, and as it did before version 250 or so.
        let named: Vec<u8> = parts
            .iter()
            .zip(1..)
            .flat_map(|(part, id)| [format!("dmesg-efi-{id}:\n").as_bytes(), part].concat())
            .collect();
        for joined in [parts.concat(), named] {
            let split = split_joined(&joined, "1700000000", Some(7));
            assert_eq!(split.iter().map(|part| part.hash).collect::<Vec<_>>(), hashes);
            let origins: Vec<_> = split.iter().map(|part| part.origin.id).collect();
            assert_eq!(origins, [0, 1, 2]);
        }
        let whole = split_joined(b"some text\nof lines", "x", None);
        assert_eq!(whole.len(), 1);
        assert!(split_joined(&[7; 100], "x", None).is_empty());
    }

    proptest! {
        #[test]
        fn no_content_is_too_strange(
            content in proptest::collection::vec(any::<u8>(), 0..400),
            name in ".{0,40}",
        ) {
            let _ = Name::parse(&name);
            for compressed in [false, true] {
                if let Ok(part) = Part::read(&content, compressed, origin(1)) {
                    prop_assert!(part.head.is_some() || is_text(&part.text));
                }
            }
            let text = String::from_utf8_lossy(&content).replace('a', "\nPanic#1 Part2\n");
            let parts = split_joined(text.as_bytes(), "x", None);
            prop_assert_eq!(text.contains("\nPanic#1 Part2\n"), parts.iter().any(|part| part.head.is_some()));
        }
    }
}
