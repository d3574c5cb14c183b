//! The store against a model that knows every entry ever made: what is read, what is told, and
//! the order in which things go.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::record::{Caller, Context, TEXT_MAX_BYTES};

const FIRST_SEQ: u64 = 100;

fn record<'a>(seq: u64, level: u8, text: &'a [u8]) -> Record<'a> {
    let context =
        Context { cpu: 1, pid: 2, task: b"kworker/3:1", cgroup_id: 9, cgroup: b"nginx.service" };
    Record {
        seq,
        ts_ns: seq * 7,
        facility: (seq % 200) as u8,
        level,
        cont: seq.is_multiple_of(3),
        caller: match seq % 3 {
            0 => None,
            1 => Some(Caller::Task(7)),
            _ => Some(Caller::Cpu(3)),
        },
        text,
        subsystem: if seq.is_multiple_of(2) { b"pci" } else { b"" },
        device: b"+pci:0000:00:03.0",
        context: seq.is_multiple_of(2).then_some(context),
        approximated: seq.is_multiple_of(5),
        backfilled: false,
    }
}

fn text(seq: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (seq + n) as u8).collect()
}

/// What a seq was when it came.
#[derive(Clone, Copy, Debug)]
enum Came {
    Record { level: u8, len: usize },
    Missing { first_seq: u64, count: u64, reason: MissingReason },
}

impl Came {
    fn class(self) -> usize {
        match self {
            Self::Record { level: 0..=3, .. } | Self::Missing { .. } => 0,
            Self::Record { level, .. } => usize::from(level) - 3,
        }
    }
}

struct Reader {
    cursor: Cursor,
    seq: u64,
    read: u64,
    fell_off: u64,
}

/// A store, and the truth.
struct World {
    store: Store,
    /// By first seq.
    came: BTreeMap<u64, Came>,
    readers: Vec<Reader>,
    /// What was there when it was looked at last, by first seq.
    there: BTreeSet<u64>,
    places: Vec<Place>,
    needed_seq: u64,
}

impl World {
    fn new(readers: usize) -> Self {
        let store = Store::new(1, FIRST_SEQ);
        let reader =
            || Reader { cursor: store.cursor_at_end(), seq: FIRST_SEQ, read: 0, fell_off: 0 };
        let readers = (0..readers).map(|_| reader()).collect();
        let (came, there) = Default::default();
        Self { store, came, readers, there, places: vec![], needed_seq: 0 }
    }

    fn record(&mut self, level: u8, len: usize) {
        let seq = self.store.next_seq();
        self.come(Came::Record { level, len }, |store| {
            store.record(&record(seq, level, &text(seq, len)));
        });
    }

    fn missing(&mut self, count: u64, reason: MissingReason) {
        let first_seq = self.store.next_seq();
        self.come(Came::Missing { first_seq, count, reason }, |store| {
            store.missing(first_seq, count, reason);
        });
    }

    fn come(&mut self, came: Came, store: impl FnOnce(&mut Store)) {
        let seq = self.store.next_seq();
        let free = self.store.pool.free();
        self.came.insert(seq, came);
        store(&mut self.store);
        self.there.insert(seq);
        // Looking at everything takes long. What went here although there was room, the look at
        // the end of the round finds too.
        if free == 0 {
            self.check_what_went(false);
        }
    }

    fn read(&mut self, reader: usize, most: usize) -> usize {
        let Self { store, came, readers, places, .. } = self;
        let reader = &mut readers[reader];
        for count in 0..most {
            assert_eq!(reader.cursor.seq(), reader.seq);
            let Some(entry) = store.get(&mut reader.cursor) else {
                assert_eq!(reader.seq, store.next_seq());
                return count;
            };
            let (first_seq, expected) = came.range(..=reader.seq).next_back().unwrap();
            match (entry, *expected) {
                (Entry::Record(found, place), Came::Record { level, len }) => {
                    assert_eq!(found, record(reader.seq, level, &text(reader.seq, len)));
                    assert_eq!((*first_seq, place.seq()), (reader.seq, reader.seq));
                    places.push(place);
                    (reader.seq, reader.read) = (reader.seq + 1, reader.read + 1);
                }
                (
                    Entry::Missing { count: rest, reason: why },
                    Came::Missing { first_seq, count, reason },
                ) => {
                    assert_eq!((reader.seq + rest, why), (first_seq + count, reason));
                    reader.seq += rest;
                }
                (Entry::FellOff { count }, _) => {
                    assert!(count > 0);
                    reader.seq += count;
                    reader.fell_off += count;
                    assert!(
                        reader.seq == store.next_seq() || came.contains_key(&reader.seq),
                        "half an entry fell off"
                    );
                }
                (found, expected) => panic!("{found:?} for {expected:?}"),
            }
            store.advance(&mut reader.cursor);
        }
        most
    }

