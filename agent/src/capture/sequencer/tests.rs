//! A small kernel that delivers the halves of records in every way it may.

use std::{collections::VecDeque, mem::offset_of, num::NonZeroU32};

use agent_common::{
    FLAG_FINAL, FLAG_LOST, FLAG_PREVIOUS, FLAG_PREVIOUS_OPEN, KIND_HEADER, KIND_TEXT, KIND_WHOLE,
    LAYOUT_VERSION, RecordHead, TEXT_AT_TEXT, TEXT_AT_WHOLE,
};
use proptest::prelude::*;
use rtrb::RingBuffer;

use super::{asking::CROWDED_PATIENCE_NS, *};

mod far;

const BASE: u64 = 4096;

/// A ring in plain memory that checks the reader's manners.
struct TestRing {
    items: VecDeque<(RingItem, Vec<u8>)>,
    ahead: usize,
    end: u64,
    released: u64,
    crowded_bytes: u64,
    is_filling: bool,
}

impl Default for TestRing {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            ahead: 0,
            end: 0,
            released: 0,
            crowded_bytes: u64::MAX,
            is_filling: false,
        }
    }
}

impl TestRing {
    fn push(&mut self, bytes: Vec<u8>) {
        let start = self.end;
        let item = RingItem { start, len_bytes: NonZeroU32::new(bytes.len() as u32).unwrap() };
        self.end = item.end();
        self.items.push_back((item, bytes));
    }
}

impl RecordRing for TestRing {
    fn next(&mut self) -> Option<RingItem> {
        let item = self.items.get(self.ahead)?.0;
        self.ahead += 1;
        Some(item)
    }
    fn pending(&self) -> bool {
        self.ready()
    }
    fn ready(&self) -> bool {
        self.ahead < self.items.len()
    }
    fn is_crowded(&self) -> bool {
        self.end - self.released > self.crowded_bytes
    }
    fn is_filling(&self) -> bool {
        self.is_filling
    }
    fn bytes(&self, item: RingItem) -> &[u8] {
        assert!(item.start >= self.released, "read after release");
        let found = self.items.binary_search_by_key(&item.start, |(known, _)| known.start);
        &self.items[found.expect("an item the ring gave out")].1
    }
    fn release(&mut self, end: u64) {
        while self.items.front().is_some_and(|(item, _)| item.end() <= end) {
            self.items.pop_front();
            self.ahead = self.ahead.checked_sub(1).expect("released before it was read");
        }
        self.released = end;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Record { seq: u64, text: Vec<u8>, cpu: Option<u32>, level: u8, approximated: bool },
    Missing { first_seq: u64, count: u64, reason: MissingReason },
}

/// What came; and how many rounds it has room for, if not for all.
#[derive(Default)]
struct TestSink(Vec<Settled>, Option<usize>);

impl Sink for TestSink {
    fn record(&mut self, record: &Record<'_>) {
        self.0.push(Settled::Record {
            seq: record.seq,
            text: record.text.to_vec(),
            cpu: record.context.map(|context| context.cpu),
            level: record.level,
            approximated: record.approximated,
        });
    }
    fn missing(&mut self, first_seq: u64, count: u64, reason: MissingReason) {
        self.0.push(Settled::Missing { first_seq, count, reason });
    }
    fn has_room(&mut self, rounds: usize) -> bool {
        self.1.is_none_or(|room| rounds <= room)
    }
}

/// As on a 64-bit kernel with 4096 descriptors.
fn id_of(seq: u64) -> u64 {
    seq.wrapping_sub(BASE).wrapping_add(1 << 32) & ID_MASK
}

fn cpu_of(seq: u64) -> u32 {
    (seq % 7) as u32
}

fn head(kind: u8, flags: u8, text_at: usize, seq: u64, cpu: u32, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; text_at];
    bytes[0..2].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
    bytes[2] = kind;
    bytes[3] = flags;
    bytes[4..6].copy_from_slice(&(text_at as u16).to_ne_bytes());
    bytes[6..8].copy_from_slice(&(text.len() as u16).to_ne_bytes());
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(offset_of!(RecordHead, seq), &seq.to_ne_bytes());
    put(offset_of!(RecordHead, ktime_ns), &seq.wrapping_mul(1000).to_ne_bytes());
    put(offset_of!(RecordHead, cpu), &cpu.to_ne_bytes());
    bytes.extend_from_slice(text);
    bytes
}

