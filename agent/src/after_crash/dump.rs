//! A dump: what the kernel wrote when it crashed, put together from its parts. Pure.
//!
//! The kernel numbers parts from the end of its log: part 1 has the newest text
//! (`pstore_dump`, `fs/pstore/platform.c`), each part whole lines.

use std::{collections::BTreeMap, ops::Range};

use super::part::{Hash, Head, Part};

/// Parts of one dump follow each other within this time.
const GAP_MAX_S: u64 = 120;
/// Characters of a dump's name.
const NAME_BYTES: usize = 12;

/// One dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// A short name that it has wherever it is found.
    pub name: String,
    /// Its parts by their content, the oldest text first.
    pub parts: Vec<Hash>,
    /// Parts that are known to be missing.
    pub missing: u64,
    /// `Panic#1`, `Oops#3`, …, or `dmesg` if that is not known.
    pub reason: String,
    /// When it was written, in seconds since 1970.
    pub unix_s: Option<u64>,
    /// The id of the boot that it belongs to.
    pub boot: Option<String>,
    /// Where the newest part was found: a backend of pstore, or a folder of systemd-pstore.
    pub backend: String,
    text: Vec<u8>,
    lines: Vec<Range<usize>>,
}

impl Dump {
    /// The dump of these parts, the oldest text first.
    fn new(parts: &[Part]) -> Self {
        let hashes: Vec<Hash> = parts.iter().map(|part| part.hash).collect();
        let mut dump = Self {
            name: Hash::of_all(hashes.iter()).to_string()[..NAME_BYTES].to_owned(),
            parts: hashes,
            missing: 0,
            reason: "dmesg".to_owned(),
            unix_s: parts.iter().filter_map(|part| part.origin.unix_s).max(),
            boot: None,
            backend: parts.last().map(|part| part.origin.backend.clone()).unwrap_or_default(),
            text: Vec::new(),
            lines: Vec::new(),
        };
        let mut before = None;
        for part in parts {
            if let Some(Head { reason, count, number }) = &part.head {
                dump.reason = format!("{reason}#{count}");
                dump.note_gap(number.saturating_add(1), before);
                before = Some(*number);
            }
            part.text.split(|byte| *byte == b'\n').for_each(|line| dump.push(line));
        }
        dump.note_gap(1, before);
        dump
    }

    fn push(&mut self, line: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(line);
        self.lines.push(start..self.text.len());
    }

    /// Says in a line of its own that parts from `first` to the one before are missing.
    fn note_gap(&mut self, first: u32, before: Option<u32>) {
        let Some(last) = before.map(|before| before - 1).filter(|last| *last >= first) else {
            return;
        };
        self.missing += u64::from(last - first) + 1;
        let which = if first == last {
            format!("part {first} of the dump is")
        } else {
            format!("parts {last} to {first} of the dump are")
        };
        self.push(format!("[netconsole-agent: {which} missing here]").as_bytes());
    }

    /// How many lines it has.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// Size of its text in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// A line without its line end.
    #[must_use]
    pub fn line(&self, index: usize) -> Option<&[u8]> {
        self.text.get(self.lines.get(index)?.clone())
    }
}