    fn round_over(&mut self) {
        self.needed_seq = self.readers.iter().map(|reader| reader.seq).min().unwrap();
        self.store.round_over(self.needed_seq);
        self.check_what_went(true);
    }

    /// First seqs of all entries, which are what they were when they came.
    fn contents(&self) -> BTreeSet<u64> {
        let mut cursor = self.store.cursor_at(0);
        let mut there = BTreeSet::new();
        while let Some(entry) = self.store.get(&mut cursor) {
            if !matches!(entry, Entry::FellOff { .. }) {
                there.insert(cursor.seq());
            }
            self.store.advance(&mut cursor);
        }
        there
    }

    /// Of what went, everybody had read it, or nothing less severe is left; nor is anything
    /// older of its class. Between rounds the newest entry is being made.
    fn check_what_went(&mut self, between_rounds: bool) {
        let there = self.contents();
        let newest = self.came.keys().next_back().copied();
        let mut oldest = [u64::MAX; CLASSES];
        for seq in there.iter().rev().filter(|seq| between_rounds || Some(**seq) != newest) {
            oldest[self.came[seq].class()] = *seq;
        }
        for seq in self.there.difference(&there) {
            let came = self.came[seq];
            let end_seq = match came {
                Came::Record { .. } => seq + 1,
                Came::Missing { first_seq, count, .. } => first_seq + count,
            };
            if end_seq <= self.needed_seq {
                continue;
            }
            let class = came.class();
            assert!(oldest[class] > *seq, "{seq} went before {}", oldest[class]);
            let less_severe = oldest[class + 1..].iter().min().unwrap_or(&u64::MAX);
            assert_eq!(*less_severe, u64::MAX, "{seq} {came:?} went before it");
        }
        assert!(there.is_subset(&self.there));
        self.there = there;
    }