fn piece(id: u64, seq: u64, text: &[u8]) -> Vec<u8> {
    head(KIND_TEXT, 0, TEXT_AT_TEXT, id, cpu_of(seq), text)
}

/// Makes it one that brings a header, of level 6 and for a text of `len_bytes`.
fn with_header(mut bytes: Vec<u8>, len_bytes: usize) -> Vec<u8> {
    let at = offset_of!(RecordHead, header_text_len_bytes);
    bytes[at..at + 2].copy_from_slice(&(len_bytes as u16).to_ne_bytes());
    bytes[offset_of!(RecordHead, level)] = 6;
    if bytes[2] == KIND_TEXT {
        bytes[3] |= FLAG_PREVIOUS;
    }
    bytes
}

/// A header in an item of its own.
fn header(seq: u64, len_bytes: usize) -> Vec<u8> {
    let id = id_of(seq).to_ne_bytes();
    with_header(head(KIND_HEADER, FLAG_FINAL, TEXT_AT_WHOLE, seq, 0, &id), len_bytes)
}

fn whole(seq: u64, flags: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = head(KIND_WHOLE, flags, TEXT_AT_WHOLE, seq, cpu_of(seq), text);
    bytes[offset_of!(RecordHead, level)] = 6;
    bytes
}

fn kmsg(seq: u64, text: &[u8]) -> KmsgRecord {
    let mut record = KmsgRecord::default();
    (record.seq, record.ts_us, record.level) = (seq, seq, 6);
    record.set_text(text);
    record
}

fn text_of(seq: u64) -> Vec<u8> {
    format!("line number {seq}").into_bytes()
}

/// What happens to one record on its two ways.
#[derive(Clone, Copy, Debug)]
struct Fate {
    ring: bool,
    kmsg: bool,
    pieces: usize,
    /// Which way its header comes.
    header: Header,
    /// Whether the sequencer looks after this record.
    poll: bool,
    /// How far the kmsg half lags, in records.
    lag: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    No,
    WithNextText,
    Apart,
}

impl Fate {
    /// Whether the ring brings all of it; `next` is the record after it.
    fn is_completed(&self, next: Option<&Fate>) -> bool {
        let has_header = match self.header {
            Header::No => false,
            Header::WithNextText => next.is_some_and(|next| next.ring),
            Header::Apart => true,
        };
        self.ring && has_header
    }
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let headers = [Header::No, Header::WithNextText, Header::Apart];
    let fate = (0u8..10, 0u8..10, 1usize..4, 0usize..3, any::<bool>(), 0usize..6).prop_map(
        move |(ring, kmsg, pieces, header, poll, lag)| Fate {
            ring: ring > 0,
            kmsg: kmsg > 1,
            pieces,
            header: headers[header],
            poll,
            lag,
        },
    );
    proptest::collection::vec(fate, 1..200)
}

/// Runs the tracepoint source over the fates; the first record always comes by both ways.
fn run_text(fates: &[Fate]) -> (Vec<Settled>, SequencerCounts) {
    let (mut producer, mut consumer) = RingBuffer::new(1024);
    let mut ring = TestRing::default();
    let mut sink = TestSink::default();
    let first = 1000;
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(first), false);
    let mut now_ns = 1;
    let mut late: VecDeque<(usize, u64)> = VecDeque::new();
    ring.push(header(first - 1, 0));
    for (index, fate) in fates.iter().enumerate() {
        let seq = first + index as u64;
        let text = text_of(seq);
        if fate.ring {
            let cut = text.len() / fate.pieces;
            for part in 0..fate.pieces {
                let end = if part + 1 == fate.pieces { text.len() } else { cut * (part + 1) };
                let id = if part == 0 { id_of(seq) } else { u64::from_ne_bytes(*b"garbage!") };
                let item = piece(id, seq, &text[cut * part..end]);
                let before = index.checked_sub(1).map(|before| fates[before].header);
                ring.push(match (part, before) {
                    (0, Some(Header::WithNextText)) => with_header(item, text_of(seq - 1).len()),
                    _ => item,
                });
            }
            if fate.header == Header::Apart {
                ring.push(header(seq, text.len()));
            }
        }
        if fate.kmsg {
            late.push_back((index + fate.lag, seq));
        }
        while late.front().is_some_and(|(due, _)| *due <= index) {
            let (_, seq) = late.pop_front().unwrap();
            producer.push(kmsg(seq, &text_of(seq))).unwrap();
        }
        if fate.poll {
            sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
        }
        now_ns += 1_000_000;
    }
    for (_, seq) in late {
        producer.push(kmsg(seq, &text_of(seq))).unwrap();
    }
    for _ in 0..4 {
        now_ns += PATIENCE_NS;
        sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    }
    (sink.0, sequencer.counts())
}

