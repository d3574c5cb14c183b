use std::sync::atomic::AtomicBool;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::Caller;

fn record(text: &[u8]) -> Record<'_> {
    Record {
        seq: 1,
        ts_ns: 6_060_197_999,
        facility: 0,
        level: 4,
        cont: false,
        caller: None,
        text,
        subsystem: b"",
        device: b"",
        context: None,
        approximated: false,
        backfilled: false,
    }
}

fn tail_of(ring: &TextRing, buffer_bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0xff; buffer_bytes];
    ring.reader().tail(&mut buffer).to_vec()
}

fn after(records: &[Record<'_>]) -> String {
    let mut ring = TextRing::new(SIZE_MIN_BYTES);
    for record in records {
        ring.append(record);
    }
    String::from_utf8(tail_of(&ring, SIZE_MIN_BYTES)).expect("UTF-8")
}

#[test]
fn records_look_as_syslog_shows_them() {
    assert_eq!(after(&[]), "");
    assert_eq!(after(&[record(b"hello")]), "<4>[    6.060197] hello\n");
    assert_eq!(after(&[record(b"")]), "<4>[    6.060197] \n");
    let user = Record { facility: 1, level: 5, ts_ns: 1_234_567_000_001_000, ..record(b"x") };
    assert_eq!(after(&[user]), "<13>[1234567.000001] x\n");
    let longest = Record {
        facility: 255,
        level: 7,
        ts_ns: u64::MAX,
        caller: Some(Caller::Task(u32::MAX)),
        ..record(b"x")
    };
    assert_eq!(after(&[longest]), "<2047>[18446744073.709551][T4294967295] x\n");
    let cpu = Record { caller: Some(Caller::Cpu(1)), ..record(b"tick") };
    assert_eq!(after(&[cpu]), "<4>[    6.060197][    C1] tick\n");
    assert_eq!(
        after(&[record(b"a\tb\x1b\xc3\xa9"), record(b"next")]),
        "<4>[    6.060197] a\tb\x1b\u{e9}\n<4>[    6.060197] next\n"
    );
}

#[test]
fn each_line_of_a_text_has_the_prefix() {
    assert_eq!(after(&[record(b"a\nb")]), "<4>[    6.060197] a\n<4>[    6.060197] b\n");
    assert_eq!(
        after(&[record(b"\na\n")]),
        "<4>[    6.060197] \n<4>[    6.060197] a\n<4>[    6.060197] \n"
    );
}

#[test]
fn the_size_is_a_power_of_two_within_bounds() {
    for (asked, got) in [
        (0, SIZE_MIN_BYTES),
        (4097, 8192),
        (65_536, 65_536),
        (TEXT_MAX_BYTES + 1, TEXT_MAX_BYTES),
        (usize::MAX, TEXT_MAX_BYTES),
    ] {
        assert_eq!(TextRing::new(asked).size_bytes(), got);
    }
}

#[test]
fn a_small_buffer_has_whole_lines() {
    let mut ring = TextRing::new(SIZE_MIN_BYTES);
    for text in [b"first", b"secnd", b"third"] {
        ring.append(&record(text));
    }
    let line = "<4>[    6.060197] first\n".len();
    let third = b"<4>[    6.060197] third\n";
    assert_eq!(tail_of(&ring, 3 * line).len(), 3 * line);
    assert_eq!(tail_of(&ring, 3 * line - 1).len(), 2 * line);
    // Two lines exactly: the first of them is whole.
    assert_eq!(tail_of(&ring, 2 * line).len(), 2 * line);
    assert_eq!(tail_of(&ring, 2 * line - 1), third);
    assert_eq!(tail_of(&ring, line), third);
    // Not even one: its end.
    assert_eq!(tail_of(&ring, 6), b"third\n");
    assert_eq!(tail_of(&ring, 0), b"");
}

#[test]
fn a_record_longer_than_the_ring_leaves_its_end() {
    let mut ring = TextRing::new(SIZE_MIN_BYTES);
    let mut text = vec![b'x'; 3 * SIZE_MIN_BYTES];
    ring.append(&record(&text));
    let tail = tail_of(&ring, SIZE_MIN_BYTES);
    // The word that the next line begins in is no longer whole.
    assert!(tail.len() > SIZE_MIN_BYTES - WORD_BYTES, "{}", tail.len());
    assert!(tail.ends_with(b"xxx\n"));
    text.fill(b'\n');
    ring.append(&record(&text));
    let tail = tail_of(&ring, SIZE_MIN_BYTES);
    assert!(tail.starts_with(b"<4>[    6.060197] \n<4>"));
    assert!(tail.ends_with(b"\n<4>[    6.060197] \n"));
}

proptest! {
    #[test]
    fn the_tail_is_the_end_of_all_that_was_written(
        texts in vec(vec(any::<u8>(), 0..300), 0..60),
        buffer_bytes in 0..SIZE_MIN_BYTES + 100,
    ) {
        let mut ring = TextRing::new(SIZE_MIN_BYTES);
        let mut all = Vec::new();
        for text in &texts {
            ring.append(&record(text));
            for line in text.split(|&byte| byte == b'\n') {
                all.extend(b"<4>[    6.060197] ");
                all.extend(line);
                all.push(b'\n');
            }
        }
        let tail = tail_of(&ring, buffer_bytes);
        prop_assert!(all.ends_with(&tail));
        // No more is left out than the line that did not fit, and the word after the end.
        let room = buffer_bytes.min(SIZE_MIN_BYTES - WORD_BYTES).min(all.len());
        let begins_line = |len: usize| len == all.len() || all[all.len() - len - 1] == b'\n';
        let whole = (1..=room).rev().find(|&len| begins_line(len)).unwrap_or(room);
        prop_assert!(tail.len() >= whole, "{} of {whole}", tail.len());
        prop_assert!(begins_line(tail.len()) || whole == room);
    }
}

/// Lines that say which one they are, twice, so that a torn one is seen.
fn numbered(number: u64, text: &mut Vec<u8>) {
    use std::io::Write as _;
    text.clear();
    let padding = "-".repeat(number as usize % 90);
    write!(text, "{number} {padding} {number}").expect("written");
}

#[test]
fn readers_that_are_overtaken_see_whole_lines_in_order() {
    let mut ring = TextRing::new(SIZE_MIN_BYTES);
    let stop = AtomicBool::new(false);
    let first = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let readers: Vec<_> = [SIZE_MIN_BYTES, 1000]
            .map(|buffer_bytes| {
                let (reader, stop, first) = (ring.reader(), &stop, &first);
                scope.spawn(move || {
                    let mut buffer = vec![0; buffer_bytes];
                    first.wait();
                    let (mut lines, mut newest) = (0_u64, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let tail = reader.tail(&mut buffer);
                        // All that was left of what it was overtaken in may be the end of a line.
                        let is_cut = !tail.starts_with(b"<")
                            && memchr::memchr_iter(b'\n', tail).count() == 1;
                        let tail = if is_cut { &[] } else { tail };
                        let mut last = None;
                        for line in tail.split_inclusive(|&byte| byte == b'\n') {
                            let line = std::str::from_utf8(line).expect("UTF-8");
                            let text = line.strip_prefix("<4>[    6.060197] ").expect(line);
                            let text = text.strip_suffix('\n').expect("a whole line");
                            let mut words = text.split(' ');
                            let number: u64 = words.next().expect(line).parse().expect(line);
                            let mut expected = Vec::new();
                            numbered(number, &mut expected);
                            assert_eq!(text.as_bytes(), expected);
                            assert!(last.is_none_or(|last| last + 1 == number), "{line}");
                            last = Some(number);
                            lines += 1;
                        }
                        let last = last.unwrap_or(newest);
                        assert!(last >= newest, "it went back");
                        newest = last;
                    }
                    lines
                })
            })
            .into_iter()
            .collect();
        let mut text = Vec::with_capacity(200);
        first.wait();
        let begin = std::time::Instant::now();
        let mut number = 0;
        while begin.elapsed() < std::time::Duration::from_millis(700) {
            // Bursts, as the log has them: readers get a moment in between.
            for _ in 0..2000 {
                numbered(number, &mut text);
                ring.append(&record(&text));
                number += 1;
            }
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("a reader") > 0);
        }
    });
}
