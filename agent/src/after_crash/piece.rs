//! A dump's lines as texts of messages. Pure.
//!
//! `boot=ID at=TIME dump=NAME REASON LINE/LINES: TEXT`, what is not known as `-`. A line that
//! is too long for one message goes on in the next one, which has a `+` behind the number of
//! the line. Everything before the text is made of words that no dump can choose, besides the
//! reason, which is letters, a `#` and digits.

use std::time::{Duration, SystemTime};

use super::dump::Dump;
use crate::message::escaped_len;

/// Bytes for text that a message has at least; where extra data leaves less, it is left out.
pub const TEXT_MIN_BYTES: usize = 256;

/// A line of a dump, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which line, from 0.
    pub line: usize,
    /// Where it begins in the line, in bytes.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
}

impl Piece {
    /// The piece that begins there, as long as `room_bytes` on the wire allow; `None` behind the
    /// last line.
    #[must_use]
    pub fn at(dump: &Dump, line: usize, from: usize, room_bytes: usize) -> Option<Self> {
        let text = dump.line(line)?.get(from..)?;
        let mut room = room_bytes.saturating_sub(head(dump, line, from).len());
        let fits = |byte: &&u8| {
            let left = room.checked_sub(escaped_len(&[**byte]));
            room = left.unwrap_or_default();
            left.is_some()
        };
        let len = text.iter().take_while(fits).count();
        // Something of it must go, or it would never end.
        Some(Self { line, from, to: from + len.max(1).min(text.len()) })
    }

    /// Whether the line ends with it.
    #[must_use]
    pub fn ends_line(&self, dump: &Dump) -> bool {
        dump.line(self.line).is_none_or(|line| self.to >= line.len())
    }

    /// The text of the message.
    #[must_use]
    pub fn text(&self, dump: &Dump) -> Vec<u8> {
        let line = dump.line(self.line).unwrap_or_default();
        let mut text = head(dump, self.line, self.from).into_bytes();
        text.extend_from_slice(line.get(self.from..self.to).unwrap_or_default());
        text
    }
}

fn head(dump: &Dump, line: usize, from: usize) -> String {
    format!(
        "boot={} at={} dump={} {} {}/{}{}: ",
        dump.boot.as_deref().unwrap_or("-"),
        time(dump.unix_s).as_deref().unwrap_or("-"),
        dump.name,
        dump.reason,
        line + 1,
        dump.line_count(),
        if from > 0 { "+" } else { "" }
    )
}

/// Seconds since 1970 as people read them, in UTC.
#[must_use]
pub fn time(unix_s: Option<u64>) -> Option<String> {
    const YEAR_9999: u64 = 253_402_300_800;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.filter(|at| *at < YEAR_9999)?);
    Some(humantime::format_rfc3339_seconds(at).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::dump::{group, tests::part},
        *,
    };
    use crate::message::{Kind, check, text_max_bytes};

    fn dump(text: &str) -> Dump {
        let text = format!("Panic#1 Part1\n{text}");
        let mut dumps = group(vec![part("erst", 1, 1_700_000_000, &text)]);
        dumps.remove(0)
    }

    fn pieces(dump: &Dump, room: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut line, mut from) = (0, 0);
        while let Some(piece) = Piece::at(dump, line, from, room) {
            pieces.push(piece);
            (line, from) = if piece.ends_line(dump) { (line + 1, 0) } else { (line, piece.to) };
        }
        pieces
    }

    /// But for the name, which is that of the dump's content.
    #[test]
    fn the_readme_shows_what_is_sent() {
        const README: &str = include_str!("../../../README.md");
        let shown = README.lines().find(|line| line.starts_with("netconsole-agent, after-crash: "));
        let shown = shown.expect("a line");
        let word = |name: &str| {
            let (_, rest) = shown.split_once(&format!(" {name}=")).expect(name);
            rest.split(' ').next().expect("a word").to_owned()
        };
        let (_, last) = shown.split_once(" 339/340: ").expect("line and lines");
        let mut dump = dump(&format!("{}{last}\n<0>end\n", "<6>[    1.5] one\n".repeat(338)));
        dump.boot = Some(word("boot"));
        let at = humantime::parse_rfc3339(&word("at")).expect("a time");
        dump.unix_s = Some(at.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs());
        assert_eq!(dump.name.len(), word("dump").len());
        let text = pieces(&dump, 800)[338].text(&dump);
        let text = String::from_utf8(text).expect("UTF-8").replace(&dump.name, &word("dump"));
        assert_eq!(format!("{}{text}", Kind::AfterCrash.prefix()), shown);
    }

    #[test]
    fn a_line_has_its_boot_its_time_and_its_number_before_it() {
        let mut dump = dump("<6>[    1.5] one\n<0>[    2.5] two: three\n");
        dump.boot = Some("0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b".to_owned());
        let texts: Vec<_> = pieces(&dump, 800).iter().map(|piece| piece.text(&dump)).collect();
        let head = format!(
            "boot=0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b at=2023-11-14T22:13:20Z dump={} Panic#1",
            dump.name
        );
        assert_eq!(
            texts.iter().map(|text| String::from_utf8_lossy(text)).collect::<Vec<_>>(),
            [
                format!("{head} 1/2: <6>[    1.5] one"),
                format!("{head} 2/2: <0>[    2.5] two: three")
            ]
        );
        (dump.boot, dump.unix_s) = (None, Some(u64::MAX));
        let text = pieces(&dump, 800)[0].text(&dump);
        assert!(text.starts_with(b"boot=- at=- dump="), "{}", text.escape_ascii());
    }

    #[test]
    fn a_line_without_text_is_a_message_all_the_same() {
        let dump = dump("a\n\nb");
        let pieces = pieces(&dump, 800);
        assert_eq!(pieces.iter().map(|piece| piece.line).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(pieces[1].text(&dump).ends_with(b" 2/3: "));
    }

    proptest! {
        #[test]
        fn pieces_fit_and_give_the_lines_back(
            text in "([a-z\\\\\u{1}\u{e9}]{0,900}\n){1,3}x",
            room in 0..=text_max_bytes(Kind::AfterCrash, 0),
        ) {
            let dump = dump(&text);
            let mut lines = vec![Vec::new(); dump.line_count()];
            for piece in pieces(&dump, room) {
                let text = piece.text(&dump);
                let head = head(&dump, piece.line, piece.from);
                prop_assert_eq!(head.contains('+'), piece.from > 0);
                prop_assert_eq!(lines[piece.line].len(), piece.from);
                lines[piece.line].extend_from_slice(&text[head.len()..]);
                // In less room at least a byte of it goes.
                if room >= TEXT_MIN_BYTES {
                    prop_assert!(escaped_len(&text) <= room);
                    let extra = text_max_bytes(Kind::AfterCrash, 0) - room;
                    prop_assert!(check(Kind::AfterCrash, &text, extra).is_ok());
                }
            }
            for (index, line) in lines.iter().enumerate() {
                prop_assert_eq!(Some(&line[..]), dump.line(index));
            }
        }
    }
}