proptest! {
    #[test]
    fn each_seq_is_settled_once_and_in_order(mut fates in fates()) {
        fates[0] = Fate { ring: true, kmsg: true, pieces: 1, header: Header::No, poll: true, lag: 0 };
        let (settled, _) = run_text(&fates);
        let is_known = |seq: u64| {
            let at = (seq - 1000) as usize;
            fates[at].kmsg || fates[at].is_completed(fates.get(at + 1))
        };
        let mut next = 1000;
        for entry in &settled {
            match entry {
                Settled::Record { seq, text, cpu, approximated, level } => {
                    prop_assert_eq!(*seq, next);
                    prop_assert_eq!(text, &text_of(*seq));
                    let fate = fates[(*seq - 1000) as usize];
                    prop_assert!(fate.ring || fate.kmsg);
                    prop_assert_eq!(*cpu, fate.ring.then(|| cpu_of(*seq)));
                    // A record whose header came, by whichever way, is never approximated.
                    prop_assert_eq!(*approximated, !is_known(*seq));
                    prop_assert_eq!(*level, if is_known(*seq) { 6 } else { DEFAULT_LEVEL });
                    next += 1;
                }
                Settled::Missing { first_seq, count, .. } => {
                    prop_assert_eq!(*first_seq, next);
                    for seq in next..next + count {
                        let fate = fates[(seq - 1000) as usize];
                        prop_assert!(!fate.ring && !fate.kmsg, "{} was had", seq);
                    }
                    next += count;
                }
            }
        }
        // The newest records may wait for ever, if nothing came after them.
        let end = 1000 + fates.len() as u64;
        for seq in next..end {
            prop_assert!(!is_known(seq), "{} is stuck", seq);
        }
        let lone = (next..end).filter(|seq| fates[(*seq - 1000) as usize].ring).count();
        prop_assert!(lone <= 1, "{} records are stuck", lone);
    }

    #[test]
    fn whole_records_come_out_once_with_their_last_text(
        records in proptest::collection::vec((0u8..12, 1usize..4, any::<bool>()), 1..150),
        swaps in proptest::collection::vec(any::<bool>(), 150),
    ) {
        let (_producer, mut consumer) = RingBuffer::new(1);
        let mut ring = TestRing::default();
        let mut sink = TestSink::default();
        let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
        let mut now_ns = 1;
        let mut delayed = None;
        for (seq, (lost, commits, poll)) in records.iter().enumerate() {
            let seq = seq as u64;
            let mut bytes = Vec::new();
            for commit in 1..=*commits {
                let flags = if commit == *commits { FLAG_FINAL } else { 0 };
                let text = text_of(seq);
                bytes.push(whole(seq, flags, &text[..text.len() * commit / commits]));
            }
            if *lost == 0 {
                continue;
            }
            if swaps[seq as usize] && delayed.is_none() {
                // Another CPU committed its later record first.
                delayed = Some(bytes);
                continue;
            }
            bytes.into_iter().for_each(|bytes| ring.push(bytes));
            if let Some(bytes) = delayed.take() {
                bytes.into_iter().for_each(|bytes| ring.push(bytes));
            }
            if *poll {
                sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
            }
            now_ns += 100_000;
        }
        delayed.into_iter().flatten().for_each(|bytes| ring.push(bytes));
        for _ in 0..4 {
            now_ns += PATIENCE_NS;
            sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
        }
        let mut next = 0;
        for entry in &sink.0 {
            match entry {
                Settled::Record { seq, text, cpu, .. } => {
                    prop_assert_eq!(*seq, next);
                    prop_assert_eq!(text, &text_of(*seq));
                    prop_assert_eq!(*cpu, Some(cpu_of(*seq)));
                    next += 1;
                }
                Settled::Missing { first_seq, count, .. } => {
                    prop_assert_eq!(*first_seq, next);
                    for seq in next..next + count {
                        prop_assert_eq!(records[seq as usize].0, 0);
                    }
                    next += count;
                }
            }
        }
        for seq in next..records.len() as u64 {
            prop_assert_eq!(records[seq as usize].0, 0, "{} is stuck", seq);
        }
    }
}