/// Puts parts together, whatever their order; the oldest dump first. A part that is there twice
/// counts once.
#[must_use]
pub fn group(parts: Vec<Part>) -> Vec<Dump> {
    let mut dumps = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut series: BTreeMap<(String, String, u32), Vec<Part>> = BTreeMap::new();
    for part in parts.into_iter().filter(|part| seen.insert(part.hash)) {
        match &part.head {
            Some(Head { reason, count, .. }) => {
                let key = (part.origin.backend.clone(), reason.clone(), *count);
                series.entry(key).or_default().push(part);
            }
            None => dumps.push(Dump::new(&[part])),
        }
    }
    // The count begins anew with each boot, so a series may be of several dumps. Their parts
    // were written in the order of their numbers, and so are the backend's own numbers.
    for mut series in series.into_values() {
        let number = |part: &Part| part.head.as_ref().map_or(0, |head| head.number);
        series.sort_by_key(|part| (part.origin.id, number(part)));
        for dump in series.chunk_by(|before, after| {
            let times = before.origin.unix_s.zip(after.origin.unix_s);
            let near = times.is_none_or(|(before, after)| before.abs_diff(after) <= GAP_MAX_S);
            number(after) > number(before) && near
        }) {
            let oldest_first: Vec<Part> = dump.iter().rev().cloned().collect();
            dumps.push(Dump::new(&oldest_first));
        }
    }
    dumps.sort_by(|a, b| (a.unix_s, &a.reason, &a.name).cmp(&(b.unix_s, &b.reason, &b.name)));
    dumps
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::part::{Origin, split_joined},
        *,
    };

    pub(in crate::after_crash) fn part(backend: &str, id: u64, at: u64, text: &str) -> Part {
        let origin =
            Origin { backend: backend.to_owned(), id, unix_s: Some(at).filter(|at| *at > 0) };
        Part::read(text.as_bytes(), false, origin).unwrap()
    }

    fn lines(dump: &Dump) -> Vec<&str> {
        let line = |index| std::str::from_utf8(dump.line(index).unwrap()).unwrap();
        (0..dump.line_count()).map(line).collect()
    }

    #[test]
    fn parts_are_put_in_order_whatever_order_they_come_in() {
        let parts = [
            part("erst", 103, 50, "Panic#1 Part3\n<6>one\n<6>two\n"),
            part("erst", 102, 50, "Panic#1 Part2\n<6>three\n"),
            part("erst", 101, 49, "Panic#1 Part1\n<0>four\n\n<0>five\n"),
        ];
        let expected = ["<6>one", "<6>two", "<6>three", "<0>four", "", "<0>five"];
        let mut names = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let dumps = group(order.map(|at| parts[at].clone()).to_vec());
            assert_eq!(dumps.len(), 1);
            assert_eq!(lines(&dumps[0]), expected);
            assert_eq!(
                (&*dumps[0].reason, dumps[0].unix_s, dumps[0].missing),
                ("Panic#1", Some(50), 0)
            );
            names.push(dumps[0].name.clone());
        }
        names.dedup();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].len(), NAME_BYTES);
        let twice = parts.iter().chain(&parts).cloned().collect();
        assert_eq!(lines(&group(twice)[0]), expected);
    }

    #[test]
    fn the_same_count_in_two_boots_is_two_dumps() {
        let dumps = group(vec![
            part("erst", 10, 1_000, "Panic#1 Part1\nfirst\n"),
            part("erst", 11, 1_000, "Panic#1 Part2\nfirst old\n"),
            part("erst", 90, 9_000, "Panic#1 Part1\nsecond\n"),
            part("erst", 91, 9_001, "Panic#1 Part2\nsecond old\n"),
            // Its first part is lost.
            part("erst", 99, 99_000, "Panic#1 Part3\nthird old\n"),
        ]);
        let texts: Vec<_> = dumps.iter().map(lines).collect();
        assert_eq!(texts[..2], [["first old", "first"], ["second old", "second"]]);
        assert_eq!(texts[2][0], "third old");
        assert_eq!(texts[2][1], "[netconsole-agent: parts 2 to 1 of the dump are missing here]");
        assert_eq!(dumps[2].missing, 2);
    }

    #[test]
    fn dumps_of_one_second_are_not_mixed_up() {
        // Of EFI: time, part, count.
        let dumps = group(vec![
            part("efi", 170_000_000_001_001, 0, "Oops#1 Part1\noops\n"),
            part("efi", 170_000_000_001_002, 0, "Panic#2 Part1\npanic\n"),
            part("efi", 170_000_000_002_001, 0, "Oops#1 Part2\nbefore the oops\n"),
            part("efi", 170_000_000_102_002, 0, "Panic#2 Part2\nbefore the panic\n"),
        ]);
        let texts: Vec<_> = dumps.iter().map(lines).collect();
        assert_eq!(texts, [["before the oops", "oops"], ["before the panic", "panic"]]);
    }

    #[test]
    fn a_gap_is_told_and_costs_no_memory() {
        let dumps = group(vec![
            part("x", 1, 0, "Panic#1 Part1\nnew\n"),
            part("x", 2, 0, "Panic#1 Part3\nold\n"),
            part("x", 3, 0, "Panic#1 Part4294967295\nancient\n"),
        ]);
        let expected = [
            "ancient",
            "[netconsole-agent: parts 4294967294 to 4 of the dump are missing here]",
            "old",
            "[netconsole-agent: part 2 of the dump is missing here]",
            "new",
        ];
        assert_eq!(lines(&dumps[0]), expected);
        assert_eq!(dumps[0].missing, 4_294_967_292);
    }

    #[test]
    fn a_part_without_a_header_is_a_dump_of_its_own() {
        let dumps = group(vec![
            part("nvram", 1, 5, "some text\nmore\n"),
            part("nvram", 2, 4, "older text\n"),
        ]);
        assert_eq!(
            dumps.iter().map(lines).collect::<Vec<_>>(),
            [vec!["older text"], vec!["some text", "more"]]
        );
        assert_eq!(dumps[0].reason, "dmesg");
    }

    #[test]
    fn a_joined_file_makes_the_same_dump() {
        let (old, new) = ("Panic#1 Part2\n<6>one\n<6>two\n", "Panic#1 Part1\n<0>three\n");
        let apart = group(vec![part("erst", 7, 9, new), part("erst", 8, 9, old)]);
        let joined = group(split_joined(format!("{old}{new}").as_bytes(), "8", Some(9)));
        assert_eq!(apart.len(), 1);
        assert_eq!(joined[0].name, apart[0].name);
        assert_eq!(lines(&joined[0]), lines(&apart[0]));
    }
}