    /// A place is its record as long as that is in the store.
    fn check_places(&self) {
        for place in &self.places {
            let Came::Record { level, len } = self.came[&place.seq()] else { panic!() };
            match self.store.at(place) {
                None => assert!(!self.there.contains(&place.seq())),
                Some(found) => {
                    assert!(self.there.contains(&place.seq()));
                    assert_eq!(found, record(place.seq(), level, &text(place.seq(), len)));
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many of one level.
    Records {
        level: u8,
        len: usize,
        count: usize,
    },
    Missing(u64, bool),
    Read(usize, usize),
    RoundOver,
}

fn ops() -> impl Strategy<Value = Op> {
    let len = prop_oneof![Just(40), 0..=TEXT_MAX_BYTES, Just(TEXT_MAX_BYTES)];
    prop_oneof![
        8 => (0u8..8, len, prop_oneof![Just(1), 1usize..30])
            .prop_map(|(level, len, count)| Op::Records { level, len, count }),
        1 => (1u64..40, any::<bool>()).prop_map(|(count, kernel)| Op::Missing(count, kernel)),
        3 => (0usize..3, 0usize..200).prop_map(|(reader, most)| Op::Read(reader, most)),
        3 => Just(Op::RoundOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// Three readers of any speed: each seq is read, told missing or told fallen off, once and in
    /// order; what goes, goes in its order; places stay true.
    #[test]
    fn each_seq_is_told_once_and_the_least_severe_goes_first(
        ops in proptest::collection::vec(ops(), 1..150),
        begin in 0u64..300,
    ) {
        let mut world = World::new(3);
        for op in &ops {
            match *op {
                Op::Records { level, len, count } => {
                    (0..count).for_each(|_| world.record(level, len));
                }
                Op::Missing(count, kernel) => world.missing(
                    count,
                    if kernel { MissingReason::KernelOverwrote } else { MissingReason::NotCaptured },
                ),
                Op::Read(reader, most) => {
                    world.read(reader, most);
                }
                Op::RoundOver => world.round_over(),
            }
        }
        world.check_places();
        // One more begins in the middle.
        let seq = (FIRST_SEQ + begin).min(world.store.next_seq());
        let cursor = world.store.cursor_at(seq);
        world.readers.push(Reader { cursor, seq, read: 0, fell_off: 0 });
        for reader in 0..4 {
            world.read(reader, usize::MAX);
        }
    }

    /// Another one is stuck, and the store overflows: who reads all in each round misses nothing,
    /// and what the other one loses is the least severe there was.
    #[test]
    fn who_keeps_up_loses_nothing(
        rounds in proptest::collection::vec((0u8..8, 0..=TEXT_MAX_BYTES, 1usize..6), 50..400),
    ) {
        let mut world = World::new(2);
        for (level, len, count) in rounds {
            for n in 0..count {
                world.record(if n == 0 { 7 - level } else { level }, len);
            }
            world.read(0, usize::MAX);
            world.round_over();
        }
        prop_assert_eq!(world.readers[0].fell_off, 0);
        let left = world.contents();
        world.read(1, usize::MAX);
        let [first, second] = &world.readers[..] else { panic!() };
        prop_assert_eq!(second.read + second.fell_off, first.read);
        prop_assert_eq!(second.read, left.len() as u64);
    }
}

/// As an agent with the smallest store has it: the longest records, as many as a round may bring.
#[test]
fn a_whole_round_of_the_longest_records_has_room() {
    let mut store = Store::new(1 << 20, 0);
    let long = [b'x'; TEXT_MAX_BYTES];
    let mut healthy = store.cursor_at_end();
    for round in 0..100u64 {
        for n in 0..ROUND_ENTRIES as u64 {
            let mut record = record(store.next_seq(), ((round + n) % 8) as u8, &long);
            let parts = [[b'p'; 15], [b's'; 15]];
            let (cgroup, device) = ([b'g'; 63], [b'd'; 47]);
            (record.subsystem, record.device) = (&parts[0], &device);
            record.context =
                Some(Context { cpu: 0, pid: 1, task: &parts[1], cgroup_id: 1, cgroup: &cgroup });
            store.record(&record);
        }
        while let Some(entry) = store.get(&mut healthy) {
            assert!(matches!(entry, Entry::Record(..)), "round {round}: {entry:?}");
            store.advance(&mut healthy);
        }
        store.round_over(0);
    }
}

/// Full of errors, and each round brings one debug record: that goes, no error.
#[test]
fn a_debug_record_does_not_push_an_error_out() {
    let mut store = Store::new(1 << 20, 0);
    let text = [b'x'; 500];
    let fill = |store: &mut Store, level: u8| {
        store.record(&record(store.next_seq(), level, &text));
        store.round_over(0);
    };
    let errors = |store: &Store| {
        let mut cursor = store.cursor_at(0);
        let mut levels = Vec::new();
        while let Some(entry) = store.get(&mut cursor) {
            if let Entry::Record(record, _) = entry {
                levels.push(record.level);
            }
            store.advance(&mut cursor);
        }
        levels.iter().filter(|level| **level == 3).count()
    };
    let mut before = 0;
    while errors(&store) >= before {
        before = errors(&store);
        fill(&mut store, 3);
    }
    let kept = errors(&store);
    assert!(kept * 600 > (1 << 20) / 2, "only {kept} were kept");
    for level in [7, 6, 5, 4] {
        for _ in 0..5_000 {
            fill(&mut store, level);
        }
        assert_eq!(errors(&store), kept, "level {level}");
    }
}

/// The default size, and a target that is stalled while 100,000 short lines come.
#[test]
fn a_burst_of_100_000_short_records_stays() {
    let mut store = Store::new(16 << 20, 0);
    let mut stalled = store.cursor_at_end();
    for seq in 0..100_000 {
        let text = [b'x'; 40];
        let mut record = record(seq, (seq % 8) as u8, &text);
        let cgroup = b"session-1234.scope";
        record.context =
            Some(Context { cpu: 3, pid: 4711, task: b"kworker/3:1-eve", cgroup_id: 1, cgroup });
        (record.subsystem, record.device) = (b"", b"");
        store.record(&record);
        if (seq + 1).is_multiple_of(ROUND_ENTRIES as u64) {
            store.round_over(0);
        }
    }
    store.round_over(0);
    for seq in 0..100_000 {
        let Some(Entry::Record(found, _)) = store.get(&mut stalled) else { panic!("{seq}") };
        assert_eq!(found.seq, seq);
        store.advance(&mut stalled);
    }
    assert_eq!(store.get(&mut stalled), None);
}

#[test]
fn a_cursor_within_a_missing_range_has_its_rest() {
    let mut store = Store::new(1, 0);
    store.record(&record(0, 6, b"a"));
    store.missing(1, 10, MissingReason::KernelOverwrote);
    store.record(&record(11, 7, b"b"));
    let mut cursor = store.cursor_at(4);
    let rest = Entry::Missing { count: 7, reason: MissingReason::KernelOverwrote };
    assert_eq!(store.get(&mut cursor), Some(rest));
    store.advance(&mut cursor);
    assert_eq!(cursor.seq(), 11);
    assert!(matches!(store.get(&mut cursor), Some(Entry::Record(found, _)) if found.seq == 11));
    assert_eq!(store.cursor_at(77).seq(), 12);
}