#[test]
fn a_continuation_that_is_taken_for_another_records_costs_no_context() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(5), false);
    // CPU A begins 5, CPU B prints 6, and only then A's next piece is seen.
    ring.push(piece(id_of(5), 5, b"begun, "));
    ring.push(piece(id_of(6), 6, b"in between"));
    ring.push(piece(u64::from_ne_bytes(*b"garbage!"), 5, b"and ended"));
    producer.push(kmsg(5, b"begun, and ended")).unwrap();
    producer.push(kmsg(6, b"in between")).unwrap();
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    let record = |seq: u64, text: &[u8]| Settled::Record {
        seq,
        text: text.to_vec(),
        cpu: Some(cpu_of(seq)),
        level: 6,
        approximated: false,
    };
    assert_eq!(sink.0, [record(5, b"begun, and ended"), record(6, b"in between")]);
    assert_eq!(sequencer.counts(), SequencerCounts::default());
}

#[test]
fn a_header_that_does_not_fit_the_text_is_not_taken() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(5), false);
    ring.push(header(4, 0));
    // The rest of 5 found no room in the ring.
    ring.push(piece(id_of(5), 5, b"begun, "));
    ring.push(with_header(piece(id_of(6), 6, b"whole"), 16));
    ring.push(with_header(piece(id_of(7), 7, b"next"), 5));
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    assert_eq!(sink.0, []);
    producer.push(kmsg(5, b"begun, and ended")).unwrap();
    sequencer.poll(2, &mut ring, &mut consumer, &mut sink);
    let texts: Vec<_> = sink
        .0
        .iter()
        .map(|settled| match settled {
            Settled::Record { text, level: 6, approximated: false, .. } => text.as_slice(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, [&b"begun, and ended"[..], b"whole"]);
    assert_eq!(sequencer.counts().completed, 1);
}

#[test]
fn a_header_is_trusted_once_one_has_told_what_ids_are() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(4096), false);
    for seq in 4096..4099 {
        let text = text_of(seq);
        ring.push(with_header(piece(id_of(seq), seq, &text), text_of(seq - 1).len()));
    }
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    assert_eq!(
        (sequencer.id_base(), sink.0.len()),
        (Some(BASE.wrapping_sub(1 << 32) & ID_MASK), 0)
    );
    for seq in 4096..4099 {
        producer.push(kmsg(seq, &text_of(seq))).unwrap();
    }
    sequencer.poll(2, &mut ring, &mut consumer, &mut sink);
    assert_eq!((sequencer.counts().completed, sink.0.len()), (0, 3), "only what was joined");

    // Told apart, with its device, and from then on with the next text.
    let mut told = header(4099, text_of(4099).len());
    told[TEXT_AT_TEXT..TEXT_AT_TEXT + 3].copy_from_slice(b"pci");
    told[TEXT_AT_TEXT + 16..TEXT_AT_TEXT + 21].copy_from_slice(b"+pci:");
    ring.push(piece(id_of(4099), 4099, &text_of(4099)));
    ring.push(told);
    for seq in 4100..4103 {
        ring.push(with_header(piece(id_of(seq), seq, &text_of(seq)), text_of(seq - 1).len()));
    }
    sequencer.poll(3, &mut ring, &mut consumer, &mut sink);
    assert_eq!((sequencer.counts().completed, sequencer.next_seq()), (3, 4102));
}

#[test]
fn what_was_logged_before_the_start_is_dev_kmsgs_even_with_a_header() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let begin = Begin { first_seq: 3, attached_seq: 5, live_seq: 7 };
    let mut sequencer = Sequencer::new(RingContent::Text, begin, false);
    ring.push(header(4, 0));
    for seq in 5..9 {
        ring.push(with_header(piece(id_of(seq), seq, &text_of(seq)), text_of(seq - 1).len()));
    }
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    assert_eq!(sink.0, []);
    for seq in 3..9 {
        producer.push(kmsg(seq, &text_of(seq))).unwrap();
    }
    sequencer.poll(2, &mut ring, &mut consumer, &mut sink);
    assert_eq!(sink.0.len(), 6);
    let counts = sequencer.counts();
    assert_eq!((counts.replayed, counts.completed, counts.approximated), (4, 1, 0));
}

#[test]
fn a_record_without_newline_waits_until_a_later_one_exists() {
    let (_producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(5), false);
    ring.push(whole(5, 0, b"no newline"));
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    sequencer.poll(10 * PATIENCE_NS, &mut ring, &mut consumer, &mut sink);
    assert!(sink.0.is_empty());
    ring.push(whole(5, 0, b"no newline, but more"));
    ring.push(whole(6, FLAG_FINAL, b"next"));
    let now_ns = 20 * PATIENCE_NS;
    let progress = sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    let deadline_ns = progress.deadline_ns.expect("it comes back soon");
    sequencer.poll(deadline_ns, &mut ring, &mut consumer, &mut sink);
    let texts: Vec<_> = sink
        .0
        .iter()
        .map(|entry| match entry {
            Settled::Record { text, .. } => text.as_slice(),
            Settled::Missing { .. } => panic!("nothing is missing"),
        })
        .collect();
    assert_eq!(texts, [&b"no newline, but more"[..], b"next"]);
}

/// The next record tells that this one is being written again: its last commit is waited for, for as
/// long as anything is, but not while the ring is full.
#[test]
fn a_commit_that_is_due_is_waited_for() {
    let open = FLAG_FINAL | FLAG_PREVIOUS_OPEN;
    for (comes_after_ns, text) in
        [(Some(PATIENCE_NS - 1), &b"sys rq"[..]), (None, b"sys"), (Some(PATIENCE_NS), b"sys")]
    {
        let (_, mut consumer) = RingBuffer::new(64);
        let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
        let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
        ring.push(whole(0, 0, b"sys"));
        ring.push(whole(1, open, b"other"));
        let progress = sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
        assert_eq!((progress.settled, progress.deadline_ns), (0, Some(1 + PATIENCE_NS)));
        if let Some(after_ns) = comes_after_ns {
            sequencer.poll(after_ns, &mut ring, &mut consumer, &mut sink);
            assert_eq!(sequencer.next_seq(), 0);
            if after_ns == PATIENCE_NS {
                sequencer.poll(after_ns + 1, &mut ring, &mut consumer, &mut sink);
            }
            ring.push(whole(0, 0, b"sys rq"));
            sequencer.poll(after_ns + 1, &mut ring, &mut consumer, &mut sink);
        } else {
            ring.crowded_bytes = 0;
            sequencer.poll(1 + REOPEN_GRACE_NS, &mut ring, &mut consumer, &mut sink);
        }
        assert_eq!(sequencer.next_seq(), 2);
        assert!(
            matches!(&sink.0[0], Settled::Record { seq: 0, text: settled, .. } if settled == text)
        );
        sequencer.poll(PATIENCE_NS + 2, &mut ring, &mut consumer, &mut sink);
        assert_eq!((sink.0.len(), ring.released), (2, ring.end));
    }
}

#[test]
fn the_kmsg_source_tells_what_the_kernel_overwrote() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let mut sink = TestSink::default();
    let mut sequencer = Sequencer::new(RingContent::Nothing, Begin::at(5), false);
    producer.push(kmsg(5, b"a")).unwrap();
    producer.push(kmsg(1 << 40, b"b")).unwrap();
    sequencer.poll(1, &mut None::<TestRing>, &mut consumer, &mut sink);
    assert!(matches!(sink.0[0], Settled::Record { seq: 5, cpu: None, .. }));
    assert_eq!(
        sink.0[1],
        Settled::Missing {
            first_seq: 6,
            count: (1 << 40) - 6,
            reason: MissingReason::KernelOverwrote
        }
    );
    assert!(matches!(sink.0[2], Settled::Record { seq, .. } if seq == 1 << 40));
}

#[test]
fn a_wrong_relation_of_ids_is_found_out_and_learned_anew() {
    let (mut producer, mut consumer) = RingBuffer::new(256);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(100), false);
    // All alike, so the first match may be wrong.
    sequencer.id_base = Some((BASE * 2).wrapping_sub(1 << 32) & ID_MASK);
    for seq in 100..200u64 {
        ring.push(piece(id_of(seq), seq, &text_of(seq)));
        // The wrong base makes these ids name seqs 4096 ahead.
        producer.push(kmsg(seq, &text_of(seq))).unwrap();
        sequencer.poll(seq, &mut ring, &mut consumer, &mut sink);
    }
    assert_eq!(sink.0.len(), 100);
    assert!(
        sink.0.iter().all(|entry| matches!(entry, Settled::Record { approximated: false, .. }))
    );
}

#[test]
fn a_gap_wider_than_the_window_is_told_lost() {
    let (_producer, mut consumer) = RingBuffer::<KmsgRecord>::new(1);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
    ring.push(whole(0, FLAG_FINAL, b"before"));
    for seq in 40_001..40_010 {
        ring.push(whole(seq, FLAG_FINAL, b"after"));
    }
    for round in 0..20 {
        sequencer.poll(round * PATIENCE_NS, &mut ring, &mut consumer, &mut sink);
    }
    assert_eq!(sequencer.next_seq(), 40_010);
    let lost = Settled::Missing { first_seq: 1, count: 40_000, reason: MissingReason::NotCaptured };
    assert_eq!(sink.0[1], lost);
}

#[test]
fn a_stale_kmsg_half_does_not_keep_the_pump_awake() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(5), false);
    ring.push(whole(5, FLAG_FINAL, b"first"));
    ring.push(whole(6, 0, b"no newline"));
    producer.push(kmsg(5, b"first")).unwrap();
    let progress = sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    assert_eq!((progress.deadline_ns, progress.kmsg_waiting), (None, 0));
    assert!(consumer.is_empty());
}

/// A storm of equal lines was under way when the agent started.
#[test]
fn equal_lines_do_not_mislead_the_learning() {
    let (mut producer, mut consumer) = RingBuffer::new(1024);
    for attached_seq in [990, 40_000] {
        let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
        let mut sequencer = Sequencer::new(
            RingContent::Text,
            Begin { attached_seq, ..Begin::at(10_000 + attached_seq) },
            false,
        );
        let first = attached_seq + 10_003;
        for seq in first..first + 9000 {
            ring.push(piece(id_of(seq), seq, b"the same line"));
        }
        // /dev/kmsg has lost nearly all of them.
        for seq in first + 8500..first + 9000 {
            producer.push(kmsg(seq, b"the same line")).unwrap();
        }
        for round in 0..4 {
            sequencer.poll(1 + round * PATIENCE_NS, &mut ring, &mut consumer, &mut sink);
        }
        let mut next = 10_000 + attached_seq;
        for entry in &sink.0 {
            match entry {
                Settled::Record { seq, .. } => {
                    assert_eq!(*seq, next);
                    next += 1;
                }
                Settled::Missing { first_seq, count, .. } => {
                    assert_eq!(*first_seq, next);
                    next += count;
                }
            }
        }
        assert_eq!(next, first + 9000, "nothing is told that does not exist");
    }
}

#[test]
fn unplaced_items_do_not_hold_the_ring_for_ever() {
    let (mut producer, mut consumer) = RingBuffer::new(1024);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(1000), false);
    for seq in 0..200 {
        ring.push(piece(id_of(seq), seq, &text_of(seq)));
    }
    for seq in 1000..9000u64 {
        producer.push(kmsg(seq, &text_of(seq))).unwrap();
        sequencer.poll(seq * 1_000_000, &mut ring, &mut consumer, &mut sink);
    }
    assert_eq!(ring.released, ring.end);
}

#[test]
fn a_crowded_ring_is_not_held_for_a_missing_record() {
    let (_producer, mut consumer) = RingBuffer::<KmsgRecord>::new(1);
    let mut ring = TestRing { crowded_bytes: 4 << 20, ..TestRing::default() };
    let mut sink = TestSink::default();
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
    for seq in 1..7000 {
        ring.push(whole(seq, FLAG_FINAL, &[b'x'; 1000]));
    }
    let mut now_ns = 1;
    sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    assert_eq!(sequencer.next_seq(), 0, "/dev/kmsg is asked first");
    let mut before = 0;
    for wait_ns in [REOPEN_GRACE_NS, CROWDED_PATIENCE_NS] {
        now_ns += wait_ns;
        while sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink).more {
            assert!(sink.0.len() - before <= ROUND_ENTRIES, "the targets have their turn");
            before = sink.0.len();
        }
    }
    assert_eq!((sequencer.next_seq(), ring.released), (7000, ring.end));
}

/// The ring has left out 3 to 5 and 8: /dev/kmsg is asked, and has some of them.
#[test]
fn gaps_of_the_commit_source_are_filled() {
    let (mut producer, mut consumer) = RingBuffer::new(64);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
    for seq in [0, 1, 2, 6, 7, 9, 10] {
        ring.push(whole(seq, FLAG_FINAL, &text_of(seq)));
    }
    let mut now_ns = 1;
    let progress = sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    assert_eq!((sequencer.next_seq(), progress.wanted), (3, None), "it may still be committed");
    now_ns = progress.deadline_ns.unwrap();
    let progress = sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    assert_eq!(progress.wanted, Some(3..6));
    // The kernel has overwritten 3.
    (4..=6).for_each(|seq| producer.push(kmsg(seq, &text_of(seq))).unwrap());
    now_ns += 1;
    let progress = sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
    assert_eq!((sequencer.next_seq(), progress.wanted), (8, Some(8..9)));
    // Nobody answers any more.
    let deadline_ns = progress.deadline_ns.unwrap();
    assert_eq!(deadline_ns, now_ns + PATIENCE_NS);
    sequencer.poll(deadline_ns, &mut ring, &mut consumer, &mut sink);
    assert_eq!(sequencer.next_seq(), 11);
    let missing: Vec<_> =
        sink.0.iter().filter(|entry| matches!(entry, Settled::Missing { .. })).collect();
    let lost = |first_seq, reason| Settled::Missing { first_seq, count: 1, reason };
    let expected = [lost(3, MissingReason::KernelOverwrote), lost(8, MissingReason::NotCaptured)];
    assert_eq!(missing, expected.iter().collect::<Vec<_>>());
    assert_eq!(sequencer.counts().backfilled, 2);
    let from_kmsg: Vec<u64> = sink
        .0
        .iter()
        .filter_map(|entry| match entry {
            Settled::Record { seq, cpu: None, .. } => Some(*seq),
            _ => None,
        })
        .collect();
    assert_eq!(from_kmsg, [4, 5]);
}

/// 100 to 109 were logged before the start, 110 and 111 while the programs were being attached.
#[test]
fn a_replay_goes_over_into_live_without_gap_or_double() {
    for content in [RingContent::Whole, RingContent::Text, RingContent::Nothing] {
        let (mut producer, mut consumer) = RingBuffer::new(64);
        let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
        let begin = Begin { first_seq: 100, attached_seq: 110, live_seq: 112 };
        let mut sequencer = Sequencer::new(content, begin, false);
        // Live records are there long before the replay is read.
        for seq in 111..120 {
            match content {
                RingContent::Whole => ring.push(whole(seq, FLAG_FINAL, &text_of(seq))),
                RingContent::Text => ring.push(piece(id_of(seq), seq, &text_of(seq))),
                RingContent::Nothing => {}
            }
        }
        let mut now_ns = 1;
        for _ in 0..10 {
            now_ns += PATIENCE_NS;
            let progress = sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
            assert_eq!((sequencer.next_seq(), progress.wanted), (100, None), "no haste");
        }
        // 100 and 101 were overwritten since.
        for seq in 102..120 {
            producer.push(kmsg(seq, &text_of(seq))).unwrap();
            now_ns += 1000;
            sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
        }
        for _ in 0..4 {
            now_ns += PATIENCE_NS;
            sequencer.poll(now_ns, &mut ring, &mut consumer, &mut sink);
        }
        let reason = MissingReason::KernelOverwrote;
        assert_eq!(sink.0[0], Settled::Missing { first_seq: 100, count: 2, reason });
        let seqs: Vec<u64> = sink.0[1..]
            .iter()
            .map(|entry| match entry {
                Settled::Record { seq, text, approximated, .. } => {
                    assert_eq!((text, *approximated), (&text_of(*seq), false));
                    *seq
                }
                missing => panic!("{content:?} {missing:?}"),
            })
            .collect();
        assert_eq!(seqs, (102..120).collect::<Vec<_>>(), "{content:?}");
        let counts = sequencer.counts();
        let in_between = if content == RingContent::Whole { 1 } else { 0 };
        assert_eq!((counts.replayed, counts.backfilled), (10 - in_between, 0), "{content:?}");
    }
}

#[test]
fn a_record_that_the_kernel_lost_is_told_missing() {
    let (_producer, mut consumer) = RingBuffer::<KmsgRecord>::new(1);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(7), false);
    ring.push(whole(7, FLAG_FINAL | FLAG_LOST, b""));
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    let lost = Settled::Missing { first_seq: 7, count: 1, reason: MissingReason::KernelOverwrote };
    assert_eq!(sink.0, [lost]);
}

/// The last stage of 5 found no room in the ring; 6 is left out, so /dev/kmsg is read.
#[test]
fn a_stage_of_a_record_is_not_taken_for_the_whole_where_dev_kmsg_has_that() {
    let (mut producer, mut consumer) = RingBuffer::new(8);
    let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(5), false);
    ring.push(whole(5, 0, b"begun"));
    ring.push(whole(7, FLAG_FINAL, b"seven"));
    producer.push(kmsg(5, b"begun, and ended")).unwrap();
    producer.push(kmsg(6, b"six")).unwrap();
    sequencer.poll(1, &mut ring, &mut consumer, &mut sink);
    let record = |seq: u64, text: &[u8], cpu| Settled::Record {
        seq,
        text: text.to_vec(),
        cpu,
        level: 6,
        approximated: false,
    };
    let five = record(5, b"begun, and ended", Some(cpu_of(5)));
    assert_eq!(sink.0, [five, record(6, b"six", None), record(7, b"seven", Some(cpu_of(7)))]);
    let counts = sequencer.counts();
    assert_eq!((counts.backfilled, counts.mismatched), (1, 0), "{counts:?}");
}

#[test]
fn a_ring_that_fills_up_is_emptied_at_once() {
    let (_producer, mut consumer) = RingBuffer::<KmsgRecord>::new(1);
    let mut ring = TestRing { is_filling: true, ..TestRing::default() };
    let mut sink = TestSink::default();
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
    (0..7000).for_each(|seq| ring.push(whole(seq, FLAG_FINAL, b"x")));
    assert!(!sequencer.poll(1, &mut ring, &mut consumer, &mut sink).more);
    assert_eq!((sequencer.next_seq(), ring.released), (7000, ring.end));
}

#[test]
fn a_ring_that_fills_up_is_emptied_in_rounds_if_room_must_be_made_for_each() {
    let (_producer, mut consumer) = RingBuffer::<KmsgRecord>::new(1);
    let mut ring = TestRing { is_filling: true, ..TestRing::default() };
    let mut sink = TestSink(Vec::new(), Some(1));
    let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(0), false);
    (0..7000).for_each(|seq| ring.push(whole(seq, FLAG_FINAL, b"x")));
    let mut rounds = 1;
    while sequencer.poll(1, &mut ring, &mut consumer, &mut sink).more {
        assert_eq!(sink.0.len(), rounds * ROUND_ENTRIES);
        rounds += 1;
    }
    assert_eq!((sequencer.next_seq(), rounds), (7000, 7000usize.div_ceil(ROUND_ENTRIES)));
}
